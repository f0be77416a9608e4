//! What a subscription reads.

use std::fmt;

use super::Overflow;
use crate::store::{StoreError, TableName, TopicName};

/// A table, whose documents change; or a topic, to which events are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The documents of a table.
    Table(TableName),
    /// The events of a topic.
    Topic(TopicName),
}

impl Source {
    /// Refuses a policy that means nothing here: no two events are of one document, so there is nothing to merge; and
    /// events that are gone are in no snapshot.
    pub(super) fn check(&self, overflow: Overflow) -> Result<(), StoreError> {
        match (self, overflow) {
            (Self::Topic(_), Overflow::Conflate | Overflow::Resnapshot) => Err(StoreError::invalid(
                "events of a topic are neither merged nor in a snapshot: its policies are close, drop-oldest and block",
            )),
            _ => Ok(()),
        }
    }
}

impl From<TableName> for Source {
    fn from(name: TableName) -> Self {
        Self::Table(name)
    }
}

impl From<TopicName> for Source {
    fn from(name: TopicName) -> Self {
        Self::Topic(name)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(name) => write!(f, "the table `{name}`"),
            Self::Topic(name) => write!(f, "the topic `{name}`"),
        }
    }
}
