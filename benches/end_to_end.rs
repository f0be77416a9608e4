//! raystream beside plain TCP, TLS, gRPC, Redis, NATS and Postgres, from one run: builds and starts the package in
//! `benches/end_to_end/`, whose first page says what it does.
//!
//! That package has dependencies that nothing else here needs (a gRPC stack, a TLS stack, certificates). They take about
//! two minutes of processor time to build, so it has a lock file and a target folder of its own, and only this builds it.
#![allow(clippy::print_stderr, reason = "a program for its developers")]

use std::{
    path::Path,
    process::{Command, ExitCode},
};

fn main() -> ExitCode {
    let raystream = Path::new(env!("CARGO_BIN_EXE_raystream"));
    // TARGET/release/raystream
    let target = raystream.ancestors().nth(2).expect("the binary is in a folder of the target folder");
    // What is measured is what is installed.
    let built = Command::new(env!("CARGO"))
        .args(["build", "--profile", "dist", "--locked", "--bin", "raystream", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .status();
    if !built.is_ok_and(|status| status.success()) {
        eprintln!("raystream could not be built as it is installed (cargo build --profile dist)");
        return ExitCode::FAILURE;
    }
    let raystream = target.join("dist/raystream");
    let status = Command::new(env!("CARGO"))
        .args(["run", "--release", "--locked", "--quiet", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/end_to_end/Cargo.toml"))
        .arg("--target-dir")
        .arg(target.join("end_to_end"))
        .args(["--", "--raystream"])
        .arg(raystream)
        .args(std::env::args().skip(1))
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
