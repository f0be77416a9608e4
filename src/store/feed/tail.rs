//! The statements of the tailer: the moment, and what is new at the end of the log.

use std::time::SystemTime;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{RowStream, Statement};

use super::link::LinkError;
use super::log::{Arguments, Head, Log, Range, TAIL_TYPES};
use super::window::Hours;
use crate::store::endpoint::Endpoint;

/// The moment, and what the log knows of it; the newest change is looked for in the partitions of some hours ($1, $2).
const MOMENT: &str = "SELECT pg_current_snapshot()::text, \
    (SELECT c.xid FROM raystream.changes AS c WHERE c.at >= $1 AND c.at < $2 ORDER BY c.xid DESC LIMIT 1), \
    m.horizon, m.horizon_xip, clock_timestamp() FROM raystream.meta AS m";

/// Changes of some tables ($3) that are not in one frontier ($1, $2), are in another ($4, $5), come after a place ($6, $7), and
/// lie in the partitions of some hours ($8, $9): the few at the end of the log. The two parts of the frontier are read each
/// by its own range of the index (one condition with OR would read the index from its beginning), and each change once.
/// The second part is only asked for when it is not empty.
fn tail(has_xip: bool) -> String {
    let own = "n.xid < $4 AND n.xid <> ALL ($5) AND n.at >= $8 AND n.at < $9";
    let mut rows = format!("SELECT n.* FROM raystream.changes AS n WHERE n.xid >= $1 AND {own}");
    if has_xip {
        rows +=
            &format!(" UNION ALL SELECT n.* FROM raystream.changes AS n WHERE n.xid = ANY ($2) AND {own}");
    } else {
        // The parameter is there all the same.
        rows += " AND cardinality($2) = 0";
    }
    format!(
        "SELECT c.xid, c.seq, c.last, c.ptr, c.id, c.op, c.version, c.before, c.after FROM ( \
             SELECT r.*, max(r.seq) OVER (PARTITION BY r.xid) AS last FROM ({rows}) AS r) AS c \
         WHERE c.ptr = ANY ($3) AND (c.last, c.seq) > ($6, $7) ORDER BY c.last, c.seq"
    )
}

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
        let types: Vec<Type> = TAIL_TYPES.into_iter().chain([Type::TIMESTAMPTZ, Type::TIMESTAMPTZ]).collect();
        let moment = client.prepare(MOMENT).await?;
        let plain = client.prepare_typed(&tail(false), &types).await?;
        let whole = client.prepare_typed(&tail(true), &types).await?;
        Ok(Self { log, moment, plain, whole })
    }

    /// The moment of the transaction, with the time of the server.
    pub(super) async fn moment(&self, hours: Hours) -> Result<(Head, SystemTime), LinkError> {
        let row = self.log.link.client.query_one(&self.moment, &[&hours.0, &hours.1]).await?;
        Ok((Head::of(&row)?, row.try_get(4)?))
    }

    /// The changes of a range, in the order of the feed.
    pub(super) async fn read(&self, range: Range<'_>, hours: Hours) -> Result<RowStream, LinkError> {
        let statement = if range.from.xip().is_empty() { &self.plain } else { &self.whole };
        let arguments = Arguments::of(range);
        let hours: [&(dyn ToSql + Sync); 2] = [&hours.0, &hours.1];
        let arguments: Vec<_> = arguments.each().into_iter().chain(hours).collect();
        Ok(self.log.link.client.query_raw(statement, arguments).await?)
    }
}
