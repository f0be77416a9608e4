//! A network between the store and Postgres that fails when it is told to.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// The name of Postgres' socket.
const SOCKET: &str = ".s.PGSQL.5432";

/// What the network does with the bytes.
const PASS: u8 = 0;
/// The statements arrive, their answers do not.
const SWALLOW_ANSWERS: u8 = 1;
/// Nothing arrives.
const SWALLOW_STATEMENTS: u8 = 2;

pub(crate) struct Proxy {
    mode: Arc<AtomicU8>,
    cut: watch::Sender<u64>,
    folder: tempfile::TempDir,
    server: std::path::PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// A network in front of a Postgres, and the address behind it.
    pub(crate) fn start(config: &Config) -> (Self, Config) {
        let Some(Host::Unix(server)) = config.get_hosts().first() else {
            panic!("the test's Postgres has a unix socket")
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (cut, _) = watch::channel(0);
        let mode = Arc::new(AtomicU8::new(PASS));
        let task = listen(folder.path(), server.join(SOCKET), &mode, &cut);
        let mut through = Config::new();
        through.host_path(folder.path()).user(config.get_user().expect("a user"));
        through.dbname(config.get_dbname().expect("a database"));
        (Self { mode, cut, folder, server: server.join(SOCKET), task }, through)
    }

    /// From now on statements arrive and answers do not.
    pub(crate) fn swallow_answers(&self) {
        self.mode.store(SWALLOW_ANSWERS, Ordering::SeqCst);
    }

    /// From now on nothing arrives at Postgres.
    #[allow(dead_code, reason = "not every test that shares this needs it")]
    pub(crate) fn swallow_statements(&self) {
        self.mode.store(SWALLOW_STATEMENTS, Ordering::SeqCst);
    }

    /// Breaks all connections.
    pub(crate) fn cut(&self) {
        self.cut.send_modify(|count| *count += 1);
    }

    /// Breaks all connections and takes no new ones.
    pub(crate) async fn close(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
        std::fs::remove_file(self.folder.path().join(SOCKET)).expect("the socket is there");
        self.cut();
    }

    /// Passes everything again, on new connections.
    pub(crate) fn open(&mut self) {
        self.mode.store(PASS, Ordering::SeqCst);
        if self.task.is_finished() {
            self.task = listen(self.folder.path(), self.server.clone(), &self.mode, &self.cut);
        }
    }
}

fn listen(
    folder: &Path,
    server: std::path::PathBuf,
    mode: &Arc<AtomicU8>,
    cut: &watch::Sender<u64>,
) -> tokio::task::JoinHandle<()> {
    let listener = UnixListener::bind(folder.join(SOCKET)).expect("the socket is made");
    let (mode, cut) = (Arc::clone(mode), cut.clone());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = UnixStream::connect(&server).await.expect("Postgres takes connections");
            let (mode, mut cut) = (Arc::clone(&mode), cut.subscribe());
            tokio::spawn(async move {
                tokio::select! {
                    () = pass(client, server, &mode) => {}
                    _ = cut.changed() => {}
                }
            });
        }
    })
}

async fn pass(client: UnixStream, server: UnixStream, mode: &AtomicU8) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let statements = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let len = from_client.read(&mut buffer).await?;
            if len == 0 {
                return Ok::<(), std::io::Error>(());
            }
            if mode.load(Ordering::SeqCst) != SWALLOW_STATEMENTS {
                to_server.write_all(&buffer[..len]).await?;
            }
        }
    };
    let answers = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let len = from_server.read(&mut buffer).await?;
            if len == 0 {
                return Ok::<(), std::io::Error>(());
            }
            if mode.load(Ordering::SeqCst) == PASS {
                to_client.write_all(&buffer[..len]).await?;
            }
        }
    };
    tokio::select! {
        _ = statements => {}
        _ = answers => {}
    }
}
