//! Arguments: one JSON object, read strictly and without building a tree.
//!
//! Every field is kept as the bytes the caller sent. A field the method does not know is refused: a misspelt
//! `if_version` that is silently dropped would turn a guarded write into an unguarded one.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{self, Deserialize, Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::json;
use crate::rpc::{Call, Encoding, Status, Untrusted};

/// How deep arrays and objects may nest in arguments, the outermost object included: what one look at the text
/// counts. Postgres parses JSON recursively too.
pub const JSON_DEPTH_MAX: usize = json::DEPTH_MAX;

/// How many fields the method with the most has (`table.search`).
const FIELDS_MAX: usize = 11;

/// What a call without arguments means.
const NO_ARGS: &[u8] = b"{}";

/// The arguments of one call.
pub(super) struct Args<'a> {
    bytes: &'a Bytes,
    names: &'static [&'static str],
    values: [Option<&'a RawValue>; FIELDS_MAX],
}

impl<'a> Args<'a> {
    /// Reads the arguments of a method that takes the fields `names`, at most [`FIELDS_MAX`].
    pub(super) fn parse(call: &'a Call, names: &'static [&'static str]) -> Result<Self, Status> {
        let json = text(call)?;
        let mut reader = serde_json::Deserializer::from_str(json);
        let values = reader
            .deserialize_any(Fields { names })
            .and_then(|values| reader.end().map(|()| values))
            .map_err(|error| invalid(&error))?;
        Ok(Self { bytes: &call.args, names, values })
    }

    /// A field that has to be there and a string.
    pub(super) fn string(&self, name: &'static str) -> Result<Cow<'a, str>, Status> {
        let raw = self.required(name)?;
        let Text(text) = read(name, raw, "a string")?;
        Ok(text)
    }

    /// A string that may be absent or null.
    pub(super) fn optional_string(&self, name: &'static str) -> Result<Option<Cow<'a, str>>, Status> {
        match self.nullable(name) {
            Some(raw) => read(name, raw, "a string").map(|Text(text)| Some(text)),
            None => Ok(None),
        }
    }

    /// An integer that may be absent, and may not be null: a null where a number was meant is a mistake of the caller.
    pub(super) fn optional_integer(&self, name: &'static str) -> Result<Option<i64>, Status> {
        self.get(name).map(|raw| read(name, raw, "an integer")).transpose()
    }

    /// A truth value that may be absent or null.
    pub(super) fn optional_bool(&self, name: &'static str) -> Result<Option<bool>, Status> {
        self.nullable(name).map(|raw| read(name, raw, "true or false")).transpose()
    }

    /// A count that may be absent or null.
    pub(super) fn optional_count(&self, name: &'static str) -> Result<Option<u32>, Status> {
        self.nullable(name).map(|raw| read(name, raw, "a whole number from 0 to 4294967295")).transpose()
    }

    /// A list of strings that may be absent or null.
    pub(super) fn optional_names(&self, name: &'static str) -> Result<Option<Vec<String>>, Status> {
        self.nullable(name).map(|raw| read(name, raw, "an array of strings")).transpose()
    }

    /// Any JSON value that has to be there, null included: the caller's own bytes, not a copy.
    pub(super) fn json(&self, name: &'static str) -> Result<Bytes, Status> {
        self.required(name).map(|raw| self.bytes.slice_ref(raw.get().as_bytes()))
    }

    /// The elements of a JSON array that may be absent or null.
    pub(super) fn optional_array(&self, name: &'static str) -> Result<Vec<&'a RawValue>, Status> {
        self.nullable(name).map_or(Ok(Vec::new()), |raw| read(name, raw, "a JSON array"))
    }

    /// A JSON object that may be absent or null.
    pub(super) fn optional_object(&self, name: &'static str) -> Result<Option<Bytes>, Status> {
        let Some(raw) = self.nullable(name) else { return Ok(None) };
        is_object(name, raw)?;
        Ok(Some(self.bytes.slice_ref(raw.get().as_bytes())))
    }

    fn get(&self, name: &'static str) -> Option<&'a RawValue> {
        let at = self.names.iter().position(|known| *known == name);
        at.and_then(|at| self.values.get(at).copied().flatten())
    }

    fn nullable(&self, name: &'static str) -> Option<&'a RawValue> {
        self.get(name).filter(|raw| raw.get() != "null")
    }

    fn required(&self, name: &'static str) -> Result<&'a RawValue, Status> {
        self.get(name).ok_or_else(|| Status::invalid(format!("the field `{name}` is missing")))
    }
}

/// The transaction that a call of a method on documents names.
///
/// It is looked for before the method reads its arguments, so the usual call, which has none, pays for a search in its bytes
/// alone: a key `sid` is these letters in quotes, or has one of them as `\u00..`.
pub(super) fn sid(call: &Call) -> Result<Option<String>, Status> {
    #[derive(serde::Deserialize)]
    struct Sid<'a> {
        #[serde(borrow, default, deserialize_with = "present")]
        sid: Option<&'a RawValue>,
    }
    /// Null is there too.
    fn present<'de, D: de::Deserializer<'de>>(value: D) -> Result<Option<&'de RawValue>, D::Error> {
        <&RawValue>::deserialize(value).map(Some)
    }
    let has = |pattern: &[u8]| memchr::memmem::find(&call.args, pattern).is_some();
    if call.encoding != Encoding::Json || !(has(br#""sid""#) || has(br"\u00")) {
        return Ok(None);
    }
    match serde_json::from_str(text(call)?) {
        Ok(Sid { sid: Some(raw) }) => read("sid", raw, "a string").map(|Text(sid)| Some(sid.into_owned())),
        Ok(Sid { sid: None }) => Ok(None),
        Err(error) if error.is_data() => Err(invalid(&error)),
        // The method says what is wrong.
        Err(_) => Ok(None),
    }
}

/// The arguments as text that is not nested too deeply. Not yet known to be JSON.
pub(super) fn text(call: &Call) -> Result<&str, Status> {
    let text = utf8(call)?;
    check_depth(text.as_bytes())?;
    Ok(text)
}

/// The bytes of the arguments, which are to be JSON.
fn bytes(call: &Call) -> Result<&[u8], Status> {
    if call.encoding != Encoding::Json {
        return Err(Status::invalid("this method takes its arguments as JSON (encoding 0)"));
    }
    Ok(if call.args.is_empty() { NO_ARGS } else { &call.args })
}

/// The arguments as text.
fn utf8(call: &Call) -> Result<&str, Status> {
    std::str::from_utf8(bytes(call)?).map_err(|error| {
        Status::invalid(format!("the arguments are not UTF-8 at byte {}", error.valid_up_to()))
    })
}

/// Whether the arguments are one JSON object, whatever is in it.
pub(super) fn check_object(call: &Call) -> Result<(), Status> {
    let json = bytes(call)?;
    match json::check(json) {
        Ok(()) => {}
        Err(json::Fault::TooDeep) => return Err(too_deep()),
        Err(json::Fault::Malformed) => {
            // It is read again, by who says what is wrong and where.
            let _refused: IgnoredAny = serde_json::from_str(utf8(call)?).map_err(|error| invalid(&error))?;
        }
    }
    match json.trim_ascii_start().first() {
        Some(b'{') => Ok(()),
        _ => Err(Status::invalid("the arguments have to be a JSON object")),
    }
}

/// Counts brackets outside strings. On text that is not JSON the count means nothing, and the parser refuses it.
fn check_depth(json: &[u8]) -> Result<(), Status> {
    let mut depth = 0_usize;
    let mut rest = json;
    while let Some((byte, after)) = rest.split_first() {
        rest = match byte {
            b'"' => after_string(after),
            _ => after,
        };
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > JSON_DEPTH_MAX {
                    return Err(too_deep());
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

fn too_deep() -> Status {
    Status::invalid(format!("the arguments nest deeper than {JSON_DEPTH_MAX} levels"))
}

/// What follows a string whose opening quote is already taken; nothing, if it has no end. Most bytes of most documents are
/// in strings, so that those are searched many at a time.
fn after_string(mut text: &[u8]) -> &[u8] {
    while let Some(at) = memchr::memchr2(b'"', b'\\', text) {
        let is_end = text[at] == b'"';
        // What an escape escapes is skipped with it.
        text = text.get(at + if is_end { 1 } else { 2 }..).unwrap_or_default();
        if is_end {
            return text;
        }
    }
    &[]
}

fn is_object(name: &str, raw: &RawValue) -> Result<(), Status> {
    if raw.get().starts_with('{') {
        return Ok(());
    }
    Err(wrong_type(name, "a JSON object", raw))
}

fn read<'a, T: Deserialize<'a>>(name: &str, raw: &'a RawValue, expected: &str) -> Result<T, Status> {
    serde_json::from_str(raw.get()).map_err(|_| wrong_type(name, expected, raw))
}

fn wrong_type(name: &str, expected: &str, raw: &RawValue) -> Status {
    let found = match raw.get().as_bytes().first() {
        Some(b'{') => "an object".to_owned(),
        Some(b'[') => "an array".to_owned(),
        Some(b'"') => "a string".to_owned(),
        _ => format!("`{}`", Untrusted::new(raw.get())),
    };
    Status::invalid(format!("the field `{name}` has to be {expected}, not {found}"))
}

/// The parser's words with the place; what they quote of the caller's text is made harmless.
fn invalid(error: &serde_json::Error) -> Status {
    let text = error.to_string();
    let shown = Untrusted::new(&text);
    Status::invalid(match error.classify() {
        serde_json::error::Category::Data => format!("{shown}"),
        _ => format!("the arguments are not JSON: {shown}"),
    })
}

/// A string without a copy where it holds no escape.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// Reads an object into one slot for each known field.
struct Fields {
    names: &'static [&'static str],
}

impl<'de> Visitor<'de> for Fields {
    type Value = [Option<&'de RawValue>; FIELDS_MAX];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object with the arguments")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = [None; FIELDS_MAX];
        while let Some(Text(key)) = map.next_key()? {
            let slot = self.names.iter().position(|name| *name == key).and_then(|at| values.get_mut(at));
            let Some(slot) = slot else {
                return Err(de::Error::custom(Unknown { key: &key, names: self.names }));
            };
            if slot.is_some() {
                return Err(de::Error::custom(format_args!("the field `{key}` is there twice")));
            }
            *slot = Some(map.next_value()?);
        }
        Ok(values)
    }
}

/// The sentence about a field that the method does not know.
struct Unknown<'a> {
    key: &'a str,
    names: &'static [&'static str],
}

impl fmt::Display for Unknown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Short enough to leave room for the names within what `Untrusted` shows.
        let shown: String = self.key.chars().take(40).collect();
        write!(f, "the field `{shown}` is not known here; ")?;
        if self.names.is_empty() {
            return f.write_str("this method takes no arguments");
        }
        write!(f, "known are {}", self.names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(args: impl Into<Vec<u8>>) -> Call {
        Call {
            method: "m".into(),
            encoding: Encoding::Json,
            args: Bytes::from(args.into()),
            idempotency_key: None,
            items: crate::rpc::Items::default(),
        }
    }

    const NAMES: &[&str] = &["table", "id", "data", "if_version", "filter"];

    fn refusal(args: impl Into<Vec<u8>>) -> String {
        let call = call(args);
        let refused = match Args::parse(&call, NAMES) {
            Err(status) => status,
            Ok(args) => args
                .string("table")
                .and_then(|_| args.optional_string("id"))
                .and_then(|_| args.optional_integer("if_version"))
                .and_then(|_| args.optional_object("filter"))
                .and_then(|_| args.json("data"))
                .expect_err("one field is wrong"),
        };
        assert_eq!(refused.code, crate::wire::registry::ErrorCode::INVALID_REQUEST);
        refused.message.into_owned()
    }

    #[test]
    fn fields_come_out_as_they_were_sent() {
        let call =
            call(r#" {"table":"a\u0062","data": {"x" : [1, 1.0,1e0]} ,"if_version":-3,"filter":null} "#);
        let args = Args::parse(&call, NAMES).expect("valid");
        assert_eq!(args.string("table").expect("a string"), "ab");
        assert_eq!(&args.json("data").expect("present")[..], br#"{"x" : [1, 1.0,1e0]}"#);
        assert_eq!(args.optional_integer("if_version"), Ok(Some(-3)));
        assert_eq!(args.optional_object("filter"), Ok(None));
        assert_eq!(args.optional_string("id"), Ok(None));
    }

    #[test]
    fn a_transaction_is_found_however_its_key_is_written_and_only_at_the_top() {
        let found = |args: &str| sid(&call(args));
        assert_eq!(found(r#"{"table":"t","sid":"x"}"#), Ok(Some("x".to_owned())));
        assert_eq!(found(r#"{"s\u0069d":"\u0078"}"#), Ok(Some("x".to_owned())));
        for without in ["", "{}", r#"{"data":{"sid":"x"}}"#, r#"{"data":"\u0001"}"#, r#"{"sid":"#] {
            assert_eq!(found(without), Ok(None), "{without}");
        }
        // A caller who means a transaction does not write outside of it by mistake.
        for wrong in
            [r#"{"sid":null}"#, r#"{"sid":5}"#, r#"{"sid":"x","sid":"y"}"#, r#"{"sid":"x","s\u0069d":"y"}"#]
        {
            assert!(found(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_arguments_are_an_empty_object() {
        let call = call("");
        let args = Args::parse(&call, NAMES).expect("valid");
        assert_eq!(args.string("table").expect_err("missing").message, "the field `table` is missing");
    }

    #[test]
    fn every_refusal_says_which_field_or_where() {
        for (args, expected) in [
            (
                r#"{"table":"a","tabel":1}"#,
                "the field `tabel` is not known here; known are table, id, data, if_version, filter at line 1 column 20",
            ),
            (r#"{"table":"a","table":"b"}"#, "the field `table` is there twice at line 1 column 20"),
            (r#"{"table":5}"#, "the field `table` has to be a string, not `5`"),
            (r#"{"table":null}"#, "the field `table` has to be a string, not `null`"),
            (r#"{"table":"a","id":{}}"#, "the field `id` has to be a string, not an object"),
            (
                r#"{"table":"a","if_version":"1"}"#,
                "the field `if_version` has to be an integer, not a string",
            ),
            (r#"{"table":"a","if_version":null}"#, "the field `if_version` has to be an integer, not `null`"),
            (r#"{"table":"a","if_version":1.5}"#, "the field `if_version` has to be an integer, not `1.5`"),
            (
                r#"{"table":"a","if_version":9223372036854775808}"#,
                "the field `if_version` has to be an integer, not `9223372036854775808`",
            ),
            (r#"{"table":"a","filter":[1]}"#, "the field `filter` has to be a JSON object, not an array"),
            (r#"{"table":"a"}"#, "the field `data` is missing"),
            ("not json", "the arguments are not JSON: expected ident at line 1 column 2"),
            (
                r#"{"table":"a""#,
                "the arguments are not JSON: EOF while parsing an object at line 1 column 12",
            ),
            (r#"{"table":"a"} x"#, "the arguments are not JSON: trailing characters at line 1 column 15"),
        ] {
            assert_eq!(refusal(args), expected, "{args}");
        }
        assert!(
            refusal("[1]").starts_with("invalid type: sequence, expected a JSON object with the arguments")
        );
        assert_eq!(refusal(&b"{\"table\":\"\xff\"}"[..]), "the arguments are not UTF-8 at byte 10");
        let hostile = refusal("{\"\\u001b[31m\\n\":1}");
        assert!(hostile.starts_with("the field `\\u{1b}[31m\\u{a}` is not known here"), "{hostile}");
    }

    #[test]
    fn depth_is_bounded_before_anything_is_parsed() {
        let nested =
            |depth: usize| format!(r#"{{"data":{}1{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(Args::parse(&call(nested(JSON_DEPTH_MAX)), NAMES).is_ok());
        assert!(refusal(nested(JSON_DEPTH_MAX + 1)).contains("nest deeper than 128 levels"));
        assert!(refusal("[".repeat(1 << 20)).contains("nest deeper"));
        // Brackets inside a string are text.
        let text = format!(r#"{{"data":"{}\"{}"}}"#, "[".repeat(500), "{".repeat(500));
        assert!(Args::parse(&call(text), NAMES).is_ok());
    }

    #[test]
    fn other_encodings_are_refused() {
        let call = Call { encoding: Encoding::Raw, ..call("{}") };
        assert!(Args::parse(&call, NAMES).is_err());
    }
}
