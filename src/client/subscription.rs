//! A live subscription as a stream of items.
//!
//! # Nothing is missed, nothing comes twice
//!
//! Items wait in a local queue between the task of the connection and the consumer. The queue outlives the connection,
//! and is first in, first out: whatever follows a reconnect is delivered behind what was queued before it. So the task
//! resumes after the last item that it *queued* (subscribing with that item's cursor), and the consumer sees one unbroken
//! sequence. A consumer that wants to go on in another process stores [`Subscription::cursor`], which is the position
//! after the last item that was really *taken* from the stream; what is still queued is not counted by it.
//!
//! A snapshot cannot be resumed in its middle: its items carry the position of its start. When a connection is lost
//! inside a snapshot, the consumer gets [`Item::Reset`] and the snapshot from the beginning.
//!
//! # Backpressure
//!
//! The server sends an item only for credit. The queue and the credit that is given out are together never more than
//! [`SubscribeOptions::window`] items; taking items out of the queue gives new credit, in halves of the window.

use super::client::Handle;
use super::{Error, Json};
use crate::wire::envelope::{Event as EventMessage, EventKind, OMITTED_DATA, OMITTED_OLD, Overflow};
use bytes::Bytes;
use futures_util::Stream;
use std::{
    collections::VecDeque,
    num::NonZeroU16,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

/// Items on their way: keeps a link of 50 ms at ten thousand items a second busy, and bounds what a stalled consumer
/// holds.
const WINDOW: NonZeroU16 = NonZeroU16::new(512).expect("512 is not zero");

/// What a subscription reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The documents of a table.
    Table(String),
    /// The events of a topic.
    Topic(String),
}

/// What to subscribe to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SubscribeOptions {
    /// The table or the topic.
    pub source: Source,
    /// A JSON object; only documents, or events, that contain it count (Postgres `@>`). `None`: all.
    pub filter: Option<Json>,
    /// Go on after this position; then there is no snapshot at first.
    pub cursor: Option<String>,
    /// Whether the documents that are there come first: at the start without a cursor, and after a reset. That of a topic
    /// is empty.
    pub snapshot: bool,
    /// What the server does when this client falls behind. For a topic it refuses [`Overflow::Conflate`] and
    /// [`Overflow::Resnapshot`].
    pub overflow: Overflow,
    /// Items that may be on their way or queued here. Each may be as long as a message (1 MiB).
    pub window: NonZeroU16,
}

impl SubscribeOptions {
    /// The whole table, its snapshot first.
    pub fn new(table: impl Into<String>) -> Self {
        Self {
            source: Source::Table(table.into()),
            filter: None,
            cursor: None,
            snapshot: true,
            overflow: Overflow::Close,
            window: WINDOW,
        }
    }

    /// The events that are published to a topic from now on.
    pub fn topic(topic: impl Into<String>) -> Self {
        Self { source: Source::Topic(topic.into()), snapshot: false, ..Self::new("") }
    }
}

/// One step of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item {
    /// The subscription stands; every change after this position comes. Comes again after a resume, and from time to
    /// time while nothing happens, so that a stored position does not grow too old.
    Position {
        /// Where it starts.
        cursor: String,
    },
    /// A document that is there.
    Snapshot(Change),
    /// All documents that were there have come.
    SnapshotEnd {
        /// From here on nothing is missed.
        cursor: String,
    },
    /// A change.
    Event(Change),
    /// What came so far no longer leads to what follows: drop it. A snapshot follows if one was asked for, else changes
    /// from a new position, with a gap before it.
    Reset {
        /// Why, for a person.
        reason: String,
    },
}

/// A document, a change of one, or an event of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The position after this change.
    pub cursor: String,
    /// What happened, judged by the filter before and after.
    pub kind: EventKind,
    /// Which document, or which event.
    pub id: String,
    /// The document after the change, or the event.
    pub data: Option<Json>,
    /// The document before the change.
    pub old: Option<Json>,
    /// Its version after the change; 0 for an event.
    pub version: u64,
    /// Events of this subscription that the server dropped so far ([`Overflow::DropOldest`], [`Overflow::Resnapshot`]), or
    /// merged into a later one of the same document ([`Overflow::Conflate`]).
    pub dropped: u64,
    /// Events that waited at the server behind this one when it was sent.
    pub lag: u32,
    /// `data` or `old` is missing only because the message would have been too long: read the document.
    pub is_cut: bool,
}

impl From<EventMessage> for Change {
    fn from(event: EventMessage) -> Self {
        Self {
            cursor: event.cursor,
            kind: event.kind,
            id: event.id,
            data: event.data.map(|data: Bytes| Json::new(data)),
            old: event.old.map(|old: Bytes| Json::new(old)),
            version: event.version,
            dropped: event.dropped,
            lag: event.lag,
            is_cut: event.omitted & (OMITTED_DATA | OMITTED_OLD) != 0,
        }
    }
}

/// The queue between the task of the connection and the consumer.
#[derive(Debug)]
pub(super) struct Queue {
    window: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    /// Snapshot items and events that cost credit: those in `items`, and those that the [`Consumer`] took from there and has
    /// not settled. 0 <= `paid` <= `window`.
    paid: usize,
    /// Nothing more will be queued; the error that ended it, until it is delivered.
    end: Option<Option<Error>>,
    waker: Option<Waker>,
}

impl Queue {
    pub(super) fn new(window: NonZeroU16) -> Self {
        Self { window: usize::from(window.get()), state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Credit to give when `open` of it is still out.
    pub(super) fn room(&self, open: usize) -> usize {
        self.window.saturating_sub(self.lock().paid + open)
    }

    /// Queues items, in order: the lock is taken once for those that came together, and the consumer woken once.
    pub(super) fn push(&self, items: impl IntoIterator<Item = Item>) {
        let mut state = self.lock();
        for item in items {
            state.push(item);
        }
        state.wake();
    }

    /// What is queued, for tests.
    #[cfg(test)]
    pub(super) fn drain(&self) -> Vec<Item> {
        self.lock().items.drain(..).collect()
    }

    pub(super) fn end(&self, error: Option<Error>) {
        let mut state = self.lock();
        if state.end.is_none() {
            state.end = Some(error);
        }
        state.wake();
    }

    /// So many items that cost credit have reached the consumer.
    fn settle(&self, count: usize) {
        self.lock().paid -= count;
    }

    /// Swaps what is queued for `empty`, after so many items of what was taken before have reached the consumer.
    fn poll_take(&self, settled: usize, empty: &mut VecDeque<Item>, context: &Context<'_>) -> Poll<Taken> {
        let mut state = self.lock();
        state.paid -= settled;
        if !state.items.is_empty() {
            std::mem::swap(&mut state.items, empty);
            return Poll::Ready(Taken::Items);
        }
        match &mut state.end {
            Some(error) => Poll::Ready(Taken::End(error.take())),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// What a look into the queue found.
enum Taken {
    /// There were items.
    Items,
    /// Nothing more comes; the error that ended it, once.
    End(Option<Error>),
}

/// The consumer's end of the queue. It takes all that there is at once: the two sides share a lock, and each turn of one
/// would otherwise be a turn of the lock for each item.
#[derive(Debug)]
struct Consumer {
    queue: Arc<Queue>,
    /// Taken from the queue, and not yet by the consumer.
    items: VecDeque<Item>,
    /// Items that cost credit and that the consumer took since the queue was last told.
    unsettled: usize,
    /// The same, since the task was last told.
    untold: usize,
}

impl Consumer {
    fn new(queue: Arc<Queue>) -> Self {
        Self { queue, items: VecDeque::new(), unsettled: 0, untold: 0 }
    }

    /// The next item, and whether the task is to be told about the room.
    fn poll_pop(&mut self, context: &Context<'_>) -> Poll<(Option<Result<Item, Error>>, bool)> {
        if self.items.is_empty() {
            let settled = std::mem::take(&mut self.unsettled);
            if let Taken::End(error) = ready!(self.queue.poll_take(settled, &mut self.items, context)) {
                return Poll::Ready((error.map(Err), false));
            }
        }
        let item = self.items.pop_front();
        if matches!(item, Some(Item::Snapshot(_) | Item::Event(_))) {
            self.unsettled += 1;
            self.untold += 1;
        }
        let is_due = self.untold >= (self.queue.window / 2).max(1);
        if is_due {
            self.untold = 0;
            // What the task is told of has to be there when it looks.
            self.queue.settle(std::mem::take(&mut self.unsettled));
        }
        Poll::Ready((item.map(Ok), is_due))
    }
}

impl State {
    fn push(&mut self, item: Item) {
        match &item {
            Item::Snapshot(_) | Item::Event(_) => self.paid += 1,
            // A server that starts over again and again does not make the queue grow: of what costs no credit, nothing stays
            // that is dropped with this.
            Item::Reset { .. } => {
                while let Some(Item::Position { .. } | Item::SnapshotEnd { .. } | Item::Reset { .. }) =
                    self.items.back()
                {
                    self.items.pop_back();
                }
            }
            // Positions cost no credit: one takes the place of the other.
            Item::Position { .. } => {
                if matches!(self.items.back(), Some(Item::Position { .. })) {
                    self.items.pop_back();
                }
            }
            Item::SnapshotEnd { .. } => {}
        }
        self.items.push_back(item);
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A live subscription. Ends after an error; dropping it ends it at the server.
#[derive(Debug)]
pub struct Subscription {
    id: u64,
    handle: Arc<Handle>,
    consumer: Consumer,
    cursor: Option<String>,
}

/// Notes a cursor in the memory of the one before.
pub(super) fn note(place: &mut Option<String>, cursor: &str) {
    let place = place.get_or_insert_default();
    place.clear();
    place.push_str(cursor);
}

impl Subscription {
    pub(super) fn new(id: u64, handle: Arc<Handle>, queue: Arc<Queue>, cursor: Option<String>) -> Self {
        Self { id, handle, consumer: Consumer::new(queue), cursor }
    }

    /// The next item; `None` after the end. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Item, Error>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// The next item if it is here already.
    pub fn try_next(&mut self) -> Option<Result<Item, Error>> {
        match Pin::new(self).poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(item) => item,
            Poll::Pending => None,
        }
    }

    /// The position after the last item taken from this stream: subscribing with it goes on there. `None` inside a
    /// snapshot, which can only be begun again.
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    fn note(&mut self, item: &Item) {
        match item {
            Item::Position { cursor } | Item::SnapshotEnd { cursor } => note(&mut self.cursor, cursor),
            Item::Event(change) => note(&mut self.cursor, &change.cursor),
            Item::Snapshot(_) | Item::Reset { .. } => self.cursor = None,
        }
    }
}

impl Stream for Subscription {
    type Item = Result<Item, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let (item, is_due) = ready!(self.consumer.poll_pop(context));
        if is_due {
            self.handle.signals.give_credit(self.id);
        }
        if let Some(Ok(item)) = &item {
            self.note(item);
        }
        Poll::Ready(item)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.handle.signals.drop_subscription(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(n: u64) -> Change {
        Change {
            cursor: n.to_string(),
            kind: EventKind::Insert,
            id: n.to_string(),
            data: None,
            old: None,
            version: n,
            dropped: 0,
            lag: 0,
            is_cut: false,
        }
    }

    fn queue(window: NonZeroU16) -> (Arc<Queue>, Consumer) {
        let queue = Arc::new(Queue::new(window));
        (Arc::clone(&queue), Consumer::new(queue))
    }

    fn pop(consumer: &mut Consumer) -> Poll<(Option<Result<Item, Error>>, bool)> {
        consumer.poll_pop(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn room_is_given_back_in_halves_of_the_window() {
        let (queue, mut consumer) = queue(NonZeroU16::new(8).unwrap());
        assert_eq!(queue.room(0), 8);
        for n in 0..8 {
            queue.push([Item::Event(change(n))]);
        }
        queue.push([Item::SnapshotEnd { cursor: "c".into() }]);
        assert_eq!((queue.room(0), queue.room(3)), (0, 0));
        let due: Vec<_> =
            (0..8).map(|_| matches!(pop(&mut consumer), Poll::Ready((Some(Ok(_)), true)))).collect();
        assert_eq!(due, [false, false, false, true, false, false, false, true]);
        assert_eq!((queue.room(0), queue.room(3)), (8, 5));
    }

    #[test]
    fn a_window_of_one_is_told_each_time() {
        let (queue, mut consumer) = queue(NonZeroU16::MIN);
        queue.push([Item::Event(change(1))]);
        assert!(matches!(pop(&mut consumer), Poll::Ready((Some(Ok(_)), true))));
        assert_eq!(queue.room(0), 1);
    }

    #[test]
    fn what_the_consumer_has_not_taken_has_no_room_wherever_it_is() {
        let (queue, mut consumer) = queue(NonZeroU16::new(8).unwrap());
        for n in 0..6 {
            queue.push([Item::Event(change(n))]);
        }
        // All six are with the consumer's end now, and one of them was taken.
        assert!(matches!(pop(&mut consumer), Poll::Ready((Some(Ok(_)), false))));
        assert_eq!(queue.room(0), 2, "the window holds what is not settled");
        for n in 6..8 {
            queue.push([Item::Event(change(n))]);
        }
        assert_eq!(queue.room(0), 0);
        let taken: Vec<_> = (1..8)
            .map(|_| match pop(&mut consumer) {
                Poll::Ready((Some(Ok(Item::Event(change))), _)) => change.version,
                other => panic!("an event was queued, and not {other:?}"),
            })
            .collect();
        assert_eq!(taken, [1, 2, 3, 4, 5, 6, 7], "in order, over both hands");
        assert!(pop(&mut consumer).is_pending());
        assert_eq!(queue.room(0), 8);
    }

    #[test]
    fn resets_without_items_between_them_do_not_pile_up() {
        let queue = Queue::new(WINDOW);
        queue.push([Item::Event(change(1))]);
        for n in 0..1_000 {
            queue.push([Item::Position { cursor: n.to_string() }]);
            queue.push([Item::Reset { reason: n.to_string() }]);
        }
        assert_eq!(queue.lock().items.len(), 2);
        // So do empty snapshots.
        for n in 0..1_000 {
            queue.push([Item::Reset { reason: n.to_string() }]);
            queue.push([Item::SnapshotEnd { cursor: n.to_string() }]);
            queue.push([Item::Position { cursor: n.to_string() }]);
        }
        let kinds = queue.drain();
        assert!(
            matches!(
                kinds[..],
                [Item::Event(_), Item::Reset { .. }, Item::SnapshotEnd { .. }, Item::Position { .. }]
            ),
            "{kinds:?}"
        );
    }

    #[test]
    fn what_was_queued_comes_before_the_error_and_the_error_once() {
        let (queue, mut consumer) = queue(WINDOW);
        queue.push([Item::Event(change(1))]);
        queue.end(Some(Error::Closed));
        assert!(matches!(pop(&mut consumer), Poll::Ready((Some(Ok(Item::Event(_))), false))));
        assert!(matches!(pop(&mut consumer), Poll::Ready((Some(Err(Error::Closed)), false))));
        assert!(matches!(pop(&mut consumer), Poll::Ready((None, false))));
    }
}
