//! The access rules in force, which may change while connections live.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::Access;

/// A shared, replaceable [`Access`]. Clones name the same rules.
///
/// Whoever holds a permission for longer than one call (a connection, a subscription) keeps the identity and asks again
/// after a change; it never keeps a copy of the answer.
#[derive(Debug, Clone)]
pub struct AccessHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    access: ArcSwap<Access>,
    generation: AtomicU64,
    changes: watch::Sender<u64>,
}

impl AccessHandle {
    /// The first rules, generation 0.
    pub fn new(access: Access) -> Self {
        let shared = Shared {
            access: ArcSwap::from_pointee(access),
            generation: AtomicU64::new(0),
            changes: watch::Sender::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The rules of this moment. Hold the guard for one decision, not across an await.
    pub fn load(&self) -> Guard<Arc<Access>> {
        self.shared.access.load()
    }

    /// Puts other rules in force and tells everybody who watches. Gives the new generation.
    pub fn replace(&self, access: Access) -> u64 {
        self.shared.access.store(Arc::new(access));
        // The rules are stored before the number moves: who sees the new number sees rules at least as new.
        let generation = self.shared.generation.fetch_add(1, Ordering::AcqRel) + 1;
        self.shared.changes.send_if_modified(|seen| {
            let newer = generation > *seen;
            *seen = generation.max(*seen);
            newer
        });
        generation
    }

    /// How many times the rules were replaced: a cheap way to notice a change without waiting for one.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Wakes whoever waits on it after each replacement.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Principal, authorise_connection};
    use super::*;

    #[tokio::test]
    async fn a_replacement_is_seen_by_every_clone_and_wakes_who_waits() {
        let handle = AccessHandle::new(Access::nothing());
        let clone = handle.clone();
        let mut changes = clone.changes();
        assert!(authorise_connection(&clone.load(), &Principal::anonymous()).is_err());
        assert_eq!(handle.replace(Access::everything()), 1);
        changes.changed().await.expect("the handle lives");
        assert_eq!(*changes.borrow_and_update(), 1);
        assert_eq!(clone.generation(), 1);
        assert!(authorise_connection(&clone.load(), &Principal::anonymous()).is_ok());
    }
}
