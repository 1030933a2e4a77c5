//! The units that positions are counted in, and the only places where one integer width becomes another.

use std::fmt;

const _: () = assert!(usize::BITS == 64, "offsets and lengths share one width; 32-bit targets are not supported");

/// A byte position in the commitlog. As a watermark it is an exclusive end: the first byte that is *not* covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The first byte of every log.
    pub const ZERO: Lsn = Lsn(0);
    /// Beyond every position that a log can reach.
    pub const MAX: Lsn = Lsn(u64::MAX);

    /// The position `bytes` further on.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Lsn {
        Lsn(self.0 + bytes)
    }

    /// Bytes from `earlier` to here; zero when `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The ordinal of a message in its queue, counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueOffset(pub u64);

impl fmt::Display for QueueOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Who may write the log: promotion alone raises the term, every open by the term's leader raises the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// Raised by promotion.
    pub term: u32,
    /// Raised by each open.
    pub run: u32,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.run)
    }
}

/// A length or index in memory, from a 64-bit quantity. Lossless: the crate builds for 64-bit targets only.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "usize is 64 bits wide, asserted above")]
pub const fn to_usize(value: u64) -> usize {
    value as usize
}

/// A length in memory as a 64-bit quantity.
#[must_use]
pub const fn to_u64(value: usize) -> u64 {
    value as u64
}

/// Rounds down to a multiple of `align`, a power of two.
#[must_use]
pub const fn align_down(value: u64, align: u64) -> u64 {
    value & !(align - 1)
}

/// Rounds up to a multiple of `align`, a power of two.
#[must_use]
pub const fn align_up(value: u64, align: u64) -> u64 {
    (value + align - 1) & !(align - 1)
}
