//! The documents of a table as of a moment, as something that a statement reads from.

use crate::store::TablePtr;

/// The form of a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::store) enum Past {
    /// Between two batches of the log.
    Frontier,
    /// Inside of one.
    Inside,
}

impl Past {
    /// The parameters of a moment: of its base the end and the exceptions; inside of a batch those of the batch too, and the
    /// place in it.
    pub(in crate::store) fn placeholders(self, next: &mut impl FnMut() -> String) -> Vec<String> {
        let count = match self {
            Self::Frontier => 2,
            Self::Inside => 6,
        };
        (0..count).map(|_| next()).collect()
    }

    /// In place of the table: its columns, with every change undone that the moment does not have. With `id` only of that
    /// document.
    ///
    /// Ids compare byte by byte, as those of the table do.
    pub(in crate::store) fn rows(self, table: &TablePtr, moment: &[String], id: Option<&str>) -> String {
        let (xmax, xip) = (&moment[0], &moment[1]);
        let (join, behind) = match self {
            Self::Frontier => (String::new(), String::new()),
            Self::Inside => {
                let (next, next_xip, last, seq) = (&moment[2], &moment[3], &moment[4], &moment[5]);
                let join = format!(
                    " LEFT JOIN (SELECT t.xid, max(t.seq) AS last FROM raystream.changes AS t \
                     WHERE (t.xid >= {xmax}::xid8 OR t.xid = ANY ({xip}::xid8[])) \
                     AND t.xid < {next}::xid8 AND t.xid <> ALL ({next_xip}::xid8[]) GROUP BY t.xid) AS e ON e.xid = c.xid"
                );
                let behind =
                    format!(" AND (e.xid IS NULL OR (e.last, c.seq) > ({last}::bigint, {seq}::bigint))");
                (join, behind)
            }
        };
        let only = |column: &str| match id {
            Some(id) => format!(" AND {column} = {id}::text"),
            None => String::new(),
        };
        format!(
            "(WITH undone AS MATERIALIZED (\
               SELECT DISTINCT ON (c.id COLLATE \"C\") \
                 c.id COLLATE \"C\" AS id, c.op, c.before, c.was_version, c.was_order \
               FROM raystream.changes AS c{join} WHERE c.ptr = {ptr} \
               AND (c.xid >= {xmax}::xid8 OR c.xid = ANY ({xip}::xid8[])){behind}{of_log} \
               ORDER BY c.id COLLATE \"C\", c.seq) \
             SELECT d.id, d.data, d._version, d._order, NULL::xid8 AS _deleted_txid FROM {table} AS d \
             WHERE d._deleted_txid IS NULL{of_table} AND NOT EXISTS (SELECT FROM undone AS u WHERE u.id = d.id) \
             UNION ALL SELECT u.id, u.before, u.was_version, u.was_order, NULL::xid8 FROM undone AS u \
             WHERE u.op <> 'i') AS past",
            ptr = table.in_log(),
            table = table.quoted(),
            of_log = only("c.id"),
            of_table = only("d.id"),
        )
    }
}
