//! Each message: its fields in the order of the schema.

use super::{
    CLIENT_ITEMS, Encode, Envelope, Event, EventKind, Metadata, Overflow, Publish, RpcCall, RpcError,
    RpcResponse, SERVER_ITEMS, Source, Subscribe, Subscribed, fields::Reading, usual,
};
use crate::wire::{
    DecodeError, ErrorCode,
    flatbuffer::{self, Fields, Written},
    limits::{CREDIT_MAX, CURSOR_MAX, MESSAGE_MAX, NAME_MAX},
};
use bytes::Bytes;
use raystream_schema as schema;

/// The words of a whole message: no limit but its own.
const UNLIMITED: usize = MESSAGE_MAX;

#[inline]
fn metadata<'a>(to: &mut impl Fields<'a>, slot: u16, pairs: &'a Metadata) {
    if !pairs.is_empty() {
        to.pairs(slot, [schema::KeyValue::VT_KEY, schema::KeyValue::VT_VALUE], pairs);
    }
}

/// A document that is left out when it has no bytes.
#[inline]
fn document<'a>(to: &mut impl Fields<'a>, slot: u16, value: &'a Bytes) {
    if !value.is_empty() {
        to.document(slot, value);
    }
}

/// Bytes that are left out when there are none.
#[inline]
fn bytes<'a>(to: &mut impl Fields<'a>, slot: u16, value: &'a Bytes) {
    if !value.is_empty() {
        to.bytes(slot, value);
    }
}

#[inline]
fn idempotency_key<'a>(to: &mut impl Fields<'a>, slot: u16, key: &'a Option<[u8; 16]>) {
    if let Some(key) = key {
        to.bytes(slot, key);
    }
}

#[inline]
fn optional_text<'a>(to: &mut impl Fields<'a>, slot: u16, text: &'a Option<String>) {
    if let Some(text) = text {
        to.text(slot, text);
    }
}

impl Envelope for RpcCall {
    fn read(message: Source<'_>) -> Result<Self, DecodeError> {
        usual::read_call(message).map_or_else(|| read_call(message), Ok)
    }
}

/// Reads a call field by field.
pub(super) fn read_call(message: Source<'_>) -> Result<RpcCall, DecodeError> {
    use schema::RpcCall as Slot;
    let table = Reading::new(message, "RpcCall")?;
    let (streams, credit) = (table.u8(Slot::VT_STREAMS)?, table.u32(Slot::VT_CREDIT)?);
    if streams & !(CLIENT_ITEMS | SERVER_ITEMS) != 0 || credit > CREDIT_MAX {
        return Err(DecodeError::InvalidValue("streams"));
    }
    Ok(RpcCall {
        method: table.name(Slot::VT_METHOD, NAME_MAX, "method")?,
        encoding: table.encoding(Slot::VT_ENCODING)?,
        args: table.document(Slot::VT_ARGS)?,
        deadline_ms: table.u32(Slot::VT_DEADLINE_MS)?,
        idempotency_key: table.idempotency_key(Slot::VT_IDEMPOTENCY_KEY)?,
        metadata: table.metadata(Slot::VT_METADATA)?,
        streams,
        credit,
        times: table.bool(Slot::VT_TIMES, false)?,
    })
}

impl Written for RpcCall {
    #[inline]
    fn fields<'a>(&'a self, to: &mut impl Fields<'a>) {
        use schema::RpcCall as Slot;
        to.text(Slot::VT_METHOD, &self.method);
        to.u8(Slot::VT_ENCODING, self.encoding.0);
        document(to, Slot::VT_ARGS, &self.args);
        to.u32(Slot::VT_DEADLINE_MS, self.deadline_ms);
        idempotency_key(to, Slot::VT_IDEMPOTENCY_KEY, &self.idempotency_key);
        metadata(to, Slot::VT_METADATA, &self.metadata);
        to.u8(Slot::VT_STREAMS, self.streams);
        to.u32(Slot::VT_CREDIT, self.credit);
        to.u8(Slot::VT_TIMES, u8::from(self.times));
    }
}

impl Encode for RpcCall {
    fn content_len(&self) -> usize {
        self.args.len()
    }

    fn encode_head(&self, out: &mut Vec<u8>) -> Option<&Bytes> {
        usual::write_call(self, out).or_else(|| flatbuffer::write(out, self))
    }
}

impl Envelope for RpcResponse {
    fn read(message: Source<'_>) -> Result<Self, DecodeError> {
        usual::read_response(message).map_or_else(|| read_response(message), Ok)
    }
}

/// Reads a response field by field.
pub(super) fn read_response(message: Source<'_>) -> Result<RpcResponse, DecodeError> {
    use schema::RpcResponse as Slot;
    let table = Reading::new(message, "RpcResponse")?;
    Ok(RpcResponse {
        encoding: table.encoding(Slot::VT_ENCODING)?,
        result: table.document(Slot::VT_RESULT)?,
        trailers: table.metadata(Slot::VT_TRAILERS)?,
    })
}

impl Written for RpcResponse {
    #[inline]
    fn fields<'a>(&'a self, to: &mut impl Fields<'a>) {
        use schema::RpcResponse as Slot;
        to.u8(Slot::VT_ENCODING, self.encoding.0);
        document(to, Slot::VT_RESULT, &self.result);
        metadata(to, Slot::VT_TRAILERS, &self.trailers);
    }
}

impl Encode for RpcResponse {
    fn content_len(&self) -> usize {
        self.result.len()
    }

    fn encode_head(&self, out: &mut Vec<u8>) -> Option<&Bytes> {
        usual::write_response(self, out).or_else(|| flatbuffer::write(out, self))
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
            details: table.document(Slot::VT_DETAILS)?,
        })
    }
}

impl Written for RpcError {
    #[inline]
    fn fields<'a>(&'a self, to: &mut impl Fields<'a>) {
        use schema::RpcError as Slot;
        to.u16(Slot::VT_CODE, self.code.0);
        to.text(Slot::VT_MESSAGE, &self.message);
        to.u8(Slot::VT_RETRYABLE, u8::from(self.retryable));
        to.u32(Slot::VT_RETRY_AFTER_MS, self.retry_after_ms);
        bytes(to, Slot::VT_DETAILS, &self.details);
    }
}

impl Encode for RpcError {
    fn content_len(&self) -> usize {
        self.message.len() + self.details.len()
    }

    fn encode_head(&self, out: &mut Vec<u8>) -> Option<&Bytes> {
        flatbuffer::write(out, self)
    }
}

impl Envelope for Publish {
    fn read(message: Source<'_>) -> Result<Self, DecodeError> {
        use schema::Publish as Slot;
        let table = Reading::new(message, "Publish")?;
        Ok(Self {
            topic: table.text(Slot::VT_TOPIC, NAME_MAX, "topic")?,
            encoding: table.encoding(Slot::VT_ENCODING)?,
            data: table.document(Slot::VT_DATA)?,
            deadline_ms: table.u32(Slot::VT_DEADLINE_MS)?,
            idempotency_key: table.idempotency_key(Slot::VT_IDEMPOTENCY_KEY)?,
        })
    }
}

impl Written for Publish {
    #[inline]
    fn fields<'a>(&'a self, to: &mut impl Fields<'a>) {
        use schema::Publish as Slot;
        to.text(Slot::VT_TOPIC, &self.topic);
        to.u8(Slot::VT_ENCODING, self.encoding.0);
        document(to, Slot::VT_DATA, &self.data);
        to.u32(Slot::VT_DEADLINE_MS, self.deadline_ms);
        idempotency_key(to, Slot::VT_IDEMPOTENCY_KEY, &self.idempotency_key);
    }
}

impl Encode for Publish {
    fn content_len(&self) -> usize {
        self.data.len()
    }

    fn encode_head(&self, out: &mut Vec<u8>) -> Option<&Bytes> {
        flatbuffer::write(out, self)
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
            filter: table.document(Slot::VT_FILTER)?,
            cursor: table.optional_text(Slot::VT_CURSOR, CURSOR_MAX, "cursor")?,
            snapshot: table.bool(Slot::VT_SNAPSHOT, true)?,
            overflow,
            credit: table.u32(Slot::VT_CREDIT)?,
            topic: table.optional_text(Slot::VT_TOPIC, NAME_MAX, "topic")?,
        })
    }
}

impl Written for Subscribe {
    #[inline]
    fn fields<'a>(&'a self, to: &mut impl Fields<'a>) {
        use schema::Subscribe as Slot;
        to.text(Slot::VT_TABLE, &self.table);
        bytes(to, Slot::VT_FILTER, &self.filter);
        optional_text(to, Slot::VT_CURSOR, &self.cursor);
        // Its default is true.
        if !self.snapshot {
            to.not(Slot::VT_SNAPSHOT);
        }
        to.u8(Slot::VT_OVERFLOW, self.overflow.0);
        to.u32(Slot::VT_CREDIT, self.credit);
        optional_text(to, Slot::VT_TOPIC, &self.topic);
    }
}

impl Encode for Subscribe {
    fn content_len(&self) -> usize {
        self.filter.len()
    }

    fn encode_head(&self, out: &mut Vec<u8>) -> Option<&Bytes> {
        flatbuffer::write(out, self)
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
}

impl Written for Subscribed {
    #[inline]
    fn fields<'a>(&'a self, to: &mut impl Fields<'a>) {
        use schema::Subscribed as Slot;
        to.text(Slot::VT_CURSOR, &self.cursor);
        to.u8(Slot::VT_SNAPSHOT_END, u8::from(self.snapshot_end));
    }
}

impl Encode for Subscribed {
    fn encode_head(&self, out: &mut Vec<u8>) -> Option<&Bytes> {
        flatbuffer::write(out, self)
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
}

impl Written for Event {
    #[inline]
    fn fields<'a>(&'a self, to: &mut impl Fields<'a>) {
        use schema::Event as Slot;
        to.text(Slot::VT_CURSOR, &self.cursor);
        to.u8(Slot::VT_KIND, self.kind.0);
        to.text(Slot::VT_ID, &self.id);
        if let Some(data) = &self.data {
            to.document(Slot::VT_DATA, data);
        }
        if let Some(old) = &self.old {
            to.bytes(Slot::VT_OLD, old);
        }
        to.u64(Slot::VT_VERSION, self.version);
        to.u64(Slot::VT_DROPPED, self.dropped);
        to.u8(Slot::VT_OMITTED, self.omitted);
        to.u32(Slot::VT_LAG, self.lag);
    }
}

impl Encode for Event {
    fn content_len(&self) -> usize {
        [&self.data, &self.old].into_iter().flatten().map(Bytes::len).sum()
    }

    fn encode_head(&self, out: &mut Vec<u8>) -> Option<&Bytes> {
        flatbuffer::write(out, self)
    }
}
