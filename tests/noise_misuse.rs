//! What a handshake refuses: every cut and every changed byte of a message, points of small order, the wrong turn, keys
//! that do not belong to the pattern. And that a refusal leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod noise_support;

use noise_support::{hex_array, providers};
use raystream::noise::{
    CipherAlgorithm, CryptoProvider, HandshakeParameters, HandshakeState, MAX_MESSAGE_LEN, NoiseError,
    Pattern, Psk, PublicKey, Role, StaticSecret, Transport, rust_crypto,
};

const CLIENT: [u8; 32] = [1; 32];
const SERVER: [u8; 32] = [2; 32];

fn start(provider: &'static dyn CryptoProvider, pattern: Pattern, role: Role) -> HandshakeState {
    let [client, server] = [CLIENT, SERVER].map(StaticSecret::from_bytes);
    let psks = [Psk::from_bytes([5; 32])];
    let known_client = matches!(pattern, Pattern::IK | Pattern::IKpsk2);
    let (s, e, rs) = match role {
        Role::Initiator => (
            known_client.then_some(&client),
            [3; 32],
            (pattern != Pattern::NX).then(|| server.public_key(provider)),
        ),
        Role::Responder => (Some(&server), [4; 32], None),
    };
    HandshakeState::new(HandshakeParameters {
        provider,
        pattern,
        cipher: CipherAlgorithm::ChaChaPoly,
        role,
        prologue: b"prologue",
        s,
        e: StaticSecret::from_bytes(e),
        rs,
        psks: &psks[..pattern.handshake_pattern().psk_count()],
    })
    .unwrap()
}

/// Both messages of an untroubled handshake, with payloads as they are on the wire.
fn messages(pattern: Pattern) -> [Vec<u8>; 2] {
    let mut client = start(rust_crypto(), pattern, Role::Initiator);
    let mut server = start(rust_crypto(), pattern, Role::Responder);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    client.write_message(b"", &mut first).unwrap();
    server.read_message(&first, &mut Vec::new()).unwrap();
    server.write_message(&[7; 64], &mut second).unwrap();
    [first, second]
}

/// A client that has sent its first message.
fn waiting_client(provider: &'static dyn CryptoProvider, pattern: Pattern) -> HandshakeState {
    let mut client = start(provider, pattern, Role::Initiator);
    client.write_message(b"", &mut Vec::new()).unwrap();
    client
}

/// After an error nothing works any more, and nothing was appended.
fn assert_dead(mut state: HandshakeState, output: &[u8]) {
    assert_eq!(output, b"before");
    assert!(!state.is_finished());
    assert_eq!(state.read_message(&[0; 200], &mut Vec::new()), Err(NoiseError::Failed));
    assert_eq!(state.write_message(b"", &mut Vec::new()), Err(NoiseError::Failed));
    assert!(matches!(state.into_transport(), Err(NoiseError::Failed)));
}

fn assert_refused(mut state: HandshakeState, message: &[u8]) {
    let mut payload = b"before".to_vec();
    let error = state.read_message(message, &mut payload).unwrap_err();
    assert!(matches!(error, NoiseError::Decrypt | NoiseError::MessageTooShort), "{error:?}");
    assert_dead(state, &payload);
}

#[test]
fn every_cut_and_every_changed_byte_is_refused() {
    for provider in providers() {
        for pattern in Pattern::ALL {
            let [first, second] = messages(pattern);
            // The first message of NX is a bare key: nothing in it can be authenticated yet, only cut.
            let bare = pattern == Pattern::NX;
            for cut in 0..first.len() {
                assert_refused(start(provider, pattern, Role::Responder), &first[..cut]);
            }
            for cut in 0..second.len() {
                assert_refused(waiting_client(provider, pattern), &second[..cut]);
            }
            for i in (0..first.len()).filter(|_| !bare) {
                let mut changed = first.clone();
                // Bit 255 of an ephemeral key, which X25519 itself ignores, is in the hash.
                changed[i] ^= 0x80;
                assert_refused(start(provider, pattern, Role::Responder), &changed);
            }
            for i in 0..second.len() {
                let mut changed = second.clone();
                changed[i] ^= 0x80;
                assert_refused(waiting_client(provider, pattern), &changed);
            }
            // A changed key in the first message of NX shows when the client reads the answer to it.
            if bare {
                let mut changed = first.clone();
                changed[0] ^= 1;
                let mut server = start(provider, pattern, Role::Responder);
                let mut answer = Vec::new();
                server.read_message(&changed, &mut Vec::new()).unwrap();
                server.write_message(b"", &mut answer).unwrap();
                assert_refused(waiting_client(provider, pattern), &answer);
            }
        }
    }
}

/// The u-coordinates of small order (RFC 7748 section 6.1, the list of which is in the security notes of Curve25519).
const SMALL_ORDER: [&str; 5] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

#[test]
fn points_of_small_order_end_the_handshake_on_both_sides() {
    for provider in providers() {
        for pattern in Pattern::ALL {
            let [first, second] = messages(pattern);
            for point in SMALL_ORDER {
                let point: [u8; 32] = hex_array(point);
                let mut server = start(provider, pattern, Role::Responder);
                let forged = [&point, &first[32..]].concat();
                let mut out = b"before".to_vec();
                if pattern == Pattern::NX {
                    // The first computation with it is in our own message.
                    server.read_message(&forged, &mut Vec::new()).unwrap();
                    assert_eq!(server.write_message(b"", &mut out), Err(NoiseError::Dh));
                } else {
                    // Told as any other message that is not authentic.
                    assert_eq!(server.read_message(&forged, &mut out), Err(NoiseError::Decrypt));
                }
                assert_dead(server, &out);
                assert_refused(waiting_client(provider, pattern), &[&point, &second[32..]].concat());
            }
        }
        // A server key of small order, pinned by mistake.
        let state = HandshakeState::new(HandshakeParameters {
            provider,
            pattern: Pattern::NK,
            cipher: CipherAlgorithm::AesGcm,
            role: Role::Initiator,
            prologue: b"",
            s: None,
            e: StaticSecret::from_bytes([3; 32]),
            rs: Some(PublicKey([0; 32])),
            psks: &[],
        });
        let (mut state, mut out) = (state.unwrap(), b"before".to_vec());
        assert_eq!(state.write_message(b"", &mut out), Err(NoiseError::Dh));
        assert_dead(state, &out);
    }
}

#[test]
fn the_sides_take_turns_and_then_stop() {
    for pattern in Pattern::ALL {
        let mut client = start(rust_crypto(), pattern, Role::Initiator);
        let mut server = start(rust_crypto(), pattern, Role::Responder);
        let (mut first, mut second, mut payload) = (Vec::new(), Vec::new(), Vec::new());
        // Asking at the wrong time is the caller's mistake, not the peer's: it ends nothing.
        assert_eq!(server.write_message(b"", &mut first), Err(NoiseError::OutOfTurn));
        assert_eq!(client.read_message(b"", &mut payload), Err(NoiseError::OutOfTurn));
        client.write_message(b"", &mut first).unwrap();
        assert_eq!(client.write_message(b"", &mut first), Err(NoiseError::OutOfTurn));
        server.read_message(&first, &mut payload).unwrap();
        assert!(!server.is_finished() && !client.is_finished());
        server.write_message(b"hello", &mut second).unwrap();
        client.read_message(&second, &mut payload).unwrap();
        assert_eq!(payload, b"hello");
        assert!(server.is_finished() && client.is_finished());
        assert_eq!(client.write_message(b"", &mut first), Err(NoiseError::Finished));
        assert_eq!(server.read_message(&first, &mut payload), Err(NoiseError::Finished));
        let unfinished = start(rust_crypto(), pattern, Role::Initiator).into_transport();
        assert!(matches!(unfinished, Err(NoiseError::NotFinished)));

        let (client, server) = (client.into_transport().unwrap(), server.into_transport().unwrap());
        assert_eq!(client.handshake_hash, server.handshake_hash);
        assert_directions_have_their_own_keys(client, server);
    }
}

/// A record that is sent back to its sender does not decrypt.
fn assert_directions_have_their_own_keys(mut client: Transport, mut server: Transport) {
    let mut record = *b"to the server";
    let tag = client.send.encrypt_in_place(b"", &mut record).unwrap();
    assert!(client.receive.decrypt_in_place(b"", &mut record.clone(), &tag).is_err());
    server.receive.decrypt_in_place(b"", &mut record, &tag).unwrap();
    assert_eq!(&record, b"to the server");
}

#[test]
fn keys_must_be_those_of_the_pattern() {
    let key = StaticSecret::from_bytes(CLIENT);
    let peer = StaticSecret::from_bytes(SERVER).public_key(rust_crypto());
    let psk = Psk::from_bytes([5; 32]);
    let new = |pattern, role, s: bool, rs: bool, psks: usize| {
        HandshakeState::new(HandshakeParameters {
            provider: rust_crypto(),
            pattern,
            cipher: CipherAlgorithm::ChaChaPoly,
            role,
            prologue: b"",
            s: s.then_some(&key),
            e: StaticSecret::from_bytes([3; 32]),
            rs: rs.then_some(peer),
            psks: &vec![psk.clone(); psks],
        })
        .map(|_| ())
    };
    for pattern in Pattern::ALL {
        let identified = matches!(pattern, Pattern::IK | Pattern::IKpsk2);
        let pinned = pattern != Pattern::NX;
        let psks = usize::from(matches!(pattern, Pattern::IKpsk2 | Pattern::NKpsk2));
        for (role, s, rs) in [(Role::Initiator, identified, pinned), (Role::Responder, true, false)] {
            assert_eq!(new(pattern, role, s, rs, psks), Ok(()), "{pattern:?} {role:?}");
            let local = if s { NoiseError::MissingLocalStatic } else { NoiseError::UnusedLocalStatic };
            assert_eq!(new(pattern, role, !s, rs, psks), Err(local), "{pattern:?} {role:?}");
            let remote = if rs { NoiseError::MissingRemoteStatic } else { NoiseError::UnusedRemoteStatic };
            assert_eq!(new(pattern, role, s, !rs, psks), Err(remote), "{pattern:?} {role:?}");
            for given in [1 - psks, 2] {
                let count = NoiseError::PskCount { expected: psks, given };
                assert_eq!(new(pattern, role, s, rs, given), Err(count), "{pattern:?} {role:?}");
            }
        }
    }
}

#[test]
fn a_message_ends_at_65535_bytes() {
    // An ephemeral key and a tag leave this much of a first message of NK.
    const LONGEST_PAYLOAD: usize = MAX_MESSAGE_LEN - 48;
    let mut out = b"before".to_vec();
    let mut client = start(rust_crypto(), Pattern::NK, Role::Initiator);
    let too_long = vec![0; LONGEST_PAYLOAD + 1];
    assert_eq!(client.write_message(&too_long, &mut out), Err(NoiseError::MessageTooLong));
    assert_dead(client, &out);

    let mut client = start(rust_crypto(), Pattern::NK, Role::Initiator);
    client.write_message(&too_long[1..], &mut out).unwrap();
    let message = out.split_off(6);
    assert_eq!(message.len(), MAX_MESSAGE_LEN);
    let mut payload = Vec::new();
    start(rust_crypto(), Pattern::NK, Role::Responder).read_message(&message, &mut payload).unwrap();
    assert_eq!(payload, &too_long[1..]);

    let longer = vec![0; MAX_MESSAGE_LEN + 1];
    let mut server = start(rust_crypto(), Pattern::NK, Role::Responder);
    assert_eq!(server.read_message(&longer, &mut out), Err(NoiseError::MessageTooLong));
    assert_dead(server, &out);
}

#[test]
fn nothing_prints_a_secret() {
    let state = start(rust_crypto(), Pattern::IKpsk2, Role::Initiator);
    let printed = format!("{state:?} {state:#?}");
    for secret in ["1, 1, 1", "3, 3, 3", "5, 5, 5", "0101", "0303", "0505"] {
        assert!(!printed.contains(secret), "{printed}");
    }
    assert!(printed.contains("IKpsk2"));
}
