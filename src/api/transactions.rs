//! `tx.*`: transactions that a client keeps open, and the calls in them.
//!
//! A transaction belongs to the connection that began it: it is known nowhere else, and rolled back with it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

use super::args::Args;
use super::caller::Context;
use super::documents::scope;
use super::reply::Json as Out;
use crate::rpc::{Call, Reply, Status};
use crate::store::{InTransaction, Isolation, OpenOptions, OpenTransaction, Over, Store, StoreError, Writes};
use crate::wire::registry::ErrorCode;

/// Transactions that one connection may have open, unless the configuration says otherwise: a third of the server's, so
/// that one client does not keep out the others.
pub const TRANSACTIONS_PER_CONNECTION: u16 = 4;

/// Transactions of a connection that are over and are remembered, to tell why: more than it may have open, since a client
/// that sends several calls at once hears of the end with each.
const OVER_MAX: usize = 32;

/// What an error says in `details` when the transaction of the call is over and nothing of it was done.
const ROLLED_BACK: &[u8] = br#""transaction":"rolled_back""#;

/// What it says besides when the transaction was rolled back for its age: what it saw is no longer kept.
const EXPIRED: &[u8] = br#"{"transaction":"rolled_back","code":"SNAPSHOT_EXPIRED"}"#;

/// What it says when the connection has no such transaction.
const NONE: &[u8] = br#"{"transaction":"none"}"#;

/// The open transactions of one connection.
#[derive(Debug)]
pub struct Transactions {
    places: Arc<Semaphore>,
    known: Mutex<VecDeque<Arc<OpenTransaction>>>,
}

impl Default for Transactions {
    fn default() -> Self {
        Self::at_most(TRANSACTIONS_PER_CONNECTION)
    }
}

impl Transactions {
    /// Room for `max` at a time.
    pub fn at_most(max: u16) -> Self {
        Self { places: Arc::new(Semaphore::new(max.into())), known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, VecDeque<Arc<OpenTransaction>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, sid: &str) -> Result<Arc<OpenTransaction>, Status> {
        let known = self.known();
        known.iter().find(|transaction| transaction.sid() == sid).cloned().ok_or_else(none)
    }

    fn add(&self, transaction: OpenTransaction) {
        let mut known = self.known();
        known.push_back(Arc::new(transaction));
        let mut over = known.iter().filter(|transaction| transaction.is_over()).count();
        known.retain(|transaction| {
            let is_dropped = over > OVER_MAX && transaction.is_over();
            over -= usize::from(is_dropped);
            !is_dropped
        });
    }

    fn forget(&self, sid: &str) {
        self.known().retain(|transaction| transaction.sid() != sid);
    }
}

fn none() -> Status {
    let message = "this connection has no such transaction: it is over, or was begun on another connection";
    Status::new(ErrorCode::NOT_FOUND, message).with_details(Bytes::from_static(NONE))
}

/// `tx.begin {isolation?, read_only?}`: `{sid, owner, currentTxid}`.
pub(super) async fn begin(store: Store, context: Context, call: Call) -> Result<Bytes, Status> {
    let args = Args::parse(&call, &["isolation", "read_only"])?;
    let isolation = match args.optional_string("isolation")?.as_deref() {
        None | Some("snapshot") => Isolation::Snapshot,
        Some("serializable") => Isolation::Serializable,
        Some(_) => {
            return Err(Status::invalid("the field `isolation` has to be `snapshot` or `serializable`"));
        }
    };
    let read_only = args.optional_bool("read_only")?.unwrap_or(false);
    let writes = if read_only { Writes::Refused } else { Writes::Allowed };
    let owner = context.caller.principal.name();
    let own = &context.caller.transactions;
    let transaction = store.begin(owner, OpenOptions { isolation, writes }, &own.places).await?;
    let reply = who(Out::with_room(96).raw("{"), &transaction, owner).raw("}").finish();
    own.add(transaction);
    reply
}

/// `"sid":..,"owner":..,"currentTxid":..`.
fn who(out: Out, transaction: &OpenTransaction, owner: &str) -> Out {
    let txid = transaction.txid().map_or_else(|| "null".to_owned(), |txid| txid.to_string());
    out.raw(r#""sid":"#)
        .string(transaction.sid())
        .raw(r#","owner":"#)
        .string(owner)
        .raw(r#","currentTxid":"#)
        .raw(txid)
}

/// `tx.status {sid}`: what `tx.begin` gave, and `{state, isolation, read_only, age_ms, left_ms, reason?}`.
pub(super) fn status(context: &Context, call: &Call) -> Result<Bytes, Status> {
    let transaction = named(context, call)?;
    let status = transaction.status();
    let isolation = match status.options.isolation {
        Isolation::Serializable => "serializable",
        Isolation::Snapshot | Isolation::Statement => "snapshot",
    };
    let state = match &status.over {
        None => "open",
        Some(Over::Committed) => "committed",
        Some(Over::Unknown) => "unknown",
        Some(_) => "rolled_back",
    };
    let out = who(Out::with_room(256).raw("{"), &transaction, context.caller.principal.name())
        .raw(format!(r#","state":"{state}","isolation":"{isolation}""#))
        .raw(format!(r#","read_only":{}"#, status.options.writes == Writes::Refused))
        .raw(format!(r#","age_ms":{},"left_ms":{}"#, status.age.as_millis(), status.left.as_millis()));
    match &status.over {
        Some(over) => out.raw(r#","reason":"#).string(&over.to_string()),
        None => out,
    }
    .raw("}")
    .finish()
}

/// `tx.commit {sid}`: `{committed: true}` once it is on the disk.
pub(super) fn commit(context: &Context, call: &Call) -> Reply {
    let transaction = match named(context, call) {
        Ok(transaction) => transaction,
        Err(status) => return Reply::Ready(Err(status)),
    };
    let (committed, context) = (transaction.commit(scope(context)), context.clone());
    Reply::pending(async move {
        match committed.await {
            Ok(()) => {
                context.caller.transactions.forget(transaction.sid());
                Ok(Bytes::from_static(br#"{"committed":true}"#))
            }
            Err(over) => Err(ended(over)),
        }
    })
}

/// `tx.rollback {sid}`: `{rolled_back: true}`, also when that had happened by itself.
pub(super) fn roll_back(context: &Context, call: &Call) -> Reply {
    let transaction = match named(context, call) {
        Ok(transaction) => transaction,
        Err(status) => return Reply::Ready(Err(status)),
    };
    let (rolled_back, context) = (transaction.roll_back(), context.clone());
    Reply::pending(async move {
        rolled_back.await;
        let status = transaction.status();
        context.caller.transactions.forget(transaction.sid());
        match status.over {
            // A commit was before it.
            Some(Over::Committed) => Err(none()),
            Some(Over::Unknown) => Err(ended(Over::Unknown)),
            _ => Ok(Bytes::from_static(br#"{"rolled_back":true}"#)),
        }
    })
}

/// `tx.minActiveTxid`: `{minActiveTxid}`; null when no transaction is open at any server of the database.
pub(super) async fn min_active(store: Store, _: Context, call: Call) -> Result<Bytes, Status> {
    Args::parse(&call, &[])?;
    let txid = store.min_active_txid().await?.map_or_else(|| "null".to_owned(), |txid| txid.to_string());
    Out::with_room(0).raw(r#"{"minActiveTxid":"#).raw(txid).raw("}").finish()
}

/// The transaction that the arguments name, and nothing else.
fn named(context: &Context, call: &Call) -> Result<Arc<OpenTransaction>, Status> {
    let args = Args::parse(call, &["sid"])?;
    context.caller.transactions.find(&args.string("sid")?)
}

/// How work is done in a transaction.
pub(super) struct Manner {
    /// Whether it writes.
    pub(super) writes: bool,
    /// Whether it is all or nothing though it is several statements.
    pub(super) whole: bool,
}

/// Runs a call in the transaction `sid`. Its place among the calls of that transaction is taken before this returns.
pub(super) fn within(
    context: &Context,
    sid: &str,
    has_key: bool,
    manner: &Manner,
    body: impl FnOnce(Store) -> BoxFuture<'static, Result<Bytes, Status>> + Send + 'static,
) -> Reply {
    if has_key {
        let message =
            "a call in a transaction takes no idempotency key: the transaction is done once or not at all";
        return Reply::Ready(Err(Status::invalid(message)));
    }
    let transaction = match context.caller.transactions.find(sid) {
        Ok(transaction) => transaction,
        Err(status) => return Reply::Ready(Err(status)),
    };
    if manner.writes && transaction.options().writes == Writes::Refused {
        return Reply::Ready(Err(Status::invalid("the transaction was begun with `read_only`")));
    }
    let done = transaction.run(scope(context), manner.whole, body);
    Reply::pending(async move {
        done.await.map_err(|error| match error {
            InTransaction::Refused(status) => status,
            InTransaction::Broken(status) => rolled_back(status),
            InTransaction::Over(over) => ended(over),
        })
    })
}

/// What is said to a call whose transaction is over.
fn ended(over: Over) -> Status {
    let message = over.to_string();
    match over {
        Over::Idle(_) | Over::TooLong(_) => {
            Status::new(ErrorCode::TIMEOUT, message).with_details(Bytes::from_static(EXPIRED))
        }
        Over::HalfDone => rolled_back(Status::invalid(message)),
        Over::Failed(StoreError::Internal) => rolled_back(Status::internal()),
        Over::Failed(error) => {
            let status = Status::from(error);
            rolled_back(Status { message: message.into(), ..status })
        }
        Over::RolledBack | Over::Committed => none(),
        Over::Unknown => Status::from(StoreError::UnknownOutcome),
    }
}

/// Adds that nothing of the transaction was done.
fn rolled_back(status: Status) -> Status {
    let details = match &status.details {
        Some(inner) => [b"{", ROLLED_BACK, br#","details":"#, &inner[..], b"}"].concat(),
        None => [b"{", ROLLED_BACK, b"}"].concat(),
    };
    let status = match status.code {
        ErrorCode::CONFLICT => {
            let message =
                "it could not be put in an order with other transactions, so the transaction was rolled back";
            Status { message: message.into(), ..status }
        }
        _ => status,
    };
    status.with_details(details.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn who_is_told_that_it_was_rolled_back_knows_whether_another_try_may_help() {
        let second = Duration::from_secs(1);
        for (over, code, retryable) in [
            (Over::Idle(second), ErrorCode::TIMEOUT, false),
            (Over::TooLong(second), ErrorCode::TIMEOUT, false),
            (Over::HalfDone, ErrorCode::INVALID_REQUEST, false),
            (Over::Failed(StoreError::Conflict), ErrorCode::CONFLICT, true),
            (Over::Failed(StoreError::Cancelled), ErrorCode::CANCELLED, false),
            (
                Over::Failed(StoreError::Unavailable { retry_after: second }),
                ErrorCode::SERVICE_UNAVAILABLE,
                true,
            ),
        ] {
            let status = ended(over);
            assert_eq!((status.code, status.code.is_retryable()), (code, retryable), "{status}");
            let details = match code {
                ErrorCode::TIMEOUT => EXPIRED,
                _ => br#"{"transaction":"rolled_back"}"#,
            };
            assert_eq!(status.details.as_deref(), Some(details), "{status}");
        }
        let unknown = ended(Over::Unknown);
        assert_eq!((unknown.code, unknown.details), (ErrorCode::UNKNOWN_OUTCOME, None));
        let of_batch = rolled_back(Status::invalid("x").with_details(Bytes::from_static(b"{\"index\":1}")));
        let details = of_batch.details.expect("it has some");
        assert_eq!(&details[..], br#"{"transaction":"rolled_back","details":{"index":1}}"#);
    }
}
