//! The implementations of [`CryptoProvider`](super::CryptoProvider).

#[cfg(feature = "server")]
mod aws_lc;
mod rust_crypto;

#[cfg(feature = "server")]
pub use aws_lc::aws_lc;
pub use rust_crypto::rust_crypto;
