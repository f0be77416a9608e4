//! Timers, and where they are kept.
//!
//! A runtime of tokio keeps its timers beside its sockets: as long as one is pending, and of a connection one always is,
//! each wait for a socket is a wait for a time as well. The kernel then sets a timer up and takes it down with each system
//! call that waits, and the runtime reads the clock once more before it. Where a call takes ten microseconds that is
//! half of one.
//!
//! [`start_thread`] starts a thread that keeps all timers of this crate from then on. The runtimes wait for sockets alone,
//! and are woken by that thread when a time has come, which is seldom: deadlines are mostly met, and heartbeats put off.
//! What else in a program sleeps by `tokio::time` is not touched.
//!
//! Without it a timer is kept by the runtime that it is made in, as everywhere in tokio; a test can pause its clock then.

mod timer;

use std::future::{IntoFuture, pending};
use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::{Instant, Sleep, Timeout};

pub(crate) use timer::Timer;

/// The runtime that has nothing but timers.
static TIMERS: OnceLock<Handle> = OnceLock::new();

/// Starts the thread for the timers of this process, unless it runs.
///
/// The daemon does so, and `raystream bench`. A program that uses the client library and counts microseconds does so before
/// it connects.
///
/// # Errors
/// The system gives no thread. Timers are then kept by the runtimes, as before.
pub fn start_thread() -> io::Result<()> {
    static STARTING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if TIMERS.get().is_some() {
        return Ok(());
    }
    let runtime = Builder::new_current_thread().enable_time().build()?;
    let handle = runtime.handle().clone();
    // Made before the runtime is given away: where there is no thread, it must not be dropped among tasks of another one.
    let (give, given) = std::sync::mpsc::channel::<Runtime>();
    let keep = move || given.recv().map(|runtime| runtime.block_on(pending::<()>()));
    if let Err(error) = std::thread::Builder::new().name("timers".to_owned()).spawn(keep) {
        runtime.shutdown_background();
        return Err(error);
    }
    // The thread waits for it.
    let _taken = give.send(runtime);
    let _was_not_set = TIMERS.set(handle);
    Ok(())
}

/// Makes a timer where timers are kept: `make` calls what makes it, and nothing else.
pub(crate) fn made<T>(make: impl FnOnce() -> T) -> T {
    let _entered = TIMERS.get().map(Handle::enter);
    make()
}

/// [`tokio::time::sleep`].
pub(crate) fn sleep(duration: Duration) -> Sleep {
    made(|| tokio::time::sleep(duration))
}

/// [`tokio::time::sleep_until`].
pub(crate) fn sleep_until(deadline: Instant) -> Sleep {
    made(|| tokio::time::sleep_until(deadline))
}

/// [`tokio::time::timeout`].
pub(crate) fn timeout<F: IntoFuture>(duration: Duration, future: F) -> Timeout<F::IntoFuture> {
    let future = future.into_future();
    made(|| tokio::time::timeout(duration, future))
}

/// [`tokio::time::timeout_at`].
pub(crate) fn timeout_at<F: IntoFuture>(deadline: Instant, future: F) -> Timeout<F::IntoFuture> {
    let future = future.into_future();
    made(|| tokio::time::timeout_at(deadline, future))
}

/// [`tokio::time::interval`].
#[cfg(feature = "server")]
pub(crate) fn interval(period: Duration) -> tokio::time::Interval {
    made(|| tokio::time::interval(period))
}
