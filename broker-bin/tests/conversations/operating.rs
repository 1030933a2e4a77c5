//! What operators ask, over a real socket.

use anchorlog::Driver;
use serde_json::{Value, json};

use crate::over_every_driver;
use crate::peer::{Frame, Peer, heartbeat, send_fields};
use crate::stage::Stage;

over_every_driver! {
    a_decision_by_hand_is_as_good_as_the_producers,
    more_asks_than_are_worked_at_once_are_all_answered,
    a_wrong_ask_is_refused_and_the_connection_goes_on,
    republishing_goes_on_where_a_restart_broke_it_off,
}

const TRANSACTION_LIST: i64 = 30_001;
const TRANSACTION_DECIDE: i64 = 30_003;
const DEAD_LETTER_LIST: i64 = 30_022;
const DEAD_LETTER_REPLAY: i64 = 30_023;
const REPUBLISH_SHOW: i64 = 30_501;
const REPUBLISH_STEP: i64 = 30_502;

fn ask(peer: &mut Peer, code: i64, what: &Value) -> Frame {
    peer.ask(code, &json!(null), what.to_string().as_bytes())
}

/// K-93: somebody decides who is not the producer; whoever looks next sees it, and the producer hears that it is decided.
fn a_decision_by_hand_is_as_good_as_the_producers(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    let mut fields = send_fields("T1", 0, "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}pg\u{2}UNIQ_KEY\u{1}K\u{2}");
    fields["f"] = json!("4");
    let half = peer.ask(310, &fields, b"half").expect(0);
    let list = ask(&mut peer, TRANSACTION_LIST, &json!({})).expect(0).json();
    let transaction = &list["transactions"][0];
    assert_eq!((&transaction["half"]["id"], &transaction["state"]), (&json!(half.field("msgId")), &json!("pending")));
    ask(&mut peer, TRANSACTION_DECIDE, &json!({"id": transaction["id"], "commit": true})).expect(0);
    assert_eq!(peer.pull("g", "T1", 0, 0).expect(0).records()[0].body, b"half");
    let offset = u64::from_str_radix(&half.field("msgId")[16..], 16).expect("an id").to_string();
    let mut verdict = json!({
        "producerGroup": "pg", "commitLogOffset": offset, "tranStateTableOffset": half.field("queueOffset"),
        "commitOrRollback": "8", "fromTransactionCheck": "false", "msgId": "K", "transactionId": "K",
    });
    peer.ask(37, &verdict, &[]).expect(0);
    verdict["commitOrRollback"] = json!("12");
    peer.ask(37, &verdict, &[]).expect(1);
    assert_eq!(peer.pull("g", "T1", 0, 0).expect(0).records().len(), 1);
}

fn more_asks_than_are_worked_at_once_are_all_answered(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    let asks: Vec<_> = (0..200).map(|_| peer.send(TRANSACTION_LIST, &json!(null), b"{}")).collect();
    for opaque in asks {
        assert_eq!(peer.answer(opaque).expect(0).json()["transactions"], json!([]));
    }
}

fn a_wrong_ask_is_refused_and_the_connection_goes_on(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    for body in [&b"{"[..], b"7", b"{\"limt\":1}", b"\xFF", &[b'['; 1000]] {
        let answer = peer.ask(TRANSACTION_LIST, &json!(null), body).expect(29);
        assert!(answer.remark().contains("cannot be read"), "{}", answer.remark());
    }
    // Nobody waits for an answer, and nothing breaks by that.
    peer.send_oneway(TRANSACTION_LIST, &json!(null), b"{}");
    assert_eq!(
        ask(&mut peer, TRANSACTION_LIST, &json!({})).expect(0).json(),
        json!({"transactions": [], "next": null})
    );
}

/// K-80: a killed broker has returned a letter or not, and who goes on returns each once in all.
#[test]
fn each_letter_is_returned_once_through_kills() {
    const LETTERS: usize = 40;
    let store = crate::stage::store();
    let mut process = Some(crate::restart::Process::start(store.path()));
    let mut peer = Peer::connect(process.as_ref().expect("it runs").1);
    peer.ask(34, &json!(null), &heartbeat("c@1", "g", "T1", "*", 1)).expect(0);
    for number in 0..LETTERS {
        peer.send_message("T1", 0, b"poison", &format!("UNIQ_KEY\u{1}K{number}\u{2}")).expect(0);
    }
    for offset in 0..LETTERS {
        let read = peer.pull("g", "T1", 0, i64::try_from(offset).expect("small")).expect(0).records().remove(0);
        let back = json!({
            "offset": read.physical_offset.to_string(), "group": "g", "delayLevel": "-1", "originMsgId": "", "originTopic": "T1",
        });
        peer.ask(36, &back, &[]).expect(0);
    }
    let waiting = |peer: &mut Peer| {
        let list = ask(peer, DEAD_LETTER_LIST, &json!({"group": "g", "waiting": true})).expect(0).json();
        list["letters"].as_array().expect("a list").clone()
    };
    let mut answered = 0;
    for round in 0..5 {
        let left = waiting(&mut peer);
        assert!(left.len() <= LETTERS - answered, "what was answered stays returned");
        let replay = |letter: &Value| json!({"group": "g", "lsn": letter["message"]["lsn"]}).to_string();
        let opaques: Vec<_> =
            left.iter().map(|letter| peer.send(DEAD_LETTER_REPLAY, &json!(null), replay(letter).as_bytes())).collect();
        // Killed while they are being returned; in the last round not at all.
        let count = if round == 4 { opaques.len() } else { 3 };
        for opaque in opaques.into_iter().take(count) {
            peer.answer(opaque).expect(0);
            answered += 1;
        }
        drop(process.take());
        let again = crate::restart::Process::start(store.path());
        peer = Peer::connect(again.1);
        process = Some(again);
    }
    assert!(waiting(&mut peer).is_empty());
    let mut keys = Vec::new();
    while let Some(read) = {
        let answer = peer.pull("g", "T1", 0, i64::try_from(keys.len()).expect("small"));
        (answer.code() == 0).then(|| answer.records().remove(0))
    } {
        keys.push(read.property("UNIQ_KEY").expect("a key").to_owned());
    }
    keys.sort_unstable();
    let mut wanted: Vec<_> = (0..LETTERS).flat_map(|number| [format!("K{number}"), format!("K{number}")]).collect();
    wanted.sort_unstable();
    assert_eq!(keys, wanted, "once as sent, and once as returned");
}

fn republishing_goes_on_where_a_restart_broke_it_off(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    for (topic, queues) in [("T1", "1"), ("T2", "3")] {
        let fields = json!({
            "topic": topic, "defaultTopic": "any", "readQueueNums": queues, "writeQueueNums": queues, "perm": "6",
            "topicFilterType": "SINGLE_TAG", "topicSysFlag": "0", "order": "false",
        });
        peer.ask(17, &fields, &[]).expect(0);
    }
    for number in 0..9 {
        peer.send_message("T1", 0, format!("{number}").as_bytes(), &format!("KEYS\u{1}k{number}\u{2}")).expect(0);
    }
    let pair = json!({"from": "T1", "to": "T2"});
    let step = |at: u64, begun: bool| json!({"pair": pair, "queue": 0, "at": at, "begun": begun, "end": 9, "limit": 4});
    let stepped = ask(&mut peer, REPUBLISH_STEP, &step(0, false)).expect(0).json();
    assert_eq!((&stepped["next"], &stepped["moved"]), (&json!(4), &json!(4)));
    let stage = stage.restart(driver);
    let mut peer = stage.peer();
    ask(&mut peer, REPUBLISH_STEP, &step(0, false)).expect(2);
    let shown = ask(&mut peer, REPUBLISH_SHOW, &pair).expect(0).json();
    assert_eq!((&shown["queues"][0]["next"], &shown["queues"][0]["end"]), (&json!(4), &json!(9)));
    ask(&mut peer, REPUBLISH_STEP, &step(4, false)).expect(0);
    // What is told by a step is what the next one goes on with, at once.
    ask(&mut peer, REPUBLISH_STEP, &step(8, true)).expect(0);
    ask(&mut peer, REPUBLISH_STEP, &step(9, true)).expect(0);
    let mut bodies = Vec::new();
    for queue in 0..3 {
        let records = peer.pull("g", "T2", queue, 0).expect(0).records();
        assert_eq!(records.len(), 3, "they are spread evenly");
        bodies.extend(records.into_iter().map(|record| (record.topic, String::from_utf8(record.body).expect("text"))));
    }
    bodies.sort();
    let expected: Vec<_> = (0..9).map(|number| ("T2".to_owned(), number.to_string())).collect();
    assert_eq!(bodies, expected);
}
