//! What every command that connects to a server takes.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::client::ServerUrl;
use crate::noise::{Psk, StaticSecret};
use crate::server::config::Period;
use crate::server::key_file::{self, KeyFileError};
use crate::wire::registry::Suite;

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
    /// Take the key the server shows at the first contact, remember it, and refuse another one later
    #[arg(long, help_heading = "Connection")]
    pub trust_on_first_use: bool,
    /// Use this cipher alone instead of the better one of both
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
    #[value(name = "chacha20")]
    ChaCha20,
    /// AES-256-GCM
    #[value(name = "aes256")]
    Aes256,
}

impl ConnectArguments {
    /// Refuses a URL without a key, unless the user said that the first answer is to be trusted.
    ///
    /// # Errors
    /// Names the flag.
    pub fn check(&self) -> Result<(), Failure> {
        if self.trust_on_first_use {
            return Ok(());
        }
        match self.url.require_key() {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::usage(error.to_string())),
        }
    }

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

    /// The suites to offer, best first, once `server_key_known`: with `--identity` a pattern that proves it, with `--psk`
    /// one that mixes it in, and nothing weaker beside them.
    ///
    /// # Errors
    /// There is no pattern for a first contact with an identity or a shared key: both need the server's key.
    pub fn suites(&self, server_key_known: bool) -> Result<Vec<Suite>, Failure> {
        let pattern = match (server_key_known, self.identity.is_some(), self.psk.is_some()) {
            (true, false, false) => "NK",
            (true, true, false) => "IK",
            (true, false, true) => "NKpsk2",
            (true, true, true) => "IKpsk2",
            (false, false, false) => "NX",
            (false, ..) => {
                return Err(Failure::usage("--identity and --psk need the server's key")
                    .with_hint("connect once without them, or put the key into the URL"));
            }
        };
        let cipher = self.cipher.map(|cipher| match cipher {
            Cipher::ChaCha20 => "ChaChaPoly",
            Cipher::Aes256 => "AESGCM",
        });
        Ok(Suite::ALL
            .iter()
            .copied()
            .filter(|suite| suite.pattern_name() == Some(pattern))
            .filter(|suite| cipher.is_none() || suite.cipher_name() == cipher)
            .collect())
    }
}

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Self {
        Self::failed(error.to_string()).with_optional_hint(error.hint())
    }
}
