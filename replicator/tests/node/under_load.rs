//! Producers that go on, whatever happens to the nodes: what they were told is acknowledged is there in the end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anchorlog_replicator::message::NodeRole;

use crate::cluster::{Cluster, Program, Unsent, eventually, sync};

/// Sends numbers to whoever takes them, until it is told to end.
struct Producers {
    is_over: Arc<AtomicBool>,
    /// Sends that failed although somebody led.
    failures: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Report>>,
}

struct Report {
    acknowledged: Vec<u64>,
    /// The longest without an acknowledgement.
    longest_gap: Duration,
}

impl Producers {
    fn start(cluster: &Cluster, count: u64) -> Producers {
        let (is_over, failures) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let threads = (0..count).map(|number| {
            let programs: Vec<Arc<Program>> =
                cluster.machines.iter().map(|machine| Arc::clone(&machine.program)).collect();
            let (is_over, failures) = (Arc::clone(&is_over), Arc::clone(&failures));
            std::thread::spawn(move || produce(number << 32, &programs, &is_over, &failures))
        });
        Producers { threads: threads.collect(), is_over, failures }
    }

    fn finish(self) -> Report {
        self.is_over.store(true, Ordering::SeqCst);
        let mut all = Report { acknowledged: Vec::new(), longest_gap: Duration::ZERO };
        for thread in self.threads {
            let one = thread.join().unwrap();
            all.acknowledged.extend(one.acknowledged);
            all.longest_gap = all.longest_gap.max(one.longest_gap);
        }
        all
    }
}

fn produce(first: u64, programs: &[Arc<Program>], is_over: &AtomicBool, failures: &AtomicU64) -> Report {
    let mut report = Report { acknowledged: Vec::new(), longest_gap: Duration::ZERO };
    let mut last = Instant::now();
    let mut at = 0;
    for number in first.. {
        if is_over.load(Ordering::SeqCst) {
            break;
        }
        match programs[at % programs.len()].send(&number.to_be_bytes(), Duration::from_millis(500)) {
            Ok(_) => {
                report.acknowledged.push(number);
                report.longest_gap = report.longest_gap.max(last.elapsed());
                last = Instant::now();
            }
            Err(why) => {
                at += 1;
                if !matches!(why, Unsent::NotLeading) {
                    failures.fetch_add(1, Ordering::SeqCst);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
    report
}

#[track_caller]
fn check(cluster: &Cluster, report: &Report) {
    let letters = cluster.agree();
    let there: BTreeSet<u64> =
        letters.iter().map(|letter| u64::from_be_bytes(letter.as_slice().try_into().unwrap())).collect();
    let lost: Vec<&u64> = report.acknowledged.iter().filter(|number| !there.contains(number)).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:x?}", lost.len(), report.acknowledged.len());
    assert!(report.acknowledged.len() > 50, "{} sends are no load", report.acknowledged.len());
}

#[test]
fn three_nodes_restart_one_after_the_other_and_nothing_is_lost() {
    let mut cluster = Cluster::started(&["one", "two", "three"], sync(2));
    cluster.send(0, &u64::MAX.to_be_bytes());
    eventually("all are in sync", || cluster.node(0).status().peers.iter().filter(|peer| peer.in_sync).count() == 2);
    let producers = Producers::start(&cluster, 2);
    for at in [1, 2] {
        cluster.stop(at);
        std::thread::sleep(Duration::from_millis(300));
        cluster.start(at);
        eventually("it is back", || cluster.node(0).status().peers.iter().filter(|peer| peer.in_sync).count() == 2);
    }
    assert_eq!(producers.failures.load(Ordering::SeqCst), 0, "a follower's restart fails no send");
    let outcome = cluster.control(1).promote(false).unwrap();
    assert!(outcome.done, "{}", outcome.text);
    cluster.stop(0);
    std::thread::sleep(Duration::from_millis(300));
    cluster.start(0);
    std::thread::sleep(Duration::from_millis(300));
    let report = producers.finish();
    // Clients wait 3 s, and try again.
    assert!(report.longest_gap < Duration::from_secs(3), "{:?}", report.longest_gap);
    check(&cluster, &report);
}

/// Numbers that depend on a seed alone.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % end
    }
}

/// Stops, cuts, silences, promotes and demotes at random, for a while.
fn storm(seed: u64) {
    let mut cluster = Cluster::started(&["one", "two", "three"], sync(2));
    cluster.send(0, &u64::MAX.to_be_bytes());
    let producers = Producers::start(&cluster, 2);
    let mut draw = Draw(seed);
    for _ in 0..25 {
        let at = usize::try_from(draw.below(3)).unwrap();
        match draw.below(9) {
            0 | 1 if cluster.machines[at].node.is_some() => cluster.stop(at),
            2 => cluster.machines[at].proxy.cut(),
            3 => cluster.machines[at].proxy.swallow(draw.below(2) == 0, draw.below(2) == 0),
            4 => cluster.machines[at].proxy.swallow(false, false),
            5 | 6 if cluster.machines[at].node.is_some() => {
                let _outcome = cluster.node(at).promote(false);
            }
            7 if cluster.machines[at].node.is_some() => {
                let _outcome = cluster.node(at).demote();
            }
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(draw.below(300)));
        let stopped: Vec<usize> = (0..3).filter(|at| cluster.machines[*at].node.is_none()).collect();
        if draw.below(2) == 0 {
            stopped.into_iter().for_each(|at| cluster.start(at));
        }
    }
    for at in 0..3 {
        cluster.machines[at].proxy.swallow(false, false);
        if cluster.machines[at].node.is_none() {
            cluster.start(at);
        }
    }
    // Whoever is told may say who should lead instead.
    eventually("somebody leads, and two follow", || {
        let leads = |at: usize| cluster.node(at).state().role == NodeRole::Leader;
        let followed = |at: usize| cluster.node(at).status().peers.iter().filter(|peer| peer.in_sync).count() == 2;
        (0..3).any(|at| leads(at) && followed(at)) || {
            for at in 0..3 {
                if cluster.node(at).promote(false).done {
                    break;
                }
            }
            std::thread::sleep(Duration::from_millis(500));
            false
        }
    });
    let report = producers.finish();
    check(&cluster, &report);
}

#[test]
fn a_storm_loses_nothing_that_was_acknowledged() {
    storm(1);
}
