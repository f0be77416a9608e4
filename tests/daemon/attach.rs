//! Tables that somebody else made: attached, read and watched, and written with SQL.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use raystream::client::{Client, Options};
use raystream::wire::ErrorCode;
use serde_json::{Value, json};

use crate::support::{RAYSTREAM, TestDaemon, raystream};

/// `raystream attach` or `detach` on the private Postgres of a daemon.
fn run(daemon: &TestDaemon, args: &[&str]) -> (Option<i32>, String, String) {
    let data = daemon.data().to_str().expect("a path that is text");
    raystream(&[&args[..1], &["--data", data], &args[1..]].concat())
}

fn attach(daemon: &TestDaemon, args: &[&str]) {
    let (status, out, err) = run(daemon, &[&["attach"], args].concat());
    assert_eq!(status, Some(0), "{args:?}: {out}{err}");
}

/// A running `raystream sub` and its lines.
struct Sub(Child, BufReader<std::process::ChildStdout>);

impl Sub {
    fn start(daemon: &TestDaemon, table: &str) -> Self {
        let mut child = Command::new(RAYSTREAM)
            .args(["sub", &daemon.url, table])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Self(child, lines)
    }

    /// The next document of the snapshot or the next change: kind, id, data, old.
    fn next(&mut self) -> (String, String, Value, Value) {
        loop {
            let mut line = String::new();
            self.1.read_line(&mut line).expect("stdout is text");
            let mut line: Value =
                serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
            let kind = match line["type"].as_str() {
                Some("event") => line["kind"].as_str(),
                Some("snapshot") => Some("snapshot"),
                _ => continue,
            };
            let kind = kind.expect("an event has a kind").to_owned();
            let id = line["id"].as_str().expect("it has an id").to_owned();
            return (kind, id, line["data"].take(), line["old"].take());
        }
    }

    fn expect(&mut self, kind: &str, id: &str, data: Value, old: Value) {
        assert_eq!(self.next(), (kind.to_owned(), id.to_owned(), data, old));
    }
}

impl Drop for Sub {
    fn drop(&mut self) {
        let _may_be_gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn every_write_to_an_attached_table_is_an_event() {
    let daemon = TestDaemon::start();
    daemon.sql(
        "CREATE TABLE orders (id int PRIMARY KEY, total numeric, paid boolean, at timestamptz); \
         INSERT INTO public.orders VALUES (2, 1.50, false, '2026-01-02 03:04:05+00'), (10, 7, true, NULL)",
    );
    attach(&daemon, &["orders"]);
    let mut sub = Sub::start(&daemon, "orders");
    let row = |id: i64, total: Value, paid: bool, at: Value| json!({"id": id, "total": total, "paid": paid, "at": at});
    let first = row(2, json!(1.50), false, json!("2026-01-02T03:04:05+00:00"));
    // By their numbers, not by the text of them.
    sub.expect("snapshot", "2", first.clone(), Value::Null);
    sub.expect("snapshot", "10", row(10, json!(7), true, Value::Null), Value::Null);

    // Of a session with settings of its own.
    daemon.sql(
        "SET timezone = 'Asia/Tokyo'; SET datestyle = 'German'; UPDATE public.orders SET paid = true WHERE id = 2",
    );
    let second = row(2, json!(1.50), true, json!("2026-01-02T03:04:05+00:00"));
    sub.expect("update", "2", second.clone(), first);
    daemon.sql("UPDATE public.orders SET id = 3 WHERE id = 2");
    sub.expect("delete", "2", Value::Null, second);
    let third = row(3, json!(1.50), true, json!("2026-01-02T03:04:05+00:00"));
    sub.expect("insert", "3", third.clone(), Value::Null);
    daemon.sql("BEGIN; INSERT INTO public.orders VALUES (4); ROLLBACK");
    daemon.sql("ALTER TABLE public.orders ADD COLUMN note text");
    daemon.sql("INSERT INTO public.orders VALUES (5, 1, true, NULL, 'new')");
    let mut fifth = row(5, json!(1), true, Value::Null);
    fifth["note"] = "new".into();
    sub.expect("insert", "5", fifth, Value::Null);
    daemon.sql("DELETE FROM public.orders WHERE id = 10");
    assert_eq!(sub.next().0, "delete");
    daemon.sql("TRUNCATE public.orders");
    let mut truncated = [sub.next(), sub.next()].map(|(kind, id, ..)| (kind, id));
    truncated.sort();
    assert_eq!(truncated, [("delete".to_owned(), "3".to_owned()), ("delete".to_owned(), "5".to_owned())]);
    daemon.sql("INSERT INTO public.orders VALUES (1)");
    assert_eq!(sub.next().1, "1");
}

#[test]
fn a_subscriber_of_an_attached_table_resumes_over_a_kill() {
    let mut daemon = TestDaemon::start();
    daemon.sql("CREATE TABLE public.k (a text, b int, v int, PRIMARY KEY (b, a)); INSERT INTO public.k VALUES ('x', 1, 1)");
    attach(&daemon, &["public.k", "--name", "keys"]);
    let mut sub = Sub::start(&daemon, "keys");
    sub.expect("snapshot", r#"[1, "x"]"#, json!({"a": "x", "b": 1, "v": 1}), Value::Null);
    daemon.kill_and_restart();
    daemon.sql("UPDATE public.k SET v = 2");
    let was = json!({"a": "x", "b": 1, "v": 1});
    sub.expect("update", r#"[1, "x"]"#, json!({"a": "x", "b": 1, "v": 2}), was);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attached_table_is_read_like_others_and_not_written() {
    let daemon = TestDaemon::start();
    daemon.sql(
        "CREATE SCHEMA shop; CREATE TABLE shop.\"Line items\" (\"the key\" text PRIMARY KEY, \"data\" jsonb, row_ int); \
         INSERT INTO shop.\"Line items\" SELECT 'k' || lpad(n::text, 3, '0'), jsonb_build_object('n', n), n \
         FROM generate_series(1, 250) AS n; \
         CREATE TABLE shop.big (id int PRIMARY KEY, t text); INSERT INTO shop.big VALUES (1, repeat('x', 1000000))",
    );
    attach(&daemon, &["shop.\"Line items\"", "--name", "items"]);
    attach(&daemon, &["shop.big"]);
    let client = Client::connect(&daemon.url, Options::default()).await.unwrap();
    let call = async |method: &str, args: Value| client.call_typed::<_, Value>(method, &args).await;
    let got = call("table.get", json!({"table": "items", "id": "k007"})).await.unwrap();
    assert_eq!(got["data"], json!({"the key": "k007", "data": {"n": 7}, "row_": 7}));
    assert_eq!(call("table.count", json!({"table": "items"})).await.unwrap(), json!({"count": 250}));
    let filtered = json!({"table": "items", "filter": {"data": {"n": 9}}});
    assert_eq!(call("table.query", filtered).await.unwrap()["items"][0]["id"], "k009");
    for order in [None, Some("id"), Some("-id"), Some("data.n")] {
        let (mut seen, mut after) = (0, Value::Null);
        loop {
            let args = json!({"table": "items", "limit": 100, "order": order, "after": after});
            let page = call("table.query", args).await.unwrap();
            seen += page["items"].as_array().unwrap().len();
            after = page["next"].clone();
            if after.is_null() {
                break;
            }
        }
        assert_eq!(seen, 250, "{order:?}");
    }
    // What no message could carry says so.
    let big = call("table.get", json!({"table": "big", "id": "1"})).await.unwrap();
    assert_eq!(big["data"], json!({"_too_large": 1_000_018}));
    // Also when it is short as Postgres stores it.
    daemon.sql(
        "CREATE TABLE public.digits (id int PRIMARY KEY, n numeric[]); \
         INSERT INTO public.digits VALUES (1, array_fill(1e131071::numeric, ARRAY[8]))",
    );
    attach(&daemon, &["digits"]);
    let digits = call("table.get", json!({"table": "digits", "id": "1"})).await.unwrap();
    assert!(digits["data"]["_too_large"].as_i64() > Some(8 * 131_072), "{digits}");
    for (method, args) in [
        ("table.set", json!({"table": "items", "id": "a", "data": 1})),
        ("table.update", json!({"table": "items", "id": "k007", "data": {}})),
        ("table.delete", json!({"table": "items", "id": "k007"})),
        ("table.push", json!({"table": "items", "data": 1})),
        ("table.pop", json!({"table": "items"})),
    ] {
        let refused = call(method, args).await.expect_err("it is written with SQL");
        assert_eq!(refused.code(), Some(ErrorCode::INVALID_REQUEST), "{method}: {refused}");
    }
    // The index of the key serves.
    let plan = daemon.sql(&format!(
        "SET enable_seqscan = off; EXPLAIN (FORMAT JSON) SELECT data FROM {} WHERE id = 'k007'",
        daemon.physical("items")
    ));
    assert!(plan.contains("Index Cond"), "{plan}");

    assert_eq!(run(&daemon, &["detach", "items"]), (Some(0), "items\n".to_owned(), String::new()));
    let gone = call("table.get", json!({"table": "items", "id": "k007"})).await.expect_err("it is detached");
    assert_eq!(gone.code(), Some(ErrorCode::NOT_FOUND));
    let left = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'raystream%' AND tgrelid = 'shop.\"Line items\"'::regclass";
    assert_eq!(daemon.sql(left), "0");
    daemon.sql("DELETE FROM shop.\"Line items\"");
    assert_eq!(run(&daemon, &["detach", "shop.big"]).0, Some(0));
    attach(&daemon, &["shop.big"]);
}

#[test]
fn what_cannot_be_attached_is_refused_with_the_reason() {
    let daemon = TestDaemon::start();
    daemon.sql(
        "CREATE TABLE public.nameless (a int); CREATE VIEW public.v AS SELECT 1 AS id; \
         CREATE TABLE public.parts (id int PRIMARY KEY) PARTITION BY RANGE (id); \
         CREATE TABLE public.t (id int PRIMARY KEY); CREATE TABLE public.\"no name\" (id int PRIMARY KEY)",
    );
    attach(&daemon, &["t"]);
    for (args, part) in [
        (&["attach", "missing"][..], "does not exist"),
        (&["attach", "nameless"], "has no primary key"),
        (&["attach", "v"], "is no plain table"),
        (&["attach", "parts"], "is no plain table"),
        (&["attach", "raystream.meta"], "not for tables of yours"),
        (&["attach", "t"], "is attached already"),
        (&["attach", "t", "--name", "u"], "is attached already"),
        (&["attach", "\"no name\""], "cannot be the name of a table here"),
        (&["detach", "missing"], "no table is attached as `missing`"),
        (&["detach", "nameless"], "no table is attached as `nameless`"),
    ] {
        let (status, out, err) = run(&daemon, args);
        assert_eq!((status, out.as_str()), (Some(1), ""), "{args:?}: {err}");
        assert!(err.contains(part), "{args:?}: {err}");
    }
    // Whoever drops his table has dropped it; the name is free again.
    daemon.sql("DROP TABLE public.t CASCADE");
    assert_eq!(run(&daemon, &["detach", "t"]).0, Some(0));
    let data = tempfile::tempdir().expect("a temporary folder");
    let args = ["attach", "t", "--data", data.path().to_str().expect("text")];
    let (status, _, err) = raystream(&args);
    assert_eq!(status, Some(1));
    assert!(err.contains("no private Postgres runs in"), "{err}");
}

/// Whoever may write an attached table and make temporary objects has his own functions run with his own rights only: names of
/// temporary types would otherwise be found before those of the catalog.
#[test]
fn a_writer_of_an_attached_table_cannot_slip_types_into_its_trigger() {
    let daemon = TestDaemon::start();
    daemon.sql(
        "CREATE ROLE slipper; CREATE TABLE slips (id int PRIMARY KEY, note text); GRANT ALL ON slips TO slipper;
         GRANT USAGE ON SCHEMA public TO slipper",
    );
    attach(&daemon, &["slips"]);
    let types = ["jsonb", "text", "int8", "numeric"].map(|name| {
        format!(
            "CREATE FUNCTION pg_temp.slip_{name}(pg_catalog.{name}) RETURNS bool LANGUAGE plpgsql AS
                 $$ BEGIN RAISE EXCEPTION 'ran as %', current_user; END $$;
             CREATE DOMAIN pg_temp.{name} AS pg_catalog.{name} CHECK (pg_temp.slip_{name}(VALUE));"
        )
    });
    // All in one session, as the role: a trigger that meets one of the types fails.
    daemon.sql(&format!(
        "SET ROLE slipper; {} INSERT INTO slips VALUES (1, 'a'); UPDATE slips SET note = 'b'; DELETE FROM slips",
        types.concat()
    ));
    let logged = daemon.sql("SELECT count(*) FROM raystream.changes WHERE id = '1'");
    assert_eq!(logged.trim(), "3");
}
