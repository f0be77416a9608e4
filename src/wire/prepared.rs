//! An EVENT that is written once and sent to many.

use super::{
    FrameType,
    envelope::{ENVELOPE_ROOM, Encode, Event},
    flatbuffer::Table,
    frame::Frame,
    limits::{FRAME_HEAD_LEN, FRAME_PAYLOAD_MAX},
};
use bytes::Bytes;
use raystream_schema::Event as Slot;

/// An EVENT for all subscriptions that are told the same: they differ in [`Event::lag`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedEvent {
    /// The message behind the head of its frame, which counts when one frame is enough.
    frame: Vec<u8>,
    /// Where in `frame` the four bytes of `lag` are.
    lag_at: usize,
}

/// A [`PreparedEvent`] for one subscription.
#[derive(Clone, Copy, Debug)]
pub struct LaggingEvent<'a> {
    prepared: &'a PreparedEvent,
    lag: u32,
}

impl PreparedEvent {
    /// Writes the event, whatever its lag is.
    pub fn new(event: Event) -> Self {
        let head = Frame { frame_type: FrameType::EVENT, flags: 0, stream: 0, payload: &[] };
        let mut frame = Vec::with_capacity(FRAME_HEAD_LEN + event.content_len() + ENVELOPE_ROOM);
        head.encode(&mut frame);
        // A lag of zero would be left out, and with it the place.
        Event { lag: u32::MAX, ..event }.encode(&mut frame);
        frame.shrink_to_fit();
        let message = &frame[FRAME_HEAD_LEN..];
        let lag_at = Table::root(message).ok().and_then(|table| table.place(Slot::VT_LAG));
        let lag_at = FRAME_HEAD_LEN + lag_at.expect("it was just written");
        if message.len() <= FRAME_PAYLOAD_MAX {
            Frame::set_len(&mut frame);
        }
        Self { frame, lag_at }
    }

    fn message(&self) -> &[u8] {
        &self.frame[FRAME_HEAD_LEN..]
    }

    /// Bytes of the frame that it is sent in; `None` when it takes several.
    pub fn frame_len(&self) -> Option<usize> {
        (self.message().len() <= FRAME_PAYLOAD_MAX).then_some(self.frame.len())
    }

    /// Appends the frame for one subscription to `out`, with the number of its stream and its lag.
    ///
    /// # Panics
    /// When it takes several frames: [`frame_len`](Self::frame_len) says so.
    pub fn encode_frame(&self, stream: u32, lag: u32, out: &mut Vec<u8>) {
        assert!(self.frame_len().is_some(), "a long message is cut into frames by its sender");
        let start = out.len();
        out.extend_from_slice(&self.frame);
        let frame = &mut out[start..];
        Frame::set_stream(frame, stream);
        frame[self.lag_at..][..size_of::<u32>()].copy_from_slice(&lag.to_le_bytes());
    }

    /// The event for a subscription in which so many wait behind it.
    pub fn with_lag(&self, lag: u32) -> LaggingEvent<'_> {
        LaggingEvent { prepared: self, lag }
    }
}

impl Encode for LaggingEvent<'_> {
    fn content_len(&self) -> usize {
        self.prepared.message().len()
    }

    fn encode_head(&self, out: &mut Vec<u8>) -> Option<&Bytes> {
        let lag = self.lag.to_le_bytes();
        let place = out.len() + self.prepared.lag_at - FRAME_HEAD_LEN;
        out.extend_from_slice(self.prepared.message());
        out[place..place + lag.len()].copy_from_slice(&lag);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::envelope::{Envelope, EventKind};

    #[test]
    fn is_the_event_with_any_lag() {
        let event = Event {
            cursor: "c".into(),
            kind: EventKind::Update,
            id: "i".into(),
            data: Some(Bytes::from_static(b"{}")),
            old: Some(Bytes::from_static(br#"{"a":1}"#)),
            version: 3,
            dropped: 0,
            omitted: 0,
            lag: 9,
        };
        let prepared = PreparedEvent::new(event.clone());
        for lag in [0, 1, 77, u32::MAX] {
            // Behind something else, as in a buffer of frames.
            let mut out = vec![7; 3];
            prepared.with_lag(lag).encode(&mut out);
            let read = Event::decode(&Bytes::copy_from_slice(&out[3..])).expect("an event");
            assert_eq!(read, Event { lag, ..event.clone() });
            assert_eq!(prepared.frame_len(), Some(FRAME_HEAD_LEN + out.len() - 3));
            let (mut framed, mut expected) = (vec![7], vec![7]);
            prepared.encode_frame(0x0102_0304, lag, &mut framed);
            let frame_type = FrameType::EVENT;
            Frame { frame_type, flags: 0, stream: 0x0102_0304, payload: &out[3..] }.encode(&mut expected);
            assert_eq!(framed, expected);
        }
        let data = Some(Bytes::from(vec![b' '; FRAME_PAYLOAD_MAX]));
        assert_eq!(PreparedEvent::new(Event { data, ..event }).frame_len(), None);
    }
}
