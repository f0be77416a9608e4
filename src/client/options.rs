//! How to connect, and as whom.

use super::reconnect::ReconnectPolicy;
use super::retry::{RetryBudget, RetryPolicy};
use super::{IdempotencyKey, ServerUrl};
use crate::conn::{ClientConfig, Limits};
use crate::noise::{CryptoProvider, Psk, PublicKey, StaticSecret};
use crate::wire::Suite;
use std::time::Duration;

/// A first contact over a bad mobile network still fits; a person waits no longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What most servers give a statement.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Which ciphers to offer, best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CipherPreference {
    /// ChaCha20-Poly1305, then AES-256-GCM: fast everywhere, and constant in time without hardware.
    #[default]
    ChaChaFirst,
    /// AES-256-GCM, then ChaCha20-Poly1305: for machines with AES instructions on both sides.
    AesFirst,
    /// ChaCha20-Poly1305 alone.
    ChaChaOnly,
    /// AES-256-GCM alone.
    AesOnly,
}

impl CipherPreference {
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::ChaChaFirst => &["ChaChaPoly", "AESGCM"],
            Self::AesFirst => &["AESGCM", "ChaChaPoly"],
            Self::ChaChaOnly => &["ChaChaPoly"],
            Self::AesOnly => &["AESGCM"],
        }
    }
}

/// How to connect. `Options::default()` is right for a URL with a key and an anonymous client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// This client's key: proves to the server who it is (patterns IK, IKpsk2). `None`: anonymous (NK, NKpsk2).
    pub identity: Option<StaticSecret>,
    /// A secret shared with the server, mixed into the handshake (patterns IKpsk2, NKpsk2).
    pub psk: Option<Psk>,
    /// For a URL without a key: take the key that the server shows at the first contact, and insist on it as long as
    /// this client lives. [`ConnectionInfo::server_key`](super::ConnectionInfo::server_key) tells it.
    pub trust_on_first_use: bool,
    /// Which ciphers to offer.
    pub ciphers: CipherPreference,
    /// For one attempt: name, TCP, WebSocket and handshake.
    pub connect_timeout: Duration,
    /// For a call that sets none: from the moment it is made to its answer, reconnecting included.
    pub call_timeout: Duration,
    /// What happens when the connection is lost; `None`: the client is over.
    pub reconnect: Option<ReconnectPolicy>,
    /// For a call that sets none: how it is sent again when it fails and that is safe. Methods that only read are
    /// repeated, writes only with an idempotency key.
    pub retry: RetryPolicy,
    /// How many retries all calls may make together.
    pub retry_budget: RetryBudget,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            identity: None,
            psk: None,
            trust_on_first_use: false,
            ciphers: CipherPreference::default(),
            connect_timeout: CONNECT_TIMEOUT,
            call_timeout: CALL_TIMEOUT,
            reconnect: Some(ReconnectPolicy::default()),
            retry: RetryPolicy::default(),
            retry_budget: RetryBudget::default(),
        }
    }
}

impl Options {
    /// Suites to offer, best first: the one pattern that uses everything that is known, and nothing weaker beside it.
    pub(super) fn suites(&self, has_server_key: bool) -> Vec<Suite> {
        let pattern = match (has_server_key, self.identity.is_some(), self.psk.is_some()) {
            (false, ..) => "NX",
            (true, false, false) => "NK",
            (true, true, false) => "IK",
            (true, false, true) => "NKpsk2",
            (true, true, true) => "IKpsk2",
        };
        let suite_of = |cipher: &&str| {
            let fits = |suite: &&Suite| {
                suite.pattern_name() == Some(pattern) && suite.cipher_name() == Some(*cipher)
            };
            Suite::ALL.iter().find(fits).copied()
        };
        self.ciphers.names().iter().filter_map(suite_of).collect()
    }

    /// What the handshake is made of. Without the server's key nothing of this client's secrets goes into it.
    pub(super) fn config(
        &self,
        server_key: Option<PublicKey>,
        suites: Vec<Suite>,
        suite: Suite,
    ) -> ClientConfig {
        let knows_server = server_key.is_some();
        ClientConfig {
            provider: provider(),
            suites,
            suite: Some(suite),
            server_key,
            identity: self.identity.clone().filter(|_| knows_server),
            psk: self.psk.clone().filter(|_| knows_server),
            limits: Limits::default(),
        }
    }

    /// Refuses a URL without a key, unless the first answer is to be trusted.
    pub(super) fn check(&self, url: &ServerUrl) -> Result<(), super::Error> {
        if !self.trust_on_first_use {
            url.require_key()?;
        }
        Ok(())
    }
}

/// The faster provider where it is part of the build.
pub(super) fn provider() -> &'static dyn CryptoProvider {
    #[cfg(feature = "server")]
    return crate::noise::aws_lc();
    #[cfg(not(feature = "server"))]
    return crate::noise::rust_crypto();
}

/// What one call asks for beyond its method and arguments.
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    /// From now to the answer, reconnecting and retries included; `None` is [`Options::call_timeout`]. The server gets
    /// what is left of it as the call's deadline.
    pub timeout: Option<Duration>,
    /// Names the call, so that it may be sent again: given, or drawn by [`IdempotencyKey::random`]. All attempts have the
    /// same one.
    pub idempotency_key: Option<IdempotencyKey>,
    /// At most 32 pairs that travel with the call, of at most 1,024 bytes each key and value.
    pub metadata: Vec<(String, String)>,
    /// Ask the server how long each stage took: [`Response::trailers`](super::Response::trailers) then has the times in
    /// microseconds, as `time-queue-us`, `time-crypto-us`, `time-dispatch-us` and `time-database-us`.
    pub times: bool,
    /// How the call is sent again when it fails; `None` is [`Options::retry`].
    pub retry: Option<RetryPolicy>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_uses_everything_that_is_known() {
        let mut options = Options::default();
        assert_eq!(options.suites(false), [Suite::NX_CHACHAPOLY, Suite::NX_AESGCM]);
        assert_eq!(options.suites(true), [Suite::NK_CHACHAPOLY, Suite::NK_AESGCM]);
        options.ciphers = CipherPreference::AesFirst;
        options.identity = Some(StaticSecret::from_bytes([1; 32]));
        assert_eq!(options.suites(true), [Suite::IK_AESGCM, Suite::IK_CHACHAPOLY]);
        options.ciphers = CipherPreference::AesOnly;
        options.psk = Some(Psk::from_bytes([2; 32]));
        assert_eq!(options.suites(true), [Suite::IKPSK2_AESGCM]);
        options.identity = None;
        assert_eq!(options.suites(true), [Suite::NKPSK2_AESGCM]);
        // A server that is not known yet is shown neither the identity nor anything made of the shared secret.
        assert_eq!(options.suites(false), [Suite::NX_AESGCM]);
        assert!(options.config(None, options.suites(false), Suite::NX_AESGCM).psk.is_none());
    }

    #[test]
    fn every_choice_makes_a_configuration_that_works() {
        for (identity, psk, key) in (0..8_u8).map(|n| (n & 1 != 0, n & 2 != 0, n & 4 != 0)) {
            let options = Options {
                identity: identity.then(|| StaticSecret::from_bytes([1; 32])),
                psk: psk.then(|| Psk::from_bytes([2; 32])),
                ..Options::default()
            };
            let server_key = key.then_some(PublicKey([9; 32]));
            let suites = options.suites(key);
            let config = options.config(server_key, suites.clone(), suites[1]);
            assert_eq!(config.check(), Ok(()), "{identity} {psk} {key}");
        }
    }
}
