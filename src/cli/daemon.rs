//! What `dev` and `serve` have in common: keys, signals, the life of the daemon.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, GlobalOptions, Output};
use crate::auth::{Access, AccessHandle};
use crate::noise::{Psk, StaticSecret};
use crate::server::config::{Config, Sources, load};
use crate::server::key_file::{self, KeyFileError};
use crate::server::{Daemon, Setup, harden, logging};

/// How a daemon is run.
pub(super) struct Run<'a> {
    pub(super) options: &'a GlobalOptions,
    pub(super) config: Config,
    pub(super) access: Access,
    pub(super) create_tables: bool,
    /// What SIGHUP reads again; `None` when there is nothing to read.
    pub(super) reload: Option<Sources>,
}

/// Runs a daemon until a signal stops it. `ready` is called once, when clients can connect.
pub(super) fn run(
    run: Run<'_>,
    output: &mut Output,
    ready: impl FnOnce(&Daemon, &mut Output) -> Result<(), Failure>,
) -> Result<(), Failure> {
    logging::init(&run.config.log, run.options.color.into())
        .map_err(|error| Failure::failed(error.to_string()))?;
    if let Err(error) = harden::protect_memory() {
        tracing::warn!(%error, "core dumps could not be switched off: they would hold keys");
    }
    if run.config.database.url.is_none() {
        tracing::warn!(
            data = %run.config.data.display(),
            "no database.url: starting a private Postgres in the data folder"
        );
    }
    let (identities, psk) = keys(&run.config)?;
    let setup =
        Setup { config: run.config, access: run.access, identities, psk, create_tables: run.create_tables };
    let runtime = crate::time::start_thread()
        .and_then(|()| super::runtime::build())
        .map_err(|error| Failure::failed(format!("cannot start threads: {error}")))?;
    runtime.block_on(async {
        let mut signals = Signals::new().map_err(|error| Failure::failed(error.to_string()))?;
        let daemon = tokio::select! {
            started = Daemon::start(setup) => started.map_err(failure)?,
            () = signals.stop() => return Ok(()),
        };
        tracing::info!(address = %daemon.address(), public_key = %daemon.public_key(), "ready");
        ready(&daemon, output)?;
        let access = daemon.access();
        let stop = async {
            loop {
                if signals.next().await == Received::Stop {
                    return;
                }
                reload(run.reload.as_ref(), &access);
            }
        };
        daemon.run(stop).await;
        Ok(())
    })
}

/// What the operator can do about it.
fn failure(error: crate::server::StartError) -> Failure {
    use std::error::Error as _;
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    Failure::failed(message)
}

/// SIGHUP: the access rules, from all the sources again. A fault leaves the old rules in force.
fn reload(sources: Option<&Sources>, access: &AccessHandle) {
    let Some(sources) = sources else {
        tracing::info!("SIGHUP: there is no configuration to read again");
        return;
    };
    match load(sources) {
        Ok(loaded) => {
            let generation = access.replace(loaded.access);
            tracing::info!(generation, "SIGHUP: new access rules are in force");
        }
        Err(faults) => {
            for fault in faults {
                tracing::error!(%fault, "SIGHUP: the configuration is not sound; the old rules stay in force");
            }
        }
    }
}

/// The keys of the server; its own is made on first use.
fn keys(config: &Config) -> Result<(Vec<StaticSecret>, Option<Psk>), Failure> {
    let failed = |error: KeyFileError| Failure::failed(error.to_string()).with_optional_hint(error.hint());
    let file = config.key_file();
    let current = match &config.identity.key_file {
        // A file that was named has to be there: a new key in its place would lock every client out.
        Some(named) => key_file::read_secret(named).map_err(failed)?,
        None => {
            make_folder(&config.data)?;
            let (secret, is_new) = key_file::read_or_generate(&file).map_err(failed)?;
            if is_new {
                tracing::info!(file = %file.display(), "made a new key");
            }
            secret
        }
    };
    let mut identities = vec![current];
    if let Some(previous) = &config.identity.previous_key_file {
        identities.push(key_file::read_secret(previous).map_err(failed)?);
    }
    let psk = config.identity.psk_file.as_deref().map(key_file::read_psk).transpose().map_err(failed)?;
    Ok((identities, psk))
}

fn make_folder(path: &Path) -> Result<(), Failure> {
    fs::create_dir_all(path)
        .map_err(|error| Failure::failed(format!("cannot make the data folder {}: {error}", path.display())))
}

/// Whether only this machine can reach the address.
pub(super) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Received {
    Stop,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Received {
        tokio::select! {
            _ = self.terminate.recv() => Received::Stop,
            _ = self.interrupt.recv() => Received::Stop,
            _ = self.reload.recv() => Received::Reload,
        }
    }

    async fn stop(&mut self) {
        while self.next().await != Received::Stop {}
    }
}
