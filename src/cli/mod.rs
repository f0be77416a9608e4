//! The command line: arguments, help, exit codes. One file for each command.

mod attach;
mod bench;
mod call;
mod changes;
mod completions;
mod config;
mod connect;
mod daemon;
mod dev;
mod exec;
mod failure;
mod gc;
mod import;
mod index;
mod json;
mod keygen;
mod migrate;
mod output;
mod ping;
mod pubkey;
mod publish;
mod query;
mod repeat;
mod runtime;
mod schema;
mod search;
mod serve;
mod sub;
mod webhook;

use std::ffi::OsStr;
use std::process::ExitCode;

use clap::{ArgAction, ColorChoice, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub use connect::{Cipher, ConnectArguments};
pub use failure::{Exit, Failure};
pub use output::Output;

use crate::server::logging::Colour;

/// What every page of help ends with.
const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   the server answered with an error, or a file or a configuration cannot be used
  2   no connection: not reached, not the right key, or lost for good
  64  the command line cannot be understood";

/// Encrypted calls and live queries over Postgres: one authenticated connection, nothing missed.
#[derive(Debug, Parser)]
#[command(name = "raystream", version, after_help = EXIT_CODES, arg_required_else_help = true)]
#[command(disable_help_subcommand = true, propagate_version = true)]
struct Arguments {
    #[command(flatten)]
    options: GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Options of every command")]
pub struct GlobalOptions {
    /// Print results and errors as JSON, one object a line
    #[arg(long, global = true)]
    pub json: bool,
    /// When to use colours; `auto` is on a terminal and without NO_COLOR
    #[arg(long, global = true, value_enum, default_value_t = When::Auto, value_name = "WHEN")]
    pub color: When,
    /// Log more; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// The values of `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum When {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl From<When> for Colour {
    fn from(when: When) -> Self {
        match when {
            When::Auto => Self::Auto,
            When::Always => Self::Always,
            When::Never => Self::Never,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Keygen(keygen::KeygenArguments),
    Pubkey(pubkey::PubkeyArguments),
    Dev(dev::DevArguments),
    Serve(serve::ServeArguments),
    Config(config::ConfigArguments),
    Call(call::CallArguments),
    Query(query::QueryArguments),
    Search(search::SearchArguments),
    Changes(changes::ChangesArguments),
    Exec(exec::ExecArguments),
    Import(import::ImportArguments),
    Publish(publish::PublishArguments),
    Sub(sub::SubArguments),
    Schema(schema::SchemaArguments),
    Attach(attach::AttachArguments),
    Detach(attach::DetachArguments),
    Migrate(migrate::MigrateArguments),
    Index(index::IndexArguments),
    Gc(gc::GcArguments),
    Webhook(webhook::WebhookArguments),
    Ping(ping::PingArguments),
    Bench(bench::BenchArguments),
    Completions(completions::CompletionsArguments),
}

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    // Help is printed while the arguments are read, so the colour has to be known before.
    let command = Arguments::command().color(color_choice(std::env::args_os()));
    let arguments = match command.try_get_matches().and_then(|matches| Arguments::from_arg_matches(&matches))
    {
        Ok(arguments) => arguments,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            // A closed pipe (`--help | head`) is no failure worth a word.
            let _ = error.print();
            return exit.into();
        }
    };
    let mut output = Output::new(&arguments.options);
    match run(arguments, &mut output) {
        Ok(()) => Exit::Done.into(),
        Err(failure) => output.fail(&failure).into(),
    }
}

fn run(arguments: Arguments, output: &mut Output) -> Result<(), Failure> {
    let options = arguments.options;
    match arguments.command {
        Command::Keygen(arguments) => keygen::run(&arguments, output),
        Command::Pubkey(arguments) => pubkey::run(&arguments, output),
        Command::Dev(arguments) => dev::run(&arguments, &options, output),
        Command::Serve(arguments) => serve::run(&arguments, &options, output),
        Command::Config(arguments) => config::run(&arguments, output),
        Command::Call(arguments) => call::run(&arguments, output),
        Command::Query(arguments) => query::run(&arguments, output),
        Command::Search(arguments) => search::run(&arguments, output),
        Command::Changes(arguments) => changes::run(&arguments, output),
        Command::Exec(arguments) => exec::run(&arguments, output),
        Command::Import(arguments) => import::run(&arguments, output),
        Command::Publish(arguments) => publish::run(&arguments, output),
        Command::Sub(arguments) => sub::run(&arguments, output),
        Command::Schema(arguments) => schema::run(&arguments, output),
        Command::Attach(arguments) => attach::attach(&arguments, output),
        Command::Detach(arguments) => attach::detach(&arguments, output),
        Command::Migrate(arguments) => migrate::run(&arguments, output),
        Command::Index(arguments) => index::run(&arguments, output),
        Command::Gc(arguments) => gc::run(&arguments, output),
        Command::Webhook(arguments) => webhook::run(&arguments, output),
        Command::Ping(arguments) => ping::run(&arguments, output),
        Command::Bench(arguments) => bench::run(&arguments, output),
        Command::Completions(arguments) => completions::run(&arguments, output),
    }
}

/// What `--color` says, wherever it stands.
fn color_choice<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> ColorChoice {
    let mut choice = ColorChoice::Auto;
    let mut is_next = false;
    for argument in arguments {
        let text = argument.as_ref().to_string_lossy();
        let value = if is_next { Some(&*text) } else { text.strip_prefix("--color=") };
        choice = match value {
            Some("always") => ColorChoice::Always,
            Some("never") => ColorChoice::Never,
            Some(_) => ColorChoice::Auto,
            None => choice,
        };
        is_next = text == "--color";
    }
    choice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_hold_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_colour_is_found_before_the_arguments_are_read() {
        assert_eq!(color_choice(["raystream", "--color", "never", "call"]), ColorChoice::Never);
        assert_eq!(color_choice(["raystream", "call", "--color=always"]), ColorChoice::Always);
        assert_eq!(color_choice(["raystream", "call"]), ColorChoice::Auto);
    }
}
