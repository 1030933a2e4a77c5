//! The table at one LSN, for readers who need more than one look.

use std::ops::Bound;
use std::sync::Arc;

use crate::error::ReadError;
use crate::table::{TableEntry, Visible};
use crate::units::Lsn;

/// The table as it was when the snapshot began. Versions that it may read stay in memory until it is dropped: keep it short.
#[derive(Debug)]
pub struct Snapshot {
    table: Arc<Visible>,
    lsn: Lsn,
}

impl Snapshot {
    pub(crate) fn new(table: Arc<Visible>) -> Snapshot {
        let lsn = table.begin_snapshot();
        Snapshot { table, lsn }
    }

    /// Changes below this LSN are in it, and no others.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// The entry of this key.
    ///
    /// # Errors
    /// When it has to be read from the disk and cannot be.
    pub fn get(&self, key: &[u8]) -> Result<Option<TableEntry>, ReadError> {
        Ok(self.table.get_at(key, self.lsn))
    }

    /// Up to `count` entries with `from <= key < to` (no upper end with `None`), in the order of their keys as bytes. To go on, begin at
    /// the last key with a byte 0 behind it.
    ///
    /// # Errors
    /// When they have to be read from the disk and cannot be.
    pub fn range(&self, from: &[u8], to: Option<&[u8]>, count: usize) -> Result<Vec<(Vec<u8>, TableEntry)>, ReadError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(Vec::new());
        }
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(self.table.range_at(Bound::Included(from), to, self.lsn, count))
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.table.end_snapshot(self.lsn);
    }
}
