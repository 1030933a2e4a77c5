//! Any bytes for a connection, over a simulated disk whose engine is driven by hand.
//!
//! The first byte of an input says how to read the rest: 0 as the stream itself; otherwise as headers and bodies, each behind a
//! length of two bytes, that are put into well-formed frames. The second byte says in what pieces the stream arrives, and at which of
//! them the engine makes progress.
#![no_main]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anchorlog::features::send::MadeKeys;
use anchorlog::features::topics::{TEMPLATE, TopicConfig};
use anchorlog::limits;
use anchorlog::net::{ConnectionId, Mailbox, Wake, Worker, start_readers};
use anchorlog::shared::{Settings, Shared};
use anchorlog::state::State;
use anchorlog::wire::{FrameRef, Header};
use anchorlog_engine::clock::SimClock;
use anchorlog_engine::io::sim::SimDisk;
use anchorlog_engine::{Clock, Engine, EngineOptions};
use libfuzzer_sys::fuzz_target;

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

fuzz_target!(|input: &[u8]| {
    let [kind, pieces, rest @ ..] = input else { return };
    let stream = if *kind == 0 { rest.to_vec() } else { framed(*kind, rest) };
    converse(&stream, usize::from(*pieces) + 1, *pieces);
});

/// Puts headers and bodies into frames; `kind` 1 says that headers are JSON, anything else that they are binary.
fn framed(kind: u8, mut rest: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut part = || {
        let (length, behind) = rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length)).min(behind.len());
        let (part, behind) = behind.split_at(length);
        rest = behind;
        Some(part)
    };
    while let Some(header) = part() {
        let body = part().unwrap_or_default();
        let total = u32::try_from(4 + header.len() + body.len()).expect("small");
        let word = u32::try_from(header.len()).expect("small") | u32::from(kind != 1) << 24;
        stream.extend(total.to_be_bytes());
        stream.extend(word.to_be_bytes());
        stream.extend(header);
        stream.extend(body);
    }
    stream
}

fn converse(stream: &[u8], piece_bytes: usize, progress: u8) {
    let clock = Arc::new(SimClock::default());
    let disk = SimDisk::new(7);
    let options = EngineOptions::default()
        .with_segment_bytes(256 << 10)
        .with_chunk_bytes(16 << 10)
        .with_buffer_bytes(256 << 10)
        .with_cache_bytes(512 << 10)
        .with_retain_bytes(Some(1 << 20))
        .with_manual_drive();
    let engine = Engine::open_with(disk.backend(), clock.clone(), "/store", options).expect("a log");
    let state = State::open(&engine).expect("a state");
    state.topics.put(TEMPLATE, TopicConfig::template(8));
    let advertise: SocketAddr = "127.0.0.1:10911".parse().expect("an address");
    let settings = Settings {
        advertise,
        cluster: "c".to_owned(),
        broker: "b".to_owned(),
        auto_create_topics: true,
        template_queues: 8,
        auto_create_groups: true,
        message_bytes_max: limits::BODY_BYTES_MAX,
        ack_timeout: Duration::from_millis(2500),
        busy_timeout: Duration::from_secs(2),
        keep_unconsumed: true,
            property_filter: true,
    };
    let shared = Arc::new(Shared::new(engine, state, settings, MadeKeys::new(advertise.ip(), 1, 1)));
    let mailboxes: Arc<[Mailbox]> = Arc::new([Mailbox::new(Box::new(Nobody))]);
    let (cold_reads, readers) = start_readers(&shared, &mailboxes).expect("readers");
    let mut worker = Worker::new(shared.clone(), 0, mailboxes, cold_reads).expect("a worker");
    worker.set_time(clock.monotonic());
    let peer: SocketAddr = "10.0.0.5:50000".parse().expect("an address");
    let mut id = worker.accept(peer).expect("room for one more");
    for (turn, piece) in stream.chunks(piece_bytes).enumerate() {
        if worker.wants_close(id) {
            worker.closed(id);
            id = worker.accept(peer).expect("room for one more");
        }
        worker.bytes_in(id, piece);
        worker.end_of_turn();
        if progress >> (turn % 8) & 1 == 1 {
            shared.engine.step();
            worker.acked();
            worker.watched();
            worker.mail();
        }
        assert!(worker.input_bytes(id) <= stream.len());
    }
    settle(&shared);
    clock.advance(Duration::from_secs(30));
    worker.set_time(clock.monotonic());
    worker.tick();
    worker.acked();
    assert_eq!(worker.held_count(), 0, "no pull is held for longer than its limit");
    check(&mut worker, id);
    worker.stop();
    settle(&shared);
    worker.acked();
    while let Some(dirty) = worker.next_dirty() {
        let bytes = worker.output(dirty).len();
        worker.wrote(dirty, bytes);
    }
    worker.closed(id);
    drop(worker);
    readers.into_iter().for_each(|reader| reader.join().expect("no panic"));
}

fn settle(shared: &Shared) {
    for _ in 0..100_000 {
        if shared.engine.step() {
            return;
        }
    }
    panic!("the engine does not come to rest");
}

/// What was answered is frames with headers that say so.
fn check(worker: &mut Worker, id: ConnectionId) {
    let mut bytes = worker.output(id);
    assert!(bytes.len() <= limits::OUT_BYTES_MAX);
    while !bytes.is_empty() {
        let frame = FrameRef::parse(bytes).expect("a frame").expect("a whole one");
        let header = Header::of(&frame).expect("good");
        assert!(header.is_response() != header.is_oneway(), "an answer, or a one-way request of ours");
        bytes = &bytes[frame.total_bytes()..];
    }
}
