//! The server's view of the streams that a client opens.
//!
//! ```text
//!        RPC_CALL | PUBLISH          RPC_RESPONSE | RPC_ERROR
//!   idle ───────────────▶ Call ──────────────────────────────▶ closed
//!            SUBSCRIBE               UNSUBSCRIBE | RPC_ERROR
//!   idle ───────────────▶ Subscription ──────────────────────▶ closed
//! ```
//! A message in fragments is `Receiving` until its last one. Frames of the client on a closed stream crossed the
//! server's answer on the way and are ignored; on a stream it never opened they are a PROTOCOL_ERROR.

use super::{is_client_stream, items::Items};
use crate::conn::{
    ApiMisuse, ConnectionError, Event, Limits,
    reassembly::{Message, Reassembly},
    stream_map::StreamMap,
};
use crate::wire::{
    ErrorCode, FrameType,
    control::Credit,
    envelope::{Envelope, Publish, RpcCall, Subscribe},
    frame::{FLAG_END, Frame},
    limits::CREDIT_MAX,
};
use std::collections::VecDeque;

#[derive(Debug, PartialEq, Eq)]
enum State {
    Receiving,
    Call {
        is_cancelled: bool,
        items: Items,
    },
    Subscription {
        /// Items that may be sent; at most [`CREDIT_MAX`].
        credit: u32,
        /// Whether SUBSCRIBED is sent, which goes before the first item.
        is_live: bool,
    },
}

/// What a frame of the client amounts to.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::conn) enum Received {
    /// More fragments are needed, or the frame came too late to matter.
    Nothing,
    /// An event was added. A call is long, and not moved through all who hand it on.
    Event,
    /// To be answered with CANCELLED.
    Unsubscribe(u32),
    /// To be answered with this error: the stream is closed already.
    Refuse(u32, ErrorCode, &'static str),
}

/// Every open stream; the counts are those of `streams`.
#[derive(Debug)]
pub(in crate::conn) struct ServerStreams {
    streams: StreamMap<State>,
    /// The highest stream the client has opened.
    last: u32,
    calls: u16,
    subscriptions: u16,
    calls_max: u16,
    subscriptions_max: u16,
    partial: Reassembly,
    /// After GOAWAY: the last stream that was taken.
    going_away_after: Option<u32>,
}

impl ServerStreams {
    pub(in crate::conn) fn new(limits: &Limits) -> Self {
        Self {
            streams: StreamMap::default(),
            last: 0,
            calls: 0,
            subscriptions: 0,
            calls_max: limits.calls_max,
            subscriptions_max: limits.subscriptions_max,
            partial: Reassembly::default(),
            going_away_after: None,
        }
    }

    /// Takes no stream that opens after this; gives the last one that was taken.
    pub(in crate::conn) fn go_away(&mut self) -> u32 {
        *self.going_away_after.get_or_insert(self.last)
    }

    pub(in crate::conn) fn open(&self) -> usize {
        self.streams.len()
    }

    /// Takes a frame of a stream, and adds what it tells to `events`.
    #[inline]
    pub(in crate::conn) fn recv(
        &mut self,
        frame: &Frame<'_>,
        events: &mut VecDeque<Event>,
    ) -> Result<Received, ConnectionError> {
        let event = match frame.frame_type {
            FrameType::RPC_CALL | FrameType::SUBSCRIBE | FrameType::PUBLISH => {
                return self.recv_opening(frame, events);
            }
            FrameType::UNSUBSCRIBE => return self.recv_unsubscribe(frame),
            FrameType::RPC_DATA => self.recv_data(frame)?,
            FrameType::RPC_CANCEL => self.recv_cancel(frame)?,
            FrameType::CREDIT => self.recv_credit(frame)?,
            _ => return Err(ConnectionError::Protocol("a frame that a client does not send")),
        };
        Ok(event.map_or(Received::Nothing, |event| {
            events.push_back(event);
            Received::Event
        }))
    }

    fn recv_opening(
        &mut self,
        frame: &Frame<'_>,
        events: &mut VecDeque<Event>,
    ) -> Result<Received, ConnectionError> {
        let stream = frame.stream;
        let is_new = stream > self.last;
        if is_new {
            // It cannot be open yet: nothing is looked up.
            if !is_client_stream(stream) {
                return Err(ConnectionError::Protocol("a client opens odd streams"));
            }
            self.last = stream;
            if !frame.has_more() {
                return Ok(self.admit(frame.frame_type, stream, &Message::InFrame(frame.payload), events));
            }
        } else {
            match self.streams.get(stream) {
                Some(State::Receiving) => {}
                Some(_) => return Err(ConnectionError::Protocol("a stream is opened twice")),
                None if !is_client_stream(stream) => {
                    return Err(ConnectionError::Protocol("a client opens odd streams"));
                }
                None => return Err(ConnectionError::Protocol("a stream number is used again")),
            }
        }
        let Some(message) = self.partial.recv(frame)? else {
            if is_new {
                self.streams.insert(stream, State::Receiving);
            }
            return Ok(Received::Nothing);
        };
        self.streams.remove(stream);
        Ok(self.admit(frame.frame_type, stream, &message, events))
    }

    fn admit(
        &mut self,
        frame_type: FrameType,
        stream: u32,
        message: &Message<'_>,
        events: &mut VecDeque<Event>,
    ) -> Received {
        if self.going_away_after.is_some_and(|last| stream > last) {
            return Received::Refuse(stream, ErrorCode::GOING_AWAY, "the server is shutting down");
        }
        match frame_type {
            FrameType::SUBSCRIBE => self.admit_subscription(stream, message, events),
            _ if self.calls >= self.calls_max => {
                Received::Refuse(stream, ErrorCode::RATE_LIMITED, "too many calls in flight")
            }
            FrameType::PUBLISH => match Publish::read(message.source()) {
                Ok(publish) => {
                    self.open_call(stream, &RpcCall::default());
                    events.push_back(Event::Publish(stream, publish));
                    Received::Event
                }
                Err(_) => {
                    let reason = "the event is not a valid Publish";
                    Received::Refuse(stream, ErrorCode::INVALID_REQUEST, reason)
                }
            },
            _ => match RpcCall::read(message.source()) {
                Ok(call) => {
                    self.open_call(stream, &call);
                    events.push_back(Event::Call(stream, call));
                    Received::Event
                }
                Err(_) => {
                    let reason = "the call is not a valid RpcCall";
                    Received::Refuse(stream, ErrorCode::INVALID_REQUEST, reason)
                }
            },
        }
    }

    fn open_call(&mut self, stream: u32, call: &RpcCall) {
        self.calls += 1;
        let items = Items::of_server(call);
        self.streams.insert(stream, State::Call { is_cancelled: false, items });
    }

    fn admit_subscription(
        &mut self,
        stream: u32,
        message: &Message<'_>,
        events: &mut VecDeque<Event>,
    ) -> Received {
        if self.subscriptions >= self.subscriptions_max {
            return Received::Refuse(stream, ErrorCode::RATE_LIMITED, "too many subscriptions");
        }
        let subscribe = match Subscribe::read(message.source()) {
            Ok(subscribe) if subscribe.credit <= CREDIT_MAX => subscribe,
            _ => {
                let reason = "the subscription is not a valid Subscribe";
                return Received::Refuse(stream, ErrorCode::INVALID_REQUEST, reason);
            }
        };
        self.subscriptions += 1;
        self.streams.insert(stream, State::Subscription { credit: subscribe.credit, is_live: false });
        events.push_back(Event::Subscribe(stream, subscribe));
        Received::Event
    }

    /// An item of the client, or the end of them.
    fn recv_data(&mut self, frame: &Frame<'_>) -> Result<Option<Event>, ConnectionError> {
        let stream = frame.stream;
        let items = match self.streams.get_mut(stream) {
            Some(State::Call { items, .. }) => items,
            Some(State::Subscription { .. }) => {
                return Err(ConnectionError::Protocol("RPC_DATA on a subscription"));
            }
            Some(State::Receiving) => return Err(ConnectionError::Protocol("RPC_DATA inside a message")),
            None => return self.late(stream),
        };
        if frame.flags & FLAG_END != 0 {
            items.recv_end()?;
            return Ok(Some(Event::DataEnd(stream)));
        }
        items.check_recv()?;
        let Some(item) = self.partial.recv(frame)? else { return Ok(None) };
        items.recv_item()?;
        Ok(Some(Event::Data(stream, item.into())))
    }

    fn recv_cancel(&mut self, frame: &Frame<'_>) -> Result<Option<Event>, ConnectionError> {
        expect_empty(frame)?;
        match self.streams.get_mut(frame.stream) {
            Some(State::Call { is_cancelled, .. }) if *is_cancelled => Ok(None),
            Some(State::Call { is_cancelled, .. }) => {
                *is_cancelled = true;
                // It costs no budget: the call keeps its slot until its work has stopped, so that the slots bound what a
                // peer can start and throw away.
                Ok(Some(Event::Cancelled(frame.stream)))
            }
            Some(State::Subscription { .. }) => {
                Err(ConnectionError::Protocol("RPC_CANCEL on a subscription"))
            }
            Some(State::Receiving) => Err(ConnectionError::Protocol("RPC_CANCEL inside a message")),
            None => self.late(frame.stream),
        }
    }

    fn recv_unsubscribe(&mut self, frame: &Frame<'_>) -> Result<Received, ConnectionError> {
        expect_empty(frame)?;
        match self.streams.get(frame.stream) {
            Some(State::Subscription { .. }) => {
                self.close(frame.stream);
                Ok(Received::Unsubscribe(frame.stream))
            }
            Some(_) => Err(ConnectionError::Protocol("UNSUBSCRIBE on a call")),
            None => self.late(frame.stream).map(|_| Received::Nothing),
        }
    }

    fn recv_credit(&mut self, frame: &Frame<'_>) -> Result<Option<Event>, ConnectionError> {
        let Credit(items) = Credit::decode(frame.payload)?;
        match self.streams.get_mut(frame.stream) {
            Some(State::Subscription { credit, .. }) => {
                *credit = credit
                    .checked_add(items)
                    .filter(|sum| *sum <= CREDIT_MAX)
                    .ok_or(ConnectionError::Protocol("more credit than fits"))?;
                Ok(Some(Event::Credit(frame.stream)))
            }
            Some(State::Call { items: of_call, .. }) => {
                of_call.recv_credit(items)?;
                Ok(Some(Event::Credit(frame.stream)))
            }
            Some(State::Receiving) => Err(ConnectionError::Protocol("CREDIT inside a message")),
            None => self.late(frame.stream),
        }
    }

    /// A frame on a stream that is not open: late, or never opened.
    fn late(&self, stream: u32) -> Result<Option<Event>, ConnectionError> {
        if is_client_stream(stream) && stream <= self.last {
            Ok(None)
        } else {
            Err(ConnectionError::Protocol("a frame on a stream that was never opened"))
        }
    }

    /// Ends a call: its answer goes out.
    pub(in crate::conn) fn end_call(&mut self, stream: u32) -> Result<(), ApiMisuse> {
        let is_call = |state: &State| matches!(state, State::Call { .. });
        self.streams.remove_if(stream, is_call).ok_or(ApiMisuse::NoSuchStream)?;
        self.forget_call(stream);
        Ok(())
    }

    fn forget_call(&mut self, stream: u32) {
        self.calls -= 1;
        // The rest of an item may still come, and is then late.
        self.partial.forget(stream);
    }

    /// Ends a subscription, or says that it is over already.
    pub(in crate::conn) fn end_subscription(&mut self, stream: u32) -> Result<(), ApiMisuse> {
        match self.streams.get(stream) {
            Some(State::Subscription { .. }) => {
                self.close(stream);
                Ok(())
            }
            _ => Err(ApiMisuse::NoSuchStream),
        }
    }

    /// Items that may be sent on a subscription; `None` when there is no such subscription.
    pub(in crate::conn) fn credit(&self, stream: u32) -> Option<u32> {
        match self.streams.get(stream) {
            Some(State::Subscription { credit, .. }) => Some(*credit),
            _ => None,
        }
    }

    /// Items that may be sent on a call; `None` when it takes none.
    pub(in crate::conn) fn call_credit(&self, stream: u32) -> Option<u32> {
        match self.streams.get(stream) {
            Some(State::Call { items, .. }) => items.credit(),
            _ => None,
        }
    }

    /// Takes the credit of one item of a call.
    pub(in crate::conn) fn spend_call_credit(&mut self, stream: u32) -> Result<(), ApiMisuse> {
        self.items(stream)?.send()
    }

    /// Counts credit that is given to the client; `false` when it has no more items.
    pub(in crate::conn) fn grant(&mut self, stream: u32, items: u32) -> Result<bool, ApiMisuse> {
        self.items(stream)?.grant(items)
    }

    fn items(&mut self, stream: u32) -> Result<&mut Items, ApiMisuse> {
        match self.streams.get_mut(stream) {
            Some(State::Call { items, .. }) => Ok(items),
            _ => Err(ApiMisuse::NoSuchStream),
        }
    }

    /// SUBSCRIBED is sent: items may follow.
    pub(in crate::conn) fn start_subscription(&mut self, stream: u32) -> Result<(), ApiMisuse> {
        match self.streams.get_mut(stream) {
            Some(State::Subscription { is_live, .. }) => {
                *is_live = true;
                Ok(())
            }
            _ => Err(ApiMisuse::NoSuchStream),
        }
    }

    /// Says whether an item may be sent.
    pub(in crate::conn) fn check_event(&self, stream: u32) -> Result<(), ApiMisuse> {
        match self.streams.get(stream) {
            Some(State::Subscription { is_live: false, .. }) => Err(ApiMisuse::NotSubscribed),
            Some(State::Subscription { credit: 0, .. }) => Err(ApiMisuse::NoCredit),
            Some(State::Subscription { .. }) => Ok(()),
            _ => Err(ApiMisuse::NoSuchStream),
        }
    }

    /// Takes the credit of one item.
    pub(in crate::conn) fn spend_credit(&mut self, stream: u32) -> Result<(), ApiMisuse> {
        match self.streams.get_mut(stream) {
            Some(State::Subscription { credit, .. }) => {
                *credit = credit.checked_sub(1).ok_or(ApiMisuse::NoCredit)?;
                Ok(())
            }
            _ => Err(ApiMisuse::NoSuchStream),
        }
    }

    fn close(&mut self, stream: u32) {
        match self.streams.remove(stream) {
            Some(State::Call { .. }) => self.forget_call(stream),
            Some(State::Subscription { .. }) => self.subscriptions -= 1,
            Some(State::Receiving) | None => {}
        }
    }
}

fn expect_empty(frame: &Frame<'_>) -> Result<(), ConnectionError> {
    if frame.payload.is_empty() {
        Ok(())
    } else {
        Err(ConnectionError::Protocol("a payload on an empty frame"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{
        envelope::{CLIENT_ITEMS, Overflow, SERVER_ITEMS},
        frame::FLAG_MORE,
    };
    use bytes::Bytes;

    fn message(value: &impl Envelope) -> Vec<u8> {
        value.to_bytes().to_vec()
    }

    fn call() -> Vec<u8> {
        message(&RpcCall { method: "m".into(), ..RpcCall::default() })
    }

    fn subscribe(credit: u32) -> Vec<u8> {
        message(&Subscribe {
            table: "t".into(),
            filter: Bytes::new(),
            cursor: None,
            snapshot: true,
            overflow: Overflow::Close,
            credit,
            topic: None,
        })
    }

    impl ServerStreams {
        /// Takes a frame whose event does not matter.
        fn take(&mut self, frame: &Frame<'_>) -> Result<Received, ConnectionError> {
            self.recv(frame, &mut VecDeque::new())
        }

        /// Takes a frame; gives its event.
        fn event(&mut self, frame: &Frame<'_>) -> Result<Option<Event>, ConnectionError> {
            let mut events = VecDeque::new();
            self.recv(frame, &mut events)?;
            Ok(events.pop_front())
        }
    }

    fn frame(frame_type: FrameType, stream: u32, payload: &[u8]) -> Frame<'_> {
        Frame { frame_type, flags: 0, stream, payload }
    }

    /// Brings stream 1 into a state, and gives what one more frame on it does.
    fn outcome(state: &str, frame_type: FrameType) -> String {
        let mut streams = ServerStreams::new(&Limits::default());
        let (call, subscribe) = (call(), subscribe(0));
        let publish = message(&Publish { topic: "t".into(), ..Publish::default() });
        match state {
            "idle" => {}
            "receiving" => {
                let first = Frame { flags: FLAG_MORE, ..frame(FrameType::RPC_CALL, 1, &call[..4]) };
                streams.take(&first).unwrap();
            }
            "call" => drop(streams.take(&frame(FrameType::RPC_CALL, 1, &call)).unwrap()),
            "cancelled" => {
                streams.take(&frame(FrameType::RPC_CALL, 1, &call)).unwrap();
                streams.take(&frame(FrameType::RPC_CANCEL, 1, &[])).unwrap();
            }
            "with items" => {
                let call = message(&RpcCall {
                    method: "m".into(),
                    streams: CLIENT_ITEMS | SERVER_ITEMS,
                    ..RpcCall::default()
                });
                streams.take(&frame(FrameType::RPC_CALL, 1, &call)).unwrap();
                assert_eq!(streams.grant(1, 1), Ok(true));
            }
            "subscription" => drop(streams.take(&frame(FrameType::SUBSCRIBE, 1, &subscribe)).unwrap()),
            _ => {
                streams.take(&frame(FrameType::RPC_CALL, 1, &call)).unwrap();
                streams.end_call(1).unwrap();
            }
        }
        let payload: &[u8] = match frame_type {
            FrameType::RPC_CALL if state == "receiving" => &call[4..],
            FrameType::RPC_CALL => &call,
            FrameType::SUBSCRIBE => &subscribe,
            FrameType::PUBLISH => &publish,
            FrameType::CREDIT => &[0, 0, 0, 1],
            _ => &[],
        };
        let mut events = VecDeque::new();
        match streams.recv(&frame(frame_type, 1, payload), &mut events) {
            Ok(received) => match events.pop_front() {
                Some(event) => format!("{event:?}").split('(').next().unwrap().to_owned(),
                None => format!("{received:?}").split('(').next().unwrap().to_owned(),
            },
            Err(error) => error.code().to_string(),
        }
    }

    /// The whole state x event table of the specification ("Streams").
    #[test]
    fn state_event_table_server_stream() {
        use FrameType as F;
        let events = [
            F::RPC_CALL,
            F::PUBLISH,
            F::SUBSCRIBE,
            F::RPC_CANCEL,
            F::RPC_DATA,
            F::UNSUBSCRIBE,
            F::CREDIT,
            F::EVENT,
        ];
        let states = ["idle", "receiving", "call", "cancelled", "with items", "subscription", "closed"];
        let table: Vec<Vec<String>> =
            states.iter().map(|state| events.iter().map(|event| outcome(state, *event)).collect()).collect();
        const E: &str = "PROTOCOL_ERROR";
        assert_eq!(
            table,
            [
                ["Call", "Publish", "Subscribe", E, E, E, E, E],
                ["Call", E, E, E, E, E, E, E],
                [E, E, E, "Cancelled", E, E, E, E],
                [E, E, E, "Nothing", E, E, E, E],
                [E, E, E, "Cancelled", "Data", E, "Credit", E],
                [E, E, E, E, E, "Unsubscribe", "Credit", E],
                [E, E, E, "Nothing", "Nothing", "Nothing", "Nothing", E],
            ]
        );
    }

    #[test]
    fn even_and_descending_streams_are_refused() {
        let mut streams = ServerStreams::new(&Limits::default());
        assert!(streams.take(&frame(FrameType::RPC_CALL, 2, &call())).is_err());
        streams.take(&frame(FrameType::RPC_CALL, 5, &call())).unwrap();
        assert!(streams.take(&frame(FrameType::RPC_CALL, 3, &call())).is_err());
    }

    #[test]
    fn limits_of_calls_and_subscriptions_refuse_the_stream_only() {
        let limits = Limits { calls_max: 1, subscriptions_max: 1, ..Limits::default() };
        let mut streams = ServerStreams::new(&limits);
        let refused = |result| matches!(result, Ok(Received::Refuse(_, ErrorCode::RATE_LIMITED, _)));
        streams.take(&frame(FrameType::RPC_CALL, 1, &call())).unwrap();
        assert!(refused(streams.take(&frame(FrameType::RPC_CALL, 3, &call()))));
        streams.take(&frame(FrameType::SUBSCRIBE, 5, &subscribe(0))).unwrap();
        assert!(refused(streams.take(&frame(FrameType::SUBSCRIBE, 7, &subscribe(0)))));
        streams.end_call(1).unwrap();
        assert!(!refused(streams.take(&frame(FrameType::RPC_CALL, 9, &call()))));
    }

    #[test]
    fn credit_is_spent_added_and_bounded() {
        let mut streams = ServerStreams::new(&Limits::default());
        streams.take(&frame(FrameType::SUBSCRIBE, 1, &subscribe(1))).unwrap();
        streams.spend_credit(1).unwrap();
        assert_eq!(streams.spend_credit(1), Err(ApiMisuse::NoCredit));
        streams.take(&frame(FrameType::CREDIT, 1, &CREDIT_MAX.to_be_bytes())).unwrap();
        assert_eq!(streams.credit(1), Some(CREDIT_MAX));
        assert!(streams.take(&frame(FrameType::CREDIT, 1, &[0, 0, 0, 1])).is_err());
    }

    #[test]
    fn an_item_needs_a_position_and_credit() {
        let mut streams = ServerStreams::new(&Limits::default());
        assert_eq!(streams.check_event(1), Err(ApiMisuse::NoSuchStream));
        streams.take(&frame(FrameType::SUBSCRIBE, 1, &subscribe(1))).unwrap();
        assert_eq!(streams.check_event(1), Err(ApiMisuse::NotSubscribed));
        streams.start_subscription(1).unwrap();
        assert_eq!(streams.check_event(1), Ok(()));
        streams.spend_credit(1).unwrap();
        assert_eq!(streams.check_event(1), Err(ApiMisuse::NoCredit));
    }

    #[test]
    fn items_of_a_client_need_credit_and_end_once() {
        let mut streams = ServerStreams::new(&Limits::default());
        let call = message(&RpcCall { method: "m".into(), streams: CLIENT_ITEMS, ..RpcCall::default() });
        streams.take(&frame(FrameType::RPC_CALL, 1, &call)).unwrap();
        streams.take(&frame(FrameType::RPC_CALL, 3, &call)).unwrap();
        streams.grant(1, 2).unwrap();
        let item = frame(FrameType::RPC_DATA, 1, b"item");
        assert_eq!(streams.event(&item), Ok(Some(Event::Data(1, Bytes::from_static(b"item")))));
        let first = Frame { flags: FLAG_MORE, ..item };
        assert_eq!(streams.take(&first), Ok(Received::Nothing));
        streams.end_call(1).unwrap();
        // The rest of it crossed the answer.
        assert_eq!(streams.take(&item), Ok(Received::Nothing));
        assert!(streams.take(&frame(FrameType::RPC_DATA, 3, b"too early")).is_err());
        let end = Frame { flags: FLAG_END, ..frame(FrameType::RPC_DATA, 3, &[]) };
        assert_eq!(streams.event(&end), Ok(Some(Event::DataEnd(3))));
        assert!(streams.take(&end).is_err());
    }

    #[test]
    fn after_go_away_new_streams_are_refused() {
        let mut streams = ServerStreams::new(&Limits::default());
        streams.take(&frame(FrameType::RPC_CALL, 1, &call())).unwrap();
        assert_eq!(streams.go_away(), 1);
        let refused = streams.take(&frame(FrameType::RPC_CALL, 3, &call())).unwrap();
        assert!(matches!(refused, Received::Refuse(3, ErrorCode::GOING_AWAY, _)));
    }

    #[test]
    fn an_envelope_that_does_not_verify_refuses_the_stream_only() {
        let mut streams = ServerStreams::new(&Limits::default());
        let refused = streams.take(&frame(FrameType::RPC_CALL, 1, b"garbage"));
        assert!(matches!(refused, Ok(Received::Refuse(1, ErrorCode::INVALID_REQUEST, _))));
    }
}
