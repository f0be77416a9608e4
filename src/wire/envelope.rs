//! The FlatBuffers envelopes inside RPC_* and subscription frames, verified whole before a field is read.
//!
//! Decoded values own slices of the message (`Bytes`), so that arguments and documents pass through without a copy.

use super::{
    DecodeError, ErrorCode,
    limits::{
        CREDIT_MAX, CURSOR_MAX, ENVELOPE_DEPTH_MAX, ENVELOPE_TABLES_MAX, MESSAGE_MAX, METADATA_ENTRIES_MAX,
        METADATA_FIELD_MAX, NAME_MAX,
    },
};
use bytes::Bytes;
use flatbuffers::{FlatBufferBuilder, Follow, ForwardsUOffset, Vector, VerifierOptions, WIPOffset};
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
    /// The table, or the topic.
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

fn verify<'a, T>(message: &'a [u8], name: &'static str) -> Result<T::Inner, DecodeError>
where
    T: Follow<'a> + flatbuffers::Verifiable + 'a,
{
    if message.len() > MESSAGE_MAX {
        return Err(DecodeError::TooLong(name));
    }
    let options = VerifierOptions {
        max_depth: ENVELOPE_DEPTH_MAX,
        max_tables: ENVELOPE_TABLES_MAX,
        // Counts the bytes that fields refer to, vtables twice and shared ones again: the longest message that a fair
        // sender writes passes, and one whose fields share bytes does not grow by more than this.
        max_apparent_size: 2 * MESSAGE_MAX,
        ignore_missing_null_terminator: false,
    };
    flatbuffers::root_with_opts::<T>(&options, message).map_err(|_| DecodeError::InvalidEnvelope(name))
}

fn bytes_of(message: &Bytes, field: Option<Vector<'_, u8>>) -> Option<Bytes> {
    field.map(|vector| message.slice_ref(vector.bytes()))
}

fn text(field: &str, max: usize, name: &'static str) -> Result<String, DecodeError> {
    if field.len() > max { Err(DecodeError::TooLong(name)) } else { Ok(field.to_owned()) }
}

fn metadata_of(
    field: Option<Vector<'_, ForwardsUOffset<schema::KeyValue<'_>>>>,
) -> Result<Metadata, DecodeError> {
    let Some(entries) = field else { return Ok(Metadata::new()) };
    if entries.len() > METADATA_ENTRIES_MAX {
        return Err(DecodeError::TooLong("metadata"));
    }
    let pair = |entry: schema::KeyValue<'_>| {
        Ok((
            text(entry.key(), METADATA_FIELD_MAX, "metadata key")?,
            text(entry.value(), METADATA_FIELD_MAX, "metadata value")?,
        ))
    };
    entries.iter().map(pair).collect()
}

type Pairs<'b> = WIPOffset<Vector<'b, ForwardsUOffset<schema::KeyValue<'b>>>>;

fn write_metadata<'b>(builder: &mut FlatBufferBuilder<'b>, pairs: &Metadata) -> Option<Pairs<'b>> {
    if pairs.is_empty() {
        return None;
    }
    let entries: Vec<_> = pairs
        .iter()
        .map(|(key, value)| {
            let (key, value) = (builder.create_string(key), builder.create_string(value));
            schema::KeyValue::create(builder, &schema::KeyValueArgs { key: Some(key), value: Some(value) })
        })
        .collect();
    Some(builder.create_vector(&entries))
}

fn write_bytes<'b>(builder: &mut FlatBufferBuilder<'b>, bytes: &[u8]) -> Option<WIPOffset<Vector<'b, u8>>> {
    (!bytes.is_empty()).then(|| builder.create_vector(bytes))
}

/// Values that travel as one message.
pub trait Envelope: Sized {
    /// Reads a whole message.
    ///
    /// # Errors
    /// Bytes that the verifier refuses, an enumeration value that is not known, or a field over its limit.
    fn decode(message: &Bytes) -> Result<Self, DecodeError>;

    /// Bytes of documents in it: about how long the message is, if it is long.
    fn content_len(&self) -> usize {
        0
    }

    /// Writes the message into `builder`, which is emptied first, and returns it.
    fn encode<'b>(&self, builder: &'b mut FlatBufferBuilder<'static>) -> &'b [u8];
}

impl Envelope for RpcCall {
    fn decode(message: &Bytes) -> Result<Self, DecodeError> {
        let table = verify::<schema::RpcCall<'_>>(message, "RpcCall")?;
        let streams = table.streams();
        if streams & !(CLIENT_ITEMS | SERVER_ITEMS) != 0 || table.credit() > CREDIT_MAX {
            return Err(DecodeError::InvalidValue("streams"));
        }
        Ok(Self {
            method: text(table.method(), NAME_MAX, "method")?,
            encoding: known_encoding(table.encoding())?,
            args: bytes_of(message, table.args()).unwrap_or_default(),
            deadline_ms: table.deadline_ms(),
            idempotency_key: key_of(table.idempotency_key())?,
            metadata: metadata_of(table.metadata())?,
            streams,
            credit: table.credit(),
            times: table.times(),
        })
    }

    fn content_len(&self) -> usize {
        self.args.len()
    }

    fn encode<'b>(&self, builder: &'b mut FlatBufferBuilder<'static>) -> &'b [u8] {
        builder.reset();
        let method = builder.create_string(&self.method);
        let args = write_bytes(builder, &self.args);
        let idempotency_key = self.idempotency_key.map(|key| builder.create_vector(&key));
        let metadata = write_metadata(builder, &self.metadata);
        let table = schema::RpcCall::create(
            builder,
            &schema::RpcCallArgs {
                method: Some(method),
                encoding: self.encoding,
                args,
                deadline_ms: self.deadline_ms,
                idempotency_key,
                metadata,
                streams: self.streams,
                credit: self.credit,
                times: self.times,
            },
        );
        builder.finish(table, None);
        builder.finished_data()
    }
}

impl Envelope for RpcResponse {
    fn decode(message: &Bytes) -> Result<Self, DecodeError> {
        let table = verify::<schema::RpcResponse<'_>>(message, "RpcResponse")?;
        Ok(Self {
            encoding: known_encoding(table.encoding())?,
            result: bytes_of(message, table.result()).unwrap_or_default(),
            trailers: metadata_of(table.trailers())?,
        })
    }

    fn content_len(&self) -> usize {
        self.result.len()
    }

    fn encode<'b>(&self, builder: &'b mut FlatBufferBuilder<'static>) -> &'b [u8] {
        builder.reset();
        let result = write_bytes(builder, &self.result);
        let trailers = write_metadata(builder, &self.trailers);
        let args = schema::RpcResponseArgs { encoding: self.encoding, result, trailers };
        let table = schema::RpcResponse::create(builder, &args);
        builder.finish(table, None);
        builder.finished_data()
    }
}

impl Envelope for RpcError {
    fn decode(message: &Bytes) -> Result<Self, DecodeError> {
        let table = verify::<schema::RpcError<'_>>(message, "RpcError")?;
        Ok(Self {
            code: ErrorCode(table.code()),
            message: table.message().to_owned(),
            retryable: table.retryable(),
            retry_after_ms: table.retry_after_ms(),
            details: bytes_of(message, table.details()).unwrap_or_default(),
        })
    }

    fn encode<'b>(&self, builder: &'b mut FlatBufferBuilder<'static>) -> &'b [u8] {
        builder.reset();
        let message = builder.create_string(&self.message);
        let details = write_bytes(builder, &self.details);
        let table = schema::RpcError::create(
            builder,
            &schema::RpcErrorArgs {
                code: self.code.0,
                message: Some(message),
                retryable: self.retryable,
                retry_after_ms: self.retry_after_ms,
                details,
            },
        );
        builder.finish(table, None);
        builder.finished_data()
    }
}

impl Envelope for Publish {
    fn decode(message: &Bytes) -> Result<Self, DecodeError> {
        let table = verify::<schema::Publish<'_>>(message, "Publish")?;
        Ok(Self {
            topic: text(table.topic(), NAME_MAX, "topic")?,
            encoding: known_encoding(table.encoding())?,
            data: bytes_of(message, table.data()).unwrap_or_default(),
            deadline_ms: table.deadline_ms(),
            idempotency_key: key_of(table.idempotency_key())?,
        })
    }

    fn encode<'b>(&self, builder: &'b mut FlatBufferBuilder<'static>) -> &'b [u8] {
        builder.reset();
        let topic = builder.create_string(&self.topic);
        let data = write_bytes(builder, &self.data);
        let idempotency_key = self.idempotency_key.map(|key| builder.create_vector(&key));
        let table = schema::Publish::create(
            builder,
            &schema::PublishArgs {
                topic: Some(topic),
                encoding: self.encoding,
                data,
                deadline_ms: self.deadline_ms,
                idempotency_key,
            },
        );
        builder.finish(table, None);
        builder.finished_data()
    }
}

impl Envelope for Subscribe {
    fn decode(message: &Bytes) -> Result<Self, DecodeError> {
        let table = verify::<schema::Subscribe<'_>>(message, "Subscribe")?;
        let overflow = table.overflow();
        if overflow.variant_name().is_none() {
            return Err(DecodeError::InvalidValue("overflow policy"));
        }
        Ok(Self {
            table: text(table.table(), NAME_MAX, "table")?,
            filter: bytes_of(message, table.filter()).unwrap_or_default(),
            cursor: table.cursor().map(|cursor| text(cursor, CURSOR_MAX, "cursor")).transpose()?,
            snapshot: table.snapshot(),
            overflow,
            credit: table.credit(),
        })
    }

    fn encode<'b>(&self, builder: &'b mut FlatBufferBuilder<'static>) -> &'b [u8] {
        builder.reset();
        let name = builder.create_string(&self.table);
        let filter = write_bytes(builder, &self.filter);
        let cursor = self.cursor.as_ref().map(|cursor| builder.create_string(cursor));
        let table = schema::Subscribe::create(
            builder,
            &schema::SubscribeArgs {
                table: Some(name),
                filter,
                cursor,
                snapshot: self.snapshot,
                overflow: self.overflow,
                credit: self.credit,
            },
        );
        builder.finish(table, None);
        builder.finished_data()
    }
}

impl Envelope for Subscribed {
    fn decode(message: &Bytes) -> Result<Self, DecodeError> {
        let table = verify::<schema::Subscribed<'_>>(message, "Subscribed")?;
        Ok(Self { cursor: text(table.cursor(), CURSOR_MAX, "cursor")?, snapshot_end: table.snapshot_end() })
    }

    fn encode<'b>(&self, builder: &'b mut FlatBufferBuilder<'static>) -> &'b [u8] {
        builder.reset();
        let cursor = builder.create_string(&self.cursor);
        let args = schema::SubscribedArgs { cursor: Some(cursor), snapshot_end: self.snapshot_end };
        let table = schema::Subscribed::create(builder, &args);
        builder.finish(table, None);
        builder.finished_data()
    }
}

impl Envelope for Event {
    fn decode(message: &Bytes) -> Result<Self, DecodeError> {
        let table = verify::<schema::Event<'_>>(message, "Event")?;
        let kind = table.kind();
        if kind.variant_name().is_none() {
            return Err(DecodeError::InvalidValue("event kind"));
        }
        Ok(Self {
            cursor: text(table.cursor(), CURSOR_MAX, "cursor")?,
            kind,
            id: table.id().to_owned(),
            data: bytes_of(message, table.data()),
            old: bytes_of(message, table.old()),
            version: table.version(),
            dropped: table.dropped(),
            omitted: table.omitted(),
            lag: table.lag(),
        })
    }

    fn content_len(&self) -> usize {
        [&self.data, &self.old].into_iter().flatten().map(Bytes::len).sum()
    }

    fn encode<'b>(&self, builder: &'b mut FlatBufferBuilder<'static>) -> &'b [u8] {
        builder.reset();
        let data = self.data.as_ref().map(|bytes| builder.create_vector::<u8>(bytes));
        let old = self.old.as_ref().map(|bytes| builder.create_vector::<u8>(bytes));
        let cursor = builder.create_string(&self.cursor);
        let id = builder.create_string(&self.id);
        let table = schema::Event::create(
            builder,
            &schema::EventArgs {
                cursor: Some(cursor),
                kind: self.kind,
                id: Some(id),
                data,
                old,
                version: self.version,
                dropped: self.dropped,
                omitted: self.omitted,
                lag: self.lag,
            },
        );
        builder.finish(table, None);
        builder.finished_data()
    }
}

fn key_of(field: Option<Vector<'_, u8>>) -> Result<Option<[u8; 16]>, DecodeError> {
    let array = |key: Vector<'_, u8>| {
        key.bytes().try_into().map_err(|_| DecodeError::InvalidValue("idempotency key"))
    };
    field.map(array).transpose()
}

fn known_encoding(encoding: Encoding) -> Result<Encoding, DecodeError> {
    encoding.variant_name().map(|_| encoding).ok_or(DecodeError::InvalidValue("encoding"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<E: Envelope + PartialEq + std::fmt::Debug>(value: &E) {
        let mut builder = FlatBufferBuilder::new();
        let message = Bytes::copy_from_slice(value.encode(&mut builder));
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
        let mut builder = FlatBufferBuilder::new();
        let long = RpcCall { method: "m".repeat(NAME_MAX + 1), ..RpcCall::default() };
        let message = Bytes::copy_from_slice(long.encode(&mut builder));
        assert_eq!(RpcCall::decode(&message), Err(DecodeError::TooLong("method")));
        let pairs = vec![("k".to_owned(), "v".to_owned()); METADATA_ENTRIES_MAX + 1];
        let many = RpcCall { method: "m".into(), metadata: pairs, ..RpcCall::default() };
        let message = Bytes::copy_from_slice(many.encode(&mut builder));
        assert_eq!(RpcCall::decode(&message), Err(DecodeError::TooLong("metadata")));
    }
}
