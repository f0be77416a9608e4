//! The guard on the committed inputs and on single rules.

use sqlparser::keywords::ALL_KEYWORDS;

use super::*;

fn text(text: &str) -> Param {
    Param::Text(text.to_owned())
}

fn run(sql: &str) -> Result<Statement, Refusal> {
    guard("tasks", sql, &[text("{}"), text("b"), text("c")])
}

/// Name and text of each input of a file in `tests/data/sql`.
fn inputs(file: &str) -> Vec<(String, String)> {
    let path = format!("{}/tests/data/sql/{file}", env!("CARGO_MANIFEST_DIR"));
    let all: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let of = |input: &serde_json::Value, field: &str| input[field].as_str().unwrap().to_owned();
    all.as_array().unwrap().iter().map(|input| (of(input, "name"), spelled_out(&of(input, "sql")))).collect()
}

/// Inputs that are too long to be written down.
fn spelled_out(sql: &str) -> String {
    let list = |count, item: &str| vec![item; count].join(", ");
    match sql {
        "@deep" => format!("SELECT {}1{} FROM tasks", "(".repeat(5_000), ")".repeat(5_000)),
        "@columns" => format!("SELECT {} FROM tasks", list(limits::COLUMNS_MAX + 1, "id")),
        "@in" => format!("SELECT id FROM tasks WHERE id IN ({})", list(1_000_000, "'a'")),
        "@and" => format!("SELECT id FROM tasks WHERE {}", vec!["id = 'a'"; 2_000].join(" AND ")),
        "@long" => format!("SELECT id FROM tasks WHERE id = '{}'", "a".repeat(limits::TEXT_LEN_MAX)),
        other => other.to_owned(),
    }
}

#[test]
fn hostile_statements_are_refused_and_others_are_not() {
    for (name, sql) in inputs("hostile.json").into_iter().chain(inputs("hostile_more.json")) {
        let refused = run(&sql).expect_err(&name);
        println!("{name}: {refused}");
    }
    for (name, sql) in inputs("allowed.json").into_iter().chain(inputs("allowed_more.json")) {
        let statement = run(&sql).unwrap_or_else(|refused| panic!("{name}: {refused}"));
        println!("{name}: {}", statement.text("raystream", "tbl_1"));
    }
}

#[test]
fn another_relation_is_refused_by_its_own_code() {
    for sql in [
        "SELECT * FROM users",
        "SELECT u.data FROM tasks t, users u",
        "SELECT data FROM tasks UNION ALL SELECT data FROM users",
        "SELECT data FROM tasks ORDER BY (SELECT count(*) FROM users)",
        "SELECT * FROM raystream.changes",
        "SELECT users.data FROM tasks",
        "SELECT * FROM public.tasks",
    ] {
        let refused = run(sql).unwrap_err();
        assert_eq!(refused.code(), "KONTRACT_EXEC_CROSS_TABLE", "{sql}: {refused}");
    }
    for sql in ["SELECT pg_sleep(1) FROM tasks", "DELETE FROM tasks", "SELECT ctid FROM tasks", ""] {
        assert_eq!(run(sql).unwrap_err().code(), "INVALID_REQUEST", "{sql}");
    }
}

/// A parser that goes down by recursion without counting would end the process here.
#[test]
fn long_chains_of_any_word_do_not_exhaust_the_stack() {
    let signs = ["(", "[", "-", "+", "NOT", "@>", "CASE WHEN", "a.", "ARRAY[", "x::", "(SELECT", "-1+", "{"];
    for word in ALL_KEYWORDS.iter().chain(&signs) {
        for (before, after) in
            [("SELECT ", " "), ("SELECT a FROM ", " "), ("SELECT 1::", " "), ("SELECT ", "(")]
        {
            let piece = format!("{word}{after}");
            let count = (limits::TEXT_LEN_MAX - 64) / piece.len();
            let _outcome = run(&format!("{before}{}", piece.repeat(count.min(limits::TOKENS_MAX - 8))));
        }
    }
}

#[test]
fn a_long_parameter_that_is_named_many_times_is_kept_once() {
    let long = Param::Text("x".repeat(limits::PARAMS_LEN_MAX - 8));
    let list = vec!["$1"; 600].join(",");
    let statement = guard("tasks", &format!("SELECT id FROM tasks WHERE id IN ({list})"), &[long]).unwrap();
    assert_eq!(statement.binds().len(), 1);
    let too_long = vec![text(&"x".repeat(limits::PARAMS_LEN_MAX / 2 + 1)); 2];
    assert!(guard("tasks", "SELECT id FROM tasks", &too_long).is_err());
    assert!(guard("tasks", "SELECT id FROM tasks", &vec![Param::Null; limits::PARAMS_MAX + 1]).is_err());
}

#[test]
fn literals_and_names_of_the_caller_are_not_in_the_text() {
    let sql = "SELECT data->>'secret' AS \"Alias\", 'lit' || id FROM tasks AS \"Weird \"\" name\" WHERE id = $2 LIMIT 7";
    let statement = run(sql).unwrap();
    let written = statement.text("raystream", "tbl_1");
    for word in ["secret", "Alias", "lit'", "Weird", "tasks", "'"] {
        assert!(!written.contains(word), "{word} in {written}");
    }
    assert_eq!(statement.columns(), ["Alias", "?column?"]);
    let binds: Vec<_> = statement.binds().iter().map(|bind| bind.text.as_deref()).collect();
    assert_eq!(binds, [Some("b"), Some("secret"), Some("lit")]);
    // A table's name is quoted, whatever it is.
    assert!(statement.text("a\"b", "c\"; DROP").contains("FROM \"a\"\"b\".\"c\"\"; DROP\" AS"));
}

#[test]
fn what_is_gathered_of_each_row_is_counted() {
    let of = |sql: &str| {
        let statement = run(sql).unwrap_or_else(|refused| panic!("{sql}: {refused}"));
        statement.collects().map(|collects| (collects.copies, collects.constants))
    };
    // $1 has two bytes, $2 and $3 have one.
    for (sql, expected) in [
        ("SELECT count(data), max(data->>'t') FROM tasks", None),
        ("SELECT jsonb_agg(data) FROM tasks", Some((1, 0))),
        ("SELECT string_agg(id, ', ') FROM tasks WHERE data->>'t' = 'four'", Some((1, 2))),
        ("SELECT jsonb_agg(data || data || data) FROM tasks", Some((3, 0))),
        (
            "SELECT jsonb_agg(data), count(*) FROM tasks HAVING length(jsonb_agg(data)::text) > 1",
            Some((2, 0)),
        ),
        ("SELECT id FROM tasks GROUP BY id ORDER BY string_agg(data->>'t', ''), array_agg(id)", Some((2, 0))),
        ("SELECT jsonb_agg(jsonb_build_object('id', id, 'title', data->>'title')) FROM tasks", Some((1, 7))),
        (
            "SELECT jsonb_agg(x.a || x.a) FROM (SELECT jsonb_agg(data) AS a FROM tasks GROUP BY id) AS x",
            Some((3, 0)),
        ),
        ("SELECT string_agg(x.a || x.a, '') FROM (SELECT $1::text || $2 AS a FROM tasks) AS x", Some((1, 6))),
        ("SELECT string_agg(lpad(id, 5, '0'), '') FROM tasks", Some((1, 20))),
        ("SELECT string_agg(replace($1::text, 'a', 'abcd'), '') FROM tasks", Some((1, 8))),
    ] {
        assert_eq!(of(sql), expected, "{sql}");
    }
}
