//! Promises that can be broken on purpose, one at a time, to see whether the tests notice.
//!
//! Without the feature `sim` nothing is ever broken, and the compiler knows it: [`Broken::is`] is `false` wherever it is asked.

/// A promise that is broken on purpose (feature `sim`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "sim"), expect(unreachable_pub, reason = "public with the feature `sim` only"))]
pub enum Fault {
    /// The ack leaves when the write is submitted.
    AckBeforeFlush,
    /// The flush is submitted beside the writes that it should cover, not after them.
    FlushBesideWrites,
    /// Nothing is flushed: a write that completed counts as durable.
    SkipFlush,
    /// New segments are used before the directory is synced.
    NoDirectorySync,
    /// A frame's position is left out of its checksum and its comparison.
    PositionUnchecked,
    /// Records are believed without a look at their checksum, by readers and by recovery.
    ChecksumUnchecked,
    /// Opening goes on in the epoch of the run before.
    NoNewEpoch,
    /// A failed flush is tried again and believed.
    RetryFailedFlush,
    /// A failed write or flush counts as done.
    NoFence,
    /// A queue takes whatever entry comes next, under the number that is due.
    NoDenseCheck,
    /// Frames do not say how far the log was durable.
    NoDurableMark,
    /// A checkpoint is committed before the log that it covers is durable.
    CheckpointBeforeLog,
}

#[cfg(feature = "sim")]
impl Fault {
    /// All of them.
    pub const ALL: [Fault; 12] = [
        Fault::AckBeforeFlush,
        Fault::FlushBesideWrites,
        Fault::SkipFlush,
        Fault::NoDirectorySync,
        Fault::PositionUnchecked,
        Fault::ChecksumUnchecked,
        Fault::NoNewEpoch,
        Fault::RetryFailedFlush,
        Fault::NoFence,
        Fault::NoDenseCheck,
        Fault::NoDurableMark,
        Fault::CheckpointBeforeLog,
    ];
}

/// Which promise is broken, if any.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Broken {
    #[cfg(feature = "sim")]
    fault: Option<Fault>,
}

impl Broken {
    /// This one and no other.
    #[cfg(feature = "sim")]
    pub(crate) fn only(fault: Option<Fault>) -> Broken {
        Broken { fault }
    }

    /// Whether it is this one.
    #[cfg(feature = "sim")]
    pub(crate) fn is(self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Whether it is this one: no, in a build without the feature `sim`.
    #[cfg(not(feature = "sim"))]
    #[expect(clippy::unused_self, reason = "the feature `sim` looks at it")]
    pub(crate) const fn is(self, _fault: Fault) -> bool {
        false
    }
}
