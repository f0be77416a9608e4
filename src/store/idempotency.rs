//! Calls that are named by a key: their replies are kept in the transaction of their effect, so that a repeated call gets
//! the reply and has no second effect, also at another daemon and after a restart.
//!
//! The key is claimed first. A second caller waits at the row for the first one's transaction: it finds the reply when that
//! was committed, and the place free when it was rolled back. Claim and effect are sent together; the effect of a caller
//! who finds a reply is rolled back.

use std::time::Duration;

use bytes::Bytes;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::statements::{Call, Param, StatementKey};
use super::tables::column;
use super::{Store, StoreError};

/// How long a reply is kept at least.
pub const KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Replies that are dropped at once: a short statement, which holds up nobody.
const DROPPED_AT_ONCE: i64 = 1_000;

/// The update changes nothing; it waits for who has the row, and then gives what he committed. The transaction's id is for
/// finding out what became of it.
pub(super) const CLAIM: &str = "INSERT INTO raystream.idempotency AS i (principal, key, request_hash) \
    VALUES ($1, $2, $3) ON CONFLICT (principal, key) DO UPDATE SET at = i.at \
    RETURNING i.request_hash, i.reply, pg_current_xact_id()::text";

pub(super) const KEEP: &str = "UPDATE raystream.idempotency SET reply = $3 WHERE principal = $1 AND key = $2";

/// By the index of `at`; what another daemon drops at this moment is passed over.
const DROP: &str = "WITH old AS (SELECT principal, key FROM raystream.idempotency \
    WHERE at < now() - make_interval(secs => $1) ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED), \
    gone AS (DELETE FROM raystream.idempotency AS i USING old \
    WHERE i.principal = old.principal AND i.key = old.key RETURNING 1) SELECT count(*) FROM gone";

/// The name of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Whose key it is.
    pub principal: String,
    /// The key.
    pub key: [u8; 16],
    /// SHA-256 of the request.
    pub request_hash: [u8; 32],
}

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Nobody used it: it is ours, once the transaction is committed.
    New,
    /// The call was done, and this was its reply.
    Done(Bytes),
    /// Another request was done under it.
    OtherRequest,
}

impl Store {
    /// Claims a key in the transaction of this store's scope, and does `effect` there, which gives the reply. The two are
    /// sent together: the effect only counts when the claim is [`Claim::New`]; then its reply is kept with it, else
    /// the caller of this has to let the transaction fail.
    ///
    /// # Errors
    /// [`StoreError`] of the claim, or the effect's own when the claim was new.
    pub async fn claim<E: From<StoreError>>(
        &self,
        key: &IdempotencyKey,
        effect: impl Future<Output = Result<Bytes, E>>,
    ) -> Result<(Claim, Option<Bytes>), E> {
        let transaction = self.1.transaction.as_ref().ok_or(StoreError::Internal)?;
        let params: Vec<Param> = vec![
            Box::new(key.principal.clone()),
            Box::new(key.key.to_vec()),
            Box::new(key.request_hash.to_vec()),
        ];
        let call = Call::of(StatementKey::ClaimKey, params, 0);
        let claim = transaction.send(call).await?;
        let claimed = async {
            let rows = transaction.finish(&StatementKey::ClaimKey, claim).await?;
            let row = rows.first().ok_or(StoreError::Internal)?;
            let (hash, reply): (&[u8], Option<Vec<u8>>) = (column(row, 0)?, column(row, 1)?);
            transaction.identified(column(row, 2)?);
            Ok::<_, StoreError>(match reply {
                _ if hash != key.request_hash => Claim::OtherRequest,
                Some(reply) => Claim::Done(Bytes::from(reply)),
                None => Claim::New,
            })
        };
        let (claimed, reply) = futures_util::join!(claimed, effect);
        let claimed = claimed?;
        if claimed != Claim::New {
            return Ok((claimed, None));
        }
        let reply = reply?;
        let params: Vec<Param> =
            vec![Box::new(key.principal.clone()), Box::new(key.key.to_vec()), Box::new(reply.to_vec())];
        let keep = Call::of(StatementKey::KeepReply, params, reply.len());
        transaction.run_later(keep).await?;
        Ok((claimed, Some(reply)))
    }
}

/// Drops the replies that were kept long enough, some at a time, so that each statement is short. Answers how many.
pub(super) async fn drop_old(client: &Client) -> Result<u64, tokio_postgres::Error> {
    let (age, at_once) = (KEPT_FOR.as_secs_f64(), DROPPED_AT_ONCE);
    let mut dropped = 0;
    loop {
        let arguments = [(&age as _, Type::FLOAT8), (&at_once as _, Type::INT8)];
        let count: i64 = client.query_typed_one(DROP, &arguments).await?.try_get(0)?;
        dropped += u64::try_from(count).unwrap_or_default();
        if count < DROPPED_AT_ONCE {
            return Ok(dropped);
        }
    }
}
