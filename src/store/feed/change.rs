//! Changes: as the log has them, and as a subscription gives them out.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use super::cursor::Batch;
use crate::store::Json;

/// What a change did to a document, judged against the subscription's filter before and after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// Not a change: the document as the snapshot has it.
    Snapshot,
    /// A new document.
    Insert,
    /// The document matched before and matches still.
    Update,
    /// The document is gone.
    Delete,
    /// The document did not match before and does now.
    Enter,
    /// The document matched before and does no longer.
    Leave,
    /// Not a change: an event that was published to a topic.
    Publish,
}

/// One document of a snapshot, or one change.
///
/// An image that does not match the filter is never given out: a document that leaves has no `data`, and one that
/// enters has no `old`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where to resume after this change. The cursor of a document of a snapshot only gives a RESET.
    pub cursor: Arc<str>,
    /// What happened.
    pub kind: ChangeKind,
    /// The id of the document, or of the event.
    pub id: Arc<str>,
    /// The document after the change, or the event.
    pub data: Option<Json>,
    /// The document before the change.
    pub old: Option<Json>,
    /// The document's version; of a deleted one, the version that the delete has; of an event, 0.
    pub version: i64,
    /// How many changes this subscription has lost so far to the overflow policies `DropOldest` and `Resnapshot`, or got
    /// as part of another one by `Conflate`.
    pub dropped: u64,
    /// How many changes waited behind this one when it was given out; those that are still to be read from the log or the
    /// table are not counted.
    pub lag: u32,
}

/// A [`Change`] that differs between subscriptions in its kind and its `lag` alone: it is what the log says, with the log's
/// own cursor, and nothing was lost before it. Most changes are, and most who take one need no [`Change`] of their own.
#[derive(Debug, Clone)]
pub struct SharedChange {
    pub(super) record: Arc<Record>,
    pub(super) kind: ChangeKind,
    /// As [`Change::lag`].
    pub lag: u32,
}

impl SharedChange {
    /// What `make` makes of this change, once for all subscriptions to which it is given with the same kind; `lag` is to be
    /// left aside. `None` when it is given to nobody else.
    pub fn once<T: Any + Send + Sync>(&self, make: impl FnOnce(Change) -> T) -> Option<&T> {
        let record = &self.record;
        if record.made.get().is_none() && Arc::strong_count(record) == 1 {
            // Nobody else waits for it.
            return None;
        }
        let (kind, made) = record.made.get_or_init(|| (self.kind, Box::new(make(self.to_change()))));
        made.downcast_ref().filter(|_| *kind == self.kind)
    }

    /// The change by itself.
    #[must_use]
    pub fn to_change(&self) -> Change {
        Change { lag: self.lag, ..self.record.change(self.kind, self.record.cursor(), 0) }
    }
}

/// What a subscription gives out together.
#[derive(Debug)]
pub enum Given {
    /// Items of any kind, in order.
    Items(Vec<Item>),
    /// Changes, in order.
    Changes(Vec<SharedChange>),
}

impl Given {
    /// All of them as items.
    #[must_use]
    pub fn into_items(self) -> Vec<Item> {
        match self {
            Self::Items(items) => items,
            Self::Changes(changes) => changes.iter().map(|change| Item::Event(change.to_change())).collect(),
        }
    }
}

/// What a subscription gives out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Everything up to here was given out. It is the first item; whether it comes again later is an option of the feed
    /// ([`FeedOptions::position_every`](super::FeedOptions::position_every)).
    Position {
        /// Where to resume. Before a snapshot it only gives a RESET.
        cursor: Arc<str>,
    },
    /// A document of the snapshot.
    Snapshot(Change),
    /// The snapshot is complete.
    SnapshotEnd {
        /// Where to resume.
        cursor: Arc<str>,
    },
    /// A change.
    Event(Change),
    /// The last item.
    Ended {
        /// Why.
        reason: EndReason,
        /// Where a new subscription goes on without a loss; `None` when it has to start with a snapshot.
        cursor: Option<Arc<str>>,
    },
}

/// Why a subscription ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndReason {
    /// It did not take its items in time.
    Lagged,
    /// The cursor cannot be resumed from; the text says why, in our own words. Start again with a snapshot.
    Reset(String),
    /// The table was dropped.
    TableDropped,
    /// The database was lost in the middle of the snapshot. Start again.
    Unavailable,
    /// The feed was stopped.
    ShuttingDown,
}

/// What the log says was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Insert,
    Update,
    Delete,
    /// An event of a topic: it has an image `after` only.
    Publish,
}

/// A change as the log has it. One, shared by all subscriptions.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) batch: Arc<Batch>,
    pub(super) xid: u64,
    /// The largest seq of its transaction.
    pub(super) last: i64,
    pub(super) seq: i64,
    pub(super) op: Op,
    pub(super) id: Arc<str>,
    pub(super) version: i64,
    pub(super) before: Option<Json>,
    pub(super) after: Option<Json>,
    cursor: OnceLock<Arc<str>>,
    /// What somebody made of it, as a change of this kind and with the cursor above.
    made: OnceLock<(ChangeKind, Box<dyn Any + Send + Sync>)>,
}

/// What a queued record costs besides its texts: the structs, the cursor, the places in queues.
const OVERHEAD: usize = 256;

impl Record {
    #[expect(clippy::too_many_arguments, reason = "the columns of the log")]
    pub(super) fn new(
        batch: Arc<Batch>,
        xid: u64,
        last: i64,
        seq: i64,
        op: Op,
        id: Arc<str>,
        version: i64,
        before: Option<Json>,
        after: Option<Json>,
    ) -> Self {
        let (cursor, made) = (OnceLock::new(), OnceLock::new());
        Self { batch, xid, last, seq, op, id, version, before, after, cursor, made }
    }

    /// The bytes that it holds. The message that is made of it is no longer, and there is one however many queues it is in.
    pub(super) fn size(&self) -> usize {
        let image = |image: &Option<Json>| image.as_ref().map_or(0, |json| json.as_bytes().len());
        OVERHEAD + self.id.len() + image(&self.before) + image(&self.after)
    }

    /// The cursor for those who have all of the batch's base. Its text is made once.
    pub(super) fn cursor(&self) -> Arc<str> {
        Arc::clone(self.cursor.get_or_init(|| self.batch.cursor(self.last, self.seq)))
    }

    /// The change as one subscription sees it.
    pub(super) fn change(&self, kind: ChangeKind, cursor: Arc<str>, dropped: u64) -> Change {
        Change {
            cursor,
            kind,
            id: Arc::clone(&self.id),
            data: self.after.clone().filter(|_| kind != ChangeKind::Leave),
            old: self.before.clone().filter(|_| kind != ChangeKind::Enter),
            version: self.version,
            dropped,
            lag: 0,
        }
    }
}
