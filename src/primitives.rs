//! Three plain functions for programs that want to derive a key or to seal one message without a connection.
//!
//! [`hkdf()`] is RFC 5869 with SHA-256, [`encrypt`] and [`decrypt`] are RFC 8439. Connections do not use them: their
//! keys come from `Split()` of the [Noise handshake](crate::noise), and `raystream-v1` stands in its prologue.
//!
//! ```
//! use raystream::primitives::{INFO, decrypt, encrypt, hkdf};
//!
//! let shared_secret = [7; 32]; // The result of a key agreement.
//! let derived = hkdf(&shared_secret, INFO, 32)?;
//! let key = derived.as_slice().try_into()?;
//! let nonce = [0; 12]; // The caller sees to it that no nonce is used twice with one key.
//! let sealed = encrypt(b"{\"method\":\"getUser\"}", key, nonce);
//! assert_eq!(decrypt(&sealed, key)?.as_slice(), b"{\"method\":\"getUser\"}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(clippy::as_conversions)]

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::noise::{CipherAlgorithm, DecryptError, KEYLEN, NONCELEN, TAGLEN, rust_crypto};

/// The `info` under which a session key is derived from a shared secret.
pub const INFO: &[u8] = b"raystream-v1";

/// The ciphers in the order of preference. ChaCha20-Poly1305 is first because it is fast and constant-time on every
/// processor; AES-256-GCM is second, for peers without the other.
pub const CIPHER_PREFERENCE: [CipherAlgorithm; 2] = [CipherAlgorithm::ChaChaPoly, CipherAlgorithm::AesGcm];

/// Longest output of [`hkdf()`], in bytes: 255 hashes (RFC 5869 section 2.3).
pub const HKDF_MAX_LEN: usize = 255 * 32;

/// A sealed message: what [`decrypt`] needs besides the key. None of it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The nonce that was used.
    pub nonce: [u8; NONCELEN],
    /// The ciphertext, as long as the plaintext.
    pub data: Vec<u8>,
    /// The authentication tag.
    pub tag: [u8; TAGLEN],
}

/// More than [`HKDF_MAX_LEN`] bytes were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("HKDF-SHA256 gives at most 8,160 bytes")]
pub struct InvalidLength;

/// HKDF-SHA256 of RFC 5869 with an empty salt: derives `len` bytes from `ikm`, a secret that need not be uniform,
/// for the purpose that `info` names.
///
/// # Errors
///
/// [`InvalidLength`] above [`HKDF_MAX_LEN`].
pub fn hkdf(ikm: &[u8], info: &[u8], len: usize) -> Result<Zeroizing<Vec<u8>>, InvalidLength> {
    if len > HKDF_MAX_LEN {
        return Err(InvalidLength);
    }
    let mut okm = Zeroizing::new(vec![0; len]);
    Hkdf::<Sha256>::new(None, ikm).expand(info, &mut okm).map_err(|_| InvalidLength)?;
    Ok(okm)
}

/// Seals `plaintext` with ChaCha20-Poly1305 (RFC 8439 section 2.8) and empty associated data.
///
/// `nonce` must be unique for `key`: two messages under one nonce reveal their difference and let anybody forge.
pub fn encrypt(plaintext: &[u8], key: &[u8; KEYLEN], nonce: [u8; NONCELEN]) -> Sealed {
    encrypt_with(CipherAlgorithm::ChaChaPoly, plaintext, key, nonce)
}

/// Opens what [`encrypt`] sealed.
///
/// # Errors
///
/// [`DecryptError`] when the key is another one or anything in `sealed` was changed.
pub fn decrypt(sealed: &Sealed, key: &[u8; KEYLEN]) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
    decrypt_with(CipherAlgorithm::ChaChaPoly, sealed, key)
}

/// [`encrypt`] with the cipher of choice. Both sides must agree on it beforehand; a key serves one cipher only.
pub fn encrypt_with(
    cipher: CipherAlgorithm,
    plaintext: &[u8],
    key: &[u8; KEYLEN],
    nonce: [u8; NONCELEN],
) -> Sealed {
    let mut data = plaintext.to_vec();
    let tag = rust_crypto().aead(cipher, key).seal_in_place(&nonce, &[], &mut data);
    Sealed { nonce, data, tag }
}

/// [`decrypt`] with the cipher of choice.
///
/// # Errors
///
/// As [`decrypt`].
pub fn decrypt_with(
    cipher: CipherAlgorithm,
    sealed: &Sealed,
    key: &[u8; KEYLEN],
) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
    let mut data = Zeroizing::new(sealed.data.clone());
    rust_crypto().aead(cipher, key).open_in_place(&sealed.nonce, &[], &mut data, &sealed.tag)?;
    Ok(data)
}
