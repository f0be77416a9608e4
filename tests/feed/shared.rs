//! Changes that many subscriptions are given: what is made of one is made once, and only for those who are told the same.

use raystream::store::feed::{Change, ChangeKind, Given, SharedChange, SubscribeRequest, Subscription};

use crate::world::{World, events, json, live, request, until_id};

/// What waits, which is nothing but changes that go out as the log has them.
async fn shared(subscription: &mut Subscription) -> Vec<SharedChange> {
    match subscription.next_given(64).await {
        Given::Changes(changes) => changes,
        Given::Items(items) => panic!("these have something of their own: {items:?}"),
    }
}

fn made(change: &SharedChange) -> Option<&String> {
    change.once(|change| format!("{:?} {} {}", change.kind, change.id, change.cursor))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_made_of_a_change_is_made_once_for_all_who_are_told_the_same() {
    let world = World::new().await;
    let feed = world.feed().await;
    let client = world.client().await;
    let (mut one, mut other, mut apart) = (live(&feed).await, live(&feed).await, live(&feed).await);
    let filter = Some(json(r#"{"on":true}"#));
    let mut filtered =
        feed.subscribe(SubscribeRequest { filter, ..request("t") }).await.expect("the subscription begins");
    let mut watcher = live(&feed).await;
    // A batch that all of them have seen from its beginning: from here on the log's own cursors fit.
    world.set(&client, "first", r#"{"on":true}"#).await;
    feed.wake();
    for subscription in [&mut one, &mut other, &mut apart, &mut filtered, &mut watcher] {
        until_id(subscription, "first").await;
    }
    world.set(&client, "a", r#"{"on":false}"#).await;
    world.set(&client, "a", r#"{"on":true}"#).await;
    world.set(&client, "b", r#"{"on":true}"#).await;
    feed.wake();
    until_id(&mut watcher, "b").await;

    let (one, other) = (shared(&mut one).await, shared(&mut other).await);
    assert_eq!((one.len(), other.len()), (3, 3));
    for (one, other) in one.iter().zip(&other) {
        let (one, other) = (made(one).expect("another has it too"), made(other).expect("the same"));
        assert!(std::ptr::eq(one, other), "it is not made again");
    }
    // It is what they are told who take items.
    let items = until_id(&mut apart, "b").await;
    let expected: Vec<Change> = one.iter().map(SharedChange::to_change).collect();
    let found: Vec<Change> = events(&items).into_iter().cloned().collect();
    assert_eq!(without_lag(found), without_lag(expected.clone()));
    let lags: Vec<u32> = expected.iter().map(|change| change.lag).collect();
    assert_eq!(lags, [2, 1, 0]);
    for (change, made) in expected.iter().zip(one.iter().filter_map(made)) {
        assert_eq!(*made, format!("{:?} {} {}", change.kind, change.id, change.cursor));
    }

    // Who sees a part is told something else of the one that comes into it, and the same of the others.
    let filtered = shared(&mut filtered).await;
    let kinds: Vec<ChangeKind> = filtered.iter().map(|change| change.to_change().kind).collect();
    assert_eq!(kinds, [ChangeKind::Enter, ChangeKind::Insert]);
    assert_eq!(filtered[0].to_change().old, None, "an image that does not match is not given out");
    assert_eq!(made(&filtered[0]), None, "what the others are told has it");
    assert!(made(&filtered[1]).is_some());
}

/// How many wait behind a change is each reader's own.
fn without_lag(changes: Vec<Change>) -> Vec<Change> {
    changes.into_iter().map(|change| Change { lag: 0, ..change }).collect()
}
