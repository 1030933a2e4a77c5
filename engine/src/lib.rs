//! A durable commitlog with consume queues, for message brokers.
pub mod batch;
pub mod clock;
pub mod commitlog;
pub mod engine;
pub mod error;
pub mod io;
pub mod limits;
pub mod options;
pub mod read;
pub mod units;

pub use batch::{Append, AppendOutcome, Queue, RecordPosition, WriteBatch};
pub use clock::{Clock, SystemClock};
pub use commit::{Subscription, Ticket, Watcher, Watermark, Watermarks};
pub use engine::{Engine, EngineInfo, EngineStats, ReleaseOutcome};
pub use error::{AppendError, Fenced, OpenError, ReadError, ReleaseError, TooLarge, WaitError};
pub use options::{BackendChoice, EngineOptions, Flush, Tail};
pub use read::{Fetch, FetchOutcome, FetchStatus, Message, QueueRange};
pub use units::{Epoch, Lsn, QueueOffset};
pub mod commit;
