//! `table.exec`: a statement of the guard, run as a role that may read documents and nothing else.
//!
//! What protects the database here does not rely on the guard: the transaction is read only, the role sees five columns of
//! the tables of documents, time, rows and bytes are bounded, and the session is not one that anything else runs on.

//!
//! In a transaction of the caller it is the same behind a savepoint, to which the session goes back in any case: so neither the
//! role nor anything else of it is there for what follows, and a statement that fails spoils nothing.

mod pool;
mod refusal;
mod rows;
mod within;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::SetOnce;
use tokio::time::Instant;
use tokio_postgres::Client;

use super::endpoint;
use super::json::Json;
use super::scope::{Scope, Stop, StopSignal};
use super::{Store, StoreError, TableName, TablePtr};
use crate::sql::Statement;
use refusal::refusal;
use rows::{Fault, read};
use within::within;

pub(super) use pool::ExecPool;

/// Statements that run at the same time: each may use a core, and the memory of several sorts.
pub const EXEC_CONCURRENT_MAX: usize = 4;

/// How long a statement may run, whatever its deadline is: it is a question of a person or a page, not a report.
pub const EXEC_TIME_MAX: Duration = Duration::from_secs(2);

/// What one sort or hash of a statement may keep in memory; more goes to files.
const WORK_MEM: &str = "16MB";

/// What a statement may keep in files. Only a superuser may set it; without that the time limit bounds it.
const TEMP_FILE_LIMIT: &str = "256MB";

/// How long a statement that was told to stop may take before its session is cut.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// The pause between two requests to stop.
const STOP_PAUSE: Duration = Duration::from_millis(100);

/// The settings that bound what a statement costs, for the session or until the transaction ends.
fn costs(local: bool) -> String {
    let set = if local { "SET LOCAL" } else { "SET" };
    format!(
        "{set} work_mem = '{WORK_MEM}'; {set} max_parallel_workers_per_gather = 0; \
         SELECT set_config('temp_file_limit', '{TEMP_FILE_LIMIT}', {local}) FROM pg_roles \
         WHERE rolname = current_user AND rolsuper"
    )
}

/// Why a statement gave no rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// As for any other operation.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The result has more rows or bytes than a result may have.
    #[error("the result is too long")]
    TooLong,
    /// The table is too large for an aggregate that gathers values.
    #[error("the table is too large to gather its values")]
    TooLargeToCollect,
    /// Postgres refused it: a value that is not of its type, a division by zero, a column that is not grouped.
    #[error("the database refuses the statement: {reason}")]
    Refused {
        /// In our words.
        reason: &'static str,
        /// SQLSTATE, five characters.
        sqlstate: String,
    },
}

/// The rows of a result: each value as JSON, `None` for NULL.
pub type ExecRows = Vec<Vec<Option<Json>>>;

/// Tells a statement that its caller is gone.
struct Leave(StopSignal);

impl Drop for Leave {
    fn drop(&mut self) {
        let _over_already = self.0.set(());
    }
}

impl Store {
    /// Runs a statement on a table: on a session of its own, or in the transaction of this store's scope.
    ///
    /// # Errors
    /// [`ExecError`].
    pub async fn exec(&self, name: &TableName, statement: Arc<Statement>) -> Result<ExecRows, ExecError> {
        let mut gone: Option<Arc<TablePtr>> = None;
        loop {
            let table = self.table(name).await?;
            if gone.as_ref() == Some(&table) {
                return Err(StoreError::NotFound.into());
            }
            let result = match &self.1.transaction {
                Some(transaction) => within(self, transaction, &table, &statement).await,
                None => self.exec_on(Arc::clone(&table), Arc::clone(&statement)).await,
            };
            match result {
                Err(ExecError::Store(StoreError::NotFound)) if gone.is_none() => {
                    self.0.tables.forget(name, &table);
                    gone = Some(table);
                }
                result => return result,
            }
        }
    }

    /// In a task of its own: a caller that leaves must not leave a statement behind that nobody stops.
    async fn exec_on(&self, table: Arc<TablePtr>, statement: Arc<Statement>) -> Result<ExecRows, ExecError> {
        let gone = StopSignal::default();
        let _given_up_when_dropped = Leave(Arc::clone(&gone));
        let store = self.clone();
        let task = tokio::spawn(async move {
            let (pool, scope) = (&store.0.exec, &store.1);
            let place = tokio::select! {
                biased;
                stop = stopped(scope, &gone, None) => return Err(StoreError::from(stop).into()),
                place = pool.place() => place?,
            };
            let result = run(&store, &table, &statement, &gone).await;
            drop(place);
            result
        });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "the task of a statement ended without a result");
            Err(StoreError::Internal.into())
        })
    }
}

/// Waits until the statement is to end.
async fn stopped(scope: &Scope, gone: &SetOnce<()>, until: Option<Instant>) -> Stop {
    let time = async {
        match until {
            Some(until) => crate::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        stop = scope.stopped() => stop,
        _ = gone.wait() => Stop::Cancelled,
        () = time => Stop::Timeout,
    }
}

async fn run(
    store: &Store,
    table: &TablePtr,
    statement: &Statement,
    gone: &SetOnce<()>,
) -> Result<ExecRows, ExecError> {
    let (pool, scope, options) = (&store.0.exec, &store.1, &store.0.options);
    let left = scope.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let longest = EXEC_TIME_MAX.min(options.statement_timeout).min(left.unwrap_or(Duration::MAX));
    let until = Instant::now() + longest;
    let client = tokio::select! {
        biased;
        stop = stopped(scope, gone, Some(until)) => return Err(StoreError::from(stop).into()),
        client = pool.client(options) => client?,
    };
    let cancel = client.cancel_token();
    let result = {
        let mut work = pin!(alone(&client, table, statement, longest));
        let stop = tokio::select! {
            biased;
            result = &mut work => Ok(result),
            stop = stopped(scope, gone, Some(until)) => Err(stop),
        };
        match stop {
            Ok(result) => result,
            Err(stop) => {
                // The place is free when Postgres has stopped.
                let ended = async {
                    loop {
                        let request = async {
                            let _heard = endpoint::cancel(&cancel, &options.tls, STOP_WAIT).await;
                            crate::time::sleep(STOP_PAUSE).await;
                        };
                        tokio::select! {
                            _ended = &mut work => break,
                            () = request => {}
                        }
                    }
                };
                let _cut = crate::time::timeout(STOP_WAIT, ended).await;
                // A request to stop may still be on its way: this session is not used again.
                return Err(StoreError::from(stop).into());
            }
        }
    };
    if result == Err(ExecError::TooLong) {
        // The rest of the rows is on its way.
        let _heard = endpoint::cancel(&cancel, &options.tls, STOP_WAIT).await;
        return result;
    }
    let rolled_back = crate::time::timeout(STOP_WAIT, client.batch_execute("ROLLBACK")).await;
    let is_clean = rolled_back.is_ok_and(|answer| answer.is_ok());
    if is_clean {
        pool.idle().push(client);
    }
    result
}

async fn alone(
    client: &Client,
    table: &TablePtr,
    statement: &Statement,
    longest: Duration,
) -> Result<ExecRows, ExecError> {
    // The table is measured and read as it is at one moment.
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL statement_timeout = {}",
        millis(longest)
    );
    client.batch_execute(&begin).await.map_err(|error| refusal(&error))?;
    read(client, table, statement).await.map_err(|fault| match fault {
        Fault::Ours(error) => error,
        Fault::Postgres(error) => refusal(&error),
    })
}

/// As a setting; 0 would be no limit.
fn millis(longest: Duration) -> u128 {
    longest.as_millis().max(1)
}
