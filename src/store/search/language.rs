//! The languages of full-text search: the configurations that every Postgres brings.

use std::fmt;

use crate::store::StoreError;

/// Their names, which are written into statements as they stand here: those of Postgres 14.
const NAMES: &[&str] = &[
    "simple",
    "arabic",
    "armenian",
    "basque",
    "catalan",
    "danish",
    "dutch",
    "english",
    "finnish",
    "french",
    "german",
    "greek",
    "hindi",
    "hungarian",
    "indonesian",
    "irish",
    "italian",
    "lithuanian",
    "nepali",
    "norwegian",
    "portuguese",
    "romanian",
    "russian",
    "serbian",
    "spanish",
    "swedish",
    "tamil",
    "turkish",
    "yiddish",
];

/// How words are found in a text and what of them counts: their stems, without those that are everywhere (`the`); in `simple` the
/// words themselves, all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Language(&'static str);

impl Default for Language {
    /// English, as in Postgres.
    fn default() -> Self {
        Self("english")
    }
}

impl Language {
    /// The language with a name.
    ///
    /// # Errors
    /// [`StoreError::InvalidInput`] when there is none.
    pub fn parse(name: &str) -> Result<Self, StoreError> {
        NAMES.iter().find(|known| **known == name).map(|known| Self(known)).ok_or_else(|| {
            StoreError::invalid(
                "this is no language of search: there are simple, english, german, french, ..",
            )
        })
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// It, for SQL.
    pub(in crate::store) fn sql(self) -> String {
        format!("'pg_catalog.{}'::regconfig", self.0)
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_names_reach_a_statement() {
        assert_eq!(
            Language::parse("german").map(Language::sql),
            Ok("'pg_catalog.german'::regconfig".to_owned())
        );
        assert_eq!(Language::parse(Language::default().as_str()), Ok(Language::default()));
        for wrong in ["", "German", "english'", "klingon", "pg_catalog.english"] {
            assert!(matches!(Language::parse(wrong), Err(StoreError::InvalidInput(_))), "{wrong}");
        }
        assert!(NAMES.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase())));
    }
}
