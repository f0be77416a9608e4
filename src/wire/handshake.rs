//! HANDSHAKE_INIT, HANDSHAKE_RESPONSE and the clear refusal (specification, "Handshake").

use super::{
    DecodeError, ErrorCode, Reader, Suite,
    limits::{OFFERED_SUITES_MAX, SERVER_SUITES_MAX},
};

/// First byte of HANDSHAKE_INIT.
pub const TYPE_INIT: u8 = 0x01;
/// First byte of HANDSHAKE_RESPONSE.
pub const TYPE_RESPONSE: u8 = 0x02;
/// First byte of a refusal in clear.
pub const TYPE_REFUSAL: u8 = 0xFF;
/// The version this code speaks.
pub const VERSION: u8 = 0x01;
/// What the prologue of every handshake starts with; a zero byte follows.
pub const PROLOGUE_LABEL: &[u8] = b"raystream-v1";
/// The encrypted payload of HANDSHAKE_RESPONSE.
pub const SERVER_HELLO_LEN: usize = 64;

/// HANDSHAKE_INIT, `0x01 | version | suite | flags | key_id[8] | n | offered[n] | noise_msg_1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Init<'a> {
    /// The suite of `noise_message`.
    pub suite: Suite,
    /// Which key of the server the client means; zeros for NX.
    pub key_id: [u8; 8],
    /// Every suite the client would take, best first; 1 to 8, none twice, `suite` among them.
    pub offered: Vec<Suite>,
    /// Every byte before `noise_message`: bound to the handshake by the prologue.
    pub head: &'a [u8],
    /// The first Noise message; its length is that of the pattern.
    pub noise_message: &'a [u8],
}

/// Why a HANDSHAKE_INIT was not understood; decides the code of the refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// It is not a HANDSHAKE_INIT.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// A version other than ours.
    #[error("version {0} of the protocol is not spoken here")]
    Version(u8),
    /// A suite that is not in the registry.
    #[error("suite {0:#04x} is unknown")]
    Suite(u8),
}

impl<'a> Init<'a> {
    /// Reads a whole record body.
    ///
    /// # Errors
    /// [`InitError`]; lengths are checked before anybody computes a Diffie-Hellman.
    pub fn decode(body: &'a [u8]) -> Result<Self, InitError> {
        let mut reader = Reader::new(body);
        if reader.u8("record type")? != TYPE_INIT {
            return Err(DecodeError::InvalidValue("record type").into());
        }
        let version = reader.u8("version")?;
        if version != VERSION {
            return Err(InitError::Version(version));
        }
        let suite = Suite(reader.u8("suite")?);
        if reader.u8("flags")? != 0 {
            return Err(DecodeError::InvalidValue("flags").into());
        }
        let key_id = reader.array("key_id")?;
        let n = usize::from(reader.u8("number of suites")?);
        if n == 0 || n > OFFERED_SUITES_MAX {
            return Err(DecodeError::InvalidValue("number of suites").into());
        }
        let offered: Vec<Suite> = reader.take(n, "offered suites")?.iter().map(|byte| Suite(*byte)).collect();
        if has_duplicates(&offered) || !offered.contains(&suite) {
            return Err(DecodeError::InvalidValue("offered suites").into());
        }
        let noise_message = reader.rest();
        let head = &body[..body.len() - noise_message.len()];
        let expected = noise_message_1_len(suite).ok_or(InitError::Suite(suite.0))?;
        if noise_message.len() != expected {
            return Err(DecodeError::InvalidValue("length of the Noise message").into());
        }
        if (suite.pattern_name() == Some("NX")) != (key_id == [0; 8]) {
            return Err(DecodeError::InvalidValue("key_id").into());
        }
        Ok(Self { suite, key_id, offered, head, noise_message })
    }

    /// Everything before the Noise message.
    ///
    /// # Panics
    /// When `offered` is empty or longer than [`OFFERED_SUITES_MAX`]: the client's configuration has checked it.
    pub fn encode_head(suite: Suite, key_id: [u8; 8], offered: &[Suite]) -> Vec<u8> {
        assert!((1..=OFFERED_SUITES_MAX).contains(&offered.len()), "a configuration offers 1 to 8 suites");
        let n = u8::try_from(offered.len()).expect("at most 8");
        let mut head = vec![TYPE_INIT, VERSION, suite.0, 0];
        head.extend_from_slice(&key_id);
        head.push(n);
        head.extend(offered.iter().map(|suite| suite.0));
        head
    }
}

/// The prologue of a handshake (Noise section 6): label, zero, and every byte of INIT before the Noise message.
pub fn prologue(init_head: &[u8]) -> Vec<u8> {
    [PROLOGUE_LABEL, &[0], init_head].concat()
}

/// Length of the first Noise message of a suite, with an empty payload; `None` for an unknown suite.
pub fn noise_message_1_len(suite: Suite) -> Option<usize> {
    match suite.pattern_name()? {
        "NK" | "NKpsk2" => Some(32 + 16),
        "IK" | "IKpsk2" => Some(32 + 32 + 16 + 16),
        "NX" => Some(32),
        _ => None,
    }
}

/// Length of the second Noise message of a suite, with its 64-byte payload; `None` for an unknown suite.
pub fn noise_message_2_len(suite: Suite) -> Option<usize> {
    match suite.pattern_name()? {
        "NK" | "NKpsk2" | "IK" | "IKpsk2" => Some(32 + SERVER_HELLO_LEN + 16),
        "NX" => Some(32 + 32 + 16 + SERVER_HELLO_LEN + 16),
        _ => None,
    }
}

fn has_duplicates(suites: &[Suite]) -> bool {
    suites.iter().enumerate().any(|(index, suite)| suites[..index].contains(suite))
}

/// What the server says of itself, encrypted in HANDSHAKE_RESPONSE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHello {
    /// Every suite the server takes, 1 to 14: the client's downgrade check reads it.
    pub suites: Vec<Suite>,
    /// The server's clock, milliseconds since 1970.
    pub server_time_ms: u64,
    /// Longest message the server takes.
    pub message_max: u32,
    /// Calls in flight the server takes.
    pub calls_max: u16,
    /// Subscriptions the server takes.
    pub subscriptions_max: u16,
    /// The server's heartbeat interval.
    pub heartbeat_ms: u32,
    /// Silence after which the server gives up.
    pub idle_timeout_ms: u32,
    /// Names the connection in logs of both sides; not a secret.
    pub connection_id: [u8; 16],
}

impl ServerHello {
    /// Reads the 64-byte block.
    ///
    /// # Errors
    /// Another version, a number of suites outside 1 to 14, padding that is not zero, or another length.
    pub fn decode(block: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(block);
        if reader.u8("version")? != VERSION {
            return Err(DecodeError::InvalidValue("version"));
        }
        let n = usize::from(reader.u8("number of suites")?);
        if n == 0 || n > SERVER_SUITES_MAX {
            return Err(DecodeError::InvalidValue("number of suites"));
        }
        let list = reader.take(SERVER_SUITES_MAX, "suites")?;
        let (suites, padding) = list.split_at(n);
        let suites: Vec<Suite> = suites.iter().map(|byte| Suite(*byte)).collect();
        let hello = Self {
            suites,
            server_time_ms: reader.u64("server time")?,
            message_max: reader.u32("message maximum")?,
            calls_max: reader.u16("calls maximum")?,
            subscriptions_max: reader.u16("subscriptions maximum")?,
            heartbeat_ms: reader.u32("heartbeat interval")?,
            idle_timeout_ms: reader.u32("idle timeout")?,
            connection_id: reader.array("connection id")?,
        };
        let reserved = reader.take(8, "reserved")?;
        reader.finish("server hello")?;
        if padding.iter().chain(reserved).any(|byte| *byte != 0) {
            return Err(DecodeError::InvalidValue("reserved"));
        }
        Ok(hello)
    }

    /// The 64-byte block.
    ///
    /// # Panics
    /// When there are no suites or more than 14: the server's configuration has checked it.
    pub fn encode(&self) -> [u8; SERVER_HELLO_LEN] {
        assert!((1..=SERVER_SUITES_MAX).contains(&self.suites.len()), "a configuration has 1 to 14 suites");
        let mut out = Vec::with_capacity(SERVER_HELLO_LEN);
        out.push(VERSION);
        out.push(u8::try_from(self.suites.len()).expect("at most 14"));
        out.extend(self.suites.iter().map(|suite| suite.0));
        out.resize(2 + SERVER_SUITES_MAX, 0);
        out.extend_from_slice(&self.server_time_ms.to_be_bytes());
        out.extend_from_slice(&self.message_max.to_be_bytes());
        out.extend_from_slice(&self.calls_max.to_be_bytes());
        out.extend_from_slice(&self.subscriptions_max.to_be_bytes());
        out.extend_from_slice(&self.heartbeat_ms.to_be_bytes());
        out.extend_from_slice(&self.idle_timeout_ms.to_be_bytes());
        out.extend_from_slice(&self.connection_id);
        out.resize(SERVER_HELLO_LEN, 0);
        out.try_into().expect("the fields are 56 bytes and the padding 8")
    }
}

/// The body of a refusal in clear: a hint that never changes what a client is set to.
pub fn encode_refusal(code: ErrorCode) -> [u8; 3] {
    let [high, low] = code.0.to_be_bytes();
    [TYPE_REFUSAL, high, low]
}

/// Reads a refusal; `None` when the body is something else.
pub fn decode_refusal(body: &[u8]) -> Option<ErrorCode> {
    match body {
        [TYPE_REFUSAL, high, low] => Some(ErrorCode(u16::from_be_bytes([*high, *low]))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn init(suite: Suite, offered: &[Suite], noise: usize) -> Vec<u8> {
        let key_id = if suite.pattern_name() == Some("NX") { [0; 8] } else { [9; 8] };
        let mut body = Init::encode_head(suite, key_id, offered);
        body.resize(body.len() + noise, 0xaa);
        body
    }

    #[test]
    fn init_round_trips_for_every_suite() {
        for suite in Suite::ALL {
            let body = init(*suite, &[*suite], noise_message_1_len(*suite).unwrap());
            assert!(body.len() < 256, "the first byte of a binary connection is zero");
            let decoded = Init::decode(&body).unwrap();
            assert_eq!((decoded.suite, &decoded.offered[..]), (*suite, &[*suite][..]));
            assert_eq!([decoded.head, decoded.noise_message].concat(), body);
            for len in 0..body.len() {
                assert!(Init::decode(&body[..len]).is_err());
            }
        }
    }

    #[test]
    fn init_refuses_what_the_specification_does_not_allow() {
        let nk = Suite::NK_CHACHAPOLY;
        let good = init(nk, &[nk], 48);
        let change = |at: usize, to: u8| {
            let mut body = good.clone();
            body[at] = to;
            Init::decode(&body).map(|_| ())
        };
        assert_eq!(change(0, 2), Err(DecodeError::InvalidValue("record type").into()));
        assert_eq!(change(1, 2), Err(InitError::Version(2)));
        assert_eq!(change(3, 1), Err(DecodeError::InvalidValue("flags").into()));
        assert_eq!(change(12, 0), Err(DecodeError::InvalidValue("number of suites").into()));
        assert_eq!(change(12, 9), Err(DecodeError::InvalidValue("number of suites").into()));
        assert_eq!(change(13, 0x02), Err(DecodeError::InvalidValue("offered suites").into()));
        let unknown = init(Suite(0x7f), &[Suite(0x7f)], 48);
        assert_eq!(Init::decode(&unknown), Err(InitError::Suite(0x7f)));
        let twice = init(nk, &[nk, nk], 48);
        assert_eq!(Init::decode(&twice), Err(DecodeError::InvalidValue("offered suites").into()));
        for len in [0, 47, 49, 96] {
            assert!(Init::decode(&init(nk, &[nk], len)).is_err());
        }
        let mut no_key = good.clone();
        no_key[4..12].fill(0);
        assert_eq!(Init::decode(&no_key), Err(DecodeError::InvalidValue("key_id").into()));
    }

    #[test]
    fn server_hello_round_trips_and_refuses_padding() {
        let hello = ServerHello {
            suites: Suite::ALL.to_vec(),
            server_time_ms: 1,
            message_max: 2,
            calls_max: 3,
            subscriptions_max: 4,
            heartbeat_ms: 5,
            idle_timeout_ms: 6,
            connection_id: [7; 16],
        };
        let block = hello.encode();
        assert_eq!(ServerHello::decode(&block), Ok(hello));
        for (at, to) in [(0, 2), (1, 0), (1, 15), (15, 1), (63, 1)] {
            let mut changed = block;
            changed[at] = to;
            assert!(ServerHello::decode(&changed).is_err(), "byte {at}");
        }
        assert!(ServerHello::decode(&block[..63]).is_err());
    }

    #[test]
    fn refusal_is_three_bytes() {
        assert_eq!(encode_refusal(ErrorCode::UNKNOWN_KEY), [0xFF, 0, 36]);
        assert_eq!(decode_refusal(&[0xFF, 0, 36]), Some(ErrorCode::UNKNOWN_KEY));
        assert_eq!(decode_refusal(&[0xFF, 0]), None);
        assert_eq!(decode_refusal(&[0xFF, 0, 36, 0]), None);
    }
}
