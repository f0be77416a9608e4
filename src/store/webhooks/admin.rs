//! What an operator does with webhooks, over a connection of his own: the daemons see it within seconds.

use std::sync::Arc;
use std::time::SystemTime;

use thiserror::Error;
use tokio_postgres::Row;

use super::{ATTEMPTS_MAX, WEBHOOKS_MAX, WebhookId};
use crate::store::endpoint::Endpoint;
use crate::store::error::{StartError, StoreError};
use crate::store::feed::{self, LogEnd};
use crate::store::migrate::migrate;
use crate::store::session::{self, Access, Driven, whole_message};
use crate::store::tables::NAMESPACE;
use crate::store::{StoreOptions, TableName};
use crate::webhook::{Secret, Target};

/// Why nothing was done.
#[derive(Debug, Error)]
pub enum WebhookError {
    /// The database cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Postgres refused it. For the operator: it has Postgres' own words.
    #[error("Postgres refused it: {0}")]
    Refused(String),
    /// There is no such table.
    #[error("there is no table `{0}`")]
    NoTable(String),
    /// There is no such webhook.
    #[error("there is no webhook `{0}`")]
    Unknown(String),
    /// There is no such dead letter.
    #[error("there is no dead letter `{0}` of this webhook")]
    NotDead(String),
    /// There are so many that no more are taken.
    #[error("there are {WEBHOOKS_MAX} webhooks already: remove one first")]
    TooMany,
    /// The cursor is none of this database.
    #[error("this is no cursor: {0}")]
    Cursor(StoreError),
}

impl From<tokio_postgres::Error> for WebhookError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Refused(whole_message(&error))
    }
}

/// Which changes a webhook tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationSet {
    /// New documents.
    pub insert: bool,
    /// Documents with another content.
    pub update: bool,
    /// Documents that are gone.
    pub delete: bool,
}

/// A word is no operation.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is no operation: insert, update or delete")]
pub struct UnknownOperation(String);

impl OperationSet {
    /// All of them.
    pub const ALL: Self = Self { insert: true, update: true, delete: true };

    /// Those that are named; all of them when none is.
    ///
    /// # Errors
    /// [`UnknownOperation`]
    pub fn of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, UnknownOperation> {
        let mut set = Self { insert: false, update: false, delete: false };
        for name in names {
            match name {
                "insert" => set.insert = true,
                "update" => set.update = true,
                "delete" => set.delete = true,
                other => return Err(UnknownOperation(other.to_owned())),
            }
        }
        let is_empty = !(set.insert || set.update || set.delete);
        Ok(if is_empty { Self::ALL } else { set })
    }

    /// Their names.
    pub fn names(self) -> Vec<&'static str> {
        let all = [(self.insert, "insert"), (self.update, "update"), (self.delete, "delete")];
        all.iter().filter(|(is_in, _)| *is_in).map(|(_, name)| *name).collect()
    }

    fn letters(self) -> String {
        self.names().iter().filter_map(|name| name.chars().next()).collect()
    }

    pub(super) fn of_letters(letters: &str) -> Self {
        let has = |letter| letters.contains(letter);
        Self { insert: has('i'), update: has('u'), delete: has('d') }
    }
}

/// What a webhook is made of.
#[derive(Debug)]
pub struct NewWebhook {
    /// Where to.
    pub target: Target,
    /// Of which table.
    pub table: TableName,
    /// Which changes.
    pub operations: OperationSet,
    /// The key of the signatures.
    pub secret: Secret,
    /// How often an event is tried, 1 to [`ATTEMPTS_MAX`].
    pub attempts: u32,
}

/// A webhook, and how it fares. The secret is not in it.
#[derive(Debug, Clone)]
pub struct WebhookStatus {
    /// Its name.
    pub id: String,
    /// Of which table.
    pub table: String,
    /// Where to.
    pub url: String,
    /// Which changes.
    pub operations: OperationSet,
    /// How often an event is tried.
    pub attempts_max: u32,
    /// Why nothing is sent; `None` while it is.
    pub disabled: Option<String>,
    /// The cursor of what was told.
    pub position: String,
    /// How often the next event failed, when it did.
    pub attempts: u32,
    /// When it is tried again.
    pub next_attempt: Option<SystemTime>,
    /// What went wrong last, with the time.
    pub last_error: Option<(String, SystemTime)>,
    /// How many events were taken by the receiver, since it was made.
    pub sent: i64,
    /// When the last one was.
    pub sent_at: Option<SystemTime>,
    /// How often changes had left the log before they were sent, with the last time and the reason.
    pub resets: i64,
    /// The last reset.
    pub last_reset: Option<(String, SystemTime)>,
    /// How many events were given up and are kept.
    pub dead: i64,
    /// The daemon that sends now.
    pub holder: Option<String>,
    /// When it was made.
    pub created_at: SystemTime,
}

/// How many dead letters are read at once: with their bodies, of two documents each, some tens of MiB at the worst.
const DEAD_PAGE: i64 = 16;

/// An event that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its id, as the receiver saw it.
    pub event: String,
    /// Its place among those of all webhooks, in the order in which they were given up.
    pub place: i64,
    /// What was sent; `None` when it was not asked for.
    pub body: Option<Vec<u8>>,
    /// How often.
    pub attempts: u32,
    /// When first.
    pub first_attempt: SystemTime,
    /// When it was given up, or was last tried again.
    pub died_at: SystemTime,
    /// What went wrong last.
    pub error: String,
    /// Whether it is about to be tried again.
    pub retry: bool,
}

/// From where changes are told again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayFrom {
    /// From the oldest that is kept.
    Oldest,
    /// From now on: what was not told is passed over.
    Now,
    /// Behind a cursor.
    Cursor(String),
}

/// Webhooks as an operator sees them.
#[derive(Debug)]
pub struct Admin(Driven);

impl Admin {
    /// Connects, and brings the schema up to date.
    ///
    /// # Errors
    /// [`WebhookError::Start`]
    pub async fn connect(endpoint: &Endpoint) -> Result<Self, WebhookError> {
        let mut options = StoreOptions::new(endpoint.clone());
        // Nothing is promised here that a crash could break.
        options.unsafe_durability = true;
        let mut client = session::open(&options, Access::Setup).await?.driven();
        migrate(&mut client).await?;
        Ok(Self(client))
    }

    /// Makes a webhook. What is committed after this returns is told.
    ///
    /// # Errors
    /// [`WebhookError::NoTable`], [`WebhookError::TooMany`]
    pub async fn add(&self, new: &NewWebhook) -> Result<WebhookId, WebhookError> {
        const ADD: &str = "INSERT INTO raystream.webhooks \
            (id, owner, name, url, operations, secret, attempts_max, position, ptr) \
            SELECT $1, $2, $3, $4, $5, $6, $7, $8, $10 WHERE (SELECT count(*) FROM raystream.webhooks) < $9";
        let ptr = self.log_name(&new.table).await?;
        let id = new_id()?;
        let position = self.end(LogEnd::Now).await?;
        let attempts = i32::try_from(new.attempts.clamp(1, ATTEMPTS_MAX)).unwrap_or(1);
        let added = self
            .0
            .execute(
                ADD,
                &[
                    &id.as_str(),
                    &NAMESPACE,
                    &new.table.as_str(),
                    &new.target.as_str(),
                    &new.operations.letters(),
                    &new.secret.as_bytes(),
                    &attempts,
                    &&*position,
                    &WEBHOOKS_MAX,
                    &ptr,
                ],
            )
            .await?;
        if added == 0 { Err(WebhookError::TooMany) } else { Ok(id) }
    }

    /// A table's name in the log.
    async fn log_name(&self, table: &TableName) -> Result<String, WebhookError> {
        const TABLE: &str = "SELECT s.ptr FROM raystream.storage AS s WHERE s.owner = $1 AND s.name = $2";
        match self.0.query_opt(TABLE, &[&NAMESPACE, &table.as_str()]).await? {
            Some(row) => Ok(row.try_get(0)?),
            None => Err(WebhookError::NoTable(table.as_str().to_owned())),
        }
    }

    async fn end(&self, end: LogEnd) -> Result<Arc<str>, WebhookError> {
        let cursor = feed::cursor_of_end(&self.0, end).await;
        cursor.map_err(|error| WebhookError::Refused(error.to_string()))
    }

    /// Every webhook, the oldest first.
    ///
    /// # Errors
    /// [`WebhookError::Refused`]
    pub async fn list(&self) -> Result<Vec<WebhookStatus>, WebhookError> {
        self.statuses(None).await
    }

    /// One webhook.
    ///
    /// # Errors
    /// [`WebhookError::Unknown`]
    pub async fn status(&self, id: &str) -> Result<WebhookStatus, WebhookError> {
        self.statuses(Some(id)).await?.pop().ok_or_else(|| WebhookError::Unknown(id.to_owned()))
    }

    async fn statuses(&self, id: Option<&str>) -> Result<Vec<WebhookStatus>, WebhookError> {
        const LIST: &str = "SELECT w.id, w.name, w.url, w.operations, w.attempts_max, w.disabled, w.position, w.attempts, \
                w.next_attempt, w.last_error, w.last_error_at, w.sent, w.sent_at, w.resets, w.reset_reason, w.reset_at, \
                (SELECT count(*) FROM raystream.webhook_dead AS d WHERE d.webhook = w.id), \
                CASE WHEN w.lease > clock_timestamp() THEN w.holder END, w.created_at \
            FROM raystream.webhooks AS w WHERE $1::text IS NULL OR w.id = $1 ORDER BY w.created_at, w.id";
        let rows = self.0.query(LIST, &[&id]).await?;
        Ok(rows.iter().map(status).collect::<Result<_, _>>()?)
    }

    /// Removes a webhook, with its dead letters.
    ///
    /// # Errors
    /// [`WebhookError::Unknown`]
    pub async fn remove(&self, id: &str) -> Result<(), WebhookError> {
        self.change("DELETE FROM raystream.webhooks AS w WHERE w.id = $1", id).await
    }

    /// Sends no more until [`Admin::enable`]; what is not told waits.
    ///
    /// # Errors
    /// [`WebhookError::Unknown`]
    pub async fn disable(&self, id: &str) -> Result<(), WebhookError> {
        let sql = "UPDATE raystream.webhooks AS w SET disabled = coalesce(w.disabled, 'by an operator'), epoch = w.epoch + 1 \
                   WHERE w.id = $1";
        self.change(sql, id).await
    }

    /// Goes on, with the next event at once and all its attempts before it.
    ///
    /// # Errors
    /// [`WebhookError::Unknown`]
    pub async fn enable(&self, id: &str) -> Result<(), WebhookError> {
        let sql = "UPDATE raystream.webhooks AS w SET disabled = NULL, trying = NULL, attempts = 0, trying_since = NULL, \
                   next_attempt = NULL, epoch = w.epoch + 1 WHERE w.id = $1";
        self.change(sql, id).await
    }

    /// Tells changes again, or passes over those that were not told. The ids of events are those that they had.
    ///
    /// # Errors
    /// [`WebhookError::Unknown`], [`WebhookError::Cursor`]
    pub async fn replay(&self, id: &str, from: &ReplayFrom) -> Result<(), WebhookError> {
        const REPLAY: &str = "UPDATE raystream.webhooks AS w SET position = $2, reset_due = false, trying = NULL, \
            attempts = 0, trying_since = NULL, next_attempt = NULL, epoch = w.epoch + 1, \
            ptr = coalesce((SELECT s.ptr FROM raystream.storage AS s WHERE s.owner = w.owner AND s.name = w.name), w.ptr) \
            WHERE w.id = $1";
        let position = match from {
            ReplayFrom::Oldest => self.end(LogEnd::Oldest).await?,
            ReplayFrom::Now => self.end(LogEnd::Now).await?,
            ReplayFrom::Cursor(text) => {
                let database = feed::database(&self.0).await?;
                feed::check_cursor(database, text).map_err(WebhookError::Cursor)?;
                text.as_str().into()
            }
        };
        let moved = self.0.execute(REPLAY, &[&id, &&*position]).await?;
        if moved == 0 { Err(WebhookError::Unknown(id.to_owned())) } else { Ok(()) }
    }

    /// Some of the events of a webhook that were given up, the oldest first, behind the place of another one; with what was sent or
    /// without. Behind the last one there are none.
    ///
    /// # Errors
    /// [`WebhookError::Unknown`]
    pub async fn dead(
        &self,
        id: &str,
        behind: Option<i64>,
        with_bodies: bool,
    ) -> Result<Vec<DeadLetter>, WebhookError> {
        const DEAD: &str = "SELECT d.event, CASE WHEN $3 THEN d.body END, d.attempts, d.first_attempt, d.died_at, d.error, \
                d.retry, d.place \
            FROM raystream.webhook_dead AS d WHERE d.webhook = $1 AND d.place > coalesce($2::bigint, 0) \
            ORDER BY d.place LIMIT $4";
        self.status(id).await?;
        let rows = self.0.query(DEAD, &[&id, &behind, &with_bodies, &DEAD_PAGE]).await?;
        let letter = |row: &Row| {
            Ok(DeadLetter {
                event: row.try_get(0)?,
                body: row.try_get(1)?,
                attempts: count(row.try_get(2)?),
                first_attempt: row.try_get(3)?,
                died_at: row.try_get(4)?,
                error: row.try_get(5)?,
                retry: row.try_get(6)?,
                place: row.try_get(7)?,
            })
        };
        rows.iter().map(letter).collect::<Result<_, tokio_postgres::Error>>().map_err(WebhookError::from)
    }

    /// Has dead letters sent once more: one, or all. Answers how many there are.
    ///
    /// # Errors
    /// [`WebhookError::Unknown`], [`WebhookError::NotDead`]
    pub async fn retry(&self, id: &str, event: Option<&str>) -> Result<u64, WebhookError> {
        const RETRY: &str = "UPDATE raystream.webhook_dead AS d SET retry = true \
            WHERE d.webhook = $1 AND ($2::text IS NULL OR d.event = $2)";
        self.dead_letters(RETRY, id, event).await
    }

    /// Removes dead letters: one, or all. Answers how many there were.
    ///
    /// # Errors
    /// [`WebhookError::Unknown`], [`WebhookError::NotDead`]
    pub async fn bury(&self, id: &str, event: Option<&str>) -> Result<u64, WebhookError> {
        const BURY: &str = "DELETE FROM raystream.webhook_dead AS d \
            WHERE d.webhook = $1 AND ($2::text IS NULL OR d.event = $2)";
        self.dead_letters(BURY, id, event).await
    }

    async fn dead_letters(&self, sql: &str, id: &str, event: Option<&str>) -> Result<u64, WebhookError> {
        self.status(id).await?;
        match (self.0.execute(sql, &[&id, &event]).await?, event) {
            (0, Some(event)) => Err(WebhookError::NotDead(event.to_owned())),
            (count, _) => Ok(count),
        }
    }

    async fn change(&self, sql: &str, id: &str) -> Result<(), WebhookError> {
        match self.0.execute(sql, &[&id]).await? {
            0 => Err(WebhookError::Unknown(id.to_owned())),
            _ => Ok(()),
        }
    }
}

fn new_id() -> Result<WebhookId, WebhookError> {
    let number = getrandom::u64();
    let number =
        number.map_err(|error| WebhookError::Refused(format!("the system gives no randomness: {error}")))?;
    Ok(WebhookId(format!("wh_{number:016x}")))
}

/// A number that the table's constraints keep above zero.
fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

fn status(row: &Row) -> Result<WebhookStatus, tokio_postgres::Error> {
    let dated = |text: usize, time: usize| -> Result<Option<(String, SystemTime)>, tokio_postgres::Error> {
        let (text, time): (Option<String>, Option<SystemTime>) = (row.try_get(text)?, row.try_get(time)?);
        Ok(text.zip(time))
    };
    let operations: String = row.try_get(3)?;
    Ok(WebhookStatus {
        id: row.try_get(0)?,
        table: row.try_get(1)?,
        url: row.try_get(2)?,
        operations: OperationSet::of_letters(&operations),
        attempts_max: count(row.try_get(4)?),
        disabled: row.try_get(5)?,
        position: row.try_get(6)?,
        attempts: count(row.try_get(7)?),
        next_attempt: row.try_get(8)?,
        last_error: dated(9, 10)?,
        sent: row.try_get(11)?,
        sent_at: row.try_get(12)?,
        resets: row.try_get(13)?,
        last_reset: dated(14, 15)?,
        dead: row.try_get(16)?,
        holder: row.try_get(17)?,
        created_at: row.try_get(18)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_named_and_none_means_all() {
        let set = |names: &[&str]| OperationSet::of_names(names.iter().copied());
        assert_eq!(set(&[]), Ok(OperationSet::ALL));
        let two = set(&["delete", "insert", "delete"]).unwrap();
        assert_eq!((two.names(), two.letters()), (vec!["insert", "delete"], "id".to_owned()));
        assert_eq!(OperationSet::of_letters(&two.letters()), two);
        assert!(set(&["truncate"]).is_err());
    }
}
