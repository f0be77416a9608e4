//! No path of somebody's machine and no host of an infrastructure: a clone works where it is put.

use super::source::line_of;

/// The words, cut in two so that this file does not hold them.
const WORDS: &[(&str, &str)] = &[
    ("/ho", "me/"),
    ("/ro", "ot/"),
    ("/Us", "ers/"),
    ("/wo", "rk/"),
    ("/tm", "p/"),
    ("C:", "\\"),
    ("192.", "168."),
    ("172.", "17."),
    ("pypi", ".org"),
    ("pythonhosted", ".org"),
    ("index.crates", ".io"),
    ("static.crates", ".io"),
    ("npmjs", ".org"),
    ("npmjs", ".com"),
    (".inter", "nal:"),
];

/// The findings in one file.
pub(crate) fn check(path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for (first, second) in WORDS {
        let word = format!("{first}{second}");
        for (offset, _) in text.match_indices(&word) {
            findings.push(format!("{path}:{}: {word}", line_of(text, offset)));
        }
    }
    findings
}

#[test]
fn a_machine_path_is_found() {
    for (first, second) in WORDS {
        assert_eq!(check("README.md", &format!("see {first}{second}x")).len(), 1, "{first}{second}");
    }
    assert!(check("README.md", "${TMPDIR:-/tmp} and /usr/lib/postgresql").is_empty());
}
