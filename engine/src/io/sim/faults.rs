//! The plan of what goes wrong, and when. Empty until a test fills it.

use std::collections::BTreeMap;

/// Kinds of I/O, counted apart so that a plan can name "the third flush".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IoClass {
    /// Every numbered I/O.
    Any,
    /// Opening, creating, renaming and removing; making directories.
    Name,
    /// Making names durable.
    SyncDir,
    /// Reading.
    Read,
    /// Writing, durable or not, and allocating.
    Write,
    /// Making a file durable; durable writes do not count.
    Sync,
}

/// How long a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// That I/O only.
    Once,
    /// That I/O and all of its class that follow.
    Forever,
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    class: IoClass,
    nth: u64,
    errno: i32,
    times: Times,
}

/// Faults by class and count.
#[derive(Clone, Debug, Default)]
pub(super) struct FaultPlan {
    faults: Vec<Fault>,
    counts: BTreeMap<IoClass, u64>,
}

impl FaultPlan {
    /// Fails the `nth` I/O of a class, counted from 1 since the disk was made.
    pub(super) fn fail(&mut self, class: IoClass, nth: u64, errno: i32, times: Times) {
        self.faults.push(Fault { class, nth, errno, times });
    }

    /// Forgets all faults; counts go on.
    pub(super) fn clear(&mut self) {
        self.faults.clear();
    }

    /// I/Os of a class so far.
    pub(super) fn count(&self, class: IoClass) -> u64 {
        self.counts.get(&class).copied().unwrap_or(0)
    }

    /// Counts one I/O and answers how it fails, if it does.
    pub(super) fn judge(&mut self, class: IoClass) -> Option<i32> {
        for counted in [class, IoClass::Any] {
            *self.counts.entry(counted).or_default() += 1;
        }
        let hit = self.faults.iter().find(|fault| {
            let count = self.count(fault.class);
            let due = match fault.times {
                Times::Once => count == fault.nth,
                Times::Forever => count >= fault.nth,
            };
            due && (fault.class == class || fault.class == IoClass::Any)
        });
        hit.map(|fault| fault.errno)
    }
}
