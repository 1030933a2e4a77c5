//! Replies, from the request to the answer, over a simulated disk and clock.

use std::time::Duration;

use serde_json::{Value, json};

use crate::net::ConnectionId;
use crate::scene::{Answer, Scene};

fn producer(scene: &mut Scene, client: &str) -> ConnectionId {
    let id = scene.connect();
    let beat = json!({"clientID": client, "consumerDataSet": [], "producerDataSet": [{"groupName": "p"}]}).to_string();
    assert_eq!(scene.ask(id, 34, &json!({}), beat.as_bytes()).code(), 0);
    id
}

fn reply_to(client: &str) -> Value {
    let properties =
        format!("MSG_TYPE\u{1}reply\u{2}REPLY_TO_CLIENT\u{1}{client}\u{2}CORRELATION_ID\u{1}7\u{2}UNIQ_KEY\u{1}K\u{2}");
    json!({
        "a": "p", "b": "c_REPLY_TOPIC", "c": "TBW102", "d": "4", "e": "0", "f": "0", "g": "1700000000000", "h": "0", "i": properties,
        "j": "0", "k": "false", "m": "false",
    })
}

/// The push that was given to a connection, and nothing else.
fn pushed(scene: &mut Scene, id: ConnectionId) -> Option<Answer> {
    let mut frames = scene.answers(id);
    assert!(frames.len() < 2, "{frames:?}");
    frames.pop()
}

fn remark(answer: &Answer) -> &str {
    answer.header["remark"].as_str().expect("a remark")
}

#[test]
fn a_reply_is_given_when_it_is_durable_and_answered_when_it_is_taken() {
    let mut scene = Scene::new();
    let asker = producer(&mut scene, "p@1");
    let replier = scene.connect();
    scene.give(replier, 325, &reply_to("p@1"), b"pong");
    assert!(scene.answers(asker).is_empty(), "it is not durable yet");
    scene.finish();
    let push = pushed(&mut scene, asker).expect("a push");
    assert_eq!((push.code(), push.header["flag"].as_i64(), &push.body[..]), (326, Some(0), &b"pong"[..]));
    for (name, value) in [
        ("producerGroup", "p"),
        ("topic", "c_REPLY_TOPIC"),
        ("defaultTopic", "TBW102"),
        ("defaultTopicQueueNums", "4"),
        ("queueId", "0"),
        ("sysFlag", "0"),
        ("bornTimestamp", "1700000000000"),
        ("flag", "0"),
        ("reconsumeTimes", "0"),
        ("unitMode", "false"),
        ("bornHost", "10.0.0.5:50000"),
        ("storeHost", "127.0.0.1:10911"),
    ] {
        assert_eq!(push.field(name), value, "{name}");
    }
    let now = scene.now_ms().to_string();
    assert_eq!(push.field("storeTimestamp"), now);
    assert!(push.field("properties").ends_with(&format!("UNIQ_KEY\u{1}K\u{2}PUSH_REPLY_TIME\u{1}{now}\u{2}")));
    assert!(scene.answers(replier).is_empty(), "nobody has taken it yet");
    scene.answer(asker, &push.header["opaque"], 0);
    let answer = scene.answers(replier).pop().expect("an answer");
    assert_eq!((answer.code(), answer.field("queueId"), answer.field("queueOffset")), (0, "0", "0"));
    assert_eq!(answer.field("msgId").len(), 32);
    // It is a message like any other.
    let stored = scene.read_all("c_REPLY_TOPIC", 0);
    assert_eq!((stored.len(), &stored[0].body[..]), (1, &b"pong"[..]));
    assert_eq!(scene.shared.counters.read().replies_pushed, 1);
    // The same answer again, and one that nobody asked for, mean nothing.
    scene.answer(asker, &push.header["opaque"], 0);
    scene.answer(asker, &json!(4711), 0);
    assert!(scene.answers(replier).is_empty());
}

#[test]
fn long_names_say_the_same() {
    let mut scene = Scene::new();
    let asker = producer(&mut scene, "p@1");
    let replier = scene.connect();
    let letters = reply_to("p@1");
    let long = json!({
        "producerGroup": "p", "topic": "c_REPLY_TOPIC", "defaultTopic": "TBW102", "defaultTopicQueueNums": "4", "queueId": "0",
        "sysFlag": "0", "bornTimestamp": "1", "flag": "3", "properties": letters["i"], "reconsumeTimes": "0", "unitMode": "false",
    });
    scene.give(replier, 324, &long, b"pong");
    scene.finish();
    let push = pushed(&mut scene, asker).expect("a push");
    assert_eq!((push.code(), push.field("bornTimestamp"), push.field("flag")), (326, "1", "3"));
}

#[test]
fn who_asked_is_known_from_the_question_also_before_its_first_heartbeat() {
    let mut scene = Scene::new();
    let asker = scene.connect();
    assert_eq!(scene.send(asker, "T1", 0, "REPLY_TO_CLIENT\u{1}p@9\u{2}CORRELATION_ID\u{1}1\u{2}", b"ping").code(), 0);
    // A consumer's copy of the question is not its own question.
    let replier = scene.connect();
    let copy = "REPLY_TO_CLIENT\u{1}p@9\u{2}RETRY_TOPIC\u{1}T1\u{2}";
    assert_eq!(scene.send(replier, "T2", 0, copy, b"ping").code(), 0);
    scene.give(replier, 325, &reply_to("p@9"), b"pong");
    scene.finish();
    assert_eq!(pushed(&mut scene, asker).expect("a push").code(), 326);
}

#[test]
fn a_replier_hears_at_once_when_nobody_is_there() {
    let mut scene = Scene::new();
    let replier = scene.connect();
    let answer = scene.ask(replier, 325, &reply_to("p@1"), b"pong");
    assert_eq!((answer.code(), remark(&answer)), (1, "push reply message fail, channel of <p@1> not found."));
    assert_eq!(answer.field("msgId").len(), 32, "it is stored all the same");
    assert_eq!(scene.count("c_REPLY_TOPIC", 0), 1);
    // One that does not say whom it is for is none.
    let mut nobody = reply_to("p@1");
    nobody["i"] = json!("MSG_TYPE\u{1}reply\u{2}");
    assert_eq!(scene.ask(replier, 325, &nobody, b"pong").code(), 1);
    assert_eq!(scene.ask(replier, 325, &reply_to("p@1"), b"").code(), 13);
    assert_eq!((scene.count("c_REPLY_TOPIC", 0), scene.shared.counters.read().replies_failed), (1, 1));
}

#[test]
fn a_replier_hears_when_the_one_who_asked_goes_refuses_or_says_nothing() {
    let mut scene = Scene::new();
    let replier = scene.connect();
    let give = |scene: &mut Scene, client: &str| {
        let asker = producer(scene, client);
        scene.give(replier, 325, &reply_to(client), b"pong");
        scene.finish();
        let push = pushed(scene, asker).expect("a push");
        assert!(scene.answers(replier).is_empty());
        (asker, push.header["opaque"].clone())
    };
    let (gone, _) = give(&mut scene, "gone");
    scene.worker.closed(gone);
    let answer = scene.answers(replier).pop().expect("at once");
    assert!(answer.code() == 1 && remark(&answer).contains("<gone> is gone"), "{}", answer.header);
    let (odd, opaque) = give(&mut scene, "odd");
    scene.answer(odd, &opaque, 1);
    let answer = scene.answers(replier).pop().expect("at once");
    assert!(answer.code() == 1 && remark(&answer).contains("code 1"), "{}", answer.header);
    let (_, _) = give(&mut scene, "silent");
    scene.pass(Duration::from_millis(2400));
    assert!(scene.answers(replier).is_empty());
    scene.pass(Duration::from_millis(200));
    let answer = scene.answers(replier).pop().expect("before the replier's own time-out");
    assert!(answer.code() == 1 && remark(&answer).contains("in time"), "{}", answer.header);
    assert!(scene.worker.is_settled());
}
