//! One private Postgres for a test binary, made by the same code that the daemon uses; a database for each test.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use raystream::store::embedded::{Embedded, EmbeddedOptions};
use raystream::store::{Store, StoreOptions};
use tokio_postgres::{Client, Config, NoTls};

/// Many tests at once have many connections.
const SETTINGS: &str = "max_connections = 300\nshared_buffers = 64MB\nfsync = on\nsynchronous_commit = on\n\
                        timezone = 'UTC'\nlog_timezone = 'UTC'\nlog_error_verbosity = terse\n";

/// The cluster of this process. Postgres stops when the process ends; the reaper then removes the folder.
struct Shared {
    embedded: Embedded,
    _reaper: Child,
}

static SHARED: OnceLock<Shared> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A folder that is gone after this process is, and after Postgres in it is. It is closed to others, like `mktemp -d`'s.
pub(crate) fn folder_with_reaper() -> (PathBuf, Child) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970").as_nanos();
    let folder = std::env::temp_dir().join(format!("raystream-test-{}-{now}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&folder).expect("the temporary folder takes another one");
    // Waits for the end of its input, which is the end of this process, however it ends.
    let script = "cat >/dev/null; n=0; while [ -e \"$0/postgres/postmaster.pid\" ] && [ $n -lt 200 ]; do \
                  sleep 0.1; n=$((n + 1)); done; rm -rf \"$0\"";
    let reaper = Command::new("sh")
        .args(["-c", script])
        .arg(&folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("there is a shell");
    (folder, reaper)
}

fn shared() -> &'static Embedded {
    let shared = SHARED.get_or_init(|| {
        let start = || {
            let (folder, reaper) = folder_with_reaper();
            fs::write(folder.join("postgres.conf"), SETTINGS).expect("the folder can be written");
            let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
            let embedded = runtime.block_on(Embedded::start(EmbeddedOptions::new(folder)));
            Shared { embedded: embedded.expect("the private Postgres starts"), _reaper: reaper }
        };
        // A thread of its own: a runtime cannot be started inside of another one.
        std::thread::spawn(start).join().expect("the private Postgres starts")
    });
    &shared.embedded
}

/// An empty database of its own.
pub(crate) async fn database() -> Config {
    let mut config = shared().config();
    let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    let client = client(&config).await;
    client.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("the database is made");
    config.dbname(&name);
    config
}

/// A store on an empty database.
pub(crate) async fn store() -> Store {
    store_with(|_| {}).await
}

/// A store on an empty database, with other options.
pub(crate) async fn store_with(change: impl FnOnce(&mut StoreOptions)) -> Store {
    let mut options = StoreOptions::new(database().await);
    options.create_tables = true;
    change(&mut options);
    Store::connect(options).await.expect("the store starts")
}

/// A connection of the test's own.
pub(crate) async fn client(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.expect("Postgres takes a connection");
    tokio::spawn(connection);
    client
}
