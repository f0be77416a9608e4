//! The WebSocket transport from outside, by bytes of our own: what the specification says of it (section 4.3).

use super::support::{PATIENCE, RAYSTREAM, TestDaemon, shared};
use bytes::Bytes;
use raystream::{
    conn::{ClientConfig, Connection, Entropy, Event, Framing, Limits},
    wire::{
        ErrorCode, Suite,
        envelope::RpcCall,
        websocket::{Decoder, Received, Sender, append_message},
    },
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
/// The first bit of a frame: it is the last of its message.
const FIN: u8 = 0x80;

fn request(more: &str) -> String {
    format!(
        "GET /raystream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// Asks for an upgrade with more header lines; gives the head of the answer, and the connection behind it.
fn upgrade(daemon: &TestDaemon, more: &str) -> (String, TcpStream) {
    let mut stream = daemon.connect();
    stream.write_all(request(more).as_bytes()).unwrap();
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

/// One frame of a client (RFC 6455, section 5.2) that is a whole message, masked with zeros.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    piece(FIN | opcode, payload)
}

fn piece(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
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
    answer_to(daemon, &frame(opcode, payload))
}

/// Everything that comes back for some bytes on a new connection.
fn answer_to(daemon: &TestDaemon, bytes: &[u8]) -> Vec<u8> {
    let mut stream = open(daemon);
    // The daemon may hang up in the middle.
    let _may_be_cut = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _may_be_reset = stream.read_to_end(&mut answer);
    answer
}

/// A close frame of the daemon.
fn close(code: u16) -> Vec<u8> {
    [&[FIN | CLOSE, 2][..], &code.to_be_bytes()].concat()
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
    // The rest ends the transport at once.
    assert_eq!(answer(&daemon, TEXT, &body), close(1003), "a text message");
    assert_eq!(answer(&daemon, BINARY, &vec![1; 65_536])[..], close(1009), "a message longer than a record");
    assert_eq!(answer(&daemon, BINARY, &[1; 4_097])[..], close(1009), "and than a stranger may send");
    let late = refusal(ErrorCode::HANDSHAKE_TIMEOUT);
    let said = answer(&daemon, BINARY, &[]);
    assert!(!said.windows(late.len()).any(|bytes| bytes == late), "an empty message: {said:02x?}");
}

#[test]
fn a_message_in_fragments_is_the_same_message() {
    let daemon = shared();
    let fragments = [
        piece(BINARY, &[0x01]),
        frame(PING, b"between"),
        piece(CONTINUATION, &[]),
        piece(CONTINUATION, &[9, 0x01]),
        piece(FIN | CONTINUATION, &[0]),
    ];
    let said = answer_to(&daemon, &fragments.concat());
    let pong = [&[FIN | PONG, 7][..], b"between"].concat();
    let rest = said.strip_prefix(&pong[..]).unwrap_or_else(|| panic!("a pong: {said:02x?}"));
    assert!(rest.starts_with(&refusal(ErrorCode::UNSUPPORTED_VERSION)), "{rest:02x?}");
    assert!(rest.ends_with(&close(1000)), "{rest:02x?}");
}

#[test]
fn what_rfc_6455_does_not_allow_ends_the_transport() {
    let daemon = shared();
    let mut unmasked = frame(BINARY, &[0x01, 9, 0x01, 0]);
    unmasked[1] &= 0x7f;
    for (what, bytes) in [
        ("a frame without a mask", unmasked),
        ("a reserved bit", piece(FIN | 0x40 | BINARY, &[1])),
        ("an opcode that is not assigned", frame(0x3, &[])),
        ("a control frame that is too long", frame(PING, &[0; 126])),
        ("a control frame in fragments", piece(PING, &[])),
        ("a continuation of nothing", frame(CONTINUATION, &[])),
        ("a message inside of another", [piece(BINARY, &[1]), frame(BINARY, &[1])].concat()),
        ("half a status", frame(CLOSE, &[3])),
    ] {
        assert_eq!(answer_to(&daemon, &bytes)[..], close(1002), "{what}");
    }
}

#[test]
fn pings_and_the_close_frame_are_answered() {
    let daemon = shared();
    // Before a record as well as behind it.
    let mut stream = open(&daemon);
    for payload in [&b""[..], b"a", &[0; 125]] {
        stream.write_all(&frame(PING, payload)).unwrap();
        let mut pong = vec![0; 2 + payload.len()];
        stream.read_exact(&mut pong).unwrap();
        assert_eq!(pong, [&[FIN | PONG, u8::try_from(payload.len()).unwrap()][..], payload].concat());
    }
    // Nobody asked for it.
    stream.write_all(&frame(PONG, b"alive")).unwrap();
    stream.write_all(&frame(CLOSE, &[&4_000_u16.to_be_bytes()[..], b"enough"].concat())).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, close(4_000));
    // Without a status it is answered without one, behind the pong that waits.
    assert_eq!(answer_to(&daemon, &frame(CLOSE, &[])), [FIN | CLOSE, 0]);
    let said = answer_to(&daemon, &[frame(PING, b"a"), frame(CLOSE, &[])].concat());
    assert_eq!(said, [FIN | PONG, 1, b'a', FIN | CLOSE, 0]);
    let said = answer_to(&daemon, &[frame(PING, b"a"), frame(TEXT, &[])].concat());
    assert_eq!(said, [&[FIN | PONG, 1, b'a'][..], &close(1003)].concat());
}

/// Frames that come together with the request are taken when it is granted, however much of either is read at once.
#[test]
fn frames_may_come_together_with_the_request() {
    let daemon = shared();
    for filling in [0, 400, 700, 5_000] {
        let request =
            request(&format!("Sec-WebSocket-Protocol: raystream.v1\r\nX: {}\r\n", "x".repeat(filling)));
        let frames = [frame(PING, b"first"), frame(PING, &[7; 100]), frame(CLOSE, &[])].concat();
        let said = daemon.exchange(&[request.as_bytes(), &frames].concat());
        let end = said.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head") + 4;
        let expected = [&[FIN | PONG, 100][..], &[7; 100], &[FIN | CLOSE, 0]].concat();
        assert!(said[end..].ends_with(&expected), "{filling}: {:02x?}", &said[end..]);
    }
}

/// A peer that says its end while more is queued for it than it may have queued: the end is heard all the same, and the
/// daemon stops when it is told to.
#[test]
fn an_end_is_heard_although_there_is_no_room() {
    let mut command = Command::new(RAYSTREAM);
    command.env("RAYSTREAM_LIMITS__OUTBOUND", "128KiB");
    let mut daemon = TestDaemon::start_with(command);
    let mut stream = open(&daemon);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut client = client(&daemon);
    send(&mut client, &mut stream, &[]);
    let mut decoder = Decoder::new(Sender::Server);
    let mut input = Vec::new();
    let mut read = |client: &mut Connection, stream: &mut TcpStream| {
        let mut piece = [0; 4_096];
        let len = stream.read(&mut piece).unwrap();
        input.extend_from_slice(&piece[..len]);
        while let Some((used, received)) = decoder.decode(&mut input, 65_535).unwrap() {
            match received {
                Received::Message(body) => client.handle_record(Duration::ZERO, body).unwrap(),
                Received::Close(_) => return true,
                other => panic!("{other:?}"),
            }
            input.drain(..used);
        }
        assert_ne!(len, 0, "no end without a close frame");
        false
    };
    while !matches!(client.poll_event(), Some(Event::Connected(..))) {
        assert!(!read(&mut client, &mut stream));
    }
    let args = Bytes::from(format!("\"{}\"", "x".repeat(200_000)));
    let args = Bytes::from([b"{\"a\":", &args[..], b"}"].concat());
    client.call(&RpcCall { method: "sys.echo".into(), args, ..RpcCall::default() }).unwrap();
    send(&mut client, &mut stream, &frame(CLOSE, &[]));
    while !read(&mut client, &mut stream) {}
    daemon.signal("TERM");
    let deadline = Instant::now() + PATIENCE;
    while daemon.is_alive() {
        assert!(Instant::now() < deadline, "it stops:\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn client(daemon: &TestDaemon) -> Connection {
    let key = daemon.url.trim_start_matches("raystream://").split('@').next().expect("a key");
    let config = ClientConfig {
        provider: raystream::noise::rust_crypto(),
        suites: vec![Suite::NK_CHACHAPOLY],
        suite: None,
        server_key: Some(key.parse().expect("a public key")),
        identity: None,
        psk: None,
        limits: Limits::default(),
    };
    let entropy = Entropy { ephemeral: [42; 32], connection_id: [0; 16], server_time_ms: 0 };
    Connection::client(Arc::new(config), entropy, Framing::Messages, Duration::ZERO)
        .expect("a sound configuration")
}

/// Sends what a client has to say, and some bytes behind it, in one write.
fn send(client: &mut Connection, stream: &mut TcpStream, behind: &[u8]) {
    let mut out = Vec::new();
    while append_message(&mut out, Some([1, 2, 3, 4]), |out| client.poll_transmit(Duration::ZERO, out)) {}
    out.extend_from_slice(behind);
    stream.write_all(&out).unwrap();
}

/// A peer that pings and does not read has one pong kept for it, not all.
#[test]
fn pings_of_a_peer_that_does_not_read_hold_nothing() {
    let daemon = TestDaemon::start();
    let mut stream = open(&daemon);
    let before = daemon.resident_kib();
    let pings = frame(PING, &[7; 125]).repeat(1_000);
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut sent = 0;
    // Far more than the system holds in both directions; the daemon may stop to read, or give the peer up.
    while sent < 64 << 20 && stream.write_all(&pings).is_ok() {
        sent += pings.len();
    }
    let held = daemon.resident_kib().saturating_sub(before);
    assert!(held < 16 << 10, "{held} KiB for {sent} bytes of pings");
}
