//! The plain model: what the log must hold, as ordered lists and maps.
//!
//! A batch is remembered as it was accepted. *Head* is what all accepted batches make of queues and table, *visible* what the acknowledged
//! ones do. A power failure takes batches from the end, never one from the middle and never half of one; then both views are made anew.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use anchorlog_engine::{AppendOutcome, Lsn};

/// Why the engine and the model disagree, or an answer that is no failure.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// Ends the run with what was expected and what was found.
macro_rules! demand {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(format!($($what)+));
        }
    };
}
pub(crate) use demand;

/// What a message says; everything about it follows from these numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) number: u64,
    pub(crate) len: usize,
}

impl Content {
    pub(crate) fn payload(self) -> Vec<u8> {
        format!("{} ", self.number).bytes().cycle().take(self.len).collect()
    }

    pub(crate) fn tag(self) -> u32 {
        u32::try_from(self.number % 5).expect("it is below five")
    }

    /// None, one that others have too, or that and one of its own.
    pub(crate) fn keys(self) -> Vec<Vec<u8>> {
        let own = [format!("group-{}", self.number % 7), format!("message-{}", self.number)];
        own.into_iter()
            .map(String::into_bytes)
            .take(usize::try_from(self.number % 3).expect("it is below three"))
            .collect()
    }

    pub(crate) fn attributes(self) -> Vec<u8> {
        let len = usize::try_from(self.number * 7 % 40).expect("it is below forty");
        format!("a{} ", self.number).bytes().cycle().take(len).collect()
    }
}

/// The message that a link or an entry refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    Stored(Lsn),
    /// An earlier operation of the same batch.
    Record(usize),
}

/// One operation of a batch. Queues go by their number in the run.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Append { queue: usize, content: Content },
    Link { queue: usize, target: Aim, content: Content },
    Put { key: Vec<u8>, value: Vec<u8>, target: Option<Aim> },
    Delete { key: Vec<u8> },
    Drop { queue: usize },
}

/// A precondition.
#[derive(Clone, Debug)]
pub(crate) enum Require {
    Absent(Vec<u8>),
    Value(Vec<u8>, Vec<u8>),
    Next(usize, u64),
}

/// A batch as it is asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spec {
    pub(crate) ops: Vec<Op>,
    pub(crate) requires: Vec<Require>,
}

/// A message in its queue.
#[derive(Debug)]
pub(crate) struct Msg {
    pub(crate) lsn: Lsn,
    pub(crate) queue: usize,
    pub(crate) incarnation: u32,
    pub(crate) offset: u64,
    pub(crate) store_time_ms: u64,
    /// Tag, keys and attributes.
    pub(crate) content: Content,
    /// Where the payload stands, and what it is.
    pub(crate) origin: Lsn,
    pub(crate) body: Content,
}

/// A table entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) value: Vec<u8>,
    pub(crate) target: Option<Lsn>,
}

enum Change {
    Message(Rc<Msg>),
    Put(Vec<u8>, Entry),
    Delete(Vec<u8>),
    Drop(usize),
}

/// A batch as it was accepted.
pub(crate) struct Batch {
    pub(crate) lsn: Lsn,
    pub(crate) end_lsn: Lsn,
    store_time_ms: u64,
    pub(crate) spec: Spec,
    places: Vec<Lsn>,
    changes: Vec<Change>,
}

impl Batch {
    /// Where its records stand.
    pub(crate) fn places(&self) -> impl Iterator<Item = Lsn> + '_ {
        self.places.iter().copied()
    }

    /// The message that one of its records is.
    pub(crate) fn message_at(&self, lsn: Lsn) -> Option<&Rc<Msg>> {
        self.changes.iter().find_map(|change| match change {
            Change::Message(message) if message.lsn == lsn => Some(message),
            _ => None,
        })
    }
}

/// One queue, in its present incarnation.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueView {
    pub(crate) incarnation: u32,
    /// By offset, released ones included.
    pub(crate) messages: Vec<Rc<Msg>>,
}

/// Queues and table as some prefix of the log makes them.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) queues: Vec<QueueView>,
    pub(crate) table: BTreeMap<Vec<u8>, Entry>,
    /// Every message, those of dropped queues included.
    pub(crate) by_lsn: BTreeMap<Lsn, Rc<Msg>>,
}

impl View {
    fn new(queue_count: usize) -> View {
        View { queues: vec![QueueView::default(); queue_count], ..View::default() }
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Message(message) => {
                self.queues[message.queue].messages.push(Rc::clone(message));
                self.by_lsn.insert(message.lsn, Rc::clone(message));
            }
            Change::Put(key, entry) => drop(self.table.insert(key.clone(), entry.clone())),
            Change::Delete(key) => drop(self.table.remove(key)),
            Change::Drop(queue) => {
                let queue = &mut self.queues[*queue];
                *queue = QueueView { incarnation: queue.incarnation + 1, messages: Vec::new() };
            }
        }
    }

    /// What must be readable wherever the log begins: messages that table entries refer to, that links at or above `start` lead to, and
    /// what such messages lead to themselves.
    pub(crate) fn referred(&self, start: Lsn) -> BTreeSet<Lsn> {
        let entries = self.table.values().filter_map(|entry| entry.target);
        let links = self.by_lsn.range(start..).map(|(_, message)| message.origin);
        let mut all: BTreeSet<Lsn> = entries.chain(links).collect();
        let origins: Vec<Lsn> = all.iter().filter_map(|lsn| Some(self.by_lsn.get(lsn)?.origin)).collect();
        all.extend(origins);
        all
    }

    /// Who needs the message at `lsn` in a log that begins at `start`, for people.
    pub(crate) fn referrers(&self, lsn: Lsn, start: Lsn) -> String {
        let leads_here = |at: &Lsn| self.by_lsn.get(at).is_some_and(|message| message.origin == lsn);
        let entries =
            self.table.iter().filter(|(_, entry)| entry.target.is_some_and(|at| at == lsn || leads_here(&at)));
        let entries = entries.map(|(key, entry)| format!("{} to {:?}", String::from_utf8_lossy(key), entry.target));
        let links = self.by_lsn.range(start..).filter(|(_, message)| message.origin == lsn && message.lsn != lsn);
        let is_live = |message: &Msg| self.queues[message.queue].incarnation == message.incarnation;
        let links = links.map(|(at, message)| format!("the link at {at}, its queue is live: {}", is_live(message)));
        entries.chain(links).collect::<Vec<String>>().join(", ")
    }

    /// Offsets of a queue in a log that begins at `start`, if nothing before it survives.
    pub(crate) fn range(&self, queue: usize, start: Lsn) -> (u64, u64) {
        let messages = &self.queues[queue].messages;
        let min = messages.partition_point(|message| message.lsn < start);
        (min as u64, messages.len() as u64)
    }
}

/// Whether a batch will be taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Taken,
    /// The precondition of this number does not hold.
    Rejected(usize),
}

/// The log as it must be.
pub(crate) struct Model {
    queue_count: usize,
    pub(crate) batches: Vec<Batch>,
    pub(crate) head: View,
    pub(crate) visible: View,
    /// Batches that are in the visible view.
    visible_count: usize,
    /// Everything below must survive whatever happens.
    pub(crate) promised: Lsn,
    /// What readers were shown ends here.
    pub(crate) shown: Lsn,
    pub(crate) store_time_ms: u64,
}

impl Model {
    pub(crate) fn new(queue_count: usize) -> Model {
        Model {
            queue_count,
            batches: Vec::new(),
            head: View::new(queue_count),
            visible: View::new(queue_count),
            visible_count: 0,
            promised: Lsn::ZERO,
            shown: Lsn::ZERO,
            store_time_ms: 0,
        }
    }

    /// Judges preconditions against everything that has a place.
    pub(crate) fn judge(&self, spec: &Spec) -> Verdict {
        let holds = |require: &Require| match require {
            Require::Absent(key) => !self.head.table.contains_key(key),
            Require::Value(key, value) => self.head.table.get(key).is_some_and(|entry| entry.value == *value),
            Require::Next(queue, next) => self.head.queues[*queue].messages.len() as u64 == *next,
        };
        spec.requires.iter().position(|require| !holds(require)).map_or(Verdict::Taken, Verdict::Rejected)
    }

    /// Takes over an accepted batch, and checks the places that it was given.
    pub(crate) fn accept(&mut self, spec: Spec, outcome: &AppendOutcome) -> Outcome {
        let end_before = self.batches.last().map_or(Lsn::ZERO, |batch| batch.end_lsn);
        demand!(outcome.lsn >= end_before, "a batch at {} overlaps the one that ends at {end_before}", outcome.lsn);
        let positions: Vec<_> = outcome.positions().collect();
        demand!(positions.len() == spec.ops.len(), "{} positions for {} operations", positions.len(), spec.ops.len());
        let mut changes = Vec::new();
        let mut last = outcome.lsn;
        for (op, position) in spec.ops.iter().zip(&positions) {
            demand!(position.lsn > last && position.lsn < outcome.end_lsn, "{position:?} lies outside {outcome:?}");
            last = position.lsn;
            let stored = |aim: Aim| match aim {
                Aim::Stored(lsn) => lsn,
                Aim::Record(index) => positions[index].lsn,
            };
            let incarnations: Vec<u32> = self.head.queues.iter().map(|queue| queue.incarnation).collect();
            let message = |queue: usize, content: Content, origin: Lsn, body: Content| Msg {
                incarnation: incarnations[queue],
                lsn: position.lsn,
                queue,
                offset: position.queue_offset.0,
                store_time_ms: outcome.store_time_ms,
                content,
                origin,
                body,
            };
            let change = match op {
                Op::Append { queue, content } => {
                    Change::Message(Rc::new(message(*queue, *content, position.lsn, *content)))
                }
                Op::Link { queue, target, content } => {
                    let target =
                        self.head.by_lsn.get(&stored(*target)).ok_or("a link to what is not there was taken")?;
                    Change::Message(Rc::new(message(*queue, *content, target.origin, target.body)))
                }
                Op::Put { key, value, target } => {
                    Change::Put(key.clone(), Entry { value: value.clone(), target: target.map(stored) })
                }
                Op::Delete { key } => Change::Delete(key.clone()),
                Op::Drop { queue } => Change::Drop(*queue),
            };
            if let Change::Message(message) = &change {
                let due = self.head.queues[message.queue].messages.len() as u64;
                demand!(message.offset == due, "queue {} gave offset {}, due was {due}", message.queue, message.offset);
            }
            self.head.apply(&change);
            changes.push(change);
        }
        demand!(
            outcome.store_time_ms >= self.store_time_ms,
            "store time ran back from {} to {}",
            self.store_time_ms,
            outcome.store_time_ms
        );
        self.store_time_ms = outcome.store_time_ms;
        let AppendOutcome { lsn, end_lsn, store_time_ms, .. } = *outcome;
        let places = positions.iter().map(|position| position.lsn).collect();
        self.batches.push(Batch { lsn, end_lsn, store_time_ms, spec, places, changes });
        Ok(())
    }

    /// Where the last batch ends that was stored at this time or before.
    pub(crate) fn end_before(&self, store_time_ms: u64) -> Lsn {
        let count = self.batches.partition_point(|batch| batch.store_time_ms <= store_time_ms);
        count.checked_sub(1).map_or(Lsn::ZERO, |last| self.batches[last].end_lsn)
    }

    /// Makes visible what is acknowledged.
    pub(crate) fn acknowledge(&mut self, acked: Lsn) {
        while let Some(batch) = self.batches.get(self.visible_count).filter(|batch| batch.end_lsn <= acked) {
            batch.changes.iter().for_each(|change| self.visible.apply(change));
            self.visible_count += 1;
        }
    }

    /// Messages below `start` that readers and writers can rely on, whichever of the assigned changes survive.
    pub(crate) fn survivors(&self, start: Lsn) -> BTreeSet<Lsn> {
        let mut all = self.visible.referred(start);
        all.extend(self.head.referred(start));
        all.retain(|lsn| *lsn < start);
        all
    }

    /// The log was found to end at `end`: what lies behind it is gone, and is returned.
    pub(crate) fn cut(&mut self, end: Lsn) -> Outcome<Vec<Spec>> {
        let kept = self.batches.partition_point(|batch| batch.end_lsn <= end);
        if let Some(torn) = self.batches.get(kept) {
            demand!(torn.lsn >= end, "the log ends at {end}, inside the batch from {} to {}", torn.lsn, torn.end_lsn);
            demand!(torn.end_lsn > self.promised, "promised to {} and lost from {}", self.promised, torn.lsn);
        }
        let lost = self.batches.split_off(kept);
        self.head = View::new(self.queue_count);
        self.visible = View::new(self.queue_count);
        self.visible_count = 0;
        for change in self.batches.iter().flat_map(|batch| &batch.changes) {
            self.head.apply(change);
        }
        self.acknowledge(Lsn::MAX);
        self.store_time_ms = self.batches.last().map_or(0, |batch| batch.store_time_ms);
        Ok(lost.into_iter().map(|batch| batch.spec).collect())
    }
}
