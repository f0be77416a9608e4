//! The rules of the house that a compiler does not know. Each rule is a pure function over text, and each has a test
//! that shows it a breach, so that none of them can pass by looking at nothing.
//!
//! ARCHITECTURE.md says why the rules are there; the tables are in the modules below.

mod ambient;
mod casts;
mod clear;
mod conformance;
mod imports;
mod size;
mod source;
mod timers;
mod words;

use std::process::Command;

use source::{Tree, root};

/// Panics with all findings of a rule, one a line.
fn assert_clean(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

#[test]
fn imports_point_down() {
    let tree = Tree::rust("src");
    let findings: Vec<String> =
        tree.files.iter().flat_map(|file| imports::check(&file.path, &file.code)).collect();
    assert_clean("an import may only point down, and rooms on one floor do not see each other", &findings);
}

#[test]
fn files_stay_small() {
    let tree = Tree::everything();
    let findings: Vec<String> =
        tree.files.iter().filter_map(|file| size::check(&file.path, &file.text)).collect();
    assert_clean("a file does one job", &findings);
}

#[test]
fn clocks_randomness_and_tasks_stay_in_the_shells() {
    let tree = Tree::rust("src");
    let findings: Vec<String> =
        tree.files.iter().flat_map(|file| ambient::check(&file.path, &file.code)).collect();
    assert_clean("time, randomness and tasks come in as arguments", &findings);
}

#[test]
fn nothing_reaches_postgres_in_the_clear_by_mistake() {
    let tree = Tree::rust("src");
    let findings: Vec<String> =
        tree.files.iter().flat_map(|file| clear::check(&file.path, &file.code)).collect();
    assert_clean(
        "connections and cancel requests go through store::endpoint, which knows about TLS",
        &findings,
    );
}

#[test]
fn timers_are_kept_apart() {
    let tree = Tree::rust("src");
    let findings: Vec<String> =
        tree.files.iter().flat_map(|file| timers::check(&file.path, &file.code)).collect();
    assert_clean("timers are made by crate::time, so that no runtime has to wait for them", &findings);
}

#[test]
fn codecs_do_not_cast() {
    let tree = Tree::rust("src");
    let findings: Vec<String> =
        tree.files.iter().flat_map(|file| casts::check(&file.path, &file.code)).collect();
    assert_clean("a cast truncates without a word; use From, TryFrom or to_be_bytes", &findings);
}

#[test]
fn no_file_names_a_machine() {
    let tree = Tree::everything();
    let findings: Vec<String> =
        tree.files.iter().flat_map(|file| words::check(&file.path, &file.text)).collect();
    assert_clean("the tree does not depend on somebody's machine", &findings);
}

#[test]
fn every_rule_of_the_specification_has_a_code_and_a_test() {
    let specification = Tree::specification();
    let rust = Tree::rust(".");
    let mapping =
        std::fs::read_to_string(root().join("proto-spec/conformance.toml")).expect("conformance.toml");
    let codes =
        std::fs::read_to_string(root().join("schemas/registry/error_codes.toml")).expect("error_codes.toml");
    let findings = conformance::check(&specification, &rust, &mapping, &codes);
    assert_clean("a MUST without an id, an error code and a test is not finished", &findings);
}

#[test]
fn lock_file_is_committed() {
    assert!(root().join("Cargo.lock").is_file(), "Cargo.lock is missing");
    let tracked =
        Command::new("git").args(["ls-files", "--error-unmatch", "Cargo.lock"]).current_dir(root()).output();
    match tracked {
        Ok(output) if root().join(".git").exists() => {
            assert!(output.status.success(), "Cargo.lock is not committed: builds would differ");
        }
        _ => println!("SKIPPED: not a git checkout, so only the presence of Cargo.lock was checked"),
    }
}
