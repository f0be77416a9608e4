//! A daemon with documents, and what Postgres itself says to a statement over the same documents.

use raystream::client::{Client, Error};
use raystream::store::attach::attach;
use raystream::store::endpoint::Endpoint;
use serde_json::{Value, json};
use tokio_postgres::SimpleQueryMessage;

use crate::postgres::database;
use crate::recorder::Recorder;
use crate::server::{Server, call};

pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) admin: tokio_postgres::Client,
}

impl World {
    /// A table `tasks` with four documents and one that is gone, and a table `users` with a secret.
    pub(crate) async fn start() -> Self {
        Self::with(false).await
    }

    /// The same, but `tasks` is a table that somebody else made, and is attached.
    pub(crate) async fn attached() -> Self {
        Self::with(true).await
    }

    async fn with(attached: bool) -> Self {
        let database = database().await;
        let (recorder, through) = Recorder::start(&database);
        let server = Server::on(through, "");
        let client = server.client(1).await;
        let admin = crate::postgres::client(&database).await;
        for table in ["users", "t", "closed"] {
            call(&client, "table.create", json!({"table": table})).await.unwrap();
        }
        if attached {
            admin
                .batch_execute(
                    "CREATE TABLE public.own_tasks (id text PRIMARY KEY, title text, done boolean, n int, tags jsonb, \
                     due text, address jsonb, big text)",
                )
                .await
                .unwrap();
            let endpoint = Endpoint::from(database.clone());
            attach(&endpoint, "public.own_tasks", Some("tasks")).await.unwrap();
        } else {
            call(&client, "table.create", json!({"table": "tasks"})).await.unwrap();
        }
        let documents = [
            json!({"title": "Write docs", "done": false, "n": 1, "tags": ["a", "b"], "due": "2026-01-02T03:04:05Z",
                   "address": {"city": "Graz"}}),
            json!({"title": "Review PR", "done": true, "n": 2, "tags": [], "due": "2026-02-01T00:00:00Z"}),
            json!({"title": " Größe \"x\"", "done": true, "n": 3, "tags": ["b"], "due": "2026-03-01T12:00:00Z",
                   "address": {"city": "Wien"}}),
            json!({"title": "e", "done": false, "n": 4.5, "due": "2025-12-31T23:59:59Z", "big": "1e140"}),
            json!({"title": "gone", "done": true, "n": 5}),
        ];
        for (n, mut data) in (1..).zip(documents) {
            if data["n"] == json!(4.5) {
                data["n"] = json!(4);
            }
            let id = format!("t-{n}");
            if attached {
                data["id"] = id.into();
                if data["tags"].is_null() {
                    // Every row has every column; that of a scalar has no elements.
                    data["tags"] = json!([]);
                }
                let insert = "INSERT INTO public.own_tasks SELECT * FROM jsonb_populate_record(NULL::public.own_tasks, \
                              $1::text::jsonb)";
                admin.execute(insert, &[&data.to_string()]).await.unwrap();
            } else {
                call(&client, "table.set", json!({"table": "tasks", "id": id, "data": data})).await.unwrap();
            }
        }
        if attached {
            admin.batch_execute("DELETE FROM public.own_tasks WHERE id = 't-5'").await.unwrap();
        } else {
            call(&client, "table.delete", json!({"table": "tasks", "id": "t-5"})).await.unwrap();
        }
        call(&client, "table.set", json!({"table": "users", "id": "u-1", "data": {"secret": "s3cret"}}))
            .await
            .unwrap();
        let world = Self { server, client, recorder, admin };
        world.make_views().await;
        world
    }

    pub(crate) async fn exec(&self, sql: &str, params: &[&str]) -> Result<Value, Error> {
        call(&self.client, "table.exec", json!({"table": "tasks", "sql": sql, "params": params})).await
    }

    /// The rows of a statement that has to run.
    pub(crate) async fn rows(&self, sql: &str) -> Value {
        match self.exec(sql, &[]).await {
            Ok(mut result) => result["rows"].take(),
            Err(error) => panic!("{sql}: {error}"),
        }
    }

    /// The physical table of a name.
    pub(crate) async fn ptr(&self, table: &str) -> String {
        let ptr = call(&self.client, "table.ptr", json!({"table": table})).await.unwrap();
        ptr["ptr"].as_str().unwrap().to_owned()
    }

    /// Views that look as the table looks to a caller; in `seed` its key has the name `_id`.
    async fn make_views(&self) {
        let ptr = self.ptr("tasks").await;
        let sql = format!(
            "CREATE SCHEMA plain; CREATE SCHEMA seed;
             CREATE VIEW plain.tasks AS SELECT id, data, _version, _order FROM {ptr} WHERE _deleted_txid IS NULL;
             CREATE VIEW seed.tasks AS SELECT id AS _id, data, _version, _order FROM {ptr} WHERE _deleted_txid IS NULL;"
        );
        self.admin.batch_execute(&sql).await.unwrap();
    }

    /// What Postgres answers to the text itself, over those views.
    pub(crate) async fn reference(&self, sql: &str, params: &[&str]) -> Value {
        let schema = if sql.contains("_id") { "seed" } else { "plain" };
        self.admin.batch_execute(&format!("SET search_path = {schema}; SET timezone = 'UTC'")).await.unwrap();
        let mut text = sql.trim_end().trim_end_matches(';').to_owned();
        for (n, param) in (1..).zip(params) {
            text = text.replace(&format!("${n}"), &format!("'{param}'"));
        }
        let text = format!("SELECT to_jsonb(q) FROM (\n{text}\n) AS q");
        let messages =
            self.admin.simple_query(&text).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(serde_json::from_str(row.get(0).unwrap()).unwrap()),
            _ => None,
        });
        Value::Array(rows.collect())
    }
}
