//! Scenes that a seed once found, by name; each is the smallest one that shows its bug.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::clock::SimClock;
use anchorlog_engine::io::sim::{SimDisk, Survival, Times};
use anchorlog_engine::{
    Append, AppendError, Engine, EngineOptions, Fetch, Flush, Link, Lsn, OpenError, Put, Queue, QueueOffset, ReadError,
    Tail, WriteBatch,
};

use super::world::{CLASSES, DIR, EIO};

fn options() -> EngineOptions {
    EngineOptions::default()
        .with_segment_bytes(64 << 10)
        .with_chunk_bytes(16 << 10)
        .with_buffer_bytes(64 << 10)
        .with_cache_bytes(96 << 10)
        .with_spare_count(1)
        .with_manual_drive()
}

fn open(disk: &SimDisk, options: EngineOptions) -> Result<Engine, OpenError> {
    open_at(disk, &Arc::new(SimClock::default()), options)
}

fn open_at(disk: &SimDisk, clock: &Arc<SimClock>, options: EngineOptions) -> Result<Engine, OpenError> {
    let clock: Arc<SimClock> = Arc::clone(clock);
    Engine::open_with(disk.backend(), clock, Path::new(DIR), options)
}

fn push(batch: &mut WriteBatch, queue: &Queue, len: usize) {
    let payload = vec![b'x'; len];
    batch.append(&Append { queue, tag: 0, keys: &[], attributes: b"", payload: &[&payload] }).expect("it is small");
}

/// All payloads' lengths.
fn lengths(engine: &Engine, queue: &Queue) -> Result<Vec<usize>, ReadError> {
    let from = engine.range(queue).min;
    let fetch = Fetch {
        queue,
        from,
        messages_max: 1000,
        bytes_max: 1 << 20,
        scan_max: 1000,
        from_disk: true,
        matches: &|_| true,
    };
    Ok(engine.fetch(&fetch)?.messages.iter().map(|message| message.payload().len()).collect())
}

fn put(engine: &Engine, queue: &Queue, len: usize) -> Lsn {
    let mut batch = WriteBatch::new();
    push(&mut batch, queue, len);
    engine.try_append(&mut batch).expect("there is room").outcome().end_lsn
}

fn settle(engine: &Engine) {
    for _ in 0..60 {
        engine.step();
    }
}

#[test]
fn a_queue_that_its_batch_has_dropped_takes_nothing_more() {
    let disk = SimDisk::new(1);
    let engine = open(&disk, options()).expect("nothing is wrong");
    let queue = engine.queue(b"q").expect("it is short");
    put(&engine, &queue, 10);
    let end = engine.watermarks().assigned;
    let mut batch = WriteBatch::new();
    batch.drop_queue(&queue).expect("it is small");
    push(&mut batch, &queue, 10);
    push(&mut batch, &queue, 10);
    let answer = engine.try_append(&mut batch);
    assert!(matches!(answer, Err(AppendError::Dropped)), "{answer:?}");
    settle(&engine);
    assert!(engine.fenced().is_none(), "{:?}", engine.fenced());
    assert_eq!(engine.watermarks().assigned, end, "nothing was appended");
    assert_eq!(engine.range(&queue).max, QueueOffset(1));
    drop(engine);
    open(&disk.kill(), options()).expect("nothing is wrong");
}

/// Payload bytes so that the frame of one message in queue "q" ends at `end`.
fn len_to(engine: &Engine, end: u64) -> usize {
    usize::try_from(end - engine.watermarks().assigned.0 - (64 + 16 + 32 + 1)).expect("it lies ahead")
}

#[test]
fn a_group_that_ended_inside_a_frame_leaves_a_torn_tail_not_damage() {
    let mut torn = 0;
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let options = options().with_commit_depth(4).with_tail(Tail::Pad);
        let engine = open(&disk, options.clone()).expect("nothing is wrong");
        let queue = engine.queue(b"q").expect("it is short");
        let len = len_to(&engine, 8192);
        let first = put(&engine, &queue, len);
        disk.hold(true);
        engine.step();
        // The front of the next frame goes beside it. Its last block goes with a filler, which says how far the log is durable then.
        let frame_end = put(&engine, &queue, 7000);
        engine.step();
        disk.stop_after(disk.io_count());
        disk.hold(false);
        while engine.fenced().is_none() {
            engine.step();
        }
        let durable = engine.watermarks().durable;
        torn += usize::from(first < durable && durable < frame_end);
        let engine = open(&disk.crash(seed), options).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let shown = engine.range(&engine.queue(b"q").expect("it is short")).max;
        assert!(durable < first || shown >= QueueOffset(1), "seed {seed}: durable to {durable}, shown are {shown}");
    }
    assert!(torn > 30, "{torn} seeds tore the group in the way that this scene needs");
}

#[test]
fn restored_bytes_are_read_although_the_damaged_ones_were_read_before() {
    let disk = SimDisk::new(1);
    let engine = open(&disk, options()).expect("nothing is wrong");
    let queue = engine.queue(b"q").expect("it is short");
    let mut places = Vec::new();
    for _ in 0..40 {
        let mut batch = WriteBatch::new();
        push(&mut batch, &queue, 3000);
        places.push(engine.try_append(&mut batch).expect("there is room").outcome().first.lsn);
        settle(&engine);
    }
    let disk = disk.kill();
    let path = Path::new(DIR).join("00000000000000000000.seg");
    let (beside, victim) = (places[0], places[1]);
    // In its length, in the way back to its frame, and in its payload.
    for at in [4, 9, 500] {
        let engine = open(&disk, options()).expect("nothing is wrong");
        disk.flip_bit(&path, 4096 + victim.0 + at, 3);
        assert!(engine.read(victim).is_err(), "byte {at} was damaged");
        assert!(engine.read(beside).is_ok(), "nothing is wrong with it");
        disk.flip_bit(&path, 4096 + victim.0 + at, 3);
        let again = engine.read(victim);
        assert!(again.is_ok(), "byte {at} was restored: {:?}", again.err());
    }
}

#[test]
fn a_write_that_fails_for_want_of_quota_is_told_as_that_and_reopening_goes_on() {
    let disk = SimDisk::new(1);
    let engine = open(&disk, options()).expect("nothing is wrong");
    let queue = engine.queue(b"q").expect("it is short");
    put(&engine, &queue, 100);
    settle(&engine);
    let acked = engine.watermarks().acked;
    disk.set_quota(Some(0));
    put(&engine, &queue, 100);
    settle(&engine);
    let fenced = engine.fenced().expect("a write into an allocated file failed");
    assert!(fenced.source.kind() == std::io::ErrorKind::QuotaExceeded && engine.watermarks().acked == acked);
    drop(engine);
    disk.set_quota(None);
    let engine = open(&disk.kill(), options()).expect("there is room again");
    let queue = engine.queue(b"q").expect("it is short");
    let end = put(&engine, &queue, 100);
    settle(&engine);
    assert!(engine.watermarks().acked >= end && engine.range(&queue).max >= QueueOffset(2));
}

#[test]
fn a_file_that_may_not_grow_refuses_and_heals_like_a_full_disk() {
    let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::default()));
    let engine = open_at(&disk, &clock, options().with_spare_count(0)).expect("nothing is wrong");
    let queue = engine.queue(b"q").expect("it is short");
    disk.set_file_bytes_max(Some(4096));
    let mut refused = 0;
    for _ in 0..100 {
        let mut batch = WriteBatch::new();
        push(&mut batch, &queue, 4000);
        match engine.try_append(&mut batch) {
            Err(AppendError::OutOfSpace { .. }) => refused += 1,
            answer => drop(answer.expect("nothing else is wrong")),
        }
        engine.step();
    }
    assert!(refused > 0 && engine.fenced().is_none(), "{:?}", engine.fenced());
    disk.set_file_bytes_max(None);
    clock.advance(Duration::from_millis(50));
    settle(&engine);
    let marks = engine.watermarks();
    assert!(marks.acked == marks.assigned, "{marks:?}");
    put(&engine, &queue, 4000);
}

/// Appends to `queue` until the log reaches `to`.
fn fill(engine: &Engine, queue: &Queue, to: u64) {
    while engine.watermarks().assigned.0 < to {
        put(engine, queue, 4000);
        for _ in 0..3 {
            engine.step();
        }
    }
}

/// Bytes of log in a segment.
const SEGMENT: u64 = (64 << 10) - 4096;

#[test]
fn what_a_link_leads_to_survives_a_shorter_release() {
    let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::default()));
    let options = options().with_checkpoint_interval(Some(Duration::from_millis(10)));
    let engine = open_at(&disk, &clock, options).expect("nothing is wrong");
    let queue = engine.queue(b"q").expect("it is short");
    let mut batch = WriteBatch::new();
    push(&mut batch, &queue, 77);
    let origin = engine.try_append(&mut batch).expect("there is room").outcome().first.lsn;
    fill(&engine, &queue, SEGMENT + 5000);
    // A checkpoint in the second segment; behind it a link that leads back to the first.
    clock.advance(Duration::from_millis(20));
    settle(&engine);
    assert!(engine.stats().checkpoints > 0);
    let target = engine.reference(origin).expect("it is in sight").into();
    let mut batch = WriteBatch::new();
    batch.link(&Link { queue: &queue, target, tag: 0, keys: &[], attributes: b"" }).expect("it is small");
    let link = engine.try_append(&mut batch).expect("there is room").outcome().first.lsn;
    assert!(link.0 < 2 * SEGMENT);
    fill(&engine, &queue, 3 * SEGMENT + 5000);
    // Far enough that link and origin would go together; the checkpoint holds back the link alone.
    engine.release(engine.watermarks().acked).map(drop).expect("it is acknowledged");
    for _ in 0..200 {
        engine.step();
        let start = engine.watermarks().start;
        let found = engine.read(origin);
        assert!(link < start || found.is_ok(), "the log begins at {start}, and what the link leads to is gone");
    }
    for _ in 0..20 {
        clock.advance(Duration::from_millis(300));
        settle(&engine);
    }
    assert!(engine.watermarks().start > link, "the link is gone once a checkpoint has seen it");
    assert!(engine.read(origin).is_err(), "and what it led to with it");
}

#[test]
fn a_message_of_a_dropped_queue_that_an_entry_needs_is_read_after_an_opening_without_a_checkpoint() {
    let disk = SimDisk::new(1);
    let options = options().with_checkpoint_interval(None);
    let engine = open(&disk, options.clone()).expect("nothing is wrong");
    let (queue, busy) = (engine.queue(b"q").expect("it is short"), engine.queue(b"busy").expect("it is short"));
    let mut batch = WriteBatch::new();
    push(&mut batch, &queue, 77);
    let lsn = engine.try_append(&mut batch).expect("there is room").outcome().first.lsn;
    settle(&engine);
    let mut batch = WriteBatch::new();
    let target = Some(engine.reference(lsn).expect("it is in sight").into());
    batch.put(&Put { key: b"entry", value: b"", target }).expect("it is small");
    batch.drop_queue(&queue).expect("it is small");
    drop(engine.try_append(&mut batch).expect("there is room"));
    fill(&engine, &busy, 3 * SEGMENT);
    settle(&engine);
    engine.release(engine.watermarks().acked).map(drop).expect("it is acknowledged");
    settle(&engine);
    assert!(engine.watermarks().start > lsn && engine.read(lsn).is_ok());
    let engine = open(&disk.crash_with(1, Survival::Nothing), options).expect("nothing is wrong");
    let message = engine.read(lsn).expect("the entry needs it");
    assert_eq!((&*message.queue_name, message.payload().len()), (&b"q"[..], 77));
}

#[test]
fn a_queue_whose_segments_lost_survivors_one_after_the_other_begins_behind_the_gap() {
    // Whichever of the three segments is next to be reviewed.
    for (interval, steps) in
        [None, Some(10)].into_iter().flat_map(|interval| [(interval, 100), (interval, 114), (interval, 128)])
    {
        let interval = interval.map(Duration::from_millis);
        let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::default()));
        let options = options().with_checkpoint_interval(interval).with_retention_held(true);
        let engine = open_at(&disk, &clock, options.clone()).expect("nothing is wrong");
        let queue = engine.queue(b"q").expect("it is short");
        let first = |engine: &Engine| engine.range(&engine.queue(b"q").expect("it is short")).min;
        engine.pin_queue("consumer", &queue, Some(QueueOffset(0)));
        engine.start_retention();
        fill(&engine, &queue, 3 * SEGMENT + 5000);
        let later = |times: u32| {
            for _ in 0..times {
                clock.advance(Duration::from_millis(15));
                engine.step();
            }
        };
        later(40);
        engine.release(engine.watermarks().acked).map(drop).expect("it is acknowledged");
        later(steps);
        assert_eq!((engine.watermarks().start, first(&engine)), (Lsn(3 * SEGMENT), QueueOffset(0)));
        // Most of the second segment's are consumed now, and all of the first's; both are reviewed, one after the other.
        let needed = QueueOffset(24);
        engine.pin_queue("consumer", &queue, Some(needed));
        let all = engine.retention().survivors;
        let mut before = all;
        for _ in 0..50 {
            later(2);
            // A list is shorter for a moment before the queue is.
            let now = engine.retention().survivors;
            let settled = std::mem::replace(&mut before, now) == now;
            assert!(
                now == all || !settled || first(&engine) >= QueueOffset(14),
                "{now} of {all} survive in a gapless queue"
            );
            let copy = disk.crash_with(1, Survival::Nothing);
            let engine = open_at(&copy, &clock, options.clone()).expect("nothing is wrong");
            let queue = engine.queue(b"q").expect("it is short");
            assert!(first(&engine) <= needed);
            let count = engine.range(&queue).max.0 - first(&engine).0;
            let read = lengths(&engine, &queue).expect("all that is shown is there").len();
            assert_eq!(read as u64, count, "the queue begins at {}", first(&engine));
        }
        assert!(first(&engine) > QueueOffset(0), "something was reviewed");
    }
}

/// Kills the process at every step until the last survivor's segment is gone, and lets the power fail at every I/O of the next opening.
fn lose_the_last_survivor(seed: u64) {
    let flush = Flush::Async { interval: Duration::from_secs(3600), bytes: 1 << 30 };
    let clock = Arc::new(SimClock::default());
    let disk = SimDisk::new(seed);
    let options = options().with_flush(flush).with_checkpoint_interval(None);
    let engine = open_at(&disk, &clock, options.clone()).expect("nothing is wrong");
    let queue = engine.queue(b"q").expect("it is short");
    let mut batch = WriteBatch::new();
    push(&mut batch, &queue, 77);
    let lsn = engine.try_append(&mut batch).expect("there is room").outcome().first.lsn;
    let mut batch = WriteBatch::new();
    let target = Some(engine.reference(lsn).expect("it is in sight").into());
    batch.put(&Put { key: b"entry", value: b"", target }).expect("it is small");
    drop(engine.try_append(&mut batch).expect("there is room"));
    fill(&engine, &queue, 2 * SEGMENT);
    engine.flush().expect("nothing is wrong");
    engine.release(engine.watermarks().acked).map(drop).expect("it is acknowledged");
    let later = || {
        clock.advance(Duration::from_millis(12));
        engine.step();
    };
    (0..100).for_each(|_| later());
    assert_eq!(engine.retention().survivors, 1);
    let mut batch = WriteBatch::new();
    batch.delete(b"entry").expect("it is small");
    drop(engine.try_append(&mut batch).expect("there is room"));
    while engine.retention().sparse_segments > 0 {
        // Before that the log says nothing of it yet.
        let end = if engine.retention().survivors == 0 { 60 } else { 0 };
        for last in 0..end {
            let killed = disk.kill();
            killed.stop_after(last);
            let opened = open_at(&killed, &clock, options.clone()).is_ok();
            for seed in 0..6 {
                open_at(&killed.crash(seed), &clock, options.clone())
                    .unwrap_or_else(|error| panic!("the power failed after I/O {last}: {error}"));
            }
            if opened {
                break;
            }
        }
        later();
    }
}

#[test]
fn a_segment_whose_last_survivor_went_is_kept_until_the_log_says_so_durably() {
    (0..8).for_each(lose_the_last_survivor);
}

#[test]
fn a_pin_that_is_set_at_any_step_of_a_release_holds_from_where_it_says() {
    let (mut held, mut late) = (0, 0);
    for steps in 0..80 {
        let engine = open(&SimDisk::new(1), options().with_checkpoint_interval(None)).expect("nothing is wrong");
        let queue = engine.queue(b"q").expect("it is short");
        let idle = engine.queue(b"idle").expect("it is short");
        let mut batch = WriteBatch::new();
        push(&mut batch, &idle, 10);
        let lsn = engine.try_append(&mut batch).expect("there is room").outcome().first.lsn;
        settle(&engine);
        let target = Some(engine.reference(lsn).expect("it is in sight").into());
        let mut batch = WriteBatch::new();
        batch.put(&Put { key: b"entry", value: b"", target }).expect("it is small");
        drop(engine.try_append(&mut batch).expect("there is room"));
        fill(&engine, &queue, 3 * SEGMENT);
        settle(&engine);
        engine.release(engine.watermarks().acked).map(drop).expect("it is acknowledged");
        for _ in 0..steps {
            engine.step();
        }
        let holds = engine.pin("reader", Some(lsn));
        if engine.watermarks().start > lsn {
            break;
        }
        // Once the log says that it goes, it does so on every machine.
        held += usize::from(holds == lsn);
        late += usize::from(holds > lsn);
        settle(&engine);
        assert!(engine.watermarks().start <= holds, "pinned after {steps} steps, and passed over");
    }
    assert!(held > 3 && late > 0, "{held} pins came in time, {late} too late");
}

#[test]
fn a_queue_that_is_dropped_while_a_checkpoint_waits_does_not_stop_it_and_may_come_back() {
    let flush = Flush::Async { interval: Duration::from_secs(3600), bytes: 1 << 30 };
    let options = options().with_flush(flush).with_checkpoint_interval(Some(Duration::from_millis(10)));
    let mut came_back = 0;
    for later in 0..8 {
        let (disk, clock) = (SimDisk::new(1), Arc::new(SimClock::default()));
        let engine = open_at(&disk, &clock, options.clone()).expect("nothing is wrong");
        let queue = engine.queue(b"q").expect("it is short");
        for len in 1..=5 {
            put(&engine, &queue, len);
        }
        clock.advance(Duration::from_millis(15));
        // Put aside; it waits for the log to be durable that far.
        engine.step();
        for _ in 0..later {
            engine.step();
        }
        let waits = engine.stats().checkpoints == 0;
        let mut batch = WriteBatch::new();
        batch.drop_queue(&queue).expect("it is small");
        drop(engine.try_append(&mut batch).expect("there is room"));
        while engine.stats().checkpoints == 0 {
            engine.step();
        }
        let engine =
            open_at(&disk.crash_with(1, Survival::Nothing), &clock, options.clone()).expect("nothing is wrong");
        let queue = engine.queue(b"q").expect("it is short");
        // The power failure takes the drop: the queue is as the checkpoint saw it.
        if queue.incarnation() == 0 {
            came_back += u32::from(waits);
            assert_eq!(lengths(&engine, &queue).expect("all is there"), [1, 2, 3, 4, 5]);
        }
    }
    assert!(came_back > 0, "no drop came between the two in the way that this scene needs");
}

#[test]
fn a_store_that_an_opening_did_not_go_on_from_is_not_added_to() {
    let clock = Arc::new(SimClock::default());
    let options = options().with_checkpoint_interval(Some(Duration::from_millis(10)));
    let checkpoint = |engine: &Engine| {
        settle(engine);
        let before = engine.stats().checkpoints;
        clock.advance(Duration::from_millis(20));
        settle(engine);
        assert!(engine.stats().checkpoints > before);
    };
    let disk = SimDisk::new(1);
    let engine = open_at(&disk, &clock, options.clone()).expect("nothing is wrong");
    // Numbered in this order, and in the log in the other.
    let (first, second) = (engine.queue(b"first").expect("it is short"), engine.queue(b"second").expect("it is short"));
    for round in 0..2 {
        put(&engine, &second, 20 + round);
        put(&engine, &first, 10 + round);
        checkpoint(&engine);
    }
    let mut opened = 0;
    for (class, nth) in CLASSES.into_iter().flat_map(|class| (1..12).map(move |nth| (class, nth))) {
        let disk = disk.kill();
        // Of some of these the opening says that the store cannot be had, and reads the log.
        disk.fail(class, nth, EIO, Times::Once);
        let Ok(engine) = open_at(&disk, &clock, options.clone()) else { continue };
        disk.heal();
        opened += 1;
        let second = engine.queue(b"second").expect("it is short");
        for round in 2..5 {
            put(&engine, &second, 20 + round);
            checkpoint(&engine);
        }
        drop(engine);
        let engine = open_at(&disk.kill(), &clock, options.clone()).expect("nothing is wrong");
        for (name, expected) in [(&b"first"[..], vec![10, 11]), (b"second", vec![20, 21, 22, 23, 24])] {
            let queue = engine.queue(name).expect("it is short");
            let found = lengths(&engine, &queue).unwrap_or_else(|error| panic!("{class:?} {nth} failed: {error}"));
            assert_eq!(found, expected, "{class:?} {nth} failed");
        }
    }
    assert!(opened > 10, "{opened} openings went well");
}
