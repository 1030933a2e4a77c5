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

/// What is done to an I/O.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// It fails with this error number.
    Fail(i32),
    /// It completes no earlier than when its queue is looked at for this time.
    Stall(u64),
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    class: IoClass,
    nth: u64,
    deed: Deed,
    times: Times,
}

/// What awaits one I/O.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Verdict {
    /// The error number that it fails with.
    pub(super) errno: Option<i32>,
    /// At which look at its queue it may complete.
    pub(super) stall: u64,
}

/// Faults by class and count.
#[derive(Clone, Debug, Default)]
pub(super) struct FaultPlan {
    faults: Vec<Fault>,
    counts: BTreeMap<IoClass, u64>,
    failed: u64,
}

impl FaultPlan {
    /// Fails the `nth` I/O of a class, counted from 1 since the disk was made.
    pub(super) fn fail(&mut self, class: IoClass, nth: u64, errno: i32, times: Times) {
        self.faults.push(Fault { class, nth, deed: Deed::Fail(errno), times });
    }

    /// Lets the `nth` I/O of a class complete no earlier than when its queue is looked at for the `reaps`-th time.
    pub(super) fn stall(&mut self, class: IoClass, nth: u64, reaps: u64, times: Times) {
        self.faults.push(Fault { class, nth, deed: Deed::Stall(reaps), times });
    }

    /// I/Os that were failed so far.
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    /// Counts an I/O that fails for a reason outside the plan.
    pub(super) fn note_failure(&mut self) {
        self.failed += 1;
    }

    /// Forgets all faults; counts go on.
    pub(super) fn clear(&mut self) {
        self.faults.clear();
    }

    /// I/Os of a class so far.
    pub(super) fn count(&self, class: IoClass) -> u64 {
        self.counts.get(&class).copied().unwrap_or(0)
    }

    /// Counts one I/O and answers what awaits it.
    pub(super) fn judge(&mut self, class: IoClass) -> Verdict {
        for counted in [class, IoClass::Any] {
            *self.counts.entry(counted).or_default() += 1;
        }
        let mut verdict = Verdict::default();
        for fault in &self.faults {
            let count = self.count(fault.class);
            let due = match fault.times {
                Times::Once => count == fault.nth,
                Times::Forever => count >= fault.nth,
            };
            if due && (fault.class == class || fault.class == IoClass::Any) {
                match fault.deed {
                    Deed::Fail(errno) => verdict.errno = verdict.errno.or(Some(errno)),
                    Deed::Stall(reaps) => verdict.stall = verdict.stall.max(reaps),
                }
            }
        }
        self.failed += u64::from(verdict.errno.is_some());
        verdict
    }
}
