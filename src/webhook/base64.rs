//! Base64 with padding (RFC 4648, section 4), strict: one text for each value.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes to text.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let [a, b, c] = std::array::from_fn(|place| group.get(place).copied().unwrap_or(0));
        let six = [a >> 2, (a & 3) << 4 | b >> 4, (b & 15) << 2 | c >> 6, c & 63];
        for (place, bits) in six.into_iter().enumerate() {
            let is_there = place <= group.len();
            text.push(if is_there { char::from(ALPHABET[usize::from(bits)]) } else { '=' });
        }
    }
    text
}

/// Text to bytes; `None` when it is not what [`encode`] makes.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let plain = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
    for group in plain.as_bytes().chunks(4) {
        let mut six = [0_u8; 4];
        for (bits, character) in six.iter_mut().zip(group) {
            *bits = value_of(*character)?;
        }
        let [a, b, c, d] = six;
        let decoded = [a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d];
        let (kept, rest) = decoded.split_at(group.len().checked_sub(1)?);
        // The bits that no byte has must be zero, else two texts would mean one value.
        if kept.is_empty() || rest.iter().any(|bits| *bits != 0) {
            return None;
        }
        bytes.extend_from_slice(kept);
    }
    Some(bytes)
}

/// The six bits of a character.
fn value_of(character: u8) -> Option<u8> {
    match character {
        b'A'..=b'Z' => Some(character - b'A'),
        b'a'..=b'z' => Some(character - b'a' + 26),
        b'0'..=b'9' => Some(character - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfc_4648_examples() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(plain.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(plain.as_bytes()));
        }
        assert_eq!(encode(&[0xFB, 0xFF]), "+/8=");
    }

    #[test]
    fn only_the_one_text_of_a_value_is_read() {
        for text in ["Z", "Zg", "Zg=", "Zh==", "Zm9=", "Z===", "====", "=", "Zm8-", "Zg==Zg==", "Zm 9"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
