//! One task owns one connection: bytes in, calls and subscriptions, bytes out.
//!
//! Backpressure is one chain. While more than [`outbound`](super::config::LimitsConfig::outbound) bytes wait for the
//! socket, nothing is read, no answer is taken from a call and no event from a subscription; the peer's sockets fill,
//! and it stops. A peer that takes nothing for the write deadline is given up.

mod calls;
mod subscriptions;

use super::{
    admission::HalfOpen,
    alarms::{Alarm, Alarms},
    calls::Calls,
    clock,
    flows::{self, Flows},
    messages::end_status,
    shared::{Counted, Shared},
    subscriptions::{Output, Subscriptions, authorise_source},
    transport::{LINGER, ReadHalf, WriteHalf},
};
use crate::{
    api,
    auth::{self, Principal},
    conn::{ApiMisuse, Connection, ConnectionError, Event, Framing, Peer},
    rpc::{Answer, CancelSignal, ConnectionId, Status, Untrusted},
    store::feed::EndReason,
    time::Timer,
    wire::ErrorCode,
};
use futures_util::FutureExt;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};

/// How long a client is asked to stay away at most when the daemon stops; spread, so that a fleet does not come back as
/// one.
const GO_AWAY_DELAY_MAX: Duration = Duration::from_secs(2);

/// Why a driver ended.
#[derive(Debug, thiserror::Error)]
enum DriverError {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("the transport failed: {0}")]
    Io(#[from] io::Error),
    #[error("the peer did not read for too long")]
    WriteDeadline,
    #[error("the system gave no randomness: {0}")]
    Randomness(#[from] getrandom::Error),
    #[error(transparent)]
    Configuration(#[from] ApiMisuse),
}

/// Serves a connection from its first record to its end.
///
/// What it waits with is small: what it begins with is used up before the future is made.
pub(super) fn serve<R: ReadHalf, W: WriteHalf>(
    shared: Arc<Shared>,
    peer: SocketAddr,
    accepted: Duration,
    halves: (R, W),
    half_open: HalfOpen,
) -> impl Future<Output = ()> + Send + use<R, W> {
    let max = shared.config.limits.connections;
    // The permit before accept is the bound; this is the count that others read.
    let counted = Counted::take(&shared, |counters| &counters.connections, max);
    let driver = match Driver::new(shared, peer, accepted, halves, half_open) {
        Ok(driver) => Some(driver),
        Err(error) => {
            log_end(peer, &Err(error));
            None
        }
    };
    async move {
        let _counted = counted;
        if let Some(mut driver) = driver {
            driver.run().await;
        }
    }
}

struct Driver<R, W> {
    shared: Arc<Shared>,
    peer_address: SocketAddr,
    connection: Connection,
    reader: R,
    writer: W,
    /// Until the handshake is done; on the heap, because it is long gone when memory counts.
    half_open: Option<Box<HalfOpen>>,
    /// Whom the connection belongs to; the rest of it is set for each call.
    established: Option<api::Context>,
    calls: Calls,
    flows: Flows,
    subscriptions: Subscriptions,
    alarms: Alarms,
    timer: Timer,
    draining_until: Option<Duration>,
    /// When the latest input was read: what it brought is taken in the same round.
    read_at: Duration,
    /// When the write that is stuck began to be.
    write_stuck_since: Option<Duration>,
}

/// What woke the driver.
enum Wake {
    Read(io::Result<bool>),
    Written(io::Result<()>),
    Answer(u32, Result<Answer, Status>),
    Items(flows::Output),
    Subscription(Output),
    Alarm(Alarm),
    Timeout,
}

impl<R: ReadHalf, W: WriteHalf> Driver<R, W> {
    /// Takes a transport over. `accepted` is when it came: the handshake deadline counts from there.
    fn new(
        shared: Arc<Shared>,
        peer_address: SocketAddr,
        accepted: Duration,
        (reader, writer): (R, W),
        half_open: HalfOpen,
    ) -> Result<Box<Self>, DriverError> {
        let config = shared.connection_config.clone();
        let connection = Connection::server(config, clock::entropy()?, R::FRAMING, accepted)?;
        Ok(Box::new(Self {
            alarms: Alarms::new(&shared.bells),
            timer: Timer::default(),
            shared,
            peer_address,
            connection,
            reader,
            writer,
            half_open: Some(Box::new(half_open)),
            established: None,
            calls: Calls::default(),
            flows: Flows::default(),
            subscriptions: Subscriptions::default(),
            draining_until: None,
            read_at: accepted,
            write_stuck_since: None,
        }))
    }

    /// Runs the connection to its end.
    async fn run(&mut self) {
        let result = self.serve().await;
        // What cannot be read can still be answered.
        let is_refused =
            matches!(&result, Err(DriverError::Io(error)) if error.kind() == io::ErrorKind::InvalidData);
        if is_refused {
            // It gets no more than the reason.
            let _truncated = self.connection.handle_eof();
        }
        if is_refused || matches!(&result, Err(DriverError::Connection(_))) {
            // A stranger holds no half-open place while we take leave.
            self.half_open = None;
            let has_peer_said_all =
                matches!(&result, Err(DriverError::Connection(ConnectionError::ClosedByPeer(_))));
            // Only at the end: an open connection does not keep room for it.
            Box::pin(self.say_goodbye(has_peer_said_all)).await;
        }
        log_end(self.peer_address, &result);
    }

    async fn serve(&mut self) -> Result<(), DriverError> {
        let mut now = self.shared.clock.now();
        loop {
            self.take_events(now);
            self.close_when_drained(now);
            self.writer.take(&mut self.connection, now);
            self.write_at_once(now)?;
            if !self.writer.has_output() {
                self.write_stuck_since = None;
                if self.connection.is_drained() {
                    return self.connection.end().cloned().map_or(Ok(()), |end| Err(end.into()));
                }
            }
            let wake = self.wait(now).await?;
            let is_answer = matches!(wake, Wake::Answer(..));
            now = self.shared.clock.now();
            self.on_wake(wake, now)?;
            if is_answer {
                self.gather_answers().await;
            }
        }
    }

    /// Writes as far as the transport takes bytes without being waited for, which it does almost always.
    fn write_at_once(&mut self, now: Duration) -> Result<(), DriverError> {
        while self.writer.has_output()
            && let Some(written) = self.writer.write().now_or_never()
        {
            written?;
            self.write_stuck_since = None;
            self.writer.take(&mut self.connection, now);
        }
        Ok(())
    }

    /// Takes the answers that come at the same moment, so that one write carries them all. They are those of calls that
    /// were woken together (the database answers many in one read) and have not run yet: they run while this yields.
    async fn gather_answers(&mut self) {
        if self.calls.len() == 0 {
            return;
        }
        tokio::task::yield_now().await;
        while self.has_room()
            && let Some((stream, result)) = self.calls.next().now_or_never()
        {
            self.finish(stream, result);
        }
    }

    async fn wait(&mut self, now: Duration) -> Result<Wake, DriverError> {
        let room = self.has_room();
        let timeout = self.next_timeout(now);
        let timeout = timeout.map(|at| self.shared.clock.instant(at));
        // What has nothing to wait for is not asked: most connections have one kind of work at a time.
        let calls = room && self.calls.len() > 0;
        let flows = room && self.flows.is_running();
        let subscriptions = room && self.subscriptions.is_running();
        let wake = tokio::select! {
            biased;
            written = self.writer.write(), if self.writer.has_output() => Wake::Written(written),
            read = self.reader.read(), if room => Wake::Read(read),
            (stream, result) = self.calls.next(), if calls => Wake::Answer(stream, result),
            output = self.flows.next(), if flows => Wake::Items(output),
            output = self.subscriptions.next(), if subscriptions => Wake::Subscription(output),
            alarm = self.alarms.next() => Wake::Alarm(alarm),
            () = self.timer.wait(timeout) => Wake::Timeout,
        };
        Ok(wake)
    }

    /// Whether more may be queued for the peer.
    fn has_room(&self) -> bool {
        let waiting = u64::try_from(self.connection.outbound_bytes()).unwrap_or(u64::MAX);
        waiting < self.shared.config.limits.outbound.get()
    }

    /// The earliest of the connection's own timers, the write deadline and the end of the drain.
    fn next_timeout(&mut self, now: Duration) -> Option<Duration> {
        let write = self.writer.has_output().then(|| {
            let since = *self.write_stuck_since.get_or_insert(now);
            since + self.shared.config.limits.write_deadline.get()
        });
        [self.connection.poll_timeout(), write, self.draining_until].into_iter().flatten().min()
    }

    fn on_wake(&mut self, wake: Wake, now: Duration) -> Result<(), DriverError> {
        match wake {
            Wake::Written(written) => {
                written?;
                self.write_stuck_since = None;
            }
            Wake::Read(read) => {
                if read? {
                    self.read_at = now;
                    let handed_over = self.reader.hand_over(&mut self.connection, now);
                    while let Some(reply) = self.reader.reply() {
                        self.writer.reply(reply);
                    }
                    handed_over?;
                } else {
                    self.connection.handle_eof()?;
                }
            }
            Wake::Answer(stream, result) => self.finish(stream, result),
            Wake::Items(output) => self.on_items(output),
            Wake::Subscription(output) => self.on_subscription(output),
            Wake::Alarm(Alarm::AccessChanged) => self.recheck_access(),
            Wake::Alarm(Alarm::Drain) => {
                let until = *self.shared.drain.borrow();
                if let (Some(until), None) = (until, self.draining_until) {
                    self.draining_until = Some(until);
                    // A peer without keys yet has no stream to lose: its handshake deadline ends it.
                    let delay = clock::jitter(GO_AWAY_DELAY_MAX);
                    if self.connection.go_away(ErrorCode::GOING_AWAY, delay).is_err() {
                        self.connection.close(ErrorCode::GOING_AWAY, "the server is shutting down");
                    }
                }
            }
            Wake::Timeout => {
                let stuck = self.write_stuck_since.filter(|_| self.writer.has_output());
                if stuck.is_some_and(|since| now >= since + self.shared.config.limits.write_deadline.get()) {
                    return Err(DriverError::WriteDeadline);
                }
                self.reader.rest();
                self.writer.rest();
                self.calls.rest();
                self.flows.rest();
                self.subscriptions.rest();
                self.connection.handle_timeout(now)?;
            }
        }
        Ok(())
    }

    /// While draining: closes as soon as every call is answered, and at the latest when the drain ends. Subscriptions, which
    /// went on until then, end before that.
    fn close_when_drained(&mut self, now: Duration) {
        if let Some(until) = self.draining_until
            && (self.calls.len() + self.flows.len() == 0 || now >= until)
        {
            let streams: Vec<u32> = self.subscriptions.sources().map(|(stream, _)| stream).collect();
            for stream in streams {
                self.end_subscription(stream, end_status(EndReason::ShuttingDown, None));
            }
            self.connection.close(ErrorCode::GOING_AWAY, "the server is shutting down");
            self.draining_until = None;
        }
    }

    /// `opened_at` is when the latest input had been opened and decoded.
    fn take_events(&mut self, opened_at: Duration) {
        while let Some(event) = self.connection.poll_event() {
            match event {
                Event::Established(peer) => self.on_established(&peer),
                Event::Call(stream, call) => self.on_call(stream, call, opened_at),
                Event::Subscribe(stream, subscribe) => self.on_subscribe(stream, subscribe),
                Event::Credit(stream) => self.resume(stream),
                Event::Publish(stream, publish) => self.on_publish(stream, publish, opened_at),
                Event::Data(stream, item) => self.flows.recv(stream, item),
                Event::DataEnd(stream) => self.flows.recv_end(stream),
                Event::Unsubscribed(stream) => self.subscriptions.remove(stream),
                Event::Cancelled(stream) => self.on_cancelled(stream),
                Event::HeartbeatEcho(_) => {}
                // What a client's connection says; `Connection` refuses the frames behind it.
                Event::Connected(..)
                | Event::Response(..)
                | Event::Error(..)
                | Event::Subscribed(..)
                | Event::Item(..)
                | Event::GoAway(_) => {}
            }
        }
    }

    fn on_established(&mut self, peer: &Peer) {
        self.half_open = None;
        let principal = Principal::from_handshake(peer.key);
        let id = ConnectionId(peer.connection_id);
        if let Err(denied) = auth::authorise_connection(&self.shared.access.load(), &principal) {
            tracing::info!(connection = %id, peer = %self.peer_address, %principal, "connection not let in");
            self.connection.close(denied.code, &denied.message);
            return;
        }
        // Only who is let in: strangers must not fill the table.
        if let Some(key) = &peer.key {
            self.shared.connection_config.remember_peer(key);
        }
        let suite = peer.suite.name().unwrap_or("unknown");
        tracing::debug!(connection = %id, peer = %self.peer_address, %principal, suite, "connection established");
        let mut caller = api::Caller::new(principal, self.shared.access.clone());
        caller.transactions =
            api::Transactions::at_most(self.shared.config.limits.transactions_per_connection);
        self.established = Some(api::Context {
            caller: Arc::new(caller),
            connection: id,
            deadline: None,
            cancelled: CancelSignal::default(),
            metadata: Vec::new(),
        });
    }

    /// The rules changed: the connection and each subscription are judged anew.
    fn recheck_access(&mut self) {
        let Some(caller) = self.established.as_ref().map(|context| context.caller.clone()) else { return };
        let access = caller.access.load();
        if let Err(denied) = auth::authorise_connection(&access, &caller.principal) {
            self.connection.close(denied.code, &denied.message);
            return;
        }
        let denied: Vec<_> = self
            .subscriptions
            .sources()
            .filter_map(|(stream, source)| {
                authorise_source(&access, &caller.principal, source).err().map(|denied| (stream, denied))
            })
            .collect();
        for (stream, denied) in denied {
            self.end_subscription(stream, denied.into());
        }
    }

    /// Sends what is left to say: after an orderly end everything that is queued, after an error only CLOSE. Then takes what
    /// the peer still sends, because to close with something unread has the system send a reset, which can overtake our CLOSE.
    async fn say_goodbye(&mut self, has_peer_said_all: bool) {
        let said = crate::time::timeout(self.shared.config.limits.write_deadline.get(), async {
            // The very last is left to `finish`, so that it can go together with the end.
            loop {
                self.writer.take(&mut self.connection, self.shared.clock.now());
                if self.connection.is_drained() || !self.writer.has_output() {
                    break;
                }
                self.writer.write().await?;
            }
            self.writer.finish().await
        });
        // The peer may be gone: then there is nobody to tell.
        let is_said = matches!(said.await, Ok(Ok(())));
        // Its CLOSE was the last of it; a WebSocket has a message of its own behind that.
        let is_all_read = has_peer_said_all && R::FRAMING == Framing::Stream;
        if is_said && !is_all_read {
            let _hung_up = crate::time::timeout(LINGER, self.reader.discard()).await;
        }
    }
}

/// Logs how a connection ended, at a level that fits.
fn log_end(peer: SocketAddr, result: &Result<(), DriverError>) {
    match result {
        Ok(()) => {}
        Err(DriverError::Connection(error)) if error.is_orderly() => {
            tracing::debug!(%peer, "connection closed");
        }
        Err(error) => {
            // The peer's own words may be in it.
            tracing::info!(%peer, reason = %Untrusted::new(&error.to_string()), "connection ended");
        }
    }
}
