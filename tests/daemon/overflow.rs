//! A slow reader and a fast writer, through the real protocol: what each overflow policy that goes on leaves the reader.
use super::support::{PATIENCE, shared};
use futures_util::future::try_join_all;
use raystream::client::{Client, Item, Options, Overflow, SubscribeOptions, Subscription};
use serde_json::{Value, json};
use std::{collections::BTreeMap, num::NonZeroU16};

/// Bytes of a document: a thousand of them are twice what the queue of a subscription holds.
const LEN: usize = 2_000;
const WRITES: u32 = 1_000;

async fn next(subscription: &mut Subscription) -> Item {
    let next = tokio::time::timeout(PATIENCE, subscription.next()).await.expect("an item comes in time");
    next.expect("the subscription goes on").expect("without an error")
}

async fn set(client: &Client, table: &str, id: String, n: u32) {
    let data = json!({"n": n, "fill": "x".repeat(LEN)});
    let args = json!({"table": table, "id": id, "data": data});
    client.call("table.set", &args).await.expect("it is written");
}

/// Subscribes with a window of 4, writes while nobody reads, and reads up to the last document: what the reader holds,
/// how many events came, the largest `lag`, the last `dropped`, and how often it was told to start again.
async fn read_late(table: &str, overflow: Overflow, ids: u32) -> (BTreeMap<String, u64>, u32, u32, u64, u32) {
    let daemon = shared();
    let client = Client::connect(&daemon.url, Options::default()).await.expect("the daemon is there");
    client.call("table.create", &json!({"table": table})).await.expect("it is made");
    let mut options = SubscribeOptions::new(table);
    options.overflow = overflow;
    options.window = NonZeroU16::new(4).expect("four");
    let mut subscription = client.subscribe(options).await.expect("it begins");
    while !matches!(next(&mut subscription).await, Item::SnapshotEnd { .. }) {}
    set(&client, table, "live".to_owned(), 0).await;
    let mut held = BTreeMap::new();
    let (mut count, mut lag, mut dropped, mut resets) = (0, 0, 0, 0);
    let mut has_written = false;
    loop {
        match next(&mut subscription).await {
            Item::Snapshot(change) | Item::Event(change) => {
                let data: Value = change.data.expect("nothing is deleted").decode().expect("JSON");
                held.insert(change.id.clone(), data["n"].as_u64().expect("a number"));
                (count, lag, dropped) = (count + 1, lag.max(change.lag), dropped.max(change.dropped));
                if change.id == "end" {
                    return (held, count, lag, dropped, resets);
                }
            }
            Item::Reset { .. } => {
                held.clear();
                resets += 1;
            }
            _ => {}
        }
        if held.contains_key("live") && !has_written {
            has_written = true;
            for start in (0..WRITES).step_by(50) {
                let writes = (start..start + 50).map(|n| {
                    let client = client.clone();
                    let id = format!("d{}", n % ids);
                    tokio::spawn(async move { set(&client, table_of(ids), id, n).await })
                });
                try_join_all(writes).await.expect("all are written");
            }
            set(&client, table, "end".to_owned(), 0).await;
        }
    }
}

/// The table of a test, by how many documents it has: a task needs a name that lives as long as it does.
fn table_of(ids: u32) -> &'static str {
    match ids {
        10 => "slow_conflate",
        1_000 => "slow_block",
        _ => "slow_resnapshot",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_that_blocks_gets_every_event() {
    let (held, count, lag, dropped, resets) = read_late(table_of(1_000), Overflow::Block, 1_000).await;
    assert_eq!((held.len(), count, dropped, resets), (1_002, 1_002, 0, 0));
    assert!(lag > 100, "{lag}: it was far behind, and was told so");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_that_conflates_ends_with_the_newest() {
    let (held, count, _, dropped, resets) = read_late(table_of(10), Overflow::Conflate, 10).await;
    assert_eq!((held.len(), resets), (12, 0));
    assert_eq!(u64::from(count) + dropped, u64::from(WRITES) + 2, "each event came or was merged");
    assert!(dropped > 800, "{dropped}");
    for id in 0..10_u64 {
        let newest = held[&format!("d{id}")];
        assert!(newest % 10 == id && newest >= u64::from(WRITES) - 50, "d{id}: {newest}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_that_starts_over_has_the_table() {
    let (held, .., resets) = read_late(table_of(999), Overflow::Resnapshot, 999).await;
    assert_eq!((held.len(), resets), (1_001, 1));
}
