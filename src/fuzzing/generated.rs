//! A second reading of envelopes: by the code that `flatc` writes.

use crate::wire::envelope::{
    Event, Metadata, Publish, RpcCall, RpcError, RpcResponse, Subscribe, Subscribed,
};
use crate::wire::{
    DecodeError, ErrorCode,
    envelope::{Envelope, Source},
};
use bytes::Bytes;
use flatbuffers::{Follow, ForwardsUOffset, Vector, Verifiable, VerifierOptions};
use raystream_schema as schema;
use std::fmt::Debug;

/// An envelope that the generated code reads too.
pub(super) trait Generated: Envelope + PartialEq + Debug {
    /// What the generated code makes of a message, without our limits.
    fn generated(message: &Bytes) -> Option<Self>;
}

/// Both readings refuse a message or find the same fields in it; ours may refuse more, by its limits.
pub(super) fn compare<E: Generated>(message: &Bytes) {
    assert_eq!(E::decode(message), E::read(Source::Borrowed(message)));
    match (E::decode(message), E::generated(message)) {
        (Ok(ours), generated) => assert_eq!(Some(ours), generated),
        (Err(DecodeError::InvalidEnvelope(_)), Some(generated)) => panic!("only we refuse {generated:?}"),
        (Err(_), _) => {}
    }
}

fn verified<'a, T: Follow<'a> + Verifiable + 'a>(message: &'a Bytes) -> Option<T::Inner> {
    let options = VerifierOptions { max_apparent_size: usize::MAX / 2, ..VerifierOptions::default() };
    flatbuffers::root_with_opts::<T>(&options, message).ok()
}

fn bytes(field: Option<Vector<'_, u8>>) -> Option<Bytes> {
    field.map(|vector| Bytes::copy_from_slice(vector.bytes()))
}

fn key(field: Option<Vector<'_, u8>>) -> Option<[u8; 16]> {
    field.and_then(|vector| vector.bytes().try_into().ok())
}

fn metadata(field: Option<Vector<'_, ForwardsUOffset<schema::KeyValue<'_>>>>) -> Metadata {
    let pairs = field.into_iter().flatten();
    pairs.map(|pair| (pair.key().to_owned(), pair.value().to_owned())).collect()
}

impl Generated for RpcCall {
    fn generated(message: &Bytes) -> Option<Self> {
        let table = verified::<schema::RpcCall<'_>>(message)?;
        Some(Self {
            method: table.method().into(),
            encoding: table.encoding(),
            args: bytes(table.args()).unwrap_or_default(),
            deadline_ms: table.deadline_ms(),
            idempotency_key: key(table.idempotency_key()),
            metadata: metadata(table.metadata()),
            streams: table.streams(),
            credit: table.credit(),
            times: table.times(),
        })
    }
}

impl Generated for RpcResponse {
    fn generated(message: &Bytes) -> Option<Self> {
        let table = verified::<schema::RpcResponse<'_>>(message)?;
        Some(Self {
            encoding: table.encoding(),
            result: bytes(table.result()).unwrap_or_default(),
            trailers: metadata(table.trailers()),
        })
    }
}

impl Generated for RpcError {
    fn generated(message: &Bytes) -> Option<Self> {
        let table = verified::<schema::RpcError<'_>>(message)?;
        Some(Self {
            code: ErrorCode(table.code()),
            message: table.message().to_owned(),
            retryable: table.retryable(),
            retry_after_ms: table.retry_after_ms(),
            details: bytes(table.details()).unwrap_or_default(),
        })
    }
}

impl Generated for Publish {
    fn generated(message: &Bytes) -> Option<Self> {
        let table = verified::<schema::Publish<'_>>(message)?;
        Some(Self {
            topic: table.topic().to_owned(),
            encoding: table.encoding(),
            data: bytes(table.data()).unwrap_or_default(),
            deadline_ms: table.deadline_ms(),
            idempotency_key: key(table.idempotency_key()),
        })
    }
}

impl Generated for Subscribe {
    fn generated(message: &Bytes) -> Option<Self> {
        let table = verified::<schema::Subscribe<'_>>(message)?;
        Some(Self {
            table: table.table().to_owned(),
            filter: bytes(table.filter()).unwrap_or_default(),
            cursor: table.cursor().map(str::to_owned),
            snapshot: table.snapshot(),
            overflow: table.overflow(),
            credit: table.credit(),
            topic: table.topic().map(str::to_owned),
        })
    }
}

impl Generated for Subscribed {
    fn generated(message: &Bytes) -> Option<Self> {
        let table = verified::<schema::Subscribed<'_>>(message)?;
        Some(Self { cursor: table.cursor().to_owned(), snapshot_end: table.snapshot_end() })
    }
}

impl Generated for Event {
    fn generated(message: &Bytes) -> Option<Self> {
        let table = verified::<schema::Event<'_>>(message)?;
        Some(Self {
            cursor: table.cursor().to_owned(),
            kind: table.kind(),
            id: table.id().to_owned(),
            data: bytes(table.data()),
            old: bytes(table.old()),
            version: table.version(),
            dropped: table.dropped(),
            omitted: table.omitted(),
            lag: table.lag(),
        })
    }
}
