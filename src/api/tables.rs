//! `table.*`: documents, from arguments to the store and back.
//!
//! Every function goes the same way: read the arguments, have the table authorised, ask the store, write the reply. The
//! table is authorised before the store hears of it, so a refusal is the same whether the table exists or not. Each takes
//! the field `sid` too: it was read before, and the store that comes in is in that transaction.

use bytes::Bytes;

use super::args::Args;
use super::caller::Context;
use super::reply::Json as Out;
use super::streams::item_call;
use crate::auth::{AuthorisedTable, TableRight};
use crate::rpc::{Call, Status};
use crate::store::{
    At, Document, DocumentId, Json, Moment, Order, Query, Store, StoreError, TableName, Writer,
};
use crate::wire::registry::ErrorCode;

/// JSON for "there is none".
const NULL: Bytes = Bytes::from_static(b"null");

impl AsRef<str> for TableName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// The table that the arguments name, once the caller has `right` on it.
pub(super) fn table(
    context: &Context,
    args: &Args<'_>,
    right: TableRight,
) -> Result<AuthorisedTable<TableName>, Status> {
    let name = TableName::parse(&args.string("table")?).map_err(|error| in_field("table", error))?;
    context.caller.authorise_table(name, right)
}

/// The document that the arguments name.
fn id(args: &Args<'_>) -> Result<DocumentId, Status> {
    DocumentId::parse(&args.string("id")?).map_err(|error| in_field("id", error))
}

/// Who is recorded beside the write.
pub(super) fn writer(context: &Context) -> Writer<'_> {
    Writer::new(context.caller.principal.name())
}

/// Names the field whose value the store's own check refused.
pub(super) fn in_field(field: &str, error: StoreError) -> Status {
    match error {
        StoreError::InvalidInput(message) => Status::invalid(format!("the field `{field}`: {message}")),
        other => other.into(),
    }
}

/// The moment that the arguments name, as they name it.
pub(super) fn at(args: &Args<'_>) -> Result<Option<At>, Status> {
    let Some(text) = args.optional_string("at")? else { return Ok(None) };
    At::parse(&text).map(Some).map_err(|error| in_field("at", error))
}

/// The moment that the arguments name, if they do. To be asked for behind the authorisation.
pub(super) async fn moment(store: &Store, args: &Args<'_>) -> Result<Option<Moment>, Status> {
    match at(args)? {
        Some(at) => Ok(Some(store.moment(&at).await?)),
        None => Ok(None),
    }
}

/// Tells the moment of an answer: asked for again, it is the same.
pub(super) fn with_moment(out: Out, at: Option<&Moment>) -> Out {
    match at {
        Some(moment) => out.raw(r#","cursor":"#).string(moment.cursor()),
        None => out,
    }
}

/// `table.get {table, id, at?}`: `{data, version}` or null; with `at` also `{cursor}`.
pub(super) async fn get(store: Store, context: Context, call: Call) -> Result<Bytes, Status> {
    let args = Args::parse(&call, &["table", "id", "sid", "at"])?;
    let table = table(&context, &args, TableRight::Read)?;
    let id = id(&args)?;
    let at = moment(&store, &args).await?;
    let found = match &at {
        None => store.get(table.name(), &id).await?,
        Some(at) => store.get_at(table.name(), &id, at).await?,
    };
    let Some(found) = found else { return Ok(NULL) };
    let out = Out::with_room(found.data.as_bytes().len())
        .raw(r#"{"data":"#)
        .raw(found.data.as_bytes())
        .raw(r#","version":"#)
        .integer(found.version);
    with_moment(out, at.as_ref()).raw("}").finish()
}

/// `table.set {table, id, data, if_version?}`: `{version}`.
pub(super) async fn set(store: Store, context: Context, call: Call) -> Result<Bytes, Status> {
    let args = Args::parse(&call, &["table", "id", "data", "if_version", "sid"])?;
    let table = table(&context, &args, TableRight::Write)?;
    let if_version = args.optional_integer("if_version")?;
    if if_version.is_some_and(|version| version < 0) {
        return Err(Status::invalid("the field `if_version` may not be negative; 0 is: there is none yet"));
    }
    let data = Json::new(args.json("data")?);
    version(store.set(writer(&context), table.name(), &id(&args)?, data, if_version).await?)
}

/// `table.update {table, id, data}`: merges by RFC 7386, `{version}`.
pub(super) async fn update(store: Store, context: Context, call: Call) -> Result<Bytes, Status> {
    let args = Args::parse(&call, &["table", "id", "data", "sid"])?;
    let table = table(&context, &args, TableRight::Write)?;
    let patch = Json::new(args.json("data")?);
    version(store.update(writer(&context), table.name(), &id(&args)?, patch).await?)
}

/// `table.delete {table, id}`: `{deleted}`.
pub(super) async fn delete(store: Store, context: Context, call: Call) -> Result<Bytes, Status> {
    let args = Args::parse(&call, &["table", "id", "sid"])?;
    let table = table(&context, &args, TableRight::Write)?;
    let deleted = store.delete(writer(&context), table.name(), &id(&args)?).await?;
    Ok(Bytes::from_static(if deleted { br#"{"deleted":true}"# } else { br#"{"deleted":false}"# }))
}

/// `table.push {table, data}`: `{id}`.
pub(super) async fn push(store: Store, context: Context, call: Call) -> Result<Bytes, Status> {
    let args = Args::parse(&call, &["table", "data", "sid"])?;
    let table = table(&context, &args, TableRight::Write)?;
    let data = Json::new(args.json("data")?);
    let id = store.push(writer(&context), table.name(), data).await?;
    Out::with_room(0).raw(r#"{"id":"#).string(id.as_str()).raw("}").finish()
}

/// `table.pop {table}`: the newest document, taken out: `{id, data}` or null.
pub(super) async fn pop(store: Store, context: Context, call: Call) -> Result<Bytes, Status> {
    let table = taking(&context, &call)?;
    taken(store.pop(writer(&context), table.name()).await?)
}

/// `table.shift {table}`: the oldest document, taken out: `{id, data}` or null.
pub(super) async fn shift(store: Store, context: Context, call: Call) -> Result<Bytes, Status> {
    let table = taking(&context, &call)?;
    taken(store.shift(writer(&context), table.name()).await?)
}

/// Taking a document out shows and removes it: both rights are needed.
fn taking(context: &Context, call: &Call) -> Result<AuthorisedTable<TableName>, Status> {
    let args = Args::parse(call, &["table", "sid"])?;
    let readable = table(context, &args, TableRight::Read)?;
    context.caller.authorise_table(readable.into_name(), TableRight::Write)
}

/// `table.query {table, filter?, order?, limit?, after?, at?}`: `{items: [{id, data, version}], next}`; `next` is null on the
/// last page; with `at` also `{cursor}`.
pub(super) async fn query(store: Store, context: Context, call: Call) -> Result<Bytes, Status> {
    let args = Args::parse(&call, &["table", "filter", "order", "limit", "after", "sid", "at"])?;
    let table = table(&context, &args, TableRight::Read)?;
    let order = args.optional_string("order")?;
    let query = Query {
        filter: args.optional_object("filter")?.map(Json::new),
        order: order
            .map_or(Ok(Order::default()), |text| Order::parse(&text))
            .map_err(|error| in_field("order", error))?,
        limit: args.optional_count("limit")?,
        after: args.optional_string("after")?.map(std::borrow::Cow::into_owned),
        at: None,
    };
    let at = at(&args)?;
    let at = store.moment_of_page(table.name(), &query, at.as_ref()).await?;
    let query = Query { at: at.clone(), ..query };
    let page = store.query(table.name(), query).await?;
    let room = page.items.iter().map(|item| item.data.as_bytes().len() + item.id.as_str().len() + 48).sum();
    let mut out = Out::with_room(room).raw(r#"{"items":["#);
    for (position, item) in page.items.iter().enumerate() {
        out = document(if position == 0 { out } else { out.raw(",") }, item)
            .raw(r#","version":"#)
            .integer(item.version)
            .raw("}");
    }
    out = out.raw(r#"],"next":"#);
    out = match page.next {
        Some(next) => out.string(&next),
        None => out.raw(NULL),
    };
    with_moment(out, at.as_ref()).raw("}").finish()
}

/// `table.count {table, filter?, at?}`: `{count}`; with `at` also `{cursor}`.
pub(super) async fn count(store: Store, context: Context, call: Call) -> Result<Bytes, Status> {
    let args = Args::parse(&call, &["table", "filter", "sid", "at"])?;
    let table = table(&context, &args, TableRight::Read)?;
    let filter = args.optional_object("filter")?.map(Json::new);
    let at = moment(&store, &args).await?;
    let count = store.count_at(table.name(), filter, at.as_ref()).await?;
    let out = Out::with_room(0).raw(r#"{"count":"#).raw(count.to_string());
    with_moment(out, at.as_ref()).raw("}").finish()
}

/// `table.ptr {table}`: `{ptr}`, the physical table as `schema.table`.
pub(super) async fn ptr(store: Store, context: Context, call: Call) -> Result<Bytes, Status> {
    let args = Args::parse(&call, &["table", "sid"])?;
    let table = table(&context, &args, TableRight::Read)?;
    let ptr = store.ptr(table.name()).await?;
    Out::with_room(0).raw(r#"{"ptr":"#).string(&ptr).raw("}").finish()
}

/// `table.create {table}`: `{created: true}`, or ALREADY_EXISTS.
pub(super) async fn create(store: Store, context: Context, call: Call) -> Result<Bytes, Status> {
    let args = Args::parse(&call, &["table", "sid"])?;
    let table = table(&context, &args, TableRight::Write)?;
    if store.create_table(table.name()).await? {
        return Ok(Bytes::from_static(br#"{"created":true}"#));
    }
    Err(Status::new(ErrorCode::ALREADY_EXISTS, format!("the table `{}` exists already", table.name())))
}

/// `table.list`: `{tables: [name, ..]}`, only those the caller may read.
pub(super) async fn list(store: Store, context: Context, call: Call) -> Result<Bytes, Status> {
    Args::parse(&call, &["sid"])?;
    let readable = store.list_tables().await?.into_iter().filter_map(|info| {
        // One decision for each table, by the same function that guards the reads themselves.
        context.caller.authorise_table(info.name, TableRight::Read).ok()
    });
    let mut out = Out::with_room(0).raw(r#"{"tables":["#);
    for (position, table) in readable.enumerate() {
        out = if position == 0 { out } else { out.raw(",") }.string(table.name().as_str());
    }
    out.raw("]}").finish()
}

fn version(version: i64) -> Result<Bytes, Status> {
    Out::with_room(0).raw(r#"{"version":"#).integer(version).raw("}").finish()
}

fn taken(document_taken: Option<Document>) -> Result<Bytes, Status> {
    let Some(taken) = document_taken else { return Ok(NULL) };
    document(Out::with_room(taken.data.as_bytes().len() + taken.id.as_str().len()), &taken).raw("}").finish()
}

/// `{"id":..,"data":..,"version":..}`.
pub(super) fn whole(found: &Document) -> Result<Bytes, Status> {
    let room = found.data.as_bytes().len() + found.id.as_str().len();
    document(Out::with_room(room), found).raw(r#","version":"#).integer(found.version).raw("}").finish()
}

/// Writes one document of an import.
pub(super) async fn import_one(
    store: &Store,
    context: &Context,
    table: &TableName,
    item: Bytes,
) -> Result<(), Status> {
    let item = item_call(item);
    let args = Args::parse(&item, &["id", "data"])?;
    let data = Json::new(args.json("data")?);
    match args.optional_string("id")? {
        Some(id) => {
            let id = DocumentId::parse(&id).map_err(|error| in_field("id", error))?;
            store.set(writer(context), table, &id, data, None).await?;
        }
        None => drop(store.push(writer(context), table, data).await?),
    }
    Ok(())
}

/// `{"id":..,"data":..` without the closing brace.
pub(super) fn document(out: Out, document: &Document) -> Out {
    out.raw(r#"{"id":"#).string(document.id.as_str()).raw(r#","data":"#).raw(document.data.as_bytes())
}
