//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use anchorlog::wire::Encoding;
use anchorlog_engine::BackendChoice;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::open_loop::Load;
use crate::{long_log, payload, sender, served};

/// Measures this disk, the Anchorlog engine and its broker in one run, and reads everything back.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) comparison: Comparison,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Measure any broker that speaks RocketMQ's remoting protocol.
    Broker(Foreign),
    /// Measure the disk's own limit only.
    Disk(DiskOnly),
    /// Measure what a long log costs when it is opened, and many queues when they are appended to.
    Opening(Opening),
    /// Measure what a reader far behind, zero-filling and checkpoints cost durable appends.
    Beside(Beside),
    /// Measure what a thousand connections that send garbage, half a frame, or nothing cost those who work.
    Garbage(Garbage),
    /// Measure what the second copy costs: sync and async flush, by sync and async replication, on a leader and its slave.
    Matrix(Matrix),
    /// Measure the chain above the log: transactions, delays, retries, order and commits, and all of it together on two brokers.
    Chain(Chain),
    /// Serve for the broker rows.
    #[command(name = served::SERVE, hide = true)]
    Serve(Serve),
    /// Open a long log, for `opening`.
    #[command(name = long_log::REOPEN, hide = true)]
    Reopen(Reopen),
}

/// The messages, and where the numbers go.
#[derive(Args)]
pub(crate) struct Messages {
    /// Bytes of a message, 64 to 65536; suffixes k and KiB are understood
    #[arg(short, long, default_value = "1024", value_parser = parse_size)]
    pub(crate) size: usize,
    /// Seconds of each row, after its warm-up
    #[arg(long, default_value_t = 1.2, value_parser = parse_seconds)]
    pub(crate) seconds: f64,
    /// Messages per second: open loop, latencies count from when a message was due. Without it: closed loop
    #[arg(long, value_parser = parse_rate)]
    pub(crate) rate: Option<f64>,
    /// How the client writes its headers
    #[arg(long, value_enum, default_value_t = HeaderForm::Json)]
    pub(crate) header: HeaderForm,
    /// Write all numbers to this file (schema: perf/README.md)
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the page to this file [default: report.html in the run's directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

impl Messages {
    /// Closed or open loop.
    pub(crate) fn load(&self) -> Load {
        self.rate.map_or(Load::Closed, |per_s| Load::Open { per_s })
    }
}

/// Where a run writes.
#[derive(Args)]
pub(crate) struct Stores {
    /// Where the stores go; they are deleted [default: target/anchorlog-perf, or anchorlog-perf-tmp where there is no target]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Run even where the directory lies in memory
    #[arg(long)]
    pub(crate) allow_tmpfs: bool,
}

/// The comparison.
#[derive(Args)]
pub(crate) struct Comparison {
    #[command(flatten)]
    pub(crate) load: Messages,
    #[command(flatten)]
    pub(crate) stores: Stores,
    /// Backend of the rows that do not name one
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    pub(crate) backend: Backend,
    /// Only rows whose names contain one of these
    #[arg(long, value_name = "PART,...", value_delimiter = ',')]
    pub(crate) rows: Vec<String>,
    /// Add row engine/async/sustained: so many seconds on recycled segments, with a reader that follows and compares every message
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, num_args = 0..=1, default_missing_value = "20")]
    pub(crate) sustained: Option<f64>,
    /// Every row for an instant, in small stores: shows that everything works, says nothing about speed
    #[arg(long, conflicts_with_all = ["seconds", "sustained", "probe_seconds"])]
    pub(crate) smoke: bool,
    /// Seconds of each setting of the disk probe, three times each
    #[arg(long, default_value_t = 0.3, value_parser = parse_seconds)]
    pub(crate) probe_seconds: f64,
}

/// Any broker.
#[derive(Args)]
pub(crate) struct Foreign {
    /// The name server
    #[arg(short, long, value_name = "HOST:PORT")]
    pub(crate) namesrv: String,
    /// The topic; made after TBW102 where it does not exist
    #[arg(short, long, default_value = "BenchmarkTest")]
    pub(crate) topic: String,
    /// Connections x sends in flight on each, one row each
    #[arg(long, value_name = "CxN,...", value_delimiter = ',', value_parser = parse_in_flight, default_value = "1x1,64x1,8x64")]
    pub(crate) in_flight: Vec<(usize, usize)>,
    /// So many connections with one send in flight each, instead of --in-flight
    #[arg(short = 'w', long, value_name = "THREADS", conflicts_with = "in_flight")]
    pub(crate) threads: Option<usize>,
    /// A directory on the broker's disk, where it is this machine's: probes that disk and counts its flushes
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) load: Messages,
}

/// The disk alone.
#[derive(Args)]
pub(crate) struct DiskOnly {
    /// Where the file goes that is overwritten [default: target/anchorlog-perf, or anchorlog-perf-tmp where there is no target]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Run even where the directory lies in memory
    #[arg(long)]
    pub(crate) allow_tmpfs: bool,
    /// Seconds of each setting in each round
    #[arg(long, default_value_t = 1.0, value_parser = parse_seconds)]
    pub(crate) probe_seconds: f64,
    /// Rounds; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Write all numbers to this file (schema: perf/README.md)
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// A long log.
#[derive(Args)]
pub(crate) struct Opening {
    /// Where the log goes; it is deleted [default: target/anchorlog-perf, or anchorlog-perf-tmp where there is no target]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Run even where the directory lies in memory
    #[arg(long)]
    pub(crate) allow_tmpfs: bool,
    /// Messages of the log that is opened
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) messages: u64,
    /// Bytes of a message
    #[arg(short, long, default_value = "1024", value_parser = parse_size)]
    pub(crate) size: usize,
    /// Queues, against one
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) queues: u32,
    /// Table entries beside the messages
    #[arg(long, default_value_t = 0)]
    pub(crate) entries: u64,
    /// What is measured
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [OpeningPart::Rates, OpeningPart::Open])]
    pub(crate) parts: Vec<OpeningPart>,
}

/// What can be measured of a long log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OpeningPart {
    /// Append rates, of one queue and of many
    Rates,
    /// Opening it, and what that and serving take of memory
    Open,
    /// Finding its messages by their keys
    Keys,
}

/// What goes on beside appends.
#[derive(Args)]
pub(crate) struct Beside {
    #[command(flatten)]
    pub(crate) stores: Stores,
    /// Bytes of a message beside the reader
    #[arg(short, long, default_value = "1024", value_parser = parse_size)]
    pub(crate) size: usize,
    /// Seconds of each turn
    #[arg(long, default_value_t = 3.0, value_parser = parse_seconds)]
    pub(crate) seconds: f64,
    /// How long the log is that the reader has before it
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(256..=65_536))]
    pub(crate) behind_mib: u64,
    /// What is measured
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [BesidePart::Reader, BesidePart::Filler, BesidePart::Checkpoints])]
    pub(crate) parts: Vec<BesidePart>,
}

/// What can go on beside appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BesidePart {
    /// A reader that is far behind
    Reader,
    /// Zeros for segments to come
    Filler,
    /// Checkpoints
    Checkpoints,
}

/// Strangers beside those who work.
#[derive(Args)]
pub(crate) struct Garbage {
    #[command(flatten)]
    pub(crate) stores: Stores,
    /// Bytes of a message
    #[arg(short, long, default_value = "1024", value_parser = parse_size)]
    pub(crate) size: usize,
    /// Seconds of each turn
    #[arg(long, default_value_t = 3.0, value_parser = parse_seconds)]
    pub(crate) seconds: f64,
    /// How many strangers there are
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    pub(crate) connections: usize,
    /// What they do
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Stranger::ALL)]
    pub(crate) kinds: Vec<Stranger>,
    /// What an ack of those who work means
    #[arg(long, value_enum, default_value_t = Mode::Sync)]
    pub(crate) flush: Mode,
    /// How the log is written
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    pub(crate) backend: Backend,
    /// Few strangers, one short turn: shows that everything works, says nothing about speed
    #[arg(long, conflicts_with_all = ["seconds"])]
    pub(crate) smoke: bool,
    /// Write all numbers to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// What a stranger does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stranger {
    /// Sends random bytes, and comes again a second after it was turned away
    Garbage,
    /// Announces a frame, and drips it, a byte a second
    Half,
    /// Says nothing
    Silent,
    /// A third of each
    Mixed,
}

impl Stranger {
    const ALL: [Stranger; 4] = [Stranger::Garbage, Stranger::Half, Stranger::Silent, Stranger::Mixed];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stranger::Garbage => "garbage",
            Stranger::Half => "half",
            Stranger::Silent => "silent",
            Stranger::Mixed => "mixed",
        }
    }

    /// What the one of this number does.
    pub(crate) fn of(self, number: usize) -> Stranger {
        match self {
            Stranger::Mixed => [Stranger::Garbage, Stranger::Half, Stranger::Silent][number % 3],
            other => other,
        }
    }
}

/// Opens a long log, for `opening`.
#[derive(Args)]
pub(crate) struct Reopen {
    #[arg(long)]
    pub(crate) dir: PathBuf,
    #[arg(long)]
    pub(crate) messages: u64,
    #[arg(long)]
    pub(crate) size: usize,
    #[arg(long)]
    pub(crate) queues: u32,
    #[arg(long)]
    pub(crate) entries: u64,
    #[arg(long)]
    pub(crate) serves: bool,
}

/// The four combinations.
#[derive(Args)]
pub(crate) struct Matrix {
    #[command(flatten)]
    pub(crate) load: Messages,
    /// Where the leader's stores go; they are deleted [default: target/anchorlog-perf, or anchorlog-perf-tmp where there is no target]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Where the slave's stores go, on another disk if there is one [default: beside the leader's]
    #[arg(long, value_name = "DIR")]
    pub(crate) slave_dir: Option<PathBuf>,
    /// Run even where a directory lies in memory
    #[arg(long)]
    pub(crate) allow_tmpfs: bool,
    /// Backend of both brokers
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    pub(crate) backend: Backend,
    /// Only rows whose names contain one of these
    #[arg(long, value_name = "PART,...", value_delimiter = ',')]
    pub(crate) rows: Vec<String>,
    /// Then let a slave that is so many MiB behind catch up, with an idle leader and with a busy one
    #[arg(long, value_name = "MIB", num_args = 0..=1, default_missing_value = "1024", value_parser = clap::value_parser!(u64).range(16..=65_536))]
    pub(crate) catch_up: Option<u64>,
    /// Every row for an instant, in small stores: shows that everything works, says nothing about speed
    #[arg(long, conflicts_with_all = ["seconds", "probe_seconds"])]
    pub(crate) smoke: bool,
    /// Seconds of each setting of the disk probe, three times each
    #[arg(long, default_value_t = 0.3, value_parser = parse_seconds)]
    pub(crate) probe_seconds: f64,
}

/// The chain above the log.
#[derive(Args)]
pub(crate) struct Chain {
    #[command(flatten)]
    pub(crate) load: Messages,
    #[command(flatten)]
    pub(crate) stores: Stores,
    /// Backend of all brokers
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    pub(crate) backend: Backend,
    /// Only rows whose names contain one of these
    #[arg(long, value_name = "PART,...", value_delimiter = ',')]
    pub(crate) rows: Vec<String>,
    /// Delayed messages that are pending in row broker/delay/pending; nine of ten fall due within one second
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    pub(crate) pending: u64,
    /// Every row for an instant, in small stores: shows that everything works, says nothing about speed
    #[arg(long, conflicts_with_all = ["seconds", "probe_seconds", "pending"])]
    pub(crate) smoke: bool,
    /// Seconds of each setting of the disk probe, three times each
    #[arg(long, default_value_t = 0.3, value_parser = parse_seconds)]
    pub(crate) probe_seconds: f64,
}

/// Our own broker.
#[derive(Args)]
pub(crate) struct Serve {
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Where clients reach it; port 0 is any
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    #[arg(long, value_enum)]
    pub(crate) flush: Mode,
    #[arg(long, value_enum)]
    pub(crate) backend: Backend,
    #[arg(long)]
    pub(crate) retain_bytes: Option<u64>,
    #[arg(long)]
    pub(crate) spare_count: usize,
    #[arg(long)]
    pub(crate) segment_bytes: u64,
    /// How old a half message is when its producer is asked
    #[arg(long)]
    pub(crate) ask_after_ms: Option<u64>,
    /// What it is in its pair; without it, it is alone
    #[arg(long, value_enum, requires_all = ["replication", "replicas"])]
    pub(crate) role: Option<Role>,
    #[arg(long, value_enum)]
    pub(crate) replication: Option<Mode>,
    /// Where replicas reach this one, where clients reach the other one, where replicas reach it
    #[arg(long, value_name = "OWN,OTHER,OTHER", value_delimiter = ',')]
    pub(crate) replicas: Vec<SocketAddr>,
}

/// What a broker is in its pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    Leader,
    Slave,
}

/// Whether an answer waits: for the leader's flush, or for the slave's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    Sync,
    Async,
}

impl Mode {
    /// As names of rows and the command line have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Sync => "sync",
            Mode::Async => "async",
        }
    }

    /// The mode that waits, or the one that does not.
    pub(crate) fn of(waits: bool) -> Mode {
        if waits { Mode::Sync } else { Mode::Async }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Backend {
    /// As the engine finds by measuring
    Auto,
    /// io_uring
    Uring,
    /// Plain system calls
    Threads,
}

impl Role {
    /// As the command line has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Slave => "slave",
        }
    }
}

impl From<Backend> for BackendChoice {
    fn from(backend: Backend) -> BackendChoice {
        match backend {
            Backend::Auto => BackendChoice::Auto,
            Backend::Uring => BackendChoice::Uring,
            Backend::Threads => BackendChoice::Threads,
        }
    }
}

/// How requests are written.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum HeaderForm {
    /// As every client sends them unless told otherwise
    Json,
    /// The compact form
    Binary,
}

impl From<HeaderForm> for Encoding {
    fn from(form: HeaderForm) -> Encoding {
        match form {
            HeaderForm::Json => Encoding::Json,
            HeaderForm::Binary => Encoding::Binary,
        }
    }
}

fn parse_size(text: &str) -> Result<usize, String> {
    let lower = text.to_ascii_lowercase();
    let digits =
        lower.trim_end_matches("kib").trim_end_matches("kb").trim_end_matches('k').trim_end_matches('b').trim();
    let unit = if lower.contains('k') { 1024 } else { 1 };
    let size = digits.parse::<usize>().ok().and_then(|size| size.checked_mul(unit)).unwrap_or(0);
    if (payload::SIZE_MIN..=payload::SIZE_MAX).contains(&size) {
        Ok(size)
    } else {
        Err(format!("{} to {} bytes", payload::SIZE_MIN, payload::SIZE_MAX))
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|seconds| (0.01..=86_400.0).contains(seconds)).ok_or("0.01 to 86400 seconds".to_owned())
}

fn parse_rate(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|rate| (1.0..=1e9).contains(rate)).ok_or("1 to 1000000000 messages per second".to_owned())
}

fn parse_in_flight(text: &str) -> Result<(usize, usize), String> {
    let parsed = text.split_once(['x', '*']).and_then(|(count, each)| Some((count.parse().ok()?, each.parse().ok()?)));
    parsed
        .filter(|(count, each)| (1..=4096).contains(count) && (1..=sender::SLOTS_MAX).contains(each))
        .ok_or(format!("connections x sends in flight, such as 8x64; at most 4096x{}", sender::SLOTS_MAX))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_are_read_with_and_without_unit() {
        assert_eq!([parse_size("1024"), parse_size("1k"), parse_size("64KiB")], [Ok(1024), Ok(1024), Ok(65_536)]);
        assert!(parse_size("63").is_err() && parse_size("65k").is_err() && parse_size("much").is_err());
    }

    #[test]
    fn loads_are_read_as_connections_by_sends() {
        assert_eq!(parse_in_flight("8x64"), Ok((8, 64)));
        assert!(parse_in_flight("8").is_err() && parse_in_flight("0x1").is_err() && parse_in_flight("1x1001").is_err());
    }

    #[test]
    fn a_sustained_row_has_a_length_of_its_own() {
        let cli = Cli::parse_from(["anchorlog-perf", "--sustained"]);
        assert_eq!(cli.comparison.sustained, Some(20.0));
        let cli = Cli::parse_from(["anchorlog-perf", "broker", "-n", "h:1", "-w", "64", "-s", "128"]);
        let Some(Command::Broker(foreign)) = cli.command else { panic!("it is the broker command") };
        assert_eq!((foreign.threads, foreign.load.size), (Some(64), 128));
    }

    #[test]
    fn catching_up_is_asked_for_with_or_without_a_lag() {
        for (words, lag) in [(vec![], None), (vec!["--catch-up"], Some(1024)), (vec!["--catch-up", "64"], Some(64))] {
            let cli = Cli::parse_from(["anchorlog-perf", "matrix"].into_iter().chain(words));
            let Some(Command::Matrix(matrix)) = cli.command else { panic!("it is the matrix command") };
            assert_eq!(matrix.catch_up, lag);
        }
    }

    #[test]
    fn the_chain_is_asked_for_with_so_many_pending() {
        for (words, pending) in [(vec![], 100_000), (vec!["--pending", "1000000"], 1_000_000)] {
            let cli = Cli::parse_from(["anchorlog-perf", "chain"].into_iter().chain(words));
            let Some(Command::Chain(chain)) = cli.command else { panic!("it is the chain command") };
            assert_eq!(chain.pending, pending);
        }
        assert!(Cli::try_parse_from(["anchorlog-perf", "chain", "--smoke", "--pending", "1000"]).is_err());
    }

    #[test]
    fn a_broker_of_a_pair_is_told_of_the_other_one() {
        let alone = [
            "anchorlog-perf",
            "serve",
            "--dir=d",
            "--flush=sync",
            "--backend=auto",
            "--spare-count=1",
            "--segment-bytes=1",
        ];
        let with = |words: &[&'static str]| Cli::try_parse_from(alone.iter().chain(words));
        assert!(with(&[]).is_ok());
        assert!(with(&["--role=slave"]).is_err(), "a role needs to know the other one");
        let pair = ["--role=slave", "--replication=sync", "--replicas=127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"];
        let Ok(Some(Command::Serve(served))) = with(&pair).map(|cli| cli.command) else {
            panic!("it is the serve command")
        };
        assert_eq!((served.role, served.replicas[2].port()), (Some(Role::Slave), 3));
    }
}
