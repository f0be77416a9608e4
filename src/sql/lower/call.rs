//! Calls of functions: looked up by name and arguments in our own list.

use sqlparser::ast::{self, DuplicateTreatment, FunctionArg, FunctionArgExpr, FunctionArguments};

use super::super::Type;
use super::super::functions::{self, Arg, Function, Gives, Kind, Len};
use super::super::limits::{COLLECTED_LEN_MAX, DOCUMENT_LEN, SMALL_LEN};
use super::super::refusal::shown;
use super::super::tree::{Call, Expr};
use super::names::{kept, simple};
use super::operand::{Held, Operand};
use super::{In, Lower, Lowered, refuse};

/// A function that was found, and its arguments as expressions.
pub(super) struct Resolved {
    pub(super) function: &'static Function,
    pub(super) args: Vec<Expr>,
    pub(super) ty: Type,
    pub(super) len: u64,
}

impl Lower<'_> {
    /// A call as the parser has it.
    pub(super) fn function(&mut self, function: &ast::Function, scope: In<'_, '_>) -> Lowered<Operand> {
        let ast::Function {
            name,
            uses_odbc_syntax: false,
            parameters: FunctionArguments::None,
            args,
            within_group,
            filter,
            null_treatment: None,
            over,
        } = function
        else {
            return refuse("the statement has a form of call that is not allowed");
        };
        let name = function_name(name)?;
        if !within_group.is_empty() {
            return refuse("WITHIN GROUP is not allowed");
        }
        let list = match args {
            FunctionArguments::List(list) => list,
            FunctionArguments::None if filter.is_none() && over.is_none() => return self.moment(&name),
            _ => return refuse("the statement has a form of call that is not allowed"),
        };
        let is_plain = filter.is_none()
            && over.is_none()
            && list.duplicate_treatment.is_none()
            && list.clauses.is_empty();
        if is_plain && let Some(result) = self.form(&name, list, scope) {
            return result;
        }

        let (star, operands) = self.arguments(list, scope)?;
        let order = match &list.clauses[..] {
            [] => Vec::new(),
            [ast::FunctionArgumentClause::OrderBy(order)] => self.order_inside(order, scope)?,
            _ => return refuse("the statement has a form of call that is not allowed"),
        };
        let distinct = match list.duplicate_treatment {
            None | Some(DuplicateTreatment::All) => false,
            Some(DuplicateTreatment::Distinct) => true,
        };
        let filter = filter.as_ref().map(|filter| self.truth(filter, scope)).transpose()?;
        let over = over.as_ref().map(|over| self.window(over, scope)).transpose()?;
        let resolved = if star { count_all(&name)? } else { self.resolve(&name, operands)? };
        let Resolved { function, args, ty, len } = resolved;
        let is_aggregate = matches!(function.kind, Kind::Aggregate | Kind::Collects);
        let fits = match function.kind {
            Kind::Scalar => is_plain,
            Kind::Aggregate => true,
            // Over a window it would be there once for each row.
            Kind::Collects => over.is_none(),
            Kind::Window => over.is_some() && !distinct && filter.is_none() && order.is_empty(),
            Kind::Rows => return refuse(format!("`{}` gives rows and stands in FROM", function.name)),
        };
        if !fits
            || over.is_some() && (distinct || !order.is_empty())
            || !is_aggregate && (distinct || !order.is_empty())
        {
            return refuse(format!("`{}` is not called like this", function.name));
        }
        let call = Call { name: function.name, star, distinct, args, order, filter, over };
        Ok(Operand::of(Expr::Call(Box::new(call)), ty, len))
    }

    /// A function that gives rows as an item of SELECT: the row is there once for each of its values.
    pub(super) fn rows_item(&mut self, function: &ast::Function, scope: In<'_, '_>) -> Lowered<Operand> {
        let FunctionArguments::List(list) = &function.args else {
            return refuse("the statement has a form of call that is not allowed");
        };
        let is_plain = function.filter.is_none()
            && function.over.is_none()
            && function.within_group.is_empty()
            && function.null_treatment.is_none()
            && function.parameters == FunctionArguments::None
            && !function.uses_odbc_syntax
            && list.duplicate_treatment.is_none()
            && list.clauses.is_empty();
        self.reads(0, 1)?;
        let operands = self.operands(&list.args, scope)?;
        let resolved = self.resolve(&function_name(&function.name)?, operands)?;
        if !is_plain || resolved.function.name.starts_with("jsonb_each") {
            return refuse(format!("`{}` is not called like this", resolved.function.name));
        }
        Ok(Operand::of(Expr::call(resolved.function.name, resolved.args), resolved.ty, resolved.len))
    }

    /// A call of a plain function with operands that are lowered already.
    pub(super) fn call_of(&mut self, name: &str, operands: Vec<Operand>) -> Lowered<Operand> {
        let Resolved { function, args, ty, len } = self.resolve(name, operands)?;
        Ok(Operand::of(Expr::call(function.name, args), ty, len))
    }

    /// Finds the function that takes the operands.
    pub(super) fn resolve(&mut self, name: &str, operands: Vec<Operand>) -> Lowered<Resolved> {
        let mut is_known = false;
        let found = functions::named(name).find(|function| {
            is_known = true;
            takes(function, &operands)
        });
        let Some(function) = found else {
            return refuse(match is_known {
                true => format!("`{}` does not take these arguments", shown(name)),
                false => format!("there is no function `{}` here", shown(name)),
            });
        };
        let first = operands.first().map(Operand::ty);
        let all: u64 = operands.iter().fold(0, |sum, operand| sum.saturating_add(operand.len));
        if function.kind == Kind::Collects {
            if all > COLLECTED_LEN_MAX {
                return refuse(format!("`{}` would gather too long values", function.name));
            }
            let copies = self.collects.unwrap_or_default().saturating_add(copies(&operands));
            self.collects = Some(copies);
        }
        let pads = u64::try_from(operands.len()).unwrap_or(u64::MAX).saturating_mul(SMALL_LEN);
        let mut args = Vec::with_capacity(operands.len());
        for (at, operand) in operands.into_iter().enumerate() {
            args.push(self.argument(place(function, at), operand)?);
        }
        let ty = match (function.gives, first.unwrap_or(Type::Text)) {
            (Gives::Is(ty), _) => ty,
            (Gives::Rounded, Type::Int) => Type::Float,
            (Gives::Summed, Type::Int) => Type::Numeric,
            (Gives::Same | Gives::Rounded | Gives::Summed, first) => first,
        };
        let len = match function.len {
            Len::Small => SMALL_LEN,
            Len::Times(times) => all.saturating_mul(times).saturating_add(pads),
            // What was gathered may be gathered again.
            Len::Document if function.kind == Kind::Collects => all.max(DOCUMENT_LEN),
            Len::Document => DOCUMENT_LEN,
        };
        let len = self.makes(len)?;
        Ok(Resolved { function, args, ty, len })
    }

    fn argument(&mut self, arg: Option<Arg>, operand: Operand) -> Lowered<Expr> {
        match arg {
            Some(Arg::Is(ty)) => self.take(operand, ty),
            Some(Arg::Int4) => self.int4(operand),
            Some(Arg::AsFloat) => {
                let (expr, ty, _) = self.settle(operand)?;
                Ok(if ty == Type::Float { expr } else { expr.cast(Type::Float) })
            }
            Some(Arg::Number | Arg::Time | Arg::Any) => Ok(self.settle(operand)?.0),
            Some(Arg::Short) => self.short(operand),
            Some(Arg::Zone) => self.zone(operand),
            Some(Arg::Upto(most)) => match Self::whole(&operand)? {
                Some(number) if i64::try_from(number).is_ok_and(|number| number <= most) => {
                    self.int4(operand)
                }
                _ => {
                    refuse(format!("a whole number up to {most}, written out or a parameter, is needed here"))
                }
            },
            None => refuse("a function has too many arguments"),
        }
    }

    /// The arguments of a call; or that it is `f(*)`.
    pub(super) fn arguments(
        &mut self,
        list: &ast::FunctionArgumentList,
        scope: In<'_, '_>,
    ) -> Lowered<(bool, Vec<Operand>)> {
        if let [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)] = &list.args[..] {
            return Ok((true, Vec::new()));
        }
        Ok((false, self.operands(&list.args, scope)?))
    }

    pub(super) fn operands(&mut self, args: &[FunctionArg], scope: In<'_, '_>) -> Lowered<Vec<Operand>> {
        let mut operands = Vec::with_capacity(args.len());
        for arg in args {
            match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => operands.push(self.expr(expr, scope)?),
                _ => return refuse("arguments are given by their place"),
            }
        }
        Ok(operands)
    }

    /// Words that are called without parentheses.
    fn moment(&mut self, name: &str) -> Lowered<Operand> {
        let now = self.call_of("now", Vec::new())?;
        let (now, ty, _) = self.settle(now)?;
        match name {
            "current_timestamp" => Ok(Operand::small(now, ty)),
            "current_date" => Ok(Operand::small(now.cast(Type::Date), Type::Date)),
            "localtimestamp" => Ok(Operand::small(now.cast(Type::Timestamp), Type::Timestamp)),
            _ => refuse(format!("there is no function `{}` here", shown(name))),
        }
    }

    /// Words of the grammar that look like functions, and functions with rules of their own.
    fn form(
        &mut self,
        name: &str,
        list: &ast::FunctionArgumentList,
        scope: In<'_, '_>,
    ) -> Option<Lowered<Operand>> {
        let word = match name {
            "coalesce" => "COALESCE",
            "greatest" => "GREATEST",
            "least" => "LEAST",
            "nullif" => "NULLIF",
            "mod" | "replace" => "",
            _ => return None,
        };
        Some(self.operands(&list.args, scope).and_then(|operands| match (name, operands.len()) {
            ("mod", 2) => self.modulo(operands),
            ("replace", 3) => self.replace(operands),
            ("nullif", 2) | ("coalesce" | "greatest" | "least", 1..) => {
                let (args, ty, len) = self.unify(operands)?;
                if ty == Type::Jsonb && word != "COALESCE" {
                    return refuse(format!("{word} does not take jsonb"));
                }
                Ok(Operand::of(Expr::Form(word, args), ty, len))
            }
            _ => refuse(format!("`{name}` does not take these arguments")),
        }))
    }

    fn modulo(&mut self, operands: Vec<Operand>) -> Lowered<Operand> {
        match <[Operand; 2]>::try_from(operands) {
            Ok([left, right]) => self.multiply(left, "%", right),
            Err(_) => refuse("`mod` takes two numbers"),
        }
    }

    /// What is replaced and by what are written out: a text computed from documents could replace each of its letters by
    /// itself.
    fn replace(&mut self, operands: Vec<Operand>) -> Lowered<Operand> {
        let Ok([text, from, to]) = <[Operand; 3]>::try_from(operands) else {
            return refuse("`replace` takes three texts");
        };
        let bytes = |operand: &Operand| match operand.text() {
            Some(text) => u64::try_from(text.len()).unwrap_or(u64::MAX),
            None => operand.len,
        };
        let growth = bytes(&to).div_ceil(bytes(&from).max(1)).max(1);
        let len = self.makes(text.len.saturating_mul(growth))?;
        let args = vec![self.take(text, Type::Text)?, self.short(from)?, self.short(to)?];
        Ok(Operand::of(Expr::call("replace", args), Type::Text, len))
    }
}

/// Whether it is a call of a function that gives rows.
pub(super) fn is_rows(function: &ast::Function) -> bool {
    function_name(&function.name)
        .is_ok_and(|name| functions::named(&name).any(|known| known.kind == Kind::Rows))
}

/// The name of a function in lower case.
pub(super) fn function_name(name: &ast::ObjectName) -> Lowered<String> {
    if let Some(ident) = simple(name) {
        return Ok(kept(ident));
    }
    refuse("a function's name has no other part")
}

fn count_all(name: &str) -> Lowered<Resolved> {
    match functions::named(name).find(|function| function.name == "count") {
        Some(function) => Ok(Resolved { function, args: Vec::new(), ty: Type::Int, len: SMALL_LEN }),
        None => refuse("only count takes `*`"),
    }
}

/// What a function takes at a place.
fn place(function: &Function, at: usize) -> Option<Arg> {
    function.args.get(at).copied().or(function.more)
}

/// How many documents of the longest kind the values of a row are together, at least one. JSON that was made of other values is as
/// long as those were: what its text has more is not in memory.
fn copies(operands: &[Operand]) -> u32 {
    let len = |operand: &Operand| match &operand.held {
        Held::Expr(Expr::Call(call), _) if functions::escapes(call.name) => operand.len / functions::ESCAPED,
        _ => operand.len,
    };
    let all = operands.iter().map(len).fold(0, u64::saturating_add);
    u32::try_from(all.saturating_add(DOCUMENT_LEN / 2) / DOCUMENT_LEN).unwrap_or(u32::MAX).max(1)
}

fn takes(function: &Function, operands: &[Operand]) -> bool {
    let least = function.args.len() - function.optional;
    if operands.len() < least || function.more.is_none() && operands.len() > function.args.len() {
        return false;
    }
    operands.iter().enumerate().all(|(at, operand)| match place(function, at) {
        Some(Arg::Is(ty)) => Lower::fits(operand, ty),
        Some(Arg::Int4) => Lower::fits(operand, Type::Int),
        Some(Arg::AsFloat | Arg::Number) => operand.ty().is_number(),
        Some(Arg::Time) => operand.fixed().is_some_and(Type::is_time),
        Some(Arg::Any | Arg::Short | Arg::Zone | Arg::Upto(_)) => true,
        None => false,
    })
}
