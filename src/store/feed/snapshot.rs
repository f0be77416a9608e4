//! The documents of a table that match a filter, all of one moment.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::future::join4;
use tokio_postgres::types::{ToSql, Type};

use super::Shared;
use super::change::{Change, ChangeKind, EndReason, Item};
use super::cursor;
use super::frontier::Frontier;
use super::link::{Backoff, LinkError};
use super::log::{self, ANSWER_DEADLINE, in_time};
use super::outlet::{Blocked, Outlet, Piece};
use super::subscription::Target;
use crate::store::Json;

/// How long a snapshot may take. As long as it is open, Postgres cleans up no row that was deleted since.
const DEADLINE: Duration = Duration::from_secs(600);

/// What an item costs besides its texts.
const OVERHEAD: usize = 128;

/// Begins the transaction and takes its moment. What comes next reads the log, whose locks would keep retention away as
/// long as the snapshot streams; the savepoint lets go of them, and the moment stays.
const BEGIN: &str =
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_current_snapshot(); SAVEPOINT head";

/// Ends the look at the log.
const LET_GO: &str = "ROLLBACK TO SAVEPOINT head";

/// What a topic has in place of a table: its snapshot is a moment and nothing else.
const NO_DOCUMENTS: &str = "(SELECT NULL::text AS id, NULL::jsonb AS data, 0::bigint AS _version, \
    NULL::xid8 AS _deleted_txid, 0::bigint AS _order WHERE false)";

/// How far a snapshot came.
enum Outcome {
    Done(Frontier),
    Ended(EndReason),
    Closed,
}

/// Streams the documents into `outlet`.
pub(super) async fn snapshot(shared: Arc<Shared>, target: Arc<Target>, mut outlet: Outlet) {
    shared.hub.moment_taken(target.round).await;
    outlet.limit(DEADLINE);
    let mut backoff = Backoff::new();
    loop {
        let mut sent = false;
        match read(&shared, &target, &mut outlet, &mut sent).await {
            Ok(Outcome::Done(moment)) => return outlet.finish(Piece::Done(moment)).await,
            Ok(Outcome::Ended(reason)) => return outlet.finish(Piece::Ended(reason)).await,
            Ok(Outcome::Closed) => return,
            Err(error) if error.is_missing_table() => {
                return outlet.finish(Piece::Ended(EndReason::TableDropped)).await;
            }
            Err(error) => {
                tracing::warn!(%error, "a snapshot was not read to the end");
                shared.readers.forget_idle();
                outlet.discard();
                if sent {
                    // A second moment cannot be joined to the documents of the first.
                    return outlet.finish(Piece::Ended(EndReason::Unavailable)).await;
                }
                backoff.pause().await;
            }
        }
    }
}

async fn read(
    shared: &Shared,
    target: &Target,
    outlet: &mut Outlet,
    sent: &mut bool,
) -> Result<Outcome, LinkError> {
    let lease = shared.readers.lease().await?;
    // Before the moment is taken: what is not in it comes after this through the queue.
    target.slot.hold();
    let reader = &lease.log;
    let head = in_time(ANSWER_DEADLINE, async {
        let (begun, head, freed, ready) =
            join4(reader.run(BEGIN), reader.head(), reader.run(LET_GO), reader.run(log::PLAN)).await;
        begun?;
        freed?;
        ready?;
        head
    });
    let moment = head.await?.frontier(0);
    let after = cursor::at(shared.database, &moment).ok_or(LinkError::TooBusy)?;
    let before = cursor::in_snapshot(shared.database);

    let filter = target.slot.filter().map(super::filter::Filter::json);
    let condition = if filter.is_some() { "AND d.data @> $1" } else { "" };
    let documents = target.physical.quoted.as_deref().unwrap_or(NO_DOCUMENTS);
    let statement = format!(
        "SELECT d.id, d.data, d._version FROM {documents} AS d WHERE d._deleted_txid IS NULL {condition} \
         ORDER BY d._order, d.id"
    );
    let arguments = filter.iter().map(|json| (*json as &(dyn ToSql + Sync), Type::JSONB));
    let rows = in_time(DEADLINE, reader.link.client.query_typed_raw(&statement, arguments)).await?;
    let mut rows = std::pin::pin!(rows);

    let mut full = outlet.add(Item::Position { cursor: Arc::clone(&before) }, OVERHEAD);
    loop {
        if full {
            *sent = true;
            match outlet.send().await {
                Ok(()) => {}
                Err(Blocked::Stalled) => return Ok(Outcome::Ended(EndReason::Lagged)),
                Err(Blocked::Closed) => return Ok(Outcome::Closed),
            }
        }
        let Some(row) = in_time(DEADLINE, rows.try_next()).await? else { break };
        let id: &str = row.try_get(0)?;
        let data: Json = row.try_get(1)?;
        let size = OVERHEAD + id.len() + data.as_bytes().len();
        let change = Change {
            cursor: Arc::clone(&before),
            kind: ChangeKind::Snapshot,
            id: id.into(),
            data: Some(data),
            old: None,
            version: row.try_get(2)?,
            dropped: 0,
            lag: 0,
        };
        full = outlet.add(Item::Snapshot(change), size);
    }
    in_time(ANSWER_DEADLINE, reader.run(log::COMMIT)).await?;
    lease.give_back();
    let _ = outlet.add(Item::SnapshotEnd { cursor: after }, OVERHEAD);
    match outlet.send().await {
        Ok(()) => Ok(Outcome::Done(moment)),
        Err(Blocked::Stalled) => Ok(Outcome::Ended(EndReason::Lagged)),
        Err(Blocked::Closed) => Ok(Outcome::Closed),
    }
}
