//! One session that many callers share: statements go out one behind the other, and their answers come in that order.
//!
//! The task that drives the session also sends the statements and takes their answers, so that neither a caller who waits
//! for something else nor one who is gone holds up those behind him.

mod answers;
mod rows;

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{BoxFuture, MaybeDone, maybe_done};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_postgres::{Client, Error, Row, Statement};

use crate::store::StoreOptions;
use crate::store::canceller::{Canceller, GRACE};
use crate::store::dispatch::{Dispatch, Job};
use crate::store::error::StoreError;
use crate::store::group::{self, GROUP_GRACE, Part};
use crate::store::session::{Access, Driver, Session, patience};
use crate::store::sqlstate::{Failure, failure};
use crate::store::statements::StatementKey;
use crate::store::timeout::{LooseTimeout, set_statement};
pub(super) use rows::{borrow, collect, log_end, rows_of};

/// The most prepared statements of a session: each keeps a plan in a Postgres process. Above it they are all forgotten.
pub(super) const STATEMENTS_MAX: usize = 1_000;

/// How often a statement that did nothing is sent again.
const REPEATS_MAX: usize = 3;

/// How often to look whether the session still answers.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What was sent.
enum Work {
    /// A setting of our own.
    Setting(MaybeDone<Answer>),
    /// A statement.
    One(Job, MaybeDone<Answer>),
    /// Several reads, or several writes in one transaction.
    Group(Group, MaybeDone<BoxFuture<'static, Vec<Outcome>>>),
}

/// Jobs that share a transaction, and the statements that they became.
struct Group {
    jobs: Vec<Job>,
    parts: Vec<Part>,
    /// Several writes, between BEGIN and COMMIT.
    is_transaction: bool,
}

/// How a statement of a group ended that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nobody knows.
    Broken,
    /// It was not run, and has to be prepared anew.
    Stale,
    /// It was rolled back.
    Undone,
}

impl End {
    fn of(failure: &Failure) -> Self {
        match failure {
            Failure::Broken => Self::Broken,
            Failure::Stale => Self::Stale,
            Failure::Cancelled | Failure::Serialization | Failure::Refused(_) => Self::Undone,
        }
    }
}

/// What came of a statement.
type Outcome = Result<Vec<Row>, Error>;

/// The answer to a statement.
type Answer = BoxFuture<'static, Outcome>;

/// Something that was sent.
struct Running {
    work: Work,
    /// How long Postgres may work on it at most.
    limit: Duration,
}

type Prepared = (StatementKey, Result<Statement, Error>);

/// A session and what it works on.
pub(super) struct Pipeline {
    dispatch: Arc<Dispatch>,
    line: usize,
    bell: Arc<Notify>,
    client: Arc<Client>,
    statements: HashMap<StatementKey, Statement>,
    preparing: FuturesUnordered<BoxFuture<'static, Prepared>>,
    /// Statements whose prepared form is on its way.
    parked: HashMap<StatementKey, Vec<Job>>,
    /// A group that waits until its statements are prepared.
    gathered: Vec<Job>,
    running: VecDeque<Running>,
    /// When the first of `running` came to be the first.
    head_since: Instant,
    /// Since when it owes an answer and has given none, while it owes any.
    silent_since: Instant,
    canceller: Canceller,
    timeout: LooseTimeout,
    lock_timeout: Duration,
    /// After so long without an answer the connection is dead, whatever the network says.
    patience: Duration,
    /// Jobs that were answered or given back since the queue was last told.
    finished: usize,
}

/// What woke the pipeline.
enum Wake {
    Ended,
    Bell,
    Answered,
    Prepared(Prepared),
    Canceller,
    Look,
}

impl Pipeline {
    /// Serves the queue on a session until that ends.
    pub(super) async fn serve(
        dispatch: Arc<Dispatch>,
        line: usize,
        session: Session,
        options: &StoreOptions,
    ) {
        let Session { client, driver, tls, .. } = session;
        let mut pipeline = Self {
            bell: dispatch.open(line),
            dispatch,
            line,
            canceller: Canceller::new(client.cancel_token(), tls),
            client: Arc::new(client),
            statements: HashMap::new(),
            preparing: FuturesUnordered::new(),
            parked: HashMap::new(),
            gathered: Vec::new(),
            running: VecDeque::new(),
            head_since: Instant::now(),
            silent_since: Instant::now(),
            timeout: LooseTimeout::new(options.statement_timeout),
            lock_timeout: options.lock_timeout,
            patience: patience(options),
            finished: 0,
        };
        pipeline.run(driver).await;
        pipeline.end().await;
    }

    async fn run(&mut self, mut driver: Driver) {
        let mut look = crate::time::interval(LOOK_EVERY);
        self.fill().await;
        loop {
            let is_idle = self.running.is_empty();
            let wake = tokio::select! {
                biased;
                () = &mut driver => Wake::Ended,
                () = head(&mut self.running) => Wake::Answered,
                () = self.bell.notified() => Wake::Bell,
                Some(prepared) = self.preparing.next() => Wake::Prepared(prepared),
                () = self.canceller.step() => Wake::Canceller,
                _ = look.tick(), if self.owes_answers() => Wake::Look,
            };
            let mut is_another = is_idle;
            match wake {
                Wake::Ended => return,
                Wake::Bell | Wake::Canceller => {}
                Wake::Answered => {
                    is_another = true;
                    self.take_answers().await;
                }
                Wake::Prepared((key, result)) => self.on_prepared(key, result).await,
                Wake::Look => {
                    if self.silent_since.elapsed() > self.patience {
                        tracing::warn!(
                            "Postgres gave no answer in {:?}: the connection is given up",
                            self.patience
                        );
                        return;
                    }
                }
            }
            self.fill().await;
            let head = self.running.front();
            let is_wanted = head.is_some_and(Running::is_stopped);
            let grace = if head.is_some_and(Running::is_group) { GROUP_GRACE } else { GRACE };
            self.canceller.watch(is_wanted, is_another, grace);
        }
    }

    /// Whether it was sent something that it has not answered.
    fn owes_answers(&self) -> bool {
        !(self.running.is_empty() && self.preparing.is_empty())
    }

    /// Something is about to be sent.
    fn note_sending(&mut self) {
        if !self.owes_answers() {
            self.silent_since = Instant::now();
        }
    }

    /// Starts what the queue has for this session.
    async fn fill(&mut self) {
        loop {
            let jobs = self.dispatch.exchange(self.line, std::mem::take(&mut self.finished));
            if jobs.is_empty() {
                return;
            }
            if self.dispatch.access.is_grouped() && jobs.len() > 1 {
                self.start_group(jobs.into()).await;
                continue;
            }
            for job in jobs {
                self.start(job).await;
            }
        }
    }

    /// Gives back a job that is still wanted, and answers one that is not.
    fn wanted(&mut self, job: Job) -> Option<Job> {
        if let Some(stop) = job.ticket.stop() {
            self.finish(job, Err(stop.into()));
            return None;
        }
        if job.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            self.finish(job, Err(StoreError::Timeout));
            return None;
        }
        Some(job)
    }

    async fn start(&mut self, job: Job) {
        let Some(job) = self.wanted(job) else { return };
        match self.statements.get(&job.call.key) {
            Some(statement) => {
                let statement = statement.clone();
                self.send(statement, job).await;
            }
            None => self.park(job),
        }
    }

    async fn send(&mut self, statement: Statement, job: Job) {
        let limit = self.set_timeout(job.deadline).await;
        let (client, call) = (Arc::clone(&self.client), Arc::clone(&job.call));
        let mut answer = maybe_done(async move { collect(&client, &statement, &call.params).await }.boxed());
        // It is sent when it is polled for the first time; after that only the first one's answer can come.
        let _not_yet = futures_util::poll!(&mut answer);
        self.push(Work::One(job, answer), limit);
    }

    /// Makes the timeout of the session fit to a deadline. Answers the one in force.
    async fn set_timeout(&mut self, deadline: Option<Instant>) -> Duration {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if let Some(limit) = self.timeout.adapt(left) {
            let client = Arc::clone(&self.client);
            let set = async move { client.batch_execute(&set_statement(limit)).await.map(|()| Vec::new()) };
            let mut answer = maybe_done(set.boxed());
            let _not_yet = futures_util::poll!(&mut answer);
            self.push(Work::Setting(answer), Duration::MAX);
        }
        self.timeout.in_force()
    }

    fn push(&mut self, work: Work, limit: Duration) {
        self.note_sending();
        if self.running.is_empty() {
            self.head_since = Instant::now();
        }
        self.running.push_back(Running { work, limit });
    }

    /// Sends writes as one transaction, once all their statements are prepared.
    async fn start_group(&mut self, jobs: Vec<Job>) {
        let jobs: Vec<Job> = jobs.into_iter().filter_map(|job| self.wanted(job)).collect();
        if jobs.len() <= 1 {
            for job in jobs {
                self.start(job).await;
            }
            return;
        }
        let parts = group::parts(&jobs);
        let mut prepared = Vec::with_capacity(parts.len());
        for part in &parts {
            match self.statements.get(&part.key) {
                Some(statement) => {
                    let calls = part.members.iter().map(|place| Arc::clone(&jobs[*place].call)).collect();
                    prepared.push((statement.clone(), calls));
                }
                None if self.parked.contains_key(&part.key) => {}
                None => {
                    self.parked.insert(part.key.clone(), Vec::new());
                    self.prepare(part.key.clone());
                }
            }
        }
        if prepared.len() < parts.len() {
            self.gathered = jobs;
            return;
        }
        // The longest time that anybody has: whoever has less is stopped by a request of his own.
        let deadlines = jobs.iter().map(|job| job.deadline);
        let latest = deadlines.reduce(|a, b| Some(a?.max(b?))).flatten();
        let limit = self.set_timeout(latest).await;
        let is_transaction = self.dispatch.access == Access::Write && parts.len() > 1;
        let sent = group::send(&self.client, prepared, is_transaction, self.lock_timeout);
        let mut answer = maybe_done(sent);
        let _not_yet = futures_util::poll!(&mut answer);
        self.push(Work::Group(Group { jobs, parts, is_transaction }, answer), limit);
    }

    /// Keeps a statement until it is prepared. Those that come meanwhile wait for the same.
    fn park(&mut self, job: Job) {
        let key = job.call.key.clone();
        let parked = self.parked.entry(key.clone()).or_default();
        parked.push(job);
        if parked.len() == 1 {
            self.prepare(key);
        }
    }

    fn prepare(&mut self, key: StatementKey) {
        self.note_sending();
        let client = Arc::clone(&self.client);
        let prepare = async move {
            let result = client.prepare(&key.sql()).await;
            (key, result)
        };
        self.preparing.push(prepare.boxed());
    }

    async fn on_prepared(&mut self, key: StatementKey, result: Result<Statement, Error>) {
        self.silent_since = Instant::now();
        let jobs = self.parked.remove(&key).unwrap_or_default();
        let error = match result {
            Ok(statement) => {
                if self.statements.len() >= STATEMENTS_MAX {
                    self.statements.clear();
                }
                self.statements.insert(key, statement.clone());
                for job in jobs {
                    self.start(job).await;
                }
                let gathered = std::mem::take(&mut self.gathered);
                return self.start_group(gathered).await;
            }
            Err(error) => failure(&error),
        };
        // Each finds out by itself what it was.
        let gathered = std::mem::take(&mut self.gathered);
        self.do_again(gathered);
        for job in jobs {
            match &error {
                Failure::Refused(error) => self.finish(job, Err(error.clone())),
                Failure::Serialization => self.finish(job, Err(StoreError::Conflict)),
                // Preparing has no effect: a break in it is a statement that was not sent.
                Failure::Cancelled | Failure::Stale | Failure::Broken => self.repeat(job).await,
            }
        }
    }

    /// The session is over: what was answered before that counts, and the rest goes to another one or is lost.
    async fn end(mut self) {
        self.dispatch.shut(self.line);
        while let Some(mut running) = self.running.pop_front() {
            if poll_fn(|cx| Poll::Ready(running.poll(cx))).await.is_ready() {
                self.take_answer(running).await;
                continue;
            }
            match running.work {
                Work::Setting(_) => {}
                Work::One(job, _) => self.lose(job),
                Work::Group(group, _) => group.jobs.into_iter().for_each(|job| self.lose(job)),
            }
        }
        self.dispatch.give_back(std::mem::take(&mut self.gathered));
        for (_, jobs) in std::mem::take(&mut self.parked) {
            self.dispatch.give_back(jobs);
        }
    }
}

impl Running {
    fn is_stopped(&self) -> bool {
        match &self.work {
            Work::Setting(_) => false,
            Work::One(job, _) => job.ticket.stop().is_some(),
            Work::Group(group, _) => group.jobs.iter().any(|job| job.ticket.stop().is_some()),
        }
    }

    fn is_group(&self) -> bool {
        matches!(self.work, Work::Group(..))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.work {
            Work::Setting(answer) | Work::One(_, answer) => Pin::new(answer).poll(cx),
            Work::Group(_, answer) => Pin::new(answer).poll(cx),
        }
    }
}

/// Waits until the first one is answered; for ever when there is none.
async fn head(running: &mut VecDeque<Running>) {
    poll_fn(|cx| match running.front_mut() {
        Some(running) => running.poll(cx),
        None => Poll::Pending,
    })
    .await;
}
