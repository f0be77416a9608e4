//! What a schema can cost: how much of it is looked at for one value of a document, whatever the document is.
//!
//! A schema is a program that others write, and some are as expensive as programs can be: `allOf` twice of a definition that
//! has `allOf` twice of the next one, thirty times, or of the one around it. So the schema is followed before it is taken:
//! which of its parts look at one and the same value together, for every way down into a document. These sets repeat
//! after a while, or they grow beyond the limit and the schema is refused.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::{Map, Value};

use super::pattern;

/// The most that may be looked at for one value. Each part of a schema counts for as many values as it has itself: its
/// keywords, names, `enum` and the like.
pub(super) const WEIGHT_MAX: u64 = 4_096;

/// How many parts may be inside one another for one value (`$ref`, `allOf`, ..). The checker calls itself for each, and that
/// for each of the hundred levels of a document, on the stack of a thread.
pub(super) const CHAIN_MAX: usize = 12;

/// The most patterns of a schema: each is compiled and has a cache.
const PATTERNS_MAX: usize = 64;

/// The most steps of following a schema: some milliseconds.
const STEPS_MAX: usize = 400_000;

/// Keywords that are refused, and why.
const REFUSED: &[(&str, &str)] = &[
    ("$dynamicRef", "what it leads to is known only with the document"),
    ("$recursiveRef", "what it leads to is known only with the document"),
    ("$vocabulary", "it belongs to schemas of schemas"),
    ("unevaluatedProperties", "its cost has no bound that is known before; `additionalProperties` has one"),
    ("unevaluatedItems", "its cost has no bound that is known before; `items` has one"),
];

/// A part of a schema, by what it applies other parts to.
#[derive(Debug, Default)]
struct Part<'a> {
    weight: u64,
    /// The same value.
    same: Vec<usize>,
    /// The value of a name.
    named: HashMap<&'a str, usize>,
    /// The value of every name.
    of_patterns: Vec<usize>,
    /// The value of a name that is not in `named`.
    of_rest: Option<usize>,
    /// The names themselves.
    names: Option<usize>,
    /// The element at a place.
    places: Vec<usize>,
    /// The elements behind these places.
    of_items: Vec<usize>,
    /// Every element.
    of_elements: Option<usize>,
}

/// What a schema costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    /// What is looked at for one value at most.
    pub(super) weight: u64,
    /// Whether it has choices, of which each fault is a list of the faults of every alternative.
    pub(super) has_choices: bool,
}

/// Follows a schema.
///
/// # Errors
/// A sentence about what is refused, and where it is.
pub(super) fn weigh(schema: &Value) -> Result<Cost, String> {
    if let Some((at, keyword)) = other_document(children(schema)) {
        return Err(format!("#{at} has `{keyword}`: a schema is one document here"));
    }
    let mut reader = Reader {
        root: schema,
        parts: Vec::new(),
        known: HashMap::new(),
        unread: Vec::new(),
        patterns: 0,
        has_choices: false,
    };
    reader.part(schema, "#".to_owned());
    while let Some((value, place, at)) = reader.unread.pop() {
        let part = reader.read(value, &at)?;
        reader.parts[place] = part;
    }
    let weight = Walk { parts: &reader.parts, steps: 0, heaviest: 0 }.walk()?;
    Ok(Cost { weight, has_choices: reader.has_choices })
}

/// Reads the parts that a schema is made of, each once.
struct Reader<'a> {
    root: &'a Value,
    parts: Vec<Part<'a>>,
    known: HashMap<*const Value, usize>,
    unread: Vec<(&'a Value, usize, String)>,
    patterns: usize,
    has_choices: bool,
}

impl<'a> Reader<'a> {
    /// The place of a part, which is read later.
    fn part(&mut self, value: &'a Value, at: String) -> usize {
        *self.known.entry(std::ptr::from_ref(value)).or_insert_with(|| {
            self.parts.push(Part::default());
            self.unread.push((value, self.parts.len() - 1, at));
            self.parts.len() - 1
        })
    }

    fn read(&mut self, value: &'a Value, at: &str) -> Result<Part<'a>, String> {
        let keywords = match value {
            Value::Bool(_) => return Ok(Part { weight: 1, ..Part::default() }),
            Value::Object(keywords) => keywords,
            _ => return Err(format!("{at} is no schema: that is an object, true or false")),
        };
        let mut part = Part { weight: 1, ..Part::default() };
        for (keyword, value) in keywords {
            self.keyword(&mut part, keyword, value, at)?;
        }
        Ok(part)
    }

    fn keyword(
        &mut self,
        part: &mut Part<'a>,
        keyword: &'a str,
        value: &'a Value,
        at: &str,
    ) -> Result<(), String> {
        if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == keyword) {
            return Err(format!("{at} has `{keyword}`, which is not taken here: {why}"));
        }
        let here = || format!("{at}/{keyword}");
        match keyword {
            "id" if at != "#" && value.is_string() => {
                return Err(format!("{at} has `{keyword}`: a schema is one document here"));
            }
            "$ref" => {
                let target = self.target(value, at)?;
                part.same.push(target);
            }
            "allOf" | "anyOf" | "oneOf" => {
                self.has_choices |= keyword != "allOf";
                let parts = self.list(value, &here());
                part.same.extend(parts);
            }
            "not" | "if" | "then" | "else" => part.same.push(self.part(value, here())),
            "dependentSchemas" | "dependencies" => {
                for (name, value) in members(value) {
                    match value {
                        Value::Array(names) => part.weight += count(names.len()),
                        schema => part.same.push(self.part(schema, format!("{}/{name}", here()))),
                    }
                }
            }
            "properties" => {
                for (name, value) in members(value) {
                    let place = self.part(value, format!("{}/{name}", here()));
                    part.named.insert(name, place);
                    part.weight += 1;
                }
            }
            "patternProperties" => {
                for (pattern, value) in members(value) {
                    part.weight += self.pattern(pattern, &here)?;
                    let place = self.part(value, format!("{}/{pattern}", here()));
                    part.of_patterns.push(place);
                }
            }
            "additionalProperties" => part.of_rest = Some(self.part(value, here())),
            "propertyNames" => part.names = Some(self.part(value, here())),
            "prefixItems" => part.places.extend(self.list(value, &here())),
            "items" if value.is_array() => part.places.extend(self.list(value, &here())),
            "items" | "additionalItems" => part.of_items.push(self.part(value, here())),
            "contains" => part.of_elements = Some(self.part(value, here())),
            "pattern" => part.weight += self.pattern(value.as_str().unwrap_or_default(), &here)?,
            "format" if value == "regex" => {
                return Err(format!("{at} has the format `regex`, which is not checked here"));
            }
            // Only what is referred to counts.
            "$defs" | "definitions" => {}
            _ => part.weight += values(value),
        }
        Ok(())
    }

    fn list(&mut self, value: &'a Value, at: &str) -> Vec<usize> {
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().enumerate().map(|(n, item)| self.part(item, format!("{at}/{n}"))).collect()
    }

    /// What a `$ref` leads to, in the same document.
    fn target(&mut self, reference: &Value, at: &str) -> Result<usize, String> {
        let text = reference.as_str().unwrap_or_default();
        let pointer = text.strip_prefix('#').filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let Some(pointer) = pointer.filter(|pointer| !pointer.contains('%')) else {
            return Err(format!(
                "{at}/$ref: a reference is `#` or `#/..` here, into the same document and without percent signs"
            ));
        };
        let root = self.root;
        let target = root.pointer(pointer).ok_or_else(|| format!("{at}/$ref leads nowhere"))?;
        Ok(self.part(target, text.to_owned()))
    }

    fn pattern(&mut self, pattern: &str, at: &dyn Fn() -> String) -> Result<u64, String> {
        self.patterns += 1;
        if self.patterns > PATTERNS_MAX {
            return Err(format!("it has more than {PATTERNS_MAX} patterns"));
        }
        pattern::weigh(pattern).ok_or_else(|| {
            format!(
                "{}: it is no pattern, or too large a one, or one that needs backtracking: (?=..), \\1",
                at()
            )
        })
    }
}

/// The members of an object; of anything else none, which the schema of schemas refuses.
fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter).map(|(name, value)| (name.as_str(), value))
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// What is directly inside of a value, by its name or place.
fn children(value: &Value) -> Box<dyn Iterator<Item = (String, &Value)> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter().enumerate().map(|(at, item)| (at.to_string(), item))),
        Value::Object(members) => Box::new(members.iter().map(|(name, value)| (name.clone(), value))),
        _ => Box::new(std::iter::empty()),
    }
}

/// Where something makes a document of its own of a part, and by which keyword.
///
/// Whoever compiles a schema files such a part under its name, read or not, and `#` means it for every reference inside of it,
/// also behind a pointer that only passes through it. So a reference could lead to something else there than it does here.
fn other_document<'a>(
    mut parts: Box<dyn Iterator<Item = (String, &'a Value)> + 'a>,
) -> Option<(String, &'static str)> {
    parts.find_map(|(name, value)| {
        let named = ["$id", "$schema"].into_iter().find(|word| value.get(word).is_some_and(Value::is_string));
        let found = match named {
            Some(keyword) => Some((String::new(), keyword)),
            None => other_document(children(value)),
        };
        found.map(|(below, keyword)| (format!("/{name}{below}"), keyword))
    })
}

/// How many values a value is made of.
pub(super) fn values(value: &Value) -> u64 {
    match value {
        Value::Array(items) => 1 + items.iter().map(values).sum::<u64>(),
        Value::Object(members) => 1 + members.values().map(values).sum::<u64>(),
        _ => 1,
    }
}

/// Parts that look at one value, each as often as it does.
type Together = BTreeMap<usize, u64>;

/// Follows the parts down into documents.
struct Walk<'a> {
    parts: &'a [Part<'a>],
    steps: usize,
    heaviest: u64,
}

impl Walk<'_> {
    fn walk(mut self) -> Result<u64, String> {
        let first = self.closed(&Together::from([(0, 1)]))?;
        let mut seen = HashSet::from([first.clone()]);
        let mut ahead = vec![first];
        while let Some(together) = ahead.pop() {
            for below in self.below(&together)? {
                let below = self.closed(&below)?;
                if seen.insert(below.clone()) {
                    ahead.push(below);
                }
            }
        }
        Ok(self.heaviest)
    }

    fn step(&mut self, steps: usize) -> Result<(), String> {
        self.steps += steps;
        if self.steps > STEPS_MAX { Err("it is too intricate to be followed".to_owned()) } else { Ok(()) }
    }

    /// Adds what these parts apply to the same value.
    fn closed(&mut self, together: &Together) -> Result<Together, String> {
        let (mut all, mut weight) = (Together::new(), 0_u64);
        let mut ahead: Vec<(usize, u64, usize)> =
            together.iter().map(|(part, times)| (*part, *times, 0)).collect();
        while let Some((place, times, depth)) = ahead.pop() {
            self.step(1)?;
            if depth > CHAIN_MAX {
                return Err(format!(
                    "more than {CHAIN_MAX} of its parts are inside one another for one value, or they go in a circle"
                ));
            }
            let part = &self.parts[place];
            weight = weight.saturating_add(part.weight.saturating_mul(times));
            if weight > WEIGHT_MAX {
                return Err(format!(
                    "more than {WEIGHT_MAX} values of it are looked at for one value of a document"
                ));
            }
            *all.entry(place).or_default() += times;
            ahead.extend(part.same.iter().map(|same| (*same, times, depth + 1)));
        }
        self.heaviest = self.heaviest.max(weight);
        Ok(all)
    }

    /// What looks at the values inside of one, for each way in which that can be another set.
    fn below(&mut self, together: &Together) -> Result<Vec<Together>, String> {
        let parts: Vec<(&Part<'_>, u64)> =
            together.iter().map(|(place, times)| (&self.parts[*place], *times)).collect();
        let names: BTreeSet<&str> = parts.iter().flat_map(|(part, _)| part.named.keys().copied()).collect();
        let places = parts.iter().map(|(part, _)| part.places.len()).max().unwrap_or_default();
        self.step((names.len() + places + 3) * parts.len())?;
        let mut all = Vec::with_capacity(names.len() + places + 3);
        // The last one of each is any other name, any other place.
        for name in names.into_iter().map(Some).chain([None]) {
            all.push(gather(&parts, |part| {
                let named = name.and_then(|name| part.named.get(name));
                let rest = if named.is_some() { None } else { part.of_rest };
                named.copied().into_iter().chain(part.of_patterns.iter().copied()).chain(rest).collect()
            }));
        }
        for place in 0..=places {
            all.push(gather(&parts, |part| match part.places.get(place) {
                Some(at) => std::iter::once(*at).chain(part.of_elements).collect(),
                None => part.of_items.iter().copied().chain(part.of_elements).collect(),
            }));
        }
        all.push(gather(&parts, |part| part.names.into_iter().collect()));
        all.retain(|together| !together.is_empty());
        Ok(all)
    }
}

fn gather<'p>(parts: &[(&Part<'p>, u64)], which: impl Fn(&Part<'p>) -> Vec<usize>) -> Together {
    let mut all = Together::new();
    for (part, times) in parts {
        for place in which(part) {
            *all.entry(place).or_default() += times;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(schema: &Value) -> String {
        weigh(schema).expect_err("it is refused")
    }

    /// `allOf` twice of the next one, `n` times.
    fn doubling(n: usize) -> Value {
        let mut defs = Map::new();
        for at in 0..n {
            let next = json!({ "$ref": format!("#/$defs/d{}", at + 1) });
            defs.insert(format!("d{at}"), json!({ "allOf": [next, next] }));
        }
        defs.insert(format!("d{n}"), json!({ "type": "object" }));
        json!({ "$defs": defs, "$ref": "#/$defs/d0" })
    }

    #[test]
    fn what_schemas_usually_are_is_light() {
        let tree = json!({
            "type": "object", "required": ["name"], "additionalProperties": false,
            "properties": {
                "name": { "type": "string", "pattern": "^[a-z]+$" },
                "left": { "$ref": "#" }, "right": { "$ref": "#" },
                "tags": { "type": "array", "items": { "enum": ["a", "b"] }, "contains": { "const": "a" } },
            },
        });
        // A reference, and behind it the root: itself, type, required (2), four names.
        assert_eq!(weigh(&tree), Ok(Cost { weight: 9, has_choices: false }));
        assert_eq!(weigh(&json!(true)).map(|cost| cost.weight), Ok(1));
        assert_eq!(weigh(&doubling(3)).map(|cost| cost.weight > 8), Ok(true));
        assert_eq!(weigh(&json!({ "items": { "anyOf": [true] } })).map(|cost| cost.has_choices), Ok(true));
    }

    #[test]
    fn what_multiplies_is_refused_with_and_without_recursion() {
        assert!(refusal(&doubling(8)).contains("inside one another"));
        // Twice for each level of the document: 2^n at depth n.
        let twice = json!({ "properties": { "a": { "allOf": [{ "$ref": "#" }, { "$ref": "#" }] } } });
        assert!(refusal(&twice).contains("looked at for one value"));
        let twice =
            json!({ "properties": { "a": { "$ref": "#" } }, "patternProperties": { "^a": { "$ref": "#" } } });
        assert!(refusal(&twice).contains("looked at for one value"));
        let twice = json!({ "items": { "$ref": "#" }, "contains": { "$ref": "#" } });
        assert!(refusal(&twice).contains("looked at for one value"));
        // Either of two names is one of them, not both.
        let once = json!({ "properties": { "a": { "$ref": "#" } }, "additionalProperties": { "$ref": "#" } });
        assert!(weigh(&once).is_ok());
        let enumeration: Vec<u64> = (0..5_000).collect();
        assert!(refusal(&json!({ "items": { "enum": enumeration } })).contains("4096"));
    }

    #[test]
    fn circles_and_strange_references_are_refused() {
        assert!(refusal(&json!({ "$ref": "#" })).contains("circle"));
        assert!(refusal(&json!({ "anyOf": [{ "not": { "$ref": "#/anyOf/0" } }] })).contains("circle"));
        for reference in ["http://127.0.0.1/x", "file:///etc/passwd", "other.json", "#name", "#/a%20b"] {
            assert!(refusal(&json!({ "$ref": reference })).contains("#/.."), "{reference}");
        }
        assert!(refusal(&json!({ "properties": { "a": { "$ref": "#/nowhere" } } })).contains("nowhere"));
        assert!(refusal(&json!({ "properties": { "a": { "$id": "x" } } })).contains("one document"));
        assert!(refusal(&json!({ "items": 5 })).contains("#/items is no schema"));
        for keyword in ["$dynamicRef", "unevaluatedProperties"] {
            assert!(refusal(&json!({ keyword: "#" })).contains(keyword));
        }
        assert!(refusal(&json!({ "properties": { "a": { "id": "x" } } })).contains("one document"));
        // A property may have any name.
        assert!(weigh(&json!({ "properties": { "$id": { "type": "string" }, "$ref": true } })).is_ok());
    }

    /// A reference that passes through `around`, which nothing reads, to one that means another `d0` inside of it.
    fn behind(around: &Value) -> Value {
        let mut around = around.clone();
        let inside = doubling(40);
        around["$defs"] = inside["$defs"].clone();
        around["properties"] = json!({ "b": { "$ref": "#/$defs/d0" } });
        json!({ "$defs": { "d0": true, "a": around }, "$ref": "#/$defs/a/properties/b" })
    }

    #[test]
    fn what_makes_a_document_of_its_own_of_a_part_is_refused_wherever_it_is() {
        // It would look light: three parts and nothing that multiplies.
        assert_eq!(weigh(&behind(&json!({}))).map(|cost| cost.weight), Ok(3));
        for around in [
            json!({ "$id": "urn:x" }),
            json!({ "$id": "#x" }),
            json!({ "$schema": "http://json-schema.org/draft-04/schema#", "id": "urn:x" }),
        ] {
            let why = refusal(&behind(&around));
            assert!(why.contains("#/$defs/a has") && why.contains("one document"), "{why}");
        }
        // One that takes the name of the whole, which nothing leads through.
        let double =
            json!({ "$id": "urn:x", "$defs": { "e": { "$id": "urn:x", "$defs": doubling(40)["$defs"] } } });
        assert!(refusal(&double).contains("#/$defs/e has `$id`"));
        // In what is read as no schema at all, too: a reference leads everywhere.
        let data = json!({ "enum": [{ "a": [{ "$id": "urn:x" }] }] });
        assert!(refusal(&data).contains("#/enum/0/a/0 has `$id`"));
        assert!(weigh(&json!({ "$id": "urn:x", "default": { "id": "x" } })).is_ok());
    }

    #[test]
    fn a_schema_that_is_hard_to_follow_is_refused_soon() {
        let patterns: Map<String, Value> = (0..100).map(|n| (n.to_string(), json!(true))).collect();
        assert!(refusal(&json!({ "patternProperties": patterns })).contains("patterns"));
        // Each name leads to one of two definitions at each level: many sets of parts.
        let mut defs = Map::new();
        for n in 0..60 {
            let go = |to: usize| json!({ "$ref": format!("#/$defs/d{}", to % 60) });
            let (one, two) = (go(n * 7 + 1), go(n * 11 + 5));
            defs.insert(
                format!("d{n}"),
                json!({
                    "properties": { "a": { "anyOf": [one, two] }, "b": two, "c": one },
                }),
            );
        }
        let hard = json!({ "$defs": defs, "$ref": "#/$defs/d0" });
        let why = refusal(&hard);
        assert!(why.contains("intricate") || why.contains("looked at"), "{why}");
    }
}
