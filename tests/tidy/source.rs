//! Finds the files and separates code from comments, literals and tests.

use std::path::{Path, PathBuf};

/// One file of the tree.
pub(crate) struct File {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    /// As it is.
    pub(crate) text: String,
    /// For Rust: without comments, literals and `#[cfg(test)]` modules, line for line. Otherwise empty.
    pub(crate) code: String,
}

/// A selection of the tree.
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Folders that hold nothing of ours: builds, downloads, running data.
const SKIPPED_FOLDERS: &[&str] =
    &[".git", "target", "artifacts", "coverage", "node_modules", ".raystream", "corpus"];
/// Written by other programs, or by other people.
const SKIPPED_FILES: &[&str] = &["Cargo.lock", "LICENSE", "messages_generated.rs"];
/// What is read as text at all.
const EXTENSIONS: &[&str] =
    &["rs", "toml", "md", "sql", "fbs", "sh", "py", "ts", "js", "json", "txt", "yml", "yaml"];
/// Text files without an extension.
const NAMES: &[&str] = &["Makefile", "run", "setup", ".gitignore"];

impl Tree {
    /// All text files of ours.
    pub(crate) fn everything() -> Tree {
        Tree::select(".", |path| {
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            EXTENSIONS.contains(&extension) || NAMES.contains(&name)
        })
    }

    /// The Rust files below a folder.
    pub(crate) fn rust(folder: &str) -> Tree {
        Tree::select(folder, |path| path.extension().is_some_and(|e| e == "rs"))
    }

    /// The pages of the specification.
    pub(crate) fn specification() -> Tree {
        Tree::select("proto-spec", |path| path.extension().is_some_and(|e| e == "md"))
    }

    fn select(folder: &str, wanted: impl Fn(&Path) -> bool) -> Tree {
        let mut files = Vec::new();
        let mut folders = vec![root().join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
                let path = entry.expect("a folder can be listed").path();
                let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
                if path.is_dir() {
                    if !SKIPPED_FOLDERS.contains(&name.as_str()) {
                        folders.push(path);
                    }
                } else if wanted(&path) && !SKIPPED_FILES.contains(&name.as_str()) {
                    files.push(File::read(&path));
                }
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        assert!(!files.is_empty(), "no file was found below {folder}: the rule would look at nothing");
        Tree { files }
    }
}

impl File {
    fn read(path: &Path) -> File {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let relative = path.strip_prefix(root()).expect("the walk starts at the root");
        let relative = relative.to_string_lossy().replace('\\', "/").trim_start_matches("./").to_owned();
        let code = if relative.ends_with(".rs") { code_of(&relative, &text) } else { String::new() };
        File { path: relative, text, code }
    }
}

/// The code of a Rust file: comments and literals blanked, test modules blanked, a file of tests empty.
pub(crate) fn code_of(path: &str, text: &str) -> String {
    if path.ends_with("/tests.rs") || (path.starts_with("src/") && path.contains("/tests/")) {
        return String::new();
    }
    without_tests(&blank_literals(text))
}

/// Replaces comments, strings and characters by spaces; line breaks stay, so that line numbers hold.
pub(crate) fn blank_literals(text: &str) -> String {
    let source: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < source.len() {
        let end = literal_end(&source, at);
        if end > at {
            out.extend(source[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            out.push(source[at]);
            at += 1;
        }
    }
    out
}

/// Where the comment or literal that starts at `at` ends; `at` itself when none starts there.
fn literal_end(source: &[char], at: usize) -> usize {
    let next = |n: usize| source.get(at + n).copied().unwrap_or('\0');
    let in_word = at > 0 && (source[at - 1].is_alphanumeric() || source[at - 1] == '_');
    match source[at] {
        '/' if next(1) == '/' => (at..source.len()).find(|n| source[*n] == '\n').unwrap_or(source.len()),
        '/' if next(1) == '*' => block_comment_end(source, at),
        '"' => string_end(source, at + 1),
        'r' if !in_word || source[at - 1] == 'b' => raw_string_end(source, at),
        '\'' if next(1) == '\\' => {
            (at + 3..source.len()).find(|n| source[*n] == '\'').map_or(source.len(), |n| n + 1)
        }
        '\'' if next(2) == '\'' => at + 3,
        _ => at,
    }
}

fn block_comment_end(source: &[char], at: usize) -> usize {
    let mut depth = 0_usize;
    let mut n = at;
    while n + 1 < source.len() {
        match (source[n], source[n + 1]) {
            ('/', '*') => {
                depth += 1;
                n += 2;
            }
            ('*', '/') => {
                depth -= 1;
                n += 2;
                if depth == 0 {
                    return n;
                }
            }
            _ => n += 1,
        }
    }
    source.len()
}

fn string_end(source: &[char], start: usize) -> usize {
    let mut n = start;
    while n < source.len() {
        match source[n] {
            '\\' => n += 2,
            '"' => return n + 1,
            _ => n += 1,
        }
    }
    source.len()
}

fn raw_string_end(source: &[char], at: usize) -> usize {
    let hashes = source[at + 1..].iter().take_while(|c| **c == '#').count();
    let quote = at + 1 + hashes;
    if source.get(quote) != Some(&'"') {
        return at;
    }
    (quote + 1..source.len())
        .find(|n| {
            source[*n] == '"' && source[n + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
        })
        .map_or(source.len(), |n| n + 1 + hashes)
}

/// Blanks every item that follows `#[cfg(test)]`, up to its closing brace or semicolon.
pub(crate) fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(start) = out.find("#[cfg(test)]") {
        let mut depth = 0_usize;
        let mut end = out.len();
        for (offset, byte) in out.bytes().enumerate().skip(start) {
            match byte {
                b'{' => depth += 1,
                b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && (byte == b'}' || byte == b';') {
                end = offset + 1;
                break;
            }
        }
        let blank: String = out[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..end, &blank);
    }
    out
}

/// Whether `word` stands at `offset` as a word of its own (not a part of a longer name).
pub(crate) fn is_word(code: &str, offset: usize, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    !code[..offset].chars().next_back().is_some_and(part)
        && (!word.ends_with(part) || !code[offset + word.len()..].chars().next().is_some_and(part))
}

/// The number of the line that holds `offset`, counted from 1.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

#[test]
fn comments_literals_and_tests_are_not_code() {
    let text = "let a = \"Instant::now\"; // Instant::now\n/* x /* Instant::now */ */ let b = r#\"tokio::spawn\"#;\n\
                let c = '\"'; let d: &'static str = b\"rand::\"; let e = '\\'';\n\
                #[cfg(test)]\nmod tests {\n    fn f() { getrandom(); }\n}\nfn after() {}\n";
    let code = code_of("src/x.rs", text);
    for word in ["Instant", "spawn", "rand", "getrandom"] {
        assert!(!code.contains(word), "{word} is left in {code}");
    }
    for word in ["let a", "let b", "let c", "'static str", "let e", "fn after"] {
        assert!(code.contains(word), "{word} is gone from {code}");
    }
    assert_eq!(code.lines().count(), text.lines().count());
    assert!(code_of("src/x/tests.rs", "fn a() {}").is_empty());
}
