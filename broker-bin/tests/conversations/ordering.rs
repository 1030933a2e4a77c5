//! Ordered consumption: queues that are locked for one member of a group (K-70).

use anchorlog::Driver;
use serde_json::{Value, json};

use crate::over_every_driver;
use crate::peer::{Frame, Peer, heartbeat};
use crate::stage::Stage;

over_every_driver! {
    queues_are_locked_and_given_back_as_clients_say_it,
    k70_a_cut_leaves_the_owner_its_queues_and_a_farewell_gives_them_up,
    k70_a_restart_keeps_the_owner,
}

fn queue(number: u32) -> Value {
    json!({"brokerName": "broker-a", "queueId": number, "topic": "T1"})
}

pub(crate) fn body(client: &str, queues: &[u32]) -> Vec<u8> {
    let queues: Vec<_> = queues.iter().copied().map(queue).collect();
    json!({"clientId": client, "consumerGroup": "g", "mqSet": queues, "onlyThisBroker": false}).to_string().into_bytes()
}

pub(crate) fn ask(peer: &mut Peer, client: &str, queues: &[u32]) -> Frame {
    peer.ask(41, &json!({}), &body(client, queues))
}

/// The answer's bytes when the client has these queues.
pub(crate) fn locked(queues: &[u32]) -> String {
    let queues: Vec<_> = queues.iter().copied().map(queue).collect();
    json!({"lockOKMQSet": queues}).to_string()
}

#[track_caller]
fn has(peer: &mut Peer, client: &str, asked: &[u32], found: &[u32]) {
    let answer = ask(peer, client, asked).expect(0);
    assert!(answer.header["extFields"].is_null(), "{}", answer.header);
    assert_eq!(String::from_utf8_lossy(&answer.body), locked(found));
}

fn member(stage: &Stage, client: &str) -> Peer {
    let mut peer = stage.peer();
    peer.ask(34, &json!(null), &heartbeat(client, "g", "T1", "*", 1)).expect(0);
    peer
}

fn queues_are_locked_and_given_back_as_clients_say_it(driver: Driver) {
    let stage = Stage::new(driver);
    let mut first = member(&stage, "c@1");
    first.send_message("T1", 0, b"x", "").expect(0);
    let mut second = member(&stage, "c@2");
    has(&mut first, "c@1", &[0], &[0]);
    has(&mut first, "c@1", &[1], &[1]);
    has(&mut second, "c@2", &[1, 2, 3], &[2, 3]);
    has(&mut first, "c@1", &[0, 1, 2, 3], &[0, 1]);
    let given_back = first.ask(42, &json!({}), &body("c@1", &[0])).expect(0);
    assert!(given_back.body.is_empty() && given_back.header["extFields"].is_null(), "{}", given_back.header);
    has(&mut second, "c@2", &[0], &[0]);
    // Nobody waits for this one; it counts all the same.
    first.send_oneway(42, &json!({}), &body("c@1", &[1]));
    has(&mut first, "c@1", &[0], &[]);
    has(&mut second, "c@2", &[1], &[1]);
    // Another group has locks of its own.
    let other = String::from_utf8(body("c@1", &[1])).expect("text").replace("\"g\"", "\"h\"");
    let answer = first.ask(41, &json!({}), other.as_bytes()).expect(0);
    assert_eq!(String::from_utf8_lossy(&answer.body), locked(&[1]));
}

fn k70_a_cut_leaves_the_owner_its_queues_and_a_farewell_gives_them_up(driver: Driver) {
    let stage = Stage::new(driver);
    let mut second = member(&stage, "c@2");
    assert_eq!(second.notice().code(), 40);
    second.send_message("T1", 0, b"x", "").expect(0);
    let mut first = member(&stage, "c@1");
    assert_eq!(second.notice().code(), 40);
    has(&mut first, "c@1", &[0, 1], &[0, 1]);
    has(&mut second, "c@2", &[0, 1], &[]);
    first.hang_up();
    // It hears of that, and asks: the client lives, perhaps, and is in the middle of a message.
    assert_eq!(second.notice().code(), 40);
    has(&mut second, "c@2", &[0, 1], &[]);
    let mut first = member(&stage, "c@1");
    assert_eq!(second.notice().code(), 40);
    has(&mut first, "c@1", &[0, 1], &[0, 1]);
    assert_eq!(stage.broker.counts().queues_locked, 2, "it had them all the time");
    first.ask(35, &json!({"clientID": "c@1", "producerGroup": "", "consumerGroup": "g"}), &[]).expect(0);
    assert_eq!(second.notice().code(), 40);
    has(&mut second, "c@2", &[0, 1], &[0, 1]);
    assert_eq!(stage.broker.counts().queues_locked, 4);
}

fn k70_a_restart_keeps_the_owner(driver: Driver) {
    let mut stage = Stage::new(driver);
    let mut first = member(&stage, "c@1");
    first.send_message("T1", 0, b"x", "").expect(0);
    has(&mut first, "c@1", &[0, 1], &[0, 1]);
    // These are there until the broker stops.
    let mut connected = vec![first];
    for _ in 0..2 {
        stage = stage.restart(driver);
        // Whoever comes back first.
        let mut second = member(&stage, "c@2");
        has(&mut second, "c@2", &[0, 1, 2], &[2]);
        let mut first = member(&stage, "c@1");
        has(&mut first, "c@1", &[0, 1, 2], &[0, 1]);
        second.ask(42, &json!({}), &body("c@2", &[2])).expect(0);
        connected.extend([first, second]);
    }
}
