//! A daemon with the table `t`, and the program on the same database.

use std::process::Stdio;

use raystream::client::{Client, Error};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use crate::postgres::database;
use crate::server::{PATIENCE, Server, call};

pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) client: Client,
    pub(crate) admin: tokio_postgres::Client,
    /// Postgres itself.
    pub(crate) database: Config,
    /// The physical table of `t`.
    pub(crate) ptr: String,
}

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl World {
    pub(crate) async fn start() -> Self {
        let database = database().await;
        Self::on(database.clone(), database).await
    }

    /// With a daemon that reaches the database by another address.
    pub(crate) async fn on(database: Config, through: Config) -> Self {
        let server = Server::on(through, "");
        let client = server.client(1).await;
        call(&client, "table.create", json!({"table": "t"})).await.unwrap();
        let ptr = call(&client, "table.ptr", json!({"table": "t"})).await.unwrap();
        let ptr = ptr["ptr"].as_str().unwrap().to_owned();
        let admin = crate::postgres::client(&database).await;
        Self { server, client, admin, database, ptr }
    }

    pub(crate) async fn call(&self, method: &str, args: Value) -> Result<Value, Error> {
        call(&self.client, method, args).await
    }

    pub(crate) async fn set(&self, id: &str, data: Value) {
        self.call("table.set", json!({"table": "t", "id": id, "data": data})).await.unwrap();
    }

    /// Documents by SQL, since there are to be many: `data` is an expression over `n`.
    pub(crate) async fn fill(&self, count: u32, data: &str) {
        let sql = format!(
            "INSERT INTO {0} (id, data) SELECT 'd' || n, {data} FROM generate_series(1, {count}) AS n; ANALYZE {0}",
            self.ptr
        );
        self.admin.batch_execute(&sql).await.unwrap();
    }

    /// `table.search` of `t`, with more arguments.
    pub(crate) async fn try_search(&self, query: &str, more: Value) -> Result<Value, Error> {
        let mut args = json!({"table": "t", "query": query});
        args.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.call("table.search", args).await
    }

    pub(crate) async fn search(&self, query: &str, more: Value) -> Value {
        self.try_search(query, more.clone()).await.unwrap_or_else(|error| panic!("{query:?} {more}: {error}"))
    }

    /// The ids that a search finds, the best first.
    pub(crate) async fn ids(&self, query: &str, more: Value) -> Vec<String> {
        ids(&self.search(query, more).await)
    }

    fn command(&self, args: &[&str]) -> Command {
        let Some(Host::Unix(socket)) = self.database.get_hosts().first() else { panic!("a unix socket") };
        let (user, name) = (self.database.get_user().unwrap(), self.database.get_dbname().unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_raystream"));
        let database = format!("host={} user={user} dbname={name}", socket.display());
        command.args(["index", args[0], "--database", &database]).args(&args[1..]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// `raystream index ..`, begun.
    pub(crate) fn begin(&self, args: &[&str]) -> Child {
        self.command(args).spawn().unwrap()
    }

    /// `raystream index ..`, to its end.
    pub(crate) async fn index(&self, args: &[&str]) -> Ended {
        ended(self.begin(args)).await
    }

    /// `raystream index create ..`, which has to work: the name of the index.
    pub(crate) async fn create(&self, args: &[&str]) -> String {
        let ended = self.index(&[&["create", "t"], args].concat()).await;
        assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
        ended.out.trim().to_owned()
    }

    /// `raystream index list --json`.
    pub(crate) async fn list(&self) -> Vec<Value> {
        let ended = self.index(&["list", "--json"]).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What Postgres has of indexes that were asked for: each name and whether it is valid.
    pub(crate) async fn in_catalogue(&self) -> Vec<(String, bool)> {
        let sql = "SELECT c.relname::text, x.indisvalid FROM pg_class AS c JOIN pg_index AS x ON x.indexrelid = c.oid \
                   WHERE c.relnamespace = 'raystream'::regnamespace AND c.relname LIKE 'ix\\_%' ORDER BY 1";
        let rows = self.admin.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }
}

pub(crate) fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap();
    items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

pub(crate) async fn ended(child: Child) -> Ended {
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("it ends").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}
