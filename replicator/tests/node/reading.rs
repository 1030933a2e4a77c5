//! What readers see, on whichever machine they read: nothing that could still be taken back.

use std::time::{Duration, Instant};

use anchorlog_engine::Lsn;

use crate::cluster::{Cluster, Unsent, eventually, sync};

/// Sends something that is not acknowledged; where it ends in the log of the leader.
fn unacknowledged(cluster: &Cluster, payload: &[u8]) -> Lsn {
    let unsent = cluster.program(0).send(payload, Duration::from_millis(200));
    assert!(matches!(unsent, Err(Unsent::Unacknowledged)), "{unsent:?}");
    cluster.program(0).watermarks().unwrap().assigned
}

/// Nobody sees anything but `expected` for a while.
#[track_caller]
fn stays(cluster: &Cluster, at: &[usize], expected: &[&[u8]], lasting: Duration) {
    let end = Instant::now() + lasting;
    while Instant::now() < end {
        for at in at {
            assert_eq!(cluster.program(*at).letters(), expected, "what {at} shows");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

// K-17.
#[test]
fn readers_on_leader_and_slave_see_nothing_that_is_durable_on_both_before_it_is_acknowledged() {
    let mut cluster = Cluster::started(&["one", "two"], sync(2));
    cluster.send(0, b"first");
    cluster.agree();
    // What the slave answers vanishes.
    cluster.machines[0].proxy.swallow(true, false);
    let end = unacknowledged(&cluster, b"on both disks, and nobody knows");
    eventually("the slave has it", || cluster.program(1).watermarks().is_some_and(|marks| marks.durable >= end));
    stays(&cluster, &[0, 1], &[b"first"], Duration::from_millis(500));
    // Not even a new start shows it.
    cluster.machines[0].proxy.swallow(true, true);
    for at in [1, 0] {
        cluster.stop(at);
        cluster.start(at);
        stays(&cluster, &[at], &[b"first"], Duration::from_millis(300));
    }
    cluster.machines[0].proxy.swallow(false, false);
    cluster.machines[0].proxy.cut();
    cluster.send(0, b"second");
    assert_eq!(cluster.agree().len(), 3);
}

// K-17, K-51.
#[test]
fn an_offset_that_was_never_shown_is_given_again_and_holds_one_message_everywhere() {
    let mut cluster = Cluster::started(&["one", "two"], sync(2));
    cluster.send(0, b"first");
    cluster.agree();
    cluster.machines[0].proxy.swallow(true, true);
    unacknowledged(&cluster, b"on the old leader alone");
    stays(&cluster, &[0, 1], &[b"first"], Duration::from_millis(300));
    cluster.stop(0);
    let outcome = cluster.node(1).promote(false);
    assert!(outcome.done, "{}", outcome.text);
    cluster.machines[0].proxy.swallow(false, false);
    cluster.start(0);
    cluster.send(1, b"second");
    cluster.send(1, b"third");
    assert_eq!(cluster.agree(), [b"first".to_vec(), b"second".to_vec(), b"third".to_vec()]);
    let expected: Vec<(u64, Vec<u8>)> = (0..).zip([b"first".to_vec(), b"second".to_vec(), b"third".to_vec()]).collect();
    for at in 0..2 {
        assert_eq!(cluster.program(at).placed(), expected, "one offset, one message, on {at}");
    }
}

// K-18.
#[test]
fn a_leader_that_is_left_alone_goes_on_hiding_what_nobody_else_has() {
    let mut cluster = Cluster::started(&["one", "two", "three"], sync(2));
    cluster.send(0, b"first");
    cluster.agree();
    for machine in &cluster.machines {
        machine.proxy.swallow(true, true);
    }
    unacknowledged(&cluster, b"on the leader alone");
    // Longer than it takes until nobody is in sync any more.
    stays(&cluster, &[0, 1, 2], &[b"first"], Duration::from_secs(4));
    assert!(cluster.node(0).status().peers.iter().all(|peer| !peer.in_sync));
    assert!(matches!(cluster.program(0).send(b"refused", Duration::ZERO), Err(Unsent::NotAdmitted(_))));
    cluster.stop(0);
    cluster.start(0);
    stays(&cluster, &[0], &[b"first"], Duration::from_millis(500));
    for machine in &cluster.machines {
        machine.proxy.swallow(false, false);
        machine.proxy.cut();
    }
    cluster.send(0, b"second");
    assert_eq!(cluster.agree().len(), 3);
}
