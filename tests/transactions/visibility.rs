//! Who sees what, and when.

use raystream::client::{Item, SubscribeOptions};
use raystream::wire::ErrorCode;
use serde_json::{Value, json};

use crate::server::{PATIENCE, Server, call, eventually};
use crate::tx::{Tx, get, refused, rolled_back, set, unknown};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_is_there_and_what_is_rolled_back_never_was() {
    let server = Server::start().await;
    let (client, other) = (server.client(1).await, server.client(2).await);
    let tx = Tx::snapshot(&client).await;
    assert_eq!(tx.begun["owner"], crate::server::key(1).1.to_string());
    tx.set("a", 1).await.unwrap();
    assert_eq!((tx.get("a").await.unwrap(), get(&other, "a").await), (json!(1), Value::Null));
    assert_eq!(tx.commit().await.unwrap(), json!({"committed": true}));
    assert_eq!(get(&other, "a").await, 1);
    for after in [tx.commit().await, tx.roll_back().await, tx.status().await, tx.set("a", 5).await] {
        assert_eq!(refused(after), unknown(), "it is over");
    }

    let tx = Tx::snapshot(&client).await;
    tx.set("a", 2).await.unwrap();
    tx.call("table.create", json!({"table": "new"})).await.unwrap();
    tx.call("table.push", json!({"table": "new", "data": 1})).await.unwrap();
    assert_eq!(tx.roll_back().await.unwrap(), json!({"rolled_back": true}));
    assert_eq!(get(&other, "a").await, 1);
    let gone = call(&other, "table.count", json!({"table": "new"})).await;
    assert_eq!(crate::server::code(gone), ErrorCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_that_of_the_begin() {
    let server = Server::start().await;
    let (client, other) = (server.client(1).await, server.client(2).await);
    set(&other, "a", 1).await;
    let tx = Tx::snapshot(&client).await;
    set(&other, "a", 2).await;
    set(&other, "b", 2).await;
    assert_eq!((tx.get("a").await.unwrap(), tx.get("b").await.unwrap()), (json!(1), Value::Null));
    // And what it would lose cannot be written over.
    assert_eq!(refused(tx.set("a", 3).await), rolled_back(ErrorCode::CONFLICT));
    assert_eq!(refused(tx.commit().await), rolled_back(ErrorCode::CONFLICT), "the commit says so too");
    assert_eq!(get(&other, "a").await, 2);
    assert_eq!(tx.roll_back().await.unwrap(), json!({"rolled_back": true}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_skew_is_a_conflict_when_it_is_serializable() {
    let server = Server::start().await;
    let (one, two) = (server.client(1).await, server.client(2).await);
    for (isolation, is_possible) in [("snapshot", true), ("serializable", false)] {
        set(&one, "a", 1).await;
        set(&one, "b", 1).await;
        let args = json!({"isolation": isolation});
        let first = Tx::begin(&one, args.clone()).await.unwrap();
        let second = Tx::begin(&two, args).await.unwrap();
        for tx in [&first, &second] {
            assert_eq!((tx.get("a").await.unwrap(), tx.get("b").await.unwrap()), (json!(1), json!(1)));
        }
        first.set("a", 0).await.unwrap();
        first.commit().await.unwrap();
        let late = match second.set("b", 0).await {
            Ok(_) => second.commit().await,
            refused => refused,
        };
        assert_eq!(late.is_ok(), is_possible, "{isolation}");
        if let Err(error) = &late {
            assert!(error.retryable(), "{error}");
            assert_eq!(refused(late), rolled_back(ErrorCode::CONFLICT));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_hear_of_it_after_the_commit() {
    let server = Server::start().await;
    let (client, other) = (server.client(1).await, server.client(2).await);
    let mut subscription = other.subscribe(SubscribeOptions::new("t")).await.unwrap();
    let mut next = async || loop {
        let item = tokio::time::timeout(PATIENCE, subscription.next()).await.unwrap().unwrap().unwrap();
        if let Item::Event(change) = item {
            return change.id;
        }
    };
    let tx = Tx::snapshot(&client).await;
    tx.set("inside", 1).await.unwrap();
    set(&other, "outside", 1).await;
    assert_eq!(next().await, "outside");
    tx.set("inside, too", 1).await.unwrap();
    set(&other, "outside again", 1).await;
    assert_eq!(next().await, "outside again");
    tx.commit().await.unwrap();
    assert_eq!((next().await, next().await), ("inside".to_owned(), "inside, too".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_and_the_change_log_are_as_outside() {
    let server = Server::start().await;
    let third = server.client(3).await;
    let all = server.client(1).await;
    call(&all, "table.create", json!({"table": "closed"})).await.unwrap();
    let tx = Tx::snapshot(&third).await;
    let closed = tx.call("table.push", json!({"table": "closed", "data": 1})).await;
    assert_eq!(refused(closed), (ErrorCode::PERMISSION_DENIED, None));
    let batch = json!({"calls": [{"method": "table.push", "args": {"table": "closed", "data": 1}}]});
    assert_eq!(refused(tx.call("table.batch", batch).await), (ErrorCode::PERMISSION_DENIED, None));
    let delete = tx.call("table.delete", json!({"table": "t", "id": "a"})).await;
    assert_eq!(refused(delete), (ErrorCode::FORBIDDEN, None));
    // Which was no reason to end it.
    tx.set("a", 1).await.unwrap();
    let txid = i64::try_from(tx.txid()).unwrap();
    tx.commit().await.unwrap();
    let logged = "SELECT principal FROM raystream.changes WHERE xid = $1::bigint::text::xid8";
    let rows = server.admin().await.query(logged, &[&txid]).await.unwrap();
    let principals: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(principals, [crate::server::key(3).1.to_string()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_transaction_is_known_at_every_daemon() {
    let server = Server::start().await;
    let other = server.another();
    let (here, there) = (server.client(1).await, other.client(1).await);
    let oldest = async || {
        let answer = call(&there, "tx.minActiveTxid", json!({})).await.unwrap();
        answer["minActiveTxid"].as_u64()
    };
    assert_eq!(oldest().await, None);
    let first = Tx::snapshot(&here).await;
    let second = Tx::snapshot(&here).await;
    assert!(first.txid() < second.txid());
    assert!(oldest().await.unwrap() <= first.txid());
    // One that only reads counts by what it sees.
    let reader = Tx::begin(&there, json!({"read_only": true})).await.unwrap();
    assert_eq!(reader.begun["currentTxid"], Value::Null);
    first.commit().await.unwrap();
    second.roll_back().await.unwrap();
    set(&here, "later", 1).await;
    eventually("the reader is left", async || oldest().await.is_some_and(|txid| txid <= first.txid())).await;
    reader.commit().await.unwrap();
    eventually("nothing is open", async || oldest().await.is_none()).await;
}
