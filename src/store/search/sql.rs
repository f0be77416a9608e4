//! The statement of a search.

use super::SEARCH_PAGE_LEN_MAX;
use super::{
    FACET_ELEMENTS_MAX, FACET_VALUE_LEN_MAX, FACET_VALUES_MAX, HIGHLIGHT_LEN_MAX, Language, SEARCH_FOUND_MAX,
};
use crate::store::feed::Past;
use crate::store::statements::{ITEM_OVERHEAD, placeholders, rows};
use crate::store::types::TablePtr;

/// What stands before and behind a word that was found: no text of a document has these, since they are taken out of it.
pub(super) const MARKS: [char; 2] = ['\u{2}', '\u{3}'];

/// The form of a search: what decides its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::store) struct SearchShape {
    pub(in crate::store) past: Option<Past>,
    pub(in crate::store) language: Language,
    pub(in crate::store) filter: bool,
    pub(in crate::store) after: bool,
    pub(in crate::store) facets: bool,
    pub(in crate::store) highlight: bool,
}

/// What an index of a search has of a document, for SQL. An index serves a search when both have the same text here.
pub(in crate::store) fn vector(language: Language, fields: &str) -> String {
    format!("raystream.search_vector({}, {fields}::text[], data)", language.sql())
}

/// Parameters, in this order, as the shape has them: the moment, fields, text, filter, rank and id of the place behind which the page
/// starts, the most rows, facets. Columns: documents found, facets, id, text, version, rank, rows behind the place, excerpt. There is
/// one row without a document when the page is empty.
///
/// Ranking opens every document that was found, so only so many are. What is counted are those, not the page.
pub(in crate::store) fn search_sql(table: &TablePtr, shape: SearchShape) -> String {
    let mut next = placeholders();
    let rows = rows(table, shape.past, &mut next);
    let language = shape.language.sql();
    let fields = next();
    let vector = vector(shape.language, &fields);
    let query = format!("websearch_to_tsquery({language}, {}::text)", next());
    let filter = if shape.filter { format!(" AND data @> {}", next()) } else { String::new() };
    let after = if shape.after {
        let (rank, id) = (next(), next());
        format!(" WHERE rank < {rank}::float4 OR rank = {rank}::float4 AND id > {id}::text")
    } else {
        String::new()
    };
    let limit = next();
    let facets = if shape.facets { facets(&next()) } else { "NULL::text".to_owned() };
    let excerpt = if shape.highlight { excerpt(&language, &fields, &query) } else { "NULL::text".to_owned() };
    // The page is cut where it gets too long, as that of a query: by the stored size, then by the length of the text.
    format!(
        "WITH found AS MATERIALIZED (\
           SELECT id, data, _version, ts_rank_cd({vector}, {query}, 1) AS rank FROM {rows} \
           WHERE _deleted_txid IS NULL AND {vector} @@ {query}{filter} LIMIT {SEARCH_FOUND_MAX} + 1), \
         ranked AS (SELECT * FROM found LIMIT {SEARCH_FOUND_MAX}), \
         page AS (SELECT id, data, text, _version, rank, n, matches FROM (\
           SELECT *, sum(octet_length(text) + octet_length(id) + {ITEM_OVERHEAD}) OVER (ORDER BY n) AS text_len FROM (\
             SELECT id, data, data::text AS text, _version, rank, n, matches FROM (\
               SELECT *, row_number() OVER page AS n, count(*) OVER () AS matches, \
                 sum(pg_column_size(data)) OVER page AS stored_len \
               FROM (SELECT * FROM ranked{after} ORDER BY rank DESC, id LIMIT {limit}) AS rows \
               WINDOW page AS (ORDER BY rank DESC, id ROWS UNBOUNDED PRECEDING)\
             ) AS sized WHERE stored_len <= {SEARCH_PAGE_LEN_MAX} OR n = 1 OFFSET 0\
           ) AS texts\
         ) AS measured WHERE text_len <= {SEARCH_PAGE_LEN_MAX} OR n = 1), \
         summary AS MATERIALIZED (SELECT (SELECT count(*) FROM found) AS total, {facets} AS facets) \
         SELECT s.total, CASE WHEN p.n > 1 THEN NULL ELSE s.facets END, p.id, p.text, p._version, p.rank, p.matches, {excerpt} \
         FROM summary AS s LEFT JOIN page AS p ON true ORDER BY p.n"
    )
}

/// How often each value stands at the paths: one object, of lists by path. An element of an array counts as a value, once for its
/// document.
fn facets(paths: &str) -> String {
    format!(
        "(SELECT jsonb_object_agg(f.path, (\
           SELECT coalesce(jsonb_agg(jsonb_build_object('value', c.value, 'count', c.count) ORDER BY c.count DESC, c.value), '[]') \
           FROM (SELECT v.value, count(*) AS count FROM ranked AS r, \
             LATERAL (SELECT r.data #> string_to_array(f.path, '.') AS value OFFSET 0) AS node, \
             LATERAL (SELECT DISTINCT e.value FROM (SELECT e.value FROM jsonb_array_elements(\
               CASE jsonb_typeof(node.value) WHEN 'array' THEN node.value ELSE jsonb_build_array(node.value) END) AS e (value) \
               LIMIT {FACET_ELEMENTS_MAX}) AS e) AS v \
             WHERE jsonb_typeof(v.value) IN ('string', 'number', 'boolean') \
             AND octet_length(v.value::text) <= {FACET_VALUE_LEN_MAX} \
             GROUP BY v.value ORDER BY count(*) DESC, v.value LIMIT {FACET_VALUES_MAX}) AS c))::text \
         FROM unnest({paths}::text[]) AS f (path))"
    )
}

/// Parts of the text of a document around what was found.
fn excerpt(language: &str, fields: &str, query: &str) -> String {
    let [start, stop] = MARKS;
    format!(
        "CASE WHEN p.id IS NOT NULL THEN left(ts_headline({language}, \
           translate(coalesce(raystream.search_text({fields}::text[], p.data), ''), '{start}{stop}', ''), {query}, \
           'StartSel=\"{start}\", StopSel=\"{stop}\", MaxWords=30, MinWords=10, MaxFragments=2, \
           FragmentDelimiter=\" … \"'), {HIGHLIGHT_LEN_MAX}) END"
    )
}
