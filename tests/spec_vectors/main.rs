//! The vectors of the specification are what the connection writes, and what an independent Noise implementation reads.
//!
//! `RAYSTREAM_UPDATE=1 cargo test --release --test spec_vectors` writes `proto-spec/vectors/*.json` and
//! `proto-spec/session.md` anew.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod annotate;
mod envelopes;
mod frames;
mod keys;
mod peer;
mod primitives;
mod refusals;
mod session;

use std::path::PathBuf;

use raystream::wire::{Suite, handshake::decode_refusal};
use serde_json::{Value, json};

/// Compares a checked-in file with what the code makes, or writes it when asked to.
fn assert_generated(relative: &str, expected: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(relative);
    if std::env::var_os("RAYSTREAM_UPDATE").is_some_and(|value| value == "1") {
        // Other tests read these files at the same time: they see the old one or the new one.
        let new = path.with_extension("new");
        std::fs::write(&new, expected).unwrap();
        std::fs::rename(&new, &path).unwrap();
    }
    let actual = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        actual == expected,
        "{relative} is not what the code makes. When the change is meant: \
         RAYSTREAM_UPDATE=1 cargo test --release --test spec_vectors"
    );
}

fn document(vectors: &[Value]) -> String {
    let mut text = serde_json::to_string_pretty(&json!({ "format": 1, "vectors": vectors })).unwrap();
    text.push('\n');
    text
}

/// The vectors of a checked-in file.
fn read(name: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("proto-spec/vectors").join(name);
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(file["format"], 1);
    let vectors = file["vectors"].as_array().unwrap().clone();
    let names: std::collections::BTreeSet<_> =
        vectors.iter().map(|vector| vector["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), vectors.len(), "{name}: a name is used twice");
    vectors
}

/// The bytes of a field.
fn unhex_of(value: &Value) -> Vec<u8> {
    keys::unhex(value.as_str().unwrap())
}

fn sessions() -> Vec<session::Session> {
    let mut sessions = vec![session::whole(Suite::NK_CHACHAPOLY)];
    sessions.extend(Suite::ALL.iter().map(|suite| session::short(*suite)));
    sessions.push(session::fragments(Suite::NK_AESGCM));
    sessions
}

#[test]
fn session_vectors_are_what_the_connection_writes() {
    let vectors: Vec<Value> = sessions().iter().map(session::Session::to_json).collect();
    assert_generated("proto-spec/vectors/session.json", &document(&vectors));
}

#[test]
fn annotated_session_is_what_the_connection_writes() {
    let session = session::whole(Suite::NK_CHACHAPOLY);
    assert_generated("proto-spec/session.md", &annotate::page(&session));
}

/// Both ends are played once more from the checked-in file by `snow`, which knows nothing of our code.
#[test]
fn an_independent_implementation_reads_and_writes_every_session() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("proto-spec/vectors/session.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    assert!(vectors.len() > Suite::ALL.len());
    let records: usize = vectors.iter().map(peer::replay).sum();
    println!("sessions: {}, records: {records}", vectors.len());
    assert!(records > 80);
}

#[test]
fn refusal_vectors_are_what_the_table_gives() {
    let vectors: Vec<Value> = refusals::all().iter().map(refusals::Refusal::to_json).collect();
    assert_generated("proto-spec/vectors/refusals.json", &document(&vectors));
}

/// Every input of the file, given to a fresh connection, ends it with the code that the file says; and nothing else does.
#[test]
fn every_refusal_vector_ends_the_connection_with_its_code() {
    for refusal in refusals::all() {
        let outcome = refusals::run(&refusal);
        assert_eq!(outcome.code, Some(refusal.code), "{}", refusal.name);
        // Frames of the same record that came before the bad one count; the bad one has no effect.
        assert!(outcome.events.len() <= refusal.good_frames(), "{}: {:?}", refusal.name, outcome.events);
        match refusal.state {
            refusals::State::Start if refusal.side == refusals::Side::Server => {
                let told = outcome.sent.get(2..).and_then(decode_refusal);
                assert_eq!(told, Some(refusal.code), "{}: the refusal in clear", refusal.name);
            }
            refusals::State::Start => assert!(outcome.sent.is_empty(), "{}", refusal.name),
            refusals::State::Established | refusals::State::Body => {
                assert_eq!(outcome.close, Some(refusal.code), "{}: CLOSE", refusal.name);
            }
        }
    }
}

/// The harness itself: what is allowed does not end the connection.
#[test]
fn inputs_that_are_allowed_do_not_end_the_connection() {
    for allowed in refusals::allowed() {
        let outcome = refusals::run(&allowed);
        assert_eq!(outcome.code, None, "{}", allowed.name);
        assert_eq!(outcome.close, None, "{}", allowed.name);
    }
}

#[test]
fn the_page_of_the_vectors_names_every_file() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("proto-spec/vectors");
    let page = std::fs::read_to_string(folder.join("README.md")).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(!name.ends_with(".json") || page.contains(&format!("## {name}")), "{name} is not explained");
    }
}
