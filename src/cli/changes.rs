//! `raystream changes`

use clap::Args;

use super::connect::block_on;
use super::query::print;
use super::{ConnectArguments, Failure, Output};
use crate::client::{Json, StreamOptions};
use crate::server::config::Period;

/// Print the log of changes, one JSON object a line: who changed what, when, with the document before and after
///
/// Up to now, and then it ends; the cursor to go on from later is said last. Without --table and --topic it has all that you
/// may read. `raystream sub` watches one table as it changes.
#[derive(Debug, Args)]
pub(super) struct ChangesArguments {
    #[command(flatten)]
    connect: ConnectArguments,
    /// Where to begin: behind a cursor, behind a time like 2026-01-31T12:00:00Z, or `now`; without this, with the oldest
    /// change that is kept
    #[arg(long, value_name = "CURSOR|TIME")]
    from: Option<String>,
    /// Only this table; may be given more than once
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<String>,
    /// Only this topic; may be given more than once
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Give up when it is not done after this time; the server's own limit is one hour
    #[arg(long, value_name = "TIME")]
    deadline: Option<Period>,
}

pub(super) fn run(arguments: &ChangesArguments, output: &mut Output) -> Result<(), Failure> {
    let names = |names: &[String]| (!names.is_empty()).then(|| names.to_vec());
    let args = Json::encode(&serde_json::json!({
        "from": arguments.from,
        "limit": arguments.limit,
        "tables": names(&arguments.tables),
        "topics": names(&arguments.topics),
    }))?;
    let mut options = StreamOptions::receiving();
    options.timeout = arguments.deadline.map(|deadline| deadline.get());
    block_on(async {
        let client = arguments.connect.connect(output, |_| {}).await?;
        let mut changes = client.open("changes.read", args, options).await?;
        let printed = print(&mut changes, output).await;
        let answer = match printed {
            Ok(()) => changes.result().await.map_err(Failure::from),
            Err(failure) => Err(failure),
        };
        client.close().await;
        let answer: serde_json::Value = answer?.decode()?;
        if let Some(cursor) = answer["cursor"].as_str() {
            output.note(format!("go on with --from {cursor}"));
        }
        Ok(())
    })
}
