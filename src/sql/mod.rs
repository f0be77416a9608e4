//! The guard of `table.exec` (floor 2): SQL text in, a statement of our own out, or a refusal.
//!
//! The text goes through three gates: its characters and tokens (`tokens`), a real parser, and the translation into a tree
//! that has no place for anything but what is allowed (`lower`, `tree`). The statement is written anew from that tree
//! (`emit`). So it does not matter whether Postgres would have read the text as our parser did: Postgres never sees it.
//!
//! The translation also finds the type of every expression and a bound for its length. That is what keeps `replace`, `||` or a
//! number of 131072 digits from becoming memory and time, and it makes every operator and function the one that was meant.
//!
//! No IO, no clock: the same text and parameters give the same statement.

mod emit;
mod functions;
mod gathered;
pub mod limits;
mod lower;
mod param;
mod refusal;
mod tokens;
mod tree;
mod types;

pub use param::{Bind, Param};
pub use refusal::Refusal;
pub use types::Type;

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::TokenWithSpan;

/// A statement that may be run. Only [`guard`] makes one.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    query: tree::Query,
    columns: Vec<String>,
    binds: Vec<Bind>,
    collects: Option<Collects>,
}

/// What a statement gathers of each row at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collects {
    /// Its document, so many times.
    pub copies: u32,
    /// Values that are not the document's, in bytes.
    pub constants: u64,
}

impl Statement {
    /// The names of the result's columns, each there once.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The values of `$1`, `$2`, ...
    pub fn binds(&self) -> &[Bind] {
        &self.binds
    }

    /// What it gathers, when it gathers values of many rows into one: then the size of the table bounds its memory.
    pub fn collects(&self) -> Option<Collects> {
        self.collects
    }

    /// The text, for the physical table that stands for the caller's own. Its rows are: the length of the row in bytes, then
    /// each column as JSON text or NULL; all NULL when the length is above [`limits::RESULT_LEN_MAX`]. There are at most
    /// one more than [`limits::ROWS_MAX`].
    pub fn text(&self, schema: &str, table: &str) -> String {
        emit::statement(&self.query, self.columns.len(), schema, table)
    }
}

/// Names of all functions that a statement's text can have, for tests that read it again.
#[doc(hidden)]
pub fn function_names() -> impl Iterator<Item = &'static str> {
    functions::names().chain(["replace"])
}

/// Reads a statement over the caller's own table `table`.
///
/// # Errors
/// [`Refusal`] when it is not a single SELECT over that table alone, of allowed parts, within the limits of [`limits`].
pub fn guard(table: &str, text: &str, params: &[Param]) -> Result<Statement, Refusal> {
    param::check(params)?;
    let tokens = tokens::tokens(text)?;
    // The parser counts the depth of most that it follows by recursion, not of all (`a JOIN b JOIN ..`), and what it made is
    // dropped by recursion. The number of tokens bounds both; this stack has room for as many.
    let translated = std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(limits::STACK_LEN);
        let thread = builder.spawn_scoped(scope, || translate(table, params, tokens)).ok()?;
        thread.join().ok()
    });
    translated.unwrap_or_else(|| Err(Refusal::invalid("the statement could not be read")))
}

fn translate(table: &str, params: &[Param], tokens: Vec<TokenWithSpan>) -> Result<Statement, Refusal> {
    let statements = Parser::new(&PostgreSqlDialect {})
        .with_recursion_limit(limits::DEPTH_MAX)
        .with_tokens_with_locations(tokens)
        .parse_statements()
        .map_err(|_| Refusal::invalid("the statement is not understood"))?;
    match <[_; 1]>::try_from(statements) {
        Ok([sqlparser::ast::Statement::Query(query)]) => lower::statement(table, params, &query),
        Ok([_]) => Err(Refusal::invalid("only a SELECT can be run here")),
        Err(_) => Err(Refusal::invalid("there has to be one statement")),
    }
}

#[cfg(test)]
mod tests;
