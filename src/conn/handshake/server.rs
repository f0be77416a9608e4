//! The responder: awaits HANDSHAKE_INIT, answers with HANDSHAKE_RESPONSE.

use super::{decryption, noise_parameters};
use crate::conn::{ConnectionError, Entropy, Peer, ServerConfig, record::RecordLayer};
use crate::noise::{HandshakeParameters, HandshakeState, Role, StaticSecret};
use crate::wire::{
    handshake::{Init, ServerHello, TYPE_RESPONSE, prologue},
    limits::MESSAGE_MAX,
};
use std::{sync::Arc, time::Duration};

/// Awaits HANDSHAKE_INIT.
pub(in crate::conn) struct ExpectInit {
    config: Arc<ServerConfig>,
    entropy: Entropy,
}

/// The handshake is done. The peer's identity counts only when its first record decrypts.
pub(in crate::conn) struct Accepted {
    /// The record body to send.
    pub(in crate::conn) response: Vec<u8>,
    pub(in crate::conn) records: RecordLayer,
    pub(in crate::conn) peer: Peer,
}

impl ExpectInit {
    pub(in crate::conn) fn new(config: Arc<ServerConfig>, entropy: Entropy) -> Self {
        Self { config, entropy }
    }

    pub(in crate::conn) fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Takes the first record of the client.
    pub(in crate::conn) fn handle(self, body: &[u8]) -> Result<Accepted, ConnectionError> {
        let config = &self.config;
        let init = Init::decode(body)?;
        let suite = init.suite;
        if !config.suites.contains(&suite) {
            return Err(ConnectionError::UnsupportedSuite(suite.0));
        }
        let (pattern, cipher) = noise_parameters(suite).ok_or(ConnectionError::UnsupportedSuite(suite.0))?;
        let identity = self.identity(init.key_id)?;
        let psks = config.psk.as_slice();
        let mut handshake = HandshakeState::new(HandshakeParameters {
            provider: config.provider,
            pattern,
            cipher,
            role: Role::Responder,
            prologue: &prologue(init.head),
            s: Some(identity),
            e: StaticSecret::from_bytes(self.entropy.ephemeral),
            rs: None,
            psks: if suite.pattern_name().is_some_and(|name| name.ends_with("psk2")) { psks } else { &[] },
        })
        .map_err(decryption)?;
        let mut payload = Vec::new();
        handshake.read_message(init.noise_message, &mut payload).map_err(decryption)?;
        let mut response = vec![TYPE_RESPONSE];
        handshake.write_message(&self.hello().encode(), &mut response).map_err(decryption)?;
        let transport = handshake.into_transport().map_err(decryption)?;
        let peer = Peer {
            key: transport.remote_static,
            suite,
            handshake_hash: transport.handshake_hash,
            connection_id: self.entropy.connection_id,
        };
        let records = RecordLayer::from_transport(transport, &config.limits);
        Ok(Accepted { response, records, peer })
    }

    /// The key that `key_id` names; NX names none and gets the current one.
    fn identity(&self, key_id: [u8; 8]) -> Result<&StaticSecret, ConnectionError> {
        let provider = self.config.provider;
        let mut identities = self.config.identities.iter();
        if key_id == [0; 8] {
            return identities.next().ok_or(ConnectionError::UnknownKey);
        }
        identities
            .find(|identity| identity.public_key(provider).key_id() == key_id)
            .ok_or(ConnectionError::UnknownKey)
    }

    fn hello(&self) -> ServerHello {
        let limits = &self.config.limits;
        let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        ServerHello {
            suites: self.config.suites.clone(),
            server_time_ms: self.entropy.server_time_ms,
            message_max: u32::try_from(MESSAGE_MAX).expect("a mebibyte fits u32"),
            calls_max: limits.calls_max,
            subscriptions_max: limits.subscriptions_max,
            heartbeat_ms: millis(limits.heartbeat_interval),
            idle_timeout_ms: millis(limits.idle_timeout),
            connection_id: self.entropy.connection_id,
        }
    }
}
