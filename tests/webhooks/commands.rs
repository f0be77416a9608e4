//! The command line, and what it shows.

use std::process::{Command, Stdio};

use raystream::client::Client;
use serde_json::{Value, json};
use tokio_postgres::config::Host;

use crate::receiver::Receiver;
use crate::server::{Server, call};

/// The section that lets messages go to the receivers of the tests.
pub(crate) const ALLOWED: &str = "[webhooks]\nallow_private = [\"127.0.0.1\"]\n";

/// The address of a database, as an operator writes it.
pub(crate) fn address(database: &tokio_postgres::Config) -> String {
    let Some(Host::Unix(socket)) = database.get_hosts().first() else { panic!("a unix socket") };
    let (user, name) = (database.get_user().unwrap(), database.get_dbname().unwrap());
    format!("host={} user={user} dbname={name}", socket.display())
}

/// Runs `raystream webhook ..` with `--json`: status, the lines of the result, standard error.
pub(crate) fn webhook(database: &tokio_postgres::Config, args: &[&str]) -> (Option<i32>, Vec<Value>, String) {
    webhook_with(database, args, "[\"127.0.0.1\"]")
}

pub(crate) fn webhook_with(
    database: &tokio_postgres::Config,
    args: &[&str],
    allowed: &str,
) -> (Option<i32>, Vec<Value>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_raystream"))
        .args(["--json", "webhook", args[0], "--database", &address(database)])
        .args(&args[1..])
        .env("RAYSTREAM_WEBHOOKS__ALLOW_PRIVATE", allowed)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code(), lines, String::from_utf8(output.stderr).unwrap())
}

/// The same, for what has to succeed.
pub(crate) fn done(server: &Server, args: &[&str]) -> Vec<Value> {
    let (code, lines, error) = webhook(&server.database, args);
    assert_eq!(code, Some(0), "{args:?}: {error}");
    lines
}

/// Makes a webhook for the table `t`: its id and its secret.
pub(crate) fn add(server: &Server, url: &str, more: &[&str]) -> (String, String) {
    let lines = done(server, &[&["add", url, "--table", "t"], more].concat());
    let text = |key: &str| lines[0][key].as_str().unwrap_or_default().to_owned();
    (text("id"), text("secret"))
}

pub(crate) fn status(server: &Server, id: &str) -> Value {
    done(server, &["status", id])[0].clone()
}

/// Waits until a webhook is as it should be. Each look is a process, so there is a pause between them.
pub(crate) async fn until_shown(
    what: &str,
    server: &Server,
    id: &str,
    holds: impl Fn(&Value) -> bool,
) -> Value {
    let until = std::time::Instant::now() + crate::server::PATIENCE;
    loop {
        let shown = status(server, id);
        if holds(&shown) {
            return shown;
        }
        assert!(std::time::Instant::now() < until, "{what}: {shown}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// Disables a webhook, and waits until the daemon has seen it.
pub(crate) async fn disable(server: &Server, id: &str) {
    done(server, &["disable", id]);
    until_shown("nobody sends", server, id, |shown| shown["holder"].is_null()).await;
}

pub(crate) async fn set(client: &Client, id: &str, data: Value) {
    call(client, "table.set", json!({"table": "t", "id": id, "data": data})).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_are_added_listed_and_removed() {
    let server = Server::start_with(ALLOWED).await;
    let receiver = Receiver::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    std::fs::write(&file, format!("{secret}\n")).unwrap();

    let (first, made) = add(&server, &receiver.url(), &[]);
    assert!(made.starts_with("whsec_") && made.len() > 40, "{made}");
    let (second, none) = add(
        &server,
        &receiver.url(),
        &["--op", "insert,delete", "--secret-file", file.to_str().unwrap(), "--attempts", "3"],
    );
    assert_eq!(none, "", "a secret of the operator's own is not shown");

    let list = done(&server, &["list"]);
    assert_eq!(list.iter().map(|one| one["id"].as_str().unwrap()).collect::<Vec<_>>(), [&first, &second]);
    assert_eq!(list[1]["operations"], json!(["insert", "delete"]));
    assert_eq!((&list[1]["attempts_max"], &list[0]["dead"]), (&json!(3), &json!(0)));
    let shown = format!("{list:?}");
    assert!(!shown.contains("whsec_") && !shown.contains(&made[6..]), "secrets are shown once");

    assert_eq!(done(&server, &["remove", &first])[0], json!({"removed": first}));
    assert_eq!(done(&server, &["list"]).len(), 1);
    let client = server.client(1).await;
    set(&client, "a", json!(1)).await;
    call(&client, "table.update", json!({"table": "t", "id": "a", "data": {"b": 1}})).await.ok();
    call(&client, "table.delete", json!({"table": "t", "id": "a"})).await.unwrap();
    let events = receiver.until_events(2).await;
    assert!(events.iter().all(|event| event.id().starts_with(&second)), "the first one is gone");
    assert_eq!(
        events.iter().map(|event| event.json()["type"].clone()).collect::<Vec<_>>(),
        ["insert", "delete"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_a_webhook_is_refused_with_the_reason() {
    let server = Server::start_with(ALLOWED).await;
    let (id, _) = add(&server, "https://hooks.example/", &[]);
    for (args, exit, text) in [
        (&["add", "https://h.example/", "--table", "nothing"][..], 1, "there is no table `nothing`"),
        (&["add", "https://h.example/", "--table", "t; DROP"], 64, "a table's name"),
        (&["add", "ftp://h.example/", "--table", "t"], 64, "begins with https://"),
        (&["add", "https://u:p@h.example/", "--table", "t"], 64, "has a user in it"),
        (&["add", "http://127.0.0.2/", "--table", "t"], 1, "not an address of the public internet"),
        (&["add", "https://[::1]/", "--table", "t"], 1, "not an address of the public internet"),
        (&["add", "http://8.8.8.8/", "--table", "t"], 1, "without TLS"),
        (&["add", "https://h.example/", "--table", "t", "--op", "truncate"], 64, "is no operation"),
        (&["add", "https://h.example/", "--table", "t", "--attempts", "0"], 64, "0"),
        (
            &["add", "https://h.example/", "--table", "t", "--secret-file", "/dev/null"],
            1,
            "a secret is `whsec_`",
        ),
        (&["status", "wh_0"], 1, "there is no webhook `wh_0`"),
        (&["remove", "wh_0"], 1, "there is no webhook `wh_0`"),
        (&["replay", "wh_0", "--from", "now"], 1, "there is no webhook `wh_0`"),
        (&["replay", &id, "--from", "yesterday"], 1, "this is no cursor"),
        (&["retry", &id], 64, "EVENT"),
        (&["retry", &id, "wh_1"], 1, "there is no dead letter `wh_1`"),
    ] {
        let (code, lines, error) = webhook(&server.database, args);
        assert_eq!((code, lines.len()), (Some(exit), 0), "{args:?}: {error}");
        assert!(error.contains(text), "{args:?}: {error}");
    }
    let (code, _, error) =
        webhook_with(&server.database, &["add", "http://127.0.0.1/", "--table", "t"], "[]");
    assert!(code == Some(1) && error.contains("allow_private"), "{error}");
}
