//! The power fails at every single I/O of a workload, and the engine opens again: what was acknowledged is there, nothing is made up.
//!
//! The same sweep runs over engines that break one promise each, and must catch every one of them.
#![expect(clippy::unwrap_used, reason = "a failing step ends the test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::clock::SimClock;
use anchorlog_engine::io::sim::{IoClass, SimDisk, Survival, Times};
use anchorlog_engine::options::Fault;
use anchorlog_engine::{
    Append, Engine, EngineOptions, Fetch, FetchStatus, Flush, Lsn, OpenError, QueueOffset, Tail, Watermark, WriteBatch,
};

const DIR: &str = "/log";
const EIO: i32 = 5;

fn options(flush: Flush, fault: Option<Fault>) -> EngineOptions {
    let options = EngineOptions::default()
        .with_segment_bytes(64 << 10)
        .with_chunk_bytes(16 << 10)
        .with_buffer_bytes(64 << 10)
        .with_cache_bytes(96 << 10)
        .with_spare_count(1)
        .with_flush(flush)
        .with_manual_drive();
    match fault {
        Some(fault) => options.with_fault(fault),
        None => options,
    }
}

/// What one batch put where.
#[derive(Clone, Debug)]
struct Attempt {
    end_lsn: Lsn,
    messages: Vec<(String, u64)>,
    acked: bool,
}

/// A plain model of a log: what was tried, and what was promised.
#[derive(Default)]
struct Model {
    attempts: Vec<Attempt>,
    /// Payload of each message that may be there.
    bodies: BTreeMap<(String, u64), Vec<u8>>,
    next_number: u64,
}

impl Model {
    fn note_acks(&mut self, acked: Lsn) {
        for attempt in &mut self.attempts {
            attempt.acked |= attempt.end_lsn <= acked;
        }
    }

    /// A batch of one to three messages in two queues; sizes from a few bytes to several blocks.
    fn append(&mut self, engine: &Engine) -> bool {
        let number = self.next_number;
        self.next_number += 1;
        let mut batch = WriteBatch::new();
        let mut parts = Vec::new();
        for part in 0..=number % 3 {
            let name = format!("queue-{}", (number + part) % 2);
            let len = [40, 700, 5000, 100, 9000, 300][usize::try_from((number + part) % 6).unwrap()];
            let body: Vec<u8> = format!("{number}/{part} ").bytes().cycle().take(len).collect();
            let queue = engine.queue(name.as_bytes()).unwrap();
            batch.append(&Append { queue: &queue, tag: 1, keys: &[], attributes: b"", payload: &[&body] }).unwrap();
            parts.push((name, body));
        }
        let Ok(ticket) = engine.try_append(&mut batch) else { return false };
        let outcome = ticket.outcome();
        let mut messages = Vec::new();
        for ((name, body), position) in parts.into_iter().zip(outcome.positions()) {
            messages.push((name.clone(), position.queue_offset.0));
            self.bodies.insert((name, position.queue_offset.0), body);
        }
        self.attempts.push(Attempt { end_lsn: outcome.end_lsn, messages, acked: false });
        true
    }

    /// Compares what an opened engine shows with what may and must be there; afterwards only what is there may be there.
    /// Only a log that releases segments may begin anywhere but at its first message.
    fn check(&mut self, engine: &Engine, releases: bool) -> Result<(), String> {
        let mut present = BTreeMap::new();
        let mut min = BTreeMap::new();
        for queue in engine.queues() {
            let name = String::from_utf8(queue.name().to_vec()).unwrap();
            let range = engine.range(&queue);
            if range.min.0 > 0 && !releases {
                return Err(format!("{name} begins at {}: acknowledged and lost", range.min));
            }
            min.insert(name.clone(), range.min.0);
            let mut next = range.min;
            loop {
                let fetch = Fetch {
                    queue: &queue,
                    from: next,
                    messages_max: 100,
                    bytes_max: 1 << 20,
                    scan_max: 100,
                    from_disk: true,
                    matches: &|_| true,
                };
                let found = engine.fetch(&fetch).map_err(|error| format!("{name} at {next}: {error}"))?;
                if found.status == FetchStatus::AtEnd {
                    break;
                }
                for message in found.messages {
                    present.insert((name.clone(), message.queue_offset.0), message.payload().to_vec());
                }
                next = found.next;
            }
        }
        for (place, body) in &present {
            match self.bodies.get(place) {
                None => return Err(format!("{place:?} was made up")),
                Some(expected) if expected != body => return Err(format!("{place:?} has another body")),
                Some(_) => {}
            }
        }
        let released = |(name, offset): &(String, u64)| min.get(name).is_some_and(|min| offset < min);
        for attempt in &self.attempts {
            let there = attempt.messages.iter().filter(|place| present.contains_key(*place)).count();
            let gone = attempt.messages.iter().filter(|place| released(place)).count();
            if attempt.acked && there + gone < attempt.messages.len() {
                return Err(format!("acknowledged and lost: {attempt:?}"));
            }
            if gone == 0 && there > 0 && there < attempt.messages.len() {
                return Err(format!("half a batch: {attempt:?}"));
            }
        }
        self.attempts
            .retain(|attempt| attempt.messages.iter().all(|place| present.contains_key(place) || released(place)));
        // What an opened engine shows is durable: it may not go away any more.
        self.attempts.iter_mut().for_each(|attempt| attempt.acked = true);
        self.bodies.retain(|place, _| present.contains_key(place));
        Ok(())
    }
}

struct Sweep {
    flush: Flush,
    tail: Tail,
    fault: Option<Fault>,
    retain: Option<u64>,
    depth: usize,
    batches: u64,
}

impl Sweep {
    fn options(&self) -> EngineOptions {
        options(self.flush, self.fault)
            .with_tail(self.tail)
            .with_retain_bytes(self.retain)
            .with_commit_depth(self.depth)
    }

    fn open(&self, disk: &SimDisk, clock: &Arc<SimClock>) -> Result<Engine, OpenError> {
        Engine::open_with(disk.backend(), Arc::<SimClock>::clone(clock), Path::new(DIR), self.options())
    }

    /// Appends and steps until the workload is done or the machine dies. Under asynchronous flush only what a flush covered counts.
    fn work(&self, engine: &Engine, disk: &SimDisk, clock: &SimClock, model: &mut Model) {
        let promised = |model: &mut Model| {
            let marks = engine.watermarks();
            model.note_acks(if self.flush == Flush::Sync { marks.acked } else { marks.durable });
        };
        for number in 0..self.batches {
            while !model.append(engine) {
                if disk.is_dead() || engine.fenced().is_some() {
                    return;
                }
                engine.step();
                promised(model);
            }
            for _ in 0..number % 4 {
                engine.step();
                promised(model);
            }
            if number % 7 == 0 {
                clock.advance(Duration::from_millis(11));
            }
            if number % 25 == 24 && self.flush != Flush::Sync && engine.flush().is_ok() {
                promised(model);
            }
        }
        for _ in 0..200 {
            engine.step();
            promised(model);
            clock.advance(Duration::from_millis(5));
        }
    }

    /// Stops after the n-th I/O for every n, crashes with the seed, opens, checks, works on a little, crashes and checks again.
    fn run(&self, seeds: impl Iterator<Item = u64>) -> Result<u64, String> {
        let mut scenes = 0;
        for seed in seeds {
            let mut last = 0;
            loop {
                let disk = SimDisk::new(seed);
                disk.stop_after(last);
                let clock = Arc::new(SimClock::default());
                let mut model = Model::default();
                if let Ok(engine) = self.open(&disk, &clock) {
                    self.work(&engine, &disk, &clock, &mut model);
                }
                self.survive(&disk, seed, &mut model)
                    .map_err(|what| format!("seed {seed}, stopped after I/O {last}: {what}"))?;
                scenes += 1;
                if !disk.is_dead() {
                    break;
                }
                // Every I/O of the beginning, then every third from another one on for each seed: three seeds meet them all.
                last += match last {
                    ..150 => 1,
                    150 => 1 + seed % 3,
                    _ => 3,
                };
            }
        }
        Ok(scenes)
    }

    fn survive(&self, disk: &SimDisk, seed: u64, model: &mut Model) -> Result<(), String> {
        let mut disk = disk.clone();
        for round in 0..3_u64 {
            let survival = if (seed + round).is_multiple_of(3) { Survival::Nothing } else { Survival::Seeded };
            if round == 1 {
                // The process dies first, is started again, and only then the power fails: what it showed must stay.
                disk = disk.kill();
                let engine =
                    self.open(&disk, &Arc::new(SimClock::default())).map_err(|error| format!("killed: {error}"))?;
                model.check(&engine, self.retain.is_some()).map_err(|what| format!("killed: {what}"))?;
            }
            disk = disk.crash_with(seed * 31 + round, survival);
            let clock = Arc::new(SimClock::default());
            let engine = self.open(&disk, &clock).map_err(|error| format!("round {round}: does not open: {error}"))?;
            model.check(&engine, self.retain.is_some()).map_err(|what| format!("round {round}: {what}"))?;
            let short = Sweep { batches: 9, ..*self };
            // The second crash comes in the middle of something, too.
            disk.stop_after(disk.io_count() + 11 + seed % 7);
            short.work(&engine, &disk, &clock, model);
        }
        Ok(())
    }
}

fn sync(fault: Option<Fault>) -> Sweep {
    Sweep { flush: Flush::Sync, tail: Tail::Rewrite, fault, retain: None, depth: 1, batches: 60 }
}

/// Closes K-1 and K-2 (an ack before the disk, or from memory that only the process has) and K-12 (a batch that a crash tears).
#[test]
fn acked_is_there_and_nothing_is_invented_wherever_the_power_fails() {
    let scenes = sync(None).run(0..3).unwrap();
    assert!(scenes > 300, "{scenes} scenes are too few to mean anything");
}

#[test]
fn several_writes_in_flight_survive_the_same_sweep() {
    Sweep { depth: 4, ..sync(None) }.run(0..3).unwrap();
}

#[test]
fn padded_tails_survive_the_same_sweep() {
    Sweep { tail: Tail::Pad, ..sync(None) }.run(0..3).unwrap();
}

#[test]
fn released_and_recycled_segments_survive_the_same_sweep() {
    Sweep { retain: Some(128 << 10), batches: 110, ..sync(None) }.run(0..3).unwrap();
}

/// K-16: what readers saw and no flush covered may go; what one covered stays.
#[test]
fn what_a_flush_covered_survives_under_asynchronous_flush() {
    let flush = Flush::Async { interval: Duration::from_millis(20), bytes: 64 << 10 };
    Sweep { flush, batches: 80, ..sync(None) }.run(0..3).unwrap();
}

#[test]
fn an_ack_before_the_flush_is_caught() {
    let caught = sync(Some(Fault::AckBeforeFlush)).run(0..6).unwrap_err();
    assert!(caught.contains("acknowledged and lost"), "{caught}");
}

#[test]
fn a_flush_beside_the_writes_is_caught() {
    let caught = sync(Some(Fault::FlushBesideWrites)).run(0..6).unwrap_err();
    assert!(caught.contains("acknowledged and lost") || caught.contains("not a torn tail"), "{caught}");
}

#[test]
fn a_forgotten_directory_sync_is_caught() {
    let caught = sync(Some(Fault::NoDirectorySync)).run(0..6).unwrap_err();
    assert!(caught.contains("lost") || caught.contains("missing"), "{caught}");
}

#[test]
fn frames_that_are_not_bound_to_their_position_are_caught() {
    let sweep = Sweep { retain: Some(128 << 10), batches: 110, ..sync(Some(Fault::PositionUnchecked)) };
    let caught = sweep.run(0..6).unwrap_err();
    assert!(
        caught.contains("made up") || caught.contains("another body") || caught.contains("queue entry"),
        "{caught}"
    );
}

/// One message whose frame ends with the second block from here, not acknowledged yet.
fn append_two_blocks(engine: &Engine, byte: u8) -> Lsn {
    const OVERHEAD: u64 = 64 + 16 + 32 + 1;
    let queue = engine.queue(b"q").unwrap();
    let mut batch = WriteBatch::new();
    let start = engine.watermarks().assigned.0;
    let body = vec![byte; usize::try_from((start / 4096 + 2) * 4096 - start - OVERHEAD).unwrap()];
    batch.append(&Append { queue: &queue, tag: 1, keys: &[], attributes: b"", payload: &[&body] }).unwrap();
    engine.try_append(&mut batch).unwrap().outcome().end_lsn
}

fn settle(engine: &Engine) {
    for _ in 0..50 {
        engine.step();
    }
}

/// A group of A and B is torn so that only B reached the disk; the next run writes the same A again, and only A.
fn what_was_lost_stays_lost(fault: Option<Fault>) -> Result<(), String> {
    let mut met = 0;
    for seed in 0..400 {
        let clock = Arc::new(SimClock::default());
        let sweep = sync(fault);
        let disk = SimDisk::new(seed);
        let engine = sweep.open(&disk, &clock).unwrap();
        append_two_blocks(&engine, b'A');
        append_two_blocks(&engine, b'B');
        disk.stop_after(disk.io_count());
        engine.step();

        let disk = disk.crash(seed);
        let engine = sweep.open(&disk, &clock).unwrap();
        let queue = engine.queue(b"q").unwrap();
        if engine.range(&queue).max != QueueOffset(0) {
            continue;
        }
        met += usize::from(engine.info().recovery_cut_bytes > 0);
        let end = append_two_blocks(&engine, b'A');
        settle(&engine);
        assert!(engine.watermarks().acked >= end);

        let disk = disk.crash_with(seed, Survival::Nothing);
        let engine = sweep.open(&disk, &clock).map_err(|error| error.to_string())?;
        let queue = engine.queue(b"q").unwrap();
        if engine.range(&queue).max != QueueOffset(1) {
            return Err(format!("seed {seed}: {:?}: B came back", engine.range(&queue)));
        }
    }
    assert!(met > 3, "no seed tore the group in the way that this scene needs");
    Ok(())
}

/// Closes K-22 (stale bytes that pass for new ones).
#[test]
fn what_an_earlier_run_lost_never_comes_back() {
    what_was_lost_stays_lost(None).unwrap();
}

/// K-43: a reader runs on beyond the place at which a power failure has cut the log. What is appended after the failure gets the offsets
/// that the reader has passed already; where the queue ended at the opening tells it from where on it must read again.
#[test]
fn a_reader_beyond_the_cut_learns_where_to_go_on() {
    let mut lost = 0;
    for seed in 0..40_u64 {
        let clock = Arc::new(SimClock::default());
        let flush = Flush::Async { interval: Duration::from_millis(20), bytes: 1 << 20 };
        let sweep = Sweep { flush, ..sync(None) };
        let disk = SimDisk::new(seed);
        let engine = sweep.open(&disk, &clock).unwrap();
        for _ in 0..4 + seed % 5 {
            append_two_blocks(&engine, b'A');
            clock.advance(Duration::from_millis(6));
            engine.step();
        }
        // It has seen everything, durable or not.
        let queue = engine.queue(b"q").unwrap();
        let passed = engine.range(&queue).max;
        assert_eq!(
            engine.fetch(&Fetch { messages_max: 100, ..Fetch::new(&queue, QueueOffset(0)) }).unwrap().next,
            passed
        );

        let disk = disk.crash_with(seed, Survival::Nothing);
        let engine = sweep.open(&disk, &clock).unwrap();
        let queue = engine.queue(b"q").unwrap();
        let cut = engine.range(&queue).max;
        lost += u64::from(cut < passed);
        // While it is beyond the end it is told so; soon it is not any more.
        if cut < passed {
            assert_eq!(engine.fetch(&Fetch::new(&queue, passed)).unwrap().status, FetchStatus::BeyondMax);
        }
        for _ in 0..12 {
            append_two_blocks(&engine, b'B');
            settle(&engine);
        }
        assert_eq!(engine.opened_at(&queue), cut);
        let from = passed.min(engine.opened_at(&queue));
        let found = engine.fetch(&Fetch { messages_max: 100, bytes_max: 1 << 20, ..Fetch::new(&queue, from) }).unwrap();
        let bodies: Vec<u8> = found.messages.iter().map(|message| message.payload()[0]).collect();
        assert_eq!(bodies, [b'B'; 12], "seed {seed}: everything new, and nothing else");
        assert_eq!(engine.opened_at(&engine.queue(b"later").unwrap()), QueueOffset(0));
    }
    assert!(lost > 5, "only {lost} crashes lost anything");
}

#[test]
fn a_run_without_an_epoch_of_its_own_is_caught() {
    what_was_lost_stays_lost(Some(Fault::NoNewEpoch)).unwrap_err();
}

/// Flushes fail once at the n-th; what a later flush claims must be true.
fn failed_flush(fault: Option<Fault>, nth: u64) -> Result<(), String> {
    let flush = Flush::Async { interval: Duration::from_secs(100), bytes: 1 << 30 };
    let sweep = Sweep { flush, ..sync(fault) };
    let (disk, clock) = (SimDisk::new(nth), Arc::new(SimClock::default()));
    let engine = sweep.open(&disk, &clock).unwrap();
    disk.fail(IoClass::Sync, disk.count(IoClass::Sync) + nth, EIO, Times::Once);
    let mut model = Model::default();
    for _ in 0..8 {
        model.append(&engine);
        model.append(&engine);
        if engine.flush().is_ok() {
            model.note_acks(engine.watermarks().durable);
        }
    }
    let disk = disk.crash_with(nth, Survival::Nothing);
    let engine = sweep.open(&disk, &clock).map_err(|error| error.to_string())?;
    model.check(&engine, false)
}

#[test]
fn a_failed_flush_is_never_believed_later() {
    for nth in 1..8 {
        failed_flush(None, nth).unwrap();
    }
}

#[test]
fn a_failed_flush_that_is_tried_again_is_caught() {
    assert!((1..8).any(|nth| failed_flush(Some(Fault::RetryFailedFlush), nth).is_err()));
}

#[test]
fn the_first_failed_write_fences_and_reopening_recovers() {
    let sweep = sync(None);
    for nth in 1..40 {
        let (disk, clock) = (SimDisk::new(nth), Arc::new(SimClock::default()));
        let engine = sweep.open(&disk, &clock).unwrap();
        disk.fail(IoClass::Write, disk.count(IoClass::Write) + nth, EIO, Times::Once);
        let mut model = Model::default();
        sweep.work(&engine, &disk, &clock, &mut model);
        let Some(fenced) = engine.fenced() else { continue };
        assert!(fenced.to_string().contains("write failed"), "{fenced}");
        let acked = engine.watermarks().acked;
        assert!(!model.append(&engine), "a fenced log takes nothing");
        settle(&engine);
        assert_eq!(engine.watermarks().acked, acked, "nothing is acknowledged afterwards");
        assert!(engine.wait(Watermark::Acked, acked.plus(1), None).is_err(), "waiters get the error");
        drop(engine);

        let disk = disk.kill();
        let engine = sweep.open(&disk, &clock).unwrap();
        model.check(&engine, false).unwrap();
        assert!(model.append(&engine));
    }
}

/// Closes K-19 (damage in the middle cuts the tail).
#[test]
fn damage_below_the_durable_mark_is_refused_not_cut() {
    let sweep = sync(None);
    let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::default()));
    let engine = sweep.open(&disk, &clock).unwrap();
    sweep.work(&engine, &disk, &clock, &mut Model::default());
    drop(engine);
    let first = Path::new(DIR).join("00000000000000000000.seg");
    let size = disk.read(&first).unwrap().len();
    for at in (4096..size).step_by(997) {
        let disk = disk.kill();
        disk.flip_bit(&first, u64::try_from(at).unwrap(), 3);
        let opened = sweep.open(&disk, &clock);
        let damaged = matches!(&opened, Err(OpenError::Damaged { .. }));
        // A filler's content is not covered by anything, since it says nothing.
        let harmless = opened.is_ok_and(|engine| engine.info().recovery_cut_bytes == 0);
        assert!(damaged || harmless, "bit {at} cut acknowledged messages in silence");
    }
}

#[test]
fn the_same_seed_leaves_the_same_trace() {
    let trace = || {
        let (disk, clock) = (SimDisk::new(5), Arc::new(SimClock::default()));
        let engine = sync(None).open(&disk, &clock).unwrap();
        sync(None).work(&engine, &disk, &clock, &mut Model::default());
        disk.trace_hash()
    };
    assert_eq!(trace(), trace());
}

#[test]
fn released_segments_survive_under_asynchronous_flush() {
    let flush = Flush::Async { interval: Duration::from_millis(200), bytes: 1 << 20 };
    Sweep { flush, retain: Some(128 << 10), batches: 110, ..sync(None) }.run(0..3).unwrap();
}
