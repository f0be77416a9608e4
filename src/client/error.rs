//! What can go wrong at the client, and whether trying again helps.

use super::UrlError;
use crate::conn::{ApiMisuse, ConnectionError};
use crate::wire::ErrorCode;
use crate::wire::envelope::RpcError;
use bytes::Bytes;
use std::{fmt, io, sync::Arc, time::Duration};

/// Why a call, a subscription or a connection did not come about.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server answered with an error.
    #[error("{0}")]
    Call(CallError),
    /// No answer in time. A write may have happened.
    #[error("no answer within {0:?}; a write may have happened")]
    Timeout(Duration),
    /// The connection was lost after the call was sent, or may have been sent: nobody knows whether it was done.
    #[error("the connection was lost after {method} was sent: it may have been done ({cause})")]
    UnknownOutcome {
        /// The method.
        method: String,
        /// How the connection ended.
        cause: ConnectionError,
    },
    /// There is no connection and there will be none.
    #[error("{0}")]
    Connect(Arc<ConnectError>),
    /// [`Client::close`](super::Client::close) was called.
    #[error("the client is closed")]
    Closed,
    /// The arguments or the filter are over the limit of a message (1 MiB).
    #[error("the request is longer than a message may be (1 MiB)")]
    TooLarge,
    /// The server takes no further subscription on one connection.
    #[error("too many subscriptions are open on this connection")]
    TooManySubscriptions,
    /// The arguments cannot be written as JSON.
    #[error("the arguments are not JSON: {0}")]
    Arguments(Arc<serde_json::Error>),
    /// The result is not JSON, or not of the type that was asked for.
    #[error("the result is not what was expected: {0}")]
    Result(Arc<serde_json::Error>),
    /// The system gives no random bytes for an idempotency key.
    #[error("the system's random generator failed: {0}")]
    Random(getrandom::Error),
    /// The text is no URL of a server.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// Options that cannot work together.
    #[error("these options cannot work: {0}")]
    Configuration(&'static str),
}

impl Error {
    /// Whether the same request may be sent again as it is, without the danger of doing it twice.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Call(error) => error.retryable,
            Self::Connect(error) => error.retryable(),
            _ => false,
        }
    }

    /// How long to wait before that, when the server said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Call(error) => error.retry_after,
            _ => None,
        }
    }

    /// The code of the one table of codes, for errors that have one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Call(error) => Some(error.code),
            Self::Timeout(_) => Some(ErrorCode::TIMEOUT),
            Self::UnknownOutcome { .. } => Some(ErrorCode::UNKNOWN_OUTCOME),
            Self::TooLarge => Some(ErrorCode::PAYLOAD_TOO_LARGE),
            Self::TooManySubscriptions => Some(ErrorCode::RATE_LIMITED),
            Self::Arguments(_) => Some(ErrorCode::INVALID_REQUEST),
            _ => None,
        }
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        Self::Connect(Arc::new(error))
    }
}

/// An answer of the server that is an error (RPC_ERROR).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallError {
    /// What went wrong.
    pub code: ErrorCode,
    /// The same for a person, in the server's words.
    pub message: String,
    /// Whether another try can succeed.
    pub retryable: bool,
    /// How long to wait before it.
    pub retry_after: Option<Duration>,
    /// JSON, or nothing.
    pub details: Bytes,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl From<RpcError> for CallError {
    fn from(error: RpcError) -> Self {
        let retry_after = Duration::from_millis(u64::from(error.retry_after_ms));
        Self {
            code: error.code,
            message: error.message,
            // A code that this version does not know is taken for INTERNAL_ERROR (specification, ERR-3).
            retryable: error.retryable && error.code.name().is_some(),
            retry_after: (!retry_after.is_zero()).then_some(retry_after),
            details: error.details,
        }
    }
}

/// Why there is no connection to a server.
#[derive(Debug)]
pub struct ConnectError {
    /// The server, as `host:port`.
    pub server: String,
    /// What happened.
    pub reason: ConnectReason,
}

/// The cases of [`ConnectError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectReason {
    /// The host's name has no address.
    #[error("the name cannot be resolved: {0}")]
    Resolve(io::Error),
    /// TCP gives no connection.
    #[error("{0}")]
    Reach(io::Error),
    /// Not within this time.
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    /// What answers does not take a WebSocket of ours.
    #[error("the WebSocket was refused: {0}")]
    WebSocket(String),
    /// The handshake failed, or the connection ended afterwards.
    #[error("{0}")]
    Connection(ConnectionError),
    /// The options do not give a handshake.
    #[error("{0}")]
    Options(ApiMisuse),
    /// The system gives no random bytes.
    #[error("the system's random generator failed: {0}")]
    Random(getrandom::Error),
}

impl ConnectError {
    /// Whether another try can succeed by itself.
    pub fn retryable(&self) -> bool {
        match &self.reason {
            ConnectReason::Resolve(_) | ConnectReason::Reach(_) | ConnectReason::Timeout(_) => true,
            ConnectReason::Connection(error) => error.code().is_retryable(),
            _ => false,
        }
    }

    /// Whether the server itself said, under its key, that coming back is pointless; or a proof that somebody is in
    /// between. Everything else is a hint of whoever is on the path, and never a reason to give up.
    pub(super) fn is_final(&self) -> bool {
        match &self.reason {
            ConnectReason::Connection(ConnectionError::ClosedByPeer(close)) => {
                close.code == ErrorCode::UNAUTHORIZED
            }
            ConnectReason::Connection(ConnectionError::Downgrade) | ConnectReason::Options(_) => true,
            _ => false,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        use ConnectionError as C;
        const OTHER_KEY: &str = "the server has another key than the one in the URL: it was given a new one, the URL is \
                                 old, or somebody is in between. Take the URL from the server itself";
        const NOT_OURS: &str =
            "what answers there may not be a raystream server, or something on the way cuts connections";
        Some(match &self.reason {
            ConnectReason::Reach(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                "nothing listens there: is the server started, and are address and port right?"
            }
            ConnectReason::Timeout(_) => "is the address right, and does a firewall let the port through?",
            ConnectReason::Resolve(_) => "is the host's name right?",
            ConnectReason::WebSocket(_) => "is that a raystream server, and is the path /raystream?",
            ConnectReason::Connection(error) => match error {
                C::Refused(ErrorCode::UNKNOWN_KEY) | C::Decryption => OTHER_KEY,
                C::Refused(ErrorCode::DECRYPTION_FAILED) => {
                    "the shared key (--psk) may differ from the server's"
                }
                C::Refused(ErrorCode::UNSUPPORTED_SUITE) => {
                    "the server takes none of the handshakes that these options allow"
                }
                C::ClosedByPeer(close) if close.code == ErrorCode::UNAUTHORIZED => {
                    "say who you are with --identity FILE; the server's configuration has to name its key"
                }
                C::Downgrade => "somebody in between may be pushing the connection to a weaker cipher",
                C::Truncated | C::Decode(_) | C::HandshakeTimeout => NOT_OURS,
                _ => return None,
            },
            _ => return None,
        })
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no connection to {}: {}", self.server, self.reason)
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: ErrorCode, retryable: bool) -> Error {
        let error =
            RpcError { code, message: "m".into(), retryable, retry_after_ms: 250, details: Bytes::new() };
        Error::Call(error.into())
    }

    #[test]
    fn the_servers_word_on_a_retry_counts_for_codes_that_are_known() {
        assert!(answer(ErrorCode::CONFLICT, true).retryable());
        assert!(!answer(ErrorCode::CONFLICT, false).retryable());
        assert!(!answer(ErrorCode(9_999), true).retryable());
        assert_eq!(answer(ErrorCode::CONFLICT, true).retry_after(), Some(Duration::from_millis(250)));
        assert_eq!(answer(ErrorCode::CONFLICT, true).to_string(), "CONFLICT: m");
    }

    #[test]
    fn what_may_have_happened_is_not_retryable() {
        let lost = Error::UnknownOutcome { method: "table.set".into(), cause: ConnectionError::Truncated };
        assert!(!lost.retryable() && lost.code() == Some(ErrorCode::UNKNOWN_OUTCOME));
        assert!(!Error::Timeout(Duration::from_secs(1)).retryable());
    }

    #[test]
    fn a_clear_refusal_is_never_final() {
        let error = |reason| ConnectError { server: "h:1".into(), reason: ConnectReason::Connection(reason) };
        assert!(!error(ConnectionError::Refused(ErrorCode::UNAUTHORIZED)).is_final());
        assert!(!error(ConnectionError::Refused(ErrorCode::UNKNOWN_KEY)).is_final());
        let close = crate::wire::control::Close { code: ErrorCode::UNAUTHORIZED, reason: String::new() };
        assert!(error(ConnectionError::ClosedByPeer(close)).is_final());
        assert!(error(ConnectionError::Downgrade).is_final());
    }
}
