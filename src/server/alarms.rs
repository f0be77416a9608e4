//! What happens to the whole daemon and concerns every connection: new access rules, and its end.
//!
//! Every connection has a bell, and one task rings them all. A connection that waited on the channels themselves would
//! take, each time that it has something else to do, a lock that all connections share; and it would hold three times
//! the memory.

use crate::wake::{Listener, Standing};
use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::sync::watch;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alarm {
    /// There are new access rules.
    AccessChanged,
    /// The daemon is to stop.
    Drain,
}

impl Alarm {
    /// In the order in which they are told.
    const ALL: [Self; 2] = [Self::AccessChanged, Self::Drain];

    fn bit(self) -> u8 {
        match self {
            Self::AccessChanged => 1,
            Self::Drain => 2,
        }
    }
}

/// One connection's bell.
#[derive(Debug)]
struct Bell {
    listener: Listener,
    /// The bits of the alarms that were not told yet.
    rung: AtomicU8,
    /// Where it is in [`Bells`]; changed only under the lock.
    place: AtomicUsize,
}

/// The bells of all connections.
#[derive(Debug, Default)]
pub(super) struct Bells(Mutex<Vec<Arc<Bell>>>);

impl Bells {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Bell>>> {
        // No code that holds the lock leaves it half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells every connection.
    fn ring(&self, alarm: Alarm) {
        for bell in self.lock().iter() {
            bell.rung.fetch_or(alarm.bit(), Ordering::AcqRel);
            bell.listener.wake();
        }
    }

    /// Rings when the rules change and when the daemon is to stop; `on_access` goes before the former. Runs until neither can
    /// happen any more.
    pub(super) async fn follow(
        self: Arc<Self>,
        mut access: watch::Receiver<u64>,
        mut drain: watch::Receiver<Option<Duration>>,
        on_access: impl Fn() + Send,
    ) {
        loop {
            let alarm = tokio::select! {
                Ok(()) = access.changed() => Alarm::AccessChanged,
                Ok(()) = drain.changed() => Alarm::Drain,
                else => return,
            };
            if alarm == Alarm::AccessChanged {
                on_access();
            }
            self.ring(alarm);
        }
    }
}

/// The alarms of one connection, over its whole life.
pub(super) struct Alarms {
    bells: Arc<Bells>,
    bell: Arc<Bell>,
    standing: Standing,
}

impl Alarms {
    /// The daemon may be stopping already, so that is the first alarm.
    pub(super) fn new(bells: &Arc<Bells>) -> Self {
        let bell = Bell {
            listener: Listener::default(),
            rung: AtomicU8::new(Alarm::Drain.bit()),
            place: AtomicUsize::new(0),
        };
        let bell = Arc::new(bell);
        let mut all = bells.lock();
        bell.place.store(all.len(), Ordering::Relaxed);
        all.push(Arc::clone(&bell));
        drop(all);
        Self { bells: Arc::clone(bells), bell, standing: Standing::default() }
    }

    /// The next one. Cancel-safe.
    pub(super) async fn next(&mut self) -> Alarm {
        poll_fn(|cx| {
            // Before the look, so that a ring after the look wakes.
            self.bell.listener.listen(&mut self.standing, cx);
            let rung = self.bell.rung.load(Ordering::Acquire);
            let Some(alarm) = Alarm::ALL.into_iter().find(|alarm| rung & alarm.bit() != 0) else {
                return Poll::Pending;
            };
            self.bell.rung.fetch_and(!alarm.bit(), Ordering::AcqRel);
            Poll::Ready(alarm)
        })
        .await
    }
}

impl Drop for Alarms {
    fn drop(&mut self) {
        let mut bells = self.bells.lock();
        let place = self.bell.place.load(Ordering::Relaxed);
        bells.swap_remove(place);
        if let Some(moved) = bells.get(place) {
            moved.place.store(place, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn every_change_is_told_once() {
        let (bells, access) = (Arc::new(Bells::default()), watch::Sender::new(0));
        let (drain, draining) = watch::channel(None);
        let heard = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&heard);
        let on_access = move || {
            counted.fetch_add(1, Ordering::Relaxed);
        };
        let following = tokio::spawn(Arc::clone(&bells).follow(access.subscribe(), draining, on_access));
        let mut alarms = Alarms::new(&bells);
        assert_eq!(alarms.next().await, Alarm::Drain, "it may have begun before");
        assert_eq!(alarms.next().now_or_never(), None);
        tokio::task::yield_now().await;
        for generation in 1..4_u64 {
            access.send_replace(generation);
            assert_eq!(alarms.next().await, Alarm::AccessChanged);
            assert_eq!(alarms.next().now_or_never(), None);
            assert_eq!(heard.load(Ordering::Relaxed), usize::try_from(generation).unwrap());
        }
        drain.send_replace(Some(Duration::ZERO));
        assert_eq!(alarms.next().await, Alarm::Drain);
        drop((access, drain));
        following.await.expect("it ends with those who could ring");
        assert_eq!(alarms.next().now_or_never(), None);
    }

    #[test]
    fn whoever_stays_is_told_and_whoever_leaves_is_forgotten() {
        let bells = Arc::new(Bells::default());
        let mut all: Vec<_> = (0..5).map(|_| Alarms::new(&bells)).collect();
        for alarms in &mut all {
            assert_eq!(alarms.next().now_or_never(), Some(Alarm::Drain));
        }
        for gone in [0, 2, 2] {
            drop(all.remove(gone));
        }
        assert_eq!(bells.lock().len(), 2);
        bells.ring(Alarm::AccessChanged);
        bells.ring(Alarm::Drain);
        for alarms in &mut all {
            let told = [(); 3].map(|()| alarms.next().now_or_never());
            assert_eq!(told, [Some(Alarm::AccessChanged), Some(Alarm::Drain), None]);
        }
        drop(all);
        assert!(bells.lock().is_empty());
    }
}
