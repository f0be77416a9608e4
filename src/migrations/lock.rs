//! The lock file: the history of the schema, kept with the program that relies on it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::change::Change;
use super::error::MigrationFault;
use super::schema::{Index, Perm, Schema, Table, Tables};
use super::source::Migration;

/// The name of the lock file.
pub const LOCK_FILE: &str = "raystream.lock.json";

/// The lock file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// The version of the newest migration; 0 when there is none.
    pub version: u32,
    /// What the migrations add up to.
    pub tables: BTreeMap<String, LockedTable>,
    /// All migrations, in order.
    pub migrations: Vec<Locked>,
}

/// A table of the lock file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedTable {
    /// The physical table, in the database that the file was last written with. For a person: nothing reads it.
    pub ptr: Option<String>,
    /// Its fields.
    pub schema: Schema,
    /// The table of somebody else's that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<String>,
    /// What may be done with it.
    #[serde(default, skip_serializing_if = "Perm::is_all")]
    pub permissions: Perm,
    /// Its indexes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub indexes: BTreeMap<String, Index>,
    /// [`Table::hash`].
    pub hash: String,
}

/// A migration of the lock file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// Its number.
    pub version: u32,
    /// Its name.
    pub name: String,
    /// Whether it is a file.
    pub reviewed: bool,
    /// When it was applied first, by the clock of that database.
    pub timestamp: String,
    /// What it makes of the declared tables.
    pub changes: Vec<Change>,
    /// Its statements.
    pub sql: String,
    /// Those that take it back.
    pub down: String,
    /// [`Migration::hash`].
    pub hash: String,
}

impl Lock {
    /// Reads a lock file, and checks that nobody edited it.
    ///
    /// # Errors
    /// [`MigrationFault::LockFile`].
    pub fn parse(text: &str) -> Result<Self, MigrationFault> {
        let fault = |message: String| MigrationFault::LockFile { file: LOCK_FILE, message };
        let lock: Self = serde_json::from_str(text).map_err(|error| fault(error.to_string()))?;
        let versions = lock.migrations.iter().map(|migration| migration.version);
        if !versions.eq(1..=lock.version) {
            return Err(fault(format!("its migrations are not 1 to {} in order", lock.version)));
        }
        let mut tables = Tables::default();
        for locked in &lock.migrations {
            let migration = locked.rendered();
            if !locked.reviewed && migration.hash() != locked.hash {
                return Err(fault(format!(
                    "migration {} was edited: its hash is another one",
                    locked.version
                )));
            }
            migration.apply(&mut tables).map_err(|error| fault(error.to_string()))?;
        }
        if lock.declared() != tables {
            return Err(fault("its tables are not what its migrations add up to".to_owned()));
        }
        if let Some((name, _)) = lock.tables.iter().find(|(name, table)| tables.0[*name].hash() != table.hash)
        {
            return Err(fault(format!("the hash of the table `{name}` is another one")));
        }
        Ok(lock)
    }

    /// As it stands in the file.
    pub fn to_text(&self) -> String {
        serde_json::to_string_pretty(self).expect("a lock file is JSON") + "\n"
    }

    /// The declared tables.
    pub(super) fn declared(&self) -> Tables {
        let tables = self.tables.iter().map(|(name, locked)| {
            let table = Table {
                attached: locked.attached.clone(),
                permissions: locked.permissions,
                fields: locked.schema.clone(),
                indexes: locked.indexes.clone(),
            };
            (name.clone(), table)
        });
        Tables(tables.collect())
    }

    /// The lock file of a history. `timestamps` are those of the migrations, `ptrs` the physical tables by name.
    ///
    /// # Errors
    /// [`MigrationFault::Change`] when the history does not fit together.
    pub fn of(
        history: &[Migration],
        timestamps: &[String],
        ptrs: &BTreeMap<String, String>,
    ) -> Result<Self, MigrationFault> {
        let mut tables = Tables::default();
        let mut migrations = Vec::new();
        for (migration, timestamp) in history.iter().zip(timestamps) {
            migration.apply(&mut tables)?;
            migrations.push(Locked {
                version: migration.version,
                name: migration.name.clone(),
                reviewed: migration.reviewed,
                timestamp: timestamp.clone(),
                changes: migration.changes.clone(),
                sql: migration.up.clone(),
                down: migration.down.clone(),
                hash: migration.hash(),
            });
        }
        let locked = |(name, table): (String, Table)| {
            let hash = table.hash();
            let ptr = ptrs.get(&name).cloned();
            let Table { attached, permissions, fields, indexes } = table;
            (name, LockedTable { ptr, schema: fields, attached, permissions, indexes, hash })
        };
        let version = migrations.last().map_or(0, |migration| migration.version);
        Ok(Self { version, tables: tables.0.into_iter().map(locked).collect(), migrations })
    }
}

impl Locked {
    /// The migration, as far as the lock file has it: the text of a reviewed one is in its file.
    pub(super) fn rendered(&self) -> Migration {
        let (changes, up, down) = (self.changes.clone(), self.sql.clone(), self.down.clone());
        Migration { name: self.name.clone(), ..Migration::rendered(self.version, changes, up, down) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> Lock {
        let text = "[tables.users.fields]\nname = 'string'\nage = { type = 'number', default = 1.0 }";
        let changes = Tables::default().diff(&Tables::parse(text).expect("good"));
        let migration = Migration::automatic(1, &Tables::default(), changes).expect("it fits");
        let ptrs = BTreeMap::from([("users".to_owned(), "raystream.tbl_1".to_owned())]);
        Lock::of(&[migration], &["2026-01-02T03:04:05Z".to_owned()], &ptrs).expect("it fits")
    }

    #[test]
    fn a_lock_file_is_read_as_it_was_written() {
        let text = lock().to_text();
        assert_eq!(Lock::parse(&text), Ok(lock()));
        assert_eq!(Lock::parse(&Lock::default().to_text()), Ok(Lock::default()));
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["tables"]["users"]["schema"]["name"]["type"], "string");
        assert_eq!(value["tables"]["users"]["ptr"], "raystream.tbl_1");
        let kinds: Vec<_> = value["migrations"][0]["changes"].as_array().expect("changes").iter().collect();
        assert_eq!(kinds[1]["type"], "add_field");
        assert_eq!(kinds[1]["fieldType"], "number");
    }

    #[test]
    fn an_edited_lock_file_is_refused() {
        let text = lock().to_text();
        for (from, to, part) in [
            ("\"version\": 1,\n  \"tables\"", "\"version\": 2,\n  \"tables\"", "not 1 to 2 in order"),
            ("SELECT raystream.add_table('users');", "SELECT 1;", "migration 1 was edited"),
            ("\"fieldType\": \"string\"", "\"fieldType\": \"number\"", "migration 1 was edited"),
            ("\"type\": \"string\"\n", "\"type\": \"number\"\n", "not what its migrations add up to"),
            ("\"version\"", "\"versoin\"", "unknown field"),
        ] {
            assert!(text.contains(from), "{text}");
            let fault = Lock::parse(&text.replacen(from, to, 1)).expect_err(to).to_string();
            assert!(fault.starts_with("raystream.lock.json: ") && fault.contains(part), "{fault}");
        }
    }
}
