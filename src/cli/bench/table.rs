//! The table that `get`, `set`, `query` and `sub` use.

use std::fmt;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use super::progress::Progress;
use crate::cli::{Failure, Output};
use crate::client::{CallOptions, Client, Error, Json};
use crate::wire::ErrorCode;

/// Its name.
pub(super) const TABLE: &str = "bench";
/// Documents in it: many enough that writers seldom meet, few enough to stay in memory.
pub(super) const DOCUMENTS: u64 = 1_000;
/// Values of the field that queries filter by: ten documents of each.
pub(super) const GROUPS: u64 = DOCUMENTS / PAGE;
/// Documents of one answer of a query.
pub(super) const PAGE: u64 = 10;
/// The group that is looked at before a run: writes begin with document 0, so that one which puts documents into another group
/// than theirs takes the first one from here. Group 0 is where such writes and `sub` put theirs.
const SAMPLE_GROUP: u64 = 1;
/// Writes at the same time while it is filled.
const FILLING: usize = 64;

/// The id of a document: of one width, so that every call has the same length.
pub(super) struct Id(u64);

pub(super) fn id_of(number: u64) -> Id {
    Id(number)
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d{:08}", self.0)
    }
}

/// A document of about so many bytes, in the group of its number.
pub(super) fn document(number: u64, payload: usize) -> String {
    format!("{DOCUMENT_BEGIN}{}{}", group_of(number), end_of_document(payload))
}

/// What a document begins with, before its group.
pub(super) const DOCUMENT_BEGIN: &str = r#"{"g":"#;

/// The group of a document.
pub(super) fn group_of(number: u64) -> u64 {
    number % GROUPS
}

/// What follows the group in a document of about so many bytes.
pub(super) fn end_of_document(payload: usize) -> String {
    let frame = DOCUMENT_BEGIN.len() + r#"10,"x":""}"#.len();
    format!(r#","x":"{}"}}"#, "x".repeat(payload.saturating_sub(frame)))
}

/// How many documents an answer of `table.query` has; none when it is no such answer.
pub(super) fn items_in(answer: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Page {
        items: Vec<serde::de::IgnoredAny>,
    }
    let page: Page = serde_json::from_slice(answer).ok()?;
    u64::try_from(page.items.len()).ok()
}

/// Makes the table if it is not there.
///
/// # Errors
/// Not granted, or no connection.
pub(super) async fn create(client: &Client) -> Result<(), Failure> {
    match client.call("table.create", &json!({ "table": TABLE })).await {
        Ok(_) => Ok(()),
        Err(Error::Call(error)) if error.code == ErrorCode::ALREADY_EXISTS => Ok(()),
        Err(error) => Err(explain(error)),
    }
}

/// Makes the table and its documents, unless they are there with this payload.
///
/// # Errors
/// Not granted, or no connection.
pub(super) async fn fill(client: &Client, payload: usize, output: &Output) -> Result<(), Failure> {
    if is_filled(client, payload).await? {
        return Ok(());
    }
    create(client).await?;
    let progress = Progress::new(output, "filling the table", DOCUMENTS);
    stream::iter(0..DOCUMENTS)
        .map(|number| write(client, number, payload))
        .buffer_unordered(FILLING)
        .enumerate()
        .map(|(n, written)| {
            progress.at(n);
            written
        })
        .try_collect::<()>()
        .await
        .map_err(explain)
}

/// Whether the last document is there, which is written last but for those beside it, and whether the documents are in
/// their groups.
async fn is_filled(client: &Client, payload: usize) -> Result<bool, Failure> {
    let last = DOCUMENTS - 1;
    let args = json!({ "table": TABLE, "id": id_of(last).to_string() });
    let found = match client.call_typed::<_, Value>("table.get", &args).await {
        Ok(found) => found,
        Err(Error::Call(error)) if error.code == ErrorCode::NOT_FOUND => return Ok(false),
        Err(error) => return Err(explain(error)),
    };
    let wanted: Value = serde_json::from_str(&document(last, payload)).expect("a document is JSON");
    if found["data"] != wanted {
        return Ok(false);
    }
    let args = json!({ "table": TABLE, "filter": { "g": SAMPLE_GROUP }, "limit": PAGE });
    let page = client.call("table.query", &args).await.map_err(explain)?;
    Ok(items_in(page.as_bytes()) == Some(PAGE))
}

async fn write(client: &Client, number: u64, payload: usize) -> Result<(), Error> {
    let data = document(number, payload);
    let args = format!(r#"{{"table":"{TABLE}","id":"{}","data":{data}}}"#, id_of(number));
    client.call_with("table.set", Json::new(args), CallOptions::default()).await.map(|_| ())
}

/// What has to be granted, when something is not.
pub(super) fn explain(error: Error) -> Failure {
    let is_denied = matches!(&error, Error::Call(answer)
        if [ErrorCode::FORBIDDEN, ErrorCode::PERMISSION_DENIED, ErrorCode::UNAUTHORIZED].contains(&answer.code));
    let failure = Failure::from(error);
    if is_denied {
        return failure.with_hint(format!(
            "this scenario needs the methods table.create, table.get, table.set and table.query, and the right to \
             read and write the table `{TABLE}`"
        ));
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_their_length_and_their_group() {
        for (number, group) in [(10, 10), (99, 99), (110, 10)] {
            let text = document(number, 64);
            assert_eq!(text.len(), 64);
            assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON")["g"], group);
        }
        assert_eq!(id_of(7).to_string(), "d00000007");
    }

    #[test]
    fn documents_of_an_answer_are_counted() {
        for (answer, items) in [
            (r#"{"items":[{"id":"a","data":{"g":[1,2]},"version":1},{}],"next":null}"#, Some(2)),
            (r#"{"items":[],"next":null}"#, Some(0)),
            (r#"{"next":null}"#, None),
            ("null", None),
            (r#"{"items":[{}"#, None),
        ] {
            assert_eq!(items_in(answer.as_bytes()), items, "{answer}");
        }
    }
}
