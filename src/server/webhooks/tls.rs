//! TLS to receivers.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// Why TLS to receivers cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file was not read.
    #[error("the CA file {path} cannot be read: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file has no certificates.
    #[error("the CA file {path} has no certificate in PEM format that can be used", path = path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
    },
    /// The library refused.
    #[error("TLS cannot be set up: {0}")]
    SetUp(#[from] rustls::Error),
}

/// Whether a CA file can be used.
///
/// # Errors
/// [`TlsError`]
pub fn check_ca_file(path: &Path) -> Result<(), TlsError> {
    from_file(path).map(drop)
}

/// The connector, and whether there is a CA at all that it believes.
pub(super) fn connector(ca_file: Option<&Path>) -> Result<(TlsConnector, bool), TlsError> {
    let roots = match ca_file {
        Some(path) => from_file(path)?,
        None => {
            let mut roots = RootCertStore::empty();
            // One that cannot be read is left out; the receiver's may be among the others.
            let (_taken, _left_out) =
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        }
    };
    let has_roots = !roots.is_empty();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((TlsConnector::from(Arc::new(config)), has_roots))
}

fn from_file(path: &Path) -> Result<RootCertStore, TlsError> {
    let text = fs::read(path).map_err(|source| TlsError::File { path: path.to_owned(), source })?;
    let not_pem = || TlsError::NotPem { path: path.to_owned() };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let mut roots = RootCertStore::empty();
    for certificate in found.map_err(|_| not_pem())? {
        roots.add(certificate).map_err(|_| not_pem())?;
    }
    if roots.is_empty() { Err(not_pem()) } else { Ok(roots) }
}
