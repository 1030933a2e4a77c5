//! What was acknowledged stays somewhere, whatever happens to a log.

use std::path::Path;
use std::time::Duration;

use anchorlog_engine::io::threads::ThreadsBackend;
use anchorlog_engine::{Engine, Lsn, Role, replica};
use anchorlog_replicator::message::NodeRole;
use anchorlog_replicator::{Event, Policy};

use crate::cluster::{Cluster, Unsent, eventually, sync};

fn names(dir: &Path) -> Vec<String> {
    let mut all: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for name in names(from) {
        std::fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

fn leads(cluster: &Cluster, at: usize) -> bool {
    cluster.node(at).state().role == NodeRole::Leader
}

/// Whether a log lies in the directory that one was given up into.
fn is_kept(dir: &Path) -> bool {
    let kept = names(dir).into_iter().find(|name| name.starts_with("given-up-"));
    kept.is_some_and(|kept| names(&dir.join(kept)).iter().any(|name| name == "MANIFEST"))
}

// K-44, K-45.
#[test]
fn what_a_former_leader_acknowledged_alone_is_kept_when_its_log_begins_anew() {
    let mut cluster = Cluster::started(&["one", "two"], Policy::Async);
    cluster.send(0, b"here");
    cluster.agree();
    cluster.machines[0].proxy.swallow(true, true);
    cluster.machines[0].proxy.cut();
    cluster.send(0, b"acknowledged here alone");
    cluster.stop(0);
    let outcome = cluster.node(1).promote(true);
    assert!(outcome.done, "{}", outcome.text);
    cluster.send(1, b"unsafely");
    cluster.machines[0].proxy.swallow(false, false);
    cluster.start(0);
    assert_eq!(cluster.agree(), [b"here".to_vec(), b"unsafely".to_vec()]);
    let dir = cluster.machines[0].dir.clone();
    assert!(is_kept(&dir), "{:?}", names(&dir));
    // It stays, whatever happens, and every status says so; until somebody deletes it.
    cluster.stop(0);
    cluster.start(0);
    cluster.send(1, b"later");
    cluster.agree();
    assert!(is_kept(&dir));
    let status = cluster.control(0).status().unwrap();
    assert!(status.given_up_bytes > 1 << 20, "{status:?}");
    assert_eq!(cluster.control(1).status().unwrap().given_up_bytes, 0);
    let backend = ThreadsBackend::new();
    let [given_up] = &replica::given_up(&backend, &dir).unwrap()[..] else { panic!("one log was given up") };
    assert!(given_up.files > 1 && given_up.bytes == status.given_up_bytes, "{given_up:?}");
    replica::forget(&backend, given_up).unwrap();
    assert_eq!(replica::given_up(&backend, &dir).unwrap(), []);
    assert_eq!(cluster.control(0).status().unwrap().given_up_bytes, 0);
    assert_eq!(cluster.agree().len(), 3);
}

// K-44, K-45.
#[test]
fn a_leader_that_lacks_what_is_acknowledged_refuses_whoever_has_it_and_nothing_is_erased() {
    let mut cluster = Cluster::started(&["one", "two", "three"], sync(2));
    cluster.send(0, b"everywhere");
    cluster.agree();
    cluster.stop(2);
    cluster.send(0, b"on two of three");
    assert_eq!(cluster.agree().len(), 2);
    cluster.stop(0);
    cluster.stop(1);
    cluster.start(2);
    let outcome = cluster.node(2).promote(true);
    assert!(outcome.done, "{}", outcome.text);
    cluster.start(1);
    eventually("it is refused", || {
        cluster.program(1).has(|event| matches!(event, Event::Failed { what } if what.contains("promote two")))
    });
    assert_eq!(cluster.program(1).letters().len(), 2);
    assert!(!cluster.program(1).has(|event| matches!(event, Event::Cut { .. } | Event::Bootstraps { .. })));
}

// K-29.
#[test]
fn a_machine_that_got_only_part_of_its_log_back_does_not_lead() {
    let mut cluster = Cluster::started(&["one", "two"], sync(2));
    for number in 0..60_u8 {
        cluster.send(0, &[number; 100_000]);
    }
    assert_eq!(cluster.agree().len(), 60);
    cluster.stop(1);
    std::fs::remove_dir_all(&cluster.machines[1].dir).unwrap();
    cluster.machines[0].proxy.cut_after(700_000);
    cluster.start(1);
    eventually("it has a part", || cluster.program(1).watermarks().is_some_and(|marks| marks.durable.0 > 100_000));
    cluster.machines[0].proxy.swallow(true, true);
    cluster.machines[0].proxy.cut();
    cluster.stop(0);
    for _ in 0..2 {
        assert_eq!(cluster.node(1).state().log, None);
        let outcome = cluster.node(1).promote(false);
        assert!(!outcome.done && outcome.text.contains("not whole"), "{}", outcome.text);
        // It still is when it was opened again.
        cluster.stop(1);
        cluster.start(1);
    }
    cluster.machines[0].proxy.cut_after(u64::MAX);
    cluster.machines[0].proxy.swallow(false, false);
    cluster.start(0);
    cluster.send(0, b"after");
    assert_eq!(cluster.agree().len(), 61);
    let outcome = cluster.node(1).promote(false);
    assert!(outcome.done, "{}", outcome.text);
}

// K-26, K-29.
#[test]
fn a_leader_whose_disk_went_back_in_time_makes_room_for_who_has_what_it_acknowledged() {
    let mut cluster = Cluster::started(&["one", "two"], sync(2));
    cluster.send(0, b"early");
    cluster.agree();
    let dir = cluster.machines[0].dir.clone();
    let (before, after) = (dir.with_extension("before"), dir.with_extension("after"));
    cluster.stop(0);
    copy(&dir, &before);
    cluster.start(0);
    for number in 0..20_u8 {
        cluster.send(0, &[number; 10_000]);
    }
    assert_eq!(cluster.agree().len(), 21);
    cluster.stop(0);
    std::fs::rename(&dir, &after).unwrap();
    std::fs::rename(&before, &dir).unwrap();
    cluster.start(0);
    eventually("the other one leads", || leads(&cluster, 1));
    cluster.send(1, b"nothing is lost");
    assert_eq!(cluster.agree().len(), 22);
    assert!(!cluster.program(1).has(|event| matches!(event, Event::Cut { .. } | Event::Bootstraps { .. })));
}

// K-43.
#[test]
fn a_follower_that_somebody_wrote_to_by_hand_does_not_depose_the_leader() {
    let mut cluster = Cluster::started(&["one", "two"], sync(2));
    for number in 0..10_u8 {
        cluster.send(0, &[number; 10_000]);
    }
    assert_eq!(cluster.agree().len(), 10);
    cluster.stop(1);
    let options = cluster.machines[1].options.clone().with_role(Role::Leader { term: None });
    // A run of its own begins in the leader's term.
    let promise = cluster.machines[1].dir.join("PROMISE");
    let hidden = promise.with_extension("hidden");
    std::fs::rename(&promise, &hidden).unwrap();
    Engine::open(&cluster.machines[1].dir, options).unwrap().close().unwrap();
    std::fs::rename(&hidden, &promise).unwrap();
    cluster.start(1);
    eventually("it is refused", || {
        cluster.program(1).has(|event| matches!(event, Event::Failed { what } if what.contains("has epoch")))
    });
    assert!(leads(&cluster, 0));
    let outcome = cluster.node(1).promote(false);
    assert!(!outcome.done, "{}", outcome.text);
    assert!(leads(&cluster, 0));
}

// K-46.
#[test]
fn a_leader_that_starts_again_keeps_the_log_for_who_is_away() {
    let mut cluster = Cluster::new(&["one", "two", "three"], sync(2));
    for machine in &mut cluster.machines {
        machine.options = machine.options.clone().with_retain_bytes(Some(2 << 20));
    }
    for at in 0..3 {
        cluster.start(at);
    }
    cluster.send(0, b"all are here");
    cluster.agree();
    eventually("all are in sync", || cluster.node(0).status().peers.iter().filter(|peer| peer.in_sync).count() == 2);
    cluster.stop(2);
    for number in 0..60_u8 {
        cluster.send(0, &[number; 100_000]);
    }
    cluster.stop(0);
    cluster.start(0);
    cluster.send(0, b"again");
    std::thread::sleep(Duration::from_secs(3));
    cluster.send(0, b"and again");
    assert_eq!(cluster.program(0).watermarks().unwrap().start, Lsn::ZERO);
    cluster.start(2);
    assert_eq!(cluster.agree().len(), 63);
    assert!(!cluster.program(2).has(|event| matches!(event, Event::Bootstraps { .. })));
}

// K-43.
#[test]
fn a_leader_whose_followers_do_not_get_everything_has_not_handed_over_and_leads_on() {
    let cluster = Cluster::started(&["one", "two"], sync(2));
    cluster.send(0, b"first");
    cluster.agree();
    cluster.machines[0].proxy.swallow(true, true);
    let unsent = cluster.program(0).send(b"on one alone", Duration::from_millis(100));
    assert!(matches!(unsent, Err(Unsent::Unacknowledged)), "{unsent:?}");
    let outcome = cluster.node(0).demote();
    assert!(!outcome.done && outcome.text.contains("has not handed over"), "{}", outcome.text);
    cluster.machines[0].proxy.swallow(false, false);
    cluster.send(0, b"second");
    assert_eq!(cluster.agree().len(), 3);
    assert!(leads(&cluster, 0));
}
