//! A call between its caller and the task of the connection: one allocation, shared by the two.
//!
//! The caller writes the call, the task takes it, sends it and leaves the outcome here. Nothing else is made for a call:
//! no channel and no timer. Its time is kept by the task.

use super::Error;
use super::signals::Signals;
use super::stream::Pipe;
use crate::wire::envelope::{RpcCall, RpcResponse};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Instant;

/// How a call ended.
pub(super) type Outcome = Result<RpcResponse, Error>;

/// A call that was made.
#[derive(Debug)]
pub(super) struct PendingCall {
    /// When the caller stops waiting.
    pub(super) deadline: Instant,
    /// The items of a call that has some.
    pub(super) pipe: Option<Arc<Pipe>>,
    /// How long the caller was going to wait, for the error that says so.
    timeout: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    call: RpcCall,
    /// While it is in flight.
    stream: Option<u32>,
    outcome: Option<Outcome>,
    caller: Option<Waker>,
    /// The caller gave up, or has its outcome.
    is_over: bool,
}

impl PendingCall {
    pub(super) fn new(call: RpcCall, deadline: Instant, timeout: Duration, pipe: Option<Arc<Pipe>>) -> Self {
        let state = State { call, stream: None, outcome: None, caller: None, is_over: false };
        Self { deadline, pipe, timeout, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the caller still waits.
    pub(super) fn is_wanted(&self) -> bool {
        let state = self.lock();
        !state.is_over && state.outcome.is_none()
    }

    /// The stream it is on, while it is on one.
    pub(super) fn stream(&self) -> Option<u32> {
        self.lock().stream
    }

    /// Notes the stream it is on, or that it is on none any more.
    pub(super) fn set_stream(&self, stream: Option<u32>) {
        self.lock().stream = stream;
    }

    /// Looks at the call, or changes it.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut RpcCall) -> T) -> T {
        look(&mut self.lock().call)
    }

    /// Leaves the outcome to the caller; the first one counts.
    pub(super) fn complete(&self, outcome: Outcome) {
        let caller = {
            let mut state = self.lock();
            state.stream = None;
            if state.is_over || state.outcome.is_some() {
                return;
            }
            state.outcome = Some(outcome);
            state.caller.take()
        };
        if let Some(caller) = caller {
            caller.wake();
        }
    }

    /// The caller has waited long enough.
    pub(super) fn time_out(&self) {
        self.complete(Err(self.timed_out()));
    }

    /// What a caller is told that has waited long enough.
    pub(super) fn timed_out(&self) -> Error {
        Error::Timeout(self.timeout)
    }

    /// The outcome, once.
    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<Outcome> {
        let mut state = self.lock();
        if let Some(outcome) = state.outcome.take() {
            state.is_over = true;
            return Poll::Ready(outcome);
        }
        match &mut state.caller {
            Some(caller) => caller.clone_from(context.waker()),
            caller @ None => *caller = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// The call itself, to be made again.
    fn take(&self) -> RpcCall {
        std::mem::take(&mut self.lock().call)
    }

    /// The caller wants no outcome; `false` when it has it.
    fn give_up(&self) -> bool {
        let mut state = self.lock();
        state.caller = None;
        !std::mem::replace(&mut state.is_over, true)
    }
}

/// The caller's end. Dropping it before the outcome gives the call up and tells the server so.
#[derive(Debug)]
pub(super) struct Answer {
    call: Arc<PendingCall>,
    signals: Arc<Signals>,
}

impl Answer {
    pub(super) fn new(call: Arc<PendingCall>, signals: Arc<Signals>) -> Self {
        Self { call, signals }
    }

    /// The call, after its outcome.
    pub(super) fn into_call(self) -> RpcCall {
        self.call.take()
    }

    /// The caller took or gave items.
    pub(super) fn touch(&self) {
        self.signals.touch_call(&self.call);
    }
}

impl Future for Answer {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        self.call.poll(context)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.call.give_up() {
            self.signals.drop_call(&self.call);
        }
    }
}
