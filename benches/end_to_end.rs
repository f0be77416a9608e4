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
    let programs = if is_profiled { profiled(target) } else { built(target) };
    let Some((raystream, mut peers)) = programs else { return ExitCode::FAILURE };
    match peers.arg("--raystream").arg(raystream).args(arguments).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the benchmark cannot be run: {error}");
            ExitCode::FAILURE
        }
    }
}

/// raystream and its peers as `make profiled profiled-peers` has left them.
fn profiled(target: &Path) -> Option<(PathBuf, Command)> {
    let [raystream, peers] =
        ["raystream", "raystream-end-to-end"].map(|name| target.join("profiled").join(name));
    for program in [&raystream, &peers] {
        if !program.exists() {
            eprintln!("there is no {}: run `make profiled profiled-peers` first", program.display());
            return None;
        }
    }
    Some((raystream, Command::new(peers)))
}

/// raystream as `cargo install --profile dist` installs it, and the package of its peers.
fn built(target: &Path) -> Option<(PathBuf, Command)> {
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
    let mut peers = Command::new(env!("CARGO"));
    peers
        .args(["run", "--release", "--locked", "--quiet", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/end_to_end/Cargo.toml"))
        .arg("--target-dir")
        .arg(target.join("end_to_end"))
        .arg("--");
    Some((target.join("dist/raystream"), peers))
}
