-- JSON Schemas of tables, and the key of the cursors of pages.
--
-- The daemon checks documents, because Postgres knows no JSON Schema; Postgres sees to it that nothing passes unchecked. A
-- statement whose documents were checked names the version of the schema in the setting `raystream.schema`, and triggers
-- refuse every other one. So a schema is in force at every daemon from the moment its transaction commits, whatever a daemon
-- remembers, and a table without a schema has no such trigger.

-- Each change of a schema has a number of its own, over all tables: one table's number says nothing at another one.
CREATE SEQUENCE raystream.schema_version AS bigint;

ALTER TABLE raystream.storage
    -- As it was given. The length is the daemon's SCHEMA_LEN_MAX.
    ADD COLUMN json_schema text CHECK (octet_length(json_schema) <= 65536),
    -- 0: it never had one.
    ADD COLUMN schema_version bigint NOT NULL DEFAULT 0,
    -- The columns of an attached table are its schema.
    ADD CONSTRAINT schema_of_documents CHECK (json_schema IS NULL OR attached IS NULL);

CREATE FUNCTION raystream.refuse_unchecked() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE EXCEPTION 'the documents of this table have a schema, and this one was not checked against it'
        USING ERRCODE = 'RS001', HINT = format(
            'Write through raystream; or check it yourself and say so: SET raystream.schema = %L', TG_ARGV[0]);
END $$;

-- Gives a table of documents a schema, or none (null). Waits for the writes under way, and those that come wait for this
-- transaction; reading goes on. Answers the version, or null when there is no such table.
CREATE FUNCTION raystream.set_schema(owner_ text, name_ text, schema_ text) RETURNS bigint LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$
DECLARE
    found_ record;
    version_ bigint;
    unchecked text := 'false';
BEGIN
    SELECT s.ptr_schema, s.ptr INTO found_ FROM raystream.storage AS s
        WHERE s.owner = owner_ AND s.name = name_ AND s.attached IS NULL FOR UPDATE;
    IF NOT FOUND THEN RETURN NULL; END IF;
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

-- What the cursors of pages are signed with, at every daemon of the database.
ALTER TABLE raystream.meta ADD COLUMN page_key bytea NOT NULL
    DEFAULT decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex');
