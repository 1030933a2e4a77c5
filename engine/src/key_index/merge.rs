//! What a checkpoint does with the index: a new run, made of what came since the last one and of the newest small runs.
//!
//! Invariants:
//! 1. What the rows say counts, not what memory says: after an error nobody knows whether the last transaction happened.
//! 2. Entries stream: of each run there is one piece in memory.
//! 3. Behind the full runs each is more than twice as large as the next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use crate::checkpoint::CheckpointError;
use crate::checkpoint::rows as saved;
use crate::key_index::chunk::Chunk;
use crate::key_index::rows::{self, PieceWriter, Posting, Run};
use crate::store::{Bounds, Direction, StoreError, StoreTable, StoreWriter, TableWriter};
use crate::units::{Lsn, to_u64};

/// Writes what was put aside, which is everything from the last checkpoint to `frozen_to`; returns the runs as they are now.
///
/// `start` is where the log begins, `full` the size from which on a run stays as it is.
pub(super) fn write(
    writer: &StoreWriter,
    chunks: &[Arc<Chunk>],
    frozen_to: Lsn,
    start: Lsn,
    full: u64,
) -> Result<Vec<Run>, CheckpointError> {
    let mut meta = writer.table(StoreTable::Meta)?;
    let mut keys = writer.table(StoreTable::Keys)?;
    let mut runs = read_runs(|bounds, visit| meta.range(bounds, Direction::Ascending, visit))?;
    // They are in order: what is gone with its messages comes first.
    let gone = runs.iter().take_while(|run| run.last < start).count();
    for run in runs.drain(..gone) {
        remove(&mut keys, &mut meta, run)?;
    }
    let applied = meta.get(saved::APPLIED_KEY)?.map(|value| saved::decode_applied(&value)).transpose()?;
    if chunks.is_empty() || applied.is_some_and(|applied| applied.lsn >= frozen_to) {
        return Ok(runs);
    }
    let newest = runs.iter().map(|run| run.number).max();
    let number = newest.map_or(Some(0), |number| number.checked_add(1)).ok_or(saved::BadRow("meta"))?;
    let taken =
        runs.split_off(runs.len() - merged_count(&runs, chunks.iter().map(|chunk| to_u64(chunk.len())).sum(), full));
    let mut merge = Merge { keys, chunks, taken: &taken, heads: BinaryHeap::new(), loaded: Vec::new() };
    let (oldest, newest) = (chunks.first().expect("not empty"), chunks.last().expect("not empty"));
    let mut run = Run {
        number,
        start: taken.first().map_or(oldest.start(), |run| run.start),
        last: newest.last(),
        first_ms: taken.first().map_or(oldest.first_ms, |run| run.first_ms),
        last_ms: newest.last_ms,
        count: 0,
    };
    run.count = merge.write(&run, start)?;
    let mut keys = merge.keys;
    for old in &taken {
        remove(&mut keys, &mut meta, *old)?;
    }
    if run.count > 0 {
        meta.put(&rows::run_key(number), &rows::encode_run(&run))?;
        runs.push(run);
    }
    Ok(runs)
}

/// How many of the newest runs are merged with `count` new entries.
pub(super) fn merged_count(runs: &[Run], mut count: u64, full: u64) -> usize {
    let mut merged = 0;
    for run in runs.iter().rev().take_while(|run| run.count < full) {
        if run.count / 2 > count {
            break;
        }
        count += run.count;
        merged += 1;
    }
    merged
}

/// Is shown the rows of a range.
type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// The list of runs, along the log; `walk` goes through `meta`.
pub(super) fn read_runs(
    walk: impl FnOnce(Bounds<'_>, Visit<'_>) -> Result<(), StoreError>,
) -> Result<Vec<Run>, CheckpointError> {
    let (from, to) = rows::RUNS;
    let (mut runs, mut bad) = (Vec::new(), None);
    walk((Bound::Included(from), Bound::Excluded(to)), &mut |key, value| {
        match rows::decode_run(key, value) {
            Ok(run) => runs.push(run),
            Err(row) => bad = Some(row),
        }
        ControlFlow::Continue(())
    })?;
    runs.sort_unstable_by_key(|run| run.start);
    bad.map_or(Ok(runs), |row| Err(row.into()))
}

fn remove(keys: &mut TableWriter<'_>, meta: &mut TableWriter<'_>, run: Run) -> Result<(), CheckpointError> {
    let (from, to) = bounds(run.number);
    keys.remove_range((Bound::Included(&from[..]), Bound::Included(&to[..])))?;
    meta.remove(&rows::run_key(run.number))?;
    Ok(())
}

/// The first and the last key that a piece of this run can have.
pub(super) fn bounds(number: u32) -> ([u8; rows::PIECE_KEY_BYTES], [u8; rows::PIECE_KEY_BYTES]) {
    let key = |hash, lsn| rows::piece_key(number, Posting { hash, lsn });
    (key(0, Lsn::ZERO), key(u32::MAX, Lsn::MAX))
}

/// Several sorted lists on their way into one.
struct Merge<'a, 'w> {
    keys: TableWriter<'w>,
    chunks: &'a [Arc<Chunk>],
    taken: &'a [Run],
    /// The next entry of each source: chunks, then runs; and its place there.
    heads: BinaryHeap<Reverse<(Posting, usize, usize)>>,
    /// The piece of each run that its next entry lies in.
    loaded: Vec<Vec<Posting>>,
}

impl Merge<'_, '_> {
    /// Writes the run; returns how many entries it has. Those of messages that are gone are left out.
    fn write(&mut self, run: &Run, start: Lsn) -> Result<u64, CheckpointError> {
        for source in 0..self.chunks.len() {
            self.advance(source, 0, None)?;
        }
        for source in 0..self.taken.len() {
            let piece = self.load(source, None)?;
            self.loaded.push(piece);
            self.advance(self.chunks.len() + source, 0, None)?;
        }
        let mut piece = PieceWriter::new(run.start);
        let (mut count, mut before) = (0, None);
        while let Some(Reverse((posting, source, index))) = self.heads.pop() {
            self.advance(source, index + 1, Some(posting))?;
            // A message may have two keys of one hash.
            if before == Some(posting) || posting.lsn < start {
                continue;
            }
            before = Some(posting);
            count += 1;
            if piece.is_full() {
                self.put(run, &mut piece)?;
            }
            piece.push(posting);
        }
        self.put(run, &mut piece)?;
        Ok(count)
    }

    fn put(&mut self, run: &Run, piece: &mut PieceWriter) -> Result<(), CheckpointError> {
        if let Some((first, value)) = piece.take() {
            self.keys.put(&rows::piece_key(run.number, first), &value)?;
        }
        Ok(())
    }

    /// Puts the entry at `index` of a source on the heap, if there is one; `last` is the entry before it.
    fn advance(&mut self, source: usize, index: usize, last: Option<Posting>) -> Result<(), CheckpointError> {
        let next = if let Some(chunk) = self.chunks.get(source) {
            chunk.get(index).map(|posting| (posting, index))
        } else {
            let run = source - self.chunks.len();
            match self.loaded[run].get(index) {
                Some(posting) => Some((*posting, index)),
                None => {
                    self.loaded[run] = self.load(run, last)?;
                    self.loaded[run].first().map(|posting| (*posting, 0))
                }
            }
        };
        self.heads.extend(next.map(|(posting, index)| Reverse((posting, source, index))));
        Ok(())
    }

    /// The next piece of a run: the first, or the one behind the piece that `last` ends. Empty at the end.
    fn load(&mut self, run: usize, last: Option<Posting>) -> Result<Vec<Posting>, CheckpointError> {
        let run = &self.taken[run];
        let (first, end) = bounds(run.number);
        let behind = last.map(|last| rows::piece_key(run.number, last));
        let from = behind.as_ref().map_or(Bound::Included(&first[..]), |key| Bound::Excluded(&key[..]));
        let mut piece = Ok(Vec::new());
        self.keys.range((from, Bound::Included(&end[..])), Direction::Ascending, |key, value| {
            piece = rows::decode_piece(run.start, key, value);
            ControlFlow::Break(())
        })?;
        Ok(piece?)
    }
}
