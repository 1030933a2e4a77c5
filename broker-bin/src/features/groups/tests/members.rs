//! Members: when they are gone, who differs, who is kept out, and what operators are told.

use std::time::Duration;

use serde_json::{Value, json};

use crate::net::ConnectionId;
use crate::scene::Scene;

fn beat(scene: &mut Scene, id: ConnectionId, client: &str, expression: &str) -> i64 {
    let subscription = json!({"topic": "T1", "subString": expression, "expressionType": "TAG", "subVersion": 1});
    let consumer = json!({
        "groupName": "g", "consumeType": "CONSUME_PASSIVELY", "messageModel": "CLUSTERING",
        "consumeFromWhere": "CONSUME_FROM_LAST_OFFSET", "subscriptionDataSet": [subscription],
    });
    let heartbeat = json!({"clientID": client, "consumerDataSet": [consumer], "producerDataSet": []}).to_string();
    scene.give(id, 34, &json!({}), heartbeat.as_bytes());
    scene.finish();
    let answers = scene.answers(id);
    let answer = answers.iter().find(|answer| answer.header["flag"] == 1).expect("an answer");
    answer.code()
}

fn join(scene: &mut Scene, client: &str, expression: &str) -> ConnectionId {
    let id = scene.connect();
    assert_eq!(beat(scene, id, client, expression), 0);
    id
}

fn told(scene: &mut Scene, code: i64, body: &Value) -> Value {
    let id = scene.connect();
    let answer = scene.ask(id, code, &json!({}), body.to_string().as_bytes());
    assert_eq!(answer.code(), 0, "{}", answer.header);
    serde_json::from_slice(&answer.body).expect("JSON")
}

fn notices(scene: &mut Scene, id: ConnectionId) -> usize {
    scene.answers(id).iter().filter(|frame| frame.code() == 40).count()
}

#[test]
fn a_member_that_is_silent_for_two_minutes_is_gone_and_the_others_are_told() {
    let mut scene = Scene::new();
    let (a, b) = (join(&mut scene, "a", "*"), join(&mut scene, "b", "*"));
    drop(scene.answers(a));
    for _ in 0..4 {
        scene.pass(Duration::from_secs(29));
        assert_eq!((beat(&mut scene, a, "a", "*"), notices(&mut scene, a)), (0, 0));
        // It asks for something, and does not say that it consumes.
        assert_eq!(scene.ask(b, 30, &json!({"topic": "T1", "queueId": 0}), &[]).code(), 0);
    }
    scene.pass(Duration::from_secs(5));
    assert_eq!(notices(&mut scene, a), 1);
    assert_eq!(scene.shared.state.groups.client_ids("g"), ["a".into()]);
    // It comes back as anybody else does.
    assert_eq!(beat(&mut scene, b, "b", "*"), 0);
    assert_eq!(notices(&mut scene, a), 1);
}

#[test]
fn a_member_whose_connection_closes_is_gone_at_once_with_its_queues() {
    let mut scene = Scene::new();
    let (a, b) = (join(&mut scene, "a", "*"), join(&mut scene, "b", "*"));
    assert_eq!(scene.send(b, "T1", 0, "", b"x").code(), 0);
    drop(scene.answers(a));
    let pull = json!({
        "consumerGroup": "g", "topic": "T1", "queueId": 0, "queueOffset": 0, "maxMsgNums": 32, "sysFlag": 0, "commitOffset": 0,
        "suspendTimeoutMillis": 0, "subVersion": 0,
    });
    assert_eq!(scene.ask(b, 11, &pull, &[]).code(), 0);
    assert_eq!(scene.shared.state.groups.owner("g", "T1", 0).as_deref(), Some("b"));
    scene.worker.closed(b);
    assert_eq!((notices(&mut scene, a), scene.shared.state.groups.owner("g", "T1", 0)), (1, None));
}

#[test]
fn k38_who_differs_is_in_the_counters_and_told_to_whoever_asks() {
    let mut scene = Scene::new();
    let a = join(&mut scene, "a", "A || B");
    assert_eq!(scene.send(a, "T1", 1, "", b"x").code(), 0);
    join(&mut scene, "b", "B || A");
    assert_eq!(scene.shared.counters.read().groups_differing, 0);
    let c = join(&mut scene, "c", "C");
    assert_eq!(beat(&mut scene, c, "c", "C"), 0);
    assert_eq!(scene.shared.counters.read().groups_differing, 1, "once, however often it is heard");
    let found = told(&mut scene, 30_100, &json!({"group": "g"}));
    assert_eq!(
        found["differences"],
        json!([{"topic": "T1", "variants": [
            {"type": "TAG", "expression": "A || B", "members": ["a", "b"]},
            {"type": "TAG", "expression": "C", "members": ["c"]},
        ]}])
    );
    assert_eq!(found["settings"], json!({"retryQueues": 1, "retryMax": 16, "mayConsume": true, "strict": false}));
    let member = &found["members"][0];
    assert_eq!(
        (&member["clientId"], &member["address"], &member["model"], &member["consumeFrom"]),
        (&json!("a"), &json!("10.0.0.5:50000"), &json!("CLUSTERING"), &json!("CONSUME_FROM_LAST_OFFSET"))
    );
    assert_eq!(found["members"][2]["subscriptions"], json!([{"topic": "T1", "type": "TAG", "expression": "C"}]));
    let queue =
        found["queues"].as_array().expect("a list").iter().find(|queue| queue["topic"] == "T1" && queue["queue"] == 1);
    let expected = json!({
        "topic": "T1", "queue": 1, "committed": 0, "min": 0, "max": 1, "behind": 1, "oldestMs": scene.now_ms(), "owner": null, "ownedBy": null,
    });
    assert_eq!(queue, Some(&expected));
    let id = scene.connect();
    assert_eq!(scene.ask(id, 30_100, &json!({}), br#"{"group":"nobody"}"#).code(), 22);
    assert_eq!(scene.ask(id, 30_100, &json!({}), b"odd").code(), 29);
    assert_eq!(scene.ask(id, 30_101, &json!({}), br#"{"group":"g"}"#).code(), 1);
}

#[test]
fn k38_a_group_that_is_set_to_strict_refuses_a_newcomer_that_differs_also_after_a_crash() {
    let mut scene = Scene::new();
    join(&mut scene, "a", "A");
    let found = told(&mut scene, 30_101, &json!({"group": "g", "strict": true}));
    assert_eq!(found["settings"]["strict"], true);
    let mut scene = scene.crash();
    let a = join(&mut scene, "a", "A");
    let b = scene.connect();
    assert_eq!(beat(&mut scene, b, "b", "B"), 1);
    let ids = |scene: &mut Scene| {
        let list = scene.ask(b, 38, &json!({"consumerGroup": "g"}), &[]);
        serde_json::from_slice::<Value>(&list.body).expect("JSON")["consumerIdList"].clone()
    };
    assert_eq!(ids(&mut scene), json!(["a"]), "it gets no queue");
    assert_eq!(scene.shared.counters.read().members_refused, 1);
    let refused = told(&mut scene, 30_100, &json!({"group": "g"}))["refused"].clone();
    assert_eq!((&refused[0]["clientId"], refused.as_array().map(Vec::len)), (&json!("b"), Some(1)));
    // One that agrees comes in, and the other one when it is alone.
    assert_eq!(beat(&mut scene, b, "b", "A"), 0);
    assert_eq!(beat(&mut scene, b, "b", "B"), 1);
    scene.worker.closed(a);
    drop(scene.answers(b));
    assert_eq!(beat(&mut scene, b, "b", "B"), 0);
    assert_eq!(told(&mut scene, 30_100, &json!({"group": "g"}))["refused"], json!([]));
    // One that is kept out is forgotten with its connection.
    let c = scene.connect();
    assert_eq!(beat(&mut scene, c, "c", "C"), 1);
    scene.worker.closed(c);
    assert_eq!(told(&mut scene, 30_100, &json!({"group": "g"}))["refused"], json!([]));
    told(&mut scene, 30_101, &json!({"group": "g", "strict": false}));
    join(&mut scene, "a", "A");
}
