//! Cursors that cannot be resumed from, and retention.

use std::time::Duration;

use raystream::store::StoreError;
use raystream::store::feed::{CURSOR_LEN_MAX, EndReason, Feed, Item, Retention, SubscribeRequest};
use tokio_postgres::Client;

use crate::world::{
    World, after, cursor_of, events, live, request, until, until_end, until_id, versions, with_snapshot,
};

/// Moves all that is in the log into a partition of some hours ago.
pub(crate) async fn age(client: &Client, hours: u32) {
    let names = format!(
        "SELECT to_char(h, 'YYYYMMDDHH24'), h::text, (h + interval '1 hour')::text \
         FROM date_trunc('hour', now() - interval '{hours} hours', 'UTC') AS h"
    );
    let row = client.query_one(&names, &[]).await.expect("the database has a clock");
    let (name, from, to): (String, String, String) = (row.get(0), row.get(1), row.get(2));
    client
        .batch_execute(&format!(
            "CREATE TABLE raystream.changes_{name} PARTITION OF raystream.changes \
                 FOR VALUES FROM ('{from}') TO ('{to}'); \
             UPDATE raystream.changes SET at = '{from}'"
        ))
        .await
        .expect("the log is aged");
}

/// What comes of resuming.
async fn resume(feed: &Feed, cursor: &str) -> EndReason {
    let (items, reason, cursor) = until_end(&mut after(feed, cursor).await).await;
    assert!(items.is_empty() && cursor.is_none(), "a reset is all");
    reason
}

fn short(retention: Retention) -> impl FnOnce(&mut raystream::store::feed::FeedOptions) {
    move |options| options.retention = retention
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_that_fell_out_of_the_log_is_reset_and_the_next_one_is_good() {
    let world = World::new().await;
    let hour = Duration::from_secs(3_600);
    let retention = Retention { max_age: 3 * hour, max_bytes: u64::MAX };
    let change = |options: &mut raystream::store::feed::FeedOptions| {
        options.retention = retention;
        options.position_every = Some(Duration::from_millis(50));
    };
    let feed = world.feed_with(change).await;
    let client = world.client().await;
    let mut early = live(&feed).await;
    let before = cursor_of(&early.next(1).await[0]).expect("a position");
    world.set(&client, "a", "1").await;
    // It runs through all that follows, and never was in what is dropped.
    let long = world.client().await;
    long.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.expect("it begins");
    world.set(&client, "b", "1").await;
    let items = until_id(&mut early, "b").await;
    let inside = cursor_of(&items[0]).expect("a cursor");
    // Said when nothing more comes: a cursor inside of a batch still hangs on the batch's beginning.
    let quiet = until(&mut early, |item| matches!(item, Item::Position { .. })).await;
    let at_end = cursor_of(quiet.last().expect("it came")).expect("a cursor");

    age(&client, 2).await;
    assert_eq!(feed.maintain().await.expect("maintained").emptied, 0, "it is not old enough");
    until_id(&mut after(&feed, &before).await, "b").await;

    age(&client, 5).await;
    assert_eq!(feed.maintain().await.expect("maintained").emptied, 1);
    let kept: i64 = client
        .query_one("SELECT count(*) FROM raystream.changes", &[])
        .await
        .expect("the log can be read")
        .get(0);
    assert_eq!(kept, 0, "the partition is gone");
    for lost in [&before, &inside] {
        let EndReason::Reset(reason) = resume(&feed, lost).await else { panic!("no reset") };
        assert!(reason.contains("does not go back"), "{reason}");
    }
    // The newest cursor lacks nothing of what went, and the transaction that still runs comes when it commits.
    world.set(&long, "long", "1").await;
    long.batch_execute("COMMIT").await.expect("it commits");
    let rest = until_id(&mut after(&feed, &at_end).await, "long").await;
    assert_eq!(versions(&rest), [("long".to_owned(), 1)]);
    // The one that was live all the time has noticed nothing.
    assert_eq!(versions(&until_id(&mut early, "long").await), [("long".to_owned(), 1)]);
    let begun = live(&feed).await.next(1).await;
    let fresh = cursor_of(&begun[0]).expect("a position");
    world.set(&client, "end", "1").await;
    assert_eq!(versions(&until_id(&mut after(&feed, &fresh).await, "end").await), [("end".to_owned(), 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_cut_by_size_and_never_under_an_open_transaction() {
    let world = World::new().await;
    let retention = Retention { max_age: Duration::from_secs(1_000_000), max_bytes: 1 };
    let feed = world.feed_with(short(retention)).await;
    let client = world.client().await;
    world.set(&client, "a", "1").await;
    assert_eq!(feed.maintain().await.expect("maintained").emptied, 0, "the current hour stays");
    age(&client, 2).await;

    // Somebody has written into the old partition and not ended.
    let open = world.client().await;
    open.batch_execute("BEGIN; UPDATE raystream.changes SET principal = 'x'")
        .await
        .expect("it holds the partition");
    assert_eq!(feed.maintain().await.expect("maintained").emptied, 0, "it is in use");
    open.batch_execute("ROLLBACK").await.expect("it ends");
    assert_eq!(feed.maintain().await.expect("maintained").emptied, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_made_ahead_and_writes_go_there() {
    let world = World::new().await;
    let feed = world.feed().await;
    let client = world.client().await;
    world.set(&client, "a", "1").await;
    let row = client
        .query_one("SELECT count(*), min(tableoid::regclass::text) FROM raystream.changes", &[])
        .await
        .expect("the log can be read");
    let (count, partition): (i64, String) = (row.get(0), row.get(1));
    assert_eq!(count, 1);
    assert!(partition.contains("changes_2"), "{partition}");
    assert_eq!(feed.maintain().await.expect("maintained").made, 0, "all are there");
    let drop = "DO $$ DECLARE p text; BEGIN SELECT max(inhrelid::regclass::text) INTO p FROM pg_inherits \
        WHERE inhparent = 'raystream.changes'::regclass AND inhrelid::regclass::text ~ '[0-9]'; \
        EXECUTE 'DROP TABLE ' || p; END $$";
    client.batch_execute(drop).await.expect("the last one is dropped");
    assert_eq!(feed.maintain().await.expect("maintained").made, 1, "it is made again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_of_another_database_or_of_half_a_snapshot_is_reset() {
    let (world, other) = (World::new().await, World::new().await);
    let (feed, elsewhere) = (world.feed().await, other.feed().await);
    let foreign = cursor_of(&live(&elsewhere).await.next(1).await[0]).expect("a position");
    let EndReason::Reset(reason) = resume(&feed, &foreign).await else { panic!("no reset") };
    assert!(reason.contains("another database"), "{reason}");

    let client = world.client().await;
    world.set(&client, "a", "1").await;
    let items = with_snapshot(&feed).await.next(2).await;
    assert_eq!(items.len(), 2);
    for item in &items {
        let half = cursor_of(item).expect("a cursor");
        let EndReason::Reset(reason) = resume(&feed, &half).await else { panic!("no reset") };
        assert!(reason.contains("not complete"), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_cursor_is_refused() {
    let world = World::new().await;
    let feed = world.feed().await;
    let good = cursor_of(&live(&feed).await.next(1).await[0]).expect("a position");
    let cut = &good[..good.len() - 1];
    let long = "A".repeat(CURSOR_LEN_MAX + 1);
    for bad in ["", "x", "not a cursor", cut, &format!("{good}A"), &format!("{good}="), &long] {
        let request = SubscribeRequest { cursor: Some(bad.to_owned()), ..request("t") };
        let refused = feed.subscribe(request).await.map(|_| ());
        assert!(matches!(refused, Err(StoreError::InvalidInput(_))), "{bad}: {refused:?}");
    }
    after(&feed, &good).await;
}

/// Retention takes a partition away while the feed's read waits for it. What went is missing from the read, so it must see the
/// horizon that was moved with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_waited_for_retention_sees_what_it_took() {
    let world = World::new().await;
    let feed = world.feed().await;
    let client = world.client().await;
    world.set(&client, "a", "1").await;
    let mut subscription = live(&feed).await;
    world.set(&client, "b", "1").await;
    until_id(&mut subscription, "b").await;

    // A change that nobody has read, and its partition, in one transaction.
    client.batch_execute("BEGIN").await.expect("it begins");
    world.set(&client, "lost", "1").await;
    let row = client
        .query_one(
            "SELECT tableoid::regclass::text, xid::text FROM raystream.changes ORDER BY seq DESC LIMIT 1",
            &[],
        )
        .await
        .expect("the log can be read");
    let (partition, xid): (String, String) = (row.get(0), row.get(1));
    client
        .batch_execute(&format!("LOCK TABLE {partition} IN ACCESS EXCLUSIVE MODE"))
        .await
        .expect("it waits for readers at the most");
    let other = world.client().await;
    let waiting = format!(
        "SELECT EXISTS (SELECT FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) \
         WHERE NOT l.granted AND l.relation = '{partition}'::regclass AND a.query LIKE 'WITH moment%')"
    );
    while !other.query_one(&waiting, &[]).await.expect("answered").get::<_, bool>(0) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    client
        .batch_execute(&format!(
            "UPDATE raystream.meta SET horizon = ({xid} + 1)::text::xid8, horizon_xip = '{{}}'; \
             TRUNCATE {partition}; COMMIT"
        ))
        .await
        .expect("it is taken");
    let (items, reason, _) = until_end(&mut subscription).await;
    assert_eq!(events(&items), Vec::<&raystream::store::feed::Change>::new());
    let EndReason::Reset(reason) = reason else { panic!("no reset: {reason:?}") };
    assert!(reason.contains("does not go back"), "{reason}");
}
