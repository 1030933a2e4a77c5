//! When messages are due.
//!
//! Closed loop: a producer sends as soon as it may (its last message was acknowledged, or fewer than its share are in flight), so
//! a stall of the log is counted once for each message in flight and the sends that it prevented are not counted at all.
//! Open loop: messages are due at fixed times, whatever the log does, and **latency counts from the moment at which a message was
//! due**, also when it could not be sent then. That corrects for coordinated omission: a stall shows in every message that it delayed.

use crate::clock::SECOND_NS;

/// How the producers of a row are driven.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Load {
    /// As fast as acknowledgements allow.
    Closed,
    /// So many messages per second, all producers together.
    Open {
        /// The rate.
        per_s: f64,
    },
}

impl Load {
    /// For people.
    pub(crate) fn describe(self) -> String {
        match self {
            Load::Closed => "closed loop (each producer waits for its acks; latency from send to ack)".to_owned(),
            Load::Open { per_s } => format!(
                "open loop at {per_s:.0} messages/s (latency from the moment a message was due: coordinated omission corrected)"
            ),
        }
    }

    /// The share of producer `index` of `count`, starting at `start_ns`.
    pub(crate) fn schedule(self, index: usize, count: usize, start_ns: u64) -> Schedule {
        match self {
            Load::Closed => Schedule { start_ns, interval_ns: 0.0, phase_ns: 0.0, taken: 0 },
            Load::Open { per_s } => {
                let whole = SECOND_NS as f64 / per_s;
                Schedule { start_ns, interval_ns: whole * count as f64, phase_ns: whole * index as f64, taken: 0 }
            }
        }
    }
}

/// The due times of one producer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    start_ns: u64,
    interval_ns: f64,
    phase_ns: f64,
    taken: u64,
}

impl Schedule {
    /// When the next message is due; `None` in a closed loop: whenever it can be sent.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "times of a run fit 53 bits and are positive"
    )]
    pub(crate) fn due_ns(&self) -> Option<u64> {
        (self.interval_ns > 0.0).then(|| self.start_ns + (self.phase_ns + self.interval_ns * self.taken as f64) as u64)
    }

    /// The next message is sent: the time from which its latency counts.
    pub(crate) fn take(&mut self, now_ns: u64) -> u64 {
        let from = self.due_ns().map_or(now_ns, |due| due.min(now_ns));
        self.taken += 1;
        from
    }

    /// How many messages may be sent now, `most` at most.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded below and capped by `most`")]
    pub(crate) fn allowed(&self, now_ns: u64, most: usize) -> usize {
        if self.interval_ns == 0.0 {
            return most;
        }
        let passed = now_ns.saturating_sub(self.start_ns) as f64 - self.phase_ns;
        if passed < 0.0 {
            return 0;
        }
        let due = (passed / self.interval_ns) as u64 + 1;
        usize::try_from(due.saturating_sub(self.taken)).unwrap_or(usize::MAX).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_producers_share_a_rate_evenly() {
        let open = Load::Open { per_s: 1000.0 };
        let (mut first, second) = (open.schedule(0, 2, 5_000), open.schedule(1, 2, 5_000));
        assert_eq!(first.due_ns(), Some(5_000));
        assert_eq!(second.due_ns(), Some(1_005_000));
        first.take(5_000);
        assert_eq!(first.due_ns(), Some(2_005_000));
    }

    #[test]
    fn a_stall_counts_for_every_message_that_it_delayed() {
        let mut schedule = Load::Open { per_s: 1000.0 }.schedule(0, 1, 0);
        let after_stall = 10_000_000;
        assert_eq!(schedule.allowed(after_stall, 100), 11);
        assert_eq!(schedule.allowed(after_stall, 4), 4);
        let delays: Vec<u64> = (0..3).map(|_| after_stall - schedule.take(after_stall)).collect();
        assert_eq!(delays, [10_000_000, 9_000_000, 8_000_000]);
    }

    #[test]
    fn a_closed_loop_sends_when_it_can() {
        let mut schedule = Load::Closed.schedule(0, 8, 0);
        assert_eq!(schedule.due_ns(), None);
        assert_eq!(schedule.allowed(1, 64), 64);
        assert_eq!(schedule.take(77), 77);
    }
}
