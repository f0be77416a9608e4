//! What the tests of the handshake and of the primitives share.
#![allow(dead_code, reason = "each test takes what it needs")]

use raystream::noise::{CryptoProvider, rust_crypto};

/// Every provider of this build.
pub(crate) fn providers() -> Vec<&'static dyn CryptoProvider> {
    vec![
        rust_crypto(),
        #[cfg(feature = "server")]
        raystream::noise::aws_lc(),
    ]
}

/// Bytes of hexadecimal digits; white space counts for nothing.
pub(crate) fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).unwrap().try_into().unwrap())
        .collect();
    assert_eq!(digits.len() % 2, 0, "an odd number of digits");
    digits.chunks(2).map(|pair| (pair[0] << 4) | pair[1]).collect()
}

/// As [`hex`], for a known number of bytes.
pub(crate) fn hex_array<const N: usize>(digits: &str) -> [u8; N] {
    hex(digits).try_into().unwrap_or_else(|bytes: Vec<u8>| panic!("{} bytes instead of {N}", bytes.len()))
}
