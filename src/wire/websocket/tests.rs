//! The vectors of RFC 6455, what is refused, and another implementation at the other end.

use super::*;
use crate::fuzzing::websocket::Told;
use proptest::prelude::*;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Gives a decoder the stream in pieces of so many bytes.
fn told(sender: Sender, stream: &[u8], piece: usize) -> Vec<Told> {
    crate::fuzzing::websocket::told(sender, stream, piece, RECORD_BODY_MAX)
}

fn from_client(stream: &[u8]) -> Vec<Told> {
    told(Sender::Client, stream, usize::MAX)
}

fn from_server(stream: &[u8]) -> Vec<Told> {
    told(Sender::Server, stream, usize::MAX)
}

#[test]
fn the_examples_of_the_rfc() {
    // Section 5.7. Those that are text: refused, as text.
    assert_eq!(from_server(b"\x81\x05Hello"), [Told::Refused(WebSocketError::Text)]);
    assert_eq!(
        from_client(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"),
        [Told::Refused(WebSocketError::Text)]
    );
    assert_eq!(from_server(b"\x89\x05Hello"), [Told::Ping(b"Hello".to_vec())]);
    let mut pong = Vec::new();
    append_pong(&mut pong, Some(MASK), b"Hello");
    assert_eq!(pong, b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
    assert_eq!(from_client(&pong), [Told::Pong]);
    let body = vec![7; 256];
    let long = [&b"\x82\x7e\x01\x00"[..], &body].concat();
    assert_eq!(from_server(&long), [Told::Message(body.clone())]);
    let mut sent = Vec::new();
    assert!(append_message(&mut sent, None, |out| {
        out.extend_from_slice(&body);
        true
    }));
    assert_eq!(sent, long);
    let longest = [&b"\x82\x7f\0\0\0\0\0\x01\0\0"[..], &vec![7; 65_536]].concat();
    assert_eq!(from_server(&longest), [Told::Refused(WebSocketError::TooLong)]);
}

#[test]
fn fragments_are_one_message_and_control_frames_come_between() {
    let stream = b"\x02\x03Hel\x89\x01?\x00\x00\x8a\x00\x80\x02lo\x82\x01!";
    for piece in 1..=stream.len() {
        assert_eq!(
            told(Sender::Server, stream, piece),
            [
                Told::Ping(b"?".to_vec()),
                Told::Pong,
                Told::Message(b"Hello".to_vec()),
                Told::Message(b"!".to_vec())
            ]
        );
    }
}

#[test]
fn a_message_that_was_put_together_is_not_kept() {
    let mut decoder = Decoder::new(Sender::Server);
    let mut stream = b"\x02\x03Hel\x80\x02lo".to_vec();
    assert_eq!(decoder.decode(&mut stream[..5], 16), Ok(Some((5, Received::Fragment))));
    let mut whole = b"Hello".to_vec();
    assert_eq!(decoder.decode(&mut stream[5..], 16), Ok(Some((4, Received::Message(&mut whole)))));
    assert_eq!(decoder.decode(&mut [], 16), Ok(None));
    assert_eq!(decoder.fragments.capacity(), 0);
}

#[test]
fn what_is_not_allowed_is_refused_by_its_head() {
    let protocol = |stream: &[u8], why: &'static str| {
        assert_eq!(from_server(stream), [Told::Refused(WebSocketError::Protocol(why))], "{stream:02x?}");
    };
    for bit in [0x40, 0x20, 0x10] {
        protocol(&[0x82 | bit, 1], "a reserved bit");
    }
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        protocol(&[0x80 | opcode, 0], "an opcode that is not assigned");
    }
    protocol(&[0x82, 0x81], "a server's frame with a mask");
    assert_eq!(
        from_client(&[0x82, 0x01]),
        [Told::Refused(WebSocketError::Protocol("a client's frame without mask"))]
    );
    protocol(&[0x80, 0], "a continuation of nothing");
    protocol(&[0x02, 0, 0x82, 0], "a message inside of another");
    protocol(&[0x02, 0, 0x81, 0], "a message inside of another");
    protocol(&[0x09, 0], "a control frame in fragments");
    protocol(&[0x89, 126, 0, 126], "a control frame that is too long");
    let shortest = "a length that is not written in its shortest form";
    protocol(&[0x82, 126, 0, 125], shortest);
    protocol(&[0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], shortest);
    protocol(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], shortest);
    protocol(&[0x88, 1, 3], "half a status");
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000] {
        let [high, low] = code.to_be_bytes();
        protocol(&[0x88, 2, high, low], "a status that is not to be sent");
    }
    protocol(&[0x88, 3, 3, 0xe8, 0xff], "a reason that is not UTF-8");
    assert_eq!(from_server(&[0x88, 0]), [Told::Close(None)]);
    assert_eq!(from_server(&[0x88, 4, 3, 0xe8, b'o', b'k']), [Told::Close(Some(1000))]);
}

#[test]
fn a_message_that_is_too_long_is_refused_before_it_arrives() {
    let refused = |stream: &[u8]| match crate::fuzzing::websocket::told(
        Sender::Server,
        stream,
        stream.len(),
        300,
    )
    .pop()
    {
        Some(Told::Refused(error)) => Some(error),
        _ => None,
    };
    assert_eq!(refused(&[0x82, 126, 1, 44]), None);
    assert_eq!(refused(&[0x82, 126, 1, 45]), Some(WebSocketError::TooLong));
    assert_eq!(
        refused(&[0x82, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        Some(WebSocketError::TooLong)
    );
    // Fragments count together.
    let first = [&[0x02, 126, 0, 200][..], &[0; 200]].concat();
    assert_eq!(refused(&[&first[..], &[0x80, 100]].concat()), None);
    assert_eq!(refused(&[&first[..], &[0x80, 101]].concat()), Some(WebSocketError::TooLong));
}

#[test]
fn a_message_that_is_not_written_leaves_nothing() {
    let mut out = b"before".to_vec();
    assert!(!append_message(&mut out, Some(MASK), |out| {
        out.push(1);
        false
    }));
    assert_eq!(out, b"before");
}

/// What is sent, as a list.
fn frames() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let len = prop_oneof![0..=130_usize, Just(65_535), 0..3_000_usize];
    let payload = (len, any::<u8>()).prop_map(|(len, first)| {
        (0..len).map(|n| first.wrapping_add(u8::try_from(n % 251).unwrap())).collect()
    });
    prop::collection::vec((0..3_u8, payload), 0..8)
}

fn encode(frames: &[(u8, Vec<u8>)], mask: Option<[u8; 4]>) -> (Vec<u8>, Vec<Told>) {
    let (mut out, mut expected) = (Vec::new(), Vec::new());
    for (kind, payload) in frames {
        let short = &payload[..payload.len().min(CONTROL_MAX)];
        match kind {
            0 => {
                assert!(append_message(&mut out, mask, |out| {
                    out.extend_from_slice(payload);
                    true
                }));
                expected.push(Told::Message(payload.clone()));
            }
            1 => {
                append_pong(&mut out, mask, short);
                expected.push(Told::Pong);
            }
            _ => {
                append_control(&mut out, opcode::PING, mask, short);
                expected.push(Told::Ping(short.to_vec()));
            }
        }
    }
    append_close(&mut out, mask, Some(close_code::NORMAL));
    expected.push(Told::Close(Some(close_code::NORMAL)));
    (out, expected)
}

proptest! {
    #[test]
    fn what_is_sent_is_received_however_it_is_cut(frames in frames(), mask: Option<[u8; 4]>, piece in 1..5_000_usize) {
        let (stream, expected) = encode(&frames, mask);
        let sender = if mask.is_some() { Sender::Client } else { Sender::Server };
        prop_assert_eq!(told(sender, &stream, piece), expected);
    }
}

/// tungstenite as the peer: what it sends is understood, it understands what is sent, and both refuse the same.
#[cfg(feature = "client")]
mod peer {
    use super::*;
    use std::io::{self, Cursor, Read, Write};
    use tokio_tungstenite::tungstenite::{
        Error, Message, WebSocket,
        protocol::{Role, WebSocketConfig},
    };

    /// Gives what it holds, then says that more will come; takes everything.
    struct Wire {
        arriving: Cursor<Vec<u8>>,
        sent: Vec<u8>,
    }

    impl Read for Wire {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            match self.arriving.read(out)? {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                read => Ok(read),
            }
        }
    }

    impl Write for Wire {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.sent.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn socket(role: Role, arriving: &[u8]) -> WebSocket<Wire> {
        let config = WebSocketConfig::default()
            .max_message_size(Some(RECORD_BODY_MAX))
            .max_frame_size(Some(RECORD_BODY_MAX));
        let wire = Wire { arriving: Cursor::new(arriving.to_vec()), sent: Vec::new() };
        WebSocket::from_raw_socket(wire, role, Some(config))
    }

    /// What tungstenite makes of a stream of the other end.
    fn told_by_the_peer(sender: Sender, stream: &[u8]) -> (Vec<Told>, bool) {
        let role = if sender == Sender::Client { Role::Server } else { Role::Client };
        let (mut socket, mut told) = (socket(role, stream), Vec::new());
        loop {
            match socket.read() {
                Ok(Message::Binary(body)) => told.push(Told::Message(body.to_vec())),
                Ok(Message::Ping(payload)) => told.push(Told::Ping(payload.to_vec())),
                Ok(Message::Pong(_)) => told.push(Told::Pong),
                Ok(Message::Close(frame)) => {
                    told.push(Told::Close(frame.map(|frame| frame.code.into())));
                    return (told, false);
                }
                // Text is the one thing that it takes and a record is not.
                Ok(Message::Text(_) | Message::Frame(_)) => return (told, true),
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return (told, false),
                Err(_) => return (told, true),
            }
        }
    }

    /// Whether tungstenite, which takes a length that is written too long, is the more patient of the two.
    fn is_patience(error: &WebSocketError) -> bool {
        matches!(error, WebSocketError::Protocol(why) if why.contains("shortest") || why.contains("status")
            || why.contains("UTF-8"))
    }

    proptest! {
        #[test]
        fn it_understands_what_is_sent(frames in frames(), mask: Option<[u8; 4]>) {
            let (stream, expected) = encode(&frames, mask);
            let sender = if mask.is_some() { Sender::Client } else { Sender::Server };
            prop_assert_eq!(told_by_the_peer(sender, &stream), (expected, false));
        }

        #[test]
        fn what_it_sends_is_understood(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6), is_client: bool) {
            let mut socket = socket(if is_client { Role::Client } else { Role::Server }, &[]);
            for body in &bodies {
                socket.send(Message::Binary(body.clone().into())).unwrap();
                socket.send(Message::Ping(body.iter().copied().take(CONTROL_MAX).collect::<Vec<_>>().into())).unwrap();
            }
            socket.close(None).unwrap();
            let mut expected = Vec::new();
            for body in bodies {
                expected.push(Told::Message(body.clone()));
                expected.push(Told::Ping(body.into_iter().take(CONTROL_MAX).collect()));
            }
            expected.push(Told::Close(None));
            let sender = if is_client { Sender::Client } else { Sender::Server };
            prop_assert_eq!(told(sender, &socket.get_ref().sent, usize::MAX), expected);
        }

        /// Small frames of any head: the same messages, up to the same refusal.
        #[test]
        fn both_refuse_the_same(heads in prop::collection::vec((any::<u8>(), 0..4_u8), 1..6)) {
            let mut stream = Vec::new();
            for (first, len) in heads {
                // A text in fragments is refused here by its first, there by none.
                let first = if first & 0x0f == opcode::TEXT { FIN | opcode::TEXT } else { first & 0x8f };
                stream.extend_from_slice(&[first, len]);
                stream.extend(std::iter::repeat_n(b'a', usize::from(len)));
            }
            let (theirs, refused) = told_by_the_peer(Sender::Server, &stream);
            let mut ours = told(Sender::Server, &stream, usize::MAX);
            match ours.last().cloned() {
                Some(Told::Refused(error)) if is_patience(&error) => {}
                Some(Told::Refused(_)) => {
                    ours.pop();
                    prop_assert!(refused);
                    prop_assert_eq!(ours, theirs);
                }
                _ => {
                    prop_assert!(!refused, "theirs: {:?}", theirs);
                    prop_assert_eq!(ours, theirs);
                }
            }
        }
    }
}
