//! The Noise Protocol Framework, revision 34, for `Noise_<pattern>_25519_<cipher>_SHA256`.
//!
//! The names are those of the specification (<https://noiseprotocol.org/noise.html>), so that the two can be read
//! side by side: [`CipherState`] (section 5.1), `SymmetricState` (5.2), [`HandshakeState`] (5.3), patterns (7) and
//! the `psk` modifier (9).
//!
//! Nothing in here reads a clock, draws a random number or does input and output: the ephemeral key of a handshake
//! is an argument. That makes every handshake repeatable, and lets the published vectors run on the same code that
//! a connection runs on.
//!
//! The arithmetic is behind [`CryptoProvider`]: [`rust_crypto`] is pure Rust and always there, `aws_lc` (feature
//! `server`) is faster. SHA-256, HMAC and HKDF are the `sha2`, `hmac` and `hkdf` crates with either provider.
//!
//! Where this engine is stricter than the specification, which leaves the choice to the implementation:
//!
//! - A Diffie-Hellman result of all zeros ends the handshake (sections 9.1 and 12.1 of the specification allow it to
//!   pass; RFC 7748 section 6.1 describes the check).
//! - Any error ends the handshake for good: later calls give [`NoiseError::Failed`].
//! - A key that the pattern has no use for is refused, so that nobody believes to have pinned a server, or to have
//!   shown an identity, that the pattern never looks at.
//! - A cipher without a key, which passes plaintext through, exists only inside the handshake.
#![deny(clippy::as_conversions)]

mod catalogue;
mod cipher_state;
mod error;
mod handshake_state;
mod keys;
mod known_peers;
mod pattern;
mod provider;
mod providers;
mod symmetric_state;

pub use cipher_state::{CipherError, CipherState};
pub use error::NoiseError;
pub use handshake_state::{HandshakeParameters, HandshakeState, Role, Transport};
pub use keys::{InvalidPublicKey, Psk, PublicKey, StaticSecret};
pub use pattern::{HandshakePattern, Pattern, Token};
pub use provider::{AeadKey, CipherAlgorithm, CryptoProvider, DecryptError, DhError, DhKey};
#[cfg(feature = "server")]
pub use providers::aws_lc;
pub use providers::rust_crypto;

/// Length of a Diffie-Hellman public key and of a Diffie-Hellman result, in bytes (`DHLEN` of section 4.1 for 25519).
pub const DHLEN: usize = 32;
/// Length of a hash, in bytes (`HASHLEN` of section 4.3 for SHA256).
pub const HASHLEN: usize = 32;
/// Length of a cipher key and of a pre-shared key, in bytes (sections 4.2 and 9).
pub const KEYLEN: usize = 32;
/// Length of an authentication tag, in bytes (section 4.2).
pub const TAGLEN: usize = 16;
/// Length of a nonce as both ciphers take it, in bytes (section 12.3 and 12.4).
pub const NONCELEN: usize = 12;
/// Longest Noise message, handshake or transport, tag included, in bytes (section 3): so that 16 bits can hold it.
pub const MAX_MESSAGE_LEN: usize = 65_535;
