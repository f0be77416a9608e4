//! Whom the daemon remembers, so that they connect sooner: who proved a key and is let in, until the rules change.

use raystream::{
    auth::{Access, AccessConfig, RoleConfig},
    client::{Client, Options},
    noise::{StaticSecret, aws_lc},
    server::{Daemon, Setup, config::Config},
};
use std::{collections::BTreeMap, time::Duration};

use super::support::PATIENCE;

fn access(key: &StaticSecret) -> Access {
    let role = RoleConfig { methods: vec!["sys.echo".to_owned()], ..RoleConfig::default() };
    let config = AccessConfig {
        anonymous: vec!["echo".to_owned()],
        keys: BTreeMap::from([(key.public_key(aws_lc()).to_string(), vec!["echo".to_owned()])]),
        roles: BTreeMap::from([("echo".to_owned(), role)]),
    };
    Access::compile(&config).unwrap()
}

/// Connects, calls once and leaves; whether the call was answered.
async fn visit(url: &str, key: Option<&StaticSecret>) -> bool {
    let mut options = Options::default();
    options.identity = key.cloned();
    options.reconnect = None;
    let Ok(client) = Client::connect(url, options).await else { return false };
    let answered = client.call("sys.echo", &serde_json::json!({"n": 7})).await.is_ok();
    client.close().await;
    answered
}

#[tokio::test]
async fn only_who_is_let_in_is_remembered_and_only_until_the_rules_change() {
    let folder = tempfile::tempdir().unwrap();
    let [identity, granted, stranger] = [1, 2, 3].map(|byte| StaticSecret::from_bytes([byte; 32]));
    let watched = identity.clone();
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data: folder.path().to_owned(),
        ..Config::default()
    };
    let setup = Setup {
        config,
        access: access(&granted),
        identities: vec![identity],
        psk: None,
        create_tables: true,
    };
    let daemon = Daemon::start(setup).await.unwrap();
    let (url, rules) = (daemon.url(), daemon.access());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(daemon.run(async {
        let _ = stopped.await;
    }));

    assert!(visit(&url, None).await);
    assert!(!visit(&url, Some(&stranger)).await);
    assert_eq!(watched.peers_remembered(), 0, "neither has a key that is let in");
    for _ in 0..3 {
        assert!(visit(&url, Some(&granted)).await);
        assert_eq!(watched.peers_remembered(), 1);
    }

    rules.replace(access(&stranger));
    tokio::time::timeout(PATIENCE, async {
        while watched.peers_remembered() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("new rules make it forget");
    assert!(!visit(&url, Some(&granted)).await);
    assert_eq!(watched.peers_remembered(), 0);
    assert!(visit(&url, Some(&stranger)).await);
    assert_eq!(watched.peers_remembered(), 1);

    stop.send(()).unwrap();
    running.await.unwrap();
}
