//! From the parser's tree to ours. Each file lowers one kind of part; what it does not name is refused. Structures of the
//! parser are taken apart field by field, so that a field which a later version adds does not pass unseen.

mod call;
mod cast;
mod expr;
mod from;
mod names;
mod operand;
mod operator;
mod query;
mod window;

use std::sync::Arc;

use sqlparser::ast;

use super::limits::{
    COLUMNS_MAX, DEPTH_MAX, NODES_MAX, OWN_TABLES_MAX, RELATIONS_MAX, ROW_WORK_MAX, VALUE_LEN_MAX,
};
use super::{Bind, Collects, Param, Refusal, Statement, Type, gathered};
use names::{Column, Scope};

type Lowered<T> = Result<T, Refusal>;

fn refuse<T>(message: impl Into<String>) -> Lowered<T> {
    Err(Refusal::invalid(message))
}

/// Lowers a whole statement.
pub(super) fn statement(table: &str, params: &[Param], query: &ast::Query) -> Lowered<Statement> {
    let mut lower = Lower::new(table, params);
    let (query, columns) = lower.query(query, None)?;
    if lower.own_seen == 0 {
        return refuse("a statement has to read its table");
    }
    if lower.collects.is_some() && (lower.own_seen > 1 || lower.relations > 1) {
        return refuse(
            "string_agg, array_agg, jsonb_agg and jsonb_object_agg read one table, once, and nothing else",
        );
    }
    let columns = unique(columns);
    let constants = || gathered::constants(&query, &lower.binds);
    let collects = lower.collects.map(|copies| Collects { copies, constants: constants() });
    Ok(Statement { query, columns, binds: lower.binds, collects })
}

/// The names, those that come again with a number behind them: a row is a JSON object.
fn unique(columns: Vec<Column>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for column in columns {
        let mut name = column.name.clone();
        let mut number = 1;
        while names.contains(&name) {
            number += 1;
            name = format!("{}_{number}", column.name);
        }
        names.push(name);
    }
    names
}

/// What is known while a statement is lowered.
struct Lower<'a> {
    table: &'a str,
    params: Vec<Arc<Param>>,
    binds: Vec<Bind>,
    parts: Vec<Part>,
    depth: usize,
    nodes: usize,
    work: u64,
    /// The number of the next relation or part.
    next: u32,
    own_seen: usize,
    relations: usize,
    /// What is gathered of each row, in documents; absent when nothing is.
    collects: Option<u32>,
}

/// A member of WITH, and what reading it costs.
struct Part {
    number: u32,
    name: String,
    columns: Vec<Column>,
    own: usize,
    relations: usize,
}

impl<'a> Lower<'a> {
    fn new(table: &'a str, params: &[Param]) -> Self {
        Self {
            table,
            params: params.iter().cloned().map(Arc::new).collect(),
            binds: Vec::new(),
            parts: Vec::new(),
            depth: 0,
            nodes: 0,
            work: 0,
            next: 0,
            own_seen: 0,
            relations: 0,
            collects: None,
        }
    }

    /// Goes one level down.
    fn deeper<T>(&mut self, work: impl FnOnce(&mut Self) -> Lowered<T>) -> Lowered<T> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return refuse(format!("the statement has more than {NODES_MAX} parts"));
        }
        if self.depth >= DEPTH_MAX {
            return refuse(format!("the statement nests deeper than {DEPTH_MAX}"));
        }
        self.depth += 1;
        let result = work(self);
        self.depth -= 1;
        result
    }

    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// Counts what reading a relation costs.
    fn reads(&mut self, own: usize, relations: usize) -> Lowered<()> {
        self.own_seen += own;
        self.relations += relations;
        if self.own_seen > OWN_TABLES_MAX {
            return refuse(format!("a statement may read its table {OWN_TABLES_MAX} times"));
        }
        if self.relations > RELATIONS_MAX {
            return refuse(format!("a statement may have {RELATIONS_MAX} members of FROM in all"));
        }
        Ok(())
    }

    /// Counts a value of at most `len` bytes.
    fn makes(&mut self, len: u64) -> Lowered<u64> {
        self.work = self.work.saturating_add(len);
        if len > VALUE_LEN_MAX || self.work > ROW_WORK_MAX {
            return refuse("the statement could make too long a value of a row");
        }
        Ok(len)
    }

    /// The number of a value that goes beside the statement. Equal ones are one, so that Postgres finds equal expressions in
    /// SELECT and GROUP BY equal.
    fn bind(&mut self, param: &Param, ty: Type) -> Lowered<usize> {
        let bind = param.bind(ty)?;
        if let Some(at) = self.binds.iter().position(|known| *known == bind) {
            return Ok(at);
        }
        self.binds.push(bind);
        Ok(self.binds.len() - 1)
    }

    fn check_columns(columns: &[Column]) -> Lowered<()> {
        if columns.len() > COLUMNS_MAX {
            return refuse(format!("a result may have {COLUMNS_MAX} columns"));
        }
        Ok(())
    }
}

/// What surrounds an expression.
type In<'s, 'p> = &'s Scope<'p>;
