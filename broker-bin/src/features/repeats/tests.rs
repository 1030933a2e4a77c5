//! Sends that come again, over a simulated disk and clock: each message once, and each answer the first one.

use std::time::Duration;

use anchorlog_engine::WriteBatch;
use serde_json::{Value, json};

use crate::features::groups::GroupConfig;
use crate::features::topics::queue_name;
use crate::net::ConnectionId;
use crate::scene::{Answer, Scene, send_fields};
use crate::wire::message::append_property;

const KEY: &str = "UNIQ_KEY\u{1}K1\u{2}TAGS\u{1}A\u{2}KEYS\u{1}order-7\u{2}";
const MINUTE: Duration = Duration::from_secs(60);

/// What an answer says of where a send is.
fn place(answer: &Answer) -> [String; 4] {
    ["msgId", "queueId", "queueOffset", "transactionId"]
        .map(|name| answer.header["extFields"][name].as_str().unwrap_or_default().to_owned())
}

/// A broker, and a connection that is gone in the moment that its send is acknowledged.
fn broken(topic: &str, properties: &str) -> (Scene, [String; 4]) {
    let mut scene = Scene::new();
    let id = scene.connect_apart();
    let sent = scene.send(id, topic, 1, properties, b"once");
    assert_eq!(sent.code(), 0, "{}", sent.header);
    scene.worker.closed(id);
    (scene, place(&sent))
}

fn answered(scene: &Scene) -> u64 {
    scene.shared.counters.read().repeats_answered
}

/// One message of a batch.
fn inner(key: &str, body: &[u8]) -> Vec<u8> {
    let properties = format!("UNIQ_KEY\u{1}{key}\u{2}");
    let total = u32::try_from(22 + body.len() + properties.len()).expect("small");
    let words = [total, 0, 0, 0, u32::try_from(body.len()).expect("small")];
    let mut bytes = words.map(u32::to_be_bytes).concat();
    bytes.extend(body);
    bytes.extend(u16::try_from(properties.len()).expect("small").to_be_bytes());
    bytes.extend(properties.as_bytes());
    bytes
}

fn batch(keys: &[&str]) -> Vec<u8> {
    keys.iter().flat_map(|key| inner(key, key.as_bytes())).collect()
}

fn ids(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.code(), 0, "{}", answer.header);
    answer.field("msgId").split(',').map(str::to_owned).collect()
}

/// K-8: the answer was lost with its connection. Another queue, as clients choose it for another try, changes nothing.
#[test]
fn a_send_whose_answer_was_lost_gets_the_first_answer_and_stores_nothing() {
    let (mut scene, first) = broken("T1", KEY);
    let before = scene.shared.engine.watermarks().assigned;
    for queue in [1, 3] {
        let id = scene.connect_apart();
        let again = scene.send(id, "T1", queue, KEY, b"once");
        assert_eq!((again.code(), place(&again)), (0, first.clone()));
        scene.worker.closed(id);
    }
    assert_eq!(scene.shared.engine.watermarks().assigned, before);
    assert_eq!((scene.count("T1", 1), scene.count("T1", 3), answered(&scene)), (1, 0, 2));
    assert_eq!(scene.shared.counters.read().messages_acked, 1);
}

#[test]
fn what_only_looks_like_a_repeat_is_a_new_message() {
    let with = |name: &str, value: &str| {
        let mut properties = KEY.to_owned();
        append_property(&mut properties, name, value);
        properties
    };
    let same = || send_fields("T1", 1, KEY);
    let other = |name: &str, value: &str| {
        let mut fields = same();
        fields[name] = json!(value);
        fields
    };
    let cases: [(&str, Value, &[u8]); 7] = [
        ("another body", same(), b"twice"),
        ("another topic", other("b", "T2"), b"once"),
        ("another key", other("i", "UNIQ_KEY\u{1}K2\u{2}TAGS\u{1}A\u{2}KEYS\u{1}order-7\u{2}"), b"once"),
        ("no key", other("i", ""), b"once"),
        ("another attempt", other("j", "1"), b"once"),
        ("another tag", other("i", &with("TAGS", "B")), b"once"),
        ("later", other("i", &with("DELAY", "2")), b"once"),
    ];
    for (what, fields, body) in cases {
        let (mut scene, first) = broken("T1", KEY);
        let id = scene.connect_apart();
        let sent = scene.ask(id, 310, &fields, body);
        assert_eq!((sent.code(), answered(&scene)), (0, 0), "{what}");
        assert_ne!(place(&sent), first, "{what}");
    }
    // What a tracing library changes for every try is no difference.
    let (mut scene, first) = broken("T1", KEY);
    let id = scene.connect_apart();
    let sent = scene.send(id, "T1", 1, &with("traceparent", "00-1"), b"once");
    assert_eq!(place(&sent), first);
}

/// Applications send the same object twice: it has the same key.
#[test]
fn what_is_sent_again_after_its_answer_is_a_new_message_while_the_connection_is_open() {
    let mut scene = Scene::new();
    let id = scene.connect_apart();
    let sent = [0, 1, 2].map(|_| place(&scene.send(id, "T1", 1, KEY, b"once")));
    assert_eq!((scene.count("T1", 1), answered(&scene)), (3, 0));
    // The connection of the newest is gone: it is that one's answer that was lost.
    scene.worker.closed(id);
    let id = scene.connect_apart();
    assert_eq!(place(&scene.send(id, "T1", 1, KEY, b"once")), sent[2]);
    // And that was the answer: whoever sends it once more there means it.
    assert_ne!(place(&scene.send(id, "T1", 1, KEY, b"once")), sent[2]);
    assert_eq!((scene.count("T1", 1), answered(&scene)), (4, 1));
}

/// A cut is noticed late: the client may come by another connection before the broker knows that the first one is gone.
#[test]
fn a_repeat_by_another_connection_waits_a_moment_for_the_first_one_to_close() {
    for closes in [true, false] {
        let mut scene = Scene::new();
        let (first, other) = (scene.connect_apart(), scene.connect_apart());
        let sent = place(&scene.send(first, "T1", 1, KEY, b"once"));
        scene.give(other, 310, &send_fields("T1", 1, KEY), b"once");
        for _ in 0..3 {
            scene.finish();
            assert!(scene.answers(other).is_empty());
        }
        if closes {
            scene.worker.closed(first);
        }
        scene.pass(Duration::from_millis(100));
        scene.finish();
        let again = place(&scene.answers(other)[0]);
        assert_eq!((again == sent, scene.count("T1", 1)), (closes, if closes { 1 } else { 2 }));
    }
    // Whose connection was alive since has its answer: nobody waits.
    let mut scene = Scene::new();
    let (first, other) = (scene.connect_apart(), scene.connect_apart());
    scene.send(first, "T1", 1, KEY, b"once");
    scene.pass(Duration::from_secs(3));
    assert_eq!(scene.send(first, "T2", 0, "", b"alive").code(), 0);
    assert_eq!(scene.send(other, "T1", 1, KEY, b"once").code(), 0);
    assert_eq!((scene.count("T1", 1), answered(&scene)), (2, 0));
}

/// K-7: the client gives up before the broker does.
#[test]
fn a_repeat_of_what_is_on_its_way_waits_and_shares_its_outcome() {
    let mut scene = Scene::new();
    let id = scene.connect_apart();
    scene.give(id, 310, &send_fields("T1", 1, KEY), b"once");
    // On the same connection, and on another one.
    let other = scene.connect_apart();
    scene.give(id, 310, &send_fields("T1", 2, KEY), b"once");
    scene.give(other, 310, &send_fields("T1", 3, KEY), b"once");
    assert!(scene.answers(id).is_empty() && scene.answers(other).is_empty());
    scene.finish();
    let (first, second) = (scene.answers(id), scene.answers(other));
    assert_eq!((first.len(), second.len()), (2, 1));
    let places: Vec<_> = first.iter().chain(&second).map(place).collect();
    assert!(places.iter().all(|one| *one == places[0]), "{places:?}");
    assert_eq!((scene.count("T1", 1), answered(&scene)), (1, 2));
}

/// Two tries that are parsed before either has a place in the log.
#[test]
fn a_repeat_of_what_has_no_place_yet_waits_until_it_has_one() {
    let mut scene = Scene::new();
    let id = scene.connect_apart();
    for queue in [1, 2] {
        scene.hand_in(id, 310, &send_fields("T1", queue, KEY), b"once", 0);
    }
    // A oneway try, too; nobody hears of it.
    scene.hand_in(id, 310, &send_fields("T1", 3, KEY), b"once", 2);
    scene.worker.end_of_turn();
    scene.finish();
    let answers = scene.answers(id);
    assert_eq!(answers.iter().map(place).collect::<Vec<_>>(), vec![place(&answers[0]); 2]);
    assert_eq!((scene.count("T1", 1), scene.count("T1", 2), scene.count("T1", 3)), (1, 0, 0));
    assert!(scene.worker.is_settled());
}

/// K-6: 10 says that nobody knows. The same send gets a sure answer later, on the same connection.
#[test]
fn what_was_answered_as_unknown_gets_a_sure_answer_when_it_comes_again() {
    let mut scene = Scene::new();
    let id = scene.connect_apart();
    scene.give(id, 310, &send_fields("T1", 1, KEY), b"once");
    scene.clock.advance(Duration::from_millis(1500));
    scene.worker.set_time(scene.shared.engine.clock().monotonic());
    scene.give(id, 310, &send_fields("T1", 1, KEY), b"once");
    let unknown = |scene: &mut Scene, time: u64| {
        scene.clock.advance(Duration::from_millis(time));
        scene.worker.set_time(scene.shared.engine.clock().monotonic());
        scene.worker.tick();
        let answer = scene.answers(id).remove(0);
        assert_eq!(answer.code(), 10, "{}", answer.header);
        place(&answer)
    };
    let first = unknown(&mut scene, 1000);
    assert_eq!(unknown(&mut scene, 1500), first, "the second try shares the first one's outcome");
    scene.finish();
    let sure = scene.send(id, "T1", 1, KEY, b"once");
    assert_eq!((sure.code(), place(&sure)), (0, first));
    assert_eq!((scene.count("T1", 1), answered(&scene)), (1, 1));
    assert_eq!(scene.shared.counters.read().messages_unconfirmed, 1);
    scene.send(id, "T1", 1, KEY, b"once");
    assert_eq!(scene.count("T1", 1), 2, "it has its answer now");
}

#[test]
fn a_batch_that_comes_again_is_answered_as_it_was() {
    let mut scene = Scene::new();
    let id = scene.connect_apart();
    let twice = batch(&["K1", "K2", "K1", "K3"]);
    let first = scene.ask(id, 320, &send_fields("T1", 1, ""), &twice);
    assert_eq!((ids(&first).len(), scene.count("T1", 1)), (4, 4), "a message that it holds twice is stored twice");
    scene.worker.closed(id);
    let id = scene.connect_apart();
    let again = scene.ask(id, 320, &send_fields("T1", 2, ""), &twice);
    assert_eq!(place(&again), place(&first));
    assert_eq!((scene.count("T1", 1), scene.count("T1", 2), answered(&scene)), (4, 0, 4));
}

#[test]
fn of_a_batch_that_was_stored_in_part_the_rest_is_stored() {
    let mut scene = Scene::new();
    let id = scene.connect_apart();
    let first = ids(&scene.ask(id, 320, &send_fields("T1", 1, ""), &batch(&["K1", "K2", "K3"])));
    scene.worker.closed(id);
    let id = scene.connect_apart();
    let part = scene.ask(id, 320, &send_fields("T1", 2, ""), &batch(&["K9", "K2", "K8", "K3"]));
    let found = ids(&part);
    assert_eq!([&found[1], &found[3]], [&first[1], &first[2]]);
    assert!(!first.contains(&found[0]) && !first.contains(&found[2]));
    assert_eq!((part.field("queueId"), part.field("queueOffset")), ("2", "0"));
    let stored: Vec<_> = scene.read_all("T1", 2).into_iter().map(|read| read.body).collect();
    assert_eq!(stored, [b"K9", b"K8"]);
    // The first of it was stored before: so are its queue and offset.
    scene.worker.closed(id);
    let id = scene.connect_apart();
    let part = scene.ask(id, 320, &send_fields("T1", 3, ""), &batch(&["K3", "K7"]));
    assert_eq!((part.field("queueId"), part.field("queueOffset"), &ids(&part)[0]), ("1", "2", &first[2]));
    assert_eq!((scene.count("T1", 1), scene.count("T1", 3), answered(&scene)), (3, 1, 3));
    // And what that batch brought is known, too.
    scene.worker.closed(id);
    let id = scene.connect_apart();
    let again = scene.ask(id, 320, &send_fields("T1", 0, ""), &batch(&["K3", "K7"]));
    assert_eq!(place(&again), place(&part));
}

#[test]
fn delayed_messages_and_halves_are_recognised_before_and_after_they_can_be_read() {
    let half = format!("{KEY}TRAN_MSG\u{1}true\u{2}PGROUP\u{1}pg\u{2}");
    let (level, timed) = (format!("{KEY}DELAY\u{1}2\u{2}"), format!("{KEY}TIMER_DELAY_SEC\u{1}5\u{2}"));
    for properties in [&level, &timed, &half] {
        let mut scene = Scene::new();
        let id = scene.connect_apart();
        let first = scene.send(id, "T1", 1, properties, b"once");
        for delivered in 0..2 {
            scene.worker.closed(id);
            let id = scene.connect_apart();
            let again = scene.send(id, "T1", 3, properties, b"once");
            assert_eq!((again.code(), place(&again)), (0, place(&first)), "{properties}");
            assert_eq!(again.header["extFields"]["recallHandle"], first.header["extFields"]["recallHandle"]);
            assert_eq!(scene.count("T1", 1), if properties == &half { 0 } else { delivered });
            scene.worker.closed(id);
            scene.pass(Duration::from_secs(5));
        }
        assert_eq!(scene.count("T1", 3), 0);
        let counts = scene.shared.counters.read();
        let stored = counts.messages_delayed + counts.transactions_begun;
        assert_eq!((stored, counts.repeats_answered), (1, 2), "{properties}");
    }
    // By the time of the second try the moment is over.
    let mut scene = Scene::new();
    let id = scene.connect_apart();
    let properties = format!("{KEY}TIMER_DELIVER_MS\u{1}{}\u{2}", scene.now_ms() + 500);
    let first = scene.send(id, "T1", 1, &properties, b"once");
    scene.worker.closed(id);
    scene.pass(Duration::from_secs(1));
    let id = scene.connect_apart();
    assert_eq!(place(&scene.send(id, "T1", 1, &properties, b"once")), place(&first));
    assert_eq!(scene.count("T1", 1), 1);
}

/// Nobody sees it any more: whoever sends it again wants that it is seen.
#[test]
fn a_half_message_that_was_rolled_back_is_a_new_one_when_it_comes_again() {
    let half = format!("{KEY}TRAN_MSG\u{1}true\u{2}PGROUP\u{1}pg\u{2}");
    for (verdict, is_repeat) in [("8", true), ("12", false)] {
        let (mut scene, first) = broken("T1", &half);
        let id = scene.connect_apart();
        let lsn = u64::from_str_radix(&first[0][16..], 16).expect("an id");
        let fields = json!({
            "producerGroup": "pg", "tranStateTableOffset": first[2], "commitLogOffset": lsn.to_string(),
            "commitOrRollback": verdict, "fromTransactionCheck": "false", "msgId": "K1",
        });
        assert_eq!(scene.ask(id, 37, &fields, &[]).code(), 0);
        let again = scene.send(id, "T1", 1, &half, b"once");
        assert_eq!((place(&again) == first, answered(&scene) == 1), (is_repeat, is_repeat), "{verdict}");
    }
}

/// K-77: what stands in a queue that was dropped cannot be read any more.
#[test]
fn a_topic_that_was_deleted_and_made_again_has_nothing_of_what_was_sent_before() {
    let (mut scene, first) = broken("T1", KEY);
    let queue = scene.shared.engine.queue(&queue_name("T1", 1)).expect("a queue");
    let mut batch = WriteBatch::new();
    batch.drop_queue(&queue).expect("small");
    scene.append(batch);
    let mut scene = scene.crash();
    let id = scene.connect_apart();
    let again = scene.send(id, "T1", 1, KEY, b"once");
    assert_eq!((again.code(), again.field("queueOffset"), scene.count("T1", 1)), (0, "0", 1));
    assert_ne!(place(&again), first);
}

/// What consumers send to be tried again has the key of the message that it was made of.
#[test]
fn what_is_moved_by_the_broker_or_sent_to_a_retry_topic_is_never_taken_for_a_repeat() {
    let (mut scene, first) = broken("T1", KEY);
    scene.shared.state.put_group("g", GroupConfig::default());
    let id = scene.connect_apart();
    let lsn = u64::from_str_radix(&first[0][16..], 16).expect("an id");
    let back = json!({"offset": lsn.to_string(), "group": "g", "delayLevel": "1", "maxReconsumeTimes": "16"});
    assert_eq!(scene.ask(id, 36, &back, &[]).code(), 0);
    scene.pass(Duration::from_secs(1));
    assert_eq!(scene.count("%RETRY%g", 0), 1);
    for round in 1..3 {
        let id = scene.connect_apart();
        let mut fields = send_fields("%RETRY%g", 0, KEY);
        fields["j"] = json!("1");
        assert_eq!(scene.ask(id, 310, &fields, b"once").code(), 0);
        assert_eq!(scene.count("%RETRY%g", 0), 1 + round);
        scene.worker.closed(id);
    }
    // The link has the same key, and is no send: the first one is found behind it, also after a restart.
    for _ in 0..2 {
        let id = scene.connect_apart();
        assert_eq!(place(&scene.send(id, "T1", 0, KEY, b"once")), first);
        scene = scene.crash();
    }
}

/// Nothing but the log is needed to know what was sent.
#[test]
fn the_window_is_there_again_after_a_restart_and_ends_in_time() {
    let (scene, first) = broken("T1", KEY);
    let mut scene = scene.crash();
    assert!(scene.shared.repeats.count() > 0);
    let id = scene.connect_apart();
    assert_eq!(place(&scene.send(id, "T1", 1, KEY, b"once")), first);
    scene.worker.closed(id);
    scene.pass(9 * MINUTE);
    let mut scene = scene.crash();
    let id = scene.connect_apart();
    assert_eq!(place(&scene.send(id, "T1", 1, KEY, b"once")), first);
    scene.worker.closed(id);
    for crashes in [false, true] {
        scene.pass(11 * MINUTE);
        if crashes {
            scene = scene.crash();
            assert_eq!(scene.shared.repeats.count(), 0, "what is too old is not read");
        }
        let id = scene.connect_apart();
        assert_ne!(place(&scene.send(id, "T1", 1, KEY, b"once")), first);
        scene.worker.closed(id);
    }
    assert_eq!(scene.count("T1", 1), 3);
}

/// K-7, K-8: wherever the power fails, and whatever of it survives, a client that goes on until it has an answer has sent it once.
#[test]
fn wherever_the_power_fails_a_client_that_tries_again_has_sent_it_once() {
    let delayed = format!("{KEY}DELAY\u{1}1\u{2}");
    for (code, properties, body) in
        [(310, KEY, b"once".to_vec()), (310, &delayed, b"once".to_vec()), (320, "", batch(&["K1", "K2"]))]
    {
        for last in 0.. {
            let mut scene = Scene::new();
            let id = scene.connect_apart();
            scene.send(id, "T1", 0, "", b"before");
            scene.disk.stop_after(scene.disk.io_count() + last);
            scene.give(id, code, &send_fields("T1", 1, properties), &body);
            scene.finish();
            let first = scene.answers(id).iter().find(|answer| answer.code() == 0).map(place);
            let finished = first.is_some() && !scene.disk.is_dead();
            for round in 0..3 {
                scene = scene.crash_somehow(last + round);
                let id = scene.connect_apart();
                let again = scene.ask(id, code, &send_fields("T1", 2, properties), &body);
                assert_eq!(again.code(), 0);
                if let Some(first) = &first {
                    assert_eq!(place(&again), *first, "after I/O {last}");
                }
            }
            scene.pass(Duration::from_secs(1));
            let count = scene.count("T1", 1) + scene.count("T1", 2);
            assert_eq!(count, if code == 320 { 2 } else { 1 }, "{properties} after I/O {last}");
            if finished {
                break;
            }
        }
    }
}

#[test]
fn a_send_that_was_refused_has_claimed_nothing() {
    let mut scene = Scene::new();
    let id = scene.connect_apart();
    let huge = vec![7; 300 << 10];
    assert_eq!(scene.send(id, "T1", 1, KEY, &huge).code(), 13, "it fits no segment of this log");
    assert_eq!(scene.send(id, "T1", 1, KEY, &huge).code(), 13);
    assert_eq!((scene.send(id, "T1", 1, KEY, b"once").code(), scene.shared.repeats.count() > 0), (0, true));
}

fn send_back(scene: &mut Scene, id: ConnectionId, lsn: u64, level: i64) -> i64 {
    let fields = json!({
        "offset": lsn.to_string(), "group": "g", "delayLevel": level.to_string(), "originMsgId": "", "maxReconsumeTimes": "16",
    });
    scene.ask(id, 36, &fields, &[]).code()
}

/// A group, and the place of a message that it has read.
fn read_one() -> (Scene, u64) {
    let mut scene = Scene::new();
    let id = scene.connect_apart();
    scene.shared.state.put_group("g", GroupConfig::default());
    let sent = scene.send(id, "T1", 1, KEY, b"poison");
    (scene, sent.physical_offset())
}

#[test]
fn what_is_sent_back_again_because_the_answer_was_lost_is_tried_again_once() {
    for (level, topic) in [(1, "%RETRY%g"), (-1, "%DLQ%g")] {
        let (mut scene, lsn) = read_one();
        // Before it was delivered, after that, and after a restart, before and after that.
        for crashes in [false, false, true, true] {
            let id = scene.connect_apart();
            assert_eq!(send_back(&mut scene, id, lsn, level), 0);
            scene.worker.closed(id);
            if crashes {
                scene = scene.crash();
            } else {
                scene.pass(Duration::from_secs(1));
            }
        }
        scene.pass(Duration::from_secs(1));
        assert_eq!(scene.count(topic, 0), 1, "{topic}");
        // The next attempt is another message.
        if level > 0 {
            let next = scene.read_all(topic, 0)[0].physical_offset;
            let id = scene.connect_apart();
            assert_eq!(send_back(&mut scene, id, next, level), 0);
            scene.pass(Duration::from_secs(1));
            assert_eq!(scene.count(topic, 0), 2);
        }
    }
}

#[test]
fn a_send_back_that_waits_for_its_time_is_known_after_a_restart() {
    let (mut scene, lsn) = read_one();
    for _ in 0..3 {
        let id = scene.connect_apart();
        assert_eq!(send_back(&mut scene, id, lsn, 3), 0);
        scene = scene.crash();
    }
    scene.pass(Duration::from_secs(10));
    assert_eq!((scene.count("%RETRY%g", 0), answered(&scene)), (1, 0), "counted before the last restart");
}

#[test]
fn two_send_backs_of_one_message_on_their_way_at_once_are_one() {
    let (mut scene, lsn) = read_one();
    let ids = [scene.connect_apart(), scene.connect_apart()];
    let fields = json!({"offset": lsn.to_string(), "group": "g", "delayLevel": "1", "maxReconsumeTimes": "16"});
    for id in ids {
        scene.give(id, 36, &fields, &[]);
    }
    scene.finish();
    scene.worker.end_of_turn();
    scene.finish();
    for id in ids {
        assert_eq!(scene.answers(id).iter().map(Answer::code).collect::<Vec<_>>(), [0]);
    }
    scene.pass(Duration::from_secs(1));
    assert_eq!((scene.count("%RETRY%g", 0), answered(&scene)), (1, 1));
}

/// K-6 for consumers.
#[test]
fn a_send_back_that_was_answered_as_unknown_gets_a_sure_answer_and_is_over_then() {
    let (mut scene, lsn) = read_one();
    let id = scene.connect_apart();
    let fields = json!({"offset": lsn.to_string(), "group": "g", "delayLevel": "1", "maxReconsumeTimes": "16"});
    scene.give(id, 36, &fields, &[]);
    scene.await_tasks();
    scene.clock.advance(Duration::from_millis(2500));
    scene.worker.set_time(scene.shared.engine.clock().monotonic());
    scene.worker.tick();
    assert_eq!(scene.answers(id)[0].code(), 1);
    assert_eq!((send_back(&mut scene, id, lsn, 1), answered(&scene)), (0, 1));
    scene.pass(Duration::from_secs(1));
    assert_eq!(scene.count("%RETRY%g", 0), 1);
    assert_eq!((send_back(&mut scene, id, lsn, 1), answered(&scene)), (0, 1), "it has its answer now");
    scene.pass(Duration::from_secs(1));
    assert_eq!(scene.count("%RETRY%g", 0), 2);
}

/// Whoever reads a message again after a rewind, and fails again, means it.
#[test]
fn what_is_sent_back_again_after_its_answer_is_tried_again_while_the_connection_is_open() {
    let (mut scene, lsn) = read_one();
    let id = scene.connect_apart();
    for _ in 0..2 {
        assert_eq!(send_back(&mut scene, id, lsn, 1), 0);
        scene.pass(Duration::from_secs(1));
    }
    assert_eq!((scene.count("%RETRY%g", 0), answered(&scene)), (2, 0));
}
