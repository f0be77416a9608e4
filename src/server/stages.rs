//! How long the stages of a call took, for a caller who asks (specification, section 12.5).
//!
//! The stages follow each other and never overlap, so their sum is at most what the caller measures around the call.
//! Nothing here runs for a call that does not ask: the two moments that a read is known by anyway are all it costs.

use super::{calls::Work, clock::DaemonClock};
use crate::rpc::{Answer, Reply, Status};
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

/// The stages of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stages {
    /// From the moment its record was opened until its handler begins: behind the calls of the same read.
    queue: Duration,
    /// Opening and decoding the read that completed it, other calls in it included.
    crypto: Duration,
    /// Its handler, on the processor.
    dispatch: Duration,
    /// Its handler, waiting: for a connection to the database and for the answer on it.
    database: Duration,
}

impl Stages {
    /// Puts the trailers of the times in front of the handler's own, so that nobody else's are taken for them.
    fn put_into(self, answer: &mut Answer) {
        let times = [
            ("time-queue-us", self.queue),
            ("time-crypto-us", self.crypto),
            ("time-dispatch-us", self.dispatch),
            ("time-database-us", self.database),
        ];
        let times = times.map(|(key, time)| (key.to_owned(), time.as_micros().to_string()));
        answer.trailers.splice(0..0, times);
    }
}

/// Follows one call through its stages.
pub(super) struct Stopwatch {
    clock: DaemonClock,
    stages: Stages,
    /// When the stage began that runs.
    since: Duration,
}

impl Stopwatch {
    /// Begins where the handler begins. `read_at` is when the bytes came that completed the call, `opened_at` when they
    /// had been opened and decoded.
    pub(super) fn start(clock: &DaemonClock, read_at: Duration, opened_at: Duration) -> Self {
        let now = clock.now();
        let stages = Stages {
            queue: now.saturating_sub(opened_at),
            crypto: opened_at.saturating_sub(read_at),
            ..Stages::default()
        };
        Self { clock: *clock, stages, since: now }
    }

    /// The reply of the handler that just returned: with its times, or with somebody who takes them while it is awaited.
    pub(super) fn follow(mut self, reply: Reply) -> Reply {
        let worked = self.lap();
        self.stages.dispatch += worked;
        match reply {
            Reply::Ready(mut result) => {
                if let Ok(answer) = &mut result {
                    self.stages.put_into(answer);
                }
                Reply::Ready(result)
            }
            Reply::Pending(work) => Reply::Pending(Box::pin(Followed { work, stopwatch: self })),
        }
    }

    /// Time since the last lap.
    fn lap(&mut self) -> Duration {
        let now = self.clock.now();
        now.saturating_sub(std::mem::replace(&mut self.since, now))
    }
}

/// Work whose polls are measured.
struct Followed {
    work: Work,
    stopwatch: Stopwatch,
}

impl Future for Followed {
    type Output = Result<Answer, Status>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let waited = self.stopwatch.lap();
        self.stopwatch.stages.database += waited;
        let mut polled = self.work.as_mut().poll(context);
        let worked = self.stopwatch.lap();
        self.stopwatch.stages.dispatch += worked;
        if let Poll::Ready(Ok(answer)) = &mut polled {
            self.stopwatch.stages.put_into(answer);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ErrorCode;
    use bytes::Bytes;
    use tokio::time::{advance, sleep};

    const READ: Duration = Duration::from_millis(1);
    const OPENED: Duration = Duration::from_millis(3);

    fn micros(queue: u32, crypto: u32, dispatch: u32, database: u32) -> Vec<(String, String)> {
        let times = [("queue", queue), ("crypto", crypto), ("dispatch", dispatch), ("database", database)];
        times.map(|(stage, time)| (format!("time-{stage}-us"), time.to_string())).to_vec()
    }

    #[tokio::test(start_paused = true)]
    async fn stages_follow_each_other_and_leave_nothing_out() {
        let clock = DaemonClock::start();
        advance(Duration::from_millis(10)).await;
        let stopwatch = Stopwatch::start(&clock, READ, OPENED);
        advance(Duration::from_millis(4)).await;
        let work = async {
            sleep(Duration::from_millis(20)).await;
            // A handler that keeps the processor.
            advance(Duration::from_millis(5)).await;
            Ok(Answer { result: Bytes::from_static(b"1"), trailers: vec![("own".into(), "x".into())] })
        };
        let answer = stopwatch.follow(Reply::pending(work)).await.unwrap();
        assert_eq!(answer.trailers[..4], micros(7_000, 2_000, 9_000, 20_000));
        assert_eq!(answer.trailers[4..], [("own".to_owned(), "x".to_owned())]);
        assert_eq!(clock.now() - READ, Duration::from_millis(7 + 2 + 9 + 20));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_ready_has_waited_for_nothing_and_a_failure_has_no_times() {
        let clock = DaemonClock::start();
        advance(OPENED).await;
        let stopwatch = Stopwatch::start(&clock, READ, OPENED);
        advance(Duration::from_micros(8)).await;
        let reply = stopwatch.follow(Reply::from(Ok(Bytes::new())));
        assert!(matches!(reply, Reply::Ready(_)));
        assert_eq!(reply.await.unwrap().trailers, micros(0, 2_000, 8, 0));

        let status = Status::new(ErrorCode::NOT_FOUND, "gone");
        let failure = Err::<Bytes, _>(status.clone());
        let stopwatch = Stopwatch::start(&clock, READ, OPENED);
        assert_eq!(stopwatch.follow(Reply::from(failure)).await, Err(status));
    }
}
