//! What is wrong with an address, a file of certificates, or a TLS handshake. For the operator: each says what to do.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio_rustls::rustls;

use super::mode::SslMode;

/// Why an address, or a file it names, cannot be used. It never repeats the address, which may hold a password.
#[derive(Debug, Error)]
pub enum AddressError {
    /// It is not a connection string.
    #[error("cannot be read as a Postgres URL")]
    Unreadable,
    /// libpq knows the parameter; this program does not.
    #[error("the parameter {0} is not supported: take it out")]
    Unsupported(&'static str),
    /// There is no such mode.
    #[error("there is no such sslmode; there are disable, prefer, require, verify-ca and verify-full")]
    NoSuchMode,
    /// Two places say different things.
    #[error("{0} is in the URL and in the configuration: leave it in one of them")]
    SaidTwice(&'static str),
    /// A certificate without its key, or the other way round.
    #[error("sslcert and sslkey belong together: name both, or neither")]
    HalfAPair,
    /// Any certificate that somebody bought would do.
    #[error(
        "sslmode={mode} is too weak for the system's CAs, which sign for anybody: use verify-full, or name the CA file of the server with sslrootcert"
    )]
    WeakForSystemRoots {
        /// The mode.
        mode: SslMode,
    },
    /// A name to verify, and to send to the server, is missing.
    #[error("TLS needs the name of the server: give `host`, beside `hostaddr` if you like")]
    NoHostName,
    /// Postgres has no TLS on unix sockets.
    #[error(
        "a unix socket has no TLS: leave the host with TLS and the socket to different addresses, or use sslmode=prefer"
    )]
    SocketAndTls,
    /// A file cannot be read.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What it is to be.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is not what it is to be.
    #[error("{what} {}: {problem}", path.display())]
    NotPem {
        /// What it is to be.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Others can read a private key.
    #[error(
        "the key {} can be read by others (mode {mode:o}): chmod 600 it, or chmod 640 when root owns it", path.display()
    )]
    KeyIsOpen {
        /// Where it is.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The key does not belong to the certificate, or is of a kind that cannot be used.
    #[error("sslcert and sslkey cannot be used together: {0}")]
    ClientCertificate(rustls::Error),
    /// The system has no CAs.
    #[error(
        "this system has no CA certificates{problem}: install them (Debian: ca-certificates), or name the CA file of the \
         server with sslrootcert"
    )]
    NoSystemRoots {
        /// What was found wrong, if something was.
        problem: String,
    },
    /// The library refuses its own settings.
    #[error("TLS cannot be set up: {0}")]
    SetUp(rustls::Error),
}

impl AddressError {
    /// How an address is written, when that is the question.
    pub fn hint(&self) -> Option<&'static str> {
        matches!(self, Self::Unreadable)
            .then_some("postgres://user:password@host:5432/database, or host=.. user=.. dbname=..")
    }

    /// A file that cannot be read.
    pub(super) fn file(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { what, path: path.to_owned(), source }
    }

    /// A file that is something else.
    pub(super) fn not_pem(what: &'static str, path: &Path, problem: impl Into<String>) -> Self {
        Self::NotPem { what, path: path.to_owned(), problem: problem.into() }
    }
}

/// Why a TLS handshake failed.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The address says that there is no TLS.
    #[error("TLS was not set up for this connection")]
    Off,
    /// The name cannot stand in a certificate.
    #[error("the host is no name that a certificate can be for: use sslmode=verify-ca, or a name")]
    BadName,
    /// No trusted CA signed it.
    #[error(
        "its certificate is not signed by a CA that is trusted here: name the CA's file with sslrootcert; if you did, this \
         is another server, or it has got a certificate of another CA"
    )]
    UnknownIssuer,
    /// The certificate is for another name.
    #[error(
        "its certificate is not for the host {expected}, but for {presented}: use that name as the host, or \
         sslmode=verify-ca when the CA signs for nobody else"
    )]
    OtherName {
        /// The name that was asked for.
        expected: String,
        /// The names in the certificate.
        presented: String,
    },
    /// The certificate's time is over or has not come.
    #[error("its certificate is not valid now ({0}): renew it, or set the clock of this machine")]
    Time(rustls::CertificateError),
    /// A CA's certificate is used as a server's.
    #[error(
        "its certificate is one for a CA (`openssl req -x509` makes such): make one with \
         `-addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:HOST`, or use sslmode=require without \
         sslrootcert, which verifies nobody"
    )]
    IsCa,
    /// Another problem of TLS.
    #[error("{0}")]
    Tls(rustls::Error),
    /// The connection broke.
    #[error("the connection broke in the handshake ({0}): does the server speak TLS on this port?")]
    Io(io::Error),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) => error.clone().into(),
            None => Self::Io(error),
        }
    }
}

impl From<rustls::Error> for HandshakeError {
    fn from(error: rustls::Error) -> Self {
        use rustls::CertificateError as Certificate;
        let rustls::Error::InvalidCertificate(problem) = &error else { return Self::Tls(error) };
        match problem {
            Certificate::UnknownIssuer | Certificate::BadSignature => Self::UnknownIssuer,
            Certificate::NotValidForNameContext { expected, presented } => Self::OtherName {
                expected: expected.to_str().into_owned(),
                presented: if presented.is_empty() {
                    "no host at all (names in the subject alone do not count)".to_owned()
                } else {
                    presented.join(", ")
                },
            },
            Certificate::Expired
            | Certificate::ExpiredContext { .. }
            | Certificate::NotValidYet
            | Certificate::NotValidYetContext { .. } => Self::Time(problem.clone()),
            Certificate::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => Self::IsCa,
            _ => Self::Tls(error),
        }
    }
}
