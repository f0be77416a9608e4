//! Tombstones: what is left of documents that were deleted, so that one that is set again does not repeat a version.
//!
//! They go when the delete has left the log. Then no cursor that is still good lies before it, and nobody who follows the
//! table has an older version to compare with.
//!
//! And not before every transaction that does not see the delete has ended. One that still sees the document finds in the
//! tombstone that somebody was before it; without it, it would insert the document beside the one that it sees. Which
//! snapshots there are only Postgres knows: a lease may be over while its transaction is open, and batches have none.

use tokio_postgres::types::Type;

use super::frontier::Xid;
use super::link::{Link, LinkError};
use crate::store::types::TablePtr;

/// Tombstones that go in one statement: their locks are short.
const AT_ONCE: u64 = 1_000;

/// The tables of documents.
const TABLES: &str =
    "SELECT s.ptr_schema, s.ptr FROM raystream.storage AS s WHERE s.attached IS NULL ORDER BY s.ptr";

/// Which tombstones are due: those of transactions that left the log.
const DUE: &str = "d._deleted_txid < $1 AND d._deleted_txid <> ALL ($2)";

/// What left the log and is seen by all: transactions below the horizon, and below the oldest that a snapshot of another session still
/// misses. `age` counts from the next id, which is not smaller than when the snapshot of this statement was taken.
///
/// Snapshots of other roles are seen by members of `pg_read_all_stats` only; a role that writes documents by SQL in long
/// transactions, and is none of ours, is not waited for.
async fn horizon(link: &Link) -> Result<(Xid, Vec<Xid>), LinkError> {
    const READ: &str = "SELECT least(m.horizon, (pg_snapshot_xmax(pg_current_snapshot())::text::numeric - coalesce((\
            SELECT max(age(a.backend_xmin)) FROM pg_stat_activity AS a \
            WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()), 0))::text::xid8), m.horizon_xip \
        FROM raystream.meta AS m";
    let row = link.client.query_typed_one(READ, &[]).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// Runs a statement on each table, with the horizon, and adds up what it answers. A table that goes meanwhile is passed over.
async fn each(link: &Link, statement: impl Fn(&str) -> String, again: bool) -> Result<u64, LinkError> {
    let (xmax, xip) = horizon(link).await?;
    let arguments = [(&xmax as _, Type::XID8), (&xip as _, Type::XID8_ARRAY)];
    let mut sum = 0;
    for row in link.client.query_typed(TABLES, &[]).await? {
        let table = TablePtr::new(row.try_get(0)?, row.try_get(1)?);
        let statement = statement(&table.quoted());
        loop {
            let counted =
                match link.client.query_typed_one(&statement, &arguments).await.map_err(LinkError::from) {
                    Ok(row) => u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0),
                    Err(error) if error.is_missing_table() => 0,
                    Err(error) => return Err(error),
                };
            sum += counted;
            if !again || counted < AT_ONCE {
                break;
            }
        }
    }
    Ok(sum)
}

/// How many tombstones are due.
pub(super) async fn due(link: &Link) -> Result<u64, LinkError> {
    each(link, |table| format!("SELECT count(*) FROM {table} AS d WHERE {DUE}"), false).await
}

/// Removes them; answers how many. One that somebody sets again at this moment is his.
pub(super) async fn collect(link: &Link) -> Result<u64, LinkError> {
    let statement = |table: &str| {
        format!(
            "WITH gone AS (DELETE FROM {table} AS t WHERE t.id IN (SELECT d.id FROM {table} AS d WHERE {DUE} \
             LIMIT {AT_ONCE} FOR UPDATE SKIP LOCKED) RETURNING 1) SELECT count(*) FROM gone"
        )
    };
    each(link, statement, true).await
}
