//! Names: of relations, of columns, and which one a name means.

use sqlparser::ast::{Ident, ObjectName, ObjectNamePart};

use super::super::limits::{DOCUMENT_LEN, ID_LEN, SMALL_LEN};
use super::super::refusal::shown;
use super::super::tree::Expr;
use super::super::{Refusal, Type};
use super::{Lowered, refuse};

/// A column of a relation or of a result.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) ty: Type,
    /// The longest value, in bytes.
    pub(super) len: u64,
}

impl Column {
    pub(super) fn new(name: &str, ty: Type, len: u64) -> Self {
        Self { name: name.to_owned(), ty, len }
    }
}

/// The columns of the caller's own table, in the order of `OWN_COLUMNS`.
pub(super) fn own_columns() -> Vec<Column> {
    vec![
        Column::new("id", Type::Text, ID_LEN),
        Column::new("data", Type::Jsonb, DOCUMENT_LEN),
        Column::new("_version", Type::Int, SMALL_LEN),
        Column::new("_order", Type::Int, SMALL_LEN),
    ]
}

/// A member of FROM as names see it.
#[derive(Debug, Clone)]
pub(super) struct Relation {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) columns: Vec<Column>,
    /// Whether it is the caller's own table, whose key has a second name.
    pub(super) is_own: bool,
    /// Whether its name alone means its only column: the rows of a function.
    pub(super) is_value: bool,
    /// Whether its columns are expressions, which Postgres may compute at each place that names them.
    pub(super) is_computed: bool,
}

/// The relations of a SELECT, and those around it.
#[derive(Debug)]
pub(super) struct Scope<'p> {
    pub(super) relations: Vec<Relation>,
    pub(super) around: Option<&'p Scope<'p>>,
}

/// A column that was found.
pub(super) struct Found {
    pub(super) expr: Expr,
    pub(super) column: Column,
    pub(super) is_computed: bool,
}

/// Whether a name as it is written means a name as it is kept. Without quotes case does not count.
pub(super) fn means(ident: &Ident, name: &str) -> bool {
    match ident.quote_style {
        None => ident.value.eq_ignore_ascii_case(name),
        Some(_) => ident.value == name,
    }
}

/// A name as it is kept.
pub(super) fn kept(ident: &Ident) -> String {
    match ident.quote_style {
        None => ident.value.to_ascii_lowercase(),
        Some(_) => ident.value.clone(),
    }
}

/// The only part of a name, or nothing when it has several.
pub(super) fn simple(name: &ObjectName) -> Option<&Ident> {
    match &name.0[..] {
        [ObjectNamePart::Identifier(ident)] => Some(ident),
        _ => None,
    }
}

impl Relation {
    fn column(&self, ident: &Ident) -> Option<usize> {
        let at = self.columns.iter().position(|column| means(ident, &column.name));
        at.or_else(|| (self.is_own && means(ident, "_id")).then_some(0))
    }

    pub(super) fn found(&self, at: usize) -> Found {
        let expr = Expr::Column { relation: self.number, column: at };
        Found { expr, column: self.columns[at].clone(), is_computed: self.is_computed }
    }
}

impl Scope<'_> {
    /// The column of a name, from the innermost SELECT outwards.
    pub(super) fn column(&self, name: &Ident) -> Lowered<Option<Found>> {
        let mut scope = Some(self);
        while let Some(here) = scope {
            if let Some(found) = here.column_here(name)? {
                return Ok(Some(found));
            }
            scope = here.around;
        }
        Ok(None)
    }

    /// The column of a name among the relations of this SELECT alone.
    pub(super) fn column_here(&self, name: &Ident) -> Lowered<Option<Found>> {
        let mut candidates =
            self.relations.iter().filter_map(|relation| relation.column(name).map(|at| relation.found(at)));
        match (candidates.next(), candidates.next()) {
            (Some(_), Some(_)) => refuse(format!("the column `{}` is not of one table", shown(&name.value))),
            (Some(found), None) => Ok(Some(found)),
            (None, _) => Ok(self
                .relations
                .iter()
                .find(|relation| relation.is_value && means(name, &relation.name))
                .map(|relation| relation.found(0))),
        }
    }

    /// `relation.column`.
    pub(super) fn qualified(&self, relation: &Ident, name: &Ident) -> Lowered<Found> {
        let found = self.relation(relation)?;
        match found.column(name) {
            Some(at) => Ok(found.found(at)),
            None => Err(no_column(name)),
        }
    }

    pub(super) fn relation(&self, name: &Ident) -> Lowered<&Relation> {
        let mut scope = Some(self);
        while let Some(here) = scope {
            if let Some(found) = here.relations.iter().find(|relation| means(name, &relation.name)) {
                return Ok(found);
            }
            scope = here.around;
        }
        Err(Refusal::cross_table(&name.value))
    }
}

pub(super) fn no_column(name: &Ident) -> Refusal {
    Refusal::invalid(format!("there is no column `{}`", shown(&name.value)))
}
