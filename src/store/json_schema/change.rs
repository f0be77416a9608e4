//! How a table gets a schema, and loses it.
//!
//! What is there is read first, without holding anybody up, as of one moment; and then what was written in the meantime. Then a
//! transaction puts the triggers of the new version into force, which waits for the writes under way, and reads what was written
//! since: so every document is checked once at least, and writers wait for the last part only, which is short because the
//! change log says what there is to read.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::{JsonSchema, Misfits};
use crate::store::statements::{Call, Param, StatementKey};
use crate::store::tables::{NAMESPACE, column};
use crate::store::{
    DocumentId, Isolation, Json, Store, StoreError, StreamQuery, TableName, TablePtr, TransactionOptions,
    Writes,
};

/// The most documents that do not fit whose ids are told.
pub const UNFIT_IDS_MAX: usize = 10;

/// Documents of one step of reading what was written since a moment: they are in memory, at up to a megabyte each.
const STEP: usize = 32;

/// The most documents that are looked up one by one, because they are in the log: their ids are in memory. When more were
/// written, the table is read.
const LOGGED_MAX: usize = 32_768;

/// The ids of what was written since a moment, by the log. Parameters: the moment, the most rows.
pub(in crate::store) fn logged_since_sql(table: &TablePtr) -> String {
    format!(
        "SELECT DISTINCT id FROM raystream.changes WHERE ptr = {} \
         AND xid >= pg_snapshot_xmin($1::text::pg_snapshot) \
         AND NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot) LIMIT $2",
        table.in_log()
    )
}

/// Whether the log has all that was written since a moment, to be asked behind the reading. Parameter: the moment.
pub(in crate::store) const LOGGED_SINCE_IS_KEPT: &str =
    "SELECT horizon <= pg_snapshot_xmin($1::text::pg_snapshot) FROM raystream.meta";

/// Documents by their ids, each by its key, those that are there. Columns: id, document. Parameter: the ids.
pub(in crate::store) fn live_sql(table: &TablePtr) -> String {
    format!(
        "SELECT d.id, d.data FROM unnest($1::text[]) AS i (id), LATERAL (SELECT id, data FROM {} AS t \
         WHERE t.id = i.id AND num_nulls(t._deleted_txid) = 1 OFFSET 0) AS d",
        table.quoted()
    )
}

/// What was written since a moment, found without the log by a look at all of the table. Columns: id, document. Parameters: the
/// moment, the id behind which it goes on, the most rows.
pub(in crate::store) fn written_since_sql(table: &TablePtr) -> String {
    format!(
        "SELECT id, data FROM {} WHERE _deleted_txid IS NULL \
         AND NOT pg_visible_in_snapshot(_txid, $1::text::pg_snapshot) AND id > $2::text ORDER BY id LIMIT $3",
        table.quoted()
    )
}

/// Parameters: owner, name, schema or null. Column: the version, or null.
pub(in crate::store) const SET_SCHEMA: &str = "SELECT raystream.set_schema($1, $2, $3)";

/// Parameters: owner, name. Columns: schema, version.
pub(in crate::store) const SHOW_SCHEMA: &str =
    "SELECT json_schema, schema_version FROM raystream.storage WHERE owner = $1 AND name = $2";

/// What becomes of documents that are there and do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Existing {
    /// The schema is refused because of them.
    #[default]
    Refuse,
    /// They stay, and are not looked for. Their next version has to fit.
    Keep,
}

/// The schema of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaInfo {
    /// As it was given.
    pub schema: Option<Json>,
    /// A number that grows with each change of a schema; 0: it never had one.
    pub version: i64,
}

/// Documents that do not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// How many.
    pub count: u64,
    /// The first ones, [`UNFIT_IDS_MAX`] at most.
    pub ids: Vec<DocumentId>,
    /// Why the first one does not.
    pub first: Misfits,
}

/// Why a schema was not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// As for any other operation.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There are documents that do not fit.
    #[error("documents of the table do not fit the schema")]
    Unfit(Box<Unfit>),
}

impl Store {
    /// The schema of a table.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such table.
    pub async fn schema(&self, table: &TableName) -> Result<SchemaInfo, StoreError> {
        let call = Call::of(StatementKey::ShowSchema, named(table), 0);
        let rows = self.run(&self.0.reads, call).await?;
        let row = rows.first().ok_or(StoreError::NotFound)?;
        let schema: Option<String> = column(row, 0)?;
        Ok(SchemaInfo { schema: schema.map(Json::new), version: column(row, 1)? })
    }

    /// Gives a table a schema, or takes it away, and answers its version. Once this is answered, nothing is written at any
    /// daemon that does not fit. Takes `longest` at most.
    ///
    /// # Errors
    /// [`SchemaError::Unfit`] when documents that are there do not fit, unless they are to be kept;
    /// [`StoreError::InvalidInput`] for what is no schema and for an attached table; [`StoreError::Conflict`] when a transaction
    /// that writes the table lasts too long; [`StoreError::NotFound`] when there is no such table.
    pub async fn set_schema(
        &self,
        table: &TableName,
        schema: Option<Json>,
        existing: Existing,
        longest: Duration,
    ) -> Result<i64, SchemaError> {
        if self.1.transaction.is_some() {
            return Err(StoreError::invalid("a schema is not changed in a transaction").into());
        }
        let compiled = match schema.clone() {
            Some(schema) => {
                let compiled = tokio::task::spawn_blocking(move || JsonSchema::parse(&schema)).await;
                Some(Arc::new(compiled.unwrap_or(Err(StoreError::Internal))?))
            }
            None => None,
        };
        let ptr = self.table_or_create(table).await?.ptr;
        if ptr.is_attached() {
            let message = "the table is attached: its columns are its schema";
            return Err(StoreError::invalid(message).into());
        }
        let compiled = compiled.filter(|_| existing == Existing::Refuse);
        let since = match &compiled {
            Some(compiled) => {
                let since = self.check_all(table, compiled, longest).await?;
                let now = self.snapshot().await?;
                self.check_since(&ptr, compiled, &since).await?;
                Some(now)
            }
            None => None,
        };
        let options = TransactionOptions {
            isolation: Isolation::Statement,
            is_repeatable: false,
            writes: Writes::Allowed,
        };
        let name = table.clone();
        let version = self.transaction(options, move |store| {
            let (name, schema, ptr) = (name.clone(), schema.clone(), Arc::clone(&ptr));
            let check = compiled.clone().zip(since.clone());
            async move {
                let text =
                    schema.as_ref().map(|schema| String::from_utf8_lossy(schema.as_bytes()).into_owned());
                let mut params = named(&name);
                params.push(Box::new(text));
                let call = Call::of(StatementKey::SetSchema, params, 0);
                let rows = store.run(&store.0.writes, call).await?;
                let version: Option<i64> = column(rows.first().ok_or(StoreError::Internal)?, 0)?;
                let version = version.ok_or(StoreError::NotFound)?;
                if let Some((compiled, since)) = check {
                    store.check_since(&ptr, &compiled, &since).await?;
                }
                Ok::<_, SchemaError>(version)
            }
            .boxed()
        });
        let version = version.await?;
        self.renew(table).await?;
        Ok(version)
    }

    async fn snapshot(&self) -> Result<String, StoreError> {
        let call = Call::of(StatementKey::Snapshot, Vec::new(), 0);
        let rows = self.run(&self.0.reads, call).await?;
        column(rows.first().ok_or(StoreError::Internal)?, 0)
    }

    /// Checks the documents that are there. Answers a moment: what is not visible in it may be unchecked.
    async fn check_all(
        &self,
        table: &TableName,
        schema: &Arc<JsonSchema>,
        longest: Duration,
    ) -> Result<String, SchemaError> {
        let since = self.snapshot().await?;
        let mut documents = self.stream(table, StreamQuery::default(), longest).await?;
        let mut found = Found::default();
        while let Some(chunk) = documents.next().await {
            let (schema, chunk) = (Arc::clone(schema), chunk?);
            let mut so_far = std::mem::take(&mut found);
            let checked = tokio::task::spawn_blocking(move || {
                for document in chunk {
                    so_far.take(document.id, schema.check_now(&document.data))?;
                }
                Ok::<_, StoreError>(so_far)
            });
            found = checked.await.unwrap_or(Err(StoreError::Internal))?;
        }
        documents.close().await;
        found.end()?;
        Ok(since)
    }

    /// Checks what was written since a moment: all of it in the transaction that lets nobody else write.
    async fn check_since(
        &self,
        table: &Arc<TablePtr>,
        schema: &Arc<JsonSchema>,
        since: &str,
    ) -> Result<(), SchemaError> {
        let Some(ids) = self.logged_since(table, since).await? else {
            return self.check_written(table, schema, since).await;
        };
        let mut found = Found::default();
        for step in ids.chunks(STEP) {
            let key = StatementKey::Live(Arc::clone(table));
            let len = step.iter().map(String::len).sum();
            let rows = self.run(&self.0.reads, Call::of(key, vec![Box::new(step.to_vec())], len)).await?;
            for row in &rows {
                let (id, document): (String, Json) = (column(row, 0)?, column(row, 1)?);
                found.take(DocumentId::stored(id), schema.check(&document).await)?;
            }
        }
        found.end()
    }

    /// The ids of the documents that were written since a moment, in their order; some may be gone. `None` when the log does not
    /// say, or there are too many.
    async fn logged_since(
        &self,
        table: &Arc<TablePtr>,
        since: &str,
    ) -> Result<Option<Vec<String>>, StoreError> {
        let most = i64::try_from(LOGGED_MAX + 1).expect("it is small");
        let params: Vec<Param> = vec![Box::new(since.to_owned()), Box::new(most)];
        let call = Call::of(StatementKey::LoggedSince(Arc::clone(table)), params, 0);
        let rows = self.run(&self.0.reads, call).await?;
        if rows.len() > LOGGED_MAX {
            return Ok(None);
        }
        let call = Call::of(StatementKey::LoggedSinceIsKept, vec![Box::new(since.to_owned())], 0);
        let kept = self.run(&self.0.reads, call).await?;
        if !column::<bool>(kept.first().ok_or(StoreError::Internal)?, 0)? {
            return Ok(None);
        }
        let mut ids = rows.iter().map(|row| column(row, 0)).collect::<Result<Vec<String>, _>>()?;
        ids.sort_unstable();
        Ok(Some(ids))
    }

    /// Checks what was written since a moment by a look at every document.
    async fn check_written(
        &self,
        table: &Arc<TablePtr>,
        schema: &Arc<JsonSchema>,
        since: &str,
    ) -> Result<(), SchemaError> {
        let most = i64::try_from(STEP).expect("it is small");
        let mut found = Found::default();
        let mut behind = String::new();
        loop {
            let params: Vec<Param> =
                vec![Box::new(since.to_owned()), Box::new(behind.clone()), Box::new(most)];
            let call = Call::of(StatementKey::WrittenSince(Arc::clone(table)), params, 0);
            let rows = self.run(&self.0.reads, call).await?;
            for row in &rows {
                behind = column(row, 0)?;
                let document: Json = column(row, 1)?;
                found.take(DocumentId::stored(behind.clone()), schema.check(&document).await)?;
            }
            if rows.len() < STEP {
                return found.end();
            }
        }
    }
}

/// What does not fit of the documents so far.
#[derive(Default)]
struct Found {
    count: u64,
    ids: Vec<DocumentId>,
    first: Option<Misfits>,
}

impl Found {
    fn take(&mut self, id: DocumentId, checked: Result<(), StoreError>) -> Result<(), StoreError> {
        let misfits = match checked {
            Ok(()) => return Ok(()),
            Err(StoreError::Misfit(misfits)) => *misfits,
            // One that is too long to be checked does not fit either.
            Err(StoreError::InvalidInput(why)) => Misfits::because(why),
            Err(error) => return Err(error),
        };
        self.count += 1;
        self.first.get_or_insert(misfits);
        if self.ids.len() < UNFIT_IDS_MAX {
            self.ids.push(id);
        }
        Ok(())
    }

    fn end(self) -> Result<(), SchemaError> {
        match self.first {
            None => Ok(()),
            Some(first) => {
                Err(SchemaError::Unfit(Box::new(Unfit { count: self.count, ids: self.ids, first })))
            }
        }
    }
}

fn named(table: &TableName) -> Vec<Param> {
    vec![Box::new(NAMESPACE), Box::new(table.as_str().to_owned())]
}
