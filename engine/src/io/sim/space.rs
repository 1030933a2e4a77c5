//! What room there is: a capacity, a quota, a largest file, and the holes that give space back.

use std::collections::BTreeSet;
use std::io;

use super::disk::{State, errno};
use super::sectors::PAGE;
use crate::units::to_u64;

/// The limits of a disk; all of them outlive a crash.
#[derive(Clone, Debug, Default)]
pub(super) struct Space {
    /// Most bytes that all files may take together; beyond it `ENOSPC`, and nothing of the write happens.
    pub(super) capacity: Option<u64>,
    /// Most bytes that all files may take together, as a quota on blocks counts them; beyond it `EDQUOT`, and nothing of the write happens.
    pub(super) block_quota: Option<u64>,
    /// Bytes that may still be written, new or over old ones (a quota, a thin volume, a file system that copies on write); beyond it
    /// `EDQUOT`, and some of the write may have happened.
    pub(super) quota: Option<u64>,
    /// Longest file (`RLIMIT_FSIZE`); beyond it `EFBIG`, and nothing of the write happens.
    pub(super) file_bytes_max: Option<u64>,
    /// The file system has no holes.
    pub(super) no_holes: bool,
}

impl State {
    /// Bytes that files take: of those that have a name or are open, without their holes.
    pub(super) fn used(&self) -> u64 {
        let named: BTreeSet<u64> = self.live_names.values().copied().collect();
        let held = self.inodes.iter().filter(|(number, inode)| inode.handles > 0 || named.contains(number));
        held.map(|(_, inode)| inode.live.len - to_u64(inode.holes.len() * PAGE)).sum()
    }

    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        self.alive()?;
        let free = self.space.capacity.map_or(u64::MAX / 2, |capacity| capacity.saturating_sub(self.used()));
        Ok(self.space.quota.map_or(free, |quota| quota.min(free)))
    }

    /// Refuses what the capacity or the largest file does not allow. `writes`: a write takes space for the holes in its range only,
    /// allocating for all holes below.
    pub(super) fn take_space(&mut self, inode: u64, offset: u64, len: u64, writes: bool) -> io::Result<()> {
        let file = self.inode(inode);
        let end = offset + len;
        let filled = file.holes.range(offset / to_u64(PAGE)..end.div_ceil(to_u64(PAGE))).count();
        let growth = end.saturating_sub(file.live.len) + to_u64(filled * PAGE);
        let too_long = self.space.file_bytes_max.is_some_and(|max| end > max && end > file.live.len);
        let error = if too_long {
            Some(libc::EFBIG)
        } else if growth > 0 && self.space.capacity.is_some_and(|capacity| self.used() + growth > capacity) {
            Some(libc::ENOSPC)
        } else if growth > 0 && self.space.block_quota.is_some_and(|quota| self.used() + growth > quota) {
            Some(libc::EDQUOT)
        } else if writes {
            None
        } else {
            self.charge(growth)
        };
        match error {
            None => Ok(()),
            Some(number) => {
                self.faults.note_failure();
                Err(errno(number))
            }
        }
    }

    /// Takes bytes from the quota; answers the error number when it does not have them.
    pub(super) fn charge(&mut self, len: u64) -> Option<i32> {
        let quota = self.space.quota.as_mut()?;
        match quota.checked_sub(len) {
            Some(left) => {
                *quota = left;
                None
            }
            None => {
                self.faults.note_failure();
                Some(libc::EDQUOT)
            }
        }
    }
}
