//! Republishing over a simulated disk: what is moved, once, whatever happens in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::features::offsets::OffsetKey;
use crate::features::topics::TopicConfig;
use crate::net::ConnectionId;
use crate::scene::{Answer, Scene};
use crate::standing::Standing;
use crate::wire::codes::private;
use crate::wire::operate::{self, RepublishPair, RepublishStep, RepublishStepped, Republished};

fn pair(group: Option<&str>) -> RepublishPair {
    RepublishPair { from: "A".to_owned(), to: "B".to_owned(), group: group.map(str::to_owned) }
}

/// Topic A with two queues, and B with five.
fn stage() -> Scene {
    let scene = Scene::new();
    scene.shared.state.put_topic("A", TopicConfig::open(2));
    scene.shared.state.put_topic("B", TopicConfig::open(5));
    scene
}

fn ask(scene: &mut Scene, code: i32, body: &[u8]) -> Answer {
    let id = scene.connect_apart();
    let answer = scene.ask(id, code.into(), &json!({}), body);
    scene.worker.closed(id);
    answer
}

fn show(scene: &mut Scene, pair: &RepublishPair) -> Republished {
    let answer = ask(scene, private::REPUBLISH_SHOW, &operate::write(pair));
    assert_eq!(answer.code(), 0, "{}", answer.header);
    operate::read(&answer.body).expect("a telling")
}

fn step(scene: &mut Scene, step: &RepublishStep) -> Result<RepublishStepped, (i64, Value)> {
    let answer = ask(scene, private::REPUBLISH_STEP, &operate::write(step));
    match answer.code() {
        0 => Ok(operate::read(&answer.body).expect("a telling")),
        code => Err((code, answer.header["remark"].clone())),
    }
}

/// Moves all there is, in steps of `limit`.
fn move_all(scene: &mut Scene, pair: &RepublishPair, limit: usize) -> u64 {
    let mut moved = 0;
    for queue in show(scene, pair).queues {
        let (mut at, mut begun) = (queue.next, false);
        while at < queue.end {
            let ask = RepublishStep {
                pair: pair.clone(),
                queue: queue.queue,
                at,
                begun,
                end: queue.end,
                limit: Some(limit),
                ..RepublishStep::default()
            };
            let stepped = step(scene, &ask).expect("nobody else does");
            assert!(stepped.next > at && stepped.moved <= u64::try_from(limit).expect("small"));
            (at, begun) = (stepped.next, stepped.moved > 0);
            moved += stepped.moved;
        }
    }
    moved
}

/// What lies in a topic: bodies by queue.
fn bodies(scene: &mut Scene, topic: &str, queues: u32) -> Vec<Vec<String>> {
    let text = |body: Vec<u8>| String::from_utf8(body).expect("text");
    (0..queues).map(|queue| scene.read_all(topic, queue).into_iter().map(|read| text(read.body)).collect()).collect()
}

fn sorted(bodies: Vec<Vec<String>>) -> Vec<String> {
    let mut all: Vec<_> = bodies.into_iter().flatten().collect();
    all.sort_unstable();
    all
}

fn fill(scene: &mut Scene, id: ConnectionId, count: u32) {
    for number in 0..count {
        let properties = format!("UNIQ_KEY\u{1}K{number}\u{2}TAGS\u{1}T\u{2}KEYS\u{1}k{number}\u{2}x\u{1}y\u{2}");
        let body = format!("{number:03}");
        assert_eq!(scene.send(id, "A", number % 2, &properties, body.as_bytes()).code(), 0);
    }
}

#[test]
fn what_lies_in_a_topic_is_spread_over_the_queues_of_another_and_stays_what_it_was() {
    let mut scene = stage();
    let id = scene.connect();
    fill(&mut scene, id, 40);
    assert_eq!(move_all(&mut scene, &pair(None), 7), 40);
    let found = bodies(&mut scene, "B", 5);
    assert!(found.iter().all(|queue| queue.len() == 8), "evenly: {found:?}");
    assert_eq!(sorted(found), sorted(bodies(&mut scene, "A", 2)));
    let (mut there, here) = (scene.read_all("B", 0), scene.read_all("A", 0));
    let (first, origin) = (there.remove(0), &here[0]);
    assert_eq!((&first.topic[..], &first.body, first.born_timestamp), ("B", &origin.body, origin.born_timestamp));
    assert_eq!((&first.properties, first.flag, first.reconsume_times), (&origin.properties, origin.flag, 0));
    assert_ne!(first.physical_offset, origin.physical_offset, "it has a place of its own");
}

#[test]
fn asked_for_again_it_goes_on_with_what_has_come_since() {
    let mut scene = stage();
    let id = scene.connect();
    fill(&mut scene, id, 10);
    assert_eq!(move_all(&mut scene, &pair(None), 3), 10);
    assert_eq!(move_all(&mut scene, &pair(None), 3), 0);
    fill(&mut scene, id, 4);
    let mut scene = scene.crash();
    assert_eq!(move_all(&mut scene, &pair(None), 3), 4);
    assert_eq!(sorted(bodies(&mut scene, "B", 5)).len(), 14);
}

#[test]
fn messages_of_one_key_stay_in_one_queue_and_in_order() {
    let mut scene = stage();
    let id = scene.connect();
    for number in 0..60 {
        let properties = format!("__SHARDINGKEY\u{1}key{}\u{2}", number % 7);
        scene.send(id, "A", 0, &properties, format!("{} {number:03}", number % 7).as_bytes());
    }
    move_all(&mut scene, &pair(None), 4);
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for (place, queue) in bodies(&mut scene, "B", 5).into_iter().enumerate() {
        let mut last: BTreeMap<String, String> = BTreeMap::new();
        for body in queue {
            let (key, number) = body.split_once(' ').expect("two words");
            assert_eq!(*places.entry(key.to_owned()).or_insert(place), place, "one queue for key {key}");
            assert!(last.insert(key.to_owned(), number.to_owned()).is_none_or(|before| *before < *number));
        }
    }
    assert_eq!(places.len(), 7);
}

/// The power fails after every n-th step of writing: nothing is there twice, and nothing is left out.
#[test]
fn a_crash_at_any_moment_moves_nothing_twice_and_leaves_nothing_out() {
    for seed in 0..24 {
        let mut scene = stage();
        let id = scene.connect();
        fill(&mut scene, id, 20);
        let ask = |queue, at, begun| RepublishStep {
            pair: pair(None),
            queue,
            at,
            begun,
            end: 10,
            limit: Some(3),
            ..RepublishStep::default()
        };
        let first = step(&mut scene, &ask(0, 0, false)).expect("the first");
        // On its way, and perhaps on the disk, when the power fails.
        let other = scene.connect();
        let body = operate::write(&ask(0, first.next, true));
        scene.hand_in(other, private::REPUBLISH_STEP.into(), &json!({}), &body, 0);
        scene.worker.end_of_turn();
        scene.await_tasks();
        for _ in 0..seed % 6 {
            scene.shared.engine.step();
        }
        let mut scene = scene.crash_somehow(seed);
        move_all(&mut scene, &pair(None), 4);
        assert_eq!(sorted(bodies(&mut scene, "B", 5)), sorted(bodies(&mut scene, "A", 2)), "seed {seed}");
    }
}

#[test]
fn who_knows_less_than_the_log_moves_nothing() {
    let mut scene = stage();
    let id = scene.connect();
    fill(&mut scene, id, 8);
    let ask = |at, begun| RepublishStep {
        pair: pair(None),
        queue: 0,
        at,
        begun,
        end: 4,
        limit: Some(2),
        ..RepublishStep::default()
    };
    step(&mut scene, &ask(0, false)).expect("the first");
    for (at, begun) in [(0, false), (0, true), (1, true), (3, true), (3, false)] {
        let (code, remark) = step(&mut scene, &ask(at, begun)).expect_err("it is at 2");
        assert_eq!(code, 2, "{remark}");
    }
    assert_eq!(step(&mut scene, &ask(2, false)).expect("as the table says").next, 4);
    assert_eq!(sorted(bodies(&mut scene, "B", 5)), ["000", "002", "004", "006"]);
}

#[test]
fn for_a_group_what_it_has_consumed_is_not_moved_and_what_was_moved_it_has_consumed() {
    let mut scene = stage();
    let id = scene.connect();
    fill(&mut scene, id, 20);
    scene.beat(id, "c1", "g", "A");
    let key = |topic: &str, queue| OffsetKey { group: "g".into(), topic: topic.into(), queue };
    let _commit = scene.shared.state.commit_offset(&key("A", 0), 4, true);
    let refused = ask(&mut scene, private::REPUBLISH_SHOW, &operate::write(&pair(Some("g"))));
    assert!(refused.header["remark"].as_str().expect("why").contains("consume topic A now"), "{}", refused.header);
    scene.worker.closed(id);
    assert_eq!(move_all(&mut scene, &pair(Some("g")), 5), 16);
    let offsets = |scene: &Scene| [0, 1].map(|queue| scene.shared.state.offsets.get(&key("A", queue)));
    assert_eq!(offsets(&scene), [Some(10), Some(10)]);
    // By the batches that moved the messages: nothing else was written.
    let mut scene = scene.crash();
    assert_eq!(offsets(&scene), [Some(10), Some(10)]);
    assert_eq!(scene.shared.state.offsets.get(&key("B", 3)), Some(0), "whoever begins with the latest gets them, too");
    assert_eq!(sorted(bodies(&mut scene, "B", 5)).len(), 16);
    // Another group's backlog is another matter.
    assert_eq!(show(&mut scene, &pair(None)).queues[0].next, 0);
}

#[test]
fn a_topic_that_was_made_anew_begins_anew() {
    let mut scene = stage();
    let id = scene.connect();
    fill(&mut scene, id, 6);
    assert_eq!(move_all(&mut scene, &pair(None), 8), 6);
    assert_eq!(scene.ask(id, 215, &json!({"topic": "B"}), &[]).code(), 0);
    scene.shared.state.put_topic("B", TopicConfig::open(3));
    assert_eq!(move_all(&mut scene, &pair(None), 8), 6);
    assert_eq!(sorted(bodies(&mut scene, "B", 3)).len(), 6);
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let mut scene = stage();
    let named = |from: &str, to: &str, group: Option<&str>| RepublishPair {
        from: from.to_owned(),
        to: to.to_owned(),
        group: group.map(str::to_owned),
    };
    scene.shared.state.put_topic("R", TopicConfig { perm: 4, ..TopicConfig::open(1) });
    for (pair, part) in [
        (named("A", "A", None), "anchorlog topic expand"),
        (named("A", "C", None), "C does not exist"),
        (named("A", "R", None), "may not be written"),
        (named("%DLQ%g", "B", None), "anchorlog dlq replay"),
        (named("A", "B", Some("nobody")), "group nobody does not exist"),
    ] {
        let answer = ask(&mut scene, private::REPUBLISH_SHOW, &operate::write(&pair));
        assert!(answer.header["remark"].as_str().expect("why").contains(part), "{}", answer.header);
    }
}

#[test]
fn a_slave_moves_nothing() {
    let mut scene = stage();
    let id = scene.connect();
    fill(&mut scene, id, 2);
    let (disk, clock) = scene.end();
    let mut slave = Scene::on(disk, clock, Standing::Slave { leader: Arc::default() }, |_| {});
    let ask = RepublishStep { pair: pair(None), queue: 0, end: 1, ..RepublishStep::default() };
    assert_eq!(step(&mut slave, &ask).expect_err("it is a slave").0, 14);
}

/// Topic A has four messages, and rot is in the third of them, which is not in memory any more.
fn rotten(body: &[u8]) -> Scene {
    let mut scene = stage();
    let id = scene.connect();
    let bodies: [&[u8]; 4] = [b"0", b"1", body, b"2"];
    for body in bodies {
        assert_eq!(scene.send(id, "A", 0, "", body).code(), 0);
    }
    // The last block of the log is written again with what follows.
    let more = |scene: &mut Scene| assert_eq!(scene.send(id, "C", 0, "", &[7; 32 << 10]).code(), 0);
    more(&mut scene);
    let place = |path: &std::path::PathBuf| {
        let bytes = scene.disk.read(path).expect("it is listed");
        let at = bytes.windows(body.len()).position(|window| window == body)?;
        Some((path.clone(), u64::try_from(at).expect("small")))
    };
    let (path, at) = scene.disk.files().iter().find_map(place).expect("the message is in the log");
    scene.disk.flip_bit(&path, at, 1);
    (0..40).for_each(|_| more(&mut scene));
    scene.worker.closed(id);
    scene
}

#[test]
fn it_stops_at_a_message_that_cannot_be_read_and_goes_on_behind_it_when_told_so_by_name() {
    let mut scene = rotten(b"this one rots on the disk");
    let key = OffsetKey { group: "g".into(), topic: "A".into(), queue: 0 };
    let id = scene.connect();
    scene.beat(id, "c1", "g", "A");
    let _commit = scene.shared.state.commit_offset(&key, 0, true);
    scene.worker.closed(id);
    let ask = |at, begun, skip_damaged| RepublishStep {
        pair: pair(Some("g")),
        at,
        begun,
        end: 4,
        skip_damaged,
        ..RepublishStep::default()
    };
    let first = step(&mut scene, &ask(0, false, false)).expect("what lies before it");
    assert_eq!((first.next, first.moved, first.damaged), (2, 2, None));
    for begun in [true, false] {
        let (code, remark) = step(&mut scene, &ask(2, begun, false)).expect_err("it cannot be read");
        let remark = remark.as_str().expect("why");
        assert!(code == 1 && remark.contains("message 2 of queue 0") && remark.contains("--skip-damaged"), "{remark}");
    }
    assert_eq!(show(&mut scene, &pair(Some("g"))).queues[0].next, 2, "it stands where it stood");
    let second = step(&mut scene, &ask(2, true, true)).expect("it was told so");
    assert_eq!((second.next, second.moved, second.gone), (3, 0, 0));
    assert!(second.damaged.expect("why").contains("damaged"));
    assert_eq!(scene.shared.state.offsets.get(&key), Some(3), "the group is done with it, too");
    let third = step(&mut scene, &ask(3, true, true)).expect("the rest");
    assert_eq!((third.next, third.moved, third.damaged), (4, 1, None));
    assert_eq!(sorted(bodies(&mut scene, "B", 5)), ["0", "1", "2"]);
    // Nothing comes twice, and nothing is left behind twice.
    assert_eq!(show(&mut scene, &pair(Some("g"))).queues[0].next, 4);
}

#[test]
fn an_older_broker_understands_whoever_does_not_ask_for_more() {
    let text = String::from_utf8(operate::write(&RepublishStep::default()).to_vec()).expect("text");
    assert!(!text.contains("skip"), "{text}");
    let old: RepublishStepped = operate::read(br#"{"next":3,"moved":1,"gone":0,"nextMs":null}"#).expect("a telling");
    assert_eq!((old.next, old.damaged), (3, None));
}
