//! The connection once there are keys: records in, frames to streams; messages to frames, records out.

use super::{
    ConnectionError, Event, Limits, Peer,
    budget::AbuseBudget,
    heartbeat::Heartbeat,
    outbound::Outbound,
    record::RecordLayer,
    streams::{
        client::ClientStreams,
        server::{Received, ServerStreams},
    },
};
use crate::wire::{
    ErrorCode, FrameType, Reader,
    control::{Close, GoAway, Heartbeat as HeartbeatPayload},
    envelope::{Encode, RpcError},
    frame::{FLAG_ACK, Frame},
    handshake::ServerHello,
    limits::{
        HEARTBEATS_OUTSTANDING_MAX, MESSAGE_MAX, RECORD_PLAINTEXT_MAX, TAG_LEN, UNAUTHENTICATED_BODY_MAX,
    },
    prepared::PreparedEvent,
};
use bytes::Bytes;
use std::{collections::VecDeque, time::Duration};

/// Which end this is, with the streams of that end.
pub(super) enum Side {
    Client(ClientStreams),
    Server(ServerStreams),
}

/// An open connection.
pub(super) struct Session {
    pub(super) side: Side,
    records: RecordLayer,
    pub(super) outbound: Outbound,
    pub(super) heartbeat: Heartbeat,
    budget: AbuseBudget,
    /// Server: the peer, until its first record decrypts and it counts.
    unproved: Option<Box<Peer>>,
    /// Client: GOAWAY was received.
    pub(super) peer_is_going_away: bool,
    /// Longest plaintext of the next record.
    plaintext_max: usize,
    /// Longest message that the peer takes.
    message_max: usize,
}

impl Session {
    pub(super) fn server(records: RecordLayer, peer: Peer, limits: &Limits, now: Duration) -> Self {
        let side = Side::Server(ServerStreams::new(limits));
        Self { unproved: Some(Box::new(peer)), ..Self::new(side, records, limits, now) }
    }

    pub(super) fn client(records: RecordLayer, hello: &ServerHello, limits: &Limits, now: Duration) -> Self {
        let streams = ClientStreams::new(
            hello.calls_max.min(limits.calls_max),
            hello.subscriptions_max.min(limits.subscriptions_max),
        );
        let mut session = Self::new(Side::Client(streams), records, limits, now);
        session.message_max = usize::try_from(hello.message_max).unwrap_or(usize::MAX).min(MESSAGE_MAX);
        // The first record proves to the server that we hold the keys, and is short until it does; a call that follows
        // at once shares it.
        session.plaintext_max = UNAUTHENTICATED_BODY_MAX - TAG_LEN;
        session.send_heartbeat(now);
        session
    }

    fn new(side: Side, records: RecordLayer, limits: &Limits, now: Duration) -> Self {
        Self {
            side,
            records,
            outbound: Outbound::default(),
            heartbeat: Heartbeat::new(now, limits),
            budget: AbuseBudget::new(now),
            unproved: None,
            peer_is_going_away: false,
            plaintext_max: RECORD_PLAINTEXT_MAX,
            message_max: MESSAGE_MAX,
        }
    }

    /// Whether the peer has shown that it holds the keys.
    pub(super) fn is_proved(&self) -> bool {
        self.unproved.is_none()
    }

    /// The longest message that the peer takes.
    pub(super) fn message_max(&self) -> usize {
        self.message_max
    }

    /// Decrypts one record and takes its frames. `Ok(Some)` is the peer's CLOSE.
    pub(super) fn handle_record(
        &mut self,
        now: Duration,
        body: &mut [u8],
        events: &mut VecDeque<Event>,
    ) -> Result<Option<Close>, ConnectionError> {
        let plaintext = self.records.open(body)?;
        self.heartbeat.on_record_received(now);
        if let Some(peer) = self.unproved.take() {
            events.push_back(Event::Established(*peer));
        }
        let mut reader = Reader::new(plaintext);
        if reader.is_empty() {
            return Err(ConnectionError::Protocol("a record without a frame"));
        }
        while !reader.is_empty() {
            let frame = Frame::decode(&mut reader)?;
            if frame.frame_type == FrameType::CLOSE {
                let close = Close::decode(frame.payload)?;
                reader.finish("CLOSE")?;
                return Ok(Some(close));
            }
            self.recv_frame(now, &frame, events)?;
        }
        Ok(None)
    }

    fn recv_frame(
        &mut self,
        now: Duration,
        frame: &Frame<'_>,
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        match frame.frame_type {
            FrameType::HEARTBEAT => self.recv_heartbeat(now, frame, events),
            FrameType::GOAWAY => self.recv_go_away(frame, events),
            _ => match &mut self.side {
                Side::Client(streams) => streams.recv(frame, events),
                Side::Server(streams) => match streams.recv(frame, events)? {
                    Received::Nothing | Received::Event => Ok(()),
                    Received::Unsubscribe(stream) => {
                        self.budget.debit(now)?;
                        self.send_error(stream, &rpc_error(ErrorCode::CANCELLED, "unsubscribed"));
                        events.push_back(Event::Unsubscribed(stream));
                        Ok(())
                    }
                    Received::Refuse(stream, code, reason) => {
                        self.budget.debit(now)?;
                        self.send_error(stream, &rpc_error(code, reason));
                        Ok(())
                    }
                },
            },
        }
    }

    fn recv_heartbeat(
        &mut self,
        now: Duration,
        frame: &Frame<'_>,
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        let payload = HeartbeatPayload::decode(frame.payload)?;
        if frame.flags & FLAG_ACK != 0 {
            let rtt = self.heartbeat.recv_echo(now, payload.0)?;
            events.push_back(Event::HeartbeatEcho(rtt));
            return Ok(());
        }
        // A fair sender has at most this many under way, so more of them waiting here are a flood.
        if self.outbound.control_len() > 2 * HEARTBEATS_OUTSTANDING_MAX {
            return Err(ConnectionError::Protocol("too many HEARTBEATs"));
        }
        self.outbound.push_control(FrameType::HEARTBEAT, FLAG_ACK, 0, payload.encode().to_vec());
        Ok(())
    }

    fn recv_go_away(
        &mut self,
        frame: &Frame<'_>,
        events: &mut VecDeque<Event>,
    ) -> Result<(), ConnectionError> {
        if matches!(self.side, Side::Server(_)) {
            return Err(ConnectionError::Protocol("a frame that a client does not send"));
        }
        let go_away = GoAway::decode(frame.payload)?;
        self.peer_is_going_away = true;
        events.push_back(Event::GoAway(go_away));
        Ok(())
    }

    /// Sends a HEARTBEAT; says whether one more may be under way.
    pub(super) fn send_heartbeat(&mut self, now: Duration) -> bool {
        let Some(stamp) = self.heartbeat.start(now) else { return false };
        self.outbound.push_control(FrameType::HEARTBEAT, 0, 0, HeartbeatPayload(stamp).encode().to_vec());
        true
    }

    /// Queues a message; `false` when it is over the limit.
    pub(super) fn send(&mut self, stream: u32, frame_type: FrameType, message: &impl Encode) -> bool {
        // Not even written when its documents alone are over.
        message.content_len() <= self.message_max
            && self.outbound.write(stream, frame_type, message, self.message_max)
    }

    /// Server: queues an event that was written for many; `false` when it is over the limit.
    pub(super) fn send_prepared(&mut self, stream: u32, event: &PreparedEvent, lag: u32) -> bool {
        self.outbound.write_prepared(stream, event, lag, self.message_max)
    }

    /// Server: takes no new stream, and says so.
    pub(super) fn go_away(&mut self, code: ErrorCode, delay: Duration) {
        if let Side::Server(streams) = &mut self.side {
            let last_stream = streams.go_away();
            let delay_ms = u32::try_from(delay.as_millis()).unwrap_or(u32::MAX);
            let go_away = GoAway { delay_ms, last_stream, code };
            self.outbound.push_control(FrameType::GOAWAY, 0, 0, go_away.encode());
        }
    }

    /// Ends a stream with an error; one too long to send loses its words, not its code.
    pub(super) fn send_error(&mut self, stream: u32, error: &RpcError) {
        if !self.send(stream, FrameType::RPC_ERROR, error) {
            let short = rpc_error(error.code, "the message of this error was too long");
            self.send(stream, FrameType::RPC_ERROR, &short);
        }
    }

    /// Appends the body of one record with everything that fits, if there is anything.
    pub(super) fn seal_record(&mut self, now: Duration, out: &mut Vec<u8>) -> Result<bool, ConnectionError> {
        if self.outbound.is_empty() {
            return Ok(false);
        }
        let from = out.len();
        self.outbound.pop_frames(out, self.plaintext_max);
        self.plaintext_max = RECORD_PLAINTEXT_MAX;
        self.records.seal(out, from)?;
        self.heartbeat.on_record_sent(now);
        Ok(true)
    }
}

/// An error message whose retry follows from the code.
pub(super) fn rpc_error(code: ErrorCode, message: &str) -> RpcError {
    RpcError {
        code,
        message: message.to_owned(),
        retryable: code.is_retryable(),
        retry_after_ms: 0,
        details: Bytes::new(),
    }
}
