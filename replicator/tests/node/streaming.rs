//! A log and its copies, whatever the network does.

use std::time::{Duration, Instant};

use anchorlog_engine::{Flush, Lsn};
use anchorlog_replicator::message::NodeRole;
use anchorlog_replicator::{Certificates, Event, NotAdmitted, Policy, Security};

use crate::cluster::{Cluster, Unsent, eventually, key, sync};

#[test]
fn what_is_acknowledged_is_on_both_machines_byte_for_byte() {
    let cluster = Cluster::started(&["one", "two"], sync(2));
    for number in 0..50_u8 {
        cluster.send(0, &[number; 1000]);
    }
    assert_eq!(cluster.agree().len(), 50);
    let status = cluster.control(0).status().unwrap();
    assert_eq!(status.state.role, NodeRole::Leader);
    assert_eq!(status.policy, "sync, 2 copies, or refuse");
    assert!(status.peers.iter().any(|peer| peer.replica.as_str() == "two" && peer.in_sync));
    assert_eq!(cluster.control(1).state().unwrap().leader.unwrap().as_str(), "one");
}

#[test]
fn members_with_certificates_share_a_log() {
    let mut cluster = Cluster::new(&["one", "two"], sync(2));
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = rcgen::CertifiedIssuer::self_signed(authority, rcgen::KeyPair::generate().unwrap()).unwrap();
    for machine in &mut cluster.machines {
        let own = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["members.example".to_owned()]).unwrap();
        let chain = params.signed_by(&own, &authority).unwrap().pem();
        let key = own.serialize_pem();
        let certificates =
            Certificates::from_pem(chain.as_bytes(), key.as_bytes(), authority.pem().as_bytes()).unwrap();
        machine.security = Security::Tls(certificates.with_name("members.example").unwrap());
    }
    cluster.start(0);
    cluster.start(1);
    for number in 0..20_u8 {
        cluster.send(0, &[number; 50_000]);
    }
    assert_eq!(cluster.agree().len(), 20);
}

#[test]
fn bytes_of_a_log_can_be_asked_of_any_node_that_has_them() {
    let cluster = Cluster::started(&["one", "two"], sync(2));
    let end = cluster.send(0, &[7; 100_000]);
    cluster.agree();
    let wanted = cluster.program(0).log(end);
    for at in [0, 1] {
        let mut control = cluster.control(at);
        assert_eq!(control.range(Lsn(4096), 70_000).unwrap(), wanted[4096..][..70_000]);
        assert!(control.range(Lsn(1 << 40), 100).unwrap().is_empty(), "nobody has that");
    }
}

// K-40, K-41: nothing is stored that a missing copy would leave unacknowledged.
#[test]
fn nothing_is_taken_while_a_copy_is_missing_and_it_goes_on_by_itself() {
    let mut cluster = Cluster::started(&["one", "two"], sync(2));
    cluster.send(0, b"both are here");
    cluster.stop(1);
    eventually("it is noticed", || {
        let refused = cluster.program(0).send(b"too early", Duration::from_millis(10));
        matches!(refused, Err(Unsent::NotAdmitted(NotAdmitted::Missing { in_sync: 0, copies: 2 })))
    });
    cluster.start(1);
    cluster.send(0, b"both are here again");
    cluster.agree();
}

#[test]
fn a_line_that_is_dead_in_one_direction_ends_admission_and_heals() {
    for (there, back) in [(true, false), (false, true), (true, true)] {
        let cluster = Cluster::started(&["one", "two"], sync(2));
        cluster.send(0, b"before");
        // The follower connects to the leader, through the proxy before that.
        cluster.machines[0].proxy.swallow(there, back);
        let start = Instant::now();
        eventually("the silence is noticed", || {
            matches!(cluster.program(0).send(b"-", Duration::ZERO), Err(Unsent::NotAdmitted(_)))
        });
        // What a client waits for is 3 s.
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        cluster.machines[0].proxy.swallow(false, false);
        let start = Instant::now();
        cluster.send(0, b"after");
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        cluster.agree();
    }
}

#[test]
fn connections_that_are_cut_at_any_byte_lose_and_repeat_nothing() {
    let cluster = Cluster::started(&["one", "two"], sync(2));
    let mut sent = 0_u16;
    for round in 0..12_u64 {
        // Into the handshake, into a message, into a frame.
        cluster.machines[0].proxy.cut_after(20 + round * 397);
        cluster.machines[0].proxy.cut();
        std::thread::sleep(Duration::from_millis(50));
        cluster.machines[0].proxy.cut_after(u64::MAX);
        for _ in 0..5 {
            cluster.send(0, &[&sent.to_be_bytes()[..], &[7; 3000]].concat());
            sent += 1;
        }
    }
    let mut letters = cluster.agree();
    // What was not acknowledged before a cut is sent again by this test.
    letters.dedup();
    let numbers: Vec<u16> = letters.iter().map(|letter| u16::from_be_bytes([letter[0], letter[1]])).collect();
    assert_eq!(numbers, (0..sent).collect::<Vec<_>>());
}

// K-46.
#[test]
fn a_wiped_follower_gets_the_whole_log_again_and_counts_then() {
    let mut cluster = Cluster::started(&["one", "two"], sync(2));
    for number in 0..30_u8 {
        cluster.send(0, &[number; 100_000]);
    }
    cluster.stop(1);
    std::fs::remove_dir_all(&cluster.machines[1].dir).unwrap();
    cluster.start(1);
    cluster.send(0, b"with a new copy");
    assert_eq!(cluster.agree().len(), 31);
}

#[test]
fn a_follower_that_was_away_comes_back_to_the_stream() {
    let mut cluster = Cluster::started(&["one", "two", "three"], sync(2));
    cluster.send(0, b"all are here");
    cluster.stop(2);
    for number in 0..40_u8 {
        cluster.send(0, &[number; 100_000]);
    }
    cluster.start(2);
    assert_eq!(cluster.agree().len(), 41);
}

#[test]
fn a_leader_that_starts_again_goes_on_in_its_term() {
    let mut cluster = Cluster::started(&["one", "two"], sync(2));
    cluster.send(0, b"first run");
    cluster.stop(0);
    cluster.start(0);
    cluster.send(0, b"second run");
    let epoch = cluster.node(0).state().log.unwrap().history.last().unwrap().epoch;
    assert_eq!((epoch.term, epoch.run), (1, 2));
    assert_eq!(cluster.agree(), [b"first run".to_vec(), b"second run".to_vec()]);
}

// K-48.
#[test]
fn nobody_with_another_key_gets_or_acknowledges_a_byte() {
    let mut cluster = Cluster::new(&["one", "two"], sync(2));
    cluster.machines[1].security = key("some other key, just as long");
    cluster.start(0);
    cluster.start(1);
    std::thread::sleep(Duration::from_secs(1));
    assert!(matches!(cluster.program(0).send(b"-", Duration::ZERO), Err(Unsent::NotAdmitted(_))));
    assert_eq!(cluster.node(1).state().role, NodeRole::Empty);
    assert!(cluster.node(0).status().peers.iter().all(|peer| !peer.connected));
}

// K-47.
#[test]
fn two_machines_of_one_name_are_one_copy() {
    let mut cluster = Cluster::new(&["one", "two", "three", "two"], sync(3));
    for at in [0, 1, 3] {
        cluster.start(at);
    }
    let deadline = Instant::now() + Duration::from_secs(2);
    while Instant::now() < deadline {
        assert!(cluster.program(0).send(b"-", Duration::from_millis(1)).is_err());
        std::thread::sleep(Duration::from_millis(5));
    }
    cluster.stop(3);
    cluster.start(2);
    cluster.send(0, b"three machines");
    cluster.agree();
}

#[test]
fn asynchronous_replication_waits_for_nobody_and_brings_everything_later() {
    let mut cluster = Cluster::new(&["one", "two"], Policy::Async);
    cluster.machines[0].options = cluster.machines[0].options.clone().with_flush(Flush::async_default());
    cluster.start(0);
    cluster.send(0, b"nobody else is there");
    cluster.start(1);
    assert_eq!(cluster.agree().len(), 1);
    assert!(cluster.program(1).has(|event| matches!(event, Event::Follows { .. })));
}
