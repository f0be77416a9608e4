//! The tables after a change.

use super::change::Change;
use super::field_type::FieldType;
use super::schema::{Field, Index, Perm, Table, Tables};

impl Tables {
    fn table_mut(&mut self, name: &str) -> Result<&mut Table, String> {
        self.0.get_mut(name).ok_or_else(|| format!("there is no table `{name}`"))
    }

    fn field_mut(&mut self, table: &str, field: &str) -> Result<&mut Field, String> {
        let fields = &mut self.table_mut(table)?.fields;
        fields.get_mut(field).ok_or_else(|| format!("there is no field `{field}` in `{table}`"))
    }

    /// Makes a change.
    ///
    /// # Errors
    /// What of it does not fit these tables. They may then be half changed.
    pub(super) fn apply(&mut self, change: &Change) -> Result<(), String> {
        match change {
            Change::AddTable { table, attached, fields } => {
                let new = Table { attached: attached.clone(), fields: fields.clone(), ..Table::default() };
                if self.0.insert(table.clone(), new).is_some() {
                    return Err(format!("there is a table `{table}` already"));
                }
                Ok(())
            }
            Change::RemoveTable { table } => {
                self.0.remove(table).map(drop).ok_or_else(|| format!("there is no table `{table}`"))
            }
            Change::AddField { table, field, field_type, default } => {
                self.add_field(table, field, *field_type, default.clone())
            }
            Change::RemoveField { table, field } => {
                self.free_of_indexes(table, field)?;
                let fields = &mut self.table_mut(table)?.fields;
                fields
                    .remove(field)
                    .map(drop)
                    .ok_or_else(|| format!("there is no field `{field}` in `{table}`"))
            }
            Change::RenameField { table, field, from } => {
                self.free_of_indexes(table, from)?;
                let fields = &mut self.table_mut(table)?.fields;
                if fields.contains_key(field) {
                    return Err(format!("there is a field `{field}` in `{table}` already"));
                }
                let was =
                    fields.remove(from).ok_or_else(|| format!("there is no field `{from}` in `{table}`"))?;
                fields.insert(field.clone(), was);
                Ok(())
            }
            Change::ChangeType { table, field, field_type } => {
                self.field_mut(table, field)?.field_type = *field_type;
                Ok(())
            }
            Change::ChangeDefault { table, field, default } => {
                self.field_mut(table, field)?.default.clone_from(default);
                Ok(())
            }
            Change::ChangePermissions { table, field, perm } => self.permit(table, field.as_deref(), *perm),
            Change::AddIndex { table, index, kind, fields } => {
                let new = Index { kind: *kind, fields: fields.clone() };
                match self.table_mut(table)?.indexes.insert(index.clone(), new) {
                    Some(_) => Err(format!("there is an index `{index}` in `{table}` already")),
                    None => Ok(()),
                }
            }
            Change::RemoveIndex { table, index } => {
                let indexes = &mut self.table_mut(table)?.indexes;
                indexes
                    .remove(index)
                    .map(drop)
                    .ok_or_else(|| format!("there is no index `{index}` in `{table}`"))
            }
        }
    }

    fn add_field(
        &mut self,
        table: &str,
        field: &str,
        field_type: FieldType,
        default: Option<serde_json::Value>,
    ) -> Result<(), String> {
        let new = Field { default, ..Field::of(field_type) };
        match self.table_mut(table)?.fields.insert(field.to_owned(), new) {
            Some(_) => Err(format!("there is a field `{field}` in `{table}` already")),
            None => Ok(()),
        }
    }

    fn permit(&mut self, table: &str, field: Option<&str>, perm: Perm) -> Result<(), String> {
        match field {
            Some(field) => self.field_mut(table, field)?.perm = perm,
            None => self.table_mut(table)?.permissions = perm,
        }
        Ok(())
    }

    /// An index would go on with the field's old name.
    fn free_of_indexes(&mut self, table: &str, field: &str) -> Result<(), String> {
        let indexes = &self.table_mut(table)?.indexes;
        match indexes.iter().find(|(_, index)| index.fields.iter().any(|name| name == field)) {
            Some((index, _)) => Err(format!("the index `{index}` of `{table}` has the field `{field}`")),
            None => Ok(()),
        }
    }
}
