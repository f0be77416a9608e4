//! The thread that keeps Postgres running: it starts it, waits for its end, and starts it again unless it was stopped.

use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};
use tokio::sync::oneshot;

use super::cluster::{Cluster, signal};
use super::error::EmbeddedError;

/// How long Postgres may take until it takes connections. Recovery after a crash reads what was written since the last
/// checkpoint, of which the settings allow 512 MB.
const READY_WAIT: Duration = Duration::from_secs(120);

/// How often the state is looked at while Postgres starts.
const READY_POLL: Duration = Duration::from_millis(5);

/// The pause before the first new start after a crash, and the longest one.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// A Postgres that ran this long was a good one: the next pause is short again.
const GOOD_AFTER: Duration = Duration::from_secs(30);

/// How long a fast stop may take, then an immediate one; after that Postgres is killed. In the same order as the signals.
const STOP_WAIT: [(Signal, Duration); 3] = [
    (Signal::INT, Duration::from_secs(30)),
    (Signal::QUIT, Duration::from_secs(5)),
    (Signal::KILL, Duration::from_secs(5)),
];

/// What the thread and its handle share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The postmaster, from its start until just before its number could be another process'.
    postmaster: Option<i32>,
    starts: u64,
    stopping: bool,
    ended: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The postmaster's process, while there is one.
    pub(super) fn postmaster(&self) -> Option<i32> {
        self.state().postmaster
    }

    /// How often Postgres was started.
    pub(super) fn starts(&self) -> u64 {
        self.state().starts
    }

    /// Says that the thread has nothing more to do.
    pub(super) fn end(&self) {
        self.state().ended = true;
        self.changed.notify_all();
    }

    /// Stops Postgres and waits for the end of the thread.
    pub(super) fn stop(&self) {
        for (stop, wait) in STOP_WAIT {
            let mut state = self.state();
            state.stopping = true;
            self.changed.notify_all();
            if let Some(pid) = state.postmaster {
                signal(pid, stop);
            }
            let until = Instant::now() + wait;
            while !state.ended {
                let Some(left) = until.checked_duration_since(Instant::now()) else { break };
                state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
            if state.ended {
                return;
            }
            drop(state);
            tracing::warn!(signal = ?stop, "Postgres does not stop");
        }
    }
}

/// Runs Postgres until it is stopped. `started` gets the result of the first start.
pub(super) fn run(
    cluster: &Cluster,
    shared: &Arc<Shared>,
    started: oneshot::Sender<Result<(), EmbeddedError>>,
) {
    let mut started = Some(started);
    let mut pause = BACK_OFF.0;
    while !shared.state().stopping {
        let began = Instant::now();
        let result = start(cluster, shared).and_then(|mut child| {
            let ready = wait_ready(cluster, shared, &child);
            if ready.is_ok() {
                tracing::info!(took = ?began.elapsed(), pid = child.id(), "the private Postgres is ready");
                if let Some(started) = started.take() {
                    // Nobody waits any more when the start was given up; the handle's end stops us.
                    let _ = started.send(Ok(()));
                }
            }
            wait_end(shared, &mut child);
            ready
        });
        if shared.state().stopping {
            break;
        }
        match (result, started.take()) {
            (Err(error), Some(started)) => {
                let _ = started.send(Err(error));
                break;
            }
            (Err(error), None) => tracing::error!(%error, "the private Postgres does not come back"),
            (Ok(()), _) => {
                tracing::error!(last = cluster.log.tail(), "the private Postgres ended: starting it again")
            }
        }
        if began.elapsed() >= GOOD_AFTER {
            pause = BACK_OFF.0;
        }
        wait_unless_stopped(shared, pause);
        pause = pause.saturating_mul(2).min(BACK_OFF.1);
    }
    shared.end();
}

/// Starts Postgres, unless it is to stop.
fn start(cluster: &Cluster, shared: &Shared) -> Result<Child, EmbeddedError> {
    let child = cluster.spawn()?;
    let pid = i32::try_from(child.id()).expect("a process number is positive and 31 bits");
    let mut state = shared.state();
    state.postmaster = Some(pid);
    state.starts += 1;
    if state.stopping {
        // It was told to stop while the process was being made.
        signal(pid, Signal::INT);
    }
    Ok(child)
}

/// Waits until Postgres takes connections.
fn wait_ready(cluster: &Cluster, shared: &Shared, child: &Child) -> Result<(), EmbeddedError> {
    let until = Instant::now() + READY_WAIT;
    loop {
        if has_ended(child) {
            // The reader of its log may be a moment behind.
            std::thread::sleep(READY_POLL * 4);
            return Err(EmbeddedError::Start(cluster.log.tail()));
        }
        if cluster.is_ready(child.id()) {
            return Ok(());
        }
        if Instant::now() >= until {
            if let Some(pid) = shared.postmaster() {
                signal(pid, Signal::QUIT);
            }
            return Err(EmbeddedError::Start(format!(
                "not ready after {READY_WAIT:?} | {}",
                cluster.log.tail()
            )));
        }
        std::thread::sleep(READY_POLL);
    }
}

/// Whether the process has ended. Its number stays its own until [`wait_end`].
fn has_ended(child: &Child) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    !matches!(waitid(WaitId::Pid(pid_of(child)), options), Ok(None))
}

/// Waits for the end of Postgres. The number is taken out of the shared state before the system may give it to another
/// process, so that a signal never meets a stranger.
fn wait_end(shared: &Shared, child: &mut Child) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid_of(child)), options) {}
    shared.state().postmaster = None;
    if let Err(error) = child.wait() {
        tracing::error!(%error, "the end of Postgres was not collected");
    }
}

fn pid_of(child: &Child) -> Pid {
    let pid = i32::try_from(child.id()).expect("a process number is positive and 31 bits");
    Pid::from_raw(pid).expect("a process number is not zero")
}

fn wait_unless_stopped(shared: &Shared, pause: Duration) {
    let until = Instant::now() + pause;
    let mut state = shared.state();
    while !state.stopping {
        let Some(left) = until.checked_duration_since(Instant::now()) else { return };
        state = shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}
