//! The chain above the log: transactions, delays, retries, order and commits, each held against the same load without it, and the whole
//! chain with every promise against the whole chain with none.
//!
//! ```text
//!  rows --> Drive (one thread): Producer  --send, half, commit--> broker (and its slave)
//!                               Consumer  <--pull, lock, commit---'
//!                                  | what is processed frees what is sent next, in the rows of the whole chain
//! ```
//! 1. What is compared lies side by side, on fresh stores of one disk.
//! 2. Every row reads back what it was promised: the broker of a durable row is killed before.
//!
//! What is deliberately not here: how a single send is measured (`sender.rs`); the four combinations of flush and replication
//! (`matrix.rs`).

mod backlog;
mod bench;
mod commits;
mod consumer;
mod drive;
mod pending;
mod producer;
mod queues;
mod retry;
mod rows;
mod sending;
mod whole;

pub(crate) use bench::Bench;
pub(crate) use rows::{Kind, Step, Wish, base_of, row_names, steps};

use crate::error::PerfError;
use crate::row::RowResult;

/// Measures the rows of one step.
///
/// # Errors
/// When a broker fails; broken promises are not an error but a verdict.
pub(crate) fn measure(kind: Kind, bench: &Bench<'_>) -> Result<Vec<RowResult>, PerfError> {
    match kind {
        Kind::Send | Kind::Transaction | Kind::Delay => sending::measure(kind, bench).map(|row| vec![row]),
        Kind::Pending { count } => pending::measure(count, bench).map(|row| vec![row]),
        Kind::Retry => retry::measure(bench).map(|row| vec![row]),
        Kind::Backlog => backlog::measure(bench),
        Kind::Queues { count } => queues::measure(count, bench).map(|row| vec![row]),
        Kind::Commits => commits::measure(bench).map(|row| vec![row]),
        Kind::Whole { safe } => whole::measure(safe, bench).map(|row| vec![row]),
    }
}
