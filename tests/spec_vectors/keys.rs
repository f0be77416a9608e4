//! The fixed keys of the vectors, and configurations made of them.

use std::sync::Arc;

use raystream::conn::{ClientConfig, Entropy, Limits, ServerConfig};
use raystream::noise::{Psk, StaticSecret, rust_crypto};
use raystream::wire::Suite;

pub(crate) const CLIENT_EPHEMERAL: [u8; 32] = counting(0x01);
pub(crate) const SERVER_EPHEMERAL: [u8; 32] = counting(0x21);
pub(crate) const CLIENT_STATIC: [u8; 32] = counting(0x41);
pub(crate) const SERVER_STATIC: [u8; 32] = counting(0x61);
pub(crate) const PSK: [u8; 32] = counting(0x81);
pub(crate) const CONNECTION_ID: [u8; 16] = [0xC0; 16];
/// 2026-01-01 00:00:00 UTC.
pub(crate) const SERVER_TIME_MS: u64 = 1_767_225_600_000;

const fn counting(first: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    let mut n = 0;
    let mut next = first;
    while n < 32 {
        bytes[n] = next;
        next = next.wrapping_add(1);
        n += 1;
    }
    bytes
}

/// The suite, and the other one of its pattern.
pub(crate) fn offered(suite: Suite) -> Vec<Suite> {
    let mut offered = vec![suite];
    offered.extend(Suite::ALL.iter().filter(|s| **s != suite && s.pattern_name() == suite.pattern_name()));
    offered
}

pub(crate) fn is_ik(suite: Suite) -> bool {
    suite.pattern_name().unwrap().starts_with("IK")
}

pub(crate) fn is_nx(suite: Suite) -> bool {
    suite.pattern_name() == Some("NX")
}

pub(crate) fn has_psk(suite: Suite) -> bool {
    suite.pattern_name().unwrap().ends_with("psk2")
}

pub(crate) fn client_config(suite: Suite) -> Arc<ClientConfig> {
    let server_key = StaticSecret::from_bytes(SERVER_STATIC).public_key(rust_crypto());
    Arc::new(ClientConfig {
        provider: rust_crypto(),
        suites: offered(suite),
        suite: None,
        server_key: (!is_nx(suite)).then_some(server_key),
        identity: is_ik(suite).then(|| StaticSecret::from_bytes(CLIENT_STATIC)),
        psk: has_psk(suite).then(|| Psk::from_bytes(PSK)),
        limits: Limits::default(),
    })
}

pub(crate) fn server_config() -> Arc<ServerConfig> {
    Arc::new(ServerConfig {
        provider: rust_crypto(),
        identities: vec![StaticSecret::from_bytes(SERVER_STATIC)],
        suites: Suite::ALL.to_vec(),
        psk: Some(Psk::from_bytes(PSK)),
        limits: Limits::default(),
    })
}

pub(crate) fn client_entropy() -> Entropy {
    Entropy { ephemeral: CLIENT_EPHEMERAL, connection_id: [0; 16], server_time_ms: 0 }
}

pub(crate) fn server_entropy() -> Entropy {
    Entropy { ephemeral: SERVER_EPHEMERAL, connection_id: CONNECTION_ID, server_time_ms: SERVER_TIME_MS }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len() % 2 == 0 && text.is_ascii(), "hex has two digits a byte");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
