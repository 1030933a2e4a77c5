//! Nodes, and the wire between two of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::clock::SimClock;
use anchorlog_engine::epoch::EpochHistory;
use anchorlog_engine::io::sim::SimDisk;
use anchorlog_engine::replica::{Seed, Seeding};
use anchorlog_engine::{
    Append, AppendOutcome, Clock, Engine, EngineOptions, Fetch, Flush, Lsn, QueueOffset, Role, WriteBatch,
};
use anchorlog_replicator::message::{Ack, Decoder, Hello, Item, LogState, Message, Purpose};
use anchorlog_replicator::{
    FollowerConfig, FollowerLink, Leader, LeaderConfig, Link, LinkError, Member, OnMissing, Policy, ReplicaId,
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

pub(crate) fn leader_options() -> EngineOptions {
    options().with_replicated_acks(true)
}

pub(crate) fn id(name: &str) -> ReplicaId {
    name.parse().unwrap()
}

pub(crate) fn members(names: &[&str]) -> Vec<Member> {
    names.iter().map(|name| Member { id: id(name), address: format!("{name}.example:10912") }).collect()
}

pub(crate) const TWO_COPIES: Policy = Policy::Sync { copies: 2, on_missing: OnMissing::Refuse };

/// A leader called `a` of followers called `b` and `c`.
pub(crate) fn config(policy: Policy) -> LeaderConfig {
    let mut config = LeaderConfig::new(id("a"), policy, members(&["a", "b", "c"]));
    config.free_bytes_min = 1 << 20;
    // Most tests have members that never come.
    config.retain_unheard = Duration::ZERO;
    config
}

/// One machine.
pub(crate) struct Node {
    pub(crate) disk: SimDisk,
    pub(crate) engine: Arc<Engine>,
}

impl Node {
    pub(crate) fn open(disk: SimDisk, clock: &Arc<SimClock>, options: EngineOptions) -> Node {
        let engine = Engine::open_with(disk.backend(), Arc::clone(clock) as _, DIR, options).unwrap();
        Node { disk, engine: Arc::new(engine) }
    }

    /// A replica of what a leader has, with nothing of it yet.
    pub(crate) fn replica_of(leader: &Engine, seed: u64, clock: &Arc<SimClock>) -> Node {
        let disk = SimDisk::new(seed);
        let marks = leader.watermarks();
        let (identity, mut history) = (leader.identity(), EpochHistory::default());
        let known = leader.history();
        known.starts().iter().filter(|start| start.first_lsn <= marks.start).for_each(|start| history.push(*start));
        let seed = Seed { identity, start: marks.start, end: marks.assigned, history, sparse: Vec::new() };
        Seeding::begin(disk.backend(), DIR, &seed, &options()).unwrap().finish().unwrap();
        Node::open(disk, clock, options().with_role(Role::Replica))
    }

    /// Lets every machine run until there is nothing to do.
    pub(crate) fn settle(&self) {
        for _ in 0..2000 {
            if self.engine.step() {
                return;
            }
        }
        panic!("it does not come to rest");
    }
}

/// Two links and what is on the way between them.
pub(crate) struct Wire<L: Link, F: Link> {
    pub(crate) leader: L,
    pub(crate) follower: F,
    pub(crate) to_follower: VecDeque<u8>,
    pub(crate) to_leader: VecDeque<u8>,
    /// How many bytes arrive in one piece.
    pub(crate) piece: usize,
}

fn pull(from: &mut dyn Link, now: Duration, out: &mut VecDeque<u8>) -> Result<bool, LinkError> {
    let pieces = from.send(now, 64 << 10)?;
    pieces.iter().for_each(|piece| out.extend(piece.as_ref()));
    Ok(!pieces.is_empty())
}

fn push(to: &mut dyn Link, now: Duration, from: &mut VecDeque<u8>, piece: usize) -> Result<(), LinkError> {
    while !from.is_empty() {
        let bytes: Vec<u8> = from.drain(..piece.min(from.len())).collect();
        to.receive(&bytes, now)?;
    }
    Ok(())
}

impl<L: Link, F: Link> Wire<L, F> {
    pub(crate) fn new(leader: L, follower: F) -> Wire<L, F> {
        Wire { leader, follower, to_follower: VecDeque::new(), to_leader: VecDeque::new(), piece: 1000 }
    }

    /// Carries what both have to say, once; false when nobody said anything.
    pub(crate) fn carry(&mut self, now: Duration) -> Result<bool, LinkError> {
        let spoke = pull(&mut self.follower, now, &mut self.to_leader)?;
        push(&mut self.leader, now, &mut self.to_leader, self.piece)?;
        let answered = pull(&mut self.leader, now, &mut self.to_follower)?;
        push(&mut self.follower, now, &mut self.to_follower, self.piece)?;
        Ok(spoke || answered)
    }
}

/// A peer by hand.
pub(crate) struct Voice {
    pub(crate) name: String,
    decoder: Decoder,
    /// The newest beat that it has heard.
    pub(crate) beat: u64,
}

impl Default for Voice {
    fn default() -> Voice {
        Voice { name: "b".to_owned(), decoder: Decoder::default(), beat: 0 }
    }
}

impl Voice {
    /// A hello for the log of an engine.
    pub(crate) fn hello(&self, engine: &Engine, promised_term: u32) -> Vec<u8> {
        let log = Some(LogState::of(engine));
        let (replica, purpose) = (id(&self.name), Purpose::Stream);
        Message::Hello(Hello { replica, purpose, promised_term, log, free_bytes: 1 << 40 }).encode()
    }

    /// What a link says, once: messages, and the log bytes behind them.
    pub(crate) fn hear(&mut self, link: &mut dyn Link, now: Duration) -> Result<(Vec<Message>, Vec<u8>), LinkError> {
        let bytes = take_all(link, now)?;
        let (mut rest, mut messages, mut log) = (&bytes[..], Vec::new(), Vec::new());
        while let Some(item) = self.decoder.next(&mut rest)? {
            match item {
                Item::Message(message) => {
                    if let Message::Heartbeat(beat) = &message {
                        self.beat = beat.beat;
                    }
                    messages.push(message);
                }
                Item::Log(bytes) => log.extend_from_slice(bytes),
            }
        }
        Ok((messages, log))
    }
}

/// What a link has to send, once.
pub(crate) fn take_all(link: &mut dyn Link, now: Duration) -> Result<Vec<u8>, LinkError> {
    Ok(link.send(now, 64 << 10)?.iter().flat_map(|piece| piece.as_ref().to_vec()).collect())
}

/// A leader, one follower, and the wire.
pub(crate) struct Pair {
    pub(crate) clock: Arc<SimClock>,
    pub(crate) a: Node,
    pub(crate) b: Node,
    pub(crate) leader: Arc<Leader>,
    pub(crate) wire: Wire<anchorlog_replicator::LeaderLink, FollowerLink>,
}

impl Pair {
    pub(crate) fn new(config: LeaderConfig) -> Pair {
        let clock = Arc::new(SimClock::default());
        let a = Node::open(SimDisk::new(1), &clock, leader_options());
        let b = Node::replica_of(&a.engine, 2, &clock);
        let leader = Leader::new(Arc::clone(&a.engine), config).unwrap();
        let wire = Wire::new(leader.link(clock.monotonic()), follower(&b, &clock));
        Pair { clock, a, b, leader, wire }
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// The connection is closed, on both ends.
    pub(crate) fn disconnect(&mut self) {
        let nobody = FollowerLink::new(Arc::clone(&self.b.engine), FollowerConfig::new(id("b"), 0), self.now());
        self.wire = Wire::new(self.leader.link(self.now()), nobody);
    }

    /// What the follower could say now, having heard nothing newer than `beat`.
    pub(crate) fn last_ack(&self, beat: u64) -> Ack {
        let marks = self.b.engine.watermarks();
        let (epoch, received, durable) = (self.leader.epoch(), marks.assigned, marks.durable);
        Ack { epoch, received, durable, free_bytes: 1 << 40, beat }
    }

    /// Connects anew.
    pub(crate) fn connect(&mut self) {
        self.wire = Wire::new(self.leader.link(self.now()), follower(&self.b, &self.clock));
    }

    /// Lets bytes flow and machines run until nothing happens any more.
    pub(crate) fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..2000 {
            let now = self.now();
            let flowed = self.wire.carry(now).unwrap();
            let rest = self.a.engine.step() & self.b.engine.step();
            // What the last step made durable is still to be told.
            quiet = if !flowed && rest { quiet + 1 } else { 0 };
            if quiet == 3 {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.clock.advance(time);
        self.leader.tick(self.now());
        self.settle();
    }
}

pub(crate) fn follower(node: &Node, clock: &Arc<SimClock>) -> FollowerLink {
    FollowerLink::new(Arc::clone(&node.engine), FollowerConfig::new(id("b"), 0), clock.monotonic())
}

pub(crate) fn append(engine: &Engine, queue: &str, body: &[u8]) -> Lsn {
    append_at(engine, queue, body).end_lsn
}

pub(crate) fn append_at(engine: &Engine, queue: &str, body: &[u8]) -> AppendOutcome {
    let queue = engine.queue(queue.as_bytes()).unwrap();
    let mut batch = WriteBatch::new();
    batch.append(&Append { queue: &queue, tag: 1, keys: &[], attributes: b"", payload: &[body] }).unwrap();
    engine.try_append(&mut batch).unwrap().outcome().clone()
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
