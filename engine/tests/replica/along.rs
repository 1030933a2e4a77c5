//! Reading along the log, with several reads under way, on every backend of this machine.

use std::path::Path;

use anchorlog_engine::{Append, BackendChoice, Engine, EngineOptions, Lsn, ReadError, WriteBatch};

use crate::pair::body;

/// For a log of eleven segments, of which the last is in memory.
#[expect(clippy::print_stdout, reason = "what is skipped is skipped out loud")]
fn open(dir: &Path, backend: BackendChoice) -> Option<Engine> {
    let options = EngineOptions::default()
        .with_segment_bytes(1 << 20)
        .with_chunk_bytes(64 << 10)
        .with_buffer_bytes(1 << 20)
        .with_cache_bytes(1280 << 10)
        .with_backend(backend);
    match Engine::open(dir, options) {
        Ok(engine) => Some(engine),
        Err(error) if backend == BackendChoice::Uring => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn fill(engine: &Engine) {
    let queue = engine.queue(b"orders").unwrap();
    for number in 0..1100 {
        let mut batch = WriteBatch::new();
        let text = body(number, 10_000);
        batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload: &[&text] }).unwrap();
        engine.append_and_wait(batch).unwrap();
    }
}

/// All bytes from `from` on, by single reads.
fn one_by_one(engine: &Engine, from: Lsn) -> Vec<u8> {
    let (end, mut bytes) = (engine.watermarks().assigned, Vec::new());
    while from.plus(bytes.len() as u64) < end {
        for piece in engine.log_bytes(from.plus(bytes.len() as u64), 1 << 20).unwrap() {
            bytes.extend_from_slice(piece.as_ref());
        }
    }
    bytes
}

#[test]
fn reads_that_are_under_way_together_give_what_reads_one_by_one_do() {
    for backend in [BackendChoice::Threads, BackendChoice::Uring] {
        let dir = tempfile::tempdir().unwrap();
        let Some(engine) = open(dir.path(), backend) else { continue };
        fill(&engine);
        for (from, max) in [(Lsn::ZERO, 1 << 20), (Lsn(777), 100_003), (Lsn(5_000_001), 3 << 20)] {
            let before = engine.stats().cold_reads;
            let (mut along, mut bytes) = (engine.read_along(from).unwrap(), Vec::new());
            while let Some(piece) = along.next(max).unwrap() {
                assert!(piece.len() <= max && piece.is_read());
                bytes.extend_from_slice(piece.as_ref());
            }
            let reads = engine.stats().cold_reads - before;
            assert!(reads <= 12, "{reads} wide reads, whatever is taken at once");
            let rest = from.plus(bytes.len() as u64);
            assert!(engine.watermarks().assigned.since(rest) <= 1280 << 10, "only what is in memory is left");
            assert!(!engine.log_bytes(rest, 1).unwrap()[0].is_read());
            bytes.extend(one_by_one(&engine, rest));
            // A mark may have come behind it meanwhile.
            assert!(one_by_one(&engine, from).starts_with(&bytes), "from {from}, {max} at once");
        }
    }
}

#[test]
fn no_more_is_read_ahead_than_is_said_and_nothing_is_lost_when_the_way_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), BackendChoice::Threads).unwrap();
    fill(&engine);
    let before = engine.stats().cold_read_bytes;
    let mut along = engine.read_along(Lsn::ZERO).unwrap();
    assert_eq!(along.next(10).unwrap().unwrap().len(), 10);
    assert_eq!(along.next(10).unwrap().unwrap().len(), 10);
    let ahead = engine.stats().cold_read_bytes - before;
    assert!(ahead <= 3 << 20, "{ahead} bytes are on their way");
    drop(along);
    assert!(engine.read_along(engine.watermarks().assigned).unwrap().next(1 << 20).unwrap().is_none());
    engine.close().unwrap();
}

#[test]
fn what_is_released_while_it_is_read_is_given_to_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path(), BackendChoice::Threads).unwrap();
    fill(&engine);
    let whole = one_by_one(&engine, Lsn::ZERO);
    let mut along = engine.read_along(Lsn::ZERO).unwrap();
    let mut at = along.next(10).unwrap().unwrap().len();
    let mut others = engine.read_along(Lsn(5 << 20)).unwrap();
    assert_eq!(engine.release(Lsn(3 << 20)).unwrap().segments, 3);
    fill(&engine);
    // What had arrived before that is as it was; the rest is refused.
    while at < 3 << 20 {
        match along.next(1 << 20) {
            Ok(piece) => {
                let piece = piece.expect("a gap is no end");
                assert!(piece.as_ref() == &whole[at..at + piece.len()], "at {at}");
                at += piece.len();
            }
            Err(error) => {
                assert!(matches!(error, ReadError::NotFound(_)), "{error}");
                break;
            }
        }
    }
    assert!(engine.read_along(Lsn::ZERO).unwrap().next(1 << 20).unwrap().is_none(), "there is nothing to be asked for");
    assert!(others.next(1 << 20).unwrap().is_some(), "what stays is not disturbed");
}
