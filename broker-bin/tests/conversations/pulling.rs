//! Pulls: at once, held, filtered, and beyond what is there.

use std::time::Duration;

use anchorlog::Driver;
use serde_json::json;

use crate::over_every_driver;
use crate::peer::{heartbeat, pull_fields, send_fields};
use crate::stage::Stage;

over_every_driver! {
    c09_a_held_pull_is_answered_by_the_next_message,
    c10_a_held_pull_never_gives_what_its_filter_refuses,
    a_tag_with_the_hash_of_another_is_another,
    c11_offsets_that_do_not_exist_are_moved,
    c19_held_pulls_delay_nothing_else,
    a_held_pull_ends_when_its_time_is_up,
    the_heartbeats_subscription_filters,
    code_361_pulls_like_11,
    a_pull_can_commit,
    old_messages_are_read_from_the_disk,
    an_answer_is_bounded,
}

fn c09_a_held_pull_is_answered_by_the_next_message(driver: Driver) {
    let stage = Stage::new(driver);
    let (mut consumer, mut producer) = (stage.peer(), stage.peer());
    producer.send_message("T1", 1, b"makes the topic", "").expect(0);
    let held = consumer.send(11, &pull_fields("g", "T1", 0, 0, 2 + 4, "*"), &[]);
    assert!(consumer.anything(Duration::from_millis(200)).is_none());
    producer.send_message("T1", 0, b"hello", "").expect(0);
    let answer = consumer.answer(held).expect(0);
    assert_eq!(answer.records()[0].body, b"hello");
    assert_eq!((answer.number("nextBeginOffset"), answer.number("minOffset"), answer.number("maxOffset")), (1, 0, 1));
    assert_eq!(answer.number("suggestWhichBrokerId"), 0);
}

fn c10_a_held_pull_never_gives_what_its_filter_refuses(driver: Driver) {
    let stage = Stage::new(driver);
    let (mut consumer, mut producer) = (stage.peer(), stage.peer());
    producer.send_message("T1", 0, b"other", "TAGS\u{1}TagB\u{2}").expect(0);
    // Without waiting: nothing matches, go on behind it.
    let passed = consumer.ask(11, &pull_fields("g", "T1", 0, 0, 4, "TagA"), &[]).expect(20);
    assert_eq!(passed.number("nextBeginOffset"), 1);
    let mut fields = pull_fields("g", "T1", 0, 1, 2 + 4, "TagA");
    fields["suspendTimeoutMillis"] = json!("1500");
    let held = consumer.send(11, &fields, &[]);
    // Its connection's requests are handled in turn: with this answer the pull is held.
    consumer.ask(105, &json!({"topic": "T1"}), &[]).expect(0);
    producer.send_message("T1", 0, b"other", "TAGS\u{1}TagB\u{2}").expect(0);
    producer.send_message("T1", 0, b"untagged", "").expect(0);
    let ended = consumer.answer(held).expect(20);
    assert!(ended.body.is_empty());
    assert_eq!(ended.number("nextBeginOffset"), 3);
    let held = consumer.send(11, &pull_fields("g", "T1", 0, 3, 2 + 4, "TagA || TagC"), &[]);
    consumer.ask(105, &json!({"topic": "T1"}), &[]).expect(0);
    producer.send_message("T1", 0, b"other", "TAGS\u{1}TagB\u{2}").expect(0);
    producer.send_message("T1", 0, b"wanted", "TAGS\u{1}TagC\u{2}").expect(0);
    let answer = consumer.answer(held).expect(0);
    let bodies: Vec<_> = answer.records().into_iter().map(|record| record.body).collect();
    assert_eq!((bodies, answer.number("nextBeginOffset")), (vec![b"wanted".to_vec()], 5));
}

fn a_tag_with_the_hash_of_another_is_another(driver: Driver) {
    let stage = Stage::new(driver);
    let (mut consumer, mut producer) = (stage.peer(), stage.peer());
    producer.send_message("T1", 0, b"other", "TAGS\u{1}BB\u{2}").expect(0);
    let passed = consumer.ask(11, &pull_fields("g", "T1", 0, 0, 4, "Aa"), &[]).expect(20);
    assert_eq!(passed.number("nextBeginOffset"), 1);
    let held = consumer.send(11, &pull_fields("g", "T1", 0, 1, 2 + 4, "Aa"), &[]);
    consumer.ask(105, &json!({"topic": "T1"}), &[]).expect(0);
    producer.send_message("T1", 0, b"other", "TAGS\u{1}BB\u{2}").expect(0);
    producer.send_message("T1", 0, b"wanted", "TAGS\u{1}Aa\u{2}").expect(0);
    let answer = consumer.answer(held).expect(0);
    let bodies: Vec<_> = answer.records().into_iter().map(|record| record.body).collect();
    assert_eq!((bodies, answer.number("nextBeginOffset")), (vec![b"wanted".to_vec()], 3));
}

fn c11_offsets_that_do_not_exist_are_moved(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    for _ in 0..3 {
        peer.send_message("T1", 0, b"x", "").expect(0);
    }
    assert_eq!(peer.pull("g", "T1", 0, 3 + 5).expect(21).number("nextBeginOffset"), 3);
    assert_eq!(peer.pull("g", "T1", 0, -1).expect(21).number("nextBeginOffset"), 0);
    assert_eq!(peer.pull("g", "T1", 0, 3).expect(19).number("nextBeginOffset"), 3);
    // A queue that was never written.
    assert_eq!(peer.pull("g", "T1", 1, 4).expect(21).number("nextBeginOffset"), 0);
    assert_eq!(peer.pull("g", "T1", 1, 0).expect(19).number("nextBeginOffset"), 0);
    peer.pull("g", "T1", 4, 0).expect(29);
    peer.pull("g", "T2", 0, 0).expect(17);
    peer.ask(11, &pull_fields("g", "T1", 0, 0, 4, "||"), &[]).expect(23);
    let mut sql = pull_fields("g", "T1", 0, 0, 4, "a > 1");
    sql["expressionType"] = json!("SQL92");
    assert!(peer.ask(11, &sql, &[]).expect(1).remark().contains("SQL"));
}

fn c19_held_pulls_delay_nothing_else(driver: Driver) {
    let stage = Stage::new(driver);
    let (mut consumer, mut producer) = (stage.peer(), stage.peer());
    let mut wide = send_fields("T1", 0, "");
    wide["d"] = json!("8");
    producer.ask(310, &wide, b"x").expect(0);
    let held: Vec<_> = (0..8)
        .map(|queue| consumer.send(11, &pull_fields("g", "T1", queue, i64::from(queue == 0), 2 + 4, "*"), &[]))
        .collect();
    consumer.ask(34, &json!(null), &heartbeat("c@1", "g", "T1", "*", 1)).expect(0);
    consumer.ask(38, &json!({"consumerGroup": "g"}), &[]).expect(0);
    assert_eq!(stage.broker.counts().pulls_held, 8);
    for (queue, held) in held.into_iter().enumerate().rev() {
        producer.send_message("T1", i64::try_from(queue).expect("small"), b"y", "").expect(0);
        assert_eq!(consumer.answer(held).expect(0).records()[0].body, b"y");
    }
}

fn a_held_pull_ends_when_its_time_is_up(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    peer.send_message("T1", 0, b"x", "").expect(0);
    let mut fields = pull_fields("g", "T1", 0, 1, 2 + 4, "*");
    fields["suspendTimeoutMillis"] = json!("300");
    let held = peer.send(11, &fields, &[]);
    assert!(peer.anything(Duration::from_millis(150)).is_none());
    assert_eq!(peer.answer(held).expect(19).number("nextBeginOffset"), 1);
    // A connection that is gone takes its held pulls with it.
    let mut other = stage.peer();
    other.send(11, &pull_fields("g", "T1", 0, 1, 2 + 4, "*"), &[]);
    other.hang_up();
    peer.send_message("T1", 0, b"y", "").expect(0);
}

fn the_heartbeats_subscription_filters(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    peer.send_message("T1", 0, b"other", "TAGS\u{1}B\u{2}").expect(0);
    peer.send_message("T1", 0, b"wanted", "TAGS\u{1}A\u{2}").expect(0);
    let bodies =
        |frame: crate::peer::Frame| -> Vec<Vec<u8>> { frame.records().into_iter().map(|record| record.body).collect() };
    // Before its heartbeat a client gets everything, and filters itself.
    let early = peer.ask(11, &pull_fields("g", "T1", 0, 0, 0, ""), &[]).expect(0);
    assert_eq!(bodies(early).len(), 2);
    peer.ask(34, &json!(null), &heartbeat("c@1", "g", "T1", "A", 5)).expect(0);
    // A pull may be ahead of its heartbeat's version.
    let mut fields = pull_fields("g", "T1", 0, 0, 0, "");
    fields["subVersion"] = json!("9");
    let answer = peer.ask(11, &fields, &[]).expect(0);
    assert_eq!(bodies(answer), [b"wanted"]);
    // An older version of a subscription changes nothing.
    peer.ask(34, &json!(null), &heartbeat("c@1", "g", "T1", "B", 4)).expect(0);
    assert_eq!(bodies(peer.ask(11, &fields, &[]).expect(0)), [b"wanted"]);
    peer.ask(34, &json!(null), &heartbeat("c@1", "g", "T1", "B", 6)).expect(0);
    assert_eq!(bodies(peer.ask(11, &fields, &[]).expect(0)), [b"other"]);
}

fn code_361_pulls_like_11(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    peer.send_message("T1", 0, b"x", "").expect(0);
    let mut fields = pull_fields("g", "T1", 0, 0, 2 + 4 + 16, "*");
    fields["maxMsgBytes"] = json!("2147483647");
    assert_eq!(peer.ask(361, &fields, &[]).expect(0).records().len(), 1);
}

fn a_pull_can_commit(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    peer.send_message("T1", 0, b"x", "").expect(0);
    let mut fields = pull_fields("g", "T1", 0, 0, 1 + 4, "*");
    fields["commitOffset"] = json!("1");
    peer.ask(11, &fields, &[]).expect(0);
    let asked = json!({"consumerGroup": "g", "topic": "T1", "queueId": "0"});
    assert_eq!(peer.ask(14, &asked, &[]).expect(0).number("offset"), 1);
    fields["commitOffset"] = json!("-1");
    peer.ask(11, &fields, &[]).expect(0);
    assert_eq!(peer.ask(14, &asked, &[]).expect(0).number("offset"), 1);
}

fn old_messages_are_read_from_the_disk(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    let body = vec![b'x'; 60 << 10];
    // Three times what the cache holds.
    for _ in 0..100 {
        peer.send_message("T1", 0, &body, "").expect(0);
    }
    let mut next = 0;
    let mut seen = 0;
    while next < 100 {
        let answer = peer.pull("g", "T1", 0, next).expect(0);
        for record in answer.records() {
            assert_eq!((record.queue_offset, record.body.len()), (seen, body.len()));
            seen += 1;
        }
        next = answer.number("nextBeginOffset");
    }
    assert_eq!(seen, 100);
    assert!(stage.broker.counts().pulls_cold > 0);
}

fn an_answer_is_bounded(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    for _ in 0..40 {
        peer.send_message("T1", 0, b"small", "").expect(0);
    }
    let first = peer.pull("g", "T1", 0, 0).expect(0);
    assert_eq!((first.records().len(), first.number("nextBeginOffset")), (32, 32));
    let mut few = pull_fields("g", "T1", 0, 0, 4, "*");
    few["maxMsgNums"] = json!("3");
    assert_eq!(peer.ask(11, &few, &[]).expect(0).records().len(), 3);
    for _ in 0..4 {
        peer.send_message("T1", 1, &vec![b'x'; 100 << 10], "").expect(0);
    }
    assert_eq!(peer.pull("g", "T1", 1, 0).expect(0).records().len(), 2);
}
