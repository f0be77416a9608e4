//! `frames.json`: each type of frame, and frames that no receiver takes.

use crate::{
    bytes_of, check, read,
    support::{
        json::{Json, file, hex, large},
        raw::{frame, parse},
        refusals::message,
    },
};
use raystream::wire::{
    ErrorCode, FrameType as F, Reader,
    control::{Close, Credit, GoAway, Heartbeat},
    frame::{FLAG_ACK, FLAG_END, FLAG_MORE, Frame},
};

fn taken() -> Vec<(&'static str, Vec<u8>, Json)> {
    let none = || Json::Object(Vec::new());
    let stamp = 1_000_000_007_u64;
    let go_away = GoAway { delay_ms: 1_000, last_stream: 7, code: ErrorCode::GOING_AWAY };
    let close = Close { code: ErrorCode::NO_ERROR, reason: "done".into() };
    let stamp_fields = || Json::Object(vec![("stamp", large(stamp))]);
    let part: Vec<u8> = (0..=255).collect();
    vec![
        ("RPC_CALL", frame(F::RPC_CALL, 0, 1, &message(&super::envelopes::rpc_call())), none()),
        ("RPC_RESPONSE", frame(F::RPC_RESPONSE, 0, 1, &message(&super::envelopes::rpc_response())), none()),
        ("RPC_ERROR", frame(F::RPC_ERROR, 0, 3, &message(&super::envelopes::rpc_error())), none()),
        ("RPC_CANCEL", frame(F::RPC_CANCEL, 0, 1, &[]), none()),
        ("RPC_DATA", frame(F::RPC_DATA, 0, 1, b"an item"), none()),
        ("RPC_DATA END", frame(F::RPC_DATA, FLAG_END, 1, &[]), none()),
        ("PUBLISH", frame(F::PUBLISH, 0, 1, &message(&super::envelopes::publish())), none()),
        ("SUBSCRIBE", frame(F::SUBSCRIBE, 0, 5, &message(&super::envelopes::subscribe())), none()),
        ("EVENT", frame(F::EVENT, 0, 5, &message(&super::envelopes::event())), none()),
        ("UNSUBSCRIBE", frame(F::UNSUBSCRIBE, 0, 5, &[]), none()),
        ("SUBSCRIBED", frame(F::SUBSCRIBED, 0, 5, &message(&super::envelopes::subscribed())), none()),
        ("HEARTBEAT", frame(F::HEARTBEAT, 0, 0, &Heartbeat(stamp).encode()), stamp_fields()),
        ("HEARTBEAT with ACK", frame(F::HEARTBEAT, FLAG_ACK, 0, &Heartbeat(stamp).encode()), stamp_fields()),
        ("CREDIT", frame(F::CREDIT, 0, 5, &Credit(256).encode()), Json::Object(vec![("items", 256.into())])),
        (
            "GOAWAY",
            frame(F::GOAWAY, 0, 0, &go_away.encode()),
            Json::Object(vec![
                ("delay_ms", 1_000.into()),
                ("last_stream", 7.into()),
                ("code", "GOING_AWAY".into()),
            ]),
        ),
        (
            "CLOSE",
            frame(F::CLOSE, 0, 0, &close.encode()),
            Json::Object(vec![("code", "NO_ERROR".into()), ("reason", "done".into())]),
        ),
        ("first fragment of a message", frame(F::RPC_RESPONSE, FLAG_MORE, 1, &part), none()),
        ("last fragment of a message", frame(F::RPC_RESPONSE, 0, 1, b"the end"), none()),
        ("highest stream of a client", frame(F::RPC_CANCEL, 0, u32::MAX, &[]), none()),
    ]
}

fn refused() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let cut = |mut bytes: Vec<u8>| {
        bytes.pop();
        bytes
    };
    vec![
        ("type 0x00", "FRM-1", frame(F(0x00), 0, 1, &[])),
        ("type 0x01", "FRM-1", frame(F(0x01), 0, 1, &[])),
        ("type 0x7f", "FRM-1", frame(F(0x7f), 0, 1, &[])),
        ("flag 0x80", "FRM-2", frame(F::RPC_CALL, 0x80, 1, b"x")),
        ("flag 0x04", "FRM-2", frame(F::HEARTBEAT, 0x04, 0, &[0; 8])),
        ("ACK on RPC_CALL", "FRM-2", frame(F::RPC_CALL, FLAG_ACK, 1, b"x")),
        ("MORE on HEARTBEAT", "FRM-2", frame(F::HEARTBEAT, FLAG_MORE, 0, &[0; 8])),
        ("MORE on RPC_CANCEL", "FRM-2", frame(F::RPC_CANCEL, FLAG_MORE, 1, &[])),
        ("END on RPC_CALL", "FRM-2", frame(F::RPC_CALL, FLAG_END, 1, b"x")),
        ("END with an item", "FRM-5", frame(F::RPC_DATA, FLAG_END, 1, b"x")),
        ("END with MORE", "FRM-5", frame(F::RPC_DATA, FLAG_END | FLAG_MORE, 1, b"x")),
        ("length 16,385, no payload", "FRM-3", vec![0x10, 0, 0, 0, 0, 1, 0x40, 0x01]),
        ("length 65,535, no payload", "FRM-3", vec![0x10, 0, 0, 0, 0, 1, 0xff, 0xff]),
        ("call on stream 0", "STR-3", frame(F::RPC_CALL, 0, 0, b"x")),
        ("heartbeat on stream 1", "STR-3", frame(F::HEARTBEAT, 0, 1, &[0; 8])),
        ("close on stream 1", "STR-3", frame(F::CLOSE, 0, 1, &[0, 32])),
        ("fragment without payload", "STR-12", frame(F::RPC_CALL, FLAG_MORE, 1, &[])),
        ("ends inside the head", "REC-5", vec![0x30, 0, 0, 0, 0, 0, 0]),
        ("ends inside the payload", "REC-5", cut(frame(F::HEARTBEAT, 0, 0, &[0; 8]))),
    ]
}

#[test]
fn frames_json_is_what_the_code_does() {
    let mut vectors = Vec::new();
    for (name, bytes, fields) in taken() {
        let frames = parse(&bytes);
        let [parsed] = &frames[..] else { panic!("{name}: {frames:?}") };
        let mut written = Vec::new();
        let (frame_type, flags, stream) = (parsed.frame_type, parsed.flags, parsed.stream);
        Frame { frame_type, flags, stream, payload: &parsed.payload }.encode(&mut written);
        assert_eq!(written, bytes);
        vectors.push(Json::Object(vec![
            ("name", name.into()),
            ("bytes", hex(&bytes)),
            ("type", frame_type.to_string().into()),
            ("type_number", u32::from(frame_type.0).into()),
            ("flags", u32::from(flags).into()),
            ("stream", stream.into()),
            ("payload", hex(&parsed.payload)),
            ("fields", fields),
        ]));
    }
    for (name, rule, bytes) in refused() {
        let error = Frame::decode(&mut Reader::new(&bytes)).expect_err(name);
        vectors.push(Json::Object(vec![
            ("name", name.into()),
            ("bytes", hex(&bytes)),
            ("refused", true.into()),
            ("rule", rule.into()),
            ("code", raystream::conn::ConnectionError::from(error).code().to_string().into()),
            ("reason", error.to_string().into()),
        ]));
    }
    check("vectors/frames.json", &file(vectors));
}

/// From nothing but the file and the page "Frames" of the specification.
#[test]
fn frames_json_has_the_layout_of_the_specification() {
    let mut types = Vec::new();
    for vector in read("frames.json") {
        if vector["refused"] == true {
            assert_eq!(vector["code"], "PROTOCOL_ERROR");
            continue;
        }
        let bytes = bytes_of(&vector["bytes"]);
        let number = |field: &str| vector[field].as_u64().unwrap();
        let big_endian = |bytes: &[u8]| bytes.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
        let payload = bytes_of(&vector["payload"]);
        assert_eq!(u64::from(bytes[0]), number("type_number"));
        assert_eq!(u64::from(bytes[1]), number("flags"));
        assert_eq!(big_endian(&bytes[2..6]), number("stream"));
        assert_eq!(big_endian(&bytes[6..8]), u64::try_from(payload.len()).unwrap());
        assert_eq!(bytes[8..], payload);
        let fields = &vector["fields"];
        match vector["type"].as_str().unwrap() {
            "HEARTBEAT" => assert_eq!(fields["stamp"], big_endian(&payload).to_string()),
            "CREDIT" => assert_eq!(fields["items"], big_endian(&payload)),
            "GOAWAY" => {
                assert_eq!(fields["delay_ms"], big_endian(&payload[..4]));
                assert_eq!(fields["last_stream"], big_endian(&payload[4..8]));
                assert_eq!((fields["code"].as_str(), &payload[8..]), (Some("GOING_AWAY"), &[0, 40][..]));
            }
            "CLOSE" => {
                assert_eq!((fields["code"].as_str(), &payload[..2]), (Some("NO_ERROR"), &[0, 32][..]));
                assert_eq!(fields["reason"].as_str().unwrap().as_bytes(), &payload[2..]);
            }
            _ => {}
        }
        types.push(vector["type_number"].as_u64().unwrap());
    }
    for frame_type in F::ALL {
        assert!(types.contains(&u64::from(frame_type.0)), "{frame_type} has no vector");
    }
}
