//! JSON Schemas of tables: what a document has to look like to be written.
//!
//! A document is checked here, before it is sent; that nothing is written unchecked, or checked by a schema that is no longer
//! in force, is seen to in Postgres (see `schemas/sql`, and [`Store::set_schema`](super::Store::set_schema)).

mod change;
mod cost;
mod misfit;
mod patch;
mod pattern;

use std::fmt;
use std::sync::Arc;

use cost::Cost;
use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

use super::error::StoreError;
use super::json::Json;

pub(super) use change::{
    LOGGED_SINCE_IS_KEPT, SET_SCHEMA, SHOW_SCHEMA, live_sql, logged_since_sql, written_since_sql,
};

pub use change::{Existing, SchemaError, SchemaInfo, UNFIT_IDS_MAX, Unfit};
pub use misfit::{MISFITS_MAX, Misfit, Misfits};

/// The longest schema, in bytes of JSON text: those that people write have some thousands.
pub const SCHEMA_LEN_MAX: usize = 64 * 1024;

/// The deepest nesting of a schema: compiling goes down by recursion.
const SCHEMA_DEPTH_MAX: usize = 64;

/// What the checker calls a document that has no name.
const UNNAMED: &str = "json-schema:///";

/// The largest program of one pattern, in bytes.
const PATTERN_SIZE_MAX: usize = 64 * 1024;

/// The cache of one pattern, in bytes.
const PATTERN_CACHE_MAX: usize = 256 * 1024;

/// The most work of one check: the bytes of a document times what is looked at for a value of it. Some tenths of a second.
const WORK_MAX: u64 = 256 * 1024 * 1024;

/// The work that is done where the call is. More is given to a thread for such work, so that others do not wait.
const WORK_AT_ONCE: u64 = 2 * 1024 * 1024;

/// The faults that a document may have for all of them to be told, or for those of all alternatives to be gathered: the checker
/// makes each of them, at some hundred bytes, before it gives the first one out.
const FAULTS_MADE: u64 = 256 * 1024;

/// A schema that is in force or may become so.
pub struct JsonSchema {
    version: i64,
    cost: Cost,
    validator: Validator,
}

impl JsonSchema {
    /// Reads a schema: JSON Schema 2020-12, or draft 7 when its `$schema` says so.
    ///
    /// # Errors
    /// [`StoreError::InvalidInput`] says what of it is no schema, or is not taken here.
    pub fn parse(text: &Json) -> Result<Self, StoreError> {
        Self::compile(text.as_bytes(), 0)
    }

    /// Reads a schema that is stored under a version, on a thread for such work: one that is large takes milliseconds.
    pub(super) async fn stored(text: String, version: i64) -> Result<Arc<Self>, StoreError> {
        let compiled = tokio::task::spawn_blocking(move || Self::compile(text.as_bytes(), version)).await;
        compiled.unwrap_or(Err(StoreError::Internal)).map(Arc::new)
    }

    fn compile(text: &[u8], version: i64) -> Result<Self, StoreError> {
        let invalid =
            |why: &dyn fmt::Display| StoreError::invalid(format!("the schema cannot be taken: {why}"));
        if text.len() > SCHEMA_LEN_MAX {
            return Err(invalid(&format_args!("it has more than {SCHEMA_LEN_MAX} bytes")));
        }
        let mut schema: Value = serde_json::from_slice(text).map_err(|_| invalid(&"it is not JSON"))?;
        if depth(&schema) > SCHEMA_DEPTH_MAX {
            return Err(invalid(&format_args!("it is nested deeper than {SCHEMA_DEPTH_MAX} levels")));
        }
        let draft = draft(&schema)
            .ok_or_else(|| invalid(&"its `$schema` has to be that of 2020-12 or of draft 7, or not there"))?;
        let cost = cost::weigh(&schema).map_err(|why| invalid(&why))?;
        // References lead into this document whatever its name is, which may be that of one the checker has itself.
        if let Some(name) = schema.get_mut("$id").filter(|name| name.is_string()) {
            *name = UNNAMED.into();
        }
        let patterns = PatternOptions::regex().size_limit(PATTERN_SIZE_MAX).dfa_size_limit(PATTERN_CACHE_MAX);
        let validator = jsonschema::options()
            .with_draft(draft)
            .with_pattern_options(patterns)
            .should_validate_formats(true)
            .offline()
            .build(&schema)
            .map_err(|error| {
                let at = error.instance_path().as_str().to_owned();
                invalid(&format_args!("#{at}: {}", misfit::short(error.masked().to_string())))
            })?;
        Ok(Self { version, cost, validator })
    }

    /// Which change of the table's schema it came with.
    pub(super) fn version(&self) -> i64 {
        self.version
    }

    /// Checks a document.
    pub(super) async fn check(self: &Arc<Self>, document: &Json) -> Result<(), StoreError> {
        if self.work(document) <= WORK_AT_ONCE {
            return self.check_now(document);
        }
        let (schema, document) = (Arc::clone(self), document.clone());
        let checked = tokio::task::spawn_blocking(move || schema.check_now(&document));
        checked.await.unwrap_or(Err(StoreError::Internal))
    }

    fn work(&self, document: &Json) -> u64 {
        let len = u64::try_from(document.as_bytes().len()).unwrap_or(u64::MAX);
        len.saturating_mul(self.cost.weight)
    }

    /// Checks a document on this thread.
    pub(super) fn check_now(&self, document: &Json) -> Result<(), StoreError> {
        let work = self.work(document);
        if work > WORK_MAX {
            let longest = WORK_MAX / self.cost.weight;
            return Err(StoreError::invalid(format!(
                "the document is too long for the schema of its table, which takes {longest} bytes at most"
            )));
        }
        let value: Value = serde_json::from_slice(document.as_bytes()).map_err(|error| {
            StoreError::invalid(match error.classify() {
                // The checker's numbers are double.
                serde_json::error::Category::Syntax
                    if error.to_string().starts_with("number out of range") =>
                {
                    "a number in the JSON is out of the range that a schema can be checked for"
                }
                _ => "this is not JSON",
            })
        })?;
        if self.validator.is_valid(&value) {
            return Ok(());
        }
        // A value has a fault for each that is looked at for it, and so has its name.
        let faults = cost::values(&value).saturating_mul(2).saturating_mul(self.cost.weight);
        let misfits = if faults <= FAULTS_MADE {
            Misfits::of(self.validator.iter_errors(&value))
        } else if self.cost.has_choices {
            Misfits::somewhere()
        } else {
            Misfits::first(self.validator.validate(&value).err())
        };
        Err(StoreError::Misfit(Box::new(misfits)))
    }
}

/// Which JSON Schema it says it is.
fn draft(schema: &Value) -> Option<Draft> {
    let Some(named) = schema.get("$schema") else { return Some(Draft::Draft202012) };
    match named.as_str()?.trim_end_matches('#') {
        "https://json-schema.org/draft/2020-12/schema" => Some(Draft::Draft202012),
        "http://json-schema.org/draft-07/schema" => Some(Draft::Draft7),
        _ => None,
    }
}

fn depth(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(members) => members.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

impl fmt::Debug for JsonSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonSchema")
            .field("version", &self.version)
            .field("cost", &self.cost)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
