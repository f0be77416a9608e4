//! `raystream serve`: who is let in, who may do what, and that a change of the rules reaches those who are connected.
use super::support::{PATIENCE, RAYSTREAM, raystream};
use raystream::{
    client::{Client, Error, Item, Options, SubscribeOptions},
    noise::{PublicKey, StaticSecret},
    wire::ErrorCode,
};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

/// A running `raystream serve`, stopped when dropped.
struct Server {
    child: Child,
    url: String,
    folder: tempfile::TempDir,
}

impl Server {
    fn start(access: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write_config(folder.path(), access);
        let log = std::fs::File::create(folder.path().join("log")).expect("a log file");
        let mut child = Command::new(RAYSTREAM)
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(folder.path().join("raystream.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout is piped")).read_line(&mut line).expect("text");
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        assert!(line.starts_with("raystream://"), "{line:?}; its log:\n{log}");
        Self { child, url: line.trim().to_owned(), folder }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    fn stop(mut self) {
        self.signal("TERM");
        let status = self.child.wait().expect("it can be waited for");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal("TERM");
            let _reaped = self.child.wait();
        }
    }
}

fn write_config(folder: &Path, access: &str) {
    let data = folder.join("data");
    let config = format!("data = {data:?}\n{access}\n");
    std::fs::write(folder.join("raystream.toml"), config).expect("the configuration is written");
}

fn key(seed: u8) -> (StaticSecret, PublicKey) {
    let secret = StaticSecret::from_bytes([seed; 32]);
    let public = secret.public_key(raystream::noise::rust_crypto());
    (secret, public)
}

async fn connect(url: &str, secret: Option<&StaticSecret>) -> Result<Client, Error> {
    let mut options = Options::default();
    options.identity = secret.cloned();
    options.reconnect = None;
    Client::connect(url, options).await
}

async fn call(client: &Client, method: &str, args: Value) -> Result<Value, ErrorCode> {
    client.call_typed(method, &args).await.map_err(|error: Error| error.code().expect("a code"))
}

#[tokio::test]
async fn nothing_is_granted_that_is_not_named() {
    let ((writer, writer_key), (reader, reader_key), (stranger, _)) = (key(1), key(2), key(3));
    let rules = |reader_tables: &str| {
        format!(
            r#"
[access.keys]
"{writer_key}" = ["writer"]
"{reader_key}" = ["reader"]
[access.roles.writer]
methods = ["table.*"]
tables = {{ orders = ["read", "write"], secrets = ["read", "write"] }}
[access.roles.reader]
methods = ["table.get", "table.query", "sys.*"]
tables = {{ {reader_tables} }}
"#
        )
    };
    let server = Server::start(&rules(r#"orders = ["read"]"#));
    let writer = connect(&server.url, Some(&writer)).await.unwrap();
    let reader = connect(&server.url, Some(&reader)).await.unwrap();

    // `serve` makes no table by itself.
    let set = |table: &str| json!({"table": table, "id": "a", "data": {"n": 1}});
    assert_eq!(call(&writer, "table.set", set("orders")).await, Err(ErrorCode::NOT_FOUND));
    for table in ["orders", "secrets"] {
        call(&writer, "table.create", json!({"table": table})).await.unwrap();
        call(&writer, "table.set", set(table)).await.unwrap();
    }
    assert_eq!(call(&writer, "table.set", set("others")).await, Err(ErrorCode::PERMISSION_DENIED));
    assert_eq!(call(&writer, "sys.info", json!({})).await, Err(ErrorCode::FORBIDDEN));

    let get = |table: &str| json!({"table": table, "id": "a"});
    assert_eq!(call(&reader, "table.get", get("orders")).await, Ok(json!({"data": {"n": 1}, "version": 1})));
    assert_eq!(call(&reader, "table.get", get("secrets")).await, Err(ErrorCode::PERMISSION_DENIED));
    assert_eq!(call(&reader, "table.get", get("missing")).await, Err(ErrorCode::PERMISSION_DENIED));
    assert_eq!(call(&reader, "table.set", set("orders")).await, Err(ErrorCode::FORBIDDEN));
    let principal = call(&reader, "sys.info", json!({})).await.unwrap()["principal"].clone();
    assert_eq!(principal, json!(reader_key.to_string()));
    let denied = reader.subscribe(SubscribeOptions::new("secrets")).await;
    assert_eq!(denied.err().and_then(|error| error.code()), Some(ErrorCode::PERMISSION_DENIED));

    // Strangers and the anonymous hold keys of the handshake and nothing else.
    for secret in [Some(&stranger), None] {
        let refused = match connect(&server.url, secret).await {
            Ok(client) => client.call("sys.echo", &json!({})).await.err(),
            Err(error) => Some(error),
        };
        let refused = refused.expect("a stranger is not let in").to_string();
        assert!(refused.contains("UNAUTHORIZED") || refused.contains("not let in"), "{refused}");
    }

    // The rules change: the live subscription ends, the connection of who lost everything ends.
    let mut subscription = reader.subscribe(SubscribeOptions::new("orders")).await.unwrap();
    while !matches!(subscription.next().await, Some(Ok(Item::SnapshotEnd { .. }))) {}
    write_config(server.folder.path(), &rules(r#"others = ["read"]"#));
    server.signal("HUP");
    let ended = tokio::time::timeout(PATIENCE, async {
        loop {
            match subscription.next().await {
                Some(Ok(_)) => {}
                end => return end,
            }
        }
    });
    let ended = ended.await.expect("it ends").expect("with a reason").expect_err("an error");
    assert_eq!(ended.code(), Some(ErrorCode::PERMISSION_DENIED));
    assert_eq!(call(&reader, "table.get", get("orders")).await, Err(ErrorCode::PERMISSION_DENIED));

    // A fault in the file leaves the rules in force.
    write_config(server.folder.path(), "[access]\nnonsense = 1");
    server.signal("HUP");
    call(&writer, "table.set", set("orders")).await.unwrap();

    write_config(
        server.folder.path(),
        &format!("[access.keys]\n\"{writer_key}\" = [\"none\"]\n[access.roles.none]"),
    );
    server.signal("HUP");
    let lost = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Err(error) = writer.call("table.get", &get("orders")).await {
                return error;
            }
        }
    });
    let lost = lost.await.expect("the rules reach it");
    assert!(!lost.retryable(), "{lost}");
    server.stop();
}

/// Calls that are running when SIGTERM comes are answered, then the connection says why it ends.
#[tokio::test]
async fn a_drain_lets_calls_finish() {
    for transport in ["raystream://", "raystream+ws://"] {
        drain_with_calls(transport).await;
    }
}

async fn drain_with_calls(transport: &str) {
    let server = Server::start(
        "[access]\nanonymous = [\"all\"]\n[access.roles.all]\nmethods = [\"*\"]\ntables = { \"*\" = [\"read\", \"write\"] }",
    );
    let client = connect(&server.url.replace("raystream://", transport), None).await.unwrap();
    call(&client, "table.create", json!({"table": "t"})).await.unwrap();
    let writes: Vec<_> = (0..100)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(
                async move { call(&client, "table.push", json!({"table": "t", "data": {"n": n}})).await },
            )
        })
        .collect();
    let first = call(&client, "table.count", json!({"table": "t"})).await;
    assert!(first.is_ok());
    server.signal("TERM");
    for write in writes {
        let result = write.await.unwrap();
        let refused = matches!(result, Err(ErrorCode::GOING_AWAY | ErrorCode::UNKNOWN_OUTCOME));
        assert!(result.is_ok() || refused || result.is_err_and(|code| code.is_retryable()), "a clear answer");
    }
    server.stop();
}

/// A WebSocket is a connection as any other: it keeps its place until it ends.
#[tokio::test]
async fn every_transport_has_the_same_places() {
    let server = Server::start(
        "[access]\nanonymous = [\"all\"]\n[access.roles.all]\nmethods = [\"*\"]\n[limits]\nconnections = 1\n",
    );
    for transport in ["raystream+ws://", "raystream://"] {
        let first = connect(&server.url.replace("raystream://", transport), None).await.unwrap();
        let url = server.url.clone();
        let second = tokio::spawn(async move { connect(&url, None).await });
        for _ in 0..100 {
            call(&first, "sys.echo", json!({})).await.unwrap();
        }
        assert!(!second.is_finished(), "{transport}: the only place is taken");
        first.close().await;
        let second = tokio::time::timeout(PATIENCE, second).await.unwrap().unwrap().unwrap();
        call(&second, "sys.echo", json!({})).await.unwrap();
        second.close().await;
    }
    server.stop();
}

#[test]
fn a_configuration_that_cannot_be_meant_is_told_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("raystream.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:0\"\nlissten = 1\n").unwrap();
    let (status, _, err) = raystream(&["serve", "--config", file.to_str().unwrap()]);
    assert_eq!(status, Some(1), "{err}");
    assert!(err.contains("raystream.toml:2") && err.contains("listen"), "{err}");
}

#[test]
fn a_measurement_that_is_not_granted_says_what_has_to_be() {
    let server =
        Server::start("[access]\nanonymous = [\"guest\"]\n[access.roles.guest]\nmethods = [\"sys.echo\"]\n");
    let bench = |scenario: &str| raystream(&["bench", &server.url, scenario, "--duration", "100ms"]);
    let (status, out, err) = bench("get");
    assert_eq!((status, out.as_str()), (Some(1), ""));
    assert!(err.contains("FORBIDDEN: ") && err.contains("hint: ") && err.contains("table.set"), "{err}");
    // What is granted is measured; the server's processor time is not told.
    let (status, out, err) = bench("echo");
    assert_eq!(status, Some(0), "{err}");
    assert!(out.contains("server not known") && err.contains("sys.info"), "{out}{err}");
    server.stop();
}
