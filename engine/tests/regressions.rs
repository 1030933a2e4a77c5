//! Scenes that the engine once failed, by name; each is the smallest one that showed its bug.
#![expect(clippy::unwrap_used, reason = "a failing step ends the test")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::clock::SimClock;
use anchorlog_engine::io::sim::{IoClass, SimDisk, Survival, Times};
use anchorlog_engine::{
    Append, AppendError, Engine, EngineOptions, Flush, Lsn, Message, OpenError, Queue, QueueOffset, Tail, Watermark,
    WriteBatch,
};

const DIR: &str = "/log";

fn options() -> EngineOptions {
    EngineOptions::default()
        .with_segment_bytes(64 << 10)
        .with_chunk_bytes(16 << 10)
        .with_buffer_bytes(64 << 10)
        .with_cache_bytes(96 << 10)
        .with_spare_count(1)
        .with_manual_drive()
}

struct Scene {
    disk: SimDisk,
    clock: Arc<SimClock>,
    options: EngineOptions,
}

impl Scene {
    fn new(options: EngineOptions) -> Scene {
        Scene { disk: SimDisk::new(1), clock: Arc::new(SimClock::default()), options }
    }

    fn try_open(&self) -> Result<Engine, OpenError> {
        Engine::open_with(
            self.disk.backend(),
            Arc::<SimClock>::clone(&self.clock),
            Path::new(DIR),
            self.options.clone(),
        )
    }

    fn open(&self) -> Engine {
        self.try_open().unwrap()
    }

    fn settle(&self, engine: &Engine) {
        for _ in 0..60 {
            engine.step();
            self.clock.advance(Duration::from_millis(1));
        }
    }
}

fn one(queue: &Queue, len: usize) -> WriteBatch {
    let mut batch = WriteBatch::new();
    let body = vec![b'x'; len];
    batch.append(&Append { queue, tag: 1, keys: &[], attributes: b"", payload: &[&body] }).unwrap();
    batch
}

fn put(engine: &Engine, queue: &Queue, len: usize) -> Lsn {
    engine.try_append(&mut one(queue, len)).unwrap().outcome().end_lsn
}

/// Payload bytes so that the frame of one message in queue "q" ends at `end`.
fn len_to(engine: &Engine, end: u64) -> usize {
    usize::try_from(end - engine.watermarks().assigned.0 - (64 + 16 + 32 + 1)).unwrap()
}

#[test]
fn a_group_that_ends_eight_bytes_into_a_frame_does_not_fence_the_log() {
    for seed in 0..8 {
        let mut scene = Scene::new(EngineOptions::default().with_spare_count(0).with_manual_drive());
        scene.disk = SimDisk::new(seed);
        let engine = scene.open();
        let queue = engine.queue(b"q").unwrap();
        let start = engine.watermarks().assigned.0;
        let cut = (start + (4 << 20)) / 4096 * 4096;
        while engine.watermarks().assigned.0 + (200 << 10) < cut {
            put(&engine, &queue, 100_000);
        }
        let len = len_to(&engine, cut - 8);
        assert_eq!(put(&engine, &queue, len), Lsn(cut - 8));
        put(&engine, &queue, 5000);
        scene.settle(&engine);
        assert!(engine.fenced().is_none(), "seed {seed}: {:?}", engine.fenced());
    }
}

#[test]
fn counters_that_do_not_fit_the_buffer_do_not_stop_the_log() {
    let scene = Scene::new(options());
    let engine = scene.open();
    let name = |number: u32| format!("{number:0>900}");
    for number in 0..120 {
        let queue = engine.queue(name(number).as_bytes()).unwrap();
        put(&engine, &queue, 10);
        engine.step();
        engine.step();
    }
    let queue = engine.queue(b"q").unwrap();
    let mut last = Lsn::ZERO;
    for _ in 0..60 {
        while engine.try_append(&mut one(&queue, 4000)).is_err() {
            engine.step();
        }
        last = engine.watermarks().acked;
        engine.step();
    }
    engine.release(last).map(drop).unwrap();
    for _ in 0..5000 {
        engine.step();
        scene.clock.advance(Duration::from_millis(1));
    }
    let marks = engine.watermarks();
    let again = engine.try_append(&mut one(&queue, 4000));
    assert!(again.is_ok(), "{:?} {marks:?}", again.err());
    assert!(marks.start > Lsn::ZERO, "released: {marks:?}");
}

#[test]
fn an_idle_padded_log_falls_asleep() {
    let scene = Scene::new(options().with_tail(Tail::Pad));
    let engine = scene.open();
    let queue = engine.queue(b"q").unwrap();
    put(&engine, &queue, 10);
    scene.settle(&engine);
    let before = engine.watermarks().assigned;
    for _ in 0..2000 {
        engine.step();
        scene.clock.advance(Duration::from_millis(1));
    }
    assert_eq!(engine.watermarks().assigned, before, "two idle seconds wrote something");
}

#[test]
fn a_release_under_asynchronous_flush_keeps_the_counters_through_a_power_failure() {
    let flush = Flush::Async { interval: Duration::from_secs(3600), bytes: 1 << 30 };
    let mut scene = Scene::new(options().with_flush(flush));
    let engine = scene.open();
    let (idle, busy) = (engine.queue(b"idle").unwrap(), engine.queue(b"q").unwrap());
    for _ in 0..5 {
        put(&engine, &idle, 10);
    }
    for _ in 0..40 {
        while engine.try_append(&mut one(&busy, 4000)).is_err() {
            engine.step();
            scene.clock.advance(Duration::from_millis(20));
        }
    }
    // All of it is durable. Then the first segments are released, and the power fails.
    let durable = engine.flush().unwrap();
    engine.release(durable).map(drop).unwrap();
    for _ in 0..60 {
        engine.step();
        scene.clock.advance(Duration::from_millis(1));
    }
    let start = engine.watermarks().start;
    drop(engine);
    scene.disk = scene.disk.crash_with(1, Survival::Nothing);
    let engine = scene.open();
    let idle = engine.queue(b"idle").unwrap();
    assert_eq!(engine.range(&idle).max, QueueOffset(5), "start was {start}; offsets of a durable queue start again");
}

#[test]
fn what_was_never_written_is_not_released_under_asynchronous_flush() {
    let flush = Flush::Async { interval: Duration::from_secs(3600), bytes: 1 << 30 };
    let mut scene = Scene::new(options().with_flush(flush).with_buffer_bytes(256 << 10).with_cache_bytes(512 << 10));
    let engine = scene.open();
    let busy = engine.queue(b"q").unwrap();
    for _ in 0..3 {
        put(&engine, &busy, 10);
    }
    engine.flush().unwrap();
    for _ in 0..40 {
        put(&engine, &busy, 4000);
    }
    engine.release(engine.watermarks().acked).map(drop).unwrap();
    for _ in 0..3 {
        engine.step();
    }
    let marks = engine.watermarks();
    drop(engine);
    scene.disk = scene.disk.crash_with(1, Survival::Nothing);
    let engine = scene.try_open().unwrap_or_else(|error| panic!("{marks:?}: {error}"));
    let queue = engine.queue(b"q").unwrap();
    assert!(engine.range(&queue).max >= QueueOffset(3), "durable offsets are given out again, {marks:?}");
}

#[test]
fn what_a_killed_process_left_is_durable_before_it_is_built_upon() {
    let flush = Flush::Async { interval: Duration::from_secs(3600), bytes: 1 << 30 };
    let mut scene = Scene::new(options().with_flush(flush));
    let engine = scene.open();
    let queue = engine.queue(b"q").unwrap();
    for _ in 0..40 {
        while engine.try_append(&mut one(&queue, 3000)).is_err() {
            scene.settle(&engine);
        }
    }
    scene.settle(&engine);
    drop(engine);
    scene.disk = scene.disk.kill();
    let engine = scene.open();
    let queue = engine.queue(b"q").unwrap();
    let shown = engine.range(&queue).max;
    let durable = engine.flush().unwrap();
    drop(engine);
    scene.disk = scene.disk.crash_with(1, Survival::Nothing);
    let engine = scene.try_open().unwrap_or_else(|error| panic!("{shown} were shown, durable to {durable}: {error}"));
    let queue = engine.queue(b"q").unwrap();
    assert!(engine.range(&queue).max >= shown, "{shown} were shown as durable");
}

#[test]
fn what_a_failed_durable_write_left_is_durable_before_it_is_built_upon() {
    let mut met = 0;
    for seed in 0..3000 {
        let mut scene = Scene::new(options());
        scene.disk = SimDisk::new(seed);
        let engine = scene.open();
        let queue = engine.queue(b"q").unwrap();
        put(&engine, &queue, 4200);
        scene.disk.fail(IoClass::Write, scene.disk.count(IoClass::Write) + 1, 5, Times::Once);
        for _ in 0..3 {
            engine.step();
        }
        drop(engine);
        scene.disk = scene.disk.kill();
        let engine = scene.open();
        let queue = engine.queue(b"q").unwrap();
        let shown = engine.range(&queue).max;
        if shown.0 == 0 {
            continue;
        }
        met += 1;
        drop(engine);
        scene.disk = scene.disk.crash_with(seed, Survival::Nothing);
        let engine = scene.try_open().unwrap_or_else(|error| panic!("seed {seed}, {shown} were shown: {error}"));
        let queue = engine.queue(b"q").unwrap();
        assert!(engine.range(&queue).max >= shown, "seed {seed}: {shown} were shown as durable");
    }
    assert!(met > 0, "no seed met it");
}

#[test]
fn damage_below_the_durable_mark_is_refused_behind_a_long_backlog_too() {
    let big = EngineOptions::default()
        .with_segment_bytes(64 << 20)
        .with_buffer_bytes(40 << 20)
        .with_cache_bytes(64 << 20)
        .with_spare_count(0)
        // The whole log is to be read.
        .with_checkpoint_interval(None)
        .with_manual_drive();
    let mut scene = Scene::new(big);
    let engine = scene.open();
    let queue = engine.queue(b"q").unwrap();
    let segment = (64 << 20) - 4096;
    while engine.watermarks().assigned.0 + (5 << 20) < segment {
        put(&engine, &queue, 4 << 20);
        for _ in 0..4 {
            engine.step();
        }
    }
    let len = len_to(&engine, segment - 8192);
    put(&engine, &queue, len);
    scene.settle(&engine);
    assert_eq!(engine.watermarks().durable, engine.watermarks().assigned);
    let victim = engine.watermarks().assigned;
    let victim_end = put(&engine, &queue, 1000);
    // Producers are far ahead of the disk when the segment ends.
    for _ in 0..5 {
        put(&engine, &queue, 4 << 20);
    }
    scene.settle(&engine);
    for _ in 0..20 {
        put(&engine, &queue, 1000);
        scene.settle(&engine);
    }
    let marks = engine.watermarks();
    assert!(marks.acked == marks.assigned && victim_end < marks.acked);
    engine.close().unwrap();
    scene.disk = scene.disk.kill();
    let first = Path::new(DIR).join("00000000000000000000.seg");
    scene.disk.flip_bit(&first, 4096 + victim.0 + 200, 3);
    match scene.try_open() {
        Err(OpenError::Damaged { .. }) => {}
        Ok(engine) => panic!("cut {} acknowledged bytes: {}", marks.acked.since(victim), engine.info().recovery),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn every_segment_begins_with_the_history() {
    let scene = Scene::new(options());
    let engine = scene.open();
    let queue = engine.queue(b"q").unwrap();
    let segment = (64 << 10) - 4096;
    while engine.watermarks().assigned.0 + 8192 < segment {
        put(&engine, &queue, 4000);
        engine.step();
        engine.step();
    }
    let len = len_to(&engine, segment);
    put(&engine, &queue, len);
    scene.settle(&engine);
    put(&engine, &queue, 10);
    scene.settle(&engine);
    let bytes = scene.disk.read(&Path::new(DIR).join(format!("{segment:020}.seg"))).unwrap();
    assert_eq!(bytes[4096 + 64 + 16 + 12], 3, "the first record's kind is epoch history");
}

#[test]
fn a_segment_that_cannot_be_filled_leaves_nothing_behind() {
    for first in 1..3 {
        let scene = Scene::new(options().with_spare_count(16));
        let engine = scene.open();
        for _ in 0..8 {
            engine.step();
            scene.clock.advance(Duration::from_millis(3));
        }
        let count = scene.disk.count(IoClass::Write);
        for nth in 0..6 {
            scene.disk.fail(IoClass::Write, count + first + 2 * nth, 5, Times::Once);
        }
        for _ in 0..20 {
            engine.step();
            scene.clock.advance(Duration::from_millis(1100));
        }
        let half_made = scene.disk.files().iter().filter(|path| path.to_string_lossy().ends_with(".tmp")).count();
        assert!(engine.fenced().is_some() || half_made <= 1, "{half_made} half-made segments");
    }
}

#[test]
fn a_full_disk_refuses_and_heals() {
    let scene = Scene::new(options());
    let engine = scene.open();
    let queue = engine.queue(b"q").unwrap();
    scene.disk.set_capacity(Some(6 * (64 << 10) + 8192));
    let refused = (0..400).find_map(|_| {
        let error = engine.try_append(&mut one(&queue, 4000)).err();
        engine.step();
        error.filter(|error| !matches!(error, AppendError::Full { .. }))
    });
    assert!(matches!(refused, Some(AppendError::OutOfSpace { .. })), "{refused:?}");
    assert!(engine.fenced().is_none(), "{:?}", engine.fenced());
    scene.disk.set_capacity(None);
    scene.settle(&engine);
    put(&engine, &queue, 4000);
}

#[test]
fn closing_on_a_full_disk_keeps_all_that_was_taken() {
    let scene = Scene::new(options());
    let engine = scene.open();
    let queue = engine.queue(b"q").unwrap();
    scene.disk.set_capacity(Some(6 * (64 << 10) + 8192));
    let mut taken = 0;
    for _ in 0..400 {
        taken += u64::from(engine.try_append(&mut one(&queue, 4000)).is_ok());
        engine.step();
    }
    engine.close().unwrap();
    let engine = scene.open();
    assert_eq!(engine.range(&engine.queue(b"q").unwrap()).max, QueueOffset(taken));
}

#[test]
fn a_full_disk_can_be_opened_and_released() {
    let mut scene = Scene::new(options());
    let engine = scene.open();
    let queue = engine.queue(b"q").unwrap();
    for _ in 0..40 {
        while engine.try_append(&mut one(&queue, 4000)).is_err() {
            engine.step();
        }
    }
    scene.settle(&engine);
    engine.close().unwrap();
    scene.disk = scene.disk.kill();
    let used: usize = scene.disk.files().iter().map(|path| scene.disk.read(path).unwrap().len()).sum();
    scene.disk.set_capacity(Some(u64::try_from(used).unwrap()));
    let engine = scene.open();
    engine.release(engine.watermarks().acked).map(drop).unwrap();
}

#[test]
fn waiting_for_dispatch_ends() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let engine = Engine::open_with(
        Arc::new(anchorlog_engine::io::threads::ThreadsBackend::new()),
        Arc::new(anchorlog_engine::SystemClock::new()),
        dir.path(),
        EngineOptions::default().with_segment_bytes(1 << 20),
    )
    .unwrap();
    let queue = engine.queue(b"q").unwrap();
    let end = engine.append_and_wait(one(&queue, 10)).unwrap().end_lsn;
    engine.wait(Watermark::Dispatched, end, Some(Duration::from_secs(3))).unwrap();
}

#[test]
fn a_queue_of_another_opening_is_refused() {
    let scene = Scene::new(options());
    let engine = scene.open();
    let (_first, second) = (engine.queue(b"first").unwrap(), engine.queue(b"second").unwrap());
    drop(engine);
    let engine = scene.open();
    let _second = engine.queue(b"second").unwrap();
    let _first = engine.queue(b"first").unwrap();
    let first_again = engine.queue(b"first").unwrap();
    put(&engine, &first_again, 10);
    // The caller kept a handle from before: its number is now another queue's.
    drop(engine.try_append(&mut one(&second, 10)));
    put(&engine, &first_again, 10);
    scene.settle(&engine);
    assert!(engine.range(&first_again).max >= QueueOffset(1));
    let fenced = engine.fenced();
    drop(engine);
    let opened = scene.try_open();
    assert!(opened.is_ok(), "fenced: {fenced:?}, reopening: {}", opened.err().unwrap());
    assert!(fenced.is_none(), "{fenced:?}");
}

#[test]
fn a_pin_set_while_a_release_is_under_way_holds() {
    let scene = Scene::new(options());
    let engine = scene.open();
    let queue = engine.queue(b"q").unwrap();
    let mut first: Option<Lsn> = None;
    for _ in 0..40 {
        loop {
            match engine.try_append(&mut one(&queue, 4000)) {
                Ok(ticket) => {
                    first.get_or_insert(ticket.outcome().first.lsn);
                    break;
                }
                Err(_) => drop(engine.step()),
            }
        }
    }
    scene.settle(&engine);
    let first = first.unwrap();
    engine.release(engine.watermarks().acked).map(drop).unwrap();
    engine.step();
    engine.pin("reader", Some(first));
    assert!(engine.watermarks().start <= first, "the pin came in time");
    scene.settle(&engine);
    let read: Result<Message, _> = engine.read(first);
    assert!(read.is_ok(), "pinned and gone: {:?}, start {}", read.err(), engine.watermarks().start);
}

/// Closes K-32 (a thread dies, and nobody says so).
#[test]
fn waiters_learn_that_the_commit_thread_died() {
    struct Bad;
    impl std::task::Wake for Bad {
        fn wake(self: Arc<Self>) {
            panic!("a waker of the embedder panics");
        }
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let engine = Engine::open_with(
        Arc::new(anchorlog_engine::io::threads::ThreadsBackend::new()),
        Arc::new(anchorlog_engine::SystemClock::new()),
        dir.path(),
        EngineOptions::default().with_segment_bytes(1 << 20),
    )
    .unwrap();
    // Dropping it would hang as well.
    let engine = std::mem::ManuallyDrop::new(engine);
    let queue = engine.queue(b"q").unwrap();
    let waker = std::task::Waker::from(Arc::new(Bad));
    for _ in 0..100 {
        let Ok(ticket) = engine.append(one(&queue, 10)) else { return };
        let mut ticket = std::pin::pin!(ticket);
        drop(ticket.as_mut().poll(&mut std::task::Context::from_waker(&waker)));
    }
    std::thread::park_timeout(Duration::from_millis(300));
    let Ok(ticket) = engine.append(one(&queue, 10)) else { return };
    let outcome = ticket.wait_timeout(Duration::from_secs(3));
    assert!(!matches!(outcome, Err(anchorlog_engine::WaitError::TimedOut)), "nobody tells the waiters");
}
