//! The whole answer to a call.

use super::Json;
use crate::wire::envelope::RpcResponse;

/// A result and what came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// The result.
    pub result: Json,
    /// Key and value pairs of the server, in its order; with [`CallOptions::times`](super::CallOptions::times) the times of
    /// the stages come first.
    pub trailers: Vec<(String, String)>,
    /// How often the call was sent until it was answered: 1, or more after retries.
    pub attempts: u32,
}

impl Response {
    pub(super) fn new(response: RpcResponse, attempts: u32) -> Self {
        Self { result: Json::new(response.result), trailers: response.trailers, attempts }
    }

    /// The first trailer of that name.
    pub fn trailer(&self, key: &str) -> Option<&str> {
        self.trailers.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}
