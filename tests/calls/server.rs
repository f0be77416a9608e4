//! Daemons as processes, in front of a database that outlives them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use raystream::client::{CallOptions, Client, Error, Json, Options};
use raystream::noise::{PublicKey, StaticSecret};
use raystream::wire::ErrorCode;
use serde_json::Value;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use crate::postgres::{client as postgres_client, database};

/// How long anything may take before it counts as hung: generous, because machines are shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running `raystream serve`, killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    folder: tempfile::TempDir,
    pub(crate) database: Config,
}

/// The key of a client.
pub(crate) fn key(seed: u8) -> (StaticSecret, PublicKey) {
    let secret = StaticSecret::from_bytes([seed; 32]);
    let public = secret.public_key(raystream::noise::rust_crypto());
    (secret, public)
}

/// Key 1 and key 2 and the anonymous may do everything; key 3 may not write `closed`, nor call `table.delete`, nor change the schema of `t`, and has a right
/// on each of two topics; key 4 has rights on every topic and no method.
fn access() -> String {
    let [(_, first), (_, second), (_, third), (_, fourth)] = [key(1), key(2), key(3), key(4)];
    format!(
        r#"
[access]
anonymous = ["all"]
[access.keys]
"{first}" = ["all"]
"{second}" = ["all"]
"{third}" = ["some"]
"{fourth}" = ["topics"]
[access.roles.all]
methods = ["*"]
tables = {{ "*" = ["read", "write", "manage"] }}
topics = {{ "*" = ["publish", "subscribe"] }}
[access.roles.some]
methods = ["table.batch", "table.push", "table.set", "table.get", "topic.publish", "tx.*", "changes.read", "table.setSchema"]
tables = {{ t = ["read", "write"], closed = ["read"] }}
topics = {{ in = ["publish"], out = ["subscribe"] }}
[access.roles.topics]
topics = {{ "*" = ["publish", "subscribe"] }}
"#
    )
}

impl Server {
    /// Starts one in front of an empty database, with the table `t`.
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// The same, with more lines in its `[database]` section.
    pub(crate) async fn start_with(section: &str) -> Self {
        let server = Self::on(database().await, section);
        let client = server.client(1).await;
        call(&client, "table.create", serde_json::json!({"table": "t"})).await.unwrap();
        server
    }

    /// Starts one more in front of the same database.
    pub(crate) fn another(&self) -> Self {
        Self::on(self.database.clone(), "")
    }

    /// Starts one in front of a database.
    pub(crate) fn on(database: Config, section: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let Some(Host::Unix(socket)) = database.get_hosts().first() else { panic!("a unix socket") };
        let (user, name) = (database.get_user().unwrap(), database.get_dbname().unwrap());
        let config = format!(
            "data = {:?}\n[database]\nurl = \"host={} user={user} dbname={name}\"\n{section}\n{}",
            folder.path().join("data"),
            socket.display(),
            access(),
        );
        std::fs::write(folder.path().join("raystream.toml"), config).unwrap();
        let (child, url) = spawn(&folder, "127.0.0.1:0");
        Self { child, url, folder, database }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by name.
    #[allow(dead_code, reason = "not every test that shares this needs it")]
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// What it has logged.
    #[allow(dead_code, reason = "not every test that shares this needs it")]
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Starts it again after a kill, on the same address.
    pub(crate) fn restart(&mut self) {
        let address = self.url.rsplit('@').next().unwrap().to_owned();
        (self.child, self.url) = spawn(&self.folder, &address);
    }

    /// Changes the text of its configuration and has it read again.
    pub(crate) fn reconfigure(&self, from: &str, to: &str) {
        let file = self.folder.path().join("raystream.toml");
        let config = std::fs::read_to_string(&file).unwrap();
        assert!(config.contains(from));
        std::fs::write(&file, config.replace(from, to)).unwrap();
        self.signal("HUP");
    }

    /// A client with a key by its number; 0 is anonymous.
    pub(crate) async fn client(&self, seed: u8) -> Client {
        connect(&self.url, seed).await.unwrap()
    }

    /// A session of the test's own in the daemon's database.
    pub(crate) async fn admin(&self) -> tokio_postgres::Client {
        postgres_client(&self.database).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _may_be_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn spawn(folder: &tempfile::TempDir, listen: &str) -> (Child, String) {
    let log = folder.path().join("log");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_raystream"))
        .args(["serve", "--listen", listen, "--config"])
        .arg(folder.path().join("raystream.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file)
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let log = std::fs::read_to_string(log).unwrap_or_default();
    assert!(line.starts_with("raystream://"), "{line:?}; its log:\n{log}");
    (child, line.trim().to_owned())
}

/// A client that does not come back by itself.
pub(crate) async fn connect(url: &str, seed: u8) -> Result<Client, Error> {
    let mut options = Options::default();
    options.identity = (seed > 0).then(|| key(seed).0);
    options.reconnect = None;
    Client::connect(url, options).await
}

pub(crate) async fn call(client: &Client, method: &str, args: Value) -> Result<Value, Error> {
    tokio::time::timeout(PATIENCE, client.call_typed(method, &args)).await.expect("it is answered in time")
}

/// A call with an idempotency key.
pub(crate) async fn call_named(
    client: &Client,
    key: [u8; 16],
    method: &str,
    args: &Value,
) -> Result<Value, Error> {
    let options = CallOptions { idempotency_key: Some(key.into()), ..CallOptions::default() };
    client.call_with(method, Json::encode(args)?, options).await?.decode()
}

pub(crate) fn code(result: Result<Value, Error>) -> ErrorCode {
    let error = result.expect_err("it is refused");
    error.code().unwrap_or_else(|| panic!("{error} has a code"))
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Statements of the daemons that Postgres works on now; and of those, the ones that wait for a lock.
pub(crate) async fn active(admin: &tokio_postgres::Client) -> (i64, i64) {
    let sql = "SELECT count(*), count(*) FILTER (WHERE wait_event_type = 'Lock') FROM pg_stat_activity \
               WHERE application_name = 'raystream' AND state <> 'idle' AND datname = current_database()";
    let row = admin.query_one(sql, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

/// Holds the lock of a document.
pub(crate) async fn lock_row(server: &Server, id: &str) -> tokio_postgres::Client {
    let client = server.client(1).await;
    call(&client, "table.set", serde_json::json!({"table": "t", "id": id, "data": 1})).await.unwrap();
    let ptr = call(&client, "table.ptr", serde_json::json!({"table": "t"})).await.unwrap();
    let holder = server.admin().await;
    let (schema, table) = ptr["ptr"].as_str().unwrap().split_once('.').unwrap();
    let lock = format!("BEGIN; UPDATE \"{schema}\".\"{table}\" SET data = '2' WHERE id = '{id}'");
    holder.batch_execute(&lock).await.unwrap();
    holder
}
