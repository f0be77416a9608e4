//! Instructions of one iteration, counted by valgrind's callgrind, and the list of them that is kept.
//!
//! A count is the difference of two runs of this program, so that start and set-up are not in it. valgrind shows a program
//! the same processor on every machine that has AVX2 (it has no AVX-512 to show), and so the C library and RustCrypto take
//! the same paths on all of them. AWS-LC is not in the list: it chooses its assembly by more than that. Counts are also
//! those of one compiler, which the list names: with another one nothing is compared, and that is said.

use crate::cases::Case;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Command, ExitCode},
};

/// What a count may be away from the list, in parts of it: more than the linker's order of functions makes, less than a
/// change that somebody would want to know of.
const BAND: f64 = 0.05;
/// Iterations of the shorter run.
const ITERATIONS: u64 = 200;
/// The cases of the list.
const KEPT: &[&str] = &[
    "codec: frame of 100 bytes, written and read",
    "codec: RpcCall of 64 bytes, written",
    "codec: RpcCall of 64 bytes, verified and read",
    "record: 64 bytes, sealed, ChaChaPoly rust_crypto",
    "record: 64 bytes, sealed and opened, ChaChaPoly rust_crypto",
    "record: 1024 bytes, sealed, ChaChaPoly rust_crypto",
    "record: 1024 bytes, sealed and opened, ChaChaPoly rust_crypto",
    "calls: 64 bytes there and back, 1 in flight, NK_ChaChaPoly rust_crypto",
    "calls: 64 bytes there and back, 64 in flight, NK_ChaChaPoly rust_crypto",
    "dispatch: sys.echo of 64 bytes",
];

#[derive(serde::Serialize, serde::Deserialize)]
struct List {
    /// `rustc --version` of the counts.
    rustc: String,
    /// Instructions of one iteration.
    instructions: BTreeMap<String, u64>,
}

/// Does what the arguments ask for, if it is of this kind.
pub(crate) fn run(cases: &[Case], arguments: &[String]) -> Option<ExitCode> {
    let first = arguments.first().map(String::as_str)?;
    match first {
        "--only" => {
            let [_, name, iterations] = arguments else { return Some(ExitCode::FAILURE) };
            let case = cases.iter().find(|case| case.name == *name).expect("a name of the list");
            (case.new)()(iterations.parse().expect("a number of iterations"));
            Some(ExitCode::SUCCESS)
        }
        "--instructions" => {
            let words = &arguments[1..];
            for case in cases.iter().filter(|case| words.iter().all(|word| case.name.contains(word.as_str())))
            {
                match count(&case.name) {
                    Some(count) => println!("{:<72} {count:>12} instructions/{}", case.name, case.unit),
                    None => println!("{:<72} {:>12}", case.name, "valgrind did not run"),
                }
            }
            Some(ExitCode::SUCCESS)
        }
        "--check" => Some(check()),
        "--update" => Some(update()),
        _ => None,
    }
}

/// Instructions of one iteration of a case; `None` when valgrind does not run.
fn count(name: &str) -> Option<u64> {
    let run = |n: u64| {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(std::env::current_exe().ok()?)
            .args(["--only", name, &n.to_string()])
            .output()
            .ok()?;
        let report = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = report.lines().find(|line| line.contains("Collected :"))?;
        line.split_whitespace().last()?.parse::<u64>().ok()
    };
    let (once, twice) = (run(ITERATIONS)?, run(2 * ITERATIONS)?);
    Some(twice.saturating_sub(once) / ITERATIONS)
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.toml")
}

fn rustc() -> String {
    let output = Command::new("rustc").arg("--version").output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// Why counts cannot be compared here.
fn obstacle(list: &List) -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("the counts are of x86-64".to_owned());
    }
    let has_avx2 = std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains(" avx2"));
    if !has_avx2 {
        return Some("the counts are of a processor with AVX2".to_owned());
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        return Some("valgrind is not installed (Debian: apt-get install valgrind)".to_owned());
    }
    let here = rustc();
    (here != list.rustc).then(|| format!("the counts are of {}, and this is {here}", list.rustc))
}

fn check() -> ExitCode {
    let text = std::fs::read_to_string(path()).expect("benches/instructions.toml is there");
    let list: List = toml::from_str(&text).expect("benches/instructions.toml is what --update writes");
    if let Some(obstacle) = obstacle(&list) {
        println!("SKIPPED: instructions are not compared: {obstacle}");
        return ExitCode::SUCCESS;
    }
    let mut is_good = list.instructions.len() == KEPT.len();
    for name in KEPT {
        let (kept, counted) = (list.instructions.get(*name).copied(), count(name));
        let verdict = match (kept, counted) {
            (Some(kept), Some(counted)) => {
                let ratio = as_float(counted) / as_float(kept);
                let fits = (ratio - 1.0).abs() <= BAND;
                is_good &= fits;
                let word = if fits { "ok" } else { "OUT OF ITS BAND" };
                format!("{counted:>8}, kept {kept:>8} ({:+.1} %)  {word}", (ratio - 1.0) * 100.0)
            }
            _ => {
                is_good = false;
                "not in the list, or not counted".to_owned()
            }
        };
        println!("{name:<72} {verdict}");
    }
    if is_good {
        return ExitCode::SUCCESS;
    }
    println!(
        "\nA count left its band of {:.0} %. If that is meant: cargo bench --bench conn -- --update",
        BAND * 100.0
    );
    ExitCode::FAILURE
}

fn update() -> ExitCode {
    let counted: Option<BTreeMap<String, u64>> =
        KEPT.iter().map(|name| Some(((*name).to_owned(), count(name)?))).collect();
    let Some(instructions) = counted else {
        println!("valgrind did not run (Debian: apt-get install valgrind)");
        return ExitCode::FAILURE;
    };
    let list = List { rustc: rustc(), instructions };
    let text = toml::to_string_pretty(&list).expect("names and numbers");
    let head = "# Instructions of one iteration: `cargo bench --bench conn -- --check` compares, `-- --update` writes this.\n\n";
    std::fs::write(path(), format!("{head}{text}")).expect("the list can be written");
    println!("{text}");
    ExitCode::SUCCESS
}

/// Counts are far below the 53 bits of a float.
fn as_float(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}
