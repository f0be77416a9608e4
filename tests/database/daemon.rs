//! `raystream serve` as a process, on the Postgres of a test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use raystream::client::{Client, Options, RetryPolicy};

use crate::PATIENCE;

/// A running daemon, stopped when dropped. Whoever connects may do everything with tables.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) url: String,
    folder: tempfile::TempDir,
}

impl Daemon {
    /// Starts it with a `[database]` section.
    pub(crate) fn start(database: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "data = {:?}\n[database]\n{database}\n[access]\nanonymous = [\"all\"]\n[access.roles.all]\n\
             methods = [\"*\"]\ntables = {{ \"*\" = [\"read\", \"write\"] }}\n",
            folder.path().join("data")
        );
        let file = folder.path().join("raystream.toml");
        std::fs::write(&file, config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_raystream"))
            .args(["-vv", "serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let daemon = Self { child, url: line.trim().to_owned(), folder };
        assert!(daemon.url.starts_with("raystream://"), "{}", daemon.log());
        daemon
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The status of its readiness.
    pub(crate) fn ready(&self) -> u16 {
        let address: SocketAddr = self.url.rsplit('@').next().unwrap().parse().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
    }

    /// A client that sends nothing twice and waits long.
    pub(crate) async fn client(&self) -> Client {
        let mut options = Options::default();
        (options.retry, options.call_timeout) = (RetryPolicy::none(), PATIENCE);
        options.connect_timeout = PATIENCE;
        Client::connect(&self.url, options).await.unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _may_be_gone = sent;
        for _ in 0..500 {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}
