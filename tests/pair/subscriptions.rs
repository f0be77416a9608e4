//! Subscriptions: position, items by credit, ends from both sides.

use crate::support::{Setup, event, for_each_suite, pair::Pair, rpc_error, subscribe, subscribed};
use raystream::{
    conn::{ApiMisuse, Event},
    wire::{ErrorCode, limits::CREDIT_MAX},
};
use std::num::NonZeroU32;

fn credit(items: u32) -> NonZeroU32 {
    NonZeroU32::new(items).unwrap()
}

/// A pair with a subscription on stream 1, whose position is known to the client.
fn live(setup: Setup, items: u32) -> Pair {
    let mut pair = Pair::connected(setup);
    let asked = subscribe("tasks", items);
    assert_eq!(pair.client.connection.subscribe(&asked), Ok(1));
    pair.drive();
    assert_eq!(pair.server.take(), [Event::Subscribe(1, asked)]);
    assert_eq!(pair.server.connection.send_event(1, &event(1, "")), Err(ApiMisuse::NotSubscribed));
    pair.server.connection.send_subscribed(1, &subscribed("c0")).unwrap();
    pair.drive();
    assert_eq!(pair.client.take(), [Event::Subscribed(1, subscribed("c0"))]);
    pair
}

/// Sends items as long as there is credit; gives how many.
fn send_all(pair: &mut Pair, from: u64) -> u64 {
    let mut n = from;
    loop {
        match pair.server.connection.send_event(1, &event(n, "{}")) {
            Ok(()) => n += 1,
            Err(ApiMisuse::NoCredit) => return n - from,
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn items_come_in_order_as_far_as_credit_goes() {
    for_each_suite(|setup| {
        let mut pair = live(setup, 3);
        assert_eq!(send_all(&mut pair, 1), 3);
        assert_eq!(pair.server.connection.subscription_credit(1), Some(0));
        pair.drive();
        let items = |numbers: std::ops::Range<u64>| {
            numbers.map(|n| Event::Item(1, event(n, "{}"))).collect::<Vec<_>>()
        };
        assert_eq!(pair.client.take(), items(1..4));
        pair.client.connection.credit(1, credit(2)).unwrap();
        pair.drive();
        assert_eq!(pair.server.take(), [Event::Credit(1)]);
        assert_eq!(send_all(&mut pair, 4), 2);
        // The end of the snapshot costs no credit.
        let mut end = subscribed("c5");
        end.snapshot_end = true;
        pair.server.connection.send_subscribed(1, &end).unwrap();
        pair.drive();
        let mut expected = items(4..6);
        expected.push(Event::Subscribed(1, end));
        assert_eq!(pair.client.take(), expected);
    });
}

#[test]
fn an_item_over_the_limit_keeps_its_credit() {
    let mut pair = live(Setup::plain(), 1);
    let over = event(1, vec![0; 1 << 20]);
    assert_eq!(pair.server.connection.send_event(1, &over), Err(ApiMisuse::MessageTooLarge));
    assert_eq!(pair.server.connection.subscription_credit(1), Some(1));
    assert_eq!(send_all(&mut pair, 1), 1);
}

#[test]
fn long_items_keep_their_order() {
    let mut pair = live(Setup::plain(), 100);
    let sizes = [10, 40_000, 20, 900_000, 30, 16_384, 900_000, 40];
    let items: Vec<_> =
        (1..).zip(sizes).map(|(n, size)| event(n, vec![u8::try_from(n).unwrap(); size])).collect();
    for item in &items {
        pair.server.connection.send_event(1, item).unwrap();
    }
    pair.drive();
    let expected: Vec<_> = items.into_iter().map(|item| Event::Item(1, item)).collect();
    assert!(pair.client.take() == expected);
}

#[test]
fn unsubscribe_ends_the_stream_after_what_is_under_way() {
    for_each_suite(|setup| {
        let mut pair = live(setup, 5);
        send_all(&mut pair, 1);
        pair.client.connection.unsubscribe(1).unwrap();
        assert_eq!(pair.client.connection.unsubscribe(1), Err(ApiMisuse::NoSuchStream));
        pair.drive();
        let events = pair.client.take();
        assert_eq!(events.len(), 6);
        let Some(Event::Error(1, error)) = events.last() else { panic!("{events:?}") };
        assert_eq!(error.code, ErrorCode::CANCELLED);
        assert_eq!(pair.server.take(), [Event::Unsubscribed(1)]);
        // Nothing goes out on it any more.
        assert_eq!(pair.server.connection.send_event(1, &event(9, "")), Err(ApiMisuse::NoSuchStream));
        assert_eq!(pair.server.connection.send_subscribed(1, &subscribed("c")), Err(ApiMisuse::NoSuchStream));
        assert_eq!((pair.client.connection.open_streams(), pair.server.connection.open_streams()), (0, 0));
    });
}

#[test]
fn a_server_ends_a_subscription_with_a_reason() {
    for_each_suite(|setup| {
        let mut pair = live(setup, 1);
        let lagged = rpc_error(ErrorCode::LAGGED, "the reader is too slow");
        pair.server.connection.end_subscription(1, &lagged).unwrap();
        // What the client sends meanwhile crosses the end, and is ignored.
        pair.client.connection.credit(1, credit(1)).unwrap();
        pair.client.connection.unsubscribe(1).unwrap();
        pair.drive();
        assert_eq!(pair.client.take(), [Event::Error(1, lagged)]);
        assert!(pair.server.take().is_empty());
        assert!(pair.server.connection.is_open() && pair.client.connection.is_open());
    });
}

#[test]
fn a_subscription_can_end_before_its_position() {
    let mut pair = Pair::connected(Setup::plain());
    pair.client.connection.subscribe(&subscribe("t", 1)).unwrap();
    pair.drive();
    pair.server.take();
    let not_found = rpc_error(ErrorCode::NOT_FOUND, "no such table");
    pair.server.connection.end_subscription(1, &not_found).unwrap();
    pair.drive();
    assert_eq!(pair.client.take(), [Event::Error(1, not_found)]);
}

#[test]
fn credit_has_a_limit_at_its_source() {
    let mut pair = live(Setup::plain(), CREDIT_MAX);
    assert_eq!(pair.client.connection.credit(1, credit(1)), Err(ApiMisuse::TooMuchCredit));
    assert_eq!(
        pair.client.connection.subscribe(&subscribe("t", CREDIT_MAX + 1)),
        Err(ApiMisuse::TooMuchCredit)
    );
    pair.server.connection.send_event(1, &event(1, "")).unwrap();
    pair.drive();
    // One item came: one more may be asked for.
    pair.client.connection.credit(1, credit(1)).unwrap();
    pair.drive();
    assert_eq!(pair.server.connection.subscription_credit(1), Some(CREDIT_MAX));
    assert!(pair.server.connection.is_open());
}
