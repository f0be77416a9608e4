//! The FlatBuffers envelopes inside RPC_* and subscription frames, read whole or refused.
//!
//! Decoded values own slices of the message (`Bytes`), so that arguments and documents pass through without a copy.

use super::{
    DecodeError, ErrorCode,
    flatbuffer::{self, Malformed, Table, Value},
    limits::{CREDIT_MAX, CURSOR_MAX, MESSAGE_MAX, METADATA_ENTRIES_MAX, METADATA_FIELD_MAX, NAME_MAX},
};
use bytes::Bytes;
use raystream_schema as schema;
pub use schema::{Encoding, EventKind, Overflow};

/// Metadata or trailers, in the order they were written.
pub type Metadata = Vec<(String, String)>;

/// RPC_CALL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RpcCall {
    /// The method, for example `table.get`.
    pub method: String,
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

/// A message being read, field by field.
struct Reading<'a> {
    message: Source<'a>,
    table: Table<'a>,
    name: &'static str,
}

impl<'a> Reading<'a> {
    fn new(message: Source<'a>, name: &'static str) -> Result<Self, DecodeError> {
        if message.bytes().len() > MESSAGE_MAX {
            return Err(DecodeError::TooLong(name));
        }
        let table = Table::root(message.bytes()).map_err(|Malformed| DecodeError::InvalidEnvelope(name))?;
        Ok(Self { message, table, name })
    }

    fn checked<T>(&self, field: Result<T, Malformed>) -> Result<T, DecodeError> {
        field.map_err(|Malformed| DecodeError::InvalidEnvelope(self.name))
    }

    fn u8(&self, slot: u16) -> Result<u8, DecodeError> {
        Ok(self.checked(self.table.u8(slot))?.unwrap_or(0))
    }

    fn bool(&self, slot: u16, default: bool) -> Result<bool, DecodeError> {
        Ok(self.checked(self.table.u8(slot))?.map_or(default, |byte| byte != 0))
    }

    fn u16(&self, slot: u16) -> Result<u16, DecodeError> {
        Ok(self.checked(self.table.u16(slot))?.unwrap_or(0))
    }

    fn u32(&self, slot: u16) -> Result<u32, DecodeError> {
        Ok(self.checked(self.table.u32(slot))?.unwrap_or(0))
    }

    fn u64(&self, slot: u16) -> Result<u64, DecodeError> {
        Ok(self.checked(self.table.u64(slot))?.unwrap_or(0))
    }

    fn bytes(&self, slot: u16) -> Result<Option<Bytes>, DecodeError> {
        Ok(self.checked(self.table.bytes(slot))?.map(|bytes| self.message.field(bytes)))
    }

    /// A field that has to be there, of at most `max` bytes.
    fn text(&self, slot: u16, max: usize, what: &'static str) -> Result<String, DecodeError> {
        self.optional_text(slot, max, what)?.ok_or(DecodeError::InvalidEnvelope(self.name))
    }

    fn optional_text(
        &self,
        slot: u16,
        max: usize,
        what: &'static str,
    ) -> Result<Option<String>, DecodeError> {
        self.text_of(&self.table, slot, max, what)
    }

    fn text_of(
        &self,
        table: &Table<'_>,
        slot: u16,
        max: usize,
        what: &'static str,
    ) -> Result<Option<String>, DecodeError> {
        let Some(bytes) = self.checked(table.text(slot))? else { return Ok(None) };
        // The length first: entries may share their bytes, and looking at long ones again and again is work.
        if bytes.len() > max {
            return Err(DecodeError::TooLong(what));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::InvalidEnvelope(self.name))?;
        Ok(Some(text.to_owned()))
    }

    fn metadata(&self, slot: u16) -> Result<Metadata, DecodeError> {
        let Some(pairs) = self.checked(self.table.tables(slot))? else { return Ok(Metadata::new()) };
        if pairs.len() > METADATA_ENTRIES_MAX {
            return Err(DecodeError::TooLong("metadata"));
        }
        let text = |pair: &Table<'_>, slot, what| {
            let text = self.text_of(pair, slot, METADATA_FIELD_MAX, what)?;
            text.ok_or(DecodeError::InvalidEnvelope(self.name))
        };
        let pair = |pair: Result<Table<'a>, Malformed>| {
            let pair = self.checked(pair)?;
            Ok((
                text(&pair, schema::KeyValue::VT_KEY, "metadata key")?,
                text(&pair, schema::KeyValue::VT_VALUE, "metadata value")?,
            ))
        };
        pairs.map(pair).collect()
    }

    fn encoding(&self, slot: u16) -> Result<Encoding, DecodeError> {
        let encoding = Encoding(self.u8(slot)?);
        encoding.variant_name().map(|_| encoding).ok_or(DecodeError::InvalidValue("encoding"))
    }

    fn idempotency_key(&self, slot: u16) -> Result<Option<[u8; 16]>, DecodeError> {
        let key = self.checked(self.table.bytes(slot))?;
        key.map(|key| key.try_into().map_err(|_| DecodeError::InvalidValue("idempotency key"))).transpose()
    }
}

/// The words of a whole message: no limit but its own.
const UNLIMITED: usize = MESSAGE_MAX;

fn metadata(pairs: &Metadata) -> Value<'_> {
    match pairs.as_slice() {
        [] => Value::Absent,
        pairs => Value::Pairs([schema::KeyValue::VT_KEY, schema::KeyValue::VT_VALUE], pairs),
    }
}

/// Values that travel as one message.
pub trait Envelope: Sized {
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

    /// Bytes of documents in it: about how long the message is, if it is long.
    fn content_len(&self) -> usize {
        0
    }

    /// Appends the message to `out`.
    fn encode(&self, out: &mut Vec<u8>);

    /// The message by itself.
    fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.content_len() + ENVELOPE_ROOM);
        self.encode(&mut out);
        Bytes::from(out)
    }
}

/// Room for what a usual message has besides its documents; a longer one grows.
pub const ENVELOPE_ROOM: usize = 256;

impl Envelope for RpcCall {
    fn read(message: Source<'_>) -> Result<Self, DecodeError> {
        use schema::RpcCall as Slot;
        let table = Reading::new(message, "RpcCall")?;
        let (streams, credit) = (table.u8(Slot::VT_STREAMS)?, table.u32(Slot::VT_CREDIT)?);
        if streams & !(CLIENT_ITEMS | SERVER_ITEMS) != 0 || credit > CREDIT_MAX {
            return Err(DecodeError::InvalidValue("streams"));
        }
        Ok(Self {
            method: table.text(Slot::VT_METHOD, NAME_MAX, "method")?,
            encoding: table.encoding(Slot::VT_ENCODING)?,
            args: table.bytes(Slot::VT_ARGS)?.unwrap_or_default(),
            deadline_ms: table.u32(Slot::VT_DEADLINE_MS)?,
            idempotency_key: table.idempotency_key(Slot::VT_IDEMPOTENCY_KEY)?,
            metadata: table.metadata(Slot::VT_METADATA)?,
            streams,
            credit,
            times: table.bool(Slot::VT_TIMES, false)?,
        })
    }

    fn content_len(&self) -> usize {
        self.args.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        use schema::RpcCall as Slot;
        let key = self.idempotency_key.as_ref().map(<[u8; 16]>::as_slice);
        let fields = [
            (Slot::VT_METHOD, Value::Text(&self.method)),
            (Slot::VT_ENCODING, Value::u8(self.encoding.0)),
            (Slot::VT_ARGS, Value::bytes(&self.args)),
            (Slot::VT_DEADLINE_MS, Value::u32(self.deadline_ms)),
            (Slot::VT_IDEMPOTENCY_KEY, Value::optional(key)),
            (Slot::VT_METADATA, metadata(&self.metadata)),
            (Slot::VT_STREAMS, Value::u8(self.streams)),
            (Slot::VT_CREDIT, Value::u32(self.credit)),
            (Slot::VT_TIMES, Value::u8(u8::from(self.times))),
        ];
        flatbuffer::write(out, fields);
    }
}

impl Envelope for RpcResponse {
    fn read(message: Source<'_>) -> Result<Self, DecodeError> {
        use schema::RpcResponse as Slot;
        let table = Reading::new(message, "RpcResponse")?;
        Ok(Self {
            encoding: table.encoding(Slot::VT_ENCODING)?,
            result: table.bytes(Slot::VT_RESULT)?.unwrap_or_default(),
            trailers: table.metadata(Slot::VT_TRAILERS)?,
        })
    }

    fn content_len(&self) -> usize {
        self.result.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        use schema::RpcResponse as Slot;
        let fields = [
            (Slot::VT_ENCODING, Value::u8(self.encoding.0)),
            (Slot::VT_RESULT, Value::bytes(&self.result)),
            (Slot::VT_TRAILERS, metadata(&self.trailers)),
        ];
        flatbuffer::write(out, fields);
    }
}

impl Envelope for RpcError {
    fn read(message: Source<'_>) -> Result<Self, DecodeError> {
        use schema::RpcError as Slot;
        let table = Reading::new(message, "RpcError")?;
        Ok(Self {
            code: ErrorCode(table.u16(Slot::VT_CODE)?),
            message: table.text(Slot::VT_MESSAGE, UNLIMITED, "message")?,
            retryable: table.bool(Slot::VT_RETRYABLE, false)?,
            retry_after_ms: table.u32(Slot::VT_RETRY_AFTER_MS)?,
            details: table.bytes(Slot::VT_DETAILS)?.unwrap_or_default(),
        })
    }

    fn content_len(&self) -> usize {
        self.message.len() + self.details.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        use schema::RpcError as Slot;
        let fields = [
            (Slot::VT_CODE, Value::u16(self.code.0)),
            (Slot::VT_MESSAGE, Value::Text(&self.message)),
            (Slot::VT_RETRYABLE, Value::u8(u8::from(self.retryable))),
            (Slot::VT_RETRY_AFTER_MS, Value::u32(self.retry_after_ms)),
            (Slot::VT_DETAILS, Value::bytes(&self.details)),
        ];
        flatbuffer::write(out, fields);
    }
}

impl Envelope for Publish {
    fn read(message: Source<'_>) -> Result<Self, DecodeError> {
        use schema::Publish as Slot;
        let table = Reading::new(message, "Publish")?;
        Ok(Self {
            topic: table.text(Slot::VT_TOPIC, NAME_MAX, "topic")?,
            encoding: table.encoding(Slot::VT_ENCODING)?,
            data: table.bytes(Slot::VT_DATA)?.unwrap_or_default(),
            deadline_ms: table.u32(Slot::VT_DEADLINE_MS)?,
            idempotency_key: table.idempotency_key(Slot::VT_IDEMPOTENCY_KEY)?,
        })
    }

    fn content_len(&self) -> usize {
        self.data.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        use schema::Publish as Slot;
        let key = self.idempotency_key.as_ref().map(<[u8; 16]>::as_slice);
        let fields = [
            (Slot::VT_TOPIC, Value::Text(&self.topic)),
            (Slot::VT_ENCODING, Value::u8(self.encoding.0)),
            (Slot::VT_DATA, Value::bytes(&self.data)),
            (Slot::VT_DEADLINE_MS, Value::u32(self.deadline_ms)),
            (Slot::VT_IDEMPOTENCY_KEY, Value::optional(key)),
        ];
        flatbuffer::write(out, fields);
    }
}

impl Envelope for Subscribe {
    fn read(message: Source<'_>) -> Result<Self, DecodeError> {
        use schema::Subscribe as Slot;
        let table = Reading::new(message, "Subscribe")?;
        let overflow = Overflow(table.u8(Slot::VT_OVERFLOW)?);
        if overflow.variant_name().is_none() {
            return Err(DecodeError::InvalidValue("overflow policy"));
        }
        Ok(Self {
            table: table.text(Slot::VT_TABLE, NAME_MAX, "table")?,
            filter: table.bytes(Slot::VT_FILTER)?.unwrap_or_default(),
            cursor: table.optional_text(Slot::VT_CURSOR, CURSOR_MAX, "cursor")?,
            snapshot: table.bool(Slot::VT_SNAPSHOT, true)?,
            overflow,
            credit: table.u32(Slot::VT_CREDIT)?,
            topic: table.optional_text(Slot::VT_TOPIC, NAME_MAX, "topic")?,
        })
    }

    fn content_len(&self) -> usize {
        self.filter.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        use schema::Subscribe as Slot;
        let fields = [
            (Slot::VT_TABLE, Value::Text(&self.table)),
            (Slot::VT_FILTER, Value::bytes(&self.filter)),
            (Slot::VT_CURSOR, self.cursor.as_deref().map_or(Value::Absent, Value::Text)),
            // Its default is true.
            (Slot::VT_SNAPSHOT, if self.snapshot { Value::Absent } else { Value::U8(0) }),
            (Slot::VT_OVERFLOW, Value::u8(self.overflow.0)),
            (Slot::VT_CREDIT, Value::u32(self.credit)),
            (Slot::VT_TOPIC, self.topic.as_deref().map_or(Value::Absent, Value::Text)),
        ];
        flatbuffer::write(out, fields);
    }
}

impl Envelope for Subscribed {
    fn read(message: Source<'_>) -> Result<Self, DecodeError> {
        use schema::Subscribed as Slot;
        let table = Reading::new(message, "Subscribed")?;
        Ok(Self {
            cursor: table.text(Slot::VT_CURSOR, CURSOR_MAX, "cursor")?,
            snapshot_end: table.bool(Slot::VT_SNAPSHOT_END, false)?,
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        use schema::Subscribed as Slot;
        let fields = [
            (Slot::VT_CURSOR, Value::Text(&self.cursor)),
            (Slot::VT_SNAPSHOT_END, Value::u8(u8::from(self.snapshot_end))),
        ];
        flatbuffer::write(out, fields);
    }
}

impl Envelope for Event {
    fn read(message: Source<'_>) -> Result<Self, DecodeError> {
        use schema::Event as Slot;
        let table = Reading::new(message, "Event")?;
        let kind = EventKind(table.u8(Slot::VT_KIND)?);
        if kind.variant_name().is_none() {
            return Err(DecodeError::InvalidValue("event kind"));
        }
        Ok(Self {
            cursor: table.text(Slot::VT_CURSOR, CURSOR_MAX, "cursor")?,
            kind,
            id: table.text(Slot::VT_ID, UNLIMITED, "id")?,
            data: table.bytes(Slot::VT_DATA)?,
            old: table.bytes(Slot::VT_OLD)?,
            version: table.u64(Slot::VT_VERSION)?,
            dropped: table.u64(Slot::VT_DROPPED)?,
            omitted: table.u8(Slot::VT_OMITTED)?,
            lag: table.u32(Slot::VT_LAG)?,
        })
    }

    fn content_len(&self) -> usize {
        [&self.data, &self.old].into_iter().flatten().map(Bytes::len).sum()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        use schema::Event as Slot;
        let fields = [
            (Slot::VT_CURSOR, Value::Text(&self.cursor)),
            (Slot::VT_KIND, Value::u8(self.kind.0)),
            (Slot::VT_ID, Value::Text(&self.id)),
            (Slot::VT_DATA, Value::optional(self.data.as_deref())),
            (Slot::VT_OLD, Value::optional(self.old.as_deref())),
            (Slot::VT_VERSION, Value::u64(self.version)),
            (Slot::VT_DROPPED, Value::u64(self.dropped)),
            (Slot::VT_OMITTED, Value::u8(self.omitted)),
            (Slot::VT_LAG, Value::u32(self.lag)),
        ];
        flatbuffer::write(out, fields);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let long = RpcCall { method: "m".repeat(NAME_MAX + 1), ..RpcCall::default() };
        let message = long.to_bytes();
        assert_eq!(RpcCall::decode(&message), Err(DecodeError::TooLong("method")));
        let pairs = vec![("k".to_owned(), "v".to_owned()); METADATA_ENTRIES_MAX + 1];
        let many = RpcCall { method: "m".into(), metadata: pairs, ..RpcCall::default() };
        let message = many.to_bytes();
        assert_eq!(RpcCall::decode(&message), Err(DecodeError::TooLong("metadata")));
    }
}
