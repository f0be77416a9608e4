//! Bytes that are recognised or refused: records, HANDSHAKE_INIT, frames, envelopes.

use super::{
    generated::{Generated, compare},
    handshake::{NOW, client, server, transmit},
    provider::FakeDh,
};
use crate::{
    conn::{Connection, ConnectionError, Event, Framing},
    wire::{
        FrameType, Reader, Suite,
        control::{Close, Credit, GoAway, Heartbeat},
        envelope::{Event as EventMessage, Publish, RpcCall, RpcError, RpcResponse, Subscribe, Subscribed},
        frame::Frame,
        handshake::{Init, ServerHello, decode_refusal, encode_refusal, noise_message_1_len},
        limits::FRAME_PAYLOAD_MAX,
    },
};
use bytes::{Bytes, BytesMut};
use std::sync::OnceLock;

/// Two ends whose handshake is done: the ciphers are real, so that what passes them was made by the other end.
#[cfg(test)]
pub(super) fn established() -> (Connection, Connection) {
    let mut client = client(&FakeDh, Suite::NK_CHACHAPOLY, Framing::Stream);
    let mut server = server(&FakeDh, Framing::Stream);
    for _ in 0..2 {
        let up = transmit(&mut client).expect("the client's turn");
        server.handle_input(NOW, &mut BytesMut::from(&up[..])).expect("a true client");
        let down = transmit(&mut server).expect("the server's turn");
        client.handle_input(NOW, &mut BytesMut::from(&down[..])).expect("a true server");
    }
    while client.poll_event().is_some() || server.poll_event().is_some() {}
    (client, server)
}

/// The server of [`established`], from the bytes of its client.
fn established_server() -> Connection {
    static FROM_CLIENT: OnceLock<Vec<u8>> = OnceLock::new();
    let from_client = FROM_CLIENT.get_or_init(|| {
        let mut client = client(&FakeDh, Suite::NK_CHACHAPOLY, Framing::Stream);
        let mut server = server(&FakeDh, Framing::Stream);
        let mut sent = transmit(&mut client).expect("the client's turn");
        server.handle_input(NOW, &mut BytesMut::from(&sent[..])).expect("a true client");
        let down = transmit(&mut server).expect("the server's turn");
        client.handle_input(NOW, &mut BytesMut::from(&down[..])).expect("a true server");
        sent.extend(transmit(&mut client).expect("the client's turn"));
        sent
    });
    let mut server = server(&FakeDh, Framing::Stream);
    server.handle_input(NOW, &mut BytesMut::from(&from_client[..])).expect("a true client");
    assert!(matches!(server.poll_event(), Some(Event::Established(_))));
    while transmit(&mut server).is_some() {}
    server
}

/// Feeds a byte stream in pieces of `len` bytes.
fn feed(stream: &[u8], len: usize) -> (Option<ConnectionError>, Vec<Event>) {
    let mut server = established_server();
    let mut input = BytesMut::new();
    for piece in stream.chunks(len) {
        input.extend_from_slice(piece);
        if server.handle_input(NOW, &mut input).is_err() {
            break;
        }
    }
    let mut events = Vec::new();
    while let Some(event) = server.poll_event() {
        events.push(event);
    }
    (server.end().cloned(), events)
}

/// A byte stream of records, after a byte that says how to cut it: however it is cut, the result is the same.
pub fn record(data: &[u8]) {
    let Some((len, stream)) = data.split_first() else { return };
    let whole = feed(stream, stream.len().max(1));
    let pieces = feed(stream, 1 + usize::from(*len));
    assert_eq!(whole, pieces);
}

/// HANDSHAKE_INIT, the server's hello and refusals: what is understood is written again byte for byte.
pub fn init(data: &[u8]) {
    if let Ok(init) = Init::decode(data) {
        let head = Init::encode_head(init.suite, init.key_id, &init.offered);
        assert_eq!(head, init.head);
        assert_eq!([head.as_slice(), init.noise_message].concat(), data);
        assert_eq!(noise_message_1_len(init.suite), Some(init.noise_message.len()));
        assert!(init.offered.contains(&init.suite) && init.offered.len() <= 8 && data.len() < 256);
    }
    if let Ok(hello) = ServerHello::decode(data) {
        assert_eq!(hello.encode().as_slice(), data);
    }
    if let Some(code) = decode_refusal(data) {
        assert_eq!(encode_refusal(code).as_slice(), data);
    }
}

/// The plaintext of a record: every frame that is understood is written again byte for byte, and so is its payload.
pub fn frame(data: &[u8]) {
    let mut reader = Reader::new(data);
    let mut written = Vec::new();
    while !reader.is_empty() {
        let Ok(frame) = Frame::decode(&mut reader) else { return };
        assert!(frame.payload.len() <= FRAME_PAYLOAD_MAX && frame.frame_type.name().is_some());
        assert_eq!(frame.stream == 0, frame.frame_type.on_connection());
        assert!(!frame.has_more() || (frame.frame_type.may_fragment() && !frame.payload.is_empty()));
        control(frame.frame_type, frame.payload);
        let from = written.len();
        frame.encode(&mut written);
        assert_eq!(written.len() - from, frame.encoded_len());
    }
    assert_eq!(written, data);
}

fn control(frame_type: FrameType, payload: &[u8]) {
    let written = match frame_type {
        FrameType::HEARTBEAT => Heartbeat::decode(payload).map(|value| value.encode().to_vec()),
        FrameType::CREDIT => Credit::decode(payload).map(|value| value.encode().to_vec()),
        FrameType::GOAWAY => GoAway::decode(payload).map(GoAway::encode),
        FrameType::CLOSE => Close::decode(payload).map(|value| value.encode()),
        _ => return,
    };
    if let Ok(written) = written {
        assert_eq!(written, payload);
    }
}

/// A message, after a byte that picks the envelope: the generated code understands the same, and what is understood is the
/// same after it is written and read again, by both.
pub fn envelope(data: &[u8]) {
    let Some((pick, message)) = data.split_first() else { return };
    let message = Bytes::copy_from_slice(message);
    match pick % 7 {
        0 => read_write_read::<RpcCall>(&message),
        1 => read_write_read::<RpcResponse>(&message),
        2 => read_write_read::<RpcError>(&message),
        3 => read_write_read::<Subscribe>(&message),
        4 => read_write_read::<Subscribed>(&message),
        5 => read_write_read::<EventMessage>(&message),
        _ => read_write_read::<Publish>(&message),
    }
}

fn read_write_read<E: Generated>(message: &Bytes) {
    compare::<E>(message);
    let Ok(value) = E::decode(message) else { return };
    let written = value.to_bytes();
    compare::<E>(&written);
    match E::decode(&written) {
        Ok(again) => assert_eq!(again, value),
        // Fields that share bytes take more of them when each is written for itself.
        Err(error) => assert!(written.len() > message.len(), "{error}"),
    }
}
