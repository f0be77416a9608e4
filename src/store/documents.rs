//! Operations on one document.

use super::{Document, DocumentId, Json, Store, StoreError, TableName, Writer};

impl Store {
    /// The live document with an id.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such table.
    pub async fn get(&self, table: &TableName, id: &DocumentId) -> Result<Option<Document>, StoreError> {
        let _ = (table, id);
        Err(StoreError::Internal)
    }

    /// Writes a document whole, live again if it was deleted, and answers its new version. With `if_version` only when
    /// the live document has that version; 0 is: only when there is no live document.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the version is another.
    pub async fn set(
        &self,
        writer: Writer<'_>,
        table: &TableName,
        id: &DocumentId,
        data: Json,
        if_version: Option<i64>,
    ) -> Result<i64, StoreError> {
        let _ = (writer, table, id, data, if_version);
        Err(StoreError::Internal)
    }

    /// Merges a patch into a live document (RFC 7386) and answers the new version.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no live document.
    pub async fn update(
        &self,
        writer: Writer<'_>,
        table: &TableName,
        id: &DocumentId,
        patch: Json,
    ) -> Result<i64, StoreError> {
        let _ = (writer, table, id, patch);
        Err(StoreError::Internal)
    }

    /// Deletes a document. Answers whether there was a live one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete(
        &self,
        writer: Writer<'_>,
        table: &TableName,
        id: &DocumentId,
    ) -> Result<bool, StoreError> {
        let _ = (writer, table, id);
        Err(StoreError::Internal)
    }

    /// Appends a document under a new, time-ordered id and answers that.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn push(
        &self,
        writer: Writer<'_>,
        table: &TableName,
        data: Json,
    ) -> Result<DocumentId, StoreError> {
        let _ = (writer, table, data);
        Err(StoreError::Internal)
    }

    /// Takes the last document out of the table: the one that was inserted last and is not being written by another.
    /// Two callers never get the same one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn pop(&self, writer: Writer<'_>, table: &TableName) -> Result<Option<Document>, StoreError> {
        let _ = (writer, table);
        Err(StoreError::Internal)
    }

    /// Takes the first document out of the table; otherwise like [`Store::pop`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn shift(&self, writer: Writer<'_>, table: &TableName) -> Result<Option<Document>, StoreError> {
        let _ = (writer, table);
        Err(StoreError::Internal)
    }
}
