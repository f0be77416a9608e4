//! Durations and sizes as people write them: `3s`, `500ms`, `1 MiB`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Units of time, largest first, in milliseconds.
const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Units of size, largest first, in bytes.
const SIZE_UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A length of time in whole milliseconds, written with its unit: `500ms`, `3s`, `2m`, `24h`, `7d`.
///
/// A number without a unit is refused: half of all readers would take it for seconds, the other half for milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(Duration);

impl Period {
    /// A time of the standard library; what is less than a millisecond is not shown.
    pub const fn new(time: Duration) -> Self {
        Self(time)
    }

    /// So many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// So many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The same for the standard library.
    pub const fn get(self) -> Duration {
        self.0
    }

    /// Whole milliseconds; every period has been checked to fit.
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl From<Period> for Duration {
    fn from(period: Period) -> Self {
        period.0
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_in_largest_unit(f, self.as_millis(), &TIME_UNITS, "s")
    }
}

/// The text is not a number with a unit of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a duration is a whole number with a unit: 500ms, 3s, 2m, 24h or 7d")]
pub struct InvalidPeriod;

impl FromStr for Period {
    type Err = InvalidPeriod;

    fn from_str(text: &str) -> Result<Self, InvalidPeriod> {
        parse_with_unit(text, &TIME_UNITS).map(Self::from_millis).ok_or(InvalidPeriod)
    }
}

/// A number of bytes: `1MiB`, `64 KiB`, `512B`, or a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// So many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_in_largest_unit(f, self.0, &SIZE_UNITS, "B")
    }
}

/// The text is not a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a size is a whole number with a unit: 512B, 64KiB, 1MiB or 10GiB")]
pub struct InvalidByteSize;

impl FromStr for ByteSize {
    type Err = InvalidByteSize;

    fn from_str(text: &str) -> Result<Self, InvalidByteSize> {
        let bytes = text.parse().ok().or_else(|| parse_with_unit(text, &SIZE_UNITS));
        bytes.map(Self).ok_or(InvalidByteSize)
    }
}

/// A whole number, spaces if any, a unit; nothing else, and no overflow.
fn parse_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn write_in_largest_unit(
    f: &mut fmt::Formatter<'_>,
    value: u64,
    units: &[(&str, u64)],
    unit_of_zero: &str,
) -> fmt::Result {
    match units.iter().find(|(_, factor)| value != 0 && value.is_multiple_of(*factor)) {
        Some((unit, factor)) => write!(f, "{}{unit}", value / factor),
        None => write!(f, "{value}{unit_of_zero}"),
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FromText("a duration such as \"3s\" or \"500ms\""))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size;
        impl de::Visitor<'_> for Size {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"1MiB\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                u64::try_from(bytes).map(ByteSize).map_err(|_| E::custom(InvalidByteSize))
            }
        }
        deserializer.deserialize_any(Size)
    }
}

/// Reads a period out of a string; the text says what was expected.
struct FromText(&'static str);

impl de::Visitor<'_> for FromText {
    type Value = Period;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Period, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_read_and_written_in_their_largest_unit() {
        for (text, millis, shown) in [
            ("500ms", 500, "500ms"),
            ("3s", 3_000, "3s"),
            ("3 s", 3_000, "3s"),
            ("90s", 90_000, "90s"),
            ("120s", 120_000, "2m"),
            ("24h", 86_400_000, "1d"),
            ("7d", 604_800_000, "7d"),
            ("0s", 0, "0s"),
        ] {
            let period: Period = text.parse().expect("valid");
            assert_eq!(period.as_millis(), millis, "{text}");
            assert_eq!(period.to_string(), shown);
            assert_eq!(period.to_string().parse(), Ok(period));
        }
        for wrong in [
            "",
            "3",
            "s",
            "-1s",
            "1.5s",
            "3 sec",
            "3S",
            "99999999999999999999s",
            "99999999999999999d",
            "3s s",
        ] {
            assert_eq!(wrong.parse::<Period>(), Err(InvalidPeriod), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_read_and_written_in_their_largest_unit() {
        for (text, bytes, shown) in
            [("1MiB", 1 << 20, "1MiB"), ("64 KiB", 65_536, "64KiB"), ("1000", 1_000, "1000B"), ("0", 0, "0B")]
        {
            let size: ByteSize = text.parse().expect("valid");
            assert_eq!(size.get(), bytes, "{text}");
            assert_eq!(size.to_string(), shown);
        }
        for wrong in ["", "1MB", "-1", "1.5MiB", "99999999999TiB"] {
            assert_eq!(wrong.parse::<ByteSize>(), Err(InvalidByteSize), "{wrong}");
        }
    }
}
