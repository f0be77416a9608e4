//! Partitions of the change log: made ahead of time, one for each hour, and dropped whole when they are old or the log
//! is large.
//!
//! A partition goes in two steps. First, in one transaction, it is locked against everybody, the horizon is moved beyond
//! what it holds, and it is emptied. The lock waits for every transaction that wrote there, so all that goes has ended:
//! therefore the horizon names the transactions that run now as not lost, and a cursor from the time of a long
//! transaction stays good. Then the empty table is dropped, which needs a short lock on the whole log; where that is not
//! to be had, next time.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::frontier::{Frontier, Snapshot, Xid};
use super::link::{Link, LinkError};

/// How long the log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// A partition goes when its newest change is older.
    pub max_age: Duration,
    /// The oldest partitions go while the log has more bytes than this. The partition of the current hour stays, so one
    /// hour of writes is always kept.
    pub max_bytes: u64,
}

impl Default for Retention {
    /// A day: a client that was off over night resumes. 4 GiB: a share of a small machine's disk.
    fn default() -> Self {
        Self { max_age: Duration::from_secs(24 * 60 * 60), max_bytes: 4 << 30 }
    }
}

/// What a round of maintenance did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Maintained {
    /// Partitions that were made.
    pub made: usize,
    /// Partitions whose changes were taken out of the log.
    pub emptied: usize,
}

/// One daemon at a time does this; the others have nothing to do. The key is "raystrm" in ASCII, and the number 1.
const ONE_AT_A_TIME: &str = "SELECT pg_try_advisory_lock(8242002329846574337)";

/// The end of the turn. The end of the session would do it too, but Postgres may take its time with that.
const NEXT_ONE: &str = "SELECT pg_advisory_unlock(8242002329846574337)";

/// Hours of which there is no partition yet, from now on to some hours ahead: a daemon that is down for less finds its
/// partitions ready, and a write by psql meanwhile has one.
const MISSING: &str = "SELECT 'changes_' || to_char(h, 'YYYYMMDDHH24'), h::text, (h + interval '1 hour')::text \
    FROM generate_series(date_trunc('hour', now()), now() + interval '6 hours', interval '1 hour') AS h \
    WHERE to_regclass('raystream.changes_' || to_char(h, 'YYYYMMDDHH24')) IS NULL ORDER BY h";

/// The partitions from the oldest on: name, bytes, whether it can get no more changes, whether it is older than $1
/// seconds. The default partition counts as the newest.
const PARTITIONS: &str = "SELECT p.name, pg_total_relation_size(p.oid), coalesce(p.ends <= now(), false), \
        coalesce(p.ends <= now() - make_interval(secs => $1), false) \
    FROM (SELECT c.oid, c.relname::text AS name, CASE WHEN c.relname ~ '^changes_[0-9]{10}$' \
            THEN to_timestamp(substr(c.relname, 9), 'YYYYMMDDHH24') + interval '1 hour' END AS ends \
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid \
        WHERE i.inhparent = 'raystream.changes'::regclass) AS p ORDER BY p.ends NULLS LAST";

/// The partition for what no other one takes.
const DEFAULT: &str = "changes_default";

/// Begins a step. Those who wait for our lock wait at most this long; we try again in the next round.
const BEGIN: &str = "BEGIN; SET LOCAL lock_timeout = '200ms'";

/// A partition of the log.
struct Partition {
    name: String,
    bytes: u64,
    past: bool,
    expired: bool,
}

/// Makes and drops what is due.
pub(super) async fn maintain(link: &Link, retention: Retention) -> Result<Maintained, LinkError> {
    let mine: bool = link.client.query_typed_one(ONE_AT_A_TIME, &[]).await?.try_get(0)?;
    if !mine {
        return Ok(Maintained::default());
    }
    let made = make(link).await?;
    let emptied = collect(link, retention).await?;
    link.client.batch_execute(NEXT_ONE).await?;
    Ok(Maintained { made, emptied })
}

async fn make(link: &Link) -> Result<usize, LinkError> {
    let mut made = 0;
    for row in link.client.query_typed(MISSING, &[]).await? {
        let (name, from, to): (&str, &str, &str) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        // A table that is attached keeps nobody from writing; one that is made as a partition does.
        let statement = format!(
            "{BEGIN}; CREATE TABLE raystream.{name} (LIKE raystream.changes); \
             ALTER TABLE raystream.changes ATTACH PARTITION raystream.{name} FOR VALUES FROM ('{from}') TO ('{to}'); \
             COMMIT"
        );
        match attempt(link, &statement).await? {
            true => made += 1,
            // Changes of this hour are in the default partition already, or somebody holds it: the net is there for it.
            false => tracing::debug!(partition = name, "a partition of the change log was not made"),
        }
    }
    Ok(made)
}

/// The partitions from the oldest on.
async fn partitions(link: &Link, age: f64) -> Result<Vec<Partition>, LinkError> {
    let rows = link.client.query_typed(PARTITIONS, &[(&age, Type::FLOAT8)]).await?;
    let mut partitions = Vec::with_capacity(rows.len());
    for row in rows {
        let bytes: i64 = row.try_get(1)?;
        partitions.push(Partition {
            name: row.try_get(0)?,
            bytes: u64::try_from(bytes).unwrap_or(0),
            past: row.try_get(2)?,
            expired: row.try_get(3)?,
        });
    }
    Ok(partitions)
}

/// A partition of the change log, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Its name, which has its hour in UTC; or that of the one for what no other takes.
    pub name: String,
    /// Its bytes on the disk, with its indexes.
    pub bytes: u64,
    /// Whether retention would drop it now.
    pub is_due: bool,
}

/// What was collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Partitions of the log.
    pub partitions: usize,
    /// Tombstones.
    pub tombstones: u64,
}

/// What [`maintain`] would drop.
pub(super) async fn survey(link: &Link, retention: Retention) -> Result<Vec<PartitionInfo>, LinkError> {
    let age = retention.max_age.as_secs_f64();
    let partitions = partitions(link, age).await?;
    let mut whole: u64 = partitions.iter().map(|partition| partition.bytes).sum();
    let mut infos = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let is_due = is_due(link, &partition, retention, whole).await?;
        if is_due {
            whole = whole.saturating_sub(partition.bytes);
        }
        infos.push(PartitionInfo { name: partition.name, bytes: partition.bytes, is_due });
    }
    Ok(infos)
}

/// Whether a partition goes while the log has `whole` bytes.
async fn is_due(
    link: &Link,
    partition: &Partition,
    retention: Retention,
    whole: u64,
) -> Result<bool, LinkError> {
    if partition.name == DEFAULT {
        return default_expired(link, retention.max_age.as_secs_f64()).await;
    }
    Ok(partition.past && (partition.expired || whole > retention.max_bytes))
}

async fn collect(link: &Link, retention: Retention) -> Result<usize, LinkError> {
    let partitions = partitions(link, retention.max_age.as_secs_f64()).await?;
    let mut whole: u64 = partitions.iter().map(|partition| partition.bytes).sum();
    let mut emptied = 0;
    for partition in partitions {
        if is_due(link, &partition, retention, whole).await? && empty(link, &partition.name).await? {
            emptied += 1;
            whole = whole.saturating_sub(partition.bytes);
            tracing::info!(partition = partition.name, bytes = partition.bytes, "changes left the log");
            if partition.name != DEFAULT {
                let statement = format!("{BEGIN}; DROP TABLE raystream.{}; COMMIT", partition.name);
                attempt(link, &statement).await?;
            }
        }
    }
    Ok(emptied)
}

/// Whether the default partition has changes, and all of them are old.
async fn default_expired(link: &Link, age: f64) -> Result<bool, LinkError> {
    const NEWEST: &str =
        "SELECT coalesce(max(at) <= now() - make_interval(secs => $1), false) FROM raystream.changes_default";
    Ok(link.client.query_typed_one(NEWEST, &[(&age, Type::FLOAT8)]).await?.try_get(0)?)
}

/// Takes the changes of a partition out of the log. `false` when somebody works with it.
async fn empty(link: &Link, name: &str) -> Result<bool, LinkError> {
    let lock = format!("{BEGIN}; LOCK TABLE raystream.{name} IN ACCESS EXCLUSIVE MODE");
    if !attempt(link, &lock).await? {
        return Ok(false);
    }
    let emptied = async {
        let newest = format!("SELECT c.xid FROM raystream.{name} AS c ORDER BY c.xid DESC LIMIT 1");
        if let Some(row) = link.client.query_typed_opt(&newest, &[]).await? {
            let Xid(newest) = row.try_get(0)?;
            move_horizon(link, newest + 1, &last_time(name)).await?;
        }
        link.client.batch_execute(&format!("TRUNCATE raystream.{name}; COMMIT")).await?;
        Ok::<_, LinkError>(())
    };
    match emptied.await {
        Ok(()) => Ok(true),
        Err(error) => {
            link.client.batch_execute("ROLLBACK").await?;
            Err(error)
        }
    }
}

/// An expression for a time that no change of a partition is later than.
fn last_time(name: &str) -> String {
    match name.strip_prefix("changes_").filter(|hour| hour.bytes().all(|byte| byte.is_ascii_digit())) {
        Some(hour) => format!("to_timestamp('{hour}', 'YYYYMMDDHH24') + interval '1 hour'"),
        None => format!("(SELECT max(c.at) FROM raystream.{name} AS c)"),
    }
}

/// Moves the horizon to at least `xmax`, and its time to at least `time`.
async fn move_horizon(link: &Link, xmax: u64, time: &str) -> Result<(), LinkError> {
    const READ: &str = "SELECT m.horizon, pg_current_snapshot()::text FROM raystream.meta AS m";
    let row = link.client.query_typed_one(READ, &[]).await?;
    let Xid(horizon) = row.try_get(0)?;
    let snapshot = Snapshot::parse(row.try_get(1)?).ok_or(LinkError::Odd("an unknown form of snapshot"))?;
    let moved: Frontier = snapshot.clamp(horizon.max(xmax));
    let arguments = [(&Xid(moved.xmax()) as _, Type::XID8), (&moved.xip_sql() as _, Type::XID8_ARRAY)];
    let write = format!(
        "UPDATE raystream.meta SET horizon = $1, horizon_xip = $2, horizon_at = greatest(horizon_at, {time})"
    );
    link.client.query_typed(&write, &arguments).await?;
    Ok(())
}

/// Runs statements that begin a transaction. `false`, with everything rolled back, when a lock was not to be had or what
/// is to be made is there.
async fn attempt(link: &Link, statements: &str) -> Result<bool, LinkError> {
    const PASSING: [SqlState; 5] = [
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::CHECK_VIOLATION,
        SqlState::DUPLICATE_TABLE,
        SqlState::UNDEFINED_TABLE,
    ];
    let Err(error) = link.client.batch_execute(statements).await else { return Ok(true) };
    link.client.batch_execute("ROLLBACK").await?;
    if error.code().is_some_and(|code| PASSING.contains(code)) {
        return Ok(false);
    }
    Err(error.into())
}
