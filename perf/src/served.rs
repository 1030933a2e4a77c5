//! Our own broker as a child process of this program: measuring and measured share nothing but the machine.
//!
//! The child (`serve.rs`) says where it listens and on which backend, a line each. From then on each line `counts` on its standard input is
//! answered with a line of counters, and the end of its input ends it.

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anchorlog_engine::BackendChoice;
use serde::{Deserialize, Serialize};

use crate::cli::{Mode, Role};
use crate::engine_rows;
use crate::error::PerfError;
use crate::row::RowSpec;

/// The hidden subcommand that serves.
pub(crate) const SERVE: &str = "serve";
/// What a child is asked.
pub(crate) const COUNTS: &str = "counts";

/// What a broker is started with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order<'a> {
    /// Its directory.
    pub(crate) store: &'a Path,
    /// Whether its own flush is waited for.
    pub(crate) flush: Mode,
    /// Which backend.
    pub(crate) backend: BackendChoice,
    /// Bytes of a segment.
    pub(crate) segment_bytes: u64,
    /// Segments filled before they are needed.
    pub(crate) spare_count: usize,
    /// What is kept; all, if nothing is said.
    pub(crate) retain_bytes: Option<u64>,
    /// How old a half message is when its producer is asked; the broker's default, if nothing is said.
    pub(crate) ask_after_ms: Option<u64>,
    /// Its part in a pair.
    pub(crate) part: Option<Part>,
}

/// A broker's part in a pair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// Which of the two.
    pub(crate) role: Role,
    /// Whether the slave's disk is waited for.
    pub(crate) replication: Mode,
    /// Where it is reached.
    pub(crate) own: Reached,
    /// Where the other one is.
    pub(crate) other: Reached,
}

/// Where a broker of a pair is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    /// By clients.
    pub(crate) clients: SocketAddr,
    /// By the other broker.
    pub(crate) replicas: SocketAddr,
}

impl<'a> Order<'a> {
    /// For one row in `store`. A broker that is only read from keeps everything and needs no segments.
    pub(crate) fn of(spec: &RowSpec, store: &'a Path, retain_bytes: Option<u64>) -> Order<'a> {
        Order {
            store,
            flush: Mode::of(spec.durable),
            backend: spec.backend,
            segment_bytes: spec.scale.segment_bytes,
            spare_count: retain_bytes.map_or(0, |_| engine_rows::spare_count(spec.producers.outstanding())),
            retain_bytes,
            ask_after_ms: None,
            part: None,
        }
    }
}

/// What a broker's engine has counted since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Counts {
    /// Flushes asked of its device; a durable write counts one.
    pub(crate) flushes: u64,
    /// Bytes given to the device for the log.
    pub(crate) bytes: u64,
    /// Bytes that its log took.
    pub(crate) log_bytes: u64,
}

impl Counts {
    /// Both together.
    pub(crate) fn plus(self, other: Counts) -> Counts {
        Counts {
            flushes: self.flushes + other.flushes,
            bytes: self.bytes + other.bytes,
            log_bytes: self.log_bytes + other.log_bytes,
        }
    }

    /// What came on top of `before`.
    pub(crate) fn since(self, before: Counts) -> Counts {
        Counts {
            flushes: self.flushes.saturating_sub(before.flushes),
            bytes: self.bytes.saturating_sub(before.bytes),
            log_bytes: self.log_bytes.saturating_sub(before.log_bytes),
        }
    }
}

/// A process that is ended when nobody holds it any more.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }
}

/// A broker that was started and has said nothing yet.
#[derive(Debug)]
pub(crate) struct Starting {
    process: Process,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Starting {
    /// Starts the process.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn spawn(order: &Order<'_>) -> Result<Starting, PerfError> {
        let program = std::env::current_exe().map_err(|source| PerfError::Io {
            what: "finding this program",
            path: "/proc/self/exe".into(),
            source,
        })?;
        let mut child = Command::new(&program)
            .args(words(order))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|source| PerfError::Io { what: "starting", path: program, source })?;
        let lines = BufReader::new(child.stdout.take().expect("it was piped")).lines();
        Ok(Starting { process: Process(child), lines })
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// When it ends instead.
    pub(crate) fn greet(mut self) -> Result<Served, PerfError> {
        let address = said(&mut self.lines, "address")?;
        let backend = said(&mut self.lines, "backend")?;
        Ok(Served { process: self.process, lines: self.lines, address, backend })
    }
}

fn said(lines: &mut Lines<BufReader<ChildStdout>>, what: &str) -> Result<String, PerfError> {
    match lines.next() {
        Some(Ok(line)) if !line.is_empty() => Ok(line),
        _ => Err(PerfError::Broker(format!("it ended before it said its {what}"))),
    }
}

/// The command line of a child.
fn words(order: &Order<'_>) -> Vec<String> {
    let mut words = vec![
        SERVE.to_owned(),
        format!("--dir={}", order.store.display()),
        format!("--flush={}", order.flush.name()),
        format!("--backend={}", backend_name(order.backend)),
        format!("--spare-count={}", order.spare_count),
        format!("--segment-bytes={}", order.segment_bytes),
    ];
    words.extend(order.retain_bytes.map(|bytes| format!("--retain-bytes={bytes}")));
    words.extend(order.ask_after_ms.map(|ms| format!("--ask-after-ms={ms}")));
    if let Some(part) = &order.part {
        words.extend([
            format!("--listen={}", part.own.clients),
            format!("--role={}", part.role.name()),
            format!("--replication={}", part.replication.name()),
            format!("--replicas={},{},{}", part.own.replicas, part.other.clients, part.other.replicas),
        ]);
    }
    words
}

/// As the command line takes it.
fn backend_name(backend: BackendChoice) -> &'static str {
    match backend {
        BackendChoice::Auto => "auto",
        BackendChoice::Uring => "uring",
        BackendChoice::Threads => "threads",
    }
}

/// A broker that serves.
#[derive(Debug)]
pub(crate) struct Served {
    process: Process,
    lines: Lines<BufReader<ChildStdout>>,
    /// Where clients reach it.
    pub(crate) address: String,
    /// Its backend, and why that one.
    pub(crate) backend: String,
}

impl Served {
    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// When it does not come up.
    pub(crate) fn start(order: &Order<'_>) -> Result<Served, PerfError> {
        Starting::spawn(order)?.greet()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// What its engine has counted.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn counts(&mut self) -> Result<Counts, PerfError> {
        let gone = |source| PerfError::Io { what: "asking", path: "the broker".into(), source };
        let input = self.process.0.stdin.as_mut().expect("it was piped, and only ending it takes it");
        writeln!(input, "{COUNTS}").and_then(|()| input.flush()).map_err(gone)?;
        let line = said(&mut self.lines, "counters")?;
        serde_json::from_str(&line).map_err(|error| PerfError::Broker(format!("counters that are none: {error}")))
    }

    /// Without a chance to write anything more.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn kill(&mut self) -> Result<(), PerfError> {
        self.process.0.kill().and_then(|()| self.process.0.wait().map(drop)).map_err(ended)
    }

    /// It ends when nobody talks to it any more.
    ///
    /// # Errors
    /// When it did not end well.
    pub(crate) fn stop(mut self) -> Result<(), PerfError> {
        drop(self.process.0.stdin.take());
        let status = self.process.0.wait().map_err(ended)?;
        if status.success() { Ok(()) } else { Err(PerfError::Broker(format!("it stopped with {status}"))) }
    }
}

fn ended(source: std::io::Error) -> PerfError {
    PerfError::Io { what: "ending", path: "the broker".into(), source }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn a_child_understands_what_it_is_told() {
        let reached = |port: u16| Reached {
            clients: SocketAddr::from(([127, 0, 0, 1], port)),
            replicas: SocketAddr::from(([127, 0, 0, 1], port + 1)),
        };
        let part = Part { role: Role::Slave, replication: Mode::Async, own: reached(10), other: reached(20) };
        let order = Order {
            store: Path::new("some dir"),
            flush: Mode::Sync,
            backend: BackendChoice::Threads,
            segment_bytes: 1 << 20,
            spare_count: 3,
            retain_bytes: Some(7),
            ask_after_ms: Some(9),
            part: Some(part),
        };
        let program = ["anchorlog-perf".to_owned()];
        let cli = Cli::try_parse_from(program.iter().cloned().chain(words(&order))).expect("it is understood");
        let Some(Command::Serve(served)) = cli.command else { panic!("it is the serve command") };
        assert_eq!((served.dir.as_path(), served.flush, served.retain_bytes), (order.store, Mode::Sync, Some(7)));
        assert_eq!(served.ask_after_ms, Some(9));
        assert_eq!((served.role, served.replication), (Some(Role::Slave), Some(Mode::Async)));
        assert_eq!(served.listen, part.own.clients);
        assert_eq!(served.replicas, [part.own.replicas, part.other.clients, part.other.replicas]);
        let alone = Order { part: None, retain_bytes: None, ..order };
        let cli = Cli::try_parse_from(program.into_iter().chain(words(&alone))).expect("it is understood");
        let Some(Command::Serve(served)) = cli.command else { panic!("it is the serve command") };
        assert!(served.role.is_none() && served.retain_bytes.is_none() && served.listen.port() == 0);
    }

    #[test]
    fn counters_are_told_apart_from_those_before() {
        let (before, after) =
            (Counts { flushes: 2, bytes: 10, log_bytes: 7 }, Counts { flushes: 5, bytes: 30, log_bytes: 9 });
        assert_eq!(after.since(before), Counts { flushes: 3, bytes: 20, log_bytes: 2 });
    }
}
