//! JSON text looked at without being read: whether it is JSON (RFC 8259), and how deep it nests.
//!
//! Documents pass through the daemon as the bytes that somebody wrote. Most of these bytes are inside strings, where nothing
//! but the end is of interest, so that strings are searched many bytes at a time.

/// How deep arrays and objects can nest at most for [`check`]: what the bits of its memory of them are enough for.
pub const DEPTH_MAX: usize = 128;

/// Why a text is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is no JSON text, or not in UTF-8.
    Malformed,
    /// Its arrays and objects nest deeper than [`DEPTH_MAX`].
    TooDeep,
}

/// Bytes at the front of a string that are looked at word by word.
const SHORT_LEN: usize = 64;
/// Bytes of a long string looked at together: what is found in them is asked once for all of them.
const LONG_BLOCK: usize = 256;
/// The same for what is left of it.
const SHORT_BLOCK: usize = 32;

/// Whether a byte inside a string stands for itself: not the end, not an escape, not a control character.
const fn is_plain(byte: u8) -> bool {
    byte >= 0x20 && byte != b'"' && byte != b'\\'
}

/// How many bytes at the front of `text`, which is inside a string, stand for themselves.
#[must_use]
pub fn plain_len(text: &[u8]) -> usize {
    plain(text).0
}

/// As [`plain_len`], with the bits that are set in any of these bytes.
fn plain(text: &[u8]) -> (usize, u8) {
    // Most strings are short.
    let (mut len, mut bits) = plain_words(&text[..text.len().min(SHORT_LEN)]);
    if len == SHORT_LEN {
        for search in [plain_blocks::<LONG_BLOCK>, plain_blocks::<SHORT_BLOCK>, plain_words] {
            let (more, found) = search(&text[len..]);
            len += more;
            bits |= found;
        }
    }
    for byte in &text[len..] {
        if !is_plain(*byte) {
            break;
        }
        bits |= byte;
        len += 1;
    }
    (len, bits)
}

/// As [`plain`], up to the first block in which there is something else.
fn plain_blocks<const LEN: usize>(text: &[u8]) -> (usize, u8) {
    let (mut len, mut bits) = (0, 0);
    for block in text.as_chunks::<LEN>().0 {
        // Without a way out in the middle, so that the compiler takes many bytes at a time; and by smallest values, of which
        // it needs the fewest steps. With one bit turned around, the quote is the next one above all control characters.
        let (mut quote, mut escape, mut found) = (u8::MAX, u8::MAX, 0);
        for byte in block {
            quote = quote.min(byte ^ 0x02);
            escape = escape.min(byte ^ b'\\');
            found |= byte;
        }
        if quote <= b'"' ^ 0x02 || escape == 0 {
            break;
        }
        len += LEN;
        bits |= found;
    }
    (len, bits)
}

/// As [`plain`], up to the last whole word or the first byte that is something else.
fn plain_words(text: &[u8]) -> (usize, u8) {
    let (mut len, mut bits) = (0, 0);
    for word in text.as_chunks::<WORD>().0 {
        let word = u64::from_le_bytes(*word);
        let special = special_bytes(word);
        if special != 0 {
            let plain = special.trailing_zeros() / 8 * 8;
            bits |= word & ((1 << plain) - 1);
            len += usize::try_from(plain / 8).expect("less than 8");
            break;
        }
        bits |= word;
        len += WORD;
    }
    (len, bits.to_le_bytes().into_iter().fold(0, |all, byte| all | byte))
}

/// Bytes of a number that are looked at together in short strings, and where less than a block is left.
const WORD: usize = 8;

/// Sets the highest bit of the lowest byte of `word` that does not stand for itself, and none below it; 0 when all do.
///
/// A byte is less than 0x20, or a quote or a backslash with that made zero, when taking 0x20 or 1 from it borrows and its own
/// highest bit was not set. A borrow reaches only bytes above one that is found.
const fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    const QUOTES: u64 = ONES * 0x22;
    const BACKSLASHES: u64 = ONES * 0x5c;
    const fn borrows(word: u64, from_each: u64) -> u64 {
        word.wrapping_sub(from_each) & !word
    }
    let control = borrows(word, ONES * 0x20);
    let quote = borrows(word ^ QUOTES, ONES);
    let backslash = borrows(word ^ BACKSLASHES, ONES);
    (control | quote | backslash) & (ONES << 7)
}

/// Whether `text` is one JSON value in UTF-8, with whitespace around it at most. Nothing is allocated.
///
/// # Errors
/// [`Fault`].
pub fn check(text: &[u8]) -> Result<(), Fault> {
    let mut reader = Reader { rest: text, depth: 0, objects: 0, bits: 0 };
    reader.run()?;
    // Outside of strings there is nothing but ASCII.
    if reader.bits.is_ascii() || std::str::from_utf8(text).is_ok() { Ok(()) } else { Err(Fault::Malformed) }
}

/// What is not read yet, and inside of what it is.
struct Reader<'a> {
    rest: &'a [u8],
    /// 0 <= `depth` <= [`DEPTH_MAX`].
    depth: usize,
    /// For each level a bit, the innermost lowest: whether it is an object.
    objects: u128,
    /// Those that are set in any byte inside strings that is not part of an escape.
    bits: u8,
}

impl Reader<'_> {
    fn run(&mut self) -> Result<(), Fault> {
        loop {
            self.skip_whitespace();
            match self.take()? {
                b'{' => {
                    self.enter(true)?;
                    if !self.is_next(b'}') {
                        self.key()?;
                        continue;
                    }
                    self.leave();
                }
                b'[' => {
                    self.enter(false)?;
                    if !self.is_next(b']') {
                        continue;
                    }
                    self.leave();
                }
                b'"' => self.string()?,
                b't' => self.literal(b"rue")?,
                b'f' => self.literal(b"alse")?,
                b'n' => self.literal(b"ull")?,
                b'-' => {
                    let first = self.take()?;
                    self.number(first)?;
                }
                digit => self.number(digit)?,
            }
            // Behind a value: up to the next one, or the end.
            loop {
                self.skip_whitespace();
                if self.depth == 0 {
                    return if self.rest.is_empty() { Ok(()) } else { Err(Fault::Malformed) };
                }
                let is_object = self.objects & 1 == 1;
                match (self.take()?, is_object) {
                    (b',', true) => {
                        self.key()?;
                        break;
                    }
                    (b',', false) => break,
                    (b'}', true) | (b']', false) => self.leave(),
                    _ => return Err(Fault::Malformed),
                }
            }
        }
    }

    fn take(&mut self) -> Result<u8, Fault> {
        let (byte, rest) = self.rest.split_first().ok_or(Fault::Malformed)?;
        self.rest = rest;
        Ok(*byte)
    }

    fn skip_whitespace(&mut self) {
        while let Some((b' ' | b'\n' | b'\r' | b'\t', rest)) = self.rest.split_first() {
            self.rest = rest;
        }
    }

    /// Takes a byte behind whitespace, if it is this one.
    fn is_next(&mut self, byte: u8) -> bool {
        self.skip_whitespace();
        let rest = self.rest.strip_prefix(&[byte]);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn enter(&mut self, is_object: bool) -> Result<(), Fault> {
        if self.depth == DEPTH_MAX {
            return Err(Fault::TooDeep);
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(is_object);
        Ok(())
    }

    fn leave(&mut self) {
        self.depth -= 1;
        self.objects >>= 1;
    }

    /// A name and the colon behind it.
    fn key(&mut self) -> Result<(), Fault> {
        if !self.is_next(b'"') {
            return Err(Fault::Malformed);
        }
        self.string()?;
        if self.is_next(b':') { Ok(()) } else { Err(Fault::Malformed) }
    }

    /// The rest of a string whose opening quote was taken.
    fn string(&mut self) -> Result<(), Fault> {
        loop {
            let (len, bits) = plain(self.rest);
            self.rest = &self.rest[len..];
            self.bits |= bits;
            match self.take()? {
                b'"' => return Ok(()),
                b'\\' => match self.take()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        for _ in 0..4 {
                            if !self.take()?.is_ascii_hexdigit() {
                                return Err(Fault::Malformed);
                            }
                        }
                    }
                    _ => return Err(Fault::Malformed),
                },
                _ => return Err(Fault::Malformed),
            }
        }
    }

    fn literal(&mut self, rest: &[u8]) -> Result<(), Fault> {
        self.rest = self.rest.strip_prefix(rest).ok_or(Fault::Malformed)?;
        Ok(())
    }

    /// A number whose first digit was taken.
    fn number(&mut self, first: u8) -> Result<(), Fault> {
        match first {
            b'0' => {}
            b'1'..=b'9' => {
                self.skip_digits();
            }
            _ => return Err(Fault::Malformed),
        }
        if let Some(rest) = self.rest.strip_prefix(b".") {
            self.rest = rest;
            self.digits()?;
        }
        if let Some((b'e' | b'E', rest)) = self.rest.split_first() {
            self.rest = rest;
            if let Some((b'+' | b'-', rest)) = self.rest.split_first() {
                self.rest = rest;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), Fault> {
        if self.skip_digits() { Ok(()) } else { Err(Fault::Malformed) }
    }

    fn skip_digits(&mut self) -> bool {
        let count = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.rest = &self.rest[count..];
        count > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_rfc_8259_allows() {
        let good = [
            "0",
            "-0",
            "10",
            "1.50",
            "-1e9",
            "1E+2",
            "1e-07",
            "true",
            "false",
            "null",
            r#""""#,
            "{}",
            "[]",
            " [ ] ",
            "\t{\n\"a\" : [1 , {\"b\":\"\"} , [] ] ,\r\"c\":null}",
            r#""\"\\\/\b\f\n\r\t\u00fF""#,
            "\"ü\u{1f600}\u{7f}\"",
            r#""\ud800""#,
        ];
        for text in good {
            assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        let bad = [
            "",
            " ",
            "01",
            "-",
            "-a",
            "+1",
            "1.",
            ".5",
            "1.e1",
            "1e",
            "1e+",
            "tru",
            "nul",
            "True",
            "\"",
            "\"\\x\"",
            "\"\\u00g0\"",
            "\"\\u00\"",
            "\"a\nb\"",
            "\"\u{0}\"",
            "{",
            "}",
            "[",
            "]",
            "[1",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{1:1}",
            "[1}",
            "{\"a\":1]",
            "1 1",
            "{} {}",
            "[]]",
            "\u{feff}1",
            "'a'",
            "NaN",
        ];
        for text in bad {
            assert_eq!(check(text.as_bytes()), Err(Fault::Malformed), "{text}");
        }
        assert_eq!(check(b"\"\xff\""), Err(Fault::Malformed));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{}{}", r#"[{"a":"#.repeat(depth / 2), "}]".repeat(depth / 2));
        assert_eq!(check(nested(DEPTH_MAX).replace(r#":}"#, ":1}").as_bytes()), Ok(()));
        assert_eq!(check(nested(DEPTH_MAX + 2).replace(r#":}"#, ":1}").as_bytes()), Err(Fault::TooDeep));
        // Brackets inside strings do not nest, and neither do those that are closed.
        assert_eq!(check(format!("[{}0]", r#""[[[[",[],"#.repeat(100)).as_bytes()), Ok(()));
    }

    #[test]
    fn plain_bytes_are_counted_up_to_the_first_that_is_not() {
        for len in (0..3 * SHORT_BLOCK).chain(LONG_BLOCK - 1..LONG_BLOCK + 3 * SHORT_BLOCK) {
            for end in [&b"\""[..], b"\\", b"\n", b"\0", b"\x1f", b""] {
                let text = [&vec![b'a'; len][..], end, b"more"].concat();
                assert_eq!(plain_len(&text), if end.is_empty() { len + 4 } else { len });
            }
        }
        assert_eq!(plain_len("\u{7f}ü€ ~".as_bytes()), 8);
        // Each byte at each place of a word.
        for byte in 0..=u8::MAX {
            for at in 0..2 * WORD {
                for around in [b'a', 0x20, 0x21, 0x23, 0x7f, 0x80, 0xff] {
                    let mut text = [around; 2 * WORD];
                    text[at] = byte;
                    assert_eq!(
                        plain_len(&text),
                        if is_plain(byte) { text.len() } else { at },
                        "{byte} at {at}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_byte_is_judged_alone_as_in_a_block() {
        for byte in 0..=u8::MAX {
            for at in [0, SHORT_BLOCK - 1, SHORT_BLOCK, LONG_BLOCK - 1, LONG_BLOCK, LONG_BLOCK + SHORT_BLOCK]
            {
                let mut text = vec![b'a'; 2 * LONG_BLOCK];
                text[at] = byte;
                assert_eq!(plain_len(&text), if is_plain(byte) { text.len() } else { at }, "{byte} at {at}");
            }
        }
    }

    #[test]
    fn what_is_not_utf_8_is_found_wherever_it_is() {
        for at in [0, 1, SHORT_BLOCK, LONG_BLOCK, LONG_BLOCK + SHORT_BLOCK, 2 * LONG_BLOCK] {
            let mut text = [b"\"", &[b'a'; 2 * LONG_BLOCK + 3][..], b"\""].concat();
            assert_eq!(check(&text), Ok(()));
            text[at + 1] = 0xff;
            assert_eq!(check(&text), Err(Fault::Malformed), "{at}");
            text[at + 1..at + 3].copy_from_slice("ü".as_bytes());
            assert_eq!(check(&text), Ok(()), "{at}");
        }
    }
}
