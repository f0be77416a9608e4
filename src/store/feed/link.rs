//! Connections of the feed to Postgres. They are its own, so that a snapshot that streams for a minute keeps no statement
//! of the store waiting.

use std::future::poll_fn;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client};

use crate::store::StoreError;
use crate::store::endpoint::Endpoint;
use crate::time::timeout;

/// How long to wait for a connection. A Postgres that recovers from a crash refuses at once, one behind a dead network
/// does not answer.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// How long a network may be silent before a connection counts as dead: first the pause until the other side is asked,
/// then the one between questions, of which three go unanswered. A read waits for rows without a limit of its own.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// The first pause before another attempt, and the longest: short enough that a restart is not noticed, long enough that
/// a database that is down is not hammered.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// What a caller is told to wait when the database is away: the longest pause before our own next attempt.
pub(super) const RETRY_AFTER: Duration = BACKOFF_MAX;

/// Settings of every session.
///
/// Plans are made once and use indexes: the log's readers want its newest end, which the statistics do not know yet. A
/// stream may take long, so no statement is timed out here; the reader ends one that stalls.
const SESSION: &str = "SET application_name = 'raystream feed'; SET search_path = pg_catalog; SET TimeZone = 'UTC'; \
    SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET bytea_output = 'hex'; SET extra_float_digits = 1; \
    SET statement_timeout = 0; SET lock_timeout = '5s'; SET idle_in_transaction_session_timeout = '60s'; \
    SET client_min_messages = warning; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; \
    SET jit = off; SET max_parallel_workers_per_gather = 0";

/// A connection. It closes when this is dropped, also in the middle of a result.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) client: Client,
    driver: JoinHandle<()>,
    closed: watch::Receiver<()>,
}

impl Link {
    /// Opens a connection. `heard` is called for each notification, with the process that sent it.
    pub(super) async fn open(
        endpoint: &Endpoint,
        heard: impl Fn(i32) + Send + 'static,
    ) -> Result<Self, tokio_postgres::Error> {
        let mut endpoint = endpoint.clone();
        endpoint
            .config
            .connect_timeout(CONNECT_DEADLINE)
            .keepalives_idle(KEEPALIVE_AFTER)
            .keepalives_interval(KEEPALIVE_EVERY)
            .keepalives_retries(KEEPALIVE_RETRIES);
        let (client, mut connection) = endpoint.connect().await?;
        let (alive, closed) = watch::channel(());
        let driver = tokio::spawn(async move {
            // Held until the connection ends.
            let _alive = alive;
            loop {
                match poll_fn(|cx| connection.poll_message(cx)).await {
                    Some(Ok(AsyncMessage::Notification(note))) => heard(note.process_id()),
                    Some(Ok(AsyncMessage::Notice(notice))) => {
                        tracing::debug!(code = notice.code().code(), "notice of Postgres");
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        tracing::debug!(%error, "a connection of the feed broke");
                        return;
                    }
                    None => return,
                }
            }
        });
        let link = Self { client, driver, closed };
        link.client.batch_execute(SESSION).await?;
        Ok(link)
    }

    /// Opens a connection, and does what `set_up` says, or gives up after [`CONNECT_DEADLINE`].
    pub(super) async fn open_in_time<T>(
        endpoint: &Endpoint,
        set_up: impl AsyncFnOnce(Self) -> Result<T, LinkError>,
    ) -> Result<T, LinkError> {
        let opened = async { set_up(Self::open(endpoint, |_| {}).await?).await };
        timeout(CONNECT_DEADLINE, opened).await.unwrap_or(Err(LinkError::TimedOut))
    }

    /// Waits until the connection has ended.
    pub(super) async fn ended(&self) {
        let mut closed = self.closed.clone();
        // Nothing is ever sent: the only change is the end.
        let _ = closed.changed().await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Without this the driver would read the rest of a result that nobody wants.
        self.driver.abort();
    }
}

/// Why a connection does not serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// Postgres refused or the connection broke.
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
    /// No answer in time.
    #[error("no answer from Postgres in time")]
    TimedOut,
    /// Postgres answered something that cannot be.
    #[error("Postgres answered {0}")]
    Odd(&'static str),
    /// More transactions run at once than a cursor can name.
    #[error("too many transactions are running to name them in a cursor")]
    TooBusy,
}

impl LinkError {
    /// Whether the statement names a table that is not there.
    pub(super) fn is_missing_table(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE))
    }

    /// What a caller is told.
    pub(super) fn public(&self) -> StoreError {
        let refused = match self {
            Self::Postgres(error) => error.as_db_error(),
            Self::Odd(_) => return StoreError::Internal,
            Self::TimedOut | Self::TooBusy => None,
        };
        // Classes 08 (connection), 53 (resources), 55 (not ready, locks), 57 (operator: shutdown, start-up), 58 (system).
        let passing = refused.is_none_or(|error| {
            ["08", "53", "55", "57", "58"].iter().any(|class| error.code().code().starts_with(class))
        });
        if passing { StoreError::Unavailable { retry_after: RETRY_AFTER } } else { StoreError::Internal }
    }
}

/// The pauses between attempts.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Self {
        Self(BACKOFF_FIRST)
    }

    /// Waits, longer each time.
    pub(super) async fn pause(&mut self) {
        crate::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(BACKOFF_MAX);
    }

    /// Starts again with the first pause.
    pub(super) fn reset(&mut self) {
        self.0 = BACKOFF_FIRST;
    }
}
