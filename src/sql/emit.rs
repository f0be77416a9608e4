//! From our tree to text. Every name in it is one of this program or a number, except that of the physical table, which the
//! store gives; no byte of the caller's text is among it.

use std::fmt::Write as _;

use super::limits::{RESULT_LEN_MAX, ROWS_MAX};
use super::tree::{Body, By, Call, Distinct, Expr, Order, Query, Select, Source, What};

/// The columns of the caller's own table, as they are stored: a relation in the tree has them in this order.
pub(super) const OWN_COLUMNS: [&str; 4] = ["id", "data", "_version", "_order"];

/// The text of a query whose results are JSON texts: column 0 is the length of the row, the others are its values, absent
/// where the row is too long to be sent at all.
pub(super) fn statement(query: &Query, columns: usize, schema: &str, table: &str) -> String {
    let mut inner = Emitter { out: String::new(), own: own(schema, table) };
    inner.query(query);
    let each = |form: &dyn Fn(usize) -> String, between: &str| {
        (0..columns).map(form).collect::<Vec<_>>().join(between)
    };
    let texts = each(
        &|n| format!("(\"pg_catalog\".\"to_jsonb\"(\"q\".\"c{n}\"))::\"pg_catalog\".\"text\" AS \"c{n}\""),
        ", ",
    );
    let names = each(&|n| format!("\"t\".\"c{n}\" AS \"c{n}\""), ", ");
    let len = each(
        &|n| {
            format!(
                "COALESCE((\"pg_catalog\".\"octet_length\"(\"t\".\"c{n}\"))::\"pg_catalog\".\"int8\", \
                 (4)::\"pg_catalog\".\"int8\")"
            )
        },
        " OPERATOR(\"pg_catalog\".+) ",
    );
    let values = each(
        &|n| {
            format!(
                "CASE WHEN \"m\".\"len\" OPERATOR(\"pg_catalog\".<=) {RESULT_LEN_MAX} THEN \"m\".\"c{n}\" END AS \"c{n}\""
            )
        },
        ", ",
    );
    let limit = ROWS_MAX + 1;
    format!(
        "SELECT \"m\".\"len\" AS \"len\", {values} FROM (SELECT {names}, {len} AS \"len\" FROM (SELECT {texts} FROM ({}) \
         AS \"q\" LIMIT {limit}) AS \"t\") AS \"m\"",
        inner.out
    )
}

/// What stands for the caller's own table: its live rows, and of them the columns that there are for the caller.
fn own(schema: &str, table: &str) -> String {
    let columns: Vec<_> = OWN_COLUMNS
        .iter()
        .enumerate()
        .map(|(n, column)| format!("\"d\".{} AS \"c{n}\"", quoted(column)))
        .collect();
    format!(
        "(SELECT {} FROM {}.{} AS \"d\" WHERE \"d\".\"_deleted_txid\" IS NULL)",
        columns.join(", "),
        quoted(schema),
        quoted(table)
    )
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

struct Emitter {
    out: String,
    own: String,
}

impl Emitter {
    fn put(&mut self, text: impl AsRef<str>) {
        self.out.push_str(text.as_ref());
    }

    fn number(&mut self, number: impl std::fmt::Display) {
        write!(self.out, "{number}").expect("a string takes any text");
    }

    fn list<T>(&mut self, items: &[T], mut one: impl FnMut(&mut Self, &T)) {
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                self.put(", ");
            }
            one(self, item);
        }
    }

    fn exprs(&mut self, exprs: &[Expr]) {
        self.list(exprs, Self::expr);
    }

    fn query(&mut self, query: &Query) {
        if !query.with.is_empty() {
            self.put("WITH ");
            self.list(&query.with, |out, (part, query)| {
                out.put(format!("\"w{part}\" AS ("));
                out.query(query);
                out.put(")");
            });
            self.put(" ");
        }
        self.body(&query.body);
        self.order(&query.order, " ORDER BY ");
        if let Some(limit) = query.limit {
            self.put(" LIMIT ");
            self.number(limit);
        }
        if let Some(offset) = query.offset {
            self.put(" OFFSET ");
            self.number(offset);
        }
    }

    fn body(&mut self, body: &Body) {
        match body {
            Body::Select(select) => self.select(select),
            Body::Set { op, left, right } => {
                self.put("(");
                self.body(left);
                self.put(format!(") {op} ("));
                self.body(right);
                self.put(")");
            }
            Body::Query(query) => {
                self.put("(");
                self.query(query);
                self.put(")");
            }
        }
    }

    fn select(&mut self, select: &Select) {
        self.put("SELECT ");
        match &select.distinct {
            Distinct::No => {}
            Distinct::Yes => self.put("DISTINCT "),
            Distinct::On(exprs) => {
                self.put("DISTINCT ON (");
                self.exprs(exprs);
                self.put(") ");
            }
        }
        for (at, item) in select.items.iter().enumerate() {
            self.put(if at > 0 { ", " } else { "" });
            self.expr(item);
            self.put(format!(" AS \"c{at}\""));
        }
        self.put(" FROM ");
        select.from.iter().for_each(|source| self.source(source));
        if let Some(filter) = &select.filter {
            self.put(" WHERE ");
            self.expr(filter);
        }
        if !select.group.is_empty() {
            self.put(" GROUP BY ");
            self.exprs(&select.group);
        }
        if let Some(having) = &select.having {
            self.put(" HAVING ");
            self.expr(having);
        }
    }

    fn source(&mut self, source: &Source) {
        if let Some((join, _)) = &source.join {
            self.put(format!(" {join} "));
        }
        let alias = source.relation;
        match &source.what {
            What::Own => {
                let own = self.own.clone();
                self.put(format!("{own} AS \"r{alias}\""));
            }
            What::Part(part) => self.put(format!("\"w{part}\" AS \"r{alias}\"")),
            What::Derived(query) => {
                self.put("(");
                self.query(query);
                self.put(format!(") AS \"r{alias}\""));
            }
            What::Rows { name, args, columns, with_ordinality } => {
                self.put(format!("LATERAL \"pg_catalog\".\"{name}\"("));
                self.exprs(args);
                self.put(if *with_ordinality { ") WITH ORDINALITY" } else { ")" });
                let names: Vec<_> = (0..*columns).map(|n| format!("\"c{n}\"")).collect();
                self.put(format!(" AS \"r{alias}\"({})", names.join(", ")));
            }
        }
        if let Some((_, Some(on))) = &source.join {
            self.put(" ON ");
            self.expr(on);
        }
    }

    fn order(&mut self, order: &[Order], head: &str) {
        if order.is_empty() {
            return;
        }
        self.put(head);
        self.list(order, |out, key| {
            match &key.by {
                By::Place(place) => out.number(place),
                By::Expr(expr) => out.expr(expr),
            }
            out.put(if key.descending { " DESC" } else { "" });
            out.put(match key.nulls_first {
                None => "",
                Some(true) => " NULLS FIRST",
                Some(false) => " NULLS LAST",
            });
        });
    }

    fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::Column { relation, column } => self.put(format!("\"r{relation}\".\"c{column}\"")),
            Expr::Bind(at) => self.put(format!("${}", at + 1)),
            Expr::Null(ty) => self.put(format!("(NULL)::{}", type_name(ty.name()))),
            Expr::Bool(value) => self.put(if *value { "TRUE" } else { "FALSE" }),
            Expr::Not(inner) => self.around("(NOT ", inner, ")"),
            Expr::Minus(inner) => self.around("(OPERATOR(\"pg_catalog\".-) ", inner, ")"),
            Expr::Is(inner, what) => self.around("(", inner, &format!(" {what})")),
            Expr::Infix(left, word, right) => self.between(left, word, right),
            Expr::Operator(left, op, right) => {
                self.between(left, &format!("OPERATOR(\"pg_catalog\".{op})"), right);
            }
            Expr::Quantified(left, op, word, right) => {
                self.around("(", left, &format!(" OPERATOR(\"pg_catalog\".{op}) {word} ("));
                self.around("", right, "))");
            }
            Expr::Chain(word, terms) => {
                for (at, term) in terms.iter().enumerate() {
                    self.put(if at == 0 { "(".to_owned() } else { format!(" {word} ") });
                    self.expr(term);
                }
                self.put(")");
            }
            Expr::Between { expr, negated, low, high } => {
                self.around("(", expr, if *negated { " NOT BETWEEN " } else { " BETWEEN " });
                self.around("", low, " AND ");
                self.around("", high, ")");
            }
            Expr::In { expr, negated, list } => {
                self.around("(", expr, if *negated { " NOT IN (" } else { " IN (" });
                self.exprs(list);
                self.put("))");
            }
            Expr::InQuery { expr, negated, query } => {
                self.around("(", expr, if *negated { " NOT IN (" } else { " IN (" });
                self.query(query);
                self.put("))");
            }
            Expr::Exists { negated, query } => {
                self.put(if *negated { "(NOT EXISTS (" } else { "(EXISTS (" });
                self.query(query);
                self.put("))");
            }
            Expr::Scalar(query) => {
                self.put("(");
                self.query(query);
                self.put(")");
            }
            Expr::Cast(inner, ty, more) => {
                self.around("(", inner, &format!(")::{}{more}", type_name(ty)));
            }
            Expr::Bounded(inner) => self.around("(", inner, ")::\"raystream\".\"exec_numeric\""),
            Expr::ByBytes(inner) => self.around("(", inner, " COLLATE \"pg_catalog\".\"C\")"),
            Expr::Array(elements) => {
                self.put("ARRAY[");
                self.exprs(elements);
                self.put("]");
            }
            Expr::Case { operand, arms, otherwise } => {
                self.put("CASE ");
                if let Some(operand) = operand {
                    self.around("", operand, " ");
                }
                for (when, then) in arms {
                    self.around("WHEN ", when, " ");
                    self.around("THEN ", then, " ");
                }
                if let Some(otherwise) = otherwise {
                    self.around("ELSE ", otherwise, " ");
                }
                self.put("END");
            }
            Expr::Form(word, args) => {
                self.put(format!("{word}("));
                self.exprs(args);
                self.put(")");
            }
            Expr::Call(call) => self.call(call),
        }
    }

    fn around(&mut self, before: &str, expr: &Expr, after: &str) {
        self.put(before);
        self.expr(expr);
        self.put(after);
    }

    fn between(&mut self, left: &Expr, word: &str, right: &Expr) {
        self.around("(", left, &format!(" {word} "));
        self.around("", right, ")");
    }

    fn call(&mut self, call: &Call) {
        self.put(format!("\"pg_catalog\".\"{}\"(", call.name));
        self.put(if call.distinct { "DISTINCT " } else { "" });
        if call.star {
            self.put("*");
        }
        self.exprs(&call.args);
        self.order(&call.order, " ORDER BY ");
        self.put(")");
        if let Some(filter) = &call.filter {
            self.around(" FILTER (WHERE ", filter, ")");
        }
        if let Some(window) = &call.over {
            self.put(" OVER (");
            if !window.partition.is_empty() {
                self.put("PARTITION BY ");
                self.exprs(&window.partition);
            }
            self.order(&window.order, " ORDER BY ");
            if let Some(frame) = &window.frame {
                self.put(format!(" {frame}"));
            }
            self.put(")");
        }
    }
}

/// `text[]` is `"pg_catalog"."text"[]`.
fn type_name(name: &str) -> String {
    match name.strip_suffix("[]") {
        Some(element) => format!("\"pg_catalog\".\"{element}\"[]"),
        None => format!("\"pg_catalog\".\"{name}\""),
    }
}
