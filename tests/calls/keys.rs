//! Calls with an idempotency key.

use raystream::wire::ErrorCode;
use serde_json::json;

use crate::server::{Server, call, call_named, code};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_call_gets_the_stored_reply() {
    let server = Server::start().await;
    let other = server.another();
    let (here, there) = (server.client(1).await, other.client(1).await);
    let push = json!({"table": "t", "data": {"n": 1}});
    let first = call_named(&here, [1; 16], "table.push", &push).await.unwrap();
    assert_eq!(call_named(&here, [1; 16], "table.push", &push).await.unwrap(), first);
    assert_eq!(call_named(&there, [1; 16], "table.push", &push).await.unwrap(), first, "another daemon");
    let count = call(&here, "table.count", json!({"table": "t"})).await.unwrap();
    assert_eq!(count, json!({"count": 1}));

    let item = call_named(&here, [2; 16], "table.pop", &json!({"table": "t"})).await.unwrap();
    assert_eq!(item["data"], json!({"n": 1}));
    assert_eq!(call_named(&there, [2; 16], "table.pop", &json!({"table": "t"})).await.unwrap(), item);
    let made = call_named(&here, [3; 16], "table.create", &json!({"table": "u"})).await.unwrap();
    assert_eq!(call_named(&there, [3; 16], "table.create", &json!({"table": "u"})).await.unwrap(), made);
    let again = call_named(&here, [4; 16], "table.create", &json!({"table": "u"})).await;
    assert_eq!(code(again), ErrorCode::ALREADY_EXISTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_request_under_a_key_is_refused_and_keys_are_of_a_principal() {
    let server = Server::start().await;
    let (one, two) = (server.client(1).await, server.client(2).await);
    let push = json!({"table": "t", "data": 1});
    let first = call_named(&one, [1; 16], "table.push", &push).await.unwrap();
    for (method, args) in [
        ("table.push", json!({"table": "t", "data": 2})),
        ("table.set", json!({"table": "t", "id": "a", "data": 1})),
        ("table.batch", json!({"calls": []})),
    ] {
        let other = call_named(&one, [1; 16], method, &args).await;
        assert_eq!(code(other), ErrorCode::INVALID_REQUEST, "{method}");
    }
    let second = call_named(&two, [1; 16], "table.push", &push).await.unwrap();
    assert_ne!(first, second, "the key of another principal is another key");
    let anonymous = server.client(0).await;
    let refused = call_named(&anonymous, [1; 16], "table.push", &push).await;
    assert_eq!(code(refused), ErrorCode::INVALID_REQUEST, "strangers have no replies of their own");
    let count = call_named(&anonymous, [1; 16], "table.count", &json!({"table": "t"})).await.unwrap();
    assert_eq!(count, json!({"count": 2}), "what only reads has no use for the key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_not_kept_and_access_is_judged_each_time() {
    let server = Server::start().await;
    let client = server.client(1).await;
    let set = json!({"table": "t", "id": "a", "data": 1, "if_version": 1});
    assert_eq!(code(call_named(&client, [1; 16], "table.set", &set).await), ErrorCode::CONFLICT);
    call(&client, "table.set", json!({"table": "t", "id": "a", "data": 0})).await.unwrap();
    let set = call_named(&client, [1; 16], "table.set", &set).await;
    assert_eq!(set.unwrap(), json!({"version": 2}), "now it could be done");

    // A reply that is there, under rules that changed: key 3 lost the right to write `closed`.
    let admin = server.admin().await;
    call(&client, "table.create", json!({"table": "closed"})).await.unwrap();
    let push = json!({"table": "closed", "data": 1});
    let first = call_named(&client, [2; 16], "table.push", &push).await.unwrap();
    let third = crate::server::key(3).1.to_string();
    let moved = "UPDATE raystream.idempotency SET principal = $1 WHERE key = $2";
    assert_eq!(admin.execute(moved, &[&third, &[2_u8; 16].to_vec()]).await.unwrap(), 1);
    let refused = call_named(&server.client(3).await, [2; 16], "table.push", &push).await;
    assert_eq!(code(refused), ErrorCode::PERMISSION_DENIED, "{first}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_at_two_daemons_at_one_moment_has_one_effect() {
    let server = Server::start().await;
    let other = server.another();
    let clients = [server.client(1).await, other.client(1).await];
    for round in 0..20_u8 {
        let push = json!({"table": "t", "data": round});
        let calls = (0..6).map(|n| call_named(&clients[n % 2], [round; 16], "table.push", &push));
        let replies = futures_util::future::join_all(calls).await;
        let first = replies[0].as_ref().unwrap();
        for reply in &replies {
            assert_eq!(reply.as_ref().unwrap(), first);
        }
        let count = call(&clients[0], "table.count", json!({"table": "t"})).await.unwrap();
        assert_eq!(count, json!({"count": i64::from(round) + 1}));
    }
}
