//! What becomes of the statements that were sent.

use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;
use tokio_postgres::Row;

use super::{End, Group, Outcome, Pipeline, REPEATS_MAX, Running, Work, head};
use crate::store::StoreError;
use crate::store::dispatch::Job;
use crate::store::group;
use crate::store::pool::RETRY_AFTER;
use crate::store::session::Access;
use crate::store::sqlstate::{Failure, failure};

impl Pipeline {
    /// Takes every answer that is there.
    pub(super) async fn take_answers(&mut self) {
        loop {
            let Some(running) = self.running.pop_front() else { return };
            self.take_answer(running).await;
            if head(&mut self.running).now_or_never().is_none() {
                return;
            }
        }
    }

    pub(super) async fn take_answer(&mut self, running: Running) {
        const COMPLETE: &str = "the answer is complete";
        let elapsed = self.head_since.elapsed();
        self.head_since = Instant::now();
        self.silent_since = self.head_since;
        match running.work {
            Work::Setting(mut answer) => {
                if Pin::new(&mut answer).take_output().expect(COMPLETE).is_err() {
                    self.timeout.forget();
                }
            }
            Work::One(job, mut answer) => {
                let outcome = Pin::new(&mut answer).take_output().expect(COMPLETE);
                self.take_outcome(job, outcome, elapsed, running.limit).await;
            }
            Work::Group(group, mut answer) => {
                let outcomes = Pin::new(&mut answer).take_output().expect(COMPLETE);
                self.take_group(group, outcomes);
            }
        }
    }

    pub(super) async fn take_outcome(
        &mut self,
        job: Job,
        outcome: Outcome,
        elapsed: Duration,
        limit: Duration,
    ) {
        let error = match outcome {
            Ok(rows) => {
                if self.dispatch.access == Access::Write {
                    self.dispatch.written.notify_one();
                }
                return self.finish(job, Ok(rows));
            }
            Err(error) => error,
        };
        match failure(&error) {
            Failure::Refused(error) => {
                if job.is_alone {
                    self.dispatch.keep_apart(job.ticket.lane());
                }
                self.finish(job, Err(error));
            }
            Failure::Serialization => self.finish(job, Err(StoreError::Conflict)),
            Failure::Cancelled => match job.ticket.stop() {
                Some(stop) => self.finish(job, Err(stop.into())),
                // It was rolled back, so that it may be done again, a write too.
                None if self.canceller.may_have_hit(elapsed, limit) => self.repeat(job).await,
                None => self.finish(job, Err(StoreError::Timeout)),
            },
            Failure::Stale => {
                self.statements.remove(&job.call.key);
                self.repeat(job).await;
            }
            Failure::Broken => self.lose(job),
        }
    }

    /// The answers to a group: everybody gets his own when it was committed; else all are done again, each alone.
    pub(super) fn take_group(&mut self, group: Group, mut outcomes: Vec<Outcome>) {
        let Group { jobs, parts, is_transaction } = group;
        let commit = is_transaction.then(|| outcomes.pop()).flatten();
        // Without a BEGIN each statement was a transaction of its own, and what it answered counts.
        let is_one = is_transaction && outcomes.remove(0).is_ok();
        let mut results = Vec::with_capacity(parts.len());
        let mut failed = None;
        for (part, outcome) in parts.iter().zip(outcomes) {
            let result = outcome.map_err(|error| End::of(&failure(&error)));
            if let Err(end) = result {
                if end == End::Stale {
                    self.statements.remove(&part.key);
                }
                // The first failure counts: those behind it say only that there was one.
                failed = failed.or(Some(end));
            }
            results.push(result);
        }
        if let Some(Err(error)) = commit {
            failed = failed.or(Some(End::of(&failure(&error))));
        }
        let mut shares: Vec<Result<Vec<Row>, End>> = Vec::new();
        shares.resize_with(jobs.len(), || Err(End::Undone));
        for (part, result) in parts.iter().zip(results) {
            match failed.filter(|_| is_one).map_or(result, Err) {
                Ok(rows) => {
                    if self.dispatch.access == Access::Write {
                        self.dispatch.written.notify_one();
                    }
                    group::share(part, &jobs, rows, |place, rows| shares[place] = Ok(rows));
                }
                Err(end) => part.members.iter().for_each(|place| shares[*place] = Err(end)),
            }
        }
        let mut again = Vec::new();
        for (job, share) in jobs.into_iter().zip(shares) {
            match share {
                Ok(rows) => self.finish(job, Ok(rows)),
                Err(End::Broken) => self.lose(job),
                Err(End::Stale | End::Undone) => again.push(job),
            }
        }
        self.do_again(again);
    }

    /// Has writes that were not done, or were rolled back, done again: each alone, wherever there is a connection.
    pub(super) fn do_again(&mut self, jobs: Vec<Job>) {
        let mut wanted: Vec<Job> = jobs.into_iter().filter_map(|job| self.wanted(job)).collect();
        wanted.iter_mut().for_each(|job| job.is_alone = true);
        self.finished += wanted.len();
        self.dispatch.give_back(wanted);
    }

    /// Sends something again that did nothing.
    pub(super) async fn repeat(&mut self, mut job: Job) {
        job.repeats += 1;
        if job.repeats > REPEATS_MAX {
            tracing::warn!(statement = ?job.call.key, "a statement found no connection that lasted");
            return self.finish(job, Err(StoreError::Unavailable { retry_after: RETRY_AFTER }));
        }
        if self.client.is_closed() {
            self.finished += 1;
            return self.dispatch.give_back(vec![job]);
        }
        // Not through `start`, which would call itself: a repeated statement is prepared anew or already.
        match self.statements.get(&job.call.key).cloned() {
            Some(statement) => self.send(statement, job).await,
            None => self.park(job),
        }
    }

    /// The connection broke after it was sent.
    pub(super) fn lose(&mut self, mut job: Job) {
        job.repeats += 1;
        if self.dispatch.access == Access::Write {
            self.finish(job, Err(StoreError::UnknownOutcome));
        } else if job.repeats > REPEATS_MAX {
            self.finish(job, Err(StoreError::Unavailable { retry_after: RETRY_AFTER }));
        } else {
            // A read may be sent twice.
            self.finished += 1;
            self.dispatch.give_back(vec![job]);
        }
    }

    pub(super) fn finish(&mut self, job: Job, result: Result<Vec<Row>, StoreError>) {
        self.finished += 1;
        job.answer(result);
    }
}
