//! A durable, embeddable commitlog with consume queues, links and a table.
//!
//! Many messages, many queues, one log: appends are write batches that are there after a power failure as a whole, or not at all, and
//! are acknowledged when they are on the disk, many of them with one flush. Messages are read back through queues, by offset.
//!
//! ```
//! use anchorlog_engine::{Append, Engine, EngineOptions, Fetch, QueueOffset, WriteBatch};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! let engine = Engine::open(dir, EngineOptions::default().with_segment_bytes(1 << 20))?;
//! let orders = engine.queue(b"orders")?;
//!
//! let mut batch = WriteBatch::new();
//! batch.append(&Append { queue: &orders, tag: 0, keys: &[], attributes: b"", payload: &[b"three anchors"] })?;
//! engine.append_and_wait(batch)?; // returns when the bytes are on the disk
//!
//! let found = engine.fetch(&Fetch::new(&orders, QueueOffset(0)))?;
//! assert_eq!(found.messages[0].payload(), b"three anchors");
//! engine.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Where to go on
//! The [`manual`] has the concepts, what each durability mode may lose, what to do about each error, threads, space, damage, every option
//! and limit, and how to inject faults. `engine/examples/` has ten programs to run. [`Engine`] and [`EngineOptions`] are the two
//! types to begin with.
//!
//! No async runtime, at most 20 crates. Linux only: it writes with direct I/O, through `io_uring` or plain system calls,
//! whichever is measured to be better on the disk at hand.
//!
//! # Features
//! - `sim`: the simulated disk and clock, driving by hand, and engines that break one promise each to test the tests. Never part of a
//!   release build.
//!
//! # Modules
//! Dependencies point downwards; nothing here knows a wire protocol, a socket or a peer.
//!
//! | room | what lives there |
//! |---|---|
//! | [`engine`] | opening, appending, reading, closing: wiring |
//! | [`commit`] | the append lock, the log buffer, the one writer, watermarks, tickets |
//! | `dispatch`, [`consume_queue`], [`table`], [`key_index`] | from the log to queues, table and what messages are found by |
//! | `recovery`, `retention`, `housekeeping` | the log's end after a crash; its beginning; segments ahead of need |
//! | `scrub`, `damage` | rot found before a reader does; what is known of it |
//! | `store` | one file for what is derived from the log, as it was at one LSN: may be lost, is never wrong |
//! | [`commitlog`] | frames, records, segments, the manifest: bytes on disk (`engine/docs/format.md`) |
//! | [`replica`] | a log that follows another one: taking over, cutting, beginning, promising |
//! | [`audit`] | a log from outside: what it holds, where it is damaged, mending it |
//! | [`io`] | the seam: `io_uring`, plain system calls, or the simulated disk |

pub mod audit;
pub mod batch;
mod checkpoint;
pub mod clock;
pub mod commit;
pub mod commitlog;
pub mod consume_queue;
mod damage;
mod dispatch;
mod drivers;
pub mod engine;
pub mod epoch;
pub mod error;
mod fault;
mod housekeeping;
pub mod io;
pub mod key_index;
pub mod limits;
pub mod manual;
mod mend;
mod open;
pub mod options;
pub mod read;
mod recovery;
pub mod replica;
mod retention;
mod scrub;
mod store;
pub mod table;
pub mod units;

pub use batch::{
    Append, AppendOutcome, BatchMark, Link, MessageRef, Precondition, Put, Queue, RecordIndex, RecordPosition, Target,
    WriteBatch,
};
pub use clock::{Clock, SystemClock};
pub use commit::{FlushStats, HistogramCounts, Space, Subscription, Ticket, Watcher, Watermark, Watermarks};
pub use damage::{DamagedPart, DamagedPlace};
pub use engine::{AppendOrWaitError, Engine, EngineInfo, EngineStats, ReleaseOutcome};
pub use epoch::{EpochHistory, EpochStart};
pub use error::{
    Advice, AppendError, BatchError, Fenced, OpenError, ReadError, Rejection, ReleaseError, TooLarge, WaitError,
};
pub use key_index::{KeyOrder, KeyQuery};
pub use mend::{DamagedRange, MendError, Mended};
pub use options::{BackendChoice, EngineOptions, Flush, Tail};
pub use read::{Fetch, FetchOutcome, FetchStatus, Message, QueueRange};
pub use recovery::cases::{CaseOutcome, RECOVERY_CASES, RecoveryCase};
pub use replica::{AckRule, LogAlong, LogIdentity, LogPiece, ReceiveError, Received, Role};
pub use retention::RetentionInfo;
pub use table::{Snapshot, TableEntry};
pub use units::{Epoch, Lsn, QueueOffset};
