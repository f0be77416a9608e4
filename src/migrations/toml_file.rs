//! The schema file: TOML that a person writes.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::error::MigrationFault;
use super::field_type::FieldType;
use super::schema::{Field, Index, IndexKind, Perm, Table, Tables};

/// The name of the schema file.
pub const SCHEMA_FILE: &str = "raystream.schema.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    tables: BTreeMap<String, TableEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TableEntry {
    attached: Option<String>,
    #[serde(default)]
    permissions: Perm,
    #[serde(default)]
    fields: BTreeMap<String, FieldEntry>,
    #[serde(default)]
    indexes: BTreeMap<String, IndexEntry>,
}

/// `"string"`, or a table with more.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a type like \"string\", or { type = .., perm = .., default = .., was = .. }")]
enum FieldEntry {
    Type(String),
    Field(RawField),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawField {
    #[serde(rename = "type")]
    field_type: String,
    #[serde(default)]
    perm: Option<serde_json::Value>,
    #[serde(default)]
    default: Option<serde_json::Value>,
    #[serde(default)]
    was: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IndexEntry {
    #[serde(default)]
    fields: Vec<String>,
    #[serde(default)]
    unique: bool,
    #[serde(default)]
    gin: bool,
}

impl FieldEntry {
    fn field(self) -> Result<Field, MigrationFault> {
        Ok(match self {
            Self::Type(name) => Field::of(name.parse::<FieldType>()?),
            Self::Field(raw) => Field {
                field_type: raw.field_type.parse()?,
                perm: raw.perm.map(Perm::try_from).transpose()?.unwrap_or_default(),
                default: raw.default,
                was: raw.was,
            },
        })
    }
}

impl IndexEntry {
    fn index(self) -> Result<Index, &'static str> {
        let kind = match (self.unique, self.gin) {
            (true, true) => return Err("an index is unique or gin, not both"),
            (true, false) => IndexKind::Unique,
            (false, true) => IndexKind::Gin,
            (false, false) => IndexKind::Value,
        };
        Ok(Index { kind, fields: self.fields })
    }
}

impl Tables {
    /// Reads a schema file.
    ///
    /// # Errors
    /// [`MigrationFault::SchemaFile`] with the line, or the path of what is wrong.
    pub fn parse(text: &str) -> Result<Self, MigrationFault> {
        let fault = |message: String| MigrationFault::SchemaFile { file: SCHEMA_FILE, message };
        let file: File =
            toml::from_str(text).map_err(|error| fault(error.to_string().trim_end().to_owned()))?;
        let mut tables = BTreeMap::new();
        for (name, entry) in file.tables {
            let mut table =
                Table { attached: entry.attached, permissions: entry.permissions, ..Table::default() };
            for (field, entry) in entry.fields {
                let read = entry.field();
                let read = read.map_err(|error| fault(format!("tables.{name}.fields.{field}: {error}")))?;
                table.fields.insert(field, read);
            }
            for (index, entry) in entry.indexes {
                let read = entry.index();
                let read = read.map_err(|error| fault(format!("tables.{name}.indexes.{index}: {error}")))?;
                table.indexes.insert(index, read);
            }
            tables.insert(name, table);
        }
        let tables = Self(tables);
        tables.check().map_err(fault)?;
        Ok(tables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_file_is_read() {
        let tables = Tables::parse(
            "[tables.users]\npermissions = 'RW_'\n\
             [tables.users.fields]\nname = 'string'\n\
             email = { type = 'string', perm = 4, default = '', was = 'mail' }\n\
             [tables.users.indexes]\nby_email = { fields = ['email'], unique = true }\nfilters = { gin = true }\n\
             [tables.orders]\nattached = 'shop.orders'\nfields.total = 'number'\n[tables.log]\n",
        )
        .expect("a good file");
        let users = &tables.0["users"];
        assert_eq!(users.permissions.to_string(), "RW_");
        let email = &users.fields["email"];
        assert_eq!((email.perm.bits(), email.was.as_deref()), (4, Some("mail")));
        assert_eq!(email.default, Some("".into()));
        assert_eq!(users.indexes["by_email"].kind, IndexKind::Unique);
        assert_eq!(users.indexes["filters"].kind, IndexKind::Gin);
        assert_eq!(tables.0["orders"].attached.as_deref(), Some("shop.orders"));
        assert_eq!(tables.0["log"], Table::default());
        assert_eq!(Tables::parse("").expect("an empty file"), Tables::default());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, part) in [
            ("tables = 1", "line 1"),
            ("[tables.t]\nfeilds = {}", "line 2"),
            ("[tables.t.fields]\na = 'text'", "tables.t.fields.a: `text` is no type"),
            ("[tables.t.fields]\na = { type = 'string', prem = 4 }", "line 2"),
            (
                "[tables.t.fields]\na = { type = 'string', perm = 2 }",
                "tables.t.fields.a: `2` are no permissions",
            ),
            (
                "[tables.t.fields]\na = { type = 'number', default = 'x' }",
                "tables.t.fields.a: the default \"x\" is no number",
            ),
            ("[tables.t.fields]\n'a b' = 'string'", "`a b` cannot be the name of a field"),
            ("[tables.'1t']", "`1t` cannot be the name of a table"),
            ("[tables.t]\npermissions = '_W_'", "are no permissions"),
            ("[tables.t.indexes]\ni = { fields = ['a'] }", "tables.t.indexes.i: there is no field `a`"),
            ("[tables.t.indexes]\ni = {}", "tables.t.indexes.i: it has no fields"),
            ("[tables.t.indexes]\ni = { gin = true, unique = true }", "not both"),
            ("[tables.t]\nattached = 'a.b.c'", "tables.t.attached"),
            ("[tables.t]\nattached = 'a.b'\npermissions = 'R__'", "GRANT"),
            ("[tables.t]\nattached = 'a.b'\nindexes.i = { gin = true }", "no gin index"),
            ("[tables.t]\nattached = 'a.b'\n[tables.u]\nattached = 'a.b'", "a.b is attached under two names"),
        ] {
            let fault = Tables::parse(text).expect_err(text).to_string();
            assert!(fault.starts_with("raystream.schema.toml: ") && fault.contains(part), "{text}: {fault}");
        }
    }
}
