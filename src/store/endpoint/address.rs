//! The operator's address: a URL or `key=value` pairs as libpq takes them, with the parameters of TLS.

use std::path::PathBuf;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::Endpoint;
use super::error::AddressError;
use super::files::{SYSTEM_ROOTS, set_up};
use super::mode::SslMode;
use super::text::split;

/// The parameters of TLS that are read here.
const OURS: [&str; 4] = ["sslmode", "sslrootcert", "sslcert", "sslkey"];

/// Parameters of libpq that have no meaning here. To pass them over could weaken what was asked for.
const UNSUPPORTED: [&str; 16] = [
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "passfile",
    "require_auth",
    "requirepeer",
    "requiressl",
    "scram_client_key",
    "scram_server_key",
    "service",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcertmode",
    "sslcrl",
    "sslcrldir",
    "sslpassword",
];

/// GSS encryption, which is not spoken here: it may be left off, not asked for.
const GSS: &str = "gssencmode";

/// What is said about TLS, in the address or beside it. `None` is not said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// `sslmode`.
    pub mode: Option<SslMode>,
    /// `sslrootcert`: the file of the CAs that are trusted, or `system`.
    pub root_cert: Option<String>,
    /// `sslcert`: the file of our certificate, with those between it and its CA.
    pub cert: Option<PathBuf>,
    /// `sslkey`: the file of its private key.
    pub key: Option<PathBuf>,
}

/// An address that was read and found to make sense. Its files are not read yet.
#[derive(Debug, Clone)]
pub struct Address {
    config: Config,
    options: TlsOptions,
    mode: SslMode,
}

impl Address {
    /// Reads an address; `beside` is what is said about TLS elsewhere.
    ///
    /// # Errors
    /// [`AddressError`], which never holds a part of the text.
    pub fn parse(text: &str, beside: &TlsOptions) -> Result<Self, AddressError> {
        let is_taken = |key: &str| OURS.contains(&key) || UNSUPPORTED.contains(&key) || key == GSS;
        let split = split(text, is_taken).ok_or(AddressError::Unreadable)?;
        let config: Config = split.rest.parse().map_err(|_| AddressError::Unreadable)?;
        let mut options = TlsOptions::default();
        for (key, value) in split.taken {
            options.take(&key, value)?;
        }
        let options = options.merge(beside)?;
        let mode = mode(&config, &options)?;
        Ok(Self { config, options, mode })
    }

    /// How much connections are protected.
    pub fn mode(&self) -> SslMode {
        self.mode
    }

    /// Reads the files that the address names.
    ///
    /// # Errors
    /// [`AddressError`] names the file and says what is wrong with it.
    pub fn endpoint(self) -> Result<Endpoint, AddressError> {
        let tls = set_up(self.mode, &self.options)?;
        Ok(Endpoint { config: self.config, tls })
    }
}

impl TlsOptions {
    fn take(&mut self, key: &str, value: String) -> Result<(), AddressError> {
        match key {
            "sslmode" => self.mode = Some(SslMode::from_name(&value).ok_or(AddressError::NoSuchMode)?),
            "sslrootcert" => self.root_cert = Some(value),
            "sslcert" => self.cert = Some(value.into()),
            "sslkey" => self.key = Some(value.into()),
            GSS if matches!(value.as_str(), "disable" | "prefer") => {}
            _ => {
                let known = UNSUPPORTED.into_iter().find(|known| *known == key);
                return Err(AddressError::Unsupported(known.unwrap_or(GSS)));
            }
        }
        Ok(())
    }

    /// These and those of another place, which may say more but not the same thing again.
    fn merge(self, other: &Self) -> Result<Self, AddressError> {
        fn one<T>(name: &'static str, a: Option<T>, b: Option<T>) -> Result<Option<T>, AddressError> {
            if a.is_some() && b.is_some() {
                return Err(AddressError::SaidTwice(name));
            }
            Ok(a.or(b))
        }
        let merged = Self {
            mode: one("sslmode", self.mode, other.mode)?,
            root_cert: one("sslrootcert", self.root_cert, other.root_cert.clone())?,
            cert: one("sslcert", self.cert, other.cert.clone())?,
            key: one("sslkey", self.key, other.key.clone())?,
        };
        if merged.cert.is_some() != merged.key.is_some() {
            return Err(AddressError::HalfAPair);
        }
        Ok(merged)
    }
}

/// The mode in force, as libpq has it: a CA file makes `require` verify, and the CAs of the system are for `verify-full`.
fn mode(config: &Config, options: &TlsOptions) -> Result<SslMode, AddressError> {
    let hosts = config.get_hosts();
    let is_socket = |host: &Host| matches!(host, Host::Unix(_));
    let has_addresses = !config.get_hostaddrs().is_empty();
    if !hosts.is_empty() && hosts.iter().all(is_socket) {
        // libpq passes sslmode over for a socket too.
        return Ok(SslMode::Disable);
    }
    let is_system = options.root_cert.as_deref() == Some(SYSTEM_ROOTS);
    let mode = match options.mode {
        // Naming CAs is asking for them.
        None if is_system => SslMode::VerifyFull,
        None if options.root_cert.is_some() => SslMode::for_hosts(hosts).max(SslMode::VerifyCa),
        None if hosts.is_empty() && has_addresses => {
            let addresses: Vec<_> =
                config.get_hostaddrs().iter().map(|address| Host::Tcp(address.to_string())).collect();
            // Without a name there is no TLS; what stays on this machine does without.
            match SslMode::for_hosts(&addresses) {
                SslMode::Prefer => SslMode::Disable,
                mode => mode,
            }
        }
        None => SslMode::for_hosts(hosts),
        Some(SslMode::Require) if options.root_cert.is_some() && !is_system => SslMode::VerifyCa,
        Some(mode) => mode,
    };
    let trusts_system = options.root_cert.is_none() || is_system;
    let weak = mode == SslMode::VerifyCa && trusts_system || is_system && mode < SslMode::VerifyFull;
    if weak {
        return Err(AddressError::WeakForSystemRoots { mode });
    }
    if mode != SslMode::Disable && hosts.is_empty() && has_addresses {
        return Err(AddressError::NoHostName);
    }
    if mode > SslMode::Prefer && hosts.iter().any(is_socket) {
        return Err(AddressError::SocketAndTls);
    }
    Ok(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SslMode, String> {
        Address::parse(text, &TlsOptions::default())
            .map(|address| address.mode())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_mode_is_what_libpq_would_take_or_stronger() {
        for (text, mode) in [
            ("postgres://db/app", SslMode::VerifyFull),
            ("postgres://localhost/app", SslMode::Prefer),
            ("host=/run/postgresql dbname=app", SslMode::Disable),
            ("host=/run/postgresql sslmode=verify-full", SslMode::Disable),
            ("postgres://db/app?sslmode=disable", SslMode::Disable),
            ("postgres://db/app?sslmode=prefer", SslMode::Prefer),
            ("postgres://db/app?sslmode=require", SslMode::Require),
            ("postgres://db/app?sslmode=require&sslrootcert=/ca.pem", SslMode::VerifyCa),
            ("postgres://localhost/app?sslrootcert=/ca.pem", SslMode::VerifyCa),
            ("postgres://db/app?sslrootcert=/ca.pem", SslMode::VerifyFull),
            ("postgres://localhost/app?sslrootcert=system", SslMode::VerifyFull),
            ("host=db sslmode=verify-ca sslrootcert='/the ca.pem'", SslMode::VerifyCa),
            ("hostaddr=127.0.0.1", SslMode::Disable),
            ("host=db hostaddr=10.0.0.1", SslMode::VerifyFull),
            ("postgres://db/app?gssencmode=disable&sslmode=verify-full", SslMode::VerifyFull),
        ] {
            assert_eq!(parse(text), Ok(mode), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_without_repeating_a_secret() {
        for (text, part) in [
            ("postgres://ann:s3cret@db/app?sslmode=verify-ca", "too weak"),
            ("postgres://ann:s3cret@db/app?sslmode=require&sslrootcert=system", "too weak"),
            ("postgres://ann:s3cret@db/app?sslmode=allow", "no such sslmode"),
            ("postgres://ann:s3cret@db/app?sslcert=/c.pem", "belong together"),
            ("postgres://ann:s3cret@db/app?sslpassword=s3cret", "sslpassword"),
            ("postgres://ann:s3cret@db/app?gssencmode=require", "gssencmode"),
            ("postgres://ann:s3cret@db/app?s3cret=1", "cannot be read"),
            ("hostaddr=10.0.0.1 password=s3cret", "name of the server"),
            ("host=db,/run/postgresql password=s3cret sslmode=require", "unix socket"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn the_configuration_adds_to_the_url_and_does_not_argue_with_it() {
        let beside = TlsOptions { root_cert: Some("/ca.pem".to_owned()), ..TlsOptions::default() };
        let address = Address::parse("postgres://db/app?sslmode=verify-ca", &beside).unwrap();
        assert_eq!(address.mode(), SslMode::VerifyCa);
        let twice = Address::parse("postgres://db/app?sslrootcert=/ca.pem", &beside).expect_err("said twice");
        assert!(twice.to_string().contains("sslrootcert"), "{twice}");
    }
}
