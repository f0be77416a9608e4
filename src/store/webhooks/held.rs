//! What a daemon that sends a webhook writes down: each statement names the epoch, so that one whose lease has ended writes nothing.

use std::time::{Duration, SystemTime};

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::admin::OperationSet;
use super::lease::Webhooks;
use super::{DEAD_LETTERS_MAX, WebhookId, kept};
use crate::store::tables::column;
use crate::store::{StoreError, TableName};
use crate::webhook::{Secret, Target};

/// A webhook that this daemon sends.
#[derive(Debug, Clone)]
pub struct Held {
    /// Its name.
    pub id: WebhookId,
    /// Of which table.
    pub table: TableName,
    /// The name of that table in the log, when the position was written.
    pub ptr: String,
    /// Where to.
    pub target: Target,
    /// Which changes.
    pub operations: OperationSet,
    /// The key of the signatures.
    pub secret: Secret,
    /// How often an event is tried.
    pub attempts_max: u32,
    /// Where to go on.
    pub position: String,
    /// The taking of it.
    pub epoch: i64,
    /// The event that failed before.
    pub trying: Option<Trying>,
    /// The reset that the receiver was not told of yet: its number, and the reason.
    pub reset: Option<(i64, String)>,
}

/// An event that failed and is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trying {
    /// Its id.
    pub event: String,
    /// How often it failed.
    pub attempts: u32,
    /// When it was tried first, by the clock of the database.
    pub since: SystemTime,
    /// How long ago that is.
    pub age: Duration,
    /// How long to wait still.
    pub pause: Duration,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed<'a> {
    /// The event.
    pub event: &'a str,
    /// How often it failed so far.
    pub attempts: u32,
    /// How long ago it was tried first.
    pub age: Duration,
    /// What went wrong.
    pub error: &'a str,
}

/// What of a webhook is not as raystream writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its {0} in the database is not one that raystream writes")]
pub(super) struct Unreadable(&'static str);

impl From<StoreError> for Unreadable {
    fn from(_: StoreError) -> Self {
        Self("row")
    }
}

/// The columns of [`Held::of`].
pub(super) const COLUMNS: &str = "w.id, w.name, w.url, w.operations, w.secret, w.attempts_max, w.position, w.epoch, w.trying, \
    w.attempts, w.trying_since, extract(epoch FROM clock_timestamp() - w.trying_since)::float8, \
    extract(epoch FROM w.next_attempt - clock_timestamp())::float8, w.reset_due, w.resets, w.reset_reason, w.ptr";

/// What every statement of a sender ends with; its first two parameters.
const MINE: &str = "w.id = $1 AND w.epoch = $2";

impl Held {
    /// A webhook as the database has it; or what of it is not as raystream writes it.
    pub(super) fn of(row: &Row) -> Result<Self, Unreadable> {
        let url: String = column(row, 2)?;
        let secret: Vec<u8> = column(row, 4)?;
        let operations: String = column(row, 3)?;
        let seconds = |at: usize| -> Result<Duration, Unreadable> {
            let seconds: Option<f64> = column(row, at)?;
            Ok(Duration::try_from_secs_f64(seconds.unwrap_or(0.0)).unwrap_or(Duration::ZERO))
        };
        let count = |at: usize| -> Result<u32, Unreadable> {
            Ok(u32::try_from(column::<i32>(row, at)?).unwrap_or(0))
        };
        let trying = match (column::<Option<String>>(row, 8)?, column::<Option<SystemTime>>(row, 10)?) {
            (Some(event), Some(since)) => {
                Some(Trying { event, attempts: count(9)?, since, age: seconds(11)?, pause: seconds(12)? })
            }
            _ => None,
        };
        let reset_due: bool = column(row, 13)?;
        let reason: Option<String> = column(row, 15)?;
        let reset = if reset_due { Some((column(row, 14)?, reason.unwrap_or_default())) } else { None };
        Ok(Self {
            id: WebhookId(column(row, 0)?),
            table: TableName::parse(&column::<String>(row, 1)?).map_err(|_| Unreadable("table"))?,
            target: Target::parse(&url).map_err(|_| Unreadable("URL"))?,
            operations: OperationSet::of_letters(&operations),
            secret: Secret::from_bytes(&secret).map_err(|_| Unreadable("secret"))?,
            attempts_max: count(5)?,
            position: column(row, 6)?,
            ptr: column(row, 16)?,
            epoch: column(row, 7)?,
            trying,
            reset,
        })
    }
}

/// What a sender writes. Each answers whether the webhook is still this daemon's.
///
/// # Errors
/// [`StoreError::Unavailable`]: Postgres is away, and nobody knows whether it was written. All of them can be said again.
impl Webhooks {
    async fn write(
        &self,
        held: &Held,
        set: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<bool, StoreError> {
        let sql = format!("UPDATE raystream.webhooks AS w SET {set} WHERE {MINE}");
        let mine: [&(dyn ToSql + Sync); 2] = [&held.id.0, &held.epoch];
        let all: Vec<_> = mine.into_iter().chain(values.iter().copied()).collect();
        Ok(self.execute(&sql, &all).await? > 0)
    }

    /// Everything up to a position was told; `sent` events more.
    pub async fn moved(&self, held: &Held, position: &str, sent: i64) -> Result<bool, StoreError> {
        let set = "position = $3, sent = w.sent + $4, sent_at = CASE WHEN $4 > 0 THEN now() ELSE w.sent_at END, \
                   trying = CASE WHEN $4 > 0 THEN NULL ELSE w.trying END, attempts = CASE WHEN $4 > 0 THEN 0 ELSE w.attempts END, \
                   next_attempt = CASE WHEN $4 > 0 THEN NULL ELSE w.next_attempt END";
        self.write(held, set, &[&position, &sent]).await
    }

    /// An attempt failed, and there is another one after a pause. Everything up to a position was told.
    pub async fn failed(
        &self,
        held: &Held,
        position: &str,
        sent: i64,
        failed: &Failed<'_>,
        pause: Duration,
    ) -> Result<bool, StoreError> {
        let set = "position = $3, sent = w.sent + $4, trying = $5, attempts = $6, \
                   trying_since = now() - make_interval(secs => $7), next_attempt = now() + make_interval(secs => $8), \
                   last_error = $9, last_error_at = now()";
        let attempts = i32::try_from(failed.attempts).unwrap_or(i32::MAX);
        let (age, pause, error) = (failed.age.as_secs_f64(), pause.as_secs_f64(), kept(failed.error));
        self.write(held, set, &[&position, &sent, &failed.event, &attempts, &age, &pause, &error]).await
    }

    /// An event is given up: it becomes a dead letter, and everything up to `position`, which is behind it, counts as told. With
    /// [`DEAD_LETTERS_MAX`] of them the webhook is disabled instead, and the event is the next one when it goes on.
    pub async fn died(
        &self,
        held: &Held,
        position: &str,
        failed: &Failed<'_>,
        body: &[u8],
    ) -> Result<bool, StoreError> {
        const DIED: &str = "WITH moved AS ( \
                UPDATE raystream.webhooks AS w SET trying = NULL, attempts = 0, trying_since = NULL, next_attempt = NULL, \
                    last_error = $5, last_error_at = now(), reset_due = w.reset_due AND NOT f.has_room, \
                    position = CASE WHEN f.has_room THEN $3 ELSE w.position END, \
                    disabled = CASE WHEN f.has_room THEN w.disabled ELSE 'it has too many dead letters' END \
                FROM (SELECT count(*) < $9 AS has_room FROM raystream.webhook_dead AS d \
                    WHERE d.webhook = $1 AND d.event <> $4) AS f \
                WHERE w.id = $1 AND w.epoch = $2 RETURNING w.id, f.has_room), \
            buried AS ( \
                INSERT INTO raystream.webhook_dead (webhook, event, body, attempts, first_attempt, error) \
                SELECT m.id, $4, $6, $7, now() - make_interval(secs => $8), $5 FROM moved AS m WHERE m.has_room \
                ON CONFLICT (webhook, event) DO UPDATE SET attempts = excluded.attempts, error = excluded.error, died_at = now()) \
            SELECT m.has_room FROM moved AS m";
        let attempts = i32::try_from(failed.attempts).unwrap_or(i32::MAX);
        let (age, error) = (failed.age.as_secs_f64(), kept(failed.error));
        let rows = self
            .query(
                DIED,
                &[
                    &held.id.0,
                    &held.epoch,
                    &position,
                    &failed.event,
                    &error,
                    &body,
                    &attempts,
                    &age,
                    &DEAD_LETTERS_MAX,
                ],
            )
            .await?;
        // A webhook that is full is not to be sent any further.
        rows.first().map_or(Ok(false), |row| column(row, 0))
    }

    /// Something keeps the webhook from going on, which is no event's fault.
    pub async fn troubled(&self, held: &Held, error: &str) -> Result<bool, StoreError> {
        self.write(held, "last_error = $3, last_error_at = now()", &[&kept(error)]).await
    }

    /// The receiver wants nothing any more. Everything up to a position was told.
    pub async fn gone(
        &self,
        held: &Held,
        position: &str,
        sent: i64,
        reason: &str,
    ) -> Result<bool, StoreError> {
        let set = "position = $3, sent = w.sent + $4, disabled = $5, last_error = $5, last_error_at = now()";
        self.write(held, set, &[&position, &sent, &kept(reason)]).await
    }

    /// The log does not go back to the position, or the table is another one, `ptr` in the log: it goes on with the oldest that is
    /// kept of that, and the receiver is to be told.
    pub async fn lost(&self, held: &Held, ptr: &str, oldest: &str, reason: &str) -> Result<bool, StoreError> {
        let set = "position = $3, resets = w.resets + 1, reset_at = now(), reset_reason = $4, reset_due = true, \
                   trying = NULL, attempts = 0, trying_since = NULL, next_attempt = NULL, ptr = $5";
        self.write(held, set, &[&oldest, &kept(reason), &ptr]).await
    }

    /// The receiver knows of the reset.
    pub async fn reset_told(&self, held: &Held) -> Result<bool, StoreError> {
        let set = "reset_due = false, sent = w.sent + 1, sent_at = now(), trying = NULL, attempts = 0, next_attempt = NULL";
        self.write(held, set, &[]).await
    }

    /// The next dead letter that is to be sent again: its id and body.
    pub async fn next_retry(&self, held: &Held) -> Result<Option<(String, Vec<u8>)>, StoreError> {
        const NEXT: &str = "SELECT d.event, d.body FROM raystream.webhook_dead AS d \
            WHERE d.webhook = $1 AND d.retry ORDER BY d.place LIMIT 1";
        let rows = self.query(NEXT, &[&held.id.0]).await?;
        rows.first().map(|row| Ok((column(row, 0)?, column(row, 1)?))).transpose()
    }

    /// A dead letter was sent again: `error` says why in vain.
    pub async fn retried(&self, held: &Held, event: &str, error: Option<&str>) -> Result<bool, StoreError> {
        const STILL_DEAD: &str = "UPDATE raystream.webhook_dead AS d SET retry = false, attempts = d.attempts + 1, \
            died_at = now(), error = $4 FROM raystream.webhooks AS w \
            WHERE w.id = $1 AND w.epoch = $2 AND d.webhook = w.id AND d.event = $3";
        const ALIVE: &str = "WITH taken AS ( \
                DELETE FROM raystream.webhook_dead AS d USING raystream.webhooks AS w \
                WHERE w.id = $1 AND w.epoch = $2 AND d.webhook = w.id AND d.event = $3 RETURNING d.webhook) \
            UPDATE raystream.webhooks AS w SET sent = w.sent + 1, sent_at = now() FROM taken AS t WHERE w.id = t.webhook";
        let written = match error {
            Some(error) => self.execute(STILL_DEAD, &[&held.id.0, &held.epoch, &event, &kept(error)]).await?,
            None => self.execute(ALIVE, &[&held.id.0, &held.epoch, &event]).await?,
        };
        Ok(written > 0)
    }
}
