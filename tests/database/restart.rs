//! Postgres goes away and comes back: readiness says so, and nothing has to be started again.

use raystream::wire::ErrorCode;
use serde_json::json;

use crate::certificates::{Certificates, HOST};
use crate::daemon::Daemon;
use crate::eventually;
use crate::server::{PASSWORD, Server};

#[tokio::test(flavor = "multi_thread")]
async fn readiness_follows_a_restart_of_postgres_behind_tls() {
    let certificates = Certificates::make();
    let mut server = Server::start(Some(&certificates)).await;
    // All of TLS from the configuration, nothing of it in the URL.
    let daemon = Daemon::start(&format!(
        "url = \"{}\"\nsslmode = \"verify-full\"\nsslrootcert = {:?}\nsslcert = {:?}\nsslkey = {:?}\n",
        server.address("needs_cert", &format!("host={HOST}")),
        certificates.file("ca"),
        certificates.file("client"),
        certificates.file("client-key"),
    ));
    let client = daemon.client().await;
    client.call("table.create", &json!({"table": "t"})).await.unwrap();
    let set = json!({"table": "t", "id": "a", "data": 1});
    client.call("table.set", &set).await.unwrap();
    assert_eq!(daemon.ready(), 200);

    server.stop();
    eventually("not ready", async || daemon.ready() == 503).await;
    let error = client.call("table.set", &set).await.expect_err("there is no Postgres");
    assert_eq!(error.code(), Some(ErrorCode::SERVICE_UNAVAILABLE), "{error}");
    assert!(error.retry_after().is_some_and(|wait| !wait.is_zero()), "{error:?}");

    server.run(&[]).await;
    eventually("ready", async || daemon.ready() == 200).await;
    client.call("table.set", &set).await.expect("it goes on by itself");
    let log = daemon.log();
    let key = std::fs::read_to_string(certificates.file("client-key")).unwrap();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "everything is logged");
    assert!(!log.contains(PASSWORD), "the password is in the log");
    assert!(key.lines().all(|line| line.len() < 20 || !log.contains(line)), "the key is in the log");
}
