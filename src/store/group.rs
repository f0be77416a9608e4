//! Writes of several callers in one transaction: one commit, and one flush of the disk, for all of them.
//!
//! While a connection works, the writes that come wait; when it has done, it takes them together. Those of one operation,
//! table and writer are one statement; several statements stand between BEGIN and COMMIT. Writes of one document stay in
//! their order: the later one is in a later statement.
//!
//! Nobody is answered before the commit. When anything in a group fails, all of it was rolled back, and each write is done
//! again by itself: so a caller gets the answer to his own write, and nobody else's mistake. To wait for somebody's lock is
//! such a failure too: a group waits [`LOCK_PATIENCE`] and no longer, so that one document which is locked keeps the others
//! waiting only so long.
//!
//! Reads by id go the same way, without a transaction: those of one table are one statement.

use std::collections::{HashMap, VecDeque};
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, maybe_done};
use tokio_postgres::types::{IsNull, Kind, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Error, Row, Statement};

use super::dispatch::Job;
use super::pipeline::{collect, rows_of};
use super::statements::{Call, NOT_CHECKED, Param, StatementKey};

/// The most writes of a group: of these, what a transaction costs by itself is a few per cent.
pub(super) const GROUP_MAX: usize = 128;

/// About the most bytes of parameters of a group: a connection is not to be busy with one for long.
pub(super) const GROUP_BYTES_MAX: usize = 1024 * 1024;

/// How long a group waits for a lock of another writer.
const LOCK_PATIENCE: Duration = Duration::from_millis(50);

/// How long a group that is to end gets to end by itself before it is stopped, and its neighbours with it.
pub(super) const GROUP_GRACE: Duration = Duration::from_millis(50);

/// What came of a statement.
type Outcome = Result<Vec<Row>, Error>;

/// A statement of a group: of one job as it is, or of several as one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) key: StatementKey,
    /// The jobs, by their places in the group.
    pub(super) members: Vec<usize>,
}

/// Cuts a group into statements. All of its jobs are of documents by their ids.
pub(super) fn parts(jobs: &[Job]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    // By what a statement has in common, the last one; and by document, the last statement that writes it.
    let mut open: HashMap<(&StatementKey, &str), usize> = HashMap::new();
    let mut written: HashMap<u64, usize> = HashMap::new();
    for (place, job) in jobs.iter().enumerate() {
        let call = &*job.call;
        let Some(document) = &call.document else { continue };
        let before = written.get(&document.row).copied();
        let joined = open.get(&(&call.key, document.writer.as_str())).copied();
        let part = match joined.filter(|part| before.is_none_or(|before| *part > before)) {
            Some(part) if call.key.many().is_some() => part,
            _ => {
                parts.push(Part { key: call.key.clone(), members: Vec::new() });
                open.insert((&call.key, &document.writer), parts.len() - 1);
                parts.len() - 1
            }
        };
        parts[part].members.push(place);
        written.insert(document.row, part);
    }
    for part in &mut parts {
        if part.members.len() > 1
            && let Some(many) = part.key.many()
        {
            part.key = many;
            // The order of the key: reads come in it, and daemons that write the same documents do not lock each other out.
            part.members
                .sort_by_key(|place| jobs[*place].call.document.as_ref().map(|document| &document.id));
        }
    }
    parts
}

/// Sends a group: nothing waits for an answer before all of it is sent. The answers are those of the parts, and in a
/// transaction of BEGIN before them and COMMIT behind them.
pub(super) fn send(
    client: &Arc<Client>,
    parts: Vec<(Statement, Vec<Arc<Call>>)>,
    is_transaction: bool,
    lock_timeout: Duration,
) -> BoxFuture<'static, Vec<Outcome>> {
    let patience = lock_timeout.min(LOCK_PATIENCE).as_millis();
    let mut answers: Vec<BoxFuture<'static, Outcome>> = Vec::with_capacity(parts.len() + 2);
    if is_transaction {
        answers.push(command(client, format!("BEGIN; SET LOCAL lock_timeout = {patience}")));
    }
    let shared = client;
    for (statement, calls) in parts {
        let client = Arc::clone(shared);
        let leaves_checked = is_transaction && calls[0].key.leaves_checked();
        let answer = match <[Arc<Call>; 1]>::try_from(calls) {
            Ok([call]) => async move { collect(&client, &statement, &call.params).await }.boxed(),
            Err(calls) => async move { many(&client, &statement, &calls, patience).await }.boxed(),
        };
        answers.push(if leaves_checked {
            then(answer, command(shared, NOT_CHECKED.to_owned()))
        } else {
            answer
        });
    }
    if is_transaction {
        answers.push(command(shared, "COMMIT".to_owned()));
    }
    all(answers).boxed()
}

/// Sends a second statement behind one whose rows count: for what takes back that documents were checked.
pub(super) fn then(
    answer: BoxFuture<'static, Outcome>,
    taken_back: BoxFuture<'static, Outcome>,
) -> BoxFuture<'static, Outcome> {
    async move {
        // Polled in this order, they are sent in it.
        let (outcome, taken_back) = futures_util::join!(answer, taken_back);
        let rows = outcome?;
        taken_back.map(|_| rows)
    }
    .boxed()
}

fn command(client: &Arc<Client>, sql: String) -> BoxFuture<'static, Outcome> {
    let client = Arc::clone(client);
    async move { client.batch_execute(&sql).await.map(|()| Vec::new()) }.boxed()
}

/// Runs a statement for many documents.
async fn many(client: &Client, statement: &Statement, calls: &[Arc<Call>], patience: u128) -> Outcome {
    let column = |at: usize| Array(calls.iter().map(|call| &call.params[at]).collect());
    let ids = column(0);
    let [_, _, writer] = &*calls[0].params else {
        return rows_of(client.query_raw(statement, [&ids]).await?).await;
    };
    let (data, patience) = (column(1), patience.to_string());
    let params: [&(dyn ToSql + Sync); 4] = [&ids, &data, &**writer, &patience];
    rows_of(client.query_raw(statement, params).await?).await
}

/// Awaits all. A statement is sent when its answer is polled for the first time.
async fn all(answers: Vec<BoxFuture<'static, Outcome>>) -> Vec<Outcome> {
    let mut answers: Vec<_> = answers.into_iter().map(maybe_done).collect();
    for answer in &mut answers {
        let _not_yet = futures_util::poll!(answer);
    }
    let mut outcomes = Vec::with_capacity(answers.len());
    for mut answer in answers {
        (&mut answer).await;
        let outcome = std::pin::Pin::new(&mut answer).take_output();
        outcomes.push(outcome.expect("it was just awaited"));
    }
    outcomes
}

/// Shares the rows of a statement out among its jobs: `give` gets the place of each, and its row if there is one.
pub(super) fn share(part: &Part, jobs: &[Job], rows: Vec<Row>, mut give: impl FnMut(usize, Vec<Row>)) {
    let Some(column) = part.key.id_column() else {
        return give(part.members[0], rows);
    };
    let mut rows: VecDeque<Row> = rows.into();
    for place in &part.members {
        let id = jobs[*place].call.document.as_ref().map(|document| document.id.as_str());
        // Each id is there once at most. As a rule the rows have the order of the documents, so that it is the first one.
        let own = rows.iter().position(|row| row.try_get(column).ok() == id).and_then(|at| rows.remove(at));
        give(*place, own.into_iter().collect());
    }
}

/// Parameters of several statements as one: an array of what each has in one place.
#[derive(Debug)]
struct Array<'a>(Vec<&'a Param>);

impl ToSql for Array<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        let Kind::Array(element) = ty.kind() else { return Err("the parameter is no array".into()) };
        // `array_recv` in Postgres: dimensions, whether there are nulls, the type; of the dimension length and first
        // index; of each element its length and its bytes.
        out.put_i32(1);
        out.put_i32(0);
        out.put_u32(element.oid());
        out.put_i32(i32::try_from(self.0.len())?);
        out.put_i32(1);
        for value in &self.0 {
            let at = out.len();
            out.put_i32(0);
            if let IsNull::Yes = value.to_sql_checked(element, out)? {
                return Err("the parameter is null".into());
            }
            let len = i32::try_from(out.len() - at - size_of::<i32>())?;
            out[at..at + size_of::<i32>()].copy_from_slice(&len.to_be_bytes());
        }
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        matches!(ty.kind(), Kind::Array(_))
    }

    to_sql_checked!();
}
