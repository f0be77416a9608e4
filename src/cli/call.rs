//! `raystream call`

use clap::Args;

use super::{ConnectArguments, Failure, GlobalOptions, Output};

/// Call a method and print its result as JSON
///
/// An error of the server is printed as `CODE: message` on standard error, exit code 1. No connection: exit code 2.
#[derive(Debug, Args)]
pub(super) struct CallArguments {
    #[command(flatten)]
    connect: ConnectArguments,
    /// The method, for instance table.get
    #[arg(value_name = "METHOD")]
    method: String,
    /// Its arguments as a JSON object; `-` reads them from standard input
    #[arg(value_name = "JSON")]
    args: Option<String>,
}

pub(super) fn run(
    arguments: &CallArguments,
    options: &GlobalOptions,
    output: &mut Output,
) -> Result<(), Failure> {
    let _ = (arguments, options, output);
    Err(Failure::failed("`raystream call` is not part of this build yet"))
}
