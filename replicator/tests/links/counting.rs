//! Who counts, and what is done when there are too few.

use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::clock::SimClock;
use anchorlog_engine::io::sim::SimDisk;
use anchorlog_engine::{Clock, Epoch, Flush};
use anchorlog_replicator::message::{Ack, Hello, LogState, Message, Purpose, Why};
use anchorlog_replicator::{
    End, Fault, FollowerConfig, FollowerLink, Guarantee, Leader, LeaderConfig, Link, LinkError, NotAdmitted, OnMissing,
    Policy, guarantee, member,
};

use crate::pair::{Node, Pair, TWO_COPIES, Voice, Wire, append, config, id, leader_options, members, take_all};

const MISSING: NotAdmitted = NotAdmitted::Missing { in_sync: 0, copies: 2 };

/// K-40, K-41: what could not be kept is refused before it is stored, and taken again when the follower is back.
#[test]
fn without_its_follower_a_leader_admits_nothing_and_goes_on_when_it_is_back() {
    let mut pair = Pair::new(config(TWO_COPIES));
    pair.settle();
    assert_eq!(pair.leader.admission(), Ok(()));
    pair.disconnect();
    assert_eq!(pair.leader.admission(), Err(MISSING));
    let end = append(&pair.a.engine, "orders", b"somebody did not ask");
    pair.a.settle();
    assert!(pair.a.engine.watermarks().acked < end);
    pair.connect();
    pair.settle();
    assert_eq!(pair.leader.admission(), Ok(()));
    assert_eq!(pair.a.engine.watermarks().acked, end);
    assert_eq!(pair.leader.status(pair.now()).degradations, 0);
}

/// What is degraded is called so, and is over by itself.
#[test]
fn a_policy_that_degrades_does_it_by_name_and_ends_it_by_itself() {
    let policy = Policy::Sync { copies: 2, on_missing: OnMissing::Degrade };
    let mut pair = Pair::new(config(policy));
    pair.settle();
    let status = pair.leader.status(pair.now());
    assert!(!status.degraded, "{status:?}");
    pair.disconnect();
    assert_eq!(pair.leader.admission(), Ok(()));
    let status = pair.leader.status(pair.now());
    assert_eq!((status.degraded, status.degradations), (true, 2), "once before the first follower came");
    let end = append(&pair.a.engine, "orders", b"on one disk");
    pair.a.settle();
    assert_eq!(pair.a.engine.watermarks().acked, end);
    pair.connect();
    pair.settle();
    let status = pair.leader.status(pair.now());
    assert!(!status.degraded && status.peers[0].durable == end, "{status:?}");
    pair.b.disk.hold(true);
    let end = append(&pair.a.engine, "orders", b"on two");
    for _ in 0..20 {
        let now = pair.now();
        pair.wire.carry(now).unwrap();
        pair.a.engine.step();
    }
    assert!(pair.a.engine.watermarks().acked < end, "the promise is the old one again");
}

/// K-39: a follower whose answers stop, in either direction, stops counting before a client's patience ends.
#[test]
fn a_connection_that_is_dead_in_one_direction_does_not_count() {
    for leader_hears in [true, false] {
        let mut pair = Pair::new(config(TWO_COPIES));
        pair.settle();
        assert_eq!(pair.leader.admission(), Ok(()));
        let mut waited = Duration::ZERO;
        while pair.leader.admission().is_ok() {
            let step = Duration::from_millis(100);
            pair.clock.advance(step);
            waited += step;
            assert!(waited < Duration::from_secs(3), "nothing gets through, and it still counts: {leader_hears}");
            let now = pair.now();
            pair.leader.tick(now);
            let mut voice = Voice::default();
            // One direction goes on, the other one swallows everything.
            if leader_hears {
                let pieces = pair.wire.leader.send(now, 1000);
                drop(pieces);
                // The follower says on its own that it is there.
                let ack = pair.last_ack(voice.beat);
                pair.wire.leader.receive(&Message::Ack(ack).encode(), now).unwrap();
            } else if let Ok((said, _)) = voice.hear(&mut pair.wire.leader, now) {
                for message in said {
                    pair.wire.follower.receive(&message.encode(), now).unwrap();
                }
                drop(pair.wire.follower.send(now, 1000));
            }
        }
        assert_eq!(pair.leader.admission(), Err(MISSING));
    }
}

/// A follower far behind is connected, and does not count until it is close.
#[test]
fn a_follower_that_lags_does_not_count_until_it_is_close() {
    let mut config = config(TWO_COPIES);
    config.in_sync.lag_bytes = 4000;
    let mut pair = Pair::new(config);
    pair.settle();
    pair.b.disk.hold(true);
    for _ in 0..3 {
        append(&pair.a.engine, "orders", &[7; 2000]);
        let now = pair.now();
        pair.wire.carry(now).unwrap();
    }
    pair.leader.tick(pair.now());
    assert_eq!(pair.leader.admission(), Err(MISSING));
    assert!(pair.leader.status(pair.now()).peers[0].connected);
    pair.b.disk.hold(false);
    pair.settle();
    assert_eq!(pair.leader.admission(), Ok(()));
}

/// K-47: one id, one vote, one connection: the newest.
#[test]
fn a_second_connection_of_an_id_replaces_the_first() {
    let policy = Policy::Sync { copies: 3, on_missing: OnMissing::Refuse };
    let mut pair = Pair::new(config(policy));
    pair.settle();
    let twin = Node::replica_of(&pair.a.engine, 3, &pair.clock);
    let now = pair.now();
    let link = FollowerLink::new(Arc::clone(&twin.engine), FollowerConfig::new(id("b"), 0), now);
    let mut second = Wire::new(pair.leader.link(now), link);
    for _ in 0..50 {
        second.carry(now).unwrap();
        twin.engine.step();
    }
    assert_eq!(
        pair.leader.admission(),
        Err(NotAdmitted::Missing { in_sync: 1, copies: 3 }),
        "two connections, one vote"
    );
    let end = append(&pair.a.engine, "orders", b"one");
    assert!(matches!(pair.wire.leader.send(now, 1000), Err(LinkError::Replaced)));
    let ack = Ack { epoch: pair.leader.epoch(), received: end, durable: end, free_bytes: 1 << 40, beat: 1 };
    assert!(pair.wire.leader.receive(&Message::Ack(ack).encode(), now).is_err(), "the first one counts no more");
    // Its end does not take the second one's place away.
    pair.disconnect();
    let status = pair.leader.status(now);
    assert!(status.peers[0].connected && status.peers[0].connections == 2, "{status:?}");
}

/// The smallest free space of those that count is what a leader heeds.
#[test]
fn a_follower_without_space_stops_the_leader_before_it_is_full() {
    let mut pair = Pair::new(config(TWO_COPIES));
    pair.settle();
    assert_eq!(pair.leader.admission(), Ok(()));
    pair.b.disk.set_capacity(Some(pair.b.disk.used_bytes() + (512 << 10)));
    pair.pass(Duration::from_millis(600));
    assert_eq!(pair.leader.admission(), Err(NotAdmitted::NoSpace));
    pair.b.disk.set_capacity(None);
    pair.pass(Duration::from_millis(600));
    assert_eq!(pair.leader.admission(), Ok(()));
}

fn refusal(pair: &mut Pair, name: &str, promised_term: u32) -> (Option<End>, Option<Why>) {
    let now = pair.now();
    let mut link = pair.leader.link(now);
    let mut voice = Voice::default();
    voice.name = name.to_owned();
    link.receive(&voice.hello(&pair.b.engine, promised_term), now).unwrap();
    let (said, _) = voice.hear(&mut link, now).unwrap();
    let why =
        said.iter().find_map(|message| if let Message::Refusal(refusal) = message { Some(refusal.why) } else { None });
    (link.end().cloned(), why)
}

#[test]
fn whoever_is_no_member_is_refused() {
    let mut pair = Pair::new(config(TWO_COPIES));
    for (name, why) in [("stranger", Some(Why::Unknown)), ("a", Some(Why::Unknown)), ("c", None)] {
        let (end, told) = refusal(&mut pair, name, 0);
        assert_eq!(told, why, "{name}");
        assert_eq!(end.is_some(), why.is_some());
    }
}

/// K-49: a leader that hears of a higher term takes nothing more, from nobody, and nothing counts.
#[test]
fn a_promise_of_a_higher_term_ends_a_leaders_reign() {
    let mut pair = Pair::new(config(TWO_COPIES));
    pair.settle();
    assert_eq!(refusal(&mut pair, "c", 2).1, Some(Why::HigherTerm));
    assert_eq!(pair.leader.admission(), Err(NotAdmitted::Superseded { term: 2 }));
    assert_eq!(pair.leader.superseded(), Some(2));
    let end = append(&pair.a.engine, "orders", b"too late");
    pair.settle();
    assert!(pair.b.engine.watermarks().durable >= end);
    assert!(pair.a.engine.watermarks().acked < end, "nothing counts any more");
}

/// An ack says under which epoch it was made; one of another epoch is about another log.
#[test]
fn an_ack_under_another_epoch_does_not_count() {
    let mut pair = Pair::new(config(TWO_COPIES));
    pair.settle();
    let end = append(&pair.a.engine, "orders", b"one");
    pair.a.settle();
    let now = pair.now();
    drop(pair.wire.leader.send(now, 10_000).unwrap());
    for epoch in [Epoch { term: 0, run: 1 }, Epoch { term: 1, run: 2 }, Epoch { term: 2, run: 1 }] {
        let ack = Ack { epoch, received: end, durable: end, free_bytes: 1 << 40, beat: 1 };
        pair.wire.leader.receive(&Message::Ack(ack).encode(), now).unwrap();
        assert!(pair.a.engine.watermarks().acked < end, "{epoch}");
    }
    let ack = Ack { epoch: pair.leader.epoch(), received: end, durable: end, free_bytes: 1 << 40, beat: 1 };
    pair.wire.leader.receive(&Message::Ack(ack).encode(), now).unwrap();
    assert_eq!(pair.a.engine.watermarks().acked, end);
}

/// What an older epoch left counts when this epoch's first frame is on the follower's disk, too, and not before: until then a log of an
/// epoch between the two could still win a promotion against that follower's.
#[test]
fn what_an_older_run_left_is_not_acknowledged_before_this_runs_first_frame_is() {
    for fault in [None, Some(Fault::EpochUnchecked)] {
        let mut pair = Pair::new(config(TWO_COPIES));
        pair.settle();
        pair.disconnect();
        let left = append(&pair.a.engine, "orders", b"on the leader's disk alone");
        pair.a.settle();
        let Pair { clock, a, b, leader, wire } = pair;
        drop((wire, leader));
        let Node { disk, engine } = a;
        drop(engine);
        let a = Node::open(disk.kill(), &clock, leader_options());
        let first = a.engine.history().last().unwrap();
        assert!(first.epoch.run == 2 && first.first_lsn >= left);
        let mut broken = config(TWO_COPIES);
        broken.fault = fault;
        let leader = Leader::new(Arc::clone(&a.engine), broken).unwrap();
        let now = clock.monotonic();
        let follower = FollowerLink::new(Arc::clone(&b.engine), FollowerConfig::new(id("b"), 0), now);
        let mut wire = Wire::new(leader.link(now), follower);
        wire.to_leader.extend(take_all(&mut wire.follower, now).unwrap());
        wire.leader.receive(wire.to_leader.make_contiguous(), now).unwrap();
        let bytes = take_all(&mut wire.leader, now).unwrap();
        // The new run's first frames are torn.
        let missing = usize::try_from(a.engine.watermarks().assigned.since(first.first_lsn)).unwrap();
        wire.follower.receive(&bytes[..bytes.len() - missing], now).unwrap();
        b.settle();
        assert_eq!(b.engine.watermarks().durable, first.first_lsn);
        let ack = take_all(&mut wire.follower, now).unwrap();
        wire.leader.receive(&ack, now).unwrap();
        let is_acked = a.engine.watermarks().acked >= left;
        assert_eq!(is_acked, fault.is_some(), "{:?}", leader.status(now));
        wire.follower.receive(&bytes[bytes.len() - missing..], now).unwrap();
        b.settle();
        let ack = take_all(&mut wire.follower, now).unwrap();
        wire.leader.receive(&ack, now).unwrap();
        assert!(a.engine.watermarks().acked >= left);
    }
}

/// Handing over: nothing new, and what there is reaches the followers.
#[test]
fn a_leader_that_stops_drains() {
    let mut pair = Pair::new(config(TWO_COPIES));
    pair.settle();
    append(&pair.a.engine, "orders", b"one");
    assert!(!pair.leader.is_drained());
    pair.leader.stop(pair.now());
    assert_eq!(pair.leader.admission(), Err(NotAdmitted::Stopping));
    pair.settle();
    assert!(pair.leader.is_drained());
    assert_eq!(refusal(&mut pair, "c", 0).1, Some(Why::Stopping));
}

/// Members stand in the log; a new one votes once the log says so on as many disks as before.
#[test]
fn members_stand_in_the_log_and_a_new_one_votes_when_the_log_says_so() {
    let mut pair = Pair::new(config(TWO_COPIES));
    pair.settle();
    assert_eq!(member::read(&pair.a.engine).unwrap(), members(&["a", "b", "c"]));
    assert_eq!(
        member::read(&pair.b.engine).unwrap(),
        members(&["a", "b", "c"]),
        "whoever is promoted knows whom to ask"
    );

    let clock: Arc<SimClock> = Arc::clone(&pair.clock);
    let Pair { a, b, leader, wire, .. } = pair;
    drop((wire, leader));
    let Node { disk, engine } = a;
    drop(engine);
    let a = Node::open(disk.kill(), &clock, leader_options());
    let wanted = members(&["a", "b", "d"]);
    let leader =
        Leader::new(Arc::clone(&a.engine), LeaderConfig { members: wanted.clone(), ..config(TWO_COPIES) }).unwrap();
    let d = Node::replica_of(&a.engine, 9, &clock);
    let now = clock.monotonic();
    let follow = |node: &Node, name: &str| {
        let config = FollowerConfig::new(id(name), 0);
        Wire::new(leader.link(now), FollowerLink::new(Arc::clone(&node.engine), config, now))
    };
    let mut to_d = follow(&d, "d");
    for _ in 0..100 {
        clock.advance(Duration::from_millis(1));
        to_d.carry(clock.monotonic()).unwrap();
        d.engine.step();
        a.engine.step();
    }
    let status = leader.status(now);
    let peer = status.peers.iter().find(|peer| peer.replica == id("d")).unwrap();
    assert!(peer.connected && peer.lag_bytes == 0 && !peer.is_member && !peer.in_sync, "{status:?}");
    assert!(leader.admission().is_err(), "nobody would ask it");
    let mut to_b = follow(&b, "b");
    for _ in 0..1000 {
        clock.advance(Duration::from_millis(1));
        let now = clock.monotonic();
        to_b.carry(now).unwrap();
        to_d.carry(now).unwrap();
        for node in [&a, &b, &d] {
            node.engine.step();
        }
        leader.tick(now);
    }
    let now = clock.monotonic();
    let status = leader.status(now);
    assert!(status.peers.iter().all(|peer| peer.is_member && peer.in_sync), "{status:?}");
    assert_eq!(member::read(&a.engine).unwrap(), wanted);
}

/// K-50: while members change, what counts is what the members before have; the new one's word alone acknowledges nothing, and when the
/// change is through, it does.
#[test]
fn while_members_change_nothing_is_acknowledged_on_a_new_ones_word_alone() {
    let mut pair = Pair::new(config(TWO_COPIES));
    pair.settle();
    let clock: Arc<SimClock> = Arc::clone(&pair.clock);
    let Pair { a, b, leader, wire, .. } = pair;
    drop((wire, leader));
    let Node { disk, engine } = a;
    drop(engine);
    let a = Node::open(disk.kill(), &clock, leader_options());
    let config = LeaderConfig { members: members(&["a", "d"]), ..config(TWO_COPIES) };
    let leader = Leader::new(Arc::clone(&a.engine), config).unwrap();
    let d = Node::replica_of(&a.engine, 9, &clock);
    let follow = |node: &Node, name: &str| {
        let now = clock.monotonic();
        let config = FollowerConfig::new(id(name), 0);
        Wire::new(leader.link(now), FollowerLink::new(Arc::clone(&node.engine), config, now))
    };
    let run = |wires: &mut [&mut Wire<anchorlog_replicator::LeaderLink, FollowerLink>]| {
        for _ in 0..1500 {
            clock.advance(Duration::from_millis(1));
            let now = clock.monotonic();
            for wire in wires.iter_mut() {
                wire.carry(now).unwrap();
            }
            for node in [&a, &b, &d] {
                node.engine.step();
            }
            leader.tick(now);
        }
    };
    let mut to_d = follow(&d, "d");
    let early = append(&a.engine, "orders", b"between two sets of members");
    run(&mut [&mut to_d]);
    assert!(d.engine.watermarks().durable >= early, "the new one has it");
    assert!(a.engine.watermarks().acked < early, "and has no say yet");
    let both = [members(&["a", "b", "c"]), members(&["a", "d"])];
    assert_eq!(member::possible(&d.engine).unwrap(), both, "nobody knows there whether it is made");
    let mut to_b = follow(&b, "b");
    run(&mut [&mut to_d, &mut to_b]);
    assert!(a.engine.watermarks().acked >= early, "one of those before has it, too");
    assert_eq!(member::read(&b.engine).unwrap(), members(&["a", "d"]));
    assert_eq!(member::possible(&b.engine).unwrap(), [members(&["a", "d"])]);
    // Now the new one's word counts, and that of those before no more.
    drop(to_b);
    let late = append(&a.engine, "orders", b"the change is through");
    run(&mut [&mut to_d]);
    assert!(a.engine.watermarks().acked >= late);
}

/// K-50: with more members come more copies. Until those before have agreed theirs count, and nothing waits for one who is no member.
#[test]
fn members_and_copies_are_raised_together() {
    let mut pair = Pair::new(LeaderConfig { members: members(&["a", "b"]), ..config(TWO_COPIES) });
    pair.settle();
    let clock: Arc<SimClock> = Arc::clone(&pair.clock);
    let Pair { a, b, leader, wire, .. } = pair;
    drop((wire, leader));
    let Node { disk, engine } = a;
    drop(engine);
    let a = Node::open(disk.kill(), &clock, leader_options());
    let three = Policy::Sync { copies: 3, on_missing: OnMissing::Refuse };
    let config = LeaderConfig { members: members(&["a", "b", "d"]), ..config(three) };
    let leader = Leader::new(Arc::clone(&a.engine), config).unwrap();
    let d = Node::replica_of(&a.engine, 9, &clock);
    let follow = |node: &Node, name: &str| {
        let now = clock.monotonic();
        Wire::new(leader.link(now), FollowerLink::new(Arc::clone(&node.engine), FollowerConfig::new(id(name), 0), now))
    };
    let (mut to_b, mut to_d) = (follow(&b, "b"), follow(&d, "d"));
    let early = append(&a.engine, "orders", b"between two and three copies");
    for round in 0..2 {
        for _ in 0..1500 {
            clock.advance(Duration::from_millis(1));
            let now = clock.monotonic();
            to_b.carry(now).unwrap();
            if round == 1 {
                to_d.carry(now).unwrap();
            }
            for node in [&a, &b, &d] {
                node.engine.step();
            }
            leader.tick(now);
        }
        let marks = a.engine.watermarks();
        assert_eq!(marks.acked >= early, round == 1, "{marks:?} in round {round}");
        assert_eq!(member::read(&b.engine).unwrap(), members(&["a", "b", "d"]), "two of two have agreed");
    }
    assert_eq!(leader.admission(), Ok(()));
    let told = Guarantee::new(three, Flush::Sync);
    assert_eq!(guarantee::possible(&d.engine).unwrap(), [told]);
}

/// The log says it before anything is acknowledged under it, from its first frame on.
#[test]
fn what_is_guaranteed_stands_in_the_log_as_the_members_do() {
    let mut pair = Pair::new(config(Policy::Async));
    let told = Guarantee::new(Policy::Async, Flush::Sync);
    assert_eq!(guarantee::possible(&pair.a.engine).unwrap(), [told]);
    pair.settle();
    assert_eq!(guarantee::possible(&pair.b.engine).unwrap(), [told]);
}

#[test]
fn an_engine_that_was_not_opened_to_lead_does_not() {
    let clock = Arc::new(SimClock::default());
    let alone = Node::open(SimDisk::new(1), &clock, crate::pair::options());
    assert!(Leader::new(Arc::clone(&alone.engine), config(TWO_COPIES)).is_err(), "its acks would not wait");
    let replica = Node::replica_of(&alone.engine, 2, &clock);
    assert!(Leader::new(Arc::clone(&replica.engine), config(TWO_COPIES)).is_err());
}

/// What a leader answers to `b` with a log that is the real one's but for `change`.
fn greeted(pair: &Pair, change: impl FnOnce(&mut LogState)) -> Vec<Message> {
    let now = pair.now();
    let mut log = LogState::of(&pair.b.engine);
    change(&mut log);
    let hello =
        Hello { replica: id("b"), purpose: Purpose::Stream, promised_term: 0, log: Some(log), free_bytes: 1 << 40 };
    let mut link = pair.leader.link(now);
    link.receive(&Message::Hello(hello).encode(), now).unwrap();
    Voice::default().hear(&mut link, now).unwrap().0
}

/// K-45, K-47: what an older connection says is about a log that is to be cut.
#[test]
fn a_follower_that_is_told_to_cut_counts_no_more() {
    let mut pair = Pair::new(config(TWO_COPIES));
    pair.settle();
    assert_eq!(pair.leader.admission(), Ok(()));
    let end = append(&pair.a.engine, "orders", b"one");
    pair.settle();
    let said = greeted(&pair, |log| (log.end, log.durable) = (end.plus(800), end.plus(800)));
    assert!(matches!(said[..], [Message::Welcome(_)]), "{said:?}");
    assert_eq!(pair.leader.admission(), Err(MISSING));
    let more = append(&pair.a.engine, "orders", b"two");
    let ack = Ack { epoch: pair.leader.epoch(), received: end, durable: more, free_bytes: 1 << 40, beat: 1 };
    assert!(pair.wire.leader.receive(&Message::Ack(ack).encode(), pair.now()).is_err());
    pair.a.settle();
    assert!(pair.a.engine.watermarks().acked < more);
}

/// K-44: a leader whose follower was told of more in the leader's own term has lost that.
#[test]
fn a_leader_that_has_less_than_a_follower_was_told_in_its_term_leads_no_more() {
    let mut pair = Pair::new(config(TWO_COPIES));
    pair.settle();
    let end = pair.a.engine.watermarks().assigned.plus(8);
    let said = greeted(&pair, |log| (log.end, log.durable, log.committed) = (end, end, end));
    assert!(matches!(&said[..], [Message::Refusal(refusal)] if refusal.why == Why::Diverged), "{said:?}");
    let term = pair.leader.epoch().term;
    assert_eq!(pair.leader.admission(), Err(NotAdmitted::Superseded { term }));
}
