//! WebSocket frames: the same however they are cut, and what was taken can be sent again.

use crate::wire::{
    limits::RECORD_BODY_MAX,
    websocket::{
        CONTROL_MAX, Decoder, Received, Sender, WebSocketError, append_close, append_message, append_pong,
    },
};

/// What a frame told, with a payload of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Message(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
    Refused(WebSocketError),
}

/// What a stream brings that comes in pieces of so many bytes, up to its end or to what is refused.
pub(crate) fn told(sender: Sender, stream: &[u8], piece: usize, message_max: usize) -> Vec<Told> {
    let (mut decoder, mut input, mut all) = (Decoder::new(sender), Vec::new(), Vec::new());
    for piece in stream.chunks(piece.max(1)) {
        input.extend_from_slice(piece);
        let mut used = 0;
        loop {
            let told = match decoder.decode(&mut input[used..], message_max) {
                Ok(None) => break,
                Ok(Some((len, received))) => {
                    assert!(len >= 2, "a frame has a head");
                    used += len;
                    match received {
                        Received::Fragment => continue,
                        Received::Pong => Told::Pong,
                        Received::Message(body) => Told::Message(body.to_vec()),
                        Received::Ping(payload) => Told::Ping(payload.to_vec()),
                        Received::Close(code) => Told::Close(code),
                    }
                }
                Err(error) => Told::Refused(error),
            };
            let is_end = matches!(told, Told::Close(_) | Told::Refused(_));
            all.push(told);
            if is_end {
                return all;
            }
        }
        input.drain(..used);
    }
    all
}

/// The first byte says whose frames they are and how they are cut, the second how long a message may be.
pub fn websocket(data: &[u8]) {
    let Some((&[how, max], stream)) = data.split_first_chunk() else { return };
    let sender = if how & 1 == 0 { Sender::Client } else { Sender::Server };
    let message_max = if max == 0xff { RECORD_BODY_MAX } else { usize::from(max) };
    let whole = told(sender, stream, stream.len(), message_max);
    let pieces = told(sender, stream, usize::from(how >> 1) + 1, message_max);
    assert_eq!(whole, pieces, "however it is cut");
    for told_once in whole {
        for (mask, sender) in [(None, Sender::Server), (Some([how, max, 3, 4]), Sender::Client)] {
            let mut sent = Vec::new();
            match &told_once {
                Told::Message(body) => {
                    assert!(body.len() <= message_max, "no longer than is allowed");
                    let append = |out: &mut Vec<u8>| {
                        out.extend_from_slice(body);
                        true
                    };
                    assert!(append_message(&mut sent, mask, append));
                }
                Told::Close(code) => append_close(&mut sent, mask, *code),
                Told::Ping(payload) => {
                    assert!(payload.len() <= CONTROL_MAX, "no longer than is allowed");
                    append_pong(&mut sent, mask, payload);
                    let mut decoder = Decoder::new(sender);
                    let len = sent.len();
                    assert_eq!(decoder.decode(&mut sent, 0), Ok(Some((len, Received::Pong))));
                    continue;
                }
                Told::Pong | Told::Refused(_) => continue,
            }
            let again = told(sender, &sent, sent.len(), RECORD_BODY_MAX);
            assert_eq!(again.as_slice(), std::slice::from_ref(&told_once), "what was taken can be sent");
        }
    }
}
