//! How many, how long, and whose.

use raystream::client::Error;
use raystream::wire::ErrorCode;
use serde_json::{Value, json};

use crate::server::{Server, call, call_named, eventually};
use crate::tx::{Tx, get, in_transaction, refused, rolled_back, unknown};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_is_left_alone_is_rolled_back() {
    let server = Server::start_with("[limits]\ntransaction_idle = \"300ms\"").await;
    let (client, admin) = (server.client(1).await, server.admin().await);
    let tx = Tx::snapshot(&client).await;
    tx.set("a", 1).await.unwrap();
    eventually("it is rolled back", async || tx.status().await.unwrap()["state"] == "rolled_back").await;
    let status = tx.status().await.unwrap();
    assert!(status["reason"].as_str().unwrap().contains("nothing was asked of it for 300ms"), "{status}");
    assert_eq!(in_transaction(&admin).await, 0);
    assert_eq!(refused(tx.get("a").await), rolled_back(ErrorCode::TIMEOUT));
    assert_eq!(refused(tx.commit().await), rolled_back(ErrorCode::TIMEOUT));
    assert_eq!(get(&client, "a").await, Value::Null);
    assert_eq!(tx.roll_back().await.unwrap(), json!({"rolled_back": true}));
    assert_eq!(refused(tx.roll_back().await), unknown(), "now it is forgotten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_lasts_too_long_is_rolled_back_however_busy_it_is() {
    let server = Server::start_with("[limits]\ntransaction_time = \"700ms\"").await;
    let (client, admin) = (server.client(1).await, server.admin().await);
    let tx = Tx::snapshot(&client).await;
    let mut end = None;
    eventually("it is rolled back", async || {
        end = tx.set("a", 1).await.err();
        end.is_some()
    })
    .await;
    assert_eq!(refused(end.map_or(Ok(()), Err)), rolled_back(ErrorCode::TIMEOUT));
    assert_eq!(in_transaction(&admin).await, 0);
    assert_eq!(get(&client, "a").await, Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sid_is_of_the_connection_that_began_it() {
    let server = Server::start().await;
    let owner = server.client(1).await;
    let tx = Tx::snapshot(&owner).await;
    tx.set("a", 1).await.unwrap();
    for stranger in [server.client(2).await, server.client(1).await, server.client(0).await] {
        let stolen = Tx { client: stranger, ..tx.clone() };
        assert_eq!(refused(stolen.get("a").await), unknown());
        assert_eq!(refused(stolen.set("a", 2).await), unknown());
        assert_eq!(refused(stolen.status().await), unknown());
        assert_eq!(refused(stolen.roll_back().await), unknown());
        assert_eq!(refused(stolen.commit().await), unknown());
    }
    tx.commit().await.unwrap();
    assert_eq!(get(&owner, "a").await, 1);
}

/// Full of open transactions, a server still does what it has connections of its own for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_transactions_are_bounded_and_take_nothing_from_batches() {
    let limits = "transaction_connections = 1\n[limits]\ntransactions = 3\ntransactions_per_connection = 2\n\
                  transaction_idle = \"60s\"\ntransaction_time = \"60s\"";
    let server = Server::start_with(limits).await;
    let (one, two) = (server.client(1).await, server.client(2).await);
    let refused_with_pause = |result: Result<Tx, Error>| {
        let error = result.err().expect("there is no place");
        assert_eq!(error.code(), Some(ErrorCode::SERVICE_UNAVAILABLE));
        assert!(error.retryable() && error.retry_after().is_some(), "{error}");
    };
    let first = Tx::snapshot(&one).await;
    let second = Tx::snapshot(&one).await;
    refused_with_pause(Tx::begin(&one, json!({})).await);
    let third = Tx::snapshot(&two).await;
    refused_with_pause(Tx::begin(&two, json!({})).await);
    for client in [&one, &two] {
        let batch = json!({"calls": [{"method": "table.push", "args": {"table": "t", "data": 1}}]});
        call(client, "table.batch", batch).await.unwrap();
        call(client, "table.push", json!({"table": "t", "data": 1})).await.unwrap();
    }
    call_named(&one, [7; 16], "table.push", &json!({"table": "t", "data": 1})).await.unwrap();
    // A place that becomes free is taken by who waits for it.
    let waiting = tokio::spawn({
        let one = one.clone();
        async move { Tx::begin(&one, json!({})).await }
    });
    second.roll_back().await.unwrap();
    waiting.await.unwrap().unwrap();
    first.commit().await.unwrap();
    third.commit().await.unwrap();
}
