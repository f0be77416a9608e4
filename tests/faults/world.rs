//! A Postgres on a disk of its own, a network in front of it, and a daemon in front of that.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, Config, NoTls};

use crate::PATIENCE;
use crate::check::Change;
use crate::daemon::Server as Daemon;
use crate::disk::Disk;
use crate::ledger::Source;
use crate::liar::Liar;
use crate::numbers::Numbers;
use crate::processes;
use crate::proxy::Proxy;
use crate::server::{Server, USER};

/// The database.
const DATABASE: &str = "app";

/// Small pieces of log, so that a full disk is met by the log too and not by tables alone.
const SETTINGS: &[&str] = &["min_wal_size=4MB", "max_wal_size=64MB", "log_min_messages=log"];

/// The daemon gives a dead connection up after twice this and 10 s.
const SECTION: &str = "statement_timeout = \"3s\"\nlock_timeout = \"1s\"\n";

/// What a world is like.
#[derive(Default)]
pub(crate) struct Setup {
    /// Further settings of Postgres.
    pub(crate) settings: &'static [&'static str],
    /// Further lines of the daemon's configuration for its database.
    pub(crate) section: &'static str,
    /// Whether COMMIT is answered before Postgres has it.
    pub(crate) lies: bool,
}

/// Everything that a fault can meet. It goes in this order.
pub(crate) struct World {
    pub(crate) daemon: Daemon,
    pub(crate) proxy: Proxy,
    pub(crate) liar: Option<Liar>,
    server: Server,
    pub(crate) disk: Option<Disk>,
    direct: Config,
    settings: Vec<&'static str>,
}

impl World {
    /// Starts all of it.
    pub(crate) async fn start(setup: &Setup) -> Self {
        let mut disk = None;
        let mut server =
            Server::start_on(None, |data, account| disk = Disk::mount(data, account), &["--wal-segsize=1"])
                .await;
        let settings = [SETTINGS, setup.settings].concat();
        server.stop();
        server.run(&settings).await;
        let mut direct = Config::new();
        let folder = server.data().parent().expect("the cluster is in the folder").join("socket");
        direct.host_path(folder).port(server.port).user(USER).dbname(DATABASE);
        let mut way = direct.clone();
        let liar = setup.lies.then(|| {
            let (liar, through) = Liar::start(&way);
            way = through;
            liar
        });
        let (proxy, through) = Proxy::start(&way);
        let section = format!("{SECTION}{}", setup.section);
        let daemon = tokio::task::block_in_place(|| Daemon::on(through, &section));
        Self { daemon, proxy, liar, server, disk, direct, settings }
    }

    /// The process that all others of Postgres come from.
    pub(crate) fn postmaster(&self) -> u32 {
        processes::postmaster(&self.server.data()).expect("Postgres runs")
    }

    /// A session past the network, when Postgres gives one.
    async fn session(&self) -> Option<Client> {
        let (client, connection) = self.direct.connect(NoTls).await.ok()?;
        tokio::spawn(connection);
        client.simple_query("SELECT 1").await.ok()?;
        Some(client)
    }

    /// Waits until Postgres takes sessions; starts it when it is gone, as an operator would.
    pub(crate) async fn bring_postgres_back(&mut self) {
        let begun = Instant::now();
        while self.session().await.is_none() {
            assert!(begun.elapsed() < PATIENCE, "Postgres does not come back: {}", self.server.log());
            if processes::postmaster(&self.server.data()).is_none() {
                self.server.stop();
                self.server.run(&self.settings).await;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs statements.
    pub(crate) async fn sql(&self, sql: &str) {
        let session = self.session().await.expect("Postgres takes a session");
        session.batch_execute(sql).await.expect("it works");
    }

    /// The processes of Postgres that work for the daemon, those of its change feed too.
    async fn backends(&self) -> Vec<u32> {
        let session = self.session().await.expect("Postgres takes a session");
        let sql = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'raystream%' \
                   ORDER BY state <> 'idle' DESC, pid";
        let rows = session.query(sql, &[]).await.expect("it works");
        rows.iter().map(|row| u32::try_from(row.get::<_, i32>(0)).unwrap()).collect()
    }

    /// One of them; every second time the one that is busy, if one is.
    pub(crate) async fn backend(&self, numbers: &mut Numbers) -> Option<u32> {
        let all = self.backends().await;
        if all.is_empty() {
            return None;
        }
        Some(if numbers.below(2) == 0 { all[0] } else { *numbers.one_of(&all) })
    }

    /// Waits until the daemon says that it is ready.
    pub(crate) async fn ready(&self) {
        let begun = Instant::now();
        loop {
            let address: SocketAddr = self.daemon.url.rsplit('@').next().unwrap().parse().unwrap();
            let status = tokio::task::block_in_place(|| status(address));
            if status.as_deref() == Some("200") {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "it is not ready ({status:?}): {}", self.tail());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The end of the daemon's log.
    pub(crate) fn tail(&self) -> String {
        let log = self.daemon.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Ends everything that is still on its way: afterwards nothing happens that was begun before.
    pub(crate) async fn come_to_rest(&self) {
        let before = self.backends().await;
        self.proxy.cut();
        // Each ends what it is at, within the limits of statements, and sees that nobody is there any more.
        processes::gone(&before).await;
        timeout(PATIENCE, self.ready()).await.expect("it is ready in time");
    }

    /// The log and the documents, past the daemon.
    pub(crate) async fn read(&self) -> (Vec<Change>, Vec<Change>) {
        let session = self.session().await.expect("Postgres takes a session");
        let log = "SELECT coalesce(s.name, substr(c.ptr, 7)), c.id, c.version, c.after \
                   FROM raystream.changes AS c LEFT JOIN raystream.storage AS s ON s.ptr = c.ptr \
                   WHERE c.after ? 'op' ORDER BY c.seq";
        let log = changes(&session, log).await;
        let mut documents = Vec::new();
        for source in [Source::Items, Source::Documents] {
            let name = format!(
                "SELECT format('%I.%I', ptr_schema, ptr) FROM raystream.storage WHERE name = '{}'",
                source.name()
            );
            let table: String = session.query_one(&name, &[]).await.expect("it is there").get(0);
            let rows = format!(
                "SELECT '{}', id, _version, data FROM {table} WHERE _deleted_txid IS NULL AND data ? 'op'",
                source.name()
            );
            documents.extend(changes(&session, &rows).await);
        }
        (log, documents)
    }
}

async fn changes(session: &Client, sql: &str) -> Vec<Change> {
    let sql = format!("SELECT a, b, c, d::text FROM ({sql}) AS t (a, b, c, d)");
    let rows = session.query(&sql, &[]).await.expect("it works");
    let change = |row: &tokio_postgres::Row| {
        let name: &str = row.get(0);
        let source =
            Source::ALL.into_iter().find(|source| source.name() == name).expect("nothing else is written");
        let data = serde_json::from_str(row.get(3)).expect("Postgres gives JSON");
        Change::of(source, row.get(1), row.get(2), &data)
    };
    rows.iter().map(change).collect()
}

/// The status of the daemon's readiness; `None` when it does not answer.
fn status(address: SocketAddr) -> Option<String> {
    let second = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&address, second).ok()?;
    stream.set_read_timeout(Some(second)).ok()?;
    stream.write_all(b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n").ok()?;
    let mut answer = [0; 64];
    let len = stream.read(&mut answer).ok()?;
    let text = String::from_utf8_lossy(&answer[..len]).into_owned();
    text.split(' ').nth(1).map(str::to_owned)
}
