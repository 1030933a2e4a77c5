//! What survives in a punched segment, read record by record: between them there is nothing to look at.

use super::{ScrubParts, find, header_damage};
use crate::damage::DamagedPart;
use crate::io::{AlignedBuf, IO_ALIGN};
use crate::open::Survivor;
use crate::retention::survivors::{self, List};
use crate::units::{Lsn, align_up, to_u64};

/// A way through what survives in one segment.
pub(super) struct Remains {
    base: Lsn,
    list: List,
    /// The next of the list.
    at: usize,
    header_checked: bool,
}

impl Remains {
    pub(super) fn new(base: Lsn, list: List) -> Remains {
        Remains { base, list, at: 0, header_checked: false }
    }

    pub(super) fn is_over(&self) -> bool {
        self.at >= self.list.len()
    }

    /// Reads and checks the segment's header, or the next record; returns how many bytes that took, about.
    pub(super) fn check_next(&mut self, parts: &ScrubParts) -> u64 {
        let Some(file) = parts.segments.find(self.base) else {
            self.at = self.list.len();
            return 0;
        };
        let geometry = parts.segments.geometry();
        if !std::mem::replace(&mut self.header_checked, true) {
            let mut block = AlignedBuf::zeroed(IO_ALIGN);
            let read = file.read_at(&mut block, 0).map_err(|error| error.to_string());
            let what = read.map_or_else(Some, |()| header_damage(&block, geometry, self.base));
            if let Some(what) = what
                && parts.survivors.has_segment(self.base)
            {
                find(parts, self.base, DamagedPart::SegmentHeader, what);
            }
            return to_u64(IO_ALIGN);
        }
        let Some(code) = self.list.get(self.at) else { return 0 };
        self.at += 1;
        let (lsn, _) = survivors::decode(self.base, *code);
        match Survivor::read(&file, geometry, lsn) {
            Ok(survivor) => align_up(u64::from(survivor.size()), to_u64(IO_ALIGN)) + to_u64(IO_ALIGN),
            Err(what) => {
                // It may have been given up while it was looked at, and its place punched.
                if parts.survivors.contains(lsn) {
                    find(parts, lsn, DamagedPart::Record, what);
                }
                to_u64(IO_ALIGN)
            }
        }
    }
}
