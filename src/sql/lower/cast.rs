//! Casts, and values that are written with their type.

use std::sync::Arc;

use sqlparser::ast::{ArrayElemTypeDef, CastKind, DataType, ExactNumberInfo, TimezoneInfo};

use super::super::tree::Expr;
use super::super::{Param, Type};
use super::operand::{Held, Operand};
use super::{Lower, Lowered, refuse};

/// The most digits of `numeric(p, s)`.
const PRECISION_MAX: u64 = 100;

/// A type as it was written: ours, its name in Postgres, and what stands behind that.
struct Written {
    ty: Type,
    name: &'static str,
    more: String,
}

impl Written {
    fn plain(ty: Type) -> Self {
        Self { ty, name: ty.name(), more: String::new() }
    }

    fn of(written: &DataType) -> Lowered<Self> {
        let named = |ty, name| Ok(Self { ty, name, more: String::new() });
        match written {
            DataType::Bool | DataType::Boolean => Ok(Self::plain(Type::Bool)),
            DataType::SmallInt(None) | DataType::Int2(None) => named(Type::Int, "int2"),
            DataType::Int(None) | DataType::Integer(None) | DataType::Int4(None) => named(Type::Int, "int4"),
            DataType::BigInt(None) | DataType::Int8(None) => Ok(Self::plain(Type::Int)),
            DataType::Numeric(digits) | DataType::Decimal(digits) | DataType::Dec(digits) => {
                Self::numeric(digits)
            }
            DataType::Float4 | DataType::Real => named(Type::Float, "float4"),
            DataType::Float8 | DataType::DoublePrecision => Ok(Self::plain(Type::Float)),
            DataType::Float(ExactNumberInfo::None) | DataType::Double(ExactNumberInfo::None) => {
                Ok(Self::plain(Type::Float))
            }
            DataType::Text | DataType::Varchar(None) | DataType::CharacterVarying(None) => {
                Ok(Self::plain(Type::Text))
            }
            DataType::JSONB => Ok(Self::plain(Type::Jsonb)),
            DataType::Date => Ok(Self::plain(Type::Date)),
            DataType::Timestamp(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
                Ok(Self::plain(Type::Timestamp))
            }
            DataType::Timestamp(None, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => {
                Ok(Self::plain(Type::Timestamptz))
            }
            DataType::Interval { fields: None, precision: None } => Ok(Self::plain(Type::Interval)),
            DataType::Array(ArrayElemTypeDef::SquareBracket(element, None)) => match **element {
                DataType::Text => Ok(Self::plain(Type::TextArray)),
                DataType::BigInt(None) | DataType::Int8(None) => Ok(Self::plain(Type::IntArray)),
                _ => refuse("arrays may be text[] and bigint[]"),
            },
            _ => refuse("the statement has a type that is not allowed"),
        }
    }

    fn numeric(digits: &ExactNumberInfo) -> Lowered<Self> {
        let more = match digits {
            ExactNumberInfo::None => String::new(),
            ExactNumberInfo::Precision(digits) if (1..=PRECISION_MAX).contains(digits) => {
                format!("({digits})")
            }
            ExactNumberInfo::PrecisionAndScale(digits, scale)
                if (1..=PRECISION_MAX).contains(digits)
                    && u64::try_from(*scale).is_ok_and(|scale| scale <= *digits) =>
            {
                format!("({digits}, {scale})")
            }
            _ => return refuse(format!("numeric may have {PRECISION_MAX} digits")),
        };
        Ok(Self { ty: Type::Numeric, name: "numeric", more })
    }
}

impl Lower<'_> {
    /// `CAST(x AS type)` and `x::type`.
    pub(super) fn cast(&mut self, kind: &CastKind, operand: Operand, to: &DataType) -> Lowered<Operand> {
        if !matches!(kind, CastKind::Cast | CastKind::DoubleColon) {
            return refuse("a cast is CAST(x AS type) or x::type");
        }
        let to = Written::of(to)?;
        if let Held::Value(param) = &operand.held {
            let len = operand.len;
            let param = Arc::clone(param);
            let is_short = to.name != to.ty.name() || !to.more.is_empty();
            // A fraction is rounded to an integer by the cast, and not by what reads the parameter.
            let ty = match &*param {
                Param::Number(_) if to.ty == Type::Int => param.own_type(),
                _ => to.ty,
            };
            let expr = self.take(Operand::value(param), ty)?;
            let expr =
                if is_short || ty != to.ty { Expr::Cast(Box::new(expr), to.name, to.more) } else { expr };
            return Ok(Operand::of(expr, to.ty, len));
        }
        let (expr, from, len) = self.settle(operand)?;
        if !from.casts_to(to.ty) {
            return refuse(format!("{} cannot be cast to {} here", from.name(), to.ty.name()));
        }
        if from == to.ty && to.name == to.ty.name() && to.more.is_empty() {
            return Ok(Operand::of(expr, from, len));
        }
        let len = if to.ty == Type::Text { self.makes(len)? } else { to.ty.len() };
        let expr = Expr::Cast(Box::new(expr), to.name, to.more);
        let expr =
            if to.ty == Type::Numeric && from != Type::Int { Expr::Bounded(Box::new(expr)) } else { expr };
        Ok(Operand::of(expr, to.ty, len))
    }

    /// `date '2026-01-31'`.
    pub(super) fn typed(&mut self, to: &DataType, text: &str) -> Lowered<Operand> {
        self.cast(&CastKind::Cast, Operand::value(Param::Text(text.to_owned())), to)
    }
}

/// The name of a type, as Postgres names a column by it.
pub(super) fn name_of(written: &DataType) -> Option<&'static str> {
    Written::of(written).ok().map(|written| written.name.trim_end_matches("[]"))
}
