//! The `[access]` section and its compiled form.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Principal;
use crate::noise::PublicKey;

/// The `[access]` section as it is written.
///
/// ```toml
/// [access]
/// anonymous = ["visitor"]                       # roles of peers without a key; none: they are not let in
///
/// [access.keys]
/// "4f1c..." = ["app"]                           # 64 lower-case hexadecimal digits = roles
///
/// [access.roles.visitor]
/// methods = ["sys.echo", "table.get"]
/// tables = { news = ["read"] }
///
/// [access.roles.app]
/// methods = ["table.*", "topic.publish"]        # a star only at the end
/// tables = { "*" = ["read"], orders = ["read", "write"] }
/// topics = { "orders.created" = ["publish", "subscribe"] }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessConfig {
    /// Roles of peers that prove no key.
    pub anonymous: Vec<String>,
    /// Public key (64 hexadecimal digits) to roles.
    pub keys: BTreeMap<String, Vec<String>>,
    /// Name to role.
    pub roles: BTreeMap<String, RoleConfig>,
}

/// What one role grants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoleConfig {
    /// Methods: exact names, or a prefix followed by `*`.
    pub methods: Vec<String>,
    /// Table name, or `*` for every table, to rights. `read` also covers subscriptions.
    pub tables: BTreeMap<String, Vec<TableRight>>,
    /// Topic name, or `*` for every topic, to rights. Who publishes needs the method `topic.publish` too.
    pub topics: BTreeMap<String, Vec<TopicRight>>,
}

/// What may be done to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableRight {
    /// See its documents and their changes.
    Read,
    /// Change its documents.
    Write,
    /// Change what its documents have to look like.
    Manage,
}

impl fmt::Display for TableRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Manage => "manage",
        })
    }
}

/// What may be done with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TopicRight {
    /// Put events into it.
    Publish,
    /// See its events.
    Subscribe,
}

impl fmt::Display for TopicRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
        })
    }
}

/// Something in the section that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", path.join("."))]
pub struct AccessFault {
    /// Where it stands, for instance `access`, `roles`, `app`, `methods`.
    pub path: Vec<String>,
    /// What is wrong.
    pub message: String,
}

/// Who may do what: compiled once, then only read.
#[derive(Debug, Clone, Default)]
pub struct Access {
    everything: bool,
    anonymous: Option<Arc<Grant>>,
    keys: HashMap<PublicKey, Arc<Grant>>,
}

impl Access {
    /// Grants nothing to anybody.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Grants everything to everybody who knows the server's address. Only for development.
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// Checks and compiles the section. All faults are reported, not only the first.
    pub fn compile(config: &AccessConfig) -> Result<Self, Vec<AccessFault>> {
        let mut faults = Vec::new();
        for (name, role) in &config.roles {
            check_role(name, role, &mut faults);
        }
        let anonymous = grant(config, &["access", "anonymous"], &config.anonymous, &mut faults);
        let mut keys = HashMap::new();
        for (text, roles) in &config.keys {
            let path = ["access", "keys", text];
            let granted = grant(config, &path, roles, &mut faults);
            match text.parse::<PublicKey>() {
                Ok(key) => {
                    keys.insert(key, granted);
                }
                Err(_) => faults.push(fault(
                    &path,
                    "a public key is 64 lower-case hexadecimal digits, as `raystream pubkey FILE` prints it"
                        .to_owned(),
                )),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let keys = keys.into_iter().filter_map(|(key, grant)| Some((key, grant?))).collect();
        Ok(Self { everything: false, anonymous, keys })
    }

    /// Whether nobody at all is let in, which an operator wants to be told.
    pub fn is_empty(&self) -> bool {
        !self.everything && self.anonymous.is_none() && self.keys.is_empty()
    }

    /// Whether everything is granted to everybody.
    pub fn is_open(&self) -> bool {
        self.everything
    }

    pub(super) fn lets_in(&self, principal: &Principal) -> bool {
        self.everything || self.grant_of(principal).is_some()
    }

    pub(super) fn may_call(&self, principal: &Principal, method: &str) -> bool {
        self.everything || self.grant_of(principal).is_some_and(|grant| grant.allows_method(method))
    }

    pub(super) fn may_use(&self, principal: &Principal, table: &str, right: TableRight) -> bool {
        self.everything || self.grant_of(principal).is_some_and(|grant| grant.tables.allow(table, right))
    }

    pub(super) fn may_use_topic(&self, principal: &Principal, topic: &str, right: TopicRight) -> bool {
        self.everything || self.grant_of(principal).is_some_and(|grant| grant.topics.allow(topic, right))
    }

    /// A key that is named nowhere is not anonymous: it gets nothing.
    fn grant_of(&self, principal: &Principal) -> Option<&Grant> {
        match principal.key() {
            Some(key) => self.keys.get(&key),
            None => self.anonymous.as_ref(),
        }
        .map(AsRef::as_ref)
    }
}

/// The union of somebody's roles.
#[derive(Debug, Default)]
struct Grant {
    methods: HashSet<Box<str>>,
    /// What stood before a `*`; the empty prefix is every method.
    prefixes: Vec<Box<str>>,
    tables: NamedRights<TableRight>,
    topics: NamedRights<TopicRight>,
}

/// Rights by the name of what they are for.
#[derive(Debug)]
struct NamedRights<R> {
    named: HashMap<Box<str>, Vec<R>>,
    /// Those for every name.
    every: Vec<R>,
}

impl<R> Default for NamedRights<R> {
    fn default() -> Self {
        Self { named: HashMap::new(), every: Vec::new() }
    }
}

impl<R: Copy + PartialEq> NamedRights<R> {
    fn add(&mut self, granted: &BTreeMap<String, Vec<R>>) {
        for (name, rights) in granted {
            match name.as_str() {
                "*" => self.every.extend(rights),
                name => self.named.entry(name.into()).or_default().extend(rights),
            }
        }
    }

    fn allow(&self, name: &str, right: R) -> bool {
        self.every.contains(&right) || self.named.get(name).is_some_and(|rights| rights.contains(&right))
    }
}

impl Grant {
    fn add(&mut self, role: &RoleConfig) {
        for pattern in &role.methods {
            match pattern.strip_suffix('*') {
                Some(prefix) => self.prefixes.push(prefix.into()),
                None => {
                    self.methods.insert(pattern.as_str().into());
                }
            }
        }
        self.tables.add(&role.tables);
        self.topics.add(&role.topics);
    }

    fn allows_method(&self, method: &str) -> bool {
        self.methods.contains(method) || self.prefixes.iter().any(|prefix| method.starts_with(&**prefix))
    }
}

/// The union of `roles`, or nothing when there is none.
fn grant(
    config: &AccessConfig,
    path: &[&str],
    roles: &[String],
    faults: &mut Vec<AccessFault>,
) -> Option<Arc<Grant>> {
    let mut granted = Grant::default();
    for name in roles {
        match config.roles.get(name) {
            Some(role) => granted.add(role),
            None => faults.push(fault(path, format!("there is no role `{name}` in [access.roles]"))),
        }
    }
    (!roles.is_empty()).then(|| Arc::new(granted))
}

fn check_role(name: &str, role: &RoleConfig, faults: &mut Vec<AccessFault>) {
    for pattern in &role.methods {
        let literal = pattern.strip_suffix('*').unwrap_or(pattern);
        let well_formed = !pattern.is_empty()
            && literal.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        if !well_formed {
            faults.push(fault(
                &["access", "roles", name, "methods"],
                format!("`{pattern}` is neither a method's name nor a prefix with one `*` at its end"),
            ));
        }
    }
}

fn fault(path: &[&str], message: String) -> AccessFault {
    AccessFault { path: path.iter().map(|part| (*part).to_owned()).collect(), message }
}
