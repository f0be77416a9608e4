//! Transactions over lists on a real system, and what came of them: random ones from several clients, and some whose steps are
//! put in the one order that matters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::history::{Op, Outcome, Transaction};
use crate::parties::{Level, Party};

/// Clients at once; each has one transaction at a time.
const CLIENTS: usize = 6;
/// Lists that are worked on at a time: few, so that transactions meet.
const LISTS: u64 = 4;
/// Appends after which a list is left for a new one: a read gives all of it.
const APPENDS: u64 = 24;
/// Rounds of the transactions whose order is given, under the random ones.
pub(crate) const ROUNDS: usize = 5;

/// The same numbers in each run with a seed.
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        // Seeds that are neighbours begin far from each other.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

/// What the clients of a run share.
#[derive(Default)]
struct Recorder {
    clock: AtomicU64,
    elements: AtomicU64,
    history: Mutex<Vec<Transaction>>,
}

impl Recorder {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }
}

/// A transaction under way. Once it was refused something it does nothing more.
struct Session<'a> {
    recorder: &'a Recorder,
    party: Party<'a>,
    begun: u64,
    ops: Vec<Op>,
    refused: bool,
}

impl<'a> Session<'a> {
    async fn begin(recorder: &'a Recorder, level: &'a Level, client: usize) -> Self {
        let begun = recorder.now();
        let party = level.begin(client).await;
        Self { recorder, party, begun, ops: Vec::new(), refused: false }
    }

    async fn read(&mut self, key: &str) {
        if !self.refused {
            match self.party.read(key).await {
                Some(list) => self.ops.push(Op::Read(key.to_owned(), list)),
                None => self.refused = true,
            }
        }
    }

    async fn append(&mut self, key: &str) {
        if self.refused {
            return;
        }
        let element = self.recorder.elements.fetch_add(1, Ordering::Relaxed);
        // A level without an append of its own reads, and writes what it read with one element more.
        if !self.party.appends() {
            self.read(key).await;
        }
        self.write(key, element).await;
    }

    /// Writes a list with one element more than this transaction saw last, on every level.
    async fn write_over(&mut self, key: &str) {
        let element = self.recorder.elements.fetch_add(1, Ordering::Relaxed);
        self.party.appends_by_writing_over();
        self.write(key, element).await;
    }

    async fn write(&mut self, key: &str, element: u64) {
        if self.refused {
            return;
        }
        let seen = self.ops.iter().rev().find_map(|op| match op {
            Op::Read(read, list) if read == key => Some(list.clone()),
            _ => None,
        });
        // It counts as tried even when it was refused: nobody may ever see it then.
        self.ops.push(Op::Append(key.to_owned(), element));
        self.refused |= !self.party.append(key, seen, element).await;
    }

    async fn end(self, commits: bool) {
        let outcome = match (self.refused, commits) {
            (false, true) => self.party.commit().await,
            _ => {
                self.party.roll_back().await;
                Outcome::Aborted
            }
        };
        let ended = self.recorder.now();
        let done = Transaction { begun: self.begun, ended, outcome, ops: self.ops };
        self.recorder.history.lock().unwrap_or_else(PoisonError::into_inner).push(done);
    }
}

/// Plays transactions at a level for a while, and then reads every list.
pub(crate) async fn run(level: &Level, seed: u64, time: Duration) -> Vec<Transaction> {
    let recorder = Recorder::default();
    let until = Instant::now() + time;
    let random = join_all((0..CLIENTS).map(|client| random_client(&recorder, level, client, seed, until)));
    let arranged = async {
        for round in 0..ROUNDS {
            arranged(&recorder, level, round).await;
        }
    };
    tokio::join!(random, arranged);
    let mut keys: Vec<String> = {
        let history = recorder.history.lock().unwrap_or_else(PoisonError::into_inner);
        let ops = history.iter().flat_map(|transaction| &transaction.ops);
        ops.map(|op| match op {
            Op::Append(key, _) | Op::Read(key, _) => key.clone(),
        })
        .collect()
    };
    keys.sort_unstable();
    keys.dedup();
    // Few at a time: a transaction has a limit of time.
    for some in keys.chunks(20) {
        let mut last = Session::begin(&recorder, level, 0).await;
        for key in some {
            last.read(key).await;
        }
        assert!(!last.refused, "nobody is in the way of the last reads");
        last.end(true).await;
    }
    recorder.history.into_inner().unwrap_or_else(PoisonError::into_inner)
}

async fn random_client(recorder: &Recorder, level: &Level, client: usize, seed: u64, until: Instant) {
    let mut numbers = Numbers::new(seed.wrapping_add(u64::try_from(client).expect("a small number")));
    while Instant::now() < until {
        let mut session = Session::begin(recorder, level, client).await;
        let oldest = recorder.elements.load(Ordering::Relaxed) / APPENDS;
        let mut steps: Vec<(u64, bool)> =
            (0..=numbers.below(4)).map(|_| (oldest + numbers.below(LISTS), numbers.below(2) == 0)).collect();
        // Locks are taken in one order, so that transactions wait for each other and do not deadlock.
        steps.sort_unstable_by_key(|(list, appends)| (*appends, *list));
        for (list, appends) in steps {
            match appends {
                true => session.append(&format!("k{list}")).await,
                false => session.read(&format!("k{list}")).await,
            }
        }
        session.end(numbers.below(12) != 0).await;
    }
}

/// Transactions of two clients with their steps in one order, on lists of their own.
async fn arranged(recorder: &Recorder, level: &Level, round: usize) {
    let (one, two) = (CLIENTS, CLIENTS + 1);
    let key = |name: &str| format!("{name}{round}");
    // Write skew: each appends to a list that the other one saw without it.
    let (x, y) = (key("skew_x"), key("skew_y"));
    let (mut first, mut second) =
        (Session::begin(recorder, level, one).await, Session::begin(recorder, level, two).await);
    for session in [&mut first, &mut second] {
        session.read(&x).await;
        session.read(&y).await;
    }
    first.append(&x).await;
    second.append(&y).await;
    first.end(true).await;
    second.end(true).await;
    // Read skew: of two lists one is seen before, the other after a transaction that appended to both.
    let (x, y) = (key("read_x"), key("read_y"));
    let (mut first, mut second) =
        (Session::begin(recorder, level, one).await, Session::begin(recorder, level, two).await);
    first.read(&x).await;
    second.append(&x).await;
    second.append(&y).await;
    second.end(true).await;
    first.read(&y).await;
    first.end(true).await;
    // Lost update: both write what they saw with one element more.
    let x = key("lost");
    let (mut first, mut second) =
        (Session::begin(recorder, level, one).await, Session::begin(recorder, level, two).await);
    first.read(&x).await;
    second.read(&x).await;
    first.write_over(&x).await;
    first.end(true).await;
    second.write_over(&x).await;
    second.end(true).await;
}
