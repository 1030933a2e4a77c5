//! Log lines out, to standard error: one for each event, bounded in number.
//!
//! A place in the code that has much to say is heard `limits::LOG_LINES_AT_ONCE` times at once, and `limits::LOG_LINES_PER_SECOND` times a
//! second from then on. How many lines were left out is said before the next one of that place.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use anchorlog_engine::{Clock, SystemClock};
use tracing::callsite::Identifier;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt, reload};

use crate::config::LogFormat;
use crate::limits;
use crate::lock::lock;

/// Log lines cannot be had as asked for.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is none.
    #[error("log-level = {level}: {reason}")]
    Level {
        /// What was asked for.
        level: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody else in this process has set them up before.
    #[error("logging is already set up")]
    Twice,
    /// Somebody else in this process decides.
    #[error("what is logged is decided elsewhere in this process")]
    Foreign,
}

/// Sends log lines of this process to standard error from now on.
///
/// # Errors
/// When the level is none, or it was done before.
pub fn start(level: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let lines = tracing_subscriber::registry().with(filter).with(Bounded::new(SystemClock::new()));
    lines.with(formatted(format)).try_init().map_err(|_| TelemetryError::Twice)?;
    let set: SetFilter = Box::new(move |filter| handle.reload(filter).is_ok());
    SET_FILTER.set(set).map_err(|_| TelemetryError::Twice)
}

/// What writes the lines. Each format is another type.
fn formatted<S: Subscriber + for<'a> LookupSpan<'a>>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync> {
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Full => lines.boxed(),
        LogFormat::Compact => lines.compact().boxed(),
        LogFormat::Pretty => lines.pretty().boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    }
}

fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    parsed(level).map_err(|reason| TelemetryError::Level { level: level.to_owned(), reason })
}

/// A word alone that is no level would be taken for a part of the program, of which everything is logged, and nothing of all others.
fn parsed(level: &str) -> Result<EnvFilter, String> {
    let is_known = |word: &str| {
        let part = word.split("::").next().unwrap_or(word);
        word.parse::<LevelFilter>().is_ok() || PROGRAM.contains(&part)
    };
    let wanted = "off, error, warn, info, debug or trace is wanted, or directives such as info,anchorlog::net=debug";
    let mut words = level.split(',').map(str::trim).filter(|word| !word.is_empty()).peekable();
    if words.peek().is_none() {
        return Err(wanted.to_owned());
    }
    match words.find(|word| !word.contains(['=', '[', ']', '{', '}']) && !is_known(word)) {
        Some(word) => Err(format!("{word} is no level: {wanted}")),
        None => EnvFilter::try_new(level).map_err(|error| format!("{error}: {wanted}")),
    }
}

/// Says what is wrong with a level.
pub(crate) fn check_level(level: &str) -> Result<(), String> {
    parsed(level).map(drop)
}

/// The parts of this program, as log lines name them.
const PROGRAM: [&str; 3] = ["anchorlog", "anchorlog_engine", "anchorlog_replicator"];

type SetFilter = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

/// Changes what is logged; set once.
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// Logs what this level says from now on.
///
/// # Errors
/// When the level is none, or somebody else decides what this process logs.
pub fn set_level(level: &str) -> Result<(), TelemetryError> {
    let filter = filter(level)?;
    match SET_FILTER.get() {
        Some(set) if set(filter) => Ok(()),
        _ => Err(TelemetryError::Foreign),
    }
}

/// The place that says how many lines of another one were left out: it is heard always.
const BOUNDS: &str = "anchorlog::telemetry";

/// What a place may still say.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    /// Lines, and what of the next one has come together, in parts of a second's worth.
    lines: f64,
    since: Duration,
    left_out: u64,
}

impl Allowance {
    const FULL: f64 = limits::LOG_LINES_AT_ONCE;

    /// Whether one more line may be said now; if so, how many were not since the last.
    fn take(&mut self, now: Duration) -> Option<u64> {
        let passed = now.saturating_sub(self.since).as_secs_f64();
        self.lines = (self.lines + passed * limits::LOG_LINES_PER_SECOND).min(Allowance::FULL);
        self.since = now;
        if self.lines < 1.0 {
            self.left_out += 1;
            return None;
        }
        self.lines -= 1.0;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Leaves out what is too much.
struct Bounded<C> {
    clock: C,
    places: Mutex<HashMap<Identifier, Allowance>>,
}

impl<C: Clock> Bounded<C> {
    fn new(clock: C) -> Bounded<C> {
        Bounded { clock, places: Mutex::default() }
    }

    /// As [`Allowance::take`], for a place.
    fn take(&self, place: Identifier) -> Option<u64> {
        let now = self.clock.monotonic();
        let fresh = || Allowance { lines: Allowance::FULL, since: now, left_out: 0 };
        lock(&self.places).entry(place).or_insert_with(fresh).take(now)
    }
}

impl<S: Subscriber, C: Clock> Layer<S> for Bounded<C> {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let place = event.metadata();
        if place.target() == BOUNDS {
            return true;
        }
        match self.take(place.callsite()) {
            None => false,
            Some(0) => true,
            Some(left_out) => {
                let (file, line) = (place.file().unwrap_or_default(), place.line().unwrap_or_default());
                tracing::warn!(target: BOUNDS, left_out, place = %format_args!("{file}:{line}"), "lines were left out: too many in a row");
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_level_is_an_error_with_the_levels() {
        for level in ["frob", "inof", "info,dbug", "", ",", "anchorlog=inof", "a=b=c"] {
            let reason = check_level(level).expect_err(level);
            assert!(reason.contains("off, error, warn, info, debug or trace"), "{level}: {reason}");
        }
        for level in ["info", "WARN", "off", "info,anchorlog::net=debug", "warn, anchorlog_engine", "tokio=trace,"] {
            assert_eq!(check_level(level), Ok(()), "{level}");
        }
    }

    #[test]
    fn a_place_that_says_too_much_is_heard_less_and_what_is_left_out_is_counted() {
        let mut allowance = Allowance { lines: Allowance::FULL, since: Duration::ZERO, left_out: 0 };
        let at = Duration::from_millis;
        let heard = (0..1000).filter(|_| allowance.take(at(0)).is_some()).count();
        assert_eq!(heard, 100);
        assert_eq!(allowance.take(at(50)), None, "half of a line has come together");
        assert_eq!(allowance.take(at(100)), Some(901));
        assert_eq!(allowance.take(at(100)), None);
        let heard = (0..1000).filter(|_| allowance.take(at(1_000_000)).is_some()).count();
        assert_eq!(heard, 100, "silence is not saved up for ever");
    }
}
