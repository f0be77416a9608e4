//! A connection to Postgres that breaks after COMMIT was sent.

use raystream::client::Error;
use raystream::wire::ErrorCode;
use serde_json::{Value, json};
use tokio_postgres::Client as Postgres;

use crate::postgres::{client as postgres_client, database};
use crate::proxy::Proxy;
use crate::server::{Server, call, eventually};
use crate::tx::{Tx, get, refused, rolled_back};

/// A daemon behind a network that fails when it is told to, and a session of the test's own past it.
pub(crate) async fn behind_proxy() -> (Proxy, Server, Postgres) {
    let (proxy, server, admin, _) = behind_proxy_with("").await;
    (proxy, server, admin)
}

/// The same with lines for the configuration of the database, and with another session past the network.
pub(crate) async fn behind_proxy_with(section: &str) -> (Proxy, Server, Postgres, Postgres) {
    let direct = database().await;
    let (admin, other) = (postgres_client(&direct).await, postgres_client(&direct).await);
    let (proxy, through) = Proxy::start(&direct);
    let server = Server::on(through, section);
    let client = server.client(1).await;
    call(&client, "table.create", json!({"table": "t"})).await.unwrap();
    (proxy, server, admin, other)
}

async fn status(admin: &Postgres, tx: &Tx) -> Option<String> {
    let xid = tx.txid().to_string();
    admin.query_one("SELECT pg_xact_status($1::text::xid8)", &[&xid]).await.unwrap().get(0)
}

/// Makes COMMIT last.
pub(crate) async fn slow_commit(admin: &Postgres, server: &Server) {
    let ptr = call(&server.client(1).await, "table.ptr", json!({"table": "t"})).await.unwrap();
    let table = ptr["ptr"].as_str().unwrap().split_once('.').unwrap().1.to_owned();
    let sql = format!(
        "CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM pg_sleep(600); RETURN NULL; END $$; \
         CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON raystream.\"{table}\" \
         DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.slow()"
    );
    admin.batch_execute(&sql).await.unwrap();
}

/// Sessions of daemons that Postgres works on a COMMIT of.
pub(crate) async fn in_commit(admin: &Postgres) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE query = 'COMMIT' AND state = 'active' \
               AND application_name = 'raystream' AND datname = current_database()";
    admin.query_one(sql, &[]).await.unwrap().get(0)
}

fn committing(tx: &Tx) -> tokio::task::JoinHandle<Result<Value, Error>> {
    let tx = tx.clone();
    tokio::spawn(async move { tx.commit().await })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_was_done_is_answered_as_done() {
    let (mut proxy, server, admin) = behind_proxy().await;
    let client = server.client(1).await;
    let tx = Tx::snapshot(&client).await;
    tx.set("a", 1).await.unwrap();
    proxy.swallow_answers();
    let commit = committing(&tx);
    eventually("it is committed", async || status(&admin, &tx).await.as_deref() == Some("committed")).await;
    proxy.open();
    proxy.cut();
    assert_eq!(commit.await.unwrap().unwrap(), json!({"committed": true}));
    eventually("the daemon is connected again", async || {
        call(&client, "table.count", json!({"table": "t"})).await.is_ok()
    })
    .await;
    assert_eq!(get(&client, "a").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_was_not_done_is_answered_as_rolled_back() {
    let (mut proxy, server, admin) = behind_proxy().await;
    let client = server.client(1).await;
    let tx = Tx::snapshot(&client).await;
    tx.set("a", 1).await.unwrap();
    proxy.swallow_statements();
    let commit = committing(&tx);
    // Long enough for COMMIT to be sent; when it was not, what follows holds all the more.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    proxy.open();
    proxy.cut();
    let answer = commit.await.unwrap();
    assert!(answer.as_ref().is_err_and(|error| error.retryable()), "{answer:?}");
    assert_eq!(refused(answer), rolled_back(ErrorCode::SERVICE_UNAVAILABLE));
    assert_eq!(status(&admin, &tx).await.as_deref(), Some("aborted"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_during_commit_has_rolled_back() {
    let (_proxy, server, admin) = behind_proxy().await;
    slow_commit(&admin, &server).await;
    let client = server.client(1).await;
    let tx = Tx::snapshot(&client).await;
    tx.set("a", 1).await.unwrap();
    let commit = committing(&tx);
    eventually("it commits", async || in_commit(&admin).await == 1).await;
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query = 'COMMIT' \
                AND state = 'active' AND application_name = 'raystream' AND datname = current_database()";
    assert_eq!(admin.query_one(kill, &[]).await.unwrap().get::<_, i64>(0), 1);
    assert_eq!(refused(commit.await.unwrap()), rolled_back(ErrorCode::SERVICE_UNAVAILABLE));
    assert_eq!(get(&client, "a").await, Value::Null);
}

/// Only the connection is gone; the process does not notice and goes on with COMMIT. It is ended, so that it is decided.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_still_commits_is_ended_and_then_the_truth_is_told() {
    let (proxy, server, admin) = behind_proxy().await;
    slow_commit(&admin, &server).await;
    let client = server.client(1).await;
    let tx = Tx::snapshot(&client).await;
    tx.set("a", 1).await.unwrap();
    let commit = committing(&tx);
    eventually("it commits", async || in_commit(&admin).await == 1).await;
    proxy.cut();
    assert_eq!(refused(commit.await.unwrap()), rolled_back(ErrorCode::SERVICE_UNAVAILABLE));
    assert_eq!(status(&admin, &tx).await.as_deref(), Some("aborted"));
}

/// The session that registers a transaction is lost, before that was done and when it is done nevertheless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_begin_whose_registration_is_lost_is_made_again() {
    let section = "write_connections = 1\nlock_timeout = \"20s\"\n";
    let (proxy, server, admin, locker) = behind_proxy_with(section).await;
    let client = server.client(1).await;
    // What is prepared already waits when it is executed.
    Tx::snapshot(&client).await.commit().await.unwrap();
    let registering = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database() \
                       AND query LIKE 'INSERT INTO raystream.trxs%'";
    let registering_are = async |count: i64| {
        let sql = format!("SELECT count(*) {registering}");
        admin.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0) >= count
    };
    for is_done in [false, true] {
        // It is taken out of the table behind the answer to its commit.
        let registered = "SELECT count(*) FROM raystream.trxs";
        let is_empty = async || admin.query_one(registered, &[]).await.unwrap().get::<_, i64>(0) == 0;
        eventually("the one before is forgotten", is_empty).await;
        locker.batch_execute("BEGIN; LOCK TABLE raystream.trxs").await.unwrap();
        let begun = tokio::spawn({
            let client = client.clone();
            async move { Tx::begin(&client, json!({})).await }
        });
        eventually("it is registered", async || registering_are(1).await).await;
        if is_done {
            // Postgres does not notice, and goes on with both when it can.
            proxy.cut();
            eventually("it is registered again", async || registering_are(2).await).await;
        } else {
            let terminate = format!("SELECT pg_terminate_backend(pid) {registering}");
            admin.batch_execute(&terminate).await.unwrap();
        }
        locker.batch_execute("COMMIT").await.unwrap();
        let tx = begun.await.unwrap().unwrap();
        let row = "SELECT create_txid::text FROM raystream.trxs WHERE sid = $1";
        let registered: String = admin.query_one(row, &[&tx.sid]).await.unwrap().get(0);
        assert_eq!(registered, tx.txid().to_string(), "done: {is_done}");
        tx.set("a", 1).await.unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_nobody_can_be_asked_about_is_unknown() {
    let (mut proxy, server, admin) = behind_proxy().await;
    let client = server.client(1).await;
    let tx = Tx::snapshot(&client).await;
    tx.set("a", 1).await.unwrap();
    proxy.swallow_answers();
    let commit = committing(&tx);
    eventually("it is committed", async || status(&admin, &tx).await.as_deref() == Some("committed")).await;
    proxy.close().await;
    assert_eq!(refused(commit.await.unwrap()), (ErrorCode::UNKNOWN_OUTCOME, None));
    proxy.open();
}
