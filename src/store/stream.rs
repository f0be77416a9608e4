//! Queries whose result is as long as it is: read through a portal, a piece at a time, as the reader takes them.
//!
//! Each has a session of its own for as long as it runs, in one snapshot, or that of its transaction. A reader that stops
//! reading stops the portal: what waits here is one chunk, and what Postgres has ready in the socket.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryStreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, IsolationLevel};

use super::endpoint;
use super::feed::{LOCK_LOG, MOMENT, Moment};
use super::page_cursor::{PageCursor, PageKey, Paged, Place};
use super::query::{form, place_params};
use super::scope::Lane;
use super::session::{self, Access};
use super::sqlstate::{self, Verdict};
use super::statements::{OrderKind, Param, behind, placeholders, rows};
use super::tables::{column, no_past};
use super::transactions::Transaction;
use super::{Document, DocumentId, Json, Order, Store, StoreError, TableName, TablePtr};

/// Streams at the same time: each has a session of Postgres, and a snapshot that keeps deleted rows from being collected.
pub const STREAMS_MAX: usize = 16;

/// Streams of one lane at the same time: who asks for many and takes nothing of them leaves places to the others.
pub const STREAMS_OF_LANE_MAX: usize = 4;

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

/// The places for streams.
#[derive(Debug, Default)]
pub(super) struct StreamPlaces(Arc<Mutex<HashMap<Lane, usize>>>);

/// A place, given back when it is dropped.
#[derive(Debug)]
struct StreamPlace {
    places: Arc<Mutex<HashMap<Lane, usize>>>,
    lane: Lane,
}

impl StreamPlaces {
    fn take(&self, lane: Lane) -> Result<StreamPlace, StoreError> {
        let mut of_lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if of_lanes.get(&lane).is_some_and(|count| *count >= STREAMS_OF_LANE_MAX) {
            return Err(StoreError::Busy(
                "as many streams as a connection may have are not read to their end",
            ));
        }
        if of_lanes.values().sum::<usize>() >= STREAMS_MAX {
            return Err(StoreError::Unavailable { retry_after: RETRY_AFTER });
        }
        *of_lanes.entry(lane).or_default() += 1;
        Ok(StreamPlace { places: Arc::clone(&self.0), lane })
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut of_lanes = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = of_lanes.entry(self.lane) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// What a stream is asked for.
#[derive(Debug, Clone, Default)]
pub struct StreamQuery {
    /// Only documents that contain this (Postgres `@>`); absent, all.
    pub filter: Option<Json>,
    /// Their order.
    pub order: Order,
    /// The most documents; absent, all.
    pub limit: Option<u32>,
    /// The `next` of the query before.
    pub after: Option<String>,
    /// The documents as they were at this moment; absent, as they are.
    pub at: Option<Moment>,
}

/// The documents of a query, in order and as of one moment.
#[derive(Debug)]
pub struct DocumentStream {
    chunks: mpsc::Receiver<Result<Vec<Document>, StoreError>>,
    task: JoinHandle<()>,
    next_page: Arc<OnceLock<String>>,
}

/// A query on its way.
struct Reading {
    table: Arc<TablePtr>,
    name: TableName,
    query: StreamQuery,
    after: Option<Place>,
    page_key: PageKey,
    next_page: Arc<OnceLock<String>>,
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

    /// Where the documents behind the limit begin. Known when the last document was taken; `None`: there are no more, or the query
    /// has no limit.
    pub fn next_page(&self) -> Option<&str> {
        self.next_page.get().map(String::as_str)
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
        let paged = Paged::in_order(table, &query.order, query.filter.as_ref());
        let after = self.place(query.after.as_deref(), &paged, query.at.as_ref())?;
        let name = table.clone();
        let table = self.table(table).await?;
        if query.at.is_some() && table.is_attached() {
            return Err(no_past());
        }
        let next_page = Arc::new(OnceLock::new());
        let page_key = self.0.page_key.clone();
        let reading = Reading { table, name, query, after, page_key, next_page: Arc::clone(&next_page) };
        if let Some(transaction) = &self.1.transaction {
            let transaction = Arc::clone(transaction);
            let (sender, chunks) = mpsc::channel(1);
            let task = tokio::spawn(async move { read_inside(&transaction, &reading, &sender).await });
            return Ok(DocumentStream { chunks, task, next_page });
        }
        let (chunks, task) = self
            .in_session(move |client, sender| {
                async move { read(client, &reading, longest, sender).await }.boxed()
            })
            .await?;
        Ok(DocumentStream { chunks, task, next_page })
    }

    /// Runs a stream on a session of its own, until it has ended or nobody takes what it sends.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when [`STREAMS_MAX`] run, [`StoreError::Busy`] when [`STREAMS_OF_LANE_MAX`] of the lane do.
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
        let place = self.0.streams.take(self.1.lane)?;
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
    reading: &Reading,
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
    if let Some(moment) = &reading.query.at {
        // Before the snapshot is taken: what this transaction sees in the log stays there until it ends.
        transaction.batch_execute(LOCK_LOG).await?;
        moment.check(&transaction.query_one(MOMENT, &[]).await?)?;
    }
    let statement = transaction.prepare(&reading.sql()).await?;
    let params = reading.params();
    let borrowed: Vec<&(dyn ToSql + Sync)> = params.iter().map(|param| &**param as _).collect();
    let portal = transaction.bind(&statement, &borrowed).await?;
    let mut chunks = Chunks::new(sender, reading);
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
    reading: &Reading,
    sender: &mpsc::Sender<Result<Vec<Document>, StoreError>>,
) {
    let rows = match transaction.stream(&reading.sql(), &reading.params()).await {
        Ok(rows) => rows,
        Err(error) => {
            let _unheard = sender.send(Err(error)).await;
            return;
        }
    };
    let (mut rows, mut chunks) = (pin!(rows), Chunks::new(sender, reading));
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
    reading: &'a Reading,
    /// How many more documents are given out; absent, all.
    left: Option<u32>,
    /// The place of the last one that is.
    last: Option<Place>,
    chunk: Vec<Document>,
    len: usize,
}

/// The reader is gone, or was told why there is no more.
struct Left;

impl<'a> Chunks<'a> {
    fn new(sender: &'a mpsc::Sender<Result<Vec<Document>, StoreError>>, reading: &'a Reading) -> Self {
        Self { sender, reading, left: reading.query.limit, last: None, chunk: Vec::new(), len: 0 }
    }

    /// The row behind the limit, which is not given out: it says that there is more.
    fn end_page(&mut self) -> Result<(), StoreError> {
        let Reading { name, query, page_key, next_page, .. } = self.reading;
        let paged = Paged::in_order(name, &query.order, query.filter.as_ref());
        if let Some(place) = self.last.take() {
            let text = PageCursor::new(place, query.at.as_ref()).encode(page_key, &paged)?;
            // There is one such row.
            let _once = next_page.set(text);
        }
        Ok(())
    }

    /// Remembers the row that may be the last one.
    fn count(&mut self, row: &tokio_postgres::Row) -> Result<(), StoreError> {
        let Some(left) = &mut self.left else { return Ok(()) };
        *left -= 1;
        if *left == 0 {
            let id = column(row, 0)?;
            self.last = Some(match form(&self.reading.query.order).0 {
                OrderKind::Insertion => Place::Insertion { order: column(row, 3)?, id },
                OrderKind::Id => Place::Id { id },
                OrderKind::Field => Place::Field { key: column(row, 3)?, id },
            });
        }
        Ok(())
    }

    /// Adds a row, and hands the chunk over when it is full.
    async fn take(&mut self, row: &tokio_postgres::Row) -> Result<(), Left> {
        let taken = if self.left == Some(0) {
            self.end_page().map(|()| None)
        } else {
            self.count(row).and_then(|()| document(row)).map(Some)
        };
        let document = match taken {
            Ok(Some(document)) => document,
            Ok(None) => return Ok(()),
            Err(error) => {
                let _unheard = self.sender.send(Err(error)).await;
                return Err(Left);
            }
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

impl Reading {
    /// Parameters, as the query has them: the moment, filter, path, the place behind which it begins, limit. Columns: id,
    /// document, version; where there is a limit, also what the order goes by besides the id.
    fn sql(&self) -> String {
        let query = &self.query;
        let mut next = placeholders();
        let rows = rows(&self.table, query.at.as_ref().map(Moment::past), &mut next);
        let filter = match &query.filter {
            Some(_) => format!(" AND data @> {}", next()),
            None => String::new(),
        };
        let (kind, descending) = form(&query.order);
        let direction = if descending { " DESC" } else { "" };
        let (key, order) = match kind {
            OrderKind::Insertion => ("_order".to_owned(), format!("_order{direction}, id{direction}")),
            OrderKind::Id => ("id".to_owned(), format!("id{direction}")),
            OrderKind::Field => {
                let key = format!("coalesce(data #> {}::text[], 'null')", next());
                let order = format!("{key}{direction}, id{direction}");
                (key, order)
            }
        };
        let after = match &self.after {
            Some(_) => format!(" AND {}", behind(kind, descending, &key, &mut next)),
            None => String::new(),
        };
        let (columns, limit) = match (query.limit, kind) {
            (None, _) => (String::new(), String::new()),
            (Some(_), OrderKind::Field) => (format!(", ({key})::text"), format!(" LIMIT {}", next())),
            (Some(_), _) => (format!(", {key}"), format!(" LIMIT {}", next())),
        };
        format!(
            "SELECT id, data, _version{columns} FROM {rows} WHERE _deleted_txid IS NULL{filter}{after} \
             ORDER BY {order}{limit}"
        )
    }

    fn params(&self) -> Vec<Param> {
        let query = &self.query;
        let mut params = query.at.as_ref().map_or_else(Vec::new, Moment::params);
        if let Some(filter) = &query.filter {
            params.push(Box::new(filter.clone()));
        }
        if let Order::Field { path, .. } = &query.order {
            params.push(Box::new(path.clone()));
        }
        params.extend(self.after.as_ref().map(place_params).unwrap_or_default());
        if let Some(limit) = query.limit {
            // One more says whether there is more.
            params.push(Box::new(i64::from(limit) + 1));
        }
        params
    }
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

    fn reading(query: StreamQuery, after: Option<Place>) -> Reading {
        Reading {
            table: Arc::new(TablePtr::new("s".into(), "t\"".into())),
            name: TableName::parse("t").expect("it is a name"),
            query,
            after,
            page_key: PageKey::new(b""),
            next_page: Arc::default(),
        }
    }

    #[test]
    fn the_statement_has_its_parameters_in_the_order_of_the_values() {
        let all = StreamQuery {
            filter: Some(Json::new("{}")),
            order: Order::Field { path: vec!["a".into()], descending: true },
            limit: Some(3),
            after: None,
            at: None,
        };
        let after = Some(Place::Field { key: "1".into(), id: "x".into() });
        let all = reading(all, after);
        assert_eq!(
            all.sql(),
            "SELECT id, data, _version, (coalesce(data #> $2::text[], 'null'))::text FROM \"s\".\"t\"\"\" \
             WHERE _deleted_txid IS NULL AND data @> $1 \
             AND (coalesce(data #> $2::text[], 'null'), id) < ($3::jsonb, $4::text) \
             ORDER BY coalesce(data #> $2::text[], 'null') DESC, id DESC LIMIT $5"
        );
        assert_eq!(all.params().len(), 5);
        let plain = reading(StreamQuery::default(), None);
        assert!(plain.sql().starts_with("SELECT id, data, _version FROM "));
        assert!(plain.sql().ends_with("IS NULL ORDER BY _order, id"));
        assert_eq!(plain.params().len(), 0);
    }
}
