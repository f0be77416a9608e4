//! An open transaction, as whoever keeps it sees it: work is given to it, in order, until it is ended.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::connection::Connection;
use super::pool::{OPEN_WAIT, Place, unavailable};
use super::register::{Identity, introduce, register};
use super::task::{Job, Keeper, Verdict, Work};
use super::transaction::Transaction;
use super::{Isolation, Leave};
use crate::store::scope::{Scope, StopSignal};
use crate::store::{Store, StoreError};
use crate::time::timeout;

/// How often a begin is made on another connection when the one from the pool turns out to be broken.
const BEGINS_MAX: usize = 4;

/// Whether a transaction may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// It may.
    Allowed,
    /// Postgres refuses them.
    Refused,
}

/// How an open transaction is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenOptions {
    /// What it sees of others.
    pub isolation: Isolation,
    /// Whether it may write.
    pub writes: Writes,
}

/// Why a transaction is over. Except after `Committed` and `Unknown`, nothing of it was done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Over {
    /// Nothing was asked of it for so long.
    #[error("the transaction was rolled back: nothing was asked of it for {0:?}")]
    Idle(Duration),
    /// It lasted for so long.
    #[error("the transaction was rolled back: it lasted for {0:?}")]
    TooLong(Duration),
    /// A statement of it failed, it was stopped, or it could not be committed.
    #[error("the transaction was rolled back: {0}")]
    Failed(StoreError),
    /// Work that is done whole or not at all was done in part.
    #[error("the transaction was rolled back: a part of it that is all or nothing failed")]
    HalfDone,
    /// It was asked to.
    #[error("the transaction was rolled back")]
    RolledBack,
    /// It was asked to.
    #[error("the transaction was committed")]
    Committed,
    /// It was committed or rolled back.
    #[error("the connection to the database broke during COMMIT: it may or may not have happened")]
    Unknown,
}

/// What became of work that gave no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InTransaction<E> {
    /// It was refused. The transaction goes on.
    Refused(E),
    /// It was refused, and the transaction was rolled back.
    Broken(E),
    /// It was not done, or not to its end, because the transaction is over.
    Over(Over),
}

/// The state of an open transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenStatus {
    /// How it was begun.
    pub options: OpenOptions,
    /// How long ago that was.
    pub age: Duration,
    /// How long it may still last.
    pub left: Duration,
    /// Why it is over, if it is.
    pub over: Option<Over>,
}

/// A transaction that is open until it is ended, times out or is dropped.
#[derive(Debug)]
pub struct OpenTransaction {
    sid: String,
    txid: Option<u64>,
    options: OpenOptions,
    begun: Instant,
    longest: Duration,
    /// As long as the calls that are in flight are counted, and each gives it one job, it needs no bound of its own.
    jobs: mpsc::UnboundedSender<Job>,
    over: Arc<OnceLock<Over>>,
}

impl Store {
    /// Begins a transaction that is given its work piece by piece. `owner` is whose it is, and `places` those that he may
    /// have: one is taken until the transaction is over.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when there is no place, here or in `places`, for a second.
    pub async fn begin(
        &self,
        owner: &str,
        options: OpenOptions,
        places: &Arc<Semaphore>,
    ) -> Result<OpenTransaction, StoreError> {
        tokio::select! {
            biased;
            stop = self.1.stopped() => Err(stop.into()),
            begun = self.begin_open(owner, options, places) => begun,
        }
    }

    async fn begin_open(
        &self,
        owner: &str,
        options: OpenOptions,
        places: &Arc<Semaphore>,
    ) -> Result<OpenTransaction, StoreError> {
        let permit = timeout(OPEN_WAIT, Arc::clone(places).acquire_owned()).await;
        let permit = permit.ok().and_then(Result::ok).ok_or_else(unavailable)?;
        let place = self.0.open_transactions.place(self.1.lane).await?;
        let (sid, begun) = (self.0.ids.next()?, Instant::now());
        let mut failure = unavailable();
        for _ in 0..BEGINS_MAX {
            match self.begin_once(&sid, owner, options).await {
                Ok((keeper, txid)) => {
                    return Ok(self.keep(keeper, txid, options, begun, (place, permit)));
                }
                // The connection broke, and nothing was done on it.
                Err(error @ StoreError::Unavailable { .. }) => failure = error,
                // The one that it was to be registered on broke. A row that nobody stands behind goes with its lease.
                Err(StoreError::UnknownOutcome) => failure = unavailable(),
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }

    async fn begin_once(
        &self,
        sid: &str,
        owner: &str,
        options: OpenOptions,
    ) -> Result<(Begun, Option<u64>), StoreError> {
        let pool = &self.0.open_transactions;
        let longest = pool.options().transaction_longest;
        let limit = longest.min(pool.options().statement_timeout);
        let connection = Arc::new(pool.connection().await?);
        let begun =
            Transaction::begin(Arc::clone(&connection), options.isolation, options.writes, limit, false)
                .await;
        let transaction = Arc::new(begun);
        let (identity, snapshot) = introduce(&transaction, sid, options.writes == Writes::Allowed).await?;
        transaction.settle().await?;
        register(self, &identity, owner, snapshot, longest).await?;
        let xid = identity.xid;
        Ok((Begun { connection, transaction, identity }, xid))
    }

    fn keep(
        &self,
        begun: Begun,
        txid: Option<u64>,
        options: OpenOptions,
        at: Instant,
        places: (Place, OwnedSemaphorePermit),
    ) -> OpenTransaction {
        let limits = self.0.open_transactions.options();
        let (idle, longest) = (limits.transaction_idle, limits.transaction_longest);
        let (jobs, receiver) = mpsc::unbounded_channel();
        let over = Arc::new(OnceLock::new());
        let sid = begun.identity.sid.clone();
        let keeper = Keeper {
            store: self.scoped(Scope::of(self.1.lane)),
            begun,
            jobs: receiver,
            over: Arc::clone(&over),
            idle,
            longest,
            until: at + longest,
            places,
        };
        tokio::spawn(keeper.keep());
        OpenTransaction { sid, txid, options, begun: at, longest, jobs, over }
    }
}

/// What a transaction consists of once it is begun.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) connection: Arc<Connection>,
    pub(super) transaction: Arc<Transaction>,
    pub(super) identity: Identity,
}

impl OpenTransaction {
    /// The name by which it is asked for: a UUID of version 7.
    pub fn sid(&self) -> &str {
        &self.sid
    }

    /// Its id in Postgres; `None` when it may not write.
    pub fn txid(&self) -> Option<u64> {
        self.txid
    }

    /// How it was begun.
    pub fn options(&self) -> OpenOptions {
        self.options
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.over.get().is_some()
    }

    /// How it is.
    pub fn status(&self) -> OpenStatus {
        let age = self.begun.elapsed();
        let left = self.longest.saturating_sub(age);
        OpenStatus { options: self.options, age, left, over: self.over.get().cloned() }
    }

    /// Does some work in it, behind what it was given before: the place in that order is taken now, before the future is
    /// awaited. What ends the scope early, or the future being dropped, ends the transaction. With `whole` an error of the
    /// work does so too.
    ///
    /// # Errors
    /// [`InTransaction`] says also whether the transaction goes on.
    pub fn run<T, E, B>(
        &self,
        scope: Scope,
        whole: bool,
        body: B,
    ) -> impl Future<Output = Result<T, InTransaction<E>>> + Send + 'static + use<T, E, B>
    where
        T: Send + 'static,
        E: Send + 'static,
        B: FnOnce(Store) -> BoxFuture<'static, Result<T, E>> + Send + 'static,
    {
        let slot: Arc<Mutex<Option<Result<T, E>>>> = Arc::default();
        let gone = StopSignal::default();
        let (verdict, answer) = oneshot::channel();
        let filled = Arc::clone(&slot);
        let body = Box::new(move |store: Store| -> BoxFuture<'static, bool> {
            let work = body(store);
            Box::pin(async move {
                let result = work.await;
                let is_ok = result.is_ok();
                *filled.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                is_ok
            })
        });
        let leave = Leave(Arc::clone(&gone));
        let unsent = self.jobs.send(Job::Work(Work { scope, gone, whole, body, verdict })).is_err();
        let over = Arc::clone(&self.over);
        async move {
            let _ends_it_when_dropped = leave;
            let verdict = if unsent { None } else { answer.await.ok() };
            let result = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            match (verdict, result) {
                (Some(Verdict::Open), Some(Ok(value))) => Ok(value),
                (Some(Verdict::Open), Some(Err(error))) => Err(InTransaction::Refused(error)),
                (Some(Verdict::Broken), Some(Err(error))) => Err(InTransaction::Broken(error)),
                (Some(Verdict::Over(why)), _) => Err(InTransaction::Over(why)),
                _ => Err(InTransaction::Over(why_over(&over))),
            }
        }
    }

    /// Commits, behind the work that it was given before. When this answers `Ok` it is on the disk.
    ///
    /// # Errors
    /// [`Over`]: it was rolled back, or [`Over::Unknown`].
    pub fn commit(&self, scope: Scope) -> impl Future<Output = Result<(), Over>> + Send + 'static + use<> {
        let (reply, answer) = oneshot::channel();
        let unsent = self.jobs.send(Job::Commit { scope, reply }).is_err();
        let over = Arc::clone(&self.over);
        async move {
            match if unsent { None } else { answer.await.ok() } {
                Some(Over::Committed) => Ok(()),
                Some(over) => Err(over),
                None => Err(why_over(&over)),
            }
        }
    }

    /// Rolls back, behind the work that it was given before; does nothing when it is over.
    pub fn roll_back(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let (reply, answer) = oneshot::channel();
        let unsent = self.jobs.send(Job::RollBack { reply }).is_err();
        async move {
            if !unsent {
                // When nobody answers, it was over before.
                let _over = answer.await;
            }
        }
    }
}

/// Why its task takes no more.
fn why_over(over: &OnceLock<Over>) -> Over {
    over.get().cloned().unwrap_or(Over::Failed(StoreError::Internal))
}
