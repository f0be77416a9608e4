//! `raystream index`

use std::io::{self, IsTerminal as _};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::attach::DatabaseArguments;
use super::{Failure, Output};
use crate::store::index::{self, IndexError, IndexInfo, IndexKind, Progress};
use crate::store::{Language, StoreError, TableName};

/// Indexes on the documents of a table
///
/// They are made and dropped while the table is written. Each makes every write dearer.
#[derive(Debug, Args)]
pub(super) struct IndexArguments {
    #[command(subcommand)]
    command: IndexCommand,
}

#[derive(Debug, Subcommand)]
enum IndexCommand {
    Create(CreateArguments),
    List(ListArguments),
    Drop(DropArguments),
}

/// Make an index, unless it is there
///
/// Without a path it serves filters. With a path, the order by that; with --text, statements of `table.exec` that compare the
/// text there; with --unique no two documents may have the same value there. With --search, search for words, in the paths alone
/// if there are any: a search has to name the same ones.
#[derive(Debug, Args)]
struct CreateArguments {
    #[command(flatten)]
    database: DatabaseArguments,
    /// The table
    #[arg(value_name = "TABLE")]
    table: String,
    /// Where in a document, like address.city; with --search there may be several
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// Refuse a write that would give two documents the same value at the path
    #[arg(long, conflicts_with = "search")]
    unique: bool,
    /// Serve statements of `table.exec` with the text at the path, as in data->'address'->>'city'
    #[arg(long, conflicts_with_all = ["search", "unique"])]
    text: bool,
    /// Serve `table.search` and `raystream search`
    #[arg(long)]
    search: bool,
    /// The language of the search, as it is given with a search [default: english]
    #[arg(long, value_name = "LANGUAGE", requires = "search")]
    language: Option<String>,
}

/// Show the indexes that were asked for, of a table or of all
#[derive(Debug, Args)]
struct ListArguments {
    #[command(flatten)]
    database: DatabaseArguments,
    /// The table
    #[arg(value_name = "TABLE")]
    table: Option<String>,
}

/// Drop an index, or what is left of one whose making was interrupted
#[derive(Debug, Args)]
struct DropArguments {
    #[command(flatten)]
    database: DatabaseArguments,
    /// Its name, from `raystream index list`
    #[arg(value_name = "INDEX")]
    name: String,
}

pub(super) fn run(arguments: &IndexArguments, output: &mut Output) -> Result<(), Failure> {
    let runtime = super::runtime::build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start threads: {error}")))?;
    match &arguments.command {
        IndexCommand::Create(arguments) => runtime.block_on(create(arguments, output)),
        IndexCommand::List(arguments) => runtime.block_on(list(arguments, output)),
        IndexCommand::Drop(arguments) => runtime.block_on(drop(arguments, output)),
    }
}

fn failure(error: IndexError) -> Failure {
    Failure::failed(error.to_string())
}

fn table_name(name: &str) -> Result<TableName, Failure> {
    TableName::parse(name).map_err(|error| Failure::usage(error.to_string()))
}

fn kind(arguments: &CreateArguments) -> Result<IndexKind, Failure> {
    let usage = |error: StoreError| Failure::usage(error.to_string());
    if arguments.search {
        let language = arguments.language.as_deref().map_or(Ok(Language::default()), Language::parse);
        return IndexKind::search(&arguments.paths, language.map_err(usage)?).map_err(usage);
    }
    let CreateArguments { unique, text, .. } = *arguments;
    match arguments.paths.as_slice() {
        [] if unique || text => Err(Failure::usage("--unique and --text need a path")),
        [] => Ok(IndexKind::Filter),
        [path] if unique => IndexKind::unique(path).map_err(usage),
        [path] if text => IndexKind::text(path).map_err(usage),
        [path] => IndexKind::order(path).map_err(usage),
        _ => Err(Failure::usage("an index is on one path; only with --search on several")),
    }
}

async fn create(arguments: &CreateArguments, output: &mut Output) -> Result<(), Failure> {
    let (table, kind) = (table_name(&arguments.table)?, kind(arguments)?);
    let endpoint = arguments.database.resolve(output)?;
    let stop = stop()?;
    let made = {
        let mut shown = Shown::new(output);
        index::create(&endpoint, &table, &kind, |progress| shown.show(progress), stop).await
    };
    let made = made.map_err(failure)?;
    if !made.is_new {
        output.note("it is there already");
    }
    let value = json!({
        "index": made.name,
        "created": made.is_new,
        "table": table.as_str(),
        "kind": kind.name(),
        "paths": kind.paths(),
        "language": kind.language().map(Language::as_str),
    });
    output.result(&made.name, &value)
}

async fn drop(arguments: &DropArguments, output: &mut Output) -> Result<(), Failure> {
    let endpoint = arguments.database.resolve(output)?;
    let stop = stop()?;
    {
        let mut shown = Shown::new(output);
        index::drop(&endpoint, &arguments.name, |progress| shown.show(progress), stop).await
    }
    .map_err(failure)?;
    output.result(&arguments.name, &json!({ "dropped": arguments.name }))
}

/// Ready when somebody wants it to end.
fn stop() -> Result<impl Future<Output = ()>, Failure> {
    let unheard = |error: io::Error| Failure::failed(format!("cannot listen for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unheard)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(unheard)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

async fn list(arguments: &ListArguments, output: &mut Output) -> Result<(), Failure> {
    let table = arguments.table.as_deref().map(table_name).transpose()?;
    let endpoint = arguments.database.resolve(output)?;
    let found = index::list(&endpoint, table.as_ref()).await.map_err(failure)?;
    for index in &found {
        output.result(line(index), &value(index))?;
    }
    if found.is_empty() {
        output.remark("no index was asked for");
    }
    Ok(())
}

fn line(index: &IndexInfo) -> String {
    let mut what = index.kind.clone();
    for path in &index.paths {
        what.push(' ');
        what.push_str(path);
    }
    if let Some(language) = &index.language {
        what.push_str(&format!(" ({language})"));
    }
    let IndexInfo { table, name, state, bytes, scans, .. } = index;
    format!("{name:<28} {table:<20} {:<9} {bytes:>12} bytes {scans:>9} uses  {what}", state.as_str())
}

fn value(index: &IndexInfo) -> serde_json::Value {
    json!({
        "index": index.name,
        "table": index.table,
        "kind": index.kind,
        "paths": index.paths,
        "language": index.language,
        "state": index.state.as_str(),
        "bytes": index.bytes,
        "scans": index.scans,
    })
}

/// The progress on standard error: a bar when a person looks, else a line for each step.
struct Shown<'a> {
    output: &'a Output,
    bar: Option<ProgressBar>,
    phase: String,
}

impl<'a> Shown<'a> {
    fn new(output: &'a Output) -> Self {
        let is_seen = !output.is_json() && io::stderr().is_terminal();
        let bar = is_seen.then(|| ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()));
        if let (Some(bar), Ok(style)) = (&bar, ProgressStyle::with_template("{bar:30} {percent:>3}% {msg}")) {
            bar.set_style(style);
        }
        Self { output, bar, phase: String::new() }
    }

    fn show(&mut self, progress: Progress) {
        let Progress { phase, done, total } = progress;
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(phase);
        } else if self.output.is_json() {
            self.output.progress(&json!({ "phase": phase, "done": done, "total": total }));
        } else if self.phase != phase {
            self.output.note(&phase);
            self.phase = phase;
        }
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
