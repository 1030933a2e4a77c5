//! Committed offsets, and what a queue holds.

use anchorlog::Driver;
use serde_json::{Value, json};

use crate::over_every_driver;
use crate::stage::Stage;

over_every_driver! {
    c08_an_offset_is_what_was_committed_last,
    a_queue_tells_its_ends_and_times,
    a_commit_for_nothing_that_exists_is_refused,
}

fn ask_offset(group: &str) -> Value {
    json!({"consumerGroup": group, "topic": "T1", "queueId": "0"})
}

fn commit(group: &str, offset: i64) -> Value {
    json!({"consumerGroup": group, "topic": "T1", "queueId": "0", "commitOffset": offset.to_string()})
}

fn c08_an_offset_is_what_was_committed_last(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    peer.ask(14, &ask_offset("g1"), &[]).expect(22);
    peer.send_message("T1", 1, b"x", "").expect(0);
    // Message 0 of queue 0 is still to come: a new group begins with it, whatever is sent before its first poll.
    assert_eq!(peer.ask(14, &ask_offset("g1"), &[]).expect(0).number("offset"), 0);
    let mut cautious = ask_offset("g1");
    cautious["setZeroIfNotFound"] = json!("false");
    peer.ask(14, &cautious, &[]).expect(22);
    peer.ask(15, &commit("g1", 7), &[]).expect(0);
    assert_eq!(peer.ask(14, &ask_offset("g1"), &[]).expect(0).number("offset"), 7);
    // Some clients commit -1 for a queue of which they know nothing.
    peer.ask(15, &commit("g1", -1), &[]).expect(0);
    assert_eq!(peer.ask(14, &ask_offset("g1"), &[]).expect(0).number("offset"), 7);
    // Rewinding is a user's right.
    peer.send_oneway(15, &commit("g1", 3), &[]);
    assert_eq!(peer.ask(14, &ask_offset("g1"), &[]).expect(0).number("offset"), 3);
    assert_eq!(peer.ask(14, &ask_offset("g2"), &[]).expect(0).number("offset"), 0);
}

fn a_queue_tells_its_ends_and_times(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    let queue = json!({"topic": "T1", "queueId": "0"});
    for code in [30, 31] {
        assert_eq!(peer.ask(code, &queue, &[]).expect(0).number("offset"), 0, "of a topic that does not exist");
    }
    assert_eq!(peer.ask(32, &queue, &[]).expect(0).number("timestamp"), -1);
    for _ in 0..3 {
        peer.send_message("T1", 0, b"x", "").expect(0);
    }
    assert_eq!(peer.ask(30, &queue, &[]).expect(0).number("offset"), 3);
    assert_eq!(peer.ask(31, &queue, &[]).expect(0).number("offset"), 0);
    let stored = peer.ask(32, &queue, &[]).expect(0).number("timestamp");
    assert!(stored > 1_700_000_000_000);
    let at = |time: i64, boundary: &str| json!({"topic": "T1", "queueId": "0", "timestamp": time.to_string(), "boundaryType": boundary});
    assert_eq!(peer.ask(29, &at(0, "LOWER"), &[]).expect(0).number("offset"), 0);
    assert_eq!(peer.ask(29, &at(stored, "lower"), &[]).expect(0).number("offset"), 0);
    assert_eq!(peer.ask(29, &at(stored + 3_600_000, "LOWER"), &[]).expect(0).number("offset"), 3);
    assert_eq!(peer.ask(29, &at(stored + 3_600_000, "UPPER"), &[]).expect(0).number("offset"), 2);
    assert_eq!(peer.ask(29, &at(0, "UPPER"), &[]).expect(0).number("offset"), 0);
}

fn a_commit_for_nothing_that_exists_is_refused(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    peer.ask(15, &commit("g1", 7), &[]).expect(17);
    peer.ask(14, &ask_offset("g1"), &[]).expect(22);
    let lacking = peer.ask(14, &json!({"consumerGroup": "g1", "topic": "T1"}), &[]).expect(1);
    assert!(lacking.remark().contains("queueId"));
}
