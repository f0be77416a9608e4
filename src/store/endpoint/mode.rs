//! How much a connection is protected: libpq's `sslmode`, with libpq's meanings.

use std::fmt;

use serde::{Deserialize, Serialize};
use tokio_postgres::config::Host;

/// How much a connection is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// In the clear.
    #[default]
    Disable,
    /// TLS when the server has it, else in the clear: no protection from an attacker on the path.
    Prefer,
    /// TLS to whoever answers: protection from listeners only. With a CA file it is [`SslMode::VerifyCa`], as in libpq.
    Require,
    /// TLS, and a CA that is trusted signed the certificate.
    VerifyCa,
    /// TLS, and the certificate is for the host that was named.
    VerifyFull,
}

impl SslMode {
    /// All of them, weakest first.
    pub const ALL: [Self; 5] = [Self::Disable, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];

    /// The name in a URL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    /// The mode of a name. `allow`, which begins in the clear, is not offered.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// The mode for an address that does not say: what crosses a network is protected in full, what stays on this machine
    /// as the server likes.
    pub(super) fn for_hosts(hosts: &[Host]) -> Self {
        if hosts.iter().all(|host| matches!(host, Host::Unix(_))) {
            Self::Disable
        } else if hosts.iter().all(is_here) {
            Self::Prefer
        } else {
            Self::VerifyFull
        }
    }
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a host is this machine, whatever a name server says.
fn is_here(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) if name.eq_ignore_ascii_case("localhost") => true,
        Host::Tcp(name) => {
            name.parse().is_ok_and(|address: std::net::IpAddr| address.to_canonical().is_loopback())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_crosses_a_network_is_verified_in_full_unless_told_otherwise() {
        let tcp = |name: &str| Host::Tcp(name.to_owned());
        let unix = || Host::Unix("/run/postgresql".into());
        assert_eq!(SslMode::for_hosts(&[unix()]), SslMode::Disable);
        for here in ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(SslMode::for_hosts(&[tcp(here), unix()]), SslMode::Prefer, "{here}");
        }
        for far in ["db", "10.0.0.1", "localhost.example.com", "0.0.0.0"] {
            assert_eq!(SslMode::for_hosts(&[tcp("localhost"), tcp(far)]), SslMode::VerifyFull, "{far}");
        }
    }

    #[test]
    fn names_are_those_of_libpq_and_of_the_configuration() {
        for mode in SslMode::ALL {
            assert_eq!(SslMode::from_name(mode.name()), Some(mode));
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.name());
        }
        assert_eq!(SslMode::from_name("allow"), None);
    }
}
