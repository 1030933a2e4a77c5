//! Retention: what may go goes, what is still needed stays where it was, and the disk holds little more than that.
#![expect(clippy::unwrap_used, reason = "a failing step ends the test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::clock::SimClock;
use anchorlog_engine::io::sim::{SimDisk, Survival};
use anchorlog_engine::{
    Append, AppendError, AppendOutcome, Engine, EngineOptions, Fetch, FetchStatus, Flush, Link, Lsn, Put, Queue,
    QueueOffset, ReadError, WriteBatch, limits,
};

const DIR: &str = "/log";
const SEGMENT: u64 = 60 << 10;

fn options() -> EngineOptions {
    EngineOptions::default()
        .with_segment_bytes(64 << 10)
        .with_chunk_bytes(16 << 10)
        .with_buffer_bytes(64 << 10)
        .with_cache_bytes(96 << 10)
        .with_spare_count(1)
        .with_checkpoint_interval(Some(Duration::from_millis(100)))
        .with_manual_drive()
}

struct Scene {
    disk: SimDisk,
    clock: Arc<SimClock>,
    options: EngineOptions,
}

impl Scene {
    fn new(options: EngineOptions) -> Scene {
        Scene { disk: SimDisk::new(11), clock: Arc::new(SimClock::default()), options }
    }

    fn open(&self) -> Engine {
        let clock = Arc::<SimClock>::clone(&self.clock);
        Engine::open_with(self.disk.backend(), clock, Path::new(DIR), self.options.clone()).unwrap()
    }

    fn crash(&mut self, engine: Engine) -> Engine {
        drop(engine);
        self.disk = self.disk.crash_with(3, Survival::Nothing);
        self.open()
    }

    /// As [`Scene::crash`], and the derived store is lost as well.
    fn lose_the_store(&mut self, engine: Engine) -> Engine {
        drop(engine);
        self.disk = self.disk.crash_with(3, Survival::Nothing);
        drop(self.disk.backend().remove(Path::new("/log/DERIVED")));
        self.open()
    }

    fn commit(&self, engine: &Engine, batch: &mut WriteBatch) -> AppendOutcome {
        loop {
            match engine.try_append(batch) {
                Ok(ticket) => {
                    while engine.watermarks().acked < engine.watermarks().assigned {
                        engine.step();
                    }
                    return ticket.outcome().clone();
                }
                Err(AppendError::Full { .. } | AppendError::Unreleased { .. }) => drop(engine.step()),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn rest(&self, engine: &Engine) {
        for _ in 0..600 {
            engine.step();
            self.clock.advance(Duration::from_millis(5));
        }
    }

    fn fill(&self, engine: &Engine, bytes: u64) {
        let queue = engine.queue(b"filler").unwrap();
        let end = engine.watermarks().assigned.0 + bytes;
        while engine.watermarks().assigned.0 < end {
            let mut batch = WriteBatch::new();
            batch.append(&message(&queue, &[&[7; 3000]])).unwrap();
            self.commit(engine, &mut batch);
        }
    }

    /// Everything below the log's end that nothing holds goes.
    fn release_all(&self, engine: &Engine) {
        let released = engine.release(engine.watermarks().acked).unwrap();
        self.rest(engine);
        assert_eq!(engine.watermarks().start, released.start, "{:?}", engine.retention());
    }

    fn files(&self, suffix: &str) -> usize {
        self.disk.files().iter().filter(|path| path.to_string_lossy().ends_with(suffix)).count()
    }
}

fn message<'a>(queue: &'a Queue, payload: &'a [&'a [u8]]) -> Append<'a> {
    Append { queue, tag: 1, keys: &[b"key"], attributes: b"first", payload }
}

fn read_from(engine: &Engine, queue: &Queue, from: QueueOffset) -> Vec<(u64, Vec<u8>)> {
    let mut next = from;
    let mut all = Vec::new();
    loop {
        let fetch = Fetch {
            queue,
            from: next,
            messages_max: 100,
            bytes_max: 1 << 20,
            scan_max: 100,
            from_disk: true,
            matches: &|_| true,
        };
        let found = engine.fetch(&fetch).unwrap();
        if found.status == FetchStatus::AtEnd {
            return all;
        }
        assert_eq!(found.status, FetchStatus::Found);
        next = found.next;
        all.extend(found.messages.iter().map(|message| (message.queue_offset.0, message.payload().to_vec())));
    }
}

/// A half message every so often, each held by a table entry.
fn half_messages(scene: &Scene, engine: &Engine, rounds: std::ops::Range<u64>) -> BTreeMap<u64, Lsn> {
    let half = engine.queue(b"half").unwrap();
    let mut kept = BTreeMap::new();
    for round in rounds {
        let mut batch = WriteBatch::new();
        let body = format!("half {round} ").repeat(20);
        let message = batch.append(&message(&half, &[body.as_bytes()])).unwrap();
        let key = format!("txn/{round}");
        batch.put(&Put { key: key.as_bytes(), value: b"half", target: Some(message.into()) }).unwrap();
        kept.insert(round, scene.commit(engine, &mut batch).first.lsn);
        scene.fill(engine, 30_000);
    }
    kept
}

fn body(round: u64) -> Vec<u8> {
    format!("half {round} ").repeat(20).into_bytes()
}

#[test]
fn what_entries_refer_to_survives_at_its_lsn_in_punched_segments() {
    let mut scene = Scene::new(options());
    let mut engine = scene.open();
    let kept = half_messages(&scene, &engine, 0..20);
    scene.fill(&engine, 4 * SEGMENT);
    scene.release_all(&engine);
    let info = engine.retention();
    assert!(info.sparse_segments >= 8 && (info.survivors, info.in_queues) == (20, 0), "{info:?}");
    assert!(engine.watermarks().start > *kept.last_key_value().unwrap().1, "nothing of them is in the dense log");
    assert!(info.punched_bytes > 8 * SEGMENT * 7 / 10, "{info:?}");
    for opening in 0..3 {
        for (round, lsn) in &kept {
            let found = engine.read(*lsn).unwrap();
            assert_eq!(found.payload(), body(*round));
            assert_eq!(engine.get(format!("txn/{round}").as_bytes()).unwrap().unwrap().target, Some(*lsn));
            let between = Lsn(lsn.0 + 8 * 700);
            assert!(matches!(engine.read(between), Err(ReadError::NotFound(_))), "{between}");
        }
        assert_eq!(engine.retention().survivors, 20);
        engine = if opening == 0 { scene.crash(engine) } else { scene.lose_the_store(engine) };
    }

    // They are committed, one by one, and what they lay in goes.
    let orders = engine.queue(b"orders").unwrap();
    for (round, lsn) in &kept {
        let mut batch = WriteBatch::new();
        let target = engine.reference(*lsn).unwrap().into();
        batch.link(&Link { queue: &orders, target, tag: 2, keys: &[], attributes: b"second" }).unwrap();
        batch.delete(format!("txn/{round}").as_bytes()).unwrap();
        scene.commit(&engine, &mut batch);
    }
    scene.rest(&engine);
    assert_eq!(read_from(&engine, &orders, QueueOffset(0)).len(), 20, "the links hold them now");
    assert_eq!(engine.retention().survivors, 20);
    scene.fill(&engine, 3 * SEGMENT);
    scene.release_all(&engine);
    scene.rest(&engine);
    assert_eq!(engine.retention().survivors, 0, "{:?}", engine.retention());
    assert_eq!(scene.files(".sparse"), 0);
    for lsn in kept.values() {
        assert!(matches!(engine.read(*lsn), Err(ReadError::NotFound(_))));
        assert!(matches!(engine.reference(*lsn), Err(ReadError::NotFound(_))));
    }
}

/// Closes K-61 (messages expire that nobody has consumed).
#[test]
fn a_pinned_queue_keeps_what_its_reader_needs_and_stays_dense() {
    let mut scene = Scene::new(options());
    let mut engine = scene.open();
    let idle = engine.queue(b"idle").unwrap();
    for number in 0..12_u64 {
        let mut batch = WriteBatch::new();
        batch.append(&message(&idle, &[&number.to_le_bytes()])).unwrap();
        scene.commit(&engine, &mut batch);
        scene.fill(&engine, 20_000);
    }
    scene.fill(&engine, 3 * SEGMENT);
    engine.pin_queue("group", &idle, Some(QueueOffset(4)));
    scene.release_all(&engine);
    let expected: Vec<(u64, Vec<u8>)> = (4..12).map(|number: u64| (number, number.to_le_bytes().to_vec())).collect();
    scene.options = scene.options.clone().with_retention_held(true);
    for opening in 0..3 {
        let idle = engine.queue(b"idle").unwrap();
        assert_eq!(engine.range(&idle).min, QueueOffset(4), "opening {opening}");
        assert_eq!(read_from(&engine, &idle, QueueOffset(4)), expected);
        engine = if opening == 0 { scene.crash(engine) } else { scene.lose_the_store(engine) };
        scene.rest(&engine);
    }
    // The reader moves on; what it has read goes with the next review.
    let idle = engine.queue(b"idle").unwrap();
    engine.pin_queue("group", &idle, Some(QueueOffset(11)));
    engine.start_retention();
    scene.rest(&engine);
    assert_eq!(read_from(&engine, &idle, engine.range(&idle).min).last(), expected.last());
    assert!(engine.range(&idle).min >= QueueOffset(8), "{:?}", engine.range(&idle));
    engine.pin_queue("group", &idle, None);
    scene.rest(&engine);
    assert_eq!((engine.retention().survivors, engine.range(&idle).min), (0, QueueOffset(12)));
    assert_eq!(scene.files(".sparse"), 0);
}

/// K-24, K-61: age goes by the wall clock, and what is needed stays whatever the clock says.
#[test]
fn old_segments_go_by_age_and_needed_messages_stay() {
    let scene = Scene::new(options().with_retain_age(Some(Duration::from_secs(3600))));
    let engine = scene.open();
    let kept = half_messages(&scene, &engine, 0..4);
    scene.fill(&engine, 3 * SEGMENT);
    scene.rest(&engine);
    assert_eq!(engine.watermarks().start, Lsn(0), "nothing is an hour old");
    let old_end = engine.watermarks().assigned;
    scene.clock.advance(Duration::from_secs(3700));
    scene.fill(&engine, 2 * SEGMENT);
    scene.rest(&engine);
    let start = engine.watermarks().start;
    assert!(start.0 > 0 && start.0 + 2 * SEGMENT > old_end.0 && start <= old_end, "{start} {old_end}");
    for (round, lsn) in &kept {
        assert_eq!(engine.read(*lsn).unwrap().payload(), body(*round));
    }
}

/// K-62: a disk that runs full releases what nobody needs, and no more.
#[test]
fn low_space_releases_segments_below_every_pin() {
    let scene = Scene::new(options().with_free_bytes_min(Some(4 << 20)));
    scene.disk.set_capacity(Some(12 << 20));
    let engine = scene.open();
    engine.pin("reader", Some(Lsn(3 * SEGMENT)));
    scene.fill(&engine, 7 << 20);
    scene.rest(&engine);
    scene.rest(&engine);
    assert_eq!(engine.watermarks().start, Lsn(3 * SEGMENT), "{:?}", engine.retention());
    let info = engine.retention();
    assert_eq!(info.held_by, [("reader".to_owned(), Lsn(3 * SEGMENT))]);
    engine.pin("reader", None);
    scene.rest(&engine);
    scene.rest(&engine);
    assert!(engine.watermarks().start.0 > 4 * SEGMENT);
}

/// K-36, K-65: a file system without holes keeps the segments whole, and says so.
#[test]
fn without_holes_segments_are_kept_whole_and_counted() {
    let mut scene = Scene::new(options());
    scene.disk.set_punches_holes(false);
    let mut engine = scene.open();
    let kept = half_messages(&scene, &engine, 0..6);
    scene.fill(&engine, 3 * SEGMENT);
    scene.release_all(&engine);
    let info = engine.retention();
    assert!(info.kept_whole >= 3 && info.punched_bytes == 0 && info.survivors == 6, "{info:?}");
    engine = scene.crash(engine);
    for (round, lsn) in &kept {
        assert_eq!(engine.read(*lsn).unwrap().payload(), body(*round));
    }
}

/// Who is faster than the release waits for it, unless it helps to free space; and nobody waits for what a pin holds.
#[test]
fn a_log_of_bounded_length_outgrows_that_by_whole_segments_at_most() {
    let flush = Flush::Async { interval: Duration::from_millis(50), bytes: 256 << 10 };
    let fast = options().with_flush(flush).with_buffer_bytes(4 << 20).with_cache_bytes(5 << 20);
    let scene = Scene::new(fast.with_retain_bytes(Some(4 * SEGMENT)));
    let engine = scene.open();
    let queue = engine.queue(b"orders").unwrap();
    // One is spare.
    let most = 4 * SEGMENT + (limits::OVERSHOOT_SEGMENTS + 1) * SEGMENT;
    let (mut refused, mut longest) = (0, 0);
    let one = || {
        let mut batch = WriteBatch::new();
        batch.append(&message(&queue, &[&[7; 3000]])).unwrap();
        batch
    };
    let length = || engine.watermarks().assigned.since(engine.watermarks().start);
    while engine.watermarks().assigned.0 < 100 * SEGMENT {
        // All at once: a buffer of 68 segments takes it.
        match engine.try_append(&mut one()) {
            Ok(_) => longest = longest.max(length()),
            Err(AppendError::Unreleased { assigned, bound }) => {
                assert!(assigned == engine.watermarks().assigned && bound.0 - assigned.0 < 4096, "{assigned} {bound}");
                refused += 1;
                let mut essential = WriteBatch::new();
                essential.put(&Put { key: b"offset", value: b"5", target: None }).unwrap();
                essential.set_essential(true);
                drop(engine.try_append(&mut essential).unwrap());
                engine.step();
                scene.clock.advance(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 20 && longest <= most && longest > most - 4096, "{refused} refused, at {longest} of {most}");

    engine.pin("reader", Some(engine.watermarks().start));
    scene.fill(&engine, 20 * SEGMENT);
    assert!(length() > most + 10 * SEGMENT);
    engine.pin("reader", None);
    scene.rest(&engine);
    assert!(length() <= 5 * SEGMENT, "{:?}", engine.retention());
}

/// The power fails at every I/O of a release with survivors, and of what follows.
#[test]
fn a_release_with_survivors_is_there_or_not_wherever_the_power_fails() {
    let mut base = Scene::new(options());
    let engine = base.open();
    let kept = half_messages(&base, &engine, 0..5);
    let idle = engine.queue(b"idle").unwrap();
    let mut batch = WriteBatch::new();
    batch.append(&message(&idle, &[b"needed"])).unwrap();
    base.commit(&engine, &mut batch);
    base.fill(&engine, 3 * SEGMENT);
    base.rest(&engine);
    drop(engine);
    base.disk = base.disk.kill();
    let (mut last, mut scenes) = (0, 0);
    loop {
        let mut scene = Scene::new(options());
        scene.disk = base.disk.kill();
        scene.disk.stop_after(scene.disk.io_count() + last);
        let opened = Engine::open_with(
            scene.disk.backend(),
            Arc::<SimClock>::clone(&scene.clock),
            Path::new(DIR),
            scene.options.clone(),
        );
        if let Ok(engine) = opened {
            let idle = engine.queue(b"idle").unwrap();
            engine.pin_queue("group", &idle, Some(QueueOffset(0)));
            drop(engine.release(engine.watermarks().acked));
            scene.rest(&engine);
            let mut batch = WriteBatch::new();
            batch.delete(b"txn/0").unwrap();
            drop(engine.try_append(&mut batch));
            scene.rest(&engine);
        }
        let died = scene.disk.is_dead();
        let survival = if last.is_multiple_of(2) { Survival::Nothing } else { Survival::Seeded };
        scene.options = options().with_retention_held(true);
        for store in [true, false] {
            let disk = scene.disk.crash_with(last, survival);
            if !store {
                drop(disk.backend().remove(Path::new("/log/DERIVED")));
            }
            let engine = Scene { disk, clock: Arc::clone(&scene.clock), options: scene.options.clone() }.open();
            for (round, lsn) in &kept {
                if engine.get(format!("txn/{round}").as_bytes()).unwrap().is_some() {
                    let found = engine.read(*lsn).unwrap_or_else(|error| panic!("stopped after {last}: {error}"));
                    assert_eq!(found.payload(), body(*round), "stopped after {last}");
                } else {
                    assert_eq!(*round, 0, "stopped after {last}");
                }
            }
            let idle = engine.queue(b"idle").unwrap();
            let needed = read_from(&engine, &idle, engine.range(&idle).min);
            assert_eq!(needed, [(0, b"needed".to_vec())], "stopped after {last}, store {store}");
        }
        scenes += 1;
        if !died {
            break;
        }
        last += 1 + last / 80;
    }
    assert!(scenes > 60, "{scenes} scenes are too few to mean anything");
}

/// A month of traffic with one survivor in a hundred keeps the disk within 1.2 times of the live blocks. Closes K-64 (deletion in
/// storms): segments go one by one, holes a few at a time.
#[test]
fn a_long_run_with_few_survivors_takes_little_more_than_their_blocks() {
    let scene = Scene::new(options().with_retain_bytes(Some(4 * SEGMENT)));
    let engine = scene.open();
    let queue = engine.queue(b"timers").unwrap();
    let mut numbers = 0_u64;
    for day in 0..30_u64 {
        for _hour in 0..24_u64 {
            let mut batch = WriteBatch::new();
            for minute in 0..40_u64 {
                let message = batch.append(&message(&queue, &[&[9; 150]])).unwrap();
                if (numbers + minute).is_multiple_of(100) {
                    let key = format!("due/{:06}", numbers + minute);
                    batch.put(&Put { key: key.as_bytes(), value: b"", target: Some(message.into()) }).unwrap();
                }
            }
            // Each timer fires after ten days.
            if day >= 10 && numbers >= 9600 {
                for gone in numbers - 9600..numbers - 9600 + 40 {
                    if gone.is_multiple_of(100) {
                        batch.delete(format!("due/{gone:06}").as_bytes()).unwrap();
                    }
                }
            }
            numbers += 40;
            scene.commit(&engine, &mut batch);
            scene.clock.advance(Duration::from_secs(60));
            for _ in 0..12 {
                engine.step();
            }
        }
    }
    scene.clock.advance(Duration::from_secs(60));
    scene.rest(&engine);
    scene.rest(&engine);
    let snapshot = engine.snapshot();
    let due = snapshot.range(b"due/", Some(b"due0"), 100_000).unwrap();
    let info = engine.retention();
    assert!(info.sparse_segments > 5 && due.len() > 90, "{} {info:?}", due.len());
    let start = engine.watermarks().start;
    let blocks: std::collections::BTreeSet<(u64, u64)> = due
        .iter()
        .filter_map(|(_, entry)| entry.target)
        .filter(|target| *target < start)
        .flat_map(|target| {
            // The record, and its frame's header, which lies at most a frame before it.
            assert_eq!(engine.read(target).unwrap().payload(), [9; 150]);
            let segment = target.0 / SEGMENT;
            let offset = 4096 + target.0 % SEGMENT;
            [(segment, offset / 4096), (segment, (offset + 250) / 4096)]
        })
        .collect();
    let sparse: u64 = scene
        .disk
        .files()
        .iter()
        .filter(|path| path.to_string_lossy().ends_with(".sparse"))
        .map(|path| {
            scene.disk.read(path).unwrap().chunks(4096).filter(|block| block.iter().any(|byte| *byte != 0)).count()
        })
        .map(|count| u64::try_from(count).unwrap())
        .sum();
    // Segment headers and frame headers are live, too: a block of each at most.
    let live = u64::try_from(blocks.len()).unwrap() * 2 + u64::try_from(info.sparse_segments).unwrap();
    assert!(sparse * 10 <= live * 12, "{sparse} blocks are kept for {live} live ones: {info:?}");
}

/// A bit flips in what says an entry last, or in the frame around it: whatever it hits, the segment goes, and the entry does not.
#[test]
fn an_entry_whose_record_rotted_is_said_again_before_its_segment_goes() {
    for at in (0..ENTRY_FRAME_BYTES).step_by(5) {
        for from_the_log in [false, true] {
            let mut scene = Scene::new(options());
            let mut engine = scene.open();
            scene.fill(&engine, 9000);
            let put = |key: &[u8], value: &[u8]| {
                let mut batch = WriteBatch::new();
                batch.put(&Put { key, value, target: None }).unwrap();
                scene.commit(&engine, &mut batch)
            };
            let topic = put(b"topic/orders", b"four queues");
            let group = put(b"group/billing", b"registered");
            assert_eq!(topic.end_lsn.since(topic.lsn), ENTRY_FRAME_BYTES);
            scene.fill(&engine, 5 * SEGMENT);
            scene.rest(&engine);
            if from_the_log {
                // Nobody remembers where entries are: every frame is read.
                engine = scene.crash(engine);
            }
            let path = Path::new("/log/00000000000000000000.seg");
            scene.disk.flip_bit(path, 4096 + topic.lsn.0 + at, 2);
            scene.release_all(&engine);
            let info = engine.retention();
            assert_eq!((info.passed_damage, info.failing), (1, None), "byte {at}");
            assert!(engine.watermarks().start > group.lsn && engine.stats().damaged_records > 0);
            scene.fill(&engine, SEGMENT);
            let engine = scene.lose_the_store(engine);
            for (key, value) in [(&b"topic/orders"[..], &b"four queues"[..]), (b"group/billing", b"registered")] {
                let entry = engine.get(key).unwrap();
                assert_eq!(entry.map(|entry| entry.value.to_vec()).as_deref(), Some(value), "byte {at}");
            }
        }
    }
}

/// Frame header, and a record with a name and a value of one line.
const ENTRY_FRAME_BYTES: u64 = 64 + 16 + 56;

/// What is damaged holds back only what somebody needs of it; how old a segment is, is asked of the next one that can be read.
#[test]
fn segments_of_which_frame_headers_rotted_go_by_size_and_by_age() {
    let by_age = options().with_retain_age(Some(Duration::from_secs(3600)));
    for options in [options().with_retain_bytes(Some(3 * SEGMENT)).with_retention_held(true), by_age] {
        let mut scene = Scene::new(options);
        let engine = scene.open();
        let kept = half_messages(&scene, &engine, 0..3);
        scene.fill(&engine, 8 * SEGMENT);
        scene.rest(&engine);
        let engine = scene.crash(engine);
        // The first frames of all segments but the newest: nothing that can be read says where the next one begins.
        for segment in 0..6_u64 {
            let path = format!("/log/{:020}.seg", segment * SEGMENT);
            scene.disk.flip_bit(Path::new(&path), 4096 + 9, 1);
        }
        scene.clock.advance(Duration::from_secs(3700));
        scene.fill(&engine, SEGMENT);
        engine.start_retention();
        scene.rest(&engine);
        scene.rest(&engine);
        let info = engine.retention();
        assert!(info.start >= Lsn(6 * SEGMENT) && info.failing.is_none(), "{info:?}");
        assert!(info.passed_damage > 0 && engine.stats().damaged_records > 0, "{info:?}");
        let engine = scene.lose_the_store(engine);
        for (round, lsn) in &kept {
            assert_eq!(engine.get(format!("txn/{round}").as_bytes()).unwrap().unwrap().target, Some(*lsn));
            assert_eq!(engine.read(*lsn).unwrap().payload(), body(*round));
        }
    }
}

/// Messages for a group that never comes, many in one batch; returns their bodies.
fn backlog(scene: &Scene, engine: &Engine, count: u64) -> Vec<(u64, Vec<u8>)> {
    let idle = engine.queue(b"idle").unwrap();
    let all: Vec<(u64, Vec<u8>)> = (0..count).map(|number| (number, number.to_le_bytes().to_vec())).collect();
    for some in all.chunks(50) {
        let mut batch = WriteBatch::new();
        for (_, body) in some {
            batch.append(&message(&idle, &[body])).unwrap();
        }
        scene.commit(engine, &mut batch);
    }
    all
}

/// Closes K-62 (a group that never comes back stops retention): what it needs stays, however much it is, and the rest goes.
#[test]
fn survivors_that_fit_no_single_frame_are_told_in_several() {
    let mut scene = Scene::new(options());
    let engine = scene.open();
    let all = backlog(&scene, &engine, 9500);
    scene.fill(&engine, 4 * SEGMENT);
    let idle = engine.queue(b"idle").unwrap();
    engine.pin_queue("group", &idle, Some(QueueOffset(0)));
    scene.release_all(&engine);
    let info = engine.retention();
    assert!(info.start > Lsn(10 * SEGMENT) && info.failing.is_none(), "{info:?}");
    assert_eq!((info.survivors, info.in_queues), (all.len(), all.len()));
    scene.options = scene.options.clone().with_retention_held(true);
    let engine = scene.crash(engine);
    assert_eq!(read_from(&engine, &engine.queue(b"idle").unwrap(), QueueOffset(0)), all);
    let engine = scene.lose_the_store(engine);
    assert_eq!(read_from(&engine, &engine.queue(b"idle").unwrap(), QueueOffset(0)), all);
}

/// The power fails at every I/O of a release whose survivors are told in several frames: the log begins where it did, or all are told.
#[test]
fn survivors_told_in_several_frames_are_all_there_wherever_the_power_fails() {
    let mut base = Scene::new(options());
    let engine = base.open();
    let all = backlog(&base, &engine, 4000);
    base.fill(&engine, 3 * SEGMENT);
    base.rest(&engine);
    drop(engine);
    base.disk = base.disk.kill();
    let release = |scene: &Scene, engine: &Engine| {
        let idle = engine.queue(b"idle").unwrap();
        engine.pin_queue("group", &idle, Some(QueueOffset(0)));
        engine.start_retention();
        drop(engine.release(engine.watermarks().acked));
        for _ in 0..200 {
            engine.step();
            scene.clock.advance(Duration::from_millis(5));
        }
    };
    let held = || options().with_retention_held(true);
    let (mut last, mut scenes, mut starts) = (0, 0, std::collections::BTreeSet::new());
    loop {
        let mut scene = Scene::new(held());
        scene.disk = base.disk.kill();
        let engine = scene.open();
        scene.disk.stop_after(scene.disk.io_count() + last);
        release(&scene, &engine);
        let died = scene.disk.is_dead();
        drop(engine);
        let survival = if last.is_multiple_of(2) { Survival::Nothing } else { Survival::Seeded };
        scene.disk = scene.disk.crash_with(last, survival);
        if last.is_multiple_of(3) {
            drop(scene.disk.backend().remove(Path::new("/log/DERIVED")));
        }
        let engine = scene.open();
        let idle = engine.queue(b"idle").unwrap();
        starts.insert(engine.watermarks().start);
        assert_eq!(read_from(&engine, &idle, QueueOffset(0)), all, "stopped after {last}");
        release(&scene, &engine);
        let info = engine.retention();
        assert!(info.start > Lsn(5 * SEGMENT) && info.survivors == all.len(), "stopped after {last}: {info:?}");
        assert_eq!(read_from(&engine, &idle, QueueOffset(0)), all, "released after {last}");
        scenes += 1;
        if !died {
            break;
        }
        last += 1 + last / 40;
    }
    assert!(scenes > 30 && starts.len() > 1, "{scenes} scenes, {starts:?}");
}

/// How much a log keeps is measured by the segments that it has, not by those that a new one would get.
#[test]
fn what_is_to_be_retained_is_two_segments_of_this_log_at_least() {
    let mut scene = Scene::new(options());
    drop(scene.open());
    let opened = |scene: &Scene, segment_bytes: u64, retain_bytes: u64| {
        let options = scene.options.clone().with_segment_bytes(segment_bytes).with_retain_bytes(Some(retain_bytes));
        let clock = Arc::<SimClock>::clone(&scene.clock);
        Engine::open_with(scene.disk.backend(), clock, Path::new(DIR), options).map(drop)
    };
    scene.options = scene.options.clone().with_buffer_bytes(2 << 20).with_cache_bytes(3 << 20);
    opened(&scene, 1 << 20, 128 << 10).unwrap();
    let refused = opened(&scene, 1 << 20, (128 << 10) - 1).unwrap_err().to_string();
    assert!(refused.ends_with("is 131071; it must be at least 131072, two segments of this log"), "{refused}");
    let large = Scene::new(scene.options.clone().with_segment_bytes(1 << 20));
    drop(large.open());
    let refused = opened(&large, 64 << 10, 1 << 20).unwrap_err().to_string();
    assert!(refused.ends_with("at least 2097152, two segments of this log"), "{refused}");
}
