//! The disk is full, a quota is used up, or files may not grow: appends are refused before anything is at risk, what frees space goes on,
//! and when there is room all goes on by itself (K-14, K-62, K-63).
#![expect(clippy::unwrap_used, reason = "a failing step ends the test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::clock::SimClock;
use anchorlog_engine::io::is_full;
use anchorlog_engine::io::sim::{IoClass, Seeded, SimDisk, Survival, Times};
use anchorlog_engine::{
    Advice, Append, AppendError, BackendChoice, Engine, EngineOptions, Fetch, FetchStatus, Flush, Lsn, OpenError, Put,
    Queue, QueueOffset, Tail, WriteBatch,
};

const DIR: &str = "/log";
const SEGMENT: u64 = 64 << 10;
const BLOCK: u64 = 4096;
const ENOSPC: i32 = 28;
const EFBIG: i32 = 27;
const EDQUOT: i32 = 122;

fn options() -> EngineOptions {
    EngineOptions::default()
        .with_segment_bytes(SEGMENT)
        .with_chunk_bytes(16 << 10)
        .with_buffer_bytes(64 << 10)
        .with_cache_bytes(96 << 10)
        .with_spare_count(1)
        .with_checkpoint_bytes(64 << 10)
        .with_checkpoint_interval(Some(Duration::from_millis(50)))
        .with_manual_drive()
}

/// What stands in the way.
#[derive(Clone, Copy, Debug)]
enum Limit {
    Capacity,
    Quota,
    FileBytes,
}

impl Limit {
    fn errno(self) -> i32 {
        match self {
            Limit::Capacity => ENOSPC,
            Limit::Quota => EDQUOT,
            Limit::FileBytes => EFBIG,
        }
    }

    /// Leaves so much room on the disk; of the length of files, less than a segment.
    fn leave(self, disk: &SimDisk, bytes: u64) {
        let most = Some(disk.used_bytes() + bytes);
        match self {
            Limit::Capacity => disk.set_capacity(most),
            Limit::Quota => disk.set_block_quota(most),
            Limit::FileBytes => disk.set_file_bytes_max(Some(bytes.clamp(4 * BLOCK, SEGMENT - BLOCK))),
        }
    }

    fn lift(disk: &SimDisk) {
        disk.set_capacity(None);
        disk.set_block_quota(None);
        disk.set_file_bytes_max(None);
    }
}

/// An engine, and what must be in it.
struct Scene {
    disk: SimDisk,
    clock: Arc<SimClock>,
    options: EngineOptions,
    engine: Option<Engine>,
    /// End, offset and body of each message that was given a place.
    messages: Vec<(Lsn, u64, Vec<u8>)>,
    /// Where each entry's value was set, in order.
    entries: BTreeMap<Vec<u8>, Vec<(Lsn, u64)>>,
    next: u64,
    /// The acked end of the opening before.
    acked: Lsn,
}

impl Scene {
    fn new(seed: u64, options: EngineOptions) -> Scene {
        let (disk, clock) = (SimDisk::new(seed), Arc::<SimClock>::default());
        let mut scene = Scene {
            disk,
            clock,
            options,
            engine: None,
            messages: vec![],
            entries: BTreeMap::new(),
            next: 0,
            acked: Lsn::ZERO,
        };
        scene.open().unwrap();
        scene
    }

    fn open(&mut self) -> Result<(), OpenError> {
        let clock = Arc::<SimClock>::clone(&self.clock);
        self.engine = Some(Engine::open_with(self.disk.backend(), clock, Path::new(DIR), self.options.clone())?);
        Ok(())
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    fn queue(&self) -> Queue {
        self.engine().queue(b"q").unwrap()
    }

    fn settle(&self) {
        for _ in 0..150 {
            self.engine().step();
            self.clock.advance(Duration::from_millis(1));
        }
    }

    fn settle_a_little(&self) {
        self.engine().step();
        self.clock.advance(Duration::from_millis(5));
    }

    /// One message; steps while the buffer is full.
    fn append(&mut self, len: usize) -> Result<(), AppendError> {
        self.next += 1;
        let body: Vec<u8> = self.next.to_le_bytes().into_iter().cycle().take(len).collect();
        let mut batch = WriteBatch::new();
        let queue = self.queue();
        batch.append(&Append { queue: &queue, tag: 1, keys: &[], attributes: b"", payload: &[&body] }).unwrap();
        let outcome = self.place(batch)?;
        self.messages.push((outcome.end_lsn, outcome.first.queue_offset.0, body));
        Ok(())
    }

    /// One table entry, as offsets are kept.
    fn put(&mut self, number: u64) -> Result<(), AppendError> {
        self.next += 1;
        let key = format!("offset/{number}").into_bytes();
        let mut batch = WriteBatch::new();
        batch.put(&Put { key: &key, value: &self.next.to_le_bytes(), target: None }).unwrap();
        batch.set_essential(true);
        let outcome = self.place(batch)?;
        let (end, value) = (outcome.end_lsn, self.next);
        self.entries.entry(key).or_default().push((end, value));
        Ok(())
    }

    fn place(&self, mut batch: WriteBatch) -> Result<anchorlog_engine::AppendOutcome, AppendError> {
        loop {
            match self.engine().try_append(&mut batch) {
                Ok(ticket) => return Ok(ticket.outcome().clone()),
                Err(AppendError::Full { .. }) => {
                    self.engine().step();
                    self.clock.advance(Duration::from_millis(1));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Appends until it is refused for want of space; says how the refusal reads.
    fn fill(&mut self) -> AppendError {
        for _ in 0..2000 {
            if let Err(error) = self.append(4000) {
                return error;
            }
            self.engine().step();
        }
        panic!("the disk is never full");
    }

    /// Holds what is there against what must be: all below the acked end, and what was appended behind it or nothing.
    fn check(&self, acked: Lsn) {
        let (engine, queue) = (self.engine(), self.queue());
        let range = engine.range(&queue);
        let mut found = BTreeMap::new();
        let mut from = range.min;
        loop {
            let fetch = Fetch { from_disk: true, messages_max: 50, ..Fetch::new(&queue, from) };
            let fetched = engine.fetch(&fetch).unwrap();
            if fetched.status == FetchStatus::AtEnd {
                break;
            }
            found.extend(fetched.messages.iter().map(|message| (message.queue_offset.0, message.payload().to_vec())));
            from = fetched.next;
        }
        for (end, offset, body) in &self.messages {
            match found.get(offset) {
                Some(there) => assert!(there == body, "message {offset} has another body"),
                None => {
                    assert!(*end > acked || *offset < range.min.0, "message {offset} was acknowledged, and is lost")
                }
            }
        }
        for (key, values) in &self.entries {
            let must = values.iter().rev().find(|(end, _)| *end <= acked);
            match (must, value_of(engine, key)) {
                (None, None) => {}
                (must, Some(value)) => {
                    let (lowest, known) =
                        (must.map_or(0, |must| must.1), values.iter().any(|(_, known)| *known == value));
                    assert!(value >= lowest && known, "{}: {value}, not {must:?}", key.escape_ascii());
                }
                (Some(must), None) => panic!("{}: {must:?} is lost", key.escape_ascii()),
            }
        }
    }

    /// The disk goes on as `disk`; what is not there any more was never promised.
    fn reopen(&mut self, disk: SimDisk) -> Result<(), OpenError> {
        if let Some(engine) = self.engine.take() {
            self.acked = engine.watermarks().acked;
        }
        self.disk = disk;
        self.open()?;
        self.check(self.acked);
        let max = self.engine().range(&self.queue()).max;
        self.messages.retain(|(_, offset, _)| *offset < max.0);
        let mut entries = std::mem::take(&mut self.entries);
        for (key, values) in &mut entries {
            let newest = value_of(self.engine(), key);
            values.retain(|(_, value)| newest.is_some_and(|newest| *value <= newest));
        }
        self.entries = entries;
        Ok(())
    }
}

fn value_of(engine: &Engine, key: &[u8]) -> Option<u64> {
    engine.get(key).unwrap().map(|entry| u64::from_le_bytes((*entry.value).try_into().unwrap()))
}

fn errno(error: &AppendError) -> Option<i32> {
    let AppendError::OutOfSpace { source, .. } = error else { panic!("{error}") };
    source.raw_os_error()
}

/// The whole story: the disk fills, appends are refused, the rest goes on, space is released, appends are taken.
fn a_disk_fills_and_heals(mut scene: Scene, limit: Limit, bytes: u64) {
    let what = format!("{limit:?}, {bytes} bytes left");
    limit.leave(&scene.disk, bytes);
    let refused = scene.fill();
    assert_eq!(errno(&refused), Some(limit.errno()), "{what}: {refused}");
    assert_eq!(refused.advice(), Advice::Retry);
    scene.settle();
    // All that got a place is acknowledged: nothing waits for a disk that has no room.
    let marks = scene.engine().watermarks();
    assert_eq!((marks.acked, marks.durable), (marks.assigned, marks.assigned), "{what}");
    let space = scene.engine().space();
    assert!(space.refuses && space.full.is_some() && space.refused > 0, "{what}: {space:?}");
    scene.check(marks.acked);
    // Offsets are still committed, and durable.
    let has_reserve = space.essential_bytes >= SEGMENT / 2;
    for number in 0..if has_reserve { 50 } else { 0 } {
        scene.put(number).unwrap_or_else(|error| panic!("{what}: offset {number}: {error}"));
    }
    scene.settle();
    assert_eq!(scene.engine().watermarks().acked, scene.engine().watermarks().assigned, "{what}");
    assert!(scene.append(4000).is_err(), "{what}: not all that is left is for everybody");
    // What was appended first is no longer wanted.
    let start = scene.engine().watermarks().start;
    let released = scene.engine().release(scene.engine().watermarks().acked).unwrap();
    for _ in 0..4 {
        scene.settle();
    }
    assert!(scene.engine().fenced().is_none(), "{what}: {:?}", scene.engine().fenced());
    if released.start > start {
        assert!(scene.engine().watermarks().start > start, "{what}: nothing was released");
        assert!(!scene.engine().space().refuses, "{what}: {:?}", scene.engine().space());
        scene.append(4000).unwrap_or_else(|error| panic!("{what}: after the release: {error}"));
    }
    scene.settle();
    scene.check(scene.engine().watermarks().acked);
    // Whatever the power takes, opening finds all of it on the disk that is full still.
    let crashed = scene.disk.crash_with(bytes, Survival::Seeded);
    scene.reopen(crashed).unwrap_or_else(|error| panic!("{what}: {error}"));
    Limit::lift(&scene.disk);
    scene.settle();
    scene.settle();
    scene.append(4000).unwrap_or_else(|error| panic!("{what}: there is room: {error}"));
    scene.settle();
    scene.check(scene.engine().watermarks().acked);
}

/// K-14, K-63: at every size of the disk, to the block.
#[test]
fn a_disk_that_fills_refuses_appends_and_nothing_else_whatever_is_left_of_it() {
    for base in [0, 2 * SEGMENT, 5 * SEGMENT] {
        for step in 0..=SEGMENT / BLOCK {
            let scene = Scene::new(step, options());
            scene.settle();
            a_disk_fills_and_heals(scene, Limit::Capacity, base + step * BLOCK);
        }
    }
}

/// The reserve has not come together yet: what there is then is not handed out either.
#[test]
fn a_new_log_on_an_almost_full_disk_heals_too() {
    for segments in 0..8 {
        for step in [0, 1, 7, 15] {
            let scene = Scene::new(step, options());
            a_disk_fills_and_heals(scene, Limit::Capacity, segments * SEGMENT + step * BLOCK);
        }
    }
}

#[test]
fn quotas_and_limits_of_a_files_length_count_as_a_full_disk() {
    for (limit, base) in [(Limit::Quota, 0), (Limit::Quota, 3 * SEGMENT), (Limit::FileBytes, 0)] {
        for step in 0..=SEGMENT / BLOCK {
            let scene = Scene::new(step, options());
            scene.settle();
            a_disk_fills_and_heals(scene, limit, base + step * BLOCK);
        }
    }
}

#[test]
fn every_kind_of_log_heals() {
    let asynchronous = Flush::Async { interval: Duration::from_millis(20), bytes: 64 << 10 };
    for options in [
        options().with_tail(Tail::Pad),
        options().with_flush(asynchronous),
        options().with_flush(asynchronous).with_tail(Tail::Pad),
        options().with_spare_count(0),
        options().with_spare_count(5),
        options().with_commit_depth(4),
        options().with_reserve_bytes(Some(64 << 10)),
        options().with_reserve_bytes(Some(400 << 10)),
        options().with_checkpoint_interval(None),
        options().with_retain_bytes(Some(1 << 20)),
    ] {
        for step in 0..6 {
            let scene = Scene::new(step, options.clone());
            scene.settle();
            a_disk_fills_and_heals(scene, Limit::Capacity, 3 * SEGMENT + step * 3 * BLOCK);
        }
    }
}

/// A disk that has no room for any file is opened, served from, and closed, again and again.
#[test]
fn a_full_disk_is_opened_and_closed_many_times() {
    let mut scene = Scene::new(1, options());
    scene.settle();
    Limit::Capacity.leave(&scene.disk, 2 * SEGMENT);
    scene.fill();
    scene.settle();
    let used = scene.disk.used_bytes();
    scene.disk.set_capacity(Some(used));
    for round in 0..20 {
        let disk = scene.disk.clone();
        if round % 2 == 0 {
            let acked = scene.engine().watermarks().acked;
            scene.engine.take().unwrap().close().unwrap();
            scene.open().unwrap();
            scene.check(acked);
        } else {
            scene.reopen(disk.crash(round)).unwrap();
        }
        assert!(scene.append(4000).is_err(), "round {round}");
        scene.put(round).unwrap();
        scene.settle();
        assert!(scene.engine().fenced().is_none());
    }
    scene.engine().release(scene.engine().watermarks().acked).map(drop).unwrap();
    for _ in 0..8 {
        scene.settle();
    }
    scene.append(4000).unwrap();
}

/// Where there is no room for a log's first segment, opening says so, and the same directory opens when there is.
#[test]
fn a_log_that_cannot_be_made_says_so_and_is_made_later() {
    for blocks in 0..=SEGMENT / BLOCK + 40 {
        let (disk, clock) = (SimDisk::new(blocks), Arc::<SimClock>::default());
        disk.set_capacity(Some(blocks * BLOCK));
        let open = || Engine::open_with(disk.backend(), Arc::<SimClock>::clone(&clock), Path::new(DIR), options());
        match open() {
            Ok(engine) => {
                let queue = engine.queue(b"q").unwrap();
                let mut batch = WriteBatch::new();
                batch.append(&Append { queue: &queue, tag: 1, keys: &[], attributes: b"", payload: &[b"x"] }).unwrap();
                let refused = engine.try_append(&mut batch).unwrap_err();
                assert_eq!(errno(&refused), Some(ENOSPC), "{blocks} blocks hold no reserve");
            }
            Err(error) => assert_eq!(error.advice(), Advice::Retry, "{blocks} blocks: {error}"),
        }
        disk.set_capacity(None);
        let engine = open().unwrap_or_else(|error| panic!("{blocks} blocks: {error}"));
        assert!(!engine.space().refuses);
    }
}

/// A run with appends, offsets, checkpoints and releases; ends early when the log is fenced.
fn a_run(scene: &mut Scene) {
    for round in 0..60 {
        drop(scene.append(3000));
        drop(scene.put(round % 5));
        scene.engine().step();
        scene.clock.advance(Duration::from_millis(10));
        if round % 20 == 19 {
            let acked = scene.engine().watermarks().acked;
            drop(scene.engine().release(acked));
            scene.settle();
        }
    }
    scene.settle();
}

/// What makes files ahead of the log, or beside it, may fail for want of space without harm. A segment keeps the name that it was made
/// under.
fn is_ahead(line: &str) -> bool {
    let whole_or_head = line.contains(" 0+");
    line.contains("allocate")
        || line.contains("DERIVED")
        || line.contains("RESERVE")
        || (line.contains(".tmp") && whole_or_head)
}

#[test]
fn no_space_at_any_one_write_loses_nothing_and_fences_only_where_the_log_itself_could_not_be_written() {
    let mut whole = Scene::new(3, options());
    let first = whole.disk.count(IoClass::Write) + 1;
    a_run(&mut whole);
    let last = whole.disk.count(IoClass::Write);
    assert!(last > first + 100, "{first} to {last}");
    let (mut ahead, mut fenced) = (0, 0);
    for nth in first..=last {
        for (times, number) in [(Times::Once, ENOSPC), (Times::Forever, EDQUOT), (Times::Once, EFBIG)] {
            let mut scene = Scene::new(3, options());
            scene.disk.fail(IoClass::Write, nth, number, times);
            a_run(&mut scene);
            let faulty: Vec<String> = scene.disk.trace().into_iter().filter(|line| line.contains("(faulty)")).collect();
            let harmless = faulty.iter().all(|line| is_ahead(line));
            let what = format!("write {nth} {times:?} {number}: {:?}", faulty.first());
            if let Some(why) = scene.engine().fenced() {
                assert!(!harmless, "{what}: {why}");
                fenced += 1;
            } else {
                assert!(harmless, "{what}: the log goes on as if it had been written");
                ahead += 1;
            }
            scene.check(scene.engine().watermarks().acked);
            let after = scene.disk.crash_with(nth, Survival::Seeded);
            after.heal();
            scene.reopen(after).unwrap_or_else(|error| panic!("{what}: {error}"));
            scene.settle();
            scene.append(3000).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }
    assert!(ahead > 50 && fenced > 50, "{ahead} {fenced}");
}

/// A quota that counts bytes written over old ones, too (a thin volume, a file system that copies on write) can end in the middle of a
/// commit: then the log is fenced, and nothing that was acknowledged is lost.
#[test]
fn a_volume_that_runs_out_under_written_segments_fences_and_loses_nothing() {
    for blocks in 0..60 {
        let mut scene = Scene::new(blocks, options());
        scene.settle();
        scene.disk.set_quota(Some(blocks * 3 * BLOCK));
        for _ in 0..200 {
            drop(scene.append(3000));
            scene.engine().step();
        }
        scene.check(scene.engine().watermarks().acked);
        let after = scene.disk.crash(blocks);
        after.set_quota(None);
        scene.reopen(after).unwrap();
        scene.append(3000).unwrap();
    }
}

#[test]
fn any_order_of_filling_freeing_crashing_and_reopening_keeps_every_promise() {
    let (mut refused, mut opened, mut failed) = (0, 0, 0);
    for seed in 0..60 {
        let mut draws = Seeded::new(seed, 1);
        let mut options = options().with_spare_count(draws.below(3));
        if draws.below(3) == 0 {
            options = options.with_tail(Tail::Pad);
        }
        let mut scene = Scene::new(seed, options);
        for _ in 0..300 {
            match draws.below(100) {
                0..40 => {
                    let len = [10, 500, 4000, 9000, 20_000][draws.below(5)];
                    refused += u64::from(matches!(scene.append(len), Err(AppendError::OutOfSpace { .. })));
                }
                40..60 => drop(scene.put(draws.below(30) as u64)),
                60..85 => {
                    scene.engine().step();
                    scene.clock.advance(Duration::from_millis(7));
                }
                85..88 => {
                    let (marks, share) = (scene.engine().watermarks(), draws.below(4) as u64);
                    let upto = Lsn(marks.start.0 + marks.acked.since(marks.start) * share / 3);
                    scene.engine().release(upto).map(drop).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                }
                88..93 => {
                    let bytes = draws.below(40) as u64 * BLOCK;
                    [Limit::Capacity, Limit::Quota][draws.below(2)].leave(&scene.disk, bytes);
                }
                93..95 => scene.disk.set_file_bytes_max([None, Some(SEGMENT - BLOCK)][draws.below(2)]),
                95..97 => Limit::lift(&scene.disk),
                97 => scene.settle(),
                _ => {
                    let disk = match draws.below(3) {
                        0 => scene.disk.kill(),
                        odds => scene.disk.crash(odds as u64 + seed),
                    };
                    // Opened and released over and over on a disk that stays full, it may in the end have no room for another opening.
                    match scene.reopen(disk) {
                        Ok(()) => opened += 1,
                        Err(error) => {
                            let OpenError::Io { source, .. } = &error else { panic!("seed {seed}: {error}") };
                            assert!(is_full(source), "seed {seed}: {error}");
                            failed += 1;
                            Limit::lift(&scene.disk);
                            let disk = scene.disk.clone();
                            scene.reopen(disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                        }
                    }
                }
            }
            assert!(scene.engine().fenced().is_none(), "seed {seed}: {:?}", scene.engine().fenced());
        }
        Limit::lift(&scene.disk);
        // A checkpoint that found no room is tried again after a second.
        for _ in 0..10 {
            scene.settle();
        }
        scene.append(4000).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        scene.settle();
        scene.check(scene.engine().watermarks().acked);
        assert_eq!(scene.engine().watermarks().acked, scene.engine().watermarks().assigned, "seed {seed}");
    }
    assert!(refused > 500 && opened > 20 * failed, "{refused} {opened} {failed}");
}

/// What queues and table hold beyond memory is read while the store cannot grow; segments are released without a checkpoint; and the store
/// that was left behind by that is made anew, not gone on with.
#[test]
fn a_checkpoint_that_finds_no_room_hinders_neither_readers_nor_a_release() {
    // More than the store's cache holds.
    let mut scene = Scene::new(5, options().with_spare_count(16).with_checkpoint_cache_bytes(1 << 20));
    let change = |scene: &Scene, key: &str, value: Option<&[u8]>| {
        let mut batch = WriteBatch::new();
        match value {
            Some(value) => batch.put(&Put { key: key.as_bytes(), value, target: None }).unwrap(),
            None => batch.delete(key.as_bytes()).unwrap(),
        };
        batch.set_essential(value.is_none());
        scene.place(batch).map(drop)
    };
    change(&scene, "gone", Some(b"not for long")).unwrap();
    for round in 0..300 {
        scene.put(round).unwrap();
        scene.append(1000).unwrap();
        change(&scene, &format!("old/{round}"), Some(&[6; 4000])).unwrap();
        scene.settle_a_little();
    }
    scene.settle();
    assert!(scene.engine().stats().checkpoints > 3, "{:?}", scene.engine().stats());
    scene.disk.set_capacity(Some(scene.disk.used_bytes()));
    // Large values, until the log is full: more than the store has kept room for.
    let mut number = 0;
    while change(&scene, &format!("large/{number}"), Some(&[7; 12_000])).is_ok() {
        number += 1;
        scene.settle_a_little();
    }
    for _ in 0..10 {
        scene.settle();
    }
    let checkpoints = scene.engine().stats().checkpoints;
    change(&scene, "gone", None).unwrap();
    for round in 0..20 {
        scene.put(round).unwrap();
        scene.settle();
        scene.check(scene.engine().watermarks().acked);
    }
    assert_eq!(scene.engine().stats().checkpoints, checkpoints, "after {number} values there is still room");
    for round in 0..300 {
        let old = scene.engine().get(format!("old/{round}").as_bytes()).unwrap().unwrap();
        assert_eq!(*old.value, [6; 4000]);
    }
    let start = scene.engine().watermarks().start;
    scene.engine().release(scene.engine().watermarks().acked).map(drop).unwrap();
    for _ in 0..3 {
        scene.settle();
    }
    assert!(scene.engine().watermarks().start > start, "{:?}", scene.engine().space());
    assert_eq!(scene.engine().stats().checkpoints, checkpoints, "released without one");
    assert!(scene.engine().fenced().is_none());
    scene.check(scene.engine().watermarks().acked);
    let crashed = scene.disk.crash_with(1, Survival::Nothing);
    scene.reopen(crashed).unwrap();
    Limit::lift(&scene.disk);
    for _ in 0..10 {
        scene.settle();
    }
    assert!(scene.engine().stats().checkpoints > 0);
    scene.append(1000).unwrap();
    let (disk, acked) = (scene.disk.clone(), scene.engine().watermarks().acked);
    scene.engine.take().unwrap().close().unwrap();
    scene.disk = disk;
    scene.open().unwrap();
    scene.check(acked);
    assert!(scene.engine().get(b"gone").unwrap().is_none(), "what was deleted came back");
    assert_eq!(scene.engine().range(&scene.queue()).max, QueueOffset(scene.messages.len() as u64));
}

/// K-63: the disk that fills right behind a checkpoint has room for another like it.
#[test]
fn a_checkpoint_like_the_last_one_finds_room_on_a_full_disk() {
    let scene = Scene::new(6, options());
    scene.settle();
    for round in 0..60 {
        for half in 0..2 {
            if half == 1 {
                scene.disk.set_capacity(Some(scene.disk.used_bytes()));
            }
            let before = scene.engine().stats().checkpoints;
            for number in 0..3 {
                let key = format!("{round}/{half}/{number}").into_bytes();
                let mut batch = WriteBatch::new();
                batch.put(&Put { key: &key, value: &[7; 9000], target: None }).unwrap();
                scene.place(batch).unwrap();
            }
            scene.settle();
            assert!(scene.engine().stats().checkpoints > before, "round {round}, {half}");
        }
        scene.disk.set_capacity(None);
        scene.settle();
        let acked = scene.engine().watermarks().acked;
        scene.engine().release(acked).map(drop).unwrap();
    }
}

const CHILD: &str = "ANCHORLOG_FILE_LIMIT_TEST";

/// The longest file that this process may write from now on; false where that cannot be set.
fn limit_files(bytes: u64) -> bool {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, bytes.min(hard), hard).is_ok()
}

fn real_options() -> EngineOptions {
    EngineOptions::default()
        .with_segment_bytes(1 << 20)
        .with_buffer_bytes(1 << 20)
        .with_backend(BackendChoice::Threads)
        .with_checkpoint_bytes(64 << 10)
        .with_checkpoint_interval(Some(Duration::from_millis(20)))
}

/// Not a test of its own: the process whose files may not be long. Ends with 0 when all is as it should be, with 77 when nothing can be
/// said.
#[test]
fn child() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    if !limit_files(512 << 10) {
        std::process::exit(77);
    }
    // Smaller than a segment: said, not died of.
    let error = Engine::open(&dir, real_options()).unwrap_err().to_string();
    assert!(error.contains("RLIMIT_FSIZE"), "{error}");
    assert!(limit_files(1 << 20));
    let engine = Engine::open(&dir, real_options()).unwrap();
    let queue = engine.queue(b"q").unwrap();
    let mut taken = 0;
    let refused = (0..30_000u64).find_map(|number| {
        let mut batch = WriteBatch::new();
        let (key, value) = (number.to_be_bytes().map(|byte| byte | 1 << 7), [7; 200]);
        batch.put(&Put { key: &key, value: &value, target: None }).unwrap();
        batch.append(&Append { queue: &queue, tag: 1, keys: &[], attributes: b"", payload: &[&value] }).unwrap();
        taken += 1;
        engine.append_and_wait(batch).err().map(|error| error.to_string())
    });
    // The store of queues and table came to the length that files may have.
    let refused = refused.expect("the store is never too long");
    assert!(refused.contains("File too large"), "{refused}");
    assert!(engine.fenced().is_none() && engine.range(&queue).max == QueueOffset(taken - 1));
    assert_eq!(
        engine.fetch(&Fetch { from_disk: true, ..Fetch::new(&queue, QueueOffset(0)) }).unwrap().status,
        FetchStatus::Found
    );
    limit_files(u64::MAX);
    let mut tries = 0;
    while engine.space().refuses {
        std::thread::park_timeout(Duration::from_millis(100));
        tries += 1;
        assert!(tries < 100, "{:?}", engine.space());
    }
    engine.close().unwrap();
    std::process::exit(0);
}

#[test]
fn a_limit_of_a_files_length_ends_no_process() {
    let dir = tempfile::Builder::new().prefix("anchorlog-limit-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    if output.status.code() == Some(77) {
        eprintln!("skipped: this machine lets no process limit the length of its files");
        return;
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{:?}: {said}", output.status);
}
