//! Idempotency keys on a real daemon: each writing method done once, also over kills of the daemon.

use super::support::{PATIENCE, TestDaemon, shared};
use raystream::client::{CallOptions, Client, Error, IdempotencyKey, Json, Options, Response, StreamOptions};
use raystream::wire::ErrorCode;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

async fn connect(daemon: &TestDaemon) -> Client {
    let mut options = Options::default();
    options.retry_budget.reserve = 1_000;
    Client::connect(&daemon.url, options).await.unwrap()
}

fn new_key() -> IdempotencyKey {
    IdempotencyKey::random().unwrap()
}

async fn call(client: &Client, method: &str, args: &Value, key: IdempotencyKey) -> Result<Response, Error> {
    let options = CallOptions { idempotency_key: Some(key), ..CallOptions::default() };
    client.call_response(method, Json::new(args.to_string()), options).await
}

async fn value(client: &Client, method: &str, args: &Value, key: IdempotencyKey) -> Value {
    let response = call(client, method, args, key).await.unwrap_or_else(|error| panic!("{method}: {error}"));
    response.result.decode().unwrap()
}

async fn code(client: &Client, method: &str, args: &Value, key: IdempotencyKey) -> ErrorCode {
    call(client, method, args, key).await.expect_err("it is refused").code().unwrap()
}

async fn plain(client: &Client, method: &str, args: Value) -> Value {
    client.call_typed(method, &args).await.unwrap()
}

#[tokio::test]
async fn each_method_that_writes_is_done_once_under_a_key() {
    let daemon = shared();
    let client = connect(&daemon).await;
    let table = "keyed";
    let (one, two) = (json!({"table": table, "id": "a", "data": {"n": 1}}), json!({"table": table}));
    // The first makes its table in the same transaction.
    let calls = [
        ("table.set", one.clone(), Some(json!({"version": 1}))),
        ("table.update", json!({"table": table, "id": "a", "data": {"m": 2}}), Some(json!({"version": 2}))),
        ("table.push", json!({"table": table, "data": 1}), None),
        ("table.push", json!({"table": table, "data": 2}), None),
        ("table.pop", two.clone(), None),
        ("table.shift", two.clone(), None),
        ("table.delete", json!({"table": table, "id": "a"}), Some(json!({"deleted": false}))),
        ("table.set", one, Some(json!({"version": 4}))),
        ("table.delete", json!({"table": table, "id": "a"}), Some(json!({"deleted": true}))),
        ("table.create", json!({"table": "keyed_made"}), Some(json!({"created": true}))),
    ];
    let log = "SELECT count(*) FROM raystream.changes WHERE ptr = (SELECT ptr FROM raystream.storage \
               WHERE name = 'keyed')";
    for (method, args, expected) in calls {
        let key = new_key();
        let first = value(&client, method, &args, key).await;
        assert!(expected.is_none_or(|expected| expected == first), "{method}: {first}");
        let changes = daemon.sql(log);
        for _ in 0..2 {
            assert_eq!(value(&client, method, &args, key).await, first, "{method}");
        }
        assert_eq!(daemon.sql(log), changes, "{method} was done again");
    }
    // 1 is what is left: 2 was popped, `a` was shifted.
    let left = plain(&client, "table.query", json!({"table": table})).await;
    assert_eq!(left["items"].as_array().unwrap().len(), 1, "{left}");
    assert_eq!(left["items"][0]["data"], 1);
    let made = code(&client, "table.create", &json!({"table": "keyed_made"}), new_key()).await;
    assert_eq!(made, ErrorCode::ALREADY_EXISTS);
}

#[tokio::test]
async fn a_key_is_good_for_one_request_and_reads_ignore_it() {
    let daemon = shared();
    let client = connect(&daemon).await;
    let key = new_key();
    let push = |n: i32| json!({"table": "one_request", "data": n});
    value(&client, "table.push", &push(1), key).await;
    for (method, args) in [("table.push", push(2)), ("table.pop", json!({"table": "one_request"}))] {
        let error = call(&client, method, &args, key).await.expect_err("another request");
        assert_eq!(error.code(), Some(ErrorCode::INVALID_REQUEST), "{error}");
        assert!(error.to_string().contains("under this idempotency key"), "{error}");
    }
    let count = json!({"table": "one_request"});
    assert_eq!(value(&client, "table.count", &count, key).await, json!({"count": 1}));
    value(&client, "table.push", &push(2), new_key()).await;
    assert_eq!(value(&client, "table.count", &count, key).await, json!({"count": 2}));

    let mut options = StreamOptions::sending();
    options.idempotency_key = Some(key);
    let refused = async {
        let mut call = client.open("table.import", Json::new(count.to_string()), options).await?;
        call.end();
        call.result().await
    };
    let error = refused.await.expect_err("an import has no key");
    assert_eq!(error.code(), Some(ErrorCode::INVALID_REQUEST), "{error}");
}

#[tokio::test]
async fn the_same_call_at_the_same_moment_is_done_once() {
    let daemon = shared();
    let client = connect(&daemon).await;
    for round in 0..20 {
        let (key, args) = (new_key(), json!({"table": "at_once", "data": round}));
        let calls = (0..16).map(|_| value(&client, "table.push", &args, key));
        let replies = futures_util::future::join_all(calls).await;
        assert!(replies.iter().all(|reply| *reply == replies[0]), "{replies:?}");
        let count = plain(&client, "table.count", json!({"table": "at_once"})).await;
        assert_eq!(count, json!({"count": round + 1}));
    }
}

#[tokio::test]
async fn a_call_that_fails_leaves_its_key_free() {
    let daemon = shared();
    let client = connect(&daemon).await;
    let key = new_key();
    plain(&client, "table.set", json!({"table": "failing", "id": "other", "data": 1})).await;
    let update = json!({"table": "failing", "id": "a", "data": {"m": 1}});
    assert_eq!(code(&client, "table.update", &update, key).await, ErrorCode::NOT_FOUND);
    // Not even for the same request.
    let set = json!({"table": "failing", "id": "a", "data": {}});
    assert_eq!(value(&client, "table.set", &set, key).await, json!({"version": 1}));
    assert_eq!(code(&client, "table.update", &update, key).await, ErrorCode::INVALID_REQUEST);
    // What Postgres refuses is undone as well, and the session is good for the next.
    let (key, endless) = (new_key(), Json::new(r#"{"table": "failing", "data": 1e999999}"#));
    let options = CallOptions { idempotency_key: Some(key), ..CallOptions::default() };
    let refused = client.call_response("table.push", endless, options).await.expect_err("out of range");
    assert_eq!(refused.code(), Some(ErrorCode::INVALID_REQUEST));
    let push = json!({"table": "failing", "data": 1});
    assert!(value(&client, "table.push", &push, key).await["id"].is_string());
}

#[tokio::test]
async fn a_table_or_a_session_that_is_gone_is_found_anew() {
    let daemon = TestDaemon::start();
    let client = connect(&daemon).await;
    let push = json!({"table": "t", "data": 1});
    value(&client, "table.push", &push, new_key()).await;
    // Now the name is known to the daemon.
    assert_eq!(plain(&client, "table.count", json!({"table": "t"})).await, json!({"count": 1}));
    let physical = daemon.physical("t");
    daemon.sql(&format!("DROP TABLE {physical}; DELETE FROM raystream.storage WHERE name = 't'"));
    value(&client, "table.push", &push, new_key()).await;
    assert_eq!(plain(&client, "table.count", json!({"table": "t"})).await, json!({"count": 1}));

    // A name that leads to nothing is answered, not tried for ever.
    let physical = daemon.physical("t");
    daemon.sql(&format!("DROP TABLE {physical}"));
    assert_eq!(code(&client, "table.push", &push, new_key()).await, ErrorCode::NOT_FOUND);
    daemon.sql("DELETE FROM raystream.storage WHERE name = 't'");

    value(&client, "table.push", &push, new_key()).await;
    daemon.sql(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
    );
    value(&client, "table.push", &push, new_key()).await;
    assert_eq!(plain(&client, "table.count", json!({"table": "t"})).await, json!({"count": 2}));
}

/// Up to 50 ms, so that every stage of a call is met.
fn random_pause() -> Duration {
    let [low, high, ..] = new_key().0;
    Duration::from_micros(u64::from(u16::from_le_bytes([low, high])) * 50_000 / 65_536)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_with_a_key_is_done_once_over_kills_of_the_daemon() {
    const KILLS: usize = 30;
    let mut daemon = TestDaemon::start();
    let client = connect(&daemon).await;
    let (pushed, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let pushing = tokio::spawn({
        let (pushed, stop) = (Arc::clone(&pushed), Arc::clone(&stop));
        async move {
            let mut repeated = 0;
            while !stop.load(Ordering::Relaxed) {
                let (key, n) = (new_key(), pushed.load(Ordering::Relaxed));
                let args = json!({"table": "killed", "data": {"n": n}});
                let begun = Instant::now();
                // When the client gives up, whoever has the key goes on.
                let response = loop {
                    match call(&client, "table.push", &args, key).await {
                        Ok(response) => break response,
                        Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
                    }
                };
                repeated += usize::from(response.attempts > 1);
                pushed.fetch_add(1, Ordering::Relaxed);
            }
            repeated
        }
    });
    for _ in 0..KILLS {
        let before = pushed.load(Ordering::Relaxed);
        while pushed.load(Ordering::Relaxed) == before {
            assert!(!pushing.is_finished(), "the pushes go on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(random_pause()).await;
        tokio::task::block_in_place(|| daemon.kill_and_restart());
    }
    stop.store(true, Ordering::Relaxed);
    let repeated = pushing.await.unwrap();
    let pushed = pushed.load(Ordering::Relaxed);
    assert!(repeated > 0, "no kill met a call, of {pushed}");
    let counts = format!("SELECT count(*) || ' ' || count(DISTINCT data) FROM {}", daemon.physical("killed"));
    assert_eq!(daemon.sql(&counts), format!("{pushed} {pushed}"));
}
