//! Files stay small enough to be read in one go.

use super::source::{blank_literals, without_tests};

/// Lines of a file without its tests. About 250 is the aim; at 800 nobody holds it in the head any more.
const LINES_MAX: usize = 800;

/// Generated from a table, or data: their length is not a matter of taste.
const EXEMPT: &[&str] = &["json", "txt", "toml"];

/// The finding for one file, if it is too long.
pub(crate) fn check(path: &str, text: &str) -> Option<String> {
    if EXEMPT.iter().any(|extension| path.ends_with(&format!(".{extension}"))) {
        return None;
    }
    let lines = if path.ends_with(".rs") {
        let code = without_tests(&blank_literals(text));
        let tests =
            blank_literals(text).lines().zip(code.lines()).filter(|(before, after)| before != after).count();
        text.lines().count() - tests
    } else {
        text.lines().count()
    };
    (lines > LINES_MAX).then(|| format!("{path}: {lines} lines without its tests, more than {LINES_MAX}"))
}

#[test]
fn a_long_file_is_found_and_its_tests_do_not_count() {
    let long = "fn a() {}\n".repeat(LINES_MAX + 1);
    assert!(check("src/a.rs", &long).is_some());
    assert!(check("README.md", &long).is_some());
    let comments = "// why\n".repeat(LINES_MAX + 1);
    assert!(check("src/a.rs", &comments).is_some());
    let tests =
        format!("fn a() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}\n", "    fn t() {}\n".repeat(LINES_MAX));
    assert!(check("src/a.rs", &tests).is_none());
    assert!(check("proto-spec/vectors/a.json", &long).is_none());
}
