//! The calls in flight of one connection, polled by the connection's own task: no task is spawned for a call.

use crate::{
    rpc::{Answer, Reply, Status},
    wire::ErrorCode,
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

pub(super) type Work = Pin<Box<dyn Future<Output = Result<Answer, Status>> + Send>>;

/// Work that was started and has not stopped.
struct InFlight {
    stream: u32,
    work: Work,
    /// `None` once the caller was told that the deadline passed: the work goes on and keeps its slot.
    deadline: Option<Pin<Box<Sleep>>>,
}

enum Outcome {
    Answer(u32, Result<Answer, Status>),
    /// The caller is to be told; the work is given back.
    DeadlinePassed(InFlight),
    /// Work stopped whose caller was told already.
    Stopped,
}

/// A future that is the next outcome of one call.
struct Next(Option<InFlight>);

impl Future for Next {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Some(call) = &mut self.0 else { return Poll::Ready(Outcome::Stopped) };
        if let Poll::Ready(result) = call.work.as_mut().poll(cx) {
            let answered = call.deadline.is_none();
            return Poll::Ready(if answered {
                Outcome::Stopped
            } else {
                Outcome::Answer(call.stream, result)
            });
        }
        let Some(deadline) = &mut call.deadline else { return Poll::Pending };
        ready!(deadline.as_mut().poll(cx));
        call.deadline = None;
        Poll::Ready(self.0.take().map_or(Outcome::Stopped, Outcome::DeadlinePassed))
    }
}

/// The set. A slot is free only when the work behind it has stopped, whatever the caller was told.
#[derive(Default)]
pub(super) struct Calls {
    running: FuturesUnordered<Next>,
}

/// What came of a dispatch.
pub(super) enum Started {
    /// The answer was there at once.
    Answer(Result<Answer, Status>),
    /// It will come out of [`Calls::next`].
    Pending,
}

impl Calls {
    /// Starts a call whose answer may take until `now + deadline`.
    pub(super) fn start(&mut self, stream: u32, reply: Reply, deadline: Duration) -> Started {
        match reply {
            Reply::Ready(result) => Started::Answer(result),
            Reply::Pending(work) => {
                let deadline = Some(Box::pin(tokio::time::sleep_until(Instant::now() + deadline)));
                self.running.push(Next(Some(InFlight { stream, work, deadline })));
                Started::Pending
            }
        }
    }

    /// Calls whose work has not stopped.
    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    /// Waits for the next answer. Waits for ever when nothing runs. Cancel-safe.
    pub(super) async fn next(&mut self) -> (u32, Result<Answer, Status>) {
        loop {
            match self.running.next().await {
                Some(Outcome::Answer(stream, result)) => return (stream, result),
                Some(Outcome::DeadlinePassed(call)) => {
                    let stream = call.stream;
                    self.running.push(Next(Some(call)));
                    let message = "the deadline passed before the answer; a write may have happened";
                    return (stream, Err(Status::new(ErrorCode::TIMEOUT, message)));
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
        calls.start(1, Reply::Pending(Box::pin(work)), Duration::from_secs(1));
        let (stream, result) = calls.next().await;
        assert_eq!((stream, result.unwrap_err().code), (1, ErrorCode::TIMEOUT));
        assert_eq!(calls.len(), 1);
        finish.send(()).unwrap();
        let idle = tokio::time::timeout(Duration::from_secs(5), calls.next()).await;
        assert!(idle.is_err(), "a caller is answered once");
        assert_eq!(calls.len(), 0);
    }
}
