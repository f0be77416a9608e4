//! The `snow` package, an independent implementation, at the other end of our handshakes: every pattern and cipher of
//! ours, in both roles, with every provider, then transport messages in both directions across rekeys.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod noise_support;

use noise_support::providers;
use raystream::noise::{
    CipherAlgorithm, CryptoProvider, HandshakeParameters, HandshakeState, Pattern, Psk, PublicKey, Role,
    StaticSecret, TAGLEN, Transport,
};

const CLIENT_STATIC: [u8; 32] = [0x11; 32];
const SERVER_STATIC: [u8; 32] = [0x22; 32];
const CLIENT_EPHEMERAL: [u8; 32] = [0x33; 32];
const SERVER_EPHEMERAL: [u8; 32] = [0x44; 32];
const PSK: [u8; 32] = [0x55; 32];
const PROLOGUE: &[u8] = b"raystream-v1\0and the clear header";
/// Longer than any of our messages.
const BUFFER_LEN: usize = 65_535;

/// What a handshake is made of, the same for both implementations.
#[derive(Clone, Copy)]
struct Case {
    provider: &'static dyn CryptoProvider,
    pattern: Pattern,
    cipher: CipherAlgorithm,
}

impl Case {
    fn client_is_known(self) -> bool {
        matches!(self.pattern, Pattern::IK | Pattern::IKpsk2)
    }

    fn server_is_pinned(self) -> bool {
        self.pattern != Pattern::NX
    }

    fn has_psk(self) -> bool {
        matches!(self.pattern, Pattern::IKpsk2 | Pattern::NKpsk2)
    }

    fn ours(self, role: Role) -> HandshakeState {
        let (s, e) = match role {
            Role::Initiator => (self.client_is_known().then_some(CLIENT_STATIC), CLIENT_EPHEMERAL),
            Role::Responder => (Some(SERVER_STATIC), SERVER_EPHEMERAL),
        };
        let server = StaticSecret::from_bytes(SERVER_STATIC).public_key(self.provider);
        let psks = [Psk::from_bytes(PSK)];
        HandshakeState::new(HandshakeParameters {
            provider: self.provider,
            pattern: self.pattern,
            cipher: self.cipher,
            role,
            prologue: PROLOGUE,
            s: s.map(StaticSecret::from_bytes).as_ref(),
            e: StaticSecret::from_bytes(e),
            rs: (role == Role::Initiator && self.server_is_pinned()).then_some(server),
            psks: &psks[..usize::from(self.has_psk())],
        })
        .unwrap()
    }

    fn theirs(self, role: Role) -> snow::HandshakeState {
        let name = self.pattern.handshake_pattern().protocol_name(self.cipher);
        let server = StaticSecret::from_bytes(SERVER_STATIC).public_key(self.provider);
        let mut builder = snow::Builder::new(name.parse().unwrap()).prologue(PROLOGUE).unwrap();
        if self.has_psk() {
            builder = builder.psk(2, &PSK).unwrap();
        }
        if role == Role::Responder {
            let builder = builder.local_private_key(&SERVER_STATIC).unwrap();
            return builder
                .fixed_ephemeral_key_for_testing_only(&SERVER_EPHEMERAL)
                .build_responder()
                .unwrap();
        }
        if self.client_is_known() {
            builder = builder.local_private_key(&CLIENT_STATIC).unwrap();
        }
        if self.server_is_pinned() {
            builder = builder.remote_public_key(&server.0).unwrap();
        }
        builder.fixed_ephemeral_key_for_testing_only(&CLIENT_EPHEMERAL).build_initiator().unwrap()
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for provider in providers() {
        for pattern in Pattern::ALL {
            for cipher in [CipherAlgorithm::ChaChaPoly, CipherAlgorithm::AesGcm] {
                cases.push(Case { provider, pattern, cipher });
            }
        }
    }
    cases
}

fn snow_write(state: &mut snow::HandshakeState, payload: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; BUFFER_LEN];
    let length = state.write_message(payload, &mut buffer).unwrap();
    buffer.truncate(length);
    buffer
}

fn snow_read(state: &mut snow::HandshakeState, message: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; BUFFER_LEN];
    let length = state.read_message(message, &mut buffer).unwrap();
    buffer.truncate(length);
    buffer
}

/// Runs a handshake with us in `role` and returns both messages and both transports.
fn handshake(
    case: Case,
    role: Role,
    payloads: [&[u8]; 2],
) -> ([Vec<u8>; 2], Transport, snow::TransportState) {
    let (mut ours, mut theirs) = (
        case.ours(role),
        case.theirs(if role == Role::Initiator { Role::Responder } else { Role::Initiator }),
    );
    let mut messages = [Vec::new(), Vec::new()];
    for (i, (message, payload)) in messages.iter_mut().zip(payloads).enumerate() {
        if (i == 0) == (role == Role::Initiator) {
            ours.write_message(payload, message).unwrap();
            assert_eq!(snow_read(&mut theirs, message), payload);
        } else {
            *message = snow_write(&mut theirs, payload);
            let mut read = Vec::new();
            ours.read_message(message, &mut read).unwrap();
            assert_eq!(read, payload);
        }
    }
    assert!(ours.is_finished() && theirs.is_handshake_finished());
    let hash = theirs.get_handshake_hash().to_vec();
    let (ours, theirs) = (ours.into_transport().unwrap(), theirs.into_transport_mode().unwrap());
    assert_eq!(ours.handshake_hash.to_vec(), hash);
    (messages, ours, theirs)
}

/// One record from us to snow.
fn send(ours: &mut Transport, theirs: &mut snow::TransportState, text: &[u8]) {
    let mut record = text.to_vec();
    let tag = ours.send.encrypt_in_place(&[], &mut record).unwrap();
    record.extend_from_slice(&tag);
    let mut read = vec![0; BUFFER_LEN];
    let length = theirs.read_message(&record, &mut read).unwrap();
    assert_eq!(&read[..length], text);
}

/// One record from snow to us.
fn receive(ours: &mut Transport, theirs: &mut snow::TransportState, text: &[u8]) {
    let mut record = vec![0; BUFFER_LEN];
    let length = theirs.write_message(text, &mut record).unwrap();
    record.truncate(length);
    let (body, tag) = record.split_last_chunk_mut::<TAGLEN>().unwrap();
    ours.receive.decrypt_in_place(&[], body, tag).unwrap();
    assert_eq!(body, text);
}

#[test]
fn snow_completes_every_handshake_of_ours_and_reads_what_follows() {
    let longest = vec![0xa5; BUFFER_LEN - TAGLEN];
    for case in cases() {
        for role in [Role::Initiator, Role::Responder] {
            let (_, mut ours, mut theirs) = handshake(case, role, [b"", b"the response"]);
            let expected = match role {
                Role::Initiator => Some(SERVER_STATIC),
                Role::Responder => case.client_is_known().then_some(CLIENT_STATIC),
            };
            let expected = expected.map(|s| StaticSecret::from_bytes(s).public_key(case.provider));
            assert_eq!(ours.remote_static, expected);

            for round in 0..3 {
                for text in [b"".as_slice(), b"one", b"and one more", &longest] {
                    send(&mut ours, &mut theirs, text);
                    receive(&mut ours, &mut theirs, text);
                    receive(&mut ours, &mut theirs, text);
                }
                // Once both directions, once ours alone, once theirs alone.
                if round != 2 {
                    ours.send.rekey();
                    theirs.rekey_incoming();
                }
                if round != 1 {
                    ours.receive.rekey();
                    theirs.rekey_outgoing();
                }
            }
            send(&mut ours, &mut theirs, b"after all rekeys");
            receive(&mut ours, &mut theirs, b"after all rekeys");
            assert_eq!((ours.send.nonce(), ours.receive.nonce()), (13, 25));
            assert_eq!((theirs.receiving_nonce(), theirs.sending_nonce()), (13, 25));
        }
    }
}

#[test]
fn with_fixed_ephemeral_keys_our_messages_are_the_bytes_of_snow() {
    // Lengths of the Noise message with an empty payload and with one of 64 bytes.
    let lengths = |pattern| match pattern {
        Pattern::NK | Pattern::NKpsk2 => (48, 112),
        Pattern::IK | Pattern::IKpsk2 => (96, 112),
        Pattern::NX => (32, 160),
    };
    for case in cases() {
        let payloads: [&[u8]; 2] = [b"", &[0x77; 64]];
        let (we_initiate, ..) = handshake(case, Role::Initiator, payloads);
        let (they_initiate, ..) = handshake(case, Role::Responder, payloads);
        assert_eq!(we_initiate, they_initiate);
        assert_eq!((we_initiate[0].len(), we_initiate[1].len()), lengths(case.pattern));
    }
}

#[test]
fn snow_refuses_another_prologue_or_another_shared_key() {
    for case in cases().into_iter().filter(|case| case.has_psk()) {
        let name = case.pattern.handshake_pattern().protocol_name(case.cipher);
        for (prologue, psk) in [(PROLOGUE, [0x56; 32]), (b"raystream-v2".as_slice(), PSK)] {
            let mut ours = case.ours(Role::Initiator);
            let builder = snow::Builder::new(name.parse().unwrap()).prologue(prologue).unwrap();
            let builder = builder.psk(2, &psk).unwrap().local_private_key(&SERVER_STATIC).unwrap();
            let mut theirs = builder.build_responder().unwrap();
            let mut first = Vec::new();
            ours.write_message(b"", &mut first).unwrap();
            let mut buffer = vec![0; BUFFER_LEN];
            if theirs.read_message(&first, &mut buffer).is_err() {
                assert_ne!(prologue, PROLOGUE, "the shared key counts in the second message only");
                continue;
            }
            assert_eq!(prologue, PROLOGUE, "the first message covers the prologue");
            let second = snow_write(&mut theirs, b"");
            assert!(ours.read_message(&second, &mut Vec::new()).is_err());
        }
    }
}

#[test]
fn public_keys_agree() {
    for provider in providers() {
        for secret in [CLIENT_STATIC, SERVER_STATIC] {
            let ours = StaticSecret::from_bytes(secret).public_key(provider);
            let theirs = x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(secret));
            assert_eq!(ours, PublicKey(theirs.to_bytes()));
        }
    }
}
