//! The types that a statement may use, and what becomes what.

use super::limits::{DOCUMENT_LEN, SMALL_LEN};

/// A type. Integers of all lengths are one: Postgres converts between them by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// `boolean`
    Bool,
    /// `bigint`, `integer`, `smallint`
    Int,
    /// `numeric`, in the bounds of the domain `raystream.exec_numeric`
    Numeric,
    /// `double precision`
    Float,
    /// `text`
    Text,
    /// `jsonb`
    Jsonb,
    /// `timestamp with time zone`
    Timestamptz,
    /// `timestamp without time zone`
    Timestamp,
    /// `date`
    Date,
    /// `interval`
    Interval,
    /// `text[]`
    TextArray,
    /// `bigint[]`
    IntArray,
}

impl Type {
    /// Its name in `pg_catalog`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int8",
            Self::Numeric => "numeric",
            Self::Float => "float8",
            Self::Text => "text",
            Self::Jsonb => "jsonb",
            Self::Timestamptz => "timestamptz",
            Self::Timestamp => "timestamp",
            Self::Date => "date",
            Self::Interval => "interval",
            Self::TextArray => "text[]",
            Self::IntArray => "int8[]",
        }
    }

    pub(super) fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Numeric | Self::Float)
    }

    pub(super) fn is_time(self) -> bool {
        matches!(self, Self::Timestamptz | Self::Timestamp | Self::Date)
    }

    /// How long a value can be when nothing better is known.
    pub(super) fn len(self) -> u64 {
        match self {
            Self::Text | Self::Jsonb | Self::TextArray | Self::IntArray => DOCUMENT_LEN,
            _ => SMALL_LEN,
        }
    }

    /// Whether Postgres compares the two with each other as they are.
    pub(super) fn compares_with(self, other: Self) -> bool {
        self == other || self.is_number() && other.is_number() || self.is_time() && other.is_time()
    }

    /// The type that values of both have together, as in the columns of a UNION.
    pub(super) fn common(self, other: Self) -> Option<Self> {
        let rank = |ty: Self| match ty {
            Self::Int | Self::Date => 0,
            Self::Numeric | Self::Timestamp => 1,
            _ => 2,
        };
        match self.compares_with(other) {
            true if rank(self) >= rank(other) => Some(self),
            true => Some(other),
            false => None,
        }
    }

    /// Whether `CAST(x AS other)` may be asked for. Text does not become JSON: a short text can be a number of 131072
    /// digits there, and a long one thousands of them. A literal or a parameter may, after it was looked at.
    pub(super) fn casts_to(self, other: Self) -> bool {
        use Type::{Bool, Float, Int, IntArray, Interval, Jsonb, Numeric, Text, TextArray};
        match (self, other) {
            (from, to) if from == to => true,
            (TextArray | IntArray, _) | (_, TextArray | IntArray) => false,
            (_, Text) => true,
            (Text, to) => to != Jsonb,
            (Jsonb, Bool | Int | Numeric | Float) => true,
            (Bool, Int) | (Int, Bool) => true,
            (from, to) if from.is_number() && to.is_number() => true,
            (from, to) if from.is_time() && to.is_time() => true,
            (Interval, _) => false,
            _ => false,
        }
    }
}
