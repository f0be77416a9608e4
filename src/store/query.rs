//! Queries over the documents of a table: a page at a time, each from where the one before ended.

use super::feed::{At, Moment};
use super::page_cursor::{PageCursor, Paged, Place, other_query};
use super::statements::{Operation, OrderKind, Param, QueryShape};
use super::tables::{Arguments, column};
use super::types::{QUERY_LIMIT_DEFAULT, QUERY_LIMIT_MAX};
use super::{Document, DocumentId, Json, Order, Page, Query, Store, StoreError, TableName};

impl Store {
    /// One page of the documents that match.
    ///
    /// # Errors
    /// [`StoreError::InvalidInput`] when limit or cursor are not valid for the query; [`StoreError::NotFound`] when
    /// there is no such table; [`StoreError::Reset`] when the moment of the query is no longer kept.
    pub async fn query(&self, table: &TableName, query: Query) -> Result<Page, StoreError> {
        let limit = query.limit.unwrap_or(QUERY_LIMIT_DEFAULT);
        if limit == 0 || limit > QUERY_LIMIT_MAX {
            return Err(StoreError::invalid(format!("a limit is 1 to {QUERY_LIMIT_MAX}")));
        }
        if let Some(filter) = &query.filter {
            filter.check()?;
        }
        let paged = Paged::of(table, &query);
        let after = self.place(query.after.as_deref(), &paged, query.at.as_ref())?;
        let (order, descending) = form(&query.order);
        let past = query.at.as_ref().map(Moment::past);
        let shape =
            QueryShape { past, filter: query.filter.is_some(), order, descending, after: after.is_some() };
        let arguments = || {
            let (params, len) = params(&query, after.as_ref(), limit);
            Arguments { params, len, document: None }
        };
        let rows = self.on_table(table, Operation::Query(shape), arguments).await?;
        self.still_kept(query.at.as_ref()).await?;

        let page_len = rows.len().min(usize::try_from(limit).unwrap_or(usize::MAX));
        let mut items = Vec::with_capacity(page_len);
        let mut next = None;
        for (place, row) in rows.iter().take(page_len).enumerate() {
            let id: String = column(row, 0)?;
            // One row more than the page was looked for, to know whether there is more.
            let found: i64 = column(row, 5)?;
            if place + 1 == page_len && usize::try_from(found).is_ok_and(|found| found > page_len) {
                let place = match order {
                    OrderKind::Insertion => Place::Insertion { order: column(row, 3)?, id: id.clone() },
                    OrderKind::Id => Place::Id { id: id.clone() },
                    OrderKind::Field => Place::Field { key: column(row, 4)?, id: id.clone() },
                };
                next = Some(PageCursor::new(place, query.at.as_ref()).encode(&self.0.page_key, &paged)?);
            }
            items.push(Document {
                id: DocumentId::stored(id),
                data: column(row, 1)?,
                version: column(row, 2)?,
            });
        }
        Ok(Page { items, next })
    }

    /// Where a query goes on.
    ///
    /// # Errors
    /// [`StoreError::InvalidInput`] when the cursor is of another query.
    pub(super) fn place(
        &self,
        after: Option<&str>,
        paged: &Paged<'_>,
        at: Option<&Moment>,
    ) -> Result<Option<Place>, StoreError> {
        let Some(text) = after else { return Ok(None) };
        let cursor = PageCursor::decode(text, &self.0.page_key, paged)?;
        if cursor.fits(at) { Ok(Some(cursor.place)) } else { Err(other_query()) }
    }

    /// The moment of a query: that of the page before if it goes on behind one, else the one that is asked for. It may be asked
    /// for again with each page as it was for the first one, or as the cursor that its answer had, or not at all.
    ///
    /// # Errors
    /// Those of [`Store::moment`], and [`StoreError::InvalidInput`] when the page before is of another query or moment.
    pub async fn moment_of_page(
        &self,
        table: &TableName,
        query: &Query,
        at: Option<&At>,
    ) -> Result<Option<Moment>, StoreError> {
        self.moment_behind(query.after.as_deref(), &Paged::of(table, query), at).await
    }

    /// The same, of whatever has pages.
    pub(super) async fn moment_behind(
        &self,
        after: Option<&str>,
        paged: &Paged<'_>,
        at: Option<&At>,
    ) -> Result<Option<Moment>, StoreError> {
        let Some(text) = after else {
            return match at {
                Some(at) => self.moment(at).await.map(Some),
                None => Ok(None),
            };
        };
        let cursor = PageCursor::decode(text, &self.0.page_key, paged)?;
        let (Some(pinned), asked) = (cursor.at, at.map(At::text)) else {
            return if at.is_none() { Ok(None) } else { Err(other_query()) };
        };
        if asked.is_some_and(|asked| asked != pinned.asked && asked != pinned.cursor) {
            return Err(other_query());
        }
        let moment = self.moment(&At::Cursor(pinned.cursor)).await?;
        Ok(Some(moment.asked_as(&pinned.asked)))
    }

    /// How many documents match.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such table.
    pub async fn count(&self, table: &TableName, filter: Option<Json>) -> Result<u64, StoreError> {
        self.count_at(table, filter, None).await
    }

    /// How many documents match, or matched at a moment.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when there is no such table; [`StoreError::Reset`] when the moment is no longer kept.
    pub async fn count_at(
        &self,
        table: &TableName,
        filter: Option<Json>,
        at: Option<&Moment>,
    ) -> Result<u64, StoreError> {
        if let Some(filter) = &filter {
            filter.check()?;
        }
        let arguments = || {
            let mut params = at.map_or_else(Vec::new, Moment::params);
            let mut len = 0;
            if let Some(filter) = &filter {
                len = filter.as_bytes().len();
                params.push(Box::new(filter.clone()));
            }
            Arguments { params, len, document: None }
        };
        let operation = Operation::Count { filter: filter.is_some(), past: at.map(Moment::past) };
        let rows = self.on_table(table, operation, arguments).await?;
        self.still_kept(at).await?;
        let count: i64 = column(rows.first().ok_or(StoreError::Internal)?, 0)?;
        u64::try_from(count).map_err(|_| StoreError::Internal)
    }
}

/// What decides the statement of an order, and whether it is from the greatest on.
pub(super) fn form(order: &Order) -> (OrderKind, bool) {
    match order {
        Order::Insertion => (OrderKind::Insertion, false),
        Order::Id { descending } => (OrderKind::Id, *descending),
        Order::Field { descending, .. } => (OrderKind::Field, *descending),
    }
}

/// The parameters of [`behind`](super::statements::behind), and of the place in a search.
pub(super) fn place_params(place: &Place) -> Vec<Param> {
    match place {
        Place::Insertion { order, id } => vec![Box::new(*order), Box::new(id.clone())],
        Place::Id { id } => vec![Box::new(id.clone())],
        Place::Ranked { rank, id } => vec![Box::new(f32::from_bits(*rank)), Box::new(id.clone())],
        Place::Field { key, id } => {
            vec![Box::new(Json::new(key.clone().into_bytes())), Box::new(id.clone())]
        }
    }
}

/// The parameters of a page, in the order in which the statement has them.
fn params(query: &Query, after: Option<&Place>, limit: u32) -> (Vec<Param>, usize) {
    let mut params = query.at.as_ref().map_or_else(Vec::new, Moment::params);
    let mut len = 0;
    if let Some(filter) = &query.filter {
        len += filter.as_bytes().len();
        params.push(Box::new(filter.clone()));
    }
    if let Order::Field { path, .. } = &query.order {
        params.push(Box::new(path.clone()));
    }
    params.extend(after.map(place_params).unwrap_or_default());
    params.push(Box::new(i64::from(limit) + 1));
    (params, len)
}
