//! Writers: transactions of several documents at once, some left open for a while, some rolled back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error};

use crate::world::{World, delete, json, upsert};

/// Writers at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
    /// Transactions that were committed.
    pub(crate) committed: Arc<AtomicU64>,
}

/// A small generator of the same numbers in each run.
pub(crate) struct Numbers(pub u64);

impl Numbers {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

impl Load {
    /// Starts writers on `documents` ids. They stop at an error of the connection.
    pub(crate) async fn start(world: &World, writers: u64, documents: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let committed = Arc::new(AtomicU64::new(0));
        let mut tasks = Vec::new();
        for writer in 0..writers {
            let client = world.client().await;
            let (t, stop, committed) = (world.t.clone(), Arc::clone(&stop), Arc::clone(&committed));
            let wake = world.store.clone();
            tasks.push(tokio::spawn(async move {
                let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15 ^ (writer + 1));
                while !stop.load(Ordering::Relaxed) {
                    match transaction(&client, &t, &mut numbers, documents).await {
                        Ok(true) => {
                            committed.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(false) => {}
                        // Class 57 is what Postgres says when it is killed.
                        Err(error) => match error.code() {
                            Some(code) if !code.code().starts_with("57") => {
                                panic!("a write failed: {error:?}")
                            }
                            _ => return,
                        },
                    }
                    // Some writes are those of the daemon, which wake the feed; the others are found by the poll.
                    if numbers.below(2) == 0 {
                        wake.wake();
                    }
                }
            }));
        }
        Self { stop, tasks, committed }
    }

    /// Waits until so many more transactions are committed.
    pub(crate) async fn progress(&self, transactions: u64) {
        let goal = self.committed.load(Ordering::Relaxed) + transactions;
        while self.committed.load(Ordering::Relaxed) < goal {
            assert!(!self.tasks.iter().all(JoinHandle::is_finished), "the writers have stopped");
            tokio::task::yield_now().await;
        }
    }

    /// Stops the writers and waits for them.
    pub(crate) async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("a writer ends");
        }
    }
}

/// One transaction. Whether it was committed.
async fn transaction(client: &Client, t: &str, numbers: &mut Numbers, documents: u64) -> Result<bool, Error> {
    // Ids in one order, so that writers wait for each other and do not deadlock.
    let mut ids: Vec<u64> = (0..=numbers.below(4)).map(|_| numbers.below(documents)).collect();
    ids.sort_unstable();
    client.batch_execute("BEGIN").await?;
    if numbers.below(3) == 0 {
        // The id of the transaction is taken long before its first write.
        client.batch_execute("SELECT pg_current_xact_id()").await?;
        for _ in 0..numbers.below(5) {
            client.batch_execute("SELECT 1").await?;
        }
    }
    for id in ids {
        let id = format!("d{id}");
        if numbers.below(5) == 0 {
            client.execute(&delete(t), &[&id]).await?;
        } else {
            let data = format!(r#"{{"n": {}, "id": "{id}"}}"#, numbers.below(1_000));
            client.execute(&upsert(t), &[&id, &json(&data)]).await?;
        }
    }
    let committed = numbers.below(8) != 0;
    client.batch_execute(if committed { "COMMIT" } else { "ROLLBACK" }).await?;
    Ok(committed)
}
