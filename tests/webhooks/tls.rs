//! Receivers behind TLS: only those whose certificate is believed.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::commands::{add, done, set, until_shown};
use crate::receiver::{self, Receiver};
use crate::server::Server;

/// A CA with a name of its own, and an acceptor with a certificate of it for `localhost`.
fn authority(name: &str) -> (String, TlsAcceptor) {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = parameters.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(parameters, key);
    let server_key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = server.signed_by(&server_key, &issuer).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(server_key.serialize_der()).unwrap(),
        )
        .unwrap();
    (ca, TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_not_believed_gets_nothing() {
    let (ca, acceptor) = authority("the CA of the operator");
    let (_, stranger) = authority("the CA of a stranger");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, ca).unwrap();
    let section = format!("[webhooks]\nallow_private = [\"127.0.0.1\"]\nca_file = {:?}\n", file);
    let server = Server::start_with(&section).await;
    let client = server.client(1).await;
    let known = Receiver::start_by(|_| receiver::status(200), Some(acceptor)).await;
    let unknown = Receiver::start_by(|_| receiver::status(200), Some(stranger)).await;
    let https = |host: &str, port: u16| format!("https://{host}:{port}/a?b=c");
    let (good, _) = add(&server, &https("localhost", known.port), &[]);
    let refused = [
        (add(&server, &https("localhost", unknown.port), &["--attempts", "1"]).0, "UnknownIssuer"),
        (add(&server, &https("127.0.0.1", known.port), &["--attempts", "1"]).0, "not valid for name"),
    ];
    for n in 0..3 {
        set(&client, "a", json!(n)).await;
    }
    let events = known.until_events(3).await;
    assert!(events[0].head.starts_with("POST /a?b=c HTTP/1.1\r\n"));
    assert_eq!(events[0].header("host"), format!("localhost:{}", known.port));
    assert!(events.iter().all(|event| event.id().starts_with(&good)));
    for (id, reason) in &refused {
        until_shown("it is given up", &server, id, |shown| shown["dead"] == 3).await;
        let dead = done(&server, &["dead", id]);
        let error = dead[0]["error"].as_str().unwrap();
        assert!(error.contains("TLS handshake") && error.contains(reason), "{error}");
    }
    assert!(unknown.received().is_empty());
}
