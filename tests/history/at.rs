//! Reads as of an earlier moment, beside an oracle: random writes from several connections, with transactions that are open
//! across the moments.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use raystream::client::{Client, Item, SubscribeOptions};
use raystream::wire::ErrorCode;
use serde_json::{Value, json};

use crate::oracle::{Oracle, Row, Rows, Write, by_insertion, even_descending};
use crate::reads::{pages, stream, with};
use crate::server::{Server, call, code};

/// Connections of SQL, each with a transaction open now and then.
const SESSIONS: usize = 3;

/// What is done next.
#[derive(Debug, Clone)]
enum Step {
    /// By a client, by itself.
    Set(u8, i64),
    Patch(u8, i64),
    Delete(u8),
    Push(i64),
    Shift,
    /// By SQL: in the transaction of a session, which begins with this when there is none.
    SqlSet(usize, u8, i64),
    SqlDelete(usize, u8),
    /// A row that goes without a tombstone.
    SqlRemove(usize, u8),
    End(usize, bool),
    /// A moment to come back to.
    Mark,
}

fn step() -> impl Strategy<Value = Step> {
    let (session, id, n) = (0..SESSIONS, 0..8_u8, 0..20_i64);
    prop_oneof![
        3 => (id.clone(), n.clone()).prop_map(|(id, n)| Step::Set(id, n)),
        2 => (id.clone(), n.clone()).prop_map(|(id, n)| Step::Patch(id, n)),
        2 => id.clone().prop_map(Step::Delete),
        1 => n.clone().prop_map(Step::Push),
        1 => Just(Step::Shift),
        4 => (session.clone(), id.clone(), n).prop_map(|(session, id, n)| Step::SqlSet(session, id, n)),
        2 => (session.clone(), id.clone()).prop_map(|(session, id)| Step::SqlDelete(session, id)),
        1 => (session.clone(), id).prop_map(|(session, id)| Step::SqlRemove(session, id)),
        3 => (session, any::<bool>()).prop_map(|(session, commits)| Step::End(session, commits)),
        3 => Just(Step::Mark),
    ]
}

fn data(n: i64) -> Value {
    json!({"n": n, "even": n % 2 == 0})
}

/// A transaction of a session.
#[derive(Default)]
struct Open {
    writes: Vec<Write>,
    last_write: usize,
    /// The rows that it has the locks of.
    held: BTreeSet<String>,
}

/// A moment that was marked.
struct Mark {
    step: usize,
    cursor: String,
    time: String,
    rows: Rows,
}

struct World {
    server: Server,
    client: Client,
    sessions: Vec<tokio_postgres::Client>,
    clock: tokio_postgres::Client,
}

/// One run on a table of its own.
struct Run<'a> {
    world: &'a World,
    table: String,
    quoted: String,
    oracle: Oracle,
    open: BTreeMap<usize, Open>,
    marks: Vec<Mark>,
    step: usize,
}

impl Run<'_> {
    /// The document as this session sees it.
    fn seen(&self, session: Option<usize>, id: &str) -> Option<Row> {
        let own = session.and_then(|session| self.open.get(&session));
        let own = own.and_then(|open| open.writes.iter().rfind(|(written, _)| written == id));
        match own {
            Some((_, row)) => row.clone(),
            None => self.oracle.now().remove(id),
        }
    }

    /// Whether another transaction has the document's lock.
    fn is_held(&self, session: Option<usize>, id: &str) -> bool {
        self.open.iter().any(|(other, open)| Some(*other) != session && open.held.contains(id))
    }

    async fn call(&self, method: &str, args: Value) -> Value {
        let args = with(args, &json!({"table": self.table}));
        call(&self.world.client, method, args).await.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// A write that is committed when it is answered.
    fn done(&mut self, id: &str, row: Option<Row>) {
        self.oracle.commit(self.step, vec![(id.to_owned(), row)]);
    }

    async fn sql(&mut self, session: usize, id: String, statement: String, new: Option<Value>) {
        let before = self.seen(Some(session), &id);
        if !self.open.contains_key(&session) {
            self.world.sessions[session].batch_execute("BEGIN").await.unwrap();
            self.open.insert(session, Open::default());
        }
        let row = self.world.sessions[session].query_opt(&statement, &[]).await.unwrap();
        let written = row.map(|row| row.get::<_, i64>(0));
        let open = self.open.get_mut(&session).unwrap();
        if let Some(version) = written {
            open.held.insert(id.clone());
            // Removing a tombstone changes no document, so the log has nothing of it, and it counts for no time.
            if before.is_some() || new.is_some() {
                let ord = before.map_or(self.step, |row| row.0);
                open.writes.push((id, new.map(|data| (ord, version, data))));
                open.last_write = self.step;
            }
        }
    }

    async fn apply(&mut self, step: &Step) {
        self.step += 1;
        let table = self.quoted.clone();
        match *step {
            Step::Set(id, _) | Step::Patch(id, _) | Step::Delete(id)
                if self.is_held(None, &format!("d{id}")) => {}
            Step::SqlSet(session, id, _) | Step::SqlDelete(session, id) | Step::SqlRemove(session, id)
                if self.is_held(Some(session), &format!("d{id}")) => {}
            Step::Set(id, n) => {
                let id = format!("d{id}");
                let answer = self.call("table.set", json!({"id": id, "data": data(n)})).await;
                let ord = self.seen(None, &id).map_or(self.step, |row| row.0);
                self.done(&id, Some((ord, answer["version"].as_i64().unwrap(), data(n))));
            }
            Step::Patch(id, n) => {
                let id = format!("d{id}");
                let Some((ord, _, mut was)) = self.seen(None, &id) else { return };
                let answer = self.call("table.update", json!({"id": id, "data": {"n": n}})).await;
                was["n"] = json!(n);
                self.done(&id, Some((ord, answer["version"].as_i64().unwrap(), was)));
            }
            Step::Delete(id) => {
                let id = format!("d{id}");
                let answer = self.call("table.delete", json!({"id": id})).await;
                assert_eq!(answer["deleted"], self.seen(None, &id).is_some());
                self.done(&id, None);
            }
            Step::Push(n) => {
                let answer = self.call("table.push", json!({"data": data(n)})).await;
                let id = answer["id"].as_str().unwrap().to_owned();
                self.done(&id, Some((self.step, 1, data(n))));
            }
            Step::Shift => {
                let answer = self.call("table.shift", json!({})).await;
                if let Some(id) = answer["id"].as_str() {
                    self.done(id, None);
                }
            }
            Step::SqlSet(session, id, n) => {
                let id = format!("d{id}");
                // As somebody at psql might, with a version of his own.
                let statement = format!(
                    "INSERT INTO {table} AS d (id, data) VALUES ('{id}', '{}') ON CONFLICT (id) DO UPDATE SET \
                     data = EXCLUDED.data, _version = d._version + {}, _deleted_txid = NULL, \
                     _order = CASE WHEN d._deleted_txid IS NULL THEN d._order ELSE EXCLUDED._order END \
                     RETURNING _version",
                    data(n),
                    n % 3
                );
                self.sql(session, id, statement, Some(data(n))).await;
            }
            Step::SqlDelete(session, id) => {
                let id = format!("d{id}");
                let statement = format!(
                    "UPDATE {table} SET _deleted_txid = pg_current_xact_id(), data = 'null' \
                     WHERE id = '{id}' AND _deleted_txid IS NULL RETURNING _version"
                );
                self.sql(session, id, statement, None).await;
            }
            Step::SqlRemove(session, id) => {
                let id = format!("d{id}");
                let statement = format!("DELETE FROM {table} WHERE id = '{id}' RETURNING _version");
                self.sql(session, id, statement, None).await;
            }
            Step::End(session, commits) => {
                let Some(open) = self.open.remove(&session) else { return };
                let end = if commits { "COMMIT" } else { "ROLLBACK" };
                self.world.sessions[session].batch_execute(end).await.unwrap();
                if commits {
                    self.oracle.commit(open.last_write, open.writes);
                }
            }
            Step::Mark => {
                let published = self.call_topic().await;
                let row = self.world.clock.query_one(
                    "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
                    &[],
                );
                self.marks.push(Mark {
                    step: self.step,
                    cursor: published,
                    time: row.await.unwrap().get(0),
                    rows: self.oracle.now(),
                });
            }
        }
    }

    /// A cursor of now.
    async fn call_topic(&self) -> String {
        let answer = call(&self.world.client, "topic.publish", json!({"topic": "marks", "data": 1})).await;
        answer.unwrap()["cursor"].as_str().unwrap().to_owned()
    }

    /// Every way to read the table at a moment has what the oracle has. Answers the cursor of the moment.
    async fn check(&self, at: &str, rows: &Rows) -> String {
        let client = &self.world.client;
        let args = json!({"table": self.table, "at": at});
        let whole = by_insertion(rows);
        let (streamed, end) = stream(client, "table.query", &args).await.unwrap();
        assert_eq!(streamed, whole, "streamed, at {at}");
        assert_eq!(end["count"], whole.len());
        let cursor = end["cursor"].as_str().unwrap().to_owned();
        let paged = json!({"table": self.table, "at": cursor, "limit": 2});
        assert_eq!(pages(client, &paged).await.unwrap(), (whole, json!(cursor)), "in pages, at {at}");
        let filtered = with(args.clone(), &json!({"filter": {"even": true}, "order": "-n", "limit": 3}));
        let page = call(client, "table.query", filtered.clone()).await.unwrap();
        assert_eq!(page["items"], json!(even_descending(rows, 3)), "filtered, at {at}");
        let (streamed, _) = stream(client, "table.query", &filtered).await.unwrap();
        assert_eq!(streamed, even_descending(rows, 3), "filtered and streamed, at {at}");
        let count = self.call("table.count", json!({"filter": {"even": true}, "at": at})).await;
        assert_eq!(count["count"], even_descending(rows, usize::MAX).len(), "counted, at {at}");
        for id in (0..8).map(|id| format!("d{id}")) {
            let found = self.call("table.get", json!({"id": id, "at": cursor})).await;
            let expected = rows
                .get(&id)
                .map_or(Value::Null, |row| json!({"data": row.2, "version": row.1, "cursor": cursor}));
            assert_eq!(found, expected, "{id} at {at}");
        }
        cursor
    }
}

/// Follows a table and notes what it had at each cursor, until a document comes.
async fn copies(client: &Client, table: &str, cursor: &str, end: &str) -> Vec<(String, Rows)> {
    let mut options = SubscribeOptions::new(table);
    options.cursor = Some(cursor.to_owned());
    options.snapshot = false;
    let mut subscription = client.subscribe(options).await.unwrap();
    let (mut rows, mut copies, mut inserted) = (Rows::new(), Vec::new(), 0);
    loop {
        let Item::Event(change) = subscription.next().await.unwrap().unwrap() else { continue };
        let ord = rows.get(&change.id).map(|row| row.0);
        rows.remove(&change.id);
        if let Some(data) = &change.data {
            inserted += 1;
            let version = i64::try_from(change.version).unwrap();
            rows.insert(change.id.clone(), (ord.unwrap_or(inserted), version, data.decode().unwrap()));
        }
        copies.push((change.cursor.clone(), rows.clone()));
        if change.id == end {
            return copies;
        }
    }
}

async fn run(world: &World, table: String, steps: Vec<Step>) {
    call(&world.client, "table.create", json!({"table": table})).await.unwrap();
    let ptr = call(&world.client, "table.ptr", json!({"table": table})).await.unwrap();
    let (schema, name) = ptr["ptr"].as_str().unwrap().split_once('.').unwrap();
    let quoted = format!("\"{schema}\".\"{name}\"");
    let mut run = Run {
        world,
        table,
        quoted,
        oracle: Oracle::default(),
        open: BTreeMap::new(),
        marks: Vec::new(),
        step: 0,
    };
    for step in [Step::Mark].iter().chain(&steps).chain([&Step::Mark]) {
        run.apply(step).await;
    }
    // While transactions are open that began before moments and after others.
    for mark in &run.marks {
        run.check(&mark.cursor, &mark.rows).await;
    }
    for session in 0..SESSIONS {
        run.apply(&Step::End(session, session % 2 == 0)).await;
    }
    for mark in &run.marks {
        assert_eq!(run.check(&mark.cursor, &mark.rows).await, mark.cursor);
        // A time has those that wrote by then, committed or not, and gives a cursor for that.
        let rows = run.oracle.written_before(mark.step);
        let cursor = run.check(&mark.time, &rows).await;
        run.check(&cursor, &rows).await;
    }
    // A position inside of a batch of the log is one like any other.
    call(&world.client, "table.set", json!({"table": run.table, "id": "end", "data": {"n": 0}}))
        .await
        .unwrap();
    for (cursor, rows) in copies(&world.client, &run.table, &run.marks[0].cursor, "end").await {
        let (items, _) =
            stream(&world.client, "table.query", &json!({"table": run.table, "at": cursor, "order": "id"}))
                .await
                .unwrap();
        let expected: Vec<_> = rows.iter().map(|(id, row)| crate::oracle::item(id, row)).collect();
        assert_eq!(items, expected, "inside of a batch");
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

#[test]
fn every_read_of_an_earlier_moment_has_the_rows_of_that_moment() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let world = runtime.block_on(async {
        let server = Server::start().await;
        let client = server.client(1).await;
        let mut sessions = Vec::new();
        for _ in 0..SESSIONS {
            sessions.push(server.admin().await);
        }
        let clock = server.admin().await;
        World { server, client, sessions, clock }
    });
    let mut runner = TestRunner::new(Config {
        // More of them with PROPTEST_CASES.
        cases: if std::env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { 6 },
        max_shrink_iters: 200,
        failure_persistence: None,
        ..Config::default()
    });
    let tables = std::cell::Cell::new(0);
    let judge = |steps| {
        tables.set(tables.get() + 1);
        runtime.block_on(async {
            for session in &world.sessions {
                // One that failed before may have left something open.
                let _nothing_open = session.batch_execute("ROLLBACK").await;
            }
            run(&world, format!("t{}", tables.get()), steps).await;
        });
    };
    // Before the moment a transaction wrote for the last time what the log has: a tombstone that it removes later is not that.
    for removed in
        [vec![Step::Set(2, 1), Step::Delete(2)], vec![Step::SqlSet(0, 2, 1), Step::SqlDelete(0, 2)]]
    {
        let rest = [Step::SqlSet(0, 1, 5), Step::Mark, Step::SqlRemove(0, 2), Step::End(0, true)];
        judge([removed, rest.to_vec()].concat());
    }
    // Nor is it a change of a transaction that does nothing else.
    judge(vec![Step::Set(2, 1), Step::Mark, Step::Delete(2), Step::SqlRemove(0, 2), Step::End(0, true)]);
    runner
        .run(&prop::collection::vec(step(), 20..60), |steps| {
            judge(steps);
            Ok(())
        })
        .unwrap();
    drop(world.server);
}

#[test]
fn what_is_no_moment_is_refused() {
    block_on(async {
        let server = Server::start().await;
        let client = server.client(1).await;
        let read = async |at: Value| {
            let args = json!({"table": "t", "id": "a", "at": at});
            call(&client, "table.get", args).await
        };
        for at in
            ["", "AAAA", "now", "2026-01-31", "2999-01-31T12:00:00Z", "2020-02-30T12:00:00Z", "12:00:00"]
        {
            assert_eq!(code(read(json!(at)).await), ErrorCode::INVALID_REQUEST, "{at}");
        }
        assert_eq!(code(read(json!(5)).await), ErrorCode::INVALID_REQUEST);
        assert_eq!(read(Value::Null).await.unwrap(), Value::Null, "null is none");

        // A transaction, and so a batch, is at one moment.
        let published =
            call(&client, "topic.publish", json!({"topic": "x", "data": 1})).await.unwrap()["cursor"].clone();
        assert_eq!(read(published.clone()).await.unwrap(), Value::Null);
        let sid = call(&client, "tx.begin", json!({})).await.unwrap()["sid"].clone();
        for (method, args) in [
            ("table.get", json!({"table": "t", "id": "a", "sid": sid, "at": published})),
            ("table.query", json!({"table": "t", "sid": sid, "at": published})),
            (
                "table.batch",
                json!({"calls": [{"method": "table.count", "args": {"table": "t", "at": published}}]}),
            ),
        ] {
            assert_eq!(code(call(&client, method, args).await), ErrorCode::INVALID_REQUEST, "{method}");
        }

        // How the columns of somebody else's table were is in no log.
        let admin = server.admin().await;
        let attach = "CREATE TABLE public.theirs (id int PRIMARY KEY); \
                      SELECT raystream.attach('public', 'theirs', 'public.theirs')";
        admin.batch_execute(attach).await.unwrap();
        for method in ["table.query", "table.count"] {
            let args = json!({"table": "theirs", "at": published});
            assert_eq!(
                code(call(&client, method, args.clone()).await),
                ErrorCode::INVALID_REQUEST,
                "{method}"
            );
            let streamed = stream(&client, "table.query", &args).await;
            assert_eq!(streamed.unwrap_err().code(), Some(ErrorCode::INVALID_REQUEST), "streamed");
        }

        // Who may not read the table is told nothing about moments.
        let stranger = server.client(3).await;
        let args = json!({"table": "elsewhere", "id": "a", "at": "2999-01-31T12:00:00Z"});
        assert_eq!(code(call(&stranger, "table.get", args).await), ErrorCode::PERMISSION_DENIED);

        // Of another database.
        let other = Server::start().await;
        let args = json!({"table": "t", "id": "a", "at": published});
        assert_eq!(code(call(&other.client(1).await, "table.get", args).await), ErrorCode::RESET);
    });
}
