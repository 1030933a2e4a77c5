//! Log lines out, to standard error.

use std::io::IsTerminal;
use std::sync::OnceLock;

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
    /// Somebody else in this process decides.
    #[error("what is logged is decided elsewhere in this process")]
    Foreign,
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
    // Each format is another type, and so is its handle.
    let (started, set): (_, SetFilter) = match format {
        LogFormat::Full => {
            let lines = lines.with_filter_reloading();
            let handle = lines.reload_handle();
            (lines.try_init(), Box::new(move |filter| handle.reload(filter).is_ok()))
        }
        LogFormat::Compact => {
            let lines = lines.compact().with_filter_reloading();
            let handle = lines.reload_handle();
            (lines.try_init(), Box::new(move |filter| handle.reload(filter).is_ok()))
        }
        LogFormat::Pretty => {
            let lines = lines.pretty().with_filter_reloading();
            let handle = lines.reload_handle();
            (lines.try_init(), Box::new(move |filter| handle.reload(filter).is_ok()))
        }
    };
    started.map_err(|_| TelemetryError::Twice)?;
    SET_FILTER.set(set).map_err(|_| TelemetryError::Twice)
}

type SetFilter = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

/// Changes what is logged; set once.
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// Logs what this level says from now on.
///
/// # Errors
/// When the level is none, or somebody else decides what this process logs.
pub fn set_level(level: &str) -> Result<(), TelemetryError> {
    let filter =
        EnvFilter::try_new(level).map_err(|source| TelemetryError::Level { level: level.to_owned(), source })?;
    match SET_FILTER.get() {
        Some(set) if set(filter) => Ok(()),
        _ => Err(TelemetryError::Foreign),
    }
}
