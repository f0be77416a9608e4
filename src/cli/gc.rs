//! `raystream gc`

use clap::Args;
use serde_json::json;

use super::attach::DatabaseArguments;
use super::{Failure, Output};
use crate::store::feed::{Retention, Survey, gc};

/// Show what is too old to be kept: parts of the log of changes, and what is left of deleted documents
///
/// A running server drops it by itself, by `feed.retention` and `feed.retention_size`; --run does it now. Cursors and times
/// from before what is dropped are then answered with RESET.
#[derive(Debug, Args)]
pub(super) struct GcArguments {
    #[command(flatten)]
    database: DatabaseArguments,
    /// Drop it
    #[arg(long)]
    run: bool,
}

pub(super) fn run(arguments: &GcArguments, output: &mut Output) -> Result<(), Failure> {
    let (database, config) = arguments.database.resolve_with_config(output)?;
    let feed = config.feed;
    let retention = Retention { max_age: feed.retention.get(), max_bytes: feed.retention_size.get() };
    let runtime = super::runtime::build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start threads: {error}")))?;
    let failed = |error: gc::GcError| Failure::failed(error.to_string());
    if arguments.run {
        let done = runtime.block_on(gc::collect(&database, retention)).map_err(failed)?;
        let text = format!("dropped {} partitions and {} tombstones", done.partitions, done.tombstones);
        return output.result(text, &json!({ "partitions": done.partitions, "tombstones": done.tombstones }));
    }
    let survey = runtime.block_on(gc::look(&database, retention)).map_err(failed)?;
    output.result(text(&survey), &value(&survey))
}

fn text(survey: &Survey) -> String {
    let mut lines = String::new();
    for partition in &survey.partitions {
        let what = if partition.is_due { "to be dropped" } else { "kept" };
        lines.push_str(&format!("{:<20} {:>14} bytes  {what}\n", partition.name, partition.bytes));
    }
    lines + &format!("tombstones to be dropped: {}", survey.tombstones)
}

fn value(survey: &Survey) -> serde_json::Value {
    let partitions: Vec<_> = survey
        .partitions
        .iter()
        .map(|part| json!({ "name": part.name, "bytes": part.bytes, "due": part.is_due }))
        .collect();
    json!({ "partitions": partitions, "tombstones": survey.tombstones })
}
