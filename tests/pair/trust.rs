//! What somebody on the path can do to a handshake: forge a refusal, stand in for the server. Nothing of it works.

use crate::support::{
    Setup,
    pair::{From, Pair},
    public_key,
    raw::{NOW, Raw, hello},
};
use raystream::{
    conn::{ConnectionError, Framing},
    wire::{ErrorCode, Suite, handshake::encode_refusal},
};

/// A client that prefers ChaChaPoly and would take AESGCM.
fn careful_client() -> Setup {
    let mut setup = Setup::new(Suite::NK_CHACHAPOLY, Framing::Messages);
    setup.client.suites = vec![Suite::NK_CHACHAPOLY, Suite::NK_AESGCM];
    setup
}

#[test]
fn a_forged_refusal_cannot_choose_the_suite() {
    let mut setup = careful_client();
    setup.server.suites = vec![Suite::NK_AESGCM, Suite::NK_CHACHAPOLY];
    let mut pair = Pair::new(setup);
    pair.client.is_blocked = true;
    pair.inject(From::Client, &encode_refusal(ErrorCode::UNSUPPORTED_SUITE));
    assert_eq!(pair.client.end(), Some(ConnectionError::Refused(ErrorCode::UNSUPPORTED_SUITE)));
    // The client believes the hint and tries its second suite; the server's encrypted list shows the lie.
    let mut setup = careful_client();
    setup.server.suites = vec![Suite::NK_AESGCM, Suite::NK_CHACHAPOLY];
    setup.client.suite = Some(Suite::NK_AESGCM);
    let mut pair = Pair::new(setup);
    pair.drive();
    assert_eq!(pair.client.end(), Some(ConnectionError::Downgrade));
    assert_eq!(pair.client.end().unwrap().code(), ErrorCode::DOWNGRADE);
    assert!(pair.client.take().is_empty() && pair.server.take().is_empty());
    assert_eq!(pair.server.end(), Some(ConnectionError::Truncated));
}

#[test]
fn a_true_refusal_leads_to_the_second_suite() {
    let mut setup = careful_client();
    setup.server.suites = vec![Suite::NK_AESGCM];
    let mut pair = Pair::new(setup);
    pair.drive();
    assert_eq!(pair.client.end(), Some(ConnectionError::Refused(ErrorCode::UNSUPPORTED_SUITE)));
    let mut setup = careful_client();
    setup.server.suites = vec![Suite::NK_AESGCM];
    setup.client.suite = Some(Suite::NK_AESGCM);
    Pair::connected(setup);
}

#[test]
fn a_server_that_does_not_list_the_suite_in_use_is_a_downgrade() {
    let setup = Setup::new(Suite::NK_CHACHAPOLY, Framing::Messages);
    let mut said = hello(&setup);
    said.suites = vec![Suite::NK_AESGCM, Suite(0x80)];
    let (client, taken) = Raw::server_saying(setup, &said.encode());
    assert!(matches!(taken, Err(ConnectionError::Downgrade)));
    assert_eq!(client.end(), Some(&ConnectionError::Downgrade));
}

#[test]
fn suites_that_the_client_does_not_know_are_no_downgrade() {
    let setup = Setup::new(Suite::NK_CHACHAPOLY, Framing::Messages);
    let mut said = hello(&setup);
    said.suites = vec![Suite(0x80), Suite::IK_CHACHAPOLY, Suite::NK_CHACHAPOLY];
    let (_, taken) = Raw::server_saying(setup, &said.encode());
    assert!(taken.is_ok());
}

#[test]
fn a_client_that_knows_the_server_takes_no_other_key_by_nx() {
    // Every suite but NX was refused, by whoever. The server is another one.
    let client_that_knows = |key| {
        let mut setup = Setup::new(Suite::NX_CHACHAPOLY, Framing::Messages);
        setup.client.suites = vec![Suite::NK_CHACHAPOLY, Suite::NX_CHACHAPOLY];
        setup.client.suite = Some(Suite::NX_CHACHAPOLY);
        setup.client.server_key = Some(key);
        setup
    };
    let mut pair = Pair::new(client_that_knows(public_key([0x77; 32])));
    pair.drive();
    assert_eq!(pair.client.end(), Some(ConnectionError::Decryption));
    assert!(pair.client.take().is_empty() && pair.server.take().is_empty());
    Pair::connected(client_that_knows(public_key(crate::support::SERVER_STATIC)));
}

#[test]
fn a_refusal_is_reported_by_its_number_and_changes_nothing() {
    for code in [ErrorCode::UNKNOWN_KEY, ErrorCode(0x7777)] {
        let (mut client, _) = Setup::new(Suite::NK_CHACHAPOLY, Framing::Messages).connections();
        let refused = client.handle_record(NOW, &mut encode_refusal(code));
        assert_eq!(refused, Err(ConnectionError::Refused(code)));
        assert!(!refused.unwrap_err().is_orderly());
        assert!(client.is_drained());
    }
}

#[test]
fn a_replayed_init_gives_no_peer() {
    // The bytes of an honest client, once more: the replayer has no keys, so that no record of it decrypts.
    let mut pair = Pair::connected(Setup::new(Suite::IK_CHACHAPOLY, Framing::Messages));
    let records = pair.bodies(From::Client);
    pair.client.connection.close(ErrorCode::NO_ERROR, "");
    let mut setup = Setup::new(Suite::IK_CHACHAPOLY, Framing::Messages);
    setup.ephemerals[1] = [0x45; 32];
    let (_, mut server) = setup.connections();
    server.handle_record(NOW, &mut records[0].clone()).unwrap();
    assert_eq!(server.handle_record(NOW, &mut records[1].clone()), Err(ConnectionError::Decryption));
    assert!(server.poll_event().is_none());
}

#[test]
fn a_record_that_comes_back_or_comes_twice_is_refused() {
    let sealed = |raw: &mut Raw| raw.seal(&crate::support::raw::heartbeat(7, false));
    // Twice.
    let mut raw = Raw::client(Setup::plain());
    let mut record = sealed(&mut raw);
    raw.connection.handle_record(NOW, &mut record.clone()).unwrap();
    assert_eq!(raw.connection.handle_record(NOW, &mut record), Err(ConnectionError::Decryption));
    // Out of order.
    let mut raw = Raw::client(Setup::plain());
    let (_first, mut second) = (sealed(&mut raw), sealed(&mut raw));
    assert_eq!(raw.connection.handle_record(NOW, &mut second), Err(ConnectionError::Decryption));
    // Sent back to where it came from.
    let mut raw = Raw::client(Setup::plain());
    raw.connection.heartbeat(NOW).unwrap();
    raw.poll();
    let mut own = raw.received.pop().unwrap();
    assert_eq!(raw.connection.handle_record(NOW, &mut own), Err(ConnectionError::Decryption));
    // After a failure nothing is taken any more, not even what is right.
    let mut right = sealed(&mut raw);
    assert_eq!(raw.connection.handle_record(NOW, &mut right), Err(ConnectionError::Decryption));
    assert!(raw.connection.poll_event().is_none());
}
