//! The client's view of the streams it opens: it knows each until the server has ended it.
//!
//! ```text
//!            RPC_CALL, PUBLISH         RPC_RESPONSE | RPC_ERROR
//!   idle ────────────────────▶ Call ─────────────────────────────────────▶ closed
//!            SUBSCRIBE is sent                 SUBSCRIBED          RPC_ERROR
//!   idle ────────────────────▶ Subscription ─────────────▶ live ─────────▶ closed
//! ```
//! RPC_CANCEL and UNSUBSCRIBE change nothing about what the server may still send.

use super::items::Items;
use crate::conn::{
    ApiMisuse, ConnectionError, Event,
    reassembly::{Message, Reassembly},
    stream_map::StreamMap,
};
use crate::wire::{
    FrameType,
    control::Credit,
    envelope::{Envelope, Event as EventMessage, RpcCall, RpcError, RpcResponse, Subscribed},
    frame::{FLAG_END, Frame},
    limits::CREDIT_MAX,
};
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Call {
        is_cancelled: bool,
        items: Items,
    },
    Subscription {
        /// Items that the server may still send, as far as this side knows: never less than the server knows, and at
        /// most [`CREDIT_MAX`].
        credit: u32,
        /// Whether SUBSCRIBED came, which goes before the first item.
        is_live: bool,
        /// Whether UNSUBSCRIBE is sent.
        is_ending: bool,
    },
}

const UNEXPECTED: ConnectionError =
    ConnectionError::Protocol("a frame that a server does not send on this stream");

/// Every stream that waits for the server.
#[derive(Debug)]
pub(in crate::conn) struct ClientStreams {
    streams: StreamMap<State>,
    /// The next stream to open, odd; `None` when the numbers are used up.
    next: Option<u32>,
    calls: u16,
    subscriptions: u16,
    calls_max: u16,
    subscriptions_max: u16,
    partial: Reassembly,
}

impl ClientStreams {
    /// With the smaller ones of this side's limits and those that the server gave in its hello.
    pub(in crate::conn) fn new(calls_max: u16, subscriptions_max: u16) -> Self {
        Self {
            streams: StreamMap::default(),
            next: Some(1),
            calls: 0,
            subscriptions: 0,
            calls_max,
            subscriptions_max,
            partial: Reassembly::default(),
        }
    }

    pub(in crate::conn) fn open(&self) -> usize {
        self.streams.len()
    }

    pub(in crate::conn) fn open_call(&mut self, call: &RpcCall) -> Result<u32, ApiMisuse> {
        if self.calls >= self.calls_max {
            return Err(ApiMisuse::TooManyStreams);
        }
        let stream = self.open_stream(State::Call { is_cancelled: false, items: Items::of_client(call) })?;
        self.calls += 1;
        Ok(stream)
    }

    pub(in crate::conn) fn open_subscription(&mut self, credit: u32) -> Result<u32, ApiMisuse> {
        if self.subscriptions >= self.subscriptions_max {
            return Err(ApiMisuse::TooManyStreams);
        }
        if credit > CREDIT_MAX {
            return Err(ApiMisuse::TooMuchCredit);
        }
        let stream = self.open_stream(State::Subscription { credit, is_live: false, is_ending: false })?;
        self.subscriptions += 1;
        Ok(stream)
    }

    fn open_stream(&mut self, state: State) -> Result<u32, ApiMisuse> {
        let stream = self.next.ok_or(ApiMisuse::StreamsExhausted)?;
        self.next = stream.checked_add(2);
        self.streams.insert(stream, state);
        Ok(stream)
    }

    /// Forgets a stream whose opening message was never sent.
    pub(in crate::conn) fn abandon(&mut self, stream: u32) {
        self.remove(stream);
    }

    fn remove(&mut self, stream: u32) {
        match self.streams.remove(stream) {
            Some(State::Call { .. }) => self.calls -= 1,
            Some(State::Subscription { .. }) => self.subscriptions -= 1,
            None => {}
        }
    }

    /// Gives a call up; says whether it is for the first time.
    pub(in crate::conn) fn cancel(&mut self, stream: u32) -> Result<bool, ApiMisuse> {
        match self.streams.get_mut(stream) {
            Some(State::Call { is_cancelled, .. }) => Ok(!std::mem::replace(is_cancelled, true)),
            _ => Err(ApiMisuse::NoSuchStream),
        }
    }

    /// Ends a subscription from this side.
    pub(in crate::conn) fn unsubscribe(&mut self, stream: u32) -> Result<(), ApiMisuse> {
        match self.streams.get_mut(stream) {
            Some(State::Subscription { is_ending, .. }) if !*is_ending => {
                *is_ending = true;
                Ok(())
            }
            _ => Err(ApiMisuse::NoSuchStream),
        }
    }

    /// Counts credit that is given to the server.
    pub(in crate::conn) fn add_credit(&mut self, stream: u32, items: u32) -> Result<(), ApiMisuse> {
        match self.streams.get_mut(stream) {
            Some(State::Subscription { credit, is_ending: false, .. }) => {
                let sum = credit.checked_add(items).filter(|sum| *sum <= CREDIT_MAX);
                *credit = sum.ok_or(ApiMisuse::TooMuchCredit)?;
                Ok(())
            }
            Some(State::Call { items: of_call, .. }) => match of_call.grant(items)? {
                true => Ok(()),
                false => Err(ApiMisuse::NoSuchStream),
            },
            _ => Err(ApiMisuse::NoSuchStream),
        }
    }

    /// Items that may be sent on a call; `None` when there is no such call, or it takes no more.
    pub(in crate::conn) fn call_credit(&self, stream: u32) -> Option<u32> {
        match self.streams.get(stream) {
            Some(State::Call { is_cancelled: false, items }) => items.credit(),
            _ => None,
        }
    }

    /// Takes the credit of one item of a call.
    pub(in crate::conn) fn spend_call_credit(&mut self, stream: u32) -> Result<(), ApiMisuse> {
        self.items(stream)?.send()
    }

    /// Ends the items of a call.
    pub(in crate::conn) fn end_items(&mut self, stream: u32) -> Result<(), ApiMisuse> {
        self.items(stream)?.end()
    }

    fn items(&mut self, stream: u32) -> Result<&mut Items, ApiMisuse> {
        match self.streams.get_mut(stream) {
            Some(State::Call { is_cancelled: false, items }) => Ok(items),
            _ => Err(ApiMisuse::NoSuchStream),
        }
    }

    /// Takes a frame of a stream, and adds the event to `events` when the frame ends a message.
    #[inline]
    pub(in crate::conn) fn recv(
        &mut self,
        frame: &Frame<'_>,
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        let stream = frame.stream;
        match self.streams.get_mut(stream) {
            None => return Err(ConnectionError::Protocol("a frame on a stream that is not open")),
            Some(State::Call { items, .. }) => match frame.frame_type {
                FrameType::RPC_RESPONSE | FrameType::RPC_ERROR => {}
                FrameType::CREDIT => {
                    let Credit(credit) = Credit::decode(frame.payload)?;
                    items.recv_credit(credit)?;
                    events.push_back(Event::Credit(stream));
                    return Ok(());
                }
                FrameType::RPC_DATA if frame.flags & FLAG_END != 0 => {
                    return Err(ConnectionError::Protocol("an end of items that is not the answer"));
                }
                FrameType::RPC_DATA => items.check_recv()?,
                _ => return Err(UNEXPECTED),
            },
            Some(State::Subscription { .. }) => match frame.frame_type {
                FrameType::SUBSCRIBED | FrameType::EVENT | FrameType::RPC_ERROR => {}
                _ => return Err(UNEXPECTED),
            },
        }
        let Some(message) = self.partial.recv(frame)? else { return Ok(()) };
        if frame.frame_type == FrameType::RPC_RESPONSE {
            self.remove(stream);
            events.push_back(Event::Response(stream, RpcResponse::read(message.source())?));
        } else {
            events.push_back(self.recv_message(frame.frame_type, stream, message)?);
        }
        Ok(())
    }

    fn recv_message(
        &mut self,
        frame_type: FrameType,
        stream: u32,
        message: Message<'_>,
    ) -> Result<Event, ConnectionError> {
        Ok(match frame_type {
            FrameType::SUBSCRIBED => {
                let subscribed = Subscribed::read(message.source())?;
                if let Some(State::Subscription { is_live, .. }) = self.streams.get_mut(stream) {
                    *is_live = true;
                }
                Event::Subscribed(stream, subscribed)
            }
            FrameType::RPC_DATA => {
                if let Some(State::Call { items, .. }) = self.streams.get_mut(stream) {
                    items.recv_item()?;
                }
                Event::Data(stream, message.into())
            }
            FrameType::EVENT => {
                self.spend_credit(stream)?;
                Event::Item(stream, EventMessage::read(message.source())?)
            }
            _error => {
                self.remove(stream);
                Event::Error(stream, RpcError::read(message.source())?)
            }
        })
    }

    fn spend_credit(&mut self, stream: u32) -> Result<(), ConnectionError> {
        match self.streams.get_mut(stream) {
            Some(State::Subscription { is_live: true, credit, .. }) => {
                *credit =
                    credit.checked_sub(1).ok_or(ConnectionError::Protocol("an EVENT without credit"))?;
                Ok(())
            }
            _ => Err(ConnectionError::Protocol("an EVENT before SUBSCRIBED")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{
        ErrorCode,
        envelope::{CLIENT_ITEMS, EventKind, SERVER_ITEMS},
        frame::FLAG_MORE,
    };
    use bytes::Bytes;

    fn message(value: &impl Envelope) -> Vec<u8> {
        value.to_bytes().to_vec()
    }

    fn payload(frame_type: FrameType) -> Vec<u8> {
        match frame_type {
            FrameType::RPC_RESPONSE => message(&RpcResponse::default()),
            FrameType::RPC_ERROR => message(&RpcError {
                code: ErrorCode::CANCELLED,
                message: String::new(),
                retryable: false,
                retry_after_ms: 0,
                details: Bytes::new(),
            }),
            FrameType::SUBSCRIBED => message(&Subscribed { cursor: "c".into(), snapshot_end: false }),
            FrameType::EVENT => message(&EventMessage {
                cursor: "c".into(),
                kind: EventKind::Insert,
                id: "i".into(),
                data: None,
                old: None,
                version: 1,
                dropped: 0,
                omitted: 0,
                lag: 0,
            }),
            FrameType::CREDIT => vec![0, 0, 0, 1],
            _ => Vec::new(),
        }
    }

    fn recv(streams: &mut ClientStreams, frame_type: FrameType, flags: u8) -> String {
        let payload = payload(frame_type);
        let mut events = VecDeque::new();
        match streams.recv(&Frame { frame_type, flags, stream: 1, payload: &payload }, &mut events) {
            Ok(()) => match events.pop_front() {
                Some(event) => format!("{event:?}").split('(').next().unwrap().to_owned(),
                None => "Nothing".into(),
            },
            Err(error) => error.code().to_string(),
        }
    }

    /// Brings stream 1 into a state, and gives what one more frame on it does.
    fn outcome(state: &str, frame_type: FrameType) -> String {
        let mut streams = ClientStreams::new(1, 1);
        match state {
            "idle" => {}
            "call" => drop(streams.open_call(&RpcCall::default()).unwrap()),
            "cancelled" => {
                streams.open_call(&RpcCall::default()).unwrap();
                assert_eq!((streams.cancel(1), streams.cancel(1)), (Ok(true), Ok(false)));
            }
            "receiving" => {
                streams.open_call(&RpcCall::default()).unwrap();
                assert_eq!(recv(&mut streams, FrameType::RPC_RESPONSE, FLAG_MORE), "Nothing");
            }
            "with items" => {
                let call = RpcCall { streams: CLIENT_ITEMS | SERVER_ITEMS, credit: 1, ..RpcCall::default() };
                streams.open_call(&call).unwrap();
            }
            "closed" => {
                streams.open_call(&RpcCall::default()).unwrap();
                assert_eq!(recv(&mut streams, FrameType::RPC_RESPONSE, 0), "Response");
            }
            state => {
                streams.open_subscription(u32::from(state != "no credit")).unwrap();
                if state != "pending" {
                    assert_eq!(recv(&mut streams, FrameType::SUBSCRIBED, 0), "Subscribed");
                }
                if state == "unsubscribed" {
                    streams.unsubscribe(1).unwrap();
                }
            }
        }
        // The rest of a message of two fragments is not a message alone: what counts is whether the frame is let in.
        if state == "receiving" {
            return recv(&mut streams, frame_type, FLAG_MORE);
        }
        recv(&mut streams, frame_type, 0)
    }

    /// The whole state x event table of the specification ("Streams"), as a client sees it.
    #[test]
    fn state_event_table_client_stream() {
        use FrameType as F;
        let events =
            [F::RPC_RESPONSE, F::RPC_ERROR, F::SUBSCRIBED, F::EVENT, F::RPC_CALL, F::CREDIT, F::RPC_DATA];
        let states = [
            "idle",
            "call",
            "cancelled",
            "receiving",
            "with items",
            "pending",
            "live",
            "no credit",
            "unsubscribed",
            "closed",
        ];
        let table: Vec<Vec<String>> =
            states.iter().map(|state| events.iter().map(|event| outcome(state, *event)).collect()).collect();
        const E: &str = "PROTOCOL_ERROR";
        assert_eq!(
            table,
            [
                [E, E, E, E, E, E, E],
                ["Response", "Error", E, E, E, E, E],
                ["Response", "Error", E, E, E, E, E],
                ["Nothing", E, E, E, E, E, E],
                ["Response", "Error", E, E, E, "Credit", "Data"],
                [E, "Error", "Subscribed", E, E, E, E],
                [E, "Error", "Subscribed", "Item", E, E, E],
                [E, "Error", "Subscribed", E, E, E, E],
                [E, "Error", "Subscribed", "Item", E, E, E],
                [E, E, E, E, E, E, E],
            ]
        );
    }

    #[test]
    fn credit_is_counted_where_it_is_given() {
        let mut streams = ClientStreams::new(1, 1);
        assert_eq!(streams.open_subscription(CREDIT_MAX + 1), Err(ApiMisuse::TooMuchCredit));
        streams.open_subscription(1).unwrap();
        assert_eq!(recv(&mut streams, FrameType::SUBSCRIBED, 0), "Subscribed");
        assert_eq!(recv(&mut streams, FrameType::EVENT, 0), "Item");
        assert_eq!(streams.add_credit(1, CREDIT_MAX), Ok(()));
        assert_eq!(streams.add_credit(1, 1), Err(ApiMisuse::TooMuchCredit));
        assert_eq!(recv(&mut streams, FrameType::EVENT, 0), "Item");
        assert_eq!(streams.add_credit(1, 1), Ok(()));
        streams.unsubscribe(1).unwrap();
        assert_eq!(streams.unsubscribe(1), Err(ApiMisuse::NoSuchStream));
        assert_eq!(streams.add_credit(1, 1), Err(ApiMisuse::NoSuchStream));
        assert_eq!(streams.add_credit(3, 1), Err(ApiMisuse::NoSuchStream));
    }

    #[test]
    fn limits_are_freed_by_the_answer() {
        let mut streams = ClientStreams::new(1, 1);
        streams.open_call(&RpcCall::default()).unwrap();
        assert_eq!(streams.open_call(&RpcCall::default()), Err(ApiMisuse::TooManyStreams));
        assert_eq!(streams.open_subscription(0), Ok(3));
        assert_eq!(streams.open_subscription(0), Err(ApiMisuse::TooManyStreams));
        recv(&mut streams, FrameType::RPC_ERROR, 0);
        assert_eq!(streams.open_call(&RpcCall::default()), Ok(5));
        streams.abandon(5);
        assert_eq!(streams.open_call(&RpcCall::default()), Ok(7));
    }

    #[test]
    fn stream_numbers_end() {
        let mut streams = ClientStreams::new(2, 0);
        streams.next = Some(u32::MAX);
        assert_eq!(streams.open_call(&RpcCall::default()), Ok(u32::MAX));
        assert_eq!(streams.open_call(&RpcCall::default()), Err(ApiMisuse::StreamsExhausted));
    }
}
