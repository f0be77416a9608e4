//! Our own tree of a statement. It has no place for anything that is not allowed: relations and columns are numbers, and
//! names of functions, operators and types are those of this program.

use super::Type;

/// A query with its parts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Query {
    /// `WITH`: number and query.
    pub(super) with: Vec<(u32, Query)>,
    pub(super) body: Body,
    pub(super) order: Vec<Order>,
    pub(super) limit: Option<u64>,
    pub(super) offset: Option<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Body {
    Select(Box<Select>),
    Set { op: &'static str, left: Box<Body>, right: Box<Body> },
    Query(Box<Query>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Select {
    pub(super) distinct: Distinct,
    pub(super) items: Vec<Expr>,
    pub(super) from: Vec<Source>,
    pub(super) filter: Option<Expr>,
    pub(super) group: Vec<Expr>,
    pub(super) having: Option<Expr>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Distinct {
    No,
    Yes,
    On(Vec<Expr>),
}

/// A member of FROM. The first one has no join.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Source {
    pub(super) join: Option<(&'static str, Option<Expr>)>,
    pub(super) relation: u32,
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum What {
    /// The caller's own table.
    Own,
    /// A member of WITH.
    Part(u32),
    Derived(Box<Query>),
    /// A function that gives rows, with its arguments.
    Rows {
        name: &'static str,
        args: Vec<Expr>,
        columns: usize,
        with_ordinality: bool,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order {
    pub(super) by: By,
    pub(super) descending: bool,
    pub(super) nulls_first: Option<bool>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum By {
    /// A column of the result, from 1.
    Place(usize),
    Expr(Expr),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr {
    Column {
        relation: u32,
        column: usize,
    },
    /// A value that goes beside the statement, by its place from 0.
    Bind(usize),
    Null(Type),
    Bool(bool),
    Not(Box<Expr>),
    Minus(Box<Expr>),
    /// `IS NULL` and its kind.
    Is(Box<Expr>, &'static str),
    /// `IS DISTINCT FROM`, `LIKE` and other infix words.
    Infix(Box<Expr>, &'static str, Box<Expr>),
    /// An operator of `pg_catalog`.
    Operator(Box<Expr>, &'static str, Box<Expr>),
    /// `x op ANY (array)`.
    Quantified(Box<Expr>, &'static str, &'static str, Box<Expr>),
    /// AND or OR over several.
    Chain(&'static str, Vec<Expr>),
    Between {
        expr: Box<Expr>,
        negated: bool,
        low: Box<Expr>,
        high: Box<Expr>,
    },
    In {
        expr: Box<Expr>,
        negated: bool,
        list: Vec<Expr>,
    },
    InQuery {
        expr: Box<Expr>,
        negated: bool,
        query: Box<Query>,
    },
    Exists {
        negated: bool,
        query: Box<Query>,
    },
    Scalar(Box<Query>),
    /// To a type of `pg_catalog`, with what stands behind its name.
    Cast(Box<Expr>, &'static str, String),
    /// To the domain that bounds the digits of numbers.
    Bounded(Box<Expr>),
    /// `COLLATE "C"`.
    ByBytes(Box<Expr>),
    Array(Vec<Expr>),
    Case {
        operand: Option<Box<Expr>>,
        arms: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    /// COALESCE, NULLIF, GREATEST, LEAST: words of the grammar, not functions.
    Form(&'static str, Vec<Expr>),
    Call(Box<Call>),
}

/// A call of a function of `pg_catalog`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    pub(super) name: &'static str,
    /// `count(*)`
    pub(super) star: bool,
    pub(super) distinct: bool,
    pub(super) args: Vec<Expr>,
    pub(super) order: Vec<Order>,
    pub(super) filter: Option<Expr>,
    pub(super) over: Option<Window>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Window {
    pub(super) partition: Vec<Expr>,
    pub(super) order: Vec<Order>,
    pub(super) frame: Option<String>,
}

impl Expr {
    pub(super) fn call(name: &'static str, args: Vec<Expr>) -> Self {
        let (star, distinct, order, filter, over) = (false, false, Vec::new(), None, None);
        Self::Call(Box::new(Call { name, star, distinct, args, order, filter, over }))
    }

    pub(super) fn cast(self, ty: Type) -> Self {
        Self::Cast(Box::new(self), ty.name(), String::new())
    }

    /// The parts directly below, those of inner queries left out.
    pub(super) fn parts(&self) -> Vec<&Expr> {
        match self {
            Self::Column { .. } | Self::Bind(_) | Self::Null(_) | Self::Bool(_) => Vec::new(),
            Self::Exists { .. } | Self::Scalar(_) => Vec::new(),
            Self::Not(expr) | Self::Minus(expr) | Self::Is(expr, _) | Self::Cast(expr, _, _) => vec![expr],
            Self::Bounded(expr) | Self::ByBytes(expr) | Self::InQuery { expr, .. } => vec![expr],
            Self::Infix(left, _, right) | Self::Operator(left, _, right) => vec![left, right],
            Self::Quantified(left, _, _, right) => vec![left, right],
            Self::Chain(_, list) | Self::Array(list) | Self::Form(_, list) => list.iter().collect(),
            Self::Between { expr, low, high, .. } => vec![expr, low, high],
            Self::In { expr, list, .. } => std::iter::once(&**expr).chain(list).collect(),
            Self::Case { operand, arms, otherwise } => operand
                .iter()
                .chain(otherwise)
                .map(|expr| &**expr)
                .chain(arms.iter().flat_map(|(when, then)| [when, then]))
                .collect(),
            Self::Call(call) => call.args.iter().chain(&call.filter).collect(),
        }
    }

    /// Adds the relations that it reads.
    pub(super) fn relations(&self, found: &mut Vec<u32>) {
        if let Self::Column { relation, .. } = self {
            found.push(*relation);
        }
        self.parts().into_iter().for_each(|part| part.relations(found));
    }
}
