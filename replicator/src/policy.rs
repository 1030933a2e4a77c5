//! How many copies an acknowledgement stands for, and what happens when there are fewer machines than that.

use std::time::Duration;

/// What an acknowledgement promises beyond the leader's own disk or memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nothing: followers are behind by what is in flight, and a lost leader takes that with it.
    Async,
    /// What is acknowledged is durable on `copies - 1` followers.
    Sync {
        /// Copies, the leader's own included; at least 2.
        copies: u32,
        /// What happens while fewer are in sync.
        on_missing: OnMissing,
    },
}

impl Policy {
    /// Followers that must hold what is acknowledged.
    #[must_use]
    pub const fn followers(self) -> u32 {
        match self {
            Policy::Async => 0,
            Policy::Sync { copies, .. } => copies.saturating_sub(1),
        }
    }

    /// A policy that promises all that either does.
    #[must_use]
    pub fn and(self, other: Policy) -> Policy {
        match (self, other) {
            (Policy::Async, policy) | (policy, Policy::Async) => policy,
            (Policy::Sync { copies: ours, on_missing: we }, Policy::Sync { copies: theirs, on_missing: they }) => {
                let on_missing = if we == they { we } else { OnMissing::Refuse };
                Policy::Sync { copies: ours.max(theirs), on_missing }
            }
        }
    }
}

/// What a leader does while fewer followers are in sync than its policy needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnMissing {
    /// Nothing is taken: the caller is told before anything is stored.
    #[default]
    Refuse,
    /// What is taken is acknowledged by the leader alone. **Unsafe**: the loss of one machine loses what was acknowledged meanwhile. It is
    /// logged, counted and shown in every status, and ends by itself.
    Degrade,
}

/// When a follower counts: connected, close behind, and heard from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InSync {
    /// The furthest that its durable log may be behind the leader's, in bytes.
    /// Default: 64 MiB.
    pub lag_bytes: u64,
    /// The longest since the leader sent something that the follower has answered: both directions work. Must be shorter than the time-out
    /// of those who wait for acknowledgements.
    /// Default: 2 s.
    pub silence: Duration,
}

impl Default for InSync {
    fn default() -> Self {
        InSync { lag_bytes: 64 << 20, silence: Duration::from_secs(2) }
    }
}
