//! The table: an ordered key-value map of small state that must survive, changed by write batches only.
//!
//! Invariants:
//! 1. What the table holds is a function of the log up to what is applied; nothing here is durable by itself.
//! 2. Readers see acknowledged changes only (the *visible* view); preconditions see every change that has a place (the *head* view).
//! 3. A snapshot shows the table at one LSN, whatever is applied after it.
//! 4. Under the append lock only memory is read: what a precondition asks for was fetched before.
//!
//! ```text
//!  append --- judge preconditions ---> head view (assigned, not yet dispatched)
//!                                        |  dispatch
//!                                        v
//!                                      visible view <--- get, scan, snapshot
//! ```

mod head;
mod layer;
mod places;
mod snapshot;
mod visible;

pub(crate) use head::{Fetched, HeadChange, HeadView, Held};
pub(crate) use layer::{Layer, Unsaved};
pub use snapshot::Snapshot;
pub use visible::TableEntry;
pub(crate) use visible::{Change, Visible};
