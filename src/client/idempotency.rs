//! The name of a call that may be sent again.

use super::Error;
use std::{fmt, str::FromStr};

/// 16 bytes that name one call: a server that has answered a call under this key gives the same answer again instead of
/// doing it twice (specification, section 12.2). In text, 32 hexadecimal digits.
///
/// Whoever wants to repeat a call from another process keeps the key with what is to be done; one that is drawn and
/// forgotten protects as long as the call's own attempts go on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(pub [u8; 16]);

impl IdempotencyKey {
    /// A new key from the system's random generator.
    ///
    /// # Errors
    /// [`Error::Random`]
    pub fn random() -> Result<Self, Error> {
        let mut key = [0; 16];
        getrandom::fill(&mut key).map_err(Error::Random)?;
        Ok(Self(key))
    }
}

impl From<[u8; 16]> for IdempotencyKey {
    fn from(key: [u8; 16]) -> Self {
        Self(key)
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdempotencyKey({self})")
    }
}

/// The text is not 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key is 32 hexadecimal digits")]
pub struct InvalidIdempotencyKey;

impl FromStr for IdempotencyKey {
    type Err = InvalidIdempotencyKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A sign is a number to the standard library, and none to us.
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidIdempotencyKey);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| InvalidIdempotencyKey)?;
        Ok(Self(number.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_as_it_is_written() {
        let key = IdempotencyKey([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(key.to_string(), "000102030405060708090a0b0c0d0eff");
        assert_eq!(key.to_string().to_uppercase().parse(), Ok(key));
        let digits = "0".repeat(30);
        for wrong in ["", "0", "+f", "0x", " 0", "ä", "gg", "000"] {
            assert_eq!(
                format!("{wrong}{digits}").parse::<IdempotencyKey>(),
                Err(InvalidIdempotencyKey),
                "{wrong}"
            );
        }
    }

    #[test]
    fn drawn_keys_differ() {
        let drawn: std::collections::HashSet<_> =
            (0..100).map(|_| IdempotencyKey::random().expect("random bytes")).collect();
        assert_eq!(drawn.len(), 100);
    }
}
