//! One task owns one connection: bytes in, calls and subscriptions, bytes out.
//!
//! Backpressure is one chain. While more than [`outbound`](super::config::LimitsConfig::outbound) bytes wait for the
//! socket, nothing is read, no answer is taken from a call and no event from a subscription; the peer's sockets fill,
//! and it stops. A peer that takes nothing for the write deadline is given up.

use super::{
    admission::HalfOpen,
    alarms::{Alarm, Alarms},
    calls::{Calls, Started},
    clock,
    flows::{self, Flows},
    messages::{end_status, event_message, rpc_error, rpc_response, source},
    shared::{Counted, Established, Shared},
    stages::Stopwatch,
    subscriptions::{Output, Subscriptions, authorise_source},
    timer::Timer,
    transport::{LINGER, ReadHalf, WriteHalf},
};
use crate::{
    api,
    auth::{self, Principal},
    conn::{ApiMisuse, Connection, ConnectionError, Event, Peer},
    rpc::{Answer, Call, ConnectionId, Context, Status, Untrusted},
    store::{
        Json,
        feed::{Item, Overflow, SubscribeRequest},
    },
    wire::{
        ErrorCode,
        envelope::{self, Publish, RpcCall, Subscribe, Subscribed},
    },
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
pub(super) async fn serve<R: ReadHalf, W: WriteHalf>(
    shared: Arc<Shared>,
    peer: SocketAddr,
    accepted: Duration,
    halves: (R, W),
    half_open: HalfOpen,
) {
    let max = shared.config.limits.connections;
    // The permit before accept is the bound; this is the count that others read.
    let _counted = Counted::take(&shared, |counters| &counters.connections, max);
    let result = match Driver::new(shared, peer, accepted, halves, half_open) {
        Ok(driver) => driver.run().await,
        Err(error) => Err(error),
    };
    log_end(peer, &result);
}

struct Driver<R, W> {
    shared: Arc<Shared>,
    peer_address: SocketAddr,
    connection: Connection,
    reader: R,
    writer: W,
    half_open: Option<HalfOpen>,
    established: Option<Established>,
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
            alarms: Alarms::new(shared.access.changes(), shared.drain.clone()),
            timer: Timer::default(),
            shared,
            peer_address,
            connection,
            reader,
            writer,
            half_open: Some(half_open),
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
    async fn run(mut self: Box<Self>) -> Result<(), DriverError> {
        let result = self.serve().await;
        if let Err(DriverError::Connection(_)) = &result {
            // A stranger holds no half-open place while we take leave.
            self.half_open = None;
            // Only at the end: an open connection does not keep room for it.
            Box::pin(self.say_goodbye()).await;
        }
        result
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
                    self.reader.hand_over(&mut self.connection, now)?;
                } else {
                    self.connection.handle_eof()?;
                }
            }
            Wake::Answer(stream, result) => self.finish(stream, result),
            Wake::Items(output) => self.on_items(output),
            Wake::Subscription(output) => self.on_subscription(output),
            Wake::Alarm(Alarm::AccessChanged) => self.recheck_access(),
            Wake::Alarm(Alarm::Drain(until)) => {
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
                self.connection.handle_timeout(now)?;
            }
        }
        Ok(())
    }

    /// While draining: closes as soon as every call is answered, and at the latest when the drain ends.
    fn close_when_drained(&mut self, now: Duration) {
        if let Some(until) = self.draining_until
            && (self.calls.len() + self.flows.len() == 0 || now >= until)
        {
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
        let suite = peer.suite.name().unwrap_or("unknown");
        tracing::debug!(connection = %id, peer = %self.peer_address, %principal, suite, "connection established");
        let mut caller = api::Caller::new(principal, self.shared.access.clone());
        caller.transactions =
            api::Transactions::at_most(self.shared.config.limits.transactions_per_connection);
        self.established = Some(Established { caller: Arc::new(caller), id });
    }

    fn on_call(&mut self, stream: u32, call: RpcCall, opened_at: Duration) {
        let Some(established) = self.established.clone() else { return };
        if self.calls.len() >= usize::from(self.shared.config.limits.calls_per_connection) {
            let message = "too many calls are still running on this connection";
            self.answer(stream, Err(Status::new(ErrorCode::RATE_LIMITED, message)));
            return;
        }
        let limits = &self.shared.config.limits;
        let limit = if call.streams == 0 { limits.call_deadline } else { limits.stream_deadline }.get();
        let deadline = match call.deadline_ms {
            0 => limit,
            ms => Duration::from_millis(ms.into()).min(limit),
        };
        let context = Context {
            caller: established.caller,
            connection: established.id,
            deadline: Some(deadline),
            cancelled: self.calls.signal(),
            metadata: call.metadata,
        };
        let stopwatch = call.times.then(|| Stopwatch::start(&self.shared.clock, self.read_at, opened_at));
        let call = Call {
            method: call.method,
            encoding: call.encoding,
            args: call.args,
            idempotency_key: call.idempotency_key,
            items: self.flows.open(stream, call.streams, deadline),
        };
        let reply = self.shared.router.dispatch(context, call);
        let reply = match stopwatch {
            Some(stopwatch) => stopwatch.follow(reply),
            None => reply,
        };
        match self.calls.start(stream, reply, deadline) {
            Started::Answer(result) => self.finish(stream, result),
            // From here on its items are waited for.
            Started::Pending => self.advance(stream),
        }
    }

    /// The caller wants no answer. The work is stopped and then answered: its slot is free no sooner.
    fn on_cancelled(&mut self, stream: u32) {
        if self.flows.cancel(stream) {
            self.answer(stream, Err(flows::cancelled()));
        } else {
            self.calls.cancel(stream);
        }
    }

    fn on_items(&mut self, output: flows::Output) {
        match output {
            flows::Output::Advance(stream) => self.advance(stream),
            flows::Output::Ask => self.flows.ask(&mut self.connection),
            flows::Output::OutOfTime(stream) => {
                let message = "the deadline passed before the items were taken";
                self.answer(stream, Err(Status::new(ErrorCode::TIMEOUT, message)));
            }
        }
    }

    /// Sends items of a call, and its answer when they are all sent.
    fn advance(&mut self, stream: u32) {
        if let Some(result) = self.flows.advance(stream, &mut self.connection) {
            self.answer(stream, result);
        }
    }

    /// A handler answered: its items go first.
    fn finish(&mut self, stream: u32, result: Result<Answer, Status>) {
        match self.flows.answer(stream, result) {
            Some(result) => self.answer(stream, result),
            None => self.advance(stream),
        }
    }

    /// An event is a call by another frame.
    fn on_publish(&mut self, stream: u32, publish: Publish, opened_at: Duration) {
        match api::publish_args(&publish) {
            Err(status) => self.answer(stream, Err(status)),
            Ok(args) => {
                let call = RpcCall {
                    method: api::PUBLISH.into(),
                    args,
                    deadline_ms: publish.deadline_ms,
                    idempotency_key: publish.idempotency_key,
                    ..RpcCall::default()
                };
                self.on_call(stream, call, opened_at);
            }
        }
    }

    fn answer(&mut self, stream: u32, result: Result<Answer, Status>) {
        let sent = match result {
            Ok(answer) => self.connection.respond(stream, &rpc_response(answer)),
            Err(status) => self.connection.respond_error(stream, &rpc_error(status)),
        };
        if let Err(misuse) = sent
            && self.connection.is_open()
        {
            tracing::error!(stream, %misuse, "an answer had no stream to go to");
        }
    }

    fn on_subscribe(&mut self, stream: u32, subscribe: Subscribe) {
        match self.open_subscription(stream, subscribe) {
            Ok(()) => {}
            Err(status) => self.end_subscription(stream, status),
        }
    }

    fn open_subscription(&mut self, stream: u32, subscribe: Subscribe) -> Result<(), Status> {
        let Some(established) = &self.established else { return Ok(()) };
        let source = source(&subscribe)?;
        let caller = &established.caller;
        authorise_source(&caller.access.load(), &caller.principal, &source)?;
        let max = self.shared.config.limits.subscriptions;
        let counted =
            Counted::take(&self.shared, |counters| &counters.subscriptions, max).ok_or_else(|| {
                Status::new(ErrorCode::RATE_LIMITED, "the server has no place for more subscriptions")
            })?;
        let filter = if subscribe.filter.is_empty() { None } else { Some(Json::new(subscribe.filter)) };
        let request = SubscribeRequest {
            source,
            filter,
            cursor: subscribe.cursor,
            snapshot: subscribe.snapshot,
            overflow: match subscribe.overflow {
                envelope::Overflow::DropOldest => Overflow::DropOldest,
                envelope::Overflow::Block => Overflow::Block,
                envelope::Overflow::Conflate => Overflow::Conflate,
                envelope::Overflow::Resnapshot => Overflow::Resnapshot,
                _ => Overflow::Close,
            },
        };
        let feed = self.shared.feed.clone();
        self.subscriptions.open(stream, counted, feed, request);
        Ok(())
    }

    /// There is credit, for a call or for a subscription.
    fn resume(&mut self, stream: u32) {
        self.advance(stream);
        let credit = self.connection.subscription_credit(stream).unwrap_or(0);
        self.subscriptions.resume(stream, credit);
    }

    fn on_subscription(&mut self, output: Output) {
        match output {
            Output::Refused(stream, status) => self.end_subscription(stream, status),
            Output::Items(stream, items) => {
                if let Err(status) = self.authorise_events(stream) {
                    self.end_subscription(stream, status);
                    return;
                }
                for item in items {
                    self.send_item(stream, item);
                }
                self.resume(stream);
            }
        }
    }

    /// Every batch of events is judged by the rules of its moment.
    fn authorise_events(&self, stream: u32) -> Result<(), Status> {
        match (&self.established, self.subscriptions.source(stream)) {
            (Some(Established { caller, .. }), Some(source)) => {
                Ok(authorise_source(&caller.access.load(), &caller.principal, source)?)
            }
            _ => Ok(()),
        }
    }

    fn send_item(&mut self, stream: u32, item: Item) {
        let sent = match item {
            Item::Position { cursor } => {
                let subscribed = Subscribed { cursor: cursor.to_string(), snapshot_end: false };
                self.connection.send_subscribed(stream, &subscribed)
            }
            Item::SnapshotEnd { cursor } => {
                let subscribed = Subscribed { cursor: cursor.to_string(), snapshot_end: true };
                self.connection.send_subscribed(stream, &subscribed)
            }
            Item::Snapshot(change) | Item::Event(change) => {
                self.connection.send_event(stream, &event_message(change))
            }
            Item::Ended { reason, cursor } => {
                self.end_subscription(stream, end_status(reason, cursor.as_deref()));
                Ok(())
            }
        };
        if let Err(misuse) = sent
            && self.connection.is_open()
        {
            tracing::error!(stream, %misuse, "an item of a subscription could not be sent");
            self.end_subscription(stream, Status::internal());
        }
    }

    fn end_subscription(&mut self, stream: u32, status: Status) {
        self.subscriptions.remove(stream);
        // The peer may have unsubscribed at the same moment: then it has its answer.
        let _gone_already = self.connection.end_subscription(stream, &rpc_error(status));
    }

    /// The rules changed: the connection and each subscription are judged anew.
    fn recheck_access(&mut self) {
        let Some(Established { caller, .. }) = self.established.clone() else { return };
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

    /// Sends what is left to say: after an orderly end everything that is queued, after an error only CLOSE.
    async fn say_goodbye(&mut self) {
        let said = tokio::time::timeout(self.shared.config.limits.write_deadline.get(), async {
            while !self.connection.is_drained() || self.writer.has_output() {
                self.writer.take(&mut self.connection, self.shared.clock.now());
                if !self.writer.has_output() {
                    break;
                }
                self.writer.write().await?;
            }
            self.writer.finish().await
        });
        // The peer may be gone: then there is nobody to tell.
        if let Ok(Ok(())) = said.await {
            let _hung_up = tokio::time::timeout(LINGER, self.reader.discard()).await;
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
