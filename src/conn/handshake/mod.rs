//! The handshake: one Noise message each way (specification, "Handshake"). Each state is consumed by the message it
//! awaits.

pub(super) mod client;
pub(super) mod server;

use super::ConnectionError;
use crate::noise::{CipherAlgorithm, NoiseError, Pattern};
use crate::wire::Suite;

/// The pattern and cipher of a known suite.
fn noise_parameters(suite: Suite) -> Option<(Pattern, CipherAlgorithm)> {
    let cipher = match suite.cipher_name()? {
        "ChaChaPoly" => CipherAlgorithm::ChaChaPoly,
        "AESGCM" => CipherAlgorithm::AesGcm,
        _ => return None,
    };
    let pattern = match suite.pattern_name()? {
        "NK" => Pattern::NK,
        "IK" => Pattern::IK,
        "NX" => Pattern::NX,
        "IKpsk2" => Pattern::IKpsk2,
        "NKpsk2" => Pattern::NKpsk2,
        _ => return None,
    };
    Some((pattern, cipher))
}

/// Every failure inside Noise looks the same from outside.
fn decryption(_: NoiseError) -> ConnectionError {
    ConnectionError::Decryption
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_has_noise_parameters() {
        assert!(Suite::ALL.iter().all(|suite| noise_parameters(*suite).is_some()));
        assert!(noise_parameters(Suite(0x80)).is_none());
    }
}
