//! `HandshakeState`, section 5.3 of the specification.

use std::fmt;

use zeroize::Zeroize;

use super::cipher_state::CipherState;
use super::keys::{Psk, PublicKey, StaticSecret};
use super::pattern::{HandshakePattern, Pattern, Token};
use super::provider::{CipherAlgorithm, CryptoProvider};
use super::symmetric_state::SymmetricState;
use super::{DHLEN, HASHLEN, MAX_MESSAGE_LEN, NoiseError};

/// Which end of the handshake this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The side that sends the first message: the client.
    Initiator,
    /// The other side: the server.
    Responder,
}

/// What `Initialize` takes (section 5.3). `P` is [`Pattern`], or a `&'static` [`HandshakePattern`] in conformance
/// tests.
#[derive(Debug)]
pub struct HandshakeParameters<'a, P = Pattern> {
    /// Who computes.
    pub provider: &'static dyn CryptoProvider,
    /// The pattern.
    pub pattern: P,
    /// The cipher.
    pub cipher: CipherAlgorithm,
    /// Which side this is.
    pub role: Role,
    /// What both sides must agree on beforehand (section 6): if it differs, the first encrypted text fails.
    pub prologue: &'a [u8],
    /// Our static key, if and only if the pattern uses one on our side.
    pub s: Option<&'a StaticSecret>,
    /// Our ephemeral key: 32 bytes that were just drawn and are used for this handshake alone.
    pub e: StaticSecret,
    /// The peer's static key, if and only if the pattern presumes it known.
    pub rs: Option<PublicKey>,
    /// The pre-shared keys in the order of the pattern's `psk` tokens.
    pub psks: &'a [Psk],
}

/// A handshake under way (section 5.3). It starts with the initiator's turn; every error ends it for good.
pub struct HandshakeState {
    provider: &'static dyn CryptoProvider,
    pattern: &'static HandshakePattern,
    role: Role,
    symmetric_state: SymmetricState,
    s: Option<StaticSecret>,
    e: StaticSecret,
    rs: Option<PublicKey>,
    re: Option<PublicKey>,
    /// The pre-shared keys not used yet, the next one last.
    psks: Vec<Psk>,
    /// Whether the pattern has a `psk` token: then `e` tokens also call `MixKey` (section 9.2).
    is_psk: bool,
    /// Index of the next message of the pattern.
    next_message: usize,
    failed: bool,
    /// The peer whose `ss` was remembered and so not computed in this message.
    spared: Option<PublicKey>,
}

/// What a finished handshake leaves: the result of `Split()` and what it proved.
#[derive(Debug)]
pub struct Transport {
    /// The cipher of what we send.
    pub send: CipherState,
    /// The cipher of what we receive.
    pub receive: CipherState,
    /// `h`, the channel binding (section 11.2): equal on both sides, unique to this connection, not secret.
    pub handshake_hash: [u8; HASHLEN],
    /// The peer's static key, if the pattern has one. After the second message of `IK` the responder holds no proof
    /// yet that its peer is alive: the first transport message that decrypts is the proof.
    pub remote_static: Option<PublicKey>,
}

impl HandshakeState {
    /// `Initialize(handshake_pattern, initiator, prologue, s, e, rs, re)` (section 5.3). No public ephemeral key is
    /// ever known beforehand (`re`): that is for the fallback of compound protocols, which raystream has not.
    ///
    /// # Errors
    ///
    /// When a key of the pattern is missing, or one is given that it does not use.
    pub fn new<P: Into<&'static HandshakePattern>>(
        parameters: HandshakeParameters<'_, P>,
    ) -> Result<Self, NoiseError> {
        let HandshakeParameters { provider, pattern, cipher, role, prologue, s, e, rs, psks } = parameters;
        let pattern = pattern.into();
        check_keys(pattern, role, s, rs, psks)?;

        let mut symmetric_state =
            SymmetricState::new(provider, cipher, pattern.protocol_name(cipher).as_bytes());
        symmetric_state.mix_hash(prologue);
        // The pre-messages: the initiator's first.
        let ours = s.map(|s| s.public_key(provider));
        let (initiator, responder) = match role {
            Role::Initiator => (ours, rs),
            Role::Responder => (rs, ours),
        };
        for known in
            [initiator.filter(|_| pattern.initiator_known), responder.filter(|_| pattern.responder_known)]
                .into_iter()
                .flatten()
        {
            symmetric_state.mix_hash(known.as_bytes());
        }

        Ok(HandshakeState {
            provider,
            pattern,
            role,
            symmetric_state,
            s: s.cloned(),
            e,
            rs,
            re: None,
            psks: psks.iter().rev().cloned().collect(),
            is_psk: !psks.is_empty(),
            next_message: 0,
            failed: false,
            spared: None,
        })
    }

    /// `WriteMessage(payload, message_buffer)`: appends the next message to `out`.
    ///
    /// # Errors
    ///
    /// [`NoiseError`]; `out` is as long as before then.
    pub fn write_message(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), NoiseError> {
        let tokens = self.take_turn(true)?;
        let start = out.len();
        let written = self.write_tokens(tokens, payload, start, out);
        self.conclude(written, start, out)
    }

    /// `ReadMessage(message, payload_buffer)`: takes the peer's next message and appends its payload to
    /// `payload_out`.
    ///
    /// # Errors
    ///
    /// [`NoiseError`]; `payload_out` is as long as before then.
    pub fn read_message(&mut self, message: &[u8], payload_out: &mut Vec<u8>) -> Result<(), NoiseError> {
        let tokens = self.take_turn(false)?;
        let start = payload_out.len();
        self.spared = None;
        let read = self.read_tokens(tokens, message, payload_out).map_err(|error| match error {
            NoiseError::Dh => NoiseError::Decrypt,
            error => error,
        });
        let spared = self.spared.take();
        if read.is_err()
            && let (Some(peer), Some(s)) = (spared, &self.s)
        {
            // Who only names a key and cannot use it would learn from the time of the refusal whether the key has been here.
            // So a refusal takes the time of a key that has not.
            let _unused = s.dh(self.provider, &peer);
        }
        self.conclude(read, start, payload_out)
    }

    /// Whether the last message of the pattern has been written or read.
    pub fn is_finished(&self) -> bool {
        !self.failed && self.next_message == self.pattern.messages.len()
    }

    /// The peer's static key, as soon as it is known. What that proves depends on the pattern and on how far the
    /// handshake is (section 7.7).
    pub fn remote_static(&self) -> Option<PublicKey> {
        self.rs
    }

    /// `Split()`: the ciphers of the transport.
    ///
    /// With a one-way pattern (none of ours) the responder must never send (section 7.4).
    ///
    /// # Errors
    ///
    /// [`NoiseError::NotFinished`], or [`NoiseError::Failed`] after an error.
    pub fn into_transport(self) -> Result<Transport, NoiseError> {
        if self.failed {
            return Err(NoiseError::Failed);
        }
        if !self.is_finished() {
            return Err(NoiseError::NotFinished);
        }
        let [initiator, responder] = self.symmetric_state.split();
        let (send, receive) = match self.role {
            Role::Initiator => (initiator, responder),
            Role::Responder => (responder, initiator),
        };
        let handshake_hash = self.symmetric_state.handshake_hash();
        Ok(Transport { send, receive, handshake_hash, remote_static: self.rs })
    }

    /// The tokens of the next message, if it is ours to write (or to read).
    fn take_turn(&self, writing: bool) -> Result<&'static [Token], NoiseError> {
        if self.failed {
            return Err(NoiseError::Failed);
        }
        let tokens = *self.pattern.messages.get(self.next_message).ok_or(NoiseError::Finished)?;
        let initiator_writes = self.next_message.is_multiple_of(2);
        let ours = initiator_writes == (self.role == Role::Initiator);
        if ours == writing { Ok(tokens) } else { Err(NoiseError::OutOfTurn) }
    }

    /// Goes on to the next message, or ends the handshake and takes back what was appended.
    fn conclude(
        &mut self,
        result: Result<(), NoiseError>,
        start: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), NoiseError> {
        match result {
            Ok(()) => self.next_message += 1,
            Err(_) => {
                self.failed = true;
                out[start..].zeroize();
                out.truncate(start);
            }
        }
        result
    }

    fn write_tokens(
        &mut self,
        tokens: &[Token],
        payload: &[u8],
        start: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), NoiseError> {
        for token in tokens {
            match token {
                Token::E => {
                    let public = self.e.public_key(self.provider);
                    out.extend_from_slice(public.as_bytes());
                    self.mix_ephemeral(public);
                }
                Token::S => {
                    let public = self.local_static()?.public_key(self.provider);
                    self.symmetric_state.encrypt_and_hash(public.as_bytes(), out)?;
                }
                token => self.mix_token(*token)?,
            }
        }
        let length = out.len() - start + self.symmetric_state.overhead();
        if payload.len() > MAX_MESSAGE_LEN.saturating_sub(length) {
            return Err(NoiseError::MessageTooLong);
        }
        Ok(self.symmetric_state.encrypt_and_hash(payload, out)?)
    }

    fn read_tokens(
        &mut self,
        tokens: &[Token],
        message: &[u8],
        payload_out: &mut Vec<u8>,
    ) -> Result<(), NoiseError> {
        if message.len() > MAX_MESSAGE_LEN {
            return Err(NoiseError::MessageTooLong);
        }
        let mut rest = message;
        for token in tokens {
            match token {
                Token::E => {
                    let (public, after) = rest.split_first_chunk().ok_or(NoiseError::MessageTooShort)?;
                    rest = after;
                    self.re = Some(PublicKey(*public));
                    self.mix_ephemeral(PublicKey(*public));
                }
                Token::S => {
                    let length = DHLEN + self.symmetric_state.overhead();
                    let (encrypted, after) =
                        rest.split_at_checked(length).ok_or(NoiseError::MessageTooShort)?;
                    rest = after;
                    let mut public = Vec::with_capacity(DHLEN);
                    self.symmetric_state.decrypt_and_hash(encrypted, &mut public)?;
                    let public = <[u8; DHLEN]>::try_from(public).map_err(|_| NoiseError::MessageTooShort)?;
                    self.rs = Some(PublicKey(public));
                }
                token => self.mix_token(*token)?,
            }
        }
        self.symmetric_state.decrypt_and_hash(rest, payload_out)
    }

    /// An `e` token of either side, with its addition for pre-shared keys (section 9.2).
    fn mix_ephemeral(&mut self, public: PublicKey) {
        self.symmetric_state.mix_hash(public.as_bytes());
        if self.is_psk {
            self.symmetric_state.mix_key(public.as_bytes());
        }
    }

    /// The tokens that both sides treat alike: Diffie-Hellman and pre-shared keys.
    fn mix_token(&mut self, token: Token) -> Result<(), NoiseError> {
        let initiator = self.role == Role::Initiator;
        // The first letter of a Diffie-Hellman token is the initiator's key, the second the responder's.
        let (local_is_static, remote_is_static) = match token {
            Token::Ee => (false, false),
            Token::Ss => (true, true),
            Token::Es => (!initiator, initiator),
            Token::Se => (initiator, !initiator),
            Token::Psk => {
                let psk = self.psks.pop().expect("Initialize counted the pre-shared keys");
                self.symmetric_state.mix_key_and_hash(psk.as_bytes());
                return Ok(());
            }
            Token::E | Token::S => unreachable!("write_tokens and read_tokens take these two themselves"),
        };
        let local = if local_is_static { self.local_static()? } else { &self.e };
        let remote = if remote_is_static { self.rs } else { self.re };
        let remote = remote.ok_or(NoiseError::MissingRemoteStatic)?;
        let known = if token == Token::Ss { local.known_dh(&remote) } else { None };
        let is_known = known.is_some();
        let shared = match known {
            Some(shared) => shared,
            None => local.dh(self.provider, &remote)?,
        };
        if is_known {
            self.spared = Some(remote);
        }
        self.symmetric_state.mix_key(shared.as_slice());
        Ok(())
    }

    fn local_static(&self) -> Result<&StaticSecret, NoiseError> {
        self.s.as_ref().ok_or(NoiseError::MissingLocalStatic)
    }
}

/// Whether the keys given are those of the pattern, no fewer and no more.
fn check_keys(
    pattern: &HandshakePattern,
    role: Role,
    s: Option<&StaticSecret>,
    rs: Option<PublicKey>,
    psks: &[Psk],
) -> Result<(), NoiseError> {
    let (local_known, remote_known) = match role {
        Role::Initiator => (pattern.initiator_known, pattern.responder_known),
        Role::Responder => (pattern.responder_known, pattern.initiator_known),
    };
    let ours = pattern.messages.iter().skip(usize::from(role == Role::Responder)).step_by(2);
    let sends_static = ours.flat_map(|message| message.iter()).any(|token| *token == Token::S);
    match (s.is_some(), local_known || sends_static) {
        (false, true) => return Err(NoiseError::MissingLocalStatic),
        (true, false) => return Err(NoiseError::UnusedLocalStatic),
        _ => {}
    }
    match (rs.is_some(), remote_known) {
        (false, true) => return Err(NoiseError::MissingRemoteStatic),
        (true, false) => return Err(NoiseError::UnusedRemoteStatic),
        _ => {}
    }
    let expected = pattern.psk_count();
    if psks.len() != expected {
        return Err(NoiseError::PskCount { expected, given: psks.len() });
    }
    Ok(())
}

impl fmt::Debug for HandshakeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandshakeState")
            .field("pattern", &self.pattern.name)
            .field("role", &self.role)
            .field("next_message", &self.next_message)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}
