//! Migrations that fail, are killed, or meet another one.

use super::{Project, USERS};
use crate::support::{PATIENCE, RAYSTREAM};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn commands_at_the_same_moment_apply_a_migration_once() {
    let project = Project::new("migrate_race");
    project.schema(USERS);
    project.file(
        "0001_slow.sql",
        "CREATE TABLE public.once (n int); SELECT pg_sleep(0.3);",
        "DROP TABLE public.once;",
    );
    let start = || {
        let mut command = Command::new(RAYSTREAM);
        command.args(project.arguments(&["up", "--json"])).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts")
    };
    let children: Vec<_> = (0..4).map(|_| start()).collect();
    let mut applied = Vec::new();
    for child in children {
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let done: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(done["version"], 2);
        applied.extend(done["applied"].as_array().expect("a list").iter().map(|one| one["version"].clone()));
    }
    applied.sort_by_key(Value::as_i64);
    assert_eq!(applied, [json!(1), json!(2)], "each by one of them");
    assert_eq!(project.applied(), "1,2");
    assert_eq!(project.lock()["version"], 2);
    assert_eq!(project.ok(&["plan"]), "nothing to do\n");
}

#[test]
fn a_migration_that_fails_leaves_nothing_and_says_where() {
    let project = Project::new("migrate_failures");
    project.schema(USERS);
    project.ok(&["up"]);
    project.insert("users", "a", &json!({"name": "ann", "age": 3}));
    let before = std::fs::read_to_string(project.path("raystream.lock.json")).expect("it is there");
    for (up, part) in [
        ("CREATE TABLE public.t (a int);\nUPDATE users SET data = '{}';\nSELECT 1 / 0;", "division by zero"),
        ("UPDATE users SET data = '{}';\n\nSELEC 1;", "line 4: syntax error at or near \"SELEC\""),
        (
            "UPDATE users SET data = '{}'; SELECT a FROM missing;",
            "line 2: relation \"missing\" does not exist",
        ),
        ("UPDATE users SET data = '{}'; COMMIT; SELECT 1 / 0;", "no BEGIN, COMMIT or ROLLBACK"),
        ("DO 'BEGIN UPDATE users SET data = ''{}''; COMMIT; END';", "no BEGIN, COMMIT or ROLLBACK"),
        ("UPDATE users SET data = '{\"name\": 1}';", "field_type_name"),
        (
            "SELECT raystream.remove_field('users', 'age'); SELECT raystream.type_field('users', 'name', 'number');",
            "in the document 'a' of the table users the field name is a string that is no number",
        ),
        ("SELECT raystream.change_type('users', 'name', 'boolean');", "has no one meaning as boolean"),
        ("SELECT raystream.rename_field('users', 'age', 'name');", "has both age and name"),
        ("SELECT raystream.add_field('nobody', 'a', 'string');", "there is no table nobody"),
    ] {
        project.file("0002_bad.sql", up, "");
        project.refused(&["up"], part);
        assert_eq!(project.document("users", "a"), json!({"name": "ann", "age": 3}), "{up}");
        assert_eq!(project.applied(), "1", "{up}");
        assert_eq!(project.sql("SELECT count(*) FROM pg_class WHERE relname = 't'"), "0", "{up}");
    }
    assert_eq!(std::fs::read_to_string(project.path("raystream.lock.json")).expect("it is there"), before);
    // Those before it are done.
    project.file("0002_bad.sql", "UPDATE users SET data = data || '{\"age\": 4}';", "");
    project.file("0003_worse.sql", "SELECT 1 / 0;", "");
    project.refused(&["up"], "migration 3 (worse) was rolled back: division by zero");
    assert_eq!((project.applied().as_str(), project.lock()["version"].clone()), ("1,2", json!(2)));
    assert_eq!(project.document("users", "a")["age"], 4);
    std::fs::remove_file(project.path("migrations/0003_worse.sql")).expect("it is there");

    // What was applied may not change, here or in the database, and has nothing that takes it back.
    project.refused(&["down"], "nothing below `-- down`");
    project.file("0002_bad.sql", "UPDATE users SET data = data || '{\"age\": 5}';", "");
    for command in ["plan", "status", "up", "down"] {
        project.refused(&[command], "0002_bad.sql was edited after it was locked");
    }
    std::fs::remove_file(project.path("raystream.lock.json")).expect("it is there");
    project.refused(&["up"], "0002_bad.sql was edited after it was applied");
    project.refused(&["status"], "0002_bad.sql was edited after it was applied");
}

#[test]
fn a_broken_connection_hides_neither_the_failure_nor_what_was_done() {
    let project = Project::new("migrate_breaks");
    project.schema(USERS);
    project.file("0001_good.sql", "CREATE TABLE public.good (a int);", "DROP TABLE public.good;");
    project.file("0002_ends.sql", "SELECT pg_terminate_backend(pg_backend_pid());", "");
    let (status, out, err) = project.run(&["up"]);
    assert_eq!(status, Some(1), "{out}{err}");
    assert!(err.contains("migration 2 (ends) was rolled back"), "{err}");
    assert!(out.starts_with("applied 0001 good") && !out.contains("the database is at"), "{out}");
    assert_eq!(project.applied(), "1");
    // What the broken one could not write down, the next one does.
    project.file("0002_ends.sql", "SELECT 1;", "");
    project.ok(&["up"]);
    assert_eq!(project.lock()["migrations"][0]["name"], "good");
    assert_eq!(project.lock()["version"], json!(project.applied().split(',').count()));
}

#[test]
fn a_kill_leaves_a_migration_undone_and_the_next_command_does_it() {
    let project = Project::new("migrate_kill");
    project.schema(USERS);
    project.ok(&["up"]);
    project.insert("users", "a", &json!({"name": "ann", "age": 3}));
    let up = "UPDATE users SET data = data || '{\"age\": 4}'; SELECT pg_sleep(600);";
    project.file("0002_slow.sql", up, "");
    let mut child = Command::new(RAYSTREAM)
        .args(project.arguments(&["up"]))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let sleeping =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = 'migrate_kill' AND wait_event = 'PgSleep'";
    let begun = Instant::now();
    while project.sql(sleeping) != "1" {
        assert!(begun.elapsed() < PATIENCE, "the migration does not get that far");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().expect("it runs");
    child.wait().expect("it can be waited for");
    assert_eq!(project.document("users", "a")["age"], 3);
    assert_eq!(project.applied(), "1");
    // Not recorded, so it may still change. The lock is free when Postgres has noticed that the first one is gone.
    project.file("0002_slow.sql", "UPDATE users SET data = data || '{\"age\": 5}';", "");
    project.ok(&["up"]);
    assert_eq!(
        (project.document("users", "a")["age"].clone(), project.applied().as_str()),
        (json!(5), "1,2")
    );

    // Killed between the commit and the lock file: what the database has is taken over.
    let lock = project.lock();
    std::fs::remove_file(project.path("raystream.lock.json")).expect("it is there");
    assert!(project.ok(&["up"]).starts_with("the database is at version 2"));
    assert_eq!(project.lock(), lock);
}
