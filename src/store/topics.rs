//! Events that are published to topics. An event is a row of the change log and nothing else: it is durable when it is
//! acknowledged, and read, resumed and retained as the changes of documents are.

use std::fmt;
use std::sync::Arc;

use super::statements::{Call, Param, StatementKey};
use super::tables::column;
use super::types::DOCUMENT_LEN_MAX;
use super::{DocumentId, Json, Store, StoreError, Writer, feed};

/// The longest name of a topic, in bytes: that of a name in an envelope.
pub const TOPIC_NAME_LEN_MAX: usize = 128;

/// What stands before a topic's name in the log, where tables have their physical names.
const LOG_PREFIX: &str = "topic:";

/// The name of a topic: 1 to 128 bytes, `[A-Za-z0-9_][A-Za-z0-9_.-]*`. A topic is there when it is named: nobody makes one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(String);

impl TopicName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`StoreError::InvalidInput`] when it is not of the shape.
    pub fn parse(name: &str) -> Result<Self, StoreError> {
        let mut bytes = name.bytes();
        let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
        if name.len() > TOPIC_NAME_LEN_MAX || !first || !rest {
            return Err(StoreError::invalid(
                "a topic's name is 1 to 128 letters, digits, `_`, `.` and `-`, and starts with neither `.` nor `-`",
            ));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the log has in place of a physical table.
    pub(super) fn log_name(&self) -> String {
        format!("{LOG_PREFIX}{}", self.0)
    }
}

impl TopicName {
    /// The topic that the log has in place of a physical table.
    pub(super) fn of_log(log_name: &str) -> Option<Self> {
        Self::parse(log_name.strip_prefix(LOG_PREFIX)?).ok()
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a place in the log is that of a topic.
pub(super) fn is_topic(log_name: &str) -> bool {
    log_name.starts_with(LOG_PREFIX)
}

/// An event that is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its id, the same for every subscriber.
    pub id: DocumentId,
    /// A position: who resumes there gets everything that is committed after the event, and not the event itself. `None`
    /// when too many transactions were running to name them.
    pub cursor: Option<Arc<str>>,
}

/// One row of the log. What Postgres makes of the JSON may be longer than its text was, and an event that fits no message
/// could not be given out: such a one is not written.
pub(super) fn publish_sql() -> String {
    format!(
        "INSERT INTO raystream.changes (xid, seq, ptr, id, op, version, after, principal, at) \
         SELECT pg_current_xact_id(), nextval('raystream.change_seq'), $1::text, $2::text, 'p', 0, $3::jsonb, $4::text, \
         clock_timestamp() WHERE octet_length($3::jsonb::text) <= {DOCUMENT_LEN_MAX} \
         RETURNING xid::text, pg_current_snapshot()::text"
    )
}

impl Store {
    /// Publishes an event to a topic.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::InvalidInput`] for data that cannot be stored.
    pub async fn publish(
        &self,
        writer: Writer<'_>,
        topic: &TopicName,
        data: Json,
    ) -> Result<Published, StoreError> {
        data.check()?;
        let id = DocumentId::stored(self.0.ids.next()?);
        let len = data.as_bytes().len();
        let params: Vec<Param> = vec![
            Box::new(topic.log_name()),
            Box::new(id.as_str().to_owned()),
            Box::new(data),
            Box::new(writer.principal.to_owned()),
        ];
        let call = Call::of(StatementKey::Publish, params, len);
        let rows = self.run(&self.0.writes, call).await?;
        let row = rows.first().ok_or(StoreError::TooLarge)?;
        let xid: &str = column(row, 0)?;
        let xid = xid.parse().map_err(|_| StoreError::Internal)?;
        let cursor = feed::cursor_after(self.0.database, column(row, 1)?, xid);
        Ok(Published { id, cursor })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_topics_have_one_shape() {
        let longest = "a".repeat(TOPIC_NAME_LEN_MAX);
        for good in ["a", "news", "orders.eu-1.created", "0", "_", "A..b", &longest] {
            assert!(TopicName::parse(good).is_ok(), "{good}");
        }
        let too_long = format!("{longest}a");
        for bad in ["", ".a", "-a", "a b", "a:b", "a/b", "*", "a.*", "a\0", "ä", "topic:a", &too_long] {
            assert!(TopicName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_physical_table_of_ours_is_a_topic() {
        assert!(is_topic(&TopicName::parse("a").expect("a good name").log_name()));
        assert!(!is_topic("tbl_0123456789abcdef"));
    }
}
