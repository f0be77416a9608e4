//! Why a connection ended, and the one table from that to wire codes.

use crate::wire::{DecodeError, ErrorCode, control::Close, handshake::InitError};

/// The end of a connection. Errors of one call or subscription are not here: they are messages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// Bytes that the specification does not allow.
    #[error("the peer sent bytes that are not allowed: {0}")]
    Decode(#[from] DecodeError),
    /// Well-formed bytes at a moment, or in a number, that the specification does not allow.
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// A handshake message or a record did not authenticate. One error for all causes.
    #[error("a message did not authenticate")]
    Decryption,
    /// HANDSHAKE_INIT has another version.
    #[error("version {0} of the protocol is not spoken here")]
    UnsupportedVersion(u8),
    /// HANDSHAKE_INIT has a suite that is unknown or not allowed here.
    #[error("suite {0:#04x} is not offered here")]
    UnsupportedSuite(u8),
    /// HANDSHAKE_INIT means a key that is not ours.
    #[error("the client means another server key")]
    UnknownKey,
    /// The server refused in clear: a hint from whoever is on the path.
    #[error("the server refused the handshake: {0}: {meaning}", meaning = .0.meaning())]
    Refused(ErrorCode),
    /// The server takes a suite that this client prefers to the one in use.
    #[error("the handshake was pushed to a weaker suite")]
    Downgrade,
    /// The transport ended without CLOSE.
    #[error("the connection was cut off without CLOSE")]
    Truncated,
    /// Nothing was heard for the idle timeout.
    #[error("nothing was heard from the peer for too long")]
    IdleTimeout,
    /// The handshake took too long.
    #[error("the handshake was not finished in time")]
    HandshakeTimeout,
    /// The peer's budget for refusals and ended subscriptions is spent.
    #[error("the peer made too many requests that were cancelled or refused")]
    AbuseBudget,
    /// The record counter is at its end.
    #[error("the keys of this connection are used up")]
    KeysExhausted,
    /// The peer sent CLOSE.
    #[error("the peer closed the connection: {code}: {reason}", code = .0.code, reason = .0.reason)]
    ClosedByPeer(Close),
    /// This side sent CLOSE on its own will.
    #[error("the connection was closed here: {code}: {reason}", code = .0.code, reason = .0.reason)]
    ClosedHere(Close),
}

impl ConnectionError {
    /// The code that stands for this error on the wire and in reports.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Decode(_) | Self::Protocol(_) => ErrorCode::PROTOCOL_ERROR,
            Self::Decryption => ErrorCode::DECRYPTION_FAILED,
            Self::UnsupportedVersion(_) => ErrorCode::UNSUPPORTED_VERSION,
            Self::UnsupportedSuite(_) => ErrorCode::UNSUPPORTED_SUITE,
            Self::UnknownKey => ErrorCode::UNKNOWN_KEY,
            Self::Refused(code) => *code,
            Self::Downgrade => ErrorCode::DOWNGRADE,
            Self::Truncated => ErrorCode::TRUNCATED,
            Self::IdleTimeout => ErrorCode::IDLE_TIMEOUT,
            Self::HandshakeTimeout => ErrorCode::HANDSHAKE_TIMEOUT,
            Self::AbuseBudget => ErrorCode::RATE_LIMITED,
            Self::KeysExhausted => ErrorCode::INVALID_NONCE,
            Self::ClosedByPeer(close) | Self::ClosedHere(close) => close.code,
        }
    }

    /// Whether the end was orderly.
    pub fn is_orderly(&self) -> bool {
        matches!(self, Self::ClosedByPeer(close) | Self::ClosedHere(close)
            if matches!(close.code, ErrorCode::NO_ERROR | ErrorCode::GOING_AWAY | ErrorCode::SESSION_EXPIRED))
    }

    /// What the peer is told in CLOSE: never more than the code's own meaning and the rule that was broken.
    pub(super) fn to_close(&self) -> Close {
        let reason = match self {
            Self::Decode(error) => error.to_string(),
            Self::Protocol(rule) => (*rule).to_owned(),
            _ => String::new(),
        };
        Close { code: self.code(), reason }
    }
}

impl From<InitError> for ConnectionError {
    fn from(error: InitError) -> Self {
        match error {
            InitError::Malformed(error) => Self::Decode(error),
            InitError::Version(version) => Self::UnsupportedVersion(version),
            InitError::Suite(suite) => Self::UnsupportedSuite(suite),
        }
    }
}

/// A command that the caller could have known to be impossible. Never caused by a peer's bytes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApiMisuse {
    /// Commands of one side given to the other.
    #[error("this side of the connection does not have that command")]
    WrongSide,
    /// The handshake is not done, or the connection is over.
    #[error("the connection is not open")]
    NotOpen,
    /// The stream is not open, or not of that kind.
    #[error("the stream is not open for that")]
    NoSuchStream,
    /// The message is over its limit.
    #[error("the message is longer than its limit")]
    MessageTooLarge,
    /// The server's limit of calls or subscriptions is reached.
    #[error("too many calls or subscriptions are open on this connection")]
    TooManyStreams,
    /// Every stream number is used: connect again.
    #[error("the stream numbers of this connection are used up")]
    StreamsExhausted,
    /// The server sent GOAWAY: open streams elsewhere.
    #[error("the server is going away")]
    GoingAway,
    /// The subscription has no credit left for another item.
    #[error("no credit is left on the stream")]
    NoCredit,
    /// More credit would be open on the stream than 2^31-1 items.
    #[error("more credit than fits")]
    TooMuchCredit,
    /// SUBSCRIBED goes before the first item.
    #[error("the subscription has no position yet")]
    NotSubscribed,
    /// A configuration that cannot work.
    #[error("the configuration cannot work: {0}")]
    Configuration(&'static str),
}
