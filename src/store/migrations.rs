//! Migrations of a user's own schema, run: each in one transaction, one command at a time.
//!
//! What is run is planned by [`crate::migrations`]. The history is the table `raystream.schema_migrations`; a migration's row is
//! committed with what the migration did.

use std::collections::BTreeMap;

use thiserror::Error;
use tokio_postgres::error::{DbError, ErrorPosition, SqlState};
use tokio_postgres::{Client, Row, Transaction};

use super::StoreOptions;
use super::endpoint::Endpoint;
use super::error::StartError;
use super::migrate::migrate;
use super::session::{self, Access, whole_message};
use super::sqlstate::ends_session;
use super::tables::NAMESPACE;
use crate::migrations::{Applied, Migration, MigrationFault};

/// The key of the advisory lock: "raystmig" as a number. Another one than that of the daemon's own schema, which is taken
/// and given back while this one is held.
const LOCK_KEY: i64 = i64::from_be_bytes(*b"raystmig");

/// The settings of a session that migrates. Its search path is the role's own, for the statements of reviewed files. A lock
/// that is not given in time is given up, because everybody else waits behind who waits for it.
const SETTINGS: &str = "RESET search_path; SET lock_timeout = '10s'; SET standard_conforming_strings = on";

/// Takes back what a migration left behind in the session, which is that of the next one too. Not DISCARD ALL, which would give back
/// the lock.
const CLEAN: &str = "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; CLOSE ALL; UNLISTEN *; DISCARD TEMP; DISCARD SEQUENCES";

/// Has Postgres notice in the middle of a statement that we are gone, and with us the lock. Not every system can.
const NOTICE_DEATH: &str = "SET client_connection_check_interval = '1s'";

/// How a time is told: RFC 3339.
const TIME: &str = "to_char(applied_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')";

/// Why a migration was not run.
#[derive(Debug, Error)]
pub enum MigrateError {
    /// The database cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// What is planned does not fit.
    #[error(transparent)]
    Fault(#[from] MigrationFault),
    /// Another command migrates, for longer than we wait.
    #[error("another `raystream migrate` is at work on this database and does not end")]
    Busy,
    /// A migration failed. Nothing of it happened. For the operator: it has Postgres' own words.
    #[error("migration {version} ({name}) was rolled back: {message}")]
    Failed {
        /// Its number.
        version: u32,
        /// Its name.
        name: String,
        /// What Postgres said, with the line where that is known.
        message: String,
    },
    /// The connection broke during COMMIT.
    #[error(
        "the connection broke while migration {version} was being committed: `raystream migrate status` shows whether it was"
    )]
    Unknown {
        /// Its number.
        version: u32,
    },
    /// There is nothing to revert.
    #[error("no migration was applied to this database")]
    Nothing,
    /// It has no statements that take it back.
    #[error("migration {version} ({name}) has nothing below `-- down`: it cannot be reverted")]
    Irreversible {
        /// Its number.
        version: u32,
        /// Its name.
        name: String,
    },
    /// Postgres refused something else.
    #[error("Postgres refused it: {0}")]
    Refused(String),
}

fn refused(error: tokio_postgres::Error) -> MigrateError {
    MigrateError::Refused(whole_message(&error))
}

async fn open(endpoint: &Endpoint) -> Result<session::Session, MigrateError> {
    let mut options = StoreOptions::new(endpoint.clone());
    // A crash takes back the history together with what it is the history of.
    options.unsafe_durability = true;
    Ok(session::open(&options, Access::Setup).await?)
}

/// What a database has, in order. Changes nothing.
///
/// # Errors
/// [`MigrateError`].
pub async fn applied(endpoint: &Endpoint) -> Result<Vec<Applied>, MigrateError> {
    let client = open(endpoint).await?.driven();
    let found = client
        .query_one("SELECT to_regclass('raystream.schema_migrations') IS NOT NULL", &[])
        .await
        .map_err(refused)?;
    if found.get::<_, bool>(0) { history(&client).await } else { Ok(Vec::new()) }
}

async fn history(client: &Client) -> Result<Vec<Applied>, MigrateError> {
    let query = format!(
        "SELECT version, name, reviewed, encode(sha256, 'hex'), source, {TIME} FROM raystream.schema_migrations ORDER BY version"
    );
    let rows = client.query(&query, &[]).await.map_err(refused)?;
    let read = |row: &Row| -> Result<Applied, tokio_postgres::Error> {
        Ok(Applied {
            version: u32::try_from(row.try_get::<_, i32>(0)?).unwrap_or_default(),
            name: row.try_get(1)?,
            reviewed: row.try_get(2)?,
            hash: row.try_get(3)?,
            source: row.try_get(4)?,
            applied_at: row.try_get(5)?,
        })
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(refused)
}

/// A session that migrates. Nobody else does on this database while it is there.
#[derive(Debug)]
pub struct Migrator {
    client: session::Driven,
    /// The statements that set the session up.
    settings: String,
}

impl Migrator {
    /// Brings the daemon's own schema up to date, and waits until no other command migrates.
    ///
    /// # Errors
    /// [`MigrateError`].
    pub async fn start(endpoint: &Endpoint) -> Result<Self, MigrateError> {
        let session = open(endpoint).await?;
        let settings = format!("{}; {SETTINGS}", session.settings);
        let mut client = session.driven();
        migrate(&mut client).await?;
        // The lock is of the session, and ends with it.
        client.execute("SELECT pg_advisory_lock($1)", &[&LOCK_KEY]).await.map_err(|error| {
            match error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) {
                true => MigrateError::Busy,
                false => refused(error),
            }
        })?;
        let migrator = Self { client, settings };
        migrator.clean().await?;
        Ok(migrator)
    }

    /// Makes the session what it was before any migration.
    async fn clean(&self) -> Result<(), MigrateError> {
        self.client.batch_execute(CLEAN).await.map_err(refused)?;
        self.client.batch_execute(&self.settings).await.map_err(refused)?;
        if let Err(error) = self.client.batch_execute(NOTICE_DEATH).await {
            tracing::debug!(%error, "Postgres does not look for clients that are gone");
        }
        Ok(())
    }

    /// What the database has, in order.
    ///
    /// # Errors
    /// [`MigrateError`].
    pub async fn applied(&self) -> Result<Vec<Applied>, MigrateError> {
        self.clean().await?;
        history(&self.client).await
    }

    /// The physical tables by their names.
    ///
    /// # Errors
    /// [`MigrateError`].
    pub async fn ptrs(&self) -> Result<BTreeMap<String, String>, MigrateError> {
        let query = "SELECT name, coalesce(attached::regclass::text, ptr_schema || '.' || ptr) \
            FROM raystream.storage WHERE owner = $1";
        let rows = self.client.query(query, &[&NAMESPACE]).await.map_err(refused)?;
        let read = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
        rows.iter().map(read).collect::<Result<_, _>>().map_err(refused)
    }

    /// Runs a migration and records it; all of it or nothing.
    ///
    /// # Errors
    /// [`MigrateError`].
    pub async fn apply(&mut self, migration: &Migration) -> Result<(), MigrateError> {
        let work = Work { migration, statements: &migration.up, part: "-- up" };
        let transaction = self.begin(&work).await?;
        let version = i32::try_from(migration.version)
            .map_err(|_| work.failed("its number is too large".to_owned()))?;
        transaction
            .execute(
                "INSERT INTO raystream.schema_migrations (version, name, reviewed, sha256, source) \
                 VALUES ($1, $2, $3, decode($4, 'hex'), $5)",
                &[&version, &migration.name, &migration.reviewed, &migration.hash(), &migration.source],
            )
            .await
            .map_err(|error| work.judge(&error))?;
        work.commit(transaction).await
    }

    /// Takes a migration back, which has to be the newest, and its record with it.
    ///
    /// # Errors
    /// [`MigrateError`].
    pub async fn revert(&mut self, migration: &Migration) -> Result<(), MigrateError> {
        if !migration.has_down() && migration.has_up() {
            let (version, name) = (migration.version, migration.name.clone());
            return Err(MigrateError::Irreversible { version, name });
        }
        let work = Work { migration, statements: &migration.down, part: "-- down" };
        let transaction = self.begin(&work).await?;
        let version = i32::try_from(migration.version)
            .map_err(|_| work.failed("its number is too large".to_owned()))?;
        let removed = transaction
            .execute(
                "DELETE FROM raystream.schema_migrations AS m WHERE m.version = $1 \
                 AND NOT EXISTS (SELECT FROM raystream.schema_migrations AS n WHERE n.version > m.version)",
                &[&version],
            )
            .await
            .map_err(|error| work.judge(&error))?;
        if removed != 1 {
            return Err(work.failed("it is not the newest one any more".to_owned()));
        }
        work.commit(transaction).await
    }

    /// A transaction in which the statements were run.
    async fn begin(&mut self, work: &Work<'_>) -> Result<Transaction<'_>, MigrateError> {
        self.clean().await?;
        let transaction = self.client.transaction().await.map_err(refused)?;
        let Migration { version, name, .. } = work.migration;
        let run = async {
            // The change log names the migration as the writer.
            let settings = "SELECT set_config('raystream.principal', $1, true), set_config('raystream.migrating', 'on', true)";
            transaction.execute(settings, &[&format!("migration {version} {name}")]).await?;
            transaction.execute("SELECT raystream.run_migration($1)", &[&work.statements]).await?;
            // The record is written by who began it.
            transaction.batch_execute("RESET SESSION AUTHORIZATION; RESET ROLE").await
        };
        run.await.map_err(|error| work.judge(&error))?;
        Ok(transaction)
    }
}

/// What is run of a migration.
struct Work<'a> {
    migration: &'a Migration,
    statements: &'a str,
    /// The line that the statements begin after.
    part: &'static str,
}

impl Work<'_> {
    fn failed(&self, message: String) -> MigrateError {
        let (version, name) = (self.migration.version, self.migration.name.clone());
        MigrateError::Failed { version, name, message }
    }

    async fn commit(&self, transaction: Transaction<'_>) -> Result<(), MigrateError> {
        transaction.commit().await.map_err(|error| match error.as_db_error() {
            Some(database) if !ends_session(database) => self.judge(&error),
            _ => MigrateError::Unknown { version: self.migration.version },
        })
    }

    /// What Postgres said, where, and what it advises.
    fn judge(&self, error: &tokio_postgres::Error) -> MigrateError {
        let Some(database) = error.as_db_error() else {
            return self.failed(whole_message(error));
        };
        let mut message = match self.line(database) {
            Some(line) => format!("line {line}: {}", database.message()),
            None => database.message().to_owned(),
        };
        for more in [database.detail(), database.hint()].into_iter().flatten() {
            message.push_str(&format!(" ({more})"));
        }
        if *database.code() == SqlState::FEATURE_NOT_SUPPORTED
            || *database.code() == SqlState::INVALID_TRANSACTION_TERMINATION
        {
            message.push_str(
                " (a migration is one transaction: no BEGIN, COMMIT or ROLLBACK, and no CONCURRENTLY)",
            );
        }
        if *database.code() == SqlState::LOCK_NOT_AVAILABLE
            || *database.code() == SqlState::T_R_DEADLOCK_DETECTED
        {
            message.push_str(" (somebody else uses the table; try again)");
        }
        self.failed(message)
    }

    /// The line of the migration's text that an error is about.
    fn line(&self, error: &DbError) -> Option<usize> {
        let Some(ErrorPosition::Internal { position, query }) = error.position() else { return None };
        if query != self.statements {
            return None;
        }
        let begin = self.migration.source.lines().position(|line| line.trim_end() == self.part)?;
        let before = query.chars().take(usize::try_from(*position).ok()?.saturating_sub(1));
        Some(begin + 2 + before.filter(|c| *c == '\n').count())
    }
}
