//! Logical names and the physical tables behind them.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use tokio::sync::OnceCell;
use tokio_postgres::Row;

use super::json_schema::JsonSchema;
use super::pool::Group;
use super::statements::{Call, Operation, Param, Point, StatementKey};
use super::{Json, Store, StoreError, TableInfo, TableName, TablePtr};

/// The owner of every table of this version.
pub(super) const NAMESPACE: &str = "public";

/// What is known of a table.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) ptr: Arc<TablePtr>,
    /// What its documents are checked against before they are written.
    rules: Option<Arc<JsonSchema>>,
    /// Which change of its schema that came with, also when it has none since.
    version: i64,
}

impl Known {
    /// Whether documents are checked before they are written.
    pub(super) fn has_rules(&self) -> bool {
        self.rules.is_some()
    }

    /// The statement of an operation; of one that leaves a document behind, for what was checked by this schema.
    fn key(&self, operation: Operation) -> StatementKey {
        let checked = self.rules.as_ref().filter(|_| operation.writes_checked());
        StatementKey::Documents(Arc::clone(&self.ptr), operation, checked.map(|schema| schema.version()))
    }
}

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        self.ptr == other.ptr && self.version == other.version
    }
}

/// Tables that are known. Only such that exist, so that made-up names do not fill it.
#[derive(Debug, Default)]
pub(super) struct TableCache {
    tables: RwLock<HashMap<TableName, Known>>,
    /// Schemas that somebody compiles now, by their versions.
    compiled: Mutex<HashMap<i64, Weak<Compiled>>>,
}

/// A schema, when it is compiled; nothing when it cannot be.
type Compiled = OnceCell<Option<Arc<JsonSchema>>>;

impl TableCache {
    fn get(&self, name: &TableName) -> Option<Known> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Remembers a table, unless more is known: who asked first may be the last to have an answer. Answers what is known.
    fn put(&self, name: &TableName, known: Known) -> Known {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        match tables.get(name) {
            Some(newer) if newer.ptr == known.ptr && newer.version > known.version => newer.clone(),
            _ => {
                tables.insert(name.clone(), known.clone());
                known
            }
        }
    }

    /// Forgets a table that was found gone, unless it was looked up anew in the meantime.
    pub(super) fn forget(&self, name: &TableName, gone: &Arc<TablePtr>) {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        if tables.get(name).is_some_and(|known| known.ptr == *gone) {
            tables.remove(name);
        }
    }

    /// Compiles a schema that is stored, once for all who ask for it at the same time: all writers of a table do whose schema was
    /// changed.
    async fn compile(&self, text: String, version: i64) -> Option<Arc<JsonSchema>> {
        let cell = {
            let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
            compiled.retain(|_, cell| cell.strong_count() > 0);
            let cell = compiled.get(&version).and_then(Weak::upgrade).unwrap_or_default();
            compiled.insert(version, Arc::downgrade(&cell));
            cell
        };
        let schema = cell.get_or_init(|| async move {
            JsonSchema::stored(text, version)
                .await
                // Reading goes on; what would be written was not checked, and is refused by the triggers.
                .inspect_err(|error| tracing::error!(%error, version, "a stored schema cannot be used"))
                .ok()
        });
        schema.await.clone()
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
    (table, id).hash(&mut hasher);
    hasher.finish()
}

impl Store {
    /// The physical table of a name, from the cache or the database.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such table.
    pub async fn table(&self, name: &TableName) -> Result<Arc<TablePtr>, StoreError> {
        Ok(self.known(name).await?.ptr)
    }

    /// The same, and the schema of its documents.
    pub(super) async fn known(&self, name: &TableName) -> Result<Known, StoreError> {
        if let Some(known) = self.0.tables.get(name) {
            return Ok(known);
        }
        match self.look_up(name, None).await? {
            Some(known) => Ok(known),
            None => self.table_of_transaction(name).await,
        }
    }

    /// Looks a table up in the database and remembers it. The schema that is known of it is not asked for again.
    async fn look_up(
        &self,
        name: &TableName,
        schema: Option<&Arc<JsonSchema>>,
    ) -> Result<Option<Known>, StoreError> {
        let rows = self.0.reads.run(&self.1, find(name, schema)).await?;
        let found = self.found_table(name, &rows, schema).await?;
        Ok(found.map(|found| self.0.tables.put(name, found)))
    }

    async fn found_table(
        &self,
        name: &TableName,
        rows: &[Row],
        schema: Option<&Arc<JsonSchema>>,
    ) -> Result<Option<Known>, StoreError> {
        let Some(row) = rows.first() else { return Ok(None) };
        let (version, has_schema): (i64, bool) = (column(row, 2)?, column(row, 3)?);
        let rules = match column::<Option<String>>(row, 4)? {
            Some(text) => match self.0.tables.get(name).filter(|known| known.version == version) {
                // Somebody else was told of it in the meantime.
                Some(Known { rules: Some(rules), .. }) => Some(rules),
                _ => self.0.tables.compile(text, version).await,
            },
            None => schema.filter(|_| has_schema).cloned(),
        };
        let ptr = Arc::new(TablePtr::new(column(row, 0)?, column(row, 1)?));
        Ok(Some(Known { ptr, rules, version }))
    }

    /// Looks a table up though it is known: its schema may be another one. Not in the transaction of the scope, which may
    /// have failed.
    pub(super) async fn renew(&self, name: &TableName) -> Result<Option<Known>, StoreError> {
        let schema = self.0.tables.get(name).and_then(|known| known.rules);
        self.look_up(name, schema.as_ref()).await
    }

    /// The table that the transaction itself made, which nobody else sees yet: so it is not remembered.
    async fn table_of_transaction(&self, name: &TableName) -> Result<Known, StoreError> {
        let transaction = self.1.transaction.as_ref().ok_or(StoreError::NotFound)?;
        let rows = transaction.run(find(name, None)).await?;
        self.found_table(name, &rows, None).await?.ok_or(StoreError::NotFound)
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
    pub(super) async fn table_or_create(&self, name: &TableName) -> Result<Known, StoreError> {
        match self.known(name).await {
            Err(StoreError::NotFound) if self.0.options.create_tables => {
                self.create_table(name).await?;
                self.known(name).await
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
            let known = if creates { self.table_or_create(name).await? } else { self.known(name).await? };
            let ptr = Arc::clone(&known.ptr);
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
            if let (Some(document), Some(schema)) = (document, &known.rules)
                && let Err(refusal) = schema.check(document).await
            {
                if is_fresh || self.renew(name).await?.as_ref() == Some(&known) {
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
            let call = Call { key: known.key(operation), params, len, document: document_of_call };
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

fn find(name: &TableName, schema: Option<&Arc<JsonSchema>>) -> Call {
    let known = schema.map_or(0, |schema| schema.version());
    let params: Vec<Param> = vec![Box::new(NAMESPACE), Box::new(name.as_str().to_owned()), Box::new(known)];
    Call::of(StatementKey::FindTable, params, 0)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn known(rules: Option<Arc<JsonSchema>>, version: i64) -> Known {
        Known { ptr: Arc::new(TablePtr::new("s".into(), "t".into())), rules, version }
    }

    #[test]
    fn what_is_known_of_a_table_does_not_get_older() {
        let (cache, name) = (TableCache::default(), TableName::parse("t").expect("it is a name"));
        assert_eq!(cache.put(&name, known(None, 2)).version, 2);
        assert_eq!(cache.put(&name, known(None, 1)).version, 2);
        assert_eq!(cache.get(&name).map(|known| known.version), Some(2));
        assert_eq!(cache.put(&name, known(None, 3)).version, 3);
        // Another table has the name.
        let ptr = Arc::new(TablePtr::new("s".into(), "u".into()));
        assert_eq!(cache.put(&name, Known { ptr, rules: None, version: 0 }).version, 0);
    }

    #[tokio::test]
    async fn a_schema_is_compiled_once_for_all_who_ask_and_goes_with_the_table() {
        let (cache, name) = (TableCache::default(), TableName::parse("t").expect("it is a name"));
        let text = || r#"{"type":"integer"}"#.to_owned();
        let (one, two) = tokio::join!(cache.compile(text(), 7), cache.compile(text(), 7));
        let (one, two) = (one.expect("it is a schema"), two.expect("it is a schema"));
        assert!(Arc::ptr_eq(&one, &two));
        assert!(cache.compile("{".to_owned(), 8).await.is_none());
        drop(two);
        let schema = Arc::downgrade(&one);
        let known = cache.put(&name, known(Some(one), 7));
        let operations = [Operation::Set, Operation::Get];
        let keys = operations.map(|operation| known.key(operation));
        drop((known, cache.put(&name, self::known(None, 9))));
        assert!(schema.upgrade().is_none(), "no statement keeps it: {keys:?}");
        assert_eq!(keys[1], self::known(None, 9).key(Operation::Get), "reading is the same statement");
        assert_ne!(keys[0], self::known(None, 9).key(Operation::Set));
    }
}
