//! What a handler that succeeded gives back.

use bytes::Bytes;

/// A result and what goes with it. A handler without trailers gives the result alone: `Bytes` become an answer by
/// themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The result as JSON bytes.
    pub result: Bytes,
    /// Key and value pairs for the caller, beside the result. The shell puts its own in front and sends no more of them
    /// than a message carries.
    pub trailers: Vec<(String, String)>,
}

impl From<Bytes> for Answer {
    fn from(result: Bytes) -> Self {
        Self { result, trailers: Vec::new() }
    }
}
