//! The sample receiver of the documentation, run as it stands there.

use std::io::Write;
use std::process::{Command, Stdio};

use raystream::webhook::Secret;

/// The lines of the sample between its fences.
fn sample() -> String {
    let path = [env!("CARGO_MANIFEST_DIR"), "docs", "webhooks.md"].iter().collect::<std::path::PathBuf>();
    let page = std::fs::read_to_string(path).unwrap();
    let (_, rest) = page.split_once("```python\n").expect("there is a sample");
    rest.split_once("```").expect("it ends").0.to_owned()
}

#[test]
fn the_sample_verifies_what_is_sent_and_refuses_the_rest() {
    if Command::new("python3").arg("--version").output().is_err() {
        println!("SKIPPED: there is no python3 to run the sample with");
        return;
    }
    let secret = Secret::from_bytes(&[9; 32]).unwrap();
    let body = r#"{"type":"insert","id":"ä","new":1.50}"#;
    let (id, now) = ("wh_1_2", 1_700_000_000);
    let signature = secret.sign(id, now, body.as_bytes());
    let check = |id: &str, sent: u64, signature: &str, body: &str, clock: u64| {
        let call = format!(
            "{}\nimport sys\ntime.time = lambda: {clock}\n\
             print(verify({:?}, {{'webhook-id': {id:?}, 'webhook-timestamp': '{sent}', 'webhook-signature': {signature:?}}}, \
             sys.stdin.buffer.read()))\n",
            sample(),
            secret.expose().as_str(),
        );
        let mut child = Command::new("python3")
            .args(["-c", &call])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{err}");
        out.trim().to_owned()
    };
    assert_eq!(check(id, now, &signature, body, now), "True");
    assert_eq!(check(id, now, &format!("v1,AAAA {signature}"), body, now + 299), "True");
    assert_eq!(check(id, now, &signature, body, now + 301), "False");
    assert_eq!(check("wh_1_3", now, &signature, body, now), "False");
    assert_eq!(check(id, now, &signature, "{}", now), "False");
    assert_eq!(check(id, now, "v1,AAAA", body, now), "False");
}
