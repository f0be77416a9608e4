//! `raystream schema`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::connect::block_on;
use super::{ConnectArguments, Failure, Output, json};
use crate::client::{CallOptions, Json};
use crate::wire::ErrorCode;

/// Show or change what the documents of a table have to look like (JSON Schema)
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true, arg_required_else_help = true)]
pub(super) struct SchemaArguments {
    #[command(subcommand)]
    command: SchemaCommand,
}

#[derive(Debug, Subcommand)]
enum SchemaCommand {
    /// Print the schema of a table, or null
    Show(TableArguments),
    /// Give a table a schema
    ///
    /// From then on every document that is written has to fit, at every server of the database. Documents that are there and do
    /// not fit are counted and named, and the schema is not set because of them. JSON Schema 2020-12, or draft 7 where the
    /// schema says so; references lead into the same file.
    Set(SetArguments),
    /// Take the schema of a table away
    Remove(TableArguments),
}

#[derive(Debug, Args)]
struct TableArguments {
    #[command(flatten)]
    connect: ConnectArguments,
    /// The table
    #[arg(value_name = "TABLE")]
    table: String,
}

#[derive(Debug, Args)]
struct SetArguments {
    #[command(flatten)]
    table: TableArguments,
    /// The file with the schema; `-` reads it from standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What becomes of documents that are there and do not fit
    #[arg(long, value_enum, default_value_t = Existing::Refuse, value_name = "WHAT")]
    existing: Existing,
}

/// The values of `--existing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Existing {
    /// They keep the schema from being set
    Refuse,
    /// They stay, and are not looked for; their next version has to fit
    Keep,
}

pub(super) fn run(arguments: &SchemaArguments, output: &mut Output) -> Result<(), Failure> {
    match &arguments.command {
        SchemaCommand::Show(table) => {
            let args = Json::encode(&serde_json::json!({ "table": table.table }))?;
            let text = table.call("table.schema", args, output)?;
            let Shown { schema, .. } = serde_json::from_str(&text).map_err(|_| odd())?;
            output.line(schema.get())
        }
        SchemaCommand::Set(set) => {
            let schema = set.read()?;
            let existing = if set.existing == Existing::Keep { "keep" } else { "refuse" };
            let table = serde_json::Value::from(set.table.table.as_str());
            // The text as it is in the file, so that its order is kept.
            let args = Json::new(format!(r#"{{"table":{table},"existing":"{existing}","schema":{schema}}}"#));
            let text = set.table.call("table.setSchema", args, output)?;
            output.line(text)
        }
        SchemaCommand::Remove(table) => {
            let args = Json::encode(&serde_json::json!({ "table": table.table, "schema": null }))?;
            let text = table.call("table.setSchema", args, output)?;
            output.line(text)
        }
    }
}

impl TableArguments {
    fn call(&self, method: &str, args: Json, output: &Output) -> Result<String, Failure> {
        let result = block_on(async {
            let client = self.connect.connect(output, |_| {}).await?;
            let options = CallOptions { timeout: Some(self.connect.timeout.get()), ..CallOptions::default() };
            let result = client.call_response(method, args, options).await;
            client.close().await;
            Ok::<_, Failure>(result?.result)
        })?;
        json::printable(&result).map(std::borrow::Cow::into_owned).ok_or_else(odd)
    }
}

impl SetArguments {
    fn read(&self) -> Result<String, Failure> {
        let text = if self.file.as_os_str() == "-" {
            json::text("-")?
        } else {
            std::fs::read_to_string(&self.file).map_err(|error| {
                Failure::failed(format!("{} cannot be read: {error}", self.file.display()))
            })?
        };
        json::parse("the schema", text.clone())?;
        Ok(text)
    }
}

/// The answer; the schema stays as the server wrote it.
#[derive(serde::Deserialize)]
struct Shown<'a> {
    #[serde(borrow)]
    schema: &'a serde_json::value::RawValue,
}

fn odd() -> Failure {
    Failure::answered(ErrorCode::INTERNAL_ERROR, "the server's result is not that of the method")
}
