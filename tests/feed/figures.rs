//! Figures, by hand: `cargo test --release --test feed -- --ignored --nocapture figures`.

use std::time::{Duration, Instant};

use raystream::store::feed::{Feed, Item, Overflow, SubscribeRequest, Subscription};

use crate::world::{World, after, cursor_of, json, live, request, until_id};

/// The process' largest resident size so far, in kB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("Linux");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

/// Measures the time from the return of a commit to its event.
#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
async fn latency(world: &World, feed: &Feed, subscription: &mut Subscription, what: &str, count: usize) {
    let client = world.client().await;
    let mut taken: Vec<Duration> = Vec::new();
    for n in 0..count {
        let id = format!("{what} {n}");
        world.set(&client, &id, r#"{"n": 1}"#).await;
        let committed = Instant::now();
        if what != "polled" {
            feed.wake();
        }
        until_id(subscription, &id).await;
        taken.push(committed.elapsed());
    }
    taken.sort_unstable();
    println!(
        "commit to event, {what}: median {:?}, p99 {:?}, max {:?}",
        taken[taken.len() / 2],
        taken[taken.len() * 99 / 100],
        taken[taken.len() - 1]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures, not a test"]
async fn figures() {
    let world = World::new().await;
    let feed = world.feed().await;
    let client = world.client().await;
    let mut subscription = live(&feed).await;
    subscription.next(1).await;
    latency(&world, &feed, &mut subscription, "woken", 2_000).await;
    latency(&world, &feed, &mut subscription, "polled", 20).await;

    const COUNT: u32 = 1_000_000;
    let cursor = cursor_of(&live(&feed).await.next(1).await[0]).expect("a position");
    let dropping = SubscribeRequest { overflow: Overflow::DropOldest, ..request("t") };
    let mut dropping = feed.subscribe(dropping).await.expect("it begins");
    let began = Instant::now();
    let fill = format!(
        "INSERT INTO {} (id, data) SELECT 'm' || n, jsonb_build_object('n', n, 'pad', repeat('x', 100)) \
         FROM generate_series(1, {COUNT}) AS n",
        world.t
    );
    client.batch_execute(&fill).await.expect("a transaction of a million rows");
    println!("one transaction of {COUNT} rows written in {:?}", began.elapsed());
    let before = peak();
    let last = format!("m{COUNT}");
    let began = Instant::now();
    let is_last = |item: &Item| matches!(item, Item::Event(change) if *change.id == *last);
    let mut given = 0;
    while !dropping.next(256).await.iter().inspect(|_| given += 1).any(is_last) {}
    println!(
        "  through the hub in {:?}, {given} given out, peak memory {} kB more",
        began.elapsed(),
        peak() - before
    );
    drop(dropping);
    let mut subscription = live(&feed).await;
    latency(&world, &feed, &mut subscription, "woken, with a million in the log", 1_000).await;

    let before = peak();
    let mut resumed = after(&feed, &cursor).await;
    let began = Instant::now();
    let (mut count, mut first) = (0_u32, None);
    while count < COUNT {
        for item in resumed.next(256).await {
            first.get_or_insert_with(|| began.elapsed());
            count += u32::from(matches!(item, Item::Event(_)));
        }
    }
    let took = began.elapsed();
    println!(
        "  caught up in {took:?} ({:.0} changes/s, peak memory {} kB more)",
        f64::from(count) / took.as_secs_f64(),
        peak() - before
    );
    let request = SubscribeRequest { snapshot: true, filter: Some(json("{}")), ..request("t") };
    let mut snapshot = feed.subscribe(request).await.expect("it begins");
    let began = Instant::now();
    let mut count = 0_u32;
    loop {
        let items = snapshot.next(256).await;
        count += u32::try_from(items.len()).expect("few");
        if items.iter().any(|item| matches!(item, Item::SnapshotEnd { .. })) {
            break;
        }
    }
    println!("snapshot of {count} in {:?}", began.elapsed());
}
