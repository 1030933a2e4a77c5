//! A directory without a log becomes a replica.

use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::io::sim::SimDisk;
use anchorlog_engine::{Lsn, Put, Role, Target, WriteBatch};
use anchorlog_replicator::{
    End, FollowerConfig, FollowerLink, Link, LinkError, Policy, Replaces, SeedConfig, SeedLink,
};

use crate::pair::{DIR, Node, Pair, Wire, append, append_at, body, bytes_from, config, id, options, payloads};

fn seed_config(disk: &SimDisk, replaces: Replaces) -> SeedConfig {
    SeedConfig { id: id("c"), promised_term: 0, backend: disk.backend(), dir: DIR.into(), options: options(), replaces }
}

fn seed(pair: &Pair, disk: &SimDisk, replaces: Replaces) -> Result<Option<End>, LinkError> {
    let now = pair.now();
    let mut wire = Wire::new(pair.leader.link(now), SeedLink::new(seed_config(disk, replaces), now));
    for _ in 0..200 {
        wire.carry(now)?;
        if let Some(end) = wire.follower.end() {
            return Ok(Some(end.clone()));
        }
    }
    Ok(None)
}

#[test]
fn an_empty_directory_becomes_a_replica_and_follows() {
    let mut pair = Pair::new(config(Policy::Async));
    pair.settle();
    for number in 0..50 {
        append(&pair.a.engine, "orders", &body(number, 2000));
        pair.settle();
    }
    let disk = SimDisk::new(7);
    assert_eq!(seed(&pair, &disk, Replaces::Nothing).unwrap(), Some(End::Done));
    let c = Node::open(disk, &pair.clock, options().with_role(Role::Replica));
    let link = FollowerLink::new(Arc::clone(&c.engine), FollowerConfig::new(id("c"), 0), pair.now());
    let mut wire = Wire::new(pair.leader.link(pair.now()), link);
    for _ in 0..500 {
        pair.pass(Duration::from_millis(1));
        wire.carry(pair.now()).unwrap();
        c.engine.step();
    }
    let start = c.engine.watermarks().start;
    assert_eq!(bytes_from(&c.engine, start), bytes_from(&pair.a.engine, start));
    assert_eq!(start, Lsn::ZERO);
    assert_eq!(payloads(&c.engine, "orders").len(), 50);
    assert!(pair.leader.status(pair.now()).peers.iter().all(|peer| peer.in_sync));
}

#[test]
fn a_log_is_given_up_only_when_that_is_said() {
    let mut pair = Pair::new(config(Policy::Async));
    pair.settle();
    let disk = SimDisk::new(7);
    drop(Node::open(disk.clone(), &pair.clock, options()));
    let disk = disk.kill();
    assert!(matches!(seed(&pair, &disk, Replaces::Nothing), Err(LinkError::Seed(_))));
    drop(Node::open(disk.clone(), &pair.clock, options()));
    let disk = disk.kill();
    assert_eq!(seed(&pair, &disk, Replaces::Erased).unwrap(), Some(End::Done));
    let c = Node::open(disk, &pair.clock, options().with_role(Role::Replica));
    assert_eq!(c.engine.identity(), pair.a.engine.identity());
}

/// A seed that ends halfway leaves nothing that opens, and is begun again.
#[test]
fn a_seed_that_was_cut_short_is_begun_again() {
    let mut pair = Pair::new(config(Policy::Async));
    pair.settle();
    let disk = SimDisk::new(7);
    let now = pair.now();
    let mut leader = pair.leader.link(now);
    let mut link = SeedLink::new(seed_config(&disk, Replaces::Nothing), now);
    let hello: Vec<u8> = link.send(now, 1000).unwrap().iter().flat_map(|piece| piece.as_ref().to_vec()).collect();
    leader.receive(&hello, now).unwrap();
    let answer: Vec<u8> = leader.send(now, 1000).unwrap().iter().flat_map(|piece| piece.as_ref().to_vec()).collect();
    link.receive(&answer[..answer.len() - 1], now).unwrap();
    drop(link);
    let replica = options().with_role(Role::Replica);
    let clock = Arc::clone(&pair.clock) as _;
    assert!(anchorlog_engine::Engine::open_with(disk.backend(), clock, DIR, replica.clone()).is_err());
    assert_eq!(seed(&pair, &disk, Replaces::Nothing).unwrap(), Some(End::Done));
    Node::open(disk, &pair.clock, replica);
}

/// What survives below the log's start comes with the seed, and can be read there.
#[test]
fn what_survives_below_the_start_comes_with_the_seed() {
    let mut config = config(Policy::Async);
    config.retain_lag_bytes = 1;
    let mut pair = Pair::new(config);
    pair.settle();
    pair.disconnect();
    let mut kept = Vec::new();
    for number in 0..100 {
        let lsn = append_at(&pair.a.engine, "orders", &body(number, 3000)).first.lsn;
        pair.a.settle();
        if number % 20 == 3 {
            let mut batch = WriteBatch::new();
            let target = Target::Message(pair.a.engine.reference(lsn).unwrap());
            let key = format!("kept/{number}");
            batch.put(&Put { key: key.as_bytes(), value: b"", target: Some(target) }).unwrap();
            drop(pair.a.engine.try_append(&mut batch).unwrap());
            pair.a.settle();
            kept.push(lsn);
        }
    }
    pair.leader.tick(pair.now());
    pair.a.engine.start_retention();
    let end = pair.a.engine.watermarks().acked;
    let _outcome = pair.a.engine.release(end).unwrap();
    for _ in 0..40 {
        pair.clock.advance(Duration::from_secs(1));
        pair.a.settle();
    }
    let start = pair.a.engine.watermarks().start;
    assert!(start > kept[0], "nothing was released: {:?}", pair.a.engine.watermarks());

    let disk = SimDisk::new(7);
    assert_eq!(seed(&pair, &disk, Replaces::Nothing).unwrap(), Some(End::Done));
    let c = Node::open(disk, &pair.clock, options().with_role(Role::Replica));
    let link = FollowerLink::new(Arc::clone(&c.engine), FollowerConfig::new(id("c"), 0), pair.now());
    let mut wire = Wire::new(pair.leader.link(pair.now()), link);
    for _ in 0..500 {
        pair.clock.advance(Duration::from_millis(1));
        wire.carry(pair.now()).unwrap();
        pair.a.engine.step();
        c.engine.step();
    }
    assert_eq!(c.engine.watermarks().start, start);
    for lsn in kept {
        let (mine, theirs) = (c.engine.read(lsn).unwrap(), pair.a.engine.read(lsn).unwrap());
        assert_eq!(mine.payload(), theirs.payload());
    }
}
