//! The `anchorlog` program: arguments, start, run, stop, exit code.
//!
//! Exit codes: 0 stopped cleanly, or before the start was done, or helped; 1 a start or stop that failed; 2 a configuration that does not
//! hold; 130 a second signal while stopping. Those of `anchorlog log` stand in `log_tools`, those of
//! `anchorlog doctor` in `doctor`, and those of operators' commands in `commands`.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anchorlog::config::{Config, ConfigError, Order};
use anchorlog::{Broker, commands, doctor, log_tools, probe, replica_tools, telemetry};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Why the process ends with a code other than 0.
struct Failure {
    code: u8,
    text: String,
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(Failure { code, text }) => {
            // Nothing can be done about a closed standard error.
            let _written = writeln!(std::io::stderr(), "anchorlog: {text}");
            ExitCode::from(code)
        }
    }
}

fn asked(outcome: Result<u8, replica_tools::AskError>) -> Result<ExitCode, Failure> {
    outcome.map(ExitCode::from).map_err(|error| Failure { code: replica_tools::NOT_DONE, text: error.to_string() })
}

fn failure(error: impl std::fmt::Display) -> Failure {
    Failure { code: 1, text: error.to_string() }
}

fn run() -> Result<ExitCode, Failure> {
    match Order::from_words(std::env::args_os()) {
        Ok(Order::Broker(mut config)) => serve(&mut config).map(|()| ExitCode::SUCCESS),
        Ok(Order::Log(args)) => log_tools::run(&args, &mut std::io::stdout().lock())
            .map(ExitCode::from)
            .map_err(|error| Failure { code: log_tools::NOT_DONE, text: error.to_string() }),
        Ok(Order::Doctor(args)) => doctor::run(&args, &mut std::io::stdout().lock())
            .map(ExitCode::from)
            .map_err(|error| Failure { code: doctor::NOT_EXAMINED, text: error.to_string() }),
        Ok(Order::Probe(args)) => probe::run(&args, &mut std::io::stdout().lock())
            .map(ExitCode::from)
            .map_err(|error| Failure { code: probe::IT_IS_NOT, text: error.to_string() }),
        Ok(Order::Replicas(node)) => asked(replica_tools::show(&node, &mut std::io::stdout().lock())),
        Ok(Order::Promote(args)) => asked(replica_tools::promote(&args, &mut std::io::stdout().lock())),
        Ok(Order::Demote(node)) => asked(replica_tools::demote(&node, &mut std::io::stdout().lock())),
        Ok(Order::Operator(command)) => commands::run(&command, &mut std::io::stdout().lock())
            .map(ExitCode::from)
            .map_err(|error| Failure { code: error.exit_code(), text: error.to_string() }),
        // Prints help or what is wrong, and ends the process.
        Err(ConfigError::CommandLine(error)) => error.exit(),
        Err(error) => Err(Failure { code: 2, text: error.to_string() }),
    }
}

/// How long a start may go on after it was asked to end: one that is nearly there is stopped in order.
const START_GRACE: Duration = Duration::from_secs(2);

fn serve(config: &mut Config) -> Result<(), Failure> {
    config.heed_log().map_err(|error| Failure { code: 2, text: error.to_string() })?;
    telemetry::start(&config.options.log_level, config.options.log_format)
        .map_err(|error| Failure { code: 2, text: error.to_string() })?;
    tracing::info!("anchorlog {} with{}", env!("CARGO_PKG_VERSION"), config.summary());
    for remark in config.remarks() {
        tracing::warn!("{remark}");
    }
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failure)?;
    heed_file_bytes_limit(&runtime).map_err(failure)?;
    // Before anyone can be told that it serves: from then on somebody may ask it to stop in order.
    let mut signals = {
        let _entered = runtime.enter();
        Signals::new().map_err(failure)?
    };
    let (started, mut outcome) = tokio::sync::oneshot::channel();
    let options = config.options.clone();
    // Reading the log back can take long, and must not keep anybody from ending it.
    let start =
        move || options.to_options().map_err(failure).and_then(|options| Broker::start(options).map_err(failure));
    let thread = std::thread::Builder::new().name("start".to_owned());
    thread.spawn(move || started.send(start()).is_ok()).map_err(failure)?;
    let panicked = |_: tokio::sync::oneshot::error::RecvError| failure("starting ended in a panic");
    let running = runtime.block_on(async {
        tokio::select! {
            biased;
            started = &mut outcome => Ok(Some((started.map_err(panicked)??, signals.next().await))),
            name = signals.next() => match tokio::time::timeout(START_GRACE, &mut outcome).await {
                Ok(started) => Ok(Some((started.map_err(panicked)??, name))),
                Err(_) => {
                    tracing::info!(signal = name, "ended before the start was done; the next one reads the log again");
                    Ok(None)
                }
            },
        }
    })?;
    let Some((broker, name)) = running else { return Ok(()) };
    tracing::info!(signal = name, "stopping; another signal, a second from now or later, ends the process at once");
    let (stopped, outcome) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("stop".to_owned());
    thread.spawn(move || stopped.send(broker.stop()).is_ok()).map_err(failure)?;
    runtime.block_on(async {
        tokio::select! {
            outcome = outcome => outcome.map_err(|_| failure("stopping ended in a panic"))?.map(drop).map_err(failure),
            () = insisted() => {
                Err(Failure { code: 130, text: "ended before everything was written; the log recovers".to_owned() })
            }
        }
    })
}

/// The signals that ask a process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one of them.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Waits until somebody asks again. Some supervisors send each signal twice, so what comes within a second is the same one.
async fn insisted() {
    tokio::time::sleep(Duration::from_secs(1)).await;
    match Signals::new() {
        Ok(mut later) => {
            later.next().await;
        }
        Err(_) => std::future::pending().await,
    }
}

/// A file that came to the length that the system allows is an error like a full disk, not the end of the process: with a handler in its
/// place the signal does no harm, and the call that met the limit says so.
fn heed_file_bytes_limit(runtime: &tokio::runtime::Runtime) -> std::io::Result<()> {
    let _entered = runtime.enter();
    signal(SignalKind::from_raw(nix::sys::signal::Signal::SIGXFSZ as i32)).map(drop)
}

/// Every connection is a file: the usual soft limit of 1024 is for programs that do not serve.
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| (soft, hard)));
    match raised {
        Ok((soft, hard)) => tracing::debug!(soft, hard, "raised the limit of open files"),
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open files"),
    }
}
