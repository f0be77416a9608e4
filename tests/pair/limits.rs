//! What ends a connection, and what is refused on one stream only; always against a peer made by hand.

use crate::support::{
    Context, Setup, call,
    raw::{NOW, Raw, frame, heartbeat},
    refusals::{message, of_client, of_server},
    subscribe,
};
use bytes::Bytes;
use raystream::{
    conn::{ApiMisuse, ConnectionError, Event, Framing},
    wire::{
        ErrorCode, FrameType as F, Suite,
        envelope::{Envelope, RpcError},
        frame::FLAG_MORE,
        limits::{ABUSE_BUDGET, HEARTBEATS_OUTSTANDING_MAX},
    },
};
use std::time::Duration;

#[test]
fn a_server_refuses_every_fault_of_a_client() {
    for suite in [Suite::NK_CHACHAPOLY, Suite::IK_AESGCM] {
        for refusal in of_client() {
            let _context = Context(format!("{} ({})", refusal.name, refusal.rule));
            let mut raw = Raw::client(Setup::new(suite, Framing::Stream));
            let (last, before) = refusal.records.split_last().unwrap();
            for record in before {
                raw.send(record).unwrap();
            }
            raw.open_all();
            assert_eq!(raw.refused(last), refusal.code);
        }
    }
}

/// A hand-made server whose client has called on stream 1 and subscribed on stream 3 with a credit of one.
fn server_with_streams() -> Raw {
    let mut raw = Raw::server(Setup::plain());
    assert_eq!(raw.connection.call(&call("m", "")), Ok(1));
    assert_eq!(raw.connection.subscribe(&subscribe("t", 1)), Ok(3));
    raw.poll();
    assert_eq!(raw.open_all().len(), 2);
    raw
}

#[test]
fn a_client_refuses_every_fault_of_a_server() {
    for refusal in of_server() {
        let _context = Context(format!("{} ({})", refusal.name, refusal.rule));
        let mut raw = server_with_streams();
        let (last, before) = refusal.records.split_last().unwrap();
        for record in before {
            raw.send(record).unwrap();
        }
        raw.open_all();
        assert_eq!(raw.refused(last), refusal.code);
    }
}

/// The error that answers the stream, the only frame that came.
fn error_on(raw: &mut Raw, stream: u32) -> ErrorCode {
    let frames = raw.open_all();
    let [frame] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!((frame.frame_type, frame.stream), (F::RPC_ERROR, stream));
    let error = RpcError::decode(&Bytes::copy_from_slice(&frame.payload)).unwrap();
    assert_eq!(error.retryable, error.code.is_retryable());
    error.code
}

fn call_frame(stream: u32) -> Vec<u8> {
    frame(F::RPC_CALL, 0, stream, &message(&call("m", "")))
}

#[test]
fn calls_and_subscriptions_over_their_limits_are_refused_one_by_one() {
    let mut raw = Raw::client(Setup::plain());
    for n in 0..256 {
        raw.send(&call_frame(2 * n + 1)).unwrap();
    }
    assert_eq!((raw.events.len(), raw.open_all().len()), (256, 0));
    raw.send(&call_frame(601)).unwrap();
    assert_eq!(error_on(&mut raw, 601), ErrorCode::RATE_LIMITED);
    assert_eq!(raw.events.len(), 256);
    // A cancelled call counts until it is answered.
    raw.send(&frame(F::RPC_CANCEL, 0, 1, &[])).unwrap();
    raw.send(&call_frame(603)).unwrap();
    assert_eq!(error_on(&mut raw, 603), ErrorCode::RATE_LIMITED);
    raw.connection.respond(1, &crate::support::response("")).unwrap();
    raw.send(&call_frame(605)).unwrap();
    assert!(matches!(raw.events.last(), Some(Event::Call(605, _))));

    let mut raw = Raw::client(Setup::plain());
    let subscribe_frame = |stream| frame(F::SUBSCRIBE, 0, stream, &message(&subscribe("t", 0)));
    for n in 0..128 {
        raw.send(&subscribe_frame(2 * n + 1)).unwrap();
    }
    raw.send(&subscribe_frame(601)).unwrap();
    assert_eq!(error_on(&mut raw, 601), ErrorCode::RATE_LIMITED);
    assert_eq!(raw.events.len(), 128);
    assert!(raw.connection.is_open());
}

#[test]
fn a_client_keeps_to_the_limits_that_it_was_told() {
    let mut setup = Setup::plain();
    setup.server.limits.calls_max = 2;
    setup.server.limits.subscriptions_max = 1;
    let mut raw = Raw::server(setup);
    assert!(raw.connection.call(&call("m", "")).is_ok());
    assert!(raw.connection.call(&call("m", "")).is_ok());
    assert_eq!(raw.connection.call(&call("m", "")), Err(ApiMisuse::TooManyStreams));
    assert!(raw.connection.subscribe(&subscribe("t", 0)).is_ok());
    assert_eq!(raw.connection.subscribe(&subscribe("t", 0)), Err(ApiMisuse::TooManyStreams));
    // A server with a shorter message.
    let mut setup = Setup::plain();
    setup.framing = Framing::Messages;
    let mut said = crate::support::raw::hello(&setup);
    said.message_max = 1_000;
    let (mut client, taken) = Raw::server_saying(setup, &said.encode());
    taken.unwrap();
    assert_eq!(client.call(&call("m", vec![0; 1_000])), Err(ApiMisuse::MessageTooLarge));
    assert!(client.call(&call("m", vec![0; 900])).is_ok());
}

/// A hand-made client that makes the server throw work away until it has enough.
fn until_closed(mut send: impl FnMut(&mut Raw, u32) -> Result<(), ConnectionError>) -> u32 {
    let mut raw = Raw::client(Setup::plain());
    for n in 0.. {
        if let Err(error) = send(&mut raw, 2 * n + 1) {
            assert_eq!(error, ConnectionError::AbuseBudget);
            assert_eq!(raw.close_received().code, ErrorCode::RATE_LIMITED);
            return n;
        }
    }
    unreachable!("the numbers do not end")
}

#[test]
fn cancels_cost_no_budget_and_a_cancelled_call_keeps_its_slot() {
    let mut raw = Raw::client(Setup::plain());
    for n in 0..2 * ABUSE_BUDGET {
        let stream = 2 * n + 1;
        raw.send(&call_frame(stream)).unwrap();
        raw.send(&frame(F::RPC_CANCEL, 0, stream, &[])).unwrap();
        raw.send(&frame(F::RPC_CANCEL, 0, stream, &[])).unwrap();
        assert_eq!(raw.connection.open_streams(), 1, "a cancelled call counts until it is answered");
        raw.connection.respond(stream, &crate::support::response("")).unwrap();
        raw.poll();
    }
    assert!(raw.connection.is_open());
}

#[test]
fn refusals_and_unsubscribes_have_a_budget() {
    let refused = until_closed(|raw, stream| raw.send(&frame(F::RPC_CALL, 0, stream, b"garbage")));
    assert_eq!(refused, ABUSE_BUDGET);
    let unsubscribed = until_closed(|raw, stream| {
        raw.send(&frame(F::SUBSCRIBE, 0, stream, &message(&subscribe("t", 0))))?;
        raw.send(&frame(F::UNSUBSCRIBE, 0, stream, &[]))
    });
    assert_eq!(unsubscribed, ABUSE_BUDGET);
}

#[test]
fn the_budget_comes_back_with_time() {
    let mut raw = Raw::client(Setup::plain());
    // Half of what is refilled each second, for an hour.
    let mut stream = 1;
    for second in 0..3_600 {
        for _ in 0..50 {
            let mut record = raw.seal(&frame(F::RPC_CALL, 0, stream, b"garbage"));
            raw.connection.handle_record(Duration::from_secs(second), &mut record).unwrap();
            stream += 2;
        }
        raw.poll();
        raw.received.clear();
    }
    assert!(raw.connection.is_open());
}

#[test]
fn honest_calls_cost_no_budget() {
    let mut raw = Raw::client(Setup::plain());
    for n in 0..5_000 {
        raw.send(&call_frame(2 * n + 1)).unwrap();
        raw.connection.respond(2 * n + 1, &crate::support::response("")).unwrap();
        raw.poll();
    }
    assert_eq!((raw.events.len(), raw.open_all().len()), (5_000, 5_000));
}

#[test]
fn a_flood_of_heartbeats_ends_the_connection_when_nobody_reads_the_echoes() {
    let mut raw = Raw::client(Setup::plain());
    let one = heartbeat(1, false);
    // The owner takes what is to be sent after each record, as the transport lets it.
    for _ in 0..100 {
        raw.send(&one.repeat(HEARTBEATS_OUTSTANDING_MAX)).unwrap();
    }
    assert_eq!(raw.open_all().len(), 100 * HEARTBEATS_OUTSTANDING_MAX);
    // The transport takes nothing.
    let mut record = raw.seal(&one.repeat(2 * HEARTBEATS_OUTSTANDING_MAX + 2));
    let refused = raw.connection.handle_record(NOW, &mut record);
    assert_eq!(refused, Err(ConnectionError::Protocol("too many HEARTBEATs")));
}

#[test]
fn late_frames_on_a_closed_stream_are_ignored() {
    let mut raw = Raw::client(Setup::plain());
    raw.send(&call_frame(1)).unwrap();
    raw.connection.respond(1, &crate::support::response("")).unwrap();
    raw.poll();
    raw.events.clear();
    raw.open_all();
    for late in [
        frame(F::RPC_CANCEL, 0, 1, &[]),
        frame(F::UNSUBSCRIBE, 0, 1, &[]),
        frame(F::CREDIT, 0, 1, &[0, 0, 0, 1]),
    ] {
        raw.send(&late).unwrap();
    }
    assert!(raw.events.is_empty() && raw.open_all().is_empty());
}

#[test]
fn fragments_of_streams_may_mix() {
    let mut raw = Raw::client(Setup::plain());
    let asked = message(&call("method", vec![7; 100]));
    let (head, tail) = asked.split_at(50);
    // 64 messages at once, the most there may be; in between a whole one.
    for n in 0..64 {
        raw.send(&frame(F::RPC_CALL, FLAG_MORE, 2 * n + 1, head)).unwrap();
    }
    raw.send(&call_frame(201)).unwrap();
    assert!(matches!(raw.events[..], [Event::Call(201, _)]));
    for n in (0..64).rev() {
        raw.send(&frame(F::RPC_CALL, 0, 2 * n + 1, tail)).unwrap();
    }
    assert_eq!(raw.events.len(), 65);
    assert!(
        raw.events[1..]
            .iter()
            .all(|event| { matches!(event, Event::Call(_, asked) if asked.args == vec![7; 100]) })
    );
}

#[test]
fn a_fragmented_call_that_is_refused_leaves_nothing_behind() {
    let mut raw = Raw::client(Setup::plain());
    raw.connection.go_away(ErrorCode::GOING_AWAY, Duration::ZERO).unwrap();
    raw.poll();
    raw.open_all();
    for n in 0..500 {
        let stream = 2 * n + 1;
        raw.send(&frame(F::RPC_CALL, FLAG_MORE, stream, &[0; 10_000])).unwrap();
        raw.send(&frame(F::RPC_CALL, 0, stream, &[0; 10_000])).unwrap();
        assert_eq!(error_on(&mut raw, stream), ErrorCode::GOING_AWAY);
    }
    assert_eq!(raw.connection.open_streams(), 0);
}
