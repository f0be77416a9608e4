//! One session that many callers share: statements go out one behind the other, and their answers come in that order.
//!
//! The task that drives the session also sends the statements and takes their answers, so that neither a caller who waits
//! for something else nor one who is gone holds up those behind him.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, MaybeDone, maybe_done};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};

use super::canceller::Canceller;
use super::dispatch::{Dispatch, Job};
use super::error::StoreError;
use super::pool::RETRY_AFTER;
use super::session::{Access, Driver, Session, whole_message};
use super::sqlstate::{Failure, failure};
use super::statements::{Param, StatementKey};
use super::timeout::{LooseTimeout, set_statement};

/// The most prepared statements of a session: each keeps a plan in a Postgres process. Above it they are all forgotten.
pub(super) const STATEMENTS_MAX: usize = 1_000;

/// How often a statement that did nothing is sent again.
const REPEATS_MAX: usize = 3;

/// How often to look whether the session still answers.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The answer to a statement.
type Answer = BoxFuture<'static, Result<Vec<Row>, Error>>;

/// A statement that was sent.
struct Running {
    /// `None` for a setting of our own.
    job: Option<Job>,
    answer: MaybeDone<Answer>,
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
    running: VecDeque<Running>,
    /// When the first of `running` came to be the first.
    head_since: Instant,
    canceller: Canceller,
    timeout: LooseTimeout,
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
        longest: Duration,
        patience: Duration,
    ) {
        let Session { client, driver, .. } = session;
        let mut pipeline = Self {
            bell: dispatch.open(line),
            dispatch,
            line,
            canceller: Canceller::new(client.cancel_token()),
            client: Arc::new(client),
            statements: HashMap::new(),
            preparing: FuturesUnordered::new(),
            parked: HashMap::new(),
            running: VecDeque::new(),
            head_since: Instant::now(),
            timeout: LooseTimeout::new(longest),
            patience,
            finished: 0,
        };
        pipeline.run(driver).await;
        pipeline.end().await;
    }

    async fn run(&mut self, mut driver: Driver) {
        let mut look = tokio::time::interval(LOOK_EVERY);
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
                _ = look.tick(), if !is_idle => Wake::Look,
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
                    if self.head_since.elapsed() > self.patience {
                        tracing::warn!(
                            "Postgres gave no answer in {:?}: the connection is given up",
                            self.patience
                        );
                        return;
                    }
                }
            }
            self.fill().await;
            let is_wanted = self.running.front().is_some_and(Running::is_stopped);
            self.canceller.watch(is_wanted, is_another);
        }
    }

    /// Takes every answer that is there.
    async fn take_answers(&mut self) {
        loop {
            let Some(running) = self.running.pop_front() else { return };
            self.take_answer(running).await;
            if head(&mut self.running).now_or_never().is_none() {
                return;
            }
        }
    }

    async fn take_answer(&mut self, mut running: Running) {
        let elapsed = self.head_since.elapsed();
        self.head_since = Instant::now();
        let result = Pin::new(&mut running.answer).take_output().expect("the answer is complete");
        let Some(job) = running.job else {
            if result.is_err() {
                self.timeout.forget();
            }
            return;
        };
        let error = match result {
            Ok(rows) => {
                if self.dispatch.access == Access::Write {
                    self.dispatch.written.notify_one();
                }
                return self.finish(job, Ok(rows));
            }
            Err(error) => error,
        };
        match failure(&error) {
            Failure::Refused(error) => self.finish(job, Err(error)),
            Failure::Serialization => self.finish(job, Err(StoreError::Conflict)),
            Failure::Cancelled => match job.ticket.stop() {
                Some(stop) => self.finish(job, Err(stop.into())),
                // It was rolled back, so that it may be done again, a write too.
                None if self.canceller.may_have_hit(elapsed, running.limit) => self.repeat(job).await,
                None => self.finish(job, Err(StoreError::Timeout)),
            },
            Failure::Stale => {
                self.statements.remove(&job.call.key);
                self.repeat(job).await;
            }
            Failure::Broken => self.lose(job),
        }
    }

    /// Starts what the queue has for this session.
    async fn fill(&mut self) {
        loop {
            let jobs = self.dispatch.exchange(self.line, std::mem::take(&mut self.finished));
            if jobs.is_empty() {
                return;
            }
            for job in jobs {
                self.start(job).await;
            }
        }
    }

    async fn start(&mut self, job: Job) {
        if let Some(stop) = job.ticket.stop() {
            return self.finish(job, Err(stop.into()));
        }
        if job.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return self.finish(job, Err(StoreError::Timeout));
        }
        match self.statements.get(&job.call.key) {
            Some(statement) => {
                let statement = statement.clone();
                self.send(statement, job).await;
            }
            None => self.park(job),
        }
    }

    async fn send(&mut self, statement: Statement, job: Job) {
        let left = job.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if let Some(limit) = self.timeout.adapt(left) {
            let client = Arc::clone(&self.client);
            let set = async move { client.batch_execute(&set_statement(limit)).await.map(|()| Vec::new()) };
            self.push(None, set.boxed(), Duration::MAX).await;
        }
        let limit = self.timeout.in_force();
        let (client, call) = (Arc::clone(&self.client), Arc::clone(&job.call));
        let answer = async move { collect(&client, &statement, &call.params).await };
        self.push(Some(job), answer.boxed(), limit).await;
    }

    async fn push(&mut self, job: Option<Job>, answer: Answer, limit: Duration) {
        let mut answer = maybe_done(answer);
        // It is sent when it is polled for the first time; after that only the first one's answer can come.
        let _not_yet = futures_util::poll!(&mut answer);
        if self.running.is_empty() {
            self.head_since = Instant::now();
        }
        self.running.push_back(Running { job, answer, limit });
    }

    /// Keeps a statement until it is prepared. Those that come meanwhile wait for the same.
    fn park(&mut self, job: Job) {
        let key = job.call.key.clone();
        let parked = self.parked.entry(key.clone()).or_default();
        parked.push(job);
        if parked.len() == 1 {
            let client = Arc::clone(&self.client);
            let prepare = async move {
                let result = client.prepare(&key.sql()).await;
                (key, result)
            };
            self.preparing.push(prepare.boxed());
        }
    }

    async fn on_prepared(&mut self, key: StatementKey, result: Result<Statement, Error>) {
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
                return;
            }
            Err(error) => failure(&error),
        };
        for job in jobs {
            match &error {
                Failure::Refused(error) => self.finish(job, Err(error.clone())),
                Failure::Serialization => self.finish(job, Err(StoreError::Conflict)),
                // Preparing has no effect: a break in it is a statement that was not sent.
                Failure::Cancelled | Failure::Stale | Failure::Broken => self.repeat(job).await,
            }
        }
    }

    /// Sends something again that did nothing.
    async fn repeat(&mut self, mut job: Job) {
        job.repeats += 1;
        if job.repeats > REPEATS_MAX {
            tracing::warn!(statement = ?job.call.key, "a statement found no connection that lasted");
            return self.finish(job, Err(StoreError::Unavailable { retry_after: RETRY_AFTER }));
        }
        if self.client.is_closed() {
            self.finished += 1;
            return self.dispatch.give_back(job);
        }
        // Not through `start`, which would call itself: a repeated statement is prepared anew or already.
        match self.statements.get(&job.call.key).cloned() {
            Some(statement) => self.send(statement, job).await,
            None => self.park(job),
        }
    }

    /// The connection broke after it was sent.
    fn lose(&mut self, mut job: Job) {
        job.repeats += 1;
        if self.dispatch.access == Access::Write {
            self.finish(job, Err(StoreError::UnknownOutcome));
        } else if job.repeats > REPEATS_MAX {
            self.finish(job, Err(StoreError::Unavailable { retry_after: RETRY_AFTER }));
        } else {
            // A read may be sent twice.
            self.finished += 1;
            self.dispatch.give_back(job);
        }
    }

    fn finish(&mut self, job: Job, result: Result<Vec<Row>, StoreError>) {
        self.finished += 1;
        job.answer(result);
    }

    /// The session is over: what was answered before that counts, and the rest goes to another one or is lost.
    async fn end(mut self) {
        self.dispatch.shut(self.line);
        while let Some(mut running) = self.running.pop_front() {
            if futures_util::poll!(&mut running.answer).is_ready() {
                self.take_answer(running).await;
            } else if let Some(job) = running.job {
                self.lose(job);
            }
        }
        for (_, jobs) in std::mem::take(&mut self.parked) {
            for job in jobs {
                self.dispatch.give_back(job);
            }
        }
    }
}

impl Running {
    fn is_stopped(&self) -> bool {
        self.job.as_ref().is_some_and(|job| job.ticket.stop().is_some())
    }
}

/// Waits until the first one is answered; for ever when there is none.
async fn head(running: &mut VecDeque<Running>) {
    poll_fn(|cx| match running.front_mut() {
        Some(running) => Pin::new(&mut running.answer).poll(cx),
        None => std::task::Poll::Pending,
    })
    .await;
}

/// Runs a statement. `Ok` means that its transaction is committed: Postgres reports ReadyForQuery after that, and the row
/// stream ends with it. An error, too, is given when ReadyForQuery came: the error itself comes before what it undoes.
pub(super) async fn collect(
    client: &Client,
    statement: &Statement,
    params: &[Param],
) -> Result<Vec<Row>, Error> {
    let mut stream = pin!(client.query_raw(statement, params.iter().map(borrow)).await?);
    let mut rows = Vec::new();
    while let Some(row) = stream.next().await {
        match row {
            Ok(row) => rows.push(row),
            Err(error) => {
                if error.as_db_error().is_some() {
                    // The rest is ReadyForQuery, or the end of the connection.
                    let _rest = stream.next().await;
                }
                return Err(error);
            }
        }
    }
    Ok(rows)
}

/// A parameter as the library takes it.
pub(super) fn borrow(param: &Param) -> &(dyn ToSql + Sync) {
    param.as_ref()
}

/// Says in the log how a session ended.
pub(super) fn log_end(error: &Error) {
    tracing::debug!(error = whole_message(error), "a connection to Postgres ended");
}
