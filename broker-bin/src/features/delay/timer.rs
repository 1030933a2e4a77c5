//! Does what is due: a state machine that is told the time, and the thread around it.
//!
//! 1. An entry and what it asks for change in one batch, which is refused when the entry is not what was read: nothing is done twice.
//! 2. What cannot be done now is tried again; what can never be done is parked, with what it refers to, and said out loud.
//! 3. One turn is in flight at a time, and no larger than `limits::DUE_PER_STEP`.
//! 4. What falls due together is done by few batches, as long as all of it can be done.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anchorlog_engine::{
    AppendError, AppendOutcome, Link, Lsn, Put, ReadError, Rejection, Snapshot, TableEntry, Target, Watermark,
    WriteBatch,
};

use super::due::{Due, DueKey, Place};
use crate::features::send::stored;
use crate::features::transactions::{self, Next, Question, Transaction, TransactionId};
use crate::limits;
use crate::net::{Mail, Mailbox};
use crate::shared::Shared;
use crate::state::entries::{self, parked};

/// What to do before the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more to do.
    Again,
    /// Nothing, until the log is acknowledged up to here.
    Wait(Lsn),
    /// Nothing, for so long.
    Nap(Duration),
    /// The log takes nothing any more.
    Over,
}

/// Part of the table that is being read ahead.
#[derive(Debug)]
struct Reading {
    from: Vec<u8>,
    to: Vec<u8>,
    /// What had a place in the log when the horizon moved ends here.
    needs: Lsn,
}

/// The transactions' entries, as they are looked through.
#[derive(Debug)]
struct Looking {
    from: Vec<u8>,
    /// What had a place in the log when that began ends here.
    needs: Lsn,
    /// All of them, for those that are not decided.
    whole: bool,
    pages: usize,
}

/// What has come due: an entry, or the transaction of one.
#[derive(Clone, Copy)]
struct Subject {
    key: DueKey,
    is_transaction: bool,
}

impl Subject {
    /// The entry's key.
    fn bytes(&self) -> Vec<u8> {
        if self.is_transaction {
            entries::transaction::encode_key(&TransactionId::of(&self.key)).to_vec()
        } else {
            entries::due::encode_key(&self.key)
        }
    }

    fn forget(&self, shared: &Shared) {
        if self.is_transaction { shared.halves.asks.forget(&self.key) } else { shared.due.forget(&self.key) }
    }
}

/// What is done with an entry.
enum Act {
    Deliver,
    /// Something about a transaction.
    Decide(Next),
    Park(String),
}

/// Why a step ended early.
enum Hitch {
    Read(ReadError),
    Append(AppendError),
}

/// The machine.
#[derive(Debug)]
pub struct Timer {
    mailboxes: Arc<[Mailbox]>,
    reading: Option<Reading>,
    looking: Option<Looking>,
    /// The transactions were looked through once.
    has_looked: bool,
    /// When outcomes are looked for again, in milliseconds since 1970.
    look_at_ms: u64,
    /// End of the last turn.
    in_flight: Lsn,
    /// What is being filled in for one entry.
    filling: WriteBatch,
    /// Those of a turn, each for one entry or more.
    batches: Vec<WriteBatch>,
    outcomes: Vec<AppendOutcome>,
    /// Questions of the last turn: they are asked when it is acknowledged, so that a verdict finds that they were.
    questions: Vec<Arc<Question>>,
    /// One of several in a batch was refused: each gets its own in the next turn.
    apart: bool,
    complained: bool,
}

impl Timer {
    /// A machine that has done nothing yet. Questions go to the mailboxes of whoever serves the connection.
    #[must_use]
    pub fn new(mailboxes: Arc<[Mailbox]>) -> Timer {
        Timer {
            mailboxes,
            reading: None,
            looking: None,
            has_looked: false,
            look_at_ms: 0,
            in_flight: Lsn::ZERO,
            filling: WriteBatch::new(),
            batches: Vec::new(),
            outcomes: Vec::new(),
            questions: Vec::new(),
            apart: false,
            complained: false,
        }
    }

    /// Does one turn of what is due at `now_ms`, in milliseconds since 1970.
    pub fn step(&mut self, shared: &Shared, now_ms: u64) -> Step {
        if shared.engine.fenced().is_some() {
            return Step::Over;
        }
        // What could not be acknowledged is not begun, and no producer is asked to decide what cannot be written.
        if shared.admission().is_err() {
            return Step::Nap(limits::DUE_NAP);
        }
        if shared.engine.watermarks().acked < self.in_flight {
            return Step::Wait(self.in_flight);
        }
        self.ask(shared);
        let step = self.read_ahead(shared, now_ms).and_then(|reading| {
            let looking = self.look_through(shared, now_ms)?;
            let step = self.turn(shared, now_ms)?;
            Ok(if let (Step::Nap(_), Some(more)) = (step, reading.or(looking)) { more } else { step })
        });
        match step {
            Ok(step) => {
                self.complained = false;
                step
            }
            Err(Hitch::Append(AppendError::Fenced(_) | AppendError::Closing)) => Step::Over,
            Err(hitch) => {
                if !self.complained {
                    self.complained = true;
                    match hitch {
                        Hitch::Read(error) => tracing::error!(%error, "what is due cannot be read; trying again"),
                        Hitch::Append(error) => tracing::warn!(%error, "what is due cannot be done now; trying again"),
                    }
                }
                Step::Nap(limits::DUE_NAP)
            }
        }
    }

    /// Reads a page of what is due soon. Says what to do about the next one, when there is one.
    fn read_ahead(&mut self, shared: &Shared, now_ms: u64) -> Result<Option<Step>, Hitch> {
        let ahead_ms = u64::try_from(limits::DUE_AHEAD.as_millis()).unwrap_or(u64::MAX);
        if self.reading.is_none() {
            let horizon_ms = shared.due.horizon_ms();
            if horizon_ms > now_ms.saturating_add(ahead_ms / 2) || shared.due.count() > limits::DUE_KEYS_MAX / 2 {
                return Ok(None);
            }
            let to_ms = now_ms.saturating_add(ahead_ms);
            shared.due.extend(to_ms);
            self.reading = Some(Reading {
                from: entries::due::first_key(horizon_ms).to_vec(),
                to: entries::due::first_key(to_ms).to_vec(),
                needs: shared.engine.watermarks().assigned,
            });
        }
        let Some(reading) = &self.reading else { return Ok(None) };
        let snapshot = shared.engine.snapshot();
        if snapshot.lsn() < reading.needs {
            return Ok(Some(Step::Wait(reading.needs)));
        }
        let page = snapshot.range(&reading.from, Some(&reading.to), limits::DUE_PAGE_ENTRIES).map_err(Hitch::Read)?;
        drop(snapshot);
        let mut keys = Vec::with_capacity(page.len());
        for (key, entry) in &page {
            match entries::due::decode_key(key) {
                Ok(key) => keys.push(key),
                Err(error) => self.park_alone(shared, key, entry, error.to_string())?,
            }
        }
        let had_room = shared.due.loaded(keys);
        let more = match (page.last(), &mut self.reading) {
            (Some((last, _)), Some(reading)) if had_room && page.len() == limits::DUE_PAGE_ENTRIES => {
                reading.from.clone_from(last);
                reading.from.push(0);
                Some(Step::Again)
            }
            _ => {
                self.reading = None;
                None
            }
        };
        Ok(more)
    }

    /// Looks at a page of the transactions: when producers are asked about those that are not decided, and which outcomes were remembered
    /// long enough. Says what to do about the next one, when there is one.
    fn look_through(&mut self, shared: &Shared, now_ms: u64) -> Result<Option<Step>, Hitch> {
        let asks = &shared.halves.asks;
        if !self.has_looked || asks.takes_more() {
            if self.looking.as_ref().is_none_or(|looking| !looking.whole) {
                self.looking = Some(Looking {
                    from: entries::transaction::PREFIX.to_vec(),
                    needs: shared.engine.watermarks().assigned,
                    whole: true,
                    pages: 0,
                });
            }
        } else if self.looking.as_ref().is_none_or(|looking| !looking.whole) && now_ms < self.look_at_ms {
            return Ok(None);
        }
        let looking = self.looking.get_or_insert_with(|| Looking {
            from: entries::transaction::PREFIX.to_vec(),
            needs: Lsn::ZERO,
            whole: false,
            pages: 0,
        });
        let snapshot = shared.engine.snapshot();
        if snapshot.lsn() < looking.needs {
            return Ok(Some(Step::Wait(looking.needs)));
        }
        let end = entries::end_of(entries::transaction::PREFIX);
        let page = snapshot.range(&looking.from, Some(&end), limits::DUE_PAGE_ENTRIES).map_err(Hitch::Read)?;
        drop(snapshot);
        let (mut batches, mut kept) = (Vec::new(), 0);
        for (key, entry) in &page {
            // What this version does not understand belongs to a later one.
            let (Ok(id), Ok(transaction)) =
                (entries::transaction::decode_key(key), entries::transaction::decode(&entry.value))
            else {
                continue;
            };
            match transaction {
                Transaction::Prepared { asks: Some(next), .. } if looking.whole => asks.loaded(id.due_at(next.at_ms)),
                Transaction::Decided { at_ms, .. } if at_ms.saturating_add(limits::OUTCOME_KEPT_MS) <= now_ms => {
                    forget(&mut batches, key);
                }
                Transaction::Decided { .. } => kept += 1,
                Transaction::Prepared { .. } | Transaction::Parked { .. } => {}
            }
        }
        looking.pages += 1;
        let is_last = page.len() < limits::DUE_PAGE_ENTRIES;
        // They are about as old as their names are.
        let is_enough = !looking.whole && batches.is_empty() && kept > 0;
        let mut more = Some(Step::Again);
        if is_last || is_enough {
            self.has_looked |= looking.whole;
            self.looking = None;
        } else if let Some((last, _)) = page.last() {
            looking.from = [last.as_slice(), &[0]].concat();
        }
        let rests = self.looking.as_mut().is_none_or(|looking| {
            let rests = !looking.whole && looking.pages == limits::OUTCOME_PAGES_MAX;
            if rests {
                looking.pages = 0;
            }
            rests
        });
        if rests {
            (more, self.look_at_ms) = (None, now_ms.saturating_add(limits::OUTCOMES_INTERVAL_MS));
        }
        if !batches.is_empty() {
            self.outcomes.clear();
            // What finds no room now is found again.
            shared.engine.append_all(&mut batches, &mut self.outcomes).map_err(Hitch::Append)?;
            if let Some(last) = self.outcomes.last() {
                self.in_flight = last.end_lsn;
                more = Some(Step::Wait(last.end_lsn));
            }
        }
        Ok(more)
    }

    /// Does the first entries that are due, as many as make a turn.
    fn turn(&mut self, shared: &Shared, now_ms: u64) -> Result<Step, Hitch> {
        let subject = |is_transaction| move |(key, end_lsn)| (Subject { key, is_transaction }, end_lsn);
        let mut due: Vec<_> = shared.due.due(now_ms, limits::DUE_PER_STEP).into_iter().map(subject(false)).collect();
        let asks = shared.halves.asks.due(now_ms, limits::DUE_PER_STEP - due.len());
        due.extend(asks.into_iter().map(subject(true)));
        if due.is_empty() {
            let first_ms = shared.due.first_ms().into_iter().chain(shared.halves.asks.first_ms()).min();
            let until =
                first_ms.map_or(limits::DUE_NAP, |first_ms| Duration::from_millis(first_ms.saturating_sub(now_ms)));
            return Ok(Step::Nap(until.min(limits::DUE_NAP)));
        }
        let snapshot = shared.engine.snapshot();
        let mut acts = Vec::with_capacity(due.len());
        // By batch: where its entries end.
        let mut ends: Vec<usize> = Vec::new();
        let apart = std::mem::take(&mut self.apart);
        let (mut unseen, mut asked) = (None, 0);
        for (subject, end_lsn) in due {
            let bytes = subject.bytes();
            match snapshot.get(&bytes).map_err(Hitch::Read)? {
                Some(entry) => {
                    let act = fill(shared, &snapshot, &mut self.filling, (subject, &bytes), &entry, now_ms)?;
                    // It was decided, or is asked about at another time.
                    if self.filling.is_empty() {
                        subject.forget(shared);
                        continue;
                    }
                    asked += usize::from(matches!(act, Act::Decide(Next { question: Some(_), .. })));
                    acts.push((subject, entry, act));
                    let bytes = self.filling.frame_bytes();
                    let mut joins = |last: &mut WriteBatch| {
                        !apart
                            && last.frame_bytes() + bytes <= limits::MERGED_BATCH_BYTES
                            && last.absorb(&mut self.filling)
                    };
                    match ends.len().checked_sub(1) {
                        Some(last) if joins(&mut self.batches[last]) => ends[last] = acts.len(),
                        _ => {
                            if self.batches.len() == ends.len() {
                                self.batches.push(WriteBatch::new());
                            }
                            std::mem::swap(&mut self.batches[ends.len()], &mut self.filling);
                            ends.push(acts.len());
                        }
                    }
                    if asked == limits::ASKED_PER_STEP {
                        break;
                    }
                }
                None if end_lsn > snapshot.lsn() => unseen = unseen.or(Some(end_lsn)),
                // Cancelled, or done and read ahead before that was seen.
                None => subject.forget(shared),
            }
        }
        drop(snapshot);
        if acts.is_empty() {
            return Ok(unseen.map_or(Step::Again, Step::Wait));
        }
        // A message must not stand in the log before its topic does.
        if shared.state.is_urgent() && shared.state.flush(&shared.engine).names.is_err() {
            return Ok(Step::Nap(limits::DUE_NAP));
        }
        self.outcomes.clear();
        let appended = shared.engine.append_all(&mut self.batches[..ends.len()], &mut self.outcomes);
        let mut done = 0;
        for (outcome, end) in self.outcomes.iter().zip(&ends) {
            self.in_flight = outcome.end_lsn;
            for (subject, entry, act) in &acts[done..*end] {
                subject.forget(shared);
                match act {
                    Act::Deliver => shared.counters.messages_delivered.add(1),
                    Act::Decide(next) => {
                        Timer::decided(shared, next, outcome.end_lsn);
                        self.questions.extend(next.question.clone().map(Arc::new));
                    }
                    Act::Park(reason) => parked_one(shared, &subject.bytes(), entry, reason),
                }
            }
            done = *end;
        }
        let refused = acts.get(done);
        let is_one_of_several = ends.get(self.outcomes.len()).is_some_and(|end| end - done > 1);
        match (appended, refused) {
            (Ok(_), None) => Ok(Step::Wait(self.in_flight)),
            // The buffer is full.
            (Ok(0), Some(_)) => Ok(Step::Nap(limits::DUE_NAP / 20)),
            (Ok(_), Some(_)) => Ok(Step::Wait(self.in_flight)),
            (
                Err(
                    AppendError::Rejected(_)
                    | AppendError::TargetGone(_)
                    | AppendError::TooLarge(_)
                    | AppendError::Dropped,
                ),
                _,
            ) if is_one_of_several => {
                self.apart = true;
                Ok(Step::Again)
            }
            // It is not what was read any more: somebody else has dealt with it.
            (Err(AppendError::Rejected(Rejection { index: 0, .. })), Some((subject, ..))) => {
                subject.forget(shared);
                Ok(Step::Again)
            }
            // What it is about changed. Look again when that can be seen.
            (Err(AppendError::Rejected(rejection)), _) => Ok(Step::Wait(rejection.rests_on)),
            (Err(error @ (AppendError::TargetGone(_) | AppendError::TooLarge(_))), Some((subject, entry, _))) => {
                self.park_alone(shared, &subject.bytes(), entry, error.to_string())?;
                subject.forget(shared);
                Ok(Step::Again)
            }
            (Err(error), _) => Err(Hitch::Append(error)),
        }
    }

    /// What was filled in has its place in the log.
    fn decided(shared: &Shared, next: &Next, end_lsn: Lsn) {
        if let Some(asks) = next.asks {
            shared.halves.asks.assigned([], [(asks, end_lsn)]);
        }
        if next.parked {
            shared.counters.transactions_parked.add(1);
        }
    }

    /// Asks what the last turn had to ask.
    fn ask(&mut self, shared: &Shared) {
        for question in self.questions.drain(..) {
            shared.counters.transactions_asked.add(1);
            for connection in &question.to {
                if let Some(mailbox) = self.mailboxes.get(usize::from(connection.worker)) {
                    mailbox.post(Mail::Ask { connection: *connection, question: question.clone() });
                }
            }
        }
    }

    /// Parks an entry by a batch of its own: without what it refers to, if that is what is gone.
    fn park_alone(&mut self, shared: &Shared, key: &[u8], entry: &TableEntry, reason: String) -> Result<(), Hitch> {
        let without = TableEntry { target: None, ..entry.clone() };
        for entry in [entry, &without] {
            let mut batch = WriteBatch::new();
            fill_park(shared, &mut batch, key, entry, &reason);
            self.outcomes.clear();
            match shared.engine.append_all(std::slice::from_mut(&mut batch), &mut self.outcomes) {
                Ok(0) => return Err(Hitch::Append(AppendError::Full { waiting: 0, max: 0 })),
                Ok(_) => {
                    self.in_flight = self.outcomes[0].end_lsn;
                    parked_one(shared, key, entry, &reason);
                    return Ok(());
                }
                Err(AppendError::Rejected(_)) => return Ok(()),
                Err(AppendError::TargetGone(_)) => {}
                Err(error) => return Err(Hitch::Append(error)),
            }
        }
        Ok(())
    }
}

/// Adds the end of an entry to the last of these batches, or to a new one.
fn forget(batches: &mut Vec<WriteBatch>, key: &[u8]) {
    if batches.last().is_none_or(|last| last.frame_bytes() + 256 > limits::MERGED_BATCH_BYTES) {
        batches.push(WriteBatch::new());
    }
    let deleted = batches.last_mut().map(|last| last.delete(key));
    debug_assert!(matches!(deleted, Some(Ok(_))), "a small batch with a good key");
}

/// Fills the batch that does what an entry asks for, or parks it. It is empty when there is nothing to do about a transaction now.
fn fill(
    shared: &Shared,
    snapshot: &Snapshot,
    batch: &mut WriteBatch,
    (subject, bytes): (Subject, &[u8]),
    entry: &TableEntry,
    now_ms: u64,
) -> Result<Act, Hitch> {
    batch.clear();
    let key = &subject.key;
    if subject.is_transaction {
        let next = transactions::ask(shared, batch, *key, entry, now_ms);
        return Ok(next.map_or_else(
            |reason| {
                fill_park(shared, batch, bytes, entry, &reason);
                Act::Park(reason)
            },
            Act::Decide,
        ));
    }
    // The first thing that the batch requires, and the first that it does: see what a rejection means.
    let mut remove = || {
        batch.require_value(bytes, &entry.value)?;
        batch.delete(bytes)
    };
    let removed = remove().map_err(|error| error.to_string());
    let due = removed.and_then(|_| entries::due::decode(&entry.value).map_err(|error| error.to_string()));
    let transaction = match &due {
        Ok(Due::Ask { id, .. }) => snapshot.get(&entries::transaction::encode_key(id)).map_err(Hitch::Read)?,
        _ => None,
    };
    let done = due.and_then(|due| match due {
        Due::Deliver { record_bytes, timed, place } => {
            let left_timer_ms = timed.then_some(now_ms);
            deliver(shared, batch, entry.target, record_bytes, &place, left_timer_ms).map(|()| Act::Deliver)
        }
        Due::Ask { checks, .. } => match &transaction {
            Some(entry) => transactions::ask_by_entry(shared, batch, *key, entry, checks, now_ms).map(Act::Decide),
            None => Ok(Act::Decide(Next::default())),
        },
        Due::Forget { id } => transactions::forget(batch, &id).map(Act::Decide),
    });
    Ok(done.unwrap_or_else(|reason| {
        fill_park(shared, batch, bytes, entry, &reason);
        Act::Park(reason)
    }))
}

/// Adds the link that puts a message where it belongs.
fn deliver(
    shared: &Shared,
    batch: &mut WriteBatch,
    target: Option<Lsn>,
    record_bytes: u32,
    place: &Place,
    left_timer_ms: Option<u64>,
) -> Result<(), String> {
    let target = target.ok_or("it refers to no message")?;
    let topic = shared.state.topics.get(&place.topic).ok_or_else(|| format!("topic {} does not exist", place.topic))?;
    // A topic may have fewer queues than when the message was sent.
    let number = place.queue % topic.config.queues().max(1);
    let queue = topic.queue(&shared.engine, number).map_err(|error| error.to_string())?;
    let queue = queue.ok_or_else(|| format!("topic {} has no queue", place.topic))?;
    let told;
    let attributes = match left_timer_ms {
        Some(now_ms) => {
            told = stored::with_number(&place.attributes, "TIMER_DEQUEUE_MS", now_ms);
            told.as_ref().ok_or("its attributes are of another version")?
        }
        None => &place.attributes,
    };
    let keys: Vec<&[u8]> = place.keys.iter().map(|key| &**key).collect();
    let target = Target::Message(shared.engine.reference_to(target, record_bytes));
    let link = Link { queue, target, tag: place.tag, keys: &keys, attributes };
    batch.link(&link).map(drop).map_err(|error| error.to_string())
}

/// Fills the batch that parks an entry.
fn fill_park(shared: &Shared, batch: &mut WriteBatch, key: &[u8], entry: &TableEntry, reason: &str) {
    batch.clear();
    let (parked_key, value) = parked::encode(key, &entry.value, reason);
    // A table entry does not say how long the record is that it refers to.
    let target = entry.target.map(|lsn| Target::Message(shared.engine.reference_to(lsn, 0)));
    let mut fill = || {
        batch.put(&Put { key: &parked_key, value: &value, target })?;
        batch.require_value(key, &entry.value)?;
        batch.delete(key)
    };
    if let Err(error) = fill() {
        // Only an entry that no version of this broker wrote is too large for that.
        tracing::error!(key = %key.escape_ascii(), %error, "an entry cannot be parked");
    }
}

fn parked_one(shared: &Shared, key: &[u8], entry: &TableEntry, reason: &str) {
    shared.counters.entries_parked.add(1);
    let message = entry.target.map_or_else(|| "none".to_owned(), |lsn| lsn.to_string());
    tracing::error!(key = %key.escape_ascii(), message, reason, "what was due cannot be done; its entry is parked");
}

/// Starts the timer's thread; it ends when the sender is dropped.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(shared: Arc<Shared>, mailboxes: Arc<[Mailbox]>) -> std::io::Result<(Sender<()>, JoinHandle<()>)> {
    let (stop, stopped) = channel::<()>();
    let body = move || {
        let mut timer = Timer::new(mailboxes);
        loop {
            let nap = match timer.step(&shared, shared.engine.clock().wall_ms()) {
                Step::Again => Duration::ZERO,
                Step::Wait(lsn) => {
                    // A wait that failed shows at the next step.
                    drop(shared.engine.wait(Watermark::Acked, lsn, Some(limits::DUE_NAP)));
                    Duration::ZERO
                }
                Step::Nap(nap) => nap,
                Step::Over => limits::OFFSETS_INTERVAL,
            };
            if stopped.recv_timeout(nap) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("timer".to_owned()).spawn(body)?;
    Ok((stop, thread))
}
