//! Queries: WITH, SELECT, UNION, ORDER BY, LIMIT.

use sqlparser::ast::{self, LimitClause, OrderByKind, OrderByOptions, SelectItem, SetExpr};

use super::super::limits::VALUE_LEN_MAX;
use super::super::tree::{Body, By, Distinct, Expr, Order, Query, Select};
use super::call::is_rows;
use super::expr::alone;
use super::from::{is_named, rename};
use super::names::{Column, Scope, kept, means, simple};
use super::{In, Lower, Lowered, Part, refuse};

/// A SELECT with its columns and its order.
type Selected = (Select, Vec<Column>, Vec<Order>);

impl Lower<'_> {
    /// Lowers a query with its result's columns.
    pub(super) fn query(
        &mut self,
        query: &ast::Query,
        around: Option<&Scope<'_>>,
    ) -> Lowered<(Query, Vec<Column>)> {
        let known = self.parts.len();
        let result = self.deeper(|lower| lower.query_here(query, around));
        self.parts.truncate(known);
        result
    }

    fn query_here(
        &mut self,
        query: &ast::Query,
        around: Option<&Scope<'_>>,
    ) -> Lowered<(Query, Vec<Column>)> {
        let ast::Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        let is_plain = for_clause.is_none()
            && settings.is_none()
            && format_clause.is_none()
            && pipe_operators.is_empty();
        if !is_plain || !locks.is_empty() {
            return refuse("a query takes no locks and has no clauses of other systems");
        }
        let with = match with {
            Some(with) => self.with(with)?,
            None => Vec::new(),
        };
        let keys = order_keys(order_by.as_ref())?;
        let (body, columns, order) = match &**body {
            SetExpr::Select(select) => {
                let (select, columns, order) = self.select(select, keys, around)?;
                (Body::Select(Box::new(select)), columns, order)
            }
            other => {
                let (body, columns) = self.body(other, around)?;
                let order = self.order_by_columns(keys, &columns)?;
                (body, columns, order)
            }
        };
        let (limit, offset) = self.limits(limit_clause.as_ref(), fetch.as_ref(), around)?;
        Self::check_columns(&columns)?;
        Ok((Query { with, body, order, limit, offset }, columns))
    }

    fn with(&mut self, with: &ast::With) -> Lowered<Vec<(u32, Query)>> {
        let ast::With { with_token: _, recursive, cte_tables } = with;
        if *recursive {
            return refuse("WITH RECURSIVE is not allowed");
        }
        let mut lowered = Vec::new();
        for ast::Cte { alias, query, from, materialized, closing_paren_token: _ } in cte_tables {
            if from.is_some() || materialized.is_some() {
                return refuse("a member of WITH is `name AS (query)`");
            }
            let ast::TableAlias { explicit: _, name, columns: names, at: None } = alias else {
                return refuse("a member of WITH is `name AS (query)`");
            };
            let hides = means(name, self.table) || self.parts.iter().any(|part| means(name, &part.name));
            if hides {
                return refuse("a member of WITH has a name of its own");
            }
            // What it reads counts where it is read.
            let (own, relations) = (self.own_seen, self.relations);
            let (query, mut columns) = self.query(query, None)?;
            let (own, relations) = (
                std::mem::replace(&mut self.own_seen, own) - own,
                std::mem::replace(&mut self.relations, relations) - relations,
            );
            rename(&mut columns, names)?;
            let number = self.number();
            self.parts.push(Part { number, name: kept(name), columns, own, relations });
            lowered.push((number, query));
        }
        Ok(lowered)
    }

    fn body(&mut self, body: &SetExpr, around: Option<&Scope<'_>>) -> Lowered<(Body, Vec<Column>)> {
        self.deeper(|lower| match body {
            SetExpr::Select(select) => {
                let (select, columns, _) = lower.select(select, &[], around)?;
                Ok((Body::Select(Box::new(select)), columns))
            }
            SetExpr::Query(query) => {
                let (query, columns) = lower.query(query, around)?;
                Ok((Body::Query(Box::new(query)), columns))
            }
            SetExpr::SetOperation { left, op, set_quantifier, right } => {
                let op = set_operator(*op, *set_quantifier)?;
                let (left, mut columns) = lower.body(left, around)?;
                let (right, others) = lower.body(right, around)?;
                if columns.len() != others.len() {
                    return refuse("both sides of a UNION have the same columns");
                }
                for (column, other) in columns.iter_mut().zip(others) {
                    let Some(ty) = column.ty.common(other.ty) else {
                        return refuse("the columns of both sides of a UNION have the same types; cast them");
                    };
                    (column.ty, column.len) = (ty, column.len.max(other.len));
                }
                Ok((Body::Set { op, left: Box::new(left), right: Box::new(right) }, columns))
            }
            SetExpr::Table(table) => match &table.table_name {
                Some(name) if table.schema_name.is_some() || !name.eq_ignore_ascii_case(lower.table) => {
                    Err(super::super::Refusal::cross_table(name))
                }
                _ => refuse("a query is a SELECT"),
            },
            _ => refuse("only a SELECT can be run here"),
        })
    }

    fn select(
        &mut self,
        select: &ast::Select,
        keys: &[ast::OrderByExpr],
        around: Option<&Scope<'_>>,
    ) -> Lowered<Selected> {
        let ast::Select {
            select_token: _,
            optimizer_hints,
            distinct,
            select_modifiers,
            top,
            top_before_distinct: _,
            projection,
            exclude,
            into,
            from,
            lateral_views,
            prewhere,
            selection,
            connect_by,
            group_by,
            cluster_by,
            distribute_by,
            sort_by,
            having,
            named_window,
            qualify,
            window_before_qualify: _,
            value_table_mode,
            flavor,
        } = select;
        let is_plain = optimizer_hints.is_empty()
            && select_modifiers.is_none()
            && top.is_none()
            && exclude.is_none()
            && lateral_views.is_empty()
            && prewhere.is_none()
            && connect_by.is_empty()
            && cluster_by.is_empty()
            && distribute_by.is_empty()
            && sort_by.is_empty()
            && qualify.is_none()
            && value_table_mode.is_none()
            && matches!(flavor, ast::SelectFlavor::Standard);
        let mut scope = Scope { relations: Vec::new(), around };
        let from = self.from(from, &mut scope)?;
        if into.is_some() {
            return refuse("SELECT INTO is not allowed");
        }
        if !is_plain || !named_window.is_empty() {
            return refuse("the SELECT has a clause that is not allowed");
        }
        let filter = selection.as_ref().map(|expr| self.truth(expr, &scope)).transpose()?;
        let (items, columns) = self.items(projection, &scope)?;
        let group = self.group(group_by, &items, &columns, &scope)?;
        let having = having.as_ref().map(|expr| self.truth(expr, &scope)).transpose()?;
        let distinct = match distinct {
            None | Some(ast::Distinct::All) => Distinct::No,
            Some(ast::Distinct::Distinct) => Distinct::Yes,
            Some(ast::Distinct::On(exprs)) => Distinct::On(self.settled(exprs, &scope)?),
        };
        let mut order = Vec::new();
        for key in keys {
            let place = place_of(&key.expr, &columns)?;
            let by = match place {
                Some(place) => By::Place(place),
                None => By::Expr(self.settled_one(&key.expr, &scope)?),
            };
            order.push(order_of(by, &key.options)?);
        }
        Ok((Select { distinct, items, from, filter, group, having }, columns, order))
    }

    fn settled_one(&mut self, expr: &ast::Expr, scope: In<'_, '_>) -> Lowered<Expr> {
        let operand = self.expr(expr, scope)?;
        // A literal would be the number of a column, or nothing.
        if operand.fixed().is_none() {
            return refuse("a literal is no key to order or group by");
        }
        Ok(self.settle(operand)?.0)
    }

    fn settled(&mut self, exprs: &[ast::Expr], scope: In<'_, '_>) -> Lowered<Vec<Expr>> {
        exprs.iter().map(|expr| self.settled_one(expr, scope)).collect()
    }

    fn items(&mut self, items: &[SelectItem], scope: In<'_, '_>) -> Lowered<(Vec<Expr>, Vec<Column>)> {
        let (mut exprs, mut columns) = (Vec::new(), Vec::new());
        let mut add = |expr, column| {
            exprs.push(expr);
            columns.push(column);
        };
        for item in items {
            let (expr, name) = match item {
                SelectItem::UnnamedExpr(expr) => (expr, default_name(expr)),
                SelectItem::ExprWithAlias { expr, alias } => (expr, kept(alias)),
                SelectItem::Wildcard(options) => {
                    check_wildcard(options)?;
                    scope.relations.iter().for_each(|relation| {
                        (0..relation.columns.len())
                            .map(|at| relation.found(at))
                            .for_each(|f| add(f.expr, f.column));
                    });
                    continue;
                }
                SelectItem::QualifiedWildcard(
                    ast::SelectItemQualifiedWildcardKind::ObjectName(name),
                    options,
                ) => {
                    check_wildcard(options)?;
                    let Some(name) = simple(name) else {
                        return refuse("`table.*` has one part before the star");
                    };
                    let relation = match scope.relations.iter().find(|relation| is_named(relation, name)) {
                        Some(relation) => relation,
                        None => return Err(super::super::Refusal::cross_table(&name.value)),
                    };
                    (0..relation.columns.len())
                        .map(|at| relation.found(at))
                        .for_each(|f| add(f.expr, f.column));
                    continue;
                }
                _ => return refuse("the SELECT has an item that is not allowed"),
            };
            let operand = match expr {
                ast::Expr::Function(function) if is_rows(function) => self.rows_item(function, scope)?,
                other => self.expr(other, scope)?,
            };
            let (expr, ty, len) = self.settle(operand)?;
            add(expr, Column { name, ty, len });
        }
        if columns.is_empty() || columns.iter().map(|column| column.len).sum::<u64>() > VALUE_LEN_MAX * 8 {
            return refuse("the SELECT has no columns, or too long ones");
        }
        Self::check_columns(&columns)?;
        Ok((exprs, columns))
    }

    /// GROUP BY: names of columns first, then those of the result, as in Postgres; and places.
    fn group(
        &mut self,
        group: &ast::GroupByExpr,
        items: &[Expr],
        columns: &[Column],
        scope: In<'_, '_>,
    ) -> Lowered<Vec<Expr>> {
        let ast::GroupByExpr::Expressions(keys, modifiers) = group else {
            return refuse("GROUP BY ALL is not allowed");
        };
        if !modifiers.is_empty() {
            return refuse("GROUP BY takes expressions only");
        }
        let mut lowered = Vec::new();
        for key in keys {
            let is_column = match alone(key) {
                Some(name) => scope.column_here(name)?.is_some(),
                None => false,
            };
            let place = if is_column { None } else { place_of(key, columns)? };
            lowered.push(match place.and_then(|place| items.get(place - 1)) {
                Some(item) => item.clone(),
                None => self.settled_one(key, scope)?,
            });
        }
        Ok(lowered)
    }

    /// ORDER BY behind a UNION: by columns of the result only.
    fn order_by_columns(&mut self, keys: &[ast::OrderByExpr], columns: &[Column]) -> Lowered<Vec<Order>> {
        keys.iter()
            .map(|key| match place_of(&key.expr, columns)? {
                Some(place) => order_of(By::Place(place), &key.options),
                None => refuse("behind a UNION the order is by a column of the result"),
            })
            .collect()
    }

    /// ORDER BY of an aggregate or a window: by expressions only.
    pub(super) fn order_inside(
        &mut self,
        keys: &[ast::OrderByExpr],
        scope: In<'_, '_>,
    ) -> Lowered<Vec<Order>> {
        let mut order = Vec::new();
        for key in keys {
            if key.with_fill.is_some() {
                return refuse("the order has a clause that is not allowed");
            }
            let by = By::Expr(self.settled_one(&key.expr, scope)?);
            order.push(order_of(by, &key.options)?);
        }
        Ok(order)
    }

    fn limits(
        &mut self,
        clause: Option<&LimitClause>,
        fetch: Option<&ast::Fetch>,
        around: Option<&Scope<'_>>,
    ) -> Lowered<(Option<u64>, Option<u64>)> {
        let (mut limit, mut offset) = (None, None);
        let empty = Scope { relations: Vec::new(), around };
        let mut number = |expr: &ast::Expr| {
            let operand = self.expr(expr, &empty)?;
            Self::whole(&operand)
        };
        match clause {
            None => {}
            Some(LimitClause::LimitOffset { limit: most, offset: skipped, limit_by })
                if limit_by.is_empty() =>
            {
                limit = most.as_ref().map(&mut number).transpose()?.flatten();
                offset = skipped.as_ref().map(|skipped| number(&skipped.value)).transpose()?.flatten();
            }
            Some(_) => return refuse("LIMIT is `LIMIT n OFFSET m`"),
        }
        match fetch {
            None => {}
            Some(ast::Fetch { with_ties: false, percent: false, quantity: Some(most) })
                if limit.is_none() =>
            {
                limit = number(most)?;
            }
            Some(_) => return refuse("FETCH is `FETCH FIRST n ROWS ONLY`"),
        }
        Ok((limit, offset))
    }
}

fn order_keys(order: Option<&ast::OrderBy>) -> Lowered<&[ast::OrderByExpr]> {
    match order {
        None => Ok(&[]),
        Some(ast::OrderBy { kind: OrderByKind::Expressions(keys), interpolate: None })
            if keys.iter().all(|key| key.with_fill.is_none()) =>
        {
            Ok(keys)
        }
        Some(_) => refuse("the order has a clause that is not allowed"),
    }
}

fn order_of(by: By, options: &OrderByOptions) -> Lowered<Order> {
    let OrderByOptions { sort, nulls_first } = options;
    let descending = match sort {
        None | Some(ast::OrderBySort::Asc) => false,
        Some(ast::OrderBySort::Desc) => true,
        Some(ast::OrderBySort::Using(_)) => return refuse("an order is ASC or DESC"),
    };
    Ok(Order { by, descending, nulls_first: *nulls_first })
}

/// The place of the result's column that a key means by its number or name.
fn place_of(key: &ast::Expr, columns: &[Column]) -> Lowered<Option<usize>> {
    if let ast::Expr::Value(value) = key
        && let ast::Value::Number(text, false) = &value.value
    {
        return match text.parse::<usize>() {
            Ok(place) if (1..=columns.len()).contains(&place) => Ok(Some(place)),
            _ => refuse("there is no column with this number"),
        };
    }
    let Some(name) = alone(key) else { return Ok(None) };
    let mut places = columns.iter().enumerate().filter(|(_, column)| means(name, &column.name));
    match (places.next(), places.next()) {
        (Some((at, _)), None) => Ok(Some(at + 1)),
        (None, _) => Ok(None),
        _ => refuse("two columns of the result have the name that is ordered by"),
    }
}

fn set_operator(op: ast::SetOperator, quantifier: ast::SetQuantifier) -> Lowered<&'static str> {
    use ast::SetOperator::{Except, Intersect, Union};
    use ast::SetQuantifier::{All, Distinct, None};
    Ok(match (op, quantifier) {
        (Union, All) => "UNION ALL",
        (Union, Distinct | None) => "UNION",
        (Intersect, All) => "INTERSECT ALL",
        (Intersect, Distinct | None) => "INTERSECT",
        (Except, All) => "EXCEPT ALL",
        (Except, Distinct | None) => "EXCEPT",
        _ => return refuse("queries are put together by UNION, INTERSECT and EXCEPT"),
    })
}

fn check_wildcard(options: &ast::WildcardAdditionalOptions) -> Lowered<()> {
    let ast::WildcardAdditionalOptions {
        wildcard_token: _,
        opt_ilike: None,
        opt_exclude: None,
        opt_except: None,
        opt_replace: None,
        opt_rename: None,
        opt_alias: None,
    } = options
    else {
        return refuse("a star stands alone");
    };
    Ok(())
}

/// The name that Postgres gives to a column without one.
fn default_name(expr: &ast::Expr) -> String {
    let of = |expr: &ast::Expr| match expr {
        ast::Expr::Identifier(name) => Some(kept(name)),
        ast::Expr::CompoundIdentifier(names) => names.last().map(kept),
        ast::Expr::Function(function) => function.name.0.last().and_then(|part| match part {
            ast::ObjectNamePart::Identifier(name) => Some(kept(name)),
            ast::ObjectNamePart::Function(_) => None,
        }),
        _ => None,
    };
    let mut inner = expr;
    while let ast::Expr::Nested(next)
    | ast::Expr::Cast { expr: next, .. }
    | ast::Expr::Collate { expr: next, .. } = inner
    {
        inner = next;
    }
    let fixed = match inner {
        ast::Expr::Case { .. } => "case",
        ast::Expr::Exists { .. } => "exists",
        ast::Expr::Substring { .. } => "substring",
        ast::Expr::Position { .. } => "position",
        ast::Expr::Extract { .. } => "extract",
        ast::Expr::Ceil { .. } => "ceil",
        ast::Expr::Floor { .. } => "floor",
        ast::Expr::AtTimeZone { .. } => "timezone",
        ast::Expr::Array(_) => "array",
        ast::Expr::Interval(_) => "interval",
        ast::Expr::Trim { trim_where: None | Some(ast::TrimWhereField::Both), .. } => "btrim",
        ast::Expr::Trim { trim_where: Some(ast::TrimWhereField::Leading), .. } => "ltrim",
        ast::Expr::Trim { .. } => "rtrim",
        ast::Expr::Subquery(query) => return subquery_name(query),
        _ => return of(inner).unwrap_or_else(|| cast_name(expr).unwrap_or("?column?").to_owned()),
    };
    fixed.to_owned()
}

/// A cast of what has no name is named by its type.
fn cast_name(expr: &ast::Expr) -> Option<&'static str> {
    match expr {
        ast::Expr::Nested(inner) => cast_name(inner),
        ast::Expr::Cast { data_type, .. } => super::cast::name_of(data_type),
        _ => None,
    }
}

fn subquery_name(query: &ast::Query) -> String {
    let first = match &*query.body {
        SetExpr::Select(select) => select.projection.first(),
        _ => None,
    };
    match first {
        Some(SelectItem::ExprWithAlias { alias, .. }) => kept(alias),
        Some(SelectItem::UnnamedExpr(ast::Expr::Subquery(_))) | None => "?column?".to_owned(),
        Some(SelectItem::UnnamedExpr(expr)) => default_name(expr),
        Some(_) => "?column?".to_owned(),
    }
}
