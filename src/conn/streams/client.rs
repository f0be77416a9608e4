//! The client's view of the streams it opens: it knows each until the server has ended it.

use crate::conn::{ApiMisuse, ConnectionError, Event, reassembly::Reassembly};
use crate::wire::{
    FrameType,
    envelope::{Envelope, Event as EventMessage, RpcError, RpcResponse, Subscribed},
    frame::Frame,
};
use bytes::Bytes;
use std::collections::HashMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Call,
    Subscription,
}

/// Every stream that waits for the server.
#[derive(Debug)]
pub(in crate::conn) struct ClientStreams {
    streams: HashMap<u32, State>,
    /// The next stream to open, odd; `None` when the numbers are used up.
    next: Option<u32>,
    calls: u16,
    subscriptions: u16,
    calls_max: u16,
    subscriptions_max: u16,
    partial: Reassembly,
}

impl ClientStreams {
    /// With the limits that the server gave in its hello.
    pub(in crate::conn) fn new(calls_max: u16, subscriptions_max: u16) -> Self {
        Self {
            streams: HashMap::new(),
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

    pub(in crate::conn) fn open_call(&mut self) -> Result<u32, ApiMisuse> {
        if self.calls >= self.calls_max {
            return Err(ApiMisuse::TooManyStreams);
        }
        let stream = self.open_stream(State::Call)?;
        self.calls += 1;
        Ok(stream)
    }

    pub(in crate::conn) fn open_subscription(&mut self) -> Result<u32, ApiMisuse> {
        if self.subscriptions >= self.subscriptions_max {
            return Err(ApiMisuse::TooManyStreams);
        }
        let stream = self.open_stream(State::Subscription)?;
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
        match self.streams.remove(&stream) {
            Some(State::Call) => self.calls -= 1,
            Some(State::Subscription) => self.subscriptions -= 1,
            None => {}
        }
    }

    pub(in crate::conn) fn is_call(&self, stream: u32) -> bool {
        self.streams.get(&stream) == Some(&State::Call)
    }

    pub(in crate::conn) fn is_subscription(&self, stream: u32) -> bool {
        self.streams.get(&stream) == Some(&State::Subscription)
    }

    /// Takes a frame of a stream; gives the event when the frame ends a message.
    pub(in crate::conn) fn recv(&mut self, frame: &Frame<'_>) -> Result<Option<Event>, ConnectionError> {
        let stream = frame.stream;
        let Some(state) = self.streams.get(&stream).copied() else {
            return Err(ConnectionError::Protocol("a frame on a stream that is not open"));
        };
        let allowed = match state {
            State::Call => matches!(frame.frame_type, FrameType::RPC_RESPONSE | FrameType::RPC_ERROR),
            State::Subscription => {
                matches!(frame.frame_type, FrameType::SUBSCRIBED | FrameType::EVENT | FrameType::RPC_ERROR)
            }
        };
        if !allowed {
            return Err(ConnectionError::Protocol("a frame that a server does not send on this stream"));
        }
        let Some(message) = self.partial.recv(frame)? else { return Ok(None) };
        self.recv_message(frame.frame_type, stream, &message).map(Some)
    }

    fn recv_message(
        &mut self,
        frame_type: FrameType,
        stream: u32,
        message: &Bytes,
    ) -> Result<Event, ConnectionError> {
        Ok(match frame_type {
            FrameType::SUBSCRIBED => Event::Subscribed(stream, Subscribed::decode(message)?),
            FrameType::EVENT => Event::Item(stream, EventMessage::decode(message)?),
            last => {
                self.remove(stream);
                if last == FrameType::RPC_RESPONSE {
                    Event::Response(stream, RpcResponse::decode(message)?)
                } else {
                    Event::Error(stream, RpcError::decode(message)?)
                }
            }
        })
    }
}
