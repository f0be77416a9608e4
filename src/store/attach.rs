//! Tables that somebody else made: attached, they are read and watched like tables of documents, and written with SQL.
//!
//! What it takes is in `schemas/sql`: a view with the columns of a table of documents, and triggers.

use thiserror::Error;

use super::StoreOptions;
use super::endpoint::Endpoint;
use super::error::{StartError, StoreError};
use super::migrate::migrate;
use super::session::{self, Access, Driven, whole_message};
use super::tables::NAMESPACE;
use super::types::TableName;

/// The settings of whoever attaches: his own search path decides which table a name means, and the lock that the triggers
/// need holds up every writer behind it.
const SETTINGS: &str = "RESET search_path; SET lock_timeout = '10s'; SET statement_timeout = '60s'";

/// Lets `table.exec` read it.
const OPEN_TO_EXEC: &str = "SELECT raystream.open_to_exec(ptr) FROM raystream.storage WHERE owner = $1 AND name = $2 AND attached IS NOT NULL";

/// Why a table was not attached or detached.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The database cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The name is none that a table can have here.
    #[error("`{name}` cannot be the name of a table here: {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: StoreError,
    },
    /// Postgres refused it. For the operator: it has Postgres' own words.
    #[error("Postgres refused it: {0}")]
    Refused(String),
    /// There is no such table.
    #[error("no table is attached as `{0}`")]
    NotAttached(String),
}

fn refused(error: tokio_postgres::Error) -> AttachError {
    let hint = error.as_db_error().and_then(|error| error.hint());
    let message = whole_message(&error);
    AttachError::Refused(hint.map_or_else(|| message.clone(), |hint| format!("{message} ({hint})")))
}

/// A session of the schema's own version.
async fn open(endpoint: &Endpoint) -> Result<Driven, AttachError> {
    let mut options = StoreOptions::new(endpoint.clone());
    // Nothing is promised here that a crash could break.
    options.unsafe_durability = true;
    let mut client = session::open(&options, Access::Setup).await?.driven();
    migrate(&mut client).await?;
    client.batch_execute(SETTINGS).await.map_err(refused)?;
    Ok(client)
}

/// Attaches a table of the database, `relation` as SQL names it, and answers under which name: that of the table itself unless
/// another one is given.
///
/// # Errors
/// [`AttachError`]: among others when it has no primary key, or the role may make no triggers on it.
pub async fn attach(
    endpoint: &Endpoint,
    relation: &str,
    name: Option<&str>,
) -> Result<TableName, AttachError> {
    let mut client = open(endpoint).await?;
    let found = client
        .query_one("SELECT relname::text FROM pg_class WHERE oid = $1::text::regclass", &[&relation])
        .await
        .map_err(refused)?;
    let own: String = found.try_get(0).map_err(refused)?;
    let name = name.map_or(own, str::to_owned);
    let name = TableName::parse(&name).map_err(|reason| AttachError::Name { name, reason })?;
    let transaction = client.transaction().await.map_err(refused)?;
    let attach = "SELECT raystream.attach($1, $2, $3::text::regclass)";
    transaction.execute(attach, &[&NAMESPACE, &name.as_str(), &relation]).await.map_err(refused)?;
    transaction.execute(OPEN_TO_EXEC, &[&NAMESPACE, &name.as_str()]).await.map_err(refused)?;
    transaction.commit().await.map_err(refused)?;
    Ok(name)
}

/// Detaches a table, by its name here or as SQL names it; answers its name. Its subscriptions end within seconds.
///
/// # Errors
/// [`AttachError`].
pub async fn detach(endpoint: &Endpoint, relation: &str) -> Result<String, AttachError> {
    let client = open(endpoint).await?;
    let detached = client
        .query_one("SELECT raystream.detach($1, $2, to_regclass($2))", &[&NAMESPACE, &relation])
        .await
        .map_err(refused)?;
    let name: Option<String> = detached.try_get(0).map_err(refused)?;
    name.ok_or_else(|| AttachError::NotAttached(relation.to_owned()))
}
