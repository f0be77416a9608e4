//! The processes of a Postgres, as Linux shows them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::PATIENCE;

/// State and parent of a process; `None` when it is gone. One that nobody has reaped yet is gone.
fn state(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let (state, parent) = (fields.next()?, fields.next()?);
    (state != "Z" && state != "X").then(|| parent.parse().ok())?
}

/// Whether a process runs.
pub(crate) fn is_alive(pid: u32) -> bool {
    state(pid).is_some()
}

/// The processes that one has started and that still run.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("this is Linux");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| state(*pid) == Some(parent)).collect()
}

/// The postmaster of a cluster; `None` when there is none.
pub(crate) fn postmaster(data: &Path) -> Option<u32> {
    let file = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    file.lines().next()?.trim().parse().ok().filter(|pid| is_alive(*pid))
}

/// Sends a signal by name, to all at once. Those that are gone already need none.
pub(crate) fn signal(name: &str, pids: &[u32]) {
    let mut command = Command::new("kill");
    command.arg(format!("-{name}")).args(pids.iter().map(u32::to_string));
    let _some_are_gone = command.stderr(std::process::Stdio::null()).status().expect("there is a kill");
}

/// Waits until processes are gone. Those that do not go by themselves are killed: an operator would do the same.
pub(crate) async fn gone(pids: &[u32]) {
    /// A process of Postgres without its postmaster goes at its next look around.
    const BY_THEMSELVES: Duration = Duration::from_secs(10);
    let begun = Instant::now();
    while pids.iter().any(|pid| is_alive(*pid)) {
        assert!(begun.elapsed() < PATIENCE, "they go");
        if begun.elapsed() > BY_THEMSELVES {
            signal("KILL", pids);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
