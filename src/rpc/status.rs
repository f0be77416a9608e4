//! The failure of a call, in the words the peer gets.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::wire::registry::ErrorCode;

/// Why a call failed. All of it is shown to the peer, so none of it may hold SQL text, a secret, or anything about data
/// that the caller may not see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Status {
    /// One of the registry's codes whose scope is a call.
    pub code: ErrorCode,
    /// One sentence for a person.
    pub message: Cow<'static, str>,
    /// How long to wait before another try, when the server knows.
    pub retry_after: Option<Duration>,
    /// A JSON value for programs, or nothing.
    pub details: Option<Bytes>,
}

impl Status {
    /// A failure with a code and a sentence.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), retry_after: None, details: None }
    }

    /// The arguments are not what the method takes.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::INVALID_REQUEST, message)
    }

    /// A fault of the server. The peer learns nothing but that; the cause belongs in the log.
    pub fn internal() -> Self {
        Self::new(ErrorCode::INTERNAL_ERROR, "the server failed; its log has the cause")
    }

    /// Adds how long to wait before another try.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Adds a JSON value for programs.
    #[must_use]
    pub fn with_details(mut self, json: Bytes) -> Self {
        self.details = Some(json);
        self
    }
}

impl fmt::Display for Status {
    /// `CODE: message`, as the command line prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}
