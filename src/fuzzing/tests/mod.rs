//! Every target on its committed corpus and on seeded mutations of it; and where the corpus comes from.

mod seeds;

use super::{TARGETS, Target, decoders::established, handshake::NOW};
use bytes::BytesMut;
use seeds::{record_seeds, seeds};
use std::{fs, path::PathBuf};

/// Mutations of each seed; libFuzzer makes the millions.
const MUTATIONS: usize = 300;
/// Longest input that a mutation makes.
const INPUT_MAX: usize = 4_096;

fn corpus_folder(target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", target].iter().collect()
}

/// The committed inputs of a target, in the order of their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut inputs: Vec<_> = fs::read_dir(corpus_folder(target))
        .unwrap_or_else(|error| panic!("the corpus of {target}: {error}"))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap()))
        .collect();
    inputs.sort();
    inputs
}

/// SplitMix64.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}

/// Changes an input as a fuzzer would: bits, bytes, numbers, pieces of itself and of another input.
fn mutate(numbers: &mut Numbers, input: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(input.len() + 1);
        match numbers.below(8) {
            0 => input.insert(at, numbers.byte()),
            1 if at < input.len() => drop(input.remove(at)),
            2 if at < input.len() => input[at] ^= 1 << numbers.below(8),
            3 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff][numbers.below(5)],
            4 if at < input.len() => input[at] = numbers.byte(),
            5 => input.truncate(at),
            6 => {
                let from = numbers.below(other.len() + 1);
                input.splice(at..at, other[from..].iter().copied().take(64).collect::<Vec<_>>());
            }
            _ => {
                let piece: Vec<u8> = input[at..].iter().copied().take(32).collect();
                input.extend(piece);
            }
        }
    }
    input.truncate(INPUT_MAX);
}

/// Prints the input when the target panics.
struct Report<'a>(&'a str, &'a str, &'a [u8]);

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self.2.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("  target {}, from {}: {hex}", self.0, self.1);
        }
    }
}

fn run(name: &str) {
    let (_, target): &(&str, Target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let inputs = corpus(name);
    assert!(!inputs.is_empty(), "the corpus of {name} is empty");
    let mut numbers = Numbers(1);
    for (file, input) in &inputs {
        let report = Report(name, file, input);
        target(input);
        drop(report);
        for _ in 0..MUTATIONS {
            let mut changed = input.clone();
            let other = numbers.below(inputs.len());
            mutate(&mut numbers, &mut changed, &inputs[other].1);
            let report = Report(name, file, &changed);
            target(&changed);
            drop(report);
        }
    }
}

#[test]
fn fuzz_record() {
    run("record");
}

#[test]
fn fuzz_init() {
    run("init");
}

#[test]
fn fuzz_handshake_responder() {
    run("handshake_responder");
}

#[test]
fn fuzz_handshake_initiator() {
    run("handshake_initiator");
}

#[test]
fn fuzz_frame() {
    run("frame");
}

#[test]
fn fuzz_envelope() {
    run("envelope");
}

#[test]
fn fuzz_connection() {
    run("connection");
}

#[test]
fn fuzz_websocket() {
    run("websocket");
}

#[cfg(any(feature = "fuzzing", feature = "client"))]
#[test]
fn fuzz_json() {
    run("json");
}

#[cfg(feature = "webhook")]
#[test]
fn fuzz_webhook_event() {
    run("webhook_event");
}

#[cfg(feature = "sql")]
#[test]
fn fuzz_sql() {
    run("sql");
}

/// Made statements reach what stands behind the guard: some pass, and some that are read are refused.
#[cfg(feature = "sql")]
#[test]
fn the_grammar_of_sql_has_both_kinds() {
    use crate::sql::{Param, guard};
    let (mut passed, mut refused) = (0, 0);
    let mut numbers = Numbers(7);
    for _ in 0..3_000 {
        let choices: Vec<u8> = (0..200).map(|_| numbers.byte()).collect();
        super::sql(&[&[1], &choices[..]].concat());
        match guard("tasks", &super::sql_text(&choices), &[Param::Null, Param::Null]) {
            Ok(_) => passed += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(passed > 100 && refused > 100, "{passed} passed, {refused} were refused");
}

/// The seeds in `fuzz/corpus` are those of [`seeds`]; `RAYSTREAM_UPDATE=1` writes them. What a fuzzer has added stays.
#[test]
fn the_corpus_holds_the_seeds() {
    let update = std::env::var_os("RAYSTREAM_UPDATE").is_some();
    let seeds = seeds();
    let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert!(names.iter().all(|name| seeds.contains_key(name)) && seeds.len() == names.len());
    for (target, inputs) in seeds {
        let folder = corpus_folder(target);
        if update {
            fs::create_dir_all(&folder).unwrap();
        }
        for (name, bytes) in inputs {
            let path = folder.join(&name);
            if update {
                fs::write(&path, &bytes).unwrap();
            }
            let committed = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(committed == bytes, "{} is old: run again with RAYSTREAM_UPDATE=1", path.display());
        }
    }
}

/// The seeds of `record` reach the streams of the server: the target is not busy with refusals only.
#[test]
fn the_record_seeds_are_taken() {
    for (name, seed) in record_seeds() {
        let (_, mut server) = established();
        let _ended = server.handle_input(NOW, &mut BytesMut::from(&seed[1..]));
        let told = std::iter::from_fn(|| server.poll_event()).count();
        let expected = match name.as_str() {
            "work" => 4,
            "long_call" => 1,
            _ => 0,
        };
        assert_eq!(told, expected, "{name}");
    }
}
