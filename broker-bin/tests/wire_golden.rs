//! Are the bytes still the bytes? The codec against `fixtures/wire/`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anchorlog::wire::body::{ConsumeType, Heartbeat, IdStyle, MessageModel, Route, RouteBroker, RouteQueues};
use anchorlog::wire::header::Head;
use anchorlog::wire::message::{self, MessageId, RecordHead, records};
use anchorlog::wire::{Encoding, FrameRef, Header, Language, batch, body, codes};
use bytes::BytesMut;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

/// The bytes of a fixture: hex digits up to the bar of each line.
fn fixture(name: &str) -> Vec<u8> {
    let text = fs::read_to_string(folder().join("wire").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let digits: String = text.lines().filter_map(|line| line.split('|').next()).collect();
    let digits: Vec<u32> =
        digits.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).expect("hex")).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).expect("a byte")).collect()
}

fn whole_frame(bytes: &[u8]) -> FrameRef<'_> {
    let frame = FrameRef::parse(bytes).expect("a frame").expect("a whole one");
    assert_eq!(frame.total_bytes(), bytes.len());
    frame
}

#[track_caller]
fn assert_same(written: &[u8], name: &str) {
    let wanted = fixture(name);
    let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(show(written), show(&wanted), "{name}");
    assert_eq!(written, wanted, "{name}");
}

#[test]
fn the_list_of_fixtures_and_the_folder_agree() {
    let readme = fs::read_to_string(folder().join("README.md")).expect("the list");
    let mut listed = BTreeMap::new();
    for row in readme.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [name, what, origin, bytes, crc] = cells[..] else { panic!("five cells: {row}") };
        assert!(!what.is_empty() && !origin.is_empty(), "{row}");
        listed.insert(name.to_owned(), (bytes.to_owned(), crc.to_owned()));
    }
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder().join("wire")).expect("the folder") {
        let name = entry.expect("an entry").file_name().into_string().expect("text");
        let bytes = fixture(&name);
        found.insert(name, (bytes.len().to_string(), format!("{:08x}", crc32fast::hash(&bytes))));
    }
    assert_eq!(listed, found);
}

#[test]
fn the_worked_requests_are_read_and_written() {
    for (name, encoding) in [("route-request-json.hex", Encoding::Json), ("route-request-binary.hex", Encoding::Binary)]
    {
        let bytes = fixture(name);
        let frame = whole_frame(&bytes);
        let header = Header::of(&frame).expect("good");
        assert_eq!(
            (header.encoding, header.code, header.opaque),
            (encoding, codes::request::GET_ROUTEINFO_BY_TOPIC, 7)
        );
        assert_eq!((header.version, header.language, header.field("topic")), (479, Language::Java, Some("T1")));
        let mut out = BytesMut::new();
        let mut request = Head::request(encoding, codes::request::GET_ROUTEINFO_BY_TOPIC, 7).encode(&mut out);
        request.field("topic", "T1");
        request.finish(b"").expect("it fits");
        assert_same(&out, name);
    }
}

#[test]
fn the_worked_answer_is_written() {
    let bytes = fixture("route-answer-json.hex");
    let mut out = BytesMut::new();
    let mut answer = Head::response(Encoding::Json, 0, 7).encode(&mut out);
    answer.fields();
    answer.finish(whole_frame(&bytes).body).expect("it fits");
    assert_same(&out, "route-answer-json.hex");
}

#[test]
fn the_worked_record_is_written_and_read() {
    let head = RecordHead {
        body_crc: message::body_crc(b"hello"),
        queue_id: 3,
        flag: 0,
        queue_offset: 9,
        physical_offset: 4096,
        sys_flag: 0,
        born_timestamp: 1_700_000_000_000,
        born_host: "127.0.0.1:50000".parse().expect("an address"),
        store_timestamp: 1_700_000_000_005,
        store_host: "127.0.0.1:10911".parse().expect("an address"),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
    };
    let mut out = BytesMut::new();
    head.encode(&mut out, "T1", b"hello", &["TAGS\u{1}A\u{2}", "UNIQ_KEY\u{1}K\u{2}"]).expect("it fits");
    assert_same(&out, "record-worked.hex");
    let read: Vec<_> = records(&out).collect::<Result<_, _>>().expect("good");
    assert_eq!((read.len(), read[0].head, read[0].body), (1, head, &b"hello"[..]));
    let id = MessageId { host: head.store_host, offset: head.physical_offset };
    assert_eq!(id.to_string(), "7F00000100002A9F0000000000001000");
}

#[test]
fn a_record_of_the_original_is_read_and_written_the_same() {
    let answer = fixture("pull-answer-original.hex");
    let frame = whole_frame(&answer);
    let header = Header::of(&frame).expect("good");
    assert!(header.is_response());
    assert_eq!(
        (header.remark(), header.field("nextBeginOffset"), header.field("maxOffset")),
        (Some("FOUND"), Some("1"), Some("1"))
    );
    assert_eq!(frame.body, fixture("record-original.hex"));
    let record = records(frame.body).next().expect("one").expect("good");
    assert_eq!((&*record.topic, record.body), ("PeerOns", &b"hello"[..]));
    assert_eq!(record.head.body_crc, message::body_crc(b"hello"));
    assert_eq!(message::property(&record.properties, "TAGS"), Some("TagA"));
    assert_eq!(message::property(&record.properties, "CLUSTER"), Some("DefaultCluster"));
    let mut out = BytesMut::new();
    record.head.encode(&mut out, &record.topic, record.body, &[&record.properties]).expect("it fits");
    assert_same(&out, "record-original.hex");
}

#[test]
fn sends_of_every_family_are_read() {
    // File, language, version, then topic, queue, flags and batch under their names of either form.
    let cases = [
        ("send-java-4.9.8.hex", Language::Java, 409, ["Orders", "2", "0", "false"], &b"m0"[..]),
        ("send-go-2.1.2.hex", Language::Go, 317, ["Orders", "1", "0", "false"], b"0"),
        ("send-ali-ons-3.12.0.hex", Language::Java, 121, ["PeerOns", "1", "0", ""], b"hello"),
        ("send-cpp-python-0.4.4.hex", Language::Cpp, 63, ["PeerPy", "0", "0", "0"], b"one"),
        ("send-rust-1.0.0.hex", Language::Rust, 474, ["PeerRs", "0", "769", "false"], b""),
    ];
    for (name, language, version, [topic, queue, sys_flag, is_batch], sent) in cases {
        let bytes = fixture(name);
        let frame = whole_frame(&bytes);
        let header = Header::of(&frame).expect("good");
        assert_eq!((header.language, header.version), (language, version), "{name}");
        assert!(!header.is_oneway() && !header.is_response(), "{name}");
        let either = |long, short| header.field(if header.code == 310 { short } else { long }).unwrap_or_default();
        assert_eq!(either("topic", "b"), topic, "{name}");
        assert_eq!(either("queueId", "e"), queue, "{name}");
        assert_eq!(either("sysFlag", "f"), sys_flag, "{name}");
        assert_eq!(either("batch", "m"), is_batch, "{name}");
        assert!(message::property(either("properties", "i"), "TAGS").is_some(), "{name}");
        assert!(sent.is_empty() || frame.body == sent, "{name}");
    }
}

#[test]
fn a_recorded_batch_comes_apart() {
    let bytes = fixture("batch-java-4.9.8.hex");
    let frame = whole_frame(&bytes);
    assert_eq!(Header::of(&frame).expect("good").field("m"), Some("true"));
    let entries: Vec<_> = batch::entries(frame.body).collect::<Result<_, _>>().expect("good");
    let bodies: Vec<_> = entries.iter().map(|entry| entry.body).collect();
    assert_eq!(bodies, [b"b0", b"b1", b"b2"]);
    assert_eq!(message::property(&entries[2].properties, "TAGS"), Some("Tag0"));
    let mut out = BytesMut::new();
    for entry in &entries {
        entry.encode(&mut out).expect("it fits");
    }
    assert_eq!(out, frame.body);
}

#[test]
fn recorded_pulls_are_read() {
    for (name, queue, commit) in [("pull-java-5.3.3.hex", "0", "0"), ("pull-ali-ons-3.12.0.hex", "0", "-1")] {
        let bytes = fixture(name);
        let header = Header::of(&whole_frame(&bytes)).expect("good");
        assert_eq!(header.code, codes::request::PULL_MESSAGE, "{name}");
        assert_eq!((header.field("queueId"), header.field("commitOffset")), (Some(queue), Some(commit)), "{name}");
        assert_eq!(header.field("maxMsgNums"), Some("32"), "{name}");
    }
}

#[test]
fn recorded_heartbeats_are_read() {
    let cases = [
        ("heartbeat-go-2.1.2.hex", "GID_go", ["%RETRY%GID_go", "Orders"], 1_795_218_000_204_145_263),
        ("heartbeat-ali-ons-3.12.0.hex", "GID_ons", ["PeerOns", "%RETRY%GID_ons"], 1_795_218_589_664),
        ("heartbeat-cpp-python-0.4.4.hex", "GID_py", ["%RETRY%GID_py", "PeerPy"], 1_795_218_167_573),
    ];
    for (name, group, topics, version) in cases {
        let bytes = fixture(name);
        let heartbeat = Heartbeat::decode(whole_frame(&bytes).body).expect("good");
        let [consumer] = &heartbeat.consumers[..] else { panic!("{name}: one group: {heartbeat:?}") };
        assert_eq!(consumer.group, group);
        assert_eq!((consumer.consume_type, consumer.message_model), (ConsumeType::Passively, MessageModel::Clustering));
        let subscribed: Vec<_> =
            consumer.subscriptions.iter().map(|subscription| subscription.topic.as_str()).collect();
        assert_eq!(subscribed, topics, "{name}");
        assert_eq!(consumer.subscriptions[0].version, version, "{name}");
        assert!(consumer.subscriptions.iter().all(|one| one.is_by_tag() && one.expression == "*"), "{name}");
    }
}

#[test]
fn answers_to_sends_are_written() {
    let mut out = BytesMut::new();
    let mut answer = Head::response(Encoding::Json, 0, 12).encode(&mut out);
    answer.field("MSG_REGION", "DefaultRegion").switch("TRACE_ON", true);
    answer.field("msgId", "7F00000100002A9F0000000000001000").number("queueId", 3).number("queueOffset", 9);
    answer.field("transactionId", "K");
    answer.finish(b"").expect("it fits");
    assert_same(&out, "ours-send-answer-json.hex");
    out.clear();
    let mut answer = Head::response(Encoding::Binary, 0, 12).encode(&mut out);
    answer.fields().field("msgId", "7F00000100002A9F0000000000001000").number("queueId", 3).number("queueOffset", 9);
    answer.finish(b"").expect("it fits");
    assert_same(&out, "ours-send-answer-binary.hex");
    // The load generator reads what the original answers.
    let bytes = fixture("send-answer-original.hex");
    let frame = whole_frame(&bytes);
    let header = Header::of(&frame).expect("good");
    assert_eq!((header.code, header.opaque, header.field("queueOffset")), (0, 3, Some("0")));
}

#[test]
fn answers_about_brokers_and_topics_are_written() {
    let broker = RouteBroker { cluster: "DefaultCluster", name: "broker-a", addresses: &[(0, "127.0.0.1:9876")] };
    let queues = RouteQueues { broker_name: "broker-a", read_queues: 4, write_queues: 4, permissions: 6, sys_flag: 0 };
    let route = Route { queues: &[queues], brokers: &[broker] };
    for (ids, name) in
        [(IdStyle::Quoted, "ours-route-answer-quoted.hex"), (IdStyle::Bare, "ours-route-answer-bare.hex")]
    {
        let mut out = BytesMut::new();
        let answer = Head::response(Encoding::Json, 0, 7).encode(&mut out);
        answer.finish_with(|out| route.encode(out, ids)).expect("it fits");
        assert_same(&out, name);
    }
    let mut out = BytesMut::new();
    let answer = Head::response(Encoding::Json, 0, 1).encode(&mut out);
    answer.finish_with(|out| body::put_cluster_info(out, &[broker])).expect("it fits");
    assert_same(&out, "ours-cluster-answer.hex");
}

#[test]
fn remarks_and_requests_of_ours_are_written() {
    let mut out = BytesMut::new();
    let head =
        Head::response(Encoding::Json, codes::response::TOPIC_NOT_EXIST, 7).with_remark("no route to the topic \"T\"");
    head.encode(&mut out).finish(b"").expect("it fits");
    assert_same(&out, "ours-no-route-answer.hex");
    out.clear();
    let head = Head::request(Encoding::Json, codes::request::NOTIFY_CONSUMER_IDS_CHANGED, 1).oneway();
    let mut request = head.encode(&mut out);
    request.field("consumerGroup", "GID_go");
    request.finish(b"").expect("it fits");
    assert_same(&out, "ours-notify-request.hex");
}
