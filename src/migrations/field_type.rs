//! The types of fields.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::MigrationFault;

/// A type of one value. The names are those of TypeScript, which the first clients were written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// `string`
    String,
    /// `number`: any number of JSON.
    Number,
    /// `boolean`
    Boolean,
    /// `bigint`: a whole number of 64 bits.
    Bigint,
    /// `Date`: a Unix time, a whole number of 64 bits.
    Date,
    /// `Uint8Array`: bytes, as base64 in JSON.
    Uint8Array,
    /// `json`: anything.
    Json,
}

/// All scalars with their names and the types of Postgres that hold them in a column.
const SCALARS: &[(Scalar, &str, &str)] = &[
    (Scalar::String, "string", "TEXT"),
    (Scalar::Number, "number", "DOUBLE PRECISION"),
    (Scalar::Boolean, "boolean", "BOOLEAN"),
    (Scalar::Bigint, "bigint", "BIGINT"),
    (Scalar::Date, "Date", "BIGINT"),
    (Scalar::Uint8Array, "Uint8Array", "BYTEA"),
    (Scalar::Json, "json", "JSONB"),
];

/// The type of a field: a scalar, or an array of one. Written `string`, `string[]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldType {
    /// What a value, or an element, is.
    pub scalar: Scalar,
    /// Whether it is an array of such.
    pub is_array: bool,
}

impl FieldType {
    /// A type of one value.
    pub const fn of(scalar: Scalar) -> Self {
        Self { scalar, is_array: false }
    }

    fn row(self) -> (&'static str, &'static str) {
        let row = SCALARS.iter().find(|(scalar, ..)| *scalar == self.scalar);
        row.map(|(_, name, column)| (*name, *column)).expect("every scalar is in the table")
    }

    /// The type of a column that holds it.
    pub fn postgres(self) -> String {
        format!("{}{}", self.row().1, if self.is_array { "[]" } else { "" })
    }

    /// Whether a value is of it, as the function `raystream.is_type` says: null is of every type.
    pub fn accepts(self, value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Array(items) if self.is_array => {
                items.iter().all(|item| Self::of(self.scalar).accepts(item))
            }
            _ if self.scalar == Scalar::Json => !self.is_array,
            _ if self.is_array => false,
            Value::String(text) => match self.scalar {
                Scalar::String => true,
                Scalar::Uint8Array => is_base64(text),
                _ => false,
            },
            Value::Bool(_) => self.scalar == Scalar::Boolean,
            Value::Number(number) => match self.scalar {
                Scalar::Number => true,
                Scalar::Bigint | Scalar::Date => number.as_i64().is_some(),
                _ => false,
            },
            Value::Array(_) | Value::Object(_) => false,
        }
    }
}

/// Base64 of RFC 4648 with its padding.
fn is_base64(text: &str) -> bool {
    let body = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
    text.len().is_multiple_of(4)
        && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
}

impl FromStr for FieldType {
    type Err = MigrationFault;

    fn from_str(text: &str) -> Result<Self, MigrationFault> {
        let (name, is_array) = text.strip_suffix("[]").map_or((text, false), |name| (name, true));
        let found = SCALARS.iter().find(|(_, known, _)| *known == name);
        found
            .map(|(scalar, ..)| Self { scalar: *scalar, is_array })
            .ok_or_else(|| MigrationFault::UnknownType(text.to_owned()))
    }
}

impl TryFrom<String> for FieldType {
    type Error = MigrationFault;

    fn try_from(text: String) -> Result<Self, MigrationFault> {
        text.parse()
    }
}

impl From<FieldType> for String {
    fn from(field_type: FieldType) -> Self {
        field_type.to_string()
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.row().0, if self.is_array { "[]" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(text: &str) -> FieldType {
        text.parse().expect("a type")
    }

    #[test]
    fn names_go_there_and_back_and_others_are_refused() {
        for (_, name, column) in SCALARS {
            assert_eq!(of(name).to_string(), *name);
            assert_eq!(of(name).postgres(), *column);
            let array = format!("{name}[]");
            assert_eq!(of(&array).to_string(), array);
            assert_eq!(of(&array).postgres(), format!("{column}[]"));
        }
        for bad in ["", "text", "String", "string[][]", "[]", "number; DROP TABLE x", "string "] {
            assert!(bad.parse::<FieldType>().is_err(), "{bad}");
        }
    }

    #[test]
    fn values_are_of_their_types_only() {
        let values = [
            (json!("a b"), "string"),
            (json!(1.5), "number"),
            (json!(true), "boolean"),
            (json!(["a b"]), "string[]"),
            (json!([1.5]), "number[]"),
            (json!({"a": 1}), "json"),
        ];
        for (value, own) in &values {
            for (_, other) in &values {
                let expected = own == other || *other == "json";
                assert_eq!(of(other).accepts(value), expected, "{value} as {other}");
            }
            assert!(of(own).accepts(&Value::Null));
        }
        assert!(of("bigint").accepts(&json!(7)) && of("Date").accepts(&json!(-7)));
        assert!(!of("bigint").accepts(&json!(7.5)) && !of("bigint").accepts(&json!(u64::MAX)));
        for (text, expected) in
            [("", true), ("YQ==", true), ("YWI=", true), ("YWJj", true), ("YQ", false), ("Y===", false)]
        {
            assert_eq!(of("Uint8Array").accepts(&json!(text)), expected, "{text}");
        }
    }
}
