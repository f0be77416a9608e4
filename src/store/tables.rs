//! Logical names and the physical tables behind them.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, PoisonError, RwLock};

use tokio_postgres::Row;

use super::json_schema::JsonSchema;
use super::pool::Group;
use super::statements::{Call, Operation, Param, Point, StatementKey};
use super::{Json, Store, StoreError, TableInfo, TableName, TablePtr};

/// The owner of every table of this version.
pub(super) const NAMESPACE: &str = "public";

/// Tables that are known. Only such that exist, so that made-up names do not fill it.
#[derive(Debug, Default)]
pub(super) struct TableCache(RwLock<HashMap<TableName, Arc<TablePtr>>>);

impl TableCache {
    fn get(&self, name: &TableName) -> Option<Arc<TablePtr>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn put(&self, name: &TableName, ptr: &Arc<TablePtr>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), Arc::clone(ptr));
    }

    /// Forgets a table that was found gone, unless it was looked up anew in the meantime.
    pub(super) fn forget(&self, name: &TableName, gone: &Arc<TablePtr>) {
        let mut tables = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if tables.get(name).is_some_and(|ptr| ptr == gone) {
            tables.remove(name);
        }
    }
}

/// How often a write is begun again because the schema of its table was changed under it.
const RENEWALS_MAX: usize = 4;

/// What an operation is asked with.
pub(super) struct Arguments<'a> {
    pub(super) params: Vec<Param>,
    /// About their bytes.
    pub(super) len: usize,
    /// Of one document: its id, and who writes.
    pub(super) document: Option<(&'a str, &'a str)>,
}

/// A document of a table as a hash.
fn row(table: &TablePtr, id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    // Whatever schema was known.
    (&table.schema, &table.table, id).hash(&mut hasher);
    hasher.finish()
}

impl Store {
    /// The physical table of a name, from the cache or the database.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such table.
    pub async fn table(&self, name: &TableName) -> Result<Arc<TablePtr>, StoreError> {
        if let Some(ptr) = self.0.tables.get(name) {
            return Ok(ptr);
        }
        match self.look_up(name, None).await? {
            Some(ptr) => Ok(ptr),
            None => self.table_of_transaction(name).await,
        }
    }

    /// Looks a table up in the database and remembers it. What is known of its schema is not asked for again.
    async fn look_up(
        &self,
        name: &TableName,
        known: Option<&Arc<JsonSchema>>,
    ) -> Result<Option<Arc<TablePtr>>, StoreError> {
        let rows = self.0.reads.run(&self.1, find(name, known)).await?;
        let found = found_table(&rows, known)?;
        if let Some(ptr) = &found {
            self.0.tables.put(name, ptr);
        }
        Ok(found)
    }

    /// Looks a table up though it is known: its schema may be another one. Not in the transaction of the scope, which may
    /// have failed.
    pub(super) async fn renew(&self, name: &TableName) -> Result<Option<Arc<TablePtr>>, StoreError> {
        let known = self.0.tables.get(name).and_then(|ptr| ptr.rules.clone());
        self.look_up(name, known.as_ref()).await
    }

    /// The table that the transaction itself made, which nobody else sees yet: so it is not remembered.
    async fn table_of_transaction(&self, name: &TableName) -> Result<Arc<TablePtr>, StoreError> {
        let transaction = self.1.transaction.as_ref().ok_or(StoreError::NotFound)?;
        let rows = transaction.run(find(name, None)).await?;
        found_table(&rows, None)?.ok_or(StoreError::NotFound)
    }

    /// The physical table of a name as text, `schema.table`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such table.
    pub async fn ptr(&self, name: &TableName) -> Result<String, StoreError> {
        Ok(self.table(name).await?.to_string())
    }

    /// Makes a table. Answers whether this call made it; `false` when there is one already, also when another daemon
    /// makes it at the same moment.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create_table(&self, name: &TableName) -> Result<bool, StoreError> {
        let params: Vec<Param> = vec![Box::new(NAMESPACE), Box::new(name.as_str().to_owned())];
        let call = Call::of(StatementKey::CreateTable, params, 0);
        let rows = self.run(&self.0.writes, call).await?;
        column(rows.first().ok_or(StoreError::Internal)?, 0)
    }

    /// All tables, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_tables(&self) -> Result<Vec<TableInfo>, StoreError> {
        let call = Call::of(StatementKey::ListTables, vec![Box::new(NAMESPACE)], 0);
        let mut tables = Vec::new();
        for row in &self.run(&self.0.reads, call).await? {
            // A name that another writer put there and that we could not be asked for is not listed.
            if let Ok(name) = TableName::parse(&column::<String>(row, 0)?) {
                let ptr = TablePtr::new(column(row, 1)?, column(row, 2)?);
                tables.push(TableInfo { name, ptr, created_at: column(row, 3)? });
            }
        }
        Ok(tables)
    }

    /// The table of a write that may be the first one.
    pub(super) async fn table_or_create(&self, name: &TableName) -> Result<Arc<TablePtr>, StoreError> {
        match self.table(name).await {
            Err(StoreError::NotFound) if self.0.options.create_tables => {
                self.create_table(name).await?;
                self.table(name).await
            }
            result => result,
        }
    }

    /// Runs an operation on a table. `arguments` is called again when the table that was known is gone and another one has
    /// its name.
    pub(super) async fn on_table<'a>(
        &self,
        name: &TableName,
        operation: Operation,
        arguments: impl Fn() -> Arguments<'a>,
    ) -> Result<Vec<Row>, StoreError> {
        self.write_table(name, operation, None, arguments).await
    }

    /// The same, for an operation that leaves `document` behind, which has to fit the schema of the table if there is one.
    ///
    /// What is known of the schema may be old. So a document is refused by one that was looked up for it only; and one that
    /// was let pass by an old one, or by none, is refused by the database.
    pub(super) async fn write_table<'a>(
        &self,
        name: &TableName,
        operation: Operation,
        document: Option<&Json>,
        arguments: impl Fn() -> Arguments<'a>,
    ) -> Result<Vec<Row>, StoreError> {
        let creates = matches!(operation, Operation::Set | Operation::SetNew | Operation::Push);
        let reads = matches!(
            operation,
            Operation::Get
                | Operation::GetPast(_)
                | Operation::Query(_)
                | Operation::Count { .. }
                | Operation::Merged { .. }
                | Operation::Search(_)
        );
        let group = match operation {
            Operation::Get => &self.0.lookups,
            Operation::Search(_) => &self.0.searches,
            operation if operation.is_planned_by_values() => &self.0.planned,
            Operation::GetPast(_)
            | Operation::Query(_)
            | Operation::Count { .. }
            | Operation::Merged { .. } => &self.0.reads,
            _ => &self.0.writes,
        };
        if operation.is_of_the_past() {
            self.outside_of_transaction()?;
        }
        let mut gone: Option<Arc<TablePtr>> = None;
        let (mut renewals, mut is_fresh) = (0, false);
        loop {
            let ptr = if creates { self.table_or_create(name).await? } else { self.table(name).await? };
            if gone.as_ref() == Some(&ptr) {
                // The name still leads to a table that is not there: someone dropped it and left the name.
                self.0.tables.forget(name, &ptr);
                return Err(StoreError::NotFound);
            }
            if !reads && ptr.is_attached() {
                return Err(StoreError::invalid(
                    "the table is attached: it is read here, and written with SQL",
                ));
            }
            if ptr.is_attached() && operation.is_of_the_past() {
                return Err(no_past());
            }
            if let (Some(document), Some(schema)) = (document, &ptr.rules)
                && let Err(refusal) = schema.check(document).await
            {
                if is_fresh || self.renew(name).await?.as_ref() == Some(&ptr) {
                    return Err(refusal);
                }
                is_fresh = true;
                continue;
            }
            let Arguments { params, len, document: point } = arguments();
            let document_of_call = point.map(|(id, writer)| Point {
                row: row(&ptr, id),
                id: id.to_owned(),
                writer: writer.to_owned(),
            });
            let call = Call {
                key: StatementKey::Documents(Arc::clone(&ptr), operation),
                params,
                len,
                document: document_of_call,
            };
            match self.run(group, call).await {
                Err(StoreError::SchemaChanged) => {
                    self.renew(name).await?;
                    is_fresh = true;
                    renewals += 1;
                    if let Some(transaction) = &self.1.transaction {
                        transaction.run_again();
                        return Err(StoreError::SchemaChanged);
                    }
                    // A patch whose result nobody has checked.
                    if document.is_none() || renewals > RENEWALS_MAX {
                        return Err(StoreError::SchemaChanged);
                    }
                }
                Err(StoreError::NotFound) if gone.is_none() => {
                    self.0.tables.forget(name, &ptr);
                    if let Some(transaction) = &self.1.transaction {
                        // Nothing more can be done in it; the next attempt looks the table up anew.
                        transaction.run_again();
                        return Err(StoreError::NotFound);
                    }
                    gone = Some(ptr);
                }
                result => return result,
            }
        }
    }

    /// Runs a statement where the scope says: in its transaction, or by itself on a connection of the group.
    pub(super) async fn run(&self, group: &Group, call: Call) -> Result<Vec<Row>, StoreError> {
        match &self.1.transaction {
            Some(transaction) => transaction.run(call).await,
            None => group.run(&self.1, call).await,
        }
    }
}

/// ALTER TABLE changes every document of an attached table and is in no log.
pub(super) fn no_past() -> StoreError {
    StoreError::invalid("the table is attached: how its columns were is not kept, so `at` cannot be answered")
}

fn find(name: &TableName, known: Option<&Arc<JsonSchema>>) -> Call {
    let known = known.map_or(0, |schema| schema.version());
    let params: Vec<Param> = vec![Box::new(NAMESPACE), Box::new(name.as_str().to_owned()), Box::new(known)];
    Call::of(StatementKey::FindTable, params, 0)
}

fn found_table(rows: &[Row], known: Option<&Arc<JsonSchema>>) -> Result<Option<Arc<TablePtr>>, StoreError> {
    let Some(row) = rows.first() else { return Ok(None) };
    let (version, has_schema): (i64, bool) = (column(row, 2)?, column(row, 3)?);
    let rules = match column::<Option<String>>(row, 4)? {
        // Reading goes on; what would be written was not checked, and is refused by the triggers.
        Some(text) => JsonSchema::stored(&text, version)
            .inspect_err(|error| tracing::error!(%error, version, "a stored schema cannot be used"))
            .ok(),
        None => known.filter(|_| has_schema).cloned(),
    };
    Ok(Some(Arc::new(TablePtr { schema: column(row, 0)?, table: column(row, 1)?, rules })))
}

/// A column of a row. A wrong type is a fault of ours.
pub(super) fn column<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    at: usize,
) -> Result<T, StoreError> {
    row.try_get(at).map_err(|error| {
        tracing::error!(%error, "a column is not of the type that was agreed");
        StoreError::Internal
    })
}
