//! What survives of segments below the log's dense start.
//!
//! One list per segment: which records stay, and which of them still stand in their queues. It is a table entry in the engine's own
//! namespace, so it is in the log, is restated, and is in checkpoints like every other; here it is at hand under the append lock.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use crate::commitlog::segment::Geometry;
use crate::units::Lsn;

/// Keys of the table entries: this, and the segment's base LSN in big-endian.
pub(crate) const KEY_PREFIX: &[u8] = b"\0sparse/";

/// Key of the table entry that says where the log begins: that much may go, on every machine that has it.
pub(crate) const START_KEY: &[u8] = b"\0start";

/// The records of one segment that survive, in their order: eighths of their distance from the segment's base, doubled; odd for one that
/// still stands in its queue.
pub(crate) type List = Arc<[u32]>;

/// All lists.
#[derive(Debug)]
pub(crate) struct Survivors {
    geometry: Geometry,
    lists: RwLock<BTreeMap<Lsn, List>>,
}

const INTACT: &str = "the lists of survivors are intact";

/// A record's place in its segment's list.
pub(crate) fn code(base: Lsn, lsn: Lsn, in_queue: bool) -> u32 {
    let eighths = u32::try_from(lsn.since(base) / 8).expect("a segment is bounded by SEGMENT_BYTES_MAX");
    eighths << 1 | u32::from(in_queue)
}

/// The record, and whether it still stands in its queue.
pub(crate) fn decode(base: Lsn, code: u32) -> (Lsn, bool) {
    (base.plus(u64::from(code >> 1) * 8), code & 1 == 1)
}

/// The table key of a segment's list.
pub(crate) fn key(base: Lsn) -> Vec<u8> {
    [KEY_PREFIX, &base.0.to_be_bytes()].concat()
}

/// The segment of a table key, if it is that of a list.
pub(crate) fn base_of_key(key: &[u8]) -> Option<Lsn> {
    Some(Lsn(u64::from_be_bytes(key.strip_prefix(KEY_PREFIX)?.try_into().ok()?)))
}

/// The log's start, from the value of its entry; the very beginning where there is none.
pub(crate) fn start_of(value: Option<&[u8]>) -> Lsn {
    Lsn(value.and_then(|value| value.first_chunk()).map_or(0, |start| u64::from_le_bytes(*start)))
}

pub(crate) fn encode(list: &[u32]) -> Vec<u8> {
    list.iter().flat_map(|code| code.to_le_bytes()).collect()
}

/// A list from a table entry's value; codes that do not grow are left out.
pub(crate) fn decode_list(value: &[u8]) -> List {
    let mut codes: Vec<u32> = value.as_chunks::<4>().0.iter().map(|code| u32::from_le_bytes(*code)).collect();
    codes.sort_unstable();
    codes.dedup_by_key(|code| *code >> 1);
    codes.into()
}

impl Survivors {
    pub(crate) fn new(geometry: Geometry) -> Survivors {
        Survivors { geometry, lists: RwLock::default() }
    }

    /// Sets a segment's list; `None` when nothing survives in it.
    pub(crate) fn set(&self, base: Lsn, list: Option<List>) {
        let mut lists = self.lists.write().expect(INTACT);
        match list {
            Some(list) => drop(lists.insert(base, list)),
            None => drop(lists.remove(&base)),
        }
    }

    pub(crate) fn list(&self, base: Lsn) -> Option<List> {
        self.lists.read().expect(INTACT).get(&base).cloned()
    }

    /// Segments with survivors, in their order.
    pub(crate) fn bases(&self) -> Vec<Lsn> {
        self.lists.read().expect(INTACT).keys().copied().collect()
    }

    /// Segments, records, and those of them that still stand in their queues.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let lists = self.lists.read().expect(INTACT);
        let in_queues = |list: &List| list.iter().filter(|code| **code & 1 == 1).count();
        (lists.len(), lists.values().map(|list| list.len()).sum(), lists.values().map(in_queues).sum())
    }

    fn find(&self, lsn: Lsn) -> Option<u32> {
        let base = self.geometry.base(lsn);
        let list = self.list(base)?;
        let eighths = code(base, lsn, false) >> 1;
        let at = list.binary_search_by_key(&eighths, |code| code >> 1).ok()?;
        lsn.0.is_multiple_of(8).then(|| list[at])
    }

    /// Whether something survives in the segment that holds `lsn`.
    pub(crate) fn has_segment(&self, lsn: Lsn) -> bool {
        self.lists.read().expect(INTACT).contains_key(&self.geometry.base(lsn))
    }

    /// Whether the record at `lsn` survives.
    pub(crate) fn contains(&self, lsn: Lsn) -> bool {
        self.find(lsn).is_some()
    }

    /// Whether the record at `lsn` survives, and in its queue.
    pub(crate) fn in_queue(&self, lsn: Lsn) -> bool {
        self.find(lsn).is_some_and(|code| code & 1 == 1)
    }
}

/// Both lists in one; what stands in a queue in either does so.
pub(crate) fn union(one: &[u32], other: &[u32]) -> List {
    let mut all: Vec<u32> = one.iter().chain(other).copied().collect();
    // Of two codes of one record the odd one comes second, and counts.
    all.sort_unstable_by(|left, right| right.cmp(left));
    all.dedup_by_key(|code| *code >> 1);
    all.reverse();
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Tail;

    #[test]
    fn a_survivor_is_found_at_its_lsn_and_nowhere_else() {
        let geometry = Geometry { segment_bytes: 64 << 10, tail: Tail::Rewrite };
        let base = geometry.segment_end(Lsn(0));
        let survivors = Survivors::new(geometry);
        let lsn = |at: u64| base.plus(at);
        let list: List = [code(base, lsn(80), false), code(base, lsn(160), true)].into();
        survivors.set(base, Some(decode_list(&encode(&list))));
        assert!(survivors.contains(lsn(80)) && !survivors.in_queue(lsn(80)));
        assert!(survivors.contains(lsn(160)) && survivors.in_queue(lsn(160)));
        assert!(!survivors.contains(lsn(88)) && !survivors.contains(lsn(161)) && !survivors.contains(Lsn(80)));
        assert!(survivors.has_segment(lsn(9)) && !survivors.has_segment(Lsn(9)));
        assert_eq!(
            list.iter().map(|code| decode(base, *code)).collect::<Vec<_>>(),
            [(lsn(80), false), (lsn(160), true)]
        );
        assert_eq!(base_of_key(&key(base)), Some(base));
        survivors.set(base, None);
        assert!(survivors.bases().is_empty());
    }

    #[test]
    fn in_a_union_a_queue_counts_more_than_none() {
        assert_eq!(&*union(&[2, 7, 8], &[3, 6, 10]), &[3, 7, 8, 10]);
    }
}
