//! The schema, brought up to date: the numbered files of `schemas/sql/`, each applied once, in one transaction.
//!
//! What was applied is recorded with its hash. A database that has other or newer migrations than this program is left
//! alone: a daemon that guesses at a schema loses data.

use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio_postgres::{Client, Transaction};

use super::error::{MigrationError, StartError};
use super::session::{refused, whole_message};

/// How long a daemon waits for another one that is migrating. Longer than any migration should take.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(120);

/// The key of the advisory lock: "raystrea" as a number, to meet nobody else's.
const LOCK_KEY: i64 = i64::from_be_bytes(*b"raystrea");

/// A migration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Migration {
    number: i32,
    name: &'static str,
    sql: &'static str,
}

/// All, by number, without a gap. A file that was released never changes: what it lacks is a new one.
const MIGRATIONS: &[Migration] = &[
    Migration { number: 1, name: "init", sql: include_str!("../../schemas/sql/0001_init.sql") },
    Migration { number: 2, name: "idempotency", sql: include_str!("../../schemas/sql/0002_idempotency.sql") },
    Migration { number: 3, name: "topics", sql: include_str!("../../schemas/sql/0003_topics.sql") },
    Migration {
        number: 4,
        name: "transactions",
        sql: include_str!("../../schemas/sql/0004_transactions.sql"),
    },
    Migration { number: 5, name: "attach", sql: include_str!("../../schemas/sql/0005_attach.sql") },
    Migration {
        number: 6,
        name: "log_by_statement",
        sql: include_str!("../../schemas/sql/0006_log_by_statement.sql"),
    },
    Migration { number: 7, name: "exec", sql: include_str!("../../schemas/sql/0007_exec.sql") },
    Migration { number: 8, name: "history", sql: include_str!("../../schemas/sql/0008_history.sql") },
    Migration {
        number: 9,
        name: "schema_migrations",
        sql: include_str!("../../schemas/sql/0009_schema_migrations.sql"),
    },
    Migration { number: 10, name: "lifetime", sql: include_str!("../../schemas/sql/0010_lifetime.sql") },
    Migration {
        number: 11,
        name: "exec_attached",
        sql: include_str!("../../schemas/sql/0011_exec_attached.sql"),
    },
    Migration {
        number: 12,
        name: "table_schemas",
        sql: include_str!("../../schemas/sql/0012_table_schemas.sql"),
    },
    Migration { number: 13, name: "search", sql: include_str!("../../schemas/sql/0013_search.sql") },
    Migration { number: 14, name: "webhooks", sql: include_str!("../../schemas/sql/0014_webhooks.sql") },
    Migration {
        number: 15,
        name: "temporary_names_last",
        sql: include_str!("../../schemas/sql/0015_temporary_names_last.sql"),
    },
];

/// Applies what the database lacks.
pub(super) async fn migrate(client: &mut Client) -> Result<(), StartError> {
    apply(client, MIGRATIONS).await
}

/// Applies what the database lacks of these migrations.
async fn apply(client: &mut Client, migrations: &[Migration]) -> Result<(), StartError> {
    // The lock is of the session: it ends with it, however that ends.
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK_KEY]).await.map_err(|error| refused(&error))?;
    let result = apply_locked(client, migrations).await;
    let _ = client.execute("SELECT pg_advisory_unlock($1)", &[&LOCK_KEY]).await;
    result
}

async fn apply_locked(client: &mut Client, migrations: &[Migration]) -> Result<(), StartError> {
    let applied = applied(client).await?;
    let missing = compare(&applied, migrations)?;
    for migration in missing {
        let transaction = client.transaction().await.map_err(|error| refused(&error))?;
        match run(&transaction, migration).await {
            Ok(()) => transaction.commit().await,
            Err(error) => Err(error),
        }
        .map_err(|error| {
            let message = whole_message(&error);
            MigrationError::Failed { number: migration.number, name: migration.name.to_owned(), message }
        })?;
        tracing::info!(number = migration.number, name = migration.name, "applied a migration");
    }
    Ok(())
}

async fn run(transaction: &Transaction<'_>, migration: &Migration) -> Result<(), tokio_postgres::Error> {
    if migration.number == 1 {
        // An operator who gives the daemon no right to make schemas makes this one.
        transaction
            .batch_execute(
                "DO $$ BEGIN IF to_regnamespace('raystream') IS NULL THEN CREATE SCHEMA raystream; END IF; END $$; \
                 CREATE TABLE raystream.migrations (number int PRIMARY KEY, name text NOT NULL, sha256 bytea NOT NULL, \
                 applied_at timestamptz NOT NULL DEFAULT now())",
            )
            .await?;
    }
    transaction.batch_execute(migration.sql).await?;
    transaction
        .execute(
            "INSERT INTO raystream.migrations (number, name, sha256) VALUES ($1, $2, $3)",
            &[&migration.number, &migration.name, &hash(migration)],
        )
        .await?;
    Ok(())
}

/// A migration as the database records it.
#[derive(Debug)]
struct Applied {
    number: i32,
    name: String,
    sha256: Vec<u8>,
}

async fn applied(client: &Client) -> Result<Vec<Applied>, StartError> {
    let exists = client
        .query_one("SELECT to_regclass('raystream.migrations') IS NOT NULL", &[])
        .await
        .map_err(|error| refused(&error))?;
    if !exists.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let rows = client
        .query("SELECT number, name, sha256 FROM raystream.migrations ORDER BY number", &[])
        .await
        .map_err(|error| refused(&error))?;
    Ok(rows.iter().map(|row| Applied { number: row.get(0), name: row.get(1), sha256: row.get(2) }).collect())
}

/// The migrations to apply, or why none may be.
fn compare<'m>(applied: &[Applied], known: &'m [Migration]) -> Result<&'m [Migration], MigrationError> {
    for (place, migration) in known.iter().enumerate() {
        match applied.get(place) {
            None => return Ok(&known[place..]),
            Some(there) if there.number != migration.number => {
                return Err(MigrationError::Missing { number: migration.number });
            }
            Some(there) if there.sha256 != hash(migration) => {
                return Err(MigrationError::Changed { number: there.number, name: there.name.clone() });
            }
            Some(_) => {}
        }
    }
    match applied.get(known.len()) {
        Some(_) => Err(MigrationError::Newer {
            found: applied.last().map_or(0, |last| last.number),
            known: known.last().map_or(0, |last| last.number),
        }),
        None => Ok(&[]),
    }
}

fn hash(migration: &Migration) -> Vec<u8> {
    Sha256::digest(migration.sql.as_bytes()).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Migration = Migration { number: 1, name: "one", sql: "SELECT 1" };
    const TWO: Migration = Migration { number: 2, name: "two", sql: "SELECT 2" };

    fn applied(migrations: &[Migration]) -> Vec<Applied> {
        let record = |m: &Migration| Applied { number: m.number, name: m.name.to_owned(), sha256: hash(m) };
        migrations.iter().map(record).collect()
    }

    #[test]
    fn only_what_is_missing_is_applied() {
        let numbers = |there: &[Migration]| {
            let missing = compare(&applied(there), &[ONE, TWO]).expect("the two fit together");
            missing.iter().map(|migration| migration.number).collect::<Vec<_>>()
        };
        assert_eq!(numbers(&[]), [1, 2]);
        assert_eq!(numbers(&[ONE]), [2]);
        assert_eq!(numbers(&[ONE, TWO]), [0_i32; 0]);
    }

    #[test]
    fn another_newer_or_holed_schema_is_refused() {
        let changed = Migration { sql: "SELECT 3", ..ONE };
        assert!(matches!(
            compare(&applied(&[changed]), &[ONE]),
            Err(MigrationError::Changed { number: 1, .. })
        ));
        let newer = compare(&applied(&[ONE, TWO]), &[ONE]);
        assert!(matches!(newer, Err(MigrationError::Newer { found: 2, known: 1 })));
        assert!(matches!(compare(&applied(&[TWO]), &[ONE, TWO]), Err(MigrationError::Missing { number: 1 })));
    }

    #[test]
    fn the_numbers_of_this_program_have_no_gap() {
        let numbers: Vec<i32> = MIGRATIONS.iter().map(|migration| migration.number).collect();
        assert!(numbers.iter().copied().zip(1..).all(|(number, place)| number == place), "{numbers:?}");
    }
}
