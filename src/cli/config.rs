//! `raystream config`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, Output};
use crate::server::config::{self, ConfigFile, Fault, Loaded, Sources};
use crate::server::{check_ca_file, key_file};
use crate::store::endpoint::Address;

/// Check or print the configuration of `raystream serve`
///
/// Values come from the defaults, then the file, then RAYSTREAM_* variables (two underscores between the parts of a key:
/// RAYSTREAM_DATABASE__URL is database.url), then flags of the command line; the later wins.
#[derive(Debug, Args)]
pub(super) struct ConfigArguments {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say `ok`, or everything that is wrong
    Check(FileArguments),
    /// Print the values in force as TOML, each with where it comes from; passwords are masked
    Print(FileArguments),
}

#[derive(Debug, Args)]
struct FileArguments {
    /// The file; without this, raystream.toml of the current folder if there is one
    #[arg(long, value_name = "FILE", env = "RAYSTREAM_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
}

/// Which file `--config` means.
pub(super) fn config_file(named: Option<&PathBuf>) -> ConfigFile {
    named.map_or(ConfigFile::IfPresent, |path| ConfigFile::Named(path.clone()))
}

/// The configuration for a server, with the warnings told.
pub(super) fn load(sources: &Sources, output: &Output) -> Result<Loaded, Failure> {
    let loaded = config::load(sources).map_err(|faults| failure(&faults))?;
    loaded.warnings.iter().for_each(|warning| output.warn(warning.to_string()));
    Ok(loaded)
}

/// The configuration for a server whose access rules are not those of `[access]`.
pub(super) fn load_without_access(sources: &Sources, output: &Output) -> Result<Loaded, Failure> {
    let loaded = config::load(sources).map_err(|faults| failure(&faults))?;
    let others = loaded.warnings.iter().filter(|warning| warning.key != "access");
    others.for_each(|warning| output.warn(warning.to_string()));
    Ok(loaded)
}

pub(super) fn run(arguments: &ConfigArguments, output: &mut Output) -> Result<(), Failure> {
    match &arguments.command {
        ConfigCommand::Check(file) => check(&sources(file), output),
        ConfigCommand::Print(file) => print(&sources(file), output),
    }
}

fn sources(file: &FileArguments) -> Sources {
    Sources::of_process(config_file(file.config.as_ref()), Vec::new())
}

fn check(sources: &Sources, output: &mut Output) -> Result<(), Failure> {
    let (faults, warnings) = match config::load(sources) {
        Ok(loaded) => (file_faults(&loaded), loaded.warnings),
        Err(faults) => (faults, Vec::new()),
    };
    if output.is_json() {
        let report = json!({ "ok": faults.is_empty(), "faults": faults, "warnings": warnings });
        output.line(report.to_string())?;
    } else {
        warnings.iter().for_each(|warning| output.warn(warning.to_string()));
        if faults.is_empty() {
            output.line("ok")?;
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(failure(&faults)) }
}

fn print(sources: &Sources, output: &mut Output) -> Result<(), Failure> {
    let loaded = load(sources, output)?;
    if output.is_json() {
        return output.line(config::to_json(&loaded).to_string());
    }
    output.bytes(config::to_toml(&loaded).as_bytes())
}

/// A server would refuse to start with these.
fn file_faults(loaded: &Loaded) -> Vec<Fault> {
    let mut faults = key_file_faults(loaded);
    let database = &loaded.config.database;
    if let Some(url) = &database.url
        && let Err(error) = Address::parse(url, &database.tls()).and_then(Address::endpoint)
    {
        let key = "database.url".to_owned();
        let place = loaded.sources.get(&key).cloned().unwrap_or_default();
        faults.push(Fault { key, place, message: error.to_string(), hint: None });
    }
    if let Some(path) = &loaded.config.webhooks.ca_file
        && let Err(error) = check_ca_file(path)
    {
        let key = "webhooks.ca_file".to_owned();
        let place = loaded.sources.get(&key).cloned().unwrap_or_default();
        faults.push(Fault { key, place, message: error.to_string(), hint: None });
    }
    faults
}

fn key_file_faults(loaded: &Loaded) -> Vec<Fault> {
    let identity = &loaded.config.identity;
    let secret = |path: &PathBuf| key_file::read_secret(path).map(|_| ());
    let psk = |path: &PathBuf| key_file::read_psk(path).map(|_| ());
    [
        ("identity.key_file", identity.key_file.as_ref().map(secret)),
        ("identity.previous_key_file", identity.previous_key_file.as_ref().map(secret)),
        ("identity.psk_file", identity.psk_file.as_ref().map(psk)),
    ]
    .into_iter()
    .filter_map(|(key, read)| Some((key, read?.err()?)))
    .map(|(key, error)| Fault {
        key: key.to_owned(),
        place: loaded.sources.get(key).cloned().unwrap_or_default(),
        message: error.to_string(),
        hint: error.hint(),
    })
    .collect()
}

fn failure(faults: &[Fault]) -> Failure {
    let lines: Vec<String> = faults.iter().map(Fault::to_string).collect();
    match &lines[..] {
        [one] => Failure::failed(one.as_str()),
        several => {
            let count = several.len();
            Failure::failed(format!("the configuration has {count} faults:\n  {}", several.join("\n  ")))
        }
    }
}
