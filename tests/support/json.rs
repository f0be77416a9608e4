//! JSON with the fields in the order in which they are written, so that files can be compared byte for byte.

use std::fmt::Write;

pub enum Json {
    Null,
    Bool(bool),
    Number(u64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(&'static str, Json)>),
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Json::Text(text.to_owned())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Json::Text(text)
    }
}

impl From<bool> for Json {
    fn from(value: bool) -> Self {
        Json::Bool(value)
    }
}

/// Numbers of up to 32 bits: every reader of JSON keeps them exact.
impl From<u32> for Json {
    fn from(number: u32) -> Self {
        Json::Number(u64::from(number))
    }
}

impl From<Vec<Json>> for Json {
    fn from(list: Vec<Json>) -> Self {
        Json::List(list)
    }
}

impl<T: Into<Json>> From<Option<T>> for Json {
    fn from(value: Option<T>) -> Self {
        value.map_or(Json::Null, Into::into)
    }
}

/// Larger numbers travel as text.
pub fn large(number: u64) -> Json {
    Json::Text(number.to_string())
}

pub fn hex(bytes: &[u8]) -> Json {
    Json::Text(super::hex(bytes))
}

/// A file of vectors.
pub fn file(vectors: Vec<Json>) -> String {
    let mut out = String::new();
    Json::Object(vec![("format", Json::Number(1)), ("vectors", Json::List(vectors))]).write(&mut out, 0);
    out.push('\n');
    out
}

impl Json {
    fn write(&self, out: &mut String, depth: usize) {
        let indent = "  ".repeat(depth + 1);
        let end = "  ".repeat(depth);
        match self {
            Json::Null => out.push_str("null"),
            Json::Bool(value) => write!(out, "{value}").unwrap(),
            Json::Number(number) => write!(out, "{number}").unwrap(),
            Json::Text(text) => write_text(out, text),
            Json::List(items) if items.is_empty() => out.push_str("[]"),
            Json::Object(fields) if fields.is_empty() => out.push_str("{}"),
            Json::List(items) => {
                for (n, item) in items.iter().enumerate() {
                    write!(out, "{}\n{indent}", if n == 0 { "[" } else { "," }).unwrap();
                    item.write(out, depth + 1);
                }
                write!(out, "\n{end}]").unwrap();
            }
            Json::Object(fields) => {
                for (n, (name, value)) in fields.iter().enumerate() {
                    write!(out, "{}\n{indent}\"{name}\": ", if n == 0 { "{" } else { "," }).unwrap();
                    value.write(out, depth + 1);
                }
                write!(out, "\n{end}}}").unwrap();
            }
        }
    }
}

fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(out, "\\{c}").unwrap(),
            c if c.is_control() => write!(out, "\\u{:04x}", u32::from(c)).unwrap(),
            c => out.push(c),
        }
    }
    out.push('"');
}
