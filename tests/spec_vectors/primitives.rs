//! `primitives.json`: the plain functions for programs that have no connection.

use super::{assert_generated, document, keys::hex, read, unhex_of};
use raystream::{
    noise::CipherAlgorithm,
    primitives::{INFO, Sealed, decrypt_with, encrypt_with, hkdf},
};
use serde_json::{Value, json};

const CIPHERS: [(&str, CipherAlgorithm); 2] =
    [("ChaCha20-Poly1305", CipherAlgorithm::ChaChaPoly), ("AES-256-GCM", CipherAlgorithm::AesGcm)];

fn hkdf_vector(name: &'static str, ikm: &[u8], info: &[u8], len: u32) -> Value {
    let okm = hkdf(ikm, info, usize::try_from(len).unwrap()).unwrap();
    json!({
        "name": name, "function": "hkdf", "ikm": hex(ikm), "info": hex(info), "length": len, "okm": hex(&okm),
    })
}

/// A sealed message, and the same with one change that has to be refused.
fn sealed_vectors(vectors: &mut Vec<Value>) {
    let key: [u8; 32] = std::array::from_fn(|n| u8::try_from(n).unwrap());
    let nonce: [u8; 12] = std::array::from_fn(|n| u8::try_from(0x40 + n).unwrap());
    for (cipher_name, cipher) in CIPHERS {
        for (length, plaintext) in
            [("empty", &b""[..]), ("short", b"{\"method\":\"getUser\"}"), ("two blocks", &[0x5a; 128])]
        {
            let good = encrypt_with(cipher, plaintext, &key, nonce);
            let vector = |name: String, sealed: &Sealed, plaintext: Value| {
                json!({
                    "name": name,
                    "function": "decrypt",
                    "cipher": cipher_name,
                    "key": hex(&key),
                    "nonce": hex(&sealed.nonce),
                    "data": hex(&sealed.data),
                    "tag": hex(&sealed.tag),
                    "plaintext": plaintext,
                })
            };
            let name = format!("{cipher_name}, {length}");
            assert_eq!(decrypt_with(cipher, &good, &key).unwrap().as_slice(), plaintext);
            vectors.push(vector(name.clone(), &good, json!(hex(plaintext))));
            let mut changed = vec![("tag", good.clone()), ("nonce", good.clone()), ("data", good)];
            changed[0].1.tag[15] ^= 1;
            changed[1].1.nonce[0] ^= 0x80;
            match changed[2].1.data.first_mut() {
                Some(byte) => *byte ^= 1,
                None => drop(changed.pop()),
            }
            for (what, sealed) in changed {
                assert!(decrypt_with(cipher, &sealed, &key).is_err());
                vectors.push(vector(format!("{name}, {what} changed"), &sealed, Value::Null));
            }
        }
    }
}

#[test]
fn primitives_json_is_what_the_code_does() {
    let secret: Vec<u8> = (0..32).collect();
    let mut vectors = vec![
        // RFC 5869, test case 3: no salt, no info.
        hkdf_vector("hkdf of RFC 5869, case 3", &[0x0b; 22], &[], 42),
        hkdf_vector("hkdf for a session key", &secret, INFO, 32),
        hkdf_vector("hkdf of one byte", &secret, INFO, 1),
        hkdf_vector("hkdf over two blocks", &secret, INFO, 65),
        hkdf_vector("hkdf of an empty secret", &[], INFO, 32),
    ];
    sealed_vectors(&mut vectors);
    assert_generated("proto-spec/vectors/primitives.json", &document(&vectors));
}

#[test]
fn primitives_json_holds_the_published_vector() {
    let vectors = read("primitives.json");
    let published = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8";
    assert_eq!(vectors[0]["okm"], published);
    for vector in vectors.iter().filter(|vector| vector["function"] == "decrypt") {
        let (_, cipher) = CIPHERS.into_iter().find(|(name, _)| vector["cipher"] == *name).unwrap();
        let sealed = Sealed {
            nonce: unhex_of(&vector["nonce"]).try_into().unwrap(),
            data: unhex_of(&vector["data"]),
            tag: unhex_of(&vector["tag"]).try_into().unwrap(),
        };
        let key = unhex_of(&vector["key"]).try_into().unwrap();
        let expected = (!vector["plaintext"].is_null()).then(|| unhex_of(&vector["plaintext"]));
        let opened = decrypt_with(cipher, &sealed, &key).ok().map(|plaintext| plaintext.to_vec());
        assert_eq!(opened, expected, "{}", vector["name"]);
    }
}
