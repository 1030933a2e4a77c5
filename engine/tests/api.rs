//! The engine on a real disk, through its public surface: one body, every real backend.
#![expect(clippy::unwrap_used, reason = "a failing step ends the test")]

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::io::IoBackend;
use anchorlog_engine::io::threads::ThreadsBackend;
use anchorlog_engine::io::uring::UringBackend;
use anchorlog_engine::{
    Append, AppendError, Clock, Engine, EngineOptions, Fetch, FetchStatus, Flush, Lsn, Queue, QueueOffset, SystemClock,
    Tail, Watcher, Watermark, WriteBatch,
};

/// A directory on the disk that holds the build, not on a temporary file system.
fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("anchorlog-test-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn backends(test: &str) -> Vec<Arc<dyn IoBackend>> {
    let mut all: Vec<Arc<dyn IoBackend>> = vec![Arc::new(ThreadsBackend::new())];
    match UringBackend::new() {
        Ok(uring) => all.push(Arc::new(uring)),
        // Past the test harness, which keeps what a passing test prints to itself.
        Err(why) => std::io::stderr().write_all(format!("SKIPPED {test} on uring: {why}\n").as_bytes()).unwrap(),
    }
    all
}

fn small() -> EngineOptions {
    EngineOptions::default()
        .with_segment_bytes(256 << 10)
        .with_buffer_bytes(1 << 20)
        .with_chunk_bytes(64 << 10)
        .with_cache_bytes((1 << 20) + (128 << 10))
}

fn open(backend: &Arc<dyn IoBackend>, dir: &std::path::Path, options: EngineOptions) -> Engine {
    Engine::open_with(Arc::clone(backend), Arc::new(SystemClock::new()), dir, options).unwrap()
}

fn message(queue: &Queue, payload: &[u8]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.append(&Append { queue, tag: 7, keys: &[b"key"], attributes: b"attributes", payload: &[payload] }).unwrap();
    batch
}

fn payload(number: u64) -> Vec<u8> {
    let len = usize::try_from(number * 37 % 3000).unwrap();
    number.to_le_bytes().iter().copied().cycle().take(8 + len).collect()
}

/// Every message of a queue, checked to be the numbered payloads in order.
fn read_all(engine: &Engine, queue: &Queue, from: u64) -> u64 {
    let mut next = from;
    loop {
        let found = engine
            .fetch(&Fetch {
                queue,
                from: QueueOffset(next),
                messages_max: 100,
                bytes_max: 1 << 20,
                scan_max: 1000,
                from_disk: true,
                matches: &|tag| tag == 7,
            })
            .unwrap();
        if found.status == FetchStatus::AtEnd {
            return next;
        }
        assert_eq!(found.status, FetchStatus::Found);
        for message in &found.messages {
            assert_eq!(message.payload(), payload(message.queue_offset.0));
            assert_eq!((message.attributes(), message.keys().next()), (&b"attributes"[..], Some(&b"key"[..])));
            let again = engine.read(message.lsn).unwrap();
            assert_eq!((again.payload(), again.queue_offset), (message.payload(), message.queue_offset));
        }
        next = found.next.0;
    }
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart_in_order() {
    for backend in backends("what_was_acknowledged_is_there_after_a_restart_in_order") {
        for (flush, tail, depth) in [
            (Flush::Sync, Tail::Rewrite, 1),
            (Flush::Sync, Tail::Rewrite, 4),
            (Flush::Sync, Tail::Pad, 1),
            (Flush::async_default(), Tail::Rewrite, 1),
            (Flush::async_default(), Tail::Pad, 1),
        ] {
            let dir = directory();
            let options = small().with_flush(flush).with_tail(tail).with_commit_depth(depth);
            let mut written = 0;
            for round in 0..3 {
                let engine = open(&backend, dir.path(), options.clone());
                assert_eq!(engine.info().recovery_cut_bytes, 0);
                let queue = engine.queue(b"orders").unwrap();
                assert_eq!(
                    read_all(&engine, &queue, 0),
                    written,
                    "{} {flush:?} {tail:?} round {round}",
                    backend.kind()
                );
                for _ in 0..300 {
                    engine.append_and_wait(message(&queue, &payload(written))).unwrap();
                    written += 1;
                }
                let tickets: Vec<_> = (0..300)
                    .map(|number| engine.append(message(&queue, &payload(written + number))).unwrap())
                    .collect();
                for ticket in tickets {
                    ticket.wait().unwrap();
                    written += 1;
                }
                assert_eq!(read_all(&engine, &queue, 0), written);
                engine.close().unwrap();
            }
        }
    }
}

#[test]
fn many_threads_append_and_every_ack_holds() {
    for backend in backends("many_threads_append_and_every_ack_holds") {
        let dir = directory();
        let engine = open(&backend, dir.path(), small());
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let engine = &engine;
                scope.spawn(move || {
                    let queue = engine.queue(format!("queue-{thread}").as_bytes()).unwrap();
                    for number in 0..200 {
                        let outcome = engine.append_and_wait(message(&queue, &payload(number))).unwrap();
                        assert_eq!(outcome.first.queue_offset, QueueOffset(number));
                        assert!(engine.watermarks().durable >= outcome.end_lsn);
                    }
                });
            }
        });
        engine.close().unwrap();
        let engine = open(&backend, dir.path(), small());
        assert_eq!(engine.queues().len(), 8);
        for queue in engine.queues() {
            assert_eq!(read_all(&engine, &queue, 0), 200);
        }
    }
}

#[test]
fn a_batch_of_many_has_consecutive_offsets_and_one_ack() {
    for backend in backends("a_batch_of_many_has_consecutive_offsets_and_one_ack") {
        let dir = directory();
        let engine = open(&backend, dir.path(), small());
        let queue = engine.queue(b"q").unwrap();
        let mut batch = WriteBatch::new();
        for number in 0..50 {
            let body = payload(number);
            batch
                .append(&Append {
                    queue: &queue,
                    tag: 7,
                    keys: &[b"key"],
                    attributes: b"attributes",
                    payload: &[&body],
                })
                .unwrap();
        }
        let outcome = engine.append(batch).unwrap().wait().unwrap();
        assert_eq!(outcome.positions().map(|at| at.queue_offset.0).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
        assert_eq!(read_all(&engine, &queue, 0), 50);
    }
}

#[test]
fn a_full_buffer_pushes_back_and_nothing_is_dropped() {
    for backend in backends("a_full_buffer_pushes_back_and_nothing_is_dropped") {
        for flush in [Flush::Sync, Flush::async_default()] {
            let dir = directory();
            let engine = open(&backend, dir.path(), small().with_flush(flush));
            let queue = engine.queue(b"q").unwrap();
            let mut batches: Vec<_> = (0..3000).map(|number| message(&queue, &payload(number))).collect();
            let mut out = Vec::new();
            let (mut done, mut refused) = (0, 0);
            while done < batches.len() {
                let count = engine.append_all(&mut batches[done..], &mut out).unwrap();
                done += count;
                if done < batches.len() {
                    refused += 1;
                    let marks = engine.watermarks();
                    engine.wait(Watermark::Written, marks.written.plus(1), Some(Duration::from_secs(10))).unwrap();
                }
            }
            engine.wait(Watermark::Acked, out.last().unwrap().end_lsn, None).unwrap();
            assert!(refused > 0, "three megabytes do not fit one");
            assert_eq!(read_all(&engine, &queue, 0), 3000);
            assert_eq!(engine.stats().records, 3000);
        }
    }
}

#[test]
fn released_segments_are_recycled_and_queues_keep_counting() {
    for backend in backends("released_segments_are_recycled_and_queues_keep_counting") {
        let dir = directory();
        let engine = open(&backend, dir.path(), small().with_retain_bytes(Some(1 << 20)));
        let (idle, busy) = (engine.queue(b"idle").unwrap(), engine.queue(b"busy").unwrap());
        engine.append_and_wait(message(&idle, &payload(0))).unwrap();
        // Two spare segments, as many more, and what the engine says itself.
        let most = (1 << 20) + 4 * (252 << 10) + (8 << 10);
        for number in 0..4000 {
            engine.append(message(&busy, &payload(number))).map(drop).unwrap();
            let length = engine.watermarks().assigned.since(engine.watermarks().start);
            assert!(length <= most, "the log is {length} bytes long");
        }
        engine.flush().unwrap();
        let deadline = std::time::Duration::from_secs(20);
        let clock = SystemClock::new();
        while engine.watermarks().assigned.since(engine.watermarks().start) > (1 << 20) + (252 << 10) {
            assert!(clock.monotonic() < deadline, "{:?}", engine.watermarks());
            std::thread::yield_now();
        }
        let range = engine.range(&busy);
        assert!(range.min.0 > 0 && range.max.0 == 4000);
        assert_eq!(engine.range(&idle).min, QueueOffset(1), "its only message was released");
        assert_eq!(read_all(&engine, &busy, range.min.0), 4000);
        engine.close().unwrap();

        let engine = open(&backend, dir.path(), small());
        let (idle, busy) = (engine.queue(b"idle").unwrap(), engine.queue(b"busy").unwrap());
        assert_eq!(read_all(&engine, &busy, engine.range(&busy).min.0), 4000);
        let outcome = engine.append_and_wait(message(&idle, &payload(1))).unwrap();
        assert_eq!(outcome.first.queue_offset, QueueOffset(1), "offset 0 is not given out twice");
    }
}

#[test]
fn a_pin_holds_the_log() {
    let dir = directory();
    let backend: Arc<dyn IoBackend> = Arc::new(ThreadsBackend::new());
    let engine = open(&backend, dir.path(), small());
    let queue = engine.queue(b"q").unwrap();
    engine.pin("reader", Some(Lsn(5)));
    let mut last = Lsn::ZERO;
    for number in 0..500 {
        last = engine.append_and_wait(message(&queue, &payload(number))).unwrap().end_lsn;
    }
    assert_eq!(engine.release(last).unwrap().segments, 0);
    engine.pin("reader", None);
    assert!(engine.release(last).unwrap().segments > 1);
    assert!(engine.release(last.plus(1_000_000)).is_err());
}

#[test]
fn subscriptions_and_watchers_tell_without_a_wake_up_per_message() {
    for backend in backends("subscriptions_and_watchers_tell_without_a_wake_up_per_message") {
        let dir = directory();
        let engine = open(&backend, dir.path(), small());
        let queue = engine.queue(b"q").unwrap();
        let watcher = Watcher::new().unwrap();
        engine.watch(&queue, QueueOffset(0), &watcher, 42);
        let acked = engine.subscribe(Watermark::Acked).unwrap();
        let tickets: Vec<_> =
            (0..100).map(|number| engine.append(message(&queue, &payload(number))).unwrap()).collect();
        let end = tickets.last().unwrap().outcome().end_lsn;
        acked.arm(end);
        readable(acked.fd());
        assert!(acked.drain() >= end);
        readable(watcher.fd());
        let mut tokens = Vec::new();
        watcher.drain(&mut tokens);
        assert_eq!(tokens, [42]);
    }
}

fn readable(fd: std::os::fd::BorrowedFd<'_>) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(10_000_u16)).unwrap(), 1, "nothing came");
}

#[test]
fn a_ticket_is_a_future() {
    let dir = directory();
    let backend: Arc<dyn IoBackend> = Arc::new(ThreadsBackend::new());
    let engine = open(&backend, dir.path(), small());
    let queue = engine.queue(b"q").unwrap();
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::task::Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut ticket = std::pin::pin!(engine.append(message(&queue, &payload(0))).unwrap());
    let outcome = loop {
        match ticket.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(outcome) => break outcome.unwrap(),
            std::task::Poll::Pending => std::thread::park_timeout(Duration::from_secs(10)),
        }
    };
    assert!(engine.watermarks().acked >= outcome.end_lsn);
}

#[test]
fn too_large_and_empty_batches_are_refused_by_name() {
    let dir = directory();
    let backend: Arc<dyn IoBackend> = Arc::new(ThreadsBackend::new());
    let engine = open(&backend, dir.path(), small());
    let queue = engine.queue(b"q").unwrap();
    let error = engine.append(message(&queue, &vec![0; 250 << 10])).unwrap_err();
    assert!(matches!(error, AppendError::TooLarge(_)), "{error}");
    assert!(matches!(engine.append(WriteBatch::new()), Err(AppendError::Empty)));
    assert!(engine.queue(&[b'x'; 2000]).is_err());
    engine.append_and_wait(message(&queue, &payload(0))).unwrap();
    assert_eq!(read_all(&engine, &queue, 0), 1);
}

#[test]
fn a_second_engine_on_the_directory_is_refused_with_the_holder() {
    let dir = directory();
    let backend: Arc<dyn IoBackend> = Arc::new(ThreadsBackend::new());
    let _engine = open(&backend, dir.path(), small());
    let second = Engine::open_with(backend, Arc::new(SystemClock::new()), dir.path(), small()).unwrap_err();
    assert!(second.to_string().contains("in use by another process"), "{second}");
}

#[test]
fn the_mark_frame_covers_the_last_group_when_the_log_falls_idle() {
    let dir = directory();
    let backend: Arc<dyn IoBackend> = Arc::new(ThreadsBackend::new());
    let engine = open(&backend, dir.path(), small());
    let queue = engine.queue(b"q").unwrap();
    let end = engine.append_and_wait(message(&queue, &payload(0))).unwrap().end_lsn;
    engine.wait(Watermark::Durable, end.plus(64), Some(Duration::from_secs(10))).unwrap();
    assert_eq!(engine.watermarks().assigned, end.plus(64), "one mark, then rest");
}

#[test]
fn missing_and_foreign_files_are_errors_not_a_fresh_start() {
    let dir = directory();
    let backend: Arc<dyn IoBackend> = Arc::new(ThreadsBackend::new());
    let engine = open(&backend, dir.path(), small());
    let queue = engine.queue(b"q").unwrap();
    for number in 0..400 {
        engine.append(message(&queue, &payload(number))).map(drop).unwrap();
    }
    engine.close().unwrap();
    let try_open = || Engine::open_with(Arc::clone(&backend), Arc::new(SystemClock::new()), dir.path(), small());
    let first = dir.path().join("00000000000000000000.seg");
    let aside = dir.path().join("aside");
    for name in [first.clone(), dir.path().join("MANIFEST"), dir.path().join("00000000000000258048.seg")] {
        rename(&name, &aside);
        let error = try_open().unwrap_err().to_string();
        assert!(error.contains("missing"), "{name:?}: {error}");
        rename(&aside, &name);
    }
    let engine = try_open().unwrap();
    assert_eq!(read_all(&engine, &engine.queue(b"q").unwrap(), 0), 400);
}

#[expect(clippy::disallowed_methods, reason = "the test plays the clumsy operator")]
fn rename(from: &std::path::Path, to: &std::path::Path) {
    std::fs::rename(from, to).unwrap();
}

#[test]
fn every_record_is_counted_with_the_flush_that_made_it_durable() {
    for flush in [Flush::Sync, Flush::Async { interval: Duration::from_millis(2), bytes: 64 << 10 }] {
        for backend in backends("flush statistics") {
            let dir = directory();
            let engine = open(&backend, dir.path(), small().with_flush(flush));
            let queue = engine.queue(b"q").unwrap();
            for number in 0..20 {
                engine.append_and_wait(message(&queue, &payload(number))).unwrap();
            }
            let mut many: Vec<WriteBatch> = (0..10).map(|number| message(&queue, &payload(number))).collect();
            let mut outcomes = Vec::new();
            assert_eq!(engine.append_all(&mut many, &mut outcomes).unwrap(), 10);
            engine.flush().unwrap();
            let (flushes, stats) = (engine.flush_stats(), engine.stats());
            assert_eq!(flushes.records.sum, stats.records, "{flush:?}: {flushes:?}");
            assert!(stats.records >= 30);
            assert_eq!(flushes.records.count(), flushes.micros.count());
            if flush == Flush::Sync {
                assert_eq!(flushes.micros.count(), stats.commits, "each group is a durable write");
            }
            assert!(flushes.micros.sum > 0, "a disk takes its time");
            engine.close().unwrap();
        }
    }
}
