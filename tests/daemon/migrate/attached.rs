//! Migrations of attached tables.

use super::{Project, call};
use crate::support::{TestDaemon, raystream};
use serde_json::json;
use std::sync::Arc;

#[test]
fn an_attached_table_is_changed_by_its_columns() {
    let project = Project::new("migrate_attached");
    project.sql(
        "CREATE SCHEMA shop; CREATE TABLE shop.orders (id int PRIMARY KEY, total numeric); \
         INSERT INTO shop.orders VALUES (1, 5), (2, 7)",
    );
    let columns = "SELECT string_agg(attname || ' ' || format_type(atttypid, NULL), ', ' ORDER BY attname) FROM pg_attribute \
         WHERE attrelid = 'shop.orders'::regclass AND attnum > 0 AND NOT attisdropped";
    let declared = "[tables.orders]\nattached = 'shop.orders'\nfields.total = 'number'\n";
    project.schema(&format!("{declared}fields.missing = 'string'"));
    project.refused(&["up"], "the table shop.orders has no column missing");
    project.schema(declared);
    project.ok(&["up"]);
    project.schema(&format!(
        "{declared}fields.paid = {{ type = 'boolean', default = false }}\nindexes.by_total = {{ fields = ['total'], unique = true }}"
    ));
    project.ok(&["up"]);
    assert_eq!(project.sql(columns), "id integer, paid boolean, total numeric");
    // The rows that got the default are in the log, and each is there once.
    let logged = "SELECT count(*) || ' ' || count(DISTINCT id) FROM raystream.changes \
         WHERE op = 'u' AND after -> 'paid' = 'false' AND principal = 'migration 2 automatic'";
    assert_eq!(project.sql(logged), "2 2");
    project.refused(&["down"], "the column paid of shop.orders has values");
    project.sql("UPDATE shop.orders SET paid = NULL");
    project.ok(&["down"]);
    assert_eq!(project.sql(columns), "id integer, total numeric");

    project
        .schema("[tables.orders]\nattached = 'shop.orders'\nfields.sum = { type = 'string', was = 'total' }");
    project.refused(&["up"], "rename_field orders.total to sum, change_type orders.sum to string");
    project.ok(&["create", "sums"]);
    project.ok(&["up"]);
    assert_eq!(project.sql(columns), "id integer, sum text");
    project.ok(&["down"]);
    assert_eq!(project.sql(columns), "id integer, total double precision");
}

#[test]
fn a_key_that_is_renamed_still_names_the_rows_in_the_log() {
    let project = Project::new("migrate_keys");
    project.sql(
        "CREATE TABLE public.orders (id bigint PRIMARY KEY, total float8); \
         CREATE TABLE public.items (shop int, n int, what text, PRIMARY KEY (shop, n))",
    );
    let declared = |id: &str, n: &str| {
        project.schema(&format!(
            "[tables.orders]\nattached = 'public.orders'\nfields.{id}\n\
             [tables.items]\nattached = 'public.items'\nfields.{n}\nfields.what = 'string'\n"
        ));
    };
    let logged = |table: &str| {
        project.sql(&format!(
            "SELECT coalesce(string_agg(c.op::text || ' ' || c.id, ', ' ORDER BY c.seq), '') FROM raystream.changes AS c \
             JOIN raystream.storage AS s ON s.ptr = c.ptr WHERE s.name = '{table}'"
        ))
    };
    declared("id = 'bigint'", "n = 'bigint'");
    project.ok(&["up"]);
    project.sql("INSERT INTO public.orders VALUES (1, 5); INSERT INTO public.items VALUES (7, 1, 'a')");
    declared("uid = { type = 'bigint', was = 'id' }", "number = { type = 'bigint', was = 'n' }");
    project.ok(&["create", "keys"]);
    project.ok(&["up"]);
    // Another column may have the old name.
    project.sql("ALTER TABLE public.orders ADD COLUMN id text DEFAULT 'none'");
    project.sql("UPDATE public.orders SET total = 6; INSERT INTO public.items VALUES (7, 2, 'b')");
    assert_eq!(logged("orders"), "i 1, u 1");
    assert_eq!(logged("items"), "i [7, 1], i [7, 2]");
    project.sql("ALTER TABLE public.orders DROP COLUMN id");
    project.ok(&["down"]);
    project.sql("UPDATE public.orders SET id = 2; DELETE FROM public.items WHERE n = 1");
    assert_eq!(logged("orders"), "i 1, u 1, d 1, i 2");
    assert_eq!(logged("items"), "i [7, 1], i [7, 2], d [7, 1]");
    // By hand.
    project.sql("ALTER TABLE public.items RENAME COLUMN shop TO place");
    project.sql("UPDATE public.items SET what = 'c'");
    assert_eq!(logged("items"), "i [7, 1], i [7, 2], d [7, 1], u [7, 2]");
}

#[test]
fn an_attached_table_of_a_migration_is_read_with_sql_and_taken_off_by_down() {
    let project = Project::of(Arc::new(TestDaemon::start()));
    let url = project.daemon.url.clone();
    project.sql(
        "CREATE TABLE public.orders (id int PRIMARY KEY, total float8); INSERT INTO public.orders VALUES (1, 5)",
    );
    let exec = || {
        let args = json!({"table": "orders", "sql": "SELECT data->>'total' AS total FROM orders"});
        call(&url, "table.exec", &args)
    };
    let declared = "[tables.orders]\nattached = 'public.orders'\nfields.total = 'number'\n";
    project.schema(declared);
    project.ok(&["up"]);
    let rows = exec().expect("the role of table.exec may read it");
    assert!(rows.to_string().contains("\"5\""), "{rows}");
    project.ok(&["down"]);
    let names = "SELECT coalesce(string_agg(name, ',' ORDER BY name), '') FROM raystream.storage";
    let triggers =
        "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'public.orders'::regclass AND NOT tgisinternal";
    assert_eq!((project.sql(names).as_str(), project.sql(triggers).as_str()), ("", "0"));

    // What somebody attached, or made, before any migration stays, also without a document.
    let data = project.daemon.data().to_str().expect("text").to_owned();
    let (status, _, err) = raystream(&["attach", "--data", &data, "public.orders"]);
    assert_eq!(status, Some(0), "{err}");
    call(&url, "table.create", &json!({"table": "mine"})).expect("it can be made");
    project.schema(&format!("{declared}[tables.mine]\n[tables.new]\n"));
    project.ok(&["up"]);
    assert_eq!(project.sql(names), "mine,new,orders");
    project.ok(&["down"]);
    assert_eq!(project.sql(names), "mine,orders");
    exec().expect("it is attached as before");
}
