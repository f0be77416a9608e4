//! What a receiver is told: one change, as JSON.
//!
//! ```json
//! {"type":"update","table":"tasks","operation":"UPDATE","id":"1","version":2,"sequence":417,"new":{},"old":{}}
//! ```
//! The daemon writes all of it; a trigger's outbox has `table`, `operation`, `new` and `old`. Both are read here.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The longest event that is read, in bytes: two documents of the greatest length (960 KiB) and their names.
pub const WEBHOOK_EVENT_LEN_MAX: usize = 2 * 1024 * 1024;

/// How much of an unknown operation an error shows, in characters: enough for a name, too little for a flood.
const SHOWN_MAX: usize = 32;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WebhookChangeKind {
    /// A new row or document.
    Insert,
    /// It has another content.
    Update,
    /// It is gone.
    Delete,
    /// Changes were lost to this receiver: it was away for longer than they are kept. What it knows of the table is to be
    /// read anew. Only the daemon says this.
    Reset,
}

impl WebhookChangeKind {
    /// Every kind, with its `type` and its `operation`.
    const NAMES: [(Self, &str, &str); 4] = [
        (Self::Insert, "insert", "INSERT"),
        (Self::Update, "update", "UPDATE"),
        (Self::Delete, "delete", "DELETE"),
        (Self::Reset, "reset", "RESET"),
    ];

    /// In small letters, as `type` says it: `insert`.
    pub fn as_str(self) -> &'static str {
        self.names().0
    }

    /// In capitals, as `operation` says it: `INSERT`.
    pub fn operation(self) -> &'static str {
        self.names().1
    }

    fn names(self) -> (&'static str, &'static str) {
        let found = Self::NAMES.iter().find(|(kind, ..)| *kind == self);
        let (_, small, capital) = found.expect("every kind has names");
        (small, capital)
    }
}

/// A change as a webhook tells it. Images are JSON text as it came: numbers keep all their digits, and documents that were written
/// with SQL may be nested as deep as Postgres takes them. `serde_json` reads no more than 127 levels of one unless it is told to.
#[derive(Debug, Clone)]
pub struct WebhookChangeEvent {
    /// What happened.
    pub kind: WebhookChangeKind,
    /// The table.
    pub table: String,
    /// The id of the row or document, where it has one: that of the event, or else the column or key `id` of an image.
    pub id: Option<String>,
    /// What it is now; `None` for a delete and for a reset.
    pub data: Option<Box<RawValue>>,
    /// What it was before; `None` for an insert and for a reset.
    pub old_data: Option<Box<RawValue>>,
    /// The version of the document. Only the daemon says it.
    pub version: Option<i64>,
    /// The number of the change in the change log: it grows with each change of one document. Only the daemon says it.
    pub sequence: Option<i64>,
    /// Why there was a reset.
    pub reason: Option<String>,
}

impl PartialEq for WebhookChangeEvent {
    fn eq(&self, other: &Self) -> bool {
        let text = |image: &Option<Box<RawValue>>| image.as_ref().map(|image| image.get().to_owned());
        let names = |event: &Self| (event.kind, event.table.clone(), event.id.clone(), event.reason.clone());
        names(self) == names(other)
            && (self.version, self.sequence) == (other.version, other.sequence)
            && text(&self.data) == text(&other.data)
            && text(&self.old_data) == text(&other.old_data)
    }
}

/// Why a body is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookEventError {
    /// Longer than [`WEBHOOK_EVENT_LEN_MAX`].
    #[error("the event has {0} bytes, and the longest has {WEBHOOK_EVENT_LEN_MAX}")]
    TooLong(usize),
    /// No JSON object, or a field twice.
    #[error("the event is no JSON object, or has a field twice: line {line}, column {column}")]
    Malformed {
        /// Where, counted from 1.
        line: usize,
        /// In which column.
        column: usize,
    },
    /// A field that every event has.
    #[error("the event has no `{0}`")]
    Missing(&'static str),
    /// A field of another type.
    #[error("`{field}` of the event is not {expected}")]
    Type {
        /// The field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// `operation` is none that there is.
    #[error("`operation` of the event is {0:?}, which is none of INSERT, UPDATE, DELETE, RESET")]
    Operation(String),
    /// An image that the operation cannot have: there is nothing before an insert and nothing after a delete.
    #[error("`{field}` of the event does not go with {operation}")]
    Image {
        /// The field.
        field: &'static str,
        /// The operation.
        operation: &'static str,
    },
}

/// The fields of an event, each still JSON.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, default)]
    table: Option<&'a RawValue>,
    #[serde(borrow, default)]
    operation: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    version: Option<&'a RawValue>,
    #[serde(borrow, default)]
    sequence: Option<&'a RawValue>,
    #[serde(borrow, default)]
    new: Option<&'a RawValue>,
    #[serde(borrow, default)]
    old: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reason: Option<&'a RawValue>,
}

/// Reads the body of a webhook: of the daemon's, or an event of a trigger's outbox. Fields that are not known are passed over.
/// Verify the signature first ([`Secret::verify`](super::Secret::verify)). Images are passed over without recursion, so their depth
/// has no limit.
///
/// # Errors
/// [`WebhookEventError`] says what is wrong and where; of what was sent it shows at most the name of an operation.
pub fn parse_webhook_event(body: &[u8]) -> Result<WebhookChangeEvent, WebhookEventError> {
    if body.len() > WEBHOOK_EVENT_LEN_MAX {
        return Err(WebhookEventError::TooLong(body.len()));
    }
    // An array would be read as the fields in their order.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(WebhookEventError::Malformed { line: 1, column: 1 });
    }
    let fields: Fields<'_> = serde_json::from_slice(body)
        .map_err(|error| WebhookEventError::Malformed { line: error.line(), column: error.column() })?;
    let table: String = required(fields.table, "table", "a text")?;
    if table.is_empty() {
        return Err(WebhookEventError::Type { field: "table", expected: "the name of a table" });
    }
    let kind = kind(&required::<String>(fields.operation, "operation", "a text")?)?;
    let refused = |field| WebhookEventError::Image { field, operation: kind.operation() };
    let may_have = |after: bool| match kind {
        WebhookChangeKind::Insert => after,
        WebhookChangeKind::Delete => !after,
        WebhookChangeKind::Update => true,
        WebhookChangeKind::Reset => false,
    };
    if fields.new.is_some() && !may_have(true) {
        return Err(refused("new"));
    }
    if fields.old.is_some() && !may_have(false) {
        return Err(refused("old"));
    }
    let id = match optional::<String>(fields.id, "id", "a text")? {
        Some(id) => Some(id),
        None => fields.new.and_then(id_of).or_else(|| fields.old.and_then(id_of)),
    };
    Ok(WebhookChangeEvent {
        kind,
        table,
        id,
        data: fields.new.map(RawValue::to_owned),
        old_data: fields.old.map(RawValue::to_owned),
        version: optional(fields.version, "version", "a whole number")?,
        sequence: optional(fields.sequence, "sequence", "a whole number")?,
        reason: optional(fields.reason, "reason", "a text")?,
    })
}

fn kind(operation: &str) -> Result<WebhookChangeKind, WebhookEventError> {
    let found = WebhookChangeKind::NAMES.iter().find(|(_, _, name)| *name == operation);
    let unknown = || WebhookEventError::Operation(operation.chars().take(SHOWN_MAX).collect());
    found.map(|(kind, ..)| *kind).ok_or_else(unknown)
}

fn required<'a, T: Deserialize<'a>>(
    value: Option<&'a RawValue>,
    field: &'static str,
    expected: &'static str,
) -> Result<T, WebhookEventError> {
    optional(value, field, expected)?.ok_or(WebhookEventError::Missing(field))
}

fn optional<'a, T: Deserialize<'a>>(
    value: Option<&'a RawValue>,
    field: &'static str,
    expected: &'static str,
) -> Result<Option<T>, WebhookEventError> {
    let read = value.map(|value| serde_json::from_str(value.get())).transpose();
    read.map_err(|_| WebhookEventError::Type { field, expected })
}

/// The `id` of an image, when that is a text or a number: as text.
fn id_of(image: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Image<'a> {
        #[serde(borrow, default)]
        id: Option<&'a RawValue>,
    }
    if !image.get().starts_with('{') {
        return None;
    }
    let id = serde_json::from_str::<Image<'_>>(image.get()).ok()?.id?.get();
    match id.as_bytes().first()? {
        b'"' => serde_json::from_str(id).ok(),
        b'-' | b'0'..=b'9' => Some(id.to_owned()),
        _ => None,
    }
}

impl WebhookChangeEvent {
    /// The body that tells the event. [`parse_webhook_event`] reads it again.
    pub fn encode(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: &'static str,
            table: &'a str,
            operation: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            id: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            version: Option<i64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            sequence: Option<i64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            reason: Option<&'a str>,
            new: Option<&'a RawValue>,
            old: Option<&'a RawValue>,
        }
        let body = Body {
            r#type: self.kind.as_str(),
            table: &self.table,
            operation: self.kind.operation(),
            id: self.id.as_deref(),
            version: self.version,
            sequence: self.sequence,
            reason: self.reason.as_deref(),
            new: self.data.as_deref(),
            old: self.old_data.as_deref(),
        };
        serde_json::to_vec(&body).expect("texts, numbers and JSON are JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str) -> WebhookEventError {
        parse_webhook_event(body.as_bytes()).expect_err(body)
    }

    #[test]
    fn an_event_of_a_trigger_is_read() {
        let body = r#"{"table":"orders","operation":"UPDATE","new":{"id":7,"total":1.50},"old":{"id":7,"total":1e400}}"#;
        let event = parse_webhook_event(body.as_bytes()).unwrap();
        assert_eq!((event.kind, event.table.as_str()), (WebhookChangeKind::Update, "orders"));
        assert_eq!(event.id.as_deref(), Some("7"));
        // Not a digit is lost, and no number is too large.
        assert_eq!(event.data.unwrap().get(), r#"{"id":7,"total":1.50}"#);
        assert_eq!(event.old_data.unwrap().get(), r#"{"id":7,"total":1e400}"#);
        for (body, id) in [
            (r#"{"table":"t","operation":"INSERT","new":{"id":"a"},"old":null}"#, Some("a")),
            (r#"{"table":"t","operation":"DELETE","new":null,"old":{"id":-1.5}}"#, Some("-1.5")),
            (r#"{"table":"t","operation":"INSERT","new":{"id":"a"},"id":"b","more":[1]}"#, Some("b")),
            (r#"{"table":"t","operation":"INSERT","new":{"key":1}}"#, None),
            (r#"{"table":"t","operation":"INSERT","new":{"id":[1]}}"#, None),
            (r#"{"table":"t","operation":"INSERT","new":[1]}"#, None),
            (r#" {"table":"t","operation":"RESET","reason":"away"}"#, None),
        ] {
            let event =
                parse_webhook_event(body.as_bytes()).unwrap_or_else(|error| panic!("{body}: {error}"));
            assert_eq!(event.id.as_deref(), id, "{body}");
            assert_eq!(parse_webhook_event(&event.encode()).as_ref(), Ok(&event));
        }
    }

    #[test]
    fn what_is_no_event_is_refused_with_its_place() {
        for (body, text) in [
            ("", "line 1, column 1"),
            ("[\"t\",\"INSERT\"]", "line 1, column 1"),
            ("{\n\"table\": t}", "line 2, column 11"),
            (r#"{"table":"t","table":"u","operation":"INSERT"}"#, "column 20"),
            (r#"{"operation":"INSERT"}"#, "no `table`"),
            (r#"{"table":null,"operation":"INSERT"}"#, "no `table`"),
            (r#"{"table":"t"}"#, "no `operation`"),
            (r#"{"table":1,"operation":"INSERT"}"#, "`table` of the event is not a text"),
            (r#"{"table":"","operation":"INSERT"}"#, "the name of a table"),
            (r#"{"table":"t","operation":["x"]}"#, "`operation` of the event is not a text"),
            (r#"{"table":"t","operation":"insert"}"#, "\"insert\", which is none"),
            (r#"{"table":"t","operation":"INSERT","old":{}}"#, "`old` of the event does not go with INSERT"),
            (r#"{"table":"t","operation":"DELETE","new":{}}"#, "`new` of the event does not go with DELETE"),
            (r#"{"table":"t","operation":"RESET","new":1}"#, "`new` of the event does not go with RESET"),
            (r#"{"table":"t","operation":"INSERT","id":1}"#, "`id` of the event is not a text"),
            (
                r#"{"table":"t","operation":"INSERT","version":1.5}"#,
                "`version` of the event is not a whole number",
            ),
            (r#"{"table":"t","operation":"INSERT","sequence":"1"}"#, "`sequence` of the event"),
            (r#"{"table":"t","operation":"INSERT"} x"#, "column 36"),
        ] {
            let error = refused(body).to_string();
            assert!(error.contains(text), "{body}: {error}");
        }
        let long = format!(r#"{{"table":"t","operation":"{}"}}"#, "x".repeat(1_000));
        assert!(refused(&long).to_string().len() < 200);
    }

    #[test]
    fn size_is_bounded_and_depth_is_not() {
        let sized = |len: usize| {
            let frame = r#"{"table":"t","operation":"INSERT","new":""}"#;
            frame.replace("\"\"", &format!("\"{}\"", "a".repeat(len - frame.len())))
        };
        assert!(parse_webhook_event(sized(WEBHOOK_EVENT_LEN_MAX).as_bytes()).is_ok());
        assert_eq!(
            refused(&sized(WEBHOOK_EVENT_LEN_MAX + 1)),
            WebhookEventError::TooLong(WEBHOOK_EVENT_LEN_MAX + 1)
        );
        // What the daemon sends is read, whatever depth a document has.
        for depth in [126, 127, 128, 129, 10_000, 900_000] {
            let image = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            for field in ["new", "more"] {
                let body = format!(r#"{{"table":"t","operation":"INSERT","{field}":{image}}}"#);
                let event = parse_webhook_event(body.as_bytes())
                    .unwrap_or_else(|error| panic!("{field} of {depth} levels: {error}"));
                assert!(field == "more" || event.data.as_ref().is_some_and(|data| data.get() == image));
                assert_eq!(parse_webhook_event(&event.encode()).as_ref(), Ok(&event));
            }
        }
    }
}
