//! Who sends: the daemon that holds the lease.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::WebhookId;
use super::held::{COLUMNS, Held};
use crate::store::feed::{self, LogEnd};
use crate::store::session::{self, Access, Driven, whole_message};
use crate::store::tables::column;
use crate::store::{Store, StoreError, StoreOptions};
use crate::time::timeout;

/// How long a webhook is a daemon's without being renewed: after a daemon that died without a word this long passes until another one
/// goes on, and one that Postgres does not hear stops sending before that.
pub const LEASE: Duration = Duration::from_secs(10);

/// How long a statement here may take, a new connection with it: less than a lease, so that one answer that does not come costs one.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a caller is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A webhook that is still this daemon's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub id: WebhookId,
    /// The present taking: another one than before when an operator changed something.
    pub epoch: i64,
    /// Whether dead letters are to be sent again.
    pub retry: bool,
}

/// The webhooks of a database, for one daemon. It has a connection of its own, opened when it is first needed.
#[derive(Debug)]
pub struct Webhooks {
    options: StoreOptions,
    holder: String,
    client: Mutex<Option<Arc<Driven>>>,
}

fn away() -> StoreError {
    StoreError::Unavailable { retry_after: RETRY_AFTER }
}

/// What failed, for the log.
fn failed(error: &tokio_postgres::Error) -> StoreError {
    let error = whole_message(error);
    tracing::warn!(error, "a statement of the webhooks failed");
    away()
}

impl Webhooks {
    /// The webhooks of a store's database, for a daemon that tells itself from others by a random name.
    ///
    /// # Errors
    /// [`StoreError::Internal`]: the system gives no randomness.
    pub fn of_store(store: &Store) -> Result<Self, StoreError> {
        let number = getrandom::u64().map_err(|error| {
            tracing::error!(%error, "the system gives no randomness");
            StoreError::Internal
        })?;
        let holder = format!("{number:016x}");
        Ok(Self { options: store.options().clone(), holder, client: Mutex::new(None) })
    }

    /// The name of this daemon, as `status` shows it.
    pub fn holder(&self) -> &str {
        &self.holder
    }

    async fn client(&self) -> Result<Arc<Driven>, StoreError> {
        let mut slot = self.client.lock().await;
        if let Some(client) = slot.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let opened =
            timeout(PATIENCE, session::open(&self.options, Access::Write)).await.map_err(|_| away())?;
        let session = opened.map_err(|error| {
            tracing::debug!(%error, "no connection for the webhooks");
            away()
        })?;
        let client = Arc::new(session.driven());
        // Who looks at the sessions of Postgres tells this one from those of calls.
        let named = client.batch_execute("SET application_name = 'raystream webhooks'");
        timeout(PATIENCE, named).await.map_err(|_| away())?.map_err(|error| failed(&error))?;
        *slot = Some(Arc::clone(&client));
        Ok(client)
    }

    async fn answered<T>(
        &self,
        asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, StoreError> {
        match timeout(PATIENCE, asked).await {
            Ok(answered) => answered.map_err(|error| failed(&error)),
            Err(_) => {
                // Whatever this connection still says comes too late.
                *self.client.lock().await = None;
                Err(away())
            }
        }
    }

    pub(super) async fn query(
        &self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        let client = self.client().await?;
        self.answered(client.query(sql, values)).await
    }

    /// Answers how many rows were written.
    pub(super) async fn execute(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<u64, StoreError> {
        let client = self.client().await?;
        self.answered(client.execute(sql, values)).await
    }

    /// Renews what this daemon holds, and says what that is.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: nobody knows whether anything was renewed.
    pub async fn renew(&self) -> Result<Vec<Standing>, StoreError> {
        const RENEW: &str = "UPDATE raystream.webhooks AS w SET lease = clock_timestamp() + make_interval(secs => $2) \
            WHERE w.holder = $1 AND w.disabled IS NULL RETURNING w.id, w.epoch, \
            EXISTS (SELECT FROM raystream.webhook_dead AS d WHERE d.webhook = w.id AND d.retry)";
        let rows = self.query(RENEW, &[&self.holder, &LEASE.as_secs_f64()]).await?;
        rows.iter()
            .map(|row| {
                Ok(Standing {
                    id: WebhookId(column(row, 0)?),
                    epoch: column(row, 1)?,
                    retry: column(row, 2)?,
                })
            })
            .collect()
    }

    /// Takes what nobody holds, and again what this daemon holds and is to begin anew.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: nobody knows whether anything was taken; the next [`Webhooks::renew`] says it.
    pub async fn take(&self, again: &[WebhookId]) -> Result<Vec<Held>, StoreError> {
        let sql = format!(
            "UPDATE raystream.webhooks AS w SET holder = $1, lease = clock_timestamp() + make_interval(secs => $2), \
                 epoch = w.epoch + 1 \
             WHERE w.disabled IS NULL AND (w.lease < clock_timestamp() OR w.holder = $1 AND w.id = ANY ($3)) \
             RETURNING {COLUMNS}"
        );
        let again: Vec<&str> = again.iter().map(WebhookId::as_str).collect();
        let rows = self.query(&sql, &[&self.holder, &LEASE.as_secs_f64(), &again]).await?;
        let mut taken = Vec::with_capacity(rows.len());
        for row in &rows {
            match Held::of(row) {
                Ok(held) => taken.push(held),
                // One that cannot be read keeps nobody else from being sent.
                Err(unreadable) => {
                    self.passed_over(&column::<String>(row, 0)?, &unreadable.to_string()).await
                }
            }
        }
        Ok(taken)
    }

    /// A webhook that is not sent, because of what somebody wrote into its row: said where an operator looks, once.
    async fn passed_over(&self, webhook: &str, error: &str) {
        const SAY: &str = "UPDATE raystream.webhooks AS w SET last_error = $3, last_error_at = now() \
            WHERE w.id = $1 AND w.holder = $2 AND w.last_error IS DISTINCT FROM $3";
        match self.execute(SAY, &[&webhook, &self.holder, &error]).await {
            Ok(0) => {}
            Ok(_) => tracing::error!(webhook, error, "a webhook is not sent"),
            Err(unsaid) => tracing::error!(webhook, error, %unsaid, "a webhook is not sent"),
        }
    }

    /// Lets go of what this daemon holds, so that another one goes on at once: of some, or of all.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: then the leases end by themselves.
    pub async fn release(&self, only: Option<&[WebhookId]>) -> Result<(), StoreError> {
        const RELEASE: &str = "UPDATE raystream.webhooks AS w SET holder = NULL, lease = '-infinity', epoch = w.epoch + 1 \
            WHERE w.holder = $1 AND ($2::text[] IS NULL OR w.id = ANY ($2))";
        let only: Option<Vec<&str>> = only.map(|ids| ids.iter().map(WebhookId::as_str).collect());
        self.execute(RELEASE, &[&self.holder, &only]).await?;
        Ok(())
    }

    /// The position of the oldest change that is kept.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]
    pub async fn oldest(&self) -> Result<Arc<str>, StoreError> {
        let client = self.client().await?;
        timeout(PATIENCE, feed::cursor_of_end(&client, LogEnd::Oldest)).await.map_err(|_| away())?
    }
}
