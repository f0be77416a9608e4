//! The RustCrypto provider with a memory for Diffie-Hellman results: tests make the same handshake many thousand times.

use raystream::noise::{AeadKey, CipherAlgorithm, CryptoProvider, DhError, rust_crypto};
use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex},
};
use zeroize::Zeroizing;

type Memory = Mutex<HashMap<([u8; 32], [u8; 32]), Option<[u8; 32]>>>;

/// Results that are kept: a test that flips bits in keys makes many that come once.
const KEPT_MAX: usize = 10_000;

#[derive(Debug, Default)]
struct Memo {
    shared: Memory,
    public: Mutex<HashMap<[u8; 32], [u8; 32]>>,
}

pub fn provider() -> &'static dyn CryptoProvider {
    static MEMO: LazyLock<Memo> = LazyLock::new(Memo::default);
    &*MEMO
}

impl CryptoProvider for Memo {
    fn name(&self) -> &'static str {
        "RustCrypto with a memory"
    }

    fn aead(&self, algorithm: CipherAlgorithm, key: &[u8; 32]) -> Box<dyn AeadKey> {
        rust_crypto().aead(algorithm, key)
    }

    fn dh(&self, secret: &[u8; 32], public: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>, DhError> {
        let key = (*secret, *public);
        let known = self.shared.lock().unwrap().get(&key).copied();
        let result = known.unwrap_or_else(|| {
            let result = rust_crypto().dh(secret, public).ok().map(|shared| *shared);
            let mut shared = self.shared.lock().unwrap();
            if shared.len() < KEPT_MAX {
                shared.insert(key, result);
            }
            result
        });
        result.map(Zeroizing::new).ok_or(DhError)
    }

    fn public_key(&self, secret: &[u8; 32]) -> [u8; 32] {
        let mut public = self.public.lock().unwrap();
        *public.entry(*secret).or_insert_with(|| rust_crypto().public_key(secret))
    }
}
