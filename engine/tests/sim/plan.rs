//! What a seed decides before anything happens: the options, the size of the run, and which troubles it will meet.

use std::time::Duration;

use anchorlog_engine::io::sim::Seeded;
use anchorlog_engine::options::Fault;
use anchorlog_engine::{EngineOptions, Flush, Tail, limits};

/// Streams of draws, one for each purpose, so that a new draw for one moves no other.
pub(crate) struct Draws {
    /// Which action comes next.
    pub(crate) actions: Seeded,
    /// What a batch holds.
    pub(crate) batches: Seeded,
    /// What is read.
    pub(crate) reads: Seeded,
    /// How time passes.
    pub(crate) time: Seeded,
    /// What the disk does.
    pub(crate) faults: Seeded,
    /// How the process ends, and what survives.
    pub(crate) ends: Seeded,
    /// What is released and pinned.
    pub(crate) retention: Seeded,
    /// Where bits flip.
    pub(crate) damage: Seeded,
}

const PURPOSE_PLAN: u64 = 100;

impl Draws {
    pub(crate) fn new(seed: u64) -> Draws {
        let stream = |purpose| Seeded::new(seed, purpose);
        Draws {
            actions: stream(101),
            batches: stream(102),
            reads: stream(103),
            time: stream(104),
            faults: stream(105),
            ends: stream(106),
            retention: stream(107),
            damage: stream(108),
        }
    }
}

/// One of several values.
pub(crate) fn pick<T: Copy>(draws: &mut Seeded, values: &[T]) -> T {
    values[draws.below(values.len())]
}

/// Troubles that a run may meet. Each is on in some seeds only, so that it shows alone and beside others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Troubles {
    pub(crate) crashes: bool,
    pub(crate) io_errors: bool,
    pub(crate) no_room: bool,
    pub(crate) stalls: bool,
    pub(crate) damage: bool,
    pub(crate) clock_jumps: bool,
}

impl Troubles {
    pub(crate) const NONE: Troubles =
        Troubles { crashes: false, io_errors: false, no_room: false, stalls: false, damage: false, clock_jumps: false };
}

/// The shape of one run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) options: EngineOptions,
    pub(crate) flush: Flush,
    pub(crate) segment_bytes: u64,
    pub(crate) buffer_bytes: u64,
    pub(crate) retain_bytes: Option<u64>,
    pub(crate) spare_count: usize,
    pub(crate) runs_inline: bool,
    /// Whether the file system has holes.
    pub(crate) punches_holes: bool,
    pub(crate) steps: usize,
    /// Whether links and table entries refer to messages, which then stay.
    pub(crate) refers: bool,
    /// Whether each queue has a consumer, before whom nothing goes.
    pub(crate) consumes: bool,
    pub(crate) retain_age: Option<Duration>,
    pub(crate) free_bytes_min: Option<u64>,
    pub(crate) queue_count: usize,
    pub(crate) key_count: usize,
    pub(crate) troubles: Troubles,
}

impl Plan {
    pub(crate) fn new(seed: u64, fault: Option<Fault>) -> Plan {
        let draws = &mut Seeded::new(seed, PURPOSE_PLAN);
        let segment_bytes = pick(draws, &[64, 64, 64, 96, 128]) << 10;
        let chunk_bytes = pick(draws, &[4, 16, 16, 32]) << 10;
        let buffer_bytes = pick(draws, &[segment_bytes, segment_bytes, 2 * segment_bytes, 256 << 10]);
        let cache_bytes = buffer_bytes + 2 * chunk_bytes + pick(draws, &[0, 0, 64 << 10, 256 << 10]);
        let flush = if draws.chance(5) {
            Flush::Sync
        } else {
            Flush::Async {
                interval: Duration::from_millis(pick(draws, &[20, 200, 1000])),
                bytes: pick(draws, &[16, 64, 1024]) << 10,
            }
        };
        let retain_bytes = pick(draws, &[None, Some(2), Some(2), Some(3), Some(5)]).map(|count| count * segment_bytes);
        let retain_age = pick(draws, &[None, None, None, Some(3600)]).map(Duration::from_secs);
        let free_bytes_min = pick(draws, &[None, None, Some(200 << 10)]);
        let consumes = draws.chance(3);
        let tail = pick(draws, &[Tail::Rewrite, Tail::Rewrite, Tail::Pad]);
        let depth = pick(draws, &[1, 1, 1, 2, 4]);
        let spare_count = pick(draws, &[0, 1, 1, 2]);
        let mut options = EngineOptions::default()
            .with_segment_bytes(segment_bytes)
            .with_chunk_bytes(chunk_bytes)
            .with_buffer_bytes(buffer_bytes)
            .with_cache_bytes(cache_bytes)
            .with_flush(flush)
            .with_tail(tail)
            .with_commit_depth(depth)
            .with_spare_count(spare_count)
            .with_retain_bytes(retain_bytes)
            .with_checkpoint_interval(pick(draws, &[None, Some(10), Some(50), Some(500)]).map(Duration::from_millis))
            .with_checkpoint_bytes(pick(draws, &[64 << 10, 128 << 10, 256 << 20]))
            .with_checkpoint_cache_bytes(1 << 20)
            .with_retain_age(retain_age)
            .with_free_bytes_min(free_bytes_min)
            .with_retention_held(consumes)
            .with_scrub_rate(pick(draws, &[0, 64 << 10, 8 << 20]))
            .with_manual_drive();
        if let Some(fault) = fault {
            options = options.with_fault(fault);
        }
        let troubles = Troubles {
            crashes: draws.chance(7),
            io_errors: draws.chance(4),
            no_room: draws.chance(2),
            stalls: draws.chance(3),
            damage: draws.chance(4),
            clock_jumps: draws.chance(3),
        };
        Plan {
            options,
            flush,
            segment_bytes,
            buffer_bytes,
            retain_bytes,
            spare_count,
            runs_inline: draws.chance(2),
            punches_holes: draws.chance(6),
            steps: 120 + draws.below(200),
            refers: draws.chance(4),
            consumes,
            retain_age,
            free_bytes_min,
            queue_count: 1 + draws.below(5),
            key_count: 2 + draws.below(12),
            troubles,
        }
    }

    /// What may wait to be written at most: the buffer, and beside the last batch that it took the filler at a segment's end, the history
    /// at the next one's beginning, a mark and the padding of a block.
    pub(crate) fn waiting_bytes_max(&self) -> u64 {
        let largest = self.options.frame_bytes_max();
        self.buffer_bytes + largest + limits::EPOCH_FRAME_BYTES_MAX + 2 * limits::SEGMENT_HEADER_BYTES
    }

    pub(crate) fn is_sync(&self) -> bool {
        self.flush == Flush::Sync
    }
}
