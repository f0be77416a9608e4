//! A real PgBouncer in front of Postgres. Without one installed these tests say so and prove nothing:
//! `.ci/setup pgbouncer` installs it.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use raystream::store::feed::{Feed, FeedOptions};
use raystream::store::{DocumentId, Json, StartError, TableName, Writer};

use crate::server::{PASSWORD, Server, USER};
use crate::{PATIENCE, connect, refusal};

/// A PgBouncer, stopped when dropped.
struct Pooler {
    child: Child,
    port: u16,
}

impl Pooler {
    /// `None`: it is not installed.
    fn start(server: &Server, mode: &str, more: &str) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
        let Some(program) = folders.map(|folder| folder.join("pgbouncer")).find(|file| file.exists()) else {
            println!("SKIPPED: pgbouncer is not installed (.ci/setup pgbouncer)");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = server.folder_of_postgres(&format!("pooler-{mode}-{port}"));
        let users = folder.join("users");
        std::fs::write(&users, format!("\"{USER}\" \"{PASSWORD}\"\n")).unwrap();
        let file = folder.join("pgbouncer.ini");
        let text = format!(
            "[databases]\napp = host=127.0.0.1 port={} dbname=app user={USER} password={PASSWORD}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = plain\nauth_file = {}\n\
             pool_mode = {mode}\ndefault_pool_size = 60\nmax_client_conn = 200\n{more}",
            server.port,
            users.display()
        );
        std::fs::write(&file, text).unwrap();
        // The files are ours and the folder is not: they are readable, and the password is one of a test.
        let child =
            server.command_of(&program).arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Some(Self { child: child.unwrap(), port })
    }

    async fn address(&self, server: &Server) -> String {
        let waited = async {
            while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waited).await.expect("PgBouncer listens");
        server
            .address("app", "sslmode=disable")
            .replace(&format!("port={}", server.port), &format!("port={}", self.port))
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _may_be_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[tokio::test]
async fn a_pooler_that_changes_processes_is_refused_and_nothing_is_left_behind_it() {
    let server = Server::start(None).await;
    for (mode, more) in [
        ("transaction", ""),
        ("transaction", "server_round_robin = 1\nmin_pool_size = 5\n"),
        ("transaction", "default_pool_size = 1\n"),
        ("statement", ""),
    ] {
        let Some(pooler) = Pooler::start(&server, mode, more) else { return };
        let address = pooler.address(&server).await;
        assert!(matches!(connect(&address).await, Err(StartError::Pooler)), "{mode} {more}");
        let error = refusal(&address).await;
        assert!(error.contains("pool_mode = session"), "{error}");
    }
    let admin = server.admin("app").await;
    let made = "SELECT count(*) FROM pg_namespace WHERE nspname = 'raystream'";
    assert_eq!(
        admin.query_one(made, &[]).await.unwrap().get::<_, i64>(0),
        0,
        "it was refused before it began"
    );
}

#[tokio::test]
async fn a_pooler_in_session_mode_is_as_good_as_postgres() {
    let server = Server::start(None).await;
    let Some(pooler) = Pooler::start(&server, "session", "") else { return };
    let store = connect(&pooler.address(&server).await).await.expect("it starts");
    let (table, id) = (TableName::parse("t").unwrap(), DocumentId::parse("a").unwrap());
    store.set(Writer { principal: "tester" }, &table, &id, Json::new("1"), None).await.unwrap();
    Feed::of_store(&store, FeedOptions::default()).await.expect("the feed starts");
    assert!(store.get(&table, &id).await.unwrap().is_some());
}
