//! No `as` between numbers where bytes of strangers are read: a length that is cut short without a word is how codecs
//! become vulnerable.

use super::source::{is_word, line_of};

/// Rooms that read and write bytes of the wire.
const CODECS: &[&str] = &["src/wire/", "src/conn/", "src/noise/"];

/// Targets of a numeric cast; a `use a as b` or `<T as Trait>` is none.
const NUMBERS: &[&str] = &[
    "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize", "f32", "f64",
    "char", "_",
];

/// The findings in one file.
pub(crate) fn check(path: &str, code: &str) -> Vec<String> {
    if !CODECS.iter().any(|room| path.starts_with(room)) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (offset, _) in code.match_indices("as").filter(|(offset, _)| is_word(code, *offset, "as")) {
        let rest = code[offset + 2..].trim_start();
        let target: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let renames =
            code[..offset].lines().next_back().is_some_and(|line| line.trim_start().starts_with("use "));
        if !renames && (NUMBERS.contains(&target.as_str()) || rest.starts_with('*')) {
            findings.push(format!("{path}:{}: as {target}", line_of(code, offset)));
        }
    }
    findings
}

#[test]
fn a_cast_in_a_codec_is_found() {
    assert_eq!(check("src/wire/frame.rs", "let n = length as u16; let m = x\n    as usize;").len(), 2);
    assert_eq!(check("src/noise/keys.rs", "let p = &x as *const u8;").len(), 1);
    assert!(check("src/wire/frame.rs", "use std::io as _; <T as Trait>::f(); let assume = 1;").is_empty());
    assert!(check("src/server/mod.rs", "let n = length as u16;").is_empty());
}
