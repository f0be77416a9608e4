//! Values that come from the caller: parameters, and the literals of the text, which are treated like them.

use super::limits::{EXPONENT_MAX, NUMBER_LEN_MAX, PARAMS_LEN_MAX, PARAMS_MAX};
use super::{Refusal, Type};

/// A parameter, as the caller gave it in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Param {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, by its JSON text.
    Number(String),
    /// A string.
    Text(String),
    /// An array or an object, by its JSON text.
    Json(String),
    /// An array whose elements are all strings, and its JSON text.
    Texts(Vec<String>, String),
    /// An array whose elements are all whole numbers, and its JSON text.
    Ints(Vec<i64>, String),
}

/// A value that goes to the database beside the statement.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bind {
    /// Its type.
    pub ty: Type,
    /// Its text form; `None` is NULL.
    pub text: Option<String>,
}

impl Param {
    fn len(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) => 8,
            Self::Number(text) | Self::Text(text) | Self::Json(text) => text.len(),
            Self::Texts(_, text) | Self::Ints(_, text) => text.len(),
        }
    }

    /// The type that it has where nothing asks for another one.
    pub(super) fn own_type(&self) -> Type {
        match self {
            Self::Null | Self::Text(_) => Type::Text,
            Self::Bool(_) => Type::Bool,
            Self::Number(text) if text.parse::<i64>().is_ok() => Type::Int,
            Self::Number(_) => Type::Numeric,
            Self::Json(_) | Self::Texts(..) | Self::Ints(..) => Type::Jsonb,
        }
    }

    /// Bytes of its text form.
    pub(super) fn text_len(&self) -> u64 {
        u64::try_from(self.len()).unwrap_or(u64::MAX).max(8)
    }

    /// The value as one of a type. Whether the text is of that type is for the database to say, except where a short text
    /// would become a huge value.
    pub(super) fn bind(&self, ty: Type) -> Result<Bind, Refusal> {
        let text = match (self, ty) {
            (Self::Null, _) => None,
            (Self::Texts(texts, _), Type::TextArray) => Some(array(texts.iter().map(|text| quoted(text)))),
            (Self::Ints(numbers, _), Type::IntArray) => Some(array(numbers.iter().map(i64::to_string))),
            (Self::Ints(numbers, _), Type::TextArray) => Some(array(numbers.iter().map(i64::to_string))),
            (Self::Json(text) | Self::Texts(_, text) | Self::Ints(_, text), Type::Jsonb | Type::Text) => {
                Some(text.clone())
            }
            (Self::Json(_) | Self::Texts(..) | Self::Ints(..), _) => return Err(unfit(ty)),
            (Self::Bool(value), Type::Bool | Type::Text | Type::Jsonb) => Some(value.to_string()),
            (Self::Bool(_), _) => return Err(unfit(ty)),
            (Self::Number(text), _) if ty.is_number() || matches!(ty, Type::Text | Type::Jsonb) => {
                Some(text.clone())
            }
            (Self::Number(_), _) => return Err(unfit(ty)),
            (Self::Text(text), _) => Some(text.clone()),
        };
        if let Some(text) = &text {
            match ty {
                Type::Int | Type::Float | Type::Numeric => check_number(text)?,
                Type::Jsonb => check_json_numbers(text)?,
                _ => {}
            }
            if text.contains('\0') {
                return Err(Refusal::invalid("a parameter has the character U+0000"));
            }
        }
        Ok(Bind { ty, text })
    }
}

fn unfit(ty: Type) -> Refusal {
    Refusal::invalid(format!("a parameter or literal is used as {}, and is not of that type", ty.name()))
}

/// Postgres' text form of an array.
fn array(elements: impl Iterator<Item = String>) -> String {
    format!("{{{}}}", elements.collect::<Vec<_>>().join(","))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Refuses parameters that are too many or too long.
pub(super) fn check(params: &[Param]) -> Result<(), Refusal> {
    if params.len() > PARAMS_MAX {
        return Err(Refusal::invalid(format!("a statement may have {PARAMS_MAX} parameters")));
    }
    if params.iter().map(Param::len).sum::<usize>() > PARAMS_LEN_MAX {
        return Err(Refusal::invalid(format!("the parameters may have {PARAMS_LEN_MAX} bytes together")));
    }
    Ok(())
}

/// Refuses a number that would have more digits than anybody counts with: `1e131071` is one.
pub(super) fn check_number(text: &str) -> Result<(), Refusal> {
    let too_large = || Refusal::invalid("a number has too many digits, or too large an exponent");
    if text.len() > NUMBER_LEN_MAX {
        return Err(too_large());
    }
    match text.split_once(['e', 'E']) {
        Some((_, exponent)) => match exponent.trim_start_matches(['+', '-']).parse::<u32>() {
            Ok(exponent) if exponent <= EXPONENT_MAX => Ok(()),
            _ => Err(too_large()),
        },
        None => Ok(()),
    }
}

/// The same for all numbers in a JSON text. What is no JSON the database refuses.
fn check_json_numbers(text: &str) -> Result<(), Refusal> {
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) {
        rest = &rest[at..];
        if let Some(string) = rest.strip_prefix('"') {
            rest = after_string(string);
            continue;
        }
        let end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c))).unwrap_or(rest.len());
        check_number(&rest[..end])?;
        rest = &rest[end..];
    }
    Ok(())
}

/// What follows a JSON string whose opening quote is taken.
fn after_string(text: &str) -> &str {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return &text[at + 1..],
            _ => {}
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_absurd_exponents_are_refused_wherever_they_hide() {
        for bad in ["1e131071", "-1E+400", "1e99999999999", &"9".repeat(65)] {
            assert!(check_number(bad).is_err(), "{bad}");
            assert!(check_json_numbers(&format!(r#"{{"a\"":[1,{bad}]}}"#)).is_err(), "{bad}");
            assert_eq!(check_json_numbers(&format!(r#"{{"a\"{bad}":"{bad}"}}"#)), Ok(()), "a string is text");
        }
        for good in ["0", "-1.5", "1e300", "123456789012345678901234567890.5"] {
            assert_eq!(check_number(good), Ok(()));
        }
    }

    #[test]
    fn a_parameter_takes_the_type_of_its_place() {
        let bind = |param: &Param, ty| param.bind(ty).map(|bind| bind.text);
        assert_eq!(bind(&Param::Bool(false), Type::Text), Ok(Some("false".into())));
        assert_eq!(bind(&Param::Null, Type::Jsonb), Ok(None));
        assert_eq!(bind(&Param::Number("7".into()), Type::Text), Ok(Some("7".into())));
        assert!(bind(&Param::Bool(true), Type::Int).is_err());
        assert!(bind(&Param::Text("a\0".into()), Type::Text).is_err());
        let texts = Param::Texts(vec!["a\"b\\".into(), "{".into()], "[]".into());
        assert_eq!(bind(&texts, Type::TextArray), Ok(Some(r#"{"a\"b\\","{"}"#.into())));
    }
}
