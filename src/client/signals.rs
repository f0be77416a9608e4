//! What callers hand to the task of the connection without waiting for it: new calls, and notes from destructors and
//! polls.

use super::pending::PendingCall;
use crate::wake::{Listener, Standing};
use std::future::poll_fn;
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use std::task::{Context, Poll};

/// Notes, and a bell.
///
/// Every list is bounded by what the client has accepted: calls by the room for those that wait; a call is dropped once;
/// a call or a subscription stands in `touched` or `credit` once until the note is taken.
#[derive(Debug, Default)]
pub(super) struct Signals {
    notes: Mutex<Notes>,
    /// Rung, and not heard yet.
    bell: AtomicBool,
    /// Notes wait to be taken.
    has_notes: AtomicBool,
    /// Nobody has the client any more.
    is_abandoned: AtomicBool,
    /// The one task that listens.
    listener: Listener,
}

/// What was noted.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// New calls.
    pub(super) calls: Vec<Arc<PendingCall>>,
    /// Calls whose future was dropped before the answer.
    pub(super) dropped_calls: Vec<Arc<PendingCall>>,
    /// Subscriptions whose stream was dropped.
    pub(super) dropped_subscriptions: Vec<u64>,
    /// Subscriptions that have room for more items.
    pub(super) credit: Vec<u64>,
    /// Calls whose caller took or gave items.
    pub(super) touched: Vec<Arc<PendingCall>>,
    /// Nobody listens any more.
    is_over: bool,
}

impl Signals {
    /// Hands a call over; `false` when nobody takes it any more.
    pub(super) fn add_call(&self, call: Arc<PendingCall>) -> bool {
        self.note(|notes| {
            let is_taken = !notes.is_over;
            if is_taken {
                notes.calls.push(call);
            }
            is_taken
        })
    }

    pub(super) fn drop_call(&self, call: &Arc<PendingCall>) {
        self.note(|notes| notes.dropped_calls.push(Arc::clone(call)));
    }

    pub(super) fn drop_subscription(&self, id: u64) {
        self.note(|notes| notes.dropped_subscriptions.push(id));
    }

    pub(super) fn give_credit(&self, id: u64) {
        self.note(|notes| {
            if !notes.credit.contains(&id) {
                notes.credit.push(id);
            }
        });
    }

    pub(super) fn touch_call(&self, call: &Arc<PendingCall>) {
        self.note(|notes| {
            if !notes.touched.iter().any(|touched| Arc::ptr_eq(touched, call)) {
                notes.touched.push(Arc::clone(call));
            }
        });
    }

    fn note<T>(&self, write: impl FnOnce(&mut Notes) -> T) -> T {
        let noted = {
            let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
            self.has_notes.store(true, Ordering::Release);
            write(&mut notes)
        };
        self.ring();
        noted
    }

    /// Has the task look at the connection. What it is to find there was put there before, under a lock that the task takes
    /// after it has heard.
    pub(super) fn ring(&self) {
        // Whoever rings first wakes: what the others want is done with it.
        if !self.bell.load(Ordering::Acquire) && !self.bell.swap(true, Ordering::AcqRel) {
            self.listener.wake();
        }
    }

    /// Whether somebody's notes wait, which are to be heard before anything that is done now.
    pub(super) fn has_notes(&self) -> bool {
        self.has_notes.load(Ordering::Acquire)
    }

    /// Says that nobody has the client any more.
    pub(super) fn abandon(&self) {
        self.note(|_| self.is_abandoned.store(true, Ordering::Release));
    }

    /// Says that a command was sent.
    pub(super) fn tell(&self) {
        // By way of the notes: whoever takes them behind this has the command, and whoever took them before is rung for.
        self.note(|_| ());
    }

    /// Whether nobody has the client any more. The bell has told it.
    pub(super) fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Acquire)
    }

    /// Waits for the bell. Cancel-safe: the notes stay until they are taken.
    pub(super) async fn wait(&self) {
        let mut standing = Standing::default();
        poll_fn(|context| self.poll(&mut standing, context)).await;
    }

    /// Ready when the bell was rung and [`take`](Self::take) has not been called since. The one task that listens does so each
    /// time that it waits for anything at all, and keeps `standing`.
    pub(super) fn poll(&self, standing: &mut Standing, context: &Context<'_>) -> Poll<()> {
        if self.is_rung() {
            return Poll::Ready(());
        }
        // New: it may have been rung between the look and this.
        let is_rung = self.listener.listen(standing, context) && self.is_rung();
        if is_rung { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether the bell was rung.
    pub(super) fn is_rung(&self) -> bool {
        self.bell.load(Ordering::Acquire)
    }

    /// Swaps the notes for `taken`, which is empty and whose memory serves again.
    pub(super) fn take(&self, taken: &mut Notes) {
        // First, so that a note that is written after this rings again.
        self.bell.store(false, Ordering::Release);
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        self.has_notes.store(false, Ordering::Release);
        std::mem::swap(&mut *notes, taken);
    }

    /// Takes no more calls; gives those that nobody has taken.
    pub(super) fn close(&self) -> Vec<Arc<PendingCall>> {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = std::mem::take(&mut *notes).calls;
        notes.is_over = true;
        calls
    }
}

impl Notes {
    /// Empties what was read, and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.calls.clear();
        self.dropped_calls.clear();
        self.dropped_subscriptions.clear();
        self.credit.clear();
        self.touched.clear();
    }
}
