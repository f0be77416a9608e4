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

/// That Postgres has not crashed is what makes its word on an earlier transaction good.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_ends_the_lifetime_that_outcomes_are_judged_by_and_a_restart_does_not() {
    let mut server = Server::start(None).await;
    let daemon = Daemon::start(&format!("url = \"{}\"\n", server.address("app", "sslmode=disable")));
    let client = daemon.client().await;
    client.call("table.create", &json!({"table": "t"})).await.unwrap();
    let batch = json!({"calls": [{"method": "table.push", "args": {"table": "t", "data": 1}}]});
    let written = async || client.call("table.batch", &batch).await.is_ok();
    assert!(written().await);
    let lifetime = async |server: &Server| {
        let row =
            server.admin("app").await.query_opt("SELECT token::text FROM raystream.lifetime", &[]).await;
        row.unwrap().map(|row| row.get::<_, String>(0))
    };
    let first = lifetime(&server).await;
    assert!(first.is_some());

    server.stop();
    server.run(&[]).await;
    eventually("it goes on", written).await;
    assert_eq!(lifetime(&server).await, first, "nothing was lost");

    // A process that dies takes all others with it, and what is not logged.
    let victim = server.admin("app").await;
    let process: i32 = victim.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let sent = std::process::Command::new("kill").args(["-KILL", &process.to_string()]).status();
    assert!(sent.unwrap().success());
    eventually("it is noticed", async || victim.is_closed()).await;
    eventually("it goes on", written).await;
    let second = lifetime(&server).await;
    assert!(second.is_some() && second != first, "{first:?} {second:?}");
}
