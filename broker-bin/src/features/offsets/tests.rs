//! Where groups begin, whose commits count, and what of them is written, over a simulated disk and clock.

use std::time::Duration;

use serde_json::{Value, json};

use super::OffsetKey;
use crate::net::ConnectionId;
use crate::scene::Scene;
use crate::state::entries;

fn key(topic: &str, queue: u32) -> OffsetKey {
    OffsetKey { group: "g".into(), topic: topic.into(), queue }
}

fn committed(scene: &Scene, queue: u32) -> Option<u64> {
    scene.shared.state.offsets.get(&key("T1", queue))
}

/// What the table says.
fn entry(scene: &Scene, topic: &str, queue: u32) -> Option<u64> {
    let (name, _) = entries::offset::encode(&key(topic, queue), 0);
    let found = scene.shared.engine.get(&name).expect("readable")?;
    Some(entries::offset::decode(&name, &found.value).expect("an offset").1)
}

fn heartbeat(client: &str, begin: &str, model: &str) -> Vec<u8> {
    let subscriptions = ["T1", "%RETRY%g"].map(|topic| json!({"topic": topic, "subString": "*", "subVersion": 1}));
    let consumer = json!({
        "groupName": "g", "consumeType": "CONSUME_PASSIVELY", "messageModel": model, "consumeFromWhere": begin,
        "subscriptionDataSet": subscriptions,
    });
    json!({"clientID": client, "consumerDataSet": [consumer], "producerDataSet": []}).to_string().into_bytes()
}

fn join(scene: &mut Scene, client: &str) -> ConnectionId {
    let id = scene.connect();
    scene.give(id, 34, &json!({}), &heartbeat(client, "CONSUME_FROM_LAST_OFFSET", "CLUSTERING"));
    scene.finish();
    drop(scene.answers(id));
    id
}

fn commit(queue: u32, offset: u64) -> Value {
    json!({"consumerGroup": "g", "topic": "T1", "queueId": queue, "commitOffset": offset})
}

/// A pull that waits for nothing; `commits`: with an offset to commit.
fn pull(queue: u32, offset: u64, flags: i32, commits: Option<u64>) -> Value {
    json!({
        "consumerGroup": "g", "topic": "T1", "queueId": queue, "queueOffset": offset, "maxMsgNums": 32,
        "sysFlag": flags | i32::from(commits.is_some()), "commitOffset": commits.unwrap_or(0), "suspendTimeoutMillis": 0, "subVersion": 0,
    })
}

/// A topic of four queues, with so many messages in the first.
fn scene(count: usize) -> Scene {
    let mut scene = Scene::new();
    let id = scene.connect();
    send(&mut scene, id, count);
    scene
}

fn send(scene: &mut Scene, id: ConnectionId, count: usize) {
    for _ in 0..count {
        assert_eq!(scene.send(id, "T1", 0, "", b"x").code(), 0);
    }
}

#[test]
fn k68_a_member_hears_that_it_is_one_when_a_crash_cannot_change_where_it_begins() {
    let mut scene = scene(3);
    let id = scene.connect();
    scene.give(id, 34, &json!({}), &heartbeat("a", "CONSUME_FROM_LAST_OFFSET", "CLUSTERING"));
    let early = scene.answers(id);
    assert_eq!(
        early.iter().map(|answer| answer.code()).collect::<Vec<_>>(),
        [40],
        "members are told, and nothing is promised yet"
    );
    scene.finish();
    assert_eq!(scene.answers(id).pop().expect("an answer").code(), 0);
    let scene = scene.crash();
    for queue in 0..4 {
        assert_eq!(entry(&scene, "T1", queue), Some(0), "queue {queue}");
    }
    assert_eq!((entry(&scene, "%RETRY%g", 0), committed(&scene, 0)), (Some(0), Some(0)));
}

#[test]
fn k68_a_queue_that_is_added_later_is_begun_at_its_first_message_by_every_group_of_the_topic() {
    let mut scene = scene(1);
    let id = join(&mut scene, "a");
    // Another one that is not there now.
    let tool = scene.connect();
    let other = json!({"consumerGroup": "away", "topic": "T1", "queueId": 0, "commitOffset": 1});
    assert_eq!(scene.ask(tool, 15, &other, &[]).code(), 0);
    let wider = json!({
        "topic": "T1", "defaultTopic": "TBW102", "readQueueNums": 6, "writeQueueNums": 6, "perm": 6, "topicFilterType": "SINGLE_TAG",
        "topicSysFlag": 0, "order": false,
    });
    assert_eq!(scene.ask(tool, 17, &wider, &[]).code(), 0);
    let scene = scene.crash();
    let away = |queue| scene.shared.state.offsets.get(&OffsetKey { group: "away".into(), ..key("T1", queue) });
    assert_eq!([committed(&scene, 4), committed(&scene, 5), away(4), away(5)], [Some(0); 4]);
    assert_eq!((away(0), away(1)), (Some(1), None), "queues that were there before are its own affair");
    let _ = id;
}

#[test]
fn k68_a_topic_that_comes_later_is_begun_at_its_first_message_too() {
    let mut scene = Scene::new();
    let id = join(&mut scene, "a");
    assert_eq!(scene.ask(id, 14, &json!({"consumerGroup": "g", "topic": "T1", "queueId": 0}), &[]).code(), 22);
    send(&mut scene, id, 2);
    let scene = scene.crash();
    assert_eq!(entry(&scene, "T1", 0), Some(0));
}

#[test]
fn k68_who_begins_at_a_time_decides_itself_and_who_gets_everything_is_not_registered() {
    let mut scene = scene(2);
    let asked = json!({"consumerGroup": "g", "topic": "T1", "queueId": 0});
    let id = scene.connect();
    let beat = heartbeat("all", "CONSUME_FROM_FIRST_OFFSET", "BROADCASTING");
    scene.give(id, 34, &json!({}), &beat);
    scene.finish();
    assert!(scene.entries(entries::offset::PREFIX).is_empty());
    scene.worker.closed(id);
    let id = scene.connect();
    scene.give(id, 34, &json!({}), &heartbeat("a", "CONSUME_FROM_TIMESTAMP", "CLUSTERING"));
    scene.finish();
    drop(scene.answers(id));
    assert_eq!(
        scene.ask(id, 14, &asked, &[]).code(),
        22,
        "the time is not told: only the client can ask for its offset"
    );
    assert_eq!((entry(&scene, "T1", 0), entry(&scene, "%RETRY%g", 0)), (None, Some(0)));
    // Somebody who is no member is answered by what the queue holds.
    let tool = scene.connect();
    assert_eq!(scene.ask(tool, 14, &asked, &[]).field("offset"), "0");
}

#[test]
fn heartbeats_that_say_nothing_new_write_nothing() {
    let mut scene = scene(1);
    let id = join(&mut scene, "a");
    scene.pass(Duration::from_secs(1));
    scene.settle();
    let before = scene.shared.engine.watermarks().assigned;
    for _ in 0..3 {
        scene.give(id, 34, &json!({}), &heartbeat("a", "CONSUME_FROM_LAST_OFFSET", "CLUSTERING"));
        scene.finish();
        scene.shared.state.flush_all(&scene.shared.engine).expect("room");
    }
    assert_eq!(scene.shared.engine.watermarks().assigned, before);
}

/// K-66: what is answered is durable; what is not asked for is merged, and what changes nothing costs nothing.
#[test]
fn k66_commits_that_nobody_waits_for_are_merged_and_unchanged_ones_write_nothing() {
    let mut scene = scene(40);
    let id = join(&mut scene, "a");
    scene.pass(Duration::from_secs(1));
    scene.settle();
    let before = scene.shared.engine.watermarks().assigned;
    for offset in 1..=20 {
        scene.give_oneway(id, 15, &commit(0, offset));
        scene.give(id, 11, &pull(0, offset, 0, Some(offset + 20)), &[]);
    }
    scene.finish();
    assert_eq!(scene.shared.engine.watermarks().assigned, before, "nothing is written yet");
    assert_eq!((committed(&scene, 0), entry(&scene, "T1", 0)), (Some(40), Some(0)));
    let one = {
        scene.shared.state.flush_all(&scene.shared.engine).expect("room");
        scene.settle();
        scene.shared.engine.watermarks().assigned.0 - before.0
    };
    assert!(one < 300, "{one} bytes for one offset");
    assert_eq!(entry(&scene, "T1", 0), Some(40));
    let before = scene.shared.engine.watermarks().assigned;
    for _ in 0..5 {
        scene.give_oneway(id, 15, &commit(0, 40));
        scene.give(id, 11, &pull(0, 0, 0, Some(40)), &[]);
        assert_eq!(scene.ask(id, 15, &commit(0, 40), &[]).code(), 0);
        scene.shared.state.flush_all(&scene.shared.engine).expect("room");
    }
    assert_eq!(scene.shared.engine.watermarks().assigned, before);
    // One that is answered is there after a crash.
    assert_eq!(scene.ask(id, 15, &commit(0, 39), &[]).code(), 0);
    let scene = scene.crash();
    assert_eq!(entry(&scene, "T1", 0), Some(39));
}

#[test]
fn k69_the_last_commit_of_one_who_lost_the_queue_meanwhile_does_not_count() {
    let mut scene = scene(10);
    let (a, b) = (join(&mut scene, "a"), join(&mut scene, "b"));
    assert_eq!(scene.ask(a, 11, &pull(0, 0, 0, None), &[]).code(), 0);
    assert_eq!(scene.ask(a, 15, &commit(0, 4), &[]).code(), 0);
    // The queue is taken over before the former owner's last word.
    assert_eq!(scene.ask(b, 11, &pull(0, 4, 0, None), &[]).code(), 0);
    assert_eq!(scene.ask(b, 15, &commit(0, 6), &[]).code(), 0);
    let late = scene.ask(a, 15, &commit(0, 9), &[]);
    assert!(
        late.code() == 1 && late.header["remark"].as_str().expect("a remark").starts_with("b, another member"),
        "{}",
        late.header
    );
    scene.give_oneway(a, 15, &commit(0, 2));
    assert_eq!((committed(&scene, 0), scene.shared.counters.read().commits_refused), (Some(6), 2));
    // Neither does one that comes along with a pull of what is another's until then.
    assert_eq!(scene.ask(a, 11, &pull(0, 9, 0, Some(9)), &[]).code(), 0);
    assert_eq!((committed(&scene, 0), scene.shared.counters.read().commits_refused), (Some(6), 3));
    // Queues that nobody pulls are anybody's.
    assert_eq!(scene.ask(b, 15, &commit(1, 0), &[]).code(), 0);
}

/// Its first words after a cut come before its heartbeat, up to half a minute. Go and ali-ons say that they wait for the answer.
#[test]
fn k69_k72_a_consumer_that_was_cut_off_undoes_nothing_of_the_next_owner_before_its_heartbeat() {
    let mut scene = scene(10);
    let (a, b) = (join(&mut scene, "a"), join(&mut scene, "b"));
    assert_eq!(scene.ask(a, 11, &pull(0, 0, 0, Some(3)), &[]).code(), 0);
    scene.worker.closed(a);
    let a = scene.connect();
    scene.give_oneway(a, 15, &commit(0, 2));
    assert_eq!(committed(&scene, 0), Some(2), "nobody has the queue");
    drop(scene.answers(b));
    assert_eq!(scene.ask(b, 11, &pull(0, 3, 0, None), &[]).code(), 0);
    assert_eq!(scene.ask(b, 15, &commit(0, 6), &[]).code(), 0);
    let refused = |scene: &Scene| scene.shared.counters.read().commits_refused;
    scene.give_oneway(a, 15, &commit(0, 3));
    assert_eq!((committed(&scene, 0), refused(&scene)), (Some(6), 1));
    assert_eq!(scene.ask(a, 11, &pull(0, 3, 0, Some(3)), &[]).code(), 0, "it may read");
    assert_eq!((committed(&scene, 0), refused(&scene)), (Some(6), 2));
    assert_eq!(scene.ask(a, 15, &commit(0, 9), &[]).code(), 1);
    // Neither does one that the broker has not heard of for too long and that is connected still.
    let c = join(&mut scene, "c");
    let leaving = json!({"clientID": "c", "consumerGroup": "g"});
    assert_eq!(scene.ask(c, 35, &leaving, &[]).code(), 0);
    assert_eq!(scene.ask(c, 15, &commit(0, 9), &[]).code(), 1);
    assert_eq!((committed(&scene, 0), refused(&scene)), (Some(6), 4));
    // Somebody with a tool waits for the answer, and consumes nothing.
    let tool = scene.connect();
    let looks = json!({
        "consumerGroup": "g", "topic": "T1", "queueId": 0, "queueOffset": 0, "maxMsgNums": 32, "sysFlag": 4, "commitOffset": 0,
        "suspendTimeoutMillis": 20_000, "subscription": "*", "subVersion": 0,
    });
    assert_eq!(scene.ask(tool, 11, &looks, &[]).code(), 0);
    assert_eq!(scene.ask(tool, 15, &commit(0, 5), &[]).code(), 0);
    assert_eq!((committed(&scene, 0), refused(&scene)), (Some(5), 4));
    // When no member has the queue any more, its word counts again.
    scene.worker.closed(b);
    scene.give_oneway(a, 15, &commit(0, 7));
    assert_eq!((committed(&scene, 0), refused(&scene)), (Some(7), 4));
}

#[test]
fn k72_an_owner_may_go_back_and_so_may_a_stranger_and_both_are_seen() {
    let mut scene = scene(10);
    let (a, b) = (join(&mut scene, "a"), join(&mut scene, "b"));
    assert_eq!(scene.ask(a, 11, &pull(0, 0, 0, Some(8)), &[]).code(), 0);
    assert_eq!(scene.ask(a, 15, &commit(0, 3), &[]).code(), 0);
    let tool = scene.connect();
    assert_eq!(scene.ask(tool, 15, &commit(0, 1), &[]).code(), 0);
    assert_eq!((committed(&scene, 0), scene.shared.counters.read().offsets_rewound), (Some(1), 2));
    // When the owner is gone its queue is nobody's.
    assert_eq!(scene.ask(b, 15, &commit(0, 5), &[]).code(), 1);
    scene.worker.closed(a);
    drop(scene.answers(b));
    assert_eq!(scene.ask(b, 15, &commit(0, 5), &[]).code(), 0);
    assert_eq!(committed(&scene, 0), Some(5));
}

/// The second half of K-43: consumers that run on beyond what a crash left.
#[test]
fn k43_one_that_runs_on_beyond_what_is_left_is_moved_back_to_where_the_log_was_opened() {
    const WAITS: i32 = 2;
    let mut scene = scene(5).crash();
    let stale = scene.connect();
    let sender = scene.connect();
    send(&mut scene, sender, 3);
    // It had read up to 9 of what was lost; the queue ends at 8 now, and what is new begins at 5.
    let moved = scene.ask(stale, 11, &pull(0, 9, WAITS, Some(9)), &[]);
    assert_eq!((moved.code(), moved.field("nextBeginOffset"), moved.field("maxOffset")), (21, "5", "8"));
    // The same when the queue has grown past it meanwhile.
    send(&mut scene, sender, 5);
    let moved = scene.ask(stale, 11, &pull(0, 9, WAITS, None), &[]);
    assert_eq!((moved.code(), moved.field("nextBeginOffset")), (21, "5"));
    assert_eq!((committed(&scene, 0), scene.shared.counters.read().positions_moved), (None, 2));
    // As a member it cannot commit it either.
    let member = join(&mut scene, "a");
    assert_eq!(scene.ask(member, 15, &commit(0, 9), &[]).code(), 1);
    assert_eq!(committed(&scene, 0), Some(0));
    // From there on it is led.
    let found = scene.ask(stale, 11, &pull(0, 5, WAITS, None), &[]);
    assert_eq!((found.code(), found.field("nextBeginOffset")), (0, "13"));
    assert_eq!(scene.ask(member, 11, &pull(0, 13, 0, Some(13)), &[]).code(), 19, "and so is its group");
    assert_eq!(committed(&scene, 0), Some(13));
}

#[test]
fn k43_who_asked_for_an_offset_or_committed_it_or_only_looks_is_not_moved() {
    const WAITS: i32 = 2;
    let mut scene = scene(5).crash();
    let sender = scene.connect();
    send(&mut scene, sender, 5);
    let place = json!({"topic": "T1", "queueId": 0});
    // The end, asked for.
    let id = scene.connect();
    assert_eq!(scene.ask(id, 30, &place, &[]).field("offset"), "10");
    assert_eq!(scene.ask(id, 11, &pull(0, 9, WAITS, None), &[]).code(), 0);
    // A tool that looks at one message.
    let tool = scene.connect();
    assert_eq!(scene.ask(tool, 11, &json!({
        "consumerGroup": "tools", "topic": "T1", "queueId": 0, "queueOffset": 7, "maxMsgNums": 1, "sysFlag": 0, "commitOffset": 0,
        "suspendTimeoutMillis": 0, "subVersion": 0,
    }), &[]).code(), 0);
    // An administrator's word.
    let other = json!({"consumerGroup": "h", "topic": "T1", "queueId": 0, "commitOffset": 8});
    assert_eq!(scene.ask(tool, 15, &other, &[]).code(), 0);
    let mut at_8 = pull(0, 8, WAITS, None);
    at_8["consumerGroup"] = json!("h");
    let id = scene.connect();
    assert_eq!(scene.ask(id, 11, &at_8, &[]).code(), 0);
    assert_eq!(scene.shared.counters.read().positions_moved, 0);
}

/// K-77: one that was in a topic which is made anew begins with its first message.
#[test]
fn k77_one_that_runs_on_in_a_topic_that_was_made_anew_begins_at_its_start() {
    const WAITS: i32 = 2;
    let mut scene = scene(5);
    let id = scene.connect();
    assert_eq!(scene.ask(id, 11, &pull(0, 0, WAITS, None), &[]).field("nextBeginOffset"), "5");
    assert_eq!(scene.ask(id, 11, &pull(0, 5, WAITS, None), &[]).code(), 19);
    scene.shared.state.positions.forget_topic("T1");
    let moved = scene.ask(id, 11, &pull(0, 5, WAITS, None), &[]);
    assert_eq!((moved.code(), moved.field("nextBeginOffset")), (21, "0"));
}
