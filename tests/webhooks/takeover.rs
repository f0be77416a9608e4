//! Two daemons on one database: one of them sends, and the other one goes on.

use std::time::Duration;

use raystream::store::webhooks::admin::Admin;
use raystream::store::webhooks::{Failed, NewWebhook, OperationSet, Webhooks};
use raystream::store::{Store, StoreOptions, TableName};
use raystream::webhook::{Secret, Target};
use serde_json::json;

use crate::commands::{ALLOWED, add, done, set, status, until_shown};
use crate::postgres::{client, database};
use crate::receiver::{Answer, Received, Receiver, status as answer};
use crate::server::{Server, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_daemons_sends_and_the_other_goes_on_when_it_dies() {
    let mut first = Server::start_with(ALLOWED).await;
    let receiver = Receiver::start().await;
    let (id, _) = add(&first, &receiver.url(), &[]);
    let shown = until_shown("the first one takes it", &first, &id, |shown| !shown["holder"].is_null()).await;
    let holder = &shown["holder"];
    let second = Server::on(first.database.clone(), ALLOWED);
    // Written through both.
    let (one, two) = (first.client(1).await, second.client(1).await);
    for n in 0..30 {
        set(&one, &format!("a{n}"), json!(n)).await;
        set(&two, &format!("b{n}"), json!(n)).await;
    }
    let events = receiver.until_events(60).await;
    assert_eq!(receiver.received().len(), events.len(), "nothing twice: only one sends");
    assert_eq!(&status(&second, &id)["holder"], holder);

    first.kill();
    for n in 0..30 {
        set(&two, &format!("c{n}"), json!(n)).await;
    }
    // The lease of the dead one ends by itself.
    let events = receiver.until_events(90).await;
    let ids: Vec<_> =
        events[60..].iter().map(|event| event.json()["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, (0..30).map(|n| format!("c{n}")).collect::<Vec<_>>());
    let taken = status(&second, &id)["holder"].clone();
    assert!(!taken.is_null() && taken != *holder, "{taken} {holder}");
}

/// The documents of some requests, in their order.
fn names(received: &[Received]) -> Vec<String> {
    received.iter().map(|one| one.json()["id"].as_str().unwrap().to_owned()).collect()
}

/// The sessions in which daemons look after their webhooks.
const SESSIONS: &str = "SELECT coalesce(array_agg(pid), '{}') FROM pg_stat_activity \
    WHERE application_name = 'raystream webhooks' AND datname = current_database()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_stood_still_for_longer_than_its_lease_neither_sends_nor_writes() {
    let first = Server::start_with(ALLOWED).await;
    let mut is_first = true;
    let script = move |_: &Received| match std::mem::take(&mut is_first) {
        true => Answer::Gate,
        false => answer(204),
    };
    let receiver = Receiver::start_with(script).await;
    let (id, _) = add(&first, &receiver.url(), &[]);
    let shown = until_shown("the first one takes it", &first, &id, |shown| !shown["holder"].is_null()).await;
    let holder = shown["holder"].clone();
    let admin = first.admin().await;
    let of_first: Vec<i32> = admin.query_one(SESSIONS, &[]).await.unwrap().get(0);
    let second = Server::on(first.database.clone(), ALLOWED);
    let two = second.client(1).await;

    set(&two, "a", json!(1)).await;
    receiver.until("the first one sends it", |all| !all.is_empty()).await;
    first.signal("STOP");
    set(&two, "b", json!(2)).await;
    set(&two, "c", json!(3)).await;
    let has_gone_on = |shown: &serde_json::Value| {
        shown["sent"].as_i64() >= Some(3) && !shown["holder"].is_null() && shown["holder"] != holder
    };
    until_shown("the second one goes on", &second, &id, has_gone_on).await;
    let told = receiver.received();
    let mut in_order = names(&told);
    assert_eq!(in_order[..2], ["a", "a"], "what was on its way is sent again");
    in_order.dedup();
    assert_eq!(in_order, ["a", "b", "c"]);

    // Now the receiver answers the first one, who believes that it is its turn.
    let of_second: Vec<i32> = admin.query_one(SESSIONS, &[]).await.unwrap().get(0);
    let of_second: Vec<i32> = of_second.into_iter().filter(|pid| !of_first.contains(pid)).collect();
    receiver.open_gate();
    first.signal("CONT");
    // Two rounds of its own, so that whatever was under way has ended.
    for _ in 0..2 {
        let now: String = admin.query_one("SELECT clock_timestamp()::text", &[]).await.unwrap().get(0);
        let has_looked = async || {
            let sql = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'raystream webhooks' \
                AND datname = current_database() AND pid <> ALL ($1) AND state = 'idle' \
                AND query_start > $2::text::timestamptz AND query LIKE '%SET holder = $1, lease%')";
            admin.query_one(sql, &[&of_second, &now]).await.unwrap().get(0)
        };
        eventually("the first one looks for webhooks again", has_looked).await;
    }
    assert_eq!(names(&receiver.received()), names(&told), "it sent nothing");

    // Whoever begins anew goes on where the second one was.
    done(&second, &["enable", &id]);
    set(&two, "d", json!(4)).await;
    let is_told = |all: &[Received]| names(all).last().is_some_and(|name| name == "d");
    let after = names(&receiver.until("the next one is told", is_told).await[told.len()..]);
    assert!(after.iter().all(|name| name == "d"), "{after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_old_taking_says_is_not_written() {
    let config = database().await;
    let store = Store::connect(StoreOptions::new(config.clone())).await.unwrap();
    let sql = client(&config).await;
    sql.batch_execute("SELECT raystream.create_table('public', 't')").await.unwrap();
    let admin = Admin::connect(&config.clone().into()).await.unwrap();
    let new = NewWebhook {
        target: Target::parse("https://hooks.example/").unwrap(),
        table: TableName::parse("t").unwrap(),
        operations: OperationSet::ALL,
        secret: Secret::from_bytes(&[7; 32]).unwrap(),
        attempts: 3,
    };
    let id = admin.add(&new).await.unwrap();
    let (one, two) = (Webhooks::of_store(&store).unwrap(), Webhooks::of_store(&store).unwrap());
    let old = one.take(&[]).await.unwrap().pop().unwrap();
    assert!(two.take(&[]).await.unwrap().is_empty(), "a lease is one daemon's");
    sql.batch_execute("UPDATE raystream.webhooks SET lease = '-infinity'").await.unwrap();
    let now = two.take(&[]).await.unwrap().pop().unwrap();
    assert!(two.moved(&now, "behind", 1).await.unwrap());

    let failed = Failed { event: "e", attempts: 1, age: Duration::ZERO, error: "it is away" };
    let pause = Duration::from_secs(1);
    for (what, written) in [
        ("moved", one.moved(&old, "before", 5).await),
        ("failed", one.failed(&old, "before", 5, &failed, pause).await),
        ("died", one.died(&old, "before", &failed, b"{}").await),
        ("gone", one.gone(&old, "before", 5, "410").await),
        ("lost", one.lost(&old, "another", "before", "too late").await),
        ("reset_told", one.reset_told(&old).await),
        ("troubled", one.troubled(&old, "trouble").await),
    ] {
        assert!(!written.unwrap(), "{what}");
    }
    assert!(one.renew().await.unwrap().is_empty());
    let status = admin.status(id.as_str()).await.unwrap();
    assert_eq!((status.position.as_str(), status.sent, status.attempts), ("behind", 1, 0));
    assert_eq!((status.dead, status.resets, status.disabled, status.last_error), (0, 0, None, None));

    // And what the present one says is. Dead letters are read some at a time.
    let events: Vec<String> = (0..40).map(|n| format!("e{n}")).collect();
    for event in &events {
        assert!(two.died(&now, "behind", &Failed { event, ..failed.clone() }, b"{}").await.unwrap());
    }
    for with_bodies in [false, true] {
        let (mut read, mut behind) = (Vec::new(), None);
        loop {
            let page = admin.dead(id.as_str(), behind, with_bodies).await.unwrap();
            let Some(last) = page.last() else { break };
            assert!(page.len() < events.len(), "not all at once");
            behind = Some(last.place);
            assert!(page.iter().all(|letter| letter.body.is_some() == with_bodies));
            read.extend(page.into_iter().map(|letter| letter.event));
        }
        assert_eq!(read, events);
    }
}
