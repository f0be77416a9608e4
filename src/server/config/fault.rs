//! What is wrong with a configuration, and where.

use std::fmt;

use serde::Serialize;

/// One thing that cannot be meant, or, as a warning, one that is probably not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The key, for instance `limits.connections`; empty when the fault is of a file as a whole.
    pub key: String,
    /// `raystream.toml:12`, `environment variable RAYSTREAM_LISTEN`, `flag --listen` or `default`.
    pub place: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it, when that is known.
    pub hint: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// The name among `known` that somebody who wrote `unknown` probably meant.
pub(super) fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // More than a third of the letters wrong is another word.
    let most = (unknown.chars().count() / 3).max(2);
    known
        .into_iter()
        // What is only the beginning of a name is one mistake away from it, whatever its length.
        .map(|name| (if name.starts_with(unknown) { 1 } else { distance(unknown, name) }, name))
        .min()
        .and_then(|(distance, name)| (distance <= most).then_some(name))
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(&b) {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = *cell;
            left = replaced.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        row[0] = i + 1;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_levenshtein() {
        for (a, b, expected) in [
            ("", "", 0),
            ("abc", "", 3),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
            ("ü", "u", 1),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn a_typing_mistake_finds_its_word_and_nonsense_finds_none() {
        let known = ["connections", "half_open", "heartbeat"];
        assert_eq!(nearest("conections", known), Some("connections"));
        assert_eq!(nearest("hearbeats", known), Some("heartbeat"));
        assert_eq!(nearest("half", known), Some("half_open"));
        assert_eq!(nearest("colour", known), None);
    }
}
