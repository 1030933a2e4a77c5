//! Messages chosen by their properties, over a simulated disk and clock.

use serde_json::{Value, json};

use crate::limits;
use crate::net::ConnectionId;
use crate::scene::{Answer, Scene};
use crate::wire::message::records;

fn pull(offset: u64, kind: &str, expression: &str) -> Value {
    json!({
        "consumerGroup": "g", "topic": "T1", "queueId": 0, "queueOffset": offset, "maxMsgNums": 32, "sysFlag": 4, "commitOffset": 0,
        "suspendTimeoutMillis": 0, "subVersion": 0, "subscription": expression, "expressionType": kind,
    })
}

fn bodies(answer: &Answer) -> Vec<String> {
    let all = records(&answer.body).map(|record| record.expect("a record").body.to_vec());
    all.map(|body| String::from_utf8(body).expect("text")).collect()
}

/// Messages with a number and a color; the fourth one's number is none.
fn scene() -> (Scene, ConnectionId) {
    let mut scene = Scene::new();
    let id = scene.connect();
    for number in 0..8 {
        let shown = if number == 3 { "three".to_owned() } else { number.to_string() };
        let color = if number % 2 == 0 { "red" } else { "blue" };
        let properties = format!("n\u{1}{shown}\u{2}color\u{1}{color}\u{2}TAGS\u{1}T\u{2}");
        assert_eq!(scene.send(id, "T1", 0, &properties, shown.as_bytes()).code(), 0);
    }
    (scene, id)
}

#[test]
fn an_expression_chooses_messages_by_their_properties() {
    let (mut scene, id) = scene();
    for (expression, wanted) in [
        ("n >= 5 OR color = 'red'", &["0", "2", "4", "5", "6", "7"][..]),
        ("color = 'red' OR n >= 5", &["0", "2", "4", "5", "6", "7"]),
        ("color IN ('blue') AND n IS NOT NULL", &["1", "three", "5", "7"]),
        // What the broker adds for readers can be asked for too.
        ("TAGS = 'T' AND CLUSTER = 'c' AND MSG_REGION IS NOT NULL AND n BETWEEN 1 AND 2", &["1", "2"]),
    ] {
        let answer = scene.ask(id, 11, &pull(0, "SQL92", expression), &[]);
        assert_eq!((answer.code(), answer.field("nextBeginOffset")), (0, "8"), "{expression}");
        assert_eq!(bodies(&answer), wanted, "{expression}");
    }
    let none = scene.ask(id, 11, &pull(0, "SQL92", "missing = 'x'"), &[]);
    assert_eq!((none.code(), none.field("nextBeginOffset")), (20, "8"));
}

#[test]
fn k37_a_message_that_an_expression_cannot_be_applied_to_is_passed_over_and_counted() {
    let (mut scene, id) = scene();
    let answer = scene.ask(id, 11, &pull(0, "SQL92", "n > 1"), &[]);
    assert_eq!(bodies(&answer), ["2", "4", "5", "6", "7"]);
    assert_eq!(scene.shared.counters.read().filters_failed, 1);
    // Unknown is no failure.
    assert_eq!(scene.ask(id, 11, &pull(0, "SQL92", "missing > 1"), &[]).code(), 20);
    assert_eq!(scene.shared.counters.read().filters_failed, 1);
}

#[test]
fn k37_an_expression_that_cannot_be_read_is_refused_wherever_it_is_subscribed() {
    let (mut scene, id) = scene();
    for (kind, expression, said) in [
        ("SQL92", "n > ", "byte 4"),
        ("SQL92", "color LIKE 'r%'", "byte 6"),
        ("XPATH", "n", "TAG and SQL92"),
        ("TAG", "||", "no tag"),
    ] {
        let refused = scene.ask(id, 11, &pull(0, kind, expression), &[]);
        let remark = refused.header["remark"].as_str().expect("a remark").to_owned();
        assert!(refused.code() == 23 && remark.contains(said), "{remark}");
        if kind == "TAG" {
            continue;
        }
        let data = json!({"topic": "T1", "subString": expression, "expressionType": kind, "subVersion": 1});
        let check = json!({"clientId": "c", "group": "g", "subscriptionData": data}).to_string();
        assert_eq!(scene.ask(id, 46, &json!({}), check.as_bytes()).code(), 23);
        // A client that does not check hears it with every pull.
        let consumer = json!({"groupName": "g", "messageModel": "CLUSTERING", "subscriptionDataSet": [data]});
        let heartbeat = json!({"clientID": "c", "consumerDataSet": [consumer]}).to_string();
        scene.give(id, 34, &json!({}), heartbeat.as_bytes());
        scene.finish();
        drop(scene.answers(id));
        let mut by_heartbeat = pull(0, "TAG", "");
        by_heartbeat["sysFlag"] = json!(0);
        let refused = scene.ask(id, 11, &by_heartbeat, &[]);
        assert!(
            refused.code() == 27 && refused.header["remark"].as_str().expect("a remark").contains(said),
            "{}",
            refused.header
        );
    }
}

#[test]
fn a_subscription_by_properties_counts_for_pulls_that_name_none() {
    let (mut scene, id) = scene();
    let data = json!({"topic": "T1", "subString": "color = 'blue'", "expressionType": "SQL92", "subVersion": 1});
    let consumer = json!({"groupName": "g", "messageModel": "CLUSTERING", "subscriptionDataSet": [data]});
    let heartbeat = json!({"clientID": "c", "consumerDataSet": [consumer]}).to_string();
    scene.give(id, 34, &json!({}), heartbeat.as_bytes());
    scene.finish();
    drop(scene.answers(id));
    // As Go does: the kind it names is not the one it subscribed.
    let mut by_heartbeat = pull(0, "TAG", "");
    by_heartbeat["sysFlag"] = json!(0);
    assert_eq!(bodies(&scene.ask(id, 11, &by_heartbeat, &[])), ["1", "three", "5", "7"]);
}

#[test]
fn one_pull_looks_at_so_many_messages_and_the_next_goes_on_behind_them() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let count = limits::SQL_MESSAGES_MAX + 40;
    for number in 0..count {
        let wanted = if number + 1 == count { "yes" } else { "no" };
        assert_eq!(scene.send(id, "T1", 0, &format!("wanted\u{1}{wanted}\u{2}"), b"x").code(), 0);
    }
    let (mut offset, mut pulls) = (0, 0);
    loop {
        let answer = scene.ask(id, 11, &pull(offset, "SQL92", "wanted = 'yes'"), &[]);
        pulls += 1;
        let next: u64 = answer.field("nextBeginOffset").parse().expect("a number");
        assert!(next > offset && next - offset < limits::SQL_MESSAGES_MAX as u64 + limits::PULL_MESSAGES as u64);
        if answer.code() == 0 {
            assert_eq!((next, bodies(&answer).len()), (count as u64, 1));
            break;
        }
        assert_eq!(answer.code(), 20);
        offset = next;
    }
    assert_eq!(pulls, 2);
    // What is found fills an answer of the usual size.
    let answer = scene.ask(id, 11, &pull(0, "SQL92", "wanted = 'no'"), &[]);
    assert_eq!((bodies(&answer).len(), answer.field("nextBeginOffset")), (32, "32"));
}

#[test]
fn a_pull_that_waits_is_not_woken_by_what_it_does_not_want() {
    let (mut scene, id) = scene();
    let waiter = scene.connect();
    let mut waiting = pull(8, "SQL92", "color = 'green'");
    (waiting["sysFlag"], waiting["suspendTimeoutMillis"]) = (json!(6), json!(15_000));
    scene.give(waiter, 11, &waiting, &[]);
    scene.finish();
    assert_eq!(scene.worker.held_count(), 1);
    for color in ["red", "green"] {
        assert!(scene.answers(waiter).is_empty());
        assert_eq!(scene.send(id, "T1", 0, &format!("color\u{1}{color}\u{2}"), color.as_bytes()).code(), 0);
        scene.worker.watched();
    }
    let answer = scene.answers(waiter).pop().expect("an answer");
    assert_eq!((bodies(&answer), answer.field("nextBeginOffset")), (vec!["green".to_owned()], "10"));
}
