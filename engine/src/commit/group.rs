//! When a group closes: the two policies of the log writer, as plain arithmetic.

use std::time::Duration;

use crate::io::IO_ALIGN;
use crate::limits;
use crate::options::Flush;
use crate::units::{Lsn, align_down, to_u64};

/// What the writer knows when it asks for the next group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// First byte that was not submitted yet.
    pub(crate) submitted: Lsn,
    /// End of what may be submitted: assigned, within the segment.
    pub(crate) end: Lsn,
    /// Whether anything lies behind `end`, so that waiting for more makes no sense.
    pub(crate) more: bool,
    /// Writes in flight.
    pub(crate) in_flight: usize,
    /// How long the oldest byte that was not submitted has waited.
    pub(crate) waited: Duration,
    /// Whether somebody waits for durability.
    pub(crate) urgent: bool,
}

/// Where the next group ends; `None` while it should wait.
pub(crate) fn cut(flush: Flush, depth: usize, commit_bytes_max: u64, moment: Moment) -> Option<Lsn> {
    let Moment { submitted, end, .. } = moment;
    let align = to_u64(IO_ALIGN);
    // The block that an earlier write in flight ends with cannot be written again before that one is done.
    if end == submitted || moment.in_flight >= depth || (moment.in_flight > 0 && submitted.0 % align != 0) {
        return None;
    }
    let whole = Lsn(align_down(end.0, align));
    match flush {
        // Greedy: the device is free, so everything that has arrived goes. A group that is cut short ends with a block.
        Flush::Sync => {
            let max = submitted.plus(commit_bytes_max);
            if end > max {
                return Some(Lsn(align_down(max.0, align)));
            }
            // With room for another write, the tail block stays behind for it, unless there is nothing else.
            if depth > 1 && moment.in_flight > 0 { (whole > submitted).then_some(whole) } else { Some(end) }
        }
        // Full blocks as they come; the rest when it has waited long enough, or a segment ends.
        Flush::Async { .. } => {
            let full = end.since(submitted) >= limits::HAND_OVER_BYTES;
            let due = moment.more || moment.urgent || moment.waited >= limits::HAND_OVER_DELAY;
            if full {
                let max = Lsn(align_down(submitted.0 + limits::ASYNC_WRITE_BYTES_MAX, align));
                Some(if moment.more { end.min(max) } else { whole.min(max) })
            } else if due {
                if moment.in_flight > 0 && !moment.more { (whole > submitted).then_some(whole) } else { Some(end) }
            } else {
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(submitted: u64, end: u64) -> Moment {
        Moment {
            submitted: Lsn(submitted),
            end: Lsn(end),
            more: false,
            in_flight: 0,
            waited: Duration::ZERO,
            urgent: false,
        }
    }

    #[test]
    fn a_synchronous_group_takes_everything_that_has_arrived() {
        let cut = |moment| cut(Flush::Sync, 1, 1 << 20, moment);
        assert_eq!(cut(moment(100, 100)), None);
        assert_eq!(cut(moment(100, 108)), Some(Lsn(108)));
        assert_eq!(cut(moment(100, 2 << 20)), Some(Lsn(1 << 20)), "capped, at a block");
        assert_eq!(cut(Moment { in_flight: 1, ..moment(0, 8) }), None, "one write in flight");
    }

    #[test]
    fn with_depth_the_tail_block_is_never_in_flight_twice() {
        let cut = |moment| cut(Flush::Sync, 4, 1 << 20, moment);
        assert_eq!(cut(Moment { in_flight: 1, ..moment(100, 9000) }), None, "the first block is in flight");
        assert_eq!(cut(Moment { in_flight: 1, ..moment(4096, 9000) }), Some(Lsn(8192)));
        assert_eq!(cut(Moment { in_flight: 1, ..moment(4096, 5000) }), None);
        assert_eq!(cut(Moment { in_flight: 4, ..moment(4096, 9000) }), None);
    }

    #[test]
    fn an_asynchronous_group_waits_for_blocks_or_time() {
        let flush = Flush::async_default();
        let cut = |moment| cut(flush, 4, 1 << 20, moment);
        assert_eq!(cut(moment(0, 5000)), None);
        assert_eq!(cut(Moment { waited: limits::HAND_OVER_DELAY, ..moment(0, 5000) }), Some(Lsn(5000)));
        assert_eq!(cut(Moment { urgent: true, ..moment(0, 5000) }), Some(Lsn(5000)));
        assert_eq!(cut(moment(0, (1 << 20) + 8)), Some(Lsn(1 << 20)), "whole blocks");
        assert_eq!(cut(moment(0, 9 << 20)), Some(Lsn(2 << 20)));
        assert_eq!(cut(Moment { more: true, ..moment(0, 5000) }), Some(Lsn(5000)), "the segment ends here");
    }
}
