//! Operators: which ones there are, for which types, and what they give.

use sqlparser::ast::BinaryOperator;

use super::super::Type;
use super::super::tree::Expr;
use super::operand::Operand;
use super::{Lower, Lowered, refuse};

fn operator(left: Expr, op: &'static str, right: Expr) -> Expr {
    Expr::Operator(Box::new(left), op, Box::new(right))
}

/// The sign of a comparison.
pub(super) fn comparison(op: &BinaryOperator) -> Option<&'static str> {
    Some(match op {
        BinaryOperator::Eq => "=",
        BinaryOperator::NotEq => "<>",
        BinaryOperator::Lt => "<",
        BinaryOperator::LtEq => "<=",
        BinaryOperator::Gt => ">",
        BinaryOperator::GtEq => ">=",
        _ => return None,
    })
}

impl Lower<'_> {
    /// Everything between two operands but AND and OR.
    pub(super) fn operator(
        &mut self,
        left: Operand,
        op: &BinaryOperator,
        right: Operand,
    ) -> Lowered<Operand> {
        if let Some(sign) = comparison(op) {
            let (left, right) = self.comparable(left, right)?;
            return Ok(Operand::truth(operator(left, sign, right)));
        }
        match op {
            BinaryOperator::Plus => self.add(left, "+", right),
            BinaryOperator::Minus => self.add(left, "-", right),
            BinaryOperator::Multiply => self.multiply(left, "*", right),
            BinaryOperator::Divide => self.multiply(left, "/", right),
            BinaryOperator::Modulo => self.multiply(left, "%", right),
            BinaryOperator::StringConcat => self.concatenate(left, right),
            BinaryOperator::Arrow => self.step(left, "->", right, Type::Jsonb),
            BinaryOperator::LongArrow => self.step(left, "->>", right, Type::Text),
            BinaryOperator::HashArrow => self.path(left, "#>", right, Type::Jsonb),
            BinaryOperator::HashLongArrow => self.path(left, "#>>", right, Type::Text),
            BinaryOperator::AtArrow => self.of_json(left, "@>", right, Type::Jsonb),
            BinaryOperator::ArrowAt => self.of_json(left, "<@", right, Type::Jsonb),
            BinaryOperator::Question => self.of_json(left, "?", right, Type::Text),
            BinaryOperator::QuestionPipe => self.of_json(left, "?|", right, Type::TextArray),
            BinaryOperator::QuestionAnd => self.of_json(left, "?&", right, Type::TextArray),
            _ => refuse("the statement has an operator that is not allowed"),
        }
    }

    /// A test of JSON.
    fn of_json(&mut self, left: Operand, op: &'static str, right: Operand, ty: Type) -> Lowered<Operand> {
        let (left, right) = (self.take(left, Type::Jsonb)?, self.take(right, ty)?);
        Ok(Operand::truth(operator(left, op, right)))
    }

    /// One step into JSON: a key, or a position.
    fn step(&mut self, left: Operand, op: &'static str, right: Operand, gives: Type) -> Lowered<Operand> {
        let len = self.makes(left.len)?;
        let left = self.take(left, Type::Jsonb)?;
        let right = match right.ty() {
            Type::Int => self.int4(right)?,
            _ => self.take(right, Type::Text)?,
        };
        Ok(Operand::of(operator(left, op, right), gives, len))
    }

    fn path(&mut self, left: Operand, op: &'static str, right: Operand, gives: Type) -> Lowered<Operand> {
        let len = self.makes(left.len)?;
        let (left, right) = (self.take(left, Type::Jsonb)?, self.take(right, Type::TextArray)?);
        Ok(Operand::of(operator(left, op, right), gives, len))
    }

    /// An integer as one of 32 bits, where Postgres takes no other.
    pub(super) fn int4(&mut self, operand: Operand) -> Lowered<Expr> {
        let number = self.take(operand, Type::Int)?;
        Ok(Expr::Cast(Box::new(number), "int4", String::new()))
    }

    fn concatenate(&mut self, left: Operand, right: Operand) -> Lowered<Operand> {
        let len = self.makes(left.len.saturating_add(right.len))?;
        let is_json = |operand: &Operand| operand.fixed() == Some(Type::Jsonb);
        let ty = if is_json(&left) && (is_json(&right) || right.fixed().is_none())
            || is_json(&right) && left.fixed().is_none()
        {
            Type::Jsonb
        } else {
            Type::Text
        };
        let (left, right) = (self.as_part(left, ty)?, self.as_part(right, ty)?);
        Ok(Operand::of(operator(left, "||", right), ty, len))
    }

    fn as_part(&mut self, operand: Operand, ty: Type) -> Lowered<Expr> {
        match operand.fixed() {
            Some(from) if from != ty && ty == Type::Text && from.casts_to(ty) => {
                Ok(self.settle(operand)?.0.cast(Type::Text))
            }
            _ => self.take(operand, ty),
        }
    }

    /// Gives the literal among two operands the type of the other one.
    fn both(&mut self, left: Operand, right: Operand) -> Lowered<((Expr, Type), (Expr, Type))> {
        let place = |operand: &Operand, other: &Operand| match (operand.fixed(), other.fixed()) {
            (Some(own), _) => own,
            (None, Some(other)) if other.is_number() && operand.ty().is_number() => operand.ty(),
            (None, Some(Type::Date)) if operand.ty() == Type::Int => Type::Int,
            (None, Some(Type::Jsonb)) | (None, None) => operand.ty(),
            (None, Some(other)) => other,
        };
        let (a, b) = (place(&left, &right), place(&right, &left));
        Ok(((self.take(left, a)?, a), (self.take(right, b)?, b)))
    }

    fn add(&mut self, left: Operand, op: &'static str, right: Operand) -> Lowered<Operand> {
        use Type::{Date, Int, Interval, Jsonb, Text, Timestamp};
        let len = left.len;
        let ((left, a), (right, b)) = self.both(left, right)?;
        let gives = match (a, b) {
            (a, b) if a.is_number() && b.is_number() => a.common(b),
            (Interval, Interval) => Some(Interval),
            (Date, Interval) => Some(Timestamp),
            (time, Interval) if time.is_time() => Some(time),
            (Interval, time) if time.is_time() && op == "+" => {
                Some(if time == Date { Timestamp } else { time })
            }
            (Date, Date) if op == "-" => Some(Int),
            (a, b) if a.is_time() && b.is_time() && op == "-" => Some(Interval),
            (Date, Int) => {
                let right = Expr::Cast(Box::new(right), "int4", String::new());
                return Ok(Operand::small(operator(left, op, right), Date));
            }
            (Jsonb, Text) if op == "-" => {
                let len = self.makes(len)?;
                return Ok(Operand::of(operator(left, op, right), Jsonb, len));
            }
            _ => None,
        };
        match gives {
            Some(ty) => Ok(Operand::small(operator(left, op, right), ty)),
            None => refuse(format!("`{op}` does not go between {} and {}; cast them", a.name(), b.name())),
        }
    }

    pub(super) fn multiply(&mut self, left: Operand, op: &'static str, right: Operand) -> Lowered<Operand> {
        let of_interval = |a: &Operand, b: &Operand| a.fixed() == Some(Type::Interval) && b.ty().is_number();
        if op != "%" && of_interval(&left, &right) {
            let (left, right) = (self.take(left, Type::Interval)?, self.take(right, Type::Float)?);
            return Ok(Operand::small(operator(left, op, right), Type::Interval));
        }
        let ((left, a), (right, b)) = self.both(left, right)?;
        match a.common(b).filter(|ty| ty.is_number()) {
            Some(Type::Float) if op == "%" => refuse("`%` does not go with double precision"),
            // Each product has as many digits as its factors together, and takes the square of that in time.
            Some(Type::Numeric) => {
                let expr = Expr::Bounded(Box::new(operator(left, op, right)));
                Ok(Operand::small(expr, Type::Numeric))
            }
            Some(ty) => Ok(Operand::small(operator(left, op, right), ty)),
            None => refuse(format!("`{op}` does not go between {} and {}; cast them", a.name(), b.name())),
        }
    }
}
