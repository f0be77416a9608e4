//! Postgres is killed.

use std::process::Command;
use std::time::Duration;

use raystream::store::embedded::{Embedded, EmbeddedOptions};
use raystream::store::feed::Item;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, Config, NoTls};

use crate::load::Load;
use crate::postgres::folder_with_reaper;
use crate::world::{Copy, PATIENCE, World, after, cursor_of, live, until_id, versions, with_snapshot};

/// Kills the postmaster as the kernel does when memory is out, and waits until a new one takes connections.
async fn kill(embedded: &Embedded) {
    let before = embedded.starts();
    let postmaster = embedded.postmaster().expect("it runs");
    let killed =
        Command::new("kill").args(["-9", &postmaster.to_string()]).status().expect("there is a kill");
    assert!(killed.success());
    let until = Instant::now() + PATIENCE;
    while embedded.starts() == before || connect(&embedded.config()).await.is_none() {
        assert!(Instant::now() < until, "it comes back");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn connect(config: &Config) -> Option<Client> {
    let (client, connection) = config.connect(NoTls).await.ok()?;
    tokio::spawn(connection);
    client.simple_query("SELECT 1").await.ok()?;
    Some(client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postgres_loses_and_doubles_nothing() {
    let (folder, _reaper) = folder_with_reaper();
    let embedded = Embedded::start(EmbeddedOptions::new(folder)).await.expect("Postgres starts");
    let world = World::on(embedded.config()).await;
    let feed = world.feed().await;
    let mut copy = Copy::default();
    let mut survivor = with_snapshot(&feed).await;
    let mut cursor = None;
    for round in 0..3 {
        let load = Load::start(&world, 3, 30).await;
        // In the middle of the load, and of what is read.
        load.progress(30).await;
        for _ in 0..10 {
            for item in survivor.next(4).await {
                copy.apply(&item);
                cursor = cursor_of(&item);
            }
        }
        kill(&embedded).await;
        load.stop().await;
        let load = Load::start(&world, 3, 30).await;
        load.progress(20).await;
        load.stop().await;
        if round == 1 {
            // One that goes on with a cursor from before the crash.
            survivor = after(&feed, &cursor.take().expect("items came")).await;
        }
    }
    let client = world.client().await;
    world.set(&client, "end", "1").await;
    until_id(&mut survivor, "end").await.iter().for_each(|item| copy.apply(item));
    assert_eq!(copy.documents, world.documents(&client).await);
}

/// After a crash Postgres gives out ids again that were taken by transactions of which nothing is on disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_that_a_crash_frees_are_seen_with_their_second_owner() {
    let (folder, _reaper) = folder_with_reaper();
    // Otherwise what nobody waits for is on disk after 0.2 s, which a busy machine takes for the steps below.
    std::fs::write(folder.join("postgres.conf"), "wal_writer_delay = 10s\n")
        .expect("the folder can be written");
    let embedded = Embedded::start(EmbeddedOptions::new(folder)).await.expect("Postgres starts");
    let world = World::on(embedded.config()).await;
    let feed = world.feed().await;
    let mut survivor = live(&feed).await;
    let client = world.client().await;
    world.set(&client, "before", "1").await;
    // Postgres writes a page of its log to disk when that is full, waited for or not: what follows is to fit into one.
    client.query_one("SELECT pg_switch_wal()", &[]).await.expect("the log goes on in a new file");
    // Ids are taken, and the transactions end: every snapshot from now on has them as seen.
    let mut taken = 0;
    for _ in 0..50 {
        let row = client.query_one("SELECT pg_current_xact_id()::text", &[]).await.expect("an id is taken");
        taken = row.get::<_, String>(0).parse::<u64>().expect("a number");
    }
    feed.wake();
    let items = until_id(&mut survivor, "before").await;
    let resumable = cursor_of(items.last().expect("it came")).expect("a cursor");
    // Taken after the ids: the moment of this one counts them as seen.
    let fresh = cursor_of(&live(&feed).await.next(1).await[0]).expect("a position");
    let mut snapshot = with_snapshot(&feed).await;
    let begun = crate::world::until(&mut snapshot, |item| matches!(item, Item::SnapshotEnd { .. })).await;
    let after_snapshot = cursor_of(begun.last().expect("it ended")).expect("a cursor");
    // No checkpoint and no write may bring them to disk.
    kill(&embedded).await;

    let client = world.client().await;
    for n in 0..5 {
        world.set(&client, &format!("after{n}"), "1").await;
    }
    let row = client
        .query_one("SELECT min(xid::text::numeric)::text FROM raystream.changes WHERE id LIKE 'after%'", &[])
        .await
        .expect("the log can be read");
    let reused: u64 = row.get::<_, String>(0).parse().expect("a number");
    assert!(reused <= taken, "the crash has freed no id ({reused} > {taken}): this test shows nothing");

    let expected: Vec<_> = (0..5).map(|n| (format!("after{n}"), 1)).collect();
    assert_eq!(versions(&until_id(&mut survivor, "after4").await), expected, "live");
    assert_eq!(versions(&until_id(&mut snapshot, "after4").await), expected, "after a snapshot");
    for cursor in [resumable, fresh, after_snapshot] {
        assert_eq!(versions(&until_id(&mut after(&feed, &cursor).await, "after4").await), expected);
    }
}
