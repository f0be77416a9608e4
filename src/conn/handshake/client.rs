//! The initiator: sends HANDSHAKE_INIT, awaits HANDSHAKE_RESPONSE.

use super::{decryption, noise_parameters};
use crate::conn::{ApiMisuse, ClientConfig, ConnectionError, Entropy, Peer, record::RecordLayer};
use crate::noise::{HandshakeParameters, HandshakeState, Role, StaticSecret};
use crate::wire::{
    DecodeError, Suite,
    handshake::{
        Init, SERVER_HELLO_LEN, ServerHello, TYPE_RESPONSE, decode_refusal, noise_message_2_len, prologue,
    },
};
use std::sync::Arc;

/// Awaits HANDSHAKE_RESPONSE.
pub(in crate::conn) struct ExpectResponse {
    config: Arc<ClientConfig>,
    handshake: HandshakeState,
    suite: Suite,
}

/// The handshake is done.
pub(in crate::conn) struct Connected {
    pub(in crate::conn) records: RecordLayer,
    pub(in crate::conn) peer: Peer,
    pub(in crate::conn) hello: ServerHello,
}

impl ExpectResponse {
    /// Starts a handshake: gives the state and the body of HANDSHAKE_INIT.
    pub(in crate::conn) fn start(
        config: Arc<ClientConfig>,
        entropy: Entropy,
    ) -> Result<(Self, Vec<u8>), ApiMisuse> {
        const BROKEN: ApiMisuse = ApiMisuse::Configuration("the keys do not fit the suite");
        config.check()?;
        let suite = config.suite_in_use().ok_or(BROKEN)?;
        let (pattern, cipher) = noise_parameters(suite).ok_or(BROKEN)?;
        let name = suite.pattern_name().unwrap_or_default();
        let server_key = if name == "NX" { None } else { config.server_key };
        let key_id = server_key.map_or([0; 8], |key| key.key_id());
        let mut init = Init::encode_head(suite, key_id, &config.suites);
        let mut handshake = HandshakeState::new(HandshakeParameters {
            provider: config.provider,
            pattern,
            cipher,
            role: Role::Initiator,
            prologue: &prologue(&init),
            s: if name.starts_with("IK") { config.identity.as_ref() } else { None },
            e: StaticSecret::from_bytes(entropy.ephemeral),
            rs: server_key,
            psks: if name.ends_with("psk2") { config.psk.as_slice() } else { &[] },
        })
        .map_err(|_| BROKEN)?;
        handshake.write_message(&[], &mut init).map_err(|_| BROKEN)?;
        Ok((Self { config, handshake, suite }, init))
    }

    /// Takes the first record of the server.
    pub(in crate::conn) fn handle(mut self, body: &[u8]) -> Result<Connected, ConnectionError> {
        if let Some(code) = decode_refusal(body) {
            return Err(ConnectionError::Refused(code));
        }
        let noise_message = match body.split_first() {
            Some((&TYPE_RESPONSE, rest)) if Some(rest.len()) == noise_message_2_len(self.suite) => rest,
            _ => return Err(DecodeError::InvalidValue("HANDSHAKE_RESPONSE").into()),
        };
        let mut payload = Vec::with_capacity(SERVER_HELLO_LEN);
        self.handshake.read_message(noise_message, &mut payload).map_err(decryption)?;
        let hello = ServerHello::decode(&payload)?;
        self.check_downgrade(&hello)?;
        let transport = self.handshake.into_transport().map_err(decryption)?;
        let key = transport.remote_static.or(self.config.server_key);
        // NX takes any key. A client that knows the server must not end up with another one because somebody refused
        // every other suite.
        if self.config.server_key.is_some() && key != self.config.server_key {
            return Err(ConnectionError::Decryption);
        }
        let peer = Peer {
            key,
            suite: self.suite,
            handshake_hash: transport.handshake_hash,
            connection_id: hello.connection_id,
        };
        let records = RecordLayer::from_transport(transport, &self.config.limits);
        Ok(Connected { records, peer, hello })
    }

    /// The first suite of our own list that the server takes must be the one in use: whoever forged a refusal of it
    /// cannot forge the encrypted list.
    fn check_downgrade(&self, hello: &ServerHello) -> Result<(), ConnectionError> {
        let best = self.config.suites.iter().find(|suite| hello.suites.contains(suite));
        if best == Some(&self.suite) { Ok(()) } else { Err(ConnectionError::Downgrade) }
    }
}
