//! Where Postgres is and how it is reached: the one place where a connection to it, or a cancel request, is made.
//!
//! Whatever talks to Postgres goes through an [`Endpoint`], so that nothing can fall back to a connection in the clear.

mod address;
mod advice;
mod binding;
mod connector;
mod error;
mod files;
mod mode;
mod text;
mod verifier;

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::config::SslMode as Negotiation;
use tokio_postgres::{CancelToken, Client, Config, Connection, Socket};

pub use address::{Address, TlsOptions};
pub use connector::{Encrypted, Tls};
pub use error::AddressError;
pub use mode::SslMode;

pub(super) use advice::explain;

/// A Postgres: its address, who we are there, and how the connection is protected.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Where it is.
    pub config: Config,
    /// TLS, unless it is off.
    pub tls: Tls,
}

impl From<Config> for Endpoint {
    /// Without TLS.
    fn from(config: Config) -> Self {
        Self { config, tls: Tls::default() }
    }
}

impl Endpoint {
    /// Opens a connection. Nothing moves on it unless the second value is polled.
    pub(super) async fn connect(
        &self,
    ) -> Result<(Client, Connection<Socket, Encrypted<Socket>>), tokio_postgres::Error> {
        let mut config = self.config.clone();
        config.ssl_mode(self.negotiation());
        config.connect(self.tls.clone()).await
    }

    /// What is said to the server before the first byte of TLS.
    fn negotiation(&self) -> Negotiation {
        match self.tls.mode() {
            // An address that asks for TLS where none was set up must not become one without.
            SslMode::Disable if self.config.get_ssl_mode() == Negotiation::Require => Negotiation::Require,
            SslMode::Disable => Negotiation::Disable,
            SslMode::Prefer => Negotiation::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => Negotiation::Require,
        }
    }
}

/// Asks Postgres to stop what a session executes, on a connection of its own that is protected as the session's is.
///
/// # Errors
/// What kept the request from arriving. Whether it stopped something is never said.
pub(super) async fn cancel(
    token: &CancelToken,
    tls: &Tls,
    longest: Duration,
) -> Result<(), Arc<dyn std::error::Error + Send + Sync>> {
    match crate::time::timeout(longest, token.cancel_query(tls.clone())).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Arc::new(error)),
        Err(elapsed) => Err(Arc::new(elapsed)),
    }
}
