//! Every method on documents in a transaction, and the order of the calls.

use std::time::Instant;

use raystream::client::{CallOptions, Json, StreamOptions};
use raystream::conn::Event;
use raystream::wire::ErrorCode;
use serde_json::{Value, json};

use crate::raw::Raw;
use crate::server::{PATIENCE, Server, call, call_named, code};
use crate::tx::{Tx, get, refused, rolled_back, set, unknown};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_on_documents_takes_a_sid() {
    let server = Server::start().await;
    let (client, other) = (server.client(1).await, server.client(2).await);
    let tx = Tx::snapshot(&client).await;
    let t = |more: Value| {
        let mut args = json!({"table": "t"});
        args.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        args
    };
    assert_eq!(tx.set("a", json!({"n": 1})).await.unwrap(), json!({"version": 1}));
    let update = tx.call("table.update", t(json!({"id": "a", "data": {"m": 2}}))).await;
    assert_eq!(update.unwrap(), json!({"version": 2}));
    let guarded = tx.call("table.set", t(json!({"id": "a", "data": 1, "if_version": 7}))).await;
    assert_eq!(refused(guarded), (ErrorCode::CONFLICT, None), "the transaction goes on");
    let missing = tx.call("table.update", t(json!({"id": "none", "data": {}}))).await;
    assert_eq!(refused(missing), (ErrorCode::NOT_FOUND, None));
    for n in 0..3 {
        tx.call("table.push", t(json!({"data": {"q": n}}))).await.unwrap();
    }
    assert_eq!(tx.call("table.pop", t(json!({}))).await.unwrap()["data"], json!({"q": 2}));
    assert_eq!(tx.call("table.shift", t(json!({}))).await.unwrap()["data"], json!({"n": 1, "m": 2}));
    tx.set("b", 1).await.unwrap();
    assert_eq!(tx.call("table.delete", t(json!({"id": "b"}))).await.unwrap(), json!({"deleted": true}));
    assert_eq!(tx.call("table.count", t(json!({}))).await.unwrap(), json!({"count": 2}));
    let page =
        tx.call("table.query", t(json!({"filter": {"q": 1}, "order": "id", "limit": 5}))).await.unwrap();
    assert_eq!(page["items"][0]["data"], json!({"q": 1}));
    tx.call("table.create", json!({"table": "u"})).await.unwrap();
    assert_eq!(tx.call("table.list", json!({})).await.unwrap(), json!({"tables": ["t", "u"]}));
    assert!(tx.call("table.ptr", json!({"table": "u"})).await.unwrap()["ptr"].is_string());
    let batch = json!({"calls": [
        {"method": "table.push", "args": {"table": "u", "data": 1}},
        {"method": "table.get", "args": {"table": "u", "id": {"$ref": [0, "id"]}}},
    ]});
    assert_eq!(tx.call("table.batch", batch).await.unwrap()["results"][1]["data"], 1);
    assert!(tx.call("topic.publish", json!({"topic": "news", "data": 1})).await.unwrap()["id"].is_string());
    let logged = "SELECT count(*) FROM raystream.changes WHERE op = 'p'";
    let admin = server.admin().await;
    let published = async || admin.query_one(logged, &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(published().await, 0);
    assert_eq!(call(&other, "table.count", t(json!({}))).await.unwrap(), json!({"count": 0}));
    tx.commit().await.unwrap();
    assert_eq!(published().await, 1);
    assert_eq!(call(&other, "table.count", t(json!({}))).await.unwrap(), json!({"count": 2}));
    assert_eq!(call(&other, "table.count", json!({"table": "u"})).await.unwrap(), json!({"count": 1}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_go_in_and_out_within_a_transaction() {
    const DOCUMENTS: i64 = 5_000;
    let server = Server::start().await;
    let (client, other) = (server.client(1).await, server.client(2).await);
    let tx = Tx::snapshot(&client).await;
    let args = Json::encode(&json!({"table": "t", "sid": tx.sid})).unwrap();
    let mut import = client.open("table.import", args, StreamOptions::sending()).await.unwrap();
    for n in 0..DOCUMENTS {
        let item = json!({"id": format!("{n:05}"), "data": {"n": n, "text": "x".repeat(100)}});
        import.send(Json::encode(&item).unwrap()).await.unwrap();
    }
    import.end();
    assert_eq!(import.result().await.unwrap().decode::<Value>().unwrap(), json!({"written": DOCUMENTS}));
    let args = Json::encode(&json!({"table": "t", "order": "id", "sid": tx.sid})).unwrap();
    let mut query = client.open("table.query", args, StreamOptions::receiving()).await.unwrap();
    let mut count = 0;
    while let Some(item) = query.next().await.unwrap() {
        assert_eq!(item.decode::<Value>().unwrap()["data"]["n"], count);
        count += 1;
    }
    assert_eq!(query.result().await.unwrap().decode::<Value>().unwrap(), json!({"count": DOCUMENTS}));
    assert_eq!(call(&other, "table.count", json!({"table": "t"})).await.unwrap(), json!({"count": 0}));
    // The connection is as good as before.
    tx.set("00000", json!({"n": -1})).await.unwrap();
    tx.commit().await.unwrap();
    let count = call(&other, "table.count", json!({"table": "t"})).await.unwrap();
    assert_eq!(count, json!({"count": DOCUMENTS}));

    // A reader that leaves ends the transaction.
    let tx = Tx::snapshot(&client).await;
    tx.set("left", 1).await.unwrap();
    let args = Json::encode(&json!({"table": "t", "sid": tx.sid})).unwrap();
    let mut options = StreamOptions::receiving();
    options.window = 4.try_into().unwrap();
    let mut query = client.open("table.query", args, options).await.unwrap();
    query.next().await.unwrap().unwrap();
    drop(query);
    assert_eq!(refused(tx.commit().await), rolled_back(ErrorCode::CANCELLED));
    assert_eq!(get(&other, "left").await, Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_in_a_transaction_is_whole_with_it() {
    let server = Server::start().await;
    let client = server.client(1).await;
    let tx = Tx::snapshot(&client).await;
    tx.set("a", 1).await.unwrap();
    for refused_before_it_began in [
        json!({"calls": [{"method": "table.get", "args": {"table": "t", "id": "a", "sid": tx.sid}}]}),
        json!({"calls": [{"method": "table.get", "args": {"table": "t", "id": "a", "s\u{69}d": null}}]}),
        json!({"calls": [{"method": "tx.begin", "args": {}}]}),
        json!({"calls": 5}),
    ] {
        let answer = tx.call("table.batch", refused_before_it_began).await;
        assert_eq!(refused(answer), (ErrorCode::INVALID_REQUEST, None));
    }
    let batch = json!({"calls": [
        {"method": "table.set", "args": {"table": "t", "id": "b", "data": 1}},
        {"method": "table.update", "args": {"table": "t", "id": "none", "data": {}}},
    ]});
    let answer = tx.call("table.batch", batch).await;
    let Err(raystream::client::Error::Call(error)) = &answer else { panic!("{answer:?}") };
    let details: Value = serde_json::from_slice(&error.details).unwrap();
    assert_eq!(details, json!({"transaction": "rolled_back", "details": {"index": 1}}));
    assert_eq!(refused(answer), rolled_back(ErrorCode::NOT_FOUND));
    assert_eq!(refused(tx.commit().await), rolled_back(ErrorCode::INVALID_REQUEST));
    assert_eq!((get(&client, "a").await, get(&client, "b").await), (Value::Null, Value::Null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_meant_is_refused_and_never_done_outside() {
    let server = Server::start().await;
    let client = server.client(1).await;
    for args in [json!({"isolation": "none"}), json!({"read_only": 1}), json!({"level": "snapshot"})] {
        assert_eq!(code(call(&client, "tx.begin", args).await), ErrorCode::INVALID_REQUEST);
    }
    let tx = Tx::snapshot(&client).await;
    for sid in [json!(null), json!(5), json!([])] {
        let args = json!({"table": "t", "id": "a", "data": 1, "sid": sid});
        assert_eq!(code(call(&client, "table.set", args).await), ErrorCode::INVALID_REQUEST);
    }
    let args = json!({"table": "t", "id": "a", "data": 1, "sid": "none"});
    assert_eq!(refused(call(&client, "table.set", args).await), unknown());
    // A key that is written with escapes is the same key.
    let text = format!(r#"{{"table":"t","id":"a","data":1,"s\u0069d":"{}"}}"#, tx.sid);
    client.call_with("table.set", Json::new(text), CallOptions::default()).await.unwrap();
    assert_eq!(get(&client, "a").await, Value::Null);
    assert_eq!(tx.get("a").await.unwrap(), 1);
    let args = json!({"table": "t", "data": 1, "sid": tx.sid});
    let named = call_named(&client, [1; 16], "table.push", &args).await;
    assert_eq!(refused(named), (ErrorCode::INVALID_REQUEST, None));
    // A document may have a field of that name.
    set(&client, "b", json!({"sid": "x"})).await;
    tx.set("c", json!({"sid": "x"})).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(get(&client, "c").await, json!({"sid": "x"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_only_reads_refuses_writes() {
    let server = Server::start().await;
    let client = server.client(1).await;
    set(&client, "a", 1).await;
    for isolation in ["snapshot", "serializable"] {
        let args = json!({"read_only": true, "isolation": isolation});
        let tx = Tx::begin(&client, args).await.unwrap();
        assert_eq!(tx.begun["currentTxid"], Value::Null);
        assert_eq!(tx.status().await.unwrap()["read_only"], true);
        let batch = json!({"calls": [{"method": "table.push", "args": {"table": "t", "data": 1}}]});
        for (method, args) in [
            ("table.set", json!({"table": "t", "id": "a", "data": 2})),
            ("table.update", json!({"table": "t", "id": "a", "data": 2})),
            ("table.delete", json!({"table": "t", "id": "a"})),
            ("table.push", json!({"table": "t", "data": 2})),
            ("table.pop", json!({"table": "t"})),
            ("table.shift", json!({"table": "t"})),
            ("table.create", json!({"table": "u"})),
            ("topic.publish", json!({"topic": "news", "data": 1})),
            ("table.batch", batch),
        ] {
            let answer = tx.call(method, args).await;
            assert_eq!(refused(answer), (ErrorCode::INVALID_REQUEST, None), "{method}");
        }
        let batch = json!({"calls": [{"method": "table.get", "args": {"table": "t", "id": "a"}}]});
        assert_eq!(tx.call("table.batch", batch).await.unwrap()["results"][0]["data"], 1);
        assert_eq!(tx.get("a").await.unwrap(), 1);
        tx.commit().await.unwrap();
    }
}

/// Many calls of one transaction in one write: done in the order in which they were sent, the commit last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_a_transaction_are_done_in_the_order_in_which_they_come() {
    const CALLS: u32 = 100;
    let server = Server::start().await;
    let url = server.url.clone();
    tokio::task::spawn_blocking(move || {
        let mut raw = Raw::connect(&url);
        let mut answers = std::collections::HashMap::new();
        let mut wait = |raw: &mut Raw, stream: u32| -> Value {
            let until = Instant::now() + PATIENCE;
            while !answers.contains_key(&stream) {
                assert!(Instant::now() < until, "it is answered");
                for event in raw.receive() {
                    match event {
                        Event::Response(at, response) => {
                            answers.insert(at, serde_json::from_slice(&response.result).unwrap());
                        }
                        Event::Error(_, error) => panic!("{error:?}"),
                        _ => {}
                    }
                }
            }
            answers.remove(&stream).unwrap()
        };
        let begin = raw.call("tx.begin", "{}".to_owned());
        raw.flush();
        let sid = wait(&mut raw, begin)["sid"].as_str().unwrap().to_owned();
        let mut reads = Vec::new();
        for n in 0..CALLS {
            raw.call("table.set", format!(r#"{{"table":"t","id":"a","data":{n},"sid":"{sid}"}}"#));
            reads.push(raw.call("table.get", format!(r#"{{"table":"t","id":"a","sid":"{sid}"}}"#)));
        }
        let commit = raw.call("tx.commit", format!(r#"{{"sid":"{sid}"}}"#));
        raw.flush();
        for (n, read) in (0..CALLS).zip(reads) {
            assert_eq!(wait(&mut raw, read)["data"], n);
        }
        assert_eq!(wait(&mut raw, commit), json!({"committed": true}));
    })
    .await
    .unwrap();
    assert_eq!(get(&server.client(1).await, "a").await, CALLS - 1);
}
