//! The configuration: precedence, faults with their places, the printed form.
#![cfg(feature = "server")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use raystream::server::config::{Config, ConfigFile, Fault, Flag, Loaded, Sources, load, to_json, to_toml};
use raystream::wire::registry::Suite;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn file(&self, text: &str) -> PathBuf {
        let path = self.0.path().join("raystream.toml");
        std::fs::write(&path, text).expect("the folder is writable");
        path
    }
}

fn from(file: &Path, environment: &[(&str, &str)], flags: &[(&'static str, &'static str, &str)]) -> Sources {
    Sources {
        file: ConfigFile::Named(file.to_owned()),
        environment: environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        flags: flags
            .iter()
            .map(|(name, key, value)| Flag { name, key, value: (*value).to_owned() })
            .collect(),
    }
}

fn file_only(text: &str) -> Result<Loaded, Vec<Fault>> {
    load(&from(&Folder::new().file(text), &[], &[]))
}

fn faults(text: &str) -> Vec<String> {
    let folder = Folder::new();
    let path = folder.file(text);
    let faults = load(&from(&path, &[], &[])).expect_err("it has faults");
    // Only the file's name: its folder is another one each time.
    let prefix = format!("{}/", folder.0.path().display());
    faults.iter().map(|fault| fault.to_string().replace(&prefix, "")).collect()
}

#[test]
fn the_later_source_wins_and_is_named() {
    let folder = Folder::new();
    let file =
        folder.file("listen = '127.0.0.1:1'\ndata = 'from-file'\n[limits]\nconnections = 5\ndrain = '1s'\n");
    let environment = [
        ("RAYSTREAM_DATA", "2024"),
        ("RAYSTREAM_LIMITS__DRAIN", "2s"),
        ("RAYSTREAM_LIMITS__HALF_OPEN_PER_IP", "7"),
        ("RAYSTREAM_DATABASE__UNSAFE_DURABILITY", "true"),
        ("RAYSTREAM_DATABASE__URL", "postgres://u:12345@h/db"),
        ("RAYSTREAM_SUITES__ALLOWED", "[\"NK_ChaChaPoly\"]"),
        ("RAYSTREAM_PG_BIN", "/usr/lib/postgresql/15/bin"),
        ("RAYSTREAM_CONFIG", "ignored"),
        ("OTHER_LISTEN", "x"),
    ];
    let loaded = load(&from(&file, &environment, &[("--listen", "listen", "[::1]:3")])).expect("sound");
    let config = &loaded.config;
    assert_eq!(config.listen.to_string(), "[::1]:3");
    assert_eq!(config.data, PathBuf::from("2024"), "a number is a fine name for a folder");
    assert_eq!((config.limits.connections, config.limits.half_open_per_ip), (5, 7));
    assert_eq!(config.limits.drain.get(), Duration::from_secs(2));
    assert!(config.database.unsafe_durability);
    assert_eq!(config.database.url.as_deref(), Some("postgres://u:12345@h/db"));
    assert_eq!(config.allowed_suites(), [Suite::NK_CHACHAPOLY]);
    assert_eq!(config.limits.half_open, Config::default().limits.half_open);
    let source = |key: &str| loaded.sources.get(key).map(String::as_str);
    assert_eq!(source("listen"), Some("flag --listen"));
    assert_eq!(source("data"), Some("environment variable RAYSTREAM_DATA"));
    assert_eq!(source("limits.connections"), file.to_str());
    assert_eq!(source("limits.half_open"), None);
}

#[test]
fn no_file_is_needed_and_a_named_one_has_to_exist() {
    let nothing = Sources { file: ConfigFile::None, ..Sources::default() };
    let loaded = load(&nothing).expect("the defaults are sound");
    assert_eq!(loaded.config, Config::default());
    assert!(loaded.sources.is_empty());
    assert!(loaded.access.is_empty());
    let warning = loaded.warnings.first().expect("nobody is let in").to_string();
    assert!(warning.contains("nobody is let in"), "{warning}");
    let missing =
        load(&from(Path::new("no-such-folder/raystream.toml"), &[], &[])).expect_err("it is missing");
    assert_eq!(missing.len(), 1);
    assert!(
        missing[0].to_string().starts_with("no-such-folder/raystream.toml: cannot be read"),
        "{}",
        missing[0]
    );
}

#[test]
fn unknown_keys_are_refused_with_line_and_nearest_name() {
    assert_eq!(
        faults(
            "listne = 'x'\n\n[limits]\nconections = 5\n[access.roles.app]\nmethod = []\n[colours]\na = 1\n"
        ),
        [
            "raystream.toml:1: listne: there is no such key (did you mean `listen`?)",
            "raystream.toml:4: limits.conections: there is no such key (did you mean `limits.connections`?)",
            "raystream.toml:6: access.roles.app.method: there is no such key (did you mean `access.roles.app.methods`?)",
            "raystream.toml:7: colours: there is no such key",
        ],
    );
}

#[test]
fn unknown_variables_are_refused_unless_an_orchestrator_may_have_put_them_there() {
    let folder = Folder::new();
    let file = folder.file("");
    let faults = load(&from(&file, &[("RAYSTREAM_LIMITS__CONECTIONS", "5")], &[])).expect_err("misspelt");
    assert_eq!(
        faults[0].to_string(),
        "environment variable RAYSTREAM_LIMITS__CONECTIONS: limits.conections: there is no such key \
         (did you mean `limits.connections`?)"
    );
    let loaded = load(&from(&file, &[("RAYSTREAM_PORT", "tcp://10.0.0.1:7410")], &[])).expect("tolerated");
    assert!(loaded.warnings.iter().any(|warning| warning.place.contains("RAYSTREAM_PORT")));
}

#[test]
fn every_wrong_value_is_found_in_one_run() {
    let found = faults(
        "listen = 'nowhere'\n[limits]\nconnections = 'many'\ncalls_per_connection = 70000\nhandshake_deadline = 3\n\
         heartbeat = '50s'\nhalf_open = 0\n[log]\nformat = 'xml'\nlevel = 'a=b=c'\n[suites]\nallowed = ['NK_ChaCha']\n\
         [websocket]\norigins = ['app.example.com']\n[database]\nurl = 'host'\n[access]\nanonymous = ['ghost']\n\
         [access.roles.r.tables]\n'a\"b' = ['read']\n[access.roles.r.topics]\n'a.*' = ['publish']\n'a.b' = []\n",
    );
    for expected in [
        "raystream.toml:1: listen: ",
        "raystream.toml:3: limits.connections: ",
        "raystream.toml:4: limits.calls_per_connection: ",
        "raystream.toml:5: limits.handshake_deadline: ",
        "raystream.toml:6: limits.heartbeat: has to be shorter than limits.idle_timeout",
        "raystream.toml:7: limits.half_open: has to be at least 1",
        "raystream.toml:9: log.format: ",
        "raystream.toml:10: log.level: is no log level",
        "raystream.toml:12: suites.allowed: there is no suite `NK_ChaCha` (did you mean `NK_ChaChaPoly`?)",
        "raystream.toml:14: websocket.origins: `app.example.com` is no origin",
        "raystream.toml:16: database.url: cannot be read as a Postgres URL",
        "raystream.toml:18: access.anonymous: there is no role `ghost`",
        "raystream.toml:20: access.roles.r.tables.a\"b: ",
        "raystream.toml:22: access.roles.r.topics.a.*: a topic's name is 1 to 128 letters",
    ] {
        assert!(found.iter().any(|fault| fault.starts_with(expected)), "{expected} is not in {found:#?}");
    }
    assert_eq!(found.len(), 14, "{found:#?}");
}

#[test]
fn what_is_said_about_tls_to_postgres_makes_sense_or_is_refused_without_the_password() {
    let url = "url = 'postgres://ann:s3cret@db/app'";
    for (section, expected) in [
        ("sslmode = 'verify-full'".to_owned(), "raystream.toml:2: database.sslmode: is for database.url"),
        (
            format!("{url}\nsslmode = 'verify-ca'"),
            "raystream.toml:3: database.sslmode: sslmode=verify-ca is too weak",
        ),
        (
            format!("{url}\nsslcert = 'c.pem'"),
            "raystream.toml:3: database.sslcert: sslcert and sslkey belong together",
        ),
        (format!("{url}\nsslmode = 'allow'"), "raystream.toml:3: database.sslmode: "),
        (
            "url = 'postgres://ann:s3cret@db/app?sslmode=require'\nsslmode = 'verify-full'".to_owned(),
            "raystream.toml:2: database.url: sslmode is in the URL and in the configuration",
        ),
        (
            "url = 'postgres://ann:s3cret@db/app?sslcrl=x'".to_owned(),
            "raystream.toml:2: database.url: the parameter sslcrl is not supported",
        ),
    ] {
        let found = faults(&format!("[database]\n{section}\n"));
        assert!(found.len() == 1 && found[0].starts_with(expected), "{section}: {found:?}");
        assert!(!found[0].contains("s3cret"), "{found:?}");
    }
    let beside = format!("[database]\n{url}\nsslmode = 'verify-ca'\nsslrootcert = 'ca.pem'\n");
    let database = file_only(&beside).expect("sound").config.database;
    assert_eq!(database.sslmode, Some(raystream::store::endpoint::SslMode::VerifyCa));
}

#[test]
fn ranges_that_webhooks_may_reach_are_ranges() {
    for wrong in ["10.1.2.3/8", "10.0.0.0/33", "localhost", ""] {
        let found = faults(&format!("[webhooks]\nallow_private = ['127.0.0.1', '{wrong}']\n"));
        assert!(found.len() == 1 && found[0].contains("is no range of addresses"), "{wrong}: {found:?}");
        assert!(found[0].starts_with("raystream.toml:2: webhooks.allow_private"), "{found:?}");
    }
    let address = |text: &str| text.parse().expect("an address");
    let networks = file_only("").expect("sound").config.webhooks.allow_private;
    assert!(!networks.allow(address("127.0.0.1")), "nothing is allowed unless it is named");
    let file = Folder::new().file("");
    let environment = [("RAYSTREAM_WEBHOOKS__ALLOW_PRIVATE", "[\"127.0.0.1\", \"10.1.0.0/16\"]")];
    let missing = Sources { file: ConfigFile::None, ..from(&file, &environment, &[]) };
    let networks = load(&missing).expect("sound").config.webhooks.allow_private;
    assert!(networks.allow(address("10.1.2.3")) && !networks.allow(address("10.2.0.0")));
}

#[test]
fn a_file_that_is_no_toml_is_refused_with_its_line() {
    let found = faults("[limits]\nconnections = = 5\n");
    assert!(found[0].starts_with("raystream.toml:2: "), "{found:?}");
}

#[test]
fn suites_with_a_shared_key_are_offered_only_when_there_is_one() {
    let without = file_only("").expect("sound").config.allowed_suites();
    assert!(without.contains(&Suite::IK_AESGCM) && !without.contains(&Suite::IKPSK2_AESGCM));
    let with = file_only("[identity]\npsk_file = 'psk'").expect("sound").config.allowed_suites();
    assert_eq!(with, Suite::ALL);
    let found = faults("[suites]\nallowed = ['NKpsk2_AESGCM']");
    assert!(found[0].contains("needs a pre-shared key"), "{found:?}");
    assert!(faults("[suites]\nallowed = []")[0].contains("nobody can connect"));
}

const FULL: &str = r#"
listen = "127.0.0.1:9"
[database]
url = "postgres://ann:s3cret@db/app"
[suites]
allowed = ["IK_ChaChaPoly"]
[limits]
outbound = "2MiB"
[webhooks]
allow_private = ["10.1.0.0/16", "fd00:1::/32"]
ca_file = "ca.pem"
[access]
anonymous = ["visitor"]
[access.keys]
1111111111111111111111111111111111111111111111111111111111111111 = ["app"]
[access.roles.visitor]
methods = ["sys.*"]
[access.roles.app]
methods = ["*"]
tables = { "*" = ["read"], orders = ["read", "write"] }
topics = { "orders.made" = ["publish"], "*" = ["subscribe"] }
"#;

#[test]
fn what_is_printed_is_the_same_configuration_again_without_the_password() {
    let loaded = file_only(FULL).expect("sound");
    let printed = to_toml(&loaded);
    assert!(!printed.contains("s3cret"), "{printed}");
    assert!(!to_json(&loaded).to_string().contains("s3cret"));
    assert!(printed.contains("url = \"postgres://ann:***@db/app\"  # "), "{printed}");
    let again = file_only(&printed).expect("what is printed can be read");
    let mut expected = loaded.config.clone();
    expected.database.url = Some("postgres://ann:***@db/app".to_owned());
    assert_eq!(again.config, expected);
}

#[test]
fn each_printed_value_says_where_it_comes_from() {
    let folder = Folder::new();
    let file = folder.file("[limits]\nconnections = 5\n");
    let environment = [("RAYSTREAM_LIMITS__DRAIN", "2s")];
    let loaded = load(&from(&file, &environment, &[("--listen", "listen", "127.0.0.1:3")])).expect("sound");
    let printed = to_toml(&loaded);
    for line in [
        "listen = \"127.0.0.1:3\"  # flag --listen".to_owned(),
        "drain = \"2s\"  # environment variable RAYSTREAM_LIMITS__DRAIN".to_owned(),
        format!("connections = 5  # {}", file.display()),
        "half_open = 1024  # default".to_owned(),
        "anonymous = []  # default".to_owned(),
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line} is not in\n{printed}");
    }
    let json = to_json(&loaded);
    assert_eq!(json["config"]["limits"]["drain"], "2s");
    assert_eq!(json["sources"]["listen"], "flag --listen");
}
