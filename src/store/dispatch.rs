//! From callers to connections: a fair queue in front of a few pipelines, each with a bounded number of statements.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use tokio_postgres::Row;

use super::error::StoreError;
use super::pool::RETRY_AFTER;
use super::queue::FairQueue;
use super::scope::{Lane, Stop};
use super::session::Access;
use super::statements::Call;

/// Statements that are given to one connection at once. Enough to keep its process busy while answers travel; few, because
/// each waits for those before it, and because what was given is no longer in the fair queue.
pub(super) const PIPELINE_MAX: usize = 32;

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
    answer: oneshot::Sender<Result<Vec<Row>, StoreError>>,
    places: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Job {
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

    /// Takes the statement back if it waits and there is no connection that could take it.
    pub(super) fn withdraw_if_stranded(&mut self) -> bool {
        self.is_over |= self.dispatch.withdraw_stranded(&self.ticket);
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
#[derive(Debug, Default)]
struct Line {
    is_live: bool,
    /// Statements that it was given and has not finished.
    load: usize,
    inbox: VecDeque<Job>,
    bell: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    lines: Vec<Line>,
    waiting: FairQueue<Job>,
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
        let lines = (0..lines).map(|_| Line::default()).collect();
        let state = State { lines, waiting: FairQueue::default(), is_closed: false };
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

    /// Puts back what was taken and did nothing.
    pub(super) fn give_back(&self, job: Job) {
        let mut state = self.state();
        state.waiting.push_front(job.ticket.lane, job);
        state.hand_out();
    }

    /// A connection has finished some statements: what it is to do next.
    pub(super) fn exchange(&self, line: usize, finished: usize) -> VecDeque<Job> {
        let mut state = self.state();
        let line = {
            state.lines[line].load -= finished;
            if finished > 0 {
                state.hand_out();
            }
            &mut state.lines[line]
        };
        std::mem::take(&mut line.inbox)
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
        let line = &mut state.lines[line];
        line.is_live = false;
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
            if taken.is_none() {
                for line in &mut state.lines {
                    if let Some(at) = line.inbox.iter().position(is_it) {
                        taken = line.inbox.remove(at);
                        line.load -= 1;
                        break;
                    }
                }
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

    fn withdraw_stranded(&self, ticket: &Arc<Ticket>) -> bool {
        let is_it = |job: &Job| Arc::ptr_eq(&job.ticket, ticket);
        let taken = {
            let mut state = self.state();
            let is_live = state.lines.iter().any(|line| line.is_live);
            if !is_live && state.waiting.contains(ticket.lane, is_it) {
                self.wanted.notify_one();
                state.waiting.remove(ticket.lane, is_it)
            } else {
                None
            }
        };
        taken.is_some()
    }
}

impl State {
    /// Gives what waits to the connections that have room, always to the one with the least. Answers whether there is a
    /// connection at all.
    fn hand_out(&mut self) -> bool {
        let mut is_live = false;
        loop {
            let least = self.lines.iter_mut().filter(|line| line.is_live).min_by_key(|line| line.load);
            let Some(line) = least else { return is_live };
            is_live = true;
            if line.load >= PIPELINE_MAX {
                return true;
            }
            let Some(job) = self.waiting.pop() else { return true };
            line.load += 1;
            line.inbox.push_back(job);
            line.bell.notify_one();
        }
    }
}
