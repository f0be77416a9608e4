use super::*;
use serde_json::json;

fn schema(value: &Value) -> JsonSchema {
    JsonSchema::parse(&Json::new(value.to_string())).expect("the schema of the test is one")
}

fn refusal(text: &str) -> String {
    match JsonSchema::parse(&Json::new(text.to_owned())) {
        Err(StoreError::InvalidInput(why)) => why,
        other => panic!("{text} is refused, not {other:?}"),
    }
}

fn misfits(schema: &JsonSchema, document: &Value) -> Misfits {
    match schema.check_now(&Json::new(document.to_string())) {
        Err(StoreError::Misfit(misfits)) => *misfits,
        other => panic!("{document} does not fit, not {other:?}"),
    }
}

fn pairs(misfits: &Misfits) -> Vec<(&str, &str)> {
    misfits.list.iter().map(|misfit| (&*misfit.path, &*misfit.keyword)).collect()
}

#[test]
fn a_fault_names_its_place_and_keyword_and_shows_no_value() {
    let person = schema(&json!({
        "type": "object", "required": ["name"], "additionalProperties": false,
        "properties": {
            "name": { "type": "string", "minLength": 1 },
            "born": { "type": "string", "format": "date" },
            "a/b~c": { "items": { "type": "integer", "maximum": 9 } },
        },
    }));
    let fits = Json::new(json!({ "name": "x", "born": "2000-02-29", "a/b~c": [1, 9.0] }).to_string());
    assert_eq!(person.check_now(&fits), Ok(()));
    let wrong = json!({ "born": "2001-02-29", "a/b~c": [1, "secret", 10], "other": 1 });
    let found = misfits(&person, &wrong);
    let mut places = pairs(&found);
    places.sort_unstable();
    let expected = [
        ("", "additionalProperties"),
        ("", "required"),
        ("/a~1b~0c/1", "type"),
        ("/a~1b~0c/2", "maximum"),
        ("/born", "format"),
    ];
    assert_eq!(places, expected);
    assert!(!found.more);
    assert!(found.list.iter().all(|misfit| !misfit.message.contains("secret")), "{found:?}");
    assert!(found.to_string().contains("the schema of its table: "), "{found}");
    let text = misfits(&person, &json!({ "name": "" })).to_string();
    assert!(text.contains("/name: ") && text.ends_with("(`minLength`)"), "{text}");
}

#[test]
fn of_many_faults_some_are_told() {
    let numbers = schema(&json!({ "items": { "type": "integer" } }));
    let many = misfits(&numbers, &json!(vec!["x"; 100]));
    assert_eq!((many.list.len(), many.more), (MISFITS_MAX, true));
    assert!(many.to_string().ends_with("and over 15 more"), "{many}");
    let names: serde_json::Map<String, Value> = (0..100).map(|n| (format!("name{n}"), json!(n))).collect();
    let long = misfits(&schema(&json!({ "additionalProperties": false })), &names.into());
    assert!(long.list[0].message.len() < 300, "{long}");
}

#[test]
fn of_a_long_document_the_first_fault_is_told_and_of_one_with_choices_that_there_is_one() {
    let mut numbers = vec![json!(1); 300_000];
    numbers[250_000] = json!("x");
    let numbers = json!(numbers);
    let plain = schema(&json!({ "items": { "type": "integer" } }));
    let found = misfits(&plain, &numbers);
    assert_eq!((pairs(&found), found.more), (vec![("/250000", "type")], true));
    let choice = schema(&json!({ "items": { "anyOf": [{ "type": "integer" }, { "type": "null" }] } }));
    let found = misfits(&choice, &numbers);
    assert_eq!(pairs(&found), [("", "")]);
    assert!(found.to_string().contains("too long"), "{found}");
}

#[test]
fn of_a_document_of_some_length_with_choices_the_places_are_told() {
    let choice = json!({ "anyOf": [{ "type": "string" }, { "type": "null" }] });
    let ticket = schema(&json!({
        "required": ["title", "state", "notes"],
        "properties": {
            "title": { "type": "string", "minLength": 1, "maxLength": 200 },
            "state": { "enum": ["new", "open", "waiting", "closed"] },
            "notes": { "type": "array", "maxItems": 1000, "items": choice },
            "by": choice, "for": choice,
        },
    }));
    let mut notes = vec![json!("a note of some length".repeat(40)); 100];
    notes[77] = json!(5);
    let found = misfits(&ticket, &json!({ "title": "x", "state": "old", "notes": notes, "by": 1 }));
    let mut places = pairs(&found);
    places.sort_unstable();
    assert_eq!(places, [("/by", "anyOf"), ("/notes/77", "anyOf"), ("/state", "enum")]);
}

#[test]
fn the_path_of_a_fault_is_cut_at_a_step_where_it_is_too_long() {
    let long = "x".repeat(100_000);
    let numbers =
        schema(&json!({ "additionalProperties": { "additionalProperties": { "type": "integer" } } }));
    let found = misfits(&numbers, &json!({ "a": { &*long: "x" } }));
    assert_eq!(pairs(&found), [("/a", "type")]);
    assert!(found.to_string().len() < 400, "{found}");
    let short = "x".repeat(20_000);
    let named = schema(&json!({ "properties": { &*short: { "type": "integer" } } }));
    let found = misfits(&named, &json!({ &*short: "x" }));
    assert_eq!((pairs(&found), &*found.list[0].schema_path), (vec![("", "type")], "/properties"));
}

#[test]
fn a_reference_leads_into_the_same_document_whatever_that_is_called() {
    for name in ["http://json-schema.org/draft-07/schema#", "urn:x", "json-schema:///", "x.json"] {
        let named = schema(&json!({
            "$schema": "http://json-schema.org/draft-07/schema#", "$id": name,
            "definitions": { "nonNegativeInteger": { "type": "string" } },
            "properties": { "a": { "$ref": "#/definitions/nonNegativeInteger" } },
        }));
        assert_eq!(named.check_now(&Json::new(r#"{"a":"x"}"#.to_owned())), Ok(()), "{name}");
        assert_eq!(pairs(&misfits(&named, &json!({ "a": 1 }))), [("/a", "type")]);
    }
}

#[test]
fn a_pattern_that_may_be_at_many_places_makes_documents_shorter_or_is_refused() {
    assert!(refusal(r#"{"pattern":"1[01]{550}[^01]"}"#).contains("looked at for one value"));
    let many = vec![json!({ "pattern": "1[01]{30}[^01]" }); 60];
    assert!(refusal(&json!({ "allOf": many }).to_string()).contains("looked at for one value"));
    let some = schema(&json!({ "pattern": "1[01]{200}[^01]" }));
    let text = |len: usize| Json::new(json!("01".repeat(len / 2)).to_string());
    let Err(StoreError::InvalidInput(why)) = some.check_now(&text(500_000)) else { panic!("it is refused") };
    assert!(why.contains("bytes at most"), "{why}");
    assert!(some.work(&text(4_000)) > WORK_AT_ONCE, "it is not checked where the call is");
    // One that is at one place, however long it is.
    let line = schema(&json!({ "pattern": "^[01]{1,500}$" }));
    assert!(matches!(line.check_now(&text(900_000)), Err(StoreError::Misfit(_))));
}

#[test]
fn what_is_no_schema_or_costs_too_much_is_refused_with_the_reason() {
    for (text, why) in [
        ("", "not JSON"),
        ("[]", "# is no schema"),
        (r#"{"type":"strin"}"#, "/type"),
        (r#"{"minLength":-1}"#, "/minLength"),
        (r#"{"required":"name"}"#, "/required"),
        (r#"{"$ref":"https://example.com/x.json"}"#, "into the same document"),
        (r#"{"$schema":"https://json-schema.org/draft/2019-09/schema"}"#, "2020-12"),
        (r##"{"$ref":"#"}"##, "circle"),
        (r#"{"pattern":"(?=a)b"}"#, "/pattern"),
        (r#"{"pattern":"(a)\\1"}"#, "/pattern"),
        (r#"{"pattern":"((a{100}){100}){100}"}"#, "/pattern"),
        (r#"{"format":"regex"}"#, "regex"),
    ] {
        let refusal = refusal(text);
        assert!(
            refusal.starts_with("the schema cannot be taken: ") && refusal.contains(why),
            "{text}: {refusal}"
        );
    }
    assert!(refusal(&format!(r#"{{"title":"{}"}}"#, "x".repeat(SCHEMA_LEN_MAX))).contains("65536 bytes"));
    let deep = format!("{}true{}", r#"{"not":"#.repeat(70), "}".repeat(70));
    assert!(refusal(&deep).contains("64 levels"));
}

#[test]
fn drafts_differ_where_they_do() {
    let tuple = json!({ "$schema": "http://json-schema.org/draft-07/schema#", "items": [{ "type": "integer" }, { "type": "string" }] });
    assert_eq!(pairs(&misfits(&schema(&tuple), &json!(["x", "y"]))), [("/0", "type")]);
    let tuple = json!({ "prefixItems": [{ "type": "integer" }], "items": false });
    assert_eq!(misfits(&schema(&tuple), &json!([1, 2])).list[0].path, "/1");
}

#[test]
fn a_document_whose_check_would_take_too_long_is_refused() {
    let values: Vec<u64> = (0..2_000).collect();
    let heavy = schema(&json!({ "items": { "enum": values } }));
    let document = Json::new(format!("[{}1999]", "1999,".repeat(40_000)));
    let Err(StoreError::InvalidInput(why)) = heavy.check_now(&document) else { panic!("it is refused") };
    assert!(why.contains("bytes at most"), "{why}");
    assert_eq!(heavy.check_now(&Json::new("[1999]".to_owned())), Ok(()));
    let odd = schema(&json!({ "type": "number" }));
    let Err(StoreError::InvalidInput(why)) = odd.check_now(&Json::new("1e999".to_owned())) else {
        panic!("refused")
    };
    assert!(why.contains("range"), "{why}");
}

#[test]
fn the_deepest_document_and_the_longest_chain_fit_on_the_stack_of_a_worker() {
    // As long a chain as is taken, for each level of the document.
    let mut chain = json!({ "$ref": "#" });
    for _ in 0..cost::CHAIN_MAX - 2 {
        chain = json!({ "allOf": [chain] });
    }
    let deep = schema(&json!({ "properties": { "a": { "not": { "not": true } } }, "items": chain }));
    let depth = super::super::types::DOCUMENT_DEPTH_MAX;
    let document = Json::new(format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
    let worker = std::thread::Builder::new().stack_size(2 * 1024 * 1024);
    let checked = worker.spawn(move || deep.check_now(&document)).expect("a thread starts");
    assert_eq!(checked.join().expect("the stack is enough"), Ok(()));
}
