//! The published vectors of cacophony and snow through our engine, in both roles and with every provider.
//!
//! `cargo test --release --test noise_vectors -- --nocapture` prints how many.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test panics to fail and prints what it counted"
)]

mod noise_support;

use std::collections::BTreeSet;

use noise_support::{hex, hex_array, providers};
use raystream::noise::{
    CipherAlgorithm, CipherState, CryptoProvider, HandshakeParameters, HandshakePattern, HandshakeState, Psk,
    PublicKey, Role, StaticSecret,
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    protocol_name: String,
    init_prologue: String,
    #[serde(default)]
    init_psks: Vec<String>,
    init_static: Option<String>,
    init_ephemeral: String,
    init_remote_static: Option<String>,
    resp_prologue: String,
    #[serde(default)]
    resp_psks: Vec<String>,
    resp_static: Option<String>,
    resp_ephemeral: Option<String>,
    resp_remote_static: Option<String>,
    handshake_hash: Option<String>,
    messages: Vec<Message>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    payload: String,
    ciphertext: String,
}

/// One end of a vector: its strings as keys.
struct Side<'a> {
    role: Role,
    prologue: &'a str,
    psks: &'a [String],
    s: Option<&'a String>,
    e: Option<&'a String>,
    rs: Option<&'a String>,
}

impl Side<'_> {
    fn start(
        &self,
        provider: &'static dyn CryptoProvider,
        pattern: &'static HandshakePattern,
        cipher: CipherAlgorithm,
    ) -> HandshakeState {
        let s = self.s.map(|s| StaticSecret::from_bytes(hex_array(s)));
        let psks: Vec<Psk> = self.psks.iter().map(|psk| Psk::from_bytes(hex_array(psk))).collect();
        HandshakeState::new(HandshakeParameters {
            provider,
            pattern,
            cipher,
            role: self.role,
            prologue: &hex(self.prologue),
            s: s.as_ref(),
            // The responder of a one-way pattern has no ephemeral key: whatever stands here is not used.
            e: StaticSecret::from_bytes(self.e.map_or([1; 32], |e| hex_array(e))),
            rs: self.rs.map(|rs| PublicKey(hex_array(rs))),
            psks: &psks,
        })
        .unwrap_or_else(|error| panic!("{:?}: {error}", self.role))
    }
}

fn parse_name(protocol_name: &str) -> (&'static HandshakePattern, CipherAlgorithm) {
    let parts: Vec<&str> = protocol_name.split('_').collect();
    let &["Noise", pattern, "25519", cipher, "SHA256"] = parts.as_slice() else {
        panic!("{protocol_name} is none of ours")
    };
    let cipher = [CipherAlgorithm::ChaChaPoly, CipherAlgorithm::AesGcm]
        .into_iter()
        .find(|algorithm| algorithm.name() == cipher)
        .unwrap();
    let pattern = HandshakePattern::by_name(pattern).unwrap_or_else(|| panic!("no pattern {pattern}"));
    assert_eq!(pattern.protocol_name(cipher), protocol_name);
    (pattern, cipher)
}

/// Runs one vector: each message is written by one side and read by the other, and all bytes are compared.
fn run(vector: &Vector, initiator: &'static dyn CryptoProvider, responder: &'static dyn CryptoProvider) {
    let (pattern, cipher) = parse_name(&vector.protocol_name);
    let mut initiator = Side {
        role: Role::Initiator,
        prologue: &vector.init_prologue,
        psks: &vector.init_psks,
        s: vector.init_static.as_ref(),
        e: Some(&vector.init_ephemeral),
        rs: vector.init_remote_static.as_ref(),
    }
    .start(initiator, pattern, cipher);
    let mut responder = Side {
        role: Role::Responder,
        prologue: &vector.resp_prologue,
        psks: &vector.resp_psks,
        s: vector.resp_static.as_ref(),
        e: vector.resp_ephemeral.as_ref(),
        rs: vector.resp_remote_static.as_ref(),
    }
    .start(responder, pattern, cipher);

    let handshake_len = pattern.messages().len();
    let (handshake, transport) = vector.messages.split_at(handshake_len);
    for (i, message) in handshake.iter().enumerate() {
        let (writer, reader) =
            if i % 2 == 0 { (&mut initiator, &mut responder) } else { (&mut responder, &mut initiator) };
        let (mut written, mut read) = (Vec::new(), Vec::new());
        writer.write_message(&hex(&message.payload), &mut written).unwrap();
        assert_eq!(written, hex(&message.ciphertext), "message {i}");
        reader.read_message(&hex(&message.ciphertext), &mut read).unwrap();
        assert_eq!(read, hex(&message.payload), "payload {i}");
    }

    assert!(initiator.is_finished() && responder.is_finished());
    let (mut initiator, mut responder) =
        (initiator.into_transport().unwrap(), responder.into_transport().unwrap());
    assert_eq!(initiator.handshake_hash, responder.handshake_hash);
    if let Some(hash) = &vector.handshake_hash {
        assert_eq!(initiator.handshake_hash.to_vec(), hex(hash), "handshake hash");
    }
    assert!(!transport.is_empty(), "the vector has no transport message");
    for (i, message) in (handshake_len..).zip(transport) {
        let (sender, receiver) = if pattern.is_one_way() || i % 2 == 0 {
            (&mut initiator.send, &mut responder.receive)
        } else {
            (&mut responder.send, &mut initiator.receive)
        };
        transport_message(sender, receiver, message, i);
    }
}

fn transport_message(sender: &mut CipherState, receiver: &mut CipherState, message: &Message, i: usize) {
    let mut record = hex(&message.payload);
    let tag = sender.encrypt_in_place(&[], &mut record).unwrap();
    record.extend_from_slice(&tag);
    assert_eq!(record, hex(&message.ciphertext), "message {i}");
    let text = record.len() - tag.len();
    receiver.decrypt_in_place(&[], &mut record[..text], &tag).unwrap();
    assert_eq!(record[..text], hex(&message.payload), "payload {i}");
    assert_eq!(sender.nonce(), receiver.nonce());
}

/// Runs a file and returns the names of its patterns and how many of its vectors state the handshake hash.
fn run_file(json: &str, expected: usize) -> (BTreeSet<String>, usize) {
    let file: File = serde_json::from_str(json).unwrap();
    assert_eq!(file.vectors.len(), expected);
    let mut patterns = BTreeSet::new();
    for vector in &file.vectors {
        println!("{}", vector.protocol_name);
        for initiator in providers() {
            for responder in providers() {
                run(vector, initiator, responder);
            }
        }
        patterns.insert(parse_name(&vector.protocol_name).0.name().to_owned());
    }
    (patterns, file.vectors.iter().filter(|vector| vector.handshake_hash.is_some()).count())
}

#[test]
fn all_published_vectors() {
    const CACOPHONY: usize = 118;
    const SNOW: usize = 102;
    let (cacophony, with_hash) = run_file(include_str!("vectors/noise/cacophony.json"), CACOPHONY);
    assert_eq!((cacophony.len(), with_hash), (59, CACOPHONY));
    let (snow, with_hash) = run_file(include_str!("vectors/noise/snow.json"), SNOW);
    assert_eq!((snow.len(), with_hash), (51, 0));
    assert_eq!(cacophony.union(&snow).count(), 72);
    println!("vectors: {}", CACOPHONY + SNOW);
}
