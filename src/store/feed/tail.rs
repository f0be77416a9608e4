//! The statements of the tailer: the moment, and what is new at the end of the log.

use std::time::SystemTime;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, RowStream, Statement};

use super::frontier::Xid;
use super::link::LinkError;
use super::log::{Arguments, Head, Log, Range, TAIL_TYPES};
use super::window::Hours;
use crate::store::endpoint::Endpoint;

/// The moment, and what the log knows of it; the newest change is looked for in the partitions of some hours ($1, $2).
const MOMENT: &str = "SELECT pg_current_snapshot()::text, \
    (SELECT c.xid FROM raystream.changes AS c WHERE c.at >= $1 AND c.at < $2 ORDER BY c.xid DESC LIMIT 1), \
    m.horizon, m.horizon_xip, clock_timestamp() FROM raystream.meta AS m";

/// [`MOMENT`], and behind it, in each row, a change. When there is no change it is one row without.
///
/// Changes of some tables ($5) that are not in one frontier ($3, $4), are in another ($6, $7), come after a place ($8, $9), and
/// lie in the partitions of some hours ($1, $2): the few at the end of the log. The two parts of the frontier are read each
/// by its own range of the index (one condition with OR would read the index from its beginning), and each change once.
/// The second part is only asked for when it is not empty.
///
/// One statement, so that a write is read with one answer of Postgres, and outside of a transaction: then Postgres locks the
/// partitions of the plan before it takes the statement's snapshot. So what was said of [`LOCK_LOG`](super::log::LOCK_LOG)
/// holds: whoever waited for retention sees the horizon that it moved.
fn tail(has_xip: bool) -> String {
    let own = "n.xid < $6 AND n.xid <> ALL ($7) AND n.at >= $1 AND n.at < $2";
    let mut rows = format!("SELECT n.* FROM raystream.changes AS n WHERE n.xid >= $3 AND {own}");
    if has_xip {
        rows +=
            &format!(" UNION ALL SELECT n.* FROM raystream.changes AS n WHERE n.xid = ANY ($4) AND {own}");
    } else {
        // The parameter is there all the same.
        rows += " AND cardinality($4) = 0";
    }
    format!(
        "WITH moment AS MATERIALIZED ({MOMENT}) \
         SELECT m.*, c.xid, c.seq, c.last, c.ptr, c.id, c.op, c.version, c.before, c.after \
         FROM moment AS m LEFT JOIN ( \
             SELECT r.*, max(r.seq) OVER (PARTITION BY r.xid) AS last FROM ({rows}) AS r) AS c \
         ON c.ptr = ANY ($5) AND (c.last, c.seq) > ($8, $9) ORDER BY c.last, c.seq"
    )
}

/// Columns of [`MOMENT`], before those of a change.
pub(super) const MOMENT_COLUMNS: usize = 5;

/// The tailer's connection.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) log: Log,
    moment: Statement,
    /// For a frontier without transactions that had not ended, and for one with.
    plain: Statement,
    whole: Statement,
}

impl Tail {
    pub(super) async fn open(endpoint: &Endpoint) -> Result<Self, LinkError> {
        let log = Log::open(endpoint).await?;
        let client = &log.link.client;
        let hours = [Type::TIMESTAMPTZ, Type::TIMESTAMPTZ];
        let types: Vec<Type> = hours.into_iter().chain(TAIL_TYPES).collect();
        let moment = client.prepare(MOMENT).await?;
        let plain = client.prepare_typed(&tail(false), &types).await?;
        let whole = client.prepare_typed(&tail(true), &types).await?;
        Ok(Self { log, moment, plain, whole })
    }

    /// The moment now, without changes: rows as those of [`Tail::read`] begin.
    pub(super) async fn moment(&self, hours: Hours) -> Result<RowStream, LinkError> {
        let hours: [&(dyn ToSql + Sync); 2] = [&hours.0, &hours.1];
        Ok(self.log.link.client.query_raw(&self.moment, hours).await?)
    }

    /// The moment now and the changes of a range, in the order of the feed.
    pub(super) async fn read(&self, range: Range<'_>, hours: Hours) -> Result<RowStream, LinkError> {
        let statement = if range.from.xip().is_empty() { &self.plain } else { &self.whole };
        let arguments = Arguments::of(range);
        let hours: [&(dyn ToSql + Sync); 2] = [&hours.0, &hours.1];
        let arguments: Vec<_> = hours.into_iter().chain(arguments.each()).collect();
        Ok(self.log.link.client.query_raw(statement, arguments).await?)
    }
}

/// The moment that a row begins with, and the time of the server.
pub(super) fn moment(row: &Row) -> Result<(Head, SystemTime), LinkError> {
    Ok((Head::of(row)?, row.try_get(4)?))
}

/// Whether there is a change behind the moment.
pub(super) fn has_change(row: &Row) -> Result<bool, LinkError> {
    if row.len() == MOMENT_COLUMNS {
        return Ok(false);
    }
    Ok(row.try_get::<_, Option<Xid>>(MOMENT_COLUMNS)?.is_some())
}
