//! The power fails at every single I/O of a replica's life, and it goes on from what is there.

use std::path::Path;
use std::time::Duration;

use anchorlog_engine::audit::survey;
use anchorlog_engine::io::sim::{SimDisk, Survival};
use anchorlog_engine::replica::{Seed, Seeding};
use anchorlog_engine::{EngineOptions, EpochHistory, Flush, Lsn, OpenError, ReceiveError, Tail};

use crate::pair::{DIR, Node, append, beginning_of, body, bytes_from, payloads, replica_options};

/// A log of several runs, some of which begin at a segment's end, and what it says of itself at its beginning.
struct Script {
    options: EngineOptions,
    beginning: Seed,
    bytes: Vec<u8>,
    bodies: Vec<Vec<u8>>,
    history: EpochHistory,
}

impl Script {
    fn new(tail: Tail) -> Script {
        let options = crate::pair::options().with_tail(tail);
        let mut leader = Node::open(SimDisk::new(5), options.clone()).unwrap();
        let beginning = beginning_of(leader.engine());
        let mut bodies = Vec::new();
        for run in 0..4_u64 {
            for number in 0..16 {
                let body =
                    body(run * 100 + number, [40, 700, 5000, 100, 9000, 300][usize::try_from(number % 6).unwrap()]);
                append(leader.engine(), "orders", &body);
                bodies.push(body);
                if number % 3 == 0 {
                    leader.settle();
                }
            }
            leader.pass(Duration::from_millis(20));
            let disk = leader.disk.clone();
            leader.close();
            leader = Node::open(disk, options.clone()).unwrap();
        }
        let (bytes, history) = (bytes_from(leader.engine(), Lsn::ZERO), leader.engine().history());
        Script { options: options.with_role(anchorlog_engine::Role::Replica), beginning, bytes, bodies, history }
    }

    fn seed(&self, disk: &SimDisk) -> Result<(), anchorlog_engine::replica::SeedError> {
        Seeding::begin(disk.backend(), DIR, &self.beginning, &self.options)?.finish()
    }

    fn open(&self, disk: &SimDisk) -> Result<Node, OpenError> {
        Node::open(disk.clone(), self.options.clone())
    }

    /// Gives the replica everything that it lacks, as a connection would; what was durable is noted.
    fn feed(&self, node: &Node, known: &mut Known, piece: usize) -> bool {
        let engine = node.engine();
        let mut given = 0;
        for round in 0_u64.. {
            let at = engine.watermarks().assigned;
            let begin = usize::try_from(at.0).unwrap();
            if begin == self.bytes.len() && engine.watermarks().durable == at {
                break;
            }
            given = (given + piece).clamp(begin.min(self.bytes.len()), self.bytes.len());
            match engine.receive(at, &self.bytes[begin..given.max(begin)]) {
                Ok(_) | Err(ReceiveError::Full { .. }) => {}
                Err(ReceiveError::Fenced(_)) => return false,
                Err(error) => panic!("{error}"),
            }
            if round % 3 != 2 {
                engine.step();
            }
            if round % 5 == 4 {
                node.clock.advance(Duration::from_millis(4));
            }
            known.durable = known.durable.max(engine.watermarks().durable);
            // The leader's word runs behind what it has from this replica.
            engine.set_replicated(Lsn(known.durable.0.saturating_sub(9000)));
            if engine.fenced().is_some() {
                return false;
            }
        }
        true
    }

    fn check(&self, node: &Node, known: &Known) {
        let engine = node.engine();
        let bytes = bytes_from(engine, Lsn::ZERO);
        assert!(self.bytes.starts_with(&bytes), "another log than the leader's");
        // A group may end inside a frame, of which the rest was not promised to anybody.
        let end = engine.watermarks().assigned;
        assert!(end.0 + 9200 > known.durable.0, "durable bytes are gone: {end} of {}", known.durable);
        let shown = payloads(engine, "orders");
        assert_eq!(shown, self.bodies[..shown.len()]);
        let history = engine.history();
        assert!(history.starts().iter().all(|start| self.history.starts().contains(start)), "{history:?}");
    }
}

/// What the leader was told.
#[derive(Default)]
struct Known {
    durable: Lsn,
}

/// A replica's whole life on a disk that may die at any moment of it; false when it did.
fn life(script: &Script, disk: &SimDisk, known: &mut Known, piece: usize) -> bool {
    match script.seed(disk) {
        Ok(()) => {}
        Err(_) => return false,
    }
    for _ in 0..2 {
        let Ok(mut node) = script.open(disk) else { return false };
        if !script.feed(&node, known, piece) {
            return false;
        }
        if node.engine.take().unwrap().close().is_err() {
            return false;
        }
    }
    true
}

fn sweep(script: &Script, survival: Survival, piece: usize, step: usize) {
    let count = {
        let disk = SimDisk::new(9);
        assert!(life(script, &disk, &mut Known::default(), piece));
        disk.io_count()
    };
    for last in (0..count).step_by(step) {
        let disk = SimDisk::new(9);
        disk.stop_after(last);
        let mut known = Known::default();
        // The last checkpoint is not waited for: without it the life may come to its end.
        let _ended = life(script, &disk, &mut known, piece);
        let disk = disk.crash_with(last, survival);
        let surveyed = survey(&*disk.backend(), Path::new(DIR));
        let node = match script.open(&disk) {
            Err(OpenError::HalfSeeded { .. } | OpenError::NoReplica { .. }) => {
                assert_eq!(known.durable, Lsn::ZERO, "after {last}");
                script.seed(&disk).unwrap();
                script.open(&disk).unwrap()
            }
            other => {
                let places = surveyed.unwrap().damage;
                assert!(places.is_empty(), "after {last}: {places:?}");
                other.unwrap_or_else(|error| panic!("after {last}: {error}"))
            }
        };
        script.check(&node, &known);
        assert!(script.feed(&node, &mut known, piece));
        node.engine().set_replicated(Lsn::MAX);
        script.check(&node, &known);
        assert_eq!(bytes_from(node.engine(), Lsn::ZERO), script.bytes, "after {last}");
        assert_eq!(payloads(node.engine(), "orders"), script.bodies, "after {last}");
        assert_eq!(node.engine().history(), script.history);
    }
}

#[test]
fn a_replica_goes_on_after_a_power_failure_at_every_io() {
    let script = Script::new(Tail::Rewrite);
    assert_eq!(replica_options().frame_bytes_max(), script.options.frame_bytes_max());
    sweep(&script, Survival::Seeded, 3000, 1);
}

#[test]
fn a_replica_loses_nothing_durable_to_the_strictest_disk() {
    sweep(&Script::new(Tail::Rewrite), Survival::Nothing, 20_000, 2);
}

#[test]
fn a_padded_replica_goes_on_after_a_power_failure_at_every_io() {
    sweep(&Script::new(Tail::Pad), Survival::Seeded, 7000, 2);
}

#[test]
fn a_replica_with_a_lazy_disk_keeps_what_it_said_was_durable() {
    let flush = Flush::Async { interval: Duration::from_millis(6), bytes: 30_000 };
    let mut script = Script::new(Tail::Rewrite);
    script.options = script.options.with_flush(flush);
    sweep(&script, Survival::Seeded, 6000, 2);
}

#[test]
fn a_restart_shows_no_more_than_the_leader_acknowledged_and_no_less_than_before() {
    let leader = Node::open(SimDisk::new(1), crate::pair::options().with_replicated_acks(true)).unwrap();
    let mut replica = Node::replica_of(leader.engine(), 2);
    let mut ends = Vec::new();
    for number in 0..12 {
        ends.push(append(leader.engine(), "orders", &body(number, 3000)));
        leader.settle();
        crate::pair::ship(leader.engine(), replica.engine(), 4000).unwrap();
        replica.settle();
    }
    // Everything is durable on both; the leader was told of four, and has told the replica of three.
    leader.engine().set_replicated(ends[3]);
    replica.engine().set_replicated(ends[2]);
    append(leader.engine(), "orders", b"says that four are acknowledged");
    leader.settle();
    crate::pair::ship(leader.engine(), replica.engine(), 4000).unwrap();
    replica.pass(Duration::from_millis(20));
    assert_eq!((payloads(leader.engine(), "orders").len(), payloads(replica.engine(), "orders").len()), (4, 3));

    for (disk, options) in [
        (replica.disk.crash_with(3, Survival::Everything), replica_options()),
        (leader.disk.crash_with(3, Survival::Everything), crate::pair::options().with_replicated_acks(true)),
    ] {
        let again = Node::open(disk, options).unwrap();
        assert_eq!(payloads(again.engine(), "orders").len(), 4);
        assert_eq!(again.engine().watermarks().acked, ends[3]);
        again.engine().set_replicated(ends[6]);
        assert_eq!(payloads(again.engine(), "orders").len(), 7, "from the disk");
        again.engine().set_replicated(Lsn::MAX);
        again.settle();
        assert_eq!(payloads(again.engine(), "orders").len(), 13);
    }
    replica.close();
    let again = Node::open(replica.disk.clone(), crate::pair::options().with_replicated_acks(true)).unwrap();
    assert_eq!(payloads(again.engine(), "orders").len(), 4);
    // The head of the log is behind what is shown.
    let number = {
        let queue = again.engine().queue(b"orders").unwrap();
        let mut batch = anchorlog_engine::WriteBatch::new();
        let append =
            anchorlog_engine::Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload: &[b"next"] };
        batch.append(&append).unwrap();
        again.engine().try_append(&mut batch).unwrap().outcome().first.queue_offset
    };
    assert_eq!(number.0, 13);
}
