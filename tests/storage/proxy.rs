//! A network between the store and Postgres that fails when it is told to.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// The name of Postgres' socket at its usual port.
const SOCKET: &str = ".s.PGSQL.5432";

/// What the network does with the bytes.
const PASS: u8 = 0;
/// The statements arrive, their answers do not.
const SWALLOW_ANSWERS: u8 = 1;
/// Nothing arrives.
const SWALLOW_STATEMENTS: u8 = 2;
/// The next COMMIT of a transaction does not arrive: its connection breaks first. Then all passes.
const CUT_BEFORE_COMMIT: u8 = 3;
/// It arrives and is done; its connection breaks before the answer. Then all passes.
const CUT_BEHIND_COMMIT: u8 = 4;

/// The message that ends a transaction, and the one that says that it is done.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";
const COMMITTED: &[u8] = b"C\0\0\0\x0bCOMMIT\0";

/// What a transaction of several statements begins with; writes that share one begin in another way.
const BEGIN: &[u8] = b"; SET LOCAL statement_timeout";
/// Of the statements that are sent next a part arrives, and the connection breaks.
const BREAK_STATEMENTS: u8 = 5;
/// The same of answers.
const BREAK_ANSWERS: u8 = 6;

/// What all connections look at.
#[derive(Default)]
struct Weather {
    mode: AtomicU8,
    /// How many connections there were.
    made: AtomicU64,
    /// Connections with lower numbers pass nothing, though they are open.
    frozen_below: AtomicU64,
}

impl Weather {
    /// The mode for a connection.
    fn mode(&self, number: u64) -> Option<u8> {
        let is_frozen = number < self.frozen_below.load(Ordering::SeqCst);
        (!is_frozen).then(|| self.mode.load(Ordering::SeqCst))
    }
}

pub(crate) struct Proxy {
    weather: Arc<Weather>,
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
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let server = server.join(format!(".s.PGSQL.{port}"));
        let (cut, _) = watch::channel(0);
        let weather = Arc::<Weather>::default();
        let task = listen(folder.path(), server.clone(), &weather, &cut);
        let mut through = Config::new();
        through.host_path(folder.path()).user(config.get_user().expect("a user"));
        through.dbname(config.get_dbname().expect("a database"));
        (Self { weather, cut, folder, server, task }, through)
    }

    fn set_mode(&self, mode: u8) {
        self.weather.mode.store(mode, Ordering::SeqCst);
    }

    /// From now on statements arrive and answers do not.
    pub(crate) fn swallow_answers(&self) {
        self.set_mode(SWALLOW_ANSWERS);
    }

    /// From now on nothing arrives at Postgres.
    #[allow(dead_code, reason = "not every test that shares this needs it")]
    pub(crate) fn swallow_statements(&self) {
        self.set_mode(SWALLOW_STATEMENTS);
    }

    /// From now on each connection breaks in the middle of the statements that are sent next.
    #[allow(dead_code, reason = "not every test that shares this needs it")]
    pub(crate) fn break_statements(&self) {
        self.set_mode(BREAK_STATEMENTS);
    }

    /// From now on each connection breaks in the middle of the answers that come next.
    #[allow(dead_code, reason = "not every test that shares this needs it")]
    pub(crate) fn break_answers(&self) {
        self.set_mode(BREAK_ANSWERS);
    }

    /// The connections that there are pass nothing any more, as when a machine on the way is gone: the client does not even
    /// hear that Postgres has closed one. New ones work.
    #[allow(dead_code, reason = "not every test that shares this needs it")]
    pub(crate) fn freeze(&self) {
        let made = self.weather.made.load(Ordering::SeqCst);
        self.weather.frozen_below.store(made, Ordering::SeqCst);
    }

    /// Breaks the connection that the next transaction is committed on, before COMMIT arrives or once it is done.
    #[allow(dead_code, reason = "not every test that shares this needs it")]
    pub(crate) fn cut_at_commit(&self, done: bool) {
        self.set_mode(if done { CUT_BEHIND_COMMIT } else { CUT_BEFORE_COMMIT });
    }

    /// Whether that has happened.
    #[allow(dead_code, reason = "not every test that shares this needs it")]
    pub(crate) fn has_cut(&self) -> bool {
        self.weather.mode.load(Ordering::SeqCst) == PASS
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
        self.set_mode(PASS);
        if self.task.is_finished() {
            self.task = listen(self.folder.path(), self.server.clone(), &self.weather, &self.cut);
        }
    }
}

fn listen(
    folder: &Path,
    server: std::path::PathBuf,
    weather: &Arc<Weather>,
    cut: &watch::Sender<u64>,
) -> tokio::task::JoinHandle<()> {
    let listener = UnixListener::bind(folder.join(SOCKET)).expect("the socket is made");
    let (weather, cut) = (Arc::clone(weather), cut.clone());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            // Without a Postgres the client sees the end of its connection.
            let Ok(server) = UnixStream::connect(&server).await else { continue };
            let number = weather.made.fetch_add(1, Ordering::SeqCst);
            let (weather, mut cut) = (Arc::clone(&weather), cut.subscribe());
            tokio::spawn(async move {
                tokio::select! {
                    () = pass(client, server, &weather, number) => {}
                    _ = cut.changed() => {}
                }
            });
        }
    })
}

/// Where a message begins in some bytes. Each of ours is written at once.
fn find(bytes: &[u8], message: &[u8]) -> Option<usize> {
    bytes.windows(message.len()).position(|window| window == message)
}

async fn pass(client: UnixStream, server: UnixStream, weather: &Weather, number: u64) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    // Whether this connection is the one that breaks when COMMIT is done.
    let breaks = std::sync::atomic::AtomicBool::new(false);
    let statements = async {
        let (mut buffer, mut is_transaction) = (vec![0; 64 * 1024], false);
        loop {
            let len = from_client.read(&mut buffer).await?;
            if len == 0 {
                return Ok::<(), std::io::Error>(());
            }
            is_transaction |= find(&buffer[..len], BEGIN).is_some();
            let commit = find(&buffer[..len], COMMIT).filter(|_| is_transaction);
            match (weather.mode(number), commit) {
                (None | Some(SWALLOW_STATEMENTS), _) => continue,
                (Some(BREAK_STATEMENTS), _) => return to_server.write_all(&buffer[..len / 2]).await,
                (Some(CUT_BEFORE_COMMIT), Some(at)) => {
                    to_server.write_all(&buffer[..at]).await?;
                    weather.mode.store(PASS, Ordering::SeqCst);
                    return Ok(());
                }
                (Some(CUT_BEHIND_COMMIT), Some(_)) => breaks.store(true, Ordering::SeqCst),
                _ => {}
            }
            to_server.write_all(&buffer[..len]).await?;
        }
    };
    let answers = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let len = from_server.read(&mut buffer).await?;
            if len == 0 {
                if weather.mode(number).is_none() {
                    std::future::pending::<()>().await;
                }
                return Ok::<(), std::io::Error>(());
            }
            if breaks.load(Ordering::SeqCst)
                && let Some(at) = find(&buffer[..len], COMMITTED)
            {
                to_client.write_all(&buffer[..at]).await?;
                weather.mode.store(PASS, Ordering::SeqCst);
                return Ok(());
            }
            match weather.mode(number) {
                None | Some(SWALLOW_ANSWERS | SWALLOW_STATEMENTS) => {}
                Some(BREAK_ANSWERS) => return to_client.write_all(&buffer[..len / 2]).await,
                Some(_) => to_client.write_all(&buffer[..len]).await?,
            }
        }
    };
    tokio::select! {
        _ = statements => {}
        _ = answers => {}
    }
}
