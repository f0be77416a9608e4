//! Layers to one configuration.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::fault::{Fault, nearest};
use super::lines::{Lines, line_at};
use super::sections::Config;
use super::validate;
use crate::auth::Access;

/// What every variable of the configuration starts with.
const PREFIX: &str = "RAYSTREAM_";
/// Variables with that start which are no keys: the folder of the Postgres programs, the file itself, switches of the
/// tests.
const RESERVED: [&str; 2] = ["PG_BIN", "CONFIG"];
const RESERVED_PREFIX: &str = "TEST_";
/// The file that is read when it is there and none is named.
const DEFAULT_FILE: &str = "raystream.toml";
/// The source of a value that nobody set.
pub(super) const DEFAULT_SOURCE: &str = "default";

/// A key that was set on the command line.
#[derive(Debug, Clone)]
pub struct Flag {
    /// As the user writes it: `--listen`.
    pub name: &'static str,
    /// The key it sets: `listen`.
    pub key: &'static str,
    /// Its value.
    pub value: String,
}

/// Which file is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ConfigFile {
    /// None.
    None,
    /// `raystream.toml` of the current folder, if there is one.
    #[default]
    IfPresent,
    /// This one, which has to exist.
    Named(PathBuf),
}

/// Where values may come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file.
    pub file: ConfigFile,
    /// The environment, names that are not ours included.
    pub environment: Vec<(String, String)>,
    /// What was set on the command line.
    pub flags: Vec<Flag>,
}

impl Sources {
    /// The environment of this process and a file; values that are not Unicode are left out.
    pub fn of_process(file: ConfigFile, flags: Vec<Flag>) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { file, environment, flags }
    }
}

/// A configuration that was found to be sound.
#[derive(Debug)]
pub struct Loaded {
    /// The effective values.
    pub config: Config,
    /// `[access]`, compiled.
    pub access: Access,
    /// Key to where its value came from. Keys that are absent here have their default.
    pub sources: BTreeMap<String, String>,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Fault>,
}

/// Reads all sources.
///
/// # Errors
/// All faults that were found, in the order of their lines.
pub fn load(sources: &Sources) -> Result<Loaded, Vec<Fault>> {
    let mut reading = Reading::default();
    reading.file(&sources.file);
    reading.environment(&sources.environment);
    reading.flags(&sources.flags);
    let figment = reading.layers.iter().fold(Figment::from(Layer::defaults()), Figment::merge);
    let config = reading.extract(figment.clone());
    let places = Places { figment: &figment, lines: &reading.lines };
    let mut judged = validate::validate(&config, &places);
    reading.faults.append(&mut judged.faults);
    reading.warnings.append(&mut judged.warnings);
    match (judged.access, reading.faults.is_empty()) {
        (Some(access), true) => {
            Ok(Loaded { sources: sources_of(&figment), config, access, warnings: reading.warnings })
        }
        _ => {
            // The order of the file, so that it can be worked through from top to bottom.
            reading.faults.sort_by_cached_key(|fault| match fault.place.rsplit_once(':') {
                Some((file, line)) => (file.to_owned(), line.parse::<usize>().unwrap_or(0)),
                None => (fault.place.clone(), 0),
            });
            Err(reading.faults)
        }
    }
}

/// One source of values.
#[derive(Debug, Clone)]
struct Layer {
    source: String,
    values: Dict,
}

impl Layer {
    fn defaults() -> Self {
        Self { source: DEFAULT_SOURCE.to_owned(), values: default_values() }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

/// The defaults, keys without a value included: the shape of a configuration.
fn default_values() -> Dict {
    Value::serialize(Config::default())
        .ok()
        .and_then(Value::into_dict)
        .expect("the defaults serialise into a dictionary")
}

/// Finds the place of a value.
pub(super) struct Places<'a> {
    figment: &'a Figment,
    lines: &'a Lines,
}

impl Places<'_> {
    /// Where the value of a key comes from, with the line when that is a file.
    pub(super) fn of(&self, path: &[String]) -> String {
        let parents = (1..=path.len()).rev().filter_map(|length| path.get(..length));
        let mut found = parents.filter_map(|path| self.figment.find_metadata(&path.join(".")));
        found.next().map_or_else(|| DEFAULT_SOURCE.to_owned(), |source| self.with_line(&source.name, path))
    }

    fn with_line(&self, source: &str, path: &[String]) -> String {
        with_line(self.lines, source, path)
    }
}

fn with_line(lines: &Lines, source: &str, path: &[String]) -> String {
    match lines.get(path) {
        Some(line) if is_file(source) => format!("{source}:{line}"),
        _ => source.to_owned(),
    }
}

fn is_file(source: &str) -> bool {
    source != DEFAULT_SOURCE && !source.starts_with(ENVIRONMENT_SOURCE) && !source.starts_with(FLAG_SOURCE)
}

const ENVIRONMENT_SOURCE: &str = "environment variable ";
const FLAG_SOURCE: &str = "flag ";

/// The layers as they are read, and what was wrong with them.
#[derive(Default)]
struct Reading {
    layers: Vec<Layer>,
    lines: Lines,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
}

impl Reading {
    fn file(&mut self, file: &ConfigFile) {
        let path = match file {
            ConfigFile::None => return,
            ConfigFile::IfPresent => PathBuf::from(DEFAULT_FILE),
            ConfigFile::Named(path) => path.clone(),
        };
        let may_be_missing = *file == ConfigFile::IfPresent;
        let source = path.display().to_string();
        let whole = |message: String, line: Option<usize>| Fault {
            key: String::new(),
            place: line.map_or_else(|| source.clone(), |line| format!("{source}:{line}")),
            message,
            hint: None,
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && may_be_missing => return,
            Err(error) => return self.faults.push(whole(format!("cannot be read: {error}"), None)),
        };
        let values = toml::from_str::<toml::Table>(&text).map_err(|error| {
            let line = error.span().map(|span| line_at(&text, span.start));
            whole(error.message().to_owned(), line)
        });
        match values {
            Ok(values) => {
                self.lines = Lines::of(&text);
                let values = Value::serialize(values).ok().and_then(Value::into_dict);
                self.layer(source, values.expect("a TOML table serialises into a dictionary"));
            }
            Err(fault) => self.faults.push(fault),
        }
    }

    fn environment(&mut self, environment: &[(String, String)]) {
        let defaults = default_values();
        let mut ours: Vec<_> = environment
            .iter()
            .filter_map(|(name, value)| Some((name, name.strip_prefix(PREFIX)?, value)))
            .filter(|(_, key, _)| !RESERVED.contains(key) && !key.starts_with(RESERVED_PREFIX))
            .collect();
        // The environment has no order of its own; faults should come out the same each time.
        ours.sort_unstable();
        for (name, key, value) in ours {
            let path: Vec<String> = key.to_ascii_lowercase().split("__").map(str::to_owned).collect();
            let source = format!("{ENVIRONMENT_SOURCE}{name}");
            match path.first() {
                // Orchestrators put variables such as RAYSTREAM_PORT there when a service has this name.
                Some(first) if path.len() == 1 && !defaults.contains_key(first) => {
                    self.warnings.push(unknown(source, &path, first, &defaults));
                }
                _ => {
                    let value = typed(&defaults, &path, value);
                    self.layer(source, nested(&path, value));
                }
            }
        }
    }

    fn flags(&mut self, flags: &[Flag]) {
        for flag in flags {
            let path: Vec<String> = flag.key.split('.').map(str::to_owned).collect();
            let value = typed(&default_values(), &path, &flag.value);
            self.layer(format!("{FLAG_SOURCE}{}", flag.name), nested(&path, value));
        }
    }

    /// Takes a layer without the keys that nobody knows, which become faults.
    fn layer(&mut self, source: String, mut values: Dict) {
        self.remove_unknown(&source, &mut Vec::new(), &mut values);
        self.layers.push(Layer { source, values });
    }

    fn remove_unknown(&mut self, source: &str, path: &mut Vec<String>, values: &mut Dict) {
        if let Some(known) = known_keys(path) {
            values.retain(|key, _| {
                let is_known = known.contains_key(key);
                if !is_known {
                    path.push(key.clone());
                    let place = with_line(&self.lines, source, path);
                    self.faults.push(unknown(place, path, key, &known));
                    path.pop();
                }
                is_known
            });
        }
        for (key, value) in values {
            if let Value::Dict(_, inner) = value {
                path.push(key.clone());
                self.remove_unknown(source, path, inner);
                path.pop();
            }
        }
    }

    /// Reads the merged values. A value of the wrong type becomes a fault and its default takes the place, so that the
    /// next fault is found too.
    fn extract(&mut self, mut figment: Figment) -> Config {
        let defaults = Figment::from(Layer::defaults());
        let mut replaced: Vec<Vec<String>> = Vec::new();
        loop {
            let error = match figment.extract::<Config>() {
                Ok(config) => return config,
                Err(error) => error,
            };
            let path = error.path.clone();
            let source = error.metadata.as_ref().map_or(DEFAULT_SOURCE, |metadata| metadata.name.as_ref());
            self.faults.push(Fault {
                key: path.join("."),
                place: with_line(&self.lines, source, &path),
                // Figment puts quotes around names that have some already.
                message: error.kind.to_string().replace("``", "`"),
                hint: None,
            });
            let known = (1..=path.len()).rev().filter_map(|length| path.get(..length));
            let default = known
                .filter_map(|path| Some((path, defaults.find_value(&path.join(".")).ok()?)))
                .next()
                .filter(|(path, _)| !replaced.iter().any(|before| before == path));
            let Some((path, default)) = default else { return Config::default() };
            replaced.push(path.to_vec());
            figment = figment.merge((path.join("."), default));
        }
    }
}

/// The keys that may stand at a path; `None` where any may, or where a value stands.
fn known_keys(path: &[String]) -> Option<Dict> {
    let role = || Value::serialize(crate::auth::RoleConfig::default()).ok().and_then(Value::into_dict);
    let parts: Vec<&str> = path.iter().map(String::as_str).collect();
    match parts[..] {
        ["access", "keys" | "roles"] | ["access", "roles", _, "tables" | "topics"] => None,
        ["access", "roles", _] => role(),
        [] => Some(default_values()),
        _ => Value::from(default_values()).find(&path.join(".")).and_then(Value::into_dict),
    }
}

fn unknown(place: String, path: &[String], key: &str, known: &Dict) -> Fault {
    let meant = nearest(key, known.keys().map(String::as_str));
    let parent = path.split_last().map_or(&[][..], |(_, parent)| parent);
    let full = |name: &str| parent.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join(".");
    Fault {
        key: path.join("."),
        place,
        message: "there is no such key".to_owned(),
        hint: meant.map(|name| format!("did you mean `{}`?", full(name))),
    }
}

/// The text of a variable or flag as the type its default has: text stays text, even where it looks like a number.
fn typed(defaults: &Dict, path: &[String], text: &str) -> Value {
    let default = Value::from(defaults.clone()).find(&path.join("."));
    let is_text = match default {
        Some(Value::String(..)) => true,
        // A key without a default is text or a list.
        Some(Value::Empty(..)) => !text.trim_start().starts_with('['),
        _ => false,
    };
    if is_text {
        return Value::from(text);
    }
    text.parse().unwrap_or_else(|never: std::convert::Infallible| match never {})
}

fn nested(path: &[String], value: Value) -> Dict {
    let mut dict = Dict::new();
    if let Some((first, rest)) = path.split_first() {
        let value = if rest.is_empty() { value } else { Value::from(nested(rest, value)) };
        dict.insert(first.clone(), value);
    }
    dict
}

/// Where each value comes from, for keys that are not at their default.
fn sources_of(figment: &Figment) -> BTreeMap<String, String> {
    fn walk(figment: &Figment, value: &Value, path: &str, sources: &mut BTreeMap<String, String>) {
        if let Value::Dict(_, inner) = value {
            for (key, value) in inner {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                walk(figment, value, &path, sources);
            }
        } else if let Some(source) =
            figment.get_metadata(value.tag()).filter(|from| from.name != DEFAULT_SOURCE)
        {
            sources.insert(path.to_owned(), source.name.to_string());
        }
    }
    let mut sources = BTreeMap::new();
    if let Ok(merged) = figment.find_value("") {
        walk(figment, &merged, "", &mut sources);
    }
    sources
}
