//! JSON as the bytes that travelled.

use super::Error;
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, sync::Arc};

/// JSON text, not parsed: arguments, results and documents pass through as they are.
///
/// What came from a server is JSON if the server says the truth; [`decode`](Self::decode) finds out.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Json(Bytes);

impl Json {
    /// Takes text that is known to be JSON.
    pub fn new(text: impl Into<Bytes>) -> Self {
        Self(text.into())
    }

    /// Writes a value.
    ///
    /// # Errors
    /// [`Error::Arguments`]: the value has no form in JSON, for example a map whose keys are not strings.
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        let text = serde_json::to_vec(value).map_err(|error| Error::Arguments(Arc::new(error)))?;
        Ok(Self(text.into()))
    }

    /// Reads a value.
    ///
    /// # Errors
    /// [`Error::Result`]: it is not JSON, or not of that type.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.0).map_err(|error| Error::Result(Arc::new(error)))
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text, without a copy.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
