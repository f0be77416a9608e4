//! Equality of JSON numbers as decimal numbers of any size: 1 = 1.0 = 1e0, as Postgres' numeric has it.

/// Whether two numbers, in JSON's grammar, are equal.
pub(super) fn equal(a: &str, b: &str) -> bool {
    a == b || Decimal::of(a) == Decimal::of(b)
}

/// A number in the one form that it has: no zero before its first digit or after its last.
#[derive(Debug)]
struct Decimal<'a> {
    negative: bool,
    /// Digits with at most one point in between, from the first that is not zero to the last.
    digits: &'a str,
    /// The power of ten of the first digit. 0 for zero.
    power: i64,
}

impl<'a> Decimal<'a> {
    fn of(text: &'a str) -> Self {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            // An exponent beyond i64 is beyond every number that Postgres holds.
            Some((mantissa, exponent)) => (mantissa, exponent.parse().unwrap_or(i64::MAX)),
            None => (text, 0_i64),
        };
        let significant = |letter: char| letter != '0' && letter != '.';
        let Some(first) = mantissa.find(significant) else {
            return Self { negative: false, digits: "", power: 0 };
        };
        let end = mantissa.rfind(significant).map_or(first, |last| last + 1);
        let point = mantissa.find('.').unwrap_or(mantissa.len());
        let power = if first < point { signed(point - first) - 1 } else { -signed(first - point) };
        Self { negative, digits: &mantissa[first..end], power: power.saturating_add(exponent) }
    }
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

impl PartialEq for Decimal<'_> {
    fn eq(&self, other: &Self) -> bool {
        fn digits<'a>(number: &'a Decimal<'_>) -> impl Iterator<Item = u8> + 'a {
            number.digits.bytes().filter(|byte| *byte != b'.')
        }
        self.negative == other.negative && self.power == other.power && digits(self).eq(digits(other))
    }
}

#[cfg(test)]
mod tests {
    use super::equal;

    #[test]
    fn one_number_has_many_texts() {
        for group in [
            &["1", "1.0", "1e0", "10e-1", "0.1E+1", "1.000"][..],
            &["0", "-0", "0.0", "0e99", "-0.00e-3"],
            &["-12.5", "-125e-1", "-0.125e2", "-12.500"],
            &["100000000000000000000000000000001", "1.00000000000000000000000000000001e32"],
            &["0.00001", "1e-5", "0.1e-4"],
        ] {
            for a in group {
                for b in group {
                    assert!(equal(a, b), "{a} = {b}");
                }
            }
        }
    }

    #[test]
    fn near_numbers_differ() {
        for (a, b) in [
            ("1", "-1"),
            ("1", "10"),
            ("1", "0.1"),
            ("0", "1e-300"),
            ("9007199254740993", "9007199254740992"),
            ("0.1000000000000000055511151231257827", "0.1"),
            ("10.01", "100.1"),
        ] {
            assert!(!equal(a, b), "{a} <> {b}");
        }
    }
}
