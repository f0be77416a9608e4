//! A session at Postgres: reached, found to be of the right kind, and set up.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio_postgres::{Client, Config};

use super::StoreOptions;
use super::endpoint::{Endpoint, Tls, explain};
use super::error::StartError;
use super::pipeline::log_end;
use super::pooler;
use super::server::Server;

/// How long reaching the server may take, unless the operator's address says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a silent network may swallow what we sent before the connection counts as broken.
const NETWORK_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the questions and settings of a new session may take. Who accepts a connection and then says nothing would
/// otherwise keep its place for ever.
pub(super) const SET_UP_LONGEST: Duration = Duration::from_secs(10);

/// How long the task of a session goes on when nobody has its client any more: to say goodbye takes no time, and who owes us
/// an answer may never give it.
const FAREWELL_LONGEST: Duration = Duration::from_secs(1);

/// How values become text, whatever the database says: as the triggers of attached tables write them into the log.
pub(super) const OUTPUT: &str = "SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET bytea_output = 'hex'; \
    SET extra_float_digits = 1";

/// How much later than the daemon Postgres ends a transaction that nothing is asked of: when the daemon is gone without a
/// word.
const IDLE_SLACK: Duration = Duration::from_secs(55);

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Only reads: Postgres refuses a write.
    Read,
    /// Only reads whose best plan depends on their values: each is planned for those it has.
    Planned,
    /// Only reads of documents by their ids. Plans are made once and go by the key, whatever the size of the table was then.
    Lookup,
    /// Writes, each in a transaction of its own.
    Write,
    /// Transactions of several statements: Postgres refuses a write outside of one, so that a `BEGIN` which failed cannot
    /// leave the statements behind it to commit one by one.
    Transaction,
    /// The start: migrations, which may take long.
    Setup,
}

impl Access {
    /// Whether what waits for a connection goes out together.
    pub(super) fn is_grouped(self) -> bool {
        matches!(self, Self::Lookup | Self::Write)
    }
}

/// What moves the bytes of a session. It ends when the connection breaks or the client is dropped.
pub(super) type Driver = BoxFuture<'static, ()>;

/// A session that is set up. Nothing moves unless its driver is polled.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) driver: Driver,
    /// What a cancel request for it is protected by.
    pub(super) tls: Tls,
    /// The statements that set it up.
    pub(super) settings: String,
}

/// The client of a session that a task of its own drives. When it is dropped the connection is closed, after a moment also
/// when answers are still owed: a dead connection would otherwise stay open with all its transaction holds.
#[derive(Debug)]
pub(super) struct Driven {
    client: Client,
    _alive: oneshot::Sender<()>,
}

impl Deref for Driven {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Driven {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Session {
    /// Has a task of its own drive the session until the client is dropped.
    pub(super) fn driven(self) -> Driven {
        let (alive, dropped) = oneshot::channel();
        let driver = self.driver;
        tokio::spawn(async move {
            let left = async {
                // Nothing is ever sent: it ends when the client does.
                let _dropped = dropped.await;
                crate::time::sleep(FAREWELL_LONGEST).await;
            };
            tokio::select! {
                () = driver => {}
                () = left => tracing::debug!("a connection to Postgres that owes an answer is closed"),
            }
        });
        Driven { client: self.client, _alive: alive }
    }
}

/// Opens a session.
pub(super) async fn open(options: &StoreOptions, access: Access) -> Result<Session, StartError> {
    // Each address gets the time to connect to it: one that swallows everything does not take that of the next.
    let addresses = options.config.get_hosts().len().max(options.config.get_hostaddrs().len()).max(1);
    let of_each = options.config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
    let reaching = of_each.saturating_mul(u32::try_from(addresses).unwrap_or(u32::MAX));
    let opened = crate::time::timeout(reaching.saturating_add(SET_UP_LONGEST), set_up(options, access)).await;
    opened.unwrap_or_else(|_| Err(StartError::Unreachable("it did not answer in time".to_owned())))
}

async fn set_up(options: &StoreOptions, access: Access) -> Result<Session, StartError> {
    let (client, mut driver) = reach(options).await?;
    let set_up = async {
        // Each session asks: the server behind the address, and what a role is given, may change.
        let server = Server::ask(&client).await?;
        server.judge(options.unsafe_durability)?;
        if access == Access::Setup {
            server.warn();
            // Before anything is set, which at a pooler would be set for whoever comes next.
            pooler::refuse(options, &client).await?;
        }
        let settings = settings(options, access, server.synchronous_commit());
        client.batch_execute(&settings).await.map(|()| settings).map_err(|error| refused(&error))
    };
    let settings = tokio::select! {
        biased;
        () = &mut driver => return Err(StartError::Unreachable("the connection ended".to_owned())),
        set_up = set_up => set_up?,
    };
    Ok(Session { client, driver, tls: options.tls.clone(), settings })
}

/// Opens a connection and changes nothing on it.
pub(super) async fn reach(options: &StoreOptions) -> Result<(Client, Driver), StartError> {
    let endpoint = Endpoint { config: prepared(&options.config), tls: options.tls.clone() };
    let (client, connection) =
        endpoint.connect().await.map_err(|error| StartError::Unreachable(explain(&error)))?;
    let driver = async move {
        if let Err(error) = connection.await {
            log_end(&error);
        }
    };
    Ok((client, driver.boxed()))
}

/// After so long without an answer a connection is dead, whatever the network says: the longest that a pipelined statement
/// can honestly take is behind another one, each at its limit, and the network.
pub(super) fn patience(options: &StoreOptions) -> Duration {
    options.statement_timeout.saturating_mul(2) + Duration::from_secs(10)
}

/// The operator's address with the time limits that it leaves open.
fn prepared(config: &Config) -> Config {
    let mut config = config.clone();
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(NETWORK_TIMEOUT);
        config.keepalives_idle(NETWORK_TIMEOUT);
    }
    if config.get_application_name().is_none() {
        config.application_name("raystream");
    }
    config
}

/// The settings of a session. `synchronous_commit` is set to what was found, so that a later change of the server's
/// configuration cannot take the promise back under a session that made it.
fn settings(options: &StoreOptions, access: Access, synchronous_commit: &str) -> String {
    let (statement, lock) = match access {
        Access::Read | Access::Planned | Access::Lookup | Access::Write | Access::Transaction => {
            (options.statement_timeout, options.lock_timeout)
        }
        Access::Setup => (Duration::ZERO, super::migrate::LOCK_TIMEOUT),
    };
    let read_only = if matches!(access, Access::Write | Access::Setup) { "off" } else { "on" };
    let plans = match access {
        Access::Lookup => {
            "; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_bitmapscan = off"
        }
        Access::Planned => "; SET plan_cache_mode = force_custom_plan",
        Access::Read | Access::Write | Access::Transaction | Access::Setup => "",
    };
    format!(
        "SET statement_timeout = {statement}; SET lock_timeout = {lock}; \
         SET idle_in_transaction_session_timeout = {idle}; SET idle_session_timeout = 0; \
         SET synchronous_commit = {synchronous_commit}; SET default_transaction_isolation = 'read committed'; \
         SET default_transaction_read_only = {read_only}; SET search_path = pg_catalog; SET timezone = 'UTC'; {OUTPUT}; \
         SET client_min_messages = warning; SET jit = off{plans}",
        statement = statement.as_millis(),
        lock = lock.as_millis(),
        idle = (options.transaction_idle + IDLE_SLACK).as_millis(),
    )
}

/// A statement of the start that failed.
pub(super) fn refused(error: &tokio_postgres::Error) -> StartError {
    StartError::Refused(whole_message(error))
}

/// The error with its causes: `tokio_postgres` keeps what Postgres said one level down. For the log and the operator.
pub(super) fn whole_message(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
