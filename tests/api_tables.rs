//! The table methods on a real Postgres: what they take, what they give, what they refuse.
#![cfg(feature = "server")]

use std::sync::Arc;

use bytes::Bytes;
use raystream::api::{Caller, Clock, Context, Router, router};
use raystream::auth::{Access, AccessHandle, Principal};
use raystream::noise::PublicKey;
use raystream::rpc::{Call, ConnectionId, Encoding, Items, Status};
use raystream::store::embedded::{Embedded, EmbeddedOptions};
use raystream::store::{Store, StoreOptions};
use raystream::wire::registry::ErrorCode;
use serde_json::{Value, json};

struct StoppedClock;

impl Clock for StoppedClock {
    fn server_time_ms(&self) -> u64 {
        0
    }

    fn uptime_ms(&self) -> u64 {
        0
    }
}

/// One caller of one server.
struct Client {
    router: Router,
    caller: Arc<Caller>,
}

impl Client {
    fn new(store: &Store, access: Access, principal: Principal) -> Self {
        let caller = Caller::new(principal, AccessHandle::new(access));
        Self { router: router(store, Arc::new(StoppedClock)), caller: Arc::new(caller) }
    }

    async fn raw(&self, method: &str, args: impl Into<Bytes>) -> Result<Bytes, Status> {
        let context = Context {
            caller: Arc::clone(&self.caller),
            connection: ConnectionId([0; 16]),
            deadline: None,
            cancelled: Default::default(),
            metadata: Vec::new(),
        };
        let call = Call {
            method: method.into(),
            encoding: Encoding::Json,
            args: args.into(),
            idempotency_key: None,
            items: Items::default(),
        };
        self.router.dispatch(&context, call).await.map(|answer| answer.result)
    }

    async fn call(&self, method: &str, args: Value) -> Value {
        let result = self.raw(method, args.to_string()).await;
        let bytes = result.unwrap_or_else(|status| panic!("{method} {args}: {status}"));
        serde_json::from_slice(&bytes).expect("every result is JSON")
    }

    async fn code(&self, method: &str, args: Value) -> ErrorCode {
        self.raw(method, args.to_string()).await.expect_err("it is refused").code
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn table_methods_on_a_real_postgres() {
    let folder = tempfile::tempdir().expect("a folder");
    let embedded =
        Embedded::start(EmbeddedOptions::new(folder.path())).await.expect("the private Postgres starts");
    let connect = async |create_tables| {
        let options = StoreOptions { create_tables, ..StoreOptions::new(embedded.config()) };
        Store::connect(options).await.expect("the store connects")
    };
    let store = connect(true).await;
    let client = Client::new(&store, Access::everything(), Principal::anonymous());
    a_table_comes_to_be_on_the_first_write(&client).await;
    documents_pass_as_they_are(&client).await;
    queues_give_each_document_once(&client).await;
    pages_follow_each_other(&client).await;
    nothing_wrong_gets_through(&client).await;
    rights_are_judged_before_tables_are_looked_up(&store).await;
    store.close().await;
    let strict = connect(false).await;
    without_creation_a_table_has_to_be_made(&Client::new(
        &strict,
        Access::everything(),
        Principal::anonymous(),
    ))
    .await;
    strict.close().await;
    embedded.stop().await;
}

async fn a_table_comes_to_be_on_the_first_write(client: &Client) {
    for method in ["table.get", "table.count", "table.query", "table.ptr"] {
        let args =
            if method == "table.get" { json!({"table": "a", "id": "x"}) } else { json!({"table": "a"}) };
        assert_eq!(client.code(method, args).await, ErrorCode::NOT_FOUND, "{method}");
    }
    let first = client.call("table.set", json!({"table": "a", "id": "x", "data": {"n": 1}})).await;
    assert_eq!(first, json!({"version": 1}));
    assert_eq!(client.call("table.list", json!({})).await, json!({"tables": ["a"]}));
    assert_eq!(client.code("table.create", json!({"table": "a"})).await, ErrorCode::ALREADY_EXISTS);
    assert_eq!(client.call("table.create", json!({"table": "b"})).await, json!({"created": true}));
    let ptr = client.call("table.ptr", json!({"table": "b"})).await;
    assert!(ptr["ptr"].as_str().is_some_and(|ptr| ptr.contains(".tbl_")), "{ptr}");
}

async fn documents_pass_as_they_are(client: &Client) {
    let get = json!({"table": "a", "id": "x"});
    assert_eq!(client.call("table.get", get.clone()).await, json!({"data": {"n": 1}, "version": 1}));
    assert_eq!(client.call("table.get", json!({"table": "a", "id": "y"})).await, Value::Null);
    let set = |version: i64| json!({"table": "a", "id": "x", "data": {"n": 2}, "if_version": version});
    assert_eq!(client.code("table.set", set(0)).await, ErrorCode::CONFLICT);
    assert_eq!(client.code("table.set", set(7)).await, ErrorCode::CONFLICT);
    assert_eq!(client.call("table.set", set(1)).await, json!({"version": 2}));
    let patch = json!({"table": "a", "id": "x", "data": {"n": null, "m": {"k": "v"}}});
    assert_eq!(client.call("table.update", patch).await, json!({"version": 3}));
    assert_eq!(client.call("table.get", get.clone()).await["data"], json!({"m": {"k": "v"}}));
    let missing = json!({"table": "a", "id": "y", "data": {}});
    assert_eq!(client.code("table.update", missing).await, ErrorCode::NOT_FOUND);
    assert_eq!(client.call("table.delete", get.clone()).await, json!({"deleted": true}));
    assert_eq!(client.call("table.delete", get.clone()).await, json!({"deleted": false}));
    assert_eq!(client.call("table.get", get).await, Value::Null);

    // A number that no machine type holds survives, because nothing on the way reads it.
    let big = r#"{"table":"a","id":"quote\"\\ü","data":{"n":123456789012345678901234567890.125}}"#;
    client.raw("table.set", big).await.expect("stored");
    let read = client.raw("table.get", r#"{"table":"a","id":"quote\"\\ü"}"#).await.expect("there");
    assert!(read.starts_with(br#"{"data":{"n": 123456789012345678901234567890.125},"version":"#), "{read:?}");
}

async fn queues_give_each_document_once(client: &Client) {
    let mut ids = Vec::new();
    for n in 0..3 {
        let pushed = client.call("table.push", json!({"table": "queue", "data": {"n": n}})).await;
        ids.push(pushed["id"].clone());
    }
    let queue = json!({"table": "queue"});
    assert_eq!(client.call("table.count", queue.clone()).await, json!({"count": 3}));
    let filtered = json!({"table": "queue", "filter": {"n": 1}});
    assert_eq!(client.call("table.count", filtered).await, json!({"count": 1}));
    assert_eq!(client.call("table.pop", queue.clone()).await, json!({"id": ids[2], "data": {"n": 2}}));
    assert_eq!(client.call("table.shift", queue.clone()).await, json!({"id": ids[0], "data": {"n": 0}}));
    assert_eq!(client.call("table.shift", queue.clone()).await, json!({"id": ids[1], "data": {"n": 1}}));
    assert_eq!(client.call("table.pop", queue.clone()).await, Value::Null);
    assert_eq!(client.call("table.shift", queue).await, Value::Null);
}

async fn pages_follow_each_other(client: &Client) {
    for n in 0..5 {
        let set = json!({"table": "pages", "id": format!("d{n}"), "data": {"n": n, "even": n % 2 == 0}});
        client.call("table.set", set).await;
    }
    let mut seen = Vec::new();
    let mut after = Value::Null;
    loop {
        let query = json!({"table": "pages", "order": "-n", "limit": 2, "after": after, "filter": null});
        let page = client.call("table.query", query).await;
        let items = page["items"].as_array().expect("a list");
        assert!(items.len() <= 2);
        for item in items {
            let mut keys: Vec<_> = item.as_object().expect("an object").keys().cloned().collect();
            keys.sort();
            assert_eq!(keys, ["data", "id", "version"]);
            seen.push(item["id"].clone());
        }
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    assert_eq!(seen, ["d4", "d3", "d2", "d1", "d0"].map(Value::from));
    let even = client.call("table.query", json!({"table": "pages", "filter": {"even": true}})).await;
    assert_eq!(even["items"].as_array().map(Vec::len), Some(3));
    assert_eq!(even["next"], Value::Null);
}

async fn nothing_wrong_gets_through(client: &Client) {
    for (method, args, part) in [
        ("table.get", r#"{"table":"a","id":"x","extra":1}"#, "`extra` is not known"),
        ("table.get", r#"{"table":"a\"; DROP","id":"x"}"#, "the field `table`"),
        ("table.get", r#"{"table":"a","id":""}"#, "the field `id`"),
        ("table.get", r#"{"table":"a","id":"a\nb"}"#, "the field `id`"),
        ("table.set", r#"{"table":"a","id":"x","data":{}"#, "not JSON"),
        ("table.set", r#"{"table":"a","id":"x"}"#, "`data` is missing"),
        ("table.set", r#"{"table":"a","id":"x","data":{},"if_version":-1}"#, "`if_version`"),
        ("table.set", r#"{"table":"a","id":"x","data":{},"ifversion":1}"#, "`ifversion` is not known"),
        ("table.set", r#"{"table":"a","id":"x","data":"\u0000"}"#, "U+0000"),
        ("table.set", r#"{"table":"a","id":"x","data":"\ud800"}"#, ""),
        ("table.query", r#"{"table":"a","limit":-1}"#, "`limit`"),
        ("table.query", r#"{"table":"a","limit":100000}"#, ""),
        ("table.query", r#"{"table":"a","order":"a..b"}"#, "the field `order`"),
        ("table.query", r#"{"table":"a","after":"nonsense"}"#, ""),
        ("table.query", r#"{"table":"a","filter":[]}"#, "`filter`"),
        ("table.list", r#"{"table":"a"}"#, "known are sid"),
    ] {
        let status = client.raw(method, args).await.expect_err(args);
        assert_eq!(status.code, ErrorCode::INVALID_REQUEST, "{method} {args}: {status}");
        assert!(status.message.contains(part), "{method} {args}: {status}");
    }
    let large = format!(r#"{{"table":"a","id":"x","data":"{}"}}"#, "x".repeat(1024 * 1024));
    let status = client.raw("table.set", large).await.expect_err("too large");
    assert_eq!(status.code, ErrorCode::PAYLOAD_TOO_LARGE);
    let deep = format!(r#"{{"table":"a","id":"x","data":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
    assert_eq!(client.raw("table.set", deep).await.expect_err("too deep").code, ErrorCode::INVALID_REQUEST);
    assert_eq!(client.code("table.nothing", json!({})).await, ErrorCode::NOT_FOUND);
}

async fn rights_are_judged_before_tables_are_looked_up(store: &Store) {
    const RULES: &str = r#"
        [keys]
        "1111111111111111111111111111111111111111111111111111111111111111" = ["worker"]
        [roles.worker]
        methods = ["table.*"]
        tables = { pages = ["read"], queue = ["write"], missing = ["read"] }
    "#;
    let access = Access::compile(&toml::from_str(RULES).expect("TOML")).expect("sound");
    let worker = Client::new(store, access, Principal::with_key(PublicKey([0x11; 32])));
    assert_eq!(worker.call("table.list", json!({})).await, json!({"tables": ["pages"]}));
    assert!(worker.call("table.push", json!({"table": "queue", "data": 1})).await["id"].is_string());
    for (method, args) in [
        // To take a document out is to see it: writing alone is not enough.
        ("table.pop", json!({"table": "queue"})),
        ("table.shift", json!({"table": "pages"})),
        ("table.count", json!({"table": "queue"})),
        ("table.set", json!({"table": "pages", "id": "x", "data": 1})),
        ("table.delete", json!({"table": "pages", "id": "d0"})),
        ("table.create", json!({"table": "missing"})),
        ("table.get", json!({"table": "a", "id": "x"})),
        ("table.get", json!({"table": "never_there", "id": "x"})),
        ("table.ptr", json!({"table": "never_there"})),
        ("table.push", json!({"table": "never_there", "data": 1})),
    ] {
        assert_eq!(worker.code(method, args.clone()).await, ErrorCode::PERMISSION_DENIED, "{method} {args}");
    }
    let missing = json!({"table": "missing", "id": "x"});
    assert_eq!(worker.code("table.get", missing).await, ErrorCode::NOT_FOUND);
}

async fn without_creation_a_table_has_to_be_made(client: &Client) {
    for (method, args) in [
        ("table.set", json!({"table": "fresh", "id": "x", "data": 1})),
        ("table.push", json!({"table": "fresh", "data": 1})),
        ("table.pop", json!({"table": "fresh"})),
        ("table.shift", json!({"table": "fresh"})),
        ("table.delete", json!({"table": "fresh", "id": "x"})),
        ("table.update", json!({"table": "fresh", "id": "x", "data": {}})),
    ] {
        assert_eq!(client.code(method, args).await, ErrorCode::NOT_FOUND, "{method}");
    }
    client.call("table.create", json!({"table": "fresh"})).await;
    assert_eq!(
        client.call("table.set", json!({"table": "fresh", "id": "x", "data": 1})).await,
        json!({"version": 1})
    );
}
