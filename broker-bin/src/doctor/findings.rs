//! What facts mean for a broker: rules over values, no disk and no clock.

use anchorlog_engine::io::IO_ALIGN;
use anchorlog_engine::io::probe::Sustained;
use serde::Serialize;

use crate::commands::When;
use crate::config::ByteSize;

/// Files of the log that lie ready beside the one that is written: two spare ones, and one for the reserve.
const FILES_AHEAD: u64 = 3;
/// A disk with so many times the room that is needed at the start is not soon full.
const ROOMY: u64 = 4;
/// Memory that a ring may have to lock, on kernels that count it.
const MEMLOCK_MIN: u64 = 8 << 20;
/// Files that a broker of some hundred clients has open.
const OPEN_FILES_MIN: u64 = 4096;
/// No flash takes a write in less; what answers sooner has put it into a cache.
const DURABLE_US_MIN: u64 = 8;
/// A tail this much longer than the middle is felt.
const TAIL_FACTOR: u64 = 20;
/// The tail is never felt below this.
const TAIL_US_MIN: u64 = 20_000;
/// The clock may be off by this within the time of the probe.
const STEP_MS_MAX: i64 = 100;
/// A reading of a good clock costs less.
const READING_NS_MAX: u64 = 1_000;
/// No machine lives before this: 2024-01-01.
const PAST_MS: u64 = 1_704_067_200_000;
/// A file may be so much from the future, for clocks that are set in steps.
const FUTURE_MS: u64 = 10_000;
/// Messages on their way at once, of what the verdict says.
const IN_FLIGHT: u64 = 64;

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Grade {
    /// As it should be.
    Good,
    /// It works; somebody should look at it.
    Look,
    /// A broker could not keep its promises, or could not start.
    Unfit,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which.
    pub what: &'static str,
    /// How it is.
    pub grade: Grade,
    /// In words, with what can be done.
    pub says: String,
}

/// The disk below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The kernel's name of it.
    pub name: String,
    /// `write back` for a volatile cache.
    pub write_cache: String,
    /// Whether one write can be forced to the medium.
    pub fua: Option<bool>,
}

/// What was seen of the clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClockFacts {
    /// Its time, in milliseconds since 1970.
    pub now_ms: u64,
    /// How much further it went than time did.
    pub stepped_ms: i64,
    /// What looking at it costs.
    pub reading_ns: u64,
    /// When the youngest file of the directory was written.
    pub newest_file_ms: Option<u64>,
}

/// What was found out.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The kernel's release.
    pub kernel: String,
    /// Whether `io_uring` works, or why not, and what to do.
    pub ring: Result<(), (String, String)>,
    /// Whether files are written past the page cache.
    pub direct_io: bool,
    /// What that asks for, of memory and of offsets.
    pub alignment: Option<(u32, u32)>,
    /// The type of the file system.
    pub filesystem: String,
    /// The disk, where there is one.
    pub disk: Option<Disk>,
    /// Bytes that may be locked.
    pub memlock: Option<u64>,
    /// Free bytes.
    pub free_bytes: Option<u64>,
    /// Bytes that lie in the directory already.
    pub stored_bytes: u64,
    /// Bytes that a broker needs in all.
    pub needed_bytes: u64,
    /// The size of a file of the log.
    pub segment_bytes: u64,
    /// The most that a file of this process may have.
    pub file_bytes_limit: Option<u64>,
    /// How many files may be open.
    pub open_files: Option<u64>,
    /// A broker has the log open.
    pub in_use: bool,
    /// The backend that a broker would choose.
    pub backend: String,
    /// Why.
    pub reason: String,
    /// Durable writes of 4 KiB.
    pub small: Sustained,
    /// Durable writes of 64 KiB.
    pub large: Sustained,
    /// The clock.
    pub clock: ClockFacts,
}

/// What a log with files of this size takes at least, or takes when it has become as long as it may.
#[must_use]
pub fn needed_bytes(segment_bytes: u64, retain_bytes: Option<u64>) -> u64 {
    let ahead = segment_bytes.saturating_mul(FILES_AHEAD);
    // A log is as long as it may be, and up to a file longer; queues, table and index take about a tenth of it.
    let log = retain_bytes.map_or(segment_bytes, |bytes| bytes.max(2 * segment_bytes).saturating_add(segment_bytes));
    log.saturating_add(log / 10).saturating_add(ahead)
}

type Rule = fn(&Facts) -> (Grade, String);

/// Judges everything, the same things in the same order each time.
#[must_use]
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let rules: [(&'static str, Rule); 9] = [
        ("io_uring", ring),
        ("direct I/O", direct_io),
        ("file system", filesystem),
        ("write cache", write_cache),
        ("memlock", memlock),
        ("space", space),
        ("limits", limits),
        ("clock", clock),
        ("durable writes", writes),
    ];
    rules
        .into_iter()
        .map(|(what, rule)| {
            let (grade, says) = rule(facts);
            Finding { what, grade, says }
        })
        .collect()
}

/// What it comes to, in a sentence.
#[must_use]
pub fn verdict(facts: &Facts, findings: &[Finding]) -> String {
    let names = |grade| {
        let found: Vec<&str> = findings.iter().filter(|found| found.grade == grade).map(|found| found.what).collect();
        found.join(", ")
    };
    let speed = format!(
        "acks here cost {}; expect about {}/s at {IN_FLIGHT} in flight ({IN_FLIGHT} messages of 1 KiB go in one durable write)",
        time(facts.small.p50_us),
        rounded(facts.large.per_s.saturating_mul(IN_FLIGHT)),
    );
    let (unfit, look) = (names(Grade::Unfit), names(Grade::Look));
    match (unfit.is_empty(), look.is_empty()) {
        (false, _) => format!("unfit, for its {unfit}: {speed}"),
        (true, false) => format!("fit, but look at {look}: {speed}"),
        (true, true) => format!("fit: {speed}"),
    }
}

fn good(says: impl Into<String>) -> (Grade, String) {
    (Grade::Good, says.into())
}

fn look(says: impl Into<String>) -> (Grade, String) {
    (Grade::Look, says.into())
}

fn unfit(says: impl Into<String>) -> (Grade, String) {
    (Grade::Unfit, says.into())
}

fn ring(facts: &Facts) -> (Grade, String) {
    match &facts.ring {
        Ok(()) => good(format!("available on {}; a broker would write by {} here", facts.kernel, facts.backend)),
        Err((why, remedy)) => look(format!(
            "{why}: appends keep their rate by plain system calls, but deep reads and recovery take a thread for each operation; \
             remedy: {remedy}"
        )),
    }
}

fn direct_io(facts: &Facts) -> (Grade, String) {
    if !facts.direct_io {
        return look("refused: files go through the page cache and are flushed, which is slower for large groups");
    }
    match facts.alignment {
        Some((memory, offset)) if offset as usize > IO_ALIGN || memory as usize > IO_ALIGN => unfit(format!(
            "it asks for an alignment of {memory}/{offset} bytes (memory/offset), and the log is written in blocks of {IO_ALIGN}"
        )),
        Some((memory, offset)) => good(format!("yes, aligned to {memory}/{offset} bytes (memory/offset)")),
        None => good(format!("yes; blocks of {IO_ALIGN} bytes are taken, of its alignment the kernel says nothing")),
    }
}

fn filesystem(facts: &Facts) -> (Grade, String) {
    let name = facts.filesystem.as_str();
    match name {
        "ext4" | "xfs" => good(name),
        "tmpfs" | "ramfs" => {
            unfit(format!("{name} is memory: nothing survives a power failure, and rates mean nothing"))
        }
        "overlay" | "overlayfs" | "aufs" => {
            unfit(format!("{name} is a container's own layer, which goes with the container: mount a volume there"))
        }
        "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "ceph" | "glusterfs" => look(format!(
            "{name} lies behind a network: what durable means is its server's word, a pause of the network stops all acks, and two \
             machines may take the log for theirs"
        )),
        "btrfs" | "zfs" | "bcachefs" => look(format!(
            "{name} copies on write: preallocation does not help, so flushes also write metadata; ext4 or xfs are faster"
        )),
        "vfat" | "exfat" | "msdos" => unfit(format!("{name} has no journal and no holes: use ext4 or xfs")),
        other if other.starts_with("fuse") => {
            look(format!("{other} is a program: what durable means is its word; test it by pulling the plug"))
        }
        other => look(format!("{other} is not one that is known here; ext4 and xfs are")),
    }
}

fn write_cache(facts: &Facts) -> (Grade, String) {
    let Some(disk) = &facts.disk else {
        return look(
            "unknown: there is no single disk to ask (memory, container layer or network); whether a flush reaches a medium cannot be told",
        );
    };
    let name = &disk.name;
    let fast = facts.small.count > 0 && facts.small.p50_us < DURABLE_US_MIN;
    match (disk.write_cache.as_str(), disk.fua) {
        _ if fast => look(format!(
            "{name} calls a write durable after {}: no medium is that fast, so a cache answers; make sure that it outlives a power failure",
            time(facts.small.p50_us)
        )),
        ("write through", _) => good(format!("{name} has none that could lose anything: what is written is durable")),
        ("write back", Some(true)) => {
            good(format!("{name} has a volatile one, and forces single writes to the medium (FUA)"))
        }
        ("write back", _) => good(format!(
            "{name} has a volatile one and no forced unit access (FUA): each durable write empties all of it, so keep --commit-depth at 1 \
             and other writers away"
        )),
        (other, _) => look(format!("{name}: {other}; whether a flush reaches the medium cannot be told")),
    }
}

fn memlock(facts: &Facts) -> (Grade, String) {
    match facts.memlock {
        None => good("not limited"),
        Some(bytes) if bytes >= MEMLOCK_MIN => good(ByteSize(bytes).to_string()),
        Some(bytes) if facts.ring.is_ok() => {
            good(format!("{}, and io_uring works: this kernel does not count its memory", ByteSize(bytes)))
        }
        Some(bytes) => look(format!(
            "{}: too little for io_uring on kernels before 5.12; raise it (`ulimit -l`, LimitMEMLOCK=)",
            ByteSize(bytes)
        )),
    }
}

fn space(facts: &Facts) -> (Grade, String) {
    let needed = facts.needed_bytes.saturating_sub(facts.stored_bytes);
    let Some(free) = facts.free_bytes else { return look("what is free cannot be told") };
    // Sizes in words are rounded down to whole units.
    let (free_text, needed_text) = (mib(free), mib(needed));
    if free < needed {
        return unfit(format!("{free_text} are free, and a broker needs {needed_text} more than lies there"));
    }
    if free < needed.saturating_mul(ROOMY) {
        return look(format!(
            "{free_text} are free, {needed_text} are needed: there is little room for groups that fall behind; sends are refused before it is full"
        ));
    }
    good(format!("{free_text} are free, {needed_text} are needed"))
}

fn limits(facts: &Facts) -> (Grade, String) {
    if let Some(limit) = facts.file_bytes_limit.filter(|limit| *limit < facts.segment_bytes) {
        return unfit(format!(
            "a file may have {} here (RLIMIT_FSIZE), and one of the log has {}",
            ByteSize(limit),
            ByteSize(facts.segment_bytes)
        ));
    }
    if facts.in_use {
        return look(
            "a broker has this log open: what was measured is what it left over, and for this time it had less",
        );
    }
    match facts.open_files {
        Some(count) if count < OPEN_FILES_MIN => {
            look(format!("{count} files may be open, and every connection is one (`ulimit -Hn`, LimitNOFILE=)"))
        }
        Some(count) => good(format!("{count} files may be open; files may be as long as they must")),
        None => good("files may be as long as they must"),
    }
}

fn clock(facts: &Facts) -> (Grade, String) {
    let clock = &facts.clock;
    let now = When { ms: clock.now_ms };
    if clock.now_ms < PAST_MS {
        return unfit(format!(
            "it is {now} here, which is wrong: due times and ages are by the wall clock; set it (NTP)"
        ));
    }
    if let Some(newest) = clock.newest_file_ms.filter(|newest| *newest > clock.now_ms.saturating_add(FUTURE_MS)) {
        return look(format!(
            "it is {now} here, but a file in the directory is from {}: the clock was set back, or was wrong",
            When { ms: newest }
        ));
    }
    if clock.stepped_ms.abs() > STEP_MS_MAX {
        return look(format!("it was set by {} ms while it was looked at: let NTP slew it", clock.stepped_ms));
    }
    if clock.reading_ns > READING_NS_MAX {
        return look(format!(
            "looking at it costs {} ns: it is not read without the kernel (see current_clocksource; tsc or arch_sys_counter are fast)",
            clock.reading_ns
        ));
    }
    good(format!("{now}, steady, {} ns for a look", clock.reading_ns))
}

fn writes(facts: &Facts) -> (Grade, String) {
    let (small, large) = (&facts.small, &facts.large);
    let one = |name: &str, one: &Sustained| {
        format!(
            "{name}: {}/s, half within {}, 99 % within {}, longest {}",
            one.per_s,
            time(one.p50_us),
            time(one.p99_us),
            time(one.max_us)
        )
    };
    if small.count == 0 || large.count == 0 {
        return look("not measured");
    }
    let both = format!("{}; {}", one("4 KiB", small), one("64 KiB", large));
    let felt = |one: &Sustained| one.p99_us > TAIL_US_MIN && one.p99_us > one.p50_us.saturating_mul(TAIL_FACTOR);
    if felt(small) || felt(large) {
        return look(format!(
            "{both}; one in a hundred takes far longer than the others: something else uses the disk, or it tidies up"
        ));
    }
    good(both)
}

/// A time as people say it.
pub(super) fn time(us: u64) -> String {
    match us {
        0..10_000 => format!("{us} µs"),
        10_000..10_000_000 => format!("{} ms", us / 1000),
        _ => format!("{} s", us / 1_000_000),
    }
}

/// Two digits are all that a forecast is good for.
fn rounded(number: u64) -> u64 {
    let mut unit = 1;
    while number / unit >= 100 {
        unit *= 10;
    }
    number / unit * unit
}

fn mib(bytes: u64) -> String {
    if bytes < 10 << 30 { format!("{} MiB", bytes >> 20) } else { format!("{} GiB", bytes >> 30) }
}
