//! Promises that can be broken on purpose, one at a time, to see whether the tests notice.
//!
//! Without the feature `sim` nothing is ever broken, and the compiler knows it: [`Broken::is`] is `false` wherever it is asked.

/// A promise that is broken on purpose (feature `sim`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "sim"), expect(unreachable_pub, reason = "public with the feature `sim` only"))]
pub enum Fault {
    /// A follower calls durable what it has received.
    AckOnReceive,
    /// Acknowledgements of other epochs count, and of logs that do not have this epoch's first frame.
    EpochUnchecked,
    /// A leader's log need not fit: a follower takes what comes where it ends, whoever sends it.
    HistoryUnchecked,
    /// A follower has two votes.
    CountTwice,
    /// While followers are missing, the leader acknowledges alone and says nothing.
    DegradeSilently,
    /// A change of members takes effect as soon as it is in the log.
    MembersAtOnce,
    /// What is appended is taken although a follower in sync has no space for it.
    SpaceUnheeded,
}

#[cfg(feature = "sim")]
impl Fault {
    /// All of them.
    pub const ALL: [Fault; 7] = [
        Fault::AckOnReceive,
        Fault::EpochUnchecked,
        Fault::HistoryUnchecked,
        Fault::CountTwice,
        Fault::DegradeSilently,
        Fault::MembersAtOnce,
        Fault::SpaceUnheeded,
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
