//! The change log, read by whoever wants all of it: from a position up to now, in the order of the feed.
//!
//! A read has a session and one snapshot. Its rows come through a portal, as the reader takes them, so nothing but a chunk
//! waits here; Postgres sorts what it has to on its disk. Cursors are those of subscriptions: who stops after any entry
//! goes on behind it, here or with a subscription.

use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, TryStreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, IsolationLevel, Row, Transaction};

use super::super::cursor::{self, Batch, CursorError, Database, Inside, Position};
use super::super::frontier::{Frontier, Xid};
use super::super::link::RETRY_AFTER;
use super::super::log::{Head, LOCK_LOG};
use super::super::readers::refused;
use super::super::{Source, replay, reset_text};
use super::{At, MOMENT};
use crate::store::stream::{Broken, ROWS_PER_FETCH, settings};
use crate::store::tables::{NAMESPACE, column};
use crate::store::{DocumentId, Json, Store, StoreError, TableName, TopicName};

/// Entries of a chunk: short ones, too, are to arrive before a chunk is full.
const CHUNK_ENTRIES: usize = 256;

/// Bytes after which a chunk is handed over.
const CHUNK_LEN: usize = 64 * 1024;

/// Where the changes begin.
#[derive(Debug, Clone)]
pub enum ChangesFrom {
    /// With the oldest that is kept.
    Oldest,
    /// With what comes from now on: there is none yet, only the cursor.
    Now,
    /// Behind a moment.
    After(At),
}

/// Judges whether a table or topic is to be read.
pub type Judge = Arc<dyn Fn(&Source) -> bool + Send + Sync>;

/// Of what the changes are.
#[derive(Clone)]
pub enum Sources {
    /// Of these.
    Named(Vec<Source>),
    /// Of every table there is, and every topic that has events, for which this answers yes.
    Every(Judge),
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(sources) => f.debug_tuple("Named").field(sources).finish(),
            Self::Every(_) => f.write_str("Every"),
        }
    }
}

/// What to read of the change log.
#[derive(Debug, Clone)]
pub struct ChangesRequest {
    /// From where.
    pub from: ChangesFrom,
    /// The most entries; absent, all.
    pub limit: Option<u32>,
    /// Of what.
    pub sources: Sources,
}

/// What an entry says was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A new document.
    Insert,
    /// A document has another content.
    Update,
    /// A document is gone.
    Delete,
    /// An event was published.
    Publish,
}

/// An entry of the change log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where to go on behind it.
    pub cursor: Arc<str>,
    /// The table or topic.
    pub source: Source,
    /// The id of the document or the event.
    pub id: DocumentId,
    /// What was done.
    pub kind: EntryKind,
    /// The document before it.
    pub before: Option<Json>,
    /// The document after it, or the event.
    pub after: Option<Json>,
    /// The document's version after it; of an event, 0.
    pub version: i64,
    /// Who did it: a principal, or a role of Postgres.
    pub principal: Option<String>,
    /// When, by the clock of the database: RFC 3339, in UTC.
    pub at: String,
}

/// What a stream of changes gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// The next entries.
    Entries(Vec<Entry>),
    /// The last piece: where to go on.
    End(Arc<str>),
}

/// Entries of the change log, in order.
#[derive(Debug)]
pub struct ChangeStream {
    pieces: mpsc::Receiver<Result<Changes, StoreError>>,
    task: JoinHandle<()>,
}

impl ChangeStream {
    /// The next piece; `None` behind [`Changes::End`] or an error.
    ///
    /// # Errors
    /// [`StoreError::Reset`] when the log does not go back far enough, [`StoreError::NotFound`] for a table that is not there,
    /// [`StoreError::Unavailable`] and [`StoreError::Timeout`] as for any stream: the entries so far are right.
    pub async fn next(&mut self) -> Option<Result<Changes, StoreError>> {
        self.pieces.recv().await
    }

    /// Ends the read and waits until it has stopped. Dropping the stream ends it too.
    pub async fn close(mut self) {
        self.pieces.close();
        while self.pieces.recv().await.is_some() {}
        // A task that panicked is over too.
        let _over = self.task.await;
    }
}

impl Store {
    /// Reads the change log up to now, for at most `longest`. Retention waits meanwhile.
    ///
    /// # Errors
    /// [`StoreError::InvalidInput`] for a moment that is none; [`StoreError::Unavailable`] when too many streams run. More comes
    /// from the stream.
    pub async fn changes(
        &self,
        request: ChangesRequest,
        longest: Duration,
    ) -> Result<ChangeStream, StoreError> {
        self.outside_of_transaction()?;
        let from = match &request.from {
            ChangesFrom::Oldest => From::Oldest,
            ChangesFrom::Now => From::Now,
            ChangesFrom::After(At::Time(time)) => From::After(self.moment_of_time(time).await?.position),
            ChangesFrom::After(At::Cursor(text)) => match cursor::decode(self.0.database, text) {
                Ok(position) => From::After(position),
                Err(CursorError::Malformed) => {
                    return Err(StoreError::invalid("`from` is neither a cursor nor a time nor `now`"));
                }
                Err(other) => return Err(StoreError::Reset(reset_text(other))),
            },
        };
        let read = Read { from, request, database: self.0.database };
        let (pieces, task) = self
            .in_session(move |client, sender| async move { read.run(client, longest, sender).await }.boxed())
            .await?;
        Ok(ChangeStream { pieces, task })
    }
}

/// Where a read begins, once its words are understood.
enum From {
    Oldest,
    Now,
    After(Position),
}

type Sender = mpsc::Sender<Result<Changes, StoreError>>;

/// One read.
struct Read {
    from: From,
    request: ChangesRequest,
    database: Database,
}

impl Read {
    async fn run(self, client: &mut Client, longest: Duration, sender: &Sender) -> Result<(), Broken> {
        client.batch_execute(&settings(longest)).await?;
        let transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        // Before the snapshot is taken: what this transaction sees in the log stays there until it ends.
        transaction.batch_execute(LOCK_LOG).await?;
        let row = transaction.query_one(MOMENT, &[]).await?;
        let head = Head::of(&row).map_err(|error| refused("the log was not read", &error))?;
        let mut position = match &self.from {
            From::Oldest => Position::at(head.horizon.clone()),
            From::Now => return self.end(sender, &head.frontier(0)).await,
            From::After(position) => position.clone(),
        };
        if let Some(reason) = replay::lost(&head, &position) {
            return Err(StoreError::Reset(reason).into());
        }
        let now = head.frontier(position.base.xmax());
        let names = self.names(&transaction, &position.base, &now).await?;
        let mut left = self.request.limit;
        let batches = position.inside.iter().map(|inside| inside.next.clone()).chain([now.clone()]);
        for next in batches.collect::<Vec<_>>() {
            let busy = StoreError::Unavailable { retry_after: RETRY_AFTER };
            let batch = Batch::new(self.database, position.base.clone(), next.clone()).ok_or(busy)?;
            match self.batch(&transaction, &batch, &position, &names, &mut left, sender).await? {
                Batched::Whole => position = Position::at(next),
                Batched::Left => return Ok(()),
                Batched::Enough(last) => {
                    end_at(sender, last).await;
                    return Ok(());
                }
            }
        }
        transaction.commit().await?;
        self.end(sender, &now).await
    }

    /// What stands in the log for each source that is read, in the snapshot of the read: what is new behind it comes with
    /// the next one.
    async fn names(
        &self,
        transaction: &Transaction<'_>,
        from: &Frontier,
        to: &Frontier,
    ) -> Result<HashMap<String, Source>, Broken> {
        const TABLES: &str = "SELECT s.name, s.ptr FROM raystream.storage AS s WHERE s.owner = $1";
        const TOPICS: &str = "SELECT DISTINCT c.ptr FROM raystream.changes AS c WHERE c.ptr LIKE 'topic:%' \
            AND (c.xid >= $1 OR c.xid = ANY ($2)) AND c.xid < $3 AND c.xid <> ALL ($4)";
        let mut tables = HashMap::new();
        for row in transaction.query_typed(TABLES, &[(&NAMESPACE, Type::TEXT)]).await? {
            if let Ok(name) = TableName::parse(&column::<String>(&row, 0)?) {
                tables.insert(name, column::<String>(&row, 1)?);
            }
        }
        match &self.request.sources {
            Sources::Named(sources) => sources
                .iter()
                .map(|source| match source {
                    Source::Table(name) => {
                        Ok((tables.get(name).cloned().ok_or(StoreError::NotFound)?, source.clone()))
                    }
                    Source::Topic(name) => Ok((name.log_name(), source.clone())),
                })
                .collect(),
            Sources::Every(may) => {
                let mut names: HashMap<String, Source> =
                    tables.into_iter().map(|(name, ptr)| (ptr, Source::Table(name))).collect();
                let arguments: [(&(dyn ToSql + Sync), Type); 4] = [
                    (&Xid(from.xmax()), Type::XID8),
                    (&from.xip_sql(), Type::XID8_ARRAY),
                    (&Xid(to.xmax()), Type::XID8),
                    (&to.xip_sql(), Type::XID8_ARRAY),
                ];
                for row in transaction.query_typed(TOPICS, &arguments).await? {
                    let ptr: String = column(&row, 0)?;
                    if let Some(name) = TopicName::of_log(&ptr) {
                        names.insert(ptr, Source::Topic(name));
                    }
                }
                names.retain(|_, source| may(source));
                Ok(names)
            }
        }
    }

    /// Sends the changes of a batch that come after a position.
    async fn batch(
        &self,
        transaction: &Transaction<'_>,
        batch: &Batch,
        position: &Position,
        names: &HashMap<String, Source>,
        left: &mut Option<u32>,
        sender: &Sender,
    ) -> Result<Batched, Broken> {
        // As the feed's own, with what only this needs.
        const CHANGES: &str = "WITH ended AS (\
                SELECT t.xid, max(t.seq) AS last FROM raystream.changes AS t \
                WHERE (t.xid >= $1 OR t.xid = ANY ($2)) AND t.xid < $3 AND t.xid <> ALL ($4) GROUP BY t.xid) \
            SELECT c.seq, e.last, c.ptr, c.id, c.op, c.version, c.before, c.after, c.principal, \
                to_char(c.at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') \
            FROM raystream.changes AS c JOIN ended AS e ON e.xid = c.xid \
            WHERE (c.xid >= $1 OR c.xid = ANY ($2)) AND c.xid < $3 AND c.xid <> ALL ($4) \
                AND c.ptr = ANY ($5::text[]) AND (e.last, c.seq) > ($6::bigint, $7::bigint) \
            ORDER BY e.last, c.seq LIMIT $8";
        if *left == Some(0) {
            let place = position.inside.as_ref().map(|inside| batch.cursor(inside.last, inside.seq));
            let busy = StoreError::Unavailable { retry_after: RETRY_AFTER };
            let cursor = place.or_else(|| cursor::at(self.database, &position.base)).ok_or(busy)?;
            return Ok(Batched::Enough(cursor));
        }
        let ptrs: Vec<&str> = names.keys().map(String::as_str).collect();
        let (last, seq) = match &position.inside {
            Some(Inside { last, seq, .. }) => (*last, *seq),
            // Sequence numbers are above zero.
            None => (0, 0),
        };
        let limit = left.map(i64::from);
        let statement = transaction.prepare(CHANGES).await?;
        let portal = transaction
            .bind(
                &statement,
                &[
                    &Xid(batch.base.xmax()),
                    &batch.base.xip_sql(),
                    &Xid(batch.next.xmax()),
                    &batch.next.xip_sql(),
                    &ptrs,
                    &last,
                    &seq,
                    &limit,
                ],
            )
            .await?;
        let mut chunk = Chunk::default();
        let mut newest = None;
        loop {
            let rows = transaction.query_portal_raw(&portal, ROWS_PER_FETCH).await?;
            let mut rows = pin!(rows);
            let mut found = 0;
            while let Some(row) = rows.try_next().await? {
                found += 1;
                let entry = entry(&row, batch, names)?;
                newest = Some(Arc::clone(&entry.cursor));
                *left = left.map(|left| left.saturating_sub(1));
                if chunk.take(entry) && !chunk.send(sender).await {
                    return Ok(Batched::Left);
                }
            }
            if found < ROWS_PER_FETCH {
                break;
            }
        }
        if !chunk.send(sender).await {
            return Ok(Batched::Left);
        }
        Ok(match newest {
            Some(cursor) if *left == Some(0) => Batched::Enough(cursor),
            _ => Batched::Whole,
        })
    }

    async fn end(&self, sender: &Sender, now: &Frontier) -> Result<(), Broken> {
        let busy = StoreError::Unavailable { retry_after: RETRY_AFTER };
        end_at(sender, cursor::at(self.database, now).ok_or(busy)?).await;
        Ok(())
    }
}

/// How far a batch came.
enum Batched {
    /// To its end.
    Whole,
    /// To the limit: the cursor is that of the last entry.
    Enough(Arc<str>),
    /// The reader is gone.
    Left,
}

async fn end_at(sender: &Sender, cursor: Arc<str>) {
    // Nobody may be left to hear it.
    let _unheard = sender.send(Ok(Changes::End(cursor))).await;
}

/// The chunk that is filled.
#[derive(Default)]
struct Chunk {
    entries: Vec<Entry>,
    len: usize,
}

impl Chunk {
    /// Adds an entry; says whether the chunk is full.
    fn take(&mut self, entry: Entry) -> bool {
        let len = |image: &Option<Json>| image.as_ref().map_or(0, |image| image.as_bytes().len());
        self.len += entry.cursor.len() + entry.id.as_str().len() + len(&entry.before) + len(&entry.after);
        self.entries.push(entry);
        self.len >= CHUNK_LEN || self.entries.len() >= CHUNK_ENTRIES
    }

    /// Hands the chunk over. `false` when nobody takes it.
    async fn send(&mut self, sender: &Sender) -> bool {
        let entries = std::mem::take(self).entries;
        entries.is_empty() || sender.send(Ok(Changes::Entries(entries))).await.is_ok()
    }
}

fn entry(row: &Row, batch: &Batch, names: &HashMap<String, Source>) -> Result<Entry, StoreError> {
    let ptr: &str = column(row, 2)?;
    let op: i8 = column(row, 4)?;
    let kind = match u8::try_from(op) {
        Ok(b'i') => EntryKind::Insert,
        Ok(b'u') => EntryKind::Update,
        Ok(b'd') => EntryKind::Delete,
        Ok(b'p') => EntryKind::Publish,
        _ => return Err(StoreError::Internal),
    };
    Ok(Entry {
        cursor: batch.cursor(column(row, 1)?, column(row, 0)?),
        source: names.get(ptr).cloned().ok_or(StoreError::Internal)?,
        id: DocumentId::stored(column(row, 3)?),
        kind,
        version: column(row, 5)?,
        before: column(row, 6)?,
        after: column(row, 7)?,
        principal: column(row, 8)?,
        at: column(row, 9)?,
    })
}
