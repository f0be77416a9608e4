-- Webhooks: the changes of a table, sent to a URL by one of the daemons. It reads them from the log, so nothing here has to do with
-- the write that made them. `docs/webhooks.md` says what a receiver sees.

CREATE TABLE raystream.webhooks (
    id             text PRIMARY KEY,
    -- The logical table. It may be dropped, and made again.
    owner          text NOT NULL,
    name           text NOT NULL,
    -- Its name in the log, as the position knows it. Under another one it is another table.
    ptr            text NOT NULL,
    url            text NOT NULL,
    -- Letters of raystream.changes.op.
    operations     text NOT NULL CHECK (operations ~ '^[iud]+$'),
    -- The key of the signatures: whoever reads it can sign.
    secret         bytea NOT NULL,
    attempts_max   integer NOT NULL CHECK (attempts_max > 0),
    created_at     timestamptz NOT NULL DEFAULT now(),
    -- Why nothing is sent; absent while it is.
    disabled       text,

    -- A cursor: what lies before it needs no more sending.
    position       text NOT NULL,
    -- The event that failed and is to be tried again: how often it was, since when, and not before when the next time.
    trying         text,
    attempts       integer NOT NULL DEFAULT 0,
    trying_since   timestamptz,
    next_attempt   timestamptz,
    last_error     text,
    last_error_at  timestamptz,

    sent           bigint NOT NULL DEFAULT 0,
    sent_at        timestamptz,
    -- Changes left the log before they were sent: how often, when and why the last time, and whether the receiver is still to be told.
    resets         bigint NOT NULL DEFAULT 0,
    reset_at       timestamptz,
    reset_reason   text,
    reset_due      boolean NOT NULL DEFAULT false,

    -- Which daemon sends, and until when no other one may. Each taking is an epoch: what an earlier one still wants to write here is
    -- refused.
    holder         text,
    lease          timestamptz NOT NULL DEFAULT '-infinity',
    epoch          bigint NOT NULL DEFAULT 0
);

-- Events that were given up. Each is kept as it was sent, until somebody has it sent again, or removes it.
CREATE TABLE raystream.webhook_dead (
    webhook        text NOT NULL REFERENCES raystream.webhooks ON DELETE CASCADE,
    event          text NOT NULL,
    -- The order in which they died.
    place          bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    body           bytea NOT NULL,
    attempts       integer NOT NULL,
    first_attempt  timestamptz NOT NULL,
    died_at        timestamptz NOT NULL DEFAULT now(),
    error          text NOT NULL,
    -- Somebody wants it sent again.
    retry          boolean NOT NULL DEFAULT false,
    PRIMARY KEY (webhook, event)
);
CREATE INDEX ON raystream.webhook_dead (webhook, place);
