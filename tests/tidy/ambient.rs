//! Clocks, randomness and tasks only in the shells: everything below gets them as arguments, so that tests and the
//! simulation decide what time it is and every run can be repeated.

use super::source::{is_word, line_of};

/// Rooms that may do all of it: they are the shell.
const SHELLS: &[&str] = &["server", "client", "cli", "main"];

/// What reads a clock, draws a random number or starts a task.
const AMBIENT: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "getrandom",
    "rand::",
    "thread_rng",
    "OsRng",
    "tokio::spawn",
    "task::spawn",
    "spawn_blocking",
    "spawn_local",
    "thread::spawn",
    "thread::sleep",
];

/// What a folder below may do nevertheless, and why.
const EXCEPTIONS: &[(&str, &[&str], &str)] = &[
    (
        "store/",
        &["Instant::now", "SystemTime::now", "getrandom", "tokio::spawn", "task::spawn"],
        "a connection to Postgres is a task, reconnects with jittered back-off, and the database is outside the simulation",
    ),
    (
        "store/json_schema/",
        &["spawn_blocking"],
        "to check a long document takes the processor for longer than a task may hold a thread that others wait for",
    ),
    (
        "store/embedded/",
        &["thread::spawn", "thread::sleep", "spawn_blocking"],
        "the private cluster is a child process: it is started, watched and reaped by blocking system calls",
    ),
];

/// The findings in one file of `src/`.
pub(crate) fn check(path: &str, code: &str) -> Vec<String> {
    let Some(inner) = path.strip_prefix("src/") else { return Vec::new() };
    let room = inner.split(['/', '.']).next().unwrap_or_default();
    if SHELLS.contains(&room) || room == "schema" {
        return Vec::new();
    }
    let here = EXCEPTIONS.iter().filter(|(folder, ..)| inner.starts_with(folder));
    let allowed: Vec<&str> = here.flat_map(|(_, words, _)| *words).copied().collect();
    let mut findings = Vec::new();
    for word in AMBIENT.iter().filter(|word| !allowed.contains(word)) {
        for (offset, _) in code.match_indices(word).filter(|(offset, _)| is_word(code, *offset, word)) {
            findings.push(format!("{path}:{}: {word}", line_of(code, offset)));
        }
    }
    findings
}

#[test]
fn a_clock_in_the_core_is_found() {
    for word in AMBIENT {
        let code = format!("fn f() {{ let a = {word}(); }}");
        assert_eq!(check("src/conn/mod.rs", &code).len(), 1, "{word}");
        assert!(check("src/server/mod.rs", &code).is_empty(), "{word}");
    }
    assert_eq!(check("src/wire.rs", "let t = std::time::Instant::now();").len(), 1);
    assert_eq!(check("src/store/pool.rs", "thread::sleep(second); tokio::spawn(task);").len(), 1);
    assert!(check("src/store/embedded/child.rs", "thread::sleep(second); tokio::spawn(task);").is_empty());
    assert!(check("src/conn/mod.rs", "operand::get(); let strand = 1;").is_empty());
    assert!(EXCEPTIONS.iter().all(|(_, words, reason)| !words.is_empty() && reason.len() > 20));
}
