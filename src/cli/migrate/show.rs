//! Plans and histories for people and for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::migrations::{Change, Migration, Plan, Planned};

/// A change for a program.
pub(super) fn change_value(change: &Change) -> Value {
    let mut value = serde_json::to_value(change).expect("a change is JSON");
    value["safe"] = change.is_safe().into();
    value
}

fn kind(migration: &Migration) -> String {
    if migration.reviewed {
        format!("reviewed, migrations/{}", migration.file_name())
    } else {
        "safe".to_owned()
    }
}

/// What `up` would do.
pub(super) fn plan_text(plan: &Plan) -> String {
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| writeln!(text, "{words}").expect("a string takes it");
    for Planned { migration, .. } in plan.pending() {
        line(format_args!("{:04} {} ({})", migration.version, migration.name, kind(migration)));
        migration.changes.iter().for_each(|change| line(format_args!("    {change}")));
        let statements = migration.up.lines().filter(|sql| !sql.trim().is_empty());
        statements.for_each(|sql| line(format_args!("        {sql}")));
    }
    if plan.require_complete().is_err() {
        line(format_args!("not in a migration yet:"));
        for change in &plan.changes {
            let needs = if change.is_safe() { "" } else { "  (needs a review)" };
            line(format_args!("    {change}{needs}"));
        }
    }
    if text.is_empty() { "nothing to do".to_owned() } else { text.trim_end().to_owned() }
}

/// What `up` would do, for a program.
pub(super) fn plan_value(plan: &Plan) -> Value {
    let is_complete = plan.require_complete().is_ok();
    let left: Vec<Value> =
        if is_complete { Vec::new() } else { plan.changes.iter().map(change_value).collect() };
    let migrations: Vec<Value> = plan.pending().map(planned_value).collect();
    json!({ "safe": is_complete, "migrations": migrations, "unplanned": left })
}

fn planned_value(planned: &Planned) -> Value {
    let migration = &planned.migration;
    json!({
        "version": migration.version,
        "name": migration.name,
        "reviewed": migration.reviewed,
        "changes": migration.changes.iter().map(change_value).collect::<Vec<_>>(),
        "sql": migration.up,
        "applied_at": planned.applied_at,
    })
}

/// What was done.
pub(super) fn done_text(what: &str, done: &[Migration], version: Option<u32>) -> String {
    let mut text = String::new();
    for migration in done {
        writeln!(text, "{what} {:04} {}", migration.version, migration.name).expect("a string takes it");
        for change in &migration.changes {
            writeln!(text, "    {change}").expect("a string takes it");
        }
    }
    match version {
        Some(version) => text + &format!("the database is at version {version}"),
        None => text.trim_end().to_owned(),
    }
}

/// What was done, for a program.
pub(super) fn done_value(what: &str, done: &[Migration], version: Option<u32>) -> Value {
    let list: Vec<Value> = done
        .iter()
        .map(|migration| json!({ "version": migration.version, "name": migration.name }))
        .collect();
    json!({ what: list, "version": version })
}

/// What the database has.
pub(super) fn status_text(plan: &Plan) -> String {
    let mut text = String::new();
    for planned in &plan.migrations {
        let state = planned.applied_at.as_deref().unwrap_or("pending");
        let migration = &planned.migration;
        writeln!(text, "{:04}  {state:<24}  {} ({})", migration.version, migration.name, kind(migration))
            .expect("a string takes it");
    }
    if plan.require_complete().is_err() {
        for change in &plan.changes {
            writeln!(text, "      not in a migration yet  {change}").expect("a string takes it");
        }
    }
    if text.is_empty() { "no migrations".to_owned() } else { text.trim_end().to_owned() }
}

/// What the database has, for a program.
pub(super) fn status_value(plan: &Plan) -> Value {
    let applied = plan.migrations.iter().filter(|planned| planned.applied_at.is_some()).count();
    let migrations: Vec<Value> = plan.migrations.iter().map(planned_value).collect();
    let is_complete = plan.require_complete().is_ok();
    let left: Vec<Value> =
        if is_complete { Vec::new() } else { plan.changes.iter().map(change_value).collect() };
    json!({ "version": applied, "migrations": migrations, "unplanned": left })
}
