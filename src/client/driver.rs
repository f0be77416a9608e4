//! The task that owns the connection: between callers and the wire, and from one connection to the next.
//!
//! One loop waits for the socket, for callers, for notes and for one timer. Everything that is ready goes into one write.
//! Queues: calls wait in a line with so many places, which are given back as the connection takes calls; other commands are
//! a bounded channel; items of subscriptions are bounded by credit.
//!
//! After GOAWAY nothing new is started on the connection; it ends when its calls are answered and the delay that the
//! server asked for is over, or when the server ends it. New calls wait for the next connection.

use super::calls::Calls;
use super::connector::Connector;
use super::error::{ConnectError, ConnectReason, Error};
use super::link::{ConnectionInfo, Link};
use super::reconnect::Backoff;
use super::resume::{Entry, Subscriptions};
use super::signals::{Notes, Signals};
use crate::conn::{ApiMisuse, ConnectionError, Event};
use crate::wire::control::GoAway;
use crate::wire::envelope::RpcError;
use crate::wire::{ErrorCode, limits::MESSAGE_MAX};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
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
    /// Places for calls that wait.
    pub(super) places: Arc<Semaphore>,
    pub(super) control: mpsc::Receiver<Control>,
    pub(super) signals: Arc<Signals>,
    pub(super) status: watch::Sender<Status>,
    state: State,
    /// Memory for the notes that are being read.
    notes: Notes,
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
        places: Arc<Semaphore>,
        control: mpsc::Receiver<Control>,
        signals: Arc<Signals>,
        status: watch::Sender<Status>,
    ) -> Self {
        let (state, notes) = (State::default(), Notes::default());
        Self { connector, places, control, signals, status, state, notes }
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
        self.places.close();
        self.control.close();
        self.state.in_flight.add(self.signals.close().into_iter());
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
            let taken = self.state.start_waiting(&mut link);
            self.places.add_permits(taken);
            link.fill();
            if let Some(end) = link.connection.end() {
                let end = end.clone();
                return self.on_end(link, end).await;
            }
            let due = self.state.next_due(link.instant());
            // Callers first: what they ask for shares the next record. They cannot keep the socket waiting, because what they
            // may ask for before something is answered is bounded.
            let (command, io) = tokio::select! {
                biased;
                () = self.signals.wait() => (None, None),
                command = self.control.recv() => (Some(command), None),
                io = link.drive(due) => (None, io),
            };
            link.handle(io);
            if let Some(command) = command {
                self.state.on_control(&mut link, command);
            }
            self.hear(Some(&mut link));
            let expired = self.state.in_flight.expire(link.instant(), Some(&mut link));
            self.places.add_permits(expired);
        }
    }

    /// Takes what callers have noted.
    fn hear(&mut self, link: Option<&mut Link>) {
        if self.signals.is_rung() {
            self.signals.take(&mut self.notes);
            let dropped = self.state.on_notes(&mut self.notes, link);
            self.places.add_permits(dropped);
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

    /// Serves the callers as far as that goes without a connection; `None` when they want no more. Calls wait.
    async fn idle_while<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            let due = self.state.in_flight.next_due();
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
                () = self.signals.wait() => self.hear(None),
                () = sleep_until(due) => {
                    let expired = self.state.in_flight.expire(Instant::now(), None);
                    self.places.add_permits(expired);
                }
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

    fn next_due(&self, now: Instant) -> Option<Instant> {
        let of_connection = match self.going_away {
            Some((_, until)) => Some(until).filter(|until| *until > now),
            None => self.subscriptions.next_due(),
        };
        let of_calls = self.in_flight.next_due();
        of_connection.into_iter().chain(of_calls).min()
    }

    /// Makes the calls again that the last connection did not take, then new ones, and subscribes what is due. Says how many
    /// new calls were taken.
    fn start_waiting(&mut self, link: &mut Link) -> usize {
        let mut taken = 0;
        if self.going_away.is_some() || link.connection.end().is_some() {
            return taken;
        }
        while self.takes_calls(link)
            && let Some((call, is_new)) = self.in_flight.pop()
        {
            taken += usize::from(is_new);
            match self.in_flight.start(link, call) {
                Ok(()) => {}
                Err(ApiMisuse::StreamsExhausted) => {
                    // The call needs another connection: this one ends when the others are answered.
                    self.going_away = Some((u32::MAX, link.instant()));
                    return taken;
                }
                Err(_) => return taken,
            }
        }
        self.subscriptions.start_due(link);
        taken
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

    /// Says how many calls were given up before they were made.
    fn on_notes(&mut self, notes: &mut Notes, mut link: Option<&mut Link>) -> usize {
        self.in_flight.add(notes.calls.drain(..));
        let dropped = match notes.dropped_calls.as_slice() {
            [] => 0,
            calls => self.in_flight.drop_calls(calls, link.as_deref_mut()),
        };
        for id in &notes.dropped_subscriptions {
            self.subscriptions.drop_entry(link.as_deref_mut(), *id);
        }
        if let Some(link) = link {
            for call in &notes.touched {
                self.in_flight.touch(link, call);
            }
            for id in &notes.credit {
                self.subscriptions.give_credit(link, *id);
            }
        }
        notes.clear();
        dropped
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
