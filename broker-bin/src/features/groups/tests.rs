//! Groups as operators see and set them, over a simulated disk and clock.

mod members;

use serde_json::{Value, json};

use super::{GroupConfig, GroupRules};
use crate::net::ConnectionId;
use crate::scene::{Answer, Scene};

fn set(scene: &mut Scene, id: ConnectionId, settings: &Value) -> Answer {
    scene.ask(id, 200, &json!({}), settings.to_string().as_bytes())
}

fn shown(scene: &mut Scene, id: ConnectionId, group: &str) -> Value {
    serde_json::from_slice(&scene.ask(id, 352, &json!({"group": group}), &[]).body).expect("JSON")
}

#[test]
fn what_a_tool_sets_is_what_is_shown_also_after_a_crash() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let settings = json!({
        "groupName": "g", "consumeBroadcastEnable": false, "consumeFromMinEnable": false, "retryMaxTimes": 3, "retryQueueNums": 2,
    });
    assert_eq!(set(&mut scene, id, &settings).code(), 0);
    let mut scene = scene.crash();
    let id = scene.connect();
    let shown_now = shown(&mut scene, id, "g");
    for (name, value) in settings.as_object().expect("an object") {
        assert_eq!(&shown_now[name], value, "{name}");
    }
    let rules = GroupRules { may_broadcast: false, from_min: false, ..GroupRules::USUAL };
    assert_eq!(
        scene.shared.state.groups.config("g"),
        Some(GroupConfig { retry_queues: 2, retry_max: 3, may_consume: true, rules })
    );
    let all: Value = serde_json::from_slice(&scene.ask(id, 201, &json!({}), &[]).body).expect("JSON");
    assert_eq!(all["subscriptionGroupTable"]["g"], shown_now);
    let list = json!({"groupConfigList": [{"groupName": "h"}, {"groupName": "i", "consumeEnable": false}]});
    assert_eq!(scene.ask(id, 225, &json!({}), list.to_string().as_bytes()).code(), 0);
    assert_eq!(shown(&mut scene, id, "i")["consumeEnable"], false);
}

/// K-76: what is sent back always has somewhere to go.
#[test]
fn k76_a_group_without_a_retry_queue_is_refused() {
    let mut scene = Scene::new();
    let id = scene.connect();
    for odd in [
        json!({"groupName": "g", "retryQueueNums": 0}),
        json!({"groupName": "g", "retryQueueNums": -1}),
        json!({"groupName": "g", "retryMaxTimes": -1}),
        json!({"groupName": "a b"}),
        json!({"groupName": "g".repeat(300)}),
    ] {
        assert_eq!(set(&mut scene, id, &odd).code(), 29, "{odd}");
    }
    assert_eq!(set(&mut scene, id, &json!({})).code(), 1);
    assert!(scene.shared.state.groups.config("g").is_none());
}

#[test]
fn a_deleted_group_leaves_its_offsets_or_takes_them_along() {
    let mut scene = Scene::new();
    let id = scene.connect();
    scene.send(id, "T1", 0, "", b"x");
    for clean in ["false", "true"] {
        let commit = json!({"consumerGroup": "g", "topic": "T1", "queueId": "0", "commitOffset": "1"});
        assert_eq!(scene.ask(id, 15, &commit, &[]).code(), 0);
        assert_eq!(scene.ask(id, 207, &json!({"groupName": "g", "cleanOffset": clean}), &[]).code(), 0);
        assert!(scene.shared.state.groups.config("g").is_none() && scene.entries(b"group/g").is_empty());
        assert_eq!(scene.entries(b"offset/").len(), usize::from(clean == "false"));
    }
    let mut scene = scene.crash();
    let id = scene.connect();
    assert!(scene.shared.state.groups.config("g").is_none());
    assert_eq!(scene.ask(id, 207, &json!({"groupName": "g"}), &[]).code(), 0, "also when it is gone");
}

#[test]
fn a_group_that_may_not_broadcast_is_told_so() {
    let mut scene = Scene::new();
    let (id, member) = (scene.connect(), scene.connect());
    scene.send(id, "T1", 0, "", b"x");
    set(&mut scene, id, &json!({"groupName": "g", "consumeBroadcastEnable": false}));
    let consumer = json!({"groupName": "g", "messageModel": "BROADCASTING", "subscriptionDataSet": [{"topic": "T1"}]});
    let body = json!({"clientID": "c", "consumerDataSet": [consumer]}).to_string();
    scene.give(member, 34, &json!({}), body.as_bytes());
    drop(scene.answers(member));
    let pull = json!({
        "consumerGroup": "g", "topic": "T1", "queueId": "0", "queueOffset": "0", "maxMsgNums": "1", "sysFlag": "4",
        "commitOffset": "0", "suspendTimeoutMillis": "0", "subscription": "*", "subVersion": "0",
    });
    assert_eq!(scene.ask(member, 11, &pull, &[]).code(), 16);
    set(&mut scene, id, &json!({"groupName": "g", "consumeBroadcastEnable": true}));
    assert_eq!(scene.ask(member, 11, &pull, &[]).code(), 0);
}
