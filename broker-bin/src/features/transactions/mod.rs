//! Transactions: a message that nobody sees until its producer says what became of its own part.
//!
//! 1. A half message is stored in a queue that nobody reads, with a table entry that says *prepared* and when its producer is asked, in one
//!    batch. A verdict is one batch too: the message's link in its queue and *committed*, or *rolled back*; refused unless the entry still
//!    says what was read.
//! 2. The first outcome wins. The same verdict again gets the same answer, the contrary one is refused, counted and said out loud.
//! 3. A verdict that cannot be written is not answered as done.
//! 4. A producer of the group is asked by due time, until there is a verdict: only questions to somebody who is there and is known to
//!    decide count. After the last one the message is shown in `TRANS_CHECK_MAX_TIME_TOPIC`, counted and said out loud; it is kept, and a
//!    verdict still counts.
//! 5. An outcome is remembered for `limits::OUTCOME_KEPT_MS`, and a little longer: the timer looks through the table for those that are not
//!    needed any more.
//!
//! ```text
//!  half --> Append + txn/… prepared, to be asked at … ---+--- 37 commit ----> Link + txn/… committed
//!                                                        +--- 37 rollback --> txn/… rolled back
//!                  its time: ask (39), up to the most      looked through now and then: what was decided long ago is forgotten
//! ```
//! Source: wire notes, section 2.6.

mod asks;
mod begun;
mod check;
mod half;
mod handler;
mod producers;
mod transaction;

pub use asks::Asks;
pub use begun::{Begun, Recent};
pub use check::{Next, Question, ask, ask_by_entry, forget};
pub use half::{HALF_QUEUE, Half, Halves, NoHalf, Wanted, is_rolled_back, store};
pub use handler::{decide_by_hand, end};
pub use producers::Producers;
pub use transaction::{NextAsk, NotATransaction, Transaction, TransactionId, Verdict};

#[cfg(test)]
mod tests;
