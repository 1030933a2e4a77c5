//! Many records at once, wherever in the log they lie: what the links of one pull lead to.
//!
//! 1. They are read in the order of the log, those that lie close together by one read, an isolated one by the blocks that it lies in.
//! 2. What cannot be had so is left out: whoever asks for it alone learns why.
//!
//! What was read is not kept for others, unless it was at hand already: messages that links lead to lie far apart.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::commitlog::reader::LogReader;
use crate::commitlog::record;
use crate::io::IO_ALIGN;
use crate::limits::{COLD_READ_BYTES, GATHER_GAP_BYTES};
use crate::units::{Lsn, align_down, align_up, to_u64, to_usize};

/// Records by their LSNs, verified.
#[derive(Debug, Default)]
pub(crate) struct Gathered(BTreeMap<Lsn, Vec<u8>>);

impl Gathered {
    /// The record at `lsn`.
    pub(crate) fn get(&self, lsn: Lsn) -> Option<Vec<u8>> {
        self.0.get(&lsn).cloned()
    }
}

/// Records that lie next to each other, and the part of the log that has them.
#[derive(Debug)]
struct Stretch {
    blocks: Range<Lsn>,
    records: Vec<(Lsn, u32)>,
}

impl LogReader {
    /// Brings records of these places and sizes.
    pub(crate) fn gather(&self, wanted: impl Iterator<Item = (Lsn, u32)>, from_disk: bool) -> Gathered {
        let mut gathered = Gathered::default();
        let mut cold = Vec::new();
        for (lsn, size) in wanted.collect::<BTreeSet<_>>() {
            match self.at_hand(lsn, size) {
                Some(bytes) => drop(gathered.0.insert(lsn, bytes)),
                None => cold.push((lsn, size)),
            }
        }
        if !from_disk {
            return gathered;
        }
        for Stretch { blocks, records } in self.stretches(&cold) {
            let mut bytes = Vec::new();
            if self.exactly(blocks.start, blocks.end.since(blocks.start), &mut bytes).is_err() {
                continue;
            }
            for (lsn, size) in records {
                let from = to_usize(lsn.since(blocks.start));
                let record = bytes.get(from..from + size as usize);
                // A segment that was recycled meanwhile is not the one that was asked for.
                if let Some(record) = record.filter(|record| record::decode(record).is_ok() && self.is_retained(lsn)) {
                    gathered.0.insert(lsn, record.to_vec());
                }
            }
        }
        gathered
    }

    /// Puts records in the order of the log together that one read brings.
    fn stretches(&self, records: &[(Lsn, u32)]) -> Vec<Stretch> {
        let geometry = self.geometry();
        let mut stretches: Vec<Stretch> = Vec::new();
        for &(lsn, size) in records {
            let base = geometry.base(lsn);
            let end = lsn.plus(u64::from(size)).min(geometry.segment_end(lsn));
            // Blocks of the file, and of the log: a segment's first byte stands at the beginning of one.
            let align = to_u64(IO_ALIGN);
            let from = base.plus(align_down(lsn.since(base), align));
            let to = base.plus(align_up(end.since(base), align)).min(geometry.segment_end(lsn));
            match stretches.last_mut() {
                Some(last)
                    if geometry.base(last.blocks.start) == base
                        && from.0 <= last.blocks.end.0 + GATHER_GAP_BYTES
                        && to.since(last.blocks.start) <= COLD_READ_BYTES =>
                {
                    last.blocks.end = last.blocks.end.max(to);
                    last.records.push((lsn, size));
                }
                _ => stretches.push(Stretch { blocks: from..to, records: vec![(lsn, size)] }),
            }
        }
        stretches
    }
}
