-- Names of types are looked for among the temporary ones first, also with `search_path = pg_catalog`, unless the path says where
-- those are. Whoever may make temporary objects and write a table could so put a domain, and with it a function of his own,
-- into what runs with our rights. Functions that are replaced later have to say it themselves.
DO $$
DECLARE
    function_ regprocedure;
BEGIN
    FOR function_ IN SELECT p.oid FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = 'raystream'::regnamespace AND 'search_path=pg_catalog' = ANY (p.proconfig)
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp', function_);
    END LOOP;
END $$;

-- As before, and a table that is named like a type of the catalog has no view: it would hide the type from the migration's own
-- statements.
CREATE OR REPLACE FUNCTION raystream.show_table(name_ text) RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found_ record;
BEGIN
    SELECT s.ptr_schema, s.ptr INTO found_ FROM raystream.storage AS s JOIN pg_class AS c
        ON c.oid = to_regclass(format('%I.%I', s.ptr_schema, s.ptr))
        WHERE s.owner = 'public' AND s.name = name_ AND s.attached IS NULL;
    IF found_ IS NULL OR starts_with(name_, 'pg_') OR to_regtype(format('pg_catalog.%I', name_)) IS NOT NULL
        OR NOT has_database_privilege(current_database(), 'TEMP') THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE OR REPLACE TEMP VIEW pg_temp.%I AS SELECT id, data, _version, _owner FROM %I.%I
        WHERE _deleted_txid IS NULL', name_, found_.ptr_schema, found_.ptr);
END $$;

-- As before, and the table is locked before its row in `storage`, which is the order of a migration: neither waits for the other
-- while the other waits for it.
CREATE OR REPLACE FUNCTION raystream.set_schema(owner_ text, name_ text, schema_ text) RETURNS bigint LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found_ record;
    locked_ record;
    version_ bigint;
    unchecked text := 'false';
BEGIN
    SELECT s.ptr_schema, s.ptr INTO found_ FROM raystream.storage AS s
        WHERE s.owner = owner_ AND s.name = name_ AND s.attached IS NULL;
    IF NOT FOUND THEN RETURN NULL; END IF;
    EXECUTE format('LOCK TABLE %I.%I IN SHARE ROW EXCLUSIVE MODE', found_.ptr_schema, found_.ptr);
    SELECT s.ptr_schema, s.ptr INTO locked_ FROM raystream.storage AS s
        WHERE s.owner = owner_ AND s.name = name_ AND s.attached IS NULL FOR UPDATE;
    IF NOT FOUND THEN RETURN NULL; END IF;
    IF locked_ IS DISTINCT FROM found_ THEN
        RAISE EXCEPTION 'the table was made anew meanwhile' USING ERRCODE = 'serialization_failure';
    END IF;
    version_ := nextval('raystream.schema_version');
    IF schema_ IS NOT NULL THEN
        unchecked := format('current_setting(''raystream.schema'', true) IS DISTINCT FROM %L AND NEW._deleted_txid IS NULL',
            version_);
    END IF;
    -- Replaced and not dropped, also when there is no schema any more: to drop one would wait for every reader.
    EXECUTE format('CREATE OR REPLACE TRIGGER raystream_schema_insert BEFORE INSERT ON %I.%I FOR EACH ROW
        WHEN (%s) EXECUTE FUNCTION raystream.refuse_unchecked(%L)',
        found_.ptr_schema, found_.ptr, unchecked, version_);
    -- What leaves the document as it is, or removes it, needs no check.
    EXECUTE format('CREATE OR REPLACE TRIGGER raystream_schema_update BEFORE UPDATE ON %I.%I FOR EACH ROW
        WHEN (%s AND (OLD._deleted_txid IS NOT NULL OR NEW.data IS DISTINCT FROM OLD.data))
        EXECUTE FUNCTION raystream.refuse_unchecked(%L)',
        found_.ptr_schema, found_.ptr, unchecked, version_);
    UPDATE raystream.storage AS s SET json_schema = schema_, schema_version = version_
        WHERE s.owner = owner_ AND s.name = name_;
    RETURN version_;
END $$;
