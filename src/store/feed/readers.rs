//! The connections on which subscriptions read snapshots and what they missed, and the one for short questions.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tokio_postgres::types::Type;

use super::link::LinkError;
use super::log::{Head, Log};
use crate::store::endpoint::Endpoint;
use crate::store::{Json, StoreError, TableName, TablePtr};
use crate::time::timeout;

/// How long a short question may take, with a new connection when there is none.
const QUESTION_DEADLINE: Duration = Duration::from_secs(10);

/// The owner of the tables: there is one name space.
const OWNER: &str = "public";

/// What stands behind a name: the physical table, or a topic.
#[derive(Debug, Clone)]
pub(super) struct Physical {
    /// The name of the table in a statement, with its schema; `None` for a topic, which has no documents.
    pub(super) quoted: Option<String>,
    /// The name in the log.
    pub(super) table: Arc<str>,
}

/// The connections.
#[derive(Debug)]
pub(super) struct Readers {
    endpoint: Endpoint,
    /// One permit for each connection that may read at once.
    permits: Semaphore,
    idle: Mutex<Vec<Log>>,
    /// For questions that are answered at once; they do not wait for the readers.
    questions: AsyncMutex<Option<Arc<Questions>>>,
}

/// The connection for questions, which are answered in the order in which they come.
#[derive(Debug)]
struct Questions {
    log: Log,
    /// Since when an answer is owed. Who asked may have gone: a dead connection is found by those who come after him.
    owed: Mutex<Option<Instant>>,
}

impl Deref for Questions {
    type Target = Log;

    fn deref(&self) -> &Log {
        &self.log
    }
}

impl Questions {
    /// Whether it is worth asking.
    fn is_good(&self) -> bool {
        let owed = *self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        !self.log.link.client.is_closed() && owed.is_none_or(|since| since.elapsed() < QUESTION_DEADLINE)
    }

    /// Waits for an answer.
    async fn answered<T>(&self, answer: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        let answer = answer.await;
        *self.owed.lock().unwrap_or_else(PoisonError::into_inner) = None;
        answer
    }
}

/// A connection for one read. Dropped before [`Lease::give_back`] it closes: who knows what is still on its way.
#[derive(Debug)]
pub(super) struct Lease<'a> {
    readers: &'a Readers,
    _permit: SemaphorePermit<'a>,
    pub(super) log: Log,
}

impl Readers {
    pub(super) fn new(endpoint: Endpoint, connections: usize) -> Self {
        Self {
            endpoint,
            permits: Semaphore::new(connections),
            idle: Mutex::new(Vec::new()),
            questions: AsyncMutex::new(None),
        }
    }

    /// Waits for a connection.
    pub(super) async fn lease(&self) -> Result<Lease<'_>, LinkError> {
        let permit = self.permits.acquire().await.map_err(|_| LinkError::TimedOut)?;
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let log = match idle {
                Some(log) if log.link.client.is_closed() => continue,
                Some(log) => log,
                None => Log::open(&self.endpoint).await?,
            };
            return Ok(Lease { readers: self, _permit: permit, log });
        }
    }

    /// Closes the connections that nobody reads on. When one was found broken or dead, the others are as a rule.
    pub(super) fn forget_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    async fn questions(&self) -> Result<Arc<Questions>, LinkError> {
        let mut slot = self.questions.lock().await;
        if let Some(log) = slot.as_ref().filter(|log| log.is_good()) {
            return Ok(Arc::clone(log));
        }
        let log = Log::open(&self.endpoint).await?;
        let log = Arc::new(Questions { log, owed: Mutex::new(None) });
        *slot = Some(Arc::clone(&log));
        Ok(log)
    }

    /// Asks, and asks once more when the connection turned out to be dead.
    async fn ask<T, A>(&self, question: impl Fn(Arc<Questions>) -> A) -> Result<T, LinkError>
    where
        A: Future<Output = Result<T, LinkError>>,
    {
        let asked = async {
            let log = self.questions().await?;
            match log.answered(question(Arc::clone(&log))).await {
                Err(_) if log.link.client.is_closed() => {
                    let log = self.questions().await?;
                    log.answered(question(Arc::clone(&log))).await
                }
                answer => answer,
            }
        };
        timeout(QUESTION_DEADLINE, asked).await.unwrap_or(Err(LinkError::TimedOut))
    }

    /// The moment now.
    pub(super) async fn head(&self) -> Result<Head, LinkError> {
        self.ask(|log| async move { log.head().await }).await
    }

    /// The physical table of a name.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is none.
    pub(super) async fn resolve(&self, name: &TableName) -> Result<Physical, StoreError> {
        const FIND: &str =
            "SELECT s.ptr_schema, s.ptr FROM raystream.storage AS s WHERE s.owner = $1 AND s.name = $2";
        let found = self
            .ask(|log| async move {
                let arguments = [(&OWNER as _, Type::TEXT), (&name.as_str() as _, Type::TEXT)];
                let row = log.link.client.query_typed_opt(FIND, &arguments).await?;
                let physical = row.map(|row| {
                    let ptr = TablePtr::new(row.try_get(0)?, row.try_get(1)?);
                    Ok::<_, LinkError>(Physical { quoted: Some(ptr.quoted()), table: ptr.table.into() })
                });
                physical.transpose()
            })
            .await
            .map_err(|error| refused("a table was not looked up", &error))?;
        found.ok_or(StoreError::NotFound)
    }

    /// The form in which Postgres writes a JSON value.
    ///
    /// # Errors
    /// [`StoreError::InvalidInput`] when it is none to Postgres.
    pub(super) async fn canonical(&self, json: &Json) -> Result<Json, StoreError> {
        let answer = self
            .ask(|log| async move {
                let row = log.link.client.query_typed_one("SELECT $1", &[(json, Type::JSONB)]).await?;
                Ok(row.try_get(0)?)
            })
            .await;
        answer.map_err(|error| match &error {
            // Class 22: bad data; 54: beyond a limit of Postgres.
            LinkError::Postgres(inner)
                if inner
                    .code()
                    .is_some_and(|code| code.code().starts_with("22") || code.code().starts_with("54")) =>
            {
                StoreError::invalid("the filter is not JSON that Postgres can store")
            }
            _ => refused("a filter was not read", &error),
        })
    }
}

impl Lease<'_> {
    /// Ends the read; another one may use the connection.
    pub(super) fn give_back(self) {
        let Self { readers, log, .. } = self;
        readers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(log);
    }
}

/// Logs an error for the operator and gives what the caller may see.
pub(super) fn refused(what: &'static str, error: &LinkError) -> StoreError {
    tracing::warn!(%error, "{what}");
    error.public()
}
