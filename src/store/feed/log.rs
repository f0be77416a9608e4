//! The statements that read the change log.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, RowStream, Statement};

use super::change::{Op, Record};
use super::cursor::Batch;
use super::frontier::{Frontier, Snapshot, Xid};
use super::link::{Link, LinkError};
use crate::store::Json;
use crate::store::endpoint::Endpoint;
use crate::time::timeout;

/// Holds retention back. The lock comes before the transaction takes its moment: retention drops a partition only under a lock
/// that conflicts with it, and moves the horizon in the same transaction. So either the read sees the new horizon, or
/// the partition stays until the read is done. Without the lock a read could miss a partition and not know.
pub(in crate::store) const LOCK_LOG: &str = "LOCK TABLE raystream.changes IN ACCESS SHARE MODE";

/// Begins a read, with [`LOCK_LOG`].
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
    LOCK TABLE raystream.changes IN ACCESS SHARE MODE";

/// Has the next statements of the transaction planned for their arguments, with every kind of scan: worth some
/// milliseconds where it is not known how much there is to read.
pub(super) const PLAN: &str = "SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL enable_seqscan = on";

/// Ends a read.
pub(super) const COMMIT: &str = "COMMIT";

/// The moment, and what the log knows of it.
const HEAD: &str = "SELECT pg_current_snapshot()::text, \
    (SELECT c.xid FROM raystream.changes AS c ORDER BY c.xid DESC LIMIT 1), m.horizon, m.horizon_xip \
    FROM raystream.meta AS m";

/// Changes of some tables ($3) that are not in one frontier ($1, $2), are in another ($4, $5), and come after a place
/// ($6, $7); they may be a large part of the log. Only those of which an image contains a filter ($8). What
/// other tables have in the range is read in the index alone, for the largest seq of each transaction.
const MISSED: &str = "WITH ended AS ( \
        SELECT t.xid, max(t.seq) AS last FROM raystream.changes AS t \
        WHERE (t.xid >= $1 OR t.xid = ANY ($2)) AND t.xid < $4 AND t.xid <> ALL ($5) GROUP BY t.xid) \
    SELECT c.xid, c.seq, e.last, c.ptr, c.id, c.op, c.version, c.before, c.after \
    FROM raystream.changes AS c JOIN ended AS e ON e.xid = c.xid \
    WHERE (c.xid >= $1 OR c.xid = ANY ($2)) AND c.ptr = ANY ($3) AND c.xid < $4 AND c.xid <> ALL ($5) \
        AND (e.last, c.seq) > ($6, $7) AND ($8 IS NULL OR c.before @> $8 OR c.after @> $8) \
    ORDER BY e.last, c.seq";

/// How long what is answered at once may take: a session waits half of that for a lock. Longer means a dead connection.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// How long the next change that was missed may take. Postgres sorts all of them before it sends the first.
pub(super) const MISSED_DEADLINE: Duration = Duration::from_secs(300);

/// Waits for Postgres, and not for ever: a network that is gone says nothing of it.
pub(super) async fn in_time<T, E: Into<LinkError>>(
    longest: Duration,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, LinkError> {
    match timeout(longest, answer).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(LinkError::TimedOut),
    }
}

/// The types of the arguments of a range.
pub(super) const TAIL_TYPES: [Type; 7] =
    [Type::XID8, Type::XID8_ARRAY, Type::TEXT_ARRAY, Type::XID8, Type::XID8_ARRAY, Type::INT8, Type::INT8];

/// What [`HEAD`] answered.
#[derive(Debug)]
pub(super) struct Head {
    /// The moment.
    pub(super) snapshot: Snapshot,
    /// What retention took out of the log is in here.
    pub(super) horizon: Frontier,
    /// One above the newest transaction in the log, or in the part of it that was looked at.
    pub(super) xmax: u64,
}

impl Head {
    /// Reads the first columns of a row, those of [`HEAD`].
    pub(super) fn of(row: &Row) -> Result<Self, LinkError> {
        let snapshot =
            Snapshot::parse(row.try_get(0)?).ok_or(LinkError::Odd("an unknown form of snapshot"))?;
        let newest: Option<Xid> = row.try_get(1)?;
        let Xid(horizon) = row.try_get(2)?;
        let xip: Vec<Xid> = row.try_get(3)?;
        let horizon = Frontier::new(horizon, xip.into_iter().map(|Xid(xid)| xid).collect())
            .ok_or(LinkError::Odd("a horizon that is no frontier"))?;
        Ok(Self { snapshot, horizon, xmax: newest.map_or(0, |Xid(xid)| xid + 1) })
    }

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
    /// and are of these physical tables.
    pub(super) tables: &'a [&'a str],
}

/// A connection that reads the log.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) link: Link,
    head: Statement,
}

impl Log {
    pub(super) async fn open(endpoint: &Endpoint) -> Result<Self, LinkError> {
        Link::open_in_time(endpoint, Self::prepare).await
    }

    async fn prepare(link: Link) -> Result<Self, LinkError> {
        let head = link.client.prepare(HEAD).await?;
        Ok(Self { link, head })
    }

    /// Runs a statement without arguments or result.
    pub(super) async fn run(&self, statement: &str) -> Result<(), LinkError> {
        Ok(self.link.client.batch_execute(statement).await?)
    }

    /// The moment: of the transaction, or of now outside of one.
    pub(super) async fn head(&self) -> Result<Head, LinkError> {
        Head::of(&self.link.client.query_one(&self.head, &[]).await?)
    }

    /// The changes of a range anywhere in the log, of which an image contains `filter`, in the order of the feed. Wants
    /// [`PLAN`].
    pub(super) async fn missed(
        &self,
        range: Range<'_>,
        filter: Option<&Json>,
    ) -> Result<RowStream, LinkError> {
        let arguments = Arguments::of(range);
        let typed = arguments.each().into_iter().zip(TAIL_TYPES);
        let filter: (&(dyn ToSql + Sync), Type) = (&filter, Type::JSONB);
        Ok(self.link.client.query_typed_raw(MISSED, typed.chain([filter])).await?)
    }
}

/// A range as arguments.
pub(super) struct Arguments<'a> {
    from: Xid,
    from_xip: Vec<Xid>,
    tables: &'a [&'a str],
    to: Xid,
    to_xip: Vec<Xid>,
    last: i64,
    seq: i64,
}

impl<'a> Arguments<'a> {
    pub(super) fn of(range: Range<'a>) -> Self {
        // Sequence numbers are above zero.
        let (last, seq) = range.after.unwrap_or((0, 0));
        Self {
            from: Xid(range.from.xmax()),
            from_xip: range.from.xip_sql(),
            tables: range.tables,
            to: Xid(range.to.map_or(u64::MAX, Frontier::xmax)),
            to_xip: range.to.map_or_else(Vec::new, Frontier::xip_sql),
            last,
            seq,
        }
    }

    pub(super) fn each(&self) -> [&(dyn ToSql + Sync); 7] {
        [&self.from, &self.from_xip, &self.tables, &self.to, &self.to_xip, &self.last, &self.seq]
    }
}

/// The columns of a row from `at` on, those of [`MISSED`], as a change, with its physical table.
pub(super) fn record<'a>(
    row: &'a Row,
    at: usize,
    batch: &Arc<Batch>,
) -> Result<(&'a str, Record), LinkError> {
    let Xid(xid) = row.try_get(at)?;
    let op: i8 = row.try_get(at + 5)?;
    let op = match u8::try_from(op) {
        Ok(b'i') => Op::Insert,
        Ok(b'u') => Op::Update,
        Ok(b'd') => Op::Delete,
        Ok(b'p') => Op::Publish,
        _ => return Err(LinkError::Odd("an unknown operation in the log")),
    };
    let id: &str = row.try_get(at + 4)?;
    let record = Record::new(
        Arc::clone(batch),
        xid,
        row.try_get(at + 2)?,
        row.try_get(at + 1)?,
        op,
        id.into(),
        row.try_get(at + 6)?,
        row.try_get(at + 7)?,
        row.try_get(at + 8)?,
    );
    Ok((row.try_get(at + 3)?, record))
}
