//! What a schema declares.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::error::MigrationFault;
use super::field_type::FieldType;
use super::names::{check_field, check_index, check_table, quote_physical};

/// What may be done: 4 reading, 2 writing, 1 deleting. Reading is always part of it: who may not read is said by grants, of
/// each principal, and not by the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "u8")]
pub struct Perm(u8);

impl Perm {
    /// Everything.
    pub const ALL: Self = Self(0b111);

    /// All that there are, with their names.
    const NAMED: [(&'static str, u8); 4] = [("RWX", 0b111), ("RW_", 0b110), ("R_X", 0b101), ("R__", 0b100)];

    /// The number.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Whether nothing is forbidden.
    pub fn is_all(&self) -> bool {
        *self == Self::ALL
    }
}

impl Default for Perm {
    fn default() -> Self {
        Self::ALL
    }
}

impl fmt::Display for Perm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::NAMED.iter().find(|(_, bits)| *bits == self.0);
        f.write_str(named.map(|(name, _)| *name).expect("no other is made"))
    }
}

impl FromStr for Perm {
    type Err = MigrationFault;

    fn from_str(text: &str) -> Result<Self, MigrationFault> {
        let found = Self::NAMED.iter().find(|(name, bits)| *name == text || bits.to_string() == text);
        found.map(|(_, bits)| Self(*bits)).ok_or_else(|| MigrationFault::Permissions(text.to_owned()))
    }
}

impl TryFrom<Value> for Perm {
    type Error = MigrationFault;

    fn try_from(value: Value) -> Result<Self, MigrationFault> {
        match value {
            Value::String(text) => text.parse(),
            other => other.to_string().parse(),
        }
    }
}

impl From<Perm> for u8 {
    fn from(perm: Perm) -> Self {
        perm.0
    }
}

/// A field of a table's documents, or a column of an attached table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Its type. A field may always be absent or null.
    #[serde(rename = "type")]
    pub field_type: FieldType,
    /// What may be done with it: without writing, it keeps the value that its document was made with.
    #[serde(default, skip_serializing_if = "Perm::is_all")]
    pub perm: Perm,
    /// What the documents get that are there when the field is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// The name that it had before. Says to [`diff_schemas`](super::diff_schemas) that it is the same field; not part of what
    /// is locked.
    #[serde(default, skip_serializing)]
    pub was: Option<String>,
}

impl Field {
    /// A field of a type, without anything else.
    pub fn of(field_type: FieldType) -> Self {
        Self { field_type, perm: Perm::ALL, default: None, was: None }
    }
}

/// The fields of a table, by name.
pub type Schema = BTreeMap<String, Field>;

/// What an index is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexKind {
    /// The order of queries by its fields.
    Value,
    /// Each value once. Absent and null count for nothing.
    Unique,
    /// The filters of queries; of whole documents.
    Gin,
}

impl IndexKind {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Unique => "unique",
            Self::Gin => "gin",
        }
    }
}

/// An index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// What it is for.
    pub kind: IndexKind,
    /// Its fields in order; none for [`IndexKind::Gin`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The table of somebody else's that it is, `schema.table`; absent for a table of documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<String>,
    /// What may be done with its documents.
    #[serde(default, skip_serializing_if = "Perm::is_all")]
    pub permissions: Perm,
    /// Its fields.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: Schema,
    /// Its indexes, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub indexes: BTreeMap<String, Index>,
}

impl Table {
    /// SHA-256 of what is declared, as hex. The names of earlier fields are not part of it.
    pub fn hash(&self) -> String {
        let text = serde_json::to_vec(self).expect("a table is JSON");
        hex(&Sha256::digest(text))
    }

    fn check(&self, table: &str) -> Result<(), String> {
        let at = |what: &str, name: &str, fault: &dyn fmt::Display| {
            format!("tables.{table}.{what}.{name}: {fault}")
        };
        check_table(table).map_err(|fault| fault.to_string())?;
        if let Some(physical) = &self.attached {
            quote_physical(physical).map_err(|fault| format!("tables.{table}.attached: {fault}"))?;
            if !self.permissions.is_all() || self.fields.values().any(|field| !field.perm.is_all()) {
                return Err(format!(
                    "tables.{table}: an attached table is written with SQL, so GRANT gives its permissions"
                ));
            }
        }
        for (name, field) in &self.fields {
            check_field(name).map_err(|fault| at("fields", name, &fault))?;
            if let Some(was) = &field.was {
                check_field(was).map_err(|fault| at("fields", name, &fault))?;
            }
            if let Some(default) = &field.default
                && (default.is_null() || !field.field_type.accepts(default))
            {
                let fault = format!("the default {default} is no {}", field.field_type);
                return Err(at("fields", name, &fault));
            }
        }
        for (name, index) in &self.indexes {
            check_index(name).map_err(|fault| at("indexes", name, &fault))?;
            let is_gin = index.kind == IndexKind::Gin;
            if is_gin != index.fields.is_empty() {
                let fault =
                    if is_gin { "a gin index is of whole documents: no fields" } else { "it has no fields" };
                return Err(at("indexes", name, &fault));
            }
            if is_gin && self.attached.is_some() {
                return Err(at(
                    "indexes",
                    name,
                    &"an attached table has columns, not documents: no gin index",
                ));
            }
            if let Some(field) = index.fields.iter().find(|field| !self.fields.contains_key(*field)) {
                return Err(at("indexes", name, &format!("there is no field `{field}`")));
            }
        }
        Ok(())
    }
}

/// The tables of a schema, by name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tables(pub BTreeMap<String, Table>);

impl Tables {
    /// Checks all that types cannot say.
    ///
    /// # Errors
    /// What is wrong, with its place.
    pub(super) fn check(&self) -> Result<(), String> {
        self.0.iter().try_for_each(|(name, table)| table.check(name))?;
        let mut physical: Vec<&String> =
            self.0.values().filter_map(|table| table.attached.as_ref()).collect();
        physical.sort();
        match physical.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("{} is attached under two names", pair[0])),
            None => Ok(()),
        }
    }
}

/// Bytes as hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_have_names_and_numbers() {
        for (name, bits) in Perm::NAMED {
            let perm: Perm = name.parse().expect("a name");
            assert_eq!((perm.bits(), perm.to_string().as_str()), (bits, name));
            assert_eq!(bits.to_string().parse(), Ok(perm));
        }
        for bad in ["", "RW", "_W_", "2", "0", "8", "rwx"] {
            assert!(bad.parse::<Perm>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_hash_is_of_what_is_declared() {
        let mut table = Table::default();
        table.fields.insert("a".to_owned(), Field::of("string".parse().expect("a type")));
        let hash = table.hash();
        table.fields.get_mut("a").expect("there").was = Some("b".to_owned());
        assert_eq!(table.hash(), hash);
        table.fields.get_mut("a").expect("there").perm = "R__".parse().expect("permissions");
        assert_ne!(table.hash(), hash);
    }
}
