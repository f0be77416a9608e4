//! Items of calls: both ways, by credit, in order, and late ones.

use crate::support::{Setup, call, for_each_suite, pair::Pair, response, rpc_error};
use bytes::Bytes;
use raystream::{
    conn::{ApiMisuse, Event},
    wire::{
        ErrorCode,
        envelope::{CLIENT_ITEMS, Publish, RpcCall, SERVER_ITEMS},
        limits::MESSAGE_MAX,
    },
};
use std::num::NonZeroU32;

fn credit(items: u32) -> NonZeroU32 {
    NonZeroU32::new(items).unwrap()
}

/// A pair with a call with items on stream 1.
fn open(setup: Setup, streams: u8, credit: u32) -> Pair {
    let mut pair = Pair::connected(setup);
    let asked = RpcCall { streams, credit, ..call("m", "{}") };
    assert_eq!(pair.client.connection.call(&asked), Ok(1));
    pair.drive();
    assert_eq!(pair.server.take(), [Event::Call(1, asked)]);
    pair
}

fn item(n: u32) -> Bytes {
    // Every third one takes several frames.
    let len = if n.is_multiple_of(3) { 40_000 } else { 5 };
    Bytes::from(vec![u8::try_from(n % 251).unwrap(); len])
}

#[test]
fn items_go_both_ways_as_far_as_credit_goes() {
    for_each_suite(|setup| {
        let mut pair = open(setup, CLIENT_ITEMS | SERVER_ITEMS, 2);
        assert_eq!(pair.client.connection.send_data(1, item(0)), Err(ApiMisuse::NoCredit));
        assert_eq!(pair.client.connection.call_credit(1), Some(0));
        for n in 0..2 {
            pair.server.connection.send_data(1, item(n)).unwrap();
        }
        assert_eq!(pair.server.connection.send_data(1, item(2)), Err(ApiMisuse::NoCredit));
        pair.server.connection.credit(1, credit(3)).unwrap();
        pair.drive();
        let mut taken = pair.client.take();
        assert!(taken.contains(&Event::Credit(1)));
        taken.retain(|event| *event != Event::Credit(1));
        assert_eq!(taken, [Event::Data(1, item(0)), Event::Data(1, item(1))]);
        for n in 10..13 {
            pair.client.connection.send_data(1, item(n)).unwrap();
        }
        pair.client.connection.end_data(1).unwrap();
        assert_eq!(pair.client.connection.send_data(1, item(0)), Err(ApiMisuse::NoSuchStream));
        // Another call is not held up by a stream without credit.
        assert_eq!(pair.client.connection.call(&call("other", "{}")), Ok(3));
        pair.drive();
        let mut taken = pair.server.take();
        taken.retain(|event| !matches!(event, Event::Call(3, _)));
        let mut expected: Vec<_> = (10..13).map(|n| Event::Data(1, item(n))).collect();
        expected.push(Event::DataEnd(1));
        assert_eq!(taken, expected);
        pair.client.connection.credit(1, credit(1)).unwrap();
        pair.drive();
        assert_eq!(pair.server.take(), [Event::Credit(1)]);
        pair.server.connection.send_data(1, item(2)).unwrap();
        pair.server.connection.respond(1, &response("{}")).unwrap();
        pair.drive();
        assert_eq!(pair.client.take(), [Event::Data(1, item(2)), Event::Response(1, response("{}"))]);
        assert_eq!(pair.client.connection.call_credit(1), None);
    });
}

#[test]
fn items_that_cross_the_answer_are_nobodys_fault() {
    let mut pair = open(Setup::plain(), CLIENT_ITEMS, 0);
    pair.server.connection.credit(1, credit(4)).unwrap();
    pair.drive();
    assert_eq!(pair.client.take(), [Event::Credit(1)]);
    for n in 0..4 {
        pair.client.connection.send_data(1, item(n)).unwrap();
    }
    pair.client.connection.end_data(1).unwrap();
    let full = rpc_error(ErrorCode::CONFLICT, "enough");
    pair.server.connection.respond_error(1, &full).unwrap();
    pair.drive();
    assert_eq!(pair.server.take(), []);
    assert_eq!(pair.client.take(), [Event::Error(1, full)]);
    assert_eq!((pair.client.end(), pair.server.end()), (None, None));
}

#[test]
fn a_cancelled_call_sends_no_more_items() {
    let mut pair = open(Setup::plain(), CLIENT_ITEMS | SERVER_ITEMS, 1);
    pair.server.connection.credit(1, credit(4)).unwrap();
    pair.drive();
    pair.client.take();
    pair.client.connection.cancel(1).unwrap();
    assert_eq!(pair.client.connection.send_data(1, item(0)), Err(ApiMisuse::NoSuchStream));
    assert_eq!(pair.client.connection.call_credit(1), None);
    // The server's items may still come, and then its answer.
    pair.server.connection.send_data(1, item(1)).unwrap();
    pair.drive();
    assert_eq!(pair.server.take(), [Event::Cancelled(1)]);
    let cancelled = rpc_error(ErrorCode::CANCELLED, "cancelled");
    pair.server.connection.respond_error(1, &cancelled).unwrap();
    pair.drive();
    assert_eq!(pair.client.take(), [Event::Data(1, item(1)), Event::Error(1, cancelled)]);
}

#[test]
fn an_item_that_is_too_long_costs_no_credit() {
    let mut pair = open(Setup::plain(), SERVER_ITEMS, 1);
    let long = Bytes::from(vec![0; MESSAGE_MAX + 1]);
    assert_eq!(pair.server.connection.send_data(1, long), Err(ApiMisuse::MessageTooLarge));
    assert_eq!(pair.server.connection.call_credit(1), Some(1));
}

#[test]
fn an_event_for_a_topic_is_answered_like_a_call() {
    for_each_suite(|setup| {
        let mut pair = Pair::connected(setup);
        let event = Publish { topic: "weather".into(), data: item(3), ..Publish::default() };
        assert_eq!(pair.client.connection.publish(&event), Ok(1));
        pair.drive();
        assert_eq!(pair.server.take(), [Event::Publish(1, event)]);
        pair.server.connection.respond(1, &response("{}")).unwrap();
        pair.drive();
        assert_eq!(pair.client.take(), [Event::Response(1, response("{}"))]);
    });
}
