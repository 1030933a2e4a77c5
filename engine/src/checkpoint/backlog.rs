//! How much of queues, table and key index waits in memory for a checkpoint, and who has to wait for it.
//!
//! Checkpoints begin long before the bound is met. It is met when they cannot be written as fast as the log grows, or not at all: then
//! batches are refused, the ordinary ones first, and memory does not grow on. What a checkpoint is writing right now counts until it is
//! written.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::commit::room::Claim;
use crate::error::AppendError;
use crate::limits;
use crate::table::Unsaved;
use crate::units::to_u64;

/// Counts only: the dispatcher says what waits, the checkpointer what it is done with, the sequencer asks.
#[derive(Debug)]
pub(crate) struct Backlog {
    max: u64,
    /// Waiting for the next checkpoint.
    bytes: AtomicU64,
    /// Being written by this one.
    frozen: AtomicU64,
}

/// About how much memory so many queue entries and keys take, and these changes of the table.
pub(crate) fn estimate(entries: u64, keys: usize, changes: Unsaved) -> u64 {
    entries * limits::ENTRY_MEMORY
        + to_u64(keys) * limits::KEY_MEMORY
        + to_u64(changes.count) * limits::CHANGE_MEMORY
        + changes.bytes
}

impl Backlog {
    /// `None` for no bound.
    pub(crate) fn new(max: Option<u64>) -> Backlog {
        Backlog { max: max.unwrap_or(u64::MAX), bytes: AtomicU64::new(0), frozen: AtomicU64::new(0) }
    }

    /// So much waits now for the next checkpoint.
    pub(crate) fn set(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Release);
    }

    /// A checkpoint begins, of all that waits.
    pub(crate) fn freeze(&self) {
        self.frozen.store(self.bytes.swap(0, Ordering::AcqRel), Ordering::Release);
    }

    /// It is written.
    pub(crate) fn saved(&self) {
        self.frozen.store(0, Ordering::Release);
    }

    /// Whether a checkpoint is due for it.
    pub(crate) fn is_much(&self) -> bool {
        self.bytes.load(Ordering::Acquire) >= self.max / 4
    }

    /// Whether what is written for it should not take long.
    pub(crate) fn is_pressing(&self) -> bool {
        self.waiting() >= self.max / 2
    }

    fn waiting(&self) -> u64 {
        self.bytes.load(Ordering::Acquire) + self.frozen.load(Ordering::Acquire)
    }

    /// Whether a batch may add to it.
    pub(crate) fn admit(&self, claim: Claim) -> Result<(), AppendError> {
        let max = match claim {
            Claim::Ordinary => self.max,
            Claim::Essential => self.max.saturating_mul(2),
            // It frees more than it takes.
            Claim::Own => u64::MAX,
        };
        let waiting = self.waiting();
        if waiting < max { Ok(()) } else { Err(AppendError::Behind { waiting, max }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_batches_wait_first_and_the_engine_itself_never() {
        let backlog = Backlog::new(Some(6400));
        let admitted = || [Claim::Ordinary, Claim::Essential, Claim::Own].map(|claim| backlog.admit(claim).is_ok());
        backlog.set(1599);
        assert!(!backlog.is_much());
        backlog.set(6399);
        assert!(backlog.is_much());
        assert_eq!(admitted(), [true, true, true]);
        backlog.set(6400);
        assert_eq!(admitted(), [false, true, true]);
        backlog.set(12_800);
        assert_eq!(admitted(), [false, false, true]);
        backlog.set(0);
        assert_eq!(admitted(), [true, true, true]);
    }

    #[test]
    fn what_is_being_written_counts_until_it_is() {
        let backlog = Backlog::new(Some(6400));
        backlog.set(4000);
        backlog.freeze();
        assert!(!backlog.is_much(), "no further checkpoint is due");
        backlog.set(2399);
        assert!(backlog.admit(Claim::Ordinary).is_ok());
        backlog.set(2400);
        assert!(backlog.admit(Claim::Ordinary).is_err());
        backlog.saved();
        assert!(backlog.admit(Claim::Ordinary).is_ok() && backlog.is_much());
        let changes = Unsaved { count: 3, bytes: 70 };
        assert_eq!(
            estimate(2, 5, changes),
            2 * limits::ENTRY_MEMORY + 5 * limits::KEY_MEMORY + 3 * limits::CHANGE_MEMORY + 70
        );
    }
}
