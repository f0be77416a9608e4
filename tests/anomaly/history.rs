//! What clients did and what they saw: transactions that append elements to lists, and read whole lists. A list that was read
//! tells in which order others appended to it, so that the order of transactions follows from what was seen alone. After
//! Kingsbury and Alvaro, "Elle: Inferring Isolation Anomalies from Experimental Observations", 2020.

use std::fmt;

/// One operation, and what it gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// An element that nobody else appends to this list.
    Append(String, u64),
    Read(String, Vec<u64>),
}

/// What became of a transaction, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Committed,
    Aborted,
    /// The answer to the commit did not come.
    Unknown,
}

/// A transaction of a history, which calls it by its place there.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    /// Before its first operation was sent, by a counter that all clients share.
    pub(crate) begun: u64,
    /// After its end was answered.
    pub(crate) ended: u64,
    pub(crate) outcome: Outcome,
    pub(crate) ops: Vec<Op>,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Append(key, element) => write!(f, "{key}+{element}"),
            Self::Read(key, list) => write!(f, "{key}={list:?}"),
        }
    }
}

impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ops: Vec<String> = self.ops.iter().map(ToString::to_string).collect();
        write!(f, "{:?}: {}", self.outcome, ops.join(", "))
    }
}

/// What is wrong with a history, from what no system may do on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Class {
    /// A read that does not agree with what its own transaction read or appended before.
    Internal,
    /// An element twice in one list.
    Duplicate,
    /// An element that nobody appended.
    Phantom,
    /// Two reads of a list of which neither continues the other.
    IncompatibleOrder,
    /// An element that was committed and is in no later read.
    Lost,
    /// Aborted read.
    G1a,
    /// Intermediate read.
    G1b,
    /// A cycle of writes.
    G0,
    /// A cycle of writes and of reads of what was written.
    G1c,
    /// A cycle with one read of what was overwritten: read skew, lost update.
    GSingle,
    /// A cycle with several of them, no two in a row: what a snapshot never lets happen (long fork).
    GNonadjacent,
    /// A cycle with two of them in a row: write skew.
    G2Item,
}

impl Class {
    pub(crate) const ALL: [Self; 12] = [
        Self::Internal,
        Self::Duplicate,
        Self::Phantom,
        Self::IncompatibleOrder,
        Self::Lost,
        Self::G1a,
        Self::G1b,
        Self::G0,
        Self::G1c,
        Self::GSingle,
        Self::GNonadjacent,
        Self::G2Item,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Duplicate => "double",
            Self::Phantom => "phantom",
            Self::IncompatibleOrder => "order",
            Self::Lost => "lost",
            Self::G1a => "G1a",
            Self::G1b => "G1b",
            Self::G0 => "G0",
            Self::G1c => "G1c",
            Self::GSingle => "G-single",
            Self::GNonadjacent => "G-nonadj.",
            Self::G2Item => "G2-item",
        }
    }
}

/// A finding, with what shows it.
#[derive(Clone, Debug)]
pub(crate) struct Anomaly {
    pub(crate) class: Class,
    /// It needs the order of transactions that did not overlap in time: without clocks nobody could tell.
    pub(crate) real_time: bool,
    pub(crate) witness: String,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let real_time = if self.real_time { ", in real time" } else { "" };
        write!(f, "{}{real_time}: {}", self.class.name(), self.witness)
    }
}
