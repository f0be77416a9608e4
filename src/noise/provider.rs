//! What the engine asks of an implementation of the primitives.

use std::fmt;

use zeroize::Zeroizing;

use super::{DHLEN, KEYLEN, NONCELEN, TAGLEN};

/// The two ciphers of section 12. They differ in how the counter becomes a nonce, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CipherAlgorithm {
    /// AEAD_CHACHA20_POLY1305 of RFC 8439 (section 12.3).
    ChaChaPoly,
    /// AES-256 in GCM, NIST SP 800-38D, with a 128-bit tag (section 12.4).
    AesGcm,
}

impl CipherAlgorithm {
    /// The name as it stands in a Noise protocol name (section 8).
    pub const fn name(self) -> &'static str {
        match self {
            CipherAlgorithm::ChaChaPoly => "ChaChaPoly",
            CipherAlgorithm::AesGcm => "AESGCM",
        }
    }

    /// The 96-bit nonce for the counter `n`: 32 zero bits, then `n` little-endian for ChaChaPoly (section 12.3) and
    /// big-endian for AESGCM (section 12.4).
    pub const fn nonce(self, n: u64) -> [u8; NONCELEN] {
        let [a, b, c, d, e, f, g, h] = match self {
            CipherAlgorithm::ChaChaPoly => n.to_le_bytes(),
            CipherAlgorithm::AesGcm => n.to_be_bytes(),
        };
        [0, 0, 0, 0, a, b, c, d, e, f, g, h]
    }
}

/// The tag is wrong: the ciphertext, the associated data, the nonce or the key is not the sender's. There is one
/// reason only, since telling more would help a forger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message does not authenticate")]
pub struct DecryptError;

/// The Diffie-Hellman result is all zeros: the peer's key is of small order and the result would be known to
/// everybody (RFC 7748 section 6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Diffie-Hellman result is all zeros")]
pub struct DhError;

/// One cipher with one key. It clears the key when dropped. It does not count nonces: [`CipherState`] does.
///
/// [`CipherState`]: super::CipherState
pub trait AeadKey: Send + Sync {
    /// Replaces the plaintext in `in_out` by the ciphertext of the same length and returns the tag, which also covers
    /// `ad`. A nonce must never be used twice with one key.
    ///
    /// # Panics
    ///
    /// When `in_out` is longer than the cipher allows (64 GiB less 32 bytes for AES-GCM, 256 GiB less 64 bytes for
    /// ChaCha20-Poly1305). A Noise message has at most 65,535 bytes.
    fn seal_in_place(&self, nonce: &[u8; NONCELEN], ad: &[u8], in_out: &mut [u8]) -> [u8; TAGLEN];

    /// Replaces the ciphertext in `in_out` by the plaintext if `tag` is right for `nonce`, `ad` and `in_out`.
    ///
    /// # Errors
    ///
    /// [`DecryptError`] when the tag is wrong; `in_out` is all zeros then, so that no unauthentic plaintext can be
    /// used by mistake.
    fn open_in_place(
        &self,
        nonce: &[u8; NONCELEN],
        ad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAGLEN],
    ) -> Result<(), DecryptError>;
}

/// An X25519 private key in the form that an implementation computes with. It clears the key when dropped.
pub trait DhKey: Send + Sync {
    /// X25519 of the key and the base point.
    fn public_key(&self) -> [u8; DHLEN];

    /// X25519 of the key and `public`.
    ///
    /// # Errors
    ///
    /// [`DhError`] when the result is all zeros.
    fn dh(&self, public: &[u8; DHLEN]) -> Result<Zeroizing<[u8; DHLEN]>, DhError>;
}

/// An implementation of X25519 and of the two ciphers.
pub trait CryptoProvider: Send + Sync + fmt::Debug {
    /// A short name for logs and measurements.
    fn name(&self) -> &'static str;

    /// The cipher `algorithm` under `key`.
    fn aead(&self, algorithm: CipherAlgorithm, key: &[u8; KEYLEN]) -> Box<dyn AeadKey>;

    /// X25519 (RFC 7748 section 5): `secret` is clamped as the function prescribes, and the top bit of `public` is
    /// ignored.
    ///
    /// # Errors
    ///
    /// [`DhError`] when the result is all zeros.
    fn dh(&self, secret: &[u8; DHLEN], public: &[u8; DHLEN]) -> Result<Zeroizing<[u8; DHLEN]>, DhError>;

    /// X25519 of `secret` and the base point: the public key.
    fn public_key(&self, secret: &[u8; DHLEN]) -> [u8; DHLEN];

    /// The key in a form of its own, where taking `secret` anew for each computation costs something; `None` where it
    /// costs nothing.
    fn dh_key(&self, _secret: &[u8; DHLEN]) -> Option<Box<dyn DhKey>> {
        None
    }
}
