//! Checkpoints: opening from them gives what reading the whole log gives, and without them, damaged or old, nothing is missing.
#![expect(clippy::unwrap_used, reason = "a failing step ends the test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::clock::SimClock;
use anchorlog_engine::io::sim::{SimDisk, Survival};
use anchorlog_engine::{
    Append, AppendError, BackendChoice, Engine, EngineOptions, Fetch, FetchStatus, Flush, Link, OpenError, Put, Queue,
    QueueOffset, Watermark, WriteBatch,
};

const DIR: &str = "/log";
const STORE: &str = "/log/DERIVED";

fn options() -> EngineOptions {
    EngineOptions::default()
        .with_segment_bytes(64 << 10)
        .with_chunk_bytes(16 << 10)
        .with_buffer_bytes(64 << 10)
        .with_cache_bytes(96 << 10)
        .with_spare_count(1)
        .with_checkpoint_bytes(64 << 10)
        .with_checkpoint_interval(Some(Duration::from_millis(50)))
        .with_manual_drive()
}

fn open(disk: &SimDisk, clock: &Arc<SimClock>, options: EngineOptions) -> Result<Engine, OpenError> {
    Engine::open_with(disk.backend(), Arc::<SimClock>::clone(clock), Path::new(DIR), options)
}

/// Messages in a few queues, entries that come, change and go, links, now and then a queue that is dropped. All of it acknowledged when it
/// returns, unless the machine died. Rounds go on from where the ones before ended.
fn work(engine: &Engine, clock: &SimClock, rounds: std::ops::Range<u64>) {
    for round in rounds {
        let mut batch = WriteBatch::new();
        // Somebody asks for what nothing is ever appended to.
        let empty = engine.queue(format!("empty-{}", round / 60).as_bytes()).unwrap();
        assert_eq!(engine.range(&empty).max.0, 0);
        let queue = engine.queue(format!("queue-{}", round % 7).as_bytes()).unwrap();
        let body = vec![u8::try_from(round % 251).unwrap(); usize::try_from(200 + round * 131 % 3000).unwrap()];
        let append = Append { queue: &queue, tag: 1, keys: &[b"key"], attributes: b"a", payload: &[&body] };
        let message = batch.append(&append).unwrap();
        let target = round.is_multiple_of(5).then_some(message.into());
        let key = format!("entry/{:03}", round * 7 % 90);
        batch.put(&Put { key: key.as_bytes(), value: round.to_string().as_bytes(), target }).unwrap();
        if round % 3 == 0 {
            batch.delete(format!("entry/{:03}", round * 11 % 90).as_bytes()).unwrap();
        }
        if round % 11 == 0 {
            let other = engine.queue(b"linked").unwrap();
            batch.link(&Link { queue: &other, target: message.into(), tag: 2, keys: &[], attributes: b"b" }).unwrap();
        }
        if round % 37 == 36 {
            batch.drop_queue(&engine.queue(b"queue-3").unwrap()).unwrap();
        }
        loop {
            match engine.try_append(&mut batch) {
                Ok(_) => break,
                Err(AppendError::Full { .. } | AppendError::Unreleased { .. }) => drop(engine.step()),
                Err(_) => return,
            }
        }
        engine.step();
        if round % 4 == 0 {
            clock.advance(Duration::from_millis(7));
        }
    }
    for _ in 0..100 {
        if engine.watermarks().acked == engine.watermarks().assigned || engine.fenced().is_some() {
            break;
        }
        engine.step();
    }
}

/// LSN, store time, attributes and payload of a message.
type Seen = (u64, u64, Vec<u8>);
/// First readable offset, next offset, and the messages.
type SeenQueue = (u64, u64, Vec<Seen>);
/// Key, value, LSN and target of a table entry.
type SeenEntry = (Vec<u8>, Vec<u8>, u64, Option<u64>);

/// All that readers can see.
#[derive(Debug, PartialEq, Eq)]
struct View {
    /// By name and incarnation.
    queues: BTreeMap<(Vec<u8>, u32), SeenQueue>,
    entries: Vec<SeenEntry>,
}

fn view(engine: &Engine) -> View {
    let mut queues = BTreeMap::new();
    for queue in engine.queues() {
        let range = engine.range(&queue);
        let (mut messages, mut next) = (Vec::new(), range.min);
        loop {
            let fetch = Fetch {
                queue: &queue,
                from: next,
                messages_max: 50,
                bytes_max: 1 << 20,
                scan_max: 50,
                from_disk: true,
                matches: &|_| true,
            };
            let found = engine.fetch(&fetch).unwrap();
            if found.status == FetchStatus::AtEnd {
                break;
            }
            assert_eq!(found.status, FetchStatus::Found, "{:?} at {next}", String::from_utf8_lossy(queue.name()));
            next = found.next;
            messages.extend(found.messages.iter().map(|message| {
                (message.lsn.0, message.store_time_ms, [message.attributes(), message.payload()].concat())
            }));
        }
        if let Some((_, time, _)) = messages.get(messages.len() / 2) {
            let by_time = engine.offset_by_time(&queue, *time).unwrap();
            let at = |offset: QueueOffset| messages[usize::try_from(offset.0 - range.min.0).unwrap()].1;
            assert!(at(by_time) == *time && (by_time == range.min || at(QueueOffset(by_time.0 - 1)) < *time));
        }
        queues.insert((queue.name().to_vec(), queue.incarnation()), (range.min.0, range.max.0, messages));
    }
    // A queue that nothing was ever appended to is not in the log.
    queues.retain(|(_, incarnation), (_, max, _)| *max > 0 || *incarnation > 0);
    let snapshot = engine.snapshot();
    let mut entries = Vec::new();
    let mut from = Vec::new();
    loop {
        let page = snapshot.range(&from, None, 13).unwrap();
        let Some((last, _)) = page.last() else { break };
        from.clone_from(last);
        from.push(0);
        for (key, entry) in page {
            assert_eq!(snapshot.get(&key).unwrap().as_ref(), Some(&entry));
            entries.push((key, entry.value.to_vec(), entry.lsn.0, entry.target.map(|target| target.0)));
        }
    }
    View { queues, entries }
}

/// A log with several checkpoints, and what it showed.
fn checkpointed(seed: u64, options: EngineOptions) -> (SimDisk, View) {
    let (disk, clock) = (SimDisk::new(seed), Arc::new(SimClock::default()));
    let engine = open(&disk, &clock, options).unwrap();
    work(&engine, &clock, 0..400);
    assert!(engine.stats().checkpoints > 3, "{}", engine.stats().checkpoints);
    let seen = view(&engine);
    (disk, seen)
}

/// Closes K-23 (a checkpoint ahead of the queues) and K-30 (queues that the log does not determine).
#[test]
fn opening_from_a_checkpoint_shows_what_the_whole_log_shows() {
    let (disk, seen) = checkpointed(1, options());
    let clock = Arc::new(SimClock::default());
    let from_checkpoint = open(&disk.kill(), &clock, options()).unwrap();
    let from_log = open(&disk.kill(), &clock, options().with_checkpoint_interval(None)).unwrap();
    assert_eq!(view(&from_checkpoint), seen);
    assert_eq!(view(&from_log), seen);
    let read = |engine: &Engine| {
        let line = &engine.info().recovery;
        line.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert!(read(&from_checkpoint) * 3 < read(&from_log), "{} frames", read(&from_checkpoint));
}

/// A consumer asks for queues that nothing was sent to yet, others come after them, and one is dropped: each keeps its number.
#[test]
fn queues_that_were_only_asked_for_leave_the_checkpoint_whole() {
    let home = tempfile::tempdir().unwrap();
    let options = EngineOptions::default().with_backend(BackendChoice::Threads).with_segment_bytes(64 << 10);
    for opening in 0..5 {
        let engine = Engine::open(home.path(), options.clone()).unwrap();
        // The segment that holds the end of the checkpoint is read, and nothing before.
        let line = engine.info().recovery.clone();
        let frames: u64 = line.split(' ').next().unwrap().parse().unwrap();
        assert!(frames <= 6, "opening {opening}: {line}");
        let find = |name: &str, number: u64| engine.queue(format!("{number}/{name}").as_bytes()).unwrap();
        for number in 0..opening {
            let ends = ["empty", "full", "dropped"].map(|name| engine.range(&find(name, number)).max.0);
            assert_eq!(ends, [0, 8, 0], "{number} in opening {opening}");
        }
        let push = |batch: &mut WriteBatch, queue: &Queue| {
            batch.append(&Append { queue, tag: 0, keys: &[], attributes: b"", payload: &[&[7; 20_000]] }).unwrap();
        };
        let (_empty, dropped, full) = (find("empty", opening), find("dropped", opening), find("full", opening));
        for _ in 0..8 {
            let mut batch = WriteBatch::new();
            push(&mut batch, &full);
            engine.append(batch).unwrap().wait().unwrap();
        }
        let mut batch = WriteBatch::new();
        push(&mut batch, &dropped);
        batch.drop_queue(&dropped).unwrap();
        engine.append(batch).unwrap().wait().unwrap();
        // What comes after a dropped one is asked for, and stays empty.
        assert_eq!(engine.range(&find("dropped", opening)).max.0, 0);
        engine.close().unwrap();
    }
}

/// What opening reads of a long log does not stay in memory: it goes to a new store on the way, as far as it is known to be durable.
#[test]
fn a_log_that_is_read_whole_is_saved_on_the_way() {
    let asynchronous = Flush::Async { interval: Duration::from_millis(20), bytes: 32 << 10 };
    for (seed, flush) in [(21, Flush::Sync), (22, asynchronous)] {
        let (disk, _) = checkpointed(seed, options().with_flush(flush));
        let clock = Arc::new(SimClock::default());
        // A killed process takes along what it had not handed over.
        let seen = view(&open(&disk.kill(), &clock, options().with_checkpoint_interval(None)).unwrap());
        for (bound, saves) in [(64 << 10, true), (512 << 20, false)] {
            let disk = disk.kill();
            disk.backend().remove(Path::new(STORE)).unwrap();
            let few = options().with_flush(flush).with_unsaved_bytes_max(bound);
            let engine = open(&disk, &clock, few.clone()).unwrap();
            assert_eq!(engine.stats().derived_bytes > 0, saves, "before its first step");
            assert!(view(&engine) == seen, "seed {seed}, bound {bound}");
            drop(engine);
            let again = open(&disk.kill(), &clock, few).unwrap();
            assert!(view(&again) == seen, "seed {seed}, bound {bound}: once more from what was saved");
        }
    }
}

/// Less than the bound is not saved on the way. It counts all the same: the first checkpoint is due at once, whatever the time.
#[test]
fn what_opening_did_not_save_is_saved_as_soon_as_it_is_open() {
    let (disk, clock) = (SimDisk::new(31), Arc::new(SimClock::default()));
    let options = options()
        .with_checkpoint_interval(Some(Duration::from_secs(3600)))
        .with_checkpoint_bytes(1 << 30)
        .with_unsaved_bytes_max(64 << 10);
    let engine = open(&disk, &clock, options.clone().with_checkpoint_interval(None)).unwrap();
    let queue = engine.queue(b"orders/0").unwrap();
    for number in 0..100_u32 {
        let mut batch = WriteBatch::new();
        for _ in 0..10 {
            let payload: &[&[u8]] = &[&number.to_be_bytes()];
            batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload }).unwrap();
        }
        drop(engine.try_append(&mut batch).unwrap());
        apply(&engine);
    }
    let seen = view(&engine);
    drop(engine);
    let engine = open(&disk.kill(), &clock, options).unwrap();
    assert_eq!((engine.stats().derived_bytes, engine.stats().checkpoints), (0, 0));
    for _ in 0..20 {
        engine.step();
    }
    assert_eq!(engine.stats().checkpoints, 1);
    assert!(view(&engine) == seen);
}

/// Where threads drive the engine, one applies what another reads, and a third saves: of enough queues and bytes that they do.
#[test]
fn a_long_log_that_threads_read_is_the_same() {
    let home = tempfile::tempdir().unwrap();
    let options = EngineOptions::default()
        .with_backend(BackendChoice::Threads)
        .with_flush(Flush::async_default())
        .with_segment_bytes(1 << 20)
        .with_spare_count(1);
    let engine = Engine::open(home.path(), options.clone()).unwrap();
    let queues: Vec<_> = (0..300).map(|number| engine.queue(format!("topic/{number}").as_bytes()).unwrap()).collect();
    for (number, queue) in queues.iter().cycle().take(9000).enumerate() {
        let mut batch = WriteBatch::new();
        let body = number.to_string().repeat(120);
        batch.append(&Append { queue, tag: 0, keys: &[], attributes: b"", payload: &[body.as_bytes()] }).unwrap();
        let value = body.as_bytes();
        batch.put(&Put { key: format!("entry/{}", number % 700).as_bytes(), value, target: None }).unwrap();
        drop(engine.append(batch).unwrap());
    }
    engine.flush().unwrap();
    let seen = view(&engine);
    engine.close().unwrap();
    for bound in [256 << 10, 512 << 20] {
        std::fs::remove_file(home.path().join("DERIVED")).unwrap();
        let engine = Engine::open(home.path(), options.clone().with_unsaved_bytes_max(bound)).unwrap();
        assert!(view(&engine) == seen, "bound {bound}");
        engine.close().unwrap();
    }
}

/// A checkpoint that the log does not follow, with so much behind it that a thread applies that.
#[test]
fn a_checkpoint_that_contradicts_a_long_log_is_not_believed_by_threads_either() {
    let home = tempfile::tempdir().unwrap();
    let options = EngineOptions::default()
        .with_backend(BackendChoice::Threads)
        .with_flush(Flush::async_default())
        .with_segment_bytes(1 << 20)
        .with_spare_count(1);
    let append = |dir: &Path, queue: &[u8], count: usize| {
        let engine = Engine::open(dir, options.clone()).unwrap();
        let queue = engine.queue(queue).unwrap();
        for _ in 0..count {
            let mut batch = WriteBatch::new();
            batch
                .append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload: &[&[7; 1000]] })
                .unwrap();
            drop(engine.append(batch).unwrap());
        }
        engine.flush().unwrap();
        let seen = view(&engine);
        engine.close().unwrap();
        seen
    };
    let [one, other] = ["one", "other"].map(|name| home.path().join(name));
    append(&one, b"first", 1);
    std::fs::create_dir(&other).unwrap();
    for file in std::fs::read_dir(&one).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), other.join(file.file_name())).unwrap();
    }
    append(&one, b"aa", 1);
    append(&other, b"bb", 1);
    let seen = append(&other, b"aa", 4000);
    std::fs::copy(one.join("DERIVED"), other.join("DERIVED")).unwrap();
    let engine = Engine::open(&other, options.clone()).unwrap();
    assert!(view(&engine) == seen);
    engine.close().unwrap();
}

#[test]
fn after_retention_the_checkpoint_and_the_log_still_agree() {
    let retaining = options().with_retain_bytes(Some(256 << 10));
    let (disk, _) = checkpointed(2, options());
    let (mut disk, clock) = (disk.kill(), Arc::new(SimClock::default()));
    for round in 1..6 {
        let engine = open(&disk, &clock, retaining.clone()).unwrap();
        work(&engine, &clock, round * 400..(round + 1) * 400);
        for _ in 0..300 {
            engine.step();
            clock.advance(Duration::from_millis(5));
        }
        assert!(engine.watermarks().start.0 > 0, "something was released");
        let seen = view(&engine);
        drop(engine);
        disk = disk.crash_with(round, Survival::Nothing);
        let again = open(&disk, &clock, retaining.clone()).unwrap();
        assert_eq!(view(&again), seen, "round {round}");
        drop(again);
        // Without the store the retained log says the same.
        let copy = disk.kill();
        copy.backend().remove(Path::new(STORE)).unwrap();
        assert_eq!(view(&open(&copy, &clock, retaining.clone()).unwrap()), seen, "round {round}, rebuilt");
        disk = disk.kill();
    }
}

/// Closes K-33 and K-35 (lost or torn queue entries).
#[test]
fn a_store_that_is_missing_or_damaged_anywhere_is_made_anew() {
    let (disk, seen) = checkpointed(3, options());
    let clock = Arc::new(SimClock::default());
    let size = disk.read(Path::new(STORE)).unwrap().len();
    for at in (0..size).step_by(size / 60) {
        let disk = disk.kill();
        disk.flip_bit(Path::new(STORE), u64::try_from(at).unwrap(), 5);
        let engine = open(&disk, &clock, options()).unwrap_or_else(|error| panic!("bit {at}: {error}"));
        // What is met later than at open is an error, never a wrong answer, and the next opening makes it anew.
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| view(&engine))) {
            Ok(found) => assert_eq!(found, seen, "bit {at}"),
            Err(_) => {
                let engine = {
                    drop(engine);
                    open(&disk.kill(), &clock, options()).unwrap()
                };
                assert_eq!(view(&engine), seen, "bit {at}, opened again");
            }
        }
    }
}

#[test]
fn a_store_of_an_older_copy_or_of_another_log_is_not_believed() {
    let (disk, clock) = (SimDisk::new(4), Arc::new(SimClock::default()));
    let engine = open(&disk, &clock, options()).unwrap();
    work(&engine, &clock, 0..100);
    engine.close().unwrap();
    let old = disk.read(Path::new(STORE)).unwrap();
    let disk = disk.kill();
    let engine = open(&disk, &clock, options().with_retain_bytes(Some(128 << 10))).unwrap();
    work(&engine, &clock, 100..900);
    for _ in 0..300 {
        engine.step();
        clock.advance(Duration::from_millis(5));
    }
    assert!(engine.watermarks().start.0 > 400_000);
    let seen = view(&engine);
    engine.close().unwrap();

    let (foreign, _) = checkpointed(5, options());
    for bytes in [old, foreign.read(Path::new(STORE)).unwrap()] {
        let disk = disk.kill();
        disk.backend().remove(Path::new(STORE)).unwrap();
        let file = disk.backend().open(Path::new(STORE), anchorlog_engine::io::OpenMode::CreateNew).unwrap();
        file.allocate(u64::try_from(bytes.len()).unwrap()).unwrap();
        disk.overwrite(Path::new(STORE), 0, &bytes);
        assert_eq!(view(&open(&disk, &clock, options()).unwrap()), seen);
    }
}

/// K-23, K-35: at every I/O.
#[test]
fn the_power_fails_at_every_io_of_checkpoints_and_of_opening_from_them() {
    let (base, clock) = (SimDisk::new(6), Arc::new(SimClock::default()));
    let engine = open(&base, &clock, options().with_retain_bytes(Some(192 << 10))).unwrap();
    work(&engine, &clock, 0..150);
    drop(engine);
    let base = base.kill();
    let retaining = options().with_retain_bytes(Some(192 << 10));
    let mut last = 0;
    loop {
        let disk = base.kill();
        disk.stop_after(disk.io_count() + last);
        let clock = Arc::new(SimClock::default());
        if let Ok(engine) = open(&disk, &clock, retaining.clone()) {
            work(&engine, &clock, 150..190);
        }
        let died = disk.is_dead();
        let survivor = disk.crash_with(last, if last % 2 == 0 { Survival::Nothing } else { Survival::Seeded });
        let with_store =
            open(&survivor.kill(), &clock, retaining.clone()).unwrap_or_else(|error| panic!("{last}: {error}"));
        let plain = survivor.kill();
        drop(plain.backend().remove(Path::new(STORE)));
        let without = open(&plain, &clock, retaining.clone()).unwrap();
        assert_eq!(view(&with_store), view(&without), "stopped after I/O {last}");
        if !died {
            break;
        }
        last += 1 + last / 60;
    }
    assert!(last > 60, "{last} scenes are too few to mean anything");
}

#[test]
fn a_checkpoint_of_many_entries_reads_back_in_order() {
    let (disk, clock) = (SimDisk::new(8), Arc::new(SimClock::default()));
    let options = options().with_segment_bytes(1 << 20).with_buffer_bytes(1 << 20).with_cache_bytes(2 << 20);
    let engine = open(&disk, &clock, options.clone()).unwrap();
    for round in 0..20 {
        let mut batch = WriteBatch::new();
        for number in 0..500 {
            let key = format!("k/{:05}", (number * 20 + round) * 7919 % 10_000);
            batch.put(&Put { key: key.as_bytes(), value: &[7; 30], target: None }).unwrap();
        }
        engine.try_append(&mut batch).map(drop).unwrap();
        for _ in 0..20 {
            engine.step();
            clock.advance(Duration::from_millis(5));
        }
    }
    assert!(engine.stats().checkpoints > 5);
    for interval in [None, Some(Duration::from_secs(1))] {
        let again = open(&disk.kill(), &clock, options.clone().with_checkpoint_interval(interval)).unwrap();
        let all = again.snapshot().range(b"k/", Some(b"k0"), 20_000).unwrap();
        assert_eq!(all.len(), 10_000);
        assert!(all.is_sorted_by(|one, other| one.0 < other.0));
    }
}

fn put(key: &str) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(&Put { key: key.as_bytes(), value: b"value", target: None }).unwrap();
    batch
}

/// Everything appended is acknowledged, and the table has it.
fn apply(engine: &Engine) {
    engine.flush().unwrap();
    engine.wait(Watermark::Dispatched, engine.watermarks().assigned, None).unwrap();
}

/// As long as no checkpoint is written, memory grows up to the bound and not on.
#[test]
fn what_waits_for_a_checkpoint_is_bounded_and_ordinary_batches_are_refused_first() {
    let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::default()));
    let bounded = options().with_checkpoint_interval(Some(Duration::from_secs(3600))).with_checkpoint_bytes(1 << 30);
    let engine = open(&disk, &clock, bounded.with_unsaved_bytes_max(64 << 10)).unwrap();
    let mut count = 0;
    let mut refused = loop {
        assert!(count < 1000, "memory grows on");
        let mut batch = put(&format!("key/{count:03}"));
        match engine.try_append(&mut batch) {
            Ok(_) => apply(&engine),
            Err(AppendError::Behind { waiting, max }) => {
                assert!(waiting >= max && max == 64 << 10, "{waiting} of {max}");
                break batch;
            }
            Err(error) => panic!("{error}"),
        }
        count += 1;
    };
    assert!(count > 100, "{count}");
    assert_eq!(engine.append_all(std::slice::from_mut(&mut refused), &mut Vec::new()).unwrap(), 0);
    let end = engine.watermarks().assigned;
    let mut essential = put("essential");
    essential.set_essential(true);
    assert!(engine.try_append(&mut essential).unwrap().outcome().lsn == end);
    apply(&engine);
    // A checkpoint is due long before its time.
    for _ in 0..20 {
        engine.step();
    }
    drop(engine.try_append(&mut refused).unwrap());
    apply(&engine);
    let keys = engine.snapshot().range(b"key/", Some(b"key0"), usize::MAX).unwrap();
    assert_eq!(keys.len(), count + 1, "what was refused is there once");
    let engine = open(&disk.kill(), &clock, options()).unwrap();
    assert_eq!(engine.snapshot().range(b"key/", Some(b"key0"), usize::MAX).unwrap().len(), count + 1);
}

#[test]
fn an_append_that_may_wait_waits_for_the_checkpoint() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let options = EngineOptions::default()
        .with_segment_bytes(1 << 20)
        .with_backend(BackendChoice::Threads)
        .with_checkpoint_interval(Some(Duration::from_secs(3600)))
        .with_unsaved_bytes_max(64 << 10);
    let engine = Engine::open(dir.path(), options).unwrap();
    for number in 0..1500 {
        let ticket = engine.append(put(&format!("key/{number}"))).unwrap();
        engine.wait(Watermark::Dispatched, ticket.outcome().end_lsn, None).unwrap();
    }
    assert!(engine.stats().full > 0, "none had to wait");
    assert_eq!(engine.snapshot().range(b"key/", Some(b"key0"), usize::MAX).unwrap().len(), 1500);
    engine.close().unwrap();
}
