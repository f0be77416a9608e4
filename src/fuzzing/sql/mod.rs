//! SQL of a grammar that has what is allowed beside what is not, through the guard. What the guard lets pass is read again:
//! word by word, against what it may write at all, and by the parser.

mod grammar;

use sqlparser::ast::Statement;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer};

pub use grammar::sql_text;

use crate::sql::{self, Param, limits};

/// Text of the input: the first byte says whether it is taken as it is or read as choices of the grammar.
pub fn sql(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let text = match first % 4 {
        0 => String::from_utf8_lossy(rest).into_owned(),
        _ => sql_text(rest),
    };
    let params = [Param::Text("a".into()), Param::Number("1".into()), Param::Json("{}".into()), Param::Null];
    let Ok(statement) = sql::guard("tasks", &text, &params) else { return };
    let again = sql::guard("tasks", &text, &params).expect("the guard decides by the text alone");
    assert_eq!(again, statement);
    let written = statement.text("raystream", "tbl_1");
    check_words(&written, statement.binds().len());
    check_meaning(&written);
    assert!(statement.columns().len() <= limits::COLUMNS_MAX);
}

/// The words that stand without quotes in what the guard writes.
const WORDS: &[&str] = &[
    "ALL",
    "AND",
    "ANY",
    "ARRAY",
    "AS",
    "BETWEEN",
    "BY",
    "CASE",
    "COALESCE",
    "COLLATE",
    "CROSS",
    "CURRENT",
    "DESC",
    "DISTINCT",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "FALSE",
    "FILTER",
    "FIRST",
    "FOLLOWING",
    "FROM",
    "FULL",
    "GREATEST",
    "GROUP",
    "HAVING",
    "ILIKE",
    "IN",
    "INTERSECT",
    "IS",
    "JOIN",
    "LAST",
    "LATERAL",
    "LEAST",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "NULLIF",
    "NULLS",
    "OFFSET",
    "ON",
    "OPERATOR",
    "OR",
    "ORDER",
    "ORDINALITY",
    "OVER",
    "PARTITION",
    "PRECEDING",
    "RANGE",
    "RIGHT",
    "ROW",
    "ROWS",
    "SELECT",
    "THEN",
    "TRUE",
    "UNBOUNDED",
    "UNION",
    "UNKNOWN",
    "WHEN",
    "WHERE",
    "WITH",
];

const TYPES: &[&str] = &[
    "bool",
    "int2",
    "int4",
    "int8",
    "numeric",
    "float4",
    "float8",
    "text",
    "jsonb",
    "timestamptz",
    "timestamp",
    "date",
    "interval",
];

/// Every word and sign of the text is one that the guard may write, and a qualified name leads to where it may.
fn check_words(text: &str, binds: usize) {
    let tokens: Vec<Token> =
        Tokenizer::new(&PostgreSqlDialect {}, text).tokenize().expect("our own text has tokens");
    let tokens: Vec<&Token> = tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
    let quoted = |at: usize| match tokens.get(at) {
        Some(Token::Word(word)) if word.quote_style == Some('"') => Some(word.value.as_str()),
        _ => None,
    };
    let is_numbered =
        |name: &str| name.strip_prefix(['c', 'r', 'w']).is_some_and(|digits| digits.parse::<u32>().is_ok());
    for (at, token) in tokens.iter().enumerate() {
        let is_after_dot = at > 0 && *tokens[at - 1] == Token::Period;
        match token {
            Token::Word(word) if word.quote_style.is_none() => {
                assert!(WORDS.contains(&word.value.as_str()), "the word {} in {text}", word.value);
            }
            Token::Word(word) => match word.value.as_str() {
                "pg_catalog" => {
                    assert_eq!(tokens.get(at + 1), Some(&&Token::Period), "{text}");
                    let next = quoted(at + 2);
                    let is_known = next.is_none_or(|name| {
                        name == "C"
                            || TYPES.contains(&name)
                            || sql::function_names().any(|known| known == name)
                    });
                    let is_operator = at > 0 && *tokens[at - 1] == Token::LParen && next.is_none();
                    assert!(is_known && (next.is_some() || is_operator), "{next:?} of pg_catalog in {text}");
                }
                "raystream" => {
                    assert!(matches!(quoted(at + 2), Some("tbl_1" | "exec_numeric")), "{text}");
                }
                "id" | "data" | "_version" | "_order" | "_deleted_txid" => {
                    assert_eq!(
                        at.checked_sub(2).and_then(quoted),
                        Some("d"),
                        "a column of the table in {text}"
                    );
                }
                "d" | "q" | "t" | "m" | "len" => {}
                name => assert!(is_numbered(name) || is_after_dot, "the name {name} in {text}"),
            },
            Token::Placeholder(name) => {
                let number: usize = name[1..].parse().expect("a number behind the sign");
                assert!((1..=binds).contains(&number), "{name} of {binds} in {text}");
            }
            Token::Number(..) => {}
            Token::SingleQuotedString(_) => panic!("a text in {text}"),
            Token::SemiColon => panic!("several statements in {text}"),
            _ => {}
        }
    }
}

/// The text is one query, and means the same when it is written once more.
fn check_meaning(text: &str) {
    let parse = |text: &str| {
        let statements = Parser::parse_sql(&PostgreSqlDialect {}, text)
            .unwrap_or_else(|error| panic!("{error} in {text}"));
        let [Statement::Query(query)] = &statements[..] else {
            panic!("{} statements in {text}", statements.len())
        };
        query.clone()
    };
    // A qualified operator before ANY and ALL, or before its only operand, is beyond this parser.
    let text = &text
        .replace(r#"(OPERATOR("pg_catalog".-) "#, "(- ")
        .replace(r#"OPERATOR("pg_catalog".=) ANY"#, "= ANY")
        .replace(r#"OPERATOR("pg_catalog".<>) ALL"#, "<> ALL");
    let query = parse(text);
    assert_eq!(parse(&query.to_string()), query, "{text}");
}
