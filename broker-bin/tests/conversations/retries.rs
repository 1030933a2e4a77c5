//! Sending back over a real socket and a real clock; number 12 of the wire notes.

use std::time::Duration;

use anchorlog::features::delay::DelayLevels;
use anchorlog::{BrokerOptions, Driver};
use serde_json::{Value, json};

use crate::delays::wait_for;
use crate::over_every_driver;
use crate::peer::heartbeat;
use crate::stage::Stage;

over_every_driver! {
    a_message_that_always_fails_is_tried_sixteen_times_and_is_a_dead_letter_then,
    what_was_sent_back_comes_again_after_a_restart,
}

fn back(offset: u64, level: i64) -> Value {
    json!({
        "offset": offset.to_string(), "group": "g", "delayLevel": level.to_string(), "originTopic": "T1", "originMsgId": "K",
        "unitMode": "false", "maxReconsumeTimes": "16", "bname": "broker-a",
    })
}

fn a_message_that_always_fails_is_tried_sixteen_times_and_is_a_dead_letter_then(driver: Driver) {
    let at_once: DelayLevels = ["0s"; 18].join(" ").parse().expect("levels");
    let stage = Stage::with(driver, |options| BrokerOptions { delay_levels: at_once, ..options });
    let mut peer = stage.peer();
    peer.ask(34, &json!(null), &heartbeat("c@1", "g", "T1", "*", 1)).expect(0);
    peer.send_message("T1", 0, b"poison", "UNIQ_KEY\u{1}K\u{2}").expect(0);
    let mut record = wait_for(&mut peer, "T1", 0, 0);
    for attempt in 0..16 {
        peer.ask(36, &back(record.physical_offset, 0), &[]).expect(0);
        record = wait_for(&mut peer, "%RETRY%g", 0, attempt);
        assert_eq!((&*record.body, record.property("RETRY_TOPIC")), (&b"poison"[..], Some("T1")));
        assert_eq!(
            u32::from_be_bytes(record.bytes[72..76].try_into().expect("four")),
            u32::try_from(attempt).expect("few") + 1
        );
    }
    peer.ask(36, &back(record.physical_offset, 0), &[]).expect(0);
    let dead = wait_for(&mut peer, "%DLQ%g", 0, 0);
    assert_eq!((&*dead.body, dead.property("UNIQ_KEY")), (&b"poison"[..], Some("K")));
    assert_eq!(peer.ask(30, &json!({"topic": "%RETRY%g", "queueId": "0"}), &[]).expect(0).number("offset"), 16);
    let counts = stage.broker.counts();
    assert_eq!((counts.messages_sent_back, counts.dead_letters, counts.entries_parked), (16, 1, 0));
}

fn what_was_sent_back_comes_again_after_a_restart(driver: Driver) {
    let mut stage = Stage::new(driver);
    let mut peer = stage.peer();
    peer.ask(34, &json!(null), &heartbeat("c@1", "g", "T1", "*", 1)).expect(0);
    peer.send_message("T1", 0, b"again", "UNIQ_KEY\u{1}K\u{2}").expect(0);
    let record = wait_for(&mut peer, "T1", 0, 0);
    // Whoever stops reads no answer to this, and the broker does it all the same.
    peer.send_oneway(36, &back(record.physical_offset, 1), &[]);
    peer.ask(105, &json!({"topic": "T1"}), &[]).expect(0);
    stage = stage.restart(driver);
    let mut peer = stage.peer();
    assert_eq!(wait_for(&mut peer, "%RETRY%g", 0, 0).body, b"again");
    assert!(peer.anything(Duration::from_millis(50)).is_none());
    assert_eq!(peer.ask(30, &json!({"topic": "%RETRY%g", "queueId": "0"}), &[]).expect(0).number("offset"), 1);
}
