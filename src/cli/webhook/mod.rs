//! `raystream webhook`

mod show;

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use zeroize::Zeroizing;

use super::attach::DatabaseArguments;
use super::{Failure, Output};
use crate::server::config::WebhooksConfig;
use crate::store::TableName;
use crate::store::webhooks::admin::Admin;
use crate::store::webhooks::{
    ATTEMPTS_DEFAULT, ATTEMPTS_MAX, NewWebhook, OperationSet, ReplayFrom, WebhookError,
};
use crate::webhook::{Host, SECRET_LEN, Secret, Target};

/// Have the changes of a table posted to a URL
///
/// A running server sends them from the log of changes: in order, at least once, signed as the Standard Webhooks specification says,
/// again with growing pauses when they are not taken, and kept as dead letters when they never are. With several servers on one
/// database one of them sends. docs/webhooks.md says what a receiver gets and how it verifies it.
#[derive(Debug, Args)]
pub(super) struct WebhookArguments {
    #[command(subcommand)]
    command: WebhookCommand,
}

#[derive(Debug, Subcommand)]
enum WebhookCommand {
    Add(AddArguments),
    /// List the webhooks, and how each fares
    List(DatabaseArguments),
    /// Say how a webhook fares: what was sent, what failed, what is kept as a dead letter
    Status(OneArguments),
    /// Remove a webhook, with its dead letters
    Remove(OneArguments),
    /// Send nothing until it is enabled again; changes wait in the log, for as long as that is kept
    Disable(OneArguments),
    /// Send again: after `disable`, after the receiver answered 410, or with too many dead letters
    Enable(OneArguments),
    /// List the events that were given up, with what was sent (--json)
    Dead(OneArguments),
    /// Send dead letters once more: one, or all
    Retry(LettersArguments),
    /// Remove dead letters: one, or all
    Bury(LettersArguments),
    Replay(ReplayArguments),
}

/// Make a webhook and print its id, and the secret that was made for it, which is not shown again
///
/// What is committed after this returns is sent. The table has to be there; it may be one that was attached.
#[derive(Debug, Args)]
struct AddArguments {
    #[command(flatten)]
    database: DatabaseArguments,
    /// Where to: https://, or http:// for an address that webhooks.allow_private names
    #[arg(value_name = "URL")]
    url: String,
    /// Of which table
    #[arg(long, value_name = "TABLE")]
    table: String,
    /// Only these changes: insert, update or delete; may be given more than once
    #[arg(long = "op", value_name = "OP", value_delimiter = ',')]
    operations: Vec<String>,
    /// A file with the secret, `whsec_` and base64; without this a secret is made
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// How often an event is sent before it is given up
    #[arg(long, value_name = "N", default_value_t = ATTEMPTS_DEFAULT,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(ATTEMPTS_MAX)))]
    attempts: u32,
}

#[derive(Debug, Args)]
struct OneArguments {
    #[command(flatten)]
    database: DatabaseArguments,
    /// The webhook
    #[arg(value_name = "ID")]
    id: String,
}

#[derive(Debug, Args)]
struct LettersArguments {
    #[command(flatten)]
    database: DatabaseArguments,
    /// The webhook
    #[arg(value_name = "ID")]
    id: String,
    /// The event, as `dead` names it
    #[arg(value_name = "EVENT", required_unless_present = "all", conflicts_with = "all")]
    event: Option<String>,
    /// All of them
    #[arg(long)]
    all: bool,
}

/// Send changes again that are still in the log, or pass over those that were not sent
///
/// The ids of the events are those that they had the first time.
#[derive(Debug, Args)]
struct ReplayArguments {
    #[command(flatten)]
    database: DatabaseArguments,
    /// The webhook
    #[arg(value_name = "ID")]
    id: String,
    /// `oldest` for all that is kept, `now` to pass over what waits, or a cursor to go on behind
    #[arg(long, value_name = "CURSOR|oldest|now")]
    from: String,
}

pub(super) fn run(arguments: &WebhookArguments, output: &mut Output) -> Result<(), Failure> {
    match &arguments.command {
        WebhookCommand::Add(arguments) => add(arguments, output),
        WebhookCommand::List(database) => {
            let list = with_admin(database, output, async |admin| admin.list().await)?;
            show::list(&list, output)
        }
        WebhookCommand::Status(one) => {
            let status = with_admin(&one.database, output, async |admin| admin.status(&one.id).await)?;
            show::status(&status, output)
        }
        WebhookCommand::Remove(one) => {
            with_admin(&one.database, output, async |admin| admin.remove(&one.id).await)?;
            output.result(&one.id, &json!({ "removed": one.id }))
        }
        WebhookCommand::Disable(one) => {
            with_admin(&one.database, output, async |admin| admin.disable(&one.id).await)?;
            output.result(&one.id, &json!({ "disabled": one.id }))
        }
        WebhookCommand::Enable(one) => {
            with_admin(&one.database, output, async |admin| admin.enable(&one.id).await)?;
            output.result(&one.id, &json!({ "enabled": one.id }))
        }
        WebhookCommand::Dead(one) => {
            let (endpoint, _) = one.database.resolve_with_config(output)?;
            block_on(async {
                let admin = Admin::connect(&endpoint).await?;
                let mut behind = None;
                loop {
                    let page = admin.dead(&one.id, behind, output.is_json()).await?;
                    let Some(last) = page.last() else { return Ok(()) };
                    behind = Some(last.place);
                    show::dead(&page, output)?;
                }
            })
        }
        WebhookCommand::Retry(letters) => {
            let event = letters.event.as_deref();
            let count =
                with_admin(&letters.database, output, async |admin| admin.retry(&letters.id, event).await)?;
            output.result(format!("{count} to be sent again"), &json!({ "retry": count }))
        }
        WebhookCommand::Bury(letters) => {
            let event = letters.event.as_deref();
            let count =
                with_admin(&letters.database, output, async |admin| admin.bury(&letters.id, event).await)?;
            output.result(format!("{count} removed"), &json!({ "removed": count }))
        }
        WebhookCommand::Replay(arguments) => {
            let from = match arguments.from.as_str() {
                "oldest" => ReplayFrom::Oldest,
                "now" => ReplayFrom::Now,
                cursor => ReplayFrom::Cursor(cursor.to_owned()),
            };
            let replay = async |admin: &Admin| admin.replay(&arguments.id, &from).await;
            with_admin(&arguments.database, output, replay)?;
            output.result(&arguments.id, &json!({ "replayed": arguments.id }))
        }
    }
}

/// Connects and does something.
fn with_admin<T>(
    database: &DatabaseArguments,
    output: &Output,
    work: impl AsyncFnOnce(&Admin) -> Result<T, WebhookError>,
) -> Result<T, Failure> {
    let (endpoint, _) = database.resolve_with_config(output)?;
    block_on(async { Ok(work(&Admin::connect(&endpoint).await?).await?) })
}

fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = super::runtime::build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start threads: {error}")))?;
    runtime.block_on(work)
}

impl From<WebhookError> for Failure {
    fn from(error: WebhookError) -> Self {
        Self::failed(error.to_string())
    }
}

fn add(arguments: &AddArguments, output: &mut Output) -> Result<(), Failure> {
    let (_, config) = arguments.database.resolve_with_config(output)?;
    let target = Target::parse(&arguments.url).map_err(|error| Failure::usage(error.to_string()))?;
    check_address(&target, &config.webhooks)?;
    let table = TableName::parse(&arguments.table).map_err(|error| Failure::usage(error.to_string()))?;
    let operations = OperationSet::of_names(arguments.operations.iter().map(String::as_str));
    let operations = operations.map_err(|error| Failure::usage(error.to_string()))?;
    let (secret, is_new) = match &arguments.secret_file {
        Some(path) => (read_secret(path)?, false),
        None => (make_secret()?, true),
    };
    let shown = is_new.then(|| secret.expose());
    let new = NewWebhook { target, table, operations, secret, attempts: arguments.attempts };
    let id = with_admin(&arguments.database, output, async |admin| admin.add(&new).await)?;
    let shown = shown.as_ref().map(|secret| secret.as_str());
    let text = match shown {
        Some(secret) => format!("{id}\n{secret}"),
        None => id.to_string(),
    };
    output.remark(
        "The webhook's id; and the secret for its receiver, if one was made, which is not shown again:",
    );
    output.result(text, &json!({ "id": id.as_str(), "secret": shown }))
}

/// What the server would refuse at each attempt, where that can be known: of an address, not of a name.
fn check_address(target: &Target, config: &WebhooksConfig) -> Result<(), Failure> {
    let Host::Address(address) = *target.host() else { return Ok(()) };
    let networks = &config.allow_private;
    if !networks.allow(address) {
        return Err(Failure::failed(format!("{address} is not an address of the public internet"))
            .with_hint("the server sends there when webhooks.allow_private of its configuration names it"));
    }
    if !target.is_https() && !networks.names(address) {
        return Err(Failure::failed(
            "without TLS the server sends only to addresses that webhooks.allow_private names",
        )
        .with_hint("use https://"));
    }
    Ok(())
}

/// No secret is longer; what is, is another file.
const SECRET_FILE_LEN_MAX: u64 = 1_024;

fn read_secret(path: &Path) -> Result<Secret, Failure> {
    let failed = |error: String| Failure::failed(format!("the secret file {}: {error}", path.display()));
    let len = fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
    if len > SECRET_FILE_LEN_MAX {
        return Err(failed("it is too long for a secret".to_owned()));
    }
    let text = fs::read_to_string(path).map(Zeroizing::new).map_err(|error| failed(error.to_string()))?;
    Secret::parse(&text).map_err(|error| failed(error.to_string()))
}

fn make_secret() -> Result<Secret, Failure> {
    let mut bytes = Zeroizing::new([0_u8; SECRET_LEN]);
    getrandom::fill(&mut *bytes)
        .map_err(|error| Failure::failed(format!("the system gives no randomness: {error}")))?;
    Ok(Secret::from_bytes(&*bytes).expect("a secret of this length is one"))
}
