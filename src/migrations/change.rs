//! One difference between two schemas.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::field_type::FieldType;
use super::schema::{IndexKind, Perm, Schema};

/// What kind of change it is, and with that whether it is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum ChangeType {
    AddTable,
    RemoveTable,
    AddField,
    RemoveField,
    RenameField,
    ChangeType,
    ChangeDefault,
    ChangePermissions,
    AddIndex,
    RemoveIndex,
}

impl ChangeType {
    /// Whether nothing that is there can be lost by it, so that it is made without a review.
    pub fn is_safe(self) -> bool {
        match self {
            Self::AddTable | Self::AddField | Self::AddIndex => true,
            Self::ChangeDefault | Self::ChangePermissions => true,
            Self::RemoveTable | Self::RemoveField | Self::RemoveIndex => false,
            Self::RenameField | Self::ChangeType => false,
        }
    }
}

/// A change of a schema, with all that is needed to make it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase", deny_unknown_fields)]
#[allow(missing_docs, reason = "the names say it; where not, there is a comment")]
pub enum Change {
    AddTable {
        table: String,
        /// For a table of somebody else's: which.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attached: Option<String>,
        /// And those of its columns that are declared.
        #[serde(default, skip_serializing_if = "Schema::is_empty")]
        fields: Schema,
    },
    RemoveTable {
        table: String,
    },
    AddField {
        table: String,
        field: String,
        field_type: FieldType,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        default: Option<Value>,
    },
    RemoveField {
        table: String,
        field: String,
    },
    RenameField {
        table: String,
        /// The new name.
        field: String,
        /// The one before.
        from: String,
    },
    ChangeType {
        table: String,
        field: String,
        field_type: FieldType,
    },
    ChangeDefault {
        table: String,
        field: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        default: Option<Value>,
    },
    ChangePermissions {
        table: String,
        /// Absent: of the table.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        field: Option<String>,
        perm: Perm,
    },
    AddIndex {
        table: String,
        index: String,
        kind: IndexKind,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        fields: Vec<String>,
    },
    RemoveIndex {
        table: String,
        index: String,
    },
}

impl Change {
    /// Its kind.
    pub fn change_type(&self) -> ChangeType {
        match self {
            Self::AddTable { .. } => ChangeType::AddTable,
            Self::RemoveTable { .. } => ChangeType::RemoveTable,
            Self::AddField { .. } => ChangeType::AddField,
            Self::RemoveField { .. } => ChangeType::RemoveField,
            Self::RenameField { .. } => ChangeType::RenameField,
            Self::ChangeType { .. } => ChangeType::ChangeType,
            Self::ChangeDefault { .. } => ChangeType::ChangeDefault,
            Self::ChangePermissions { .. } => ChangeType::ChangePermissions,
            Self::AddIndex { .. } => ChangeType::AddIndex,
            Self::RemoveIndex { .. } => ChangeType::RemoveIndex,
        }
    }

    /// Whether it is made without a review.
    pub fn is_safe(&self) -> bool {
        self.change_type().is_safe()
    }

    /// The table that it changes.
    pub fn table(&self) -> &str {
        match self {
            Self::AddTable { table, .. }
            | Self::RemoveTable { table }
            | Self::AddField { table, .. }
            | Self::RemoveField { table, .. }
            | Self::RenameField { table, .. }
            | Self::ChangeType { table, .. }
            | Self::ChangeDefault { table, .. }
            | Self::ChangePermissions { table, .. }
            | Self::AddIndex { table, .. }
            | Self::RemoveIndex { table, .. } => table,
        }
    }

    /// The field that it changes, by its new name.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::AddField { field, .. }
            | Self::RemoveField { field, .. }
            | Self::RenameField { field, .. }
            | Self::ChangeType { field, .. }
            | Self::ChangeDefault { field, .. } => Some(field),
            Self::ChangePermissions { field, .. } => field.as_deref(),
            _ => None,
        }
    }
}

/// For a person: `add_field users.age number`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = serde_json::to_value(self.change_type()).expect("a kind is JSON");
        let table = self.table();
        write!(f, "{} {table}", kind.as_str().unwrap_or_default())?;
        match self {
            Self::AddTable { attached, .. } => {
                attached.iter().try_for_each(|name| write!(f, " (attached {name})"))
            }
            Self::RemoveTable { .. } => Ok(()),
            Self::AddField { field, field_type, default, .. } => {
                write!(f, ".{field} {field_type}")?;
                default.iter().try_for_each(|default| write!(f, " default {default}"))
            }
            Self::ChangeType { field, field_type, .. } => write!(f, ".{field} to {field_type}"),
            Self::RemoveField { field, .. } => write!(f, ".{field}"),
            Self::RenameField { field, from, .. } => write!(f, ".{from} to {field}"),
            Self::ChangeDefault { field, default, .. } => match default {
                Some(default) => write!(f, ".{field} to {default}"),
                None => write!(f, ".{field} to none"),
            },
            Self::ChangePermissions { field, perm, .. } => {
                field.iter().try_for_each(|field| write!(f, ".{field}"))?;
                write!(f, " to {perm}")
            }
            Self::AddIndex { index, kind, fields, .. } => {
                write!(f, ".{index} {}", kind.as_str())?;
                if fields.is_empty() { Ok(()) } else { write!(f, " ({})", fields.join(", ")) }
            }
            Self::RemoveIndex { index, .. } => write!(f, ".{index}"),
        }
    }
}
