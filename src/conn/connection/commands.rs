//! What the owner of a connection wants of it.

use super::Connection;
use crate::conn::{
    ApiMisuse,
    session::{Session, Side, rpc_error},
};
use crate::wire::{
    ErrorCode, FrameType,
    control::Credit,
    envelope::{
        Encode, Event as EventMessage, Publish, RpcCall, RpcError, RpcResponse, Subscribe, Subscribed,
    },
    limits::MESSAGE_MAX,
    prepared::PreparedEvent,
};
use bytes::Bytes;
use std::time::Duration;

impl Connection {
    /// Client: makes a call; its stream answers with `Event::Response` or `Event::Error`.
    ///
    /// # Errors
    /// Not open, too many calls, or a message over its limit.
    pub fn call(&mut self, call: &RpcCall) -> Result<u32, ApiMisuse> {
        let session = self.client_session()?;
        let Side::Client(streams) = &mut session.side else { return Err(ApiMisuse::WrongSide) };
        if call.args.len() > MESSAGE_MAX {
            return Err(ApiMisuse::MessageTooLarge);
        }
        let stream = streams.open_call(call)?;
        Self::send_opening(session, stream, FrameType::RPC_CALL, call)
    }

    /// Client: subscribes; its stream answers with `Event::Subscribed`, `Event::Item`s and at last `Event::Error`.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn subscribe(&mut self, subscribe: &Subscribe) -> Result<u32, ApiMisuse> {
        let session = self.client_session()?;
        let Side::Client(streams) = &mut session.side else { return Err(ApiMisuse::WrongSide) };
        let stream = streams.open_subscription(subscribe.credit)?;
        Self::send_opening(session, stream, FrameType::SUBSCRIBE, subscribe)
    }

    fn send_opening(
        session: &mut Session,
        stream: u32,
        frame_type: FrameType,
        message: &impl Encode,
    ) -> Result<u32, ApiMisuse> {
        if session.send(stream, frame_type, message) {
            return Ok(stream);
        }
        let Side::Client(streams) = &mut session.side else { return Err(ApiMisuse::WrongSide) };
        streams.abandon(stream);
        Err(ApiMisuse::MessageTooLarge)
    }

    /// Client: gives a call up. The answer still comes. Giving it up again does nothing.
    ///
    /// # Errors
    /// Not open, or no such call.
    pub fn cancel(&mut self, stream: u32) -> Result<(), ApiMisuse> {
        let session = self.session()?;
        let Side::Client(streams) = &mut session.side else { return Err(ApiMisuse::WrongSide) };
        if streams.cancel(stream)? {
            session.outbound.push(stream, FrameType::RPC_CANCEL, Bytes::new());
        }
        Ok(())
    }

    /// Client: publishes an event to a topic; its stream answers as that of a call.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn publish(&mut self, publish: &Publish) -> Result<u32, ApiMisuse> {
        let session = self.client_session()?;
        let Side::Client(streams) = &mut session.side else { return Err(ApiMisuse::WrongSide) };
        if publish.data.len() > MESSAGE_MAX {
            return Err(ApiMisuse::MessageTooLarge);
        }
        let stream = streams.open_call(&RpcCall::default())?;
        Self::send_opening(session, stream, FrameType::PUBLISH, publish)
    }

    /// Client: ends the items of a call.
    ///
    /// # Errors
    /// Not open, no such call, or one that sends no items (any more).
    pub fn end_data(&mut self, stream: u32) -> Result<(), ApiMisuse> {
        let session = self.session()?;
        let Side::Client(streams) = &mut session.side else { return Err(ApiMisuse::WrongSide) };
        streams.end_items(stream)?;
        session.outbound.push_end(stream);
        Ok(())
    }

    /// Sends an item of a call, for one credit.
    ///
    /// # Errors
    /// Not open, no such call, one that sends no items (any more), no credit, or an item over the limit of a message (the
    /// credit is kept).
    pub fn send_data(&mut self, stream: u32, item: Bytes) -> Result<(), ApiMisuse> {
        let session = self.session()?;
        if item.len() > session.message_max() {
            return Err(ApiMisuse::MessageTooLarge);
        }
        match &mut session.side {
            Side::Client(streams) => streams.spend_call_credit(stream)?,
            Side::Server(streams) => streams.spend_call_credit(stream)?,
        }
        session.outbound.push(stream, FrameType::RPC_DATA, item);
        Ok(())
    }

    /// Client: ends a subscription. `Event::Error` with CANCELLED confirms it; items that were under way come before.
    ///
    /// # Errors
    /// Not open, or no such subscription, or one that was ended before.
    pub fn unsubscribe(&mut self, stream: u32) -> Result<(), ApiMisuse> {
        let session = self.session()?;
        let Side::Client(streams) = &mut session.side else { return Err(ApiMisuse::WrongSide) };
        streams.unsubscribe(stream)?;
        session.outbound.push(stream, FrameType::UNSUBSCRIBE, Bytes::new());
        Ok(())
    }

    /// Lets the peer send `items` more: on a subscription (client), or on a call with items (either side; at the server
    /// a credit for a client that has no more items is none).
    ///
    /// # Errors
    /// Not open, no such stream, one that was ended, or more credit than fits.
    pub fn credit(&mut self, stream: u32, items: std::num::NonZeroU32) -> Result<(), ApiMisuse> {
        let session = self.session()?;
        let tells = match &mut session.side {
            Side::Client(streams) => streams.add_credit(stream, items.get()).map(|()| true)?,
            Side::Server(streams) => streams.grant(stream, items.get())?,
        };
        if !tells {
            return Ok(());
        }
        let payload = Bytes::copy_from_slice(&Credit(items.get()).encode());
        session.outbound.push(stream, FrameType::CREDIT, payload);
        Ok(())
    }

    /// Sends a HEARTBEAT now; `false` when too many wait for their echo.
    ///
    /// # Errors
    /// Not open.
    pub fn heartbeat(&mut self, now: Duration) -> Result<bool, ApiMisuse> {
        self.session().map(|session| session.send_heartbeat(now))
    }

    /// Server: answers a call. A result over the limit becomes PAYLOAD_TOO_LARGE.
    ///
    /// # Errors
    /// Not open, or no such call.
    pub fn respond(&mut self, stream: u32, response: &RpcResponse) -> Result<(), ApiMisuse> {
        let session = self.session()?;
        let Side::Server(streams) = &mut session.side else { return Err(ApiMisuse::WrongSide) };
        streams.end_call(stream)?;
        if !session.send(stream, FrameType::RPC_RESPONSE, response) {
            let error = rpc_error(ErrorCode::PAYLOAD_TOO_LARGE, "the result is over 1 MiB");
            session.send_error(stream, &error);
        }
        Ok(())
    }

    /// Server: answers a call with an error.
    ///
    /// # Errors
    /// Not open, or no such call.
    pub fn respond_error(&mut self, stream: u32, error: &RpcError) -> Result<(), ApiMisuse> {
        let session = self.session()?;
        let Side::Server(streams) = &mut session.side else { return Err(ApiMisuse::WrongSide) };
        streams.end_call(stream)?;
        session.send_error(stream, error);
        Ok(())
    }

    /// Server: tells a subscriber its position. Costs no credit.
    ///
    /// # Errors
    /// Not open, or no such subscription.
    pub fn send_subscribed(&mut self, stream: u32, subscribed: &Subscribed) -> Result<(), ApiMisuse> {
        let session = self.session()?;
        let Side::Server(streams) = &mut session.side else { return Err(ApiMisuse::WrongSide) };
        streams.credit(stream).ok_or(ApiMisuse::NoSuchStream)?;
        if !session.send(stream, FrameType::SUBSCRIBED, subscribed) {
            return Err(ApiMisuse::MessageTooLarge);
        }
        let Side::Server(streams) = &mut session.side else { return Err(ApiMisuse::WrongSide) };
        streams.start_subscription(stream)
    }

    /// Server: sends an item of a subscription, for one credit.
    ///
    /// # Errors
    /// Not open, no such subscription, no position sent yet, no credit, or a message over its limit (the credit is kept).
    pub fn send_event(&mut self, stream: u32, event: &EventMessage) -> Result<(), ApiMisuse> {
        self.send_any_event(stream, |session| session.send(stream, FrameType::EVENT, event))
    }

    /// Makes room for messages of so many bytes in all, which follow: then it is made once.
    pub fn make_room(&mut self, bytes: usize) {
        if let Ok(session) = self.session() {
            session.outbound.make_room(bytes);
        }
    }

    /// Server: sends an item that was written for many subscriptions, as [`send_event`](Self::send_event).
    ///
    /// # Errors
    /// As [`send_event`](Self::send_event).
    pub fn send_prepared(&mut self, stream: u32, event: &PreparedEvent, lag: u32) -> Result<(), ApiMisuse> {
        self.send_any_event(stream, |session| session.send_prepared(stream, event, lag))
    }

    fn send_any_event(
        &mut self,
        stream: u32,
        send: impl FnOnce(&mut Session) -> bool,
    ) -> Result<(), ApiMisuse> {
        let session = self.session()?;
        let Side::Server(streams) = &mut session.side else { return Err(ApiMisuse::WrongSide) };
        streams.check_event(stream)?;
        if !send(session) {
            return Err(ApiMisuse::MessageTooLarge);
        }
        let Side::Server(streams) = &mut session.side else { return Err(ApiMisuse::WrongSide) };
        streams.spend_credit(stream)
    }

    /// Server: ends a subscription with an error.
    ///
    /// # Errors
    /// Not open, or no such subscription.
    pub fn end_subscription(&mut self, stream: u32, error: &RpcError) -> Result<(), ApiMisuse> {
        let session = self.session()?;
        let Side::Server(streams) = &mut session.side else { return Err(ApiMisuse::WrongSide) };
        streams.end_subscription(stream)?;
        session.send_error(stream, error);
        Ok(())
    }

    /// Server: takes no new stream from now on, and asks the client to connect again after `delay`.
    ///
    /// # Errors
    /// Not open, or a client's end.
    pub fn go_away(&mut self, code: ErrorCode, delay: Duration) -> Result<(), ApiMisuse> {
        if self.is_client {
            return Err(ApiMisuse::WrongSide);
        }
        self.session()?.go_away(code, delay);
        Ok(())
    }

    fn client_session(&mut self) -> Result<&mut Session, ApiMisuse> {
        let session = self.session()?;
        if session.peer_is_going_away { Err(ApiMisuse::GoingAway) } else { Ok(session) }
    }
}
