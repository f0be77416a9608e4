//! `raystream search`

use clap::Args;
use serde_json::value::RawValue;

use super::connect::block_on;
use super::{ConnectArguments, Failure, Output, json};
use crate::wire::ErrorCode;

/// Search the documents of a table for words, and print the best, one JSON object a line
///
/// "in this order", or, and -without mean what they mean in a search engine: 'writing -draft', '"in this order"'. When --limit cut it,
/// standard error has `next: CURSOR`, for --after. `raystream index create TABLE --search` makes it fast.
#[derive(Debug, Args)]
pub(super) struct SearchArguments {
    #[command(flatten)]
    connect: ConnectArguments,
    /// The table
    #[arg(value_name = "TABLE")]
    table: String,
    /// What to search for: in quotes of the shell where it has quotes or -without, or behind `--`
    #[arg(value_name = "WORDS", required = true)]
    words: Vec<String>,
    /// Search here alone, at a path like address.city; may be given more than once
    #[arg(long = "field", value_name = "PATH")]
    fields: Vec<String>,
    /// Only documents that contain this JSON object
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,
    /// The language of the words; `simple` takes them as they are
    #[arg(long, value_name = "LANGUAGE", default_value = "english")]
    language: String,
    /// Count the values at this path of all that is found; may be given more than once
    #[arg(long = "facet", value_name = "PATH")]
    facets: Vec<String>,
    /// At most so many, 1 to 100
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
    /// Those behind the page that told this cursor; with the same words, fields, filter and language
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Print parts of the text around what was found
    #[arg(long)]
    highlight: bool,
    /// The documents as they were: a cursor of `raystream sub`, or a time like 2026-01-31T12:00:00Z
    #[arg(long, value_name = "CURSOR|TIME")]
    at: Option<String>,
}

/// The arguments of `table.search`.
#[derive(serde::Serialize)]
struct Request<'a> {
    table: &'a str,
    query: String,
    fields: &'a [String],
    /// As the user wrote it.
    filter: Option<Box<RawValue>>,
    language: &'a str,
    facets: &'a [String],
    limit: u32,
    after: Option<&'a str>,
    highlight: bool,
    at: Option<&'a str>,
}

pub(super) fn run(arguments: &SearchArguments, output: &mut Output) -> Result<(), Failure> {
    let args = Request {
        table: &arguments.table,
        query: arguments.words.join(" "),
        fields: &arguments.fields,
        filter: arguments.filter.clone().map(|filter| json::raw("the filter", filter)).transpose()?,
        language: &arguments.language,
        facets: &arguments.facets,
        limit: arguments.limit,
        after: arguments.after.as_deref(),
        highlight: arguments.highlight,
        at: arguments.at.as_deref(),
    };
    let result = block_on(async {
        let client = arguments.connect.connect(output, |_| {}).await?;
        let result = client.call("table.search", &args).await;
        client.close().await;
        Ok::<_, Failure>(result?)
    })?;
    let not_found =
        || Failure::answered(ErrorCode::INTERNAL_ERROR, "the server's result is not a list of documents");
    let text = json::printable(&result).ok_or_else(not_found)?;
    let found: Page<'_> = serde_json::from_str(&text).map_err(|_| not_found())?;
    let mut lines = String::new();
    for item in &found.items {
        lines.push_str(item.get());
        lines.push('\n');
    }
    output.bytes(lines.as_bytes())?;
    if let Some(facets) = found.facets {
        output.trailer("facets", facets.get());
    }
    if let Some(next) = &found.next {
        output.trailer("next", next);
    }
    if !found.complete {
        output.note(format!("more than {} were found: these are the best of so many", found.total));
    } else if usize::try_from(found.total).is_ok_and(|total| total > found.items.len()) {
        output.note(format!("{} were found", found.total));
    }
    Ok(())
}

/// The answer; documents stay as the server wrote them.
#[derive(serde::Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    facets: Option<&'a RawValue>,
    next: Option<String>,
    total: u64,
    complete: bool,
}
