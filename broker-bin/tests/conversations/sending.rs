//! Sends of every form, and what is stored of them.

use std::time::Duration;

use anchorlog::Driver;
use serde_json::{Value, json};

use crate::over_every_driver;
use crate::peer::send_fields;
use crate::stage::Stage;

over_every_driver! {
    c04_long_names_are_answered_and_oneway_is_not,
    c05_a_batch_is_stored_as_its_messages,
    c20_a_stored_record_is_the_bytes_of_the_book,
    what_cannot_be_done_is_refused_and_not_stored,
    sizes_at_their_limits,
    a_message_without_an_id_gets_one,
    an_old_client_batches_with_code_10,
}

fn long_fields(topic: &str, queue: i64, properties: &str) -> Value {
    json!({
        "producerGroup": "producers", "topic": topic, "defaultTopic": "TBW102", "defaultTopicQueueNums": "4",
        "queueId": queue.to_string(), "sysFlag": "0", "bornTimestamp": "1700000000000", "flag": "7",
        "properties": properties, "reconsumeTimes": "0", "unitMode": "false", "batch": "false", "bname": "broker-a",
    })
}

fn c04_long_names_are_answered_and_oneway_is_not(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    let sent = peer.ask(10, &long_fields("T1", 0, "KEYS\u{1}a b\u{2}"), b"answered").expect(0);
    assert_eq!(sent.number("queueOffset"), 0);
    peer.send_oneway(10, &long_fields("T1", 0, ""), b"oneway");
    let after = peer.ask(10, &long_fields("T1", 0, ""), b"answered too").expect(0);
    assert_eq!(after.number("queueOffset"), 2);
    assert!(peer.anything(Duration::from_millis(200)).is_none(), "a oneway send is not answered");
    let bodies: Vec<_> = peer.pull("g", "T1", 0, 0).expect(0).records().into_iter().map(|record| record.body).collect();
    assert_eq!(bodies, [&b"answered"[..], b"oneway", b"answered too"]);
    // A refused oneway send is not answered either.
    peer.send_oneway(10, &long_fields("T1", 77, ""), b"nowhere");
    assert!(peer.anything(Duration::from_millis(200)).is_none());
}

/// One message of a batch body.
fn inner(flag: u32, body: &[u8], properties: &str) -> Vec<u8> {
    let total = u32::try_from(22 + body.len() + properties.len()).expect("small");
    let mut bytes = Vec::new();
    for word in [total, 0, 0, flag, u32::try_from(body.len()).expect("small")] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(body);
    bytes.extend(u16::try_from(properties.len()).expect("small").to_be_bytes());
    bytes.extend(properties.as_bytes());
    bytes
}

fn three() -> Vec<u8> {
    (0..3u8).flat_map(|i| inner(i.into(), &[b'b', b'0' + i], &format!("TAGS\u{1}A\u{2}UNIQ_KEY\u{1}K{i}"))).collect()
}

fn c05_a_batch_is_stored_as_its_messages(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    let sent = peer.ask(320, &send_fields("T1", 1, "WAIT\u{1}true"), &three()).expect(0);
    let ids: Vec<_> = sent.field("msgId").split(',').map(str::to_owned).collect();
    assert_eq!((ids.len(), sent.number("queueOffset"), sent.number("queueId")), (3, 0, 1));
    let records = peer.pull("g", "T1", 1, 0).expect(0).records();
    assert_eq!(records.len(), 3);
    for (i, (record, id)) in records.iter().zip(&ids).enumerate() {
        assert_eq!(record.body, [b'b', b'0' + u8::try_from(i).expect("small")]);
        assert_eq!((record.queue_offset, record.flag as usize), (i as u64, i));
        assert_eq!(record.property("UNIQ_KEY"), Some(format!("K{i}").as_str()));
        assert_eq!(record.property("TAGS"), Some("A"));
        assert_eq!(record.property("WAIT"), Some("true"));
        assert!(record.properties.ends_with("CLUSTER\u{1}DefaultCluster\u{2}"), "{:?}", record.properties);
        assert_eq!(format!("7F00000100002A9F{:016X}", record.physical_offset), *id);
    }
    // All or nothing, and nothing of a batch that cannot be read.
    let mut torn = three();
    torn.pop();
    peer.ask(320, &send_fields("T1", 1, ""), &torn).expect(13);
    let delayed = [three(), inner(0, b"late", "DELAY\u{1}3\u{2}")].concat();
    peer.ask(320, &send_fields("T1", 1, ""), &delayed).expect(13);
    let max = peer.ask(30, &json!({"topic": "T1", "queueId": "1"}), &[]).expect(0);
    assert_eq!(max.number("offset"), 3);
}

fn c20_a_stored_record_is_the_bytes_of_the_book(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    // Ten messages, so that the last one has the book's queue offset 9.
    for _ in 0..10 {
        peer.send_message("T1", 3, b"hello", "TAGS\u{1}A\u{2}UNIQ_KEY\u{1}K\u{2}").expect(0);
    }
    let record = peer.pull("g", "T1", 3, 9).expect(0).records().remove(0);
    let book = "00000074daa320a73610a6860000000300000000000000000000000900000000000010000000000000\
                00018bcfe568007f0000010000c3500000018bcfe568057f00000100002a9f00000000000000000000\
                00000000000568656c6c6f025431001254414753014102554e49515f4b4559014b02";
    let mut book: Vec<u8> =
        (0..book.len()).step_by(2).map(|at| u8::from_str_radix(&book[at..at + 2], 16).expect("hex")).collect();
    // What cannot be the book's: where it lies, who sent it from which port, when it was stored, what the broker adds.
    let mut patch = |at: usize, bytes: &[u8]| book[at..at + bytes.len()].copy_from_slice(bytes);
    let added = "MSG_REGION\u{1}DefaultRegion\u{2}TRACE_ON\u{1}true\u{2}CLUSTER\u{1}DefaultCluster\u{2}";
    patch(0, &u32::try_from(116 + added.len()).expect("small").to_be_bytes());
    patch(28, &record.physical_offset.to_be_bytes());
    let port = peer.stream.local_addr().expect("an address").port();
    patch(52, &u32::from(port).to_be_bytes());
    patch(56, &record.bytes[56..64]);
    patch(96, &u16::try_from(18 + added.len()).expect("small").to_be_bytes());
    book.extend(added.as_bytes());
    assert_eq!(record.bytes, book);
}

fn what_cannot_be_done_is_refused_and_not_stored(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    peer.send_message("T1", 0, b"first", "").expect(0);
    for properties in ["DELAY\u{1}4Pinpoint", "TIMER_DELAY_SEC\u{1}soon\u{2}", "TRAN_MSG\u{1}true\u{2}DELAY\u{1}3\u{2}"]
    {
        let refused = peer.send_message("T1", 0, b"late", properties).expect(13);
        assert!(!refused.remark().is_empty(), "{properties:?}");
    }
    let mut half = send_fields("T1", 0, "");
    half["f"] = json!("4");
    peer.ask(310, &half, b"half").expect(13);
    assert!(peer.ask(45, &json!({}), &[]).expect(3).remark().contains("levels of delay"));
    peer.send_message("T1", 0, b"second", "DELAY\u{1}0\u{2}WAIT\u{1}false\u{2}").expect(0);
    let bodies: Vec<_> = peer.pull("g", "T1", 0, 0).expect(0).records().into_iter().map(|record| record.body).collect();
    assert_eq!(bodies, [&b"first"[..], b"second"]);
}

fn sizes_at_their_limits(driver: Driver) {
    let engine = || anchorlog_engine::EngineOptions::default().with_backend(anchorlog_engine::BackendChoice::Threads);
    let stage = Stage::with(driver, |options| anchorlog::BrokerOptions {
        engine: engine().with_segment_bytes(16 << 20).with_buffer_bytes(8 << 20).with_cache_bytes(16 << 20),
        ..options
    });
    let mut peer = stage.peer();
    let largest: Vec<u8> = (0..4 << 20).map(|i: u32| i.to_le_bytes()[0]).collect();
    peer.send_message("T1", 0, &largest, "").expect(0);
    peer.send_message("T1", 0, &[&largest[..], b"x"].concat(), "").expect(13);
    peer.send_message("T1", 0, b"", "").expect(13);
    peer.send_message("T1", 0, b"x", &format!("a\u{1}{}\u{2}", "v".repeat(32_767))).expect(13);
    let properties = format!("a\u{1}{}\u{2}", "v".repeat(32_000));
    peer.send_message("T1", 0, b"x", &properties).expect(0);
    // The first message of an answer may be larger than the answer's limit; the next one waits for the next pull.
    let first = peer.pull("g", "T1", 0, 0).expect(0);
    assert_eq!((first.records().len(), first.number("nextBeginOffset")), (1, 1));
    assert!(first.records()[0].body == largest);
    let second = peer.pull("g", "T1", 0, 1).expect(0).records().remove(0);
    assert!(second.properties.starts_with(&properties));
}

fn a_message_without_an_id_gets_one(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    let sent = peer.send_message("T1", 0, b"x", "TAGS\u{1}A").expect(0);
    let record = peer.pull("g", "T1", 0, 0).expect(0).records().remove(0);
    let key = record.property("UNIQ_KEY").expect("an id");
    assert_eq!((key.len(), key), (32, sent.field("transactionId")));
    assert_eq!(record.property("TAGS"), Some("A"));
}

fn an_old_client_batches_with_code_10(driver: Driver) {
    let stage = Stage::new(driver);
    let mut peer = stage.peer();
    let mut fields = long_fields("T1", 0, "");
    fields["batch"] = json!("1");
    let sent = peer.ask(10, &fields, &three()).expect(0);
    assert_eq!(sent.field("msgId").matches(',').count(), 2);
    assert_eq!(peer.pull("g", "T1", 0, 0).expect(0).records().len(), 3);
}
