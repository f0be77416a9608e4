//! The start of a feed: which database this is, its partitions, and the first position.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use super::cursor::{self, Database, Position};
use super::hub::Hub;
use super::link::LinkError;
use super::log::Log;
use super::readers::Readers;
use super::retention::maintain;
use super::{FeedOptions, Shared};
use crate::store::endpoint::Endpoint;

/// What the database says of itself.
const EPOCH: &str = "SELECT m.epoch, (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()) \
    FROM raystream.meta AS m";

/// The cluster's own number. A role may lack the right to see it.
const CLUSTER: &str = "SELECT system_identifier FROM pg_control_system()";

/// Connects and makes what the tasks share.
pub(super) async fn begin(
    endpoint: Endpoint,
    options: FeedOptions,
    wake: Arc<Notify>,
) -> Result<(Shared, Position), LinkError> {
    let log = Log::open(&endpoint).await?;
    let database = database(&log.link.client).await?;
    maintain(&log.link, options.retention).await?;
    let moment = log.head().await?.frontier(0);
    // Fails rather than to hand out cursors that are too long.
    cursor::at(database, &moment).ok_or(LinkError::TooBusy)?;
    let readers = Readers::new(endpoint.clone(), options.readers.max(1));
    let shared = Shared {
        endpoint,
        options,
        database,
        hub: Hub::new(moment.clone()),
        readers,
        wake,
        heard: Notify::new(),
        outgoing: Notify::new(),
        ready: AtomicBool::new(false),
    };
    Ok((shared, Position::at(moment)))
}

/// The name of the database in cursors. The epoch alone would go along with a dump into a cluster where transaction ids
/// mean something else, and with a copy of the database beside this one.
pub(in crate::store) async fn database(client: &Client) -> Result<Database, Error> {
    let row = client.query_typed_one(EPOCH, &[]).await?;
    let epoch: &[u8] = row.try_get(0)?;
    let oid: u32 = row.try_get(1)?;
    let cluster: i64 = match client.query_typed_one(CLUSTER, &[]).await {
        Ok(row) => row.try_get(0)?,
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => 0,
        Err(error) => return Err(error),
    };
    let mut hash = Sha256::new();
    hash.update(b"raystream-cursor");
    hash.update(cluster.to_be_bytes());
    hash.update(oid.to_be_bytes());
    hash.update(epoch);
    let digest = hash.finalize();
    let (name, _) = digest.split_first_chunk().expect("a SHA-256 hash is longer than the name");
    Ok(*name)
}
