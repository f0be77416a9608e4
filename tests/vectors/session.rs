//! `session.md`: one whole session, byte by byte.

use crate::{
    check,
    handshake::{Opener, hello_of},
    support::{
        CLIENT_EPHEMERAL, SERVER_EPHEMERAL, SERVER_STATIC, Setup, call, event, hex,
        pair::{From, Pair},
        raw::{Parsed, parse},
        response, subscribe, subscribed,
    },
};
use raystream::{
    conn::{Event, Framing},
    wire::{
        ErrorCode, FrameType, Reader,
        control::{Close, Heartbeat},
        frame::FLAG_ACK,
        handshake::Init,
    },
};
use std::fmt::Write;

const INTRODUCTION: &str = "\
# Appendix C. A session, byte by byte

Written by the test `session_md_is_what_the_code_does`: these are the bytes that the code sends. Suite 0x01,
Noise_NK_25519_ChaChaPoly_SHA256, over TCP. `>` is from the client, `<` from the server. First the fields, then, for records
after the handshake, the whole body as it is encrypted. The keys are for this page only.

";

/// Sixteen bytes a line, the note beside the first.
fn field(out: &mut String, bytes: &[u8], note: &str) {
    for (n, line) in bytes.chunks(16).enumerate() {
        let digits: Vec<_> = line.chunks(4).map(hex).collect();
        let text = format!("{:<36}{}", digits.join(" "), if n == 0 { note } else { "" });
        writeln!(out, "{}", text.trim_end()).unwrap();
    }
}

/// A field of an INIT or a hello, cut off the front.
fn take(out: &mut String, reader: &mut Reader<'_>, len: usize, note: &str) {
    field(out, reader.take(len, "a field").unwrap(), note);
}

fn record_length(out: &mut String, body: &[u8]) {
    let len = u16::try_from(body.len()).unwrap();
    field(out, &len.to_be_bytes(), &format!("length: {len}"));
}

fn write_init(out: &mut String, body: &[u8]) {
    out.push_str("## > HANDSHAKE_INIT\n\n```text\n");
    record_length(out, body);
    let init = Init::decode(body).unwrap();
    let mut reader = Reader::new(body);
    take(out, &mut reader, 1, "HANDSHAKE_INIT");
    take(out, &mut reader, 1, "version 1");
    take(out, &mut reader, 1, "suite: NK_ChaChaPoly");
    take(out, &mut reader, 1, "flags");
    take(out, &mut reader, 8, "key_id: SHA-256(\"raystream-key-id\" | server key), 8 bytes");
    take(out, &mut reader, 1, "suites offered: 2");
    take(out, &mut reader, 1, "NK_ChaChaPoly");
    take(out, &mut reader, 1, "NK_AESGCM");
    take(out, &mut reader, 32, "noise_message_1: e, the client's ephemeral public key");
    take(out, &mut reader, 16, "tag of the empty payload, after es");
    reader.finish("INIT").unwrap();
    let prologue = [b"raystream-v1\0", init.head].concat();
    out.push_str("```\n\nThe prologue of both sides:\n\n```text\n");
    field(out, &prologue[..13], "\"raystream-v1\", 0x00");
    field(out, &prologue[13..], "the body up to noise_message_1");
    out.push_str("```\n\n");
}

fn write_response(out: &mut String, init: &[u8], body: &[u8]) {
    out.push_str("## < HANDSHAKE_RESPONSE\n\n```text\n");
    record_length(out, body);
    let mut reader = Reader::new(body);
    take(out, &mut reader, 1, "HANDSHAKE_RESPONSE");
    take(out, &mut reader, 32, "noise_message_2: e, the server's ephemeral public key");
    take(out, &mut reader, 64, "payload, encrypted after ee");
    take(out, &mut reader, 16, "its tag");
    reader.finish("RESPONSE").unwrap();
    out.push_str("```\n\nThe payload in clear:\n\n```text\n");
    let hello = hello_of(init, body);
    let mut reader = Reader::new(&hello);
    take(out, &mut reader, 1, "version 1");
    take(out, &mut reader, 1, "suites of the server: 2");
    take(out, &mut reader, 14, "NK_AESGCM, NK_ChaChaPoly, zeros");
    take(out, &mut reader, 8, "server_time_ms: 2026-01-01 00:00 UTC");
    take(out, &mut reader, 4, "message_max: 1,048,576");
    take(out, &mut reader, 2, "calls_max: 256");
    take(out, &mut reader, 2, "subscriptions_max: 128");
    take(out, &mut reader, 4, "heartbeat_ms: 15,000");
    take(out, &mut reader, 4, "idle_timeout_ms: 45,000");
    take(out, &mut reader, 16, "connection_id");
    take(out, &mut reader, 8, "zeros");
    reader.finish("hello").unwrap();
    out.push_str("```\n\n");
}

/// What a frame's payload says.
fn meaning(frame: &Parsed) -> String {
    match frame.frame_type {
        FrameType::HEARTBEAT => format!("stamp {}", Heartbeat::decode(&frame.payload).unwrap().0),
        FrameType::CLOSE => {
            let close = Close::decode(&frame.payload).unwrap();
            format!("code {}, reason {:?}", close.code, close.reason)
        }
        FrameType::RPC_CALL => "RpcCall: method sys.echo, args {\"a\":1}".into(),
        FrameType::RPC_RESPONSE => "RpcResponse: result {\"a\":1}".into(),
        FrameType::SUBSCRIBE => "Subscribe: table tasks, snapshot, credit 8".into(),
        FrameType::SUBSCRIBED => "Subscribed: cursor c0".into(),
        FrameType::EVENT => {
            "Event: Insert, id document-1, data {\"done\":false}, version 1, cursor c1".into()
        }
        other => panic!("no words for {other}"),
    }
}

fn write_record(out: &mut String, from: From, body: &[u8], plaintext: &[u8]) {
    let frames = parse(plaintext);
    let names: Vec<_> = frames
        .iter()
        .map(|frame| {
            let is_echo = frame.frame_type == FrameType::HEARTBEAT && frame.flags == FLAG_ACK;
            format!("{}{}", frame.frame_type, if is_echo { ", the echo" } else { "" })
        })
        .collect();
    let arrow = if from == From::Client { '>' } else { '<' };
    writeln!(out, "## {arrow} {}\n\n```text", names.join(", ")).unwrap();
    for frame in &frames {
        field(out, &[frame.frame_type.0], &frame.frame_type.to_string());
        field(out, &[frame.flags], if frame.flags == FLAG_ACK { "flags: ACK" } else { "flags" });
        field(out, &frame.stream.to_be_bytes(), &format!("stream {}", frame.stream));
        let len = u16::try_from(frame.payload.len()).unwrap();
        field(out, &len.to_be_bytes(), &format!("length: {len}"));
        field(out, &frame.payload, &meaning(frame));
    }
    out.push_str("```\n\nEncrypted:\n\n```text\n");
    record_length(out, body);
    let (text, tag) = body.split_last_chunk::<16>().unwrap();
    field(out, text, "ciphertext");
    field(out, tag, "tag");
    out.push_str("```\n\n");
}

/// The session: one message a record, so that each can be looked at.
fn session() -> Pair {
    let mut setup = Setup::new(raystream::wire::Suite::NK_CHACHAPOLY, Framing::Stream);
    setup.client.suites.push(raystream::wire::Suite::NK_AESGCM);
    setup.server.suites.insert(0, raystream::wire::Suite::NK_AESGCM);
    let mut pair = Pair::connected(setup);
    pair.client.connection.call(&call("sys.echo", "{\"a\":1}")).unwrap();
    pair.drive();
    let Event::Call(stream, asked) = pair.server.take_one() else { panic!("not a call") };
    pair.server.connection.respond(stream, &response(asked.args)).unwrap();
    pair.drive();
    let stream = pair.client.connection.subscribe(&subscribe("tasks", 8)).unwrap();
    pair.drive();
    pair.server.connection.send_subscribed(stream, &subscribed("c0")).unwrap();
    pair.drive();
    pair.server.connection.send_event(stream, &event(1, "{\"done\":false}")).unwrap();
    pair.drive();
    pair.client.connection.close(ErrorCode::NO_ERROR, "done");
    pair.drive();
    pair
}

#[test]
fn session_md_is_what_the_code_does() {
    let pair = session();
    let mut out = INTRODUCTION.to_owned();
    out.push_str("```text\n");
    field(&mut out, &SERVER_STATIC, "server's static private key");
    field(&mut out, &crate::support::public_key(SERVER_STATIC).0, "server's static public key");
    field(&mut out, &CLIENT_EPHEMERAL, "client's ephemeral private key");
    field(&mut out, &SERVER_EPHEMERAL, "server's ephemeral private key");
    out.push_str("```\n\n");
    let (init, answer) = (&pair.records[0].body, &pair.records[1].body);
    write_init(&mut out, init);
    write_response(&mut out, init, answer);
    let mut opener = Opener::new(init, answer);
    out.push_str("The handshake hash `h`, equal on both sides:\n\n```text\n");
    field(&mut out, &opener.hash, "");
    out.push_str("```\n\nFrom here each body is a Noise transport message with empty associated data.\n\n");
    for record in &pair.records[2..] {
        let plaintext = opener.open(record.from, &record.body);
        write_record(&mut out, record.from, &record.body, &plaintext);
    }
    out.push_str("After both CLOSE the byte stream ends.\n");
    check("session.md", &out);
}
