//! From what the floors below say to the messages of the wire.

use crate::{
    rpc::{Answer, Status},
    store::{
        Json, TableName, TopicName,
        feed::{Change, ChangeKind, EndReason, SharedChange, Source},
    },
    wire::{
        ErrorCode,
        envelope::{self, EventKind, RpcError, RpcResponse, Subscribe},
        limits::{MESSAGE_MAX, METADATA_ENTRIES_MAX},
        prepared::PreparedEvent,
    },
};
use bytes::Bytes;

/// What an EVENT needs beside its images and its cursor: the id and the table itself.
const EVENT_OVERHEAD: usize = 8 * 1024;

/// The message of an answer. Trailers beyond what a message may carry are left out: a client ends the connection over
/// one more.
pub(super) fn rpc_response(answer: Answer) -> RpcResponse {
    let Answer { result, mut trailers } = answer;
    trailers.truncate(METADATA_ENTRIES_MAX);
    RpcResponse { result, trailers, ..RpcResponse::default() }
}

/// What a SUBSCRIBE asks for.
pub(super) fn source(subscribe: &Subscribe) -> Result<Source, Status> {
    match (subscribe.table.as_str(), &subscribe.topic) {
        ("", None) => Err(Status::invalid("a subscription names a table or a topic")),
        ("", Some(topic)) => Ok(TopicName::parse(topic)?.into()),
        (table, None) => Ok(TableName::parse(table)?.into()),
        (_, Some(_)) => Err(Status::invalid("a subscription names a table or a topic, not both")),
    }
}

/// The error message of a failure.
pub(super) fn rpc_error(status: Status) -> RpcError {
    let retry_after = status.retry_after.unwrap_or_default();
    RpcError {
        code: status.code,
        retryable: status.code.is_retryable(),
        retry_after_ms: u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX),
        message: status.message.into_owned(),
        details: status.details.unwrap_or_default(),
    }
}

/// Why a subscription ended, and where to go on.
pub(super) fn end_status(reason: EndReason, cursor: Option<&str>) -> Status {
    let status = match reason {
        EndReason::Lagged => {
            Status::new(ErrorCode::LAGGED, "the subscriber fell behind; subscribe again from the last cursor")
        }
        EndReason::Reset(reason) => Status::new(ErrorCode::RESET, reason),
        EndReason::TableDropped => Status::new(ErrorCode::NOT_FOUND, "the table was dropped"),
        EndReason::Unavailable => {
            Status::new(ErrorCode::SERVICE_UNAVAILABLE, "the change log cannot be read now; subscribe again")
        }
        EndReason::ShuttingDown => Status::new(ErrorCode::GOING_AWAY, "the server is shutting down"),
    };
    match cursor {
        // A cursor is base64url text, so it needs no escaping.
        Some(cursor) => status.with_details(Bytes::from(format!("{{\"cursor\":\"{cursor}\"}}"))),
        None => status,
    }
}

/// The message of a change for all subscriptions that are told the same of it, written once; `None` when this one alone is.
pub(super) fn prepared_event(change: &SharedChange) -> Option<&PreparedEvent> {
    change.once(|change| PreparedEvent::new(event_message(change)))
}

/// The message of a change. Images that do not fit a message are left out, `old` first, and the message says so.
pub(super) fn event_message(change: Change) -> envelope::Event {
    let kind = match change.kind {
        ChangeKind::Snapshot => EventKind::Snapshot,
        ChangeKind::Insert => EventKind::Insert,
        ChangeKind::Update => EventKind::Update,
        ChangeKind::Delete => EventKind::Delete,
        ChangeKind::Enter => EventKind::Enter,
        ChangeKind::Leave => EventKind::Leave,
        ChangeKind::Publish => EventKind::Publish,
    };
    let (mut data, mut old) = (change.data.map(Json::into_bytes), change.old.map(Json::into_bytes));
    let len = |image: &Option<Bytes>| image.as_ref().map_or(0, Bytes::len);
    let room = MESSAGE_MAX - EVENT_OVERHEAD - change.cursor.len();
    let mut omitted = 0;
    if len(&data) + len(&old) > room && old.take().is_some() {
        omitted |= envelope::OMITTED_OLD;
    }
    if len(&data) > room && data.take().is_some() {
        omitted |= envelope::OMITTED_DATA;
    }
    envelope::Event {
        cursor: change.cursor.to_string(),
        kind,
        id: change.id.to_string(),
        data,
        old,
        version: u64::try_from(change.version).unwrap_or(0),
        dropped: change.dropped,
        omitted,
        lag: change.lag,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::envelope::{Encode as _, Envelope as _};

    #[test]
    fn trailers_are_as_many_as_a_message_carries() {
        let trailers: Vec<_> =
            (0..METADATA_ENTRIES_MAX + 4).map(|n| (n.to_string(), String::new())).collect();
        let answer = Answer { result: Bytes::from_static(b"1"), trailers: trailers.clone() };
        let message = rpc_response(answer).to_bytes();
        let sent = RpcResponse::decode(&message).expect("a client takes it");
        assert_eq!((&sent.result[..], &sent.trailers[..]), (&b"1"[..], &trailers[..METADATA_ENTRIES_MAX]));
    }
}
