//! Questions to consumers, from the tool's request to the answer it gets, over a simulated disk and clock.

use std::time::Duration;

use serde_json::{Value, json};

use crate::limits;
use crate::net::ConnectionId;
use crate::scene::{Answer, Scene};
use crate::wire::message::records;

fn scene() -> (Scene, ConnectionId, ConnectionId) {
    let mut scene = Scene::new();
    let (tool, consumer) = (scene.connect(), scene.connect());
    scene.beat(consumer, "client-1", "g", "T1");
    (scene, tool, consumer)
}

/// A client answers what it was asked.
fn answer(scene: &mut Scene, from: ConnectionId, question: &Answer, code: i64, remark: &str, body: &[u8]) {
    let header =
        json!({"code": code, "flag": 1, "opaque": question.header["opaque"], "remark": remark, "version": 479})
            .to_string();
    let mut bytes = u32::try_from(4 + header.len() + body.len()).expect("small").to_be_bytes().to_vec();
    bytes.extend(u32::try_from(header.len()).expect("small").to_be_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(body);
    scene.worker.bytes_in(from, &bytes);
    scene.worker.end_of_turn();
}

fn only(mut answers: Vec<Answer>) -> Answer {
    assert_eq!(answers.len(), 1, "{answers:?}");
    answers.remove(0)
}

fn running(client: &str) -> Value {
    json!({"consumerGroup": "g", "clientId": client, "jstackEnable": "true"})
}

#[test]
fn what_a_consumer_says_is_passed_on_as_it_is() {
    let (mut scene, tool, consumer) = scene();
    scene.give(tool, 307, &running("client-1"), &[]);
    let question = only(scene.answers(consumer));
    assert_eq!((question.code(), question.header["flag"].as_i64()), (307, Some(0)), "an answer is wanted");
    assert_eq!((question.field("clientId"), question.field("jstackEnable")), ("client-1", "true"));
    assert!(scene.answers(tool).is_empty());
    answer(&mut scene, consumer, &question, 0, "fine", b"{\"mqTable\":{{}:1}}");
    let passed_on = only(scene.answers(tool));
    assert_eq!((passed_on.code(), passed_on.body.as_slice()), (0, &b"{\"mqTable\":{{}:1}}"[..]));
    assert_eq!(passed_on.header["remark"], "fine");
    // Once is enough.
    answer(&mut scene, consumer, &question, 0, "again", b"");
    assert!(scene.answers(tool).is_empty());
}

#[test]
fn nobody_waits_for_a_consumer_that_is_gone_or_silent() {
    let (mut scene, tool, consumer) = scene();
    assert_eq!(scene.ask(tool, 307, &running("nobody"), &[]).code(), 1);
    scene.give(tool, 307, &running("client-1"), &[]);
    let question = only(scene.answers(consumer));
    // Only who was asked can answer.
    answer(&mut scene, tool, &question, 0, "not me", b"");
    assert!(scene.answers(tool).is_empty());
    scene.pass(limits::RELAY_WAIT - Duration::from_millis(1));
    assert!(scene.answers(tool).is_empty());
    scene.pass(Duration::from_millis(1));
    assert_eq!(only(scene.answers(tool)).code(), 207);
    answer(&mut scene, consumer, &question, 0, "too late", b"");
    assert!(scene.answers(tool).is_empty());
    scene.give(tool, 307, &running("client-1"), &[]);
    scene.worker.closed(consumer);
    assert_eq!(only(scene.answers(tool)).code(), 1);
    assert_eq!(scene.ask(tool, 307, &running("client-1"), &[]).code(), 1, "its connection is gone, and so is it");
}

#[test]
fn a_message_is_given_to_one_consumer_as_it_is_stored() {
    let (mut scene, tool, consumer) = scene();
    let sent = scene.send(tool, "T1", 0, "UNIQ_KEY\u{1}K\u{2}", b"hello");
    let fields = |id: &str| json!({"consumerGroup": "g", "clientId": "client-1", "msgId": id, "topic": "T1"});
    scene.give(tool, 309, &fields(sent.field("msgId")), &[]);
    scene.finish();
    let question = only(scene.answers(consumer));
    assert_eq!((question.code(), question.field("brokerName")), (309, "b"));
    let record = records(&question.body).next().expect("one").expect("a record");
    assert_eq!((&*record.topic, record.body), ("T1", &b"hello"[..]));
    answer(&mut scene, consumer, &question, 0, "", b"{\"consumeResult\":\"CR_SUCCESS\"}");
    assert_eq!(only(scene.answers(tool)).body, b"{\"consumeResult\":\"CR_SUCCESS\"}");
    assert_eq!(scene.ask(tool, 309, &fields("K"), &[]).code(), 1);
    assert_eq!(scene.ask(tool, 309, &fields("7F00000100002A9F00000000FFFFFFF8"), &[]).code(), 1);
}

#[test]
fn where_all_members_are_is_put_together() {
    let (mut scene, tool, one) = scene();
    let other = scene.connect();
    scene.beat(other, "client-2", "g", "T1");
    drop(scene.answers(one));
    let fields = json!({"group": "g", "topic": "T1"});
    scene.give(tool, 223, &fields, &[]);
    let (first, second) = (only(scene.answers(one)), only(scene.answers(other)));
    assert_eq!((first.code(), second.field("topic")), (221, "T1"));
    answer(&mut scene, other, &second, 0, "", br#"{"messageQueueTable":{{"topic":"T1"}:7}}"#);
    assert!(scene.answers(tool).is_empty(), "one has not answered");
    answer(&mut scene, one, &first, 1, "I cannot", b"");
    let status = only(scene.answers(tool));
    assert_eq!(status.body, br#"{"consumerTable":{"client-2":{{"topic":"T1"}:7}}}"#);
    scene.give(tool, 223, &json!({"group": "g", "topic": "T1", "clientAddr": "client-1"}), &[]);
    assert_eq!((scene.answers(one).len(), scene.answers(other).len()), (1, 0));
    assert_eq!(scene.ask(tool, 223, &json!({"group": "none", "topic": "T1"}), &[]).code(), 206);
}
