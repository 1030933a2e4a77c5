//! Scenes that a seed once found, by name; each is the smallest one that shows its bug.

use std::path::Path;
use std::sync::Arc;

use anchorlog_engine::clock::SimClock;
use anchorlog_engine::io::sim::SimDisk;
use anchorlog_engine::{
    Append, AppendError, Engine, EngineOptions, Lsn, OpenError, Queue, QueueOffset, Tail, WriteBatch,
};

use super::world::DIR;

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
    Engine::open_with(disk.backend(), Arc::new(SimClock::default()), Path::new(DIR), options)
}

fn push(batch: &mut WriteBatch, queue: &Queue, len: usize) {
    let payload = vec![b'x'; len];
    batch.append(&Append { queue, tag: 0, keys: &[], attributes: b"", payload: &[&payload] }).expect("it is small");
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
    let disk = SimDisk::new(1);
    let engine = open(&disk, options().with_spare_count(0)).expect("nothing is wrong");
    let queue = engine.queue(b"q").expect("it is short");
    disk.set_file_bytes_max(Some(4096));
    let mut refused = 0;
    for _ in 0..100 {
        let mut batch = WriteBatch::new();
        push(&mut batch, &queue, 4000);
        match engine.try_append(&mut batch) {
            Err(AppendError::Full { .. }) => refused += 1,
            answer => drop(answer.expect("nothing else is wrong")),
        }
        engine.step();
    }
    assert!(refused > 0 && engine.fenced().is_none(), "{:?}", engine.fenced());
    disk.set_file_bytes_max(None);
    settle(&engine);
    let marks = engine.watermarks();
    assert!(marks.acked == marks.assigned, "{marks:?}");
}
