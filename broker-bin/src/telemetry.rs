//! Log lines out, to standard error.

use std::io::IsTerminal;

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
