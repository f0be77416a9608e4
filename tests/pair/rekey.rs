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

/// A hand-made client, after `records` records to the server.
fn client_after(records: u64) -> Raw {
    let mut raw = Raw::client(Setup::plain());
    // An echo that answers nothing would be a fault: CREDIT on a closed stream is what may be repeated for ever.
    let call =
        frame(FrameType::RPC_CALL, 0, 1, &crate::support::refusals::message(&crate::support::call("m", "")));
    raw.send(&call).unwrap();
    raw.connection.respond(1, &crate::support::response("")).unwrap();
    let late = frame(FrameType::CREDIT, 0, 1, &[0, 0, 0, 1]);
    for _ in 2..records {
        raw.send(&late).unwrap();
    }
    raw
}

#[test]
fn a_key_is_replaced_exactly_then() {
    // Not one record earlier,
    let mut raw = client_after(REKEY_INTERVAL_RECORDS - 1);
    raw.transport.send.rekey();
    assert_eq!(raw.send(&heartbeat(2, false)), Err(ConnectionError::Decryption));
    // not one later,
    let mut raw = client_after(REKEY_INTERVAL_RECORDS);
    assert_eq!(raw.send(&heartbeat(2, false)), Err(ConnectionError::Decryption));
    // and the other direction has its own count.
    let mut raw = client_after(REKEY_INTERVAL_RECORDS);
    raw.transport.send.rekey();
    raw.send(&heartbeat(2, false)).unwrap();
    assert_eq!(raw.open_all().last().unwrap().frame_type, FrameType::HEARTBEAT);
}
