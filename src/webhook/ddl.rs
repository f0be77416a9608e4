//! SQL for a database without the daemon in front of it: triggers that put each change of a table into an outbox.
//!
//! A trigger does not call the receiver. It runs inside of the write: a receiver that is slow or away would make the write slow or
//! fail, a write that is rolled back would have been told, and a way to call from inside of Postgres is an extension that
//! most servers do not have. So the change goes into a table, in the transaction of the write: told if and only if it was
//! committed. Nothing is notified either, because Postgres lets the transactions that do so commit only one after the other. A
//! program takes the events out and sends them; `docs/webhooks.md` has the statement.
//!
//! Everything is in the schema `raystream_webhook`, and each statement can be run again.

use super::target::{Target, TargetError};

/// The longest name of Postgres, in bytes. It would cut a longer one, and then mean another table.
const NAME_LEN_MAX: usize = 63;

/// The longest image of a row, in bytes of JSON: as long as the longest document, so that two of them are an event that is read. The
/// text itself is measured: a number of a few bytes can be one of a hundred thousand digits.
const IMAGE_LEN_MAX: usize = 983_040;

/// Why no statement was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DdlError {
    /// The URL is none that can be sent to.
    #[error(transparent)]
    Url(#[from] TargetError),
    /// The URL has a character that means something inside of a function's text.
    #[error("the URL has a `'` or a `$`: write %27 or %24")]
    Quote,
    /// The name of the table.
    #[error(
        "a table is named like `orders` or `shop.orders`: letters, digits and underscores, no digit first, \
         at most {NAME_LEN_MAX} bytes"
    )]
    Table,
}

/// The statements that make the outbox and the function of the triggers. An event goes into it with the URL of the gateway, and is
/// what [`parse_webhook_event`](super::parse_webhook_event) reads: `table` (without its schema), `operation`, `new`, `old`.
///
/// A row of more than 960 KiB of JSON is there as `{"_too_large": bytes}`: a trigger must not make a write fail that Postgres
/// takes.
///
/// # Errors
/// [`DdlError::Url`], [`DdlError::Quote`]
pub fn generate_notify_function(gateway_url: &str) -> Result<String, DdlError> {
    Target::parse(gateway_url)?;
    if gateway_url.contains(['\'', '$']) {
        return Err(DdlError::Quote);
    }
    Ok(format!(
        r#"CREATE SCHEMA IF NOT EXISTS raystream_webhook;
CREATE TABLE IF NOT EXISTS raystream_webhook.outbox (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    url    text NOT NULL,
    event  jsonb NOT NULL,
    at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE OR REPLACE FUNCTION raystream_webhook.image(image jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE
    SET search_path = pg_catalog, pg_temp AS $raystream$
    SELECT CASE WHEN octet_length(image::text) > {IMAGE_LEN_MAX}
        THEN jsonb_build_object('_too_large', octet_length(image::text)) ELSE image END
$raystream$;
CREATE OR REPLACE FUNCTION raystream_webhook.notify() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $raystream$
DECLARE
    new_ jsonb;
    old_ jsonb;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        -- It fires nothing for its rows: each of them is told before it goes, by the table that it is in. Tables that inherit have
        -- triggers of their own, partitions have not.
        EXECUTE format('INSERT INTO raystream_webhook.outbox (url, event) SELECT %L, jsonb_build_object(''table'', c.relname,
                ''operation'', ''DELETE'', ''new'', NULL, ''old'', raystream_webhook.image(to_jsonb(row_.*)))
            FROM %s %I.%I AS row_ JOIN pg_class AS c ON c.oid = row_.tableoid', '{gateway_url}',
            (SELECT CASE relkind WHEN 'p' THEN '' ELSE 'ONLY' END FROM pg_class WHERE oid = TG_RELID),
            TG_TABLE_SCHEMA, TG_TABLE_NAME);
        RETURN NULL;
    END IF;
    IF TG_OP <> 'DELETE' THEN new_ := raystream_webhook.image(to_jsonb(NEW)); END IF;
    IF TG_OP <> 'INSERT' THEN old_ := raystream_webhook.image(to_jsonb(OLD)); END IF;
    INSERT INTO raystream_webhook.outbox (url, event) VALUES ('{gateway_url}',
        jsonb_build_object('table', TG_TABLE_NAME, 'operation', TG_OP, 'new', new_, 'old', old_));
    RETURN NULL;
END $raystream$;
-- Else everybody could fill the outbox from a table of his own.
REVOKE ALL ON FUNCTION raystream_webhook.notify() FROM PUBLIC;
"#
    ))
}

/// The statements that have a table's changes put into the outbox. `table_name` is `orders` or `shop.orders`; it is quoted, so
/// capitals count. Wants what [`generate_notify_function`] makes. A TRUNCATE is a delete of each row, for which whoever owns that
/// function has to have the right to read the table.
///
/// # Errors
/// [`DdlError::Table`]: a name that is not of that form is refused and not changed, because a name that was cleaned is another
/// table.
pub fn generate_trigger_ddl(table_name: &str) -> Result<String, DdlError> {
    let parts: Vec<&str> = table_name.split('.').collect();
    if parts.len() > 2 || !parts.iter().all(|part| is_name(part)) {
        return Err(DdlError::Table);
    }
    let quoted = parts.iter().map(|part| format!("\"{part}\"")).collect::<Vec<_>>().join(".");
    Ok(format!(
        "CREATE OR REPLACE TRIGGER raystream_webhook AFTER INSERT OR UPDATE OR DELETE ON {quoted}\n    \
         FOR EACH ROW EXECUTE FUNCTION raystream_webhook.notify();\n\
         CREATE OR REPLACE TRIGGER raystream_webhook_truncate BEFORE TRUNCATE ON {quoted}\n    \
         FOR EACH STATEMENT EXECUTE FUNCTION raystream_webhook.notify();\n"
    ))
}

/// The statements that make `raystream_webhook.cleanup(older_than, most)`: it removes events that nobody has taken for so long, at most
/// so many, and answers their number. Without it an outbox that nobody empties fills the disk.
///
/// Old versions of rows are no concern of it: Postgres' own vacuum removes those, and `raystream gc` what the daemon keeps.
pub fn generate_cleanup_function() -> String {
    "CREATE OR REPLACE FUNCTION raystream_webhook.cleanup(older_than interval DEFAULT '7 days', most integer DEFAULT 10000)
    RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $raystream$
DECLARE
    removed bigint;
BEGIN
    IF older_than IS NULL OR older_than < interval '0' OR most IS NULL OR most < 1 THEN
        RAISE EXCEPTION 'cleanup takes an age that is not negative, and a number above zero' USING ERRCODE = '22023';
    END IF;
    -- What a sender holds is about to be sent.
    DELETE FROM raystream_webhook.outbox AS o USING (
        SELECT c.id FROM raystream_webhook.outbox AS c WHERE c.at < clock_timestamp() - older_than
        ORDER BY c.id LIMIT most FOR UPDATE SKIP LOCKED) AS old_
    WHERE o.id = old_.id;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END $raystream$;
"
    .to_owned()
}

fn is_name(name: &str) -> bool {
    let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    starts
        && name.len() <= NAME_LEN_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_and_urls_are_refused() {
        let long = "a".repeat(NAME_LEN_MAX + 1);
        for name in [
            "",
            ".",
            "a.",
            ".a",
            "a.b.c",
            "1a",
            "a b",
            "a;b",
            "a\"b",
            "a'b",
            "a\"; DROP TABLE b; --",
            "a$b",
            "a\0",
            "ä",
            "a\n",
            "a--",
            &long,
        ] {
            assert_eq!(generate_trigger_ddl(name), Err(DdlError::Table), "{name}");
        }
        assert!(
            generate_trigger_ddl("Shop._Orders2").is_ok_and(|sql| sql.contains("ON \"Shop\".\"_Orders2\"\n"))
        );
        for (url, error) in [
            ("https://example.com/a'); DROP TABLE b; --", DdlError::Url(TargetError::Character)),
            ("https://example.com/a'", DdlError::Quote),
            ("https://example.com/$raystream$", DdlError::Quote),
            ("https://example.com/\\", DdlError::Url(TargetError::Character)),
            ("javascript:alert(1)", DdlError::Url(TargetError::Scheme)),
        ] {
            assert_eq!(generate_notify_function(url), Err(error), "{url}");
        }
    }
}
