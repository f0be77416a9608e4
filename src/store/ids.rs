//! Ids for pushed documents: UUID version 7 (RFC 9562, section 5.7), in the order in which one process makes them.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::error::StoreError;

/// The counter behind the time has 12 bits (`rand_a`; RFC 9562, section 6.2, method 1). It starts in the lower half.
const COUNTER_MAX: u16 = 0x0FFF;

/// Makes ids.
#[derive(Debug, Default)]
pub(super) struct IdSource {
    /// Milliseconds since 1970 and the counter of the last id.
    last: Mutex<(u64, u16)>,
}

impl IdSource {
    /// The next id, as text.
    ///
    /// # Errors
    /// [`StoreError::Internal`] when the system gives no randomness.
    pub(super) fn next(&self) -> Result<String, StoreError> {
        let mut random = [0_u8; 10];
        getrandom::fill(&mut random).map_err(|error| {
            tracing::error!(%error, "the system gives no randomness");
            StoreError::Internal
        })?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let seed = u16::from_be_bytes([random[8], random[9]]) & (COUNTER_MAX >> 1);
        let (millis, counter) = self.advance(now, seed);
        Ok(format_v7(millis, counter, random))
    }

    /// The time and counter of the next id: never at or before the last one, also when the clock stands or goes back.
    fn advance(&self, now: u64, seed: u16) -> (u64, u16) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = match *last {
            (millis, _) if now > millis => (now, seed),
            (millis, COUNTER_MAX) => (millis + 1, seed),
            (millis, counter) => (millis, counter + 1),
        };
        *last
    }
}

/// The text form: 48 bits of time, version, counter, variant, 62 random bits.
fn format_v7(millis: u64, counter: u16, random: [u8; 10]) -> String {
    let [_, _, time @ ..] = millis.to_be_bytes();
    let [high, low] = (0x7000 | counter).to_be_bytes();
    let mut bytes = [0_u8; 16];
    bytes[..6].copy_from_slice(&time);
    bytes[6..8].copy_from_slice(&[high, low]);
    bytes[8..].copy_from_slice(&random[..8]);
    bytes[8] = bytes[8] & 0x3F | 0x80;
    let mut text = String::with_capacity(36);
    for (place, byte) in bytes.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_a_uuid_of_version_7() {
        let text = format_v7(0x0123_4567_89AB, 0x0CDE, [0xFF; 10]);
        assert_eq!(text, "01234567-89ab-7cde-bfff-ffffffffffff");
    }

    #[test]
    fn ids_go_up_when_the_clock_stands_or_goes_back() {
        let source = IdSource::default();
        let mut last = source.advance(1_000, 0);
        for step in 0..20_000_u64 {
            let next = source.advance(1_000 - step % 3, 7);
            assert!(next > last, "{next:?} after {last:?}");
            last = next;
        }
        assert!(last.0 > 1_000, "the counter ran over into the time");
    }

    #[test]
    fn made_ids_differ_and_sort() {
        let source = IdSource::default();
        let ids: Vec<String> =
            (0..5_000).map(|_| source.next().expect("the system has randomness")).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
    }
}
