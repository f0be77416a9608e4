//! TLS 1.3 by rustls and AWS-LC, with one cipher.

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use std::{fs, path::Path, sync::Arc};

use crate::Failure;

/// The certificate's file.
pub(crate) const CERTIFICATE: &str = "cert.pem";
/// Its key's file.
pub(crate) const KEY: &str = "key.pem";
/// The name in it.
pub(crate) const NAME: &str = "localhost";

/// Makes a certificate (ECDSA P-256) that signs itself.
pub(crate) fn make(folder: &Path) -> Result<(), Failure> {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned(), "127.0.0.1".to_owned()])?;
    fs::write(folder.join(CERTIFICATE), made.cert.pem())?;
    fs::write(folder.join(KEY), made.signing_key.serialize_pem())?;
    Ok(())
}

/// X25519 and one cipher: what raystream uses.
fn provider(aes: bool) -> Arc<CryptoProvider> {
    let suite = if aes {
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384
    } else {
        aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256
    };
    Arc::new(CryptoProvider {
        cipher_suites: vec![suite],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    })
}

pub(crate) fn server(folder: &Path, aes: bool) -> Result<tokio_rustls::TlsAcceptor, Failure> {
    let certificate = CertificateDer::from_pem_file(folder.join(CERTIFICATE))?;
    let key = PrivateKeyDer::from_pem_file(folder.join(KEY))?;
    let mut config = ServerConfig::builder_with_provider(provider(aes))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    // A full handshake each time, as raystream does.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config).into())
}

pub(crate) fn client(folder: &Path, aes: bool) -> Result<tokio_rustls::TlsConnector, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join(CERTIFICATE))?)?;
    let mut config = ClientConfig::builder_with_provider(provider(aes))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config).into())
}

pub(crate) fn name() -> ServerName<'static> {
    ServerName::try_from(NAME).expect("a name")
}
