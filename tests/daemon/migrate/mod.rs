//! `raystream migrate` on a real Postgres: there and back, two at once, failures, kills, attached tables.

mod attached;
mod failures;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::{TestDaemon, raystream, shared};

/// A folder with a schema, and a database of its own.
struct Project {
    folder: tempfile::TempDir,
    daemon: Arc<TestDaemon>,
    database: String,
}

impl Project {
    /// One on a database of its own, which no daemon serves.
    fn new(database: &str) -> Self {
        let daemon = shared();
        daemon.sql(&format!("CREATE DATABASE {database}"));
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            daemon,
            database: database.to_owned(),
        }
    }

    /// One on the database of a daemon.
    fn of(daemon: Arc<TestDaemon>) -> Self {
        let database = "raystream".to_owned();
        Self { folder: tempfile::tempdir().expect("a temporary folder"), daemon, database }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn schema(&self, text: &str) {
        std::fs::write(self.path("raystream.schema.toml"), text).expect("the folder can be written");
    }

    /// A reviewed migration without changes of the schema.
    fn file(&self, name: &str, up: &str, down: &str) {
        std::fs::create_dir_all(self.path("migrations")).expect("the folder can be written");
        let text = format!("-- up\n{up}\n-- down\n{down}\n");
        std::fs::write(self.path("migrations").join(name), text).expect("the folder can be written");
    }

    fn lock(&self) -> Value {
        let text = std::fs::read_to_string(self.path("raystream.lock.json")).expect("the lock file is there");
        serde_json::from_str(&text).expect("the lock file is JSON")
    }

    fn arguments(&self, arguments: &[&str]) -> Vec<String> {
        let mut all = vec!["migrate".to_owned()];
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        all.extend(["--dir".to_owned(), self.folder.path().to_str().expect("text").to_owned()]);
        if !matches!(arguments[0], "plan" | "create") {
            all.extend(["--database".to_owned(), self.daemon.database(&self.database)]);
        }
        all
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let arguments = self.arguments(arguments);
        raystream(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let (status, out, err) = self.run(arguments);
        assert_eq!((status, err.as_str()), (Some(0), ""), "{arguments:?}: {out}");
        out
    }

    fn refused(&self, arguments: &[&str], part: &str) {
        let (status, out, err) = self.run(arguments);
        assert_eq!(status, Some(1), "{arguments:?}: {out}{err}");
        assert!(err.contains(part), "{arguments:?}: {err}");
    }

    fn sql(&self, statement: &str) -> String {
        self.daemon.sql_in(&self.database, statement)
    }

    /// A document as the physical table has it.
    fn document(&self, table: &str, id: &str) -> Value {
        let physical = self.physical(table);
        let text = self
            .sql(&format!("SELECT data::text FROM {physical} WHERE id = '{id}' AND _deleted_txid IS NULL"));
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    fn physical(&self, table: &str) -> String {
        self.sql(&format!(
            "SELECT format('%I.%I', ptr_schema, ptr) FROM raystream.storage WHERE name = '{table}'"
        ))
    }

    fn insert(&self, table: &str, id: &str, data: &Value) {
        self.sql(&format!("INSERT INTO {} (id, data) VALUES ('{id}', '{data}')", self.physical(table)));
    }

    /// The versions that the database has.
    fn applied(&self) -> String {
        self.sql("SELECT coalesce(string_agg(version::text, ',' ORDER BY version), '') FROM raystream.schema_migrations")
    }
}

/// A call that has to succeed, or the code of its error.
fn call(url: &str, method: &str, args: &Value) -> Result<Value, String> {
    let (status, out, err) = raystream(&["call", url, method, &args.to_string()]);
    match status {
        Some(0) => Ok(serde_json::from_str(&out).expect("a result is JSON")),
        _ => Err(err),
    }
}

const USERS: &str = "[tables.users.fields]\nname = 'string'\nage = { type = 'number', default = 0 }\n";

#[test]
fn a_schema_goes_up_and_down_and_subscribers_see_what_it_does_to_documents() {
    let project = Project::of(Arc::new(TestDaemon::start()));
    let url = project.daemon.url.clone();
    let set =
        |id: &str, data: Value| call(&url, "table.set", &json!({"table": "users", "id": id, "data": data}));
    set("a", json!({"name": "ann"})).expect("a table without a schema takes anything");
    let begin = call(&url, "sys.info", &json!({})).expect("the daemon answers");
    assert!(begin.is_object());

    project.schema(USERS);
    assert!(project.ok(&["plan"]).starts_with("0001 automatic (safe)\n"));
    assert!(project.ok(&["status"]).contains("pending"));
    assert!(project.ok(&["up"]).ends_with("the database is at version 1\n"));
    assert_eq!(project.ok(&["plan"]), "nothing to do\n");
    assert_eq!(project.document("users", "a"), json!({"name": "ann", "age": 0}));
    let refused = set("b", json!({"name": 7})).expect_err("it is no string");
    assert!(refused.starts_with("INVALID_REQUEST: the field `name` is not of the type"), "{refused}");
    set("b", json!({"name": "bob", "age": null, "more": [1]}))
        .expect("a field may be null, and others be there");

    project.schema(
        "[tables.users]\npermissions = 'RW_'\n[tables.users.fields]\n\
         title = { type = 'string', was = 'name', perm = 'R__' }\nage = 'string'\n",
    );
    project.refused(&["up"], "rename_field users.name to title, change_type users.age to string");
    assert_eq!(project.applied(), "1");
    project.ok(&["create", "titles"]);
    project.ok(&["up"]);
    assert_eq!(project.document("users", "a"), json!({"title": "ann", "age": "0"}));
    for (method, args, part) in [
        (
            "table.update",
            json!({"table": "users", "id": "a", "data": {"title": "x"}}),
            "nobody change the field `title`",
        ),
        ("table.delete", json!({"table": "users", "id": "a"}), "nobody delete documents"),
    ] {
        let refused = call(&url, method, &args).expect_err("the schema forbids it");
        assert!(refused.starts_with("INVALID_REQUEST: ") && refused.contains(part), "{refused}");
    }
    call(&url, "table.update", &json!({"table": "users", "id": "a", "data": {"age": "1"}})).expect("it may");

    let status: Value = serde_json::from_str(&project.ok(&["status", "--json"])).expect("JSON");
    assert_eq!(status["version"], 2);
    assert_eq!(status["migrations"][1]["name"], "titles");
    assert!(project.ok(&["down"]).ends_with("the database is at version 1\n"));
    assert_eq!(project.document("users", "a"), json!({"name": "ann", "age": 1}));
    call(&url, "table.delete", &json!({"table": "users", "id": "b"})).expect("it may again");

    // What the migrations did is in the log like any other write, by their names.
    let (_, out, err) = raystream(&["changes", &url, "--table", "users", "--limit", "100", "--json"]);
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |principal: &str| lines.iter().filter(|line| line["principal"] == principal).collect::<Vec<_>>();
    assert_eq!(of("migration 1 automatic").len(), 1, "{out}{err}");
    assert_eq!(of("migration 1 automatic")[0]["after"], json!({"name": "ann", "age": 0}));
    let renamed = of("migration 2 titles");
    assert!(
        renamed.iter().any(|line| line["before"]["name"] == "bob" && line["after"]["title"] == "bob"),
        "{out}"
    );

    project.ok(&["down"]);
    // The file goes on from it, so it stays in the lock file.
    assert_eq!((project.applied(), project.lock()["version"].clone()), (String::new(), json!(1)));
    // Documents are nothing that a schema brought.
    assert_eq!(project.document("users", "a"), json!({"name": "ann", "age": 1}));
    set("c", json!({"name": 7})).expect("nothing is declared any more");
    project.refused(&["down"], "no migration was applied");
    project.refused(
        &["up"],
        "in the document 'c' of the table users the field name is a number that is no string",
    );
    call(&url, "table.delete", &json!({"table": "users", "id": "c"})).expect("it may");
    assert!(project.ok(&["up"]).ends_with("the database is at version 2\n"));
    assert_eq!(project.document("users", "a"), json!({"title": "ann", "age": "1"}));
}

#[test]
fn a_migration_finds_nothing_of_the_session_of_the_one_before() {
    let project = Project::new("migrate_sessions");
    project.schema(USERS);
    project.ok(&["up"]);
    project.sql("CREATE ROLE migrate_guest; GRANT CREATE, USAGE ON SCHEMA public TO migrate_guest");
    project.file(
        "0002_leaves.sql",
        "CREATE TEMP TABLE scratch (a int);\n\
         SET session_replication_role = replica;\n\
         SET standard_conforming_strings = off;\n\
         SELECT set_config('search_path', '', false), set_config('raystream.migrating', 'on', false);\n\
         SET lock_timeout = '1ms';\n\
         SET ROLE migrate_guest;",
        "",
    );
    let expected = "current_setting('session_replication_role') = 'origin' AND current_setting('lock_timeout') = '10s' \
        AND current_setting('standard_conforming_strings') = 'on' AND current_user = session_user \
        AND current_setting('TimeZone') = 'UTC' AND to_regclass('pg_temp.scratch') IS NULL \
        AND current_setting('search_path') LIKE '%public%'";
    project.file(
        "0003_finds.sql",
        &format!(
            "CREATE TABLE public.made (a int);\nUPDATE users SET data = data || '{{\"age\": 4}}';\n\
             DO $$ BEGIN ASSERT {expected}, 'the session is another one'; END $$;"
        ),
        "DROP TABLE public.made;",
    );
    project.insert("users", "a", &json!({"name": "ann", "age": 3}));
    project.ok(&["up"]);
    assert_eq!((project.applied().as_str(), project.lock()["version"].clone()), ("1,2,3", json!(3)));
    assert_eq!(project.document("users", "a")["age"], 4);
    // With its triggers: the change is in the log.
    let logged = "SELECT count(*) FROM raystream.changes WHERE principal = 'migration 3 finds'";
    assert_eq!(project.sql(logged), "1");
    assert_eq!(project.sql("SELECT count(*) FROM public.made"), "0");
}

#[test]
fn another_database_gets_the_same_history() {
    let first = Project::new("migrate_first");
    first.schema(USERS);
    first.ok(&["up"]);
    first.schema(&format!(
        "{USERS}tags = 'string[]'\n[tables.users.indexes]\nby_name = {{ fields = ['name'], unique = true }}"
    ));
    first.refused(&["up", "--locked"], "it lacks migration 2 (automatic)");
    first.ok(&["up"]);
    first.insert("users", "a", &json!({"name": "ann", "tags": ["x"]}));
    let again =
        format!("INSERT INTO {} (id, data) VALUES ('b', '{{\"name\": \"ann\"}}')", first.physical("users"));
    let taken = format!(
        "DO $$ BEGIN {again}; RAISE 'taken twice'; EXCEPTION WHEN unique_violation THEN NULL; END $$"
    );
    first.sql(&taken);

    let second = Project { folder: first.folder, ..Project::new("migrate_second") };
    let lock = second.lock();
    let status = second.ok(&["status"]);
    assert_eq!(status.matches("pending").count(), 2, "{status}");
    assert!(second.ok(&["up", "--locked"]).ends_with("the database is at version 2\n"));
    let fields = "SELECT string_agg(name || ' ' || type, ', ' ORDER BY name) FROM raystream.fields";
    assert_eq!(second.sql(fields), "age number, name string, tags string[]");
    assert_eq!(second.lock(), lock, "nothing of it is written anew");
    // Another history is left alone.
    let other = Project::new("migrate_other");
    other.schema("[tables.log]");
    other.ok(&["up"]);
    copy(&other.path("raystream.lock.json"), &second.path("raystream.lock.json"));
    second.refused(
        &["up"],
        "the database has automatic as migration 1, and here that is automatic: these are two histories",
    );
}

fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).expect("the file can be copied");
}

#[test]
fn removing_a_table_deletes_its_documents_first_and_undoing_one_keeps_them() {
    let project = Project::new("migrate_tables");
    project.schema("[tables.users]\n[tables.empty]");
    project.ok(&["up"]);
    project.insert("users", "a", &json!(1));
    project.ok(&["down"]);
    assert_eq!(project.sql("SELECT string_agg(name, ',') FROM raystream.storage"), "users");
    project.ok(&["up"]);
    assert_eq!(project.document("users", "a"), json!(1));
    let ptr = project.sql("SELECT ptr FROM raystream.storage WHERE name = 'users'");
    project.schema("[tables.empty]");
    project.ok(&["create", "no-users"]);
    project.ok(&["up"]);
    assert_eq!(project.sql("SELECT string_agg(name, ',') FROM raystream.storage"), "empty");
    assert_eq!(project.sql(&format!("SELECT count(*) FROM pg_class WHERE relname = '{ptr}'")), "0");
    let last = format!(
        "SELECT op::text || ' ' || before::text FROM raystream.changes WHERE ptr = '{ptr}' ORDER BY seq DESC LIMIT 1"
    );
    assert_eq!(project.sql(&last), "d 1");
    project.ok(&["down"]);
    assert_eq!(project.document("users", "a"), Value::Null, "what was removed does not come back");
}

#[test]
fn types_in_the_database_are_those_of_the_library() {
    let project = Project::new("migrate_types");
    project.schema("");
    project.ok(&["up"]);
    let values = [
        "null",
        "\"a b\"",
        "\"YQ==\"",
        "\"YQ\"",
        "\"\"",
        "1",
        "-7",
        "1.5",
        "1.0",
        "9223372036854775807",
        "9223372036854775808",
        "1e400",
        "true",
        "[]",
        "[1]",
        "[\"a b\"]",
        "[null]",
        "[[1]]",
        "{}",
        "{\"a\":1}",
    ];
    let list: Vec<String> = values.iter().map(|value| format!("'{value}'")).collect();
    for name in ["string", "number", "boolean", "bigint", "Date", "Uint8Array", "json"] {
        for field_type in [name.to_owned(), format!("{name}[]")] {
            let parsed: raystream::migrations::FieldType = field_type.parse().expect("a type");
            let there = project.sql(&format!(
                "SELECT string_agg(raystream.is_type(v::jsonb, '{field_type}')::text, ',' ORDER BY n) \
                 FROM unnest(ARRAY[{}]) WITH ORDINALITY AS u (v, n)",
                list.join(", ")
            ));
            for (value, there) in values.iter().zip(there.split(',')) {
                // Numbers that this program cannot hold are none of its defaults; 1.0 is whole for Postgres.
                let Ok(here) = serde_json::from_str::<Value>(value) else { continue };
                if matches!(*value, "1.0" | "9223372036854775808") {
                    continue;
                }
                assert_eq!(there == "true", parsed.accepts(&here), "{value} as {field_type}");
            }
        }
    }
    for (value, field_type, expected) in [
        ("1.0", "bigint", "t"),
        ("9223372036854775808", "bigint", "f"),
        ("1e400", "number", "t"),
        ("1e400", "bigint", "f"),
    ] {
        assert_eq!(
            project.sql(&format!("SELECT raystream.is_type('{value}', '{field_type}')")),
            expected,
            "{value}"
        );
    }
}
