//! What happens to the whole daemon and concerns every connection: new access rules, and its end.

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::time::Duration;
use tokio::sync::watch;

/// What happened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Alarm {
    /// There are new access rules.
    AccessChanged,
    /// The daemon is to stop, and gives up calls at this time; `None` while it is not.
    Drain(Option<Duration>),
}

enum Watched {
    Access(watch::Receiver<u64>),
    Drain(watch::Receiver<Option<Duration>>),
}

/// Waits for both, over the whole life of a connection.
///
/// To wait on a watch takes a lock that all connections share, so it is done once for each change and not each time that a
/// connection has something else to do: the set below looks at what was woken, and at nothing else.
pub(super) struct Alarms(FuturesUnordered<BoxFuture<'static, Option<Watched>>>);

impl Alarms {
    /// The present state of the drain is the first alarm: the daemon may be stopping already.
    pub(super) fn new(access: watch::Receiver<u64>, mut drain: watch::Receiver<Option<Duration>>) -> Self {
        drain.mark_changed();
        let alarms = Self(FuturesUnordered::new());
        alarms.watch(Watched::Access(access));
        alarms.watch(Watched::Drain(drain));
        alarms
    }

    fn watch(&self, watched: Watched) {
        self.0.push(Box::pin(changed(watched)));
    }

    /// The next one. Cancel-safe.
    pub(super) async fn next(&mut self) -> Alarm {
        loop {
            match self.0.next().await {
                Some(Some(Watched::Access(mut access))) => {
                    access.mark_unchanged();
                    self.watch(Watched::Access(access));
                    return Alarm::AccessChanged;
                }
                Some(Some(Watched::Drain(mut drain))) => {
                    let until = *drain.borrow_and_update();
                    self.watch(Watched::Drain(drain));
                    return Alarm::Drain(until);
                }
                // Whoever would say so is gone.
                Some(None) => {}
                None => std::future::pending().await,
            }
        }
    }
}

/// Gives the receiver back once its value has changed; `None` when it cannot change any more.
async fn changed(mut watched: Watched) -> Option<Watched> {
    let is_alive = match &mut watched {
        Watched::Access(access) => access.changed().await.is_ok(),
        Watched::Drain(drain) => drain.changed().await.is_ok(),
    };
    is_alive.then_some(watched)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn every_change_is_told_once() {
        let (access, access_changes) = watch::channel(0);
        let (drain, draining) = watch::channel(None);
        let mut alarms = Alarms::new(access_changes, draining);
        assert_eq!(alarms.next().await, Alarm::Drain(None));
        assert_eq!(alarms.next().now_or_never(), None);
        for generation in 1..4 {
            access.send_replace(generation);
            assert_eq!(alarms.next().await, Alarm::AccessChanged);
            assert_eq!(alarms.next().now_or_never(), None);
        }
        drain.send_replace(Some(Duration::ZERO));
        assert_eq!(alarms.next().await, Alarm::Drain(Some(Duration::ZERO)));
        drop((access, drain));
        assert_eq!(alarms.next().now_or_never(), None);
    }
}
