//! How often something took how long, or was how large: counted in buckets of fixed bounds.
//!
//! 1. Counting takes no lock and no memory: one search among few bounds, and three additions.
//! 2. The bounds never change while the engine is open, so that two readings can be subtracted.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a histogram has counted up to a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramCounts {
    /// The bounds of its buckets, included in them, in rising order.
    pub bounds: &'static [u64],
    /// How often each bucket was met: one for each bound, and the last for what was beyond all of them.
    pub counts: Vec<u64>,
    /// The sum of all that was counted.
    pub sum: u64,
}

impl HistogramCounts {
    /// How much was counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// What the log's writer has counted since open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlushStats {
    /// How long it took to make a group durable, from handing it to the device on, in microseconds. Under asynchronous flush: how long a
    /// flush took.
    pub micros: HistogramCounts,
    /// How many records became durable with it.
    pub records: HistogramCounts,
}

/// Bounds for what a disk takes, in microseconds: from a good SSD's tens to a disk that hangs.
pub(crate) const MICROS: &[u64] = &[
    20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    2_000_000, 5_000_000,
];
/// Bounds for the records of a group.
pub(crate) const RECORDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192];

/// See the module.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [u64],
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    pub(crate) fn new(bounds: &'static [u64]) -> Histogram {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, counts, sum: AtomicU64::new(0) }
    }

    pub(crate) fn note(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> HistogramCounts {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        HistogramCounts { bounds: self.bounds, counts, sum: self.sum.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_belongs_to_the_first_bucket_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::new(&[1, 10]);
        for value in [0, 1, 2, 10, 11, 500] {
            histogram.note(value);
        }
        let read = histogram.read();
        assert_eq!((read.counts.as_slice(), read.sum, read.count()), (&[2, 2, 2][..], 524, 6));
    }

    #[test]
    fn bounds_rise() {
        for bounds in [MICROS, RECORDS] {
            assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
