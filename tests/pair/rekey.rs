//! New keys after each 2^20 records of a direction. `tests/snow_conn.rs` checks the same against another implementation.

use crate::support::{
    Setup, event,
    raw::{NOW, Raw, frame, heartbeat},
    subscribe, subscribed,
};
use raystream::{
    conn::{Connection, ConnectionError, Event, Framing},
    wire::{FrameType, Suite, limits::REKEY_INTERVAL_RECORDS},
};
use std::num::NonZeroU32;

/// Moves everything that `from` has to say; gives the number of records.
fn pass(from: &mut Connection, to: &mut Connection, body: &mut Vec<u8>) -> u64 {
    let mut records = 0;
    body.clear();
    while from.poll_transmit(NOW, body) {
        to.handle_record(NOW, body).unwrap();
        body.clear();
        records += 1;
    }
    records
}

#[test]
fn both_directions_go_on_after_two_to_the_twenty_records() {
    for suite in [Suite::NK_CHACHAPOLY, Suite::NK_AESGCM] {
        let (mut client, mut server) = Setup::new(suite, Framing::Messages).connections();
        let mut body = Vec::new();
        pass(&mut client, &mut server, &mut body);
        pass(&mut server, &mut client, &mut body);
        client.subscribe(&subscribe("t", 0)).unwrap();
        let mut up = pass(&mut client, &mut server, &mut body);
        server.send_subscribed(1, &subscribed("c")).unwrap();
        let mut down = pass(&mut server, &mut client, &mut body);
        let item = event(1, "");
        let mut items = 0_u64;
        while up.min(down) < REKEY_INTERVAL_RECORDS + 100 {
            client.credit(1, NonZeroU32::MIN).unwrap();
            up += pass(&mut client, &mut server, &mut body);
            server.send_event(1, &item).unwrap();
            down += pass(&mut server, &mut client, &mut body);
            while server.poll_event().is_some() {}
            while let Some(event) = client.poll_event() {
                items += u64::from(matches!(event, Event::Item(1, ref received) if *received == item));
            }
        }
        // One record more: the echo of the first HEARTBEAT, and SUBSCRIBED.
        assert_eq!(items, down - 1);
        assert!(client.is_open() && server.is_open());
    }
}

#[test]
fn a_key_is_replaced_exactly_then() {
    let mut raw = Raw::client(Setup::plain());
    let call = crate::support::refusals::message(&crate::support::call("m", ""));
    raw.send(&frame(FrameType::RPC_CALL, 0, 1, &call)).unwrap();
    raw.connection.respond(1, &crate::support::response("")).unwrap();
    // What may be repeated for ever: CREDIT that comes too late.
    let late = frame(FrameType::CREDIT, 0, 1, &[0, 0, 0, 1]);
    for _ in 2..REKEY_INTERVAL_RECORDS {
        raw.send(&late).unwrap();
    }
    // Record 2^20 was still taken under the first key; the next one is taken under the second.
    assert_eq!(raw.transport.send.nonce(), REKEY_INTERVAL_RECORDS);
    raw.transport.send.rekey();
    raw.send(&heartbeat(2, false)).unwrap();
    // The other direction has its own count: the echo opens under its first key.
    assert_eq!(raw.open_all().last().unwrap().frame_type, FrameType::HEARTBEAT);
    let mut forged = raw.seal(&late);
    forged[0] ^= 1;
    assert_eq!(raw.connection.handle_record(NOW, &mut forged), Err(ConnectionError::Decryption));
}
