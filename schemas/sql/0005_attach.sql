-- Tables that somebody else made and writes: read and watched under a name of raystream's.
--
-- A view gives such a table the columns of a table of documents, so that everything that reads finds what it knows: the id is
-- made of the primary key, the document is the row. Triggers put each change into the log, in the transaction of the write.

-- The table behind the view that `ptr` names; absent for tables of documents.
ALTER TABLE raystream.storage ADD COLUMN attached oid UNIQUE;

-- The id of a row: its key as text, or a JSON array when it has several columns.
CREATE FUNCTION raystream.row_id(image jsonb, keys text[]) RETURNS text LANGUAGE sql IMMUTABLE
    RETURN CASE WHEN cardinality(keys) = 1 THEN image ->> keys[1]
        ELSE (SELECT jsonb_agg(image -> k.name ORDER BY k.n)::text FROM unnest(keys) WITH ORDINALITY AS k (name, n)) END;

-- A row as a document. What no message could carry says how long it is instead. JSON text is at most six times as long as
-- its stored form, so that only rows that may be too long are written out to know it.
CREATE FUNCTION raystream.row_image(image jsonb) RETURNS jsonb LANGUAGE sql STABLE
    RETURN CASE WHEN pg_column_size(image) > 160000 AND octet_length(image::text) > 983040
        THEN jsonb_build_object('_too_large', octet_length(image::text)) ELSE image END;

-- Arguments: the view, then the columns of the key. The settings are those of the daemon's sessions: a row has the same
-- text whoever writes it.
CREATE FUNCTION raystream.log_row() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog SET timezone = 'UTC' SET datestyle = 'ISO' SET intervalstyle = 'postgres'
    SET bytea_output = 'hex' SET extra_float_digits = 1 AS $$
DECLARE
    keys text[] := TG_ARGV[1:];
    was jsonb;
    is_ jsonb;
    old_id text;
    new_id text;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        was := to_jsonb(OLD);
        old_id := raystream.row_id(was, keys);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        is_ := to_jsonb(NEW);
        new_id := raystream.row_id(is_, keys);
    END IF;
    -- A row whose key changes is another document.
    INSERT INTO raystream.changes (xid, seq, ptr, id, op, version, before, after, principal, at)
    SELECT pg_current_xact_id(), nextval('raystream.change_seq'), TG_ARGV[0], c.id, c.op, 0,
        raystream.row_image(c.before), raystream.row_image(c.after), raystream.principal(), clock_timestamp()
    FROM (VALUES
        (old_id, 'd'::"char", was, NULL::jsonb, old_id IS NOT NULL AND new_id IS DISTINCT FROM old_id),
        (new_id, 'i', NULL, is_, new_id IS NOT NULL AND new_id IS DISTINCT FROM old_id),
        (new_id, 'u', was, is_, new_id = old_id)
    ) AS c (id, op, before, after, is_so) WHERE c.is_so;
    RETURN NULL;
END $$;

-- TRUNCATE fires no row triggers: each row that goes is logged before it does. Argument: the view.
CREATE FUNCTION raystream.log_truncate() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog SET timezone = 'UTC' SET datestyle = 'ISO' SET intervalstyle = 'postgres'
    SET bytea_output = 'hex' SET extra_float_digits = 1 AS $$
BEGIN
    EXECUTE format('INSERT INTO raystream.changes (xid, seq, ptr, id, op, version, before, principal, at)
        SELECT pg_current_xact_id(), nextval(''raystream.change_seq''), %L, v.id, ''d'', 0, v.data,
            raystream.principal(), clock_timestamp() FROM raystream.%I AS v', TG_ARGV[0], TG_ARGV[0]);
    RETURN NULL;
END $$;

-- Attaches a table under a name, as whoever calls: he needs the right to make triggers on it, and to read it. The lock that
-- CREATE TRIGGER takes waits for the writes under way, so that none is missed.
CREATE FUNCTION raystream.attach(owner_ text, name_ text, table_ regclass) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$
DECLARE
    ptr_ text := 'att_' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 16);
    class_ record;
    keys text[];
    types text[];
    id_ text;
    order_ text := '0';
    arguments text;
BEGIN
    SELECT c.relkind, c.relispartition, c.relpersistence, c.relname, n.nspname INTO class_
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = table_;
    IF class_.relkind <> 'r' OR class_.relispartition OR class_.relpersistence = 't'
        OR EXISTS (SELECT FROM pg_inherits WHERE inhparent = table_) THEN
        RAISE EXCEPTION '% is no plain table: views, partitions and temporary tables cannot be attached', table_
            USING ERRCODE = '42809';
    END IF;
    IF class_.nspname IN ('raystream', 'pg_catalog', 'information_schema') THEN
        RAISE EXCEPTION '% is in a schema that is not for tables of yours', table_
            USING ERRCODE = '42809', HINT = 'ALTER TABLE .. SET SCHEMA ..';
    END IF;
    SELECT array_agg(a.attname::text ORDER BY k.n), array_agg(t.typname::text ORDER BY k.n) INTO keys, types
        FROM pg_index AS i CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k (attnum, n)
        JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
        JOIN pg_type AS t ON t.oid = a.atttypid
        WHERE i.indrelid = table_ AND i.indisprimary AND k.n <= i.indnkeyatts;
    IF keys IS NULL THEN
        RAISE EXCEPTION '% has no primary key: its rows have no names', table_
            USING ERRCODE = '42809', HINT = 'ALTER TABLE .. ADD PRIMARY KEY (..)';
    END IF;
    INSERT INTO raystream.storage (owner, name, ptr_schema, ptr, attached)
        VALUES (owner_, name_, 'raystream', ptr_, table_) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION '% is attached already, or there is another table named %', table_, name_
            USING ERRCODE = '42710', HINT = 'Choose another name with --name.';
    END IF;

    -- As `row_id` makes it, and where that is possible so that the index of the key serves.
    IF cardinality(keys) > 1 THEN
        SELECT 'jsonb_build_array(' || string_agg(format('row_.%I', k.name), ', ' ORDER BY k.n) || ')::text' INTO id_
            FROM unnest(keys) WITH ORDINALITY AS k (name, n);
    ELSIF types[1] IN ('text', 'varchar') THEN
        id_ := format('row_.%I::text', keys[1]);
    ELSE
        id_ := format('(to_jsonb(row_.%I) #>> ''{}'')', keys[1]);
        IF types[1] IN ('int2', 'int4', 'int8') THEN order_ := format('row_.%I', keys[1]); END IF;
    END IF;
    EXECUTE format('CREATE VIEW raystream.%I AS SELECT row_.id_ AS id, raystream.row_image(row_.image_) AS data,
        0::bigint AS _version, NULL::xid8 AS _deleted_txid, row_.order_ AS _order
        FROM (SELECT %s AS id_, %s::bigint AS order_, to_jsonb(row_.*) AS image_ FROM %I.%I AS row_) AS row_',
        ptr_, id_, order_, class_.nspname, class_.relname);
    SELECT string_agg(quote_literal(k), ', ' ORDER BY n) INTO arguments
        FROM unnest(ARRAY[ptr_] || keys) WITH ORDINALITY AS a (k, n);
    EXECUTE format('CREATE TRIGGER raystream_log AFTER INSERT OR UPDATE OR DELETE ON %I.%I
        FOR EACH ROW EXECUTE FUNCTION raystream.log_row(%s)', class_.nspname, class_.relname, arguments);
    EXECUTE format('CREATE TRIGGER raystream_truncate BEFORE TRUNCATE ON %I.%I
        FOR EACH STATEMENT EXECUTE FUNCTION raystream.log_truncate(%L)', class_.nspname, class_.relname, ptr_);
END $$;

-- Takes a table off again, by its name here or by itself. Answers the name; null when there is none.
CREATE FUNCTION raystream.detach(owner_ text, name_ text, table_ regclass) RETURNS text LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$
DECLARE
    found_ record;
BEGIN
    DELETE FROM raystream.storage AS s WHERE s.owner = owner_ AND s.attached IS NOT NULL
        AND (s.attached = table_ OR table_ IS NULL AND s.name = name_) RETURNING s.name, s.ptr, s.attached INTO found_;
    IF found_ IS NULL THEN
        DELETE FROM raystream.storage AS s WHERE s.owner = owner_ AND s.attached IS NOT NULL AND s.name = name_
            RETURNING s.name, s.ptr, s.attached INTO found_;
    END IF;
    IF found_ IS NULL THEN RETURN NULL; END IF;
    -- It may have been dropped meanwhile, with the view and the triggers.
    IF EXISTS (SELECT FROM pg_class WHERE oid = found_.attached) THEN
        EXECUTE format('DROP TRIGGER IF EXISTS raystream_log ON %s', found_.attached::regclass);
        EXECUTE format('DROP TRIGGER IF EXISTS raystream_truncate ON %s', found_.attached::regclass);
    END IF;
    EXECUTE format('DROP VIEW IF EXISTS raystream.%I', found_.ptr);
    RETURN found_.name;
END $$;
