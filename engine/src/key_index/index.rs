//! The index as a whole: what is in memory, and what the store has.

use std::ops::Range;
use std::sync::{Arc, RwLock};

use crate::checkpoint::CheckpointError;
use crate::error::ReadError;
use crate::key_index::chunk::Chunk;
use crate::key_index::hash::KeyHash;
use crate::key_index::lookup::{self, Records, Stretch};
use crate::key_index::merge;
use crate::key_index::query::KeyQuery;
use crate::key_index::rows::{Posting, Run};
use crate::limits;
use crate::store::{Direction, StoreReader, StoreTable, StoreWriter};
use crate::units::Lsn;

/// Which messages have which keys.
#[derive(Debug)]
pub(crate) struct KeyIndex {
    hash: KeyHash,
    /// Entries of a chunk, and of a run that is full.
    sizes: (usize, u64),
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    open: Option<Chunk>,
    sealed: Vec<Arc<Chunk>>,
    /// What a checkpoint is writing, if one is.
    frozen: Option<Vec<Arc<Chunk>>>,
    /// What the last one wrote.
    store: Option<Arc<StoreReader>>,
    runs: Vec<Run>,
    /// Entries in `open` and `sealed`.
    unsaved: usize,
}

const INTACT: &str = "the key index is intact";

impl KeyIndex {
    /// An empty one, for the log of this identity.
    pub(crate) fn new(store_id: u128) -> KeyIndex {
        KeyIndex::with_sizes(store_id, limits::KEY_CHUNK_COUNT, limits::KEY_RUN_FULL)
    }

    /// One whose chunks and full runs have these numbers of entries.
    pub(super) fn with_sizes(store_id: u128, chunk: usize, full: u64) -> KeyIndex {
        KeyIndex { hash: KeyHash::new(store_id), sizes: (chunk, full), state: RwLock::default() }
    }

    /// Goes on from what a checkpoint that ends at `applied` wrote.
    ///
    /// # Errors
    /// In words, when that cannot be read or is not what a checkpoint writes.
    pub(crate) fn restore(&self, reader: Arc<StoreReader>, applied: Lsn) -> Result<(), String> {
        let read =
            merge::read_runs(|bounds, visit| reader.range(StoreTable::Meta, bounds, Direction::Ascending, visit));
        let runs = read.map_err(|error| error.to_string())?;
        let apart = runs.is_sorted_by(|one, next| one.last < next.start);
        if !apart || runs.last().is_some_and(|run| run.last >= applied) {
            return Err("runs of the key index overlap, or go on behind the checkpoint".to_owned());
        }
        let mut state = self.state.write().expect(INTACT);
        (state.store, state.runs) = (Some(reader), runs);
        Ok(())
    }

    pub(crate) fn hash(&self, key: &[u8]) -> u32 {
        self.hash.of(key)
    }

    /// Adds the keys of messages that were stored at one time, along the log; empties `keys`.
    pub(crate) fn push(&self, keys: &mut Vec<(u32, Lsn)>, store_time_ms: u64) {
        let mut state = self.state.write().expect(INTACT);
        let state = &mut *state;
        state.unsaved += keys.len();
        for (hash, lsn) in keys.drain(..) {
            let posting = Posting { hash, lsn };
            if state.open.as_mut().is_some_and(|open| open.push(posting, store_time_ms)) {
                continue;
            }
            let mut open = Chunk::new(self.sizes.0, lsn, store_time_ms);
            assert!(open.push(posting, store_time_ms), "a new chunk takes its first entry");
            state.sealed.extend(state.open.replace(open).map(Arc::new));
        }
    }

    /// Keys that only memory has, and no checkpoint is writing.
    pub(crate) fn unsaved(&self) -> usize {
        self.state.read().expect(INTACT).unsaved
    }

    /// Runs in the store.
    pub(crate) fn run_count(&self) -> usize {
        self.state.read().expect(INTACT).runs.len()
    }

    /// Puts what came so far aside for a checkpoint.
    ///
    /// # Panics
    /// When there is something aside already.
    pub(crate) fn freeze(&self) {
        let mut state = self.state.write().expect(INTACT);
        let state = &mut *state;
        assert!(state.frozen.is_none(), "one checkpoint at a time");
        state.sealed.extend(state.open.take().map(Arc::new));
        (state.frozen, state.unsaved) = (Some(std::mem::take(&mut state.sealed)), 0);
    }

    /// Writes what is aside, which is everything from the last checkpoint to `frozen_to`, and drops what lies below the log's
    /// `start`; returns the runs as they are then.
    pub(crate) fn write(&self, writer: &StoreWriter, frozen_to: Lsn, start: Lsn) -> Result<Vec<Run>, CheckpointError> {
        merge::write(writer, &self.sorted(), frozen_to, start, self.sizes.1)
    }

    /// The chunks that are aside, sorted. One copy of one chunk is made at a time.
    fn sorted(&self) -> Vec<Arc<Chunk>> {
        let mut chunks = self.state.read().expect(INTACT).frozen.clone().unwrap_or_default();
        for (index, chunk) in chunks.iter_mut().enumerate().filter(|(_, chunk)| !chunk.is_sorted()) {
            *chunk = Arc::new(chunk.sorted());
            if let Some(frozen) = &mut self.state.write().expect(INTACT).frozen {
                frozen[index] = Arc::clone(chunk);
            }
        }
        chunks
    }

    /// What was aside is in the store that `reader` sees.
    pub(crate) fn merged(&self, reader: Arc<StoreReader>, runs: Vec<Run>) {
        let mut state = self.state.write().expect(INTACT);
        (state.frozen, state.store, state.runs) = (None, Some(reader), runs);
    }

    /// What `query` asks for, of the messages in `visible`.
    pub(crate) fn find<R: Records>(
        &self,
        query: &KeyQuery<'_>,
        visible: Range<Lsn>,
        log: &R,
    ) -> Result<Vec<R::Message>, ReadError> {
        let hash = self.hash(query.key);
        lookup::find(&self.stretches(hash), hash, query, visible, log)
    }

    /// Where in the log messages with keys lie that were stored at `since_ms` or later, each with a key's hash, along the log. Of more than
    /// `count_max` those are left out that lie first. A run is read whole, so that at most one of them is read for what is older.
    pub(crate) fn recent<R: Records>(
        &self,
        since_ms: u64,
        count_max: usize,
        visible: &Range<Lsn>,
        log: &R,
    ) -> Result<Vec<(Lsn, u32)>, ReadError> {
        let (open, chunks, runs, store) = {
            let state = self.state.read().expect(INTACT);
            let open = state.open.as_ref().filter(|open| open.last_ms >= since_ms);
            let open: Vec<Posting> = open.into_iter().flat_map(Chunk::postings).collect();
            let chunks: Vec<_> = state.frozen.iter().flatten().chain(&state.sealed).cloned().collect();
            (open, chunks, state.runs.clone(), state.store.clone())
        };
        let mut found: Vec<(Lsn, u32)> = open.iter().map(|posting| (posting.lsn, posting.hash)).collect();
        for chunk in chunks.iter().rev().take_while(|chunk| chunk.last_ms >= since_ms) {
            if found.len() < count_max {
                found.extend(chunk.postings().map(|posting| (posting.lsn, posting.hash)));
            }
        }
        for run in runs.iter().rev().take_while(|run| run.last_ms >= since_ms) {
            let Some(reader) = store.as_ref().filter(|_| found.len() < count_max) else { break };
            lookup::postings(reader, run, |posting| found.push((posting.lsn, posting.hash)))?;
        }
        found.retain(|(lsn, _)| visible.contains(lsn));
        found.sort_unstable();
        let border = lookup::border(&found, since_ms, log)?.max(found.len().saturating_sub(count_max));
        found.drain(..border);
        Ok(found)
    }

    /// All there is at this moment, along the log.
    fn stretches(&self, hash: u32) -> Vec<Stretch> {
        let state = self.state.read().expect(INTACT);
        let stored = state
            .store
            .iter()
            .flat_map(|reader| state.runs.iter().map(|run| Stretch::Stored(Arc::clone(reader), *run)));
        let chunks = state.frozen.iter().flatten().chain(&state.sealed);
        let sealed = chunks.map(|chunk| Stretch::Sealed(Arc::clone(chunk)));
        let open = state.open.iter().map(|chunk| Stretch::Open(chunk.lsns(hash)));
        stored.chain(sealed).chain(open).collect()
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("runs", &self.runs.len()).field("unsaved", &self.unsaved).finish_non_exhaustive()
    }
}
