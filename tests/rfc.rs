//! The examples that the RFCs print, with every provider.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod noise_support;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use noise_support::{hex, hex_array, providers};
use raystream::noise::{CipherAlgorithm, DecryptError, DhError, rust_crypto};
use raystream::primitives::{self, Sealed};
use sha2::Sha256;

/// RFC 7748 section 5.2: scalar, u-coordinate, result.
const X25519: [[&str; 3]; 2] = [
    [
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    ],
    [
        "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
        "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
        "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
    ],
];

#[test]
fn rfc_7748_section_5_2() {
    for provider in providers() {
        for [scalar, u, result] in X25519 {
            let output = provider.dh(&hex_array(scalar), &hex_array(u)).unwrap();
            assert_eq!(*output, hex_array(result), "{provider:?}");
        }
    }
}

/// RFC 7748 section 5.2: the result becomes the scalar, the scalar the u-coordinate, again and again.
#[test]
fn rfc_7748_section_5_2_iterated() {
    const AFTER_1: &str = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079";
    const AFTER_1_000: &str = "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51";
    const AFTER_1_000_000: &str = "7c3911e0ab2586fd864497297e575e6f3bc601c0883c30df5f4dd2d24f665424";
    // A million takes a minute where debug assertions slow the arithmetic down, so only builds without them do it.
    let last = if cfg!(debug_assertions) { 1_000 } else { 1_000_000 };

    std::thread::scope(|scope| {
        for provider in providers() {
            scope.spawn(move || {
                let mut k = [0; 32];
                k[0] = 9;
                let mut u = k;
                for i in 1..=last {
                    let result = *provider.dh(&k, &u).unwrap();
                    (k, u) = (result, k);
                    match i {
                        1 => assert_eq!(k, hex_array(AFTER_1), "{provider:?}"),
                        1_000 => assert_eq!(k, hex_array(AFTER_1_000), "{provider:?}"),
                        1_000_000 => assert_eq!(k, hex_array(AFTER_1_000_000), "{provider:?}"),
                        _ => {}
                    }
                }
            });
        }
    });
}

#[test]
fn rfc_7748_section_6_1() {
    let alice = hex_array("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    let alice_public = hex_array("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    let bob = hex_array("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    let bob_public = hex_array("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
    let shared: [u8; 32] = hex_array("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    for provider in providers() {
        assert_eq!(provider.public_key(&alice), alice_public);
        assert_eq!(provider.public_key(&bob), bob_public);
        assert_eq!(*provider.dh(&alice, &bob_public).unwrap(), shared);
        assert_eq!(*provider.dh(&bob, &alice_public).unwrap(), shared);
        // "The check for the all-zero value": the points 0 and 1, of order 4 and 1.
        for low_order in [0, 1] {
            let mut public = [0; 32];
            public[0] = low_order;
            assert_eq!(provider.dh(&alice, &public), Err(DhError), "{provider:?}");
        }
    }
}

struct Aead {
    key: &'static str,
    nonce: &'static str,
    ad: &'static str,
    plaintext: &'static str,
    ciphertext: &'static str,
    tag: &'static str,
}

/// RFC 8439 section 2.8.2.
const SUNSCREEN: Aead = Aead {
    key: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
    nonce: "070000004041424344454647",
    ad: "50515253c0c1c2c3c4c5c6c7",
    plaintext: "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen \
        would be it.",
    ciphertext:
        "d31a8d34648e60db7b86afbc53ef7ec2 a4aded51296e08fea9e2b5a736ee62d6 3dbea45e8ca9671282fafb69da92728b
        1a71de0a9e060b2905d6a5b67ecd3b36 92ddbd7f2d778b8c9803aee328091b58 fab324e4fad675945585808b4831d7bc
        3ff4def08e4b7a9de576d26586cec64b 6116",
    tag: "1ae10b594f09e26a7e902ecbd0600691",
};

/// RFC 8439 appendix A.5.
const INTERNET_DRAFTS: Aead = Aead {
    key: "1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0",
    nonce: "000000000102030405060708",
    ad: "f33388860000000000004e91",
    plaintext: "Internet-Drafts are draft documents valid for a maximum of six months and may be updated, replaced, \
        or obsoleted by other documents at any time. It is inappropriate to use Internet-Drafts as reference \
        material or to cite them other than as /“work in progress./”",
    ciphertext:
        "64a0861575861af460f062c79be643bd 5e805cfd345cf389f108670ac76c8cb2 4c6cfc18755d43eea09ee94e382d26b0
        bdb7b73c321b0100d4f03b7f355894cf 332f830e710b97ce98c8a84abd0b9481 14ad176e008d33bd60f982b1ff37c855
        9797a06ef4f0ef61c186324e2b350638 3606907b6a7c02b0f9f6157b53c867e4 b9166c767b804d46a59b5216cde7a4e9
        9040c5a40433225ee282a1b0a06c523e af4534d7f83fa1155b0047718cbc546a 0d072b04b3564eea1b422273f548271a
        0bb2316053fa76991955ebd63159434e cebb4e466dae5a1073a6727627097a10 49e617d91d361094fa68f0ff77987130
        305beaba2eda04df997b714d6c6f2c29 a6ad5cb4022b02709b",
    tag: "eead9d67890cbb22392336fea1851f38",
};

#[test]
fn rfc_8439_section_2_8_2_and_appendix_a_5() {
    for provider in providers() {
        for Aead { key, nonce, ad, plaintext, ciphertext, tag } in [SUNSCREEN, INTERNET_DRAFTS] {
            let key = provider.aead(CipherAlgorithm::ChaChaPoly, &hex_array(key));
            let (nonce, ad, tag) = (hex_array(nonce), hex(ad), hex_array(tag));
            let mut text = plaintext.as_bytes().to_vec();
            assert_eq!(key.seal_in_place(&nonce, &ad, &mut text), tag, "{provider:?}");
            assert_eq!(text, hex(ciphertext), "{provider:?}");
            assert_eq!(key.open_in_place(&nonce, &ad, &mut text, &tag), Ok(()));
            assert_eq!(text, plaintext.as_bytes());
            assert_eq!(key.open_in_place(&nonce, &ad, &mut text, &tag), Err(DecryptError));
            assert!(text.iter().all(|byte| *byte == 0));
        }
    }
}

/// RFC 5869 appendix A: IKM, salt, info, PRK, OKM.
fn hkdf_cases() -> [[Vec<u8>; 5]; 3] {
    let range = |first: u8, last: u8| (first..=last).collect::<Vec<u8>>();
    [
        [
            vec![0x0b; 22],
            range(0x00, 0x0c),
            range(0xf0, 0xf9),
            hex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"),
            hex("3cb25f25faacd57a90434f64d0362f2a 2d2d0a90cf1a5a4c5db02d56ecc4c5bf 34007208d5b887185865"),
        ],
        [
            range(0x00, 0x4f),
            range(0x60, 0xaf),
            range(0xb0, 0xff),
            hex("06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244"),
            hex("b11e398dc80327a1c8e7f78c596a4934 4f012eda2d4efad8a050cc4c19afa97c 59045a99cac7827271cb41c65e590e09
                da3275600c2f09b8367793a9aca3db71 cc30c58179ec3e87c14c01d5c1f3434f 1d87"),
        ],
        [
            vec![0x0b; 22],
            Vec::new(),
            Vec::new(),
            hex("19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04"),
            hex("8da4e775a563c18f715f802a063c5a31 b8a11f5c5ee1879ec3454e5f3c738d2d 9d201395faa4b61a96c8"),
        ],
    ]
}

#[test]
fn rfc_5869_appendix_a_1_to_3() {
    for [ikm, salt, info, prk, okm] in hkdf_cases() {
        let (extracted, hkdf) = Hkdf::<Sha256>::extract(Some(&salt), &ikm);
        assert_eq!(extracted.to_vec(), prk);
        let mut expanded = vec![0; okm.len()];
        hkdf.expand(&info, &mut expanded).unwrap();
        assert_eq!(expanded, okm);
        // Our own function has no salt: appendix A.3.
        if salt.is_empty() {
            assert_eq!(*primitives::hkdf(&ikm, &info, okm.len()).unwrap(), okm);
        }
    }
}

#[test]
fn rfc_4231_section_4() {
    let long_key = vec![0xaa; 131];
    // Key, data, HMAC-SHA-256; test case 5 states the first 128 bits only.
    let cases: [(Vec<u8>, Vec<u8>, &str); 7] = [
        (vec![0x0b; 20], b"Hi There".to_vec(), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (
            b"Jefe".to_vec(),
            b"what do ya want for nothing?".to_vec(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (vec![0xaa; 20], vec![0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        (
            (0x01..=0x19).collect(),
            vec![0xcd; 50],
            "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
        ),
        (vec![0x0c; 20], b"Test With Truncation".to_vec(), "a3b6167473100ee06e0c796c2955552b"),
        (
            long_key.clone(),
            b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (
            long_key,
            b"This is a test using a larger than block-size key and a larger than block-size data. The key needs to be \
              hashed before being used by the HMAC algorithm."
                .to_vec(),
            "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
        ),
    ];
    for (key, data, expected) in cases {
        let expected = hex(expected);
        let mac = Hmac::<Sha256>::new_from_slice(&key).unwrap().chain_update(data).finalize().into_bytes();
        assert_eq!(mac[..expected.len()], expected);
    }
}

#[test]
fn the_plain_functions_seal_as_rfc_8439_and_refuse_every_change() {
    let (key, nonce) = (hex_array(SUNSCREEN.key), hex_array(SUNSCREEN.nonce));
    let plaintext = SUNSCREEN.plaintext.as_bytes();
    let sealed = primitives::encrypt(plaintext, &key, nonce);
    // The ciphertext is that of the RFC; the tag is not, because there is no associated data here.
    assert_eq!((sealed.data.clone(), sealed.nonce), (hex(SUNSCREEN.ciphertext), nonce));
    let mut text = plaintext.to_vec();
    let tag = rust_crypto().aead(CipherAlgorithm::ChaChaPoly, &key).seal_in_place(&nonce, &[], &mut text);
    assert_eq!(sealed.tag, tag);

    for cipher in primitives::CIPHER_PREFERENCE {
        let sealed = primitives::encrypt_with(cipher, plaintext, &key, nonce);
        assert_eq!(primitives::decrypt_with(cipher, &sealed, &key).unwrap().as_slice(), plaintext);
        for bit in 0..8 * (12 + sealed.data.len() + 16) {
            let Sealed { mut nonce, mut data, mut tag } = sealed.clone();
            let byte = nonce.iter_mut().chain(&mut data).chain(&mut tag).nth(bit / 8).unwrap();
            *byte ^= 1 << (bit % 8);
            let changed = Sealed { nonce, data, tag };
            assert_eq!(primitives::decrypt_with(cipher, &changed, &key), Err(DecryptError), "bit {bit}");
        }
        let mut other_key = key;
        other_key[31] ^= 1;
        assert_eq!(primitives::decrypt_with(cipher, &sealed, &other_key), Err(DecryptError));
    }
    assert_eq!(primitives::CIPHER_PREFERENCE[0], CipherAlgorithm::ChaChaPoly);
    assert_eq!(primitives::decrypt(&sealed, &key).unwrap().as_slice(), plaintext);
}

#[test]
fn the_plain_hkdf_ends_at_255_hashes() {
    assert_eq!(primitives::hkdf(b"secret", primitives::INFO, primitives::HKDF_MAX_LEN).unwrap().len(), 8_160);
    assert_eq!(primitives::hkdf(b"secret", primitives::INFO, 8_161), Err(primitives::InvalidLength));
    assert!(primitives::hkdf(b"secret", primitives::INFO, 0).unwrap().is_empty());
    let key = primitives::hkdf(b"secret", primitives::INFO, 32).unwrap();
    assert_ne!(key, primitives::hkdf(b"secret", b"raystream-v2", 32).unwrap());
}
