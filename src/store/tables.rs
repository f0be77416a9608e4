//! Logical names and the physical tables behind them.

use std::sync::Arc;

use super::{Store, StoreError, TableInfo, TableName, TablePtr};

impl Store {
    /// The physical table of a name, from the cache or the database.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such table.
    pub async fn table(&self, name: &TableName) -> Result<Arc<TablePtr>, StoreError> {
        let _ = name;
        Err(StoreError::Internal)
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
        let _ = name;
        Err(StoreError::Internal)
    }

    /// All tables, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_tables(&self) -> Result<Vec<TableInfo>, StoreError> {
        Err(StoreError::Internal)
    }
}
