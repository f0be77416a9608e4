//! One connection on one socket, with its clock.

use super::error::ConnectReason;
use super::transport::{Io, Socket};
use crate::conn::{ClientConfig, Connection, Entropy, Event, Limits, Peer};
use crate::noise::PublicKey;
use crate::time::Timer;
use crate::wire::{ErrorCode, Suite, handshake::ServerHello};
use std::task::{Context, Poll};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// What the end of a connection may still take: our CLOSE on its way, the peer's behind it.
const LINGER: Duration = Duration::from_secs(1);

/// The connection in use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The key that the server has proved to hold.
    pub server_key: PublicKey,
    /// The Noise pattern and the cipher.
    pub suite: Suite,
    /// Names the connection in the logs of both sides.
    pub connection_id: [u8; 16],
    /// The hash of the handshake: the same on both sides and different for every connection (channel binding).
    pub handshake_hash: [u8; 32],
    /// From HANDSHAKE_INIT to HANDSHAKE_RESPONSE, without name and TCP.
    pub handshake_time: Duration,
    /// Name, TCP and WebSocket before that.
    pub transport_time: Duration,
    /// Calls that may be in flight; more wait here.
    pub calls_max: u16,
    /// Subscriptions that may be open.
    pub subscriptions_max: u16,
}

impl ConnectionInfo {
    /// Before the handshake.
    fn blank(transport_time: Duration) -> Self {
        Self {
            server_key: PublicKey([0; 32]),
            suite: Suite(0),
            connection_id: [0; 16],
            handshake_hash: [0; 32],
            handshake_time: Duration::ZERO,
            transport_time,
            calls_max: 0,
            subscriptions_max: 0,
        }
    }
}

/// A connection on its socket.
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) info: ConnectionInfo,
    socket: Socket,
    started: Instant,
    timer: Timer,
    /// Counts writes: what was handed to the connection since the last one has not left this process.
    writes: u64,
    /// `writes` when the open connection last left something with the socket.
    left_at: Option<u64>,
    /// The present, as of the last time that something was waited for.
    now: Duration,
    /// The moment of the last input, as the connection was told.
    heard_at: Duration,
    /// Whether the socket has everything that the connection had to say.
    took_all: bool,
    /// Whether a caller may write by itself what it adds: nobody has since the task looked, and no others are about to add
    /// something that would share the record.
    writes_at_once: bool,
    /// Callers that were woken together.
    expected: usize,
}

impl Link {
    /// Runs the handshake.
    pub(super) async fn open(
        socket: Socket,
        config: ClientConfig,
        transport_time: Duration,
    ) -> Result<Self, ConnectReason> {
        let started = Instant::now();
        let mut ephemeral = [0; 32];
        getrandom::fill(&mut ephemeral).map_err(ConnectReason::Random)?;
        let entropy = Entropy { ephemeral, connection_id: [0; 16], server_time_ms: 0 };
        let connection = Connection::client(Arc::new(config), entropy, socket.framing(), Duration::ZERO)
            .map_err(ConnectReason::Options)?;
        let mut link = Self {
            connection,
            info: ConnectionInfo::blank(transport_time),
            socket,
            started,
            timer: Timer::default(),
            writes: 0,
            left_at: None,
            now: Duration::ZERO,
            heard_at: Duration::ZERO,
            took_all: false,
            writes_at_once: false,
            expected: 0,
        };
        loop {
            if let Some(Event::Connected(peer, hello)) = link.connection.poll_event() {
                link.greet(&peer, &hello);
                return Ok(link);
            }
            if let Some(end) = link.connection.end() {
                return Err(ConnectReason::Connection(end.clone()));
            }
            link.fill();
            let io = std::future::poll_fn(|context| link.poll(context, None)).await;
            link.handle(io);
        }
    }

    fn greet(&mut self, peer: &Peer, hello: &ServerHello) {
        self.info.server_key = peer.key.expect("every pattern of a client ends with the server's key known");
        self.info.suite = peer.suite;
        self.info.connection_id = peer.connection_id;
        self.info.handshake_hash = peer.handshake_hash;
        self.info.handshake_time = self.heard_at;
        // The connection keeps to the smaller ones of its own limits and the server's.
        let own = Limits::default();
        self.info.calls_max = hello.calls_max.min(own.calls_max);
        self.info.subscriptions_max = hello.subscriptions_max.min(own.subscriptions_max);
    }

    /// The connection's time, as of the last time that something was waited for.
    pub(super) fn now(&self) -> Duration {
        self.now
    }

    /// The same as a moment.
    pub(super) fn instant(&self) -> Instant {
        self.started + self.now
    }

    /// What a server is told of a deadline, in milliseconds.
    pub(super) fn left_ms(&self, deadline: Instant) -> u32 {
        let left = deadline.saturating_duration_since(self.instant());
        u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1)
    }

    /// Tells the time to a caller's command; it never goes back.
    pub(super) fn see_time(&mut self, now: Instant) {
        self.now = self.now.max(now.saturating_duration_since(self.started));
    }

    pub(super) fn heard_at(&self) -> Duration {
        self.heard_at
    }

    pub(super) fn writes(&self) -> u64 {
        self.writes
    }

    /// Moves what the connection has to say towards the socket.
    pub(super) fn fill(&mut self) {
        self.took_all = self.socket.fill(&mut self.connection, self.now);
        // What an ended connection still has to say is its CLOSE.
        if self.connection.end().is_none() && self.socket.has_output() {
            self.left_at = Some(self.writes);
        }
    }

    /// The task looks.
    pub(super) fn begin_turn(&mut self) {
        self.writes_at_once = self.expected <= 1;
    }

    /// So many callers are woken, and may make their next calls at once.
    pub(super) fn expect_calls(&mut self, callers: usize) {
        if callers > 0 {
            self.expected = callers;
        }
    }

    /// Writes for a caller what it has added, when waiting for others would gain nothing; `false` when there is something
    /// left for the task.
    pub(super) fn write_at_once(&mut self) -> bool {
        if !std::mem::take(&mut self.writes_at_once) {
            return false;
        }
        self.fill();
        let wrote = self.socket.try_write();
        self.writes += u64::from(wrote);
        self.took_all && wrote && !self.socket.has_output()
    }

    /// Ready when the socket or a timer gives something to do: `None` when the connection's time or `due` may have come.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, due: Option<Instant>) -> Poll<Option<Io>> {
        while let Poll::Ready(io) = self.socket.poll_io(context) {
            self.writes += u64::from(io.wrote);
            // What was written is no reason to come back, unless the connection has more to write.
            if io.read || io.eof || !self.took_all {
                return Poll::Ready(Some(io));
            }
        }
        let of_connection = self.connection.poll_timeout().map(|due| self.started + due);
        let due = of_connection.into_iter().chain(due).min();
        self.timer.poll(context, due).map(|()| None)
    }

    /// Does what there is to do after something was waited for: with what happened on the socket, and what is due.
    pub(super) fn handle(&mut self, io: Option<Io>) {
        let now = self.started.elapsed();
        self.now = now;
        if let Some(Io { read, eof, .. }) = io {
            if read {
                self.heard_at = now;
                self.socket.deliver(&mut self.connection, now);
            }
            if eof {
                let _ = self.connection.handle_eof();
            }
        }
        if self.connection.poll_timeout().is_some_and(|due| due <= now) {
            // The connection remembers its end.
            let _ = self.connection.handle_timeout(now);
        }
    }

    /// Ends a connection whose calls are made again where nothing of them was sent: nothing of them is sent here either. With
    /// one of them before it in the socket, CLOSE cannot go out.
    pub(super) async fn finish_without_unsent(self) {
        if self.left_at == Some(self.writes) && self.socket.has_output() {
            let _ = crate::time::timeout(LINGER, self.socket.finish()).await;
        } else {
            self.finish().await;
        }
    }

    /// Ends the connection: CLOSE goes out behind what is queued before the transport ends, if it takes bytes.
    pub(super) async fn finish(mut self) {
        self.connection.close(ErrorCode::NO_ERROR, "");
        let Self { connection, socket, started, .. } = &mut self;
        let flush = async {
            loop {
                socket.fill(connection, started.elapsed());
                if !socket.has_output() {
                    return true;
                }
                // Input no longer matters, but has to be taken: a peer that is blocked on its own writes reads nothing.
                let io = std::future::poll_fn(|context| socket.poll_io(context)).await;
                if io.eof {
                    return false;
                }
                socket.deliver(connection, started.elapsed());
            }
        };
        if crate::time::timeout(LINGER, flush).await == Ok(true) {
            let _ = crate::time::timeout(LINGER, self.socket.finish()).await;
        }
    }
}
