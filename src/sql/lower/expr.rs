//! Expressions.

use std::sync::Arc;

use sqlparser::ast::{self, BinaryOperator, DateTimeField, Ident, UnaryOperator, Value};

use super::super::Type;
use super::super::limits::PATTERN_LEN_MAX;
use super::super::param::{Param, check_number};
use super::super::tree::Expr;
use super::names::{Found, no_column, simple};
use super::operand::Operand;
use super::{In, Lower, Lowered, refuse};

impl Lower<'_> {
    /// Lowers an expression.
    pub(super) fn expr(&mut self, expr: &ast::Expr, scope: In<'_, '_>) -> Lowered<Operand> {
        self.deeper(|lower| lower.expr_here(expr, scope))
    }

    /// An expression that is true, false or NULL.
    pub(super) fn truth(&mut self, expr: &ast::Expr, scope: In<'_, '_>) -> Lowered<Expr> {
        let operand = self.expr(expr, scope)?;
        self.take(operand, Type::Bool)
    }

    #[allow(clippy::too_many_lines, reason = "one arm for each kind of expression that is allowed")]
    fn expr_here(&mut self, expr: &ast::Expr, scope: In<'_, '_>) -> Lowered<Operand> {
        match expr {
            ast::Expr::Identifier(name) => match scope.column(name)? {
                Some(found) => self.column(found),
                None => Err(no_column(name)),
            },
            ast::Expr::CompoundIdentifier(names) => match &names[..] {
                [relation, name] => {
                    let found = scope.qualified(relation, name)?;
                    self.column(found)
                }
                _ => refuse("a column is `name` or `table.name`"),
            },
            ast::Expr::Nested(inner) => self.expr(inner, scope),
            ast::Expr::Value(value) => self.literal(&value.value),
            ast::Expr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), .. } => {
                self.chain(expr, op, scope)
            }
            ast::Expr::BinaryOp { left, op, right } => {
                let (left, right) = (self.expr(left, scope)?, self.expr(right, scope)?);
                self.operator(left, op, right)
            }
            ast::Expr::UnaryOp { op, expr } => self.unary(*op, expr, scope),
            ast::Expr::IsNull(inner) => self.is(inner, "IS NULL", None, scope),
            ast::Expr::IsNotNull(inner) => self.is(inner, "IS NOT NULL", None, scope),
            ast::Expr::IsTrue(inner) => self.is(inner, "IS TRUE", Some(Type::Bool), scope),
            ast::Expr::IsNotTrue(inner) => self.is(inner, "IS NOT TRUE", Some(Type::Bool), scope),
            ast::Expr::IsFalse(inner) => self.is(inner, "IS FALSE", Some(Type::Bool), scope),
            ast::Expr::IsNotFalse(inner) => self.is(inner, "IS NOT FALSE", Some(Type::Bool), scope),
            ast::Expr::IsUnknown(inner) => self.is(inner, "IS UNKNOWN", Some(Type::Bool), scope),
            ast::Expr::IsNotUnknown(inner) => self.is(inner, "IS NOT UNKNOWN", Some(Type::Bool), scope),
            ast::Expr::IsDistinctFrom(left, right) => self.distinct(left, "IS DISTINCT FROM", right, scope),
            ast::Expr::IsNotDistinctFrom(left, right) => {
                self.distinct(left, "IS NOT DISTINCT FROM", right, scope)
            }
            ast::Expr::Between { expr, negated, low, high } => self.between(expr, *negated, low, high, scope),
            ast::Expr::InList { expr, list, negated } => self.in_list(expr, list, *negated, scope),
            ast::Expr::InSubquery { expr, subquery, negated } => {
                let left = self.expr(expr, scope)?;
                self.in_query(left, subquery, *negated, scope)
            }
            ast::Expr::Exists { subquery, negated } => {
                let (query, _) = self.query(subquery, Some(scope))?;
                Ok(Operand::truth(Expr::Exists { negated: *negated, query: Box::new(query) }))
            }
            ast::Expr::Subquery(query) => self.scalar(query, scope),
            ast::Expr::Like { negated, any: false, expr, pattern, escape_char: None } => {
                self.like(expr, if *negated { "NOT LIKE" } else { "LIKE" }, pattern, scope)
            }
            ast::Expr::ILike { negated, any: false, expr, pattern, escape_char: None } => {
                self.like(expr, if *negated { "NOT ILIKE" } else { "ILIKE" }, pattern, scope)
            }
            ast::Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, is_some: _ } => {
                self.quantified(left, "=", "ANY", right, scope)
            }
            ast::Expr::AllOp { left, compare_op: BinaryOperator::NotEq, right } => {
                self.quantified(left, "<>", "ALL", right, scope)
            }
            ast::Expr::Cast { kind, expr, data_type, format: None } => {
                let operand = self.expr(expr, scope)?;
                self.cast(kind, operand, data_type)
            }
            ast::Expr::TypedString(ast::TypedString { data_type, value, uses_odbc_syntax: false }) => {
                match &value.value {
                    Value::SingleQuotedString(text) => self.typed(data_type, text),
                    _ => refuse("a value with a type is a quoted text"),
                }
            }
            ast::Expr::Interval(interval) => self.interval(interval),
            ast::Expr::Case { case_token: _, end_token: _, operand, conditions, else_result } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref(), scope)
            }
            ast::Expr::AtTimeZone { timestamp, time_zone } => {
                let (time, zone) = (self.expr(timestamp, scope)?, self.expr(time_zone, scope)?);
                self.call_of("timezone", vec![zone, time])
            }
            ast::Expr::Extract { field, syntax: _, expr } => {
                let field = Operand::value(Param::Text(field_name(field)?.to_owned()));
                let time = self.expr(expr, scope)?;
                self.call_of("extract", vec![field, time])
            }
            ast::Expr::Ceil { expr, field: ast::CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
                let number = self.expr(expr, scope)?;
                self.call_of("ceil", vec![number])
            }
            ast::Expr::Floor {
                expr,
                field: ast::CeilFloorKind::DateTimeField(DateTimeField::NoDateTime),
            } => {
                let number = self.expr(expr, scope)?;
                self.call_of("floor", vec![number])
            }
            ast::Expr::Position { expr, r#in } => {
                let (what, text) = (self.expr(expr, scope)?, self.expr(r#in, scope)?);
                self.call_of("strpos", vec![text, what])
            }
            ast::Expr::Substring { expr, substring_from, substring_for, special: _, shorthand: _ } => {
                self.substring(expr, substring_from.as_deref(), substring_for.as_deref(), scope)
            }
            ast::Expr::Trim { trim_where, trim_what, expr, trim_characters } => {
                let name = match trim_where {
                    None | Some(ast::TrimWhereField::Both) => "btrim",
                    Some(ast::TrimWhereField::Leading) => "ltrim",
                    Some(ast::TrimWhereField::Trailing) => "rtrim",
                };
                let more = match (trim_what.as_deref(), trim_characters.as_deref()) {
                    (what, None) => what,
                    (None, Some([what])) => Some(what),
                    _ => return refuse("trim takes a text and the characters"),
                };
                let mut args = vec![self.expr(expr, scope)?];
                if let Some(what) = more {
                    args.push(self.expr(what, scope)?);
                }
                self.call_of(name, args)
            }
            ast::Expr::Collate { expr, collation } => {
                let is_c =
                    simple(collation).is_some_and(|name| name.value == "C" && name.quote_style.is_some());
                if !is_c {
                    return refuse("the only collation is \"C\"");
                }
                let operand = self.expr(expr, scope)?;
                let len = operand.len;
                let text = self.take(operand, Type::Text)?;
                Ok(Operand::of(Expr::ByBytes(Box::new(text)), Type::Text, len))
            }
            ast::Expr::Array(ast::Array { elem, named: _ }) => {
                let (mut elements, mut len) = (Vec::new(), 0_u64);
                for element in elem {
                    let operand = self.expr(element, scope)?;
                    len = len.saturating_add(operand.len);
                    elements.push(self.take(operand, Type::Text)?);
                }
                let len = self.makes(len)?;
                if elements.is_empty() {
                    return refuse("an array has elements");
                }
                Ok(Operand::of(Expr::Array(elements), Type::TextArray, len))
            }
            ast::Expr::Function(function) => self.function(function, scope),
            _ => refuse("the statement has an expression that is not allowed"),
        }
    }

    fn column(&mut self, found: Found) -> Lowered<Operand> {
        let Found { expr, column, is_computed } = found;
        let len = if is_computed { self.makes(column.len)? } else { column.len };
        Ok(Operand::of(expr, column.ty, len))
    }

    fn literal(&mut self, value: &Value) -> Lowered<Operand> {
        Ok(match value {
            Value::Null => Operand::value(Param::Null),
            Value::Boolean(value) => Operand::value(Param::Bool(*value)),
            Value::SingleQuotedString(text) => Operand::value(Param::Text(text.clone())),
            Value::Number(text, false) => {
                let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
                if !is_plain {
                    return refuse("a number is written in decimal digits");
                }
                check_number(text)?;
                Operand::value(Param::Number(text.clone()))
            }
            Value::Placeholder(name) => {
                let number = name.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok());
                let param =
                    number.and_then(|number| number.checked_sub(1)).and_then(|at| self.params.get(at));
                match param {
                    Some(param) => Operand::value(Arc::clone(param)),
                    None => return refuse("the statement names a parameter that is not given"),
                }
            }
            _ => return refuse("the statement has a literal that is not allowed"),
        })
    }

    /// `a AND b AND c` is parsed as a tree as deep as it is long.
    fn chain(&mut self, expr: &ast::Expr, op: &BinaryOperator, scope: In<'_, '_>) -> Lowered<Operand> {
        let mut operands = Vec::new();
        let mut rest = expr;
        while let ast::Expr::BinaryOp { left, op: this, right } = rest {
            if this != op {
                break;
            }
            operands.push(&**right);
            rest = left;
        }
        operands.push(rest);
        let terms = operands.iter().rev().map(|term| self.truth(term, scope)).collect::<Lowered<_>>()?;
        let word = if *op == BinaryOperator::And { "AND" } else { "OR" };
        Ok(Operand::truth(Expr::Chain(word, terms)))
    }

    fn unary(&mut self, op: UnaryOperator, expr: &ast::Expr, scope: In<'_, '_>) -> Lowered<Operand> {
        // A negative number is a sign before a number to the parser.
        let is_minus = op == UnaryOperator::Minus;
        if let (true, ast::Expr::Value(value)) = (is_minus, expr)
            && let Value::Number(text, _) = &value.value
        {
            return self.literal(&Value::Number(format!("-{text}"), false));
        }
        if op == UnaryOperator::Not {
            let inner = self.truth(expr, scope)?;
            return Ok(Operand::truth(Expr::Not(Box::new(inner))));
        }
        let operand = self.expr(expr, scope)?;
        let (inner, ty, len) = self.settle(operand)?;
        match op {
            UnaryOperator::Plus if ty.is_number() => Ok(Operand::of(inner, ty, len)),
            UnaryOperator::Minus if ty.is_number() || ty == Type::Interval => {
                Ok(Operand::of(Expr::Minus(Box::new(inner)), ty, len))
            }
            _ => refuse("the statement has an operator that is not allowed"),
        }
    }

    fn is(
        &mut self,
        inner: &ast::Expr,
        what: &'static str,
        ty: Option<Type>,
        scope: In<'_, '_>,
    ) -> Lowered<Operand> {
        let operand = self.expr(inner, scope)?;
        let ty = ty.unwrap_or_else(|| operand.ty());
        let expr = self.take(operand, ty)?;
        Ok(Operand::truth(Expr::Is(Box::new(expr), what)))
    }

    fn distinct(
        &mut self,
        left: &ast::Expr,
        word: &'static str,
        right: &ast::Expr,
        scope: In<'_, '_>,
    ) -> Lowered<Operand> {
        let (left, right) = (self.expr(left, scope)?, self.expr(right, scope)?);
        let (left, right) = self.comparable(left, right)?;
        Ok(Operand::truth(Expr::Infix(Box::new(left), word, Box::new(right))))
    }

    fn between(
        &mut self,
        expr: &ast::Expr,
        negated: bool,
        low: &ast::Expr,
        high: &ast::Expr,
        scope: In<'_, '_>,
    ) -> Lowered<Operand> {
        let (expr, low, high) = (self.expr(expr, scope)?, self.expr(low, scope)?, self.expr(high, scope)?);
        let (exprs, _, _) = self.unify(vec![expr, low, high])?;
        let Ok([expr, low, high]) = <[Expr; 3]>::try_from(exprs) else {
            return refuse("BETWEEN has two bounds");
        };
        let (expr, low, high) = (Box::new(expr), Box::new(low), Box::new(high));
        Ok(Operand::truth(Expr::Between { expr, negated, low, high }))
    }

    fn in_list(
        &mut self,
        expr: &ast::Expr,
        list: &[ast::Expr],
        negated: bool,
        scope: In<'_, '_>,
    ) -> Lowered<Operand> {
        let mut operands = vec![self.expr(expr, scope)?];
        for element in list {
            operands.push(self.expr(element, scope)?);
        }
        let (mut exprs, _, _) = self.unify(operands)?;
        if exprs.len() < 2 {
            return refuse("the list of IN is empty");
        }
        let expr = Box::new(exprs.remove(0));
        Ok(Operand::truth(Expr::In { expr, negated, list: exprs }))
    }

    fn like(
        &mut self,
        expr: &ast::Expr,
        word: &'static str,
        pattern: &ast::Expr,
        scope: In<'_, '_>,
    ) -> Lowered<Operand> {
        let (text, pattern) = (self.expr(expr, scope)?, self.expr(pattern, scope)?);
        let (text, pattern) = (self.take(text, Type::Text)?, self.short(pattern)?);
        Ok(Operand::truth(Expr::Infix(Box::new(text), word, Box::new(pattern))))
    }

    fn quantified(
        &mut self,
        left: &ast::Expr,
        op: &'static str,
        word: &'static str,
        right: &ast::Expr,
        scope: In<'_, '_>,
    ) -> Lowered<Operand> {
        let left = self.expr(left, scope)?;
        if let (ast::Expr::Subquery(query), "=") = (right, op) {
            return self.in_query(left, query, false, scope);
        }
        let right = self.expr(right, scope)?;
        let ty =
            if left.ty() == Type::Int { (Type::Int, Type::IntArray) } else { (Type::Text, Type::TextArray) };
        let (left, right) = (self.take(left, ty.0)?, self.take(right, ty.1)?);
        Ok(Operand::truth(Expr::Quantified(Box::new(left), op, word, Box::new(right))))
    }

    fn in_query(
        &mut self,
        left: Operand,
        query: &ast::Query,
        negated: bool,
        scope: In<'_, '_>,
    ) -> Lowered<Operand> {
        let (query, columns) = self.query(query, Some(scope))?;
        let [column] = &columns[..] else { return refuse("the query behind IN has one column") };
        let expr = match left.fixed() {
            Some(ty) if ty.compares_with(column.ty) => self.settle(left)?.0,
            _ => self.take(left, column.ty)?,
        };
        let (expr, query) = (Box::new(expr), Box::new(query));
        Ok(Operand::truth(Expr::InQuery { expr, negated, query }))
    }

    fn scalar(&mut self, query: &ast::Query, scope: In<'_, '_>) -> Lowered<Operand> {
        let (query, columns) = self.query(query, Some(scope))?;
        let [column] = &columns[..] else { return refuse("a query in an expression has one column") };
        Ok(Operand::of(Expr::Scalar(Box::new(query)), column.ty, column.len))
    }

    fn interval(&mut self, interval: &ast::Interval) -> Lowered<Operand> {
        let ast::Interval {
            value,
            leading_field: None,
            leading_precision: None,
            last_field: None,
            fractional_seconds_precision: None,
        } = interval
        else {
            return refuse("an interval is written as INTERVAL '1 day'");
        };
        let ast::Expr::Value(value) = &**value else {
            return refuse("an interval is written as INTERVAL '1 day'");
        };
        let operand = self.literal(&value.value)?;
        let len = operand.len;
        let text = self.take(operand, Type::Interval)?;
        Ok(Operand::of(text, Type::Interval, len))
    }

    fn case(
        &mut self,
        operand: Option<&ast::Expr>,
        arms: &[ast::CaseWhen],
        otherwise: Option<&ast::Expr>,
        scope: In<'_, '_>,
    ) -> Lowered<Operand> {
        let (mut whens, mut thens) = (Vec::new(), Vec::new());
        if let Some(operand) = operand {
            whens.push(self.expr(operand, scope)?);
        }
        for ast::CaseWhen { condition, result } in arms {
            whens.push(self.expr(condition, scope)?);
            thens.push(self.expr(result, scope)?);
        }
        if let Some(otherwise) = otherwise {
            thens.push(self.expr(otherwise, scope)?);
        }
        let has_operand = operand.is_some();
        let mut whens: Vec<Expr> = if has_operand {
            self.unify(whens)?.0
        } else {
            whens.into_iter().map(|when| self.take(when, Type::Bool)).collect::<Lowered<_>>()?
        };
        let (mut thens, ty, len) = self.unify(thens)?;
        let otherwise = if otherwise.is_some() { thens.pop().map(Box::new) } else { None };
        let operand = has_operand.then(|| Box::new(whens.remove(0)));
        let arms = whens.into_iter().zip(thens).collect();
        Ok(Operand::of(Expr::Case { operand, arms, otherwise }, ty, len))
    }

    fn substring(
        &mut self,
        expr: &ast::Expr,
        from: Option<&ast::Expr>,
        len: Option<&ast::Expr>,
        scope: In<'_, '_>,
    ) -> Lowered<Operand> {
        let mut args = vec![self.expr(expr, scope)?];
        args.push(match from {
            Some(from) => self.expr(from, scope)?,
            None => Operand::value(Param::Number("1".to_owned())),
        });
        // `substring(text FROM pattern)` is a regular expression.
        if args.get(1).is_some_and(|from| from.ty() != Type::Int) {
            return refuse("substring takes a position, not a pattern");
        }
        if let Some(len) = len {
            args.push(self.expr(len, scope)?);
        }
        self.call_of("substring", args)
    }

    /// The name of a time zone: letters, digits and a few signs, so that it is no path.
    pub(super) fn zone(&mut self, operand: Operand) -> Lowered<Expr> {
        let is_zone = operand.text().is_some_and(|text| {
            text.len() <= PATTERN_LEN_MAX
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+-/:".contains(&byte))
        });
        if !is_zone {
            return refuse("a time zone is a name like 'UTC' or 'Europe/Berlin'");
        }
        self.take(operand, Type::Text)
    }
}

/// The name of a field of a time, as `extract` takes it.
fn field_name(field: &DateTimeField) -> Lowered<&'static str> {
    Ok(match field {
        DateTimeField::Century => "century",
        DateTimeField::Day | DateTimeField::Days => "day",
        DateTimeField::Decade => "decade",
        DateTimeField::Dow => "dow",
        DateTimeField::Doy => "doy",
        DateTimeField::Epoch => "epoch",
        DateTimeField::Hour | DateTimeField::Hours => "hour",
        DateTimeField::Isodow => "isodow",
        DateTimeField::Isoyear => "isoyear",
        DateTimeField::Microsecond | DateTimeField::Microseconds => "microseconds",
        DateTimeField::Millisecond | DateTimeField::Milliseconds => "milliseconds",
        DateTimeField::Minute | DateTimeField::Minutes => "minute",
        DateTimeField::Month | DateTimeField::Months => "month",
        DateTimeField::Quarter => "quarter",
        DateTimeField::Second | DateTimeField::Seconds => "second",
        DateTimeField::Week(None) | DateTimeField::Weeks => "week",
        DateTimeField::Year | DateTimeField::Years => "year",
        _ => return refuse("extract does not know this field"),
    })
}

/// A name that stands alone, for whoever asks what an expression is.
pub(super) fn alone(expr: &ast::Expr) -> Option<&Ident> {
    match expr {
        ast::Expr::Identifier(name) => Some(name),
        _ => None,
    }
}
