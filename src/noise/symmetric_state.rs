//! `SymmetricState`, section 5.2 of the specification, and its HKDF, section 4.3.

use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::cipher_state::{CipherError, CipherState};
use super::provider::{CipherAlgorithm, CryptoProvider};
use super::{HASHLEN, NoiseError, TAGLEN};

/// The chaining key `ck`, the handshake hash `h` and the cipher of the handshake (section 5.2).
pub(super) struct SymmetricState {
    provider: &'static dyn CryptoProvider,
    algorithm: CipherAlgorithm,
    ck: Zeroizing<[u8; HASHLEN]>,
    h: [u8; HASHLEN],
    /// `None` is the specification's empty `k`: text passes unencrypted, but hashed.
    cipher: Option<CipherState>,
}

impl SymmetricState {
    /// `InitializeSymmetric(protocol_name)`: a name of up to 32 bytes is padded with zeros, a longer one hashed.
    pub(super) fn new(
        provider: &'static dyn CryptoProvider,
        algorithm: CipherAlgorithm,
        protocol_name: &[u8],
    ) -> Self {
        let mut h = [0; HASHLEN];
        match h.get_mut(..protocol_name.len()) {
            Some(head) => head.copy_from_slice(protocol_name),
            None => h = Sha256::digest(protocol_name).into(),
        }
        SymmetricState { provider, algorithm, ck: Zeroizing::new(h), h, cipher: None }
    }

    /// `MixKey(input_key_material)`.
    pub(super) fn mix_key(&mut self, input_key_material: &[u8]) {
        let [ck, temp_k] = self.hkdf(input_key_material);
        self.ck = ck;
        self.cipher = Some(CipherState::new(self.provider, self.algorithm, &temp_k));
    }

    /// `MixHash(data)`.
    pub(super) fn mix_hash(&mut self, data: &[u8]) {
        self.h = Sha256::new().chain_update(self.h).chain_update(data).finalize().into();
    }

    /// `MixKeyAndHash(input_key_material)`, for pre-shared keys (section 9).
    pub(super) fn mix_key_and_hash(&mut self, input_key_material: &[u8]) {
        let [ck, temp_h, temp_k] = self.hkdf(input_key_material);
        self.ck = ck;
        self.mix_hash(temp_h.as_slice());
        self.cipher = Some(CipherState::new(self.provider, self.algorithm, &temp_k));
    }

    /// `GetHandshakeHash()`: the channel binding once the handshake is over (section 11.2).
    pub(super) fn handshake_hash(&self) -> [u8; HASHLEN] {
        self.h
    }

    /// How many bytes a text grows by when encrypted: the tag, or nothing while there is no key.
    pub(super) fn overhead(&self) -> usize {
        if self.cipher.is_some() { TAGLEN } else { 0 }
    }

    /// `EncryptAndHash(plaintext)`: appends the ciphertext to `out`.
    pub(super) fn encrypt_and_hash(
        &mut self,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CipherError> {
        let start = out.len();
        out.extend_from_slice(plaintext);
        if let Some(cipher) = &mut self.cipher {
            let tag = cipher.encrypt_in_place(&self.h, &mut out[start..])?;
            out.extend_from_slice(&tag);
        }
        self.mix_hash(&out[start..]);
        Ok(())
    }

    /// `DecryptAndHash(ciphertext)`: appends the plaintext to `out`. On an error nothing but zeros is appended.
    pub(super) fn decrypt_and_hash(
        &mut self,
        ciphertext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), NoiseError> {
        match &mut self.cipher {
            None => out.extend_from_slice(ciphertext),
            Some(cipher) => {
                let (text, tag) = ciphertext.split_last_chunk().ok_or(NoiseError::MessageTooShort)?;
                let start = out.len();
                out.extend_from_slice(text);
                cipher.decrypt_in_place(&self.h, &mut out[start..], tag)?;
            }
        }
        self.mix_hash(ciphertext);
        Ok(())
    }

    /// `Split()`: the ciphers of the transport, that of the initiator's messages first.
    pub(super) fn split(&self) -> [CipherState; 2] {
        let keys: [_; 2] = self.hkdf(&[]);
        keys.map(|key| CipherState::new(self.provider, self.algorithm, &key))
    }

    /// `HKDF(chaining_key, input_key_material, num_outputs)` (section 4.3): RFC 5869 with `ck` as the salt and an
    /// empty info.
    fn hkdf<const N: usize>(&self, input_key_material: &[u8]) -> [Zeroizing<[u8; HASHLEN]>; N] {
        let mut flat = Zeroizing::new(vec![0; N * HASHLEN]);
        Hkdf::<Sha256>::new(Some(self.ck.as_slice()), input_key_material)
            .expand(&[], &mut flat)
            .expect("two or three hashes are below the limit of 255 of RFC 5869");
        std::array::from_fn(|i| {
            let mut output = Zeroizing::new([0; HASHLEN]);
            output.copy_from_slice(&flat[i * HASHLEN..(i + 1) * HASHLEN]);
            output
        })
    }
}
