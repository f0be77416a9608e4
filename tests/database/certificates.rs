//! A CA, made for this run of the tests, and what it signed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::server::USER;

/// The name in the server's certificate. Addresses are given beside it, so that no name server is asked.
pub(crate) const HOST: &str = "db.example.com";

/// All in PEM.
pub(crate) struct Certificates {
    pub(crate) ca: String,
    pub(crate) server_cert: String,
    pub(crate) server_key: String,
    files: tempfile::TempDir,
}

impl Certificates {
    /// Makes a CA, a certificate for [`HOST`], one for the client [`USER`], and another CA that signed nothing.
    pub(crate) fn make() -> Self {
        let (ca, issuer) = authority();
        let server_key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(vec![HOST.to_owned()]).unwrap();
        let server_cert = server.signed_by(&server_key, &issuer).unwrap().pem();

        let client_key = KeyPair::generate().unwrap();
        let mut client = CertificateParams::default();
        client.distinguished_name.push(DnType::CommonName, USER);
        let client_cert = client.signed_by(&client_key, &issuer).unwrap().pem();
        let (_, other_issuer) = authority();
        let strangers_cert = client.signed_by(&client_key, &other_issuer).unwrap().pem();

        let files = tempfile::tempdir().unwrap();
        let made = Self { ca, server_cert, server_key: server_key.serialize_pem(), files };
        for (name, text) in [
            ("ca", &made.ca),
            ("other-ca", &authority().0),
            ("client", &client_cert),
            ("stranger", &strangers_cert),
            ("client-key", &client_key.serialize_pem()),
        ] {
            let path = made.file(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        made
    }

    /// The path of `ca`, `other-ca`, `client`, `stranger` (a client that another CA signed) or `client-key`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// The parameter that names a file.
    pub(crate) fn parameter(&self, parameter: &str, name: &str) -> String {
        format!("{parameter}='{}'", self.file(name).display())
    }
}

fn authority() -> (String, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(DnType::CommonName, "the CA of a test");
    let certificate = parameters.self_signed(&key).unwrap();
    (certificate.pem(), Issuer::new(parameters, key))
}
