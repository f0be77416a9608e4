//! The daemon under test, and `raystream bench` against it.

use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{Failure, spec::Measured};

/// A running `raystream dev`.
pub(crate) struct Daemon {
    child: Child,
    program: PathBuf,
    data: PathBuf,
    pub(crate) url: String,
    identity: PathBuf,
}

impl Daemon {
    /// Starts it, with its private Postgres, on a folder.
    pub(crate) fn start(program: &Path, data: &Path) -> Result<Self, Failure> {
        let mut child = clean(program)
            .args(["dev", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(data.join("daemon.log"))?)
            .spawn()?;
        let mut url = String::new();
        BufReader::new(child.stdout.take().ok_or("stdout is piped")?).read_line(&mut url)?;
        if !url.starts_with("raystream://") {
            return Err(format!(
                "the daemon did not start: {}",
                std::fs::read_to_string(data.join("daemon.log"))?
            )
            .into());
        }
        let identity = data.join("client.key");
        if !identity.exists() {
            let made = clean(program).arg("keygen").arg("--out").arg(&identity).output()?;
            if !made.status.success() {
                return Err(String::from_utf8_lossy(&made.stderr).into_owned().into());
            }
        }
        Ok(Self { child, program: program.into(), data: data.into(), url: url.trim().into(), identity })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The folder of the socket of its Postgres.
    pub(crate) fn socket(&self) -> Result<String, Failure> {
        let here = self.data.join("socket");
        if here.exists() {
            return Ok(here.display().to_string());
        }
        Ok(std::fs::read_to_string(self.data.join("socket.path"))?.trim().to_owned())
    }

    /// Calls a method by the command line.
    pub(crate) fn call(&self, method: &str, args: &str) -> Result<Value, Failure> {
        let output = clean(&self.program).args(["call", &self.url, method, args]).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Runs a scenario. `websocket`, `aes` and `ik` in `with` choose transport, cipher and handshake.
    pub(crate) fn bench(
        &self,
        args: &[&str],
        with: &[&str],
        duration: Duration,
    ) -> Result<Measured, Failure> {
        let url = match with.contains(&"websocket") {
            true => self.url.replace("raystream://", "raystream+ws://"),
            false => self.url.clone(),
        };
        let mut command = clean(&self.program);
        command.args(["--json", "bench", &url]).args(args);
        command.args(["--duration", &format!("{}ms", duration.as_millis())]);
        command.args(["--cipher", if with.contains(&"aes") { "aes" } else { "chacha" }]);
        if with.contains(&"ik") {
            command.arg("--identity").arg(&self.identity);
        }
        let output = command.output()?;
        if !output.status.success() {
            return Err(format!("{args:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        let value: Value = serde_json::from_slice(&output.stdout)?;
        if value["errors"].as_object().is_some_and(|errors| !errors.is_empty()) {
            return Err(format!("{args:?}: errors {}", value["errors"]).into());
        }
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        // Seconds for 100,000 are tens of microseconds for one.
        let cpu = |side: &str| number(&value["cpu_s_per_100k"][side]) * 10.0;
        let rates = ["calls_per_s", "connections_per_s", "deliveries_per_s"];
        Ok(Measured {
            p50_us: number(&value["latency_us"]["p50"]),
            per_s: rates.iter().find_map(|rate| value[rate].as_f64()).unwrap_or(f64::NAN),
            cpu_us: cpu("client") + cpu("server"),
            server_cpu_us: cpu("server"),
            kib: number(&value["server_bytes_per_connection"]) / 1024.0,
        })
    }
}

/// The program without the variables that would configure it.
fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RAYSTREAM_"))
    {
        command.env_remove(name);
    }
    command
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
