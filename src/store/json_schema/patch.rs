//! Patches of documents that have to fit a schema: what has to fit is what they make of a document.

use std::sync::Arc;

use futures_util::FutureExt;

use crate::store::documents::written;
use crate::store::statements::Operation;
use crate::store::tables::{Arguments, column};
use crate::store::{
    DocumentId, Isolation, Json, Store, StoreError, TableName, TransactionOptions, Writer, Writes,
};

impl Store {
    /// Merges a patch into a document when the result fits.
    ///
    /// The result is asked for and checked, and the patch done if the document is still the one that it was. When it is not,
    /// and somebody writes it all the time, it is kept for a transaction of its own.
    pub(in crate::store) async fn update_checked(
        &self,
        writer: Writer<'_>,
        table: &TableName,
        id: &DocumentId,
        patch: Json,
    ) -> Result<i64, StoreError> {
        if self.1.transaction.is_some() {
            return self.try_update(writer, table, id, &patch, true).await?.ok_or(StoreError::Conflict);
        }
        if let Some(version) = self.try_update(writer, table, id, &patch, false).await? {
            return Ok(version);
        }
        let options = TransactionOptions {
            isolation: Isolation::Statement,
            is_repeatable: false,
            writes: Writes::Allowed,
        };
        let arguments = Arc::new((writer.principal.to_owned(), table.clone(), id.clone(), patch));
        let update = move |store: Store| {
            let arguments = Arc::clone(&arguments);
            async move {
                let (principal, table, id, patch) = &*arguments;
                let done = store.try_update(Writer::new(principal), table, id, patch, true).await?;
                done.ok_or(StoreError::Conflict)
            }
            .boxed()
        };
        self.transaction(options, update).await
    }

    /// Answers the new version; `None` when the document is another one meanwhile.
    async fn try_update(
        &self,
        writer: Writer<'_>,
        table: &TableName,
        id: &DocumentId,
        patch: &Json,
        lock: bool,
    ) -> Result<Option<i64>, StoreError> {
        let asked = || Arguments {
            params: vec![Box::new(id.as_str().to_owned()), Box::new(patch.clone())],
            len: patch.as_bytes().len(),
            document: None,
        };
        let rows = self.on_table(table, Operation::Merged { lock }, asked).await?;
        let row = rows.first().ok_or(StoreError::NotFound)?;
        let (merged, version): (Json, i64) = (column(row, 0)?, column(row, 1)?);
        merged.check()?;
        let arguments = || {
            let mut arguments = written(writer, id, patch);
            arguments.params.push(Box::new(version));
            arguments
        };
        let rows = self.write_table(table, Operation::UpdateVersion, Some(&merged), arguments).await?;
        rows.first().map(|row| column(row, 0)).transpose()
    }
}
