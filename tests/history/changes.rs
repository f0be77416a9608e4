//! The change log as a stream.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use raystream::client::{Client, Error, Item, Json, StreamOptions, SubscribeOptions};
use raystream::wire::ErrorCode;
use serde_json::{Value, json};

use crate::reads::stream;
use crate::server::{Server, call, code, eventually};

async fn changes(client: &Client, args: Value) -> Result<(Vec<Value>, Value), Error> {
    stream(client, "changes.read", &args).await
}

/// Id and version: no two changes of a table have the same.
type Key = (String, i64);

fn key(entry: &Value) -> Key {
    (entry["id"].as_str().unwrap().to_owned(), entry["version"].as_i64().unwrap())
}

fn keys(entries: &[Value]) -> Vec<Key> {
    entries.iter().map(key).collect()
}

fn sorted(mut keys: Vec<Key>) -> Vec<Key> {
    keys.sort();
    keys
}

/// The changes of each document, in their order, as images.
fn by_id(entries: &[Value]) -> BTreeMap<String, Vec<Value>> {
    let mut map: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for entry in entries {
        let images = json!([entry["version"], entry["before"], entry["after"]]);
        map.entry(key(entry).0).or_default().push(images);
    }
    map
}

/// What a subscription gives from a cursor up to a document's change, in the shape of entries.
async fn subscribed(client: &Client, cursor: &str, last: &str) -> Vec<Value> {
    let mut options = SubscribeOptions::new("t");
    (options.cursor, options.snapshot) = (Some(cursor.to_owned()), false);
    let mut subscription = client.subscribe(options).await.unwrap();
    let mut entries = Vec::new();
    loop {
        let Item::Event(change) = subscription.next().await.unwrap().unwrap() else { continue };
        let image = |json: &Option<Json>| json.as_ref().map_or(Value::Null, |json| json.decode().unwrap());
        entries.push(json!({
            "cursor": change.cursor, "id": change.id, "version": change.version,
            "before": image(&change.old), "after": image(&change.data),
        }));
        if change.id == last {
            return entries;
        }
    }
}

async fn now(client: &Client) -> String {
    let (none, end) = changes(client, json!({"from": "now"})).await.unwrap();
    assert!(none.is_empty() && end["count"] == 0);
    end["cursor"].as_str().unwrap().to_owned()
}

/// Writes until it is told to stop: alone and several documents at once, also some that others write.
async fn write(client: Client, writer: usize, stop: &AtomicBool) {
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let own = format!("w{writer}-{}", n % 5);
        let shared = format!("s{}", n % 3);
        let set =
            |id: &str| json!({"method": "table.set", "args": {"table": "t", "id": id, "data": {"n": n}}});
        // Two that want the same documents at a time may be in each other's way: nothing is written then.
        let calls = json!({"calls": [set(&own), set(&shared)]});
        let done = match n % 4 {
            0 => call(&client, "table.delete", json!({"table": "t", "id": own})).await,
            1 => call(&client, "table.batch", calls).await,
            _ => call(&client, "table.set", json!({"table": "t", "id": own, "data": {"n": n}})).await,
        };
        if let Err(error) = done {
            assert_eq!(error.code(), Some(ErrorCode::CONFLICT), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_log_has_what_a_subscription_saw_from_every_cursor_at_every_daemon() {
    let mut server = Server::start().await;
    let other = server.another();
    let elsewhere = other.client(2).await;
    let start = now(&elsewhere).await;
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..3 {
        let (client, stop) = (other.client(1).await, std::sync::Arc::clone(&stop));
        writers.push(tokio::spawn(async move { write(client, writer, &stop).await }));
    }

    // Page by page while others write, at both daemons in turn, one of which is killed meanwhile.
    let (mut paged, mut cursor) = (Vec::new(), start.clone());
    let mut client = server.client(1).await;
    for page in 0..60 {
        if page == 20 {
            server.kill();
            server.restart();
            client = server.client(1).await;
        }
        let reader = if page % 2 == 0 { &client } else { &elsewhere };
        let args = json!({"tables": ["t"], "from": cursor, "limit": 1 + page % 7});
        let (entries, end) = changes(reader, args).await.unwrap();
        assert_eq!(end["count"], entries.len());
        if let Some(last) = entries.last().filter(|_| entries.len() == 1 + page % 7) {
            assert_eq!(end["cursor"], last["cursor"], "it stopped behind the last one");
        }
        cursor = end["cursor"].as_str().unwrap().to_owned();
        paged.extend(entries);
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    call(&elsewhere, "table.set", json!({"table": "t", "id": "end", "data": 1})).await.unwrap();
    let (rest, _) = changes(&client, json!({"tables": ["t"], "from": cursor})).await.unwrap();
    paged.extend(rest);

    let seen = subscribed(&elsewhere, &start, "end").await;
    let (whole, _) = changes(&client, json!({"tables": ["t"], "from": start})).await.unwrap();
    assert!(whole.len() > 100, "{} changes are few", whole.len());
    for (what, entries) in [("at once", &whole), ("in pages", &paged)] {
        assert_eq!(sorted(keys(entries)), sorted(keys(&seen)), "{what}: each change once");
        assert_eq!(by_id(entries), by_id(&seen), "{what}: those of a document in order");
    }
    // Wherever one stops the other one goes on.
    let all = sorted(keys(&seen));
    for cut in (0..seen.len() - 1).step_by(seen.len() / 10) {
        let from = seen[cut]["cursor"].clone();
        let (rest, _) = changes(&client, json!({"tables": ["t"], "from": from})).await.unwrap();
        let both = [keys(&seen[..=cut]), keys(&rest)].concat();
        assert_eq!(sorted(both), all, "from a subscription's cursor");
        let from = paged[cut]["cursor"].as_str().unwrap();
        let rest = subscribed(&elsewhere, from, "end").await;
        assert_eq!(sorted([keys(&paged[..=cut]), keys(&rest)].concat()), all, "from a page's cursor");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_says_who_did_what_when() {
    let server = Server::start().await;
    let (client, admin) = (server.client(1).await, server.admin().await);
    let begun = now(&client).await;
    let clock = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    call(&client, "table.set", json!({"table": "t", "id": "a", "data": {"n": 1}})).await.unwrap();
    let time: String = admin.query_one(clock, &[]).await.unwrap().get(0);
    call(&client, "table.set", json!({"table": "t", "id": "a", "data": {"n": 2}})).await.unwrap();
    call(&client, "topic.publish", json!({"topic": "out", "data": {"e": 1}})).await.unwrap();
    let ptr = call(&client, "table.ptr", json!({"table": "t"})).await.unwrap();
    let (schema, table) = ptr["ptr"].as_str().unwrap().split_once('.').unwrap();
    admin.batch_execute(&format!("DELETE FROM \"{schema}\".\"{table}\"")).await.unwrap();
    let attach = "CREATE TABLE public.theirs (id int PRIMARY KEY, x text); \
                  SELECT raystream.attach('public', 'theirs', 'public.theirs'); INSERT INTO public.theirs VALUES (7, 'y')";
    admin.batch_execute(attach).await.unwrap();

    let (entries, end) = changes(&client, json!({})).await.unwrap();
    let shown: Vec<Value> = entries
        .iter()
        .map(|entry| {
            json!([
                entry["table"],
                entry["topic"],
                entry["op"],
                entry["before"],
                entry["after"],
                entry["version"]
            ])
        })
        .collect();
    let expected = [
        json!(["t", null, "insert", null, {"n": 1}, 1]),
        json!(["t", null, "update", {"n": 1}, {"n": 2}, 2]),
        json!([null, "out", "publish", null, {"e": 1}, 0]),
        json!(["t", null, "delete", {"n": 2}, null, 2]),
        json!(["theirs", null, "insert", null, {"id": 7, "x": "y"}, 0]),
    ];
    assert_eq!(shown, expected);
    assert_eq!(end["count"], 5);
    let principals: Vec<_> = entries.iter().map(|entry| entry["principal"].as_str().unwrap()).collect();
    let role: String = admin.query_one("SELECT session_user::text", &[]).await.unwrap().get(0);
    assert_ne!(principals[0], role);
    assert_eq!(&principals[1..], [principals[0], principals[0], &*role, &*role]);
    let times: Vec<_> = entries.iter().map(|entry| entry["at"].as_str().unwrap()).collect();
    assert!(times.is_sorted() && times[0] < &*time && &*time < times[1], "{times:?}");

    // From a time, of what is named, to a limit, and nothing at all.
    let some = async |args: Value| {
        let (entries, end) = changes(&client, args).await.unwrap();
        assert_eq!(end["count"], entries.len());
        let ops: Vec<String> = entries.iter().map(|entry| entry["op"].as_str().unwrap().to_owned()).collect();
        (ops, end["cursor"].clone())
    };
    assert_eq!(some(json!({"from": time, "tables": ["t"]})).await.0, ["update", "delete"]);
    assert_eq!(some(json!({"topics": ["out", "silent"]})).await.0, ["publish"]);
    assert_eq!(some(json!({"tables": []})).await.0, [""; 0]);
    assert_eq!(some(json!({"from": begun, "limit": 2})).await.0, ["insert", "update"]);
    assert_eq!(some(json!({"from": begun, "limit": 0})).await, (Vec::new(), json!(begun)));
    let (none, again) = some(json!({"from": end["cursor"]})).await;
    assert_eq!((none.len(), &again), (0, &end["cursor"]));

    // The same on the command line.
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_raystream")).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let (out, note) = run(&["changes", &server.url, "--table", "t", "--from", &begun, "--limit", "2"]);
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, entries[..2]);
    assert!(note.contains(entries[1]["cursor"].as_str().unwrap()), "{note}");
    let (out, _) = run(&["query", &server.url, "t", "--at", &time]);
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(found, json!({"id": "a", "data": {"n": 1}, "version": 1}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reads_changes_of_what_is_not_granted() {
    let server = Server::start().await;
    let client = server.client(1).await;
    for table in ["closed", "secret"] {
        call(&client, "table.create", json!({"table": table})).await.unwrap();
    }
    for table in ["t", "closed", "secret"] {
        call(&client, "table.set", json!({"table": table, "id": "a", "data": 1})).await.unwrap();
    }
    for topic in ["in", "out"] {
        call(&client, "topic.publish", json!({"topic": topic, "data": 1})).await.unwrap();
    }
    let some = server.client(3).await;
    let (entries, _) = changes(&some, json!({})).await.unwrap();
    let names: Vec<_> =
        entries.iter().map(|entry| entry["table"].as_str().or(entry["topic"].as_str()).unwrap()).collect();
    assert_eq!(names, ["t", "closed", "out"], "what is granted, and nothing else");
    for args in [
        json!({"tables": ["t", "secret"]}),
        json!({"tables": ["nothing"]}),
        json!({"topics": ["in"]}),
        json!({"topics": ["out", "elsewhere"]}),
    ] {
        let refused = changes(&some, args.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::PERMISSION_DENIED), "{args}");
    }
    let refused = changes(&server.client(4).await, json!({})).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::FORBIDDEN), "the method has to be granted too");

    let refused = changes(&client, json!({"tables": ["nothing"]})).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::NOT_FOUND));
    for args in [
        json!({"from": "AAAA"}),
        json!({"from": "2999-01-01T00:00:00Z"}),
        json!({"from": 1}),
        json!({"tables": "t"}),
        json!({"tables": ["a b"]}),
        json!({"topics": [5]}),
        json!({"sid": "x"}),
    ] {
        let refused = changes(&client, args.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::INVALID_REQUEST), "{args}");
    }
    assert_eq!(code(call(&client, "changes.read", json!({})).await), ErrorCode::INVALID_REQUEST, "no items");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_is_taken_away_ends_a_read_that_runs() {
    const ENTRIES: usize = 20_000;
    let server = Server::start().await;
    let (client, admin) = (server.client(1).await, server.admin().await);
    call(&client, "table.create", json!({"table": "closed"})).await.unwrap();
    let ptr = call(&client, "table.ptr", json!({"table": "closed"})).await.unwrap();
    let (schema, table) = ptr["ptr"].as_str().unwrap().split_once('.').unwrap();
    let fill = format!(
        "INSERT INTO \"{schema}\".\"{table}\" (id, data) SELECT n::text, to_jsonb(n) FROM generate_series(1, {ENTRIES}) AS n"
    );
    admin.batch_execute(&fill).await.unwrap();

    let some = server.client(3).await;
    let args = Json::encode(&json!({"tables": ["closed"]})).unwrap();
    let mut open = some.open("changes.read", args, StreamOptions::receiving()).await.unwrap();
    assert!(open.next().await.unwrap().is_some(), "the read runs, and waits for its reader");
    server.reconfigure("closed = [\"read\"]", "other = [\"read\"]");
    let refused = async || {
        let read = call(&some, "table.get", json!({"table": "closed", "id": "1"})).await;
        read.is_err_and(|error| error.code() == Some(ErrorCode::PERMISSION_DENIED))
    };
    eventually("the new rules are in force", refused).await;
    let mut taken = 1;
    let end = loop {
        match open.next().await {
            Ok(Some(_)) => taken += 1,
            Ok(None) => panic!("all {taken} came"),
            Err(error) => break error,
        }
    };
    assert_eq!(end.code(), Some(ErrorCode::PERMISSION_DENIED));
    assert!(taken < ENTRIES, "what was under way, and no more: {taken}");
}
