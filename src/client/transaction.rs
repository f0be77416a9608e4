//! Transactions: a closure that is done whole or not at all, and again when others were in its way.

use super::jitter::random_fraction;
use super::options::CallOptions;
use super::retry::RetryPolicy;
use super::stream::{CallStream, StreamOptions};
use super::{Client, Error, Json};
use crate::time::timeout_at;
use crate::wire::ErrorCode;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Attempts of one transaction: enough for a few dozen clients that all change one document.
const ATTEMPTS_MAX: u32 = 32;
/// The bound of the first pause: about what a transaction of a few calls takes.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The bound of every pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// For all attempts: what a server gives one transaction at most, twice.
const TIMEOUT: Duration = Duration::from_secs(60);
/// What a server waits before it says that it has no place; asked again at once it says the same.
const BEGIN_PAUSE: Duration = Duration::from_millis(50);

/// What a transaction sees of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// What was committed before it began. Two that read the same and write different documents do not notice each
    /// other.
    #[default]
    Snapshot,
    /// The same; and all that is committed could have been done one after the other.
    Serializable,
}

/// How a transaction is done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TransactionOptions {
    /// What it sees of others.
    pub isolation: Isolation,
    /// Whether writes are refused.
    pub read_only: bool,
    /// How often it is done again when others were in its way, and the pauses between.
    pub retry: RetryPolicy,
    /// For all attempts and the pauses between them.
    pub timeout: Duration,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        let retry = RetryPolicy {
            attempts_max: ATTEMPTS_MAX,
            first_pause: FIRST_PAUSE,
            longest_pause: LONGEST_PAUSE,
            jitter: random_fraction,
        };
        Self { isolation: Isolation::default(), read_only: false, retry, timeout: TIMEOUT }
    }
}

/// An open transaction, for the closure of [`Client::transaction`]. Its calls are done one after the other, in the order in
/// which they are made.
#[derive(Clone, Debug)]
pub struct Transaction(Arc<Open>);

#[derive(Debug)]
struct Open {
    client: Client,
    sid: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// It was committed, rolled back, or is lost.
    is_over: bool,
    /// The first failure that doing all of it again may help against.
    may_help: Option<Error>,
}

/// The answer to `tx.begin`, as far as it is needed here.
#[derive(Deserialize)]
struct Begun {
    sid: String,
}

/// What an error says about the transaction of its call.
#[derive(Deserialize)]
struct Details {
    transaction: String,
}

impl Client {
    /// Runs a closure in a transaction: all that it does with the [`Transaction`] it gets is done when this answers `Ok`, and
    /// nothing of it otherwise, except after [`Error::UnknownOutcome`] and [`Error::Timeout`] at the end.
    ///
    /// When another transaction was in the way (CONFLICT), when the server could not go on, or when the connection was lost
    /// before the commit, the closure runs again from its beginning, in a new transaction and after a pause: what it does
    /// elsewhere may happen several times. An error of the closure, and dropping this future, roll back.
    ///
    /// ```no_run
    /// # async fn example(client: raystream::client::Client) -> Result<(), raystream::client::Error> {
    /// use serde_json::{Value, json};
    ///
    /// let total = client
    ///     .transaction(Default::default(), |tx| async move {
    ///         let found: Value = tx.call_typed("table.get", &json!({"table": "n", "id": "a"})).await?;
    ///         let total = found["data"].as_i64().unwrap_or(0) + 1;
    ///         tx.call("table.set", &json!({"table": "n", "id": "a", "data": total})).await?;
    ///         Ok::<_, raystream::client::Error>(total)
    ///     })
    ///     .await?;
    /// # let _ = total;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What the closure gives, or [`Error`] of the begin and the commit.
    pub async fn transaction<T, E, F, B>(&self, options: TransactionOptions, body: B) -> Result<T, E>
    where
        E: From<Error>,
        F: Future<Output = Result<T, E>>,
        B: Fn(Transaction) -> F,
    {
        let deadline = Instant::now() + options.timeout;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let attempt = timeout_at(deadline, self.attempt_transaction(&options, deadline, &body));
            let (error, hint) = match attempt.await {
                Ok(Attempt::Done(value)) => return Ok(value),
                Ok(Attempt::Failed(error)) => return Err(error),
                Ok(Attempt::Again(error, hint)) => (error, hint),
                Err(_) => return Err(Error::Timeout(options.timeout).into()),
            };
            let pause = options.retry.pause(attempts, hint);
            let is_in_time = Instant::now().checked_add(pause).is_some_and(|next| next < deadline);
            if attempts >= options.retry.attempts_max || !is_in_time {
                return Err(error);
            }
            tracing::debug!(attempt = attempts, ?pause, "a transaction is done again");
            crate::time::sleep(pause).await;
        }
    }

    async fn attempt_transaction<T, E, F, B>(
        &self,
        options: &TransactionOptions,
        deadline: Instant,
        body: &B,
    ) -> Attempt<T, E>
    where
        E: From<Error>,
        F: Future<Output = Result<T, E>>,
        B: Fn(Transaction) -> F,
    {
        let transaction = match self.begin(options, deadline).await {
            Ok(transaction) => transaction,
            Err(error) if is_lost(&error) => return Attempt::Again(error.into(), None),
            Err(error) => return Attempt::Failed(error.into()),
        };
        let guard = RollBackOnDrop(&transaction);
        let result = body(transaction.clone()).await;
        let attempt = match result {
            Err(error) => match transaction.state().may_help.take() {
                Some(cause) => Attempt::Again(error, cause.retry_after()),
                None => Attempt::Failed(error),
            },
            Ok(value) => match transaction.commit().await {
                Ok(()) => Attempt::Done(value),
                Err(error) => match transaction.state().may_help.take() {
                    Some(cause) => Attempt::Again(error.into(), cause.retry_after()),
                    None => Attempt::Failed(error.into()),
                },
            },
        };
        if !matches!(attempt, Attempt::Done(_)) {
            transaction.roll_back().await;
        }
        drop(guard);
        attempt
    }

    /// Begins one; while the server has no place, again.
    async fn begin(&self, options: &TransactionOptions, deadline: Instant) -> Result<Transaction, Error> {
        let isolation = match options.isolation {
            Isolation::Snapshot => "snapshot",
            Isolation::Serializable => "serializable",
        };
        let args = serde_json::json!({"isolation": isolation, "read_only": options.read_only});
        loop {
            match self.call_with("tx.begin", Json::encode(&args)?, once()).await {
                Ok(begun) => {
                    let Begun { sid } = begun.decode()?;
                    let open = Open { client: self.clone(), sid, state: Mutex::default() };
                    return Ok(Transaction(Arc::new(open)));
                }
                // Others have the places: that is waited for, and no reason to give up before the time is over.
                Err(Error::Call(error)) if error.code == ErrorCode::SERVICE_UNAVAILABLE => {
                    let pause = error.retry_after.unwrap_or(BEGIN_PAUSE).mul_f64(random_fraction());
                    if Instant::now() + pause >= deadline {
                        return Err(Error::Call(error));
                    }
                    crate::time::sleep(pause).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// What came of one attempt.
enum Attempt<T, E> {
    Done(T),
    Failed(E),
    /// It was rolled back, and may succeed next time; with what the server asks to wait.
    Again(E, Option<Duration>),
}

/// A call in a transaction is sent once: the connection that it belongs to may be another one the next time.
fn once() -> CallOptions {
    CallOptions { retry: Some(RetryPolicy::none()), ..CallOptions::default() }
}

/// Whether the connection was lost. With it went the transaction.
fn is_lost(error: &Error) -> bool {
    matches!(error, Error::UnknownOutcome { .. })
}

impl Transaction {
    /// The name of the transaction at the server.
    pub fn sid(&self) -> &str {
        &self.0.sid
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls a method on documents in this transaction. `args` is an object; `sid` is added to it.
    ///
    /// # Errors
    /// As [`Client::call`]. What the server refused leaves the transaction open, unless `details` say otherwise.
    pub async fn call<A: Serialize + ?Sized>(&self, method: &str, args: &A) -> Result<Json, Error> {
        self.call_with(method, Json::encode(args)?, CallOptions::default()).await
    }

    /// Calls a method and reads its result.
    ///
    /// # Errors
    /// As [`call`](Self::call), and [`Error::Result`].
    pub async fn call_typed<A, R>(&self, method: &str, args: &A) -> Result<R, Error>
    where
        A: Serialize + ?Sized,
        R: DeserializeOwned,
    {
        self.call(method, args).await?.decode()
    }

    /// Calls a method with JSON text, which has to be an object. It is sent once, whatever the options say.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn call_with(&self, method: &str, args: Json, options: CallOptions) -> Result<Json, Error> {
        let options = CallOptions { retry: Some(RetryPolicy::none()), ..options };
        let result = self.0.client.call_with(method, with_sid(&self.0.sid, &args)?, options).await;
        result.inspect_err(|error| self.note(error))
    }

    /// Calls a method with items in this transaction. Other calls wait until its items are taken. An error that comes out
    /// of the stream does not make the closure run again unless the transaction is over, and then the commit says so.
    ///
    /// # Errors
    /// As [`Client::open`].
    pub async fn open(&self, method: &str, args: Json, options: StreamOptions) -> Result<CallStream, Error> {
        self.0.client.open(method, with_sid(&self.0.sid, &args)?, options).await
    }

    /// Remembers what a failure means for the transaction.
    fn note(&self, error: &Error) {
        let mut state = self.state();
        let about = match error {
            Error::Call(error) => serde_json::from_slice::<Details>(&error.details).ok(),
            _ => None,
        };
        // `none`: the connection is another one by now, and the transaction went with the one before.
        let was_lost = is_lost(error) || about.as_ref().is_some_and(|details| details.transaction == "none");
        state.is_over |= was_lost || about.is_some();
        let is_conflict = matches!(error, Error::Call(error) if error.retryable
            && (error.code == ErrorCode::CONFLICT || about.is_some()));
        if was_lost || is_conflict {
            state.may_help.get_or_insert_with(|| error.clone());
        }
    }

    async fn commit(&self) -> Result<(), Error> {
        // Conflicts that the closure saw and lived with are none of the commit's.
        if !self.state().is_over {
            self.state().may_help = None;
        }
        let args = Json::encode(&serde_json::json!({"sid": self.0.sid}))?;
        match self.0.client.call_with("tx.commit", args, once()).await {
            Ok(_) => {
                self.state().is_over = true;
                Ok(())
            }
            // It was sent: it was done or not.
            Err(error) if is_lost(&error) => {
                self.state().is_over = true;
                Err(error)
            }
            Err(error) => {
                self.note(&error);
                Err(error)
            }
        }
    }

    /// Rolls back, unless it is over.
    async fn roll_back(&self) {
        if std::mem::replace(&mut self.state().is_over, true) {
            return;
        }
        if let Ok(args) = Json::encode(&serde_json::json!({"sid": self.0.sid})) {
            // What is not heard is rolled back by the server's own limits.
            let _unheard = self.0.client.call_with("tx.rollback", args, once()).await;
        }
    }
}

/// The arguments, which are an object, with one field more.
fn with_sid(sid: &str, args: &Json) -> Result<Json, Error> {
    let object = args.as_bytes().trim_ascii();
    let fields = object.strip_prefix(b"{").ok_or(Error::Configuration(NO_OBJECT))?.trim_ascii_start();
    let sid = Json::encode(sid)?;
    let comma: &[u8] = if fields == b"}" { b"" } else { b"," };
    Ok(Json::new([b"{\"sid\":", sid.as_bytes(), comma, fields].concat()))
}

/// What is said of arguments that have no fields.
const NO_OBJECT: &str = "the arguments of a call in a transaction have to be a JSON object";

/// Rolls back when the future of a transaction is dropped.
struct RollBackOnDrop<'a>(&'a Transaction);

impl Drop for RollBackOnDrop<'_> {
    fn drop(&mut self) {
        let transaction = self.0.clone();
        if transaction.state().is_over {
            return;
        }
        // Without a runtime the connection is gone, and the transaction with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { transaction.roll_back().await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sid_goes_in_front_of_what_is_there() {
        let with = |args: &'static str| with_sid("x", &Json::new(args)).ok().map(|json| json.to_string());
        assert_eq!(with(r#"{"a":1}"#).as_deref(), Some(r#"{"sid":"x","a":1}"#));
        assert_eq!(with("{ }").as_deref(), Some(r#"{"sid":"x"}"#));
        assert_eq!(with("[]"), None);
    }
}
