//! WebSocket frames (RFC 6455, section 5), as far as record bodies need them: binary messages, whole or in fragments, and
//! control frames. No extension is ever negotiated, so that a reserved bit is an error.
//!
//! A frame is taken when it is there whole, and refused by its head before its payload arrives. Nothing is allocated from
//! the length that it declares.

use super::limits::RECORD_BODY_MAX;

/// Where a server grants an upgrade (specification, "WebSocket").
pub const PATH: &str = "/raystream";
/// The subprotocol: names what the binary messages are.
pub const SUBPROTOCOL: &str = "raystream.v1";
/// Longest payload of a control frame (RFC 6455, section 5.5).
pub const CONTROL_MAX: usize = 125;

/// Status codes of a close frame (RFC 6455, section 7.4.1).
pub mod close_code {
    /// The connection has done what it was for.
    pub const NORMAL: u16 = 1000;
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// A kind of data that is not taken: text.
    pub const UNSUPPORTED_DATA: u16 = 1003;
    /// A message that is longer than is taken.
    pub const MESSAGE_TOO_BIG: u16 = 1009;
}

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
/// In place of a short length: it follows as `u16`, or as `u64`.
const LENGTH_U16: u8 = 126;
const LENGTH_U64: u8 = 127;
const HEAD_SHORT: usize = 2;
const HEAD_U16: usize = 4;
const MASK_LEN: usize = 4;

/// Opcodes (RFC 6455, section 5.2).
mod opcode {
    pub(super) const CONTINUATION: u8 = 0x0;
    pub(super) const TEXT: u8 = 0x1;
    pub(super) const BINARY: u8 = 0x2;
    pub(super) const CLOSE: u8 = 0x8;
    pub(super) const PING: u8 = 0x9;
    pub(super) const PONG: u8 = 0xA;
}

/// A frame that is refused. It ends the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebSocketError {
    /// RFC 6455 does not allow it.
    #[error("a WebSocket frame that RFC 6455 does not allow: {0}")]
    Protocol(&'static str),
    /// A text message.
    #[error("a text message: records are binary")]
    Text,
    /// A message that is longer than the record that is taken now.
    #[error("a message that is longer than a record may be")]
    TooLong,
}

impl WebSocketError {
    /// The status for the close frame that answers it.
    #[must_use]
    pub fn close_code(self) -> u16 {
        match self {
            Self::Protocol(_) => close_code::PROTOCOL_ERROR,
            Self::Text => close_code::UNSUPPORTED_DATA,
            Self::TooLong => close_code::MESSAGE_TOO_BIG,
        }
    }
}

/// Which end has sent a frame: a client's are masked, a server's are not (RFC 6455, section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The end that asked for the upgrade.
    Client,
    /// The end that granted it.
    Server,
}

/// What a frame brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// A whole binary message.
    Message(&'a mut [u8]),
    /// A piece of a message that goes on: nothing to do yet.
    Fragment,
    /// To be answered by a pong with the same payload.
    Ping(&'a [u8]),
    /// Answers a ping, or is there to show that the peer lives.
    Pong,
    /// The peer sends nothing more. The status, where there is one, is allowed by RFC 6455, section 7.4.
    Close(Option<u16>),
}

/// Takes frames from the bytes of one end.
#[derive(Debug)]
pub struct Decoder {
    sender: Sender,
    /// Fragments of the message that is open, at most as long as a message may be.
    fragments: Vec<u8>,
    is_message_open: bool,
}

impl Decoder {
    /// A decoder for what `sender` has sent behind the upgrade.
    #[must_use]
    pub fn new(sender: Sender) -> Self {
        Self { sender, fragments: Vec::new(), is_message_open: false }
    }

    /// Takes the frame at the front of `input`: how many bytes it had, and what it brought; `None` when it has not arrived
    /// whole. A payload is unmasked in place. `message_max` is the longest message that is allowed now, in bytes.
    ///
    /// # Errors
    /// A frame that is refused; nothing behind it means anything.
    pub fn decode<'a>(
        &'a mut self,
        input: &'a mut [u8],
        message_max: usize,
    ) -> Result<Option<(usize, Received<'a>)>, WebSocketError> {
        if !self.is_message_open && !self.fragments.is_empty() {
            // The message that was put together here has been used by now.
            self.fragments = Vec::new();
        }
        let Some(head) = Head::decode(input, self.sender)? else { return Ok(None) };
        self.check(&head, message_max)?;
        let Some(payload) = input[head.len..].get_mut(..head.payload_len) else { return Ok(None) };
        if let Some(mask) = head.mask {
            apply_mask(mask, payload);
        }
        let received = match head.opcode {
            opcode::PING => Received::Ping(payload),
            opcode::PONG => Received::Pong,
            opcode::CLOSE => Received::Close(decode_close(payload)?),
            _ if head.is_final && !self.is_message_open => Received::Message(payload),
            _ => self.fragment(payload, head.is_final),
        };
        Ok(Some((head.len + head.payload_len, received)))
    }

    /// What the head alone says against a frame.
    fn check(&self, head: &Head, message_max: usize) -> Result<(), WebSocketError> {
        let fragments = match (head.opcode, self.is_message_open) {
            (opcode::BINARY, false) => 0,
            (opcode::CONTINUATION, true) => self.fragments.len(),
            (opcode::TEXT, false) => return Err(WebSocketError::Text),
            (opcode::BINARY | opcode::TEXT, true) => {
                return Err(WebSocketError::Protocol("a message inside of another"));
            }
            (opcode::CONTINUATION, false) => {
                return Err(WebSocketError::Protocol("a continuation of nothing"));
            }
            (opcode::CLOSE | opcode::PING | opcode::PONG, _) => {
                return match (head.is_final, head.payload_len) {
                    (true, ..=CONTROL_MAX) => Ok(()),
                    (true, _) => Err(WebSocketError::Protocol("a control frame that is too long")),
                    (false, _) => Err(WebSocketError::Protocol("a control frame in fragments")),
                };
            }
            _ => return Err(WebSocketError::Protocol("an opcode that is not assigned")),
        };
        if fragments.saturating_add(head.payload_len) > message_max.min(RECORD_BODY_MAX) {
            return Err(WebSocketError::TooLong);
        }
        Ok(())
    }

    fn fragment(&mut self, payload: &[u8], is_final: bool) -> Received<'_> {
        self.fragments.extend_from_slice(payload);
        self.is_message_open = !is_final;
        if is_final { Received::Message(&mut self.fragments) } else { Received::Fragment }
    }
}

/// What stands before a payload.
struct Head {
    /// Bytes of the head.
    len: usize,
    is_final: bool,
    opcode: u8,
    payload_len: usize,
    mask: Option<[u8; MASK_LEN]>,
}

impl Head {
    /// `None`: it has not arrived whole.
    fn decode(input: &[u8], sender: Sender) -> Result<Option<Self>, WebSocketError> {
        let Some((&[first, second], rest)) = input.split_first_chunk() else { return Ok(None) };
        if first & RESERVED != 0 {
            return Err(WebSocketError::Protocol("a reserved bit"));
        }
        let is_masked = second & MASKED != 0;
        match (is_masked, sender) {
            (false, Sender::Client) => return Err(WebSocketError::Protocol("a client's frame without mask")),
            (true, Sender::Server) => return Err(WebSocketError::Protocol("a server's frame with a mask")),
            _ => {}
        }
        let (payload_len, rest) = match second & !MASKED {
            LENGTH_U16 => {
                let Some((bytes, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (u64::from(u16::from_be_bytes(*bytes)), rest)
            }
            LENGTH_U64 => {
                let Some((bytes, rest)) = rest.split_first_chunk() else { return Ok(None) };
                (u64::from_be_bytes(*bytes), rest)
            }
            short => (u64::from(short), rest),
        };
        let shortest = match payload_len {
            0..126 => second & !MASKED < LENGTH_U16,
            126..=0xffff => second & !MASKED == LENGTH_U16,
            // The first bit has to be zero.
            _ => payload_len >> 63 == 0,
        };
        if !shortest {
            return Err(WebSocketError::Protocol("a length that is not written in its shortest form"));
        }
        let (mask, rest) = match rest.split_first_chunk() {
            _ if !is_masked => (None, rest),
            Some((mask, rest)) => (Some(*mask), rest),
            None => return Ok(None),
        };
        Ok(Some(Self {
            len: input.len() - rest.len(),
            is_final: first & FIN != 0,
            opcode: first & OPCODE,
            // Longer than memory is longer than any message.
            payload_len: usize::try_from(payload_len).unwrap_or(usize::MAX),
            mask,
        }))
    }
}

/// The status of a close frame (RFC 6455, sections 5.5.1 and 7.4).
fn decode_close(payload: &[u8]) -> Result<Option<u16>, WebSocketError> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok(None),
            _ => Err(WebSocketError::Protocol("half a status")),
        };
    };
    let code = u16::from_be_bytes(*code);
    // 1004 to 1006 and 1015 are never sent; 1012 to 1014 were assigned after the RFC.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(WebSocketError::Protocol("a status that is not to be sent"));
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(WebSocketError::Protocol("a reason that is not UTF-8"));
    }
    Ok(Some(code))
}

/// Masks a payload, or takes its mask off (RFC 6455, section 5.3).
fn apply_mask(mask: [u8; MASK_LEN], payload: &mut [u8]) {
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// Appends a binary message whose payload, at most [`RECORD_BODY_MAX`] bytes, `write` appends; `false`, and nothing is
/// appended, when `write` says so. `mask` is the key of a client's frame: 4 bytes that nobody can foresee.
pub fn append_message(
    out: &mut Vec<u8>,
    mask: Option<[u8; MASK_LEN]>,
    write: impl FnOnce(&mut Vec<u8>) -> bool,
) -> bool {
    let mask_len = mask.map_or(0, |mask| mask.len());
    let (from, head_max) = (out.len(), HEAD_U16 + mask_len);
    // The room of the longer head; a short payload moves into what it leaves.
    out.extend_from_slice(&[0; HEAD_U16 + MASK_LEN][..head_max]);
    if !write(out) {
        out.truncate(from);
        return false;
    }
    let payload = &mut out[from + head_max..];
    let payload_len = payload.len();
    let len = u16::try_from(payload_len).expect("a record body is at most 65,535 bytes");
    let mut mask_bit = 0;
    if let Some(mask) = mask {
        apply_mask(mask, payload);
        mask_bit = MASKED;
    }
    let first = FIN | opcode::BINARY;
    let head_len = match u8::try_from(len) {
        Ok(short @ ..LENGTH_U16) => {
            out[from..from + HEAD_SHORT].copy_from_slice(&[first, mask_bit | short]);
            HEAD_SHORT + mask_len
        }
        _ => {
            let [high, low] = len.to_be_bytes();
            out[from..from + HEAD_U16].copy_from_slice(&[first, mask_bit | LENGTH_U16, high, low]);
            head_max
        }
    };
    if let Some(mask) = mask {
        out[from + head_len - MASK_LEN..from + head_len].copy_from_slice(&mask);
    }
    if head_len < head_max {
        out.copy_within(from + head_max.., from + head_len);
        out.truncate(from + head_len + payload_len);
    }
    true
}

/// Appends a pong. `payload` is that of the ping: at most [`CONTROL_MAX`] bytes.
pub fn append_pong(out: &mut Vec<u8>, mask: Option<[u8; MASK_LEN]>, payload: &[u8]) {
    append_control(out, opcode::PONG, mask, payload);
}

/// Appends a close frame, with a status or without one.
pub fn append_close(out: &mut Vec<u8>, mask: Option<[u8; MASK_LEN]>, code: Option<u16>) {
    let payload = code.map(u16::to_be_bytes);
    append_control(out, opcode::CLOSE, mask, payload.as_ref().map_or(&[], |code| code));
}

fn append_control(out: &mut Vec<u8>, opcode: u8, mask: Option<[u8; MASK_LEN]>, payload: &[u8]) {
    debug_assert!(payload.len() <= CONTROL_MAX, "the payload of a control frame");
    let payload = &payload[..payload.len().min(CONTROL_MAX)];
    let len = u8::try_from(payload.len()).expect("cut to 125 bytes");
    out.extend_from_slice(&[FIN | opcode, if mask.is_some() { MASKED | len } else { len }]);
    out.extend_from_slice(mask.as_ref().map_or(&[], |mask| mask));
    let from = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        apply_mask(mask, &mut out[from..]);
    }
}

#[cfg(test)]
mod tests;
