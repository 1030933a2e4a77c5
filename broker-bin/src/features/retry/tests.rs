//! Sending back, from the request to the message that comes again, over a simulated disk and clock.

use std::time::Duration;

use serde_json::{Value, json};

use crate::features::groups::GroupConfig;
use crate::net::ConnectionId;
use crate::scene::{Answer, Read, Scene, peer, send_fields};
use crate::state::entries;

const UNIQUE: &str = "UNIQ_KEY\u{1}K1\u{2}TAGS\u{1}A\u{2}KEYS\u{1}order-7\u{2}x\u{1}y";

fn back_fields(offset: u64, level: i64) -> Value {
    json!({
        "offset": offset.to_string(), "group": "g", "delayLevel": level.to_string(), "originMsgId": "", "originTopic": "T1",
        "unitMode": "false", "maxReconsumeTimes": "16", "bname": "b",
    })
}

fn send_back(scene: &mut Scene, id: ConnectionId, offset: u64, level: i64) -> Answer {
    scene.ask(id, 36, &back_fields(offset, level), &[])
}

/// A group, and a message that it has read.
fn scene() -> (Scene, ConnectionId, Read) {
    let mut scene = Scene::new();
    let id = scene.connect();
    scene.shared.state.put_group("g", GroupConfig::default());
    assert_eq!(scene.send(id, "T1", 1, UNIQUE, b"poison").code(), 0);
    let read = scene.read_all("T1", 1).remove(0);
    (scene, id, read)
}

/// K-80: nothing is copied, and what the consumer sees is what the original broker shows it.
#[test]
fn a_message_that_is_sent_back_comes_again_after_its_delay_as_it_was() {
    let (mut scene, id, first) = scene();
    let before = scene.shared.engine.watermarks().assigned;
    assert_eq!(send_back(&mut scene, id, first.physical_offset, 0).code(), 0);
    scene.pass(Duration::from_millis(9_999));
    assert_eq!(scene.count("%RETRY%g", 0), 0);
    scene.pass(Duration::from_millis(1));
    let again = scene.read_all("%RETRY%g", 0).remove(0);
    assert_eq!((&*again.topic, &*again.body, again.reconsume_times), ("%RETRY%g", &b"poison"[..], 1));
    assert_eq!((again.born_timestamp, again.born_host, again.flag), (first.born_timestamp, peer(), first.flag));
    let id_of_first = format!("7F00000100002A9F{:016X}", first.physical_offset);
    for (name, value) in [
        ("RETRY_TOPIC", "T1"),
        ("ORIGIN_MESSAGE_ID", &*id_of_first),
        ("DELAY", "3"),
        ("REAL_TOPIC", "%RETRY%g"),
        ("REAL_QID", "0"),
        ("UNIQ_KEY", "K1"),
        ("TAGS", "A"),
        ("KEYS", "order-7"),
        ("x", "y"),
        ("CLUSTER", "c"),
    ] {
        assert_eq!(again.property(name), Some(value), "{name} in {}", again.properties);
    }
    // The second attempt fails also: the next level, and the first id still.
    assert_eq!(send_back(&mut scene, id, again.physical_offset, 0).code(), 0);
    scene.pass(Duration::from_secs(30));
    let third = scene.read_all("%RETRY%g", 0).remove(1);
    assert_eq!((third.reconsume_times, third.property("DELAY")), (2, Some("4")));
    assert_eq!((third.property("ORIGIN_MESSAGE_ID"), third.property("RETRY_TOPIC")), (Some(&*id_of_first), Some("T1")));
    assert_eq!(third.properties.matches("DELAY").count(), 1);
    assert_eq!(scene.shared.engine.find(&anchorlog_engine::KeyQuery::new(b"order-7")).expect("readable").len(), 3);
    let grown = scene.shared.engine.watermarks().assigned.since(before);
    assert!(grown < 4096, "{grown} bytes for two retries, the topics' and the group's entries, and fillers");
    assert_eq!(scene.shared.counters.read().messages_sent_back, 2);
}

/// K-75: after the last attempt the message lies where somebody can find it, and that is counted.
#[test]
fn after_the_last_attempt_a_message_is_a_dead_letter() {
    let (mut scene, id, first) = scene();
    let mut fields = back_fields(first.physical_offset, 1);
    fields["maxReconsumeTimes"] = json!("1");
    assert_eq!(scene.ask(id, 36, &fields, &[]).code(), 0);
    scene.pass(Duration::from_secs(1));
    let again = scene.read_all("%RETRY%g", 0).remove(0);
    fields["offset"] = json!(again.physical_offset.to_string());
    assert_eq!(scene.ask(id, 36, &fields, &[]).code(), 0);
    let dead = scene.read_all("%DLQ%g", 0).remove(0);
    assert_eq!((&*dead.body, dead.reconsume_times, dead.property("DELAY")), (&b"poison"[..], 2, Some("0")));
    assert_eq!((dead.property("RETRY_TOPIC"), dead.property("UNIQ_KEY")), (Some("T1"), Some("K1")));
    scene.pass(Duration::from_secs(7200));
    assert_eq!((scene.count("%RETRY%g", 0), scene.count("%DLQ%g", 0)), (1, 1), "nothing brings it back by itself");
    assert_eq!(scene.shared.counters.read().dead_letters, 1);
    // At once, when the consumer says so. The connection of two hours ago is gone.
    let id = scene.connect();
    assert_eq!(send_back(&mut scene, id, first.physical_offset, -1).code(), 0);
    assert_eq!(scene.count("%DLQ%g", 0), 2);
}

/// K-80: wherever the power fails, an answered send-back is there once, and one that was not is there once or not at all.
#[test]
fn wherever_the_power_fails_nothing_that_was_sent_back_vanishes_or_doubles() {
    for (level, topic) in [(1, "%RETRY%g"), (-1, "%DLQ%g")] {
        for last in 0.. {
            let (mut scene, id, first) = scene();
            scene.disk.stop_after(scene.disk.io_count() + last);
            scene.give(id, 36, &back_fields(first.physical_offset, level), &[]);
            scene.finish();
            let acked = scene.answers(id).iter().any(|answer| answer.code() == 0);
            let finished = acked && {
                scene.clock.advance(Duration::from_secs(1));
                scene.run_timer() && !scene.disk.is_dead()
            };
            scene = scene.crash_somehow(last);
            scene.pass(Duration::from_secs(1));
            let count = scene.count(topic, 0);
            assert!(count == 1 || count == 0 && !acked, "{count} in {topic} after I/O {last}, acked: {acked}");
            assert!(scene.entries(entries::due::PREFIX).is_empty());
            assert_eq!(scene.count("T1", 1), 1, "where it came from it stays");
            if finished {
                break;
            }
        }
    }
}

#[test]
fn what_cannot_be_sent_back_is_refused_with_a_reason() {
    let (mut scene, id, first) = scene();
    let at = first.physical_offset;
    assert_eq!(send_back(&mut scene, id, at + 8, 0).code(), 1, "no message begins there");
    assert_eq!(send_back(&mut scene, id, 1 << 40, 0).code(), 1);
    let mut other = back_fields(at, 0);
    other["originMsgId"] = json!("K2");
    assert_eq!(scene.ask(id, 36, &other, &[]).code(), 1, "another message than the consumer means");
    for meant in ["K1".to_owned(), format!("7F00000100002A9F{at:016X}")] {
        other["originMsgId"] = json!(meant);
        assert_eq!(scene.ask(id, 36, &other, &[]).code(), 0);
    }
    let mut nobody = back_fields(at, 0);
    nobody["group"] = json!("");
    assert_eq!(scene.ask(id, 36, &nobody, &[]).code(), 26);
    let hidden = scene.send(id, "T1", 0, "DELAY\u{1}9\u{2}", b"late").physical_offset();
    assert_eq!(send_back(&mut scene, id, hidden, 0).code(), 1, "nobody has read that one");
    assert_eq!(scene.ask(id, 36, &json!({"group": "g"}), &[]).code(), 1);
    assert_eq!(scene.shared.counters.read().messages_sent_back, 2);
}

/// K-76: such a group keeps what it sends back like every other.
#[test]
fn a_group_without_retry_queues_loses_nothing() {
    let (mut scene, id, first) = scene();
    scene.shared.state.put_group("g", GroupConfig { retry_queues: 0, ..GroupConfig::default() });
    assert_eq!(send_back(&mut scene, id, first.physical_offset, 1).code(), 0);
    scene.pass(Duration::from_secs(1));
    assert_eq!(scene.count("%RETRY%g", 0), 1);
}

/// When a consumer cannot reach 36 it sends a copy to its retry topic itself.
#[test]
fn a_consumers_own_copy_waits_for_its_level_and_is_a_dead_letter_after_the_last() {
    let (mut scene, id, _) = scene();
    let copy = |attempts: i32| {
        let properties = "RETRY_TOPIC\u{1}T1\u{2}ORIGIN_MESSAGE_ID\u{1}first\u{2}DELAY\u{1}1\u{2}UNIQ_KEY\u{1}K1\u{2}";
        let mut fields = send_fields("%RETRY%g", 0, properties);
        fields["j"] = json!(attempts.to_string());
        fields["l"] = json!("2");
        fields
    };
    assert_eq!(scene.ask(id, 310, &copy(1), b"poison").code(), 0);
    assert_eq!(scene.count("%RETRY%g", 0), 0);
    scene.pass(Duration::from_secs(1));
    let again = scene.read_all("%RETRY%g", 0).remove(0);
    assert_eq!((again.reconsume_times, again.property("ORIGIN_MESSAGE_ID")), (1, Some("first")));
    assert_eq!(scene.ask(id, 310, &copy(2), b"poison").code(), 0);
    let dead = scene.read_all("%DLQ%g", 0).remove(0);
    assert_eq!((&*dead.body, dead.property("RETRY_TOPIC")), (&b"poison"[..], Some("T1")));
    assert_eq!((scene.count("%RETRY%g", 0), scene.shared.counters.read().dead_letters), (1, 1));
}

/// A delayed message that fails is tried again like any other; its delay is over.
#[test]
fn a_message_that_was_delivered_late_can_be_sent_back() {
    let (mut scene, id, _) = scene();
    scene.send(id, "T1", 2, "TIMER_DELAY_SEC\u{1}5\u{2}UNIQ_KEY\u{1}K9\u{2}", b"late");
    scene.pass(Duration::from_secs(5));
    let late = scene.read_all("T1", 2).remove(0);
    assert_eq!(send_back(&mut scene, id, late.physical_offset, 1).code(), 0);
    scene.pass(Duration::from_secs(1));
    let again = scene.read_all("%RETRY%g", 0).remove(0);
    assert_eq!((&*again.body, again.property("UNIQ_KEY"), again.reconsume_times), (&b"late"[..], Some("K9"), 1));
    assert_eq!((again.property("RETRY_TOPIC"), again.property("REAL_TOPIC")), (Some("T1"), Some("%RETRY%g")));
}

/// K-65, K-75: what waits for another attempt, what was given up and nobody has read, and a delayed message outlive their files.
#[test]
fn what_nobody_has_dealt_with_outlives_the_files_that_it_was_written_to() {
    let (mut scene, id, first) = scene();
    assert_eq!(send_back(&mut scene, id, first.physical_offset, -1).code(), 0);
    assert_eq!(send_back(&mut scene, id, first.physical_offset, 1).code(), 0);
    assert_eq!(send_back(&mut scene, id, first.physical_offset, 18).code(), 0);
    assert_eq!(scene.send(id, "T2", 0, "DELAY\u{1}18\u{2}", b"late").code(), 0);
    scene.pass(Duration::from_secs(1));
    for crashes in 0..2 {
        let id = scene.connect();
        for _ in 0..30 {
            assert_eq!(scene.send(id, "T1", 0, "", &[b'x'; 40 << 10]).code(), 0);
        }
        let end = scene.shared.engine.watermarks().acked;
        let released = scene.shared.engine.release(end);
        assert!(released.is_ok(), "{released:?}");
        for _ in 0..200 {
            scene.pass(Duration::from_millis(50));
            scene.settle();
        }
        assert!(scene.shared.engine.watermarks().start.0 > first.physical_offset, "its file is gone");
        for topic in ["%DLQ%g", "%RETRY%g"] {
            assert_eq!(scene.read_all(topic, 0)[0].body, b"poison", "{topic} after {crashes} crashes");
        }
        scene = scene.crash();
    }
    scene.pass(Duration::from_secs(7200));
    assert_eq!((scene.read_all("%RETRY%g", 0).len(), &*scene.read_all("T2", 0)[0].body), (2, &b"late"[..]));
}
