//! A real daemon for a test: the binary itself, with a private cluster in a folder of its own.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

/// The binary under test.
pub(crate) const RAYSTREAM: &str = env!("CARGO_BIN_EXE_raystream");

/// How long anything of a test may take before it counts as hung: generous, because machines are shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The daemon that tests share which only use tables of their own: started by the first, stopped after the last.
pub(crate) fn shared() -> Arc<TestDaemon> {
    static SHARED: Mutex<Weak<TestDaemon>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().expect("no test panics while it starts a daemon");
    shared.upgrade().unwrap_or_else(|| {
        let daemon = Arc::new(TestDaemon::start());
        *shared = Arc::downgrade(&daemon);
        daemon
    })
}

/// A running `raystream dev`, killed when dropped.
pub(crate) struct TestDaemon {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    /// What a client connects with.
    pub(crate) url: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    data: PathBuf,
    _folder: Option<tempfile::TempDir>,
}

impl TestDaemon {
    /// Starts one in a new folder.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut daemon = Self::start_in(folder.path(), 0);
        daemon._folder = Some(folder);
        daemon
    }

    /// Starts one on a folder that may have been used before.
    pub(crate) fn start_in(data: &Path, port: u16) -> Self {
        Self::start_by(Command::new(RAYSTREAM), data, port)
    }

    /// Starts one in a new folder with more arguments, or by another program that ends up running it.
    pub(crate) fn start_with(command: Command) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut daemon = Self::start_by(command, folder.path(), 0);
        daemon._folder = Some(folder);
        daemon
    }

    fn start_by(mut command: Command, data: &Path, port: u16) -> Self {
        let mut child = command
            .args(["dev", "--listen", &format!("127.0.0.1:{port}"), "--data"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file(data))
            .spawn()
            .expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("stdout is text");
        let url = line.trim().to_owned();
        let address = url.rsplit('@').next().and_then(|address| address.parse().ok());
        let Some(address) = address else {
            let log = std::fs::read_to_string(data.join("daemon.log")).unwrap_or_default();
            panic!("no URL but {url:?}; its log:\n{log}");
        };
        Self { child, _stdout: stdout, url, address, data: data.to_owned(), _folder: None }
    }

    /// What the daemon has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.data.join("daemon.log")).expect("the log is there")
    }

    /// Kills it with SIGKILL and starts it again on the same folder and port.
    pub(crate) fn kill_and_restart(&mut self) {
        self.kill();
        // The folder goes to the next one: the end of this one is not to wait for a cluster that runs again.
        let data = std::mem::take(&mut self.data);
        let again = Self::start_in(&data, self.address.port());
        let folder = self._folder.take();
        *self = again;
        self._folder = folder;
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it was running");
        self.child.wait().expect("it can be waited for");
    }

    /// Sends SIGTERM and gives the exit status.
    pub(crate) fn terminate(mut self) -> std::process::ExitStatus {
        self.signal("TERM");
        let status = self.child.wait().expect("it can be waited for");
        assert!(status.success(), "{status}; its log:\n{}", self.log());
        status
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("it can be asked").is_none()
    }

    /// The process of its postmaster.
    pub(crate) fn postgres_pid(&self) -> u32 {
        let file = std::fs::read_to_string(self.data.join("postgres/postmaster.pid")).expect("Postgres runs");
        file.lines().next().and_then(|line| line.trim().parse().ok()).expect("the first line is the process")
    }

    /// Where a database of its Postgres is, as `--database` takes it.
    pub(crate) fn database(&self, name: &str) -> String {
        let file = std::fs::read_to_string(self.data.join("postgres/postmaster.pid")).expect("Postgres runs");
        let lines: Vec<&str> = file.lines().map(str::trim).collect();
        format!("host={} port={} user=raystream dbname={name}", lines[4], lines[3])
    }

    /// Asks its Postgres directly; gives the first column of the last row as text.
    pub(crate) fn sql(&self, statement: &str) -> String {
        self.sql_in("raystream", statement)
    }

    /// The same in another database.
    pub(crate) fn sql_in(&self, database: &str, statement: &str) -> String {
        let config: tokio_postgres::Config = self.database(database).parse().expect("an address");
        // A thread of its own, because the caller may be inside a runtime.
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(async {
                    let (client, connection) =
                        config.connect(tokio_postgres::NoTls).await.expect("a session");
                    tokio::spawn(connection);
                    let rows = client.simple_query(statement).await.expect("a statement that works");
                    let values = rows.iter().filter_map(|message| match message {
                        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                        _ => None,
                    });
                    values.last().unwrap_or_default()
                })
            });
            asked.join().expect("the thread does not panic")
        })
    }

    /// The physical table of a name, as it stands in a statement.
    pub(crate) fn physical(&self, table: &str) -> String {
        let name =
            format!("SELECT format('%I.%I', ptr_schema, ptr) FROM raystream.storage WHERE name = '{table}'");
        self.sql(&name)
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux says VmRSS");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB")
    }

    /// A plain TCP connection to its port.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream
    }

    /// Sends bytes on a fresh connection and gives everything that comes back.
    pub(crate) fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // The daemon may hang up in the middle: what it said counts.
        let _may_be_cut = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _may_be_reset = stream.read_to_end(&mut answer);
        answer
    }
}

impl Drop for TestDaemon {
    fn drop(&mut self) {
        let _may_be_gone = self.child.kill();
        let _reaped = self.child.wait();
        stop_cluster(&self.data);
    }
}

/// Waits for the private cluster of a killed daemon to stop, so that its folder can be removed.
fn stop_cluster(data: &Path) {
    let pid_file = data.join("postgres/postmaster.pid");
    for _ in 0..500 {
        if !pid_file.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn log_file(data: &Path) -> Stdio {
    let path = data.join("daemon.log");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.expect("the log can be written").into()
}

/// Runs the command line to its end: status, stdout, stderr.
pub(crate) fn raystream(args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(RAYSTREAM);
    // What tells the tests themselves something would be a setting that the program warns of.
    let settings = std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        name.starts_with("RAYSTREAM_") && name != "RAYSTREAM_PG_BIN"
    });
    for (name, _) in settings {
        command.env_remove(name);
    }
    let output = command.args(args).stdin(Stdio::null()).output().expect("the binary starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}
