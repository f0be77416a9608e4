//! The connections of a run.

use futures_util::{StreamExt as _, stream};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::arguments::{BenchArguments, length};
use super::cores::Cores;
use super::progress::Progress;
use crate::cli::{Failure, Output};
use crate::client::{Client, Options, ServerUrl};

/// Handshakes at the same time: a server lets in 1,024 half-open ones, and its backlog holds as many again.
const CONNECTING_MAX: usize = 64;

/// Open connections to one server, and how to make more.
pub(super) struct Fleet {
    pub(super) clients: Vec<Client>,
    url: ServerUrl,
    options: Options,
    cores: Cores,
}

impl Fleet {
    /// Opens `--connections` connections.
    ///
    /// # Errors
    /// One of them could not be made.
    pub(super) async fn connect(
        arguments: &BenchArguments,
        cores: Cores,
        output: &Output,
    ) -> Result<Self, Failure> {
        let mut fleet = Self::prepare(arguments, cores, output).await?;
        let count = length(arguments.connections());
        let progress = Progress::new(output, "connecting", u64::from(arguments.connections()));
        let made: Vec<_> = stream::iter(fleet.clients.len()..count)
            .map(|connection| fleet.connect_on(connection))
            .buffered(CONNECTING_MAX)
            .enumerate()
            .map(|(n, made)| {
                progress.at(n);
                made
            })
            .collect()
            .await;
        for client in made {
            fleet.clients.push(client?);
        }
        Ok(fleet)
    }

    /// Opens the first connection: what it needs is known after that.
    ///
    /// # Errors
    /// It could not be made.
    pub(super) async fn prepare(
        arguments: &BenchArguments,
        cores: Cores,
        output: &Output,
    ) -> Result<Self, Failure> {
        let mut options = arguments.connect.options()?;
        // A connection that comes back by itself would hide what is measured here.
        options.reconnect = None;
        let first = arguments.connect.connect(output, |options| options.reconnect = None).await?;
        let mut url = arguments.connect.url.clone();
        if let Some(info) = first.connection() {
            // Whoever was trusted at the first contact is the one from then on.
            url = url.with_key(info.server_key);
        }
        Ok(Self { clients: vec![first], url, options, cores })
    }

    /// One more connection.
    ///
    /// # Errors
    /// It could not be made.
    pub(super) async fn extra(&self) -> Result<Client, Failure> {
        self.connect_on(0).await
    }

    /// A connection whose task runs where this one's has to.
    async fn connect_on(&self, connection: usize) -> Result<Client, Failure> {
        let connecting = Client::connect_url(self.url.clone(), self.options.clone());
        let made = self.cores.of(connection).spawn(connecting).await;
        Ok(made.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?)
    }

    /// Where and how to connect.
    pub(super) fn target(&self) -> (ServerUrl, Options) {
        (self.url.clone(), self.options.clone())
    }

    /// The pattern and cipher in use.
    pub(super) fn suite(&self) -> String {
        let info = self.clients.first().and_then(Client::connection);
        info.map_or_else(|| "unknown".to_owned(), |info| info.suite.to_string())
    }
}

/// Allows this process as many descriptors as the system lets it have: each connection is one.
pub(super) fn allow_descriptors(output: &Output) {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        output.warn(format!("the limit of open files cannot be raised: {error}"));
    }
}
