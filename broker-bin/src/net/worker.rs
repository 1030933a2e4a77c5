//! What one network thread does, without its thread: connections, the batches parsed in this turn, and the answers that wait.
//!
//! 1. Everything parsed in one turn is appended by one call; its answers leave when the acked watermark has passed them, all that it
//!    passed at one notification. What only moves messages shares frames; when one of those is refused, each gets its own.
//! 2. Acks wait in the order of the log, so the first one decides when to wake up.
//! 3. No answer is given twice, and none to a oneway request.
//! 4. What does not fit the log buffer waits here, and the connections that it came by are not read meanwhile.

mod relaying;
mod replying;
mod visiting;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anchorlog_engine::{AppendError, AppendOutcome, BatchMark, Lsn, Subscription, Watcher, Watermark, WriteBatch};

use super::connection::{CloseReason, Connection, unmapped};
use super::door::Refusal;
use super::held::{HeldPull, HeldPulls};
use super::mailbox::{Mail, Mailbox};
use super::readers::{Cold, ColdPull, ColdReads};
use super::visitors::Visitor;
use super::{ConnectionId, ReplyTo};
use crate::features::groups::Change;
use crate::features::pull::{Evaluation, Pull, evaluate};
use crate::features::repeats::Told;
use crate::features::send::Sending;
use crate::features::transactions::Question;
use crate::features::{After, Awaited, Kept, Outcome, Reply, Request, Task, Writing, code};
use crate::limits;
use crate::metrics::{Load, Pulse};
use crate::router;
use crate::shared::Shared;
use crate::state::{FlushError, Flushed};
use crate::wire::codes::request as ask;
use crate::wire::header::Head;
use crate::wire::{Encoding, FrameRef, Header};
pub(in crate::net) use relaying::QuestionId;
use relaying::Relays;
use replying::Replies;
use visiting::announced;

/// Acknowledged by the leader alone, as an operator asked by name.
const ALONE: (i32, Option<&str>) = (code::SLAVE_NOT_AVAILABLE, Some("stored here alone: too few slaves are in sync"));

/// What a batch is for that is parsed and not appended.
#[derive(Debug)]
enum Purpose {
    Send(Sending),
    Write(Writing),
}

/// A request whose batch is not appended.
#[derive(Debug)]
struct Parsed {
    to: ReplyTo,
    purpose: Purpose,
    since: Duration,
    /// Bytes that its connection is charged for.
    bytes: usize,
}

#[derive(Debug)]
enum Answer {
    Sent(Sending),
    Recorded(Reply),
    /// A part of a handler that goes on then, and what is known if that is too late.
    Task(Task, Option<Box<Sending>>),
}

/// An answer that waits for the acked watermark.
#[derive(Debug)]
struct Ack {
    end_lsn: Lsn,
    /// When it was asked for.
    since: Duration,
    deadline: Duration,
    to: ReplyTo,
    answer: Answer,
    /// Bytes that its connection is charged for.
    bytes: usize,
}

/// A task that is tried again soon.
#[derive(Debug)]
struct Soon {
    to: ReplyTo,
    since: Duration,
    /// Not before this.
    at: Duration,
    task: Task,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    /// Absent while its requests are handled.
    connection: Option<Box<Connection>>,
    taken: bool,
}

/// One network thread's state.
pub struct Worker {
    shared: Arc<Shared>,
    index: u16,
    slots: Vec<Slot>,
    free: Vec<u32>,
    now: Duration,
    /// Parsed and not appended, in order: one for each request of `parsed`, or one for several writings that follow each other.
    batches: Vec<WriteBatch>,
    /// By batch: where those begin in it that are behind the first.
    joints: VecDeque<Vec<BatchMark>>,
    parsed: VecDeque<Parsed>,
    spare: Vec<WriteBatch>,
    outcomes: Vec<AppendOutcome>,
    /// Answers that wait for the state to be flushed.
    recording: Vec<(ReplyTo, Reply, Kept)>,
    /// Who alone asks for something, and for how many turns: its messages are made durable on this thread.
    lone: Option<ConnectionId>,
    lone_turns: u32,
    acks: VecDeque<Ack>,
    acked_mark: Subscription,
    acked_armed: bool,
    written_mark: Subscription,
    written_lsn: Lsn,
    /// Connections that wait for space in the log buffer; while there are any, `written_mark` is armed.
    blocked: Vec<ConnectionId>,
    full: bool,
    held: HeldPulls,
    watcher: Arc<Watcher>,
    woken: Vec<u64>,
    /// Tasks that are done elsewhere now.
    tasks: usize,
    /// Tasks that wait for batches of others to get their places, or for connections to close.
    soon: Vec<Soon>,
    mailboxes: Arc<[Mailbox]>,
    cold_reads: ColdReads,
    dirty: Vec<ConnectionId>,
    next_opaque: i32,
    relays: Relays,
    /// Resets of offsets that were seen.
    resets_seen: u64,
    replies: Replies,
    swept: Duration,
    complained: Option<Duration>,
    complaints: u64,
    pulse: Arc<Pulse>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker without connections; its mailbox is the one at `index`.
    ///
    /// # Errors
    /// When the kernel has no more descriptors.
    pub fn new(
        shared: Arc<Shared>,
        index: u16,
        mailboxes: Arc<[Mailbox]>,
        cold_reads: ColdReads,
    ) -> std::io::Result<Worker> {
        let acked_mark = shared.engine.subscribe(Watermark::Acked)?;
        let written_mark = shared.engine.subscribe(Watermark::Written)?;
        let pulse = shared.pulses.begin();
        Ok(Worker {
            shared,
            index,
            slots: Vec::new(),
            free: Vec::new(),
            now: Duration::ZERO,
            batches: Vec::new(),
            joints: VecDeque::new(),
            parsed: VecDeque::new(),
            spare: Vec::new(),
            outcomes: Vec::new(),
            recording: Vec::new(),
            lone: None,
            lone_turns: 0,
            acks: VecDeque::new(),
            acked_mark,
            acked_armed: false,
            written_mark,
            written_lsn: Lsn::ZERO,
            blocked: Vec::new(),
            full: false,
            held: HeldPulls::default(),
            watcher: Watcher::new()?,
            woken: Vec::new(),
            tasks: 0,
            soon: Vec::new(),
            mailboxes,
            cold_reads,
            dirty: Vec::new(),
            next_opaque: 0,
            relays: Relays::default(),
            resets_seen: 0,
            replies: Replies::default(),
            swept: Duration::ZERO,
            complained: None,
            complaints: 0,
            pulse,
        })
    }

    /// Becomes readable when [`Worker::acked`] has something to do.
    #[must_use]
    pub fn acked_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.acked_mark.fd()
    }

    /// Becomes readable when [`Worker::written`] has something to do.
    #[must_use]
    pub fn written_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.written_mark.fd()
    }

    /// Becomes readable when [`Worker::watched`] has something to do.
    #[must_use]
    pub fn watched_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.watcher.fd()
    }

    /// Tells the time, before anything else is told.
    pub fn set_time(&mut self, monotonic: Duration) {
        self.now = monotonic;
    }

    /// Takes a new connection; `None` when there are too many.
    pub fn accept(&mut self, peer: std::net::SocketAddr) -> Option<ConnectionId> {
        let visitor = match self.shared.visitors.enter(unmapped(peer).ip()) {
            Ok(visitor) => visitor,
            Err(full) => {
                self.shared.counters.connections_refused.add(1);
                self.complain(peer, "turned a connection away: there are too many", &full);
                return None;
            }
        };
        let id = self.place(peer, &visitor);
        if id.is_none() {
            self.shared.visitors.leave(&visitor);
        }
        id
    }

    fn place(&mut self, peer: std::net::SocketAddr, visitor: &Arc<Visitor>) -> Option<ConnectionId> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() >= limits::CONNECTIONS_PER_WORKER_MAX => {
                self.shared.counters.connections_refused.add(1);
                return None;
            }
            None => {
                self.slots.push(Slot::default());
                u32::try_from(self.slots.len() - 1).ok()?
            }
        };
        let place = &mut self.slots[slot as usize];
        let id = ConnectionId { worker: self.index, slot, generation: place.generation };
        let mut connection =
            Box::new(Connection::new(id, peer, self.now, visitor.clone(), self.shared.visitors.bounds()));
        let end = self.shared.engine.watermarks().assigned;
        connection.life = self.shared.repeats.connections().opened(connection.peer, id, end);
        place.connection = Some(connection);
        place.taken = true;
        self.shared.counters.connections.add(1);
        Some(id)
    }

    /// Which network thread this is.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// How many connections there are.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn connection(&mut self, id: ConnectionId) -> Option<&mut Box<Connection>> {
        let place = self.slots.get_mut(id.slot as usize)?;
        if place.generation != id.generation { None } else { place.connection.as_mut() }
    }

    /// Bytes arrived. Call [`Worker::end_of_turn`] when all that is readable has been given.
    pub fn bytes_in(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(mut connection) = self.lend(id) else { return };
        connection.last_traffic = self.now;
        connection.life.beat(self.shared.engine.clock().wall_ms());
        if self.lone != Some(id) {
            (self.lone, self.lone_turns) = (Some(id), 0);
        }
        if connection.input.is_empty() {
            let used = self.requests(&mut connection, bytes);
            connection.input.extend_from_slice(&bytes[used..]);
            connection.unfinished_since = (!connection.input.is_empty()).then_some(self.now);
        } else {
            connection.input.extend_from_slice(bytes);
            self.go_on(&mut connection);
        }
        self.weigh(&mut connection);
        self.give_back(connection);
    }

    /// Takes a connection out while its requests are handled.
    fn lend(&mut self, id: ConnectionId) -> Option<Box<Connection>> {
        let place = self.slots.get_mut(id.slot as usize)?;
        if place.generation != id.generation { None } else { place.connection.take() }
    }

    fn give_back(&mut self, connection: Box<Connection>) {
        let slot = connection.id.slot as usize;
        self.slots[slot].connection = Some(connection);
    }

    /// Handles what lies in the input.
    fn go_on(&mut self, connection: &mut Connection) {
        let mut input = std::mem::take(&mut connection.input);
        let used = self.requests(connection, &input);
        if used == input.len() && input.capacity() > limits::OUT_PAUSE_BYTES {
            input = Vec::new();
        }
        input.drain(..used.min(input.len()));
        if used > 0 {
            connection.unfinished_since = (!input.is_empty()).then_some(self.now);
        }
        connection.input = input;
    }

    /// Handles every whole request at the start of `bytes`; says how many bytes that were.
    fn requests(&mut self, connection: &mut Connection, bytes: &[u8]) -> usize {
        let mut used = 0;
        let frame_bytes_max = self.shared.visitors.bounds().frame_bytes;
        while !connection.is_paused() {
            if let Some(announced) = announced(&bytes[used..]).filter(|announced| *announced > frame_bytes_max) {
                self.shared.counters.bad_frames.add(1);
                self.close_because(connection, CloseReason::FrameTooLarge(announced));
                return bytes.len();
            }
            let frame = match FrameRef::parse(&bytes[used..]) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => {
                    self.bad_frame(connection, error.to_string());
                    return bytes.len();
                }
            };
            used += frame.total_bytes();
            match Header::of(&frame) {
                Ok(header) if header.is_response() => {
                    if !self.took_reply(connection.id, &header) {
                        self.client_said(connection, &header, frame.body);
                    }
                }
                Ok(header) => self.request(connection, &header, frame.body),
                Err(error) => {
                    self.bad_frame(connection, error.to_string());
                    return bytes.len();
                }
            }
        }
        used
    }

    /// A connection is not what it must be: the driver closes it next.
    pub(super) fn turn_away(&mut self, id: ConnectionId, refusal: Refusal) {
        if let Some(mut connection) = self.lend(id) {
            self.shared.counters.connections_turned_away.add(1);
            self.close_because(&mut connection, CloseReason::TurnedAway(refusal));
            self.give_back(connection);
        }
    }

    fn bad_frame(&mut self, connection: &mut Connection, what: String) {
        self.shared.counters.bad_frames.add(1);
        self.close_because(connection, CloseReason::BadFrame(what));
    }

    fn request(&mut self, connection: &mut Connection, header: &Header<'_>, body: &[u8]) {
        self.shared.counters.requests.add(1);
        let to = ReplyTo {
            connection: connection.id,
            opaque: header.opaque,
            encoding: header.encoding,
            oneway: header.is_oneway(),
        };
        let request = Request { header, body, connection: connection.id, peer: connection.peer, pass: None };
        let mut batch = self.spare.pop().unwrap_or_default();
        let mut joined = Vec::new();
        let outcome = router::route(&self.shared, &request, &mut batch, &mut joined);
        let Some(outcome) = self.take_batch(to, outcome, &mut batch) else {
            return self.took_off(connection);
        };
        batch.clear();
        self.spare.push(batch);
        match outcome {
            Outcome::Append(_) | Outcome::Write(_) => {}
            Outcome::Read(task) => self.read_elsewhere(connection, to, self.now, task),
            Outcome::After(after) => self.wait_for_others(connection, to, self.now, after),
            Outcome::Repeat(sending) => self.repeated(connection, to, &sending),
            Outcome::Reply(reply) => self.answer(connection, to, &reply),
            Outcome::Recorded(reply, kept) => self.recording.push((to, reply, kept)),
            Outcome::Pull(pull) => self.pull(connection, to, pull),
            Outcome::Relay(relay) => self.relay(connection, to, *relay),
            Outcome::Tell { reply, changes, kept } => {
                if header.code == ask::HEART_BEAT {
                    connection.last_heartbeat = self.now;
                    connection.groups.extend(joined);
                }
                if header.code == ask::UNREGISTER_CLIENT {
                    for (group, _) in &changes {
                        connection.groups.remove(group);
                    }
                }
                match kept {
                    Some(kept) => self.recording.push((to, reply, kept)),
                    None => self.answer(connection, to, &reply),
                }
                for (group, change) in changes {
                    self.tell(Some(connection), &group, &change);
                }
            }
        }
    }

    /// Puts a batch that was filled in line; gives back an outcome that is something else.
    fn take_batch(&mut self, to: ReplyTo, outcome: Outcome, batch: &mut WriteBatch) -> Option<Outcome> {
        let purpose = match outcome {
            Outcome::Append(sending) => Purpose::Send(sending),
            Outcome::Write(writing) => Purpose::Write(writing),
            other => return Some(other),
        };
        let bytes = usize::try_from(batch.frame_bytes()).unwrap_or(usize::MAX);
        // What moves messages is small: a frame for each would be most of it.
        let is_writing = matches!(purpose, Purpose::Write(_));
        let joins = is_writing && matches!(self.parsed.back(), Some(Parsed { purpose: Purpose::Write(_), .. }));
        self.parsed.push_back(Parsed { to, purpose, since: self.now, bytes });
        if joins
            && let (Some(last), Some(joints)) = (self.batches.last_mut(), self.joints.back_mut())
            && last.frame_bytes() + batch.frame_bytes() <= limits::MERGED_BATCH_BYTES
        {
            let mark = last.mark();
            if last.absorb(batch) {
                joints.push(mark);
                self.spare.push(std::mem::take(batch));
                return None;
            }
        }
        self.batches.push(std::mem::take(batch));
        self.joints.push_back(Vec::new());
        None
    }

    /// Gives each request of the first batch its own again; false when it has.
    fn part_first(&mut self) -> bool {
        let Some(joints) = self.joints.front_mut().map(std::mem::take) else { return false };
        let Some(first) = self.batches.first_mut() else { return false };
        let is_joined = !joints.is_empty();
        // The last one first: each is put before those that were split off before it.
        let parts: Vec<WriteBatch> = joints.into_iter().rev().map(|mark| first.split_off(mark)).collect();
        for part in parts {
            self.batches.insert(1, part);
            self.joints.insert(1, Vec::new());
        }
        is_joined
    }

    fn read_elsewhere(&mut self, connection: &mut Connection, to: ReplyTo, since: Duration, task: Task) {
        match self.cold_reads.submit(Cold::Task { task, to, since }) {
            Ok(()) => {
                connection.cold += 1;
                self.tasks += 1;
            }
            Err(_) => {
                let reply = Reply::failure(code::SERVICE_NOT_AVAILABLE, "the broker is stopping; nothing was done");
                self.answer(connection, to, &reply);
            }
        }
    }

    /// A task is done, also when whoever asked is gone.
    fn task_done(&mut self, to: ReplyTo, since: Duration, outcome: Outcome, mut batch: WriteBatch) {
        self.tasks = self.tasks.saturating_sub(1);
        let outcome = self.take_batch(to, outcome, &mut batch);
        let Some(mut connection) = self.lend(to.connection) else { return };
        connection.cold = connection.cold.saturating_sub(1);
        if outcome.is_none() {
            self.took_off(&mut connection);
        }
        match outcome {
            Some(Outcome::Reply(reply)) => self.answer(&mut connection, to, &reply),
            Some(Outcome::Recorded(reply, kept)) => self.recording.push((to, reply, kept)),
            Some(Outcome::After(after)) => self.wait_for_others(&mut connection, to, since, after),
            Some(Outcome::Repeat(sending)) => self.repeated(&mut connection, to, &sending),
            Some(Outcome::Relay(relay)) => self.relay(&mut connection, to, *relay),
            other => debug_assert!(other.is_none(), "tasks answer, write or wait"),
        }
        self.touched(&mut connection);
        self.give_back(connection);
    }

    /// A task goes on when others are done, or is too late. Meanwhile it counts as one that reads.
    fn wait_for_others(&mut self, connection: &mut Connection, to: ReplyTo, since: Duration, after: After) {
        let After { awaited, task } = after;
        let (lsn, overdue) = match awaited {
            Awaited::Acked { lsn, .. } if lsn < self.acked_mark.current() => {
                return self.read_elsewhere(connection, to, since, task);
            }
            Awaited::Acked { lsn, overdue } => (lsn, overdue),
            Awaited::Places | Awaited::Closing => {
                let pause = if matches!(awaited, Awaited::Closing) { limits::CLOSE_PATIENCE } else { Duration::ZERO };
                connection.cold += 1;
                return self.soon.push(Soon { to, since, at: self.now + pause, task });
            }
        };
        connection.cold += 1;
        let end_lsn = self.acks.back().map_or(lsn.plus(1), |last| last.end_lsn.max(lsn.plus(1)));
        let deadline = since + self.shared.settings.ack_timeout;
        self.acks.push_back(Ack { end_lsn, since, deadline, to, answer: Answer::Task(task, overdue), bytes: 0 });
    }

    /// Lets a task go on that has waited; when nobody is there any more, nobody knows what to do with what it finds.
    fn go_on_with(&mut self, to: ReplyTo, since: Duration, task: Task) {
        if let Some(mut connection) = self.lend(to.connection) {
            connection.cold = connection.cold.saturating_sub(1);
            self.read_elsewhere(&mut connection, to, since, task);
            self.give_back(connection);
        }
    }

    /// Batches got their places, or time has passed.
    fn try_again(&mut self) {
        let (timeout, now) = (self.shared.settings.ack_timeout, self.now);
        for soon in std::mem::take(&mut self.soon) {
            if soon.since + timeout <= now {
                self.too_late(soon.to, "it has no place in the log yet");
            } else if soon.at <= now {
                self.go_on_with(soon.to, soon.since, soon.task);
            } else {
                self.soon.push(soon);
            }
        }
    }

    /// What was waited for did not happen in time: `what` became of the same, that is on its way.
    fn too_late(&mut self, to: ReplyTo, what: &str) {
        let Some(mut connection) = self.lend(to.connection) else { return };
        connection.cold = connection.cold.saturating_sub(1);
        let remark = format!("nothing was done for this one; the same is on its way already: {what}");
        self.answer(&mut connection, to, &Reply::failure(code::SERVICE_NOT_AVAILABLE, remark));
        self.touched(&mut connection);
        self.give_back(connection);
    }

    /// All of a send was stored before, and is acknowledged.
    fn repeated(&mut self, connection: &mut Connection, to: ReplyTo, sending: &Sending) {
        let last = sending.repeated.iter().map(|(_, first)| first.lsn).max().unwrap_or(Lsn::ZERO);
        let kept = self.shared.standing.kept_promise(&self.shared.engine);
        let (code, remark) = if last < kept { (code::SUCCESS, None) } else { ALONE };
        self.tell_sent(connection, to, sending, code, remark);
    }

    fn pull(&mut self, connection: &mut Connection, to: ReplyTo, pull: Box<Pull>) {
        match evaluate(&self.shared, &pull, false, false) {
            Evaluation::Answer(reply, messages) => self.pulled(connection, to, &reply, messages),
            Evaluation::NeedsDisk => self.read_cold(connection, to, pull),
            Evaluation::Nothing(from) => {
                let hold = pull.hold.filter(|_| !to.oneway && !self.shared.is_closing());
                let Some(hold) = hold else {
                    let reply = pull.nothing(&self.shared);
                    return self.answer(connection, to, &reply);
                };
                if self.holds_too_many(connection) {
                    self.shared.counters.pulls_refused.add(1);
                    // Clients come again some seconds after this; after an empty answer they would at once.
                    let remark =
                        "too many pulls of this connection, or from its address, are held already; try again later";
                    return self.answer(connection, to, &Reply::failure(code::SYSTEM_BUSY, remark));
                }
                self.shared.counters.pulls_held.add(1);
                let deadline = self.now + hold;
                self.hold(connection, HeldPull { pull: Box::new(Pull { from, ..*pull }), to, deadline });
            }
        }
    }

    fn hold(&mut self, connection: &mut Connection, held: HeldPull) {
        let token = self.held.hold(&self.shared.engine, &self.watcher, held);
        connection.hold(token);
    }

    fn pulled(&mut self, connection: &mut Connection, to: ReplyTo, reply: &Reply, messages: usize) {
        self.shared.counters.messages_pulled.add(messages as u64);
        self.answer(connection, to, reply);
    }

    fn read_cold(&mut self, connection: &mut Connection, to: ReplyTo, pull: Box<Pull>) {
        self.shared.counters.pulls_cold.add(1);
        match self.cold_reads.submit(Cold::Pull(ColdPull { pull, to })) {
            Err(Cold::Pull(ColdPull { pull, .. })) => {
                let reply = pull.nothing(&self.shared);
                self.answer(connection, to, &reply);
            }
            Ok(()) | Err(Cold::Task { .. }) => connection.cold += 1,
        }
    }

    fn answer(&mut self, connection: &mut Connection, to: ReplyTo, reply: &Reply) {
        if to.oneway {
            return;
        }
        write_reply(connection, to, reply);
        self.touched(connection);
    }

    /// The driver must look at this connection.
    fn touched(&mut self, connection: &mut Connection) {
        if connection.unread() > limits::OUT_BYTES_MAX && connection.close.is_none() {
            self.shared.counters.slow_readers.add(1);
            self.close_because(connection, CloseReason::SlowReader);
        }
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(connection.id);
        }
    }

    fn close_because(&mut self, connection: &mut Connection, reason: CloseReason) {
        self.complain(connection.peer, "closed a connection", &reason);
        connection.close = Some(reason);
        connection.input = Vec::new();
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(connection.id);
        }
    }

    /// Tells the members of a group that it changed. `lent`: a connection that is out of its slot.
    fn tell(&mut self, mut lent: Option<&mut Connection>, group: &str, change: &Change) {
        for &member in &change.notify {
            if member.worker != self.index {
                if let Some(mailbox) = self.mailboxes.get(usize::from(member.worker)) {
                    mailbox.post(Mail::Notice { connection: member, group: group.into() });
                }
                continue;
            }
            match lent.as_deref_mut() {
                Some(connection) if connection.id == member => self.notice(connection, group),
                _ => {
                    if let Some(mut connection) = self.lend(member) {
                        self.notice(&mut connection, group);
                        self.give_back(connection);
                    }
                }
            }
        }
    }

    fn notice(&mut self, connection: &mut Connection, group: &str) {
        self.next_opaque = self.next_opaque.wrapping_add(1) & i32::MAX;
        let head = Head::request(Encoding::Json, ask::NOTIFY_CONSUMER_IDS_CHANGED, self.next_opaque).oneway();
        let mut frame = head.encode(&mut connection.output);
        frame.field("consumerGroup", group);
        let finished = frame.finish(&[]);
        debug_assert!(finished.is_ok(), "a group's name fits a frame");
        self.touched(connection);
    }

    fn ask(&mut self, connection: &mut Connection, question: &Question) {
        self.next_opaque = self.next_opaque.wrapping_add(1) & i32::MAX;
        let head = Head::request(Encoding::Json, ask::CHECK_TRANSACTION_STATE, self.next_opaque).oneway();
        let mut frame = head.encode(&mut connection.output);
        for (name, value) in &question.fields {
            frame.field(name, value);
        }
        let finished = frame.finish(&question.body);
        debug_assert!(finished.is_ok(), "a message fits a frame");
        self.touched(connection);
    }

    /// Appends everything that was parsed, in one call, and releases what is acknowledged already.
    pub fn end_of_turn(&mut self) {
        self.settle_replies();
        // Read before anything is found not to fit: progress since then is seen at once.
        self.written_lsn = self.written_mark.current();
        if !self.flush_state() {
            return;
        }
        while !self.batches.is_empty() {
            self.outcomes.clear();
            let outcome = if self.is_alone() {
                // What is done here takes its time, and nobody else tells it.
                let clock = self.shared.engine.clock();
                let began = clock.monotonic();
                let outcome = self.shared.engine.append_all_here(&mut self.batches, &mut self.outcomes);
                self.now += clock.monotonic().saturating_sub(began);
                outcome
            } else {
                self.shared.engine.append_all(&mut self.batches, &mut self.outcomes)
            };
            self.appended();
            match outcome {
                Ok(_) if self.batches.is_empty() => {}
                Ok(_) => {
                    self.block();
                    break;
                }
                Err(AppendError::Full { .. }) => {
                    self.block();
                    break;
                }
                Err(error) => self.refuse_first(&error),
            }
        }
        if self.batches.is_empty() {
            self.unblock();
        }
        if !self.soon.is_empty() {
            self.try_again();
        }
        self.release(self.acked_mark.current());
    }

    /// Whether the one message of this turn, like those of the turns before it, is all that this thread has to do: then the commit may as
    /// well run here. A stalled disk would hold up everybody else.
    fn is_alone(&mut self) -> bool {
        if self.parsed.len() > 1 || !self.acks.is_empty() {
            self.lone_turns = 0;
            return false;
        }
        self.lone_turns = self.lone_turns.saturating_add(1);
        self.lone_turns > limits::LONE_TURNS
    }

    /// Appends the state's changes, which stand before the messages of this turn. False when there is no room for them.
    fn flush_state(&mut self) -> bool {
        if self.recording.is_empty() && !self.shared.state.is_urgent() {
            return true;
        }
        let Flushed { names, offsets, end_lsn } = self.shared.state.flush(&self.shared.engine);
        if matches!(names, Err(FlushError::Full)) || matches!(offsets, Err(FlushError::Full)) {
            self.block();
            return false;
        }
        // Another thread may have appended them, before or behind what waits here.
        let end_lsn = self.acks.back().map_or(end_lsn, |last| last.end_lsn.max(end_lsn));
        let deadline = self.now + self.shared.live.ack_timeout();
        let remark =
            |outcome: Result<(), FlushError>| outcome.err().map(|error| format!("nothing was stored: {error}"));
        let (names, offsets) = (remark(names), remark(offsets));
        for (to, reply, kept) in std::mem::take(&mut self.recording) {
            match if kept == Kept::Names { &names } else { &offsets } {
                None => {
                    let since = self.now;
                    self.acks.push_back(Ack {
                        end_lsn,
                        since,
                        deadline,
                        to,
                        answer: Answer::Recorded(reply),
                        bytes: 0,
                    });
                }
                Some(remark) => self.answer_to(to, &Reply::failure(code::SERVICE_NOT_AVAILABLE, remark.clone())),
            }
        }
        // A message must not stand in the log before its topic does.
        if let Some(remark) = names {
            while !self.batches.is_empty() {
                self.refuse(code::SERVICE_NOT_AVAILABLE, remark.clone());
            }
        }
        true
    }

    /// Moves what was appended from the batches to the acks.
    fn appended(&mut self) {
        let count = self.outcomes.len();
        for mut batch in self.batches.drain(..count) {
            // A buffer that grew for one large message is not kept.
            if batch.frame_bytes() <= limits::SPARE_BATCH_BYTES && self.spare.len() < limits::SPARE_BATCHES_MAX {
                batch.clear();
                self.spare.push(batch);
            }
        }
        let mut joints = self.joints.drain(..count).collect::<Vec<_>>().into_iter();
        let parts = self.outcomes.iter().flat_map(|outcome| {
            let begins = joints.next().unwrap_or_default();
            std::iter::once(0).chain(begins.into_iter().map(BatchMark::operations)).map(move |at| (outcome, at))
        });
        for (outcome, at) in parts {
            let Some(Parsed { to, purpose, since, bytes }) = self.parsed.pop_front() else { break };
            let (answer, due) = match purpose {
                Purpose::Send(mut sending) => {
                    (sending.counted)(&self.shared.counters);
                    let rest = |number: usize| Some(outcome.rest.get(number)?.lsn);
                    let place = |number: usize| number.checked_sub(1).map_or(Some(outcome.first.lsn), rest);
                    self.shared.repeats.appended(&sending.claims, place);
                    sending.appended(outcome);
                    if let Some(letter) = &sending.letter {
                        letter.arrived(&self.shared, outcome.first.lsn);
                    }
                    if let Some(begun) = sending.begun.take() {
                        self.shared.halves.asks.assigned(begun.asks(), outcome.end_lsn);
                        let first = outcome.first;
                        self.shared.halves.recent.begun(first.lsn, first.queue_offset, *begun);
                    }
                    let due = sending.due;
                    (Answer::Sent(sending), due)
                }
                Purpose::Write(Writing { reply, due, ends, letter, counted, back, .. }) => {
                    counted(&self.shared.counters);
                    if let Some(ends) = ends {
                        self.shared.halves.asks.forget(&ends);
                    }
                    if let Some(back) = back {
                        self.shared.repeats.backs().appended(&back, outcome.end_lsn);
                    }
                    if let Some(letter) = letter {
                        let first = outcome.positions().nth(at).unwrap_or(outcome.first);
                        letter.arrived(&self.shared, first.lsn);
                    }
                    (Answer::Recorded(reply), due)
                }
            };
            if let Some(due) = due {
                self.shared.due.assigned(due, outcome.end_lsn);
            }
            let deadline = since + self.shared.live.ack_timeout();
            self.acks.push_back(Ack { end_lsn: outcome.end_lsn, since, deadline, to, answer, bytes });
        }
    }

    /// The first batch can never be appended.
    fn refuse_first(&mut self, error: &AppendError) {
        // Which one of several it is shows when each is appended by itself.
        if self.part_first() {
            return;
        }
        if let AppendError::Rejected(rejection) = error
            && let Some(Parsed { to, purpose: Purpose::Write(writing), since, bytes }) = self.parsed.front_mut()
        {
            // What it says may not be durable yet: it is answered when that is.
            let end_lsn = self.acks.back().map_or(rejection.rests_on, |last| last.end_lsn.max(rejection.rests_on));
            let again = writing.again.take().filter(|(is_good, _)| is_good(rejection));
            let deadline = *since + self.shared.live.ack_timeout();
            let (to, since, bytes, is_again) = (*to, *since, *bytes, again.is_some());
            let answer = match again {
                Some((_, task)) => Answer::Task(task, None),
                None => Answer::Recorded((writing.rejected)(&self.shared, rejection)),
            };
            if is_again && let Some(connection) = self.connection(to.connection) {
                connection.cold += 1;
            }
            self.acks.push_back(Ack { end_lsn, since, deadline, to, answer, bytes });
            self.batches.remove(0);
            self.joints.pop_front();
            self.parsed.pop_front();
            return;
        }
        let code = match error {
            AppendError::TooLarge(_) | AppendError::Empty => code::MESSAGE_ILLEGAL,
            _ => code::SERVICE_NOT_AVAILABLE,
        };
        self.refuse(code, format!("nothing was stored: {error}"));
    }

    fn refuse(&mut self, code: i32, remark: String) {
        self.part_first();
        self.batches.remove(0);
        self.joints.pop_front();
        if let Some(Parsed { to, purpose, bytes, .. }) = self.parsed.pop_front() {
            self.landed(to.connection, bytes);
            match purpose {
                Purpose::Send(sending) => {
                    self.shared.counters.sends_refused.add(1);
                    self.shared.repeats.undo(&sending.claims);
                }
                Purpose::Write(Writing { back: Some(back), .. }) => self.shared.repeats.backs().undo(&back),
                Purpose::Write(_) => {}
            }
            self.answer_to(to, &Reply::failure(code, remark));
        }
    }

    fn answer_to(&mut self, to: ReplyTo, reply: &Reply) {
        if to.oneway {
            return;
        }
        if let Some(mut connection) = self.lend(to.connection) {
            self.answer(&mut connection, to, reply);
            self.give_back(connection);
        }
    }

    /// What is left waits for the written watermark, and its connections wait too.
    fn block(&mut self) {
        if !self.full {
            self.full = true;
            self.shared.counters.sends_blocked.add(self.batches.len() as u64);
        }
        let waiting: Vec<ConnectionId> = self.parsed.iter().map(|parsed| parsed.to.connection).collect();
        let recording: Vec<ConnectionId> = self.recording.iter().map(|(to, ..)| to.connection).collect();
        for id in waiting.into_iter().chain(recording) {
            let Some(connection) = self.connection(id) else { continue };
            if !connection.blocked {
                connection.blocked = true;
                self.blocked.push(id);
            }
        }
        // Any progress frees some of the buffer.
        self.written_mark.arm(self.written_lsn.plus(1));
    }

    fn unblock(&mut self) {
        self.full = false;
        for id in std::mem::take(&mut self.blocked) {
            if let Some(mut connection) = self.lend(id) {
                connection.blocked = false;
                self.touched(&mut connection);
                self.give_back(connection);
            }
        }
    }

    /// The written watermark has moved, or time has passed: tries again what did not fit.
    pub fn written(&mut self) {
        self.written_lsn = self.written_mark.drain();
        if self.full {
            self.end_of_turn();
        }
    }

    /// The acked watermark has moved, or the log is fenced.
    pub fn acked(&mut self) {
        let acked = self.acked_mark.drain();
        self.acked_armed = false;
        self.release(acked);
    }

    fn release(&mut self, acked: Lsn) {
        let kept = self.shared.standing.kept_promise(&self.shared.engine);
        while let Some(ack) = pop_if(&mut self.acks, |ack| ack.end_lsn <= acked) {
            self.landed(ack.to.connection, ack.bytes);
            match &ack.answer {
                Answer::Sent(sending) => {
                    self.shared.counters.messages_acked.add(sending.count());
                    self.pulse.acked(self.now.saturating_sub(ack.since));
                }
                Answer::Recorded(_) => {}
                Answer::Task(..) => {
                    let since = ack.deadline.saturating_sub(self.shared.settings.ack_timeout);
                    if let Answer::Task(task, _) = ack.answer {
                        self.go_on_with(ack.to, since, task);
                    }
                    continue;
                }
            }
            let (code, remark) = if ack.end_lsn <= kept { (code::SUCCESS, None) } else { ALONE };
            self.give(ack, code, remark);
        }
        if self.acks.is_empty() {
            return;
        }
        if self.shared.engine.fenced().is_some() {
            while let Some(ack) = self.acks.pop_front() {
                self.landed(ack.to.connection, ack.bytes);
                self.unconfirmed(
                    ack,
                    code::FLUSH_DISK_TIMEOUT,
                    "stored in the log, which failed before it was confirmed; it may or may not be there",
                );
            }
        } else if !self.acked_armed
            && let Some(first) = self.acks.front()
        {
            self.acked_armed = true;
            self.acked_mark.arm(first.end_lsn);
        }
    }

    /// Says what was not confirmed in time.
    fn overdue(&mut self, ack: Ack) {
        let here = self.shared.engine.watermarks().durable >= ack.end_lsn;
        if here && self.shared.standing.kept_promise(&self.shared.engine) < ack.end_lsn {
            self.unconfirmed(ack, code::FLUSH_SLAVE_TIMEOUT, "stored; too few slaves have confirmed it in time");
        } else {
            self.unconfirmed(ack, code::FLUSH_DISK_TIMEOUT, "stored; the disk has not confirmed it in time");
        }
    }

    fn unconfirmed(&mut self, ack: Ack, code: i32, remark: &'static str) {
        let (answers, acked) = (self.shared.repeats.answers(), self.shared.engine.watermarks().acked);
        match &ack.answer {
            Answer::Sent(sending) => {
                self.shared.counters.messages_unconfirmed.add(sending.count());
                // Of a batch that was stored in part before, the part that was not.
                let first = sending.lsns().filter(|lsn| *lsn >= acked).min();
                answers.overdue(first.unwrap_or(sending.lsn), ack.end_lsn, acked);
                answers.overdue_at(sending.lsn, (sending.queue, sending.queue_offset));
                self.give(ack, code, Some(remark));
            }
            Answer::Recorded(_) => {
                answers.overdue(Lsn(ack.end_lsn.0.saturating_sub(1)), ack.end_lsn, acked);
                self.answer_to(ack.to, &Reply::failure(code::SYSTEM_ERROR, remark));
            }
            Answer::Task(_, overdue) => {
                // It shares what the first try was answered.
                let place = overdue.as_ref().and_then(|sending| answers.place(sending.lsn));
                let Some((sending, (queue, queue_offset))) = overdue.as_deref().cloned().zip(place) else {
                    return self.too_late(ack.to, remark);
                };
                let Some(mut connection) = self.lend(ack.to.connection) else { return };
                connection.cold = connection.cold.saturating_sub(1);
                let sending = Sending { queue, queue_offset, ..sending };
                self.tell_sent(&mut connection, ack.to, &sending, code, Some(remark));
                self.give_back(connection);
            }
        }
    }

    /// Gives an answer to whoever waits for it, when the connection is still there.
    fn give(&mut self, mut ack: Ack, code: i32, remark: Option<&'static str>) {
        if let Answer::Sent(sending) = &mut ack.answer
            && let Some(push) = sending.push.take()
        {
            return self.begin_push(ack, *push, code, remark);
        }
        if ack.to.oneway {
            return;
        }
        let Some(mut connection) = self.lend(ack.to.connection) else { return };
        match &ack.answer {
            Answer::Sent(sending) => self.tell_sent(&mut connection, ack.to, sending, code, remark),
            Answer::Recorded(reply) => {
                write_reply(&mut connection, ack.to, reply);
                self.touched(&mut connection);
            }
            Answer::Task(..) => {}
        }
        self.give_back(connection);
    }

    /// Says where a send is.
    fn tell_sent(
        &mut self,
        connection: &mut Connection,
        to: ReplyTo,
        sending: &Sending,
        code: i32,
        remark: Option<&'static str>,
    ) {
        if to.oneway {
            return;
        }
        let is_sure = matches!(code, code::SUCCESS | code::SLAVE_NOT_AVAILABLE);
        if is_sure && !sending.repeated.is_empty() {
            let at_ms = self.shared.engine.clock().wall_ms();
            let told = Told { peer: connection.peer, connection: connection.id, at_ms };
            for (_, first) in &sending.repeated {
                self.shared.repeats.answers().tell(first.lsn, told);
            }
        }
        let head = Head::response(to.encoding, code, to.opaque).with_remark(remark);
        sending.write(head.encode(&mut connection.output), self.shared.settings.advertise);
        self.touched(connection);
    }

    /// Watched queues got messages.
    pub fn watched(&mut self) {
        let mut woken = std::mem::take(&mut self.woken);
        self.watcher.drain(&mut woken);
        for token in woken.drain(..) {
            let Some(held) = self.held.take(token) else { continue };
            let Some(mut connection) = self.lend(held.to.connection) else { continue };
            connection.let_go(token);
            self.wake(&mut connection, held);
            self.give_back(connection);
        }
        self.woken = woken;
    }

    fn wake(&mut self, connection: &mut Connection, mut held: HeldPull) {
        if connection.is_full() || connection.cold >= limits::COLD_PER_CONNECTION_MAX {
            connection.deferred.push(held);
            return;
        }
        match evaluate(&self.shared, &held.pull, true, false) {
            Evaluation::Answer(reply, messages) => self.pulled(connection, held.to, &reply, messages),
            Evaluation::NeedsDisk => self.read_cold(connection, held.to, held.pull),
            Evaluation::Nothing(from) => {
                held.pull.from = from;
                self.hold(connection, held);
            }
        }
    }

    /// Looks into the mailbox.
    pub fn mail(&mut self) {
        let Some(mailbox) = self.mailboxes.get(usize::from(self.index)) else { return };
        let mut done = false;
        for mail in mailbox.take() {
            match mail {
                Mail::Notice { connection, group } => {
                    if let Some(mut connection) = self.lend(connection) {
                        self.notice(&mut connection, &group);
                        self.give_back(connection);
                    }
                }
                Mail::Ask { connection, question } => {
                    if let Some(mut connection) = self.lend(connection) {
                        self.ask(&mut connection, &question);
                        self.give_back(connection);
                    }
                }
                Mail::Question { connection, id, relay } => self.question_by_mail(connection, id, &relay),
                Mail::Said { id, said } => self.said_by_mail(id, said),
                Mail::Push { connection, push, pushed } => self.push(connection, &push, pushed),
                Mail::Pushed { pushed, outcome } => self.end_push(&pushed, outcome),
                Mail::Done { to, since, outcome, batch } => {
                    done = true;
                    self.task_done(to, since, *outcome, *batch);
                }
                Mail::Read { to, reply, messages } => {
                    if let Some(mut connection) = self.lend(to.connection) {
                        connection.cold = connection.cold.saturating_sub(1);
                        self.pulled(&mut connection, to, &reply, messages);
                        self.give_back(connection);
                    }
                }
            }
        }
        if done {
            self.end_of_turn();
        }
    }

    /// Time has passed; see [`Worker::set_time`].
    pub fn tick(&mut self) {
        self.pulse.tick(self.now, self.load());
        while let Some(token) = self.held.due(self.now) {
            self.end_hold(token);
        }
        let now = self.now;
        while let Some(ack) = pop_if(&mut self.acks, |ack| ack.deadline <= now) {
            self.landed(ack.to.connection, ack.bytes);
            self.overdue(ack);
        }
        if self.full {
            let busy_timeout = self.shared.settings.busy_timeout;
            while self.parsed.front().is_some_and(|parsed| parsed.since + busy_timeout <= now) {
                self.refuse(
                    code::SERVICE_NOT_AVAILABLE,
                    "[BUSY] the log buffer is full; nothing was stored".to_owned(),
                );
            }
            self.end_of_turn();
        }
        if !self.soon.is_empty() {
            self.try_again();
        }
        // An urgent change of another thread's request may wait for nobody.
        if self.shared.state.is_urgent() {
            self.end_of_turn();
        }
        self.end_relays(self.now);
        self.heed_resets();
        self.end_late_pushes();
        if now >= self.swept + Duration::from_secs(1) {
            self.swept = now;
            self.sweep();
        }
    }

    /// What it has to do now.
    fn load(&self) -> Load {
        let waiting = self.acks.len() + self.parsed.len() + self.recording.len();
        let first = [self.acks.front().map(|ack| ack.since), self.parsed.front().map(|parsed| parsed.since)];
        let since = first.into_iter().flatten().min();
        Load {
            connections: self.connection_count() as u64,
            held: self.held.count() as u64,
            waiting: waiting as u64,
            oldest: since.map_or(Duration::ZERO, |since| self.now.saturating_sub(since)),
        }
    }

    fn end_hold(&mut self, token: u64) {
        let Some(held) = self.held.cancel(&self.shared.engine, &self.watcher, token) else { return };
        if let Some(mut connection) = self.lend(held.to.connection) {
            connection.let_go(token);
            let reply = held.pull.nothing(&self.shared);
            self.answer(&mut connection, held.to, &reply);
            self.give_back(connection);
        }
    }

    /// Lets pulls come again whose group may have been sent elsewhere: they are told so then.
    fn heed_resets(&mut self) {
        let seen = self.shared.resets.count();
        if seen == std::mem::replace(&mut self.resets_seen, seen) {
            return;
        }
        for token in self.held.those(|pull| self.shared.resets.concern(&pull.topic.name, pull.number)) {
            self.end_hold(token);
        }
    }

    /// Looks for connections and clients that went silent.
    fn sweep(&mut self) {
        for slot in 0..self.slots.len() {
            let Some(mut connection) = self.slots[slot].connection.take() else { continue };
            if self.now >= connection.last_heartbeat + limits::IDLE_MAX {
                self.shared.halves.producers.gone(connection.id);
                self.shared.clients.gone(connection.id);
                if !connection.groups.is_empty() {
                    self.leave_all(&mut connection);
                }
            }
            if self.now >= connection.last_traffic + limits::IDLE_MAX && connection.close.is_none() {
                self.shared.counters.idle_closed.add(1);
                self.close_because(&mut connection, CloseReason::Idle);
            }
            let is_late = connection.unfinished_since.is_some_and(|since| self.now >= since + limits::UNFINISHED_MAX);
            if is_late && !connection.is_paused() {
                self.shared.counters.unfinished_closed.add(1);
                self.close_because(&mut connection, CloseReason::Unfinished);
            }
            self.give_back(connection);
        }
    }

    fn leave_all(&mut self, connection: &mut Connection) {
        // It is the broker that leaves: clients come back to it, or to the next leader, and find their locks.
        if self.shared.is_closing() {
            return;
        }
        for group in std::mem::take(&mut connection.groups) {
            let change = self.shared.state.cut_off(connection.id, &group);
            self.tell(None, &group, &change);
        }
    }

    /// The socket is gone, or the driver is about to close it.
    pub fn closed(&mut self, id: ConnectionId) {
        let Some(mut connection) = self.lend(id) else { return };
        while let Some(token) = connection.any_held() {
            connection.let_go(token);
            self.held.cancel(&self.shared.engine, &self.watcher, token);
        }
        connection.input = Vec::new();
        connection.charge();
        self.shared.visitors.leave(&connection.visitor);
        self.leave_all(&mut connection);
        self.end_questions_to(id);
        self.shared.halves.producers.gone(id);
        self.shared.repeats.connections().gone(connection.peer, id);
        self.shared.clients.gone(id);
        self.shared.requesters.gone(id);
        self.shared.state.positions.gone(id);
        self.shared.state.groups.gone(id);
        self.end_pushes_to(id);
        let place = &mut self.slots[id.slot as usize];
        place.generation = place.generation.wrapping_add(1);
        place.taken = false;
        self.free.push(id.slot);
    }

    /// The next connection that the driver must look at: to write, to read again, or to close.
    pub fn next_dirty(&mut self) -> Option<ConnectionId> {
        loop {
            let id = self.dirty.pop()?;
            if let Some(connection) = self.connection(id) {
                connection.dirty = false;
                return Some(id);
            }
        }
    }

    /// Bytes to write to this connection.
    pub fn output(&mut self, id: ConnectionId) -> &[u8] {
        self.connection(id).map_or(&[], |connection| &connection.output)
    }

    /// Bytes of this connection that are no whole request yet, or that wait.
    pub fn input_bytes(&mut self, id: ConnectionId) -> usize {
        self.connection(id).map_or(0, |connection| connection.input.len())
    }

    /// So many of [`Worker::output`]'s bytes are written.
    pub fn wrote(&mut self, id: ConnectionId, bytes: usize) {
        let now = self.now;
        let Some(mut connection) = self.lend(id) else { return };
        connection.wrote(bytes, now);
        self.read_more(&mut connection);
        self.give_back(connection);
    }

    /// Takes out all bytes to write, for a driver that must own them until it calls [`Worker::wrote_taken`].
    pub fn take_output(&mut self, id: ConnectionId) -> bytes::BytesMut {
        self.connection(id).map_or_else(bytes::BytesMut::new, |connection| {
            connection.writing = connection.output.len();
            std::mem::take(&mut connection.output)
        })
    }

    /// The same for the first bytes, at most so many.
    pub fn take_output_up_to(&mut self, id: ConnectionId, most: usize) -> bytes::BytesMut {
        self.connection(id).map_or_else(bytes::BytesMut::new, |connection| {
            let count = connection.output.len().min(most);
            connection.writing = count;
            connection.output.split_to(count)
        })
    }

    /// What [`Worker::take_output`] gave is written.
    pub fn wrote_taken(&mut self, id: ConnectionId) {
        let now = self.now;
        let Some(mut connection) = self.lend(id) else { return };
        connection.writing = 0;
        connection.last_traffic = now;
        self.read_more(&mut connection);
        self.give_back(connection);
    }

    /// Answers were read: what waited for that goes on.
    fn read_more(&mut self, connection: &mut Connection) {
        while !connection.deferred.is_empty() && !connection.is_full() {
            let held = connection.deferred.remove(0);
            self.wake(connection, held);
        }
    }

    /// Handles requests that lie in a connection's input since it was paused. True when there were any: end the turn.
    pub fn resume(&mut self, id: ConnectionId) -> bool {
        let Some(mut connection) = self.lend(id) else { return false };
        let before = connection.input.len();
        if before > 0 && !connection.is_paused() {
            self.go_on(&mut connection);
            self.weigh(&mut connection);
        }
        let after = connection.input.len();
        self.give_back(connection);
        after != before
    }

    /// Whether the driver should read from this connection now.
    #[must_use]
    pub fn wants_input(&mut self, id: ConnectionId) -> bool {
        self.connection(id).is_some_and(|connection| !connection.is_paused())
    }

    /// Whether the driver should close this connection, after trying once to write what is left.
    #[must_use]
    pub fn wants_close(&mut self, id: ConnectionId) -> bool {
        self.connection(id).is_none_or(|connection| connection.close.is_some())
    }

    /// The broker stops: answers every held pull. The driver reads no more and waits for [`Worker::is_settled`].
    pub fn stop(&mut self) {
        while let Some(token) = self.held.any() {
            self.end_hold(token);
        }
        // Nothing is read any more: no client can answer.
        self.end_relays(Duration::MAX);
        self.end_of_turn();
    }

    /// Whether every request taken is answered, and every answer written.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let written = |slot: &Slot| slot.connection.as_ref().is_none_or(|connection| connection.unread() == 0);
        let is_nothing_parsed = self.batches.is_empty() && self.recording.is_empty() && self.soon.is_empty();
        let nothing_waits = self.acks.is_empty() && is_nothing_parsed;
        let nobody_waits = self.relay_count() == 0 && self.replies.is_empty();
        nothing_waits && nobody_waits && self.tasks == 0 && self.slots.iter().all(written)
    }

    /// Requests of which a part is done elsewhere now; its outcome comes by mail.
    #[must_use]
    pub fn task_count(&self) -> usize {
        self.tasks
    }

    /// Pulls that are held now.
    #[must_use]
    pub fn held_count(&self) -> usize {
        self.held.count()
    }
}

/// The first ack, if it is such a one.
fn pop_if(acks: &mut VecDeque<Ack>, wanted: impl Fn(&Ack) -> bool) -> Option<Ack> {
    if acks.front().is_some_and(wanted) { acks.pop_front() } else { None }
}

fn write_reply(connection: &mut Connection, to: ReplyTo, reply: &Reply) {
    let head = Head::response(to.encoding, reply.code, to.opaque).with_remark(reply.remark.as_deref());
    let mut frame = head.encode(&mut connection.output);
    if let Some(fields) = &reply.fields {
        frame.fields();
        for (name, value) in fields {
            frame.field(name, value);
        }
    }
    if let Err(error) = frame.finish(&reply.body) {
        let remark = format!("the answer cannot be sent: {error}");
        let head = Head::response(to.encoding, code::SYSTEM_ERROR, to.opaque).with_remark(remark.as_str());
        let finished = head.encode(&mut connection.output).finish(&[]);
        debug_assert!(finished.is_ok(), "a remark fits a frame");
    }
}
