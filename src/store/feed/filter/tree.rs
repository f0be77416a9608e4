//! A JSON text as a flat list of its values, in the order of the text. The parser does not recurse: a document may be
//! nested as deeply as Postgres allows.

use std::ops::Range;

/// A part of the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn new(range: Range<usize>) -> Option<Self> {
        Some(Self { start: u32::try_from(range.start).ok()?, end: u32::try_from(range.end).ok()? })
    }

    /// The part.
    pub(super) fn of(self, text: &str) -> &str {
        let bound = |offset| usize::try_from(offset).expect("32 bits fit");
        &text[bound(self.start)..bound(self.end)]
    }
}

/// The inside of a string, still escaped.
#[derive(Debug, Clone, Copy)]
pub(super) struct StringSpan {
    pub(super) span: Span,
    /// Whether it has a backslash.
    pub(super) escaped: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Number(Span),
    String(StringSpan),
    Array,
    Object,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// Its key, for a value of an object.
    pub(super) key: Option<StringSpan>,
    /// The index after its last descendant: that of its next sibling, when it has one.
    end: usize,
}

/// A parsed text. The root is node 0.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    depth: usize,
}

impl Tree {
    /// Reads one JSON value. `None` when the text is not JSON, or has 4 GiB and more.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Parser { text, bytes: text.as_bytes(), at: 0, tree: Self { nodes: Vec::new(), depth: 0 } }.run()
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// How deep containers are nested.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    pub(super) fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// The indices of a container's values.
    pub(super) fn children(&self, parent: usize) -> impl Iterator<Item = usize> + '_ {
        let end = self.nodes[parent].end;
        let mut next = parent + 1;
        std::iter::from_fn(move || {
            let child = (next < end).then_some(next)?;
            next = self.nodes[child].end;
            Some(child)
        })
    }
}

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    tree: Tree,
}

impl Parser<'_> {
    fn run(mut self) -> Option<Tree> {
        // The containers that are open.
        let mut open: Vec<usize> = Vec::new();
        loop {
            let key = match open.last() {
                Some(parent) if matches!(self.tree.nodes[*parent].kind, Kind::Object) => Some(self.key()?),
                _ => None,
            };
            let index = self.tree.nodes.len();
            let kind = self.value()?;
            self.tree.nodes.push(Node { kind, key, end: index + 1 });
            if let Kind::Array | Kind::Object = kind {
                open.push(index);
                self.tree.depth = self.tree.depth.max(open.len());
                if !self.take(closing(kind)) {
                    continue;
                }
                self.close(&mut open);
            }
            // After a value: the next one, or the end of containers.
            loop {
                let Some(parent) = open.last() else {
                    self.space();
                    return (self.at == self.bytes.len()).then_some(self.tree);
                };
                if self.take(b',') {
                    break;
                }
                if !self.take(closing(self.tree.nodes[*parent].kind)) {
                    return None;
                }
                self.close(&mut open);
            }
        }
    }

    fn close(&mut self, open: &mut Vec<usize>) {
        let container = open.pop().expect("one is open");
        self.tree.nodes[container].end = self.tree.nodes.len();
    }

    fn key(&mut self) -> Option<StringSpan> {
        if !self.take(b'"') {
            return None;
        }
        let key = self.string()?;
        self.take(b':').then_some(key)
    }

    /// Reads a scalar, or the opening of a container.
    fn value(&mut self) -> Option<Kind> {
        self.space();
        match self.bytes.get(self.at)? {
            b'{' => self.skip(1, Kind::Object),
            b'[' => self.skip(1, Kind::Array),
            b'"' => {
                self.at += 1;
                self.string().map(Kind::String)
            }
            b'n' => self.word("null", Kind::Null),
            b't' => self.word("true", Kind::Bool(true)),
            b'f' => self.word("false", Kind::Bool(false)),
            _ => self.number(),
        }
    }

    fn skip(&mut self, count: usize, kind: Kind) -> Option<Kind> {
        self.at += count;
        Some(kind)
    }

    fn word(&mut self, word: &str, kind: Kind) -> Option<Kind> {
        let found = self.bytes[self.at..].starts_with(word.as_bytes());
        if found { self.skip(word.len(), kind) } else { None }
    }

    fn number(&mut self) -> Option<Kind> {
        let start = self.at;
        self.literal(b'-');
        if !self.literal(b'0') {
            self.digits()?;
        }
        if self.literal(b'.') {
            self.digits()?;
        }
        if self.literal(b'e') || self.literal(b'E') {
            let _ = self.literal(b'+') || self.literal(b'-');
            self.digits()?;
        }
        Some(Kind::Number(Span::new(start..self.at)?))
    }

    /// One digit or more.
    fn digits(&mut self) -> Option<()> {
        let count = self.bytes[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        (count > 0).then_some(())
    }

    /// Reads a string whose opening quote was read.
    fn string(&mut self) -> Option<StringSpan> {
        let start = self.at;
        let mut escaped = false;
        loop {
            match self.bytes.get(self.at)? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.at += 2;
                }
                0..=0x1f => return None,
                _ => self.at += 1,
            }
        }
        let span = Span::new(start..self.at)?;
        self.at += 1;
        if escaped {
            super::contains::unescape(span.of(self.text))?;
        }
        Some(StringSpan { span, escaped })
    }

    /// Passes over a byte if it is the next one.
    fn literal(&mut self, byte: u8) -> bool {
        let found = self.bytes.get(self.at) == Some(&byte);
        if found {
            self.at += 1;
        }
        found
    }

    /// The same, after white space.
    fn take(&mut self, byte: u8) -> bool {
        self.space();
        self.literal(byte)
    }

    fn space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
}

fn closing(kind: Kind) -> u8 {
    if let Kind::Array = kind { b']' } else { b'}' }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Tree;

    #[test]
    fn knows_json_from_what_is_not() {
        for good in
            ["1", "-0.5e+7", " [ ] ", "{}", r#"{"a":[1,{"b":null}],"c":"\"x\\A"}"#, "[[],[{}]]", "true"]
        {
            assert!(Tree::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            " ",
            "[",
            "]",
            "[1",
            "[1,]",
            "[,1]",
            "{",
            "{1:2}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            "01",
            "1.",
            ".5",
            "1e",
            "-",
            "+1",
            "nul",
            "\"",
            "\"\\\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\ud800\"",
            "1 2",
            "[1}",
            "\"\n\"",
        ] {
            assert!(Tree::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let depth = 1_000_000;
        let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let tree = Tree::parse(&text).expect("balanced");
        assert_eq!((tree.len(), tree.depth()), (depth, depth));
    }

    proptest! {
        #[test]
        fn takes_what_serde_json_takes(text in r#"[\[\]{}:,"\\a0-9.eE+\-u \n]{0,12}|[\[{]{0,2}("a":)?[0-9.e-]{1,5}[}\]]{0,2}"#) {
            // serde_json reads numbers as f64 and refuses those too large for it; all else is one grammar.
            match serde_json::from_str::<serde_json::Value>(&text) {
                Ok(_) => prop_assert!(Tree::parse(&text).is_some()),
                Err(error) if error.to_string().starts_with("number out of range") => {}
                Err(_) => prop_assert!(Tree::parse(&text).is_none()),
            }
        }
    }
}
