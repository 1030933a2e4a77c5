//! How much of queues, table and key index waits in memory for a checkpoint, and who has to wait for it.
//!
//! Checkpoints begin long before the bound is met. It is met when they cannot be written as fast as the log grows, or not at all: then
//! batches are refused, the ordinary ones first, and memory does not grow on. What a checkpoint is writing right now comes on top; that is
//! no more than waited when it began.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::commit::room::Claim;
use crate::error::AppendError;
use crate::limits;

/// Counts only: the dispatcher says what waits, the sequencer asks.
#[derive(Debug)]
pub(crate) struct Backlog {
    max: u64,
    bytes: AtomicU64,
}

impl Backlog {
    /// `None` for no bound.
    pub(crate) fn new(max: Option<u64>) -> Backlog {
        Backlog { max: max.unwrap_or(u64::MAX), bytes: AtomicU64::new(0) }
    }

    /// So much waits now.
    pub(crate) fn set(&self, entries: u64, keys: usize, changes: usize) {
        let bytes = entries * limits::ENTRY_MEMORY
            + crate::units::to_u64(keys) * limits::KEY_MEMORY
            + crate::units::to_u64(changes) * limits::CHANGE_MEMORY;
        self.bytes.store(bytes, Ordering::Release);
    }

    /// Whether a checkpoint is due for it.
    pub(crate) fn is_much(&self) -> bool {
        self.bytes.load(Ordering::Acquire) >= self.max / 4
    }

    /// Whether a batch may add to it.
    pub(crate) fn admit(&self, claim: Claim) -> Result<(), AppendError> {
        let max = match claim {
            Claim::Ordinary => self.max,
            Claim::Essential => self.max.saturating_mul(2),
            // It frees more than it takes.
            Claim::Own => u64::MAX,
        };
        let waiting = self.bytes.load(Ordering::Acquire);
        if waiting < max { Ok(()) } else { Err(AppendError::Behind { waiting, max }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_batches_wait_first_and_the_engine_itself_never() {
        let backlog = Backlog::new(Some(64 * limits::CHANGE_MEMORY));
        let admitted = || [Claim::Ordinary, Claim::Essential, Claim::Own].map(|claim| backlog.admit(claim).is_ok());
        backlog.set(0, 0, 15);
        assert!(!backlog.is_much());
        backlog.set(0, 0, 63);
        assert!(backlog.is_much());
        assert_eq!(admitted(), [true, true, true]);
        backlog.set(0, 0, 64);
        assert_eq!(admitted(), [false, true, true]);
        backlog.set(0, 0, 128);
        assert_eq!(admitted(), [false, false, true]);
        backlog.set(0, 0, 0);
        assert_eq!(admitted(), [true, true, true]);
    }
}
