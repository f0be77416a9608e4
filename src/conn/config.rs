//! What a connection is made of: keys, suites, limits, and the randomness of one handshake.

use crate::noise::{CryptoProvider, Psk, PublicKey, StaticSecret};
use crate::wire::{Suite, limits};
use std::time::Duration;
use zeroize::Zeroize;

/// How records are cut on the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A byte stream: each body has its length in front.
    Stream,
    /// Messages: each message is one body (WebSocket).
    Messages,
}

/// The randomness of one handshake, and what the server says of this connection. Fresh for each connection.
pub struct Entropy {
    /// The ephemeral secret: 32 bytes from the system's generator.
    pub ephemeral: [u8; 32],
    /// Names the connection (server only); also spreads the age at which keys are renewed.
    pub connection_id: [u8; 16],
    /// The server's clock in milliseconds since 1970 (server only).
    pub server_time_ms: u64,
}

impl Drop for Entropy {
    fn drop(&mut self) {
        self.ephemeral.zeroize();
    }
}

/// Limits and timers of one side. The defaults are those of [`crate::wire::limits`].
#[derive(Clone, Debug)]
pub struct Limits {
    /// Calls in flight.
    pub calls_max: u16,
    /// Subscriptions.
    pub subscriptions_max: u16,
    /// From the start to the first transport record.
    pub handshake_deadline: Duration,
    /// Silence of this side after which it sends a HEARTBEAT.
    pub heartbeat_interval: Duration,
    /// Silence of the peer after which it is given up.
    pub idle_timeout: Duration,
    /// Age at which the server asks for new keys.
    pub key_age_max: Duration,
    /// Records after which a direction's key is replaced; the specification fixes it.
    pub(crate) rekey_interval_records: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls_max: limits::CALLS_MAX,
            subscriptions_max: limits::SUBSCRIPTIONS_MAX,
            handshake_deadline: limits::HANDSHAKE_DEADLINE,
            heartbeat_interval: limits::HEARTBEAT_INTERVAL,
            idle_timeout: limits::IDLE_TIMEOUT,
            key_age_max: limits::KEY_AGE_MAX,
            rekey_interval_records: limits::REKEY_INTERVAL_RECORDS,
        }
    }
}

impl Limits {
    /// A timer of zero would be due for ever.
    fn check(&self) -> Result<(), super::ApiMisuse> {
        use super::ApiMisuse::Configuration;
        if self.heartbeat_interval.is_zero() || self.heartbeat_interval >= self.idle_timeout {
            return Err(Configuration(
                "the heartbeat interval is zero, or not shorter than the idle timeout",
            ));
        }
        if self.handshake_deadline.is_zero() || self.key_age_max.is_zero() {
            return Err(Configuration("the handshake deadline or the age of keys is zero"));
        }
        Ok(())
    }
}

/// The server's side of every handshake.
#[derive(Debug)]
pub struct ServerConfig {
    /// Ciphers and X25519.
    pub provider: &'static dyn CryptoProvider,
    /// Keys the server answers for: the current one first, then those that are being retired.
    pub identities: Vec<StaticSecret>,
    /// Suites it takes, 1 to 14. Those with psk2 need `psk`.
    pub suites: Vec<Suite>,
    /// The secret shared with clients of the psk2 suites.
    pub psk: Option<Psk>,
    /// Limits and timers.
    pub limits: Limits,
}

/// The client's side of a handshake.
#[derive(Debug)]
pub struct ClientConfig {
    /// Ciphers and X25519.
    pub provider: &'static dyn CryptoProvider,
    /// Suites it would take, best first, 1 to 8; the first one is used.
    pub suites: Vec<Suite>,
    /// The suite to use, when it is not the first of `suites`: after a server said that it does not take that one.
    pub suite: Option<Suite>,
    /// The server's key; `None` only with NX suites.
    pub server_key: Option<PublicKey>,
    /// This client's key; needed by IK suites.
    pub identity: Option<StaticSecret>,
    /// The shared secret of the psk2 suites.
    pub psk: Option<Psk>,
    /// Limits and timers.
    pub limits: Limits,
}

impl ServerConfig {
    /// Says whether connections can be made with this.
    ///
    /// # Errors
    /// No key, no suite, too many suites, an unknown suite, a psk suite without the psk, or timers of zero.
    pub fn check(&self) -> Result<(), super::ApiMisuse> {
        use super::ApiMisuse::Configuration;
        if self.identities.is_empty() {
            return Err(Configuration("a server needs a key"));
        }
        if self.suites.is_empty() || self.suites.len() > limits::SERVER_SUITES_MAX {
            return Err(Configuration("a server needs 1 to 14 suites"));
        }
        self.limits.check()?;
        check_suites(&self.suites, self.psk.is_some())
    }

    /// Remembers a client that proved its key and is let in: its next handshakes cost one computation less
    /// ([`StaticSecret::remember_peer`]). It is for the current key alone; those that are being retired go without.
    pub fn remember_peer(&self, peer: &PublicKey) {
        if let Some(current) = self.identities.first() {
            current.remember_peer(self.provider, peer);
        }
    }

    /// Forgets every client: to be called when it changes who is let in.
    pub fn forget_peers(&self) {
        self.identities.iter().for_each(StaticSecret::forget_peers);
    }
}

impl ClientConfig {
    /// Says whether a connection can be made with this.
    ///
    /// # Errors
    /// Suites that need a key or psk that is not there, none or too many of them, a `suite` that is not among them, or
    /// timers of zero.
    pub fn check(&self) -> Result<(), super::ApiMisuse> {
        use super::ApiMisuse::Configuration;
        if self.suites.is_empty() || self.suites.len() > limits::OFFERED_SUITES_MAX {
            return Err(Configuration("a client offers 1 to 8 suites"));
        }
        if self.suite.is_some_and(|suite| !self.suites.contains(&suite)) {
            return Err(Configuration("the suite to use is not among the suites offered"));
        }
        let pattern_is =
            |suite: &Suite, name: &str| suite.pattern_name().is_some_and(|p| p.starts_with(name));
        if self.suites.iter().any(|suite| pattern_is(suite, "IK")) && self.identity.is_none() {
            return Err(Configuration("an IK suite needs a key of the client"));
        }
        if self.suites.iter().any(|suite| !pattern_is(suite, "NX")) && self.server_key.is_none() {
            return Err(Configuration("every suite but NX needs the server's key"));
        }
        self.limits.check()?;
        check_suites(&self.suites, self.psk.is_some())
    }

    /// The suite that HANDSHAKE_INIT will use.
    pub fn suite_in_use(&self) -> Option<Suite> {
        self.suite.or_else(|| self.suites.first().copied())
    }
}

fn check_suites(suites: &[Suite], has_psk: bool) -> Result<(), super::ApiMisuse> {
    use super::ApiMisuse::Configuration;
    for (index, suite) in suites.iter().enumerate() {
        let Some(pattern) = suite.pattern_name() else { return Err(Configuration("a suite is unknown")) };
        if pattern.ends_with("psk2") && !has_psk {
            return Err(Configuration("a psk2 suite needs the shared secret"));
        }
        if suites[..index].contains(suite) {
            return Err(Configuration("a suite is named twice"));
        }
    }
    Ok(())
}
