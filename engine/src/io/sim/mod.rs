//! A disk that a seed determines, for tests that ask what a crash leaves.
//!
//! The fault model (`docs/faults.md` states what the engine survives of it):
//! 1. *Live* bytes are what reads see; *durable* bytes are what a power failure leaves for certain. They are kept apart.
//! 2. A durable write becomes durable when it completes, sector by sector of 512 bytes until then. A sync covers what had
//!    completed before it was submitted. Of everything else any subset of sectors survives, in any of the versions written
//!    since the last sync.
//! 3. Names are durable after a sync of their directory. Of the changes since, a prefix survives, or none.
//! 4. Lengths are durable after a sync, or up to the end of a durable write.
//! 5. A failed sync forgets what was dirty: a later one passes it by. A failed write leaves its front, or any subset of its sectors.
//! 6. Every I/O is numbered, so that a test can cut the power before the n-th, for every n. The write that the power
//!    failure meets is torn like those in flight.
//! 7. A hole reads as zeros at once; until a sync each of its sectors may come back. It takes space again when it is written.
//! 8. Operations of a queue complete in any order. One that stalls completes when its queue was looked at often enough, or somebody
//!    waits for it: whoever waits outlasts every stall.
//! 9. A full disk and a file that may not grow refuse a write whole; a used-up quota may leave some of it.
//!
//! ```text
//!  write --submit--> in flight --complete--> live --sync--> durable
//!                        '---------crash: any sectors---------^
//! ```
//!
//! One thread and one seed give one trace. Deliberately not here: time; whoever steps the machines owns the clock.

mod disk;
mod faults;
mod queue;
mod schedule;
mod sectors;
mod space;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::faults::{IoClass, Times};
pub use self::schedule::Seeded;

use self::disk::{State, Work};
use self::schedule::Schedule;
use super::buffer::AlignedBuf;
use super::file::assert_aligned;
use super::{BackendKind, DirLock, IoBackend, IoFile, IoQueue, OpenMode};
use crate::units::to_usize;

/// The error of every call after the power failed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the simulated machine is dead")]
pub struct MachineDead;

impl MachineDead {
    /// Whether an error says that the machine is dead.
    #[must_use]
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<MachineDead>())
    }
}

impl From<MachineDead> for io::Error {
    fn from(dead: MachineDead) -> io::Error {
        io::Error::other(dead)
    }
}

/// How much of what was not durable survives a power failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// As the seed says: nothing, everything, or any subset.
    Seeded,
    /// Nothing: the strictest reading of every promise.
    Nothing,
    /// Everything, and in-flight writes as well: the luckiest case.
    Everything,
}

/// A handle on a simulated disk; clones share it.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::from_state(State::new(seed))
    }

    fn from_state(state: State) -> SimDisk {
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The seam to this disk.
    #[must_use]
    pub fn backend(&self) -> Arc<dyn IoBackend> {
        Arc::new(SimBackend { disk: self.clone() })
    }

    /// Makes queues of depth 1 complete inside `submit`, as the plain backend does. Default: false.
    pub fn set_runs_inline(&self, runs_inline: bool) {
        self.state().runs_inline = runs_inline;
    }

    /// I/Os numbered so far.
    #[must_use]
    pub fn io_count(&self) -> u64 {
        self.count(IoClass::Any)
    }

    /// I/Os of one class so far.
    #[must_use]
    pub fn count(&self, class: IoClass) -> u64 {
        self.state().faults.count(class)
    }

    /// Cuts the power when the I/O after the `last`-th begins: it and all later calls fail with [`MachineDead`], and what
    /// is in flight never completes.
    pub fn stop_after(&self, last: u64) {
        self.state().stop_after = Some(last);
    }

    /// Takes back [`SimDisk::stop_after`], where the power has not failed yet.
    pub fn stay_up(&self) {
        self.state().stop_after = None;
    }

    /// Whether the power has failed.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// The disk that a power failure now would leave, as the seed decides. This one goes on, apart from it.
    #[must_use]
    pub fn crash(&self, seed: u64) -> SimDisk {
        self.crash_with(seed, Survival::Seeded)
    }

    /// As [`SimDisk::crash`], with a say in how much survives.
    #[must_use]
    pub fn crash_with(&self, seed: u64, survival: Survival) -> SimDisk {
        SimDisk::from_state(self.state().crash(seed, survival))
    }

    /// The disk that killing the process now would leave: live bytes stay live, each operation in flight happens or not.
    #[must_use]
    pub fn kill(&self) -> SimDisk {
        SimDisk::from_state(self.state().kill())
    }

    /// Fails the `nth` I/O of a class (counted from 1 since this disk was made) with an error number.
    pub fn fail(&self, class: IoClass, nth: u64, errno: i32, times: Times) {
        self.state().faults.fail(class, nth, errno, times);
    }

    /// Lets the `nth` I/O of a class complete no earlier than when its queue is looked at for the `reaps`-th time. Blocking calls and
    /// queues that run inline do not stall.
    pub fn stall(&self, class: IoClass, nth: u64, reaps: u64, times: Times) {
        self.state().faults.stall(class, nth, reaps, times);
    }

    /// While held, nothing that is in a queue completes. It ends when told so, or when somebody waits for a completion.
    pub fn hold(&self, held: bool) {
        self.state().held = held;
    }

    /// See [`SimDisk::hold`].
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.state().held
    }

    /// Forgets all planned failures and stalls.
    pub fn heal(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.held = false;
    }

    /// I/Os that failed by plan or for want of space; power failures do not count.
    #[must_use]
    pub fn fault_count(&self) -> u64 {
        self.state().faults.failed()
    }

    /// Bounds what all files take; what would exceed it fails with `ENOSPC` and leaves nothing.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().space.capacity = bytes;
    }

    /// As [`SimDisk::set_capacity`], by a quota on blocks: it fails with `EDQUOT`, and the file system's free bytes know nothing of it.
    pub fn set_block_quota(&self, bytes: Option<u64>) {
        self.state().space.block_quota = bytes;
    }

    /// Bounds what is written from now on, over old bytes too; what would exceed it fails with `EDQUOT` and may leave a part.
    pub fn set_quota(&self, bytes: Option<u64>) {
        self.state().space.quota = bytes;
    }

    /// Bounds the length of a file; growing one beyond it fails with `EFBIG` and leaves nothing.
    pub fn set_file_bytes_max(&self, bytes: Option<u64>) {
        self.state().space.file_bytes_max = bytes;
    }

    /// Whether holes can be punched. Default: true.
    pub fn set_punches_holes(&self, punches: bool) {
        self.state().space.no_holes = !punches;
    }

    /// Bytes that all files take, without their holes.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state().used()
    }

    /// All files, by live name.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.state().live_paths()
    }

    /// The live bytes of a file.
    #[must_use]
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        self.state().find(path).map(|inode| inode.live.to_vec())
    }

    /// The bytes of a file that are certain to survive.
    #[must_use]
    pub fn read_durable(&self, path: &Path) -> Option<Vec<u8>> {
        self.state().find(path).map(|inode| inode.durable.to_vec())
    }

    /// Plants bytes in a file, live and durable, behind the engine's back.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) {
        self.state().plant_bytes(path, offset, bytes);
    }

    /// Flips one bit of the byte at `offset`: in what reads see and in all that a power failure may leave of it. Twice is as if never.
    ///
    /// # Panics
    /// When there is no such file or byte.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) {
        self.state().plant_flip(path, offset, 1 << (bit % 8));
    }

    /// Makes the sector around `offset` unreadable until it is written again.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn break_sector(&self, path: &Path, offset: u64) {
        self.state().plant_unreadable(path, offset);
    }

    /// Changes the length of a file, live and durable.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn set_len(&self, path: &Path, len: u64) {
        self.state().plant_len(path, len);
    }

    /// Lets nothing below a directory be written, made, renamed or removed from now on, or even opened for that: a backup, mounted to
    /// be read.
    pub fn protect(&self, dir: &Path) {
        self.state().protected.insert(dir.to_path_buf());
    }

    /// Makes a file vanish, live and durable.
    pub fn lose(&self, path: &Path) {
        self.state().plant_loss(path);
    }

    /// The last lines of the trace: every I/O in order of its number, and every completion.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        self.state().trace().0
    }

    /// A hash of the whole trace.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.state().trace().1
    }
}

/// The seam's view of a disk.
struct SimBackend {
    disk: SimDisk,
}

impl IoBackend for SimBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Sim
    }

    fn new_identity(&self) -> u128 {
        self.disk.state().identity()
    }

    fn runs_inline(&self) -> bool {
        self.disk.state().runs_inline
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.state().create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.state().list(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        self.disk.state().lock(path)?;
        Ok(Box::new(SimLock { disk: self.disk.clone(), path: path.to_path_buf() }))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn IoFile>> {
        let inode = self.disk.state().open(path, mode)?;
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Ok(Arc::new(SimFile { disk: self.disk.clone(), inode, name, is_read_only: mode == OpenMode::ReadOnly }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.state().rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.state().remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.state().sync_dir(dir)
    }

    fn dirs(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.state().dirs(dir)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.state().remove_dir(dir)
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        self.disk.state().free_bytes()
    }

    fn queue(&self, depth: usize) -> io::Result<Box<dyn IoQueue>> {
        let mut state = self.disk.state();
        state.alive()?;
        let schedule = Schedule::new(state.queue_draws());
        Ok(Box::new(queue::SimQueue::new(depth.max(1), depth <= 1 && state.runs_inline, schedule)))
    }
}

struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl DirLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.state().locks.remove(&self.path);
    }
}

/// An open file of a simulated disk.
struct SimFile {
    disk: SimDisk,
    inode: u64,
    name: String,
    is_read_only: bool,
}

impl SimFile {
    fn run(&self, work: Work, out: &mut Vec<u8>) -> io::Result<()> {
        let mut state = self.disk.state();
        let (id, _) = state.start(self.inode, &self.name, work)?;
        state.finish(id, out)
    }
}

impl IoFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.state().len(self.inode)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        assert_aligned(0, to_usize(len));
        self.disk.state().allocate(self.inode, &self.name, len)
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        assert_aligned(offset, to_usize(len));
        self.disk.state().punch_hole(self.inode, &self.name, offset, len)
    }

    fn read_at(&self, buf: &mut AlignedBuf, offset: u64) -> io::Result<()> {
        assert_aligned(offset, buf.len());
        let mut bytes = Vec::new();
        self.run(Work::Read { offset, len: buf.len() }, &mut bytes)?;
        buf.copy_from_slice(&bytes);
        Ok(())
    }

    fn write_at(&self, buf: &AlignedBuf, offset: u64, durable: bool) -> io::Result<()> {
        assert_aligned(offset, buf.len());
        if self.is_read_only {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        let mut data = buf.to_vec();
        self.run(Work::Write { offset, data: data.clone(), durable }, &mut data)
    }

    fn sync(&self) -> io::Result<()> {
        self.run(Work::Sync, &mut Vec::new())
    }

    fn is_direct(&self) -> bool {
        true
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.disk.state().close(self.inode);
    }
}
