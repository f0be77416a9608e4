//! Writes and compares the vectors of the specification, `proto-spec/vectors/*.json`, and its annotated session,
//! `proto-spec/session.md`. `RAYSTREAM_UPDATE=1` writes them anew; otherwise they have to be what the code says, byte for
//! byte. `snow`, an independent implementation, checks what was written.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

mod envelopes;
mod frames;
mod handshake;
mod primitives;
mod refusals;
mod session;

use std::path::PathBuf;

/// Compares a file of the specification with what it has to be, or writes it.
fn check(file: &str, expected: &str) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "proto-spec", file].iter().collect();
    if std::env::var_os("RAYSTREAM_UPDATE").is_some() {
        // Other tests read these files at the same time: they see the old one or the new one.
        let new = path.with_extension("new");
        std::fs::write(&new, expected).unwrap();
        std::fs::rename(&new, &path).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let line = committed.lines().zip(expected.lines()).position(|(a, b)| a != b);
    assert!(
        committed == expected,
        "{file} differs from the code, first in line {line:?}: look whether the protocol was meant to change; if so, \
         RAYSTREAM_UPDATE=1"
    );
}

/// The vectors of a file as a reader of JSON sees them.
fn read(file: &str) -> Vec<serde_json::Value> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "proto-spec", "vectors", file].iter().collect();
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["format"], 1);
    let vectors = value["vectors"].as_array().unwrap().clone();
    let mut names: Vec<_> = vectors.iter().map(|vector| vector["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), vectors.len(), "{file}: a name is used twice");
    vectors
}

/// The bytes of a field in hexadecimal digits.
fn bytes_of(value: &serde_json::Value) -> Vec<u8> {
    let digits = value.as_str().unwrap().as_bytes();
    let nibble = |digit: u8| u8::try_from(char::from(digit).to_digit(16).unwrap()).unwrap();
    digits.chunks(2).map(|pair| (nibble(pair[0]) << 4) | nibble(pair[1])).collect()
}

#[test]
fn every_file_is_in_the_list() {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "proto-spec", "vectors"].iter().collect();
    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if name != "README.md" {
            assert!(readme.contains(&format!("## {name}")), "README.md does not explain {name}");
            assert!(!read(&name).is_empty());
        }
    }
}
