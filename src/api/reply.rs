//! Results: JSON written as bytes, documents passed through as they came from the database.

use bytes::Bytes;

use crate::rpc::Status;
use crate::wire::registry::ErrorCode;

/// How large a result may be: a message of 1 MiB with room for the envelope around it.
pub const RESULT_MAX: usize = (1 << 20) - 1024;

/// Room that the fields beside a document take, so that most replies are written without growing.
const FIELDS_ROOM: usize = 96;

/// Writes one JSON value piece by piece.
pub(super) struct Json(Vec<u8>);

impl Json {
    /// An empty buffer with room for `documents` bytes of documents and the usual fields.
    pub(super) fn with_room(documents: usize) -> Self {
        Self(Vec::with_capacity(documents.saturating_add(FIELDS_ROOM)))
    }

    /// JSON as it stands.
    pub(super) fn raw(mut self, json: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(json.as_ref());
        self
    }

    /// A string, quoted and escaped.
    pub(super) fn string(mut self, text: &str) -> Self {
        serde_json::to_writer(&mut self.0, text).expect("a string always serialises into memory");
        self
    }

    /// An integer.
    pub(super) fn integer(mut self, number: i64) -> Self {
        serde_json::to_writer(&mut self.0, &number).expect("an integer always serialises into memory");
        self
    }

    /// The finished value, which is no result but arguments, whatever its length: theirs has a limit elsewhere.
    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from(self.0)
    }

    /// What is written so far.
    pub(super) fn written(&self) -> &[u8] {
        &self.0
    }

    /// The finished value, or PAYLOAD_TOO_LARGE when no message could carry it.
    pub(super) fn finish(self) -> Result<Bytes, Status> {
        if self.0.len() > RESULT_MAX {
            return Err(Status::new(
                ErrorCode::PAYLOAD_TOO_LARGE,
                format!("the result is larger than {RESULT_MAX} bytes"),
            ));
        }
        Ok(Bytes::from(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_and_raw_json_is_not_touched() {
        let json = Json::with_room(0).raw(r#"{"id":"#).string("a\"\n\\").raw(r#","n":"#).integer(-1).raw("}");
        assert_eq!(&json.finish().expect("small")[..], br#"{"id":"a\"\n\\","n":-1}"#);
    }

    #[test]
    fn a_result_that_no_message_carries_is_refused() {
        assert!(Json::with_room(0).raw(vec![b' '; RESULT_MAX]).finish().is_ok());
        let status = Json::with_room(0).raw(vec![b' '; RESULT_MAX + 1]).finish().expect_err("too large");
        assert_eq!(status.code, ErrorCode::PAYLOAD_TOO_LARGE);
    }
}
