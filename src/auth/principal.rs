//! The identity of a peer.

use std::fmt;

use crate::noise::PublicKey;

/// Who is at the other end of a connection: the key it proved to hold (patterns IK and IKpsk2), or nobody in
/// particular. It comes from the handshake alone, never from anything the peer says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    key: Option<PublicKey>,
    name: Box<str>,
}

impl Principal {
    /// The name of a peer that proved no key.
    pub const ANONYMOUS: &'static str = "anonymous";

    /// A peer that proved no key.
    pub fn anonymous() -> Self {
        Self { key: None, name: Self::ANONYMOUS.into() }
    }

    /// A peer that proved to hold the secret of `key`.
    pub fn with_key(key: PublicKey) -> Self {
        Self { key: Some(key), name: key.to_string().into() }
    }

    /// From what a finished handshake knows of the remote static key.
    pub fn from_handshake(key: Option<PublicKey>) -> Self {
        key.map_or_else(Self::anonymous, Self::with_key)
    }

    /// The proven key.
    pub fn key(&self) -> Option<PublicKey> {
        self.key
    }

    /// The key as 64 hexadecimal digits, or `anonymous`. This is what the change log records beside a write.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
