//! The change feed: who wrote what, in order, to everybody who listens, with nothing lost and nothing doubled.
//!
//! Every write puts its changes into the log `raystream.changes` in its own transaction. The feed reads the log.
//!
//! # Order
//! The log is cut into *batches* by the moments (MVCC snapshots) of the reads: batch k has the changes of the
//! transactions that had ended at moment k and not at moment k-1. Inside a batch transactions are in the order of their
//! largest `seq`, and the changes of one transaction in the order of `seq`. So a transaction stays whole, one that stays
//! open long holds nobody back, and the order is that of the commits wherever one transaction wrote something after it saw,
//! or overwrote, what another did: if a write of B depends on A, A had committed before. Then either A is in an earlier
//! batch; or B drew a `seq` after A had drawn all of its own, so that B's largest is greater. (Neither `seq` alone nor (`xid`, `seq`) has this property:
//! a transaction may get its id first and write a row last.)
//!
//! # Position
//! A position is a frontier, the set of transactions that a reader has; or, inside a batch, two
//! frontiers and a place between them. A cursor is a position as text. It is good on every daemon of the database.
//!
//! # The beginning of a subscription
//! The queue of a subscription is registered with the hub *before* its moment S is taken, in a transaction that also
//! reads the documents (or what was missed). Then it gives out what comes through the queue and is not in S.
//! - *Nothing is lost.* A change that is not in S committed after S was taken, hence after the registration. The tailer
//!   hands it over in a batch whose moment is later still. The tailer fixes the list of subscriptions of a batch before
//!   the batch's moment; a subscription that is not yet in the list of a read under way waits until that read's moment
//!   was taken and only then takes S, so that this batch is all in S. (See the hub.)
//! - *Nothing is doubled.* The tailer hands each change over once, across losses of the connection too: its position is
//!   inside the batch and moves with each change. What of it is in S is not given out again.
//! - *A cursor says what was given out.* One batch may straddle S: it has changes in S and others not. The cursors of
//!   this batch are made for this subscription, from S instead of the batch's own beginning.
//!
//! When the queue overruns during the read, the subscription reads on from S out of the log, and so on until it has
//! caught up. Only a live subscription can fall behind; its overflow policy says what then.
//!
//! # Falling behind
//! A full queue of policy `Block` takes nothing more. Once what it holds was given out, the subscription begins again as
//! one that resumes after the cursor of its last item, so the two arguments above hold for it: the queue is a prefix of
//! what was handed over, and the rest is in the log. `Resnapshot` begins again as one with a snapshot. `Conflate` merges
//! changes of one document and puts the merged change at the place of its last one: whatever a cursor leaves behind is
//! contained in a change after it.
//!
//! # Bounds
//! A queue that has 4,096 changes or 1 MiB of them is full, so it holds at most 1 MiB and one change, which is two documents.
//! A change is shared by all queues, and so is the message that is made of it, of 1 MiB at most. A read has two pieces
//! of 256 KiB on their way, plus one change; at most four reads run at once, and one whose subscription takes nothing
//! gives its connection up. With the tailer's, the listener's and one for short questions that is seven connections, and
//! an eighth now and then for housekeeping. The tailer holds 128 changes or an eighth of a queue, plus one change: a
//! transaction of a million rows passes through.

mod change;
mod conflate;
mod cursor;
mod filter;
mod frontier;
pub mod gc;
mod history;
mod hub;
mod keeper;
mod link;
mod listener;
mod log;
mod outlet;
mod place;
mod queue;
mod readers;
mod replay;
mod retention;
mod snapshot;
mod source;
mod start;
mod subscription;
mod tail;
mod tailer;
mod tombstones;
mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use cursor::CursorError;
use filter::Filter;
use hub::Hub;
use link::{LinkError, RETRY_AFTER};
use queue::{QueueLimits, Slot};
use readers::{Physical, Readers, refused};
use subscription::{Start, Target};

pub use change::{Change, ChangeKind, EndReason, Given, Item, SharedChange};
pub use cursor::CURSOR_LEN_MAX;
#[doc(hidden)]
pub use filter::json_contains;
pub use filter::{FILTER_DEPTH_MAX, FILTER_LEN_MAX, FILTER_VALUES_MAX};
pub use gc::Survey;
pub use history::{
    At, ChangeStream, Changes, ChangesFrom, ChangesRequest, Entry, EntryKind, Judge, Moment, Sources,
};
pub use queue::Overflow;
pub use retention::{Collected, Maintained, PartitionInfo, Retention};
pub use source::Source;
pub use subscription::Subscription;

pub(super) use cursor::{Database, after as cursor_after};
pub(super) use history::{MOMENT, MOMENT_OF_TIME, Past};
pub(super) use log::LOCK_LOG;
pub(super) use place::{LogEnd, check_cursor, cursor_of_end};
pub(super) use start::database;

use super::endpoint::Endpoint;
use super::{Json, Store, StoreError};
use crate::time::timeout;

/// How long a subscription waits for the moment of the tailer's read under way.
const MOMENT_DEADLINE: Duration = Duration::from_secs(10);

/// How a feed works.
#[derive(Debug, Clone)]
pub struct FeedOptions {
    /// How long the log is kept.
    pub retention: Retention,
    /// How many snapshots and resumes read at once; the others wait. A connection each.
    pub readers: usize,
    /// The most changes that wait in the queue of a subscription.
    pub queue_events: usize,
    /// The bytes of changes that make the queue of a subscription full. The change that makes it full may be of any size.
    pub queue_bytes: usize,
    /// How often to look into the log when nobody says that there is something: for writes outside of the daemons. While
    /// nobody listens it is looked into no more often than that.
    pub poll: Duration,
    /// Whether a subscription says its position again after it has begun: when it has caught up, and after so long
    /// without an item. `None`: only at the beginning.
    ///
    /// Without it the cursor of a table in which nothing happens falls out of the log with the changes of the others, and
    /// a resume gets a RESET that nothing made necessary.
    pub position_every: Option<Duration>,
}

impl Default for FeedOptions {
    fn default() -> Self {
        Self {
            retention: Retention::default(),
            readers: 4,
            queue_events: 4_096,
            queue_bytes: 1 << 20,
            poll: Duration::from_millis(250),
            position_every: None,
        }
    }
}

/// What to subscribe to.
#[derive(Debug, Clone)]
pub struct SubscribeRequest {
    /// The table or the topic.
    pub source: Source,
    /// Only documents, or events, that contain this (`@>`).
    pub filter: Option<Json>,
    /// Go on after this; `None` begins now.
    pub cursor: Option<String>,
    /// Begin with the documents that match now: none of a topic, whose snapshot is empty. Ignored with a cursor.
    pub snapshot: bool,
    /// What to do when the reader falls behind.
    pub overflow: Overflow,
}

/// The change feed of a database. Clones are the same feed; with the last one it stops.
#[derive(Debug, Clone)]
pub struct Feed(Arc<Running>);

/// A feed's tasks.
#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

/// What the parts of a feed share.
#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    options: FeedOptions,
    database: cursor::Database,
    hub: Hub,
    readers: Readers,
    /// Something was written here: rung by the store itself, so that the tailer is the first to run.
    wake: Arc<Notify>,
    /// Another daemon says that something was written.
    heard: Notify,
    /// The other daemons are to be told.
    outgoing: Notify,
    ready: AtomicBool,
}

impl Shared {
    fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }
}

impl Feed {
    /// Starts the feed of the database that a store was connected to. It is woken by the store's writes.
    ///
    /// # Errors
    /// As [`Feed::start`].
    pub async fn of_store(store: &Store, options: FeedOptions) -> Result<Self, StoreError> {
        Self::start_with(store.endpoint(), options, Arc::clone(&store.0.written)).await
    }

    /// Starts the feed of a database that has the store's schema. [`Feed::wake`] says that something was written.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when Postgres is not there, [`StoreError::Internal`] when the schema is not; the log
    /// says more.
    pub async fn start(endpoint: impl Into<Endpoint>, options: FeedOptions) -> Result<Self, StoreError> {
        Self::start_with(endpoint.into(), options, Arc::default()).await
    }

    async fn start_with(
        endpoint: Endpoint,
        options: FeedOptions,
        wake: Arc<Notify>,
    ) -> Result<Self, StoreError> {
        let begun = start::begin(endpoint, options, wake);
        let (shared, position) = begun.await.map_err(|error| refused("the feed did not start", &error))?;
        let shared = Arc::new(shared);
        let tasks = vec![
            tokio::spawn(tailer::follow(Arc::clone(&shared), position)),
            tokio::spawn(listener::listen(Arc::clone(&shared))),
            tokio::spawn(keeper::keep(Arc::clone(&shared))),
        ];
        Ok(Self(Arc::new(Running { shared, tasks })))
    }

    /// Says that something was written: it is read at once, and the other daemons of the database are told.
    pub fn wake(&self) {
        self.0.shared.wake.notify_one();
    }

    /// Whether the log is being followed at this moment.
    pub fn is_ready(&self) -> bool {
        self.0.shared.ready.load(Ordering::Relaxed)
    }

    /// How many subscriptions there are.
    pub fn subscriptions(&self) -> usize {
        self.0.shared.hub.subscriptions()
    }

    /// Looks after the partitions of the log now; the feed does so by itself from time to time.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Internal`]; the log says more.
    pub async fn maintain(&self) -> Result<Maintained, StoreError> {
        let done = keeper::maintain_now(&self.0.shared).await;
        done.map_err(|error| refused("the change log was not maintained", &error))
    }

    /// Stops the feed. Its subscriptions end after what is queued.
    pub fn stop(&self) {
        self.0.stop();
    }

    /// Subscribes to a table or a topic. What is written after the return is given out, whenever [`Subscription::next`] is first
    /// called.
    ///
    /// A cursor that cannot be resumed from is no error here: the first item is `Ended` with `Reset`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]: there is no such table. [`StoreError::InvalidInput`]: the filter or the cursor is none, or
    /// the policy is none for a topic. [`StoreError::Unavailable`]: Postgres is away.
    pub async fn subscribe(&self, request: SubscribeRequest) -> Result<Subscription, StoreError> {
        let shared = &self.0.shared;
        let position = request.cursor.as_deref().map(|text| cursor::decode(shared.database, text));
        if let Some(Err(CursorError::Malformed)) = position {
            return Err(StoreError::invalid("the cursor is not one of ours"));
        }
        request.source.check(request.overflow)?;
        let physical = match &request.source {
            Source::Table(name) => shared.readers.resolve(name).await?,
            Source::Topic(name) => Physical { quoted: None, table: name.log_name().into() },
        };
        let filter = match &request.filter {
            None => None,
            Some(json) if json.as_bytes().len() > FILTER_LEN_MAX => {
                return Err(StoreError::invalid(format!("the filter is longer than {FILTER_LEN_MAX} bytes")));
            }
            Some(json) => Some(Filter::new(shared.readers.canonical(json).await?)?),
        };
        let limits = QueueLimits { events: shared.options.queue_events, bytes: shared.options.queue_bytes };
        let slot = Arc::new(Slot::new(filter, request.overflow, limits));
        let away = StoreError::Unavailable { retry_after: RETRY_AFTER };
        let is_first = shared.hub.is_empty();
        let round = shared.hub.register(&physical.table, Arc::clone(&slot)).ok_or(away)?;
        if is_first {
            // What was written while nobody listened is passed over now, and not with the next write.
            shared.heard.notify_one();
        }
        let target = Arc::new(Target { physical, slot, round });
        // From here on dropping the subscription takes it out of the hub.
        let mut subscription = Subscription::new(Arc::clone(shared), Arc::clone(&target));
        let (start, cursor) = match position {
            None if request.snapshot => (Start::Snapshot, None),
            None => self.begin_now(&target).await?,
            Some(Err(error)) => (Start::Ended(EndReason::Reset(reset_text(error).to_owned())), None),
            Some(Ok(position)) => {
                let head =
                    shared.readers.head().await.map_err(|error| refused("no moment was taken", &error))?;
                match replay::lost(&head, &position) {
                    Some(reason) => (Start::Ended(EndReason::Reset(reason.to_owned())), None),
                    None => (Start::After(position), request.cursor.as_deref().map(Arc::from)),
                }
            }
        };
        subscription.begin(start, cursor);
        Ok(subscription)
    }

    /// The start of a subscription to what comes after this call.
    async fn begin_now(&self, target: &Target) -> Result<(Start, Option<Arc<str>>), StoreError> {
        let shared = &self.0.shared;
        let failed = |error: LinkError| refused("no moment was taken", &error);
        let taken = timeout(MOMENT_DEADLINE, shared.hub.moment_taken(target.round));
        taken.await.map_err(|_| failed(LinkError::TimedOut))?;
        target.slot.hold();
        let moment = shared.readers.head().await.map_err(failed)?.frontier(0);
        let cursor = cursor::at(shared.database, &moment).ok_or_else(|| failed(LinkError::TooBusy))?;
        let start = if target.slot.go_live(&moment) {
            Start::Live(moment)
        } else {
            Start::After(cursor::Position::at(moment))
        };
        Ok((start, Some(cursor)))
    }
}

/// Why a cursor of another kind or place cannot be resumed from.
fn reset_text(error: CursorError) -> &'static str {
    match error {
        CursorError::OtherDatabase => "the cursor is of another database",
        CursorError::InSnapshot => "the cursor is of a snapshot that was not complete",
        CursorError::Malformed => "the cursor is not one of ours",
    }
}

impl Running {
    fn stop(&self) {
        self.shared.hub.close();
        self.shared.set_ready(false);
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}
