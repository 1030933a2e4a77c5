//! One run: draws what to do, does it to a broker, and tells the model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::clock::SimClock;
use anchorlog_engine::io::sim::{Seeded, SimDisk, Survival};
use anchorlog_engine::{Clock, Engine};
use serde_json::{Value, json};

use super::leases::{Leases, PATIENCE};
use super::messages::{Messages, Sure, number_of};
use super::progress::Progress;
use crate::features::transactions::Verdict;
use crate::net::ConnectionId;
use crate::scene::{Answer, Scene, engine_options, send_fields};
use crate::shared::Settings;
use crate::standing::Standing;
use crate::state::entries;

/// What is done in one run, before everything falls due.
const TURNS: usize = 160;
const TOPICS: [&str; 2] = ["T1", "T2"];
const QUEUES: u32 = 3;
const RETRY_TOPIC: &str = "%RETRY%g";
const DEAD_TOPIC: &str = "%DLQ%g";
const PARKED_TOPIC: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
/// Attempts after the first.
const ATTEMPTS_MAX: i32 = 2;
/// Seconds of the delay levels that are asked for, from level 1 on.
const LEVELS: [u64; 5] = [1, 5, 10, 30, 60];

/// The longest that a producer tries, in milliseconds: shorter than a broker remembers.
const RESEND_MS: u64 = 500_000;

/// Purposes of the streams of draws: a new draw for one moves no other.
const STREAM_DISK: u64 = 101;
const STREAM_TURN: u64 = 102;
const STREAM_CRASH: u64 = 103;

/// What happened, over a run or many.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) crashes: u64,
    pub(super) crashes_in_recovery: u64,
    pub(super) unanswered: u64,
    pub(super) committed: u64,
    pub(super) rolled_back: u64,
    pub(super) questions: u64,
    pub(super) parked: u64,
    pub(super) delayed: u64,
    pub(super) recalled: u64,
    pub(super) retried: u64,
    pub(super) dead: u64,
    pub(super) commits: u64,
    pub(super) locks: u64,
    pub(super) resent: u64,
    pub(super) repeats: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Tally) {
        let Tally { crashes, crashes_in_recovery, unanswered, committed, rolled_back, questions, parked, .. } = other;
        let Tally { delayed, recalled, retried, dead, commits, locks, resent, repeats, .. } = other;
        self.crashes += crashes;
        self.crashes_in_recovery += crashes_in_recovery;
        self.unanswered += unanswered;
        self.committed += committed;
        self.rolled_back += rolled_back;
        self.questions += questions;
        self.parked += parked;
        self.delayed += delayed;
        self.recalled += recalled;
        self.retried += retried;
        self.dead += dead;
        self.commits += commits;
        self.locks += locks;
        self.resent += resent;
        self.repeats += repeats;
    }
}

/// What a seed led to.
pub(super) struct Outcome {
    pub(super) violation: Option<String>,
    pub(super) trace: Vec<String>,
    /// Of every I/O of every disk.
    pub(super) disk_hash: u64,
    pub(super) tally: Tally,
}

/// How long a broker remembers what was sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// As long as it should.
    Whole,
    /// Until it starts again: a broken promise.
    OfOneLife,
    /// Not at all: another one.
    None,
}

/// Runs a seed to its end, or to the first thing that cannot be.
pub(super) fn run(seed: u64, memory: Memory) -> Outcome {
    let mut run = Run::new(seed, memory);
    let mut violation = (0..TURNS).try_for_each(|_| run.turn()).and_then(|()| run.end()).err();
    if violation.is_none() && run.scene.is_none() {
        violation = Some("the broker did not come back".to_owned());
    }
    run.note_disk();
    Outcome { violation, trace: run.trace, disk_hash: run.disk_hash, tally: run.tally }
}

/// A request without its answer.
#[derive(Clone, Debug)]
enum Asked {
    Send(usize),
    Half(usize),
    Verdict(usize, Verdict),
    Recall(usize, bool),
    Back((usize, i32, bool), usize),
    Commit((&'static str, u32), u64),
    /// With the queues that the client has given back since: it counts on none of them. And when it asked.
    Lock(usize, Vec<u32>, Duration),
    Other,
}

/// A send of which its producer does not know what became.
#[derive(Clone, Debug)]
struct Doubt {
    is_half: bool,
    /// When it was sent first, and for how long it is delayed.
    sent_ms: u64,
    delay_ms: Option<u64>,
    fields: Value,
}

/// Who talks to the broker.
#[derive(Clone, Copy, Debug)]
struct Links {
    client: ConnectionId,
    producer: ConnectionId,
    members: [ConnectionId; 2],
}

/// A message as a consumer has it.
#[derive(Clone, Copy, Debug)]
struct Copy {
    number: usize,
    attempts: i32,
    physical_offset: u64,
}

struct Run {
    /// Gone only while the broker is.
    scene: Option<Scene>,
    links: Links,
    draws: Seeded,
    crash_draws: Seeded,
    pending: BTreeMap<i64, (ConnectionId, Asked)>,
    messages: Messages,
    progress: Progress,
    leases: Leases,
    /// What a verdict on a half message says.
    ends: BTreeMap<usize, Value>,
    handles: BTreeMap<usize, String>,
    /// Sends by their messages; and those that nobody has an answer to, nor waits for one.
    sends: BTreeMap<usize, Doubt>,
    doubts: Vec<usize>,
    memory: Memory,
    /// What consumers have, and have not sent back.
    copies: Vec<Copy>,
    /// How often somebody connected: names the connections of now.
    connected: u64,
    /// Places of what was sent back: a consumer does that once.
    sent_back: BTreeSet<u64>,
    /// The power is going to fail.
    armed: bool,
    /// The wall clock was set back.
    set_back: bool,
    trace: Vec<String>,
    disk_hash: u64,
    tally: Tally,
}

/// Halves are asked about soon, and not often.
fn settings(remembers: bool) -> impl FnOnce(&mut Settings) {
    move |settings| {
        settings.transaction_check_max = 2;
        if !remembers {
            settings.repeat_window = Duration::ZERO;
        }
    }
}

impl Run {
    fn new(seed: u64, memory: Memory) -> Run {
        let disk = SimDisk::new(Seeded::new(seed, STREAM_DISK).draw());
        let scene = Scene::on(disk, Arc::default(), Standing::Alone, settings(memory != Memory::None));
        scene.with_template();
        let nobody = ConnectionId { worker: 0, slot: 0, generation: 0 };
        let mut run = Run {
            scene: Some(scene),
            links: Links { client: nobody, producer: nobody, members: [nobody; 2] },
            draws: Seeded::new(seed, STREAM_TURN),
            crash_draws: Seeded::new(seed, STREAM_CRASH),
            pending: BTreeMap::new(),
            messages: Messages::default(),
            progress: Progress::default(),
            leases: Leases::default(),
            ends: BTreeMap::new(),
            handles: BTreeMap::new(),
            sends: BTreeMap::new(),
            doubts: Vec::new(),
            memory,
            copies: Vec::new(),
            connected: 0,
            sent_back: BTreeSet::new(),
            armed: false,
            set_back: false,
            trace: Vec::new(),
            disk_hash: 0,
            tally: Tally::default(),
        };
        run.connect();
        run
    }

    fn scene(&mut self) -> &mut Scene {
        self.scene.as_mut().expect("the broker is there between turns")
    }

    fn note(&mut self, line: String) {
        self.trace.push(line);
    }

    fn note_disk(&mut self) {
        if let Some(scene) = &self.scene {
            self.tally.repeats += scene.shared.counters.read().repeats_answered;
            self.disk_hash = self.disk_hash.rotate_left(7) ^ scene.disk.trace_hash();
            let count = scene.disk.io_count();
            self.trace.push(format!("{count} I/Os, {:016x}", self.disk_hash));
        }
    }

    fn is_dead(&mut self) -> bool {
        self.scene().disk.is_dead()
    }

    // ---- one turn

    fn turn(&mut self) -> Result<(), String> {
        match self.draws.below(130) {
            0..20 => self.send(),
            20..28 => self.send_later(),
            28..38 => self.send_half(),
            38..50 => self.decide(),
            50..54 => self.recall(),
            54..64 => self.send_back(),
            64..70 => self.commit(),
            70..76 => self.lock(),
            76..78 => self.unlock(),
            78..80 => self.drop_member(),
            80..92 => self.step()?,
            92..98 => self.finish()?,
            98..108 => self.pass()?,
            108..115 => self.consume()?,
            115 => self.jump(),
            116..118 => self.arm(),
            118 => self.crash()?,
            119..127 => self.resend(),
            127..129 => self.drop_client(),
            _ => self.restart()?,
        }
        if self.is_dead() { self.crash() } else { Ok(()) }
    }

    fn queue(&mut self) -> (&'static str, u32) {
        let topic = TOPICS[self.draws.below(TOPICS.len())];
        (topic, u32::try_from(self.draws.below(QUEUES as usize)).expect("small"))
    }

    /// Gives a request; what its answer needs of the disk is read, and nothing is written.
    fn give(&mut self, id: ConnectionId, code: i64, fields: &Value, body: &[u8], asked: Asked) {
        let opaque = self.scene().give(id, code, fields, body);
        self.note(format!("{opaque}: {code} {asked:?}"));
        self.pending.insert(opaque, (id, asked));
        // One reader at a time, or which comes first is nobody's to say.
        self.scene().await_tasks();
    }

    fn properties(&self, number: usize, more: &str) -> String {
        format!("UNIQ_KEY\u{1}m{number}\u{2}KEYS\u{1}k{number}\u{2}{more}")
    }

    fn send(&mut self) {
        let (topic, queue) = self.queue();
        let number = self.messages.sent(topic, queue, None, false);
        let fields = send_fields(topic, queue, &self.properties(number, "TAGS\u{1}A\u{2}"));
        self.give_send(number, None, fields);
    }

    fn give_send(&mut self, number: usize, delay_ms: Option<u64>, fields: Value) {
        let sent_ms = self.scene().now_ms();
        self.sends.insert(number, Doubt { is_half: false, sent_ms, delay_ms, fields: fields.clone() });
        let client = self.links.client;
        self.give(client, 310, &fields, format!("m{number}").as_bytes(), Asked::Send(number));
    }

    /// A producer sends again what it has no answer to.
    fn resend(&mut self) {
        if self.doubts.is_empty() {
            return;
        }
        let at = self.draws.below(self.doubts.len());
        let number = self.doubts.swap_remove(at);
        self.send_again(number);
    }

    fn send_again(&mut self, number: usize) {
        let Doubt { is_half, sent_ms, delay_ms, mut fields, .. } = self.sends[&number].clone();
        let now_ms = self.scene().now_ms();
        let is_same = self.messages.get(number).decided.is_none_or(|decided| decided.may_be_repeated());
        // Nobody tries for so long, and nobody who was asked about it by then, or gave it up.
        if now_ms.abs_diff(sent_ms) > RESEND_MS || !is_same {
            return;
        }
        let queue = self.queue().1;
        fields["e"] = json!(queue.to_string());
        self.messages.sent_again(number, queue, delay_ms.map(|delay_ms| now_ms + delay_ms));
        self.tally.resent += 1;
        let (link, asked) = match is_half {
            true => (self.links.producer, Asked::Half(number)),
            false => (self.links.client, Asked::Send(number)),
        };
        self.give(link, 310, &fields, format!("m{number}").as_bytes(), asked);
    }

    /// Sends that were under way on these connections have no answer any more.
    fn doubt(&mut self, asked: &Asked) {
        if let Asked::Send(number) | Asked::Half(number) = asked {
            self.doubts.push(*number);
        }
    }

    /// The connection of a client breaks, and it opens another one.
    fn drop_client(&mut self) {
        self.note("the client's connection breaks".to_owned());
        let client = self.links.client;
        self.scene().worker.closed(client);
        let (lost, kept) = std::mem::take(&mut self.pending).into_iter().partition(|(_, (id, _))| *id == client);
        self.pending = kept;
        let lost: BTreeMap<i64, (ConnectionId, Asked)> = lost;
        self.tally.unanswered += lost.len() as u64;
        lost.values().for_each(|(_, asked)| self.doubt(asked));
        self.links.client = self.scene().connect_apart();
        self.connected += 1;
    }

    fn send_later(&mut self) {
        let (topic, queue) = self.queue();
        let now_ms = self.scene().now_ms();
        let (due_ms, wish) = if self.draws.chance(4) {
            let level = self.draws.below(LEVELS.len());
            (now_ms + LEVELS[level] * 1000, format!("DELAY\u{1}{}\u{2}", level + 1))
        } else {
            let longest = [2_000, 30_000, 7_000_000][self.draws.below(3)];
            let delay_ms = 1 + self.draws.draw() % longest;
            (now_ms + delay_ms, format!("TIMER_DELAY_MS\u{1}{delay_ms}\u{2}"))
        };
        let number = self.messages.sent(topic, queue, Some(due_ms), false);
        let fields = send_fields(topic, queue, &self.properties(number, &wish));
        self.give_send(number, Some(due_ms - now_ms), fields);
        self.tally.delayed += 1;
    }

    fn send_half(&mut self) {
        let (topic, queue) = self.queue();
        let number = self.messages.sent(topic, queue, None, true);
        let mut fields =
            send_fields(topic, queue, &self.properties(number, "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}pg\u{2}"));
        fields["f"] = json!("4");
        let sent_ms = self.scene().now_ms();
        self.sends.insert(number, Doubt { is_half: true, sent_ms, delay_ms: None, fields: fields.clone() });
        let producer = self.links.producer;
        self.give(producer, 310, &fields, format!("m{number}").as_bytes(), Asked::Half(number));
    }

    /// Says what became of a transaction, perhaps for the second time.
    fn decide(&mut self) {
        let Some(number) = self.any(|run| run.ends.keys().copied().collect()) else { return };
        // A producer is seldom of two minds.
        let verdict = if (number % 3 == 0) ^ (self.draws.below(16) == 0) { Verdict::Rollback } else { Verdict::Commit };
        self.say(number, verdict);
    }

    fn say(&mut self, number: usize, verdict: Verdict) {
        // Nobody gives up what he sends again at that moment.
        let is_sent = |(_, asked): &(ConnectionId, Asked)| matches!(asked, Asked::Half(half) if *half == number);
        if verdict == Verdict::Rollback && self.pending.values().any(is_sent) {
            return;
        }
        let mut fields = self.ends[&number].clone();
        fields["commitOrRollback"] = json!(if verdict == Verdict::Commit { "8" } else { "12" });
        self.messages.says(number, verdict);
        let producer = self.links.producer;
        self.give(producer, 37, &fields, &[], Asked::Verdict(number, verdict));
    }

    fn recall(&mut self) {
        let Some(number) = self.any(|run| run.handles.keys().copied().collect()) else { return };
        let topic = self.messages.get(number).topic;
        let fields = json!({"producerGroup": "p", "topic": topic, "recallHandle": self.handles[&number]});
        let now_ms = self.scene().now_ms();
        let waits = self.messages.get(number).due_ms > Some(now_ms) && !self.set_back;
        self.messages.recalls(number);
        let client = self.links.client;
        self.give(client, 370, &fields, &[], Asked::Recall(number, waits));
    }

    fn send_back(&mut self) {
        if self.copies.is_empty() {
            return;
        }
        let at = self.draws.below(self.copies.len());
        let copy = self.copies.swap_remove(at);
        self.sent_back.insert(copy.physical_offset);
        let asked = i64::try_from(self.draws.below(4)).expect("small") - 1;
        let is_dead = asked < 0 || copy.attempts >= ATTEMPTS_MAX;
        let level = usize::try_from(if asked > 0 { asked } else { 3 + i64::from(copy.attempts) }).expect("small");
        let due_ms = self.scene().now_ms() + if is_dead { 0 } else { LEVELS[level - 1] * 1000 };
        let key = (copy.number, copy.attempts + 1, is_dead);
        let index = self.messages.sends_back(key, copy.physical_offset, self.connected, due_ms);
        let fields = json!({
            "offset": copy.physical_offset.to_string(), "group": "g", "delayLevel": asked.to_string(),
            "originMsgId": format!("m{}", copy.number), "originTopic": "T1", "unitMode": "false",
            "maxReconsumeTimes": ATTEMPTS_MAX.to_string(),
        });
        let member = self.links.members[0];
        self.give(member, 36, &fields, &[], Asked::Back(key, index));
    }

    fn commit(&mut self) {
        let queue = self.queue();
        let end = self.scene().count(queue.0, queue.1);
        if end == 0 {
            return;
        }
        let offset = self.draws.draw() % (end + 1);
        let fields = json!({
            "consumerGroup": "tools", "topic": queue.0, "queueId": queue.1, "commitOffset": offset.to_string(),
        });
        self.progress.says(queue, offset);
        let client = self.links.client;
        self.give(client, 15, &fields, &[], Asked::Commit(queue, offset));
    }

    fn lock(&mut self) {
        let client = self.draws.below(2);
        let count = 1 + self.draws.below(2);
        let queues: Vec<u32> = (0..count).map(|_| self.queue().1).collect();
        let body = lock_body(client, &queues);
        let member = self.links.members[client];
        let now = self.scene().clock.monotonic();
        self.give(member, 41, &json!({}), &body, Asked::Lock(client, Vec::new(), now));
    }

    fn unlock(&mut self) {
        let (client, queue) = (self.draws.below(2), self.queue().1);
        self.leases.gives_back(client, queue);
        for (_, asked) in self.pending.values_mut() {
            if let Asked::Lock(asker, given_back, _) = asked
                && *asker == client
            {
                given_back.push(queue);
            }
        }
        let member = self.links.members[client];
        self.give(member, 42, &json!({}), &lock_body(client, &[queue]), Asked::Other);
    }

    /// A consumer dies, and another one comes; or its connection breaks, and it goes on by another one.
    fn drop_member(&mut self) {
        let client = self.draws.below(2);
        let dies = self.connected.is_multiple_of(2);
        self.note(format!("client {client} {}", if dies { "dies" } else { "is cut off" }));
        if dies {
            self.leases.gone(client);
        }
        let member = self.links.members[client];
        self.scene().worker.closed(member);
        let asked = self.pending.len();
        self.pending.retain(|_, (id, _)| *id != member);
        self.tally.unanswered += (asked - self.pending.len()) as u64;
        self.links.members[client] = self.scene().connect_apart();
        self.connected += 1;
        self.beat_member(client);
    }

    /// Any of what there is.
    fn any(&mut self, all: impl Fn(&Run) -> Vec<usize>) -> Option<usize> {
        let all = all(self);
        (!all.is_empty()).then(|| all[self.draws.below(all.len())])
    }

    // ---- time, and the disk

    /// Lets the engine do a little.
    fn step(&mut self) -> Result<(), String> {
        let steps = 1 + self.draws.below(12);
        self.note(format!("{steps} steps"));
        for _ in 0..steps {
            self.scene().shared.engine.step();
        }
        self.hear()
    }

    /// Lets everything happen that needs no time.
    fn finish(&mut self) -> Result<(), String> {
        self.note("settles".to_owned());
        self.scene().finish();
        self.hear()
    }

    fn pass(&mut self) -> Result<(), String> {
        let longest = [1_000, 10_000, 40_000][self.draws.below(3)];
        let milliseconds = 1 + self.draws.draw() % longest;
        self.pass_for(milliseconds)
    }

    /// Lets time pass, and do what falls due; also what another thread does every second.
    fn pass_for(&mut self, milliseconds: u64) -> Result<(), String> {
        self.note(format!("{milliseconds} ms pass"));
        let scene = self.scene();
        scene.pass(Duration::from_millis(milliseconds));
        drop(scene.shared.state.expire_locks(scene.shared.engine.clock().monotonic()));
        // A log that takes nothing any more says so below.
        drop(scene.shared.state.flush_all(&scene.shared.engine));
        scene.finish();
        scene.worker.mail();
        self.hear()?;
        if !self.is_dead() {
            let now_ms = self.scene().now_ms();
            self.messages.passed(now_ms);
        }
        self.beat();
        Ok(())
    }

    /// Somebody sets the clock.
    fn jump(&mut self) {
        let by = i64::try_from(self.draws.below(20_000)).expect("small") - 10_000;
        self.set_back |= by < 0;
        self.note(format!("the clock is set by {by} ms"));
        self.scene().clock.jump(by);
    }

    /// The power is going to fail at one of the next I/Os.
    fn arm(&mut self) {
        if self.armed {
            return;
        }
        self.armed = true;
        let last = self.crash_draws.draw() % 60;
        let disk = &self.scene().disk;
        disk.stop_after(disk.io_count() + last);
        self.note(format!("the power fails after {last} I/Os"));
    }

    /// The power fails or the process is killed, and the broker starts again.
    fn crash(&mut self) -> Result<(), String> {
        let how = self.crash_draws.below(4);
        self.note(format!("crash {how}, {} unanswered", self.pending.len()));
        self.note_disk();
        self.tally.crashes += 1;
        self.tally.unanswered += self.pending.len() as u64;
        for (_, asked) in std::mem::take(&mut self.pending).into_values() {
            self.doubt(&asked);
        }
        let (dead, clock) = self.scene.take().expect("the broker is there between turns").end();
        let mut disk = match how {
            0 => dead.crash_with(self.crash_draws.draw(), Survival::Nothing),
            1 if !dead.is_dead() => dead.kill(),
            _ => dead.crash(self.crash_draws.draw()),
        };
        if self.crash_draws.chance(3) {
            self.tally.crashes_in_recovery += 1;
            disk.stop_after(disk.io_count() + self.crash_draws.draw() % 40);
            if let Ok(engine) = Engine::open_with(disk.backend(), clock.clone(), "/store", engine_options()) {
                for _ in 0..self.crash_draws.below(30) {
                    engine.step();
                }
            }
            disk = disk.crash(self.crash_draws.draw());
        }
        self.come_back(disk, clock)
    }

    /// The broker stops in order, and starts again.
    fn restart(&mut self) -> Result<(), String> {
        if self.armed {
            return Ok(());
        }
        self.note("restart".to_owned());
        self.finish()?;
        let scene = self.scene();
        scene.shared.state.flush_all(&scene.shared.engine).map_err(|error| error.to_string())?;
        scene.finish();
        self.hear()?;
        if let Some((_, asked)) = self.pending.values().next() {
            return Err(format!("{asked:?} was not answered before the stop"));
        }
        self.note_disk();
        let (disk, clock) = self.scene.take().expect("the broker is there between turns").end();
        self.come_back(disk, clock)
    }

    fn come_back(&mut self, disk: SimDisk, clock: Arc<SimClock>) -> Result<(), String> {
        let scene = Scene::on(disk, clock, Standing::Alone, settings(self.memory == Memory::Whole));
        scene.with_template();
        self.scene = Some(scene);
        self.pending.clear();
        self.armed = false;
        self.connect();
        self.look_at_progress()
    }

    fn connect(&mut self) {
        let scene = self.scene();
        let links = Links {
            client: scene.connect_apart(),
            producer: scene.connect_apart(),
            members: [scene.connect_apart(), scene.connect_apart()],
        };
        self.links = links;
        self.connected += 1;
        self.beat();
    }

    fn beat(&mut self) {
        let beat = json!({"clientID": "p@1", "producerDataSet": [{"groupName": "pg"}], "consumerDataSet": []});
        let producer = self.links.producer;
        self.scene().give(producer, 34, &json!({}), beat.to_string().as_bytes());
        for client in 0..2 {
            self.beat_member(client);
        }
    }

    fn beat_member(&mut self, client: usize) {
        let subscription = json!({"topic": "T1", "subString": "*", "expressionType": "TAG", "subVersion": 1});
        let consumer = json!({
            "groupName": "g", "consumeType": "CONSUME_PASSIVELY", "messageModel": "CLUSTERING",
            "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET", "subscriptionDataSet": [subscription],
        });
        let beat = json!({"clientID": client_id(client), "consumerDataSet": [consumer], "producerDataSet": []});
        let member = self.links.members[client];
        self.scene().give(member, 34, &json!({}), beat.to_string().as_bytes());
    }

    // ---- what the broker says

    /// Takes everything that the broker has sent.
    fn hear(&mut self) -> Result<(), String> {
        self.scene().worker.acked();
        let Links { client, producer, members: [one, other] } = self.links;
        for id in [client, producer, one, other] {
            for answer in self.scene().answers(id) {
                self.heard(&answer)?;
            }
        }
        Ok(())
    }

    fn heard(&mut self, answer: &Answer) -> Result<(), String> {
        if answer.header["flag"].as_i64().is_some_and(|flag| flag & 1 == 0) {
            return if answer.code() == 39 { self.question(answer) } else { Ok(()) };
        }
        let opaque = answer.header["opaque"].as_i64().ok_or("an answer without its number")?;
        // Heartbeats are not remembered.
        let Some((_, asked)) = self.pending.remove(&opaque) else { return Ok(()) };
        let remark = answer.header["remark"].as_str().unwrap_or_default().to_owned();
        self.note(format!("{opaque}: {} {remark}", answer.code()));
        let late = answer.code() != 0 && (self.is_dead() || remark.contains("not confirmed it in time"));
        if late {
            // It may or may not have been done.
            self.tally.unanswered += 1;
            if self.is_dead() {
                self.doubt(&asked);
            }
            return Ok(());
        }
        let done = answer.code() == 0;
        match asked {
            Asked::Send(number) if done => {
                let offset = answer.field("queueOffset").parse().map_err(|_| "no offset")?;
                self.messages.stored(number, queue_of(answer)?, offset)?;
                if let Some(handle) = answer.header["extFields"]["recallHandle"].as_str() {
                    self.handles.insert(number, handle.to_owned());
                }
            }
            Asked::Half(number) if done => {
                self.messages.stored(number, queue_of(answer)?, 0)?;
                let (lsn, offset) = (answer.physical_offset(), answer.field("queueOffset").to_owned());
                self.can_decide(number, &lsn.to_string(), &offset);
            }
            Asked::Verdict(number, verdict) if done || remark.contains("already, and that counts") => {
                self.messages.said(number, verdict, done)?;
                self.tally.committed += u64::from(done && verdict == Verdict::Commit);
                self.tally.rolled_back += u64::from(done && verdict == Verdict::Rollback);
            }
            Asked::Verdict(..) if remark.contains("changed meanwhile") => {}
            Asked::Recall(number, waits) if done || remark.contains("no such message waits") => {
                self.messages.recalled(number, done, waits)?;
                self.tally.recalled += u64::from(done);
            }
            Asked::Back(key, index) if done => {
                self.messages.sent_back(key, index);
                self.tally.dead += u64::from(key.2);
                self.tally.retried += u64::from(!key.2);
            }
            Asked::Commit(queue, offset) if done => {
                self.progress.said(queue, offset);
                self.tally.commits += 1;
            }
            Asked::Lock(client, given_back, asked) if done => {
                let mut queues = locked(answer);
                queues.retain(|queue| !given_back.contains(queue));
                let now = self.scene().clock.monotonic();
                self.note(format!("client {client} has {queues:?} at {now:?}"));
                if now < asked + PATIENCE {
                    self.leases.told(client, &queues, now)?;
                }
                self.tally.locks += queues.len() as u64;
            }
            Asked::Other => {}
            asked => return Err(format!("{asked:?} was refused: {} {remark}", answer.code())),
        }
        Ok(())
    }

    fn can_decide(&mut self, number: usize, lsn: &str, offset: &str) {
        let fields = json!({
            "producerGroup": "pg", "topic": "", "commitLogOffset": lsn, "tranStateTableOffset": offset,
            "fromTransactionCheck": "true", "msgId": format!("m{number}"), "transactionId": format!("m{number}"),
        });
        self.ends.insert(number, fields);
    }

    /// The broker asks what became of a transaction; sometimes somebody knows.
    fn question(&mut self, asked: &Answer) -> Result<(), String> {
        let number = number_of(asked.field("msgId").as_bytes()).ok_or("a question about nothing")?;
        self.note(format!("asked about m{number}"));
        self.messages.asked(number)?;
        self.tally.questions += 1;
        let (lsn, offset) = (asked.field("commitLogOffset").to_owned(), asked.field("tranStateTableOffset").to_owned());
        self.can_decide(number, &lsn, &offset);
        if self.draws.chance(2) {
            let verdict = if number.is_multiple_of(3) { Verdict::Rollback } else { Verdict::Commit };
            self.say(number, verdict);
        } else {
            // It does not know yet, and says so, as all do that are asked and decide.
            let mut fields = self.ends[&number].clone();
            fields["commitOrRollback"] = json!("0");
            let producer = self.links.producer;
            self.give(producer, 37, &fields, &[], Asked::Other);
        }
        Ok(())
    }

    // ---- what a consumer sees

    /// Reads one queue from its beginning.
    fn consume(&mut self) -> Result<(), String> {
        // Whoever reads must not meet the power failure.
        if self.armed {
            return Ok(());
        }
        self.finish()?;
        match self.draws.below(8) {
            0 | 1 => self.look_again(false),
            2 => self.look_again(true),
            _ => {
                let (topic, queue) = self.queue();
                self.look_at(topic, queue)
            }
        }
    }

    fn look_at(&mut self, topic: &'static str, queue: u32) -> Result<(), String> {
        let reads = self.scene().read_all(topic, queue);
        self.note(format!("{topic}:{queue} holds {}", reads.len()));
        self.messages.shown(topic, queue, &reads)?;
        self.take_copies(&reads);
        Ok(())
    }

    fn look_again(&mut self, dead: bool) -> Result<(), String> {
        let topic = if dead { DEAD_TOPIC } else { RETRY_TOPIC };
        let reads = self.scene().read_all(topic, 0);
        self.note(format!("{topic} holds {}", reads.len()));
        self.messages.shown_again(dead, &reads)?;
        if !dead {
            self.take_copies(&reads);
        }
        Ok(())
    }

    /// A consumer holds some of what it read.
    fn take_copies(&mut self, reads: &[crate::scene::Read]) {
        for read in reads.iter().rev().take(3) {
            let (physical_offset, attempts) = (read.physical_offset, read.reconsume_times);
            let is_held = self.copies.iter().any(|copy| copy.physical_offset == physical_offset);
            if let Some(number) = number_of(&read.body)
                && !is_held
                && !self.sent_back.contains(&physical_offset)
            {
                self.copies.push(Copy { number, attempts, physical_offset });
            }
        }
    }

    fn look_at_progress(&mut self) -> Result<(), String> {
        let client = self.links.client;
        for queue in self.progress.queues() {
            let fields = json!({"consumerGroup": "tools", "topic": queue.0, "queueId": queue.1});
            let answer = self.scene().ask(client, 14, &fields, &[]);
            let offset = match answer.code() {
                0 => answer.field("offset").parse().ok(),
                22 => None,
                other => return Err(format!("the offset of {queue:?}: {other}")),
            };
            self.note(format!("{queue:?} is committed at {offset:?}"));
            self.progress.found(queue, offset)?;
        }
        Ok(())
    }

    // ---- the end

    /// Lets everything fall due that was begun, and looks at all of it.
    fn end(&mut self) -> Result<(), String> {
        self.scene().disk.stay_up();
        self.armed = false;
        self.finish()?;
        // Whoever waits long enough gets an answer.
        for number in std::mem::take(&mut self.doubts) {
            self.send_again(number);
        }
        self.finish()?;
        if let Some((_, asked)) = self.pending.values().next() {
            return Err(format!("{asked:?} was never answered"));
        }
        self.look_at_progress()?;
        for _ in 0..6 {
            self.pass_for(30_000)?;
        }
        self.finish()?;
        self.tally.parked += self.look_at_parked()? as u64;
        self.pass_for(7_200_000)?;
        // Nobody was heard of for two hours.
        self.connect();
        self.pass_for(1_000)?;
        self.finish()?;
        for topic in TOPICS {
            for queue in 0..QUEUES {
                self.look_at(topic, queue)?;
            }
        }
        self.messages.all_shown()?;
        self.look_again(false)?;
        self.look_again(true)?;
        self.look_at_parked()?;
        for prefix in [entries::due::PREFIX, entries::parked::PREFIX] {
            let left = self.scene().entries(prefix);
            if !left.is_empty() {
                return Err(format!("{} entries are left: {:?}", left.len(), left[0].escape_ascii().to_string()));
            }
        }
        let open = (0..self.messages.count()).filter(|number| {
            let message = self.messages.get(*number);
            message.stored != Sure::No && message.decided.is_some_and(|decided| decided.may_be_open())
        });
        let (open, left) = (open.count(), self.scene().entries(entries::transaction::PREFIX).len());
        if left > open {
            return Err(format!("{left} transactions are remembered, and {open} can be open"));
        }
        Ok(())
    }

    fn look_at_parked(&mut self) -> Result<usize, String> {
        let reads = self.scene().read_all(PARKED_TOPIC, 0);
        self.messages.shown_parked(&reads, true)
    }
}

fn queue_of(answer: &Answer) -> Result<u32, String> {
    answer.field("queueId").parse().map_err(|_| "no queue".to_owned())
}

fn client_id(client: usize) -> String {
    format!("member-{client}")
}

fn lock_body(client: usize, queues: &[u32]) -> Vec<u8> {
    let queues: Vec<_> =
        queues.iter().map(|queue| json!({"brokerName": "b", "queueId": queue, "topic": "T1"})).collect();
    json!({"clientId": client_id(client), "consumerGroup": "g", "mqSet": queues}).to_string().into_bytes()
}

fn locked(answer: &Answer) -> Vec<u32> {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let queues = body["lockOKMQSet"].as_array().cloned().unwrap_or_default();
    queues.iter().filter_map(|queue| u32::try_from(queue["queueId"].as_u64()?).ok()).collect()
}
