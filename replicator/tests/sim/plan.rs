//! What differs from seed to seed before anything happens: what an acknowledgement waits for, on how many machines, and whether the
//! members stay the same.

use std::time::Duration;

use anchorlog_engine::Flush;
use anchorlog_engine::io::sim::Seeded;
use anchorlog_replicator::{Fault, OnMissing, Policy};

use crate::world::Tooth;

/// One run's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) steps: usize,
    pub(crate) policy: Policy,
    pub(crate) flush: Flush,
    /// The last node comes and goes as a member.
    pub(crate) changes_members: bool,
    /// It begins as one.
    pub(crate) begins_with_all: bool,
}

const LATER: Flush = Flush::Async { interval: Duration::from_millis(60), bytes: 32 << 10 };

impl Plan {
    pub(crate) fn of(seed: u64, tooth: Option<Tooth>) -> Plan {
        let steps = 800 + usize::try_from(seed % 5).unwrap() * 200;
        let copies = if seed % 3 == 2 { 3 } else { 2 };
        let sync = |copies, on_missing| Policy::Sync { copies, on_missing };
        let policy = sync(copies, OnMissing::Refuse);
        let plain = Plan { steps, policy, flush: Flush::Sync, changes_members: false, begins_with_all: true };
        let policy = sync(2, OnMissing::Refuse);
        match tooth {
            None => {}
            Some(Tooth::FormerCounts) => return Plan { policy, flush: LATER, ..plain },
            Some(Tooth::UnsafeUnsaid) => return Plan { policy: sync(2, OnMissing::Degrade), ..plain },
            Some(Tooth::Replicator(Fault::MembersAtOnce)) => {
                return Plan { policy, changes_members: true, begins_with_all: seed.is_multiple_of(2), ..plain };
            }
            Some(_) => return plain,
        }
        let mut draws = Seeded::new(seed, 5);
        let policy = match draws.below(10) {
            0..6 => sync(copies, OnMissing::Refuse),
            6..8 => sync(copies, OnMissing::Degrade),
            _ => Policy::Async,
        };
        let flush = if draws.chance(3) { LATER } else { Flush::Sync };
        // As many as an acknowledgement needs are always there.
        let changes_members = policy.followers() < 2 && draws.chance(3);
        Plan { steps, policy, flush, changes_members, begins_with_all: !changes_members || draws.chance(4) }
    }

    /// Copies that an acknowledgement stands for, the leader's included.
    pub(crate) fn copies(&self) -> u32 {
        self.policy.followers() + 1
    }

    pub(crate) fn is_sync(&self) -> bool {
        self.flush == Flush::Sync
    }

    /// Whether a leader may acknowledge alone, and what it so acknowledged goes with it.
    pub(crate) fn may_be_alone(&self) -> bool {
        matches!(self.policy, Policy::Async | Policy::Sync { on_missing: OnMissing::Degrade, .. })
    }

    /// The policy without what it says of missing followers.
    pub(crate) fn refusing(&self) -> Policy {
        match self.policy {
            Policy::Async => Policy::Async,
            Policy::Sync { copies, .. } => Policy::Sync { copies, on_missing: OnMissing::Refuse },
        }
    }
}
