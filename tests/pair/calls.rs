//! Calls: answers, errors, cancels, long messages in turns with short ones.

use crate::support::{
    Setup, call, for_each_suite,
    pair::{From, Pair},
    raw::parse,
    response, rpc_error,
};
use bytes::Bytes;
use raystream::{
    conn::{ApiMisuse, Event, Framing},
    wire::{
        ErrorCode,
        envelope::{Encode, Envelope, RpcCall, RpcResponse},
        limits::{FRAME_PAYLOAD_MAX, MESSAGE_MAX, UNAUTHENTICATED_BODY_MAX},
    },
};

/// The calls that the server was given.
#[track_caller]
fn calls(pair: &mut Pair) -> Vec<(u32, RpcCall)> {
    let take = |event| match event {
        Event::Call(stream, call) => (stream, call),
        other => panic!("{other:?}"),
    };
    pair.server.take().into_iter().map(take).collect()
}

/// Arguments such that the message has exactly `len` bytes.
fn call_of(len: usize) -> RpcCall {
    let of = |method: usize, args: usize| call(&"m".repeat(method), vec![b'x'; args]);
    for method in 1..64 {
        let spare = of(method, 4).to_bytes().len() - 4;
        for args in len - spare - 8..=len - spare {
            let call = of(method, args);
            if call.to_bytes().len() == len {
                return call;
            }
        }
    }
    panic!("no call of {len} bytes");
}

#[test]
fn a_call_is_answered() {
    for_each_suite(|setup| {
        let mut pair = Pair::connected(setup);
        let mut asked = call("table.get", "{\"id\":1}");
        asked.deadline_ms = 7;
        asked.idempotency_key = Some([9; 16]);
        asked.metadata = vec![("trace".into(), "1".into())];
        let stream = pair.client.connection.call(&asked).unwrap();
        assert_eq!(stream, 1);
        pair.drive();
        assert_eq!(calls(&mut pair), [(1, asked)]);
        let answer = response("{\"data\":null}");
        pair.server.connection.respond(1, &answer).unwrap();
        assert_eq!(pair.server.connection.respond(1, &answer), Err(ApiMisuse::NoSuchStream));
        pair.drive_bounded(2);
        assert_eq!(pair.client.take(), [Event::Response(1, answer)]);
        assert_eq!((pair.client.connection.open_streams(), pair.server.connection.open_streams()), (0, 0));
        assert_eq!(pair.client.connection.cancel(1), Err(ApiMisuse::NoSuchStream));
    });
}

#[test]
fn a_call_is_answered_with_an_error() {
    for_each_suite(|setup| {
        let mut pair = Pair::connected(setup);
        let stream = pair.client.connection.call(&call("m", "")).unwrap();
        pair.drive();
        let mut error = rpc_error(ErrorCode::CONFLICT, "another version");
        error.retry_after_ms = 9;
        error.details = Bytes::from_static(b"{}");
        pair.server.connection.respond_error(stream, &error).unwrap();
        pair.drive();
        assert_eq!(pair.client.take(), [Event::Error(stream, error)]);
    });
}

#[test]
fn answers_come_in_any_order() {
    let mut pair = Pair::connected(Setup::plain());
    let streams: Vec<_> = (0..9).map(|n| pair.client.connection.call(&call("m", vec![n])).unwrap()).collect();
    assert_eq!(streams, (0..9).map(|n| 2 * n + 1).collect::<Vec<_>>());
    pair.drive();
    for (stream, call) in calls(&mut pair).into_iter().rev() {
        pair.server.connection.respond(stream, &response(call.args)).unwrap();
    }
    pair.drive();
    let answered: Vec<_> = pair.client.take();
    let expected = (0..9_u8).rev().map(|n| Event::Response(u32::from(n) * 2 + 1, response(vec![n])));
    assert_eq!(answered, expected.collect::<Vec<_>>());
}

#[test]
fn a_cancelled_call_is_still_answered_once() {
    for_each_suite(|setup| {
        let mut pair = Pair::connected(setup);
        let stream = pair.client.connection.call(&call("slow", "")).unwrap();
        pair.drive();
        pair.server.take();
        pair.client.connection.cancel(stream).unwrap();
        pair.client.connection.cancel(stream).unwrap();
        pair.drive();
        assert_eq!(pair.server.take(), [Event::Cancelled(stream)]);
        assert_eq!(pair.server.connection.open_streams(), 1, "it counts until its work has ended");
        let error = rpc_error(ErrorCode::CANCELLED, "cancelled");
        pair.server.connection.respond_error(stream, &error).unwrap();
        pair.drive();
        assert_eq!(pair.client.take(), [Event::Error(stream, error)]);
        assert!(pair.server.take().is_empty());
    });
}

#[test]
fn a_cancel_that_crosses_the_answer_is_ignored() {
    let mut pair = Pair::connected(Setup::plain());
    let stream = pair.client.connection.call(&call("m", "")).unwrap();
    pair.drive();
    pair.server.take();
    pair.server.connection.respond(stream, &response("1")).unwrap();
    pair.client.connection.cancel(stream).unwrap();
    pair.drive();
    assert_eq!(pair.client.take(), [Event::Response(stream, response("1"))]);
    assert!(pair.server.take().is_empty());
    assert!(pair.server.connection.is_open() && pair.client.connection.is_open());
}

#[test]
fn a_cancel_follows_the_whole_call() {
    let mut pair = Pair::connected(Setup::plain());
    let stream = pair.client.connection.call(&call("m", vec![1; 100_000])).unwrap();
    pair.client.connection.cancel(stream).unwrap();
    pair.drive();
    let events = pair.server.take();
    assert!(matches!(events[..], [Event::Call(1, _), Event::Cancelled(1)]));
}

#[test]
fn the_longest_message_goes_both_ways_with_pings_in_between() {
    for_each_suite(|setup| {
        let mut pair = Pair::connected(setup);
        let longest = call_of(MESSAGE_MAX);
        let mut answer = response(longest.args.clone());
        while answer.to_bytes().len() > MESSAGE_MAX {
            answer.result.truncate(answer.result.len() - 4);
        }
        let before = pair.records.len();
        let stream = pair.client.connection.call(&longest).unwrap();
        pair.client.connection.heartbeat(pair.now).unwrap();
        let quick = pair.client.connection.call(&call("quick", "")).unwrap();
        pair.drive();
        // The short one was not held up by the long one: it came first.
        let received = calls(&mut pair);
        assert_eq!(received.iter().map(|(stream, _)| *stream).collect::<Vec<_>>(), [quick, stream]);
        assert_eq!(received[1].1, longest);
        assert!(matches!(pair.client.take_one(), Event::HeartbeatEcho(_)));
        pair.server.connection.respond(stream, &answer).unwrap();
        pair.server.connection.respond(quick, &response("q")).unwrap();
        pair.server.connection.heartbeat(pair.now).unwrap();
        pair.drive();
        let events = pair.client.take();
        assert_eq!(events, [Event::Response(quick, response("q")), Event::Response(stream, answer)]);
        assert!(matches!(pair.server.take_one(), Event::HeartbeatEcho(_)));
        // Records are full: 3 frames of 16 KiB each, as 4 with their heads do not fit.
        let records = pair.records.len() - before;
        assert!((44..=52).contains(&records), "{records} records for 2 MiB");
    });
}

#[test]
fn a_message_over_the_limit_is_refused_where_it_is_made() {
    let mut pair = Pair::connected(Setup::plain());
    let over = call("m", vec![0; MESSAGE_MAX]);
    assert_eq!(pair.client.connection.call(&over), Err(ApiMisuse::MessageTooLarge));
    assert_eq!(
        pair.client.connection.call(&call("m", vec![0; MESSAGE_MAX + 1])),
        Err(ApiMisuse::MessageTooLarge)
    );
    assert_eq!(pair.client.connection.open_streams(), 0);
    let stream = pair.client.connection.call(&call("m", "")).unwrap();
    pair.drive();
    pair.server.take();
    pair.server.connection.respond(stream, &response(vec![0; MESSAGE_MAX])).unwrap();
    pair.drive();
    let Event::Error(_, error) = pair.client.take_one() else { panic!("an answer over the limit") };
    assert_eq!(error.code, ErrorCode::PAYLOAD_TOO_LARGE);
    // An error with too many words keeps its code.
    let stream = pair.client.connection.call(&call("m", "")).unwrap();
    pair.drive();
    let long = rpc_error(ErrorCode::NOT_FOUND, &"x".repeat(MESSAGE_MAX));
    pair.server.connection.respond_error(stream, &long).unwrap();
    pair.drive();
    let Event::Error(_, error) = pair.client.take_one() else { panic!("no error") };
    assert_eq!(error.code, ErrorCode::NOT_FOUND);
    assert!(error.message.len() < 100);
}

#[test]
fn many_long_messages_at_once_stay_within_the_receivers_limits() {
    for framing in crate::support::FRAMINGS {
        let mut pair = Pair::connected(Setup::new(raystream::wire::Suite::NK_CHACHAPOLY, framing));
        // More than 2 MiB in sum, and on more than 64 streams.
        let mut sent = Vec::new();
        for n in 0..100_u32 {
            let len = if n < 5 { 1_000_000 } else { FRAME_PAYLOAD_MAX + 100 };
            let asked = call("m", vec![u8::try_from(n).unwrap(); len]);
            sent.push((pair.client.connection.call(&asked).unwrap(), asked));
        }
        pair.drive();
        let mut received = calls(&mut pair);
        received.sort_by_key(|(stream, _)| *stream);
        assert!(received == sent);
        for (stream, call) in &received {
            pair.server.connection.respond(*stream, &response(call.args.clone())).unwrap();
        }
        pair.drive();
        let mut answers = pair.client.take();
        answers.sort_by_key(|event| if let Event::Response(stream, _) = event { *stream } else { 0 });
        let expected: Vec<_> = sent
            .into_iter()
            .map(|(stream, call)| {
                Event::Response(stream, RpcResponse { result: call.args, ..RpcResponse::default() })
            })
            .collect();
        assert!(answers == expected, "100 answers, none altered");
    }
}

#[test]
fn the_first_record_of_a_client_is_short_enough_for_a_stranger() {
    for_each_suite(|setup| {
        let framing = setup.framing;
        let mut pair = Pair::new(setup);
        // The call is made as soon as it can be, before the first record is sent.
        pair.client.is_blocked = false;
        while !matches!(pair.client.events.front(), Some(Event::Connected(..))) {
            let before = pair.records.len();
            pair.client.is_blocked = pair.records.len() >= 2;
            pair.drive();
            assert!(pair.records.len() > before || pair.client.is_blocked || framing == Framing::Messages);
        }
        let stream = pair.client.connection.call(&call("big", vec![5; 500_000]));
        pair.client.is_blocked = false;
        pair.drive();
        assert!(stream.is_ok());
        let bodies = pair.bodies(From::Client);
        assert!(bodies[1].len() <= UNAUTHENTICATED_BODY_MAX, "{} bytes", bodies[1].len());
        let events = pair.server.take();
        assert!(
            matches!(&events[..], [Event::Established(_), Event::Call(1, call)] if call.args.len() == 500_000)
        );
    });
}

#[test]
fn a_small_first_call_shares_the_first_record() {
    let mut setup = Setup::plain();
    setup.framing = Framing::Messages;
    let (mut client, mut server) = setup.connections();
    let now = std::time::Duration::ZERO;
    let mut body = Vec::new();
    assert!(client.poll_transmit(now, &mut body));
    server.handle_record(now, &mut body).unwrap();
    body.clear();
    assert!(server.poll_transmit(now, &mut body));
    client.handle_record(now, &mut body).unwrap();
    client.call(&call("first", "{}")).unwrap();
    body.clear();
    assert!(client.poll_transmit(now, &mut body));
    assert!(!client.poll_transmit(now, &mut Vec::new()));
    server.handle_record(now, &mut body).unwrap();
    assert!(matches!(server.poll_event(), Some(Event::Established(_))));
    assert!(matches!(server.poll_event(), Some(Event::Call(1, _))));
}

#[test]
fn an_envelope_that_does_not_verify_ends_the_call_only() {
    use crate::support::raw::{Raw, frame};
    use raystream::wire::FrameType;
    let mut raw = Raw::client(Setup::plain());
    raw.send(&frame(FrameType::RPC_CALL, 0, 1, b"garbage")).unwrap();
    raw.send(&frame(FrameType::SUBSCRIBE, 0, 3, b"garbage")).unwrap();
    let frames = raw.open_all();
    for (frame, stream) in frames.iter().zip([1, 3]) {
        assert_eq!((frame.frame_type, frame.stream), (FrameType::RPC_ERROR, stream));
        let error =
            raystream::wire::envelope::RpcError::decode(&Bytes::copy_from_slice(&frame.payload)).unwrap();
        assert_eq!(error.code, ErrorCode::INVALID_REQUEST);
    }
    assert_eq!((frames.len(), raw.events.len()), (2, 0));
    assert!(raw.connection.is_open());
}

#[test]
fn small_messages_share_a_record() {
    let mut raw = crate::support::raw::Raw::server(Setup::plain());
    for _ in 0..100 {
        raw.connection.call(&call("m", "")).unwrap();
    }
    raw.poll();
    assert_eq!(raw.received.len(), 1);
    let mut body = raw.received.remove(0);
    let (text, tag) = body.split_last_chunk_mut::<16>().unwrap();
    raw.transport.receive.decrypt_in_place(&[], text, tag).unwrap();
    let streams: Vec<_> = parse(text).iter().map(|frame| frame.stream).collect();
    assert_eq!(streams, (0..100).map(|n| 2 * n + 1).collect::<Vec<_>>());
}
