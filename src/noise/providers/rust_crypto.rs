//! Pure Rust: `x25519-dalek`, `chacha20poly1305` and `aes-gcm`.

use aes_gcm::Aes256Gcm;
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, Zeroizing};

use crate::noise::provider::{AeadKey, CipherAlgorithm, CryptoProvider, DecryptError, DhError};
use crate::noise::{DHLEN, KEYLEN, NONCELEN, TAGLEN};

/// The provider that is always there and needs no C compiler. Its AES is a constant-time one also on processors
/// without AES instructions, only slow there. The figures beside those of the daemon's provider stand at `aws_lc`.
pub fn rust_crypto() -> &'static dyn CryptoProvider {
    &RustCrypto
}

#[derive(Debug)]
struct RustCrypto;

impl CryptoProvider for RustCrypto {
    fn name(&self) -> &'static str {
        "rust_crypto"
    }

    fn aead(&self, algorithm: CipherAlgorithm, key: &[u8; KEYLEN]) -> Box<dyn AeadKey> {
        match algorithm {
            CipherAlgorithm::ChaChaPoly => Box::new(Key(ChaCha20Poly1305::new(key.into()))),
            CipherAlgorithm::AesGcm => Box::new(Key(Aes256Gcm::new(key.into()))),
        }
    }

    fn dh(&self, secret: &[u8; DHLEN], public: &[u8; DHLEN]) -> Result<Zeroizing<[u8; DHLEN]>, DhError> {
        let shared = StaticSecret::from(*secret).diffie_hellman(&PublicKey::from(*public));
        if shared.was_contributory() { Ok(Zeroizing::new(shared.to_bytes())) } else { Err(DhError) }
    }

    fn public_key(&self, secret: &[u8; DHLEN]) -> [u8; DHLEN] {
        PublicKey::from(&StaticSecret::from(*secret)).to_bytes()
    }
}

/// A key of one of the two ciphers. Both crates clear it when it is dropped (their feature `zeroize`).
struct Key<A>(A);

impl<A> AeadKey for Key<A>
where
    A: AeadInOut<NonceSize = chacha20poly1305::consts::U12, TagSize = chacha20poly1305::consts::U16>
        + Send
        + Sync,
{
    fn seal_in_place(&self, nonce: &[u8; NONCELEN], ad: &[u8], in_out: &mut [u8]) -> [u8; TAGLEN] {
        self.0
            .encrypt_inout_detached(nonce.into(), ad, in_out.into())
            .expect("the plaintext is shorter than the cipher's limit of tens of gigabytes")
            .into()
    }

    fn open_in_place(
        &self,
        nonce: &[u8; NONCELEN],
        ad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAGLEN],
    ) -> Result<(), DecryptError> {
        let opened = self.0.decrypt_inout_detached(nonce.into(), ad, (&mut *in_out).into(), tag.into());
        opened.map_err(|_| {
            in_out.zeroize();
            DecryptError
        })
    }
}
