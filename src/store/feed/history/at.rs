//! A moment as a caller names it.

use crate::store::StoreError;

/// Digits of a second's fraction that Postgres keeps; more would be rounded up, to a time that was not asked for.
const FRACTION_DIGITS: usize = 6;

/// A cursor, or a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// As a subscription, a publication or another read gave it.
    Cursor(String),
    /// RFC 3339, in a form that Postgres reads.
    Time(String),
}

impl At {
    /// The text of it.
    pub(in crate::store) fn text(&self) -> &str {
        match self {
            Self::Cursor(text) | Self::Time(text) => text,
        }
    }

    /// Tells the two apart: a cursor has no colon.
    ///
    /// # Errors
    /// [`StoreError::InvalidInput`] when it has a colon and is no RFC 3339 time.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        if !text.contains(':') {
            return Ok(Self::Cursor(text.to_owned()));
        }
        time(text).map(Self::Time).ok_or_else(|| {
            StoreError::invalid("a time is written like 2026-01-31T12:00:00Z or 2026-01-31T12:00:00.5+01:00")
        })
    }
}

/// The shape of RFC 3339, section 5.6; whether there is such a day is for Postgres to say. Its fraction is cut.
fn time(text: &str) -> Option<String> {
    let (seconds, rest) = text.split_at_checked("2026-01-31T12:00:00".len())?;
    let shape = "dddd-dd-ddTdd:dd:dd";
    if !matches(seconds, shape) {
        return None;
    }
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (fraction, zone) = rest.split_at(zone_at);
    let is_zone = matches!(zone, "Z" | "z") || matches(zone, "+dd:dd") || matches(zone, "-dd:dd");
    if !is_zone {
        return None;
    }
    let cut = match fraction.strip_prefix('.') {
        None if fraction.is_empty() => "",
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            fraction.get(..=FRACTION_DIGITS.min(digits.len()))?
        }
        _ => return None,
    };
    Some(format!("{seconds}{cut}{zone}"))
}

/// Whether each character is what the shape has at its place, where `d` is a digit.
fn matches(text: &str, shape: &str) -> bool {
    text.len() == shape.len()
        && text.bytes().zip(shape.bytes()).all(|(byte, wanted)| match wanted {
            b'd' => byte.is_ascii_digit(),
            other => byte.eq_ignore_ascii_case(&other),
        })
}

#[cfg(test)]
mod tests {
    use super::At;

    #[test]
    fn a_time_is_rfc_3339_and_all_without_a_colon_is_a_cursor() {
        for (text, read) in [
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
            ("2026-01-31t12:00:00.5z", "2026-01-31t12:00:00.5z"),
            ("2026-01-31T12:00:00.123456789-05:30", "2026-01-31T12:00:00.123456-05:30"),
            ("2026-01-31T12:00:00+00:00", "2026-01-31T12:00:00+00:00"),
        ] {
            assert_eq!(At::parse(text), Ok(At::Time(read.to_owned())), "{text}");
        }
        for text in ["AQAB", "", "2026-01-31", "now"] {
            assert_eq!(At::parse(text), Ok(At::Cursor(text.to_owned())), "{text}");
        }
        for text in [
            "2026-01-31T12:00:00",
            "2026-01-31T12:00Z",
            "2026-01-31 12:00:00Z",
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00:00,5Z",
            "2026-01-31T12:00:00+0100",
            "2026-01-31T12:00:00Z ",
            "26-01-31T12:00:00Z",
            "2026-01-31T12:00:00é+01:00",
            "12:00",
            ":",
        ] {
            assert!(At::parse(text).is_err(), "{text}");
        }
    }
}
