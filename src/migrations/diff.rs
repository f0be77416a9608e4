//! What two schemas differ in.

use std::collections::BTreeMap;

use serde::Serialize;

use super::change::{Change, ChangeType};
use super::schema::{Schema, Table, Tables};

/// What two schemas of one table differ in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SchemaDiff {
    /// Whether all of it can be done without a review.
    pub safe: bool,
    /// Each change: also the dangerous ones, so that they can be shown.
    pub changes: Vec<SchemaChange>,
}

/// A change of a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SchemaChange {
    /// Its kind: `add_field` and the like.
    #[serde(rename = "type")]
    pub change_type: ChangeType,
    /// The field, by its new name.
    pub field: String,
}

/// Compares two schemas of a table. A field that says what it `was` is a renamed one; any other that is gone is a removed one.
pub fn diff_schemas(old: &Schema, new: &Schema) -> SchemaDiff {
    let changes: Vec<SchemaChange> = diff_fields("", old, new)
        .iter()
        .filter_map(|change| {
            let field = change.field()?.to_owned();
            Some(SchemaChange { change_type: change.change_type(), field })
        })
        .collect();
    SchemaDiff { safe: changes.iter().all(|change| change.change_type.is_safe()), changes }
}

/// Renames, changes of what stays, additions, removals: in this order each of them finds what it needs.
fn diff_fields(table: &str, old: &Schema, new: &Schema) -> Vec<Change> {
    let table = table.to_owned();
    let renamed: BTreeMap<&str, &str> = new
        .iter()
        .filter(|(name, _)| !old.contains_key(*name))
        .filter_map(|(name, field)| Some((name.as_str(), field.was.as_deref()?)))
        .filter(|(_, was)| old.contains_key(*was) && !new.contains_key(*was))
        .collect();
    let mut changes: Vec<Change> = renamed
        .iter()
        .map(|(field, from)| {
            let (field, from) = ((*field).to_owned(), (*from).to_owned());
            Change::RenameField { table: table.clone(), field, from }
        })
        .collect();
    let mut added = Vec::new();
    for (name, field) in new {
        let was = renamed.get(name.as_str()).copied().unwrap_or(name);
        let (table, name) = (table.clone(), name.clone());
        let permissions =
            Change::ChangePermissions { table: table.clone(), field: Some(name.clone()), perm: field.perm };
        match old.get(was) {
            None => {
                let (field_type, default) = (field.field_type, field.default.clone());
                added.push(Change::AddField { table, field: name, field_type, default });
                added.extend((!field.perm.is_all()).then_some(permissions));
            }
            Some(before) => {
                if before.field_type != field.field_type {
                    let (table, field_type) = (table.clone(), field.field_type);
                    changes.push(Change::ChangeType { table, field: name.clone(), field_type });
                }
                if before.default != field.default {
                    changes.push(Change::ChangeDefault {
                        table,
                        field: name,
                        default: field.default.clone(),
                    });
                }
                changes.extend((before.perm != field.perm).then_some(permissions));
            }
        }
    }
    changes.append(&mut added);
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    let gone = gone.filter(|name| !renamed.values().any(|was| was == name));
    changes.extend(gone.map(|name| Change::RemoveField { table: table.clone(), field: name.clone() }));
    changes
}

fn diff_table(name: &str, old: &Table, new: &Table) -> Vec<Change> {
    let table = name.to_owned();
    let stays =
        |index: &String| old.indexes.get(index).is_some_and(|before| new.indexes.get(index) == Some(before));
    // Indexes name fields: those that go, go first, those that come, come last. One whose field was renamed is a new one.
    let mut changes: Vec<Change> = old
        .indexes
        .keys()
        .filter(|index| !stays(index))
        .map(|index| Change::RemoveIndex { table: table.clone(), index: index.clone() })
        .collect();
    if old.permissions != new.permissions {
        changes.push(Change::ChangePermissions { table: table.clone(), field: None, perm: new.permissions });
    }
    changes.extend(diff_fields(name, &old.fields, &new.fields));
    changes.extend(new.indexes.iter().filter(|(index, _)| !stays(index)).map(|(index, declared)| {
        let (kind, fields) = (declared.kind, declared.fields.clone());
        Change::AddIndex { table: table.clone(), index: index.clone(), kind, fields }
    }));
    changes
}

impl Tables {
    /// What leads from these tables to others, in an order in which it can be done.
    pub fn diff(&self, new: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (name, table) in &new.0 {
            match self.0.get(name) {
                Some(old) if old.attached == table.attached => changes.extend(diff_table(name, old, table)),
                // Something else under the same name.
                Some(_) => {
                    changes.push(Change::RemoveTable { table: name.clone() });
                    changes.extend(added(name, table));
                }
                None => changes.extend(added(name, table)),
            }
        }
        let gone = self.0.keys().filter(|name| !new.0.contains_key(*name));
        changes.extend(gone.map(|name| Change::RemoveTable { table: name.clone() }));
        changes
    }
}

/// A table that is new. The columns of an attached one are there.
fn added(name: &str, table: &Table) -> Vec<Change> {
    let mut there = table.fields.clone();
    if table.attached.is_none() {
        there.clear();
    }
    there.values_mut().for_each(|field| field.was = None);
    let mut changes = vec![Change::AddTable {
        table: name.to_owned(),
        attached: table.attached.clone(),
        fields: there.clone(),
    }];
    let begun = Table { attached: table.attached.clone(), fields: there, ..Table::default() };
    changes.extend(diff_table(name, &begun, table));
    changes
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn tables(text: &str) -> Tables {
        Tables::parse(text).expect("a good schema")
    }

    fn schema(fields: &str) -> Schema {
        let mut parsed = tables(&format!("[tables.t.fields]\n{fields}"));
        parsed.0.remove("t").expect("there").fields
    }

    fn json(diff: &SchemaDiff) -> String {
        serde_json::to_string(diff).expect("JSON")
    }

    #[test]
    fn a_diff_has_the_form_and_the_names_of_its_reference() {
        let old = schema("name = 'string'");
        let new = schema("name = 'string'\nemail = 'string'");
        assert_eq!(
            json(&diff_schemas(&old, &new)),
            r#"{"safe":true,"changes":[{"type":"add_field","field":"email"}]}"#
        );
        assert_eq!(json(&diff_schemas(&new, &new)), r#"{"safe":true,"changes":[]}"#);
        assert_eq!(
            json(&diff_schemas(&new, &old)),
            r#"{"safe":false,"changes":[{"type":"remove_field","field":"email"}]}"#
        );
        assert_eq!(
            json(&diff_schemas(&schema("age = 'number'"), &schema("age = 'string'"))),
            r#"{"safe":false,"changes":[{"type":"change_type","field":"age"}]}"#
        );
        assert_eq!(
            json(&diff_schemas(
                &schema("age = 'number'"),
                &schema("age = { type = 'number', perm = 'R__' }")
            )),
            r#"{"safe":true,"changes":[{"type":"change_permissions","field":"age"}]}"#
        );
    }

    #[test]
    fn a_field_is_renamed_when_it_says_so_and_the_other_one_is_gone() {
        let new = schema("email = { type = 'string', was = 'mail' }");
        let diff = diff_schemas(&schema("mail = 'string'"), &new);
        assert_eq!(json(&diff), r#"{"safe":false,"changes":[{"type":"rename_field","field":"email"}]}"#);
        // Done already: the word may stay in the file.
        assert_eq!(diff_schemas(&schema("email = 'string'"), &new).changes, []);
        // The other one is still there, so this is a new field.
        let both = schema("mail = 'string'\nemail = { type = 'string', was = 'mail' }");
        let diff = diff_schemas(&schema("mail = 'string'"), &both);
        assert_eq!(json(&diff), r#"{"safe":true,"changes":[{"type":"add_field","field":"email"}]}"#);
    }

    /// Pairs of schemas that between them have every kind of change.
    pub(in crate::migrations) const SCHEMAS: &[&str] = &[
        "",
        "[tables.users]\n[tables.log]",
        "[tables.users.fields]\nname = 'string'\nage = { type = 'number', default = 0 }",
        "[tables.users]\npermissions = 'RW_'\n[tables.users.fields]\ntitle = { type = 'string', was = 'name' }\nage = 'bigint'\n\
         [tables.users.indexes]\nby_title = { fields = ['title'], unique = true }",
        "[tables.users.fields]\ntitle = { type = 'string', perm = 'R__' }\ntags = 'string[]'\n\
         [tables.users.indexes]\nby_title = { fields = ['title'] }\nall = { gin = true }",
        "[tables.orders]\nattached = 'shop.orders'\nfields.total = 'number'\nindexes.by_total = { fields = ['total'] }",
        "[tables.orders]\nattached = 'shop.orders'\nfields.sum = { type = 'number', was = 'total' }\n\
         fields.paid = { type = 'boolean', default = false }\nindexes.by_sum = { fields = ['sum'], unique = true }",
        "[tables.orders]\nfields.total = 'number'",
    ];

    #[test]
    fn a_diff_applied_to_the_old_gives_the_new() {
        for (old, new) in SCHEMAS.iter().flat_map(|old| SCHEMAS.iter().map(move |new| (old, new))) {
            let (mut was, mut wanted) = (tables(old), tables(new));
            for change in was.diff(&wanted) {
                was.apply(&change).unwrap_or_else(|fault| panic!("{old}\nto\n{new}\n{change}: {fault}"));
            }
            let fields = wanted.0.values_mut().flat_map(|table| table.fields.values_mut());
            fields.for_each(|field| field.was = None);
            let fields = was.0.values_mut().flat_map(|table| table.fields.values_mut());
            fields.for_each(|field| field.was = None);
            assert_eq!(was, wanted, "{old}\nto\n{new}");
            assert_eq!(was.diff(&wanted), []);
        }
    }
}
