//! What goes on beside durable appends, and what it costs them: a reader that is far behind, a filler that writes zeros, checkpoints.
//!
//! Each is measured in turns with the same appends alone, on the same store, and the median of the turns counts: one thread keeps 64
//! messages in flight, each in a write batch of its own, acknowledged once durable.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anchorlog_engine::units::{to_u64, to_usize};
use anchorlog_engine::{
    Append, Engine, EngineOptions, Fetch, FetchStatus, Flush, Lsn, Queue, QueueOffset, WaitError, Watermark,
    WriteBatch, limits,
};
use hdrhistogram::Histogram;

use crate::cli::{Beside, BesidePart};
use crate::clock::{self, SECOND_NS};
use crate::engine_rows;
use crate::error::PerfError;
use crate::long_log::{self, seconds_since};
use crate::{out, place};

/// Messages in flight.
const OUTSTANDING: usize = 64;
const ROUNDS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(2);
/// Bytes of a message while zeros are written: small enough for the filler to stay ahead of the log.
const SMALL: usize = 200;
/// Bytes of segments that are there before appends and zeros are measured beside each other.
const AHEAD_BYTES: u64 = 512 << 20;
/// Spare segments while zeros are written: as many as there may be.
const SPARE_COUNT: usize = limits::SPARE_COUNT_MAX;

/// What became of appends.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    per_s: f64,
    /// Log bytes a second.
    bytes_per_s: f64,
    p99_us: f64,
}

/// Several of them.
#[derive(Debug, Default)]
struct Loads(Vec<Load>);

impl Loads {
    fn median(&self, of: impl Fn(&Load) -> f64) -> f64 {
        median(self.0.iter().map(of).collect())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Room that a run takes at most, about.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a run is neither long nor negative")]
pub(crate) fn room_bytes(wished: &Beside) -> u64 {
    /// What durable appends write in a second, on a disk that is quicker than most.
    const PER_SECOND: f64 = 500e6;
    let appended = wished.seconds * PER_SECOND * 2.0 * ROUNDS as f64;
    place::SPACE_BYTES + (wished.behind_mib << 20) + appended as u64
}

/// Measures and prints.
///
/// # Errors
/// Whatever ends it early.
pub(crate) fn measure(wished: &Beside, dir: &Path) -> Result<(), PerfError> {
    let dir = dir.join("beside");
    let run = || {
        for part in &wished.parts {
            engine_rows::remove_store(&dir)?;
            match part {
                BesidePart::Reader => beside_reader(wished, &dir)?,
                BesidePart::Filler => beside_filler(wished, &dir)?,
                BesidePart::Checkpoints => beside_checkpoints(wished, &dir)?,
            }
        }
        Ok(())
    };
    let outcome = run();
    drop(std::fs::remove_dir_all(&dir));
    outcome
}

/// Keeps messages in flight, in queues in turn, until `until_ns`.
fn produce(engine: &Engine, queues: &[Queue], size: usize, keyed: bool, until_ns: u64) -> Result<Load, PerfError> {
    let payload = vec![0x5A; size];
    let mut batches: Vec<WriteBatch> = (0..OUTSTANDING).map(|_| WriteBatch::new()).collect();
    let mut flight: VecDeque<(Lsn, u64)> = VecDeque::with_capacity(OUTSTANDING);
    let mut latencies: Histogram<u64> = crate::meter::latencies();
    let (mut number, mut outcomes) = (0_u64, Vec::with_capacity(OUTSTANDING));
    let (begun, first) = (clock::now_ns(), engine.watermarks().assigned);
    let mut acked = 0_u64;
    while clock::now_ns() < until_ns {
        let room = OUTSTANDING - flight.len();
        for (batch, number) in batches[..room].iter_mut().zip(number..) {
            batch.clear();
            let queue = &queues[to_usize(number % to_u64(queues.len()))];
            let key = number.to_le_bytes();
            let keys: &[&[u8]] = if keyed { &[&key] } else { &[] };
            let added = batch.append(&Append { queue, tag: 0, keys, attributes: &[], payload: &[&payload] });
            added.map_err(|error| PerfError::Append(error.into()))?;
        }
        outcomes.clear();
        let sent_ns = clock::now_ns();
        let taken = engine.append_all(&mut batches[..room], &mut outcomes)?;
        number += to_u64(taken);
        flight.extend(outcomes.iter().map(|outcome| (outcome.end_lsn, sent_ns)));
        match flight.front() {
            Some((oldest, _)) => engine.wait(Watermark::Acked, *oldest, Some(PATIENCE))?,
            None => match engine.wait(Watermark::Written, Lsn::MAX, Some(RETRY)) {
                Ok(()) | Err(WaitError::TimedOut) => {}
                Err(error) => return Err(error.into()),
            },
        }
        let (end, now) = (engine.watermarks().acked, clock::now_ns());
        while let Some((lsn, since)) = flight.front().copied()
            && lsn <= end
        {
            flight.pop_front();
            acked += 1;
            latencies.saturating_record(now - since);
        }
    }
    let seconds = seconds_since(begun);
    let bytes = engine.watermarks().assigned.since(first);
    Ok(Load {
        per_s: acked as f64 / seconds,
        bytes_per_s: bytes as f64 / seconds,
        p99_us: latencies.value_at_quantile(0.99) as f64 / 1e3,
    })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a run is neither long nor negative")]
fn until(seconds: f64) -> u64 {
    clock::now_ns() + (seconds * SECOND_NS as f64) as u64
}

fn durable() -> EngineOptions {
    EngineOptions::default().with_flush(Flush::Sync)
}

/// Says what the one cost the other.
fn compare(what: &str, alone: &Loads, beside: &Loads) {
    let (rates, tails) = (|load: &Load| load.per_s, |load: &Load| load.p99_us);
    out::line(format_args!(
        "{what}: {:.0}/s alone, {:.0}/s beside it: {:.2}; p99 {:.0} µs alone, {:.0} µs beside it: {:.2} times",
        alone.median(rates),
        beside.median(rates),
        beside.median(rates) / alone.median(rates),
        alone.median(tails),
        beside.median(tails),
        beside.median(tails) / alone.median(tails)
    ));
}

fn beside_reader(wished: &Beside, dir: &Path) -> Result<(), PerfError> {
    // Written with one flush for many, and read as any log: the reader's queue is not the one that is appended to.
    let (old, messages) = {
        let engine = Engine::open(dir, long_log::options())?;
        let old = long_log::queues(&engine, 1)?;
        let end = wished.behind_mib << 20;
        let messages = long_log::append(&engine, &old, wished.size, 0, |_| engine.watermarks().assigned.0 < end)?;
        engine.close()?;
        (b"topic/0", messages)
    };
    let engine = Engine::open(dir, durable())?;
    engine_rows::wait_until_quiet(dir);
    let (old, live) = (engine.queue(old)?, [engine.queue(b"live")?]);
    produce(&engine, &live, wished.size, false, until(wished.seconds))?;
    let (mut alone, mut beside, mut reads) = (Loads::default(), Loads::default(), Vec::new());
    for _ in 0..ROUNDS {
        alone.0.push(produce(&engine, &live, wished.size, false, until(wished.seconds))?);
        let stop = AtomicBool::new(false);
        let (load, read) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| read_behind(&engine, &old, messages, &stop));
            let load = produce(&engine, &live, wished.size, false, until(wished.seconds));
            stop.store(true, Ordering::Release);
            (load, engine_rows::join(reader))
        });
        beside.0.push(load?);
        reads.push(read?);
    }
    compare("durable appends, and a reader far behind", &alone, &beside);
    let live_rate = beside.median(|load| load.bytes_per_s);
    let read = median(reads);
    out::line(format_args!(
        "the reader: {:.2} GiB/s of log, {:.1} times what is appended meanwhile",
        read / f64::from(1 << 30),
        read / live_rate
    ));
    engine.close()?;
    Ok(())
}

/// Reads a queue from its beginning, and again, until told to stop; log bytes a second.
fn read_behind(engine: &Engine, queue: &Queue, messages: u64, stop: &AtomicBool) -> Result<f64, PerfError> {
    let (begun, mut bytes, mut from) = (clock::now_ns(), 0, QueueOffset(0));
    let mut last = None;
    while !stop.load(Ordering::Acquire) {
        let fetch = Fetch { messages_max: 4096, bytes_max: 1 << 20, scan_max: 4096, ..Fetch::new(queue, from) };
        let found = engine.fetch(&fetch)?;
        if found.status != FetchStatus::Found {
            return Err(PerfError::Report(format!("at {from}: {:?}", found.status)));
        }
        if let (Some(first), Some(end)) = (found.messages.first(), found.messages.last()) {
            // From record to record: what lies between belongs to the frames, and was read as well.
            bytes += end.lsn.since(last.unwrap_or(first.lsn));
            last = Some(end.lsn);
        }
        from = found.next;
        if from.0 >= messages {
            (from, last) = (QueueOffset(0), None);
        }
    }
    Ok(bytes as f64 / seconds_since(begun))
}

fn beside_filler(wished: &Beside, dir: &Path) -> Result<(), PerfError> {
    let (mut alone, mut beside) = (Loads::default(), Loads::default());
    let (mut rates, mut unwritten) = (Vec::new(), 0);
    for _ in 0..ROUNDS {
        engine_rows::remove_store(dir)?;
        let engine = Engine::open(dir, durable().with_spare_count(SPARE_COUNT))?;
        let live = [engine.queue(b"live")?];
        produce(&engine, &live, SMALL, false, until(0.5))?;
        // Appends take what is ready: a log that caught up with the filler would go on without zeros, and that is another cost.
        while filled_bytes(dir) < AHEAD_BYTES {
            clock::sleep(Duration::from_millis(20));
        }
        let (begun, before) = (clock::now_ns(), filled_bytes(dir));
        beside.0.push(produce(&engine, &live, SMALL, false, until(wished.seconds))?);
        let (after, seconds) = (filled_bytes(dir), seconds_since(begun));
        rates.push(after.saturating_sub(before) as f64 / seconds);
        unwritten += engine.stats().unwritten_segments;
        while half_made(dir) {
            clock::sleep(Duration::from_millis(20));
        }
        engine_rows::wait_until_quiet(dir);
        alone.0.push(produce(&engine, &live, SMALL, false, until(wished.seconds))?);
        engine.close()?;
    }
    compare("durable appends, and zeros for segments to come", &alone, &beside);
    out::line(format_args!(
        "the filler: {:.0} MiB/s; {unwritten} segments were used without zeros",
        median(rates) / f64::from(1 << 20)
    ));
    Ok(())
}

fn names(dir: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn half_made(dir: &Path) -> bool {
    names(dir).iter().any(|path| path.extension().is_some_and(|extension| extension == "tmp"))
}

/// Bytes of the segments that are there: each stands for as many zeros.
fn filled_bytes(dir: &Path) -> u64 {
    let segments = names(dir).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "seg"));
    segments.filter_map(|path| path.metadata().ok()).map(|found| found.len()).sum()
}

fn beside_checkpoints(wished: &Beside, dir: &Path) -> Result<(), PerfError> {
    const QUEUES: u32 = 1000;
    let (mut alone, mut beside, mut written) = (Loads::default(), Loads::default(), 0);
    for _ in 0..ROUNDS {
        for (interval, loads) in [(None, &mut alone), (Some(Duration::from_millis(500)), &mut beside)] {
            engine_rows::remove_store(dir)?;
            let engine = Engine::open(dir, durable().with_checkpoint_interval(interval))?;
            let live = long_log::queues(&engine, QUEUES)?;
            engine_rows::wait_until_quiet(dir);
            produce(&engine, &live, SMALL, true, until(0.5))?;
            loads.0.push(produce(&engine, &live, SMALL, true, until(wished.seconds))?);
            written += engine.stats().checkpoints;
            engine.close()?;
        }
    }
    compare(&format!("durable appends in {QUEUES} queues with keys, and {written} checkpoints"), &alone, &beside);
    Ok(())
}
