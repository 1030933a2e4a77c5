//! A leader and a replica, and the wire between them.

use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::clock::SimClock;
use anchorlog_engine::io::sim::SimDisk;
use anchorlog_engine::replica::{Seed, Seeding};
use anchorlog_engine::{
    Append, Engine, EngineOptions, Fetch, Flush, Lsn, OpenError, QueueOffset, ReceiveError, Role, WriteBatch,
};

pub(crate) const DIR: &str = "/log";

/// Small segments, driven by hand.
pub(crate) fn options() -> EngineOptions {
    EngineOptions::default()
        .with_segment_bytes(64 << 10)
        .with_chunk_bytes(16 << 10)
        .with_buffer_bytes(64 << 10)
        .with_cache_bytes(96 << 10)
        .with_spare_count(1)
        .with_flush(Flush::Sync)
        .with_manual_drive()
}

pub(crate) fn replica_options() -> EngineOptions {
    options().with_role(Role::Replica)
}

/// One machine's disk, clock and engine.
pub(crate) struct Node {
    pub(crate) disk: SimDisk,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) engine: Option<Engine>,
}

impl Node {
    pub(crate) fn open(disk: SimDisk, options: EngineOptions) -> Result<Node, OpenError> {
        let clock = Arc::new(SimClock::default());
        let engine = Engine::open_with(disk.backend(), Arc::clone(&clock) as _, DIR, options)?;
        Ok(Node { disk, clock, engine: Some(engine) })
    }

    /// A leader with an empty log.
    pub(crate) fn leader(seed: u64) -> Node {
        Node::open(SimDisk::new(seed), options()).unwrap()
    }

    /// A replica of what `leader` has, with nothing of it yet.
    pub(crate) fn replica_of(leader: &Engine, seed: u64) -> Node {
        let disk = SimDisk::new(seed);
        let beginning = beginning_of(leader);
        Seeding::begin(disk.backend(), DIR, &beginning, &options()).unwrap().finish().unwrap();
        Node::open(disk, replica_options()).unwrap()
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }

    /// Lets every machine run until there is nothing to do.
    pub(crate) fn settle(&self) {
        for _ in 0..2000 {
            if self.engine().step() {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.settle();
    }

    pub(crate) fn close(&mut self) {
        self.engine.take().unwrap().close().unwrap();
    }
}

/// What a replica of a log that was never released begins with.
pub(crate) fn beginning_of(leader: &Engine) -> Seed {
    let marks = leader.watermarks();
    Seed {
        identity: leader.identity(),
        start: marks.start,
        end: marks.assigned,
        history: leader.history(),
        sparse: Vec::new(),
    }
}

pub(crate) fn append(engine: &Engine, queue: &str, body: &[u8]) -> Lsn {
    let queue = engine.queue(queue.as_bytes()).unwrap();
    let mut batch = WriteBatch::new();
    batch.append(&Append { queue: &queue, tag: 1, keys: &[], attributes: b"", payload: &[body] }).unwrap();
    engine.try_append(&mut batch).unwrap().outcome().end_lsn
}

/// A body of many bytes that a number determines.
pub(crate) fn body(number: u64, len: usize) -> Vec<u8> {
    format!("{number} ").bytes().cycle().take(len).collect()
}

/// Bytes of the log from `from` to its end.
pub(crate) fn bytes_from(engine: &Engine, from: Lsn) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let pieces = engine.log_bytes(from.plus(out.len() as u64), 1 << 20).unwrap();
        if pieces.is_empty() {
            return out;
        }
        pieces.iter().for_each(|piece| out.extend_from_slice(piece.as_ref()));
    }
}

/// Carries what the replica lacks, in pieces of at most `max` bytes; stops where it is refused.
pub(crate) fn ship(leader: &Engine, replica: &Engine, max: usize) -> Result<(), ReceiveError> {
    let mut kept: Vec<u8> = Vec::new();
    loop {
        let at = replica.watermarks().assigned;
        let pieces = leader.log_bytes(at.plus(kept.len() as u64), max).unwrap();
        if pieces.is_empty() && kept.is_empty() {
            return Ok(());
        }
        let is_last = pieces.is_empty();
        pieces.iter().for_each(|piece| kept.extend_from_slice(piece.as_ref()));
        match replica.receive(at, &kept) {
            // The beginning of a frame that nobody has the rest of.
            Ok(received) if received.consumed == 0 && is_last => return Ok(()),
            Ok(received) => drop(kept.drain(..received.consumed)),
            Err(ReceiveError::Full { .. }) => drop(replica.step()),
            Err(error) => return Err(error),
        }
    }
}

/// Ships everything, lets both sides run, and tells each what the other has.
pub(crate) fn follow(leader: &Node, replica: &Node) {
    for _ in 0..4 {
        ship(leader.engine(), replica.engine(), 10_000).unwrap();
        replica.settle();
        leader.settle();
        leader.engine().set_replicated(replica.engine().watermarks().durable);
        replica.engine().set_replicated(leader.engine().watermarks().acked);
        replica.settle();
        leader.settle();
    }
}

/// Payloads of a queue, as far as they are visible.
pub(crate) fn payloads(engine: &Engine, queue: &str) -> Vec<Vec<u8>> {
    let queue = engine.queue(queue.as_bytes()).unwrap();
    let (mut out, mut next) = (Vec::new(), engine.range(&queue).min);
    loop {
        let found = engine.fetch(&Fetch { messages_max: 100, ..Fetch::new(&queue, next) }).unwrap();
        if found.messages.is_empty() {
            return out;
        }
        out.extend(found.messages.iter().map(|message| message.payload().to_vec()));
        next = QueueOffset(found.next.0);
    }
}
