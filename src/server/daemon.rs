//! The daemon put together: database, change feed, port; and its orderly end.

use super::{
    admission::Admission,
    alarms::Bells,
    clock::DaemonClock,
    config::Config,
    http, listener,
    shared::{Counters, Shared},
    webhooks::{Dialer, TlsError, WebhookSender},
};
use crate::{
    api,
    auth::{Access, AccessHandle},
    conn::{ApiMisuse, Limits, ServerConfig},
    noise::{self, Psk, PublicKey, StaticSecret},
    store::{
        self, Store, StoreOptions,
        embedded::{Embedded, EmbeddedError, EmbeddedOptions},
        endpoint::{Address, AddressError, Endpoint, SslMode},
        feed::{Feed, FeedOptions, Retention},
    },
};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::watch};

/// How long the parts of the daemon may take to stop once every connection is closed.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// How often a quiet subscription is told where it stands: far less than the hour that a partition of the log is kept at the
/// least, and so seldom that it costs nothing.
const POSITION_EVERY: Duration = Duration::from_secs(5 * 60);

/// How much longer than the drain time and the write deadline connections are waited for: each takes at most a second to hang
/// up behind them. A daemon that is told to stop stops, whatever one of them hangs in.
const STRAGGLERS: Duration = Duration::from_secs(5);

/// All that a daemon is started with.
pub struct Setup {
    /// Its configuration.
    pub config: Config,
    /// Who may do what.
    pub access: Access,
    /// Its keys, the current one first.
    pub identities: Vec<StaticSecret>,
    /// The secret of the psk2 suites.
    pub psk: Option<Psk>,
    /// Whether a table is made at the first write to it.
    pub create_tables: bool,
}

/// Why a daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port could not be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The private cluster did not start.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The database is not what it has to be.
    #[error(transparent)]
    Store(#[from] store::StartError),
    /// The change feed did not start.
    #[error("the change feed did not start: {0}")]
    Feed(store::StoreError),
    /// The address of Postgres, or a file it names, cannot be used.
    #[error("database.url: {0}")]
    Address(#[from] AddressError),
    /// What webhooks need cannot be used.
    #[error("webhooks.ca_file: {0}")]
    Webhooks(#[from] TlsError),
    /// Keys or suites do not fit together.
    #[error(transparent)]
    Configuration(#[from] ApiMisuse),
}

/// A running daemon.
pub struct Daemon {
    shared: Arc<Shared>,
    listener: TcpListener,
    site: axum::Router,
    address: SocketAddr,
    public_key: PublicKey,
    drain: watch::Sender<Option<Duration>>,
    store: Store,
    cluster: Option<Embedded>,
    webhooks: WebhookSender,
}

impl Daemon {
    /// Starts everything; the port is open when this returns, and served once [`run`](Self::run) runs.
    ///
    /// # Errors
    /// [`StartError`]: what was started is stopped again.
    pub async fn start(setup: Setup) -> Result<Self, StartError> {
        let config = setup.config;
        // First the port, which fails at once when another daemon has it; the database takes longer.
        let address = config.listen;
        let listener =
            listener::bind(address).await.map_err(|source| StartError::Listen { address, source })?;
        let address = listener.local_addr().map_err(|source| StartError::Listen { address, source })?;
        let provider = noise::aws_lc();
        let connection_config = ServerConfig {
            provider,
            identities: setup.identities,
            suites: config.allowed_suites(),
            psk: setup.psk,
            limits: connection_limits(&config),
        };
        connection_config.check()?;
        let public_key = connection_config
            .identities
            .first()
            .map(|identity| identity.public_key(provider))
            .ok_or(ApiMisuse::Configuration("a server needs a key"))?;

        let dialer = Dialer::new(&config.webhooks)?;
        let (cluster, database) = database(&config).await?;
        let store = Store::connect(store_options(&config, database, setup.create_tables)).await?;
        let feed = Feed::of_store(&store, feed_options(&config)).await.map_err(StartError::Feed)?;
        let webhooks = WebhookSender::start(&store, &feed, dialer).map_err(StartError::Feed)?;
        let clock = DaemonClock::start();
        let (drain, draining) = watch::channel(None);
        let shared = Arc::new(Shared {
            clock,
            connection_config: Arc::new(connection_config),
            router: api::router(&store, Arc::new(clock)),
            access: AccessHandle::new(setup.access),
            feed,
            admission: Admission::new(&config.limits),
            config,
            drain: draining,
            bells: Arc::new(Bells::default()),
            counters: Counters::default(),
        });
        let site = http::site(shared.clone(), store.clone());
        Ok(Self { shared, listener, site, address, public_key, drain, store, cluster, webhooks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The key that clients pin.
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// What a client connects with.
    pub fn url(&self) -> String {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        format!("raystream://{}@{address}", self.public_key)
    }

    /// The rules in force, to be replaced while it runs.
    pub fn access(&self) -> AccessHandle {
        self.shared.access.clone()
    }

    /// Serves until `stop`, then drains: GOAWAY, in-flight calls finish, at most for the drain time.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { shared, listener, site, drain, store, cluster, webhooks, .. } = self;
        let (access, draining) = (shared.access.changes(), shared.drain.clone());
        let config = shared.connection_config.clone();
        // Who is let in by the new rules is remembered anew.
        let on_access = move || config.forget_peers();
        let ringing = tokio::spawn(shared.bells.clone().follow(access, draining, on_access));
        let serving = tokio::spawn(listener::run(shared.clone(), listener, site));
        stop.await;
        let wait = shared.config.limits.drain.get();
        let connections = shared.counters.connections.load(std::sync::atomic::Ordering::Relaxed);
        tracing::info!(connections, "draining");
        drain.send_replace(Some(shared.clock.now() + wait));
        let longest =
            wait.saturating_add(shared.config.limits.write_deadline.get()).saturating_add(STRAGGLERS);
        let (served, ()) = tokio::join!(crate::time::timeout(longest, serving), webhooks.stop());
        match served {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the listener failed"),
            Err(_) => tracing::warn!("connections that did not end are left behind"),
        }
        ringing.abort();
        let stopped = crate::time::timeout(STOP_DEADLINE, async {
            shared.feed.stop();
            store.close().await;
            if let Some(cluster) = cluster {
                cluster.stop().await;
            }
        });
        if stopped.await.is_err() {
            tracing::warn!("the database did not stop in time");
        }
        tracing::info!("stopped");
    }
}

/// The database: the one that is configured, or a private cluster in the data folder.
async fn database(config: &Config) -> Result<(Option<Embedded>, Endpoint), StartError> {
    match &config.database.url {
        Some(url) => {
            let address = Address::parse(url, &config.database.tls())?;
            let mode = address.mode();
            if matches!(mode, SslMode::Prefer | SslMode::Require) {
                tracing::warn!(sslmode = %mode, "TLS to Postgres without verifying it: whoever is on the path can pass for it");
            } else {
                tracing::info!(sslmode = %mode, "the connections to Postgres");
            }
            Ok((None, address.endpoint()?))
        }
        None => {
            let cluster = Embedded::start(EmbeddedOptions::new(&config.data)).await?;
            let database = cluster.config();
            Ok((Some(cluster), database.into()))
        }
    }
}

fn connection_limits(config: &Config) -> Limits {
    let limits = &config.limits;
    Limits {
        calls_max: limits.calls_per_connection,
        subscriptions_max: limits.subscriptions_per_connection,
        handshake_deadline: limits.handshake_deadline.get(),
        heartbeat_interval: limits.heartbeat.get(),
        idle_timeout: limits.idle_timeout.get(),
        ..Limits::default()
    }
}

fn feed_options(config: &Config) -> FeedOptions {
    FeedOptions {
        retention: Retention {
            max_age: config.feed.retention.get(),
            max_bytes: config.feed.retention_size.get(),
        },
        position_every: Some(POSITION_EVERY),
        ..FeedOptions::default()
    }
}

fn store_options(config: &Config, database: Endpoint, create_tables: bool) -> StoreOptions {
    let (section, limits) = (&config.database, &config.limits);
    StoreOptions {
        read_connections: section.read_connections.into(),
        write_connections: section.write_connections.into(),
        transaction_connections: section.transaction_connections.into(),
        open_transactions: limits.transactions.into(),
        transaction_idle: limits.transaction_idle.get(),
        transaction_longest: limits.transaction_time.get(),
        waiting_max: usize::try_from(section.waiting_statements).unwrap_or(usize::MAX),
        statement_timeout: section.statement_timeout.get(),
        lock_timeout: section.lock_timeout.get(),
        create_tables,
        unsafe_durability: section.unsafe_durability,
        ..StoreOptions::new(database)
    }
}
