//! Tables as they were.
//!
//! A moment is a position of the log: a set of transactions. A table as of a moment is the table as it is, with every change
//! undone that the moment does not have: of each document the first such change, by its images `before`. The changes of a
//! document are in the order of `seq`, and those that a moment has come before those it has not, so the first one says all.
//!
//! # A time
//! A time stands for the transactions whose last change was made then or before, by the clock of the database. Transactions
//! stay whole; and whoever saw a change, and wrote because of it, wrote later, so that no effect is there without its cause.
//! What had not committed when the time was first asked for is not in the moment, which is a cursor like any other.
//!
//! # What is no longer kept
//! Retention moves the horizon in the transaction that empties a partition, and the horizon only moves on. So a read looks
//! at the horizon *after* it has read: when the moment still has all that ever left the log, nothing was missing before.

mod at;
mod changes;
mod rows;

use std::sync::Arc;

use tokio_postgres::Row;

pub use at::At;
pub use changes::{ChangeStream, Changes, ChangesFrom, ChangesRequest, Entry, EntryKind, Judge, Sources};

pub(in crate::store) use rows::Past;

use super::cursor::{self, Position};
use super::frontier::{Frontier, Xid};
use super::link::{LinkError, RETRY_AFTER};
use super::log::Head;
use super::readers::refused;
use super::{replay, reset_text};
use crate::store::statements::{Call, Param, StatementKey};
use crate::store::{Store, StoreError};

/// The moment now, and what is kept. Columns: those of the feed's own, and below which transaction there is no history.
pub(in crate::store) const MOMENT: &str = "SELECT pg_current_snapshot()::text, \
    (SELECT c.xid FROM raystream.changes AS c ORDER BY c.xid DESC LIMIT 1), m.horizon, m.horizon_xip, m.past \
    FROM raystream.meta AS m";

/// The same, and the transactions of a time: whether the time is still to come, whether it is older than what is kept, the
/// newest transaction that has ended by then, and those below it that had not.
///
/// What left the log counts as ended, which it has when the time is not older. The list of those that had not is cut at more
/// than a cursor can name.
pub(in crate::store) const MOMENT_OF_TIME: &str = "WITH asked AS MATERIALIZED (\
        SELECT $1::text::timestamptz AS at), \
    late AS MATERIALIZED (\
        SELECT DISTINCT c.xid FROM raystream.changes AS c WHERE c.at > $1::text::timestamptz), \
    ended AS MATERIALIZED (\
        SELECT c.xid FROM raystream.changes AS c WHERE c.at <= $1::text::timestamptz \
        AND NOT EXISTS (SELECT FROM late AS l WHERE l.xid = c.xid) ORDER BY c.xid DESC LIMIT 1) \
    SELECT pg_current_snapshot()::text, \
        (SELECT c.xid FROM raystream.changes AS c ORDER BY c.xid DESC LIMIT 1), m.horizon, m.horizon_xip, m.past, \
        a.at > clock_timestamp(), a.at < m.horizon_at, (SELECT e.xid FROM ended AS e), \
        ARRAY(SELECT l.xid FROM late AS l \
            WHERE l.xid < m.horizon OR l.xid < (SELECT e.xid FROM ended AS e) ORDER BY l.xid LIMIT 4096) \
    FROM raystream.meta AS m CROSS JOIN asked AS a";

/// A moment that rows can be read as of: it is exact, whatever others do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    pub(super) position: Position,
    cursor: Arc<str>,
    asked: Arc<str>,
}

impl Moment {
    /// How it was asked for: a cursor or a time.
    pub(in crate::store) fn asked(&self) -> &str {
        &self.asked
    }

    /// The same moment, asked for in another way.
    pub(in crate::store) fn asked_as(self, asked: &str) -> Self {
        Self { asked: asked.into(), ..self }
    }

    /// The moment as a cursor.
    pub fn cursor(&self) -> &str {
        &self.cursor
    }

    /// The form of the statements that read it.
    pub(in crate::store) fn past(&self) -> Past {
        if self.position.inside.is_some() { Past::Inside } else { Past::Frontier }
    }

    /// The parameters of [`Past::placeholders`].
    pub(in crate::store) fn params(&self) -> Vec<Param> {
        let base = &self.position.base;
        let mut params: Vec<Param> = vec![Box::new(Xid(base.xmax())), Box::new(base.xip_sql())];
        if let Some(inside) = &self.position.inside {
            params.push(Box::new(Xid(inside.next.xmax())));
            params.push(Box::new(inside.next.xip_sql()));
            params.push(Box::new(inside.last));
            params.push(Box::new(inside.seq));
        }
        params
    }

    /// Whether the log has all that has to be undone, by a row of [`MOMENT`].
    pub(in crate::store) fn check(&self, row: &Row) -> Result<(), StoreError> {
        let (head, past) = kept(row).map_err(|error| refused("the moment was not checked", &error))?;
        if let Some(reason) = replay::lost(&head, &self.position) {
            return Err(StoreError::Reset(reason));
        }
        if !past.is_within(&self.position.base) {
            return Err(StoreError::Reset("the change log does not go back to the moment"));
        }
        Ok(())
    }
}

/// Reads the columns of [`MOMENT`].
fn kept(row: &Row) -> Result<(Head, Frontier), LinkError> {
    let Xid(past) = row.try_get(4)?;
    let past = Frontier::new(past, Vec::new()).expect("a frontier without exceptions is one");
    Ok((Head::of(row)?, past))
}

/// The position of a time, by a row of [`MOMENT_OF_TIME`]. `None` when it would need too many exceptions.
fn position_of_time(row: &Row) -> Result<Option<Position>, LinkError> {
    let head = Head::of(row)?;
    let ended: Option<Xid> = row.try_get(7)?;
    let late: Vec<Xid> = row.try_get(8)?;
    let xmax = head.horizon.xmax().max(ended.map_or(0, |Xid(xid)| xid + 1));
    let running = head.snapshot.clamp(xmax);
    let mut xip: Vec<u64> = late.into_iter().map(|Xid(xid)| xid).filter(|xid| *xid < xmax).collect();
    xip.extend(running.xip());
    xip.sort_unstable();
    xip.dedup();
    Ok(Frontier::new(xmax, xip).map(Position::at))
}

impl Store {
    /// The moment that was asked for.
    ///
    /// # Errors
    /// [`StoreError::InvalidInput`]: it is none, is still to come, or is asked for inside of a transaction, which has a moment
    /// of its own. [`StoreError::Reset`]: it is no longer kept, or of another database.
    pub async fn moment(&self, at: &At) -> Result<Moment, StoreError> {
        self.outside_of_transaction()?;
        let moment = match at {
            At::Cursor(text) => {
                let position = cursor::decode(self.0.database, text).map_err(|error| match error {
                    cursor::CursorError::Malformed => {
                        StoreError::invalid("`at` is neither a cursor nor a time like 2026-01-31T12:00:00Z")
                    }
                    other => StoreError::Reset(reset_text(other)),
                })?;
                let cursor: Arc<str> = text.as_str().into();
                Moment { position, asked: Arc::clone(&cursor), cursor }
            }
            At::Time(text) => return self.moment_of_time(text).await,
        };
        self.still_kept(Some(&moment)).await?;
        Ok(moment)
    }

    /// Refuses what is asked for inside of a transaction: it has a moment of its own, in which the horizon does not move.
    pub(in crate::store) fn outside_of_transaction(&self) -> Result<(), StoreError> {
        match &self.1.transaction {
            None => Ok(()),
            Some(_) => {
                Err(StoreError::invalid("a transaction has one moment: `at` cannot be asked for in it"))
            }
        }
    }

    async fn moment_of_time(&self, text: &str) -> Result<Moment, StoreError> {
        let call = Call::of(StatementKey::MomentOfTime, vec![Box::new(text.to_owned())], text.len());
        let rows = self.run(&self.0.reads, call).await.map_err(|error| match error {
            StoreError::InvalidInput(_) => StoreError::invalid("`at` is no time that there is"),
            other => other,
        })?;
        let row = rows.first().ok_or(StoreError::Internal)?;
        let odd = |error: LinkError| refused("a time was not looked up", &error);
        let flag = |column| row.try_get::<_, bool>(column).map_err(|error| odd(error.into()));
        if flag(5)? {
            return Err(StoreError::invalid("`at` is still to come, by the clock of the database"));
        }
        if flag(6)? {
            return Err(StoreError::Reset("the change log does not go back to the time"));
        }
        let position = position_of_time(row).map_err(odd)?.ok_or(StoreError::Internal)?;
        let away = StoreError::Unavailable { retry_after: RETRY_AFTER };
        let cursor = cursor::at(self.0.database, &position.base).ok_or(away)?;
        let moment = Moment { position, cursor, asked: text.into() };
        moment.check(row)?;
        Ok(moment)
    }

    /// Whether what was read as of a moment was complete: to be asked behind the read.
    pub(in crate::store) async fn still_kept(&self, at: Option<&Moment>) -> Result<(), StoreError> {
        let Some(moment) = at else { return Ok(()) };
        let call = Call::of(StatementKey::Moment, Vec::new(), 0);
        let rows = self.run(&self.0.reads, call).await?;
        moment.check(rows.first().ok_or(StoreError::Internal)?)
    }
}
