//! How durable writes go on over seconds: what a short probe cannot show, such as a cache that fills up, or a disk that stops to tidy.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::{LARGE, Probe, SMALL, Turns, facts, prepare};
use crate::clock::Clock;
use crate::io::file;
use crate::units::to_u64;

/// What durable writes of one size reached, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sustained {
    /// Bytes of each.
    pub bytes: u64,
    /// How many there were.
    pub count: u64,
    /// How many there were in a second, as an average over their time.
    pub per_s: u64,
    /// Half of them took no longer, in microseconds.
    pub p50_us: u64,
    /// 99 of 100 took no longer, in microseconds.
    pub p99_us: u64,
    /// None took longer, in microseconds.
    pub max_us: u64,
}

/// Writes durably to the existing directory `dir` for `time`, by the backend that `probe` chose for it: one write of 4 KiB or 64 KiB in
/// flight, the two sizes in turns. Leaves nothing behind.
///
/// # Errors
/// The kernel's, when the directory cannot be written any more.
pub fn sustain(dir: &Path, probe: &Probe, time: Duration, clock: &dyn Clock) -> io::Result<[Sustained; 2]> {
    let (_, backends) = facts(dir)?;
    let backend = backends.into_kind(probe.kind);
    let path = dir.join(format!("probe-{}.tmp", std::process::id()));
    drop(file::remove(&path));
    let prepared = prepare(&[&*backend], &path);
    // The name goes before the first write, so that nothing is left behind even by a crash.
    drop(file::remove(&path));
    let mut spent = [Duration::ZERO; 2];
    let Some(mut runner) = prepared?.pop() else { return Ok([Sustained::default(); 2]) };
    let start = clock.monotonic();
    while clock.monotonic() - start < time {
        for (turns, spent) in [&mut runner.small, &mut runner.large].into_iter().zip(&mut spent) {
            let began = clock.monotonic();
            turns.run(&mut *runner.queue, &runner.file, clock)?;
            *spent += clock.monotonic() - began;
        }
    }
    Ok([summary(SMALL, &mut runner.small, spent[0]), summary(LARGE, &mut runner.large, spent[1])])
}

fn summary(bytes: usize, turns: &mut Turns, spent: Duration) -> Sustained {
    let latencies = &mut turns.latencies_us;
    latencies.sort_unstable();
    let count = latencies.len();
    let at = |part: usize| latencies.get((count * part / 100).min(count.saturating_sub(1))).copied().unwrap_or(0);
    Sustained {
        bytes: to_u64(bytes),
        count: to_u64(count),
        per_s: to_u64(count) * 1_000_000 / super::micros(spent).max(1),
        p50_us: at(50),
        p99_us: at(99),
        max_us: latencies.last().copied().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::io::probe::probe;

    #[test]
    fn a_longer_look_says_how_writes_are_spread_and_leaves_nothing() {
        let (dir, clock) = (tempfile::tempdir().expect("a temporary directory"), SystemClock::new());
        let found = probe(dir.path(), &clock).expect("the directory can be written");
        let both = sustain(dir.path(), &found, Duration::from_millis(1), &clock).expect("it still can");
        for (one, bytes) in both.iter().zip([4096, 65_536]) {
            assert!(one.bytes == bytes && one.count > 0 && one.per_s > 0, "{one:?}");
            assert!(one.p50_us <= one.p99_us && one.p99_us <= one.max_us, "{one:?}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("it exists").count(), 0);
    }

    #[test]
    fn shares_of_writes_are_counted_from_the_shortest() {
        let mut turns = Turns::new(4096);
        turns.latencies_us = (1..=200).rev().collect();
        let one = summary(4096, &mut turns, Duration::from_secs(2));
        assert_eq!((one.count, one.per_s, one.p50_us, one.p99_us, one.max_us), (200, 100, 101, 199, 200));
        assert_eq!(
            summary(4096, &mut Turns::new(4096), Duration::ZERO),
            Sustained { bytes: 4096, ..Sustained::default() }
        );
    }
}
