//! Two logs on the machine's own disk, driven by their threads, and one thread between them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anchorlog_engine::io::threads::ThreadsBackend;
use anchorlog_engine::replica::Seeding;
use anchorlog_engine::{
    AckRule, Append, BackendChoice, Engine, EngineOptions, Flush, Lsn, ReceiveError, Role, WaitError, Watermark,
    WriteBatch,
};

use crate::pair::{beginning_of, body, bytes_from, payloads};

fn options() -> EngineOptions {
    EngineOptions::default().with_segment_bytes(256 << 10).with_backend(BackendChoice::Threads)
}

fn replica_in(dir: &Path, leader: &Engine, flush: Flush) -> Engine {
    let seeding = Seeding::begin(Arc::new(ThreadsBackend::new()), dir, &beginning_of(leader), &options());
    seeding.unwrap().finish().unwrap();
    Engine::open(dir, options().with_role(Role::Replica).with_flush(flush)).unwrap()
}

fn batch(engine: &Engine, body: &[u8]) -> WriteBatch {
    let queue = engine.queue(b"orders").unwrap();
    let mut batch = WriteBatch::new();
    batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload: &[body] }).unwrap();
    batch
}

/// Streams until it is told to stop and nothing is left, and carries back what is durable there.
fn stream(leader: &Engine, replica: &Engine, stop: &AtomicBool) {
    let grown = leader.subscribe(Watermark::Assigned).unwrap();
    let mut kept: Vec<u8> = Vec::new();
    loop {
        let at = replica.watermarks().assigned;
        let from = at.plus(kept.len() as u64);
        for piece in leader.log_bytes(from, 100_000).unwrap() {
            kept.extend_from_slice(piece.as_ref());
        }
        match replica.receive(at, &kept) {
            Ok(received) => drop(kept.drain(..received.consumed)),
            Err(ReceiveError::Full { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        let (durable, end) = (replica.watermarks().durable, leader.watermarks().assigned);
        leader.set_replicated(durable);
        replica.set_replicated(leader.watermarks().acked);
        if stop.load(Ordering::SeqCst) && durable == end && leader.watermarks().durable == end {
            replica.set_replicated(leader.watermarks().acked);
            return;
        }
        if durable == end {
            grown.arm(end.plus(1));
            drop(leader.wait(Watermark::Assigned, end.plus(1), Some(Duration::from_millis(2))));
        } else if replica.watermarks().assigned > durable {
            drop(replica.wait(Watermark::Durable, durable.plus(1), Some(Duration::from_millis(2))));
        }
    }
}

#[test]
fn callers_sleep_until_both_disks_have_it_whatever_the_flush_modes() {
    for flush in [Flush::Sync, Flush::Async { interval: Duration::from_millis(3), bytes: 1 << 20 }] {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let leader = Engine::open(ours.path(), options().with_flush(flush).with_replicated_acks(true)).unwrap();
        let replica = replica_in(theirs.path(), &leader, Flush::Sync);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let streamer = scope.spawn(|| stream(&leader, &replica, &stop));
            let writers: Vec<_> = (0..3_u64)
                .map(|writer| {
                    let (leader, replica) = (&leader, &replica);
                    scope.spawn(move || {
                        for number in 0..60 {
                            let text = body(writer * 1000 + number, 3000);
                            let outcome = leader.append_and_wait(batch(leader, &text)).unwrap();
                            assert!(
                                replica.watermarks().durable >= outcome.end_lsn,
                                "acknowledged before it was there"
                            );
                            let ticket = leader.append(batch(leader, &text)).unwrap();
                            ticket.wait().map(drop).unwrap();
                        }
                    })
                })
                .collect();
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            stop.store(true, Ordering::SeqCst);
            streamer.join().unwrap();
        });
        // A mark may have followed since.
        assert!(bytes_from(&leader, Lsn::ZERO).starts_with(&bytes_from(&replica, Lsn::ZERO)));
        assert_eq!(payloads(&leader, "orders").len(), 360);
        assert!(payloads(&replica, "orders") == payloads(&leader, "orders"));
        leader.close().unwrap();
        replica.close().unwrap();
        // What was the replica leads, with all that there is.
        let promoted = options().with_role(Role::Leader { term: Some(2) });
        let promoted = Engine::open(theirs.path(), promoted).unwrap();
        assert_eq!(payloads(&promoted, "orders").len(), 360);
        promoted.append_and_wait(batch(&promoted, b"goes on")).map(drop).unwrap();
    }
}

#[test]
fn a_caller_that_waits_for_nobody_is_released_by_the_rule_or_by_closing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(dir.path(), options().with_replicated_acks(true)).unwrap();
    let ticket = engine.append(batch(&engine, b"one")).unwrap();
    let waited = ticket.wait_timeout(Duration::from_millis(30));
    assert!(matches!(waited, Err(WaitError::TimedOut)));
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| engine.append_and_wait(batch(&engine, b"two")));
        engine.wait(Watermark::Durable, engine.watermarks().assigned, None).unwrap();
        engine.set_ack_rule(AckRule::Local);
        waiter.join().unwrap().map(drop).unwrap();
        engine.set_ack_rule(AckRule::Replicated);
    });
    ticket.wait().map(drop).unwrap();
    let last = engine.append(batch(&engine, b"three")).unwrap();
    let sleeper = std::thread::spawn(move || last.wait());
    engine.close().unwrap();
    assert!(matches!(sleeper.join().unwrap(), Err(WaitError::Closing)), "nobody else has it");
}
