//! AWS-LC through `aws-lc-rs`: assembly for the ciphers and for the curve.

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use zeroize::{Zeroize, Zeroizing};

use crate::noise::provider::{AeadKey, CipherAlgorithm, CryptoProvider, DecryptError, DhError, DhKey};
use crate::noise::{DHLEN, KEYLEN, NONCELEN, TAGLEN};

/// The provider of the daemon. AWS-LC clears its own copies of keys when they are freed.
///
/// Medians of `cargo bench --bench noise` on one x86-64 core with AVX2, and how many times faster than
/// [`rust_crypto`](super::rust_crypto()) that is:
///
/// | | `rust_crypto` | `aws_lc` | ratio |
/// |---|---|---|---|
/// | ChaChaPoly seal 64 B | 2.04 µs | 0.25 µs | 8.1 |
/// | ChaChaPoly seal 1 KiB | 2.81 µs | 0.86 µs | 3.3 |
/// | ChaChaPoly seal 16 KiB | 17.1 µs | 10.1 µs | 1.7 |
/// | AESGCM seal 64 B | 0.26 µs | 0.10 µs | 2.7 |
/// | AESGCM seal 1 KiB | 0.61 µs | 0.23 µs | 2.7 |
/// | AESGCM seal 16 KiB | 6.5 µs | 1.6 µs | 4.2 |
/// | X25519 | 58 µs | 37 µs | 1.6 |
/// | X25519 public key | 19 µs | 10 µs | 2.0 |
/// | NK handshake, both sides | 299 µs | 189 µs | 1.6 |
/// | IK handshake, both sides | 547 µs | 351 µs | 1.6 |
///
/// Opening costs what sealing does. The handshakes are with ChaChaPoly; with AESGCM they differ by 3 % at most. Of the
/// 37 µs of an X25519, 10 go into a public key that AWS-LC computes whenever it takes a private key.
pub fn aws_lc() -> &'static dyn CryptoProvider {
    &AwsLc
}

#[derive(Debug)]
struct AwsLc;

impl AwsLc {
    fn private_key(secret: &[u8; DHLEN]) -> PrivateKey {
        PrivateKey::from_private_key(&X25519, secret)
            .expect("every string of 32 bytes is an X25519 private key")
    }
}

impl CryptoProvider for AwsLc {
    fn name(&self) -> &'static str {
        "aws_lc"
    }

    fn aead(&self, algorithm: CipherAlgorithm, key: &[u8; KEYLEN]) -> Box<dyn AeadKey> {
        let algorithm = match algorithm {
            CipherAlgorithm::ChaChaPoly => &CHACHA20_POLY1305,
            CipherAlgorithm::AesGcm => &AES_256_GCM,
        };
        let key = UnboundKey::new(algorithm, key).expect("both ciphers take every key of 32 bytes");
        Box::new(Key(LessSafeKey::new(key)))
    }

    fn dh(&self, secret: &[u8; DHLEN], public: &[u8; DHLEN]) -> Result<Zeroizing<[u8; DHLEN]>, DhError> {
        PrivateDhKey(Self::private_key(secret)).dh(public)
    }

    fn public_key(&self, secret: &[u8; DHLEN]) -> [u8; DHLEN] {
        PrivateDhKey(Self::private_key(secret)).public_key()
    }

    fn dh_key(&self, secret: &[u8; DHLEN]) -> Option<Box<dyn DhKey>> {
        Some(Box::new(PrivateDhKey(Self::private_key(secret))))
    }
}

/// AWS-LC computes the public key whenever it takes a private key, so a key that is used again is kept in its form.
struct PrivateDhKey(PrivateKey);

impl DhKey for PrivateDhKey {
    fn public_key(&self) -> [u8; DHLEN] {
        let public = self.0.compute_public_key().expect("a private key has its public key");
        public.as_ref().try_into().expect("an X25519 public key has 32 bytes")
    }

    fn dh(&self, public: &[u8; DHLEN]) -> Result<Zeroizing<[u8; DHLEN]>, DhError> {
        // AWS-LC itself fails on an all-zero result, after the whole computation; all other inputs succeed.
        let peer = UnparsedPublicKey::new(&X25519, public.as_slice());
        agree(&self.0, peer, DhError, |shared| {
            let mut output = Zeroizing::new([0; DHLEN]);
            output.copy_from_slice(shared);
            Ok(output)
        })
    }
}

/// "Less safe" because it lets the caller choose the nonce: a Noise nonce is the counter of a `CipherState`.
struct Key(LessSafeKey);

impl AeadKey for Key {
    fn seal_in_place(&self, nonce: &[u8; NONCELEN], ad: &[u8], in_out: &mut [u8]) -> [u8; TAGLEN] {
        let tag = self
            .0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(ad), in_out)
            .expect("the plaintext is shorter than the cipher's limit of tens of gigabytes");
        tag.as_ref().try_into().expect("the tag of both ciphers has 16 bytes")
    }

    fn open_in_place(
        &self,
        nonce: &[u8; NONCELEN],
        ad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAGLEN],
    ) -> Result<(), DecryptError> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.0.open_in_place_separate_tag(nonce, Aad::from(ad), tag, in_out).map(|_| ());
        opened.map_err(|_| {
            in_out.zeroize();
            DecryptError
        })
    }
}
