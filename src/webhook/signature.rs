//! The signature of the Standard Webhooks specification: HMAC-SHA256 over `id.timestamp.body`.

use std::fmt;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::base64;

/// The header with the id of the event: the same for each attempt to deliver it.
pub const HEADER_ID: &str = "webhook-id";
/// The header with the time of the attempt, in whole seconds since 1970.
pub const HEADER_TIMESTAMP: &str = "webhook-timestamp";
/// The header with the signatures, separated by spaces.
pub const HEADER_SIGNATURE: &str = "webhook-signature";

/// The bytes of a secret that is made here: those of the hash.
pub const SECRET_LEN: usize = 32;
/// The fewest bytes of a secret, by the specification.
pub const SECRET_LEN_MIN: usize = 24;
/// The most bytes of a secret, by the specification.
pub const SECRET_LEN_MAX: usize = 64;

/// How far the time of an attempt may be from the receiver's: clocks differ, and what is older may be a recording.
pub const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// What a secret's text begins with.
const SECRET_PREFIX: &str = "whsec_";
/// What a signature of this scheme begins with.
const SIGNATURE_PREFIX: &str = "v1,";

/// The secret that sender and receiver share. It is wiped when it is dropped, and not printed by `{:?}`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// The text or the bytes are no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not `whsec_` and base64.
    #[error("a secret is `whsec_` and base64 with padding behind it")]
    Malformed,
    /// Too short to be secret, or longer than receivers take.
    #[error("a secret has {SECRET_LEN_MIN} to {SECRET_LEN_MAX} bytes, this one has {0}")]
    Length(usize),
}

/// Why a message is not to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// `webhook-timestamp` is no number of seconds.
    #[error("webhook-timestamp is no whole number of seconds")]
    Timestamp,
    /// It was sent too long ago, or is from the future.
    #[error("the message was not sent within the last minutes, by the clock here")]
    Stale,
    /// No signature in `webhook-signature` is of this message and this secret.
    #[error("no signature fits the message")]
    Mismatch,
}

impl Secret {
    /// A secret from its bytes: [`SECRET_LEN_MIN`] to [`SECRET_LEN_MAX`].
    ///
    /// # Errors
    /// [`SecretError::Length`]
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SecretError> {
        if !(SECRET_LEN_MIN..=SECRET_LEN_MAX).contains(&bytes.len()) {
            return Err(SecretError::Length(bytes.len()));
        }
        Ok(Self(Zeroizing::new(bytes.to_vec())))
    }

    /// Reads `whsec_..`, with white space around it.
    ///
    /// # Errors
    /// [`SecretError`]
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let encoded = text.trim().strip_prefix(SECRET_PREFIX).ok_or(SecretError::Malformed)?;
        Self::from_bytes(&Zeroizing::new(base64::decode(encoded).ok_or(SecretError::Malformed)?))
    }

    /// The text that receivers are set up with.
    pub fn expose(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{SECRET_PREFIX}{}", *Zeroizing::new(base64::encode(&self.0))))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn mac(&self, id: &str, timestamp: u64, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        mac
    }

    /// The value of [`HEADER_SIGNATURE`] for a message. `timestamp` is in seconds since 1970; an id has no full stop.
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let tag = self.mac(id, timestamp, body).finalize().into_bytes();
        format!("{SIGNATURE_PREFIX}{}", base64::encode(&tag))
    }

    /// Whether a message is one that the holder of the secret sent, at most [`TOLERANCE`] from `now` (seconds since 1970). The
    /// three texts are the values of the headers. Takes the same time whatever differs in a signature.
    ///
    /// # Errors
    /// [`SignatureError`]
    pub fn verify(
        &self,
        id: &str,
        timestamp: &str,
        signatures: &str,
        body: &[u8],
        now: u64,
    ) -> Result<(), SignatureError> {
        let sent: u64 = timestamp.parse().map_err(|_| SignatureError::Timestamp)?;
        // `+5` and `05` are numbers for the parser, and another text than what was signed.
        if sent.to_string() != timestamp {
            return Err(SignatureError::Timestamp);
        }
        if sent.abs_diff(now) > TOLERANCE.as_secs() {
            return Err(SignatureError::Stale);
        }
        let tags =
            signatures.split(' ').filter_map(|text| base64::decode(text.strip_prefix(SIGNATURE_PREFIX)?));
        for tag in tags {
            if self.mac(id, sent, body).verify_slice(&tag).is_ok() {
                return Ok(());
            }
        }
        Err(SignatureError::Mismatch)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const SENT: u64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    #[test]
    fn the_published_example_comes_out() {
        let secret = Secret::parse(SECRET).unwrap();
        assert_eq!(secret.sign(ID, SENT, BODY), SIGNATURE);
        assert_eq!(secret.expose().as_str(), SECRET);
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }

    #[test]
    fn only_the_message_that_was_signed_verifies_and_only_for_minutes() {
        let secret = Secret::parse(SECRET).unwrap();
        let verify = |id: &str, sent: &str, signatures: &str, body: &[u8], now: u64| {
            secret.verify(id, sent, signatures, body, now)
        };
        let sent = SENT.to_string();
        assert_eq!(verify(ID, &sent, SIGNATURE, BODY, SENT + 300), Ok(()));
        assert_eq!(verify(ID, &sent, &format!("v1a,AAAA v1,AAAA {SIGNATURE}"), BODY, SENT - 300), Ok(()));
        assert_eq!(verify(ID, &sent, SIGNATURE, BODY, SENT + 301), Err(SignatureError::Stale));
        assert_eq!(verify(ID, &sent, SIGNATURE, BODY, SENT - 301), Err(SignatureError::Stale));
        for (id, sent, signatures, body) in [
            ("msg_other", sent.as_str(), SIGNATURE, BODY),
            (ID, "1614265331", SIGNATURE, BODY),
            (ID, &sent, SIGNATURE, b"{}"),
            (ID, &sent, "", BODY),
            (ID, &sent, "v1,", BODY),
            (ID, &sent, "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", BODY),
            (ID, &sent, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OA=", BODY),
        ] {
            let refused = verify(id, sent, signatures, body, SENT);
            assert_eq!(refused, Err(SignatureError::Mismatch), "{id} {sent} {signatures}");
        }
        for sent in ["", "now", "+1614265330", "01614265330", "-1"] {
            assert_eq!(verify(ID, sent, SIGNATURE, BODY, SENT), Err(SignatureError::Timestamp), "{sent}");
        }
        let other = Secret::from_bytes(&[7; SECRET_LEN]).unwrap();
        assert_eq!(other.verify(ID, &sent, SIGNATURE, BODY, SENT), Err(SignatureError::Mismatch));
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for text in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_###", "WHSEC_AAAA"] {
            assert!(Secret::parse(text).is_err(), "{text}");
        }
        assert_eq!(Secret::from_bytes(&[1; 23]), Err(SecretError::Length(23)));
        assert_eq!(Secret::from_bytes(&[1; 65]), Err(SecretError::Length(65)));
        assert_eq!(Secret::parse(&format!(" {SECRET}\n")), Secret::parse(SECRET));
    }
}
