//! Transactions of the Rust client: a closure that runs again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use raystream::client::{Client, Error, Isolation, TransactionOptions};
use raystream::wire::ErrorCode;
use serde_json::{Value, json};

use crate::server::{Server, active, call, eventually, lock_row};
use crate::tx::{get, in_transaction, set};

/// Attempts are not what these tests are about: machines are shared.
fn patient() -> TransactionOptions {
    let mut options = TransactionOptions::default();
    options.retry.attempts_max = 1_000;
    options
}

async fn increment(client: &Client, options: TransactionOptions, runs: &AtomicU32) -> Result<i64, Error> {
    let increment = client.transaction(options, |tx| async move {
        runs.fetch_add(1, Ordering::Relaxed);
        let found: Value = tx.call_typed("table.get", &json!({"table": "t", "id": "n"})).await?;
        let next = found["data"].as_i64().unwrap() + 1;
        tx.call("table.set", &json!({"table": "t", "id": "n", "data": next})).await?;
        Ok(next)
    });
    increment.await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_increments_are_all_counted() {
    const TASKS: u32 = 8;
    const EACH: u32 = 6;
    let server = Server::start().await;
    let other = server.another();
    let clients = [server.client(1).await, other.client(2).await];
    for isolation in [Isolation::Snapshot, Isolation::Serializable] {
        set(&clients[0], "n", 0).await;
        let runs = Arc::new(AtomicU32::new(0));
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let client = clients[usize::try_from(task % 2).unwrap()].clone();
                let runs = Arc::clone(&runs);
                tokio::spawn(async move {
                    for _ in 0..EACH {
                        let mut options = patient();
                        options.isolation = isolation;
                        increment(&client, options, &runs).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(get(&clients[1], "n").await, TASKS * EACH);
        let runs = runs.load(Ordering::Relaxed);
        assert!(runs >= TASKS * EACH, "{runs}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_are_bounded_and_only_conflicts_are_tried_again() {
    let server = Server::start().await;
    let client = server.client(1).await;
    set(&client, "n", 0).await;
    let runs = AtomicU32::new(0);
    let mut options = TransactionOptions::default();
    options.retry.attempts_max = 3;
    let lost = client
        .transaction(options, |tx| {
            let (runs, client) = (&runs, &client);
            async move {
                runs.fetch_add(1, Ordering::Relaxed);
                // Somebody else is always first.
                set(client, "n", 7).await;
                tx.call("table.set", &json!({"table": "t", "id": "n", "data": 8})).await
            }
        })
        .await;
    let lost: Result<_, Error> = lost;
    assert_eq!(lost.unwrap_err().code(), Some(ErrorCode::CONFLICT));
    assert_eq!(runs.swap(0, Ordering::Relaxed), 3);

    let refused: Result<(), Error> = client
        .transaction(TransactionOptions::default(), |tx| {
            let runs = &runs;
            async move {
                runs.fetch_add(1, Ordering::Relaxed);
                tx.call("table.set", &json!({"table": "t", "id": "a", "data": 1})).await?;
                tx.call("table.get", &json!({"table": "none", "id": "a"})).await.map(drop)
            }
        })
        .await;
    assert_eq!(refused.unwrap_err().code(), Some(ErrorCode::NOT_FOUND));
    assert_eq!(runs.swap(0, Ordering::Relaxed), 1);
    assert_eq!(get(&client, "a").await, Value::Null, "an error of the closure rolls back");

    // A guard that does not hold is seen anew by the next attempt.
    let guarded = client
        .transaction(TransactionOptions::default(), |tx| {
            let runs = &runs;
            async move {
                let version = i64::from(runs.fetch_add(1, Ordering::Relaxed));
                let args = json!({"table": "t", "id": "g", "data": 1, "if_version": 1 - version.min(1)});
                tx.call("table.set", &args).await
            }
        })
        .await;
    let guarded: Result<_, Error> = guarded;
    guarded.unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_runs_again_when_its_process_or_its_connection_is_lost() {
    let mut server = Server::start().await;
    let admin = server.admin().await;
    let mut options = raystream::client::Options::default();
    options.identity = Some(crate::server::key(1).0);
    let client = Client::connect(&server.url, options).await.unwrap();
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'raystream' \
                AND datname = current_database() AND state LIKE 'idle in transaction%'";
    let runs = AtomicU32::new(0);
    let (begun, mut seen) = tokio::sync::mpsc::channel(1);
    let (go_on, proceed) = tokio::sync::mpsc::channel::<()>(1);
    let proceed = tokio::sync::Mutex::new(proceed);
    let work = client.transaction(patient(), |tx| {
        let (runs, begun, proceed) = (&runs, begun.clone(), &proceed);
        async move {
            let run = runs.fetch_add(1, Ordering::Relaxed);
            tx.call("table.push", &json!({"table": "t", "data": run})).await?;
            if run < 2 {
                begun.send(()).await.unwrap();
                proceed.lock().await.recv().await.unwrap();
            }
            tx.call("table.push", &json!({"table": "t", "data": run})).await?;
            Ok::<_, Error>(run)
        }
    });
    let faults = async {
        seen.recv().await.unwrap();
        admin.query_one(kill, &[]).await.unwrap();
        eventually("it is gone", async || in_transaction(&admin).await == 0).await;
        go_on.send(()).await.unwrap();
        seen.recv().await.unwrap();
        server.kill();
        server.restart();
        go_on.send(()).await.unwrap();
    };
    let (done, ()) = tokio::join!(work, faults);
    assert_eq!(done.unwrap(), 2);
    let count = call(&client, "table.count", json!({"table": "t"})).await.unwrap();
    assert_eq!(count, json!({"count": 2}), "only the last run was committed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_whose_future_is_dropped_is_rolled_back() {
    let server = Server::start_with(
        "lock_timeout = \"10m\"\n[limits]\ntransaction_idle = \"10m\"\ntransaction_time = \"10m\"",
    )
    .await;
    let (holder, admin, client) =
        (lock_row(&server, "a").await, server.admin().await, server.client(1).await);
    for is_in_a_call in [true, false] {
        let task = tokio::spawn({
            let client = client.clone();
            async move {
                let work = client.transaction(TransactionOptions::default(), |tx| async move {
                    tx.call("table.set", &json!({"table": "t", "id": "b", "data": 1})).await?;
                    if is_in_a_call {
                        tx.call("table.set", &json!({"table": "t", "id": "a", "data": 1})).await?;
                    }
                    std::future::pending::<Result<(), Error>>().await
                });
                work.await
            }
        });
        eventually("it has begun", async || match is_in_a_call {
            true => active(&admin).await.1 == 1,
            false => {
                let held = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'raystream' AND \
                            datname = current_database() AND state LIKE 'idle in %' AND query LIKE 'INSERT INTO \"raystream\"%'";
                admin.query_one(held, &[]).await.unwrap().get::<_, i64>(0) == 1
            }
        })
        .await;
        task.abort();
        eventually("it is rolled back", async || {
            in_transaction(&admin).await == 0 && active(&admin).await == (0, 0)
        })
        .await;
        assert_eq!(get(&client, "b").await, Value::Null);
    }
    holder.batch_execute("ROLLBACK").await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), client.close()).await.unwrap();
}
