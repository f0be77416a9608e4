//! A subscription: first what it reads from the table or the log, then what the hub hands over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Shared;
use super::change::{EndReason, Given, Item, SharedChange};
use super::conflate::Queued;
use super::cursor::{self, Batch, Position};
use super::frontier::Frontier;
use super::outlet::{Outlet, Piece, outlet};
use super::queue::{Overflow, Slot, Taken};
use super::readers::Physical;
use super::replay::replay;
use super::snapshot::snapshot;
use crate::time::sleep_until;

/// What is subscribed to.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) physical: Physical,
    pub(super) slot: Arc<Slot>,
    /// The read of the tailer to wait for before a moment is taken; see the hub.
    pub(super) round: u64,
}

/// Where a subscription begins.
#[derive(Debug)]
pub(super) enum Start {
    /// With the documents.
    Snapshot,
    /// With the changes after a position.
    After(Position),
    /// With what comes after a moment; the queue is live.
    Live(Frontier),
    /// Not at all.
    Ended(EndReason),
}

/// What comes next.
#[derive(Debug)]
enum Stage {
    /// A read that has not begun: it does with the first call of [`Subscription::next`].
    Waiting(Start),
    /// A read.
    Reading { pieces: mpsc::Receiver<Piece>, task: JoinHandle<()> },
    /// The queue.
    Live(Live),
    /// Nothing.
    Ended,
}

/// What a live subscription has to know for its cursors.
#[derive(Debug)]
struct Live {
    /// It has everything of this moment.
    since: Frontier,
    /// Whether the batches that come now begin after `since`, so that their own cursors fit.
    joined: bool,
    /// The batch that `since` lies inside of, as the tailer has it and from `since` on.
    straddled: Option<(Arc<Batch>, Arc<Batch>)>,
    /// The batch of the last change. The change is given out before the hub says that its batch is complete.
    begun: Option<Arc<Batch>>,
}

impl Live {
    fn new(since: Frontier) -> Self {
        Self { since, joined: false, straddled: None, begun: None }
    }

    /// Whether everything that was given out is in a frontier.
    fn is_within(&self, published: &Frontier) -> bool {
        self.since.is_within(published)
            && self.begun.as_ref().is_none_or(|batch| batch.next.is_within(published))
    }
}

/// The items of one subscription. Dropping it ends it.
#[derive(Debug)]
pub struct Subscription {
    shared: Arc<Shared>,
    target: Arc<Target>,
    stage: Stage,
    ready: VecDeque<Item>,
    /// Where a new subscription would go on after what is in `ready`.
    cursor: Option<Arc<str>>,
    /// The frontier that `cursor` names, when it names one.
    told: Option<Frontier>,
    /// When to say the position next, if ever.
    position_due: Option<Instant>,
    /// How often to say it.
    position_every: Option<Duration>,
}

impl Subscription {
    pub(super) fn new(shared: Arc<Shared>, target: Arc<Target>) -> Self {
        let position_every = shared.options.position_every;
        Self {
            shared,
            target,
            stage: Stage::Ended,
            ready: VecDeque::new(),
            cursor: None,
            told: None,
            position_due: None,
            position_every,
        }
    }

    /// What is subscribed to by its name in the log: a table that was made anew has another one.
    pub fn log_name(&self) -> &str {
        &self.target.physical.table
    }

    /// Has this subscription say its position after so long without an item, whatever the feed's option is: for a reader that
    /// keeps it, and must not lose it in a table where nothing happens.
    pub fn say_position_every(&mut self, every: Duration) {
        self.position_every = Some(every);
        self.put_position_off();
    }

    /// Sets where it begins.
    pub(super) fn begin(&mut self, start: Start, cursor: Option<Arc<str>>) {
        self.stage = match start {
            Start::Live(since) => {
                self.told = Some(since.clone());
                Stage::Live(Live::new(since))
            }
            start => Stage::Waiting(start),
        };
        if let Some(cursor) = cursor {
            self.give(Item::Position { cursor });
        }
    }

    /// Waits for items and takes them: one to `max` of them (0 counts as 1), in order, as soon as there is any. Nothing
    /// after [`Item::Ended`].
    ///
    /// What is not taken waits: a read goes no further, and the queue takes what its limits allow.
    ///
    /// Cancel-safe: a future that is dropped has taken nothing.
    pub async fn next(&mut self, max: usize) -> Vec<Item> {
        self.next_given(max).await.into_items()
    }

    /// As [`next`](Self::next), without making changes that others are given as well into items.
    pub async fn next_given(&mut self, max: usize) -> Given {
        let max = max.max(1);
        loop {
            if !self.ready.is_empty() {
                let count = max.min(self.ready.len());
                return Given::Items(self.give_out(count));
            }
            match &mut self.stage {
                Stage::Ended => return Given::Items(Vec::new()),
                Stage::Waiting(_) => self.start(),
                Stage::Reading { pieces, .. } => {
                    let piece = pieces.recv().await;
                    self.take_piece(piece);
                }
                Stage::Live(_) => {
                    if let Some(changes) = self.live(max).await {
                        return Given::Changes(changes);
                    }
                }
            }
        }
    }

    /// Takes items out of `ready`, and says of each change how many wait behind it.
    fn give_out(&mut self, count: usize) -> Vec<Item> {
        let is_change = |item: &Item| matches!(item, Item::Snapshot(_) | Item::Event(_));
        let mut items: Vec<Item> = self.ready.drain(..count).collect();
        let mut behind =
            self.target.slot.waiting() + self.ready.iter().filter(|item| is_change(item)).count();
        for item in items.iter_mut().rev() {
            if let Item::Snapshot(change) | Item::Event(change) = item {
                change.lag = u32::try_from(behind).unwrap_or(u32::MAX);
                behind += 1;
            }
        }
        items
    }

    /// The queue was full and is empty: goes on by the policy.
    fn catch_up(&mut self) {
        if self.target.slot.overflow() == Overflow::Resnapshot {
            self.stage = Stage::Waiting(Start::Snapshot);
            return;
        }
        let position = self.cursor.as_deref().map(|text| cursor::decode(self.shared.database, text));
        match position {
            Some(Ok(position)) => self.stage = Stage::Waiting(Start::After(position)),
            // A live subscription has said a position that can be resumed from.
            _ => self.end(EndReason::Lagged),
        }
    }

    /// Begins the read that waits.
    fn start(&mut self) {
        let Stage::Waiting(start) = std::mem::replace(&mut self.stage, Stage::Ended) else { return };
        let (shared, target) = (Arc::clone(&self.shared), Arc::clone(&self.target));
        match start {
            Start::Snapshot => self.read(|outlet| tokio::spawn(snapshot(shared, target, outlet))),
            Start::After(position) => {
                self.read(|outlet| tokio::spawn(replay(shared, target, position, outlet)));
            }
            Start::Live(since) => self.stage = Stage::Live(Live::new(since)),
            Start::Ended(reason) => self.end(reason),
        }
    }

    fn read(&mut self, spawn: impl FnOnce(Outlet) -> JoinHandle<()>) {
        let (outlet, pieces) = outlet();
        self.stage = Stage::Reading { pieces, task: spawn(outlet) };
    }

    fn take_piece(&mut self, piece: Option<Piece>) {
        match piece {
            Some(Piece::Items(items)) => {
                items.into_iter().for_each(|item| self.give(item));
                self.put_position_off();
            }
            Some(Piece::Done(moment)) if self.target.slot.go_live(&moment) => {
                // The read says its end by an option of the feed only.
                self.told = self.shared.options.position_every.map(|_| moment.clone());
                self.stage = Stage::Live(Live::new(moment));
            }
            // The queue overran during the read: what it let go is in the log.
            Some(Piece::Done(moment)) => {
                self.stage = Stage::Waiting(Start::After(Position::at(moment)));
            }
            Some(Piece::Ended(reason)) => self.end(reason),
            None => {
                // The reader ends with a piece, so it was stopped from outside: the runtime shuts down.
                let reason = self.target.slot.ended().unwrap_or(EndReason::Unavailable);
                self.end(reason);
            }
        }
    }

    /// Waits for the queue. What it has is given, or put into `ready` when it is not what everybody is given.
    async fn live(&mut self, max: usize) -> Option<Vec<SharedChange>> {
        match self.target.slot.take(max) {
            Taken::Changes(changes, dropped) => {
                self.put_position_off();
                if self.gives_as_logged(&changes, dropped) {
                    return Some(self.share(changes));
                }
                for queued in changes {
                    self.event(&queued, dropped);
                }
                return None;
            }
            Taken::Ended(reason) => {
                self.end(reason);
                return None;
            }
            Taken::Behind => {
                self.catch_up();
                return None;
            }
            Taken::Empty => {}
        }
        let ready = self.target.slot.ready.notified();
        tokio::select! {
            () = ready => {}
            () = reached(self.position_due) => self.say_position(),
        }
        None
    }

    /// Whether these changes go out as the log has them: none stands for several, none was lost before them, and the log's
    /// own cursors fit.
    fn gives_as_logged(&self, changes: &[Queued], dropped: u64) -> bool {
        let (Stage::Live(live), Some(first)) = (&self.stage, changes.first()) else { return false };
        dropped == 0
            && (live.joined || live.since.is_within(&first.record.batch.base))
            && changes.iter().all(Queued::is_single)
    }

    /// Gives out changes that [`gives_as_logged`](Self::gives_as_logged), as [`event`](Self::event) would.
    fn share(&mut self, changes: Vec<Queued>) -> Vec<SharedChange> {
        let Stage::Live(live) = &mut self.stage else { return Vec::new() };
        live.joined = true;
        if let Some(last) = changes.last() {
            live.begun = Some(Arc::clone(&last.record.batch));
            self.cursor = Some(last.record.cursor());
        }
        self.told = None;
        let mut behind = self.target.slot.waiting() + changes.len();
        let share = |Queued { record, kind, .. }| {
            behind -= 1;
            SharedChange { record, kind, lag: u32::try_from(behind).unwrap_or(u32::MAX) }
        };
        changes.into_iter().map(share).collect()
    }

    /// Gives a change out, with a cursor that says what this subscription has.
    fn event(&mut self, queued: &Queued, dropped: u64) {
        let Stage::Live(live) = &mut self.stage else { return };
        let record = &queued.record;
        let batch = &record.batch;
        live.joined = live.joined || live.since.is_within(&batch.base);
        if live.begun.as_ref().is_none_or(|begun| !Arc::ptr_eq(begun, batch)) {
            live.begun = Some(Arc::clone(batch));
        }
        let cursor = if live.joined {
            record.cursor()
        } else {
            // The batch began before our moment and ended after it, so of its changes we have more than those up to this
            // one: our cursor counts from our moment.
            let own = match &live.straddled {
                Some((theirs, own)) if Arc::ptr_eq(theirs, batch) => Arc::clone(own),
                _ => {
                    let Some(own) = Batch::new(self.shared.database, live.since.clone(), batch.next.clone())
                        .map(Arc::new)
                    else {
                        tracing::warn!("too many transactions are running to name them in a cursor");
                        return self.end(EndReason::Unavailable);
                    };
                    live.straddled = Some((Arc::clone(batch), Arc::clone(&own)));
                    own
                }
            };
            own.cursor(record.last, record.seq)
        };
        let change = queued.change(cursor, dropped);
        self.told = None;
        self.give(Item::Event(change));
    }

    /// Says up to where there was nothing, when that is news.
    fn say_position(&mut self) {
        self.put_position_off();
        // In this order: what was published up to `published` was queued before, so with an empty queue it was given out.
        let published = self.shared.hub.published();
        let Stage::Live(live) = &self.stage else { return };
        let news = self.told.as_ref() != Some(&published) && live.is_within(&published);
        if !news || !self.target.slot.is_drained() {
            return;
        }
        if let Some(cursor) = cursor::at(self.shared.database, &published) {
            self.told = Some(published);
            self.give(Item::Position { cursor });
        }
    }

    fn give(&mut self, item: Item) {
        match &item {
            Item::Event(change) => self.cursor = Some(Arc::clone(&change.cursor)),
            Item::Position { cursor } | Item::SnapshotEnd { cursor } => {
                self.cursor = Some(Arc::clone(cursor))
            }
            Item::Snapshot(_) | Item::Ended { .. } => {}
        }
        if !matches!(item, Item::Event(_)) {
            self.put_position_off();
        }
        self.ready.push_back(item);
    }

    fn put_position_off(&mut self) {
        self.position_due = self.position_every.map(|every| Instant::now() + every);
    }

    fn end(&mut self, reason: EndReason) {
        self.stop_reading();
        // Before the end of a snapshot there is a cursor, but nothing to resume from.
        let cursor = self.cursor.take().filter(|cursor| {
            let resumable = cursor::decode(self.shared.database, cursor).is_ok();
            resumable && !matches!(reason, EndReason::Reset(_) | EndReason::TableDropped)
        });
        self.stage = Stage::Ended;
        self.ready.push_back(Item::Ended { reason, cursor });
    }

    fn stop_reading(&mut self) {
        if let Stage::Reading { task, .. } = &self.stage {
            task.abort();
        }
    }
}

/// Waits for a moment, or for ever.
async fn reached(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.stop_reading();
        self.shared.hub.unregister(&self.target.physical.table, &self.target.slot);
    }
}
