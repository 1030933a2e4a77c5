//! Bytes out, bytes in.

use anchorlog_engine::io::sim::{SimDisk, Survival};
use anchorlog_engine::{
    AckRule, AppendError, Epoch, Lsn, OpenError, Put, ReceiveError, Role, Subscription, Watermark, WriteBatch,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::pair::{Node, append, body, bytes_from, follow, options, payloads, ship};

fn fill(leader: &Node, from: u64, count: u64) {
    for number in from..from + count {
        append(leader.engine(), "orders", &body(number, 100 + usize::try_from(number % 7).unwrap() * 900));
        leader.settle();
    }
}

#[test]
fn a_replica_holds_the_leaders_bytes_over_many_segments_and_shows_its_messages() {
    for max in [1, 7, 64, 1000, 20_000] {
        let leader = Node::leader(1);
        let replica = Node::replica_of(leader.engine(), 2);
        for round in 0..if max == 1 { 2 } else { 8 } {
            fill(&leader, round * 10, 10);
            ship(leader.engine(), replica.engine(), max).unwrap();
        }
        follow(&leader, &replica);
        assert_eq!(bytes_from(replica.engine(), Lsn::ZERO), bytes_from(leader.engine(), Lsn::ZERO), "pieces of {max}");
        assert_eq!(payloads(replica.engine(), "orders"), payloads(leader.engine(), "orders"));
        assert_eq!(replica.engine().history(), leader.engine().history());
    }
}

#[test]
fn a_replica_refuses_appends_and_a_leader_takes_nothing_over() {
    let leader = Node::leader(1);
    let replica = Node::replica_of(leader.engine(), 2);
    let queue = replica.engine().queue(b"orders").unwrap();
    let mut batch = WriteBatch::new();
    batch.put(&Put { key: b"key", value: b"value", target: None }).map(drop).unwrap();
    assert!(matches!(replica.engine().try_append(&mut batch), Err(AppendError::NotLeader)));
    assert_eq!(replica.engine().range(&queue).max.0, 0);
    let end = leader.engine().watermarks().assigned;
    assert!(matches!(leader.engine().receive(end, b""), Err(ReceiveError::NotReplica)));
}

#[test]
fn a_replica_shows_what_is_committed_and_no_more() {
    let leader = Node::leader(1);
    let replica = Node::replica_of(leader.engine(), 2);
    fill(&leader, 0, 5);
    ship(leader.engine(), replica.engine(), 5000).unwrap();
    replica.settle();
    let durable = replica.engine().watermarks().durable;
    assert_eq!(durable, leader.engine().watermarks().assigned);
    assert!(payloads(replica.engine(), "orders").is_empty());
    replica.engine().set_replicated(durable);
    assert_eq!(payloads(replica.engine(), "orders").len(), 5);
    assert_eq!(replica.engine().watermarks().acked, durable);
}

#[test]
fn acks_wait_for_replicas_or_for_none_as_the_rule_says_and_never_step_back() {
    let leader = Node::open(SimDisk::new(1), options().with_replicated_acks(true)).unwrap();
    let engine = leader.engine();
    let begin = engine.watermarks().acked;
    let end = append(engine, "orders", b"one");
    leader.settle();
    assert!(engine.watermarks().durable >= end);
    assert_eq!(engine.watermarks().acked, begin, "no replica has it");
    let acked = engine.subscribe(Watermark::Acked).unwrap();
    acked.arm(end);
    engine.set_replicated(Lsn(end.0 - 8));
    assert_eq!(engine.watermarks().acked, Lsn(end.0 - 8));
    engine.set_replicated(end);
    assert_eq!(acked.drain(), end);
    engine.set_replicated(begin);
    assert_eq!(engine.watermarks().acked, end, "it only grows");
    let next = append(engine, "orders", b"two");
    leader.settle();
    assert_eq!(engine.watermarks().acked, end);
    engine.set_ack_rule(AckRule::Local);
    assert_eq!(engine.watermarks().acked, engine.watermarks().durable);
    engine.set_ack_rule(AckRule::Replicated);
    let _third = append(engine, "orders", b"three");
    leader.settle();
    assert!(engine.watermarks().acked >= next && engine.watermarks().acked < engine.watermarks().durable);
    assert_eq!(payloads(engine, "orders").len(), 2);
}

#[test]
fn growth_wakes_who_asked_for_it() {
    let leader = Node::leader(1);
    let engine = leader.engine();
    let (one, other) = (engine.subscribe(Watermark::Assigned).unwrap(), engine.subscribe(Watermark::Assigned).unwrap());
    let end = engine.watermarks().assigned;
    one.arm(end.plus(1));
    other.arm(end.plus(1_000_000));
    let readable = |subscription: &Subscription| {
        poll(&mut [PollFd::new(subscription.fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() == 1
    };
    assert!(!readable(&one));
    let first = append(engine, "orders", b"one");
    assert!(readable(&one) && !readable(&other));
    assert_eq!(one.drain(), first);
    append(engine, "orders", b"two");
    assert!(!readable(&one), "not armed again");
    engine.wait(Watermark::Assigned, first, None).unwrap();
}

/// K-49: whoever was superseded is refused, at the very place where it goes on.
#[test]
fn a_higher_term_is_followed_and_an_older_epoch_refused_for_ever() {
    let mut leader = Node::leader(1);
    let replica = Node::replica_of(leader.engine(), 2);
    fill(&leader, 0, 3);
    follow(&leader, &replica);
    let old = leader.disk.clone();
    leader.close();
    // The same log goes on twice: once promoted, once as if nothing had happened.
    let image = old.crash_with(7, Survival::Everything);
    let promoted = Node::open(image, options().with_role(Role::Leader { term: Some(2) })).unwrap();
    let stale = Node::open(old, options()).unwrap();
    assert_eq!(promoted.engine().info().epoch, Epoch { term: 2, run: 1 });
    // Both begin with a history of two epochs, so both have a frame behind it at the same place.
    ship(promoted.engine(), replica.engine(), 5000).unwrap();
    let at = replica.engine().watermarks().assigned;
    assert_eq!(replica.engine().history().last().unwrap().epoch, Epoch { term: 2, run: 1 });
    append(stale.engine(), "orders", b"nobody follows");
    let error = replica.engine().receive(at, &bytes_from(stale.engine(), at)).unwrap_err();
    assert!(
        matches!(error, ReceiveError::StaleEpoch { lsn, known, found } if lsn == at && known.term == 2 && found.term == 1),
        "{error}"
    );
    fill(&promoted, 10, 3);
    follow(&promoted, &replica);
    assert_eq!(payloads(replica.engine(), "orders").len(), 6);
    let again = promoted.disk.crash_with(1, Survival::Everything);
    let again = Node::open(again, options().with_role(Role::Leader { term: Some(2) }));
    assert!(matches!(again.map(drop), Err(OpenError::Term { asked: 2, last: 2 })), "a term begins once");
}

#[test]
fn an_epoch_that_begins_elsewhere_or_has_another_past_is_refused() {
    // Two logs of one identity that parted without a trace of it in the first frames.
    let mut leader = Node::leader(1);
    fill(&leader, 0, 2);
    let seed = crate::pair::beginning_of(leader.engine());
    let disk = leader.disk.clone();
    leader.close();
    let mut other = Node::open(disk.crash_with(1, Survival::Everything), options()).unwrap();
    fill(&other, 50, 4);
    other.close();
    let other = Node::open(other.disk, options().with_role(Role::Leader { term: Some(3) })).unwrap();
    let mine = Node::open(disk, options().with_role(Role::Leader { term: Some(2) })).unwrap();
    let replica_disk = SimDisk::new(3);
    let seeding =
        anchorlog_engine::replica::Seeding::begin(replica_disk.backend(), crate::pair::DIR, &seed, &options());
    seeding.unwrap().finish().unwrap();
    let replica = Node::open(replica_disk, crate::pair::replica_options()).unwrap();
    ship(mine.engine(), replica.engine(), 5000).unwrap();
    let at = replica.engine().watermarks().assigned;
    // Everything of the other log from there on: chain or epoch give it away, whatever frame it begins with.
    let theirs = bytes_from(other.engine(), at);
    let error = replica.engine().receive(at, &theirs).unwrap_err();
    let known = matches!(
        error,
        ReceiveError::Frame { .. }
            | ReceiveError::Chain { .. }
            | ReceiveError::StaleEpoch { .. }
            | ReceiveError::Epoch { .. }
    );
    assert!(known, "{error}");
    assert_eq!(replica.engine().watermarks().assigned, at);
    let error = replica.engine().receive(Lsn(at.0 + 8), &theirs).unwrap_err();
    assert!(matches!(error, ReceiveError::Position { expected, .. } if expected == at), "{error}");
}

#[test]
fn bytes_that_changed_on_the_way_are_never_taken() {
    let leader = Node::leader(1);
    fill(&leader, 0, 14);
    let bytes = bytes_from(leader.engine(), Lsn::ZERO);
    let replica = Node::replica_of(leader.engine(), 2);
    let mut changed_count = 0;
    for at in (0..bytes.len()).step_by(331).chain(0..96) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        let begin = usize::try_from(replica.engine().watermarks().assigned.0).unwrap();
        if begin > at {
            continue;
        }
        let end = changed.len().min(at + 4000);
        let outcome = replica.engine().receive(Lsn(begin as u64), &changed[begin..end]);
        replica.settle();
        let taken = usize::try_from(replica.engine().watermarks().assigned.0).unwrap();
        assert!(taken <= at, "the change at {at} was taken: {outcome:?}");
        changed_count += usize::from(outcome.is_err());
    }
    assert!(changed_count > 20, "{changed_count}");
    ship(leader.engine(), replica.engine(), 5000).unwrap();
    assert_eq!(bytes_from(replica.engine(), Lsn::ZERO), bytes);
}
