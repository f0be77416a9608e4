//! One timer for the whole life of a connection.

use super::sleep_until;
use crate::wake::Standing;
use std::{
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    task::coop::has_budget_remaining,
    time::{Instant, Sleep},
};

/// Goes off at the time that it was last asked for.
///
/// It is moved only when it has to be: to an earlier time at once, to a later one when it would go off. A connection in use
/// puts its heartbeat off with every record, and to take a timer out of the wheel and put it in again costs more than the
/// record's cipher. For the same reason it is not told again whom to wake.
#[derive(Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Of the task that waits.
    standing: Standing,
}

impl Timer {
    /// Waits until `due`; for ever without one. Cancel-safe.
    #[cfg(any(feature = "server", test))]
    pub(crate) async fn wait(&mut self, due: Option<Instant>) {
        std::future::poll_fn(|cx| self.poll(cx, due)).await;
    }

    /// As [`wait`](Self::wait).
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, due: Option<Instant>) -> Poll<()> {
        let Some(due) = due else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        // One that went off too early goes on from here; for a time that is over it goes off again at once.
        if sleep.is_elapsed() || due < sleep.deadline() {
            sleep.as_mut().reset(due);
            self.standing.clear();
        }
        if self.standing.is_of(cx) && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        // Without budget it hears nothing, and says so by waking at once.
        let hears = has_budget_remaining();
        let polled = sleep.as_mut().poll(cx);
        if hears && polled.is_pending() {
            self.standing.set(cx);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn it_goes_off_when_it_was_last_asked_to() {
        let (start, mut timer) = (Instant::now(), Timer::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        // Asked for a late time and dropped, as a connection does that has something else to do.
        assert!(crate::time::timeout(Duration::from_secs(1), timer.wait(Some(at(9)))).await.is_err());
        // An earlier one moves it.
        timer.wait(Some(at(5))).await;
        assert_eq!(Instant::now(), at(5));
        // A later one does so only when it would go off.
        assert!(crate::time::timeout(Duration::from_secs(1), timer.wait(Some(at(20)))).await.is_err());
        timer.wait(Some(at(30))).await;
        assert_eq!(Instant::now(), at(30));
        // A time that is over, with the timer at rest and with it set.
        timer.wait(Some(at(10))).await;
        assert!(crate::time::timeout(Duration::from_secs(1), timer.wait(Some(at(40)))).await.is_err());
        timer.wait(Some(at(31))).await;
        assert_eq!(Instant::now(), at(31));
        assert!(crate::time::timeout(Duration::from_secs(99), timer.wait(None)).await.is_err());
    }
}
