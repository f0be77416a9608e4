//! What waits to be sent: control frames first, then messages, cut into frames that take turns by stream.

use crate::wire::{
    FrameType,
    frame::{FLAG_MORE, Frame},
    limits::{FRAME_HEAD_LEN, FRAME_PAYLOAD_MAX},
};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};

/// A message and how much of it is sent.
#[derive(Debug)]
struct Queued {
    stream: u32,
    frame_type: FrameType,
    message: Bytes,
    sent: usize,
}

impl Queued {
    fn rest(&self) -> usize {
        self.message.len() - self.sent
    }
}

/// The queue. Messages of one stream leave in order and do not interleave; messages of different streams do.
///
/// A message that fits a frame goes straight to `ready`. A longer one makes its stream busy: what follows on that
/// stream waits in `behind` until the last fragment is out.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    control: VecDeque<(FrameType, u8, u32, Vec<u8>)>,
    ready: VecDeque<Queued>,
    behind: HashMap<u32, VecDeque<Queued>>,
    /// Bytes of payload in `ready` and `behind` that are not sent.
    bytes: usize,
}

impl Outbound {
    /// Queues a control frame: a payload of a few bytes, ahead of messages.
    pub(super) fn push_control(&mut self, frame_type: FrameType, flags: u8, stream: u32, payload: Vec<u8>) {
        self.control.push_back((frame_type, flags, stream, payload));
    }

    /// Queues a message.
    pub(super) fn push(&mut self, stream: u32, frame_type: FrameType, message: Bytes) {
        self.bytes += message.len();
        let queued = Queued { stream, frame_type, message, sent: 0 };
        if let Some(behind) = self.behind.get_mut(&stream) {
            behind.push_back(queued);
            return;
        }
        self.make_ready(queued);
    }

    fn make_ready(&mut self, queued: Queued) {
        if queued.message.len() > FRAME_PAYLOAD_MAX {
            self.behind.entry(queued.stream).or_default();
        }
        self.ready.push_back(queued);
    }

    /// Appends frames to `plaintext` until nothing is left or the next frame would pass `max` bytes in all.
    pub(super) fn pop_frames(&mut self, plaintext: &mut Vec<u8>, max: usize) {
        let start = plaintext.len();
        let room = |plaintext: &Vec<u8>| max - (plaintext.len() - start);
        while let Some((_, _, _, payload)) = self.control.front() {
            if FRAME_HEAD_LEN + payload.len() > room(plaintext) {
                return;
            }
            let (frame_type, flags, stream, payload) = self.control.pop_front().expect("there is a front");
            Frame { frame_type, flags, stream, payload: &payload }.encode(plaintext);
        }
        while let Some(front) = self.ready.front() {
            let len = front.rest().min(FRAME_PAYLOAD_MAX);
            if FRAME_HEAD_LEN + len > room(plaintext) {
                return;
            }
            let mut queued = self.ready.pop_front().expect("there is a front");
            self.pop_frame(&mut queued, len, plaintext);
            if queued.rest() > 0 {
                self.ready.push_back(queued);
            } else if queued.message.len() > FRAME_PAYLOAD_MAX {
                self.end_busy(queued.stream);
            }
        }
    }

    fn pop_frame(&mut self, queued: &mut Queued, len: usize, plaintext: &mut Vec<u8>) {
        let end = queued.sent + len;
        let flags = if end < queued.message.len() { FLAG_MORE } else { 0 };
        let payload = &queued.message[queued.sent..end];
        Frame { frame_type: queued.frame_type, flags, stream: queued.stream, payload }.encode(plaintext);
        queued.sent = end;
        self.bytes -= len;
    }

    /// The long message of `stream` is out: what waited behind it moves up, to the next long one.
    fn end_busy(&mut self, stream: u32) {
        let mut waiting = self.behind.remove(&stream).unwrap_or_default();
        while let Some(queued) = waiting.pop_front() {
            let long = queued.message.len() > FRAME_PAYLOAD_MAX;
            self.make_ready(queued);
            if long {
                self.behind.insert(stream, waiting);
                return;
            }
        }
    }

    /// Control frames that wait.
    pub(super) fn control_len(&self) -> usize {
        self.control.len()
    }

    /// Payload bytes of messages that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.ready.is_empty()
    }

    /// Drops everything, because the connection is over.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Reader;

    fn drain(outbound: &mut Outbound, max: usize) -> Vec<(FrameType, u32, bool, usize)> {
        let mut frames = Vec::new();
        while !outbound.is_empty() {
            let mut plaintext = Vec::new();
            outbound.pop_frames(&mut plaintext, max);
            assert!(plaintext.len() <= max && !plaintext.is_empty());
            let mut reader = Reader::new(&plaintext);
            while !reader.is_empty() {
                let frame = Frame::decode(&mut reader).unwrap();
                frames.push((frame.frame_type, frame.stream, frame.has_more(), frame.payload.len()));
            }
        }
        assert_eq!(outbound.bytes(), 0);
        assert!(outbound.behind.is_empty());
        frames
    }

    #[test]
    fn a_long_message_lets_others_in_and_keeps_its_own_stream_in_order() {
        use FrameType as F;
        let mut outbound = Outbound::default();
        outbound.push(1, F::RPC_RESPONSE, Bytes::from(vec![0; 2 * FRAME_PAYLOAD_MAX + 1]));
        outbound.push(1, F::EVENT, Bytes::from_static(b"behind"));
        outbound.push(1, F::EVENT, Bytes::from(vec![0; FRAME_PAYLOAD_MAX + 1]));
        outbound.push(1, F::EVENT, Bytes::from_static(b"last"));
        outbound.push(3, F::RPC_RESPONSE, Bytes::from_static(b"quick"));
        outbound.push_control(F::HEARTBEAT, 0, 0, vec![0; 8]);
        assert_eq!(
            drain(&mut outbound, 65_519),
            [
                (F::HEARTBEAT, 0, false, 8),
                (F::RPC_RESPONSE, 1, true, FRAME_PAYLOAD_MAX),
                (F::RPC_RESPONSE, 3, false, 5),
                (F::RPC_RESPONSE, 1, true, FRAME_PAYLOAD_MAX),
                (F::RPC_RESPONSE, 1, false, 1),
                (F::EVENT, 1, false, 6),
                (F::EVENT, 1, true, FRAME_PAYLOAD_MAX),
                (F::EVENT, 1, false, 1),
                (F::EVENT, 1, false, 4),
            ]
        );
    }

    #[test]
    fn records_are_filled_to_their_limit() {
        let mut outbound = Outbound::default();
        for stream in 0..100 {
            outbound.push(stream * 2 + 1, FrameType::RPC_CALL, Bytes::from_static(&[0; 92]));
        }
        let mut plaintext = Vec::new();
        outbound.pop_frames(&mut plaintext, 250);
        assert_eq!(plaintext.len(), 200);
        assert_eq!(drain(&mut outbound, 250).len(), 98);
    }
}
