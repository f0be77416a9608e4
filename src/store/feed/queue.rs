//! The bounded queue between the tailer and one subscription.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::change::{ChangeKind, EndReason, Record};
use super::conflate::{Conflated, Queued};
use super::filter::{Filter, Images, judge_unfiltered};
use super::frontier::Frontier;

/// What a subscription does when its reader falls behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// It ends, and says with which cursor to go on.
    #[default]
    Close,
    /// It loses its oldest changes, and says how many.
    DropOldest,
    /// It loses nothing: what does not fit is read from the log once the queue is empty again.
    Block,
    /// Changes of one document that wait become one, and it says how many went that way. It ends as with `Close` when
    /// more documents have changed than the queue holds.
    Conflate,
    /// What waits is thrown away, and a snapshot of now follows.
    Resnapshot,
}

/// How much makes a queue full.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueLimits {
    pub(super) events: usize,
    pub(super) bytes: usize,
}

/// What a look into the queue found.
#[derive(Debug)]
pub(super) enum Taken {
    /// Changes, and how many were lost before the first of them since the subscription began.
    Changes(Vec<Queued>, u64),
    /// Nothing now.
    Empty,
    /// Everything that the queue had was taken, and what came after it was let go: it is in the log.
    Behind,
    /// Nothing, and nothing will come.
    Ended(EndReason),
}

/// What the queue does with a change that comes.
#[derive(Debug)]
enum Mode {
    /// Lets it go: the subscription reads it from the log. So it is before the first read, and when the queue overran
    /// during a read.
    Pass,
    /// Holds it until the read from the log is done, which tells which ones it had.
    Hold,
    /// Holds it unless it was in the read, which was of this moment.
    Live(Frontier),
    /// Lets it go since the queue was full: what it holds is still given out, then the subscription reads on by its policy.
    Behind,
    /// Takes no more; what it holds is still given out, and then the reason.
    Ended(EndReason),
}

#[derive(Debug)]
struct State {
    mode: Mode,
    changes: VecDeque<Queued>,
    /// Behind `changes`, and only with [`Overflow::Conflate`] while it is live: what was held during a read may have been
    /// in the read, so it is not merged with what comes later.
    conflated: Conflated,
    /// Of both.
    bytes: usize,
    dropped: u64,
}

/// One subscription, as the hub sees it.
#[derive(Debug)]
pub(super) struct Slot {
    filter: Option<Filter>,
    overflow: Overflow,
    limits: QueueLimits,
    state: Mutex<State>,
    /// Wakes the subscription. There is one waiter at most, so that a stored permit is enough.
    pub(super) ready: Notify,
}

impl Slot {
    pub(super) fn new(filter: Option<Filter>, overflow: Overflow, limits: QueueLimits) -> Self {
        let state = State {
            mode: Mode::Pass,
            changes: VecDeque::new(),
            conflated: Conflated::default(),
            bytes: 0,
            dropped: 0,
        };
        Self { filter, overflow, limits, state: Mutex::new(state), ready: Notify::new() }
    }

    pub(super) fn filter(&self) -> Option<&Filter> {
        self.filter.as_ref()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock leaves it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a read from the log: what comes from now on is held. The moment of the read has to be taken after this.
    pub(super) fn hold(&self) {
        let mut state = self.state();
        if !matches!(state.mode, Mode::Ended(_)) {
            state.mode = Mode::Hold;
            state.clear();
        }
    }

    /// Ends a read that was of the moment `seen`. `false` when changes were let go in the meantime: read on from there.
    pub(super) fn go_live(&self, seen: &Frontier) -> bool {
        let mut state = self.state();
        match state.mode {
            Mode::Pass => return false,
            Mode::Ended(_) => return true,
            // Not the mode of a read: each begins with `hold`.
            Mode::Behind => return false,
            Mode::Hold | Mode::Live(_) => {}
        }
        state.changes.retain(|queued| !seen.holds(queued.record.xid));
        state.bytes = state.changes.iter().map(Queued::size).sum();
        state.mode = Mode::Live(seen.clone());
        true
    }

    /// Puts changes in, those that the subscription is to see. Never waits.
    pub(super) fn offer(&self, changes: &[(Arc<Record>, Images<'_>)]) {
        let Some(filter) = &self.filter else {
            let mut state = self.state();
            let was_empty = state.len() == 0;
            for (record, _) in changes {
                self.put(&mut state, record, judge_unfiltered(record.op));
            }
            return self.wake_if(was_empty, state);
        };
        for (record, images) in changes {
            // A look first: a filter takes longer than the lock.
            if self.state().takes(record)
                && let Some(kind) = filter.judge(images)
            {
                let mut state = self.state();
                let was_empty = state.len() == 0;
                // The reader may have changed the mode while the filter was at work.
                self.put(&mut state, record, kind);
                self.wake_if(was_empty, state);
            }
        }
    }

    /// Wakes the subscription when there is something in the queue that was empty.
    fn wake_if(&self, was_empty: bool, state: MutexGuard<'_, State>) {
        let is_news = was_empty && state.len() > 0;
        drop(state);
        if is_news {
            self.ready.notify_one();
        }
    }

    /// Puts a change in that the subscription is to see, if it takes it now.
    fn put(&self, state: &mut State, record: &Arc<Record>, kind: ChangeKind) {
        if !state.takes(record) {
            return;
        }
        let mut queued = Queued::new(Arc::clone(record), kind);
        let conflates = self.overflow == Overflow::Conflate && matches!(state.mode, Mode::Live(_));
        if conflates && let Some(earlier) = state.conflated.remove(&record.id) {
            state.bytes -= earlier.size();
            state.dropped += 1;
            let Some(merged) = earlier.followed_by(queued) else {
                // The reader never saw the document, and it is gone.
                state.dropped += 1;
                return;
            };
            queued = merged;
        }
        if !self.make_room(state) {
            return;
        }
        state.bytes += queued.size();
        if conflates { state.conflated.push(queued) } else { state.changes.push_back(queued) }
    }

    /// Applies the limits. `false` when the change is not to be queued.
    fn make_room(&self, state: &mut State) -> bool {
        while state.is_full(self.limits) {
            match (&state.mode, self.overflow) {
                (Mode::Live(_), Overflow::DropOldest) => {
                    state.pop();
                    state.dropped += 1;
                }
                (Mode::Live(_), Overflow::Block) => {
                    state.mode = Mode::Behind;
                    return false;
                }
                (Mode::Live(_), Overflow::Resnapshot) => {
                    state.mode = Mode::Behind;
                    state.dropped += u64::try_from(state.len()).unwrap_or(u64::MAX);
                    state.clear();
                    self.ready.notify_one();
                    return false;
                }
                (Mode::Live(_), Overflow::Close | Overflow::Conflate) => {
                    state.mode = Mode::Ended(EndReason::Lagged);
                    self.ready.notify_one();
                    return false;
                }
                _ => {
                    state.mode = Mode::Pass;
                    state.clear();
                    return false;
                }
            }
        }
        true
    }

    /// Takes up to `max` changes out.
    pub(super) fn take(&self, max: usize) -> Taken {
        let mut state = self.state();
        let mut changes = Vec::with_capacity(max.min(state.len()));
        while changes.len() < max {
            let Some(queued) = state.pop() else { break };
            changes.push(queued);
        }
        match &state.mode {
            _ if !changes.is_empty() => {
                if state.len() > 0 {
                    self.ready.notify_one();
                }
                Taken::Changes(changes, state.dropped)
            }
            Mode::Ended(reason) => Taken::Ended(reason.clone()),
            Mode::Behind => Taken::Behind,
            _ => Taken::Empty,
        }
    }

    /// Whether it is live, lets nothing go, and everything was taken out.
    pub(super) fn is_drained(&self) -> bool {
        let state = self.state();
        matches!(state.mode, Mode::Live(_)) && state.len() == 0
    }

    /// What the subscription does when its reader falls behind.
    pub(super) fn overflow(&self) -> Overflow {
        self.overflow
    }

    /// How many changes wait.
    pub(super) fn waiting(&self) -> usize {
        self.state().len()
    }

    /// Ends the subscription, after what is queued.
    pub(super) fn end(&self, reason: EndReason) {
        let mut state = self.state();
        if !matches!(state.mode, Mode::Ended(_)) {
            state.mode = Mode::Ended(reason);
        }
        drop(state);
        self.ready.notify_one();
    }

    /// Why it was ended from outside, if it was.
    pub(super) fn ended(&self) -> Option<EndReason> {
        match &self.state().mode {
            Mode::Ended(reason) => Some(reason.clone()),
            _ => None,
        }
    }
}

impl State {
    fn takes(&self, record: &Record) -> bool {
        match &self.mode {
            Mode::Hold => true,
            Mode::Live(seen) => !seen.holds(record.xid),
            Mode::Pass | Mode::Behind | Mode::Ended(_) => false,
        }
    }

    /// A queue that is not full takes a change whatever its size: else a large document could never be seen by anybody whom
    /// it finds with a few small ones.
    fn is_full(&self, limits: QueueLimits) -> bool {
        self.len() > 0 && (self.len() >= limits.events || self.bytes >= limits.bytes)
    }

    fn len(&self) -> usize {
        self.changes.len() + self.conflated.len()
    }

    fn pop(&mut self) -> Option<Queued> {
        let queued = self.changes.pop_front().or_else(|| self.conflated.pop())?;
        self.bytes -= queued.size();
        Some(queued)
    }

    fn clear(&mut self) {
        self.changes = VecDeque::new();
        self.conflated = Conflated::default();
        self.bytes = 0;
    }
}
