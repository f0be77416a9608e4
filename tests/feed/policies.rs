//! Overflow policies that go on: `block`, `conflate`, `resnapshot`.

use std::collections::BTreeMap;

use raystream::store::feed::{
    Change, ChangeKind, EndReason, Feed, Item, Overflow, SubscribeRequest, Subscription,
};
use tokio_postgres::Client;

use crate::load::Load;
use crate::world::{
    Copy, World, after, delete, events, live, request, text, until, until_end, until_id, versions,
};

/// A feed whose queues hold 16 changes.
async fn narrow(world: &World) -> Feed {
    world.feed_with(|options| options.queue_events = 16).await
}

async fn subscribe(feed: &Feed, overflow: Overflow, snapshot: bool) -> Subscription {
    let request = SubscribeRequest { overflow, snapshot, ..request("t") };
    feed.subscribe(request).await.expect("it begins")
}

/// Sets documents one after the other, each handed over before the next is written.
async fn write(world: &World, client: &Client, feed: &Feed, documents: &[(String, u32)]) {
    let mut watcher = live(feed).await;
    for (id, n) in documents {
        world.set(client, id, &n.to_string()).await;
        feed.wake();
        until_id(&mut watcher, id).await;
    }
}

fn numbered(from: u32, count: u32) -> Vec<(String, u32)> {
    (from..from + count).map(|n| (format!("d{n}"), n)).collect()
}

fn ids(items: &[Item]) -> Vec<String> {
    events(items).iter().map(|change| change.id.to_string()).collect()
}

/// What a reader holds that only looks at states: merged changes skip versions.
fn keep(documents: &mut BTreeMap<String, String>, change: &Change) {
    match change.kind {
        ChangeKind::Delete | ChangeKind::Leave => {
            assert!(documents.remove(&*change.id).is_some(), "{} was there", change.id);
        }
        _ => {
            let data = text(change.data.as_ref()).expect("a document that is there has data");
            let had = documents.insert(change.id.to_string(), data);
            assert_eq!(
                had.is_some(),
                change.kind == ChangeKind::Update,
                "{:?} of {}",
                change.kind,
                change.id
            );
            assert_eq!(text(change.old.as_ref()), had, "{}: `old` is what the reader had", change.id);
        }
    }
}

async fn table(world: &World, client: &Client) -> BTreeMap<String, String> {
    world.documents(client).await.into_iter().map(|(id, (_, data))| (id, data)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_blocks_gets_everything_once_and_is_live_again() {
    let world = World::new().await;
    let feed = narrow(&world).await;
    let client = world.client().await;
    let mut slow = subscribe(&feed, Overflow::Block, false).await;
    for round in 0..3 {
        let written = numbered(round * 100, 100);
        write(&world, &client, &feed, &written).await;
        let items = until_id(&mut slow, &written[99].0).await;
        let expected: Vec<String> = written.iter().map(|(id, _)| id.clone()).collect();
        assert_eq!(ids(&items), expected);
        let changes = events(&items);
        let lags: Vec<u32> = changes.iter().take(16).map(|change| change.lag).collect();
        assert_eq!(lags, (0..16).rev().collect::<Vec<_>>(), "the queue held 16 and no more");
        assert!(changes.iter().all(|change| change.dropped == 0));
        // Live: it comes although nobody reads the log for it.
        write(&world, &client, &feed, &[(format!("live{round}"), 1)]).await;
        assert_eq!(ids(&until_id(&mut slow, &format!("live{round}")).await), [format!("live{round}")]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_blocks_under_load_has_a_copy_of_the_table() {
    let world = World::new().await;
    let feed = narrow(&world).await;
    let mut slow = subscribe(&feed, Overflow::Block, true).await;
    let load = Load::start(&world, 3, 30).await;
    let mut copy = Copy::default();
    for _ in 0..60 {
        load.progress(10).await;
        slow.next(20).await.iter().for_each(|item| copy.apply(item));
    }
    load.stop().await;
    let client = world.client().await;
    world.set(&client, "end", "1").await;
    until_id(&mut slow, "end").await.iter().for_each(|item| copy.apply(item));
    assert_eq!(copy.documents, world.documents(&client).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_conflates_ends_with_the_table_and_counts_the_rest() {
    let world = World::new().await;
    let feed = narrow(&world).await;
    let client = world.client().await;
    let mut slow = subscribe(&feed, Overflow::Conflate, false).await;
    let mut documents = BTreeMap::new();
    let mut given = 0;
    for round in 0..3_u32 {
        // Ten documents, thirty times each, and one that comes and goes.
        let written: Vec<_> = (0..300).map(|n| (format!("d{}", n % 10), round * 1_000 + n)).collect();
        write(&world, &client, &feed, &written).await;
        write(&world, &client, &feed, &[("gone".to_owned(), 1)]).await;
        client.execute(&delete(&world.t), &[&"gone"]).await.expect("it is deleted");
        client.execute(&delete(&world.t), &[&"d3"]).await.expect("it is deleted");
        let end = format!("end{round}");
        write(&world, &client, &feed, &[(end.clone(), 1)]).await;
        let items = until_id(&mut slow, &end).await;
        let changes = events(&items);
        changes.iter().for_each(|change| keep(&mut documents, change));
        given += u64::try_from(changes.len()).expect("it is small");
        assert!(changes.len() <= 16, "{}", changes.len());
        // 300 sets, `gone` twice, the delete, the end.
        let dropped = changes.last().expect("the end came").dropped;
        assert_eq!(given + dropped, u64::from(round + 1) * 304);
        assert_eq!(documents, table(&world, &client).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflating_ends_when_too_many_documents_have_changed() {
    let world = World::new().await;
    let feed = narrow(&world).await;
    let client = world.client().await;
    let mut slow = subscribe(&feed, Overflow::Conflate, false).await;
    write(&world, &client, &feed, &numbered(0, 40)).await;
    let (items, reason, cursor) = until_end(&mut slow).await;
    assert_eq!((versions(&items).len(), reason), (16, EndReason::Lagged));
    let rest = until_id(&mut after(&feed, &cursor.expect("a cursor")).await, "d39").await;
    assert_eq!(ids(&rest), numbered(16, 24).into_iter().map(|(id, _)| id).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cursor_of_a_conflating_one_leads_to_the_table() {
    let world = World::new().await;
    let feed = narrow(&world).await;
    let client = world.client().await;
    let mut slow = subscribe(&feed, Overflow::Conflate, false).await;
    let written: Vec<_> = (0..100_u32).map(|n| (format!("d{}", n * n % 13), n)).collect();
    write(&world, &client, &feed, &written).await;
    write(&world, &client, &feed, &[("end".to_owned(), 1)]).await;
    let items = until_id(&mut slow, "end").await;
    let expected = table(&world, &client).await;
    let mut held = BTreeMap::new();
    for change in events(&items) {
        held.insert(change.id.to_string(), text(change.data.as_ref()).expect("nothing is deleted"));
        if &*change.id == "end" {
            break;
        }
        let mut documents = held.clone();
        let rest = until_id(&mut after(&feed, &change.cursor).await, "end").await;
        for change in events(&rest) {
            documents.insert(change.id.to_string(), text(change.data.as_ref()).expect("nothing is deleted"));
        }
        assert_eq!(documents, expected, "after {}", change.id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_starts_over_gets_a_snapshot_of_what_is_there() {
    let world = World::new().await;
    let feed = narrow(&world).await;
    let client = world.client().await;
    world.set(&client, "old", "1").await;
    let mut slow = subscribe(&feed, Overflow::Resnapshot, true).await;
    until(&mut slow, |item| matches!(item, Item::SnapshotEnd { .. })).await;
    // Only one that is live falls behind; before, what does not fit is read from the log.
    write(&world, &client, &feed, &[("first".to_owned(), 1)]).await;
    until_id(&mut slow, "first").await;
    write(&world, &client, &feed, &numbered(0, 60)).await;
    client.execute(&delete(&world.t), &[&"old"]).await.expect("it is deleted");
    let mut items = until(&mut slow, |item| matches!(item, Item::SnapshotEnd { .. })).await;
    assert!(matches!(items[0], Item::Position { .. }), "{:?}", items[0]);
    assert!(events(&items).is_empty(), "what was queued is gone");
    write(&world, &client, &feed, &[("later".to_owned(), 1)]).await;
    items.extend(until_id(&mut slow, "later").await);
    let mut copy = Copy::default();
    items.iter().for_each(|item| copy.apply(item));
    assert_eq!(copy.documents, world.documents(&client).await);
    let dropped = events(&items).last().expect("it came").dropped;
    assert!(dropped >= 16, "{dropped}");
}
