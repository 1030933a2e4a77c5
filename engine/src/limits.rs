//! Every bound of the engine, named, and what holds between them.

use std::time::Duration;

use crate::io::IO_ALIGN;

/// Bytes of a segment file before its first frame.
pub const SEGMENT_HEADER_BYTES: u64 = 4096;
/// Smallest segment file: small enough for crash tests that roll often.
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// Largest segment file.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Largest frame, whatever the segment size: a 4 MiB message with its properties, or a batch of that size, fits twice.
pub const FRAME_BYTES_MAX: u64 = 8 << 20;
/// Records of one batch.
pub const BATCH_RECORDS_MAX: usize = 16 << 10;
/// Bytes of a queue's name.
pub const QUEUE_NAME_BYTES_MAX: usize = 1024;
/// Keys of one message, together with two bytes for each.
pub const KEYS_BYTES_MAX: usize = u16::MAX as usize;
/// Attributes of one message.
pub const ATTRIBUTES_BYTES_MAX: usize = u16::MAX as usize;
/// Bytes of a table key.
pub const TABLE_KEY_BYTES_MAX: usize = 1024;
/// Bytes of a table value: the table is for small state.
pub const TABLE_VALUE_BYTES_MAX: usize = 16 << 10;
/// Preconditions of one batch.
pub const PRECONDITIONS_MAX: usize = 1024;
/// Queues of one engine.
pub const QUEUE_COUNT_MAX: usize = 1 << 20;
/// Queue counters restated by one batch: with names of the largest size they fit the smallest segment.
pub const COUNTERS_PER_BATCH: usize = 24;
/// Such batches appended at one time, with the append lock held.
pub const COUNTER_BATCHES_PER_STEP: usize = 8;
/// Bytes of segments on their way out that are read in one step for what must be said again.
pub const RESTATE_READ_BYTES: u64 = 1 << 20;
/// Bytes of a batch of restated table entries, unless one frame says more.
pub const RESTATE_BATCH_BYTES: u64 = 8 << 10;
/// Segments on their way out in which survivors are looked for in one step.
pub const SURVIVORS_PER_STEP: usize = 8;
/// Table entries that are looked at in one step for those that damaged segments said last.
pub const RESTATE_PAGE_COUNT: usize = 256;
/// Frames that put table entries of which the places are remembered: 8 bytes each.
pub const PUT_PLACES_MAX: usize = 1 << 20;
/// Segments, beside the spare ones, that a log may be longer than it is to be retained, before appends wait for the oldest to go: one
/// goes only as a whole, and while it goes the log goes on.
pub const OVERSHOOT_SEGMENTS: u64 = 2;
/// Holes that are punched in one step.
pub const PUNCHES_PER_STEP: usize = 32;
/// A segment is punched when at least this fraction of it (one over) is needed by nobody.
pub const SPARSE_GAIN: u64 = 8;
/// Time between two looks at a segment of survivors.
pub const REVIEW_INTERVAL: Duration = Duration::from_millis(200);
/// Time between two looks at the age of segments and at free space.
pub const AGE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a release waits after what it has to read could not be read.
pub const RELEASE_RETRY: Duration = Duration::from_secs(60);
/// How long a release waits after there was no room even for the manifest.
pub const RELEASE_FULL_RETRY: Duration = Duration::from_secs(1);
/// So many times the log that a checkpoint is due after may come before appends are refused because the disk has no room for the
/// checkpoint: what it would hold waits in memory.
pub const CHECKPOINT_OVERDUE: u64 = 2;
/// Memory that an entry of a queue takes until a checkpoint has it, about.
pub const ENTRY_MEMORY: u64 = 32;
/// The same for a key of the key index.
pub const KEY_MEMORY: u64 = 16;
/// The same for a change of the table, or for a link.
pub const CHANGE_MEMORY: u64 = 256;
/// Least that such memory can be bounded by.
pub const UNSAVED_BYTES_MIN: u64 = 64 << 10;
/// Time between two looks of an append that waits for it, or for a release.
pub const BEHIND_RETRY: Duration = Duration::from_millis(10);
/// Changes of the table that wait in memory before a checkpoint begins at once.
pub const CHECKPOINT_CHANGES: usize = 500_000;
/// Keys of messages that wait in memory before a checkpoint begins at once: 16 MiB of them.
pub const CHECKPOINT_KEYS: usize = 2 << 20;
/// Keys of one chunk of the key index in memory.
pub const KEY_CHUNK_COUNT: usize = 8 << 10;
/// Keys of a run of the key index from which on it stays as it is.
pub const KEY_RUN_FULL: u64 = 2 << 20;
/// Bytes of one piece of a run of the key index.
pub const KEY_PIECE_BYTES: usize = 1900;
/// Longest sleep of the checkpointer.
pub const CHECKPOINT_NAP: Duration = Duration::from_secs(1);
/// How long the checkpointer waits after the kernel refused something.
pub const CHECKPOINT_RETRY: Duration = Duration::from_secs(1);
/// Durable writes in flight.
pub const COMMIT_DEPTH_MAX: usize = 16;
/// Spare segments kept ready.
pub const SPARE_COUNT_MAX: usize = 16;
/// Epochs that a history holds; older ones are forgotten.
pub const EPOCH_HISTORY_MAX: usize = 2000;
/// How long nobody tries to make a segment after there was no room for one; a driver's nap may make it longer.
pub const FULL_DISK_RETRY: Duration = Duration::from_millis(50);
/// Segments of the reserve that are for the engine alone. What one segment says last is no more than that segment; of two segments' worth
/// of room, wherever they begin, one is whole.
pub const OWN_RESERVE_SEGMENTS: u64 = 2;
/// A disk with so many times the room that the reserve still needs is not going to be full before the reserve is there.
pub const ROOMY: u64 = 4;
/// Smallest reserve for essential batches: of the order of a segment's smallest size.
pub const RESERVE_BYTES_MIN: u64 = 64 << 10;
/// A commit on the thread of a caller of [`Engine::append_all_here`](crate::Engine::append_all_here) that takes longer is slow, and for
/// [`COMMIT_HERE_PAUSE`] the next ones are not run there.
pub const COMMIT_HERE_MAX: Duration = Duration::from_millis(20);
/// How long callers leave the commit to the writer's own thread after a slow one.
pub const COMMIT_HERE_PAUSE: Duration = Duration::from_secs(1);
/// Longest time that an acknowledged byte of an asynchronous log stays in the process only.
pub const HAND_OVER_DELAY: Duration = Duration::from_millis(10);
/// Most bytes of an asynchronous log that wait for a fuller block before they are handed to the kernel.
pub const HAND_OVER_BYTES: u64 = 1 << 20;
/// Largest write of the asynchronous flusher.
pub const ASYNC_WRITE_BYTES_MAX: u64 = 2 << 20;
/// Writes that the asynchronous flusher keeps in flight.
pub const ASYNC_DEPTH: usize = 4;
/// How long the log must be idle before a mark frame covers the last group.
pub const MARK_DELAY: Duration = Duration::from_millis(10);
/// Shortest time between two writes of a replica's side block.
pub const SIDE_BLOCK_INTERVAL: Duration = Duration::from_millis(10);
/// Reads in flight when a scan of the log begins.
pub const SCAN_DEPTH_MIN: usize = 4;
/// Reads in flight when a scan has gone on for a while: the disk has enough to do while the scan waits for a processor.
pub const SCAN_DEPTH_MAX: usize = 16;
/// Bytes of one scan read.
pub const SCAN_READ_BYTES: usize = 1 << 20;
/// Bytes of one read for a reader behind the cache.
pub const COLD_READ_BYTES: u64 = 64 << 10;
/// Bytes read beyond that for a reader that goes along the log.
pub const AHEAD_READ_BYTES: u64 = 192 << 10;
/// The same while commits are under way.
pub const AHEAD_READ_BUSY_BYTES: u64 = 64 << 10;
/// Bytes between two records that are read together all the same: a second read would take longer.
pub const GATHER_GAP_BYTES: u64 = 16 << 10;
/// Blocks of [`COLD_READ_BYTES`] that readers behind the cache share.
pub const COLD_BLOCK_COUNT: usize = 256;
/// Bytes of one read of a stretch of log for another machine while no commit is under way.
pub const WIDE_READ_BYTES: u64 = 1 << 20;
/// Buffers of such reads that are kept while nobody uses them.
pub const WIDE_IDLE_MAX: usize = 4;
/// Bytes of one paced step of the filler.
pub const FILL_STEP_BYTES: u64 = 256 << 10;
/// Bytes a second of the filler while the log is busy: measured to cost live appends at most a tenth of their rate.
pub const FILL_RATE: u64 = 100 << 20;
/// Bytes a second that a checkpoint writes while the log is busy and nobody waits for it.
pub const CHECKPOINT_RATE: u64 = 64 << 20;
/// How long after the last commit the log counts as busy.
pub const BUSY_FOR: Duration = Duration::from_millis(20);
/// Acknowledged bytes that wait for a reader before the dispatcher wakes by itself, while no queue is watched.
pub const DISPATCH_BYTES: u64 = 1 << 20;
/// Bytes of one read of the scrub.
pub const SCRUB_PIECE_BYTES: u64 = 256 << 10;
/// Bytes of one read of the scrub while the log is busy: those of a reader behind the cache.
pub const SCRUB_PIECE_BUSY_BYTES: u64 = COLD_READ_BYTES;
/// Lowest rate of the scrub, in bytes a second, but for 0: off.
pub const SCRUB_RATE_MIN: u64 = 64 << 10;
/// Shortest time from the beginning of one pass of the scrub to that of the next.
pub const SCRUB_PASS_INTERVAL: Duration = Duration::from_secs(3600);
/// Damaged places that are listed; more are only counted.
pub const DAMAGED_PLACES_MAX: usize = 1000;
/// Most of a damaged range that is mended at one time while the log is open: it is held in memory, and nothing is released meanwhile.
pub const MEND_BYTES_MAX: u64 = 32 << 20;
/// How long housekeeping sleeps while the log does not grow.
pub const HOUSEKEEPING_NAP: Duration = Duration::from_secs(1);
/// Longest time between two looks at what housekeeping has to do, while it has nothing in hand.
pub const HOUSEKEEPING_INTERVAL: Duration = Duration::from_millis(50);

/// Largest write, and largest read, of the derived store.
pub const STORE_RUN_BYTES: usize = 256 << 10;
/// Written pages of the derived store that wait before a step of them goes to the file.
pub const STORE_STEP_BYTES: usize = 1 << 20;
/// Bytes that the derived store writes between two flushes: what a flush of the log may find in its way.
pub const STORE_SYNC_BYTES: usize = 4 << 20;
/// Smallest growth of the derived store's file.
pub const STORE_GROWTH_BYTES_MIN: u64 = 256 << 10;
/// Largest growth of the derived store's file, beyond what is needed at once.
pub const STORE_GROWTH_BYTES_MAX: u64 = 64 << 20;
/// Smallest cache of the derived store.
pub const STORE_CACHE_BYTES_MIN: usize = 256 << 10;

/// The largest frame that fits a segment of this size beside the epoch history at its head.
#[must_use]
pub const fn frame_bytes_max(segment_bytes: u64) -> u64 {
    let fits = segment_bytes - SEGMENT_HEADER_BYTES - EPOCH_FRAME_BYTES_MAX;
    if fits < FRAME_BYTES_MAX { fits } else { FRAME_BYTES_MAX }
}

/// The largest frame that restates the epoch history.
pub const EPOCH_FRAME_BYTES_MAX: u64 = 256 + EPOCH_HISTORY_MAX as u64 * 16;

const _: () = assert!(
    SEGMENT_BYTES_MIN > SEGMENT_HEADER_BYTES + EPOCH_FRAME_BYTES_MAX,
    "a history must fit the smallest segment"
);
const _: () = assert!(
    (COUNTERS_PER_BATCH * (QUEUE_NAME_BYTES_MAX + 64 + 16)) as u64 + 64
        < SEGMENT_BYTES_MIN - SEGMENT_HEADER_BYTES - EPOCH_FRAME_BYTES_MAX,
    "restated counters fit a frame of the smallest segment"
);
const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(IO_ALIGN as u64), "frames start on an I/O boundary");
const _: () = assert!(COLD_READ_BYTES.is_multiple_of(IO_ALIGN as u64) && SCAN_READ_BYTES.is_multiple_of(IO_ALIGN));
const _: () = assert!(AHEAD_READ_BYTES.is_multiple_of(COLD_READ_BYTES) && AHEAD_READ_BUSY_BYTES <= AHEAD_READ_BYTES);
const _: () = assert!(AHEAD_READ_BUSY_BYTES.is_multiple_of(COLD_READ_BYTES));
const _: () = assert!(STORE_RUN_BYTES.is_multiple_of(IO_ALIGN) && STORE_RUN_BYTES <= STORE_STEP_BYTES);
const _: () = assert!(SCRUB_PIECE_BYTES.is_multiple_of(IO_ALIGN as u64));
const _: () = assert!(MEND_BYTES_MAX > 2 * FRAME_BYTES_MAX, "a piece of a damaged range holds a whole frame");
const _: () = assert!(HAND_OVER_BYTES <= ASYNC_WRITE_BYTES_MAX, "a block that is due fits one write");
