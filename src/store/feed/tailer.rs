//! The one reader of the log's end: it cuts the log into batches and hands them to the hub.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::future::join3;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::RowStream;

use super::Shared;
use super::change::EndReason;
use super::cursor::{Batch, Inside, Position};
use super::hub::Round;
use super::link::{Backoff, LinkError};
use super::log::{self, Head, Log, Range};
use super::replay::lost;
use super::tail::Tail;
use super::window::Window;

/// How long the moment of a batch may take. Longer means a dead connection, or a lock on the log that somebody else
/// holds.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);

/// How long the next change of a batch may take. Postgres sorts a batch before it sends the first.
const ROW_DEADLINE: Duration = Duration::from_secs(300);

/// How many changes are handed over before others on this thread have a turn.
const YIELD_EVERY: usize = 128;

/// Follows the log for ever.
pub(super) async fn follow(shared: Arc<Shared>, position: Position) {
    let mut tailer = Tailer { shared: &shared, position, batch: None, window: Window::default() };
    let mut backoff = Backoff::new();
    loop {
        // What was handed over when the connection broke is known by the position alone.
        tailer.window = Window::default();
        let error = match Tail::open(&shared.endpoint).await {
            Ok(tail) => tailer.follow(&tail, &mut backoff).await,
            Err(error) => error,
        };
        shared.set_ready(false);
        tracing::warn!(%error, "the change feed lost Postgres, connecting again");
        backoff.pause().await;
    }
}

struct Tailer<'a> {
    shared: &'a Shared,
    /// What was handed over.
    position: Position,
    /// The batch that `position` is inside of.
    batch: Option<Arc<Batch>>,
    /// Where in the log the changes after `position` can be.
    window: Window,
}

impl Tailer<'_> {
    async fn follow(&mut self, tail: &Tail, backoff: &mut Backoff) -> LinkError {
        let mut is_own = false;
        loop {
            if let Err(error) = self.round(tail).await {
                return error;
            }
            backoff.reset();
            self.shared.set_ready(true);
            if is_own {
                // After our own subscribers: to tell the others takes Postgres as long as to read what was written.
                self.shared.outgoing.notify_one();
            }
            is_own = tokio::select! {
                () = self.shared.wake.notified() => true,
                () = self.shared.heard.notified() => false,
                () = sleep(self.shared.options.poll) => false,
            };
        }
    }

    /// Hands over what is new, or the rest of a batch that was broken off.
    async fn round(&mut self, tail: &Tail) -> Result<(), LinkError> {
        let log = &tail.log;
        let hours = self.window.hours(Instant::now());
        let hub = &self.shared.hub;
        let round = hub.begin_round();
        let tables = round.tables();
        // All at once: one round trip.
        let range = Range {
            from: &self.position.base,
            to: self.position.inside.as_ref().map(|inside| &inside.next),
            after: self.position.inside.as_ref().map(|inside| (inside.last, inside.seq)),
            tables: &tables,
        };
        let rows = async {
            // Nobody listens: only the position moves on.
            if tables.is_empty() { Ok(None) } else { tail.read(range, hours).await.map(Some) }
        };
        let moment = join3(log.run(log::BEGIN), tail.moment(hours), rows);
        let (begun, head, rows) = timeout(HEAD_DEADLINE, moment).await.map_err(|_| LinkError::TimedOut)?;
        begun?;
        let (head, clock) = head?;
        let rows = rows?;
        if !self.window.is_right(clock, Instant::now()) {
            tracing::info!("the clock of Postgres was set: all of the change log is read");
            // The connection passes over the rows that nobody takes; the next round comes at once.
            self.shared.heard.notify_one();
            return commit(log).await;
        }
        if let Some(reason) = lost(&head, &self.position) {
            // The connection passes over the rows that nobody takes.
            drop(rows);
            return self.start_again(log, &head, reason).await;
        }
        let is_rest = self.batch.is_some();
        let Some(batch) = self.next_batch(&head) else {
            // They end, and then the cursors are short enough again. Until then nothing is handed over.
            return Err(LinkError::TooBusy);
        };
        round.moment_taken();
        if let Some(rows) = rows {
            self.publish(&round, &batch, rows).await?;
        }
        let next = batch.next.clone();
        self.position = Position::at(next.clone());
        self.batch = None;
        if !is_rest {
            self.window.handed_over(&head.snapshot);
        }
        hub.advance(next);
        commit(log).await
    }

    /// The batch to hand over: the broken one, or up to the moment of `head`.
    fn next_batch(&self, head: &Head) -> Option<Arc<Batch>> {
        if let Some(batch) = &self.batch {
            return Some(Arc::clone(batch));
        }
        let base = self.position.base.clone();
        let next = head.frontier(base.xmax());
        Batch::new(self.shared.database, base, next).map(Arc::new)
    }

    /// Hands the changes over, one by one as they come. The position moves with each.
    async fn publish(
        &mut self,
        round: &Round<'_>,
        batch: &Arc<Batch>,
        rows: RowStream,
    ) -> Result<(), LinkError> {
        let mut rows = std::pin::pin!(rows);
        let mut count = 0_usize;
        loop {
            let row = timeout(ROW_DEADLINE, rows.try_next()).await.map_err(|_| LinkError::TimedOut)??;
            let Some(row) = row else { return Ok(()) };
            let (table, record) = log::record(&row, batch)?;
            let (last, seq) = (record.last, record.seq);
            round.publish(table, &Arc::new(record));
            self.batch = Some(Arc::clone(batch));
            self.position.inside = Some(Inside { next: batch.next.clone(), last, seq });
            count += 1;
            if count.is_multiple_of(YIELD_EVERY) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// The log does not have what comes after the position: all who listen start again, and so does this.
    async fn start_again(&mut self, log: &Log, head: &Head, reason: &str) -> Result<(), LinkError> {
        tracing::error!(reason, "the change feed lost its place: all subscriptions are reset");
        self.shared.hub.end_all(&EndReason::Reset(reason.to_owned()));
        self.position = Position::at(head.frontier(0));
        self.batch = None;
        self.shared.hub.advance(self.position.base.clone());
        commit(log).await
    }
}

async fn commit(log: &Log) -> Result<(), LinkError> {
    timeout(HEAD_DEADLINE, log.run(log::COMMIT)).await.unwrap_or(Err(LinkError::TimedOut))
}
