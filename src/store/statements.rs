//! The SQL of the store. Every statement is a whole transaction; names are quoted and values are parameters.
//!
//! `set_config('raystream.principal', ..)` names the writer for the triggers, until the end of the transaction.

use std::sync::Arc;

use tokio_postgres::types::ToSql;

use super::feed::{MOMENT, MOMENT_OF_TIME, Past};
use super::json_schema::{
    LOGGED_SINCE_IS_KEPT, SET_SCHEMA, SHOW_SCHEMA, live_sql, logged_since_sql, written_since_sql,
};
use super::search::{SearchShape, search_sql};
use super::types::{QUERY_PAGE_LEN_MAX, TablePtr};

/// A parameter, owned: the statement may outlive its caller.
pub(super) type Param = Box<dyn ToSql + Sync + Send>;

/// Bytes that an item of a page costs in a message besides its id and data.
pub(super) const ITEM_OVERHEAD: usize = 64;

/// A statement with its parameters.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) key: StatementKey,
    pub(super) params: Vec<Param>,
    /// About the bytes of the parameters.
    pub(super) len: usize,
    /// Of a read or a write of one document: what says whether it may share a transaction, and with whom a statement.
    pub(super) document: Option<Point>,
}

/// What a statement does to one document by its id.
#[derive(Debug)]
pub(super) struct Point {
    /// Which document of which table, as a hash: two that are the same by mistake only wait for one another.
    pub(super) row: u64,
    pub(super) id: String,
    /// Who writes, or nobody. A statement names one writer.
    pub(super) writer: String,
}

impl Call {
    /// A statement that is not of one document by its id.
    pub(super) fn of(key: StatementKey, params: Vec<Param>, len: usize) -> Self {
        Self { key, params, len, document: None }
    }
}

/// What a prepared statement is found by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum StatementKey {
    /// On a table of documents; and by which version of its schema what is written was checked. The schema itself is not here:
    /// a statement is kept for longer than it is in force.
    Documents(Arc<TablePtr>, Operation, Option<i64>),
    /// The same operation for many documents at once; parameters: see [`Operation::many_sql`].
    Many(Arc<TablePtr>, Operation, Option<i64>),
    /// Parameters: owner, name, the version of its JSON Schema that is known. Columns: schema, table, version of the JSON Schema,
    /// whether it has one, and that, unless it is known.
    FindTable,
    /// Parameters: owner, name. Column: whether it was made.
    CreateTable,
    /// See `json_schema::change`.
    SetSchema,
    /// See `json_schema::change`.
    ShowSchema,
    /// See `json_schema::change`, for the next ones too.
    WrittenSince(Arc<TablePtr>),
    /// See [`WrittenSince`](Self::WrittenSince).
    LoggedSince(Arc<TablePtr>),
    /// See [`WrittenSince`](Self::WrittenSince).
    LoggedSinceIsKept,
    /// See [`WrittenSince`](Self::WrittenSince).
    Live(Arc<TablePtr>),
    /// Column: the snapshot as text.
    Snapshot,
    /// Parameter: owner. Columns: name, schema, table, time of creation.
    ListTables,
    /// Parameters: principal, key, hash of the request. Columns: hash of the request, reply, id of the transaction. See `idempotency`.
    ClaimKey,
    /// Parameters: principal, key, reply.
    KeepReply,
    /// Parameters: place in the log, id, data, principal. Columns: transaction, snapshot. See `topics`.
    Publish,
    /// Columns: id of the transaction, snapshot. See `transactions::register`, for the next ones too.
    Introduce {
        /// Whether the transaction may write, and gets an id for that.
        writes: bool,
    },
    /// Parameters: sid, owner, id of the transaction, snapshot, seconds.
    Register,
    /// Parameter: sid.
    Unregister,
    /// Column: id of a transaction.
    MinActive,
    /// Parameters: lifetime, id of the transaction. Columns: status, whether it is the lifetime still.
    Outcome,
    /// Parameters: process, id of the transaction.
    Terminate,
    /// Columns: see `feed::history`.
    Moment,
    /// Parameter: the time as text. Columns: see `feed::history`.
    MomentOfTime,
    /// Ends of a transaction and queries that are streamed, for the log: they are not prepared here.
    Begin,
    /// See [`Begin`](Self::Begin).
    Commit,
    /// See [`Begin`](Self::Begin).
    Stream,
}

/// What is done on a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    /// Parameter: id.
    Get,
    /// Parameters: the moment, id.
    GetPast(Past),
    /// Parameters: id, data, principal.
    Set,
    /// The same.
    SetNew,
    /// Parameters: id, data, principal, version.
    SetVersion,
    /// Parameters: id, patch, principal.
    Update,
    /// Parameters: id, patch, principal, version.
    UpdateVersion,
    /// What a patch would make of a document. Parameters: id, patch. Columns: that, the version of the document.
    Merged {
        /// Whether the document is kept for this transaction.
        lock: bool,
    },
    /// Parameters: id, principal.
    Delete,
    /// Parameters: id, data, principal.
    Push,
    /// Parameter: principal.
    Pop,
    /// Parameter: principal.
    Shift,
    /// Parameters: see [`query_sql`].
    Query(QueryShape),
    /// Parameters: the moment, filter, as there are.
    Count {
        /// Whether there is a filter.
        filter: bool,
        /// Of which moment.
        past: Option<Past>,
    },
    /// Parameters: see [`search_sql`].
    Search(SearchShape),
}

/// The form of a query: what decides its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct QueryShape {
    pub(super) past: Option<Past>,
    pub(super) filter: bool,
    pub(super) order: OrderKind,
    pub(super) descending: bool,
    pub(super) after: bool,
}

/// By what the documents are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum OrderKind {
    Insertion,
    Id,
    Field,
}

impl StatementKey {
    /// The text of the statement.
    pub(super) fn sql(&self) -> String {
        match self {
            Self::Documents(table, operation, checked) => operation.sql(table, *checked),
            Self::Many(table, operation, checked) => {
                operation.many_sql(table, *checked).expect("only what has a text for many is asked for it")
            }
            Self::FindTable => "SELECT ptr_schema, ptr, schema_version, json_schema IS NOT NULL, \
                 CASE WHEN schema_version <> $3 THEN json_schema END \
                 FROM raystream.storage WHERE owner = $1 AND name = $2"
                .to_owned(),
            Self::SetSchema => SET_SCHEMA.to_owned(),
            Self::ShowSchema => SHOW_SCHEMA.to_owned(),
            Self::WrittenSince(table) => written_since_sql(table),
            Self::LoggedSince(table) => logged_since_sql(table),
            Self::Live(table) => live_sql(table),
            Self::LoggedSinceIsKept => LOGGED_SINCE_IS_KEPT.to_owned(),
            Self::Snapshot => "SELECT pg_current_snapshot()::text".to_owned(),
            Self::CreateTable => "SELECT raystream.create_table($1, $2)".to_owned(),
            Self::ListTables => {
                "SELECT name, ptr_schema, ptr, created_at FROM raystream.storage WHERE owner = $1 \
                                 ORDER BY name COLLATE \"C\""
                    .to_owned()
            }
            Self::ClaimKey => super::idempotency::CLAIM.to_owned(),
            Self::KeepReply => super::idempotency::KEEP.to_owned(),
            Self::Publish => super::topics::publish_sql(),
            Self::Introduce { writes } => super::transactions::introduce_sql(*writes),
            Self::Register => super::transactions::REGISTER.to_owned(),
            Self::Unregister => super::transactions::UNREGISTER.to_owned(),
            Self::MinActive => super::transactions::MIN_ACTIVE.to_owned(),
            Self::Outcome => super::transactions::OUTCOME.to_owned(),
            Self::Terminate => super::transactions::TERMINATE.to_owned(),
            Self::Moment => MOMENT.to_owned(),
            Self::MomentOfTime => MOMENT_OF_TIME.to_owned(),
            Self::Begin => "BEGIN".to_owned(),
            Self::Commit => "COMMIT".to_owned(),
            Self::Stream => "SELECT".to_owned(),
        }
    }
}

impl Operation {
    /// Whether it reads what was.
    pub(super) fn is_of_the_past(self) -> bool {
        match self {
            Self::GetPast(_) => true,
            Self::Query(shape) => shape.past.is_some(),
            Self::Count { past, .. } => past.is_some(),
            Self::Search(shape) => shape.past.is_some(),
            _ => false,
        }
    }

    /// Whether the best way to do it depends on the values that it is asked with: which rows a filter leaves, whether there is an
    /// index on a path.
    pub(super) fn is_planned_by_values(self) -> bool {
        match self {
            Self::Query(shape) => shape.filter || shape.order == OrderKind::Field,
            Self::Count { filter, .. } => filter,
            _ => false,
        }
    }

    fn sql(self, ptr: &TablePtr, checked: Option<i64>) -> String {
        let table = &*ptr.quoted();
        match self {
            Self::Get => {
                format!("SELECT data, _version FROM {table} WHERE id = $1 AND _deleted_txid IS NULL")
            }
            Self::GetPast(past) => {
                let mut next = placeholders();
                let moment = past.placeholders(&mut next);
                let id = next();
                let rows = past.rows(ptr, &moment, Some(&id));
                format!("SELECT data, _version FROM {rows} WHERE id = {id}::text")
            }
            Self::Set => format!("{} RETURNING _version", upsert(table, &one(checked))),
            Self::SetNew => format!("{} {WHERE_NEW} RETURNING _version", upsert(table, &one(checked))),
            Self::SetVersion => format!(
                "UPDATE {table} SET data = $2, _version = _version + 1, {TXID}, _owner = {} \
                 WHERE id = $1 AND _version = $4 AND _deleted_txid IS NULL RETURNING _version",
                writer(checked)
            ),
            Self::UpdateVersion => format!(
                "UPDATE {table} SET data = raystream.merge_patch(data, $2), _version = _version + 1, {TXID}, \
                 _owner = {} WHERE id = $1 AND _version = $4 AND _deleted_txid IS NULL RETURNING _version",
                writer(checked)
            ),
            Self::Merged { lock } => format!(
                "SELECT raystream.merge_patch(data, $2), _version FROM {table} \
                 WHERE id = $1 AND _deleted_txid IS NULL{}",
                if lock { " FOR UPDATE" } else { "" }
            ),
            Self::Update => format!(
                "UPDATE {table} SET data = raystream.merge_patch(data, $2), _version = _version + 1, {TXID}, \
                 _owner = set_config('raystream.principal', $3, true) \
                 WHERE id = $1 AND _deleted_txid IS NULL RETURNING _version"
            ),
            Self::Delete => format!(
                "UPDATE {table} SET {TOMBSTONE}, _version = _version + 1, {TXID}, \
                 _owner = set_config('raystream.principal', $2, true) \
                 WHERE id = $1 AND _deleted_txid IS NULL RETURNING _version"
            ),
            Self::Push => format!("INSERT INTO {table} (id, data, _owner) {}", one(checked)),
            Self::Pop => take(table, "DESC"),
            Self::Shift => take(table, "ASC"),
            Self::Query(shape) => query_sql(ptr, shape),
            Self::Search(shape) => search_sql(ptr, shape),
            Self::Count { filter, past } => {
                let mut next = placeholders();
                let rows = rows(ptr, past, &mut next);
                let filter = if filter { format!(" AND data @> {}", next()) } else { String::new() };
                format!("SELECT count(*) FROM {rows} WHERE _deleted_txid IS NULL{filter}")
            }
        }
    }

    /// The text for many documents, each of them once. Parameters: ids, and of a write data, principal, lock timeout. Columns:
    /// those for one document, and the id; a document that is not read or written has no row.
    ///
    /// Only what has no choice of how its rows are searched: a plan that joins the documents to a table is right for the
    /// size that the table had when it was made.
    fn many_sql(self, ptr: &TablePtr, checked: Option<i64>) -> Option<String> {
        let table = &*ptr.quoted();
        match self {
            Self::Set => Some(format!("{} RETURNING _version, id", upsert(table, &many(checked)))),
            Self::SetNew => {
                Some(format!("{} {WHERE_NEW} RETURNING _version, id", upsert(table, &many(checked))))
            }
            Self::Push => Some(format!("INSERT INTO {table} AS d (id, data, _owner) {}", many(checked))),
            // Each by its key, in their order: OFFSET keeps the two parts from being joined in another way, and the last
            // condition is not written as that of the index of live documents, which could be searched as a whole instead.
            Self::Get => Some(format!(
                "SELECT d.data, d._version, i.id FROM unnest($1::text[]) AS i (id), LATERAL (SELECT data, _version \
                 FROM {table} AS t WHERE t.id = i.id AND num_nulls(t._deleted_txid) = 1 OFFSET 0) AS d"
            )),
            _ => None,
        }
    }

    /// Whether there is a text for many documents.
    fn has_many(self) -> bool {
        matches!(self, Self::Set | Self::SetNew | Self::Push | Self::Get)
    }

    /// Whether it writes documents that were checked, where the table has a schema.
    pub(super) fn writes_checked(self) -> bool {
        matches!(self, Self::Set | Self::SetNew | Self::SetVersion | Self::UpdateVersion | Self::Push)
    }

    /// Where a row of many documents has the id.
    fn id_column(self) -> usize {
        if matches!(self, Self::Get) { 2 } else { 1 }
    }
}

impl StatementKey {
    /// Where the rows have the id, when this is a statement for many documents.
    pub(super) fn id_column(&self) -> Option<usize> {
        match self {
            Self::Many(_, operation, _) => Some(operation.id_column()),
            _ => None,
        }
    }

    /// Whether it leaves behind, in its transaction, the word that its documents were checked: it has to be taken back
    /// before the next statement, which may have been made when the table had another schema.
    pub(super) fn leaves_checked(&self) -> bool {
        match self {
            Self::Documents(_, _, checked) | Self::Many(_, _, checked) => checked.is_some(),
            _ => false,
        }
    }

    /// The statement that does the same for many documents, if there is one.
    pub(super) fn many(&self) -> Option<Self> {
        match self {
            Self::Documents(table, operation, checked) if operation.has_many() => {
                Some(Self::Many(Arc::clone(table), *operation, *checked))
            }
            _ => None,
        }
    }
}

/// Parameters by number, from the first on.
pub(super) fn placeholders() -> impl FnMut() -> String {
    let mut last = 0;
    move || {
        last += 1;
        format!("${last}")
    }
}

/// What a statement reads of a table: what is there, or what was. Takes the parameters of the moment.
pub(super) fn rows(table: &TablePtr, past: Option<Past>, next: &mut impl FnMut() -> String) -> String {
    match past {
        None => table.quoted(),
        Some(past) => {
            let moment = past.placeholders(next);
            past.rows(table, &moment, None)
        }
    }
}

/// Which transaction wrote a row. An inserted one has it by default.
const TXID: &str = "_txid = pg_current_xact_id()";

/// What makes a row a tombstone: its content goes, its version stays, so that a document set again does not repeat one.
const TOMBSTONE: &str = "_deleted_txid = pg_current_xact_id(), data = 'null'";

/// Takes back the word that documents were checked.
pub(super) const NOT_CHECKED: &str = "SET LOCAL raystream.schema = ''";

/// Who writes, which is `$3`; and for a table with a schema the word that the documents were checked, by which version.
fn writer(checked: Option<i64>) -> String {
    match checked {
        None => "set_config('raystream.principal', $3, true)".to_owned(),
        Some(version) => format!(
            "CASE WHEN set_config('raystream.schema', '{version}', true) IS NOT NULL \
             THEN set_config('raystream.principal', $3, true) END"
        ),
    }
}

/// The row of one document. Parameters: id, data, principal.
fn one(checked: Option<i64>) -> String {
    format!("VALUES ($1, $2, {})", writer(checked))
}

/// The rows of many documents: ids, data, principal, and how long a lock may be waited for. The settings are made once,
/// before the first row, and end with the transaction.
fn many(checked: Option<i64>) -> String {
    format!(
        "SELECT i.id, i.data, (SELECT {}) FROM unnest($1::text[], $2::jsonb[]) AS i (id, data) \
         WHERE (SELECT set_config('lock_timeout', $4, true)) IS NOT NULL",
        writer(checked)
    )
}

/// Only in the place of a document that is not there.
const WHERE_NEW: &str = "WHERE d._deleted_txid IS NOT NULL";

/// Inserts or replaces. A row that was a tombstone is a new document: it takes the place that it has as an inserted one.
fn upsert(table: &str, rows: &str) -> String {
    format!(
        "INSERT INTO {table} AS d (id, data, _owner) {rows} \
         ON CONFLICT (id) DO UPDATE SET data = EXCLUDED.data, _version = d._version + 1, _deleted_txid = NULL, \
         _txid = EXCLUDED._txid, _owner = EXCLUDED._owner, \
         _order = CASE WHEN d._deleted_txid IS NULL THEN d._order ELSE EXCLUDED._order END"
    )
}

/// Takes one document from an end. The row is locked in a part of its own (a CTE with FOR UPDATE is run once and not
/// merged into the update), and rows that others hold are passed over: so two callers get different ones, and a caller
/// gets none only when there is no row that is free.
fn take(table: &str, direction: &str) -> String {
    format!(
        "WITH taken AS (SELECT id, data, _version FROM {table} WHERE _deleted_txid IS NULL \
         ORDER BY _order {direction}, id {direction} LIMIT 1 FOR UPDATE SKIP LOCKED) \
         UPDATE {table} AS d SET {TOMBSTONE}, _version = d._version + 1, {TXID}, \
         _owner = set_config('raystream.principal', $1, true) \
         FROM taken WHERE d.id = taken.id RETURNING taken.id, taken.data, taken._version"
    )
}

/// The condition for what is behind a place in an order. Parameters: insertion, order and id; id, the id; field, value and id.
pub(super) fn behind(
    order: OrderKind,
    descending: bool,
    key: &str,
    next: &mut impl FnMut() -> String,
) -> String {
    let compare = if descending { '<' } else { '>' };
    match order {
        OrderKind::Insertion => format!("(_order, id) {compare} ({}::bigint, {}::text)", next(), next()),
        OrderKind::Id => format!("id {compare} {}::text", next()),
        OrderKind::Field => format!("({key}, id) {compare} ({}::jsonb, {}::text)", next(), next()),
    }
}

/// One page. Parameters, in this order, as the shape has them: the moment, filter, path, the place after which it starts (insertion:
/// order and id; id: id; field: value and id), and the most rows. Columns: id, text, version, order, key, rows found.
///
/// The page is cut where it gets too long: first by the stored size, which costs nothing to know (and a thousand long
/// documents are not all unpacked for a page of one), then by the length of the text. The first document always stays.
fn query_sql(table: &TablePtr, shape: QueryShape) -> String {
    let mut next = placeholders();
    let table = rows(table, shape.past, &mut next);
    let mut conditions = vec!["_deleted_txid IS NULL".to_owned()];
    if shape.filter {
        conditions.push(format!("data @> {}", next()));
    }
    let (key, order): (String, &[&str]) = match shape.order {
        OrderKind::Insertion => ("NULL::jsonb".to_owned(), &["_order", "id"]),
        OrderKind::Id => ("NULL::jsonb".to_owned(), &["id"]),
        OrderKind::Field => (format!("coalesce(data #> {}::text[], 'null')", next()), &["key", "id"]),
    };
    if shape.after {
        conditions.push(behind(shape.order, shape.descending, &key, &mut next));
    }
    let direction = if shape.descending { " DESC" } else { "" };
    let order = order.iter().map(|column| format!("{column}{direction}")).collect::<Vec<_>>().join(", ");
    let conditions = conditions.join(" AND ");
    let limit = next();
    format!(
        "SELECT id, text, _version, _order, key::text, found FROM (\
           SELECT *, sum(octet_length(text) + octet_length(id) + {ITEM_OVERHEAD}) OVER (ORDER BY n) AS text_len FROM (\
             SELECT id, data::text AS text, _version, _order, key, n, found FROM (\
               SELECT *, row_number() OVER page AS n, count(*) OVER () AS found, \
                 sum(pg_column_size(data)) OVER page AS stored_len \
               FROM (SELECT id, data, _version, _order, {key} AS key FROM {table} \
                 WHERE {conditions} ORDER BY {order} LIMIT {limit}) AS rows \
               WINDOW page AS (ORDER BY {order} ROWS UNBOUNDED PRECEDING)\
             ) AS sized WHERE stored_len <= {QUERY_PAGE_LEN_MAX} OR n = 1 OFFSET 0\
           ) AS texts\
         ) AS measured WHERE text_len <= {QUERY_PAGE_LEN_MAX} OR n = 1 ORDER BY n"
    )
}
