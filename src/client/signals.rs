//! What callers tell the task of the connection from where they cannot wait: from a destructor, from a poll.

use futures_util::task::AtomicWaker;
use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use std::{future::poll_fn, task::Poll};

/// Notes, and a bell.
///
/// Both lists are bounded by what the client has accepted: a call is dropped once, and a subscription stands in `credit`
/// once until the note is taken.
#[derive(Debug, Default)]
pub(super) struct Signals {
    notes: Mutex<Notes>,
    /// Rung, and not heard yet.
    bell: AtomicBool,
    /// The one task that listens. It does so each time that it waits for anything at all, so this has to be cheap.
    listener: AtomicWaker,
}

/// What was noted.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Calls whose future was dropped before the answer.
    pub(super) dropped_calls: Vec<u64>,
    /// Subscriptions whose stream was dropped.
    pub(super) dropped_subscriptions: Vec<u64>,
    /// Subscriptions that have room for more items.
    pub(super) credit: Vec<u64>,
    /// Calls whose caller took or gave items.
    pub(super) streams: Vec<u64>,
}

impl Signals {
    pub(super) fn drop_call(&self, id: u64) {
        self.note(|notes| notes.dropped_calls.push(id));
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

    pub(super) fn touch_stream(&self, id: u64) {
        self.note(|notes| {
            if !notes.streams.contains(&id) {
                notes.streams.push(id);
            }
        });
    }

    fn note(&self, write: impl FnOnce(&mut Notes)) {
        write(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner));
        self.bell.store(true, Ordering::Release);
        self.listener.wake();
    }

    /// Waits for a note. Cancel-safe: the notes stay until they are taken.
    pub(super) async fn wait(&self) {
        poll_fn(|context| {
            self.listener.register(context.waker());
            if self.bell.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    pub(super) fn take(&self) -> Notes {
        std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
