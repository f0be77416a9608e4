//! The promise of the project, from the command line: a subscriber that runs through a `kill -9` of the daemon, or of
//! its Postgres, has every id that was written, once, in commit order.
use super::support::{PATIENCE, RAYSTREAM, TestDaemon, raystream};
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
};

/// A running `raystream sub`, its lines read as they come.
struct Subscriber {
    child: Child,
    lines: Receiver<serde_json::Value>,
}

impl Subscriber {
    fn start(url: &str, table: &str, more: &[&str]) -> Self {
        let mut child = Command::new(RAYSTREAM)
            .args(["sub", url, table])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).expect("one JSON object a line");
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    fn next(&self) -> serde_json::Value {
        self.lines.recv_timeout(PATIENCE).expect("the next line comes")
    }

    /// The ids of the next `count` events, in order.
    fn ids(&self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        while ids.len() < count {
            let line = self.next();
            assert_ne!(line["type"], "reset", "nothing was missed, so nothing is reset");
            if line["type"] == "event" {
                ids.push(line["id"].as_str().expect("an id").to_owned());
            }
        }
        ids
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _may_be_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Writes one document, again and again until it is known to be there.
fn write(url: &str, table: &str, id: &str) {
    let args = format!(r#"{{"table":"{table}","id":"{id}","data":{{"n":"{id}"}},"if_version":0}}"#);
    for _ in 0..600 {
        let (status, _, err) = raystream(&["call", url, "table.set", &args]);
        // CONFLICT: an earlier try was cut off after it was written.
        if status == Some(0) || err.starts_with("CONFLICT: ") {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("{id} could not be written");
}

fn ids(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("id-{n:04}")).collect()
}

fn survives(harm: impl Fn(&mut TestDaemon)) {
    let mut daemon = TestDaemon::start();
    let url = daemon.url.clone();
    write(&url, "orders", "first");
    let subscriber = Subscriber::start(&url, "orders", &[]);
    assert_eq!(subscriber.next()["type"], "snapshot");
    assert_eq!(subscriber.next()["type"], "snapshot_end");

    let written = ids(0..60);
    let (before, rest) = written.split_at(20);
    before.iter().for_each(|id| write(&url, "orders", id));
    let (during, after) = rest.split_at(20);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| during.iter().for_each(|id| write(&url, "orders", id)));
        harm(&mut daemon);
        writer.join().expect("every write is done at last");
    });
    after.iter().for_each(|id| write(&url, "orders", id));
    assert_eq!(subscriber.ids(written.len()), written);
}

#[test]
fn nothing_is_missed_over_a_kill_of_the_daemon() {
    survives(TestDaemon::kill_and_restart);
}

#[test]
fn nothing_is_missed_over_a_kill_of_postgres() {
    survives(|daemon| {
        let postmaster = daemon.postgres_pid();
        let killed = Command::new("kill").args(["-KILL", &postmaster.to_string()]).status();
        assert!(killed.expect("kill runs").success());
    });
}

/// A second subscriber starts where the first one stopped, from the cursor of each line.
#[test]
fn every_cursor_printed_resumes_exactly_after_its_line() {
    let daemon = TestDaemon::start();
    let url = daemon.url.clone();
    write(&url, "orders", "first");
    let subscriber = Subscriber::start(&url, "orders", &[]);
    assert_eq!(subscriber.next()["type"], "snapshot");
    let snapshot_end = subscriber.next();
    let written = ids(0..10);
    written.iter().for_each(|id| write(&url, "orders", id));
    let mut cursors = vec![snapshot_end["cursor"].as_str().expect("a cursor").to_owned()];
    for id in &written {
        let line = subscriber.next();
        assert_eq!(line["id"], id.as_str());
        assert_eq!(line["kind"], "insert");
        cursors.push(line["cursor"].as_str().expect("a cursor").to_owned());
    }
    for (at, cursor) in cursors.iter().enumerate().step_by(3) {
        let resumed = Subscriber::start(&url, "orders", &["--from", cursor]);
        assert_eq!(resumed.ids(written.len() - at), written[at..]);
    }
}
