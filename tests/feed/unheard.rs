//! Writes that nobody listens to: the log is not read for them, and the other daemons are told all the same.

use std::time::{Duration, SystemTime};

use raystream::store::feed::{Feed, FeedOptions};
use tokio_postgres::Client;

use crate::world::{PATIENCE, World, events, live, until_id};

/// Longer than the test: whoever looks has been told.
const NEVER: Duration = Duration::from_secs(24 * 3_600);

/// The sessions of feeds in this database whose last statement was a read of the log's end, and when it began.
async fn reads(client: &Client) -> Vec<(i32, SystemTime)> {
    let rows = client
        .query(
            "SELECT pid, query_start FROM pg_stat_activity WHERE datname = current_database() \
             AND application_name = 'raystream feed' AND query LIKE '%clock_timestamp()%' ORDER BY pid",
            &[],
        )
        .await;
    rows.expect("the sessions can be seen").iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_nobody_listens_to_is_told_to_others_and_not_read() {
    let world = World::new().await;
    let client = world.client().await;
    let feed = world.feed_with(|options| options.poll = NEVER).await;
    let begun = tokio::time::timeout(PATIENCE, async {
        while !feed.is_ready() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    begun.await.expect("the log is followed");
    let before = reads(&client).await;
    assert_eq!(before.len(), 1, "one session reads the end of the log");

    // The other daemon has a listener: it gets the writes, although it does not look by itself.
    let options = FeedOptions { poll: NEVER, ..FeedOptions::default() };
    let other = Feed::start(world.config.clone(), options).await.expect("the feed starts");
    let mut heard = live(&other).await;
    for id in ["a", "b", "c"] {
        world.set(&client, id, "1").await;
        feed.wake();
        until_id(&mut heard, id).await;
    }
    let after = reads(&client).await;
    assert!(after.contains(&before[0]), "{before:?} became {after:?}");

    // Who listens now is told of what comes, and of nothing before it.
    let mut own = live(&feed).await;
    world.set(&client, "d", "1").await;
    feed.wake();
    let items = until_id(&mut own, "d").await;
    assert_eq!(events(&items).len(), 1, "{items:?}");
    drop(own);

    // And so it is again when he has gone.
    let read_at = |reads: &[(i32, SystemTime)]| reads.iter().find(|(pid, _)| *pid == before[0].0).copied();
    world.set(&client, "e", "1").await;
    feed.wake();
    until_id(&mut heard, "e").await;
    let last = reads(&client).await;
    world.set(&client, "f", "1").await;
    feed.wake();
    until_id(&mut heard, "f").await;
    let after = reads(&client).await;
    assert!(read_at(&last).is_some());
    assert_eq!(read_at(&after), read_at(&last));
}
