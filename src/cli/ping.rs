//! `raystream ping`

use clap::Args;

use super::{ConnectArguments, Failure, GlobalOptions, Output};

/// Measure the handshake and round trips: minimum, median, 99th percentile
#[derive(Debug, Args)]
pub(super) struct PingArguments {
    #[command(flatten)]
    connect: ConnectArguments,
    /// How many round trips
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
}

pub(super) fn run(
    arguments: &PingArguments,
    options: &GlobalOptions,
    output: &mut Output,
) -> Result<(), Failure> {
    let _ = (arguments, options, output);
    Err(Failure::failed("`raystream ping` is not part of this build yet"))
}
