//! Cryptography that does not stand in the way of a fuzzer.

use crate::noise::{AeadKey, CipherAlgorithm, CryptoProvider, DecryptError, DhError, rust_crypto};
use zeroize::Zeroizing;

/// Real ciphers, but every Diffie-Hellman gives the same: connections cost no curve arithmetic.
#[derive(Debug)]
pub(super) struct FakeDh;

/// No secrets at all: every record "decrypts", so that a fuzzer gets past the ciphers to the frames.
#[derive(Debug)]
pub(super) struct Transparent;

struct NoCipher;

fn fake_dh() -> Result<Zeroizing<[u8; 32]>, DhError> {
    Ok(Zeroizing::new([0x5a; 32]))
}

impl CryptoProvider for FakeDh {
    fn name(&self) -> &'static str {
        "fake Diffie-Hellman"
    }

    fn aead(&self, algorithm: CipherAlgorithm, key: &[u8; 32]) -> Box<dyn AeadKey> {
        rust_crypto().aead(algorithm, key)
    }

    fn dh(&self, _secret: &[u8; 32], _public: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>, DhError> {
        fake_dh()
    }

    fn public_key(&self, secret: &[u8; 32]) -> [u8; 32] {
        *secret
    }
}

impl CryptoProvider for Transparent {
    fn name(&self) -> &'static str {
        "no cipher"
    }

    fn aead(&self, _algorithm: CipherAlgorithm, _key: &[u8; 32]) -> Box<dyn AeadKey> {
        Box::new(NoCipher)
    }

    fn dh(&self, _secret: &[u8; 32], _public: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>, DhError> {
        fake_dh()
    }

    fn public_key(&self, secret: &[u8; 32]) -> [u8; 32] {
        *secret
    }
}

impl AeadKey for NoCipher {
    fn seal_in_place(&self, _nonce: &[u8; 12], _ad: &[u8], _in_out: &mut [u8]) -> [u8; 16] {
        [0; 16]
    }

    fn open_in_place(
        &self,
        _nonce: &[u8; 12],
        _ad: &[u8],
        _in_out: &mut [u8],
        _tag: &[u8; 16],
    ) -> Result<(), DecryptError> {
        Ok(())
    }
}
