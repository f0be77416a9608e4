//! Calls with an idempotency key: done once, however often they come.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};

use super::caller::Context;
use crate::rpc::{Call, Status};
use crate::store::{Claim, IdempotencyKey, Isolation, Store, StoreError, TransactionOptions, Writes};

/// What a transaction does; it may be run several times.
pub(super) type Body = Arc<dyn Fn(Store) -> BoxFuture<'static, Result<Bytes, Status>> + Send + Sync>;

/// The first bytes of what is hashed, so that the hash of a request is no hash of anything else.
const REQUEST_DOMAIN: &[u8] = b"raystream idempotent request v1";

/// Why the transaction of a call was not committed.
enum Undone {
    /// Because the call was done before: this was its reply.
    Before(Bytes),
    Failed(Status),
}

impl From<StoreError> for Undone {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<Status> for Undone {
    fn from(status: Status) -> Self {
        Self::Failed(status)
    }
}

/// The name of a call, if it has one. The caller has to have been judged before its reply is given out.
pub(super) fn key_of(context: &Context, call: &Call) -> Result<Option<IdempotencyKey>, Status> {
    let Some(key) = call.idempotency_key else { return Ok(None) };
    let principal = &context.caller.principal;
    // Anonymous peers are strangers to each other. Where everything is open to all of them there is nothing to keep from
    // one another; elsewhere a stranger could ask for a reply that was another one's.
    if principal.key().is_none() && !context.caller.access.load().is_open() {
        return Err(Status::invalid(
            "an idempotency key needs a client key: anonymous callers have no replies of their own",
        ));
    }
    Ok(Some(IdempotencyKey { principal: principal.name().to_owned(), key, request_hash: hash(call) }))
}

/// SHA-256 over the domain, and method, encoding and arguments, each with its length.
fn hash(call: &Call) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(REQUEST_DOMAIN);
    let encoding = [call.encoding.0];
    for part in [call.method.as_bytes(), &encoding, &call.args] {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Does it once, in one transaction with its reply.
pub(super) async fn once(
    store: &Store,
    key: IdempotencyKey,
    isolation: Isolation,
    body: Body,
) -> Result<Bytes, Status> {
    let options = TransactionOptions { isolation, writes: Writes::Allowed, is_repeatable: true };
    let key = Arc::new(key);
    let done = store.transaction(options, move |store| {
        let (key, body) = (Arc::clone(&key), Arc::clone(&body));
        async move {
            match store.claim(&key, body(store.clone())).await? {
                (Claim::New, Some(reply)) => Ok(reply),
                (Claim::New, None) => Err(Undone::Failed(Status::internal())),
                (Claim::Done(reply), _) => Err(Undone::Before(reply)),
                (Claim::OtherRequest, _) => Err(Undone::Failed(Status::invalid(
                    "another request was done under this idempotency key",
                ))),
            }
        }
        .boxed()
    });
    match done.await {
        Ok(reply) | Err(Undone::Before(reply)) => Ok(reply),
        Err(Undone::Failed(status)) => Err(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::Encoding;

    #[test]
    fn requests_that_differ_in_anything_have_other_hashes() {
        let call = |method: &str, encoding, args: &'static str| {
            hash(&Call {
                method: method.into(),
                encoding,
                args: Bytes::from_static(args.as_bytes()),
                idempotency_key: Some([1; 16]),
                items: crate::rpc::Items::default(),
            })
        };
        let all = [
            call("table.push", Encoding::Json, "{}"),
            call("table.pus", Encoding::Json, "h{}"),
            call("table.push", Encoding::Raw, "{}"),
            call("table.push", Encoding::Json, "{} "),
            call("table.push", Encoding::Json, ""),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(!all[..place].contains(one), "request {place}");
        }
        assert_eq!(all[0], call("table.push", Encoding::Json, "{}"));
    }
}
