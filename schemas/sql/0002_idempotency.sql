-- Replies to calls that were named by a key, so that a repeated call gets the reply instead of a second effect.

CREATE TABLE raystream.idempotency (
    -- Keys are those of a principal: nobody can ask for the reply of another one.
    principal     text NOT NULL,
    key           bytea NOT NULL CHECK (octet_length(key) = 16),
    -- SHA-256 of the request: another request under the same key is a mistake of the caller.
    request_hash  bytea NOT NULL CHECK (octet_length(request_hash) = 32),
    -- Absent only inside the transaction that has the effect: both are committed together.
    reply         bytea,
    at            timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (principal, key)
);
CREATE INDEX ON raystream.idempotency (at);
