//! JSON text that passes between the wire and jsonb without being parsed here.

use std::error::Error;
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use super::error::StoreError;
use super::types::{DOCUMENT_DEPTH_MAX, DOCUMENT_LEN_MAX};
use crate::json::plain_len;

/// The version byte of the binary form of jsonb; the text follows it (`jsonb_recv` in Postgres).
const JSONB_VERSION: u8 = 1;

/// JSON text. Making one checks nothing: what a caller gave is checked before it is stored ([`Json::check`]), and
/// whether it is JSON at all is Postgres' own judgement.
#[derive(Clone, PartialEq, Eq)]
pub struct Json(Bytes);

impl Json {
    /// JSON from its text.
    pub fn new(text: impl Into<Bytes>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text, shared and not copied.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// Refuses what must not reach the database.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] above [`DOCUMENT_LEN_MAX`]; [`StoreError::InvalidInput`] when it is no UTF-8, is nested
    /// deeper than [`DOCUMENT_DEPTH_MAX`], or has the character U+0000, which jsonb cannot hold.
    pub fn check(&self) -> Result<(), StoreError> {
        if self.0.len() > DOCUMENT_LEN_MAX {
            return Err(StoreError::TooLarge);
        }
        if std::str::from_utf8(&self.0).is_err() {
            return Err(StoreError::invalid("the JSON is not UTF-8"));
        }
        let mut depth = 0_usize;
        let mut rest = &self.0[..];
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            match byte {
                b'"' => rest = after_string(rest)?,
                b'[' | b'{' => {
                    depth += 1;
                    if depth > DOCUMENT_DEPTH_MAX {
                        return Err(StoreError::invalid(format!(
                            "the JSON is nested deeper than {DOCUMENT_DEPTH_MAX} levels"
                        )));
                    }
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
                0 => return Err(zero_character()),
                _ => {}
            }
        }
        Ok(())
    }
}

/// What follows a string whose opening quote was read. An open string is left for Postgres to refuse.
fn after_string(mut text: &[u8]) -> Result<&[u8], StoreError> {
    loop {
        text = &text[plain_len(text)..];
        text = match text {
            [] => return Ok(text),
            [b'"', rest @ ..] => return Ok(rest),
            [0, ..] | [b'\\', b'u', b'0', b'0', b'0', b'0', ..] => return Err(zero_character()),
            // What an escape escapes is passed over with it.
            [b'\\', _, rest @ ..] | [_, rest @ ..] => rest,
        };
    }
}

/// The refusal of U+0000.
fn zero_character() -> StoreError {
    StoreError::invalid("the character U+0000 cannot be stored")
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A document does not belong in a log.
        write!(f, "Json({} bytes)", self.0.len())
    }
}

impl ToSql for Json {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_u8(JSONB_VERSION);
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSONB
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Json {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        // A page is measured as text in Postgres, and then sent as such.
        if *ty == Type::TEXT {
            return Ok(Self(Bytes::copy_from_slice(raw)));
        }
        match raw.split_first() {
            Some((&JSONB_VERSION, text)) => Ok(Self(Bytes::copy_from_slice(text))),
            _ => Err("unknown version of the binary form of jsonb".into()),
        }
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSONB || *ty == Type::TEXT
    }
}
