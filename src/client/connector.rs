//! From a URL to an open connection: one attempt, with all suites it may take.

use super::error::{ConnectError, ConnectReason};
use super::link::Link;
use super::transport::Socket;
use super::{Options, ServerUrl};
use crate::conn::ConnectionError;
use crate::noise::PublicKey;
use crate::time::timeout;
use crate::wire::{ErrorCode, Suite};
use tokio::time::Instant;

/// Makes connections to one server, always under the same key.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    url: ServerUrl,
    options: Options,
    /// Named by the URL, or learnt at the first contact and insisted on since.
    server_key: Option<PublicKey>,
}

impl Connector {
    pub(super) fn new(url: ServerUrl, options: Options) -> Self {
        Self { server_key: url.key(), url, options }
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// One attempt, within the time the options give it.
    pub(super) async fn connect(&mut self) -> Result<Link, ConnectError> {
        let limit = self.options.connect_timeout;
        let result = timeout(limit, self.attempt()).await;
        result.unwrap_or(Err(ConnectReason::Timeout(limit))).map_err(|reason| self.error(reason))
    }

    /// Names the server in an error.
    pub(super) fn error(&self, reason: ConnectReason) -> ConnectError {
        ConnectError { server: self.url.authority(), reason }
    }

    async fn attempt(&mut self) -> Result<Link, ConnectReason> {
        let link = self.try_suites().await?;
        if self.server_key.is_some() {
            return Ok(link);
        }
        // The first contact. What proves this client's identity, or needs the shared secret, is a second handshake,
        // with the key that the first one has shown.
        self.server_key = Some(link.info.server_key);
        if self.options.identity.is_none() && self.options.psk.is_none() {
            return Ok(link);
        }
        link.finish().await;
        self.try_suites().await
    }

    /// Tries the suites in the order of preference, as long as the server says that it does not take one.
    ///
    /// That word comes in clear and may be forged. Every attempt offers the whole list, and the server's own list comes
    /// back encrypted: a suite that was skipped although the server takes it ends the handshake as a downgrade.
    async fn try_suites(&self) -> Result<Link, ConnectReason> {
        let suites = self.options.suites(self.server_key.is_some());
        let mut refusal = None;
        for suite in &suites {
            match self.try_suite(*suite, suites.clone()).await {
                Err(ConnectReason::Connection(error))
                    if error == ConnectionError::Refused(ErrorCode::UNSUPPORTED_SUITE) =>
                {
                    refusal = Some(error);
                }
                result => return result,
            }
        }
        Err(ConnectReason::Connection(
            refusal.unwrap_or(ConnectionError::Refused(ErrorCode::UNSUPPORTED_SUITE)),
        ))
    }

    async fn try_suite(&self, suite: Suite, suites: Vec<Suite>) -> Result<Link, ConnectReason> {
        let started = Instant::now();
        let socket = Socket::connect(&self.url).await?;
        let transport_time = started.elapsed();
        let config = self.options.config(self.server_key, suites, suite);
        Link::open(socket, config, transport_time).await
    }
}
