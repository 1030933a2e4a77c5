//! One network thread's state, driven by hand over a simulated disk: what it answers, and when.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anchorlog::features::delay::DelayLevels;
use anchorlog::features::send::MadeKeys;
use anchorlog::features::topics::{TEMPLATE, TopicConfig, queue_name};
use anchorlog::limits;
use anchorlog::net::{ConnectionId, Mailbox, Wake, Worker, start_readers};
use anchorlog::shared::{Settings, Shared};
use anchorlog::state::State;
use anchorlog_engine::clock::SimClock;
use anchorlog_engine::io::sim::{IoClass, SimDisk, Times};
use anchorlog_engine::{Clock, Engine, EngineOptions};
use proptest::prelude::*;
use serde_json::{Value, json};

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

/// A worker, its engine driven by hand, and the time.
struct Bench {
    shared: Arc<Shared>,
    worker: Worker,
    clock: Arc<SimClock>,
    disk: SimDisk,
    readers: Vec<JoinHandle<()>>,
    opaque: i64,
}

fn peer() -> SocketAddr {
    "10.0.0.5:50000".parse().expect("an address")
}

fn open(disk: &SimDisk, clock: &Arc<SimClock>) -> Engine {
    let options = EngineOptions::default()
        .with_segment_bytes(256 << 10)
        .with_chunk_bytes(16 << 10)
        .with_buffer_bytes(256 << 10)
        .with_cache_bytes(512 << 10)
        .with_retain_bytes(Some(1 << 20))
        .with_manual_drive();
    Engine::open_with(disk.backend(), clock.clone(), "/store", options).expect("a log")
}

impl Bench {
    fn new() -> Bench {
        Bench::on(SimDisk::new(7), Arc::default())
    }

    fn on(disk: SimDisk, clock: Arc<SimClock>) -> Bench {
        let engine = open(&disk, &clock);
        let state = State::open(&engine).expect("a state");
        state.topics.put(TEMPLATE, TopicConfig::template(8));
        let advertise: SocketAddr = "127.0.0.1:10911".parse().expect("an address");
        let settings = Settings {
            advertise,
            cluster: "c".to_owned(),
            broker: "b".to_owned(),
            auto_create_topics: true,
            template_queues: 8,
            auto_create_groups: true,
            message_bytes_max: limits::BODY_BYTES_MAX,
            ack_timeout: Duration::from_millis(2500),
            keep_unconsumed: true,
            property_filter: true,
            busy_timeout: Duration::from_secs(2),
            delay_levels: DelayLevels::default(),
            transaction_timeout: Duration::from_secs(6),
            transaction_check_interval: Duration::from_secs(30),
            transaction_check_max: 15,
            repeat_window: Duration::from_secs(600),
            repeat_memory: 1 << 20,
        };
        let shared = Arc::new(Shared::new(engine, state, settings, MadeKeys::new(advertise.ip(), 1, 1)));
        let mailboxes: Arc<[Mailbox]> = Arc::new([Mailbox::new(Box::new(Nobody))]);
        let (cold_reads, readers) = start_readers(&shared, &mailboxes).expect("readers");
        let mut worker = Worker::new(shared.clone(), 0, mailboxes, cold_reads).expect("a worker");
        worker.set_time(clock.monotonic());
        Bench { shared, worker, clock, disk, readers, opaque: 0 }
    }

    fn connect(&mut self) -> ConnectionId {
        self.worker.accept(peer()).expect("room for one more")
    }

    fn request(&mut self, code: i64, fields: &Value, body: &[u8]) -> Vec<u8> {
        self.opaque += 1;
        let header = json!({"code": code, "extFields": fields, "flag": 0, "opaque": self.opaque, "version": 479});
        frame(header.to_string().as_bytes(), body)
    }

    fn give(&mut self, id: ConnectionId, code: i64, fields: &Value, body: &[u8]) -> i64 {
        let bytes = self.request(code, fields, body);
        self.worker.bytes_in(id, &bytes);
        self.opaque
    }

    fn send(&mut self, id: ConnectionId, body: &[u8]) -> i64 {
        let mut fields = send_fields(0);
        // Each is a message of its own.
        fields["i"] = json!(format!("UNIQ_KEY\u{1}K{}\u{2}", self.opaque));
        self.give(id, 310, &fields, body)
    }

    /// Lets the engine do everything that it can without time passing.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            if self.shared.engine.step() {
                return;
            }
        }
        panic!("the engine does not come to rest");
    }

    fn pass(&mut self, time: Duration) {
        self.clock.advance(time);
        self.worker.set_time(self.clock.monotonic());
        self.worker.tick();
    }

    /// Takes what is written to a connection: code, opaque and remark of each answer.
    fn answers(&mut self, id: ConnectionId) -> Vec<(i64, i64, String)> {
        let mut bytes = self.worker.output(id).to_vec();
        self.worker.wrote(id, bytes.len());
        let mut answers = Vec::new();
        while !bytes.is_empty() {
            let length = u32::from_be_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
            let header = u32::from_be_bytes(bytes[4..8].try_into().expect("four bytes")) as usize;
            let header: Value = serde_json::from_slice(&bytes[8..8 + header]).expect("a header");
            let number = |key: &str| header[key].as_i64().expect("a number");
            let remark = header["remark"].as_str().unwrap_or_default().to_owned();
            answers.push((number("code"), number("opaque"), remark));
            bytes.drain(..4 + length);
        }
        answers
    }

    fn codes(&mut self, id: ConnectionId) -> Vec<i64> {
        self.answers(id).into_iter().map(|(code, ..)| code).collect()
    }

    /// Ends everything; the disk keeps what was written.
    fn end(self) -> (SimDisk, Arc<SimClock>) {
        let Bench { shared, worker, clock, disk, readers, .. } = self;
        drop(worker);
        readers.into_iter().for_each(|reader| reader.join().expect("no panic"));
        drop(shared);
        (disk, clock)
    }
}

fn frame(header: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(4 + header.len() + body.len()).expect("small").to_be_bytes().to_vec();
    bytes.extend(u32::try_from(header.len()).expect("small").to_be_bytes());
    bytes.extend(header);
    bytes.extend(body);
    bytes
}

fn send_fields(queue: i64) -> Value {
    json!({
        "a": "p", "b": "T1", "c": "TBW102", "d": "4", "e": queue.to_string(), "f": "0", "g": "1", "h": "0",
        "i": "UNIQ_KEY\u{1}K\u{2}", "j": "0", "k": "false", "m": "false",
    })
}

#[test]
fn answers_leave_when_all_is_durable_and_not_before() {
    let mut bench = Bench::new();
    let (first, second) = (bench.connect(), bench.connect());
    for body in [b"a", b"b", b"c"] {
        bench.send(first, body);
        bench.send(second, body);
    }
    bench.worker.end_of_turn();
    assert!(bench.codes(first).is_empty() && bench.codes(second).is_empty());
    bench.settle();
    bench.worker.acked();
    assert_eq!((bench.codes(first), bench.codes(second)), (vec![0; 3], vec![0; 3]));
    let stats = bench.shared.engine.stats();
    // The store's format, the topic's entry, then six messages: one commit for all of them.
    assert_eq!(stats.records, 8);
    assert!(stats.commits <= 2, "{stats:?}");
    bench.end();
}

#[test]
fn a_send_that_is_not_confirmed_in_time_is_answered_once_as_stored() {
    let mut bench = Bench::new();
    let id = bench.connect();
    let opaque = bench.send(id, b"slow");
    bench.worker.end_of_turn();
    bench.pass(Duration::from_millis(2400));
    assert!(bench.codes(id).is_empty());
    bench.pass(Duration::from_millis(200));
    let answers = bench.answers(id);
    assert_eq!((answers.len(), answers[0].0, answers[0].1), (1, 10, opaque));
    bench.settle();
    bench.worker.acked();
    assert!(bench.codes(id).is_empty(), "one request, one answer");
    bench.end();
}

#[test]
fn a_failed_flush_leaves_sends_unconfirmed_and_refuses_later_ones() {
    let mut bench = Bench::new();
    let id = bench.connect();
    bench.send(id, b"good");
    bench.worker.end_of_turn();
    bench.settle();
    bench.worker.acked();
    assert_eq!(bench.codes(id), [0]);
    bench.disk.fail(IoClass::Write, bench.disk.count(IoClass::Write) + 1, 5, Times::Forever);
    bench.send(id, b"unlucky");
    bench.worker.end_of_turn();
    bench.settle();
    bench.worker.acked();
    assert_eq!(bench.codes(id), [10]);
    bench.send(id, b"late");
    bench.worker.end_of_turn();
    let answers = bench.answers(id);
    assert_eq!(answers[0].0, 14);
    assert!(answers[0].2.contains("fenced"), "{}", answers[0].2);
    // Reading goes on.
    let pull = json!({
        "consumerGroup": "g", "topic": "T1", "queueId": "0", "queueOffset": "0", "maxMsgNums": "32", "sysFlag": "4",
        "commitOffset": "0", "suspendTimeoutMillis": "0", "subscription": "*", "subVersion": "0",
    });
    bench.give(id, 11, &pull, &[]);
    assert_eq!(bench.codes(id), [0]);
    bench.end();
}

#[test]
fn what_does_not_fit_the_log_buffer_waits_and_keeps_its_order() {
    let mut bench = Bench::new();
    let (busy, idle) = (bench.connect(), bench.connect());
    // More than the buffer of 256 KiB.
    let opaques: Vec<_> = (0..12).map(|_| bench.send(busy, &[b'x'; 40 << 10])).collect();
    bench.worker.end_of_turn();
    assert!(!bench.worker.wants_input(busy), "what it sends next would have to wait too");
    assert!(bench.worker.wants_input(idle));
    bench.give(idle, 105, &json!({"topic": "TBW102"}), &[]);
    assert_eq!(bench.codes(idle), [0], "others are served");
    for _ in 0..12 {
        bench.settle();
        bench.worker.written();
        bench.worker.acked();
    }
    let answers = bench.answers(busy);
    assert_eq!(answers.iter().map(|answer| answer.1).collect::<Vec<_>>(), opaques);
    assert!(answers.iter().all(|answer| answer.0 == 0));
    assert!(bench.worker.wants_input(busy));
    assert!(bench.shared.counters.sends_blocked.get() > 0);
    bench.end();
}

#[test]
fn what_waits_too_long_for_the_log_buffer_is_refused_and_not_stored() {
    let mut bench = Bench::new();
    let id = bench.connect();
    for _ in 0..12 {
        bench.send(id, &[b'x'; 40 << 10]);
    }
    bench.worker.end_of_turn();
    bench.pass(Duration::from_millis(2100));
    let refused = bench.answers(id);
    assert!(!refused.is_empty() && refused.iter().all(|answer| answer.0 == 14 && answer.2.starts_with("[BUSY]")));
    bench.settle();
    bench.worker.acked();
    let stored = bench.codes(id);
    assert_eq!((stored.len() + refused.len(), stored.iter().all(|&code| code == 0)), (12, true));
    let max = bench.give(id, 30, &json!({"topic": "T1", "queueId": "0"}), &[]);
    assert!(max > 0 && bench.codes(id) == [0]);
    let queue =
        bench.shared.state.topics.get("T1").expect("made").queue(&bench.shared.engine, 0).expect("fits").cloned();
    let range = bench.shared.engine.range(&queue.expect("queue 0"));
    assert_eq!(range.max.0, stored.len() as u64);
    bench.end();
}

#[test]
fn an_answered_commit_is_durable_before_its_answer() {
    let mut bench = Bench::new();
    let id = bench.connect();
    bench.send(id, b"x");
    bench.worker.end_of_turn();
    bench.settle();
    bench.worker.acked();
    assert_eq!(bench.codes(id), [0]);
    let commit = json!({"consumerGroup": "g", "topic": "T1", "queueId": "0", "commitOffset": "1"});
    bench.give(id, 15, &commit, &[]);
    bench.worker.end_of_turn();
    assert!(bench.codes(id).is_empty());
    bench.settle();
    bench.worker.acked();
    assert_eq!(bench.codes(id), [0]);
    let (disk, clock) = bench.end();
    let after = Bench::on(disk.crash(1), clock);
    let key = anchorlog::features::offsets::OffsetKey { group: "g".into(), topic: "T1".into(), queue: 0 };
    assert_eq!(after.shared.state.offsets.get(&key), Some(1));
    after.end();
}

fn commit_fields(group: &str, offset: u64) -> Value {
    json!({"consumerGroup": group, "topic": "T1", "queueId": "0", "commitOffset": offset.to_string()})
}

/// K-63: a full disk refuses what is sent, as "nothing stored", and hinders neither consumers nor what they have done.
#[test]
fn a_full_disk_refuses_sends_and_keeps_consumers_going_until_there_is_room() {
    let mut bench = Bench::new();
    let id = bench.connect();
    let turn = |bench: &mut Bench| {
        bench.worker.end_of_turn();
        bench.settle();
        bench.worker.acked();
    };
    bench.send(id, b"first");
    bench.give(id, 15, &commit_fields("g", 0), &[]);
    turn(&mut bench);
    assert_eq!(bench.codes(id), [0, 0]);
    bench.disk.set_capacity(Some(bench.disk.used_bytes()));
    let mut stored = 1;
    let remark = loop {
        bench.send(id, &[b'x'; 30 << 10]);
        turn(&mut bench);
        match bench.answers(id).pop().expect("an answer") {
            (0, ..) => stored += 1,
            (code, _, remark) => break (code, remark),
        }
        bench.pass(Duration::from_millis(10));
        assert!(stored < 1000, "the disk is never full");
    };
    assert_eq!(remark.0, 14);
    assert!(remark.1.starts_with("nothing was stored: there is no room for the log to grow"), "{}", remark.1);
    // In one turn: a send to a topic that is not known yet, and a commit that waits for its answer. The topic is refused, the offset
    // is not.
    let mut fields = send_fields(0);
    fields["b"] = json!("T2");
    bench.give(id, 310, &fields, b"second");
    let commit = bench.give(id, 15, &commit_fields("g", 1), &[]);
    bench.worker.end_of_turn();
    let answers = bench.answers(id);
    assert_eq!((answers.len(), answers[0].0), (1, 14), "{answers:?}");
    bench.settle();
    bench.worker.acked();
    let answers = bench.answers(id);
    assert_eq!(answers.iter().map(|answer| (answer.0, answer.1)).collect::<Vec<_>>(), [(0, commit)]);
    // Pulls go on, and so do commits while the topic still waits to be written.
    let pull = json!({
        "consumerGroup": "g", "topic": "T1", "queueId": "0", "queueOffset": "0", "maxMsgNums": "1", "sysFlag": "0",
        "commitOffset": "0", "suspendTimeoutMillis": "0", "subscription": "*", "subVersion": "0",
    });
    bench.give(id, 11, &pull, &[]);
    assert_eq!(bench.codes(id), [0]);
    for offset in 0..20 {
        bench.give(id, 15, &commit_fields("g", offset % 2), &[]);
        bench.send(id, b"not now");
        turn(&mut bench);
        let mut codes = bench.codes(id);
        codes.sort_unstable();
        assert_eq!(codes, [0, 14]);
    }
    // What was answered is there whatever happens, also on the disk that is full still.
    let (disk, clock) = bench.end();
    let mut bench = Bench::on(disk.crash(3), clock);
    let key = anchorlog::features::offsets::OffsetKey { group: "g".into(), topic: "T1".into(), queue: 0 };
    assert_eq!(bench.shared.state.offsets.get(&key), Some(1));
    let queue = bench.shared.engine.queue(&queue_name("T1", 0)).expect("a queue");
    assert_eq!(bench.shared.engine.range(&queue).max.0, stored);
    let id = bench.connect();
    bench.send(id, &[b'x'; 30 << 10]);
    turn(&mut bench);
    assert_eq!(bench.codes(id), [14]);
    // And it heals by itself.
    bench.disk.set_capacity(None);
    for _ in 0..5 {
        bench.pass(Duration::from_millis(600));
        bench.settle();
    }
    bench.give(id, 310, &fields, b"third");
    bench.send(id, b"fourth");
    turn(&mut bench);
    assert_eq!(bench.codes(id), [0, 0]);
    bench.end();
}

#[test]
fn silence_ends_membership_first_and_the_connection_with_it() {
    let mut bench = Bench::new();
    let id = bench.connect();
    let beat = json!({"clientID": "c", "consumerDataSet": [{"groupName": "g", "subscriptionDataSet": []}]});
    bench.give(id, 34, &json!(null), beat.to_string().as_bytes());
    assert_eq!(bench.shared.state.groups.client_ids("g").len(), 1);
    bench.pass(Duration::from_secs(100));
    bench.give(id, 105, &json!({"topic": "T1"}), &[]);
    bench.pass(Duration::from_secs(21));
    assert!(bench.shared.state.groups.client_ids("g").is_empty(), "no heartbeat for 121 s");
    assert!(!bench.worker.wants_close(id), "but it talked 21 s ago");
    let unwritten = bench.answers(id);
    assert!(!unwritten.is_empty());
    bench.pass(Duration::from_secs(121));
    assert!(bench.worker.wants_close(id));
    bench.worker.closed(id);
    assert_eq!(bench.worker.connection_count(), 0);
    bench.end();
}

/// A topic whose entry is lost while its messages are not would be made anew with other queues: crash wherever the disk may stop.
#[test]
fn a_message_is_never_there_without_its_topic() {
    let (mut with_messages, mut without_topics) = (0, 0);
    for last in 0.. {
        let mut bench = Bench::new();
        let id = bench.connect();
        bench.disk.stop_after(bench.disk.io_count() + last);
        for body in [b"a", b"b", b"c"] {
            bench.send(id, body);
            bench.worker.end_of_turn();
            bench.shared.engine.step();
        }
        bench.settle();
        let finished = !bench.disk.is_dead();
        let (disk, clock) = bench.end();
        let after = Bench::on(disk.crash(last), clock);
        let queue = after.shared.engine.queue(&queue_name("T1", 0)).expect("a queue");
        let messages = after.shared.engine.range(&queue).max.0;
        let topic = after.shared.state.topics.get("T1");
        with_messages += u64::from(messages > 0);
        without_topics += u64::from(topic.is_none());
        assert!(messages == 0 || topic.is_some(), "{messages} messages after I/O {last}");
        after.end();
        if finished {
            break;
        }
    }
    assert!(with_messages > 0 && without_topics > 0, "{with_messages} {without_topics}");
}

/// A stranger who drips a frame costs those who work no turn.
#[test]
fn a_piece_of_a_request_is_nothing_to_do_until_it_is_whole() {
    let mut bench = Bench::new();
    let (id, other) = (bench.connect(), bench.connect());
    let bytes = bench.request(310, &send_fields(0), b"body");
    for piece in bytes[..bytes.len() - 1].chunks(7) {
        assert!(!bench.worker.bytes_in(id, piece));
    }
    assert_eq!(bench.worker.input_bytes(id), bytes.len() - 1);
    assert!(bench.worker.bytes_in(id, &bytes[bytes.len() - 1..]), "now it is");
    bench.worker.end_of_turn();
    bench.settle();
    bench.worker.acked();
    assert_eq!(bench.answers(id).len(), 1);
    while bench.worker.next_dirty().is_some() {}
    assert!(bench.worker.bytes_in(other, b"no frame at all"), "somebody is to be sent away");
    assert!(bench.worker.wants_close(other));
    bench.end();
}

/// Bytes that a connection may be given: good requests, damaged ones, and noise.
fn any_pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let fields = prop_oneof![
        Just(send_fields(0)),
        Just(json!({"topic": "T1", "queueId": 0, "consumerGroup": "g", "commitOffset": 5})),
        Just(json!({
            "consumerGroup": "g", "topic": "T1", "queueId": "0", "queueOffset": "-7", "maxMsgNums": "-1", "sysFlag": "7",
            "commitOffset": "0", "suspendTimeoutMillis": "99999999999", "subscription": "A || B", "subVersion": "0",
        })),
        Just(json!(null)),
        Just(json!({"b": [1, {"x": 2}], "e": true, "topic": "\u{0}"})),
    ];
    let code =
        prop::sample::select(vec![10i64, 11, 14, 15, 17, 29, 30, 34, 35, 36, 38, 46, 105, 310, 320, 361, 99_999]);
    let request =
        (code, fields, prop::collection::vec(any::<u8>(), 0..60), 0..4i64).prop_map(|(code, fields, body, flag)| {
            frame(json!({"code": code, "extFields": fields, "flag": flag, "opaque": 1}).to_string().as_bytes(), &body)
        });
    let damaged = (request.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut bytes, at, byte)| {
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes
    });
    let noise = prop::collection::vec(any::<u8>(), 0..100);
    prop::collection::vec(prop_oneof![4 => request, 2 => damaged, 1 => noise], 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_any_pieces_are_survived(pieces in any_pieces(), cut in 1..400usize, steps in any::<u64>()) {
        let mut bench = Bench::new();
        let mut id = bench.connect();
        let stream = pieces.concat();
        for (turn, piece) in stream.chunks(cut).enumerate() {
            if bench.worker.wants_close(id) {
                bench.worker.closed(id);
                id = bench.connect();
            }
            if bench.worker.bytes_in(id, piece) {
                bench.worker.end_of_turn();
            }
            if steps >> (turn % 64) & 1 == 1 {
                bench.shared.engine.step();
                bench.worker.acked();
                bench.worker.watched();
                bench.worker.mail();
            }
            prop_assert!(bench.worker.output(id).len() <= limits::OUT_BYTES_MAX);
            prop_assert!(bench.worker.input_bytes(id) <= stream.len());
        }
        bench.settle();
        bench.pass(Duration::from_secs(30));
        bench.worker.acked();
        prop_assert_eq!(bench.worker.held_count(), 0);
        bench.worker.stop();
        bench.settle();
        bench.worker.acked();
        while let Some(id) = bench.worker.next_dirty() {
            let count = bench.worker.output(id).len();
            bench.worker.wrote(id, count);
        }
        prop_assert!(bench.worker.is_settled());
        bench.worker.closed(id);
        bench.end();
    }
}
