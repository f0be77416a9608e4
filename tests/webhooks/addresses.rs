//! Addresses that nothing is sent to.

use serde_json::json;

use crate::commands::{add, done, set, until_shown};
use crate::receiver::Receiver;
use crate::server::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_of_an_inner_address_is_refused_when_it_is_connected_to() {
    // This daemon allows nothing, whatever the command line thought.
    let server = Server::start().await;
    let client = server.client(1).await;
    let receiver = Receiver::start().await;
    let mut ids = Vec::new();
    for url in [
        format!("http://localhost:{}/", receiver.port),
        format!("https://localhost:{}/", receiver.port),
        receiver.url(),
    ] {
        ids.push(add(&server, &url, &["--attempts", "1"]).0);
    }
    set(&client, "a", json!(1)).await;
    for id in &ids {
        until_shown("it is given up", &server, id, |shown| shown["dead"] == 1).await;
        let dead = done(&server, &["dead", id]);
        assert!(
            dead[0]["error"].as_str().unwrap().contains("not an address of the public internet"),
            "{dead:?}"
        );
    }
    assert!(receiver.received().is_empty());
}
