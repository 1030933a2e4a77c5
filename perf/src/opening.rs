//! What a long log costs when it is opened, and many queues when they are appended to.
//!
//! 1. One queue against many, turn by turn on stores of their own: the median of the turns counts.
//! 2. A log of so many messages is written; then it is opened from its checkpoint, and once more without it, which reads all of it. Beside
//!    that stands how fast this disk reads the very same files from front to back.
//!
//! What is deliberately not here: messages that prove themselves; `verify` looks after that for the comparison's rows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anchorlog_engine::io::threads::ThreadsBackend;
use anchorlog_engine::io::uring::UringBackend;
use anchorlog_engine::io::{AlignedBuf, IoAction, IoBackend, IoOp, OpenMode, Wait};
use anchorlog_engine::units::{to_u64, to_usize};
use anchorlog_engine::{Append, Engine, EngineOptions, Flush, Queue, QueueOffset, WriteBatch};

use crate::cli::Opening;
use crate::clock::{self, SECOND_NS};
use crate::error::PerfError;
use crate::out;

const ROUNDS: usize = 3;
const READ_BYTES: u64 = 1 << 20;
const READ_DEPTH: usize = 4;
/// Batches appended under one lock.
const AT_ONCE: usize = 64;

fn seconds_since(begun_ns: u64) -> f64 {
    (clock::now_ns() - begun_ns) as f64 / SECOND_NS as f64
}

fn options() -> EngineOptions {
    EngineOptions::default().with_flush(Flush::async_default())
}

/// Measures and prints.
///
/// # Errors
/// Whatever ends it early.
pub(crate) fn measure(wished: &Opening, dir: &Path) -> Result<(), PerfError> {
    let dir = dir.join("opening");
    let run = || {
        append_rates(wished, &dir)?;
        openings(wished, &dir)
    };
    let outcome = run();
    drop(std::fs::remove_dir_all(&dir));
    outcome
}

fn queues(engine: &Engine, count: u32) -> Result<Vec<Queue>, PerfError> {
    (0..count).map(|number| Ok(engine.queue(format!("topic/{number}").as_bytes())?)).collect()
}

/// Appends messages to queues in turn until `more` says no; how many.
fn append(engine: &Engine, queues: &[Queue], size: usize, mut more: impl FnMut(u64) -> bool) -> Result<u64, PerfError> {
    let payload = vec![0x5A; size];
    let mut batches: Vec<WriteBatch> = (0..AT_ONCE).map(|_| WriteBatch::new()).collect();
    let (mut outcomes, mut count) = (Vec::new(), 0);
    while more(count) {
        for (batch, at) in batches.iter_mut().zip(count..) {
            batch.clear();
            let queue = &queues[to_usize(at % to_u64(queues.len()))];
            let added = batch.append(&Append { queue, tag: 0, keys: &[], attributes: &[], payload: &[&payload] });
            added.map_err(|error| PerfError::Append(error.into()))?;
        }
        let mut done = 0;
        while done < AT_ONCE {
            outcomes.clear();
            let taken = engine.append_all(&mut batches[done..], &mut outcomes)?;
            done += taken;
            if taken == 0 {
                let end = engine.watermarks();
                engine.wait(anchorlog_engine::Watermark::Written, end.written.plus(1), None)?;
            }
        }
        count += to_u64(AT_ONCE);
    }
    Ok(count)
}

fn append_rates(wished: &Opening, dir: &Path) -> Result<(), PerfError> {
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (count, rates) in [1, wished.queues].into_iter().zip(&mut rates) {
            drop(std::fs::remove_dir_all(dir));
            let engine = Engine::open(dir, options().with_retain_bytes(Some(512 << 20)))?;
            let queues = queues(&engine, count)?;
            append(&engine, &queues, wished.size, |count| count < 20 * u64::from(wished.queues))?;
            let begun = clock::now_ns();
            let until = begun + 2 * SECOND_NS;
            let appended = append(&engine, &queues, wished.size, |_| clock::now_ns() < until)?;
            engine.wait(anchorlog_engine::Watermark::Dispatched, engine.watermarks().acked, None)?;
            rates.push(appended as f64 / seconds_since(begun));
            engine.close()?;
        }
    }
    let median = |rates: &mut Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    let [one, many] = rates.each_mut().map(median);
    out::line(format_args!(
        "append, asynchronous, in queues too: 1 queue {one:.0}/s, {} queues {many:.0}/s, ratio {:.2}",
        wished.queues,
        many / one
    ));
    Ok(())
}

fn openings(wished: &Opening, dir: &Path) -> Result<(), PerfError> {
    drop(std::fs::remove_dir_all(dir));
    let engine = Engine::open(dir, options())?;
    let named = queues(&engine, wished.queues)?;
    let begun = clock::now_ns();
    append(&engine, &named, wished.size, |count| count < wished.messages)?;
    let end = engine.flush()?;
    let (bytes, first) = (end.0, engine.range(&named[0]).max);
    out::line(format_args!(
        "log: {} messages of {} bytes in {} queues, {:.1} GiB, written in {:.1} s",
        wished.messages,
        wished.size,
        wished.queues,
        bytes as f64 / (1_u64 << 30) as f64,
        seconds_since(begun)
    ));
    engine.close()?;

    let read = read_rate(dir, u64::MAX)?;
    out::line(format_args!("disk: sequential read of its segments {:.0} MB/s (1 MiB, depth {READ_DEPTH})", read / 1e6));
    let open = || -> Result<(f64, String), PerfError> {
        let begun = clock::now_ns();
        let engine = Engine::open(dir, options())?;
        let found = engine.range(&named_again(&engine)?).max;
        let took = seconds_since(begun);
        if found != first {
            return Err(PerfError::Report(format!("the first queue ends at {found}, and did at {first}")));
        }
        let line = engine.info().recovery.clone();
        engine.close()?;
        Ok((took, line))
    };
    let (took, line) = open()?;
    out::line(format_args!("open from the checkpoint: {took:.3} s ({line}), peak memory {} MiB", peak_mib()));
    let store = dir.join("DERIVED");
    let size = std::fs::metadata(&store).map_or(0, |found| found.len());
    drop(std::fs::remove_file(&store));
    let (took, line) = open()?;
    let rate = bytes as f64 / took;
    out::line(format_args!(
        "open without it ({} MiB): {took:.3} s, {:.0} MB/s, {:.2} of the disk's read ({line}), peak memory {} MiB",
        size >> 20,
        rate / 1e6,
        rate / read,
        peak_mib()
    ));
    Ok(())
}

fn named_again(engine: &Engine) -> Result<Queue, PerfError> {
    let queue = engine.queue(b"topic/0")?;
    debug_assert!(engine.range(&queue).min == QueueOffset(0));
    Ok(queue)
}

/// Most memory that this process ever had, as the kernel counts it.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) >> 10
}

/// Bytes a second at which this disk gives back the segments of a log, from front to back, `most` bytes of them at most.
///
/// # Errors
/// The kernel's.
pub(crate) fn read_rate(dir: &Path, most: u64) -> Result<f64, PerfError> {
    let on = |what: &'static str, path: &Path| {
        let path: PathBuf = path.to_path_buf();
        move |source| PerfError::Io { what, path, source }
    };
    let backend: Arc<dyn IoBackend> = match UringBackend::new() {
        Ok(uring) => Arc::new(uring),
        Err(_) => Arc::new(ThreadsBackend::new()),
    };
    let names = backend.list(dir).map_err(on("listing", dir))?;
    let (begun, mut bytes) = (clock::now_ns(), 0);
    // Segments are named by where they begin; what is not filled yet has another name.
    let mut segments: Vec<&String> =
        names.iter().filter(|name| name.ends_with(".seg") && name.starts_with(char::is_numeric)).collect();
    segments.sort();
    for name in segments {
        if bytes >= most {
            break;
        }
        let path = dir.join(name);
        let file = backend.open(&path, OpenMode::Existing).map_err(on("opening", &path))?;
        let len = file.len().map_err(on("reading", &path))?;
        let mut queue = backend.queue(READ_DEPTH).map_err(on("reading", &path))?;
        let (mut at, mut done) = (0, Vec::new());
        while at < len || queue.in_flight() > 0 {
            while at < len && queue.in_flight() < READ_DEPTH {
                let size = READ_BYTES.min(len - at);
                queue.submit(IoOp::read(at, Arc::clone(&file), at, AlignedBuf::zeroed(to_usize(size))));
                at += size;
            }
            queue.reap(Wait::One, &mut done);
            for completion in done.drain(..) {
                completion.result.map_err(on("reading", &path))?;
                if let IoAction::Read { buf, .. } = &completion.op.action {
                    bytes += to_u64(buf.len());
                }
            }
        }
    }
    Ok(bytes as f64 / seconds_since(begun))
}
