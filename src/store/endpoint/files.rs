//! Certificates and keys from files, and the configuration of TLS that they make.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::address::TlsOptions;
use super::connector::Tls;
use super::error::AddressError;
use super::mode::SslMode;
use super::verifier::Verifier;

/// What `sslrootcert` is when the CAs of the system are meant, as in libpq.
pub(super) const SYSTEM_ROOTS: &str = "system";

/// The protocol's name in ALPN: Postgres 17 insists on it when TLS begins without being asked for (`sslnegotiation=direct`).
const ALPN: &[u8] = b"postgresql";

const CA_FILE: &str = "the CA file (sslrootcert)";
const CERT_FILE: &str = "the client certificate (sslcert)";
const KEY_FILE: &str = "the client's key (sslkey)";

/// Reads the files and makes TLS of them.
pub(super) fn set_up(mode: SslMode, options: &TlsOptions) -> Result<Tls, AddressError> {
    if mode == SslMode::Disable {
        return Ok(Tls::default());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Verifier {
        roots: roots(mode, options.root_cert.as_deref())?,
        by_name: mode == SslMode::VerifyFull,
        algorithms: provider.signature_verification_algorithms,
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(AddressError::SetUp)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates(CERT_FILE, cert)?, private_key(key)?)
            .map_err(AddressError::ClientCertificate)?,
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(AddressError::HalfAPair),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Tls::new(mode, config))
}

/// The CAs to believe; `None` where any certificate will do.
fn roots(mode: SslMode, named: Option<&str>) -> Result<Option<RootCertStore>, AddressError> {
    let mut store = RootCertStore::empty();
    match named {
        _ if mode < SslMode::VerifyCa => return Ok(None),
        None | Some(SYSTEM_ROOTS) => {
            let found = rustls_native_certs::load_native_certs();
            // One that cannot be read is left out; Postgres' may be among the others.
            let (_taken, _left_out) = store.add_parsable_certificates(found.certs);
            if store.is_empty() {
                let problem = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
                return Err(AddressError::NoSystemRoots { problem });
            }
        }
        Some(file) => {
            let path = Path::new(file);
            for certificate in certificates(CA_FILE, path)? {
                store
                    .add(certificate)
                    .map_err(|error| AddressError::not_pem(CA_FILE, path, error.to_string()))?;
            }
        }
    }
    Ok(Some(store))
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, AddressError> {
    let text = fs::read(path).map_err(|error| AddressError::file(what, path, error))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| AddressError::not_pem(what, path, error.to_string()))?;
    if found.is_empty() {
        return Err(AddressError::not_pem(what, path, "there is no certificate in PEM format in it"));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, AddressError> {
    let io = |error| AddressError::file(KEY_FILE, path, error);
    let metadata = fs::metadata(path).map_err(io)?;
    // libpq's rule: 0600, or 0640 for a file of root's, which a group of services may read.
    let open_to = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & open_to != 0 {
        return Err(AddressError::KeyIsOpen { path: path.to_owned(), mode: metadata.mode() & 0o777 });
    }
    let text = zeroize::Zeroizing::new(fs::read(path).map_err(io)?);
    if text.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED) {
        let problem = "it has a password, which is not supported: write it without one (`openssl pkey -in KEY -out KEY2`)";
        return Err(AddressError::not_pem(KEY_FILE, path, problem));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        // The parser's words could hold a part of the key.
        AddressError::not_pem(KEY_FILE, path, "there is no private key in PEM format in it")
    })
}

/// In the first lines of a key that is encrypted, in both formats there are.
const ENCRYPTED: &[u8] = b"ENCRYPTED";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn refusal(options: &TlsOptions) -> String {
        set_up(SslMode::VerifyFull, options).expect_err("it is refused").to_string()
    }

    #[test]
    fn files_that_cannot_be_used_are_named_with_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str, mode: u32| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["db".to_owned()]).unwrap();
        let cert = file("cert", &parameters.self_signed(&key).unwrap().pem(), 0o644);
        let root_cert = Some(cert.display().to_string());
        let secret = key.serialize_pem();
        let with_key = |key| TlsOptions {
            root_cert: root_cert.clone(),
            cert: Some(cert.clone()),
            key: Some(key),
            ..TlsOptions::default()
        };

        assert!(set_up(SslMode::VerifyFull, &with_key(file("key", &secret, 0o600))).is_ok());
        let open = refusal(&with_key(file("open", &secret, 0o644)));
        assert!(open.contains("mode 644") && open.contains("chmod 600"), "{open}");
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let other = refusal(&with_key(file("other", &other, 0o600)));
        assert!(other.contains("sslcert and sslkey"), "{other}");
        let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert!(refusal(&with_key(file("locked", locked, 0o600))).contains("password"));
        assert!(refusal(&with_key(file("empty", "", 0o600))).contains("no private key"));
        assert!(refusal(&with_key(folder.path().join("none"))).contains("none"));

        let roots = |path: std::path::PathBuf| TlsOptions {
            root_cert: Some(path.display().to_string()),
            ..TlsOptions::default()
        };
        assert!(refusal(&roots(folder.path().join("absent"))).contains("the CA file"));
        assert!(refusal(&roots(file("text", "no certificate", 0o644))).contains("no certificate"));
    }
}
