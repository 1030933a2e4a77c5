//! The consuming side: queues, each with one pull on its way, and with one commit of what was processed.
//!
//! 1. A member joins its group by a heartbeat. In order, it locks its queues before it pulls.
//! 2. In order, commits are answered. One is on its way for a queue, and the next one covers all that was processed meanwhile; a message
//!    is counted when the commit that covers it was answered, unless somebody waits for it to be processed.
//! 3. Every message that arrives is judged, and held against what came before it.

use std::collections::VecDeque;

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
/// Messages asked for at once, as clients do unless told otherwise.
pub(crate) const PULL_MESSAGES: &str = "32";
/// The most that they can be told to ask for.
pub(crate) const PULL_MESSAGES_MOST: &str = "1024";

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
    /// Messages asked for at once.
    pub(crate) pull_messages: &'static str,
    /// Where it ends, by queue; without it, pulls are held at the end of a queue.
    pub(crate) ends: Option<&'a [u64]>,
    /// Streams that there may be.
    pub(crate) streams: usize,
    /// How headers are written.
    pub(crate) encoding: Encoding,
    /// The messages.
    pub(crate) payloads: &'a Payloads,
}

/// Processed, and not counted yet.
struct Uncounted {
    /// The offset whose commit covers it.
    until: u64,
    count: u64,
    from_ns: u64,
}

struct Taken {
    connection: usize,
    pull: Prepared,
    pull_at: Place,
    commit: Prepared,
    commit_at: Place,
    /// Where the next pull begins: everything before it was processed.
    next: u64,
    end: Option<u64>,
    /// The number of the pull on its way; 0 when there is none.
    pulling: i32,
    /// The same of a commit, and what it commits.
    committing: i32,
    committed: u64,
    requests: u64,
    from_ns: u64,
    uncounted: VecDeque<Uncounted>,
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
        let left = queues.iter().filter(|queue| !queue.is_at_end()).count();
        let (payloads, orderly) = (wish.payloads, wish.orderly);
        let verifier = Verifier::new(wish.streams);
        Ok(Consumer { payloads, queues, orderly, verifier, recorder: meter.recorder(PROCESSED), left })
    }

    /// Puts the first pull of every queue.
    pub(crate) fn begin(&mut self, outs: &mut Outs, now: u64) {
        for (number, queue) in self.queues.iter_mut().enumerate().filter(|(_, queue)| !queue.is_at_end()) {
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
        let (number, is_commit) = (slot_of(opaque) / 2, slot_of(opaque) % 2 == 1);
        let waits = |queue: &&mut Taken| opaque == if is_commit { queue.committing } else { queue.pulling };
        let Some(queue) = self.queues.get_mut(number).filter(waits) else {
            return Err(PerfError::Broker(format!("an answer to request {opaque}, which nobody waits for")));
        };
        let refused = |what: &str| PerfError::Broker(format!("{what} was answered with code {code}"));
        if is_commit {
            if code != response::SUCCESS {
                return Err(refused("a commit"));
            }
            queue.committing = 0;
            while let Some(oldest) = queue.uncounted.front().filter(|oldest| oldest.until <= queue.committed) {
                self.recorder.acked(oldest.count, oldest.from_ns, now);
                queue.uncounted.pop_front();
            }
            if queue.committed < queue.next {
                queue.commit(outs, number, true);
            }
        } else {
            queue.pulling = 0;
            let found = code == response::SUCCESS;
            let moves = [response::PULL_NOT_FOUND, response::PULL_RETRY_IMMEDIATELY, response::PULL_OFFSET_MOVED];
            if !found && !moves.contains(&code) {
                return Err(refused("a pull"));
            }
            queue.next = next_offset(frame)?;
            let mut count = 0;
            for record in message::records(if found { frame.body } else { &[] }) {
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
            if found && self.orderly {
                queue.uncounted.push_back(Uncounted { until: queue.next, count, from_ns: queue.from_ns });
                if queue.committing == 0 {
                    queue.commit(outs, number, true);
                }
            } else if found {
                queue.commit(outs, number, false);
                self.recorder.acked(count, queue.from_ns, now);
            }
            if !queue.is_at_end() {
                queue.pull(outs, number, now);
            }
        }
        self.left -= usize::from(queue.is_at_end() && queue.committing == 0 && queue.pulling == 0);
        Ok(())
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
            ("maxMsgNums", wish.pull_messages),
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
        Ok(Taken {
            connection,
            pull,
            pull_at,
            commit,
            commit_at,
            next,
            end,
            pulling: 0,
            committing: 0,
            committed: next,
            requests: 0,
            from_ns: 0,
            uncounted: VecDeque::new(),
        })
    }

    fn is_at_end(&self) -> bool {
        self.end.is_some_and(|end| self.next >= end)
    }

    fn pull(&mut self, outs: &mut Outs, number: usize, now: u64) {
        self.requests += 1;
        self.pulling = opaque_of(number * 2, self.requests);
        self.from_ns = now;
        self.pull.set_opaque(self.pulling);
        self.pull.set_number(&self.pull_at, self.next);
        outs.of(self.connection).extend_from_slice(self.pull.bytes());
    }

    /// Puts the commit of all that was processed.
    fn commit(&mut self, outs: &mut Outs, number: usize, is_answered: bool) {
        self.requests += 1;
        let opaque = opaque_of(number * 2 + 1, self.requests);
        self.committed = self.next;
        self.commit.set_opaque(opaque);
        self.commit.set_number(&self.commit_at, self.next);
        outs.of(self.connection).extend_from_slice(self.commit.bytes());
        if is_answered {
            self.committing = opaque;
        }
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
