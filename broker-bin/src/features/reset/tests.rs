//! Resets, from an operator's request to where the group goes on, over a simulated disk and clock.

use std::time::Duration;

use serde_json::{Value, json};

use crate::net::ConnectionId;
use crate::scene::{Answer, Scene};

/// Five messages a second apart in one queue, all of them consumed. Says when the first was stored.
fn scene() -> (Scene, ConnectionId, u64) {
    let mut scene = Scene::new();
    let id = scene.connect();
    let first_ms = scene.now_ms();
    for n in 0..5u8 {
        assert_eq!(scene.send(id, "T1", 0, "", &[n]).code(), 0);
        scene.clock.advance(Duration::from_secs(1));
    }
    scene.shared.state.put_group("g", crate::features::groups::GroupConfig::default());
    commit(&mut scene, id, 5);
    (scene, id, first_ms)
}

fn commit(scene: &mut Scene, id: ConnectionId, offset: u64) {
    let fields = json!({"consumerGroup": "g", "topic": "T1", "queueId": "0", "commitOffset": offset.to_string()});
    assert_eq!(scene.ask(id, 15, &fields, &[]).code(), 0);
}

fn committed(scene: &mut Scene, id: ConnectionId) -> u64 {
    let fields = json!({"consumerGroup": "g", "topic": "T1", "queueId": "0"});
    scene.ask(id, 14, &fields, &[]).field("offset").parse().expect("a number")
}

fn reset(scene: &mut Scene, id: ConnectionId, timestamp: i64, more: &Value) -> Answer {
    let mut fields = json!({"group": "g", "topic": "T1", "timestamp": timestamp.to_string(), "isForce": "true", "queueId": "-1", "offset": "-1"});
    for (name, value) in more.as_object().expect("fields") {
        fields[name] = value.clone();
    }
    scene.ask(id, 222, &fields, &[])
}

fn pull(scene: &mut Scene, id: ConnectionId, offset: u64, hold: bool) {
    let fields = json!({
        "consumerGroup": "g", "topic": "T1", "queueId": "0", "queueOffset": offset.to_string(), "maxMsgNums": "32",
        "sysFlag": if hold { "7" } else { "5" }, "commitOffset": offset.to_string(), "suspendTimeoutMillis": "15000",
        "subscription": "*", "subVersion": "0",
    });
    scene.give(id, 11, &fields, &[]);
}

#[test]
fn a_group_that_is_not_there_goes_on_where_it_was_sent() {
    let (mut scene, id, first_ms) = scene();
    let time = i64::try_from(first_ms).expect("small") + 1500;
    let answer = reset(&mut scene, id, time, &json!({}));
    let rows: Vec<_> = ["2", "0", "0", "0"]
        .iter()
        .zip(0..)
        .map(|(offset, queue)| format!(r#"{{"brokerName":"b","queueId":{queue},"topic":"T1"}}:{offset}"#))
        .collect();
    assert_eq!(String::from_utf8_lossy(&answer.body), format!(r#"{{"offsetTable":{{{}}}}}"#, rows.join(",")));
    assert_eq!(committed(&mut scene, id), 2);
    let mut scene = scene.crash();
    let id = scene.connect();
    assert_eq!(committed(&mut scene, id), 2, "what was answered is durable");
    assert_eq!(reset(&mut scene, id, -1, &json!({})).code(), 0);
    assert_eq!(committed(&mut scene, id), 5, "the end");
    reset(&mut scene, id, 0, &json!({"queueId": "0", "offset": "99"}));
    assert_eq!(committed(&mut scene, id), 5, "no further than the end");
    reset(&mut scene, id, 0, &json!({"queueId": "0", "offset": "3"}));
    assert_eq!(committed(&mut scene, id), 3);
    reset(&mut scene, id, -1, &json!({"isForce": "false"}));
    assert_eq!(committed(&mut scene, id), 3, "forward only by force");
    reset(&mut scene, id, 0, &json!({"isForce": "false"}));
    assert_eq!(committed(&mut scene, id), 0);
}

#[test]
fn a_reset_of_what_is_not_there_is_refused() {
    let (mut scene, id, _) = scene();
    assert_eq!(reset(&mut scene, id, 0, &json!({"topic": "none"})).code(), 17);
    assert_eq!(reset(&mut scene, id, 0, &json!({"group": "none"})).code(), 26);
    assert_eq!(reset(&mut scene, id, 0, &json!({"queueId": "7", "offset": "1"})).code(), 29);
    assert_eq!(scene.ask(id, 222, &json!({"group": "g", "topic": "T1"}), &[]).code(), 1);
    assert_eq!(committed(&mut scene, id), 5);
}

#[test]
fn a_running_consumer_is_moved_at_once_and_cannot_undo_it() {
    let (mut scene, id, _) = scene();
    let consumer = scene.connect();
    scene.beat(consumer, "client-1", "g", "T1");
    pull(&mut scene, consumer, 5, true);
    assert_eq!(scene.worker.held_count(), 1);
    assert_eq!(reset(&mut scene, id, 0, &json!({})).code(), 0);
    // What it has done meanwhile comes too late: oneway, awaited, and with the next pull.
    commit(&mut scene, consumer, 5);
    assert_eq!(committed(&mut scene, id), 0);
    scene.worker.tick();
    let ended = scene.answers(consumer).pop().expect("the pull that was held");
    assert_eq!(ended.code(), 19, "it comes again");
    pull(&mut scene, consumer, 5, true);
    let moved = scene.answers(consumer).pop().expect("no hold");
    assert_eq!((moved.code(), moved.field("nextBeginOffset")), (21, "0"));
    assert_eq!(committed(&mut scene, id), 0);
    pull(&mut scene, consumer, 0, false);
    assert_eq!(scene.answers(consumer).pop().expect("messages").code(), 0);
    commit(&mut scene, consumer, 2);
    assert_eq!(committed(&mut scene, id), 2, "from now on it counts again");
}

#[test]
fn a_consumer_that_was_started_since_knows_already() {
    let (mut scene, id, _) = scene();
    let consumer = scene.connect();
    scene.beat(consumer, "client-1", "g", "T1");
    reset(&mut scene, id, 0, &json!({"queueId": "0", "offset": "1"}));
    scene.worker.closed(consumer);
    let consumer = scene.connect();
    scene.beat(consumer, "client-2", "g", "T1");
    assert_eq!(committed(&mut scene, consumer), 1);
    pull(&mut scene, consumer, 1, false);
    let read = scene.answers(consumer).pop().expect("messages");
    assert_eq!((read.code(), read.field("nextBeginOffset")), (0, "5"));
    // And a tool that commits for a group that has left is heard.
    reset(&mut scene, id, 0, &json!({"queueId": "0", "offset": "4"}));
    scene.worker.closed(consumer);
    commit(&mut scene, id, 2);
    assert_eq!(committed(&mut scene, id), 2);
}

#[test]
fn offsets_are_cloned_to_a_group_that_exists_and_rests() {
    let (mut scene, id, _) = scene();
    let fields = json!({"srcGroup": "g", "destGroup": "h", "topic": "T1"});
    assert_eq!(scene.ask(id, 314, &fields, &[]).code(), 26);
    scene.shared.state.put_group("h", crate::features::groups::GroupConfig::default());
    let consumer = scene.connect();
    scene.beat(consumer, "client-1", "h", "T1");
    assert_eq!(scene.ask(id, 314, &fields, &[]).code(), 1, "its members would go on from where they are");
    scene.worker.closed(consumer);
    assert_eq!(scene.ask(id, 314, &fields, &[]).code(), 0);
    let of_h = json!({"consumerGroup": "h", "topic": "T1", "queueId": "0"});
    assert_eq!(scene.ask(id, 14, &of_h, &[]).field("offset"), "5");
}
