//! The check of JSON text against `serde_json`.

use std::borrow::Cow;

use crate::json::{DEPTH_MAX, Fault, check, plain_len};

/// Both take the same texts, but for those that nest too deeply.
pub fn json(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let is_utf8 = matches!(text, Cow::Borrowed(_));
    let is_json = is_utf8 && serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
    match check(data) {
        Ok(()) => assert!(is_json, "taken: {text:?}"),
        Err(Fault::Malformed) => assert!(!is_json, "refused: {text:?}"),
        Err(Fault::TooDeep) => {
            assert!(text.matches(['[', '{']).count() > DEPTH_MAX, "not that deep: {text:?}");
        }
    }
    let plain = data.iter().take_while(|byte| !matches!(byte, 0..=0x1f | b'"' | b'\\')).count();
    assert_eq!(plain_len(data), plain);
}
