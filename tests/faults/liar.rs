//! Something between the daemon and Postgres that answers COMMIT before Postgres has it. The daemon cannot know: an
//! acknowledgement that it gives is one that nobody can keep.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, watch};
use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// How long Postgres is not told of a COMMIT that was answered.
const HELD: Duration = Duration::from_millis(20);

/// CommandComplete of COMMIT, and ReadyForQuery outside of a transaction.
const COMMITTED: &[u8] = b"C\0\0\0\x0bCOMMIT\0Z\0\0\0\x05I";

/// It.
pub(crate) struct Liar {
    cut: watch::Sender<u64>,
    _folder: tempfile::TempDir,
}

/// What the two directions of a connection know of each other.
struct Way {
    to_client: Mutex<OwnedWriteHalf>,
    /// How many times Postgres has said that it is ready.
    ready: watch::Sender<u64>,
    /// The next answer was given already.
    is_answered: AtomicBool,
}

impl Liar {
    /// Puts one in front of a Postgres; gives the address behind it.
    pub(crate) fn start(config: &Config) -> (Self, Config) {
        let Some(Host::Unix(socket)) = config.get_hosts().first() else { panic!("a unix socket") };
        let port = config.get_ports().first().copied().expect("a port");
        let server: PathBuf = socket.join(format!(".s.PGSQL.{port}"));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).expect("the socket is made");
        let (cut, _) = watch::channel(0);
        let cuts = cut.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = UnixStream::connect(&server).await else { continue };
                let mut cut = cuts.subscribe();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = pass(client, server) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        let mut through = config.clone();
        through = {
            let mut fresh = Config::new();
            fresh.host_path(folder.path());
            fresh.user(through.get_user().expect("a user")).dbname(through.get_dbname().expect("a database"));
            fresh
        };
        (Self { cut, _folder: folder }, through)
    }

    /// Breaks all connections. What it holds, Postgres never gets.
    pub(crate) fn cut(&self) {
        self.cut.send_modify(|count| *count += 1);
    }
}

async fn pass(client: UnixStream, server: UnixStream) -> io::Result<()> {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (ready, _) = watch::channel(0);
    let way = Way { to_client: Mutex::new(to_client), ready, is_answered: AtomicBool::new(false) };
    let way = Arc::new(way);
    tokio::select! {
        ended = statements(from_client, to_server, &way) => ended,
        ended = answers(from_server, &way) => ended,
    }
}

/// The next message with its first byte, if it has one, and its length.
async fn message(from: &mut OwnedReadHalf, has_type: bool) -> io::Result<Vec<u8>> {
    let mut message = vec![0; if has_type { 5 } else { 4 }];
    from.read_exact(&mut message).await?;
    let length = message.last_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes)).expect("there are four");
    let head = message.len();
    message.resize(head + usize::try_from(length).expect("it fits") - 4, 0);
    from.read_exact(&mut message[head..]).await?;
    Ok(message)
}

async fn statements(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: &Way) -> io::Result<()> {
    to.write_all(&message(&mut from, false).await?).await?;
    // Postgres says that it is ready once at the start, and once for each query and each end of a pipelined part.
    let mut expected = 1;
    loop {
        let message = message(&mut from, true).await?;
        if message[0] == b'Q' && message[5..].starts_with(b"COMMIT\0") {
            // Its turn: everything before it is answered.
            let mut ready = way.ready.subscribe();
            let turn = ready.wait_for(|ready| *ready == expected).await;
            turn.map_err(|_| io::ErrorKind::UnexpectedEof)?;
            way.is_answered.store(true, Ordering::SeqCst);
            way.to_client.lock().await.write_all(COMMITTED).await?;
            tokio::time::sleep(HELD).await;
        }
        if matches!(message[0], b'Q' | b'S') {
            expected += 1;
        }
        to.write_all(&message).await?;
    }
}

async fn answers(mut from: OwnedReadHalf, way: &Way) -> io::Result<()> {
    loop {
        let message = message(&mut from, true).await?;
        let is_ready = message[0] == b'Z';
        if !way.is_answered.load(Ordering::SeqCst) {
            way.to_client.lock().await.write_all(&message).await?;
        } else if is_ready {
            way.is_answered.store(false, Ordering::SeqCst);
        }
        if is_ready {
            way.ready.send_modify(|ready| *ready += 1);
        }
    }
}
