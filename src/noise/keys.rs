//! Keys: secrets that clear themselves and never print, and the public key with its textual form.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::known_peers::KnownPeers;
use super::provider::{CryptoProvider, DhError, DhKey};
use super::{DHLEN, KEYLEN};

/// Separates the hash behind a key id from every other use of SHA-256 on a public key.
const KEY_ID_LABEL: &[u8] = b"raystream-key-id";
/// Length of a key id in bytes: enough to tell the few keys of one server apart; it authenticates nothing.
const KEY_ID_LEN: usize = 8;
/// Digits of a public key in text.
const PUBLIC_KEY_DIGITS: usize = 2 * DHLEN;
const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

/// 32 secret bytes on the heap, cleared when dropped. On the heap, because a move of the owner would leave a copy of
/// the bytes behind on the stack.
#[derive(Clone)]
pub(super) struct SecretBytes(Box<[u8; KEYLEN]>);

impl SecretBytes {
    pub(super) fn new(mut bytes: [u8; KEYLEN]) -> Self {
        let secret = SecretBytes(Box::new(bytes));
        bytes.zeroize();
        secret
    }

    pub(super) fn expose(&self) -> &[u8; KEYLEN] {
        &self.0
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// An X25519 private key, static or ephemeral. Cleared when the last clone is dropped; `Debug` shows nothing of it.
///
/// The bytes come from the caller, out of a key file or a random generator. The public key belongs to it and is
/// computed once, so that the two cannot be mixed up; and so is the form in which a provider computes with the key. Clones
/// share all of it, whichever of them computes it.
#[derive(Clone)]
pub struct StaticSecret(Arc<Shared>);

/// A key and what was computed of it.
struct Shared {
    bytes: SecretBytes,
    public: OnceLock<PublicKey>,
    prepared: OnceLock<Box<dyn DhKey>>,
    known_peers: OnceLock<KnownPeers>,
}

impl StaticSecret {
    /// Takes 32 uniformly random bytes; clamping (RFC 7748 section 5) happens in use. The caller clears its own copy.
    pub fn from_bytes(bytes: [u8; DHLEN]) -> Self {
        StaticSecret(Arc::new(Shared {
            bytes: SecretBytes::new(bytes),
            public: OnceLock::new(),
            prepared: OnceLock::new(),
            known_peers: OnceLock::new(),
        }))
    }

    /// The bytes, for a key file.
    pub fn as_bytes(&self) -> &[u8; DHLEN] {
        &self.0.bytes.0
    }

    /// The public key. Which provider computes it makes no difference to the result.
    pub fn public_key(&self, provider: &dyn CryptoProvider) -> PublicKey {
        *self.0.public.get_or_init(|| {
            PublicKey(match self.prepared(provider) {
                Some(key) => key.public_key(),
                None => provider.public_key(self.as_bytes()),
            })
        })
    }

    /// `DH(key_pair, public_key)` of section 4.1. Which provider computes it makes no difference to the result.
    ///
    /// # Errors
    ///
    /// [`DhError`] when the result is all zeros.
    pub(super) fn dh(
        &self,
        provider: &dyn CryptoProvider,
        public: &PublicKey,
    ) -> Result<Zeroizing<[u8; DHLEN]>, DhError> {
        match self.prepared(provider) {
            Some(key) => key.dh(public.as_bytes()),
            None => provider.dh(self.as_bytes(), public.as_bytes()),
        }
    }

    /// Computes what this key and the static key of `peer` give together and keeps it, so that handshakes with this peer need
    /// not compute it again. For peers that have proved their key and are let in: who else could fill the table would keep
    /// them out of it. A peer that is known already costs nothing, and when 16,384 are known nobody is added.
    pub fn remember_peer(&self, provider: &dyn CryptoProvider, peer: &PublicKey) {
        let known = self.0.known_peers.get_or_init(KnownPeers::default);
        if known.would_keep(peer)
            && let Ok(shared) = self.dh(provider, peer)
        {
            known.keep(*peer, &shared);
        }
    }

    /// Forgets every peer that was to be remembered, and clears what was kept for it.
    pub fn forget_peers(&self) {
        if let Some(known) = self.0.known_peers.get() {
            known.clear();
        }
    }

    /// How many peers are remembered.
    pub fn peers_remembered(&self) -> usize {
        self.0.known_peers.get().map_or(0, |known| known.len())
    }

    /// `DH(key_pair, public_key)` of two static keys, if it is kept.
    pub(super) fn known_dh(&self, peer: &PublicKey) -> Option<Zeroizing<[u8; DHLEN]>> {
        self.0.known_peers.get()?.get(peer)
    }

    fn prepared(&self, provider: &dyn CryptoProvider) -> Option<&dyn DhKey> {
        if let Some(prepared) = self.0.prepared.get() {
            return Some(prepared.as_ref());
        }
        // A provider without such a form does not keep the key from getting that of another one.
        let prepared = provider.dh_key(self.as_bytes())?;
        Some(self.0.prepared.get_or_init(|| prepared).as_ref())
    }
}

impl fmt::Debug for StaticSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StaticSecret([redacted])")
    }
}

/// A pre-shared symmetric key of 32 random bytes (section 9). Cleared when dropped; `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Psk(SecretBytes);

impl Psk {
    /// Takes 32 bytes of full entropy: a pass phrase is not a pre-shared key. The caller clears its own copy.
    pub fn from_bytes(bytes: [u8; KEYLEN]) -> Self {
        Psk(SecretBytes::new(bytes))
    }

    /// The bytes, for a key file.
    pub fn as_bytes(&self) -> &[u8; KEYLEN] {
        &self.0.0
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk([redacted])")
    }
}

/// An X25519 public key. Its text is 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; DHLEN]);

impl PublicKey {
    /// The bytes as they travel.
    pub fn as_bytes(&self) -> &[u8; DHLEN] {
        &self.0
    }

    /// The first 8 bytes of SHA-256("raystream-key-id" || key): with it a client says which of the server's keys it
    /// means, while keys rotate. It is a hint; whether the key is right, the handshake shows.
    pub fn key_id(&self) -> [u8; KEY_ID_LEN] {
        let digest = Sha256::new().chain_update(KEY_ID_LABEL).chain_update(self.0).finalize();
        let (id, _) = digest.split_first_chunk().expect("SHA-256 is longer than a key id");
        *id
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// The text is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a public key is 64 lower-case hexadecimal digits")]
pub struct InvalidPublicKey;

impl FromStr for PublicKey {
    type Err = InvalidPublicKey;

    /// Takes the one form that `Display` gives, so that equal keys are equal as text.
    fn from_str(text: &str) -> Result<Self, InvalidPublicKey> {
        if text.len() != PUBLIC_KEY_DIGITS {
            return Err(InvalidPublicKey);
        }
        let mut key = [0; DHLEN];
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = digits.iter().try_fold(0, |value, digit| Ok((value << 4) | nibble(*digit)?))?;
        }
        Ok(PublicKey(key))
    }
}

fn nibble(digit: u8) -> Result<u8, InvalidPublicKey> {
    let value = HEX_DIGITS.iter().position(|candidate| *candidate == digit).ok_or(InvalidPublicKey)?;
    u8::try_from(value).map_err(|_| InvalidPublicKey)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::noise::provider::AeadKey;
    use crate::noise::{CipherAlgorithm, rust_crypto};

    #[test]
    fn text_of_a_public_key_round_trips_and_has_one_form() {
        let key = PublicKey(std::array::from_fn(|i| u8::try_from(i * 8).unwrap()));
        let text = key.to_string();
        assert_eq!(text, "0008101820283038404850586068707880889098a0a8b0b8c0c8d0d8e0e8f0f8");
        assert_eq!(text.parse(), Ok(key));
        for wrong in
            [text.to_uppercase(), text[1..].to_owned(), format!("{text}0"), format!("+{}", &text[1..])]
        {
            assert_eq!(wrong.parse::<PublicKey>(), Err(InvalidPublicKey), "{wrong}");
        }
        assert_eq!("é".repeat(32).parse::<PublicKey>(), Err(InvalidPublicKey), "64 bytes, 32 characters");
    }

    #[test]
    fn a_key_id_is_the_head_of_the_labelled_hash() {
        // printf 'raystream-key-id' | cat - <(head -c 32 /dev/zero) | sha256sum
        assert_eq!(PublicKey([0; 32]).key_id(), KEY_ID_OF_ZEROS);
    }
    const KEY_ID_OF_ZEROS: [u8; 8] = [0x96, 0x9e, 0x29, 0xd8, 0x3a, 0x28, 0x7a, 0x16];

    /// One that has a form of its own for a key, and counts how often it makes it.
    #[derive(Debug)]
    struct Preparing(AtomicUsize);

    struct Prepared([u8; DHLEN]);

    impl DhKey for Prepared {
        fn public_key(&self) -> [u8; DHLEN] {
            rust_crypto().public_key(&self.0)
        }

        fn dh(&self, public: &[u8; DHLEN]) -> Result<Zeroizing<[u8; DHLEN]>, DhError> {
            rust_crypto().dh(&self.0, public)
        }
    }

    impl CryptoProvider for Preparing {
        fn name(&self) -> &'static str {
            "preparing"
        }

        fn aead(&self, algorithm: CipherAlgorithm, key: &[u8; KEYLEN]) -> Box<dyn AeadKey> {
            rust_crypto().aead(algorithm, key)
        }

        fn dh(&self, _: &[u8; DHLEN], _: &[u8; DHLEN]) -> Result<Zeroizing<[u8; DHLEN]>, DhError> {
            panic!("the key is to be used in its own form")
        }

        fn public_key(&self, _: &[u8; DHLEN]) -> [u8; DHLEN] {
            panic!("the key is to be used in its own form")
        }

        fn dh_key(&self, secret: &[u8; DHLEN]) -> Option<Box<dyn DhKey>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Some(Box::new(Prepared(*secret)))
        }
    }

    #[test]
    fn a_key_is_prepared_once_also_when_another_provider_came_first() {
        let (provider, secret) = (Preparing(AtomicUsize::new(0)), StaticSecret::from_bytes([5; DHLEN]));
        // A handshake works with a clone, which was made before anybody computed with the key.
        let clone = secret.clone();
        // As the daemon does: the key file is checked by the one, connections are made by the other.
        let public = secret.public_key(rust_crypto());
        let peer = StaticSecret::from_bytes([6; DHLEN]).public_key(rust_crypto());
        let expected = rust_crypto().dh(&[5; DHLEN], peer.as_bytes()).unwrap();
        let first = clone.dh(&provider, &peer).unwrap();
        for secret in [&secret, &clone, &secret.clone()] {
            assert_eq!(secret.dh(&provider, &peer).unwrap(), expected);
            assert_eq!(secret.public_key(&provider), public);
        }
        assert_eq!((first, provider.0.load(Ordering::Relaxed)), (expected, 1));
    }

    #[test]
    fn secrets_do_not_print() {
        let secret = StaticSecret::from_bytes([0xab; 32]);
        let public = secret.public_key(rust_crypto());
        assert_eq!(format!("{secret:?} {secret:#?}"), "StaticSecret([redacted]) StaticSecret([redacted])");
        assert_eq!(format!("{:?}", Psk::from_bytes([0xab; 32])), "Psk([redacted])");
        assert_eq!(secret.clone().public_key(rust_crypto()), public);
        assert_eq!(secret.as_bytes(), &[0xab; 32]);
    }
}
