//! Making and dropping an index while others write.
//!
//! CREATE INDEX CONCURRENTLY is no transaction: what is interrupted leaves an index that is not used and is kept up by every
//! write. So the name is written down first, what is given up is taken away, and what could not be is found the next time.

use std::pin::pin;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::{INDEXES_MAX, IndexError, IndexKind, LOCK_CLASS, open, open_to_look, physical, refused};
use crate::store::endpoint::{self, Endpoint};
use crate::store::search::{Language, vector};
use crate::store::session::{Access, whole_message};
use crate::store::sqlstate::is_too_long_for_index;
use crate::store::tables::NAMESPACE;
use crate::store::types::TableName;

/// How often the progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long a request to stop may take to reach Postgres.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long somebody else may be at it: a client that is gone is noticed in that time.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// The pause between two looks whether he still is.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// How often a request to stop may hit what comes behind that which it was meant for: Postgres sends two signals for one request,
/// and each may be late.
const STRAY_CANCELS_MAX: usize = 2;

/// How long taking away what was begun waits for each transaction of others: whoever stopped wants to be gone.
const CLEAN_UP_LOCK_TIMEOUT: &str = "5s";

/// What the work is at, in Postgres' own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The step.
    pub phase: String,
    /// How much of the step is done, in a unit of its own.
    pub done: u64,
    /// How much the step has; 0 when that is not known.
    pub total: u64,
}

/// An index that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its name.
    pub name: String,
    /// Whether this call made it.
    pub is_new: bool,
}

/// Makes an index, unless it is there. Writes go on meanwhile. `progress` is told what the work is at; when `stop` is ready, it is
/// given up.
///
/// # Errors
/// [`IndexError`]. Nothing is left of the index unless it is [`IndexError::Left`].
pub async fn create(
    endpoint: &Endpoint,
    table: &TableName,
    kind: &IndexKind,
    progress: impl FnMut(Progress),
    stop: impl Future<Output = ()>,
) -> Result<Created, IndexError> {
    let client = open(endpoint).await?;
    let ptr = physical(&client, table).await?;
    let name = kind.index_name(&ptr);
    lock(&client, table.as_str(), &ptr).await?;
    forget_missing(&client, &ptr).await?;
    match is_valid(&client, &name).await? {
        Some(true) => return Ok(Created { name, is_new: false }),
        Some(false) => remove(&client, &name).await.map_err(refused)?,
        None => {}
    }
    let count = "SELECT count(*) FROM raystream.indexes WHERE ptr = $1 AND name <> $2";
    let count = client.query_one(count, &[&ptr, &name]).await.map_err(refused)?;
    if count.try_get::<_, i64>(0).map_err(refused)? >= INDEXES_MAX {
        return Err(IndexError::TooMany(table.to_string()));
    }
    client
        .execute(
            "INSERT INTO raystream.indexes (name, ptr, kind, paths, language) VALUES ($1, $2, $3, $4, $5)",
            &[&name, &ptr, &kind.name(), &kind.paths(), &kind.language().map(Language::as_str)],
        )
        .await
        .map_err(refused)?;
    match build(endpoint, &client, &ptr, &name, kind, progress, stop).await {
        Ok(()) => Ok(Created { name, is_new: true }),
        Err(error) => Err(give_up(&client, name, error).await),
    }
}

/// Drops an index by its name, or what is left of one.
///
/// # Errors
/// [`IndexError`].
pub async fn drop(endpoint: &Endpoint, name: &str) -> Result<(), IndexError> {
    let client = open(endpoint).await?;
    let sql = "SELECT i.ptr, coalesce(s.name, i.ptr) FROM raystream.indexes AS i \
               LEFT JOIN raystream.storage AS s ON s.ptr = i.ptr AND s.owner = $2 WHERE i.name = $1";
    let row = client.query_opt(sql, &[&name, &NAMESPACE]).await.map_err(refused)?;
    let row = row.ok_or_else(|| IndexError::NoIndex(name.to_owned()))?;
    let (ptr, table): (String, String) = (row.try_get(0).map_err(refused)?, row.try_get(1).map_err(refused)?);
    lock(&client, &table, &ptr).await?;
    remove(&client, name).await.map_err(refused)
}

/// Keeps others from working on the indexes of the table, until the session ends. No statement waits for this lock, since it would be
/// one that the build of an index waits for: it is tried again.
async fn lock(client: &Client, table: &str, ptr: &str) -> Result<(), IndexError> {
    let sql = "SELECT pg_try_advisory_lock($1, hashtext($2))";
    let until = Instant::now() + LOCK_WAIT;
    loop {
        let row = client.query_one(sql, &[&LOCK_CLASS, &ptr]).await.map_err(refused)?;
        if row.try_get(0).map_err(refused)? {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(IndexError::Busy(table.to_owned()));
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

/// Forgets indexes that were dropped with SQL, and builds that ended before they began.
async fn forget_missing(client: &Client, ptr: &str) -> Result<(), IndexError> {
    let sql = "DELETE FROM raystream.indexes AS i WHERE i.ptr = $1 AND NOT EXISTS (SELECT FROM pg_class AS c \
               WHERE c.relname = i.name AND c.relnamespace = 'raystream'::regnamespace AND c.relkind = 'i')";
    client.execute(sql, &[&ptr]).await.map(|_| ()).map_err(refused)
}

/// Whether an index of the name is good; `None` when there is none.
async fn is_valid(client: &Client, name: &str) -> Result<Option<bool>, IndexError> {
    let sql = "SELECT x.indisvalid FROM pg_class AS c JOIN pg_index AS x ON x.indexrelid = c.oid \
               WHERE c.relname = $1 AND c.relnamespace = 'raystream'::regnamespace";
    let row = client.query_opt(sql, &[&name]).await.map_err(refused)?;
    row.map(|row| row.try_get(0).map_err(refused)).transpose()
}

/// Drops an index and forgets it.
async fn remove(client: &Client, name: &str) -> Result<(), tokio_postgres::Error> {
    let sql = "SELECT format('DROP INDEX CONCURRENTLY IF EXISTS raystream.%I', $1::text)";
    let statement: String = client.query_one(sql, &[&name]).await?.try_get(0)?;
    client.batch_execute(&statement).await?;
    client.execute("DELETE FROM raystream.indexes WHERE name = $1", &[&name]).await.map(|_| ())
}

/// Takes away what was begun.
async fn give_up(client: &Client, name: String, error: IndexError) -> IndexError {
    let clean_up = async || {
        client.batch_execute(&format!("SET lock_timeout = '{CLEAN_UP_LOCK_TIMEOUT}'")).await?;
        remove(client, &name).await
    };
    let mut cleaned = clean_up().await;
    for _ in 0..STRAY_CANCELS_MAX {
        match &cleaned {
            Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => cleaned = clean_up().await,
            _ => break,
        }
    }
    match cleaned {
        Ok(()) => error,
        Err(left) => {
            let left = whole_message(&left);
            let reason = match error {
                IndexError::Stopped => "stopped".to_owned(),
                other => other.to_string(),
            };
            IndexError::Left { name, reason, left }
        }
    }
}

async fn build(
    endpoint: &Endpoint,
    client: &Client,
    ptr: &str,
    name: &str,
    kind: &IndexKind,
    mut progress: impl FnMut(Progress),
    stop: impl Future<Output = ()>,
) -> Result<(), IndexError> {
    let steps = steps(kind);
    let row = client.query_one(&format_of(kind), &[&name, &ptr, &steps]).await.map_err(refused)?;
    let statement: String = row.try_get(0).map_err(refused)?;
    let row = client.query_one("SELECT pg_backend_pid()", &[]).await.map_err(refused)?;
    let pid: i32 = row.try_get(0).map_err(refused)?;
    let looking = open_to_look(endpoint, Access::Read).await?;
    {
        let mut work = pin!(client.batch_execute(&statement));
        let mut stop = pin!(stop);
        let mut is_stopped = false;
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                biased;
                ended = &mut work => {
                    match ended {
                        _ if is_stopped => return Err(IndexError::Stopped),
                        Ok(()) => break,
                        Err(error) => return Err(failed(error)),
                    }
                }
                () = &mut stop, if !is_stopped => {
                    is_stopped = true;
                    let token = client.cancel_token();
                    if let Err(error) = endpoint::cancel(&token, &endpoint.tls, CANCEL_TIMEOUT).await {
                        return Err(IndexError::Refused(format!("it was not told to stop: {error}")));
                    }
                }
                _ = look.tick() => {
                    if let Some(now) = at(&looking, pid).await {
                        progress(now);
                    }
                }
            }
        }
    }
    // Postgres guesses what an index on an expression finds until it has looked.
    progress(Progress { phase: "analyzing".to_owned(), done: 0, total: 0 });
    let row = client.query_one("SELECT format('ANALYZE raystream.%I', $1::text)", &[&ptr]).await;
    let analyze: String = row.and_then(|row| row.try_get(0)).map_err(refused)?;
    client.batch_execute(&analyze).await.map_err(refused)
}

/// What the expression of an index is made of: the steps of a path, or whole paths.
fn steps(kind: &IndexKind) -> Vec<String> {
    match kind {
        IndexKind::Order(path) | IndexKind::Text(path) | IndexKind::Unique(path) => {
            path.split('.').map(str::to_owned).collect()
        }
        IndexKind::Filter | IndexKind::Search(..) => kind.paths(),
    }
}

/// The statement, as what Postgres makes it of: names are $1 and $2, the steps or the paths $3.
///
/// The expressions are those of the statements that it is to serve, and so is the condition: tombstones are in none.
fn format_of(kind: &IndexKind) -> String {
    let (unique, on, and) = match kind {
        IndexKind::Filter => ("", "USING gin (data jsonb_path_ops)".to_owned(), ""),
        IndexKind::Order(_) => ("", "((coalesce(data #> %3$L::text[], 'null')), id)".to_owned(), ""),
        IndexKind::Text(_) => {
            let steps = steps(kind);
            // Each step is an argument of its own, behind the two names.
            let keys: String = (3..)
                .zip(&steps)
                .map(|(n, _)| format!("{}%{n}$L", if n < steps.len() + 2 { " -> " } else { " ->> " }))
                .collect();
            let text = format!(
                "CREATE INDEX CONCURRENTLY %1$I ON raystream.%2$I ((data{keys}), id) WHERE _deleted_txid IS NULL"
            );
            return format!("SELECT format('{text}', VARIADIC ARRAY[$1::text, $2::text] || $3::text[])");
        }
        IndexKind::Unique(_) => {
            ("UNIQUE ", "((data #> %3$L::text[]))".to_owned(), " AND data #> %3$L::text[] <> 'null'")
        }
        IndexKind::Search(_, language) => ("", format!("USING gin ({})", vector(*language, "%3$L")), ""),
    };
    let text = format!(
        "CREATE {unique}INDEX CONCURRENTLY %1$I ON raystream.%2$I {on} WHERE _deleted_txid IS NULL{and}"
    );
    format!("SELECT format('{}', $1::text, $2::text, $3::text[])", text.replace('\'', "''"))
}

/// What a session that builds an index is at.
async fn at(looking: &Client, pid: i32) -> Option<Progress> {
    let sql = "SELECT phase, \
               CASE WHEN blocks_total > 0 THEN blocks_done WHEN tuples_total > 0 THEN tuples_done ELSE lockers_done END, \
               CASE WHEN blocks_total > 0 THEN blocks_total WHEN tuples_total > 0 THEN tuples_total ELSE lockers_total END \
               FROM pg_stat_progress_create_index WHERE pid = $1";
    // What cannot be looked at is built all the same.
    let row = looking.query_opt(sql, &[&pid]).await.ok()??;
    let number = |column| row.try_get::<_, i64>(column).ok().and_then(|number| u64::try_from(number).ok());
    Some(Progress { phase: row.try_get(0).ok()?, done: number(1)?, total: number(2)? })
}

/// What a build that failed means to an operator.
fn failed(error: tokio_postgres::Error) -> IndexError {
    let Some(database) = error.as_db_error() else { return refused(error) };
    if *database.code() == SqlState::UNIQUE_VIOLATION {
        return IndexError::Duplicates(database.detail().unwrap_or_default().to_owned());
    }
    if is_too_long_for_index(database) {
        return IndexError::TooLong;
    }
    refused(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_on_what_the_statements_ask_for() {
        let text = |kind: &IndexKind| format_of(kind);
        let order = IndexKind::order("a").expect("valid");
        assert_eq!(
            text(&order),
            "SELECT format('CREATE INDEX CONCURRENTLY %1$I ON raystream.%2$I ((coalesce(data #> %3$L::text[], ''null'')), id) \
             WHERE _deleted_txid IS NULL', $1::text, $2::text, $3::text[])"
        );
        let text_at = IndexKind::text("a.b").expect("valid");
        assert_eq!(
            text(&text_at),
            "SELECT format('CREATE INDEX CONCURRENTLY %1$I ON raystream.%2$I ((data -> %3$L ->> %4$L), id) \
             WHERE _deleted_txid IS NULL', VARIADIC ARRAY[$1::text, $2::text] || $3::text[])"
        );
        let search = IndexKind::search(&["a"], Language::default()).expect("valid");
        assert!(
            text(&search)
                .contains("raystream.search_vector(''pg_catalog.english''::regconfig, %3$L::text[], data)")
        );
    }
}
