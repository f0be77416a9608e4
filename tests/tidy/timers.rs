//! Timers are made by `crate::time`, which knows where they are kept.

use super::source::line_of;

/// What makes a timer.
const MAKERS: &[&str] = &["sleep", "sleep_until", "timeout", "timeout_at", "interval", "interval_at"];

/// The findings in one file of `src/`.
pub(crate) fn check(path: &str, code: &str) -> Vec<String> {
    if path == "src/time/mod.rs" {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (offset, before) in code.match_indices("time::") {
        if code[..offset].ends_with("crate::") {
            continue;
        }
        let names = &code[offset + before.len()..];
        let names = match names.strip_prefix('{') {
            Some(several) => several.split('}').next().unwrap_or_default(),
            None => names.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default(),
        };
        for name in names.split(',').map(str::trim).filter(|name| MAKERS.contains(name)) {
            findings.push(format!("{path}:{}: {name}", line_of(code, offset)));
        }
    }
    findings
}

#[test]
fn a_timer_of_the_runtime_is_found() {
    assert_eq!(check("src/store/pool.rs", "tokio::time::sleep(second).await;").len(), 1);
    assert_eq!(check("src/store/pool.rs", "use tokio::time::{Instant, sleep, timeout};").len(), 2);
    assert_eq!(check("src/store/pool.rs", "use tokio::{sync::oneshot, time::timeout_at};").len(), 1);
    assert!(check("src/store/pool.rs", "use tokio::time::{Instant, Sleep};").is_empty());
    assert!(check("src/store/pool.rs", "use crate::time::{sleep, timeout};").is_empty());
    assert!(check("src/time/mod.rs", "tokio::time::sleep(duration)").is_empty());
}
