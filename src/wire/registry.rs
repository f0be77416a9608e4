// Generated from schemas/registry/*.toml by tests/registry: do not edit.
// To write it anew: RAYSTREAM_UPDATE=1 cargo test --release --test registry

//! The numbers of the wire and their names: frame types, error codes, suites (proto-spec, section 18).
//!
//! Each is an open newtype: every number can be held and shown, the known ones have a name.

use std::fmt;

const MAY_FRAGMENT: u8 = 1;
const ON_CONNECTION: u8 = 2;
const FROM_CLIENT: u8 = 4;
const FROM_SERVER: u8 = 8;

/// The type of a frame: the first byte of its head.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameType(pub u8);

impl FrameType {
    /// Calls a method; opens the stream.
    pub const RPC_CALL: FrameType = FrameType(0x10);
    /// Answers a call with a result; ends the stream.
    pub const RPC_RESPONSE: FrameType = FrameType(0x11);
    /// Answers a call with an error, or ends a subscription; ends the stream.
    pub const RPC_ERROR: FrameType = FrameType(0x12);
    /// Gives up a call; the server still answers.
    pub const RPC_CANCEL: FrameType = FrameType(0x13);
    /// One item of a call's stream; with flag END, from the client: no more items follow.
    pub const RPC_DATA: FrameType = FrameType(0x14);
    /// Subscribes to a table; opens the stream.
    pub const SUBSCRIBE: FrameType = FrameType(0x20);
    /// One item of a snapshot, or one change.
    pub const EVENT: FrameType = FrameType(0x21);
    /// Ends a subscription; the server confirms with RPC_ERROR CANCELLED.
    pub const UNSUBSCRIBE: FrameType = FrameType(0x22);
    /// The position is fixed; sent a second time when the snapshot is complete.
    pub const SUBSCRIBED: FrameType = FrameType(0x23);
    /// Publishes an event to a topic; opens the stream, answered like a call.
    pub const PUBLISH: FrameType = FrameType(0x24);
    /// A time stamp; flag ACK marks the echo.
    pub const HEARTBEAT: FrameType = FrameType(0x30);
    /// Lets the other side send so many more items on this stream.
    pub const CREDIT: FrameType = FrameType(0x31);
    /// The server will take no new stream; connect elsewhere after the delay.
    pub const GOAWAY: FrameType = FrameType(0x32);
    /// The last frame of a connection: code and reason.
    pub const CLOSE: FrameType = FrameType(0xFF);

    /// Every known one, in the order of the registry.
    pub const ALL: &'static [FrameType] = &[
        FrameType::RPC_CALL,
        FrameType::RPC_RESPONSE,
        FrameType::RPC_ERROR,
        FrameType::RPC_CANCEL,
        FrameType::RPC_DATA,
        FrameType::SUBSCRIBE,
        FrameType::EVENT,
        FrameType::UNSUBSCRIBE,
        FrameType::SUBSCRIBED,
        FrameType::PUBLISH,
        FrameType::HEARTBEAT,
        FrameType::CREDIT,
        FrameType::GOAWAY,
        FrameType::CLOSE,
    ];

    /// The name, when the number is a known one.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            FrameType::RPC_CALL => Some("RPC_CALL"),
            FrameType::RPC_RESPONSE => Some("RPC_RESPONSE"),
            FrameType::RPC_ERROR => Some("RPC_ERROR"),
            FrameType::RPC_CANCEL => Some("RPC_CANCEL"),
            FrameType::RPC_DATA => Some("RPC_DATA"),
            FrameType::SUBSCRIBE => Some("SUBSCRIBE"),
            FrameType::EVENT => Some("EVENT"),
            FrameType::UNSUBSCRIBE => Some("UNSUBSCRIBE"),
            FrameType::SUBSCRIBED => Some("SUBSCRIBED"),
            FrameType::PUBLISH => Some("PUBLISH"),
            FrameType::HEARTBEAT => Some("HEARTBEAT"),
            FrameType::CREDIT => Some("CREDIT"),
            FrameType::GOAWAY => Some("GOAWAY"),
            FrameType::CLOSE => Some("CLOSE"),
            _ => None,
        }
    }

    const fn facts(self) -> u8 {
        match self {
            FrameType::RPC_CALL => MAY_FRAGMENT | FROM_CLIENT,
            FrameType::RPC_RESPONSE => MAY_FRAGMENT | FROM_SERVER,
            FrameType::RPC_ERROR => MAY_FRAGMENT | FROM_SERVER,
            FrameType::RPC_CANCEL => FROM_CLIENT,
            FrameType::RPC_DATA => MAY_FRAGMENT | FROM_CLIENT | FROM_SERVER,
            FrameType::SUBSCRIBE => MAY_FRAGMENT | FROM_CLIENT,
            FrameType::EVENT => MAY_FRAGMENT | FROM_SERVER,
            FrameType::UNSUBSCRIBE => FROM_CLIENT,
            FrameType::SUBSCRIBED => MAY_FRAGMENT | FROM_SERVER,
            FrameType::PUBLISH => MAY_FRAGMENT | FROM_CLIENT,
            FrameType::HEARTBEAT => ON_CONNECTION | FROM_CLIENT | FROM_SERVER,
            FrameType::CREDIT => FROM_CLIENT | FROM_SERVER,
            FrameType::GOAWAY => ON_CONNECTION | FROM_SERVER,
            FrameType::CLOSE => ON_CONNECTION | FROM_CLIENT | FROM_SERVER,
            _ => 0,
        }
    }

    /// Whether the flag MORE is allowed.
    pub const fn may_fragment(self) -> bool {
        self.facts() & MAY_FRAGMENT != 0
    }

    /// Whether the frame is about the connection: its stream is 0.
    pub const fn on_connection(self) -> bool {
        self.facts() & ON_CONNECTION != 0
    }

    /// Whether a client sends it.
    pub const fn client_sends(self) -> bool {
        self.facts() & FROM_CLIENT != 0
    }

    /// Whether a server sends it.
    pub const fn server_sends(self) -> bool {
        self.facts() & FROM_SERVER != 0
    }
}

/// The name, or the number in hexadecimal.
impl fmt::Display for FrameType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "0x{:02X}", self.0),
        }
    }
}

impl fmt::Debug for FrameType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const RETRYABLE: u8 = 1;
const ENDS_CALL: u8 = 2;
const ENDS_CONNECTION: u8 = 4;

/// Why a call, a subscription or a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u16);

impl ErrorCode {
    /// The peer's key is not let in.
    pub const UNAUTHORIZED: ErrorCode = ErrorCode(1);
    /// The method is not granted to this principal.
    pub const FORBIDDEN: ErrorCode = ErrorCode(2);
    /// No such method, table or document.
    pub const NOT_FOUND: ErrorCode = ErrorCode(3);
    /// The arguments are not what the method takes.
    pub const INVALID_REQUEST: ErrorCode = ErrorCode(4);
    /// The table is not granted to this principal for this access.
    pub const PERMISSION_DENIED: ErrorCode = ErrorCode(5);
    /// A fault of the server; the log has it.
    pub const INTERNAL_ERROR: ErrorCode = ErrorCode(6);
    /// The server or its database cannot take this now.
    pub const SERVICE_UNAVAILABLE: ErrorCode = ErrorCode(7);
    /// The deadline passed. A write may have happened.
    pub const TIMEOUT: ErrorCode = ErrorCode(8);
    /// The keys are too old: connect again.
    pub const SESSION_EXPIRED: ErrorCode = ErrorCode(9);
    /// A handshake message or a record did not authenticate.
    pub const DECRYPTION_FAILED: ErrorCode = ErrorCode(10);
    /// The record counter is exhausted.
    pub const INVALID_NONCE: ErrorCode = ErrorCode(11);
    /// The caller gave the call up. A write may have happened.
    pub const CANCELLED: ErrorCode = ErrorCode(12);
    /// Too many requests; wait for retry_after.
    pub const RATE_LIMITED: ErrorCode = ErrorCode(13);
    /// The document has another version, or another transaction holds it.
    pub const CONFLICT: ErrorCode = ErrorCode(14);
    /// What was to be created is there.
    pub const ALREADY_EXISTS: ErrorCode = ErrorCode(15);
    /// The subscriber fell behind; subscribe again from the last cursor.
    pub const LAGGED: ErrorCode = ErrorCode(16);
    /// The position is no longer kept; subscribe again from a snapshot.
    pub const RESET: ErrorCode = ErrorCode(17);
    /// A document, message or result is over its limit.
    pub const PAYLOAD_TOO_LARGE: ErrorCode = ErrorCode(18);
    /// The connection to the database broke after the write was sent: it may have happened.
    pub const UNKNOWN_OUTCOME: ErrorCode = ErrorCode(19);
    /// An orderly end.
    pub const NO_ERROR: ErrorCode = ErrorCode(32);
    /// The peer broke a rule of the protocol.
    pub const PROTOCOL_ERROR: ErrorCode = ErrorCode(33);
    /// The version of HANDSHAKE_INIT is not spoken here.
    pub const UNSUPPORTED_VERSION: ErrorCode = ErrorCode(34);
    /// The suite is not offered here.
    pub const UNSUPPORTED_SUITE: ErrorCode = ErrorCode(35);
    /// key_id names no key of this server.
    pub const UNKNOWN_KEY: ErrorCode = ErrorCode(36);
    /// The server would have taken a suite the client prefers: somebody is in between.
    pub const DOWNGRADE: ErrorCode = ErrorCode(37);
    /// The transport ended without CLOSE. Never sent.
    pub const TRUNCATED: ErrorCode = ErrorCode(38);
    /// The peer does not read what it asked for.
    pub const SLOW_CONSUMER: ErrorCode = ErrorCode(39);
    /// The server is shutting down.
    pub const GOING_AWAY: ErrorCode = ErrorCode(40);
    /// Nothing was heard from the peer for too long.
    pub const IDLE_TIMEOUT: ErrorCode = ErrorCode(41);
    /// The handshake was not finished in time.
    pub const HANDSHAKE_TIMEOUT: ErrorCode = ErrorCode(42);

    /// Every known one, in the order of the registry.
    pub const ALL: &'static [ErrorCode] = &[
        ErrorCode::UNAUTHORIZED,
        ErrorCode::FORBIDDEN,
        ErrorCode::NOT_FOUND,
        ErrorCode::INVALID_REQUEST,
        ErrorCode::PERMISSION_DENIED,
        ErrorCode::INTERNAL_ERROR,
        ErrorCode::SERVICE_UNAVAILABLE,
        ErrorCode::TIMEOUT,
        ErrorCode::SESSION_EXPIRED,
        ErrorCode::DECRYPTION_FAILED,
        ErrorCode::INVALID_NONCE,
        ErrorCode::CANCELLED,
        ErrorCode::RATE_LIMITED,
        ErrorCode::CONFLICT,
        ErrorCode::ALREADY_EXISTS,
        ErrorCode::LAGGED,
        ErrorCode::RESET,
        ErrorCode::PAYLOAD_TOO_LARGE,
        ErrorCode::UNKNOWN_OUTCOME,
        ErrorCode::NO_ERROR,
        ErrorCode::PROTOCOL_ERROR,
        ErrorCode::UNSUPPORTED_VERSION,
        ErrorCode::UNSUPPORTED_SUITE,
        ErrorCode::UNKNOWN_KEY,
        ErrorCode::DOWNGRADE,
        ErrorCode::TRUNCATED,
        ErrorCode::SLOW_CONSUMER,
        ErrorCode::GOING_AWAY,
        ErrorCode::IDLE_TIMEOUT,
        ErrorCode::HANDSHAKE_TIMEOUT,
    ];

    /// The name, when the number is a known one.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            ErrorCode::UNAUTHORIZED => Some("UNAUTHORIZED"),
            ErrorCode::FORBIDDEN => Some("FORBIDDEN"),
            ErrorCode::NOT_FOUND => Some("NOT_FOUND"),
            ErrorCode::INVALID_REQUEST => Some("INVALID_REQUEST"),
            ErrorCode::PERMISSION_DENIED => Some("PERMISSION_DENIED"),
            ErrorCode::INTERNAL_ERROR => Some("INTERNAL_ERROR"),
            ErrorCode::SERVICE_UNAVAILABLE => Some("SERVICE_UNAVAILABLE"),
            ErrorCode::TIMEOUT => Some("TIMEOUT"),
            ErrorCode::SESSION_EXPIRED => Some("SESSION_EXPIRED"),
            ErrorCode::DECRYPTION_FAILED => Some("DECRYPTION_FAILED"),
            ErrorCode::INVALID_NONCE => Some("INVALID_NONCE"),
            ErrorCode::CANCELLED => Some("CANCELLED"),
            ErrorCode::RATE_LIMITED => Some("RATE_LIMITED"),
            ErrorCode::CONFLICT => Some("CONFLICT"),
            ErrorCode::ALREADY_EXISTS => Some("ALREADY_EXISTS"),
            ErrorCode::LAGGED => Some("LAGGED"),
            ErrorCode::RESET => Some("RESET"),
            ErrorCode::PAYLOAD_TOO_LARGE => Some("PAYLOAD_TOO_LARGE"),
            ErrorCode::UNKNOWN_OUTCOME => Some("UNKNOWN_OUTCOME"),
            ErrorCode::NO_ERROR => Some("NO_ERROR"),
            ErrorCode::PROTOCOL_ERROR => Some("PROTOCOL_ERROR"),
            ErrorCode::UNSUPPORTED_VERSION => Some("UNSUPPORTED_VERSION"),
            ErrorCode::UNSUPPORTED_SUITE => Some("UNSUPPORTED_SUITE"),
            ErrorCode::UNKNOWN_KEY => Some("UNKNOWN_KEY"),
            ErrorCode::DOWNGRADE => Some("DOWNGRADE"),
            ErrorCode::TRUNCATED => Some("TRUNCATED"),
            ErrorCode::SLOW_CONSUMER => Some("SLOW_CONSUMER"),
            ErrorCode::GOING_AWAY => Some("GOING_AWAY"),
            ErrorCode::IDLE_TIMEOUT => Some("IDLE_TIMEOUT"),
            ErrorCode::HANDSHAKE_TIMEOUT => Some("HANDSHAKE_TIMEOUT"),
            _ => None,
        }
    }

    /// The code of a name as `name` gives it.
    pub fn from_name(name: &str) -> Option<ErrorCode> {
        Some(match name {
            "UNAUTHORIZED" => ErrorCode::UNAUTHORIZED,
            "FORBIDDEN" => ErrorCode::FORBIDDEN,
            "NOT_FOUND" => ErrorCode::NOT_FOUND,
            "INVALID_REQUEST" => ErrorCode::INVALID_REQUEST,
            "PERMISSION_DENIED" => ErrorCode::PERMISSION_DENIED,
            "INTERNAL_ERROR" => ErrorCode::INTERNAL_ERROR,
            "SERVICE_UNAVAILABLE" => ErrorCode::SERVICE_UNAVAILABLE,
            "TIMEOUT" => ErrorCode::TIMEOUT,
            "SESSION_EXPIRED" => ErrorCode::SESSION_EXPIRED,
            "DECRYPTION_FAILED" => ErrorCode::DECRYPTION_FAILED,
            "INVALID_NONCE" => ErrorCode::INVALID_NONCE,
            "CANCELLED" => ErrorCode::CANCELLED,
            "RATE_LIMITED" => ErrorCode::RATE_LIMITED,
            "CONFLICT" => ErrorCode::CONFLICT,
            "ALREADY_EXISTS" => ErrorCode::ALREADY_EXISTS,
            "LAGGED" => ErrorCode::LAGGED,
            "RESET" => ErrorCode::RESET,
            "PAYLOAD_TOO_LARGE" => ErrorCode::PAYLOAD_TOO_LARGE,
            "UNKNOWN_OUTCOME" => ErrorCode::UNKNOWN_OUTCOME,
            "NO_ERROR" => ErrorCode::NO_ERROR,
            "PROTOCOL_ERROR" => ErrorCode::PROTOCOL_ERROR,
            "UNSUPPORTED_VERSION" => ErrorCode::UNSUPPORTED_VERSION,
            "UNSUPPORTED_SUITE" => ErrorCode::UNSUPPORTED_SUITE,
            "UNKNOWN_KEY" => ErrorCode::UNKNOWN_KEY,
            "DOWNGRADE" => ErrorCode::DOWNGRADE,
            "TRUNCATED" => ErrorCode::TRUNCATED,
            "SLOW_CONSUMER" => ErrorCode::SLOW_CONSUMER,
            "GOING_AWAY" => ErrorCode::GOING_AWAY,
            "IDLE_TIMEOUT" => ErrorCode::IDLE_TIMEOUT,
            "HANDSHAKE_TIMEOUT" => ErrorCode::HANDSHAKE_TIMEOUT,
            _ => return None,
        })
    }

    /// One sentence for people.
    pub const fn meaning(self) -> &'static str {
        match self {
            ErrorCode::UNAUTHORIZED => "The peer's key is not let in.",
            ErrorCode::FORBIDDEN => "The method is not granted to this principal.",
            ErrorCode::NOT_FOUND => "No such method, table or document.",
            ErrorCode::INVALID_REQUEST => "The arguments are not what the method takes.",
            ErrorCode::PERMISSION_DENIED => "The table is not granted to this principal for this access.",
            ErrorCode::INTERNAL_ERROR => "A fault of the server; the log has it.",
            ErrorCode::SERVICE_UNAVAILABLE => "The server or its database cannot take this now.",
            ErrorCode::TIMEOUT => "The deadline passed. A write may have happened.",
            ErrorCode::SESSION_EXPIRED => "The keys are too old: connect again.",
            ErrorCode::DECRYPTION_FAILED => "A handshake message or a record did not authenticate.",
            ErrorCode::INVALID_NONCE => "The record counter is exhausted.",
            ErrorCode::CANCELLED => "The caller gave the call up. A write may have happened.",
            ErrorCode::RATE_LIMITED => "Too many requests; wait for retry_after.",
            ErrorCode::CONFLICT => "The document has another version, or another transaction holds it.",
            ErrorCode::ALREADY_EXISTS => "What was to be created is there.",
            ErrorCode::LAGGED => "The subscriber fell behind; subscribe again from the last cursor.",
            ErrorCode::RESET => "The position is no longer kept; subscribe again from a snapshot.",
            ErrorCode::PAYLOAD_TOO_LARGE => "A document, message or result is over its limit.",
            ErrorCode::UNKNOWN_OUTCOME => {
                "The connection to the database broke after the write was sent: it may have happened."
            }
            ErrorCode::NO_ERROR => "An orderly end.",
            ErrorCode::PROTOCOL_ERROR => "The peer broke a rule of the protocol.",
            ErrorCode::UNSUPPORTED_VERSION => "The version of HANDSHAKE_INIT is not spoken here.",
            ErrorCode::UNSUPPORTED_SUITE => "The suite is not offered here.",
            ErrorCode::UNKNOWN_KEY => "key_id names no key of this server.",
            ErrorCode::DOWNGRADE => {
                "The server would have taken a suite the client prefers: somebody is in between."
            }
            ErrorCode::TRUNCATED => "The transport ended without CLOSE. Never sent.",
            ErrorCode::SLOW_CONSUMER => "The peer does not read what it asked for.",
            ErrorCode::GOING_AWAY => "The server is shutting down.",
            ErrorCode::IDLE_TIMEOUT => "Nothing was heard from the peer for too long.",
            ErrorCode::HANDSHAKE_TIMEOUT => "The handshake was not finished in time.",
            _ => "A code that this version does not know.",
        }
    }

    const fn facts(self) -> u8 {
        match self {
            ErrorCode::UNAUTHORIZED => ENDS_CALL | ENDS_CONNECTION,
            ErrorCode::FORBIDDEN => ENDS_CALL,
            ErrorCode::NOT_FOUND => ENDS_CALL,
            ErrorCode::INVALID_REQUEST => ENDS_CALL,
            ErrorCode::PERMISSION_DENIED => ENDS_CALL,
            ErrorCode::INTERNAL_ERROR => ENDS_CALL | ENDS_CONNECTION,
            ErrorCode::SERVICE_UNAVAILABLE => RETRYABLE | ENDS_CALL | ENDS_CONNECTION,
            ErrorCode::TIMEOUT => ENDS_CALL | ENDS_CONNECTION,
            ErrorCode::SESSION_EXPIRED => RETRYABLE | ENDS_CONNECTION,
            ErrorCode::DECRYPTION_FAILED => ENDS_CONNECTION,
            ErrorCode::INVALID_NONCE => ENDS_CONNECTION,
            ErrorCode::CANCELLED => ENDS_CALL,
            ErrorCode::RATE_LIMITED => RETRYABLE | ENDS_CALL | ENDS_CONNECTION,
            ErrorCode::CONFLICT => RETRYABLE | ENDS_CALL,
            ErrorCode::ALREADY_EXISTS => ENDS_CALL,
            ErrorCode::LAGGED => RETRYABLE | ENDS_CALL,
            ErrorCode::RESET => RETRYABLE | ENDS_CALL,
            ErrorCode::PAYLOAD_TOO_LARGE => ENDS_CALL | ENDS_CONNECTION,
            ErrorCode::UNKNOWN_OUTCOME => ENDS_CALL,
            ErrorCode::NO_ERROR => RETRYABLE | ENDS_CONNECTION,
            ErrorCode::PROTOCOL_ERROR => ENDS_CONNECTION,
            ErrorCode::UNSUPPORTED_VERSION => ENDS_CONNECTION,
            ErrorCode::UNSUPPORTED_SUITE => ENDS_CONNECTION,
            ErrorCode::UNKNOWN_KEY => ENDS_CONNECTION,
            ErrorCode::DOWNGRADE => ENDS_CONNECTION,
            ErrorCode::TRUNCATED => RETRYABLE | ENDS_CONNECTION,
            ErrorCode::SLOW_CONSUMER => RETRYABLE | ENDS_CONNECTION,
            ErrorCode::GOING_AWAY => RETRYABLE | ENDS_CALL | ENDS_CONNECTION,
            ErrorCode::IDLE_TIMEOUT => RETRYABLE | ENDS_CONNECTION,
            ErrorCode::HANDSHAKE_TIMEOUT => RETRYABLE | ENDS_CONNECTION,
            _ => 0,
        }
    }

    /// Whether the same request may be sent again as it is.
    pub const fn is_retryable(self) -> bool {
        self.facts() & RETRYABLE != 0
    }

    /// Whether it may stand in an RPC_ERROR.
    pub const fn ends_call(self) -> bool {
        self.facts() & ENDS_CALL != 0
    }

    /// Whether it may stand in a CLOSE or a clear refusal.
    pub const fn ends_connection(self) -> bool {
        self.facts() & ENDS_CONNECTION != 0
    }
}

/// The name, or the number in hexadecimal.
impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "0x{:04X}", self.0),
        }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A handshake suite: the Noise pattern and the cipher; X25519 and SHA-256 in all of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Suite(pub u8);

impl Suite {
    /// `Noise_NK_25519_ChaChaPoly_SHA256`.
    pub const NK_CHACHAPOLY: Suite = Suite(0x01);
    /// `Noise_NK_25519_AESGCM_SHA256`.
    pub const NK_AESGCM: Suite = Suite(0x02);
    /// `Noise_IK_25519_ChaChaPoly_SHA256`.
    pub const IK_CHACHAPOLY: Suite = Suite(0x11);
    /// `Noise_IK_25519_AESGCM_SHA256`.
    pub const IK_AESGCM: Suite = Suite(0x12);
    /// `Noise_NX_25519_ChaChaPoly_SHA256`.
    pub const NX_CHACHAPOLY: Suite = Suite(0x21);
    /// `Noise_NX_25519_AESGCM_SHA256`.
    pub const NX_AESGCM: Suite = Suite(0x22);
    /// `Noise_IKpsk2_25519_ChaChaPoly_SHA256`.
    pub const IKPSK2_CHACHAPOLY: Suite = Suite(0x31);
    /// `Noise_IKpsk2_25519_AESGCM_SHA256`.
    pub const IKPSK2_AESGCM: Suite = Suite(0x32);
    /// `Noise_NKpsk2_25519_ChaChaPoly_SHA256`.
    pub const NKPSK2_CHACHAPOLY: Suite = Suite(0x41);
    /// `Noise_NKpsk2_25519_AESGCM_SHA256`.
    pub const NKPSK2_AESGCM: Suite = Suite(0x42);

    /// Every known one, in the order of the registry.
    pub const ALL: &'static [Suite] = &[
        Suite::NK_CHACHAPOLY,
        Suite::NK_AESGCM,
        Suite::IK_CHACHAPOLY,
        Suite::IK_AESGCM,
        Suite::NX_CHACHAPOLY,
        Suite::NX_AESGCM,
        Suite::IKPSK2_CHACHAPOLY,
        Suite::IKPSK2_AESGCM,
        Suite::NKPSK2_CHACHAPOLY,
        Suite::NKPSK2_AESGCM,
    ];

    /// The name, when the number is a known one.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Suite::NK_CHACHAPOLY => Some("NK_ChaChaPoly"),
            Suite::NK_AESGCM => Some("NK_AESGCM"),
            Suite::IK_CHACHAPOLY => Some("IK_ChaChaPoly"),
            Suite::IK_AESGCM => Some("IK_AESGCM"),
            Suite::NX_CHACHAPOLY => Some("NX_ChaChaPoly"),
            Suite::NX_AESGCM => Some("NX_AESGCM"),
            Suite::IKPSK2_CHACHAPOLY => Some("IKpsk2_ChaChaPoly"),
            Suite::IKPSK2_AESGCM => Some("IKpsk2_AESGCM"),
            Suite::NKPSK2_CHACHAPOLY => Some("NKpsk2_ChaChaPoly"),
            Suite::NKPSK2_AESGCM => Some("NKpsk2_AESGCM"),
            _ => None,
        }
    }

    /// The Noise pattern, such as `IKpsk2`.
    pub const fn pattern_name(self) -> Option<&'static str> {
        match self {
            Suite::NK_CHACHAPOLY => Some("NK"),
            Suite::NK_AESGCM => Some("NK"),
            Suite::IK_CHACHAPOLY => Some("IK"),
            Suite::IK_AESGCM => Some("IK"),
            Suite::NX_CHACHAPOLY => Some("NX"),
            Suite::NX_AESGCM => Some("NX"),
            Suite::IKPSK2_CHACHAPOLY => Some("IKpsk2"),
            Suite::IKPSK2_AESGCM => Some("IKpsk2"),
            Suite::NKPSK2_CHACHAPOLY => Some("NKpsk2"),
            Suite::NKPSK2_AESGCM => Some("NKpsk2"),
            _ => None,
        }
    }

    /// The cipher in Noise's own spelling: `ChaChaPoly` or `AESGCM`.
    pub const fn cipher_name(self) -> Option<&'static str> {
        match self {
            Suite::NK_CHACHAPOLY => Some("ChaChaPoly"),
            Suite::NK_AESGCM => Some("AESGCM"),
            Suite::IK_CHACHAPOLY => Some("ChaChaPoly"),
            Suite::IK_AESGCM => Some("AESGCM"),
            Suite::NX_CHACHAPOLY => Some("ChaChaPoly"),
            Suite::NX_AESGCM => Some("AESGCM"),
            Suite::IKPSK2_CHACHAPOLY => Some("ChaChaPoly"),
            Suite::IKPSK2_AESGCM => Some("AESGCM"),
            Suite::NKPSK2_CHACHAPOLY => Some("ChaChaPoly"),
            Suite::NKPSK2_AESGCM => Some("AESGCM"),
            _ => None,
        }
    }

    /// The whole Noise protocol name.
    pub const fn noise_name(self) -> Option<&'static str> {
        match self {
            Suite::NK_CHACHAPOLY => Some("Noise_NK_25519_ChaChaPoly_SHA256"),
            Suite::NK_AESGCM => Some("Noise_NK_25519_AESGCM_SHA256"),
            Suite::IK_CHACHAPOLY => Some("Noise_IK_25519_ChaChaPoly_SHA256"),
            Suite::IK_AESGCM => Some("Noise_IK_25519_AESGCM_SHA256"),
            Suite::NX_CHACHAPOLY => Some("Noise_NX_25519_ChaChaPoly_SHA256"),
            Suite::NX_AESGCM => Some("Noise_NX_25519_AESGCM_SHA256"),
            Suite::IKPSK2_CHACHAPOLY => Some("Noise_IKpsk2_25519_ChaChaPoly_SHA256"),
            Suite::IKPSK2_AESGCM => Some("Noise_IKpsk2_25519_AESGCM_SHA256"),
            Suite::NKPSK2_CHACHAPOLY => Some("Noise_NKpsk2_25519_ChaChaPoly_SHA256"),
            Suite::NKPSK2_AESGCM => Some("Noise_NKpsk2_25519_AESGCM_SHA256"),
            _ => None,
        }
    }
}

/// The name, or the number in hexadecimal.
impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "0x{:02X}", self.0),
        }
    }
}

impl fmt::Debug for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
