//! The table at one LSN, for readers who need more than one look.

use std::sync::Arc;

use crate::error::ReadError;
use crate::table::TableEntry;
use crate::table::visible::{Layers, Visible};
use crate::units::Lsn;

/// The table as it was when the snapshot began. Versions that it may read stay in memory, and space of the derived store is not used again,
/// until it is dropped: keep it short.
pub struct Snapshot {
    table: Arc<Visible>,
    layers: Layers,
    /// End of the last frame that changed the table.
    lsn: Lsn,
    dispatched: Lsn,
}

impl Snapshot {
    /// `dispatched`: the table has seen the log up to here.
    pub(crate) fn new(table: Arc<Visible>, dispatched: Lsn) -> Snapshot {
        let (lsn, layers) = table.begin_snapshot();
        Snapshot { table, layers, lsn, dispatched }
    }

    /// Changes below this LSN are in it, and no others.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        // Frames without changes of the table move the watermark alone.
        self.lsn.max(self.dispatched)
    }

    /// The entry of this key.
    ///
    /// # Errors
    /// When it has to be read from the disk and cannot be.
    pub fn get(&self, key: &[u8]) -> Result<Option<TableEntry>, ReadError> {
        self.layers.get(key, self.lsn)
    }

    /// Up to `count` entries with `from <= key < to` (no upper end with `None`), in the order of their keys as bytes. To go on, begin at
    /// the last key with a byte 0 behind it.
    ///
    /// # Errors
    /// When they have to be read from the disk and cannot be.
    pub fn range(&self, from: &[u8], to: Option<&[u8]>, count: usize) -> Result<Vec<(Vec<u8>, TableEntry)>, ReadError> {
        // Keys that begin with 0 are the engine's own.
        let from = if from.first().is_none_or(|first| *first == 0) { &[1] } else { from };
        if to.is_some_and(|to| to <= from) {
            return Ok(Vec::new());
        }
        self.layers.range(from, to, self.lsn, count)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.table.end_snapshot(self.lsn);
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("lsn", &self.lsn).finish_non_exhaustive()
    }
}
