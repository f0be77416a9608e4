//! The one place where something is allowed.
//!
//! Every connection, every call, every table or topic a call or a subscription touches and every event that is handed out
//! is judged here, by identity and rules, before anything is looked up. So an answer never tells whether a method, a table
//! or a document exists to somebody who may not know.

use super::{Access, Principal, TableRight, TopicRight};
use crate::wire::registry::ErrorCode;

/// A refusal: what to answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Denied {
    /// UNAUTHORIZED, FORBIDDEN or PERMISSION_DENIED.
    pub code: ErrorCode,
    /// One sentence for a person. The same whether what was asked for exists or not.
    pub message: String,
}

/// A table that somebody may use, with the right they were judged for. Only [`authorise_table`] makes one, so a
/// function that takes its table out of this type cannot be reached without the check.
///
/// `T` is the table's name in the type of whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorisedTable<T> {
    name: T,
    right: TableRight,
}

impl<T> AuthorisedTable<T> {
    /// The table.
    pub fn name(&self) -> &T {
        &self.name
    }

    /// What was granted.
    pub fn right(&self) -> TableRight {
        self.right
    }

    /// The table, by value.
    pub fn into_name(self) -> T {
        self.name
    }
}

/// A topic that somebody may use, with the right they were judged for: as [`AuthorisedTable`], and only [`authorise_topic`]
/// makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorisedTopic<T> {
    name: T,
    right: TopicRight,
}

impl<T> AuthorisedTopic<T> {
    /// The topic.
    pub fn name(&self) -> &T {
        &self.name
    }

    /// What was granted.
    pub fn right(&self) -> TopicRight {
        self.right
    }

    /// The topic, by value.
    pub fn into_name(self) -> T {
        self.name
    }
}

/// Whether the peer is let in at all. To be asked once the handshake proved who it is, and again after a change of the
/// rules.
pub fn authorise_connection(access: &Access, principal: &Principal) -> Result<(), Denied> {
    if access.lets_in(principal) {
        return Ok(());
    }
    let message = match principal.key() {
        Some(_) => "this key is not let in",
        None => "a client key is required: nothing is granted to anonymous peers",
    };
    Err(Denied { code: ErrorCode::UNAUTHORIZED, message: message.to_owned() })
}

/// Whether the method may be called. A method that does not exist is judged like one that does.
pub fn authorise_call(access: &Access, principal: &Principal, method: &str) -> Result<(), Denied> {
    if access.may_call(principal, method) {
        return Ok(());
    }
    Err(Denied {
        code: ErrorCode::FORBIDDEN,
        message: format!("the method `{method}` is not granted to you"),
    })
}

/// Whether the table may be read or written. A table that does not exist is judged like one that does.
pub fn authorise_table<T: AsRef<str>>(
    access: &Access,
    principal: &Principal,
    table: T,
    right: TableRight,
) -> Result<AuthorisedTable<T>, Denied> {
    if access.may_use(principal, table.as_ref(), right) {
        return Ok(AuthorisedTable { name: table, right });
    }
    Err(Denied {
        code: ErrorCode::PERMISSION_DENIED,
        message: format!("you may not {right} the table `{}`", table.as_ref()),
    })
}

/// Whether an event of the table may be handed out now. Asked for live subscriptions after each change of the rules,
/// with the identity of the connection and not with what was true when it subscribed.
pub fn authorise_event(access: &Access, principal: &Principal, table: &str) -> Result<(), Denied> {
    authorise_table(access, principal, table, TableRight::Read).map(|_| ())
}

/// Whether events may be published to the topic, or seen. A topic that nobody has used is judged like any other.
pub fn authorise_topic<T: AsRef<str>>(
    access: &Access,
    principal: &Principal,
    topic: T,
    right: TopicRight,
) -> Result<AuthorisedTopic<T>, Denied> {
    if access.may_use_topic(principal, topic.as_ref(), right) {
        return Ok(AuthorisedTopic { name: topic, right });
    }
    Err(Denied {
        code: ErrorCode::PERMISSION_DENIED,
        message: format!("you may not {right} to the topic `{}`", topic.as_ref()),
    })
}
