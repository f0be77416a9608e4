//! Every rule of the specification has an id, an error code and a test, and the list of tests is true.
//!
//! A rule is a list item `- [REC-3] ... Error: CODE.` where CODE is of the registry, or `none` with a reason in brackets.
//! `proto-spec/conformance.toml` names the tests of each rule.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Tree, line_of};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Mapping {
    /// Rule to names of test functions.
    tests: BTreeMap<String, Vec<String>>,
    /// Rules that no test of this repository can show, with the reason.
    #[serde(default)]
    untestable: BTreeMap<String, String>,
}

#[derive(serde::Deserialize)]
struct Codes {
    code: Vec<Code>,
}

#[derive(serde::Deserialize)]
struct Code {
    name: String,
}

/// One rule of the specification.
struct Rule {
    id: String,
    place: String,
    text: String,
}

/// All findings: in the pages, in the list, and between them.
pub(crate) fn check(specification: &Tree, rust: &Tree, mapping: &str, codes: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let mut rules = Vec::new();
    for page in &specification.files {
        rules.extend(rules_of(&page.path, &page.text, &mut findings));
    }
    let codes: Vec<String> = match toml::from_str::<Codes>(codes) {
        Ok(codes) => codes.code.into_iter().map(|code| code.name).collect(),
        Err(error) => return vec![format!("error_codes.toml: {error}")],
    };
    let mapping: Mapping = match toml::from_str(mapping) {
        Ok(mapping) => mapping,
        Err(error) => return vec![format!("conformance.toml: {error}")],
    };
    let mut tests: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in &rust.files {
        for name in tests_of(&file.text) {
            tests.entry(name).or_default().push(file.path.clone());
        }
    }
    check_rules(&rules, &codes, &mapping, &mut findings);
    check_tests(&rules, &tests, &mapping, &mut findings);
    findings
}

fn check_rules(rules: &[Rule], codes: &[String], mapping: &Mapping, findings: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for rule in rules {
        if !seen.insert(&rule.id) {
            findings.push(format!("{}: the id {} is used twice", rule.place, rule.id));
        }
        if let Err(problem) = error_code(&rule.text, codes) {
            findings.push(format!("{}: {} {problem}", rule.place, rule.id));
        }
        if mapping.tests.contains_key(&rule.id) == mapping.untestable.contains_key(&rule.id) {
            findings.push(format!("{}: {} must be in one list of conformance.toml", rule.place, rule.id));
        }
    }
}

fn check_tests(
    rules: &[Rule],
    tests: &BTreeMap<String, Vec<String>>,
    mapping: &Mapping,
    findings: &mut Vec<String>,
) {
    for (id, names) in &mapping.tests {
        if !rules.iter().any(|rule| rule.id == *id) {
            findings.push(format!("conformance.toml: {id} is no rule of the specification"));
        }
        if names.is_empty() {
            findings.push(format!("conformance.toml: {id} has no test"));
        }
        for name in names {
            match tests.get(name).map(Vec::as_slice) {
                None => findings.push(format!("conformance.toml: {id}: there is no test {name}")),
                Some([_]) => {}
                Some(files) => {
                    findings.push(format!("conformance.toml: {id}: {name} is in {}", files.join(", ")))
                }
            }
        }
    }
    for (id, reason) in &mapping.untestable {
        if !rules.iter().any(|rule| rule.id == *id) || reason.len() < 20 {
            findings.push(format!("conformance.toml: {id}: no such rule, or no reason"));
        }
    }
}

/// The rules of a page; a MUST outside of a rule is a finding.
fn rules_of(path: &str, text: &str, findings: &mut Vec<String>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut inside = false;
    let mut fenced = false;
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let place = format!("{path}:{}", line_of(text, offset));
        offset += line.len();
        if line.starts_with("```") {
            fenced = !fenced;
        }
        if let Some(id) = id_of(line) {
            rules.push(Rule { id, place, text: line.to_owned() });
            inside = true;
        } else if inside && line.starts_with("  ") {
            let rule = rules.last_mut().expect("inside means that a rule was pushed");
            rule.text.push_str(line);
        } else {
            inside = false;
            if !fenced && line.split(|c: char| !c.is_alphanumeric()).any(|word| word == "MUST") {
                findings.push(format!("{place}: a MUST without an id"));
            }
        }
    }
    rules
}

/// `- [REC-3] ...` gives `REC-3`.
fn id_of(line: &str) -> Option<String> {
    let (id, _) = line.strip_prefix("- [")?.split_once("] ")?;
    let (letters, number) = id.split_once('-')?;
    let fits = !letters.is_empty()
        && letters.chars().all(|c| c.is_ascii_uppercase())
        && !number.is_empty()
        && number.chars().all(|c| c.is_ascii_digit());
    fits.then(|| id.to_owned())
}

fn error_code(rule: &str, codes: &[String]) -> Result<(), String> {
    let rule = rule.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((_, stated)) = rule.rsplit_once("Error: ") else {
        return Err("states no error code".to_owned());
    };
    let stated = stated.trim_end_matches('.');
    if let Some(reason) = stated.strip_prefix("none (") {
        return if reason.len() > 8 { Ok(()) } else { Err("has no code and no reason".to_owned()) };
    }
    let names = stated.split(['(', ';']).next().unwrap_or_default();
    for name in names.split(" or ").map(str::trim) {
        if !codes.iter().any(|code| code == name) {
            return Err(format!("states {name:?}, which is no error code"));
        }
    }
    Ok(())
}

/// Names of the functions under an attribute `#[test]` or `#[tokio::test..]`.
fn tests_of(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut attributed = false;
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            attributed = true;
        }
        let function = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "));
        if let Some(function) = function {
            if attributed {
                names.push(function.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            }
            attributed = false;
        }
    }
    names
}

#[test]
fn a_rule_without_code_or_test_is_found() {
    use super::source::File;
    let tree = |path: &str, text: &str| Tree {
        files: vec![File { path: path.to_owned(), text: text.to_owned(), code: String::new() }],
    };
    let rust = tree(
        "tests/a.rs",
        "#[test]\nfn splits() {}\n\n#[tokio::test]\nasync fn waits() {}\nfn helper() {}\n",
    );
    let codes = "[[code]]\nname = \"PROTOCOL_ERROR\"\n";
    let run = |page: &str, list: &str| check(&tree("proto-spec/a.md", page), &rust, list, codes);
    let good = "- [REC-1] A sender MUST split.\n  It may wait. Error: PROTOCOL_ERROR.\n";
    assert_eq!(run(good, "[tests]\nREC-1 = [\"splits\", \"waits\"]\n"), Vec::<String>::new());
    let bad = |page: &str, list: &str, word: &str| {
        let findings = run(page, list).join("\n");
        assert!(findings.contains(word), "{word:?} is not in {findings:?}");
    };
    bad("A sender MUST split.\n", "[tests]\n", "without an id");
    bad("- [REC-1] A sender MUST split.\n", "[tests]\nREC-1 = [\"splits\"]\n", "no error code");
    bad("- [REC-1] It MUST. Error: OOPS.\n", "[tests]\nREC-1 = [\"splits\"]\n", "OOPS");
    bad("- [REC-1] It MUST. Error: none ().\n", "[tests]\nREC-1 = [\"splits\"]\n", "no reason");
    bad(good, "[tests]\n", "must be in one list");
    bad(good, "[tests]\nREC-1 = []\n", "has no test");
    bad(good, "[tests]\nREC-1 = [\"helper\"]\n", "there is no test helper");
    bad(good, "[tests]\nREC-1 = [\"splits\"]\nREC-2 = [\"splits\"]\n", "REC-2 is no rule");
    bad(good, "[tests]\n[untestable]\nREC-1 = \"short\"\n", "no reason");
    bad(&format!("{good}{good}"), "[tests]\nREC-1 = [\"splits\"]\n", "used twice");
    bad("text\n\n- [REC-1] A MUST. Error: PROTOCOL_ERROR.\n\nThen it MUST.\n", "[tests]\n", "a.md:5");
}
