//! Locks, from the request to the table entry, over a simulated disk and clock.

use std::time::Duration;

use serde_json::{Value, json};

use super::Lock;
use crate::features::offsets::OffsetKey;
use crate::net::ConnectionId;
use crate::scene::{Answer, Scene};
use crate::state::entries;

/// No queue at all.
const NONE: [u64; 0] = [];

fn body(client: &str, queues: &[u32]) -> Vec<u8> {
    let queues: Vec<_> =
        queues.iter().map(|queue| json!({"brokerName": "b", "queueId": queue, "topic": "T1"})).collect();
    json!({"clientId": client, "consumerGroup": "g", "mqSet": queues}).to_string().into_bytes()
}

/// Asks for locks; gives the numbers of the queues that the client has.
fn ask(scene: &mut Scene, id: ConnectionId, client: &str, queues: &[u32]) -> Vec<u64> {
    let answer = scene.ask(id, 41, &json!({}), &body(client, queues));
    assert_eq!(answer.code(), 0, "{}", answer.header);
    locked(&answer)
}

fn locked(answer: &Answer) -> Vec<u64> {
    let value: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let queues = value["lockOKMQSet"].as_array().expect("a list");
    queues.iter().map(|queue| queue["queueId"].as_u64().expect("a number")).collect()
}

fn join(scene: &mut Scene, client: &str) -> ConnectionId {
    let id = scene.connect();
    beat(scene, id, client);
    id
}

fn beat(scene: &mut Scene, id: ConnectionId, client: &str) {
    let subscription = json!({"topic": "T1", "subString": "*", "expressionType": "TAG", "subVersion": 1});
    let consumer = json!({
        "groupName": "g", "consumeType": "CONSUME_PASSIVELY", "messageModel": "CLUSTERING",
        "consumeFromWhere": "CONSUME_FROM_LAST_OFFSET", "subscriptionDataSet": [subscription],
    });
    let heartbeat = json!({"clientID": client, "consumerDataSet": [consumer], "producerDataSet": []});
    scene.give(id, 34, &json!({}), heartbeat.to_string().as_bytes());
    scene.finish();
    drop(scene.answers(id));
}

/// A topic, and two members of a group.
fn scene() -> (Scene, ConnectionId, ConnectionId) {
    let mut scene = Scene::new();
    let id = scene.connect();
    assert_eq!(scene.send(id, "T1", 0, "", b"x").code(), 0);
    let a = join(&mut scene, "a");
    let b = join(&mut scene, "b");
    drop(scene.answers(a));
    (scene, a, b)
}

/// What the table says of a queue.
fn entry(scene: &Scene, queue: u32) -> Option<Lock> {
    let key = OffsetKey { group: "g".into(), topic: "T1".into(), queue };
    let key = entries::lock::encode_key(&key);
    let found = scene.shared.engine.get(&key).expect("readable")?;
    Some(entries::lock::decode(&key, &found.value).expect("a lock").1)
}

fn write_the_rest(scene: &mut Scene) {
    scene.shared.state.flush_all(&scene.shared.engine).expect("room");
    scene.settle();
}

#[test]
fn the_answer_names_what_the_client_has_and_others_do_not_get_it() {
    let (mut scene, a, b) = scene();
    assert_eq!(ask(&mut scene, a, "a", &[0, 1]), [0, 1]);
    assert_eq!(ask(&mut scene, b, "b", &[0, 1, 2]), [2]);
    assert_eq!(ask(&mut scene, a, "a", &[2, 1, 9, 1]), [1], "the topic has four queues");
    assert_eq!(scene.ask(b, 42, &json!({}), &body("b", &[0, 2])).code(), 0);
    assert_eq!(ask(&mut scene, a, "a", &[0, 2]), [0, 2], "one's own can be given back, and nothing else");
    assert_eq!(scene.shared.counters.read().queues_locked, 4);
    for (request, remark) in [(&b"{}"[..], "clientId"), (b"", "JSON"), (br#"{"clientId":"a"}"#, "consumerGroup")] {
        let refused = scene.ask(a, 41, &json!({}), request);
        let said = refused.header["remark"].as_str().expect("a remark").to_owned();
        assert!(refused.code() == 1 && said.contains(remark), "{said}");
    }
    let odd = json!({"clientId": "a\0", "consumerGroup": "g", "mqSet": []}).to_string();
    assert_eq!(scene.ask(a, 41, &json!({}), odd.as_bytes()).code(), 1);
}

/// K-70.
#[test]
fn no_lock_is_answered_that_a_crash_could_take_back() {
    let (mut scene, a, _) = scene();
    scene.give(a, 41, &json!({}), &body("a", &[0]));
    assert!(scene.answers(a).is_empty(), "it is not durable yet");
    // The same question again must not get ahead of the first.
    scene.give(a, 41, &json!({}), &body("a", &[0]));
    assert!(scene.answers(a).is_empty());
    scene.finish();
    let answers = scene.answers(a);
    assert_eq!(answers.iter().map(locked).collect::<Vec<_>>(), [[0], [0]]);
    let mut scene = scene.crash();
    let b = join(&mut scene, "b");
    assert_eq!(ask(&mut scene, b, "b", &[0]), NONE);
}

/// K-70.
#[test]
fn an_owner_keeps_its_queues_across_a_crash_for_as_long_as_it_may_count_on_them() {
    let (mut scene, a, _) = scene();
    assert_eq!(ask(&mut scene, a, "a", &[0, 1]), [0, 1]);
    let first = entry(&scene, 0).expect("a lock");
    // The last renewal is in memory only, and the broker is away for long.
    scene.pass(Duration::from_secs(50));
    assert_eq!(ask(&mut scene, a, "a", &[0, 1]), [0, 1]);
    scene.clock.advance(Duration::from_secs(500));
    let mut scene = scene.crash();
    let (a, b) = (join(&mut scene, "a"), join(&mut scene, "b"));
    assert_eq!(ask(&mut scene, b, "b", &[0, 1]), NONE);
    scene.pass(Duration::from_secs(59));
    assert_eq!(ask(&mut scene, a, "a", &[0]), [0]);
    assert_eq!(ask(&mut scene, b, "b", &[0, 1]), NONE);
    assert_eq!(entry(&scene, 0), Some(first.clone()), "the owner has not changed");
    scene.pass(Duration::from_secs(1));
    assert_eq!(ask(&mut scene, b, "b", &[0, 1]), [1], "60 s after the opening the other one is free");
    let second = entry(&scene, 1).expect("a lock");
    assert!(&*second.client_id == "b" && second.token > first.token, "{second:?} after {first:?}");
}

#[test]
fn asking_again_and_asking_in_vain_write_nothing() {
    let (mut scene, a, b) = scene();
    assert_eq!(ask(&mut scene, a, "a", &[0, 1, 2, 3]), [0, 1, 2, 3]);
    // The engine has notes of its own to write when time passes.
    scene.pass(Duration::from_secs(1));
    scene.settle();
    let before = scene.shared.engine.watermarks().assigned;
    for _ in 0..3 {
        scene.pass(Duration::from_secs(15));
        assert_eq!(ask(&mut scene, a, "a", &[0, 1, 2, 3]).len(), 4);
        assert_eq!(ask(&mut scene, b, "b", &[0, 1]), NONE);
        write_the_rest(&mut scene);
    }
    assert_eq!(scene.shared.engine.watermarks().assigned, before);
}

/// A broken connection is no death: its client goes on with what it has in hand.
#[test]
fn k70_a_cut_takes_no_queue_from_an_owner_that_counts_on_it_and_others_hear_when_it_is_free() {
    let (mut scene, a, b) = scene();
    assert_eq!(ask(&mut scene, a, "a", &[0, 1]), [0, 1]);
    let first = entry(&scene, 0).expect("a lock");
    scene.pass(Duration::from_secs(15));
    assert_eq!(ask(&mut scene, a, "a", &[0, 1, 2]), [0, 1, 2]);
    scene.pass(Duration::from_secs(5));
    scene.worker.closed(a);
    assert_eq!(scene.answers(b).iter().map(Answer::code).collect::<Vec<_>>(), [40], "it is no member any more");
    assert_eq!(ask(&mut scene, b, "b", &[0, 1, 2]), NONE);
    // It was at work on a message, and its word counts by another connection too.
    let back = scene.connect();
    let commit = json!({"consumerGroup": "g", "topic": "T1", "queueId": 0, "commitOffset": 1});
    scene.give_oneway(back, 15, &commit);
    let key = OffsetKey { group: "g".into(), topic: "T1".into(), queue: 0 };
    assert_eq!(scene.shared.state.offsets.get(&key), Some(1));
    // One of the queues it asks for again.
    assert_eq!(ask(&mut scene, back, "a", &[1]), [1]);
    let now = |scene: &Scene| scene.shared.engine.clock().monotonic();
    scene.pass(Duration::from_secs(27));
    assert!(scene.shared.state.expire_locks(now(&scene)).is_empty());
    assert_eq!(ask(&mut scene, b, "b", &[0, 1, 2]), NONE, "32 s");
    scene.pass(Duration::from_secs(1));
    assert!(scene.shared.state.expire_locks(now(&scene)).into_iter().eq(["g".into()]));
    assert_eq!(ask(&mut scene, b, "b", &[0, 1]), [0], "33 s");
    let second = entry(&scene, 0).expect("a lock");
    assert!(&*second.client_id == "b" && second.token > first.token);
    write_the_rest(&mut scene);
    assert_eq!(entry(&scene, 2), None, "what nobody took stands for nobody");
    scene.pass(Duration::from_secs(31));
    assert_eq!(ask(&mut scene, b, "b", &[0, 1]), [0], "59 s after it was asked for by another connection");
}

#[test]
fn k70_others_take_over_at_once_when_the_owner_says_farewell() {
    let (mut scene, _, b) = scene();
    assert_eq!(ask(&mut scene, b, "b", &[0, 1]), [0, 1]);
    let leaving = json!({"clientID": "b", "producerGroup": "", "consumerGroup": "g"});
    assert_eq!(scene.ask(b, 35, &leaving, &[]).code(), 0);
    let c = join(&mut scene, "c");
    assert_eq!(ask(&mut scene, c, "c", &[0, 1]), [0, 1]);
}

#[test]
fn a_client_that_came_back_by_another_connection_keeps_its_queues_when_the_old_one_closes() {
    let (mut scene, old, b) = scene();
    assert_eq!(ask(&mut scene, old, "a", &[0]), [0]);
    let new = join(&mut scene, "a");
    scene.worker.closed(old);
    drop(scene.answers(b));
    assert_eq!(ask(&mut scene, b, "b", &[0]), NONE);
    drop(scene.answers(new));
    assert_eq!(ask(&mut scene, new, "a", &[0]), [0]);
    // A question by the newest connection counts, also when its heartbeat is still to come.
    let newest = scene.connect();
    assert_eq!(ask(&mut scene, newest, "a", &[0]), [0]);
    scene.worker.closed(new);
    drop(scene.answers(b));
    assert_eq!(ask(&mut scene, b, "b", &[0]), NONE);
}

#[test]
fn k70_a_broker_that_stops_takes_no_lock_from_anybody() {
    let (mut scene, a, _) = scene();
    assert_eq!(ask(&mut scene, a, "a", &[0]), [0]);
    scene.shared.closing.store(true, std::sync::atomic::Ordering::SeqCst);
    scene.worker.closed(a);
    write_the_rest(&mut scene);
    let mut scene = scene.crash();
    let b = join(&mut scene, "b");
    assert_eq!(ask(&mut scene, b, "b", &[0]), NONE);
}

#[test]
fn a_lock_that_nobody_asks_for_is_removed_from_the_table() {
    let (mut scene, a, b) = scene();
    assert_eq!(ask(&mut scene, a, "a", &[0]), [0]);
    assert_eq!(ask(&mut scene, b, "b", &[1]), [1]);
    scene.pass(Duration::from_secs(30));
    assert_eq!(ask(&mut scene, b, "b", &[1]), [1]);
    scene.pass(Duration::from_secs(30));
    let expired = scene.shared.state.expire_locks(scene.shared.engine.clock().monotonic());
    assert!(expired.into_iter().eq(["g".into()]));
    write_the_rest(&mut scene);
    assert_eq!((entry(&scene, 0), scene.entries(entries::lock::PREFIX).len()), (None, 1));
}

/// K-69: its heartbeat comes every 30 s, its questions every 20.
#[test]
fn an_owner_that_came_back_and_asked_for_its_queue_commits_before_its_heartbeat() {
    let (mut scene, a, b) = scene();
    let commit = |offset: u64| json!({"consumerGroup": "g", "topic": "T1", "queueId": 0, "commitOffset": offset});
    let committed =
        |scene: &Scene| scene.shared.state.offsets.get(&OffsetKey { group: "g".into(), topic: "T1".into(), queue: 0 });
    assert_eq!(ask(&mut scene, a, "a", &[0]), [0]);
    let new = scene.connect();
    scene.give_oneway(new, 15, &commit(3));
    assert_ne!(committed(&scene), Some(3), "who it is nobody knows, and a member has the queue");
    assert_eq!(ask(&mut scene, new, "a", &[0]), [0]);
    scene.give_oneway(new, 15, &commit(4));
    assert_eq!(committed(&scene), Some(4));
    assert_eq!(scene.ask(b, 15, &commit(1), &[]).code(), 1);
}

/// K-69.
#[test]
fn a_member_moves_no_offset_of_a_queue_that_is_locked_for_another() {
    let (mut scene, a, b) = scene();
    let commit = |queue: u32, offset: u64| json!({"consumerGroup": "g", "topic": "T1", "queueId": queue, "commitOffset": offset});
    let committed = |scene: &Scene, queue: u32| {
        scene.shared.state.offsets.get(&OffsetKey { group: "g".into(), topic: "T1".into(), queue })
    };
    assert_eq!(ask(&mut scene, a, "a", &[0]), [0]);
    assert_eq!(scene.ask(a, 15, &commit(0, 5), &[]).code(), 0);
    let refused = scene.ask(b, 15, &commit(0, 1), &[]);
    assert!(refused.code() == 1 && refused.header["remark"].as_str().expect("a remark").contains("locked"));
    let pull = json!({
        "consumerGroup": "g", "topic": "T1", "queueId": 0, "queueOffset": 0, "maxMsgNums": 32, "sysFlag": 1,
        "commitOffset": 2, "suspendTimeoutMillis": 0, "subVersion": 0,
    });
    assert_eq!(scene.ask(b, 11, &pull, &[]).code(), 0, "it may read");
    assert_eq!((committed(&scene, 0), scene.shared.counters.read().commits_refused), (Some(5), 2));
    // Queues without a lock are anybody's, and so is every queue for who is no member.
    assert_eq!(scene.ask(b, 15, &commit(1, 3), &[]).code(), 0);
    let tool = scene.connect();
    assert_eq!(scene.ask(tool, 15, &commit(0, 4), &[]).code(), 0);
    assert_eq!((committed(&scene, 1), committed(&scene, 0)), (Some(3), Some(4)));
    // The owner has its say by a pull too, and the next owner after it.
    assert_eq!(scene.ask(a, 11, &pull, &[]).code(), 0);
    assert_eq!(committed(&scene, 0), Some(2));
    // Too old a lock keeps nobody out who has taken the queue over.
    scene.pass(Duration::from_secs(60));
    let mut taking = pull.clone();
    taking["sysFlag"] = json!(0);
    assert_eq!(scene.ask(b, 11, &taking, &[]).code(), 0);
    assert_eq!(scene.ask(b, 15, &commit(0, 6), &[]).code(), 0);
    assert_eq!((committed(&scene, 0), scene.shared.counters.read().commits_refused), (Some(6), 2));
}
