//! What waits to be sent: control frames first, then messages, cut into frames that take turns by stream, no more of
//! them at once than a receiver holds unfinished.

use super::stream_map::StreamMap;
use crate::wire::{
    FrameType,
    envelope::{ENVELOPE_ROOM, Encode},
    frame::{FLAG_END, FLAG_MORE, Frame},
    limits::{
        FRAME_HEAD_LEN, FRAME_PAYLOAD_MAX, PARTIAL_BYTES_MAX, PARTIAL_STREAMS_MAX, RECORD_PLAINTEXT_MAX,
    },
    prepared::PreparedEvent,
};
use bytes::Bytes;
use std::collections::VecDeque;

/// A message in two pieces: what goes before its document was written for it, and the document is its owner's, not a copy.
#[derive(Debug)]
struct Message {
    head: Vec<u8>,
    document: Bytes,
}

impl Message {
    fn new(message: &impl Encode) -> Self {
        let mut head = Vec::with_capacity(ENVELOPE_ROOM);
        let document = message.encode_head(&mut head).cloned().unwrap_or_default();
        Self { head, document }
    }

    fn len(&self) -> usize {
        self.head.len() + self.document.len()
    }

    /// Appends the bytes from `from` to `to`.
    fn append(&self, from: usize, to: usize, out: &mut Vec<u8>) {
        let of_head = self.head.len();
        out.extend_from_slice(&self.head[from.min(of_head)..to.min(of_head)]);
        let of_document = |at: usize| at.saturating_sub(of_head);
        out.extend_from_slice(&self.document[of_document(from)..of_document(to)]);
    }
}

impl From<Bytes> for Message {
    fn from(document: Bytes) -> Self {
        Self { head: Vec::new(), document }
    }
}

/// A message and how much of it is sent.
#[derive(Debug)]
struct Queued {
    stream: u32,
    frame_type: FrameType,
    message: Message,
    sent: usize,
    /// Of its last frame.
    flags: u8,
    /// Whether it made its stream busy.
    holds_stream: bool,
}

impl Queued {
    fn rest(&self) -> usize {
        self.message.len() - self.sent
    }

    /// Whether it takes more than one frame.
    fn is_long(&self) -> bool {
        self.message.len() > FRAME_PAYLOAD_MAX
    }
}

/// Appends a frame with a part of a message.
fn encode_frame(head: Frame<'_>, message: &Message, from: usize, to: usize, out: &mut Vec<u8>) {
    let start = out.len();
    head.encode(out);
    message.append(from, to, out);
    Frame::set_len(&mut out[start..]);
}

/// Whether a message opens a stream: the numbers of streams have to go up in the order of their first frames.
fn opens_stream(frame_type: FrameType) -> bool {
    matches!(frame_type, FrameType::RPC_CALL | FrameType::SUBSCRIBE | FrameType::PUBLISH)
}

/// Frames of short messages, written one behind the other: they leave as they are.
#[derive(Debug, Default)]
struct Run {
    frames: Vec<u8>,
    /// Bytes that are sent: up to the start of a frame.
    sent: usize,
}

/// What takes its turn.
#[derive(Debug)]
enum Ready {
    Run(Run),
    Long(Queued),
}

/// What a run keeps of its memory on a connection that is at rest.
const RUN_KEPT: usize = 256;
/// The same on a busy one, which would give it back and ask for it again with each record: the frames of one, in memory that
/// grows by doubling.
const RUN_KEPT_BUSY: usize = 2 * RECORD_PLAINTEXT_MAX;

/// The queue. Messages of one stream leave in order and do not interleave; messages of different streams do.
///
/// A message that fits a frame is written to the run at the end of `ready`, as the frame that it will be. A longer one makes
/// its stream busy: what follows on that stream waits in `behind` until the last fragment is out. Of the longer ones only
/// so many take turns as the receiver may hold unfinished; the others wait in `waiting`, and with them every later message
/// that opens a stream.
#[derive(Debug)]
pub(super) struct Outbound {
    control: VecDeque<(FrameType, u8, u32, Vec<u8>)>,
    ready: VecDeque<Ready>,
    /// An empty run, for the next short message.
    spare: Run,
    /// Not empty only while `ready` holds a long message.
    waiting: VecDeque<Queued>,
    /// By busy stream.
    behind: StreamMap<VecDeque<Queued>>,
    /// Long messages in `ready`: at most [`PARTIAL_STREAMS_MAX`], of at most [`PARTIAL_BYTES_MAX`] bytes.
    long_in_turn: usize,
    long_in_turn_bytes: usize,
    /// Bytes that are not sent, control frames aside: the payload of long messages, the frames of short ones.
    bytes: usize,
}

impl Default for Outbound {
    /// With room for one of each: an idle connection keeps it, and most never have two at once.
    fn default() -> Self {
        Self {
            control: VecDeque::with_capacity(1),
            ready: VecDeque::with_capacity(1),
            spare: Run::default(),
            waiting: VecDeque::new(),
            behind: StreamMap::default(),
            long_in_turn: 0,
            long_in_turn_bytes: 0,
            bytes: 0,
        }
    }
}

impl Outbound {
    /// Queues a control frame: a payload of a few bytes, ahead of messages.
    pub(super) fn push_control(&mut self, frame_type: FrameType, flags: u8, stream: u32, payload: Vec<u8>) {
        self.control.push_back((frame_type, flags, stream, payload));
    }

    /// Queues a message.
    pub(super) fn push(&mut self, stream: u32, frame_type: FrameType, message: Bytes) {
        self.enqueue(Queued {
            stream,
            frame_type,
            message: message.into(),
            sent: 0,
            flags: 0,
            holds_stream: false,
        });
    }

    /// Queues the end of a stream's items, behind them.
    pub(super) fn push_end(&mut self, stream: u32) {
        let (frame_type, flags, message) = (FrameType::RPC_DATA, FLAG_END, Bytes::new().into());
        self.enqueue(Queued { stream, frame_type, message, sent: 0, flags, holds_stream: false });
    }

    /// Writes a message and queues it; `false` when it has more than `max` bytes.
    pub(super) fn write(
        &mut self,
        stream: u32,
        frame_type: FrameType,
        message: &impl Encode,
        max: usize,
    ) -> bool {
        let waits = self.behind.contains(stream)
            || (opens_stream(frame_type) && !self.waiting.is_empty())
            || message.content_len() > FRAME_PAYLOAD_MAX;
        if waits {
            let message = Message::new(message);
            let fits = message.len() <= max;
            if fits {
                let (sent, flags, holds_stream) = (0, 0, false);
                self.enqueue(Queued { stream, frame_type, message, sent, flags, holds_stream });
            }
            return fits;
        }
        let run = self.last_run();
        let start = run.frames.len();
        let payload = start + FRAME_HEAD_LEN;
        Frame { frame_type, flags: 0, stream, payload: &[] }.encode(&mut run.frames);
        message.encode(&mut run.frames);
        let len = run.frames.len() - payload;
        if len > FRAME_PAYLOAD_MAX || len > max {
            // What is not in its documents is long.
            let message = Bytes::from(run.frames.split_off(payload));
            run.frames.truncate(start);
            let fits = len <= max;
            if fits {
                self.push(stream, frame_type, message);
            }
            return fits;
        }
        Frame::set_len(&mut run.frames[start..]);
        self.bytes += FRAME_HEAD_LEN + len;
        true
    }

    /// Queues an event that was written for many; `false` when it has more than `max` bytes.
    pub(super) fn write_prepared(
        &mut self,
        stream: u32,
        event: &PreparedEvent,
        lag: u32,
        max: usize,
    ) -> bool {
        let fits = |len: &usize| *len <= FRAME_HEAD_LEN.saturating_add(max);
        match event.frame_len().filter(fits) {
            Some(len) if !self.behind.contains(stream) => {
                event.encode_frame(stream, lag, &mut self.last_run().frames);
                self.bytes += len;
                true
            }
            _ => self.write(stream, FrameType::EVENT, &event.with_lag(lag), max),
        }
    }

    /// Makes room for short messages with so many bytes in their frames, as far as they fit a record.
    pub(super) fn make_room(&mut self, bytes: usize) {
        let run = match self.ready.back_mut() {
            Some(Ready::Run(run)) => run,
            _ => &mut self.spare,
        };
        run.frames.reserve(bytes.min(RECORD_PLAINTEXT_MAX));
    }

    fn enqueue(&mut self, mut queued: Queued) {
        let stream = queued.stream;
        if let Some(behind) = self.behind.get_mut(stream) {
            self.bytes += queued.message.len();
            behind.push_back(queued);
        } else if queued.is_long() || (opens_stream(queued.frame_type) && !self.waiting.is_empty()) {
            self.bytes += queued.message.len();
            queued.holds_stream = true;
            self.behind.insert(stream, VecDeque::new());
            self.waiting.push_back(queued);
            self.let_waiting_in();
        } else {
            self.append(&queued);
        }
    }

    /// The run at the end of the queue.
    fn last_run(&mut self) -> &mut Run {
        if !matches!(self.ready.back(), Some(Ready::Run(_))) {
            self.ready.push_back(Ready::Run(std::mem::take(&mut self.spare)));
        }
        match self.ready.back_mut() {
            Some(Ready::Run(run)) => run,
            _ => unreachable!("a run was just put there"),
        }
    }

    /// Writes the frame of a message that fits one.
    fn append(&mut self, queued: &Queued) {
        let Queued { frame_type, flags, stream, .. } = *queued;
        self.bytes += FRAME_HEAD_LEN + queued.message.len();
        let out = &mut self.last_run().frames;
        encode_frame(
            Frame { frame_type, flags, stream, payload: &[] },
            &queued.message,
            0,
            queued.rest(),
            out,
        );
    }

    /// Moves messages from `waiting` to `ready`, in order, as far as the receiver's limits allow.
    fn let_waiting_in(&mut self) {
        while let Some(front) = self.waiting.front() {
            if front.is_long() {
                let bytes = self.long_in_turn_bytes + front.message.len();
                if self.long_in_turn >= PARTIAL_STREAMS_MAX || bytes > PARTIAL_BYTES_MAX {
                    return;
                }
                self.long_in_turn += 1;
                self.long_in_turn_bytes = bytes;
            }
            self.ready.extend(self.waiting.pop_front().map(Ready::Long));
        }
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
        while let Some(front) = self.ready.front_mut() {
            let room = room(plaintext);
            let queued = match front {
                Ready::Run(run) => {
                    let rest = &run.frames[run.sent..];
                    let len = if rest.len() <= room { rest.len() } else { Frame::whole_len(rest, room) };
                    plaintext.extend_from_slice(&rest[..len]);
                    run.sent += len;
                    self.bytes -= len;
                    if run.sent < run.frames.len() {
                        return;
                    }
                    self.keep_run();
                    continue;
                }
                Ready::Long(queued) => queued,
            };
            let len = queued.rest().min(FRAME_PAYLOAD_MAX);
            if FRAME_HEAD_LEN + len > room {
                return;
            }
            let Some(Ready::Long(mut queued)) = self.ready.pop_front() else {
                unreachable!("it was the front")
            };
            self.pop_frame(&mut queued, len, plaintext);
            if queued.rest() > 0 {
                self.ready.push_back(Ready::Long(queued));
            } else {
                self.end_message(&queued);
            }
        }
    }

    /// Takes the run off the front, which is sent, and keeps some of its memory.
    fn keep_run(&mut self) {
        if let Some(Ready::Run(mut run)) = self.ready.pop_front()
            && run.frames.capacity() <= RUN_KEPT_BUSY
        {
            run.frames.clear();
            self.spare = Run { frames: run.frames, sent: 0 };
        }
    }

    fn pop_frame(&mut self, queued: &mut Queued, len: usize, plaintext: &mut Vec<u8>) {
        let end = queued.sent + len;
        let flags = if end < queued.message.len() { FLAG_MORE } else { queued.flags };
        let head = Frame { frame_type: queued.frame_type, flags, stream: queued.stream, payload: &[] };
        encode_frame(head, &queued.message, queued.sent, end, plaintext);
        queued.sent = end;
        self.bytes -= len;
    }

    /// The last frame of a message is out: others may take its turn, and what waited behind it on its stream moves up,
    /// to the next long one.
    fn end_message(&mut self, ended: &Queued) {
        if !ended.holds_stream {
            return;
        }
        if ended.is_long() {
            self.long_in_turn -= 1;
            self.long_in_turn_bytes -= ended.message.len();
        }
        let mut behind = self.behind.remove(ended.stream).unwrap_or_default();
        while let Some(mut queued) = behind.pop_front() {
            if queued.is_long() {
                queued.holds_stream = true;
                self.behind.insert(ended.stream, behind);
                self.waiting.push_back(queued);
                break;
            }
            self.bytes -= queued.message.len();
            self.append(&queued);
        }
        self.let_waiting_in();
    }

    /// Gives back what it keeps for a busy connection.
    pub(super) fn rest(&mut self) {
        if self.spare.frames.capacity() > RUN_KEPT {
            self.spare = Run::default();
        }
    }

    /// Control frames that wait.
    pub(super) fn control_len(&self) -> usize {
        self.control.len()
    }

    /// Bytes of messages that wait.
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
    use std::collections::HashMap;

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
        assert_eq!((outbound.bytes(), outbound.long_in_turn, outbound.long_in_turn_bytes), (0, 0, 0));
        assert!(outbound.behind.is_empty() && outbound.waiting.is_empty());
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

    /// Sends `messages` and gives the most streams, and the most bytes, that the receiver held unfinished.
    fn most_unfinished(messages: &[(u32, usize)]) -> (usize, usize) {
        let mut outbound = Outbound::default();
        for (stream, len) in messages {
            outbound.push(*stream, FrameType::RPC_CALL, Bytes::from(vec![0; *len]));
        }
        let (mut unfinished, mut most, mut last_opened) = (HashMap::new(), (0, 0), 0);
        for (_, stream, has_more, len) in drain(&mut outbound, 65_519) {
            if !unfinished.contains_key(&stream) {
                assert!(stream > last_opened, "stream {stream} is opened after {last_opened}");
                last_opened = stream;
            }
            *unfinished.entry(stream).or_insert(0) += len;
            if !has_more {
                unfinished.remove(&stream);
            }
            most = (unfinished.len().max(most.0), unfinished.values().sum::<usize>().max(most.1));
        }
        most
    }

    #[test]
    fn no_more_is_under_way_than_a_receiver_holds_unfinished() {
        let streams = |count: u32, len| (0..count).map(|n| (n * 2 + 1, len)).collect::<Vec<_>>();
        let (_, bytes) = most_unfinished(&streams(5, 1 << 20));
        assert!(bytes <= PARTIAL_BYTES_MAX, "{bytes}");
        let (count, _) = most_unfinished(&streams(200, FRAME_PAYLOAD_MAX + 1));
        assert_eq!(count, PARTIAL_STREAMS_MAX);
        // A short message that opens a stream does not overtake a long one that waits; one after it on its stream waits
        // with it.
        let mixed: Vec<_> = streams(9, 1 << 20)
            .into_iter()
            .flat_map(|(stream, len)| [(stream * 2, len), (stream * 2 + 1, 9)])
            .collect();
        most_unfinished(&mixed);
    }

    #[test]
    fn answers_do_not_wait_for_long_ones_that_wait() {
        let mut outbound = Outbound::default();
        for stream in [1, 3, 5] {
            outbound.push(stream, FrameType::RPC_RESPONSE, Bytes::from(vec![0; 1 << 20]));
        }
        outbound.push(7, FrameType::RPC_RESPONSE, Bytes::from_static(b"quick"));
        let frames = drain(&mut outbound, 65_519);
        assert_eq!(frames.iter().position(|frame| frame.1 == 7), Some(2));
        assert_eq!(frames.iter().position(|frame| frame.1 == 5), Some(129));
    }

    #[test]
    fn a_connection_at_rest_keeps_little() {
        let mut outbound = Outbound::default();
        let send = |outbound: &mut Outbound, messages: u32, len| {
            for stream in 0..messages {
                outbound.push(stream * 2 + 1, FrameType::RPC_CALL, Bytes::from(vec![0; len]));
            }
            drain(outbound, RECORD_PLAINTEXT_MAX);
            outbound.spare.frames.capacity()
        };
        assert!((1..=RUN_KEPT).contains(&send(&mut outbound, 1, 100)));
        for messages in [64, 400, 600] {
            assert!(send(&mut outbound, messages, 100) >= 600 * 10, "it is needed again at once");
        }
        outbound.rest();
        assert!(outbound.spare.frames.capacity() <= RUN_KEPT);
        assert!(send(&mut outbound, 1_000, 200) <= RUN_KEPT_BUSY, "that was more than a record");
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
