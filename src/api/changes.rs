//! `changes.read`: the change log, for audit, offline pull and replication.

use std::sync::Arc;

use bytes::Bytes;

use super::args::Args;
use super::caller::{Caller, Context};
use super::reply::{Json as Out, RESULT_MAX};
use super::streams::{STREAM_LONGEST, cancelled};
use super::tables::in_field;
use crate::auth::{TableRight, TopicRight};
use crate::rpc::{Call, Gone, ItemSender, Status};
use crate::store::feed::{Changes, ChangesFrom, ChangesRequest, Entry, EntryKind, Source, Sources};
use crate::store::{At, Json, Store, TableName, TopicName};

/// Room that an item needs beside its images, its cursor, its id and its name: who did it, and the fields.
const ITEM_OVERHEAD: usize = 8 * 1024;

/// `changes.read {from?, limit?, tables?, topics?}` with items: each entry of the log is one; then `{count, cursor}`.
///
/// Each entry is judged when it goes out: a right that was taken away ends the call.
pub(super) async fn read(
    store: Store,
    context: Context,
    call: Call,
    items: ItemSender,
) -> Result<Bytes, Status> {
    let args = Args::parse(&call, &["from", "limit", "tables", "topics"])?;
    let sources = sources(&context, &args)?;
    let from = match args.optional_string("from")?.as_deref() {
        None => ChangesFrom::Oldest,
        Some("now") => ChangesFrom::Now,
        Some(text) => ChangesFrom::After(At::parse(text).map_err(|error| in_field("from", error))?),
    };
    let request = ChangesRequest { from, limit: args.optional_count("limit")?, sources };
    let longest = context.deadline.unwrap_or(STREAM_LONGEST);
    let mut changes = store.changes(request, longest).await?;
    let mut count = 0_i64;
    loop {
        let piece = tokio::select! {
            piece = changes.next() => piece,
            () = items.gone() => {
                changes.close().await;
                return Err(cancelled(Gone));
            }
        };
        match piece.ok_or_else(Status::internal)?? {
            Changes::Entries(entries) => {
                let mut pieces = Vec::with_capacity(entries.len());
                for entry in &entries {
                    judge(&context.caller, &entry.source)?;
                    pieces.push(item(entry)?);
                    count += 1;
                }
                if let Err(gone) = items.send(pieces).await {
                    changes.close().await;
                    return Err(cancelled(gone));
                }
            }
            Changes::End(cursor) => {
                changes.close().await;
                let out = Out::with_room(cursor.len()).raw(r#"{"count":"#).integer(count);
                return out.raw(r#","cursor":"#).string(&cursor).raw("}").finish();
            }
        }
    }
}

/// Whether the caller may see the changes of a table, or the events of a topic.
fn judge(caller: &Caller, source: &Source) -> Result<(), Status> {
    match source {
        Source::Table(name) => caller.authorise_table(name.as_str(), TableRight::Read).map(drop),
        Source::Topic(name) => caller.authorise_topic(name.as_str(), TopicRight::Subscribe).map(drop),
    }
}

/// What is named, each with the right to it; without a name all that there is a right to.
fn sources(context: &Context, args: &Args<'_>) -> Result<Sources, Status> {
    let (tables, topics) = (args.optional_names("tables")?, args.optional_names("topics")?);
    if tables.is_none() && topics.is_none() {
        let caller = Arc::clone(&context.caller);
        return Ok(Sources::Every(Arc::new(move |source| judge(&caller, source).is_ok())));
    }
    let mut sources: Vec<Source> = Vec::new();
    for name in tables.unwrap_or_default() {
        sources.push(TableName::parse(&name).map_err(|error| in_field("tables", error))?.into());
    }
    for name in topics.unwrap_or_default() {
        sources.push(TopicName::parse(&name).map_err(|error| in_field("topics", error))?.into());
    }
    for source in &sources {
        judge(&context.caller, source)?;
    }
    Ok(Sources::Named(sources))
}

/// An entry as an item. Images that do not fit are left out, `before` first, and named in `omitted`.
fn item(entry: &Entry) -> Result<Bytes, Status> {
    let (kind, name) = match &entry.source {
        Source::Table(name) => ("table", name.as_str()),
        Source::Topic(name) => ("topic", name.as_str()),
    };
    let op = match entry.kind {
        EntryKind::Insert => "insert",
        EntryKind::Update => "update",
        EntryKind::Delete => "delete",
        EntryKind::Publish => "publish",
    };
    let len = |image: Option<&Json>| image.map_or(0, |image| image.as_bytes().len());
    // An id in JSON may be six times as long.
    let room =
        RESULT_MAX - ITEM_OVERHEAD - entry.cursor.len() - 6 * entry.id.as_str().len().min(RESULT_MAX / 16);
    let (mut before, mut after, mut omitted) = (entry.before.as_ref(), entry.after.as_ref(), Vec::new());
    if len(before) + len(after) > room && before.take().is_some() {
        omitted.push("before");
    }
    if len(after) > room && after.take().is_some() {
        omitted.push("after");
    }
    let image = |out: Out, image: Option<&Json>| match image {
        Some(json) => out.raw(json.as_bytes()),
        None => out.raw("null"),
    };
    let out = Out::with_room(len(before) + len(after) + entry.cursor.len() + 128)
        .raw(r#"{"cursor":"#)
        .string(&entry.cursor)
        .raw(format!(r#","{kind}":"{name}","id":"#))
        .string(entry.id.as_str())
        .raw(format!(r#","op":"{op}","before":"#));
    let out =
        image(image(out, before).raw(r#","after":"#), after).raw(r#","version":"#).integer(entry.version);
    let out = match &entry.principal {
        Some(principal) => out.raw(r#","principal":"#).string(principal),
        None => out,
    };
    let out = out.raw(r#","at":"#).string(&entry.at);
    match omitted.as_slice() {
        [] => out,
        names => out.raw(format!(r#","omitted":["{}"]"#, names.join("\",\""))),
    }
    .raw("}")
    .finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(before: usize, after: usize) -> Entry {
        let image = |len: usize| (len > 0).then(|| Json::new(format!("\"{}\"", "x".repeat(len))));
        Entry {
            cursor: "c".into(),
            source: TableName::parse("t").expect("a name").into(),
            id: crate::store::DocumentId::parse("a\"").expect("an id"),
            kind: EntryKind::Update,
            before: image(before),
            after: image(after),
            version: 2,
            principal: None,
            at: "2026-01-31T12:00:00.000000Z".to_owned(),
        }
    }

    fn read(entry: &Entry) -> serde_json::Value {
        serde_json::from_slice(&item(entry).expect("it fits")).expect("it is JSON")
    }

    #[test]
    fn an_item_has_both_images_or_says_which_it_has_not() {
        let small = item(&entry(1, 1)).expect("it fits");
        let expected = r#"{"cursor":"c","table":"t","id":"a\"","op":"update","before":"x","after":"x","version":2,"at":"2026-01-31T12:00:00.000000Z"}"#;
        assert_eq!(String::from_utf8(small.into()).as_deref(), Ok(expected));
        let large = read(&entry(900_000, 900_000));
        assert!(large["before"].is_null() && large["after"].is_string());
        assert_eq!(large["omitted"], serde_json::json!(["before"]));
        let larger = read(&entry(1, 2_000_000));
        assert_eq!(larger["omitted"], serde_json::json!(["before", "after"]));
    }
}
