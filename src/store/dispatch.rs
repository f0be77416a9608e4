//! From callers to connections: a fair queue in front of a few pipelines, each with a bounded number of statements.
//!
//! Queries go to a connection as soon as it has room: so many that those in front take no longer than [`PIPELINE_TIME`], because
//! what is with a connection is no longer in the fair queue. Reads and writes by id are taken by one that has nothing to do, all that
//! wait when it looks: they share a statement or a transaction (see `group`). It looks when its task has its turn, so what comes
//! in one record of a client, or at the same moment from several, is there. Writes of one document are never on two connections:
//! they would only wait there for one another, and could lock each other out.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use tokio_postgres::Row;

use super::error::StoreError;
use super::group::{GROUP_BYTES_MAX, GROUP_MAX};
use super::pool::RETRY_AFTER;
use super::queue::{FairQueue, Take};
use super::scope::{Lane, Stop};
use super::session::Access;
use super::statements::Call;

/// Statements that are given to one connection at once. Enough to keep its process busy while answers travel; few, because
/// each waits for those before it, and because what was given is no longer in the fair queue.
pub(super) const PIPELINE_MAX: usize = 32;

/// The most writes of one lane in a group: others have their turn before the rest of them, and a document that somebody has locked
/// holds up no more. With so many, what a transaction costs by itself is a small part.
const GROUP_LANE_MAX: usize = 32;

/// How long what is with a connection may take before the next statement has its turn there, as far as it can be known: by what
/// the last ones took. Several round trips, so that a connection never waits for a statement, and less than anybody
/// notices who waits behind somebody else's.
const PIPELINE_TIME: Duration = Duration::from_millis(5);

/// A new time for a statement counts as much as this many before it.
const PACE_MEMORY: u32 = 3;

/// How long the writes of a lane go alone after one of them made others be done again.
const APART: Duration = Duration::from_secs(1);

/// The most lanes that are remembered for it. Above it they are all forgotten.
const APART_MAX: usize = 1_024;

/// A caller and his statement, for both sides.
#[derive(Debug)]
pub(super) struct Ticket {
    lane: Lane,
    stop: AtomicU8,
}

const STOP_NONE: u8 = 0;
const STOP_CANCELLED: u8 = 1;
const STOP_TIMEOUT: u8 = 2;

impl Ticket {
    /// Who asks.
    pub(super) fn lane(&self) -> Lane {
        self.lane
    }

    /// Why the statement is to end early, if it is. The first reason counts.
    pub(super) fn stop(&self) -> Option<Stop> {
        match self.stop.load(Ordering::Acquire) {
            STOP_CANCELLED => Some(Stop::Cancelled),
            STOP_TIMEOUT => Some(Stop::Timeout),
            _ => None,
        }
    }

    fn set_stop(&self, stop: Stop) {
        let value = match stop {
            Stop::Cancelled => STOP_CANCELLED,
            Stop::Timeout => STOP_TIMEOUT,
        };
        let _the_first_counts =
            self.stop.compare_exchange(STOP_NONE, value, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// A statement on its way. While it exists its place is taken.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) ticket: Arc<Ticket>,
    pub(super) call: Arc<Call>,
    /// When the caller's time is over.
    pub(super) deadline: Option<Instant>,
    /// How often it was sent again.
    pub(super) repeats: usize,
    /// It was in a group that failed: it is done again by itself.
    pub(super) is_alone: bool,
    answer: oneshot::Sender<Result<Vec<Row>, StoreError>>,
    places: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Job {
    /// The document that it is about, if it is about one.
    pub(super) fn row(&self) -> Option<u64> {
        self.call.document.as_ref().map(|document| document.row)
    }

    /// Answers, and gives the place back first: the caller may be here again at once.
    pub(super) fn answer(self, result: Result<Vec<Row>, StoreError>) {
        drop(self.places);
        // The caller may have gone.
        let _nobody_there = self.answer.send(result);
    }
}

/// The side of the caller. Dropping it gives the statement up.
pub(super) struct Asked {
    dispatch: Arc<Dispatch>,
    ticket: Arc<Ticket>,
    pub(super) answer: oneshot::Receiver<Result<Vec<Row>, StoreError>>,
    is_over: bool,
}

impl Asked {
    /// The answer came.
    pub(super) fn over(mut self) {
        self.is_over = true;
    }

    /// Stops the statement. `true`: it was not sent and never will be.
    pub(super) fn stop(&mut self, stop: Stop) -> bool {
        self.is_over |= self.dispatch.stop(&self.ticket, stop);
        self.is_over
    }

    /// Takes the statement back if no connection has taken it, unless its turn is next.
    pub(super) fn withdraw_if_waiting(&mut self) -> bool {
        self.is_over |= self.dispatch.withdraw_waiting(&self.ticket);
        self.is_over
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.is_over {
            self.dispatch.stop(&self.ticket, Stop::Cancelled);
        }
    }
}

/// A connection, as the queue sees it.
#[derive(Debug)]
struct Line {
    is_live: bool,
    /// Statements that it was given and has not finished.
    load: usize,
    /// What a statement took of late.
    pace: Duration,
    /// Since when the first of them is the first.
    since: Instant,
    inbox: VecDeque<Job>,
    bell: Arc<Notify>,
    /// It was told to look, and has not looked since.
    is_called: bool,
    /// The documents that it writes: until it has nothing to do.
    rows: Vec<u64>,
}

impl Line {
    fn new() -> Self {
        Self {
            is_live: false,
            load: 0,
            // A beginner gets few.
            pace: PIPELINE_TIME / 2,
            since: Instant::now(),
            inbox: VecDeque::new(),
            bell: Arc::default(),
            is_called: false,
            rows: Vec::new(),
        }
    }

    /// Whether it may be given one more statement that goes by itself.
    fn has_room(&self, now: Instant) -> bool {
        let load = u32::try_from(self.load).unwrap_or(u32::MAX);
        let is_short = self.pace.saturating_mul(load) < PIPELINE_TIME && now - self.since < PIPELINE_TIME;
        self.is_live && (self.load == 0 || self.load < PIPELINE_MAX && is_short)
    }

    /// Some of its statements have ended.
    fn note_finished(&mut self, finished: usize, now: Instant) {
        let each = (now - self.since) / u32::try_from(finished).unwrap_or(u32::MAX).max(1);
        self.pace = (self.pace * PACE_MEMORY + each) / (PACE_MEMORY + 1);
        self.since = now;
    }
}

#[derive(Debug)]
struct State {
    lines: Vec<Line>,
    waiting: FairQueue<Job>,
    access: Access,
    /// Which line writes a document.
    writing: HashMap<u64, usize>,
    /// Lanes whose writes go alone, and until when.
    apart: HashMap<Lane, Instant>,
    is_closed: bool,
}

/// The queue of one kind of connections.
#[derive(Debug)]
pub(super) struct Dispatch {
    pub(super) access: Access,
    state: Mutex<State>,
    /// Notified when a connection is there.
    pub(super) arrived: Notify,
    /// Notified while a statement finds no connection.
    pub(super) wanted: Notify,
    /// Notified after each write that was committed.
    pub(super) written: Arc<Notify>,
}

impl Dispatch {
    pub(super) fn new(access: Access, lines: usize, written: Arc<Notify>) -> Self {
        let lines = (0..lines).map(|_| Line::new()).collect();
        let state = State {
            lines,
            waiting: FairQueue::default(),
            access,
            writing: HashMap::new(),
            apart: HashMap::new(),
            is_closed: false,
        };
        Self { access, state: Mutex::new(state), arrived: Notify::new(), wanted: Notify::new(), written }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a connection.
    pub(super) fn is_live(&self) -> bool {
        self.state().lines.iter().any(|line| line.is_live)
    }

    /// Puts a statement into the queue.
    pub(super) fn ask(
        self: &Arc<Self>,
        lane: Lane,
        call: Call,
        deadline: Option<Instant>,
        places: (OwnedSemaphorePermit, OwnedSemaphorePermit),
    ) -> Asked {
        let ticket = Arc::new(Ticket { lane, stop: AtomicU8::new(STOP_NONE) });
        let (sender, answer) = oneshot::channel();
        let job = Job {
            ticket: Arc::clone(&ticket),
            call: Arc::new(call),
            deadline,
            repeats: 0,
            is_alone: false,
            answer: sender,
            places,
        };
        let mut state = self.state();
        if state.is_closed {
            drop(state);
            job.answer(Err(StoreError::Unavailable { retry_after: RETRY_AFTER }));
        } else {
            state.waiting.push(lane, job);
            if !state.hand_out() {
                // One that pauses for long tries now; one in its short pause takes it as said in advance.
                self.wanted.notify_one();
            }
        }
        Asked { dispatch: Arc::clone(self), ticket, answer, is_over: false }
    }

    /// Refuses the newest statement of the lane that has the most in the queue, for one of a lane that has less. Answers
    /// whether there was one.
    pub(super) fn make_room(&self, lane: Lane) -> bool {
        let taken = self.state().waiting.take_from_longest(lane);
        taken.map(|job| job.answer(Err(StoreError::Unavailable { retry_after: RETRY_AFTER }))).is_some()
    }

    /// Puts back what was taken and did nothing, in its order.
    pub(super) fn give_back(&self, jobs: Vec<Job>) {
        let mut state = self.state();
        if state.is_closed {
            drop(state);
            for job in jobs {
                job.answer(Err(StoreError::Unavailable { retry_after: RETRY_AFTER }));
            }
            return;
        }
        for job in jobs.into_iter().rev() {
            state.waiting.push_front(job.ticket.lane, job);
        }
        state.hand_out();
    }

    /// A write of the lane was refused, and those who shared its transaction had to be done again: for a while its writes
    /// go alone.
    pub(super) fn keep_apart(&self, lane: Lane) {
        let mut state = self.state();
        if state.apart.len() >= APART_MAX {
            state.apart.clear();
        }
        state.apart.insert(lane, Instant::now() + APART);
    }

    /// A connection has finished some statements: what it is to do next.
    pub(super) fn exchange(&self, line: usize, finished: usize) -> VecDeque<Job> {
        let mut state = self.state();
        state.lines[line].load -= finished;
        state.lines[line].is_called = false;
        let is_idle = state.lines[line].load == 0;
        if finished > 0 && is_idle {
            state.release(line);
        }
        if !state.access.is_grouped() {
            if finished > 0 {
                state.lines[line].note_finished(finished, Instant::now());
                state.hand_out();
            }
            return std::mem::take(&mut state.lines[line].inbox);
        }
        let group = if is_idle { state.take_group(line) } else { VecDeque::new() };
        if !group.is_empty() {
            // What it did not take is for the next one. Where it found nothing for itself, others find nothing either.
            state.hand_out();
        }
        group
    }

    /// A connection is there. Answers what rings when there is something for it.
    pub(super) fn open(&self, line: usize) -> Arc<Notify> {
        let bell = {
            let mut state = self.state();
            state.lines[line].is_live = true;
            state.hand_out();
            Arc::clone(&state.lines[line].bell)
        };
        self.arrived.notify_waiters();
        bell
    }

    /// A connection is gone, and with it what it had; what it had not begun waits for another one.
    pub(super) fn shut(&self, line: usize) {
        let mut state = self.state();
        state.release(line);
        let line = &mut state.lines[line];
        (line.is_live, line.is_called) = (false, false);
        line.load = 0;
        let inbox = std::mem::take(&mut line.inbox);
        for job in inbox.into_iter().rev() {
            state.waiting.push_front(job.ticket.lane, job);
        }
        state.hand_out();
    }

    /// Takes no more, and answers what waits.
    pub(super) fn close(&self) {
        let waiting: Vec<Job> = {
            let mut state = self.state();
            state.is_closed = true;
            for line in &mut state.lines {
                line.is_live = false;
            }
            let mut waiting: Vec<Job> = state.waiting.drain().collect();
            waiting.extend(state.lines.iter_mut().flat_map(|line| std::mem::take(&mut line.inbox)));
            waiting
        };
        for job in waiting {
            job.answer(Err(StoreError::Unavailable { retry_after: RETRY_AFTER }));
        }
    }

    /// Ends a statement early. `true`: it had not been taken, and is gone; else its connection sees to it.
    fn stop(&self, ticket: &Arc<Ticket>, stop: Stop) -> bool {
        let is_it = |job: &Job| Arc::ptr_eq(&job.ticket, ticket);
        // What is taken out is dropped after the lock is free.
        let taken = {
            let mut state = self.state();
            let mut taken = state.waiting.remove(ticket.lane, is_it);
            let mut emptied = None;
            if taken.is_none() {
                for (index, line) in state.lines.iter_mut().enumerate() {
                    if let Some(at) = line.inbox.iter().position(is_it) {
                        taken = line.inbox.remove(at);
                        line.load -= 1;
                        emptied = (line.load == 0).then_some(index);
                        break;
                    }
                }
            }
            if let Some(line) = emptied {
                state.release(line);
            }
            if taken.is_none() {
                ticket.set_stop(stop);
                for line in state.lines.iter().filter(|line| line.is_live && line.load > 0) {
                    line.bell.notify_one();
                }
            } else {
                state.hand_out();
            }
            taken
        };
        taken.is_some()
    }

    fn withdraw_waiting(&self, ticket: &Arc<Ticket>) -> bool {
        let is_it = |job: &Job| Arc::ptr_eq(&job.ticket, ticket);
        let taken = {
            let mut state = self.state();
            if !state.waiting.contains(ticket.lane, is_it) {
                return false;
            }
            let live = state.lines.iter().filter(|line| line.is_live).count();
            if live == 0 {
                self.wanted.notify_one();
            } else if state.waiting.turn(ticket.lane, is_it).is_some_and(|turn| turn < live) {
                // It goes to the first connection that ends what it does: those in front are others'.
                return false;
            }
            state.waiting.remove(ticket.lane, is_it)
        };
        taken.is_some()
    }
}

impl State {
    /// Gives what waits to the connections that have room, always to the one with the least. Answers whether there is a
    /// connection at all.
    fn hand_out(&mut self) -> bool {
        if self.access.is_grouped() {
            self.call_one();
            return self.lines.iter().any(|line| line.is_live);
        }
        let now = Instant::now();
        while let Some(line) =
            self.lines.iter_mut().filter(|line| line.has_room(now)).min_by_key(|line| line.load)
        {
            let Some(job) = self.waiting.pop() else { return true };
            if line.load == 0 {
                line.since = now;
            }
            line.load += 1;
            line.inbox.push_back(job);
            line.bell.notify_one();
        }
        self.lines.iter().any(|line| line.is_live)
    }

    /// Has a connection that has nothing to do look for a group, unless one is about to.
    fn call_one(&mut self) {
        if self.waiting.len() == 0 || self.lines.iter().any(|line| line.is_called) {
            return;
        }
        if let Some(line) = self.lines.iter_mut().find(|line| line.is_live && line.load == 0) {
            line.is_called = true;
            line.bell.notify_one();
        }
    }

    /// Takes for a connection that has nothing to do what waits, as much as may go together.
    fn take_group(&mut self, line: usize) -> VecDeque<Job> {
        let now = Instant::now();
        let Self { lines, waiting, writing, apart, access, .. } = self;
        let writes = *access == Access::Write;
        apart.retain(|_, until| *until > now);
        let (mut count, mut bytes, mut is_full) = (0, 0, false);
        let mut of_lanes: HashMap<Lane, usize> = HashMap::new();
        let taken = waiting.take_some(|job| {
            if is_full || count >= GROUP_MAX {
                return Take::Stop;
            }
            let of_lane = of_lanes.entry(job.ticket.lane).or_default();
            if writes && *of_lane >= GROUP_LANE_MAX {
                return Take::NoneOfLane;
            }
            let row = job.row();
            if writes && row.is_some_and(|row| writing.get(&row).is_some_and(|other| *other != line)) {
                return Take::No;
            }
            let goes_alone = row.is_none() || job.is_alone || apart.contains_key(&job.ticket.lane);
            if count > 0 && (goes_alone || bytes + job.call.len > GROUP_BYTES_MAX) {
                return Take::No;
            }
            (count, bytes, is_full) = (count + 1, bytes + job.call.len, goes_alone);
            *of_lane += 1;
            writing.extend(row.filter(|_| writes).map(|row| (row, line)));
            Take::Yes
        });
        let line = &mut lines[line];
        line.load = taken.len();
        line.rows.extend(taken.iter().filter(|_| writes).filter_map(Job::row));
        taken.into()
    }

    /// A connection has nothing to do: what it wrote may be written by others.
    fn release(&mut self, line: usize) {
        for row in std::mem::take(&mut self.lines[line].rows) {
            self.writing.remove(&row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::statements::{Operation, Point, StatementKey};
    use super::super::types::TablePtr;
    use super::*;
    use futures_util::FutureExt;
    use tokio::sync::Semaphore;

    fn write(row: Option<u64>) -> Call {
        let table = Arc::new(TablePtr::new("s".into(), "t".into()));
        let document = row.map(|row| Point { row, id: row.to_string(), writer: "w".into() });
        Call {
            key: StatementKey::Documents(table, Operation::Set, None),
            params: Vec::new(),
            len: 1,
            document,
        }
    }

    struct Bench {
        dispatch: Arc<Dispatch>,
        places: Arc<Semaphore>,
        asked: Vec<Asked>,
    }

    impl Bench {
        fn new(lines: usize) -> Self {
            Self::of(Access::Write, lines)
        }

        fn of(access: Access, lines: usize) -> Self {
            let dispatch = Arc::new(Dispatch::new(access, lines, Arc::default()));
            for line in 0..lines {
                dispatch.open(line);
            }
            Self { dispatch, places: Arc::new(Semaphore::new(1_000)), asked: Vec::new() }
        }

        fn ask(&mut self, lane: u8, row: Option<u64>) {
            let place = || Arc::clone(&self.places).try_acquire_owned().expect("there is room");
            let asked = self.dispatch.ask(Lane([lane; 16]), write(row), None, (place(), place()));
            self.asked.push(asked);
        }

        fn rows(jobs: &VecDeque<Job>) -> Vec<Option<u64>> {
            jobs.iter().map(Job::row).collect()
        }
    }

    #[tokio::test]
    async fn writes_gather_while_a_connection_works_and_one_document_is_on_one_connection() {
        let mut bench = Bench::new(2);
        for (line, row) in [(0, 1), (1, 2)] {
            bench.ask(1, Some(row));
            assert_eq!(
                Bench::rows(&bench.dispatch.exchange(line, 0)),
                [Some(row)],
                "nothing waits for company"
            );
        }
        for row in [1, 3, 3, 4] {
            bench.ask(1, Some(row));
        }
        let group = bench.dispatch.exchange(1, 1);
        assert_eq!(Bench::rows(&group), [Some(3), Some(3), Some(4)], "1 is written by the other connection");
        assert_eq!(Bench::rows(&bench.dispatch.exchange(0, 1)), [Some(1)], "and then again");
        bench.ask(1, Some(3));
        assert_eq!(Bench::rows(&bench.dispatch.exchange(0, 1)), []);
        assert_eq!(
            Bench::rows(&bench.dispatch.exchange(1, 2)),
            [],
            "a part of a group leaves its rows taken"
        );
        assert_eq!(Bench::rows(&bench.dispatch.exchange(0, 0)), []);
        bench.dispatch.shut(1);
        assert_eq!(
            Bench::rows(&bench.dispatch.exchange(0, 0)),
            [Some(3)],
            "a connection that is gone has none"
        );
    }

    #[tokio::test]
    async fn one_connection_is_told_and_takes_what_came_until_it_looks() {
        let mut bench = Bench::new(3);
        let bells: Vec<_> = bench.dispatch.state().lines.iter().map(|line| Arc::clone(&line.bell)).collect();
        let rung =
            || -> Vec<bool> { bells.iter().map(|bell| bell.notified().now_or_never().is_some()).collect() };
        for row in [Some(1), Some(2), None, Some(3)] {
            bench.ask(1, row);
        }
        assert_eq!(rung(), [true, false, false]);
        assert_eq!(Bench::rows(&bench.dispatch.exchange(0, 0)), [Some(1), Some(2), Some(3)]);
        assert_eq!(rung(), [false, true, false], "another one is told of what it left");
        assert_eq!(Bench::rows(&bench.dispatch.exchange(1, 0)), [None]);
        bench.ask(1, Some(1));
        assert_eq!(rung(), [false, false, true]);
        assert_eq!(Bench::rows(&bench.dispatch.exchange(2, 0)), [], "the first one writes it");
        assert_eq!(rung(), [false, false, false], "and nobody else is told in vain");
        bench.ask(1, Some(4));
        assert_eq!(Bench::rows(&bench.dispatch.exchange(2, 0)), [Some(4)]);
        assert_eq!(Bench::rows(&bench.dispatch.exchange(0, 3)), [Some(1)]);
    }

    #[tokio::test]
    async fn a_lane_with_many_writes_leaves_a_part_of_them_for_later() {
        let mut bench = Bench::new(2);
        for row in 0..40 {
            bench.ask(1, Some(row));
        }
        bench.ask(2, Some(100));
        let mut expected: Vec<_> = (0..32).map(Some).collect();
        expected.insert(1, Some(100));
        assert_eq!(Bench::rows(&bench.dispatch.exchange(0, 0)), expected);
        let rest: Vec<_> = (32..40).map(Some).collect();
        assert_eq!(Bench::rows(&bench.dispatch.exchange(1, 0)), rest);
    }

    #[tokio::test]
    async fn what_does_not_group_goes_alone_and_is_not_passed_over_for_ever() {
        let mut bench = Bench::new(1);
        bench.ask(1, Some(1));
        assert_eq!(Bench::rows(&bench.dispatch.exchange(0, 0)), [Some(1)]);
        for row in [Some(2), None, Some(3)] {
            bench.ask(1, row);
        }
        bench.ask(2, Some(4));
        let group = bench.dispatch.exchange(0, 1);
        assert_eq!(Bench::rows(&group), [Some(2), Some(4), Some(3)]);
        bench.ask(3, Some(5));
        assert_eq!(Bench::rows(&bench.dispatch.exchange(0, 3)), [None]);
        bench.dispatch.keep_apart(Lane([1; 16]));
        for row in [6, 7] {
            bench.ask(1, Some(row));
        }
        assert_eq!(Bench::rows(&bench.dispatch.exchange(0, 1)), [Some(5)]);
        assert_eq!(Bench::rows(&bench.dispatch.exchange(0, 1)), [Some(6)]);
        assert_eq!(Bench::rows(&bench.dispatch.exchange(0, 1)), [Some(7)]);
    }

    #[tokio::test]
    async fn what_is_given_back_comes_first_and_in_its_order() {
        let mut bench = Bench::new(1);
        bench.ask(1, Some(1));
        assert_eq!(Bench::rows(&bench.dispatch.exchange(0, 0)), [Some(1)]);
        for row in 2..=4 {
            bench.ask(1, Some(row));
        }
        let mut group: Vec<Job> = bench.dispatch.exchange(0, 1).into();
        assert_eq!(group.len(), 3);
        bench.ask(1, Some(5));
        for job in &mut group {
            job.is_alone = true;
        }
        bench.dispatch.give_back(group);
        for row in 2..=5 {
            let finished = if row == 2 { 3 } else { 1 };
            assert_eq!(Bench::rows(&bench.dispatch.exchange(0, finished)), [Some(row)]);
        }
    }

    /// The lanes of what a connection is given, by their first bytes.
    fn lanes(jobs: &VecDeque<Job>) -> Vec<u8> {
        jobs.iter().map(|job| job.ticket.lane.0[0]).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_not_given_out_in_advance() {
        let mut bench = Bench::of(Access::Planned, 1);
        for _ in 0..100 {
            bench.ask(1, None);
        }
        let mut given = bench.dispatch.exchange(0, 0).len();
        assert_eq!(given, 2, "of what is not known yet");
        for _ in 0..20 {
            tokio::time::advance(Duration::from_micros(10)).await;
            given = given - 1 + bench.dispatch.exchange(0, 1).len();
        }
        assert_eq!(given, PIPELINE_MAX, "of what is short");
        // The head takes its time: what comes now waits where it has its turn.
        for _ in 0..PIPELINE_MAX {
            tokio::time::advance(Duration::from_secs(1)).await;
            given = given - 1 + bench.dispatch.exchange(0, 1).len();
        }
        assert_eq!(given, 1, "of what takes long");
        bench.ask(2, None);
        assert_eq!(lanes(&bench.dispatch.exchange(0, 1)), [1]);
        assert_eq!(lanes(&bench.dispatch.exchange(0, 1)), [2], "each lane has its turn");
    }

    #[tokio::test(start_paused = true)]
    async fn whose_turn_is_next_is_not_refused() {
        let mut bench = Bench::of(Access::Planned, 1);
        bench.ask(1, None);
        assert_eq!(bench.dispatch.exchange(0, 0).len(), 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        for lane in [1, 1, 2] {
            bench.ask(lane, None);
        }
        let [_, first, second, other] = &mut *bench.asked else { panic!("there are four") };
        assert!(!first.withdraw_if_waiting());
        assert!(second.withdraw_if_waiting(), "it is not the first of its lane");
        assert!(other.withdraw_if_waiting(), "a turn is before it");
        bench.dispatch.shut(0);
        let [_, first, ..] = &mut *bench.asked else { panic!("there are four") };
        assert!(first.withdraw_if_waiting(), "there is no connection");
    }
}
