//! A part of an expression with its type and length; and literals, which take the type of their place.

use std::sync::Arc;

use super::super::tree::Expr;
use super::super::{Param, Type};
use super::{Lower, Lowered, refuse};

/// A lowered part.
#[derive(Debug, Clone)]
pub(super) struct Operand {
    pub(super) held: Held,
    /// The longest value, in bytes of its text.
    pub(super) len: u64,
}

#[derive(Debug, Clone)]
pub(super) enum Held {
    /// A literal or parameter that has no type yet. A long one may be named many times, and is shared.
    Value(Arc<Param>),
    Expr(Expr, Type),
}

impl Operand {
    pub(super) fn value(param: impl Into<Arc<Param>>) -> Self {
        let param = param.into();
        Self { len: param.text_len(), held: Held::Value(param) }
    }

    pub(super) fn of(expr: Expr, ty: Type, len: u64) -> Self {
        Self { held: Held::Expr(expr, ty), len }
    }

    /// Of a type whose values are short.
    pub(super) fn small(expr: Expr, ty: Type) -> Self {
        Self::of(expr, ty, super::super::limits::SMALL_LEN)
    }

    pub(super) fn truth(expr: Expr) -> Self {
        Self::small(expr, Type::Bool)
    }

    /// Its type, that a literal has by itself included.
    pub(super) fn ty(&self) -> Type {
        match &self.held {
            Held::Value(param) => param.own_type(),
            Held::Expr(_, ty) => *ty,
        }
    }

    fn is_null(&self) -> bool {
        matches!(&self.held, Held::Value(param) if **param == Param::Null)
    }

    /// The text that it is, if it is one that is written out or a parameter.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.held {
            Held::Value(param) => match &**param {
                Param::Text(text) => Some(text),
                _ => None,
            },
            Held::Expr(..) => None,
        }
    }

    /// Its type, unless it is a literal.
    pub(super) fn fixed(&self) -> Option<Type> {
        match &self.held {
            Held::Value(_) => None,
            Held::Expr(_, ty) => Some(*ty),
        }
    }
}

impl Lower<'_> {
    /// The operand as an expression, of its own type.
    pub(super) fn settle(&mut self, operand: Operand) -> Lowered<(Expr, Type, u64)> {
        let (ty, len) = (operand.ty(), operand.len);
        Ok((self.literal_or(operand, ty)?, ty, len))
    }

    fn literal_or(&mut self, operand: Operand, ty: Type) -> Lowered<Expr> {
        match operand.held {
            Held::Expr(expr, _) => Ok(expr),
            Held::Value(param) => match &*param {
                Param::Null => Ok(Expr::Null(ty)),
                Param::Bool(value) if ty == Type::Bool => Ok(Expr::Bool(*value)),
                other => Ok(Expr::Bind(self.bind(other, ty)?)),
            },
        }
    }

    /// The operand as an expression of a type: a literal becomes one, and what Postgres would convert by itself is
    /// converted.
    pub(super) fn take(&mut self, operand: Operand, ty: Type) -> Lowered<Expr> {
        match operand.fixed() {
            None => self.literal_or(operand, ty),
            Some(from) if from == ty => self.literal_or(operand, ty),
            Some(from) if from.common(ty) == Some(ty) => Ok(self.literal_or(operand, ty)?.cast(ty)),
            Some(from) => {
                refuse(format!("a value of type {} stands where {} is needed", from.name(), ty.name()))
            }
        }
    }

    /// Whether [`Lower::take`] would work, as far as types go.
    pub(super) fn fits(operand: &Operand, ty: Type) -> bool {
        match (&operand.held, operand.fixed()) {
            (_, Some(from)) => from.common(ty) == Some(ty),
            (Held::Value(param), None) => param.bind(ty).is_ok(),
            (Held::Expr(..), None) => false,
        }
    }

    /// Several operands as expressions of one type, with that type and the longest length.
    pub(super) fn unify(&mut self, operands: Vec<Operand>) -> Lowered<(Vec<Expr>, Type, u64)> {
        let mut ty: Option<Type> = None;
        for other in operands.iter().filter_map(Operand::fixed) {
            ty = match ty.map_or(Some(other), |known| known.common(other)) {
                None => return refuse("values of different types stand where one type is needed; cast them"),
                common => common,
            };
        }
        let of_literals = || {
            let not_null = |operand: &&Operand| !operand.is_null();
            operands.iter().filter(not_null).map(Operand::ty).reduce(|a, b| a.common(b).unwrap_or(Type::Text))
        };
        let ty = match ty {
            // A number with a fraction among whole ones.
            Some(Type::Int) => of_literals().filter(|ty| ty.is_number()).unwrap_or(Type::Int),
            Some(ty) => ty,
            None => of_literals().unwrap_or(Type::Text),
        };
        let len = operands.iter().map(|operand| operand.len).max().unwrap_or_default();
        let exprs = operands.into_iter().map(|operand| self.take(operand, ty)).collect::<Lowered<_>>()?;
        Ok((exprs, ty, len))
    }

    /// Two operands that are compared with each other.
    pub(super) fn comparable(&mut self, left: Operand, right: Operand) -> Lowered<(Expr, Expr)> {
        if let (Some(a), Some(b)) = (left.fixed(), right.fixed()) {
            if !a.compares_with(b) || a == Type::TextArray || a == Type::IntArray {
                return refuse(format!("{} and {} cannot be compared; cast one of them", a.name(), b.name()));
            }
            return Ok((self.settle(left)?.0, self.settle(right)?.0));
        }
        let (exprs, _, _) = self.unify(vec![left, right])?;
        let mut exprs = exprs.into_iter();
        match (exprs.next(), exprs.next()) {
            (Some(left), Some(right)) => Ok((left, right)),
            _ => refuse("a comparison has two sides"),
        }
    }

    /// A literal or parameter that is a short text.
    pub(super) fn short(&mut self, operand: Operand) -> Lowered<Expr> {
        if let Held::Value(param) = &operand.held
            && operand.len <= u64::try_from(super::super::limits::PATTERN_LEN_MAX).unwrap_or(u64::MAX)
        {
            let param = param.clone();
            let of_text = Operand::value(param);
            return self.take(of_text, Type::Text);
        }
        refuse("a short text, written out or as a parameter, is needed here and no computed one")
    }

    /// A literal or parameter that is a whole number from 0 on.
    pub(super) fn whole(operand: &Operand) -> Lowered<Option<u64>> {
        let number = match &operand.held {
            Held::Value(param) => match &**param {
                Param::Null => return Ok(None),
                Param::Number(text) | Param::Text(text) => text.parse().ok(),
                _ => None,
            },
            Held::Expr(..) => None,
        };
        match number {
            // LIMIT and its kind are numbers of 63 bits.
            Some(number) if i64::try_from(number).is_ok() => Ok(Some(number)),
            _ => refuse("a whole number, written out or as a parameter, is needed here"),
        }
    }
}
