//! What indexes there are.

use super::{IndexError, LOCK_CLASS, open_to_look, refused};
use crate::store::endpoint::Endpoint;
use crate::store::migrate::migrate;
use crate::store::session::Access;
use crate::store::tables::NAMESPACE;
use crate::store::types::TableName;

/// Parameters: owner, name of a table or null, class of the lock. What somebody works on has the lock of its table.
const LIST: &str = "SELECT s.name, i.name, i.kind, i.paths, i.language, coalesce(x.indisvalid, false), \
    EXISTS (SELECT FROM pg_locks AS l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 \
        AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()) \
        AND l.classid::bigint = $3::int4::bigint AND l.objid::bigint = hashtext(i.ptr)::bigint & 4294967295), \
    coalesce(pg_relation_size(c.oid), 0), coalesce(pg_stat_get_numscans(c.oid), 0) \
    FROM raystream.indexes AS i JOIN raystream.storage AS s ON s.ptr = i.ptr AND s.owner = $1 \
    LEFT JOIN pg_class AS c ON c.relname = i.name AND c.relnamespace = 'raystream'::regnamespace AND c.relkind = 'i' \
    LEFT JOIN pg_index AS x ON x.indexrelid = c.oid \
    WHERE $2::text IS NULL OR s.name = $2 ORDER BY s.name COLLATE \"C\", i.kind COLLATE \"C\", i.paths, i.name";

/// Whether an index can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexState {
    /// It is used.
    Ready,
    /// Somebody builds or drops it.
    Building,
    /// What is left of a build that was interrupted. It is not used: drop it, or make it again.
    Invalid,
}

impl IndexState {
    /// Its name: `ready`, `building` or `invalid`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Building => "building",
            Self::Invalid => "invalid",
        }
    }
}

/// An index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexInfo {
    /// The table, by its logical name.
    pub table: String,
    /// Its name, which `drop` takes.
    pub name: String,
    /// `filter`, `order`, `text`, `unique` or `search`.
    pub kind: String,
    /// The paths that it is on.
    pub paths: Vec<String>,
    /// The language of a search.
    pub language: Option<String>,
    /// Whether it can be used.
    pub state: IndexState,
    /// Its length on the disk, in bytes.
    pub bytes: u64,
    /// How often it was used since Postgres began to count.
    pub scans: u64,
}

/// The indexes that were asked for, of a table or of all.
///
/// # Errors
/// [`IndexError`].
pub async fn list(endpoint: &Endpoint, table: Option<&TableName>) -> Result<Vec<IndexInfo>, IndexError> {
    let mut client = open_to_look(endpoint, Access::Setup).await?;
    migrate(&mut client).await?;
    let table = table.map(TableName::as_str);
    let rows = client.query(LIST, &[&NAMESPACE, &table, &LOCK_CLASS]).await.map_err(refused)?;
    let info = |row: &tokio_postgres::Row| {
        let state = match (row.try_get(5)?, row.try_get(6)?) {
            (true, _) => IndexState::Ready,
            (false, true) => IndexState::Building,
            (false, false) => IndexState::Invalid,
        };
        let number = |column| row.try_get::<_, i64>(column).map(|number| u64::try_from(number).unwrap_or(0));
        Ok(IndexInfo {
            table: row.try_get(0)?,
            name: row.try_get(1)?,
            kind: row.try_get(2)?,
            paths: row.try_get(3)?,
            language: row.try_get(4)?,
            state,
            bytes: number(7)?,
            scans: number(8)?,
        })
    };
    rows.iter().map(info).collect::<Result<_, _>>().map_err(refused)
}
