//! Handshake patterns as tables of tokens, section 7 of the specification.

use super::provider::CipherAlgorithm;

/// One step of a message pattern (sections 7.1 and 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Token {
    /// The sender's ephemeral public key.
    E,
    /// The sender's static public key, encrypted if there is a key already.
    S,
    /// Diffie-Hellman of both ephemeral keys.
    Ee,
    /// Diffie-Hellman of the initiator's ephemeral and the responder's static key.
    Es,
    /// Diffie-Hellman of the initiator's static and the responder's ephemeral key.
    Se,
    /// Diffie-Hellman of both static keys.
    Ss,
    /// A pre-shared key.
    Psk,
}

/// A handshake pattern: what both sides know beforehand, and the tokens of each message. The initiator sends the
/// first message, then the sides alternate.
#[derive(Debug, PartialEq, Eq)]
pub struct HandshakePattern {
    /// The name with its modifiers, such as `IKpsk2` (section 8).
    pub(super) name: &'static str,
    /// Whether the responder knows the initiator's static key beforehand (pre-message `-> s`).
    pub(super) initiator_known: bool,
    /// Whether the initiator knows the responder's static key beforehand (pre-message `<- s`).
    pub(super) responder_known: bool,
    /// The tokens of each message.
    pub(super) messages: &'static [&'static [Token]],
}

impl HandshakePattern {
    /// The name with its modifiers, such as `IKpsk2`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The tokens of each message, the initiator's first.
    pub fn messages(&self) -> &'static [&'static [Token]] {
        self.messages
    }

    /// Whether only the initiator ever sends (section 7.4). Of the transport ciphers only the first may be used then.
    pub fn is_one_way(&self) -> bool {
        self.messages.len() == 1
    }

    /// How many pre-shared keys the pattern takes. With one or more, `e` tokens also enter the key (section 9.2).
    pub fn psk_count(&self) -> usize {
        self.messages.iter().flat_map(|message| message.iter()).filter(|token| **token == Token::Psk).count()
    }

    /// The full protocol name (section 8), such as `Noise_NK_25519_ChaChaPoly_SHA256`.
    pub fn protocol_name(&self, cipher: CipherAlgorithm) -> String {
        format!("Noise_{}_25519_{}_SHA256", self.name, cipher.name())
    }
}

/// The patterns that raystream speaks. Each has two messages, one round trip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// The client knows the server's key and stays anonymous.
    NK,
    /// Both know each other's key; the client's travels encrypted. Its identity counts only when the first transport
    /// message decrypts, since the first handshake message can be replayed.
    IK,
    /// The client learns the server's key: first contact.
    NX,
    /// `IK` with a pre-shared key at the end of the second message.
    IKpsk2,
    /// `NK` with a pre-shared key at the end of the second message.
    NKpsk2,
}

impl Pattern {
    /// All of them, in the order of their suite numbers.
    pub const ALL: [Pattern; 5] = [Pattern::NK, Pattern::IK, Pattern::NX, Pattern::IKpsk2, Pattern::NKpsk2];

    /// The table of the pattern.
    pub const fn handshake_pattern(self) -> &'static HandshakePattern {
        match self {
            Pattern::NK => &NK,
            Pattern::IK => &IK,
            Pattern::NX => &NX,
            Pattern::IKpsk2 => &IK_PSK2,
            Pattern::NKpsk2 => &NK_PSK2,
        }
    }
}

impl From<Pattern> for &'static HandshakePattern {
    fn from(pattern: Pattern) -> Self {
        pattern.handshake_pattern()
    }
}

/// Writes a pattern almost as the specification does: name, pre-messages, then the tokens of each message.
macro_rules! handshake_pattern {
    ($name:literal, $initiator:tt, $responder:tt, $([$($token:ident)*])*) => {
        $crate::noise::pattern::HandshakePattern {
            name: $name,
            initiator_known: handshake_pattern!(@known $initiator),
            responder_known: handshake_pattern!(@known $responder),
            messages: &[$(&[$($crate::noise::pattern::Token::$token),*]),*],
        }
    };
    (@known [S]) => { true };
    (@known []) => { false };
}
pub(super) use handshake_pattern;

static NK: HandshakePattern = handshake_pattern!("NK", [], [S], [E Es] [E Ee]);
static IK: HandshakePattern = handshake_pattern!("IK", [], [S], [E Es S Ss] [E Ee Se]);
static NX: HandshakePattern = handshake_pattern!("NX", [], [], [E] [E Ee S Es]);
static IK_PSK2: HandshakePattern = handshake_pattern!("IKpsk2", [], [S], [E Es S Ss] [E Ee Se Psk]);
static NK_PSK2: HandshakePattern = handshake_pattern!("NKpsk2", [], [S], [E Es] [E Ee Psk]);
