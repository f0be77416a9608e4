//! Queries over the documents of a table.

use super::{Json, Page, Query, Store, StoreError, TableName};

impl Store {
    /// One page of the documents that match.
    ///
    /// # Errors
    /// [`StoreError::InvalidInput`] when limit or cursor are not valid for the query.
    pub async fn query(&self, table: &TableName, query: Query) -> Result<Page, StoreError> {
        let _ = (table, query);
        Err(StoreError::Internal)
    }

    /// How many documents match.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn count(&self, table: &TableName, filter: Option<Json>) -> Result<u64, StoreError> {
        let _ = (table, filter);
        Err(StoreError::Internal)
    }
}
