//! On which line of a TOML text each key stands.

use std::collections::HashMap;

use toml::de::{DeTable, DeValue};

/// Line numbers by key path.
#[derive(Debug, Default)]
pub(super) struct Lines(HashMap<Vec<String>, usize>);

impl Lines {
    /// Reads a text that is known to be TOML; another text has no lines.
    pub(super) fn of(text: &str) -> Self {
        let mut lines = Self::default();
        if let Ok(document) = DeTable::parse(text) {
            lines.collect(text, document.get_ref(), &[]);
        }
        lines
    }

    /// The line, counted from 1, of a key or of the nearest table around it.
    pub(super) fn get(&self, path: &[String]) -> Option<usize> {
        let parents = (1..=path.len()).rev().filter_map(|length| path.get(..length));
        parents.filter_map(|path| self.0.get(path).copied()).next()
    }

    /// Every key that holds a value and no table, with its line.
    pub(super) fn leaves(text: &str) -> Vec<(Vec<String>, usize)> {
        let all = Self::of(text).0;
        let is_table =
            |path: &Vec<String>| all.keys().any(|other| other.len() > path.len() && other.starts_with(path));
        all.iter().filter(|(path, _)| !is_table(path)).map(|(path, line)| (path.clone(), *line)).collect()
    }

    fn collect(&mut self, text: &str, table: &DeTable<'_>, parent: &[String]) {
        for (key, value) in table {
            let mut path = parent.to_vec();
            path.push(key.get_ref().to_string());
            if let DeValue::Table(inner) = value.get_ref() {
                self.collect(text, inner, &path);
            }
            self.0.insert(path, line_at(text, key.span().start));
        }
    }
}

/// The line, counted from 1, of a byte offset.
pub(super) fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_line_they_stand_on() {
        let text = "listen = \"x\"\n\n[limits]\n# comment\nconnections = 5\n[access.roles]\napp = { methods = [] }\n";
        let lines = Lines::of(text);
        let line = |path: &[&str]| lines.get(&path.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>());
        assert_eq!(line(&["listen"]), Some(1));
        assert_eq!(line(&["limits", "connections"]), Some(5));
        assert_eq!(line(&["access", "roles", "app", "methods"]), Some(7));
        assert_eq!(line(&["limits", "connections", "inside"]), Some(5));
        assert_eq!(line(&["nothing"]), None);
        assert_eq!(Lines::leaves(text).len(), 3);
    }
}
