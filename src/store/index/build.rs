//! Making an index while others write.
//!
//! CREATE INDEX CONCURRENTLY is no transaction: what is interrupted leaves an index that is not used and is kept up by every
//! write. So the name is written down first, what is given up is taken away, and what could not be is found the next time.

use std::pin::{Pin, pin};

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::remove::{give_up, is_valid, lock, remove};
use super::stop::{Progress, stoppable, unless};
use super::{INDEXES_MAX, IndexError, IndexKind, open, open_to_look, physical, refused};
use crate::store::endpoint::Endpoint;
use crate::store::search::{Language, vector};
use crate::store::session::Access;
use crate::store::sqlstate::is_too_long_for_index;
use crate::store::types::TableName;

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
    mut progress: impl FnMut(Progress),
    stop: impl Future<Output = ()>,
) -> Result<Created, IndexError> {
    let mut stop = pin!(stop);
    let look = async {
        let client = open(endpoint).await?;
        let ptr = physical(&client, table).await?;
        let name = kind.index_name(&ptr);
        lock(&client, table.as_str(), &ptr).await?;
        forget_missing(&client, &ptr).await?;
        let there = is_valid(&client, &name).await.map_err(refused)?;
        Ok((client, ptr, name, there))
    };
    let (client, ptr, name, there) = unless(stop.as_mut(), look).await?;
    if there == Some(true) {
        return Ok(Created { name, is_new: false });
    }
    let begin = async {
        if there.is_some() {
            progress(Progress::step("removing what an earlier build left"));
            remove(&client, &name).await.map_err(refused)?;
        }
        note(&client, table, &ptr, &name, kind).await
    };
    let done = match stoppable(endpoint, &client, stop.as_mut(), begin, async || {}).await {
        Ok(()) => build(endpoint, &client, &ptr, &name, kind, progress, stop).await,
        Err(IndexError::Stopped) => Err(IndexError::Stopped),
        Err(error) => return Err(error),
    };
    match done {
        Ok(()) => Ok(Created { name, is_new: true }),
        Err(error) => Err(give_up(&client, name, error).await),
    }
}

/// Writes down which index is to be made, if there may be one more.
async fn note(
    client: &Client,
    table: &TableName,
    ptr: &str,
    name: &str,
    kind: &IndexKind,
) -> Result<(), IndexError> {
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
        .map(|_| ())
        .map_err(refused)
}

/// Forgets indexes that were dropped with SQL, and builds that ended before they began.
async fn forget_missing(client: &Client, ptr: &str) -> Result<(), IndexError> {
    let sql = "DELETE FROM raystream.indexes AS i WHERE i.ptr = $1 AND NOT EXISTS (SELECT FROM pg_class AS c \
               WHERE c.relname = i.name AND c.relnamespace = 'raystream'::regnamespace AND c.relkind = 'i')";
    client.execute(sql, &[&ptr]).await.map(|_| ()).map_err(refused)
}

async fn build(
    endpoint: &Endpoint,
    client: &Client,
    ptr: &str,
    name: &str,
    kind: &IndexKind,
    mut progress: impl FnMut(Progress),
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<(), IndexError> {
    let steps = steps(kind);
    let prepare = async {
        let row = client.query_one(&format_of(kind), &[&name, &ptr, &steps]).await.map_err(refused)?;
        let statement: String = row.try_get(0).map_err(refused)?;
        let row = client.query_one("SELECT pg_backend_pid()", &[]).await.map_err(refused)?;
        let pid: i32 = row.try_get(0).map_err(refused)?;
        Ok((statement, pid, open_to_look(endpoint, Access::Read).await?))
    };
    let (statement, pid, looking) = unless(stop.as_mut(), prepare).await?;
    let work = async { client.batch_execute(&statement).await.map_err(failed) };
    let look = async || {
        if let Some(now) = at(&looking, pid).await {
            progress(now);
        }
    };
    stoppable(endpoint, client, stop.as_mut(), work, look).await?;
    // Postgres guesses what an index on an expression finds until it has looked.
    progress(Progress::step("analyzing"));
    let analyze = async {
        let row = client.query_one("SELECT format('ANALYZE raystream.%I', $1::text)", &[&ptr]).await;
        let analyze: String = row.and_then(|row| row.try_get(0)).map_err(refused)?;
        client.batch_execute(&analyze).await.map_err(refused)
    };
    stoppable(endpoint, client, stop, analyze, async || {}).await
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
