//! One attempt at a transaction: from BEGIN to what became of it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::SetOnce;
use tokio::time::Instant;

use super::connection::Connection;
use super::outcome::{Outcome, find_out};
use super::pool::unavailable;
use super::transaction::{CommitError, Transaction};
use super::{TransactionOptions, Writes, stopped};
use crate::store::canceller::GRACE;
use crate::store::scope::Scope;
use crate::store::timeout::quantised;
use crate::store::{Store, StoreError};

/// How long statements get to end when they were stopped. Postgres is asked once a second, and stops them in milliseconds; who
/// does not answer for so long is not there any more, and his connection and his place are for others.
const STOP_LONGEST: Duration = Duration::from_secs(5);

/// What became of it.
pub(super) enum Ended<T, E> {
    /// It was committed.
    Done(T),
    /// Its body gave an error. It was rolled back.
    Refused {
        error: E,
        /// Its claim was answered, so that an earlier attempt, if it was not committed then, never is.
        is_claimed: bool,
    },
    /// It was stopped or could not begin.
    Failed(StoreError),
    /// It was rolled back, and running it again may help.
    Again(E),
    /// It was committed or rolled back, and running it again finds out.
    Doubtful,
}

pub(super) async fn attempt<T, E, B>(
    store: &Store,
    options: TransactionOptions,
    body: &B,
    gone: &SetOnce<()>,
) -> Ended<T, E>
where
    E: From<StoreError>,
    B: Fn(Store) -> BoxFuture<'static, Result<T, E>>,
{
    let (scope, pool) = (&store.1, &store.0.transactions);
    let connection = tokio::select! {
        biased;
        stop = stopped(scope, gone) => return Ended::Failed(stop.into()),
        connection = pool.connection() => match connection {
            Ok(connection) => Arc::new(connection),
            Err(error) => return Ended::Failed(error),
        },
    };
    let (ended, is_clean) = on_connection(store, options, body, gone, &connection).await;
    if is_clean && let Some(connection) = Arc::into_inner(connection) {
        pool.put_back(connection);
    }
    ended
}

/// Runs it; says also whether the connection is free of it.
async fn on_connection<T, E, B>(
    store: &Store,
    options: TransactionOptions,
    body: &B,
    gone: &SetOnce<()>,
    connection: &Arc<Connection>,
) -> (Ended<T, E>, bool)
where
    E: From<StoreError>,
    B: Fn(Store) -> BoxFuture<'static, Result<T, E>>,
{
    let scope = &store.1;
    let longest = store.0.transactions.options().statement_timeout;
    let left = scope.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let limit = quantised(left, longest);
    let begun = Instant::now();
    // The claim of a key tells the id by itself.
    let identified = options.writes == Writes::Allowed && !options.is_repeatable;
    let transaction =
        Transaction::begin(Arc::clone(connection), options.isolation, options.writes, limit, identified)
            .await;
    let transaction = Arc::new(transaction);
    let inside = Scope { transaction: Some(Arc::clone(&transaction)), ..scope.clone() };
    let mut work = body(store.scoped(inside));

    let mut canceller = connection.canceller();
    let mut stop = None;
    let mut until = begun;
    let result = loop {
        tokio::select! {
            biased;
            result = &mut work => break Some(result),
            () = crate::time::sleep_until(until), if stop.is_some() => break None,
            why = stopped(scope, gone), if stop.is_none() => {
                stop = Some(why);
                until = Instant::now() + STOP_LONGEST;
                transaction.end_statements();
                canceller.watch(true, true, GRACE);
            }
            () = canceller.step() => {}
        }
    };
    drop(work);

    if let Some(stop) = stop {
        let is_clean = result.is_some() && transaction.roll_back().await;
        return (Ended::Failed(stop.into()), is_clean);
    }
    match result.expect("what was not stopped has ended") {
        Ok(value) if !transaction.is_failed() => match transaction.commit().await {
            Ok(()) => (Ended::Done(value), true),
            Err(CommitError::RolledBack(error)) => {
                let is_clean = transaction.roll_back().await;
                (again_or(&transaction, error, begun, limit), is_clean)
            }
            Err(CommitError::Unknown) => {
                let ended = match became(store, options, connection, &transaction).await {
                    Outcome::Committed => Ended::Done(value),
                    Outcome::RolledBack => Ended::Again(unavailable().into()),
                    Outcome::Unknown if options.is_repeatable => Ended::Doubtful,
                    Outcome::Unknown => Ended::Failed(StoreError::UnknownOutcome),
                };
                (ended, false)
            }
        },
        // A body that went on behind a failure of the database cannot be committed.
        Ok(_) => {
            let is_clean = transaction.roll_back().await;
            (again_or(&transaction, StoreError::Internal, begun, limit), is_clean)
        }
        Err(error) => {
            let is_clean = transaction.roll_back().await;
            if may_help(&transaction, begun, limit) {
                (Ended::Again(error), is_clean)
            } else {
                (Ended::Refused { error, is_claimed: transaction.xid().is_some() }, is_clean)
            }
        }
    }
}

/// What became of a transaction whose connection broke when it was to be committed.
async fn became(
    store: &Store,
    options: TransactionOptions,
    connection: &Connection,
    transaction: &Transaction,
) -> Outcome {
    match (options.writes, transaction.xid()) {
        (Writes::Refused, _) => Outcome::RolledBack,
        (Writes::Allowed, Some(xid)) => find_out(store, connection.peer(), xid).await,
        (Writes::Allowed, None) => Outcome::Unknown,
    }
}

fn again_or<T, E: From<StoreError>>(
    transaction: &Transaction,
    error: StoreError,
    begun: Instant,
    limit: Duration,
) -> Ended<T, E> {
    if may_help(transaction, begun, limit) { Ended::Again(error.into()) } else { Ended::Failed(error) }
}

/// Whether it is worth another attempt. A statement that was stopped before its limit, though nobody stopped it, was hit by
/// a request for the transaction that had the connection before.
fn may_help(transaction: &Transaction, begun: Instant, limit: Duration) -> bool {
    transaction.may_help() || transaction.was_cancelled() && begun.elapsed() < limit
}
