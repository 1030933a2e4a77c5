//! Transactions from the half message to its end, over a simulated disk and clock.

use std::time::Duration;

use anchorlog_engine::io::sim::{IoClass, Times};
use anchorlog_engine::{KeyQuery, Put, WriteBatch};
use serde_json::{Value, json};

use crate::features::delay::Step;
use crate::limits;
use crate::net::ConnectionId;
use crate::scene::{Answer, Scene, peer, send_fields};
use crate::state::entries;

const HALF: &str =
    "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}pg\u{2}UNIQ_KEY\u{1}K1\u{2}TAGS\u{1}tx\u{2}KEYS\u{1}order-7\u{2}x\u{1}y";
const COMMIT: i32 = 8;
const ROLLBACK: i32 = 12;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn half_fields(properties: &str) -> Value {
    let mut fields = send_fields("T1", 2, properties);
    fields["f"] = json!("4");
    fields
}

/// A half message, and the verdict that its producer can give.
fn begin(scene: &mut Scene, id: ConnectionId) -> (Answer, Value) {
    let half = scene.ask(id, 310, &half_fields(HALF), b"half");
    assert_eq!((half.code(), half.field("transactionId")), (0, "K1"));
    let end = json!({
        "producerGroup": "pg", "topic": "T1", "commitLogOffset": half.physical_offset().to_string(),
        "tranStateTableOffset": half.field("queueOffset"), "commitOrRollback": COMMIT.to_string(),
        "fromTransactionCheck": "false", "msgId": "K1", "transactionId": "K1",
    });
    (half, end)
}

fn end(scene: &mut Scene, id: ConnectionId, fields: &Value, verdict: i32) -> Answer {
    let mut fields = fields.clone();
    fields["commitOrRollback"] = json!(verdict.to_string());
    scene.ask(id, 37, &fields, &[])
}

/// A heartbeat of a producer.
fn beat(scene: &mut Scene, id: ConnectionId) {
    let beat = json!({"clientID": "p@1", "producerDataSet": [{"groupName": "pg"}], "consumerDataSet": []});
    assert_eq!(scene.ask(id, 34, &json!(null), beat.to_string().as_bytes()).code(), 0);
}

/// What a connection was asked.
fn questions(scene: &mut Scene, id: ConnectionId) -> Vec<Answer> {
    scene.worker.mail();
    let all = scene.answers(id);
    all.into_iter().filter(|frame| frame.code() == 39).collect()
}

fn transactions(scene: &Scene) -> usize {
    scene.entries(entries::transaction::PREFIX).len()
}

#[test]
fn a_committed_message_is_read_where_and_as_it_was_sent_and_not_before() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let (half, fields) = begin(&mut scene, id);
    assert_eq!(scene.count("T1", 2), 0);
    assert!(
        scene.shared.engine.find(&KeyQuery::new(b"order-7")).expect("readable").is_empty(),
        "not by its key either"
    );
    assert_eq!(end(&mut scene, id, &fields, 0).code(), 0, "it does not know yet");
    assert_eq!(scene.count("T1", 2), 0);
    scene.pass(seconds(1));
    assert_eq!(end(&mut scene, id, &fields, COMMIT).code(), 0);
    let read = scene.read_all("T1", 2).remove(0);
    assert_eq!((&*read.topic, &*read.body, read.flag, read.reconsume_times), ("T1", &b"half"[..], 7, 0));
    assert_eq!((read.born_timestamp, read.born_host, read.sys_flag), (1_700_000_000_000, peer(), 8));
    assert_eq!(read.prepared_offset.cast_unsigned(), half.physical_offset());
    let expected = "TRAN_MSG=true;PGROUP=pg;UNIQ_KEY=K1;TAGS=tx;KEYS=order-7;x=y;REAL_TOPIC=T1;REAL_QID=2;__transactionId__=K1;\
                    MSG_REGION=DefaultRegion;TRACE_ON=true;CLUSTER=c;";
    assert_eq!(read.properties.replace('\u{1}', "=").replace('\u{2}', ";"), expected);
    let found = scene.shared.engine.find(&KeyQuery::new(b"order-7")).expect("readable");
    assert_eq!((found.len(), found[0].tag), (1, crate::wire::message::tag_hash("tx")));
}

/// K-90: the first outcome wins; who repeats it hears the same, who contradicts it is refused.
#[test]
fn a_verdict_counts_once_and_its_contrary_never() {
    for (first, then, count) in [(COMMIT, ROLLBACK, 1), (ROLLBACK, COMMIT, 0)] {
        let mut scene = Scene::new();
        let id = scene.connect();
        let (_, fields) = begin(&mut scene, id);
        for _ in 0..3 {
            assert_eq!(end(&mut scene, id, &fields, first).code(), 0);
        }
        assert_eq!(end(&mut scene, id, &fields, then).code(), 1);
        scene = scene.crash();
        let id = scene.connect();
        assert_eq!(end(&mut scene, id, &fields, first).code(), 0);
        assert_eq!(end(&mut scene, id, &fields, then).code(), 1);
        assert_eq!((scene.count("T1", 2), scene.shared.counters.read().verdicts_refused), (count, 1));
        // Nobody is asked about it, and in the end it is forgotten.
        beat(&mut scene, id);
        scene.pass(seconds(60));
        assert!(questions(&mut scene, id).is_empty());
        scene.pass(Duration::from_millis(limits::OUTCOME_KEPT_MS));
        assert_eq!((transactions(&scene), scene.entries(entries::due::PREFIX).len()), (0, 0));
        let id = scene.connect();
        assert_eq!(end(&mut scene, id, &fields, first).code(), 1, "how is forgotten, and it is not done again");
        assert_eq!(scene.count("T1", 2), count);
    }
}

/// Both are on their way to the log before either is in it: the precondition decides.
#[test]
fn of_two_verdicts_in_flight_the_first_in_the_log_counts() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let (_, mut fields) = begin(&mut scene, id);
    scene.give(id, 37, &fields, &[]);
    fields["commitOrRollback"] = json!(ROLLBACK.to_string());
    scene.give(id, 37, &fields, &[]);
    fields["commitOrRollback"] = json!(COMMIT.to_string());
    scene.give(id, 37, &fields, &[]);
    scene.finish();
    let mut codes: Vec<_> = scene.answers(id).iter().map(Answer::code).collect();
    codes.sort_unstable();
    let committed = scene.count("T1", 2);
    // Readers are several: any of them may have been first.
    assert_eq!(codes, if committed == 1 { [0, 0, 1] } else { [0, 1, 1] });
    let counts = scene.shared.counters.read();
    assert_eq!(counts.transactions_committed, committed);
    assert_eq!(counts.transactions_committed + counts.transactions_rolled_back, 1);
}

/// K-88, K-89, K-90: wherever the power fails, a message is there once when its commit was answered, and never before it was asked for.
#[test]
fn wherever_the_power_fails_a_transaction_is_decided_once() {
    let (mut without, mut with) = (0, 0);
    for last in 0.. {
        let mut scene = Scene::new();
        let id = scene.connect();
        let (_, fields) = begin(&mut scene, id);
        scene.disk.stop_after(scene.disk.io_count() + last);
        scene.give(id, 37, &fields, &[]);
        scene.finish();
        let acked = scene.answers(id).iter().any(|answer| answer.code() == 0);
        let finished = acked && !scene.disk.is_dead();
        scene = scene.crash_somehow(last);
        let count = scene.count("T1", 2);
        assert!(count == 1 || !acked && count == 0, "{count} after I/O {last}, acked: {acked}");
        without += u64::from(count == 0);
        with += u64::from(count == 1);
        // The producer says it again, as after a lost answer.
        let id = scene.connect();
        assert_eq!(end(&mut scene, id, &fields, COMMIT).code(), 0);
        assert_eq!(scene.count("T1", 2), 1);
        if finished {
            break;
        }
    }
    assert!(without > 0 && with > 0, "{without} {with}");
}

/// K-90a: the log takes nothing any more, so nothing is decided, and nobody is told that it was.
#[test]
fn a_verdict_that_cannot_be_written_is_not_answered_as_done() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let (_, fields) = begin(&mut scene, id);
    scene.disk.fail(IoClass::Write, scene.disk.count(IoClass::Write) + 1, 5, Times::Forever);
    assert_ne!(end(&mut scene, id, &fields, COMMIT).code(), 0);
    scene = scene.crash();
    let id = scene.connect();
    assert_eq!((scene.count("T1", 2), transactions(&scene)), (0, 1));
    assert_eq!(end(&mut scene, id, &fields, COMMIT).code(), 0);
}

#[test]
fn the_producer_is_asked_what_it_has_not_said_and_its_answer_counts() {
    let mut scene = Scene::new();
    let (producer, plain) = (scene.connect(), scene.connect());
    beat(&mut scene, plain);
    let (half, mut fields) = begin(&mut scene, producer);
    scene.pass(Duration::from_millis(5_999));
    assert!(questions(&mut scene, producer).is_empty());
    scene.pass(Duration::from_millis(1));
    let asked = questions(&mut scene, producer).remove(0);
    assert_eq!((asked.field("commitLogOffset"), asked.field("msgId")), (&*half.physical_offset().to_string(), "K1"));
    assert_eq!((asked.field("tranStateTableOffset"), asked.field("transactionId")), (half.field("queueOffset"), "K1"));
    assert_eq!((asked.field("offsetMsgId"), asked.header["flag"].as_i64()), (half.field("msgId"), Some(2)));
    let record = crate::wire::message::records(&asked.body).next().expect("one").expect("readable");
    assert_eq!((&*record.topic, record.head.queue_id, record.body), ("T1", 2, &b"half"[..]));
    assert!(record.properties.contains("PGROUP\u{1}pg\u{2}") && record.head.sys_flag == 0);
    assert!(questions(&mut scene, plain).is_empty(), "it has the same group and decides nothing");
    fields["fromTransactionCheck"] = json!("true");
    fields["topic"] = json!("");
    assert_eq!(end(&mut scene, producer, &fields, COMMIT).code(), 0);
    assert_eq!(scene.count("T1", 2), 1);
    scene.pass(seconds(40));
    assert!(questions(&mut scene, producer).is_empty());
    assert_eq!(scene.shared.counters.read().transactions_asked, 1);
}

/// K-91, K-92, K-93: only questions to somebody who is there and decides count; after the last the message is kept, shown, and can be
/// decided still.
#[test]
fn a_transaction_that_nobody_decides_is_kept_and_can_be_decided_still() {
    for verdict in [COMMIT, ROLLBACK] {
        let mut scene = Scene::new();
        let id = scene.connect();
        let (_, fields) = begin(&mut scene, id);
        scene.worker.closed(id);
        // An hour without a producer: nobody to ask, and nothing counted.
        for _ in 0..120 {
            scene.pass(seconds(30));
        }
        assert_eq!(scene.shared.counters.read().transactions_asked, 0);
        scene = scene.crash();
        let id = scene.connect();
        let mut asked = 0;
        let mut unknown = fields.clone();
        unknown["fromTransactionCheck"] = json!("true");
        for _ in 0..20 {
            beat(&mut scene, id);
            scene.pass(seconds(30));
            for _ in questions(&mut scene, id) {
                asked += 1;
                assert_eq!(end(&mut scene, id, &unknown, 0).code(), 0);
            }
        }
        // The first does not count: nobody knew by then who decides.
        assert_eq!((asked, scene.shared.counters.read().transactions_parked), (16, 1));
        let shown = scene.read_all("TRANS_CHECK_MAX_TIME_TOPIC", 0).remove(0);
        assert_eq!((&*shown.body, shown.property("REAL_TOPIC")), (&b"half"[..], Some("T1")));
        assert_eq!((scene.count("T1", 2), scene.entries(entries::due::PREFIX).len()), (0, 0));
        scene = scene.crash();
        let id = scene.connect();
        assert_eq!(end(&mut scene, id, &fields, verdict).code(), 0);
        assert_eq!(end(&mut scene, id, &fields, verdict).code(), 0);
        assert_eq!(scene.count("T1", 2), u64::from(verdict == COMMIT));
        scene.pass(Duration::from_millis(limits::OUTCOME_KEPT_MS));
        assert_eq!((transactions(&scene), scene.entries(entries::due::PREFIX).len()), (0, 0));
    }
}

/// K-91, K-92: its producer may be away, or the broker may not know it yet after a restart.
#[test]
fn questions_to_those_that_send_plain_messages_under_the_same_name_burn_none() {
    let mut scene = Scene::new();
    let producer = scene.connect();
    let (_, mut fields) = begin(&mut scene, producer);
    scene.worker.closed(producer);
    let plain = scene.connect();
    let mut asked = 0;
    // An hour of that: it is asked for as long as fifteen questions take, and never answers.
    for _ in 0..120 {
        beat(&mut scene, plain);
        scene.pass(seconds(30));
        asked += questions(&mut scene, plain).len();
    }
    let counts = scene.shared.counters.read();
    assert_eq!((asked, counts.transactions_parked), (15, 0));
    // The one that decides is back, by a connection of which nobody knows.
    let back = scene.connect();
    for _ in 0..3 {
        beat(&mut scene, back);
        scene.pass(seconds(30));
    }
    assert_eq!(questions(&mut scene, back).len(), 3);
    assert!(questions(&mut scene, plain).is_empty());
    fields["fromTransactionCheck"] = json!("true");
    assert_eq!(end(&mut scene, back, &fields, COMMIT).code(), 0);
    assert_eq!((scene.count("T1", 2), transactions(&scene)), (1, 1));
}

/// K-92: a wait of its own burns no question.
#[test]
fn a_message_may_say_when_its_producer_is_asked_first() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let properties = format!("{HALF}\u{2}CHECK_IMMUNITY_TIME_IN_SECONDS\u{1}60\u{2}");
    assert_eq!(scene.ask(id, 310, &half_fields(&properties), b"half").code(), 0);
    for _ in 0..59 {
        scene.pass(seconds(1));
    }
    assert!(questions(&mut scene, id).is_empty());
    scene.pass(seconds(1));
    assert_eq!(questions(&mut scene, id).len(), 1);
}

/// K-92a: each entry has its own time, and a broken one stops nobody.
#[test]
fn a_broken_transaction_does_not_keep_others_from_being_asked() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let ask_ms = scene.now_ms() + 6000;
    for count in 0..3u64 {
        let mut batch = WriteBatch::new();
        let epoch = anchorlog_engine::Epoch::default();
        let key = crate::features::delay::DueKey { time_ms: ask_ms, epoch, count: 1000 + count, is_long: true };
        let due = entries::due::encode_key(&key);
        let name = &due[12..];
        let ask = [&[1, 3][..], name, &[0; 4]].concat();
        batch.put(&Put { key: &due, value: &ask, target: None }).expect("small");
        let value: &[u8] = [&b"\x01\x01pg"[..], b"\x07", b"\x01\x09"][usize::try_from(count).expect("small")];
        batch.put(&Put { key: &[&b"txn/"[..], name].concat(), value, target: None }).expect("small");
        scene.append(batch);
    }
    begin(&mut scene, id);
    scene.pass(seconds(6));
    assert_eq!(questions(&mut scene, id).len(), 1);
    assert_eq!(scene.entries(entries::parked::PREFIX).len(), 3);
}

/// What was written before format 3: an entry that says when to ask, and a transaction that does not.
#[test]
fn a_transaction_of_an_older_store_is_asked_about_and_decided() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let (half, fields) = begin(&mut scene, id);
    let key = scene.entries(entries::transaction::PREFIX).remove(0);
    let name = entries::transaction::decode_key(&key).expect("a key");
    let due = crate::features::delay::DueKey { is_long: true, ..name.due_at(scene.now_ms() + 6000) };
    let target = scene.shared.engine.reference_to(anchorlog_engine::Lsn(half.physical_offset()), 0).into();
    let mut batch = WriteBatch::new();
    batch.put(&Put { key: &key, value: b"\x01\x01pg", target: Some(target) }).expect("small");
    let ask = entries::due::encode(&crate::features::delay::Due::Ask { id: name, checks: 0 });
    batch.put(&Put { key: &entries::due::encode_key(&due), value: &ask, target: None }).expect("small");
    scene.append(batch);
    scene = scene.crash();
    let id = scene.connect();
    beat(&mut scene, id);
    for asked in 0..2 {
        scene.pass(Duration::from_millis(5_999));
        assert!(questions(&mut scene, id).is_empty());
        scene.pass(Duration::from_millis(if asked == 0 { 1 } else { 24_001 }));
        assert_eq!((questions(&mut scene, id).len(), scene.entries(entries::due::PREFIX).len()), (1, 0));
    }
    assert_eq!(end(&mut scene, id, &fields, COMMIT).code(), 0);
    assert_eq!(scene.count("T1", 2), 1);
    scene.pass(seconds(60));
    assert!(questions(&mut scene, id).is_empty());
}

/// Verdicts of one turn are one frame; when one of them is too late, the others count all the same.
#[test]
fn of_verdicts_that_share_a_frame_each_is_judged_by_itself() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let begun: Vec<Value> = (1..5)
        .map(|number| {
            let half = scene.ask(id, 310, &half_fields(&HALF.replace("K1", &format!("K{number}"))), b"half");
            json!({
                "producerGroup": "pg", "topic": "T1", "commitLogOffset": half.physical_offset().to_string(),
                "tranStateTableOffset": half.field("queueOffset"), "commitOrRollback": COMMIT.to_string(),
                "fromTransactionCheck": "false", "msgId": format!("K{number}"), "transactionId": format!("K{number}"),
            })
        })
        .collect();
    let mut contrary = begun[0].clone();
    contrary["commitOrRollback"] = json!(ROLLBACK.to_string());
    // It has its place in the log, and nobody can see it yet.
    scene.give(id, 37, &begun[0], &[]);
    let batches = scene.shared.engine.stats().batches;
    scene.hand_in(id, 37, &begun[1], &[], 0);
    scene.hand_in(id, 37, &begun[2], &[], 0);
    scene.worker.end_of_turn();
    assert_eq!(scene.shared.engine.stats().batches, batches + 1);
    scene.hand_in(id, 37, &contrary, &[], 0);
    scene.hand_in(id, 37, &begun[3], &[], 0);
    scene.worker.end_of_turn();
    scene.finish();
    let codes: Vec<_> = scene.answers(id).iter().map(Answer::code).collect();
    assert_eq!((codes, scene.count("T1", 2)), (vec![0, 0, 0, 1, 0], 4));
    scene = scene.crash();
    assert_eq!(scene.count("T1", 2), 4);
}

/// Whoever was just about to say it is not told to say it again.
#[test]
fn a_verdict_counts_that_meets_a_question_on_its_way_to_the_log() {
    for verdict in [COMMIT, ROLLBACK] {
        let mut scene = Scene::new();
        let id = scene.connect();
        let (_, mut fields) = begin(&mut scene, id);
        scene.clock.advance(seconds(6));
        // That it is asked has its place in the log, and nobody can see it yet.
        while !matches!(scene.timer.step(&scene.shared, scene.now_ms()), Step::Wait(_)) {}
        fields["commitOrRollback"] = json!(verdict.to_string());
        assert_eq!(end(&mut scene, id, &fields, verdict).code(), 0);
        assert_eq!(scene.count("T1", 2), u64::from(verdict == COMMIT));
        scene.pass(seconds(60));
        assert_eq!(scene.shared.counters.read().verdicts_refused, 0);
    }
}

#[test]
fn pending_transactions_survive_a_crash_with_their_times() {
    let mut scene = Scene::new();
    let id = scene.connect();
    begin(&mut scene, id);
    scene.pass(seconds(3));
    scene = scene.crash();
    let id = scene.connect();
    // A heartbeat is all that the broker knows of it now.
    beat(&mut scene, id);
    scene.pass(Duration::from_millis(2_999));
    assert!(questions(&mut scene, id).is_empty());
    scene.pass(Duration::from_millis(1));
    assert_eq!(questions(&mut scene, id).len(), 1);
}

#[test]
fn what_is_no_verdict_on_this_message_is_refused() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let (half, fields) = begin(&mut scene, id);
    let visible = scene.send(id, "T1", 0, "UNIQ_KEY\u{1}K1\u{2}", b"plain");
    for (name, value) in [
        ("producerGroup", "other".to_owned()),
        ("tranStateTableOffset", "77".to_owned()),
        ("commitLogOffset", visible.physical_offset().to_string()),
        ("commitLogOffset", (half.physical_offset() + 8).to_string()),
        ("msgId", "K2".to_owned()),
    ] {
        let mut other = fields.clone();
        other[name] = json!(value);
        assert_eq!(scene.ask(id, 37, &other, &[]).code(), 1, "{name} {value}");
    }
    assert_ne!(end(&mut scene, id, &fields, 3).code(), 0);
    assert_eq!((scene.count("T1", 2), scene.shared.counters.read().verdicts_refused), (0, 5));
    assert_eq!(end(&mut scene, id, &fields, COMMIT).code(), 0);
}

#[test]
fn what_cannot_be_half_of_a_transaction_is_refused_and_a_consumers_copy_is_none() {
    let mut scene = Scene::new();
    let id = scene.connect();
    assert_eq!(scene.send(id, "T1", 2, "", b"first").code(), 0);
    assert_eq!(scene.ask(id, 310, &half_fields(&format!("{HALF}\u{2}DELAY\u{1}3\u{2}")), b"x").code(), 13);
    assert_eq!(scene.ask(id, 310, &half_fields("UNIQ_KEY\u{1}K\u{2}"), b"x").code(), 13, "flags alone");
    // A consumer's copy of what was once part of a transaction.
    let mut copy = half_fields(&format!("{HALF}\u{2}DELAY\u{1}1\u{2}"));
    copy["j"] = json!("1");
    assert_eq!(scene.ask(id, 310, &copy, b"copy").code(), 0);
    scene.pass(seconds(1));
    let read = scene.read_all("T1", 2);
    assert_eq!((read.len(), &*read[1].body, read[1].sys_flag, transactions(&scene)), (2, &b"copy"[..], 0, 0));
}

/// K-90a: while nothing could be acknowledged, nothing is delivered, nobody is asked, and no question is counted.
#[test]
fn without_a_quorum_time_passes_and_nothing_is_done() {
    let mut scene = Scene::new();
    let id = scene.connect();
    begin(&mut scene, id);
    assert_eq!(scene.send(id, "T1", 0, "DELAY\u{1}1\u{2}", b"late").code(), 0);
    scene = scene.crash_to_no_quorum();
    let id = scene.connect();
    for _ in 0..20 {
        beat(&mut scene, id);
        scene.pass(seconds(30));
    }
    assert!(questions(&mut scene, id).is_empty());
    assert_eq!((scene.count("T1", 0), scene.entries(entries::due::PREFIX).len(), transactions(&scene)), (0, 1, 1));
    scene = scene.crash();
    let id = scene.connect();
    beat(&mut scene, id);
    scene.pass(seconds(1));
    assert_eq!((scene.count("T1", 0), questions(&mut scene, id).len()), (1, 1));
}
