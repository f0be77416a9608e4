//! Names of tables, fields and indexes, and how they are quoted.

use super::error::MigrationFault;

/// The longest name of a field, in bytes: the names of its constraint and its trigger begin with 21 bytes of ours, and an
/// identifier of Postgres has 63.
pub const FIELD_NAME_LEN_MAX: usize = 40;

/// The longest name of an index, in bytes: that of the physical table and an underscore, 21 bytes, come before it.
pub const INDEX_NAME_LEN_MAX: usize = 40;

/// The longest name of a table, in bytes: that of a Postgres identifier.
const TABLE_NAME_LEN_MAX: usize = 63;

/// Whether a name is `[A-Za-z_][A-Za-z0-9_]*` and not longer than that.
fn fits(name: &str, longest: usize) -> bool {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    let rest = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    name.len() <= longest && first && rest
}

fn check(what: &'static str, name: &str, longest: usize) -> Result<(), MigrationFault> {
    if fits(name, longest) {
        return Ok(());
    }
    Err(MigrationFault::Name { what, name: name.to_owned(), longest })
}

pub(super) fn check_table(name: &str) -> Result<(), MigrationFault> {
    check("table", name, TABLE_NAME_LEN_MAX)
}

pub(super) fn check_field(name: &str) -> Result<(), MigrationFault> {
    check("field", name, FIELD_NAME_LEN_MAX)
}

pub(super) fn check_index(name: &str) -> Result<(), MigrationFault> {
    check("index", name, INDEX_NAME_LEN_MAX)
}

/// A physical table, `table` or `schema.table`, quoted for SQL. Each part is an identifier as it is, without quotes of its own.
pub(super) fn quote_physical(ptr: &str) -> Result<String, MigrationFault> {
    let parts: Vec<&str> = ptr.split('.').collect();
    if parts.len() > 2 || parts.iter().any(|part| !fits(part, TABLE_NAME_LEN_MAX)) {
        return Err(MigrationFault::Name {
            what: "physical table",
            name: ptr.to_owned(),
            longest: TABLE_NAME_LEN_MAX,
        });
    }
    Ok(parts.iter().map(|part| quote(part)).collect::<Vec<_>>().join("."))
}

/// An identifier, quoted for SQL.
pub(super) fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A literal for SQL. Sessions run with `standard_conforming_strings`, so a backslash is one.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_identifiers_of_a_length() {
        for good in ["a", "_a", "A9_", &"x".repeat(FIELD_NAME_LEN_MAX)] {
            check_field(good).expect("a good name");
        }
        for bad in ["", "9a", "a b", "a\"b", "a;b", "ä", "a.b", &"x".repeat(FIELD_NAME_LEN_MAX + 1)] {
            assert!(check_field(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_physical_table_has_one_or_two_parts() {
        assert_eq!(quote_physical("orders").expect("good"), "\"orders\"");
        assert_eq!(quote_physical("shop.orders").expect("good"), "\"shop\".\"orders\"");
        for bad in ["", ".a", "a.", "a.b.c", "a\".\"b", "orders; DROP TABLE x", "a b"] {
            assert!(quote_physical(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn quotes_in_literals_are_doubled() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"\'"), r"'\'''");
    }
}
