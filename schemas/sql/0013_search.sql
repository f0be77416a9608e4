-- Indexes that an operator asked for, and what full-text search looks at.

-- What an index is for. Whether it is there and good is in Postgres' own catalogue: the row is written before the index is
-- built, so that what a build leaves behind when it is interrupted has a name.
CREATE TABLE raystream.indexes (
    name        text PRIMARY KEY,
    ptr         text NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('filter', 'order', 'text', 'unique', 'search')),
    -- Of an order, a text or a unique value one path; of a search those that are searched, or none for all.
    paths       text[] NOT NULL,
    -- Of a search.
    language    text,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON raystream.indexes (ptr);

-- The texts and numbers of a document, of all of it or at the paths alone. The first 100000 characters: the lexemes of more could
-- be more than a tsvector holds, and no document that can be stored is to be refused by an index. Long values come last, so that
-- what is cut is of the longest one.
--
-- Whoever writes a table runs this with his own search path, so every name in it has its schema.
CREATE FUNCTION raystream.search_text(paths_ text[], document_ jsonb) RETURNS text LANGUAGE plpgsql
    IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    parts_ jsonb := document_;
BEGIN
    IF pg_catalog.cardinality(paths_) OPERATOR(pg_catalog.>) 0 THEN
        parts_ := (SELECT pg_catalog.jsonb_agg(document_ OPERATOR(pg_catalog.#>) pg_catalog.string_to_array(p.path, '.') ORDER BY p.n)
            FROM pg_catalog.unnest(paths_) WITH ORDINALITY AS p (path, n));
    END IF;
    RETURN (SELECT pg_catalog.left(pg_catalog.string_agg(v.text, E'\n' ORDER BY
            CASE WHEN pg_catalog.octet_length(v.text) OPERATOR(pg_catalog.>) 10000 THEN pg_catalog.octet_length(v.text) ELSE 0 END, v.n),
            100000)
        FROM (SELECT q.value OPERATOR(pg_catalog.#>>) '{}' AS text, q.n
            FROM pg_catalog.jsonb_path_query(parts_, 'strict $.** ? (@.type() == "string" || @.type() == "number")')
                WITH ORDINALITY AS q (value, n)) AS v);
END $$;

-- What is indexed of a document, and what a search looks for in it.
CREATE FUNCTION raystream.search_vector(language_ regconfig, paths_ text[], document_ jsonb) RETURNS tsvector
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN pg_catalog.to_tsvector(language_, coalesce(raystream.search_text(paths_, document_), ''));
END $$;
