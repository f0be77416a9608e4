//! `raystream query`

use clap::Args;
use serde_json::value::RawValue;

use super::connect::block_on;
use super::{ConnectArguments, Failure, Output, json};
use crate::client::{CallStream, Json, StreamOptions};
use crate::server::config::Period;
use crate::wire::ErrorCode;

/// Bytes of lines that are gathered before they are written.
const BATCH_MAX: usize = 64 * 1024;

/// Print the documents of a table, one JSON object a line, however many there are
///
/// All of them are as of one moment. What reads the lines sets the pace: nothing piles up on either side. When --limit cut it,
/// standard error has `next: CURSOR`, for --after.
#[derive(Debug, Args)]
pub(super) struct QueryArguments {
    #[command(flatten)]
    connect: ConnectArguments,
    /// The table
    #[arg(value_name = "TABLE")]
    table: String,
    /// Only documents that contain this JSON object
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,
    /// Their order: `id`, or the path of a field like address.city; `-` before it for descending
    #[arg(long, value_name = "ORDER", allow_hyphen_values = true)]
    order: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Those behind the page that told this cursor; with the same filter and order
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// The documents as they were: a cursor of `raystream sub`, or a time like 2026-01-31T12:00:00Z
    #[arg(long, value_name = "CURSOR|TIME")]
    at: Option<String>,
    /// Give up when it is not done after this time; the server's own limit is one hour
    #[arg(long, value_name = "TIME")]
    deadline: Option<Period>,
}

/// The arguments of `table.query`.
#[derive(serde::Serialize)]
struct Request<'a> {
    table: &'a str,
    /// As the user wrote it.
    filter: Option<Box<RawValue>>,
    order: Option<&'a str>,
    limit: Option<u32>,
    after: Option<&'a str>,
    at: Option<&'a str>,
}

pub(super) fn run(arguments: &QueryArguments, output: &mut Output) -> Result<(), Failure> {
    let args = Json::encode(&Request {
        table: &arguments.table,
        filter: arguments.filter.clone().map(|filter| json::raw("the filter", filter)).transpose()?,
        order: arguments.order.as_deref(),
        limit: arguments.limit,
        after: arguments.after.as_deref(),
        at: arguments.at.as_deref(),
    })?;
    let mut options = StreamOptions::receiving();
    options.timeout = arguments.deadline.map(|deadline| deadline.get());
    block_on(async {
        let client = arguments.connect.connect(output, |_| {}).await?;
        let mut documents = client.open("table.query", args, options).await?;
        let printed = match print(&mut documents, output).await {
            Ok(()) => tell_next(documents, output).await,
            // An error ends the command; what was printed stands.
            failed => failed,
        };
        client.close().await;
        printed
    })
}

/// Says where a query goes on that was cut by its limit.
async fn tell_next(documents: CallStream, output: &mut Output) -> Result<(), Failure> {
    /// The answer.
    #[derive(serde::Deserialize)]
    struct Answer {
        next: Option<String>,
    }
    let answer: Answer = documents.result().await?.decode()?;
    if let Some(next) = answer.next {
        output.trailer("next", &next);
    }
    Ok(())
}

pub(super) async fn print(documents: &mut CallStream, output: &mut Output) -> Result<(), Failure> {
    let mut lines = String::new();
    loop {
        // What is here already goes out in one write, up to a bound; nobody waits for a batch to fill.
        let next = match futures_util::FutureExt::now_or_never(documents.next()) {
            Some(next) => next,
            None => {
                output.bytes(lines.as_bytes())?;
                lines.clear();
                documents.next().await
            }
        };
        let document = match next {
            Ok(Some(document)) => document,
            end => {
                output.bytes(lines.as_bytes())?;
                return end.map(drop).map_err(Failure::from);
            }
        };
        let line = json::printable(&document).ok_or_else(|| {
            Failure::answered(ErrorCode::INTERNAL_ERROR, "an item of the server is not JSON")
        })?;
        lines.push_str(&line);
        lines.push('\n');
        if lines.len() >= BATCH_MAX {
            output.bytes(lines.as_bytes())?;
            lines.clear();
        }
    }
}
