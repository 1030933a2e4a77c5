//! Groups: who is in them, and who hears of it.

use std::time::Duration;

use anchorlog::{BrokerOptions, Driver};
use serde_json::json;

use crate::over_every_driver;
use crate::peer::{heartbeat, pull_fields};
use crate::stage::Stage;

over_every_driver! {
    c06_a_member_finds_itself_as_soon_as_its_heartbeat_was_sent,
    c07_members_hear_of_each_other,
    a_farewell_counts_as_leaving,
    a_client_that_reconnects_is_in_its_group_once,
    sql_filters_are_refused_when_they_are_checked,
    sql_filters_that_are_switched_on_choose_messages,
}

fn c06_a_member_finds_itself_as_soon_as_its_heartbeat_was_sent(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    peer.ask(105, &json!({"topic": "%RETRY%g1"}), &[]).expect(17);
    peer.ask(38, &json!({"consumerGroup": "g1"}), &[]).expect(1);
    let beat = peer.send(34, &json!(null), &heartbeat("c@1", "g1", "T1", "*", 1));
    let list = peer.send(38, &json!({"consumerGroup": "g1"}), &[]);
    assert_eq!(peer.answer(list).expect(0).json(), json!({"consumerIdList": ["c@1"]}));
    peer.answer(beat).expect(0);
    let route = peer.ask(105, &json!({"topic": "%RETRY%g1"}), &[]).expect(0).json();
    assert_eq!((&route["queueDatas"][0]["perm"], &route["queueDatas"][0]["readQueueNums"]), (&json!(6), &json!(1)));
}

fn c07_members_hear_of_each_other(driver: Driver) {
    let stage = Stage::new(driver);
    let mut first = stage.peer();
    first.ask(34, &json!(null), &heartbeat("c@1", "g1", "T1", "*", 1)).expect(0);
    let own = first.notice();
    assert_eq!((own.code(), own.field("consumerGroup")), (40, "g1"));
    assert_eq!(own.header["flag"], 2, "nobody waits for an answer");
    // Nothing new is no news.
    first.ask(34, &json!(null), &heartbeat("c@1", "g1", "T1", "*", 1)).expect(0);
    assert!(first.anything(Duration::from_millis(200)).is_none());

    let mut second = stage.peer();
    second.ask(34, &json!(null), &heartbeat("c@2", "g1", "T1", "*", 1)).expect(0);
    assert_eq!(first.notice().code(), 40);
    assert_eq!(second.notice().code(), 40);
    let list = first.ask(38, &json!({"consumerGroup": "g1"}), &[]).expect(0).json();
    assert_eq!(list, json!({"consumerIdList": ["c@1", "c@2"]}));

    second.hang_up();
    assert_eq!(first.notice().code(), 40);
    let list = first.ask(38, &json!({"consumerGroup": "g1"}), &[]).expect(0).json();
    assert_eq!(list, json!({"consumerIdList": ["c@1"]}));

    // Another subscription is news for everyone.
    first.ask(34, &json!(null), &heartbeat("c@1", "g1", "T2", "A || B", 2)).expect(0);
    assert_eq!(first.notice().code(), 40);
}

fn a_farewell_counts_as_leaving(driver: Driver) {
    let stage = Stage::new(driver);
    let mut first = stage.peer();
    first.ask(34, &json!(null), &heartbeat("c@1", "g1", "T1", "*", 1)).expect(0);
    first.notice();
    let mut second = stage.peer();
    second.ask(34, &json!(null), &heartbeat("c@2", "g1", "T1", "*", 1)).expect(0);
    first.notice();
    second.ask(35, &json!({"clientID": "c@2", "consumerGroup": "g1"}), &[]).expect(0);
    assert_eq!(first.notice().code(), 40);
    let list = second.ask(38, &json!({"consumerGroup": "g1"}), &[]).expect(0).json();
    assert_eq!(list, json!({"consumerIdList": ["c@1"]}));
}

fn a_client_that_reconnects_is_in_its_group_once(driver: Driver) {
    let stage = Stage::new(driver);
    let mut before = stage.peer();
    before.ask(34, &json!(null), &heartbeat("c@1", "g1", "T1", "*", 1)).expect(0);
    let mut after = stage.peer();
    after.ask(34, &json!(null), &heartbeat("c@1", "g1", "T1", "*", 1)).expect(0);
    let list = after.ask(38, &json!({"consumerGroup": "g1"}), &[]).expect(0).json();
    assert_eq!(list, json!({"consumerIdList": ["c@1"]}));
    // The old connection's end does not take the new one with it.
    before.hang_up();
    std::thread::yield_now();
    for _ in 0..20 {
        let list = after.ask(38, &json!({"consumerGroup": "g1"}), &[]).expect(0).json();
        assert_eq!(list, json!({"consumerIdList": ["c@1"]}));
    }
}

fn sql_filters_are_refused_when_they_are_checked(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    let check = |kind: &str| {
        let data = json!({"topic": "T1", "subString": "a > 1", "expressionType": kind, "subVersion": 1});
        json!({"clientId": "c@1", "group": "g1", "subscriptionData": data}).to_string().into_bytes()
    };
    peer.ask(46, &json!({}), &check("TAG")).expect(0);
    let refused = peer.ask(46, &json!({}), &check("SQL92")).expect(1);
    assert!(refused.remark().contains("SQL92"));
}

fn sql_filters_that_are_switched_on_choose_messages(driver: Driver) {
    let stage = Stage::with(driver, |options| BrokerOptions { property_filter: true, ..options });
    let mut sender = stage.peer();
    for (number, color) in [(8, "red"), (12, "blue"), (13, "red"), (14, "red")] {
        sender
            .send_message("T1", 0, number.to_string().as_bytes(), &format!("n\u{1}{number}\u{2}color\u{1}{color}\u{2}"))
            .expect(0);
    }
    let subscribed = "n > 9 AND color = 'red'";
    let data = json!({"topic": "T1", "subString": subscribed, "expressionType": "SQL92", "subVersion": 1});
    let mut peer = stage.peer();
    let check = json!({"clientId": "c@1", "group": "g1", "subscriptionData": data}).to_string();
    peer.ask(46, &json!({}), check.as_bytes()).expect(0);
    let consumer = json!({"groupName": "g1", "messageModel": "CLUSTERING", "subscriptionDataSet": [data]});
    let beat = json!({"clientID": "c@1", "consumerDataSet": [consumer]}).to_string();
    peer.ask(34, &json!(null), beat.as_bytes()).expect(0);
    let mut pull = pull_fields("g1", "T1", 0, 0, 2, "");
    pull["suspendTimeoutMillis"] = json!("15000");
    let found = peer.ask(11, &pull, &[]).expect(0);
    let bodies: Vec<_> = found.records().into_iter().map(|record| record.body).collect();
    assert_eq!((bodies, found.number("nextBeginOffset")), (vec![b"13".to_vec(), b"14".to_vec()], 4));
    // One that waits is woken by what it wants, and goes on behind what it does not.
    pull["queueOffset"] = json!("4");
    let mut waiting = peer.send(11, &pull, &[]);
    assert!(peer.anything(Duration::from_millis(200)).is_none_or(|frame| frame.code() == 40), "it waits");
    sender.send_message("T1", 0, b"15", "n\u{1}15\u{2}color\u{1}green\u{2}").expect(0);
    // Where the disk had to be asked it is told to come again behind that one instead.
    if let Some(frame) = peer.anything(Duration::from_millis(100)).filter(|frame| frame.code() != 40) {
        assert_eq!((frame.opaque(), frame.code(), frame.number("nextBeginOffset")), (waiting, 20, 5));
        pull["queueOffset"] = json!("5");
        waiting = peer.send(11, &pull, &[]);
    }
    sender.send_message("T1", 0, b"16", "n\u{1}16\u{2}color\u{1}red\u{2}").expect(0);
    let found = peer.answer(waiting).expect(0);
    assert_eq!((&found.records()[0].body[..], found.number("nextBeginOffset")), (&b"16"[..], 6));
    let bad = json!({"clientId": "c@1", "group": "g1", "subscriptionData": {"topic": "T1", "subString": "n >", "expressionType": "SQL92"}});
    assert!(peer.ask(46, &json!({}), bad.to_string().as_bytes()).expect(23).remark().contains("at byte 3"));
}
