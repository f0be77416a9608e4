//! Moments that are no longer kept.

use std::time::Duration;

use raystream::store::feed::{Feed, FeedOptions, Retention};
use raystream::store::{Store, StoreOptions};
use raystream::wire::ErrorCode;
use serde_json::{Value, json};
use tokio_postgres::Client;
use tokio_postgres::config::Host;

use crate::reads::stream;
use crate::server::{Server, call, code, eventually};

const HOUR: Duration = Duration::from_secs(3_600);

/// Moves all that is in the log into the partition of an hour some hours ago.
async fn age(admin: &Client, hours: u32) {
    let names = format!(
        "SELECT to_char(h, 'YYYYMMDDHH24'), h::text, (h + interval '1 hour')::text \
         FROM date_trunc('hour', now() - interval '{hours} hours', 'UTC') AS h"
    );
    let row = admin.query_one(&names, &[]).await.unwrap();
    let (name, from, to): (String, String, String) = (row.get(0), row.get(1), row.get(2));
    let statements = format!(
        "CREATE TABLE raystream.changes_{name} PARTITION OF raystream.changes \
             FOR VALUES FROM ('{from}') TO ('{to}'); UPDATE raystream.changes SET at = '{from}'"
    );
    admin.batch_execute(&statements).await.unwrap();
}

async fn position(client: &raystream::client::Client) -> Value {
    call(client, "topic.publish", json!({"topic": "x", "data": 1})).await.unwrap()["cursor"].clone()
}

/// A time some hours ago, by the clock of the database.
async fn hours_ago(admin: &Client, hours: u32) -> Value {
    let sql = format!(
        "SELECT to_char(now() - interval '{hours} hours', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') \
         FROM set_config('timezone', 'UTC', false)"
    );
    admin.query_one(&sql, &[]).await.unwrap().get::<_, String>(0).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moment_that_left_the_log_is_reset_and_a_later_one_is_exact() {
    let server = Server::start().await;
    let (client, admin) = (server.client(1).await, server.admin().await);
    let set = async |n: i64| {
        let args = json!({"table": "t", "id": "a", "data": n});
        call(&client, "table.set", args).await.unwrap();
    };
    set(1).await;
    let lost = position(&client).await;
    set(2).await;
    age(&admin, 5).await;
    // A transaction of another database that is as old as these changes would be an exception in the cursor.
    let all_ended = async || {
        let sql = "SELECT pg_snapshot_xmin(pg_current_snapshot()) > max(xid::text::numeric)::text::xid8 FROM raystream.changes";
        admin.query_one(sql, &[]).await.unwrap().get(0)
    };
    eventually("what ran meanwhile has ended", all_ended).await;
    let kept = position(&client).await;
    set(3).await;

    let get = async |at: &Value| call(&client, "table.get", json!({"table": "t", "id": "a", "at": at})).await;
    let (three, seven) = (hours_ago(&admin, 3).await, hours_ago(&admin, 7).await);
    assert_eq!(get(&lost).await.unwrap()["data"], 1);
    assert_eq!(get(&three).await.unwrap()["data"], 2);
    assert_eq!(get(&seven).await.unwrap(), Value::Null, "it was before everything, and that is known");

    let store = Store::connect(StoreOptions::new(server.database.clone())).await.unwrap();
    let retention = Retention { max_age: 2 * HOUR, max_bytes: u64::MAX };
    let options = FeedOptions { retention, ..FeedOptions::default() };
    let feed = Feed::of_store(&store, options).await.unwrap();
    // It looked after the log when it started.
    feed.maintain().await.unwrap();
    let left: i64 = admin
        .query_one("SELECT count(*) FROM raystream.changes WHERE at < now() - interval '4 hours'", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(left, 0, "the partition is gone");

    for gone in [&lost, &seven, &hours_ago(&admin, 5).await] {
        assert_eq!(code(get(gone).await), ErrorCode::RESET, "{gone}");
        for method in ["table.query", "table.count"] {
            let args = json!({"table": "t", "at": gone});
            assert_eq!(code(call(&client, method, args).await), ErrorCode::RESET, "{method} {gone}");
        }
        let streamed = stream(&client, "table.query", &json!({"table": "t", "at": gone})).await;
        assert_eq!(streamed.unwrap_err().code(), Some(ErrorCode::RESET), "streamed {gone}");
    }
    for (gone, code) in
        [(json!(lost), Some(ErrorCode::RESET)), (seven, Some(ErrorCode::RESET)), (kept.clone(), None)]
    {
        let read = stream(&client, "changes.read", &json!({"from": gone, "tables": ["t"]})).await;
        assert_eq!(read.as_ref().err().and_then(|error| error.code()), code, "the log behind {gone}");
        assert!(read.is_err() || read.is_ok_and(|(entries, _)| entries.len() == 1));
    }
    let (oldest, _) = stream(&client, "changes.read", &json!({"tables": ["t"]})).await.unwrap();
    assert_eq!(oldest.len(), 1, "what is kept");
    for exact in [&kept, &three] {
        let found = get(exact).await.unwrap();
        assert_eq!((&found["data"], &found["version"]), (&json!(2), &json!(2)), "{exact}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_over_the_end_of_what_is_kept_is_never_half_there() {
    let server = Server::start().await;
    let (client, admin) = (server.client(1).await, server.admin().await);
    let ptr = call(&client, "table.ptr", json!({"table": "t"})).await.unwrap();
    let (schema, table) = ptr["ptr"].as_str().unwrap().split_once('.').unwrap();
    let insert = |id: &str| format!("INSERT INTO \"{schema}\".\"{table}\" (id, data) VALUES ('{id}', '1')");
    let both = format!("BEGIN; {}; {}; COMMIT", insert("a"), insert("b"));
    admin.batch_execute(&both).await.unwrap();
    age(&admin, 8).await;
    // As if its second change had been made hours later.
    age_only(&admin, "b", 4).await;
    let between = hours_ago(&admin, 8).await;
    let count = async |at: &Value| call(&client, "table.count", json!({"table": "t", "at": at})).await;
    // `between` is in the hour of the first one, before the second one.
    assert_eq!(count(&between).await.unwrap()["count"], 0, "it had not ended");

    let store = Store::connect(StoreOptions::new(server.database.clone())).await.unwrap();
    let retention = Retention { max_age: 5 * HOUR, max_bytes: u64::MAX };
    let feed = Feed::of_store(&store, FeedOptions { retention, ..FeedOptions::default() }).await.unwrap();
    feed.maintain().await.unwrap();
    let kept: Vec<String> = admin
        .query("SELECT id FROM raystream.changes ORDER BY id", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(kept, ["b"], "the first change left the log, the second did not");
    // Right before the second change, which can be undone: the first one cannot.
    let sql = "SELECT to_char(date_trunc('hour', now() - interval '4 hours'), 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') \
               FROM set_config('timezone', 'UTC', false)";
    let edge: String = admin.query_one(sql, &[]).await.unwrap().get(0);
    for at in [json!(edge), between] {
        match count(&at).await {
            Ok(answer) => assert_eq!(answer["count"], 2, "whole at {at}"),
            Err(error) => assert_eq!(error.code(), Some(ErrorCode::RESET), "{at}"),
        }
    }
    let after = hours_ago(&admin, 2).await;
    assert_eq!(count(&after).await.unwrap()["count"], 2);
}

/// Moves a change in time, into a partition of its own.
async fn age_only(admin: &Client, id: &str, hours: u32) {
    let names = format!(
        "SELECT to_char(h, 'YYYYMMDDHH24'), h::text, (h + interval '1 hour')::text \
         FROM date_trunc('hour', now() - interval '{hours} hours', 'UTC') AS h"
    );
    let row = admin.query_one(&names, &[]).await.unwrap();
    let (name, from, to): (String, String, String) = (row.get(0), row.get(1), row.get(2));
    let statements = format!(
        "CREATE TABLE raystream.changes_{name} PARTITION OF raystream.changes \
             FOR VALUES FROM ('{from}') TO ('{to}'); \
         UPDATE raystream.changes SET at = timestamptz '{from}' + interval '1 second' WHERE id = '{id}'"
    );
    admin.batch_execute(&statements).await.unwrap();
}

/// `raystream gc` with a retention of two hours.
fn gc(server: &Server, args: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let Some(Host::Unix(socket)) = server.database.get_hosts().first() else { panic!("a unix socket") };
    let (user, name) = (server.database.get_user().unwrap(), server.database.get_dbname().unwrap());
    let config = format!(
        "[database]\nurl = \"host={} user={user} dbname={name}\"\n[feed]\nretention = \"2h\"\n",
        socket.display()
    );
    let file = folder.path().join("raystream.toml");
    std::fs::write(&file, config).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_raystream"));
    let output = command.args(["gc", "--json", "--config"]).arg(&file).args(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tombstone_goes_when_its_delete_left_the_log_and_not_before() {
    let server = Server::start().await;
    let (client, admin) = (server.client(1).await, server.admin().await);
    let set = async |id: &str| {
        let args = json!({"table": "t", "id": id, "data": 1});
        call(&client, "table.set", args).await.unwrap()["version"].clone()
    };
    let delete = async |id: &str| {
        assert_eq!(
            call(&client, "table.delete", json!({"table": "t", "id": id})).await.unwrap()["deleted"],
            true
        );
    };
    set("old").await;
    set("stays").await;
    let before = position(&client).await;
    delete("old").await;
    age(&admin, 5).await;
    set("new").await;
    delete("new").await;

    let due = |survey: &Value| -> Vec<Value> {
        let all = survey["partitions"].as_array().unwrap();
        all.iter().filter(|partition| partition["due"] == true).cloned().collect()
    };
    let survey = gc(&server, &[]);
    assert_eq!((due(&survey).len(), &survey["tombstones"]), (1, &json!(0)), "{survey}");
    assert!(due(&survey)[0]["bytes"].as_u64().unwrap() > 0);
    assert_eq!(gc(&server, &[]), survey, "looking changes nothing");
    assert_eq!(call(&client, "table.count", json!({"table": "t", "at": before})).await.unwrap()["count"], 2);

    let run = gc(&server, &["--run"]);
    assert_eq!(run["partitions"], 1, "{run}");
    // A statement of the daemon that runs at this moment beside an old transaction of another database delays it.
    let mut gone = run["tombstones"].as_u64().unwrap();
    eventually("it is collected", async || {
        gone += if gone == 0 { gc(&server, &["--run"])["tombstones"].as_u64().unwrap() } else { 0 };
        gone > 0
    })
    .await;
    assert_eq!(gone, 1);
    let survey = gc(&server, &[]);
    assert_eq!((due(&survey).len(), &survey["tombstones"]), (0, &json!(0)), "{survey}");
    assert_eq!(
        code(call(&client, "table.count", json!({"table": "t", "at": before})).await),
        ErrorCode::RESET
    );

    assert_eq!(set("new").await, 3, "its delete is in the log: no version comes twice");
    assert_eq!(set("stays").await, 2);
    assert_eq!(set("old").await, 1, "nobody can have seen another one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_drops_what_is_old_by_itself() {
    let first = Server::start().await;
    let (client, admin) = (first.client(1).await, first.admin().await);
    call(&client, "table.set", json!({"table": "t", "id": "a", "data": 1})).await.unwrap();
    let (entries, _) = stream(&client, "changes.read", &json!({})).await.unwrap();
    assert_eq!(entries.len(), 1);
    age(&admin, 5).await;
    let second = Server::on(first.database.clone(), "[feed]\nretention = \"2h\"");
    let client = second.client(1).await;
    let (entries, _) = stream(&client, "changes.read", &json!({})).await.unwrap();
    assert!(entries.is_empty(), "{entries:?}");
    assert_eq!(call(&client, "table.count", json!({"table": "t"})).await.unwrap()["count"], 1);
}
