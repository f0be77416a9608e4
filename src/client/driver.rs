//! The task that owns the connection: between callers and the wire, and from one connection to the next.
//!
//! One loop waits for the socket, for callers, for notes and for one timer. Everything that is ready goes into one write.
//! Queues: calls wait in a line with so many places, which are given back as the connection takes calls; other commands are
//! a bounded channel; items of subscriptions are bounded by credit.
//!
//! After GOAWAY nothing new is started on the connection; it ends when its calls are answered and the delay that the
//! server asked for is over, or when the server ends it. New calls wait for the next connection.

use super::connector::Connector;
use super::error::{ConnectError, ConnectReason, Error};
use super::link::{ConnectionInfo, Link};
use super::reconnect::Backoff;
use super::resume::Entry;
use super::signals::{Notes, Signals};
use super::state::{Core, Shared, State};
use crate::conn::ConnectionError;
use crate::wake::Standing;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::Instant,
};

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
    shared: Arc<Shared>,
    /// Of this task with `signals`.
    standing: Standing,
    /// Memory for the notes that are being read.
    notes: Notes,
    /// Memory for the callers that are about to be woken.
    callers: Vec<Waker>,
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
        control: mpsc::Receiver<Control>,
        status: watch::Sender<Status>,
        (places, signals, shared): (Arc<Semaphore>, Arc<Signals>, Arc<Shared>),
    ) -> Self {
        let (standing, notes, callers) = (Standing::default(), Notes::default(), Vec::new());
        Self { connector, places, control, signals, status, shared, standing, notes, callers }
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
            if self.shared.lock().state.made_progress || opened.elapsed() >= GOOD_AGE {
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
        let error = reason.map(Error::Connect);
        let closing = {
            let state = &mut self.shared.lock().state;
            state.in_flight.add(self.signals.close().into_iter());
            state.in_flight.fail(error.as_ref().unwrap_or(&Error::Closed));
            state.subscriptions.fail(error.as_ref());
            state.pings.clear();
            state.in_flight.take_woken(&mut self.callers);
            state.closing.take()
        };
        wake(&mut self.callers);
        if let Some(closing) = closing {
            let _ = closing.send(());
        }
    }

    /// Runs one connection to its end.
    async fn serve(&mut self, link: Link) -> End {
        {
            let Core { link: place, state, .. } = &mut *self.shared.lock();
            state.going_away = None;
            state.made_progress = false;
            let link = place.insert(link);
            self.places.add_permits(state.settle(link));
            state.in_flight.take_woken(&mut self.callers);
        }
        wake(&mut self.callers);
        // What was asked for meanwhile is looked at in the first turn.
        self.signals.ring();
        let end = poll_fn(|context| self.poll_connection(context)).await;
        self.on_end(end).await
    }

    /// Serves the connection as far as it goes without waiting; gives its end.
    fn poll_connection(&mut self, context: &mut Context<'_>) -> Poll<ConnectionError> {
        let Self { places, control, signals, shared, standing, notes, callers, .. } = self;
        loop {
            let mut core = shared.lock();
            let Core { link, state, .. } = &mut *core;
            let link = link.as_mut().expect("a connection is served as long as it is there");
            if let Some(end) = link.connection.end() {
                return Poll::Ready(end.clone());
            }
            link.begin_turn();
            // Callers first: what they ask for shares the next record. They cannot keep the socket waiting, because what they
            // may ask for before something is answered is bounded.
            let io = if signals.poll(standing, context).is_ready() {
                None
            } else {
                let due = state.next_due(link.instant());
                std::task::ready!(link.poll(context, due))
            };
            link.handle(io);
            if signals.is_rung() {
                signals.take(notes);
                // Whoever sends a command rings behind it. Before the notes: a subscription may be dropped by one of them.
                while let Ok(command) = control.try_recv() {
                    state.on_control(link, command);
                }
                places.add_permits(state.on_notes(notes, Some(link)));
                if signals.is_abandoned() {
                    state.abandon(link);
                }
            }
            let expired = state.in_flight.expire(link.instant(), Some(link));
            let taken = state.settle(link);
            state.in_flight.take_woken(callers);
            link.expect_calls(callers.len());
            drop(core);
            places.add_permits(expired + taken);
            wake(callers);
        }
    }

    async fn on_end(&mut self, end: ConnectionError) -> End {
        let (link, is_wanted, has_unsent, delay) = {
            let Core { link, state, .. } = &mut *self.shared.lock();
            let link = link.take().expect("a connection is served as long as it is there");
            let is_wanted = state.closing.is_some();
            let last_taken = state.going_away.map(|(last, _)| last);
            let delay = state
                .going_away
                .map_or(Duration::ZERO, |(_, until)| until.saturating_duration_since(Instant::now()));
            let mut has_unsent = false;
            if !is_wanted {
                has_unsent = state.in_flight.on_loss(&link, last_taken, &end);
                state.subscriptions.on_loss();
                state.pings.clear();
                state.in_flight.take_woken(&mut self.callers);
            }
            (link, is_wanted, has_unsent, delay)
        };
        wake(&mut self.callers);
        if is_wanted {
            link.finish().await;
            return End::Wanted;
        }
        // The last words may take a moment; the next connection need not wait for them.
        tokio::spawn(async move {
            if has_unsent { link.finish_without_unsent().await } else { link.finish().await }
        });
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
            self.idle_while(crate::time::sleep(pause)).await.ok_or(None)?;
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
            let due = self.shared.lock().state.in_flight.next_due();
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                command = self.control.recv() => self.obey(command?)?,
                () = self.signals.wait() => self.hear()?,
                () = sleep_until(due) => {
                    let expired = self.with_state(|state| state.in_flight.expire(Instant::now(), None));
                    self.places.add_permits(expired);
                }
            }
        }
    }

    /// Does what a caller wants, without a connection; `None` when it wants the end.
    fn obey(&mut self, command: Control) -> Option<()> {
        let state = &mut self.shared.lock().state;
        match command {
            Control::Subscribe(entry) => state.subscriptions.add(*entry),
            // Without a connection there is no round trip.
            Control::Ping(_) => {}
            Control::Close(done) => {
                state.closing = Some(done);
                return None;
            }
        }
        Some(())
    }

    /// Takes what callers want and have noted, without a connection; `None` when they want the end.
    fn hear(&mut self) -> Option<()> {
        let mut notes = std::mem::take(&mut self.notes);
        self.signals.take(&mut notes);
        // Before the notes: a subscription may be dropped by one of them.
        let mut goes_on = Some(());
        while let Ok(command) = self.control.try_recv() {
            goes_on = goes_on.and(self.obey(command));
        }
        let dropped = self.with_state(|state| state.on_notes(&mut notes, None));
        self.notes = notes;
        self.places.add_permits(dropped);
        goes_on
    }

    /// Changes the state, and wakes who has an outcome by that.
    fn with_state<T>(&mut self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = {
            let state = &mut self.shared.lock().state;
            let changed = change(state);
            state.in_flight.take_woken(&mut self.callers);
            changed
        };
        wake(&mut self.callers);
        changed
    }
}

/// Wakes callers; nothing is locked, so that they can go on at once.
fn wake(callers: &mut Vec<Waker>) {
    callers.drain(..).for_each(Waker::wake);
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => crate::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
