//! One timer for the whole life of a connection.

use std::pin::Pin;
use tokio::time::{Instant, Sleep};

/// Goes off at the time that it was last asked for, or earlier, never later.
///
/// It is moved only when it has to be: a connection in use puts its heartbeat off with every record, and to take a timer
/// out of the runtime's wheel and put it in again costs more than the record's cipher.
#[derive(Default)]
pub(super) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Waits until `due`, or for a shorter time; for ever without one. Cancel-safe.
    pub(super) async fn wait(&mut self, due: Option<Instant>) {
        let Some(due) = due else { return std::future::pending().await };
        let sleep = self.0.get_or_insert_with(|| Box::pin(crate::time::sleep_until(due)));
        if sleep.is_elapsed() || due < sleep.deadline() {
            sleep.as_mut().reset(due);
        }
        sleep.await;
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
