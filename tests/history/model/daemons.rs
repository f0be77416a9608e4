//! Three daemons on one database, as far as the store is concerned, and a hand on the clock: what is in the log can be made older, and
//! leases can be made to end.

use std::sync::Arc;
use std::time::Duration;

use raystream::store::feed::gc::{self, collect};
use raystream::store::feed::{Feed, FeedOptions, Retention};
use raystream::store::{Isolation, OpenOptions, OpenTransaction, Store, StoreOptions, TableName, Writes};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio_postgres::Client;

use super::Daemon;
use crate::postgres;
use crate::server::{PATIENCE, eventually};

const HOUR: Duration = Duration::from_secs(3_600);

/// Longer than any run: what ends earlier was ended by a step.
const LONG: Duration = Duration::from_secs(24 * 3_600);

/// How long the hasty daemon lets a session wait: some statements come in time, and a step that waits for the end is short.
const HASTY: Duration = Duration::from_millis(30);

/// What is made older is so many hours old.
const OLD: u64 = 5;

/// What is older is collected.
const RETENTION: Retention = Retention { max_age: HOUR.saturating_mul(3), max_bytes: u64::MAX };

pub(super) struct Daemons {
    pub(super) steady: Store,
    hasty: Store,
    mortal: Option<(Runtime, Store)>,
    pub(super) admin: Client,
    places: Arc<Semaphore>,
}

fn options(daemons: &tokio_postgres::Config, idle: Duration) -> StoreOptions {
    let mut options = StoreOptions::new(daemons.clone());
    (options.read_connections, options.write_connections) = (1, 1);
    (options.transaction_idle, options.transaction_longest) = (idle, LONG);
    options
}

impl Daemons {
    pub(super) async fn start() -> Self {
        let config = postgres::database().await;
        let steady = Store::connect(options(&config, LONG)).await.unwrap();
        let hasty = Store::connect(options(&config, HASTY)).await.unwrap();
        let admin = postgres::client(&config).await;
        Self { steady, hasty, mortal: None, admin, places: Arc::new(Semaphore::new(64)) }
    }

    /// At the end, the housekeeping of a daemon forgets what died, and nothing that lives.
    pub(super) async fn stop(mut self, was_good: bool) {
        if was_good {
            let writes = OpenOptions { isolation: Isolation::Snapshot, writes: Writes::Allowed };
            let (alive, dead) =
                (self.begin(Daemon::Steady, writes).await, self.begin(Daemon::Mortal, writes).await);
            self.kill().await;
            self.end_lease(dead.sid()).await;
            let feed =
                Feed::of_store(&self.steady, FeedOptions { retention: RETENTION, ..Default::default() });
            let feed = feed.await.unwrap();
            feed.maintain().await.unwrap();
            feed.stop();
            let rows = self.admin.query("SELECT sid FROM raystream.trxs", &[]).await.unwrap();
            let left: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            assert_eq!(left, [alive.sid()], "sessions whose lease is over are forgotten, and no others");
        }
        self.kill().await;
    }

    /// Begins with nothing open and nothing old.
    pub(super) async fn clear(&self, table: &TableName) {
        let nothing_open = "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() \
                            AND application_name = 'raystream' AND state LIKE 'idle in transaction%'";
        eventually("nothing is open", async || self.admin.query_one(nothing_open, &[]).await.unwrap().get(0))
            .await;
        self.admin.batch_execute("DELETE FROM raystream.trxs WHERE lease > now()").await.unwrap();
        self.collect().await;
        self.steady.create_table(table).await.unwrap();
    }

    pub(super) async fn begin(&mut self, daemon: Daemon, options_: OpenOptions) -> OpenTransaction {
        match daemon {
            Daemon::Steady => self.steady.begin("owner", options_, &self.places).await.unwrap(),
            Daemon::Hasty => self.hasty.begin("owner", options_, &self.places).await.unwrap(),
            Daemon::Mortal => {
                if self.mortal.is_none() {
                    let runtime =
                        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
                    let runtime = runtime.unwrap();
                    let options = options(self.steady.postgres_config(), LONG);
                    let store = runtime.spawn(Store::connect(options)).await.unwrap().unwrap();
                    self.mortal = Some((runtime, store));
                }
                let (runtime, store) = self.mortal.as_ref().unwrap();
                let (store, places) = (store.clone(), Arc::clone(&self.places));
                runtime
                    .spawn(async move { store.begin("owner", options_, &places).await })
                    .await
                    .unwrap()
                    .unwrap()
            }
        }
    }

    /// Ends the mortal daemon as a SIGKILL does: its tasks are gone, and Postgres finds its connections closed.
    pub(super) async fn kill(&mut self) -> bool {
        let Some((runtime, store)) = self.mortal.take() else { return false };
        drop(store);
        // Its tasks are gone when this comes back.
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE)).await.unwrap();
        true
    }

    /// Waits until Postgres has ended a transaction.
    pub(super) async fn ended(&self, txid: Option<u64>) {
        let Some(txid) = txid else { return };
        let txid = txid.to_string();
        eventually("its locks are gone", async || {
            let status = "SELECT pg_xact_status($1::text::xid8)";
            let status: String = self.admin.query_one(status, &[&txid]).await.unwrap().get(0);
            status != "in progress"
        })
        .await;
    }

    pub(super) async fn end_lease(&self, sid: &str) {
        let end = "UPDATE raystream.trxs SET lease = now() - interval '1 second' WHERE sid = $1";
        self.admin.execute(end, &[&sid]).await.unwrap();
    }

    /// Makes all that is committed in the log older. It goes where there is no partition for its hour: that is emptied and never
    /// dropped, so that nobody waits for a lock.
    pub(super) async fn age(&self) {
        let age = format!(
            "UPDATE raystream.changes SET at = date_trunc('hour', now() - interval '{OLD} hours', 'UTC') \
             WHERE at > now() - interval '3 hours'"
        );
        self.admin.batch_execute(&age).await.unwrap();
    }

    /// Collects until nothing old is left: who reads the log for a moment keeps a partition until the next round.
    pub(super) async fn collect(&self) {
        let old = "SELECT EXISTS (SELECT FROM raystream.changes WHERE at < now() - interval '3 hours')";
        eventually("what is old is collected", async || {
            // A session may not be had in time on a busy machine.
            let collected = collect(&self.steady.endpoint(), RETENTION).await.is_ok();
            collected && !self.admin.query_one(old, &[]).await.unwrap().get::<_, bool>(0)
        })
        .await;
    }

    /// How many deleted documents have left something behind.
    pub(super) async fn tombstones(&self, quoted: &str) -> i64 {
        let count = format!("SELECT count(*) FROM {quoted} WHERE _deleted_txid IS NOT NULL");
        self.admin.query_one(&count, &[]).await.unwrap().get(0)
    }

    /// Tombstones that are due and still there.
    pub(super) async fn due(&self) -> u64 {
        gc::look(&self.steady.endpoint(), RETENTION).await.unwrap().tombstones
    }

    /// The oldest transaction id that a snapshot of now can still see running, and how many there are.
    pub(super) async fn running(&self) -> (u64, i64) {
        let sql = "SELECT pg_snapshot_xmin(s)::text, (SELECT count(*) FROM pg_snapshot_xip(s)) \
                   FROM pg_current_snapshot() AS s";
        let row = self.admin.query_one(sql, &[]).await.unwrap();
        (row.get::<_, String>(0).parse().unwrap(), row.get(1))
    }
}
