//! What a statement gathers of each row however short its document is: values that are written out or parameters, as often as they
//! are named, also through the columns of inner queries.

use std::collections::HashMap;

use super::Bind;
use super::functions::{self, Kind, Len};
use super::limits::SMALL_LEN;
use super::tree::{Body, By, Call, Distinct, Expr, Order, Query, Select, What};

/// Bytes of a character.
const BYTES_MAX: u64 = 4;

/// The bytes of such values, for all that gathers in the query.
pub(super) fn constants(query: &Query, binds: &[Bind]) -> u64 {
    let mut walk = Walk { binds, columns: HashMap::new(), gathered: 0 };
    walk.query(query);
    walk.gathered
}

struct Walk<'a> {
    binds: &'a [Bind],
    /// Of each column of a relation or part, the bytes of such values in it. Not there: none.
    columns: HashMap<u32, Vec<u64>>,
    gathered: u64,
}

impl Walk<'_> {
    fn query(&mut self, query: &Query) -> Vec<u64> {
        for (part, query) in &query.with {
            let columns = self.query(query);
            self.columns.insert(*part, columns);
        }
        let columns = self.body(&query.body);
        self.order(&query.order);
        columns
    }

    fn body(&mut self, body: &Body) -> Vec<u64> {
        match body {
            Body::Select(select) => self.select(select),
            Body::Set { left, right, .. } => {
                let (left, right) = (self.body(left), self.body(right));
                left.into_iter().zip(right).map(|(left, right)| left.max(right)).collect()
            }
            Body::Query(query) => self.query(query),
        }
    }

    fn select(&mut self, select: &Select) -> Vec<u64> {
        for source in &select.from {
            let columns = match &source.what {
                What::Part(part) => self.columns.get(part).cloned().unwrap_or_default(),
                What::Derived(query) => self.query(query),
                What::Own | What::Rows { .. } => Vec::new(),
            };
            self.columns.insert(source.relation, columns);
        }
        let on: &[Expr] = if let Distinct::On(exprs) = &select.distinct { exprs } else { &[] };
        self.all(select.filter.iter().chain(&select.group).chain(&select.having).chain(on));
        select.items.iter().map(|item| self.expr(item)).collect()
    }

    fn order(&mut self, order: &[Order]) {
        for order in order {
            if let By::Expr(expr) = &order.by {
                self.expr(expr);
            }
        }
    }

    fn all<'e>(&mut self, exprs: impl IntoIterator<Item = &'e Expr>) -> u64 {
        exprs.into_iter().map(|expr| self.expr(expr)).fold(0, u64::saturating_add)
    }

    fn expr(&mut self, expr: &Expr) -> u64 {
        match expr {
            Expr::Column { relation, column } => {
                self.columns.get(relation).and_then(|columns| columns.get(*column)).copied().unwrap_or(0)
            }
            Expr::Bind(at) => self.text(*at).map_or(0, |text| u64::try_from(text.len()).unwrap_or(u64::MAX)),
            Expr::Scalar(query) => self.query(query).first().copied().unwrap_or(0),
            Expr::Exists { query, .. } => {
                self.query(query);
                0
            }
            Expr::InQuery { expr, query, .. } => {
                self.expr(expr);
                self.query(query);
                0
            }
            // A step into JSON, which is no part of what is there.
            Expr::Operator(json, "->" | "->>" | "#>" | "#>>", step) => {
                self.expr(step);
                self.expr(json)
            }
            Expr::Call(call) => self.call(call),
            other => self.all(other.parts()),
        }
    }

    fn text(&self, bind: usize) -> Option<&str> {
        self.binds.get(bind)?.text.as_deref()
    }

    /// The bytes of what is filled up to a number of characters.
    fn width(&self, number: Option<&Expr>) -> u64 {
        let Some(Expr::Cast(number, ..)) = number else { return SMALL_LEN };
        let Expr::Bind(at) = **number else { return SMALL_LEN };
        let characters = self.text(at).and_then(|text| text.parse::<u64>().ok());
        characters.map_or(SMALL_LEN, |characters| characters.saturating_mul(BYTES_MAX))
    }

    fn call(&mut self, call: &Call) -> u64 {
        self.order(&call.order);
        self.all(&call.filter);
        if let Some(window) = &call.over {
            self.all(&window.partition);
            self.order(&window.order);
        }
        let args: Vec<u64> = call.args.iter().map(|arg| self.expr(arg)).collect();
        let all = args.iter().copied().fold(0, u64::saturating_add);
        match (call.name, &args[..]) {
            ("lpad" | "rpad", _) => return self.width(call.args.get(1)),
            ("replace", [text, from, to]) => return text.saturating_mul(to.div_ceil(*from.max(&1)).max(1)),
            _ => {}
        }
        if functions::named(call.name).any(|function| function.kind == Kind::Collects) {
            self.gathered = self.gathered.saturating_add(all);
            return all;
        }
        // JSON that is made of values is as long in memory as they are.
        let times = |len| if let Len::Times(times) = len { times } else { 0 };
        let times = functions::named(call.name).map(|function| times(function.len)).max().unwrap_or(1);
        all.saturating_mul(if functions::escapes(call.name) { 1 } else { times })
    }
}
