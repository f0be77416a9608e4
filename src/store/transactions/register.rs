//! The table of open transactions, `raystream.trxs`: what is open at any daemon, and the oldest of them.

use std::time::Duration;

use tokio_postgres::Client;

use super::Transaction;
use crate::store::scope::Scope;
use crate::store::statements::{Call, StatementKey};
use crate::store::tables::column;
use crate::store::{Store, StoreError};

/// How long a daemon may take to end a transaction whose time is over, before it counts as dead.
const LEASE_SLACK: Duration = Duration::from_secs(30);

/// The row may be there, of an attempt to begin whose answer was lost; and that one may be the later to arrive.
pub(in crate::store) const REGISTER: &str = "INSERT INTO raystream.trxs AS t (sid, owner, create_txid, snapshot, lease) \
    VALUES ($1, $2, $3::text::xid8, $4::text::pg_snapshot, now() + make_interval(secs => $5)) \
    ON CONFLICT (sid) DO UPDATE SET create_txid = EXCLUDED.create_txid, snapshot = EXCLUDED.snapshot, \
    lease = EXCLUDED.lease WHERE t.lease <= EXCLUDED.lease";

pub(in crate::store) const UNREGISTER: &str = "DELETE FROM raystream.trxs WHERE sid = $1";

/// A transaction that only reads holds what its snapshot still saw running. Postgres 14 has an order of these ids, but no
/// `min` of them.
pub(in crate::store) const MIN_ACTIVE: &str = "SELECT (SELECT least(create_txid, pg_snapshot_xmin(snapshot)) AS xid \
    FROM raystream.trxs WHERE lease > now() ORDER BY xid LIMIT 1)::text";

pub(in crate::store) const OUTCOME: &str = "SELECT pg_xact_status($2::text::xid8), \
    EXISTS (SELECT FROM raystream.lifetime WHERE token = $1::text::uuid)";

/// Ends a process only while it has the transaction: its number may be another one's by now. One that waits for a standby
/// is left alone: it has committed, and being ended it would say so without the standby.
pub(in crate::store) const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
    WHERE pid = $1 AND backend_xid = ($2::text::xid8)::xid AND wait_event IS DISTINCT FROM 'SyncRep'";

/// The first statement of an open transaction: it takes the snapshot.
pub(in crate::store) fn introduce_sql(writes: bool) -> String {
    let id = if writes { "pg_current_xact_id()::text" } else { "NULL::text" };
    format!("SELECT {id}, pg_current_snapshot()::text")
}

/// A transaction, for those who ask about it from outside.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) sid: String,
    /// Absent when it only reads.
    pub(super) xid: Option<u64>,
}

/// Asks a transaction that was begun who it is. With this its moment is fixed.
pub(super) async fn introduce(
    transaction: &Transaction,
    sid: &str,
    writes: bool,
) -> Result<(Identity, String), StoreError> {
    let call = Call { key: StatementKey::Introduce { writes }, params: Vec::new(), len: 0, document: None };
    let rows = transaction.run(call).await?;
    let row = rows.first().ok_or(StoreError::Internal)?;
    let xid: Option<String> = column(row, 0)?;
    let xid = xid.map(|text| text.parse()).transpose().map_err(|_| StoreError::Internal)?;
    Ok((Identity { sid: sid.to_owned(), xid }, column(row, 1)?))
}

/// Registers a transaction, for as long as it may last.
pub(super) async fn register(
    store: &Store,
    identity: &Identity,
    owner: &str,
    snapshot: String,
    longest: Duration,
) -> Result<(), StoreError> {
    let params: Vec<crate::store::statements::Param> = vec![
        Box::new(identity.sid.clone()),
        Box::new(owner.to_owned()),
        Box::new(identity.xid.map(|xid| xid.to_string())),
        Box::new(snapshot),
        Box::new((longest + LEASE_SLACK).as_secs_f64()),
    ];
    let scope = Scope { transaction: None, ..store.1.clone() };
    store
        .0
        .writes
        .run(&scope, Call { key: StatementKey::Register, params, len: 0, document: None })
        .await
        .map(drop)
}

/// Forgets it. When that fails its lease does.
pub(super) async fn unregister(store: &Store, sid: &str) {
    let call = Call {
        key: StatementKey::Unregister,
        params: vec![Box::new(sid.to_owned())],
        len: 0,
        document: None,
    };
    if let Err(error) = store.0.writes.run(&Scope::of(store.1.lane), call).await {
        tracing::debug!(%error, "a transaction that is over stays in raystream.trxs until its lease ends");
    }
}

impl Store {
    /// The smallest transaction id that an open transaction of any daemon on this database can still be concerned with: its
    /// own, or one that it saw running. `None` when none is open.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn min_active_txid(&self) -> Result<Option<u64>, StoreError> {
        let call = Call { key: StatementKey::MinActive, params: Vec::new(), len: 0, document: None };
        let rows = self.0.reads.run(&self.1, call).await?;
        let xid: Option<String> = column(rows.first().ok_or(StoreError::Internal)?, 0)?;
        xid.map(|text| text.parse()).transpose().map_err(|_| StoreError::Internal)
    }
}

/// Drops what daemons that died have left.
pub(in crate::store) async fn drop_lapsed(client: &Client) -> Result<(), tokio_postgres::Error> {
    client.execute("DELETE FROM raystream.trxs WHERE lease < now()", &[]).await.map(drop)
}
