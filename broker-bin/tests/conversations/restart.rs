//! What is there after a stop, and after a kill.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anchorlog::Driver;
use serde_json::json;

use crate::peer::{Peer, heartbeat, pull_fields, send_fields};
use crate::stage::Stage;
use crate::{ordering, over_every_driver};

over_every_driver! {
    topics_groups_offsets_and_messages_survive_a_restart,
    a_stop_answers_what_it_took,
}

fn asked(group: &str, queue: i64) -> serde_json::Value {
    json!({"consumerGroup": group, "topic": "T1", "queueId": queue.to_string()})
}

fn topics_groups_offsets_and_messages_survive_a_restart(driver: Driver) {
    let mut stage = Stage::new(driver);
    for round in 0..3i64 {
        let mut peer = stage.peer();
        for i in 0..5 {
            let sent = peer.send_message("T1", 0, format!("{round}/{i}").as_bytes(), "").expect(0);
            assert_eq!(sent.number("queueOffset"), round * 5 + i);
        }
        peer.ask(34, &json!(null), &heartbeat("c@1", &format!("g{round}"), "T1", "*", 1)).expect(0);
        let mut commit = asked("g", 0);
        commit["commitOffset"] = json!((round + 1).to_string());
        peer.ask(15, &commit, &[]).expect(0);
        // Nobody waits for this one; a stop in order keeps it all the same.
        let mut commit = asked("g", 1);
        commit["commitOffset"] = json!((round + 100).to_string());
        peer.send_oneway(15, &commit, &[]);
        peer.ask(14, &asked("g", 1), &[]).expect(0);
        // Beyond the end of an empty queue: a lost tail, as far as the next start can tell.
        stage = stage.restart(driver);
        let mut peer = stage.peer();
        assert_eq!(peer.ask(14, &asked("g", 0), &[]).expect(0).number("offset"), round + 1);
        assert_eq!(peer.ask(14, &asked("g", 1), &[]).expect(0).number("offset"), 0);
        peer.ask(105, &json!({"topic": "T1"}), &[]).expect(0);
        peer.ask(105, &json!({"topic": format!("%RETRY%g{round}")}), &[]).expect(0);
        let bodies: Vec<_> = peer.pull("g", "T1", 0, 0).expect(0).records().into_iter().map(|it| it.body).collect();
        assert_eq!(bodies.len() as i64, (round + 1) * 5);
        assert_eq!(bodies.last().expect("some"), format!("{round}/4").as_bytes());
        // Members do not survive: their connections did not.
        peer.ask(38, &json!({"consumerGroup": format!("g{round}")}), &[]).expect(1);
    }
}

fn a_stop_answers_what_it_took(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    peer.send_message("T1", 0, b"first", "").expect(0);
    let held = peer.send(11, &pull_fields("g", "T1", 1, 0, 2 + 4, "*"), &[]);
    let mut other = stage.peer();
    let mut sends = Vec::new();
    for _ in 0..200 {
        sends.push(other.send(310, &send_fields("T1", 0, ""), b"x"));
    }
    // All of them are taken once a later request on the same connection is answered.
    other.ask(105, &json!({"topic": "T1"}), &[]).expect(0);
    let Stage { broker, store } = stage;
    let stopping = std::thread::spawn(move || broker.stop());
    peer.answer(held).expect(19);
    for opaque in sends {
        other.answer(opaque).expect(0);
    }
    assert!(peer.sees_close() && other.sees_close());
    stopping.join().expect("no panic").expect("a clean stop");
    drop(store);
}

/// A broker in a process of its own.
pub(crate) struct Process(Child, pub(crate) std::net::SocketAddr);

impl Process {
    pub(crate) fn start(store: &std::path::Path) -> Process {
        let mut child = Command::new(env!("CARGO_BIN_EXE_anchorlog"))
            .args(["broker", "--listen", "127.0.0.1:0", "--store"])
            .arg(store)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the broker's binary");
        // It logs where it listens.
        let (found, address) = std::sync::mpsc::channel();
        for pipe in [
            child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn std::io::Read + Send>),
            child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn std::io::Read + Send>),
        ] {
            let found = found.clone();
            let pipe = pipe.expect("piped");
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    let plain: String = strip_colours(&line);
                    if let Some((_, rest)) = plain.split_once("listen=")
                        && let Some(Ok(address)) = rest.split_whitespace().next().map(str::parse)
                    {
                        found.send(address).unwrap_or_default();
                    }
                }
            });
        }
        let address = address.recv_timeout(Duration::from_secs(20)).expect("it says where it listens");
        Process(child, address)
    }
}

fn strip_colours(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    plain + rest
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn what_was_answered_survives_a_kill() {
    let store = crate::stage::store();
    let process = Process::start(store.path());
    let mut peer = Peer::connect(process.1);
    let mut answered = 0;
    for _ in 0..20 {
        peer.send_message("T1", 0, b"x", "").expect(0);
        answered += 1;
    }
    let mut commit = asked("g", 0);
    commit["commitOffset"] = json!("11");
    peer.ask(15, &commit, &[]).expect(0);
    // K-70.
    ordering::ask(&mut peer, "c@1", &[0, 1]).expect(0);
    for _ in 0..50 {
        peer.send(310, &send_fields("T1", 0, ""), b"in flight");
    }
    drop(process);
    let process = Process::start(store.path());
    let mut peer = Peer::connect(process.1);
    assert_eq!(peer.ask(14, &asked("g", 0), &[]).expect(0).number("offset"), 11);
    for (client, found) in [("c@2", &[][..]), ("c@1", &[0, 1])] {
        let answer = ordering::ask(&mut peer, client, &[0, 1]).expect(0);
        assert_eq!(String::from_utf8_lossy(&answer.body), ordering::locked(found));
    }
    let max = peer.ask(30, &json!({"topic": "T1", "queueId": "0"}), &[]).expect(0).number("offset");
    assert!((answered..=answered + 50).contains(&max), "{max}");
    let next = peer.send_message("T1", 0, b"y", "").expect(0).number("queueOffset");
    assert_eq!(next, max);
}
