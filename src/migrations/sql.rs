//! The statements of a change, forth and back.
//!
//! Documents are changed by the functions of `schemas/sql`, which find the physical table: its name is not the same in two
//! databases. The columns of an attached table are changed with ALTER TABLE.

use serde_json::Value;

use super::change::Change;
use super::error::MigrationFault;
use super::field_type::{FieldType, Scalar};
use super::names::{check_field, literal, quote, quote_physical};
use super::schema::{Field, IndexKind, Perm, Table, Tables};

/// The statement that adds a column for a field to a physical table, `table` or `schema.table`. Names are checked and quoted.
///
/// # Errors
/// [`MigrationFault::Name`], [`MigrationFault::UnknownType`].
pub fn generate_sql_add_field(ptr: &str, field: &str, field_type: &str) -> Result<String, MigrationFault> {
    check_field(field)?;
    let field_type: FieldType = field_type.parse()?;
    Ok(format!("ALTER TABLE {} ADD COLUMN {} {};", quote_physical(ptr)?, quote(field), field_type.postgres()))
}

/// A call of one of our functions. Arguments are SQL.
fn call(function: &str, arguments: &[String]) -> String {
    format!("SELECT raystream.{function}({});", arguments.join(", "))
}

fn json(value: &Value) -> String {
    format!("{}::jsonb", literal(&value.to_string()))
}

fn array(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
    format!("ARRAY[{}]::text[]", names.join(", "))
}

/// The value of a column. It is of the type: schemas are checked.
fn column_value(field_type: FieldType, value: &Value) -> String {
    match value {
        Value::Array(items) if field_type.is_array => {
            let element = FieldType::of(field_type.scalar);
            let items: Vec<String> = items.iter().map(|item| column_value(element, item)).collect();
            format!("ARRAY[{}]::{}", items.join(", "), field_type.postgres())
        }
        Value::Null => "NULL".to_owned(),
        Value::String(text) if field_type.scalar == Scalar::Uint8Array => {
            format!("decode({}, 'base64')", literal(text))
        }
        Value::String(text) if field_type.scalar == Scalar::String => literal(text),
        other if field_type.scalar == Scalar::Json => json(other),
        other => other.to_string(),
    }
}

fn add_index(table: &str, before: &Table, index: &str, kind: IndexKind, fields: &[String]) -> String {
    let Some(physical) = &before.attached else {
        let mut arguments = vec![literal(table), literal(index), literal(kind.as_str())];
        arguments.extend((!fields.is_empty()).then(|| array(fields)));
        return call("add_index", &arguments);
    };
    let columns: Vec<String> = fields.iter().map(|field| quote(field)).collect();
    let unique = if kind == IndexKind::Unique { "UNIQUE " } else { "" };
    let name = quote(&attached_index(physical, index));
    format!("CREATE {unique}INDEX {name} ON {} ({});", physical_name(physical), columns.join(", "))
}

fn remove_index(table: &str, before: &Table, index: &str) -> String {
    let Some(physical) = &before.attached else {
        return call("remove_index", &[literal(table), literal(index)]);
    };
    let name = quote(&attached_index(physical, index));
    match physical.split_once('.') {
        Some((schema, _)) => format!("DROP INDEX {}.{name};", quote(schema)),
        None => format!("DROP INDEX {name};"),
    }
}

/// Names of indexes are those of the whole schema, so they begin with the one of the table.
fn attached_index(physical: &str, index: &str) -> String {
    format!("{}_{index}", physical.rsplit('.').next().unwrap_or(physical))
}

fn physical_name(physical: &str) -> String {
    quote_physical(physical).expect("the schema was checked")
}

fn add_field(
    table: &str,
    before: &Table,
    field: &str,
    field_type: FieldType,
    default: Option<&Value>,
) -> String {
    let Some(physical) = &before.attached else {
        let mut arguments = vec![literal(table), literal(field), literal(&field_type.to_string())];
        arguments.extend(default.map(json));
        return call("add_field", &arguments);
    };
    let added = generate_sql_add_field(physical, field, &field_type.to_string());
    let mut text = added.expect("the schema was checked");
    if let Some(default) = default {
        let (physical, column) = (physical_name(physical), quote(field));
        let value = column_value(field_type, default);
        // As an UPDATE, so that each row is in the change log.
        text += &format!(
            "\nALTER TABLE {physical} ALTER COLUMN {column} SET DEFAULT {value};\nUPDATE {physical} SET {column} = DEFAULT;"
        );
    }
    text
}

fn change_type(table: &str, before: &Table, field: &str, field_type: FieldType) -> String {
    let Some(physical) = &before.attached else {
        return call("change_type", &[literal(table), literal(field), literal(&field_type.to_string())]);
    };
    let (physical, column, column_type) = (physical_name(physical), quote(field), field_type.postgres());
    format!("ALTER TABLE {physical} ALTER COLUMN {column} TYPE {column_type} USING {column}::{column_type};")
}

fn rename_field(table: &str, before: &Table, from: &str, to: &str) -> String {
    match &before.attached {
        // More than ALTER TABLE: the trigger of the log knows the columns of the key by their names.
        Some(physical) => {
            let physical = format!("{}::regclass", literal(&physical_name(physical)));
            call("rename_column", &[physical, literal(from), literal(to)])
        }
        None => call("rename_field", &[literal(table), literal(from), literal(to)]),
    }
}

fn permit(table: &str, field: Option<&str>, perm: Perm) -> String {
    let perm = perm.bits().to_string();
    match field {
        Some(field) => call("permit_field", &[literal(table), literal(field), perm]),
        None => call("permit_table", &[literal(table), perm]),
    }
}

fn add_table(table: &str, attached: Option<&str>, columns: &[String]) -> String {
    match attached {
        Some(physical) => {
            let physical = format!("{}::regclass", literal(&physical_name(physical)));
            call("add_attached", &[literal(table), physical, array(columns)])
        }
        None => call("add_table", &[literal(table)]),
    }
}

fn set_default(before: &Table, field: &Field, name: &str, default: Option<&Value>) -> Option<String> {
    let physical = physical_name(before.attached.as_ref()?);
    let column = quote(name);
    Some(match default {
        Some(value) => {
            let value = column_value(field.field_type, value);
            format!("ALTER TABLE {physical} ALTER COLUMN {column} SET DEFAULT {value};")
        }
        None => format!("ALTER TABLE {physical} ALTER COLUMN {column} DROP DEFAULT;"),
    })
}

/// The tables that a change does not fit are found before.
fn table_of<'a>(tables: &'a Tables, change: &Change) -> &'a Table {
    tables.0.get(change.table()).expect("the change fits the tables")
}

/// What makes a change of these tables. None for what only the lock file knows, as the default of documents that come later.
pub(super) fn up(change: &Change, before: &Tables) -> Option<String> {
    if let Change::AddTable { table, attached, fields } = change {
        let columns: Vec<String> = fields.keys().cloned().collect();
        return Some(add_table(table, attached.as_deref(), &columns));
    }
    let was = table_of(before, change);
    Some(match change {
        Change::AddTable { .. } => return None,
        Change::RemoveTable { table } => call("remove_table", &[literal(table)]),
        Change::AddField { table, field, field_type, default } => {
            add_field(table, was, field, *field_type, default.as_ref())
        }
        Change::RemoveField { table, field } => match &was.attached {
            Some(physical) => {
                format!("ALTER TABLE {} DROP COLUMN {};", physical_name(physical), quote(field))
            }
            None => call("remove_field", &[literal(table), literal(field)]),
        },
        Change::RenameField { table, field, from } => rename_field(table, was, from, field),
        Change::ChangeType { table, field, field_type } => change_type(table, was, field, *field_type),
        Change::ChangeDefault { field, default, .. } => {
            return set_default(was, was.fields.get(field)?, field, default.as_ref());
        }
        Change::ChangePermissions { table, field, perm } => permit(table, field.as_deref(), *perm),
        Change::AddIndex { table, index, kind, fields } => add_index(table, was, index, *kind, fields),
        Change::RemoveIndex { table, index } => remove_index(table, was, index),
    })
}

/// What takes a change back that was made of these tables. What a change added is not thrown away with what was written into
/// it since; what a change removed comes back empty.
pub(super) fn down(change: &Change, before: &Tables) -> Option<String> {
    if let Change::AddTable { table, .. } = change {
        return Some(call("undo_add_table", &[literal(table)]));
    }
    let was = table_of(before, change);
    Some(match change {
        Change::AddTable { .. } => return None,
        Change::RemoveTable { table } => table_again(table, was),
        Change::AddField { table, field, .. } => match &was.attached {
            Some(physical) => {
                let physical = format!("{}::regclass", literal(&physical_name(physical)));
                call("undo_add_column", &[physical, literal(field)])
            }
            None => call("forget_field", &[literal(table), literal(field)]),
        },
        Change::RemoveField { table, field } => {
            let declared = was.fields.get(field)?;
            let mut text = add_field(table, was, field, declared.field_type, declared.default.as_ref());
            if !declared.perm.is_all() {
                text += &format!("\n{}", permit(table, Some(field), declared.perm));
            }
            text
        }
        Change::RenameField { table, field, from } => rename_field(table, was, field, from),
        Change::ChangeType { table, field, .. } => {
            change_type(table, was, field, was.fields.get(field)?.field_type)
        }
        Change::ChangeDefault { field, .. } => {
            let declared = was.fields.get(field)?;
            return set_default(was, declared, field, declared.default.as_ref());
        }
        Change::ChangePermissions { table, field, .. } => {
            let perm = match field {
                Some(field) => was.fields.get(field).map_or(Perm::ALL, |declared| declared.perm),
                None => was.permissions,
            };
            permit(table, field.as_deref(), perm)
        }
        Change::AddIndex { table, index, .. } => remove_index(table, was, index),
        Change::RemoveIndex { table, index } => {
            let declared = was.indexes.get(index)?;
            add_index(table, was, index, declared.kind, &declared.fields)
        }
    })
}

/// A table that was removed, as it was declared, without documents.
fn table_again(table: &str, was: &Table) -> String {
    let columns: Vec<String> = was.fields.keys().cloned().collect();
    let mut lines = vec![add_table(table, was.attached.as_deref(), &columns)];
    if was.attached.is_none() {
        for (name, field) in &was.fields {
            lines.push(add_field(table, was, name, field.field_type, None));
            lines.extend((!field.perm.is_all()).then(|| permit(table, Some(name), field.perm)));
        }
        for (name, index) in &was.indexes {
            lines.push(add_index(table, was, name, index.kind, &index.fields));
        }
        lines.extend((!was.permissions.is_all()).then(|| permit(table, None, was.permissions)));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_a_column_of_a_physical_table() {
        for (field_type, column) in [
            ("string", "TEXT"),
            ("number", "DOUBLE PRECISION"),
            ("boolean", "BOOLEAN"),
            ("bigint", "BIGINT"),
            ("Date", "BIGINT"),
            ("Uint8Array", "BYTEA"),
            ("string[]", "TEXT[]"),
        ] {
            let sql = generate_sql_add_field("tbl_users_abc", "email", field_type).expect("it is known");
            assert_eq!(sql, format!("ALTER TABLE \"tbl_users_abc\" ADD COLUMN \"email\" {column};"));
        }
        let sql = generate_sql_add_field("shop.orders", "select", "number").expect("it is quoted");
        assert_eq!(sql, "ALTER TABLE \"shop\".\"orders\" ADD COLUMN \"select\" DOUBLE PRECISION;");
    }

    #[test]
    fn names_and_types_that_are_none_are_refused() {
        for (ptr, field, field_type) in [
            ("users; DROP TABLE users", "a", "string"),
            ("users", "a\" TEXT; DROP TABLE users; --", "string"),
            ("users", "", "string"),
            ("users", "a", "text"),
            ("users", "a", "string; DROP TABLE users"),
            ("a.b.c", "a", "string"),
            ("\"users\"", "a", "string"),
        ] {
            assert!(generate_sql_add_field(ptr, field, field_type).is_err(), "{ptr} {field} {field_type}");
        }
    }

    #[test]
    fn values_of_columns_cannot_leave_their_literal() {
        let value =
            |field_type: &str, value: Value| column_value(field_type.parse().expect("a type"), &value);
        assert_eq!(value("string", "it's".into()), "'it''s'");
        assert_eq!(value("number", serde_json::json!(-1.5)), "-1.5");
        assert_eq!(value("boolean", true.into()), "true");
        assert_eq!(value("Uint8Array", "YQ==".into()), "decode('YQ==', 'base64')");
        assert_eq!(value("string[]", serde_json::json!(["a'", "b"])), "ARRAY['a''', 'b']::TEXT[]");
        assert_eq!(value("json", serde_json::json!({"a": "it's"})), "'{\"a\":\"it''s\"}'::jsonb");
        assert_eq!(value("json[]", serde_json::json!([[1]])), "ARRAY['[1]'::jsonb]::JSONB[]");
    }
}
