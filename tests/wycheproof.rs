//! Project Wycheproof's vectors for what the handshake and the transport are made of: 1,419 in five sets.
//!
//! Every vector is judged; none is skipped for its size. X25519, ChaCha20-Poly1305 and AES-256-GCM with a 96-bit nonce
//! and a 128-bit tag run through our providers. The other sizes cannot be said to our interface at all, so they are
//! judged as follows, and the tests assert how many there are of each kind:
//!
//! - A nonce that is not 96 bits long is refused by the type of our interface, and by `aws-lc-rs` itself.
//! - AES-128-GCM and AES-192-GCM with a 96-bit nonce run through `aes-gcm` and `aws-lc-rs`, below our providers.
//! - AES-GCM with another nonce runs through `aes-gcm`, whose type takes the length as a parameter. A nonce of zero
//!   bytes, which the standard forbids, is refused by our interface and by `aws-lc-rs`.
//! - HKDF and HMAC with SHA-256 are the `hkdf` and `hmac` packages with either provider, so they run once. HKDF vectors
//!   with an empty salt run through our own function as well.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test panics to fail and prints what it counted"
)]

mod noise_support;

use std::collections::BTreeMap;

use aes_gcm::aead::consts::{U1, U2, U4, U6, U8, U10, U12, U15, U16, U20, U32, U64, U128, U257};
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::aes::{Aes128, Aes192, Aes256};
use aes_gcm::{AesGcm, Nonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use noise_support::providers;
use raystream::noise::{CipherAlgorithm, DecryptError, DhError, NONCELEN};
use raystream::primitives::{self, InvalidLength};
use sha2::Sha256;
use wycheproof::{TestResult, aead, hkdf as hkdf_set, mac, xdh};

const X25519_COUNT: usize = 518;
const CHACHA20_POLY1305_COUNT: usize = 325;
const AES_GCM_COUNT: usize = 316;
const HKDF_SHA256_COUNT: usize = 86;
const HMAC_SHA256_COUNT: usize = 174;
const _: () = assert!(
    X25519_COUNT + CHACHA20_POLY1305_COUNT + AES_GCM_COUNT + HKDF_SHA256_COUNT + HMAC_SHA256_COUNT == 1_419
);

/// How many vectors were judged in which way.
type Judged = BTreeMap<&'static str, usize>;

fn conclude(set: &str, judged: &Judged, expected: usize) {
    println!("{set}: {} vectors judged {judged:?}", judged.values().sum::<usize>());
    assert_eq!(judged.values().sum::<usize>(), expected);
}

#[test]
fn x25519() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    let mut judged = Judged::new();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let public: [u8; 32] = test.public_key.as_slice().try_into().unwrap();
        let secret: [u8; 32] = test.private_key.as_slice().try_into().unwrap();
        let shared: [u8; 32] = test.shared_secret.as_slice().try_into().unwrap();
        assert!(!test.result.must_fail(), "the set has no invalid vector");
        let refused = shared == [0; 32];
        assert_eq!(refused, test.flags.contains(&xdh::TestFlag::ZeroSharedSecret));
        for provider in providers() {
            let output = provider.dh(&secret, &public).map(|output| *output);
            let expected = if refused { Err(DhError) } else { Ok(shared) };
            assert_eq!(output, expected, "{provider:?} {}", test.tc_id);
        }
        *judged.entry(if refused { "all zeros, refused" } else { "computed" }).or_default() += 1;
    }
    conclude("x25519", &judged, X25519_COUNT);
    assert_eq!(judged["all zeros, refused"], 31);
}

#[test]
fn chacha20_poly1305() {
    let set = aead::TestSet::load(aead::TestName::ChaCha20Poly1305).unwrap();
    let mut judged = Judged::new();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let how = if test.nonce.len() == NONCELEN {
            through_our_providers(CipherAlgorithm::ChaChaPoly, test)
        } else {
            refused_for_its_nonce(test)
        };
        *judged.entry(how).or_default() += 1;
    }
    conclude("chacha20_poly1305", &judged, CHACHA20_POLY1305_COUNT);
    assert_eq!(judged, Judged::from([("by our providers", 316), ("refused for its nonce", 9)]));
}

#[test]
fn aes_gcm() {
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    let mut judged = Judged::new();
    for group in &set.test_groups {
        assert_eq!(group.tag_size, 128);
        for test in &group.tests {
            let how = match (group.key_size, group.nonce_size) {
                (256, 96) => through_our_providers(CipherAlgorithm::AesGcm, test),
                (_, 0) => refused_for_its_nonce(test),
                (_, 96) => {
                    through_aws_lc(group.key_size, test);
                    through_aes_gcm(group.key_size, test);
                    "another key, by the packages below our providers"
                }
                _ => {
                    assert!(!test.result.must_fail());
                    assert_unsayable(&test.nonce);
                    through_aes_gcm(group.key_size, test);
                    "another nonce, by aes-gcm"
                }
            };
            *judged.entry(how).or_default() += 1;
        }
    }
    conclude("aes_gcm", &judged, AES_GCM_COUNT);
    assert_eq!(
        judged,
        Judged::from([
            ("by our providers", 66),
            ("refused for its nonce", 6),
            ("another key, by the packages below our providers", 131),
            ("another nonce, by aes-gcm", 113),
        ])
    );
}

#[test]
fn hkdf_sha256() {
    let set = hkdf_set::TestSet::load(hkdf_set::TestName::HkdfSha256).unwrap();
    let (mut judged, mut ours) = (Judged::new(), 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let mut okm = vec![0; test.size];
        let expanded = Hkdf::<Sha256>::new(Some(&test.salt), &test.ikm).expand(&test.info, &mut okm);
        assert_eq!(expanded.is_err(), test.result.must_fail(), "{}", test.tc_id);
        if test.salt.is_empty() {
            let expected =
                if test.result.must_fail() { Err(InvalidLength) } else { Ok(test.okm.to_vec().into()) };
            assert_eq!(primitives::hkdf(&test.ikm, &test.info, test.size), expected, "{}", test.tc_id);
            ours += 1;
        }
        if expanded.is_ok() {
            assert_eq!(okm, *test.okm, "{}", test.tc_id);
        }
        *judged.entry(if expanded.is_ok() { "computed" } else { "refused as too long" }).or_default() += 1;
    }
    println!("hkdf_sha256: {ours} of them by our own function too");
    conclude("hkdf_sha256", &judged, HKDF_SHA256_COUNT);
    assert_eq!(judged["refused as too long"], 3);
    assert_eq!(ours, 23);
}

#[test]
fn hmac_sha256() {
    let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
    let mut judged = Judged::new();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let hmac = Hmac::<Sha256>::new_from_slice(&test.key).unwrap().chain_update(&*test.msg);
        // A truncated tag is the head of the full one.
        let verified = hmac.clone().verify_truncated_left(&test.tag);
        assert_eq!(verified.is_err(), test.result.must_fail(), "{}", test.tc_id);
        let computed = hmac.finalize().into_bytes();
        assert_eq!(computed[..test.tag.len()] == **test.tag, !test.result.must_fail(), "{}", test.tc_id);
        *judged.entry(if verified.is_ok() { "accepted" } else { "refused" }).or_default() += 1;
    }
    conclude("hmac_sha256", &judged, HMAC_SHA256_COUNT);
    assert_eq!(judged["refused"], 108);
}

/// Seals and opens a vector of our sizes with every provider.
fn through_our_providers(algorithm: CipherAlgorithm, test: &aead::Test) -> &'static str {
    let key = test.key.as_slice().try_into().unwrap();
    let nonce = test.nonce.as_slice().try_into().unwrap();
    let tag = test.tag.as_slice().try_into().unwrap();
    for provider in providers() {
        let aead = provider.aead(algorithm, key);
        let mut text = test.pt.to_vec();
        let sealed = aead.seal_in_place(nonce, &test.aad, &mut text);
        let mut opened = test.ct.to_vec();
        let result = aead.open_in_place(nonce, &test.aad, &mut opened, tag);
        match test.result {
            TestResult::Valid => {
                assert_eq!((&text, &sealed), (&*test.ct, tag), "{provider:?} {}", test.tc_id);
                assert_eq!((result, &opened), (Ok(()), &*test.pt), "{provider:?} {}", test.tc_id);
            }
            TestResult::Invalid => {
                assert_ne!((&text, &sealed), (&*test.ct, tag), "{provider:?} {}", test.tc_id);
                let zeros = vec![0; test.ct.len()];
                assert_eq!((result, &opened), (Err(DecryptError), &zeros), "{provider:?} {}", test.tc_id);
            }
            TestResult::Acceptable => panic!("the sets have no such vector"),
        }
    }
    "by our providers"
}

/// A nonce that our interface has no words for: it takes an array of 12 bytes. `aws-lc-rs` refuses it as well.
fn assert_unsayable(nonce: &[u8]) {
    assert!(<&[u8; NONCELEN]>::try_from(nonce).is_err());
    #[cfg(feature = "server")]
    assert!(aws_lc_rs::aead::Nonce::try_assume_unique_for_key(nonce).is_err());
}

fn refused_for_its_nonce(test: &aead::Test) -> &'static str {
    assert!(test.result.must_fail(), "{}", test.tc_id);
    assert_unsayable(&test.nonce);
    "refused for its nonce"
}

/// AES-GCM with a 96-bit nonce and any key below the provider `aws_lc`.
#[cfg(feature = "server")]
fn through_aws_lc(key_bits: usize, test: &aead::Test) {
    use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

    let algorithm = match key_bits {
        128 => &AES_128_GCM,
        192 => &AES_192_GCM,
        256 => &AES_256_GCM,
        other => panic!("no AES with {other} bits"),
    };
    let key = LessSafeKey::new(UnboundKey::new(algorithm, &test.key).unwrap());
    let nonce = || Nonce::try_assume_unique_for_key(&test.nonce).unwrap();
    let mut text = test.pt.to_vec();
    let tag = key.seal_in_place_separate_tag(nonce(), Aad::from(&*test.aad), &mut text).unwrap();
    let valid = !test.result.must_fail();
    assert_eq!(text == **test.ct && tag.as_ref() == &**test.tag, valid, "{}", test.tc_id);
    let mut text = test.ct.to_vec();
    let opened = key.open_in_place_separate_tag(nonce(), Aad::from(&*test.aad), &test.tag, &mut text);
    assert_eq!(opened.map(|text| text.to_vec()).ok(), valid.then(|| test.pt.to_vec()), "{}", test.tc_id);
}

#[cfg(not(feature = "server"))]
fn through_aws_lc(_key_bits: usize, _test: &aead::Test) {}

/// AES-GCM with any key and nonce of the set, below the provider `rust_crypto`.
fn through_aes_gcm(key_bits: usize, test: &aead::Test) {
    macro_rules! judge {
        ($($length:literal => $size:ty),*) => {
            match (key_bits, test.nonce.len()) {
                $(
                    (128, $length) => judge_aes_gcm(&AesGcm::<Aes128, $size>::new_from_slice(&test.key).unwrap(), test),
                    (192, $length) => judge_aes_gcm(&AesGcm::<Aes192, $size>::new_from_slice(&test.key).unwrap(), test),
                    (256, $length) => judge_aes_gcm(&AesGcm::<Aes256, $size>::new_from_slice(&test.key).unwrap(), test),
                )*
                sizes => panic!("no judge for a key and a nonce of {sizes:?}"),
            }
        };
    }
    judge!(1 => U1, 2 => U2, 4 => U4, 6 => U6, 8 => U8, 10 => U10, 12 => U12, 15 => U15, 16 => U16, 20 => U20,
        32 => U32, 64 => U64, 128 => U128, 257 => U257)
}

fn judge_aes_gcm<A: AeadInOut<TagSize = U16>>(cipher: &A, test: &aead::Test) {
    let nonce: &Nonce<A::NonceSize> = test.nonce.as_slice().try_into().unwrap();
    let valid = !test.result.must_fail();
    let mut text = test.pt.to_vec();
    let tag = cipher.encrypt_inout_detached(nonce, &test.aad, text.as_mut_slice().into()).unwrap();
    assert_eq!(text == **test.ct && tag.as_slice() == &**test.tag, valid, "{}", test.tc_id);
    let mut text = test.ct.to_vec();
    let tag = test.tag.as_slice().try_into().unwrap();
    let opened = cipher.decrypt_inout_detached(nonce, &test.aad, text.as_mut_slice().into(), tag);
    assert_eq!(opened.is_ok(), valid, "{}", test.tc_id);
    if valid {
        assert_eq!(text, *test.pt, "{}", test.tc_id);
    }
}
