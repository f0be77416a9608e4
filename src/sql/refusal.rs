//! Why a statement is not run.

use std::fmt;

/// A refusal. Nothing of the statement has reached the database. The text is ours; of the caller's text it shows at most
/// one short name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It names a relation that is not the caller's own table.
    CrossTable(String),
    /// It has something that is not on the list of what may be asked, or goes over a limit.
    Invalid(String),
}

impl Refusal {
    /// The name of the refusal for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::CrossTable(_) => "KONTRACT_EXEC_CROSS_TABLE",
            Self::Invalid(_) => "INVALID_REQUEST",
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    pub(super) fn cross_table(name: &str) -> Self {
        Self::CrossTable(format!("the statement names `{}`, and may read its own table only", shown(name)))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CrossTable(message) | Self::Invalid(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Refusal {}

/// A name of the caller's, short and harmless.
pub(super) fn shown(name: &str) -> String {
    name.chars()
        .filter(|c| *c != '"')
        .take(40)
        .map(|c| if c.is_alphanumeric() || "_.$".contains(c) { c } else { '?' })
        .collect()
}
