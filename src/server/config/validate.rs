//! Values that have the right type and still cannot be meant.

use tracing_subscriber::EnvFilter;

use super::fault::{Fault, nearest};
use super::load::Places;
use super::quantity::Period;
use super::sections::{Config, needs_psk};
use crate::auth::Access;
use crate::store::endpoint::{Address, AddressError};
use crate::store::{StoreError, TableName, TopicName};
use crate::wire::registry::Suite;

/// Less could not hold one record of the largest size beside the one that is being written.
const OUTBOUND_MIN: u64 = 128 << 10;
/// The longest period in the handshake's answer, which has 32 bits for milliseconds.
const WIRE_PERIOD_MAX: u64 = u32::MAX as u64;

/// What the checks found.
#[derive(Default)]
pub(super) struct Judgement {
    pub(super) access: Option<Access>,
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<Fault>,
}

/// Checks everything that a type cannot express.
pub(super) fn validate(config: &Config, places: &Places<'_>) -> Judgement {
    let mut checks = Checks { places, judgement: Judgement::default() };
    checks.limits(config);
    checks.database(config);
    checks.suites(config);
    checks.origins(config);
    checks.log(config);
    checks.access(config);
    checks.judgement
}

struct Checks<'a> {
    places: &'a Places<'a>,
    judgement: Judgement,
}

impl Checks<'_> {
    fn fault_at(&mut self, path: &[String], message: impl Into<String>, hint: Option<String>) {
        let fault = Fault { key: path.join("."), place: self.places.of(path), message: message.into(), hint };
        self.judgement.faults.push(fault);
    }

    fn fault(&mut self, key: &str, message: impl Into<String>) {
        self.fault_at(&parts(key), message, None);
    }

    fn require(&mut self, key: &str, sound: bool, message: &str) {
        if !sound {
            self.fault(key, message);
        }
    }

    fn limits(&mut self, config: &Config) {
        let limits = &config.limits;
        for (name, value) in [
            ("connections", u64::from(limits.connections)),
            ("half_open", u64::from(limits.half_open)),
            ("half_open_per_ip", u64::from(limits.half_open_per_ip)),
            ("handshakes_per_ip_per_second", u64::from(limits.handshakes_per_ip_per_second)),
            ("handshakes_per_ip_burst", u64::from(limits.handshakes_per_ip_burst)),
            ("calls_per_connection", u64::from(limits.calls_per_connection)),
            ("subscriptions_per_connection", u64::from(limits.subscriptions_per_connection)),
            ("subscriptions", u64::from(limits.subscriptions)),
            ("transactions", u64::from(limits.transactions)),
            ("transactions_per_connection", u64::from(limits.transactions_per_connection)),
        ] {
            self.require(&format!("limits.{name}"), value > 0, "has to be at least 1");
        }
        for (name, period) in [
            ("transaction_idle", limits.transaction_idle),
            ("transaction_time", limits.transaction_time),
            ("handshake_deadline", limits.handshake_deadline),
            ("heartbeat", limits.heartbeat),
            ("idle_timeout", limits.idle_timeout),
            ("key_age", limits.key_age),
            ("write_deadline", limits.write_deadline),
            ("call_deadline", limits.call_deadline),
            ("stream_deadline", limits.stream_deadline),
            ("drain", limits.drain),
        ] {
            self.period(&format!("limits.{name}"), period);
        }
        self.require(
            "limits.heartbeat",
            limits.heartbeat < limits.idle_timeout,
            "has to be shorter than limits.idle_timeout, or every quiet connection dies",
        );
        self.require("limits.outbound", limits.outbound.get() >= OUTBOUND_MIN, "has to be at least 128KiB");
    }

    fn period(&mut self, key: &str, period: Period) {
        self.require(key, period.as_millis() > 0, "has to be longer than nothing");
        self.require(key, period.as_millis() <= WIRE_PERIOD_MAX, "is longer than 49 days");
    }

    fn database(&mut self, config: &Config) {
        let database = &config.database;
        self.require("database.read_connections", database.read_connections > 0, "has to be at least 1");
        self.require("database.write_connections", database.write_connections > 0, "has to be at least 1");
        let transactions = database.transaction_connections > 0;
        self.require("database.transaction_connections", transactions, "has to be at least 1");
        self.require("database.waiting_statements", database.waiting_statements > 0, "has to be at least 1");
        self.period("database.statement_timeout", database.statement_timeout);
        self.period("database.lock_timeout", database.lock_timeout);
        self.require(
            "feed.retention",
            config.feed.retention.as_millis() > 0,
            "has to be longer than nothing",
        );
        self.require("feed.retention_size", config.feed.retention_size.get() > 0, "has to be at least 1");
        let Some(url) = &database.url else {
            for (key, is_set) in [
                ("database.sslmode", database.sslmode.is_some()),
                ("database.sslrootcert", database.sslrootcert.is_some()),
                ("database.sslcert", database.sslcert.is_some()),
                ("database.sslkey", database.sslkey.is_some()),
            ] {
                self.require(key, !is_set, "is for database.url, which is not set");
            }
            return;
        };
        if let Err(error) = Address::parse(url, &database.tls()) {
            let key = match &error {
                AddressError::HalfAPair if database.sslcert.is_some() => "database.sslcert",
                AddressError::HalfAPair if database.sslkey.is_some() => "database.sslkey",
                AddressError::WeakForSystemRoots { .. } if database.sslmode.is_some() => "database.sslmode",
                _ => "database.url",
            };
            self.fault_at(&parts(key), error.to_string(), error.hint().map(str::to_owned));
        }
    }

    fn suites(&mut self, config: &Config) {
        let Some(allowed) = &config.suites.allowed else { return };
        let path = parts("suites.allowed");
        if allowed.is_empty() {
            self.fault_at(&path, "without a suite nobody can connect", None);
        }
        for name in allowed {
            let names = || Suite::ALL.iter().filter_map(|suite| suite.name());
            match Suite::ALL.iter().find(|suite| suite.name() == Some(name)) {
                None => {
                    let hint = nearest(name, names()).map_or_else(
                        || format!("there are {}", names().collect::<Vec<_>>().join(", ")),
                        |name| format!("did you mean `{name}`?"),
                    );
                    self.fault_at(&path, format!("there is no suite `{name}`"), Some(hint));
                }
                Some(suite) if needs_psk(*suite) && config.identity.psk_file.is_none() => {
                    let hint = Some("set identity.psk_file".to_owned());
                    self.fault_at(&path, format!("`{name}` needs a pre-shared key"), hint);
                }
                Some(_) => {}
            }
        }
    }

    fn origins(&mut self, config: &Config) {
        for origin in &config.websocket.origins {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            if !host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@', '*', ' '])) {
                let message = format!("`{origin}` is no origin");
                let hint = Some("an origin is https://host or https://host:port, without a path".to_owned());
                self.fault_at(&parts("websocket.origins"), message, hint);
            }
        }
    }

    fn log(&mut self, config: &Config) {
        if let Err(error) = EnvFilter::try_new(&config.log.level) {
            let hint = "error, warn, info, debug, trace, or a filter such as info,raystream::conn=debug";
            self.fault_at(&parts("log.level"), format!("is no log level: {error}"), Some(hint.to_owned()));
        }
    }

    fn access(&mut self, config: &Config) {
        for (role, granted) in &config.access.roles {
            let mut check = |section: &str, name: &str, error: StoreError, all: &str| {
                let path = ["access", "roles", role, section, name].map(str::to_owned);
                self.fault_at(&path, error.to_string(), Some(format!("`*` alone stands for every {all}")));
            };
            for table in granted.tables.keys().filter(|table| *table != "*") {
                if let Err(error) = TableName::parse(table) {
                    check("tables", table, error, "table");
                }
            }
            for topic in granted.topics.keys().filter(|topic| *topic != "*") {
                if let Err(error) = TopicName::parse(topic) {
                    check("topics", topic, error, "topic");
                }
            }
        }
        match Access::compile(&config.access) {
            Ok(access) => {
                if access.is_empty() {
                    self.judgement.warnings.push(Fault {
                        key: "access".to_owned(),
                        place: self.places.of(&parts("access")),
                        message: "nobody is granted anything, so nobody is let in".to_owned(),
                        hint: Some("name roles, and keys or the anonymous that have them".to_owned()),
                    });
                }
                self.judgement.access = Some(access);
            }
            Err(faults) => {
                for fault in faults {
                    self.fault_at(&fault.path, fault.message, None);
                }
            }
        }
    }
}

fn parts(key: &str) -> Vec<String> {
    key.split('.').map(str::to_owned).collect()
}
