//! Calls that end early: by their deadline, by a cancel, by the end of their connection.

use std::time::Duration;

use bytes::Bytes;
use raystream::client::{CallOptions, Json};
use raystream::conn::Event;
use raystream::wire::ErrorCode;
use raystream::wire::envelope::{Overflow, Subscribe};
use serde_json::json;

use crate::raw::Raw;
use crate::server::{Server, active, call, eventually, key, lock_row};

const LONG_LOCKS: &str = "lock_timeout = \"10m\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_out_of_time_is_stopped_in_postgres_and_neighbours_are_not() {
    let server = Server::start_with(&format!("{LONG_LOCKS}\nwrite_connections = 1")).await;
    // Inside of its transaction Postgres tells the holder what was true when it first asked.
    let (holder, admin) = (lock_row(&server, "a").await, server.admin().await);
    let client = server.client(2).await;
    // The deadline goes along with the call; what the client itself would say first is turned off by a longer wait.
    let slow = json!({"table": "t", "id": "a", "data": 5});
    let options = CallOptions { timeout: Some(Duration::from_millis(300)), ..CallOptions::default() };
    let slow = tokio::spawn({
        let client = client.clone();
        async move { client.call_with("table.set", Json::encode(&slow).unwrap(), options).await }
    });
    eventually("it waits for the lock", async || active(&admin).await.1 == 1).await;
    let behind = call(&client, "table.set", json!({"table": "t", "id": "b", "data": 1})).await;
    assert_eq!(behind.unwrap(), json!({"version": 1}), "it was behind the one that was stopped");
    assert_eq!(active(&admin).await, (0, 0));
    slow.await.unwrap().expect_err("it is out of time");
    holder.batch_execute("ROLLBACK").await.unwrap();
    let document = call(&client, "table.get", json!({"table": "t", "id": "a"})).await.unwrap();
    assert_eq!(document["version"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_call_is_answered_when_it_has_stopped() {
    let server = Server::start_with(LONG_LOCKS).await;
    let (_holder, admin) = (lock_row(&server, "a").await, server.admin().await);
    let url = server.url.clone();
    let (waits, go_on) = (std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel::<()>());
    let (called, stop) = (waits.0, go_on.1);
    let raw = tokio::task::spawn_blocking(move || {
        let mut raw = Raw::connect(&url);
        let stream = raw.call("table.set", r#"{"table":"t","id":"a","data":3}"#.to_owned());
        raw.flush();
        called.send(()).unwrap();
        stop.recv().unwrap();
        raw.cancel(stream);
        raw.flush();
        loop {
            for event in raw.receive() {
                match event {
                    Event::Error(at, error) if at == stream => return (raw, error.code),
                    Event::Response(..) => panic!("it was done behind a lock"),
                    _ => {}
                }
            }
        }
    });
    waits.1.recv().unwrap();
    eventually("it waits for the lock", async || active(&admin).await.1 == 1).await;
    go_on.0.send(()).unwrap();
    let (raw, code) = raw.await.unwrap();
    assert_eq!(code, ErrorCode::CANCELLED);
    assert_eq!(active(&admin).await, (0, 0), "the answer came when it had stopped");

    // And the end of a connection stops what it began.
    let mut raw = raw;
    tokio::task::spawn_blocking(move || {
        raw.call("table.set", r#"{"table":"t","id":"a","data":3}"#.to_owned());
        raw.flush();
        std::thread::sleep(Duration::from_millis(100));
    })
    .await
    .unwrap();
    eventually("it stops", async || active(&admin).await == (0, 0)).await;
}

/// Half of a result is no result: who gives a streamed query up is not told how much was read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamed_query_that_is_cancelled_says_so() {
    const CREDIT: u32 = 4;
    let server = Server::start_with("").await;
    let (client, admin) = (server.client(1).await, server.admin().await);
    for id in 0..100 {
        let document = json!({"table": "t", "id": id.to_string(), "data": id});
        call(&client, "table.set", document).await.unwrap();
    }
    let url = server.url.clone();
    let (items, code) = tokio::task::spawn_blocking(move || {
        let mut raw = Raw::connect(&url);
        let stream = raw.call_for_items("table.query", r#"{"table":"t"}"#.to_owned(), CREDIT);
        raw.flush();
        let (mut items, mut is_cancelled) = (0, false);
        loop {
            for event in raw.receive() {
                match event {
                    Event::Data(of, _) if of == stream => items += 1,
                    Event::Error(of, error) if of == stream => return (items, error.code),
                    Event::Response(_, answer) => panic!("answered after {items} items with {answer:?}"),
                    _ => {}
                }
            }
            // The credit is spent, and the query stands still in the middle.
            if items == CREDIT && !is_cancelled {
                is_cancelled = true;
                raw.cancel(stream);
                raw.flush();
            }
        }
    })
    .await
    .unwrap();
    assert_eq!((items, code), (CREDIT, ErrorCode::CANCELLED));
    eventually("nothing is left of it", async || active(&admin).await == (0, 0)).await;
}

/// More futures of calls are dropped than a server forgives refusals: each call stops, and the connection lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_whose_future_is_dropped_is_stopped() {
    let server = Server::start_with(LONG_LOCKS).await;
    let (holder, admin) = (lock_row(&server, "a").await, server.admin().await);
    let client = server.client(1).await;
    for round in 0..6 {
        let calls: Vec<_> = (0..200)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move {
                    call(&client, "table.set", json!({"table": "t", "id": "a", "data": 3})).await
                })
            })
            .collect();
        eventually("some wait for the lock", async || active(&admin).await.1 > 0).await;
        for call in calls {
            call.abort();
        }
        eventually(&format!("all of round {round} stop"), async || active(&admin).await == (0, 0)).await;
    }
    holder.batch_execute("ROLLBACK").await.unwrap();
    let document = call(&client, "table.get", json!({"table": "t", "id": "a"})).await.unwrap();
    assert_eq!(document["version"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_hears_of_the_shutdown_before_its_connection_ends() {
    let server = Server::start().await;
    let ended = tokio::task::spawn_blocking({
        let url = server.url.clone();
        move || {
            let mut raw = Raw::connect_as(&url, Some(key(1).0));
            let subscribe = Subscribe {
                table: "t".into(),
                filter: Bytes::new(),
                cursor: None,
                snapshot: false,
                overflow: Overflow::Close,
                credit: 1,
                topic: None,
            };
            let stream = raw.subscribe(&subscribe);
            // Answered behind it.
            let call = raw.call("sys.echo", r#"{}"#.to_owned());
            raw.answer(call).unwrap();
            (raw, stream)
        }
    });
    let (mut raw, stream) = ended.await.unwrap();
    server.signal("TERM");
    let told = tokio::task::spawn_blocking(move || raw.answer(stream)).await.unwrap();
    assert_eq!(told, Err(ErrorCode::GOING_AWAY));
}
