//! Pulling, and waiting for what is not there yet.
//!
//! 1. A pull that finds nothing and may wait is answered when its queue has a matching message, or when its time is up.
//! 2. The next offset never lies before the one asked for, but where the one asked for does not exist (21).
//! 3. A held pull delays nothing else on its connection, and dies with it.
//! 4. Filtering by tag may let too much through, never too little: clients look at the tags again. Filtering by properties is exact,
//!    costs one pull so much at most, and what it cannot be applied to is passed over, counted and said (K-37).

mod encode;
mod handler;
mod read;
mod select;

pub use encode::{encode_as, encode_message};
pub use handler::pull;
pub use read::{Evaluation, Pull, Wanted, evaluate};

#[cfg(test)]
mod tests;
