//! Transactions that end because something else does: their connection, a call of theirs, their process of Postgres.

use std::time::Duration;

use raystream::client::{CallOptions, Json};
use raystream::conn::Event;
use raystream::wire::ErrorCode;
use serde_json::{Value, json};

use crate::raw::Raw;
use crate::server::{Server, active, call, eventually, lock_row};
use crate::tx::{Tx, get, in_transaction, refused, rolled_back, set};

const LONG_LOCKS: &str = "lock_timeout = \"10m\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_connection_rolls_back() {
    let server = Server::start_with(LONG_LOCKS).await;
    let (admin, other) = (server.admin().await, server.client(2).await);
    // One waits for its next call, one is in the middle of a call, and one has calls in line.
    let _holder = lock_row(&server, "locked").await;
    let client = server.client(1).await;
    let idle = Tx::snapshot(&client).await;
    idle.set("a", 1).await.unwrap();
    let busy = Tx::snapshot(&client).await;
    busy.set("b", 1).await.unwrap();
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let busy = busy.clone();
            tokio::spawn(async move { busy.set("locked", 5).await })
        })
        .collect();
    eventually("it waits for the lock", async || active(&admin).await.1 == 1).await;
    assert_eq!(in_transaction(&admin).await, 1);
    client.close().await;
    for call in calls {
        call.await.unwrap().expect_err("there is no connection");
    }
    eventually("both are rolled back", async || {
        in_transaction(&admin).await == 0 && active(&admin).await == (0, 0)
    })
    .await;
    // Nothing holds what they held.
    set(&other, "a", 2).await;
    set(&other, "b", 2).await;
    eventually("their places are free", async || {
        call(&other, "tx.minActiveTxid", json!({})).await.unwrap()["minActiveTxid"].is_null()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_cancelled_ends_its_transaction_and_says_so() {
    let server = Server::start_with(LONG_LOCKS).await;
    let (_holder, admin) = (lock_row(&server, "a").await, server.admin().await);
    let url = server.url.clone();
    let (waits, go_on) = (std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel::<()>());
    let (called, stop) = (waits.0, go_on.1);
    let raw = tokio::task::spawn_blocking(move || {
        let mut raw = Raw::connect(&url);
        let answer = |raw: &mut Raw, stream: u32| loop {
            for event in raw.receive() {
                match event {
                    Event::Error(at, error) if at == stream => return Err(error),
                    Event::Response(at, response) if at == stream => return Ok(response.result),
                    _ => {}
                }
            }
        };
        let begin = raw.call("tx.begin", "{}".to_owned());
        raw.flush();
        let begun: Value = serde_json::from_slice(&answer(&mut raw, begin).unwrap()).unwrap();
        let sid = begun["sid"].as_str().unwrap().to_owned();
        let set = |id: &str| format!(r#"{{"table":"t","id":"{id}","data":3,"sid":"{sid}"}}"#);
        let first = raw.call("table.set", set("b"));
        raw.flush();
        answer(&mut raw, first).unwrap();
        let locked = raw.call("table.set", set("a"));
        let behind = raw.call("tx.commit", format!(r#"{{"sid":"{sid}"}}"#));
        raw.flush();
        called.send(()).unwrap();
        stop.recv().unwrap();
        raw.cancel(locked);
        raw.flush();
        let cancelled = answer(&mut raw, locked).unwrap_err();
        let late = raw.call("tx.status", format!(r#"{{"sid":"{sid}"}}"#));
        raw.flush();
        let status: Value = serde_json::from_slice(&answer(&mut raw, late).unwrap()).unwrap();
        let _ = behind;
        (cancelled, status, raw)
    });
    waits.1.recv().unwrap();
    eventually("it waits for the lock", async || active(&admin).await.1 == 1).await;
    go_on.0.send(()).unwrap();
    let (cancelled, status, _raw) = raw.await.unwrap();
    assert_eq!((cancelled.code, cancelled.retryable), (ErrorCode::CANCELLED, false));
    assert_eq!(&cancelled.details[..], br#"{"transaction":"rolled_back"}"#);
    assert_eq!(active(&admin).await, (0, 0), "the answer came when it had stopped");
    assert_eq!((status["state"].as_str(), in_transaction(&admin).await), (Some("rolled_back"), 0));
    assert_eq!(get(&server.client(1).await, "b").await, Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_out_of_time_ends_its_transaction() {
    let server = Server::start_with(LONG_LOCKS).await;
    let (_holder, admin) = (lock_row(&server, "a").await, server.admin().await);
    let client = server.client(1).await;
    let tx = Tx::snapshot(&client).await;
    tx.set("b", 1).await.unwrap();
    let args = json!({"table": "t", "id": "a", "data": 5, "sid": tx.sid});
    let options = CallOptions { timeout: Some(Duration::from_millis(300)), ..CallOptions::default() };
    let slow = client.call_with("table.set", Json::encode(&args).unwrap(), options).await;
    assert_eq!(slow.expect_err("it is out of time").code(), Some(ErrorCode::TIMEOUT));
    let (code, transaction) = refused(tx.commit().await);
    assert!(matches!(code, ErrorCode::TIMEOUT | ErrorCode::CANCELLED), "{code}");
    assert_eq!(transaction.as_deref(), Some("rolled_back"));
    // The client's own clock ended the call, so that nobody said when the server had.
    eventually("nothing of it is left", async || active(&admin).await == (0, 0)).await;
    assert_eq!(get(&client, "b").await, Value::Null);
}

/// What Postgres refuses ends the transaction with the reason of the refusal, at this call and at those behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_fails_ends_its_transaction() {
    let server = Server::start().await;
    let client = server.client(1).await;
    let tx = Tx::snapshot(&client).await;
    tx.set("a", 1).await.unwrap();
    // A number that JSON has and Postgres has not.
    let args = format!(r#"{{"table":"t","id":"b","data":1e200000,"sid":"{}"}}"#, tx.sid);
    let refusal = client.call_with("table.set", Json::new(args), CallOptions::default()).await;
    assert_eq!(refused(refusal), rolled_back(ErrorCode::INVALID_REQUEST));
    assert_eq!(refused(tx.get("a").await), rolled_back(ErrorCode::INVALID_REQUEST));
    assert_eq!(refused(tx.commit().await), rolled_back(ErrorCode::INVALID_REQUEST));
    assert_eq!(get(&client, "a").await, Value::Null);
    // A lock that others do not give up in time is a conflict.
    let _holder = lock_row(&server, "a").await;
    let tx = Tx::snapshot(&client).await;
    let locked = tx.set("a", 2).await;
    assert!(locked.as_ref().is_err_and(|error| error.retryable()), "{locked:?}");
    assert_eq!(refused(locked), rolled_back(ErrorCode::CONFLICT));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_process_of_postgres_ends_its_transaction() {
    let server = Server::start().await;
    let (client, admin) = (server.client(1).await, server.admin().await);
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'raystream' \
                AND datname = current_database() AND state LIKE 'idle in transaction%'";
    for ends_with_commit in [false, true] {
        let tx = Tx::snapshot(&client).await;
        tx.set("a", 1).await.unwrap();
        assert_eq!(admin.query_one(kill, &[]).await.unwrap().get::<_, i64>(0), 1);
        eventually("it is gone", async || in_transaction(&admin).await == 0).await;
        let answer = if ends_with_commit { tx.commit().await } else { tx.set("b", 1).await };
        assert!(answer.as_ref().is_err_and(|error| error.retryable()), "{answer:?}");
        assert_eq!(refused(answer), rolled_back(ErrorCode::SERVICE_UNAVAILABLE));
        assert_eq!(refused(tx.commit().await), rolled_back(ErrorCode::SERVICE_UNAVAILABLE));
        assert_eq!(get(&client, "a").await, Value::Null);
    }
    let tx = Tx::snapshot(&client).await;
    tx.set("a", 1).await.unwrap();
    tx.commit().await.unwrap();
}
