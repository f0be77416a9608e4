//! Documents through the real protocol, on a real daemon with a real Postgres.
use super::support::{PATIENCE, TestDaemon, shared};
use futures_util::future::join_all;
use raystream::{
    client::{Change, Client, Error, EventKind, Item, Json, Options, SubscribeOptions, Subscription},
    wire::ErrorCode,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

async fn connect(daemon: &TestDaemon) -> Client {
    Client::connect(&daemon.url, Options::default()).await.expect("the daemon is there")
}

async fn call(client: &Client, method: &str, args: Value) -> Result<Value, Error> {
    client.call_typed(method, &args).await
}

async fn ok(client: &Client, method: &str, args: Value) -> Value {
    call(client, method, args.clone()).await.unwrap_or_else(|error| panic!("{method} {args}: {error}"))
}

async fn refused(client: &Client, method: &str, args: Value) -> ErrorCode {
    let error = call(client, method, args.clone()).await.expect_err(&format!("{method} {args}"));
    error.code().unwrap_or_else(|| panic!("{method} {args}: {error} has a code"))
}

async fn next(subscription: &mut Subscription) -> Item {
    let next = tokio::time::timeout(PATIENCE, subscription.next()).await.expect("an item comes in time");
    next.expect("the subscription goes on").expect("without an error")
}

async fn next_event(subscription: &mut Subscription) -> Change {
    loop {
        match next(subscription).await {
            Item::Event(change) => return change,
            Item::Position { .. } => {}
            other => panic!("an event, not {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_document_is_written_read_merged_and_deleted() {
    let daemon = shared();
    let client = connect(&daemon).await;
    let table = "life";
    assert_eq!(refused(&client, "table.get", json!({"table": table, "id": "a"})).await, ErrorCode::NOT_FOUND);
    let set = ok(&client, "table.set", json!({"table": table, "id": "a", "data": {"n": 1, "gone": 1}})).await;
    assert_eq!(set, json!({"version": 1}));
    let update = json!({"table": table, "id": "a", "data": {"deep": {"x": [1, null]}, "gone": null}});
    assert_eq!(ok(&client, "table.update", update).await, json!({"version": 2}));
    let got = ok(&client, "table.get", json!({"table": table, "id": "a"})).await;
    assert_eq!(got, json!({"data": {"n": 1, "deep": {"x": [1, null]}}, "version": 2}));
    assert_eq!(ok(&client, "table.get", json!({"table": table, "id": "b"})).await, Value::Null);
    let delete = json!({"table": table, "id": "a"});
    assert_eq!(ok(&client, "table.delete", delete.clone()).await, json!({"deleted": true}));
    assert_eq!(ok(&client, "table.delete", delete).await, json!({"deleted": false}));
    assert_eq!(ok(&client, "table.get", json!({"table": table, "id": "a"})).await, Value::Null);
    let update = json!({"table": table, "id": "a", "data": {}});
    assert_eq!(refused(&client, "table.update", update).await, ErrorCode::NOT_FOUND);
    // Alive again after the delete.
    ok(&client, "table.set", json!({"table": table, "id": "a", "data": {"again": true}})).await;
    let got = ok(&client, "table.get", json!({"table": table, "id": "a"})).await;
    assert_eq!(got["data"], json!({"again": true}));
    assert_eq!(ok(&client, "table.count", json!({"table": table})).await, json!({"count": 1}));
}

#[tokio::test]
async fn fifty_increments_by_version_are_fifty() {
    let daemon = shared();
    let client = connect(&daemon).await;
    ok(&client, "table.set", json!({"table": "counters", "id": "c", "data": {"n": 0}})).await;
    join_all((0..50).map(|_| async {
        loop {
            let got = ok(&client, "table.get", json!({"table": "counters", "id": "c"})).await;
            let n = got["data"]["n"].as_i64().expect("a number");
            let set =
                json!({"table": "counters", "id": "c", "data": {"n": n + 1}, "if_version": got["version"]});
            match call(&client, "table.set", set).await {
                Ok(_) => return,
                Err(error) => {
                    assert_eq!(error.code(), Some(ErrorCode::CONFLICT), "{error}");
                    assert!(error.retryable());
                }
            }
        }
    }))
    .await;
    let got = ok(&client, "table.get", json!({"table": "counters", "id": "c"})).await;
    assert_eq!(got["data"], json!({"n": 50}));
}

#[tokio::test]
async fn one_item_has_one_winner_and_a_list_keeps_its_order() {
    let daemon = shared();
    let client = connect(&daemon).await;
    let pushed = ok(&client, "table.push", json!({"table": "queue", "data": {"job": 1}})).await;
    let pops = join_all((0..20).map(|_| ok(&client, "table.pop", json!({"table": "queue"})))).await;
    let winners: Vec<_> = pops.into_iter().filter(|pop| !pop.is_null()).collect();
    assert_eq!(winners, [json!({"id": pushed["id"], "data": {"job": 1}})]);

    for n in 0..5 {
        ok(&client, "table.push", json!({"table": "queue", "data": {"n": n}})).await;
    }
    let shifted = ok(&client, "table.shift", json!({"table": "queue"})).await;
    let popped = ok(&client, "table.pop", json!({"table": "queue"})).await;
    assert_eq!((&shifted["data"], &popped["data"]), (&json!({"n": 0}), &json!({"n": 4})));
    let pushed =
        join_all((0..50).map(|n| ok(&client, "table.push", json!({"table": "many", "data": n})))).await;
    let ids: std::collections::BTreeSet<_> = pushed.iter().map(|reply| reply["id"].to_string()).collect();
    assert_eq!(ids.len(), 50);
}

#[tokio::test]
async fn a_query_filters_orders_and_pages() {
    let daemon = shared();
    let client = connect(&daemon).await;
    for n in 0..25 {
        let data = json!({"n": n, "even": n % 2 == 0, "tag": ["x", {"k": n % 3}]});
        ok(&client, "table.set", json!({"table": "pages", "id": format!("{n:02}"), "data": data})).await;
    }
    let mut after = Value::Null;
    let mut numbers = Vec::new();
    loop {
        let mut args = json!({"table": "pages", "filter": {"even": true}, "order": "-n", "limit": 5});
        if !after.is_null() {
            args["after"] = after;
        }
        let page = ok(&client, "table.query", args).await;
        let items = page["items"].as_array().expect("items");
        assert!(items.len() <= 5);
        numbers.extend(items.iter().map(|item| item["data"]["n"].as_i64().expect("a number")));
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    assert_eq!(numbers, (0..25).rev().filter(|n| n % 2 == 0).collect::<Vec<_>>());
    let count = ok(&client, "table.count", json!({"table": "pages", "filter": {"tag": [{"k": 2}]}})).await;
    assert_eq!(count, json!({"count": 8}));
    let ptr = ok(&client, "table.ptr", json!({"table": "pages"})).await;
    assert!(ptr["ptr"].as_str().is_some_and(|ptr| ptr.starts_with("raystream.")), "{ptr}");
    let list = ok(&client, "table.list", json!({})).await;
    assert!(list["tables"].as_array().is_some_and(|tables| tables.contains(&json!("pages"))), "{list}");
    ok(&client, "table.create", json!({"table": "made"})).await;
    assert_eq!(refused(&client, "table.create", json!({"table": "made"})).await, ErrorCode::ALREADY_EXISTS);
}

#[tokio::test]
async fn documents_come_back_as_they_were_and_the_largest_is_known() {
    let daemon = shared();
    let client = connect(&daemon).await;
    let data = json!({
        "text": "ünïcode \u{1F980} \"quoted\" \\ \n",
        "big": 12345678901234567890u64,
        "empty": {}, "list": [[], null, true, 1.5]
    });
    ok(&client, "table.set", json!({"table": "forms", "id": "ä/ö '\" ü", "data": data})).await;
    let got = ok(&client, "table.get", json!({"table": "forms", "id": "ä/ö '\" ü"})).await;
    assert_eq!(got["data"], data);
    let large = |len: usize| json!({"table": "forms", "id": "large", "data": "x".repeat(len)});
    ok(&client, "table.set", large(900 * 1024)).await;
    let got = ok(&client, "table.get", json!({"table": "forms", "id": "large"})).await;
    assert_eq!(got["data"].as_str().map(str::len), Some(900 * 1024));
    assert_eq!(refused(&client, "table.set", large(1020 * 1024)).await, ErrorCode::PAYLOAD_TOO_LARGE);
    assert_eq!(refused(&client, "table.set", large(2 << 20)).await, ErrorCode::PAYLOAD_TOO_LARGE);
    ok(&client, "sys.echo", json!({"still": "here"})).await;
}

#[tokio::test]
async fn a_subscription_sees_enter_leave_and_both_images() {
    let daemon = shared();
    let client = connect(&daemon).await;
    let set =
        |id: &str, open: bool, n: u32| json!({"table": "doors", "id": id, "data": {"open": open, "n": n}});
    ok(&client, "table.set", set("a", true, 1)).await;
    ok(&client, "table.set", set("b", false, 1)).await;
    let mut options = SubscribeOptions::new("doors");
    options.filter = Some(Json::encode(&json!({"open": true})).unwrap());
    let mut subscription = client.subscribe(options).await.unwrap();
    assert!(matches!(next(&mut subscription).await, Item::Position { .. }));
    let Item::Snapshot(first) = next(&mut subscription).await else { panic!("the open door") };
    assert_eq!(first.id, "a");
    assert!(matches!(next(&mut subscription).await, Item::SnapshotEnd { .. }));

    ok(&client, "table.set", set("b", true, 2)).await;
    ok(&client, "table.set", set("b", true, 3)).await;
    ok(&client, "table.set", set("b", false, 4)).await;
    ok(&client, "table.set", set("b", false, 5)).await;
    ok(&client, "table.delete", json!({"table": "doors", "id": "b"})).await;
    ok(&client, "table.delete", json!({"table": "doors", "id": "a"})).await;
    ok(&client, "table.set", set("c", true, 6)).await;
    let mut kinds = Vec::new();
    for _ in 0..5 {
        let change = next_event(&mut subscription).await;
        kinds.push((change.id.clone(), change.kind));
        if change.kind == EventKind::Update {
            let (data, old): (Value, Value) =
                (change.data.unwrap().decode().unwrap(), change.old.unwrap().decode().unwrap());
            assert_eq!((&data["n"], &old["n"]), (&json!(3), &json!(2)));
        }
    }
    let expected = [
        ("b", EventKind::Enter),
        ("b", EventKind::Update),
        ("b", EventKind::Leave),
        ("a", EventKind::Delete),
        ("c", EventKind::Insert),
    ];
    assert_eq!(kinds, expected.map(|(id, kind)| (id.to_owned(), kind)));
}

/// Writers and a subscriber that is thrown out again and again: what it holds at the end is what the table holds, and
/// every version of every document came once.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_resumes_under_load_lose_and_double_nothing() {
    const WRITERS: usize = 4;
    const WRITES: usize = 150;
    let daemon = shared();
    let writer = connect(&daemon).await;
    ok(&writer, "table.create", json!({"table": "load"})).await;
    let mut options = SubscribeOptions::new("load");
    let mut reader = connect(&daemon).await;
    let mut subscription = reader.subscribe(options.clone()).await.unwrap();
    while !matches!(next(&mut subscription).await, Item::SnapshotEnd { .. }) {}

    let writers: Vec<_> = (0..WRITERS)
        .map(|w| {
            let writer = writer.clone();
            tokio::spawn(async move {
                for n in 0..WRITES {
                    let id = format!("{w}-{}", n % 10);
                    let set = json!({"table": "load", "id": id, "data": {"n": n}});
                    ok(&writer, "table.set", set).await;
                }
            })
        })
        .collect();

    let mut versions: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut resumes = 0;
    for seen in 1..=WRITERS * WRITES {
        let change = next_event(&mut subscription).await;
        versions.entry(change.id).or_default().push(change.version);
        if seen % 6 == 0 {
            // Away without a word, and back from the cursor of the last event that was taken.
            options.cursor = subscription.cursor().map(str::to_owned);
            drop((subscription, reader));
            reader = connect(&daemon).await;
            subscription = reader.subscribe(options.clone()).await.unwrap();
            resumes += 1;
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(resumes >= 100);
    assert_eq!(versions.len(), WRITERS * 10);
    for (id, versions) in versions {
        assert_eq!(versions, (1..=WRITES as u64 / 10).collect::<Vec<_>>(), "{id}");
    }
}

#[tokio::test]
async fn websocket_and_the_other_cipher_do_the_same() {
    let daemon = shared();
    let mut options = Options::default();
    options.ciphers = raystream::client::CipherPreference::AesFirst;
    let web = Client::connect(&daemon.url.replace("raystream://", "raystream+ws://"), options).await.unwrap();
    ok(&web, "table.set", json!({"table": "web", "id": "a", "data": {"large": "y".repeat(500_000)}})).await;
    let mut subscription = web.subscribe(SubscribeOptions::new("web")).await.unwrap();
    assert!(matches!(next(&mut subscription).await, Item::Position { .. }));
    let Item::Snapshot(document) = next(&mut subscription).await else { panic!("the document") };
    assert!(document.data.is_some_and(|data| data.as_bytes().len() > 500_000));
    let info = ok(&web, "sys.info", json!({})).await;
    assert_eq!(info["principal"], json!("anonymous"), "{info}");
    web.close().await;
}

#[tokio::test]
async fn first_contact_shows_the_key_that_is_pinned_afterwards() {
    let daemon = shared();
    let without_key = format!("raystream://{}", daemon.address);
    let strict = Client::connect(&without_key, Options::default()).await;
    assert!(strict.err().is_some_and(|error| error.to_string().contains("key")));
    let mut options = Options::default();
    options.trust_on_first_use = true;
    let client = Client::connect(&without_key, options).await.unwrap();
    let seen = client.connection().expect("connected").server_key.to_string();
    assert!(daemon.url.contains(&seen));
    ok(&client, "sys.echo", json!({"hello": 1})).await;
}
