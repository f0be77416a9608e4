//! The list of all numbers ever given out. A line is never changed or removed: a peer of an old version relies on it.

use super::load::Registry;

/// Kind, number, name.
pub(crate) type Entry = (&'static str, u16, String);

/// Every number of the registries, in their order.
pub(crate) fn entries(registry: &Registry) -> Vec<Entry> {
    let frames = registry.frames.iter().map(|frame| ("frame", frame.number, frame.name.clone()));
    let codes = registry.codes.iter().map(|code| ("code", code.number, code.name.clone()));
    let suites = registry.suites.iter().map(|suite| ("suite", suite.number, suite.name()));
    frames.chain(codes).chain(suites).collect()
}

/// The text of the lock list.
pub(crate) fn render(entries: &[Entry]) -> String {
    let mut text = String::from(
        "# Generated: numbers that were given out. A line is never changed or removed; tests/registry refuses it.\n",
    );
    for entry in entries {
        text.push_str(&line(entry));
        text.push('\n');
    }
    text
}

/// Refuses when a locked number or name is gone or means something else now.
pub(crate) fn check_kept(locked: &str, entries: &[Entry]) -> Result<(), String> {
    let present: Vec<String> = entries.iter().map(line).collect();
    for wanted in locked.lines().filter(|line| !line.starts_with('#')) {
        if !present.iter().any(|line| line == wanted) {
            return Err(format!(
                "schemas/registry: the entry {wanted:?} was given out and must stay as it is"
            ));
        }
    }
    Ok(())
}

fn line((kind, number, name): &Entry) -> String {
    format!("{kind} {number:#04x} {name}")
}
