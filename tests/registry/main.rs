//! What is generated from `schemas/` is what is checked in, and the registries keep their promises.
//!
//! `RAYSTREAM_UPDATE=1 cargo test --release --test registry` writes the generated files anew:
//! `src/wire/registry.rs`, `proto-spec/registries.md` and the numbers added to `schemas/registry/lock.txt`.

mod load;
mod lock;
mod render_markdown;
mod render_rust;

use std::path::{Path, PathBuf};
use std::process::Command;

use load::Registry;

/// The version of `flatc` whose output is checked in; equal to that of the `flatbuffers` crate in `src/schema/Cargo.toml`.
const FLATC_VERSION: &str = "25.12.19";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn updating() -> bool {
    std::env::var_os("RAYSTREAM_UPDATE").is_some_and(|value| value == "1")
}

/// Compares a checked-in file with what the generator makes, or writes it when asked to.
fn assert_generated(relative: &str, expected: &str) {
    let path = root().join(relative);
    if updating() {
        std::fs::write(&path, expected).unwrap_or_else(|error| panic!("{relative}: {error}"));
        return;
    }
    let actual = std::fs::read_to_string(&path).unwrap_or_default();
    let first = actual.lines().zip(expected.lines()).position(|(a, b)| a != b);
    assert!(
        actual == expected,
        "{relative} is not what schemas/registry/ gives (first difference: line {}). \
         Run: RAYSTREAM_UPDATE=1 cargo test --release --test registry",
        first.map_or(actual.lines().count().min(expected.lines().count()), |n| n) + 1
    );
}

#[test]
fn rust_registry_is_what_the_tables_give() {
    let registry = Registry::read(&root().join("schemas/registry"));
    assert_generated("src/wire/registry.rs", &render_rust::render(&registry));
}

#[test]
fn specification_tables_are_what_the_tables_give() {
    let registry = Registry::read(&root().join("schemas/registry"));
    assert_generated("proto-spec/registries.md", &render_markdown::render(&registry));
}

#[test]
fn no_number_was_ever_changed() {
    let registry = Registry::read(&root().join("schemas/registry"));
    let path = root().join("schemas/registry/lock.txt");
    let locked = std::fs::read_to_string(&path).unwrap_or_default();
    let entries = lock::entries(&registry);
    if let Err(refusal) = lock::check_kept(&locked, &entries) {
        panic!("{refusal}");
    }
    assert_generated("schemas/registry/lock.txt", &lock::render(&entries));
}

#[test]
fn a_changed_or_removed_number_is_refused() {
    let registry = Registry::read(&root().join("schemas/registry"));
    let entries = lock::entries(&registry);
    let locked = lock::render(&entries);
    assert!(lock::check_kept(&locked, &entries).is_ok());
    let mut renamed = entries.clone();
    renamed[0].2 = "RPC_SHOUT".to_owned();
    assert!(lock::check_kept(&locked, &renamed).expect_err("renamed").contains("RPC_CALL"));
    let mut renumbered = entries.clone();
    renumbered[0].1 = 0x7F;
    assert!(lock::check_kept(&locked, &renumbered).expect_err("renumbered").contains("0x10"));
    assert!(lock::check_kept(&locked, &entries[1..]).is_err());
    assert!(lock::check_kept("frame sixteen RPC_CALL\n", &entries).is_err());
}

#[test]
fn registries_that_break_a_rule_are_refused() {
    let frames = read(&root().join("schemas/registry/frames.toml"));
    let codes = read(&root().join("schemas/registry/error_codes.toml"));
    let suites = read(&root().join("schemas/registry/suites.toml"));
    Registry::parse(&frames, &codes, &suites).expect("the registries as they are");
    let refused = |frames: &str, codes: &str, suites: &str, word: &str| {
        let Err(refusal) = Registry::parse(frames, codes, suites) else {
            panic!("a registry that breaks the rule {word:?} was taken");
        };
        assert!(refusal.contains(word), "{refusal:?} does not say {word:?}");
    };
    refused(&frames.replace("number = 0x11", "number = 0x10"), &codes, &suites, "0x10 twice");
    refused(&frames.replace("\"RPC_CALL\"", "\"RPC_ERROR\""), &codes, &suites, "RPC_ERROR twice");
    refused(&frames.replace("stream = \"call\"", "stream = \"both\""), &codes, &suites, "stream");
    refused(&frames.replace("sender = \"both\"", "sender = \"nobody\""), &codes, &suites, "sender");
    refused(&frames.replace("number = 0x11", "number = 0x111"), &codes, &suites, "256");
    refused(&frames.replace("\"RPC_CALL\"", "\"rpc call\""), &codes, &suites, "upper case");
    refused(&frames, &codes.replace("number = 2\n", "number = 1\n"), &suites, "twice");
    refused(&frames, &codes.replace("scope = \"both\"", "scope = \"room\""), &suites, "scope");
    refused(&frames, &codes.replace("number = 1\n", "number = 0\n"), &suites, "zero");
    refused(&frames, &codes, &suites.replace("0x02", "0x03"), "odd");
    refused(&frames, &codes, &suites.replace("0x02", "0x82"), "reserved");
    refused(&frames, &codes, &suites.replacen("cipher = \"ChaChaPoly", "cipher = \"ROT13", 1), "cipher");
}

#[test]
fn flatbuffers_code_is_what_flatc_makes() {
    let version = Command::new("flatc").arg("--version").output();
    let version = match &version {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        _ => String::from("none"),
    };
    if version.split_whitespace().last() != Some(FLATC_VERSION) {
        println!(
            "SKIPPED: flatc {FLATC_VERSION} is not on PATH (found: {}); src/schema/ was not compared. \
             .ci/run installs it where Python 3 is there.",
            version.trim()
        );
        assert!(
            std::env::var_os("RAYSTREAM_REQUIRE_FLATC").is_none(),
            "RAYSTREAM_REQUIRE_FLATC is set and flatc {FLATC_VERSION} is not on PATH"
        );
        return;
    }
    let out = tempfile::tempdir().expect("a temporary folder");
    let status = Command::new("flatc")
        .arg("--rust")
        .arg("-o")
        .arg(out.path())
        .arg(root().join("schemas/messages.fbs"))
        .status()
        .expect("flatc runs: it just told its version");
    assert!(status.success(), "flatc refused schemas/messages.fbs");
    assert_generated("src/schema/messages_generated.rs", &read(&out.path().join("messages_generated.rs")));
}

/// The published Rust runtime does not verify such a field, so safe accessors could read out of bounds.
#[test]
fn no_schema_nests_a_flatbuffer() {
    let mut seen = 0;
    for entry in std::fs::read_dir(root().join("schemas")).expect("schemas/ is there") {
        let path = entry.expect("schemas/ can be listed").path();
        if path.extension().is_some_and(|extension| extension == "fbs") {
            seen += 1;
            assert!(!nests_a_flatbuffer(&read(&path)), "{} holds a nested_flatbuffer", path.display());
        }
    }
    assert!(seen > 0, "no .fbs file was looked at");
    assert!(nests_a_flatbuffer("table A { b:[ubyte] (nested_flatbuffer: \"B\"); }"));
}

/// Whether the attribute occurs outside of comments.
fn nests_a_flatbuffer(schema: &str) -> bool {
    schema.lines().any(|line| line.split("//").next().is_some_and(|code| code.contains("nested_flatbuffer")))
}
