//! A transaction that is open.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, MaybeDone, maybe_done};
use tokio_postgres::{Client, Error, Row, RowStream};

use super::connection::Connection;
use super::{Isolation, Writes};
use crate::store::StoreError;
use crate::store::group::then;
use crate::store::pipeline::{borrow, collect};
use crate::store::sqlstate::{Failure, failure};
use crate::store::statements::{Call, NOT_CHECKED, Param, StatementKey};
use crate::time::timeout;

/// How long a ROLLBACK is waited for. Behind it the connection is cut, which rolls back as well.
pub(super) const ROLLBACK_LONGEST: Duration = Duration::from_secs(5);

/// How long a COMMIT may take. A disk that needs longer is as good as a connection that is lost.
const COMMIT_LONGEST: Duration = Duration::from_secs(30);

/// The answer to a statement that was sent.
pub(super) type Answer = MaybeDone<BoxFuture<'static, Result<Vec<Row>, Error>>>;

/// An open transaction.
pub(in crate::store) struct Transaction {
    connection: Arc<Connection>,
    /// Its id, once it was told.
    xid: Arc<OnceLock<u64>>,
    /// Answers that nobody waited for yet: they have to be good before it commits.
    pending: Mutex<Vec<Answer>>,
    /// A statement failed: Postgres will commit nothing.
    is_failed: AtomicBool,
    /// It failed so that running its body again may help.
    may_help: AtomicBool,
    /// A statement was stopped by a cancel request or its time limit.
    was_cancelled: AtomicBool,
    /// No statement is sent any more.
    is_ending: AtomicBool,
    /// Rows that nobody takes may be on their way.
    has_left_stream: AtomicBool,
    first_failure: OnceLock<StoreError>,
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("is_failed", &self.is_failed).finish_non_exhaustive()
    }
}

impl Transaction {
    /// Begins one. BEGIN is sent, and its answer awaited with the first one that follows: if it fails, the session lets no
    /// statement behind it write. With `identified` it is given its id at once, which one that writes gets anyway, and asked for it
    /// in the same breath.
    pub(super) async fn begin(
        connection: Arc<Connection>,
        isolation: Isolation,
        access: Writes,
        limit: Duration,
        identified: bool,
    ) -> Self {
        let level = match isolation {
            Isolation::Statement => "READ COMMITTED",
            Isolation::Snapshot => "REPEATABLE READ",
            Isolation::Serializable => "SERIALIZABLE",
        };
        let access = match access {
            Writes::Allowed => "READ WRITE",
            Writes::Refused => "READ ONLY",
        };
        let begin = format!(
            "BEGIN ISOLATION LEVEL {level} {access}; SET LOCAL statement_timeout = {}",
            limit.as_millis()
        );
        let owned = Arc::clone(&connection);
        let answer = async move { owned.client().batch_execute(&begin).await.map(|()| Vec::new()) };
        let mut pending = vec![sent(answer.boxed()).await];
        let xid = Arc::new(OnceLock::new());
        if identified {
            let (owned, found) = (Arc::clone(&connection), Arc::clone(&xid));
            let answer = async move {
                let rows = collect(owned.client(), owned.identify(), &[]).await?;
                for row in &rows {
                    keep_xid(&found, row.try_get(0)?);
                }
                Ok(rows)
            };
            pending.push(sent(answer.boxed()).await);
        }
        Self {
            connection,
            xid,
            pending: Mutex::new(pending),
            is_failed: AtomicBool::new(false),
            may_help: AtomicBool::new(false),
            was_cancelled: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            has_left_stream: AtomicBool::new(false),
            first_failure: OnceLock::new(),
        }
    }

    /// Says its id, which a statement has told.
    pub(in crate::store) fn identified(&self, xid: &str) {
        keep_xid(&self.xid, xid);
    }

    /// Its id, if it was told.
    pub(super) fn xid(&self) -> Option<u64> {
        self.xid.get().copied()
    }

    /// Its session, for several statements that undo themselves and none of which a failure of ends it: the caller of this
    /// says so when one does.
    pub(in crate::store) fn client(&self) -> Result<&Client, StoreError> {
        if self.is_ending.load(Ordering::Acquire) {
            return Err(StoreError::Cancelled);
        }
        Ok(self.connection.client())
    }

    /// Runs a statement.
    pub(in crate::store) async fn run(&self, call: Call) -> Result<Vec<Row>, StoreError> {
        let key = call.key.clone();
        let answer = self.send(call).await?;
        self.finish(&key, answer).await
    }

    /// Sends a statement whose answer the commit waits for.
    pub(in crate::store) async fn run_later(&self, call: Call) -> Result<(), StoreError> {
        let answer = self.send(call).await?;
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
        Ok(())
    }

    /// Sends a statement; the answer is to be given to [`finish`](Self::finish).
    pub(in crate::store) async fn send(&self, call: Call) -> Result<Answer, StoreError> {
        if self.is_ending.load(Ordering::Acquire) {
            return Err(StoreError::Cancelled);
        }
        let statement = match self.connection.prepared(&call.key).await {
            Ok(statement) => statement,
            Err(error) => return Err(self.fail(&call.key, &error)),
        };
        let connection = Arc::clone(&self.connection);
        let taken_back = call.key.leaves_checked().then(|| Arc::clone(&connection));
        let rows = async move { collect(connection.client(), &statement, &call.params).await }.boxed();
        let Some(connection) = taken_back else { return Ok(sent(rows).await) };
        let taken_back =
            async move { connection.client().batch_execute(NOT_CHECKED).await.map(|()| Vec::new()) };
        Ok(sent(then(rows, taken_back.boxed())).await)
    }

    /// Waits for the answers that nobody waited for: BEGIN's, at the start.
    pub(super) async fn settle(&self) -> Result<(), StoreError> {
        for answer in self.take_pending() {
            self.finish(&StatementKey::Begin, answer).await?;
        }
        Ok(())
    }

    fn take_pending(&self) -> Vec<Answer> {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends a query whose rows are taken one by one. Until they are all taken, what follows waits for them.
    pub(in crate::store) async fn stream(
        &self,
        sql: &str,
        params: &[Param],
    ) -> Result<RowStream, StoreError> {
        if self.is_ending.load(Ordering::Acquire) {
            return Err(StoreError::Cancelled);
        }
        let rows = async {
            let statement = self.connection.client().prepare(sql).await?;
            self.connection.client().query_raw(&statement, params.iter().map(borrow)).await
        };
        rows.await.map_err(|error| self.stream_failed(&error))
    }

    /// What a failure of [`stream`](Self::stream) or of its rows means.
    pub(in crate::store) fn stream_failed(&self, error: &Error) -> StoreError {
        self.fail(&StatementKey::Stream, error)
    }

    /// A query was left before its end: rows of it are on their way, so that nothing more is done here.
    pub(in crate::store) fn left_stream(&self) {
        self.has_left_stream.store(true, Ordering::Release);
        self.failed(StoreError::Cancelled);
    }

    pub(super) fn has_left_stream(&self) -> bool {
        self.has_left_stream.load(Ordering::Acquire)
    }

    /// The first failure of a statement, after which Postgres commits nothing.
    pub(in crate::store) fn failure(&self) -> Option<StoreError> {
        self.first_failure.get().cloned()
    }

    fn failed(&self, error: StoreError) -> StoreError {
        self.is_failed.store(true, Ordering::Release);
        self.first_failure.get_or_init(|| error.clone());
        error
    }

    /// Waits for the answer to a statement.
    pub(in crate::store) async fn finish(
        &self,
        key: &StatementKey,
        mut answer: Answer,
    ) -> Result<Vec<Row>, StoreError> {
        (&mut answer).await;
        let result = std::pin::Pin::new(&mut answer).take_output().expect("it was just awaited");
        result.map_err(|error| self.fail(key, &error))
    }

    /// Says that the body may do better when it is run again.
    pub(in crate::store) fn run_again(&self) {
        self.may_help.store(true, Ordering::Release);
    }

    fn fail(&self, key: &StatementKey, error: &Error) -> StoreError {
        let failure = failure(error);
        // What follows a statement that failed has nothing to add.
        if matches!(failure, Failure::Serialization | Failure::Stale | Failure::Broken) {
            self.run_again();
        }
        self.failed(match failure {
            Failure::Refused(error) => error,
            Failure::Serialization => StoreError::Conflict,
            Failure::Cancelled => {
                self.was_cancelled.store(true, Ordering::Release);
                StoreError::Timeout
            }
            Failure::Stale => {
                self.connection.forget(key);
                StoreError::Conflict
            }
            Failure::Broken => StoreError::Unavailable { retry_after: crate::store::pool::RETRY_AFTER },
        })
    }

    pub(super) fn end_statements(&self) {
        self.is_ending.store(true, Ordering::Release);
    }

    pub(super) fn is_failed(&self) -> bool {
        self.is_failed.load(Ordering::Acquire)
    }

    pub(super) fn may_help(&self) -> bool {
        self.may_help.load(Ordering::Acquire)
    }

    pub(super) fn was_cancelled(&self) -> bool {
        self.was_cancelled.load(Ordering::Acquire)
    }

    /// Commits. After [`COMMIT_LONGEST`] without an answer nobody knows.
    pub(super) async fn commit(&self) -> Result<(), CommitError> {
        timeout(COMMIT_LONGEST, self.commit_and_wait()).await.unwrap_or(Err(CommitError::Unknown))
    }

    /// The answers that nobody waited for come before the one of COMMIT, and have to be good: on a transaction that failed
    /// COMMIT succeeds too, and rolls back.
    async fn commit_and_wait(&self) -> Result<(), CommitError> {
        let pending = self.take_pending();
        let connection = Arc::clone(&self.connection);
        let commit = async move { connection.client().batch_execute("COMMIT").await.map(|()| Vec::new()) };
        let mut commit = sent(commit.boxed()).await;
        let mut first_failure = None;
        for mut answer in pending {
            (&mut answer).await;
            let result = std::pin::Pin::new(&mut answer).take_output().expect("it was just awaited");
            if let Err(error) = result {
                first_failure.get_or_insert(error);
            }
        }
        (&mut commit).await;
        let committed = std::pin::Pin::new(&mut commit).take_output().expect("it was just awaited");
        match (first_failure, committed) {
            (None, Ok(_)) => Ok(()),
            (failed, committed) => {
                let error = failed.or(committed.err()).expect("one of the two failed");
                match failure(&error) {
                    Failure::Broken => Err(CommitError::Unknown),
                    _ => Err(CommitError::RolledBack(self.fail(&StatementKey::Commit, &error))),
                }
            }
        }
    }

    /// Rolls back. Answers whether the connection is as it was before: if not, it is to be dropped, which rolls back too.
    pub(super) async fn roll_back(&self) -> bool {
        let rolled_back = self.connection.client().batch_execute("ROLLBACK");
        timeout(ROLLBACK_LONGEST, rolled_back).await.is_ok_and(|answer| answer.is_ok())
    }
}

/// Why a transaction was not committed.
#[derive(Debug)]
pub(super) enum CommitError {
    /// It was rolled back.
    RolledBack(StoreError),
    /// The connection broke: it was committed or it was not.
    Unknown,
}

fn keep_xid(place: &OnceLock<u64>, text: &str) {
    if let Ok(xid) = text.parse() {
        let _the_same_before = place.set(xid);
    }
}

/// Sends what is sent when a future is polled for the first time.
async fn sent(answer: BoxFuture<'static, Result<Vec<Row>, Error>>) -> Answer {
    let mut answer = maybe_done(answer);
    let _not_yet = futures_util::poll!(&mut answer);
    answer
}
