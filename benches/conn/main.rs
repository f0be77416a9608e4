//! What the core costs: codec, record protection, handshakes, calls between two ends in memory, dispatch; by provider.
//!
//! ```text
//! cargo bench --bench conn                      time, by criterion
//! cargo bench --bench conn -- calls             cases whose name holds "calls"
//! cargo bench --bench conn -- --instructions    instructions of every case, counted by valgrind's callgrind
//! cargo bench --bench conn -- --check           those of benches/instructions.toml: none is 5 % away from what stands there
//! cargo bench --bench conn -- --update          writes that file anew
//! ```
//!
//! Time depends on the machine and on its neighbours; counts do not, so they are what CI compares.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for its developers")]

mod cases;
mod instructions;

use criterion::Criterion;
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

fn main() -> ExitCode {
    let cases = cases::all();
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let Some(exit) = instructions::run(&cases, &arguments) {
        return exit;
    }
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .configure_from_args();
    for case in &cases {
        criterion.bench_function(&case.name, |bencher| {
            let mut run = (case.new)();
            bencher.iter_custom(|iterations| {
                let start = Instant::now();
                run(iterations);
                start.elapsed()
            });
        });
    }
    criterion.final_summary();
    ExitCode::SUCCESS
}
