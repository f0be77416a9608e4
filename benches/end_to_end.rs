//! raystream beside plain TCP, TLS, gRPC, Redis, NATS and Postgres, from one run: builds and starts the package in
//! `benches/end_to_end/`, whose first page says what it does.
//!
//! That package has dependencies that nothing else here needs (a gRPC stack, a TLS stack, certificates). They take about
//! two minutes of processor time to build, so it has a lock file and a target folder of its own, and only this builds it.
#![allow(clippy::print_stderr, reason = "a program for its developers")]

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

fn main() -> ExitCode {
    let raystream = Path::new(env!("CARGO_BIN_EXE_raystream"));
    // TARGET/release/raystream
    let target = raystream.ancestors().nth(2).expect("the binary is in a folder of the target folder");
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_profiled = arguments.iter().any(|argument| argument == "--profiled");
    arguments.retain(|argument| argument != "--profiled");
    let Some(raystream) = (if is_profiled { profiled(target) } else { built(target) }) else {
        return ExitCode::FAILURE;
    };
    let status = Command::new(env!("CARGO"))
        .args(["run", "--release", "--locked", "--quiet", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/end_to_end/Cargo.toml"))
        .arg("--target-dir")
        .arg(target.join("end_to_end"))
        .args(["--", "--raystream"])
        .arg(raystream)
        .args(arguments)
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cargo cannot be run: {error}");
            ExitCode::FAILURE
        }
    }
}

/// raystream as `make profiled` has left it.
fn profiled(target: &Path) -> Option<PathBuf> {
    let raystream = target.join("profiled/raystream");
    if raystream.exists() {
        return Some(raystream);
    }
    eprintln!("there is no {}: run `make profiled` first", raystream.display());
    None
}

/// raystream as `cargo install --profile dist` installs it.
fn built(target: &Path) -> Option<PathBuf> {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--profile", "dist", "--locked", "--bin", "raystream", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .status();
    if !built.is_ok_and(|status| status.success()) {
        eprintln!("raystream could not be built as it is installed (cargo build --profile dist)");
        return None;
    }
    Some(target.join("dist/raystream"))
}
