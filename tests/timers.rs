//! Timers on a thread of their own: in a program where the runtime has none, so that whoever asked it for one would panic.

use std::time::{Duration, Instant};

use raystream::client::{Client, Error, Options};
use tokio::net::TcpListener;
use tokio::runtime::Builder;

/// What the first connection may take, long enough to tell it from one that fails at once.
const PATIENCE: Duration = Duration::from_millis(300);

#[test]
fn a_runtime_without_timers_waits_no_longer_than_it_is_told() {
    raystream::time::start_thread().expect("a thread");
    raystream::time::start_thread().expect("the same thread");
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_io().build().expect("a runtime");
    runtime.block_on(async {
        // The system accepts for a listener that says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("raystream://{}@{}", "07".repeat(32), silent.local_addr().expect("an address"));
        let mut waiting = Vec::new();
        for n in 1..=8 {
            let (url, patience) = (url.clone(), PATIENCE * n);
            waiting.push(tokio::spawn(async move {
                let mut options = Options::default();
                options.connect_timeout = patience;
                let begun = Instant::now();
                let error = Client::connect(&url, options).await.expect_err("nobody answers");
                assert!(matches!(error, Error::Connect(_)), "{error}");
                assert!(begun.elapsed() >= patience, "{:?} of {patience:?}", begun.elapsed());
            }));
        }
        for done in waiting {
            done.await.expect("no panic");
        }
    });
}
