-- The role that runs the statements of `table.exec`, and what it sees: of tables of documents the columns that a caller may
-- ask for, and the one that says whether a document is there. It cannot log in; the daemon becomes it for a transaction.

-- A role is the cluster's, not the database's: it may be there already, also since a moment ago. Who may not make roles
-- gets the rest of raystream without `table.exec`, and runs these two lines as somebody who may.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'raystream_exec') THEN
        CREATE ROLE raystream_exec NOLOGIN NOINHERIT;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN RAISE WARNING 'the role raystream_exec cannot be made: table.exec will not work';
END $$;
DO $$
BEGIN
    IF NOT pg_catalog.pg_has_role(current_user, 'raystream_exec', 'MEMBER') THEN
        GRANT raystream_exec TO CURRENT_USER;
    END IF;
EXCEPTION
    WHEN undefined_object OR insufficient_privilege THEN
        RAISE WARNING 'the daemon cannot become raystream_exec: table.exec will not work';
END $$;

-- Numbers that are computed with. Postgres has numerics of 131072 digits, and multiplying two such takes seconds in which it
-- hears no request to stop; 150 before and 150 after the point are more than anything is measured with.
CREATE DOMAIN raystream.exec_numeric AS numeric
    CHECK (VALUE IS NULL OR (VALUE > -1e150 AND VALUE < 1e150 AND scale(VALUE) <= 150));

-- Lets the role read a table of documents.
CREATE FUNCTION raystream.open_to_exec(ptr_ text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'raystream_exec') THEN
        EXECUTE format('GRANT SELECT (id, data, _version, _order, _deleted_txid) ON raystream.%I TO raystream_exec', ptr_);
    END IF;
END $$;

DO $$
DECLARE
    ptr_ text;
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'raystream_exec') THEN
        GRANT USAGE ON SCHEMA raystream TO raystream_exec;
        FOR ptr_ IN SELECT ptr FROM raystream.storage WHERE ptr_schema = 'raystream' AND attached IS NULL LOOP
            PERFORM raystream.open_to_exec(ptr_);
        END LOOP;
    END IF;
END $$;

-- As before, and the new table is open to the role.
CREATE OR REPLACE FUNCTION raystream.create_table(owner_ text, name_ text) RETURNS boolean LANGUAGE plpgsql
    SET search_path = pg_catalog AS $$
DECLARE
    ptr_ text := 'tbl_' || substr(replace(gen_random_uuid()::text, '-', ''), 1, 16);
BEGIN
    INSERT INTO raystream.storage (owner, name, ptr_schema, ptr) VALUES (owner_, name_, 'raystream', ptr_)
        ON CONFLICT (owner, name) DO NOTHING;
    IF NOT FOUND THEN RETURN false; END IF;
    PERFORM raystream.create_documents(ptr_);
    PERFORM raystream.open_to_exec(ptr_);
    RETURN true;
END $$;
