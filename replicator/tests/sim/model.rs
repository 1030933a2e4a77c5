//! What must hold, whatever happens: a list of what was promised, and what nodes are known to have on their disks.

use std::collections::BTreeMap;

use anchorlog_engine::epoch::EpochHistory;
use anchorlog_engine::{Epoch, Lsn};

use crate::network::NODES;

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

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) copies: usize,
    /// Appended and not acknowledged, as far as anybody knows.
    pub(crate) open: Vec<Placed>,
    /// Acknowledged, or shown to a reader.
    pub(crate) promised: BTreeMap<Lsn, Placed>,
    pub(crate) disks: [OnDisk; NODES],
    /// Who has acknowledged in which epoch.
    pub(crate) leaders: BTreeMap<Epoch, usize>,
    /// The highest term that anybody has led.
    pub(crate) term: u32,
}

impl Model {
    /// A node shows, or acknowledges, its log up to `acked`; `history` is of its log.
    pub(crate) fn shown(&mut self, node: usize, leads: bool, acked: Lsn, history: &EpochHistory) -> Outcome<u64> {
        let is_shown = |placed: &Placed| placed.end <= acked && history.at(placed.lsn) == Some(placed.epoch);
        let found: Vec<Placed> = self.open.iter().copied().filter(is_shown).collect();
        self.open.retain(|placed| !is_shown(placed));
        for placed in &found {
            let holders = (0..NODES).filter(|node| self.disks[*node].holds(placed)).count();
            demand!(
                holders >= self.copies,
                "node {node} promises message {} at {}, which {holders} of {} disks hold",
                placed.number,
                placed.lsn,
                self.copies
            );
            if leads {
                let leader = *self.leaders.entry(placed.epoch).or_insert(placed.by);
                demand!(leader == placed.by, "nodes {leader} and {} acknowledge in epoch {}", placed.by, placed.epoch);
            }
            self.promised.insert(placed.lsn, *placed);
        }
        Ok(found.len() as u64)
    }

    /// The log of a node begins at `start`: what was promised below is not wanted any more.
    pub(crate) fn released(&mut self, start: Lsn) {
        self.promised.retain(|lsn, _| *lsn >= start);
    }

    /// A node leads with this log: it must hold everything that was promised. One that was superseded and does not know it yet need not: it
    /// cannot acknowledge anything.
    pub(crate) fn leads(&mut self, node: usize, end: Lsn, history: &EpochHistory) -> Outcome {
        let term = history.last().map_or(0, |last| last.epoch.term);
        if term < self.term {
            return Ok(());
        }
        self.term = term;
        for placed in self.promised.values() {
            let is_there = placed.end <= end && history.at(placed.lsn) == Some(placed.epoch);
            demand!(is_there, "node {node} leads with a log to {end} {history:?} that lacks {placed:?}");
        }
        Ok(())
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
