//! Events of topics.

use bytes::Bytes;
use futures_util::future::join_all;
use raystream::client::{
    CallOptions, Change, Client, Error, EventKind, Item, Json, Overflow, Published, SubscribeOptions,
    Subscription,
};
use raystream::store::{DOCUMENT_LEN_MAX, TOPIC_NAME_LEN_MAX};
use raystream::wire::ErrorCode;
use raystream::wire::envelope::{Encoding, Publish, Subscribe};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::raw::Raw;
use crate::server::{PATIENCE, Server, call, code, connect, key};

async fn subscribe(client: &Client, options: SubscribeOptions) -> Subscription {
    timeout(PATIENCE, client.subscribe(options)).await.expect("it is answered in time").unwrap()
}

/// The topic after a position.
async fn resume(client: &Client, topic: &str, cursor: &str) -> Subscription {
    let mut options = SubscribeOptions::topic(topic);
    options.cursor = Some(cursor.to_owned());
    subscribe(client, options).await
}

async fn next(subscription: &mut Subscription) -> Item {
    let next = timeout(PATIENCE, subscription.next()).await.expect("an item comes in time");
    next.expect("the subscription goes on").expect("without an error")
}

async fn event(subscription: &mut Subscription) -> Change {
    loop {
        match next(subscription).await {
            Item::Event(change) => return change,
            Item::Position { .. } => {}
            other => panic!("an event, not {other:?}"),
        }
    }
}

/// The events up to the one with this id, which is left out.
async fn until(subscription: &mut Subscription, id: &str) -> Vec<Change> {
    let mut events = Vec::new();
    loop {
        let next = event(subscription).await;
        if next.id == id {
            return events;
        }
        events.push(next);
    }
}

fn data(change: &Change) -> Value {
    change.data.as_ref().expect("an event has data").decode().unwrap()
}

fn cursor(published: &Published) -> &str {
    published.cursor.as_deref().expect("few transactions run")
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> Option<ErrorCode> {
    result.expect_err("it is refused").code()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_subscriber_gets_every_event_once_in_one_order() {
    let server = Server::start().await;
    let other = server.another();
    let urls =
        [&server.url, &other.url].map(|url| [url.clone(), url.replace("raystream://", "raystream+ws://")]);
    let clients = join_all(urls.iter().flatten().map(|url| connect(url, 1))).await;
    let clients: Vec<Client> = clients.into_iter().map(Result::unwrap).collect();
    let mut subscriptions =
        join_all(clients.iter().map(|c| subscribe(c, SubscribeOptions::topic("news")))).await;
    let mut elsewhere = subscribe(&clients[0], SubscribeOptions::topic("new")).await;
    let mut published = Vec::new();
    for n in 0..40 {
        // One after the other by all four: the next is published when the one before is acknowledged.
        published.push(clients[n % 4].publish("news", &json!({"n": n})).await.unwrap());
    }
    for subscription in &mut subscriptions {
        for (n, published) in published.iter().enumerate() {
            let event = event(subscription).await;
            assert_eq!((&event.id, data(&event)), (&published.id, json!({"n": n})));
            assert_eq!((event.kind, event.old, event.version), (EventKind::Publish, None, 0));
        }
    }
    let last = clients[0].publish("new", "last").await.unwrap();
    assert_eq!(event(&mut elsewhere).await.id, last.id, "nothing of another topic");

    // Who wrote it is recorded as for a document.
    let admin = server.admin().await;
    let sql = "SELECT DISTINCT principal FROM raystream.changes WHERE ptr = 'topic:news'";
    let rows = admin.query(sql, &[]).await.unwrap();
    let principals: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(principals, [key(1).1.to_string()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_position_behind_an_event_leaves_out_what_was_before_and_nothing_that_comes() {
    const WRITERS: usize = 4;
    const EVENTS: usize = 20;
    let server = Server::start().await;
    let other = server.another();
    let clients = [server.client(1).await, other.client(1).await];
    let written = join_all((0..WRITERS).map(|writer| {
        let client = &clients[writer % 2];
        async move {
            let mut written = Vec::new();
            for n in 0..EVENTS {
                written.push(client.publish("busy", &json!([writer, n])).await.unwrap());
            }
            written
        }
    }))
    .await;
    let end = clients[0].publish("busy", "end").await.unwrap();
    for (writer, written) in written.iter().enumerate() {
        for (n, published) in written.iter().enumerate() {
            let behind = &mut resume(&clients[n % 2], "busy", cursor(published)).await;
            let events = until(behind, &end.id).await;
            let own = events.iter().map(data).filter(|data| data[0] == writer).map(|data| data[1].clone());
            let expected: Vec<Value> = (n + 1..EVENTS).map(Value::from).collect();
            assert_eq!(own.collect::<Vec<_>>(), expected, "behind event {n} of writer {writer}");
        }
    }
    // A position is of the database: an answer that comes by a table is not missed either.
    let asked = clients[0].publish("questions", "?").await.unwrap();
    call(&clients[1], "table.push", json!({"table": "t", "data": "!"})).await.unwrap();
    let mut options = SubscribeOptions::new("t");
    options.cursor = asked.cursor;
    assert_eq!(data(&event(&mut subscribe(&clients[0], options).await).await), json!("!"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_can_be_resumed_after_and_filters_look_into_it() {
    let server = Server::start().await;
    let client = server.client(1).await;
    let start = client.publish("doors", "start").await.unwrap();
    let filtered = |cursor: &str| {
        let mut options = SubscribeOptions::topic("doors");
        options.filter = Some(Json::new(r#"{"open": true}"#));
        options.cursor = Some(cursor.to_owned());
        options
    };
    let mut live = SubscribeOptions::topic("doors");
    live.filter = filtered("").filter;
    let mut live = subscribe(&client, live).await;
    for n in 0..10 {
        client.publish("doors", &json!({"n": n, "open": n % 3 == 0})).await.unwrap();
    }
    let numbers = |events: &[Change]| events.iter().map(|event| data(event)["n"].clone()).collect::<Vec<_>>();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.push(event(&mut live).await);
    }
    assert_eq!(numbers(&seen), [0, 3, 6, 9]);
    let end = client.publish("doors", &json!({"open": true})).await.unwrap();
    let mut missed = subscribe(&client, filtered(cursor(&start))).await;
    let missed = until(&mut missed, &end.id).await;
    assert_eq!(numbers(&missed), [0, 3, 6, 9]);
    for (place, event) in seen.iter().chain(&missed).enumerate() {
        let rest = until(&mut resume(&client, "doors", &event.cursor).await, &end.id).await;
        let expected: Vec<usize> = (place % 4 * 3 + 1..10).collect();
        assert_eq!(numbers(&rest), expected, "after {place}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_snapshot_of_a_topic_is_empty() {
    let server = Server::start().await;
    let client = server.client(1).await;
    client.publish("t", &json!({"at": "before"})).await.unwrap();
    let mut options = SubscribeOptions::topic("t");
    options.snapshot = true;
    options.filter = Some(Json::new(r#"{"at":"after"}"#));
    let mut subscription = subscribe(&client, options).await;
    assert!(matches!(next(&mut subscription).await, Item::Position { .. }));
    assert!(matches!(next(&mut subscription).await, Item::SnapshotEnd { .. }));
    client.publish("t", &json!({"at": "after"})).await.unwrap();
    assert_eq!(data(&event(&mut subscription).await), json!({"at": "after"}));
    // The table of the same name is another thing.
    let table = subscribe(&client, SubscribeOptions::new("t")).await;
    drop(table);
    let count = call(&client, "table.count", json!({"table": "t"})).await.unwrap();
    assert_eq!(count, json!({"count": 0}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_frame_is_a_call_of_topic_publish() {
    let server = Server::start().await;
    let client = server.client(1).await;
    let mut subscription = subscribe(&client, SubscribeOptions::topic("news")).await;
    let mut raw = Raw::connect_as(&server.url, Some(key(1).0));
    let publish = Publish {
        topic: "news".into(),
        data: Bytes::from_static(br#" {"n": 1.0}"#),
        idempotency_key: Some([7; 16]),
        ..Publish::default()
    };
    let stream = raw.publish(&publish);
    let answer = raw.answer(stream).unwrap();
    let reply: Value = serde_json::from_slice(&answer).unwrap();
    let seen = event(&mut subscription).await;
    assert_eq!((json!(seen.id), data(&seen)), (reply["id"].clone(), json!({"n": 1.0})));

    // The same request by the other frame, and by the same one.
    let options = CallOptions { idempotency_key: Some([7; 16].into()), ..CallOptions::default() };
    let again = client.publish_with("news", Json::new(r#"{"n": 1.0}"#), options).await.unwrap();
    assert_eq!(json!(again.id), reply["id"]);
    let stream = raw.publish(&publish);
    assert_eq!(raw.answer(stream), Ok(answer));
    let stream = raw.publish(&Publish { data: "2".into(), ..publish.clone() });
    assert_eq!(raw.answer(stream), Err(ErrorCode::INVALID_REQUEST), "another request under the key");

    for (wrong, expected) in [
        (Publish { data: "1,\"topic\":\"x\"".into(), ..Publish::default() }, ErrorCode::INVALID_REQUEST),
        (Publish { data: Bytes::new(), ..Publish::default() }, ErrorCode::INVALID_REQUEST),
        (
            Publish { data: "1".into(), encoding: Encoding::Raw, ..Publish::default() },
            ErrorCode::INVALID_REQUEST,
        ),
    ] {
        let stream = raw.publish(&Publish { topic: "news".into(), ..wrong });
        assert_eq!(raw.answer(stream), Err(expected));
    }
    let last = client.publish("news", "last").await.unwrap();
    assert_eq!(event(&mut subscription).await.id, last.id, "nothing else was published");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_with_a_key_is_published_once() {
    let server = Server::start().await;
    let other = server.another();
    let clients = [server.client(1).await, other.client(1).await];
    let mut subscription = subscribe(&clients[0], SubscribeOptions::topic("once")).await;
    for round in 0..10_u8 {
        let replies = join_all((0..6).map(|n| {
            let options = CallOptions { idempotency_key: Some([round; 16].into()), ..CallOptions::default() };
            clients[n % 2].publish_with("once", Json::new(round.to_string()), options)
        }))
        .await;
        let first = replies[0].as_ref().unwrap();
        assert!(replies.iter().all(|reply| reply.as_ref().unwrap() == first), "{replies:?}");
        let event = event(&mut subscription).await;
        assert_eq!((&event.id, data(&event)), (&first.id, json!(round)));
    }
    let end = clients[0].publish("once", "end").await.unwrap();
    assert!(until(&mut subscription, &end.id).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_in_a_batch_is_published_with_the_rest_or_not_at_all() {
    let server = Server::start().await;
    let client = server.client(1).await;
    let start = client.publish("orders", "start").await.unwrap();
    let publish =
        json!({"method": "topic.publish", "args": {"topic": "orders", "data": {"$ref": [0, "id"]}}});
    let push = json!({"method": "table.push", "args": {"table": "t", "data": 1}});
    let fails = json!({"method": "table.update", "args": {"table": "t", "id": "none", "data": 1}});
    let failed = call(&client, "table.batch", json!({"calls": [push, publish, fails]})).await;
    assert_eq!(code(failed), ErrorCode::NOT_FOUND);
    let done = call(&client, "table.batch", json!({"calls": [push, publish]})).await.unwrap();
    let end = client.publish("orders", "end").await.unwrap();
    let events = until(&mut resume(&client, "orders", cursor(&start)).await, &end.id).await;
    let [event] = &events[..] else { panic!("{events:?}") };
    assert_eq!(
        (json!(event.id), data(event)),
        (done["results"][1]["id"].clone(), done["results"][0]["id"].clone())
    );
    // What the batch did lies before the position that it gives.
    let behind = done["results"][1]["cursor"].as_str().unwrap();
    assert!(until(&mut resume(&client, "orders", behind).await, &end.id).await.is_empty());

    let third = server.client(3).await;
    let publish = json!({"method": "topic.publish", "args": {"topic": "orders", "data": 1}});
    let refused = call(&third, "table.batch", json!({"calls": [push, publish]})).await;
    assert_eq!(code(refused), ErrorCode::PERMISSION_DENIED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_and_subscribing_are_granted_apart() {
    let server = Server::start().await;
    let (third, fourth) = (server.client(3).await, server.client(4).await);
    third.publish("in", &1).await.unwrap();
    let mut out = subscribe(&third, SubscribeOptions::topic("out")).await;
    for topic in ["out", "no_such"] {
        let code = refused(third.publish(topic, &1).await);
        assert_eq!(code, Some(ErrorCode::PERMISSION_DENIED), "{topic}");
        let mut raw = Raw::connect_as(&server.url, Some(key(3).0));
        let publish = Publish { topic: topic.into(), data: "1".into(), ..Publish::default() };
        let stream = raw.publish(&publish);
        assert_eq!(raw.answer(stream), Err(ErrorCode::PERMISSION_DENIED), "{topic} by a frame");
    }
    for topic in ["in", "no_such"] {
        let code = refused(third.subscribe(SubscribeOptions::topic(topic)).await);
        assert_eq!(code, Some(ErrorCode::PERMISSION_DENIED), "{topic}");
    }
    // A right on the topic alone is not one on the method, and one on a table of the name is none at all.
    assert_eq!(refused(fourth.publish("in", &1).await), Some(ErrorCode::FORBIDDEN));
    subscribe(&fourth, SubscribeOptions::topic("in")).await;
    assert_eq!(
        refused(third.subscribe(SubscribeOptions::topic("t")).await),
        Some(ErrorCode::PERMISSION_DENIED)
    );
    // A stored reply is given to nobody who may not publish any more.
    let options = || CallOptions { idempotency_key: Some([1; 16].into()), ..CallOptions::default() };
    third.publish_with("in", Json::new("1"), options()).await.unwrap();

    // Both rights are taken away.
    let event_before = server.client(1).await.publish("out", "seen").await.unwrap();
    assert_eq!(event(&mut out).await.id, event_before.id);
    server.reconfigure("in = [\"publish\"], out = [\"subscribe\"]", "other = [\"publish\", \"subscribe\"]");
    let ended = timeout(PATIENCE, async {
        loop {
            match out.next().await {
                Some(Ok(Item::Position { .. })) => {}
                end => return end,
            }
        }
    });
    let ended = ended.await.expect("it ends in time").expect("with a reason").expect_err("an error");
    assert_eq!(ended.code(), Some(ErrorCode::PERMISSION_DENIED));
    assert_eq!(refused(third.publish("in", &1).await), Some(ErrorCode::PERMISSION_DENIED));
    let stored = third.publish_with("in", Json::new("1"), options()).await;
    assert_eq!(refused(stored), Some(ErrorCode::PERMISSION_DENIED));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_no_message_could_carry_is_not_published() {
    let server = Server::start().await;
    let client = server.client(1).await;
    let start = client.publish("large", "start").await.unwrap();
    let text = |len: usize| Json::new(format!("\"{}\"", "x".repeat(len - 2)));
    let publish = |data: Json| client.publish_with("large", data, CallOptions::default());
    assert_eq!(refused(publish(text(DOCUMENT_LEN_MAX + 1)).await), Some(ErrorCode::PAYLOAD_TOO_LARGE));
    // Short, and 300 digits for each of its numbers where it is stored.
    let swelling = Json::new(format!("[{}]", ["1e300"; 4_000].join(",")));
    assert_eq!(refused(publish(swelling).await), Some(ErrorCode::PAYLOAD_TOO_LARGE));
    let deep = Json::new(format!("{}{}", "[".repeat(101), "]".repeat(101)));
    assert_eq!(refused(publish(deep).await), Some(ErrorCode::INVALID_REQUEST));
    assert_eq!(refused(publish(Json::new("\"\\u0000\"")).await), Some(ErrorCode::INVALID_REQUEST));

    let largest = publish(text(DOCUMENT_LEN_MAX)).await.unwrap();
    let mut subscription = resume(&client, "large", cursor(&start)).await;
    let event = event(&mut subscription).await;
    assert_eq!((&event.id, event.is_cut), (&largest.id, false));
    assert_eq!(event.data.map(|data| data.as_bytes().len()), Some(DOCUMENT_LEN_MAX));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_names_no_topic_is_refused() {
    let server = Server::start().await;
    let client = server.client(1).await;
    let longest = "a".repeat(TOPIC_NAME_LEN_MAX);
    client.publish(&longest, &1).await.unwrap();
    let too_long = format!("{longest}a");
    for name in ["", ".", "-a", "a b", "a/b", "a*", "*", "topic:a", "ä", "a\n", &too_long] {
        assert_eq!(refused(client.publish(name, &1).await), Some(ErrorCode::INVALID_REQUEST), "{name:?}");
        let refused = refused(client.subscribe(SubscribeOptions::topic(name)).await);
        assert_eq!(refused, Some(ErrorCode::INVALID_REQUEST), "{name:?}");
    }
    for args in [
        json!({"data": 1}),
        json!({"topic": 1, "data": 1}),
        json!({"topic": "a"}),
        json!({"topic": "a", "data": 1, "x": 1}),
    ] {
        let refused = call(&client, "topic.publish", args.clone()).await;
        assert_eq!(code(refused), ErrorCode::INVALID_REQUEST, "{args}");
    }
    // As a table, the place of a topic in the log is no name.
    let refused_table = client.subscribe(SubscribeOptions::new("topic:a")).await;
    assert_eq!(refused(refused_table), Some(ErrorCode::INVALID_REQUEST));

    let mut raw = Raw::connect(&server.url);
    for (table, topic) in [("t", Some("t")), ("", None)] {
        let subscribe = Subscribe {
            table: table.into(),
            filter: Bytes::new(),
            cursor: None,
            snapshot: false,
            overflow: Overflow::Close,
            credit: 1,
            topic: topic.map(Into::into),
        };
        let stream = raw.subscribe(&subscribe);
        assert_eq!(raw.answer(stream), Err(ErrorCode::INVALID_REQUEST), "{table:?} and {topic:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_that_mean_nothing_for_a_topic_are_refused() {
    let server = Server::start().await;
    let client = server.client(1).await;
    for (overflow, is_taken) in [
        (Overflow::Close, true),
        (Overflow::DropOldest, true),
        (Overflow::Block, true),
        (Overflow::Conflate, false),
        (Overflow::Resnapshot, false),
    ] {
        let mut options = SubscribeOptions::topic("news");
        options.overflow = overflow;
        match client.subscribe(options).await {
            Ok(_) => assert!(is_taken, "{overflow:?}"),
            Err(error) => {
                assert_eq!(
                    (is_taken, error.code()),
                    (false, Some(ErrorCode::INVALID_REQUEST)),
                    "{overflow:?}"
                );
            }
        }
    }
}
