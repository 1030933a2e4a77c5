//! The manual: what there is to know before building on this crate. Nothing but text.
//!
//! 1. [Concepts](#concepts)
//! 2. [Writing](#writing)
//! 3. [Durability, and what each mode may lose](#durability-and-what-each-mode-may-lose)
//! 4. [Reading](#reading)
//! 5. [Errors: retry, reject or stop](#errors-retry-reject-or-stop)
//! 6. [Threads and driving](#threads-and-driving)
//! 7. [Space](#space)
//! 8. [Damage](#damage)
//! 9. [Replication](#replication)
//! 10. [Options and limits](#options-and-limits)
//! 11. [Injecting faults](#injecting-faults)
//! 12. [Examples to run](#examples-to-run)
//!
//! # Concepts
//! One directory holds one **log**: an endless sequence of bytes, in segment files of a fixed size. Everything else is a function of it.
//!
//! - An [`Lsn`] is a byte position in the log. It names one message for ever, or is "not found" once the message was released.
//! - A **batch** ([`WriteBatch`]) is a list of operations that happen together or not at all, also across a power failure.
//! - A **queue** ([`Queue`]) is a list of messages in the log, numbered by [`QueueOffset`] without gaps from 0. There may be many
//!   thousands in one log; they share its writes. A queue that was dropped and made again is another *incarnation* of its name.
//! - A **link** puts an earlier message into another queue, for the price of a few dozen bytes.
//! - The **table** is a small ordered map beside the queues, changed by the same batches. An entry may refer to a message, which is kept
//!   as long as the entry is.
//! - A **watermark** ([`Watermark`]) says how far the log has come. Each is an exclusive end and only grows:
//!
//! ```text
//!  start ............ dispatched ...... acked ...... durable ...... written ...... assigned
//!  oldest byte kept   readable          promised     on the disk    given to the   has a place
//!                     in queues                                     kernel
//! ```
//!
//! Under [`Flush::Async`] `acked` follows `assigned`, not `durable`.
//!
//! # Writing
//! | call | returns when | for |
//! |---|---|---|
//! | [`Engine::append`] | the batch has a place; sleeps while the buffer is full | many in flight, each with a [`Ticket`] |
//! | [`Engine::append_and_wait`] | it is acknowledged | one at a time; the quickest way to a single ack |
//! | [`Engine::try_append`] | at once | threads that must not sleep |
//! | [`Engine::append_all`] | as many as fit have a place | network threads with many batches: one lock, one wait |
//!
//! Whatever arrives while the device is busy is written together, next: nothing waits for a timer, and the more callers there are, the more
//! acks a flush brings. A [`Ticket`] can be waited for, polled as a future of any runtime, or dropped: the append goes on. A thread
//! with many appends in flight asks for no wake-up for each of them, but subscribes to the watermark ([`Engine::subscribe`]) and
//! compares [`AppendOutcome::end_lsn`] with it.
//!
//! A batch may name **preconditions** ([`WriteBatch::require_absent`], [`WriteBatch::require_value`], [`WriteBatch::require_next`]). They
//! are judged when the batch gets its place, against everything that got one before it; when one does not hold, nothing is stored and the
//! answer is [`AppendError::Rejected`].
//!
//! # Durability, and what each mode may lose
//! | [`Flush`] | acknowledged when | a killed process loses | a power failure loses |
//! |---|---|---|---|
//! | `Sync` (default) | the bytes are on stable storage | nothing acknowledged | nothing acknowledged |
//! | `Async { interval, bytes }` | the bytes are in the buffer | the last 10 ms, or 1 MiB | the last `interval`, or `bytes` |
//!
//! That holds on devices that keep their promise to flush, and longer times while a device stalls. What is lost is always the newest part,
//! never something in the middle. Readers see what is acknowledged; under `Async` they may so have seen what a crash then takes back,
//! and its offsets are given out again. [`Engine::flush`] makes everything appended so far durable in either mode, and so does
//! [`Engine::close`].
//!
//! [`Tail`] decides about the last, partly filled block of a commit: `Rewrite` (default) writes it again with what follows; `Pad` fills it
//! up, for media that can lose a whole block when a rewrite of it is torn. It is fixed when the log is created.
//!
//! After a crash, opening cuts a torn tail and says how many bytes that were ([`EngineInfo::recovery_cut_bytes`]). Damage *below* what is
//! known to have been durable is never cut: opening refuses with [`OpenError::Damaged`], with file, LSN, expected and found; or
//! with [`OpenError::Lost`], where only the last checkpoint knows. [`OpenError::case`] names the row of `engine/docs/recovery.md`, and
//! `anchorlog log` or the [`audit`](crate::audit) finds and mends it.
//!
//! # Reading
//! [`Engine::fetch`] reads a queue by offset, [`Engine::read`] one message by its LSN, [`Engine::get`] one table entry, and
//! [`Engine::snapshot`] the table at one moment. [`Engine::find`] looks for the messages that have a key, within a time, and
//! [`Engine::offset_by_time`] for the place of a time in a queue. The newest part of the log is in memory; what is older
//! comes from the disk, in pieces that disturb commits little. A thread that must not wait for the disk fetches with
//! `from_disk: false` and hands [`FetchStatus::NeedsDisk`] to one that may. To be told of a queue's next message, use [`Engine::watch`].
//!
//! # Errors: retry, reject or stop
//! Every error type answers `advice()` with an [`Advice`]:
//!
//! | [`Advice`] | what it means | for example |
//! |---|---|---|
//! | `Retry` | time may cure it; nothing was half done | [`AppendError::Full`], [`AppendError::OutOfSpace`], [`WaitError::TimedOut`] |
//! | `Reject` | this call is wrong as it is; others are not concerned | [`TooLarge`], [`AppendError::Rejected`], [`ReadError::Damaged`] |
//! | `Stop` | the engine or the directory serves such calls no more | [`Fenced`], [`OpenError::Damaged`] |
//!
//! The **fence** is the answer to the first failed write or flush: nothing is acknowledged any more, every waiter gets the error, nothing
//! is tried twice (a kernel that failed a flush may have dropped the bytes), and reading goes on. Opening the directory again finds out
//! what is there. A [`WaitError`] leaves open whether a batch is stored; an [`AppendError`] says that nothing of it is.
//!
//! # Threads and driving
//! The engine has three threads of its own: *commit* writes, *dispatch* brings what is acknowledged to the queues, *housekeeping* makes
//! segments ready, recycles them and scrubs. They sleep when there is nothing to do. There is no async runtime, and none is needed.
//! [`Engine`] is `Send` and `Sync`; share it behind an `Arc`. Dropping it closes it.
//!
//! Each of them is a thin driver of a state machine. With the feature `sim` and `EngineOptions::with_manual_drive` there are no
//! threads, and the caller drives all machines with `Engine::step`: the same code, in an order that repeats.
//!
//! # Space
//! The log grows until it is told otherwise: [`EngineOptions::with_retain_bytes`] bounds it by size, [`EngineOptions::with_retain_age`] by
//! age, [`EngineOptions::with_free_bytes_min`] by the space that is left, [`Engine::release`] by position; never above what
//! [`Engine::pin`] names, or the last checkpoint. What queues and table still need of a segment is written again before it goes. What a
//! table entry, a link or [`Engine::pin_queue`] still needs *survives*: it stays at its LSN, and the rest of its segment is punched out.
//! [`Engine::retention`] says what would go and what stands against it. A file that is
//! not needed any more becomes the next segment.
//!
//! A batch gets a place only in a segment that stands ready, allocated, so nothing that was taken can meet a **full disk**. When no
//! further segment can be made (no space, a quota, a limit on the length of files), ordinary batches are refused with
//! [`AppendError::OutOfSpace`]; nothing that is stored is at risk, and reading goes on. Behind what they may use stands a **reserve**:
//! [`EngineOptions::with_reserve_bytes`] for batches with [`WriteBatch::set_essential`], such as offsets, deletions and whatever else
//! leads to space, and two segments more for what the engine writes again before it releases one. So a full disk can always be emptied,
//! by [`Engine::release`] or from outside, and appends are taken again by themselves. [`Engine::space`] says how much is left and why;
//! the log says once when it begins, and once when it is over. While queues and table find no room for a checkpoint, releasing goes on
//! without one, and the next opening reads the whole log; when too much of them waits in memory, ordinary batches are refused for that,
//! too. A file system that cannot allocate ahead, or a volume that runs out under files it has, can still fail a write: that fences the
//! log.
//!
//! # Damage
//! Every record that is handed out is verified by its checksum, every time. One that is damaged is [`ReadError::Damaged`], for itself
//! alone: what lies before and behind it is served, so a consumer goes on at the next offset. In the background a **scrub** reads the
//! closed segments at [`EngineOptions::with_scrub_rate`] and finds damage before a reader does. Both count in [`EngineStats`], list
//! the place in [`Engine::damaged_places`], and log one line for it.
//!
//! # Replication
//! The engine knows no peer and no socket. Whoever connects two logs finds here what it takes:
//!
//! | side | calls |
//! |---|---|
//! | leader ([`Role::Leader`], the default) | [`Engine::log_bytes`] from any LSN on, [`Engine::set_replicated`] when others have it, [`Engine::set_ack_rule`] |
//! | replica ([`Role::Replica`]) | [`Engine::receive`], and its durable watermark to tell the leader; [`Engine::set_replicated`] for what the leader says is acknowledged |
//! | both | [`Engine::identity`], [`Engine::history`]: whether two logs are one, and up to where |
//! | a closed log | [`replica::cut`](crate::replica::cut) where it went another way, [`replica::Seeding`](crate::replica::Seeding) to begin, [`replica::Promise`](crate::replica::Promise) |
//!
//! With [`EngineOptions::with_replicated_acks`] an append is acknowledged when it is durable here (or in the buffer, by the flush mode) *and*
//! replicated. A replica takes over whole frames at the same LSN, after checking each as recovery would; it refuses appends, begins no
//! epoch, and releases nothing but what the leader's records say. Readers of both see what is acknowledged, and a restart shows no more.
//! [`Role::Leader`] with a higher term makes a replica the leader: everything that it has is there.
//!
//! # Options and limits
//! Every setter of [`EngineOptions`] says default, bounds and unit; a value out of bounds fails [`Engine::open`] by name.
//!
//! | option | default | bounds | unit |
//! |---|---|---|---|
//! | [`with_segment_bytes`](EngineOptions::with_segment_bytes) (fixed at creation) | 64 MiB | 64 KiB to 1 GiB, a multiple of 4096 | bytes |
//! | [`with_flush`](EngineOptions::with_flush) | `Sync` | interval and bytes above 0 | time, bytes |
//! | [`with_tail`](EngineOptions::with_tail) (fixed at creation) | `Rewrite` | | |
//! | [`with_backend`](EngineOptions::with_backend) | `Auto` | | |
//! | [`with_remeasure`](EngineOptions::with_remeasure) | off | | |
//! | [`with_commit_depth`](EngineOptions::with_commit_depth) | 1 | 1 to 16 | writes |
//! | [`with_buffer_bytes`](EngineOptions::with_buffer_bytes) | 32 MiB | from the largest frame | bytes |
//! | [`with_cache_bytes`](EngineOptions::with_cache_bytes) | 128 MiB | from the buffer and two chunks | bytes |
//! | [`with_chunk_bytes`](EngineOptions::with_chunk_bytes) | 1 MiB | 4096 to 64 MiB, a power of two | bytes |
//! | [`with_retain_bytes`](EngineOptions::with_retain_bytes) | none | from two segments | bytes |
//! | [`with_retain_age`](EngineOptions::with_retain_age) | none | | time |
//! | [`with_free_bytes_min`](EngineOptions::with_free_bytes_min) | none | from 1 | bytes |
//! | [`with_retention_held`](EngineOptions::with_retention_held) | off | | |
//! | [`with_checkpoint_interval`](EngineOptions::with_checkpoint_interval) | 5 s | from 10 ms, or none | time |
//! | [`with_checkpoint_bytes`](EngineOptions::with_checkpoint_bytes) | 256 MiB | from 64 KiB | bytes |
//! | [`with_checkpoint_cache_bytes`](EngineOptions::with_checkpoint_cache_bytes) | 64 MiB | from 1 MiB | bytes |
//! | [`with_unsaved_bytes_max`](EngineOptions::with_unsaved_bytes_max) | 512 MiB | from 64 KiB | bytes |
//! | [`with_spare_count`](EngineOptions::with_spare_count) | 2 | 0 to 16 | segments |
//! | [`with_reserve_bytes`](EngineOptions::with_reserve_bytes) | a segment | from 64 KiB | bytes |
//! | [`with_role`](EngineOptions::with_role) | `Leader` of the log's term | a higher term | |
//! | [`with_replicated_acks`](EngineOptions::with_replicated_acks) | off | | |
//! | [`with_scrub_rate`](EngineOptions::with_scrub_rate) | 8 MiB | 0, or from 64 KiB | bytes a second |
//!
//! Every other bound has a name in [`limits`](crate::limits): the largest batch ([`EngineOptions::frame_bytes_max`] for a given segment
//! size), records of a batch, lengths of names, keys, attributes and table values, queues of a log. What is too large is refused
//! with a [`TooLarge`] that says what, how large, and the limit.
//!
//! # Injecting faults
//! With the feature `sim` there is a simulated disk, `io::sim::SimDisk`, that runs under the production code through
//! [`Engine::open_with`]. It keeps what is durable apart from what is merely written, numbers every I/O, and does on demand what disks
//! do: fails the n-th write or flush, loses power after the n-th I/O with unflushed writes lost or torn by sector, fills up, flips
//! bits, breaks sectors, loses files. One seed gives one run, so a failure repeats. Never enable it in a release build.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use anchorlog_engine::io::sim::{IoClass, SimDisk, Survival, Times};
//! # use anchorlog_engine::{Append, EngineOptions, Engine, QueueOffset, WriteBatch, Advice, SystemClock};
//! # use std::sync::Arc;
//! # let options = EngineOptions::default().with_segment_bytes(1 << 20);
//! let disk = SimDisk::new(17); // the seed
//! let engine = Engine::open_with(disk.backend(), Arc::new(SystemClock::new()), "/log", options.clone())?;
//! let queue = engine.queue(b"orders")?;
//! let message = || {
//!     let mut batch = WriteBatch::new();
//!     batch.append(&Append { queue: &queue, tag: 0, keys: &[], attributes: b"", payload: &[b"three anchors"] }).map(|_| batch)
//! };
//! engine.append_and_wait(message()?)?;
//! disk.fail(IoClass::Write, disk.count(IoClass::Write) + 1, 5, Times::Once); // EIO
//! let error = engine.append_and_wait(message()?).unwrap_err();
//! assert_eq!(error.advice(), Advice::Stop);
//! drop(engine);
//!
//! let disk = disk.crash_with(17, Survival::Nothing); // the power fails: what was not flushed is gone
//! let engine = Engine::open_with(disk.backend(), Arc::new(SystemClock::new()), "/log", options)?;
//! assert_eq!(engine.range(&engine.queue(b"orders")?).max, QueueOffset(1), "what was acknowledged is there");
//! # Ok(())
//! # }
//! ```
//!
//! # Examples to run
//! In `engine/examples/`; `cargo run -p anchorlog-engine --example NAME`.
//!
//! | name | shows |
//! |---|---|
//! | `sync_append` | an append that is on the disk when the call returns |
//! | `async_flush` | acks before the disk has the bytes, and when it has |
//! | `group_commit` | many threads, few flushes |
//! | `futures` | tickets as futures, without a runtime |
//! | `watermark_subscription` | one descriptor for the acks of many appends |
//! | `tail_reader` | following a queue as it grows |
//! | `outbox` | links and table: a message and the note that it is to be sent, atomically |
//! | `recover_after_a_crash` | a killed process, and what the next one finds |
//! | `inject_faults` | a simulated disk that fails and loses power |
//! | `retention` | what goes, what a pin holds, and what is written again |

#[expect(unused_imports, reason = "the text refers to them")]
use crate::{
    Advice, AppendError, AppendOutcome, Engine, EngineInfo, EngineOptions, EngineStats, Fenced, FetchStatus, Flush,
    Lsn, OpenError, Queue, QueueOffset, ReadError, Role, Tail, Ticket, TooLarge, WaitError, Watermark, WriteBatch,
};
