//! `table.batch`: several calls in one transaction.

use raystream::api::{BATCH_CALLS_MAX, RESULT_MAX};
use raystream::client::Error;
use raystream::wire::ErrorCode;
use serde_json::{Value, json};

use crate::server::{Server, call, call_named, code};

fn batch(calls: &[(&str, Value)]) -> Value {
    let calls: Vec<Value> =
        calls.iter().map(|(method, args)| json!({"method": method, "args": args})).collect();
    json!({ "calls": calls })
}

/// The code, and the index of the call that failed.
fn refused(result: Result<Value, Error>) -> (ErrorCode, Option<u64>) {
    let Err(Error::Call(error)) = result else { panic!("{result:?}") };
    let details: Value = serde_json::from_slice(&error.details).unwrap_or_default();
    (error.code, details["index"].as_u64())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_a_batch_is_done_or_nothing() {
    let server = Server::start().await;
    let client = server.client(1).await;
    let done = batch(&[
        ("table.set", json!({"table": "t", "id": "a", "data": {"n": 1}})),
        ("table.push", json!({"table": "t", "data": 2})),
        ("table.get", json!({"table": "t", "id": "a"})),
        ("table.create", json!({"table": "u"})),
        ("table.set", json!({"table": "u", "id": "x", "data": 1})),
        ("table.count", json!({"table": "t"})),
    ]);
    let results = call(&client, "table.batch", done).await.unwrap();
    let results = results["results"].as_array().unwrap();
    assert_eq!(results[0], json!({"version": 1}));
    assert_eq!(results[2], json!({"data": {"n": 1}, "version": 1}), "it sees what came before it");
    assert_eq!((&results[3], &results[5]), (&json!({"created": true}), &json!({"count": 2})));
    assert_eq!(call(&client, "table.batch", batch(&[])).await.unwrap(), json!({"results": []}));

    let failing = batch(&[
        ("table.set", json!({"table": "t", "id": "a", "data": 9})),
        ("table.push", json!({"table": "t", "data": 9})),
        ("table.set", json!({"table": "t", "id": "a", "data": 9, "if_version": 7})),
        ("table.push", json!({"table": "t", "data": 9})),
    ]);
    assert_eq!(refused(call(&client, "table.batch", failing).await), (ErrorCode::CONFLICT, Some(2)));
    let count = call(&client, "table.count", json!({"table": "t"})).await.unwrap();
    assert_eq!(count, json!({"count": 2}));
    let document = call(&client, "table.get", json!({"table": "t", "id": "a"})).await.unwrap();
    assert_eq!(document, json!({"data": {"n": 1}, "version": 1}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn later_calls_use_results_of_earlier_ones() {
    let server = Server::start().await;
    let client = server.client(1).await;
    let moving = batch(&[
        ("table.push", json!({"table": "t", "data": {"price": 1.5, "tags": ["x", {"deep": true}]}})),
        ("table.get", json!({"table": "t", "id": {"$ref": [0, "id"]}})),
        (
            "table.set",
            json!({"table": "t", "id": "copy", "data": {
                "of": {"$ref": [0, "id"]}, "price": {"$ref": [1, "data", "price"]},
                "deep": {"$ref": [1, "data", "tags", 1, "deep"]}, "all": {"$ref": [1, "data"]},
                "text": {"$literal": {"$ref": [0, "id"]}},
            }}),
        ),
        ("table.get", json!({"table": "t", "id": "copy"})),
    ]);
    let results = call(&client, "table.batch", moving).await.unwrap();
    let results = results["results"].as_array().unwrap();
    let id = &results[0]["id"];
    assert_eq!(
        results[3]["data"],
        json!({"of": id, "price": 1.5, "deep": true,
               "all": {"price": 1.5, "tags": ["x", {"deep": true}]}, "text": {"$ref": [0, "id"]}})
    );
    for wrong in [
        json!({"$ref": [1, "id"]}),
        json!({"$ref": [0, "nothing"]}),
        json!({"$ref": "id"}),
        json!({"$ref": [0, "id"], "more": 1}),
    ] {
        let batch = batch(&[
            ("table.push", json!({"table": "t", "data": 1})),
            ("table.get", json!({"table": "t", "id": wrong})),
        ]);
        let result = call(&client, "table.batch", batch).await;
        assert_eq!(refused(result), (ErrorCode::INVALID_REQUEST, Some(1)));
    }
    assert_eq!(call(&client, "table.count", json!({"table": "t"})).await.unwrap(), json!({"count": 2}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_of_a_batch_is_judged_as_if_alone() {
    let server = Server::start().await;
    let (client, limited) = (server.client(1).await, server.client(3).await);
    call(&client, "table.create", json!({"table": "closed"})).await.unwrap();
    let push = ("table.push", json!({"table": "t", "data": 1}));
    for (method, args, expected) in [
        ("table.set", json!({"table": "closed", "id": "a", "data": 1}), ErrorCode::PERMISSION_DENIED),
        ("table.set", json!({"table": "missing", "id": "a", "data": 1}), ErrorCode::PERMISSION_DENIED),
        ("table.delete", json!({"table": "t", "id": "a"}), ErrorCode::FORBIDDEN),
        ("sys.echo", json!({}), ErrorCode::FORBIDDEN),
        ("table.batch", json!({"calls": []}), ErrorCode::INVALID_REQUEST),
        (
            "table.set",
            json!({"table": {"$ref": [0, "id"]}, "id": "a", "data": 1}),
            ErrorCode::INVALID_REQUEST,
        ),
    ] {
        let result = call(&limited, "table.batch", batch(&[push.clone(), (method, args)])).await;
        assert_eq!(refused(result), (expected, Some(1)), "{method}");
    }
    let other = call(&client, "table.batch", batch(&[("sys.echo", json!({}))])).await;
    assert_eq!(refused(other), (ErrorCode::INVALID_REQUEST, Some(0)), "only methods on documents");
    assert_eq!(call(&client, "table.count", json!({"table": "t"})).await.unwrap(), json!({"count": 0}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_bounded() {
    let server = Server::start().await;
    let client = server.client(1).await;
    let get = ("table.get", json!({"table": "t", "id": "a"}));
    let most = vec![get.clone(); BATCH_CALLS_MAX];
    call(&client, "table.batch", batch(&most)).await.unwrap();
    let too_many = vec![get.clone(); BATCH_CALLS_MAX + 1];
    assert_eq!(code(call(&client, "table.batch", batch(&too_many)).await), ErrorCode::INVALID_REQUEST);

    let long = json!({"table": "t", "id": "a", "data": "x".repeat(900_000)});
    call(&client, "table.set", long).await.unwrap();
    // Two results of 0.9 MB are more than a message; and so is what references to one come to.
    const { assert!(2 * 900_000 > RESULT_MAX) };
    let results = call(&client, "table.batch", batch(&[get.clone(), get.clone()])).await;
    assert_eq!(refused(results), (ErrorCode::PAYLOAD_TOO_LARGE, Some(1)));
    let data = json!({"$ref": [0, "data"]});
    let copies = json!({"table": "t", "id": "b", "data": [data, data, data, data, data]});
    let copies = call(&client, "table.batch", batch(&[get, ("table.set", copies)])).await;
    assert_eq!(refused(copies), (ErrorCode::PAYLOAD_TOO_LARGE, Some(1)));
    let nested = (0..101).fold(json!(1), |inner, _| json!([inner]));
    let nested = batch(&[("table.set", json!({"table": "t", "id": "c", "data": nested}))]);
    assert_eq!(refused(call(&client, "table.batch", nested).await), (ErrorCode::INVALID_REQUEST, Some(0)));
    for shape in [
        json!({}),
        json!({"calls": {}}),
        json!({"calls": [{"method": 1}]}),
        json!({"calls": [{"method": "table.get", "extra": 1}]}),
    ] {
        assert_eq!(code(call(&client, "table.batch", shape).await), ErrorCode::INVALID_REQUEST);
    }
}

/// Two batches over the same documents, over and over: the daemon runs what loses again, and every increment counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_meet_are_run_again_and_one_with_a_key_is_done_once() {
    let server = Server::start().await;
    let client = server.client(1).await;
    let move_one = batch(&[
        ("table.shift", json!({"table": "t"})),
        ("table.push", json!({"table": "t", "data": {"$ref": [0, "data"]}})),
    ]);
    for n in 0..4 {
        call(&client, "table.push", json!({"table": "t", "data": n})).await.unwrap();
    }
    let mut moved = 0;
    for _ in 0..15 {
        let both =
            [call(&client, "table.batch", move_one.clone()), call(&client, "table.batch", move_one.clone())];
        for result in futures_util::future::join_all(both).await {
            match result {
                Ok(_) => moved += 1,
                Err(error) => assert_eq!(error.code(), Some(ErrorCode::CONFLICT), "{error}"),
            }
        }
    }
    assert!(moved >= 15, "{moved} of 30 were done");
    let mut items = Vec::new();
    while let Some(data) = call(&client, "table.shift", json!({"table": "t"})).await.unwrap().get("data") {
        items.push(data.as_i64().unwrap());
    }
    items.sort_unstable();
    assert_eq!(items, [0, 1, 2, 3], "none was lost or doubled");

    let pushes = batch(&[
        ("table.push", json!({"table": "t", "data": 1})),
        ("table.push", json!({"table": "t", "data": 2})),
    ]);
    let calls = (0..5).map(|_| call_named(&client, [7; 16], "table.batch", &pushes));
    let results = futures_util::future::join_all(calls).await;
    let first = results[0].as_ref().unwrap();
    assert!(results.iter().all(|result| result.as_ref().unwrap() == first));
    assert_eq!(call(&client, "table.count", json!({"table": "t"})).await.unwrap(), json!({"count": 2}));
}
