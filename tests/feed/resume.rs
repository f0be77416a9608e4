//! Stopping and going on.

use std::collections::{BTreeMap, BTreeSet};

use raystream::store::feed::{Item, Subscription};
use tokio::time::timeout;

use crate::load::Load;
use crate::world::{Copy, PATIENCE, World, after, cursor_of, live, until_id, versions, with_snapshot};

/// The versions by document, in the order in which they came.
fn by_document(items: &[Item]) -> BTreeMap<String, Vec<i64>> {
    let mut documents = BTreeMap::<_, Vec<_>>::new();
    for (id, version) in versions(items) {
        documents.entry(id).or_default().push(version);
    }
    documents
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cursor_gives_exactly_the_rest() {
    let world = World::new().await;
    // Slow feeds make large batches, so that most cursors are inside of one.
    let feed = world.feed().await;
    let slow = raystream::store::feed::Feed::start(world.config.clone(), Default::default());
    let slow = slow.await.expect("the feed starts");
    let load = Load::start(&world, 4, 20).await;
    load.progress(20).await;
    let mut readers = vec![live(&feed).await, live(&slow).await];
    let mut collected: Vec<Vec<Item>> = vec![Vec::new(), Vec::new()];
    for _ in 0..6 {
        // Each begins somewhere in a batch of the others.
        load.progress(10).await;
        readers.push(live(&slow).await);
        let mut snapshot = with_snapshot(&feed).await;
        collected.push(Vec::new());
        collected.push(snapshot.next(1).await);
        readers.push(snapshot);
    }
    load.progress(60).await;
    load.stop().await;
    let client = world.client().await;
    world.set(&client, "end", "1").await;
    feed.wake();
    for (reader, items) in readers.iter_mut().zip(&mut collected) {
        items.extend(until_id(reader, "end").await);
    }
    let mut cursors = BTreeSet::new();
    for items in &collected {
        let begin = items.iter().position(|item| matches!(item, Item::SnapshotEnd { .. })).unwrap_or(0);
        for place in begin..items.len() - 1 {
            let cursor = cursor_of(&items[place]).expect("each item has a cursor");
            if !cursors.insert(cursor.clone()) {
                continue;
            }
            // On either feed: a cursor is not of a daemon but of the database.
            let other = if place % 2 == 0 { &feed } else { &slow };
            let rest = until_id(&mut after(other, &cursor).await, "end").await;
            let expected = by_document(&items[place + 1..]);
            assert_eq!(by_document(&rest), expected, "after item {place} of {}", items.len());
        }
    }
    assert!(cursors.len() > 200, "{} cursors", cursors.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_stops_under_load_lose_and_double_nothing() {
    let world = World::new().await;
    let feed = world.feed().await;
    let load = Load::start(&world, 3, 30).await;
    load.progress(10).await;
    let mut copy = Copy::default();
    let mut subscription: Subscription = with_snapshot(&feed).await;
    let mut complete = false;
    while !complete {
        for item in subscription.next(16).await {
            complete |= matches!(item, Item::SnapshotEnd { .. });
            copy.apply(&item);
        }
    }
    for stop in 0..100_usize {
        let mut cursor = None;
        // A few items, fewer than wait; the rest is thrown away with the subscription.
        while cursor.is_none() {
            for item in subscription.next(1 + stop % 7).await {
                copy.apply(&item);
                cursor = cursor_of(&item);
            }
        }
        drop(subscription);
        load.progress(2).await;
        subscription = after(&feed, &cursor.expect("an item came")).await;
    }
    load.stop().await;
    let client = world.client().await;
    world.set(&client, "end", "1").await;
    until_id(&mut subscription, "end").await.iter().for_each(|item| copy.apply(item));
    assert_eq!(copy.documents, world.documents(&client).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_given_up_takes_nothing() {
    let world = World::new().await;
    let feed = world.feed().await;
    let load = Load::start(&world, 2, 10).await;
    let mut subscription = with_snapshot(&feed).await;
    let mut copy = Copy::default();
    for _ in 0..200 {
        // `yield_now` is ready at the second poll: nearly every call is dropped while it waits.
        tokio::select! {
            biased;
            items = subscription.next(3) => items.iter().for_each(|item| copy.apply(item)),
            () = tokio::task::yield_now() => {}
        }
    }
    load.progress(20).await;
    load.stop().await;
    let client = world.client().await;
    world.set(&client, "end", "1").await;
    until_id(&mut subscription, "end").await.iter().for_each(|item| copy.apply(item));
    assert_eq!(copy.documents, world.documents(&client).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_subscription_says_its_position_while_others_write() {
    let world = World::new().await;
    world.store.create_table(&crate::world::name("quiet")).await.expect("the table is made");
    let feed =
        world.feed_with(|options| options.position_every = Some(std::time::Duration::from_millis(50))).await;
    let mut quiet = feed.subscribe(crate::world::request("quiet")).await.expect("it begins");
    let first = cursor_of(&quiet.next(1).await[0]).expect("a position");
    let client = world.client().await;
    world.set(&client, "a", "1").await;
    let items = crate::world::until(&mut quiet, |_| true).await;
    let later = match &items[..] {
        [Item::Position { cursor }] => cursor.clone(),
        other => panic!("{other:?}"),
    };
    assert_ne!(first, later);
    // The new position is after the write.
    world.set(&client, "end", "1").await;
    let rest = until_id(&mut after(&feed, &later).await, "end").await;
    assert_eq!(versions(&rest), [("end".to_owned(), 1)]);
    // One that resumes says when it has caught up.
    let mut resumed = after(&feed, &first).await;
    let items = crate::world::until(
        &mut resumed,
        |item| matches!(item, Item::Position { cursor } if *cursor != first),
    );
    assert_eq!(versions(&items.await), [("a".to_owned(), 1), ("end".to_owned(), 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_in_the_middle_of_a_batch_takes_nothing_back() {
    const COUNT: usize = 20_000;
    let world = World::new().await;
    let at_every_occasion = |options: &mut raystream::store::feed::FeedOptions| {
        options.position_every = Some(std::time::Duration::ZERO);
        (options.queue_events, options.queue_bytes) = (usize::MAX, usize::MAX);
    };
    let feed = world.feed_with(at_every_occasion).await;
    let mut subscription = live(&feed).await;
    let client = world.client().await;
    let fill = format!(
        "INSERT INTO {} (id, data) SELECT 'd' || n, to_jsonb(n) FROM generate_series(1, {COUNT}) AS n",
        world.t
    );
    client.batch_execute(&fill).await.expect("the table is filled");
    world.set(&client, "end", "1").await;
    // All at once, so that the queue is empty again and again while the batch goes on.
    let mut items = Vec::new();
    let ended = |items: &[Item]| match items {
        [.., Item::Event(change), Item::Position { .. }] => &*change.id == "end",
        _ => false,
    };
    while !ended(&items) {
        items.extend(timeout(PATIENCE, subscription.next(COUNT)).await.expect("there is more"));
    }
    let places = items.iter().enumerate().filter(|(_, item)| matches!(item, Item::Position { .. }));
    world.set(&client, "later", "1").await;
    for (place, item) in places {
        let cursor = cursor_of(item).expect("a position has a cursor");
        let rest = until_id(&mut after(&feed, &cursor).await, "later").await;
        assert_eq!(versions(&rest).len(), versions(&items[place..]).len() + 1, "after item {place}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_comes_once_unless_more_are_asked_for() {
    let world = World::new().await;
    let feed = world.feed().await;
    let client = world.client().await;
    let first = cursor_of(&live(&feed).await.next(1).await[0]).expect("a position");
    world.set(&client, "missed", "1").await;
    let mut resumed = after(&feed, &first).await;
    let mut items = until_id(&mut resumed, "missed").await;
    world.set(&client, "end", "1").await;
    items.extend(until_id(&mut resumed, "end").await);
    assert!(matches!(items[..], [Item::Position { .. }, Item::Event(_), Item::Event(_)]), "{items:?}");
}
