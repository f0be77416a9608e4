//! A receiver that was away for longer than changes are kept is told so.

use std::time::Duration;

use raystream::store::feed::{Feed, FeedOptions, Retention};
use raystream::store::{Store, StoreOptions};
use raystream::webhook::{WebhookChangeKind, parse_webhook_event};
use serde_json::json;

use crate::commands::{ALLOWED, add, disable, done, set, status, until_shown};
use crate::receiver::Receiver;
use crate::server::{Server, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_left_the_log_are_told_as_a_reset() {
    let server = Server::start_with(ALLOWED).await;
    let client = server.client(1).await;
    let admin = server.admin().await;
    let receiver = Receiver::start().await;
    let (id, _) = add(&server, &receiver.url(), &[]);
    set(&client, "first", json!(1)).await;
    receiver.until_events(1).await;
    until_shown("it is written", &server, &id, |shown| shown["sent"] == 1).await;
    disable(&server, &id).await;
    set(&client, "lost", json!(2)).await;

    // What is in the log is of five hours ago, and only two hours are kept.
    let names = "SELECT to_char(h, 'YYYYMMDDHH24'), h::text, (h + interval '1 hour')::text \
                 FROM date_trunc('hour', now() - interval '5 hours', 'UTC') AS h";
    let row = admin.query_one(names, &[]).await.unwrap();
    let (name, from, to): (String, String, String) = (row.get(0), row.get(1), row.get(2));
    let age = format!(
        "CREATE TABLE raystream.changes_{name} PARTITION OF raystream.changes FOR VALUES FROM ('{from}') TO ('{to}'); \
         UPDATE raystream.changes SET at = '{from}'"
    );
    admin.batch_execute(&age).await.unwrap();
    // What ran meanwhile would be named by the horizon as not lost.
    let all_ended = async || {
        let sql = "SELECT pg_snapshot_xmin(pg_current_snapshot()) > max(xid::text::numeric)::text::xid8 FROM raystream.changes";
        admin.query_one(sql, &[]).await.unwrap().get(0)
    };
    eventually("what ran meanwhile has ended", all_ended).await;
    let store = Store::connect(StoreOptions::new(server.database.clone())).await.unwrap();
    let retention = Retention { max_age: Duration::from_secs(2 * 3_600), max_bytes: u64::MAX };
    let feed = Feed::of_store(&store, FeedOptions { retention, ..FeedOptions::default() }).await.unwrap();
    feed.maintain().await.unwrap();
    set(&client, "kept", json!(3)).await;

    done(&server, &["enable", &id]);
    let events = receiver.until_events(3).await;
    let told = parse_webhook_event(&events[1].body).unwrap();
    assert_eq!((told.kind, told.table.as_str(), told.id), (WebhookChangeKind::Reset, "t", None));
    assert!(told.reason.unwrap().contains("does not go back"), "{:?}", events[1]);
    assert_eq!(events[1].id(), format!("{id}_reset_1"));
    assert_eq!(events[2].json()["id"], "kept", "and it goes on with what is kept");
    let found = status(&server, &id);
    assert_eq!(found["resets"], 1);
    assert!(found["last_reset"]["message"].as_str().unwrap().contains("does not go back"), "{found}");
}
