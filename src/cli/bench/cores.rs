//! A runtime without threads for each core.
//!
//! A client's call goes from its caller to the task of the connection and back. Where both are on one thread that is a place in
//! a queue; between the threads of one runtime each step may wake another thread, which costs more than the call. So
//! everything of a connection stays on one of these.

use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

/// The runtimes that connections are shared out among.
#[derive(Clone)]
pub(super) struct Cores {
    handles: Arc<[Handle]>,
    /// The other threads end when this is gone.
    _stop: Arc<[oneshot::Sender<()>]>,
}

impl Cores {
    /// Starts a thread for each further core that this process may use; gives the runtime of the caller's own.
    ///
    /// # Errors
    /// The system gives no thread or no event queue.
    pub(super) fn start() -> io::Result<(Runtime, Self)> {
        let own = runtime()?;
        let (mut handles, mut stop) = (vec![own.handle().clone()], Vec::new());
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        for _ in 1..cores {
            let (other, (ending, end)) = (runtime()?, oneshot::channel());
            handles.push(other.handle().clone());
            stop.push(ending);
            std::thread::Builder::new().name("bench".to_owned()).spawn(move || {
                let _ended_by_drop = other.block_on(end);
            })?;
        }
        Ok((own, Self { handles: handles.into(), _stop: stop.into() }))
    }

    /// Where everything of a connection runs.
    pub(super) fn of(&self, connection: usize) -> &Handle {
        &self.handles[connection % self.handles.len()]
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_shared_out_and_every_runtime_runs() {
        let (own, cores) = Cores::start().expect("threads");
        own.block_on(async {
            for connection in 0..2 * cores.handles.len() {
                let task = cores.of(connection).spawn(async move { connection });
                assert_eq!(task.await.expect("no panic"), connection);
            }
        });
    }
}
