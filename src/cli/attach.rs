//! `raystream attach` and `raystream detach`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::config::{config_file, load_without_access};
use super::{Failure, Output};
use crate::server::config::{Config, Flag, Sources};
use crate::store::attach::{self, AttachError};
use crate::store::embedded;
use crate::store::endpoint::{Address, Endpoint};

/// Read and watch a table that is already there
///
/// Its rows become documents: the primary key is the id (a JSON array when it has several columns), the row is the document.
/// `raystream sub` then shows every change, whoever makes it; the table is written with SQL as before. Adds two triggers to
/// the table and a view to the schema raystream; `raystream detach` takes them away again. The role has to own the table, or
/// hold the rights TRIGGER and SELECT on it.
#[derive(Debug, Args)]
pub(super) struct AttachArguments {
    #[command(flatten)]
    database: DatabaseArguments,
    /// The table, as SQL names it
    #[arg(value_name = "TABLE")]
    table: String,
    /// Its name here; without this, its own
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// Take a table off again that was attached
#[derive(Debug, Args)]
pub(super) struct DetachArguments {
    #[command(flatten)]
    database: DatabaseArguments,
    /// The table, as SQL names it, or its name here
    #[arg(value_name = "TABLE")]
    table: String,
}

/// Which database.
#[derive(Debug, Args)]
pub(super) struct DatabaseArguments {
    /// The file; without this, raystream.toml of the current folder if there is one
    #[arg(long, value_name = "FILE", env = "RAYSTREAM_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    /// The database, in place of database.url of the configuration
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// The folder of a server with a private Postgres, which has to run [default: raystream-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl DatabaseArguments {
    /// The database.
    pub(super) fn resolve(&self, output: &Output) -> Result<Endpoint, Failure> {
        self.resolve_with_config(output).map(|(database, _)| database)
    }

    /// The database, and the configuration that it is in.
    pub(super) fn resolve_with_config(&self, output: &Output) -> Result<(Endpoint, Config), Failure> {
        let url = self.database.as_ref().map(|url| Flag {
            name: "--database",
            key: "database.url",
            value: url.clone(),
        });
        let data = self.data.as_ref().map(|path| Flag {
            name: "--data",
            key: "data",
            value: path.to_string_lossy().into_owned(),
        });
        let flags = [url, data].into_iter().flatten().collect();
        let sources = Sources::of_process(config_file(self.config.as_ref()), flags);
        let config = load_without_access(&sources, output)?.config;
        let database = match &config.database.url {
            Some(url) => Address::parse(url, &config.database.tls())
                .and_then(Address::endpoint)
                .map_err(|error| Failure::failed(format!("database.url: {error}"))),
            None => embedded::running(&config.data).map(Endpoint::from).ok_or_else(|| {
                let data = config.data.display();
                Failure::failed(format!("no private Postgres runs in {data}"))
                    .with_hint("start the server, or name the database with --database")
            }),
        };
        Ok((database?, config))
    }
}

pub(super) fn attach(arguments: &AttachArguments, output: &mut Output) -> Result<(), Failure> {
    let endpoint = arguments.database.resolve(output)?;
    let attached = attach::attach(&endpoint, &arguments.table, arguments.name.as_deref());
    let name = block_on(attached)?;
    output.result(name.as_str(), &json!({ "attached": name.as_str() }))
}

pub(super) fn detach(arguments: &DetachArguments, output: &mut Output) -> Result<(), Failure> {
    let endpoint = arguments.database.resolve(output)?;
    let name = block_on(attach::detach(&endpoint, &arguments.table))?;
    output.result(&name, &json!({ "detached": name }))
}

fn block_on<T>(work: impl Future<Output = Result<T, AttachError>>) -> Result<T, Failure> {
    let runtime = super::runtime::build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start threads: {error}")))?;
    runtime.block_on(work).map_err(|error| Failure::failed(error.to_string()))
}
