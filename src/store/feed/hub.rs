//! Who listens to which table, and the hand-over from the tailer to them.
//!
//! The tailer asks Postgres only for the tables that somebody listens to. It fixes that list (the view) before it takes
//! the moment of its batch, so a subscriber that comes in between is not in the view and would miss the batch. Therefore
//! each read of the tailer has a number; a subscriber gets the number of the read that is under way and takes its own
//! moment only after the moment of that read was taken. Then the batch holds nothing that the subscriber does not have,
//! and all later batches have it in their view.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::change::{EndReason, Record};
use super::filter::Images;
use super::frontier::Frontier;
use super::queue::Slot;

/// The subscriptions by physical table.
type Tables = HashMap<Arc<str>, Arc<Vec<Arc<Slot>>>>;

#[derive(Debug)]
struct State {
    tables: Tables,
    /// `tables` as the last read saw it; `None` when it has changed since.
    view: Option<Arc<Tables>>,
    /// The number of the last read that began.
    round: u64,
    /// Everything up to here was handed over.
    published: Frontier,
    closed: bool,
}

/// All subscriptions of a feed.
#[derive(Debug)]
pub(super) struct Hub {
    state: Mutex<State>,
    /// The number of the last read whose moment was taken.
    taken: watch::Sender<u64>,
}

/// A read of the tailer. When it is dropped its moment counts as taken: it publishes nothing more.
#[derive(Debug)]
pub(super) struct Round<'a> {
    hub: &'a Hub,
    number: u64,
    view: Arc<Tables>,
}

impl Hub {
    pub(super) fn new(published: Frontier) -> Self {
        let state = State { tables: HashMap::new(), view: None, round: 0, published, closed: false };
        Self { state: Mutex::new(state), taken: watch::Sender::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock leaves it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a subscription. Gives the number of the read to wait for before its moment is taken; `None` after
    /// [`Hub::close`].
    pub(super) fn register(&self, table: &Arc<str>, slot: Arc<Slot>) -> Option<u64> {
        let mut state = self.state();
        if state.closed {
            return None;
        }
        Arc::make_mut(state.tables.entry(Arc::clone(table)).or_default()).push(slot);
        state.view = None;
        Some(state.round)
    }

    /// Takes a subscription out.
    pub(super) fn unregister(&self, table: &str, slot: &Arc<Slot>) {
        let mut state = self.state();
        let Some(slots) = state.tables.get_mut(table) else { return };
        let slots = Arc::make_mut(slots);
        slots.retain(|other| !Arc::ptr_eq(other, slot));
        if slots.is_empty() {
            state.tables.remove(table);
        }
        state.view = None;
    }

    /// Waits until the moment of a read was taken.
    pub(super) async fn moment_taken(&self, number: u64) {
        let mut taken = self.taken.subscribe();
        // The sender lives as long as `self`.
        let _ = taken.wait_for(|last| *last >= number).await;
    }

    /// Begins a read.
    pub(super) fn begin_round(&self) -> Round<'_> {
        let mut state = self.state();
        state.round += 1;
        let view = match &state.view {
            Some(view) => Arc::clone(view),
            None => Arc::new(state.tables.clone()),
        };
        state.view = Some(Arc::clone(&view));
        Round { hub: self, number: state.round, view }
    }

    /// Says that everything up to here was handed over.
    pub(super) fn advance(&self, published: Frontier) {
        self.state().published = published;
    }

    /// Up to where everything was handed over.
    pub(super) fn published(&self) -> Frontier {
        self.state().published.clone()
    }

    /// Whether nobody listens.
    pub(super) fn is_empty(&self) -> bool {
        self.state().tables.is_empty()
    }

    /// How many subscriptions there are.
    pub(super) fn subscriptions(&self) -> usize {
        self.state().tables.values().map(|slots| slots.len()).sum()
    }

    /// The tables that somebody listens to.
    pub(super) fn tables(&self) -> Vec<Arc<str>> {
        self.state().tables.keys().cloned().collect()
    }

    /// Ends the subscriptions of one table.
    pub(super) fn end_table(&self, table: &str, reason: &EndReason) {
        let slots = self.state().tables.get(table).cloned();
        for slot in slots.iter().flat_map(|slots| slots.iter()) {
            slot.end(reason.clone());
        }
    }

    /// Ends all subscriptions.
    pub(super) fn end_all(&self, reason: &EndReason) {
        for table in self.tables() {
            self.end_table(&table, reason);
        }
    }

    /// Ends all subscriptions and takes no new ones.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.end_all(&EndReason::ShuttingDown);
    }
}

impl Round<'_> {
    /// The tables of this read.
    pub(super) fn tables(&self) -> Vec<&str> {
        self.view.keys().map(|table| &**table).collect()
    }

    /// Says that the moment of this read was taken.
    pub(super) fn moment_taken(&self) {
        self.hub.taken.send_if_modified(|last| {
            let newer = *last < self.number;
            *last = self.number.max(*last);
            newer
        });
    }

    /// Hands changes of a table to those who listen to it. All of them to one, and then to the next: a queue is looked up and
    /// locked once.
    pub(super) fn publish(&self, table: &str, records: &[Arc<Record>]) {
        let Some(slots) = self.view.get(table) else { return };
        let changes: Vec<_> =
            records.iter().map(|record| (Arc::clone(record), Images::new(record))).collect();
        for slot in slots.iter() {
            slot.offer(&changes);
        }
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.moment_taken();
    }
}
