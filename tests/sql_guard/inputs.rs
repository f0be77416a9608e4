//! The inputs of `tests/data/sql`.

use raystream::sql::limits;
use serde_json::Value;

/// The parameters that every statement is run with.
pub(crate) const PARAMS: [&str; 3] = ["false", "t-2", "t-3"];

/// Statements whose `$1` is of another type than text.
pub(crate) fn params(name: &str) -> [&'static str; 3] {
    match name {
        "contains" => [r#"{"done": true}"#, "", ""],
        "between-dates" => ["2026-01-15", "", ""],
        "alias" => ["t-1", "", ""],
        "like" => ["%re%", "", ""],
        _ => PARAMS,
    }
}

/// Name and text of each input of some files.
pub(crate) fn inputs(files: &[&str]) -> Vec<(String, String)> {
    let read = |file: &&str| {
        let path = format!("{}/tests/data/sql/{file}.json", env!("CARGO_MANIFEST_DIR"));
        let inputs: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        inputs
    };
    let text = |input: &Value, field: &str| input[field].as_str().unwrap().to_owned();
    files
        .iter()
        .flat_map(read)
        .map(|input| (text(&input, "name"), spelled_out(text(&input, "sql"))))
        .collect()
}

/// Inputs that are too long to be written down.
fn spelled_out(sql: String) -> String {
    match sql.as_str() {
        "@deep" => format!("SELECT {}1{} FROM tasks", "(".repeat(5_000), ")".repeat(5_000)),
        "@columns" => format!("SELECT {} FROM tasks", vec!["id"; limits::COLUMNS_MAX + 1].join(", ")),
        "@in" => format!("SELECT id FROM tasks WHERE id IN ({})", vec!["'a'"; 200_000].join(", ")),
        "@and" => format!("SELECT id FROM tasks WHERE {}", vec!["id = 'a'"; 2_000].join(" AND ")),
        "@long" => format!("SELECT id FROM tasks WHERE id = '{}'", "a".repeat(limits::TEXT_LEN_MAX)),
        _ => sql,
    }
}
