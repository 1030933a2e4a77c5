//! Bytes that are damaged on one side, from the other.

use std::ops::Range;

use anchorlog_engine::Lsn;
use anchorlog_replicator::message::{LogState, Why};
use anchorlog_replicator::{End, Link, Policy, RangeLink};

use crate::pair::{Pair, Wire, append, body, bytes_from, config, id};

fn pair() -> Pair {
    let mut pair = Pair::new(config(Policy::Async));
    pair.settle();
    for number in 0..100 {
        append(&pair.a.engine, "orders", &body(number, 3000));
        pair.settle();
    }
    pair
}

fn ask(
    pair: &Pair,
    log: LogState,
    ranges: Vec<Range<Lsn>>,
) -> (Wire<anchorlog_replicator::LeaderLink, RangeLink>, End) {
    let now = pair.now();
    let mut wire = Wire::new(pair.leader.link(now), RangeLink::new(id("b"), 0, log, ranges, now));
    for _ in 0..100 {
        wire.carry(now).unwrap();
        if let Some(end) = wire.follower.end().cloned() {
            return (wire, end);
        }
    }
    panic!("it does not end");
}

#[test]
fn ranges_come_whole_and_in_their_order() {
    let pair = pair();
    let log = bytes_from(&pair.a.engine, Lsn::ZERO);
    let end = pair.a.engine.watermarks().assigned;
    let ranges = vec![Lsn(1000)..Lsn(1001), Lsn(60_000)..Lsn(200_000), Lsn(5)..Lsn(5), Lsn(0)..end];
    let (mut wire, over) = ask(&pair, LogState::of(&pair.b.engine), ranges.clone());
    assert_eq!(over, End::Done);
    let got: Vec<u8> = wire.follower.take().into_iter().flat_map(|(_, bytes)| bytes).collect();
    let place = |range: &Range<Lsn>| usize::try_from(range.start.0).unwrap()..usize::try_from(range.end.0).unwrap();
    let expected: Vec<u8> = ranges.iter().flat_map(|range| log[place(range)].to_vec()).collect();
    assert!(got == expected && wire.follower.missing().is_empty());
}

#[test]
fn what_the_other_side_does_not_have_is_named() {
    let pair = pair();
    let end = pair.a.engine.watermarks().assigned;
    let (mut wire, over) = ask(&pair, LogState::of(&pair.b.engine), vec![Lsn(0)..Lsn(10), end..end.plus(8)]);
    assert_eq!(over, End::Done);
    assert_eq!(wire.follower.take().len(), 1);
    assert_eq!(wire.follower.missing(), [end..end.plus(8)]);
}

#[test]
fn bytes_of_another_log_are_not_given() {
    let pair = pair();
    let mut log = LogState::of(&pair.b.engine);
    log.identity.store_id += 1;
    let (_, over) = ask(&pair, log, vec![Lsn(0)..Lsn(10)]);
    assert!(matches!(over, End::Refused(refusal) if refusal.why == Why::OtherLog));
}
