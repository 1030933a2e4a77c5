//! What a long log costs when it is opened, and many queues when they are appended to.
//!
//! 1. One queue against many, turn by turn on stores of their own: the median of the turns counts.
//! 2. A log of so many messages and table entries is written (`long_log`); a process of its own opens it from its checkpoint, reads,
//!    appends and looks things up, and another one opens it without the checkpoint, which reads all of it. Beside that stands how fast
//!    this disk reads the very same files from front to back.
//! 3. A broker finds messages by their keys (`keys`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anchorlog_engine::io::threads::ThreadsBackend;
use anchorlog_engine::io::uring::UringBackend;
use anchorlog_engine::io::{AlignedBuf, IoAction, IoBackend, IoOp, OpenMode, Wait};
use anchorlog_engine::units::{to_u64, to_usize};
use anchorlog_engine::{Engine, Watermark};

use crate::cli::{Opening, OpeningPart};
use crate::clock::{self, SECOND_NS};
use crate::error::PerfError;
use crate::long_log::{self, Shape, seconds_since};
use crate::{keys, out, place};

const ROUNDS: usize = 3;
const READ_BYTES: u64 = 1 << 20;
const READ_DEPTH: usize = 4;

/// Room that a run takes at most, about.
pub(crate) fn room_bytes(wished: &Opening) -> u64 {
    /// What a message and a table entry take in the log and in the derived store, beside their own bytes.
    const BESIDE: u64 = 200;
    place::SPACE_BYTES + wished.messages * (to_u64(wished.size) + BESIDE) + wished.entries * 2 * BESIDE
}

/// Measures and prints.
///
/// # Errors
/// Whatever ends it early.
pub(crate) fn measure(wished: &Opening, dir: &Path) -> Result<(), PerfError> {
    let dir = dir.join("opening");
    let run = || {
        if wished.parts.contains(&OpeningPart::Rates) {
            append_rates(wished, &dir)?;
        }
        if wished.parts.contains(&OpeningPart::Open) {
            openings(wished, &dir)?;
        }
        if wished.parts.contains(&OpeningPart::Keys) {
            keys::measure(wished, &dir)?;
        }
        Ok(())
    };
    let outcome = run();
    drop(std::fs::remove_dir_all(&dir));
    outcome
}

fn append_rates(wished: &Opening, dir: &Path) -> Result<(), PerfError> {
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (count, rates) in [1, wished.queues].into_iter().zip(&mut rates) {
            drop(std::fs::remove_dir_all(dir));
            let engine = Engine::open(dir, long_log::options().with_retain_bytes(Some(512 << 20)))?;
            let queues = long_log::queues(&engine, count)?;
            long_log::append(&engine, &queues, wished.size, 0, |count| count < 20 * u64::from(wished.queues))?;
            let begun = clock::now_ns();
            let until = begun + 2 * SECOND_NS;
            let appended = long_log::append(&engine, &queues, wished.size, 0, |_| clock::now_ns() < until)?;
            engine.wait(Watermark::Dispatched, engine.watermarks().acked, None)?;
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
    let shape = Shape { messages: wished.messages, size: wished.size, queues: wished.queues, entries: wished.entries };
    let begun = clock::now_ns();
    let bytes = shape.write(dir)?;
    out::line(format_args!(
        "log: {} messages of {} bytes in {} queues, {} table entries, {:.1} GiB, written in {:.1} s",
        shape.messages,
        shape.size,
        shape.queues,
        shape.entries,
        bytes as f64 / (1_u64 << 30) as f64,
        seconds_since(begun)
    ));
    let store = dir.join("DERIVED");
    let store_bytes = || std::fs::metadata(&store).map_or(0, |found| found.len());
    out::line(format_args!("derived store: {} MiB", store_bytes() >> 20));
    let read = read_rate(dir, u64::MAX)?;
    out::line(format_args!("disk: sequential read of its segments {:.0} MB/s (1 MiB, depth {READ_DEPTH})", read / 1e6));

    let found = shape.reopen(dir, true)?;
    out::line(format_args!(
        "open from the checkpoint: {:.3} s ({}), peak memory {} MiB",
        found.seconds, found.line, found.opened_mib
    ));
    if let Some(served) = found.served {
        out::line(format_args!(
            "serve: {:.0} cold reads/s, {:.0} table gets/s, {:.0} appends/s, {:.0} table updates/s, {} checkpoints; peak memory {} MiB",
            served.reads, served.gets, served.appends, served.updates, served.checkpoints, found.served_mib
        ));
    }
    drop(std::fs::remove_file(&store));
    let found = shape.reopen(dir, false)?;
    let rate = bytes as f64 / found.seconds;
    out::line(format_args!(
        "open without it ({} MiB): {:.3} s, {:.0} MB/s, {:.2} of the disk's read ({}), peak memory {} MiB",
        store_bytes() >> 20,
        found.seconds,
        rate / 1e6,
        rate / read,
        found.line,
        found.opened_mib
    ));
    Ok(())
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
