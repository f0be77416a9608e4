//! Every target on its committed corpus and on seeded mutations of it; and where the corpus comes from.

use super::{
    TARGETS, Target,
    decoders::established,
    handshake::{NOW, genuine, transmit},
};
use crate::{
    conn::Connection,
    wire::{
        ErrorCode, FrameType, Suite,
        control::{Close, Credit, GoAway, Heartbeat},
        envelope::{
            Envelope, Event, EventKind, Overflow, Publish, RpcCall, RpcError, RpcResponse, Subscribe,
            Subscribed,
        },
        frame::{FLAG_ACK, FLAG_END, FLAG_MORE, Frame},
        handshake::ServerHello,
    },
};
use bytes::{Bytes, BytesMut};
use std::{collections::BTreeMap, fs, path::PathBuf};

/// Mutations of each seed; libFuzzer makes the millions.
const MUTATIONS: usize = 300;
/// Longest input that a mutation makes.
const INPUT_MAX: usize = 4_096;

fn corpus_folder(target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", target].iter().collect()
}

/// The committed inputs of a target, in the order of their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut inputs: Vec<_> = fs::read_dir(corpus_folder(target))
        .unwrap_or_else(|error| panic!("the corpus of {target}: {error}"))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap()))
        .collect();
    inputs.sort();
    inputs
}

/// SplitMix64.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}

/// Changes an input as a fuzzer would: bits, bytes, numbers, pieces of itself and of another input.
fn mutate(numbers: &mut Numbers, input: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(input.len() + 1);
        match numbers.below(8) {
            0 => input.insert(at, numbers.byte()),
            1 if at < input.len() => drop(input.remove(at)),
            2 if at < input.len() => input[at] ^= 1 << numbers.below(8),
            3 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff][numbers.below(5)],
            4 if at < input.len() => input[at] = numbers.byte(),
            5 => input.truncate(at),
            6 => {
                let from = numbers.below(other.len() + 1);
                input.splice(at..at, other[from..].iter().copied().take(64).collect::<Vec<_>>());
            }
            _ => {
                let piece: Vec<u8> = input[at..].iter().copied().take(32).collect();
                input.extend(piece);
            }
        }
    }
    input.truncate(INPUT_MAX);
}

/// Prints the input when the target panics.
struct Report<'a>(&'a str, &'a str, &'a [u8]);

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self.2.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("  target {}, from {}: {hex}", self.0, self.1);
        }
    }
}

fn run(name: &str) {
    let (_, target): &(&str, Target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let inputs = corpus(name);
    assert!(!inputs.is_empty(), "the corpus of {name} is empty");
    let mut numbers = Numbers(1);
    for (file, input) in &inputs {
        let report = Report(name, file, input);
        target(input);
        drop(report);
        for _ in 0..MUTATIONS {
            let mut changed = input.clone();
            let other = numbers.below(inputs.len());
            mutate(&mut numbers, &mut changed, &inputs[other].1);
            let report = Report(name, file, &changed);
            target(&changed);
            drop(report);
        }
    }
}

#[test]
fn fuzz_record() {
    run("record");
}

#[test]
fn fuzz_init() {
    run("init");
}

#[test]
fn fuzz_handshake_responder() {
    run("handshake_responder");
}

#[test]
fn fuzz_handshake_initiator() {
    run("handshake_initiator");
}

#[test]
fn fuzz_frame() {
    run("frame");
}

#[test]
fn fuzz_envelope() {
    run("envelope");
}

#[test]
fn fuzz_connection() {
    run("connection");
}

#[cfg(any(feature = "fuzzing", feature = "client"))]
#[test]
fn fuzz_json() {
    run("json");
}

#[cfg(feature = "webhook")]
#[test]
fn fuzz_webhook_event() {
    run("webhook_event");
}

#[cfg(feature = "sql")]
#[test]
fn fuzz_sql() {
    run("sql");
}

/// Made statements reach what stands behind the guard: some pass, and some that are read are refused.
#[cfg(feature = "sql")]
#[test]
fn the_grammar_of_sql_has_both_kinds() {
    use crate::sql::{Param, guard};
    let (mut passed, mut refused) = (0, 0);
    let mut numbers = Numbers(7);
    for _ in 0..3_000 {
        let choices: Vec<u8> = (0..200).map(|_| numbers.byte()).collect();
        super::sql(&[&[1], &choices[..]].concat());
        match guard("tasks", &super::sql_text(&choices), &[Param::Null, Param::Null]) {
            Ok(_) => passed += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(passed > 100 && refused > 100, "{passed} passed, {refused} were refused");
}

// Where the corpus comes from.

type Seeds = BTreeMap<&'static str, Vec<(String, Vec<u8>)>>;

/// Texts as they are (first byte 0), and choices of the grammar.
#[cfg(feature = "sql")]
fn sql_seeds() -> Vec<(String, Vec<u8>)> {
    let texts = [
        ("count", "SELECT count(*) FROM tasks"),
        (
            "filter",
            "SELECT data->>'a' AS a FROM tasks WHERE data @> $3 AND id IN ('a', $1) ORDER BY 1 LIMIT 2",
        ),
        (
            "group",
            "SELECT data->'a', sum((data->>'n')::numeric) FROM tasks GROUP BY data->'a' HAVING count(*) > 1",
        ),
        (
            "rows",
            "SELECT e.value FROM tasks t, jsonb_array_elements(t.data->'a') AS e WHERE e.value IS NOT NULL",
        ),
        ("join", "WITH x AS (SELECT id FROM tasks) SELECT x.id FROM x JOIN tasks t ON t.id = x.id"),
        ("window", "SELECT lag(id, 1) OVER (PARTITION BY data->'a' ORDER BY _order DESC) FROM tasks"),
        ("times", "SELECT extract(year FROM now() - interval '1 day'), now() AT TIME ZONE 'UTC' FROM tasks"),
        ("unicode", "SELECT U&\"p\\0067_sleep\"(10) FROM tasks"),
        ("stacked", "SELECT id FROM tasks; DROP TABLE tasks"),
        ("other", "SELECT data FROM tasks UNION SELECT data FROM users"),
    ];
    let texts = texts.map(|(name, text)| (name.to_owned(), [&[0], text.as_bytes()].concat()));
    let mut numbers = Numbers(3);
    let choices = (0..6).map(|n| {
        let bytes: Vec<u8> = (0..120).map(|_| numbers.byte()).collect();
        (format!("choices_{n}"), [&[1], &bytes[..]].concat())
    });
    texts.into_iter().chain(choices.collect::<Vec<_>>()).collect()
}

#[cfg(any(feature = "fuzzing", feature = "client"))]
fn json_seeds() -> Vec<(String, Vec<u8>)> {
    let deep = format!("{}1{}", r#"[{"a":"#.repeat(64), "}]".repeat(64));
    let long = format!(r#"{{"text":"{}\n{}"}}"#, "plain ".repeat(20), "ü€".repeat(20));
    let texts = [
        ("object", r#"{"id":"a","n":-1.5e+3,"tags":["x",null,true,false,{}],"e":""}"#),
        ("escapes", r#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00""#),
        ("numbers", "[0,-0,10,0.5,1E9,1e-07,-12.25]"),
        ("spaces", " \t\r\n[ 1 , { \"a\" : 2 } ] "),
        ("deep", &deep),
        ("long", &long),
        ("open", r#"{"a":[1,"b"#),
        ("leading_zero", "01"),
        ("control", "\"a\u{1}b\""),
    ];
    texts.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec())).into()
}

#[cfg(feature = "webhook")]
fn webhook_seeds() -> Vec<(String, Vec<u8>)> {
    let nested = |depth| {
        format!(r#"{{"table":"t","operation":"INSERT","new":{}{}}}"#, "[".repeat(depth), "]".repeat(depth))
    };
    let texts = [
        ("insert", r#"{"table":"orders","operation":"INSERT","new":{"id":7,"total":1.50},"old":null}"#),
        (
            "update",
            r#"{"type":"update","table":"tasks","operation":"UPDATE","id":"1","version":2,"sequence":417,"new":{"done":true},"old":{"done":false}}"#,
        ),
        ("delete", r#"{"table":"orders","operation":"DELETE","new":null,"old":{"id":"a\u0000b"}}"#),
        (
            "reset",
            r#"{"type":"reset","table":"tasks","operation":"RESET","reason":"away for too long","new":null,"old":null}"#,
        ),
        ("array", r#"["t","INSERT"]"#),
        ("field_twice", r#"{"table":"t","table":"u","operation":"INSERT"}"#),
        ("large_number", r#"{"table":"t","operation":"INSERT","new":{"id":1e400}}"#),
        ("nested", &nested(126)),
        ("too_deep", &nested(127)),
        ("not_json", r#"{"table":"#),
        ("unknown_operation", r#"{"table":"t","operation":"TRUNCATE"}"#),
    ];
    texts.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec())).into()
}

fn message(value: &impl Envelope) -> Vec<u8> {
    value.to_bytes().to_vec()
}

fn call() -> RpcCall {
    RpcCall {
        method: "table.get".into(),
        args: Bytes::from_static(b"{\"table\":\"tasks\",\"id\":\"1\"}"),
        deadline_ms: 5_000,
        idempotency_key: Some([7; 16]),
        metadata: vec![("trace".into(), "1".into())],
        ..RpcCall::default()
    }
}

fn subscribe() -> Subscribe {
    Subscribe {
        table: "tasks".into(),
        filter: Bytes::from_static(b"{\"done\":false}"),
        cursor: Some("cursor".into()),
        snapshot: true,
        overflow: Overflow::DropOldest,
        credit: 8,
        topic: None,
    }
}

fn event() -> Event {
    Event {
        cursor: "cursor".into(),
        kind: EventKind::Update,
        id: "1".into(),
        data: Some(Bytes::from_static(b"{\"done\":true}")),
        old: Some(Bytes::from_static(b"{\"done\":false}")),
        version: 2,
        dropped: 0,
        omitted: 0,
        lag: 0,
    }
}

fn envelopes() -> Vec<(&'static str, Vec<u8>)> {
    let error = RpcError {
        code: ErrorCode::CONFLICT,
        message: "another version".into(),
        retryable: true,
        retry_after_ms: 5,
        details: Bytes::from_static(b"{}"),
    };
    vec![
        ("rpc_call", message(&call())),
        (
            "rpc_response",
            message(&RpcResponse { result: Bytes::from_static(b"null"), ..RpcResponse::default() }),
        ),
        ("rpc_error", message(&error)),
        ("subscribe", message(&subscribe())),
        ("subscribed", message(&Subscribed { cursor: "cursor".into(), snapshot_end: true })),
        ("event", message(&event())),
        (
            "publish",
            message(&Publish {
                topic: "weather".into(),
                data: Bytes::from_static(b"{}"),
                idempotency_key: Some([9; 16]),
                ..Publish::default()
            }),
        ),
    ]
}

/// Records of a true client after its first one.
fn records(act: impl FnOnce(&mut Connection)) -> Vec<u8> {
    let (mut client, _) = established();
    act(&mut client);
    let mut stream = Vec::new();
    while let Some(record) = transmit(&mut client) {
        stream.extend(record);
    }
    stream
}

fn record_seeds() -> Vec<(String, Vec<u8>)> {
    let heartbeat = records(|client| assert_eq!(client.heartbeat(NOW), Ok(true)));
    let work = records(|client| {
        client.call(&call()).unwrap();
        client.subscribe(&subscribe()).unwrap();
        client.cancel(1).unwrap();
        client.unsubscribe(3).unwrap();
    });
    let long = records(|client| {
        let long = RpcCall { args: Bytes::from(vec![b' '; 20_000]), ..call() };
        client.call(&long).unwrap();
    });
    let close = records(|client| client.close(ErrorCode::NO_ERROR, "done"));
    let with = |len: u8, stream: &[u8]| [&[len], stream].concat();
    vec![
        ("heartbeat".into(), with(0, &heartbeat)),
        ("work".into(), with(6, &work)),
        ("long_call".into(), with(255, &long)),
        ("close".into(), with(1, &close)),
        ("zero_length".into(), vec![0, 0, 0]),
        ("half_a_record".into(), with(3, &work[..work.len() / 2])),
    ]
}

fn handshake_seeds(seeds: &mut Seeds) {
    for (index, suite) in (0_u8..).zip(Suite::ALL) {
        let (init, response) = genuine(*suite);
        let name = suite.name().unwrap().to_owned();
        seeds.entry("init").or_default().push((name.clone(), init.clone()));
        seeds.entry("handshake_responder").or_default().push((name.clone(), init));
        seeds.entry("handshake_initiator").or_default().push((name, [&[index], &response[..]].concat()));
    }
    let hello = ServerHello {
        suites: Suite::ALL.to_vec(),
        server_time_ms: 1_767_225_600_000,
        message_max: 1 << 20,
        calls_max: 256,
        subscriptions_max: 128,
        heartbeat_ms: 15_000,
        idle_timeout_ms: 45_000,
        connection_id: [0x66; 16],
    };
    let init = seeds.entry("init").or_default();
    init.push(("server_hello".into(), hello.encode().to_vec()));
    init.push(("refusal".into(), vec![0xff, 0, 36]));
    let refusal = ("refusal".into(), vec![0, 0xff, 0, 36]);
    seeds.entry("handshake_initiator").or_default().push(refusal);
}

fn frame_seeds() -> Vec<(String, Vec<u8>)> {
    let frame = |frame_type, flags, stream, payload: &[u8]| {
        let mut out = Vec::new();
        Frame { frame_type, flags, stream, payload }.encode(&mut out);
        out
    };
    use FrameType as F;
    let go_away = GoAway { delay_ms: 1_000, last_stream: 7, code: ErrorCode::GOING_AWAY };
    let close = Close { code: ErrorCode::NO_ERROR, reason: "done".into() };
    let mut seeds = vec![
        ("heartbeat", frame(F::HEARTBEAT, 0, 0, &Heartbeat(1_000).encode())),
        ("heartbeat_ack", frame(F::HEARTBEAT, FLAG_ACK, 0, &Heartbeat(1_000).encode())),
        ("credit", frame(F::CREDIT, 0, 5, &Credit(256).encode())),
        ("go_away", frame(F::GOAWAY, 0, 0, &go_away.encode())),
        ("close", frame(F::CLOSE, 0, 0, &close.encode())),
        ("rpc_cancel", frame(F::RPC_CANCEL, 0, 1, &[])),
        ("unsubscribe", frame(F::UNSUBSCRIBE, 0, 1, &[])),
        ("fragment", frame(F::RPC_RESPONSE, FLAG_MORE, 1, b"the first part")),
        ("rpc_data", frame(F::RPC_DATA, 0, 1, b"an item")),
        ("rpc_data_end", frame(F::RPC_DATA, FLAG_END, 1, &[])),
    ];
    let types =
        [F::RPC_CALL, F::RPC_RESPONSE, F::RPC_ERROR, F::SUBSCRIBE, F::SUBSCRIBED, F::EVENT, F::PUBLISH];
    for (frame_type, (name, payload)) in types.into_iter().zip(envelopes()) {
        seeds.push((name, frame(frame_type, 0, 1, &payload)));
    }
    let all: Vec<u8> = seeds.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    seeds.push(("many", all));
    seeds.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

/// Sequences in the bytes of `super::operation`.
fn connection_seeds() -> Vec<(String, Vec<u8>)> {
    const TO_SERVER: [u8; 4] = [12, 1, 0xff, 0xff];
    const TO_CLIENT: [u8; 4] = [12, 0, 0xff, 0xff];
    let plaintext = |end: u8, text: &[u8]| [&[16, end, u8::try_from(text.len()).unwrap()], text].concat();
    let frame = |frame_type, flags, stream, payload: &[u8]| {
        let mut out = Vec::new();
        Frame { frame_type, flags, stream, payload }.encode(&mut out);
        out
    };
    use FrameType as F;
    let seeds: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("call", vec![vec![0, 0, 9], TO_SERVER.into(), vec![5, 0, 0, 9], TO_CLIENT.into()]),
        ("error", vec![vec![0, 0, 0], TO_SERVER.into(), vec![6, 0], TO_CLIENT.into()]),
        ("cancel", vec![vec![0, 0, 9], vec![2, 0], TO_SERVER.into(), vec![6, 0], TO_CLIENT.into()]),
        // Three results of 800,000 bytes at once, and a ping.
        (
            "long_messages",
            vec![[0, 0xfe, 0x1a].repeat(3), TO_SERVER.repeat(3), [5, 0, 0xfe, 0x1a].repeat(3), vec![11, 0]],
        ),
        (
            "subscription",
            vec![
                vec![1, 0, 3],
                TO_SERVER.into(),
                vec![7, 0],
                [8, 0, 0, 50].repeat(4),
                TO_CLIENT.into(),
                vec![4, 0, 0, 2],
                TO_SERVER.into(),
                [8, 0, 0x82, 0].repeat(2),
                vec![3, 0],
                TO_SERVER.into(),
                TO_CLIENT.into(),
            ],
        ),
        ("end_subscription", vec![vec![1, 0, 3], TO_SERVER.into(), vec![7, 0], vec![9, 0], TO_CLIENT.into()]),
        ("go_away", vec![vec![0, 0, 9], vec![10], TO_CLIENT.into(), TO_SERVER.into(), vec![0, 0, 1]]),
        ("pings", vec![[11, 0, 11, 1].repeat(40), vec![12, 0, 0, 33], TO_SERVER.into(), TO_CLIENT.into()]),
        ("quiet_minute", vec![[&[13, 0x3a, 0x98], &TO_SERVER[..], &TO_CLIENT].concat().repeat(4)]),
        ("idle", vec![vec![13, 0xff, 0xff]]),
        ("close", vec![vec![0, 0, 9], vec![14, 1], TO_CLIENT.into(), TO_SERVER.into()]),
        ("both_close", vec![vec![14, 0, 14, 1], TO_CLIENT.into(), TO_SERVER.into()]),
        ("cut", vec![vec![0, 0, 9], vec![12, 1, 0, 0x28], vec![15, 1, 15, 0]]),
        ("hostile_cancel", vec![plaintext(1, &frame(F::RPC_CANCEL, 0, 1, &[]))]),
        (
            "hostile_call",
            vec![plaintext(1, &frame(F::RPC_CALL, 0, 1, &message(&call()))), vec![0, 0, 9], vec![5, 0, 0, 1]],
        ),
        (
            "hostile_fragments",
            (0..70).map(|n| plaintext(1, &frame(F::RPC_CALL, FLAG_MORE, 2 * n + 1, b"x"))).collect(),
        ),
        (
            "hostile_answer",
            vec![vec![0, 0, 9], plaintext(0, &frame(F::RPC_RESPONSE, 0, 1, &envelopes()[1].1))],
        ),
        (
            "hostile_event",
            vec![
                vec![1, 0, 1],
                plaintext(0, &frame(F::SUBSCRIBED, 0, 1, &envelopes()[4].1)),
                plaintext(0, &frame(F::EVENT, 0, 1, &envelopes()[5].1)).repeat(2),
            ],
        ),
        ("hostile_close", vec![plaintext(0, &frame(F::CLOSE, 0, 0, &[0, 32]))]),
        ("hostile_bytes", vec![vec![17, 1, 4, 0, 0, 1, 2]]),
    ];
    seeds.into_iter().map(|(name, parts)| (name.to_owned(), parts.concat())).collect()
}

fn seeds() -> Seeds {
    let mut seeds = Seeds::new();
    handshake_seeds(&mut seeds);
    seeds.insert("record", record_seeds());
    seeds.insert("frame", frame_seeds());
    seeds.insert("connection", connection_seeds());
    let envelopes = (0_u8..).zip(envelopes());
    let picked = envelopes.map(|(pick, (name, bytes))| (name.to_owned(), [&[pick], &bytes[..]].concat()));
    let mut picked: Vec<_> = picked.collect();
    let to_topic = Subscribe { table: String::new(), topic: Some("weather".into()), ..subscribe() };
    picked.push(("subscribe_to_a_topic".to_owned(), [&[3], &message(&to_topic)[..]].concat()));
    seeds.insert("envelope", picked);
    #[cfg(any(feature = "fuzzing", feature = "client"))]
    seeds.insert("json", json_seeds());
    #[cfg(feature = "sql")]
    seeds.insert("sql", sql_seeds());
    #[cfg(feature = "webhook")]
    seeds.insert("webhook_event", webhook_seeds());
    seeds
}

/// The seeds in `fuzz/corpus` are those above; `RAYSTREAM_UPDATE=1` writes them. What a fuzzer has added stays.
#[test]
fn the_corpus_holds_the_seeds() {
    let update = std::env::var_os("RAYSTREAM_UPDATE").is_some();
    let seeds = seeds();
    let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert!(names.iter().all(|name| seeds.contains_key(name)) && seeds.len() == names.len());
    for (target, inputs) in seeds {
        let folder = corpus_folder(target);
        if update {
            fs::create_dir_all(&folder).unwrap();
        }
        for (name, bytes) in inputs {
            let path = folder.join(&name);
            if update {
                fs::write(&path, &bytes).unwrap();
            }
            let committed = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(committed == bytes, "{} is old: run again with RAYSTREAM_UPDATE=1", path.display());
        }
    }
}

/// The seeds of `record` reach the streams of the server: the target is not busy with refusals only.
#[test]
fn the_record_seeds_are_taken() {
    for (name, seed) in record_seeds() {
        let (_, mut server) = established();
        let _ended = server.handle_input(NOW, &mut BytesMut::from(&seed[1..]));
        let told = std::iter::from_fn(|| server.poll_event()).count();
        let expected = match name.as_str() {
            "work" => 4,
            "long_call" => 1,
            _ => 0,
        };
        assert_eq!(told, expected, "{name}");
    }
}
