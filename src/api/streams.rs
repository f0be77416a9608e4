//! Methods with items: results that come piece by piece, and documents that go in one by one.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};

use super::args::{self, Args};
use super::caller::Context;
use super::reply::Json as Out;
use super::tables;
use crate::auth::TableRight;
use crate::rpc::{Call, Encoding, Gone, ItemSender, Items, Status};
use crate::store::{Order, Query, Store, StreamQuery};
use crate::wire::registry::ErrorCode;

/// Documents of one import that are written at the same time: enough to share commits, few enough to leave others room.
const IMPORT_WRITES: usize = 16;

/// How long a streamed query may take when nobody says it.
pub(super) const STREAM_LONGEST: Duration = Duration::from_secs(3_600);

pub(super) fn cancelled(_: Gone) -> Status {
    Status::new(ErrorCode::CANCELLED, "nobody takes the items any more")
}

/// `sys.echo` with items: each item of the client comes back, then `{items}`, how many there were.
pub(super) async fn echo(items: Items) -> Result<Bytes, Status> {
    let (Some(mut client), Some(server)) = (items.client, items.server) else {
        return Err(Status::invalid("`sys.echo` takes items both ways or not at all"));
    };
    let mut count = 0_i64;
    while let Some(item) = client.recv().await {
        count += 1;
        server.send(vec![item]).await.map_err(cancelled)?;
    }
    Out::with_room(0).raw(r#"{"items":"#).integer(count).raw("}").finish()
}

/// `table.query {table, filter?, order?, limit?, after?, at?}` with items: each document is one, `{id, data, version}`, all as
/// of one moment; then `{count}`, with `limit` also `{next}`, with `at` also `{cursor}`.
pub(super) async fn query(
    store: Store,
    context: Context,
    call: Call,
    items: ItemSender,
) -> Result<Bytes, Status> {
    let args = Args::parse(&call, &["table", "filter", "order", "limit", "after", "sid", "at"])?;
    let table = tables::table(&context, &args, TableRight::Read)?;
    let page = Query {
        filter: args.optional_object("filter")?.map(crate::store::Json::new),
        order: args
            .optional_string("order")?
            .map_or(Ok(Order::default()), |text| Order::parse(&text))
            .map_err(|error| tables::in_field("order", error))?,
        limit: args.optional_count("limit")?,
        after: args.optional_string("after")?.map(std::borrow::Cow::into_owned),
        at: None,
    };
    let at = tables::at(&args)?;
    let at = store.moment_of_page(table.name(), &page, at.as_ref()).await?;
    let Query { filter, order, limit, after, .. } = page;
    let query = StreamQuery { filter, order, limit, after, at: at.clone() };
    let longest = context.deadline.unwrap_or(STREAM_LONGEST);
    let mut documents = store.stream(table.name(), query, longest).await?;
    let mut count = 0_i64;
    loop {
        let chunk = tokio::select! {
            chunk = documents.next() => chunk,
            () = items.gone() => {
                // The slot of the call is free when Postgres has stopped; what was counted is not all there is.
                documents.close().await;
                return Err(cancelled(Gone));
            }
        };
        let Some(chunk) = chunk else { break };
        let mut pieces = Vec::new();
        for document in chunk? {
            pieces.push(tables::whole(&document)?);
            count += 1;
        }
        if let Err(gone) = items.send(pieces).await {
            documents.close().await;
            return Err(cancelled(gone));
        }
    }
    let next = documents.next_page().map(str::to_owned);
    documents.close().await;
    let mut out = Out::with_room(0).raw(r#"{"count":"#).integer(count);
    if limit.is_some() {
        out = out.raw(r#","next":"#);
        out = match &next {
            Some(next) => out.string(next),
            None => out.raw("null"),
        };
    }
    tables::with_moment(out, at.as_ref()).raw("}").finish()
}

/// `table.import {table}` with items of the client, each `{data, id?}`: set under its id, pushed without one. Each is a
/// write of its own. `{written}`; a failure ends it and says in its details how many were written.
pub(super) async fn import(store: Store, context: Context, mut call: Call) -> Result<Bytes, Status> {
    let Some(mut items) = call.items.client.take() else {
        return Err(Status::invalid("`table.import` takes its documents as items"));
    };
    if call.idempotency_key.is_some() {
        return Err(Status::invalid(
            "`table.import` takes no idempotency key: its documents have ids for that",
        ));
    }
    let args = Args::parse(&call, &["table", "sid"])?;
    let table = tables::table(&context, &args, TableRight::Write)?;
    let mut writes = FuturesUnordered::new();
    let (mut written, mut failure) = (0_i64, None);
    loop {
        let has_room = writes.len() < IMPORT_WRITES;
        let item = tokio::select! {
            biased;
            Some(result) = writes.next() => {
                match result {
                    Ok(()) => written += 1,
                    Err(status) => {
                        failure = Some(status);
                        break;
                    }
                }
                continue;
            }
            item = items.recv(), if has_room => item,
        };
        let Some(item) = item else { break };
        writes.push(tables::import_one(&store, &context, table.name(), item));
    }
    // What was begun is counted, whatever ended the import.
    while let Some(result) = writes.next().await {
        match result {
            Ok(()) => written += 1,
            Err(status) => failure = failure.or(Some(status)),
        }
    }
    match failure {
        None => Out::with_room(0).raw(r#"{"written":"#).integer(written).raw("}").finish(),
        Some(status) => {
            let status = if written > 0 { not_to_be_repeated(status) } else { status };
            let written = Out::with_room(0).raw(r#"{"written":"#).integer(written);
            let details = match &status.details {
                Some(details) => written.raw(r#","details":"#).raw(details),
                None => written,
            };
            Err(status.with_details(details.raw("}").into_bytes()))
        }
    }
}

/// A failure behind documents that were written: what may be sent again by its code (the database is away) must not be, because
/// those without an id would be there twice.
fn not_to_be_repeated(status: Status) -> Status {
    if !status.code.is_retryable() {
        return status;
    }
    let message = format!("a part of the documents was written, and then: {}", status.message);
    Status { code: ErrorCode::UNKNOWN_OUTCOME, message: message.into(), retry_after: None, ..status }
}

/// An item as the arguments of a method.
pub(super) fn item_call(item: Bytes) -> Call {
    Call {
        method: Default::default(),
        encoding: Encoding::Json,
        args: item,
        idempotency_key: None,
        items: Items::default(),
    }
}

/// Whether the arguments of `sys.echo` are an object, with items or without.
pub(super) fn check_args(call: &Call) -> Result<(), Status> {
    args::check_object(call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_that_was_half_done_is_not_to_be_sent_again() {
        let away =
            Status::new(ErrorCode::SERVICE_UNAVAILABLE, "away").with_retry_after(std::time::Duration::ZERO);
        let told = not_to_be_repeated(away);
        assert!(!told.code.is_retryable());
        assert_eq!((told.code, told.retry_after), (ErrorCode::UNKNOWN_OUTCOME, None));
        let refused = Status::invalid("no object");
        assert_eq!(not_to_be_repeated(refused.clone()), refused);
    }
}
