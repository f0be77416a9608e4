//! A statement in a transaction of its caller.

use std::sync::Arc;

use tokio::time::Instant;

use super::refusal::refusal;
use super::rows::{Fault, read};
use super::{EXEC_TIME_MAX, ExecError, ExecRows, costs, millis};
use crate::sql::Statement;
use crate::store::sqlstate::{Failure, failure};
use crate::store::transactions::Transaction;
use crate::store::{Store, StoreError, TablePtr};

/// What follows finds the session as it was: its role, its settings, whether it may write, and a transaction that goes on.
const LEAVE: &str = "ROLLBACK TO SAVEPOINT raystream_exec; RELEASE SAVEPOINT raystream_exec";

/// Runs it there: it sees the transaction's snapshot, and what the transaction did. Whoever drops this ends the transaction,
/// so that no other statement runs as the role.
pub(super) async fn within(
    store: &Store,
    transaction: &Arc<Transaction>,
    table: &TablePtr,
    statement: &Statement,
) -> Result<ExecRows, ExecError> {
    let scope = &store.1;
    let _place = tokio::select! {
        biased;
        stop = scope.stopped() => return Err(StoreError::from(stop).into()),
        place = store.0.exec.place() => place?,
    };
    let left = scope.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let longest = EXEC_TIME_MAX.min(store.0.options.statement_timeout).min(left.unwrap_or(EXEC_TIME_MAX));
    let client = transaction.client()?;
    // Postgres lets nobody behind a savepoint take back that it may only read.
    let enter = format!(
        "SAVEPOINT raystream_exec; SET LOCAL transaction_read_only = on; SET LOCAL statement_timeout = {}; {}",
        millis(longest),
        costs(true)
    );
    client.batch_execute(&enter).await.map_err(|error| transaction.stream_failed(&error))?;
    let begun = Instant::now();
    let result = read(client, table, statement).await.map_err(|fault| match fault {
        Fault::Ours(error) => error,
        Fault::Postgres(error) => match failure(&error) {
            Failure::Broken | Failure::Serialization => transaction.stream_failed(&error).into(),
            // Before its time: a request to stop the transaction, or one that had the connection before.
            Failure::Cancelled if begun.elapsed() < longest => transaction.stream_failed(&error).into(),
            _ => refusal(&error),
        },
    });
    if transaction.failure().is_none() {
        // Behind rows that nobody takes this waits for their end, at most as long as the statement may last.
        transaction
            .client()?
            .batch_execute(LEAVE)
            .await
            .map_err(|error| transaction.stream_failed(&error))?;
    }
    result
}
