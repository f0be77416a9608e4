//! Events of topics in the feed: what differs from the documents of a table.

use std::time::Duration;

use raystream::store::feed::{
    ChangeKind, EndReason, Feed, Item, Overflow, Retention, SubscribeRequest, Subscription,
};
use raystream::store::{StoreError, TopicName, Writer};

use crate::reset::age;
use crate::world::{World, events, json, live, text, until, until_end, until_id};

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).expect("a good name")
}

fn request(overflow: Overflow) -> SubscribeRequest {
    SubscribeRequest { source: topic("news").into(), filter: None, cursor: None, snapshot: false, overflow }
}

async fn subscribe(feed: &Feed, overflow: Overflow) -> Subscription {
    feed.subscribe(request(overflow)).await.expect("it begins")
}

/// Publishes numbers, and gives the id of the last.
async fn publish(world: &World, numbers: std::ops::Range<u32>) -> String {
    let mut last = String::new();
    for n in numbers {
        let published = world.store.publish(Writer::new("test"), &topic("news"), json(&n.to_string())).await;
        last = published.expect("it is published").id.into_string();
    }
    last
}

fn numbers(items: &[Item]) -> Vec<u32> {
    let events = events(items);
    assert!(events.iter().all(|event| event.kind == ChangeKind::Publish));
    events.iter().map(|event| text(event.data.as_ref()).expect("data").parse().expect("a number")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_falls_behind_loses_nothing_or_says_so() {
    let world = World::new().await;
    let feed = world.feed_with(|options| options.queue_events = 16).await;
    let mut blocking = subscribe(&feed, Overflow::Block).await;
    let mut dropping = subscribe(&feed, Overflow::DropOldest).await;
    let mut closing = subscribe(&feed, Overflow::Close).await;
    let watcher = world.feed().await;
    let mut watching = subscribe(&watcher, Overflow::Close).await;
    let last = publish(&world, 0..100).await;
    until_id(&mut watching, &last).await;

    assert_eq!(numbers(&until_id(&mut blocking, &last).await), (0..100).collect::<Vec<_>>());
    let kept = until_id(&mut dropping, &last).await;
    let dropped = events(&kept).last().expect("an event").dropped;
    assert_eq!(events(&kept).len() + usize::try_from(dropped).expect("small"), 100);
    let (before, reason, cursor) = until_end(&mut closing).await;
    assert_eq!(reason, EndReason::Lagged);
    let cursor = cursor.expect("it says where to go on").to_string();
    let again = SubscribeRequest { cursor: Some(cursor), ..request(Overflow::Close) };
    let mut again = feed.subscribe(again).await.expect("it begins");
    let rest = until_id(&mut again, &last).await;
    assert_eq!([numbers(&before), numbers(&rest)].concat(), (0..100).collect::<Vec<_>>());

    for overflow in [Overflow::Conflate, Overflow::Resnapshot] {
        let refused = feed.subscribe(request(overflow)).await.map(drop);
        assert!(matches!(refused, Err(StoreError::InvalidInput(_))), "{overflow:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn housekeeping_ends_no_topic() {
    let world = World::new().await;
    let feed = world.feed().await;
    let (mut table, mut news) = (live(&feed).await, subscribe(&feed, Overflow::Close).await);
    let client = world.client().await;
    client.batch_execute(&format!("DROP TABLE {}", world.t)).await.expect("the table goes");
    client.batch_execute("DELETE FROM raystream.storage").await.expect("the name goes");
    feed.maintain().await.expect("the house is kept");
    let (_, reason, _) = until_end(&mut table).await;
    assert_eq!(reason, EndReason::TableDropped);
    let last = publish(&world, 0..3).await;
    assert_eq!(numbers(&until_id(&mut news, &last).await), [0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_table_stands_where_a_topic_does_in_the_log() {
    let world = World::new().await;
    let client = world.client().await;
    let moved = client.execute("UPDATE raystream.storage SET ptr = 'topic:news'", &[]).await;
    let error = moved.expect_err("it would give out changes as events");
    assert_eq!(error.as_db_error().and_then(|error| error.constraint()), Some("ptr_is_no_topic"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_stays_open_holds_back_its_own_event_only() {
    let world = World::new().await;
    let feed = world.feed().await;
    let mut news = subscribe(&feed, Overflow::Close).await;
    let start = publish(&world, 0..1).await;
    until_id(&mut news, &start).await;
    let mut client = world.client().await;
    let open = client.transaction().await.expect("a transaction");
    open.execute(
        "INSERT INTO raystream.changes (xid, seq, ptr, id, op, version, after, at) VALUES \
         (pg_current_xact_id(), nextval('raystream.change_seq'), 'topic:news', 'open', 'p', 0, '7', now())",
        &[],
    )
    .await
    .expect("an event");
    let later = publish(&world, 1..2).await;
    let items = until_id(&mut news, &later).await;
    assert_eq!(numbers(&items), [1]);
    open.commit().await.expect("it is committed");
    feed.wake();
    let items = until(&mut news, |item| matches!(item, Item::Event(_))).await;
    assert_eq!(numbers(&items), [7]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_of_a_topic_that_is_no_longer_kept_is_reset() {
    let world = World::new().await;
    let hour = Duration::from_secs(3_600);
    let retention = Retention { max_age: 3 * hour, max_bytes: u64::MAX };
    let feed = world.feed_with(|options| options.retention = retention).await;
    let published = world.store.publish(Writer::new("test"), &topic("news"), json("0")).await;
    let cursor = published.expect("it is published").cursor.map(|cursor| cursor.to_string());
    let resumed = || feed.subscribe(SubscribeRequest { cursor: cursor.clone(), ..request(Overflow::Close) });
    let last = publish(&world, 1..4).await;
    let mut kept = resumed().await.expect("it begins");
    assert_eq!(numbers(&until_id(&mut kept, &last).await), [1, 2, 3]);

    age(&world.client().await, 5).await;
    assert_eq!(feed.maintain().await.expect("maintained").emptied, 1);
    let (items, reason, _) = until_end(&mut resumed().await.expect("it begins")).await;
    assert!(items.is_empty() && matches!(reason, EndReason::Reset(_)), "{reason:?}");
    // The one that was live goes on.
    let later = publish(&world, 4..5).await;
    assert_eq!(numbers(&until_id(&mut kept, &later).await), [4]);
}
