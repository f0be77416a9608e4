//! No secret is ever logged, however much is logged.

use super::support::{RAYSTREAM, TestDaemon};
use raystream::{
    client::{Client, Options},
    noise::StaticSecret,
};
use serde_json::json;
use std::process::Command;

#[tokio::test]
async fn a_whole_session_at_trace_logs_no_secret() {
    let mut command = Command::new(RAYSTREAM);
    command.arg("-vv");
    let daemon = TestDaemon::start_with(command);
    let mut options = Options::default();
    let identity = [0xA7; 32];
    options.identity = Some(StaticSecret::from_bytes(identity));
    let client = Client::connect(&daemon.url, options).await.expect("the daemon is there");
    let document = json!({"table": "t", "id": "1", "data": {"password": "correct horse"}});
    client.call("table.set", &document).await.expect("written");
    client.call("table.get", &json!({"table": "t", "id": "1"})).await.expect("read");
    client.close().await;

    let key_file = std::fs::read_to_string(daemon.data().join("raystream.key")).expect("the key file");
    let secret = key_file.lines().find(|line| !line.starts_with('#')).expect("the line of the secret");
    let bytes: Vec<u8> =
        (0..32).map(|at| u8::from_str_radix(&secret[2 * at..2 * at + 2], 16).expect("hex")).collect();
    let log = daemon.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "everything is logged:\n{log}");
    for hidden in [&bytes[..], &identity[..]] {
        let hex: String = hidden.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!log.to_lowercase().contains(&hex), "a secret in hexadecimal");
        let listed = hidden.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        assert!(!log.contains(&listed), "a secret as a list of numbers");
        // Whatever the alphabet and the alignment, the middle of the base64 text is one of these.
        for skipped in 0..3 {
            let middle = base64(&hidden[skipped..skipped + 27]);
            assert!(!log.contains(&middle) && !log.contains(&middle.replace('+', "-").replace('/', "_")));
        }
    }
    assert!(!log.contains("correct horse"), "documents are not logged either");
}

/// Base64 of a multiple of three bytes, so without padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |group: &[u8]| {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(ALPHABET[usize::try_from(bits >> shift & 63).expect("6 bits")]))
    };
    bytes.chunks_exact(3).flat_map(group).collect()
}
