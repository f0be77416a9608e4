//! The one reader of the log's end: it cuts the log into batches and hands them to the hub.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio::time::Instant;
use tokio_postgres::{Row, RowStream};

use super::Shared;
use super::change::{EndReason, Record};
use super::cursor::{Batch, Inside, Position};
use super::hub::Round;
use super::link::{Backoff, LinkError};
use super::log::{self, Head, Range};
use super::replay::lost;
use super::tail::{self, MOMENT_COLUMNS, Tail};
use super::window::{self, Window};
use crate::time::{sleep, timeout};

/// How long the moment of a batch may take. Longer means a dead connection, or a lock on the log that somebody else
/// holds.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);

/// How long the next change of a batch may take. Postgres sorts a batch before it sends the first.
const ROW_DEADLINE: Duration = Duration::from_secs(300);

/// How many changes are handed over together at most: then others on this thread have a turn.
const TOGETHER_MAX: usize = 128;

/// What part of a subscription's queue is handed over together at most, by changes and by bytes: whoever takes what comes is
/// not overrun by one hand-over. A change that is longer by itself goes alone.
const TOGETHER_OF_QUEUE: usize = 8;

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
            is_own = self.next_round().await;
        }
    }

    /// Waits until there is something to read. Answers whether it was written here.
    ///
    /// While nobody listens a write is not read for its own sake: that would take Postgres a good part of what the write took.
    /// The position moves on with the time.
    async fn next_round(&self) -> bool {
        let mut poll = pin!(sleep(self.shared.options.poll));
        loop {
            let is_own = tokio::select! {
                () = self.shared.wake.notified() => true,
                () = self.shared.heard.notified() => false,
                () = &mut poll => return false,
            };
            if !self.shared.hub.is_empty() {
                return is_own;
            }
            if is_own {
                self.shared.outgoing.notify_one();
            }
        }
    }

    /// Hands over what is new, or the rest of a batch that was broken off.
    async fn round(&mut self, tail: &Tail) -> Result<(), LinkError> {
        let hours = self.window.hours(Instant::now());
        // Of what came while there was no connection, or for longer than is known, there may be much to sort.
        let deadline = if hours == window::ALL() { ROW_DEADLINE } else { HEAD_DEADLINE };
        let hub = &self.shared.hub;
        let round = hub.begin_round();
        let tables = round.tables();
        let range = Range {
            from: &self.position.base,
            to: self.position.inside.as_ref().map(|inside| &inside.next),
            after: self.position.inside.as_ref().map(|inside| (inside.last, inside.seq)),
            tables: &tables,
        };
        let asked = async {
            // When nobody listens, only the position moves on.
            let rows =
                if tables.is_empty() { tail.moment(hours).await } else { tail.read(range, hours).await };
            let mut rows = Box::pin(rows?);
            let first = rows.try_next().await?.ok_or(LinkError::Odd("no moment"))?;
            Ok::<_, LinkError>((first, rows))
        };
        let (first, rows) = timeout(deadline, asked).await.map_err(|_| LinkError::TimedOut)??;
        let (head, clock) = tail::moment(&first)?;
        // Where this returns the connection passes over the rows that nobody takes.
        if !self.window.is_right(clock, Instant::now()) {
            tracing::info!("the clock of Postgres was set: all of the change log is read");
            // The next round comes at once.
            self.shared.heard.notify_one();
            return Ok(());
        }
        if let Some(reason) = lost(&head, &self.position) {
            self.start_again(&head, reason);
            return Ok(());
        }
        let is_rest = self.batch.is_some();
        let Some(batch) = self.next_batch(&head) else {
            // They end, and then the cursors are short enough again. Until then nothing is handed over.
            return Err(LinkError::TooBusy);
        };
        round.moment_taken();
        if tail::has_change(&first)? {
            self.publish(&round, &batch, first, rows).await?;
        }
        let next = batch.next.clone();
        self.position = Position::at(next.clone());
        self.batch = None;
        if !is_rest {
            self.window.handed_over(&head.snapshot);
        }
        hub.advance(next);
        Ok(())
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

    /// Hands the changes over, as many together as there are, up to a bound: Postgres sends them in pieces of 8 KiB, and a
    /// subscriber who is woken for each piece is sent a record for each. The position moves with each change.
    ///
    /// After each hand-over others have a turn, so before a large change as well: those who take what comes have taken what
    /// was before it.
    async fn publish(
        &mut self,
        round: &Round<'_>,
        batch: &Arc<Batch>,
        first: Row,
        mut rows: Pin<Box<RowStream>>,
    ) -> Result<(), LinkError> {
        let mut bytes = first.raw_size_bytes();
        let mut together = vec![first];
        let options = &self.shared.options;
        let count_max = (options.queue_events / TOGETHER_OF_QUEUE).clamp(1, TOGETHER_MAX);
        let bytes_max = options.queue_bytes / TOGETHER_OF_QUEUE;
        loop {
            let row = timeout(ROW_DEADLINE, rows.try_next()).await.map_err(|_| LinkError::TimedOut)??;
            let Some(row) = row else { return self.hand_over(round, batch, &together) };
            let size = row.raw_size_bytes();
            if !together.is_empty() && bytes + size > bytes_max {
                self.hand_over(round, batch, &together)?;
                together.clear();
                bytes = 0;
                tokio::task::yield_now().await;
            }
            together.push(row);
            bytes += size;
            if together.len() >= count_max || bytes >= bytes_max {
                self.hand_over(round, batch, &together)?;
                together.clear();
                bytes = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Hands changes over, those of one table that follow each other together.
    fn hand_over(&mut self, round: &Round<'_>, batch: &Arc<Batch>, rows: &[Row]) -> Result<(), LinkError> {
        let (mut of, mut records) = ("", Vec::with_capacity(rows.len()));
        for row in rows {
            match log::record(row, MOMENT_COLUMNS, batch) {
                Ok((table, record)) => {
                    if table != of {
                        self.publish_all(round, batch, of, &mut records);
                        of = table;
                    }
                    records.push(Arc::new(record));
                }
                Err(error) => {
                    self.publish_all(round, batch, of, &mut records);
                    return Err(error);
                }
            }
        }
        self.publish_all(round, batch, of, &mut records);
        Ok(())
    }

    fn publish_all(
        &mut self,
        round: &Round<'_>,
        batch: &Arc<Batch>,
        table: &str,
        records: &mut Vec<Arc<Record>>,
    ) {
        let Some(last) = records.last() else { return };
        round.publish(table, records);
        self.batch = Some(Arc::clone(batch));
        self.position.inside = Some(Inside { next: batch.next.clone(), last: last.last, seq: last.seq });
        records.clear();
    }

    /// The log does not have what comes after the position: all who listen start again, and so does this.
    fn start_again(&mut self, head: &Head, reason: &str) {
        tracing::error!(reason, "the change feed lost its place: all subscriptions are reset");
        self.shared.hub.end_all(&EndReason::Reset(reason.to_owned()));
        self.position = Position::at(head.frontier(0));
        self.batch = None;
        self.shared.hub.advance(self.position.base.clone());
    }
}
