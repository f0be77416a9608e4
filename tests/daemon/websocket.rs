//! The WebSocket transport from outside, by bytes of our own: what the specification says of it (section 4.3).

use super::support::{TestDaemon, shared};
use raystream::wire::ErrorCode;
use std::io::{Read, Write};
use std::net::TcpStream;

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;

/// Asks for an upgrade with more header lines; gives the head of the answer, and the connection behind it.
fn upgrade(daemon: &TestDaemon, more: &str) -> (String, TcpStream) {
    let mut stream = daemon.connect();
    let request = format!(
        "GET /raystream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    (String::from_utf8(head).unwrap().to_ascii_lowercase(), stream)
}

fn open(daemon: &TestDaemon) -> TcpStream {
    let (head, stream) = upgrade(daemon, "Sec-WebSocket-Protocol: raystream.v1\r\n");
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(head.contains("sec-websocket-protocol: raystream.v1\r\n"), "{head}");
    // RFC 6455, section 4.1: a client has to fail the connection without them.
    assert!(head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n"), "{head}");
    stream
}

/// One frame of a client (RFC 6455, section 5.2), masked with zeros.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80 | opcode];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(len @ ..126), _) => out.push(0x80 | len),
        (_, Ok(len)) => {
            out.push(0x80 | 126);
            out.extend(len.to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend(u64::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    out.extend([0; 4]);
    out.extend(payload);
    out
}

/// Everything that comes back for one message on a new connection.
fn answer(daemon: &TestDaemon, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut stream = open(daemon);
    // The daemon may hang up in the middle.
    let _may_be_cut = stream.write_all(&frame(opcode, payload));
    let mut answer = Vec::new();
    let _may_be_reset = stream.read_to_end(&mut answer);
    answer
}

fn refusal(code: ErrorCode) -> Vec<u8> {
    [&[0x80 | BINARY, 3, 0xFF][..], &code.0.to_be_bytes()].concat()
}

#[test]
fn an_upgrade_names_the_subprotocol_and_no_foreign_origin() {
    let daemon = shared();
    open(&daemon);
    let refused = |more: &str, status: &str| {
        let (head, _) = upgrade(&daemon, more);
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{more:?}: {head}");
    };
    refused("", "400");
    refused("Sec-WebSocket-Protocol: chat\r\n", "400");
    refused("Sec-WebSocket-Protocol: raystream.v1\r\nOrigin: https://evil.test\r\n", "403");
    refused("Sec-WebSocket-Protocol: raystream.v1\r\nOrigin: null\r\n", "403");
}

#[test]
fn no_websocket_extension_is_negotiated() {
    let daemon = shared();
    let (head, _) = upgrade(
        &daemon,
        "Sec-WebSocket-Protocol: raystream.v1\r\nSec-WebSocket-Extensions: permessage-deflate\r\n",
    );
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(!head.contains("sec-websocket-extensions"), "{head}");
}

#[test]
fn a_binary_message_is_one_record_body_and_nothing_else_is() {
    let daemon = shared();
    // The body of a HANDSHAKE_INIT of another version is understood and refused.
    let body = [0x01, 9, 0x01, 0];
    let said = answer(&daemon, BINARY, &body);
    assert!(said.starts_with(&refusal(ErrorCode::UNSUPPORTED_VERSION)), "{said:02x?}");
    // A length in front, as TCP has it, makes another body.
    let said = answer(&daemon, BINARY, &[&[0, 4], &body[..]].concat());
    assert!(said.starts_with(&refusal(ErrorCode::PROTOCOL_ERROR)), "{said:02x?}");
    // The rest ends the connection at once: no refusal at the deadline of the handshake.
    let late = refusal(ErrorCode::HANDSHAKE_TIMEOUT);
    for (what, said) in [
        ("a text message", answer(&daemon, TEXT, &body)),
        ("a message longer than a record", answer(&daemon, BINARY, &vec![1; 65_536])),
        ("an empty message", answer(&daemon, BINARY, &[])),
    ] {
        assert!(!said.windows(late.len()).any(|bytes| bytes == late), "{what}: {said:02x?}");
    }
}
