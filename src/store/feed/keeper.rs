//! The housekeeping of a feed, now and then: partitions of the log, tombstones, and tables that were dropped. Replies that were kept
//! long enough go on the same round, and transactions of daemons that died.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::types::Type;

use super::Shared;
use super::change::EndReason;
use super::link::{Link, LinkError};
use super::log::in_time;
use super::retention::{Maintained, maintain};
use super::tombstones;
use crate::store::{idempotency, topics::is_topic, transactions};
use crate::time::sleep;

/// How often to look for dropped tables: a subscription to one would wait for ever.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How often to look after the partitions: they are made for hours, so a minute's delay does not count.
const MAINTAIN_EVERY: Duration = Duration::from_secs(60);

/// How long a round may take. Longer means a dead connection; the next round goes on where this one was.
const LONGEST: Duration = Duration::from_secs(600);

/// Which of some physical tables belong to a name.
const KNOWN: &str = "SELECT s.ptr FROM raystream.storage AS s WHERE s.ptr = ANY ($1)";

/// Keeps house for ever.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut maintained = Instant::now();
    loop {
        sleep(LOOK_EVERY).await;
        let due = maintained.elapsed() >= MAINTAIN_EVERY;
        if !due && shared.hub.subscriptions() == 0 {
            continue;
        }
        if due {
            maintained = Instant::now();
        }
        if let Err(error) = in_time(LONGEST, look(&shared, due)).await {
            tracing::debug!(%error, "no housekeeping of the change log this time");
        }
    }
}

async fn look(shared: &Shared, due: bool) -> Result<(), LinkError> {
    let link = Link::open_in_time(&shared.endpoint, async |link| Ok(link)).await?;
    end_dropped(shared, &link).await?;
    if due {
        maintain(&link, shared.options.retention).await?;
        collect_tombstones(&link).await?;
        drop_old_replies(&link).await?;
        transactions::drop_lapsed(&link.client).await?;
    }
    Ok(())
}

async fn drop_old_replies(link: &Link) -> Result<(), LinkError> {
    let dropped = idempotency::drop_old(&link.client).await?;
    if dropped > 0 {
        tracing::debug!(dropped, "replies of named calls were kept long enough");
    }
    Ok(())
}

/// Ends the subscriptions of tables that are no more.
async fn end_dropped(shared: &Shared, link: &Link) -> Result<(), LinkError> {
    let tables = shared.hub.tables();
    // A topic is nothing that could be dropped.
    let names: Vec<&str> = tables.iter().map(|table| &**table).filter(|name| !is_topic(name)).collect();
    let rows = link.client.query_typed(KNOWN, &[(&names, Type::TEXT_ARRAY)]).await?;
    let mut known = Vec::with_capacity(rows.len());
    for row in &rows {
        known.push(row.try_get::<_, &str>(0)?);
    }
    for table in names.into_iter().filter(|table| !known.contains(table)) {
        shared.hub.end_table(table, &EndReason::TableDropped);
    }
    Ok(())
}

/// A round of housekeeping now.
pub(super) async fn maintain_now(shared: &Shared) -> Result<Maintained, LinkError> {
    let link = Link::open_in_time(&shared.endpoint, async |link| Ok(link)).await?;
    end_dropped(shared, &link).await?;
    drop_old_replies(&link).await?;
    transactions::drop_lapsed(&link.client).await?;
    let maintained = maintain(&link, shared.options.retention).await?;
    collect_tombstones(&link).await?;
    Ok(maintained)
}

/// Tombstones become due when changes have left the log, and when a transaction that was older than their delete has ended. Those that
/// are not due cost nothing: there is an index.
async fn collect_tombstones(link: &Link) -> Result<(), LinkError> {
    let collected = tombstones::collect(link).await?;
    if collected > 0 {
        tracing::info!(collected, "tombstones of deletes that left the log are gone");
    }
    Ok(())
}
