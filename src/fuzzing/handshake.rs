//! Both handshake messages, with real cryptography and fixed keys.

use crate::{
    conn::{ClientConfig, Connection, Entropy, Event, Framing, Limits, ServerConfig},
    noise::{CryptoProvider, Psk, StaticSecret, rust_crypto},
    wire::{
        Suite,
        handshake::{TYPE_RESPONSE, decode_refusal},
    },
};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

/// When everything here happens.
pub(super) const NOW: Duration = Duration::ZERO;

const SERVER_STATIC: [u8; 32] = [0x22; 32];

/// A server that takes every suite.
pub(super) fn server(provider: &'static dyn CryptoProvider, framing: Framing) -> Connection {
    let config = ServerConfig {
        provider,
        identities: vec![StaticSecret::from_bytes(SERVER_STATIC)],
        suites: Suite::ALL.to_vec(),
        psk: Some(Psk::from_bytes([0x55; 32])),
        limits: Limits::default(),
    };
    let entropy =
        Entropy { ephemeral: [0x44; 32], connection_id: [0x66; 16], server_time_ms: 1_767_225_600_000 };
    Connection::server(Arc::new(config), entropy, framing, NOW).expect("the configuration is complete")
}

/// A client that uses `suite`.
pub(super) fn client(provider: &'static dyn CryptoProvider, suite: Suite, framing: Framing) -> Connection {
    let server_key = StaticSecret::from_bytes(SERVER_STATIC).public_key(provider);
    let config = ClientConfig {
        provider,
        suites: vec![suite],
        suite: None,
        server_key: Some(server_key),
        identity: Some(StaticSecret::from_bytes([0x11; 32])),
        psk: Some(Psk::from_bytes([0x55; 32])),
        limits: Limits::default(),
    };
    let entropy = Entropy { ephemeral: [0x33; 32], connection_id: [0; 16], server_time_ms: 0 };
    Connection::client(Arc::new(config), entropy, framing, NOW).expect("the configuration is complete")
}

/// The next record of `connection`.
pub(super) fn transmit(connection: &mut Connection) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    connection.poll_transmit(NOW, &mut out).then_some(out)
}

/// HANDSHAKE_INIT and HANDSHAKE_RESPONSE of a true handshake.
pub(super) fn genuine(suite: Suite) -> (Vec<u8>, Vec<u8>) {
    let mut client = client(rust_crypto(), suite, Framing::Messages);
    let mut server = server(rust_crypto(), Framing::Messages);
    let init = transmit(&mut client).expect("a client begins");
    server.handle_record(NOW, &mut init.clone()).expect("a true client");
    let response = transmit(&mut server).expect("a server answers");
    (init, response)
}

/// A server on a first record: it answers or refuses in clear, and tells nobody anything.
pub fn handshake_responder(data: &[u8]) {
    let mut server = server(rust_crypto(), Framing::Messages);
    let result = server.handle_record(NOW, &mut data.to_vec());
    let answer = transmit(&mut server).expect("every first record is answered");
    match result {
        Ok(()) => {
            assert_eq!(answer.first(), Some(&TYPE_RESPONSE));
            assert!(matches!(answer.len(), 113 | 161));
            assert_eq!(server.end(), None);
            // Without the keys that came of it, nothing that the peer sends is taken.
            assert!(server.handle_record(NOW, &mut answer.clone()).is_err());
        }
        Err(error) => {
            assert_eq!(decode_refusal(&answer), Some(error.code()));
            assert!(server.is_drained());
        }
    }
    assert_eq!(server.poll_event(), None);
}

/// A client on a first record, after a byte that picks the suite: it takes what the true server sent, and nothing else.
pub fn handshake_initiator(data: &[u8]) {
    static GENUINE: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let genuine = GENUINE.get_or_init(|| Suite::ALL.iter().map(|suite| genuine(*suite).1).collect());
    let Some((pick, body)) = data.split_first() else { return };
    let pick = usize::from(*pick) % Suite::ALL.len();
    let mut client = client(rust_crypto(), Suite::ALL[pick], Framing::Messages);
    assert!(transmit(&mut client).is_some(), "a client begins");
    let result = client.handle_record(NOW, &mut body.to_vec());
    assert_eq!(result.is_ok(), body == genuine[pick], "a forged HANDSHAKE_RESPONSE was taken");
    if result.is_ok() {
        assert!(matches!(client.poll_event(), Some(Event::Connected(..))));
        assert!(transmit(&mut client).is_some(), "a client sends a record at once");
    } else {
        assert!(client.is_drained());
        assert_eq!((transmit(&mut client), client.poll_event()), (None, None));
    }
}
