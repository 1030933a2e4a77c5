//! Entries in memory: as they come along the log, or sorted for a checkpoint. Eight bytes each.

use crate::commitlog::frame::FRAME_ALIGN;
use crate::key_index::rows::Posting;
use crate::units::Lsn;

/// A stretch of the log's entries.
#[derive(Debug)]
pub(super) struct Chunk {
    start: Lsn,
    /// The newest entry.
    last: Lsn,
    pub(super) first_ms: u64,
    pub(super) last_ms: u64,
    is_sorted: bool,
    /// The hash above, below it how far from `start` the record lies, in multiples of 8 bytes.
    packed: Vec<u64>,
}

impl Chunk {
    /// An empty one, for `capacity` entries.
    pub(super) fn new(capacity: usize, start: Lsn, store_time_ms: u64) -> Chunk {
        let packed = Vec::with_capacity(capacity);
        Chunk { start, last: start, first_ms: store_time_ms, last_ms: store_time_ms, is_sorted: false, packed }
    }

    /// Adds an entry; false when it does not fit: the chunk is full, or begins too far from it.
    ///
    /// # Panics
    /// When it lies before the one before.
    pub(super) fn push(&mut self, posting: Posting, store_time_ms: u64) -> bool {
        assert!(posting.lsn >= self.last, "entries come along the log");
        let distance = u32::try_from(posting.lsn.since(self.start) / FRAME_ALIGN);
        let Some(distance) = distance.ok().filter(|_| self.packed.len() < self.packed.capacity()) else { return false };
        self.packed.push(u64::from(posting.hash) << 32 | u64::from(distance));
        (self.last, self.last_ms) = (posting.lsn, store_time_ms);
        true
    }

    pub(super) fn len(&self) -> usize {
        self.packed.len()
    }

    pub(super) fn start(&self) -> Lsn {
        self.start
    }

    pub(super) fn last(&self) -> Lsn {
        self.last
    }

    pub(super) fn is_sorted(&self) -> bool {
        self.is_sorted
    }

    /// The same, sorted by hash.
    pub(super) fn sorted(&self) -> Chunk {
        let mut packed = self.packed.clone();
        packed.sort_unstable();
        Chunk { is_sorted: true, packed, ..*self }
    }

    /// The entry at `index`.
    pub(super) fn get(&self, index: usize) -> Option<Posting> {
        self.packed.get(index).map(|packed| self.unpack(*packed))
    }

    /// All entries, as they are ordered.
    pub(super) fn postings(&self) -> impl Iterator<Item = Posting> {
        self.packed.iter().map(|packed| self.unpack(*packed))
    }

    /// Where the records with a key of this hash lie, along the log.
    pub(super) fn lsns(&self, hash: u32) -> Vec<Lsn> {
        let wanted = u64::from(hash);
        if self.is_sorted {
            let from = self.packed.partition_point(|packed| packed >> 32 < wanted);
            let found = self.packed[from..].iter().take_while(|packed| **packed >> 32 == wanted);
            return found.map(|packed| self.unpack(*packed).lsn).collect();
        }
        let found = self.packed.iter().filter(|packed| **packed >> 32 == wanted);
        found.map(|packed| self.unpack(*packed).lsn).collect()
    }

    fn unpack(&self, packed: u64) -> Posting {
        let [a, b, c, d, hash @ ..] = packed.to_le_bytes();
        let distance = u64::from(u32::from_le_bytes([a, b, c, d]));
        Posting { hash: u32::from_le_bytes(hash), lsn: self.start.plus(distance * FRAME_ALIGN) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn posting(hash: u32, lsn: u64) -> Posting {
        Posting { hash, lsn: Lsn(lsn) }
    }

    #[test]
    fn a_chunk_finds_the_same_sorted_or_not() {
        let mut chunk = Chunk::new(100, Lsn(800), 5);
        for number in 0..100 {
            assert!(chunk.push(posting(number % 7 * 0x1000_0000, 800 + u64::from(number) * 8), u64::from(number) + 5));
        }
        assert!(!chunk.push(posting(1, 9000), 200), "it is full");
        let sorted = chunk.sorted();
        for hash in (0..8).map(|hash| hash * 0x1000_0000) {
            let lsns: Vec<_> =
                (0..100_u32).filter(|n| n % 7 * 0x1000_0000 == hash).map(|n| Lsn(800 + u64::from(n) * 8)).collect();
            assert_eq!((chunk.lsns(hash), sorted.lsns(hash)), (lsns.clone(), lsns));
        }
        assert_eq!((sorted.start(), sorted.last(), sorted.first_ms, sorted.last_ms), (Lsn(800), Lsn(1592), 5, 104));
        assert_eq!((sorted.get(0), sorted.get(100)), (Some(posting(0, 800)), None));
    }

    #[test]
    fn a_record_too_far_away_begins_another_chunk() {
        let mut chunk = Chunk::new(10, Lsn(8), 0);
        assert!(chunk.push(posting(1, 8 + (u64::from(u32::MAX) << 3)), 0));
        assert!(!chunk.push(posting(1, 8 + (1 << 35)), 0));
        assert_eq!(chunk.lsns(1), [Lsn(8 + (u64::from(u32::MAX) << 3))]);
    }
}
