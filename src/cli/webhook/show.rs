//! Webhooks and dead letters, for people and for programs.

use std::time::{Duration, SystemTime};

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::cli::{Failure, Output};
use crate::store::webhooks::{DeadLetter, WebhookStatus};

/// One line for each webhook.
pub(super) fn list(webhooks: &[WebhookStatus], output: &mut Output) -> Result<(), Failure> {
    for webhook in webhooks {
        let line = format!(
            "{}  {:<16} {:<20} {:>8} sent {:>4} dead  {}",
            webhook.id,
            state(webhook),
            webhook.table,
            webhook.sent,
            webhook.dead,
            webhook.url,
        );
        output.result(line, &value(webhook))?;
    }
    Ok(())
}

/// All that is known of a webhook.
pub(super) fn status(webhook: &WebhookStatus, output: &mut Output) -> Result<(), Failure> {
    let mut lines = vec![
        ("id", webhook.id.clone()),
        ("url", webhook.url.clone()),
        ("table", webhook.table.clone()),
        ("operations", webhook.operations.names().join(", ")),
        ("state", state(webhook).to_owned()),
    ];
    if let Some(reason) = &webhook.disabled {
        lines.push(("disabled", reason.clone()));
    }
    lines.push(("sent", counted(webhook.sent, webhook.sent_at)));
    lines.push(("dead letters", webhook.dead.to_string()));
    if webhook.attempts > 0 {
        lines.push(("failed", format!("{} of {} attempts", webhook.attempts, webhook.attempts_max)));
    }
    if let Some(at) = webhook.next_attempt {
        lines.push(("next attempt", time(at)));
    }
    if let Some((error, at)) = &webhook.last_error {
        lines.push(("last error", format!("{error} ({})", time(*at))));
    }
    if let Some((reason, at)) = &webhook.last_reset {
        lines.push(("resets", format!("{}, the last one {}: {reason}", webhook.resets, time(*at))));
    }
    lines.push(("sent by", webhook.holder.clone().unwrap_or_else(|| "no server".to_owned())));
    lines.push(("position", webhook.position.clone()));
    let text: Vec<String> = lines.iter().map(|(name, value)| format!("{name:<14}{value}")).collect();
    output.result(text.join("\n"), &value(webhook))
}

/// One line for each dead letter; as JSON with what was sent.
pub(super) fn dead(letters: &[DeadLetter], output: &mut Output) -> Result<(), Failure> {
    for letter in letters {
        let retry = if letter.retry { "  (is sent again)" } else { "" };
        let line = format!(
            "{}  {}  {} attempts: {}{retry}",
            letter.event,
            time(letter.died_at),
            letter.attempts,
            letter.error
        );
        // As it was sent, digit for digit.
        let text = letter.body.as_deref().and_then(|body| std::str::from_utf8(body).ok());
        let body = text.and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
        output.result(
            line,
            &json!({
                "event": letter.event, "attempts": letter.attempts, "first_attempt": time(letter.first_attempt),
                "died_at": time(letter.died_at), "error": letter.error, "retry": letter.retry, "body": body,
            }),
        )?;
    }
    Ok(())
}

fn state(webhook: &WebhookStatus) -> &'static str {
    match webhook {
        WebhookStatus { disabled: Some(_), .. } => "disabled",
        WebhookStatus { attempts: 1.., .. } => "failing",
        WebhookStatus { holder: None, .. } => "no server",
        _ => "active",
    }
}

fn value(webhook: &WebhookStatus) -> Value {
    let dated = |what: &Option<(String, SystemTime)>| {
        what.as_ref().map(|(text, at)| json!({ "message": text, "at": time(*at) }))
    };
    json!({
        "id": webhook.id, "url": webhook.url, "table": webhook.table, "operations": webhook.operations.names(),
        "state": state(webhook), "disabled": webhook.disabled, "attempts": webhook.attempts,
        "attempts_max": webhook.attempts_max, "next_attempt": webhook.next_attempt.map(time),
        "last_error": dated(&webhook.last_error), "sent": webhook.sent, "sent_at": webhook.sent_at.map(time),
        "dead": webhook.dead, "resets": webhook.resets, "last_reset": dated(&webhook.last_reset),
        "holder": webhook.holder, "position": webhook.position, "created_at": time(webhook.created_at),
    })
}

fn counted(count: i64, last: Option<SystemTime>) -> String {
    last.map_or_else(|| count.to_string(), |at| format!("{count}, the last one {}", time(at)))
}

/// A time in UTC, to the second (RFC 3339).
fn time(at: SystemTime) -> String {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day, by the days since 1970, in a calendar whose years begin in March, so that the day that some years have more is
/// the last one.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_614_265_330, "2021-02-25T15:02:10Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(time(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
