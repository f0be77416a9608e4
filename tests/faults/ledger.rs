//! What was asked for and what was answered, in the memory of this process: no fault of a run touches it.

use std::sync::{Arc, Mutex, MutexGuard};

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Push,
    Set,
    Update,
    Publish,
    Batch,
    Transaction,
}

/// Where a part of an operation is to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Source {
    /// The table that is pushed to.
    Items,
    /// The table of documents that are written again and again.
    Documents,
    /// The topic.
    Events,
}

impl Source {
    pub(crate) const ALL: [Self; 3] = [Self::Items, Self::Documents, Self::Events];

    /// The name of the table or topic.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Items => "items",
            Self::Documents => "documents",
            Self::Events => "events",
        }
    }
}

impl Kind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Push, Self::Set, Self::Update, Self::Publish, Self::Batch, Self::Transaction];

    /// The parts that it has, which happen together or not at all.
    pub(crate) fn parts(self) -> &'static [Source] {
        match self {
            Self::Push => &[Source::Items],
            Self::Set | Self::Update => &[Source::Documents],
            Self::Publish => &[Source::Events],
            Self::Batch | Self::Transaction => {
                &[Source::Items, Source::Documents, Source::Documents, Source::Events]
            }
        }
    }
}

/// What its writer was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was done.
    Acknowledged,
    /// It was not done, and will not be.
    Refused,
    /// Nothing that says which.
    Open,
}

/// What an answer says about a part: the id of what was made, or the version of what was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) id: Option<String>,
    pub(crate) version: Option<i64>,
}

/// One operation.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) writer: usize,
    pub(crate) kind: Kind,
    /// It is repeated with its key until it is acknowledged, or was refused when nothing was in doubt and is given up.
    pub(crate) has_key: bool,
    /// When it was begun and when it was acknowledged, on the clock of the ledger: who began after another one was
    /// acknowledged comes behind it.
    pub(crate) begun: u64,
    pub(crate) acknowledged: Option<u64>,
    pub(crate) outcome: Outcome,
    /// Of each part, in the order of [`Kind::parts`], when it was acknowledged.
    pub(crate) replies: Vec<Reply>,
}

/// All operations; the number of one is its place.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Pages>>);

#[derive(Default)]
struct Pages {
    operations: Vec<Operation>,
    clock: u64,
    /// How many were acknowledged, by writer.
    progress: Vec<u64>,
    /// Answers that no fault explains.
    unexpected: Vec<String>,
    /// The disk was full, from now on or before.
    disk_was_full: bool,
}

impl Ledger {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().expect("nothing panics while it writes here")
    }

    /// Notes an operation before it is sent; gives its number.
    pub(crate) fn begin(&self, writer: usize, kind: Kind, has_key: bool) -> usize {
        let mut pages = self.pages();
        pages.clock += 1;
        let (begun, number) = (pages.clock, pages.operations.len());
        let (acknowledged, outcome, replies) = (None, Outcome::Open, Vec::new());
        let operation = Operation { writer, kind, has_key, begun, acknowledged, outcome, replies };
        pages.operations.push(operation);
        number
    }

    /// Notes that it was acknowledged.
    pub(crate) fn acknowledge(&self, number: usize, replies: Vec<Reply>) {
        let mut pages = self.pages();
        pages.clock += 1;
        let now = pages.clock;
        let operation = &mut pages.operations[number];
        (operation.outcome, operation.acknowledged, operation.replies) =
            (Outcome::Acknowledged, Some(now), replies);
        let writer = operation.writer;
        if pages.progress.len() <= writer {
            pages.progress.resize(writer + 1, 0);
        }
        pages.progress[writer] += 1;
    }

    /// Notes that it was refused.
    pub(crate) fn refuse(&self, number: usize) {
        self.pages().operations[number].outcome = Outcome::Refused;
    }

    /// Notes an answer that should not come.
    pub(crate) fn unexpected(&self, what: String) {
        self.pages().unexpected.push(what);
    }

    /// Notes that the disk is about to be full.
    pub(crate) fn disk_fills(&self) {
        self.pages().disk_was_full = true;
    }

    pub(crate) fn disk_was_full(&self) -> bool {
        self.pages().disk_was_full
    }

    /// How many operations of each writer were acknowledged.
    pub(crate) fn progress(&self) -> Vec<u64> {
        self.pages().progress.clone()
    }

    /// All of it.
    pub(crate) fn read(&self) -> (Vec<Operation>, Vec<String>) {
        let pages = self.pages();
        (pages.operations.clone(), pages.unexpected.clone())
    }
}
