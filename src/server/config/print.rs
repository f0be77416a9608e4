//! The effective configuration, for people and for programs; secrets are masked.

use std::fmt::Write as _;

use serde_json::json;

use super::lines::Lines;
use super::load::{DEFAULT_SOURCE, Loaded};
use super::mask::mask_password;
use super::sections::Config;

/// TOML that can be used as a file again (but for the masked password), with the source of each value beside it.
pub fn to_toml(loaded: &Loaded) -> String {
    let text = toml::to_string(&masked(&loaded.config)).expect("every configuration is TOML");
    let mut comments = vec![None; text.lines().count() + 1];
    for (path, line) in Lines::leaves(&text) {
        let source = loaded.sources.get(&path.join(".")).map_or(DEFAULT_SOURCE, String::as_str);
        if let Some(comment) = comments.get_mut(line) {
            *comment = Some(source);
        }
    }
    let mut out = String::with_capacity(2 * text.len());
    for (line, comment) in text.lines().zip(comments.into_iter().skip(1)) {
        out.push_str(line);
        // An empty table has a line of its own that is no value.
        if let Some(source) = comment.filter(|_| !line.trim_start().starts_with('[')) {
            let _ = write!(out, "  # {}", source.replace(char::is_control, "?"));
        }
        out.push('\n');
    }
    out
}

/// `{"config": {..}, "sources": {"key": "where from"}}`; keys that `sources` does not name have their default.
pub fn to_json(loaded: &Loaded) -> serde_json::Value {
    json!({ "config": masked(&loaded.config), "sources": loaded.sources })
}

fn masked(config: &Config) -> Config {
    let mut config = config.clone();
    config.database.url = config.database.url.as_deref().map(mask_password);
    config
}
