//! The load generator: this disk's own limit, the engine and the broker held against it, sync against async, in about a minute.
//!
//! ```text
//!  plan --> disk probe ─┬─> rows of the engine ─┬─> accounts (verify) --> lines, page, JSON (report)
//!                       └─> rows of the broker ─┘
//! ```
//! Method, schema and how to read the numbers: `perf/README.md`. What is deliberately not here: anything that the log itself needs.

mod broker_rows;
mod checks;
mod clock;
mod disk;
mod engine_rows;
mod error;
mod host;
mod limit;
mod meter;
mod open_loop;
mod out;
mod payload;
mod place;
mod plan;
mod remoting;
mod report;
mod row;
mod sender;
mod serve;
mod topic;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anchorlog::wire::Encoding;
use anchorlog_engine::io::BackendKind;
use anchorlog_engine::io::sys::BlockDevice;
use anchorlog_engine::{BackendChoice, SystemClock};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::disk::DiskProbe;
use crate::error::PerfError;
use crate::host::Host;
use crate::limit::DiskLimits;
use crate::open_loop::Load;
use crate::out::Progress;
use crate::place::Place;
use crate::plan::{Step, Wish};
use crate::report::{Run, html, json, text};
use crate::row::{Producers, RowResult, RowSpec};

/// Measures this disk, the Anchorlog engine and its broker in one run, and reads everything back.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    comparison: Comparison,
}

#[derive(Subcommand)]
enum Command {
    /// Measure any broker that speaks RocketMQ's remoting protocol.
    Broker(Foreign),
    /// Serve for the broker rows.
    #[command(name = broker_rows::SERVE, hide = true)]
    Serve(Serve),
}

#[derive(Args)]
struct Load_ {
    /// Bytes of a message, 64 to 65536; suffixes k and KiB are understood
    #[arg(short, long, default_value = "1024", value_parser = parse_size)]
    size: usize,
    /// Seconds of each row, after its warm-up
    #[arg(long, default_value_t = 2.0, value_parser = parse_seconds)]
    seconds: f64,
    /// Messages per second: open loop, latencies count from when a message was due. Without it: closed loop
    #[arg(long, value_parser = parse_rate)]
    rate: Option<f64>,
    /// How the client writes its headers
    #[arg(long, value_enum, default_value_t = HeaderForm::Json)]
    header: HeaderForm,
    /// Write all numbers to this file (schema: perf/README.md)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the page to this file [default: report.html in the run's directory]
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

impl Load_ {
    fn load(&self) -> Load {
        self.rate.map_or(Load::Closed, |per_s| Load::Open { per_s })
    }
}

#[derive(Args)]
struct Comparison {
    #[command(flatten)]
    load: Load_,
    /// Where the stores go; they are deleted [default: target/anchorlog-perf, or anchorlog-perf-tmp where there is no target]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Run even where the directory lies in memory
    #[arg(long)]
    allow_tmpfs: bool,
    /// Backend of the rows that do not name one
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    backend: Backend,
    /// Only rows whose names contain one of these
    #[arg(long, value_name = "PART,...", value_delimiter = ',')]
    rows: Vec<String>,
    /// Add row engine/async/sustained: so many seconds on recycled segments, with a reader that follows and compares every message
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds, num_args = 0..=1, default_missing_value = "20")]
    sustained: Option<f64>,
    /// Seconds of each setting of the disk probe, three times each
    #[arg(long, default_value_t = 0.3, value_parser = parse_seconds)]
    probe_seconds: f64,
}

#[derive(Args)]
struct Foreign {
    /// The name server
    #[arg(short, long, value_name = "HOST:PORT")]
    namesrv: String,
    /// The topic; made after TBW102 where it does not exist
    #[arg(short, long, default_value = "BenchmarkTest")]
    topic: String,
    /// Connections x sends in flight on each, one row each
    #[arg(long, value_name = "CxN,...", value_delimiter = ',', value_parser = parse_in_flight, default_value = "1x1,64x1,8x64")]
    in_flight: Vec<(usize, usize)>,
    /// So many connections with one send in flight each, instead of --in-flight
    #[arg(short = 'w', long, value_name = "THREADS", conflicts_with = "in_flight")]
    threads: Option<usize>,
    /// A directory on the broker's disk, where it is this machine's: probes that disk and counts its flushes
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    load: Load_,
}

#[derive(Args)]
struct Serve {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long, value_enum)]
    flush: FlushMode,
    #[arg(long, value_enum)]
    backend: Backend,
    #[arg(long)]
    retain_bytes: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum FlushMode {
    Sync,
    Async,
}

#[derive(Clone, Copy, ValueEnum)]
enum Backend {
    /// As the engine finds by measuring
    Auto,
    /// io_uring
    Uring,
    /// Plain system calls
    Threads,
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

#[derive(Clone, Copy, ValueEnum)]
enum HeaderForm {
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

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        None => compare(&cli.comparison),
        Some(Command::Broker(foreign)) => measure_foreign(&foreign),
        Some(Command::Serve(serve)) => {
            let durable = matches!(serve.flush, FlushMode::Sync);
            serve::serve(&serve.dir, durable, serve.backend.into(), serve.retain_bytes).map(|()| true)
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(error) => {
            out::complain(format_args!("anchorlog-perf: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// The comparison; whether all promises about messages were kept.
fn compare(wished: &Comparison) -> Result<bool, PerfError> {
    let place = Place::choose(wished.dir.as_deref(), wished.allow_tmpfs)?;
    let host = Host::look(place.dir());
    let load = wished.load.load();
    announce(&host, &load, wished.load.size, place.warning());
    let steps = plan::steps(&Wish {
        size: wished.load.size,
        seconds: wished.load.seconds,
        backend: wished.backend.into(),
        load,
        sustained: wished.sustained,
        only: &wished.rows,
        has_uring: host.has_uring(),
    });
    let (started_ms, started_ns) = (clock::wall_ms(), clock::now_ns());
    let progress = Progress::new(steps.len() as u64);
    progress.say("disk probe: writing its file".to_owned());
    let mut probe = DiskProbe::create(place.dir()).map_err(PerfError::Disk)?;
    progress.say("which backend is the better one here".to_owned());
    let verdict = Verdict::reach(place.dir(), wished.backend.into())?;
    let mut rows: Vec<RowResult> = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let seed = started_ms.wrapping_mul(1000) + at as u64;
        match step {
            Step::Probe => {
                progress.say("disk probe".to_owned());
                probe.round(wished.probe_seconds).map_err(PerfError::Disk)?;
            }
            Step::Engine(spec) => {
                say(&progress, spec);
                rows.push(verdict.measure(spec, |spec| engine_rows::measure(spec, place.dir(), seed))?);
            }
            Step::Broker(spec) => {
                say(&progress, spec);
                let header = wished.load.header.into();
                rows.push(verdict.measure(spec, |spec| broker_rows::measure(spec, place.dir(), seed, header))?);
            }
        }
        if !matches!(step, Step::Probe) {
            progress.line(&rows.last().map(text::summary).unwrap_or_default());
        }
        progress.step();
    }
    progress.finish();
    let run = Run {
        subject: "comparison: this disk, the engine, the broker".to_owned(),
        started: clock::utc(started_ms),
        seconds: (clock::now_ns() - started_ns) as f64 / clock::SECOND_NS as f64,
        size: wished.load.size,
        load,
        host,
        probe: Some(probe.deep_by()),
        disk: probe.limits(),
        rows,
    };
    drop(probe);
    finish(&run, &wished.load, Some(place.dir().join("report.html")))
}

/// The backend of rows that do not name one: measured once, as the engine does at the first open of a directory, so that all rows of
/// a run are comparable.
struct Verdict {
    kind: BackendChoice,
    reason: String,
}

impl Verdict {
    fn reach(dir: &Path, choice: BackendChoice) -> Result<Verdict, PerfError> {
        if choice != BackendChoice::Auto {
            return Ok(Verdict { kind: choice, reason: String::new() });
        }
        let probe = anchorlog_engine::io::probe::probe(dir, &SystemClock::new()).map_err(PerfError::Disk)?;
        let kind = if probe.kind == BackendKind::Uring { BackendChoice::Uring } else { BackendChoice::Threads };
        Ok(Verdict { kind, reason: format!("{}, chosen once for this run: {}", probe.kind, probe.reason) })
    }

    fn measure(
        &self,
        spec: &RowSpec,
        measure: impl FnOnce(&RowSpec) -> Result<RowResult, PerfError>,
    ) -> Result<RowResult, PerfError> {
        if spec.backend != BackendChoice::Auto {
            return measure(spec);
        }
        let row = measure(&RowSpec { backend: self.kind, ..spec.clone() })?;
        Ok(RowResult { backend: self.reason.clone(), ..row })
    }
}

/// Any broker; whether all promises about messages were kept.
fn measure_foreign(wished: &Foreign) -> Result<bool, PerfError> {
    let dir = wished.dir.clone().unwrap_or_else(|| PathBuf::from("."));
    let host = Host::look(&dir);
    let load = wished.load.load();
    announce(&host, &load, wished.load.size, None);
    let in_flight = wished.threads.map_or_else(|| wished.in_flight.clone(), |count| vec![(count.max(1), 1)]);
    let (started_ms, started_ns) = (clock::wall_ms(), clock::now_ns());
    let progress = Progress::new(in_flight.len() as u64);
    let device = wished.dir.as_deref().and_then(BlockDevice::below);
    let mut probe = wished.dir.as_deref().map(DiskProbe::create).transpose().map_err(PerfError::Disk)?;
    let mut rows = Vec::new();
    for (at, (count, each)) in in_flight.into_iter().enumerate() {
        if let Some(probe) = &mut probe {
            progress.say("disk probe".to_owned());
            probe.round(0.3).map_err(PerfError::Disk)?;
        }
        let spec = RowSpec {
            name: format!("broker/{}", count * each),
            durable: true,
            producers: Producers::Connections { count, each },
            backend: BackendChoice::Auto,
            seconds: wished.load.seconds,
            size: wished.load.size,
            load,
            follow: false,
        };
        say(&progress, &spec);
        let seed = started_ms.wrapping_mul(1000) + at as u64;
        let header = wished.load.header.into();
        let row = broker_rows::measure_foreign(&spec, &wished.namesrv, &wished.topic, seed, header, device.as_ref())?;
        progress.line(&text::summary(&row));
        rows.push(row);
        progress.step();
    }
    progress.finish();
    let run = Run {
        subject: format!("broker behind {}", wished.namesrv),
        started: clock::utc(started_ms),
        seconds: (clock::now_ns() - started_ns) as f64 / clock::SECOND_NS as f64,
        size: wished.load.size,
        load,
        host,
        probe: probe.as_ref().map(DiskProbe::deep_by),
        disk: probe.as_ref().map_or_else(DiskLimits::default, DiskProbe::limits),
        rows,
    };
    drop(probe);
    finish(&run, &wished.load, None)
}

fn announce(host: &Host, load: &Load, size: usize, warning: Option<&str>) {
    for (name, fact) in host.facts() {
        out::line(format_args!("{name:<14} {fact}"));
    }
    out::line(format_args!("{:<14} {size} random bytes each; {}", "messages", load.describe()));
    if let Some(warning) = warning {
        out::complain(format_args!("warning: {warning}"));
    }
    if !host.has_uring() {
        out::complain(format_args!("warning: io_uring is not to be had ({}); rows on it are left out", host.io_uring));
    }
    out::line(format_args!(""));
}

fn say(progress: &Progress, spec: &RowSpec) {
    progress.say(format!("{}: {}", spec.name, spec.producers.describe()));
}

fn finish(run: &Run, wished: &Load_, default_page: Option<PathBuf>) -> Result<bool, PerfError> {
    out::line(format_args!(""));
    for line in text::closing(run) {
        out::line(format_args!("{line}"));
    }
    let save = |path: &Path, text: &str| {
        out::save(path, text).map_err(|source| PerfError::Io { what: "writing", path: path.to_owned(), source })?;
        out::line(format_args!("Written: {}", path.display()));
        Ok::<(), PerfError>(())
    };
    if let Some(path) = &wished.json {
        save(path, &json::document(run)?)?;
    }
    if let Some(path) = wished.report.clone().or(default_page) {
        save(&path, &html::page(run))?;
    }
    Ok(run.verified().is_clean())
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
}
