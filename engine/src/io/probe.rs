//! Facts about a directory and its machine, and the choice of the backend that serves it.
//!
//! 1. **The choice is said out loud.** A [`Probe`] holds what was found, what was measured and the reason in words.
//! 2. **Measured once.** The verdict is kept beside the log in [`VERDICT_FILE`] and holds until the kernel or the file
//!    system changes, or somebody asks again. Losing the file costs a second.
//! 3. **Plain calls unless io_uring is clearly ahead.** On an idle machine both keep pace with the disk; on a busy one
//!    plain calls keep more than twice the rate, which a short run on an idle machine cannot show.
//! 4. **A refusal is no failure.** Whatever cannot be found out is "unknown"; what cannot be measured leaves plain calls.
//!
//! Deliberately not here: what an operator's `--backend` means (the binary passes it as a [`BackendChoice`]).

mod sustained;

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::buffer::{AlignedBuf, IoSlice};
use super::sys::{self, BlockDevice, DioAlign};
use super::threads::ThreadsBackend;
use super::uring::{RingRefusal, UringBackend};
use super::{BackendKind, IO_ALIGN, IoBackend, IoFile, IoOp, IoQueue, OpenMode, Wait, file};
use crate::clock::Clock;
use crate::units::to_u64;
pub use sustained::{Sustained, sustain};

/// Name of the file that keeps the verdict.
pub const VERDICT_FILE: &str = "probe.toml";

/// Raised when the file's keys or the decision rule change; an older verdict is then measured anew.
const VERDICT_VERSION: u32 = 1;

const FILE_BYTES: usize = 4 << 20;
const SMALL: usize = IO_ALIGN;
const LARGE: usize = 64 << 10;

/// Turns that the backends take, so that a stall of the machine hits a minority of each one's turns.
const TURN_COUNT: usize = 5;
const TURN: Duration = Duration::from_millis(50);
/// Bounds a turn where the clock stands still.
const TURN_WRITE_COUNT_MAX: u64 = 20_000;

/// How far io_uring must be ahead, in percent of plain calls' rate at 64 KiB.
const URING_AHEAD_PERCENT: u64 = 110;

/// Who chooses the backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// The probe does.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// Plain system calls.
    Threads,
}

/// What one backend reached with one durable write in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Who was measured.
    pub kind: BackendKind,
    /// Durable writes of 4 KiB per second.
    pub small_per_s: u64,
    /// Half of those took no longer, in microseconds.
    pub small_p50_us: u64,
    /// Durable writes of 64 KiB per second.
    pub large_per_s: u64,
    /// Half of those took no longer, in microseconds.
    pub large_p50_us: u64,
}

/// What is known about a directory, and which backend serves it.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Release of the kernel.
    pub kernel: String,
    /// Type of the file system.
    pub filesystem: String,
    /// Whether files can be written past the page cache here.
    pub direct_io: bool,
    /// What the file system asks of direct I/O, where it says so.
    pub dio_align: Option<DioAlign>,
    /// The disk below, where there is one.
    pub disk: Option<BlockDevice>,
    /// Bytes that may be locked in memory; `None` is unlimited or unknown.
    pub memlock: Option<u64>,
    /// Free bytes, where the file system says so.
    pub free_bytes: Option<u64>,
    /// Whether io_uring works, or why not.
    pub ring: Result<(), RingRefusal>,
    /// What was measured, now or when the verdict was made.
    pub measured: Vec<Measured>,
    /// True when the verdict comes from an earlier run.
    pub remembered: bool,
    /// The choice.
    pub kind: BackendKind,
    /// Why, in one sentence.
    pub reason: String,
    /// What an operator should know, a sentence each.
    pub notes: Vec<String>,
}

/// Chooses the backend of the existing directory `dir`; with `remeasure`, an earlier verdict does not count.
///
/// # Errors
/// When io_uring was asked for and is refused: the message names cause and remedy. The kernel's, when the directory cannot
/// be written.
pub fn choose(
    dir: &Path,
    choice: BackendChoice,
    remeasure: bool,
    clock: &dyn Clock,
) -> io::Result<(Arc<dyn IoBackend>, Probe)> {
    let (mut probe, backends) = facts(dir)?;
    match choice {
        BackendChoice::Threads => probe.decide(BackendKind::Threads, "plain system calls were asked for".to_owned()),
        BackendChoice::Uring => {
            if let Err(refusal) = &probe.ring {
                let text = format!("io_uring was asked for, but {refusal}; remedy: {}", refusal.remedy());
                return Err(io::Error::new(io::ErrorKind::Unsupported, text));
            }
            probe.decide(BackendKind::Uring, "io_uring was asked for".to_owned());
        }
        BackendChoice::Auto if probe.ring.is_err() => {}
        BackendChoice::Auto => {
            let remembered = if remeasure { None } else { Verdict::load(dir, &probe) };
            probe.remembered = remembered.is_some();
            let measured = remembered.map_or_else(|| backends.measure(dir, clock), |verdict| Ok(verdict.measured));
            probe.judge(measured);
            if !probe.remembered && !probe.measured.is_empty() {
                probe.save(dir);
            }
        }
    }
    Ok((backends.into_kind(probe.kind), probe))
}

/// Measures every backend that works in the existing directory `dir`, and says what [`choose`] would choose. Keeps nothing.
///
/// # Errors
/// The kernel's, when the directory cannot be written.
pub fn probe(dir: &Path, clock: &dyn Clock) -> io::Result<Probe> {
    let (mut probe, backends) = facts(dir)?;
    let measured = backends.measure(dir, clock);
    if probe.ring.is_ok() {
        probe.judge(measured);
    } else {
        probe.measured = measured.unwrap_or_default();
    }
    Ok(probe)
}

/// The real backends that work here.
struct Backends {
    threads: Arc<dyn IoBackend>,
    uring: Option<Arc<dyn IoBackend>>,
}

impl Backends {
    fn into_kind(self, kind: BackendKind) -> Arc<dyn IoBackend> {
        match (kind, self.uring) {
            (BackendKind::Uring, Some(uring)) => uring,
            _ => self.threads,
        }
    }

    fn measure(&self, dir: &Path, clock: &dyn Clock) -> io::Result<Vec<Measured>> {
        let backends: Vec<&dyn IoBackend> = self.uring.iter().chain([&self.threads]).map(|one| &**one).collect();
        measure(&backends, dir, clock)
    }
}

fn facts(dir: &Path) -> io::Result<(Probe, Backends)> {
    let (direct_io, dio_align) = try_direct_io(dir)?;
    let ring = UringBackend::new();
    let mut probe = Probe {
        kernel: sys::kernel_release(),
        filesystem: sys::filesystem_type(dir),
        direct_io,
        dio_align,
        disk: BlockDevice::below(dir),
        memlock: sys::memlock_limit(),
        free_bytes: sys::free_bytes(dir).ok(),
        ring: ring.as_ref().map(drop).map_err(Clone::clone),
        measured: Vec::new(),
        remembered: false,
        kind: BackendKind::Threads,
        reason: String::new(),
        notes: Vec::new(),
    };
    probe.note_oddities();
    let (mut threads, mut uring) = (ThreadsBackend::new(), ring.ok());
    if !direct_io {
        (threads, uring) = (threads.without_direct_io(), uring.map(UringBackend::without_direct_io));
    }
    let backends =
        Backends { threads: Arc::new(threads), uring: uring.map(|uring| Arc::new(uring) as Arc<dyn IoBackend>) };
    Ok((probe, backends))
}

/// Some file systems take the flag at open and refuse the first write: only a write tells.
fn try_direct_io(dir: &Path) -> io::Result<(bool, Option<DioAlign>)> {
    let path = dir.join(format!("probe-{}.tmp", std::process::id()));
    drop(file::remove(&path));
    let file = file::open(&path, OpenMode::CreateNew, true)?;
    let written = file.is_direct() && file.write_at(&AlignedBuf::zeroed(IO_ALIGN), 0, false).is_ok();
    let align = file.fd().and_then(sys::dio_align);
    file::remove(&path)?;
    Ok((written, align))
}

impl Probe {
    fn decide(&mut self, kind: BackendKind, reason: String) {
        (self.kind, self.reason) = (kind, reason);
    }

    fn note_oddities(&mut self) {
        if let Err(refusal) = &self.ring {
            self.reason = format!("plain system calls, because {refusal}");
            self.notes.push(format!(
                "io_uring is refused: appends keep their rate with plain calls, but deep reads, recovery and zero-filling \
                 need a thread per operation; remedy: {}",
                refusal.remedy()
            ));
        }
        if !self.direct_io {
            self.notes.push(
                "direct I/O is refused here: files are buffered and flushed, which is slower for large groups".into(),
            );
        }
        match self.filesystem.as_str() {
            "tmpfs" | "ramfs" => {
                self.notes.push("this directory is memory: nothing survives, and rates mean nothing".into())
            }
            "overlay" => self.notes.push("this directory is a container layer: put the data on a volume".into()),
            "btrfs" | "zfs" => {
                self.notes.push("this file system copies on write: preallocation does not help here".into());
            }
            _ => {}
        }
    }

    /// The decision rule.
    fn judge(&mut self, measured: io::Result<Vec<Measured>>) {
        match measured {
            Ok(measured) => self.measured = measured,
            Err(error) => {
                return self
                    .decide(BackendKind::Threads, format!("plain system calls, because measuring failed: {error}"));
            }
        }
        let (Some(uring), Some(threads)) = (self.rate(BackendKind::Uring), self.rate(BackendKind::Threads)) else {
            return self.decide(BackendKind::Threads, "plain system calls, because nothing was measured".to_owned());
        };
        let rates =
            format!("{uring} durable writes of 64 KiB per second with io_uring, {threads} with plain system calls");
        if uring.saturating_mul(100) >= threads.saturating_mul(URING_AHEAD_PERCENT) && uring > 0 {
            self.decide(BackendKind::Uring, format!("io_uring is ahead: {rates}"));
        } else {
            let why = "io_uring is not at least 10 % ahead, and on a busy machine plain calls keep more of their rate";
            self.decide(BackendKind::Threads, format!("{why}: {rates}"));
        }
    }

    fn rate(&self, kind: BackendKind) -> Option<u64> {
        self.measured.iter().find(|one| one.kind == kind).map(|one| one.large_per_s)
    }

    fn save(&mut self, dir: &Path) {
        let verdict = Verdict { measured: self.measured.clone() };
        if let Err(error) = file::replace_text(&dir.join(VERDICT_FILE), &verdict.to_text(self)) {
            self.notes.push(format!("the verdict could not be kept ({error}): the next start measures again"));
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown = || sys::UNKNOWN.to_owned();
        let ring = self.ring.as_ref().map_or_else(|why| format!("refused: {why}"), |()| "available".to_owned());
        let align = self.dio_align.map_or_else(unknown, |align| format!("{}/{}", align.memory, align.offset));
        let memlock = self.memlock.map_or_else(|| "unlimited or unknown".to_owned(), |bytes| format!("{bytes} bytes"));
        writeln!(f, "kernel         {}", self.kernel)?;
        writeln!(f, "io_uring       {ring}")?;
        writeln!(f, "memlock        {memlock}")?;
        writeln!(f, "file system    {}", self.filesystem)?;
        writeln!(f, "direct I/O     {}, alignment {align}", if self.direct_io { "yes" } else { "refused" })?;
        writeln!(f, "free space     {}", self.free_bytes.map_or_else(unknown, |bytes| format!("{} MiB", bytes >> 20)))?;
        if let Some(disk) = &self.disk {
            let yes_no = |fact: Option<bool>| fact.map_or(sys::UNKNOWN, |yes| if yes { "yes" } else { "no" });
            let size = |block: Option<u64>| block.map_or_else(unknown, |bytes| bytes.to_string());
            writeln!(f, "disk           {disk}, forced unit access: {}", yes_no(disk.fua))?;
            let (physical, logical) = (size(disk.physical_block), size(disk.logical_block));
            writeln!(f, "blocks         physical {physical}, logical {logical}, scheduler {}", disk.scheduler)?;
        }
        for one in &self.measured {
            let kind = one.kind.to_string();
            let small = format!("4 KiB {}/s p50 {} us", one.small_per_s, one.small_p50_us);
            let large = format!("64 KiB {}/s p50 {} us", one.large_per_s, one.large_p50_us);
            writeln!(f, "{kind:<14} durable writes: {small}, {large}")?;
        }
        let source = if self.remembered { " (remembered)" } else { "" };
        writeln!(f, "backend        {}{source}: {}", self.kind, self.reason)?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note           {note}"))
    }
}

/// What is kept of a measurement.
struct Verdict {
    measured: Vec<Measured>,
}

impl Verdict {
    fn to_text(&self, probe: &Probe) -> String {
        let mut text = format!(
            "# The speed of the I/O backends in this directory. Delete this file to have it measured again.\n\
             version = {VERDICT_VERSION}\nkernel = \"{}\"\nfilesystem = \"{}\"\n",
            probe.kernel, probe.filesystem
        );
        for one in &self.measured {
            let numbers = [one.small_per_s, one.small_p50_us, one.large_per_s, one.large_p50_us];
            for (name, number) in NUMBERS.iter().zip(numbers) {
                text.push_str(&format!("{}_{name} = {number}\n", one.kind));
            }
        }
        text
    }

    /// The verdict kept in `dir`, if it was made by these rules on this kernel and file system.
    fn load(dir: &Path, probe: &Probe) -> Option<Verdict> {
        let text = fs::read_to_string(dir.join(VERDICT_FILE)).ok()?;
        let value = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once('='));
            lines.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().trim_matches('"'))
        };
        let same = value("version")? == VERDICT_VERSION.to_string()
            && value("kernel")? == probe.kernel
            && value("filesystem")? == probe.filesystem;
        let measured = [BackendKind::Uring, BackendKind::Threads].into_iter().map(|kind| {
            let number = |name: &str| value(&format!("{kind}_{name}"))?.parse::<u64>().ok();
            let [small_per_s, small_p50_us, large_per_s, large_p50_us] = NUMBERS.map(number);
            Some(Measured {
                kind,
                small_per_s: small_per_s?,
                small_p50_us: small_p50_us?,
                large_per_s: large_per_s?,
                large_p50_us: large_p50_us?,
            })
        });
        let measured: Vec<Measured> = measured.collect::<Option<_>>()?;
        same.then_some(Verdict { measured })
    }
}

/// Keys of one backend's numbers, in the order of the fields of [`Measured`].
const NUMBERS: [&str; 4] = ["4k_per_s", "4k_p50_us", "64k_per_s", "64k_p50_us"];

/// One backend while it is measured.
struct Runner {
    kind: BackendKind,
    file: Arc<dyn IoFile>,
    queue: Box<dyn IoQueue>,
    small: Turns,
    large: Turns,
}

/// What one size of writes reached, turn by turn.
struct Turns {
    slice: IoSlice,
    rates: Vec<u64>,
    latencies_us: Vec<u64>,
}

impl Turns {
    fn new(len: usize) -> Turns {
        Turns { slice: AlignedBuf::zeroed(len).into(), rates: Vec::new(), latencies_us: Vec::new() }
    }

    fn run(&mut self, queue: &mut dyn IoQueue, file: &Arc<dyn IoFile>, clock: &dyn Clock) -> io::Result<()> {
        let start = clock.monotonic();
        let (mut now, mut count, mut out) = (start, 0, Vec::with_capacity(1));
        while now - start < TURN && count < TURN_WRITE_COUNT_MAX {
            let offset = count * to_u64(self.slice.len()) % to_u64(FILE_BYTES);
            queue.submit(IoOp::write_durable(count, Arc::clone(file), offset, vec![self.slice.clone()]));
            while out.is_empty() {
                queue.reap(Wait::One, &mut out);
            }
            out.drain(..).try_for_each(|completion| completion.result)?;
            let then = std::mem::replace(&mut now, clock.monotonic());
            self.latencies_us.push(micros(now - then));
            count += 1;
        }
        self.rates.push(count * 1_000_000 / micros(now - start).max(1));
        Ok(())
    }
}

fn measure(backends: &[&dyn IoBackend], dir: &Path, clock: &dyn Clock) -> io::Result<Vec<Measured>> {
    let path = dir.join(format!("probe-{}.tmp", std::process::id()));
    drop(file::remove(&path));
    let prepared = prepare(backends, &path);
    // The name goes before the first write, so that nothing is left behind even by a crash.
    drop(file::remove(&path));
    let mut runners = prepared?;
    for turn in 0..TURN_COUNT {
        for runner in &mut runners {
            runner.small.run(&mut *runner.queue, &runner.file, clock)?;
            runner.large.run(&mut *runner.queue, &runner.file, clock)?;
        }
        if turn + 1 < TURN_COUNT {
            runners.reverse();
        }
    }
    let measured = runners.iter_mut().map(|runner| Measured {
        kind: runner.kind,
        small_per_s: median(&mut runner.small.rates),
        small_p50_us: median(&mut runner.small.latencies_us),
        large_per_s: median(&mut runner.large.rates),
        large_p50_us: median(&mut runner.large.latencies_us),
    });
    Ok(measured.collect())
}

/// A file of written zeros, as segments are, opened by each backend.
fn prepare(backends: &[&dyn IoBackend], path: &Path) -> io::Result<Vec<Runner>> {
    let mut runners = Vec::new();
    for backend in backends {
        let mode = if runners.is_empty() { OpenMode::CreateNew } else { OpenMode::Existing };
        let file = backend.open(path, mode)?;
        if mode == OpenMode::CreateNew {
            file.allocate(to_u64(FILE_BYTES))?;
            file.write_at(&AlignedBuf::zeroed(FILE_BYTES), 0, false)?;
            file.sync()?;
        }
        let queue = backend.queue(1)?;
        runners.push(Runner { kind: backend.kind(), file, queue, small: Turns::new(SMALL), large: Turns::new(LARGE) });
    }
    Ok(runners)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    /// Says to a copy of this test binary which error the ring shall be refused with.
    const REFUSE_WITH: &str = "ANCHORLOG_TEST_REFUSE_IO_URING";

    fn scene() -> (tempfile::TempDir, SystemClock) {
        (tempfile::tempdir().expect("a temporary directory"), SystemClock::new())
    }

    fn measured(uring: u64, threads: u64) -> Vec<Measured> {
        let one =
            |kind, rate| Measured { kind, small_per_s: rate, small_p50_us: 1, large_per_s: rate, large_p50_us: 1 };
        vec![one(BackendKind::Uring, uring), one(BackendKind::Threads, threads)]
    }

    #[test]
    fn io_uring_is_chosen_when_clearly_ahead_and_plain_calls_otherwise() {
        let (dir, _clock) = scene();
        let (mut probe, _backends) = facts(dir.path()).expect("the directory can be written");
        for (uring, threads, kind) in [
            (1100, 1000, BackendKind::Uring),
            (1099, 1000, BackendKind::Threads),
            (500, 1000, BackendKind::Threads),
            (0, 0, BackendKind::Threads),
        ] {
            probe.judge(Ok(measured(uring, threads)));
            assert_eq!(probe.kind, kind, "{uring} against {threads}: {}", probe.reason);
        }
        probe.judge(Err(io::ErrorKind::StorageFull.into()));
        assert!(probe.kind == BackendKind::Threads && probe.reason.contains("measuring failed"));
    }

    #[test]
    fn a_verdict_holds_until_the_kernel_the_file_system_or_the_rules_change() {
        let (dir, _clock) = scene();
        let (mut probe, _backends) = facts(dir.path()).expect("the directory can be written");
        assert!(Verdict::load(dir.path(), &probe).is_none());
        probe.measured = measured(7, 9);
        probe.save(dir.path());
        let loaded = Verdict::load(dir.path(), &probe).expect("it was kept just now");
        assert_eq!(loaded.measured, probe.measured);

        let mut upgraded = probe.clone();
        upgraded.kernel.push('1');
        assert!(Verdict::load(dir.path(), &upgraded).is_none());
        let mut moved = probe.clone();
        moved.filesystem = "other".to_owned();
        assert!(Verdict::load(dir.path(), &moved).is_none());
        let text = fs::read_to_string(dir.path().join(VERDICT_FILE)).expect("it is there");
        for damaged in [text.replace("version = 1", "version = 0"), text.replace("uring_4k_per_s = 7", ""), "#".into()]
        {
            file::replace_text(&dir.path().join(VERDICT_FILE), &damaged).expect("the directory can be written");
            assert!(Verdict::load(dir.path(), &probe).is_none(), "{damaged}");
        }
    }

    #[test]
    fn measuring_leaves_a_verdict_and_nothing_else_and_is_not_repeated() {
        let (dir, clock) = scene();
        let (backend, probe) = choose(dir.path(), BackendChoice::Auto, false, &clock).expect("something can be chosen");
        assert_eq!(backend.kind(), probe.kind);
        assert!(!probe.reason.is_empty());
        if let Err(why) = &probe.ring {
            crate::io::tests::skipped(&format!(
                "measuring_leaves_a_verdict_and_nothing_else_and_is_not_repeated: {why}"
            ));
            return;
        }
        assert!(probe.measured.iter().all(|one| one.small_per_s > 0 && one.large_per_s > 0), "{probe}");
        assert_eq!(backend.list(dir.path()).expect("it exists"), [VERDICT_FILE]);
        let (_, again) = choose(dir.path(), BackendChoice::Auto, false, &clock).expect("as before");
        assert!(again.remembered && again.kind == probe.kind && again.measured == probe.measured, "{again}");
    }

    #[test]
    fn who_asks_for_a_backend_gets_it_unmeasured() {
        let (dir, clock) = scene();
        let (backend, probe) = choose(dir.path(), BackendChoice::Threads, true, &clock).expect("plain calls work");
        assert!(backend.kind() == BackendKind::Threads && probe.measured.is_empty());
        assert_eq!(backend.list(dir.path()).expect("it exists"), Vec::<String>::new());
        match choose(dir.path(), BackendChoice::Uring, false, &clock) {
            Ok((backend, _)) => assert_eq!(backend.kind(), BackendKind::Uring),
            Err(error) => {
                crate::io::tests::skipped(&format!("half of who_asks_for_a_backend_gets_it_unmeasured: {error}"))
            }
        }
    }

    #[test]
    fn a_refused_ring_leaves_plain_calls_and_says_why_and_what_to_do() {
        if let Ok(number) = std::env::var(REFUSE_WITH) {
            return refused(number.parse().expect("the parent passes a number"));
        }
        let name = "a_refused_ring_leaves_plain_calls_and_says_why_and_what_to_do";
        let (_crate, module) = module_path!().split_once("::").expect("tests live in a module");
        for errno in [libc::EPERM, libc::ENOSYS] {
            let child = std::process::Command::new(std::env::current_exe().expect("this binary has a path"))
                .args(["--exact", &format!("{module}::{name}"), "--nocapture"])
                .env(REFUSE_WITH, errno.to_string())
                .output()
                .expect("this binary runs");
            let said = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
            assert!(child.status.success() && said.contains("1 passed"), "{said}");
        }
    }

    fn refused(errno: i32) {
        sys::refuse_io_uring(nix::errno::Errno::from_raw(errno));
        let (dir, clock) = scene();
        let (backend, probe) = choose(dir.path(), BackendChoice::Auto, false, &clock).expect("plain calls work");
        assert_eq!((backend.kind(), probe.kind), (BackendKind::Threads, BackendKind::Threads));
        let refusal = probe.ring.clone().expect_err("the filter is in place");
        assert!(probe.reason.contains(&refusal.to_string()), "{}", probe.reason);
        assert!(probe.to_string().contains(refusal.remedy()), "{probe}");
        if std::path::Path::new("/proc/sys/kernel/io_uring_disabled").exists() && errno == libc::ENOSYS {
            assert_eq!(refusal, RingRefusal::Filtered);
        }
        let forced = choose(dir.path(), BackendChoice::Uring, false, &clock).err().expect("it was asked for");
        assert!(forced.to_string().contains("remedy"), "{forced}");
    }
}
