//! The embedded database's storage, as blocks of one file behind the I/O seam, with a checksum for every page.
//!
//! Promises, numbered so that asserts and tests can cite them:
//! 1. **What is read is what was written.** A page whose bytes do not fit its checksum is never handed over: the read fails,
//!    and [`Pages::fault`] says that the file is damaged.
//! 2. **The head comes last.** The embedded database never writes a page in place that a durable header leads to; so pages
//!    and checksums go to the file in any order, are flushed together, and only then the header is written, in one sector.
//!    A power failure leaves the old header or the new one, and every page behind either fits its checksum; the pages
//!    between may hold anything, and nobody reads them before they are written again.
//! 3. **Nothing is written under another's lock.** [`StorageBackend::write`] keeps pages in memory; [`Pages::drain`] and the
//!    sync write them, in ascending runs, asking the pace before each. Only beyond a bound on what waits
//!    ([`Settings::pending_bytes_max`]) it writes at once.
//! 4. **The first failure is the last.** After it nothing is read or written through this adapter; whoever opens the file
//!    again judges it anew. A failed flush is never believed later: it counts as damage.
//!
//! Memory: the pages that wait, and 4 bytes for each page of those groups of 1024 that were touched.
//!
//! Deliberately not here: what the pages mean.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use redb::StorageBackend;

use super::layout::{
    HEADER_BYTES, Head, PAGE_BYTES, SUMS_PER_BLOCK, StoreIdentity, decode_sums, encode_sums, page_offset, page_sum,
    sum_place, sums_offset,
};
use crate::io::{AlignedBuf, IoFile, is_full};
use crate::limits::{
    STORE_GROWTH_BYTES_MAX, STORE_GROWTH_BYTES_MIN, STORE_RUN_BYTES, STORE_STEP_BYTES, STORE_SYNC_BYTES,
};
use crate::units::{align_up, to_u64, to_usize};

/// Asked before bytes are written in the background, with how many; may sleep until they fit the budget.
pub(crate) type Pace = Arc<dyn Fn(usize) + Send + Sync>;

/// Why nothing goes through an adapter any more.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The file's content is wrong, or may be.
    Damage(String),
    /// The kernel refused something; the content is as good as before.
    Io { what: &'static str, source: Arc<io::Error> },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Damage(what) => f.write_str(what),
            Fault::Io { what, source } => write!(f, "{what}: {source}"),
        }
    }
}

/// What an adapter is told.
#[derive(Clone)]
pub(super) struct Settings {
    /// What the head must say, or will.
    pub(super) identity: StoreIdentity,
    /// Asked before every write but those that cannot wait.
    pub(super) pace: Pace,
    /// Bytes of written pages that may wait.
    pub(super) pending_bytes_max: usize,
}

/// The adapter; clones share it.
#[derive(Clone)]
pub(super) struct Pages {
    shared: Arc<Shared>,
}

struct Shared {
    file: Arc<dyn IoFile>,
    settings: Settings,
    state: RwLock<State>,
    /// Held by whoever writes to the file.
    writing: Mutex<Written>,
    fault: OnceLock<Fault>,
}

struct State {
    head: Head,
    head_dirty: bool,
    /// Bytes of the file.
    file_bytes: u64,
    /// Checksums of the pages' newest bytes, by group; `None` until the group is touched.
    sums: Vec<Option<Box<[u32]>>>,
    /// Groups whose checksums the file does not have yet.
    sums_dirty: BTreeSet<usize>,
    /// Pages that the file does not have yet.
    pending: BTreeMap<u64, Arc<[u8]>>,
}

/// What was written.
#[derive(Default)]
struct Written {
    /// Bytes since the last flush.
    unsynced: u64,
    /// Bytes since room was last kept for as many.
    unkept: u64,
    /// Up to where the file is in use, as far as is known.
    end: u64,
}

/// Whether a write waits for the pace.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Paced {
    Yes,
    No,
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.read_state();
        write!(f, "Pages({} bytes, {} in the file)", state.head.len, state.file_bytes)
    }
}

impl Pages {
    /// An adapter for a new, empty file.
    pub(super) fn create(file: Arc<dyn IoFile>, settings: Settings) -> Pages {
        Pages::new(file, settings, Head { header: [0; HEADER_BYTES], len: 0 }, 0)
    }

    /// An adapter for a file that has a head.
    ///
    /// # Errors
    /// The kernel's, or what is wrong with the head.
    pub(super) fn open(file: Arc<dyn IoFile>, settings: Settings) -> Result<Pages, Fault> {
        let file_bytes = file.len().map_err(|error| failed("asking for the length", error))?;
        let file_bytes = file_bytes / to_u64(PAGE_BYTES) * to_u64(PAGE_BYTES);
        if file_bytes == 0 {
            return Err(Fault::Damage("its making was not finished".to_owned()));
        }
        let mut block = AlignedBuf::zeroed(PAGE_BYTES);
        file.read_at(&mut block, 0).map_err(|error| failed("reading the head", error))?;
        let block: &[u8; PAGE_BYTES] = block.first_chunk().expect("the buffer is one block");
        let head = Head::decode(block, settings.identity).map_err(Fault::Damage)?;
        Ok(Pages::new(file, settings, head, file_bytes))
    }

    fn new(file: Arc<dyn IoFile>, settings: Settings, head: Head, file_bytes: u64) -> Pages {
        let end = file_bytes.min(page_offset(head.len.div_ceil(to_u64(PAGE_BYTES)).max(1)));
        let state = State {
            head,
            head_dirty: false,
            file_bytes,
            sums: Vec::new(),
            sums_dirty: BTreeSet::new(),
            pending: BTreeMap::new(),
        };
        let (state, writing) = (RwLock::new(state), Mutex::new(Written { end, ..Written::default() }));
        Pages { shared: Arc::new(Shared { file, settings, state, writing, fault: OnceLock::new() }) }
    }

    /// Why nothing goes through any more, if so.
    pub(super) fn fault(&self) -> Option<&Fault> {
        self.shared.fault.get()
    }

    /// Ends all use of this adapter.
    pub(super) fn retire(&self, fault: Fault) {
        // An earlier fault says more.
        drop(self.shared.fault.set(fault));
    }

    /// Bytes of the file.
    pub(super) fn file_bytes(&self) -> u64 {
        self.read_state().file_bytes
    }

    /// Writes what waits, if a step of it has come together. Called where no lock of the embedded database is held.
    ///
    /// # Errors
    /// The fault's.
    pub(super) fn drain(&self) -> io::Result<()> {
        if self.pending_bytes() < STORE_STEP_BYTES {
            return Ok(());
        }
        self.check()?;
        self.write_pending(&mut self.lock_writing(), Paced::Yes)
    }

    fn pending_bytes(&self) -> usize {
        self.read_state().pending.len() * PAGE_BYTES
    }

    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.shared.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_writing(&self) -> MutexGuard<'_, Written> {
        self.shared.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- faults

    fn check(&self) -> io::Result<()> {
        match self.fault() {
            None => Ok(()),
            Some(fault) => Err(io::Error::other(fault.to_string())),
        }
    }

    fn fail(&self, fault: Fault) -> io::Error {
        let error = io::Error::other(fault.to_string());
        self.retire(fault);
        error
    }

    fn damaged(&self, what: String) -> io::Error {
        self.fail(Fault::Damage(what))
    }

    fn refused(&self, what: &'static str) -> impl FnOnce(io::Error) -> io::Error {
        move |error| self.fail(failed(what, error))
    }

    /// A flush that failed has forgotten what was to be flushed: what is read back may not be what a power failure leaves.
    fn flush_failed(&self) -> impl FnOnce(io::Error) -> io::Error {
        move |error| self.damaged(format!("a flush of it failed ({error}), so that its content is in doubt"))
    }

    // ---- checksums

    /// Makes the checksums of a group available.
    fn load_sums(&self, group: usize) -> io::Result<()> {
        if self.read_state().sums.get(group).is_some_and(Option::is_some) {
            return Ok(());
        }
        let mut state = self.write_state();
        if state.sums.len() <= group {
            state.sums.resize_with(group + 1, || None);
        }
        if state.sums[group].is_none() {
            let mut block = AlignedBuf::zeroed(PAGE_BYTES);
            if sums_offset(group) + to_u64(PAGE_BYTES) <= state.file_bytes {
                let read = self.shared.file.read_at(&mut block, sums_offset(group));
                read.map_err(self.refused("reading checksums"))?;
            }
            state.sums[group] = Some(decode_sums(&block));
        }
        Ok(())
    }

    // ---- reading

    /// Fills `out` with `out.len() / PAGE_BYTES` pages.
    fn read_pages(&self, first: u64, out: &mut [u8]) -> io::Result<()> {
        let end = first + to_u64(out.len() / PAGE_BYTES);
        for group in sum_place(first).0..=sum_place(end - 1).0 {
            self.load_sums(group)?;
        }
        // Pages that must come from the file, with their checksums, and where in `out` they go.
        let mut from_file = Vec::new();
        {
            let state = self.read_state();
            for (page, bytes) in (first..end).zip(out.chunks_exact_mut(PAGE_BYTES)) {
                if let Some(pending) = state.pending.get(&page) {
                    bytes.copy_from_slice(pending);
                    continue;
                }
                let sum = state.sum(page);
                if sum == 0 {
                    return Err(self.damaged(format!("page {page} was never written")));
                }
                if page_offset(page) + to_u64(PAGE_BYTES) > state.file_bytes {
                    return Err(self.damaged(format!("page {page} lies behind the end of the file")));
                }
                from_file.push((page, sum));
            }
        }
        for run in from_file.chunk_by(|(before, _), (page, _)| adjacent(*before, *page)) {
            for run in run.chunks(STORE_RUN_BYTES / PAGE_BYTES) {
                let at = to_usize(run[0].0 - first) * PAGE_BYTES;
                self.read_run(run, &mut out[at..at + run.len() * PAGE_BYTES])?;
            }
        }
        Ok(())
    }

    /// Reads adjacent pages and holds each against its checksum.
    fn read_run(&self, run: &[(u64, u32)], out: &mut [u8]) -> io::Result<()> {
        let mut buf = AlignedBuf::zeroed(out.len());
        self.shared.file.read_at(&mut buf, page_offset(run[0].0)).map_err(self.refused("reading"))?;
        for ((page, sum), bytes) in run.iter().zip(buf.chunks_exact(PAGE_BYTES)) {
            let found = page_sum(*page, bytes);
            if found != *sum {
                let at = page_offset(*page);
                return Err(
                    self.damaged(format!("page {page} at {at}: checksum expected {sum:08x}, found {found:08x}"))
                );
            }
        }
        out.copy_from_slice(&buf);
        Ok(())
    }

    // ---- writing

    /// Keeps pages until they are written.
    fn keep_pages(&self, first: u64, data: &[u8]) -> io::Result<()> {
        let pages: Vec<(u64, u32, Arc<[u8]>)> = (first..)
            .zip(data.chunks_exact(PAGE_BYTES))
            .map(|(page, bytes)| (page, page_sum(page, bytes), Arc::from(bytes)))
            .collect();
        for (page, _, _) in &pages {
            self.load_sums(sum_place(*page).0)?;
        }
        let mut state = self.write_state();
        for (page, sum, bytes) in pages {
            state.set_sum(page, sum);
            state.pending.insert(page, bytes);
        }
        Ok(())
    }

    /// Writes all pages that wait, in ascending runs.
    fn write_pending(&self, written: &mut Written, paced: Paced) -> io::Result<()> {
        let mut from = 0;
        loop {
            let run: Vec<(u64, Arc<[u8]>)> = self.read_state().run_from(from);
            let Some((first, _)) = run.first() else { return Ok(()) };
            let mut buf = AlignedBuf::zeroed(run.len() * PAGE_BYTES);
            for (place, (_, bytes)) in buf.chunks_exact_mut(PAGE_BYTES).zip(&run) {
                place.copy_from_slice(bytes);
            }
            self.write_blocks(written, paced, &buf, page_offset(*first))?;
            from = first + to_u64(run.len());
            let mut state = self.write_state();
            for (page, bytes) in run {
                // A page that was written again meanwhile waits for its turn.
                if state.pending.get(&page).is_some_and(|now| Arc::ptr_eq(now, &bytes)) {
                    state.pending.remove(&page);
                }
            }
        }
    }

    fn write_blocks(&self, written: &mut Written, paced: Paced, buf: &AlignedBuf, offset: u64) -> io::Result<()> {
        self.make_room(offset + to_u64(buf.len()))?;
        if paced == Paced::Yes {
            (self.shared.settings.pace)(buf.len());
        }
        self.shared.file.write_at(buf, offset, false).map_err(self.refused("writing"))?;
        let (len, end) = (to_u64(buf.len()), offset + to_u64(buf.len()));
        written.unsynced += len;
        written.unkept += len;
        written.end = written.end.max(end);
        if written.unsynced >= to_u64(STORE_SYNC_BYTES) {
            self.flush(written)?;
        }
        Ok(())
    }

    /// Makes the file long enough, in steps: growing it for every page would cost a change of its length each.
    fn make_room(&self, end: u64) -> io::Result<()> {
        let now = self.file_bytes();
        if end <= now {
            return Ok(());
        }
        let step = (now / 4).clamp(STORE_GROWTH_BYTES_MIN, STORE_GROWTH_BYTES_MAX);
        let end = align_up(end, to_u64(PAGE_BYTES));
        let mut len = end.max(align_up(now + step, to_u64(PAGE_BYTES)));
        if let Err(error) = self.shared.file.allocate(len) {
            if len == end || !is_full(&error) {
                return Err(self.refused("growing")(error));
            }
            // What is needed may still fit.
            len = end;
            self.shared.file.allocate(len).map_err(self.refused("growing"))?;
        }
        self.write_state().file_bytes = len;
        Ok(())
    }

    /// Makes the file longer by as much as was written since the last call, beyond what is in use. No fault when it cannot be.
    pub(super) fn keep_room(&self) -> io::Result<()> {
        let mut written = self.lock_writing();
        let kept = std::mem::take(&mut written.unkept).max(STORE_GROWTH_BYTES_MIN);
        // The embedded database may put a large page anywhere below its own end.
        let whole = page_offset(self.read_state().head.len.div_ceil(to_u64(PAGE_BYTES)).max(1));
        let end = if whole <= written.end + STORE_GROWTH_BYTES_MAX { written.end.max(whole) } else { written.end };
        let len = align_up(end + kept, to_u64(PAGE_BYTES));
        if self.fault().is_none() && len > self.file_bytes() {
            self.shared.file.allocate(len)?;
            self.write_state().file_bytes = len;
        }
        Ok(())
    }

    fn write_sums(&self, written: &mut Written) -> io::Result<()> {
        let dirty = std::mem::take(&mut self.write_state().sums_dirty);
        for group in dirty {
            let mut block = AlignedBuf::zeroed(PAGE_BYTES);
            encode_sums(self.read_state().sums[group].as_ref().expect("what is dirty was loaded"), &mut block);
            self.write_blocks(written, Paced::Yes, &block, sums_offset(group))?;
        }
        Ok(())
    }

    fn flush(&self, written: &mut Written) -> io::Result<()> {
        self.shared.file.sync().map_err(self.flush_failed())?;
        written.unsynced = 0;
        Ok(())
    }
}

impl State {
    fn sum(&self, page: u64) -> u32 {
        let (group, at) = sum_place(page);
        self.sums[group].as_ref().expect("the caller loaded the group")[at]
    }

    fn set_sum(&mut self, page: u64, sum: u32) {
        let (group, at) = sum_place(page);
        self.sums[group].as_mut().expect("the caller loaded the group")[at] = sum;
        self.sums_dirty.insert(group);
    }

    /// The first pages at or behind `from` that wait and lie side by side in the file.
    fn run_from(&self, from: u64) -> Vec<(u64, Arc<[u8]>)> {
        let mut run: Vec<(u64, Arc<[u8]>)> = Vec::new();
        for (page, bytes) in self.pending.range(from..).take(STORE_RUN_BYTES / PAGE_BYTES) {
            if run.last().is_some_and(|(before, _)| !adjacent(*before, *page)) {
                break;
            }
            run.push((*page, Arc::clone(bytes)));
        }
        run
    }
}

/// Whether `page` lies right behind `before` in the file: its number does, and no block of checksums stands between.
fn adjacent(before: u64, page: u64) -> bool {
    page == before + 1 && !before.is_multiple_of(SUMS_PER_BLOCK)
}

fn failed(what: &'static str, error: io::Error) -> Fault {
    Fault::Io { what, source: Arc::new(error) }
}

fn misused(what: &str, offset: u64, len: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what} of {len} bytes at {offset}: not whole pages"))
}

/// Whether a range is inside the part of page 0 that is in use.
fn is_header(offset: u64, len: usize) -> bool {
    offset < to_u64(PAGE_BYTES) && to_usize(offset) + len <= HEADER_BYTES
}

fn is_pages(offset: u64, len: usize) -> bool {
    offset >= to_u64(PAGE_BYTES)
        && offset.is_multiple_of(to_u64(PAGE_BYTES))
        && len > 0
        && len.is_multiple_of(PAGE_BYTES)
}

impl StorageBackend for Pages {
    fn len(&self) -> io::Result<u64> {
        self.check()?;
        Ok(self.read_state().head.len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check()?;
        if is_header(offset, out.len()) {
            let at = to_usize(offset);
            out.copy_from_slice(&self.read_state().head.header[at..at + out.len()]);
            return Ok(());
        }
        if !is_pages(offset, out.len()) {
            return Err(misused("reading", offset, out.len()));
        }
        let len = self.read_state().head.len;
        if offset.checked_add(to_u64(out.len())).is_none_or(|end| end > len) {
            return Err(self.damaged(format!("{} bytes at {offset} are asked for, it has {len}", out.len())));
        }
        self.read_pages(offset / to_u64(PAGE_BYTES), out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        let mut state = self.write_state();
        state.head.len = len;
        // Pages behind the end are nobody's. The file keeps its blocks: the next growth takes them.
        state.pending.split_off(&len.div_ceil(to_u64(PAGE_BYTES)));
        Ok(())
    }

    /// Makes everything written durable that the header leads to. Without a new header there is nothing to do: until one
    /// is written nobody finds what was written since the last, and a new length goes with the header, too.
    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        if !self.read_state().head_dirty {
            return Ok(());
        }
        let mut written = self.lock_writing();
        self.write_pending(&mut written, Paced::Yes)?;
        self.write_sums(&mut written)?;
        if written.unsynced > 0 {
            self.flush(&mut written)?;
        }
        let head = {
            let mut state = self.write_state();
            state.head_dirty = false;
            state.head.encode(self.shared.settings.identity)
        };
        self.make_room(to_u64(PAGE_BYTES))?;
        (self.shared.settings.pace)(PAGE_BYTES);
        self.shared.file.write_at(&AlignedBuf::padded(&head), 0, true).map_err(self.flush_failed())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        if is_header(offset, data.len()) {
            let mut state = self.write_state();
            let at = to_usize(offset);
            state.head.header[at..at + data.len()].copy_from_slice(data);
            state.head_dirty = true;
            return Ok(());
        }
        if !is_pages(offset, data.len()) {
            return Err(misused("writing", offset, data.len()));
        }
        self.keep_pages(offset / to_u64(PAGE_BYTES), data)?;
        if self.pending_bytes() > self.shared.settings.pending_bytes_max
            // Whoever writes now makes the room.
            && let Ok(mut written) = self.shared.writing.try_lock()
        {
            self.write_pending(&mut written, Paced::No)?;
        }
        Ok(())
    }
}
