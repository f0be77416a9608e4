//! Payloads of the frames that steer the connection: HEARTBEAT, CREDIT, GOAWAY, CLOSE.

use super::{DecodeError, ErrorCode, Reader, limits::CLOSE_REASON_MAX};

/// HEARTBEAT: eight bytes that mean something to their sender only, and come back with ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat(pub u64);

impl Heartbeat {
    /// Reads the whole payload.
    ///
    /// # Errors
    /// A payload that is not eight bytes.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        let stamp = reader.u64("HEARTBEAT")?;
        reader.finish("HEARTBEAT")?;
        Ok(Self(stamp))
    }

    /// The payload.
    pub fn encode(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }
}

/// CREDIT: so many more items may be sent on the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit(pub u32);

impl Credit {
    /// Reads the whole payload.
    ///
    /// # Errors
    /// A payload that is not four bytes, or a credit of zero.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        let items = reader.u32("CREDIT")?;
        reader.finish("CREDIT")?;
        if items == 0 { Err(DecodeError::InvalidValue("CREDIT")) } else { Ok(Self(items)) }
    }

    /// The payload.
    pub fn encode(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }
}

/// GOAWAY: the server takes no new stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoAway {
    /// How long the client waits before it connects again, in milliseconds; spread by the server so that clients do not
    /// come back all at once.
    pub delay_ms: u32,
    /// The last stream that was taken; later ones were not processed.
    pub last_stream: u32,
    /// Why.
    pub code: ErrorCode,
}

impl GoAway {
    /// Reads the whole payload.
    ///
    /// # Errors
    /// A payload that is not ten bytes.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        let delay_ms = reader.u32("GOAWAY delay")?;
        let last_stream = reader.u32("GOAWAY last stream")?;
        let code = ErrorCode(reader.u16("GOAWAY code")?);
        reader.finish("GOAWAY")?;
        Ok(Self { delay_ms, last_stream, code })
    }

    /// The payload.
    pub fn encode(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(10);
        out.extend_from_slice(&self.delay_ms.to_be_bytes());
        out.extend_from_slice(&self.last_stream.to_be_bytes());
        out.extend_from_slice(&self.code.0.to_be_bytes());
        out
    }
}

/// CLOSE: the last frame of a side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// Why, as a number.
    pub code: ErrorCode,
    /// Why, for a person; at most [`CLOSE_REASON_MAX`] bytes.
    pub reason: String,
}

impl Close {
    /// Reads the whole payload.
    ///
    /// # Errors
    /// A payload that is too short or too long, or a reason that is not UTF-8.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        let code = ErrorCode(reader.u16("CLOSE code")?);
        let reason = reader.rest();
        if reason.len() > CLOSE_REASON_MAX {
            return Err(DecodeError::TooLong("CLOSE reason"));
        }
        let reason = std::str::from_utf8(reason).map_err(|_| DecodeError::InvalidValue("CLOSE reason"))?;
        Ok(Self { code, reason: reason.to_owned() })
    }

    /// The payload; a reason over its limit is cut at a character.
    pub fn encode(&self) -> Vec<u8> {
        let mut end = self.reason.len().min(CLOSE_REASON_MAX);
        while !self.reason.is_char_boundary(end) {
            end -= 1;
        }
        let mut out = self.code.0.to_be_bytes().to_vec();
        out.extend_from_slice(&self.reason.as_bytes()[..end]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses_other_lengths() {
        assert_eq!(Heartbeat::decode(&Heartbeat(5).encode()), Ok(Heartbeat(5)));
        assert!(Heartbeat::decode(&[0; 7]).is_err());
        assert!(Heartbeat::decode(&[0; 9]).is_err());
        assert_eq!(Credit::decode(&Credit(5).encode()), Ok(Credit(5)));
        assert_eq!(Credit::decode(&[0; 4]), Err(DecodeError::InvalidValue("CREDIT")));
        let go_away = GoAway { delay_ms: 1, last_stream: 2, code: ErrorCode::GOING_AWAY };
        assert_eq!(go_away.encode(), [0, 0, 0, 1, 0, 0, 0, 2, 0, 40]);
        assert_eq!(GoAway::decode(&go_away.encode()), Ok(go_away));
        let close = Close { code: ErrorCode::NO_ERROR, reason: "done".into() };
        assert_eq!(close.encode(), [0, 32, b'd', b'o', b'n', b'e']);
        assert_eq!(Close::decode(&close.encode()), Ok(close));
        assert_eq!(Close::decode(&[0, 32, 0xff]), Err(DecodeError::InvalidValue("CLOSE reason")));
        assert!(Close::decode(&[0; 3 + CLOSE_REASON_MAX]).is_err());
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let close = Close { code: ErrorCode::NO_ERROR, reason: "ä".repeat(CLOSE_REASON_MAX) };
        assert_eq!(Close::decode(&close.encode()).unwrap().reason, "ä".repeat(CLOSE_REASON_MAX / 2));
    }
}
