//! Runs the rows in rounds and prints the table.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    Failure, postgres, process,
    raystream::Daemon,
    rows::{self, Job, Row},
    spec::{Measured, Spec},
    tls,
};

/// What is asked for on the command line.
struct Options {
    raystream: PathBuf,
    rounds: usize,
    duration: Duration,
    is_markdown: bool,
    words: Vec<String>,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let mut options = Self {
            raystream: PathBuf::new(),
            rounds: 5,
            duration: Duration::from_secs(2),
            is_markdown: false,
            words: Vec::new(),
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--raystream" => options.raystream = arguments.next().ok_or("--raystream PROGRAM")?.into(),
                "--rounds" => options.rounds = arguments.next().ok_or("--rounds N")?.parse()?,
                "--quick" => (options.rounds, options.duration) = (2, Duration::from_millis(300)),
                "--markdown" => options.is_markdown = true,
                "--bench" => {}
                flag if flag.starts_with('-') => return Err(format!("there is no option {flag}").into()),
                word => options.words.push(word.to_owned()),
            }
        }
        if options.raystream.as_os_str().is_empty() {
            return Err("--raystream PROGRAM is missing: use `cargo bench --bench end_to_end`".into());
        }
        Ok(options)
    }

    fn wants(&self, row: &Row) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| row.name.contains(word.as_str()))
    }
}

/// A server of the comparison; killed when dropped.
struct Server {
    child: Child,
    address: Option<SocketAddr>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything that runs.
struct Stage {
    options: Options,
    folder: PathBuf,
    servers: BTreeMap<&'static str, Option<Server>>,
    daemon: Option<Daemon>,
    table: String,
}

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let options = Options::parse(arguments)?;
    let core = process::pin()?;
    eprintln!("everything runs on core {core}; {} rounds", options.rounds);
    let folder = std::env::temp_dir().join(format!("raystream-e2e-{}", std::process::id()));
    fs::create_dir_all(folder.join("data"))?;
    tls::make(&folder)?;
    let mut stage = Stage {
        options,
        folder: folder.clone(),
        servers: BTreeMap::new(),
        daemon: None,
        table: String::new(),
    };
    let result = stage.run();
    drop(stage);
    let _ = fs::remove_dir_all(folder);
    result
}

impl Stage {
    fn run(&mut self) -> Result<(), Failure> {
        self.start_daemon()?;
        self.prepare()?;
        let mut rows = rows::all();
        rows.retain(|row| self.options.wants(row));
        let mut rounds: Vec<Vec<BTreeMap<&str, f64>>> = vec![Vec::new(); rows.len()];
        for round in 0..self.options.rounds {
            for (row, figures) in rows.iter().zip(&mut rounds) {
                eprint!("round {} of {}: {:<12}", round + 1, self.options.rounds, row.name);
                figures.push(self.round(row)?);
                eprintln!();
            }
        }
        let mut out = std::io::stdout().lock();
        for (row, figures) in rows.iter().zip(&rounds) {
            let text = if self.options.is_markdown { markdown(row, figures) } else { text(row, figures) };
            writeln!(out, "{text}")?;
        }
        Ok(())
    }

    /// Measures every peer of a row once.
    fn round(&mut self, row: &Row) -> Result<BTreeMap<&'static str, f64>, Failure> {
        let mut figures = BTreeMap::new();
        for (name, job) in &row.peers {
            let measured = match job {
                Job::Raystream { args, with } => {
                    if row.is_fresh || self.daemon.is_none() {
                        self.start_daemon()?;
                    }
                    let daemon = self.daemon.as_ref().ok_or("the daemon runs")?;
                    daemon.bench(args, with, self.options.duration).map(Some)
                }
                Job::Peer { client, server, aes } => {
                    if row.is_fresh {
                        self.servers.remove(server);
                    }
                    self.measure(row, client, server, *aes)
                }
            };
            match measured.map_err(|error| format!("{}, {name}: {error}", row.name))? {
                Some(measured) => {
                    let figure = (row.figure)(&measured);
                    eprint!(" {name} {}", short(figure));
                    figures.insert(*name, figure);
                }
                None => eprint!(" {name} SKIPPED"),
            }
        }
        Ok(figures)
    }

    /// One measurement in a process of its own; `None` when the server is not installed.
    fn measure(
        &mut self,
        row: &Row,
        client: &str,
        server: &'static str,
        aes: bool,
    ) -> Result<Option<Measured>, Failure> {
        let (address, pid, folder) = if server == "postgres" {
            let daemon = self.daemon.as_ref().ok_or("the daemon runs")?;
            (None, None, daemon.socket()?)
        } else {
            if !self.servers.contains_key(server) {
                let started = start(server, &self.folder, aes)?;
                self.servers.insert(server, started);
            }
            let Some(server) = &self.servers[server] else { return Ok(None) };
            (server.address, Some(server.child.id()), self.folder.display().to_string())
        };
        let spec = Spec {
            client: client.to_owned(),
            mode: row.mode.to_owned(),
            address,
            folder,
            server: pid,
            connections: row.connections,
            in_flight: row.in_flight,
            payload: row.payload,
            aes,
            duration: self.options.duration,
            table: self.table.clone(),
        };
        let output = Command::new(std::env::current_exe()?).args(["measure", &spec.to_json()]).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        Measured::from_json(&String::from_utf8_lossy(&output.stdout)).map(Some)
    }

    fn start_daemon(&mut self) -> Result<(), Failure> {
        self.daemon = None;
        self.daemon = Some(Daemon::start(&self.options.raystream, &self.folder.join("data"))?);
        Ok(())
    }

    /// Fills the table that is read, and finds out where it is.
    fn prepare(&mut self) -> Result<(), Failure> {
        let daemon = self.daemon.as_ref().ok_or("the daemon runs")?;
        daemon.bench(&["get"], &[], Duration::from_millis(50))?;
        let ptr = daemon.call("table.ptr", r#"{"table":"bench"}"#)?;
        self.table = ptr["ptr"].as_str().ok_or("no table")?.to_owned();
        process::runtime()?.block_on(postgres::prepare(&daemon.socket()?))?;
        eprintln!("the daemon is process {}", daemon.pid());
        Ok(())
    }
}

/// Starts a server; `None`, said loudly, when it is not installed.
fn start(server: &'static str, folder: &Path, aes: bool) -> Result<Option<Server>, Failure> {
    let (certificate, key) = (folder.join(tls::CERTIFICATE), folder.join(tls::KEY));
    let mut command = match server {
        "redis" => {
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--port", "0", "--save", "", "--appendonly", "no"]);
            command.args(["--tls-auth-clients", "no", "--tls-protocols", "TLSv1.3"]);
            command.args([
                "--tls-ciphersuites",
                "TLS_CHACHA20_POLY1305_SHA256",
                "--tls-session-caching",
                "no",
            ]);
            command.arg("--tls-cert-file").arg(&certificate).arg("--tls-key-file").arg(&key);
            command.arg("--tls-ca-cert-file").arg(&certificate).arg("--tls-port");
            command
        }
        "nats" | "nats-tls" => {
            let mut command = Command::new("nats-server");
            if server == "nats-tls" {
                command.arg("--tls").arg("--tlscert").arg(&certificate).arg("--tlskey").arg(&key);
            }
            command.args(["-a", "127.0.0.1", "-p"]);
            command
        }
        peer => return start_peer(peer, folder, aes).map(Some),
    };
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let started = command
        .arg(port.to_string())
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let child = match started {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!(
                "\nSKIPPED: {server} is not measured, because it is not installed (Debian: apt-get install \
                       redis-server nats-server)"
            );
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        if begun.elapsed() > Duration::from_secs(10) {
            return Err(format!("{server} does not listen").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Some(Server { child, address: Some(address) }))
}

/// This program again, as a server.
fn start_peer(server: &str, folder: &Path, aes: bool) -> Result<Server, Failure> {
    let kind = server.strip_suffix("-aes").unwrap_or(server);
    let mut child = Command::new(std::env::current_exe()?)
        .args(["peer", kind])
        .arg(folder)
        .arg(if aes { "aes" } else { "chacha" })
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("stdout is piped")?).read_line(&mut line)?;
    Ok(Server { child, address: Some(line.trim().parse()?) })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => (values[len / 2 - 1] + values[len / 2]) / 2.0,
    }
}

/// The medians of a row by column, and of each thing that must be reached.
fn medians(row: &Row, rounds: &[BTreeMap<&str, f64>]) -> (Vec<(&'static str, f64)>, Vec<Option<f64>>) {
    let of = |name: &str| median(rounds.iter().filter_map(|round| round.get(name).copied()).collect());
    let columns = row.peers.iter().map(|(name, _)| (*name, of(name))).collect();
    let has_all = |round: &&BTreeMap<&str, f64>| row.peers.iter().all(|(name, _)| round.contains_key(name));
    let musts = row.musts.iter().map(|must| {
        let values: Vec<f64> = rounds.iter().filter(has_all).map(must.value).collect();
        (!values.is_empty()).then(|| median(values))
    });
    (columns, musts.collect())
}

fn verdicts(row: &Row, musts: &[Option<f64>]) -> Vec<(String, &'static str)> {
    let verdict = |(must, value): (&rows::Must, &Option<f64>)| {
        let sign = if must.at_most { "<=" } else { ">=" };
        match value {
            Some(value) => {
                let word = if must.is_reached(*value) { "reached" } else { "MISSED" };
                (format!("{sign} {}: {}", must.text, short(*value)), word)
            }
            None => (format!("{sign} {}", must.text), "not measured"),
        }
    };
    row.musts.iter().zip(musts).map(verdict).collect()
}

fn text(row: &Row, rounds: &[BTreeMap<&str, f64>]) -> String {
    let (columns, musts) = medians(row, rounds);
    let ours = columns.iter().find(|(name, _)| *name == "raystream").map_or(f64::NAN, |(_, value)| *value);
    let mut text = format!("\n{} ({}) [{}]", row.title, row.unit, row.name);
    for (name, value) in columns {
        let ratio = ours / value;
        let ratio = if name == "raystream" || !ratio.is_finite() {
            String::new()
        } else {
            format!("   raystream / this {ratio:.2}")
        };
        text.push_str(&format!("\n  {name:<16} {:>12}{ratio}", short(value)));
    }
    for (must, word) in verdicts(row, &musts) {
        text.push_str(&format!("\n  must {must}   {word}"));
    }
    text
}

fn markdown(row: &Row, rounds: &[BTreeMap<&str, f64>]) -> String {
    let (columns, musts) = medians(row, rounds);
    let shown: Vec<String> =
        columns.iter().map(|(name, value)| format!("{name} {}", short(*value))).collect();
    let verdicts: Vec<String> =
        verdicts(row, &musts).into_iter().map(|(must, word)| format!("{must} {word}")).collect();
    format!("| {}, {} | {} | {} |", row.title, row.unit, shown.join(" · "), verdicts.join("; "))
}

/// Three digits that count; thousands as they are spoken.
fn short(value: f64) -> String {
    match value {
        value if !value.is_finite() => "-".to_owned(),
        value if value >= 1e6 => format!("{:.2} M", value / 1e6),
        value if value >= 1e4 => format!("{:.1} k", value / 1e3),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
