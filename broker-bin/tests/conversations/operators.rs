//! Operators' tools over real sockets: questions that cross network threads, and searches of what lies on the disk.

use anchorlog::Driver;
use serde_json::json;

use crate::over_every_driver;
use crate::peer::{Peer, frame, heartbeat};
use crate::stage::Stage;

over_every_driver! {
    a_question_reaches_a_consumer_of_any_thread_and_so_does_its_answer,
    a_message_is_found_by_its_keys_on_the_disk_after_a_restart,
    a_consumer_is_moved_while_its_pull_is_held,
}

/// Answers a request of the broker.
fn answer(peer: &mut Peer, opaque: i64, body: &[u8]) {
    let header = json!({
        "code": 0, "flag": 1, "language": "JAVA", "opaque": opaque, "serializeTypeCurrentRPC": "JSON", "version": 479,
    });
    peer.raw(&frame(header.to_string().as_bytes(), body));
}

fn a_question_reaches_a_consumer_of_any_thread_and_so_does_its_answer(driver: Driver) {
    let stage = Stage::new(driver);
    // Connections go to the threads in turn: these are of both.
    let mut consumers: Vec<_> = (0..4).map(|_| stage.peer()).collect();
    for (number, consumer) in consumers.iter_mut().enumerate() {
        consumer.ask(34, &json!({}), &heartbeat(&format!("client-{number}"), "g", "T1", "*", 1)).expect(0);
    }
    for consumer in &mut consumers {
        while consumer.anything(std::time::Duration::from_millis(100)).is_some() {}
    }
    for mut tool in [stage.peer(), stage.peer()] {
        for (number, consumer) in consumers.iter_mut().enumerate() {
            let fields = json!({"consumerGroup": "g", "clientId": format!("client-{number}"), "jstackEnable": "false"});
            let asked = tool.send(307, &fields, &[]);
            let question = consumer.notice();
            assert_eq!((question.code(), question.field("clientId")), (307, &*format!("client-{number}")));
            answer(consumer, question.opaque(), format!("I am {number}").as_bytes());
            assert_eq!(tool.answer(asked).expect(0).body, format!("I am {number}").as_bytes());
        }
        let asked = tool.send(223, &json!({"group": "g", "topic": "T1"}), &[]);
        for (number, consumer) in consumers.iter_mut().enumerate() {
            let question = consumer.notice();
            answer(
                consumer,
                question.opaque(),
                format!("{{\"messageQueueTable\":{{{{\"q\":0}}:{number}}}}}").as_bytes(),
            );
        }
        let all =
            (0..4).map(|number| format!("\"client-{number}\":{{{{\"q\":0}}:{number}}}")).collect::<Vec<_>>().join(",");
        let wanted = format!("{{\"consumerTable\":{{{all}}}}}");
        assert_eq!(String::from_utf8_lossy(&tool.answer(asked).expect(0).body), wanted);
    }
    // One that hangs up is not waited for.
    let mut tool = stage.peer();
    let asked = tool.send(307, &json!({"consumerGroup": "g", "clientId": "client-0"}), &[]);
    consumers[0].notice();
    consumers.remove(0).hang_up();
    tool.answer(asked).expect(1);
}

fn a_message_is_found_by_its_keys_on_the_disk_after_a_restart(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    let filler = vec![7; 60 << 10];
    let mut first = None;
    for number in 0..100 {
        let properties = format!("UNIQ_KEY\u{1}ID{number}\u{2}KEYS\u{1}order-{number} all\u{2}");
        let sent = peer.send_message("T1", 0, &filler, &properties).expect(0);
        first.get_or_insert_with(|| sent.field("msgId").to_owned());
    }
    // Beyond what is kept in memory, and in files of its own.
    let stage = stage.restart(driver);
    let mut peer = stage.peer();
    let query = |key: &str, unique: &str, most: &str| {
        json!({
            "topic": "T1", "key": key, "maxNum": most, "beginTimestamp": "0", "endTimestamp": i64::MAX.to_string(),
            "_UNIQUE_KEY_QUERY": unique,
        })
    };
    for (key, unique) in [("order-3", "false"), ("ID3", "true")] {
        let records = peer.ask(12, &query(key, unique, "32"), &[]).expect(0).records();
        assert_eq!((records.len(), records[0].queue_offset, records[0].property("UNIQ_KEY")), (1, 3, Some("ID3")));
    }
    let newest = peer.ask(12, &query("all", "false", "5"), &[]).expect(0).records();
    assert_eq!(newest.iter().map(|record| record.queue_offset).collect::<Vec<_>>(), [99, 98, 97, 96, 95]);
    let place = i64::from_str_radix(&first.expect("sent")[16..], 16).expect("hex");
    let found = peer.ask(33, &json!({"offset": place.to_string()}), &[]).expect(0).records();
    assert_eq!(found[0].property("UNIQ_KEY"), Some("ID0"));
    peer.ask(33, &json!({"offset": (place + 8).to_string()}), &[]).expect(1);
}

fn a_consumer_is_moved_while_its_pull_is_held(driver: Driver) {
    let stage = Stage::new(driver);
    let (mut tool, mut consumer) = (stage.peer(), stage.peer());
    for number in 0..3u8 {
        tool.send_message("T1", 0, &[number], "").expect(0);
    }
    consumer.ask(34, &json!({}), &heartbeat("client-1", "g", "T1", "*", 1)).expect(0);
    let held = consumer.send(11, &crate::peer::pull_fields("g", "T1", 0, 3, 2, "*"), &[]);
    // Its connection's requests are handled in turn: with this answer the pull is held.
    consumer.ask(105, &json!({"topic": "T1"}), &[]).expect(0);
    let reset =
        json!({"group": "g", "topic": "T1", "timestamp": "0", "isForce": "true", "queueId": "-1", "offset": "-1"});
    tool.ask(222, &reset, &[]).expect(0);
    // Long before its 15 s are over.
    consumer.answer(held).expect(19);
    let moved = consumer.pull("g", "T1", 0, 3).expect(21);
    assert_eq!(moved.number("nextBeginOffset"), 0);
    assert_eq!(consumer.pull("g", "T1", 0, 0).expect(0).records().len(), 3);
}
