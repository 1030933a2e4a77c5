//! How much comes and goes, looked at once a second.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use crate::counters::Counters;
use crate::lock::lock;

/// The longest time that a rate is told of.
const WINDOW_MAX: Duration = Duration::from_secs(600);
/// Samples that come faster are passed over.
const INTERVAL_MIN: Duration = Duration::from_millis(500);
const DAY_MS: u64 = 24 * 3_600_000;

/// What was counted up to a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Messages stored.
    pub put: u64,
    /// Messages given to consumers.
    pub got: u64,
    /// Messages that are to be delivered later, retries among them.
    pub delayed: u64,
    /// Those that were.
    pub delivered: u64,
}

impl Totals {
    fn of(counters: &Counters) -> Totals {
        Totals {
            put: counters.messages_acked.get(),
            got: counters.messages_pulled.get(),
            delayed: counters.messages_delayed.get() + counters.messages_sent_back.get(),
            delivered: counters.messages_delivered.get(),
        }
    }
}

#[derive(Debug, Default)]
struct Known {
    /// Oldest first, each with its time on the monotonic clock.
    samples: VecDeque<(Duration, Totals)>,
    day: u64,
    /// When this day began, and the one before it.
    mornings: [Totals; 2],
}

/// Samples of the counters.
#[derive(Debug, Default)]
pub struct Rates(Mutex<Known>);

impl Rates {
    /// Takes a sample.
    pub fn note(&self, now: Duration, wall_ms: u64, counters: &Counters) {
        let totals = Totals::of(counters);
        let mut known = lock(&self.0);
        if known.samples.back().is_some_and(|(last, _)| *last + INTERVAL_MIN > now) {
            return;
        }
        let day = wall_ms / DAY_MS;
        if day > known.day {
            // The first sample is what was counted since the start: the day before is not known.
            let first = known.samples.is_empty();
            known.mornings = if first { [Totals::default(); 2] } else { [totals, known.mornings[0]] };
            known.day = day;
        }
        known.samples.push_back((now, totals));
        while known.samples.get(1).is_some_and(|(time, _)| *time + WINDOW_MAX <= now) {
            known.samples.pop_front();
        }
    }

    /// Messages stored, and given to consumers, each second of such a time before the last sample.
    #[must_use]
    pub fn per_second(&self, window: Duration) -> (f64, f64) {
        self.growth(window, |totals| (totals.put, totals.got))
    }

    /// Messages put off, and delivered after that, each second of such a time before the last sample.
    #[must_use]
    pub fn timers_per_second(&self, window: Duration) -> (f64, f64) {
        self.growth(window, |totals| (totals.delayed, totals.delivered))
    }

    fn growth(&self, window: Duration, of: fn(&Totals) -> (u64, u64)) -> (f64, f64) {
        let known = lock(&self.0);
        let Some((end, last)) = known.samples.back() else { return (0.0, 0.0) };
        let first = known.samples.iter().rev().find(|(time, _)| *time + window <= *end).or(known.samples.front());
        let Some((begin, first)) = first.filter(|(begin, _)| begin < end) else { return (0.0, 0.0) };
        let seconds = (*end - *begin).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = |more: u64| more as f64 / seconds;
        let (last, first) = (of(last), of(first));
        (rate(last.0 - first.0), rate(last.1 - first.1))
    }

    /// What was counted up to this morning, and up to the morning before; both since the start.
    #[must_use]
    pub fn mornings(&self) -> [Totals; 2] {
        lock(&self.0).mornings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_time_asked_for() {
        let (rates, counters) = (Rates::default(), Counters::default());
        assert_eq!(rates.per_second(Duration::from_secs(10)), (0.0, 0.0));
        for second in 0..700 {
            rates.note(Duration::from_secs(second), 1_700_000_000_000 + second * 1000, &counters);
            // Nothing in the last ten seconds, two in each before.
            counters.messages_acked.add(if second < 689 { 2 } else { 0 });
            counters.messages_pulled.add(1);
        }
        assert_eq!(rates.per_second(Duration::from_secs(10)), (0.0, 1.0));
        let (put, got) = rates.per_second(Duration::from_secs(60));
        assert!((put - 100.0 / 60.0).abs() < 1e-9 && (got - 1.0).abs() < 1e-9, "{put} {got}");
        assert!(lock(&rates.0).samples.len() <= 602);
    }

    #[test]
    fn what_is_put_off_and_delivered_has_rates_of_its_own() {
        let (rates, counters) = (Rates::default(), Counters::default());
        rates.note(Duration::ZERO, 1, &counters);
        counters.messages_delayed.add(3);
        counters.messages_sent_back.add(1);
        counters.messages_delivered.add(2);
        rates.note(Duration::from_secs(4), 4001, &counters);
        assert_eq!(rates.timers_per_second(Duration::from_secs(60)), (1.0, 0.5));
        assert_eq!(rates.per_second(Duration::from_secs(60)), (0.0, 0.0));
    }

    #[test]
    fn a_morning_is_remembered_for_two_days() {
        let (rates, counters) = (Rates::default(), Counters::default());
        rates.note(Duration::ZERO, 10 * DAY_MS + 5, &counters);
        counters.messages_acked.add(7);
        rates.note(Duration::from_secs(1), 11 * DAY_MS + 5, &counters);
        counters.messages_acked.add(1);
        rates.note(Duration::from_secs(2), 11 * DAY_MS + 9, &counters);
        assert_eq!(rates.mornings().map(|totals| totals.put), [7, 0]);
        rates.note(Duration::from_secs(3), 12 * DAY_MS, &counters);
        assert_eq!(rates.mornings().map(|totals| totals.put), [8, 7]);
    }
}
