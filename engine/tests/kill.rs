//! The process is killed while it appends, for real: what it had acknowledged is there; under asynchronous flush, all but the newest
//! moment.
//!
//! The test runs itself a second time as the process that dies. What it measures (how much an asynchronous log loses) it prints; run it
//! with `-- --nocapture` to see the numbers.
#![expect(clippy::unwrap_used, reason = "a failing step ends the test")]

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anchorlog_engine::{
    Append, BackendChoice, Clock, Engine, EngineOptions, Fetch, FetchStatus, Flush, Queue, QueueOffset, SystemClock,
    WriteBatch,
};

const CHILD: &str = "ANCHORLOG_KILL_TEST";

fn options(flush: Flush) -> EngineOptions {
    EngineOptions::default().with_segment_bytes(4 << 20).with_backend(BackendChoice::Threads).with_flush(flush)
}

fn append(engine: &Engine, queue: &Queue, number: u64) {
    let mut batch = WriteBatch::new();
    let body = [number.to_le_bytes(); 64];
    batch.append(&Append { queue, tag: 0, keys: &[], attributes: b"", payload: &[body.as_flattened()] }).unwrap();
    engine.append_and_wait(batch).unwrap();
}

/// Appends until it is killed; tells each ack, with its time, through a pipe.
fn die_appending(dir: &Path, flush: Flush) {
    let engine = Engine::open(dir, options(flush)).unwrap();
    let queue = engine.queue(b"q").unwrap();
    let clock = SystemClock::new();
    let mut out = std::io::stderr().lock();
    for number in 0.. {
        append(&engine, &queue, number);
        let mut line = [0; 16];
        line[..8].copy_from_slice(&number.to_le_bytes());
        line[8..].copy_from_slice(&clock.wall_ms().to_le_bytes());
        out.write_all(&line).unwrap();
        // Slow enough that the reader of the pipe keeps up.
        if flush != Flush::Sync {
            std::thread::park_timeout(Duration::from_micros(50));
        }
    }
}

/// Messages that survived, checked to be numbered without a gap.
fn survivors(dir: &Path, flush: Flush) -> u64 {
    let engine = Engine::open(dir, options(flush)).unwrap();
    let queue = engine.queue(b"q").unwrap();
    let mut next = 0;
    loop {
        let found = engine
            .fetch(&Fetch {
                queue: &queue,
                from: QueueOffset(next),
                messages_max: 1000,
                bytes_max: 1 << 20,
                scan_max: 1000,
                from_disk: true,
                matches: &|_| true,
            })
            .unwrap();
        if found.status == FetchStatus::AtEnd {
            return next;
        }
        for message in found.messages {
            assert_eq!(message.payload()[..8], next.to_le_bytes());
            next += 1;
        }
    }
}

struct Killed {
    acked: u64,
    survived: u64,
    /// How long before the last ack the oldest lost message had been acknowledged.
    lost_ms: u64,
}

fn kill_one(flush: Flush, after: Duration) -> Killed {
    let dir = tempfile::Builder::new().prefix("anchorlog-kill-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mode = if flush == Flush::Sync { "sync" } else { "async" };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, format!("{mode}:{}", dir.path().display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stderr.take().unwrap();
    let (begun, begins) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut told = vec![0; 16];
        let got = pipe.read(&mut told).unwrap();
        told.truncate(got);
        begun.send(()).unwrap();
        pipe.read_to_end(&mut told).unwrap();
        told
    });
    // From the first acknowledgement on: how long a process takes to start is the machine's affair.
    begins.recv().unwrap();
    std::thread::park_timeout(after);
    child.kill().unwrap();
    child.wait().unwrap();
    let told = reader.join().unwrap();
    let acks: Vec<(u64, u64)> = told
        .as_chunks::<16>()
        .0
        .iter()
        .map(|line| {
            let (number, time) = line.split_at(8);
            (u64::from_le_bytes(number.try_into().unwrap()), u64::from_le_bytes(time.try_into().unwrap()))
        })
        .collect();
    let acked = acks.last().map_or(0, |(number, _)| number + 1);
    let survived = survivors(dir.path(), flush);
    let lost = acks.iter().find(|(number, _)| *number >= survived);
    let lost_ms = lost.map_or(0, |(_, time)| acks.last().unwrap().1.saturating_sub(*time));
    Killed { acked, survived, lost_ms }
}

#[test]
fn child() {
    // Not a test of its own: the process that the others kill.
    if let Ok(what) = std::env::var(CHILD) {
        let (mode, dir) = what.split_once(':').unwrap();
        die_appending(Path::new(dir), if mode == "sync" { Flush::Sync } else { Flush::async_default() });
    }
}

#[test]
fn a_killed_process_loses_nothing_that_was_acknowledged_durable() {
    for round in 0..4 {
        let killed = kill_one(Flush::Sync, Duration::from_millis(300 + round * 70));
        assert!(killed.acked > 0, "it was killed before it began");
        assert!(killed.survived >= killed.acked, "{} acknowledged, {} there", killed.acked, killed.survived);
    }
}

#[test]
fn a_killed_process_under_asynchronous_flush_loses_the_newest_moment_only() {
    let mut lost_ms = Vec::new();
    for round in 0..4 {
        let killed = kill_one(Flush::async_default(), Duration::from_millis(300 + round * 70));
        assert!(killed.survived > 0, "what is older than the hand-over window is with the kernel");
        let lost = killed.acked.saturating_sub(killed.survived);
        eprintln!(
            "asynchronous, killed: {} acknowledged, {lost} lost, the oldest {} ms old",
            killed.acked, killed.lost_ms
        );
        lost_ms.push(killed.lost_ms);
    }
    // The window is 10 ms. A busy machine may keep a thread from its turn now and then; what waits for the flush, every 500 ms, loses
    // hundreds each time.
    lost_ms.sort_unstable();
    assert!(lost_ms[1] < 150, "the oldest that were lost were so many ms old: {lost_ms:?}");
}
