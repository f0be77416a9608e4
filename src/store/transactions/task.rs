//! The task of an open transaction: does what it is given, one after the other, and ends it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use super::open::{Begun, Over};
use super::outcome::{Outcome, find_out};
use super::pool::{Place, unavailable};
use super::register::unregister;
use super::stopped;
use super::transaction::{CommitError, ROLLBACK_LONGEST};
use crate::store::Store;
use crate::store::canceller::GRACE;
use crate::store::scope::{Scope, StopSignal};
use crate::time::{sleep_until, timeout};

/// What became of work.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It has ended, and the transaction goes on.
    Open,
    /// It failed, and the transaction with it.
    Broken,
    Over(Over),
}

/// A piece of work.
pub(super) struct Work {
    pub(super) scope: Scope,
    /// Set when nobody waits for it any more.
    pub(super) gone: StopSignal,
    pub(super) whole: bool,
    /// Answers whether it was done.
    pub(super) body: Box<dyn FnOnce(Store) -> BoxFuture<'static, bool> + Send>,
    pub(super) verdict: oneshot::Sender<Verdict>,
}

pub(super) enum Job {
    Work(Work),
    Commit { scope: Scope, reply: oneshot::Sender<Over> },
    RollBack { reply: oneshot::Sender<()> },
}

/// Who waits for the end.
enum Waiting {
    Nobody,
    Work(oneshot::Sender<Verdict>, Verdict),
    Commit(oneshot::Sender<Over>),
    RollBack(oneshot::Sender<()>),
}

/// How it ended, and whether the connection is as it was before.
struct Ending {
    over: Over,
    is_clean: bool,
    waiting: Waiting,
}

pub(super) struct Keeper {
    /// In the lane of its owner, and outside of the transaction.
    pub(super) store: Store,
    pub(super) begun: Begun,
    pub(super) jobs: mpsc::UnboundedReceiver<Job>,
    pub(super) over: Arc<OnceLock<Over>>,
    pub(super) idle: Duration,
    pub(super) longest: Duration,
    pub(super) until: Instant,
    pub(super) places: (Place, OwnedSemaphorePermit),
}

impl Keeper {
    /// Serves the transaction to its end.
    pub(super) async fn keep(mut self) {
        let Ending { over, is_clean, waiting } = self.serve().await;
        if over == Over::Committed {
            self.store.wake();
        } else {
            tracing::debug!(sid = self.begun.identity.sid, %over, "a transaction is over");
        }
        let _only_here = self.over.set(over.clone());
        // First what the next one needs, then the answers: who is answered may begin the next one.
        let Begun { connection, transaction, identity } = self.begun;
        drop(transaction);
        if is_clean && let Some(connection) = Arc::into_inner(connection) {
            self.store.0.open_transactions.put_back(connection);
        }
        drop(self.places);
        self.jobs.close();
        // Who waits may have gone.
        let _gone = match waiting {
            Waiting::Nobody => true,
            Waiting::Work(reply, verdict) => reply.send(verdict).is_ok(),
            Waiting::Commit(reply) => reply.send(over.clone()).is_ok(),
            Waiting::RollBack(reply) => reply.send(()).is_ok(),
        };
        while let Ok(job) = self.jobs.try_recv() {
            let _gone = match job {
                Job::Work(work) => work.verdict.send(Verdict::Over(over.clone())).is_ok(),
                Job::Commit { reply, .. } => reply.send(over.clone()).is_ok(),
                Job::RollBack { reply } => reply.send(()).is_ok(),
            };
        }
        unregister(&self.store, &identity.sid).await;
    }

    async fn serve(&mut self) -> Ending {
        loop {
            let idle_until = Instant::now() + self.idle;
            let job = tokio::select! {
                biased;
                () = sleep_until(self.until) => return self.end(Over::TooLong(self.longest)).await,
                job = self.jobs.recv() => job,
                () = sleep_until(idle_until) => return self.end(Over::Idle(self.idle)).await,
            };
            match job {
                // Its owner is gone.
                None => return self.end(Over::RolledBack).await,
                Some(Job::RollBack { reply }) => {
                    let ending = self.end(Over::RolledBack).await;
                    return Ending { waiting: Waiting::RollBack(reply), ..ending };
                }
                Some(Job::Commit { scope, reply }) => {
                    let ending = self.commit(&scope, &reply).await;
                    return Ending { waiting: Waiting::Commit(reply), ..ending };
                }
                Some(Job::Work(work)) => {
                    if let Some(ending) = self.work(work).await {
                        return ending;
                    }
                }
            }
        }
    }

    /// Does a piece of work. Answers how the transaction ended, if it did.
    async fn work(&mut self, work: Work) -> Option<Ending> {
        let Work { scope, gone, whole, body, verdict } = work;
        let transaction = &self.begun.transaction;
        let inside = Scope { transaction: Some(Arc::clone(transaction)), ..scope.clone() };
        let mut running = body(self.store.scoped(inside));
        let done = tokio::select! {
            biased;
            stop = stopped(&scope, &gone) => Err(Over::Failed(stop.into())),
            () = sleep_until(self.until) => Err(Over::TooLong(self.longest)),
            is_ok = &mut running => Ok(is_ok),
        };
        // What it waits for need not be a statement: items of a client may never come.
        drop(running);
        let (over, verdict_of) = match done {
            Err(over) => {
                self.begun.transaction.end_statements();
                let is_clean = self.roll_back(true).await;
                let waiting = Waiting::Work(verdict, Verdict::Over(over.clone()));
                return Some(Ending { over, is_clean, waiting });
            }
            Ok(is_ok) => match transaction.failure() {
                None if is_ok || !whole => {
                    // Its caller may have gone.
                    let _gone = verdict.send(Verdict::Open);
                    return None;
                }
                None => (Over::HalfDone, Verdict::Broken),
                Some(error) if is_ok => (Over::Failed(error.clone()), Verdict::Over(Over::Failed(error))),
                Some(error) => (Over::Failed(error), Verdict::Broken),
            },
        };
        let is_busy = transaction.has_left_stream();
        let is_clean = self.roll_back(is_busy).await;
        Some(Ending { over, is_clean, waiting: Waiting::Work(verdict, verdict_of) })
    }

    async fn commit(&self, scope: &Scope, reply: &oneshot::Sender<Over>) -> Ending {
        if let Some(stop) = scope.stopped().now_or_never() {
            return self.end(Over::Failed(stop.into())).await;
        }
        // The end of a connection rolls back what it has not seen committed.
        if reply.is_closed() {
            return self.end(Over::RolledBack).await;
        }
        let (over, is_clean) = match self.begun.transaction.commit().await {
            Ok(()) => (Over::Committed, true),
            Err(CommitError::RolledBack(error)) => (Over::Failed(error), self.roll_back(false).await),
            Err(CommitError::Unknown) => match self.find_out().await {
                Outcome::Committed => (Over::Committed, false),
                Outcome::RolledBack => (Over::Failed(unavailable()), false),
                Outcome::Unknown => (Over::Unknown, false),
            },
        };
        Ending { over, is_clean, waiting: Waiting::Nobody }
    }

    /// What became of a COMMIT whose answer was lost.
    async fn find_out(&self) -> Outcome {
        match self.begun.identity.xid {
            Some(xid) => find_out(&self.store, self.begun.connection.peer(), xid).await,
            // What only reads has nothing to lose.
            None => Outcome::RolledBack,
        }
    }

    async fn end(&self, over: Over) -> Ending {
        Ending { over, is_clean: self.roll_back(false).await, waiting: Waiting::Nobody }
    }

    /// Rolls back, and stops what is executed before it. Answers whether the connection may be used again: a request to
    /// stop may still be on its way, and would hit somebody else there.
    async fn roll_back(&self, is_busy: bool) -> bool {
        let mut canceller = self.begun.connection.canceller();
        canceller.watch(is_busy, true, GRACE);
        let mut rolling_back = std::pin::pin!(self.begun.transaction.roll_back());
        let rolled_back = async {
            loop {
                tokio::select! {
                    biased;
                    is_clean = &mut rolling_back => return is_clean,
                    () = canceller.step() => {}
                }
            }
        };
        timeout(ROLLBACK_LONGEST, rolled_back).await.unwrap_or(false) && !is_busy
    }
}
