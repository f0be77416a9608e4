//! The calls in flight of one connection, polled by the connection's own task: no task is spawned for a call.

use super::running::Running;
use crate::{
    rpc::{Answer, CancelSignal, Status},
    wire::ErrorCode,
};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

pub(super) type Work = Pin<Box<dyn Future<Output = Result<Answer, Status>> + Send>>;

/// How long after its deadline a call may take to stop before its caller is told. Postgres stops a statement within
/// milliseconds; a caller does not wait for a network that is gone.
const STOP_PATIENCE: Duration = Duration::from_millis(250);

/// How far the time of a call has run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The timer is at the deadline.
    InTime,
    /// The deadline passed, and the work was told to stop. The timer is at the end of the patience with it.
    Stopping,
    /// The caller was told. The work goes on and keeps its slot.
    Answered,
}

/// Leaves the signal of a call that was answered at once to the next one, unless somebody has kept it.
pub(super) fn reuse(signal: &mut CancelSignal) {
    if Arc::strong_count(signal) > 1 {
        *signal = CancelSignal::default();
    }
}

/// Work that was started and has not stopped.
struct InFlight {
    stream: u32,
    work: Work,
    cancelled: CancelSignal,
    timer: Pin<Box<Sleep>>,
    phase: Phase,
}

impl InFlight {
    fn cancel(&self) {
        // It may have been told before.
        let _again = self.cancelled.set(());
    }
}

enum Outcome {
    Answer(u32, Result<Answer, Status>),
    /// The caller is to be told; the work is given back.
    OutOfPatience(InFlight),
    /// Work stopped whose caller was told already.
    Stopped,
}

/// A future that is the next outcome of one call.
struct Next(Option<InFlight>);

impl Future for Next {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Some(call) = &mut self.0 else { return Poll::Ready(Outcome::Stopped) };
        loop {
            if let Poll::Ready(result) = call.work.as_mut().poll(cx) {
                return Poll::Ready(match call.phase {
                    Phase::InTime => Outcome::Answer(call.stream, result),
                    Phase::Stopping => Outcome::Answer(call.stream, result.map_err(as_timeout)),
                    Phase::Answered => Outcome::Stopped,
                });
            }
            if call.phase == Phase::Answered || call.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if call.phase == Phase::Stopping {
                call.phase = Phase::Answered;
                return Poll::Ready(self.0.take().map_or(Outcome::Stopped, Outcome::OutOfPatience));
            }
            call.phase = Phase::Stopping;
            call.cancel();
            call.timer.as_mut().reset(Instant::now() + STOP_PATIENCE);
        }
    }
}

/// Work that was told to stop because of its deadline says that it was cancelled; its caller did not. What else it says
/// about itself stays.
fn as_timeout(status: Status) -> Status {
    match status.code {
        ErrorCode::CANCELLED => Status { details: status.details, ..timeout() },
        _ => status,
    }
}

fn timeout() -> Status {
    Status::new(ErrorCode::TIMEOUT, "the deadline passed before the answer; a write may have happened")
}

/// The set. A slot is free only when the work behind it has stopped, whatever the caller was told.
#[derive(Default)]
pub(super) struct Calls {
    running: Running<Next>,
}

impl Calls {
    /// Waits for the work of a call, which may take until `now + deadline`, and is told to stop by `cancelled`.
    pub(super) fn start(&mut self, stream: u32, work: Work, cancelled: CancelSignal, deadline: Duration) {
        let timer = Box::pin(crate::time::sleep_until(Instant::now() + deadline));
        self.running.push(Next(Some(InFlight { stream, work, cancelled, timer, phase: Phase::InTime })));
    }

    /// Tells a call to stop. It is answered when it has.
    pub(super) fn cancel(&mut self, stream: u32) {
        let calls = self.running.iter().filter_map(|next| next.0.as_ref());
        if let Some(call) = calls.into_iter().find(|call| call.stream == stream) {
            call.cancel();
        }
    }

    /// Calls whose work has not stopped.
    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    /// Gives back what it holds for calls, if there are none.
    pub(super) fn rest(&mut self) {
        self.running.rest();
    }

    /// Waits for the next answer. Waits for ever when nothing runs. Cancel-safe.
    pub(super) async fn next(&mut self) -> (u32, Result<Answer, Status>) {
        loop {
            match self.running.next().await {
                Some(Outcome::Answer(stream, result)) => return (stream, result),
                Some(Outcome::OutOfPatience(call)) => {
                    let stream = call.stream;
                    self.running.push(Next(Some(call)));
                    return (stream, Err(timeout()));
                }
                Some(Outcome::Stopped) => {}
                None => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test(start_paused = true)]
    async fn a_slot_stays_taken_until_the_work_stops() {
        let (finish, finished) = oneshot::channel::<()>();
        let mut calls = Calls::default();
        let work = async move {
            finished.await.expect("the sender lives");
            Ok(Answer::default())
        };
        calls.start(1, Box::pin(work), CancelSignal::default(), Duration::from_secs(1));
        let (stream, result) = calls.next().await;
        assert_eq!((stream, result.unwrap_err().code), (1, ErrorCode::TIMEOUT));
        assert_eq!(calls.len(), 1);
        finish.send(()).unwrap();
        let idle = crate::time::timeout(Duration::from_secs(5), calls.next()).await;
        assert!(idle.is_err(), "a caller is answered once");
        assert_eq!(calls.len(), 0);
    }

    /// Work that says CANCELLED when it is told to stop, after another moment.
    fn stoppable(signal: CancelSignal) -> Work {
        Box::pin(async move {
            signal.wait().await;
            crate::time::sleep(Duration::from_millis(10)).await;
            Err(Status::new(ErrorCode::CANCELLED, "stopped"))
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_cancelled_or_out_of_time_is_told_to_stop_and_then_answered() {
        let mut calls = Calls::default();
        for stream in [1, 3] {
            let signal = CancelSignal::default();
            calls.start(stream, stoppable(signal.clone()), signal, Duration::from_secs(1));
        }
        calls.cancel(3);
        assert_eq!(calls.len(), 2, "it has not stopped");
        let (stream, result) = calls.next().await;
        assert_eq!((stream, result.unwrap_err().code, calls.len()), (3, ErrorCode::CANCELLED, 1));
        let (stream, result) = calls.next().await;
        assert_eq!((stream, result.unwrap_err().code, calls.len()), (1, ErrorCode::TIMEOUT, 0));
        calls.cancel(3);
    }

    #[test]
    fn the_signal_of_a_call_that_was_answered_at_once_is_used_again() {
        let mut signal = CancelSignal::default();
        let first = Arc::as_ptr(&signal);
        reuse(&mut signal);
        assert_eq!(first, Arc::as_ptr(&signal));
        let kept = signal.clone();
        reuse(&mut signal);
        assert!(!Arc::ptr_eq(&kept, &signal), "somebody kept it");
    }
}
