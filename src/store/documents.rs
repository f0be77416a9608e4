//! Operations on one document. Each is one statement, so that it is done whole or not at all.

use super::feed::Moment;
use super::statements::Operation;
use super::tables::{Arguments, column};
use super::{Document, DocumentId, Json, Store, StoreError, TableName, Writer};

impl Store {
    /// The live document with an id.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such table.
    pub async fn get(&self, table: &TableName, id: &DocumentId) -> Result<Option<Document>, StoreError> {
        let arguments = || Arguments {
            params: vec![Box::new(id.as_str().to_owned())],
            len: 0,
            document: Some((id.as_str(), "")),
        };
        let rows = self.on_table(table, Operation::Get, arguments).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Document { id: id.clone(), data: column(row, 0)?, version: column(row, 1)? }))
    }

    /// The document that had an id at a moment.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such table; [`StoreError::Reset`] when the moment is no longer kept.
    pub async fn get_at(
        &self,
        table: &TableName,
        id: &DocumentId,
        at: &Moment,
    ) -> Result<Option<Document>, StoreError> {
        let params = || {
            let mut params = at.params();
            params.push(Box::new(id.as_str().to_owned()));
            Arguments { params, len: 0, document: None }
        };
        let rows = self.on_table(table, Operation::GetPast(at.past()), params).await?;
        self.still_kept(Some(at)).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Document { id: id.clone(), data: column(row, 0)?, version: column(row, 1)? }))
    }

    /// Writes a document whole, live again if it was deleted, and answers its new version. With `if_version` only when
    /// the live document has that version; 0 is: only when there is no live document.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the version is another. [`StoreError::TooLarge`], [`StoreError::InvalidInput`] for
    /// data that cannot be stored; [`StoreError::Misfit`] for data that does not fit the schema of the table.
    pub async fn set(
        &self,
        writer: Writer<'_>,
        table: &TableName,
        id: &DocumentId,
        data: Json,
        if_version: Option<i64>,
    ) -> Result<i64, StoreError> {
        data.check()?;
        let operation = match if_version {
            None => Operation::Set,
            Some(0) => Operation::SetNew,
            Some(1..) => Operation::SetVersion,
            Some(_) => return Err(StoreError::invalid("a version is not negative")),
        };
        let arguments = || {
            let mut arguments = written(writer, id, &data);
            if let Some(version @ 1..) = if_version {
                arguments.params.push(Box::new(version));
            }
            arguments
        };
        let rows = self.write_table(table, operation, Some(&data), arguments).await?;
        column(rows.first().ok_or(StoreError::Conflict)?, 0)
    }

    /// Merges a patch into a live document (RFC 7386) and answers the new version. A patch that is no object replaces
    /// the document.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no live document; [`StoreError::Misfit`] when what it would become does not fit
    /// the schema of the table.
    pub async fn update(
        &self,
        writer: Writer<'_>,
        table: &TableName,
        id: &DocumentId,
        patch: Json,
    ) -> Result<i64, StoreError> {
        patch.check()?;
        if !self.known(table).await?.has_rules() {
            match self.on_table(table, Operation::Update, || written(writer, id, &patch)).await {
                // It has one since a moment ago. Where this was in a transaction, that has failed.
                Err(StoreError::SchemaChanged) if self.1.transaction.is_none() => {}
                rows => return column(rows?.first().ok_or(StoreError::NotFound)?, 0),
            }
        }
        self.update_checked(writer, table, id, patch).await
    }

    /// Deletes a document. Answers whether there was a live one.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such table.
    pub async fn delete(
        &self,
        writer: Writer<'_>,
        table: &TableName,
        id: &DocumentId,
    ) -> Result<bool, StoreError> {
        let arguments = || Arguments {
            params: vec![Box::new(id.as_str().to_owned()), Box::new(writer.principal.to_owned())],
            len: 0,
            document: Some((id.as_str(), writer.principal)),
        };
        let rows = self.on_table(table, Operation::Delete, arguments).await?;
        Ok(!rows.is_empty())
    }

    /// Appends a document under a new, time-ordered id (UUID version 7) and answers that.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::InvalidInput`] for data that cannot be stored; [`StoreError::Misfit`] for data
    /// that does not fit the schema of the table.
    pub async fn push(
        &self,
        writer: Writer<'_>,
        table: &TableName,
        data: Json,
    ) -> Result<DocumentId, StoreError> {
        data.check()?;
        let id = DocumentId::stored(self.0.ids.next()?);
        self.write_table(table, Operation::Push, Some(&data), || written(writer, &id, &data)).await?;
        Ok(id)
    }

    /// Takes the last document out of the table: the one that was inserted last and that no other writer holds. Two
    /// callers never get the same one.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such table.
    pub async fn pop(&self, writer: Writer<'_>, table: &TableName) -> Result<Option<Document>, StoreError> {
        self.take(writer, table, Operation::Pop).await
    }

    /// Takes the first document out of the table; otherwise like [`Store::pop`].
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such table.
    pub async fn shift(&self, writer: Writer<'_>, table: &TableName) -> Result<Option<Document>, StoreError> {
        self.take(writer, table, Operation::Shift).await
    }

    async fn take(
        &self,
        writer: Writer<'_>,
        table: &TableName,
        operation: Operation,
    ) -> Result<Option<Document>, StoreError> {
        let arguments =
            || Arguments { params: vec![Box::new(writer.principal.to_owned())], len: 0, document: None };
        let rows = self.on_table(table, operation, arguments).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let id = DocumentId::stored(column(row, 0)?);
        Ok(Some(Document { id, data: column(row, 1)?, version: column(row, 2)? }))
    }
}

/// The arguments of a write: id, JSON, principal.
pub(super) fn written<'a>(writer: Writer<'a>, id: &'a DocumentId, data: &Json) -> Arguments<'a> {
    Arguments {
        params: vec![
            Box::new(id.as_str().to_owned()),
            Box::new(data.clone()),
            Box::new(writer.principal.to_owned()),
        ],
        len: data.as_bytes().len(),
        document: Some((id.as_str(), writer.principal)),
    }
}
