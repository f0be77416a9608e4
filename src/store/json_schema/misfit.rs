//! What is wrong with a document, in words for its writer.

use std::fmt;

use jsonschema::ValidationError;

/// The most faults that are told of one document.
pub const MISFITS_MAX: usize = 16;

/// The longest text of a fault, in bytes: some name what they expected, which may be long.
const TEXT_LEN_MAX: usize = 256;

/// The longest path of a fault, in bytes: a name may be as long as a document.
const PATH_LEN_MAX: usize = 1024;

/// A place of a document that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The place, as a JSON pointer (RFC 6901): empty is the whole document. Where that is too long, what the place is inside of.
    pub path: String,
    /// The keyword of the schema that it does not fit.
    pub keyword: String,
    /// Where that keyword is in the schema, as a JSON pointer, or what it is inside of.
    pub schema_path: String,
    /// A sentence. No value of the document is in it.
    pub message: String,
}

/// What does not fit: at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfits {
    /// Some of the places, [`MISFITS_MAX`] at most.
    pub list: Vec<Misfit>,
    /// Whether there are others.
    pub more: bool,
}

impl Misfits {
    /// The first of the faults.
    pub(super) fn of<'a>(errors: impl IntoIterator<Item = ValidationError<'a>>) -> Self {
        let mut errors = errors.into_iter();
        let list = errors.by_ref().take(MISFITS_MAX).map(|error| Misfit::of(&error)).collect();
        Self { list, more: errors.next().is_some() }
    }

    /// One fault; there may be others.
    pub(super) fn first(error: Option<ValidationError<'_>>) -> Self {
        match error {
            Some(error) => Self { list: vec![Misfit::of(&error)], more: true },
            None => Self::somewhere(),
        }
    }

    /// A document of which it is not told where it does not fit.
    pub(super) fn somewhere() -> Self {
        Self::because("the document is too long for its schema to say where it does not fit".to_owned())
    }

    /// A document that does not fit as a whole, for a reason that is no keyword.
    pub(super) fn because(message: String) -> Self {
        let misfit =
            Misfit { path: String::new(), keyword: String::new(), schema_path: String::new(), message };
        Self { list: vec![misfit], more: true }
    }
}

impl Misfit {
    fn of(error: &ValidationError<'_>) -> Self {
        Self {
            path: shorter(error.instance_path().as_str()),
            keyword: error.kind().keyword().to_owned(),
            schema_path: shorter(error.schema_path().as_str()),
            message: short(error.masked_with("the value").to_string()),
        }
    }
}

/// A pointer without its last steps, where it is too long.
fn shorter(pointer: &str) -> String {
    let mut rest = pointer;
    while rest.len() > PATH_LEN_MAX {
        rest = rest.rsplit_once('/').map_or("", |(before, _)| before);
    }
    rest.to_owned()
}

/// A text that is cut, at a character, where it is too long.
pub(super) fn short(mut text: String) -> String {
    if text.len() > TEXT_LEN_MAX {
        let end = (0..=TEXT_LEN_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
        text.push_str("..");
    }
    text
}

impl fmt::Display for Misfits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the document does not fit the schema of its table")?;
        let Some(first) = self.list.first() else { return Ok(()) };
        if first.keyword.is_empty() {
            return write!(f, ": {}", first.message);
        }
        let place = if first.path.is_empty() { "the whole of it" } else { &first.path };
        write!(f, ": {place}: {} (`{}`)", first.message, first.keyword)?;
        match self.list.len() - 1 {
            0 if !self.more => Ok(()),
            others => write!(f, ", and {}{others} more", if self.more { "over " } else { "" }),
        }
    }
}
