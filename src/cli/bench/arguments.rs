//! What `raystream bench` is told.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::{ConnectArguments, Failure};
use crate::server::config::{ByteSize, Period};
use crate::wire::limits::MESSAGE_MAX;

/// The shortest argument of a call: `{"x":""}`.
pub(super) const PAYLOAD_MIN: u64 = 8;
/// The longest: what a message holds, with room for the names around it and for a reply that carries it back.
pub(super) const PAYLOAD_MAX: usize = MESSAGE_MAX - 4 * 1024;
/// What is measured after: caches are warm, buffers have grown, statements are prepared.
const WARM_UP_MAX: Duration = Duration::from_secs(1);

/// Measure how fast a server is from here: calls, rows, live events, handshakes, memory
///
/// Latency is counted in a histogram after a warm-up. Without --rate a new call follows each answer (closed loop). With
/// --rate calls start at their times whatever the answers do, and latency counts from the time a call was meant to start,
/// so that a stall of the server is not hidden; those that a server which does not keep up leaves over are told as
/// `unsent`. A run ends when no connection is left (exit code 2). The processor time of both processes is shown when `sys.info` is granted.
///
/// get, set, query and sub use the table `bench`, which they make and fill when it is not there.
#[derive(Debug, Args)]
pub(in crate::cli) struct BenchArguments {
    #[command(flatten)]
    pub(super) connect: ConnectArguments,
    /// What to measure
    #[arg(value_enum, value_name = "SCENARIO")]
    pub(super) scenario: Scenario,
    /// Connections; for `sub` the subscribers, not for `connect` [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=50_000))]
    connections: Option<u32>,
    /// Calls in flight on each connection; for `sub` the events of a burst, for `connect` handshakes at a time in all, not for
    /// `idle` [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    in_flight: Option<u32>,
    /// Calls a second over all connections (open loop); for echo, get, set, query, bulk and connect
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) rate: Option<u32>,
    /// How long to measure, after a warm-up of a fifth of it or 1s; `idle` ends when the connections have been looked at
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub(super) duration: Period,
    /// Bytes of JSON in a call or a document, not for `connect` and `idle` [default: 64B; sub 256B; bulk 64KiB]
    #[arg(long, value_name = "SIZE")]
    pub(super) payload: Option<ByteSize>,
}

/// The values of `SCENARIO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Scenario {
    /// Calls that the server answers at once
    Echo,
    /// Reads of one document
    Get,
    /// Durable writes of one document
    Set,
    /// Queries by a filter, ten documents each
    Query,
    /// Live events: one writer, every other connection a subscriber
    Sub,
    /// New connections: a full handshake, one call, an orderly end
    Connect,
    /// Large calls, in MB/s
    Bulk,
    /// The server's memory for each open connection
    Idle,
}

impl Scenario {
    /// As it is written on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Get => "get",
            Self::Set => "set",
            Self::Query => "query",
            Self::Sub => "sub",
            Self::Connect => "connect",
            Self::Bulk => "bulk",
            Self::Idle => "idle",
        }
    }

    fn default_payload(self) -> u64 {
        match self {
            Self::Bulk => 64 * 1024,
            Self::Sub => 256,
            _ => 64,
        }
    }
}

impl BenchArguments {
    /// Bytes of JSON.
    ///
    /// # Errors
    /// Shorter or longer than a call can carry.
    pub(super) fn payload(&self) -> Result<usize, Failure> {
        let bytes = self.payload.map_or(self.scenario.default_payload(), ByteSize::get);
        let fits = usize::try_from(bytes).ok().filter(|bytes| *bytes <= PAYLOAD_MAX);
        fits.filter(|_| bytes >= PAYLOAD_MIN).ok_or_else(|| {
            Failure::usage(format!("--payload has to be {PAYLOAD_MIN} to {PAYLOAD_MAX} bytes"))
        })
    }

    /// The part of the run that is not counted.
    pub(super) fn warm_up(&self) -> Duration {
        (self.duration.get() / 5).min(WARM_UP_MAX)
    }

    /// The number of connections.
    pub(super) fn connections(&self) -> u32 {
        self.connections.unwrap_or(1)
    }

    /// The number of calls in flight.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.unwrap_or(1)
    }

    /// Whether an option means something for the scenario.
    pub(super) fn has(&self, option: Meaning) -> bool {
        use Scenario::{Connect, Idle, Sub};
        match option {
            Meaning::Rate => !matches!(self.scenario, Sub | Idle),
            Meaning::Payload => !matches!(self.scenario, Connect | Idle),
            Meaning::InFlight => self.scenario != Idle,
            Meaning::Connections => self.scenario != Connect,
        }
    }

    /// Refuses options that mean nothing together.
    ///
    /// # Errors
    /// An option that means nothing for the scenario; a duration of zero.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.duration.get().is_zero() {
            return Err(Failure::usage("--duration may not be zero"));
        }
        for (option, name, is_given) in [
            (Meaning::Rate, "--rate", self.rate.is_some()),
            (Meaning::Payload, "--payload", self.payload.is_some()),
            (Meaning::InFlight, "--in-flight", self.in_flight.is_some()),
            (Meaning::Connections, "--connections", self.connections.is_some()),
        ] {
            if is_given && !self.has(option) {
                return Err(Failure::usage(format!("{name} means nothing for `{}`", self.scenario.name())));
            }
        }
        self.payload().map(|_| ())
    }
}

/// Options that mean something for some scenarios only.
#[derive(Debug, Clone, Copy)]
pub(super) enum Meaning {
    Rate,
    Payload,
    InFlight,
    Connections,
}

/// A count as a length.
pub(super) fn length(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
