//! The processes of Postgres: how they are started, and what a daemon that was killed has left of them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::account::Account;
use super::error::{Context, EmbeddedError};
use super::folder::Folder;
use super::log::Log;
use super::programs::Programs;

/// The name of the superuser: that of the daemon, since nobody else reaches the socket.
pub(super) const SUPERUSER: &str = "raystream";

/// How often processes are looked at while one waits for them.
const POLL: Duration = Duration::from_millis(5);

/// How long a Postgres that was left over may take for a clean stop.
const LEFT_OVER_STOP: Duration = Duration::from_secs(30);

/// How long its processes may take to drop everything, and then to die.
const LEFT_OVER_END: Duration = Duration::from_secs(5);

/// What it takes to start Postgres.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) folder: Folder,
    programs: Programs,
    setpriv: Option<PathBuf>,
    pub(super) log: Log,
}

impl Cluster {
    /// Opens the data folder, and makes the cluster if there is none.
    pub(super) fn open(data: &Path, programs: Option<&Path>) -> Result<Self, EmbeddedError> {
        let folder = Folder::open(data)?;
        let programs = super::programs::find(programs, &folder.cluster())?;
        let log = Log::open(folder.log()).context("cannot open", &folder.log())?;
        let setpriv = in_path("setpriv");
        if setpriv.is_none() {
            tracing::warn!(
                "there is no setpriv (util-linux): if this process is killed, its Postgres stays until the next start"
            );
        }
        let cluster = Self { folder, programs, setpriv, log };
        cluster.folder.write_settings()?;
        if !cluster.folder.cluster().exists() {
            cluster.initdb()?;
        }
        Ok(cluster)
    }

    /// Makes the cluster. Text is compared byte by byte (locale C), so that no change of the system's collations can
    /// spoil an index.
    fn initdb(&self) -> Result<(), EmbeddedError> {
        let started = Instant::now();
        let draft = self.folder.prepare_draft()?;
        let output = self
            .command(&self.programs.initdb(), &draft)
            .arg("--pgdata")
            .arg(&draft)
            .args(["--username", SUPERUSER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C"])
            .args(["--data-checksums", "--no-instructions"])
            .stdin(Stdio::null())
            .output()
            .context("cannot run", &self.programs.initdb())?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).lines().collect::<Vec<_>>().join(" | ");
            return Err(EmbeddedError::Initdb(text));
        }
        self.folder.adopt_draft()?;
        tracing::info!(took = ?started.elapsed(), "made a private Postgres cluster");
        Ok(())
    }

    /// Starts Postgres. The process that comes back is the postmaster itself: setpriv becomes it. It gets SIGINT (a fast,
    /// clean stop) when the calling *thread* ends, so that has to be one that lives as long as the daemon.
    pub(super) fn spawn(&self) -> Result<Child, EmbeddedError> {
        self.clear_left_overs()?;
        self.log.clear_tail();
        let cluster = self.folder.cluster();
        let socket = self.folder.socket.display().to_string().replace('"', "\"\"");
        let mut child = self
            .command(&self.programs.postgres(), &cluster)
            .arg("-D")
            .arg(&cluster)
            .arg("-c")
            .arg(format!("config_file={}", self.folder.settings().display()))
            .arg("-c")
            .arg(format!("unix_socket_directories=\"{socket}\""))
            .args(["-c", "unix_socket_permissions=0700", "-c", "listen_addresses=", "-c", "port=5432"])
            .args([
                "-c",
                "logging_collector=off",
                "-c",
                "log_destination=stderr",
                "-c",
                "cluster_name=raystream",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("cannot run", &self.programs.postgres())?;
        let from = child.stderr.take().expect("stderr was set to a pipe");
        let log = self.log.clone();
        // Ends when the last process of Postgres has closed its end.
        std::thread::spawn(move || log.copy(from));
        Ok(child)
    }

    /// A program of Postgres, as Postgres' user, without our environment.
    fn command(&self, program: &Path, folder: &Path) -> Command {
        let account = self.folder.account.as_ref();
        let mut command = match &self.setpriv {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                if let Some(Account { uid, gid, .. }) = account {
                    command.args([
                        format!("--reuid={uid}"),
                        format!("--regid={gid}"),
                        "--clear-groups".to_owned(),
                    ]);
                }
                command.args(["--pdeathsig", "INT", "--"]).arg(program);
                command
            }
            None => {
                let mut command = Command::new(program);
                if let Some(Account { uid, gid, .. }) = account {
                    command.uid(*uid).gid(*gid);
                }
                command
            }
        };
        // PGOPTIONS and its like would change what is started. The folder is one that Postgres' user can be in.
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").current_dir(folder);
        command
    }

    /// Whether the postmaster takes connections: it says so in its file, as `pg_ctl --wait` reads it.
    pub(super) fn is_ready(&self, postmaster: u32) -> bool {
        let text = fs::read_to_string(self.postmaster_file()).unwrap_or_default();
        let mut lines = text.lines();
        let pid = lines.next().and_then(|line| line.trim().parse().ok());
        pid == Some(postmaster) && lines.nth(6).is_some_and(|status| status.trim() == "ready")
    }

    fn postmaster_file(&self) -> PathBuf {
        self.folder.cluster().join("postmaster.pid")
    }

    /// Stops the processes that work on the cluster: those of a daemon that was killed, or of a postmaster that was. We
    /// hold the folder's lock, so no other daemon wants them.
    fn clear_left_overs(&self) -> Result<(), EmbeddedError> {
        let cluster = self.folder.cluster();
        let text = fs::read_to_string(self.postmaster_file()).unwrap_or_default();
        let named: Option<i32> = text.lines().next().and_then(|line| line.trim().parse().ok());
        if let Some(pid) = named.filter(|pid| processes_in(&cluster).contains(pid)) {
            tracing::warn!(pid, "a Postgres of an earlier run still works on the data: stopping it");
            signal(pid, Signal::INT);
            wait_for_none(&cluster, LEFT_OVER_STOP);
        }
        // Without a postmaster there is nothing to wait for: a backend that is kept busy notices its absence never.
        for stronger in [Signal::QUIT, Signal::KILL] {
            let left = processes_in(&cluster);
            if left.is_empty() {
                break;
            }
            tracing::warn!(?left, ?stronger, "ending the processes of an earlier Postgres");
            left.into_iter().for_each(|pid| signal(pid, stronger));
            wait_for_none(&cluster, LEFT_OVER_END);
        }
        // Nothing works on the cluster. If the number in the file is some other process by now, Postgres, which looks at
        // the number only, would refuse to start.
        let taken = named.and_then(Pid::from_raw).is_some_and(|pid| test_kill_process(pid).is_ok());
        if !taken || !processes_in(&cluster).is_empty() {
            return Ok(());
        }
        match fs::remove_file(self.postmaster_file()) {
            // It was removed by its owner, at its end.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result.context("cannot remove", &self.postmaster_file()),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The socket is of no use without us; a folder outside of the data would be left lying about.
        let _ = fs::remove_dir_all(&self.folder.socket);
    }
}

/// Sends a signal; that the process is gone already is no error.
pub(super) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// The Postgres processes whose working folder is the cluster: it is that of every one of them, and of no other.
fn processes_in(cluster: &Path) -> BTreeSet<i32> {
    let of_cluster = |pid: &i32| {
        fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder == cluster)
            && fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("postgres"))
    };
    let entries = fs::read_dir("/proc").into_iter().flatten();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(of_cluster).collect()
}

/// Waits until no process works on the cluster.
fn wait_for_none(cluster: &Path, longest: Duration) {
    let until = Instant::now() + longest;
    while !processes_in(cluster).is_empty() && Instant::now() < until {
        std::thread::sleep(POLL);
    }
}

/// A program in PATH.
fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
