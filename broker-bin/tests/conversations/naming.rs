//! Routes, and topics made on demand.

use anchorlog::Driver;
use serde_json::json;

use crate::over_every_driver;
use crate::stage::Stage;

over_every_driver! {
    c01_an_unknown_topic_has_no_route_and_the_template_has_one,
    c02_a_send_to_an_unknown_topic_makes_it,
    c03_numbers_without_quotes_and_missing_fields_are_taken,
    a_broker_without_auto_create_has_no_template,
    a_topic_can_be_made_before_it_is_used,
    forbidden_and_odd_names_are_refused,
}

fn c01_an_unknown_topic_has_no_route_and_the_template_has_one(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    let unknown = peer.ask(105, &json!({"topic": "T1"}), &[]).expect(17);
    assert!(unknown.remark().contains("T1") && unknown.body.is_empty());
    let template = peer.ask(105, &json!({"topic": "TBW102"}), &[]).expect(0).json();
    assert_eq!(template["queueDatas"][0]["perm"], 7);
    assert_eq!(template["queueDatas"][0]["readQueueNums"], 8);
    assert_eq!(template["brokerDatas"][0]["brokerAddrs"]["0"], "127.0.0.1:10911");
    // An odd name is a topic that does not exist, nothing worse.
    peer.ask(105, &json!({"topic": "no such \u{1} name"}), &[]).expect(17);
    peer.ask(106, &json!({}), &[]).expect(0);
}

fn c02_a_send_to_an_unknown_topic_makes_it(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    let sent = peer.send_message("T1", 3, b"hello", "TAGS\u{1}A\u{2}UNIQ_KEY\u{1}K\u{2}").expect(0);
    assert_eq!((sent.number("queueId"), sent.number("queueOffset")), (3, 0));
    assert_eq!(sent.field("msgId").len(), 32);
    assert!(sent.field("msgId").starts_with("7F00000100002A9F"));
    assert_eq!(sent.field("transactionId"), "K");
    assert_eq!(sent.field("MSG_REGION"), "DefaultRegion");
    // At once, and from another connection too.
    let route = stage.peer().ask(105, &json!({"topic": "T1"}), &[]).expect(0).json();
    let queues = &route["queueDatas"][0];
    assert_eq!(
        (&queues["readQueueNums"], &queues["writeQueueNums"], &queues["perm"]),
        (&json!(4), &json!(4), &json!(6))
    );
    let names = peer.ask(206, &json!({}), &[]).expect(0).json();
    assert!(names["topicList"].as_array().expect("a list").contains(&json!("T1")));
}

fn c03_numbers_without_quotes_and_missing_fields_are_taken(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    peer.version = 121;
    let fields = json!({
        "a": "producers", "b": "T1", "c": "TBW102", "d": 4, "e": 2, "f": 0, "g": 1_700_000_000_000u64, "h": 0,
        "i": "UNIQ_KEY\u{1}K\u{2}", "j": 0, "k": false, "OnsChannel": "ALIYUN", "odd": null,
    });
    let sent = peer.ask(310, &fields, b"hello").expect(0);
    assert_eq!((sent.number("queueId"), sent.number("queueOffset")), (2, 0));
    let route = peer.ask(105, &json!({"topic": "T1"}), &[]).expect(0).json();
    assert_eq!(route["queueDatas"][0]["writeQueueNums"], 4);
}

fn a_broker_without_auto_create_has_no_template(driver: Driver) {
    let stage = Stage::with(driver, |options| anchorlog::BrokerOptions { auto_create_topics: false, ..options });
    let mut peer = stage.peer();
    peer.ask(105, &json!({"topic": "TBW102"}), &[]).expect(17);
    let refused = peer.send_message("T1", 0, b"hello", "").expect(17);
    assert!(refused.remark().contains("T1"));
    assert_eq!(refused.field("TRACE_ON"), "true");
}

fn a_topic_can_be_made_before_it_is_used(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    let fields = |perm: i64| {
        json!({
            "topic": "T1", "defaultTopic": "any", "readQueueNums": "2", "writeQueueNums": "2", "perm": perm.to_string(),
            "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
        })
    };
    peer.ask(17, &fields(4), &[]).expect(0);
    peer.send_message("T1", 0, b"hello", "").expect(16);
    peer.ask(17, &fields(6), &[]).expect(0);
    peer.send_message("T1", 0, b"hello", "").expect(0);
    peer.send_message("T1", 2, b"hello", "").expect(29);
    peer.version = 317;
    peer.send_message("T1", 2, b"hello", "").expect(1);
    let any = peer.send_message("T1", -1, b"hello", "").expect(0);
    assert!((0..2).contains(&any.number("queueId")));
}

fn forbidden_and_odd_names_are_refused(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    peer.send_message("RMQ_SYS_TRANS_HALF_TOPIC", 0, b"hello", "").expect(16);
    peer.send_message("a b", 0, b"hello", "").expect(29);
    peer.send_message(&"a".repeat(128), 0, b"hello", "").expect(29);
    peer.send_message("%RETRY%nobody", 0, b"hello", "").expect(26);
}
