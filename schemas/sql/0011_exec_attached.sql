-- Attached tables are read by `table.exec` too: through their views, as their owners. A view of somebody who has given the
-- daemon no right to share it stays closed: whoever owns it runs `SELECT raystream.open_to_exec(ptr)`.
DO $$
DECLARE
    ptr_ text;
BEGIN
    FOR ptr_ IN SELECT ptr FROM raystream.storage WHERE ptr_schema = 'raystream' AND attached IS NOT NULL LOOP
        BEGIN
            PERFORM raystream.open_to_exec(ptr_);
        EXCEPTION
            WHEN insufficient_privilege OR undefined_table THEN
                RAISE WARNING 'raystream.% is not open to raystream_exec: table.exec will not read it', ptr_;
        END;
    END LOOP;
END $$;
