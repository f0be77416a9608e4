//! What the guard writes, read by another parser: that of Postgres itself, as the Python package pglast has it.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use raystream::sql::{self, Param};
use serde_json::Value;

use crate::inputs::{inputs, params};

/// Statements that are made.
const MADE: usize = 10_000;

/// Of SplitMix64.
fn next(state: &mut u64) -> u8 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).to_le_bytes()[0]
}

const PGLAST: &str = "pglast==8.7";

/// A Python that has pglast, made in the build's own folder unless there is one; or why not.
fn python() -> Result<PathBuf, String> {
    let has_pglast = |python: &Path| {
        let check = Command::new(python).args(["-c", "import pglast"]).stderr(Stdio::null()).status();
        check.is_ok_and(|status| status.success())
    };
    let system = PathBuf::from("python3");
    if has_pglast(&system) {
        return Ok(system);
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pglast");
    let own = folder.join("bin/python");
    if has_pglast(&own) {
        return Ok(own);
    }
    let run = |program: &Path, args: &[&str]| {
        let output = Command::new(program)
            .args(args)
            .output()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(text) }
    };
    run(&system, &["-m", "venv", &folder.to_string_lossy()])?;
    run(&own, &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PGLAST])?;
    Ok(own)
}

/// Everything that the other parser finds in each text.
fn parsed(texts: &[String]) -> Option<Vec<Value>> {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => {
            assert!(
                std::env::var_os("RAYSTREAM_REQUIRE_PGLAST").is_none(),
                "RAYSTREAM_REQUIRE_PGLAST is set and there is no {PGLAST}: {reason}"
            );
            println!(
                "SKIPPED: no Python with {PGLAST}; what the guard writes was not read by another parser: {reason}"
            );
            return None;
        }
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql_guard/oracle.py");
    let mut child =
        Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let input = serde_json::to_vec(texts).unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "the oracle failed");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn set(found: &Value, field: &str) -> BTreeSet<String> {
    found[field].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[test]
fn postgres_own_parser_finds_only_what_is_allowed() {
    let given: Vec<Param> = params("").map(|text| Param::Text(text.to_owned())).to_vec();
    let mut statements: Vec<(String, String)> = Vec::new();
    for (name, text) in inputs(&["allowed", "allowed_more"]) {
        let own: Vec<Param> = params(&name).map(|text| Param::Text(text.to_owned())).to_vec();
        let statement = sql::guard("tasks", &text, &own).unwrap();
        statements.push((name, statement.text("raystream", "tbl_\"1")));
    }
    // Made ones, of a grammar with hostile words in it: those that pass.
    let mut state = 1_u64;
    for _ in 0..MADE {
        let choices: Vec<u8> = (0..200).map(|_| next(&mut state)).collect();
        let text = raystream::fuzzing::sql_text(&choices);
        if let Ok(statement) = sql::guard("tasks", &text, &given) {
            statements.push((text, statement.text("raystream", "tbl_\"1")));
        }
    }
    let texts: Vec<String> = statements.iter().map(|(_, text)| text.clone()).collect();
    let Some(found) = parsed(&texts) else { return };
    assert_eq!(found.len(), statements.len());

    let functions: BTreeSet<String> = sql::function_names().map(str::to_owned).collect();
    let types = [
        "bool",
        "int2",
        "int4",
        "int8",
        "numeric",
        "float4",
        "float8",
        "text",
        "jsonb",
        "timestamptz",
        "timestamp",
        "date",
        "interval",
    ];
    let mut types: BTreeSet<String> = types.iter().map(|name| format!("pg_catalog.{name}")).collect();
    types.insert("raystream.exec_numeric".to_owned());
    let operators = [
        "=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "||", "->", "->>", "#>", "#>>", "@>", "<@",
        "?", "?|", "?&",
    ];
    let mut operators: BTreeSet<String> = operators.iter().map(|sign| format!("pg_catalog.{sign}")).collect();
    // What the grammar's words become; the search path decides nothing but `pg_catalog` for them.
    operators.extend(["~~", "~~*", "!~~", "!~~*", "=", "<>", "BETWEEN", "NOT BETWEEN"].map(str::to_owned));
    for ((name, text), found) in statements.iter().zip(&found) {
        let show = format!("{name}\n{text}\n{found}");
        assert_eq!(found["error"], Value::Null, "{show}");
        assert_eq!(set(found, "statements"), ["SelectStmt".to_owned()].into(), "{show}");
        let relations = set(found, "relations");
        let parts: BTreeSet<String> = set(found, "parts");
        assert!(relations.contains("raystream.tbl_\"1"), "{show}");
        assert!(relations.iter().all(|name| name == "raystream.tbl_\"1" || parts.contains(name)), "{show}");
        for function in set(found, "functions") {
            let known = function.strip_prefix("pg_catalog.").is_some_and(|name| functions.contains(name));
            assert!(known, "{function}: {show}");
        }
        assert!(set(found, "types").is_subset(&types), "{show}");
        assert!(set(found, "operators").is_subset(&operators), "{show}");
        assert!(set(found, "strings").is_empty(), "texts go beside the statement: {show}");
        assert!(set(found, "forbidden").is_empty(), "{show}");
    }
    assert!(statements.len() > 300, "{} statements are too few to mean much", statements.len());
    println!("{} statements read by the parser of Postgres", statements.len());
}
