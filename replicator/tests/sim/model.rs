//! What must hold, whatever happens: a list of what was promised, and what nodes are known to have on their disks.
//!
//! What an acknowledgement is worth:
//! 1. With `n` copies: the disks of `n` nodes, whichever. Under asynchronous flush the leader's part is its memory: the disks of `n - 1`
//!    others. It outlives everything that is done to the cluster.
//! 2. From a leader that acknowledges alone, by policy or because it has degraded: that leader's disk; under asynchronous flush nothing but
//!    its memory. It outlives every power failure of the first kind and every promotion that is not an unsafe one; a promotion that is, and
//!    a leader's end of the second kind, may lose it, and nothing else.

use std::collections::BTreeMap;

use anchorlog_engine::epoch::EpochHistory;
use anchorlog_engine::{Epoch, Lsn};

use crate::network::NODES;
use crate::plan::Plan;

/// Why the cluster and the model disagree.
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

/// A message that was appended: where, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) number: u64,
    pub(crate) lsn: Lsn,
    /// Where its one record is.
    pub(crate) record: Lsn,
    pub(crate) end: Lsn,
    pub(crate) epoch: Epoch,
    pub(crate) by: usize,
    /// Who promised it alone, if somebody did.
    pub(crate) alone: Option<usize>,
}

/// What a node's disk is known to hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct OnDisk {
    pub(crate) durable: Lsn,
    pub(crate) history: EpochHistory,
}

impl OnDisk {
    /// The same epoch at the same place is the same bytes.
    pub(crate) fn holds(&self, placed: &Placed) -> bool {
        self.durable >= placed.end && self.history.at(placed.lsn) == Some(placed.epoch)
    }
}

/// The log of whoever leads in the highest term, as it was when that began.
#[derive(Clone, Debug, Default)]
struct Top {
    epoch: Epoch,
    end: Lsn,
    history: EpochHistory,
}

impl Top {
    fn has(&self, placed: &Placed) -> bool {
        let is_old = placed.end <= self.end && self.history.at(placed.lsn) == Some(placed.epoch);
        placed.epoch == self.epoch || is_old
    }
}

pub(crate) struct Model {
    plan: Plan,
    /// Appended and not acknowledged, as far as anybody knows; or acknowledged, and given up since.
    pub(crate) open: Vec<Placed>,
    /// Acknowledged, or shown to a reader.
    pub(crate) promised: BTreeMap<Lsn, Placed>,
    pub(crate) disks: [OnDisk; NODES],
    /// Who has acknowledged in which epoch.
    leaders: BTreeMap<Epoch, usize>,
    /// Who has led in which term, or has asked to.
    terms: BTreeMap<u32, usize>,
    top: Top,
    /// Leaders that may have acknowledged alone since the last look, and those that ended so: by their epochs.
    alone: BTreeMap<Epoch, usize>,
    ended_alone: BTreeMap<Epoch, usize>,
    /// Messages promised by their leader alone, and of those the ones that were lost.
    pub(crate) counts: (u64, u64),
}

impl Model {
    pub(crate) fn new(plan: Plan) -> Model {
        Model {
            plan,
            open: Vec::new(),
            promised: BTreeMap::new(),
            disks: Default::default(),
            leaders: BTreeMap::new(),
            terms: BTreeMap::new(),
            top: Top::default(),
            alone: BTreeMap::new(),
            ended_alone: BTreeMap::new(),
            counts: (0, 0),
        }
    }

    /// The highest term that anybody has led.
    pub(crate) fn term(&self) -> u32 {
        self.top.epoch.term
    }

    /// A leader may have acknowledged alone since the last look; `ends`: it is about to end.
    pub(crate) fn was_alone(&mut self, node: usize, epoch: Epoch, ends: bool) {
        let leaders = if ends { &mut self.ended_alone } else { &mut self.alone };
        leaders.insert(epoch, node);
    }

    /// Who may have acknowledged a message alone: whoever leads with the log that it is in, written in whichever epoch.
    fn acknowledges_alone(&self, placed: &Placed) -> Option<usize> {
        let leaders = self.alone.range(placed.epoch..).chain(self.ended_alone.range(placed.epoch..));
        let holds = |node: usize| self.disks[node].holds(placed);
        leaders.map(|(epoch, node)| (holds(*node), *epoch, *node)).max().map(|(.., node)| node)
    }

    /// Everybody was looked at.
    pub(crate) fn looked(&mut self) {
        self.alone.clear();
    }

    /// A node shows, or acknowledges, its log up to `acked`; `history` is of its log.
    pub(crate) fn shown(&mut self, node: usize, leads: bool, acked: Lsn, history: &EpochHistory) -> Outcome<u64> {
        let mut count = 0;
        for mut placed in std::mem::take(&mut self.open) {
            if placed.end > acked || history.at(placed.lsn) != Some(placed.epoch) {
                self.open.push(placed);
                continue;
            }
            placed.alone = self.acknowledges_alone(&placed);
            // Who leads on in ignorance of an unsafe promotion acknowledges what is given up already.
            if placed.alone.is_some() && !self.top.has(&placed) {
                self.open.push(placed);
                continue;
            }
            self.check_disks(node, &placed)?;
            if leads {
                let leader = *self.leaders.entry(placed.epoch).or_insert(placed.by);
                demand!(leader == placed.by, "nodes {leader} and {} acknowledge in epoch {}", placed.by, placed.epoch);
            }
            count += 1;
            self.counts.0 += u64::from(placed.alone.is_some());
            self.promised.insert(placed.lsn, placed);
        }
        Ok(count)
    }

    fn check_disks(&self, node: usize, placed: &Placed) -> Outcome {
        let Placed { number, lsn, by, alone, .. } = *placed;
        let holders: Vec<usize> = (0..NODES).filter(|node| self.disks[*node].holds(placed)).collect();
        let copies = usize::try_from(self.plan.copies()).unwrap();
        let (is_kept, wanted) = match (alone, self.plan.is_sync()) {
            (Some(leader), true) => (holders.contains(&leader), format!("that of {leader}")),
            (Some(_), false) => (true, String::new()),
            (None, true) => (holders.len() >= copies, format!("{copies}")),
            (None, false) => {
                let others = holders.iter().filter(|node| **node != by).count();
                (others >= copies - 1, format!("{} beside its leader's", copies - 1))
            }
        };
        demand!(is_kept, "node {node} promises message {number} at {lsn} of {by}: disks {holders:?}, wanted {wanted}");
        Ok(())
    }

    /// The log of a node begins at `start`: what was promised below is not wanted any more.
    pub(crate) fn released(&mut self, start: Lsn) {
        self.promised.retain(|lsn, _| *lsn >= start);
    }

    /// A node leads in a term, or asks to: nobody else ever does.
    pub(crate) fn claims(&mut self, node: usize, term: u32) -> Outcome {
        let first = *self.terms.entry(term).or_insert(node);
        demand!(first == node, "term {term} is that of node {first}, and of node {node}");
        Ok(())
    }

    /// A node leads with this log: it must hold everything that was promised. One that was superseded and does not know it yet need not: it
    /// cannot acknowledge anything. `unsafely`: somebody said that what leaders acknowledged alone may be lost.
    pub(crate) fn leads(
        &mut self,
        node: usize,
        epoch: Epoch,
        end: Lsn,
        history: &EpochHistory,
        unsafely: bool,
    ) -> Outcome {
        self.claims(node, epoch.term)?;
        if epoch.term < self.top.epoch.term {
            return Ok(());
        }
        self.top = Top { epoch, end, history: history.clone() };
        let lacks: Vec<Placed> = self.promised.values().copied().filter(|placed| !self.top.has(placed)).collect();
        for placed in lacks {
            let is_named = unsafely && placed.alone.is_some();
            // Promised from memory alone, and gone with that: who got it in time need not have been asked.
            let is_gone = !self.plan.is_sync() && placed.alone.is_some_and(|by| !self.disks[by].holds(&placed));
            demand!(is_named || is_gone, "node {node} leads with a log to {end} {history:?} that lacks {placed:?}");
            self.give_up(placed);
        }
        // What another one promised alone is this one's promise now.
        let top = &self.top;
        let taken_over = self.promised.values_mut().filter(|placed| placed.alone.is_some() && top.has(placed));
        taken_over.for_each(|placed| placed.alone = Some(node));
        Ok(())
    }

    /// What comes again all the same is promised again.
    fn give_up(&mut self, placed: Placed) {
        self.counts.1 += 1;
        self.promised.remove(&placed.lsn);
        self.open.push(placed);
    }

    /// The process of a node ends, and its memory is gone.
    pub(crate) fn forgets(&mut self, node: usize) {
        if self.plan.is_sync() {
            return;
        }
        let is_gone = |placed: &&Placed| placed.alone == Some(node) && !self.disks[node].holds(placed);
        let gone: Vec<Placed> = self.promised.values().filter(is_gone).copied().collect();
        gone.into_iter().for_each(|placed| self.give_up(placed));
    }

    /// A node begins anew, and its log is kept aside. Where nobody ever acknowledges alone no log parts so early.
    pub(crate) fn begins_anew(&mut self, node: usize) -> Outcome {
        if self.plan.may_be_alone() {
            self.disks[node] = OnDisk::default();
            return Ok(());
        }
        self.cuts(node, Lsn::ZERO)
    }

    /// A node cuts its log.
    pub(crate) fn cuts(&mut self, node: usize, at: Lsn) -> Outcome {
        let disk = &mut self.disks[node];
        let lost = self.promised.values().find(|placed| placed.end > at && disk.holds(placed));
        demand!(lost.is_none(), "node {node} cuts at {at} what was promised: {lost:?}");
        disk.durable = disk.durable.min(at);
        Ok(())
    }

    /// A node's log was opened again, up to `end`.
    pub(crate) fn reopened(&mut self, node: usize, end: Lsn, history: &EpochHistory) -> Outcome {
        let known = self.disks[node].durable;
        demand!(end >= known, "node {node} called its log durable up to {known}, and opens it up to {end}");
        self.knows(node, end, history);
        Ok(())
    }

    /// A node says how far its log is durable.
    pub(crate) fn knows(&mut self, node: usize, durable: Lsn, history: &EpochHistory) {
        let disk = &mut self.disks[node];
        disk.durable = durable;
        if disk.history != *history {
            disk.history = history.clone();
        }
    }
}
