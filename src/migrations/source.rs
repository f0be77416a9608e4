//! A migration as text: the changes that it makes, the statements that make them, and those that take them back.
//!
//! ```text
//! -- change: {"type":"rename_field","table":"users","field":"email","from":"mail"}
//! -- up
//! SELECT raystream.rename_field('users', 'mail', 'email');
//! -- down
//! SELECT raystream.rename_field('users', 'email', 'mail');
//! ```

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::change::Change;
use super::error::MigrationFault;
use super::schema::{Tables, hex};
use super::sql;

/// What stands before a change, and the lines that begin the parts.
const CHANGE: &str = "-- change:";
const UP: &str = "-- up";
const DOWN: &str = "-- down";

/// The name of what is made without a file.
pub(super) const AUTOMATIC: &str = "automatic";

/// The longest name of a migration, in bytes: it is in a file's name and in the change log.
const NAME_LEN_MAX: usize = 80;

/// A migration.
#[derive(Debug, Clone, PartialEq)]
pub struct Migration {
    /// Its number, from 1 without a gap.
    pub version: u32,
    /// Its name.
    pub name: String,
    /// Whether it is a file that somebody wrote and read.
    pub reviewed: bool,
    /// What it makes of the declared tables.
    pub changes: Vec<Change>,
    /// The statements that do it.
    pub up: String,
    /// Those that take it back; none at all when it cannot be.
    pub down: String,
    /// All of it, with line ends of one byte.
    pub source: String,
}

impl Migration {
    /// A migration of safe changes.
    pub(super) fn automatic(
        version: u32,
        before: &Tables,
        changes: Vec<Change>,
    ) -> Result<Self, MigrationFault> {
        let (up, down) = statements(version, AUTOMATIC, before, &changes)?;
        Ok(Self::rendered(version, changes, up, down))
    }

    /// A migration of safe changes, of its parts.
    pub(super) fn rendered(version: u32, changes: Vec<Change>, up: String, down: String) -> Self {
        let source = format!("{}{UP}\n{up}{DOWN}\n{down}", change_lines(&changes));
        let name = AUTOMATIC.to_owned();
        Self { version, name, reviewed: false, changes, up, down, source }
    }

    /// Reads a migration.
    ///
    /// # Errors
    /// [`MigrationFault::File`].
    pub(super) fn parse(
        version: u32,
        name: &str,
        reviewed: bool,
        text: &str,
    ) -> Result<Self, MigrationFault> {
        let file = file_name(version, name);
        let fault = |message: String| MigrationFault::File { file: file.clone(), message };
        let source = text.replace("\r\n", "\n");
        let mut changes = Vec::new();
        let mut parts: [Option<String>; 2] = [None, None];
        for (number, line) in source.lines().enumerate().map(|(at, line)| (at + 1, line)) {
            let part = match line.trim_end() {
                UP => Some(0),
                DOWN => Some(1),
                _ => None,
            };
            if let Some(part) = part {
                if parts[part].is_some() || part == 1 && parts[0].is_none() {
                    return Err(fault(format!("line {number}: one line `{UP}`, then one line `{DOWN}`")));
                }
                parts[part] = Some(String::new());
                continue;
            }
            match parts.iter_mut().rev().find_map(Option::as_mut) {
                Some(part) => {
                    part.push_str(line);
                    part.push('\n');
                }
                None => match line.strip_prefix(CHANGE) {
                    Some(json) => {
                        let change = serde_json::from_str(json.trim());
                        changes.push(change.map_err(|error| fault(format!("line {number}: {error}")))?);
                    }
                    None if line.trim().is_empty() || line.starts_with("--") => {}
                    None => {
                        return Err(fault(format!("line {number}: statements come after the line `{UP}`")));
                    }
                },
            }
        }
        let [Some(up), Some(down)] = parts else {
            return Err(fault(format!("it needs a line `{UP}` and a line `{DOWN}`")));
        };
        if reviewed && changes.is_empty() && is_blank(&up) {
            return Err(fault(format!("there is nothing in it: write the statements below `{UP}`")));
        }
        Ok(Self { version, name: name.to_owned(), reviewed, changes, up, down, source })
    }

    /// SHA-256 of its text, as hex.
    pub fn hash(&self) -> String {
        hex(&Sha256::digest(self.source.as_bytes()))
    }

    /// Whether it has statements.
    pub fn has_up(&self) -> bool {
        !is_blank(&self.up)
    }

    /// Whether it has statements that take it back.
    pub fn has_down(&self) -> bool {
        !is_blank(&self.down)
    }

    /// The name of its file, when it is one.
    pub fn file_name(&self) -> String {
        file_name(self.version, &self.name)
    }

    /// Makes its changes of declared tables.
    ///
    /// # Errors
    /// [`MigrationFault::Change`].
    pub(super) fn apply(&self, tables: &mut Tables) -> Result<(), MigrationFault> {
        let fault =
            |message| MigrationFault::Change { version: self.version, name: self.name.clone(), message };
        self.changes.iter().try_for_each(|change| tables.apply(change)).map_err(fault)?;
        tables.check().map_err(fault)
    }
}

/// The statements of some changes, there and back.
fn statements(
    version: u32,
    name: &str,
    before: &Tables,
    changes: &[Change],
) -> Result<(String, String), MigrationFault> {
    let fault = |message| MigrationFault::Change { version, name: name.to_owned(), message };
    let mut tables = before.clone();
    let (mut up, mut down) = (String::new(), Vec::new());
    for change in changes {
        // Before its statements are written, which then can rely on it.
        let was = tables.clone();
        tables.apply(change).map_err(fault)?;
        up.extend(sql::up(change, &was).map(|text| format!("{text}\n")));
        down.extend(sql::down(change, &was).map(|text| format!("{text}\n")));
    }
    down.reverse();
    Ok((up, down.concat()))
}

fn change_lines(changes: &[Change]) -> String {
    changes.iter().fold(String::new(), |mut lines, change| {
        let json = serde_json::to_string(change).expect("a change is JSON");
        writeln!(lines, "{CHANGE} {json}").expect("a string takes it");
        lines
    })
}

/// Whether there is no statement, only space and comments of one line.
fn is_blank(sql: &str) -> bool {
    sql.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with("--"))
}

/// The name of a migration's file.
pub fn file_name(version: u32, name: &str) -> String {
    format!("{version:04}_{name}.sql")
}

/// The number and the name of a migration, from the name of its file; none when it is not the name of one.
pub fn parse_file_name(file: &str) -> Option<(u32, &str)> {
    let (number, name) = file.strip_suffix(".sql")?.split_once('_')?;
    let is_number = number.len() >= 4 && number.bytes().all(|byte| byte.is_ascii_digit());
    let version = number.parse().ok().filter(|version| is_number && *version > 0)?;
    // The same number in two ways of writing would be two files of one migration.
    let fits = is_name(name) && file_name(version, name) == file;
    fits.then_some((version, name))
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    !name.is_empty() && name.len() <= NAME_LEN_MAX && name.bytes().all(allowed)
}

/// The file of a migration that somebody is to review: what has to change, with a proposal for the statements.
///
/// # Errors
/// [`MigrationFault::File`] for a name that is none.
pub fn skeleton(
    version: u32,
    name: &str,
    before: &Tables,
    changes: &[Change],
) -> Result<String, MigrationFault> {
    if !is_name(name) {
        let message = format!("a migration's name is 1 to {NAME_LEN_MAX} letters, digits, - and _");
        return Err(MigrationFault::File { file: name.to_owned(), message });
    }
    let (up, down) = statements(version, name, before, changes)?;
    let mut text = format!(
        "-- Migration {version}: {name}\n--\n\
         -- Read it, change what it does, and test it: `raystream migrate up` runs it in one transaction. The lines with\n\
         -- `change:` say what it makes of the declared tables; the statements have to do the same. Each table of documents is\n\
         -- a view under its name here: UPDATE users SET data = data - 'x'.\n\
         -- With nothing below `down` it cannot be reverted. docs/migrations.md has the functions.\n"
    );
    text += &change_lines(changes);
    let lost = changes
        .iter()
        .filter(|change| matches!(change, Change::RemoveField { .. } | Change::RemoveTable { .. }));
    let mut down_text = String::new();
    for change in lost {
        writeln!(down_text, "-- What {change} removed does not come back.").expect("a string takes it");
    }
    write!(text, "\n{UP}\n{up}\n{DOWN}\n{down_text}{down}").expect("a string takes it");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::diff::tests::SCHEMAS;
    use super::*;

    #[test]
    fn a_migration_is_read_as_it_was_written() {
        let tables: Vec<Tables> =
            SCHEMAS.iter().map(|text| Tables::parse(text).expect("a good schema")).collect();
        for (old, new) in tables.iter().flat_map(|old| tables.iter().map(move |new| (old, new))) {
            let changes = old.diff(new);
            let text = skeleton(3, "some-name_1", old, &changes).expect("a good name");
            let Ok(read) = Migration::parse(3, "some-name_1", true, &text) else {
                assert!(changes.is_empty(), "{text}");
                continue;
            };
            assert_eq!(read.changes, changes, "{text}");
            let automatic = Migration::automatic(3, old, changes.clone()).expect("the changes fit");
            assert_eq!(read.up.trim(), automatic.up.trim());
            let again = Migration::parse(3, AUTOMATIC, false, &automatic.source).expect("ours");
            assert_eq!(again, automatic);
            assert_eq!(again.hash(), automatic.hash());
        }
    }

    #[test]
    fn line_ends_of_an_editor_change_nothing() {
        let unix = "-- up\nSELECT 1;\n-- down\n";
        let read = |text: &str| Migration::parse(1, "a", true, text).expect("a good file");
        assert_eq!(read(unix).hash(), read(&unix.replace('\n', "\r\n")).hash());
        assert_ne!(read(unix).hash(), read("-- up\nSELECT 2;\n-- down\n").hash());
        assert!(!read(unix).has_down() && read(unix).has_up());
    }

    #[test]
    fn what_is_no_migration_is_refused_with_its_line() {
        for (text, part) in [
            ("", "it needs a line `-- up`"),
            ("-- up\nSELECT 1;\n", "it needs a line `-- up` and a line `-- down`"),
            ("-- down\n-- up\n", "line 1: one line `-- up`, then"),
            ("-- up\nSELECT 1;\n-- down\n-- up\n", "line 4"),
            ("SELECT 1;\n-- up\n-- down\n", "line 1: statements come after"),
            ("-- change: {\"type\":\"add\"}\n-- up\n-- down\n", "line 1: unknown variant `add`"),
            (
                "-- change: {\"type\":\"remove_table\",\"tabel\":\"a\"}\n-- up\n-- down\n",
                "line 1: unknown field",
            ),
            ("-- up\n-- nothing yet\n-- down\n", "there is nothing in it"),
        ] {
            let fault = Migration::parse(7, "x", true, text).expect_err(text).to_string();
            assert!(fault.starts_with("0007_x.sql: ") && fault.contains(part), "{text}: {fault}");
        }
    }

    #[test]
    fn names_of_files_go_there_and_back() {
        assert_eq!(parse_file_name("0012_rename-mail.sql"), Some((12, "rename-mail")));
        assert_eq!(parse_file_name("12345_a.sql"), Some((12345, "a")));
        for bad in [
            "12_a.sql",
            "0000_a.sql",
            "00012_a.sql",
            "0012_.sql",
            "0012.sql",
            "0012_a.txt",
            "0012_a b.sql",
            "x",
        ] {
            assert_eq!(parse_file_name(bad), None, "{bad}");
        }
        for bad in ["", "../a", "a b", "ä", &"x".repeat(NAME_LEN_MAX + 1)] {
            assert!(skeleton(1, bad, &Tables::default(), &[]).is_err(), "{bad}");
        }
    }
}
