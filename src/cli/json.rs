//! JSON that comes from the command line and JSON that goes to a terminal.

use serde_json::value::RawValue;
use std::borrow::Cow;
use std::io::{self, Read as _};

use super::Failure;
use crate::client::Json;
use crate::wire::ErrorCode;
use crate::wire::limits::MESSAGE_MAX;

/// An argument as it stands, or standard input where it is `-`.
///
/// # Errors
/// INVALID_REQUEST when standard input is no text.
pub(super) fn text(argument: &str) -> Result<String, Failure> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    // One byte over the limit is enough to know.
    let limit = u64::try_from(MESSAGE_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut text = String::new();
    let read = io::stdin().lock().take(limit).read_to_string(&mut text);
    read.map_err(|error| {
        let message = format!("standard input cannot be read as text: {error}");
        Failure::answered(ErrorCode::INVALID_REQUEST, message)
    })?;
    Ok(text)
}

/// Takes text of the user as it is, once it is known to be JSON.
///
/// # Errors
/// INVALID_REQUEST with the place, or PAYLOAD_TOO_LARGE.
pub(super) fn parse(what: &str, text: String) -> Result<Json, Failure> {
    raw(what, text).map(|raw| Json::new(String::from(Box::<str>::from(raw))))
}

/// The same as a part of a larger text: numbers keep their digits.
///
/// # Errors
/// As [`parse`].
pub(super) fn raw(what: &str, text: String) -> Result<Box<RawValue>, Failure> {
    if text.len() > MESSAGE_MAX {
        let message = format!("{what} is longer than a message may be (1 MiB)");
        return Err(Failure::answered(ErrorCode::PAYLOAD_TOO_LARGE, message));
    }
    RawValue::from_string(text).map_err(|error| {
        Failure::answered(ErrorCode::INVALID_REQUEST, format!("{what} is not JSON: {error}"))
    })
}

/// JSON of the server on one line, with nothing in it that drives a terminal; `None` when it is not JSON.
///
/// The text is otherwise as it came: numbers keep their digits. Between tokens a line end is white space, and the control
/// characters that JSON allows in a string, which no keyboard has, are written as escapes.
pub(super) fn printable(json: &Json) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(json.as_bytes()).ok()?;
    let text = serde_json::from_str::<&RawValue>(text).ok()?.get();
    // U+007F is one byte; U+0080 to U+009F start with C2.
    if !text.bytes().any(|byte| matches!(byte, b'\n' | b'\r' | b'\t' | 0x7f | 0xc2)) {
        return Some(Cow::Borrowed(text));
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => shown.push(' '),
            c if c.is_control() => shown.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => shown.push(c),
        }
    }
    Some(Cow::Owned(shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_json_is_refused_with_its_place() {
        assert_eq!(parse("it", "{\"a\": 1}".into()).expect("JSON").as_bytes(), b"{\"a\": 1}");
        let number = "123456789012345678901.10e400";
        assert_eq!(raw("it", format!(" {number}\n")).expect("JSON").get(), number);
        for (text, place) in [("", "line 1 column 0"), ("{\"a\" 1}", "line 1 column 6"), ("{} x", "column 4")]
        {
            let failure = format!("{:?}", parse("it", text.into()).expect_err("not JSON"));
            assert!(failure.contains(place) && failure.contains("INVALID_REQUEST"), "{failure}");
        }
        assert!(parse("it", format!("\"{}\"", "x".repeat(MESSAGE_MAX))).is_err());
    }

    #[test]
    fn what_is_printed_is_one_line_and_the_same_value() {
        let shown = |text: &str| printable(&Json::new(text.to_owned())).map(Cow::into_owned);
        assert_eq!(
            shown(" {\"n\": 1.10e400,\n\t\"s\":\"ä\"} ").as_deref(),
            Some("{\"n\": 1.10e400,  \"s\":\"ä\"}")
        );
        let hostile = "\"\u{9b}2J\u{7f}©\"";
        let text = shown(hostile).expect("JSON");
        assert_eq!(text, "\"\\u009b2J\\u007f©\"");
        assert_eq!(
            serde_json::from_str::<String>(&text).expect("JSON"),
            serde_json::from_str::<String>(hostile).expect("JSON")
        );
        assert_eq!(shown("not json"), None);
        assert_eq!(printable(&Json::new(&b"\"\xff\""[..])), None);
    }
}
