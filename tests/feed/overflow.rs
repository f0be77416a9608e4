//! Subscriptions that fall behind.

use raystream::store::feed::{EndReason, Feed, Item, Overflow, SubscribeRequest, Subscription};
use tokio_postgres::Client;

use crate::world::{
    Copy, World, after, events, live, request, until, until_end, until_id, versions, with_snapshot,
};

/// A feed whose queues hold 16 changes.
async fn narrow(world: &World) -> Feed {
    world.feed_with(|options| options.queue_events = 16).await
}

/// Writes `count` documents, and waits until another feed's subscriber and `feed` have them all handed over.
async fn write(world: &World, client: &Client, feed: &Feed, from: usize, count: usize) {
    // A subscription that takes all along; it was registered last, so the others had each change before.
    let mut watcher: Subscription = live(feed).await;
    for n in from..from + count {
        world.set(client, &format!("d{n}"), "1").await;
        feed.wake();
        until_id(&mut watcher, &format!("d{n}")).await;
    }
}

fn numbered(from: usize, count: usize) -> Vec<(String, i64)> {
    (from..from + count).map(|n| (format!("d{n}"), 1)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_closed_has_what_came_before_and_a_cursor_for_the_rest() {
    let world = World::new().await;
    let feed = narrow(&world).await;
    let client = world.client().await;
    let mut slow = live(&feed).await;
    write(&world, &client, &feed, 0, 100).await;
    let (items, reason, cursor) = until_end(&mut slow).await;
    assert_eq!(reason, EndReason::Lagged);
    assert_eq!(versions(&items), numbered(0, 16));
    let rest = until_id(&mut after(&feed, &cursor.expect("a cursor")).await, "d99").await;
    assert_eq!(versions(&rest), numbered(16, 84));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_drops_counts_what_it_dropped() {
    let world = World::new().await;
    let feed = narrow(&world).await;
    let client = world.client().await;
    let request = SubscribeRequest { overflow: Overflow::DropOldest, ..request("t") };
    let mut slow = feed.subscribe(request).await.expect("it begins");
    write(&world, &client, &feed, 0, 100).await;
    let items = until_id(&mut slow, "d99").await;
    assert_eq!(versions(&items), numbered(84, 16));
    assert!(events(&items).iter().all(|change| change.dropped == 84));
    write(&world, &client, &feed, 100, 20).await;
    let items = until_id(&mut slow, "d119").await;
    assert_eq!(versions(&items), numbered(104, 16));
    assert!(events(&items).iter().all(|change| change.dropped == 88), "the count goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_of_bytes_overruns_too_but_one_large_document_passes() {
    let world = World::new().await;
    let feed = world.feed_with(|options| options.queue_bytes = 10_000).await;
    let client = world.client().await;
    let mut slow = live(&feed).await;
    let large = format!("\"{}\"", "x".repeat(50_000));
    world.set(&client, "large", &large).await;
    assert_eq!(versions(&until_id(&mut slow, "large").await), [("large".to_owned(), 1)]);
    let mut watcher = live(&feed).await;
    for id in ["one", "two"] {
        world.set(&client, id, &large).await;
        until_id(&mut watcher, id).await;
    }
    let (items, reason, _) = until_end(&mut slow).await;
    assert_eq!((versions(&items), reason), (vec![("one".to_owned(), 1)], EndReason::Lagged));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_has_taken_all_is_not_overrun_by_small_and_large_changes_of_one_commit() {
    let world = World::new().await;
    let feed = world.feed().await;
    let client = world.client().await;
    let large = |letter: &str, len| format!("\"{}\"", letter.repeat(len));
    let sizes = [("large", 400_000), ("larger", 900_000)];
    for (id, len) in sizes {
        world.set(&client, id, &large("x", len)).await;
    }
    let policies =
        [Overflow::Close, Overflow::DropOldest, Overflow::Block, Overflow::Conflate, Overflow::Resnapshot];
    let mut idle = Vec::new();
    for overflow in policies {
        idle.push(feed.subscribe(SubscribeRequest { overflow, ..request("t") }).await.expect("it begins"));
    }
    let mut watcher = live(&feed).await;
    client.batch_execute("BEGIN").await.expect("a transaction begins");
    let mut expected = Vec::new();
    for (id, len) in sizes {
        for n in 0..10 {
            let small = format!("before_{id}{n}");
            world.set(&client, &small, "1").await;
            expected.push((small, 1));
        }
        world.set(&client, id, &large("y", len)).await;
        expected.push((id.to_owned(), 2));
    }
    client.batch_execute("COMMIT").await.expect("it commits");
    until_id(&mut watcher, "larger").await;
    for (mut subscription, overflow) in idle.into_iter().zip(policies) {
        let items = until_id(&mut subscription, "larger").await;
        assert_eq!(versions(&items), expected, "{overflow:?}");
        let changes = events(&items);
        assert_eq!(changes[0].lag, 21, "{overflow:?}: all of them waited in the queue");
        assert!(changes.iter().all(|change| change.dropped == 0), "{overflow:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn falling_behind_during_the_snapshot_is_no_error() {
    let world = World::new().await;
    let feed = narrow(&world).await;
    let client = world.client().await;
    // More than the pieces on their way hold, so that the snapshot cannot end before it is taken.
    let fill = format!(
        "INSERT INTO {} (id, data) SELECT 's' || n, to_jsonb(repeat('x', 1000)) FROM generate_series(1, 3000) AS n",
        world.t
    );
    client.batch_execute(&fill).await.expect("the table is filled");
    let mut slow = with_snapshot(&feed).await;
    let mut copy = Copy::default();
    slow.next(1).await.iter().for_each(|item| copy.apply(item));
    write(&world, &client, &feed, 0, 300).await;
    world.set(&client, "end", "1").await;
    let items = until_id(&mut slow, "end").await;
    let end = items.iter().position(|item| matches!(item, Item::SnapshotEnd { .. }));
    assert_eq!(items[..end.expect("the snapshot ends")].len(), 3000, "none of the later ones is in it");
    items.iter().for_each(|item| copy.apply(item));
    assert_eq!(copy.documents, world.documents(&client).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_transaction_passes_through_and_each_change_is_given_out_or_counted() {
    const COUNT: usize = 50_000;
    let world = World::new().await;
    let feed = world.feed().await;
    let dropping = SubscribeRequest { overflow: Overflow::DropOldest, ..request("t") };
    let mut dropping = feed.subscribe(dropping).await.expect("it begins");
    let begin = live(&feed).await.next(1).await;
    let client = world.client().await;
    let fill = format!(
        "INSERT INTO {} (id, data) SELECT 'd' || n, to_jsonb(n) FROM generate_series(1, {COUNT}) AS n",
        world.t
    );
    client.batch_execute(&fill).await.expect("the table is filled");
    let last = format!("d{COUNT}");
    let items = until(&mut dropping, |item| matches!(item, Item::Event(change) if *change.id == *last)).await;
    let changes = events(&items);
    let dropped = changes.last().expect("the last one came").dropped;
    assert_eq!(u64::try_from(changes.len()).unwrap() + dropped, u64::try_from(COUNT).unwrap());

    let cursor = crate::world::cursor_of(&begin[0]).expect("a position");
    let mut resumed = after(&feed, &cursor).await;
    let expected: Vec<_> = (1..=COUNT).map(|n| (format!("d{n}"), 1)).collect();
    assert_eq!(versions(&until_id(&mut resumed, &last).await), expected);
}
