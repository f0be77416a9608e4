//! A receiver that was away for longer than changes are kept is told so.

use std::time::Duration;

use raystream::store::feed::{Feed, FeedOptions, Retention};
use raystream::store::{Store, StoreOptions};
use raystream::webhook::{WebhookChangeKind, parse_webhook_event};
use serde_json::json;

use crate::commands::{ALLOWED, add, disable, done, set, status, until_shown};
use crate::receiver::Receiver;
use crate::server::{Server, call, eventually};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_made_anew_is_told_as_a_reset() {
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
    admin.batch_execute("SELECT raystream.remove_table('t')").await.unwrap();
    call(&client, "table.create", json!({"table": "t"})).await.unwrap();
    set(&client, "new", json!(3)).await;

    done(&server, &["enable", &id]);
    let events = receiver.until_events(3).await;
    let told = parse_webhook_event(&events[1].body).unwrap();
    assert_eq!((told.kind, told.table.as_str()), (WebhookChangeKind::Reset, "t"));
    assert!(told.reason.unwrap().contains("anew"), "{:?}", events[1]);
    assert_eq!((events[1].id(), &events[2].json()["id"]), (format!("{id}_reset_1").as_str(), &json!("new")));
    // Once, and from there on as before.
    set(&client, "next", json!(4)).await;
    let events = receiver.until_events(4).await;
    assert_eq!(events[3].json()["id"], "next");
    assert_eq!(status(&server, &id)["resets"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_was_detached_for_a_while_is_told_as_a_reset() {
    let server = Server::start_with(ALLOWED).await;
    let admin = server.admin().await;
    let receiver = Receiver::start().await;
    let attach = "SELECT raystream.attach('public', 'orders', 'public.orders'::regclass)";
    let make = "CREATE TABLE public.orders (id int PRIMARY KEY, total int)";
    admin.batch_execute(&format!("{make}; {attach}")).await.unwrap();
    let added = done(&server, &["add", &receiver.url(), "--table", "orders"]);
    let id = added[0]["id"].as_str().unwrap();
    disable(&server, id).await;
    for statement in [
        "INSERT INTO public.orders VALUES (1, 1)",
        "SELECT raystream.detach('public', 'orders', NULL)",
        "UPDATE public.orders SET total = 2",
        attach,
        "UPDATE public.orders SET total = 3",
    ] {
        admin.batch_execute(statement).await.unwrap();
    }
    done(&server, &["enable", id]);
    let events = receiver.until_events(2).await;
    assert_eq!(events[0].json()["type"], "reset");
    assert_eq!(
        (&events[1].json()["old"]["total"], &events[1].json()["new"]["total"]),
        (&json!(2), &json!(3))
    );

    disable(&server, id).await;
    admin.batch_execute("SELECT raystream.detach('public', 'orders', NULL)").await.unwrap();
    admin.batch_execute(attach).await.unwrap();
    done(&server, &["replay", id, "--from", "now"]);
    done(&server, &["enable", id]);
    admin.batch_execute("UPDATE public.orders SET total = 4").await.unwrap();
    let events = receiver.until_events(3).await;
    assert_eq!(events[2].json()["new"]["total"], 4, "and no reset: the operator passed over what was");
}
