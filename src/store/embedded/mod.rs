//! A private Postgres cluster that the daemon starts for itself: a real one, from the programs that are installed.
//!
//! It listens on a unix socket only, in a folder that only its user may enter, runs as another user when the daemon is
//! root, is started again when it crashes, and stops with the daemon, also when that is killed. Linux and other systems
//! with `/proc`; the stop at a kill needs `setpriv` of util-linux.

mod account;
mod cluster;
mod error;
mod folder;
mod log;
mod programs;
mod supervisor;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use tokio_postgres::{Config, NoTls};

use cluster::{Cluster, SUPERUSER};
use supervisor::Shared;

pub use error::EmbeddedError;

/// The database that is made in the cluster: the one that `psql` takes for the user of the same name.
const DATABASE: &str = "raystream";

/// What the private cluster needs to know.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// The data folder. It is made when it is not there.
    pub data: PathBuf,
    /// The folder of `initdb` and `postgres`; absent, they are looked for in PATH and where Debian puts them.
    pub programs: Option<PathBuf>,
}

impl EmbeddedOptions {
    /// The data folder, and the programs that the variable `RAYSTREAM_PG_BIN` names.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self { data: data.into(), programs: std::env::var_os("RAYSTREAM_PG_BIN").map(PathBuf::from) }
    }
}

/// The private cluster, while it runs. Dropping it stops Postgres and waits for that (about 0.1 s).
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    config: Config,
    socket: PathBuf,
}

impl Embedded {
    /// Starts Postgres, and makes the cluster first when the data folder has none. Answers when it takes connections.
    ///
    /// # Errors
    /// [`EmbeddedError`] says what is missing or in the way.
    pub async fn start(options: EmbeddedOptions) -> Result<Self, EmbeddedError> {
        let shared = Arc::new(Shared::default());
        let (started_sender, started) = oneshot::channel();
        let (socket_sender, socket) = oneshot::channel();
        let thread = std::thread::Builder::new().name("postgres".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            // The thread whose end Postgres stops at: it lives as long as the handle.
            move || match Cluster::open(&options.data, options.programs.as_deref()) {
                Ok(cluster) => {
                    let _ = socket_sender.send(cluster.folder.socket.clone());
                    supervisor::run(&cluster, &shared, started_sender);
                }
                Err(error) => {
                    let _ = started_sender.send(Err(error));
                    shared.end();
                }
            }
        });
        let thread = thread.map_err(|error| EmbeddedError::Start(format!("no thread for it: {error}")))?;
        // From here on the handle stops what was started, also when the caller gives up waiting.
        let mut embedded =
            Self { shared, thread: Some(thread), config: Config::new(), socket: PathBuf::new() };
        let ended = |_| EmbeddedError::Start("its thread ended".to_owned());
        started.await.map_err(ended)??;
        embedded.socket = socket.await.map_err(ended)?;
        embedded.config.user(SUPERUSER).dbname(DATABASE).host_path(&embedded.socket);
        embedded.ensure_database().await.map_err(|error| {
            EmbeddedError::Start(format!(
                "its database was not made: {}",
                super::session::whole_message(&error)
            ))
        })?;
        Ok(embedded)
    }

    /// How to reach it.
    pub fn config(&self) -> Config {
        self.config.clone()
    }

    /// The folder of its unix socket: `psql -h FOLDER -U raystream` reaches it.
    pub fn socket_folder(&self) -> &std::path::Path {
        &self.socket
    }

    /// The process of the postmaster, while there is one.
    pub fn postmaster(&self) -> Option<i32> {
        self.shared.postmaster()
    }

    /// How often Postgres was started: more than once means that it ended by itself.
    pub fn starts(&self) -> u64 {
        self.shared.starts()
    }

    /// Stops Postgres (a fast shutdown: open transactions are rolled back) and waits for it.
    pub async fn stop(self) {
        let stopped = tokio::task::spawn_blocking(move || drop(self)).await;
        if let Err(error) = stopped {
            tracing::error!(%error, "the private Postgres was not stopped cleanly");
        }
    }

    async fn ensure_database(&self) -> Result<(), tokio_postgres::Error> {
        let mut config = self.config.clone();
        config.dbname("postgres");
        let (client, connection) = config.connect(NoTls).await?;
        let driver = tokio::spawn(connection);
        let there = client.query("SELECT 1 FROM pg_database WHERE datname = $1", &[&DATABASE]).await?;
        if there.is_empty() {
            client.batch_execute(&format!("CREATE DATABASE {DATABASE}")).await?;
        }
        // The role has the name of our schema, and what its user makes in psql does not belong there.
        client.batch_execute(&format!("ALTER DATABASE {DATABASE} SET search_path = public")).await?;
        drop(client);
        // It ended, one way or the other.
        let _ = driver.await;
        Ok(())
    }
}

/// How to reach the private cluster of a data folder, when one runs there: of another process.
pub fn running(data: &std::path::Path) -> Option<Config> {
    // The fifth line is the folder of the socket.
    let lock = std::fs::read_to_string(data.join("postgres").join("postmaster.pid")).ok()?;
    let socket = lock.lines().nth(4).filter(|socket| !socket.is_empty())?;
    let mut config = Config::new();
    config.user(SUPERUSER).dbname(DATABASE).host_path(socket);
    Some(config)
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
