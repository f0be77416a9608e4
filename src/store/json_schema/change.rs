//! How a table gets a schema, and loses it.
//!
//! What is there is read first, without holding anybody up, as of one moment. Then a transaction puts the triggers of the new
//! version into force, which waits for the writes under way, and reads what was written since that moment: so every document is
//! checked once at least, and writers wait for the second part only.

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

/// Documents of one step of the second reading: they are in memory, at up to a megabyte each.
const STEP: i64 = 32;

/// The columns: id, document. Parameters: the moment, the id behind which it goes on, the most rows.
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
            Some(compiled) => Some(self.check_all(table, compiled, longest).await?),
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

    /// Checks the documents that are there. Answers a moment: what is not visible in it may be unchecked.
    async fn check_all(
        &self,
        table: &TableName,
        schema: &Arc<JsonSchema>,
        longest: Duration,
    ) -> Result<String, SchemaError> {
        let call = Call::of(StatementKey::Snapshot, Vec::new(), 0);
        let rows = self.run(&self.0.reads, call).await?;
        let since: String = column(rows.first().ok_or(StoreError::Internal)?, 0)?;
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

    /// Checks what was written since a moment, in the transaction that lets nobody else write.
    async fn check_since(
        &self,
        table: &Arc<TablePtr>,
        schema: &Arc<JsonSchema>,
        since: &str,
    ) -> Result<(), SchemaError> {
        let mut found = Found::default();
        let mut behind = String::new();
        loop {
            let params: Vec<Param> =
                vec![Box::new(since.to_owned()), Box::new(behind.clone()), Box::new(STEP)];
            let call = Call::of(StatementKey::WrittenSince(Arc::clone(table)), params, 0);
            let rows = self.run(&self.0.writes, call).await?;
            for row in &rows {
                behind = column(row, 0)?;
                let document: Json = column(row, 1)?;
                found.take(DocumentId::stored(behind.clone()), schema.check(&document).await)?;
            }
            if i64::try_from(rows.len()).is_ok_and(|len| len < STEP) {
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
