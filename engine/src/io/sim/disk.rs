//! The state of a simulated disk: what is live, what is durable, what is on its way, and what a crash leaves of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use super::faults::{FaultPlan, IoClass, Verdict};
use super::schedule::Seeded;
use super::sectors::{PAGE, SECTOR, Sector, Sectors};
use super::space::Space;
use super::{MachineDead, Survival};
use crate::io::OpenMode;
use crate::units::{to_u64, to_usize};

/// Versions of one sector that are remembered between two syncs; any of them may be what a crash leaves.
const VERSION_COUNT_MAX: usize = 4;

/// Lines of trace that are kept; the hash covers all.
const TRACE_LINE_COUNT_MAX: usize = 20_000;

/// Purposes of the streams of draws.
const STREAM_QUEUE: u64 = 1;
const STREAM_FAULT: u64 = 2;
const STREAM_SURVIVAL: u64 = 3;
const STREAM_IDENTITY: u64 = 4;

/// What one write left in one sector.
#[derive(Clone, Debug)]
struct Version {
    stamp: u64,
    data: Sector,
    /// A failed sync has forgotten that this is dirty: later syncs pass it by.
    dropped: bool,
}

/// One file, by whatever name.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) live: Sectors,
    pub(super) durable: Sectors,
    /// Completed writes that no sync has covered, oldest first.
    undurable: BTreeMap<u64, Vec<Version>>,
    pub(super) handles: usize,
    unreadable: BTreeSet<u64>,
    /// Pages whose space was given back.
    pub(super) holes: BTreeSet<u64>,
}

/// A change of a name that no directory sync has covered.
#[derive(Clone, Debug)]
struct NameOp {
    change: NameChange,
    inode: u64,
}

#[derive(Clone, Debug)]
enum NameChange {
    Create(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl NameOp {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match &self.change {
            NameChange::Create(path) => {
                names.insert(path.clone(), self.inode);
            }
            NameChange::Rename(from, to) => {
                if names.get(from) == Some(&self.inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), self.inode);
            }
            NameChange::Remove(path) => {
                names.remove(path);
            }
        }
    }

    fn touches(&self, dir: &Path) -> bool {
        match &self.change {
            NameChange::Create(path) | NameChange::Remove(path) => path.parent() == Some(dir),
            NameChange::Rename(from, to) => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }
}

/// An operation between its start and its completion.
#[derive(Clone, Debug)]
struct Pending {
    inode: u64,
    name: String,
    work: Work,
    fault: Option<i32>,
}

/// What an operation does to a file.
#[derive(Clone, Debug)]
pub(super) enum Work {
    Write { offset: u64, data: Vec<u8>, durable: bool },
    Read { offset: u64, len: usize },
    Sync,
}

/// What a sync will make durable: the sectors and the length as they were when it was submitted.
type Snapshot = (BTreeMap<u64, (u64, Sector)>, u64);

/// The whole disk.
#[derive(Clone, Debug)]
pub(super) struct State {
    seed: u64,
    pub(super) inodes: BTreeMap<u64, Inode>,
    inode_next: u64,
    pub(super) live_names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    pending_names: Vec<NameOp>,
    dirs: BTreeSet<PathBuf>,
    /// Directories below which nothing changes.
    pub(super) protected: BTreeSet<PathBuf>,
    pending: BTreeMap<u64, Pending>,
    snapshots: BTreeMap<u64, Snapshot>,
    op_next: u64,
    stamp: u64,
    queue_count: u64,
    fault_draws: Seeded,
    identity_draws: Seeded,
    pub(super) locks: BTreeSet<PathBuf>,
    pub(super) faults: FaultPlan,
    pub(super) stop_after: Option<u64>,
    pub(super) dead: bool,
    /// Nothing in a queue completes.
    pub(super) held: bool,
    pub(super) space: Space,
    pub(super) runs_inline: bool,
    trace: VecDeque<String>,
    trace_hash: u64,
}

impl State {
    pub(super) fn new(seed: u64) -> State {
        State {
            seed,
            inodes: BTreeMap::new(),
            inode_next: 1,
            live_names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            dirs: BTreeSet::new(),
            protected: BTreeSet::new(),
            pending: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            op_next: 1,
            stamp: 0,
            queue_count: 0,
            fault_draws: Seeded::new(seed, STREAM_FAULT),
            identity_draws: Seeded::new(seed, STREAM_IDENTITY),
            locks: BTreeSet::new(),
            faults: FaultPlan::default(),
            stop_after: None,
            dead: false,
            held: false,
            space: Space::default(),
            runs_inline: false,
            trace: VecDeque::new(),
            trace_hash: 0xcbf2_9ce4_8422_2325,
        }
    }

    // ---- numbering and tracing

    /// Numbers one I/O. The error says that the machine is dead, now or before; the answer is what awaits it.
    fn begin(&mut self, class: IoClass, what: &str) -> io::Result<Verdict> {
        self.alive()?;
        let count = self.faults.count(IoClass::Any);
        if self.stop_after.is_some_and(|last| count >= last) {
            self.dead = true;
            self.note(&format!("{} power fails at: {what}", count + 1));
            return Err(MachineDead.into());
        }
        let verdict = self.faults.judge(class);
        let faulty = if verdict.errno.is_some() { " (faulty)" } else { "" };
        let stalled = if verdict.stall > 0 { format!(" (stalls {})", verdict.stall) } else { String::new() };
        self.note(&format!("{} {what}{faulty}{stalled}", count + 1));
        Ok(verdict)
    }

    /// As [`State::begin`], for what fails at once.
    fn begin_now(&mut self, class: IoClass, what: &str) -> io::Result<()> {
        self.begin(class, what)?.errno.map_or(Ok(()), |number| Err(errno(number)))
    }

    pub(super) fn alive(&self) -> io::Result<()> {
        if self.dead { Err(MachineDead.into()) } else { Ok(()) }
    }

    fn note(&mut self, line: &str) {
        for byte in line.bytes().chain([b'\n']) {
            self.trace_hash = (self.trace_hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.trace.len() == TRACE_LINE_COUNT_MAX {
            self.trace.pop_front();
        }
        self.trace.push_back(line.to_owned());
    }

    pub(super) fn trace(&self) -> (Vec<String>, u64) {
        (self.trace.iter().cloned().collect(), self.trace_hash)
    }

    /// A number that no other disk gives, and this one not twice.
    pub(super) fn identity(&mut self) -> u128 {
        u128::from(self.identity_draws.draw()) << 64 | u128::from(self.identity_draws.draw())
    }

    /// The stream of draws for one more queue.
    pub(super) fn queue_draws(&mut self) -> Seeded {
        self.queue_count += 1;
        Seeded::new(self.seed.wrapping_add(self.queue_count), STREAM_QUEUE)
    }

    // ---- names

    fn dir_of(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(dir) if self.dirs.contains(dir) => Ok(()),
            _ => Err(errno(libc::ENOENT)),
        }
    }

    pub(super) fn create_dir_all(&mut self, dir: &Path) -> io::Result<()> {
        self.begin_now(IoClass::Name, &format!("make directory {}", dir.display()))?;
        self.dirs.extend(dir.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.alive()?;
        if !self.dirs.contains(dir) {
            return Err(errno(libc::ENOENT));
        }
        let here = self.live_names.keys().filter(|path| path.parent() == Some(dir));
        Ok(here.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    pub(super) fn dirs(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.alive()?;
        if !self.dirs.contains(dir) {
            return Err(errno(libc::ENOENT));
        }
        let here = self.dirs.iter().filter(|path| path.parent() == Some(dir));
        Ok(here.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    pub(super) fn remove_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.begin_now(IoClass::Name, &format!("remove directory {}", dir.display()))?;
        if self.live_names.keys().any(|path| path.parent() == Some(dir)) {
            return Err(errno(libc::ENOTEMPTY));
        }
        if self.dirs.remove(dir) { Ok(()) } else { Err(errno(libc::ENOENT)) }
    }

    /// Opens or creates; answers the inode, which now has one more handle.
    pub(super) fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<u64> {
        let create = mode == OpenMode::CreateNew;
        let verb = if create { "create" } else { "open" };
        self.begin_now(IoClass::Name, &format!("{verb} {}", path.display()))?;
        if mode != OpenMode::ReadOnly {
            self.may_change(path)?;
        }
        self.dir_of(path)?;
        let inode = match (self.live_names.get(path), create) {
            (Some(_), true) => return Err(errno(libc::EEXIST)),
            (None, false) => return Err(errno(libc::ENOENT)),
            (Some(inode), false) => *inode,
            (None, true) => {
                let inode = self.new_inode();
                self.change_name(NameChange::Create(path.to_path_buf()), inode);
                inode
            }
        };
        self.inode_mut(inode).handles += 1;
        Ok(inode)
    }

    fn may_change(&self, path: &Path) -> io::Result<()> {
        let is_protected = self.protected.iter().any(|dir| path.starts_with(dir));
        if is_protected { Err(errno(libc::EROFS)) } else { Ok(()) }
    }

    fn new_inode(&mut self) -> u64 {
        let inode = self.inode_next;
        self.inode_next += 1;
        self.inodes.insert(inode, Inode::default());
        inode
    }

    fn change_name(&mut self, change: NameChange, inode: u64) {
        let op = NameOp { change, inode };
        op.apply(&mut self.live_names);
        self.pending_names.push(op);
    }

    pub(super) fn close(&mut self, inode: u64) {
        self.inode_mut(inode).handles -= 1;
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.begin_now(IoClass::Name, &format!("rename {} to {}", from.display(), to.display()))?;
        self.may_change(from)?;
        self.may_change(to)?;
        self.dir_of(to)?;
        let inode = *self.live_names.get(from).ok_or_else(|| errno(libc::ENOENT))?;
        self.change_name(NameChange::Rename(from.to_path_buf(), to.to_path_buf()), inode);
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.begin_now(IoClass::Name, &format!("remove {}", path.display()))?;
        self.may_change(path)?;
        let inode = *self.live_names.get(path).ok_or_else(|| errno(libc::ENOENT))?;
        self.change_name(NameChange::Remove(path.to_path_buf()), inode);
        Ok(())
    }

    /// Makes the names of one directory durable, and of others only what a rename between the two depends on.
    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.begin_now(IoClass::SyncDir, &format!("sync directory {}", dir.display()))?;
        if !self.dirs.contains(dir) {
            return Err(errno(libc::ENOENT));
        }
        let mut moved = BTreeSet::new();
        let mut covered = Vec::new();
        for op in std::mem::take(&mut self.pending_names).into_iter().rev() {
            if op.touches(dir) {
                if matches!(op.change, NameChange::Rename(..)) {
                    moved.insert(op.inode);
                }
                covered.push(op);
            } else if moved.contains(&op.inode) {
                covered.push(op);
            } else {
                self.pending_names.push(op);
            }
        }
        self.pending_names.reverse();
        for op in covered.iter().rev() {
            op.apply(&mut self.durable_names);
        }
        Ok(())
    }

    /// A lock file has a name, but no I/O of it is numbered and it is durable at once: nothing depends on its fate.
    pub(super) fn lock(&mut self, path: &Path) -> io::Result<()> {
        self.alive()?;
        self.dir_of(path)?;
        self.may_change(path)?;
        if !self.locks.insert(path.to_path_buf()) {
            let text = format!("{} is held by process {}", path.display(), std::process::id());
            return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
        }
        if !self.live_names.contains_key(path) {
            let inode = self.new_inode();
            self.live_names.insert(path.to_path_buf(), inode);
            self.durable_names.insert(path.to_path_buf(), inode);
        }
        Ok(())
    }

    pub(super) fn live_paths(&self) -> Vec<PathBuf> {
        self.live_names.keys().cloned().collect()
    }

    // ---- bytes

    pub(super) fn inode(&self, number: u64) -> &Inode {
        self.inodes.get(&number).expect("inodes live as long as their disk")
    }

    fn inode_mut(&mut self, number: u64) -> &mut Inode {
        self.inodes.get_mut(&number).expect("inodes live as long as their disk")
    }

    pub(super) fn len(&self, inode: u64) -> io::Result<u64> {
        self.alive()?;
        Ok(self.inode(inode).live.len)
    }

    pub(super) fn allocate(&mut self, inode: u64, name: &str, len: u64) -> io::Result<()> {
        self.begin_now(IoClass::Write, &format!("allocate {name} {len}"))?;
        self.take_space(inode, 0, len, false)?;
        let stamp = self.next_stamp();
        let inode = self.inode_mut(inode);
        inode.holes.clear();
        for sector in inode.live.sectors_from(len) {
            inode.remember(sector, stamp, [0; SECTOR]);
        }
        inode.live.set_len(len);
        Ok(())
    }

    /// Gives space back: the range reads as zeros, and a power failure may bring any sector of it back until a sync.
    pub(super) fn punch_hole(&mut self, inode: u64, name: &str, offset: u64, len: u64) -> io::Result<()> {
        self.begin_now(IoClass::Write, &format!("punch {name} {offset}+{len}"))?;
        if self.space.no_holes {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "this disk punches no holes"));
        }
        let stamp = self.next_stamp();
        let inode = self.inode_mut(inode);
        let end = (offset + len).min(inode.live.len);
        for sector in offset / to_u64(SECTOR)..end.div_ceil(to_u64(SECTOR)) {
            inode.remember(sector, stamp, [0; SECTOR]);
            inode.unreadable.remove(&sector);
        }
        inode.live.clear(offset, to_usize(end.saturating_sub(offset)));
        inode.holes.extend(offset / to_u64(PAGE)..end / to_u64(PAGE));
        Ok(())
    }

    fn next_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    /// Starts an operation; its effect comes with [`State::finish`], or never. The answer is its number, and how long it stalls.
    pub(super) fn start(&mut self, inode: u64, name: &str, work: Work) -> io::Result<(u64, u64)> {
        let (class, what) = match &work {
            Work::Write { offset, data, durable } => {
                let (kind, sum) = (if *durable { "write durable" } else { "write" }, fingerprint(data));
                (IoClass::Write, format!("{kind} {name} {offset}+{} {sum:016x}", data.len()))
            }
            Work::Read { offset, len } => (IoClass::Read, format!("read {name} {offset}+{len}")),
            Work::Sync => (IoClass::Sync, format!("sync {name}")),
        };
        let was_dead = self.dead;
        let begun = self.begin(class, &what);
        let id = self.op_next;
        if begun.is_err() && (was_dead || class != IoClass::Write) {
            return Err(MachineDead.into());
        }
        // A write that the power failure met is torn like any other: it stays, and is never finished.
        self.op_next += 1;
        let verdict = begun.as_ref().ok().copied().unwrap_or_default();
        let mut fault = verdict.errno;
        if matches!(work, Work::Sync) {
            self.snapshots.insert(id, self.inode(inode).snapshot());
        }
        if let (Ok(_), Work::Write { offset, data, .. }) = (&begun, &work) {
            self.take_space(inode, *offset, to_u64(data.len()), true)?;
            // What ends a quota is noticed late: some of it may be there.
            fault = fault.or_else(|| self.charge(to_u64(data.len())));
        }
        self.pending.insert(id, Pending { inode, name: name.to_owned(), work, fault });
        begun.map(|_| (id, verdict.stall))
    }

    /// Completes a started operation. A read's bytes go to `out`; a write is compared with `out`, its buffer as it is now.
    pub(super) fn finish(&mut self, id: u64, out: &mut Vec<u8>) -> io::Result<()> {
        self.alive()?;
        let Pending { inode, name, work, fault } = self.pending.remove(&id).expect("an operation finishes once");
        let result = match work {
            Work::Write { offset, data, durable } => {
                assert!(*out == data, "the buffer of a write to {name} at {offset} changed while it was in flight");
                self.finish_write(inode, offset, &data, durable, fault)
            }
            Work::Read { offset, len } => self.finish_read(inode, offset, len, fault, out),
            Work::Sync => self.finish_sync(id, inode, fault),
        };
        let word = if result.is_ok() { "done" } else { "failed" };
        self.note(&format!("{word} op {id} {name} {:016x}", fingerprint(out)));
        result
    }

    fn finish_write(
        &mut self,
        number: u64,
        offset: u64,
        data: &[u8],
        durable: bool,
        fault: Option<i32>,
    ) -> io::Result<()> {
        let stamp = self.next_stamp();
        let mut draws = self.fault_draws.clone();
        let inode = self.inode_mut(number);
        let sectors = data.len() / SECTOR;
        // After an error nothing is known about the range: its front may have arrived (a short write), or any part of it.
        let front = if fault.is_some() && draws.chance(4) { Some(draws.below(sectors + 1)) } else { None };
        for (index, (sector, bytes)) in sectors_of(offset, data).enumerate() {
            let arrives = match (fault, front) {
                (None, _) => true,
                (Some(_), Some(front)) => index < front,
                (Some(_), None) => draws.chance(4),
            };
            if !arrives {
                continue;
            }
            inode.live.set_sector(sector, &bytes);
            inode.unreadable.remove(&sector);
            if durable && fault.is_none() {
                inode.harden(sector, stamp, &bytes);
            } else {
                inode.remember(sector, stamp, bytes);
            }
        }
        let end = offset + to_u64(data.len());
        inode.live.len = inode.live.len.max(end);
        for page in offset / to_u64(PAGE)..end.div_ceil(to_u64(PAGE)) {
            inode.holes.remove(&page);
        }
        if durable && fault.is_none() {
            inode.durable.len = inode.durable.len.max(end);
            for (id, (_, len)) in &mut self.snapshots {
                if self.pending.get(id).is_some_and(|pending| pending.inode == number) {
                    *len = (*len).max(end);
                }
            }
            self.scrub_snapshots(number, offset, data.len(), stamp);
        }
        if let Some(fault) = fault {
            self.fault_draws = draws;
            return Err(errno(fault));
        }
        Ok(())
    }

    /// A sync that was submitted earlier must not put older bytes over newer durable ones.
    fn scrub_snapshots(&mut self, inode: u64, offset: u64, len: usize, stamp: u64) {
        let first = offset / to_u64(SECTOR);
        let end = first + to_u64(len.div_ceil(SECTOR));
        for (id, (sectors, _)) in &mut self.snapshots {
            if self.pending.get(id).is_some_and(|pending| pending.inode == inode) {
                sectors.retain(|sector, version| !(first..end).contains(sector) || version.0 > stamp);
            }
        }
    }

    fn finish_read(
        &self,
        number: u64,
        offset: u64,
        len: usize,
        fault: Option<i32>,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        if let Some(fault) = fault {
            return Err(errno(fault));
        }
        let inode = self.inode(number);
        let first = offset / to_u64(SECTOR);
        if inode.unreadable.range(first..first + to_u64(len.div_ceil(SECTOR))).next().is_some() {
            return Err(errno(libc::EIO));
        }
        if offset + to_u64(len) > inode.live.len {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends inside the range"));
        }
        out.resize(len, 0);
        inode.live.read(offset, out);
        Ok(())
    }

    fn finish_sync(&mut self, id: u64, number: u64, fault: Option<i32>) -> io::Result<()> {
        let (sectors, len) = self.snapshots.remove(&id).expect("every sync has a snapshot");
        let inode = self.inode_mut(number);
        if let Some(fault) = fault {
            for (sector, (stamp, _)) in sectors {
                inode.forget_dirty(sector, stamp);
            }
            return Err(errno(fault));
        }
        for (sector, (stamp, data)) in &sectors {
            inode.harden(*sector, *stamp, data);
        }
        inode.durable.len = len;
        for (sector, (stamp, _)) in sectors {
            self.scrub_snapshots(number, sector * to_u64(SECTOR), SECTOR, stamp);
        }
        Ok(())
    }

    // ---- what is left

    /// The disk after a power failure.
    pub(super) fn crash(&self, seed: u64, survival: Survival) -> State {
        let mut draws = Seeded::new(seed, STREAM_SURVIVAL);
        let odds = match survival {
            Survival::Nothing => 0,
            Survival::Everything => 8,
            // The two ends matter as much as the middle.
            Survival::Seeded => [0, 1, 4, 7, 8][draws.below(5)],
        };
        let mut after = self.restarted(seed);
        let kept_names = match odds {
            0 => 0,
            8 => self.pending_names.len(),
            _ => draws.below(self.pending_names.len() + 1),
        };
        after.durable_names = self.durable_names.clone();
        for op in &self.pending_names[..kept_names] {
            op.apply(&mut after.durable_names);
        }
        after.live_names = after.durable_names.clone();
        let kept: BTreeSet<u64> = after.durable_names.values().copied().collect();
        for number in kept {
            let inode = self.inode(number);
            let writes = self.pending.values().filter(|pending| pending.inode == number && pending.fault.is_none());
            let bytes = inode.after_crash(odds, &mut draws, writes);
            let unreadable = inode.unreadable.clone();
            let holes = inode.holes.iter().copied().filter(|page| bytes.is_clear(*page)).collect();
            let survivor = Inode { live: bytes.clone(), durable: bytes, unreadable, holes, ..Inode::default() };
            after.inodes.insert(number, survivor);
        }
        after
    }

    /// The disk after the process was killed: what was submitted happens or not, whole; the rest of the machine lives on.
    pub(super) fn kill(&self) -> State {
        let mut draws = Seeded::new(self.seed.wrapping_add(self.stamp), STREAM_SURVIVAL);
        let mut last = self.clone();
        last.dead = false;
        for (id, pending) in &self.pending {
            if draws.chance(4) {
                let mut out = match &pending.work {
                    Work::Write { data, .. } => data.clone(),
                    _ => Vec::new(),
                };
                // Nobody is left to hear the result.
                drop(last.finish(*id, &mut out));
            }
        }
        let mut after = self.restarted(self.seed.wrapping_add(1));
        after.inodes = last.inodes;
        for inode in after.inodes.values_mut() {
            inode.handles = 0;
        }
        after.live_names = last.live_names;
        after.durable_names = last.durable_names;
        after.pending_names = last.pending_names;
        after
    }

    /// A machine with this disk's geometry, nothing running, and no file yet.
    fn restarted(&self, seed: u64) -> State {
        State {
            inode_next: self.inode_next,
            dirs: self.dirs.clone(),
            protected: self.protected.clone(),
            stamp: self.stamp,
            space: self.space.clone(),
            identity_draws: self.identity_draws.clone(),
            runs_inline: self.runs_inline,
            ..State::new(seed)
        }
    }

    // ---- the tester's hands

    pub(super) fn find(&self, path: &Path) -> Option<&Inode> {
        self.live_names.get(path).map(|inode| self.inode(*inode))
    }

    fn find_mut(&mut self, path: &Path) -> &mut Inode {
        let number = *self.live_names.get(path).unwrap_or_else(|| panic!("there is no file {}", path.display()));
        self.inode_mut(number)
    }

    pub(super) fn plant_bytes(&mut self, path: &Path, offset: u64, bytes: &[u8]) {
        let inode = self.find_mut(path);
        inode.live.write(offset, bytes);
        inode.durable.write(offset, bytes);
        let first = offset / to_u64(SECTOR);
        let end = (offset + to_u64(bytes.len())).div_ceil(to_u64(SECTOR));
        inode.undurable.retain(|sector, _| !(first..end).contains(sector));
    }

    pub(super) fn plant_flip(&mut self, path: &Path, offset: u64, mask: u8) {
        let inode = self.find_mut(path);
        assert!(offset < inode.live.len, "there is no byte {offset} in {}", path.display());
        for bytes in [&mut inode.live, &mut inode.durable] {
            let mut byte = [0];
            bytes.read(offset, &mut byte);
            bytes.write(offset, &[byte[0] ^ mask]);
        }
        for version in inode.undurable.get_mut(&(offset / to_u64(SECTOR))).into_iter().flatten() {
            version.data[to_usize(offset % to_u64(SECTOR))] ^= mask;
        }
    }

    pub(super) fn plant_len(&mut self, path: &Path, len: u64) {
        let inode = self.find_mut(path);
        inode.live.set_len(len);
        inode.durable.set_len(len);
        inode.undurable.retain(|sector, _| *sector < len.div_ceil(to_u64(SECTOR)));
    }

    pub(super) fn plant_unreadable(&mut self, path: &Path, offset: u64) {
        self.find_mut(path).unreadable.insert(offset / to_u64(SECTOR));
    }

    pub(super) fn plant_loss(&mut self, path: &Path) {
        self.live_names.remove(path);
        self.durable_names.remove(path);
    }
}

impl Inode {
    /// Keeps what a completed write left, until a sync covers it.
    fn remember(&mut self, sector: u64, stamp: u64, data: Sector) {
        let versions = self.undurable.entry(sector).or_default();
        if versions.len() == VERSION_COUNT_MAX {
            versions.remove(1);
        }
        versions.push(Version { stamp, data, dropped: false });
    }

    /// Makes one sector durable, as it was at `stamp`.
    fn harden(&mut self, sector: u64, stamp: u64, data: &Sector) {
        self.durable.set_sector(sector, data);
        if let Some(versions) = self.undurable.get_mut(&sector) {
            versions.retain(|version| version.stamp > stamp);
            if versions.is_empty() {
                self.undurable.remove(&sector);
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        let latest = self.undurable.iter().filter_map(|(sector, versions)| {
            let last = versions.last().filter(|last| !last.dropped)?;
            Some((*sector, (last.stamp, last.data)))
        });
        (latest.collect(), self.live.len)
    }

    fn forget_dirty(&mut self, sector: u64, stamp: u64) {
        for version in self.undurable.get_mut(&sector).into_iter().flatten() {
            version.dropped |= version.stamp <= stamp;
        }
    }

    /// What the medium holds after a power failure: durable bytes, and of all others any subset of sectors.
    fn after_crash<'a>(&self, odds: u64, draws: &mut Seeded, in_flight: impl Iterator<Item = &'a Pending>) -> Sectors {
        let mut bytes = self.durable.clone();
        let mut len = if draws.chance(odds) { self.live.len } else { self.durable.len };
        for (sector, versions) in &self.undurable {
            if draws.chance(odds) {
                let version = if odds == 8 { versions.len() - 1 } else { draws.below(versions.len()) };
                bytes.set_sector(*sector, &versions[version].data);
            }
        }
        for pending in in_flight {
            let Work::Write { offset, data, .. } = &pending.work else { continue };
            for (sector, data) in sectors_of(*offset, data) {
                if draws.chance(odds) {
                    bytes.set_sector(sector, &data);
                }
            }
            if draws.chance(odds) {
                len = len.max(offset + to_u64(data.len()));
            }
        }
        bytes.set_len(len);
        bytes
    }
}

fn sectors_of(offset: u64, data: &[u8]) -> impl Iterator<Item = (u64, Sector)> {
    let (whole, rest) = data.as_chunks::<SECTOR>();
    assert!(rest.is_empty(), "writes are whole sectors");
    (offset / to_u64(SECTOR)..).zip(whole.iter().copied())
}

/// A number that tells bytes apart in a trace. Bytes that end with their own CRC-32 all have the same one: this is none.
fn fingerprint(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word)).chain(rest.iter().copied().map(u64::from));
    words.fold(0xcbf2_9ce4_8422_2325, |sum, word| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
}

pub(super) fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}
