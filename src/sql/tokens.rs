//! The first two gates: the characters of the text, and its tokens. What has no place in any statement that is allowed ends
//! here, before a parser builds a tree of it.

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::Refusal;
use super::limits::{NESTING_MAX, TEXT_LEN_MAX, TOKENS_MAX};

/// The tokens of a text, if all of them are of kinds that may be there.
pub(super) fn tokens(text: &str) -> Result<Vec<TokenWithSpan>, Refusal> {
    if text.len() > TEXT_LEN_MAX {
        return Err(Refusal::invalid(format!("a statement may have {TEXT_LEN_MAX} bytes; use parameters")));
    }
    if text.chars().any(is_deceptive) {
        return Err(Refusal::invalid("the statement has control characters or unusual blanks"));
    }
    let all = Tokenizer::new(&PostgreSqlDialect {}, text)
        .tokenize_with_location()
        .map_err(|_| Refusal::invalid("the statement cannot be read: a quote or a comment has no end"))?;
    let tokens: Vec<_> =
        all.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect();
    if tokens.len() > TOKENS_MAX {
        return Err(Refusal::invalid(format!("a statement may have {TOKENS_MAX} words and signs")));
    }
    check_kinds(&tokens)?;
    Ok(tokens)
}

/// Characters that look like others, or like nothing.
fn is_deceptive(c: char) -> bool {
    let is_blank = matches!(c, ' ' | '\t' | '\n' | '\r');
    let is_format = matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    );
    !is_blank && (c.is_control() || c.is_whitespace() || is_format)
}

fn check_kinds(tokens: &[TokenWithSpan]) -> Result<(), Refusal> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        if !may_be_there(&token.token) {
            return Err(Refusal::invalid("the statement has a sign or a kind of quotes that is not allowed"));
        }
        match token.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > NESTING_MAX {
            return Err(Refusal::invalid(format!("parentheses nest deeper than {NESTING_MAX}")));
        }
        // The parser follows chains of these by recursion that it does not count.
        let next = tokens.get(at + 1).map(|next| &next.token);
        let is_chain = match keyword(&token.token) {
            Keyword::ARRAY | Keyword::STRUCT | Keyword::MAP => next == Some(&Token::Lt),
            Keyword::INTERVAL => next.map(keyword) == Some(Keyword::INTERVAL),
            _ => false,
        };
        if is_chain {
            return Err(Refusal::invalid("a type or an interval is nested"));
        }
    }
    let begins = tokens.iter().find(|token| token.token != Token::LParen).map(|token| keyword(&token.token));
    match begins {
        Some(Keyword::SELECT | Keyword::WITH) => Ok(()),
        Some(Keyword::TABLE | Keyword::VALUES) => {
            Err(Refusal::invalid("a statement starts with SELECT or WITH"))
        }
        _ => Err(Refusal::invalid("only a SELECT can be run here")),
    }
}

fn keyword(token: &Token) -> Keyword {
    match token {
        Token::Word(word) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    }
}

fn may_be_there(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(word.quote_style, None | Some('"')),
        // `L` after a number, as in Java.
        Token::Number(_, is_long) => !is_long,
        Token::SingleQuotedString(_) | Token::Placeholder(_) | Token::EOF => true,
        Token::Comma | Token::Period | Token::SemiColon | Token::DoubleColon => true,
        Token::LParen | Token::RParen | Token::LBracket | Token::RBracket => true,
        Token::Eq | Token::Neq | Token::Lt | Token::Gt | Token::LtEq | Token::GtEq => true,
        Token::Plus | Token::Minus | Token::Mul | Token::Div | Token::Mod | Token::StringConcat => true,
        Token::Arrow | Token::LongArrow | Token::HashArrow | Token::HashLongArrow => true,
        Token::AtArrow | Token::ArrowAt | Token::Question | Token::QuestionAnd | Token::QuestionPipe => true,
        _ => false,
    }
}
