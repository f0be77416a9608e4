//! Subscriptions: order, credit, and what a loss leaves behind.

use crate::server::{Server, Session, config, within};
use raystream::client::{Client, Error, EventKind, Item, Json, SubscribeOptions, Subscription};
use raystream::conn::Event;
use raystream::wire::ErrorCode;
use raystream::wire::envelope::Subscribe;
use std::num::NonZeroU16;

/// A short name for what came.
async fn next(subscription: &mut Subscription) -> String {
    match within(subscription.next()).await {
        None => "end".to_owned(),
        Some(Err(error)) => format!("error {error}"),
        Some(Ok(Item::Position { cursor })) => format!("position {cursor}"),
        Some(Ok(Item::Snapshot(change))) => format!("snapshot {}", change.id),
        Some(Ok(Item::SnapshotEnd { cursor })) => format!("snapshot_end {cursor}"),
        Some(Ok(Item::Event(change))) => format!("event {}", change.id),
        Some(Ok(Item::Reset { reason })) => format!("reset {reason}"),
        Some(Ok(other)) => format!("{other:?}"),
    }
}

async fn nexts(subscription: &mut Subscription, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    for _ in 0..count {
        seen.push(next(subscription).await);
    }
    seen
}

fn table(set: impl FnOnce(&mut SubscribeOptions)) -> SubscribeOptions {
    let mut options = SubscribeOptions::new("orders");
    set(&mut options);
    options
}

/// Subscribes; the server has said where the subscription stands.
async fn subscribe(
    client: &Client,
    session: &mut Session,
    options: SubscribeOptions,
) -> (Subscription, u32, Subscribe) {
    let serve = async {
        let (stream, request) = session.subscription().await;
        session.subscribed(stream, "p", false).await;
        (stream, request)
    };
    let (subscription, (stream, request)) = tokio::join!(client.subscribe(options), serve);
    (subscription.unwrap(), stream, request)
}

#[tokio::test]
async fn a_snapshot_then_changes_in_order() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let options = table(|options| options.filter = Some(Json::new(r#"{"open":true}"#)));
    let (mut subscription, stream, request) = subscribe(&client, &mut session, options).await;
    assert_eq!((request.table.as_str(), request.snapshot, request.cursor), ("orders", true, None));
    assert_eq!(request.filter, r#"{"open":true}"#);
    session.item(stream, EventKind::Snapshot, "a").await;
    session.item(stream, EventKind::Snapshot, "b").await;
    session.subscribed(stream, "q", true).await;
    session.item(stream, EventKind::Enter, "c").await;
    assert_eq!(nexts(&mut subscription, 1).await, ["position p"]);
    assert_eq!(subscription.cursor(), Some("p"));
    assert_eq!(nexts(&mut subscription, 2).await, ["snapshot a", "snapshot b"]);
    assert_eq!(subscription.cursor(), None, "a snapshot cannot be taken up in its middle");
    assert_eq!(nexts(&mut subscription, 1).await, ["snapshot_end q"]);
    assert_eq!(subscription.cursor(), Some("q"));
    assert_eq!(nexts(&mut subscription, 1).await, ["event c"]);
    assert_eq!(subscription.cursor(), Some("c"));
    assert!(subscription.try_next().is_none());
}

#[tokio::test]
async fn a_refusal_is_the_answer_of_subscribe() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let serve = async {
        let (stream, _) = session.subscription().await;
        session.end_subscription(stream, ErrorCode::PERMISSION_DENIED).await;
    };
    let (result, ()) = tokio::join!(client.subscribe(SubscribeOptions::new("secrets")), serve);
    assert!(matches!(result, Err(Error::Call(error)) if error.code == ErrorCode::PERMISSION_DENIED));
}

#[tokio::test]
async fn a_loss_with_items_in_the_queue_misses_and_doubles_nothing() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let options = table(|options| options.snapshot = false);
    let (mut subscription, stream, _) = subscribe(&client, &mut session, options).await;
    for id in ["1", "2", "3"] {
        session.item(stream, EventKind::Insert, id).await;
    }
    assert_eq!(nexts(&mut subscription, 2).await, ["position p", "event 1"]);
    assert_eq!(subscription.cursor(), Some("1"));
    // A round trip behind the items: they are in the client's queue by now.
    let serve = tokio::spawn(async move {
        session.echo().await;
        session.cut();
    });
    client.call("m", &1).await.unwrap();
    serve.await.unwrap();
    let mut session = server.accept().await;
    let (stream, request) = session.subscription().await;
    assert_eq!(request.cursor.as_deref(), Some("3"));
    // Two wait; the one before them was taken, and the queue is told of that with the next ones.
    assert_eq!(request.credit, 512 - 3);
    session.subscribed(stream, "3", false).await;
    session.item(stream, EventKind::Update, "4").await;
    assert_eq!(nexts(&mut subscription, 3).await, ["event 2", "event 3", "event 4"]);
}

#[tokio::test]
async fn a_hundred_losses_under_way_miss_and_double_nothing() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let options = table(|options| {
        options.snapshot = false;
        options.window = NonZeroU16::new(3).unwrap();
    });
    let (mut subscription, mut stream, _) = subscribe(&client, &mut session, options).await;
    let serve = tokio::spawn(async move {
        let mut id = 0_u32;
        for round in 0..100 {
            // As much as there is credit for; then the connection goes, in every other round with some of it on its way.
            while session.connection.subscription_credit(stream) > Some(0) {
                id += 1;
                session.item(stream, EventKind::Insert, &id.to_string()).await;
            }
            if round % 2 == 0 {
                session.cut();
            } else {
                drop(session);
            }
            session = server.accept().await;
            let request;
            (stream, request) = session.subscription().await;
            let cursor = request.cursor.unwrap();
            // What did not arrive is sent again.
            id = if cursor == "p" { 0 } else { cursor.parse().unwrap() };
            session.subscribed(stream, &cursor, false).await;
            while session.connection.subscription_credit(stream) == Some(0) {
                assert!(matches!(session.next().await, Ok(Event::Credit(_))));
            }
        }
        session.end_subscription(stream, ErrorCode::NOT_FOUND).await;
        (id, session)
    });
    assert_eq!(next(&mut subscription).await, "position p");
    let mut expected = 0_u32;
    loop {
        let item = next(&mut subscription).await;
        if item.starts_with("error NOT_FOUND") {
            break;
        }
        expected += 1;
        assert_eq!(item, format!("event {expected}"));
    }
    assert_eq!(next(&mut subscription).await, "end");
    assert_eq!(serve.await.unwrap().0, expected);
    assert!(expected >= 100, "{expected} events");
}

#[tokio::test]
async fn an_interrupted_snapshot_is_announced_and_begun_again() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let (mut subscription, stream, _) =
        subscribe(&client, &mut session, SubscribeOptions::new("orders")).await;
    session.item(stream, EventKind::Snapshot, "a").await;
    assert_eq!(nexts(&mut subscription, 2).await, ["position p", "snapshot a"]);
    session.cut();
    let mut session = server.accept().await;
    let (stream, request) = session.subscription().await;
    assert_eq!((request.cursor, request.snapshot), (None, true));
    session.subscribed(stream, "r", false).await;
    session.item(stream, EventKind::Snapshot, "b").await;
    session.subscribed(stream, "r", true).await;
    assert_eq!(
        nexts(&mut subscription, 4).await,
        ["reset the snapshot was interrupted", "position r", "snapshot b", "snapshot_end r"]
    );
}

#[tokio::test]
async fn a_snapshot_of_which_nothing_came_is_begun_again_without_a_word() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let (mut subscription, ..) = subscribe(&client, &mut session, SubscribeOptions::new("orders")).await;
    session.cut();
    let mut session = server.accept().await;
    let (stream, request) = session.subscription().await;
    assert_eq!(request.cursor, None);
    session.subscribed(stream, "r", false).await;
    session.subscribed(stream, "r", true).await;
    assert_eq!(nexts(&mut subscription, 2).await, ["position p", "snapshot_end r"]);
}

#[tokio::test]
async fn a_reset_is_told_and_a_snapshot_follows_if_one_was_asked_for() {
    for snapshot in [true, false] {
        let server = Server::start(config()).await;
        let (client, mut session) = server.connect().await;
        let options = table(|options| {
            options.snapshot = snapshot;
            options.cursor = Some("old".into());
        });
        let serve = async {
            let (stream, request) = session.subscription().await;
            assert_eq!(request.cursor.as_deref(), Some("old"));
            session.end_subscription(stream, ErrorCode::RESET).await;
            let (stream, request) = session.subscription().await;
            assert_eq!((request.cursor, request.snapshot), (None, snapshot));
            session.subscribed(stream, "n", false).await;
            if snapshot {
                session.subscribed(stream, "n", true).await;
            }
            session.item(stream, EventKind::Delete, "d").await;
        };
        let (subscription, ()) = tokio::join!(client.subscribe(options), serve);
        let mut subscription = subscription.unwrap();
        assert_eq!(nexts(&mut subscription, 2).await, ["reset in the server's words", "position n"]);
        if snapshot {
            assert_eq!(next(&mut subscription).await, "snapshot_end n");
        }
        assert_eq!(next(&mut subscription).await, "event d");
    }
}

#[tokio::test]
async fn a_subscriber_that_lagged_goes_on_from_its_last_item() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let options = table(|options| options.cursor = Some("0".into()));
    let (mut subscription, stream, request) = subscribe(&client, &mut session, options).await;
    assert_eq!(request.cursor.as_deref(), Some("0"));
    session.item(stream, EventKind::Insert, "1").await;
    for code in [ErrorCode::LAGGED, ErrorCode::SERVICE_UNAVAILABLE] {
        let stream = stream + if code == ErrorCode::LAGGED { 0 } else { 2 };
        session.end_subscription(stream, code).await;
        let (stream, request) = session.subscription().await;
        assert_eq!(request.cursor.as_deref(), Some("1"));
        session.subscribed(stream, "1", false).await;
    }
    session.item(stream + 4, EventKind::Insert, "2").await;
    assert_eq!(nexts(&mut subscription, 3).await, ["position p", "event 1", "event 2"]);
}

#[tokio::test]
async fn credit_follows_what_the_consumer_takes() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let options = table(|options| {
        options.snapshot = false;
        options.window = NonZeroU16::new(4).unwrap();
    });
    let (mut subscription, stream, request) = subscribe(&client, &mut session, options).await;
    assert_eq!(request.credit, 4);
    for id in ["1", "2", "3", "4"] {
        session.item(stream, EventKind::Insert, id).await;
    }
    assert_eq!(session.connection.subscription_credit(stream), Some(0));
    assert_eq!(nexts(&mut subscription, 2).await, ["position p", "event 1"]);
    // One taken is not worth a frame: the next thing the server hears is a call.
    let (result, _) = tokio::join!(client.call("m", &1), session.echo());
    result.unwrap();
    assert_eq!(session.connection.subscription_credit(stream), Some(0));
    assert_eq!(next(&mut subscription).await, "event 2");
    assert_eq!(session.next().await, Ok(Event::Credit(stream)));
    assert_eq!(session.connection.subscription_credit(stream), Some(2));
}

#[tokio::test]
async fn a_dropped_subscription_is_ended_at_the_server() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let (subscription, stream, _) = subscribe(&client, &mut session, SubscribeOptions::new("orders")).await;
    // Its next item is on the way when it ends.
    session.item(stream, EventKind::Snapshot, "a").await;
    drop(subscription);
    assert_eq!(session.next().await, Ok(Event::Unsubscribed(stream)));
    let (result, _) = tokio::join!(client.call("m", &1), session.echo());
    result.unwrap();
    // The same while the answer is awaited.
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.subscribe(SubscribeOptions::new("orders")).await.map(|_| ()) }
    });
    let (stream, _) = session.subscription().await;
    waiting.abort();
    assert_eq!(session.next().await, Ok(Event::Unsubscribed(stream)));
}

#[tokio::test]
async fn a_subscription_keeps_the_connection_and_ends_with_the_client() {
    let server = Server::start(config()).await;
    let (client, mut session) = server.connect().await;
    let options = table(|options| options.snapshot = false);
    let (mut subscription, stream, _) = subscribe(&client, &mut session, options.clone()).await;
    drop(client);
    session.item(stream, EventKind::Insert, "1").await;
    assert_eq!(nexts(&mut subscription, 2).await, ["position p", "event 1"]);
    drop(subscription);
    assert!(session.end().await.is_orderly());

    let (client, mut session) = server.connect().await;
    let (mut subscription, ..) = subscribe(&client, &mut session, options).await;
    tokio::join!(client.close(), session.end());
    assert_eq!(nexts(&mut subscription, 2).await, ["position p", "end"]);
}
