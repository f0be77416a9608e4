//! Either end of a connection on `snow`, written from the specification alone.

use super::keys::{CLIENT_EPHEMERAL, SERVER_EPHEMERAL, SERVER_STATIC, hex, unhex};
use raystream::noise::{StaticSecret, rust_crypto};
use raystream::wire::Suite;
use serde_json::Value;

/// Longer than any record.
const BUFFER_LEN: usize = 65_535;

/// What a handshake is made of.
pub(crate) struct Material {
    pub(crate) suite: Suite,
    pub(crate) client_static: Option<Vec<u8>>,
    pub(crate) psk: Option<[u8; 32]>,
    /// HANDSHAKE_INIT before the Noise message.
    pub(crate) init_head: Vec<u8>,
}

impl Material {
    /// The handshake of one side.
    pub(crate) fn handshake(&self, is_client: bool) -> snow::HandshakeState {
        let prologue = [&b"raystream-v1\0"[..], &self.init_head].concat();
        let server = StaticSecret::from_bytes(SERVER_STATIC).public_key(rust_crypto());
        let name = self.suite.noise_name().unwrap();
        let mut builder = snow::Builder::new(name.parse().unwrap()).prologue(&prologue).unwrap();
        if let Some(psk) = &self.psk {
            builder = builder.psk(2, psk).unwrap();
        }
        if !is_client {
            let builder = builder.local_private_key(&SERVER_STATIC).unwrap();
            return builder
                .fixed_ephemeral_key_for_testing_only(&SERVER_EPHEMERAL)
                .build_responder()
                .unwrap();
        }
        if let Some(key) = &self.client_static {
            builder = builder.local_private_key(key).unwrap();
        }
        if self.suite.pattern_name() != Some("NX") {
            builder = builder.remote_public_key(&server.0).unwrap();
        }
        builder.fixed_ephemeral_key_for_testing_only(&CLIENT_EPHEMERAL).build_initiator().unwrap()
    }
}

pub(crate) fn write(state: &mut snow::HandshakeState, payload: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; BUFFER_LEN];
    let length = state.write_message(payload, &mut buffer).unwrap();
    buffer.truncate(length);
    buffer
}

pub(crate) fn read(state: &mut snow::HandshakeState, message: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; BUFFER_LEN];
    let length = state.read_message(message, &mut buffer).unwrap();
    buffer.truncate(length);
    buffer
}

pub(crate) fn seal(state: &mut snow::TransportState, plaintext: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; BUFFER_LEN];
    let length = state.write_message(plaintext, &mut buffer).unwrap();
    buffer.truncate(length);
    buffer
}

pub(crate) fn open(state: &mut snow::TransportState, body: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; BUFFER_LEN];
    let length = state.read_message(body, &mut buffer).unwrap();
    buffer.truncate(length);
    buffer
}

/// Plays both ends of one vector of `session.json`; gives the number of its records.
pub(crate) fn replay(vector: &Value) -> usize {
    let bytes = |name: &str| unhex(vector[name].as_str().unwrap());
    let records = vector["records"].as_array().unwrap();
    let body = |n: usize| unhex(records[n]["body"].as_str().unwrap());
    let suite = Suite(u8::try_from(vector["suite"].as_u64().unwrap()).unwrap());
    assert_eq!(bytes("client_ephemeral"), CLIENT_EPHEMERAL);
    assert_eq!(bytes("server_ephemeral"), SERVER_EPHEMERAL);
    assert_eq!(bytes("server_static"), SERVER_STATIC);
    let init = body(0);
    let head_len = 13 + bytes("offered").len();
    assert_eq!(init[13..head_len], bytes("offered"));
    let material = Material {
        suite,
        client_static: vector.get("client_static").map(|key| unhex(key.as_str().unwrap())),
        psk: vector.get("psk").map(|psk| unhex(psk.as_str().unwrap()).try_into().unwrap()),
        init_head: init[..head_len].to_vec(),
    };
    let (mut client, mut server) = (material.handshake(true), material.handshake(false));
    assert_eq!(write(&mut client, &[]), init[head_len..]);
    assert!(read(&mut server, &init[head_len..]).is_empty());
    let response = body(1);
    let payload = read(&mut client, &response[1..]);
    assert_eq!((response[0], payload.len()), (0x02, 64));
    assert_eq!(
        payload[2..16].iter().filter(|suite| **suite != 0).copied().collect::<Vec<_>>(),
        bytes("server_suites")
    );
    assert_eq!(write(&mut server, &payload), response[1..]);
    assert_eq!(hex(client.get_handshake_hash()), vector["handshake_hash"].as_str().unwrap());
    let (mut client, mut server) =
        (client.into_transport_mode().unwrap(), server.into_transport_mode().unwrap());
    for record in &records[2..] {
        let plaintext = unhex(record["plaintext"].as_str().unwrap());
        let body = unhex(record["body"].as_str().unwrap());
        let from_client = record["from"] == "client";
        let (sender, receiver) =
            if from_client { (&mut client, &mut server) } else { (&mut server, &mut client) };
        assert_eq!(seal(sender, &plaintext), body);
        assert_eq!(open(receiver, &body), plaintext);
        let frames = record["frames"].as_array().unwrap();
        let whole: usize = frames.iter().map(|frame| 8 + frame["payload"].as_str().unwrap().len() / 2).sum();
        assert_eq!(whole, plaintext.len(), "the frames fill the record");
    }
    records.len()
}
