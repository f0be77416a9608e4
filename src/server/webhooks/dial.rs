//! The way to a receiver: its name is resolved, the addresses are judged, and one that may be is connected to: that very address.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::tls::{self, TlsError};
use crate::server::config::WebhooksConfig;
use crate::time::timeout;
use crate::webhook::{Host, Networks, Target};

/// How long each step to a receiver may take: its name, its port, TLS. Three times a packet is lost and sent again.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses of a name that are tried: a name with more is no better reached by the rest.
const ADDRESSES_MAX: usize = 4;

/// A connection to a receiver.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Why a receiver was not reached. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("the name {0} was not resolved: {1}")]
    Name(String, String),
    #[error(
        "{0} is not an address of the public internet: nothing is sent there unless webhooks.allow_private names it"
    )]
    Private(IpAddr),
    #[error(
        "without TLS nothing is sent to {0}: use https://, or name an address of your own network in webhooks.allow_private"
    )]
    Plain(IpAddr),
    #[error("{0} was not reached: {1}")]
    Connect(SocketAddr, String),
    #[error("no CA is known: set webhooks.ca_file, or install the CAs of the system")]
    NoRoots,
    #[error("the TLS handshake with {0} failed: {1}")]
    Tls(SocketAddr, String),
}

/// Connects to receivers.
pub(in crate::server) struct Dialer {
    networks: Networks,
    tls: TlsConnector,
    has_roots: bool,
}

impl Dialer {
    /// By the operator's networks and CAs.
    pub(in crate::server) fn new(config: &WebhooksConfig) -> Result<Self, TlsError> {
        let (tls, has_roots) = tls::connector(config.ca_file.as_deref())?;
        Ok(Self { networks: config.allow_private.clone(), tls, has_roots })
    }

    /// A new connection, through TLS when the URL says so.
    pub(super) async fn connect(&self, target: &Target) -> Result<Box<dyn Io>, DialError> {
        let (address, stream) = self.reach(target).await?;
        // A message is written at once, and waits for nothing.
        let _as_it_is = stream.set_nodelay(true);
        if !target.is_https() {
            return Ok(Box::new(stream));
        }
        if !self.has_roots {
            return Err(DialError::NoRoots);
        }
        let failed = |error: String| DialError::Tls(address, error);
        let name = server_name(target.host())
            .ok_or_else(|| failed("the host is no name of a certificate".to_owned()))?;
        match timeout(STEP_TIMEOUT, self.tls.connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(no_answer())),
        }
    }

    async fn reach(&self, target: &Target) -> Result<(SocketAddr, TcpStream), DialError> {
        let mut failure = None;
        for address in resolve(target).await? {
            if let Err(error) = self.judge(target, address.ip()) {
                failure = Some(error);
                continue;
            }
            match timeout(STEP_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok((address, stream)),
                Ok(Err(error)) => failure = Some(DialError::Connect(address, error.to_string())),
                Err(_) => failure = Some(DialError::Connect(address, no_answer())),
            }
        }
        Err(failure
            .unwrap_or_else(|| DialError::Name(target.host().to_string(), "it has no address".to_owned())))
    }

    /// Whether an address may be connected to.
    fn judge(&self, target: &Target, address: IpAddr) -> Result<(), DialError> {
        if !self.networks.allow(address) {
            return Err(DialError::Private(address));
        }
        if !target.is_https() && !self.networks.names(address) {
            return Err(DialError::Plain(address));
        }
        Ok(())
    }
}

fn no_answer() -> String {
    format!("no answer within {} s", STEP_TIMEOUT.as_secs())
}

async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, DialError> {
    match target.host() {
        Host::Address(address) => Ok(vec![SocketAddr::new(*address, target.port())]),
        Host::Name(name) => {
            let failed = |error: String| DialError::Name(name.clone(), error);
            match timeout(STEP_TIMEOUT, lookup_host((name.as_str(), target.port()))).await {
                Ok(Ok(found)) => Ok(found.take(ADDRESSES_MAX).collect()),
                Ok(Err(error)) => Err(failed(error.to_string())),
                Err(_) => Err(failed(no_answer())),
            }
        }
    }
}

fn server_name(host: &Host) -> Option<ServerName<'static>> {
    match host {
        Host::Address(address) => Some(ServerName::IpAddress((*address).into())),
        // The dot that ends a full name is in no certificate.
        Host::Name(name) => ServerName::try_from(name.trim_end_matches('.').to_owned()).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn dialer(networks: &str) -> Dialer {
        let config: WebhooksConfig = toml::from_str(&format!("allow_private = {networks}")).unwrap();
        Dialer::new(&config).unwrap()
    }

    async fn refusal(dialer: &Dialer, url: &str) -> String {
        let target = Target::parse(url).unwrap();
        dialer.reach(&target).await.err().unwrap_or_else(|| panic!("{url} was reached")).to_string()
    }

    #[tokio::test]
    async fn inner_addresses_are_not_reached_by_number_or_by_name() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let none = dialer("[]");
        for scheme in ["http", "https"] {
            // `localhost` is a public name that resolves to an inner address, as one of an attacker's would.
            for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"] {
                let refused = refusal(&none, &format!("{scheme}://{host}:{port}/")).await;
                assert!(refused.contains("not an address of the public internet"), "{host}: {refused}");
            }
        }
        assert!(timeout(Duration::from_millis(50), listener.accept()).await.is_err(), "nobody came");

        let named = dialer("[\"127.0.0.1\"]");
        for host in ["127.0.0.1", "localhost"] {
            let target = Target::parse(&format!("http://{host}:{port}/")).unwrap();
            let (address, _stream) = named.reach(&target).await.unwrap();
            assert_eq!(address, listener.local_addr().unwrap(), "{host}");
        }
        assert!(refusal(&named, &format!("http://127.0.0.2:{port}/")).await.contains("public internet"));
    }

    #[tokio::test]
    async fn without_tls_only_what_the_operator_named_is_reached() {
        let refused = refusal(&dialer("[\"127.0.0.0/8\"]"), "http://8.8.8.8/").await;
        assert!(refused.contains("without TLS nothing is sent to 8.8.8.8"), "{refused}");
    }
}
