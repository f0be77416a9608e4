//! Writers: each has a client of its own and sends one operation after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use raystream::client::{CallOptions, Client, Error, Json, Options, TransactionOptions};
use raystream::wire::ErrorCode;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::PATIENCE;
use crate::daemon::key;
use crate::ledger::{Kind, Ledger, Outcome, Reply, Source};
use crate::numbers::Numbers;

/// How many writers there are.
pub(crate) const WRITERS: usize = 6;

/// How long a call may take: shorter than the longest faults, so that these are met.
const CALL_TIMEOUT: Duration = Duration::from_secs(4);

/// A call that is not answered by then hangs: its deadline was long ago, also on a machine that is busy with other things.
const HUNG: Duration = Duration::from_secs(30);

/// Documents of each writer, and documents that all writers write.
const OWN: u64 = 3;
const SHARED: u64 = 3;

/// The longest pause between two operations: a load that leaves the machine time for the faults.
const PAUSE: u64 = 12_000;

/// Of so many calls with a key, one takes a "no" for an answer: what it says has to be true with a key too.
const GIVE_UP: u64 = 4;

/// Writers at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts the writers. Each writes its documents once at first, so that they can be updated.
    pub(crate) fn start(url: &str, ledger: &Ledger, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..WRITERS)
            .map(|writer| {
                let (url, ledger, stop) = (url.to_owned(), ledger.clone(), Arc::clone(&stop));
                let numbers = Numbers::of(seed, u64::try_from(writer).unwrap());
                tokio::spawn(async move {
                    let client = connect(&url).await;
                    let mut writer = Writer { client, ledger, writer, numbers, seed };
                    writer.begin().await;
                    while !stop.load(Ordering::Relaxed) {
                        writer.next().await;
                    }
                    writer.client.close().await;
                })
            })
            .collect();
        Self { stop, tasks }
    }

    /// Stops the writers, when each has ended what it is at.
    pub(crate) async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            timeout(PATIENCE, task).await.expect("a writer ends").expect("a writer does not panic");
        }
    }
}

/// The options of a client that is soon there again.
pub(crate) fn options() -> Options {
    let mut options = Options::default();
    options.identity = Some(key(1).0);
    (options.connect_timeout, options.call_timeout) = (CALL_TIMEOUT, CALL_TIMEOUT);
    let policy = options.reconnect.as_mut().expect("it comes back by itself");
    policy.longest_pause = Duration::from_millis(500);
    // Faults without end are what this is about.
    options.retry_budget.percent = 100;
    options
}

/// Connects, if need be again.
pub(crate) async fn connect(url: &str) -> Client {
    let connected = async {
        loop {
            match Client::connect(url, options()).await {
                Ok(client) => return client,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(PATIENCE, connected).await.expect("the daemon takes connections")
}

struct Writer {
    client: Client,
    ledger: Ledger,
    writer: usize,
    numbers: Numbers,
    seed: u64,
}

impl Writer {
    /// Writes each of its documents.
    async fn begin(&mut self) {
        for n in 0..OWN + SHARED {
            let id = self.id(n);
            let number = self.ledger.begin(self.writer, Kind::Set, true);
            self.named(number, "table.set", set(&id, number, 0), false).await;
        }
    }

    /// One operation, and a pause.
    async fn next(&mut self) {
        let kind = *self.numbers.one_of(&Kind::ALL);
        let has_key = kind != Kind::Transaction && self.numbers.below(2) == 0;
        let (first, second) = (self.numbers.below(OWN + SHARED), self.numbers.below(OWN + SHARED));
        let (first, second) = (self.id(first), self.id(second));
        let number = self.ledger.begin(self.writer, kind, has_key);
        let (method, args) = match kind {
            Kind::Push => ("table.push", push(number, 0)),
            Kind::Set => ("table.set", set(&first, number, 0)),
            Kind::Update => ("table.update", set(&first, number, 0)),
            Kind::Publish => ("topic.publish", publish(number, 0)),
            Kind::Batch => {
                let calls = parts(&first, &second, number)
                    .map(|(method, args)| json!({"method": method, "args": args}));
                ("table.batch", json!({"calls": calls}))
            }
            Kind::Transaction => ("", Value::Null),
        };
        if kind == Kind::Transaction {
            let done = self.transaction(number, &first, &second);
            let done = timeout(HUNG, done).await;
            self.note(number, done.expect("a transaction is answered in time"));
        } else if has_key {
            let gives_up = self.numbers.below(GIVE_UP) == 0;
            self.named(number, method, args, gives_up).await;
        } else {
            let done = timeout(HUNG, self.client.call_typed(method, &args)).await;
            self.note(number, done.expect("a call is answered in time"));
        }
        sleep(Duration::from_micros(self.numbers.below(PAUSE))).await;
    }

    fn id(&self, n: u64) -> String {
        if n < OWN { format!("of-{}-{n}", self.writer) } else { format!("shared-{}", n - OWN) }
    }

    /// A call with a key, again and again until it is acknowledged; with `gives_up` also until it is refused, when no attempt before
    /// left it open whether it was done.
    async fn named(&mut self, number: usize, method: &str, args: Value, gives_up: bool) {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.seed.to_be_bytes());
        key[8..].copy_from_slice(&u64::try_from(number).unwrap().to_be_bytes());
        let repeated = async {
            let mut is_certain = true;
            loop {
                let options = CallOptions { idempotency_key: Some(key.into()), ..CallOptions::default() };
                let called = self.client.call_with(method, Json::encode(&args).unwrap(), options);
                let called = timeout(HUNG, called).await.expect("a call is answered in time");
                match called.and_then(|result| result.decode()) {
                    Ok(result) => return self.acknowledge(number, &result),
                    Err(error) => {
                        is_certain &= self.judge(&error) == Outcome::Refused;
                        if error.code() == Some(ErrorCode::NOT_FOUND) {
                            // The document was lost, which nobody expects but where that is the point: it does not come back.
                            return;
                        }
                    }
                }
                if gives_up && is_certain {
                    return self.ledger.refuse(number);
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        // Without an acknowledgement it stays open, which the check finds.
        let _stays_open = timeout(PATIENCE, repeated).await;
    }

    async fn transaction(&self, number: usize, first: &str, second: &str) -> Result<Value, Error> {
        let mut options = TransactionOptions::default();
        options.timeout = CALL_TIMEOUT;
        let results = self.client.transaction(options, |tx| async move {
            let mut results = Vec::new();
            for (method, args) in parts(first, second, number) {
                results.push(tx.call_typed::<_, Value>(method, &args).await?);
            }
            Ok::<_, Error>(results)
        });
        Ok(json!({"results": results.await?}))
    }

    fn note(&self, number: usize, result: Result<Value, Error>) {
        match result {
            Ok(result) => self.acknowledge(number, &result),
            Err(error) => {
                if self.judge(&error) == Outcome::Refused {
                    self.ledger.refuse(number);
                }
            }
        }
    }

    fn acknowledge(&self, number: usize, result: &Value) {
        let one = std::slice::from_ref(result);
        let results = result["results"].as_array().map_or(one, Vec::as_slice);
        let replies = results.iter().map(|result| Reply {
            id: result["id"].as_str().map(str::to_owned),
            version: result["version"].as_i64(),
        });
        self.ledger.acknowledge(number, replies.collect());
    }

    /// What an error says about the operation, by the table of the specification (section 12.1).
    fn judge(&self, error: &Error) -> Outcome {
        let call = match error {
            Error::Call(call) => call,
            Error::Timeout(_) | Error::UnknownOutcome { .. } => return Outcome::Open,
            other => {
                self.ledger.unexpected(other.to_string());
                return Outcome::Open;
            }
        };
        let is_rolled_back = serde_json::from_slice::<Value>(&call.details)
            .is_ok_and(|details| details["transaction"] == "rolled_back" || details["transaction"] == "none");
        match call.code {
            ErrorCode::CONFLICT | ErrorCode::RATE_LIMITED | ErrorCode::GOING_AWAY => Outcome::Refused,
            ErrorCode::SERVICE_UNAVAILABLE => Outcome::Refused,
            _ if is_rolled_back => Outcome::Refused,
            ErrorCode::TIMEOUT | ErrorCode::CANCELLED | ErrorCode::UNKNOWN_OUTCOME => Outcome::Open,
            // What a full disk is to a statement.
            ErrorCode::INTERNAL_ERROR if self.ledger.disk_was_full() => Outcome::Open,
            _ => {
                self.ledger.unexpected(call.to_string());
                if call.code == ErrorCode::INTERNAL_ERROR { Outcome::Open } else { Outcome::Refused }
            }
        }
    }
}

/// What every document holds: whose it is.
fn data(number: usize, part: usize) -> Value {
    json!({"op": number, "part": part})
}

fn push(number: usize, part: usize) -> Value {
    json!({"table": Source::Items.name(), "data": data(number, part)})
}

fn set(id: &str, number: usize, part: usize) -> Value {
    json!({"table": Source::Documents.name(), "id": id, "data": data(number, part)})
}

fn publish(number: usize, part: usize) -> Value {
    json!({"topic": Source::Events.name(), "data": data(number, part)})
}

/// The calls of a batch or a transaction, in the order of [`Kind::parts`].
fn parts(first: &str, second: &str, number: usize) -> [(&'static str, Value); 4] {
    [
        ("table.push", push(number, 0)),
        ("table.set", set(first, number, 1)),
        ("table.update", set(second, number, 2)),
        ("topic.publish", publish(number, 3)),
    ]
}
