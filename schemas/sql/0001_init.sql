-- The schema of raystream. Runs in one transaction, under the migration lock.

-- One row: what this database is. A cursor from another database is known by its epoch.
CREATE TABLE raystream.meta (
    only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch     bytea NOT NULL DEFAULT decode(replace(gen_random_uuid()::text, '-', ''), 'hex'),
    -- What left the log is of transactions below the horizon that had ended: not of those in horizon_xip, which ran when
    -- it was moved. The log is complete for all others; a cursor that lacks one of those that left gets RESET.
    horizon      xid8 NOT NULL DEFAULT '0',
    horizon_xip  xid8[] NOT NULL DEFAULT '{}'
);
INSERT INTO raystream.meta DEFAULT VALUES;

-- Logical name -> physical table. Two owners may use one name.
CREATE TABLE raystream.storage (
    owner       text NOT NULL,
    name        text NOT NULL,
    -- Schema and table, as they are quoted.
    ptr_schema  text NOT NULL,
    ptr         text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner, name),
    UNIQUE (ptr_schema, ptr)
);

-- The one change log, written in the transaction of the write. Read in the order of `raystream.changes` readers: see
-- ARCHITECTURE.md, "The change feed".
CREATE SEQUENCE raystream.change_seq AS bigint;
CREATE TABLE raystream.changes (
    xid        xid8 NOT NULL,
    seq        bigint NOT NULL,
    ptr        text NOT NULL,
    id         text NOT NULL,
    -- 'i' insert, 'u' update, 'd' delete
    op         "char" NOT NULL,
    version    bigint NOT NULL,
    before     jsonb,
    after      jsonb,
    principal  text,
    at         timestamptz NOT NULL
) PARTITION BY RANGE (at);
-- The second column gives the readers the largest seq of each transaction from the index alone.
CREATE INDEX ON raystream.changes (xid, seq);
CREATE INDEX ON raystream.changes (ptr, xid);
-- The net under the partitions that the daemon makes ahead of time.
CREATE TABLE raystream.changes_default PARTITION OF raystream.changes DEFAULT;

-- Who writes in this transaction: the principal that the daemon names in each of its statements, else (psql, another
-- service) the role that is logged in.
CREATE FUNCTION raystream.principal() RETURNS text LANGUAGE sql STABLE
    RETURN coalesce(nullif(current_setting('raystream.principal', true), ''), session_user::text);

-- The trigger of the daemon's own tables. A tombstone is not a document: setting `_deleted_txid` is a delete, clearing
-- it an insert, and removing a tombstone nothing.
CREATE FUNCTION raystream.log_document() RETURNS trigger LANGUAGE plpgsql
    SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    was boolean := false;
    is_ boolean := false;
    op_ "char";
BEGIN
    IF TG_OP <> 'INSERT' THEN was := OLD._deleted_txid IS NULL; END IF;
    IF TG_OP <> 'DELETE' THEN is_ := NEW._deleted_txid IS NULL; END IF;
    op_ := CASE WHEN was AND is_ THEN 'u' WHEN is_ THEN 'i' WHEN was THEN 'd' END;
    IF op_ IS NULL THEN RETURN NULL; END IF;
    INSERT INTO raystream.changes (xid, seq, ptr, id, op, version, before, after, principal, at)
    VALUES (
        pg_current_xact_id(), nextval('raystream.change_seq'), TG_TABLE_NAME,
        CASE WHEN TG_OP = 'DELETE' THEN OLD.id ELSE NEW.id END, op_,
        CASE WHEN TG_OP = 'DELETE' THEN OLD._version ELSE NEW._version END,
        CASE WHEN was THEN OLD.data END, CASE WHEN is_ THEN NEW.data END,
        raystream.principal(), clock_timestamp());
    RETURN NULL;
END $$;

-- TRUNCATE fires no row triggers, so live queries would go on showing what is gone.
CREATE FUNCTION raystream.refuse_truncate() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE EXCEPTION 'a table of documents cannot be truncated: the change log would not have it'
        USING ERRCODE = '0A000', HINT = 'Use DELETE.';
END $$;

-- A write by psql that forgets the bookkeeping columns is still a write: version and writer are kept right.
CREATE FUNCTION raystream.keep_document() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    NEW._txid := pg_current_xact_id();
    NEW._owner := raystream.principal();
    IF TG_OP = 'INSERT' THEN RETURN NEW; END IF;
    IF NEW.id IS DISTINCT FROM OLD.id THEN
        RAISE EXCEPTION 'the id of a document does not change' USING ERRCODE = '23514';
    END IF;
    IF NEW._version <= OLD._version THEN NEW._version := OLD._version + 1; END IF;
    RETURN NEW;
END $$;

-- RFC 7386. By sets: a patch of n keys costs n log n, not n copies of the document.
CREATE FUNCTION raystream.merge_patch(target jsonb, patch jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE
    SET search_path = pg_catalog AS $$
BEGIN
    IF jsonb_typeof(patch) IS DISTINCT FROM 'object' THEN RETURN patch; END IF;
    IF jsonb_typeof(target) IS DISTINCT FROM 'object' THEN target := '{}'; END IF;
    RETURN (
        SELECT coalesce(jsonb_object_agg(merged.key, merged.value), '{}')
        FROM (
            SELECT old.key, old.value FROM jsonb_each(target) AS old WHERE NOT patch ? old.key
            UNION ALL
            SELECT new.key,
                CASE WHEN jsonb_typeof(new.value) = 'object'
                    THEN raystream.merge_patch(target -> new.key, new.value) ELSE new.value END
            FROM jsonb_each(patch) AS new WHERE jsonb_typeof(new.value) <> 'null'
        ) AS merged);
END $$;

-- Makes the physical table of a logical name. Its own name comes from the caller, who has checked it. Ids compare byte by
-- byte, the same on every machine. `document_len` is the daemon's DOCUMENT_LEN_MAX: what is stored can be sent.
CREATE FUNCTION raystream.create_documents(ptr_ text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    EXECUTE format('CREATE TABLE raystream.%I (
        id             text COLLATE "C" PRIMARY KEY,
        data           jsonb NOT NULL CONSTRAINT document_len CHECK (octet_length(data::text) <= 983040),
        _version       bigint NOT NULL DEFAULT 1,
        _txid          xid8 NOT NULL DEFAULT pg_current_xact_id(),
        _deleted_txid  xid8,
        _order         bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY,
        _owner         text
    ) WITH (fillfactor = 90)', ptr_);
    EXECUTE format('CREATE INDEX ON raystream.%I (_order, id) WHERE _deleted_txid IS NULL', ptr_);
    EXECUTE format('CREATE TRIGGER raystream_keep BEFORE INSERT OR UPDATE ON raystream.%I
        FOR EACH ROW EXECUTE FUNCTION raystream.keep_document()', ptr_);
    EXECUTE format('CREATE TRIGGER raystream_log AFTER INSERT OR UPDATE OR DELETE ON raystream.%I
        FOR EACH ROW EXECUTE FUNCTION raystream.log_document()', ptr_);
    EXECUTE format('CREATE TRIGGER raystream_truncate BEFORE TRUNCATE ON raystream.%I
        FOR EACH STATEMENT EXECUTE FUNCTION raystream.refuse_truncate()', ptr_);
END $$;

-- Makes a table for a logical name unless there is one. A caller that comes at the same moment waits for the first one's
-- transaction at the key of `storage`, and then finds the table there.
CREATE FUNCTION raystream.create_table(owner_ text, name_ text) RETURNS boolean LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$
DECLARE
    ptr_ text := 'tbl_' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 16);
BEGIN
    INSERT INTO raystream.storage (owner, name, ptr_schema, ptr) VALUES (owner_, name_, 'raystream', ptr_)
        ON CONFLICT (owner, name) DO NOTHING;
    IF NOT FOUND THEN RETURN false; END IF;
    PERFORM raystream.create_documents(ptr_);
    RETURN true;
END $$;
