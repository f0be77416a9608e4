//! Puts the fragments of messages together, one message per stream at a time, within a bound of the whole connection.

use super::{ConnectionError, stream_map::StreamMap};
use crate::wire::{
    FrameType,
    envelope::Source,
    frame::Frame,
    limits::{FRAME_PAYLOAD_MAX, MESSAGE_MAX, PARTIAL_BYTES_MAX, PARTIAL_STREAMS_MAX},
};
use bytes::Bytes;

/// Room for a message whose first fragment is full.
const EXPECTED_LEN: usize = 4 * FRAME_PAYLOAD_MAX + 1_024;

/// A whole message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// It came in one frame.
    InFrame(&'a [u8]),
    /// It was put together.
    Whole(Bytes),
}

impl Message<'_> {
    /// To read an envelope from.
    pub(super) fn source(&self) -> Source<'_> {
        match self {
            Self::InFrame(message) => Source::Borrowed(message),
            Self::Whole(message) => Source::Shared(message),
        }
    }
}

impl From<Message<'_>> for Bytes {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::InFrame(message) => Self::copy_from_slice(message),
            Message::Whole(message) => message,
        }
    }
}

/// Unfinished messages by stream, at most [`PARTIAL_STREAMS_MAX`]; 0 <= `bytes` <= [`PARTIAL_BYTES_MAX`], the sum of
/// their lengths.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    partial: StreamMap<(FrameType, Vec<u8>)>,
    bytes: usize,
}

impl Reassembly {
    /// Drops what came of a message of a stream that is closed.
    pub(super) fn forget(&mut self, stream: u32) {
        if !self.partial.is_empty()
            && let Some((_, message)) = self.partial.remove(stream)
        {
            self.bytes -= message.len();
        }
    }

    /// Takes a frame; gives the message when the frame ends it.
    pub(super) fn recv<'a>(&mut self, frame: &Frame<'a>) -> Result<Option<Message<'a>>, ConnectionError> {
        if self.partial.is_empty() {
            return self.begin(frame);
        }
        let Some((frame_type, message)) = self.partial.get_mut(frame.stream) else {
            return self.begin(frame);
        };
        if *frame_type != frame.frame_type {
            return Err(ConnectionError::Protocol("a fragment of another type inside a message"));
        }
        if message.len() + frame.payload.len() > MESSAGE_MAX {
            return Err(ConnectionError::Protocol("a message over its limit"));
        }
        message.extend_from_slice(frame.payload);
        self.bytes += frame.payload.len();
        if frame.has_more() {
            return self.check_bounds();
        }
        let message = Bytes::from(std::mem::take(message));
        self.bytes -= message.len();
        self.partial.remove(frame.stream);
        Ok(Some(Message::Whole(message)))
    }

    /// Takes the first frame of a message.
    fn begin<'a>(&mut self, frame: &Frame<'a>) -> Result<Option<Message<'a>>, ConnectionError> {
        if !frame.has_more() {
            return Ok(Some(Message::InFrame(frame.payload)));
        }
        // A full first fragment lets expect as much again: at most four times what has really arrived.
        let is_full = frame.payload.len() == FRAME_PAYLOAD_MAX;
        let mut message = Vec::with_capacity(if is_full { EXPECTED_LEN } else { 0 });
        message.extend_from_slice(frame.payload);
        self.bytes += message.len();
        self.partial.insert(frame.stream, (frame.frame_type, message));
        self.check_bounds()
    }

    fn check_bounds<'a>(&self) -> Result<Option<Message<'a>>, ConnectionError> {
        if self.bytes > PARTIAL_BYTES_MAX || self.partial.len() > PARTIAL_STREAMS_MAX {
            return Err(ConnectionError::Protocol("too much of unfinished messages"));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::FLAG_MORE;

    fn frame(stream: u32, more: bool, payload: &[u8]) -> Frame<'_> {
        let flags = if more { FLAG_MORE } else { 0 };
        Frame { frame_type: FrameType::RPC_CALL, flags, stream, payload }
    }

    #[test]
    fn fragments_of_streams_interleave() {
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.recv(&frame(1, true, b"ab")), Ok(None));
        assert_eq!(reassembly.recv(&frame(3, true, b"xy")), Ok(None));
        assert_eq!(reassembly.recv(&frame(5, false, b"!")), Ok(Some(Message::InFrame(b"!"))));
        assert_eq!(
            reassembly.recv(&frame(1, false, b"c")),
            Ok(Some(Message::Whole(Bytes::from_static(b"abc"))))
        );
        assert_eq!(
            reassembly.recv(&frame(3, false, b"z")),
            Ok(Some(Message::Whole(Bytes::from_static(b"xyz"))))
        );
        assert_eq!(reassembly.bytes, 0);
    }

    #[test]
    fn a_message_of_a_closed_stream_takes_no_room() {
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.recv(&frame(1, true, b"ab")), Ok(None));
        reassembly.forget(1);
        reassembly.forget(3);
        assert_eq!((reassembly.bytes, reassembly.partial.len()), (0, 0));
    }

    #[test]
    fn refuses_over_the_limits() {
        let piece = vec![0; 16_384];
        let mut reassembly = Reassembly::default();
        for _ in 0..MESSAGE_MAX / piece.len() {
            assert_eq!(reassembly.recv(&frame(1, true, &piece)), Ok(None));
        }
        assert_eq!(reassembly.bytes, MESSAGE_MAX);
        let over = reassembly.recv(&frame(1, false, b"x"));
        assert_eq!(over, Err(ConnectionError::Protocol("a message over its limit")));

        let mut reassembly = Reassembly::default();
        let result = (0..).map(|n| reassembly.recv(&frame(n * 2 + 1, true, b"x"))).find(Result::is_err);
        assert_eq!(result, Some(Err(ConnectionError::Protocol("too much of unfinished messages"))));
    }

    #[test]
    fn refuses_a_fragment_of_another_type() {
        let mut reassembly = Reassembly::default();
        reassembly.recv(&frame(1, true, b"x")).unwrap();
        let other = Frame { frame_type: FrameType::SUBSCRIBE, flags: 0, stream: 1, payload: b"y" };
        assert!(reassembly.recv(&other).is_err());
    }
}
