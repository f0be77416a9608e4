//! Calls that wait and calls in flight: who is on which stream, and what becomes of them when the connection is lost.
//!
//! Here a call runs at most once. When a connection is lost, calls of which no byte can have left this process are made
//! again on the next one, and so are calls that the server says it has not taken (GOAWAY, GOING_AWAY). Every other call ends
//! with [`Error::UnknownOutcome`]: it may have run. Whether it is sent again nevertheless, `retry` decides.

use super::error::{CallError, Error};
use super::link::Link;
use super::pending::PendingCall;
use crate::conn::{ApiMisuse, ConnectionError, stream_map::StreamMap};
use crate::wire::ErrorCode;
use crate::wire::envelope::{RpcError, RpcResponse};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::time::Instant;

struct InFlight {
    call: Arc<PendingCall>,
    /// [`Link::writes`] when the call was handed to the connection.
    opened_at: u64,
}

/// The calls of one client.
#[derive(Default)]
pub(super) struct Calls {
    in_flight: StreamMap<InFlight>,
    /// Not sent, or not taken: to be made on the next connection, before new ones. At most one connection's worth.
    again: VecDeque<Arc<PendingCall>>,
    /// New ones, as many as there is room for.
    waiting: VecDeque<Arc<PendingCall>>,
    /// No deadline of a call that waits or is in flight is earlier.
    due: Option<Instant>,
}

impl Calls {
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Takes new calls.
    pub(super) fn add(&mut self, calls: impl Iterator<Item = Arc<PendingCall>>) {
        for call in calls {
            if self.due.is_none_or(|due| call.deadline < due) {
                self.due = Some(call.deadline);
            }
            self.waiting.push_back(call);
        }
    }

    /// The next call to make, and whether it is a new one, whose place in the line is free now.
    pub(super) fn pop(&mut self) -> Option<(Arc<PendingCall>, bool)> {
        let again = self.again.pop_front().map(|call| (call, false));
        again.or_else(|| self.waiting.pop_front().map(|call| (call, true)))
    }

    /// When [`expire`](Self::expire) has something to do, at the latest.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due
    }

    /// Ends the calls whose time is over; says how many of them had not been made yet.
    pub(super) fn expire(&mut self, now: Instant, mut link: Option<&mut Link>) -> usize {
        if self.due.is_none_or(|due| now < due) {
            return 0;
        }
        for (stream, InFlight { call, .. }) in &self.in_flight {
            if call.deadline <= now
                && let Some(link) = &mut link
            {
                call.time_out();
                // Its stream stays until the server has answered. A connection that is ending needs no cancel.
                let _over = link.connection.cancel(*stream);
            }
        }
        let mut expired = 0;
        for (line, is_new) in [(&mut self.again, false), (&mut self.waiting, true)] {
            line.retain(|call| {
                let stays = now < call.deadline;
                if !stays {
                    call.time_out();
                    expired += usize::from(is_new);
                }
                stays
            });
        }
        let in_flight = self.in_flight.values().map(|in_flight| &in_flight.call);
        let all = in_flight.chain(&self.again).chain(&self.waiting);
        // Those that are over wait for the server, and for nothing else.
        self.due = all.map(|call| call.deadline).filter(|deadline| now < *deadline).min();
        expired
    }

    /// Hands a call to the connection.
    ///
    /// # Errors
    /// The connection takes no more; the call waits to be made again.
    pub(super) fn start(&mut self, link: &mut Link, call: Arc<PendingCall>) -> Result<(), ApiMisuse> {
        if !call.is_wanted() {
            return Ok(());
        }
        let left = call.deadline.saturating_duration_since(link.instant());
        let deadline_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
        let opened = call.with(|call| {
            call.deadline_ms = deadline_ms;
            link.connection.call(call)
        });
        match opened {
            Ok(stream) => {
                call.set_stream(Some(stream));
                let has_items = call.pipe.is_some();
                self.in_flight.insert(stream, InFlight { call, opened_at: link.writes() });
                if has_items {
                    self.move_items(link, stream);
                }
            }
            Err(ApiMisuse::MessageTooLarge) => call.complete(Err(Error::TooLarge)),
            Err(error) => {
                self.again.push_front(call);
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn on_response(&mut self, stream: u32, response: RpcResponse) {
        if let Some(InFlight { call, .. }) = self.in_flight.remove(&stream) {
            call.complete(Ok(response));
        }
    }

    /// Says whether the stream is a call.
    pub(super) fn on_error(&mut self, stream: u32, error: RpcError) -> Result<(), RpcError> {
        let Some(InFlight { call, .. }) = self.in_flight.remove(&stream) else { return Err(error) };
        if error.code == ErrorCode::GOING_AWAY {
            self.make_again(call);
        } else {
            call.complete(Err(Error::Call(CallError::from(error))));
        }
        Ok(())
    }

    fn make_again(&mut self, call: Arc<PendingCall>) {
        call.set_stream(None);
        if call.is_wanted() {
            self.again.push_back(call);
        }
    }

    /// Tells the server that nobody waits for these calls. A stream stays until it is answered. Says how many of them had
    /// not been made yet.
    pub(super) fn drop_calls(&mut self, calls: &[Arc<PendingCall>], mut link: Option<&mut Link>) -> usize {
        let mut unmade = false;
        for call in calls {
            match (call.stream(), &mut link) {
                // The stream is open, and a connection that is ending needs no cancel.
                (Some(stream), Some(link)) => drop(link.connection.cancel(stream)),
                _ => unmade = true,
            }
        }
        if !unmade {
            return 0;
        }
        let before = self.waiting.len();
        self.waiting.retain(|call| call.is_wanted());
        before - self.waiting.len()
    }

    /// An item of the server.
    pub(super) fn on_data(&mut self, stream: u32, item: Bytes) {
        let in_flight = self.in_flight.get(&stream);
        if let Some(pipe) = in_flight.and_then(|in_flight| in_flight.call.pipe.as_ref()) {
            pipe.receive(item);
        }
    }

    /// The caller took or gave items.
    pub(super) fn touch(&mut self, link: &mut Link, call: &PendingCall) {
        if let Some(stream) = call.stream() {
            self.move_items(link, stream);
        }
    }

    /// Sends items as far as there is credit, and gives credit for those that were taken.
    pub(super) fn move_items(&mut self, link: &mut Link, stream: u32) {
        let Some(InFlight { call, .. }) = self.in_flight.get(&stream) else { return };
        let Some(pipe) = &call.pipe else { return };
        if let Some(items) = pipe.take_credit(call.with(|call| call.credit)) {
            // The call may be given up, or the connection over: then there is nobody to tell.
            let _over = link.connection.credit(stream, items);
        }
        while link.connection.call_credit(stream).is_some_and(|credit| credit > 0)
            && let Some(item) = pipe.take_sending()
        {
            if link.connection.send_data(stream, item).is_err() {
                return;
            }
        }
        if pipe.take_end() {
            let _over = link.connection.end_data(stream);
        }
    }

    /// The connection is over.
    pub(super) fn on_loss(&mut self, link: &Link, last_taken: Option<u32>, cause: &ConnectionError) {
        let mut lost: Vec<_> = self.in_flight.drain().collect();
        lost.sort_unstable_by_key(|(stream, _)| *stream);
        for (stream, InFlight { call, opened_at }) in lost {
            let was_sent = opened_at != link.writes();
            let was_taken = last_taken.is_none_or(|last| stream <= last);
            if was_sent && was_taken {
                let method = call.with(|call| call.method.to_string());
                call.complete(Err(Error::UnknownOutcome { method, cause: cause.clone() }));
            } else {
                self.make_again(call);
            }
        }
    }

    /// Ends every call.
    pub(super) fn fail(&mut self, error: &Error) {
        let in_flight = self.in_flight.drain().map(|(_, in_flight)| in_flight.call);
        for call in in_flight.chain(self.again.drain(..)).chain(self.waiting.drain(..)) {
            call.complete(Err(error.clone()));
        }
    }
}
