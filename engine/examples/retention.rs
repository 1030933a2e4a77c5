//! What goes when the log is bounded by size, what a pin holds back, and that what the table refers to stays readable.
//!
//! `cargo run -p anchorlog-engine --example retention`
#![expect(clippy::print_stdout, reason = "it shows what happened")]

use std::error::Error;
use std::time::Duration;

use anchorlog_engine::{Append, Engine, EngineOptions, Lsn, Put, Queue, Watermark, WriteBatch};

const SEGMENT_BYTES: u64 = 256 << 10;

/// Appends so many readings; returns where the first of them is once all are durable.
fn append(engine: &Engine, queue: &Queue, count: u64) -> Result<Lsn, Box<dyn Error>> {
    let mut first = None;
    for number in 0..count {
        let mut batch = WriteBatch::new();
        let payload: &[&[u8]] = &[&number.to_le_bytes(), &[0; 1000]];
        batch.append(&Append { queue, tag: 0, keys: &[], attributes: b"", payload })?;
        first.get_or_insert(engine.append(batch)?.outcome().first.lsn);
    }
    engine.flush()?;
    Ok(first.ok_or("nothing was to be appended")?)
}

/// Gives housekeeping up to two seconds to bring the log's start to `start`.
fn until_start(engine: &Engine, start: Lsn) {
    for _ in 0..2000 {
        if engine.watermarks().start >= start {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

fn show(engine: &Engine, queue: &Queue, when: &str) {
    let (marks, range) = (engine.watermarks(), engine.range(queue));
    let kib = marks.assigned.since(marks.start) >> 10;
    println!("{when}: LSN {} to {}, {kib} KiB, offsets {} to {}", marks.start, marks.assigned, range.min, range.max);
}

fn main() -> Result<(), Box<dyn Error>> {
    // Beside this program: on the disk of the build, not in memory.
    let dir = tempfile::tempdir_in(std::env::current_exe()?.with_file_name(""))?;
    let options = EngineOptions::default().with_segment_bytes(SEGMENT_BYTES).with_retain_bytes(Some(4 * SEGMENT_BYTES));
    let engine = Engine::open(dir.path(), options)?;
    let readings = engine.queue(b"readings")?;

    // A pin: somebody copies the log elsewhere and has not come further than this.
    engine.pin("copier", Some(engine.watermarks().assigned));
    append(&engine, &readings, 2000)?;
    show(&engine, &readings, "pinned, beyond its bound");

    engine.pin("copier", None);
    until_start(&engine, Lsn(SEGMENT_BYTES));
    show(&engine, &readings, "without the pin");

    // A table entry refers to one message: it can be read as long as the entry is there, however long the log becomes.
    let kept = append(&engine, &readings, 1)?;
    let mut batch = WriteBatch::new();
    batch.put(&Put { key: b"alarm/7", value: b"open", target: Some(engine.reference(kept)?.into()) })?;
    engine.append_and_wait(batch)?;
    append(&engine, &readings, 2000)?;
    println!("the alarm's reading at LSN {kept} is there: {} bytes", engine.read(kept)?.payload().len());

    let mut batch = WriteBatch::new();
    batch.delete(b"alarm/7")?;
    let end = engine.append_and_wait(batch)?.end_lsn;
    // The table learns of it when somebody looks, or with the next mebibyte.
    engine.wait(Watermark::Dispatched, end, None)?;
    until_start(&engine, Lsn(kept.0 + SEGMENT_BYTES));
    show(&engine, &readings, "when the alarm is closed");

    // By position: whoever knows that everything is processed says so.
    let released = engine.release(end)?;
    until_start(&engine, released.start);
    show(&engine, &readings, "released");
    println!("{} segments recycled in all", engine.stats().recycled_segments);
    engine.close()?;
    Ok(())
}
