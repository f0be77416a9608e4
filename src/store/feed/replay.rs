//! What a subscription missed: the changes of its table from its position up to now, out of the log.

use std::sync::Arc;

use futures_util::TryStreamExt;
use futures_util::future::join3;

use super::Shared;
use super::change::{EndReason, Item};
use super::cursor::{self, Batch, Inside, Position};
use super::filter::{Filter, Images, judge_unfiltered};
use super::frontier::Frontier;
use super::link::{Backoff, LinkError};
use super::log::{self, ANSWER_DEADLINE, Head, Log, MISSED_DEADLINE, Range, in_time};
use super::outlet::{Blocked, Outlet, Piece};
use super::subscription::Target;

/// Why a read stopped before its end.
enum Stop {
    Link(LinkError),
    Blocked(Blocked),
    Ended(EndReason),
}

impl<E: Into<LinkError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Link(error.into())
    }
}

/// Reads from `position` up to now into `outlet`. Goes on by itself after a loss of the connection: the position says
/// where.
pub(super) async fn replay(
    shared: Arc<Shared>,
    target: Arc<Target>,
    mut position: Position,
    mut outlet: Outlet,
) {
    shared.hub.moment_taken(target.round).await;
    let mut backoff = Backoff::new();
    loop {
        match read(&shared, &target, &mut position, &mut outlet).await {
            Ok(now) => return outlet.finish(Piece::Done(now)).await,
            Err(Stop::Ended(reason)) => return outlet.finish(Piece::Ended(reason)).await,
            Err(Stop::Blocked(Blocked::Closed)) => return,
            Err(Stop::Blocked(Blocked::Stalled)) => {
                // The connection is free for others until somebody takes what waits.
                if !outlet.wanted().await {
                    return;
                }
                backoff.reset();
            }
            Err(Stop::Link(error)) => {
                tracing::warn!(%error, "the change log was not read to the end, trying again");
                shared.readers.forget_idle();
                outlet.discard();
                backoff.pause().await;
            }
        }
    }
}

/// One attempt. `position` is moved with each piece that was sent.
async fn read(
    shared: &Shared,
    target: &Target,
    position: &mut Position,
    outlet: &mut Outlet,
) -> Result<Frontier, Stop> {
    let lease = shared.readers.lease().await?;
    // Before the moment is taken: what is not in it comes after this through the queue.
    target.slot.hold();
    let head = in_time(ANSWER_DEADLINE, async {
        let (begun, head, ready) =
            join3(lease.log.run(log::BEGIN), lease.log.head(), lease.log.run(log::PLAN)).await;
        begun?;
        ready?;
        head
    });
    let head = head.await?;
    if let Some(reason) = lost(&head, position) {
        return Err(Stop::Ended(EndReason::Reset(reason.to_owned())));
    }
    let database = shared.database;
    if let Some(inside) = position.inside.clone() {
        let batch = Batch::new(database, position.base.clone(), inside.next).ok_or(LinkError::TooBusy)?;
        send_batch(&lease.log, target, &Arc::new(batch), position, outlet).await?;
    }
    let now = head.frontier(position.base.xmax());
    let cursor = cursor::at(database, &now).ok_or(LinkError::TooBusy)?;
    let batch = Batch::new(database, position.base.clone(), now.clone()).ok_or(LinkError::TooBusy)?;
    send_batch(&lease.log, target, &Arc::new(batch), position, outlet).await?;
    in_time(ANSWER_DEADLINE, lease.log.run(log::COMMIT)).await?;
    lease.give_back();
    if shared.options.position_every.is_some() {
        // Says that what was missed is complete.
        let _ = outlet.add(Item::Position { cursor }, 0);
        outlet.send().await.map_err(Stop::Blocked)?;
    }
    Ok(now)
}

/// Why the log cannot give all that comes after a position.
pub(super) fn lost(head: &Head, position: &Position) -> Option<&'static str> {
    let newest = position.inside.as_ref().map_or(&position.base, |inside| &inside.next);
    if newest.xmax() > head.snapshot.xmax {
        return Some("the cursor is of a later moment than the database, which was set back");
    }
    if !head.horizon.is_within(&position.base) {
        return Some("the change log does not go back to the cursor");
    }
    None
}

/// Sends the changes of a batch after `position`, and moves it to the batch's end.
async fn send_batch(
    log: &Log,
    target: &Target,
    batch: &Arc<Batch>,
    position: &mut Position,
    outlet: &mut Outlet,
) -> Result<(), Stop> {
    let tables = [&*target.physical.table];
    let filter = target.slot.filter();
    let range = Range {
        from: &batch.base,
        to: Some(&batch.next),
        after: position.inside.as_ref().map(|inside| (inside.last, inside.seq)),
        tables: &tables,
    };
    let rows = in_time(MISSED_DEADLINE, log.missed(range, filter.map(Filter::json))).await?;
    let mut rows = std::pin::pin!(rows);
    while let Some(row) = in_time(MISSED_DEADLINE, rows.try_next()).await? {
        let (_, record) = log::record(&row, 0, batch)?;
        let kind = match filter {
            None => Some(judge_unfiltered(record.op)),
            Some(filter) => filter.judge(&Images::new(&record)),
        };
        let Some(kind) = kind else { continue };
        let event = Item::Event(record.change(kind, record.cursor(), 0));
        if outlet.add(event, record.size()) {
            outlet.send().await.map_err(Stop::Blocked)?;
            let place = Inside { next: batch.next.clone(), last: record.last, seq: record.seq };
            *position = Position { base: batch.base.clone(), inside: Some(place) };
        }
    }
    outlet.send().await.map_err(Stop::Blocked)?;
    *position = Position::at(batch.next.clone());
    Ok(())
}
