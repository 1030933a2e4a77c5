//! A log of so many messages in so many queues, beside a table of so many entries: how it is written, and what a process of its own makes
//! of it, so that the memory that is counted is that of opening and serving alone.
//!
//! 1. Message n is in queue n modulo the number of queues. Entry k comes into the log at a place that has nothing to do with its key.
//! 2. What is read is compared with what was written, by its place in it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anchorlog_engine::units::{to_u64, to_usize};
use anchorlog_engine::{
    Append, Engine, EngineOptions, Fetch, FetchStatus, Flush, Put, Queue, QueueOffset, WaitError, Watermark, WriteBatch,
};
use serde::{Deserialize, Serialize};

use crate::cli::Reopen;
use crate::clock::{self, SECOND_NS};
use crate::error::PerfError;
use crate::out;

/// Name of the command that does what a process of its own does.
pub(crate) const REOPEN: &str = "reopen";
/// Batches appended under one lock.
const AT_ONCE: usize = 64;
/// Table entries that one batch puts.
const PUTS_PER_BATCH: u64 = 64;
const VALUE_BYTES: usize = 40;
/// How long an append waits for others to make room before it is tried again.
const RETRY: Duration = Duration::from_millis(2);
/// What is asked of a log that was opened again.
const READS: u64 = 500;
const GETS: u64 = 100_000;
const APPENDS: u64 = 1_000_000;
const UPDATES: u64 = 400_000;

/// What a log is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) messages: u64,
    pub(crate) size: usize,
    pub(crate) queues: u32,
    pub(crate) entries: u64,
}

/// What a process found that opened a log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Reopened {
    /// Seconds until the first answer.
    pub(crate) seconds: f64,
    /// What recovery said.
    pub(crate) line: String,
    /// Most memory until then, in MiB.
    pub(crate) opened_mib: u64,
    /// Most memory until it was closed.
    pub(crate) served_mib: u64,
    pub(crate) served: Option<Served>,
}

/// How fast it served, a second.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Served {
    /// Reads of up to 32 messages from the disk.
    pub(crate) reads: f64,
    /// Table entries, mostly from the disk.
    pub(crate) gets: f64,
    /// Messages, with all queues in turn.
    pub(crate) appends: f64,
    /// New values of table entries, written in batches.
    pub(crate) updates: f64,
    pub(crate) checkpoints: u64,
}

pub(crate) fn options() -> EngineOptions {
    EngineOptions::default().with_flush(Flush::async_default())
}

/// Seconds since a moment.
pub(crate) fn seconds_since(begun_ns: u64) -> f64 {
    (clock::now_ns() - begun_ns) as f64 / SECOND_NS as f64
}

/// The queues, in their order.
///
/// # Errors
/// The engine's.
pub(crate) fn queues(engine: &Engine, count: u32) -> Result<Vec<Queue>, PerfError> {
    (0..count).map(|number| Ok(engine.queue(format!("topic/{number}").as_bytes())?)).collect()
}

/// Appends all batches, waiting where there is no room.
fn append_all(engine: &Engine, batches: &mut [WriteBatch]) -> Result<(), PerfError> {
    let (mut done, mut outcomes) = (0, Vec::with_capacity(batches.len()));
    while done < batches.len() {
        outcomes.clear();
        let taken = engine.append_all(&mut batches[done..], &mut outcomes)?;
        done += taken;
        if taken == 0 {
            let written = engine.watermarks().written;
            match engine.wait(Watermark::Written, written.plus(1), Some(RETRY)) {
                Ok(()) | Err(WaitError::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Appends messages to queues in turn, from number `first` on, until `more` says no; how many.
///
/// # Errors
/// The engine's.
pub(crate) fn append(
    engine: &Engine,
    queues: &[Queue],
    size: usize,
    first: u64,
    mut more: impl FnMut(u64) -> bool,
) -> Result<u64, PerfError> {
    let mut payload = vec![0x5A; size];
    let mut batches: Vec<WriteBatch> = (0..AT_ONCE).map(|_| WriteBatch::new()).collect();
    let mut count = 0;
    while more(count) {
        for (batch, number) in batches.iter_mut().zip(first + count..) {
            batch.clear();
            payload[..8].copy_from_slice(&number.to_le_bytes());
            let queue = &queues[to_usize(number % to_u64(queues.len()))];
            let added = batch.append(&Append { queue, tag: 0, keys: &[], attributes: &[], payload: &[&payload] });
            added.map_err(|error| PerfError::Append(error.into()))?;
        }
        append_all(engine, &mut batches)?;
        count += to_u64(AT_ONCE);
    }
    Ok(count)
}

/// The n-th of a walk through all entries that visits each once.
fn scattered(number: u64, entries: u64) -> u64 {
    /// Prime, so that a number of entries has no factor in common with it.
    const STEP: u64 = 2_654_435_761;
    u64::try_from(u128::from(number) * u128::from(STEP) % u128::from(entries)).unwrap_or(0)
}

fn entry_key(entry: u64) -> String {
    format!("entry/{entry:010}")
}

/// Puts entries `numbers` of the walk.
fn put(engine: &Engine, entries: u64, numbers: std::ops::Range<u64>, version: u8) -> Result<(), PerfError> {
    let mut batches = Vec::new();
    let mut at = numbers.start;
    while at < numbers.end {
        let mut batch = WriteBatch::new();
        let end = numbers.end.min(at + PUTS_PER_BATCH);
        for number in at..end {
            let entry = scattered(number, entries);
            let mut value = [version; VALUE_BYTES];
            value[..8].copy_from_slice(&entry.to_le_bytes());
            let added = batch.put(&Put { key: entry_key(entry).as_bytes(), value: &value, target: None });
            added.map_err(|error| PerfError::Report(error.to_string()))?;
        }
        batches.push(batch);
        at = end;
    }
    append_all(engine, &mut batches)
}

impl Shape {
    /// Writes the log to `dir`; how many bytes it has.
    ///
    /// # Errors
    /// The engine's.
    pub(crate) fn write(&self, dir: &Path) -> Result<u64, PerfError> {
        let engine = Engine::open(dir, options())?;
        let named = queues(&engine, self.queues)?;
        let (mut done, mut put_to) = (0, 0);
        while done < self.messages {
            let part = (self.messages / 1000).clamp(to_u64(AT_ONCE), 100_000).min(self.messages - done);
            done += append(&engine, &named, self.size, done, |count| count < part)?;
            let due = self.entries.min(
                u64::try_from(u128::from(self.entries) * u128::from(done) / u128::from(self.messages)).unwrap_or(0),
            );
            put(&engine, self.entries, put_to..due, 1)?;
            put_to = due;
        }
        let end = engine.flush()?;
        engine.close()?;
        Ok(end.0)
    }

    /// Opens the log in a process of its own; `serves`: and reads, appends and looks things up there.
    ///
    /// # Errors
    /// When it cannot be started, or does not end well.
    pub(crate) fn reopen(&self, dir: &Path, serves: bool) -> Result<Reopened, PerfError> {
        let io = |what, path: &Path| {
            let path = path.to_path_buf();
            move |source| PerfError::Io { what, path, source }
        };
        let program = std::env::current_exe().map_err(io("finding this program", Path::new("/proc/self/exe")))?;
        let mut command = Command::new(&program);
        command.arg(REOPEN).arg(format!("--dir={}", dir.display()));
        command.args([
            format!("--messages={}", self.messages),
            format!("--size={}", self.size),
            format!("--queues={}", self.queues),
            format!("--entries={}", self.entries),
        ]);
        if serves {
            command.arg("--serves");
        }
        let output = command.stderr(std::process::Stdio::inherit()).output().map_err(io("starting", &program))?;
        if !output.status.success() {
            return Err(PerfError::Report(format!("the process that opens the log ended with {}", output.status)));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| PerfError::Report(error.to_string()))
    }

    /// Messages that queue `number` had when the log was written.
    fn length_of(&self, number: u32) -> u64 {
        // Appended in whole rounds of `AT_ONCE`.
        let (count, queues, number) = (self.messages, u64::from(self.queues), u64::from(number));
        count / queues + u64::from(number < count % queues)
    }
}

/// What the process of its own does.
///
/// # Errors
/// The engine's, and whatever is not there as it was written.
pub(crate) fn reopen(wished: &Reopen) -> Result<(), PerfError> {
    let shape = Shape { messages: wished.messages, size: wished.size, queues: wished.queues, entries: wished.entries };
    let begun = clock::now_ns();
    let engine = Engine::open(&wished.dir, options())?;
    let found = engine.range(&engine.queue(b"topic/0")?).max;
    let seconds = seconds_since(begun);
    if found.0 < shape.length_of(0) {
        return Err(PerfError::Report(format!("the first queue ends at {found}, and had {}", shape.length_of(0))));
    }
    let opened_mib = peak_mib();
    let served = wished.serves.then(|| serve(&engine, &shape)).transpose()?;
    let line = engine.info().recovery.clone();
    // Closing writes a last checkpoint.
    engine.close()?;
    let reopened = Reopened { seconds, line, opened_mib, served_mib: peak_mib(), served };
    let text = serde_json::to_string(&reopened).map_err(|error| PerfError::Report(error.to_string()))?;
    out::line(format_args!("{text}"));
    Ok(())
}

fn serve(engine: &Engine, shape: &Shape) -> Result<Served, PerfError> {
    let named = queues(engine, shape.queues)?;
    let begun = clock::now_ns();
    for read in 0..READS {
        let number = u32::try_from(scattered(read, u64::from(shape.queues))).unwrap_or(0);
        let from = scattered(read, shape.length_of(number));
        look(engine, shape, &named, number, from)?;
    }
    let reads = READS as f64 / seconds_since(begun);

    let begun = clock::now_ns();
    let gets = if shape.entries > 0 { GETS } else { 0 };
    for get in 0..gets {
        let entry = scattered(get * 7 + 3, shape.entries);
        let found = engine.get(entry_key(entry).as_bytes())?;
        if found.is_none_or(|found| found.value[..8] != entry.to_le_bytes()) {
            return Err(PerfError::Report(format!("entry {entry} is not what was put there")));
        }
    }
    let gets = gets as f64 / seconds_since(begun);

    let begun = clock::now_ns();
    let first = (shape.messages).next_multiple_of(u64::from(shape.queues));
    let appended = append(engine, &named, shape.size, first, |count| count < APPENDS)?;
    let appends = appended as f64 / seconds_since(begun);

    let begun = clock::now_ns();
    let updates = UPDATES.min(shape.entries);
    let mut at = 0;
    while at < updates {
        let end = updates.min(at + 64 * PUTS_PER_BATCH);
        put(engine, shape.entries, at..end, 2)?;
        at = end;
    }
    engine.flush()?;
    let updates = updates as f64 / seconds_since(begun);
    Ok(Served { reads, gets, appends, updates, checkpoints: engine.stats().checkpoints })
}

/// Reads messages of a queue and compares them with what stands there.
fn look(engine: &Engine, shape: &Shape, named: &[Queue], number: u32, from: u64) -> Result<(), PerfError> {
    let queue = &named[to_usize(u64::from(number))];
    let found = engine.fetch(&Fetch::new(queue, QueueOffset(from)))?;
    if found.status != FetchStatus::Found {
        return Err(PerfError::Report(format!("at {from} of queue {number}: {:?}", found.status)));
    }
    for message in &found.messages {
        let expected = message.queue_offset.0 * u64::from(shape.queues) + u64::from(number);
        if message.payload().get(..8) != Some(&expected.to_le_bytes()) {
            return Err(PerfError::Report(format!(
                "message {} of queue {number} is another one",
                message.queue_offset
            )));
        }
    }
    Ok(())
}

/// Most memory that this process ever had, as the kernel counts it.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) >> 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_visits_every_entry_once() {
        for entries in [1, 64, 1000, 4096] {
            let mut all: Vec<u64> = (0..entries).map(|number| scattered(number, entries)).collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..entries), "{entries}");
        }
    }

    #[test]
    fn queues_have_what_was_dealt_to_them() {
        let shape = Shape { messages: 103, size: 64, queues: 10, entries: 0 };
        assert_eq!((shape.length_of(0), shape.length_of(2), shape.length_of(3)), (11, 11, 10));
    }

    #[test]
    fn a_log_is_found_as_it_was_written() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let shape = Shape { messages: 3_000, size: 100, queues: 7, entries: 500 };
        assert!(shape.write(dir.path()).expect("it is written") > 300_000);
        let engine = Engine::open(dir.path(), options()).expect("it opens");
        let named = queues(&engine, 7).expect("they are there");
        for number in 0..7 {
            assert!(engine.range(&named[to_usize(u64::from(number))]).max.0 >= shape.length_of(number));
            look(&engine, &shape, &named, number, 0).expect("it is what was written");
        }
        for entry in 0..500 {
            assert!(engine.get(entry_key(entry).as_bytes()).expect("it reads").is_some(), "{entry}");
        }
    }
}
