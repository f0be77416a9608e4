//! The FlatBuffers envelopes inside RPC_* and subscription frames, read whole or refused.
//!
//! Decoded values own slices of the message (`Bytes`), so that arguments and documents pass through without a copy.

mod fields;
mod messages;
mod usual;

use super::{DecodeError, ErrorCode};
use bytes::Bytes;
use compact_str::CompactString;
use raystream_schema as schema;
pub use schema::{Encoding, EventKind, Overflow};

/// Metadata or trailers, in the order they were written.
pub type Metadata = Vec<(String, String)>;

/// RPC_CALL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RpcCall {
    /// The method, for example `table.get`.
    pub method: CompactString,
    /// How `args` is to be read.
    pub encoding: Encoding,
    /// The arguments.
    pub args: Bytes,
    /// Milliseconds that are left; 0 is the server's own limit.
    pub deadline_ms: u32,
    /// Names the call for a safe retry.
    pub idempotency_key: Option<[u8; 16]>,
    /// At most 32 pairs.
    pub metadata: Metadata,
    /// Bits: [`CLIENT_ITEMS`], [`SERVER_ITEMS`].
    pub streams: u8,
    /// Items the server may send before the first CREDIT.
    pub credit: u32,
    /// Whether the trailers are to say how long each stage took.
    pub times: bool,
}

/// In [`RpcCall::streams`]: the client sends items until END.
pub const CLIENT_ITEMS: u8 = 1;
/// In [`RpcCall::streams`]: the server may send items before it answers.
pub const SERVER_ITEMS: u8 = 2;

/// RPC_RESPONSE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RpcResponse {
    /// How `result` is to be read.
    pub encoding: Encoding,
    /// The result.
    pub result: Bytes,
    /// At most 32 pairs.
    pub trailers: Metadata,
}

/// RPC_ERROR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcError {
    /// What went wrong.
    pub code: ErrorCode,
    /// The same for a person.
    pub message: String,
    /// Whether another try can succeed.
    pub retryable: bool,
    /// Milliseconds to wait before it; 0 says nothing.
    pub retry_after_ms: u32,
    /// JSON, or nothing.
    pub details: Bytes,
}

/// PUBLISH.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publish {
    /// The topic.
    pub topic: String,
    /// How `data` is to be read.
    pub encoding: Encoding,
    /// The event.
    pub data: Bytes,
    /// Milliseconds that are left; 0 is the server's own limit.
    pub deadline_ms: u32,
    /// Names the event for a safe retry.
    pub idempotency_key: Option<[u8; 16]>,
}

/// SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// The table; empty with a topic.
    pub table: String,
    /// A JSON object, or nothing.
    pub filter: Bytes,
    /// Where to go on.
    pub cursor: Option<String>,
    /// Whether the documents there are come first.
    pub snapshot: bool,
    /// What happens when the reader falls behind.
    pub overflow: Overflow,
    /// Items the server may send before the first CREDIT.
    pub credit: u32,
    /// The topic, instead of a table.
    pub topic: Option<String>,
}

/// SUBSCRIBED.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// The position from which nothing is missed.
    pub cursor: String,
    /// Whether this ends the snapshot.
    pub snapshot_end: bool,
}

/// EVENT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The position after this event.
    pub cursor: String,
    /// What happened.
    pub kind: EventKind,
    /// Which document.
    pub id: String,
    /// The document after the change.
    pub data: Option<Bytes>,
    /// The document before the change.
    pub old: Option<Bytes>,
    /// The version after the change.
    pub version: u64,
    /// Events dropped, or replaced by later ones of the same document, so far.
    pub dropped: u64,
    /// Bits: 1 `data`, 2 `old` left out for their size.
    pub omitted: u8,
    /// Events that waited behind this one when it was sent.
    pub lag: u32,
}

/// `data` was left out.
pub const OMITTED_DATA: u8 = 1;
/// `old` was left out.
pub const OMITTED_OLD: u8 = 2;

/// The bytes of a message.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// Fields become slices of the message, which stays as long as one of them.
    Shared(&'a Bytes),
    /// Fields are copied: for short messages in a buffer that goes on being used.
    Borrowed(&'a [u8]),
}

impl<'a> Source<'a> {
    fn bytes(self) -> &'a [u8] {
        match self {
            Self::Shared(message) => message,
            Self::Borrowed(message) => message,
        }
    }

    fn field(self, field: &[u8]) -> Bytes {
        match self {
            Self::Shared(message) => message.slice_ref(field),
            Self::Borrowed(_) => Bytes::copy_from_slice(field),
        }
    }
}

/// What can be written as one message.
pub trait Encode {
    /// Bytes of documents in it: about how long the message is, if it is long.
    fn content_len(&self) -> usize {
        0
    }

    /// Appends the message to `out`, all but the bytes of its document, which are given back: they follow, and end it.
    fn encode_head(&self, out: &mut Vec<u8>) -> Option<&Bytes>;

    /// Appends the message to `out`.
    fn encode(&self, out: &mut Vec<u8>) {
        if let Some(document) = self.encode_head(out) {
            out.extend_from_slice(document);
        }
    }

    /// The message by itself.
    fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.content_len() + ENVELOPE_ROOM);
        self.encode(&mut out);
        Bytes::from(out)
    }
}

/// Values that travel as one message.
pub trait Envelope: Encode + Sized {
    /// Reads a whole message.
    ///
    /// # Errors
    /// Bytes that are not this table, an enumeration value that is not known, or a field over its limit.
    fn read(message: Source<'_>) -> Result<Self, DecodeError>;

    /// Reads a whole message, of which its fields keep slices.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn decode(message: &Bytes) -> Result<Self, DecodeError> {
        Self::read(Source::Shared(message))
    }
}

/// Room for what a usual message has besides its documents; a longer one grows.
pub const ENVELOPE_ROOM: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::limits::{METADATA_ENTRIES_MAX, NAME_MAX};

    fn round_trip<E: Envelope + PartialEq + std::fmt::Debug>(value: &E) {
        let message = value.to_bytes();
        assert_eq!(&E::decode(&message).unwrap(), value);
        // Any cut and any flipped byte is refused or understood, never a panic.
        for len in 0..message.len() {
            let _refused_or_not = E::decode(&message.slice(..len));
        }
        for at in 0..message.len() {
            for bit in 0..8 {
                let mut changed = message.to_vec();
                changed[at] ^= 1 << bit;
                let _refused_or_not = E::decode(&Bytes::from(changed));
            }
        }
    }

    #[test]
    fn envelopes_round_trip_and_survive_perturbation() {
        round_trip(&RpcCall {
            method: "table.get".into(),
            args: Bytes::from_static(b"{\"id\":1}"),
            deadline_ms: 9,
            idempotency_key: Some([3; 16]),
            metadata: vec![("trace".into(), "1".into()), ("b".into(), String::new())],
            streams: CLIENT_ITEMS | SERVER_ITEMS,
            credit: 4,
            times: true,
            ..RpcCall::default()
        });
        round_trip(&Publish {
            topic: "t".into(),
            data: Bytes::from_static(b"1"),
            deadline_ms: 8,
            idempotency_key: Some([4; 16]),
            ..Publish::default()
        });
        round_trip(&RpcResponse { result: Bytes::from_static(b"null"), ..RpcResponse::default() });
        round_trip(&RpcError {
            code: ErrorCode::CONFLICT,
            message: "other version".into(),
            retryable: true,
            retry_after_ms: 7,
            details: Bytes::new(),
        });
        round_trip(&Subscribe {
            table: "t".into(),
            filter: Bytes::from_static(b"{}"),
            cursor: Some("c".into()),
            snapshot: false,
            overflow: Overflow::DropOldest,
            credit: 5,
            topic: Some("w".into()),
        });
        round_trip(&Subscribed { cursor: "c".into(), snapshot_end: true });
        round_trip(&Event {
            cursor: "c".into(),
            kind: EventKind::Leave,
            id: "i".into(),
            data: None,
            old: Some(Bytes::from_static(b"{}")),
            version: 1,
            dropped: 2,
            omitted: OMITTED_DATA,
            lag: 3,
        });
    }

    #[test]
    fn fields_over_their_limits_are_refused() {
        let long = RpcCall { method: "m".repeat(NAME_MAX + 1).into(), ..RpcCall::default() };
        let message = long.to_bytes();
        assert_eq!(RpcCall::decode(&message), Err(DecodeError::TooLong("method")));
        let pairs = vec![("k".to_owned(), "v".to_owned()); METADATA_ENTRIES_MAX + 1];
        let many = RpcCall { method: "m".into(), metadata: pairs, ..RpcCall::default() };
        let message = many.to_bytes();
        assert_eq!(RpcCall::decode(&message), Err(DecodeError::TooLong("metadata")));
    }
}
