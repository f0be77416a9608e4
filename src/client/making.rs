//! How a call gets onto the connection: at once, by its caller, or by the task behind those that wait.
//!
//! A caller that finds the connection free writes its call into it: there is nothing to hand over. When it is the only one
//! whose turn it is, it gives the bytes to the socket as well, and the task wakes up for the answer alone. Nobody
//! is overtaken: while calls wait, or notes, or callers for a place among them, everybody waits.

use super::Error;
use super::client::Handle;
use super::pending::{Answer, OwnedAnswer, PendingCall};
use super::signals::Signals;
use super::state::Core;
use crate::time::timeout_at;
use crate::wire::envelope::{RpcCall, RpcResponse};
use crate::wire::limits::CALLS_MAX;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;
use tokio::sync::TryAcquireError;
use tokio::time::Instant;

/// Places for calls that wait for the connection; behind them callers wait. As many as a connection takes: a full line then
/// means one connection's worth under way and one in line.
pub(super) const CALLS_WAITING_MAX: usize = CALLS_MAX as usize;

/// A call as its caller has it.
pub(super) struct KeptCall {
    pub(super) call: RpcCall,
    /// When the caller stops waiting.
    pub(super) deadline: Instant,
    /// How long it was going to wait.
    pub(super) timeout: Duration,
}

impl Handle {
    /// Makes a call at once; `None` when it has to wait for others, or for a connection. The `caller` polls the answer at
    /// once.
    pub(super) fn start(
        &self,
        call: &mut KeptCall,
        now: Instant,
        caller: &Waker,
    ) -> Option<Answer<&Signals>> {
        // A place that is taken is that of a call in the line, or of one on its way there.
        if self.signals.has_notes() || self.places.available_permits() < CALLS_WAITING_MAX {
            return None;
        }
        let mut core = self.shared.try_lock()?;
        let Core { link, state } = &mut *core;
        let link = link.as_mut()?;
        if state.in_flight.has_waiting() || !state.takes_calls(link) {
            return None;
        }
        link.see_time(now);
        call.call.deadline_ms = link.left_ms(call.deadline);
        let stream = link.connection.call(&call.call).ok()?;
        let pending = Arc::new(PendingCall::kept(call.deadline, call.timeout, stream, caller));
        let is_due_earlier = state.in_flight.insert_kept(link, stream, Arc::clone(&pending));
        let needs_task = !link.write_at_once() || is_due_earlier;
        drop(core);
        if needs_task {
            self.signals.ring();
        }
        Some(Answer::of_kept(pending, &self.signals))
    }

    /// Has the task make a call, and waits for the outcome.
    pub(super) async fn wait_in_line(
        &self,
        call: &mut KeptCall,
        is_repeated: bool,
    ) -> Result<RpcResponse, Error> {
        let whole = std::mem::take(&mut call.call);
        let mut pending = PendingCall::new(whole, call.deadline, call.timeout, None);
        if is_repeated {
            pending = pending.repeated();
        }
        let mut answer = self.make(pending).await?;
        let outcome = (&mut answer).await;
        call.call = answer.into_call();
        outcome
    }

    /// Hands a call to the task, once there is a place for it.
    pub(super) async fn make(&self, call: PendingCall) -> Result<OwnedAnswer, Error> {
        // One that was in flight already is one of the connection's worth that has no need of a place.
        if !call.is_repeated() {
            match self.places.try_acquire() {
                Ok(place) => place.forget(),
                Err(TryAcquireError::Closed) => return Err(self.closed()),
                Err(TryAcquireError::NoPermits) => {
                    match timeout_at(call.deadline, self.places.acquire()).await {
                        Ok(Ok(place)) => place.forget(),
                        Ok(Err(_)) => return Err(self.closed()),
                        Err(_) => return Err(call.timed_out()),
                    }
                }
            }
        }
        let call = Arc::new(call);
        if !self.signals.add_call(Arc::clone(&call)) {
            return Err(self.closed());
        }
        Ok(OwnedAnswer::new(call, Arc::clone(&self.signals)))
    }
}
