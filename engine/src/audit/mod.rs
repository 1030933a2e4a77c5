//! Looking at a log from outside, and mending it: what stands behind `anchorlog log`.
//!
//! Promises:
//! 1. Reading tools take no lock and change nothing; they work on a directory that another process has open. Its tail may move meanwhile:
//!    [`Survey::is_moving`] says whether it did.
//! 2. A directory is called damaged when opening would refuse it because of its bytes or names; every damaged place is found, not only the
//!    first.
//! 3. A repair holds the directory, acts on what its caller named and on nothing else, keeps what it replaces aside in `*.damaged` files,
//!    and may be cut short by a power failure at any I/O: it is called again with the same words and ends the same.
//!
//! Nothing is printed here: reports and visitors only. Deliberately not here: logs that are open (`mend`), and whoever fetches a copy
//! over a network.

mod aside;
mod files;
mod give_up;
mod repair;
mod survey;
mod survivors;
mod walk;

pub use files::Trouble;
pub(crate) use files::{FoundSegment, LogFiles};
pub use give_up::{GiveUpReport, give_up};
pub use repair::{CutReport, Lost, MendReport, Mended, RepairError, cut_from, mend_from_copy};
pub use survey::{Contents, Damage, QueueContents, SegmentContents, Survey, survey};
pub use walk::{Item, dump};
pub(crate) use walk::{Step, Walk};
