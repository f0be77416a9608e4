//! The ends of a connection: GOAWAY, CLOSE, and a transport that is cut.

use crate::support::{
    Setup, call, event, for_each_suite,
    pair::{From, Pair},
    raw::{NOW, Raw, frame, heartbeat},
    response, subscribe, subscribed,
};
use raystream::{
    conn::{ApiMisuse, ConnectionError, Event, Framing},
    wire::{
        ErrorCode, FrameType, Suite,
        control::{Close, GoAway},
    },
};
use std::time::Duration;

fn close(code: ErrorCode, reason: &str) -> Close {
    Close { code, reason: reason.to_owned() }
}

#[test]
fn close_goes_before_the_end_from_both_sides() {
    for_each_suite(|setup| {
        let (suite, framing) = (setup.client.suites[0], setup.framing);
        drop(setup);
        for closer in [From::Client, From::Server] {
            let mut pair = Pair::connected(Setup::new(suite, framing));
            let stream = pair.client.connection.call(&call("m", "")).unwrap();
            pair.drive();
            pair.server.take();
            // What is queued goes out before CLOSE.
            pair.server.connection.respond(stream, &response(vec![1; 100_000])).unwrap();
            let said = close(ErrorCode::NO_ERROR, "done");
            let (this, that) = match closer {
                From::Client => (&mut pair.client, From::Server),
                From::Server => (&mut pair.server, From::Client),
            };
            this.connection.close(said.code, &said.reason);
            this.connection.close(ErrorCode::INTERNAL_ERROR, "the first reason stands");
            assert!(!this.connection.is_open());
            pair.drive();
            let ends = [pair.client.end(), pair.server.end()];
            let [this, that] = if that == From::Server { ends } else { [ends[1].clone(), ends[0].clone()] };
            assert_eq!(this, Some(ConnectionError::ClosedHere(said.clone())));
            assert_eq!(that, Some(ConnectionError::ClosedByPeer(said)));
            assert!(this.unwrap().is_orderly() && that.unwrap().is_orderly());
            if closer == From::Server {
                assert!(matches!(pair.client.take()[..], [Event::Response(1, _)]));
            }
            assert!(pair.client.connection.is_drained() && pair.server.connection.is_drained());
            assert_eq!(pair.client.connection.call(&call("m", "")), Err(ApiMisuse::NotOpen));
            assert_eq!(pair.client.connection.poll_timeout(), None);
        }
    });
}

#[test]
fn nothing_of_what_is_queued_goes_before_the_close_of_an_abort() {
    for_each_suite(|setup| {
        let mut pair = Pair::connected(setup);
        pair.client.connection.call(&call("short", "")).unwrap();
        pair.client.connection.call(&call("long", "x".repeat(100_000))).unwrap();
        pair.client.connection.abort(ErrorCode::PROTOCOL_ERROR, "a breach");
        pair.client.connection.abort(ErrorCode::INTERNAL_ERROR, "the first reason stands");
        pair.drive();
        assert_eq!(pair.server.take(), []);
        let said = close(ErrorCode::PROTOCOL_ERROR, "a breach");
        assert_eq!(pair.client.end(), Some(ConnectionError::ClosedHere(said.clone())));
        assert_eq!(pair.server.end(), Some(ConnectionError::ClosedByPeer(said)));
        assert!(pair.client.connection.is_drained() && pair.server.connection.is_drained());
    });
}

#[test]
fn a_transport_that_ends_without_close_is_truncated() {
    for_each_suite(|setup| {
        let (suite, framing) = (setup.client.suites[0], setup.framing);
        drop(setup);
        for to in [From::Client, From::Server] {
            // In the middle of work, and in the middle of a record.
            for partial in [false, true] {
                let mut pair = Pair::connected(Setup::new(suite, framing));
                pair.client.connection.call(&call("m", "")).unwrap();
                if partial && framing == Framing::Stream {
                    pair.inject(to, &[0, 200, 1, 2, 3]);
                }
                pair.cut(to);
                let end = if to == From::Client { pair.client.end() } else { pair.server.end() };
                assert_eq!(end, Some(ConnectionError::Truncated));
                assert!(!end.unwrap().is_orderly());
            }
            // In every phase of the handshake.
            let mut pair = Pair::new(Setup::new(suite, framing));
            pair.cut(to);
            let end = if to == From::Client { pair.client.end() } else { pair.server.end() };
            assert_eq!(end.map(|end| end.code()), Some(ErrorCode::TRUNCATED));
        }
        let mut raw = Raw::unproved_client(Setup::new(suite, framing));
        assert_eq!(raw.connection.handle_eof(), Err(ConnectionError::Truncated));
        assert!(raw.connection.is_drained());
    });
}

#[test]
fn the_end_of_the_transport_after_close_is_orderly() {
    let mut raw = Raw::client(Setup::plain());
    let said = close(ErrorCode::NO_ERROR, "bye");
    let ended = raw.send(&frame(FrameType::CLOSE, 0, 0, &said.encode()));
    assert_eq!(ended, Err(ConnectionError::ClosedByPeer(said.clone())));
    // It was answered, so that neither direction ends without one.
    assert_eq!(raw.close_received().code, ErrorCode::NO_ERROR);
    assert_eq!(raw.connection.handle_eof(), Err(ConnectionError::ClosedByPeer(said)));
}

#[test]
fn nothing_counts_after_close() {
    let mut raw = Raw::client(Setup::plain());
    let said = close(ErrorCode::NO_ERROR, "");
    raw.send(&frame(FrameType::CLOSE, 0, 0, &said.encode())).unwrap_err();
    raw.events.clear();
    let later = frame(FrameType::RPC_CALL, 0, 1, &crate::support::refusals::message(&call("m", "")));
    assert_eq!(raw.send(&later), Err(ConnectionError::ClosedByPeer(said)));
    assert!(raw.events.is_empty());
    assert_eq!(raw.open_all().len(), 1, "its own CLOSE and nothing more");
}

#[test]
fn what_came_before_close_counts() {
    let mut raw = Raw::client(Setup::plain());
    let asked = frame(FrameType::RPC_CALL, 0, 1, &crate::support::refusals::message(&call("m", "")));
    let said = frame(FrameType::CLOSE, 0, 0, &close(ErrorCode::NO_ERROR, "").encode());
    raw.send(&[asked, said].concat()).unwrap_err();
    assert!(matches!(raw.events[..], [Event::Call(1, _)]));
}

#[test]
fn both_may_close_at_once() {
    let mut pair = Pair::connected(Setup::plain());
    pair.client.connection.close(ErrorCode::NO_ERROR, "client");
    pair.server.connection.close(ErrorCode::GOING_AWAY, "server");
    pair.drive_bounded(10);
    assert_eq!(pair.client.end(), Some(ConnectionError::ClosedHere(close(ErrorCode::NO_ERROR, "client"))));
    assert_eq!(pair.server.end(), Some(ConnectionError::ClosedHere(close(ErrorCode::GOING_AWAY, "server"))));
}

#[test]
fn a_close_before_there_are_keys() {
    // A server refuses in clear with the code; a client goes without a word.
    let (mut client, mut server) = Setup::plain().connections();
    server.close(ErrorCode::SERVICE_UNAVAILABLE, "too many connections");
    let mut out = Vec::new();
    assert!(server.poll_transmit(NOW, &mut out));
    assert_eq!(out, [0, 3, 0xff, 0, 7]);
    client.close(ErrorCode::NO_ERROR, "");
    out.clear();
    assert!(!client.poll_transmit(NOW, &mut out));
    assert!(client.is_drained() && server.is_drained());
}

#[test]
fn go_away_lets_calls_finish_and_takes_no_new_ones() {
    for_each_suite(|setup| {
        let mut pair = Pair::connected(setup);
        let before = pair.client.connection.call(&call("before", "")).unwrap();
        let watched = pair.client.connection.subscribe(&subscribe("t", 9)).unwrap();
        pair.drive();
        pair.server.take();
        pair.server.connection.send_subscribed(watched, &subscribed("c")).unwrap();
        pair.drive();
        pair.client.take();
        // This one crosses GOAWAY on the way.
        let crossing = pair.client.connection.call(&call("crossing", "")).unwrap();
        pair.server.connection.go_away(ErrorCode::GOING_AWAY, Duration::from_secs(2)).unwrap();
        pair.drive();
        let events = pair.client.take();
        let go_away = GoAway { delay_ms: 2_000, last_stream: watched, code: ErrorCode::GOING_AWAY };
        assert!(
            matches!(&events[..], [Event::GoAway(said), Event::Error(stream, error)]
                if *said == go_away && *stream == crossing && error.code == ErrorCode::GOING_AWAY),
            "{events:?}"
        );
        assert!(pair.server.take().is_empty());
        assert_eq!(pair.client.connection.call(&call("m", "")), Err(ApiMisuse::GoingAway));
        assert_eq!(pair.client.connection.subscribe(&subscribe("t", 0)), Err(ApiMisuse::GoingAway));
        // What was taken goes on.
        pair.server.connection.respond(before, &response("1")).unwrap();
        pair.server.connection.send_event(watched, &event(1, "{}")).unwrap();
        pair.drive();
        let expected = [Event::Response(before, response("1")), Event::Item(watched, event(1, "{}"))];
        assert_eq!(pair.client.take(), expected);
    });
}

#[test]
fn a_client_does_not_send_go_away() {
    let mut pair = Pair::connected(Setup::plain());
    let refused = pair.client.connection.go_away(ErrorCode::GOING_AWAY, Duration::ZERO);
    assert_eq!(refused, Err(ApiMisuse::WrongSide));
}

#[test]
fn commands_of_the_other_side_are_misuse() {
    let mut pair = Pair::connected(Setup::plain());
    let client = &mut pair.client.connection;
    assert_eq!(client.respond(1, &response("")), Err(ApiMisuse::WrongSide));
    assert_eq!(client.send_event(1, &event(1, "")), Err(ApiMisuse::WrongSide));
    assert_eq!(client.send_subscribed(1, &subscribed("")), Err(ApiMisuse::WrongSide));
    let server = &mut pair.server.connection;
    assert_eq!(server.call(&call("m", "")), Err(ApiMisuse::WrongSide));
    assert_eq!(server.subscribe(&subscribe("t", 0)), Err(ApiMisuse::WrongSide));
    assert_eq!(server.cancel(1), Err(ApiMisuse::WrongSide));
    assert_eq!(server.unsubscribe(1), Err(ApiMisuse::WrongSide));
    assert_eq!(server.respond(1, &response("")), Err(ApiMisuse::NoSuchStream));
    let (mut client, _) = Setup::new(Suite::NK_CHACHAPOLY, Framing::Stream).connections();
    assert_eq!(client.call(&call("m", "")), Err(ApiMisuse::NotOpen));
}

#[test]
fn a_fault_is_told_before_the_end_and_keeps_what_came_before() {
    let mut raw = Raw::client(Setup::plain());
    let asked = frame(FrameType::RPC_CALL, 0, 1, &crate::support::refusals::message(&call("m", "")));
    let fault = frame(FrameType(0x77), 0, 1, b"");
    // In one record and in two it is the same.
    assert_eq!(
        raw.refused(&[asked.clone(), heartbeat(1, false), fault.clone()].concat()),
        ErrorCode::PROTOCOL_ERROR
    );
    assert!(matches!(raw.events[..], [Event::Call(1, _)]));
    let mut raw = Raw::client(Setup::plain());
    raw.send(&asked).unwrap();
    assert_eq!(raw.refused(&fault), ErrorCode::PROTOCOL_ERROR);
    assert!(matches!(raw.events[..], [Event::Call(1, _)]));
}

#[test]
fn a_peer_is_not_told_why_a_record_did_not_authenticate() {
    let mut raw = Raw::client(Setup::plain());
    let mut short = vec![0; 15];
    let mut forged = raw.seal(&heartbeat(1, false));
    *forged.last_mut().unwrap() ^= 0x80;
    assert_eq!(raw.connection.handle_record(NOW, &mut forged), Err(ConnectionError::Decryption));
    assert!(forged[..16].iter().all(|byte| *byte == 0), "no plaintext is left behind");
    raw.poll();
    assert_eq!(raw.close_received(), close(ErrorCode::DECRYPTION_FAILED, ""));
    let mut raw = Raw::client(Setup::plain());
    assert_eq!(raw.connection.handle_record(NOW, &mut short), Err(ConnectionError::Decryption));
    raw.poll();
    assert_eq!(raw.close_received(), close(ErrorCode::DECRYPTION_FAILED, ""));
}
