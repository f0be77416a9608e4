//! `envelopes.json`: messages with their fields, and messages that no receiver takes.

use crate::{
    bytes_of, check, read,
    support::{
        self,
        json::{Json, file, hex, large},
        refusals::message,
    },
};
use bytes::Bytes;
use raystream::wire::{
    ErrorCode,
    envelope::{
        CLIENT_ITEMS, Encoding, Envelope, Event, EventKind, Metadata, OMITTED_OLD, Overflow, Publish,
        RpcCall, RpcError, RpcResponse, SERVER_ITEMS, Subscribe, Subscribed,
    },
};

pub(crate) fn rpc_call() -> RpcCall {
    RpcCall {
        method: "table.set".into(),
        args: Bytes::from_static(b"{\"table\":\"tasks\",\"id\":\"1\",\"data\":{\"done\":false}}"),
        deadline_ms: 5_000,
        idempotency_key: Some([7; 16]),
        metadata: vec![("trace".into(), "4bf92f35".into()), ("empty".into(), String::new())],
        ..RpcCall::default()
    }
}

pub(crate) fn publish() -> Publish {
    Publish {
        topic: "weather".into(),
        encoding: Encoding::Json,
        data: Bytes::from_static(br#"{"wind":7}"#),
        deadline_ms: 1_000,
        idempotency_key: Some([9; 16]),
    }
}

pub(crate) fn rpc_response() -> RpcResponse {
    RpcResponse {
        result: Bytes::from_static(b"{\"version\":1}"),
        trailers: vec![("rows".into(), "1".into())],
        ..RpcResponse::default()
    }
}

pub(crate) fn rpc_error() -> RpcError {
    RpcError {
        code: ErrorCode::RATE_LIMITED,
        message: "too many calls in flight".into(),
        retryable: true,
        retry_after_ms: 250,
        details: Bytes::from_static(b"{\"limit\":256}"),
    }
}

pub(crate) fn subscribe() -> Subscribe {
    Subscribe {
        table: "tasks".into(),
        filter: Bytes::from_static(b"{\"done\":false}"),
        cursor: Some("MDAwMQ".into()),
        snapshot: false,
        overflow: Overflow::DropOldest,
        credit: 256,
        topic: None,
    }
}

pub(crate) fn subscribed() -> Subscribed {
    Subscribed { cursor: "MDAwMQ".into(), snapshot_end: true }
}

pub(crate) fn event() -> Event {
    Event {
        cursor: "MDAwMg".into(),
        kind: EventKind::Update,
        id: "1".into(),
        data: Some(Bytes::from_static(b"{\"done\":true}")),
        old: Some(Bytes::from_static(b"{\"done\":false}")),
        version: 9_007_199_254_740_993,
        dropped: 3,
        omitted: 0,
        lag: 0,
    }
}

// The names are those of the schema; bytes in hexadecimal digits, `null` for what is absent.

fn pairs(metadata: &Metadata) -> Json {
    let pair = |(key, value): &(String, String)| {
        Json::Object(vec![("key", key.clone().into()), ("value", value.clone().into())])
    };
    metadata.iter().map(pair).collect::<Vec<_>>().into()
}

fn encoding(encoding: Encoding) -> Json {
    encoding.variant_name().unwrap().into()
}

/// A value that can be shown.
trait Fields: Envelope {
    const NAME: &'static str;
    fn fields(&self) -> Vec<(&'static str, Json)>;
}

impl Fields for RpcCall {
    const NAME: &'static str = "RpcCall";
    fn fields(&self) -> Vec<(&'static str, Json)> {
        vec![
            ("method", self.method.as_str().to_owned().into()),
            ("encoding", encoding(self.encoding)),
            ("args", hex(&self.args)),
            ("deadline_ms", self.deadline_ms.into()),
            ("idempotency_key", self.idempotency_key.map(|key| hex(&key)).into()),
            ("metadata", pairs(&self.metadata)),
            ("streams", u32::from(self.streams).into()),
            ("credit", self.credit.into()),
            ("times", self.times.into()),
        ]
    }
}

impl Fields for Publish {
    const NAME: &'static str = "Publish";
    fn fields(&self) -> Vec<(&'static str, Json)> {
        vec![
            ("topic", self.topic.clone().into()),
            ("encoding", encoding(self.encoding)),
            ("data", hex(&self.data)),
            ("deadline_ms", self.deadline_ms.into()),
            ("idempotency_key", self.idempotency_key.map(|key| hex(&key)).into()),
        ]
    }
}

impl Fields for RpcResponse {
    const NAME: &'static str = "RpcResponse";
    fn fields(&self) -> Vec<(&'static str, Json)> {
        vec![
            ("encoding", encoding(self.encoding)),
            ("result", hex(&self.result)),
            ("trailers", pairs(&self.trailers)),
        ]
    }
}

impl Fields for RpcError {
    const NAME: &'static str = "RpcError";
    fn fields(&self) -> Vec<(&'static str, Json)> {
        vec![
            ("code", u32::from(self.code.0).into()),
            ("message", self.message.clone().into()),
            ("retryable", self.retryable.into()),
            ("retry_after_ms", self.retry_after_ms.into()),
            ("details", hex(&self.details)),
        ]
    }
}

impl Fields for Subscribe {
    const NAME: &'static str = "Subscribe";
    fn fields(&self) -> Vec<(&'static str, Json)> {
        vec![
            ("table", self.table.clone().into()),
            ("filter", hex(&self.filter)),
            ("cursor", self.cursor.clone().into()),
            ("snapshot", self.snapshot.into()),
            ("overflow", self.overflow.variant_name().unwrap().into()),
            ("credit", self.credit.into()),
            ("topic", self.topic.clone().into()),
        ]
    }
}

impl Fields for Subscribed {
    const NAME: &'static str = "Subscribed";
    fn fields(&self) -> Vec<(&'static str, Json)> {
        vec![("cursor", self.cursor.clone().into()), ("snapshot_end", self.snapshot_end.into())]
    }
}

impl Fields for Event {
    const NAME: &'static str = "Event";
    fn fields(&self) -> Vec<(&'static str, Json)> {
        vec![
            ("cursor", self.cursor.clone().into()),
            ("kind", self.kind.variant_name().unwrap().into()),
            ("id", self.id.clone().into()),
            ("data", self.data.as_ref().map(|bytes| hex(bytes)).into()),
            ("old", self.old.as_ref().map(|bytes| hex(bytes)).into()),
            ("version", large(self.version)),
            ("dropped", large(self.dropped)),
            ("omitted", u32::from(self.omitted).into()),
            ("lag", self.lag.into()),
        ]
    }
}

fn taken<E: Fields + PartialEq + std::fmt::Debug>(name: &'static str, value: &E) -> Json {
    let bytes = message(value);
    assert_eq!(&E::decode(&Bytes::copy_from_slice(&bytes)).unwrap(), value);
    Json::Object(vec![
        ("name", name.into()),
        ("envelope", E::NAME.into()),
        ("bytes", hex(&bytes)),
        ("fields", Json::Object(value.fields())),
    ])
}

fn refused<E: Fields>(name: &'static str, rule: &'static str, bytes: &[u8]) -> Json {
    let Err(error) = E::decode(&Bytes::copy_from_slice(bytes)) else { panic!("{name} is taken") };
    Json::Object(vec![
        ("name", name.into()),
        ("envelope", E::NAME.into()),
        ("bytes", hex(bytes)),
        ("refused", true.into()),
        ("rule", rule.into()),
        ("reason", error.to_string().into()),
    ])
}

/// A table whose one field is a vector of bytes in the first slot.
fn short_key() -> Vec<u8> {
    use flatbuffers::FlatBufferBuilder;
    let mut builder = FlatBufferBuilder::new();
    let method = builder.create_string("m");
    let key = builder.create_vector::<u8>(&[7; 15]);
    let args = raystream_schema::RpcCallArgs {
        method: Some(method),
        idempotency_key: Some(key),
        ..raystream_schema::RpcCallArgs::default()
    };
    let table = raystream_schema::RpcCall::create(&mut builder, &args);
    builder.finish(table, None);
    builder.finished_data().to_vec()
}

fn vectors() -> Vec<Json> {
    let call = message(&rpc_call());
    let many = vec![("k".to_owned(), "v".to_owned()); 33];
    let small = support::call("m", "");
    vec![
        taken("call with everything", &rpc_call()),
        taken("call with nothing but a method", &small),
        taken("call with raw arguments", &RpcCall { encoding: Encoding::Raw, ..rpc_call() }),
        taken(
            "call with items both ways",
            &RpcCall {
                streams: CLIENT_ITEMS | SERVER_ITEMS,
                credit: 32,
                times: true,
                ..support::call("m", "")
            },
        ),
        taken("event for a topic", &publish()),
        taken("response", &rpc_response()),
        taken("response with nothing", &RpcResponse::default()),
        taken("error", &rpc_error()),
        taken("error without details", &support::rpc_error(ErrorCode::NOT_FOUND, "no such table")),
        taken("subscription from a cursor", &subscribe()),
        taken("subscription with a snapshot", &support::subscribe("tasks", 1)),
        taken(
            "subscription to a topic",
            &Subscribe { topic: Some("weather".into()), ..support::subscribe("", 1) },
        ),
        taken("subscribed", &support::subscribed("MDAwMQ")),
        taken("end of a snapshot", &subscribed()),
        taken("update", &event()),
        taken("insert", &Event { kind: EventKind::Insert, old: None, ..event() }),
        taken("delete", &Event { kind: EventKind::Delete, data: None, ..event() }),
        taken("event of a topic", &Event { kind: EventKind::Publish, old: None, version: 0, ..event() }),
        taken("update whose old image is left out", &Event { old: None, omitted: OMITTED_OLD, ..event() }),
        refused::<RpcCall>("empty message", "VAL-1", &[]),
        refused::<RpcCall>("garbage", "VAL-1", b"this is no envelope"),
        refused::<RpcCall>("half a call", "VAL-1", &call[..call.len() / 2]),
        refused::<RpcCall>("offset beyond the end", "VAL-1", &[0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0]),
        refused::<RpcCall>("response in place of a call", "VAL-1", &message(&RpcResponse::default())),
        refused::<RpcCall>(
            "unknown encoding",
            "VAL-2",
            &message(&RpcCall { encoding: Encoding(9), ..small.clone() }),
        ),
        refused::<Subscribe>(
            "unknown overflow policy",
            "VAL-2",
            &message(&Subscribe { overflow: Overflow(9), ..subscribe() }),
        ),
        refused::<Event>(
            "unknown kind of event",
            "VAL-2",
            &message(&Event { kind: EventKind(9), ..event() }),
        ),
        refused::<RpcCall>("method of 129 bytes", "VAL-3", &message(&support::call(&"m".repeat(129), ""))),
        refused::<Subscribe>(
            "table of 129 bytes",
            "VAL-3",
            &message(&support::subscribe(&"t".repeat(129), 0)),
        ),
        refused::<Subscribe>(
            "topic of 129 bytes",
            "VAL-3",
            &message(&Subscribe { topic: Some("t".repeat(129)), ..support::subscribe("", 0) }),
        ),
        refused::<RpcCall>(
            "33 entries of metadata",
            "VAL-3",
            &message(&RpcCall { metadata: many.clone(), ..small.clone() }),
        ),
        refused::<RpcResponse>(
            "33 entries of trailers",
            "VAL-3",
            &message(&RpcResponse { trailers: many, ..RpcResponse::default() }),
        ),
        refused::<RpcCall>(
            "metadata key of 1,025 bytes",
            "VAL-3",
            &message(&RpcCall { metadata: vec![("k".repeat(1_025), String::new())], ..small }),
        ),
        refused::<RpcCall>("idempotency key of 15 bytes", "VAL-3", &short_key()),
        refused::<Subscribed>(
            "cursor of 4,097 bytes",
            "VAL-3",
            &message(&support::subscribed(&"c".repeat(4_097))),
        ),
    ]
}

#[test]
fn envelopes_json_is_what_the_code_does() {
    check("vectors/envelopes.json", &file(vectors()));
}

#[test]
fn envelopes_json_reads_back() {
    let mut seen = 0;
    for vector in read("envelopes.json") {
        let bytes = Bytes::from(bytes_of(&vector["bytes"]));
        let is_taken = match vector["envelope"].as_str().unwrap() {
            "RpcCall" => RpcCall::decode(&bytes).is_ok(),
            "RpcResponse" => RpcResponse::decode(&bytes).is_ok(),
            "RpcError" => RpcError::decode(&bytes).is_ok(),
            "Subscribe" => Subscribe::decode(&bytes).is_ok(),
            "Subscribed" => Subscribed::decode(&bytes).is_ok(),
            "Event" => Event::decode(&bytes).is_ok(),
            "Publish" => Publish::decode(&bytes).is_ok(),
            other => panic!("no envelope {other}"),
        };
        assert_eq!(is_taken, vector["refused"] != true, "{}", vector["name"]);
        seen += 1;
    }
    assert_eq!(seen, 35);
}
