//! A call between its caller and the task of the connection: one allocation, shared by the two.
//!
//! Who makes a call on a free connection keeps what it says, and only the outcome is left here. A call that waits in a line
//! is here as a whole: the task makes it. Nothing else is made for a call: no channel and no timer. Its time is kept by the
//! task.

use super::Error;
use super::signals::Signals;
use super::stream::Pipe;
use crate::conn::ConnectionError;
use crate::wire::envelope::{RpcCall, RpcResponse};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Instant;

/// How a call ended.
pub(super) type Outcome = Result<RpcResponse, Failure>;

/// Why there is no response. Kept short, because each outcome is as long as the longest one.
#[derive(Debug)]
pub(super) enum Failure {
    /// What the caller is told.
    Error(Box<Error>),
    /// The connection was lost with the call on it; it may have run.
    Lost(Box<ConnectionError>),
    /// It has not run: its caller, who kept it, may make it again.
    NotTaken,
}

impl Failure {
    /// What the caller of a method is told.
    pub(super) fn into_error(self, method: &str) -> Error {
        match self {
            Self::Error(error) => *error,
            Self::Lost(cause) => Error::UnknownOutcome { method: method.to_owned(), cause: *cause },
            // The task makes the calls again that it has; those that callers kept are made again by them.
            Self::NotTaken => Error::Closed,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(Box::new(error))
    }
}

/// A call that was made.
#[derive(Debug)]
pub(super) struct PendingCall {
    /// When the caller stops waiting.
    pub(super) deadline: Instant,
    /// The items of a call that has some.
    pub(super) pipe: Option<Arc<Pipe>>,
    /// How long the caller was going to wait, for the error that says so.
    timeout: Duration,
    /// It was on a connection before, which did not take it.
    is_repeated: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` when its caller keeps it.
    call: Option<Box<RpcCall>>,
    /// While it is in flight.
    stream: Option<u32>,
    outcome: Option<Outcome>,
    caller: Option<Waker>,
    /// The caller gave up, or has its outcome.
    is_over: bool,
}

impl State {
    /// The outcome, once, if it is there.
    fn take_outcome(&mut self) -> Option<Outcome> {
        let outcome = self.outcome.take();
        self.is_over |= outcome.is_some();
        outcome
    }
}

impl PendingCall {
    /// A call that the task is to make.
    pub(super) fn new(call: RpcCall, deadline: Instant, timeout: Duration, pipe: Option<Arc<Pipe>>) -> Self {
        let call = Some(Box::new(call));
        let state = State { call, stream: None, outcome: None, caller: None, is_over: false };
        Self { deadline, pipe, timeout, is_repeated: false, state: Mutex::new(state) }
    }

    /// One that its caller has made, who is to be woken for the outcome.
    pub(super) fn kept(deadline: Instant, timeout: Duration, stream: u32, caller: &Waker) -> Self {
        let (stream, caller) = (Some(stream), Some(caller.clone()));
        let state = State { call: None, stream, outcome: None, caller, is_over: false };
        Self { deadline, pipe: None, timeout, is_repeated: false, state: Mutex::new(state) }
    }

    /// The same, before those that were never made.
    pub(super) fn repeated(self) -> Self {
        Self { is_repeated: true, ..self }
    }

    pub(super) fn is_repeated(&self) -> bool {
        self.is_repeated
    }

    /// Whether only its caller can make it again.
    pub(super) fn is_kept_by_its_caller(&self) -> bool {
        self.lock().call.is_none()
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
        look(self.lock().call.as_mut().expect("what the task makes was handed to it"))
    }

    /// Leaves the outcome to the caller, and gives who is to be woken for it; the first one counts.
    #[must_use]
    pub(super) fn complete(&self, outcome: Outcome) -> Option<Waker> {
        let mut state = self.lock();
        state.stream = None;
        if state.is_over || state.outcome.is_some() {
            return None;
        }
        state.outcome = Some(outcome);
        state.caller.take()
    }

    /// What a caller is told that has waited long enough.
    pub(super) fn timed_out(&self) -> Error {
        Error::Timeout(self.timeout)
    }

    /// The outcome, once, if it is there.
    fn take_outcome(&mut self) -> Option<Outcome> {
        self.state.get_mut().unwrap_or_else(PoisonError::into_inner).take_outcome()
    }

    /// The outcome, once.
    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<Outcome> {
        let mut state = self.lock();
        if let Some(outcome) = state.take_outcome() {
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
        self.lock().call.take().map(|call| *call).unwrap_or_default()
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
pub(super) struct Answer<S: Deref<Target = Signals>> {
    call: Arc<PendingCall>,
    signals: S,
    /// Whoever polls it first is the caller that is to be woken, since a moment ago.
    is_new: bool,
    /// The outcome was taken.
    is_over: bool,
}

/// Of a call that the task makes.
pub(super) type OwnedAnswer = Answer<Arc<Signals>>;

impl<S: Deref<Target = Signals>> Answer<S> {
    pub(super) fn new(call: Arc<PendingCall>, signals: S) -> Self {
        Self { call, signals, is_new: false, is_over: false }
    }

    /// Of a [kept](PendingCall::kept) call, polled at once and with the waker that it was given.
    pub(super) fn of_kept(call: Arc<PendingCall>, signals: S) -> Self {
        Self { call, signals, is_new: true, is_over: false }
    }

    /// Waits for the outcome.
    pub(super) fn poll_outcome(&mut self, context: &Context<'_>) -> Poll<Outcome> {
        if std::mem::take(&mut self.is_new) {
            return Poll::Pending;
        }
        // Once it is answered nobody else has it.
        let answered = Arc::get_mut(&mut self.call).and_then(PendingCall::take_outcome);
        let outcome = answered.map_or_else(|| self.call.poll(context), Poll::Ready);
        self.is_over |= outcome.is_ready();
        outcome
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

impl Future for OwnedAnswer {
    type Output = Result<RpcResponse, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = std::task::ready!(self.poll_outcome(context));
        Poll::Ready(outcome.map_err(|failure| self.call.with(|call| failure.into_error(&call.method))))
    }
}

impl<S: Deref<Target = Signals>> Drop for Answer<S> {
    fn drop(&mut self) {
        if !self.is_over && self.call.give_up() {
            self.signals.drop_call(&self.call);
        }
    }
}
