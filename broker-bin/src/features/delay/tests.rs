//! Delays from a send to a delivery: the network thread's state and the timer, over a simulated disk and clock.

use std::time::Duration;

use anchorlog_engine::io::sim::IoClass;
use anchorlog_engine::{Put, WriteBatch};

use super::Step;
use crate::limits;
use crate::scene::{Scene, peer, send_fields};
use crate::state::entries;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A delivered message is the one that was sent: only its place in queue and log, and when it was stored, are the delivery's.
#[test]
fn a_delayed_message_comes_at_its_time_once_and_as_it_was_sent() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let sent_ms = scene.now_ms();
    let sent =
        scene.send(id, "T1", 1, "UNIQ_KEY\u{1}K\u{2}TAGS\u{1}A\u{2}KEYS\u{1}a b\u{2}DELAY\u{1}2\u{2}x\u{1}y", b"late");
    assert_eq!((sent.code(), sent.field("queueId"), sent.field("transactionId")), (0, "1", "K"));
    scene.pass(Duration::from_millis(4999));
    assert_eq!(scene.count("T1", 1), 0, "nobody sees it before its time");
    assert!(scene.shared.engine.find(&anchorlog_engine::KeyQuery::new(b"a")).expect("readable").is_empty());
    scene.pass(Duration::from_millis(1));
    let read = scene.read_all("T1", 1);
    assert_eq!(read.len(), 1);
    let read = &read[0];
    assert_eq!((&*read.topic, &*read.body, read.flag, read.sys_flag), ("T1", &b"late"[..], 7, 0));
    assert_eq!((read.born_timestamp, read.born_host, read.reconsume_times), (1_700_000_000_000, peer(), 0));
    assert_eq!(read.store_timestamp, i64::try_from(sent_ms + 5000).expect("small"));
    assert!(read.physical_offset > sent.physical_offset());
    let expected = "UNIQ_KEY=K;TAGS=A;KEYS=a b;DELAY=2;x=y;REAL_TOPIC=T1;REAL_QID=1;\
                    MSG_REGION=DefaultRegion;TRACE_ON=true;CLUSTER=c;";
    assert_eq!(read.properties.replace('\u{1}', "=").replace('\u{2}', ";"), expected);
    let found = scene.shared.engine.find(&anchorlog_engine::KeyQuery::new(b"b")).expect("readable");
    assert_eq!((found.len(), found[0].lsn.0), (1, read.physical_offset));
    scene.pass(seconds(7200));
    assert_eq!(scene.count("T1", 1), 1);
    assert!(scene.entries(entries::due::PREFIX).is_empty());
    let counts = scene.shared.counters.read();
    assert_eq!((counts.messages_delayed, counts.messages_delivered, counts.entries_parked), (1, 1, 0));
}

/// Delayed messages of one turn are one frame; what is delivered at once is not in it. Each has its own place, time and answer.
#[test]
fn of_delayed_messages_that_share_a_frame_each_comes_at_its_own_time() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let mut first = send_fields("T1", 0, "");
    first["d"] = serde_json::json!("8");
    assert_eq!(scene.ask(id, 310, &first, b"first").code(), 0);
    let batches = scene.shared.engine.stats().batches;
    let properties = |number: u32| format!("UNIQ_KEY\u{1}K{number}\u{2}TIMER_DELAY_SEC\u{1}{number}\u{2}");
    for number in [3, 1, 2] {
        let body = number.to_string();
        scene.hand_in(id, 310, &send_fields("T1", number, &properties(number)), body.as_bytes(), 0);
    }
    scene.hand_in(id, 310, &send_fields("T1", 0, ""), b"now", 0);
    // As large as a frame that is shared: it gets its own.
    let large = vec![b'l'; 16 << 10];
    scene.hand_in(id, 310, &send_fields("T1", 4, &properties(4)), &large, 0);
    scene.hand_in(id, 310, &send_fields("T1", 5, &properties(5)), b"5", 0);
    scene.worker.end_of_turn();
    assert_eq!(scene.shared.engine.stats().batches, batches + 4);
    scene.finish();
    let answers = scene.answers(id);
    let places: Vec<_> = answers.iter().map(|answer| (answer.code(), answer.field("queueOffset"))).collect();
    assert_eq!(places, [(0, "0"), (0, "1"), (0, "2"), (0, "1"), (0, "3"), (0, "4")]);
    for (answer, number) in answers.iter().zip([3, 1, 2]) {
        let sent = scene.shared.engine.read(anchorlog_engine::Lsn(answer.physical_offset())).expect("it is there");
        assert_eq!(sent.payload()[0], b'0' + number);
    }
    // One of them is taken back.
    let recall = serde_json::json!({"topic": "T1", "recallHandle": answers[2].field("recallHandle")});
    assert_eq!(scene.ask(id, 370, &recall, &[]).code(), 0);
    scene = scene.crash();
    scene.pass(seconds(1));
    assert_eq!([1, 2, 3, 4, 5].map(|queue| scene.count("T1", queue)), [1, 0, 0, 0, 0]);
    scene.pass(seconds(2));
    assert_eq!([1, 2, 3, 4, 5].map(|queue| scene.count("T1", queue)), [1, 0, 1, 0, 0]);
    scene.pass(seconds(2));
    let read = [1, 3, 4, 5].map(|queue| scene.read_all("T1", queue));
    assert!(read.iter().all(|read| read.len() == 1));
    assert_eq!([0, 1, 3].map(|at: usize| read[at][0].body.clone()), [b"1", b"3", b"5"]);
    assert_eq!((&read[2][0].body, scene.count("T1", 2), scene.count("T1", 0)), (&large, 0, 2));
}

/// K-6: also when both tries come in one turn, and others of the same frame between them.
#[test]
fn of_one_delayed_message_that_comes_twice_in_a_turn_one_is_delivered() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let other = scene.connect_apart();
    scene.send(id, "T1", 0, "", b"first");
    let fields = |key: &str| send_fields("T1", 1, &format!("UNIQ_KEY\u{1}{key}\u{2}DELAY\u{1}1\u{2}"));
    scene.hand_in(id, 310, &fields("A"), b"a", 0);
    scene.hand_in(id, 310, &fields("B"), b"b", 0);
    scene.hand_in(other, 310, &fields("B"), b"b", 0);
    scene.hand_in(id, 310, &fields("C"), b"c", 0);
    scene.worker.end_of_turn();
    scene.finish();
    let (answers, again) = (scene.answers(id), scene.answers(other));
    assert_eq!((answers.len(), again.len()), (3, 1));
    assert_eq!(again[0].physical_offset(), answers[1].physical_offset());
    scene.pass(seconds(1));
    let read = scene.read_all("T1", 1);
    let bodies: Vec<_> = read.iter().map(|read| &*read.body).collect();
    assert_eq!(bodies, [b"a", b"b", b"c"]);
}

#[test]
fn a_timed_message_comes_at_its_time_however_far_that_is() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let year = 365 * 24 * 3600;
    let at_ms = scene.now_ms() + year * 1000;
    scene.send(id, "T1", 0, &format!("TIMER_DELIVER_MS\u{1}{at_ms}\u{2}"), b"far");
    scene.send(id, "T1", 0, "TIMER_DELAY_MS\u{1}40\u{2}", b"near");
    scene.send(id, "T1", 0, "TIMER_DELIVER_MS\u{1}1\u{2}", b"over");
    assert_eq!(scene.count("T1", 0), 1, "a time that is over is now");
    scene.pass(Duration::from_millis(40));
    assert_eq!(scene.count("T1", 0), 2);
    assert_eq!(scene.shared.due.count(), 0, "what is far away takes no memory");
    scene = scene.crash();
    scene.pass(seconds(year - 30));
    assert_eq!((scene.count("T1", 0), scene.shared.due.count()), (2, 1), "read ahead, and not due");
    scene.pass(seconds(30));
    let read = scene.read_all("T1", 0);
    let bodies: Vec<_> = read.iter().map(|read| &*read.body).collect();
    assert_eq!(bodies, [&b"over"[..], b"near", b"far"]);
    for name in ["TIMER_DELIVER_MS", "TIMER_OUT_MS"] {
        assert_eq!(read[2].property(name), Some(&*at_ms.to_string()), "{name}");
    }
    assert!(read[2].property("TIMER_ENQUEUE_MS").is_some() && read[2].property("TIMER_DEQUEUE_MS").is_some());
    assert_eq!(read[0].property("TIMER_OUT_MS"), None);
}

/// K-81, K-83, K-84, K-86: the delivery and its entry's end are one frame, and the table is all there is to read back.
#[test]
fn wherever_the_power_fails_a_message_is_delivered_exactly_once() {
    let (mut before, mut after) = (0, 0);
    for last in 0.. {
        let mut scene = Scene::new();
        let id = scene.connect();
        for (number, level) in [1, 1, 2].into_iter().enumerate() {
            let sent =
                scene.send(id, "T1", 0, &format!("DELAY\u{1}{level}\u{2}"), &[u8::try_from(number).expect("small")]);
            assert_eq!(sent.code(), 0);
        }
        scene.disk.stop_after(scene.disk.io_count() + last);
        scene.clock.advance(seconds(5));
        let finished = scene.run_timer() && !scene.disk.is_dead();
        scene = scene.crash_somehow(last);
        match scene.count("T1", 0) {
            0 => before += 1,
            3 => after += 1,
            _ => {}
        }
        scene.run_timer();
        let mut bodies: Vec<_> = scene.read_all("T1", 0).into_iter().map(|read| read.body).collect();
        bodies.sort();
        assert_eq!(bodies, [[0], [1], [2]], "after I/O {last}");
        assert!(scene.entries(entries::due::PREFIX).is_empty());
        if finished {
            break;
        }
    }
    assert!(before > 0 && after > 0, "{before} {after}");
}

/// A send that was never acknowledged may be lost, and then as a whole.
#[test]
fn wherever_the_power_fails_a_delayed_send_is_there_with_its_entry_or_not_at_all() {
    for last in 0.. {
        let mut scene = Scene::new();
        let id = scene.connect();
        scene.disk.stop_after(scene.disk.io_count() + last);
        scene.give(id, 310, &send_fields("T1", 0, "DELAY\u{1}1\u{2}"), b"x");
        scene.settle();
        scene.worker.acked();
        let acked = scene.answers(id).iter().any(|answer| answer.code() == 0);
        let finished = !scene.disk.is_dead();
        scene = scene.crash_somehow(last);
        scene.pass(seconds(1));
        let hidden = scene.shared.due.hidden(&scene.shared.engine).expect("a queue").clone();
        let stored = scene.shared.engine.range(&hidden).max.0;
        assert_eq!(scene.count("T1", 0), stored, "after I/O {last}");
        assert!(!acked || stored == 1, "after I/O {last}");
        if finished {
            break;
        }
    }
}

/// K-82: what cannot be read, or cannot be done, is parked with all that it was, and stops nothing else.
#[test]
fn an_entry_that_can_never_be_done_is_parked_and_the_others_are_delivered() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let due_ms = scene.now_ms() + 1000;
    let broken = |count: u64, value: &[u8]| {
        let mut batch = WriteBatch::new();
        let epoch = anchorlog_engine::Epoch::default();
        let key = entries::due::encode_key(&super::DueKey { time_ms: due_ms, epoch, count, is_long: true });
        batch.put(&Put { key: &key, value, target: None }).expect("small");
        batch
    };
    scene.append(broken(1, b"\x09 of a later version"));
    scene.append(broken(2, b""));
    let place = super::Place { topic: "gone".into(), queue: 0, tag: 0, keys: Vec::new(), attributes: vec![1] };
    let due = super::Due::Deliver { record_bytes: 1, timed: false, place };
    scene.append(broken(3, &entries::due::encode(&due)));
    let mut odd = WriteBatch::new();
    odd.put(&Put { key: b"due/odd", value: b"?", target: None }).expect("small");
    scene.append(odd);
    assert_eq!(scene.send(id, "T1", 0, "DELAY\u{1}1\u{2}", b"good").code(), 0);
    scene.pass(seconds(1));
    assert_eq!(scene.count("T1", 0), 1);
    assert!(scene.shared.state.topics.get("gone").is_none());
    // A key that names no time sorts among times: it is met when its turn comes, and tells nothing before.
    let parked = scene.entries(entries::parked::PREFIX);
    assert_eq!((parked.len(), scene.shared.counters.read().entries_parked), (3, 3), "{parked:?}");
    let entry = scene.shared.engine.get(&parked[0]).expect("readable").expect("there");
    let was = entries::parked::decode(&parked[0], &entry.value).expect("a parked one");
    assert_eq!(
        (was.key.len(), was.value, &*was.reason),
        (28, &b"\x09 of a later version"[..], "its value is of another version")
    );
    scene = scene.crash();
    scene.pass(seconds(1));
    assert_eq!((scene.count("T1", 0), scene.entries(entries::parked::PREFIX).len()), (1, 3));
}

/// K-85: a full log buffer is a reason to try again, never one to give up.
#[test]
fn what_finds_no_room_is_tried_again_until_there_is() {
    let mut scene = Scene::new();
    let id = scene.connect();
    assert_eq!(scene.send(id, "T1", 0, "DELAY\u{1}1\u{2}", b"late").code(), 0);
    assert!(scene.run_timer());
    // More than the log buffer of 256 KiB holds: the last ones wait in the worker.
    for _ in 0..12 {
        scene.give(id, 310, &send_fields("T1", 1, ""), &[b'x'; 40 << 10]);
    }
    scene.clock.advance(seconds(1));
    // Fills the rest of the buffer, so that not even a small batch fits.
    let queue = scene.shared.engine.queue(b"filler").expect("a queue");
    loop {
        let mut batch = WriteBatch::new();
        let payload: &[&[u8]] = &[b"small"];
        let append = anchorlog_engine::Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload };
        batch.append(&append).expect("small");
        if scene.shared.engine.try_append(&mut batch).is_err() {
            break;
        }
    }
    let now_ms = scene.now_ms();
    for _ in 0..3 {
        assert!(matches!(scene.timer.step(&scene.shared, now_ms), Step::Nap(_)));
    }
    assert_eq!(scene.shared.counters.read().messages_delivered, 0);
    scene.settle();
    assert!(scene.run_timer());
    assert_eq!((scene.count("T1", 0), scene.shared.counters.read().messages_delivered), (1, 1));
}

#[test]
fn much_that_falls_due_at_once_takes_turns_with_live_sends() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let count = limits::DUE_PER_STEP * 2 + 10;
    for _ in 0..count {
        scene.give(id, 310, &send_fields("T1", 0, "DELAY\u{1}1\u{2}"), b"x");
        scene.settle();
    }
    assert!(scene.run_timer());
    scene.clock.advance(seconds(1));
    let now_ms = scene.now_ms();
    let mut turns = 0;
    while let Step::Wait(_) = scene.timer.step(&scene.shared, now_ms) {
        let delivered = scene.shared.counters.read().messages_delivered;
        // Until its turn is acknowledged, the timer adds nothing to the log.
        assert!(matches!(scene.timer.step(&scene.shared, now_ms), Step::Wait(_)));
        assert_eq!(scene.shared.counters.read().messages_delivered, delivered);
        scene.settle();
        turns += 1;
    }
    assert!(turns >= 3, "{turns}");
    assert_eq!(scene.count("T1", 0), count as u64);
}

#[test]
fn delivering_reads_no_message() {
    let mut scene = Scene::new();
    let id = scene.connect();
    scene.send(id, "T1", 0, "DELAY\u{1}3\u{2}", &[b'x'; 5000]);
    // Far beyond the cache of 512 KiB.
    for _ in 0..40 {
        scene.send(id, "T1", 1, "", &[b'x'; 40 << 10]);
    }
    assert!(scene.run_timer());
    scene.clock.advance(seconds(10));
    // The engine's own work, which reads too, has nothing left to do.
    scene.settle();
    let reads = scene.disk.count(IoClass::Read);
    assert!(scene.run_timer());
    assert_eq!((scene.count("T1", 0), scene.disk.count(IoClass::Read)), (1, reads));
    assert_eq!(scene.read_all("T1", 0)[0].body, [b'x'; 5000], "and it is there all the same");
}

#[test]
fn an_entry_that_was_taken_back_is_not_done() {
    let mut scene = Scene::new();
    let id = scene.connect();
    for body in [b"a", b"b"] {
        scene.send(id, "T1", 0, "DELAY\u{1}1\u{2}", body);
    }
    assert!(scene.run_timer());
    let mut batch = WriteBatch::new();
    batch.delete(&scene.entries(entries::due::PREFIX)[0]).expect("a good key");
    // Its place in the log is before the delivery, and no reader has seen it yet.
    drop(scene.shared.engine.try_append(&mut batch).expect("room"));
    scene.pass(seconds(1));
    assert_eq!(scene.read_all("T1", 0).into_iter().map(|read| read.body).collect::<Vec<_>>(), [b"b"]);
}

/// What was sent while the table was being read ahead comes by the other way.
#[test]
fn what_is_sent_while_the_table_is_read_is_not_overlooked() {
    let mut scene = Scene::new();
    let id = scene.connect();
    scene.send(id, "T1", 0, "DELAY\u{1}1\u{2}", b"acked before");
    scene.give(id, 310, &send_fields("T1", 0, "DELAY\u{1}1\u{2}"), b"in the log, and not seen yet");
    let now_ms = scene.now_ms();
    // The horizon moves; the table is not read before it shows what has a place in the log.
    assert!(matches!(scene.timer.step(&scene.shared, now_ms), Step::Wait(_)));
    assert_eq!(scene.shared.due.count(), 0);
    scene.give(id, 310, &send_fields("T1", 0, "DELAY\u{1}1\u{2}"), b"behind the horizon's move");
    assert_eq!(scene.shared.due.count(), 1);
    scene.settle();
    scene.pass(seconds(1));
    assert_eq!(scene.count("T1", 0), 3);
}

#[test]
fn a_timed_message_is_taken_back_or_delivered_and_never_both() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let mut handles = Vec::new();
    for key in ["K1", "K2", "K3"] {
        let sent =
            scene.send(id, "T1", 0, &format!("TIMER_DELAY_SEC\u{1}5\u{2}UNIQ_KEY\u{1}{key}\u{2}"), key.as_bytes());
        handles
            .push(serde_json::json!({"producerGroup": "p", "topic": "T1", "recallHandle": sent.field("recallHandle")}));
    }
    assert!(scene.send(id, "T1", 0, "DELAY\u{1}2\u{2}", b"level").header["extFields"]["recallHandle"].is_null());
    let answer = scene.ask(id, 370, &handles[1], &[]);
    assert_eq!((answer.code(), answer.field("msgId")), (0, "K2"));
    assert_eq!(scene.ask(id, 370, &handles[1], &[]).code(), 1, "it was taken back before");
    let mut elsewhere = handles[0].clone();
    elsewhere["topic"] = serde_json::json!("T2");
    assert_eq!(scene.ask(id, 370, &elsewhere, &[]).code(), 13);
    scene = scene.crash();
    scene.pass(seconds(5));
    let bodies: Vec<_> = scene.read_all("T1", 0).into_iter().map(|read| read.body).collect();
    assert_eq!(bodies, [&b"K1"[..], b"K3", b"level"]);
    let id = scene.connect();
    assert_eq!(scene.ask(id, 370, &handles[0], &[]).code(), 1, "it is delivered");
    assert_eq!(scene.count("T1", 0), 3);
}
