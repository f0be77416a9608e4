//! `CipherState`, section 5.1 of the specification.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

use super::provider::{AeadKey, CipherAlgorithm, CryptoProvider};
use super::{KEYLEN, MAX_MESSAGE_LEN, TAGLEN};

/// The nonce that only `Rekey()` uses (section 4.2). Messages end one before it.
const RESERVED_NONCE: u64 = u64::MAX;

/// Why a cipher did not take a message. The counter `n` is where it was before the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CipherError {
    /// The counter has reached 2^64-1, which no message may use.
    #[error("the nonces are used up")]
    NonceExhausted,
    /// With its tag, the message would be longer than [`MAX_MESSAGE_LEN`].
    #[error("the message is too long")]
    MessageTooLong,
    /// The message is not authentic.
    #[error("the message does not authenticate")]
    Decrypt,
}

/// A key `k` and the counter `n` of one direction (section 5.1).
///
/// It always has a key. The specification's cipher with an empty `k`, which lets plaintext pass, exists only inside
/// the handshake.
pub struct CipherState {
    provider: &'static dyn CryptoProvider,
    algorithm: CipherAlgorithm,
    key: Box<dyn AeadKey>,
    n: u64,
}

impl CipherState {
    /// `InitializeKey(key)`: the counter starts at zero.
    pub(super) fn new(
        provider: &'static dyn CryptoProvider,
        algorithm: CipherAlgorithm,
        key: &[u8; KEYLEN],
    ) -> Self {
        CipherState { provider, algorithm, key: provider.aead(algorithm, key), n: 0 }
    }

    /// `EncryptWithAd(ad, plaintext)`: replaces the plaintext in `in_out` by the ciphertext and returns the tag,
    /// which follows the ciphertext on the wire.
    ///
    /// # Errors
    ///
    /// [`CipherError::NonceExhausted`] and [`CipherError::MessageTooLong`]; `in_out` is unchanged then.
    pub fn encrypt_in_place(&mut self, ad: &[u8], in_out: &mut [u8]) -> Result<[u8; TAGLEN], CipherError> {
        let next = self.check(in_out)?;
        let tag = self.key.seal_in_place(&self.algorithm.nonce(self.n), ad, in_out);
        self.n = next;
        Ok(tag)
    }

    /// `DecryptWithAd(ad, ciphertext)`: replaces the ciphertext in `in_out` by the plaintext. `tag` is what followed
    /// the ciphertext on the wire.
    ///
    /// # Errors
    ///
    /// [`CipherError`]. `in_out` is all zeros then, and the counter has not moved, so that a forged message between
    /// two true ones could not put the two sides out of step.
    pub fn decrypt_in_place(
        &mut self,
        ad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAGLEN],
    ) -> Result<(), CipherError> {
        let next = self.check(in_out).inspect_err(|_| in_out.zeroize())?;
        let opened = self.key.open_in_place(&self.algorithm.nonce(self.n), ad, in_out, tag);
        opened.map_err(|_| CipherError::Decrypt)?;
        self.n = next;
        Ok(())
    }

    /// `Rekey()` (sections 4.2 and 11.3): the new key is the encryption of 32 zeros under the old one with the
    /// reserved nonce. The counter goes on: it is not reset.
    pub fn rekey(&mut self) {
        let mut key = Zeroizing::new([0; KEYLEN]);
        // REKEY(k) = first 32 bytes of ENCRYPT(k, 2^64-1, zerolen, zeros): those before the tag.
        let _tag = self.key.seal_in_place(&self.algorithm.nonce(RESERVED_NONCE), &[], key.as_mut_slice());
        self.key = self.provider.aead(self.algorithm, &key);
    }

    /// The counter: how many messages this direction has carried.
    pub fn nonce(&self) -> u64 {
        self.n
    }

    /// The counter after a message of this length, if there may be one.
    fn check(&self, text: &[u8]) -> Result<u64, CipherError> {
        if text.len() > MAX_MESSAGE_LEN - TAGLEN {
            return Err(CipherError::MessageTooLong);
        }
        // n + 1 overflows only at the reserved nonce itself.
        self.n.checked_add(1).ok_or(CipherError::NonceExhausted)
    }
}

impl fmt::Debug for CipherState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CipherState")
            .field("algorithm", &self.algorithm)
            .field("n", &self.n)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::rust_crypto;

    fn providers() -> Vec<&'static dyn CryptoProvider> {
        vec![
            rust_crypto(),
            #[cfg(feature = "server")]
            crate::noise::aws_lc(),
        ]
    }

    fn each(mut check: impl FnMut(&mut dyn FnMut() -> CipherState)) {
        for provider in providers() {
            for algorithm in [CipherAlgorithm::ChaChaPoly, CipherAlgorithm::AesGcm] {
                check(&mut || CipherState::new(provider, algorithm, &[7; KEYLEN]));
            }
        }
    }

    #[test]
    fn nonce_encodings_differ_in_byte_order() {
        assert_eq!(CipherAlgorithm::ChaChaPoly.nonce(0x0102), [0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(CipherAlgorithm::AesGcm.nonce(0x0102), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn a_failed_decrypt_keeps_the_counter_and_zeroes_the_buffer() {
        each(|new| {
            let (mut sender, mut receiver) = (new(), new());
            let mut record = *b"the first record";
            let tag = sender.encrypt_in_place(b"", &mut record).unwrap();
            for bit in 0..8 * (record.len() + TAGLEN) {
                let (mut forged, mut forged_tag) = (record, tag);
                match forged.get_mut(bit / 8) {
                    Some(byte) => *byte ^= 1 << (bit % 8),
                    None => forged_tag[bit / 8 - record.len()] ^= 1 << (bit % 8),
                }
                let refused = receiver.decrypt_in_place(b"", &mut forged, &forged_tag);
                assert_eq!((refused, forged, receiver.nonce()), (Err(CipherError::Decrypt), [0; 16], 0));
            }
            let mut other_ad = record;
            assert_eq!(receiver.decrypt_in_place(b"x", &mut other_ad, &tag), Err(CipherError::Decrypt));
            assert_eq!(other_ad, [0; 16]);
            receiver.decrypt_in_place(b"", &mut record, &tag).unwrap();
            assert_eq!((&record, receiver.nonce()), (b"the first record", 1));
        });
    }

    #[test]
    fn the_last_nonce_is_for_rekey_alone() {
        each(|new| {
            let (mut sender, mut receiver) = (new(), new());
            (sender.n, receiver.n) = (u64::MAX - 1, u64::MAX - 1);
            let mut last = *b"last";
            let tag = sender.encrypt_in_place(b"", &mut last).unwrap();
            receiver.decrypt_in_place(b"", &mut last, &tag).unwrap();
            assert_eq!((&last, sender.nonce(), receiver.nonce()), (b"last", u64::MAX, u64::MAX));

            let mut refused = *b"more";
            assert_eq!(sender.encrypt_in_place(b"", &mut refused), Err(CipherError::NonceExhausted));
            assert_eq!(&refused, b"more");
            assert_eq!(receiver.decrypt_in_place(b"", &mut refused, &tag), Err(CipherError::NonceExhausted));
            assert_eq!((refused, sender.nonce(), receiver.nonce()), ([0; 4], u64::MAX, u64::MAX));
            // A new key does not start the counter again.
            sender.rekey();
            assert_eq!(sender.encrypt_in_place(b"", &mut refused), Err(CipherError::NonceExhausted));
        });
    }

    #[test]
    fn rekey_changes_the_key_and_keeps_the_counter() {
        each(|new| {
            let (mut sender, mut receiver, mut left_behind) = (new(), new(), new());
            for state in [&mut sender, &mut receiver] {
                state.n = 41;
                state.rekey();
                assert_eq!(state.nonce(), 41);
            }
            left_behind.n = 41;
            let mut record = *b"after the rekey";
            let tag = sender.encrypt_in_place(b"", &mut record).unwrap();
            assert_eq!(
                left_behind.decrypt_in_place(b"", &mut record.clone(), &tag),
                Err(CipherError::Decrypt)
            );
            receiver.decrypt_in_place(b"", &mut record, &tag).unwrap();
            assert_eq!((&record, receiver.nonce()), (b"after the rekey", 42));
        });
    }

    #[test]
    fn the_longest_message_is_65535_bytes() {
        each(|new| {
            let mut state = new();
            let mut text = vec![0; MAX_MESSAGE_LEN - TAGLEN + 1];
            assert_eq!(state.encrypt_in_place(b"", &mut text), Err(CipherError::MessageTooLong));
            assert_eq!(
                state.decrypt_in_place(b"", &mut text, &[0; TAGLEN]),
                Err(CipherError::MessageTooLong)
            );
            assert_eq!(state.nonce(), 0);
            text.pop();
            state.encrypt_in_place(b"", &mut text).unwrap();
        });
    }
}
