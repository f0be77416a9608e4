//! A map by stream number.
//!
//! The standard map's hash resists keys that are chosen to collide, and costs more than everything else that is done with a
//! stream. Here nothing is to be gained by a collision: stream numbers only go up, and a connection has a few hundred
//! streams at most, so that the worst that a peer can arrange is a short list.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// What is known of each stream.
pub(crate) type StreamMap<T> = HashMap<u32, T, BuildHasherDefault<StreamHasher>>;

/// 2^64 divided by the golden ratio, made odd: neighbours land far apart (Knuth, The Art of Computer Programming, 6.4).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Multiplies the number; its high half, which every bit of the number reaches, is mixed into the low one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StreamHasher(u64);

impl Hasher for StreamHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        let product = (self.0 ^ u64::from(number)).wrapping_mul(GOLDEN);
        self.0 = product ^ (product >> 32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::HashSet, hash::BuildHasher};

    #[test]
    fn the_streams_of_a_connection_hash_apart() {
        let hash = |stream: u32| BuildHasherDefault::<StreamHasher>::default().hash_one(stream);
        // In the low bits, by which a table finds the place, and in the high ones, by which it tells entries apart.
        let of = |part: fn(u64) -> u64| (0..256).map(|n| part(hash(2 * n + 1))).collect::<HashSet<_>>().len();
        assert!(of(|hash| hash & 511) > 150 && of(|hash| hash >> 57) > 100);
        assert_eq!(of(|hash| hash), 256);
    }
}
