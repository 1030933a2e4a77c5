//! `anchorlog doctor`: what a directory and its machine are good for, before a broker is started there.
//!
//! 1. What is found is said in words, each with what can be done about it; what cannot be found out is said to be unknown.
//! 2. It measures as the broker writes: durable writes past the page cache, by the backend that a broker would choose here.
//! 3. It leaves nothing in the directory, and opens no log. Beside a running broker it takes part of the disk for some seconds.
//! 4. Exit codes: 0 fit; 1 unfit: something stands against the promises that a broker makes; 2 it could not be examined.
//!
//! ```text
//!  directory, machine --> engine's probe --> Facts --> findings (rules) --> table or JSON, exit code
//! ```
//! Deliberately not here: how things are found out and measured (`anchorlog_engine::io::probe`).

mod findings;
mod report;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anchorlog_engine::io::{IoBackend, probe, sys, threads::ThreadsBackend};
use anchorlog_engine::{Clock, SystemClock};
use clap::Args;
use nix::sys::resource::{Resource, getrlimit};

use crate::config::ByteSize;
pub use findings::{ClockFacts, Disk, Facts, Finding, Grade, findings, needed_bytes, verdict};

/// Exit code: fit.
pub const FIT: u8 = 0;
/// Exit code: unfit.
pub const UNFIT: u8 = 1;
/// Exit code: it could not be examined.
pub const NOT_EXAMINED: u8 = 2;

/// Clock readings that say what one costs.
const CLOCK_READINGS: u32 = 20_000;

/// Arguments of `anchorlog doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// The directory that a broker is to keep its log in
    #[arg(long, value_name = "DIR")]
    pub store: PathBuf,

    /// How long durable writes are tried
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,

    /// Size of one file of the log, as the broker is to have it
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    pub segment_bytes: ByteSize,

    /// How long the log is to become, as the broker is to be told [default: not bounded]
    #[arg(long, value_name = "SIZE")]
    pub retain_bytes: Option<ByteSize>,

    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Why a directory could not be examined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DoctorError {
    /// It is not there.
    #[error(
        "{0} does not exist: make it (and mount what is to be mounted there) first, so that the right disk is examined"
    )]
    Missing(PathBuf),
    /// It is something else.
    #[error("{0} is no directory")]
    NoDirectory(PathBuf),
    /// It cannot be written.
    #[error("{dir} cannot be written: {source}; a broker could not keep a log there")]
    Unwritable {
        /// Which.
        dir: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The result cannot be written.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// Examines a directory; says what the process ends with.
///
/// # Errors
/// Why it could not be examined.
pub fn run(args: &DoctorArgs, out: &mut dyn Write) -> Result<u8, DoctorError> {
    let clock = SystemClock::new();
    let facts = examine(args, &clock)?;
    let findings = findings(&facts);
    if args.json {
        report::json(out, &args.store, &facts, &findings)?;
    } else {
        report::text(out, &args.store, &facts, &findings)?;
    }
    Ok(if findings.iter().any(|finding| finding.grade == Grade::Unfit) { UNFIT } else { FIT })
}

fn examine(args: &DoctorArgs, clock: &dyn Clock) -> Result<Facts, DoctorError> {
    let dir = &args.store;
    match dir.metadata() {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(DoctorError::NoDirectory(dir.clone())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(DoctorError::Missing(dir.clone())),
        Err(source) => return Err(DoctorError::Unwritable { dir: dir.clone(), source }),
    }
    let unwritable = |source| DoctorError::Unwritable { dir: dir.clone(), source };
    let began = (clock.monotonic(), clock.wall_ms());
    let probe = probe::probe(dir, clock).map_err(unwritable)?;
    let writes = probe::sustain(dir, &probe, Duration::from_secs(args.seconds), clock).map_err(unwritable)?;
    let clock = clock_facts(dir, clock, began);
    let open_files = getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(_, hard)| hard);
    Ok(Facts {
        kernel: probe.kernel,
        ring: probe.ring.map_err(|refusal| (refusal.to_string(), refusal.remedy().to_owned())),
        direct_io: probe.direct_io,
        alignment: probe.dio_align.map(|align| (align.memory, align.offset)),
        filesystem: probe.filesystem,
        disk: probe.disk.map(|disk| Disk { name: disk.name, write_cache: disk.write_cache, fua: disk.fua }),
        memlock: probe.memlock,
        free_bytes: probe.free_bytes,
        stored_bytes: stored_bytes(dir),
        needed_bytes: needed_bytes(args.segment_bytes.0, args.retain_bytes.map(|bytes| bytes.0)),
        segment_bytes: args.segment_bytes.0,
        file_bytes_limit: sys::file_bytes_limit(),
        open_files,
        in_use: is_in_use(dir),
        backend: probe.kind.to_string(),
        reason: probe.reason,
        small: writes[0],
        large: writes[1],
        clock,
    })
}

/// Whether a broker has the log open that lies there.
fn is_in_use(dir: &Path) -> bool {
    let lock = dir.join("LOCK");
    lock.exists() && ThreadsBackend::new().lock(&lock).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Bytes of the files that lie there.
fn stored_bytes(dir: &Path) -> u64 {
    let Ok(entries) = dir.read_dir() else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .filter(|found| found.is_file())
        .map(|found| found.len())
        .sum()
}

fn clock_facts(dir: &Path, clock: &dyn Clock, (began, began_ms): (Duration, u64)) -> ClockFacts {
    let (now, now_ms) = (clock.monotonic(), clock.wall_ms());
    let went_ms = i64::try_from((now - began).as_millis()).unwrap_or(i64::MAX);
    let wall_went_ms = i64::try_from(now_ms).unwrap_or(i64::MAX) - i64::try_from(began_ms).unwrap_or(i64::MAX);
    let start = clock.monotonic();
    for _ in 0..CLOCK_READINGS {
        std::hint::black_box(clock.monotonic());
    }
    let newest_ms = dir.read_dir().ok().and_then(|entries| {
        let times = entries.flatten().filter_map(|entry| entry.metadata().ok()?.modified().ok());
        let since = |time: std::time::SystemTime| time.duration_since(std::time::UNIX_EPOCH).ok();
        times.filter_map(since).map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)).max()
    });
    ClockFacts {
        now_ms,
        stepped_ms: wall_went_ms - went_ms,
        reading_ns: u64::try_from((clock.monotonic() - start).as_nanos()).unwrap_or(u64::MAX)
            / u64::from(CLOCK_READINGS),
        newest_file_ms: newest_ms,
    }
}
