//! The consuming side: queues, each with one request on its way at a time: a pull, or the commit of what was processed.
//!
//! 1. A member joins its group by a heartbeat. In order, it locks its queues before it pulls.
//! 2. With answered commits a queue's next pull leaves when the last commit was answered: nothing is processed twice after a crash but
//!    what the last answer did not cover.
//! 3. Every message that arrives is judged, and held against what came before it.

use anchorlog::wire::codes::{request, response};
use anchorlog::wire::header::Head;
use anchorlog::wire::{Encoding, FrameRef, Header, message};
use serde_json::{Value, json};

use crate::error::PerfError;
use crate::meter::{Meter, Recorder};
use crate::payload::Payloads;
use crate::prepared::{NUMBER, Place, Prepared};
use crate::remoting::skim_answer;
use crate::sender::{opaque_of, slot_of};
use crate::topic::Topic;
use crate::verify::Verifier;
use crate::wires::{Outs, Wires};

/// The driver of a row's meter that consumers count by.
pub(crate) const PROCESSED: usize = 1;
/// How long the broker may hold a pull.
const HOLD_MS: &str = "5000";
/// Messages asked for at once, as clients do.
const PULL_MESSAGES: &str = "32";

/// Who takes messages, and how.
#[derive(Clone, Copy)]
pub(crate) struct Consuming<'a> {
    /// Where from: every queue, from its beginning.
    pub(crate) topic: &'a Topic,
    /// The group.
    pub(crate) group: &'a str,
    /// Its members, a connection each; they share the queues.
    pub(crate) members: usize,
    /// Locked queues and answered commits, or neither.
    pub(crate) orderly: bool,
    /// Where it ends, by queue; without it, pulls are held at the end of a queue.
    pub(crate) ends: Option<&'a [u64]>,
    /// Streams that there may be.
    pub(crate) streams: usize,
    /// How headers are written.
    pub(crate) encoding: Encoding,
    /// The messages.
    pub(crate) payloads: &'a Payloads,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Pulling,
    Committing,
    Done,
}

struct Taken {
    connection: usize,
    pull: Prepared,
    pull_at: Place,
    commit: Prepared,
    commit_at: Place,
    next: u64,
    end: Option<u64>,
    stage: Stage,
    opaque: i32,
    requests: u64,
    from_ns: u64,
    /// Processed, and not counted before their commit was answered.
    uncounted: u64,
}

/// All consumers of a row.
pub(crate) struct Consumer<'a> {
    payloads: &'a Payloads,
    queues: Vec<Taken>,
    orderly: bool,
    verifier: Verifier,
    recorder: Recorder<'a>,
    /// Queues of which not everything was taken yet.
    left: usize,
}

impl<'a> Consumer<'a> {
    /// Connects, joins the group, and locks the queues where they are taken in order.
    ///
    /// # Errors
    /// When the broker is not there, or gives a lock to nobody.
    pub(crate) fn connect(
        wires: &mut Wires,
        wish: &Consuming<'a>,
        meter: &'a Meter,
    ) -> Result<Consumer<'a>, PerfError> {
        let mut queues = Vec::new();
        for member in 0..wish.members {
            let broker = &wish.topic.queues[0].broker;
            let connection = wires.connect(broker)?;
            let own = (0..wish.topic.queues.len()).filter(|queue| queue % wish.members == member);
            let client = format!("{}@{member}", wish.group);
            wires.call(connection, request::HEART_BEAT, &heartbeat(&client, wish.group, &wish.topic.name))?;
            if wish.orderly {
                lock(wires, connection, &client, wish, own.clone())?;
            }
            for queue in own {
                queues.push(Taken::new(wish, queue, connection)?);
            }
        }
        let left = queues.iter().filter(|queue| queue.stage != Stage::Done).count();
        let (payloads, orderly) = (wish.payloads, wish.orderly);
        let verifier = Verifier::new(wish.streams);
        Ok(Consumer { payloads, queues, orderly, verifier, recorder: meter.recorder(PROCESSED), left })
    }

    /// Puts the first pull of every queue.
    pub(crate) fn begin(&mut self, outs: &mut Outs, now: u64) {
        for (number, queue) in self.queues.iter_mut().enumerate().filter(|(_, queue)| queue.stage != Stage::Done) {
            queue.pull(outs, number, now);
        }
    }

    /// Whether everything was taken.
    pub(crate) fn is_done(&self) -> bool {
        self.left == 0
    }

    /// An answer of the broker. `processed` hears of every message, and may know since when it was on its way.
    ///
    /// # Errors
    /// When nobody waits for it, or a pull or a commit is refused.
    pub(crate) fn answer(
        &mut self,
        outs: &mut Outs,
        frame: &FrameRef<'_>,
        now: u64,
        mut processed: impl FnMut(u32, u64) -> Option<u64>,
    ) -> Result<(), PerfError> {
        let Some((code, opaque)) = skim_answer(frame)? else { return Ok(()) };
        let number = slot_of(opaque);
        let Some(queue) = self.queues.get_mut(number).filter(|queue| queue.opaque == opaque) else {
            return Err(PerfError::Broker(format!("an answer to request {opaque}, which nobody waits for")));
        };
        queue.opaque = 0;
        let refused = |what: &str| PerfError::Broker(format!("{what} was answered with code {code}"));
        match queue.stage {
            Stage::Committing if code == response::SUCCESS => {
                self.recorder.acked(std::mem::take(&mut queue.uncounted), queue.from_ns, now);
                self.left -= usize::from(queue.go_on(outs, number, now));
                Ok(())
            }
            Stage::Committing => Err(refused("a commit")),
            Stage::Done => Err(refused("nothing")),
            Stage::Pulling => {
                let found = code == response::SUCCESS;
                let moves = [response::PULL_NOT_FOUND, response::PULL_RETRY_IMMEDIATELY, response::PULL_OFFSET_MOVED];
                if !found && !moves.contains(&code) {
                    return Err(refused("a pull"));
                }
                queue.next = next_offset(frame)?;
                if !found {
                    self.left -= usize::from(queue.go_on(outs, number, now));
                    return Ok(());
                }
                let mut count = 0;
                for record in message::records(frame.body) {
                    let record = record.map_err(|error| PerfError::Broker(error.to_string()))?;
                    count += 1;
                    match self.payloads.judge(record.body) {
                        Ok((stream, sequence)) => {
                            self.verifier.found(stream, sequence);
                            if let Some(from_ns) = processed(stream, sequence) {
                                self.recorder.acked(1, from_ns, now);
                                count -= 1;
                            }
                        }
                        Err(_) => self.verifier.take(self.payloads, record.body),
                    }
                }
                queue.commit(outs, number, self.orderly);
                if self.orderly {
                    queue.uncounted = count;
                } else {
                    self.recorder.acked(count, queue.from_ns, now);
                    self.left -= usize::from(queue.go_on(outs, number, now));
                }
                Ok(())
            }
        }
    }

    /// What was taken.
    pub(crate) fn into_parts(self) -> (Verifier, Recorder<'a>) {
        (self.verifier, self.recorder)
    }
}

impl Taken {
    fn new(wish: &Consuming<'_>, queue: usize, connection: usize) -> Result<Taken, PerfError> {
        const HOLD_AND_SUBSCRIPTION: &str = "6";
        const SUBSCRIPTION: &str = "4";
        let number = wish.topic.queues[queue].id.to_string();
        let end = wish.ends.and_then(|ends| ends.get(queue).copied());
        let fields = [
            ("consumerGroup", wish.group),
            ("topic", &wish.topic.name),
            ("queueId", &number),
            ("queueOffset", NUMBER),
            ("maxMsgNums", PULL_MESSAGES),
            ("sysFlag", if end.is_none() { HOLD_AND_SUBSCRIPTION } else { SUBSCRIPTION }),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", HOLD_MS),
            ("subscription", "*"),
            ("subVersion", "0"),
            ("expressionType", "TAG"),
        ];
        let pull = Prepared::new(Head::request(wish.encoding, request::PULL_MESSAGE, 0), &fields, b"")?;
        let fields = [
            ("consumerGroup", wish.group),
            ("topic", &wish.topic.name),
            ("queueId", &number),
            ("commitOffset", NUMBER),
        ];
        let head = Head::request(wish.encoding, request::UPDATE_CONSUMER_OFFSET, 0);
        let commit = Prepared::new(if wish.orderly { head } else { head.oneway() }, &fields, b"")?;
        let (pull_at, commit_at) = (pull.place(NUMBER.as_bytes())?, commit.place(NUMBER.as_bytes())?);
        let next = wish.topic.queues[queue].from;
        let stage = if end.is_some_and(|end| next >= end) { Stage::Done } else { Stage::Pulling };
        Ok(Taken {
            connection,
            pull,
            pull_at,
            commit,
            commit_at,
            next,
            end,
            stage,
            opaque: 0,
            requests: 0,
            from_ns: 0,
            uncounted: 0,
        })
    }

    fn numbered(&mut self, number: usize) -> i32 {
        self.requests += 1;
        opaque_of(number, self.requests)
    }

    fn pull(&mut self, outs: &mut Outs, number: usize, now: u64) {
        self.opaque = self.numbered(number);
        (self.stage, self.from_ns) = (Stage::Pulling, now);
        self.pull.set_opaque(self.opaque);
        self.pull.set_number(&self.pull_at, self.next);
        outs.of(self.connection).extend_from_slice(self.pull.bytes());
    }

    /// Puts the commit of all that was processed.
    fn commit(&mut self, outs: &mut Outs, number: usize, answered: bool) {
        let opaque = self.numbered(number);
        self.commit.set_opaque(opaque);
        self.commit.set_number(&self.commit_at, self.next);
        outs.of(self.connection).extend_from_slice(self.commit.bytes());
        if answered {
            (self.stage, self.opaque) = (Stage::Committing, opaque);
        }
    }

    /// Puts the next pull; true when there is nothing left to pull.
    fn go_on(&mut self, outs: &mut Outs, number: usize, now: u64) -> bool {
        if self.end.is_some_and(|end| self.next >= end) {
            self.stage = Stage::Done;
            return true;
        }
        self.pull(outs, number, now);
        false
    }
}

fn next_offset(frame: &FrameRef<'_>) -> Result<u64, PerfError> {
    let header = Header::of(frame).map_err(|error| PerfError::Broker(error.to_string()))?;
    let next = header.field("nextBeginOffset").and_then(|text| text.parse().ok());
    next.ok_or_else(|| PerfError::Broker("a pull was answered without the next offset".to_owned()))
}

/// What a consumer says of itself.
pub(crate) fn heartbeat(client: &str, group: &str, topic: &str) -> Vec<u8> {
    let subscription = json!({"classFilterMode": false, "codeSet": [], "expressionType": "TAG", "subString": "*",
        "subVersion": 1, "tagsSet": [], "topic": topic});
    let consumer = json!({"consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET", "consumeType": "CONSUME_PASSIVELY",
        "groupName": group, "messageModel": "CLUSTERING", "subscriptionDataSet": [subscription], "unitMode": false});
    json!({"clientID": client, "consumerDataSet": [consumer], "producerDataSet": []}).to_string().into_bytes()
}

fn lock(
    wires: &mut Wires,
    connection: usize,
    client: &str,
    wish: &Consuming<'_>,
    own: impl Iterator<Item = usize>,
) -> Result<(), PerfError> {
    let of = |queue: usize| json!({"topic": wish.topic.name, "brokerName": "broker-a", "queueId": wish.topic.queues[queue].id});
    let wanted: Vec<Value> = own.map(of).collect();
    let body = json!({"clientId": client, "consumerGroup": wish.group, "mqSet": wanted, "onlyThisBroker": false});
    let answer = wires.call(connection, request::LOCK_BATCH_MQ, body.to_string().as_bytes())?;
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    let locked = answer["lockOKMQSet"].as_array().map_or(0, Vec::len);
    if locked == wanted.len() {
        Ok(())
    } else {
        Err(PerfError::Broker(format!("{} queues were to be locked, {locked} are", wanted.len())))
    }
}
