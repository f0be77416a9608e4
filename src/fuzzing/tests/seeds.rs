//! Where the corpus comes from.

#[cfg(feature = "sql")]
use super::Numbers;
use crate::{
    conn::Connection,
    fuzzing::{
        decoders::established,
        handshake::{NOW, genuine, transmit},
    },
    wire::{
        ErrorCode, FrameType, Suite,
        control::{Close, Credit, GoAway, Heartbeat},
        envelope::{
            Envelope, Event, EventKind, Overflow, Publish, RpcCall, RpcError, RpcResponse, Subscribe,
            Subscribed,
        },
        frame::{FLAG_ACK, FLAG_END, FLAG_MORE, Frame},
        handshake::ServerHello,
        websocket::{append_close, append_message, append_pong},
    },
};
use bytes::Bytes;
use std::collections::BTreeMap;

pub(super) type Seeds = BTreeMap<&'static str, Vec<(String, Vec<u8>)>>;

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

pub(super) fn record_seeds() -> Vec<(String, Vec<u8>)> {
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

/// Who sends, how it is cut and how long a message may be; then frames (RFC 6455, section 5).
fn websocket_seeds() -> Vec<(String, Vec<u8>)> {
    let body = [7; 300];
    let mut masked = Vec::new();
    for len in [0, 125, 126, 300] {
        let _appended = append_message(&mut masked, Some([1, 2, 3, 4]), |out| {
            out.extend_from_slice(&body[..len]);
            true
        });
    }
    append_pong(&mut masked, Some([0x37, 0xfa, 0x21, 0x3d]), b"Hello");
    append_close(&mut masked, Some([9; 4]), Some(1000));
    let long = [&b"\x82\x7e\x01\x00"[..], &body[..256]].concat();
    [
        ("of_a_client", [&[0, 0xff], &masked[..]].concat()),
        ("long", [&[1, 0xff], &long[..]].concat()),
        (
            "fragments",
            b"\x03\x10\x02\x03Hel\x89\x01?\x00\x00\x8a\x00\x80\x02lo\x82\x01!\x88\x02\x03\xe8".to_vec(),
        ),
        ("too_long", b"\x01\x10\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec()),
        ("text", b"\x01\xff\x81\x05Hello".to_vec()),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .into()
}

pub(super) fn seeds() -> Seeds {
    let mut seeds = Seeds::new();
    handshake_seeds(&mut seeds);
    seeds.insert("record", record_seeds());
    seeds.insert("frame", frame_seeds());
    seeds.insert("connection", connection_seeds());
    seeds.insert("websocket", websocket_seeds());
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
