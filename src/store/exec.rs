//! `table.exec`: a statement of the guard, run as a role that may read documents and nothing else.
//!
//! What protects the database here does not rely on the guard: the transaction is read only, the role sees five columns of
//! the tables of documents, time, rows and bytes are bounded, and the session is not one that anything else runs on.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::TryStreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SetOnce};
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_postgres::types::{Format, IsNull, ToSql, Type as PgType};

use super::endpoint;
use super::json::Json;
use super::scope::{Scope, Stop, StopSignal};
use super::session::{self, Access, Driven};
use super::{Store, StoreError, StoreOptions, TableName, TablePtr};
use crate::sql::limits::{RESULT_LEN_MAX, ROWS_MAX};
use crate::sql::{Bind, Statement, Type};

/// Statements that run at the same time: each may use a core, and the memory of several sorts.
pub const EXEC_CONCURRENT_MAX: usize = 4;

/// Statements that wait for their turn.
const WAITING_MAX: usize = 64;

/// How long one waits for its turn at most.
const WAIT: Duration = Duration::from_secs(1);

/// How long a statement may run, whatever its deadline is: it is a question of a person or a page, not a report.
pub const EXEC_TIME_MAX: Duration = Duration::from_secs(2);

/// What one sort or hash of a statement may keep in memory; more goes to files.
const WORK_MEM: &str = "16MB";

/// What a statement may keep in files. Only a superuser may set it; without that the time limit bounds it.
const TEMP_FILE_LIMIT: &str = "256MB";

/// The largest table, in bytes as stored, whose values may be gathered into one. Postgres keeps them all in memory, unpacked,
/// before it looks at their length.
const COLLECT_TABLE_MAX: i64 = 32 * 1024 * 1024;

/// What a caller is told to wait when there is no place, or no connection.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// How long a statement that was told to stop may take before its session is cut.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// The pause between two requests to stop.
const STOP_PAUSE: Duration = Duration::from_millis(100);

/// What an operator is told when a statement cannot run as its role.
const NO_ROLE: &str = "table.exec cannot run as the role raystream_exec: let a role with CREATEROLE make it, grant it to the \
                       daemon's role, and see schemas/sql for its rights";

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

/// The sessions.
#[derive(Debug)]
pub(super) struct ExecPool {
    places: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    idle: Mutex<Vec<Driven>>,
}

impl Default for ExecPool {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(EXEC_CONCURRENT_MAX));
        let waiting = Arc::new(Semaphore::new(WAITING_MAX));
        Self { places, waiting, idle: Mutex::default() }
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable { retry_after: RETRY_AFTER }
}

impl ExecPool {
    async fn place(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let _turn = self.waiting.try_acquire().map_err(|_| unavailable())?;
        match tokio::time::timeout(WAIT, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(unavailable()),
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Driven>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn client(&self, options: &StoreOptions) -> Result<Driven, StoreError> {
        while let Some(client) = { self.idle().pop() } {
            if !client.is_closed() {
                return Ok(client);
            }
        }
        let opened = async {
            let client = session::open(options, Access::Read).await?.driven();
            let settings = format!(
                "SET application_name = 'raystream exec'; SET work_mem = '{WORK_MEM}'; \
                 SET max_parallel_workers_per_gather = 0; \
                 SELECT set_config('temp_file_limit', '{TEMP_FILE_LIMIT}', false) FROM pg_roles \
                 WHERE rolname = current_user AND rolsuper"
            );
            client.batch_execute(&settings).await.map_err(|error| session::refused(&error))?;
            Ok::<_, super::StartError>(client)
        };
        opened.await.map_err(|error| {
            tracing::warn!(%error, "no connection to Postgres for a statement of a caller");
            unavailable()
        })
    }

    /// Takes no further statements, waits for those that run, and closes the sessions.
    pub(super) async fn close(&self) {
        self.waiting.close();
        let all = u32::try_from(EXEC_CONCURRENT_MAX).unwrap_or(u32::MAX);
        let _places = tokio::time::timeout(EXEC_TIME_MAX + STOP_WAIT, self.places.acquire_many(all)).await;
        self.idle().clear();
    }
}

/// Tells a statement that its caller is gone.
struct Leave(StopSignal);

impl Drop for Leave {
    fn drop(&mut self) {
        let _over_already = self.0.set(());
    }
}

impl Store {
    /// Runs a statement on a table.
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
            match self.exec_on(Arc::clone(&table), Arc::clone(&statement)).await {
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
            Some(until) => tokio::time::sleep_until(until).await,
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
        let mut work = pin!(read(&client, table, statement, longest));
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
                            tokio::time::sleep(STOP_PAUSE).await;
                        };
                        tokio::select! {
                            _ended = &mut work => break,
                            () = request => {}
                        }
                    }
                };
                let _cut = tokio::time::timeout(STOP_WAIT, ended).await;
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
    let is_clean = client.batch_execute("ROLLBACK").await.is_ok();
    if is_clean {
        pool.idle().push(client);
    }
    result
}

async fn read(
    client: &Client,
    table: &TablePtr,
    statement: &Statement,
    longest: Duration,
) -> Result<ExecRows, ExecError> {
    // 0 would be no limit.
    let millis = longest.as_millis().max(1);
    let begin = format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {millis}");
    client.batch_execute(&begin).await.map_err(|error| refusal(&error))?;
    if statement.collects() {
        let size = "SELECT pg_table_size($1::text::regclass)";
        let row = client.query_one(size, &[&table.quoted()]).await.map_err(|error| refusal(&error))?;
        if row.try_get::<_, i64>(0).map_err(|error| refusal(&error))? > COLLECT_TABLE_MAX {
            return Err(ExecError::TooLargeToCollect);
        }
    }
    client.batch_execute("SET LOCAL ROLE raystream_exec").await.map_err(|error| refusal(&error))?;
    rows(client, table, statement).await
}

async fn rows(client: &Client, table: &TablePtr, statement: &Statement) -> Result<ExecRows, ExecError> {
    let types: Vec<PgType> = statement.binds().iter().map(|bind| postgres_type(bind.ty)).collect();
    let values: Vec<Text<'_>> = statement.binds().iter().map(Text).collect();
    let params: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
    let text = statement.text(&table.schema, &table.table);
    // Rows are taken from the socket as they are looked at, and none is longer than a result: what is too many or too long is
    // noticed at the first such row, and nothing more of it is kept.
    let prepared = client.prepare_typed(&text, &types).await.map_err(|error| refusal(&error))?;
    let found = client.query_raw(&prepared, params).await.map_err(|error| refusal(&error))?;
    let mut found = pin!(found);
    let (mut rows, mut len) = (Vec::new(), 0_u64);
    while let Some(row) = found.try_next().await.map_err(|error| refusal(&error))? {
        let row_len: i64 = row.try_get(0).map_err(|error| refusal(&error))?;
        len = len.saturating_add(u64::try_from(row_len).unwrap_or(u64::MAX));
        if len > RESULT_LEN_MAX || u64::try_from(rows.len()).is_ok_and(|count| count >= ROWS_MAX) {
            return Err(ExecError::TooLong);
        }
        let values = (1..row.len())
            .map(|at| row.try_get::<_, Option<Json>>(at).map_err(|error| refusal(&error)))
            .collect::<Result<Vec<_>, _>>()?;
        rows.push(values);
    }
    Ok(rows)
}

/// A value in its text form, whatever its type is.
#[derive(Debug)]
struct Text<'a>(&'a Bind);

impl ToSql for Text<'_> {
    fn to_sql(
        &self,
        _: &PgType,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match &self.0.text {
            None => Ok(IsNull::Yes),
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                Ok(IsNull::No)
            }
        }
    }

    fn accepts(_: &PgType) -> bool {
        true
    }

    fn encode_format(&self, _: &PgType) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}

fn postgres_type(ty: Type) -> PgType {
    match ty {
        Type::Bool => PgType::BOOL,
        Type::Int => PgType::INT8,
        Type::Numeric => PgType::NUMERIC,
        Type::Float => PgType::FLOAT8,
        Type::Text => PgType::TEXT,
        Type::Jsonb => PgType::JSONB,
        Type::Timestamptz => PgType::TIMESTAMPTZ,
        Type::Timestamp => PgType::TIMESTAMP,
        Type::Date => PgType::DATE,
        Type::Interval => PgType::INTERVAL,
        Type::TextArray => PgType::TEXT_ARRAY,
        Type::IntArray => PgType::INT8_ARRAY,
    }
}

/// What an error means to the caller. What Postgres said goes to the log at most: it may quote a value.
fn refusal(error: &tokio_postgres::Error) -> ExecError {
    let Some(database) = error.as_db_error() else {
        tracing::warn!(error = session::whole_message(error), "a session of exec broke");
        return unavailable().into();
    };
    let code = database.code().code();
    let reason = match (code, code.get(..2).unwrap_or_default()) {
        ("57014", _) => return StoreError::Timeout.into(),
        ("42P01" | "3F000", _) => return StoreError::NotFound.into(),
        ("42501", _) => {
            tracing::error!(message = database.message(), "{NO_ROLE}");
            return StoreError::Internal.into();
        }
        // SET ROLE of one that is not there.
        ("22023", _) if database.message().contains("role") => {
            tracing::error!(message = database.message(), "{NO_ROLE}");
            return StoreError::Internal.into();
        }
        (_, "53" | "57" | "08") => {
            tracing::warn!(sqlstate = code, message = database.message(), "Postgres cannot take a statement");
            return unavailable().into();
        }
        ("42803", _) => "a column is neither grouped nor in an aggregate",
        ("42P20", _) => "a window function stands where none may be",
        ("42P10", _) => "an expression of DISTINCT or ORDER BY is not in the SELECT",
        ("21000", _) => "a query in an expression gives more than one row",
        ("22012", _) => "division by zero",
        ("22003" | "23514", _) => "a number is out of range",
        ("22P02" | "22007" | "22008" | "22023", _) => "a value is not of the type that it is cast to",
        (_, "22" | "23") => "a value is not allowed here",
        (_, "54") => "a value gets too long",
        (_, "42" | "0A") => "its types or clauses do not go together",
        _ => {
            tracing::error!(
                sqlstate = code,
                message = database.message(),
                "Postgres refused a guarded statement"
            );
            return StoreError::Internal.into();
        }
    };
    ExecError::Refused { reason, sqlstate: code.to_owned() }
}
