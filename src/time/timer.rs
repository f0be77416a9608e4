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

/// Goes off at the time that it was last asked for, or earlier, never later.
///
/// It is moved only when it has to be: a connection in use puts its heartbeat off with every record, and to take a timer
/// out of the wheel and put it in again costs more than the record's cipher. For the same reason it is not told again
/// whom to wake.
#[derive(Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Of the task that waits.
    standing: Standing,
}

impl Timer {
    /// Waits until `due`, or for a shorter time; for ever without one. Cancel-safe.
    #[cfg(any(feature = "server", test))]
    pub(crate) async fn wait(&mut self, due: Option<Instant>) {
        std::future::poll_fn(|cx| self.poll(cx, due)).await;
    }

    /// As [`wait`](Self::wait).
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, due: Option<Instant>) -> Poll<()> {
        let Some(due) = due else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
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
    async fn it_goes_off_no_later_than_it_was_last_asked_to() {
        let (start, mut timer) = (Instant::now(), Timer::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        // Asked for a late time and dropped, as a connection does that has something else to do.
        assert!(crate::time::timeout(Duration::from_secs(1), timer.wait(Some(at(9)))).await.is_err());
        // An earlier one moves it.
        timer.wait(Some(at(5))).await;
        assert_eq!(Instant::now(), at(5));
        // A later one does not, so that it goes off too early, and then in time.
        assert!(crate::time::timeout(Duration::from_secs(1), timer.wait(Some(at(20)))).await.is_err());
        timer.wait(Some(at(30))).await;
        assert_eq!(Instant::now(), at(20));
        timer.wait(Some(at(30))).await;
        assert_eq!(Instant::now(), at(30));
        assert!(crate::time::timeout(Duration::from_secs(99), timer.wait(None)).await.is_err());
    }
}
