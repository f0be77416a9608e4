//! The built-in methods: the only place where calls meet stored documents.

mod args;
mod batch;
mod caller;
mod changes;
mod documents;
mod exec;
mod idempotent;
mod references;
mod reply;
mod schemas;
mod search;
mod store_status;
mod streams;
mod sys;
mod tables;
mod topics;
mod transactions;

use std::sync::Arc;

use crate::rpc::{self, CLIENT_ITEMS, Call, Items, Reply, SERVER_ITEMS, Status};
use crate::store::{Isolation, Store};

use documents::{Method, scoped};
use futures_util::{FutureExt, future::BoxFuture};
use transactions::Manner;

pub use args::JSON_DEPTH_MAX;
pub use batch::{BATCH_ARGS_MAX, BATCH_CALLS_MAX};
pub use caller::{Caller, Context, Router};
pub use reply::RESULT_MAX;
pub use sys::{Clock, PROTOCOL};
pub use topics::{PUBLISH, publish_args};
pub use transactions::{TRANSACTIONS_PER_CONNECTION, Transactions};

/// The server's router: `sys.*`, `table.*`, `changes.*`, `topic.*` and `tx.*`, each call authorised before its method is looked up.
pub fn router(store: &Store, clock: Arc<dyn Clock>) -> Router {
    with_sys(rpc::Router::builder(), clock)
        .method("table.get", reading(store, Method::Get))
        .method("table.set", writing(store, Method::Set))
        .method("table.update", writing(store, Method::Update))
        .method("table.delete", writing(store, Method::Delete))
        .method("table.push", writing(store, Method::Push))
        .method("table.pop", writing(store, Method::Pop))
        .method("table.shift", writing(store, Method::Shift))
        .method_with_items("table.query", SERVER_ITEMS, query(store))
        .method_with_items("table.import", CLIENT_ITEMS, import(store))
        .method_with_items("changes.read", SERVER_ITEMS, changes(store))
        .method("table.search", reading(store, Method::Search))
        .method("table.count", reading(store, Method::Count))
        .method("table.exec", reading(store, Method::Exec))
        .method("table.schema", on(store, schemas::schema))
        .method("table.setSchema", on(store, schemas::set_schema))
        .method("table.ptr", reading(store, Method::Ptr))
        .method("table.create", writing(store, Method::Create))
        .method("table.list", reading(store, Method::List))
        .method("table.batch", batching(store))
        .method(PUBLISH, writing(store, Method::Publish))
        .method("tx.begin", on(store, transactions::begin))
        .method("tx.commit", |context: &Context, call: Call| transactions::commit(context, &call))
        .method("tx.rollback", |context: &Context, call: Call| transactions::roll_back(context, &call))
        .method("tx.status", |context: &Context, call: Call| transactions::status(context, &call))
        .method("tx.minActiveTxid", on(store, transactions::min_active))
        .build()
        .expect("every name is given once in this function")
}

/// The methods that need no store, for a shell that has none: tests of the transport, and benchmarks of the path.
pub fn sys_router(clock: Arc<dyn Clock>) -> Router {
    with_sys(rpc::Router::builder(), clock).build().expect("every name is given once")
}

fn with_sys(
    builder: rpc::RouterBuilder<Arc<Caller>>,
    clock: Arc<dyn Clock>,
) -> rpc::RouterBuilder<Arc<Caller>> {
    builder
        .check(|context, call| context.caller.authorise_call(&call.method))
        .method_with_items("sys.echo", CLIENT_ITEMS | SERVER_ITEMS, echo)
        .method("sys.info", move |context: &Context, call: Call| sys::info(&clock, context, &call))
}

/// `sys.echo`: at once without items.
fn echo(context: &Context, mut call: Call) -> Reply {
    match std::mem::take(&mut call.items) {
        Items { client: None, server: None } => sys::echo(context, call).into(),
        items => match streams::check_args(&call) {
            Ok(()) => Reply::pending(streams::echo(items)),
            Err(status) => Reply::Ready(Err(status)),
        },
    }
}

/// `table.query`: a page in the answer, or everything as items.
fn query(store: &Store) -> impl Fn(&Context, Call) -> Reply + Send + Sync + 'static {
    let store = store.clone();
    move |context: &Context, mut call| {
        let in_transaction = args::sid(&call);
        match (call.items.server.take(), in_transaction) {
            (_, Err(status)) => Reply::Ready(Err(status)),
            (None, Ok(None)) => Reply::pending(tables::query(scoped(&store, context), context.clone(), call)),
            (Some(items), Ok(None)) => {
                Reply::pending(streams::query(scoped(&store, context), context.clone(), call, items))
            }
            (items, Ok(Some(sid))) => {
                let inner = context.clone();
                within(context, &sid, call, false, move |store, call| match items {
                    None => tables::query(store, inner, call).boxed(),
                    Some(items) => streams::query(store, inner, call, items).boxed(),
                })
            }
        }
    }
}

/// `changes.read`: always with items.
fn changes(store: &Store) -> impl Fn(&Context, Call) -> Reply + Send + Sync + 'static {
    let store = store.clone();
    move |context: &Context, mut call| match call.items.server.take() {
        Some(items) => Reply::pending(changes::read(scoped(&store, context), context.clone(), call, items)),
        None => Reply::Ready(Err(Status::invalid("`changes.read` gives its changes as items"))),
    }
}

/// `table.import`: each document by itself, or all in the caller's transaction.
fn import(store: &Store) -> impl Fn(&Context, Call) -> Reply + Send + Sync + 'static {
    let store = store.clone();
    move |context: &Context, call| match args::sid(&call) {
        Err(status) => Reply::Ready(Err(status)),
        Ok(None) => Reply::pending(streams::import(scoped(&store, context), context.clone(), call)),
        Ok(Some(sid)) => {
            let inner = context.clone();
            within(context, &sid, call, true, move |store, call| streams::import(store, inner, call).boxed())
        }
    }
}

/// `table.batch`: in a transaction of its own, or in the caller's.
fn batching(store: &Store) -> impl Fn(&Context, Call) -> Reply + Send + Sync + 'static {
    let store = store.clone();
    move |context: &Context, call| match args::sid(&call) {
        Err(status) => Reply::Ready(Err(status)),
        Ok(None) => Reply::pending(batch::batch(scoped(&store, context), context.clone(), call)),
        Ok(Some(sid)) => batch::within(context, &call, &sid),
    }
}

/// Runs a call in a transaction of the caller.
fn within<F>(context: &Context, sid: &str, call: Call, writes: bool, method: F) -> Reply
where
    F: FnOnce(Store, Call) -> BoxFuture<'static, Result<bytes::Bytes, Status>> + Send + 'static,
{
    let (has_key, manner) = (call.idempotency_key.is_some(), Manner { writes, whole: false });
    transactions::within(context, sid, has_key, &manner, move |store| method(store, call))
}

/// A handler that awaits the store.
fn on<F, W>(store: &Store, method: F) -> impl Fn(&Context, Call) -> Reply + Send + Sync + 'static
where
    F: Fn(Store, Context, Call) -> W + Send + Sync + 'static,
    W: Future<Output = Result<bytes::Bytes, Status>> + Send + 'static,
{
    let store = store.clone();
    move |context: &Context, call| Reply::pending(method(scoped(&store, context), context.clone(), call))
}

/// A handler that reads.
fn reading(store: &Store, method: Method) -> impl Fn(&Context, Call) -> Reply + Send + Sync + 'static {
    let store = store.clone();
    move |context: &Context, call| match args::sid(&call) {
        Err(status) => Reply::Ready(Err(status)),
        Ok(None) => Reply::pending(method.run(scoped(&store, context), context.clone(), call)),
        Ok(Some(sid)) => document(method, context, call, &sid),
    }
}

/// A method on documents in a transaction of the caller.
fn document(method: Method, context: &Context, call: Call, sid: &str) -> Reply {
    let inner = context.clone();
    within(context, sid, call, method.writes(), move |store, call| method.run(store, inner, call).boxed())
}

/// A handler that writes: once, when the call has a name.
fn writing(store: &Store, method: Method) -> impl Fn(&Context, Call) -> Reply + Send + Sync + 'static {
    let store = store.clone();
    move |context: &Context, call| {
        match args::sid(&call) {
            Err(status) => return Reply::Ready(Err(status)),
            Ok(Some(sid)) => return document(method, context, call, &sid),
            Ok(None) => {}
        }
        let store = scoped(&store, context);
        if call.idempotency_key.is_none() {
            return Reply::pending(method.run(store, context.clone(), call));
        }
        let key = args::text(&call)
            .and_then(|args| method.authorise(context, args))
            .and_then(|()| idempotent::key_of(context, &call));
        match key {
            Ok(None) => Reply::pending(method.run(store, context.clone(), call)),
            Ok(Some(key)) => {
                let context = context.clone();
                let body: idempotent::Body =
                    Arc::new(move |store| method.run(store, context.clone(), call.without_items()).boxed());
                Reply::pending(async move { idempotent::once(&store, key, Isolation::Statement, body).await })
            }
            Err(status) => Reply::Ready(Err(status)),
        }
    }
}
