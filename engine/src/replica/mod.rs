//! A log that follows another one: byte for byte, at the same LSN.
//!
//! The engine knows no peer. It hands out bytes of its log ([`crate::Engine::log_bytes`]), takes over those of another one
//! ([`crate::Engine::receive`]), and is told how far others have it ([`crate::Engine::set_replicated`]); who sends what to whom is not
//! its concern.
//!
//! Promises:
//! 1. A replica's log holds the bytes of its leader's at the same LSN, and nothing else: it appends nothing of its own.
//! 2. A frame is taken whole, after header, predecessor, epoch and every record were checked; one of an older epoch never is.
//! 3. A newer epoch is durable in the manifest, and everything before it in the log, before a byte of it is taken.
//! 4. Readers see what the leader says is acknowledged, as far as it is kept here by the flush mode; a restart does not show more.
//!
//! ```text
//!  leader: append -> buffer -> disk            replica: receive -> buffer -> disk -> durable
//!                      '-- log_bytes ~~~~~~~~~~~~~~~~~~~^                              |
//!          acked = min(durable, replicated) <~~~~~~~~~ set_replicated ~~~~~~~~~~~~~~~~~'
//! ```

mod cut;
mod files;
mod given_up;
mod piece;
mod promise;
mod receive;
mod role;
mod seed;
mod side;

pub use cut::{CutError, CutReport, cut};
pub(crate) use cut::{named as named_cut, resume as resume_cut};
pub use given_up::{GivenUp, forget, given_up};
pub use piece::LogPiece;
pub use promise::{Promise, PromiseError, is_one_of_several};
pub use receive::{ReceiveError, Received};
pub(crate) use receive::{Taken, TakenStop};
pub use role::{AckRule, LogIdentity, Role};
pub(crate) use seed::SEED_NAME;
pub use seed::{Seed, SeedError, Seeding, SparseSegment, give_up, wipe};
pub use side::SideBlock;
pub(crate) use side::{SIDE_NAME, SideKeeper};
