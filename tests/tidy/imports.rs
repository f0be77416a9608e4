//! Imports point down, and rooms on one floor do not see each other.

use super::source::{is_word, line_of};

/// Every room and its floor. `schema` (floor 0) is a package of its own, which Cargo keeps from importing ours.
const FLOORS: &[(&str, u8)] = &[
    // The composition root sees everything; nothing sees it.
    ("main", 7),
    ("cli", 6),
    ("server", 5),
    ("client", 5),
    ("api", 4),
    ("rpc", 3),
    ("auth", 3),
    ("store", 3),
    // What the fuzz targets run: the core and nothing above it.
    ("fuzzing", 3),
    ("conn", 2),
    ("primitives", 2),
    // Text in, text out; the store takes only what it made.
    ("migrations", 2),
    ("sql", 2),
    // Bytes in, bytes out; a receiver's program needs it alone.
    ("webhook", 2),
    ("time", 2),
    ("json", 1),
    ("noise", 1),
    ("wake", 1),
    ("wire", 1),
];

/// The findings in one file of `src/`.
pub(crate) fn check(path: &str, code: &str) -> Vec<String> {
    let Some(module) = module_of(path) else { return Vec::new() };
    let room = module[0].clone();
    let Some(floor) = floor(&room) else {
        return vec![format!("{path}: the room {room:?} has no floor in tests/tidy/imports.rs")];
    };
    let mut findings = Vec::new();
    for (offset, target) in targets(code, &module) {
        let line = line_of(code, offset);
        match self::floor(&target) {
            _ if target == room => {}
            None => findings.push(format!("{path}:{line}: crate::{target} is no room of the house")),
            Some(below) if below < floor => {}
            Some(other) => findings
                .push(format!("{path}:{line}: {room} (floor {floor}) imports {target} (floor {other})")),
        }
    }
    findings
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// `src/conn/streams/recv.rs` is `["conn", "streams", "recv"]`; `lib.rs` (only the list of rooms) and `schema` are none.
fn module_of(path: &str) -> Option<Vec<String>> {
    let inner = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    if inner == "lib" || inner.starts_with("schema/") {
        return None;
    }
    let mut parts: Vec<String> = inner.split('/').map(str::to_owned).collect();
    if parts.len() > 1 && parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    Some(parts)
}

/// The rooms that are named after `crate::`, `raystream::` (from `main.rs`) or enough `super::`, with their offsets.
fn targets(code: &str, module: &[String]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for prefix in ["crate::", "raystream::"] {
        for (offset, _) in code.match_indices(prefix).filter(|(offset, _)| is_word(code, *offset, prefix)) {
            for name in heads(&code[offset + prefix.len()..]) {
                found.push((offset, name));
            }
        }
    }
    let climb = "super::".repeat(module.len());
    for (offset, _) in code.match_indices(&climb) {
        for name in heads(&code[offset + climb.len()..]) {
            if floor(&name).is_some() {
                found.push((offset, name));
            }
        }
    }
    found
}

/// The first names of a path or of a group: `a::b` gives `a`; `{a::b, c::{d, e}}` gives `a`, `c`.
fn heads(rest: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(group) = rest.strip_prefix('{') else { return vec![word(rest)] };
    let mut names = Vec::new();
    let mut depth = 0_usize;
    let mut start = 0;
    for (offset, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(word(&group[start..offset]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(word(&group[start..offset]));
                start = offset + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn an_import_that_points_up_or_sideways_is_found() {
    let breach = |path: &str, code: &str| !check(path, code).is_empty();
    assert!(breach("src/wire/frame.rs", "use crate::conn::Connection;"));
    assert!(breach("src/wire/frame.rs", "fn f() { crate::server::run(); }"));
    assert!(breach("src/store/feed.rs", "use crate::{wire::registry::ErrorCode, rpc::Call};"));
    assert!(breach("src/client/mod.rs", "use crate::{\n    conn::{A, B},\n    server::{C},\n};"));
    assert!(breach("src/conn/mod.rs", "use super::api::Echo;"));
    assert!(breach("src/conn/streams/recv.rs", "use super::super::super::api::Echo;"));
    assert!(breach("src/conn/mod.rs", "use crate::attic::Thing;"));
    assert!(breach("src/attic/mod.rs", ""));
    assert!(!breach("src/conn/mod.rs", "use crate::{noise::Transport, wire::registry};"));
    assert!(!breach("src/conn/streams/recv.rs", "use super::super::counts; use crate::conn::limits;"));
    assert!(
        !breach("src/main.rs", "use raystream::cli; mod x { use super::cli; }") || floor("cli") != Some(6)
    );
    assert!(!breach("src/lib.rs", "pub mod server;"));
}
