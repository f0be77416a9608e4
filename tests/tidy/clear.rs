//! Whatever talks to Postgres goes through one place, so that no connection is in the clear where TLS was asked for.

use super::source::{is_word, line_of};

/// What makes a connection, and the one folder that may.
const RULES: &[(&str, &[&str])] = &[
    // The private cluster is on a unix socket, which has no TLS.
    ("NoTls", &["src/store/embedded/", "src/store/endpoint/"]),
    ("cancel_query", &["src/store/endpoint/"]),
];

/// The findings in one file of `src/`.
pub(crate) fn check(path: &str, code: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for (word, folders) in RULES {
        if folders.iter().any(|folder| path.starts_with(folder)) {
            continue;
        }
        for (offset, _) in code.match_indices(word).filter(|(offset, _)| is_word(code, *offset, word)) {
            findings.push(format!("{path}:{}: {word}", line_of(code, offset)));
        }
    }
    findings
}

#[test]
fn a_connection_past_the_endpoint_is_found() {
    assert_eq!(check("src/store/exec.rs", "config.connect(NoTls)").len(), 1);
    assert_eq!(check("src/store/exec.rs", "token.cancel_query(tls)").len(), 1);
    assert!(check("src/store/endpoint/mod.rs", "token.cancel_query(tls)").is_empty());
    assert!(check("src/store/embedded/mod.rs", "config.connect(NoTls)").is_empty());
}
