//! The runtime of the daemon.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// A thread for each core that this process may use (its affinity, its share of a container). With one core a runtime
/// without threads: nothing is handed from one to another, and nobody is woken who would only wait for the core.
///
/// # Errors
/// The system gives no thread or no event queue.
pub(super) fn build() -> io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut builder = if cores == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder.enable_all().build()
}
