//! Frames: `type u8 | flags u8 | stream u32 | length u16 | payload` (specification, "Frames").

use super::{
    DecodeError, FrameType, Reader,
    limits::{FRAME_HEAD_LEN, FRAME_PAYLOAD_MAX},
};

/// More fragments of this message follow.
pub const FLAG_MORE: u8 = 0x01;
/// This HEARTBEAT is an echo.
pub const FLAG_ACK: u8 = 0x02;
/// This RPC_DATA is no item: the sender has no more of them.
pub const FLAG_END: u8 = 0x04;

/// Where the stream is in the head: behind type and flags.
const STREAM_AT: usize = 2;
/// Where the length is in the head: behind type, flags and stream.
const LENGTH_AT: usize = 6;

/// One frame, its payload borrowed from the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is; always one of the registry's types.
    pub frame_type: FrameType,
    /// MORE, ACK or END; only where the type has them.
    pub flags: u8,
    /// The stream, or 0 for the connection.
    pub stream: u32,
    /// At most [`FRAME_PAYLOAD_MAX`] bytes.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Takes one frame off the front of a record's plaintext.
    ///
    /// # Errors
    /// An unknown type, a flag the type does not have, a stream where there is none or none where there must be one, a
    /// payload over its limit, an empty fragment, or an input that ends early.
    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let [number, flags, a, b, c, d, length @ ..] = reader.array::<FRAME_HEAD_LEN>("frame head")?;
        let (stream, length) = (u32::from_be_bytes([a, b, c, d]), usize::from(u16::from_be_bytes(length)));
        let frame_type = FrameType(number);
        let kind = KINDS[usize::from(number)];
        if kind & KNOWN == 0 {
            return Err(DecodeError::UnknownFrameType(number));
        }
        if flags & !(kind & FLAGS) != 0 {
            return Err(DecodeError::InvalidFlags { frame_type: number, flags });
        }
        if (stream == 0) != (kind & ON_CONNECTION != 0) {
            return Err(DecodeError::InvalidValue("frame stream"));
        }
        if length > FRAME_PAYLOAD_MAX {
            return Err(DecodeError::TooLong("frame"));
        }
        let payload = reader.take(length, "frame payload")?;
        if flags != 0 {
            if flags & FLAG_MORE != 0 && payload.is_empty() {
                return Err(DecodeError::InvalidValue("empty fragment"));
            }
            if flags & FLAG_END != 0 && (flags != FLAG_END || !payload.is_empty()) {
                return Err(DecodeError::InvalidValue("END with an item"));
            }
        }
        Ok(Self { frame_type, flags, stream, payload })
    }

    /// Appends the frame to `out`.
    ///
    /// # Panics
    /// When the payload is longer than [`FRAME_PAYLOAD_MAX`]: a caller's fault, never a peer's.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.payload.len() <= FRAME_PAYLOAD_MAX, "a sender cuts messages into frames");
        let length = u16::try_from(self.payload.len()).expect("FRAME_PAYLOAD_MAX fits u16");
        let ([a, b, c, d], [high, low]) = (self.stream.to_be_bytes(), length.to_be_bytes());
        out.extend_from_slice(&[self.frame_type.0, self.flags, a, b, c, d, high, low]);
        out.extend_from_slice(self.payload);
    }

    /// Sets the length of the frame that `frame` is: its head with any length, and the payload behind it.
    ///
    /// # Panics
    /// As [`encode`](Self::encode).
    pub fn set_len(frame: &mut [u8]) {
        let (head, payload) =
            frame.split_first_chunk_mut::<FRAME_HEAD_LEN>().expect("a frame begins with its head");
        assert!(payload.len() <= FRAME_PAYLOAD_MAX, "a sender cuts messages into frames");
        let length = u16::try_from(payload.len()).expect("FRAME_PAYLOAD_MAX fits u16");
        head[LENGTH_AT..].copy_from_slice(&length.to_be_bytes());
    }

    /// Sets the stream of the frame that `frame` is.
    ///
    /// # Panics
    /// When there is no head.
    pub fn set_stream(frame: &mut [u8], stream: u32) {
        frame[STREAM_AT..LENGTH_AT].copy_from_slice(&stream.to_be_bytes());
    }

    /// How many bytes at the front of `frames`, which this side wrote, are whole frames and not more than `max`.
    #[must_use]
    pub fn whole_len(frames: &[u8], max: usize) -> usize {
        let mut end = 0;
        while let Some((head, rest)) = frames[end..].split_first_chunk::<FRAME_HEAD_LEN>() {
            let length = usize::from(u16::from_be_bytes([head[LENGTH_AT], head[LENGTH_AT + 1]]));
            if end + FRAME_HEAD_LEN + length > max || rest.len() < length {
                break;
            }
            end += FRAME_HEAD_LEN + length;
        }
        end
    }

    /// Bytes that [`encode`](Self::encode) appends.
    pub fn encoded_len(&self) -> usize {
        FRAME_HEAD_LEN + self.payload.len()
    }

    /// Whether more fragments of the same message follow.
    pub fn has_more(&self) -> bool {
        self.flags & FLAG_MORE != 0
    }
}

/// In [`KINDS`]: the flags of the type.
const FLAGS: u8 = FLAG_MORE | FLAG_ACK | FLAG_END;
/// In [`KINDS`]: a frame of the connection, with stream 0.
const ON_CONNECTION: u8 = 0x40;
/// In [`KINDS`]: the registry has it.
const KNOWN: u8 = 0x80;

/// What there is to know of each number of a type: looked up once for a frame, where asking the registry in turn is a chain of
/// comparisons for each question.
static KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let (mut number, mut at) = (0_u8, 0);
    while at < kinds.len() {
        let frame_type = FrameType(number);
        if frame_type.name().is_some() {
            let place = if frame_type.on_connection() { ON_CONNECTION } else { 0 };
            kinds[at] = KNOWN | place | allowed_flags(frame_type);
        }
        number = number.wrapping_add(1);
        at += 1;
    }
    kinds
};

const fn allowed_flags(frame_type: FrameType) -> u8 {
    match frame_type {
        FrameType::HEARTBEAT => FLAG_ACK,
        FrameType::RPC_DATA => FLAG_MORE | FLAG_END,
        _ if frame_type.may_fragment() => FLAG_MORE,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Frame<'_>, DecodeError> {
        let mut reader = Reader::new(bytes);
        let frame = Frame::decode(&mut reader)?;
        reader.finish("frame")?;
        Ok(frame)
    }

    #[test]
    fn has_the_layout_of_the_specification() {
        let frame = Frame { frame_type: FrameType::RPC_CALL, flags: FLAG_MORE, stream: 7, payload: b"xyz" };
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        //                  type  flags stream      length payload
        assert_eq!(bytes, [0x10, 0x01, 0, 0, 0, 7, 0, 3, b'x', b'y', b'z']);
        assert_eq!(bytes.len(), frame.encoded_len());
        assert_eq!(decode(&bytes), Ok(frame));
    }

    #[test]
    fn refuses_what_the_specification_does_not_allow() {
        assert_eq!(decode(&[0x77, 0, 0, 0, 0, 1, 0, 0]), Err(DecodeError::UnknownFrameType(0x77)));
        assert_eq!(
            decode(&[0x13, 1, 0, 0, 0, 1, 0, 0]),
            Err(DecodeError::InvalidFlags { frame_type: 0x13, flags: 1 })
        );
        assert_eq!(
            decode(&[0x10, 0x80, 0, 0, 0, 1, 0, 0]),
            Err(DecodeError::InvalidFlags { frame_type: 0x10, flags: 0x80 })
        );
        assert_eq!(decode(&[0x10, 0, 0, 0, 0, 0, 0, 0]), Err(DecodeError::InvalidValue("frame stream")));
        assert_eq!(decode(&[0x30, 0, 0, 0, 0, 1, 0, 0]), Err(DecodeError::InvalidValue("frame stream")));
        assert_eq!(decode(&[0x10, 1, 0, 0, 0, 1, 0, 0]), Err(DecodeError::InvalidValue("empty fragment")));
        assert_eq!(decode(&[0x10, 0, 0, 0, 0, 1, 0x40, 1]), Err(DecodeError::TooLong("frame")));
        assert_eq!(decode(&[0x10, 0, 0, 0, 0, 1, 0, 2, 9]), Err(DecodeError::Truncated("frame payload")));
    }

    #[test]
    fn every_cut_is_truncated() {
        let mut bytes = Vec::new();
        Frame { frame_type: FrameType::EVENT, flags: 0, stream: 1, payload: b"abcdef" }.encode(&mut bytes);
        for len in 0..bytes.len() {
            assert!(matches!(decode(&bytes[..len]), Err(DecodeError::Truncated(_))), "{len}");
        }
    }
}
