//! The statements that read the change log.

use std::sync::Arc;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Config, Row, RowStream, Statement};

use super::change::{Op, Record};
use super::cursor::Batch;
use super::frontier::{Frontier, Snapshot, Xid};
use super::link::{Link, LinkError};
use crate::store::Json;

/// Begins a read. The lock comes before the transaction takes its moment: retention drops a partition only under a lock
/// that conflicts with it, and moves the horizon in the same transaction. So either the read sees the new horizon, or
/// the partition stays until the read is done. Without the lock a read could miss a partition and not know.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
    LOCK TABLE raystream.changes IN ACCESS SHARE MODE";

/// Ends a read.
pub(super) const COMMIT: &str = "COMMIT";

/// The moment, and what the log knows of it.
const HEAD: &str = "SELECT pg_current_snapshot()::text, \
    (SELECT c.xid FROM raystream.changes AS c ORDER BY c.xid DESC LIMIT 1), m.horizon, m.horizon_xip \
    FROM raystream.meta AS m";

/// Changes of some tables that are not in one frontier ($1, $2), are in another ($4, $5), and come after a place ($6,
/// $7); only those of which an image contains a filter ($8).
const BATCH: &str = "WITH ended AS ( \
        SELECT t.xid, max(t.seq) AS last FROM raystream.changes AS t \
        WHERE (t.xid >= $1 OR t.xid = ANY ($2)) AND t.xid < $4 AND t.xid <> ALL ($5) GROUP BY t.xid) \
    SELECT c.xid, c.seq, e.last, c.ptr, c.id, c.op, c.version, c.before, c.after \
    FROM raystream.changes AS c JOIN ended AS e ON e.xid = c.xid \
    WHERE (c.xid >= $1 OR c.xid = ANY ($2)) AND c.ptr = ANY ($3) AND c.xid < $4 AND c.xid <> ALL ($5) \
        AND (e.last, c.seq) > ($6, $7) AND ($8 IS NULL OR c.before @> $8 OR c.after @> $8) \
    ORDER BY e.last, c.seq";

/// What [`HEAD`] answered.
#[derive(Debug)]
pub(super) struct Head {
    /// The moment.
    pub(super) snapshot: Snapshot,
    /// What retention took out of the log is in here.
    pub(super) horizon: Frontier,
    /// One above the newest transaction in the log.
    xmax: u64,
}

impl Head {
    /// The frontier of the moment. `known` is the `xmax` of a frontier that is known to be of an earlier moment.
    pub(super) fn frontier(&self, known: u64) -> Frontier {
        self.snapshot.clamp(self.xmax.max(self.horizon.xmax()).max(known))
    }
}

/// Which changes to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range<'a> {
    /// Those that are not in here,
    pub(super) from: &'a Frontier,
    /// are in here (or just visible),
    pub(super) to: Option<&'a Frontier>,
    /// come after this `last` and `seq`,
    pub(super) after: Option<(i64, i64)>,
    /// are of these physical tables,
    pub(super) tables: &'a [&'a str],
    /// and have an image that contains this.
    pub(super) filter: Option<&'a Json>,
}

/// A connection that reads the log.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) link: Link,
    head: Statement,
    batch: Statement,
}

impl Log {
    pub(super) async fn open(config: &Config) -> Result<Self, LinkError> {
        Link::open_in_time(config, Self::prepare).await
    }

    async fn prepare(link: Link) -> Result<Self, LinkError> {
        let head = link.client.prepare(HEAD).await?;
        let types = [
            Type::XID8,
            Type::XID8_ARRAY,
            Type::TEXT_ARRAY,
            Type::XID8,
            Type::XID8_ARRAY,
            Type::INT8,
            Type::INT8,
            Type::JSONB,
        ];
        let batch = link.client.prepare_typed(BATCH, &types).await?;
        Ok(Self { link, head, batch })
    }

    /// Runs a statement without arguments or result.
    pub(super) async fn run(&self, statement: &str) -> Result<(), LinkError> {
        Ok(self.link.client.batch_execute(statement).await?)
    }

    /// The moment: of the transaction, or of now outside of one.
    pub(super) async fn head(&self) -> Result<Head, LinkError> {
        let row = self.link.client.query_one(&self.head, &[]).await?;
        let snapshot =
            Snapshot::parse(row.try_get(0)?).ok_or(LinkError::Odd("an unknown form of snapshot"))?;
        let newest: Option<Xid> = row.try_get(1)?;
        let Xid(horizon) = row.try_get(2)?;
        let xip: Vec<Xid> = row.try_get(3)?;
        let horizon = Frontier::new(horizon, xip.into_iter().map(|Xid(xid)| xid).collect())
            .ok_or(LinkError::Odd("a horizon that is no frontier"))?;
        Ok(Head { snapshot, horizon, xmax: newest.map_or(0, |Xid(xid)| xid + 1) })
    }

    /// The changes of a range, in the order of the feed.
    pub(super) async fn changes(&self, range: Range<'_>) -> Result<RowStream, LinkError> {
        let from = Xid(range.from.xmax());
        let from_xip = range.from.xip_sql();
        let to = Xid(range.to.map_or(u64::MAX, Frontier::xmax));
        let to_xip = range.to.map_or_else(Vec::new, Frontier::xip_sql);
        // Sequence numbers are above zero.
        let (last, seq) = range.after.unwrap_or((0, 0));
        let arguments: [&(dyn ToSql + Sync); 8] =
            [&from, &from_xip, &range.tables, &to, &to_xip, &last, &seq, &range.filter];
        Ok(self.link.client.query_raw(&self.batch, arguments).await?)
    }
}

/// A row of [`BATCH`] as a change, with its physical table.
pub(super) fn record<'a>(row: &'a Row, batch: &Arc<Batch>) -> Result<(&'a str, Record), LinkError> {
    let Xid(xid) = row.try_get(0)?;
    let op: i8 = row.try_get(5)?;
    let op = match u8::try_from(op) {
        Ok(b'i') => Op::Insert,
        Ok(b'u') => Op::Update,
        Ok(b'd') => Op::Delete,
        _ => return Err(LinkError::Odd("an unknown operation in the log")),
    };
    let id: &str = row.try_get(4)?;
    let record = Record::new(
        Arc::clone(batch),
        xid,
        row.try_get(2)?,
        row.try_get(1)?,
        op,
        id.into(),
        row.try_get(6)?,
        row.try_get(7)?,
        row.try_get(8)?,
    );
    Ok((row.try_get(3)?, record))
}
