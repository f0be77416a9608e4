//! What can go wrong in a handshake.

use super::cipher_state::CipherError;
use super::provider::{DecryptError, DhError};

/// Why a handshake could not start or did not go on.
///
/// None of these is for the peer to see: it learns that the connection closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoiseError {
    /// The pattern needs our own static key and none was given.
    #[error("the pattern needs a local static key")]
    MissingLocalStatic,
    /// A local static key was given and the pattern never uses it.
    #[error("the pattern has no use for a local static key")]
    UnusedLocalStatic,
    /// The pattern needs the peer's static key beforehand and none was given.
    #[error("the pattern needs the remote static key")]
    MissingRemoteStatic,
    /// The peer's static key was given, but with this pattern it arrives in the handshake and nothing is compared.
    #[error("the pattern has no use for a remote static key")]
    UnusedRemoteStatic,
    /// The number of pre-shared keys differs from the number of `psk` tokens.
    #[error("the pattern takes {expected} pre-shared keys, {given} were given")]
    PskCount {
        /// Number of `psk` tokens in the pattern.
        expected: usize,
        /// Number of keys in the parameters.
        given: usize,
    },
    /// A message was written when it was the peer's turn, or read when it was ours.
    #[error("it is the other side's turn")]
    OutOfTurn,
    /// The last message of the pattern is behind us.
    #[error("the handshake is finished")]
    Finished,
    /// The transport keys were asked for before the last message.
    #[error("the handshake is not finished")]
    NotFinished,
    /// An earlier error ended this handshake.
    #[error("the handshake failed before")]
    Failed,
    /// The message ends before the keys of the pattern do.
    #[error("the message is too short")]
    MessageTooShort,
    /// The message would exceed [`MAX_MESSAGE_LEN`](super::MAX_MESSAGE_LEN).
    #[error("the message is too long")]
    MessageTooLong,
    /// A received message is not authentic. A received key that leads to an all-zero Diffie-Hellman result is told
    /// the same way.
    #[error("the message does not authenticate")]
    Decrypt,
    /// The peer's key leads to an all-zero Diffie-Hellman result (only while writing).
    #[error("the remote key is not acceptable")]
    Dh,
    /// The cipher has no nonce left.
    #[error("the nonces are used up")]
    NonceExhausted,
}

impl From<CipherError> for NoiseError {
    fn from(error: CipherError) -> Self {
        match error {
            CipherError::NonceExhausted => NoiseError::NonceExhausted,
            CipherError::MessageTooLong => NoiseError::MessageTooLong,
            CipherError::Decrypt => NoiseError::Decrypt,
        }
    }
}

impl From<DecryptError> for NoiseError {
    fn from(DecryptError: DecryptError) -> Self {
        NoiseError::Decrypt
    }
}

impl From<DhError> for NoiseError {
    fn from(DhError: DhError) -> Self {
        NoiseError::Dh
    }
}
