//! Errors, one enum per surface. Each says where, and what the caller may do next.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::recovery::cases::{self, RecoveryCase};
use crate::units::{Epoch, Lsn, QueueOffset};

/// An option that cannot be met.
#[derive(Debug, thiserror::Error)]
#[error("option {option} is {found}; it must be {want}")]
pub struct OptionsError {
    /// Its name.
    pub option: &'static str,
    /// What was given.
    pub found: u64,
    /// What would do.
    pub want: &'static str,
}

/// Why a log could not be opened. Nothing was changed unless the text says so; [`OpenError::case`] has the row of the case table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// An option cannot be met.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The kernel refused something.
    #[error("{what} {path}: {source}{remedy}", path = path.display(), remedy = remedy(self.case()))]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Another process has the directory.
    #[error("{dir} is in use by another process ({holder}){remedy}", dir = dir.display(), remedy = remedy(self.case()))]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// What the lock file says of the holder.
        holder: String,
    },
    /// A file that the log cannot do without is missing.
    #[error("{path} is missing: {why}{remedy}", path = path.display(), remedy = remedy(self.case()))]
    Missing {
        /// The file.
        path: PathBuf,
        /// The first LSN that is missing with it; `None` for the manifest.
        lsn: Option<Lsn>,
        /// What shows that it should be there.
        why: String,
    },
    /// There is a manifest of a log that was in use, and nothing else of it.
    #[error(
        "{dir}: every segment is missing: the manifest says that the log begins at {start}{remedy}",
        dir = dir.display(),
        remedy = remedy(self.case())
    )]
    NoSegments {
        /// The directory.
        dir: PathBuf,
        /// Where the log begins.
        start: Lsn,
    },
    /// Bytes that were durable have changed.
    #[error(
        "{path} is damaged at LSN {lsn}: expected {expected}, found {found}; the log goes on to at least LSN {durable_lsn}, so this is not \
         a torn tail{remedy}",
        path = path.display(),
        remedy = remedy(self.case())
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in the log.
        lsn: Lsn,
        /// What should be there.
        expected: String,
        /// What is.
        found: String,
        /// How far the log is known to have been durable.
        durable_lsn: Lsn,
    },
    /// A file contradicts the manifest or has a form that this version does not know.
    #[error("{path}: {what}: expected {expected}, found {found}{remedy}", path = path.display(), remedy = remedy(self.case()))]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// Which property.
        what: &'static str,
        /// What the manifest says.
        expected: String,
        /// What the file says.
        found: String,
    },
}

impl OpenError {
    /// The row of the case table ([`crate::RECOVERY_CASES`], `engine/docs/recovery.md`); `None` for what concerns no bytes or names of a
    /// log: options, space, permissions.
    #[must_use]
    pub fn case(&self) -> Option<&'static RecoveryCase> {
        Some(match self {
            OpenError::Options(_) => return None,
            OpenError::Io { what, .. } if *what == "reading" => cases::case("unreadable"),
            OpenError::Io { .. } => return None,
            OpenError::Locked { .. } => cases::case("second-process"),
            OpenError::Missing { lsn: None, .. } => cases::case("no-manifest"),
            OpenError::Missing { .. } => cases::case("missing-segment"),
            OpenError::NoSegments { .. } => cases::case("no-segments"),
            OpenError::Damaged { .. } => cases::case("damage"),
            OpenError::Contradiction { what, .. } => return cases::contradiction(what),
        })
    }
}

/// The end of an error's sentence: what to do, and where it is explained.
fn remedy(case: Option<&RecoveryCase>) -> String {
    case.map_or_else(String::new, |case| format!(". Remedy: {} (case {})", case.remedy, case.id))
}

/// Why the log takes nothing any more: the first write or flush that failed. It stays so until the directory is opened again.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "the log is fenced since LSN {lsn}: {what} failed: {source}; nothing is acknowledged any more, reading goes on; open the directory again to recover"
)]
pub struct Fenced {
    /// The durable end when it happened.
    pub lsn: Lsn,
    /// What failed.
    pub what: String,
    /// The kernel's answer.
    pub source: Arc<io::Error>,
}

/// Why a batch could not be built.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{what} is {found} bytes or entries; at most {max} are taken")]
pub struct TooLarge {
    /// What is too large.
    pub what: &'static str,
    /// How large it is.
    pub found: u64,
    /// The limit.
    pub max: u64,
}

/// Why a batch was not appended. Nothing of it is stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Something in it is too large; the caller must change it.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// It holds nothing.
    #[error("the batch is empty")]
    Empty,
    /// It names a queue that was asked of another engine, or of this directory's opening before this one.
    #[error("the batch names a queue of another engine or of an earlier opening; ask this engine for it")]
    ForeignQueue,
    /// The buffer is full; the caller may try again when the written watermark has moved.
    #[error("the log buffer is full: {waiting} bytes wait to be written, {max} are taken")]
    Full {
        /// Bytes waiting.
        waiting: u64,
        /// The limit.
        max: u64,
    },
    /// The log is fenced.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The engine is closing.
    #[error("the engine is closing")]
    Closing,
}

/// What became of an append whose ack was waited for, when it is not known to be acknowledged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The log is fenced: whether the batch survives is known after the next open.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// Time is up; the append is still in flight.
    #[error("not acknowledged in time; the append is still in flight")]
    TimedOut,
    /// The engine closed first.
    #[error("the engine is closing")]
    Closing,
}

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No message begins there, or none that is visible or retained.
    #[error("no message at LSN {0}")]
    NotFound(Lsn),
    /// The bytes are not what was written. Other messages are not concerned.
    #[error("the record at LSN {lsn} in {path} is damaged: {what}", path = path.display())]
    Damaged {
        /// Where in the log.
        lsn: Lsn,
        /// In which file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// The kernel refused to read.
    #[error("reading {path} at LSN {lsn}: {source}", path = path.display())]
    Io {
        /// Where in the log.
        lsn: Lsn,
        /// In which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Why a segment could not be released.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// Beyond what is acknowledged.
    #[error("LSN {asked} is beyond the acknowledged end {acked}")]
    BeyondEnd {
        /// What was asked for.
        asked: Lsn,
        /// The end.
        acked: Lsn,
    },
    /// The log is fenced.
    #[error(transparent)]
    Fenced(#[from] Fenced),
}

/// A queue entry that is not the one that should be there: a bug, or a log whose queues contradict each other.
#[derive(Debug, thiserror::Error)]
#[error("queue {queue:?}: entry {found} after {expected} at LSN {lsn} (epoch {epoch})")]
pub struct NotDense {
    /// The queue's name.
    pub queue: String,
    /// The offset that was due.
    pub expected: QueueOffset,
    /// The offset that the log holds.
    pub found: QueueOffset,
    /// Where.
    pub lsn: Lsn,
    /// In whose epoch.
    pub epoch: Epoch,
}
