//! The task that owns the connection: between callers and the wire, and from one connection to the next.
//!
//! One loop waits for the socket, for callers, for notes and for timers. Everything that is ready goes into one write.
//! Queues: commands are bounded channels that are not read while the connection cannot take more, so that callers wait;
//! items of subscriptions are bounded by credit.
//!
//! After GOAWAY nothing new is started on the connection; it ends when its calls are answered and the delay that the
//! server asked for is over, or when the server ends it. New calls wait for the next connection.

use super::calls::{CallCommand, Calls};
use super::connector::Connector;
use super::error::{ConnectError, ConnectReason, Error};
use super::link::{ConnectionInfo, Link};
use super::reconnect::Backoff;
use super::resume::{Entry, Subscriptions};
use super::signals::Signals;
use crate::conn::{ApiMisuse, ConnectionError, Event};
use crate::wire::control::GoAway;
use crate::wire::envelope::RpcError;
use crate::wire::{ErrorCode, limits::MESSAGE_MAX};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

/// Bytes of calls that may wait inside the connection before no further one is taken from the callers.
const OUTBOUND_MAX: usize = MESSAGE_MAX;
/// A server may ask for a pause, not for farewell.
const GOAWAY_DELAY_MAX: Duration = Duration::from_secs(60);
/// A connection that lived this long was a good one: the next pause starts small again.
const GOOD_AGE: Duration = Duration::from_secs(10);

/// What callers want besides calls.
pub(super) enum Control {
    /// Subscribe.
    Subscribe(Box<Entry>),
    /// Send a HEARTBEAT and tell how long its echo took.
    Ping(oneshot::Sender<Duration>),
    /// End.
    Close(oneshot::Sender<()>),
}

/// What a client tells about its connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Status {
    /// Connected.
    Connected(ConnectionInfo),
    /// The connection is lost; the next attempt starts after the pause.
    Reconnecting {
        /// What ended the connection, or the last attempt.
        error: Arc<ConnectError>,
        /// Attempts that failed since there was a connection.
        failures: u32,
        /// Until the next attempt.
        pause: Duration,
    },
    /// Over; by [`close`](super::Client::close), or for the reason that is given.
    Closed(Option<Arc<ConnectError>>),
}

/// The task.
pub(super) struct Driver {
    pub(super) connector: Connector,
    pub(super) calls: mpsc::Receiver<CallCommand>,
    pub(super) control: mpsc::Receiver<Control>,
    pub(super) signals: Arc<Signals>,
    pub(super) status: watch::Sender<Status>,
    state: State,
}

/// What outlives a connection, and what is known of the present one.
#[derive(Default)]
struct State {
    in_flight: Calls,
    subscriptions: Subscriptions,
    /// When each HEARTBEAT that a caller asked for was sent, by the connection's clock.
    pings: VecDeque<(Duration, oneshot::Sender<Duration>)>,
    going_away: Option<(u32, Instant)>,
    /// The server has answered something: it is not one that lets in and throws out.
    made_progress: bool,
    closing: Option<oneshot::Sender<()>>,
}

/// How a connection ended.
enum End {
    /// The callers want no more.
    Wanted,
    /// It was lost, or the server asked for a new one after this time.
    Lost(ConnectionError, Duration),
}

impl Driver {
    pub(super) fn new(
        connector: Connector,
        calls: mpsc::Receiver<CallCommand>,
        control: mpsc::Receiver<Control>,
        signals: Arc<Signals>,
        status: watch::Sender<Status>,
    ) -> Self {
        Self { connector, calls, control, signals, status, state: State::default() }
    }

    /// Runs until nobody wants the client any more, or the server wants no more of it.
    pub(super) async fn run(mut self, first: Link) {
        let mut link = first;
        let policy = self.connector.options().reconnect.clone();
        let mut backoff = Backoff::new(policy.clone().unwrap_or_default());
        let reason = loop {
            self.status.send_replace(Status::Connected(link.info.clone()));
            let opened = Instant::now();
            let (error, delay) = match self.serve(link).await {
                End::Wanted => break None,
                End::Lost(error, delay) => (error, delay),
            };
            if self.state.made_progress || opened.elapsed() >= GOOD_AGE {
                backoff.reset();
            }
            let error = self.connector.error(ConnectReason::Connection(error));
            if policy.is_none() || error.is_final() {
                break Some(Arc::new(error));
            }
            match self.reconnect(&mut backoff, error, delay).await {
                Ok(next) => link = next,
                Err(reason) => break reason,
            }
        };
        self.end(reason);
    }

    /// Nothing more is answered. The status comes first, because callers that are woken look at it.
    fn end(&mut self, reason: Option<Arc<ConnectError>>) {
        self.status.send_replace(Status::Closed(reason.clone()));
        self.calls.close();
        self.control.close();
        let error = reason.map(Error::Connect);
        self.state.in_flight.fail(error.as_ref().unwrap_or(&Error::Closed));
        self.state.subscriptions.fail(error.as_ref());
        self.state.pings.clear();
        if let Some(closing) = self.state.closing.take() {
            let _ = closing.send(());
        }
    }

    /// Runs one connection to its end.
    async fn serve(&mut self, mut link: Link) -> End {
        self.state.going_away = None;
        self.state.made_progress = false;
        loop {
            self.take_events(&mut link);
            self.state.retire(&mut link);
            self.state.start_waiting(&mut link);
            link.fill();
            if let Some(end) = link.connection.end() {
                let end = end.clone();
                return self.on_end(link, end).await;
            }
            let takes_calls = self.state.takes_calls(&link);
            let due = self.state.next_due();
            tokio::select! {
                () = link.drive() => {}
                Some(command) = self.calls.recv(), if takes_calls => self.take_calls(&mut link, command),
                command = self.control.recv() => self.state.on_control(&mut link, command),
                () = self.signals.wait() => self.state.on_signals(&self.signals, Some(&mut link)),
                () = sleep_until(due) => {}
            }
        }
    }

    /// Takes a call and those that wait behind it, so that they share a record and a write.
    fn take_calls(&mut self, link: &mut Link, first: CallCommand) {
        let mut next = Some(first);
        while let Some(command) = next {
            if !self.state.start_call(link, command) || !self.state.takes_calls(link) {
                return;
            }
            next = self.calls.try_recv().ok();
        }
    }

    fn take_events(&mut self, link: &mut Link) {
        while let Some(event) = link.connection.poll_event() {
            self.state.on_event(link, event);
        }
    }

    async fn on_end(&mut self, link: Link, end: ConnectionError) -> End {
        let last_taken = self.state.going_away.map(|(last, _)| last);
        let delay = self
            .state
            .going_away
            .map_or(Duration::ZERO, |(_, until)| until.saturating_duration_since(Instant::now()));
        if self.state.closing.is_some() {
            link.finish().await;
            return End::Wanted;
        }
        self.state.in_flight.on_loss(&link, last_taken, &end);
        self.state.subscriptions.on_loss();
        self.state.pings.clear();
        // The last words may take a moment; the next connection need not wait for them.
        tokio::spawn(link.finish());
        End::Lost(end, delay)
    }

    /// Tries until there is a connection. `Err`: nobody wants one any more (`None`), or it is pointless.
    async fn reconnect(
        &mut self,
        backoff: &mut Backoff,
        error: ConnectError,
        delay: Duration,
    ) -> Result<Link, Option<Arc<ConnectError>>> {
        let mut error = Arc::new(error);
        let mut delay = delay;
        loop {
            if backoff.is_exhausted() {
                return Err(Some(error));
            }
            let failures = backoff.failures();
            let pause = backoff.next().max(delay);
            delay = Duration::ZERO;
            self.status.send_replace(Status::Reconnecting { error: Arc::clone(&error), failures, pause });
            self.idle_while(tokio::time::sleep(pause)).await.ok_or(None)?;
            // The connector is borrowed by the attempt while the rest of the task goes on.
            let mut connector = self.connector.clone();
            match self.idle_while(async { (connector.connect().await, connector) }).await.ok_or(None)? {
                (Ok(link), connector) => {
                    self.connector = connector;
                    return Ok(link);
                }
                (Err(next), _) if next.is_final() => return Err(Some(Arc::new(next))),
                (Err(next), _) => error = Arc::new(next),
            }
        }
    }

    /// Serves the callers as far as that goes without a connection; `None` when they want no more. Calls stay in their
    /// channel.
    async fn idle_while<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                command = self.control.recv() => match command {
                    Some(Control::Subscribe(entry)) => self.state.subscriptions.add(*entry),
                    // Without a connection there is no round trip.
                    Some(Control::Ping(_)) => {}
                    Some(Control::Close(done)) => {
                        self.state.closing = Some(done);
                        return None;
                    }
                    None => return None,
                },
                () = self.signals.wait() => self.state.on_signals(&self.signals, None),
            }
        }
    }
}

impl State {
    fn takes_calls(&self, link: &Link) -> bool {
        self.going_away.is_none()
            && self.in_flight.in_flight() < usize::from(link.info.calls_max)
            && link.connection.outbound_bytes() < OUTBOUND_MAX
    }

    fn next_due(&self) -> Option<Instant> {
        match self.going_away {
            Some((_, until)) => Some(until).filter(|until| *until > Instant::now()),
            None => self.subscriptions.next_due(),
        }
    }

    /// Makes the calls again that the last connection did not take, and subscribes what is due.
    fn start_waiting(&mut self, link: &mut Link) {
        if self.going_away.is_some() || link.connection.end().is_some() {
            return;
        }
        while self.takes_calls(link)
            && let Some(command) = self.in_flight.pop_again()
        {
            if !self.start_call(link, command) {
                return;
            }
        }
        self.subscriptions.start_due(link);
    }

    /// Says whether further calls may follow.
    fn start_call(&mut self, link: &mut Link, command: CallCommand) -> bool {
        let started = self.in_flight.start(link, command);
        if started == Err(ApiMisuse::StreamsExhausted) {
            // The call needs another connection: this one ends when the others are answered.
            self.going_away = Some((u32::MAX, Instant::now()));
        }
        started.is_ok()
    }

    /// After GOAWAY: ends the connection once nothing on it is waited for.
    fn retire(&mut self, link: &mut Link) {
        let Some((_, until)) = self.going_away else { return };
        let is_used = self.subscriptions.has_streams() && Instant::now() < until;
        if self.in_flight.in_flight() == 0 && !is_used {
            link.connection.close(ErrorCode::NO_ERROR, "");
        }
    }

    fn on_event(&mut self, link: &mut Link, event: Event) {
        let breach = match event {
            Event::Response(stream, response) => {
                self.in_flight.on_response(stream, response);
                Ok(())
            }
            Event::Error(stream, error) => {
                self.on_error(stream, error);
                Ok(())
            }
            Event::Data(stream, item) => {
                self.in_flight.on_data(stream, item);
                Ok(())
            }
            Event::Credit(stream) => {
                self.in_flight.move_items(link, stream);
                Ok(())
            }
            Event::Subscribed(stream, subscribed) => self.subscriptions.on_subscribed(stream, subscribed),
            Event::Item(stream, event) => self.subscriptions.on_item(stream, event),
            Event::GoAway(go_away) => {
                self.on_go_away(&go_away);
                return;
            }
            Event::HeartbeatEcho(round_trip) => {
                self.on_echo(link.heard_at(), round_trip);
                return;
            }
            _ => return,
        };
        self.made_progress = true;
        if let Err(breach) = breach {
            link.connection.close(ErrorCode::PROTOCOL_ERROR, breach.0);
        }
    }

    fn on_error(&mut self, stream: u32, error: RpcError) {
        let code = error.code;
        if let Err(error) = self.in_flight.on_error(stream, error) {
            self.subscriptions.on_error(stream, error);
        }
        // Said without GOAWAY, it means the same: nothing new on this connection.
        if code == ErrorCode::GOING_AWAY && self.going_away.is_none() {
            self.on_go_away(&GoAway { delay_ms: 0, last_stream: u32::MAX, code });
        }
    }

    fn on_go_away(&mut self, go_away: &GoAway) {
        let delay = Duration::from_millis(u64::from(go_away.delay_ms)).min(GOAWAY_DELAY_MAX);
        self.going_away = Some((go_away.last_stream, Instant::now() + delay));
    }

    /// A HEARTBEAT carries the time it was sent, so its echo tells whose it was.
    fn on_echo(&mut self, heard_at: Duration, round_trip: Duration) {
        let sent_at = heard_at.saturating_sub(round_trip);
        if self.pings.front().is_some_and(|(at, _)| *at == sent_at)
            && let Some((_, reply)) = self.pings.pop_front()
        {
            let _ = reply.send(round_trip);
        }
    }

    /// `None`: every handle is gone.
    fn on_control(&mut self, link: &mut Link, command: Option<Control>) {
        match command {
            Some(Control::Subscribe(entry)) => self.subscriptions.add(*entry),
            Some(Control::Ping(reply)) => {
                let now = link.now();
                // Too many under way: the caller is told by the end of its channel.
                if link.connection.heartbeat(now) == Ok(true) {
                    self.pings.push_back((now, reply));
                }
            }
            Some(Control::Close(done)) => {
                self.closing = Some(done);
                link.connection.close(ErrorCode::NO_ERROR, "");
            }
            None => {
                self.closing = Some(oneshot::channel().0);
                link.connection.close(ErrorCode::NO_ERROR, "");
            }
        }
    }

    fn on_signals(&mut self, signals: &Signals, mut link: Option<&mut Link>) {
        let notes = signals.take();
        for id in notes.dropped_subscriptions {
            self.subscriptions.drop_entry(link.as_deref_mut(), id);
        }
        let Some(link) = link else { return };
        for id in notes.dropped_calls {
            self.in_flight.cancel(link, id);
        }
        for id in notes.streams {
            self.in_flight.touch(link, id);
        }
        for id in notes.credit {
            self.subscriptions.give_credit(link, id);
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
