-- Transactions that are open at some daemon, for as long as they are. Postgres itself forgets it all in a crash, which no
-- transaction outlives: so nothing here has to reach the disk, and a row that is gone says that there was one.

CREATE UNLOGGED TABLE raystream.trxs (
    sid         text PRIMARY KEY,
    -- The principal whose transaction it is.
    owner       text NOT NULL,
    -- Absent for one that only reads.
    create_txid xid8,
    snapshot    pg_snapshot NOT NULL,
    -- Until when a daemon that is alive has ended it: a row behind that is of one that died.
    lease       timestamptz NOT NULL
);
