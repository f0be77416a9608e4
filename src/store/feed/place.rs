//! Positions for those who go on later and have no subscription: the two ends of the log.

use std::sync::Arc;

use tokio_postgres::Client;

use super::cursor::{self, CursorError, Database};
use super::history::MOMENT;
use super::link::{LinkError, RETRY_AFTER};
use super::log::Head;
use super::readers::refused;
use super::{Feed, reset_text, start};
use crate::store::StoreError;

/// An end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum LogEnd {
    /// What is kept comes after it.
    Oldest,
    /// What is committed from now on comes after it.
    Now,
}

/// The cursor of an end of the log.
///
/// # Errors
/// [`StoreError::Unavailable`], [`StoreError::Internal`]
pub(in crate::store) async fn cursor_of_end(client: &Client, end: LogEnd) -> Result<Arc<str>, StoreError> {
    let failed = |error: LinkError| refused("no position was taken", &error);
    let database = start::database(client).await.map_err(|error| failed(error.into()))?;
    let row = client.query_typed_one(MOMENT, &[]).await.map_err(|error| failed(error.into()))?;
    let head = Head::of(&row).map_err(failed)?;
    let frontier = match end {
        LogEnd::Oldest => head.horizon,
        LogEnd::Now => head.frontier(0),
    };
    cursor::at(database, &frontier).ok_or(StoreError::Unavailable { retry_after: RETRY_AFTER })
}

/// Whether a text is a cursor of a database.
///
/// # Errors
/// [`StoreError::InvalidInput`], [`StoreError::Reset`]
pub(in crate::store) fn check_cursor(database: Database, text: &str) -> Result<(), StoreError> {
    match cursor::decode(database, text) {
        Ok(_) => Ok(()),
        Err(CursorError::Malformed) => Err(StoreError::invalid(reset_text(CursorError::Malformed))),
        Err(other) => Err(StoreError::Reset(reset_text(other))),
    }
}

impl Feed {
    /// The number of the change that a cursor lies right behind: that of the log, the same in every cursor behind this change.
    /// `None` for another cursor.
    pub fn sequence(&self, cursor: &str) -> Option<i64> {
        let position = cursor::decode(self.0.shared.database, cursor).ok()?;
        position.inside.map(|inside| inside.seq)
    }
}
