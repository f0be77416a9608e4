//! Documents first, then what happens to them.

use raystream::store::StoreError;
use raystream::store::feed::{EndReason, Item, SubscribeRequest};

use crate::load::Load;
use crate::world::{Copy, World, live, request, until_end, until_id, with_snapshot};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_under_load_is_the_table() {
    let world = World::new().await;
    let feed = world.feed().await;
    let load = Load::start(&world, 4, 40).await;
    load.progress(50).await;
    let mut readers = Vec::new();
    for _ in 0..20 {
        let mut subscription = with_snapshot(&feed).await;
        readers.push(tokio::spawn(async move {
            let items = until_id(&mut subscription, "end").await;
            let mut copy = Copy::default();
            items.iter().for_each(|item| copy.apply(item));
            let end = items.iter().filter(|item| matches!(item, Item::SnapshotEnd { .. })).count();
            assert_eq!(end, 1);
            assert!(matches!(items[0], Item::Position { .. }));
            copy.documents
        }));
        // Different moments of the load.
        load.progress(5).await;
    }
    load.progress(100).await;
    load.stop().await;
    let client = world.client().await;
    world.set(&client, "end", "1").await;
    let table = world.documents(&client).await;
    for reader in readers {
        assert_eq!(reader.await.expect("the reader ends"), table);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_table_has_a_complete_snapshot() {
    let world = World::new().await;
    let feed = world.feed().await;
    let mut subscription = with_snapshot(&feed).await;
    let mut items = Vec::new();
    while items.len() < 2 {
        items.extend(subscription.next(10).await);
    }
    assert!(matches!(items[..], [Item::Position { .. }, Item::SnapshotEnd { .. }]), "{items:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_not_there_is_not_found_and_one_that_is_dropped_ends() {
    let world = World::new().await;
    let feed = world.feed().await;
    let missing = feed.subscribe(request("missing")).await.map(|_| ());
    assert_eq!(missing, Err(StoreError::NotFound));

    // Later it is there.
    world.store.create_table(&crate::world::name("missing")).await.expect("the table is made");
    feed.subscribe(request("missing")).await.expect("now it is there");

    let client = world.client().await;
    world.set(&client, "a", "1").await;
    let mut idle = live(&feed).await;
    let mut unread = with_snapshot(&feed).await;
    let drop = format!("DELETE FROM raystream.storage WHERE name = 't'; DROP TABLE {}", world.t);
    client.batch_execute(&drop).await.expect("the table is dropped");
    let (_, reason, cursor) = until_end(&mut unread).await;
    assert_eq!((reason, cursor), (EndReason::TableDropped, None));
    feed.maintain().await.expect("the feed looks after its tables");
    let (_, reason, cursor) = until_end(&mut idle).await;
    assert_eq!((reason, cursor), (EndReason::TableDropped, None));
    assert!(idle.next(1).await.is_empty(), "nothing comes after the end");
    let gone = feed.subscribe(SubscribeRequest { snapshot: true, ..request("t") }).await.map(|_| ());
    assert_eq!(gone, Err(StoreError::NotFound));
}
