//! Transactions over a real socket and a real clock; number 13 of the wire notes.

use std::time::Duration;

use anchorlog::{BrokerOptions, Driver};
use serde_json::{Value, json};

use crate::delays::wait_for;
use crate::over_every_driver;
use crate::peer::{Frame, Peer, send_fields};
use crate::stage::Stage;

over_every_driver! {
    a_commit_said_twice_makes_one_message,
    a_producer_that_says_nothing_is_asked,
    a_pending_transaction_survives_a_restart,
}

pub(crate) fn half(peer: &mut Peer, body: &[u8]) -> Frame {
    let properties = "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}pg\u{2}UNIQ_KEY\u{1}K\u{2}TAGS\u{1}tx\u{2}";
    let mut fields = send_fields("T1", 0, properties);
    fields["f"] = json!("4");
    peer.ask(310, &fields, body).expect(0)
}

/// The verdict on what a send's answer or a question names.
fn verdict(offset: &str, queue_offset: &str, verdict: i64) -> Value {
    json!({
        "producerGroup": "pg", "commitLogOffset": offset, "tranStateTableOffset": queue_offset,
        "commitOrRollback": verdict.to_string(), "fromTransactionCheck": "false", "msgId": "K", "transactionId": "K",
    })
}

pub(crate) fn verdict_on(half: &Frame, commit_or_rollback: i64) -> Value {
    let offset = u64::from_str_radix(&half.field("msgId")[16..], 16).expect("an id");
    verdict(&offset.to_string(), half.field("queueOffset"), commit_or_rollback)
}

fn heartbeat() -> Vec<u8> {
    json!({"clientID": "p@1", "producerDataSet": [{"groupName": "pg"}], "consumerDataSet": []}).to_string().into_bytes()
}

fn a_commit_said_twice_makes_one_message(driver: Driver) {
    let stage = Stage::new(driver);
    let (mut peer, mut consumer) = (stage.peer(), stage.peer());
    let (first, second) = (half(&mut peer, b"commit"), half(&mut peer, b"rollback"));
    consumer.pull("g", "T1", 0, 0).expect(19);
    // As Java's producers say it, and then as others do.
    peer.send_oneway(37, &verdict_on(&first, 8), &[]);
    assert_eq!(wait_for(&mut consumer, "T1", 0, 0).body, b"commit");
    peer.ask(37, &verdict_on(&first, 8), &[]).expect(0);
    peer.ask(37, &verdict_on(&second, 12), &[]).expect(0);
    peer.ask(37, &verdict_on(&second, 8), &[]).expect(1);
    peer.ask(37, &verdict_on(&first, 12), &[]).expect(1);
    assert_eq!(consumer.pull("g", "T1", 0, 0).expect(0).records().len(), 1);
    let counts = stage.broker.counts();
    assert_eq!((counts.transactions_committed, counts.transactions_rolled_back, counts.verdicts_refused), (1, 1, 2));
}

fn a_producer_that_says_nothing_is_asked(driver: Driver) {
    let stage = Stage::with(driver, |options| BrokerOptions {
        transaction_timeout: Duration::from_millis(300),
        transaction_check_interval: Duration::from_millis(300),
        transaction_check_max: 3,
        ..options
    });
    let (mut peer, mut consumer) = (stage.peer(), stage.peer());
    let sent = half(&mut peer, b"half");
    peer.ask(34, &json!(null), &heartbeat()).expect(0);
    let question = peer.notice();
    assert_eq!((question.code(), question.field("offsetMsgId")), (39, sent.field("msgId")));
    assert_eq!(question.records()[0].body, b"half");
    // It does not know, and is asked again.
    let unknown = verdict(question.field("commitLogOffset"), question.field("tranStateTableOffset"), 0);
    peer.ask(37, &unknown, &[]).expect(0);
    let again = peer.notice();
    assert_eq!(again.field("commitLogOffset"), question.field("commitLogOffset"), "the same message, not a copy");
    let commit = verdict(again.field("commitLogOffset"), again.field("tranStateTableOffset"), 8);
    peer.send_oneway(37, &commit, &[]);
    assert_eq!(wait_for(&mut consumer, "T1", 0, 0).property("TRAN_MSG"), Some("true"));
    assert!(peer.anything(Duration::from_millis(500)).is_none(), "it has said it");
}

fn a_pending_transaction_survives_a_restart(driver: Driver) {
    let mut stage = Stage::new(driver);
    let first = half(&mut stage.peer(), b"half");
    stage = stage.restart(driver);
    let mut peer = stage.peer();
    peer.pull("g", "T1", 0, 0).expect(19);
    peer.ask(37, &verdict_on(&first, 8), &[]).expect(0);
    stage = stage.restart(driver);
    let mut peer = stage.peer();
    peer.ask(37, &verdict_on(&first, 8), &[]).expect(0);
    peer.ask(37, &verdict_on(&first, 12), &[]).expect(1);
    assert_eq!(peer.pull("g", "T1", 0, 0).expect(0).records().len(), 1);
}

/// What was answered goes on where a killed process left it: delayed, sent back, prepared and committed, each once. K-81, K-80, K-90.
#[test]
fn the_whole_chain_survives_a_kill() {
    let store = crate::stage::store();
    let process = crate::restart::Process::start(store.path());
    let mut peer = Peer::connect(process.1);
    peer.ask(34, &json!(null), &crate::peer::heartbeat("c@1", "g", "T1", "*", 1)).expect(0);
    let (committed, pending) = (half(&mut peer, b"committed"), half(&mut peer, b"pending"));
    peer.ask(37, &verdict_on(&committed, 8), &[]).expect(0);
    for _ in 0..20 {
        peer.send_message("T2", 0, b"late", "DELAY\u{1}1\u{2}").expect(0);
    }
    let back = json!({
        "offset": wait_for(&mut peer, "T1", 0, 0).physical_offset.to_string(), "group": "g", "delayLevel": "1",
        "maxReconsumeTimes": "16", "originMsgId": "K", "originTopic": "T1",
    });
    peer.ask(36, &back, &[]).expect(0);
    let delivered = |peer: &mut Peer, topic: &str| {
        peer.ask(30, &json!({"topic": topic, "queueId": "0"}), &[]).expect(0).number("offset")
    };
    let mut process = Some(process);
    // Killed before, while and after all that falls due within a second.
    for pause_ms in [300, 500, 350, 300] {
        // What comes meanwhile are notices of the group.
        while peer.anything(Duration::from_millis(pause_ms)).is_some() {}
        drop(process.take());
        let again = crate::restart::Process::start(store.path());
        peer = Peer::connect(again.1);
        process = Some(again);
    }
    wait_for(&mut peer, "T2", 0, 19);
    wait_for(&mut peer, "%RETRY%g", 0, 0);
    while peer.anything(Duration::from_millis(100)).is_some() {}
    assert_eq!((delivered(&mut peer, "T2"), delivered(&mut peer, "%RETRY%g"), delivered(&mut peer, "T1")), (20, 1, 1));
    peer.ask(37, &verdict_on(&committed, 12), &[]).expect(1);
    peer.ask(37, &verdict_on(&pending, 8), &[]).expect(0);
    assert_eq!(wait_for(&mut peer, "T1", 0, 1).body, b"pending");
}
