//! The sections of `raystream.toml` and their defaults.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::limits::LimitsConfig;
use super::quantity::{ByteSize, Period};
use crate::auth::AccessConfig;
use crate::store::endpoint::{SslMode, TlsOptions};
use crate::webhook::Networks;
use crate::wire::registry::Suite;

/// The address of the daemon unless told otherwise. Loopback: nothing is exposed by accident.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7410";
/// The folder for the embedded cluster and the identity unless told otherwise, relative to the current one.
pub const DEFAULT_DATA: &str = "raystream-data";
/// The identity's file name inside the data folder when `identity.key_file` is not set.
pub const DEFAULT_KEY_FILE: &str = "raystream.key";

/// Pipelined connections for queries: two, so that one slow result does not hold up the others; and as many for those with a filter or an
/// order by a field, for searches, and for reads by id.
pub const READ_CONNECTIONS: u16 = 2;
/// Pipelined connections for writes. A commit waits for the disk: four of them share one flush.
pub const WRITE_CONNECTIONS: u16 = 4;
/// Connections for batches and calls with an idempotency key: each has one to itself from BEGIN to COMMIT.
pub const TRANSACTION_CONNECTIONS: u16 = 8;
/// Statements that may wait for the database before callers are told to come back.
pub const WAITING_STATEMENTS: u32 = 1_024;
/// After this the database gives a statement up.
pub const STATEMENT_TIMEOUT: Period = Period::from_secs(30);
/// After this a statement that waits for a row's lock ends as CONFLICT.
pub const LOCK_TIMEOUT: Period = Period::from_secs(2);
/// How long the change log is kept: a subscriber may be away for a day.
pub const RETENTION: Period = Period::from_secs(24 * 3_600);
/// How large the change log may grow before its oldest part goes.
pub const RETENTION_SIZE: ByteSize = ByteSize::from_bytes(10 << 30);

/// All that the daemon can be told, as `raystream.toml` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port for TCP, WebSocket and HTTP. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The folder for what the daemon keeps itself: the embedded cluster and, unless `identity` names one, its key.
    pub data: PathBuf,
    /// `[database]`
    pub database: DatabaseConfig,
    /// `[identity]`
    pub identity: IdentityConfig,
    /// `[suites]`
    pub suites: SuitesConfig,
    /// `[websocket]`
    pub websocket: WebSocketConfig,
    /// `[limits]`
    pub limits: LimitsConfig,
    /// `[feed]`
    pub feed: FeedConfig,
    /// `[webhooks]`
    pub webhooks: WebhooksConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[access]`
    pub access: AccessConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: DEFAULT_LISTEN.parse().expect("a constant address parses"),
            data: PathBuf::from(DEFAULT_DATA),
            database: DatabaseConfig::default(),
            identity: IdentityConfig::default(),
            suites: SuitesConfig::default(),
            websocket: WebSocketConfig::default(),
            limits: LimitsConfig::default(),
            feed: FeedConfig::default(),
            webhooks: WebhooksConfig::default(),
            log: LogConfig::default(),
            access: AccessConfig::default(),
        }
    }
}

impl Config {
    /// Where the server's private key is.
    pub fn key_file(&self) -> PathBuf {
        self.identity.key_file.clone().unwrap_or_else(|| self.data.join(DEFAULT_KEY_FILE))
    }

    /// The suites to accept: those of `[suites]`, else all; suites with a pre-shared key only when there is one.
    pub fn allowed_suites(&self) -> Vec<Suite> {
        let named = |suite: &Suite| {
            let Some(allowed) = &self.suites.allowed else { return true };
            suite.name().is_some_and(|name| allowed.iter().any(|other| other == name))
        };
        let usable = |suite: &Suite| self.identity.psk_file.is_some() || !needs_psk(*suite);
        Suite::ALL.iter().copied().filter(named).filter(usable).collect()
    }
}

/// Whether the suite mixes in a pre-shared key.
pub fn needs_psk(suite: Suite) -> bool {
    suite.pattern_name().is_some_and(|pattern| pattern.contains("psk"))
}

/// The `[database]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `postgres://user:password@host/database` or the `host=.. user=..` form. Absent: a private cluster in `data`.
    pub url: Option<String>,
    /// How the connection is protected, when `url` does not say: `disable`, `prefer`, `require`, `verify-ca` or
    /// `verify-full`. Absent in both: `verify-full`, but `prefer` on the loopback.
    pub sslmode: Option<SslMode>,
    /// The file of the CAs that may sign for Postgres, or `system`. Absent: those of the system.
    pub sslrootcert: Option<String>,
    /// The file of the certificate that Postgres is shown.
    pub sslcert: Option<PathBuf>,
    /// The file of its private key, closed to others.
    pub sslkey: Option<PathBuf>,
    /// See [`READ_CONNECTIONS`].
    pub read_connections: u16,
    /// See [`WRITE_CONNECTIONS`].
    pub write_connections: u16,
    /// See [`TRANSACTION_CONNECTIONS`].
    pub transaction_connections: u16,
    /// See [`WAITING_STATEMENTS`].
    pub waiting_statements: u32,
    /// See [`STATEMENT_TIMEOUT`].
    pub statement_timeout: Period,
    /// See [`LOCK_TIMEOUT`].
    pub lock_timeout: Period,
    /// Start although the database may lose writes that it has confirmed (`synchronous_commit` off or local).
    pub unsafe_durability: bool,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            url: None,
            sslmode: None,
            sslrootcert: None,
            sslcert: None,
            sslkey: None,
            read_connections: READ_CONNECTIONS,
            write_connections: WRITE_CONNECTIONS,
            transaction_connections: TRANSACTION_CONNECTIONS,
            waiting_statements: WAITING_STATEMENTS,
            statement_timeout: STATEMENT_TIMEOUT,
            lock_timeout: LOCK_TIMEOUT,
            unsafe_durability: false,
        }
    }
}

impl DatabaseConfig {
    /// What is said about TLS beside the URL.
    pub fn tls(&self) -> TlsOptions {
        TlsOptions {
            mode: self.sslmode,
            root_cert: self.sslrootcert.clone(),
            cert: self.sslcert.clone(),
            key: self.sslkey.clone(),
        }
    }
}

/// The `[identity]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentityConfig {
    /// The server's private key, from `raystream keygen`. Absent: `raystream.key` in `data`, made on first use.
    pub key_file: Option<PathBuf>,
    /// The key before a rotation: clients that still pin it are let in.
    pub previous_key_file: Option<PathBuf>,
    /// A pre-shared key of 32 bytes in the format of a key file. With it the suites with `psk2` are offered.
    pub psk_file: Option<PathBuf>,
}

/// The `[suites]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SuitesConfig {
    /// Names such as `NK_ChaChaPoly`. Absent: every suite the server can speak.
    pub allowed: Option<Vec<String>>,
}

/// The `[websocket]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebSocketConfig {
    /// Origins of web pages that may connect, for instance `https://app.example.com`. A browser always sends one, so
    /// an empty list lets no page in; clients that are no browsers send none and are not concerned.
    pub origins: Vec<String>,
}

/// The `[feed]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeedConfig {
    /// See [`RETENTION`].
    pub retention: Period,
    /// See [`RETENTION_SIZE`].
    pub retention_size: ByteSize,
}

impl Default for FeedConfig {
    fn default() -> Self {
        Self { retention: RETENTION, retention_size: RETENTION_SIZE }
    }
}

/// The `[webhooks]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhooksConfig {
    /// Ranges of addresses that webhooks may be sent to although they are not of the public internet, for instance
    /// `10.1.0.0/16` or `127.0.0.1`; only there without TLS too. Empty: none.
    pub allow_private: Networks,
    /// The file of the CAs that may sign for receivers, in place of those of the system.
    pub ca_file: Option<PathBuf>,
}

/// The `[log]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// How a line looks.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,raystream::conn=debug`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
