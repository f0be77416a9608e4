//! The connection and who waits for what on it: what the task of the connection works on, and callers that find it free.

use super::calls::Calls;
use super::driver::Control;
use super::link::Link;
use super::resume::Subscriptions;
use super::signals::Notes;
use crate::conn::{ApiMisuse, Event};
use crate::wire::control::GoAway;
use crate::wire::envelope::RpcError;
use crate::wire::{ErrorCode, limits::MESSAGE_MAX};
use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};

/// Bytes of calls that may wait inside the connection before no further one is taken from the callers.
const OUTBOUND_MAX: usize = MESSAGE_MAX;
/// A server may ask for a pause, not for farewell.
const GOAWAY_DELAY_MAX: Duration = Duration::from_secs(60);

/// What the task of the connection and the callers share. The task waits for it; a caller never does.
#[derive(Default)]
pub(super) struct Shared(Mutex<Core>);

/// The connection and its state.
#[derive(Default)]
pub(super) struct Core {
    /// `None` while there is no connection.
    pub(super) link: Option<Link>,
    pub(super) state: State,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` when somebody else is at it.
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Core>> {
        match self.0.try_lock() {
            Ok(core) => Some(core),
            Err(TryLockError::Poisoned(core)) => Some(core.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// What outlives a connection, and what is known of the present one.
#[derive(Default)]
pub(super) struct State {
    pub(super) in_flight: Calls,
    pub(super) subscriptions: Subscriptions,
    /// When each HEARTBEAT that a caller asked for was sent, by the connection's clock.
    pub(super) pings: VecDeque<(Duration, oneshot::Sender<Duration>)>,
    pub(super) going_away: Option<(u32, Instant)>,
    /// The server has answered something: it is not one that lets in and throws out.
    pub(super) made_progress: bool,
    pub(super) closing: Option<oneshot::Sender<()>>,
}

impl State {
    /// Whether a call can be made on the connection now.
    pub(super) fn takes_calls(&self, link: &Link) -> bool {
        self.going_away.is_none()
            && link.connection.end().is_none()
            && self.in_flight.in_flight() < usize::from(link.info.calls_max)
            && link.connection.outbound_bytes() < OUTBOUND_MAX
    }

    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let of_connection = match self.going_away {
            Some((_, until)) => Some(until).filter(|until| *until > now),
            None => self.subscriptions.next_due(),
        };
        let of_calls = self.in_flight.next_due();
        of_connection.into_iter().chain(of_calls).min()
    }

    /// Takes what the server said, does what follows from it and what callers asked for, and moves it towards the socket. Says
    /// how many new calls were taken.
    pub(super) fn settle(&mut self, link: &mut Link) -> usize {
        while let Some(event) = link.connection.poll_event() {
            self.on_event(link, event);
        }
        self.retire(link);
        let taken = self.start_waiting(link);
        link.fill();
        taken
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
            Event::Item(stream, event) => {
                self.subscriptions.on_items(stream, event, || link.connection.poll_item(stream))
            }
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
            // What is queued is not for a server like this, and its calls are made again on the next connection.
            link.connection.abort(ErrorCode::PROTOCOL_ERROR, breach.0);
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

    pub(super) fn on_control(&mut self, link: &mut Link, command: Control) {
        match command {
            Control::Subscribe(entry) => self.subscriptions.add(*entry),
            Control::Ping(reply) => {
                let now = link.now();
                // Too many under way: the caller is told by the end of its channel.
                if link.connection.heartbeat(now) == Ok(true) {
                    self.pings.push_back((now, reply));
                }
            }
            Control::Close(done) => {
                self.closing = Some(done);
                link.connection.close(ErrorCode::NO_ERROR, "");
            }
        }
    }

    /// Every handle is gone.
    pub(super) fn abandon(&mut self, link: &mut Link) {
        self.closing.get_or_insert_with(|| oneshot::channel().0);
        link.connection.close(ErrorCode::NO_ERROR, "");
    }

    /// Says how many calls were given up before they were made.
    pub(super) fn on_notes(&mut self, notes: &mut Notes, mut link: Option<&mut Link>) -> usize {
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
