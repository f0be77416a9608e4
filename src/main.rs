//! The `raystream` program: see [`raystream::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    raystream::cli::main()
}
