//! What a static key and the static keys of peers that come back give together: the `ss` of the patterns.
//!
//! It is the same for each handshake of the same two keys, so it need not be computed each time. It is no more secret than the
//! static key beside it: whoever can read one in memory can read the other, and compute this one from it. And nothing rests on
//! it alone: the peer's ephemeral and our own go into the keys as before.

use std::collections::HashMap;
use std::fmt;
use std::sync::{PoisonError, RwLock};

use zeroize::Zeroizing;

use super::DHLEN;
use super::keys::{PublicKey, SecretBytes};

/// Peers that one key remembers: as many as a daemon has connections by default, so that all of them may come back at once.
/// One takes about 130 bytes, all of them 2 MiB. When it is full nobody else is remembered, because to make room would cost every
/// connection a computation where more peers come in turn than fit.
pub(super) const KNOWN_PEERS_MAX: usize = 16_384;

/// The results by the peer's key; each cleared when it is dropped.
#[derive(Default)]
pub(super) struct KnownPeers(RwLock<HashMap<PublicKey, SecretBytes>>);

impl KnownPeers {
    /// The result for this peer, if it is kept.
    pub(super) fn get(&self, peer: &PublicKey) -> Option<Zeroizing<[u8; DHLEN]>> {
        let peers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        peers.get(peer).map(|shared| Zeroizing::new(*shared.expose()))
    }

    /// Whether there is a reason to compute the result for this peer in order to keep it.
    pub(super) fn would_keep(&self, peer: &PublicKey) -> bool {
        let peers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        peers.len() < KNOWN_PEERS_MAX && !peers.contains_key(peer)
    }

    /// Keeps a result, if there is room.
    pub(super) fn keep(&self, peer: PublicKey, shared: &[u8; DHLEN]) {
        let mut peers = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if peers.len() < KNOWN_PEERS_MAX {
            peers.insert(peer, SecretBytes::new(*shared));
        }
    }

    /// Forgets them all.
    pub(super) fn clear(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = HashMap::new();
    }

    /// How many are kept.
    pub(super) fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl fmt::Debug for KnownPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KnownPeers([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::noise::provider::{AeadKey, CryptoProvider, DhError};
    use crate::noise::{
        CipherAlgorithm, HandshakeParameters, HandshakePattern, HandshakeState, KEYLEN, NoiseError, Psk,
        Role, StaticSecret, rust_crypto,
    };

    /// Counts what it computes.
    #[derive(Debug, Default)]
    struct Counting {
        dhs: AtomicUsize,
    }

    impl Counting {
        fn new() -> &'static Self {
            Box::leak(Box::default())
        }

        /// How many since the last time.
        fn taken(&self) -> usize {
            self.dhs.swap(0, Ordering::Relaxed)
        }
    }

    impl CryptoProvider for Counting {
        fn name(&self) -> &'static str {
            "counting"
        }

        fn aead(&self, algorithm: CipherAlgorithm, key: &[u8; KEYLEN]) -> Box<dyn AeadKey> {
            rust_crypto().aead(algorithm, key)
        }

        fn dh(&self, secret: &[u8; DHLEN], public: &[u8; DHLEN]) -> Result<Zeroizing<[u8; DHLEN]>, DhError> {
            self.dhs.fetch_add(1, Ordering::Relaxed);
            rust_crypto().dh(secret, public)
        }

        fn public_key(&self, secret: &[u8; DHLEN]) -> [u8; DHLEN] {
            rust_crypto().public_key(secret)
        }
    }

    fn secret(byte: u8) -> StaticSecret {
        StaticSecret::from_bytes([byte; DHLEN])
    }

    fn state(
        provider: &'static Counting,
        pattern: &'static HandshakePattern,
        role: Role,
        [ours, theirs]: [&StaticSecret; 2],
    ) -> HandshakeState {
        let psks = vec![Psk::from_bytes([9; KEYLEN]); pattern.psk_count()];
        let initiator = role == Role::Initiator;
        let is_known = if initiator { pattern.responder_known } else { pattern.initiator_known };
        HandshakeState::new(HandshakeParameters {
            provider,
            pattern,
            cipher: CipherAlgorithm::ChaChaPoly,
            role,
            prologue: b"the same",
            s: Some(ours),
            e: secret(if initiator { 3 } else { 4 }),
            rs: is_known.then(|| theirs.public_key(provider)),
            psks: &psks,
        })
        .expect("the keys fit the pattern")
    }

    /// Runs a handshake: the messages, the hash, a first ciphertext each way, and what the responder computed.
    fn transcript(
        pattern: &'static HandshakePattern,
        client: &StaticSecret,
        server: &StaticSecret,
    ) -> (Vec<Vec<u8>>, usize) {
        let [client_counts, server_counts] = [Counting::new(), Counting::new()];
        let mut client = state(client_counts, pattern, Role::Initiator, [client, server]);
        let mut server = state(server_counts, pattern, Role::Responder, [server, &client_key()]);
        server_counts.taken();
        let mut all = Vec::new();
        while !client.is_finished() {
            let (from, to) = match all.len() % 2 {
                0 => (&mut client, &mut server),
                _ => (&mut server, &mut client),
            };
            let (mut message, mut payload) = (Vec::new(), Vec::new());
            from.write_message(b"payload", &mut message).unwrap();
            to.read_message(&message, &mut payload).unwrap();
            assert_eq!(payload, b"payload");
            all.push(message);
        }
        let computed = server_counts.taken();
        for state in [client, server] {
            let mut transport = state.into_transport().unwrap();
            let mut text = [0; 8];
            let tag = transport.send.encrypt_in_place(&[], &mut text).unwrap();
            all.extend([transport.handshake_hash.to_vec(), text.to_vec(), tag.to_vec()]);
        }
        (all, computed)
    }

    fn client_key() -> StaticSecret {
        secret(1)
    }

    #[test]
    fn a_handshake_with_a_known_peer_is_the_same_and_costs_one_computation_less() {
        let plain = rust_crypto();
        let named = ["IK", "IKpsk2", "KK", "K", "X", "KKpsk2", "IKpsk1"];
        for pattern in named.map(|name| HandshakePattern::by_name(name).expect("a pattern of the catalogue"))
        {
            let (client, server) = (client_key(), secret(2));
            let (slow, all) = transcript(pattern, &client, &server);
            server.remember_peer(plain, &client.public_key(plain));
            let (fast, fewer) = transcript(pattern, &client, &server);
            assert_eq!((&fast, fewer), (&slow, all - 1), "{}", pattern.name());
            // And when both ends know each other.
            client.remember_peer(plain, &server.public_key(plain));
            assert_eq!(transcript(pattern, &client, &server), (fast, fewer), "{}", pattern.name());
            server.forget_peers();
            assert_eq!(transcript(pattern, &client, &server), (slow, all), "{}", pattern.name());
        }
    }

    #[test]
    fn another_peer_than_the_known_one_is_not_taken_for_it() {
        let (plain, pattern) = (rust_crypto(), HandshakePattern::by_name("IK").unwrap());
        let (known, stranger, server) = (client_key(), secret(8), secret(2));
        let (slow, all) = transcript(pattern, &stranger, &server);
        server.remember_peer(plain, &known.public_key(plain));
        assert_eq!(transcript(pattern, &stranger, &server), (slow, all));
        assert_eq!(server.peers_remembered(), 1, "a handshake alone makes nobody known");
    }

    /// Who names somebody else's key, without the private key, costs the same whether that one is known or not.
    #[test]
    fn a_refusal_costs_what_it_costs_for_a_key_that_is_not_known() {
        let (plain, pattern) = (rust_crypto(), HandshakePattern::by_name("IK").unwrap());
        let (client, server) = (client_key(), secret(2));
        let mut message = Vec::new();
        state(Counting::new(), pattern, Role::Initiator, [&client, &server])
            .write_message(&[], &mut message)
            .unwrap();
        // The tag of the payload, which is the proof of `ss`.
        *message.last_mut().unwrap() ^= 1;
        let refused = || {
            let counts = Counting::new();
            let mut responder = state(counts, pattern, Role::Responder, [&server, &client]);
            counts.taken();
            let result = responder.read_message(&message, &mut Vec::new());
            (result, counts.taken())
        };
        let unknown = refused();
        server.remember_peer(plain, &client.public_key(plain));
        assert_eq!(unknown, (Err(NoiseError::Decrypt), 2));
        assert_eq!(refused(), unknown);
    }

    #[test]
    fn a_key_that_gives_zeros_is_not_remembered() {
        let server = secret(2);
        server.remember_peer(rust_crypto(), &PublicKey([0; DHLEN]));
        assert_eq!(server.peers_remembered(), 0);
    }

    #[test]
    fn nobody_is_remembered_beyond_the_bound() {
        let key = |n: usize| {
            let mut bytes = [0; DHLEN];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            PublicKey(bytes)
        };
        let known = KnownPeers::default();
        for n in 0..=KNOWN_PEERS_MAX {
            known.keep(key(n), &[7; DHLEN]);
        }
        assert_eq!(known.len(), KNOWN_PEERS_MAX);
        assert_eq!(known.get(&key(KNOWN_PEERS_MAX - 1)).as_deref(), Some(&[7; DHLEN]));
        assert!(known.get(&key(KNOWN_PEERS_MAX)).is_none());
        assert!(!known.would_keep(&key(KNOWN_PEERS_MAX)));
        known.clear();
        assert_eq!(known.len(), 0);
        assert!(known.would_keep(&key(0)));
    }
}
