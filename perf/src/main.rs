//! The load generator: this disk's own limit, the engine and the broker held against it, sync against async, in about a minute.
//!
//! ```text
//!  plan --> disk probe ─┬─> rows of the engine ─┬─> accounts (verify) --> lines, page, JSON (report)
//!                       └─> rows of the broker ─┘
//! ```
//! Method, schema and how to read the numbers: `perf/README.md`. What is deliberately not here: anything that the log itself needs.

mod beside;
mod broker_rows;
mod catch_up;
mod chain;
mod checks;
mod cli;
mod clock;
mod disk;
mod engine_rows;
mod error;
mod garbage;
mod host;
mod limit;
mod long_log;
mod matrix;
mod meter;
mod open_loop;
mod opening;
mod out;
mod pair;
mod payload;
mod place;
mod plan;
mod prepared;
mod remoting;
mod report;
mod row;
mod sender;
mod serve;
mod served;
mod topic;
mod verify;
mod wires;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anchorlog_engine::io::BackendKind;
use anchorlog_engine::io::sys::BlockDevice;
use anchorlog_engine::{BackendChoice, SystemClock};
use clap::Parser;

use crate::chain::Bench;
use crate::cli::{Beside, Chain, Cli, Command, Comparison, DiskOnly, Foreign, Garbage, Matrix, Messages, Opening};
use crate::disk::DiskProbe;
use crate::error::PerfError;
use crate::host::Host;
use crate::limit::DiskLimits;
use crate::matrix::PairSpec;
use crate::open_loop::Load;
use crate::out::Progress;
use crate::place::Place;
use crate::plan::{Step, Wish};
use crate::report::{Run, html, json, text};
use crate::row::{Producers, RowResult, RowSpec};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        None => compare(&cli.comparison),
        Some(Command::Broker(foreign)) => measure_foreign(&foreign),
        Some(Command::Disk(disk)) => measure_disk(&disk).map(|()| true),
        Some(Command::Opening(wished)) => measure_opening(&wished).map(|()| true),
        Some(Command::Beside(wished)) => measure_beside(&wished).map(|()| true),
        Some(Command::Garbage(wished)) => measure_garbage(&wished),
        Some(Command::Matrix(wished)) => measure_matrix(&wished),
        Some(Command::Chain(wished)) => measure_chain(&wished),
        Some(Command::Serve(wished)) => serve::serve(&wished).map(|()| true),
        Some(Command::Reopen(wished)) => long_log::reopen(&wished).map(|()| true),
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
    let place = Place::choose(wished.stores.dir.as_deref(), wished.stores.allow_tmpfs)?;
    let host = Host::look(place.dir());
    let load = wished.load.load();
    announce(&host, place.warning());
    announce_messages(&wished.load);
    let smoke = wished.smoke;
    let (scale, seconds, probe_seconds) =
        if smoke { (&row::SMOKE, 0.1, 0.02) } else { (&row::FULL, wished.load.seconds, wished.probe_seconds) };
    let wish = Wish {
        size: wished.load.size,
        seconds,
        backend: wished.backend.into(),
        load,
        sustained: if smoke { Some(seconds) } else { wished.sustained },
        only: &wished.rows,
        has_uring: host.has_uring(),
        scale,
    };
    plan::check_parts(&wished.rows, |only| plan::row_names(&plan::steps(&Wish { only, ..wish })))?;
    let steps = plan::steps(&wish);
    let (started_ms, started_ns) = (clock::wall_ms(), clock::now_ns());
    let progress = Progress::new(steps.len() as u64);
    progress.say("disk probe: writing its file".to_owned());
    let mut probe = DiskProbe::create(place.dir(), scale.probe_file_bytes).map_err(PerfError::Disk)?;
    progress.say("which backend is the better one here".to_owned());
    let verdict = Verdict::reach(place.dir(), wished.backend.into())?;
    let mut rows: Vec<RowResult> = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let seed = started_ms.wrapping_mul(1000) + at as u64;
        match step {
            Step::Probe => {
                progress.say("disk probe".to_owned());
                probe.round(probe_seconds).map_err(PerfError::Disk)?;
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
        subject: if smoke {
            "smoke run: the numbers mean nothing"
        } else {
            "comparison: this disk, the engine, the broker"
        }
        .to_owned(),
        smoke,
        started: clock::utc(started_ms),
        seconds: (clock::now_ns() - started_ns) as f64 / clock::SECOND_NS as f64,
        size: wished.load.size,
        load,
        host,
        probe: Some(probe.deep_by()),
        disk: probe.limits(),
        rows,
        catch_up: None,
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
        let rows = self.measure_all(spec, |spec| measure(spec).map(|row| vec![row]))?;
        rows.into_iter().next().ok_or_else(|| PerfError::Report(format!("{} is no row", spec.name)))
    }

    /// The same for rows that are measured together.
    fn measure_all(
        &self,
        spec: &RowSpec,
        measure: impl FnOnce(&RowSpec) -> Result<Vec<RowResult>, PerfError>,
    ) -> Result<Vec<RowResult>, PerfError> {
        if spec.backend != BackendChoice::Auto {
            return measure(spec);
        }
        let rows = measure(&RowSpec { backend: self.kind, ..spec.clone() })?;
        Ok(rows.into_iter().map(|row| RowResult { backend: self.reason.clone(), ..row }).collect())
    }
}

/// The four combinations; whether all promises about messages were kept.
fn measure_matrix(wished: &Matrix) -> Result<bool, PerfError> {
    /// Both logs, their spares, and the probe's file.
    const ROOM_BYTES: u64 = 2 * place::SPACE_BYTES;
    let smoke = wished.smoke;
    let lag_bytes = wished.catch_up.map(|mib| if smoke { mib.min(16) } else { mib } << 20);
    // A lag, what is sent until it is gone, and as much again: retention is not exact.
    let room_bytes = ROOM_BYTES + lag_bytes.unwrap_or(0) * 6;
    let place = Place::with_room(wished.dir.as_deref(), wished.allow_tmpfs, room_bytes)?;
    let slave_dir = wished.slave_dir.as_deref();
    let slave_place = slave_dir.map(|dir| Place::with_room(Some(dir), wished.allow_tmpfs, room_bytes)).transpose()?;
    let slave_dir = slave_place.as_ref().unwrap_or(&place).dir();
    let host = Host::look(place.dir());
    let load = wished.load.load();
    announce(&host, place.warning().or_else(|| slave_place.as_ref()?.warning()));
    announce_messages(&wished.load);
    let (scale, seconds, probe_seconds) =
        if smoke { (&row::SMOKE, 0.25, 0.02) } else { (&row::FULL, wished.load.seconds, wished.probe_seconds) };
    let wish = matrix::Wish {
        size: wished.load.size,
        seconds,
        backend: wished.backend.into(),
        load,
        only: &wished.rows,
        scale,
    };
    plan::check_parts(&wished.rows, |only| matrix::row_names(&matrix::steps(&matrix::Wish { only, ..wish })))?;
    let steps = matrix::steps(&wish);
    let (started_ms, started_ns) = (clock::wall_ms(), clock::now_ns());
    let progress = Progress::new(steps.len() as u64 + u64::from(lag_bytes.is_some()));
    progress.say("disk probe: writing its file".to_owned());
    let mut probe = DiskProbe::create(place.dir(), scale.probe_file_bytes).map_err(PerfError::Disk)?;
    let verdict = Verdict::reach(place.dir(), wished.backend.into())?;
    let encoding = wished.load.header.into();
    let mut rows: Vec<RowResult> = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        match step {
            matrix::Step::Probe => {
                progress.say("disk probe".to_owned());
                probe.round(probe_seconds).map_err(PerfError::Disk)?;
            }
            matrix::Step::Row(spec) => {
                say(&progress, &spec.row);
                let seed = started_ms.wrapping_mul(1000) + at as u64;
                rows.push(verdict.measure(&spec.row, |row| {
                    let spec = PairSpec { row: row.clone(), ..spec.clone() };
                    matrix::measure(&spec, place.dir(), slave_dir, seed, encoding)
                })?);
                progress.line(&rows.last().map(text::summary).unwrap_or_default());
            }
        }
        progress.step();
    }
    let catch_up = lag_bytes.map(|lag_bytes| {
        progress.say("a slave that is far behind".to_owned());
        let wish = catch_up::Wish {
            leader_dir: place.dir(),
            slave_dir,
            lag_bytes,
            size: wished.load.size,
            seconds,
            interval: if smoke { Duration::from_millis(20) } else { Duration::from_millis(500) },
            backend: verdict.kind,
            encoding,
            scale,
        };
        catch_up::measure(&wish, started_ms.wrapping_mul(1000) + 500)
    });
    let catch_up = catch_up.transpose()?;
    progress.finish();
    let subject = if smoke {
        "smoke run: the numbers mean nothing"
    } else {
        "matrix: sync and async flush, by sync and async replication"
    };
    let run = Run {
        subject: subject.to_owned(),
        smoke,
        started: clock::utc(started_ms),
        seconds: (clock::now_ns() - started_ns) as f64 / clock::SECOND_NS as f64,
        size: wished.load.size,
        load,
        host,
        probe: Some(probe.deep_by()),
        disk: probe.limits(),
        rows,
        catch_up,
    };
    drop(probe);
    finish(&run, &wished.load, Some(place.dir().join("report.html")))
}

/// The chain above the log; whether all promises about messages were kept.
fn measure_chain(wished: &Chain) -> Result<bool, PerfError> {
    /// What a pending message takes in the log and beside it, delivered and not.
    const PENDING_BYTES: u64 = 1024;
    if wished.load.rate.is_some() {
        return Err(PerfError::Usage("the rows of the chain have no rate: each is a closed loop".to_owned()));
    }
    let (smoke, pending) = (wished.smoke, if wished.smoke { 2_000 } else { wished.pending });
    let room_bytes = place::SPACE_BYTES + pending * PENDING_BYTES;
    let place = Place::with_room(wished.stores.dir.as_deref(), wished.stores.allow_tmpfs, room_bytes)?;
    let host = Host::look(place.dir());
    announce(&host, place.warning());
    announce_messages(&wished.load);
    let (scale, seconds, probe_seconds) =
        if smoke { (&row::SMOKE, 0.2, 0.02) } else { (&row::FULL, wished.load.seconds, wished.probe_seconds) };
    let wish = chain::Wish {
        size: wished.load.size,
        seconds,
        backend: wished.backend.into(),
        pending,
        only: &wished.rows,
        scale,
    };
    plan::check_parts(&wished.rows, |only| chain::row_names(&chain::steps(&chain::Wish { only, ..wish })))?;
    let steps = chain::steps(&wish);
    let (started_ms, started_ns) = (clock::wall_ms(), clock::now_ns());
    let progress = Progress::new(steps.len() as u64);
    progress.say("disk probe: writing its file".to_owned());
    let mut probe = DiskProbe::create(place.dir(), scale.probe_file_bytes).map_err(PerfError::Disk)?;
    let verdict = Verdict::reach(place.dir(), wished.backend.into())?;
    let encoding = wished.load.header.into();
    let mut rows: Vec<RowResult> = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        match step {
            chain::Step::Probe => {
                progress.say("disk probe".to_owned());
                probe.round(probe_seconds).map_err(PerfError::Disk)?;
            }
            chain::Step::Rows(kind, spec) => {
                say(&progress, spec);
                // Rows of one step have seeds of their own.
                let seed = started_ms.wrapping_mul(1000) + at as u64 * 10;
                let measured = verdict.measure_all(spec, |spec| {
                    chain::measure(*kind, &Bench { spec, dir: place.dir(), seed, encoding })
                })?;
                for row in measured {
                    progress.line(&text::summary(&row));
                    rows.push(row);
                }
            }
        }
        progress.step();
    }
    progress.finish();
    let subject = if smoke {
        "smoke run: the numbers mean nothing"
    } else {
        "chain: what transactions, delays, retries, order and commits cost"
    };
    let run = Run {
        subject: subject.to_owned(),
        smoke,
        started: clock::utc(started_ms),
        seconds: (clock::now_ns() - started_ns) as f64 / clock::SECOND_NS as f64,
        size: wished.load.size,
        load: Load::Closed,
        host,
        probe: Some(probe.deep_by()),
        disk: probe.limits(),
        rows,
        catch_up: None,
    };
    drop(probe);
    finish(&run, &wished.load, Some(place.dir().join("report.html")))
}

/// Any broker; whether all promises about messages were kept.
fn measure_foreign(wished: &Foreign) -> Result<bool, PerfError> {
    let dir = wished.dir.clone().unwrap_or_else(|| PathBuf::from("."));
    let host = Host::look(&dir);
    let load = wished.load.load();
    announce(&host, None);
    announce_messages(&wished.load);
    let in_flight = wished.threads.map_or_else(|| wished.in_flight.clone(), |count| vec![(count.max(1), 1)]);
    let (started_ms, started_ns) = (clock::wall_ms(), clock::now_ns());
    let progress = Progress::new(in_flight.len() as u64);
    let device = wished.dir.as_deref().and_then(BlockDevice::below);
    let mut probe = wished
        .dir
        .as_deref()
        .map(|dir| DiskProbe::create(dir, row::FULL.probe_file_bytes))
        .transpose()
        .map_err(PerfError::Disk)?;
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
            scale: &row::FULL,
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
        smoke: false,
        subject: format!("broker behind {}", wished.namesrv),
        started: clock::utc(started_ms),
        seconds: (clock::now_ns() - started_ns) as f64 / clock::SECOND_NS as f64,
        size: wished.load.size,
        load,
        host,
        probe: probe.as_ref().map(DiskProbe::deep_by),
        disk: probe.as_ref().map_or_else(DiskLimits::default, DiskProbe::limits),
        rows,
        catch_up: None,
    };
    drop(probe);
    finish(&run, &wished.load, None)
}

/// A long log.
fn measure_opening(wished: &Opening) -> Result<(), PerfError> {
    let place = Place::with_room(wished.dir.as_deref(), wished.allow_tmpfs, opening::room_bytes(wished))?;
    announce(&Host::look(place.dir()), place.warning());
    opening::measure(wished, place.dir())
}

/// What goes on beside appends.
fn measure_beside(wished: &Beside) -> Result<(), PerfError> {
    let place = Place::with_room(wished.stores.dir.as_deref(), wished.stores.allow_tmpfs, beside::room_bytes(wished))?;
    announce(&Host::look(place.dir()), place.warning());
    beside::measure(wished, place.dir())
}

/// Strangers beside those who work; whether all promises about messages were kept.
fn measure_garbage(wished: &Garbage) -> Result<bool, PerfError> {
    let place = Place::choose(wished.stores.dir.as_deref(), wished.stores.allow_tmpfs)?;
    announce(&Host::look(place.dir()), place.warning());
    garbage::measure(wished, place.dir())
}

/// The disk alone.
fn measure_disk(wished: &DiskOnly) -> Result<(), PerfError> {
    let place = Place::choose(wished.dir.as_deref(), wished.allow_tmpfs)?;
    let host = Host::look(place.dir());
    announce(&host, place.warning());
    let (started_ms, started_ns) = (clock::wall_ms(), clock::now_ns());
    let progress = Progress::new(u64::from(wished.rounds));
    let mut probe = DiskProbe::create(place.dir(), row::FULL.probe_file_bytes).map_err(PerfError::Disk)?;
    for _ in 0..wished.rounds {
        progress.say("disk probe".to_owned());
        probe.round(wished.probe_seconds).map_err(PerfError::Disk)?;
        progress.step();
    }
    progress.finish();
    let run = Run {
        smoke: false,
        subject: "disk".to_owned(),
        started: clock::utc(started_ms),
        seconds: (clock::now_ns() - started_ns) as f64 / clock::SECOND_NS as f64,
        size: 0,
        load: Load::Closed,
        host,
        probe: Some(probe.deep_by()),
        disk: probe.limits(),
        rows: Vec::new(),
        catch_up: None,
    };
    for line in text::disk(&run.disk, probe.deep_by()) {
        out::line(format_args!("{line}"));
    }
    wished.json.as_deref().map_or(Ok(()), |path| save(path, &json::document(&run)?))
}

fn announce(host: &Host, warning: Option<&str>) {
    for (name, fact) in host.facts() {
        out::line(format_args!("{name:<14} {fact}"));
    }
    if let Some(warning) = warning {
        out::complain(format_args!("warning: {warning}"));
    }
    if !host.has_uring() {
        out::complain(format_args!("warning: io_uring is not to be had ({}); rows on it are left out", host.io_uring));
    }
    out::line(format_args!(""));
}

fn announce_messages(wished: &Messages) {
    out::line(format_args!("{} random bytes each, {}", wished.size, wished.load().describe()));
    out::line(format_args!(""));
}

fn say(progress: &Progress, spec: &RowSpec) {
    progress.say(format!("{}: {}", spec.name, spec.producers.describe()));
}

fn finish(run: &Run, wished: &Messages, default_page: Option<PathBuf>) -> Result<bool, PerfError> {
    out::line(format_args!(""));
    for line in text::closing(run) {
        out::line(format_args!("{line}"));
    }
    if let Some(path) = &wished.json {
        save(path, &json::document(run)?)?;
    }
    if let Some(path) = wished.report.clone().or(default_page) {
        save(&path, &html::page(run))?;
    }
    Ok(run.verified().is_clean())
}

fn save(path: &Path, text: &str) -> Result<(), PerfError> {
    out::save(path, text).map_err(|source| PerfError::Io { what: "writing", path: path.to_owned(), source })?;
    out::line(format_args!("Written: {}", path.display()));
    Ok(())
}
