-- Since when Postgres has not crashed, by a name. A crash empties what is not logged: so a row with a name that was read before
-- says that there was no crash since, and that the id of a transaction is still that transaction's. The row is made again by
-- the first connection that finds none.

CREATE UNLOGGED TABLE raystream.lifetime (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    token    uuid NOT NULL DEFAULT gen_random_uuid()
);
