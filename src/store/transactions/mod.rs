//! Transactions of several statements, each alone on a connection from BEGIN to COMMIT.
//!
//! The daemon has the whole body, so it runs it again when Postgres could not put it in an order with others (40001,
//! 40P01): the caller sees the attempt that counts. A transaction runs in a task of its own: one whose caller waits for
//! something else must not hold its locks meanwhile.
//!
//! An [`OpenTransaction`] is one whose body is with somebody else: it is begun, given work, and ended, each when it is asked
//! for, and rolled back when nothing is asked for too long. These have connections of their own, so that they take none from
//! the others.

mod attempt;
mod connection;
mod open;
mod outcome;
mod pool;
mod register;
mod task;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::SetOnce;

use super::connection::jittered;
use super::scope::{Scope, Stop, StopSignal};
use super::{Store, StoreError};
use attempt::{Ended, attempt};

pub use open::{InTransaction, OpenOptions, OpenStatus, OpenTransaction, Over, Writes};
pub(super) use pool::TransactionPool;
pub(super) use register::{MIN_ACTIVE, OUTCOME, REGISTER, TERMINATE, UNREGISTER, drop_lapsed, introduce_sql};
pub(super) use transaction::Transaction;

/// How often a body is run in all. With the pauses between them that is some 0.3 s of bad luck.
const ATTEMPTS_MAX: u32 = 6;

/// The pause before the second attempt; each further one is twice as long, and all are spread.
const PAUSE: Duration = Duration::from_millis(8);

/// What a transaction sees of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees what was committed before it (READ COMMITTED).
    Statement,
    /// All statements see what was committed before the first (REPEATABLE READ).
    Snapshot,
    /// The same, and what all of them did together could have been done one after the other (SERIALIZABLE).
    Serializable,
}

/// How a transaction is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionOptions {
    /// What it sees of others.
    pub isolation: Isolation,
    /// Whether it may write. One that may not has nothing to lose when its connection breaks.
    pub writes: Writes,
    /// Whether its body finds out by itself that it was committed already ([`Store::claim`]), so that it may be run again when
    /// the connection broke during COMMIT and Postgres could not say what became of it.
    pub is_repeatable: bool,
}

impl Store {
    /// Runs a body in one transaction: all that the [`Store`] it gets does is done when this answers `Ok`, and nothing of
    /// it when this answers an error, except [`StoreError::UnknownOutcome`], [`StoreError::Cancelled`] and
    /// [`StoreError::Timeout`], where it may have been done.
    ///
    /// The body may be run several times, so it does nothing that is not in the transaction.
    ///
    /// # Errors
    /// What the body gives, or [`StoreError`].
    pub async fn transaction<T, E, B>(&self, options: TransactionOptions, body: B) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        B: Fn(Store) -> BoxFuture<'static, Result<T, E>> + Send + Sync + 'static,
    {
        let gone = StopSignal::default();
        let _given_up_when_dropped = Leave(Arc::clone(&gone));
        let store = self.clone();
        let task = tokio::spawn(async move { repeat(&store, options, body, &gone).await });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a transaction's task ended without a result");
            Err(StoreError::UnknownOutcome.into())
        })
    }
}

/// Tells a transaction that its caller is gone.
struct Leave(StopSignal);

impl Drop for Leave {
    fn drop(&mut self) {
        let _over_already = self.0.set(());
    }
}

/// Waits until a transaction is to end early.
async fn stopped(scope: &Scope, gone: &SetOnce<()>) -> Stop {
    tokio::select! {
        biased;
        stop = scope.stopped() => stop,
        _ = gone.wait() => Stop::Cancelled,
    }
}

async fn repeat<T, E, B>(
    store: &Store,
    options: TransactionOptions,
    body: B,
    gone: &SetOnce<()>,
) -> Result<T, E>
where
    E: From<StoreError>,
    B: Fn(Store) -> BoxFuture<'static, Result<T, E>>,
{
    let (scope, pool) = (&store.1, &store.0.transactions);
    let place = tokio::select! {
        biased;
        stop = stopped(scope, gone) => return Err(StoreError::from(stop).into()),
        place = pool.place(scope.lane) => place?,
    };
    let mut pause = PAUSE;
    // Whether an earlier attempt may have been committed: then a failure of this one says nothing about that.
    let mut in_doubt = false;
    let judged = |error: StoreError, in_doubt| match error {
        StoreError::Unavailable { .. } | StoreError::Conflict if in_doubt => StoreError::UnknownOutcome,
        error => error,
    };
    for last in (0..ATTEMPTS_MAX).map(|n| n + 1 == ATTEMPTS_MAX) {
        match attempt(store, options, &body, gone).await {
            Ended::Done(value) => {
                store.0.written.notify_one();
                return Ok(value);
            }
            // It may have waited for the earlier one in vain.
            Ended::Refused { is_claimed: false, .. } if in_doubt => {
                return Err(StoreError::UnknownOutcome.into());
            }
            Ended::Refused { error, .. } => return Err(error),
            Ended::Failed(error) => return Err(judged(error, in_doubt).into()),
            Ended::Again(_) | Ended::Doubtful if last && in_doubt => {
                return Err(StoreError::UnknownOutcome.into());
            }
            Ended::Again(error) if last => return Err(error),
            Ended::Again(_) => {}
            Ended::Doubtful => in_doubt = true,
        }
        tokio::select! {
            biased;
            stop = stopped(scope, gone) => return Err(StoreError::from(stop).into()),
            () = crate::time::sleep(jittered(pause)) => {}
        }
        pause *= 2;
    }
    drop(place);
    Err(judged(StoreError::Conflict, in_doubt).into())
}
