//! The grammar of a connection: `handle_*` takes what comes from outside, commands do what the owner wants, `poll_*`
//! gives what is to be done. Only wiring: each concern has a file of its own.

mod commands;

use super::{
    ApiMisuse, ClientConfig, ConnectionError, Entropy, Event, Framing, Limits, ServerConfig,
    handshake::{client::ExpectResponse, server::ExpectInit},
    session::{Session, Side},
};
use crate::wire::{
    ErrorCode, FrameType, RECORD_HEAD_LEN,
    control::Close,
    deframe,
    envelope::Event as EventMessage,
    handshake::encode_refusal,
    limits::{HEARTBEAT_INTERVAL, RECORD_BODY_MAX, UNAUTHENTICATED_BODY_MAX},
};
use bytes::{Buf, BytesMut};
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// How long a server that asked for new keys waits before it closes.
const KEY_AGE_GRACE: Duration = Duration::from_secs(30);

enum Phase {
    AwaitInit(Box<ExpectInit>),
    AwaitResponse(Box<ExpectResponse>),
    Open(Box<Session>),
    /// Being replaced, or over.
    Over,
}

/// One end of a connection. See the [module](super) for how it is driven.
///
/// After each `handle_*` or command, take what [`poll_event`](Self::poll_event) and
/// [`poll_transmit`](Self::poll_transmit) give until they give nothing, then wait for input or until
/// [`poll_timeout`](Self::poll_timeout).
pub struct Connection {
    phase: Phase,
    is_client: bool,
    framing: Framing,
    limits: Limits,
    /// When the handshake began, and with it the age of the keys.
    started: Duration,
    /// Server: when new keys are asked for; spread, so that connections of one moment do not all come back at once.
    renew_at: Duration,
    renewal_sent: bool,
    /// A body to send before anything else: a handshake message, a refusal.
    clear: Option<Vec<u8>>,
    /// CLOSE is to be sent after what is queued.
    closing: Option<Close>,
    /// Why the connection is over.
    end: Option<ConnectionError>,
    events: VecDeque<Event>,
}

impl Connection {
    /// A server's end, awaiting HANDSHAKE_INIT.
    ///
    /// # Errors
    /// A configuration that cannot work.
    pub fn server(
        config: Arc<ServerConfig>,
        entropy: Entropy,
        framing: Framing,
        now: Duration,
    ) -> Result<Self, ApiMisuse> {
        config.check()?;
        let limits = config.limits.clone();
        let renew_at = now.saturating_add(renewal_age(limits.key_age_max, entropy.connection_id[0]));
        let phase = Phase::AwaitInit(Box::new(ExpectInit::new(config, entropy)));
        Ok(Self { renew_at, ..Self::new(phase, framing, limits, now) })
    }

    /// A client's end; the first [`poll_transmit`](Self::poll_transmit) gives HANDSHAKE_INIT.
    ///
    /// # Errors
    /// A configuration that cannot work.
    pub fn client(
        config: Arc<ClientConfig>,
        entropy: Entropy,
        framing: Framing,
        now: Duration,
    ) -> Result<Self, ApiMisuse> {
        let limits = config.limits.clone();
        let (state, init) = ExpectResponse::start(config, entropy)?;
        let mut connection = Self::new(Phase::AwaitResponse(Box::new(state)), framing, limits, now);
        connection.clear = Some(init);
        Ok(connection)
    }

    fn new(phase: Phase, framing: Framing, limits: Limits, now: Duration) -> Self {
        Self {
            is_client: matches!(phase, Phase::AwaitResponse(_)),
            phase,
            framing,
            limits,
            started: now,
            renew_at: Duration::MAX,
            renewal_sent: false,
            clear: None,
            closing: None,
            end: None,
            // Most connections never have two at once, and an idle one keeps this room.
            events: VecDeque::with_capacity(1),
        }
    }

    // Getters.

    /// Why the connection is over, if it is. Output may still be waiting.
    pub fn end(&self) -> Option<&ConnectionError> {
        self.end.as_ref()
    }

    /// Whether the connection is over and nothing is left to send.
    pub fn is_drained(&self) -> bool {
        self.end.is_some() && self.clear.is_none() && self.closing.is_none()
    }

    /// Whether calls can be made or answered: the handshake is done and nothing has ended the connection.
    pub fn is_open(&self) -> bool {
        self.end.is_none() && self.closing.is_none() && matches!(&self.phase, Phase::Open(s) if s.is_proved())
    }

    /// Streams that are open.
    pub fn open_streams(&self) -> usize {
        match &self.phase {
            Phase::Open(session) => match &session.side {
                Side::Client(streams) => streams.open(),
                Side::Server(streams) => streams.open(),
            },
            _ => 0,
        }
    }

    /// Bytes of messages that wait to be sent: stop giving it more while this is high.
    pub fn outbound_bytes(&self) -> usize {
        match &self.phase {
            Phase::Open(session) => session.outbound.bytes(),
            _ => 0,
        }
    }

    /// Server: items that may be sent on a subscription now; `None` when there is no such subscription.
    pub fn subscription_credit(&self, stream: u32) -> Option<u32> {
        match &self.phase {
            Phase::Open(session) => match &session.side {
                Side::Server(streams) => streams.credit(stream),
                Side::Client(_) => None,
            },
            _ => None,
        }
    }

    /// Items that may be sent on a call now; `None` when there is no such call, or it takes none (any more).
    pub fn call_credit(&self, stream: u32) -> Option<u32> {
        match &self.phase {
            Phase::Open(session) => match &session.side {
                Side::Server(streams) => streams.call_credit(stream),
                Side::Client(streams) => streams.call_credit(stream),
            },
            _ => None,
        }
    }

    // From outside.

    /// Takes bytes of the transport off the front of `input`: whole records, as many as there are.
    ///
    /// # Errors
    /// The end of the connection. What [`poll_transmit`](Self::poll_transmit) still gives is to be sent.
    pub fn handle_input(&mut self, now: Duration, input: &mut BytesMut) -> Result<(), ConnectionError> {
        while self.end.is_none() {
            match deframe(input, self.record_body_max()) {
                Ok(Some(len)) => {
                    let record = RECORD_HEAD_LEN + len;
                    let handled = self.handle_record(now, &mut input[RECORD_HEAD_LEN..record]);
                    input.advance(record);
                    handled?;
                }
                Ok(None) => return Ok(()),
                Err(error) => return self.fail(error.into()),
            }
        }
        input.clear();
        self.result()
    }

    /// Takes the body of one record (a WebSocket message). Decrypts in place.
    ///
    /// # Errors
    /// As [`handle_input`](Self::handle_input).
    pub fn handle_record(&mut self, now: Duration, body: &mut [u8]) -> Result<(), ConnectionError> {
        if self.end.is_some() {
            return self.result();
        }
        if body.is_empty() || body.len() > self.record_body_max() {
            return self.fail(ConnectionError::Protocol("a record of a length that is not allowed"));
        }
        match self.recv_record(now, body) {
            Ok(()) => self.result(),
            Err(error) => self.fail(error),
        }
    }

    /// The transport ended. Without a CLOSE before it, that is an error.
    ///
    /// # Errors
    /// Why the connection is over; an orderly end is [`ConnectionError::is_orderly`].
    pub fn handle_eof(&mut self) -> Result<(), ConnectionError> {
        self.clear = None;
        self.closing = None;
        if let Phase::Open(session) = &mut self.phase {
            session.outbound.clear();
        }
        let end = self.end.get_or_insert(ConnectionError::Truncated).clone();
        Err(end)
    }

    /// Does what is due: call it when [`poll_timeout`](Self::poll_timeout) has come.
    ///
    /// # Errors
    /// As [`handle_input`](Self::handle_input).
    pub fn handle_timeout(&mut self, now: Duration) -> Result<(), ConnectionError> {
        if self.end.is_some() {
            return self.result();
        }
        let handshake_deadline = self.handshake_deadline();
        match &mut self.phase {
            Phase::Open(session) if session.is_proved() => {
                session.outbound.rest();
                if session.heartbeat.is_peer_silent(now) {
                    return self.fail(ConnectionError::IdleTimeout);
                }
                if session.heartbeat.is_due(now) {
                    session.send_heartbeat(now);
                }
                if now >= self.renew_at && !self.renewal_sent {
                    self.renewal_sent = true;
                    self.renew_at = now.saturating_add(KEY_AGE_GRACE);
                    session.go_away(ErrorCode::SESSION_EXPIRED, Duration::ZERO);
                } else if now >= self.renew_at {
                    self.close(ErrorCode::SESSION_EXPIRED, "the keys are too old");
                }
                self.result()
            }
            _ if now >= handshake_deadline => self.fail(ConnectionError::HandshakeTimeout),
            _ => Ok(()),
        }
    }

    // Commands: those of one side are in `commands`.

    /// Ends the connection: CLOSE follows what is queued. Before there are keys a server refuses in clear and a client
    /// just ends.
    pub fn close(&mut self, code: ErrorCode, reason: &str) {
        if self.end.is_some() || self.closing.is_some() {
            return;
        }
        let close = Close { code, reason: reason.to_owned() };
        self.end = Some(ConnectionError::ClosedHere(close.clone()));
        self.queue_close(close);
    }

    /// Ends the connection over a fault of the peer: CLOSE goes out, and nothing of what is queued does.
    pub fn abort(&mut self, code: ErrorCode, reason: &str) {
        if self.end.is_none()
            && let Phase::Open(session) = &mut self.phase
        {
            session.outbound.clear();
        }
        self.close(code, reason);
    }

    // Outputs.

    /// The next event, if there is one.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Client: the next event, if it is an item of this subscription: what came in one record is taken together.
    #[must_use]
    pub fn poll_item(&mut self, stream: u32) -> Option<EventMessage> {
        match self.events.pop_front_if(|event| matches!(event, Event::Item(of, _) if *of == stream))? {
            Event::Item(_, item) => Some(item),
            _ => None,
        }
    }

    /// Appends one record to `out`; `false`, and nothing is appended, when there is nothing to send. With
    /// [`Framing::Messages`] what is appended is one body, and a message.
    #[must_use]
    pub fn poll_transmit(&mut self, now: Duration, out: &mut Vec<u8>) -> bool {
        let from = out.len();
        if self.framing == Framing::Stream {
            out.extend_from_slice(&[0xff; 2]);
        }
        let body_from = out.len();
        if !self.write_body(now, out) {
            out.truncate(from);
            return false;
        }
        if self.framing == Framing::Stream {
            let len = u16::try_from(out.len() - body_from).expect("a record body is at most 65,535 bytes");
            out[from..body_from].copy_from_slice(&len.to_be_bytes());
        }
        true
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.end.is_some() {
            return None;
        }
        match &self.phase {
            Phase::Open(session) if session.is_proved() => {
                Some(session.heartbeat.next_timeout().min(self.renew_at))
            }
            _ => Some(self.handshake_deadline()),
        }
    }

    // Wiring.

    fn write_body(&mut self, now: Duration, out: &mut Vec<u8>) -> bool {
        if let Some(body) = self.clear.take() {
            out.extend_from_slice(&body);
            return true;
        }
        let Phase::Open(session) = &mut self.phase else {
            self.closing = None;
            return false;
        };
        if session.outbound.is_empty() {
            let Some(close) = self.closing.take() else { return false };
            session.outbound.push_control(FrameType::CLOSE, 0, 0, close.encode());
        }
        match session.seal_record(now, out) {
            Ok(written) => written,
            Err(error) => {
                // Without keys there is no CLOSE either.
                session.outbound.clear();
                self.closing = None;
                self.end.get_or_insert(error);
                false
            }
        }
    }

    fn recv_record(&mut self, now: Duration, body: &mut [u8]) -> Result<(), ConnectionError> {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::AwaitInit(state) => {
                let limits = state.config().limits.clone();
                let accepted = state.handle(body)?;
                self.clear = Some(accepted.response);
                let session = Session::server(accepted.records, accepted.peer, &limits, now);
                self.phase = Phase::Open(Box::new(session));
            }
            Phase::AwaitResponse(state) => {
                let connected = state.handle(body)?;
                let hello = connected.hello;
                self.limits.heartbeat_interval = heartbeat_interval(&self.limits, hello.idle_timeout_ms);
                let session = Session::client(connected.records, &hello, &self.limits, now);
                self.phase = Phase::Open(Box::new(session));
                self.events.push_back(Event::Connected(connected.peer, hello));
            }
            Phase::Open(mut session) => {
                let received = session.handle_record(now, body, &mut self.events);
                self.phase = Phase::Open(session);
                if let Some(close) = received? {
                    self.on_close(close);
                }
            }
            Phase::Over => {}
        }
        Ok(())
    }

    /// The peer's CLOSE: answered with ours, so that neither transport ends without one.
    fn on_close(&mut self, close: Close) {
        if let Phase::Open(session) = &mut self.phase {
            session.outbound.clear();
        }
        self.end = Some(ConnectionError::ClosedByPeer(close));
        self.closing = Some(Close { code: ErrorCode::NO_ERROR, reason: String::new() });
    }

    /// What was received before stays to be polled: it authenticated, and whether it came in the same read as the fault
    /// means nothing.
    fn fail(&mut self, error: ConnectionError) -> Result<(), ConnectionError> {
        if let Phase::Open(session) = &mut self.phase {
            session.outbound.clear();
        }
        self.queue_close(error.to_close());
        self.end = Some(error.clone());
        Err(error)
    }

    /// With keys CLOSE is encrypted; before, a server refuses in clear, and a client says nothing.
    fn queue_close(&mut self, close: Close) {
        match &self.phase {
            Phase::Open(_) => self.closing = Some(close),
            _ if self.is_client => self.clear = None,
            _ => self.clear = Some(encode_refusal(close.code).to_vec()),
        }
    }

    fn result(&self) -> Result<(), ConnectionError> {
        match &self.end {
            Some(end) => Err(end.clone()),
            None => Ok(()),
        }
    }

    fn handshake_deadline(&self) -> Duration {
        self.started.saturating_add(self.limits.handshake_deadline)
    }

    /// The longest record body that is taken now, in bytes: what a message of a WebSocket may hold.
    #[must_use]
    pub fn record_body_max(&self) -> usize {
        match &self.phase {
            Phase::Open(session) if session.is_proved() => RECORD_BODY_MAX,
            _ => UNAUTHENTICATED_BODY_MAX,
        }
    }

    fn session(&mut self) -> Result<&mut Session, ApiMisuse> {
        if self.end.is_some() {
            return Err(ApiMisuse::NotOpen);
        }
        match &mut self.phase {
            Phase::Open(session) => Ok(session),
            _ => Err(ApiMisuse::NotOpen),
        }
    }
}

/// 0.9 to 1.1 times `key_age_max`, by a random byte.
fn renewal_age(key_age_max: Duration, spread: u8) -> Duration {
    let tenth = key_age_max / 10;
    // Divided first, so that no age overflows.
    key_age_max.saturating_sub(tenth).saturating_add((tenth / 255).saturating_mul(2 * u32::from(spread)))
}

/// A client beats at least three times within the server's idle timeout.
fn heartbeat_interval(limits: &Limits, idle_timeout_ms: u32) -> Duration {
    let third = Duration::from_millis(u64::from(idle_timeout_ms)) / 3;
    limits.heartbeat_interval.min(third).max(Duration::from_millis(100)).min(HEARTBEAT_INTERVAL)
}
