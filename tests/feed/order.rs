//! The order of changes.

use std::time::Duration;

use raystream::store::feed::{Feed, Item};

use crate::world::{World, after, cursor_of, events, live, text, until_id, versions};

/// What a feed that reads only when it is told gives of the row `r`, live and resumed.
async fn both_ways(world: &World, writes: impl AsyncFnOnce(&World)) -> (Vec<String>, Vec<String>) {
    // The poll is off: the writes come in one batch.
    let feed: Feed = world.feed_with(|options| options.poll = Duration::from_secs(3_600)).await;
    let mut subscription = live(&feed).await;
    let begun = subscription.next(1).await;
    let cursor = cursor_of(&begun[0]).expect("a position");
    writes(world).await;
    let end = world.client().await;
    world.set(&end, "end", "0").await;
    feed.wake();
    let values = |items: Vec<Item>| -> Vec<String> {
        events(&items)
            .iter()
            .filter(|change| &*change.id != "end")
            .filter_map(|change| text(change.data.as_ref()))
            .collect()
    };
    let lived = values(until_id(&mut subscription, "end").await);
    let resumed = values(until_id(&mut after(&feed, &cursor).await, "end").await);
    (lived, resumed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_later_write_of_a_row_comes_later_whoever_took_his_id_first() {
    let world = World::new().await;
    let setup = world.client().await;
    world.set(&setup, "r", "0").await;
    let (lived, resumed) = both_ways(&world, async |world: &World| {
        let (a, b) = (world.client().await, world.client().await);
        a.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.expect("A has its id");
        b.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.expect("B has a later one");
        world.set(&b, "r", r#""B""#).await;
        b.batch_execute("COMMIT").await.expect("B commits");
        world.set(&a, "r", r#""A""#).await;
        a.batch_execute("COMMIT").await.expect("A commits");
    })
    .await;
    assert_eq!(lived, [r#""B""#, r#""A""#]);
    assert_eq!(resumed, [r#""B""#, r#""A""#]);

    // The control: the order of transaction ids is the wrong one.
    let by_xid = "SELECT after::text FROM raystream.changes WHERE id = 'r' AND op = 'u' ORDER BY xid, seq";
    let rows = setup.query(by_xid, &[]).await.expect("the log can be read");
    let by_xid: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(by_xid, [r#""A""#, r#""B""#]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_stays_whole_between_others() {
    let world = World::new().await;
    let (lived, resumed) = both_ways(&world, async |world: &World| {
        let (a, b) = (world.client().await, world.client().await);
        a.batch_execute("BEGIN").await.expect("A begins");
        world.set(&a, "a1", "1").await;
        world.set(&b, "b1", "2").await;
        world.set(&a, "a2", "3").await;
        world.set(&b, "b2", "4").await;
        world.set(&a, "a3", "5").await;
        a.batch_execute("COMMIT").await.expect("A commits");
    })
    .await;
    assert_eq!(lived, ["2", "4", "1", "3", "5"]);
    assert_eq!(resumed, lived);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_stays_open_holds_nobody_back_and_comes_when_it_commits() {
    let world = World::new().await;
    let feed = world.feed().await;
    let mut subscription = live(&feed).await;
    let (open, undone, other) = (world.client().await, world.client().await, world.client().await);
    open.batch_execute("BEGIN").await.expect("it begins");
    world.set(&open, "long1", "1").await;
    undone.batch_execute("BEGIN").await.expect("it begins");
    world.set(&undone, "never", "1").await;
    for n in 0..100 {
        world.set(&other, &format!("d{n}"), "1").await;
        feed.wake();
    }
    // All of the others come while it is open.
    let early = until_id(&mut subscription, "d99").await;
    let expected: Vec<_> = (0..100).map(|n| (format!("d{n}"), 1)).collect();
    assert_eq!(versions(&early), expected);

    world.set(&open, "long2", "1").await;
    open.batch_execute("COMMIT").await.expect("it commits");
    undone.batch_execute("ROLLBACK").await.expect("it is undone");
    world.set(&other, "end", "1").await;
    let late = until_id(&mut subscription, "end").await;
    let expected = ["long1", "long2", "end"].map(|id| (id.to_owned(), 1));
    assert_eq!(versions(&late), expected);

    // A cursor from the time when it was open does not lose it either.
    for item in &early {
        let cursor = cursor_of(item).expect("each item has a cursor");
        let rest = until_id(&mut after(&feed, &cursor).await, "end").await;
        let place = events(&early).iter().position(|change| change.cursor == cursor);
        let missing = place.map_or(100, |place| 99 - place);
        assert_eq!(versions(&rest).len(), missing + 3, "after {place:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_beside_the_daemon_is_seen_and_two_feeds_see_each_others() {
    let world = World::new().await;
    let psql = world.client().await;
    // Found by the poll alone.
    let polling = Feed::start(world.config.clone(), Default::default()).await.expect("the feed starts");
    let mut subscription = live(&polling).await;
    world.set(&psql, "by psql", "1").await;
    until_id(&mut subscription, "by psql").await;
    drop((subscription, polling));

    // Found by the notification alone: nobody polls, and each is woken by its own writes only.
    let never = |options: &mut raystream::store::feed::FeedOptions| options.poll = Duration::from_secs(3_600);
    let other = World::on(world.config.clone()).await;
    let (one, two) = (world.feed_with(never).await, other.feed_with(never).await);
    let (mut at_one, mut at_two) = (live(&one).await, live(&two).await);
    world.set(&psql, "first", "1").await;
    world.store.wake();
    until_id(&mut at_one, "first").await;
    until_id(&mut at_two, "first").await;
    world.set(&psql, "second", "1").await;
    other.store.wake();
    until_id(&mut at_two, "second").await;
    until_id(&mut at_one, "second").await;
}
