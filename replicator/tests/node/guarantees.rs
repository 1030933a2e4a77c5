//! What a leader promised counts, not what somebody else was told: it stands in the log.

use std::time::Duration;

use anchorlog_engine::Flush;
use anchorlog_replicator::message::NodeRole;
use anchorlog_replicator::{NotAdmitted, OnMissing, Policy};

use crate::cluster::{Cluster, Unsent, eventually, sync};

const DEGRADE: Policy = Policy::Sync { copies: 2, on_missing: OnMissing::Degrade };

/// Machines of which the first leads by `leading`, and the others were told `told`.
fn cluster(names: &[&str], leading: Policy, told: Policy) -> Cluster {
    let mut cluster = Cluster::new(names, leading);
    cluster.start(0);
    cluster.policy = told;
    for at in 1..names.len() {
        cluster.start(at);
    }
    cluster
}

#[track_caller]
fn refused(cluster: &Cluster, at: usize, why: &str) {
    let outcome = cluster.control(at).promote(false).unwrap();
    assert!(!outcome.done && outcome.text.contains(why), "{}", outcome.text);
}

#[test]
fn a_follower_that_was_told_of_copies_does_not_replace_a_leader_that_acknowledged_alone() {
    for leading in [Policy::Async, DEGRADE] {
        let mut cluster = cluster(&["one", "two"], leading, sync(2));
        cluster.send(0, b"on both");
        cluster.agree();
        cluster.stop(1);
        cluster.send(0, b"on one alone");
        cluster.stop(0);
        cluster.start(1);
        refused(&cluster, 1, "the former leader one has not answered");
        // Nor one that was seeded.
        cluster.stop(1);
        std::fs::remove_dir_all(&cluster.machines[1].dir).unwrap();
        cluster.policy = leading;
        cluster.start(0);
        cluster.policy = sync(2);
        cluster.start(1);
        assert_eq!(cluster.agree().len(), 2);
        cluster.stop(0);
        refused(&cluster, 1, "the former leader one has not answered");
        let outcome = cluster.control(1).promote(true).unwrap();
        assert!(outcome.done, "{}", outcome.text);
    }
}

#[test]
fn a_follower_that_was_told_of_more_copies_asks_for_as_many_as_the_leaders_few_need() {
    let mut cluster = cluster(&["one", "two", "three"], sync(2), sync(3));
    cluster.send(0, b"everywhere");
    cluster.agree();
    cluster.stop(1);
    cluster.send(0, b"on two of three");
    cluster.stop(0);
    cluster.stop(2);
    cluster.start(1);
    refused(&cluster, 1, "1 of the members count and 2 must");
    cluster.start(2);
    refused(&cluster, 1, "promote three");
    let outcome = cluster.control(2).promote(false).unwrap();
    assert!(outcome.done, "{}", outcome.text);
    // Three copies are promised from here on, by one that was told so: first everybody has to know it.
    cluster.policy = sync(3);
    cluster.start(0);
    cluster.send(2, b"on three of three");
    assert_eq!(cluster.agree().len(), 3);
    cluster.stop(0);
    cluster.stop(2);
    let outcome = cluster.control(1).promote(false).unwrap();
    assert!(outcome.done, "each of three has all: {}", outcome.text);
}

#[test]
fn a_leader_that_flushed_later_does_not_count_for_who_was_told_otherwise() {
    let mut cluster = Cluster::new(&["one", "two", "three"], sync(2));
    let options = cluster.machines[0].options.clone();
    cluster.machines[0].options = options.clone().with_flush(Flush::async_default());
    for at in 0..3 {
        cluster.start(at);
    }
    cluster.send(0, b"everywhere");
    cluster.agree();
    cluster.stop(2);
    cluster.stop(0);
    // Nor does it go on by itself when it was told otherwise since: what it had in memory may be gone.
    cluster.machines[0].options = options;
    cluster.start(0);
    eventually("it has looked into its log", || cluster.node(0).state().log.is_some());
    refused(&cluster, 1, "1 of the members count and 2 must");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(cluster.node(0).state().role, NodeRole::Follower);
    cluster.start(2);
    cluster.send(0, b"nothing was lost");
    assert_eq!(cluster.agree().len(), 2);
}

#[test]
fn less_is_promised_only_when_those_who_would_take_over_know_it() {
    let mut cluster = Cluster::started(&["one", "two"], sync(2));
    cluster.send(0, b"on both");
    cluster.agree();
    cluster.stop(1);
    cluster.stop(0);
    for less in [DEGRADE, Policy::Async] {
        cluster.policy = less;
        cluster.start(0);
        let unsent = cluster.program(0).send(b"on one alone", Duration::from_millis(300));
        let missing = NotAdmitted::Missing { in_sync: 0, copies: 2 };
        assert!(matches!(unsent, Err(Unsent::NotAdmitted(why)) if why == missing), "{less:?}: {unsent:?}");
        assert!(cluster.node(0).status().policy.contains("or refuse"), "{}", cluster.node(0).status().policy);
        cluster.stop(0);
    }
    cluster.start(0);
    cluster.policy = sync(2);
    cluster.start(1);
    eventually("less is promised", || cluster.node(0).status().policy == "async");
    cluster.stop(1);
    cluster.send(0, b"on one alone");
    cluster.stop(0);
    cluster.start(1);
    refused(&cluster, 1, "the former leader one has not answered");
}

#[test]
fn who_insists_has_less_promised_at_once() {
    let mut cluster = Cluster::started(&["one", "two"], sync(2));
    cluster.send(0, b"on both");
    cluster.agree();
    cluster.stop(1);
    cluster.stop(0);
    cluster.policy = DEGRADE;
    cluster.start(0);
    let outcome = cluster.control(0).promote(false).unwrap();
    assert!(outcome.done && !outcome.text.contains("at once"), "{}", outcome.text);
    assert!(cluster.program(0).send(b"-", Duration::ZERO).is_err());
    let outcome = cluster.control(0).promote(true).unwrap();
    assert!(outcome.done && outcome.text.contains("what was to change holds at once"), "{}", outcome.text);
    cluster.send(0, b"on one alone");
    assert!(cluster.node(0).status().degraded);
    cluster.start(1);
    assert_eq!(cluster.agree().len(), 2);
}
