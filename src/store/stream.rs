//! Queries whose result is as long as it is: read through a portal, a piece at a time, as the reader takes them.
//!
//! Each has a session of its own for as long as it runs, in one snapshot, or that of its transaction. A reader that stops
//! reading stops the portal: what waits here is one chunk, and what Postgres has ready in the socket.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryStreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, IsolationLevel};

use super::endpoint;
use super::feed::{LOCK_LOG, MOMENT, Moment};
use super::session::{self, Access};
use super::sqlstate::{self, Verdict};
use super::statements::{Param, placeholders, rows};
use super::tables::{column, no_past};
use super::transactions::Transaction;
use super::{Document, DocumentId, Json, Order, Store, StoreError, TableName, TablePtr};

/// Streams at the same time: each has a session of Postgres, and a snapshot that keeps deleted rows from being collected.
pub const STREAMS_MAX: usize = 16;

/// What a caller is told to wait when so many run: most are over in seconds.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Rows that Postgres is asked for at once. They are taken from the socket as the reader takes them, so this bounds
/// round trips and not memory.
pub(super) const ROWS_PER_FETCH: i32 = 4_096;

/// Bytes of documents after which a chunk is handed over: a record's worth.
const CHUNK_LEN: usize = 64 * 1024;

/// Documents of a chunk: short ones, too, are to arrive before a record is full.
const CHUNK_DOCUMENTS: usize = 1_024;

/// How long a cancel may take to reach Postgres before the session is just cut.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

/// What a stream is asked for.
#[derive(Debug, Clone, Default)]
pub struct StreamQuery {
    /// Only documents that contain this (Postgres `@>`); absent, all.
    pub filter: Option<Json>,
    /// Their order.
    pub order: Order,
    /// The most documents; absent, all.
    pub limit: Option<u32>,
    /// The documents as they were at this moment; absent, as they are.
    pub at: Option<Moment>,
}

/// The documents of a query, in order and as of one moment.
#[derive(Debug)]
pub struct DocumentStream {
    chunks: mpsc::Receiver<Result<Vec<Document>, StoreError>>,
    task: JoinHandle<()>,
}

impl DocumentStream {
    /// The next documents; `None` after the last ones.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the connection broke: the documents so far are right, and there are more.
    /// [`StoreError::Timeout`] when the time of the query is over.
    pub async fn next(&mut self) -> Option<Result<Vec<Document>, StoreError>> {
        self.chunks.recv().await
    }

    /// Ends the query and waits until it has stopped. Dropping the stream ends it too.
    pub async fn close(mut self) {
        self.chunks.close();
        while self.chunks.recv().await.is_some() {}
        // A task that panicked is over too.
        let _over = self.task.await;
    }
}

impl Store {
    /// Streams the documents that match, all of them as of one moment, for at most `longest`. Retention waits while a stream
    /// reads an earlier moment than its own.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such table; [`StoreError::Reset`], from the stream, when the moment of the query is
    /// no longer kept; [`StoreError::Unavailable`] when [`STREAMS_MAX`] run.
    pub async fn stream(
        &self,
        table: &TableName,
        query: StreamQuery,
        longest: Duration,
    ) -> Result<DocumentStream, StoreError> {
        if let Some(filter) = &query.filter {
            filter.check()?;
        }
        if query.at.is_some() {
            self.outside_of_transaction()?;
        }
        let table = self.table(table).await?;
        if query.at.is_some() && table.is_attached() {
            return Err(no_past());
        }
        if let Some(transaction) = &self.1.transaction {
            let transaction = Arc::clone(transaction);
            let (sender, chunks) = mpsc::channel(1);
            let task = tokio::spawn(async move { read_inside(&transaction, &table, &query, &sender).await });
            return Ok(DocumentStream { chunks, task });
        }
        let (chunks, task) = self
            .in_session(move |client, sender| {
                async move { read(client, &table, &query, longest, sender).await }.boxed()
            })
            .await?;
        Ok(DocumentStream { chunks, task })
    }

    /// Runs a stream on a session of its own, until it has ended or nobody takes what it sends.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when [`STREAMS_MAX`] run.
    pub(super) async fn in_session<T, F>(&self, work: F) -> Result<(Pieces<T>, JoinHandle<()>), StoreError>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(
                &'a mut Client,
                &'a mpsc::Sender<Result<T, StoreError>>,
            ) -> BoxFuture<'a, Result<(), Broken>>
            + Send
            + 'static,
    {
        let busy = |_| StoreError::Unavailable { retry_after: RETRY_AFTER };
        let place = self.0.streams.clone().try_acquire_owned().map_err(busy)?;
        let session = session::open(&self.0.options, Access::Read).await.map_err(|error| {
            tracing::warn!(%error, "no connection for a stream");
            StoreError::Unavailable { retry_after: RETRY_AFTER }
        })?;
        let (sender, chunks) = mpsc::channel::<Result<T, StoreError>>(1);
        let driver = tokio::spawn(session.driver);
        let task = tokio::spawn(async move {
            let mut client = session.client;
            let cancel = client.cancel_token();
            let result = tokio::select! {
                result = work(&mut client, &sender) => result,
                () = sender.closed() => {
                    if let Err(error) = endpoint::cancel(&cancel, &session.tls, CANCEL_TIMEOUT).await {
                        tracing::debug!(%error, "a stream was not cancelled: its session is cut");
                    }
                    // A backend that waits for the socket hears no cancel, and no reader is left.
                    driver.abort();
                    Ok(())
                }
            };
            let refused = result.map_err(|broken| match broken {
                Broken::Postgres(error) => refusal(&error),
                Broken::Refused(error) => error,
            });
            if let Err(error) = refused {
                // Nobody may be left to hear it.
                let _unheard = sender.send(Err(error)).await;
            }
            drop(place);
        });
        Ok((chunks, task))
    }
}

/// Reads all rows into `sender`.
async fn read(
    client: &mut Client,
    table: &TablePtr,
    query: &StreamQuery,
    longest: Duration,
    sender: &mpsc::Sender<Result<Vec<Document>, StoreError>>,
) -> Result<(), Broken> {
    client.batch_execute(&settings(longest)).await?;
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    if let Some(moment) = &query.at {
        // Before the snapshot is taken: what this transaction sees in the log stays there until it ends.
        transaction.batch_execute(LOCK_LOG).await?;
        moment.check(&transaction.query_one(MOMENT, &[]).await?)?;
    }
    let statement = transaction.prepare(&sql(table, query)).await?;
    let params = params(query);
    let borrowed: Vec<&(dyn ToSql + Sync)> = params.iter().map(|param| &**param as _).collect();
    let portal = transaction.bind(&statement, &borrowed).await?;
    let mut chunks = Chunks::new(sender);
    loop {
        let rows = transaction.query_portal_raw(&portal, ROWS_PER_FETCH).await?;
        let mut rows = pin!(rows);
        let mut found = 0;
        while let Some(row) = rows.try_next().await? {
            found += 1;
            if chunks.take(&row).await.is_err() {
                return Ok(());
            }
        }
        if found < ROWS_PER_FETCH {
            break;
        }
    }
    chunks.flush().await;
    Ok(transaction.commit().await?)
}

/// The settings of a stream. The time that a reader takes counts, so it is that of the whole stream.
pub(super) fn settings(longest: Duration) -> String {
    let longest = longest.as_millis();
    format!(
        "SET statement_timeout = {longest}; SET idle_in_transaction_session_timeout = {longest}; \
         SET plan_cache_mode = force_custom_plan"
    )
}

/// What a stream sends, in pieces.
pub(super) type Pieces<T> = mpsc::Receiver<Result<T, StoreError>>;

/// Why a stream ended before its end.
pub(super) enum Broken {
    Postgres(tokio_postgres::Error),
    Refused(StoreError),
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl From<tokio_postgres::Error> for Broken {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

/// Reads all rows into `sender`, on the connection of a transaction. Nothing else uses it meanwhile: its rows may wait in
/// the socket as long as the reader likes, and no portal is needed.
async fn read_inside(
    transaction: &Transaction,
    table: &TablePtr,
    query: &StreamQuery,
    sender: &mpsc::Sender<Result<Vec<Document>, StoreError>>,
) {
    let rows = match transaction.stream(&sql(table, query), &params(query)).await {
        Ok(rows) => rows,
        Err(error) => {
            let _unheard = sender.send(Err(error)).await;
            return;
        }
    };
    let (mut rows, mut chunks) = (pin!(rows), Chunks::new(sender));
    loop {
        let row = tokio::select! {
            row = rows.try_next() => row,
            () = sender.closed() => return transaction.left_stream(),
        };
        match row {
            Ok(Some(row)) => {
                if chunks.take(&row).await.is_err() {
                    return transaction.left_stream();
                }
            }
            Ok(None) => return chunks.flush().await,
            Err(error) => {
                let _unheard = sender.send(Err(transaction.stream_failed(&error))).await;
                return;
            }
        }
    }
}

/// The chunk that is filled.
struct Chunks<'a> {
    sender: &'a mpsc::Sender<Result<Vec<Document>, StoreError>>,
    chunk: Vec<Document>,
    len: usize,
}

/// The reader is gone, or was told why there is no more.
struct Left;

impl<'a> Chunks<'a> {
    fn new(sender: &'a mpsc::Sender<Result<Vec<Document>, StoreError>>) -> Self {
        Self { sender, chunk: Vec::new(), len: 0 }
    }

    /// Adds a row, and hands the chunk over when it is full.
    async fn take(&mut self, row: &tokio_postgres::Row) -> Result<(), Left> {
        let Ok(document) = document(row) else {
            let _unheard = self.sender.send(Err(StoreError::Internal)).await;
            return Err(Left);
        };
        self.len += document.data.as_bytes().len() + document.id.as_str().len();
        self.chunk.push(document);
        if self.len < CHUNK_LEN && self.chunk.len() < CHUNK_DOCUMENTS {
            return Ok(());
        }
        self.len = 0;
        self.sender.send(Ok(std::mem::take(&mut self.chunk))).await.map_err(|_| Left)
    }

    /// Hands over what is left.
    async fn flush(self) {
        if !self.chunk.is_empty() {
            let _unheard = self.sender.send(Ok(self.chunk)).await;
        }
    }
}

fn document(row: &tokio_postgres::Row) -> Result<Document, StoreError> {
    Ok(Document { id: DocumentId::stored(column(row, 0)?), data: column(row, 1)?, version: column(row, 2)? })
}

/// Parameters, as the query has them: the moment, filter, path, limit.
fn sql(table: &TablePtr, query: &StreamQuery) -> String {
    let mut next = placeholders();
    let rows = rows(table, query.at.as_ref().map(Moment::past), &mut next);
    let filter = match &query.filter {
        Some(_) => format!(" AND data @> {}", next()),
        None => String::new(),
    };
    let direction = |descending: bool| if descending { " DESC" } else { "" };
    let order = match &query.order {
        Order::Insertion => "_order, id".to_owned(),
        Order::Id { descending } => format!("id{}", direction(*descending)),
        Order::Field { descending, .. } => {
            let direction = direction(*descending);
            format!("coalesce(data #> {}::text[], 'null'){direction}, id{direction}", next())
        }
    };
    let limit = match query.limit {
        Some(_) => format!(" LIMIT {}", next()),
        None => String::new(),
    };
    format!(
        "SELECT id, data, _version FROM {rows} WHERE _deleted_txid IS NULL{filter} ORDER BY {order}{limit}"
    )
}

fn params(query: &StreamQuery) -> Vec<Param> {
    let mut params = query.at.as_ref().map_or_else(Vec::new, Moment::params);
    if let Some(filter) = &query.filter {
        params.push(Box::new(filter.clone()));
    }
    if let Order::Field { path, .. } = &query.order {
        params.push(Box::new(path.clone()));
    }
    if let Some(limit) = query.limit {
        params.push(Box::new(i64::from(limit)));
    }
    params
}

fn refusal(error: &tokio_postgres::Error) -> StoreError {
    let unavailable = StoreError::Unavailable { retry_after: RETRY_AFTER };
    let Some(database) = error.as_db_error() else {
        tracing::warn!(error = session::whole_message(error), "a stream broke");
        return unavailable;
    };
    match sqlstate::judge(database) {
        Verdict::Refused(error) => error,
        // Nobody cancels a stream that is still read: its time is over.
        Verdict::Cancelled => StoreError::Timeout,
        Verdict::SessionLost | Verdict::Stale | Verdict::Serialization => unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_has_its_parameters_in_the_order_of_the_values() {
        let table = TablePtr::new("s".into(), "t\"".into());
        let all = StreamQuery {
            filter: Some(Json::new("{}")),
            order: Order::Field { path: vec!["a".into()], descending: true },
            limit: Some(3),
            at: None,
        };
        assert_eq!(
            sql(&table, &all),
            "SELECT id, data, _version FROM \"s\".\"t\"\"\" WHERE _deleted_txid IS NULL AND data @> $1 \
             ORDER BY coalesce(data #> $2::text[], 'null') DESC, id DESC LIMIT $3"
        );
        assert_eq!(params(&all).len(), 3);
        assert!(sql(&table, &StreamQuery::default()).ends_with("IS NULL ORDER BY _order, id"));
        assert_eq!(params(&StreamQuery::default()).len(), 0);
    }
}
