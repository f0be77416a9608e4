//! References in the arguments of a batch: `{"$ref": [0, "id"]}` stands for that part of an earlier result.
//!
//! Everything else is copied byte for byte, so that numbers and strings stay what the caller wrote.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The key of an object that stands for a part of an earlier result.
const REF: &str = "$ref";

/// The key of an object that stands for its value as it is: how a `$ref` is written that is none.
const LITERAL: &str = "$literal";

/// Bytes of earlier results that the references of one batch may be looked up in, in sum: each step of a path reads what it
/// is a part of. A thousand paths of two steps into results of 8 KiB.
pub(super) const LOOKUP_MAX: usize = 16 * 1024 * 1024;

/// What may still be used up by a batch.
#[derive(Debug)]
pub(super) struct Budget {
    /// Bytes of arguments that may be written.
    pub(super) args: usize,
    /// Bytes of results that may be read.
    pub(super) lookup: usize,
}

/// Why arguments have no expanded form.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A reference is not one, or leads nowhere.
    Invalid(String),
    /// The batch is over its budget.
    TooLarge,
}

fn invalid(message: impl Into<String>) -> Fault {
    Fault::Invalid(message.into())
}

/// The arguments with every reference replaced. `text` is JSON.
pub(super) fn expand(text: &str, results: &[Bytes], budget: &mut Budget) -> Result<Vec<u8>, Fault> {
    let mut expander =
        Expander { text: text.as_bytes(), at: 0, results, budget, out: Vec::with_capacity(text.len()) };
    expander.value()?;
    Ok(expander.out)
}

struct Expander<'a> {
    text: &'a [u8],
    at: usize,
    results: &'a [Bytes],
    budget: &'a mut Budget,
    out: Vec<u8>,
}

impl<'a> Expander<'a> {
    fn value(&mut self) -> Result<(), Fault> {
        match self.next_byte() {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            _ => {
                let scalar = self.skip_value();
                self.write(scalar)
            }
        }
    }

    fn array(&mut self) -> Result<(), Fault> {
        self.at += 1;
        self.write(b"[")?;
        let mut is_first = true;
        while self.next_byte().is_some_and(|byte| byte != b']') {
            if !is_first {
                self.write(b",")?;
            }
            is_first = false;
            self.value()?;
            self.comma();
        }
        self.at += 1;
        self.write(b"]")
    }

    fn object(&mut self) -> Result<(), Fault> {
        self.at += 1;
        let mut is_first = true;
        while self.next_byte().is_some_and(|byte| byte != b'}') {
            let key = self.skip_value();
            // The colon.
            self.next_byte();
            self.at += 1;
            let name = name(key);
            if name == REF || name == LITERAL {
                let is_alone = is_first;
                self.next_byte();
                let value = self.skip_value();
                if !is_alone || self.next_byte() != Some(b'}') {
                    return Err(invalid(format!("`{name}` has to be the only key of its object")));
                }
                self.at += 1;
                let value = if name == REF { self.resolve(value)? } else { value };
                return self.write(value);
            }
            self.write(if is_first { b"{" } else { b"," })?;
            is_first = false;
            self.write(key)?;
            self.write(b":")?;
            self.value()?;
            self.comma();
        }
        self.at += 1;
        self.write(if is_first { b"{}" } else { b"}" })
    }

    /// The part of an earlier result that a reference names.
    fn resolve(&mut self, reference: &[u8]) -> Result<&'a [u8], Fault> {
        let shape = || invalid("`$ref` is an array: the place of an earlier call, then keys and positions");
        let steps: Vec<Step<'_>> = serde_json::from_slice(reference).map_err(|_| shape())?;
        let (Some(Step::Position(call)), path) = (steps.first(), steps.get(1..).unwrap_or_default()) else {
            return Err(shape());
        };
        let earlier = self.results.get(*call).ok_or_else(|| invalid("`$ref` names no earlier call"))?;
        let mut part = std::str::from_utf8(earlier).map_err(|_| invalid("the earlier result is no text"))?;
        for step in path {
            self.budget.lookup = self.budget.lookup.checked_sub(part.len()).ok_or(Fault::TooLarge)?;
            let found = match step {
                Step::Position(at) => {
                    let items: Vec<&RawValue> = serde_json::from_str(part).unwrap_or_default();
                    items.get(*at).copied()
                }
                Step::Key(key) => {
                    let fields: HashMap<Cow<'_, str>, &RawValue> =
                        serde_json::from_str(part).unwrap_or_default();
                    fields.get(&**key).copied()
                }
            };
            part = found.ok_or_else(|| invalid("the path of a `$ref` leads nowhere"))?.get();
        }
        Ok(part.as_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.budget.args = self.budget.args.checked_sub(bytes.len()).ok_or(Fault::TooLarge)?;
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    /// Passes over spaces.
    fn next_byte(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn comma(&mut self) {
        if self.next_byte() == Some(b',') {
            self.at += 1;
        }
    }

    /// Passes over one value; gives its bytes.
    fn skip_value(&mut self) -> &'a [u8] {
        let from = self.at;
        let mut depth = 0_usize;
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b'"' => self.skip_string(),
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' if depth == 0 => break,
                b'}' | b']' => {
                    depth -= 1;
                    self.at += 1;
                }
                b',' | b':' if depth == 0 => break,
                byte if depth == 0 && byte.is_ascii_whitespace() => break,
                _ => {
                    self.at += 1;
                    continue;
                }
            }
            if depth == 0 {
                break;
            }
        }
        self.text.get(from..self.at).unwrap_or_default()
    }

    /// Passes over a string, from its opening quote.
    fn skip_string(&mut self) {
        self.at += 1;
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b'"' => {
                    self.at += 1;
                    return;
                }
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at = self.text.len();
    }
}

/// The key of an object, without its quotes and escapes.
fn name(key: &[u8]) -> Cow<'_, str> {
    match key {
        [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => String::from_utf8_lossy(inner),
        quoted => serde_json::from_slice::<String>(quoted).unwrap_or_default().into(),
    }
}

/// A step of a path.
#[derive(Deserialize)]
#[serde(untagged)]
enum Step<'a> {
    Position(usize),
    #[serde(borrow)]
    Key(Cow<'a, str>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Vec<Bytes> {
        vec![
            Bytes::from_static(br#"{"id":"a\u0062","n":[1.50,{"deep":"x"}],"":null}"#),
            Bytes::from_static(b"null"),
        ]
    }

    fn with(text: &str, args: usize, lookup: usize) -> Result<String, Fault> {
        let mut budget = Budget { args, lookup };
        expand(text, &results(), &mut budget).map(|out| String::from_utf8(out).expect("it was text"))
    }

    fn expanded(text: &str) -> Result<String, Fault> {
        with(text, 1_000, 1_000)
    }

    #[test]
    fn parts_of_earlier_results_take_the_place_of_references() {
        for (text, expected) in [
            (r#"{"$ref":[0,"id"]}"#, r#""a\u0062""#),
            (r#"{"id": {"$ref": [0, "id"]}, "n": 1.0 }"#, r#"{"id":"a\u0062","n":1.0}"#),
            (r#"[ {"$ref":[0,"n",0]} , {"$ref":[0,"n",1,"deep"]},{"$ref":[1]} ]"#, r#"[1.50,"x",null]"#),
            (r#"{"a":{"\u0024ref":[0,""]}}"#, r#"{"a":null}"#),
            (r#"{"$literal":{"$ref":[0,"id"]}}"#, r#"{"$ref":[0,"id"]}"#),
            (r#"{"a":{"$literal":{"$literal":[1 ,2]}}}"#, r#"{"a":{"$literal":[1 ,2]}}"#),
            (
                r#"{"a":[],"b":{},"c":"$ref","d":"{\"$ref\":[9]}"}"#,
                r#"{"a":[],"b":{},"c":"$ref","d":"{\"$ref\":[9]}"}"#,
            ),
            ("{}", "{}"),
            (" [ [ ] , -1e5,true ] ", "[[],-1e5,true]"),
        ] {
            assert_eq!(expanded(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_reference_or_leads_nowhere_is_refused() {
        for text in [
            r#"{"$ref":[2]}"#,
            r#"{"$ref":[]}"#,
            r#"{"$ref":["id"]}"#,
            r#"{"$ref":[-1]}"#,
            r#"{"$ref":0}"#,
            r#"{"$ref":[0,"id"],"a":1}"#,
            r#"{"a":1,"$ref":[0,"id"]}"#,
            r#"{"$literal":1,"a":1}"#,
            r#"{"$ref":[0,"missing"]}"#,
            r#"{"$ref":[0,"n",7]}"#,
            r#"{"$ref":[0,"n","x"]}"#,
            r#"{"$ref":[0,"id","x"]}"#,
            r#"{"$ref":[1,"id"]}"#,
        ] {
            assert!(matches!(expanded(text), Err(Fault::Invalid(_))), "{text}");
        }
    }

    #[test]
    fn what_is_written_and_what_is_read_is_bounded() {
        let text = r#"[{"$ref":[0,"id"]},{"$ref":[0,"id"]}]"#;
        let len = expanded(text).expect("it fits").len();
        let lookup = 2 * results()[0].len();
        assert!(with(text, len, lookup).is_ok());
        assert_eq!(with(text, len - 1, lookup), Err(Fault::TooLarge));
        assert_eq!(with(text, len, lookup - 1), Err(Fault::TooLarge));
    }
}
