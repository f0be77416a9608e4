//! `table.batch`: several calls in one transaction, all or nothing.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::args::{self, Args};
use super::caller::Context;
use super::documents::Method;
use super::idempotent::{self, Body};
use super::references::{Budget, Fault, LOOKUP_MAX, expand};
use super::reply::{Json as Out, RESULT_MAX};
use super::transactions::{self, Manner};
use crate::rpc::{Call, Encoding, Items, Reply, Status, Untrusted};
use crate::store::{Isolation, Store, TransactionOptions, Writes};
use crate::wire::registry::ErrorCode;

/// The most calls of a batch: it holds a connection of Postgres and its locks until the last one.
pub const BATCH_CALLS_MAX: usize = 128;

/// The most bytes of arguments of a batch once references are replaced: a message is 1 MiB, and each part of it may be used
/// again some times.
pub const BATCH_ARGS_MAX: usize = 4 * 1024 * 1024;

/// One call of a batch, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
}

/// One call of a batch whose caller was judged.
struct Step {
    method: Method,
    name: String,
    /// With references in it.
    args: Box<RawValue>,
}

/// `table.batch {calls: [{method, args}, ..]}`: `{results: [..]}`.
pub(super) async fn batch(store: Store, context: Context, call: Call) -> Result<Bytes, Status> {
    let steps = Arc::new(read(&context, &call)?);
    let writes = if writes(&steps) { Writes::Allowed } else { Writes::Refused };
    let key = idempotent::key_of(&context, &call)?;
    let body: Body = {
        let context = context.clone();
        Arc::new(move |store| run(store, context.clone(), Arc::clone(&steps)).boxed())
    };
    match key {
        Some(key) => idempotent::once(&store, key, Isolation::Snapshot, body).await,
        None => {
            let options = TransactionOptions { isolation: Isolation::Snapshot, writes, is_repeatable: false };
            store.transaction(options, move |store| body(store)).await
        }
    }
}

/// The same in a transaction of the caller: it is whole because that transaction is rolled back when a call fails.
pub(super) fn within(context: &Context, call: &Call, sid: &str) -> Reply {
    let steps = match read(context, call) {
        Ok(steps) => Arc::new(steps),
        Err(status) => return Reply::Ready(Err(status)),
    };
    let manner = Manner { writes: writes(&steps), whole: true };
    let has_key = call.idempotency_key.is_some();
    let inner = context.clone();
    transactions::within(context, sid, has_key, &manner, move |store| run(store, inner, steps).boxed())
}

fn writes(steps: &[Step]) -> bool {
    steps.iter().any(|step| step.method.writes())
}

/// The calls, each judged as if it came alone.
fn read(context: &Context, call: &Call) -> Result<Vec<Step>, Status> {
    let args = Args::parse(call, &["calls", "sid"])?;
    let calls = args.json("calls")?;
    let shape = || Status::invalid("the field `calls` has to be an array of `{method, args}`");
    let calls: Vec<Written<'_>> = serde_json::from_slice(&calls).map_err(|_| shape())?;
    if calls.len() > BATCH_CALLS_MAX {
        return Err(Status::invalid(format!("a batch has {BATCH_CALLS_MAX} calls at most")));
    }
    let steps = calls.into_iter().enumerate();
    steps.map(|(index, call)| judge(context, call).map_err(|status| at(index, status))).collect()
}

fn judge(context: &Context, call: Written<'_>) -> Result<Step, Status> {
    context.caller.authorise_call(&call.method)?;
    let Some(method) = Method::of(&call.method) else {
        let message = format!("`{}` is no method that a batch may have", Untrusted::new(&*call.method));
        return Err(Status::invalid(message));
    };
    let args = match call.args {
        Some(args) => args.to_owned(),
        None => RawValue::from_string("{}".to_owned()).expect("this is JSON"),
    };
    let step = Call { args: Bytes::copy_from_slice(args.get().as_bytes()), ..step_call(String::new()) };
    if args::sid(&step)?.is_some() {
        return Err(Status::invalid("the field `sid` belongs to the batch, not to a call of it"));
    }
    // The table or topic is never a reference: who may use it is known before anything is done.
    method.authorise(context, args.get())?;
    Ok(Step { method, name: call.method.into_owned(), args })
}

async fn run(store: Store, context: Context, steps: Arc<Vec<Step>>) -> Result<Bytes, Status> {
    let mut budget = Budget { args: BATCH_ARGS_MAX, lookup: LOOKUP_MAX };
    let mut results: Vec<Bytes> = Vec::with_capacity(steps.len());
    let mut len = 0;
    for (index, step) in steps.iter().enumerate() {
        let result = run_step(&store, &context, step, &results, &mut budget).await;
        let result = result.map_err(|status| at(index, status))?;
        len += result.len();
        if len > RESULT_MAX {
            let message = format!("the results are larger than {RESULT_MAX} bytes");
            return Err(at(index, Status::new(ErrorCode::PAYLOAD_TOO_LARGE, message)));
        }
        results.push(result);
    }
    let mut out = Out::with_room(len + results.len()).raw(r#"{"results":["#);
    for (place, result) in results.iter().enumerate() {
        out = if place == 0 { out } else { out.raw(",") }.raw(result);
    }
    out.raw("]}").finish()
}

async fn run_step(
    store: &Store,
    context: &Context,
    step: &Step,
    results: &[Bytes],
    budget: &mut Budget,
) -> Result<Bytes, Status> {
    let args = expand(step.args.get(), results, budget).map_err(|fault| match fault {
        Fault::Invalid(message) => Status::invalid(message),
        Fault::TooLarge => Status::new(
            ErrorCode::PAYLOAD_TOO_LARGE,
            format!(
                "with its references replaced, a batch has {BATCH_ARGS_MAX} bytes of arguments at most, and reads \
                 {LOOKUP_MAX} bytes of results for them"
            ),
        ),
    })?;
    let call = Call { args: Bytes::from(args), ..step_call(step.name.clone()) };
    step.method.run(store.clone(), context.clone(), call).await
}

/// A call without arguments.
fn step_call(method: String) -> Call {
    Call {
        method: method.into(),
        encoding: Encoding::Json,
        args: Bytes::new(),
        idempotency_key: None,
        items: Items::default(),
    }
}

/// Says which call failed.
fn at(index: usize, status: Status) -> Status {
    let details = match &status.details {
        Some(details) => {
            [format!("{{\"index\":{index},\"details\":").as_bytes(), details, b"}"].concat().into()
        }
        None => Bytes::from(format!("{{\"index\":{index}}}")),
    };
    status.with_details(details)
}
