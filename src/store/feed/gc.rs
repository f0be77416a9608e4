//! What retention would drop, and dropping it: for an operator who does not want to wait for the daemon, which does it by
//! itself.

use super::link::{Link, LinkError};
use super::retention::{Collected, PartitionInfo, Retention, maintain, survey};
use super::tombstones;
use crate::store::endpoint::Endpoint;

/// What is there, and what of it is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// The partitions of the log, from the oldest on.
    pub partitions: Vec<PartitionInfo>,
    /// Deleted documents of which nothing is in the log any more.
    pub tombstones: u64,
}

/// Why nothing was looked at or dropped. For the operator: it has Postgres' own words.
#[derive(Debug, thiserror::Error)]
#[error("the change log cannot be looked after: {0}")]
pub struct GcError(String);

impl From<LinkError> for GcError {
    fn from(error: LinkError) -> Self {
        match &error {
            LinkError::Postgres(inner) => Self(crate::store::session::whole_message(inner)),
            other => Self(other.to_string()),
        }
    }
}

async fn open(endpoint: &Endpoint) -> Result<Link, LinkError> {
    Link::open_in_time(endpoint, async |link| Ok(link)).await
}

/// Looks at the log of a database, and changes nothing.
///
/// # Errors
/// [`GcError`]: the database is away, or has no schema of raystream's.
pub async fn look(endpoint: &Endpoint, retention: Retention) -> Result<Survey, GcError> {
    let link = open(endpoint).await?;
    Ok(Survey { partitions: survey(&link, retention).await?, tombstones: tombstones::due(&link).await? })
}

/// Drops what is due. A partition that somebody reads or writes stays, and so does everything when a daemon is at it.
///
/// # Errors
/// As [`look`].
pub async fn collect(endpoint: &Endpoint, retention: Retention) -> Result<Collected, GcError> {
    let link = open(endpoint).await?;
    let maintained = maintain(&link, retention).await?;
    Ok(Collected { partitions: maintained.emptied, tombstones: tombstones::collect(&link).await? })
}
