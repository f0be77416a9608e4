//! What every command that connects to a server takes.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, Output};
use crate::client::{CipherPreference, Client, Error, Options, ServerUrl};
use crate::noise::{Psk, StaticSecret};
use crate::server::config::Period;
use crate::server::key_file::{self, KeyFileError};
use crate::wire::ErrorCode;

/// Where to connect, and as whom.
#[derive(Debug, Clone, Args)]
pub struct ConnectArguments {
    /// The server: raystream://PUBLICKEY@host:port, or raystream+ws:// for WebSocket
    #[arg(value_name = "URL")]
    pub url: ServerUrl,
    /// Private key file to prove who you are (from `raystream keygen`)
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub identity: Option<PathBuf>,
    /// File with the key shared with the server: protects today's traffic against tomorrow's computers
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub psk: Option<PathBuf>,
    /// For a URL without a key: take the key the server shows, print it, and insist on it while this command runs
    #[arg(long, help_heading = "Connection")]
    pub trust_on_first_use: bool,
    /// Use this cipher alone; without this both are offered, chacha20 first
    #[arg(long, value_enum, value_name = "CIPHER", help_heading = "Connection")]
    pub cipher: Option<Cipher>,
    /// Give up after this time, for instance 500ms or 5s
    #[arg(long, value_name = "TIME", default_value = "30s", help_heading = "Connection")]
    pub timeout: Period,
}

/// The values of `--cipher`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Cipher {
    /// ChaCha20-Poly1305
    #[value(name = "chacha20", alias = "chacha")]
    ChaCha20,
    /// AES-256-GCM
    #[value(name = "aes256", alias = "aes")]
    Aes256,
}

impl ConnectArguments {
    /// The key of `--identity`.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn identity(&self) -> Result<Option<StaticSecret>, Failure> {
        Ok(self.identity.as_deref().map(key_file::read_secret).transpose()?)
    }

    /// The key of `--psk`.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn psk(&self) -> Result<Option<Psk>, Failure> {
        Ok(self.psk.as_deref().map(key_file::read_psk).transpose()?)
    }

    /// What the client library is given.
    ///
    /// # Errors
    /// A key file that cannot be used.
    pub(super) fn options(&self) -> Result<Options, Failure> {
        Ok(Options {
            identity: self.identity()?,
            psk: self.psk()?,
            trust_on_first_use: self.trust_on_first_use,
            connect_timeout: self.timeout.get(),
            call_timeout: self.timeout.get(),
            ciphers: match self.cipher {
                None => CipherPreference::ChaChaFirst,
                Some(Cipher::ChaCha20) => CipherPreference::ChaChaOnly,
                Some(Cipher::Aes256) => CipherPreference::AesOnly,
            },
            ..Options::default()
        })
    }

    /// Connects. `change` may set what the command wants otherwise.
    ///
    /// # Errors
    /// A key file that cannot be used, or no connection: with what to do about it.
    pub(super) async fn connect(
        &self,
        output: &Output,
        change: impl FnOnce(&mut Options),
    ) -> Result<Client, Failure> {
        let mut options = self.options()?;
        change(&mut options);
        let client = Client::connect_url(self.url.clone(), options).await?;
        if self.url.key().is_none()
            && let Some(connection) = client.connection()
        {
            let key = connection.server_key;
            output.note(format!("the server showed the key {key}; if it is the right one, use the URL"));
            output.note(self.url.clone().with_key(key).to_string());
        }
        Ok(client)
    }
}

/// Runs the asynchronous part of a command. The connection has a thread of its own, so that output that blocks does not
/// keep it from answering the server.
///
/// # Errors
/// Those of the work, or no thread could be started.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(work);
    // A name that is still being resolved is not waited for.
    runtime.shutdown_background();
    result
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let failure = match &error {
            Error::Call(answer) => Self::answered(answer.code, answer.message.clone()),
            // A connection that failed, but what it means for the call is worth its code.
            Error::UnknownOutcome { .. } => {
                Self::connection(error.to_string()).with_code(ErrorCode::UNKNOWN_OUTCOME)
            }
            Error::Connect(reason) => {
                Self::connection(error.to_string()).with_optional_hint(reason.hint().map(str::to_owned))
            }
            Error::Closed => Self::connection(error.to_string()),
            Error::Url(_) | Error::Configuration(_) => Self::usage(error.to_string()),
            _ => match error.code() {
                Some(code) => Self::answered(code, error.to_string()),
                None => Self::failed(error.to_string()),
            },
        };
        failure.with_facts_of(&error)
    }
}

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Self {
        Self::failed(error.to_string()).with_optional_hint(error.hint())
    }
}
