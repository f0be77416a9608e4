//! Containment, as `JsonbDeepContains` in Postgres' `jsonb_util.c` has it.

use std::borrow::Cow;

use super::number;
use super::tree::{Kind, StringSpan, Tree};

/// A text and its values.
type Json<'a> = (&'a str, &'a Tree);

/// Whether `document @> filter`.
pub(super) fn contains(document: Json<'_>, filter: Json<'_>) -> bool {
    match (document.1.node(0).kind, filter.1.node(0).kind) {
        // Only here, at the top: an array contains a scalar that is one of its values.
        (Kind::Array, kind) if is_scalar(kind) => has_scalar(document, 0, filter, 0),
        _ => value_contains(document, 0, filter, 0),
    }
}

/// Whether the value at `d` contains the value at `f`. Each pair of values is compared at most once, since its parents
/// are.
fn value_contains(document: Json<'_>, d: usize, filter: Json<'_>, f: usize) -> bool {
    match (document.1.node(d).kind, filter.1.node(f).kind) {
        (Kind::Object, Kind::Object) => {
            filter.1.children(f).all(|wanted| member_contains(document, d, filter, wanted))
        }
        (Kind::Array, Kind::Array) => filter.1.children(f).all(|wanted| {
            if is_scalar(filter.1.node(wanted).kind) {
                has_scalar(document, d, filter, wanted)
            } else {
                document.1.children(d).any(|found| value_contains(document, found, filter, wanted))
            }
        }),
        _ => scalar_equal(document, d, filter, f),
    }
}

/// Whether the object at `d` has the member at `f`, or one that contains it.
fn member_contains(document: Json<'_>, d: usize, filter: Json<'_>, f: usize) -> bool {
    let Some(key) = filter.1.node(f).key else { return false };
    let same_key = |member: &usize| {
        document.1.node(*member).key.is_some_and(|found| string_equal(document.0, found, filter.0, key))
    };
    document.1.children(d).find(same_key).is_some_and(|member| value_contains(document, member, filter, f))
}

/// Whether the array at `d` has a value equal to the scalar at `f`.
fn has_scalar(document: Json<'_>, d: usize, filter: Json<'_>, f: usize) -> bool {
    document.1.children(d).any(|found| scalar_equal(document, found, filter, f))
}

fn is_scalar(kind: Kind) -> bool {
    !matches!(kind, Kind::Array | Kind::Object)
}

/// Whether two values are scalars of one type and equal.
fn scalar_equal(document: Json<'_>, d: usize, filter: Json<'_>, f: usize) -> bool {
    match (document.1.node(d).kind, filter.1.node(f).kind) {
        (Kind::Null, Kind::Null) => true,
        (Kind::Bool(a), Kind::Bool(b)) => a == b,
        (Kind::Number(a), Kind::Number(b)) => number::equal(a.of(document.0), b.of(filter.0)),
        (Kind::String(a), Kind::String(b)) => string_equal(document.0, a, filter.0, b),
        _ => false,
    }
}

fn string_equal(a_text: &str, a: StringSpan, b_text: &str, b: StringSpan) -> bool {
    if !a.escaped && !b.escaped {
        return a.span.of(a_text) == b.span.of(b_text);
    }
    characters(a_text, a) == characters(b_text, b)
}

fn characters(text: &str, string: StringSpan) -> Option<Cow<'_, str>> {
    let inside = string.span.of(text);
    if string.escaped { unescape(inside).map(Cow::Owned) } else { Some(Cow::Borrowed(inside)) }
}

/// The characters of the inside of a string. `None` when an escape is not one.
pub(super) fn unescape(inside: &str) -> Option<String> {
    let mut out = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let escape = rest.chars().next()?;
        rest = &rest[escape.len_utf8()..];
        out.push(match escape {
            '"' | '\\' | '/' => escape,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = unit(&mut rest)?;
                if (0xd800..0xdc00).contains(&first) {
                    rest = rest.strip_prefix("\\u")?;
                    let second = unit(&mut rest)?;
                    char::decode_utf16([first, second]).next()?.ok()?
                } else {
                    char::from_u32(u32::from(first))?
                }
            }
            _ => return None,
        });
    }
    out.push_str(rest);
    Some(out)
}

/// Four hex digits.
fn unit(rest: &mut &str) -> Option<u16> {
    let digits = rest.get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    *rest = &rest[4..];
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::super::json_contains;

    /// The examples of Postgres' manual and regression tests, and the corners of arrays and scalars.
    #[test]
    fn the_rules_of_postgres() {
        for (document, filter, expected) in [
            (r#""foo""#, r#""foo""#, true),
            ("[1, 2, 3]", "[1, 3]", true),
            ("[1, 2, 3]", "[3, 1]", true),
            ("[1, 2, 3]", "[1, 2, 2]", true),
            (r#"{"product":"PostgreSQL","version":9.4,"jsonb":true}"#, r#"{"version":9.40}"#, true),
            ("[1, 2, [1, 3]]", "[1, 3]", false),
            ("[1, 2, [1, 3]]", "[[1, 3]]", true),
            (r#"{"foo":{"bar":"baz"}}"#, r#"{"bar":"baz"}"#, false),
            (r#"{"foo":{"bar":"baz","x":1}}"#, r#"{"foo":{}}"#, true),
            (r#"["foo","bar"]"#, r#""bar""#, true),
            (r#""bar""#, r#"["bar"]"#, false),
            ("[[1]]", "1", false),
            (r#"{"a":[1]}"#, r#"{"a":1}"#, false),
            ("[]", "null", false),
            ("[null]", "null", true),
            ("1", "[]", false),
            ("{}", "[]", false),
            ("[]", "{}", false),
            ("[]", "[]", true),
            ("[{}]", "{}", false),
            (r#"[{"a":1,"b":2},{"a":3}]"#, r#"[{"a":3},{"b":2}]"#, true),
            ("[[1,2],[3]]", "[[],[2]]", true),
            (r#"{"a":"\n\u0001"}"#, r#"{"\u0061":"\u000a\u0001"}"#, true),
            (r#"{"a":"😀"}"#, r#"{"a":"\ud83d\ude00"}"#, true),
            ("1", "1.0", true),
            (r#""1""#, "1", false),
        ] {
            assert_eq!(json_contains(document, filter), Some(expected), "{document} @> {filter}");
        }
    }
}
