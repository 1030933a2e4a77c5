//! A broker without sockets and threads, for the features' tests: a network thread's state, the timer, and an engine driven by hand over a
//! simulated disk and clock. A test decides when something is durable, what time it is, and where the power fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anchorlog_engine::clock::SimClock;
use anchorlog_engine::io::sim::{SimDisk, Survival};
use anchorlog_engine::{Clock, Engine, EngineOptions, WriteBatch};
use serde_json::{Value, json};

use crate::features::delay::{DelayLevels, Step, Timer};
use crate::features::offsets::Pins;
use crate::features::send::MadeKeys;
use crate::features::topics::{TEMPLATE, TopicConfig, queue_name};
use crate::limits;
use crate::net::{ConnectionId, Mailbox, Wake, Worker, start_readers};
use crate::shared::{Settings, Shared};
use crate::standing::Standing;
use crate::state::State;
use crate::wire::message::{property, records};

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

/// The broker.
pub(crate) struct Scene {
    pub(crate) shared: Arc<Shared>,
    pub(crate) worker: Worker,
    pub(crate) timer: Timer,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) disk: SimDisk,
    readers: Vec<JoinHandle<()>>,
    opaque: i64,
    connected: u16,
}

/// What the broker sent to a connection.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) header: Value,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn code(&self) -> i64 {
        self.header["code"].as_i64().expect("a code")
    }

    pub(crate) fn field(&self, name: &str) -> &str {
        self.header["extFields"][name].as_str().unwrap_or_else(|| panic!("no field {name} in {}", self.header))
    }

    /// The place in the log that a send's answer tells.
    pub(crate) fn physical_offset(&self) -> u64 {
        u64::from_str_radix(&self.field("msgId")[16..], 16).expect("an id")
    }
}

/// A message as a consumer reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) topic: String,
    pub(crate) body: Vec<u8>,
    pub(crate) properties: String,
    pub(crate) physical_offset: u64,
    pub(crate) born_timestamp: i64,
    pub(crate) born_host: SocketAddr,
    pub(crate) store_timestamp: i64,
    pub(crate) sys_flag: i32,
    pub(crate) flag: i32,
    pub(crate) reconsume_times: i32,
    pub(crate) prepared_offset: i64,
}

impl Read {
    pub(crate) fn property(&self, name: &str) -> Option<&str> {
        property(&self.properties, name)
    }
}

pub(crate) fn peer() -> SocketAddr {
    "10.0.0.5:50000".parse().expect("an address")
}

impl Scene {
    pub(crate) fn new() -> Scene {
        let scene = Scene::on(SimDisk::new(7), Arc::default(), Standing::Alone, |_| {});
        scene.with_template();
        scene
    }

    /// Makes sure of the template that unknown topics are made after.
    pub(crate) fn with_template(&self) {
        self.shared.state.put_topic(TEMPLATE, TopicConfig::template(8));
    }

    /// A broker on a disk; `adjust` has the last word on its settings.
    pub(crate) fn on(
        disk: SimDisk,
        clock: Arc<SimClock>,
        standing: Standing,
        adjust: impl FnOnce(&mut Settings),
    ) -> Scene {
        let engine = Engine::open_with(disk.backend(), clock.clone(), "/store", engine_options()).expect("a log");
        let state = State::open(&engine).expect("a state");
        Pins::pin_all(&engine, &state);
        let advertise: SocketAddr = "127.0.0.1:10911".parse().expect("an address");
        let mut settings = Settings {
            advertise,
            cluster: "c".to_owned(),
            broker: "b".to_owned(),
            auto_create_topics: true,
            template_queues: 8,
            auto_create_groups: true,
            message_bytes_max: limits::BODY_BYTES_MAX,
            ack_timeout: Duration::from_millis(2500),
            busy_timeout: Duration::from_secs(2),
            delay_levels: DelayLevels::default(),
            transaction_timeout: Duration::from_secs(6),
            transaction_check_interval: Duration::from_secs(30),
            transaction_check_max: 15,
            keep_unconsumed: true,
            repeat_window: Duration::from_secs(600),
            repeat_memory: 1 << 20,
            property_filter: true,
        };
        adjust(&mut settings);
        let shared = Shared::new(engine, state, settings, MadeKeys::new(advertise.ip(), 1, 1));
        let shared = Arc::new(shared.with_standing(standing));
        shared.repeats.load(&shared.engine).expect("a window");
        shared.neighbours.load(&shared.engine).expect("a table");
        let mailboxes: Arc<[Mailbox]> = Arc::new([Mailbox::new(Box::new(Nobody))]);
        let timer = Timer::new(mailboxes.clone());
        let (cold_reads, readers) = start_readers(&shared, &mailboxes).expect("readers");
        let mut worker = Worker::new(shared.clone(), 0, mailboxes, cold_reads).expect("a worker");
        worker.set_time(clock.monotonic());
        Scene { shared, worker, timer, clock, disk, readers, opaque: 0, connected: 0 }
    }

    /// Ends it; what the disk has is what the next one finds.
    pub(crate) fn end(self) -> (SimDisk, Arc<SimClock>) {
        let Scene { shared, worker, clock, disk, readers, .. } = self;
        drop(worker);
        readers.into_iter().for_each(|reader| reader.join().expect("no panic"));
        drop(shared);
        (disk, clock)
    }

    /// The power fails, nothing survives but what is durable, and the broker starts again.
    pub(crate) fn crash(self) -> Scene {
        let (disk, clock) = self.end();
        Scene::on(disk.crash_with(3, Survival::Nothing), clock, Standing::Alone, |_| {})
    }

    /// The power fails, and the broker starts again where nothing can be acknowledged.
    pub(crate) fn crash_to_no_quorum(self) -> Scene {
        let (disk, clock) = self.end();
        let standing = Standing::Slave { leader: Arc::default() };
        Scene::on(disk.crash_with(3, Survival::Nothing), clock, standing, |_| {})
    }

    /// The same, with some of what was not durable surviving, as the seed says.
    pub(crate) fn crash_somehow(self, seed: u64) -> Scene {
        let (disk, clock) = self.end();
        Scene::on(disk.crash(seed), clock, Standing::Alone, |_| {})
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.wall_ms()
    }

    pub(crate) fn connect(&mut self) -> ConnectionId {
        self.worker.accept(peer()).expect("room for one more")
    }

    /// A connection from another port than every other one, as connections are that are open at once.
    pub(crate) fn connect_apart(&mut self) -> ConnectionId {
        self.connected += 1;
        let mut from = peer();
        from.set_port(from.port() + self.connected);
        self.worker.accept(from).expect("room for one more")
    }

    /// Gives a request to the worker, and no more. The number is the one that its answer bears.
    pub(crate) fn give(&mut self, id: ConnectionId, code: i64, fields: &Value, body: &[u8]) -> i64 {
        self.hand_in(id, code, fields, body, 0);
        self.worker.end_of_turn();
        self.opaque
    }

    /// The same, and the turn goes on.
    pub(crate) fn hand_in(&mut self, id: ConnectionId, code: i64, fields: &Value, body: &[u8], flag: i64) {
        self.opaque += 1;
        let header = json!({"code": code, "extFields": fields, "flag": flag, "opaque": self.opaque, "version": 479});
        self.hand_in_frame(id, &header, body);
    }

    /// A request without an answer.
    pub(crate) fn give_oneway(&mut self, id: ConnectionId, code: i64, fields: &Value) {
        self.give_frame(id, &json!({"code": code, "extFields": fields, "flag": 2, "opaque": -1, "version": 479}), &[]);
    }

    /// A client answers what it was asked.
    pub(crate) fn answer(&mut self, id: ConnectionId, opaque: &Value, code: i64) {
        self.give_frame(id, &json!({"code": code, "flag": 1, "opaque": opaque, "version": 479}), &[]);
    }

    fn give_frame(&mut self, id: ConnectionId, header: &Value, body: &[u8]) {
        self.hand_in_frame(id, header, body);
        self.worker.end_of_turn();
    }

    fn hand_in_frame(&mut self, id: ConnectionId, header: &Value, body: &[u8]) {
        let header = header.to_string();
        let mut bytes = u32::try_from(4 + header.len() + body.len()).expect("small").to_be_bytes().to_vec();
        bytes.extend(u32::try_from(header.len()).expect("small").to_be_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(body);
        self.worker.bytes_in(id, &bytes);
    }

    /// Gives a request and lets everything happen that its answer needs.
    pub(crate) fn ask(&mut self, id: ConnectionId, code: i64, fields: &Value, body: &[u8]) -> Answer {
        self.give(id, code, fields, body);
        for _ in 0..100_000 {
            self.finish();
            if let Some(answer) = self.answers(id).pop() {
                assert_eq!(answer.header["opaque"], self.opaque);
                return answer;
            }
            // A reader's thread may have it.
            std::thread::yield_now();
            self.worker.mail();
        }
        panic!("no answer to {code}");
    }

    /// Lets everything happen that the requests given so far need.
    pub(crate) fn finish(&mut self) {
        loop {
            self.await_tasks();
            self.settle();
            self.worker.acked();
            // What was waited for may be what a task needs.
            if self.worker.task_count() == 0 {
                return;
            }
        }
    }

    /// Lets readers read what the requests given so far need.
    pub(crate) fn await_tasks(&mut self) {
        while self.worker.task_count() > 0 {
            // A reader's thread has it.
            std::thread::yield_now();
            self.worker.mail();
        }
    }

    /// A send to a queue.
    pub(crate) fn send(&mut self, id: ConnectionId, topic: &str, queue: u32, properties: &str, body: &[u8]) -> Answer {
        self.ask(id, 310, &send_fields(topic, queue, properties), body)
    }

    /// A heartbeat of a client that consumes a topic in a group.
    pub(crate) fn beat(&mut self, id: ConnectionId, client: &str, group: &str, topic: &str) {
        let subscription = json!({"topic": topic, "subString": "*", "subVersion": 1, "expressionType": "TAG"});
        let consumer = json!({
            "groupName": group, "consumeType": "CONSUME_PASSIVELY", "messageModel": "CLUSTERING",
            "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET", "subscriptionDataSet": [subscription],
        });
        let body = json!({"clientID": client, "consumerDataSet": [consumer], "producerDataSet": [{"groupName": "p"}]});
        self.give(id, 34, &json!({}), body.to_string().as_bytes());
        self.finish();
        drop(self.answers(id));
    }

    /// Lets the engine do everything that it can without time passing.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            if self.shared.engine.step() {
                return;
            }
        }
        panic!("the engine does not come to rest");
    }

    /// Lets time pass, and everything happen that falls due.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.clock.advance(time);
        self.worker.set_time(self.clock.monotonic());
        self.worker.tick();
        self.run_timer();
    }

    /// Lets the timer run until it has nothing to do now. False when it cannot go on.
    pub(crate) fn run_timer(&mut self) -> bool {
        for _ in 0..10_000 {
            match self.timer.step(&self.shared, self.clock.wall_ms()) {
                Step::Again => {}
                Step::Wait(_) => self.settle(),
                Step::Nap(_) => return true,
                Step::Over => return false,
            }
            if self.disk.is_dead() {
                return false;
            }
        }
        panic!("the timer does not come to rest");
    }

    /// Takes what is written to a connection.
    pub(crate) fn answers(&mut self, id: ConnectionId) -> Vec<Answer> {
        let mut bytes = self.worker.output(id).to_vec();
        self.worker.wrote(id, bytes.len());
        let mut answers = Vec::new();
        while !bytes.is_empty() {
            let length = u32::from_be_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
            let header = u32::from_be_bytes(bytes[4..8].try_into().expect("four bytes")) as usize;
            let body = bytes[8 + header..4 + length].to_vec();
            answers.push(Answer { header: serde_json::from_slice(&bytes[8..8 + header]).expect("a header"), body });
            bytes.drain(..4 + length);
        }
        answers
    }

    /// Everything that a consumer reads of a queue.
    pub(crate) fn read_all(&mut self, topic: &str, queue: u32) -> Vec<Read> {
        if self.shared.state.topics.get(topic).is_none() {
            return Vec::new();
        }
        let id = self.connect_apart();
        let (mut all, mut offset) = (Vec::new(), 0);
        loop {
            let fields = json!({
                "consumerGroup": "readers", "topic": topic, "queueId": queue, "queueOffset": offset, "maxMsgNums": 32,
                "sysFlag": 4, "commitOffset": 0, "suspendTimeoutMillis": 0, "subscription": "*", "subVersion": 0,
            });
            let answer = self.ask(id, 11, &fields, &[]);
            if answer.code() != 0 {
                assert_eq!(answer.code(), 19, "{}", answer.header);
                self.worker.closed(id);
                return all;
            }
            offset = answer.field("nextBeginOffset").parse().expect("a number");
            for record in records(&answer.body) {
                let record = record.expect("a record");
                let head = record.head;
                all.push(Read {
                    topic: record.topic.into_owned(),
                    body: record.body.to_vec(),
                    properties: record.properties.into_owned(),
                    physical_offset: head.physical_offset.cast_unsigned(),
                    born_timestamp: head.born_timestamp,
                    born_host: head.born_host,
                    store_timestamp: head.store_timestamp,
                    sys_flag: head.sys_flag,
                    flag: head.flag,
                    reconsume_times: head.reconsume_times,
                    prepared_offset: head.prepared_transaction_offset,
                });
            }
        }
    }

    /// How many messages a queue got, without looking at them.
    pub(crate) fn count(&self, topic: &str, queue: u32) -> u64 {
        let queue = self.shared.engine.queue(&queue_name(topic, queue)).expect("a queue");
        self.shared.engine.range(&queue).max.0
    }

    /// Appends a batch that no handler made.
    pub(crate) fn append(&mut self, mut batch: WriteBatch) {
        drop(self.shared.engine.try_append(&mut batch).expect("room"));
        self.settle();
    }

    /// Keys of the table that begin so.
    pub(crate) fn entries(&self, prefix: &[u8]) -> Vec<Vec<u8>> {
        let end = crate::state::entries::end_of(prefix);
        let found = self.shared.engine.snapshot().range(prefix, Some(&end), usize::MAX).expect("readable");
        found.into_iter().map(|(key, _)| key).collect()
    }
}

/// A small log, driven by hand.
pub(crate) fn engine_options() -> EngineOptions {
    EngineOptions::default()
        .with_segment_bytes(256 << 10)
        .with_chunk_bytes(16 << 10)
        .with_buffer_bytes(256 << 10)
        .with_cache_bytes(512 << 10)
        .with_scrub_rate(0)
        .with_manual_drive()
}

/// The fields of a send.
pub(crate) fn send_fields(topic: &str, queue: u32, properties: &str) -> Value {
    json!({
        "a": "p", "b": topic, "c": "TBW102", "d": "4", "e": queue.to_string(), "f": "0", "g": "1700000000000", "h": "7",
        "i": properties, "j": "0", "k": "false", "m": "false",
    })
}
