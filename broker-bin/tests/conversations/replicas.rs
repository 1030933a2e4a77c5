//! Two brokers that hold the same log: what is refused, what is on both, and who goes on when one is gone.
//!
//! The loss windows that these close, by their numbers: K-11, K-39 to K-42, K-46, K-49, K-58 to K-60, K-68, K-70. What the replicator alone
//! can show stands in its own tests.

#![expect(clippy::disallowed_methods, reason = "two brokers with threads of their own are waited for in real time")]

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anchorlog::broker::{OtherReplica, ReplicationOptions};
use anchorlog::{Broker, BrokerHandle, BrokerOptions, Driver};
use anchorlog_replicator::{InSync, OnMissing, Policy, ReplicaId, Security};
use serde_json::json;
use tempfile::TempDir;

use crate::delays::wait_for;
use crate::monitoring::{get, rows};
use crate::peer::{Peer, heartbeat};
use crate::stage::{options, store};
use crate::transactions::{self, verdict_on};
use crate::{ordering, over_every_driver};

over_every_driver! {
    nothing_is_stored_while_no_slave_is_in_sync,
    what_is_acknowledged_is_on_the_slave_and_is_served_there,
    a_promoted_slave_has_topics_offsets_and_messages_and_the_old_leader_follows_it,
    who_asked_for_it_by_name_is_told_that_the_leader_is_alone,
    with_asynchronous_replication_a_leader_waits_for_nobody,
    what_was_answered_last_is_known_after_a_restart,
    a_promoted_slave_recognises_what_was_sent_to_the_old_leader,
    a_promoted_slave_goes_on_with_all_that_was_under_way,
    k77_what_a_leader_deletes_and_makes_again_is_new_on_its_slave_too,
    a_slave_never_shows_fewer_topics_or_offsets_than_it_did,
    monitors_see_who_is_ready_and_how_far_behind_slaves_are,
}

const REFUSE: Policy = Policy::Sync { copies: 2, on_missing: OnMissing::Refuse };
const DEGRADE: Policy = Policy::Sync { copies: 2, on_missing: OnMissing::Degrade };

/// A place that a broker may listen at in a moment, and after every restart: nothing else on this machine is given it meanwhile, for
/// outgoing connections and listeners that ask for any port live at 127.0.0.1.
fn free() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Ordering::SeqCst).to_be_bytes();
    let place = SocketAddr::from(([127, 1 + high, low, 1], 0));
    TcpListener::bind(place).and_then(|listener| listener.local_addr()).expect("a free port")
}

/// Two brokers, a and b, each with a store, and where they are.
struct Pair {
    driver: Driver,
    policy: Policy,
    stores: [TempDir; 2],
    clients: [SocketAddr; 2],
    replicas: [SocketAddr; 2],
}

impl Pair {
    fn new(driver: Driver, policy: Policy) -> Pair {
        Pair { driver, policy, stores: [store(), store()], clients: [free(), free()], replicas: [free(), free()] }
    }

    fn options(&self, at: usize, store: &Path) -> BrokerOptions {
        let names: [ReplicaId; 2] = ["a", "b"].map(|name| name.parse().expect("a name"));
        let other = 1 - at;
        BrokerOptions {
            listen: self.clients[at],
            advertise: None,
            metrics_listen: Some("127.0.0.1:0".parse().expect("an address")),
            ack_timeout: Duration::from_millis(1500),
            replication: Some(ReplicationOptions {
                follows: at == 1,
                id: names[at].clone(),
                listen: self.replicas[at],
                address: self.replicas[at].to_string(),
                others: vec![OtherReplica {
                    id: names[other].clone(),
                    clients: self.clients[other],
                    replicas: self.replicas[other],
                }],
                policy: self.policy,
                in_sync: InSync { silence: Duration::from_millis(700), ..InSync::default() },
                security: Security::Open,
            }),
            ..options(store, self.driver)
        }
    }

    /// Starts a broker; a is the leader unless somebody else was promoted since.
    fn start(&self, at: usize) -> BrokerHandle {
        Broker::start(self.options(at, self.stores[at].path())).expect("a broker")
    }

    fn peer(&self, at: usize) -> Peer {
        Peer::connect(self.clients[at])
    }

    /// Sends until it is answered with one of these codes; what it was sent as.
    fn send_until(&self, at: usize, body: &[u8], codes: &[i64]) -> i64 {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let code = self.peer(at).send_message("T1", 0, body, "").code();
            if codes.contains(&code) {
                return code;
            }
            assert!(Instant::now() < end, "still answered with {code}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Pulls until there are as many messages.
    fn bodies(&self, at: usize, count: usize) -> Vec<Vec<u8>> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = self.peer(at).pull("g", "T1", 0, 0);
            let bodies: Vec<_> = match answer.code() {
                0 => answer.records().into_iter().map(|record| record.body).collect(),
                _ => Vec::new(),
            };
            if bodies.len() >= count {
                return bodies;
            }
            assert!(Instant::now() < end, "{} of {count} messages", bodies.len());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn route(&self, at: usize) -> serde_json::Value {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = self.peer(at).ask(105, &json!({"topic": "T1"}), &[]);
            if answer.code() == 0 {
                return answer.json()["brokerDatas"][0]["brokerAddrs"].clone();
            }
            assert!(Instant::now() < end, "no route: {}", answer.remark());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn asked(queue: i64) -> serde_json::Value {
    json!({"consumerGroup": "g", "topic": "T1", "queueId": queue.to_string()})
}

/// Waits for what `/ready` says.
fn ready(broker: &BrokerHandle, status: u16) -> String {
    let at = broker.metrics_address().expect("it listens");
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let told = get(at, "/ready");
        if told.status == status {
            return told.body;
        }
        assert!(Instant::now() < end, "still {}: {}", told.status, told.body);
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn monitors_see_who_is_ready_and_how_far_behind_slaves_are(driver: Driver) {
    let pair = Pair::new(driver, REFUSE);
    let leader = pair.start(0);
    let of_leader = leader.metrics_address().expect("it listens");
    let why = ready(&leader, 503);
    assert!(why.contains("0 followers are in sync"), "{why}");
    assert_eq!(get(of_leader, "/health").status, 200, "a restart would not help");
    let slave = pair.start(1);
    let of_slave = slave.metrics_address().expect("it listens");
    let words = ready(&leader, 200);
    assert!(words.starts_with("ok: leader in epoch"), "{words}");
    let words = ready(&slave, 200);
    assert!(words.contains("takes no sends"), "{words}");
    pair.send_until(0, b"first", &[0]);
    let rows_of_leader = rows(of_leader);
    assert_eq!(rows_of_leader["anchorlog_replica_in_sync{replica=\"b\"}"], 1.0);
    assert_eq!(rows_of_leader["anchorlog_replica_connected{replica=\"b\"}"], 1.0);
    assert!(rows_of_leader.contains_key("anchorlog_replica_lag_bytes{replica=\"b\"}"));
    assert_eq!(rows_of_leader["anchorlog_replication_degraded"], 0.0);
    let rows_of_slave = rows(of_slave);
    assert_eq!((rows_of_slave["anchorlog_ready"], rows_of_slave["anchorlog_takes_sends"]), (1.0, 0.0));
    assert_eq!(rows_of_slave["anchorlog_slave_connected"], 1.0);
    // A leader that is gone is a reason for its slave not to be ready, and none to restart it.
    leader.stop().expect("a clean stop");
    let why = ready(&slave, 503);
    assert!(why.contains("not connected"), "{why}");
    assert_eq!(get(of_slave, "/health").status, 200);
    let leader = pair.start(0);
    ready(&leader, 200);
    ready(&slave, 200);
    slave.stop().expect("a clean stop");
    let why = ready(&leader, 503);
    assert!(why.contains("0 followers are in sync"), "{why}");
    leader.stop().expect("a clean stop");
}

/// K-40, K-41.
fn nothing_is_stored_while_no_slave_is_in_sync(driver: Driver) {
    let pair = Pair::new(driver, REFUSE);
    let leader = pair.start(0);
    let begun = Instant::now();
    let refused = pair.peer(0).send_message("T1", 0, b"nobody else would have it", "");
    assert!(begun.elapsed() < Duration::from_secs(3), "within the client's own time");
    assert!(refused.remark().contains("nothing was stored"), "{}", refused.remark());
    refused.expect(14);
    let slave = pair.start(1);
    assert_eq!(pair.send_until(0, b"first", &[0]), 0);
    assert_eq!(pair.bodies(0, 1), [b"first".to_vec()], "what was refused is not there");
    slave.stop().expect("a clean stop");
    // A slave that is gone is noticed: nothing more is taken, and what was on its way is not called safe (K-11).
    let mut unsafely = Vec::new();
    let code = loop {
        match pair.peer(0).send_message("T1", 0, b"too late", "").code() {
            14 => break 14,
            other => unsafely.push(other),
        }
    };
    assert_eq!(code, 14);
    assert!(unsafely.iter().all(|code| *code == 12), "stored, and said not to be on a slave: {unsafely:?}");
    let slave = pair.start(1);
    assert_eq!(pair.send_until(0, b"back again", &[0]), 0);
    slave.stop().expect("a clean stop");
    leader.stop().expect("a clean stop");
}

/// K-39, K-42, K-46, K-58: a slave that comes late has everything, and what it has can be read there.
fn what_is_acknowledged_is_on_the_slave_and_is_served_there(driver: Driver) {
    let pair = Pair::new(driver, REFUSE);
    let leader = pair.start(0);
    let slave = pair.start(1);
    pair.send_until(0, b"0", &[0]);
    let mut peer = pair.peer(0);
    for i in 1..20 {
        peer.send_message("T1", 0, i.to_string().as_bytes(), "").expect(0);
    }
    let wanted: Vec<_> = (0..20).map(|i| i.to_string().into_bytes()).collect();
    assert_eq!(pair.bodies(1, 20), wanted);
    let mut commit = asked(0);
    commit["commitOffset"] = json!("7");
    peer.ask(15, &commit, &[]).expect(0);
    let route = pair.route(0);
    assert_eq!((&route["0"], &route["1"]), (&json!(pair.clients[0].to_string()), &json!(pair.clients[1].to_string())));
    assert_eq!(pair.route(1), route, "both say the same");
    let refused = pair.peer(1).send_message("T1", 0, b"to the slave", "");
    assert!(refused.remark().contains("slave"), "{}", refused.remark());
    refused.expect(14);
    // A commit that rides on a slave's pull, or goes there, moves nothing.
    commit["commitOffset"] = json!("3");
    pair.peer(1).ask(15, &commit, &[]).expect(14);
    for code in [41, 42] {
        pair.peer(1).ask(code, &json!({}), &ordering::body("c@1", &[0])).expect(14);
    }
    let end = Instant::now() + Duration::from_secs(20);
    while pair.peer(1).ask(14, &asked(0), &[]).number("offset") != 7 {
        assert!(Instant::now() < end, "the slave does not show the leader's offset");
        std::thread::sleep(Duration::from_millis(50));
    }
    // A wiped slave begins with the whole log.
    slave.stop().expect("a clean stop");
    let Pair { stores: [a, b], .. } = pair;
    drop(b);
    let pair = Pair { stores: [a, store()], driver, policy: REFUSE, clients: pair.clients, replicas: pair.replicas };
    let slave = pair.start(1);
    assert_eq!(pair.bodies(1, 20)[..20], wanted);
    pair.send_until(0, b"20", &[0]);
    slave.stop().expect("a clean stop");
    leader.stop().expect("a clean stop");
}

/// K-49, K-58 to K-60.
fn a_promoted_slave_has_topics_offsets_and_messages_and_the_old_leader_follows_it(driver: Driver) {
    let pair = Pair::new(driver, REFUSE);
    let leader = pair.start(0);
    let slave = pair.start(1);
    pair.send_until(0, b"0", &[0]);
    let mut peer = pair.peer(0);
    for i in 1..10 {
        peer.send_message("T1", 0, i.to_string().as_bytes(), "").expect(0);
    }
    let mut commit = asked(0);
    commit["commitOffset"] = json!("4");
    peer.ask(15, &commit, &[]).expect(0);
    ordering::ask(&mut peer, "c@1", &[0, 1]).expect(0);
    peer.ask(34, &json!(null), &heartbeat("c@1", "late", "T1", "*", 1)).expect(0);
    leader.stop().expect("a clean stop");
    let promoted = slave.node().expect("a node").promote(false);
    assert!(promoted.done, "{}", promoted.text);
    assert_eq!(pair.bodies(1, 10).len(), 10);
    assert_eq!(pair.peer(1).ask(14, &asked(0), &[]).expect(0).number("offset"), 4);
    // Where a group begins that registered and never polled (K-68): fixed, not worked out anew.
    let begins = json!({"consumerGroup": "late", "topic": "T1", "queueId": "0", "setZeroIfNotFound": "false"});
    assert_eq!(pair.peer(1).ask(14, &begins, &[]).expect(0).number("offset"), 0);
    // Until somebody confirms what it has, it does not know what is locked, and locks nothing.
    ordering::ask(&mut pair.peer(1), "c@2", &[0, 1, 2]).expect(14);
    assert_eq!(pair.route(1)["0"], json!(pair.clients[1].to_string()));
    // The old leader comes back with its old configuration, and follows.
    let old = pair.start(0);
    assert_eq!(pair.send_until(1, b"10", &[0]), 0);
    // What was locked before is locked still, for the same member (K-70).
    for (client, found) in [("c@2", &[2][..]), ("c@1", &[0, 1])] {
        let answer = ordering::ask(&mut pair.peer(1), client, &[0, 1, 2]).expect(0);
        assert_eq!(String::from_utf8_lossy(&answer.body), ordering::locked(found));
    }
    assert_eq!(pair.bodies(0, 11).last().expect("some"), b"10");
    pair.peer(0).send_message("T1", 0, b"to the old one", "").expect(14);
    slave.stop().expect("a clean stop");
    old.stop().expect("a clean stop");
}

fn who_asked_for_it_by_name_is_told_that_the_leader_is_alone(driver: Driver) {
    let pair = Pair::new(driver, DEGRADE);
    let leader = pair.start(0);
    assert_eq!(pair.send_until(0, b"alone", &[11]), 11);
    let slave = pair.start(1);
    assert_eq!(pair.send_until(0, b"together", &[0]), 0, "back by itself");
    assert_eq!(pair.bodies(1, 1)[0], b"alone");
    slave.stop().expect("a clean stop");
    leader.stop().expect("a clean stop");
}

fn with_asynchronous_replication_a_leader_waits_for_nobody(driver: Driver) {
    let pair = Pair::new(driver, Policy::Async);
    let leader = pair.start(0);
    pair.peer(0).send_message("T1", 0, b"alone", "").expect(0);
    let slave = pair.start(1);
    assert_eq!(pair.bodies(1, 1), [b"alone".to_vec()], "a slave that comes gets it all the same");
    slave.stop().expect("a clean stop");
    leader.stop().expect("a clean stop");
}

/// K-59: topics and groups change one by one with the log; there is no moment between two lists of them.
fn a_slave_never_shows_fewer_topics_or_offsets_than_it_did(driver: Driver) {
    let pair = Pair::new(driver, REFUSE);
    let mut leader = Some(pair.start(0));
    let slave = pair.start(1);
    pair.send_until(0, b"0", &[0]);
    let mut commit = asked(0);
    commit["commitOffset"] = json!("1");
    pair.peer(0).ask(15, &commit, &[]).expect(0);
    let end = Instant::now() + Duration::from_secs(20);
    while pair.peer(1).ask(14, &asked(0), &[]).code() != 0 {
        assert!(Instant::now() < end, "the slave does not know the offset");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (is_over, looked) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut peer = pair.peer(1);
            while !is_over.load(Ordering::SeqCst) {
                peer.ask(105, &json!({"topic": "T1"}), &[]).expect(0);
                peer.ask(14, &asked(0), &[]).expect(0);
                peer.pull("g", "T1", 0, 0).expect(0);
                looked.fetch_add(1, Ordering::SeqCst);
            }
        });
        for round in 0..3 {
            for number in 0..20 {
                let name = format!("T{round}x{number}");
                let topic = json!({
                    "topic": name, "defaultTopic": "TBW102", "readQueueNums": "1", "writeQueueNums": "1", "perm": "6",
                });
                pair.peer(0).ask(17, &topic, &[]).expect(0);
            }
            // The slave loses its leader, and finds it again.
            leader.take().expect("it runs").stop().expect("a clean stop");
            leader = Some(pair.start(0));
            pair.send_until(0, b"again", &[0]);
        }
        is_over.store(true, Ordering::SeqCst);
    });
    assert!(looked.load(Ordering::SeqCst) > 50, "it was looked at all the time");
    slave.stop().expect("a clean stop");
    leader.expect("it runs").stop().expect("a clean stop");
}

/// What a frame says was acknowledged never covers the frame itself: the last answers show when they are acknowledged again.
fn what_was_answered_last_is_known_after_a_restart(driver: Driver) {
    let pair = Pair::new(driver, REFUSE);
    let slave = pair.start(1);
    let mut leader = pair.start(0);
    pair.send_until(0, b"0", &[0]);
    for round in 1..4 {
        let mut commit = asked(0);
        commit["commitOffset"] = json!(round.to_string());
        let mut peer = pair.peer(0);
        peer.ask(15, &commit, &[]).expect(0);
        let topic = json!({
            "topic": format!("T{round}x"), "defaultTopic": "TBW102", "readQueueNums": "1", "writeQueueNums": "1", "perm": "6",
        });
        peer.ask(17, &topic, &[]).expect(0);
        leader.stop().expect("a clean stop");
        leader = pair.start(0);
        pair.send_until(0, b"x", &[0]);
        let mut peer = pair.peer(0);
        assert_eq!(peer.ask(14, &asked(0), &[]).expect(0).number("offset"), round);
        peer.ask(105, &json!({"topic": format!("T{round}x")}), &[]).expect(0);
    }
    slave.stop().expect("a clean stop");
    leader.stop().expect("a clean stop");
}

/// K-7, K-8: the client comes to the new leader with what it sent to the old one.
fn a_promoted_slave_recognises_what_was_sent_to_the_old_leader(driver: Driver) {
    let pair = Pair::new(driver, REFUSE);
    let leader = pair.start(0);
    let slave = pair.start(1);
    pair.send_until(0, b"0", &[0]);
    let unique = "UNIQ_KEY\u{1}K1\u{2}";
    let first = pair.peer(0).send_message("T1", 0, b"once", unique).expect(0);
    let delayed = pair.peer(0).send_message("T1", 0, b"later", &format!("{unique}DELAY\u{1}18\u{2}")).expect(0);
    leader.stop().expect("a clean stop");
    let promoted = slave.node().expect("a node").promote(false);
    assert!(promoted.done, "{}", promoted.text);
    let old = pair.start(0);
    assert_eq!(pair.send_until(1, b"1", &[0]), 0);
    let place = |answer: &crate::peer::Frame| (answer.field("msgId")[16..].to_owned(), answer.number("queueOffset"));
    let mut peer = pair.peer(1);
    for (body, properties, first) in
        [(&b"once"[..], unique, first), (b"later", &format!("{unique}DELAY\u{1}18\u{2}"), delayed)]
    {
        let again = peer.send_message("T1", 1, body, properties).expect(0);
        assert_eq!(place(&again), place(&first));
    }
    assert_eq!(peer.ask(30, &json!({"topic": "T1", "queueId": "1"}), &[]).expect(0).number("offset"), 0);
    assert_eq!(slave.counts().repeats_answered, 2);
    slave.stop().expect("a clean stop");
    old.stop().expect("a clean stop");
}

/// K-58, K-87, K-88, K-93: what waits for its time, or for a verdict, waits on; what was decided is, and each move happens once.
fn a_promoted_slave_goes_on_with_all_that_was_under_way(driver: Driver) {
    let pair = Pair::new(driver, REFUSE);
    let leader = pair.start(0);
    let slave = pair.start(1);
    pair.send_until(0, b"0", &[0]);
    let mut peer = pair.peer(0);
    peer.ask(34, &json!(null), &heartbeat("c@1", "g", "T1", "*", 1)).expect(0);
    let halves = [&b"committed"[..], b"rolled back", b"pending"].map(|body| transactions::half(&mut peer, body));
    peer.ask(37, &verdict_on(&halves[0], 8), &[]).expect(0);
    peer.ask(37, &verdict_on(&halves[1], 12), &[]).expect(0);
    for _ in 0..5 {
        peer.send_message("T2", 0, b"late", "DELAY\u{1}2\u{2}").expect(0);
    }
    let failing = peer.send_message("T1", 0, b"failing", "UNIQ_KEY\u{1}K\u{2}").expect(0).number("queueOffset");
    let back = json!({
        "offset": wait_for(&mut peer, "T1", 0, failing).physical_offset.to_string(), "group": "g", "delayLevel": "2",
        "maxReconsumeTimes": "16", "originMsgId": "K", "originTopic": "T1",
    });
    peer.ask(36, &back, &[]).expect(0);
    leader.stop().expect("a clean stop");
    let promoted = slave.node().expect("a node").promote(false);
    assert!(promoted.done, "{}", promoted.text);
    let old = pair.start(0);
    assert_eq!(pair.send_until(1, b"1", &[0]), 0);
    let mut peer = pair.peer(1);
    for offset in 0..5 {
        assert_eq!(wait_for(&mut peer, "T2", 0, offset).body, b"late");
    }
    assert_eq!(wait_for(&mut peer, "%RETRY%g", 0, 0).body, b"failing");
    peer.ask(37, &verdict_on(&halves[0], 12), &[]).expect(1);
    peer.ask(37, &verdict_on(&halves[1], 8), &[]).expect(1);
    for _ in 0..2 {
        peer.ask(37, &verdict_on(&halves[2], 8), &[]).expect(0);
    }
    let end = peer.ask(30, &json!({"topic": "T1", "queueId": "0"}), &[]).expect(0).number("offset");
    let bodies: Vec<_> = (0..end).map(|offset| wait_for(&mut peer, "T1", 0, offset).body).collect();
    let count = |body: &[u8]| bodies.iter().filter(|found| **found == body).count();
    assert_eq!((count(b"committed"), count(b"rolled back"), count(b"pending")), (1, 0, 1), "{bodies:?}");
    for (topic, wanted) in [("T2", 5), ("%RETRY%g", 1)] {
        let end = peer.ask(30, &json!({"topic": topic, "queueId": "0"}), &[]).expect(0).number("offset");
        assert_eq!(end, wanted, "{topic}");
    }
    slave.stop().expect("a clean stop");
    old.stop().expect("a clean stop");
}

fn k77_what_a_leader_deletes_and_makes_again_is_new_on_its_slave_too(driver: Driver) {
    let pair = Pair::new(driver, REFUSE);
    let (leader, slave) = (pair.start(0), pair.start(1));
    pair.send_until(0, b"old", &[0]);
    // It has the queue at hand.
    assert_eq!(pair.bodies(1, 1), [b"old".to_vec()]);
    let commit = json!({"consumerGroup": "g", "topic": "T1", "queueId": "0", "commitOffset": "1"});
    pair.peer(0).ask(15, &commit, &[]).expect(0);
    pair.peer(0).ask(215, &json!({"topic": "T1"}), &[]).expect(0);
    pair.peer(0).ask(207, &json!({"groupName": "g", "cleanOffset": "true"}), &[]).expect(0);
    for body in [b"new 1", b"new 2"] {
        pair.send_until(0, body, &[0]);
    }
    let end = Instant::now() + Duration::from_secs(20);
    let wanted = [b"new 1".to_vec(), b"new 2".to_vec()];
    while pair.bodies(1, 1) != wanted {
        assert!(Instant::now() < end, "the slave shows {:?}", pair.bodies(1, 1));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(
        pair.peer(1).ask(14, &asked(0), &[]).expect(0).number("offset"),
        0,
        "what was committed of the first is gone"
    );
    slave.stop().expect("a clean stop");
    leader.stop().expect("a clean stop");
}
