//! The body of a webhook, as a receiver reads it.

use crate::webhook::{WEBHOOK_EVENT_LEN_MAX, WebhookChangeKind, WebhookEventError, parse_webhook_event};

/// The body of a webhook: what is understood is JSON of the kind that it says, and the same after it is written and read again;
/// what is not is refused in few words.
pub fn webhook_event(data: &[u8]) {
    let event = match parse_webhook_event(data) {
        Ok(event) => event,
        Err(error) => {
            assert!(error.to_string().len() < 512, "{error}");
            let is_long = matches!(error, WebhookEventError::TooLong(_));
            assert_eq!(is_long, data.len() > WEBHOOK_EVENT_LEN_MAX);
            return;
        }
    };
    assert!(!event.table.is_empty());
    for image in [&event.data, &event.old_data].into_iter().flatten() {
        serde_json::from_str::<serde::de::IgnoredAny>(image.get()).expect("an image is JSON");
    }
    match event.kind {
        WebhookChangeKind::Insert => assert!(event.old_data.is_none()),
        WebhookChangeKind::Delete => assert!(event.data.is_none()),
        WebhookChangeKind::Reset => assert!(event.data.is_none() && event.old_data.is_none()),
        WebhookChangeKind::Update => {}
    }
    let written = event.encode();
    match parse_webhook_event(&written) {
        Ok(again) => assert_eq!(again, event),
        // What it fills in, and an escape that was shorter, take more bytes.
        Err(error) => assert!(matches!(error, WebhookEventError::TooLong(_)), "{error}"),
    }
}
