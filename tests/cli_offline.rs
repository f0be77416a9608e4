//! The program itself, as far as it needs no server: help, keys, configuration, completions, exit codes.
#![cfg(feature = "server")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const COMMANDS: [&str; 11] =
    ["keygen", "pubkey", "dev", "serve", "config", "call", "sub", "migrate", "ping", "bench", "completions"];

fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raystream"));
    command.current_dir(folder).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RAYSTREAM_"))
    {
        command.env_remove(name);
    }
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    program(folder).args(arguments).output().expect("the program runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn every_command_has_help() {
    let folder = folder();
    let top = run(folder.path(), &["--help"]);
    assert_eq!(top.status.code(), Some(0));
    for command in COMMANDS {
        assert!(stdout(&top).lines().any(|line| line.trim_start().starts_with(command)), "{command}");
        let help = run(folder.path(), &[command, "--help"]);
        assert_eq!(help.status.code(), Some(0), "{command}");
        let text = stdout(&help);
        assert!(text.contains("Usage:") && text.contains("--json"), "{text}");
        assert!(!text.contains('\x1b'), "colours in a pipe");
    }
    assert!(stdout(&top).contains("64  the command line cannot be understood"));
    assert_eq!(
        stdout(&run(folder.path(), &["--version"])).trim(),
        concat!("raystream ", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn what_cannot_be_understood_ends_with_64() {
    let folder = folder();
    let url = format!("raystream://{}@127.0.0.1:1", "11".repeat(32));
    for arguments in [
        &[][..],
        &["nonsense"],
        &["keygen", "--nonsense"],
        &["call"],
        &["call", "http://example.com", "sys.echo"],
        &["call", &url],
        &["call", &url, "sys.echo", "--timeout", "5"],
        &["sub", &url, "orders", "--max", "0"],
        &["sub", &url, "orders", "--overflow", "explode"],
        &["ping", &url, "--cipher", "des"],
        &["bench", &url],
        &["bench", &url, "nonsense"],
        &["bench", &url, "echo", "--in-flight", "257"],
        &["bench", &url, "echo", "--connections", "0"],
        &["bench", &url, "echo", "--rate", "0"],
        &["bench", &url, "echo", "--duration", "0s"],
        &["bench", &url, "echo", "--payload", "7"],
        &["bench", &url, "bulk", "--payload", "1MiB"],
        &["bench", &url, "idle", "--rate", "5"],
        &["bench", &url, "sub", "--rate", "5"],
        &["completions", "tcsh-but-wrong"],
    ] {
        let output = run(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn keygen_makes_a_private_file_and_prints_the_public_key() {
    let folder = folder();
    let made = run(folder.path(), &["keygen"]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let public = stdout(&made);
    assert!(public.trim_end().len() == 64 && public.ends_with('\n'));
    assert!(public.trim_end().bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    let file = folder.path().join("raystream.key");
    let mode = std::fs::metadata(&file).expect("made").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let printed = run(folder.path(), &["pubkey", "raystream.key"]);
    assert_eq!(stdout(&printed), public);
    let content = std::fs::read_to_string(&file).expect("ours");
    let secret = content.lines().last().expect("the secret");
    assert!(!public.contains(secret) && !stderr(&made).contains(secret));

    let again = run(folder.path(), &["keygen"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).starts_with("error: raystream.key exists"), "{}", stderr(&again));
    assert!(stderr(&again).contains("\nhint: "));
    assert_eq!(std::fs::read_to_string(&file).expect("ours"), content);

    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("ours");
    let open = run(folder.path(), &["pubkey", "raystream.key"]);
    assert_eq!(open.status.code(), Some(1));
    assert!(stderr(&open).contains("chmod 600 raystream.key"), "{}", stderr(&open));
}

#[test]
fn keygen_speaks_json() {
    let folder = folder();
    let made = run(folder.path(), &["keygen", "--out", "a.key", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&stdout(&made)).expect("JSON");
    assert_eq!(value["file"], "a.key");
    assert_eq!(value["public_key"].as_str().map(str::len), Some(64));
    let again = run(folder.path(), &["--json", "keygen", "--out", "a.key"]);
    let error: serde_json::Value = serde_json::from_str(&stderr(&again)).expect("JSON");
    assert!(error["error"]["message"].as_str().is_some_and(|text| text.contains("a.key exists")));
    assert!(error["error"]["hint"].is_string());
}

#[test]
fn completions_are_what_the_shells_take() {
    let folder = folder();
    for (shell, marker) in
        [("bash", "complete -F"), ("zsh", "#compdef raystream"), ("fish", "complete -c raystream")]
    {
        let output = run(folder.path(), &["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        let script = stdout(&output);
        assert!(script.contains(marker), "{shell}");
        assert!(COMMANDS.iter().all(|command| script.contains(command)), "{shell}");
    }
    // Bash is there on every machine that builds this.
    let script = run(folder.path(), &["completions", "bash"]).stdout;
    std::fs::write(folder.path().join("completions.bash"), script).expect("ours");
    let checked = Command::new("bash").args(["-n", "completions.bash"]).current_dir(&folder).status();
    assert!(checked.expect("bash runs").success());
}

#[test]
fn who_asks_for_json_gets_warnings_as_json() {
    let folder = folder();
    let output = program(folder.path())
        .env("RAYSTREAM_PORT", "1")
        .args(["index", "list", "--database", "host=/nonexistent user=nobody", "--json"])
        .output()
        .expect("the program runs");
    let said: Vec<serde_json::Value> =
        stderr(&output).lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    let warned = said.iter().filter_map(|line| line["warning"].as_str());
    assert!(warned.into_iter().any(|warning| warning.contains("RAYSTREAM_PORT")), "{said:?}");
    assert!(said.last().is_some_and(|line| line["error"].is_object()), "{said:?}");
}

#[test]
fn config_check_says_ok_or_all_that_is_wrong() {
    let folder = folder();
    let ok = run(folder.path(), &["config", "check"]);
    assert_eq!((ok.status.code(), stdout(&ok).as_str()), (Some(0), "ok\n"));
    assert!(stderr(&ok).starts_with("warning: "), "nobody is let in");

    std::fs::write(folder.path().join("raystream.toml"), "listne = 1\n[limits]\nhalf_open = 0\n")
        .expect("ours");
    let wrong = run(folder.path(), &["config", "check"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(wrong.stdout.is_empty());
    let text = stderr(&wrong);
    assert!(
        text.contains("raystream.toml:1: listne") && text.contains("raystream.toml:3: limits.half_open"),
        "{text}"
    );
    let json = run(folder.path(), &["config", "check", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&stdout(&json)).expect("JSON");
    assert_eq!(report["ok"], false);
    assert_eq!(report["faults"].as_array().map(Vec::len), Some(2));
    assert_eq!(json.status.code(), Some(1));
}

#[test]
fn config_check_reads_the_key_files_too() {
    let folder = folder();
    std::fs::write(folder.path().join("raystream.toml"), "[identity]\nkey_file = 'server.key'\n")
        .expect("ours");
    let missing = run(folder.path(), &["config", "check"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        stderr(&missing).contains("identity.key_file: cannot read the key file server.key"),
        "{}",
        stderr(&missing)
    );
    assert!(run(folder.path(), &["keygen", "--out", "server.key"]).status.success());
    assert!(run(folder.path(), &["config", "check"]).status.success());
}

#[test]
fn config_print_takes_variables_and_hides_passwords() {
    let folder = folder();
    std::fs::write(folder.path().join("other.toml"), "[limits]\nconnections = 9\n").expect("ours");
    let printed = program(folder.path())
        .args(["config", "print"])
        .env("RAYSTREAM_CONFIG", "other.toml")
        .env("RAYSTREAM_DATABASE__URL", "postgres://ann:s3cret@db/app")
        .output()
        .expect("the program runs");
    assert!(printed.status.success(), "{}", stderr(&printed));
    let text = stdout(&printed);
    assert!(text.contains("connections = 9  # other.toml"), "{text}");
    assert!(text.contains("postgres://ann:***@db/app") && !text.contains("s3cret"), "{text}");
    std::fs::write(folder.path().join("printed.toml"), &text).expect("ours");
    let again = run(folder.path(), &["config", "check", "--config", "printed.toml"]);
    assert!(again.status.success(), "{}", stderr(&again));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = folder();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = program(folder.path())
        .args(["completions", "bash"])
        .stdout(writer)
        .output()
        .expect("the program runs");
    assert!(output.stderr.is_empty(), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn colours_are_used_when_asked_for() {
    let folder = folder();
    let plain = run(folder.path(), &["pubkey", "missing"]);
    assert!(stderr(&plain).starts_with("error: cannot read the key file missing"), "{}", stderr(&plain));
    let coloured = run(folder.path(), &["pubkey", "missing", "--color", "always"]);
    assert!(stderr(&coloured).starts_with("\x1b[1;31merror:\x1b[0m "));
    assert!(stdout(&run(folder.path(), &["--color=always", "--help"])).contains('\x1b'));
}

/// A folder with a schema, and what it was run with.
fn migrate(folder: &Path, schema: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    std::fs::write(folder.join("raystream.schema.toml"), schema).expect("ours");
    let output = run(folder, &[&["migrate"], arguments].concat());
    (output.status.code(), stdout(&output), stderr(&output))
}

#[test]
fn a_plan_needs_no_database() {
    let folder = folder();
    let missing = run(folder.path(), &["migrate", "plan"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("raystream.schema.toml cannot be read"), "{}", stderr(&missing));
    assert_eq!(run(folder.path(), &["migrate"]).status.code(), Some(64));

    let (status, out, err) = migrate(folder.path(), "", &["plan"]);
    assert_eq!((status, out.as_str(), err.as_str()), (Some(0), "nothing to do\n", ""));
    let schema = "[tables.users.fields]\nage = { type = 'number', default = 0 }";
    let (status, out, _) = migrate(folder.path(), schema, &["plan"]);
    assert_eq!(status, Some(0));
    assert!(out.contains("add_field users.age number default 0"), "{out}");
    assert!(out.contains("SELECT raystream.add_field('users', 'age', 'number', '0'::jsonb);"), "{out}");
    let (_, out, _) = migrate(folder.path(), schema, &["plan", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&plan["safe"], &plan["migrations"][0]["version"]), (&true.into(), &1.into()));
    assert_eq!(plan["migrations"][0]["changes"][1]["type"], "add_field");

    let (status, out, err) = migrate(folder.path(), "[tables.users.fields]\nage = 'int'", &["plan"]);
    assert_eq!((status, out.as_str()), (Some(1), ""));
    assert!(err.contains("tables.users.fields.age: `int` is no type of a field"), "{err}");
    // Nothing is written by looking.
    assert_eq!(std::fs::read_dir(folder.path()).expect("ours").count(), 1);
}

#[test]
fn the_file_of_a_migration_is_written_once_and_then_planned() {
    let folder = folder();
    let schema = "[tables.users.fields]\nage = 'number'";
    let (status, out, err) = migrate(folder.path(), schema, &["create", "first"]);
    assert_eq!((status, out.as_str(), err.as_str()), (Some(0), "./migrations/0001_first.sql\n", ""));
    let text = std::fs::read_to_string(folder.path().join("migrations/0001_first.sql")).expect("made");
    assert!(text.contains("\n-- up\nSELECT raystream.add_table('users');\n"), "{text}");
    assert!(text.contains("\n-- down\nSELECT raystream.forget_field('users', 'age');\n"), "{text}");
    let (_, out, _) = migrate(folder.path(), schema, &["plan"]);
    assert!(out.starts_with("0001 first (reviewed, migrations/0001_first.sql)\n"), "{out}");

    let gone = "[tables.users]";
    let (status, out, err) = migrate(folder.path(), gone, &["plan"]);
    assert_eq!(status, Some(1));
    assert!(out.contains("remove_field users.age  (needs a review)"), "{out}");
    assert!(err.contains("remove_field users.age\nhint: raystream migrate create NAME"), "{err}");
    let (_, out, _) = migrate(folder.path(), gone, &["create", "second", "--json"]);
    let made: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&made["version"], &made["changes"][0]["safe"]), (&2.into(), &false.into()));
    assert_eq!(migrate(folder.path(), gone, &["plan"]).0, Some(0));
    // One that changes no schema is to be filled by its author.
    assert_eq!(migrate(folder.path(), gone, &["create", "data"]).0, Some(0));
    let (status, _, err) = migrate(folder.path(), gone, &["plan"]);
    assert_eq!(status, Some(1));
    assert!(err.contains("0003_data.sql: there is nothing in it"), "{err}");
    let (status, _, err) = migrate(folder.path(), gone, &["create", "../x"]);
    assert_eq!(status, Some(1), "{err}");
}

#[test]
fn what_is_not_migrated_says_why_and_how_it_ends() {
    let folder = folder();
    let nowhere = ["status", "--database", "host=/nonexistent user=x dbname=x"];
    let (status, _, err) = migrate(folder.path(), "", &nowhere);
    assert_eq!(status, Some(2), "{err}");
    let (status, _, err) = migrate(folder.path(), "", &["up"]);
    assert_eq!(status, Some(1));
    assert!(err.contains("no private Postgres runs in"), "{err}");
    std::fs::write(
        folder.path().join("raystream.lock.json"),
        "{\"version\":1,\"tables\":{},\"migrations\":[]}",
    )
    .expect("ours");
    let (status, _, err) = migrate(folder.path(), "", &["plan"]);
    assert_eq!(status, Some(1));
    assert!(err.contains("raystream.lock.json: its migrations are not 1 to 1 in order"), "{err}");
}
