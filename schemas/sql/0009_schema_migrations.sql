-- Migrations of the user's own schema: what `raystream migrate` has applied, and the functions that migrations are made of.
-- docs/migrations.md says what each of them means for a document.

-- The history, without a gap. What was applied is here as it was, so that it can be compared, reverted and read again.
CREATE TABLE raystream.schema_migrations (
    version     int PRIMARY KEY CHECK (version > 0),
    name        text NOT NULL,
    -- From a file that somebody reviewed; otherwise made by the program of safe changes.
    reviewed    boolean NOT NULL,
    -- Of `source`.
    sha256      bytea NOT NULL CHECK (octet_length(sha256) = 32),
    source      text NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    applied_by  text NOT NULL DEFAULT session_user
);

-- The declared fields of tables of documents. Each has a constraint that holds its type, except those of type json.
CREATE TABLE raystream.fields (
    owner       text NOT NULL,
    table_name  text NOT NULL,
    name        text NOT NULL,
    type        text NOT NULL,
    -- 4 read, 2 write, 1 delete: a field without 2 keeps the value that the document was made with.
    perm        int NOT NULL DEFAULT 7,
    PRIMARY KEY (owner, table_name, name),
    FOREIGN KEY (owner, table_name) REFERENCES raystream.storage (owner, name) ON DELETE CASCADE
);

ALTER TABLE raystream.storage
    -- 4 read, 2 write, 1 delete.
    ADD COLUMN permissions int NOT NULL DEFAULT 7,
    -- A migration made or attached it, so that taking the migration back may take it away.
    ADD COLUMN by_migration boolean NOT NULL DEFAULT false;

-- Whether a value is of a type of the schema. What is not there, and null, is of each. Numbers are compared with the ends of
-- their range first: a number of a hundred thousand digits is cheap to compare and not to round.
CREATE FUNCTION raystream.is_type(value jsonb, type_ text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog AS $$
DECLARE
    number_ numeric;
BEGIN
    IF value IS NULL OR type_ = 'json' THEN RETURN true; END IF;
    CASE jsonb_typeof(value)
        WHEN 'null' THEN RETURN true;
        WHEN 'boolean' THEN RETURN type_ = 'boolean';
        WHEN 'string' THEN
            IF type_ <> 'Uint8Array' THEN RETURN type_ = 'string'; END IF;
            RETURN value #>> '{}' ~ '^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$';
        WHEN 'number' THEN
            IF type_ NOT IN ('bigint', 'Date') THEN RETURN type_ = 'number'; END IF;
            number_ := value::numeric;
            IF number_ < -9223372036854775808 OR number_ > 9223372036854775807 THEN RETURN false; END IF;
            RETURN number_ = trunc(number_);
        WHEN 'array' THEN
            IF right(type_, 2) <> '[]' THEN RETURN false; END IF;
            RETURN NOT EXISTS (SELECT FROM jsonb_array_elements(value) AS e
                WHERE NOT raystream.is_type(e, left(type_, -2)));
        ELSE RETURN false;
    END CASE;
END $$;

-- A value as another type, where there is one way to do it; otherwise an error.
CREATE FUNCTION raystream.convert_value(value jsonb, type_ text) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog AS $$
DECLARE
    kind text := jsonb_typeof(value);
    result jsonb;
BEGIN
    IF raystream.is_type(value, type_) THEN RETURN value; END IF;
    BEGIN
        IF right(type_, 2) = '[]' AND kind <> 'array' THEN
            result := jsonb_build_array(raystream.convert_value(value, left(type_, -2)));
        ELSIF type_ = 'string' AND kind IN ('number', 'boolean') THEN
            result := to_jsonb(value #>> '{}');
        ELSIF type_ IN ('number', 'bigint', 'Date') AND kind = 'string' THEN
            result := to_jsonb((value #>> '{}')::numeric);
        ELSIF type_ = 'boolean' AND value IN ('"true"', '"false"') THEN
            result := (value #>> '{}')::jsonb;
        END IF;
    EXCEPTION WHEN invalid_text_representation OR numeric_value_out_of_range THEN
        result := NULL;
    END;
    IF result IS NULL OR NOT raystream.is_type(result, type_) THEN
        RAISE EXCEPTION 'the % % has no one meaning as %', kind, left(value::text, 60), type_ USING ERRCODE = '22023',
            HINT = 'Between raystream.untype_field and raystream.type_field, write what each value becomes.';
    END IF;
    RETURN result;
END $$;

-- The table of documents behind a name, for statements of a migration. It is closed to other writers until the migration
-- ends: a writer that waits for a row of ours, and whose table we then want for ourselves, would be a deadlock.
CREATE FUNCTION raystream.documents(table_ text) RETURNS regclass LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    found_ record;
BEGIN
    SELECT s.ptr_schema, s.ptr, s.attached INTO found_ FROM raystream.storage AS s
        WHERE s.owner = 'public' AND s.name = table_;
    IF found_ IS NULL THEN
        RAISE EXCEPTION 'there is no table %', table_ USING ERRCODE = '42P01';
    END IF;
    IF found_.attached IS NOT NULL THEN
        RAISE EXCEPTION 'the table % is attached: its columns are changed with ALTER TABLE', table_ USING ERRCODE = '42809';
    END IF;
    EXECUTE format('LOCK TABLE %I.%I IN SHARE ROW EXCLUSIVE MODE', found_.ptr_schema, found_.ptr);
    RETURN format('%I.%I', found_.ptr_schema, found_.ptr)::regclass;
END $$;

-- Inside of a migration its documents are a view under the table's own name, which takes INSERT, UPDATE and DELETE. A role that
-- may make no temporary views uses the functions. Names of temporary views are found before those of the catalog.
CREATE FUNCTION raystream.show_table(name_ text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    found_ record;
BEGIN
    SELECT s.ptr_schema, s.ptr INTO found_ FROM raystream.storage AS s JOIN pg_class AS c
        ON c.oid = to_regclass(format('%I.%I', s.ptr_schema, s.ptr))
        WHERE s.owner = 'public' AND s.name = name_ AND s.attached IS NULL;
    IF found_ IS NULL OR starts_with(name_, 'pg_') OR NOT has_database_privilege(current_database(), 'TEMP') THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE OR REPLACE TEMP VIEW %I AS SELECT id, data, _version, _owner FROM %I.%I
        WHERE _deleted_txid IS NULL', name_, found_.ptr_schema, found_.ptr);
END $$;

-- Runs the statements of a migration. EXECUTE refuses COMMIT and ROLLBACK, so that all of it happens or nothing.
CREATE FUNCTION raystream.run_migration(statements text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM raystream.show_table(s.name) FROM raystream.storage AS s WHERE s.owner = 'public' AND s.attached IS NULL;
    EXECUTE statements;
END $$;

-- Holds a field to a type, as the documents are.
CREATE FUNCTION raystream.type_field(table_ text, field_ text, type_ text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$
DECLARE
    physical regclass := raystream.documents(table_);
    other record;
BEGIN
    IF field_ !~ '^[A-Za-z_][A-Za-z0-9_]*$' OR octet_length(field_) > 40 THEN
        RAISE EXCEPTION '"%" cannot be the name of a field', field_ USING ERRCODE = '42602';
    END IF;
    IF type_ !~ '^(string|number|boolean|bigint|Date|Uint8Array|json)(\[\])?$' THEN
        RAISE EXCEPTION '"%" is no type of a field', type_ USING ERRCODE = '42704';
    END IF;
    EXECUTE format('SELECT d.id, jsonb_typeof(d.data -> %1$L) AS kind FROM %2$s AS d
        WHERE d._deleted_txid IS NULL AND NOT raystream.is_type(d.data -> %1$L, %3$L) LIMIT 1', field_, physical, type_)
        INTO other;
    IF other.id IS NOT NULL THEN
        RAISE EXCEPTION 'in the document % of the table % the field % is a % that is no %', quote_literal(other.id), table_,
            field_, other.kind, type_ USING ERRCODE = '23514';
    END IF;
    PERFORM raystream.untype_field(table_, field_);
    IF type_ <> 'json' THEN
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I CHECK (_deleted_txid IS NOT NULL OR raystream.is_type(data -> %L, %L))',
            physical, 'field_type_' || field_, field_, type_);
    END IF;
    INSERT INTO raystream.fields (owner, table_name, name, type) VALUES ('public', table_, field_, type_)
        ON CONFLICT (owner, table_name, name) DO UPDATE SET type = EXCLUDED.type;
END $$;

-- Lets a field be anything, until `type_field`.
CREATE FUNCTION raystream.untype_field(table_ text, field_ text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I', raystream.documents(table_), 'field_type_' || field_);
END $$;

-- A field from now on. The documents that do not have it get the default, when there is one.
CREATE FUNCTION raystream.add_field(table_ text, field_ text, type_ text, default_ jsonb DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    physical regclass := raystream.documents(table_);
BEGIN
    IF default_ IS NOT NULL THEN
        EXECUTE format('UPDATE %s SET data = data || jsonb_build_object(%2$L, %3$L::jsonb)
            WHERE _deleted_txid IS NULL AND jsonb_typeof(data) = ''object'' AND NOT data ? %2$L', physical, field_, default_);
    END IF;
    PERFORM raystream.type_field(table_, field_, type_);
END $$;

-- A field is declared no longer; what the documents have of it stays.
CREATE FUNCTION raystream.forget_field(table_ text, field_ text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$
BEGIN
    PERFORM raystream.untype_field(table_, field_);
    PERFORM raystream.permit_field(table_, field_, 7);
    DELETE FROM raystream.fields WHERE owner = 'public' AND table_name = table_ AND name = field_;
END $$;

-- A field is gone, from the documents too.
CREATE FUNCTION raystream.remove_field(table_ text, field_ text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$
BEGIN
    PERFORM raystream.forget_field(table_, field_);
    EXECUTE format('UPDATE %s SET data = data - %2$L
        WHERE _deleted_txid IS NULL AND jsonb_typeof(data) = ''object'' AND data ? %2$L', raystream.documents(table_), field_);
END $$;

-- A field gets another name, in the documents too.
CREATE FUNCTION raystream.rename_field(table_ text, from_ text, to_ text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$
DECLARE
    physical regclass := raystream.documents(table_);
    declared record;
    both_ text;
BEGIN
    SELECT f.type, f.perm INTO declared FROM raystream.fields AS f
        WHERE f.owner = 'public' AND f.table_name = table_ AND f.name = from_;
    IF declared IS NULL THEN
        RAISE EXCEPTION 'the table % has no declared field %', table_, from_ USING ERRCODE = '42703';
    END IF;
    EXECUTE format('SELECT d.id FROM %s AS d WHERE d._deleted_txid IS NULL AND jsonb_typeof(d.data) = ''object''
        AND d.data ?& ARRAY[%L, %L] LIMIT 1', physical, from_, to_) INTO both_;
    IF both_ IS NOT NULL THEN
        RAISE EXCEPTION 'the document % of the table % has both % and %', quote_literal(both_), table_, from_, to_
            USING ERRCODE = '23505';
    END IF;
    PERFORM raystream.forget_field(table_, from_);
    EXECUTE format('UPDATE %s SET data = data - %2$L || jsonb_build_object(%3$L, data -> %2$L)
        WHERE _deleted_txid IS NULL AND jsonb_typeof(data) = ''object'' AND data ? %2$L', physical, from_, to_);
    PERFORM raystream.type_field(table_, to_, declared.type);
    PERFORM raystream.permit_field(table_, to_, declared.perm);
END $$;

-- The columns of a primary key, in their order; null when there is none.
CREATE FUNCTION raystream.key_columns(physical regclass) RETURNS text[] LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT array_agg(a.attname::text ORDER BY k.n)
        FROM pg_index AS i CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k (attnum, n)
        JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
        WHERE i.indrelid = physical AND i.indisprimary AND k.n <= i.indnkeyatts
$$;

-- As before, and rows keep their ids when somebody renamed a column of the key: then they have no field of the name that the
-- trigger was made with.
CREATE OR REPLACE FUNCTION raystream.log_row() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog SET timezone = 'UTC' SET datestyle = 'ISO' SET intervalstyle = 'postgres'
    SET bytea_output = 'hex' SET extra_float_digits = 1 AS $$
DECLARE
    keys text[] := TG_ARGV[1:];
    was jsonb;
    is_ jsonb;
    old_id text;
    new_id text;
BEGIN
    IF TG_OP <> 'INSERT' THEN was := to_jsonb(OLD); END IF;
    IF TG_OP <> 'DELETE' THEN is_ := to_jsonb(NEW); END IF;
    IF NOT coalesce(is_, was) ?& keys THEN keys := coalesce(raystream.key_columns(TG_RELID), keys); END IF;
    IF TG_OP <> 'INSERT' THEN old_id := raystream.row_id(was, keys); END IF;
    IF TG_OP <> 'DELETE' THEN new_id := raystream.row_id(is_, keys); END IF;
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

-- A column of an attached table gets another name, and the trigger of the log with it: after this another column may get the
-- name that one of the key had. The lock of ALTER TABLE keeps writers away until the end.
CREATE FUNCTION raystream.rename_column(physical regclass, from_ text, to_ text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$
DECLARE
    arguments text;
    is_key boolean;
BEGIN
    EXECUTE format('ALTER TABLE %s RENAME COLUMN %I TO %I', physical, from_, to_);
    -- The arguments of a trigger are stored with a zero byte behind each; the first one is the view.
    SELECT string_agg(quote_literal(CASE WHEN a.n > 1 AND a.word = from_ THEN to_ ELSE a.word END), ', ' ORDER BY a.n),
            bool_or(a.n > 1 AND a.word = from_) INTO arguments, is_key
        FROM pg_trigger AS t CROSS JOIN regexp_matches(encode(t.tgargs, 'hex'), '((?:(?!00)..)*)00', 'g')
            WITH ORDINALITY AS r (found, n),
            LATERAL (SELECT r.n, convert_from(decode(r.found[1], 'hex'), getdatabaseencoding())) AS a (n, word)
        WHERE t.tgrelid = physical AND t.tgfoid = 'raystream.log_row()'::regprocedure;
    IF is_key THEN
        EXECUTE format('CREATE OR REPLACE TRIGGER raystream_log AFTER INSERT OR UPDATE OR DELETE ON %s
            FOR EACH ROW EXECUTE FUNCTION raystream.log_row(%s)', physical, arguments);
    END IF;
END $$;

-- A field gets another type; its values are converted where there is one way to do it.
CREATE FUNCTION raystream.change_type(table_ text, field_ text, type_ text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$
BEGIN
    PERFORM raystream.untype_field(table_, field_);
    EXECUTE format('UPDATE %s SET data = data || jsonb_build_object(%2$L, raystream.convert_value(data -> %2$L, %3$L))
        WHERE _deleted_txid IS NULL AND jsonb_typeof(data) = ''object'' AND NOT raystream.is_type(data -> %2$L, %3$L)',
        raystream.documents(table_), field_, type_);
    PERFORM raystream.type_field(table_, field_, type_);
END $$;

-- What `permit_field` and `permit_table` refuse, for whoever writes, except in a migration. Argument: the rule, by which the
-- daemon knows what to answer.
CREATE FUNCTION raystream.refuse_write() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF current_setting('raystream.migrating', true) = 'on' THEN
        IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'the permissions of the schema refuse it: %', TG_ARGV[0]
        USING ERRCODE = '23514', CONSTRAINT = TG_ARGV[0];
END $$;

-- What may be done with a field: without 2, it keeps the value that the document was made with.
CREATE FUNCTION raystream.permit_field(table_ text, field_ text, perm_ int) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$
DECLARE
    physical regclass := raystream.documents(table_);
BEGIN
    EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', 'raystream_field_perm_' || field_, physical);
    IF perm_ & 2 = 0 THEN
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE ON %s FOR EACH ROW
            WHEN (OLD._deleted_txid IS NULL AND NEW._deleted_txid IS NULL
                AND OLD.data -> %3$L IS DISTINCT FROM NEW.data -> %3$L)
            EXECUTE FUNCTION raystream.refuse_write(%4$L)',
            'raystream_field_perm_' || field_, physical, field_, 'field_perm_' || field_);
    END IF;
    UPDATE raystream.fields SET perm = perm_ WHERE owner = 'public' AND table_name = table_ AND name = field_;
END $$;

-- What may be done with a table: 2 is making and changing documents, 1 deleting them.
CREATE FUNCTION raystream.permit_table(table_ text, perm_ int) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$
DECLARE
    physical regclass := raystream.documents(table_);
BEGIN
    EXECUTE format('DROP TRIGGER IF EXISTS raystream_table_perm_insert ON %1$s;
        DROP TRIGGER IF EXISTS raystream_table_perm_update ON %1$s;
        DROP TRIGGER IF EXISTS raystream_table_perm_end ON %1$s;
        DROP TRIGGER IF EXISTS raystream_table_perm_delete ON %1$s', physical);
    IF perm_ & 2 = 0 THEN
        EXECUTE format('CREATE TRIGGER raystream_table_perm_insert BEFORE INSERT ON %1$s FOR EACH ROW
                WHEN (NEW._deleted_txid IS NULL) EXECUTE FUNCTION raystream.refuse_write(''table_perm_write'');
            CREATE TRIGGER raystream_table_perm_update BEFORE UPDATE ON %1$s FOR EACH ROW
                WHEN (NEW._deleted_txid IS NULL) EXECUTE FUNCTION raystream.refuse_write(''table_perm_write'')', physical);
    END IF;
    IF perm_ & 1 = 0 THEN
        EXECUTE format('CREATE TRIGGER raystream_table_perm_end BEFORE UPDATE ON %1$s FOR EACH ROW
                WHEN (OLD._deleted_txid IS NULL AND NEW._deleted_txid IS NOT NULL)
                EXECUTE FUNCTION raystream.refuse_write(''table_perm_delete'');
            CREATE TRIGGER raystream_table_perm_delete BEFORE DELETE ON %1$s FOR EACH ROW
                WHEN (OLD._deleted_txid IS NULL) EXECUTE FUNCTION raystream.refuse_write(''table_perm_delete'')', physical);
    END IF;
    UPDATE raystream.storage SET permissions = perm_ WHERE owner = 'public' AND name = table_;
END $$;

-- An index over live documents. 'value' has the order of a query by that field; 'unique' takes each value once, and a field
-- that is absent or null counts for nothing; 'gin' serves the filters of queries.
CREATE FUNCTION raystream.add_index(table_ text, index_ text, kind_ text, fields_ text[] DEFAULT '{}') RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    physical regclass := raystream.documents(table_);
    name_ text := raystream.index_name(table_, index_);
    keys text;
BEGIN
    IF kind_ = 'gin' THEN
        EXECUTE format('CREATE INDEX %I ON %s USING gin (data jsonb_path_ops) WHERE _deleted_txid IS NULL', name_, physical);
        RETURN;
    END IF;
    SELECT string_agg(CASE kind_
            WHEN 'unique' THEN format('nullif(data -> %L, ''null'')', f)
            WHEN 'value' THEN format('coalesce(data #> %L::text[], ''null'')', ARRAY[f]) END, ', ' ORDER BY n)
        INTO keys FROM unnest(fields_) WITH ORDINALITY AS u (f, n);
    EXECUTE format('CREATE %s INDEX %I ON %s (%s%s) WHERE _deleted_txid IS NULL',
        CASE kind_ WHEN 'unique' THEN 'UNIQUE' ELSE '' END, name_, physical, keys,
        CASE kind_ WHEN 'value' THEN ', id' ELSE '' END);
END $$;

CREATE FUNCTION raystream.remove_index(table_ text, index_ text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$
BEGIN
    PERFORM raystream.documents(table_);
    EXECUTE format('DROP INDEX raystream.%I', raystream.index_name(table_, index_));
END $$;

-- Names of indexes are those of the whole schema, so they begin with the one of the physical table.
CREATE FUNCTION raystream.index_name(table_ text, index_ text) RETURNS text LANGUAGE sql STABLE
    RETURN (SELECT s.ptr || '_' || index_ FROM raystream.storage AS s WHERE s.owner = 'public' AND s.name = table_);

-- A table of documents, unless there is one: then it is that one from now on.
CREATE FUNCTION raystream.add_table(table_ text) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    made boolean := raystream.create_table('public', table_);
BEGIN
    IF made THEN
        UPDATE raystream.storage SET by_migration = true WHERE owner = 'public' AND name = table_;
    END IF;
    PERFORM raystream.documents(table_);
    PERFORM raystream.show_table(table_);
    RETURN made;
END $$;

-- A table that somebody else made, unless it is attached already. `columns_` has to be there.
CREATE FUNCTION raystream.add_attached(table_ text, physical regclass, columns_ text[]) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$
DECLARE
    missing text;
    ptr_ text;
BEGIN
    SELECT c.name INTO missing FROM unnest(columns_) AS c (name) WHERE NOT EXISTS (
        SELECT FROM pg_attribute AS a WHERE a.attrelid = physical AND a.attname = c.name AND a.attnum > 0
            AND NOT a.attisdropped);
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'the table % has no column %', physical, missing USING ERRCODE = '42703',
            HINT = 'Declare the columns that are there first, and add the others with the next migration.';
    END IF;
    IF NOT EXISTS (SELECT FROM raystream.storage AS s
        WHERE s.owner = 'public' AND s.name = table_ AND s.attached = physical) THEN
        PERFORM raystream.attach('public', table_, physical);
        UPDATE raystream.storage SET by_migration = true WHERE owner = 'public' AND name = table_ RETURNING ptr INTO ptr_;
        PERFORM raystream.open_to_exec(ptr_);
    END IF;
END $$;

-- Takes back that a table is declared. What was there before stays, attached or not. No document is lost: a table that has some
-- stays too, without the rules of the schema, and is nothing of a migration any more.
CREATE FUNCTION raystream.undo_add_table(table_ text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    found_ record;
    is_used boolean;
BEGIN
    SELECT s.by_migration, s.attached INTO found_ FROM raystream.storage AS s
        WHERE s.owner = 'public' AND s.name = table_;
    IF found_.by_migration IS NOT TRUE THEN RETURN; END IF;
    IF found_.attached IS NULL THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE _deleted_txid IS NULL)', raystream.documents(table_)) INTO is_used;
        IF is_used THEN
            UPDATE raystream.storage SET by_migration = false WHERE owner = 'public' AND name = table_;
            RETURN;
        END IF;
    END IF;
    PERFORM raystream.remove_table(table_);
END $$;

-- Takes back a column that a migration added, when nothing was written into it.
CREATE FUNCTION raystream.undo_add_column(physical regclass, column_ text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$
DECLARE
    is_used boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE %I IS NOT NULL)', physical, column_) INTO is_used;
    IF is_used THEN
        RAISE EXCEPTION 'the column % of % has values', column_, physical USING ERRCODE = '2BP01',
            HINT = 'Set them to NULL first, or drop the column with a reviewed migration.';
    END IF;
    EXECUTE format('ALTER TABLE %s DROP COLUMN %I', physical, column_);
END $$;

-- A table and its documents are gone; each of them is a delete in the log first. A table of somebody else's is only detached.
CREATE FUNCTION raystream.remove_table(table_ text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    physical regclass;
BEGIN
    IF raystream.detach('public', table_, NULL) IS NOT NULL THEN RETURN; END IF;
    physical := raystream.documents(table_);
    EXECUTE format('DELETE FROM %s', physical);
    DELETE FROM raystream.storage WHERE owner = 'public' AND name = table_;
    EXECUTE format('DROP VIEW IF EXISTS pg_temp.%I', table_);
    EXECUTE format('DROP TABLE %s', physical);
END $$;

-- As before, and the text itself is measured: a number of a few bytes can be one of a hundred thousand digits.
CREATE OR REPLACE FUNCTION raystream.row_image(image jsonb) RETURNS jsonb LANGUAGE sql STABLE
    RETURN CASE WHEN octet_length(image::text) > 983040
        THEN jsonb_build_object('_too_large', octet_length(image::text)) ELSE image END;
