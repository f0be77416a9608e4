//! An EVENT that is written once and sent to many.

use super::{
    envelope::{Encode, Event},
    flatbuffer::Table,
    limits::{FRAME_HEAD_LEN, FRAME_PAYLOAD_MAX},
};
use bytes::Bytes;
use raystream_schema::Event as Slot;

/// An EVENT for all subscriptions that are told the same: they differ in [`Event::lag`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedEvent {
    message: Bytes,
    /// Where in the message the four bytes of `lag` are.
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
        // A lag of zero would be left out, and with it the place.
        let message = Event { lag: u32::MAX, ..event }.to_bytes();
        let table = Table::root(&message).ok();
        let lag_at = table.and_then(|table| table.place(Slot::VT_LAG)).expect("it was just written");
        Self { message, lag_at }
    }

    /// Bytes of the frame that it is sent in; `None` when it takes several.
    pub fn frame_len(&self) -> Option<usize> {
        let len = self.message.len();
        (len <= FRAME_PAYLOAD_MAX).then_some(FRAME_HEAD_LEN + len)
    }

    /// The event for a subscription in which so many wait behind it.
    pub fn with_lag(&self, lag: u32) -> LaggingEvent<'_> {
        LaggingEvent { prepared: self, lag }
    }
}

impl Encode for LaggingEvent<'_> {
    fn content_len(&self) -> usize {
        self.prepared.message.len()
    }

    fn encode_head(&self, out: &mut Vec<u8>) -> Option<&Bytes> {
        let lag = self.lag.to_le_bytes();
        let place = out.len() + self.prepared.lag_at;
        out.extend_from_slice(&self.prepared.message);
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
        }
        let data = Some(Bytes::from(vec![b' '; FRAME_PAYLOAD_MAX]));
        assert_eq!(PreparedEvent::new(Event { data, ..event }).frame_len(), None);
    }
}
