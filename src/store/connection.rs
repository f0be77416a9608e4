//! One connection that is always there again: a session, its prepared statements, and the task that opens the next
//! session when one breaks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, pin_mut};
use tokio::sync::{Notify, OnceCell};
use tokio::task::AbortHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::StoreOptions;
use super::error::StoreError;
use super::session::{self, Access};
use super::sqlstate::{self, Verdict};
use super::statements::{Param, StatementKey};

/// The pause before the first new try, and the longest one. Postgres is back in 0.2 s after a restart.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The longest pause while a statement waits for a connection.
const BACK_OFF_WANTED: Duration = Duration::from_millis(250);

/// A session that lived this long was a good one: the next pause is short again.
const GOOD_AFTER: Duration = Duration::from_secs(5);

/// The most prepared statements of a session: each keeps a plan in a Postgres process. Above it they are all forgotten.
const STATEMENTS_MAX: usize = 1_000;

/// What became of a statement that did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was not sent.
    NotSent,
    /// It was sent, and the connection broke before the answer was complete.
    Broken,
    /// Its prepared form was stale. It was not run, and will be prepared anew.
    Stale,
    /// Postgres refused it.
    Refused(StoreError),
}

/// A place for a session: empty while there is none.
#[derive(Debug, Default)]
pub(super) struct Slot {
    live: Mutex<Option<Arc<Live>>>,
    /// Statements that were given to the session and are not answered.
    pub(super) in_flight: AtomicUsize,
}

impl Slot {
    /// The session, unless it is broken.
    pub(super) fn live(&self) -> Option<Arc<Live>> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.as_ref().filter(|live| !live.client.is_closed()).cloned()
    }

    /// Puts a session in, or takes it out.
    pub(super) fn put(&self, live: Option<Arc<Live>>) {
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = live;
    }
}

/// A statement that counts as in flight until this is dropped.
pub(super) struct InFlight<'a>(&'a Slot);

impl<'a> InFlight<'a> {
    pub(super) fn new(slot: &'a Slot) -> Self {
        slot.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(slot)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A session that works.
#[derive(Debug)]
pub(super) struct Live {
    client: Client,
    driver: AbortHandle,
    statements: Mutex<HashMap<StatementKey, Arc<OnceCell<Statement>>>>,
    /// After so long without an answer the connection is dead, whatever the network says.
    patience: Duration,
}

impl Live {
    /// Runs a statement and collects its rows. `Ok` means that its transaction is committed: Postgres reports
    /// ReadyForQuery after that, and the row stream ends with it.
    pub(super) async fn run(&self, key: &StatementKey, params: &[Param]) -> Result<Vec<Row>, Failure> {
        match tokio::time::timeout(self.patience, self.run_for_ever(key, params)).await {
            Ok(result) => result,
            Err(_) => {
                tracing::warn!("Postgres gave no answer in {:?}: the connection is given up", self.patience);
                self.driver.abort();
                Err(Failure::Broken)
            }
        }
    }

    async fn run_for_ever(&self, key: &StatementKey, params: &[Param]) -> Result<Vec<Row>, Failure> {
        let statement = match self.prepared(key).await {
            Ok(statement) => statement,
            Err(error) => {
                // Preparing has no effect, so that a break in it is a statement that was not sent.
                return Err(match failure(&error) {
                    Failure::Broken => Failure::NotSent,
                    other => other,
                });
            }
        };
        if self.client.is_closed() {
            return Err(Failure::NotSent);
        }
        let result = self.collect(&statement, params).await;
        result.map_err(|error| {
            let failure = failure(&error);
            if matches!(failure, Failure::Stale) {
                self.statements().remove(key);
            }
            failure
        })
    }

    async fn collect(
        &self,
        statement: &Statement,
        params: &[Param],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let stream = self.client.query_raw(statement, params.iter().map(borrow)).await?;
        pin_mut!(stream);
        let mut rows = Vec::new();
        while let Some(row) = stream.next().await {
            rows.push(row?);
        }
        Ok(rows)
    }

    /// The prepared statement. Callers that come while it is being prepared wait for that.
    async fn prepared(&self, key: &StatementKey) -> Result<Statement, tokio_postgres::Error> {
        let cell = {
            let mut statements = self.statements();
            if statements.len() >= STATEMENTS_MAX && !statements.contains_key(key) {
                statements.clear();
            }
            Arc::clone(statements.entry(key.clone()).or_default())
        };
        cell.get_or_try_init(|| async { self.client.prepare(&key.sql()).await }).await.cloned()
    }

    fn statements(&self) -> std::sync::MutexGuard<'_, HashMap<StatementKey, Arc<OnceCell<Statement>>>> {
        self.statements.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A parameter as the library takes it.
fn borrow(param: &Param) -> &(dyn ToSql + Sync) {
    param.as_ref()
}

/// What an error says about the statement it came from.
fn failure(error: &tokio_postgres::Error) -> Failure {
    let Some(database) = error.as_db_error() else {
        let from_network = std::error::Error::source(error).is_some_and(|cause| cause.is::<std::io::Error>());
        if !error.is_closed() && !from_network {
            tracing::error!(
                error = session::whole_message(error),
                "a statement or its answer is not what was agreed"
            );
        }
        return Failure::Broken;
    };
    match sqlstate::judge(database) {
        Verdict::Refused(error) => Failure::Refused(error),
        Verdict::SessionLost => Failure::Broken,
        Verdict::Stale => Failure::Stale,
    }
}

/// Keeps a slot filled, for ever. `arrived` is notified when it is; a notification of `wanted` makes the pause short.
pub(super) async fn supervise(
    options: StoreOptions,
    access: Access,
    slot: Arc<Slot>,
    arrived: Arc<Notify>,
    wanted: Arc<Notify>,
) {
    // The longest a pipelined statement can honestly take: behind another one, each at its limit, and the network.
    let patience = options.statement_timeout.saturating_mul(2) + Duration::from_secs(10);
    let mut pause = BACK_OFF.0;
    loop {
        match session::open(&options, access).await {
            Ok(session) => {
                let opened = Instant::now();
                let live = Live {
                    client: session.client,
                    driver: session.driver.abort_handle(),
                    statements: Mutex::default(),
                    patience,
                };
                slot.put(Some(Arc::new(live)));
                arrived.notify_waiters();
                // Ends when the connection does; an abort is our own decision that it is dead.
                let _ = session.driver.await;
                slot.put(None);
                tracing::warn!(?access, "a connection to Postgres broke: opening another one");
                if opened.elapsed() >= GOOD_AFTER {
                    pause = BACK_OFF.0;
                }
            }
            Err(error) => tracing::warn!(?access, %error, "no connection to Postgres"),
        }
        let short = jittered(pause.min(BACK_OFF_WANTED));
        let rest = jittered(pause).saturating_sub(short);
        tokio::time::sleep(short).await;
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = wanted.notified() => {}
        }
        pause = pause.saturating_mul(2).min(BACK_OFF.1);
    }
}

/// Between a half and the whole of a pause, so that many daemons do not come back at one moment.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [u8::MAX];
    // Without randomness the pause is merely not spread.
    let _ = getrandom::fill(&mut byte);
    pause / 2 + (pause / 2) * u32::from(byte[0]) / u32::from(u8::MAX)
}
