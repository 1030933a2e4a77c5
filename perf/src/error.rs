//! Why a run ended early.

use std::io;
use std::path::PathBuf;

use anchorlog_engine::engine::AppendOrWaitError;
use anchorlog_engine::{AppendError, OpenError, ReadError, WaitError};

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PerfError {
    /// A choice that cannot be met.
    #[error("{0}")]
    Usage(String),
    /// The kernel refused something.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The disk probe failed.
    #[error("the disk probe: {0}")]
    Disk(#[source] io::Error),
    /// The engine could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The engine took no more.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The engine acknowledged no more.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// Reading back failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A broker did not do as expected.
    #[error("broker: {0}")]
    Broker(String),
    /// The connection to a broker failed.
    #[error("broker {peer}: {what}: {source}")]
    Connection {
        /// Whom we talked to.
        peer: String,
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A result could not be put together.
    #[error("report: {0}")]
    Report(String),
}

impl From<AppendOrWaitError> for PerfError {
    fn from(error: AppendOrWaitError) -> PerfError {
        match error {
            AppendOrWaitError::Append(error) => PerfError::Append(error),
            AppendOrWaitError::Wait(error) => PerfError::Wait(error),
        }
    }
}
