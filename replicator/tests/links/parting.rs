//! Logs that went different ways.

use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::clock::SimClock;
use anchorlog_engine::io::sim::SimDisk;
use anchorlog_engine::{Clock, Lsn, Role};
use anchorlog_replicator::message::Why;
use anchorlog_replicator::{End, FollowerConfig, FollowerLink, Leader, Link, LinkError, Policy};

use crate::pair::{Node, Pair, Wire, append, config, id, leader_options};

/// Opens what a node's disk holds with another role, as if its process had been killed.
fn reopened(node: Node, clock: &Arc<SimClock>, role: Role) -> Node {
    let Node { disk, engine } = node;
    drop(engine);
    Node::open(disk.kill(), clock, leader_options().with_role(role))
}

/// Carries until one side is over or fails.
fn meet(leader: &Node, follower: &Node, promised_term: u32, clock: &SimClock) -> Result<Option<End>, LinkError> {
    let now = clock.monotonic();
    let leads = Leader::new(Arc::clone(&leader.engine), config(Policy::Async)).unwrap();
    let link = FollowerLink::new(Arc::clone(&follower.engine), FollowerConfig::new(id("b"), promised_term), now);
    let mut wire = Wire::new(leads.link(now), link);
    for _ in 0..100 {
        wire.carry(now)?;
        leader.engine.step();
        follower.engine.step();
        if let Some(end) = wire.follower.end() {
            return Ok(Some(end.clone()));
        }
    }
    Ok(None)
}

/// A leader and a follower that has everything up to some place, and both wrote on after that.
fn parted() -> (Arc<SimClock>, Node, Node, Lsn) {
    let mut pair = Pair::new(config(Policy::Async));
    pair.settle();
    append(&pair.a.engine, "orders", b"both have this");
    pair.pass(Duration::from_secs(1));
    let common = pair.a.engine.watermarks().assigned;
    pair.disconnect();
    let Pair { clock, a, b, leader, wire } = pair;
    drop((leader, wire));
    append(&a.engine, "orders", b"the old leader alone has this");
    a.settle();
    (clock, a, b, common)
}

/// K-44, K-45: the old leader's tail, which nobody else has, is cut where the new one's epoch begins.
#[test]
fn an_old_leader_that_comes_back_is_told_where_to_cut() {
    let (clock, a, b, common) = parted();
    let b = reopened(b, &clock, Role::Leader { term: Some(2) });
    append(&b.engine, "orders", b"the new leader has this");
    b.settle();
    let a = reopened(a, &clock, Role::Replica);
    assert_eq!(meet(&b, &a, 0, &clock).unwrap(), Some(End::Cut { at: common }));
}

/// K-49.
#[test]
fn an_old_leader_that_still_leads_is_refused_by_whoever_has_seen_the_new_one() {
    let (clock, a, b, _) = parted();
    let b = reopened(b, &clock, Role::Leader { term: Some(2) });
    let b = reopened(b, &clock, Role::Replica);
    let Some(End::Refused(refusal)) = meet(&a, &b, 0, &clock).unwrap() else { panic!("it follows") };
    assert_eq!(refusal.why, Why::HigherTerm);
}

#[test]
fn a_leader_below_the_promised_term_is_refused() {
    let (clock, a, b, _) = parted();
    let Some(End::Refused(refusal)) = meet(&a, &b, 2, &clock).unwrap() else { panic!("it follows") };
    assert_eq!(refusal.why, Why::HigherTerm);
}

/// K-46a: what a leader streamed ahead of its own flush and lost in a crash stands under an older epoch than what it writes there next.
#[test]
fn what_a_leader_lost_and_its_follower_kept_is_cut() {
    let mut pair = Pair::new(config(Policy::Async));
    pair.settle();
    pair.a.settle();
    let before = pair.a.engine.watermarks().durable;
    pair.a.disk.hold(true);
    append(&pair.a.engine, "orders", b"ahead of the flush");
    for _ in 0..20 {
        let now = pair.now();
        pair.wire.carry(now).unwrap();
        pair.b.engine.step();
    }
    assert!(pair.b.engine.watermarks().durable > before, "the follower's disk was faster");
    let Pair { clock, a, b, leader, wire } = pair;
    drop((leader, wire));
    let disk = a.disk.crash_with(1, anchorlog_engine::io::sim::Survival::Nothing);
    drop(a);
    let a = Node::open(disk, &clock, leader_options());
    append(&a.engine, "orders", b"something else, at the same place");
    a.settle();
    let at = match meet(&a, &b, 0, &clock).unwrap() {
        Some(End::Cut { at }) => at,
        other => panic!("{other:?}"),
    };
    assert!(at <= before);
}

#[test]
fn a_log_that_was_created_apart_is_refused() {
    let clock = Arc::new(SimClock::default());
    let a = Node::open(SimDisk::new(1), &clock, leader_options());
    let other = Node::open(SimDisk::new(2), &clock, leader_options());
    let b = Node::replica_of(&other.engine, 3, &clock);
    let Some(End::Refused(refusal)) = meet(&a, &b, 0, &clock).unwrap() else { panic!("it follows") };
    assert_eq!(refusal.why, Why::OtherLog);
}

/// K-46: a follower that was away so long that the leader has released what comes next begins anew.
#[test]
fn a_follower_whose_next_byte_was_released_begins_anew() {
    let mut pair = Pair::new(config(Policy::Async));
    pair.settle();
    pair.disconnect();
    let Pair { clock, a, b, leader, wire } = pair;
    drop((leader, wire));
    // A leader that knows nothing of this follower, and has no reason to keep the log for it.
    let a = reopened(a, &clock, Role::default());
    a.engine.set_ack_rule(anchorlog_engine::AckRule::Local);
    for _ in 0..100 {
        append(&a.engine, "orders", &[3; 3000]);
        a.settle();
    }
    a.engine.start_retention();
    let end = a.engine.watermarks().acked;
    let _outcome = a.engine.release(end).unwrap();
    for _ in 0..20 {
        clock.advance(Duration::from_secs(1));
        a.settle();
    }
    assert!(a.engine.watermarks().start > b.engine.watermarks().assigned, "{:?}", a.engine.watermarks());
    assert!(matches!(meet(&a, &b, 0, &clock).unwrap(), Some(End::Bootstrap { .. })));
}

/// The log is kept for a follower that is away, until it is further behind than was said.
#[test]
fn the_log_is_kept_for_a_follower_that_is_away_until_it_is_too_far_behind() {
    for (retain_lag_bytes, is_kept) in [(16 << 30, true), (100 << 10, false)] {
        let mut config = config(Policy::Async);
        config.retain_lag_bytes = retain_lag_bytes;
        let mut pair = Pair::new(config);
        pair.settle();
        pair.disconnect();
        pair.leader.tick(pair.now());
        for _ in 0..100 {
            append(&pair.a.engine, "orders", &[3; 3000]);
            pair.a.settle();
        }
        pair.leader.tick(pair.now());
        pair.a.engine.start_retention();
        let end = pair.a.engine.watermarks().acked;
        let _outcome = pair.a.engine.release(end).unwrap();
        for _ in 0..20 {
            pair.clock.advance(Duration::from_secs(1));
            pair.a.settle();
        }
        let released = pair.a.engine.watermarks().start > pair.b.engine.watermarks().assigned;
        assert_eq!(!released, is_kept, "{:?}", pair.a.engine.watermarks());
    }
}

/// K-46: a leader that was opened again does not know how far its followers are, and keeps the log for them, for some time.
#[test]
fn the_log_is_kept_for_a_member_that_was_not_heard_of_yet() {
    for (seconds, is_kept) in [(0, true), (100, false)] {
        let mut config = config(Policy::Async);
        config.retain_unheard = Duration::from_secs(60);
        config.retain_lag_bytes = 100 << 10;
        let pair = Pair::new(config);
        for _ in 0..100 {
            append(&pair.a.engine, "orders", &[3; 3000]);
            pair.a.settle();
        }
        pair.leader.tick(pair.now());
        pair.clock.advance(Duration::from_secs(seconds));
        pair.leader.tick(pair.now());
        pair.a.engine.start_retention();
        let end = pair.a.engine.watermarks().acked;
        let _outcome = pair.a.engine.release(end).unwrap();
        for _ in 0..20 {
            pair.clock.advance(Duration::from_secs(1));
            pair.a.settle();
        }
        assert_eq!(pair.a.engine.watermarks().start == Lsn::ZERO, is_kept, "after {seconds} s");
    }
}
