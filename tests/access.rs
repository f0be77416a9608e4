//! Who may do what: every principal against every method and table, and nothing learnt from a refusal.
#![cfg(feature = "server")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raystream::api::{Caller, Clock, Context, Router, sys_router};
use raystream::auth::{
    Access, AccessConfig, AccessHandle, Principal, TableRight, TopicRight, authorise_call,
    authorise_connection, authorise_event, authorise_table, authorise_topic,
};
use raystream::noise::PublicKey;
use raystream::rpc::{Call, ConnectionId, Encoding, Items, Reply, Status};
use raystream::wire::registry::ErrorCode;

const RULES: &str = r#"
anonymous = ["visitor"]

[keys]
"1111111111111111111111111111111111111111111111111111111111111111" = ["reader", "writer"]
"2222222222222222222222222222222222222222222222222222222222222222" = ["admin"]
"3333333333333333333333333333333333333333333333333333333333333333" = []
"4444444444444444444444444444444444444444444444444444444444444444" = ["visitor", "counter"]

[roles.visitor]
methods = ["sys.echo", "table.get"]
tables = { news = ["read"] }

[roles.reader]
methods = ["table.get", "table.query", "sys.*"]
tables = { "*" = ["read"] }

[roles.writer]
methods = ["table.s*"]
tables = { orders = ["write"], news = [] }

[roles.counter]
methods = ["table.count"]

[roles.admin]
methods = ["*"]
tables = { "*" = ["read", "write"] }
"#;

fn access() -> Access {
    let config: AccessConfig = toml::from_str(RULES).expect("the rules are TOML");
    Access::compile(&config).expect("the rules are sound")
}

fn key(digit: u8) -> Principal {
    Principal::with_key(PublicKey([digit * 0x11; 32]))
}

/// Name, principal, whether let in, methods, readable tables, writable tables.
type Row = (
    &'static str,
    Principal,
    bool,
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
);

const METHODS: [&str; 8] = [
    "sys.echo",
    "sys.info",
    "table.get",
    "table.query",
    "table.set",
    "table.shift",
    "table.count",
    "no.such",
];
const TABLES: [&str; 4] = ["news", "orders", "secrets", "no_such"];

fn decisions() -> Vec<Row> {
    vec![
        ("anonymous", Principal::anonymous(), true, &["sys.echo", "table.get"], &["news"], &[]),
        (
            "two roles",
            key(1),
            true,
            &["sys.echo", "sys.info", "table.get", "table.query", "table.set", "table.shift"],
            &TABLES,
            &["orders"],
        ),
        ("admin", key(2), true, &METHODS, &TABLES, &TABLES),
        ("named without a role", key(3), false, &[], &[], &[]),
        (
            "methods of one role, tables of another",
            key(4),
            true,
            &["sys.echo", "table.get", "table.count"],
            &["news"],
            &[],
        ),
        // Not the visitor's roles: whoever proves a key is judged by that key.
        ("a key nobody named", key(5), false, &[], &[], &[]),
    ]
}

#[test]
fn every_principal_gets_what_is_granted_and_nothing_else() {
    let access = access();
    for (name, principal, let_in, methods, readable, writable) in decisions() {
        assert_eq!(authorise_connection(&access, &principal).is_ok(), let_in, "{name}");
        for method in METHODS {
            let granted = authorise_call(&access, &principal, method);
            assert_eq!(granted.is_ok(), methods.contains(&method), "{name}, {method}");
        }
        for table in TABLES {
            let read = authorise_table(&access, &principal, table, TableRight::Read);
            let write = authorise_table(&access, &principal, table, TableRight::Write);
            assert_eq!(read.is_ok(), readable.contains(&table), "{name} reads {table}");
            assert_eq!(write.is_ok(), writable.contains(&table), "{name} writes {table}");
            assert_eq!(
                authorise_event(&access, &principal, table).is_ok(),
                readable.contains(&table),
                "{name} watches {table}"
            );
        }
    }
}

#[test]
fn the_codes_say_what_was_refused() {
    let access = access();
    let anonymous = Principal::anonymous();
    let code = |denied: Result<(), raystream::auth::Denied>| denied.expect_err("refused").code;
    assert_eq!(code(authorise_connection(&access, &key(5))), ErrorCode::UNAUTHORIZED);
    assert_eq!(code(authorise_call(&access, &anonymous, "table.set")), ErrorCode::FORBIDDEN);
    assert_eq!(code(authorise_event(&access, &anonymous, "orders")), ErrorCode::PERMISSION_DENIED);
}

#[test]
fn patterns_reach_no_further_than_they_say() {
    let compile = |methods: &str| {
        let text = format!("anonymous = ['r']\n[roles.r]\nmethods = [{methods}]");
        Access::compile(&toml::from_str(&text).expect("TOML")).expect("sound")
    };
    let may =
        |methods: &str, method| authorise_call(&compile(methods), &Principal::anonymous(), method).is_ok();
    assert!(may("'table.*'", "table.get") && may("'table.*'", "table."));
    assert!(!may("'table.*'", "table") && !may("'table.*'", "tables.get") && !may("'table.*'", "TABLE.get"));
    assert!(!may("'table.get'", "table.get2") && !may("'table.get'", "table.ge"));
    assert!(!may("", "sys.echo") && !may("", ""));
}

#[test]
fn a_grant_of_tables_grants_no_method_and_the_other_way_round() {
    let text = "anonymous = ['r']\n[roles.r]\ntables = { '*' = ['read', 'write'] }";
    let access = Access::compile(&toml::from_str(text).expect("TOML")).expect("sound");
    assert!(authorise_connection(&access, &Principal::anonymous()).is_ok());
    assert!(authorise_call(&access, &Principal::anonymous(), "table.get").is_err());
    let text = "anonymous = ['r']\n[roles.r]\nmethods = ['*']";
    let access = Access::compile(&toml::from_str(text).expect("TOML")).expect("sound");
    assert!(authorise_event(&access, &Principal::anonymous(), "news").is_err());
}

#[test]
fn rights_on_topics_are_of_topics_only_and_of_each_name_apart() {
    let text = "anonymous = ['r', 's']\n[roles.r]\ntopics = { a = ['publish'], b = [], '*' = ['subscribe'] }\n\
                tables = { t = ['read', 'write'] }\n[roles.s]\ntopics = { c = ['publish', 'subscribe'] }";
    let access = Access::compile(&toml::from_str(text).expect("TOML")).expect("sound");
    let may = |topic, right| authorise_topic(&access, &Principal::anonymous(), topic, right).is_ok();
    for (topic, publish) in [("a", true), ("b", false), ("c", true), ("t", false), ("no_such", false)] {
        assert_eq!(may(topic, TopicRight::Publish), publish, "{topic}");
        assert!(may(topic, TopicRight::Subscribe), "{topic}");
        assert!(
            authorise_topic(&access, &key(1), topic, TopicRight::Subscribe).is_err(),
            "{topic} for a stranger"
        );
    }
    assert!(authorise_event(&access, &Principal::anonymous(), "a").is_err(), "a table of the name");
    assert!(authorise_topic(&Access::everything(), &key(5), "a", TopicRight::Publish).is_ok());
    assert!(authorise_topic(&Access::nothing(), &key(5), "a", TopicRight::Subscribe).is_err());
    let wrong = toml::from_str::<AccessConfig>("[roles.app]\ntopics = { a = ['read'] }");
    assert!(wrong.is_err());
}

#[test]
fn nothing_is_granted_by_default_and_everything_only_on_purpose() {
    let empty = Access::compile(&AccessConfig::default()).expect("an empty section is sound");
    assert!(empty.is_empty());
    for access in [empty, Access::nothing(), Access::default()] {
        for principal in [Principal::anonymous(), key(1)] {
            assert!(authorise_connection(&access, &principal).is_err());
            assert!(authorise_call(&access, &principal, "sys.echo").is_err());
            assert!(authorise_event(&access, &principal, "news").is_err());
        }
    }
    assert!(authorise_connection(&Access::everything(), &key(5)).is_ok());
    assert!(authorise_call(&Access::everything(), &Principal::anonymous(), "table.set").is_ok());
}

#[test]
fn rules_that_cannot_be_meant_are_all_refused() {
    let text = r#"
anonymous = ["ghost"]
[keys]
"xyz" = ["app"]
"1111111111111111111111111111111111111111111111111111111111111111" = ["app", "ghost"]
[roles.app]
methods = ["ta*ble", "", "sys.**", "a b", "ok.*"]
"#;
    let faults = Access::compile(&toml::from_str(text).expect("TOML")).expect_err("unsound");
    let shown: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(shown.len(), 7, "{shown:#?}");
    assert!(shown.iter().any(|fault| fault.starts_with("access.keys.xyz: a public key is 64")), "{shown:#?}");
    assert!(shown.iter().any(|fault| fault.contains("`ta*ble`")));
    assert_eq!(shown.iter().filter(|fault| fault.contains("`ghost`")).count(), 2);
    let unknown = toml::from_str::<AccessConfig>("[roles.app]\ntabels = {}");
    assert!(unknown.expect_err("misspelt").to_string().contains("tabels"));
    let right = toml::from_str::<AccessConfig>("[roles.app]\ntables = { a = ['admin'] }");
    assert!(right.is_err());
}

struct StoppedClock;

impl Clock for StoppedClock {
    fn server_time_ms(&self) -> u64 {
        1_700_000_000_000
    }

    fn uptime_ms(&self) -> u64 {
        42
    }
}

fn call(router: &Router, caller: &Arc<Caller>, method: &str, args: &'static str) -> Result<Bytes, Status> {
    let context = Context {
        caller: Arc::clone(caller),
        connection: ConnectionId([0xab; 16]),
        deadline: Some(Duration::from_secs(1)),
        cancelled: Default::default(),
        metadata: Vec::new(),
    };
    let call = Call {
        method: method.into(),
        encoding: Encoding::Json,
        args: Bytes::from_static(args.as_bytes()),
        idempotency_key: None,
        items: Items::default(),
    };
    match router.dispatch(&context, call) {
        Reply::Ready(answer) => answer.map(|answer| answer.result),
        Reply::Pending(_) => panic!("sys methods are ready at once"),
    }
}

fn caller(access: &AccessHandle, principal: Principal) -> Arc<Caller> {
    Arc::new(Caller::new(principal, access.clone()))
}

#[test]
fn a_refusal_is_the_same_for_what_exists_and_what_does_not() {
    let router = sys_router(Arc::new(StoppedClock));
    let access = AccessHandle::new(access());
    let anonymous = caller(&access, Principal::anonymous());
    let existing = call(&router, &anonymous, "sys.info", "{}").expect_err("not granted");
    for (method, args) in [("no.such", "{}"), ("sys.infos", "not json"), ("", ""), ("sys.info", "not json")] {
        // It says no more than the caller did.
        let message = existing.message.replace("`sys.info`", &format!("`{method}`")).into();
        let expected = Status { message, ..existing.clone() };
        assert_eq!(call(&router, &anonymous, method, args), Err(expected), "{method} {args}");
    }
    let admin = caller(&access, key(2));
    let unknown = call(&router, &admin, "no.such", "{}").expect_err("it does not exist");
    assert_eq!(unknown.code, ErrorCode::NOT_FOUND);
    let held =
        raystream::auth::authorise_table(&access.load(), &Principal::anonymous(), "orders", TableRight::Read);
    let missing =
        raystream::auth::authorise_table(&access.load(), &Principal::anonymous(), "ordexx", TableRight::Read);
    let (held, missing) = (held.expect_err("refused"), missing.expect_err("refused"));
    assert_eq!(held.message.replace("orders", "ordexx"), missing.message);
}

#[test]
fn a_change_of_the_rules_reaches_connections_that_are_open() {
    let router = sys_router(Arc::new(StoppedClock));
    let access = AccessHandle::new(Access::nothing());
    let anonymous = caller(&access, Principal::anonymous());
    assert_eq!(
        call(&router, &anonymous, "sys.echo", "{}").expect_err("nothing is granted").code,
        ErrorCode::FORBIDDEN
    );
    access.replace(Access::everything());
    assert!(call(&router, &anonymous, "sys.echo", "{}").is_ok());
    access.replace(Access::nothing());
    assert!(call(&router, &anonymous, "sys.echo", "{}").is_err());
}

#[test]
fn sys_methods_answer_what_they_promise() {
    let router = sys_router(Arc::new(StoppedClock));
    let caller = caller(&AccessHandle::new(Access::everything()), key(1));
    let odd = r#" { "a" : [1.0, 1e0, "\u0000"] , "a":2 } "#;
    assert_eq!(call(&router, &caller, "sys.echo", odd), Ok(Bytes::from_static(odd.as_bytes())));
    assert_eq!(call(&router, &caller, "sys.echo", ""), Ok(Bytes::from_static(b"{}")));
    for wrong in ["[1]", "1", "\"x\"", "null", "{", "{}{}", "{\"a\":\"\x01\"}", "nonsense"] {
        let status = call(&router, &caller, "sys.echo", wrong).expect_err("no JSON object");
        assert_eq!(status.code, ErrorCode::INVALID_REQUEST, "{wrong}");
    }
    let info = call(&router, &caller, "sys.info", "{}").expect("granted");
    let info: serde_json::Value = serde_json::from_slice(&info).expect("JSON");
    assert_eq!(
        info,
        serde_json::json!({
            "name": "raystream",
            "version": env!("CARGO_PKG_VERSION"),
            "protocol": "raystream-v1",
            "server_time_ms": 1_700_000_000_000_u64,
            "uptime_ms": 42,
            "connection": "ab".repeat(16),
            "principal": "11".repeat(32),
        })
    );
    assert!(call(&router, &caller, "sys.info", r#"{"x":1}"#).is_err());
}
