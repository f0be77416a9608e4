//! TLS as `tokio_postgres` takes it: rustls under its traits.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{self, ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::binding::server_end_point;
use super::error::HandshakeError;
use super::mode::SslMode;

/// How connections to a Postgres are protected. The default is not at all.
#[derive(Clone, Default)]
pub struct Tls(Option<Arc<SetUp>>);

struct SetUp {
    config: Arc<ClientConfig>,
    mode: SslMode,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the configuration: it holds the client's key.
        f.debug_tuple("Tls").field(&self.mode()).finish()
    }
}

impl Tls {
    pub(super) fn new(mode: SslMode, config: ClientConfig) -> Self {
        Self(Some(Arc::new(SetUp { config: Arc::new(config), mode })))
    }

    /// How much connections are protected.
    pub fn mode(&self) -> SslMode {
        self.0.as_ref().map_or(SslMode::Disable, |set_up| set_up.mode)
    }
}

/// TLS for one connection.
pub struct Connector {
    config: Option<Arc<ClientConfig>>,
    /// `None`: the host is no name of a certificate, and it matters.
    name: Option<ServerName<'static>>,
}

impl<S> MakeTlsConnect<S> for Tls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type TlsConnect = Connector;
    type Error = HandshakeError;

    fn make_tls_connect(&mut self, host: &str) -> Result<Connector, HandshakeError> {
        // This is asked for unix sockets too, so a name that is missing is an error only when TLS begins.
        let name = ServerName::try_from(host.to_owned()).ok().or_else(|| {
            // rustls wants a name also where nobody looks at it. An address is not sent to the server.
            (self.mode() < SslMode::VerifyFull).then(|| IpAddr::from(Ipv4Addr::UNSPECIFIED).into())
        });
        Ok(Connector { config: self.0.as_ref().map(|set_up| Arc::clone(&set_up.config)), name })
    }
}

impl<S> TlsConnect<S> for Connector
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type Error = HandshakeError;
    type Future = BoxFuture<'static, Result<Encrypted<S>, HandshakeError>>;

    fn connect(self, stream: S) -> Self::Future {
        async move {
            let config = self.config.ok_or(HandshakeError::Off)?;
            let name = self.name.ok_or(HandshakeError::BadName)?;
            Ok(Encrypted(Box::new(TlsConnector::from(config).connect(name, stream).await?)))
        }
        .boxed()
    }
}

/// A connection inside of TLS. Boxed: its state is a hundred times that of a socket.
#[derive(Debug)]
pub struct Encrypted<S>(Box<TlsStream<S>>);

impl<S> tls::TlsStream for Encrypted<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn channel_binding(&self) -> ChannelBinding {
        let (_, session) = self.0.get_ref();
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        certificate
            .and_then(|certificate| server_end_point(certificate))
            .map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl<S> AsyncRead for Encrypted<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S> AsyncWrite for Encrypted<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, date_time_ymd};
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::aws_lc_rs;
    use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    use super::super::address::TlsOptions;
    use super::super::files::set_up;
    use super::*;

    const HOST: &str = "db.example.com";

    /// A handshake with a server whose certificate is its own CA, which is the one that is trusted. Gives the channel binding.
    async fn handshake(
        mode: SslMode,
        parameters: CertificateParams,
    ) -> Result<Option<usize>, HandshakeError> {
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca");
        std::fs::write(&file, certificate.pem()).unwrap();
        let root_cert = Some(file.display().to_string());
        let mut tls = set_up(mode, &TlsOptions { root_cert, ..TlsOptions::default() }).unwrap();

        let secret = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], secret)
            .unwrap();
        let (ours, theirs) = tokio::io::duplex(16 * 1024);
        let server = tokio::spawn(TlsAcceptor::from(Arc::new(config)).accept(theirs));
        let connector = MakeTlsConnect::<tokio::io::DuplexStream>::make_tls_connect(&mut tls, HOST)?;
        let stream = connector.connect(ours).await?;
        server.await.unwrap().expect("the server is content too");
        let (_, session) = stream.0.get_ref();
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        Ok(certificate.and_then(|certificate| server_end_point(certificate)).map(|hash| hash.len()))
    }

    fn parameters() -> CertificateParams {
        let mut parameters = CertificateParams::new(vec![HOST.to_owned()]).unwrap();
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters
    }

    #[tokio::test]
    async fn a_certificate_that_is_trusted_itself_is_good_and_its_faults_are_named() {
        assert_eq!(handshake(SslMode::VerifyFull, parameters()).await.unwrap(), Some(32));

        let mut expired = parameters();
        (expired.not_before, expired.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        let mut coming = parameters();
        (coming.not_before, coming.not_after) = (date_time_ymd(3001, 1, 1), date_time_ymd(3002, 1, 1));
        let mut authority = parameters();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut nameless = parameters();
        nameless.subject_alt_names.clear();
        nameless.distinguished_name.push(DnType::CommonName, HOST);
        for (parameters, word) in [
            (expired, "not valid now"),
            (coming, "not valid now"),
            (authority, "one for a CA"),
            (nameless, "no host at all"),
        ] {
            let error = handshake(SslMode::VerifyFull, parameters.clone()).await.expect_err(word).to_string();
            assert!(error.contains(word), "{word}: {error}");
            // Nothing of this is looked at where nobody is verified.
            assert!(handshake(SslMode::Prefer, parameters).await.is_ok(), "{word}");
        }
    }
}
