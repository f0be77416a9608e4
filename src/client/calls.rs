//! Calls that wait and calls in flight: who is on which stream, and what becomes of them when the connection is lost.
//!
//! Here a call runs at most once. When a connection is lost, calls of which no byte can have left this process are made
//! again on the next one, and so are calls that the server says it has not taken (GOAWAY, GOING_AWAY). Every other call ends
//! with [`Error::UnknownOutcome`]: it may have run. Whether it is sent again nevertheless, `retry` decides.

use super::error::{CallError, Error};
use super::link::Link;
use super::pending::{Failure, Outcome, PendingCall};
use crate::conn::{ApiMisuse, ConnectionError, stream_map::StreamMap};
use crate::wire::ErrorCode;
use crate::wire::envelope::{RpcError, RpcResponse};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
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
    /// Those whose outcome is there.
    woken: Vec<Waker>,
}

impl Calls {
    /// Swaps the callers that are to be woken for `woken`, which is empty and whose memory serves again.
    pub(super) fn take_woken(&mut self, woken: &mut Vec<Waker>) {
        std::mem::swap(&mut self.woken, woken);
    }

    /// Leaves the outcome to the caller.
    fn complete(woken: &mut Vec<Waker>, call: &PendingCall, outcome: Outcome) {
        woken.extend(call.complete(outcome));
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Takes new calls.
    pub(super) fn add(&mut self, calls: impl Iterator<Item = Arc<PendingCall>>) {
        for call in calls {
            self.keep_time(&call);
            // Those that were in flight already have no place in the line.
            let line = if call.is_repeated() { &mut self.again } else { &mut self.waiting };
            line.push_back(call);
        }
    }

    /// Says whether something is due earlier than before.
    fn keep_time(&mut self, call: &PendingCall) -> bool {
        let is_first = self.due.is_none_or(|due| call.deadline < due);
        if is_first {
            self.due = Some(call.deadline);
        }
        is_first
    }

    /// Whether calls wait to be made.
    pub(super) fn has_waiting(&self) -> bool {
        !self.again.is_empty() || !self.waiting.is_empty()
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
        for (stream, InFlight { call, .. }) in self.in_flight.iter() {
            if call.deadline <= now
                && let Some(link) = &mut link
            {
                Self::complete(&mut self.woken, call, Err(call.timed_out().into()));
                // Its stream stays until the server has answered. A connection that is ending needs no cancel.
                let _over = link.connection.cancel(stream);
            }
        }
        let mut expired = 0;
        for (line, is_new) in [(&mut self.again, false), (&mut self.waiting, true)] {
            line.retain(|call| {
                let stays = now < call.deadline;
                if !stays {
                    Self::complete(&mut self.woken, call, Err(call.timed_out().into()));
                    expired += usize::from(is_new);
                }
                stays
            });
        }
        let in_flight = self.in_flight.iter().map(|(_, in_flight)| &in_flight.call);
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
        let deadline_ms = link.left_ms(call.deadline);
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
            Err(ApiMisuse::MessageTooLarge) => {
                Self::complete(&mut self.woken, &call, Err(Error::TooLarge.into()));
            }
            Err(error) => {
                self.again.push_front(call);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Has a caller's call, which is handed to the connection already. Says whether something is due earlier than before.
    pub(super) fn insert_kept(&mut self, link: &Link, stream: u32, call: Arc<PendingCall>) -> bool {
        let is_due_earlier = self.keep_time(&call);
        self.in_flight.insert(stream, InFlight { call, opened_at: link.writes() });
        is_due_earlier
    }

    pub(super) fn on_response(&mut self, stream: u32, response: RpcResponse) {
        if let Some(InFlight { call, .. }) = self.in_flight.remove(stream) {
            Self::complete(&mut self.woken, &call, Ok(response));
        }
    }

    /// Says whether the stream is a call.
    pub(super) fn on_error(&mut self, stream: u32, error: RpcError) -> Result<(), RpcError> {
        let Some(InFlight { call, .. }) = self.in_flight.remove(stream) else { return Err(error) };
        if error.code == ErrorCode::GOING_AWAY {
            self.make_again(call);
        } else {
            Self::complete(&mut self.woken, &call, Err(Error::Call(CallError::from(error)).into()));
        }
        Ok(())
    }

    fn make_again(&mut self, call: Arc<PendingCall>) {
        if call.is_kept_by_its_caller() {
            return Self::complete(&mut self.woken, &call, Err(Failure::NotTaken));
        }
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
        let in_flight = self.in_flight.get(stream);
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
        let Some(InFlight { call, .. }) = self.in_flight.get(stream) else { return };
        let Some(pipe) = &call.pipe else { return };
        if let Some(items) = pipe.take_credit() {
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

    /// The connection is over. Says whether there were calls of which nothing was sent: nothing of them may be sent on it any
    /// more.
    pub(super) fn on_loss(&mut self, link: &Link, last_taken: Option<u32>, cause: &ConnectionError) -> bool {
        let mut has_unsent = false;
        let mut lost: Vec<_> = self.in_flight.take_all().collect();
        lost.sort_unstable_by_key(|(stream, _)| *stream);
        for (stream, InFlight { call, opened_at }) in lost {
            let was_sent = opened_at != link.writes();
            has_unsent |= !was_sent;
            let was_taken = last_taken.is_none_or(|last| stream <= last);
            if was_sent && was_taken {
                Self::complete(&mut self.woken, &call, Err(Failure::Lost(Box::new(cause.clone()))));
            } else {
                self.make_again(call);
            }
        }
        has_unsent
    }

    /// Ends every call.
    pub(super) fn fail(&mut self, error: &Error) {
        let in_flight = self.in_flight.take_all().map(|(_, in_flight)| in_flight.call);
        for call in in_flight.chain(self.again.drain(..)).chain(self.waiting.drain(..)) {
            Self::complete(&mut self.woken, &call, Err(error.clone().into()));
        }
    }
}
