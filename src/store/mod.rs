//! Documents in Postgres (floor 3): tables of JSON documents with versions, each write in the change log.
//!
//! Isolation is Postgres' own: an operation is one statement, and a success is answered only after its transaction was
//! committed. The transaction is its own, or one that it shares with writes of other callers, of which none sees that; or it
//! runs in a transaction with others that its caller chose ([`Store::transaction`]). A [`Store`] is a handle; clones share its connections. What an operation runs in, and what ends it early, is its [`Scope`].

pub mod attach;
pub(crate) mod base64url;
mod canceller;
mod connection;
mod dispatch;
mod documents;
pub mod embedded;
pub mod endpoint;
mod error;
mod exec;
pub mod feed;
mod group;
mod idempotency;
mod ids;
pub mod index;
mod json;
mod json_schema;
mod migrate;
pub mod migrations;
mod page_cursor;
mod pipeline;
mod pool;
mod pooler;
mod query;
mod queue;
mod scope;
mod search;
mod server;
mod session;
mod sqlstate;
mod statements;
mod stream;
mod tables;
mod timeout;
mod topics;
mod transactions;
mod types;
pub mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_postgres::Config;

use endpoint::{Endpoint, Tls};
use ids::IdSource;
use pool::Group;
use session::Access;
use tables::TableCache;
use transactions::TransactionPool;

pub use error::{MigrationError, StartError, StoreError};
pub use exec::{EXEC_CONCURRENT_MAX, EXEC_TIME_MAX, ExecError, ExecRows};
pub use feed::{At, Moment};
pub use idempotency::{Claim, IdempotencyKey, KEPT_FOR};
pub use json::Json;
pub use json_schema::{
    Existing, JsonSchema, MISFITS_MAX, Misfit, Misfits, SCHEMA_LEN_MAX, SchemaError, SchemaInfo,
    UNFIT_IDS_MAX, Unfit,
};
pub use scope::{Lane, Scope, StopSignal};
pub use search::{
    FACET_VALUE_LEN_MAX, FACET_VALUES_MAX, FACETS_MAX, Fields, Found, Language, SEARCH_FIELDS_MAX,
    SEARCH_FOUND_MAX, SEARCH_LIMIT_DEFAULT, SEARCH_LIMIT_MAX, SEARCH_PAGE_LEN_MAX, SEARCH_TEXT_LEN_MAX,
    SEARCH_TIME_MAX, Search, SearchPage,
};
pub use stream::{DocumentStream, STREAMS_MAX, STREAMS_OF_LANE_MAX, StreamQuery};
pub use topics::{Published, TOPIC_NAME_LEN_MAX, TopicName};
pub use transactions::{
    InTransaction, Isolation, OpenOptions, OpenStatus, OpenTransaction, Over, TransactionOptions, Writes,
};
pub use types::{
    DOCUMENT_DEPTH_MAX, DOCUMENT_ID_LEN_MAX, DOCUMENT_LEN_MAX, Document, DocumentId, ORDER_PATH_LEN_MAX,
    Order, Page, QUERY_LIMIT_DEFAULT, QUERY_LIMIT_MAX, QUERY_PAGE_LEN_MAX, Query, TABLE_NAME_LEN_MAX,
    TableInfo, TableName, TablePtr, Writer,
};

/// How a store is set up.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Where Postgres is and who we are there.
    pub config: Config,
    /// How connections are protected.
    pub tls: Tls,
    /// Connections for queries, as many for those with a filter or an order by a field, as many for searches, and as many for reads by
    /// id: a page is never behind a search, and a read by id never behind a query. A reader never waits for a
    /// writer's row lock, so a few are enough.
    pub read_connections: usize,
    /// Connections for writes. A statement that waits for a row lock holds up those behind it on its connection.
    pub write_connections: usize,
    /// Connections for transactions of several statements, each opened when it is first needed. One is taken by a
    /// transaction for all of its time.
    pub transaction_connections: usize,
    /// Transactions that others may keep open at a time ([`Store::begin`]), each with a connection, besides those above.
    pub open_transactions: usize,
    /// How long an open transaction may wait for the next thing to do before it is rolled back.
    pub transaction_idle: Duration,
    /// How long an open transaction may last before it is rolled back.
    pub transaction_longest: Duration,
    /// The most statements that may be on their way to Postgres or wait for it, for each kind of connections.
    pub waiting_max: usize,
    /// The most bytes of parameters of these statements, for each kind of connections.
    pub waiting_bytes_max: usize,
    /// How long Postgres may work on one statement.
    pub statement_timeout: Duration,
    /// How long a statement may wait for a lock of another writer.
    pub lock_timeout: Duration,
    /// Makes a table at the first write to it.
    pub create_tables: bool,
    /// Accepts a Postgres that acknowledges writes which a crash can lose.
    pub unsafe_durability: bool,
}

impl StoreOptions {
    /// The defaults, for a Postgres.
    pub fn new(endpoint: impl Into<Endpoint>) -> Self {
        let Endpoint { config, tls } = endpoint.into();
        Self {
            config,
            tls,
            read_connections: 2,
            write_connections: 4,
            transaction_connections: 8,
            open_transactions: 12,
            transaction_idle: Duration::from_secs(5),
            transaction_longest: Duration::from_secs(30),
            waiting_max: 1_024,
            waiting_bytes_max: 64 * 1024 * 1024,
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(2),
            create_tables: false,
            unsafe_durability: false,
        }
    }
}

/// The store, and the [`Scope`] that its operations run in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>, Scope);

#[derive(Debug)]
struct Inner {
    options: StoreOptions,
    reads: Arc<Group>,
    planned: Arc<Group>,
    searches: Arc<Group>,
    lookups: Arc<Group>,
    writes: Arc<Group>,
    transactions: TransactionPool,
    open_transactions: TransactionPool,
    exec: exec::ExecPool,
    tables: TableCache,
    ids: IdSource,
    /// What the cursors of pages are signed with.
    page_key: page_cursor::PageKey,
    /// Which database this is, in cursors.
    database: feed::Database,
    written: Arc<Notify>,
    /// Places for streams.
    streams: stream::StreamPlaces,
}

/// How long the first connections may take after the server was found good.
const START_WAIT: Duration = Duration::from_secs(10);

impl Store {
    /// Connects, checks the server, and brings the schema up to date.
    ///
    /// # Errors
    /// [`StartError`] says what is wrong with the server or the database.
    pub async fn connect(options: StoreOptions) -> Result<Self, StartError> {
        let mut setup = session::open(&options, Access::Setup).await?.driven();
        migrate::migrate(&mut setup).await?;
        let database = feed::database(&setup).await.map_err(|error| session::refused(&error))?;
        let page_key = page_cursor::PageKey::of(&setup).await.map_err(|error| session::refused(&error))?;
        drop(setup);

        let written = Arc::new(Notify::new());
        let start = |access, count| Group::start(&options, access, count, Arc::clone(&written));
        let reads = start(Access::Read, options.read_connections);
        let writes = start(Access::Write, options.write_connections);
        let planned = start(Access::Planned, options.read_connections);
        let searches = start(Access::Planned, options.read_connections);
        let lookups = start(Access::Lookup, options.read_connections);
        for group in [&reads, &planned, &searches, &lookups, &writes] {
            group.wait_live(START_WAIT).await.map_err(|_| {
                StartError::Unreachable("the connections of the pool were not made; the log says why".into())
            })?;
        }
        let transactions = TransactionPool::new(&options);
        let open_transactions = TransactionPool::of_open(&options);
        let (tables, ids) = (TableCache::default(), IdSource::default());
        let streams = stream::StreamPlaces::default();
        let exec = exec::ExecPool::default();
        let inner = Inner {
            options,
            reads,
            planned,
            searches,
            lookups,
            writes,
            transactions,
            open_transactions,
            exec,
            tables,
            ids,
            page_key,
            database,
            written,
            streams,
        };
        Ok(Self(Arc::new(inner), Scope::default()))
    }

    /// The same store, with operations that run in a scope.
    #[must_use]
    pub fn scoped(&self, scope: Scope) -> Self {
        Self(Arc::clone(&self.0), scope)
    }

    /// Where Postgres is and who we are there.
    pub fn postgres_config(&self) -> &Config {
        &self.0.options.config
    }

    /// How Postgres is reached: for those who need a connection of their own (LISTEN).
    pub fn endpoint(&self) -> Endpoint {
        Endpoint { config: self.0.options.config.clone(), tls: self.0.options.tls.clone() }
    }

    /// What the store was set up with.
    pub fn options(&self) -> &StoreOptions {
        &self.0.options
    }

    /// Says that something was written: after each own write the store calls it. Wakes one waiter of
    /// [`Store::woken`], at once or at its next call.
    pub fn wake(&self) {
        self.0.written.notify_one();
    }

    /// Waits until something was written through this store since the last return.
    pub async fn woken(&self) {
        self.0.written.notified().await;
    }

    /// Whether reads and writes have a live connection each.
    pub fn is_ready(&self) -> bool {
        let Inner { reads, planned, searches, lookups, writes, .. } = &*self.0;
        [reads, planned, searches, lookups, writes].iter().all(|group| group.is_live())
    }

    /// Takes no further statements, waits for those that run, and closes the connections.
    pub async fn close(&self) {
        let longest = self.0.options.statement_timeout;
        tokio::join!(
            self.0.transactions.close(longest),
            self.0.open_transactions.close(self.0.options.transaction_longest),
            self.0.exec.close(),
            self.0.writes.close(longest),
            self.0.lookups.close(longest),
            self.0.planned.close(longest),
            self.0.searches.close(longest),
            self.0.reads.close(longest)
        );
    }
}
