//! Log lines out, to standard error.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Log lines cannot be had as asked for.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is none.
    #[error("log-level = {level}: {source}")]
    Level {
        /// What was asked for.
        level: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody else in this process has set them up before.
    #[error("logging is already set up")]
    Twice,
}

/// Sends log lines of this process to standard error from now on.
///
/// # Errors
/// When the level is none, or it was done before.
pub fn start(level: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let filter =
        EnvFilter::try_new(level).map_err(|source| TelemetryError::Level { level: level.to_owned(), source })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        LogFormat::Full => lines.try_init(),
        LogFormat::Compact => lines.compact().try_init(),
        LogFormat::Pretty => lines.pretty().try_init(),
    };
    started.map_err(|_| TelemetryError::Twice)
}

/// Lets a log line through once per interval, and counts what it held back: a peer must not be able to fill the disk with lines.
#[derive(Debug)]
pub struct Sparing {
    interval_ms: u64,
    /// When the next line may pass, in milliseconds of the caller's clock.
    next_ms: AtomicU64,
    held_back: AtomicU64,
}

impl Sparing {
    /// One line per `interval`.
    #[must_use]
    pub const fn new(interval: Duration) -> Sparing {
        let seconds_ms = interval.as_secs().saturating_mul(1000);
        let interval_ms = seconds_ms.saturating_add(interval.subsec_millis() as u64);
        Sparing { interval_ms, next_ms: AtomicU64::new(0), held_back: AtomicU64::new(0) }
    }

    /// Whether a line may pass at this time of a monotonic clock; if so, how many were held back before it.
    ///
    /// ```
    /// # use anchorlog::telemetry::Sparing;
    /// static BAD_FRAMES: Sparing = Sparing::new(std::time::Duration::from_secs(1));
    /// let now_ms = 5000;
    /// if let Some(held_back) = BAD_FRAMES.pass(now_ms) {
    ///     tracing::warn!(held_back, "closed a connection");
    /// }
    /// assert_eq!(BAD_FRAMES.pass(now_ms + 999), None);
    /// assert_eq!(BAD_FRAMES.pass(now_ms + 1000), Some(1));
    /// ```
    pub fn pass(&self, now_ms: u64) -> Option<u64> {
        let next_ms = self.next_ms.load(Ordering::Relaxed);
        let taken = now_ms >= next_ms
            && self
                .next_ms
                .compare_exchange(
                    next_ms,
                    now_ms.saturating_add(self.interval_ms),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok();
        if taken {
            return Some(self.held_back.swap(0, Ordering::Relaxed));
        }
        self.held_back.fetch_add(1, Ordering::Relaxed);
        None
    }
}
