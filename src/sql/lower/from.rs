//! FROM: the caller's own table, parts of the statement, and functions that open the JSON of a row. Everything else that
//! can be named there is another relation.

use sqlparser::ast::{self, Ident, JoinConstraint, JoinOperator, TableFactor};

use super::super::Refusal;
use super::super::Type;
use super::super::functions::Kind;
use super::super::limits::{DOCUMENT_LEN, ID_LEN, SMALL_LEN};
use super::super::tree::{Expr, Source, What};
use super::call::{Resolved, function_name};
use super::names::{Column, Relation, Scope, kept, means, own_columns, simple};
use super::{Lower, Lowered, refuse};

/// How a member is joined to those before it.
type Join<'j> = Option<(&'static str, Option<&'j ast::Expr>)>;

impl Lower<'_> {
    /// Lowers the list. The relations are in the scope when this is done.
    pub(super) fn from(
        &mut self,
        list: &[ast::TableWithJoins],
        scope: &mut Scope<'_>,
    ) -> Lowered<Vec<Source>> {
        let mut sources = Vec::new();
        for ast::TableWithJoins { relation, joins } in list {
            let comma = (!sources.is_empty()).then_some(("CROSS JOIN", None));
            sources.push(self.member(relation, comma, scope)?);
            for ast::Join { relation, global, join_operator } in joins {
                if *global {
                    return refuse("the statement has a kind of join that is not allowed");
                }
                let join = join(join_operator)?;
                sources.push(self.member(relation, Some(join), scope)?);
            }
        }
        if sources.is_empty() {
            return refuse("a SELECT has to read the table");
        }
        Ok(sources)
    }

    fn member(&mut self, factor: &TableFactor, join: Join<'_>, scope: &mut Scope<'_>) -> Lowered<Source> {
        let (what, mut relation) = self.deeper(|lower| lower.factor(factor, scope))?;
        if scope.relations.iter().any(|other| other.name.eq_ignore_ascii_case(&relation.name)) {
            return refuse("two members of FROM have the same name; give one an alias");
        }
        relation.number = self.number();
        let number = relation.number;
        let is_rows = matches!(what, What::Rows { .. });
        scope.relations.push(relation);
        let join = match join {
            None => None,
            // The rows of a function belong to one row of what stands before it.
            Some(("CROSS JOIN", _)) if is_rows => Some(("CROSS JOIN", None)),
            Some(("CROSS JOIN", _)) => {
                return refuse("every row with every other one is not allowed: use JOIN .. ON a = b");
            }
            Some((word, Some(on))) => {
                let on = self.truth(on, scope)?;
                if !is_rows && !ties(&on, number) {
                    return refuse("a JOIN has to have `=` between a column of each side in its ON");
                }
                Some((word, Some(on)))
            }
            Some((_, None)) => return refuse("a JOIN has an ON"),
        };
        if is_rows && matches!(join, Some(("RIGHT JOIN" | "FULL JOIN", _))) {
            return refuse("the rows of a function are joined by JOIN or LEFT JOIN");
        }
        Ok(Source { join, relation: number, what })
    }

    fn factor(&mut self, factor: &TableFactor, scope: &Scope<'_>) -> Lowered<(What, Relation)> {
        match factor {
            TableFactor::Table {
                name,
                alias,
                args,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
            } => {
                let is_plain = with_hints.is_empty()
                    && version.is_none()
                    && partitions.is_empty()
                    && json_path.is_none()
                    && sample.is_none()
                    && index_hints.is_empty();
                match args {
                    Some(ast::TableFunctionArgs { args, settings: None }) if is_plain => {
                        self.rows(name, args, *with_ordinality, alias.as_ref(), scope)
                    }
                    None => {
                        let found = self.named(name, alias.as_ref())?;
                        if is_plain && !with_ordinality {
                            Ok(found)
                        } else {
                            refuse("TABLESAMPLE and hints are not allowed")
                        }
                    }
                    Some(_) => refuse("the statement has a form of FROM that is not allowed"),
                }
            }
            TableFactor::Function { lateral: _, name, args, with_ordinality, alias } => {
                self.rows(name, args, *with_ordinality, alias.as_ref(), scope)
            }
            TableFactor::Derived { lateral: false, subquery, alias, sample: None } => {
                // Without LATERAL it sees what is around this SELECT, not what stands beside it.
                let (query, columns) = self.query(subquery, scope.around)?;
                let relation = self.relation(columns, alias.as_ref(), None, true)?;
                Ok((What::Derived(Box::new(query)), relation))
            }
            TableFactor::Derived { lateral: true, subquery, .. } => {
                // What it reads is looked at all the same: another relation has a code of its own.
                self.query(subquery, Some(scope))?;
                refuse("LATERAL goes with functions only")
            }
            _ => refuse("the statement has a form of FROM that is not allowed"),
        }
    }

    /// The caller's own table, or a member of WITH.
    fn named(
        &mut self,
        name: &ast::ObjectName,
        alias: Option<&ast::TableAlias>,
    ) -> Lowered<(What, Relation)> {
        let Some(ident) = simple(name) else { return Err(Refusal::cross_table(&name.to_string())) };
        if let Some(part) = self.parts.iter().rev().find(|part| means(ident, &part.name)) {
            let (number, columns, name) = (part.number, part.columns.clone(), part.name.clone());
            let (own, relations) = (part.own, part.relations);
            self.reads(own, relations + 1)?;
            return Ok((What::Part(number), self.relation(columns, alias, Some(name), true)?));
        }
        if !means(ident, self.table) {
            return Err(Refusal::cross_table(&ident.value));
        }
        self.reads(1, 1)?;
        let mut relation = self.relation(own_columns(), alias, Some(self.table.to_owned()), false)?;
        relation.is_own = true;
        Ok((What::Own, relation))
    }

    /// A function that gives rows.
    fn rows(
        &mut self,
        name: &ast::ObjectName,
        args: &[ast::FunctionArg],
        with_ordinality: bool,
        alias: Option<&ast::TableAlias>,
        scope: &Scope<'_>,
    ) -> Lowered<(What, Relation)> {
        self.reads(0, 1)?;
        let operands = self.operands(args, scope)?;
        let Resolved { function, args, ty, .. } = self.resolve(&function_name(name)?, operands)?;
        if function.kind != Kind::Rows {
            return refuse(format!("`{}` does not give rows", function.name));
        }
        let mut columns = match function.name {
            "jsonb_each" | "jsonb_each_text" => {
                vec![Column::new("key", Type::Text, ID_LEN), Column::new("value", ty, DOCUMENT_LEN)]
            }
            "jsonb_object_keys" => vec![Column::new("jsonb_object_keys", ty, ID_LEN)],
            _ => vec![Column::new("value", ty, DOCUMENT_LEN)],
        };
        let is_value = columns.len() == 1 && !with_ordinality;
        if with_ordinality {
            columns.push(Column::new("ordinality", Type::Int, SMALL_LEN));
        }
        let count = columns.len();
        let mut relation = self.relation(columns, alias, Some(function.name.to_owned()), false)?;
        relation.is_value = is_value;
        Ok((What::Rows { name: function.name, args, columns: count, with_ordinality }, relation))
    }

    /// A relation under its alias.
    fn relation(
        &mut self,
        mut columns: Vec<Column>,
        alias: Option<&ast::TableAlias>,
        name: Option<String>,
        is_computed: bool,
    ) -> Lowered<Relation> {
        let name = match (alias, name) {
            (Some(alias), _) => {
                let ast::TableAlias { explicit: _, name, columns: names, at: None } = alias else {
                    return refuse("the statement has a form of alias that is not allowed");
                };
                rename(&mut columns, names)?;
                kept(name)
            }
            (None, Some(name)) => name,
            (None, None) => return refuse("a query in FROM has to have an alias"),
        };
        Ok(Relation { number: 0, name, columns, is_own: false, is_value: false, is_computed })
    }
}

/// Names that an alias gives to the first columns.
pub(super) fn rename(columns: &mut [Column], names: &[ast::TableAliasColumnDef]) -> Lowered<()> {
    if names.len() > columns.len() {
        return refuse("an alias names more columns than there are");
    }
    for (column, ast::TableAliasColumnDef { name, data_type }) in columns.iter_mut().zip(names) {
        if data_type.is_some() {
            return refuse("an alias names columns without their types");
        }
        column.name = kept(name);
    }
    Ok(())
}

fn join(operator: &JoinOperator) -> Lowered<(&'static str, Option<&ast::Expr>)> {
    let (word, constraint) = match operator {
        JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => ("JOIN", constraint),
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => ("LEFT JOIN", constraint),
        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => ("RIGHT JOIN", constraint),
        JoinOperator::FullOuter(constraint) => ("FULL JOIN", constraint),
        JoinOperator::CrossJoin(JoinConstraint::None) => return Ok(("CROSS JOIN", None)),
        _ => return refuse("the statement has a kind of join that is not allowed"),
    };
    match constraint {
        JoinConstraint::On(on) => Ok((word, Some(on))),
        _ => refuse("a JOIN has an ON"),
    }
}

/// Whether a condition has `=` between the new relation and one before it, so that it is no product of all with all.
fn ties(on: &Expr, new: u32) -> bool {
    match on {
        Expr::Chain("AND", terms) => terms.iter().any(|term| ties(term, new)),
        Expr::Operator(left, "=", right) => {
            let reads = |expr: &Expr| {
                let mut found = Vec::new();
                expr.relations(&mut found);
                found
            };
            let (left, right) = (reads(left), reads(right));
            let is_one_sided = |one: &[u32], other: &[u32]| {
                !one.is_empty()
                    && one.iter().all(|n| *n == new)
                    && !other.is_empty()
                    && other.iter().all(|n| *n != new)
            };
            is_one_sided(&left, &right) || is_one_sided(&right, &left)
        }
        _ => false,
    }
}

/// The name that a relation goes by, for `name.*`.
pub(super) fn is_named(relation: &Relation, name: &Ident) -> bool {
    means(name, &relation.name)
}
