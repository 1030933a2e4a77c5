//! Errors, one enum per surface. Each says where, and what the caller may do next: in words, and as an [`Advice`] for programs.
//!
//! The codecs' own errors (`FrameError`, `RecordError`, `SegmentHeaderError`) are for tools that look at bytes, and advise nothing.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::engine::AppendOrWaitError;
use crate::recovery::cases::{self, RecoveryCase};
use crate::units::{Epoch, Lsn, QueueOffset};

/// What a caller may do about an error; from the `advice` of each error type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Advice {
    /// Time may cure it: the same call may succeed later. Nothing was half done.
    Retry,
    /// This call cannot succeed as it is; change it or give it up. Others are not concerned.
    Reject,
    /// The engine, or the directory, serves no such call any more: close it, and open it again or ask a person.
    Stop,
}

/// Whether the kernel's refusal may pass by itself.
fn of_kernel(error: &io::Error) -> Advice {
    use io::ErrorKind::{Interrupted, QuotaExceeded, StorageFull, TimedOut, WouldBlock};
    match error.kind() {
        Interrupted | WouldBlock | TimedOut | StorageFull | QuotaExceeded => Advice::Retry,
        _ => Advice::Stop,
    }
}

/// An option that cannot be met.
#[derive(Debug, thiserror::Error)]
#[error("option {option} is {found}; it must be {want}")]
pub struct OptionsError {
    /// Its name.
    pub option: &'static str,
    /// What was given.
    pub found: u64,
    /// What would do.
    pub want: Cow<'static, str>,
}

impl OptionsError {
    /// Always [`Advice::Reject`]: choose another value.
    #[must_use]
    pub fn advice(&self) -> Advice {
        Advice::Reject
    }
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
    /// What the last checkpoint covers was durable, and is not there any more, though nothing in the log says so.
    #[error(
        "{path} is not whole at LSN {lsn}: expected {expected}, found {found}; the last checkpoint says that the log was durable to LSN \
         {applied}{remedy}",
        path = path.display(),
        remedy = remedy(self.case())
    )]
    Lost {
        /// The file.
        path: PathBuf,
        /// Where in the log.
        lsn: Lsn,
        /// What should be there.
        expected: String,
        /// What is.
        found: String,
        /// How far the checkpoint goes.
        applied: Lsn,
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
    /// A leader's term is not above that of the log.
    #[error("term {asked} was asked for, and the log has seen term {last}: a leader's term must be above that")]
    Term {
        /// What was asked for.
        asked: u32,
        /// The newest that the log knows.
        last: u32,
    },
    /// A higher term was promised: a leader of a lower one is not opened.
    #[error("a leader of term {asked} was asked for, and {dir}/PROMISE says: {promised}{remedy}", dir = dir.display(), remedy = remedy(self.case()))]
    Promised {
        /// The directory.
        dir: PathBuf,
        /// The term that was asked for.
        asked: u32,
        /// What was promised, or why nobody can tell.
        promised: String,
    },
    /// A seed of a replica that did not come to its end.
    #[error("{dir} is half seeded{remedy}", dir = dir.display(), remedy = remedy(self.case()))]
    HalfSeeded {
        /// The directory.
        dir: PathBuf,
    },
    /// A replica was to be opened where there is none.
    #[error("{dir} holds no log: a replica begins with what its leader has (`replica::Seeding`)", dir = dir.display())]
    NoReplica {
        /// The directory.
        dir: PathBuf,
    },
}

impl OpenError {
    /// Retry what another process or a full disk stands in the way of; reject an option; stop, and ask a person, for the rest: a log that
    /// is damaged or incomplete does not become whole by trying.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            OpenError::Options(error) => error.advice(),
            OpenError::Io { source, .. } => of_kernel(source),
            OpenError::Locked { .. } => Advice::Retry,
            OpenError::Term { .. } | OpenError::Promised { .. } => Advice::Reject,
            OpenError::NoReplica { .. }
            | OpenError::HalfSeeded { .. }
            | OpenError::Missing { .. }
            | OpenError::NoSegments { .. }
            | OpenError::Damaged { .. }
            | OpenError::Lost { .. }
            | OpenError::Contradiction { .. } => Advice::Stop,
        }
    }

    /// The row of the case table ([`crate::RECOVERY_CASES`], `engine/docs/recovery.md`); `None` for what concerns no bytes or names of a
    /// log: options, space, permissions.
    #[must_use]
    pub fn case(&self) -> Option<&'static RecoveryCase> {
        Some(match self {
            OpenError::Options(_) | OpenError::Term { .. } | OpenError::NoReplica { .. } => return None,
            OpenError::Io { what, source, .. } if *what == "reading" && !is_forbidden(source) => {
                cases::case("unreadable")
            }
            OpenError::Io { .. } => return None,
            OpenError::HalfSeeded { .. } => cases::case("half-seeded"),
            OpenError::Promised { .. } => cases::case("promised"),
            OpenError::Locked { .. } => cases::case("second-process"),
            OpenError::Missing { lsn: None, .. } => cases::case("no-manifest"),
            OpenError::Missing { .. } => cases::case("missing-segment"),
            OpenError::NoSegments { .. } => cases::case("no-segments"),
            OpenError::Damaged { .. } => cases::case("damage"),
            OpenError::Lost { .. } => cases::case("checkpoint-beyond-end"),
            OpenError::Contradiction { what, .. } => return cases::contradiction(what),
        })
    }
}

/// Whether nothing is wrong but that this process, or anybody, may not.
fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
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

impl Fenced {
    /// Always [`Advice::Stop`]: open the directory again.
    #[must_use]
    pub fn advice(&self) -> Advice {
        Advice::Stop
    }
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

impl TooLarge {
    /// Always [`Advice::Reject`].
    #[must_use]
    pub fn advice(&self) -> Advice {
        Advice::Reject
    }
}

/// Why an operation could not be added to a batch.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BatchError {
    /// A part, or the batch, is too large; the caller must change it.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// A table key of no bytes.
    #[error("a table key is empty")]
    EmptyKey,
    /// A table key that begins with the byte 0.
    #[error("table keys that begin with the byte 0 are the engine's own")]
    ReservedKey,
    /// A target that names no message of this batch.
    #[error("operation {0} of the batch appends or links no message")]
    NoSuchRecord(usize),
}

impl BatchError {
    /// Always [`Advice::Reject`]; the batch is as it was before the operation.
    #[must_use]
    pub fn advice(&self) -> Advice {
        Advice::Reject
    }
}

/// A precondition that did not hold. It rests on what may not be durable yet: the answer is final once `rests_on` is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("precondition {index} of the batch does not hold: {found}; this rests on the log up to LSN {rests_on}")]
pub struct Rejection {
    /// Its place among the batch's preconditions, counted from 0.
    pub index: usize,
    /// What was found in its place.
    pub found: Found,
    /// The rejection counts once the log is acknowledged up to here.
    pub rests_on: Lsn,
}

impl Rejection {
    /// Always [`Advice::Reject`]: look at what is there now, and build another batch.
    #[must_use]
    pub fn advice(&self) -> Advice {
        Advice::Reject
    }
}

/// What a precondition met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Found {
    /// The key has no entry.
    #[error("the key has no entry")]
    Absent,
    /// The key has an entry with this value.
    #[error("the key has a value of {len} bytes", len = .0.len())]
    Value(Arc<[u8]>),
    /// The queue's next message gets this offset.
    #[error("the queue's next offset is {0}")]
    Next(QueueOffset),
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
    /// It names a queue that was dropped; ask the engine for the queue of that name again.
    #[error("the batch names a queue that was dropped; ask for the queue of that name again")]
    Dropped,
    /// It refers to a message that is no longer retained.
    #[error("the batch refers to LSN {0}, which is no longer retained")]
    TargetGone(Lsn),
    /// A precondition does not hold.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// What a precondition asks for could not be read.
    #[error("a precondition could not be judged: {0}")]
    Unjudged(Arc<ReadError>),
    /// The buffer is full; the caller may try again when the written watermark has moved.
    #[error("the log buffer is full: {waiting} bytes wait to be written, {max} are taken")]
    Full {
        /// Bytes waiting.
        waiting: u64,
        /// The limit.
        max: u64,
    },
    /// Too much of queues, table and key index waits in memory for a checkpoint; the caller may try again when one was written. When none
    /// can be written any more, the log of the process says why: open the directory again.
    #[error(
        "about {waiting} bytes of queues, table and key index wait in memory for a checkpoint, {max} may; append it again"
    )]
    Behind {
        /// About so many bytes wait.
        waiting: u64,
        /// The limit for batches of this kind.
        max: u64,
    },
    /// The log is as long as it may be while segments wait to be released, see [`crate::EngineOptions::with_retain_bytes`]; the caller
    /// may try again a little later. No pin stands in the way: what pins hold, nobody waits for.
    #[error(
        "the log ends at LSN {assigned} and is not to go beyond {bound} before older segments are released; append it again"
    )]
    Unreleased {
        /// Where the log ends.
        assigned: Lsn,
        /// How far ordinary batches may go now.
        bound: Lsn,
    },
    /// There is no room for another segment (or for a checkpoint that is overdue), and what stands ready is kept for others: ordinary
    /// batches leave the reserve to those with [`crate::WriteBatch::set_essential`], and those leave its last part to the engine. It
    /// heals by itself when there is room.
    #[error(
        "there is no room for the log to grow ({source}): the batch needs {needed} bytes, {left} are left for its kind; free space on the \
         disk, or release segments, and append it again"
    )]
    OutOfSpace {
        /// Bytes that it would take, with what has to stand before it.
        needed: u64,
        /// Bytes left for batches of its kind.
        left: u64,
        /// The kernel's answer when the log was to grow: the disk is full, a quota is used up, or files may not be so long.
        source: Arc<io::Error>,
    },
    /// The log is fenced.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The engine is closing.
    #[error("the engine is closing")]
    Closing,
    /// The log is a replica: another machine appends.
    #[error("this log is a replica; appends go to the leader")]
    NotLeader,
}

impl AppendError {
    /// Retry a full buffer, once the written watermark has moved, a late checkpoint or release, and a full disk, once there is room; stop
    /// when the log takes nothing any more; reject the rest.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            AppendError::TooLarge(error) => error.advice(),
            AppendError::Rejected(rejection) => rejection.advice(),
            AppendError::Unjudged(error) => error.advice(),
            AppendError::Empty | AppendError::ForeignQueue | AppendError::Dropped | AppendError::TargetGone(_) => {
                Advice::Reject
            }
            AppendError::Full { .. }
            | AppendError::Behind { .. }
            | AppendError::Unreleased { .. }
            | AppendError::OutOfSpace { .. } => Advice::Retry,
            AppendError::Fenced(fenced) => fenced.advice(),
            AppendError::Closing | AppendError::NotLeader => Advice::Stop,
        }
    }
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

impl WaitError {
    /// Retry the *wait* when time was up, not the append, which is still in flight; stop otherwise.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            WaitError::Fenced(fenced) => fenced.advice(),
            WaitError::TimedOut => Advice::Retry,
            WaitError::Closing => Advice::Stop,
        }
    }
}

impl AppendOrWaitError {
    /// That of the half that failed. A wait that failed leaves open whether the batch is stored, so the same batch appended again may be
    /// stored twice.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            AppendOrWaitError::Append(error) => error.advice(),
            AppendOrWaitError::Wait(error) => error.advice(),
        }
    }
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
    /// The derived store, which holds queue entries and table entries that left memory, is no good or cannot be read. It is made anew from
    /// the log when the directory is opened again.
    #[error("the derived store: {0}; open the directory again to have it made anew")]
    Derived(String),
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

impl ReadError {
    /// Retry a read that the kernel refused; reject what is not there, or is damaged: go on with the next message; stop where only another
    /// opening mends.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            ReadError::NotFound(_) | ReadError::Damaged { .. } => Advice::Reject,
            ReadError::Io { .. } => Advice::Retry,
            ReadError::Derived(_) => Advice::Stop,
        }
    }
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

impl ReleaseError {
    /// Reject a release of what is not acknowledged; stop when the log is fenced.
    #[must_use]
    pub fn advice(&self) -> Advice {
        match self {
            ReleaseError::BeyondEnd { .. } => Advice::Reject,
            ReleaseError::Fenced(fenced) => fenced.advice(),
        }
    }
}

/// A queue entry that is not the one that should be there: a bug, or a log whose queues contradict each other.
#[derive(Clone, Debug, thiserror::Error)]
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

impl From<crate::store::StoreError> for ReadError {
    fn from(error: crate::store::StoreError) -> ReadError {
        ReadError::Derived(error.to_string())
    }
}

impl From<crate::checkpoint::rows::BadRow> for ReadError {
    fn from(row: crate::checkpoint::rows::BadRow) -> ReadError {
        ReadError::Derived(row.to_string())
    }
}

impl NotDense {
    /// Always [`Advice::Stop`]: the log is fenced with it.
    #[must_use]
    pub fn advice(&self) -> Advice {
        Advice::Stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fenced() -> Fenced {
        Fenced { lsn: Lsn(8), what: "a test".into(), source: Arc::new(io::Error::from_raw_os_error(5)) }
    }

    fn full() -> Arc<io::Error> {
        Arc::new(io::Error::from_raw_os_error(libc::ENOSPC))
    }

    fn kernel(errno: i32) -> OpenError {
        OpenError::Io { what: "opening", path: PathBuf::new(), source: io::Error::from_raw_os_error(errno) }
    }

    fn damaged() -> ReadError {
        ReadError::Damaged { lsn: Lsn(8), path: PathBuf::new(), what: String::new() }
    }

    fn unreadable() -> ReadError {
        ReadError::Io { lsn: Lsn(8), path: PathBuf::new(), source: io::Error::from_raw_os_error(5) }
    }

    const TOO_LARGE: TooLarge = TooLarge { what: "batch", found: 2, max: 1 };

    #[test]
    fn an_open_that_fails_says_whether_time_a_caller_or_a_person_can_help() {
        let (path, text) = (PathBuf::new, String::new);
        let options = OptionsError { option: "segment_bytes", found: 1, want: "more".into() };
        assert_eq!(OpenError::from(options).advice(), Advice::Reject);
        assert_eq!(kernel(libc::ENOSPC).advice(), Advice::Retry);
        assert_eq!(kernel(libc::EDQUOT).advice(), Advice::Retry);
        assert_eq!(kernel(libc::EIO).advice(), Advice::Stop);
        assert_eq!(kernel(libc::EACCES).advice(), Advice::Stop);
        assert_eq!(OpenError::Locked { dir: path(), holder: text() }.advice(), Advice::Retry);
        assert_eq!(OpenError::Missing { path: path(), lsn: None, why: text() }.advice(), Advice::Stop);
        assert_eq!(OpenError::NoSegments { dir: path(), start: Lsn(8) }.advice(), Advice::Stop);
        let (lsn, durable_lsn) = (Lsn(8), Lsn(16));
        let damaged = OpenError::Damaged { path: path(), lsn, expected: text(), found: text(), durable_lsn };
        assert_eq!(damaged.advice(), Advice::Stop);
        let lost = OpenError::Lost { path: path(), lsn, expected: text(), found: text(), applied: durable_lsn };
        assert_eq!(lost.advice(), Advice::Stop);
        let contradiction = OpenError::Contradiction { path: path(), what: "length", expected: text(), found: text() };
        assert_eq!(contradiction.advice(), Advice::Stop);
    }

    #[test]
    fn an_append_is_tried_again_only_where_nothing_of_it_can_be_stored() {
        let rejection = Rejection { index: 0, found: Found::Absent, rests_on: Lsn(8) };
        for (error, advice) in [
            (AppendError::TooLarge(TOO_LARGE), Advice::Reject),
            (AppendError::Empty, Advice::Reject),
            (AppendError::ForeignQueue, Advice::Reject),
            (AppendError::Dropped, Advice::Reject),
            (AppendError::TargetGone(Lsn(8)), Advice::Reject),
            (AppendError::Rejected(rejection), Advice::Reject),
            (AppendError::Unjudged(Arc::new(unreadable())), Advice::Retry),
            (AppendError::Unjudged(Arc::new(damaged())), Advice::Reject),
            (AppendError::Full { waiting: 2, max: 1 }, Advice::Retry),
            (AppendError::Behind { waiting: 2, max: 1 }, Advice::Retry),
            (AppendError::Unreleased { assigned: Lsn(16), bound: Lsn(16) }, Advice::Retry),
            (AppendError::OutOfSpace { needed: 2, left: 1, source: full() }, Advice::Retry),
            (AppendError::Fenced(fenced()), Advice::Stop),
            (AppendError::Closing, Advice::Stop),
            (AppendError::NotLeader, Advice::Stop),
        ] {
            assert_eq!(error.advice(), advice, "{error}");
            assert_eq!(AppendOrWaitError::from(error).advice(), advice);
        }
        assert_eq!(BatchError::EmptyKey.advice(), Advice::Reject);
    }

    #[test]
    fn a_wait_a_read_and_a_release_say_what_to_do() {
        for (error, advice) in [
            (WaitError::Fenced(fenced()), Advice::Stop),
            (WaitError::TimedOut, Advice::Retry),
            (WaitError::Closing, Advice::Stop),
        ] {
            assert_eq!(error.advice(), advice, "{error}");
            assert_eq!(AppendOrWaitError::from(error).advice(), advice);
        }
        assert_eq!(ReadError::NotFound(Lsn(8)).advice(), Advice::Reject);
        assert_eq!(damaged().advice(), Advice::Reject);
        assert_eq!(unreadable().advice(), Advice::Retry);
        assert_eq!(ReadError::Derived(String::new()).advice(), Advice::Stop);
        assert_eq!(ReleaseError::BeyondEnd { asked: Lsn(8), acked: Lsn(0) }.advice(), Advice::Reject);
        assert_eq!(ReleaseError::Fenced(fenced()).advice(), Advice::Stop);
    }
}
