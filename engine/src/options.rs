//! What an embedder may choose. Bad choices fail at [`crate::Engine::open`], by name.

use std::time::Duration;

use crate::error::OptionsError;
use crate::fault::Broken;
#[cfg(feature = "sim")]
pub use crate::fault::Fault;
pub use crate::io::probe::BackendChoice;
use crate::limits;
use crate::replica::Role;

/// When an append is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// After its bytes are durable. A power failure loses nothing that was acknowledged.
    Sync,
    /// After its bytes are in the log buffer. They are handed to the kernel within [`limits::HAND_OVER_DELAY`] or
    /// [`limits::HAND_OVER_BYTES`], whichever comes first (later while the device stalls: a block that is in flight is not written again):
    /// until then a killed process loses them; until the next flush, by `interval` or `bytes`, a power failure does.
    Async {
        /// Longest time between two flushes while something is unflushed.
        interval: Duration,
        /// Unflushed bytes that cause a flush earlier.
        bytes: u64,
    },
}

impl Flush {
    /// [`Flush::Async`] with a flush every 500 ms or 64 MiB.
    #[must_use]
    pub const fn async_default() -> Flush {
        Flush::Async { interval: Duration::from_millis(500), bytes: 64 << 20 }
    }
}

/// What happens to the rest of the last block of a commit. Fixed when the log is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// The partial block is written again by the next commit, together with what follows.
    Rewrite,
    /// It is padded, so that no acknowledged byte is ever written twice: for media that can lose a whole block when torn.
    Pad,
}

/// Who calls the machines' `step()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drivers {
    /// One thread per machine.
    Threads,
    /// The caller, through `Engine::step`.
    #[cfg(feature = "sim")]
    Manual,
}

/// Options of [`crate::Engine::open`]. Every setter names its default and its bounds.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    pub(crate) segment_bytes: u64,
    pub(crate) flush: Flush,
    pub(crate) tail: Tail,
    pub(crate) backend: BackendChoice,
    pub(crate) remeasure: bool,
    pub(crate) commit_depth: usize,
    pub(crate) commit_bytes_max: u64,
    pub(crate) buffer_bytes: u64,
    pub(crate) cache_bytes: u64,
    pub(crate) chunk_bytes: u64,
    pub(crate) retain_bytes: Option<u64>,
    pub(crate) retain_age: Option<Duration>,
    pub(crate) free_bytes_min: Option<u64>,
    pub(crate) retention_held: bool,
    pub(crate) spare_count: usize,
    pub(crate) reserve_bytes: Option<u64>,
    pub(crate) checkpoint_interval: Option<Duration>,
    pub(crate) checkpoint_bytes: u64,
    pub(crate) checkpoint_cache_bytes: usize,
    pub(crate) unsaved_bytes_max: u64,
    pub(crate) scrub_rate: u64,
    pub(crate) role: Role,
    pub(crate) replicated_acks: bool,
    pub(crate) drivers: Drivers,
    #[cfg(feature = "sim")]
    pub(crate) fault: Option<Fault>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            segment_bytes: 64 << 20,
            flush: Flush::Sync,
            tail: Tail::Rewrite,
            backend: BackendChoice::Auto,
            remeasure: false,
            commit_depth: 1,
            commit_bytes_max: 4 << 20,
            buffer_bytes: 32 << 20,
            cache_bytes: 128 << 20,
            chunk_bytes: 1 << 20,
            retain_bytes: None,
            retain_age: None,
            free_bytes_min: None,
            retention_held: false,
            spare_count: 2,
            reserve_bytes: None,
            checkpoint_interval: Some(Duration::from_secs(5)),
            checkpoint_bytes: 256 << 20,
            checkpoint_cache_bytes: 64 << 20,
            unsaved_bytes_max: 512 << 20,
            scrub_rate: 8 << 20,
            role: Role::default(),
            replicated_acks: false,
            drivers: Drivers::Threads,
            #[cfg(feature = "sim")]
            fault: None,
        }
    }
}

impl EngineOptions {
    /// Size of one segment file in bytes, its 4 KiB header included. Only used when the log is created.
    ///
    /// Default: 64 MiB. Minimum: 64 KiB. Maximum: 1 GiB. A multiple of 4096.
    #[must_use]
    pub fn with_segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// When an append is acknowledged. Default: [`Flush::Sync`]. Of [`Flush::Async`], neither interval nor bytes may be zero.
    #[must_use]
    pub fn with_flush(mut self, flush: Flush) -> Self {
        self.flush = flush;
        self
    }

    /// What happens to the rest of a commit's last block. Only used when the log is created. Default: [`Tail::Rewrite`].
    #[must_use]
    pub fn with_tail(mut self, tail: Tail) -> Self {
        self.tail = tail;
        self
    }

    /// The I/O backend. Default: [`BackendChoice::Auto`], which measures both real ones once and keeps the verdict beside the log.
    #[must_use]
    pub fn with_backend(mut self, backend: BackendChoice) -> Self {
        self.backend = backend;
        self
    }

    /// Measures the backends again, even where a verdict lies beside the log. Default: off.
    #[must_use]
    pub fn with_remeasure(mut self, remeasure: bool) -> Self {
        self.remeasure = remeasure;
        self
    }

    /// Durable writes in flight at once. On a device without FUA more than one is slower.
    ///
    /// Default: 1. Minimum: 1. Maximum: 16.
    #[must_use]
    pub fn with_commit_depth(mut self, depth: usize) -> Self {
        self.commit_depth = depth;
        self
    }

    /// Bytes that may be appended and not yet written; beyond that appends wait ([`crate::Engine::append`]) or are refused
    /// ([`crate::Engine::try_append`]).
    ///
    /// Default: 32 MiB. Minimum: one batch of the largest size that fits a segment, or 8 MiB, whichever is smaller.
    #[must_use]
    pub fn with_buffer_bytes(mut self, bytes: u64) -> Self {
        self.buffer_bytes = bytes;
        self
    }

    /// How many of the newest bytes of the log stay in memory for readers, the buffer included.
    ///
    /// Default: 128 MiB. Minimum: [`EngineOptions::with_buffer_bytes`] and two chunks.
    #[must_use]
    pub fn with_cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Size in bytes of the pieces that buffer and cache are made of.
    ///
    /// Default: 1 MiB. Minimum: 4096. Maximum: 64 MiB. A power of two.
    #[must_use]
    pub fn with_chunk_bytes(mut self, bytes: u64) -> Self {
        self.chunk_bytes = bytes;
        self
    }

    /// Recycles the oldest segments, below every pin, once the log is longer than so many bytes. What is to go waits for a checkpoint, and
    /// for the log to say so durably. Appends that are faster than that wait, or are refused ([`crate::AppendError::Unreleased`]), when the
    /// log is [`limits::OVERSHOOT_SEGMENTS`] and [`EngineOptions::with_spare_count`] segments longer still; batches with
    /// [`crate::WriteBatch::set_essential`] go on, and a log that a pin holds from its first segment on grows.
    ///
    /// Default: `None`, nothing is recycled. Minimum: two segments, of the length that the log has.
    #[must_use]
    pub fn with_retain_bytes(mut self, bytes: Option<u64>) -> Self {
        self.retain_bytes = bytes;
        self
    }

    /// Releases segments whose newest message is older than this by the wall clock, below every pin.
    ///
    /// Default: none, nothing is released for its age. Unit: a [`Duration`], of which whole milliseconds count.
    #[must_use]
    pub fn with_retain_age(mut self, age: Option<Duration>) -> Self {
        self.retain_age = age;
        self
    }

    /// Releases the oldest segments, below every pin, while the file system has fewer free bytes than this.
    ///
    /// Default: none, free space is not looked at. Minimum: 1.
    #[must_use]
    pub fn with_free_bytes_min(mut self, bytes: Option<u64>) -> Self {
        self.free_bytes_min = bytes;
        self
    }

    /// Releases nothing before [`crate::Engine::start_retention`]: for those who have pins to set first.
    ///
    /// Default: false.
    #[must_use]
    pub fn with_retention_held(mut self, held: bool) -> Self {
        self.retention_held = held;
        self
    }

    /// Zero-filled segments kept ready beside the reserve, so that the log goes on at full rate when one is full; each takes its size on
    /// the disk.
    ///
    /// Default: 2. Minimum: 0. Maximum: 16.
    #[must_use]
    pub fn with_spare_count(mut self, count: usize) -> Self {
        self.spare_count = count;
        self
    }

    /// Bytes of prepared log that only batches with [`crate::WriteBatch::set_essential`] may use when no further segment can be made (a
    /// full disk, a quota). Behind them stand two segments more, in which the engine restates what must outlive a segment that is
    /// released. All of it is allocated ahead, beside the spare segments.
    ///
    /// Default: `None`, one segment. Minimum: 64 KiB.
    #[must_use]
    pub fn with_reserve_bytes(mut self, bytes: Option<u64>) -> Self {
        self.reserve_bytes = bytes;
        self
    }

    /// Longest time between two checkpoints while the log grows: what opening has to read is what was appended since the last
    /// one. With `None`
    /// there are none, opening reads the whole retained log, and all of queues and table stays in memory.
    ///
    /// Default: 5 s. Minimum: 10 ms.
    #[must_use]
    pub fn with_checkpoint_interval(mut self, interval: Option<Duration>) -> Self {
        self.checkpoint_interval = interval;
        self
    }

    /// Bytes of log after which a checkpoint begins earlier. Default: 256 MiB. Minimum: 64 KiB.
    #[must_use]
    pub fn with_checkpoint_bytes(mut self, bytes: u64) -> Self {
        self.checkpoint_bytes = bytes;
        self
    }

    /// Memory for pages of the derived store. Default: 64 MiB. Minimum: 1 MiB.
    #[must_use]
    pub fn with_checkpoint_cache_bytes(mut self, bytes: usize) -> Self {
        self.checkpoint_cache_bytes = bytes;
        self
    }

    /// Memory, about, that queues, table and key index may take while they wait for a checkpoint, or are being written by one. Checkpoints
    /// begin at a quarter of it; while a log is opened that has none, at half of it, and only where it would not do for the whole log.
    /// Where they cannot keep up, appends wait or are refused ([`crate::AppendError::Behind`]) rather than memory growing on; batches with
    /// [`crate::WriteBatch::set_essential`] may go to twice as much. Without checkpoints there is no such bound.
    ///
    /// Default: 512 MiB. Minimum: 64 KiB.
    #[must_use]
    pub fn with_unsaved_bytes_max(mut self, bytes: u64) -> Self {
        self.unsaved_bytes_max = bytes;
        self
    }

    /// Bytes a second that the scrub reads of closed segments, to find damage before a reader does; it rests after a full pass until an
    /// hour has passed since the pass began.
    ///
    /// Default: 8 MiB a second. Minimum: 64 KiB a second, or 0: no scrub.
    #[must_use]
    pub fn with_scrub_rate(mut self, bytes_per_second: u64) -> Self {
        self.scrub_rate = bytes_per_second;
        self
    }

    /// Whether this log gives out places or takes over what another one did.
    ///
    /// Default: [`Role::Leader`] of the log's own term.
    #[must_use]
    pub fn with_role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// Whether acknowledgement waits for what [`crate::Engine::set_replicated`] tells, beside the flush mode. A replica's always does.
    ///
    /// Default: false.
    #[must_use]
    pub fn with_replicated_acks(mut self, replicated_acks: bool) -> Self {
        self.replicated_acks = replicated_acks;
        self
    }

    pub(crate) fn waits_for_replicas(&self) -> bool {
        self.replicated_acks || self.role == Role::Replica
    }

    /// No threads: the caller drives every machine with `Engine::step` (feature `sim`). Default: one thread per machine.
    #[cfg(feature = "sim")]
    #[must_use]
    pub fn with_manual_drive(mut self) -> Self {
        self.drivers = Drivers::Manual;
        self
    }

    /// Breaks one promise on purpose (feature `sim`). Default: none.
    #[cfg(feature = "sim")]
    #[must_use]
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    pub(crate) fn broken(&self) -> Broken {
        #[cfg(feature = "sim")]
        return Broken::only(self.fault);
        #[cfg(not(feature = "sim"))]
        return Broken::default();
    }

    /// When an append is acknowledged.
    #[must_use]
    pub fn flush(&self) -> Flush {
        self.flush
    }

    /// The largest batch, encoded as a frame, that this log takes.
    #[must_use]
    pub fn frame_bytes_max(&self) -> u64 {
        limits::frame_bytes_max(self.segment_bytes)
    }

    /// What depends on how long the segments of the log are: an existing log has segments of its own.
    pub(crate) fn validate_for(&self, segment_bytes: u64) -> Result<(), OptionsError> {
        match self.retain_bytes {
            Some(found) if found < 2 * segment_bytes => {
                let least = 2 * segment_bytes;
                let want = format!("at least {least}, two segments of this log").into();
                Err(OptionsError { option: "retain_bytes", found, want })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn validate(&self) -> Result<(), OptionsError> {
        let check = |ok: bool, option: &'static str, found: u64, want: &'static str| {
            if ok { Ok(()) } else { Err(OptionsError { option, found, want: want.into() }) }
        };
        let segment_ok = self.segment_bytes.is_multiple_of(4096)
            && (limits::SEGMENT_BYTES_MIN..=limits::SEGMENT_BYTES_MAX).contains(&self.segment_bytes);
        check(segment_ok, "segment_bytes", self.segment_bytes, "a multiple of 4096 from 64 KiB to 1 GiB")?;
        check(
            (1..=limits::COMMIT_DEPTH_MAX).contains(&self.commit_depth),
            "commit_depth",
            self.commit_depth as u64,
            "1 to 16",
        )?;
        check(
            self.chunk_bytes.is_power_of_two() && self.chunk_bytes >= 4096 && self.chunk_bytes <= 64 << 20,
            "chunk_bytes",
            self.chunk_bytes,
            "a power of two from 4096 to 64 MiB",
        )?;
        check(
            self.buffer_bytes >= self.frame_bytes_max(),
            "buffer_bytes",
            self.buffer_bytes,
            "at least the largest frame (8 MiB, or what fits a segment)",
        )?;
        check(
            self.cache_bytes >= self.buffer_bytes + 2 * self.chunk_bytes,
            "cache_bytes",
            self.cache_bytes,
            "at least buffer_bytes and two chunks",
        )?;
        check(self.spare_count <= limits::SPARE_COUNT_MAX, "spare_count", self.spare_count as u64, "0 to 16")?;
        check(
            self.reserve_bytes.is_none_or(|bytes| bytes >= limits::RESERVE_BYTES_MIN),
            "reserve_bytes",
            self.reserve_bytes.unwrap_or(0),
            "at least 64 KiB",
        )?;
        check(
            self.checkpoint_interval.is_none_or(|interval| interval >= Duration::from_millis(10)),
            "checkpoint_interval",
            self.checkpoint_interval.map_or(0, |interval| u64::try_from(interval.as_micros()).unwrap_or(u64::MAX)),
            "at least 10 ms",
        )?;
        check(self.checkpoint_bytes >= 64 << 10, "checkpoint_bytes", self.checkpoint_bytes, "at least 64 KiB")?;
        let cache_bytes = self.checkpoint_cache_bytes as u64;
        check(cache_bytes >= 1 << 20, "checkpoint_cache_bytes", cache_bytes, "at least 1 MiB")?;
        check(
            self.unsaved_bytes_max >= limits::UNSAVED_BYTES_MIN,
            "unsaved_bytes_max",
            self.unsaved_bytes_max,
            "at least 64 KiB",
        )?;
        check(
            self.scrub_rate == 0 || self.scrub_rate >= limits::SCRUB_RATE_MIN,
            "scrub_rate",
            self.scrub_rate,
            "0, or at least 64 KiB a second",
        )?;
        if let Flush::Async { interval, bytes } = self.flush {
            check(!interval.is_zero(), "flush interval", 0, "more than zero")?;
            check(bytes > 0, "flush bytes", 0, "more than zero")?;
        }
        Ok(())
    }
}
