//! Text of a peer, made fit for a log line, a terminal or an error message.

use std::fmt::{self, Write as _};

/// How many bytes of one piece of peer-supplied text are shown. Enough to recognise what was sent, too little to flood
/// a log with.
pub const UNTRUSTED_TEXT_MAX: usize = 256;

/// What marks a cut.
const CUT: &str = "...";

/// Shows bytes that a peer chose: control characters, line and paragraph separators and the characters that change the
/// direction of text are escaped, bytes that are not UTF-8 appear as `\xNN`, and at most [`UNTRUSTED_TEXT_MAX`] bytes
/// come out, the mark of the cut included.
///
/// Without this a method name could forge a log line, or an escape sequence could reach an operator's terminal.
#[derive(Clone, Copy)]
pub struct Untrusted<'a>(&'a [u8]);

impl<'a> Untrusted<'a> {
    /// Wraps text or bytes.
    pub fn new<T: AsRef<[u8]> + ?Sized>(text: &'a T) -> Self {
        Self(text.as_ref())
    }
}

impl fmt::Display for Untrusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One piece more than fits decides whether a cut is needed, so the input is never walked to its end.
        let mut shown = String::with_capacity(self.0.len().min(UNTRUSTED_TEXT_MAX));
        // Where the text may be cut so that the mark still fits.
        let mut cut_at = 0;
        let mut piece = String::with_capacity(16);
        for chunk in self.0.utf8_chunks() {
            let invalid = chunk.invalid().iter().map(|byte| Piece::Byte(*byte));
            for part in chunk.valid().chars().map(Piece::Char).chain(invalid) {
                piece.clear();
                part.write(&mut piece)?;
                if shown.len() + piece.len() > UNTRUSTED_TEXT_MAX {
                    shown.truncate(cut_at);
                    shown.push_str(CUT);
                    return f.write_str(&shown);
                }
                shown.push_str(&piece);
                if shown.len() + CUT.len() <= UNTRUSTED_TEXT_MAX {
                    cut_at = shown.len();
                }
            }
        }
        f.write_str(&shown)
    }
}

impl fmt::Debug for Untrusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// One unit of output, which is never cut in the middle.
enum Piece {
    Char(char),
    Byte(u8),
}

impl Piece {
    fn write(&self, out: &mut String) -> fmt::Result {
        match *self {
            Self::Char('\\') => out.write_str("\\\\"),
            Self::Char(c) if is_unsafe(c) => write!(out, "{}", c.escape_unicode()),
            Self::Char(c) => out.write_char(c),
            Self::Byte(byte) => write!(out, "\\x{byte:02x}"),
        }
    }
}

/// Whether a character could break a line, drive a terminal or reorder what is shown.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_unchanged() {
        assert_eq!(Untrusted::new("orders / Bücher").to_string(), "orders / Bücher");
        assert_eq!(Untrusted::new("").to_string(), "");
    }

    #[test]
    fn nothing_that_drives_a_terminal_or_a_log_survives() {
        let shown = Untrusted::new("a\nb\x1b[31mc\u{9b}d\u{202e}e\u{2028}\0").to_string();
        assert_eq!(shown, "a\\u{a}b\\u{1b}[31mc\\u{9b}d\\u{202e}e\\u{2028}\\u{0}");
        assert!(shown.chars().all(|c| !is_unsafe(c)));
        // A backslash is doubled, so that nobody can write an escape that was not there.
        assert_eq!(Untrusted::new(r"\n").to_string(), r"\\n");
    }

    #[test]
    fn bytes_that_are_not_text_are_shown_as_bytes() {
        assert_eq!(Untrusted::new(&[b'a', 0xff, 0xc3, b'b'][..]).to_string(), "a\\xff\\xc3b");
    }

    #[test]
    fn long_text_is_cut_at_a_whole_piece() {
        let exact = "x".repeat(UNTRUSTED_TEXT_MAX);
        assert_eq!(Untrusted::new(&exact).to_string(), exact);
        for long in ["x".repeat(257), "\x07".repeat(100), "ü".repeat(1 << 20)] {
            let shown = Untrusted::new(&long).to_string();
            assert!(shown.len() <= UNTRUSTED_TEXT_MAX, "{} bytes", shown.len());
            assert!(shown.len() > UNTRUSTED_TEXT_MAX - 16);
            assert!(shown.ends_with("x...") || shown.ends_with("}...") || shown.ends_with("ü..."));
        }
    }
}
