//! How far a group's members have pulled a topic, and how fast: what tools show as in flight, and as messages a second.

use std::collections::VecDeque;
use std::time::Duration;

/// Time between two samples.
const INTERVAL: Duration = Duration::from_secs(10);
/// Samples that are kept: a rate is that of the last minute.
const SAMPLES_MAX: usize = 7;

/// A topic as a group pulls it.
#[derive(Debug, Default)]
pub(super) struct Pulling {
    /// By queue: what was asked for last. Everything before was given.
    asked: Vec<Option<u64>>,
    /// Messages that were passed so far.
    passed: u64,
    samples: VecDeque<(Duration, u64)>,
}

impl Pulling {
    /// A member asks for what follows.
    pub(super) fn asks(&mut self, queue: u32, offset: u64) {
        let slot = queue as usize;
        if self.asked.len() <= slot {
            self.asked.resize(slot + 1, None);
        }
        // Who begins somewhere, or goes back, has passed nothing by that.
        let before = self.asked[slot].replace(offset).unwrap_or(offset);
        self.passed += offset.saturating_sub(before);
    }

    /// What was asked for last.
    pub(super) fn asked(&self, queue: u32) -> Option<u64> {
        *self.asked.get(queue as usize)?
    }

    /// Takes a sample, if it is time.
    pub(super) fn note(&mut self, now: Duration) {
        if self.samples.back().is_some_and(|(last, _)| now < *last + INTERVAL) {
            return;
        }
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((now, self.passed));
    }

    /// Messages a second, within the last minute.
    pub(super) fn per_second(&self, now: Duration) -> f64 {
        let Some((since, passed)) = self.samples.front() else { return 0.0 };
        let seconds = now.saturating_sub(*since).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let count = (self.passed - passed) as f64;
        if seconds > 0.0 { count / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_minute_and_going_back_is_no_rate() {
        let mut pulling = Pulling::default();
        assert_eq!((pulling.asked(3), pulling.per_second(Duration::from_secs(9))), (None, 0.0));
        pulling.asks(3, 1000);
        for second in 0..200 {
            pulling.note(Duration::from_secs(second));
            // Two a second, and none in the last minute.
            pulling.asks(3, 1000 + 2 * second.min(129));
            if second == 100 {
                let rate = pulling.per_second(Duration::from_secs(100));
                assert!((rate - 2.0).abs() < 0.1, "{rate}");
            }
        }
        assert_eq!(pulling.per_second(Duration::from_secs(199)), 0.0);
        pulling.asks(3, 0);
        pulling.asks(3, 5);
        assert_eq!((pulling.asked(3), pulling.passed, pulling.samples.len()), (Some(5), 263, SAMPLES_MAX));
    }
}
