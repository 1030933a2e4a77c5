//! Order by seed: which operations complete, and when. One stream of draws per purpose, so that a new draw for one moves
//! no other.

use super::super::Wait;
use crate::units::{to_u64, to_usize};

/// A stream of numbers that a seed determines (the splitmix64 generator of Steele, Lea and Flood).
#[derive(Clone, Debug)]
pub struct Seeded(u64);

impl Seeded {
    /// The stream for one purpose under one seed.
    #[must_use]
    pub fn new(seed: u64, purpose: u64) -> Seeded {
        let mut stream = Seeded(seed ^ purpose.wrapping_mul(0xa076_1d64_78bd_642f));
        stream.draw();
        stream
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    ///
    /// # Panics
    /// When `bound` is zero.
    pub fn below(&mut self, bound: usize) -> usize {
        to_usize(self.draw() % to_u64(bound))
    }

    /// True in `eighths` of eight draws.
    pub fn chance(&mut self, eighths: u64) -> bool {
        self.draw() % 8 < eighths
    }
}

/// When the operations of one queue complete.
#[derive(Debug)]
pub(super) struct Schedule {
    draws: Seeded,
    starved: bool,
}

impl Schedule {
    pub(super) fn new(draws: Seeded) -> Schedule {
        Schedule { draws, starved: false }
    }

    /// How many of `in_flight` operations this reap completes: perhaps none without waiting, but not twice in a row.
    pub(super) fn count(&mut self, in_flight: usize, wait: Wait) -> usize {
        if in_flight == 0 {
            return 0;
        }
        let least = usize::from(wait == Wait::One || self.starved);
        let count = least + self.draws.below(in_flight + 1 - least);
        self.starved = count == 0;
        count
    }

    /// Which of the operations in flight completes next.
    pub(super) fn pick(&mut self, in_flight: usize) -> usize {
        self.draws.below(in_flight)
    }
}
