//! Runs the simulator over any number of seeds and says how fast.
//!
//! ```text
//! cargo run --release -p anchorlog-engine --example simulate -- --seeds 10000
//! cargo run --release -p anchorlog-engine --example simulate -- --seed 4711
//! ```
//!
//! `--from N` begins elsewhere, `--jobs N` uses that many threads (default: all), `--fault NAME` breaks a promise on purpose. Ends with 1
//! at the first seed that fails, and prints what went before and how to run it again. The body is that of `tests/sim`.

#[path = "../tests/sim/main.rs"]
mod sim;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anchorlog_engine::options::Fault;
use anchorlog_engine::{Clock, SystemClock};

use sim::{Failure, Tally};

/// So many seeds meet everything that there is to meet.
const ENOUGH: u32 = 200;

struct Arguments {
    from: u64,
    count: u64,
    jobs: usize,
    fault: Option<Fault>,
}

fn arguments() -> Result<Arguments, String> {
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut parsed = Arguments { from: 0, count: 1000, jobs, fault: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|error| format!("{word} {value}: {error}"));
        match word.as_str() {
            "--seed" => (parsed.from, parsed.count) = (number()?, 1),
            "--seeds" => parsed.count = number()?,
            "--from" => parsed.from = number()?,
            "--jobs" => parsed.jobs = usize::try_from(number()?.max(1)).map_err(|error| error.to_string())?,
            "--fault" => {
                let known = Fault::ALL.into_iter().find(|fault| format!("{fault:?}") == value);
                parsed.fault = Some(known.ok_or_else(|| format!("{value} is none of {:?}", Fault::ALL))?);
            }
            _ => return Err(format!("{word} is none of --seed, --seeds, --from, --jobs, --fault")),
        }
    }
    Ok(parsed)
}

/// What all seeds together left.
#[derive(Default)]
struct Total {
    count: u32,
    tally: Tally,
    /// Over all traces, in whatever order they came.
    trace_hash: u64,
}

/// What the seeds left that went well, or the first failure that was seen.
fn run_all(arguments: &Arguments) -> Result<Total, Box<Failure>> {
    let end = arguments.from.saturating_add(arguments.count);
    let (next, failed) = (AtomicU64::new(arguments.from), AtomicBool::new(false));
    let total = Mutex::new(Ok(Total::default()));
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let ran = sim::run(seed, arguments.fault);
                    let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    match (ran, &mut *total) {
                        (Ok(report), Ok(all)) => {
                            all.count += 1;
                            all.tally.add(&report.tally);
                            all.trace_hash = all.trace_hash.wrapping_add(report.trace_hash);
                        }
                        (Err(failure), Ok(_)) => {
                            *total = Err(failure);
                            failed.store(true, Ordering::Relaxed);
                        }
                        (_, Err(_)) => return,
                    }
                }
            });
        }
    });
    total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn main() -> ExitCode {
    let mut out = std::io::stdout().lock();
    let mut say = |line: String| {
        if writeln!(out, "{line}").is_err() {
            std::process::exit(1);
        }
    };
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(why) => {
            say(why);
            return ExitCode::from(2);
        }
    };
    // A panic is told with its seed, by the run that met it.
    std::panic::set_hook(Box::new(|_| {}));
    let clock = SystemClock::new();
    match run_all(&arguments) {
        Ok(Total { count, tally, trace_hash }) => {
            let rate = f64::from(count) / clock.monotonic().as_secs_f64();
            say(format!("{tally}"));
            say(format!("{count} seeds passed, {rate:.1} seeds per second, trace {trace_hash:016x}"));
            if count >= ENOUGH && !tally.is_full() {
                say("something of this was never met: the simulator has gone blind".into());
                return ExitCode::FAILURE;
            }
            ExitCode::SUCCESS
        }
        Err(failure) => {
            say(format!("{failure}"));
            ExitCode::FAILURE
        }
    }
}
