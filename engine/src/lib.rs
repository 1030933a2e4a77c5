//! A durable commitlog with consume queues, for message brokers.
//!
//! Appends are write batches: all of a batch is there after a crash, or none of it. They are acknowledged when they are durable
//! ([`Flush::Sync`]), many of them with one flush of the device; or when they are in memory ([`Flush::Async`]), for those who want to know
//! what durability costs. Messages are read back through queues, by offset.
//!
//! ```
//! use anchorlog_engine::{Append, Engine, EngineOptions, Fetch, QueueOffset, WriteBatch};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! let engine = Engine::open(dir, EngineOptions::default().with_segment_bytes(1 << 20))?;
//! let orders = engine.queue(b"orders/0")?;
//!
//! let mut batch = WriteBatch::new();
//! batch.append(&Append { queue: &orders, tag: 0, keys: &[b"order-17"], attributes: b"", payload: &[b"three anchors"] })?;
//! let outcome = engine.append(batch)?.wait()?; // returns when the bytes are on the disk
//! assert_eq!(outcome.first.queue_offset, QueueOffset(0));
//!
//! let found = engine.fetch(&Fetch {
//!     queue: &orders,
//!     from: QueueOffset(0),
//!     messages_max: 32,
//!     bytes_max: 256 << 10,
//!     scan_max: 1000,
//!     from_disk: true,
//!     matches: &|_tag| true,
//! })?;
//! assert_eq!(found.messages[0].payload(), b"three anchors");
//! engine.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Modules
//! Dependencies point downwards; nothing here knows a wire protocol, a socket or a peer.
//!
//! | room | what lives there |
//! |---|---|
//! | [`engine`] | opening, appending, reading, closing: wiring |
//! | [`commit`] | the append lock, the log buffer, the one writer, watermarks, tickets |
//! | `dispatch`, [`consume_queue`] | from the log to queues |
//! | `recovery`, `retention`, `housekeeping` | the log's end after a crash; its beginning; segments ahead of need |
//! | [`commitlog`] | frames, records, segments, the manifest: bytes on disk (`engine/docs/format.md`) |
//! | [`audit`] | a log from outside: what it holds, where it is damaged, mending it |
//! | [`io`] | the seam: `io_uring`, plain system calls, or the simulated disk |

pub mod audit;
pub mod batch;
pub mod clock;
pub mod commit;
pub mod commitlog;
pub mod consume_queue;
mod dispatch;
mod drivers;
pub mod engine;
pub mod epoch;
pub mod error;
mod housekeeping;
pub mod io;
pub mod limits;
mod open;
pub mod options;
pub mod read;
mod recovery;
mod retention;
pub mod units;

pub use batch::{Append, AppendOutcome, Queue, RecordPosition, WriteBatch};
pub use clock::{Clock, SystemClock};
pub use commit::{Subscription, Ticket, Watcher, Watermark, Watermarks};
pub use engine::{AppendOrWaitError, Engine, EngineInfo, EngineStats, ReleaseOutcome};
pub use error::{AppendError, Fenced, OpenError, ReadError, ReleaseError, TooLarge, WaitError};
pub use options::{BackendChoice, EngineOptions, Flush, Tail};
pub use read::{Fetch, FetchOutcome, FetchStatus, Message, QueueRange};
pub use recovery::cases::{CaseOutcome, RECOVERY_CASES, RecoveryCase};
pub use units::{Epoch, Lsn, QueueOffset};
