//! 37: a producer's verdict.

use anchorlog_engine::error::Found;
use anchorlog_engine::{BatchError, Link, Lsn, Put, Queue, QueueOffset, Rejection, TableEntry, WriteBatch};

use super::begun::Begun;
use super::half::{Half, NoHalf};
use super::transaction::{Transaction, TransactionId, Verdict};
use crate::counters::Counters;
use crate::features::delay::DueKey;
use crate::features::send::stored::{Attributes, Beside, Stored};
use crate::features::{Outcome, Reply, Request, Task, Writing, code};
use crate::limits;
use crate::shared::Shared;
use crate::state::entries;
use crate::wire::message::sys_flag;

const COMMIT: i32 = sys_flag::TRANSACTION_COMMIT;
const ROLLBACK: i32 = sys_flag::TRANSACTION_ROLLBACK;

/// 37: decides a transaction, once. Answered when that is acknowledged.
pub fn end(shared: &Shared, request: &Request<'_>, batch: &mut WriteBatch) -> Outcome {
    match End::read(shared, request) {
        Ok(Some(end)) if let Some(begun) = end.begun(shared) => end.decide_begun(shared, &begun, batch).or_again(end),
        Ok(Some(end)) => match end.in_memory(shared) {
            Some(half) => end.run(shared, half, batch).or_again(end),
            None => Outcome::Read(end.by_log()),
        },
        // The producer does not know yet: it is asked again.
        Ok(None) => Reply::success().into(),
        Err(reply) => reply.into(),
    }
}

/// A verdict, read.
struct End {
    group: Box<str>,
    verdict: Verdict,
    lsn: Lsn,
    queue_offset: QueueOffset,
    /// The producer's id of the message.
    id: Box<str>,
}

impl End {
    fn read(shared: &Shared, request: &Request<'_>) -> Result<Option<End>, Reply> {
        if shared.is_closing() {
            return Err(Reply::failure(code::SERVICE_NOT_AVAILABLE, "the broker is stopping; nothing was decided"));
        }
        if request.field("fromTransactionCheck").is_some_and(|text| text.eq_ignore_ascii_case("true"))
            && let Some(group) = request.field("producerGroup").filter(|group| group.len() <= limits::GROUP_BYTES_MAX)
        {
            shared.halves.producers.answered(request.connection, group);
        }
        let verdict = match request.required_number("commitOrRollback")? {
            COMMIT => Verdict::Commit,
            ROLLBACK => Verdict::Rollback,
            0 => return Ok(None),
            other => return Err(request.invalid_parameter(format!("{other} is neither commit nor rollback"))),
        };
        Ok(Some(End {
            group: request.required("producerGroup")?.into(),
            verdict,
            lsn: Lsn(request.required_number("commitLogOffset")?),
            queue_offset: QueueOffset(request.required_number("tranStateTableOffset")?),
            id: request.field("msgId").unwrap_or_default().into(),
        }))
    }

    /// The same from what the log says.
    fn by_log(self) -> Task {
        Task::new(move |shared, batch| {
            let half = Half::read(&shared.engine, self.lsn);
            self.run(shared, half, batch).or_again(self)
        })
    }

    /// The transaction, when it was begun lately and nothing has happened to it since.
    fn begun(&self, shared: &Shared) -> Option<Box<Begun>> {
        shared.halves.recent.take(self.lsn, |begun| {
            begun.queue_offset == self.queue_offset
                && (self.id.is_empty() || *self.id == *begun.unique_key())
                && *begun.group == *self.group
        })
    }

    fn decide_begun(&self, shared: &Shared, begun: &Begun, batch: &mut WriteBatch) -> Outcome {
        let now_ms = shared.engine.clock().wall_ms();
        match begun.decide(shared, self.lsn, self.verdict, now_ms, batch) {
            Ok(()) => Outcome::Write(writing(self.verdict, Some(begun.asks))),
            Err(error) => {
                batch.clear();
                shared.counters.verdicts_refused.add(1);
                failed(error).into()
            }
        }
    }

    /// The half message, when no disk is needed for it and for what became of it: most verdicts follow at once, and are not worth another
    /// thread.
    fn in_memory(&self, shared: &Shared) -> Option<Result<Half, NoHalf>> {
        if !shared.engine.is_in_memory(self.lsn) {
            return None;
        }
        let half = Half::read(&shared.engine, self.lsn);
        let known = |half: &Half| shared.engine.knows(&entries::transaction::encode_key(&half.id));
        half.as_ref().map_or(true, known).then_some(half)
    }

    fn run(&self, shared: &Shared, half: Result<Half, NoHalf>, batch: &mut WriteBatch) -> Outcome {
        match self.decide(shared, half, batch) {
            Ok(outcome) => outcome,
            Err(reply) => {
                batch.clear();
                shared.counters.verdicts_refused.add(1);
                reply.into()
            }
        }
    }

    fn decide(&self, shared: &Shared, half: Result<Half, NoHalf>, batch: &mut WriteBatch) -> Result<Outcome, Reply> {
        let half = half.map_err(|error| failed(format!("there is no half message at {}: {error}", self.lsn)))?;
        if half.message.queue_offset != self.queue_offset || !self.id.is_empty() && *self.id != *half.unique_key() {
            return Err(failed(format!("the half message at {} is another one", self.lsn)));
        }
        let pending = match Pending::read(shared, &half.id, self.verdict)? {
            Ok(pending) => pending,
            Err(reply) => return Ok(reply.into()),
        };
        if pending.group != self.group {
            return Err(failed(format!("the half message at {} is of producer group {}", self.lsn, pending.group)));
        }
        pending.decide(shared, Some(&half), self.verdict, batch)
    }
}

impl Outcome {
    /// When its producer was asked after the transaction was read, the verdict is good for what the entry says now.
    fn or_again(mut self, end: End) -> Outcome {
        if let Outcome::Write(writing) = &mut self {
            writing.again = Some((is_undecided, end.by_log()));
        }
        self
    }
}

/// Whether what was found instead is a transaction that still waits for a verdict.
fn is_undecided(rejection: &Rejection) -> bool {
    let Found::Value(value) = &rejection.found else { return false };
    matches!(entries::transaction::decode(value), Ok(Transaction::Prepared { .. } | Transaction::Parked { .. }))
}

fn failed(what: String) -> Reply {
    Reply::failure(code::SYSTEM_ERROR, what)
}

/// An operator decides, whoever else does not. Answered as a producer's verdict is.
///
/// # Errors
/// Why not; nothing was decided then.
pub fn decide_by_hand(
    shared: &Shared,
    id: &TransactionId,
    verdict: Verdict,
    batch: &mut WriteBatch,
) -> Result<Outcome, Reply> {
    let pending = match Pending::read(shared, id, verdict)? {
        Ok(pending) => pending,
        Err(reply) => return Ok(reply.into()),
    };
    let half = Half::read(&shared.engine, pending.entry.target.unwrap_or(Lsn::ZERO));
    if let (Verdict::Commit, Err(error)) = (verdict, &half) {
        return Err(failed(format!("the half message cannot be read, so it can only be rolled back: {error}")));
    }
    let half = half.ok();
    let unique_key = half.as_ref().map(Half::unique_key).unwrap_or_default();
    tracing::warn!(%id, ?verdict, group = &*pending.group, unique_key, "an operator decides a transaction");
    pending.decide(shared, half.as_ref(), verdict, batch)
}

/// A transaction that was not decided when it was read.
struct Pending {
    key: Vec<u8>,
    entry: TableEntry,
    group: Box<str>,
    /// As what it is known that is to be asked about.
    asks: Option<DueKey>,
}

impl Pending {
    /// The inner error is the answer when it is decided already.
    fn read(shared: &Shared, id: &TransactionId, verdict: Verdict) -> Result<Result<Pending, Reply>, Reply> {
        let key = entries::transaction::encode_key(id);
        let entry = shared.engine.get(&key).map_err(|error| failed(error.to_string()))?;
        let entry = entry.ok_or_else(|| failed("it was decided long ago, and how is forgotten".to_owned()))?;
        let transaction = entries::transaction::decode(&entry.value).map_err(|error| failed(error.to_string()))?;
        let (group, asks) = match transaction {
            Transaction::Prepared { group, asks } => (group, asks.map(|asks| id.due_at(asks.at_ms))),
            Transaction::Parked { group } => (group, None),
            Transaction::Decided { verdict: first, .. } => return Ok(Err(again(shared, verdict, first))),
        };
        Ok(Ok(Pending { key, entry, group, asks }))
    }

    fn decide(
        &self,
        shared: &Shared,
        half: Option<&Half>,
        verdict: Verdict,
        batch: &mut WriteBatch,
    ) -> Result<Outcome, Reply> {
        let now_ms = shared.engine.clock().wall_ms();
        if let (Verdict::Commit, Some(half)) = (verdict, half) {
            link(shared, half, batch).map_err(failed)?;
        }
        let decided = entries::transaction::encode(&Transaction::Decided { verdict, at_ms: now_ms });
        let mut decide = || {
            batch.require_value(&self.key, &self.entry.value)?;
            batch.put(&Put { key: &self.key, value: &decided, target: None })
        };
        decide().map_err(|error: BatchError| failed(error.to_string()))?;
        Ok(Outcome::Write(writing(verdict, self.asks)))
    }
}

/// What is done when a verdict has its place. `asks`: as what it is known that is to be asked about.
fn writing(verdict: Verdict, asks: Option<DueKey>) -> Writing {
    let rejected = match verdict {
        Verdict::Commit => commit_was_late,
        Verdict::Rollback => rollback_was_late,
    };
    let counted = match verdict {
        Verdict::Commit => |counters: &Counters| counters.transactions_committed.add(1),
        Verdict::Rollback => |counters: &Counters| counters.transactions_rolled_back.add(1),
    };
    Writing { reply: Reply::success(), due: None, ends: asks, letter: None, rejected, again: None, counted, back: None }
}

/// Does something with the queue that a committed message goes into, and its number: a topic may have fewer than when it was sent.
pub(super) fn queue_of<T>(
    shared: &Shared,
    topic: &str,
    number: u32,
    work: impl FnOnce(&Queue, u32) -> T,
) -> Result<T, String> {
    let topic = shared.state.topics.get(topic).ok_or_else(|| format!("topic {topic} does not exist any more"))?;
    let number = number % topic.config.queues().max(1);
    let queue = topic.queue(&shared.engine, number).map_err(|error| error.to_string())?;
    let queue = queue.ok_or_else(|| format!("topic {} has no queue", topic.name))?;
    Ok(work(queue, number))
}

/// Adds the link that makes a half message one that can be read.
fn link(shared: &Shared, half: &Half, batch: &mut WriteBatch) -> Result<(), String> {
    let (topic, number) = half.place().ok_or("the half message does not say where it is meant to go")?;
    let attributes = Attributes::of(&half.message).ok_or("it was stored by another version")?;
    let flags = attributes.stored.sys_flag & !sys_flag::TRANSACTION_MASK | sys_flag::TRANSACTION_COMMIT;
    let prepared_offset = half.message.lsn.0.cast_signed();
    let stored = Stored { sys_flag: flags, prepared_offset, ..attributes.stored };
    let linked = queue_of(shared, topic, number, |queue, number| {
        batch.link(&Link {
            queue,
            target: half.message.reference().into(),
            tag: half.message.tag,
            keys: &half.keys(),
            attributes: &Attributes { stored, ..attributes }.encode_beside(&Beside::origin_of(
                &half.message,
                topic,
                number,
            )),
        })
    })?;
    linked.map(drop).map_err(|error| error.to_string())
}

/// The answer to a verdict on what is decided.
fn again(shared: &Shared, asked: Verdict, first: Verdict) -> Reply {
    if asked == first {
        return Reply::success();
    }
    shared.counters.verdicts_refused.add(1);
    tracing::warn!(?asked, ?first, "a transaction was decided twice, and not alike; the first verdict counts");
    let what = if first == Verdict::Commit { "committed" } else { "rolled back" };
    Reply::failure(code::SYSTEM_ERROR, format!("the transaction is {what} already, and that counts"))
}

fn commit_was_late(shared: &Shared, rejection: &Rejection) -> Reply {
    was_late(shared, rejection, Verdict::Commit)
}

fn rollback_was_late(shared: &Shared, rejection: &Rejection) -> Reply {
    was_late(shared, rejection, Verdict::Rollback)
}

/// Another verdict, or the last question, had its place in the log before this one.
fn was_late(shared: &Shared, rejection: &Rejection, asked: Verdict) -> Reply {
    let found = match &rejection.found {
        Found::Value(value) => entries::transaction::decode(value).ok(),
        _ => None,
    };
    match found {
        Some(Transaction::Decided { verdict, .. }) => again(shared, asked, verdict),
        _ => Reply::failure(code::SYSTEM_ERROR, "the transaction changed meanwhile; say it again"),
    }
}
