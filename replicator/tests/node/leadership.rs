//! Who leads, and how that changes.

use std::path::Path;
use std::time::Duration;

use anchorlog_engine::Flush;
use anchorlog_engine::io::threads::ThreadsBackend;
use anchorlog_engine::replica::Promise;
use anchorlog_replicator::message::NodeRole;
use anchorlog_replicator::{Event, OnMissing, Policy};

use crate::cluster::{Cluster, Unsent, eventually, sync};

fn leads(cluster: &Cluster, at: usize) -> bool {
    cluster.node(at).state().role == NodeRole::Leader
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn promotion_takes_over_from_a_living_leader_without_a_loss_and_it_follows() {
    let mut cluster = Cluster::started(&["one", "two"], sync(2));
    for number in 0..20_u8 {
        cluster.send(0, &[number; 500]);
    }
    let outcome = cluster.control(1).promote(false).unwrap();
    assert!(outcome.done, "{}", outcome.text);
    cluster.send(1, b"from the new leader");
    let letters = cluster.agree();
    assert_eq!(letters.len(), 21);
    assert!(matches!(cluster.program(0).send(b"-", Duration::ZERO), Err(Unsent::NotLeading)));
    // It was configured to lead, and was promised away since.
    cluster.stop(0);
    cluster.start(0);
    cluster.send(1, b"after its restart");
    assert!(!leads(&cluster, 0));
    assert!(!cluster.program(0).has(|event| matches!(event, Event::Cut { .. } | Event::Bootstraps { .. })));
    // And back again.
    let outcome = cluster.control(0).promote(false).unwrap();
    assert!(outcome.done, "{}", outcome.text);
    cluster.send(0, b"as it was in the beginning");
    assert_eq!(cluster.agree().len(), 23);
    // Who leads by promise leads after a restart.
    cluster.stop(0);
    cluster.start(0);
    cluster.send(0, b"still");
    assert!(leads(&cluster, 0));
}

// K-43 to K-45, K-49.
#[test]
fn what_a_lost_leader_never_got_acknowledged_is_cut_and_kept_aside() {
    let mut cluster = Cluster::started(&["one", "two"], sync(2));
    cluster.send(0, b"on both");
    cluster.machines[0].proxy.swallow(true, true);
    let unsent = cluster.program(0).send(b"on one alone", Duration::from_millis(300));
    assert!(matches!(unsent, Err(Unsent::Unacknowledged)), "{unsent:?}");
    cluster.stop(0);
    cluster.machines[0].proxy.swallow(false, false);
    let outcome = cluster.control(1).promote(false).unwrap();
    assert!(outcome.done, "of two machines, each holds what is acknowledged: {}", outcome.text);
    // The first one starts with a log that has more, of an older term.
    cluster.start(0);
    cluster.send(1, b"on both again");
    assert_eq!(cluster.agree(), [b"on both".to_vec(), b"on both again".to_vec()]);
    assert!(cluster.program(0).has(|event| matches!(event, Event::Cut { bytes: 1.., .. })));
    let kept = std::fs::read_dir(&cluster.machines[0].dir).unwrap();
    let mut names = kept.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.any(|name| name.contains("aside")));
}

#[test]
fn promotion_needs_enough_members_and_the_best_log_among_them() {
    let mut cluster = Cluster::started(&["one", "two", "three"], sync(2));
    cluster.send(0, b"everywhere");
    cluster.agree();
    cluster.stop(2);
    cluster.send(0, b"on two of three");
    cluster.stop(0);
    // Alone, the second does not know what the third may have.
    let outcome = cluster.control(1).promote(false).unwrap();
    assert!(!outcome.done && outcome.text.contains("must"), "{}", outcome.text);
    // The third knows that the second has more.
    cluster.start(2);
    let outcome = cluster.control(2).promote(false).unwrap();
    assert!(!outcome.done && outcome.text.contains("promote two"), "{}", outcome.text);
    let outcome = cluster.control(1).promote(false).unwrap();
    assert!(outcome.done, "{}", outcome.text);
    cluster.send(1, b"a new term");
    cluster.start(0);
    cluster.send(1, b"all three");
    assert_eq!(cluster.agree().len(), 4);
}

#[test]
fn a_leader_that_may_have_acknowledged_alone_is_not_replaced_but_unsafely() {
    for policy in [Policy::Async, Policy::Sync { copies: 2, on_missing: OnMissing::Degrade }] {
        let mut cluster = Cluster::started(&["one", "two"], policy);
        cluster.send(0, b"here");
        cluster.agree();
        cluster.stop(0);
        let outcome = cluster.control(1).promote(false).unwrap();
        assert!(!outcome.done && outcome.text.contains("demote it first"), "{}", outcome.text);
        let outcome = cluster.control(1).promote(true).unwrap();
        assert!(outcome.done, "{}", outcome.text);
        cluster.send(1, b"unsafely");
        cluster.start(0);
        cluster.agree();
        // With both there, it is safe.
        let outcome = cluster.control(0).promote(false).unwrap();
        assert!(outcome.done, "{}", outcome.text);
        cluster.send(0, b"safely");
        cluster.agree();
    }
}

// Who was away when a leader was replaced knows of the first one alone; another one has promised the second a term, and has none of it.
#[test]
fn a_leader_that_only_a_promise_tells_of_is_waited_for_as_any_other() {
    let mut cluster = Cluster::started(&["one", "two", "three"], Policy::Async);
    cluster.send(0, b"everywhere");
    cluster.agree();
    cluster.stop(2);
    cluster.machines[1].proxy.swallow(true, true);
    eventually("the second is in sync", || {
        cluster.node(0).status().peers.iter().any(|peer| peer.in_sync && peer.replica.as_str() == "two")
    });
    let outcome = cluster.node(1).promote(false);
    assert!(outcome.done, "{}", outcome.text);
    cluster.send(1, b"here alone");
    cluster.stop(1);
    cluster.start(2);
    let outcome = cluster.node(2).promote(false);
    assert!(!outcome.done && outcome.text.contains("demote it first"), "{}", outcome.text);
    cluster.machines[1].proxy.swallow(false, false);
    cluster.start(1);
    eventually("the second leads", || leads(&cluster, 1));
    assert_eq!(cluster.agree(), [b"everywhere".to_vec(), b"here alone".to_vec()]);
    let outcome = cluster.node(2).promote(false);
    assert!(outcome.done, "{}", outcome.text);
    assert_eq!(cluster.agree().len(), 2);
}

#[test]
fn a_leader_that_hands_over_leads_no_more_and_anybody_with_its_log_may() {
    let mut cluster = Cluster::started(&["one", "two", "three"], sync(2));
    cluster.send(0, b"first");
    eventually("all are in sync", || cluster.node(0).status().peers.iter().filter(|peer| peer.in_sync).count() == 2);
    let outcome = cluster.control(0).demote().unwrap();
    assert!(outcome.done, "{}", outcome.text);
    eventually("it follows", || !leads(&cluster, 0));
    assert!(!cluster.control(0).demote().unwrap().done);
    cluster.stop(0);
    cluster.start(0);
    assert!(!leads(&cluster, 0), "not without being promoted");
    let outcome = cluster.control(2).promote(false).unwrap();
    assert!(outcome.done, "{}", outcome.text);
    cluster.send(2, b"second");
    assert_eq!(cluster.agree().len(), 2);
}

#[test]
fn nobody_hands_over_to_nobody() {
    let mut cluster = Cluster::started(&["one", "two"], sync(2));
    cluster.send(0, b"-");
    cluster.stop(1);
    eventually("the follower is missed", || cluster.node(0).status().peers.iter().all(|peer| !peer.in_sync));
    let outcome = cluster.control(0).demote().unwrap();
    assert!(!outcome.done && outcome.text.contains("nobody could lead"), "{}", outcome.text);
    assert!(leads(&cluster, 0));
}

#[test]
fn a_leader_that_lost_what_it_had_in_memory_makes_room_for_who_has_it() {
    let mut cluster = Cluster::new(&["one", "two"], sync(2));
    for machine in &mut cluster.machines {
        machine.options = machine.options.clone().with_flush(Flush::async_default());
    }
    cluster.start(0);
    cluster.start(1);
    cluster.send(0, b"flushed");
    cluster.agree();
    let dir = cluster.machines[0].dir.clone();
    let (before, after) = (dir.with_extension("before"), dir.with_extension("after"));
    cluster.stop(0);
    copy(&dir, &before);
    cluster.start(0);
    cluster.send(0, b"acknowledged, in memory here and on the other disk");
    cluster.stop(0);
    // The power fails.
    std::fs::rename(&dir, &after).unwrap();
    std::fs::rename(&before, &dir).unwrap();
    cluster.start(0);
    eventually("the other one leads", || leads(&cluster, 1));
    cluster.send(1, b"nothing is lost");
    assert_eq!(cluster.agree().len(), 3);
}

#[test]
fn a_leader_that_may_have_lost_something_waits_for_who_might_have_it() {
    let mut cluster = Cluster::new(&["one", "two"], sync(2));
    for machine in &mut cluster.machines {
        machine.options = machine.options.clone().with_flush(Flush::async_default());
    }
    cluster.start(0);
    cluster.start(1);
    cluster.send(0, b"first");
    cluster.stop(1);
    cluster.stop(0);
    cluster.start(0);
    std::thread::sleep(Duration::from_millis(500));
    assert!(!leads(&cluster, 0));
    cluster.start(1);
    cluster.send(0, b"second");
    assert_eq!(cluster.agree().len(), 2);
}

// K-26, K-29.
#[test]
fn a_wiped_leader_begins_no_second_log() {
    let mut cluster = Cluster::started(&["one", "two", "three"], sync(2));
    cluster.send(0, b"first");
    cluster.agree();
    cluster.stop(0);
    std::fs::remove_dir_all(&cluster.machines[0].dir).unwrap();
    cluster.start(0);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(cluster.node(0).state().role, NodeRole::Empty);
    let outcome = cluster.control(1).promote(false).unwrap();
    assert!(outcome.done, "{}", outcome.text);
    cluster.send(1, b"second");
    assert_eq!(cluster.agree().len(), 2);
}

#[test]
fn a_promise_that_came_to_nothing_is_overtaken_by_promoting_whoever_leads() {
    let mut cluster = Cluster::started(&["one", "two"], sync(2));
    cluster.send(0, b"first");
    cluster.agree();
    cluster.stop(1);
    // It stopped between its own promise and the first frame of its term.
    let promise = Promise { term: 7, to: b"two".to_vec() };
    promise.store(&ThreadsBackend::new(), &cluster.machines[1].dir).unwrap();
    cluster.start(1);
    assert!(!leads(&cluster, 1));
    std::thread::sleep(Duration::from_millis(500));
    assert!(cluster.node(0).status().peers.iter().all(|peer| !peer.connected), "it follows nobody of a lower term");
    let outcome = cluster.control(1).promote(false).unwrap();
    assert!(!outcome.done, "{}", outcome.text);
    let outcome = cluster.control(0).promote(false).unwrap();
    assert!(outcome.done && outcome.text.contains("leads in term"), "{}", outcome.text);
    cluster.send(0, b"second");
    assert_eq!(cluster.agree().len(), 2);
}

#[test]
fn a_node_that_stops_stops_soon_though_nobody_answers_it() {
    let mut cluster = Cluster::started(&["one", "two", "three"], sync(2));
    cluster.send(0, b"first");
    for machine in &cluster.machines {
        machine.proxy.swallow(true, true);
    }
    std::thread::sleep(Duration::from_secs(1));
    for at in [1, 0, 2] {
        let start = std::time::Instant::now();
        cluster.stop(at);
        assert!(start.elapsed() < Duration::from_secs(5), "{at}: {:?}", start.elapsed());
    }
}

#[test]
fn a_leader_that_was_replaced_behind_its_back_learns_of_it() {
    let cluster = Cluster::started(&["one", "two", "three"], sync(2));
    cluster.send(0, b"first");
    eventually("all are in sync", || cluster.node(0).status().peers.iter().filter(|peer| peer.in_sync).count() == 2);
    // Nobody reaches it any more.
    cluster.machines[0].proxy.swallow(true, true);
    let outcome = cluster.node(1).promote(false);
    assert!(outcome.done, "two of three have answered: {}", outcome.text);
    cluster.send(1, b"second");
    eventually("the first one follows", || !leads(&cluster, 0));
    cluster.machines[0].proxy.swallow(false, false);
    assert_eq!(cluster.agree(), [b"first".to_vec(), b"second".to_vec()]);
}
