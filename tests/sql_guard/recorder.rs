//! A wire between the daemon and Postgres that keeps what the daemon sends.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// The name of Postgres' socket.
const SOCKET: &str = ".s.PGSQL.5432";

pub(crate) struct Recorder {
    sent: Arc<Mutex<Vec<u8>>>,
    _folder: tempfile::TempDir,
}

impl Recorder {
    /// A wire to a Postgres, and the address at its other end.
    pub(crate) fn start(config: &Config) -> (Self, Config) {
        let Some(Host::Unix(server)) = config.get_hosts().first() else { panic!("a unix socket") };
        let server = server.join(SOCKET);
        let folder = tempfile::tempdir().unwrap();
        // The daemon may run as somebody else's child, but never as another user here.
        let listener = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        let sent = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&sent);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&server).await.unwrap();
                tokio::spawn(pass(client, server, Arc::clone(&kept)));
            }
        });
        let mut through = Config::new();
        through.host_path(folder.path()).user(config.get_user().unwrap());
        through.dbname(config.get_dbname().unwrap());
        (Self { sent, _folder: folder }, through)
    }

    /// How often the daemon sent these bytes.
    pub(crate) fn count(&self, needle: &str) -> usize {
        let sent = self.sent.lock().unwrap();
        sent.windows(needle.len()).filter(|window| *window == needle.as_bytes()).count()
    }

    /// The texts of the statements that the daemon prepared with these words in them, each once.
    pub(crate) fn prepared(&self, needle: &str) -> Vec<String> {
        let sent = self.sent.lock().unwrap();
        let mut found: Vec<String> = Vec::new();
        // A Parse message has zeros before and behind its text, which has none.
        for text in sent.split(|byte| *byte == 0) {
            let text = String::from_utf8_lossy(text);
            if text.contains(needle) && !found.contains(&text.clone().into_owned()) {
                found.push(text.into_owned());
            }
        }
        found
    }
}

async fn pass(client: UnixStream, server: UnixStream, sent: Arc<Mutex<Vec<u8>>>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let statements = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let len = from_client.read(&mut buffer).await?;
            if len == 0 {
                return Ok::<(), std::io::Error>(());
            }
            sent.lock().unwrap().extend_from_slice(&buffer[..len]);
            to_server.write_all(&buffer[..len]).await?;
        }
    };
    let answers = async { tokio::io::copy(&mut from_server, &mut to_client).await };
    tokio::select! {
        _ = statements => {}
        _ = answers => {}
    }
}
