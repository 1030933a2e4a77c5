//! What operators ask, over a simulated disk and clock.

use std::time::Duration;

use serde_json::{Value, json};

use crate::features::groups::GroupConfig;
use crate::net::ConnectionId;
use crate::scene::{Answer, Read, Scene, send_fields};
use crate::state::entries;
use crate::wire::codes::private;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn ask(scene: &mut Scene, id: ConnectionId, code: i32, ask: &Value) -> Answer {
    scene.ask(id, code.into(), &json!(null), ask.to_string().as_bytes())
}

/// Asks what must be answered, and gives what is told.
#[track_caller]
fn told(scene: &mut Scene, id: ConnectionId, code: i32, what: &Value) -> Value {
    let answer = ask(scene, id, code, what);
    assert_eq!(answer.code(), 0, "{}", answer.header);
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// All that a list tells, in parts of `limit`.
fn all(scene: &mut Scene, id: ConnectionId, code: i32, what: &Value, list: &str, limit: usize) -> Vec<Value> {
    let (mut all, mut what) = (Vec::new(), what.clone());
    what["limit"] = json!(limit);
    loop {
        let part = told(scene, id, code, &what);
        let found = part[list].as_array().expect("a list");
        assert!(found.len() <= limit);
        all.extend(found.iter().cloned());
        if part["next"].is_null() {
            return all;
        }
        what["after"] = part["next"].clone();
    }
}

fn begin(scene: &mut Scene, id: ConnectionId, topic: &str, group: &str, unique_key: &str) -> Answer {
    let properties = format!(
        "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}{group}\u{2}UNIQ_KEY\u{1}{unique_key}\u{2}KEYS\u{1}order-{unique_key}\u{2}"
    );
    let mut fields = send_fields(topic, 2, &properties);
    fields["f"] = json!("4");
    let half = scene.ask(id, 310, &fields, b"half");
    assert_eq!(half.code(), 0);
    half
}

fn decide(scene: &mut Scene, id: ConnectionId, transaction: &Value, commit: bool) -> Answer {
    ask(scene, id, private::TRANSACTION_DECIDE, &json!({"id": transaction, "commit": commit}))
}

#[test]
fn what_nobody_has_decided_is_listed_with_its_message_and_its_questions() {
    let mut scene = Scene::new();
    let id = scene.connect();
    for number in 0..5 {
        let (topic, group) = if number % 2 == 0 { ("T1", "pg") } else { ("T2", "other") };
        begin(&mut scene, id, topic, group, &format!("K{number}"));
        scene.pass(seconds(1));
    }
    let list = |scene: &mut Scene, what: Value| all(scene, id, private::TRANSACTION_LIST, &what, "transactions", 2);
    let found = list(&mut scene, json!({}));
    let keys: Vec<_> = found.iter().map(|one| one["half"]["uniqueKey"].as_str().expect("a key")).collect();
    assert_eq!(keys, ["K0", "K1", "K2", "K3", "K4"]);
    let first = &found[0];
    assert_eq!((&first["state"], &first["group"], &first["topic"]), (&json!("pending"), &json!("pg"), &json!("T1")));
    assert_eq!((&first["queue"], &first["half"]["keys"]), (&json!(2), &json!(["order-K0"])));
    assert_eq!((&first["ageMs"], &first["checks"]), (&json!(5000), &json!(0)));
    assert_eq!(first["nextCheckMs"], json!(scene.now_ms() + 1000));
    assert!(first["half"]["body"].is_null(), "bodies are shown one at a time");
    assert_eq!(list(&mut scene, json!({"group": "other"})).len(), 2);
    assert_eq!(list(&mut scene, json!({"topic": "T1"})).len(), 3);
    for key in ["K3", "order-K3"] {
        assert_eq!(list(&mut scene, json!({"key": key}))[0]["topic"], "T2");
    }
    assert!(list(&mut scene, json!({"parked": true})).is_empty());
    // A question to somebody who is there.
    scene.pass(seconds(1));
    let again = told(&mut scene, id, private::TRANSACTION_SHOW, &json!({"id": first["id"]}));
    assert_eq!((&again["checks"], &again["half"]["body"]), (&json!(1), &json!("aGFsZg==")));
    assert_eq!(again["nextCheckMs"], json!(scene.now_ms() + 30_000));
    let by_place = told(&mut scene, id, private::TRANSACTION_SHOW, &json!({"id": first["half"]["id"]}));
    assert_eq!(by_place, again);
    for (code, what) in [
        (22, json!({"id": "1.0.99"})),
        (22, json!({"id": "nobody"})),
        (29, json!({})),
        (29, json!({"id": "1.0.0", "odd": 1})),
    ] {
        assert_eq!(ask(&mut scene, id, private::TRANSACTION_SHOW, &what).code(), code, "{what}");
    }
}

/// K-93: what nobody decided is kept, whatever becomes of its file, and whoever is responsible can decide it, once.
#[test]
fn a_parked_transaction_is_found_and_decided_by_hand() {
    for commit in [true, false] {
        let mut scene = Scene::new();
        let id = scene.connect();
        begin(&mut scene, id, "T1", "pg", "K1");
        for _ in 0..16 {
            scene.pass(seconds(30));
            // It is there, and says nothing.
            begin_nothing(&mut scene, id);
        }
        scene.pass(seconds(30));
        assert_eq!(scene.shared.counters.read().transactions_parked, 1);
        for _ in 0..30 {
            assert_eq!(scene.send(id, "T9", 0, "", &[b'x'; 40 << 10]).code(), 0);
        }
        let end = scene.shared.engine.watermarks().acked;
        assert!(scene.shared.engine.release(end).is_ok());
        for _ in 0..200 {
            scene.pass(Duration::from_millis(50));
            scene.settle();
        }
        assert!(scene.shared.engine.watermarks().start.0 > 0);
        scene = scene.crash();
        let id = scene.connect();
        let found = all(&mut scene, id, private::TRANSACTION_LIST, &json!({"parked": true}), "transactions", 9);
        assert_eq!((found.len(), &found[0]["state"], &found[0]["checks"]), (1, &json!("parked"), &Value::Null));
        assert_eq!((&found[0]["half"]["uniqueKey"], &found[0]["topic"]), (&json!("K1"), &json!("T1")));
        let transaction = found[0]["id"].clone();
        assert_eq!(decide(&mut scene, id, &transaction, commit).code(), 0);
        assert_eq!(decide(&mut scene, id, &transaction, commit).code(), 0, "as it was decided");
        assert_eq!(decide(&mut scene, id, &transaction, !commit).code(), 1, "the first verdict counts");
        assert_eq!(scene.count("T1", 2), u64::from(commit));
        if commit {
            assert_eq!(scene.read_all("T1", 2)[0].body, b"half");
        }
        assert!(all(&mut scene, id, private::TRANSACTION_LIST, &json!({}), "transactions", 9).is_empty());
        let shown = told(&mut scene, id, private::TRANSACTION_SHOW, &json!({"id": transaction}));
        assert_eq!(shown["state"], json!(if commit { "committed" } else { "rolledBack" }));
        scene.pass(seconds(3600));
        assert!(
            scene.entries(entries::transaction::PREFIX).is_empty() && scene.entries(entries::due::PREFIX).is_empty()
        );
        let id = scene.connect();
        assert_eq!(decide(&mut scene, id, &transaction, commit).code(), 1, "how is forgotten");
    }
}

/// A heartbeat of the producer.
fn begin_nothing(scene: &mut Scene, id: ConnectionId) {
    let beat = json!({"clientID": "p@1", "producerDataSet": [{"groupName": "pg"}], "consumerDataSet": []});
    assert_eq!(scene.ask(id, 34, &json!(null), beat.to_string().as_bytes()).code(), 0);
}

/// K-90, K-93: wherever the power fails, a verdict that was answered stands, and one that was not can be given again.
#[test]
fn wherever_the_power_fails_a_decision_by_hand_counts_once() {
    for last in 0.. {
        let mut scene = Scene::new();
        let id = scene.connect();
        begin(&mut scene, id, "T1", "pg", "K1");
        let found = all(&mut scene, id, private::TRANSACTION_LIST, &json!({}), "transactions", 9);
        let transaction = found[0]["id"].clone();
        scene.disk.stop_after(scene.disk.io_count() + last);
        let body = json!({"id": transaction, "commit": true}).to_string();
        scene.give(id, private::TRANSACTION_DECIDE.into(), &json!(null), body.as_bytes());
        scene.finish();
        let acked = scene.answers(id).iter().any(|answer| answer.code() == 0);
        let finished = acked && !scene.disk.is_dead();
        scene = scene.crash_somehow(last);
        let count = scene.count("T1", 2);
        assert!(count == 1 || !acked && count == 0, "{count} after I/O {last}, acked: {acked}");
        let id = scene.connect();
        assert_eq!(decide(&mut scene, id, &transaction, true).code(), 0);
        assert_eq!(scene.count("T1", 2), 1);
        if finished {
            break;
        }
    }
}

#[test]
fn where_nothing_can_be_acknowledged_operators_look_and_change_nothing() {
    let mut scene = Scene::new();
    let id = scene.connect();
    begin(&mut scene, id, "T1", "pg", "K1");
    assert_eq!(scene.send(id, "T1", 0, "DELAY\u{1}18\u{2}", b"late").code(), 0);
    scene = scene.crash_to_no_quorum();
    let id = scene.connect();
    let transaction = all(&mut scene, id, private::TRANSACTION_LIST, &json!({}), "transactions", 9).remove(0);
    assert_eq!(transaction["checks"], 0, "a slave knows it from the table");
    let delayed = all(&mut scene, id, private::DELAY_LIST, &json!({}), "delays", 9).remove(0);
    for (code, what) in [
        (private::TRANSACTION_DECIDE, json!({"id": transaction["id"], "commit": true})),
        (private::DELAY_CANCEL, json!({"id": delayed["id"]})),
        (private::DEAD_LETTER_REPLAY, json!({"group": "g", "lsn": 0})),
    ] {
        let answer = ask(&mut scene, id, code, &what);
        assert_eq!(answer.code(), 14);
        assert!(answer.header["remark"].as_str().expect("a reason").contains("slave"), "{}", answer.header);
    }
}

#[test]
fn what_is_to_be_delivered_is_listed_in_the_order_of_its_times() {
    let mut scene = Scene::new();
    let id = scene.connect();
    for (topic, delay, key) in
        [("T1", "DELAY\u{1}4", "a"), ("T2", "DELAY\u{1}2", "b"), ("T1", "TIMER_DELAY_SEC\u{1}3600", "c")]
    {
        let properties = format!("UNIQ_KEY\u{1}{key}\u{2}KEYS\u{1}order-{key}\u{2}{delay}\u{2}");
        assert_eq!(scene.send(id, topic, 1, &properties, b"late").code(), 0);
    }
    begin(&mut scene, id, "T1", "pg", "K1");
    let now_ms = scene.now_ms();
    let list = |scene: &mut Scene, what: Value| all(scene, id, private::DELAY_LIST, &what, "delays", 1);
    let found = list(&mut scene, json!({}));
    let told: Vec<_> =
        found.iter().map(|one| (one["dueMs"].as_u64().expect("a time") - now_ms, one["kind"].clone())).collect();
    assert_eq!(told, [(5_000, json!("level")), (30_000, json!("level")), (3_600_000, json!("time"))]);
    assert_eq!(
        (&found[0]["topic"], &found[0]["queue"], &found[0]["keys"]),
        (&json!("T2"), &json!(1), &json!(["b", "order-b"]))
    );
    assert!(found[0]["recordBytes"].as_u64().expect("a size") > 4);
    assert_eq!(list(&mut scene, json!({"topic": "T1"})).len(), 2);
    assert_eq!(list(&mut scene, json!({"key": "order-c"}))[0]["kind"], "time");
    assert_eq!(list(&mut scene, json!({"fromMs": now_ms + 5_001, "toMs": now_ms + 3_600_000})).len(), 1);
    assert_eq!(list(&mut scene, json!({"fromMs": now_ms + 5_000})).len(), 3);
    assert!(list(&mut scene, json!({"fromMs": 9, "toMs": 3})).is_empty());
    assert_eq!(ask(&mut scene, id, private::DELAY_LIST, &json!({"after": "x"})).code(), 22);
}

#[test]
fn what_is_cancelled_is_never_delivered_and_what_is_delivered_cannot_be_cancelled() {
    let mut scene = Scene::new();
    let id = scene.connect();
    for body in [b"one", b"two"] {
        assert_eq!(scene.send(id, "T1", 0, "DELAY\u{1}1\u{2}", body).code(), 0);
    }
    let found = all(&mut scene, id, private::DELAY_LIST, &json!({}), "delays", 9);
    let cancel = |scene: &mut Scene, one: &Value| ask(scene, id, private::DELAY_CANCEL, &json!({"id": one["id"]}));
    let cancelled = cancel(&mut scene, &found[0]);
    assert_eq!(cancelled.code(), 0);
    assert_eq!(serde_json::from_slice::<Value>(&cancelled.body).expect("JSON"), found[0]);
    assert_eq!(cancel(&mut scene, &found[0]).code(), 22);
    scene.pass(seconds(1));
    assert_eq!(scene.read_all("T1", 0)[0].body, b"two");
    assert_eq!((scene.count("T1", 0), cancel(&mut scene, &found[1]).code()), (1, 22));
    // A question about a transaction, as it stood here before format 3, is no delivery.
    let due = format!("{}.1.2.3.long", scene.now_ms() + 5000);
    let key = entries::due::encode_key(&due.parse().expect("a name"));
    let name = crate::features::transactions::TransactionId::of(&due.parse().expect("a name"));
    let value = entries::due::encode(&crate::features::delay::Due::Ask { id: name, checks: 0 });
    let mut batch = anchorlog_engine::WriteBatch::new();
    batch.put(&anchorlog_engine::Put { key: &key, value: &value, target: None }).expect("small");
    scene.append(batch);
    assert_eq!(ask(&mut scene, id, private::DELAY_CANCEL, &json!({"id": due})).code(), 1);
    let counts = scene.shared.counters.read();
    assert_eq!((counts.messages_recalled, counts.messages_delivered), (1, 1));
}

/// A cancellation on its way to the log meets the timer: one of the two happens.
#[test]
fn a_cancellation_at_the_last_moment_wins_or_loses_as_a_whole() {
    let mut scene = Scene::new();
    let id = scene.connect();
    assert_eq!(scene.send(id, "T1", 0, "DELAY\u{1}1\u{2}", b"late").code(), 0);
    let found = all(&mut scene, id, private::DELAY_LIST, &json!({}), "delays", 9);
    let body = json!({"id": found[0]["id"]}).to_string();
    scene.give(id, private::DELAY_CANCEL.into(), &json!(null), body.as_bytes());
    while scene.worker.task_count() > 0 {
        std::thread::yield_now();
        scene.worker.mail();
    }
    // It has its place in the log, and nobody can see it yet.
    scene.pass(seconds(1));
    scene.finish();
    let code = scene.answers(id).remove(0).code();
    assert_eq!((code, scene.count("T1", 0)), (0, 0));
    scene = scene.crash();
    scene.pass(seconds(10));
    assert_eq!(scene.count("T1", 0), 0);
}

fn send_back(scene: &mut Scene, id: ConnectionId, read: &Read, level: i64) {
    let fields = json!({
        "offset": read.physical_offset.to_string(), "group": "g", "delayLevel": level.to_string(), "originMsgId": "",
        "originTopic": "T1", "unitMode": "false", "maxReconsumeTimes": "16", "bname": "b",
    });
    assert_eq!(scene.ask(id, 36, &fields, &[]).code(), 0);
}

/// So many dead letters, a second apart, of messages with the keys `K0`, `K1` and so on.
fn dead_letters(count: usize) -> (Scene, ConnectionId) {
    let mut scene = Scene::new();
    let id = scene.connect();
    scene.shared.state.put_group("g", GroupConfig::default());
    for number in 0..count {
        let properties = format!("UNIQ_KEY\u{1}K{number}\u{2}TAGS\u{1}A\u{2}KEYS\u{1}order\u{2}x\u{1}y");
        assert_eq!(scene.send(id, "T1", 1, &properties, b"poison").code(), 0);
        let read = scene.read_all("T1", 1).remove(number);
        send_back(&mut scene, id, &read, -1);
        scene.pass(seconds(1));
    }
    (scene, id)
}

fn letters(scene: &mut Scene, id: ConnectionId, mut what: Value) -> Vec<Value> {
    what["group"] = json!("g");
    all(scene, id, private::DEAD_LETTER_LIST, &what, "letters", 2)
}

fn replay(scene: &mut Scene, id: ConnectionId, letter: &Value, mut what: Value) -> Answer {
    what["group"] = json!("g");
    what["lsn"] = letter["message"]["lsn"].clone();
    ask(scene, id, private::DEAD_LETTER_REPLAY, &what)
}

#[test]
fn cancelling_a_retry_must_be_meant() {
    let (mut scene, id) = dead_letters(0);
    assert_eq!(scene.send(id, "T1", 1, "UNIQ_KEY\u{1}K\u{2}", b"poison").code(), 0);
    let read = scene.read_all("T1", 1).remove(0);
    send_back(&mut scene, id, &read, 1);
    let found = all(&mut scene, id, private::DELAY_LIST, &json!({}), "delays", 9);
    assert_eq!((found.len(), &found[0]["kind"], &found[0]["topic"]), (1, &json!("retry"), &json!("%RETRY%g")));
    let mut what = json!({"id": found[0]["id"]});
    assert_eq!(ask(&mut scene, id, private::DELAY_CANCEL, &what).code(), 1);
    what["force"] = json!(true);
    assert_eq!(ask(&mut scene, id, private::DELAY_CANCEL, &what).code(), 0);
    scene.pass(seconds(60));
    assert_eq!(scene.count("%RETRY%g", 0), 0);
}

#[test]
fn dead_letters_are_listed_by_group_id_key_and_time() {
    let (mut scene, id) = dead_letters(5);
    let found = letters(&mut scene, id, json!({}));
    let keys: Vec<_> = found.iter().map(|letter| letter["message"]["uniqueKey"].as_str().expect("a key")).collect();
    assert_eq!(keys, ["K0", "K1", "K2", "K3", "K4"]);
    assert_eq!((&found[3]["originTopic"], &found[3]["message"]["attempts"]), (&json!("T1"), &json!(1)));
    assert!(found[3]["replayed"].is_null() && found[3]["message"]["body"].is_null());
    let at = |number: usize| found[number]["message"]["storedMs"].as_u64().expect("a time");
    let between = letters(&mut scene, id, json!({"fromMs": at(1), "toMs": at(3)}));
    assert_eq!(between, found[1..3]);
    for name in ["K2", found[2]["message"]["id"].as_str().expect("an id")] {
        assert_eq!(letters(&mut scene, id, json!({"id": name})), found[2..3], "{name}");
    }
    assert!(letters(&mut scene, id, json!({"id": "K9"})).is_empty());
    assert_eq!(letters(&mut scene, id, json!({"key": "order"})), found, "and none of the topic that they came from");
    let whole = letters(&mut scene, id, json!({"whole": true}));
    assert_eq!((whole.len(), &whole[4]["message"]["body"]), (5, &json!("cG9pc29u")));
    assert_eq!(whole[4]["message"]["properties"]["RETRY_TOPIC"], "T1");
    assert_eq!(replay(&mut scene, id, &found[0], json!({})).code(), 0);
    assert_eq!(letters(&mut scene, id, json!({"waiting": true})), found[1..]);
    let groups = told(&mut scene, id, private::DEAD_LETTER_GROUPS, &json!({}));
    let wanted = json!({"group": "g", "letters": 5, "replayed": 1, "oldestMs": at(0), "newestMs": at(4)});
    assert_eq!(groups["groups"], json!([wanted]));
    assert_eq!(ask(&mut scene, id, private::DEAD_LETTER_LIST, &json!({"group": "nobody"})).code(), 22);
    assert_eq!(ask(&mut scene, id, private::DEAD_LETTER_LIST, &json!({"group": "g", "after": "x"})).code(), 22);
}

#[test]
fn a_returned_letter_is_as_it_was_sent_and_comes_once() {
    let (mut scene, id) = dead_letters(1);
    let letter = letters(&mut scene, id, json!({})).remove(0);
    let first = scene.read_all("T1", 1).remove(0);
    let answer = replay(&mut scene, id, &letter, json!({}));
    assert_eq!((answer.code(), answer.body), (0, br#"{"topic":"T1","queue":1}"#.to_vec()), "where it was sent to");
    let again = scene.read_all("T1", 1).remove(1);
    assert_eq!((&again.body, again.reconsume_times, again.born_timestamp), (&first.body, 0, first.born_timestamp));
    for (name, value) in
        [("UNIQ_KEY", Some("K0")), ("TAGS", Some("A")), ("x", Some("y")), ("RETRY_TOPIC", None), ("DELAY", None)]
    {
        assert_eq!(again.property(name), value, "{name} in {}", again.properties);
    }
    let refused = replay(&mut scene, id, &letter, json!({}));
    assert_eq!(refused.code(), 1);
    assert!(refused.header["remark"].as_str().expect("a reason").contains("--force"));
    scene = scene.crash();
    let id = scene.connect();
    assert_eq!((replay(&mut scene, id, &letter, json!({})).code(), scene.count("T1", 1)), (1, 2));
    assert_eq!(replay(&mut scene, id, &letter, json!({"force": true})).code(), 0);
    assert_eq!((scene.count("T1", 1), scene.count("%DLQ%g", 0)), (3, 1));
    let marked = letters(&mut scene, id, json!({})).remove(0);
    assert_eq!((&marked["replayed"]["times"], &marked["replayed"]["topic"]), (&json!(2), &json!("T1")));
    assert_eq!(scene.shared.counters.read().dead_letters_replayed, 1, "since the crash");
    // What fails again is a letter of its own.
    let read = scene.read_all("T1", 1).remove(1);
    send_back(&mut scene, id, &read, -1);
    assert_eq!(letters(&mut scene, id, json!({"waiting": true})).len(), 1);
}

#[test]
fn a_letter_can_be_returned_to_its_group_alone_or_elsewhere() {
    let (mut scene, id) = dead_letters(2);
    let found = letters(&mut scene, id, json!({}));
    assert_eq!(replay(&mut scene, id, &found[0], json!({"toGroup": true})).code(), 0);
    let again = scene.read_all("%RETRY%g", 0).remove(0);
    assert_eq!((again.property("RETRY_TOPIC"), again.reconsume_times, scene.count("T1", 1)), (Some("T1"), 0, 2));
    // It fails once more, and is tried as often as any other.
    send_back(&mut scene, id, &again, 1);
    scene.pass(seconds(1));
    assert_eq!(scene.read_all("%RETRY%g", 0)[1].reconsume_times, 1);
    for bad in ["nowhere", "%DLQ%g", "SCHEDULE_TOPIC_XXXX"] {
        assert_eq!(replay(&mut scene, id, &found[1], json!({"toTopic": bad})).code(), 1, "{bad}");
    }
    assert_eq!(scene.send(id, "T2", 0, "", b"x").code(), 0);
    assert_eq!(replay(&mut scene, id, &found[1], json!({"toTopic": "T2"})).code(), 0);
    assert_eq!((0..8).map(|queue| scene.count("T2", queue)).sum::<u64>(), 2);
    let plain = scene.send(id, "T1", 1, "", b"x").physical_offset();
    assert_eq!(replay(&mut scene, id, &json!({"message": {"lsn": plain}}), json!({})).code(), 22, "no dead letter");
    assert_eq!(replay(&mut scene, id, &json!({"message": {"lsn": 1}}), json!({})).code(), 22);
}

/// K-80: wherever the power fails, a letter is returned and marked, or neither; whoever asks again returns it once in all.
#[test]
fn wherever_the_power_fails_a_letter_is_returned_once() {
    let (mut without, mut with) = (0, 0);
    for last in 0.. {
        let (mut scene, id) = dead_letters(1);
        let letter = letters(&mut scene, id, json!({})).remove(0);
        scene.disk.stop_after(scene.disk.io_count() + last);
        let body = json!({"group": "g", "lsn": letter["message"]["lsn"]}).to_string();
        scene.give(id, private::DEAD_LETTER_REPLAY.into(), &json!(null), body.as_bytes());
        scene.finish();
        let acked = scene.answers(id).iter().any(|answer| answer.code() == 0);
        let finished = acked && !scene.disk.is_dead();
        scene = scene.crash_somehow(last);
        let returned = scene.count("T1", 1) - 1;
        assert!(returned == 1 || !acked && returned == 0, "{returned} after I/O {last}, acked: {acked}");
        assert_eq!(scene.entries(entries::replayed::PREFIX).len() as u64, returned);
        without += u64::from(returned == 0);
        with += returned;
        let id = scene.connect();
        let again = replay(&mut scene, id, &letter, json!({}));
        assert_eq!((again.code() == 0, scene.count("T1", 1)), (returned == 0, 2));
        if finished {
            break;
        }
    }
    assert!(without > 0 && with > 0, "{without} {with}");
}

#[test]
fn of_two_replays_in_flight_one_returns_the_letter() {
    let (mut scene, id) = dead_letters(1);
    let letter = letters(&mut scene, id, json!({})).remove(0);
    let body = json!({"group": "g", "lsn": letter["message"]["lsn"]}).to_string();
    for _ in 0..3 {
        scene.give(id, private::DEAD_LETTER_REPLAY.into(), &json!(null), body.as_bytes());
    }
    scene.finish();
    let mut codes: Vec<_> = scene.answers(id).iter().map(Answer::code).collect();
    codes.sort_unstable();
    assert_eq!((codes, scene.count("T1", 1)), (vec![0, 1, 1], 2));
}

/// What is known of letters stays in proportion to the letters.
#[test]
fn marks_of_letters_that_are_gone_go_with_the_next_replay() {
    let (mut scene, id) = dead_letters(3);
    let found = letters(&mut scene, id, json!({}));
    for letter in &found[..2] {
        assert_eq!(replay(&mut scene, id, letter, json!({})).code(), 0);
    }
    let topic = scene.shared.state.topics.get("%DLQ%g").expect("made");
    let queue = topic.queue(&scene.shared.engine, 0).expect("room").expect("a queue").clone();
    for _ in 0..30 {
        assert_eq!(scene.send(id, "T9", 0, "", &[b'x'; 40 << 10]).code(), 0);
    }
    scene.shared.engine.pin_queue("", &queue, Some(anchorlog_engine::QueueOffset(2)));
    let end = scene.shared.engine.watermarks().acked;
    assert!(scene.shared.engine.release(end).is_ok());
    for _ in 0..200 {
        scene.pass(Duration::from_millis(50));
        scene.settle();
    }
    assert_eq!(scene.shared.engine.range(&queue).min.0, 2);
    assert_eq!(scene.entries(entries::replayed::PREFIX).len(), 2);
    let id = scene.connect();
    assert_eq!(replay(&mut scene, id, &found[2], json!({"toTopic": "T9"})).code(), 0);
    assert_eq!(scene.entries(entries::replayed::PREFIX).len(), 1);
}

#[test]
fn messages_of_a_time_a_queue_or_a_tag_are_listed() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let began_ms = scene.now_ms();
    for number in 0..6u8 {
        let tag = if number % 2 == 0 { "even" } else { "odd" };
        let properties = format!("UNIQ_KEY\u{1}K{number}\u{2}TAGS\u{1}{tag}\u{2}");
        assert_eq!(scene.send(id, "T1", (number / 3).into(), &properties, &[number]).code(), 0);
        scene.pass(seconds(1));
    }
    let mut list = |what: Value| {
        let mut what = what;
        what["topic"] = json!("T1");
        let found = all(&mut scene, id, private::MESSAGE_LIST, &what, "messages", 2);
        found.iter().map(|one| one["uniqueKey"].as_str().expect("a key").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list(json!({})), ["K0", "K1", "K2", "K3", "K4", "K5"]);
    assert_eq!(list(json!({"queue": 1})), ["K3", "K4", "K5"]);
    assert_eq!(list(json!({"tag": "odd"})), ["K1", "K3", "K5"]);
    assert_eq!(list(json!({"fromMs": began_ms + 1000, "toMs": began_ms + 4000})), ["K1", "K2", "K3"]);
    assert!(list(json!({"queue": 99})).is_empty());
    let whole = told(&mut scene, id, private::MESSAGE_LIST, &json!({"topic": "T1", "whole": true, "queue": 1}));
    assert_eq!(
        (&whole["messages"][0]["body"], &whole["messages"][0]["properties"]["TAGS"]),
        (&json!("Aw=="), &json!("odd"))
    );
    assert_eq!(ask(&mut scene, id, private::MESSAGE_LIST, &json!({"topic": "T9"})).code(), 22);
}

fn trace(scene: &mut Scene, id: ConnectionId, message: &str) -> Vec<Value> {
    let told = told(scene, id, private::TRACE, &json!({"id": message}));
    told["steps"].as_array().expect("a list").clone()
}

fn kinds(steps: &[Value]) -> Vec<&str> {
    steps.iter().map(|step| step["kind"].as_str().expect("a kind")).collect()
}

#[test]
fn a_trace_tells_a_message_s_whole_life_from_the_log() {
    let mut scene = Scene::new();
    let id = scene.connect();
    scene.shared.state.put_group("g", GroupConfig::default());
    let half = begin(&mut scene, id, "T1", "pg", "K1");
    let pending = trace(&mut scene, id, "K1");
    assert_eq!(kinds(&pending), ["born", "half"]);
    assert_eq!(pending[1]["group"], "pg");
    let transaction = all(&mut scene, id, private::TRANSACTION_LIST, &json!({}), "transactions", 9).remove(0);
    scene.pass(seconds(1));
    assert_eq!(decide(&mut scene, id, &transaction["id"], true).code(), 0);
    scene.pass(seconds(1));
    let read = scene.read_all("T1", 2).remove(0);
    send_back(&mut scene, id, &read, 2);
    assert_eq!(kinds(&trace(&mut scene, id, "K1")), ["born", "half", "committed", "delivered", "due"]);
    scene.pass(seconds(5));
    let again = scene.read_all("%RETRY%g", 0).remove(0);
    send_back(&mut scene, id, &again, -1);
    scene.pass(seconds(1));
    let letter = letters(&mut scene, id, json!({})).remove(0);
    assert_eq!(replay(&mut scene, id, &letter, json!({"toTopic": "T2"})).code(), 1, "it is not there yet");
    assert_eq!(scene.send(id, "T2", 0, "", b"x").code(), 0);
    assert_eq!(replay(&mut scene, id, &letter, json!({"toTopic": "T2"})).code(), 0);
    let commit = json!({"consumerGroup": "g", "topic": "T1", "queueId": "2", "commitOffset": "1"});
    assert_eq!(scene.ask(id, 15, &commit, &[]).code(), 0);
    let steps = trace(&mut scene, id, "K1");
    let told = kinds(&steps);
    assert_eq!(
        told,
        ["born", "half", "committed", "delivered", "retried", "deadLetter", "returned", "delivered", "consumed"]
    );
    assert_eq!((&steps[4]["group"], &steps[4]["note"]), (&json!("g"), &json!("attempt 2")));
    assert_eq!((&steps[8]["group"], &steps[8]["atMs"]), (&json!("g"), &Value::Null));
    // By any of its places, and after a crash.
    scene = scene.crash();
    let id = scene.connect();
    for place in [half.field("msgId"), letter["message"]["id"].as_str().expect("an id")] {
        assert_eq!(trace(&mut scene, id, place), steps, "{place}");
    }
    assert_eq!(ask(&mut scene, id, private::TRACE, &json!({"id": "K9"})).code(), 22);
}

#[test]
fn a_trace_finds_what_is_not_delivered_yet_and_what_clients_say() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let sent = scene.send(id, "T1", 0, "UNIQ_KEY\u{1}K1\u{2}DELAY\u{1}3\u{2}", b"late");
    for name in ["K1", sent.field("msgId")] {
        let steps = trace(&mut scene, id, name);
        assert_eq!(kinds(&steps), ["born", "delayed", "due"]);
        assert_eq!((&steps[2]["atMs"], &steps[2]["topic"]), (&json!(scene.now_ms() + 10_000), &json!("T1")));
    }
    scene.pass(seconds(10));
    let now_ms = scene.now_ms();
    let client = format!("SubAfter\u{1}R\u{1}K1\u{1}9\u{1}true\u{1}\u{1}0\u{1}{}\u{1}g\u{2}", now_ms + 5);
    let keyed = "UNIQ_KEY\u{1}X1\u{2}KEYS\u{1}K1 K2\u{2}";
    assert_eq!(scene.send(id, "RMQ_SYS_TRACE_TOPIC", 0, keyed, client.as_bytes()).code(), 0);
    let steps = trace(&mut scene, id, "K1");
    assert_eq!(kinds(&steps), ["born", "delayed", "delivered", "clientDone"]);
    assert_eq!((&steps[3]["group"], &steps[3]["note"]), (&json!("g"), &json!("consumed, 9 ms")));
    let without = told(&mut scene, id, private::TRACE, &json!({"id": "K1", "traceTopic": ""}));
    assert_eq!(without["steps"].as_array().map(Vec::len), Some(3));
}

/// What a list passes over costs the memory of one page, and hides nothing behind it.
#[test]
fn what_lies_behind_thousands_of_others_is_found() {
    let mut scene = Scene::new();
    let id = scene.connect();
    let sent = scene.send(id, "T1", 0, "UNIQ_KEY\u{1}K1\u{2}DELAY\u{1}18\u{2}", b"late");
    let entry = scene.entries(entries::due::PREFIX).remove(0);
    let value = scene.shared.engine.get(&entry).expect("readable").expect("there").value;
    let mut other = entries::due::decode(&value).expect("due");
    if let crate::features::delay::Due::Deliver { place, .. } = &mut other {
        place.topic = "T2".into();
        place.keys = vec![b"other"[..].into()];
    }
    let (other, first) = (entries::due::encode(&other), scene.now_ms() + 1_000_000);
    for thousand in 0..5 {
        let mut batch = anchorlog_engine::WriteBatch::new();
        for number in 0..500 {
            let (time_ms, epoch) = (first + thousand * 500 + number, anchorlog_engine::Epoch::default());
            let key =
                entries::due::encode_key(&crate::features::delay::DueKey { time_ms, epoch, count: 0, is_long: false });
            batch.put(&anchorlog_engine::Put { key: &key, value: &other, target: None }).expect("small");
        }
        scene.append(batch);
    }
    let list = |scene: &mut Scene, what: Value| all(scene, id, private::DELAY_LIST, &what, "delays", 256);
    assert_eq!(list(&mut scene, json!({})).len(), 2501);
    assert_eq!(list(&mut scene, json!({"topic": "T1"}))[0]["keys"], json!(["K1"]));
    let place = u64::from_str_radix(&sent.field("msgId")[16..], 16).expect("an id");
    assert_eq!(list(&mut scene, json!({"key": "K1"}))[0]["lsn"], json!(place));
    assert_eq!(kinds(&trace(&mut scene, id, "K1")), ["born", "delayed", "due"]);
}
