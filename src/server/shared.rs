//! What every connection of the daemon has in common.

use super::{admission::Admission, alarms::Bells, clock::DaemonClock, config::Config};
use crate::{api, auth::AccessHandle, conn::ServerConfig, store::feed::Feed};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

/// Shared by reference count.
pub(super) struct Shared {
    pub(super) clock: DaemonClock,
    pub(super) connection_config: Arc<ServerConfig>,
    pub(super) router: api::Router,
    pub(super) access: AccessHandle,
    pub(super) feed: Feed,
    pub(super) admission: Admission,
    pub(super) config: Config,
    /// Set when the daemon is to stop; carries when in-flight calls are given up.
    pub(super) drain: watch::Receiver<Option<Duration>>,
    /// How connections learn of what concerns all of them.
    pub(super) bells: Arc<Bells>,
    pub(super) counters: Counters,
}

/// What the daemon counts of its connections.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Connections that panicked: anything but zero is a bug.
    pub(super) panics: AtomicU64,
    /// Open connections.
    pub(super) connections: AtomicU32,
    /// Open subscriptions.
    pub(super) subscriptions: AtomicU32,
}

/// One of a bounded number; given back when dropped.
pub(super) struct Counted {
    shared: Arc<Shared>,
    which: fn(&Counters) -> &AtomicU32,
}

impl Counted {
    /// Takes one, unless `max` are taken.
    pub(super) fn take(shared: &Arc<Shared>, which: fn(&Counters) -> &AtomicU32, max: u32) -> Option<Self> {
        let more = |taken: u32| (taken < max).then(|| taken + 1);
        which(&shared.counters).fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Self { shared: shared.clone(), which })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.which)(&self.shared.counters).fetch_sub(1, Ordering::AcqRel);
    }
}
